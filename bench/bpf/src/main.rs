//! The eBPF programs of the bench: a generator that writes each packet afresh,
//! the floor that any balancer stands on, and a sink that looks at what comes.

#![no_std]
#![no_main]
#![expect(unsafe_code, reason = "packet memory and maps are reached by raw pointers")]

use aya_ebpf::bindings::{xdp_action, xdp_md};
use aya_ebpf::btf_maps::{Array, PerCpuArray, ProgramArray};
use aya_ebpf::helpers::generated as helpers;
use aya_ebpf::macros::btf_map;
use ipvs_bench_programs::headers::{Ethernet, GRE, Ip, Ipv4, Ipv6, TCP, Tcp, UDP};
use ipvs_bench_programs::records::{
    Counts, Cursor, Expectation, Floor, KEPT, LONGEST, Next, PARTS, Plan, client,
};
use ipvs_wire::checksum::{Delta, Sum};
use zerocopy::byteorder::network_endian::U32;

/// The kernel lends its GPL-only helpers to programs that say this.
#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // Never linked: an object with a panic path in it is refused by its build.
    loop {}
}

#[btf_map]
static BENCH_PLAN: Array<Plan, 1> = Array::new();
#[btf_map]
static BENCH_CURSOR: PerCpuArray<Cursor, 1> = PerCpuArray::new();
#[btf_map]
static BENCH_FLOOR: Array<Floor, 1> = Array::new();
#[btf_map]
static BENCH_EXPECTATION: Array<Expectation, 1> = Array::new();
#[btf_map]
static BENCH_COUNTS: PerCpuArray<Counts, 1> = PerCpuArray::new();
/// Replies that came back to the client.
#[btf_map]
static BENCH_REPLIES: PerCpuArray<u64, 1> = PerCpuArray::new();
/// A wrong frame, for whoever wants to know why.
#[btf_map]
static BENCH_WRONG: Array<[u8; KEPT], 1> = Array::new();

/// Where each part of all packets begins, in ranks of flows.
#[btf_map]
static BENCH_RANKS: Array<u32, { PARTS as usize + 1 }> = Array::new();
/// The programs that are run with a packet restored: an XDP and a TC program.
#[btf_map]
static BENCH_XDP_PROGRAM: ProgramArray<1> = ProgramArray::new();
#[btf_map]
static BENCH_TC_PROGRAM: ProgramArray<1> = ProgramArray::new();

/// A sequence number of the side that answers.
const ANSWER: u32 = 0x0100_0000;

#[derive(Clone, Copy)]
#[repr(C)]
struct Frame<I> {
    ethernet: Ethernet,
    ip: I,
    tcp: Tcp,
}

/// With `N` octets of what carries the packet in its tunnel.
#[repr(C)]
struct Tunnelled<I, const N: usize> {
    ethernet: Ethernet,
    outer: I,
    carrier: [u8; N],
    ip: I,
    tcp: Tcp,
}

/// The beginning of the frame as a `T`, which has no alignment, if it is that long.
#[inline(always)]
fn view<'a, T>(ctx: *mut xdp_md) -> Option<&'a mut T> {
    // SAFETY: the context is this program's.
    at(unsafe { ((*ctx).data as usize, (*ctx).data_end as usize) })
}

/// The same between two places of a packet.
#[inline(always)]
fn at<'a, T>((start, end): (usize, usize)) -> Option<&'a mut T> {
    const { assert!(align_of::<T>() == 1) };
    if start + size_of::<T>() > end {
        return None;
    }
    // SAFETY: the octets lie in the frame, which is this program's alone.
    Some(unsafe { &mut *(start as *mut T) })
}

