//! One fragment, read: what datagram it is of, and which part of it.

use std::ops::Range;

use ipvs_wire::ipv4::{DONT_FRAGMENT, MORE_FRAGMENTS, OFFSET_MASK};
use ipvs_wire::ipv6::{self, extension};
use ipvs_wire::{Buffer as _, Fragment, Headers};

use crate::frame::Frame;

/// IPv6 extension headers that are followed, at most.
const MAX_EXTENSIONS: u32 = 8;
/// Octets of the fragment header (RFC 8200, section 4.5).
pub(super) const FRAGMENT_HEADER: usize = 8;
/// Place of the fixed header's next-header field.
const NEXT: usize = 6;

/// Which datagram a fragment is of (RFC 791, section 3.2; RFC 8200, section 4.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    source: [u32; 4],
    destination: [u32; 4],
    id: u32,
    /// IPv4: its protocol. IPv6: 0.
    protocol: u8,
    pub(super) version: u8,
}

/// A fragment; offsets are in octets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) key: Key,
    /// Where the IP header begins in the frame.
    pub(super) l3: usize,
    /// What it holds of the datagram, as a place in the frame …
    pub(super) payload: Range<usize>,
    /// … and where that belongs.
    pub(super) offset: usize,
    /// There is more behind it.
    pub(super) more: bool,
    /// The IP packet's length.
    pub(super) total_len: u32,
    pub(super) dont_fragment: bool,
    /// The congestion bits.
    pub(super) ecn: u8,
    /// IPv6: the place of the field that names the fragment header.
    pub(super) named_at: usize,
}

impl Piece {
    /// Reads the fragment in `frame`; `None` if it is none, or contradicts itself.
    pub(super) fn of(frame: &Frame) -> Option<Self> {
        let h = Headers::parse(frame).ok()?;
        if h.fragment == Fragment::No {
            return None;
        }
        let piece = if h.version == 6 { Self::of_v6(frame, &h)? } else { Self::of_v4(frame, &h)? };
        let end = piece.offset + piece.payload.len();
        let headers = piece.payload.start - piece.l3;
        let fits = u16::try_from(end + headers).is_ok();
        (fits && !piece.payload.is_empty()).then_some(piece)
    }

    fn of_v4(frame: &Frame, h: &Headers) -> Option<Self> {
        let id = u16::from_be_bytes(frame.load(h.l3 + 4)?);
        let flags = u16::from_be_bytes(frame.load(h.l3 + 6)?);
        let more = flags & MORE_FRAGMENTS != 0;
        let start = h.l4 as usize;
        let mut len = (h.l3 + h.total_len - h.l4) as usize;
        if more {
            // What does not fill a unit is not looked at, as by the kernel.
            len &= !7;
        }
        Some(Self {
            key: Key {
                source: h.source,
                destination: h.destination,
                id: u32::from(id),
                protocol: h.protocol,
                version: 4,
            },
            l3: h.l3 as usize,
            payload: start..start + len,
            offset: usize::from(flags & OFFSET_MASK) * 8,
            more,
            total_len: h.total_len,
            dont_fragment: flags & DONT_FRAGMENT != 0,
            ecn: h.tos & 3,
            named_at: 0,
        })
    }

    fn of_v6(frame: &Frame, h: &Headers) -> Option<Self> {
        let l3 = h.l3 as usize;
        let (named_at, at) = fragment_header(frame.octets().get(l3..)?)?;
        let (named_at, at) = (l3 + named_at, l3 + at);
        let header = frame.octets().get(at..at + FRAGMENT_HEADER)?;
        let word = u16::from_be_bytes(*header.get(2..)?.first_chunk()?);
        let id = u32::from_be_bytes(*header.last_chunk()?);
        let (more, start) = (word & 1 != 0, at + FRAGMENT_HEADER);
        let payload = start..l3 + h.total_len as usize;
        if more && payload.len() % 8 != 0 {
            return None;
        }
        Some(Self {
            key: Key { source: h.source, destination: h.destination, id, protocol: 0, version: 6 },
            l3,
            payload,
            offset: usize::from(word & 0xfff8),
            more,
            total_len: h.total_len,
            dont_fragment: false,
            ecn: h.tos & 3,
            named_at,
        })
    }
}

/// The fragment header of an IPv6 packet: where the field stands that names
/// it, and where it begins.
fn fragment_header(packet: &[u8]) -> Option<(usize, usize)> {
    let mut named_at = NEXT;
    let mut at = ipv6::HEADER_LEN as usize;
    for _ in 0..MAX_EXTENSIONS {
        match *packet.get(named_at)? {
            extension::FRAGMENT => return Some((named_at, at)),
            extension::HOP_BY_HOP | extension::ROUTING | extension::DESTINATION_OPTIONS => {
                named_at = at;
                at += (usize::from(*packet.get(at + 1)?) + 1) * 8;
            }
            _ => return None,
        }
    }
    None
}
