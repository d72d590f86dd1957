//! The health of destinations, in the family `IPVS_RS` ([`conn`](crate::conn)).
//!
//! | no | command | form | answer |
//! |---|---|---|---|
//! | 21 | `SET_HEALTH` | do, within a transaction | acknowledgement: a part of what is to be checked |
//! | 22 | `NEW_HEALTH` | | (only as a reply) |
//! | 23 | `GET_HEALTH` | dump | `NEW_HEALTH`: the generation, then parts of what is checked, then for each service, destination and check how it stands |
//!
//! | no | attribute | type |
//! |---|---|---|
//! | 1 | SERVICE | nest, as in the kernel's family |
//! | 2 | DEST | nest, as in the kernel's family |
//! | 3 | PART | octets: a part of the text of a configuration file, which says what is checked |
//! | 4 | QUORUM | u8, with SERVICE: whether it has its quorum |
//! | 5 | UP | u8, with SERVICE and DEST: whether the destination is up |
//! | 6 | PERCENT | u32, with UP: the weight that it asks for, in percent of the configured one |
//! | 7 | WEIGHT | u32, with UP: the weight that it asks for |
//! | 8 | CHECK | text, with SERVICE and DEST: a check in words |
//! | 9 | STATE | text, with CHECK: `up`, `down`, `held` or `unchecked` |
//! | 10 | SINCE | u64, with CHECK: milliseconds; left out where that is not known |
//! | 11 | OUTCOME | text, with CHECK: `passed`, or why not; empty before it was made |
//! | 12 | AGE | u64, with CHECK: milliseconds since then |
//! | 13 | TOOK | u64, with CHECK: microseconds that it took |
//! | 14 | PASSES | u64, with CHECK |
//! | 15 | FAILURES | u64, with CHECK |
//! | 16 | GENERATION | u64: while it is the same, nothing was changed |
//! | 17 | WARMTH | u32, with SERVICE and DEST: it has come up lately, and has so many percent of its weight so far |

use ipvs_core::dest::DestKey;
use ipvs_core::service::ServiceKey;
use ipvs_core::snapshot::{AsksFor, CheckStatus, Health as Known};

use crate::attr::{Table, Writer};
use crate::dest::{self, DestAttrs};
use crate::numbers::top;
use crate::service::{self, ServiceAttrs};

/// Says a part of what is to be checked.
pub const SET_HEALTH: u8 = 21;
/// Only as a reply.
pub const NEW_HEALTH: u8 = 22;
/// Asks for all that is known.
pub const GET_HEALTH: u8 = 23;

const PART_OF: u16 = 3;
const QUORUM: u16 = 4;
const UP: u16 = 5;
const PERCENT: u16 = 6;
const WEIGHT: u16 = 7;
const CHECK: u16 = 8;
const STATE: u16 = 9;
const SINCE: u16 = 10;
const OUTCOME: u16 = 11;
const AGE: u16 = 12;
const TOOK: u16 = 13;
const PASSES: u16 = 14;
const FAILURES: u16 = 15;
const GENERATION: u16 = 16;
const WARMTH: u16 = 17;

/// Octets of a part.
pub const PART: usize = 16 * 1024;

/// All that is known of the health of destinations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// While it is the same, nothing was changed.
    pub generation: u64,
    /// What is checked, as the text of a configuration file; empty if nothing is.
    pub file: Vec<u8>,
    /// Which services have their quorum.
    pub quorums: Vec<(ServiceKey, bool)>,
    /// How destinations stand.
    pub standings: Vec<Standing>,
    /// Destinations that have come up lately, with how many percent of their weight they have.
    pub warming: Vec<(ServiceKey, DestKey, u32)>,
    /// How checks stand.
    pub checks: Vec<Check>,
}

/// How a destination stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Of this service.
    pub service: ServiceKey,
    /// Which.
    pub dest: DestKey,
    /// Whether it is up.
    pub up: bool,
    /// The weight that it asks for.
    pub asks: Option<AsksFor>,
}

/// How a check stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// Of a destination of this service.
    pub service: ServiceKey,
    /// Which.
    pub dest: DestKey,
    /// What is checked, in words.
    pub check: String,
    /// `up`, `down`, `held` or `unchecked`.
    pub state: String,
    /// Since when, in milliseconds.
    pub since: Option<u64>,
    /// `passed`, or why not; empty before it was made.
    pub outcome: String,
    /// Milliseconds since then.
    pub age: u64,
    /// Microseconds that it took.
    pub took: u64,
    /// How often it has passed.
    pub passes: u64,
    /// How often it has failed.
    pub failures: u64,
}

