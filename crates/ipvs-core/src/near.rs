//! A memory of where tuples lead, nearer than the index.
//!
//! A lookup in an index of many connections waits for main memory three or
//! four times in a row: bucket, one or two keys, connection. This memory holds
//! no keys. A few octets of hash say which connection it may be, and the
//! connection, which the packet needs anyhow, says whether it is: so it waits
//! about once. Nothing has to be taken out of it when a connection ends, and
//! what it does not know is asked of the index.

use core::cell::Cell;

use zerocopy::FromBytes;

use crate::conn::{Conn, ConnFlags, Found, Tuple};
use crate::dest::ForwardingMethod;
use crate::tables::Tables;

/// Tuples that one bucket holds.
const WAYS: usize = 4;
/// Odd numbers whose bits look drawn by lot, for mixing (those of `MurmurHash3`).
const MIX: [u64; 2] = [0xff51_afd7_ed55_8ccd, 0xc4ce_b9fe_1a85_ec53];

/// Some tuples with the same beginning of their hash: each the rest of the
/// hash, and [`Found::word`]. They fill up from the first.
///
/// Zero is an empty slot, and as good as any other: what it leads to is looked at.
#[derive(Debug, Default, FromBytes)]
#[repr(C, align(32))]
pub struct Bucket {
    slots: [Cell<u64>; WAYS],
}

const _: () = assert!(size_of::<Bucket>() == 32);

/// 32 bits that tell flows apart.
#[inline(always)]
pub(crate) fn flow_hash(tuple: &Tuple) -> u32 {
    Mark::of(tuple).rest
}

/// Where a tuple is remembered.
#[derive(Clone, Copy, Debug)]
struct Mark {
    bucket: u32,
    rest: u32,
}

impl Mark {
    /// Not keyed: whoever finds tuples that push each other out sends his own
    /// packets to the index, which is.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "the halves of a number")]
    fn of(tuple: &Tuple) -> Self {
        let [source, source_low, destination, destination_low, ports]: [u64; 5] =
            zerocopy::transmute!(*tuple);
        let mix = |hash: u64, word: u64| {
            let product = (hash ^ word).wrapping_mul(MIX[0]);
            product ^ product >> 32
        };
        let mut hash = mix(mix(mix(MIX[1], source), destination), ports);
        if source_low | destination_low != 0 {
            hash = mix(mix(hash, source_low), destination_low);
        }
        hash = hash.wrapping_mul(MIX[1]);
        hash ^= hash >> 29;
        Self { bucket: hash as u32, rest: (hash >> 32) as u32 }
    }
}

impl Bucket {
    #[inline(always)]
    fn put(&self, rest: u32, found: Found) {
        let new = u64::from(rest) << 32 | u64::from(found.word());
        let [first, second, third, fourth] = &self.slots;
        let suits = |slot: &Cell<u64>| slot.get() == 0 || rest_of(slot.get()) == rest;
        let slot = if suits(first) {
            first
        } else if suits(second) {
            second
        } else if suits(third) {
            third
        } else if suits(fourth) {
            fourth
        } else {
            // Full: any may go.
            match rest & 3 {
                0 => first,
                1 => second,
                2 => third,
                _ => fourth,
            }
        };
        slot.set(new);
    }
}

#[inline(always)]
const fn rest_of(slot: u64) -> u32 {
    (slot >> 32) as u32
}

/// What `tuple` leads to.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "the low half is the word")]
pub(crate) fn find<T: Tables>(tables: &T, tuple: &Tuple) -> Option<Found> {
    let answer = look(tables, tuple);
    if answer & KNOWN == 0 { None } else { Some(Found::from_word(answer as u32)) }
}

/// In what [`look`] returns: something was found.
const KNOWN: u64 = 1 << 32;

