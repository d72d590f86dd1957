//! The eBPF programs of the bench: a generator that writes each packet afresh,
//! the floor that any balancer stands on, and a sink that looks at what comes.

#![no_std]
#![no_main]
#![expect(unsafe_code, reason = "packet memory and maps are reached by raw pointers")]

use aya_ebpf::bindings::{xdp_action, xdp_md};
use aya_ebpf::btf_maps::{Array, PerCpuArray};
use aya_ebpf::helpers::generated as helpers;
use aya_ebpf::macros::btf_map;
use ipvs_bench_programs::headers::{Ethernet, Ip, Ipv4, Ipv6, TCP, Tcp};
use ipvs_bench_programs::records::{
    Counts, Cursor, Expectation, Floor, KEPT, LONGEST, Plan, client,
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

/// A sequence number of the side that answers.
const ANSWER: u32 = 0x0100_0000;

#[derive(Clone, Copy)]
#[repr(C)]
struct Frame<I> {
    ethernet: Ethernet,
    ip: I,
    tcp: Tcp,
}

#[repr(C)]
struct Tunnelled<I> {
    ethernet: Ethernet,
    outer: I,
    ip: I,
    tcp: Tcp,
}

/// The beginning of the frame as a `T`, which has no alignment, if it is that long.
#[inline(always)]
fn view<'a, T>(ctx: *mut xdp_md) -> Option<&'a mut T> {
    const { assert!(align_of::<T>() == 1) };
    // SAFETY: the context is this program's.
    let (start, end) = unsafe { ((*ctx).data as usize, (*ctx).data_end as usize) };
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

#[inline(always)]
fn generate<I: Ip>(ctx: *mut xdp_md) -> u32 {
    let Some(plan) = BENCH_PLAN.get(0) else { return xdp_action::XDP_ABORTED };
    let Some(cursor) = BENCH_CURSOR.get_ptr_mut(0) else { return xdp_action::XDP_ABORTED };
    let Some(frame) = view::<Frame<I>>(ctx) else { return xdp_action::XDP_ABORTED };
    // SAFETY: the element is this CPU's own.
    let flow = unsafe { (*cursor).step(plan) };
    let (offset, port) = client(flow);
    let address = plan.clients + offset;
    write_headers(frame, &plan.headers);
    frame.ip.set_client(address, Sum::ZERO.add32(plan.ip_sum));
    frame.tcp.source.set(port);
    let sum = Sum::ZERO.add32(plan.tcp_sum).add32(address.to_be()).add16(port.to_be());
    frame.tcp.checksum = sum.checksum().to_ne_bytes();
    xdp_action::XDP_TX
}

const _: () = assert!(size_of::<Tunnelled<Ipv6>>() == KEPT);

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
    unused: [u32; 19],
    data: u32,
    data_end: u32,
}

/// The same with the kernel's packet structure: what the stack costs that is
/// around a TC program.
#[unsafe(no_mangle)]
#[unsafe(link_section = "classifier")]
extern "C" fn bench_tc_floor(ctx: *mut SkBuff) -> i32 {
    const UNSPEC: i32 = -1;
    let Some(floor) = BENCH_FLOOR.get(0) else { return UNSPEC };
    // SAFETY: the context is this program's.
    let (start, end) = unsafe { ((*ctx).data as usize, (*ctx).data_end as usize) };
    if start + size_of::<Ethernet>() > end {
        return UNSPEC;
    }
    // SAFETY: the octets lie in the packet, which is this program's alone.
    let ethernet = unsafe { &mut *(start as *mut Ethernet) };
    if !matches!(ethernet.kind.get(), Ipv4::ETHERTYPE | Ipv6::ETHERTYPE) {
        return UNSPEC;
    }
    set_addresses(ethernet, floor);
    // SAFETY: the helper has no precondition.
    unsafe { helpers::bpf_redirect(floor.ifindex, 0) as i32 }
}

/// Counts the replies that reach the client.
#[unsafe(no_mangle)]
#[unsafe(link_section = "xdp")]
extern "C" fn bench_client(ctx: *mut xdp_md) -> u32 {
    let Some(count) = BENCH_REPLIES.get_ptr_mut(0) else { return xdp_action::XDP_ABORTED };
    let is_reply = match view::<Ethernet>(ctx).map(|ethernet| ethernet.kind.get()) {
        Some(Ipv4::ETHERTYPE) => view::<Frame<Ipv4>>(ctx).is_some_and(|f| f.ip.protocol() == TCP),
        Some(Ipv6::ETHERTYPE) => view::<Frame<Ipv6>>(ctx).is_some_and(|f| f.ip.protocol() == TCP),
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
    let kind = if expectation.tunnel.count == 0 {
        plain::<I>(ctx, expectation)
    } else {
        tunnelled::<I>(ctx, expectation)
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
    if ethernet.kind.get() != I::ETHERTYPE || ip.protocol() != TCP {
        return Kind::Other;
    }
    judge(ip, tcp, expectation)
}

#[inline(always)]
fn tunnelled<I: Ip>(ctx: *mut xdp_md, expectation: &Expectation) -> Kind {
    let Some(Tunnelled { ethernet, outer, ip, tcp }) = view::<Tunnelled<I>>(ctx) else {
        return Kind::Other;
    };
    let is_ours = outer.protocol() == I::INSIDE || outer.protocol() == TCP;
    if ethernet.kind.get() != I::ETHERTYPE || !is_ours {
        return Kind::Other;
    }
    if outer.protocol() != I::INSIDE
        || u32::from(outer.ttl()) != expectation.ttl
        || !expectation.tunnel.takes(outer)
        || expectation.thorough != 0 && !outer.is_sound()
    {
        return Kind::Wrong;
    }
    judge(ip, tcp, expectation)
}

#[inline(always)]
fn judge<I: Ip>(ip: &I, tcp: &Tcp, expectation: &Expectation) -> Kind {
    let is_right = ip.protocol() == TCP
        && u32::from(ip.ttl()) == expectation.ttl
        && expectation.to.takes(ip)
        && u32::from(tcp.destination.get()) == expectation.port
        && (expectation.thorough == 0 || ip.is_sound() && is_sound(ip, tcp));
    if is_right { Kind::Right } else { Kind::Wrong }
}

/// Whether the checksum is right; there is nothing behind the header.
#[inline(always)]
fn is_sound<I: Ip>(ip: &I, tcp: &Tcp) -> bool {
    let len = (size_of::<Tcp>() as u16).to_be();
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