/// Writes the whole header, each time: the frame comes back as others left it.
#[inline(always)]
fn write_headers<I>(frame: &mut Frame<I>, headers: &[u8; LONGEST]) {
    const WORD: usize = size_of::<u64>();
    const { assert!(size_of::<Frame<I>>() <= LONGEST) };
    let (from, to) = (headers.as_ptr(), (&raw mut *frame).cast::<u8>());
    // By the word, which the compiler would not do with what may overlap; and
    // the last word over the end of the one before.
    for word in 0..size_of::<Frame<I>>().div_ceil(WORD) {
        let at = (word * WORD).min(size_of::<Frame<I>>() - WORD);
        // SAFETY: both have the octets, since no word ends behind the frame.
        unsafe {
            to.add(at).cast::<u64>().write_unaligned(from.add(at).cast::<u64>().read_unaligned());
        }
    }
}

/// Makes the next packet of the plan; `None` if there is no plan or no room.
#[inline(always)]
fn write_next<I: Ip>(frame: Option<&mut Frame<I>>) -> Option<()> {
    let plan = BENCH_PLAN.get(0)?;
    let cursor = BENCH_CURSOR.get_ptr_mut(0)?;
    let frame = frame?;
    let rank = |part| BENCH_RANKS.get(part).copied().unwrap_or(0);
    // SAFETY: the element is this CPU's own.
    let Next { flow, opens } = unsafe { (*cursor).step(plan, rank) };
    let (offset, port) = client(flow);
    let address = plan.clients + offset;
    write_headers(frame, &plan.headers);
    frame.ip.set_client(address, Sum::ZERO.add32(plan.ip_sum));
    frame.tcp.source.set(port);
    let mut sum = plan.sum;
    if opens {
        frame.tcp.sequence.set(plan.sequence);
        frame.tcp.acknowledgement.set(0);
        frame.tcp.flags = Tcp::SYN;
        sum = plan.opening_sum;
    }
    let sum = Sum::ZERO.add32(sum).add32(address.to_be()).add16(port.to_be());
    let checksum = sum.checksum().to_ne_bytes();
    if plan.udp == 0 {
        frame.tcp.checksum = checksum;
    } else {
        // Behind ports and length.
        let [a, b, ..] = frame.tcp.sequence.to_bytes();
        let [c, d] = checksum;
        frame.tcp.sequence = U32::from_bytes([a, b, c, d]);
    }
    Some(())
}

#[inline(always)]
fn generate<I: Ip>(ctx: *mut xdp_md) -> u32 {
    match write_next(view::<Frame<I>>(ctx)) {
        Some(()) => xdp_action::XDP_TX,
        None => xdp_action::XDP_ABORTED,
    }
}

/// Restores the packet, whatever became of it the time before, and goes on with the
/// program that is measured.
#[inline(always)]
fn run_xdp<I: Ip>(ctx: *mut xdp_md) -> u32 {
    let Some(plan) = BENCH_PLAN.get(0) else { return xdp_action::XDP_ABORTED };
    // SAFETY: the context is this program's.
    let len = unsafe { helpers::bpf_xdp_get_buff_len(ctx) };
    let longer = (len as u32).wrapping_sub(plan.frame_len) as i32;
    // What was put in front is taken off.
    // SAFETY: the context is this program's.
    if longer != 0 && unsafe { helpers::bpf_xdp_adjust_head(ctx, longer) } != 0 {
        return xdp_action::XDP_ABORTED;
    }
    if write_next(view::<Frame<I>>(ctx)).is_some() {
        let programs = (&raw const BENCH_XDP_PROGRAM).cast_mut().cast();
        // SAFETY: the context is this program's, the array one of XDP programs.
        unsafe { helpers::bpf_tail_call(ctx.cast(), programs, 0) };
    }
    xdp_action::XDP_ABORTED
}

#[unsafe(no_mangle)]
#[unsafe(link_section = "xdp")]
extern "C" fn bench_run4(ctx: *mut xdp_md) -> u32 {
    run_xdp::<Ipv4>(ctx)
}

#[unsafe(no_mangle)]
#[unsafe(link_section = "xdp")]
extern "C" fn bench_run6(ctx: *mut xdp_md) -> u32 {
    run_xdp::<Ipv6>(ctx)
}

/// What a run costs without any program: an XDP one.
#[unsafe(no_mangle)]
#[unsafe(link_section = "xdp")]
extern "C" fn bench_noop(_ctx: *mut xdp_md) -> u32 {
    xdp_action::XDP_PASS
}