/// [`find`], with an answer in one register: an eBPF function returns no more.
#[inline(never)]
#[expect(clippy::cast_possible_truncation, reason = "the low half is the word")]
fn look<T: Tables>(tables: &T, tuple: &Tuple) -> u64 {
    let mark = Mark::of(tuple);
    let Some(bucket) = tables.near(mark.bucket) else {
        return tables.find(tuple).map_or(0, |found| KNOWN | u64::from(found.word()));
    };
    for slot in &bucket.slots {
        let slot = slot.get();
        if rest_of(slot) == mark.rest {
            let found = Found::from_word(slot as u32);
            if let Some(conn) = tables.conn(found.id)
                && has_tuple(tables, conn, found.reply, tuple)
            {
                return KNOWN | u64::from(found.word());
            }
        }
    }
    let Some(found) = tables.find(tuple) else { return 0 };
    bucket.put(mark.rest, found);
    // Another CPU may have linked it anew in between, and remembered that first.
    let Some(found) = tables.find(tuple) else { return 0 };
    bucket.put(mark.rest, found);
    KNOWN | u64::from(found.word())
}

/// Links `tuple` whatever was linked to it, and remembers it; returns whether
/// there was room.
#[inline(always)]
pub(crate) fn relink<T: Tables>(tables: &T, tuple: &Tuple, to: Found) -> bool {
    tables.relink(tuple, to) && remember(tables, tuple, to.word())
}

/// Remembers where `tuple` leads now. Always true: an eBPF function must
/// return a number.
#[inline(never)]
fn remember<T: Tables>(tables: &T, tuple: &Tuple, word: u32) -> bool {
    let mark = Mark::of(tuple);
    if let Some(bucket) = tables.near(mark.bucket) {
        bucket.put(mark.rest, Found::from_word(word));
    }
    true
}

/// Whether `tuple` is that of the connection, or of its replies, and it has
/// not ended.
#[inline(always)]
fn has_tuple<T: Tables>(tables: &T, conn: &Conn, reply: bool, tuple: &Tuple) -> bool {
    if !conn.has(ConnFlags::HASHED) {
        return false;
    }
    let own = conn.tuple.get();
    if !reply {
        return own == *tuple;
    }
    let Some(dest) = tables.dest(conn.dest.get()) else { return false };
    ForwardingMethod::from_flags(conn.flags.get()) == ForwardingMethod::Masquerade
        && own.source == tuple.destination
        && own.source_port == tuple.destination_port
        && conn.dest_addr(dest) == tuple.source
        && conn.dest_port.get() == tuple.source_port
        && own.protocol == tuple.protocol
        && own.family == tuple.family
        && own.kind == tuple.kind
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::Addr;

    fn found(id: u32) -> Found {
        Found { id, reply: false }
    }

    fn ids(bucket: &Bucket) -> [u64; WAYS] {
        bucket.slots.each_ref().map(|slot| slot.get() & 0xffff_ffff)
    }

    #[test]
    fn the_same_mark_is_never_in_a_bucket_twice() {
        let bucket = Bucket::default();
        for (rest, id) in [(8, 1), (9, 2), (8, 3), (10, 4), (9, 5)] {
            bucket.put(rest, found(id));
        }
        assert_eq!(ids(&bucket), [3, 5, 4, 0]);
    }

    #[test]
    fn what_comes_to_a_full_bucket_takes_one_place() {
        let bucket = Bucket::default();
        for (rest, id) in [(8, 1), (9, 2), (10, 3), (11, 4), (14, 5)] {
            bucket.put(rest, found(id));
        }
        assert_eq!(ids(&bucket), [1, 2, 5, 4]);
    }

    #[test]
    fn clients_that_differ_little_are_spread() {
        let mut buckets = [0_u32; 1024];
        for client in 0..4096_u16 {
            let tuple = Tuple {
                source: Addr::v4([10, 64, 0, client.to_be_bytes()[0]]),
                destination: Addr::v4([198, 51, 100, 1]),
                source_port: 1024 + client.to_le_bytes()[0] as u16,
                destination_port: 80,
                protocol: 6,
                family: 4,
                kind: Tuple::PACKET,
            };
            buckets[(Mark::of(&tuple).bucket >> 22) as usize] += 1;
        }
        let crowded = buckets.iter().filter(|count| **count > 12).count();
        assert!(crowded < 10, "{crowded} of 1024 buckets have more than three times their share");
    }
}
