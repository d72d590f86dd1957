//! The TC entry point: packets as the kernel's stack has them, where checksums
//! may be unfilled and one packet may be a train of segments.

use core::ffi::c_void;

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::generated as helpers;
use ipvs_core::addr::{Addr, Family};
use ipvs_core::behind::{self, BeforeRouting};
use ipvs_core::director::{self, Arrival, Scratch};
use ipvs_core::hop::HOST_DOOR;
use ipvs_core::own;
use ipvs_core::settings::Settings;
use ipvs_core::tables::Tables as _;
use ipvs_core::verdict::{Reason, Stage, Verdict};
use ipvs_wire::checksum::Delta;
use ipvs_wire::tunnel::Carrier;
use ipvs_wire::{Buffer, Outer, ethernet, ipv4, ipv6};

use crate::bytes::{self, Read};
use crate::tables::{self, Maps};
use crate::{kernel, maps, slow};

/// Let the next program, or the stack, go on with the packet.
const TC_ACT_UNSPEC: i32 = -1;
/// Drop the packet.
const TC_ACT_SHOT: i32 = 2;
/// `pkt_type` of a packet to this host's MAC address.
const PACKET_HOST: u32 = 0;
/// `tc_index` of a packet whose TTL [`ipvs_tc_arriving`] has raised to 2, since the host does
/// not send on what has no hop left, with the TTL that it came with added. It is 16 bits, and
/// of no use to anybody but some queueing disciplines.
const LENGTHENED: u32 = 0x6970;
/// `tc_index` of an answer that was counted already: it came in by an interface whose packets
/// pass no firewall before, or the director has made it.
const COUNTED: u32 = 0x6972;
/// Octets that hold the headers the director reads: Ethernet with a tag, IPv6
/// with some extensions, TCP.
const HEADERS_LEN: u32 = 128;
/// Longest frame that is quoted in an error, with what stands in front of it.
const QUOTED_LEN: u32 = 1300;

/// `BPF_F_PSEUDO_HDR`: the change is to the pseudo header.
const PSEUDO_HEADER: u64 = 1 << 4;
/// `BPF_F_MARK_MANGLED_0`: a UDP checksum of 0 is none.
const MARK_MANGLED_0: u64 = 1 << 5;
/// `BPF_ADJ_ROOM_MAC`: room behind the Ethernet header.
const ROOM_MAC: u32 = 1;
/// `BPF_F_ADJ_ROOM_FIXED_GSO`: segments keep their size.
const FIXED_GSO: u64 = 1;
/// `BPF_F_ADJ_ROOM_ENCAP_L3_IPV4`
const ENCAP_IPV4: u64 = 1 << 1;
/// `BPF_F_ADJ_ROOM_ENCAP_L3_IPV6`
const ENCAP_IPV6: u64 = 1 << 2;
/// `BPF_F_ADJ_ROOM_ENCAP_L4_GRE`
const ENCAP_GRE: u64 = 1 << 3;
/// `BPF_F_ADJ_ROOM_ENCAP_L4_UDP`
const ENCAP_UDP: u64 = 1 << 4;
/// `BPF_F_INGRESS`: the packet comes in by the interface, instead of leaving by it.
const REDIRECT_INGRESS: u64 = 1;
/// Octets of the shortest `struct bpf_tunnel_key` that the kernel knows: number and address.
const LEAST_TUNNEL_KEY: usize = 8;
/// Where a frame without a tag says what it holds.
const ETHERTYPE_AT: u32 = 12;
const AF_INET: u32 = 2;
const AF_INET6: u32 = 10;

/// `struct __sk_buff` as far as it is used, without its two pointers: with
/// them the compiler writes forward declarations whose order is not stable.
#[repr(C)]
pub(crate) struct SkBuff {
    pub(crate) len: u32,
    pkt_type: u32,
    pub(crate) mark: u32,
    queue_mapping: u32,
    protocol: u32,
    pub(crate) vlan_present: u32,
    pub(crate) vlan_tci: u32,
    pub(crate) vlan_proto: u32,
    priority: u32,
    ingress_ifindex: u32,
    pub(crate) ifindex: u32,
    tc_index: u32,
    unused2: [u32; 7],
    data: u32,
    data_end: u32,
    unused3: [u32; 23],
    pub(crate) gso_size: u32,
}

