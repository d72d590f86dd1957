//! The kernel's routing table, asked with `bpf_fib_lookup`.

use core::ffi::c_void;

use aya_ebpf::btf_maps::lpm_trie::Key;
use aya_ebpf::helpers::generated as helpers;
use ipvs_core::addr::{Addr, Family};
use ipvs_core::hop::{MtuKey, RouteQuery, Way, WayKind};

use crate::maps;

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
/// Where the kernel says nothing, no packet is too long.
const NO_LIMIT: u32 = 0xffff;

/// `struct bpf_fib_lookup` of the kernel's UAPI.
#[repr(C)]
pub(crate) struct Params {
    family: u8,
    l4_protocol: u8,
    sport: u16,
    dport: u16,
    /// In: length of the packet. Out: MTU of the route.
    mtu: u16,
    ifindex: u32,
    tos: u32,
    source: [u32; 4],
    destination: [u32; 4],
    vlan: u32,
    own: [u8; 6],
    neighbour: [u8; 6],
}

const _: () = assert!(size_of::<Params>() == 64);

/// Asks from the point of view of a packet that came in by `ifindex`.
#[inline(always)]
pub(crate) fn route(ctx: *mut c_void, ifindex: u32, query: &RouteQuery, way: &mut Way) {
    way.kind = WayKind::None;
    let Some(params) = maps::IPVS_FIB.get_ptr_mut(0) else { return };
    // SAFETY: the element is this CPU's own.
    let params = unsafe { &mut *params };
    *params = Params {
        family: match query.family {
            Family::V4 => AF_INET,
            Family::V6 => AF_INET6,
        },
        l4_protocol: 0,
        sport: 0,
        dport: 0,
        // Any length but 0 makes the kernel fill in the MTU.
        mtu: 1,
        ifindex,
        tos: 0,
        source: query.source.words(),
        destination: query.destination.words(),
        vlan: 0,
        own: [0; 6],
        neighbour: [0; 6],
    };
    // SAFETY: the context is this program's, the parameters have the kernel's layout.
    let answer = unsafe {
        helpers::bpf_fib_lookup(ctx, (&raw mut *params).cast(), size_of::<Params>() as i32, 0)
    };
    way.hop.ifindex = params.ifindex;
    way.hop.mtu = if params.mtu > 1 { u32::from(params.mtu) } else { NO_LIMIT };
    way.hop.neighbour = params.neighbour;
    way.hop.own = params.own;
    way.next = Addr::from_words(params.destination);
    way.next_family = if params.family == AF_INET6 { Family::V6 } else { Family::V4 };
    way.kind = match answer {
        0 => WayKind::Known,
        // BPF_FIB_LKUP_RET_NOT_FWDED: a local address, or no route at all.
        4 => WayKind::Host,
        // BPF_FIB_LKUP_RET_NO_NEIGH
        7 => WayKind::Unresolved,
        _ => WayKind::None,
    };
    if matches!(way.kind, WayKind::Host | WayKind::None) {
        return;
    }
    let key = MtuKey::of(query.family, query.destination);
    // The kernel tells the MTU of a route only if it is locked.
    if let Some(&mtu) = maps::IPVS_ROUTE_MTUS.get(&Key::new(MtuKey::BITS, key))
        && mtu != 0
        && mtu < way.hop.mtu
    {
        way.hop.mtu = mtu;
    }
}
