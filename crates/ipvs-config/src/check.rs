//! Checks of a destination's health, as a file asks for them.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

/// One check of a destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What is asked, and what is to be answered.
    pub kind: CheckKind,
    /// Where, if not at the destination's own address.
    pub address: Option<IpAddr>,
    /// Where, if not at the destination's own port.
    pub port: Option<u16>,
    /// The address that is asked from, if not the one that the host chooses.
    pub source: Option<IpAddr>,
    /// The firewall mark of what is sent; 0 is none.
    pub mark: u32,
    /// How often, and how many results count.
    pub timing: Timing,
}

impl Check {
    /// What is checked, in words: `http /health port 8080`.
    pub fn words(&self) -> String {
        let mut words = self.kind.name().to_owned();
        match &self.kind {
            CheckKind::Tcp => {}
            CheckKind::Http(http) => {
                words.push(' ');
                words.push_str(&http.path);
            }
        }
        if let Some(address) = self.address {
            // A string takes everything.
            let _ = write!(words, " at {address}");
        }
        if let Some(port) = self.port {
            let _ = write!(words, " port {port}");
        }
        words
    }
}

/// What is asked, and what is to be answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckKind {
    /// A TCP connection is accepted.
    Tcp,
    /// A request by HTTP is answered.
    Http(Http),
}

impl CheckKind {
    /// Its name in a file.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Http(Http { tls: None, .. }) => "http",
            Self::Http(_) => "https",
        }
    }
}

/// A request by HTTP/1.1, and its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Http {
    /// `GET` or another.
    pub method: String,
    /// From the slash on.
    pub path: String,
    /// The `Host` header, if not address and port.
    pub host: Option<String>,
    /// Statuses that are right, from and to.
    pub status: Vec<(u16, u16)>,
    /// What is found in the body, as a regular expression.
    pub body: Option<String>,
    /// Within TLS.
    pub tls: Option<Tls>,
}

impl Http {
    /// Statuses that are right unless others are named.
    pub const STATUS: (u16, u16) = (200, 399);
}

/// How TLS is spoken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// The name that is asked for and that the certificate must be for, if not the host's.
    pub sni: Option<String>,
    /// Whether the certificate is verified.
    pub verify: bool,
    /// Who may have signed it, if not whom the system trusts.
    pub ca_file: Option<PathBuf>,
}

/// How often a check is made, and how many results count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timing {
    /// From the beginning of one check to that of the next.
    pub interval: Duration,
    /// The same while results say something else than what counts.
    pub retry_interval: Duration,
    /// How long a check may take.
    pub timeout: Duration,
    /// Before the first check.
    pub delay: Duration,
    /// Up to so many percent of the interval it is shorter or longer, at random.
    pub jitter: u32,
    /// So many passes in a row, and what was down is up.
    pub rise: u32,
    /// So many failures in a row, and what was up is down.
    pub fall: u32,
    /// What goes down often stays there longer.
    pub dampening: Option<Dampening>,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(5),
            retry_interval: Duration::from_secs(1),
            timeout: Duration::from_secs(3),
            delay: Duration::ZERO,
            jitter: 10,
            rise: 2,
            fall: 3,
            dampening: None,
        }
    }
}

/// What goes down often stays there longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dampening {
    /// So often
    pub falls: u32,
    /// within this time,
    pub within: Duration,
    /// and it is not up before it has passed for so long.
    pub hold: Duration,
}