impl SkBuff {
    /// The interface it came in by, also where the host sends it on.
    #[inline(always)]
    pub(crate) fn arrived_by(&self) -> u32 {
        self.ingress_ifindex
    }
}

const _: () = assert!(core::mem::offset_of!(SkBuff, data) == 76);
const _: () = assert!(core::mem::offset_of!(SkBuff, gso_size) == 176);

/// `struct bpf_redir_neigh` of the kernel's UAPI.
#[repr(C)]
pub(crate) struct Neighbour {
    family: u32,
    next: Addr,
}

/// A packet in the stack.
struct SkbFrame {
    ctx: *mut SkBuff,
}

impl SkbFrame {
    #[inline(always)]
    fn raw(&self) -> *mut __sk_buff {
        self.ctx.cast()
    }

    #[inline(always)]
    fn data(&self) -> usize {
        // SAFETY: the context is this program's.
        unsafe { (*self.ctx).data as usize }
    }

    #[inline(always)]
    fn end(&self) -> usize {
        // SAFETY: the context is this program's.
        unsafe { (*self.ctx).data_end as usize }
    }

    /// Marks a packet that is not marked: filters of the queueing discipline that
    /// it leaves through see it.
    #[inline(always)]
    fn give_mark(&self, mark: u32) {
        // SAFETY: the context is this program's.
        let present = unsafe { &mut (*self.ctx).mark };
        if mark != 0 && *present == 0 {
            *present = mark;
        }
    }

    /// Makes the first `len` octets reachable, or all if there are fewer.
    #[inline(always)]
    fn pull(&self, len: u32) {
        let all = self.len();
        let len = if all < len { all } else { len };
        if self.data() + (len as usize) > self.end() {
            // SAFETY: the context is this program's. On failure later loads fail.
            unsafe { helpers::bpf_skb_pull_data(self.raw(), len) };
        }
    }
}

impl Read for SkbFrame {
    /// Reads what is not linear too.
    #[inline(always)]
    fn read<const N: usize>(&self, at: u32) -> Option<[u8; N]> {
        let mut octets = [0; N];
        // SAFETY: the helper writes the `N` octets it is given.
        let failed = unsafe {
            helpers::bpf_skb_load_bytes(
                self.ctx.cast::<c_void>(),
                at,
                octets.as_mut_ptr().cast(),
                N as u32,
            )
        };
        (failed == 0).then_some(octets)
    }
}

impl Buffer for SkbFrame {
    #[inline(always)]
    fn load<const N: usize>(&self, at: u32) -> Option<[u8; N]> {
        bytes::load(self.data(), self.end(), at)
    }

    #[inline(always)]
    fn store<const N: usize>(&mut self, at: u32, octets: [u8; N]) -> Option<()> {
        bytes::store(self.data(), self.end(), at, octets)
    }

    #[inline(always)]
    fn load_words<const N: usize>(&self, at: u32) -> Option<[u32; N]> {
        bytes::load_words(self.data(), self.end(), at)
    }

    #[inline(always)]
    fn store_words<const N: usize>(&mut self, at: u32, words: [u32; N]) -> Option<()> {
        bytes::store_words(self.data(), self.end(), at, words)
    }

    #[inline(always)]
    fn len(&self) -> u32 {
        // SAFETY: the context is this program's.
        unsafe { (*self.ctx).len }
    }

    #[inline(always)]
    fn segment_len(&self) -> u32 {
        // SAFETY: the context is this program's.
        unsafe { (*self.ctx).gso_size }
    }

    #[inline(always)]
    fn reach(&mut self, count: u32) {
        self.pull(count);
    }

    #[inline(always)]
    fn insert(&mut self, at: u32, count: u32, outer: Outer) -> Option<()> {
        if at != ethernet::HEADER_LEN {
            return None;
        }
        let flags = match outer {
            Outer::TunnelV4(carrier) => ENCAP_IPV4 | encapsulation(carrier),
            Outer::TunnelV6(carrier) => ENCAP_IPV6 | encapsulation(carrier),
            Outer::Own => 0,
        };
        let room = |flags| {
            // SAFETY: the context is this program's.
            unsafe { helpers::bpf_skb_adjust_room(self.raw(), count as i32, ROOM_MAC, flags) == 0 }
        };
        // Segments of TCP are made smaller so that they fit with the header;
        // those of UDP are datagrams, which cannot.
        (room(flags) || room(flags | FIXED_GSO)).then_some(())
    }