const _: () = assert!(size_of::<Tunnelled<Ipv6, 12>>() == KEPT);

#[unsafe(no_mangle)]
#[unsafe(link_section = "xdp")]
extern "C" fn bench_generate4(ctx: *mut xdp_md) -> u32 {
    generate::<Ipv4>(ctx)
}

#[unsafe(no_mangle)]
#[unsafe(link_section = "xdp")]
extern "C" fn bench_generate6(ctx: *mut xdp_md) -> u32 {
    generate::<Ipv6>(ctx)
}

#[inline(always)]
fn set_addresses(ethernet: &mut Ethernet, floor: &Floor) {
    // SAFETY: the header begins with both addresses.
    unsafe { (&raw mut *ethernet).cast::<[u32; 3]>().write_unaligned(floor.addresses) };
}

/// Sets the addresses of the frame and sends it on: what nobody can leave out.
#[unsafe(no_mangle)]
#[unsafe(link_section = "xdp")]
extern "C" fn bench_floor(ctx: *mut xdp_md) -> u32 {
    let Some(floor) = BENCH_FLOOR.get(0) else { return xdp_action::XDP_ABORTED };
    let Some(ethernet) = view::<Ethernet>(ctx) else { return xdp_action::XDP_PASS };
    set_addresses(ethernet, floor);
    // SAFETY: the helper has no precondition.
    unsafe { helpers::bpf_redirect(floor.ifindex, 0) as u32 }
}

/// `struct __sk_buff` as far as it is used, without its two pointers: with
/// them the compiler writes forward declarations whose order is not stable.
#[repr(C)]
struct SkBuff {
    len: u32,
    unused: [u32; 18],
    data: u32,
    data_end: u32,
}

impl SkBuff {
    /// Between which places the packet lies.
    #[inline(always)]
    fn ends(ctx: *mut Self) -> (usize, usize) {
        // SAFETY: whoever has a context has it for himself.
        unsafe { ((*ctx).data as usize, (*ctx).data_end as usize) }
    }
}

/// Restores the packet, whatever became of it the time before, and goes on with the
/// program that is measured.
#[inline(always)]
fn run_tc<I: Ip>(ctx: *mut SkBuff) -> i32 {
    const SHOT: i32 = 2;
    const ROOM_MAC: u32 = 1;
    let Some(plan) = BENCH_PLAN.get(0) else { return SHOT };
    // SAFETY: the context is this program's.
    let longer = unsafe { (*ctx).len.wrapping_sub(plan.frame_len) as i32 };
    if longer != 0 {
        // SAFETY: the context is this program's.
        if unsafe { helpers::bpf_skb_adjust_room(ctx.cast(), -longer, ROOM_MAC, 0) } != 0 {
            return SHOT;
        }
    }
    if write_next(at::<Frame<I>>(SkBuff::ends(ctx))).is_some() {
        let programs = (&raw const BENCH_TC_PROGRAM).cast_mut().cast();
        // SAFETY: the context is this program's, the array one of TC programs.
        unsafe { helpers::bpf_tail_call(ctx.cast(), programs, 0) };
    }
    SHOT
}

#[unsafe(no_mangle)]
#[unsafe(link_section = "classifier")]
extern "C" fn bench_tc_run4(ctx: *mut SkBuff) -> i32 {
    run_tc::<Ipv4>(ctx)
}

#[unsafe(no_mangle)]
#[unsafe(link_section = "classifier")]
extern "C" fn bench_tc_run6(ctx: *mut SkBuff) -> i32 {
    run_tc::<Ipv6>(ctx)
}

/// What a run costs without any program: a TC one.
#[unsafe(no_mangle)]
#[unsafe(link_section = "classifier")]
extern "C" fn bench_tc_noop(_ctx: *mut SkBuff) -> i32 {
    0
}

