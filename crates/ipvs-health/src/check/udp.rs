//! A datagram, and its answer or that nobody refuses it.

use std::net::SocketAddr;
use std::time::Duration;

use ipvs_config::check::{Check, Expected, Udp};
use regex_lite::Regex;

use super::{Failure, connect};

/// Octets of an answer.
const LONGEST: usize = 64 * 1024;

pub(super) async fn check(check: &Check, udp: &Udp, at: SocketAddr) -> Result<(), Failure> {
    let socket = connect::udp(check, at).await?;
    let lost = |error: std::io::Error| Failure::of_io(&error);
    socket.send(&udp.payload).await.map_err(lost)?;
    let mut answer = vec![0; LONGEST];
    let received = socket.recv(&mut answer);
    let len = if udp.require_reply {
        received.await.map_err(lost)?
    } else {
        // Just before the check's own time is over.
        let patience = check.timing.timeout.saturating_sub(Duration::from_millis(5));
        match tokio::time::timeout(patience, received).await {
            Ok(received) => received.map_err(lost)?,
            Err(_) => return Ok(()),
        }
    };
    let answer = answer.get(..len).unwrap_or_default();
    match &udp.reply {
        Some(expected) if !is_as_expected(answer, expected)? => {
            let shown: String = String::from_utf8_lossy(answer).chars().take(60).collect();
            Err(Failure::Wrong(format!("{shown:?}")))
        }
        _ => Ok(()),
    }
}

fn is_as_expected(answer: &[u8], expected: &Expected) -> Result<bool, Failure> {
    match expected {
        Expected::Pattern(pattern) => {
            let regex = Regex::new(pattern).map_err(|error| Failure::Unmade(error.to_string()))?;
            Ok(regex.is_match(&String::from_utf8_lossy(answer)))
        }
        // As far as both go, as keepalived has it, but for what ends too soon.
        Expected::Octets(octets) => {
            let is_right = |(octet, (value, mask)): (&u8, &(u8, u8))| octet & mask == *value;
            Ok(answer.len() >= octets.len() && answer.iter().zip(octets).all(is_right))
        }
    }
}