    #[inline(always)]
    fn remove(&mut self, at: u32, count: u32) -> Option<()> {
        if at != ethernet::HEADER_LEN {
            return None;
        }
        // SAFETY: the context is this program's.
        let failed =
            unsafe { helpers::bpf_skb_adjust_room(self.raw(), -(count as i32), ROOM_MAC, 0) };
        (failed == 0).then_some(())
    }

    #[inline(always)]
    fn truncate(&mut self, len: u32) -> Option<()> {
        if self.len() > len {
            // SAFETY: the context is this program's.
            if unsafe { helpers::bpf_skb_change_tail(self.raw(), len, 0) } != 0 {
                return None;
            }
        }
        self.pull(QUOTED_LEN);
        Some(())
    }

    #[inline(always)]
    fn sum(&self, at: u32, count: u32) -> Option<u16> {
        bytes::sum(self, at, count)
    }

    #[inline(always)]
    fn crc32c(&self, at: u32, count: u32, zeroed: u32) -> Option<u32> {
        bytes::crc32c(self, at, count, zeroed)
    }

    #[inline(always)]
    fn patch_transport(&mut self, at: u32, pseudo: Delta, ports: Delta, udp: bool) -> Option<()> {
        let udp = if udp { MARK_MANGLED_0 } else { 0 };
        // SAFETY: the context is this program's.
        let failed = unsafe {
            helpers::bpf_l4_csum_replace(
                self.raw(),
                at,
                0,
                u64::from(pseudo.partial()),
                PSEUDO_HEADER | udp,
            )
        };
        if failed != 0 {
            return None;
        }
        // SAFETY: the context is this program's.
        let failed = unsafe {
            helpers::bpf_l4_csum_replace(self.raw(), at, 0, u64::from(ports.partial()), udp)
        };
        (failed == 0).then_some(())
    }
}

/// What the stack is to know of a tunnel besides its family, to cut trains in it.
#[inline(always)]
const fn encapsulation(carrier: Carrier) -> u64 {
    match carrier {
        Carrier::Bare => 0,
        Carrier::Gue { .. } => ENCAP_UDP,
        Carrier::Gre { .. } => ENCAP_GRE,
    }
}

#[unsafe(no_mangle)]
#[unsafe(link_section = "classifier")]
extern "C" fn ipvs_tc(ctx: *mut SkBuff) -> i32 {
    let Some(settings) = tables::settings() else { return TC_ACT_UNSPEC };
    // SAFETY: the context is this program's.
    let (kind, ifindex) = unsafe { ((*ctx).pkt_type, (*ctx).arrived_by()) };
    if kind != PACKET_HOST {
        return TC_ACT_UNSPEC;
    }
    let mut frame = SkbFrame { ctx };
    frame.pull(HEADERS_LEN);
    let maps = Maps::<true> { ctx: ctx.cast(), ifindex, settings };
    let Some(scratch) = maps::scratch() else { return TC_ACT_UNSPEC };
    // SAFETY: the context is this program's.
    let arrival = Arrival { ifindex, mark: unsafe { (*ctx).mark } };
    let verdict = director::handle(&mut frame, &maps, scratch, arrival, kernel::now(settings));
    act(ctx, &maps, scratch, verdict)
}

/// On the way out of an interface: a packet that the host itself has made may be a reply of
/// a destination on the host.
#[unsafe(no_mangle)]
#[unsafe(link_section = "classifier")]
extern "C" fn ipvs_egress(ctx: *mut SkBuff) -> i32 {
    // SAFETY: the context is this program's.
    let (came_by, ifindex) = unsafe { ((*ctx).ingress_ifindex, (*ctx).ifindex) };
    // What came in by an interface has been seen there.
    if came_by != 0 {
        return TC_ACT_UNSPEC;
    }
    // SAFETY: the context is this program's.
    let priority = unsafe { &mut (*ctx).priority };
    if *priority == own::FROM_DAEMON {
        *priority = 0;
        return TC_ACT_UNSPEC;
    }
    let Some(settings) = tables::settings() else { return TC_ACT_UNSPEC };
    let mut frame = SkbFrame { ctx };
    frame.pull(HEADERS_LEN);
    let maps = Maps::<true> { ctx: ctx.cast(), ifindex, settings };
    let Some(scratch) = maps::scratch() else { return TC_ACT_UNSPEC };
    let now = kernel::now(settings);
    match own::handle(&mut frame, &maps, scratch, ifindex, now) {
        Verdict::Drop(_) => TC_ACT_SHOT,
        _ => {
            frame.give_mark(scratch.mark());
            TC_ACT_UNSPEC
        }
    }
}

