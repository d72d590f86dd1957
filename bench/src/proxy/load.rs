//! Programs that ask through a director, and what they say.

use std::path::Path;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use ipvs_lab::HttpClient;

use super::bed::{Bed, IPERF, VIP};

/// Connections of the client that offers a fixed load.
const CONNECTIONS: u32 = 16;

/// A package without which there is nothing to be measured.
pub(super) fn is_missing() -> Option<&'static str> {
    let programs = [("wrk", "wrk"), ("iperf3", "iperf3"), ("nginx", "nginx-light")];
    let found = |program: &str| {
        ["/usr/bin", "/usr/sbin"].iter().any(|folder| Path::new(folder).join(program).exists())
    };
    programs.into_iter().find(|(program, _)| !found(program)).map(|(_, package)| package)
}

/// Requests a second by wrk, or why they may not be believed.
pub(super) fn wrk(bed: &Bed, keeps: bool, seconds: u32) -> Result<Result<f64, String>> {
    let mut command = bed.clients.command("wrk")?;
    command.args(["-t1", "-c32", &format!("-d{seconds}s")]);
    if !keeps {
        command.args(["-H", "Connection: close"]);
    }
    command.arg(format!("http://{}/", bed.http())).stdin(Stdio::null());
    let output = command.output().context("cannot start wrk")?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "wrk: {}: {text}", output.status);
    rate_of(&text)
}

/// What wrk prints.
fn rate_of(text: &str) -> Result<Result<f64, String>> {
    let bad = |line: &&str| {
        let line = line.trim_start();
        line.starts_with("Socket errors") || line.starts_with("Non-2xx")
    };
    if let Some(line) = text.lines().find(bad) {
        return Ok(Err(format!("wrk: {}", line.trim())));
    }
    let rate = text.lines().find_map(|line| line.trim().strip_prefix("Requests/sec:"));
    let rate = rate.with_context(|| format!("wrk says no rate: {text}"))?;
    Ok(Ok(rate.trim().parse()?))
}

/// Gigabits a second that iperf3 receives.
pub(super) fn iperf3(bed: &Bed, seconds: u32) -> Result<f64> {
    let mut command = bed.clients.command("iperf3")?;
    command.args(["--client", &VIP.to_string(), "--port", &IPERF.to_string(), "--json"]);
    command.args(["--time", &seconds.to_string()]).stdin(Stdio::null());
    let output = command.output().context("cannot start iperf3")?;
    let report: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let received = report.pointer("/end/sum_received/bits_per_second");
    let received = received.and_then(serde_json::Value::as_f64);
    Ok(received.with_context(|| format!("iperf3: {report}"))? / 1e9)
}

/// Percentiles of how long an answer takes, in microseconds, at `offered` requests a second.
///
/// Counted from when the request was due: one that had to wait for the answer before has waited.
pub(super) fn latency(bed: &Bed, offered: u32, seconds: u32) -> Result<Vec<(&'static str, f64)>> {
    let to = bed.http();
    let each = (offered * seconds / CONNECTIONS).max(1);
    let interval = Duration::from_secs(u64::from(seconds)) / each;
    let ask = |number: u32| -> Result<Vec<Duration>> {
        let mut client = HttpClient::new().keep_alive();
        let timeout = Duration::from_secs(5);
        client.get(to, timeout).map_err(|error| anyhow!("{error:?}"))?;
        // Each begins a little later than the one before.
        let start = Instant::now() + interval * number / CONNECTIONS;
        let mut took = Vec::new();
        for turn in 0..each {
            let due = start + interval * turn;
            thread::sleep(due.saturating_duration_since(Instant::now()));
            let answer = client.get(to, timeout).map_err(|error| anyhow!("{error:?}"))?;
            ensure!(answer.status == 200, "status {}", answer.status);
            took.push(due.elapsed());
        }
        Ok(took)
    };
    let all = bed.clients.run(|| {
        thread::scope(|scope| {
            let ask = &ask;
            let threads: Vec<_> =
                (0..CONNECTIONS).map(|number| scope.spawn(move || ask(number))).collect();
            let joined = threads
                .into_iter()
                .map(|it| it.join().map_err(|_panic| anyhow!("a client panicked"))?);
            joined.collect::<Result<Vec<_>>>()
        })
    })??;
    let mut all: Vec<f64> = all.into_iter().flatten().map(|it| it.as_secs_f64() * 1e6).collect();
    all.sort_by(f64::total_cmp);
    let of = |per_mille: usize| {
        let place = (all.len() * per_mille / 1000).min(all.len().saturating_sub(1));
        all.get(place).copied().unwrap_or(f64::NAN)
    };
    Ok(vec![("p50", of(500)), ("p99", of(990)), ("p99.9", of(999))])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_with_errors_is_none() {
        let good =
            "  12 requests in 1.00s, 3.00MB read\nRequests/sec:   4711.50\nTransfer/sec: 1MB\n";
        assert_eq!(rate_of(good).unwrap(), Ok(4711.5));
        let bad = "  Socket errors: connect 0, read 5, write 0, timeout 0\nRequests/sec: 9.0\n";
        assert!(rate_of(bad).unwrap().unwrap_err().contains("read 5"));
        assert!(rate_of("nothing").is_err());
    }
}
