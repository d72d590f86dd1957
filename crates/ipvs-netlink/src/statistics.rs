//! Statistics of everything together, which the kernel shows in
//! `/proc/net/ip_vs_stats`, in the family `IPVS_RS` ([`conn`](crate::conn)):
//! `GET_STATS` is answered by `NEW_STATS` messages, first the total, then what each
//! CPU has counted.
//!
//! | no | attribute | type |
//! |---|---|---|
//! | 1 | CPU | u32; left out of the total |
//! | 2 | STATS | as in a service: the old width |
//! | 3 | STATS64 | as in a service: 64 bits |

use ipvs_core::stats::{Counters, Rates};

use crate::attr::{Table, Writer};
use crate::stats;

const CPU: u16 = 1;
const STATS: u16 = 2;
const STATS64: u16 = 3;

/// Statistics of everything together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Since the zero point.
    pub total: (Counters, Rates),
    /// By CPU, whatever the zero point.
    pub cpus: Vec<Counters>,
}

/// Writes the attributes of the total.
pub(crate) fn write_total(writer: &mut Writer, (counters, rates): &(Counters, Rates)) {
    stats::write(writer, STATS, STATS64, counters, rates);
}

/// Writes the attributes of a CPU.
pub(crate) fn write_cpu(writer: &mut Writer, cpu: u32, counters: &Counters) {
    writer.u32(CPU, cpu);
    stats::write(writer, STATS, STATS64, counters, &Rates::default());
}

/// Adds what one message says to `statistics`.
pub(crate) fn read(attrs: &[u8], statistics: &mut Statistics) -> Option<()> {
    let table = Table::<4>::parse(attrs, &[]).ok()?;
    let (counters, rates) = stats::read(table.get(STATS), table.get(STATS64));
    match table.u32(CPU) {
        Some(_) => statistics.cpus.push(counters),
        None => statistics.total = (counters, rates),
    }
    Some(())
}
