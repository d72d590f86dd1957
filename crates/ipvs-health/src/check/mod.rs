//! One check, from its first packet to its result.

mod agent;
mod connect;
mod dns;
mod exec;
mod grpc;
mod http;
mod smtp;
mod tls;
mod udp;

use std::io;
use std::net::SocketAddr;

use ipvs_config::check::{Check, CheckKind};
use ipvs_config::health::Weight;

pub use tls::Trust;

/// How a check failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// Somebody said no: a reset, or that the port is unreachable.
    #[error("refused: {0}")]
    Refused(String),
    /// There is no way to it.
    #[error("out of reach: {0}")]
    Unreachable(String),
    /// It took longer than it may.
    #[error("no answer within {0} ms")]
    Timeout(u128),
    /// The answer is another than the right one.
    #[error("wrong answer: {0}")]
    Wrong(String),
    /// The answer ended before it was whole.
    #[error("broken off: {0}")]
    Broken(String),
    /// The check could not be made.
    #[error("cannot be checked: {0}")]
    Unmade(String),
}

impl Failure {
    /// All labels, and that of a pass.
    pub const LABELS: [&str; 7] =
        ["pass", "refused", "unreachable", "timeout", "wrong", "broken", "unmade"];

    /// As metrics name it.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Refused(_) => "refused",
            Self::Unreachable(_) => "unreachable",
            Self::Timeout(_) => "timeout",
            Self::Wrong(_) => "wrong",
            Self::Broken(_) => "broken",
            Self::Unmade(_) => "unmade",
        }
    }

    /// What an error of a connection means.
    fn of_io(error: &io::Error) -> Self {
        use io::ErrorKind as E;
        let text = error.to_string();
        match error.kind() {
            E::ConnectionRefused => Self::Refused("nobody listens".into()),
            E::HostUnreachable | E::NetworkUnreachable | E::NetworkDown => Self::Unreachable(text),
            E::ConnectionReset | E::ConnectionAborted | E::BrokenPipe | E::UnexpectedEof => {
                Self::Broken(text)
            }
            E::TimedOut => Self::Unreachable("the connection timed out".into()),
            _ => Self::Unmade(text),
        }
    }
}

/// Makes a check once; the weight that the destination asks for. It ends when its time is over.
pub async fn check(check: &Check, at: SocketAddr, trust: &Trust) -> Result<Weight, Failure> {
    let limit = check.timing.timeout;
    let made = async {
        match &check.kind {
            CheckKind::Tcp => connect::tcp(check, at).await.map(drop)?,
            CheckKind::Http(it) => http::check(check, it, at, trust).await?,
            CheckKind::Tls(it) => tls::check(check, it, at, trust).await?,
            CheckKind::Dns(it) => dns::check(check, it, at).await?,
            CheckKind::Udp(it) => udp::check(check, it, at).await?,
            CheckKind::Smtp(it) => smtp::check(check, it, at).await?,
            CheckKind::Grpc(it) => grpc::check(check, it, at, trust).await?,
            CheckKind::Agent(it) => return agent::check(check, it, at).await,
            CheckKind::Exec(it) => return exec::check(it, at).await,
        }
        Ok(Weight::Configured)
    };
    match tokio::time::timeout(limit, made).await {
        Ok(outcome) => outcome,
        Err(_) => Err(Failure::Timeout(limit.as_millis())),
    }
}