/// The same with the kernel's packet structure: what the stack costs that is
/// around a TC program.
#[unsafe(no_mangle)]
#[unsafe(link_section = "classifier")]
extern "C" fn bench_tc_floor(ctx: *mut SkBuff) -> i32 {
    const UNSPEC: i32 = -1;
    let Some(floor) = BENCH_FLOOR.get(0) else { return UNSPEC };
    let Some(ethernet) = at::<Ethernet>(SkBuff::ends(ctx)) else { return UNSPEC };
    if !matches!(ethernet.kind.get(), Ipv4::ETHERTYPE | Ipv6::ETHERTYPE) {
        return UNSPEC;
    }
    set_addresses(ethernet, floor);
    // SAFETY: the helper has no precondition.
    unsafe { helpers::bpf_redirect(floor.ifindex, 0) as i32 }
}

/// Whether it is of the bench, and not what hosts say among themselves.
#[inline(always)]
fn is_ours<I: Ip>(ip: &I) -> bool {
    matches!(ip.protocol(), TCP | UDP)
}

/// Counts the replies that reach the client.
#[unsafe(no_mangle)]
#[unsafe(link_section = "xdp")]
extern "C" fn bench_client(ctx: *mut xdp_md) -> u32 {
    let Some(count) = BENCH_REPLIES.get_ptr_mut(0) else { return xdp_action::XDP_ABORTED };
    let is_reply = match view::<Ethernet>(ctx).map(|ethernet| ethernet.kind.get()) {
        Some(Ipv4::ETHERTYPE) => view::<Frame<Ipv4>>(ctx).is_some_and(|f| is_ours(&f.ip)),
        Some(Ipv6::ETHERTYPE) => view::<Frame<Ipv6>>(ctx).is_some_and(|f| is_ours(&f.ip)),
        _ => false,
    };
    if !is_reply {
        return xdp_action::XDP_PASS;
    }
    // SAFETY: the element is this CPU's own.
    unsafe { *count += 1 };
    xdp_action::XDP_DROP
}

/// What a frame is to the sink.
#[derive(PartialEq, Eq)]
enum Kind {
    Right,
    Wrong,
    Other,
}

#[inline(always)]
fn sink<I: Ip>(ctx: *mut xdp_md) -> u32 {
    let Some(expectation) = BENCH_EXPECTATION.get(0) else { return xdp_action::XDP_ABORTED };
    let Some(counts) = BENCH_COUNTS.get_ptr_mut(0) else { return xdp_action::XDP_ABORTED };
    // SAFETY: the element is this CPU's own.
    let counts = unsafe { &mut *counts };
    let kind = match (expectation.tunnel.count, expectation.carrier_len) {
        (0, _) => plain::<I>(ctx, expectation),
        (_, 0) => tunnelled::<I, 0>(ctx, expectation),
        (_, 4) => tunnelled::<I, 4>(ctx, expectation),
        _ => tunnelled::<I, 12>(ctx, expectation),
    };
    match kind {
        Kind::Right => {
            counts.right += 1;
            if expectation.answers != 0 { answer::<I>(ctx) } else { xdp_action::XDP_DROP }
        }
        Kind::Wrong => {
            counts.wrong += 1;
            keep(ctx);
            xdp_action::XDP_DROP
        }
        Kind::Other => {
            counts.other += 1;
            xdp_action::XDP_PASS
        }
    }
}

#[inline(always)]
fn plain<I: Ip>(ctx: *mut xdp_md, expectation: &Expectation) -> Kind {
    let Some(Frame { ethernet, ip, tcp }) = view::<Frame<I>>(ctx) else { return Kind::Other };
    if ethernet.kind.get() != I::ETHERTYPE || !is_ours(ip) {
        return Kind::Other;
    }
    judge(ip, tcp, expectation)
}

#[inline(always)]
fn tunnelled<I: Ip, const N: usize>(ctx: *mut xdp_md, expectation: &Expectation) -> Kind {
    let Some(Tunnelled { ethernet, outer, carrier, ip, tcp }) = view::<Tunnelled<I, N>>(ctx) else {
        return Kind::Other;
    };
    let protocol = u32::from(outer.protocol());
    let is_tunnel = outer.protocol() == I::INSIDE || outer.protocol() == GRE;
    if ethernet.kind.get() != I::ETHERTYPE || !(is_tunnel || is_ours(outer)) {
        return Kind::Other;
    }
    if protocol != expectation.outer
        || u32::from(outer.ttl()) != expectation.ttl
        || !expectation.tunnel.takes(outer)
        || carrier.last_chunk::<4>().is_some_and(|last| *last != expectation.carrier)
        || expectation.thorough != 0 && !outer.is_sound()
    {
        return Kind::Wrong;
    }
    judge(ip, tcp, expectation)
}