/// Goes on with an ICMP packet that [`ipvs_tc`] has read.
#[unsafe(no_mangle)]
#[unsafe(link_section = "classifier")]
extern "C" fn ipvs_tc_icmp(ctx: *mut SkBuff) -> i32 {
    go_on(ctx, Stage::Icmp)
}

/// Goes on with a packet of no known connection.
#[unsafe(no_mangle)]
#[unsafe(link_section = "classifier")]
extern "C" fn ipvs_tc_admission(ctx: *mut SkBuff) -> i32 {
    go_on(ctx, Stage::Admission)
}

/// Goes on with a packet of the connection that [`ipvs_tc_admission`] has found.
#[unsafe(no_mangle)]
#[unsafe(link_section = "classifier")]
extern "C" fn ipvs_tc_forwarding(ctx: *mut SkBuff) -> i32 {
    go_on(ctx, Stage::Forwarding)
}

/// Goes on with a packet that is answered by an error.
#[unsafe(no_mangle)]
#[unsafe(link_section = "classifier")]
extern "C" fn ipvs_tc_refusal(ctx: *mut SkBuff) -> i32 {
    go_on(ctx, Stage::Refusal)
}

/// Goes on with an ICMP packet that may be about a tunnel's.
#[unsafe(no_mangle)]
#[unsafe(link_section = "classifier")]
extern "C" fn ipvs_tc_tunnelled(ctx: *mut SkBuff) -> i32 {
    go_on(ctx, Stage::Tunnelled)
}

/// One stage of a packet's way.
#[inline(always)]
fn go_on(ctx: *mut SkBuff, stage: Stage) -> i32 {
    let Some(settings) = tables::settings() else { return TC_ACT_UNSPEC };
    // SAFETY: the context is this program's.
    let ifindex = unsafe { (*ctx).arrived_by() };
    let mut frame = SkbFrame { ctx };
    let maps = Maps::<true> { ctx: ctx.cast(), ifindex, settings };
    let Some(scratch) = maps::scratch() else { return TC_ACT_UNSPEC };
    let now = kernel::now(settings);
    let verdict = director::go_on(stage, &mut frame, &maps, scratch, ifindex, now);
    if stage == Stage::Refusal {
        // SAFETY: the context is this program's.
        unsafe { (*ctx).tc_index = COUNTED };
    }
    act(ctx, &maps, scratch, verdict)
}

/// Where the host has routed a packet to its side of the door: a client's, that has
/// passed the host's firewall.
#[unsafe(no_mangle)]
#[unsafe(link_section = "classifier")]
extern "C" fn ipvs_tc_routed(ctx: *mut SkBuff) -> i32 {
    balance_sent_on(ctx);
    // Nobody is behind the door who could do something with it.
    TC_ACT_SHOT
}

/// Where packets come in that are to pass the host's firewall first. What answers the
/// host's own requests is not sent on, and would reach the host untranslated; nor are errors
/// from inside tunnels, which the host itself has sent.
#[unsafe(no_mangle)]
#[unsafe(link_section = "classifier")]
extern "C" fn ipvs_tc_arriving(ctx: *mut SkBuff) -> i32 {
    let Some(settings) = tables::settings() else { return TC_ACT_UNSPEC };
    // SAFETY: the context is this program's.
    let (kind, ifindex) = unsafe { ((*ctx).pkt_type, (*ctx).arrived_by()) };
    if kind != PACKET_HOST {
        return TC_ACT_UNSPEC;
    }
    let mut frame = SkbFrame { ctx };
    frame.pull(HEADERS_LEN);
    let maps = Maps::<true> { ctx: ctx.cast(), ifindex, settings };
    let Some(scratch) = maps::scratch() else { return TC_ACT_UNSPEC };
    let now = kernel::now(settings);
    match behind::before_routing(&mut frame, &maps, scratch, ifindex, now) {
        BeforeRouting::Nothing => {}
        BeforeRouting::Handle => maps::begin_by_tc(ctx.cast()),
        BeforeRouting::Lengthen(ttl) => {
            if raise(&mut frame).is_some() && (ttl != 0 || raise(&mut frame).is_some()) {
                // SAFETY: the context is this program's.
                unsafe { (*ctx).tc_index = LENGTHENED + u32::from(ttl) };
            }
        }
    }
    TC_ACT_UNSPEC
}

