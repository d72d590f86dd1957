//! Each checker against the real server that it is for, and against what may be wrong with one:
//! nobody listens, no answer, a slow one, a wrong one, half of one.
#![expect(
    clippy::tests_outside_test_module,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "these are tests, with what they need"
)]

mod agents;
mod faults;
mod grpc;
mod handshake;
mod http;
mod mail;
mod names;
mod programs;
mod tcp;

use std::net::SocketAddr;
use std::time::Duration;

use ipvs_config::check::{Check, CheckKind, Timing};
use ipvs_health::check::{Failure, Trust, check};

/// A check as a file says it: the keys of its table.
fn read(keys: &str) -> Check {
    let file = format!(
        "[[service]]\naddress = \"192.0.2.1\"\nprotocol = \"tcp\"\nport = 80\n[[service.check]]\n{keys}\n"
    );
    let wanted = ipvs_config::read("test", &file).unwrap();
    wanted.services[0].health.checks[0].clone()
}

/// Makes a check once, patiently; one that shall fail for want of an answer is given little time.
async fn made(keys: &str, at: SocketAddr) -> Result<(), Failure> {
    let mut one = read(keys);
    if !keys.contains("timeout") {
        one.timing.timeout = Duration::from_secs(20);
    }
    check(&one, at, &Trust::default()).await.map(drop)
}

/// Runs a test within a runtime as the checks have one.
fn within(test: impl Future<Output = ()>) {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    tokio::task::LocalSet::new().block_on(&runtime.enable_all().build().unwrap(), test);
}

#[test]
fn a_check_that_a_file_says_is_as_it_says() {
    let one = read("type = \"tcp\"\ninterval = \"7s\"\nrise = 4");
    let timing = Timing { interval: Duration::from_secs(7), rise: 4, ..Timing::default() };
    assert_eq!((one.kind, one.timing), (CheckKind::Tcp, timing));
}
