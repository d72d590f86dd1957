//! Outer packets that came in fragments, joined again; no socket here.
//!
//! Only what comes in order is joined: that is all a director may send.

use std::collections::HashMap;

/// Octets of the virtio-net header and of the Ethernet header in front of a packet.
const AHEAD: usize = 10 + 14;
const IPV4_LEN: usize = 20;
const IPV6_LEN: usize = 40;
/// IPv6's fragment header: its protocol number and length.
const FRAGMENT: u8 = 44;
const FRAGMENT_LEN: usize = 8;
/// Datagrams that are waited for at the same time.
const MOST: usize = 64;

/// Datagrams in the making.
#[derive(Debug, Default)]
pub(crate) struct Joined {
    /// By what all fragments of one have in common.
    begun: HashMap<Vec<u8>, Begun>,
}

#[derive(Debug)]
struct Begun {
    /// Everything in front of the payload, without a trace of fragments.
    headers: Vec<u8>,
    payload: Vec<u8>,
}

struct Fragment<'a> {
    key: Vec<u8>,
    headers: Vec<u8>,
    offset: usize,
    more: bool,
    payload: &'a [u8],
}

impl Joined {
    /// Takes a frame with a virtio-net header whose IP packet is a fragment; returns one like it
    /// with the whole packet after the last.
    pub(crate) fn take(&mut self, frame: &[u8]) -> Option<Vec<u8>> {
        let fragment = Fragment::read(frame)?;
        if fragment.offset == 0 && self.begun.len() < MOST {
            let headers = fragment.headers;
            self.begun.insert(fragment.key.clone(), Begun { headers, payload: Vec::new() });
        }
        let begun = self.begun.get_mut(&fragment.key)?;
        if begun.payload.len() != fragment.offset {
            self.begun.remove(&fragment.key);
            return None;
        }
        begun.payload.extend_from_slice(fragment.payload);
        if fragment.more {
            return None;
        }
        self.begun.remove(&fragment.key)?.into_frame()
    }
}

impl<'a> Fragment<'a> {
    fn read(frame: &'a [u8]) -> Option<Self> {
        let (ahead, packet) = frame.split_at_checked(AHEAD)?;
        let half = |at: usize| Some(u16::from_be_bytes(*packet.get(at..)?.first_chunk()?));
        // Whatever a virtio-net header says, it says of one fragment.
        let ahead = [&[0; 10], ahead.get(10..)?].concat();
        if packet.first()? >> 4 == 6 {
            let (header, rest) = packet.split_at_checked(IPV6_LEN)?;
            let (fragment, rest) = rest.split_at_checked(FRAGMENT_LEN)?;
            if header.get(6) != Some(&FRAGMENT) {
                return None;
            }
            let len = usize::from(half(4)?).checked_sub(FRAGMENT_LEN)?;
            let place = half(IPV6_LEN + 2)?;
            let mut headers = [&ahead, header].concat();
            *headers.get_mut(AHEAD + 6)? = *fragment.first()?;
            return Some(Self {
                key: [header.get(8..)?, fragment.get(4..)?].concat(),
                headers,
                offset: usize::from(place & 0xfff8),
                more: place & 1 != 0,
                payload: rest.get(..len)?,
            });
        }
        let (header, rest) = packet.split_at_checked(IPV4_LEN)?;
        let place = half(6)?;
        let len = usize::from(half(2)?).checked_sub(IPV4_LEN)?;
        Some(Self {
            key: [header.get(12..)?, header.get(4..6)?].concat(),
            headers: [&ahead, header].concat(),
            offset: usize::from(place & 0x1fff) * 8,
            more: place & 0x2000 != 0,
            payload: rest.get(..len)?,
        })
    }
}

impl Begun {
    fn into_frame(mut self) -> Option<Vec<u8>> {
        let header = self.headers.get_mut(AHEAD..)?;
        let put = |header: &mut [u8], at: usize, new: u16| {
            header.get_mut(at..)?.first_chunk_mut().map(|place| *place = new.to_be_bytes())
        };
        if header.len() == IPV6_LEN {
            put(header, 4, u16::try_from(self.payload.len()).ok()?)?;
        } else {
            put(header, 2, u16::try_from(IPV4_LEN + self.payload.len()).ok()?)?;
            put(header, 6, 0)?;
            put(header, 10, 0)?;
            let sum = header.chunks_exact(2).fold(0_u32, |sum, word| {
                sum + word.iter().fold(0, |word, octet| word << 8 | u32::from(*octet))
            });
            let folded = (sum & 0xffff) + (sum >> 16);
            let folded = (folded & 0xffff) + (folded >> 16);
            put(header, 10, !u16::try_from(folded).ok()?)?;
        }
        self.headers.extend_from_slice(&self.payload);
        Some(self.headers)
    }
}
