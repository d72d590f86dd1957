//! The outcome: as a table, as JSON, and in one sentence.

use std::time::Duration;

use serde_json::{Value, json};

use super::balance::Row;
use super::director::Director;
use super::drain::Drained;
use super::kill::Killed;
use super::layout::WEIGHTS;
use super::screen::Screen;

/// Everything that came of the demo.
#[derive(Debug)]
pub(super) struct Report {
    plane: &'static str,
    why: String,
    pub(super) balance: Vec<Row>,
    pub(super) drain: Option<Drained>,
    pub(super) kill: Option<Killed>,
}

impl Report {
    pub(super) fn new(director: &Director) -> Self {
        let (plane, why) = (director.kind.option(), director.why.clone());
        Self { plane, why, balance: Vec::new(), drain: None, kill: None }
    }

    /// What went wrong, in words.
    fn complaints(&self) -> Vec<&str> {
        let rows = self.balance.iter().flat_map(|row| &row.complaints);
        let drain = self.drain.iter().flat_map(|drained| &drained.complaints);
        let kill = self.kill.iter().flat_map(|killed| &killed.complaints);
        rows.chain(drain).chain(kill).map(String::as_str).collect()
    }

    /// Whether every request was answered by the right kind of server, and
    /// everything else went as promised.
    pub(super) fn passed(&self) -> bool {
        let asked = self.balance.iter().all(|row| row.requests() > 0 && row.failed == 0);
        asked && self.complaints().is_empty()
    }

    pub(super) fn show_verdict(&self, screen: &mut Screen) {
        let requests: u64 = self.balance.iter().map(Row::requests).sum();
        screen.heading(if self.passed() { "Passed" } else { "FAILED" });
        if self.passed() {
            screen.line(&format!(
                "{requests} requests by 12 services, each answered by a server that saw the \
                 addresses it must see."
            ));
        }
        for complaint in self.complaints() {
            screen.line(&format!("* {complaint}"));
        }
    }

    pub(super) fn json(&self) -> Value {
        let rows: Vec<Value> = self.balance.iter().map(row_json).collect();
        json!({
            "plane": self.plane,
            "why": self.why,
            "passed": self.passed(),
            "weights": WEIGHTS,
            "balance": rows,
            "drain": self.drain.as_ref().map(Drained::json),
            "kill": self.kill.as_ref().map(Killed::json),
        })
    }
}

fn row_json(row: &Row) -> Value {
    json!({
        "service": row.name.split_whitespace().collect::<Vec<_>>().join(" "),
        "scheduler": row.scheduler,
        "requests": row.requests(),
        "answered": row.answered,
        "failed": row.failed,
        "p50_us": u64::try_from(row.p50.as_micros()).unwrap_or(u64::MAX),
        "p99_us": u64::try_from(row.p99.as_micros()).unwrap_or(u64::MAX),
        "complaints": row.complaints,
    })
}

/// Shows all rows, below what their columns mean.
pub(super) fn table(rows: &[Row], screen: &mut Screen) {
    screen.line(&format!(
        "{:<16} {:<5} {:>8}  {:^23}  {:>9} {:>9} {:>7}",
        "", "sched", "requests", "share of rs1, rs2, rs3", "p50", "p99", "errors"
    ));
    let all: u64 = WEIGHTS.iter().copied().map(u64::from).sum();
    let wanted = WEIGHTS.map(|weight| format!("{:>6.1}%", percent(weight.into(), all)));
    screen.line(&format!("{:<16} {:<5} {:>8}  {}", "by the weights", "", "", wanted.join(" ")));
    for row in rows {
        let shares = row.shares().map(|share| format!("{share:>6.1}%"));
        screen.line(&format!(
            "{:<16} {:<5} {:>8}  {}  {:>9} {:>9} {:>7}",
            row.name,
            row.scheduler,
            row.requests(),
            shares.join(" "),
            time(row.p50),
            time(row.p99),
            row.failed,
        ));
    }
}

/// A time that is read at a glance.
fn time(time: Duration) -> String {
    let micros = time.as_micros();
    if micros < 10_000 { format!("{micros} µs") } else { format!("{} ms", time.as_millis()) }
}

/// Hundredths of `all` that `part` is; none of nothing.
#[expect(clippy::cast_precision_loss, reason = "shown with one decimal")]
pub(super) fn percent(part: u64, all: u64) -> f64 {
    if all == 0 { 0.0 } else { part as f64 * 100.0 / all as f64 }
}

/// The time within which so many hundredths of the requests were answered.
pub(super) fn percentile(sorted: &[Duration], hundredths: usize) -> Duration {
    let at = (sorted.len() * hundredths).div_ceil(100).saturating_sub(1);
    sorted.get(at).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_a_time_that_was_measured() {
        let times: Vec<Duration> = (1..=200).map(Duration::from_micros).collect();
        assert_eq!(percentile(&times, 50), Duration::from_micros(100));
        assert_eq!(percentile(&times, 99), Duration::from_micros(198));
        assert_eq!(percentile(&times[..1], 99), Duration::from_micros(1));
        assert_eq!(percentile(&[], 50), Duration::ZERO);
    }

    #[test]
    fn times_are_short() {
        assert_eq!(time(Duration::from_micros(9_999)), "9999 µs");
        assert_eq!(time(Duration::from_millis(10)), "10 ms");
    }
}
