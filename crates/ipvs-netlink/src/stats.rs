//! Counters and rates as attributes, in the old width and in 64 bits.

use ipvs_core::stats::{Counters, Rates};

use crate::attr::{Table, Writer};
use crate::numbers::stats as n;

/// Writes the nests `number32` and `number64`.
///
/// In the old one all but the byte totals have 32 bits; the kernel cuts them.
pub(crate) fn write(
    writer: &mut Writer,
    number32: u16,
    number64: u16,
    counters: &Counters,
    rates: &Rates,
) {
    let values = [
        (n::CONNS, counters.conns),
        (n::IN_PKTS, counters.in_packets),
        (n::OUT_PKTS, counters.out_packets),
        (n::IN_BYTES, counters.in_bytes),
        (n::OUT_BYTES, counters.out_bytes),
        (n::CPS, rates.conns),
        (n::IN_PPS, rates.in_packets),
        (n::OUT_PPS, rates.out_packets),
        (n::IN_BPS, rates.in_bytes),
        (n::OUT_BPS, rates.out_bytes),
    ];
    writer.nest(number32, |writer| {
        for (number, value) in values {
            match number {
                n::IN_BYTES | n::OUT_BYTES => writer.u64(number, value),
                #[expect(clippy::cast_possible_truncation, reason = "cut as the kernel cuts it")]
                _ => writer.u32(number, value as u32),
            }
        }
    });
    writer.nest(number64, |writer| {
        for (number, value) in values {
            writer.u64(number, value);
        }
    });
}

/// Reads the 64-bit nest if it is there, else the old one.
pub(crate) fn read(old: Option<&[u8]>, new: Option<&[u8]>) -> (Counters, Rates) {
    let wide = new.is_some();
    let Some(table) = new.or(old).and_then(|bytes| Table::<11>::parse(bytes, &[]).ok()) else {
        return (Counters::default(), Rates::default());
    };
    let value = |number| {
        let narrow = !wide && !matches!(number, n::IN_BYTES | n::OUT_BYTES);
        let value = if narrow { table.u32(number).map(u64::from) } else { table.u64(number) };
        value.unwrap_or(0)
    };
    let counters = Counters {
        conns: value(n::CONNS),
        in_packets: value(n::IN_PKTS),
        out_packets: value(n::OUT_PKTS),
        in_bytes: value(n::IN_BYTES),
        out_bytes: value(n::OUT_BYTES),
    };
    let rates = Rates {
        conns: value(n::CPS),
        in_packets: value(n::IN_PPS),
        out_packets: value(n::OUT_PPS),
        in_bytes: value(n::IN_BPS),
        out_bytes: value(n::OUT_BPS),
    };
    (counters, rates)
}
