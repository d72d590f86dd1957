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
            CheckKind::Tcp | CheckKind::Udp(_) | CheckKind::Smtp(_) | CheckKind::Agent(_) => {}
            CheckKind::Http(http) => words.extend([" ", &http.path]),
            CheckKind::Tls(it) => words.extend(it.tls.sni.iter().flat_map(|name| [" ", name])),
            CheckKind::Dns(dns) => words.extend([" ", &dns.record, " ", &dns.name]),
            CheckKind::Grpc(it) if it.service.is_empty() => {}
            CheckKind::Grpc(grpc) => words.extend([" ", &grpc.service]),
            CheckKind::Exec(exec) => words.extend(exec.command.iter().flat_map(|it| [" ", it])),
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
    /// A handshake of TLS succeeds.
    Tls(Certificate),
    /// A question to a name server is answered.
    Dns(Dns),
    /// A datagram is answered, or not refused.
    Udp(Udp),
    /// A mail server greets.
    Smtp(Smtp),
    /// The health service of gRPC says that it is serving.
    Grpc(Grpc),
    /// An agent says how it stands.
    Agent(Agent),
    /// A program says so by its exit status.
    Exec(Exec),
}

impl CheckKind {
    /// Its name in a file.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Http(Http { tls: None, .. }) => "http",
            Self::Http(_) => "https",
            Self::Tls(_) => "tls",
            Self::Dns(_) => "dns",
            Self::Udp(_) => "udp",
            Self::Smtp(_) => "smtp",
            Self::Grpc(_) => "grpc",
            Self::Agent(_) => "agent",
            Self::Exec(_) => "exec",
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

/// A handshake, and for how long the certificate has to be valid still.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// How TLS is spoken.
    pub tls: Tls,
    /// Days that the certificate has to be valid for at least.
    pub days: u32,
}

/// A question to a name server by UDP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dns {
    /// The name that is asked for.
    pub name: String,
    /// The type of record, as `A`.
    pub record: String,
    /// The response code that is right.
    pub rcode: String,
    /// A record that is in the answer, as text.
    pub answer: Option<String>,
}

/// Response codes by their names.
pub const RCODES: [(&str, u16); 6] = [
    ("NOERROR", 0),
    ("FORMERR", 1),
    ("SERVFAIL", 2),
    ("NXDOMAIN", 3),
    ("NOTIMP", 4),
    ("REFUSED", 5),
];

/// Types of records that may be asked for.
pub const RECORDS: [&str; 12] =
    ["A", "AAAA", "CNAME", "MX", "NS", "PTR", "SOA", "SRV", "TXT", "CAA", "DS", "DNSKEY"];

/// A datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Udp {
    /// What is sent.
    pub payload: Vec<u8>,
    /// Whether it has to be answered; otherwise it is enough that nobody refuses it.
    pub require_reply: bool,
    /// What is in the answer.
    pub reply: Option<Expected>,
}

/// What is in an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// A regular expression that is found in it.
    Pattern(String),
    /// Octets that it begins with, and of each the bits that count.
    Octets(Vec<(u8, u8)>),
}

/// A greeting to a mail server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Smtp {
    /// As whom.
    pub helo: String,
}

/// The health service of gRPC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grpc {
    /// Of which service; of the whole server if empty.
    pub service: String,
    /// Within TLS.
    pub tls: Option<Tls>,
}

/// An agent on the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agent {
    /// What is sent to it.
    pub send: Option<String>,
}

/// A program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exec {
    /// Its path and arguments.
    pub command: Vec<String>,
    /// The user that it runs as.
    pub user: String,
    /// The group that it runs as.
    pub group: String,
    /// Whether a status from 2 on is a weight, and 2.
    pub dynamic: bool,
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

/// Says what is wrong with a regular expression, if something is.
pub fn is_pattern(text: &str) -> Result<(), String> {
    match regex_lite::Regex::new(text) {
        Ok(_) => Ok(()),
        Err(error) => Err(format!("`{text}` is no regular expression: {error}")),
    }
}