#[inline(always)]
fn judge<I: Ip>(ip: &I, tcp: &Tcp, expectation: &Expectation) -> Kind {
    let is_right = u32::from(ip.protocol()) == expectation.protocol
        && u32::from(ip.ttl()) == expectation.ttl
        && expectation.to.takes(ip)
        && u32::from(tcp.destination.get()) == expectation.port
        && (expectation.thorough == 0 || ip.is_sound() && is_sound(ip, tcp));
    if is_right { Kind::Right } else { Kind::Wrong }
}

/// Whether the checksum is right; behind the header there are zeros only.
#[inline(always)]
fn is_sound<I: Ip>(ip: &I, tcp: &Tcp) -> bool {
    let len = ip.payload_len().to_be();
    tcp.sum().add16(ip.pseudo_sum().fold()).add16(len).checksum() == 0
}

/// Answers a packet that opens a connection; drops any other.
#[inline(always)]
fn answer<I: Ip>(ctx: *mut xdp_md) -> u32 {
    let Some(Frame { ethernet, ip, tcp }) = view::<Frame<I>>(ctx) else {
        return xdp_action::XDP_DROP;
    };
    if tcp.flags != Tcp::SYN {
        return xdp_action::XDP_DROP;
    }
    (ethernet.destination, ethernet.source) = (ethernet.source, ethernet.destination);
    // The order of what is added up does not matter to a sum.
    ip.turn_round();
    (tcp.source, tcp.destination) = (tcp.destination, tcp.source);
    let (sequence, acknowledgement) = (tcp.sequence, tcp.acknowledgement);
    tcp.acknowledgement = U32::new(sequence.get().wrapping_add(1));
    tcp.sequence = U32::new(ANSWER);
    tcp.flags = Tcp::SYN | Tcp::ACK;
    let word = |offset: u8, flags: u8| u16::from_ne_bytes([offset, flags]);
    let delta = Delta::NONE
        .word32(sequence.get().to_be(), tcp.sequence.get().to_be())
        .word32(acknowledgement.get().to_be(), tcp.acknowledgement.get().to_be())
        .word16(word(tcp.offset, Tcp::SYN), word(tcp.offset, tcp.flags));
    let old = u16::from_ne_bytes(tcp.checksum);
    tcp.checksum = ipvs_wire::checksum::patched(old, delta).to_ne_bytes();
    // Not XDP_TX: a veth interface sends nobody after that who has no XDP program of his own.
    // SAFETY: the context is this program's; the helper has no precondition.
    unsafe { helpers::bpf_redirect((*ctx).ingress_ifindex, 0) as u32 }
}

/// Keeps the headers of a frame that nobody expected.
#[inline(always)]
fn keep(ctx: *mut xdp_md) {
    let Some(kept) = BENCH_WRONG.get_ptr_mut(0) else { return };
    for len in [KEPT, size_of::<Frame<Ipv6>>(), size_of::<Frame<Ipv4>>()] {
        // SAFETY: the helper writes as many octets as it is told, and the element has them.
        if unsafe { helpers::bpf_xdp_load_bytes(ctx, 0, kept.cast(), len as u32) } == 0 {
            return;
        }
    }
}

#[unsafe(no_mangle)]
#[unsafe(link_section = "xdp")]
extern "C" fn bench_sink4(ctx: *mut xdp_md) -> u32 {
    sink::<Ipv4>(ctx)
}

#[unsafe(no_mangle)]
#[unsafe(link_section = "xdp")]
extern "C" fn bench_sink6(ctx: *mut xdp_md) -> u32 {
    sink::<Ipv6>(ctx)
}
