//! What stands in front of a packet on its way from the eBPF plane to the slow
//! path, in which the daemon leads it through the same director.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// What the octets of a deferred packet do not say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Head {
    /// Octets of the frame behind this record; what follows those is nothing.
    pub len: u32,
    /// The interface it came in by.
    pub ifindex: u32,
    /// Its firewall mark.
    pub mark: u32,
    /// Octets of one segment's payload if it is a train of segments, else 0.
    pub segment_len: u32,
    /// Not 0: it had a VLAN tag, which is not among the octets.
    pub is_tagged: u32,
    /// The tag's protocol, in network order.
    pub tag_protocol: u32,
    /// The tag.
    pub tag: u32,
    /// Nothing.
    pub reserved: u32,
}

const _: () = assert!(size_of::<Head>() == 32);
