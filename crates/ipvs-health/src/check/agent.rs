//! An agent on the server, which says in a line how it stands and how many connections it wants:
//! the words of `HAProxy`'s agent checks.

use std::net::SocketAddr;

use ipvs_config::check::{Agent, Check};
use ipvs_config::health::Weight;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{Failure, connect};

/// Octets of a line.
const LONGEST: u64 = 1024;

pub(super) async fn check(check: &Check, agent: &Agent, at: SocketAddr) -> Result<Weight, Failure> {
    let mut stream = connect::tcp(check, at).await?;
    let lost = |error: std::io::Error| Failure::of_io(&error);
    if let Some(text) = &agent.send {
        stream.write_all(text.as_bytes()).await.map_err(lost)?;
    }
    let mut line = Vec::new();
    let mut octets = stream.take(LONGEST);
    while !line.contains(&b'\n') && octets.read_buf(&mut line).await.map_err(lost)? > 0 {}
    let text = String::from_utf8_lossy(&line);
    match text.split_once('\n') {
        Some((line, _)) => said(line.trim_end()),
        None if text.is_empty() => Err(Failure::Broken("the agent said nothing".into())),
        None => Err(Failure::Broken("the agent's line has no end".into())),
    }
}

/// What a line says: words, and behind `#` a reason.
fn said(line: &str) -> Result<Weight, Failure> {
    let wrong = |why: String| Err(Failure::Wrong(why));
    let words = line.split_once('#').map_or(line, |(words, _)| words);
    let mut words = words.split([' ', ',', '\t']).filter(|word| !word.is_empty()).peekable();
    if words.peek().is_none() {
        return wrong("the agent said nothing".into());
    }
    let mut weight = Weight::Configured;
    let mut is_drained = false;
    for word in words {
        match (word.to_ascii_lowercase().as_str(), word.strip_suffix('%').map(str::parse)) {
            ("up" | "ready", _) => {}
            ("drain", _) => is_drained = true,
            ("down" | "fail" | "failed" | "stopped" | "maint", _) => {
                return wrong(format!("the agent says {line:?}"));
            }
            (_, Some(Ok(percent @ 0..=256))) => weight = Weight::Percent(percent),
            _ => return wrong(format!("{word:?} is no word of an agent")),
        }
    }
    Ok(if is_drained { Weight::Percent(0) } else { weight })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_says_how_it_stands_and_what_it_wants() {
        for (line, weight) in [
            ("up", Weight::Configured),
            ("75%", Weight::Percent(75)),
            ("up 75%", Weight::Percent(75)),
            ("ready,200%", Weight::Percent(200)),
            ("drain 75%", Weight::Percent(0)),
            ("UP # all is well", Weight::Configured),
        ] {
            assert_eq!(said(line), Ok(weight), "{line}");
        }
        for bad in ["down", "up down", "75", "300%", "", "# up", "failed # disk", "-5%", "uP!"] {
            assert!(said(bad).is_err(), "{bad}");
        }
    }
}
