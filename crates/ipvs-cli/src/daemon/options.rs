//! The command lines of the director's process.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use ipvs_daemon::{DEFAULT_PINS, DEFAULT_SOCKET, Options, PlaneChoice, Readers};
use ipvs_plane::bpf::AttachMode;
use ipvs_plane::store::Limits;

#[derive(Debug, Parser)]
#[command(name = "ipvs", disable_help_subcommand = true)]
pub(super) struct Cli {
    #[command(subcommand)]
    pub(super) task: Task,
}

#[derive(Debug, Subcommand)]
pub(super) enum Task {
    /// Run a director: a data plane, and the socket that configures it
    Daemon(Daemon),
    /// Take the eBPF plane off its interfaces and remove it
    Detach(Detach),
    /// Show how packets get in and why so, what is pinned, how full tables are, what became
    /// of packets, and what is wrong and what to do about it
    Status(Status),
    /// Rules that give packets a firewall mark where no firewall has seen them
    Mark(super::mark::Mark),
    /// Take a destination out of service without breaking what it serves: nothing new goes there,
    /// persistent clients and datagrams of new connections included, and what is there may
    /// finish, until a deadline; without arguments, show how far such drains are
    Drain(super::drain::Options),
    /// Have a destination serve as its weight says again
    Undrain(super::drain::Undrain),
    /// Read a configuration file, and say what is wrong with it and where
    Check(super::config::Check),
    /// Show what must change so that what runs is what a configuration file says, and how many
    /// connections each change touches; exits with 0 for nothing, 2 for changes, 1 for a failure
    Plan(super::config::Plan),
    /// Make what runs what a configuration file says, in one step or not at all, and show what
    /// was changed; exits with 0 if it is so, 1 for a failure, which has changed nothing
    Apply(super::config::Apply),
    /// Keep what was applied with --confirm
    Confirm(Status),
    /// Undo what was applied with --confirm, at once
    Rollback(Status),
    /// Print what runs as a configuration file; exits with 2 if a file cannot say all of it
    Export(Status),
    /// Print what another program is configured with as a configuration file; what cannot be
    /// carried over is named on stderr, and the exit status is then 2
    Import(super::import::Options),
    /// Have the daemon hold what the kernel's own IPVS holds: services, destinations,
    /// timeouts, settings and sync daemons, all in one step or none; not its connections
    Takeover(super::takeover::Takeover),
    /// Print what completes these commands in a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write the man pages of these commands, and of ipvsadm, to a folder
    Man {
        /// Where to
        #[arg(value_name = "DIR")]
        folder: PathBuf,
    },
}

/// A data plane, as it is typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Plane {
    /// eBPF where it can be had, else user space
    Auto,
    /// In the kernel, by eBPF: goes on without the daemon
    Bpf,
    /// In user space, by packet sockets: ends with the daemon
    User,
}

impl From<Plane> for PlaneChoice {
    fn from(plane: Plane) -> Self {
        match plane {
            Plane::Auto => Self::Auto,
            Plane::Bpf => Self::Bpf,
            Plane::User => Self::User,
        }
    }
}

/// A form of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum LogFormat {
    /// Lines for people
    Text,
    /// An object a line, with timestamp, level, message and what belongs to it
    Json,
}

#[derive(Debug, Args)]
pub(super) struct Daemon {
    /// Data plane
    #[arg(long, value_enum, default_value_t = Plane::Auto)]
    plane: Plane,
    /// Where to listen
    #[arg(long, value_name = "PATH", env = "IPVS_SOCKET", default_value = DEFAULT_SOCKET)]
    socket: PathBuf,
    /// Where the eBPF plane is pinned; a BPF file system is mounted there if there is none
    #[arg(long, value_name = "DIR", default_value = DEFAULT_PINS)]
    pins: PathBuf,
    /// Interface to balance on, and how the eBPF plane attaches to it; all that carry frames
    /// unless given
    #[arg(short, long = "interface", value_name = "NAME[:auto|xdp|tc|netfilter]", value_parser = interface)]
    interfaces: Vec<(String, AttachMode)>,
    /// Connections that the table holds
    #[arg(long, value_name = "N", default_value_t = Limits::default().conns,
        value_parser = clap::value_parser!(u32).range(1..=1 << 28))]
    connections: u32,
    /// Destinations that all services may have together
    #[arg(long, value_name = "N", default_value_t = Limits::default().dests,
        value_parser = clap::value_parser!(u32).range(1..=1 << 24))]
    destinations: u32,
    /// Virtual ports at which masqueraded FTP is helped, at most 8, or 0 for none; as a plane
    /// that is found running has them unless given, else 21
    #[arg(long, value_name = "PORT,…", value_parser = ftp_ports)]
    ftp_ports: Option<[u16; 8]>,
    /// What shall run, read again at SIGHUP (docs/configuration.md): a mistake in it keeps the
    /// daemon from starting where nothing runs, and changes nothing where something does
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Members of this group may change the configuration, as root and the daemon's user may
    #[arg(long, value_name = "NAME")]
    group: Option<String>,
    /// Members of this group may read the configuration, or `all` may
    #[arg(long, value_name = "NAME|all", value_parser = readers)]
    readers: Option<Readers>,
    /// Serve metrics for Prometheus by HTTP, at /metrics of this address, to everybody who gets
    /// there: one of loopback, or of a network for such things; not served unless given
    #[arg(long, value_name = "ADDRESS:PORT")]
    metrics: Option<SocketAddr>,
    /// Write "ready" and a newline to this descriptor, a pipe, once clients are answered
    #[arg(long, value_name = "FD")]
    pub(super) ready_fd: Option<u32>,
    /// Say more of what happens
    #[arg(short, long)]
    pub(super) verbose: bool,
    /// How the log is written to stderr
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub(super) log_format: LogFormat,
}

