//! IPv4 options: what a host does with those of a packet that it takes in, before anything
//! else sees them (RFC 791, section 3.1; RFC 1122, section 3.2.1.8; recorded on 6.1).
//!
//! Route and time are recorded with the virtual address, of replies with the one that the
//! sender knows. What contradicts itself, and every source route, is left to the host,
//! which answers the one and by default drops the other.

use ipvs_wire::{Buffer, Headers, ipv4};

use crate::addr::{Addr, Family};
use crate::director::Room;
use crate::hop::RouteQuery;
use crate::tables::Tables;

/// Options by their first octet.
const END: u8 = 0;
const NO_OPERATION: u8 = 1;
const RECORD_ROUTE: u8 = 7;
const TIMESTAMP: u8 = 68;
const LOOSE_SOURCE_ROUTE: u8 = 131;
const STRICT_SOURCE_ROUTE: u8 = 137;
const ROUTER_ALERT: u8 = 148;

/// The first place that a pointer may point to: behind option, length and pointer, …
const FIRST_ROUTE: u8 = 4;
/// … of timestamps behind flags, too.
const FIRST_TIME: u8 = 5;

/// What timestamps are of: nothing but the time, …
const TIME_ONLY: u8 = 0;
/// … time and address, …
const WITH_ADDRESS: u8 = 1;
/// … or time for addresses that the sender has put there.
const PRESPECIFIED: u8 = 3;

/// Whether the packet has options.
#[inline(always)]
pub(crate) const fn are_there(h: &Headers) -> bool {
    h.version == 4 && h.l4 != h.l3 + ipv4::HEADER_LEN
}

/// What is recorded in a packet's options.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Record {
    /// The address that the route leads by.
    pub(crate) route: Addr,
    /// The address at which the time was taken.
    pub(crate) time: Addr,
}

/// Whether the options are sound, and no source route is among them.
pub(crate) fn are_sound<B: Buffer>(buf: &B, h: &Headers) -> bool {
    walk(buf, h, |_| {})
}

/// Fills in what the options ask for.
pub(crate) fn fill<B: Buffer, T: Tables>(
    buf: &mut B,
    h: &Headers,
    tables: &T,
    room: &mut Room,
    record: Record,
) -> Option<()> {
    let mut places = [None; 2];
    let mut ends = None;
    walk(buf, h, |option| match option.kind {
        RECORD_ROUTE => places[0] = Some(option),
        TIMESTAMP => places[1] = Some(option),
        _ => ends = Some(option.at),
    });
    let [route, times] = places;
    if let Some(option) = route
        && option.pointer <= option.len
    {
        let at = option.at + u32::from(option.pointer) - 1;
        buf.store_words(at, [record.route.words()[0]])?;
        buf.store(option.at + 2, [option.pointer + 4])?;
    }
    if let Some(option) = times {
        stamp(buf, tables, room, option, record.time)?;
    }
    // Behind the end there is nothing but zeros.
    for at in ends.unwrap_or(h.l4)..h.l4 {
        buf.store(at, [END])?;
    }
    ipv4::set_checksum(buf, h.l3, h.l4 - h.l3)
}

/// Fills in the time.
fn stamp<B: Buffer, T: Tables>(
    buf: &mut B,
    tables: &T,
    room: &mut Room,
    option: IpOption,
    own: Addr,
) -> Option<()> {
    let [flags] = buf.load(option.at + 3)?;
    if option.pointer > option.len {
        // So many hosts had no room: four bits.
        return buf.store(option.at + 3, [flags + 0x10]);
    }
    let at = option.at + u32::from(option.pointer) - 1;
    let (place, taken) = match flags & 0x0f {
        TIME_ONLY => (at, 4),
        WITH_ADDRESS => {
            buf.store_words(at, [own.words()[0]])?;
            (at + 4, 8)
        }
        _ => {
            let [asked] = buf.load_words(at)?;
            let destination = Addr::from_words([asked, 0, 0, 0]);
            room.query = RouteQuery { family: Family::V4, destination, source: Addr::UNSPECIFIED };
            if !tables.is_local(&room.query, &mut room.way) {
                return Some(());
            }
            (at + 4, 8)
        }
    };
    buf.store(place, tables.time_of_day().to_be_bytes())?;
    buf.store(option.at + 2, [option.pointer + taken])
}

/// An option that is neither a filler nor unknown.
#[derive(Clone, Copy, Debug)]
struct IpOption {
    kind: u8,
    at: u32,
    len: u8,
    pointer: u8,
}

/// Goes through the options; returns whether they are sound and no source route.
fn walk<B: Buffer>(buf: &B, h: &Headers, mut each: impl FnMut(IpOption)) -> bool {
    let (mut at, end) = (h.l3 + ipv4::HEADER_LEN, h.l4);
    let (mut routes, mut times) = (false, false);
    while at < end {
        let Some([kind]) = buf.load(at) else { return false };
        match kind {
            END => {
                each(IpOption { kind, at, len: 0, pointer: 0 });
                return true;
            }
            NO_OPERATION => {
                at += 1;
                continue;
            }
            _ => {}
        }
        let Some([_, len]) = buf.load(at) else { return false };
        if len < 2 || at + u32::from(len) > end {
            return false;
        }
        let sound = match kind {
            LOOSE_SOURCE_ROUTE | STRICT_SOURCE_ROUTE => false,
            ROUTER_ALERT => len >= 4,
            RECORD_ROUTE | TIMESTAMP => {
                let before = if kind == TIMESTAMP { &mut times } else { &mut routes };
                let twice = core::mem::replace(before, true);
                IpOption::read(buf, kind, at, len).filter(|_| !twice).map(&mut each).is_some()
            }
            _ => true,
        };
        if !sound {
            return false;
        }
        at += u32::from(len);
    }
    true
}

impl IpOption {
    /// The option, if it is sound.
    fn read<B: Buffer>(buf: &B, kind: u8, at: u32, len: u8) -> Option<Self> {
        let first = if kind == TIMESTAMP { FIRST_TIME } else { FIRST_ROUTE };
        if len < first - 1 {
            return None;
        }
        let [pointer] = buf.load(at + 2)?;
        let it = Self { kind, at, len, pointer };
        let fits = if kind == TIMESTAMP { it.takes_time(buf)? } else { it.has_room(4) };
        (pointer >= first && fits).then_some(it)
    }

    /// Whether so many octets have room, or nothing has.
    const fn has_room(self, octets: u8) -> bool {
        self.pointer > self.len || self.pointer.saturating_add(octets - 1) <= self.len
    }

    /// Whether a timestamp has room, or there is one more that has none.
    fn takes_time<B: Buffer>(self, buf: &B) -> Option<bool> {
        let [flags] = buf.load(self.at + 3)?;
        Some(match flags & 0x0f {
            _ if self.pointer > self.len => flags >> 4 != 0x0f,
            TIME_ONLY => self.has_room(4),
            WITH_ADDRESS | PRESPECIFIED => self.has_room(8),
            _ => false,
        })
    }
}
