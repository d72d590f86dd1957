//! How the octets of one packet are reached and moved.

use crate::checksum::{self, Delta};
use crate::tunnel::Carrier;

/// The headers that are put in front of a packet: which one the outermost is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outer {
    /// An IPv4 header of 20 octets and what carries the packet, for a tunnel.
    TunnelV4(Carrier),
    /// An IPv6 header of 40 octets and what carries the packet, for a tunnel.
    TunnelV6(Carrier),
    /// The headers of a packet of the director's own, in front of what it quotes, if anything.
    Own,
}

/// The octets of one packet, from its Ethernet header on.
///
/// Offsets and lengths are in octets. Every access is checked: `None` means
/// that the octets are not there, and nothing was changed.
pub trait Buffer {
    /// Copies `N` octets from `at`.
    fn load<const N: usize>(&self, at: u32) -> Option<[u8; N]>;

    /// Overwrites `N` octets at `at`.
    fn store<const N: usize>(&mut self, at: u32, octets: [u8; N]) -> Option<()>;

    /// Copies `N` words of four octets from `at`, as they lie in memory.
    fn load_words<const N: usize>(&self, at: u32) -> Option<[u32; N]>;

    /// Overwrites `N` words of four octets at `at`.
    fn store_words<const N: usize>(&mut self, at: u32, words: [u32; N]) -> Option<()>;

    /// Length of the whole frame, also of what cannot be reached by `load`.
    fn len(&self) -> u32;

    /// Whether there is not one octet.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Octets of one segment's transport payload when this is a train of
    /// segments that hardware or the stack will cut (GSO); 0 when it is not.
    fn segment_len(&self) -> u32 {
        0
    }

    /// Octets of the longest IP packet that a datagram came in, if it came in
    /// several and was put together; else 0.
    fn longest_piece(&self) -> u32 {
        0
    }

    /// Makes the first `count` octets, as far as they are there, reachable for
    /// `load` and `store`, where that is not so from the beginning.
    fn reach(&mut self, _count: u32) {}

    /// Makes room for `count` octets at `at`; what stood there moves back.
    fn insert(&mut self, at: u32, count: u32, outer: Outer) -> Option<()>;

    /// Replaces `count` octets at `at` by those of `with`; what stands behind moves.
    /// A buffer that cannot be made longer refuses.
    fn splice(&mut self, at: u32, count: u32, with: &[u8]) -> Option<()> {
        let _ = (at, count, with);
        None
    }

    /// Whether the transport checksum is still to be filled in.
    fn checksum_pending(&self) -> bool {
        false
    }

    /// Takes out `count` octets at `at`, where the IP header begins.
    fn remove(&mut self, at: u32, count: u32) -> Option<()>;

    /// Cuts the frame to `len` octets.
    fn truncate(&mut self, len: u32) -> Option<()>;

    /// The one's complement sum of `count` octets from `at`, in memory order,
    /// folded to 16 bits; an odd last octet counts as if a zero followed.
    fn sum(&self, at: u32, count: u32) -> Option<u16>;

    /// The Castagnoli CRC of `count` octets from `at` with the four at `zeroed` taken
    /// as zero, as SCTP wants it (RFC 9260, appendix A).
    fn crc32c(&self, at: u32, count: u32, zeroed: u32) -> Option<u32>;

    /// Adjusts the TCP or UDP checksum at `at` for changed addresses
    /// (`pseudo`, they are covered by way of the pseudo header) and changed
    /// ports.
    ///
    /// Where the checksum is still to be filled in by hardware only the pseudo
    /// header is in it, which implementations must heed.
    fn patch_transport(&mut self, at: u32, pseudo: Delta, ports: Delta, udp: bool) -> Option<()> {
        let old = u16::from_ne_bytes(self.load(at)?);
        let new = checksum::patched(old, pseudo.plus(ports));
        self.store(at, if udp { checksum::udp_wire(new) } else { new }.to_ne_bytes())
    }
}