/// Writes the attribute of a part of what is to be checked.
pub(crate) fn write_part(writer: &mut Writer, part: &[u8]) {
    writer.attr(PART_OF, part);
}

/// Reads it.
pub(crate) fn read_part(attrs: &[u8]) -> Option<&[u8]> {
    Table::<4>::parse(attrs, &[]).ok()?.get(PART_OF)
}

/// Writes the attribute of the generation.
pub(crate) fn write_generation(writer: &mut Writer, generation: u64) {
    writer.u64(GENERATION, generation);
}

/// What goes into one message.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Said<'a> {
    Part(&'a [u8]),
    Known(Known<'a>),
}

/// Cuts what is too long for a message.
pub(crate) fn each_part(known: Known<'_>, each: &mut dyn FnMut(Said<'_>)) {
    match known {
        Known::Checks(file) => file.as_bytes().chunks(PART).for_each(|it| each(Said::Part(it))),
        known => each(Said::Known(known)),
    }
}

/// Writes the attributes of something that is known.
pub(crate) fn write(writer: &mut Writer, said: Said<'_>) {
    match said {
        Said::Part(part) => write_part(writer, part),
        // It was cut.
        Said::Known(Known::Checks(_)) => {}
        Said::Known(Known::Quorum(service, has)) => {
            service::write_key(writer, &service);
            writer.u8(QUORUM, has.into());
        }
        Said::Known(Known::Standing { service, dest, up, asks }) => {
            service::write_key(writer, &service);
            dest::write_key(writer, &dest);
            writer.u8(UP, up.into());
            match asks {
                Some(AsksFor::Percent(percent)) => writer.u32(PERCENT, percent),
                Some(AsksFor::Weight(weight)) => writer.u32(WEIGHT, weight),
                None => {}
            }
        }
        Said::Known(Known::Warming { service, dest, percent }) => {
            service::write_key(writer, &service);
            dest::write_key(writer, &dest);
            writer.u32(WARMTH, percent);
        }
        Said::Known(Known::Check(it)) => write_check(writer, &it),
    }
}

fn write_check(writer: &mut Writer, it: &CheckStatus<'_>) {
    service::write_key(writer, &it.service);
    dest::write_key(writer, &it.dest);
    writer.text(CHECK, it.check.as_bytes());
    writer.text(STATE, it.state.as_bytes());
    if let Some(since) = it.since {
        writer.u64(SINCE, since);
    }
    writer.text(OUTCOME, it.outcome.as_bytes());
    writer.u64(AGE, it.age);
    writer.u64(TOOK, it.took);
    writer.u64(PASSES, it.passes);
    writer.u64(FAILURES, it.failures);
}

/// Adds what one message says to `health`; `None` if it says nothing.
pub(crate) fn read(attrs: &[u8], health: &mut Health) -> Option<()> {
    let table = Table::<18>::parse(attrs, &[]).ok()?;
    if let Some(part) = table.get(PART_OF) {
        health.file.extend_from_slice(part);
        return Some(());
    }
    if let Some(generation) = table.u64(GENERATION) {
        health.generation = generation;
        return Some(());
    }
    let service = ServiceAttrs::parse(table.get(top::SERVICE)).ok()?.key;
    if let Some(has) = table.u8(QUORUM) {
        health.quorums.push((service, has != 0));
        return Some(());
    }
    let dest = DestAttrs::parse(table.get(top::DEST)).ok()?.key(service.family()).ok()?;
    if let Some(up) = table.u8(UP) {
        let percent = table.u32(PERCENT).map(AsksFor::Percent);
        let asks = percent.or_else(|| table.u32(WEIGHT).map(AsksFor::Weight));
        health.standings.push(Standing { service, dest, up: up != 0, asks });
        return Some(());
    }
    if let Some(percent) = table.u32(WARMTH) {
        health.warming.push((service, dest, percent));
        return Some(());
    }
    let text = |number| table.text(number).map(|it| String::from_utf8_lossy(it).into_owned());
    let number = |number| table.u64(number);
    health.checks.push(Check {
        service,
        dest,
        check: text(CHECK)?,
        state: text(STATE)?,
        since: number(SINCE),
        outcome: text(OUTCOME)?,
        age: number(AGE)?,
        took: number(TOOK)?,
        passes: number(PASSES)?,
        failures: number(FAILURES)?,
    });
    Some(())
}