/// Where a packet leaves that the host sends on: a destination's, that has passed
/// the host's firewall, is translated, or counted.
#[unsafe(no_mangle)]
#[unsafe(link_section = "classifier")]
extern "C" fn ipvs_tc_leaving(ctx: *mut SkBuff) -> i32 {
    let Some(settings) = tables::settings() else { return TC_ACT_UNSPEC };
    // SAFETY: the context is this program's.
    let (kind, from) = unsafe { ((*ctx).pkt_type, (*ctx).arrived_by()) };
    // The host's own comes from nowhere, and what came by the door was seen before.
    if kind != PACKET_HOST || from == 0 || from == settings.door {
        return TC_ACT_UNSPEC;
    }
    // SAFETY: the context is this program's.
    let index = unsafe { &mut (*ctx).tc_index };
    if *index == COUNTED {
        *index = 0;
        return TC_ACT_UNSPEC;
    }
    let mut frame = SkbFrame { ctx };
    frame.pull(HEADERS_LEN);
    let maps = Maps::<true> { ctx: ctx.cast(), ifindex: from, settings };
    let Some(scratch) = maps::scratch() else { return TC_ACT_UNSPEC };
    if behind::translates(&mut frame, &maps, scratch, from, kernel::now(settings)) {
        scratch.is_sent_on = true;
        balance_sent_on(ctx);
    }
    TC_ACT_UNSPEC
}

/// Goes on with a packet that the host sends on as with one that has come in:
/// the director lowers the TTL itself. Returns only if it cannot.
#[inline(always)]
fn balance_sent_on(ctx: *mut SkBuff) {
    let mut frame = SkbFrame { ctx };
    frame.pull(HEADERS_LEN);
    // SAFETY: the context is this program's.
    let index = unsafe { &mut (*ctx).tc_index };
    let came_with = index.wrapping_sub(LENGTHENED);
    if came_with <= 1 {
        *index = 0;
    }
    // A TTL that was raised is 1 now.
    let is_as_it_came = match came_with {
        0 => lower(&mut frame),
        1 => Some(()),
        _ => raise(&mut frame),
    };
    if is_as_it_came.is_some() {
        maps::begin_by_tc(ctx.cast());
    }
}

/// Raises the TTL by one.
#[inline(always)]
fn raise(frame: &mut SkbFrame) -> Option<()> {
    match frame.load(ETHERTYPE_AT).map(u16::from_be_bytes) {
        Some(ethernet::IPV4) => ipv4::increment_ttl(frame, ethernet::HEADER_LEN),
        Some(ethernet::IPV6) => ipv6::increment_hop_limit(frame, ethernet::HEADER_LEN),
        _ => None,
    }
}

/// Lowers the TTL by one.
#[inline(always)]
fn lower(frame: &mut SkbFrame) -> Option<()> {
    match frame.load(ETHERTYPE_AT).map(u16::from_be_bytes) {
        Some(ethernet::IPV4) => ipv4::decrement_ttl(frame, ethernet::HEADER_LEN),
        Some(ethernet::IPV6) => ipv6::decrement_hop_limit(frame, ethernet::HEADER_LEN),
        _ => None,
    }
}

/// Gives the packet to the host: it is on its way there, or was routed to the door
/// and comes in by that, or goes on as the host sent it.
#[inline(always)]
fn pass(ctx: *mut SkBuff, settings: &Settings, is_sent_on: bool) -> i32 {
    if is_sent_on {
        return as_sent_on(ctx);
    }
    // SAFETY: the context is this program's.
    if unsafe { (*ctx).ifindex } != settings.door {
        return TC_ACT_UNSPEC;
    }
    // SAFETY: the helper has no precondition.
    unsafe { helpers::bpf_redirect(settings.door, REDIRECT_INGRESS) as i32 }
}

