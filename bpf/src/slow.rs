//! The way to the slow path: packets that the programs cannot do themselves go
//! whole into a ring, out of which a thread of the daemon takes them.

use core::ffi::c_void;

use aya_ebpf::helpers::generated as helpers;
use ipvs_core::deferred::Head;

use crate::maps;
use crate::skb::SkBuff;

/// Octets that a packet of an ordinary link takes, …
const ORDINARY: usize = 2048 - size_of::<Head>();
/// … one of a link with large frames, …
const LARGE: usize = 10240 - size_of::<Head>();
/// … and a train of segments.
const TRAIN: usize = 69632 - size_of::<Head>();

/// A packet in the ring.
#[repr(C)]
struct Slot<const N: usize> {
    head: Head,
    octets: [u8; N],
}

/// Copies the packet into the ring; returns whether there was room.
#[inline(always)]
pub(crate) fn hand_over(ctx: *mut SkBuff) -> bool {
    // SAFETY: the context is this program's.
    let len = unsafe { (*ctx).len } as usize;
    if len <= ORDINARY {
        copy::<ORDINARY>(ctx) != 0
    } else if len <= LARGE {
        copy::<LARGE>(ctx) != 0
    } else {
        copy::<TRAIN>(ctx) != 0
    }
}

/// Places in the ring have lengths that the verifier knows.
#[inline(never)]
fn copy<const N: usize>(ctx: *mut SkBuff) -> u32 {
    // SAFETY: the context is this program's.
    let skb = unsafe { &*ctx };
    // The verifier of 6.1 does not learn from a compare with 0 that there is an octet, but
    // does from this sum, which the compiler must not see through.
    let more = core::hint::black_box(skb.len.wrapping_sub(1));
    if more >= N as u32 {
        return 0;
    }
    let len = more + 1;
    let ring = (&raw const maps::IPVS_SLOW).cast_mut().cast::<c_void>();
    // SAFETY: the map is a ring.
    let slot = unsafe { helpers::bpf_ringbuf_reserve(ring, size_of::<Slot<N>>() as u64, 0) };
    if slot.is_null() {
        return 0;
    }
    let slot = slot.cast::<Slot<N>>();
    // SAFETY: the kernel has lent these octets until they are submitted or discarded, which
    // is done below in either case.
    unsafe {
        (*slot).head = Head {
            len,
            ifindex: skb.arrived_by(),
            mark: skb.mark,
            segment_len: skb.gso_size,
            is_tagged: skb.vlan_present,
            tag_protocol: skb.vlan_proto,
            tag: skb.vlan_tci,
            reserved: 0,
        };
        let octets = (&raw mut (*slot).octets).cast::<c_void>();
        if helpers::bpf_skb_load_bytes(ctx.cast(), 0, octets, len) != 0 {
            helpers::bpf_ringbuf_discard(slot.cast(), 0);
            return 0;
        }
        helpers::bpf_ringbuf_submit(slot.cast(), 0);
    }
    1
}