impl From<Daemon> for Options {
    fn from(options: Daemon) -> Self {
        let Daemon {
            plane,
            socket,
            pins,
            interfaces,
            connections,
            destinations,
            ftp_ports,
            config,
            group,
            readers,
            metrics,
            ..
        } = options;
        // An edit of a list takes new places before it gives back the old.
        let members = destinations.saturating_mul(2);
        let limits =
            Limits { conns: connections, dests: destinations, members, ..Limits::default() };
        let readers = readers.unwrap_or_default();
        Self {
            plane: plane.into(),
            socket,
            pins,
            interfaces,
            limits,
            ftp_ports,
            config,
            group,
            readers,
            metrics,
        }
    }
}

#[derive(Debug, Args)]
pub(super) struct Detach {
    /// Where the eBPF plane is pinned
    #[arg(long, value_name = "DIR", default_value = DEFAULT_PINS)]
    pub(super) pins: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct Status {
    /// Where the daemon listens
    #[arg(long, value_name = "PATH", env = "IPVS_SOCKET", default_value = DEFAULT_SOCKET)]
    pub(super) socket: PathBuf,
    /// Show it as one JSON object
    #[arg(long)]
    pub(super) json: bool,
}

/// An interface's name, and behind a colon how to attach to it.
fn interface(text: &str) -> Result<(String, AttachMode), String> {
    let (name, mode) = text.split_once(':').unwrap_or((text, "auto"));
    let mode = match mode {
        "auto" => AttachMode::Auto,
        "xdp" => AttachMode::Xdp,
        "tc" => AttachMode::Tc,
        "netfilter" => AttachMode::Netfilter,
        _ => return Err(format!("`{mode}` is none of auto, xdp, tc and netfilter")),
    };
    if name.is_empty() { Err("the name is missing".to_owned()) } else { Ok((name.into(), mode)) }
}

/// A group's name, or `all`.
#[expect(clippy::unnecessary_wraps, reason = "what clap calls may fail")]
fn readers(text: &str) -> Result<Readers, std::convert::Infallible> {
    Ok(if text == "all" { Readers::All } else { Readers::Group(text.to_owned()) })
}

/// Ports with commas between; those that are left are 0, which is none.
fn ftp_ports(text: &str) -> Result<[u16; 8], String> {
    let mut ports = [0; 8];
    let mut places = ports.iter_mut();
    for port in text.split(',') {
        let place = places.next().ok_or("there is room for 8 ports")?;
        *place = port.parse().map_err(|error| format!("`{port}`: {error}"))?;
    }
    Ok(ports)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn daemon(line: &str) -> Result<Options, String> {
        match Cli::try_parse_from(line.split(' ')).map(|cli| cli.task) {
            Ok(Task::Daemon(options)) => Ok(options.into()),
            Ok(task) => Err(format!("{task:?}")),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn interfaces_have_a_mode_behind_a_colon() {
        let line = "ipvs daemon -i eth0 -i eth1:xdp --interface br0:tc -i eth2:netfilter";
        let options = daemon(line).unwrap();
        let expect = [
            ("eth0", AttachMode::Auto),
            ("eth1", AttachMode::Xdp),
            ("br0", AttachMode::Tc),
            ("eth2", AttachMode::Netfilter),
        ];
        let expect = expect.map(|(name, mode)| (name.to_owned(), mode));
        assert_eq!(options.interfaces, expect);
        for wrong in ["eth0:fast", ":tc", ""] {
            assert!(daemon(&format!("ipvs daemon -i {wrong}")).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn sizes_are_limits_of_the_tables() {
        let options = daemon("ipvs daemon --connections 4096 --destinations 10").unwrap();
        let Limits { conns, dests, members, .. } = options.limits;
        assert_eq!((conns, dests, members), (4096, 10, 20));
        assert!(daemon("ipvs daemon --connections 0").is_err());
    }

    #[test]
    fn ports_of_ftp_are_told_by_commas() {
        let ports = |text: &str| daemon(&format!("ipvs daemon --ftp-ports {text}"));
        assert_eq!(ports("21,2121").unwrap().ftp_ports, Some([21, 2121, 0, 0, 0, 0, 0, 0]));
        assert_eq!(ports("0").unwrap().ftp_ports, Some([0; 8]));
        assert_eq!(daemon("ipvs daemon -v").unwrap().ftp_ports, None);
        for wrong in ["21,", "65536", "ftp", "1,2,3,4,5,6,7,8,9"] {
            assert!(ports(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn without_options_a_daemon_is_the_default() {
        assert_eq!(daemon("ipvs daemon --socket /s").unwrap().limits, Limits::default());
    }
}