/// Lets a packet go that the host sends on, with its TTL as that has lowered it.
#[inline(never)]
fn as_sent_on(ctx: *mut SkBuff) -> i32 {
    let mut frame = SkbFrame { ctx };
    frame.pull(HEADERS_LEN);
    if lower(&mut frame).is_some() { TC_ACT_UNSPEC } else { TC_ACT_SHOT }
}

/// Takes off the VLAN tag, which the stack keeps beside the packet, where that leaves by
/// another interface: the tag is of the network that it came from.
#[inline(always)]
fn leave_tag(ctx: *mut SkBuff, ifindex: u32) {
    // SAFETY: the context is this program's.
    unsafe {
        if (*ctx).vlan_present != 0 && ifindex != (*ctx).ifindex {
            helpers::bpf_skb_vlan_pop(ctx.cast());
        }
    }
}

/// Takes off the route by which the host was about to send the packet on, or had sent it to
/// itself: a packet that has waited for its neighbour leaves by its route, and not by the
/// neighbour. The kernel has no helper for that, but one that puts the word for a tunnel in
/// its place, which leads nowhere; only interfaces look at it that are told by it where to.
#[inline(always)]
fn leave_route(ctx: *mut SkBuff) {
    let mut key = [0_u8; LEAST_TUNNEL_KEY];
    // SAFETY: the helper reads the octets it is given. On failure it leaves all as it was.
    unsafe {
        helpers::bpf_skb_set_tunnel_key(
            ctx.cast(),
            key.as_mut_ptr().cast(),
            LEAST_TUNNEL_KEY as u32,
            0,
        );
    }
}

/// Does what the verdict says.
#[inline(always)]
fn act(ctx: *mut SkBuff, maps: &Maps<true>, scratch: &mut Scratch, verdict: Verdict) -> i32 {
    if let Verdict::GoOn(stage) = verdict {
        maps::go_on_by_tc(ctx.cast(), stage);
    }
    let is_sent_on = core::mem::take(&mut scratch.is_sent_on);
    match verdict {
        Verdict::Pass(reason) => {
            if reason == Reason::DirectReply {
                // SAFETY: the context is this program's.
                unsafe { (*ctx).tc_index = COUNTED };
            }
            pass(ctx, maps.settings, is_sent_on)
        }
        Verdict::GoOn(_) => TC_ACT_UNSPEC,
        Verdict::Drop(_) => TC_ACT_SHOT,
        Verdict::Deliver => {
            let mut frame = SkbFrame { ctx };
            if ethernet::set_addresses(&mut frame, HOST_DOOR, HOST_DOOR).is_none() {
                return TC_ACT_SHOT;
            }
            // SAFETY: the helper has no precondition.
            unsafe { helpers::bpf_redirect(maps.settings.door, REDIRECT_INGRESS) as i32 }
        }
        Verdict::Defer(reason) => {
            maps.count(if slow::hand_over(ctx) { reason } else { Reason::DeferredLost });
            TC_ACT_SHOT
        }
        Verdict::Send { ifindex, .. } => {
            SkbFrame { ctx }.give_mark(scratch.mark());
            leave_tag(ctx, ifindex);
            // SAFETY: the helper has no precondition.
            unsafe { helpers::bpf_redirect(ifindex, 0) as i32 }
        }
        Verdict::Resolve { ifindex } => {
            SkbFrame { ctx }.give_mark(scratch.mark());
            leave_tag(ctx, ifindex);
            let (family, next) = scratch.neighbour();
            let family = match family {
                Family::V4 => AF_INET,
                Family::V6 => AF_INET6,
            };
            let Some(neighbour) = maps::IPVS_NEIGHBOUR.get_ptr_mut(0) else { return TC_ACT_SHOT };
            leave_route(ctx);
            // SAFETY: the element is this CPU's own and has the kernel's layout.
            unsafe {
                *neighbour = Neighbour { family, next };
                helpers::bpf_redirect_neigh(
                    ifindex,
                    neighbour.cast(),
                    size_of::<Neighbour>() as i32,
                    0,
                ) as i32
            }
        }
    }
}
