//! `ipvs drain` and `ipvs undrain`: takes a destination out of service without breaking what
//! it serves, and shows how far that is.

use std::fmt;
use std::io::{self, Write};
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use clap::{Args, ValueEnum};
use ipvs_config::words;
use ipvs_core::command::Command;
use ipvs_core::dest::DestKey;
use ipvs_core::drain::{AtDeadline, Drain, DrainStatus};
use ipvs_core::service::ServiceKey;
use ipvs_core::time::Millis;
use ipvs_daemon::DEFAULT_SOCKET;
use ipvs_netlink::client::SeqpacketTransport;
use ipvs_netlink::{Client, ClientError, Errno};
use serde_json::{Value, json};

use super::config::seconds;
use super::connect;

/// How often `--wait` looks.
const LOOK: Duration = Duration::from_millis(500);

#[derive(Debug, Args)]
pub(super) struct Options {
    /// The service: tcp:ADDRESS:PORT, udp:…, sctp:…, fwmark:MARK or fwmark:MARK:ipv6
    #[arg(value_name = "SERVICE", value_parser = words::read_service, requires = "dest")]
    service: Option<ServiceKey>,
    /// The destination: ADDRESS:PORT
    #[arg(value_name = "DESTINATION", value_parser = words::read_dest)]
    dest: Option<DestKey>,
    /// How long its connections have: 60s, 10m, 1h; as long as they like unless given
    #[arg(long, value_name = "TIME", value_parser = seconds, requires = "service")]
    deadline: Option<u32>,
    /// What becomes of connections that are left at the deadline
    #[arg(
        long,
        value_enum,
        requires = "deadline",
        default_value_if("deadline", clap::builder::ArgPredicate::IsPresent, "reset")
    )]
    then: Option<Then>,
    /// Come back when no connection is left
    #[arg(long, requires = "service")]
    wait: bool,
    /// Show the drains as a JSON array
    #[arg(long, conflicts_with_all = ["service", "dest"])]
    json: bool,
    #[command(flatten)]
    at: At,
}

#[derive(Debug, Args)]
pub(super) struct Undrain {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    at: At,
}

#[derive(Debug, Args)]
struct At {
    /// Where the daemon listens
    #[arg(long, value_name = "PATH", env = "IPVS_SOCKET", default_value = DEFAULT_SOCKET)]
    socket: PathBuf,
}

/// A destination of a service.
#[derive(Debug, Args)]
struct Which {
    /// The service: tcp:ADDRESS:PORT, udp:…, sctp:…, fwmark:MARK or fwmark:MARK:ipv6
    #[arg(value_name = "SERVICE", value_parser = words::read_service)]
    service: ServiceKey,
    /// The destination: ADDRESS:PORT
    #[arg(value_name = "DESTINATION", value_parser = words::read_dest)]
    dest: DestKey,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Then {
    /// They stay
    Wait,
    /// Their next packets go to other destinations; those of TCP, which cannot, are the host's
    Rehash,
    /// TCP is reset on both sides, all else goes to other destinations
    Reset,
}

impl From<Then> for AtDeadline {
    fn from(then: Then) -> Self {
        match then {
            Then::Wait => Self::Wait,
            Then::Rehash => Self::Rehash,
            Then::Reset => Self::Reset,
        }
    }
}

/// Begins a drain, or shows all.
pub(super) fn run(options: &Options) -> Result<(), String> {
    let mut client = connect(&options.at.socket)?;
    let (Some(service), Some(dest)) = (options.service, options.dest) else {
        return list(&mut client, options.json);
    };
    let which = &Which { service, dest };
    let drain = Drain {
        limit: options.deadline.map(|seconds| Millis(seconds.saturating_mul(1000))),
        then: options.then.map(Into::into).unwrap_or_default(),
    };
    edit(&mut client, which, &Command::DrainDest(which.service, which.dest, drain))?;
    if options.wait { wait(&mut client, which) } else { Ok(()) }
}

/// Ends a drain.
pub(super) fn end(options: &Undrain) -> Result<(), String> {
    let which = &options.which;
    let mut client = connect(&options.at.socket)?;
    edit(&mut client, which, &Command::UndrainDest(which.service, which.dest))
}

fn edit(
    client: &mut Client<SeqpacketTransport>,
    which: &Which,
    edit: &Command,
) -> Result<(), String> {
    client.apply(edit).map_err(|error| match error {
        ClientError::Refused(Errno::SRCH) => {
            format!("there is no service {}; see `ipvsadm -Ln`", words::service(&which.service))
        }
        ClientError::Refused(Errno::NOENT) => {
            let (service, dest) = (words::service(&which.service), words::dest(&which.dest));
            format!("service {service} has no destination {dest}; see `ipvsadm -Ln`")
        }
        ClientError::Refused(Errno::NODATA) => {
            format!("{} is not drained; see `ipvs drain`", words::dest(&which.dest))
        }
        other => other.to_string(),
    })
}

/// Shows how far it is until no connection is left.
fn wait(client: &mut Client<SeqpacketTransport>, which: &Which) -> Result<(), String> {
    let mut shown = None;
    loop {
        let drains = client.drains().map_err(|error| error.to_string())?;
        let ours = |it: &&DrainStatus| it.service == which.service && it.dest == which.dest;
        let Some(status) = drains.iter().find(ours) else {
            return Err(format!("{} is not drained any more", words::dest(&which.dest)));
        };
        if shown != Some(status.open) {
            written(writeln!(io::stdout(), "{}", Shown(status)))?;
            shown = Some(status.open);
        }
        if status.open == 0 {
            return Ok(());
        }
        thread::sleep(LOOK);
    }
}

fn list(client: &mut Client<SeqpacketTransport>, json: bool) -> Result<(), String> {
    let mut drains = client.drains().map_err(|error| error.to_string())?;
    drains.sort_by_key(|it| (words::service(&it.service), words::dest(&it.dest)));
    let mut out = io::stdout().lock();
    if json {
        let all: Vec<_> = drains.iter().map(object).collect();
        return written(writeln!(out, "{:#}", Value::from(all)));
    }
    drains.iter().try_for_each(|it| written(writeln!(out, "{}", Shown(it))))
}

/// What came of writing to whoever may have had enough.
fn written(outcome: io::Result<()>) -> Result<(), String> {
    match outcome {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.to_string()),
        _ => Ok(()),
    }
}

fn object(status: &DrainStatus) -> Value {
    json!({
        "service": words::service(&status.service),
        "destination": words::dest(&status.dest),
        "open": status.open,
        "over": status.over,
        "persistent": status.persistent,
        "began_with": status.began_with,
        "since_ms": status.since.0,
        "deadline_ms": status.deadline.map(|it| it.0),
        "eta_ms": eta(status).map(|it| it.0),
        "then": status.then.name(),
    })
}

/// How long it takes until no connection is left, if they go on ending as they did so far;
/// `None` if that says nothing.
fn eta(status: &DrainStatus) -> Option<Millis> {
    let left = u64::from(status.open);
    let ended = u64::from(status.began_with).checked_sub(left)?;
    let so_far = u64::from(status.since.0).checked_mul(left)?.checked_div(ended)?;
    u32::try_from(so_far).ok().map(Millis)
}

/// A drain in a line.
struct Shown<'a>(&'a DrainStatus);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(status) = self;
        let (service, dest) = (words::service(&status.service), words::dest(&status.dest));
        let DrainStatus { open, began_with, .. } = status;
        write!(f, "{service} {dest}: {open} of {began_with} connections are open")?;
        if *open == 0 {
            return write!(f, ", drained");
        }
        if let Some(eta) = eta(status) {
            write!(f, ", about {} to go", Time(eta))?;
        }
        match (status.deadline, status.then) {
            (None, _) => write!(f, ", no deadline"),
            (Some(Millis(0)), AtDeadline::Wait) => write!(f, ", deadline over"),
            (Some(Millis(0)), then) => write!(f, ", deadline over: {}", then.name()),
            (Some(left), then) => {
                write!(f, ", {} until the deadline, then {}", Time(left), then.name())
            }
        }
    }
}

/// A time as people say it.
struct Time(Millis);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.0.div_ceil(1000);
        match seconds {
            0..60 => write!(f, "{seconds}s"),
            60..3600 => write!(f, "{}m{:02}s", seconds / 60, seconds % 60),
            _ => write!(f, "{}h{:02}m", seconds / 3600, seconds % 3600 / 60),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(began_with: u32, open: u32, since: u32, deadline: Option<u32>) -> DrainStatus {
        DrainStatus {
            service: words::read_service("tcp:192.0.2.10:80").unwrap(),
            dest: words::read_dest("10.1.0.11:8080").unwrap(),
            then: AtDeadline::Reset,
            since: Millis(since),
            deadline: deadline.map(Millis),
            began_with,
            open,
            over: 0,
            persistent: 0,
        }
    }

    #[test]
    fn progress_is_told_with_what_is_left_and_how_long_it_takes() {
        let shown = |status: DrainStatus| Shown(&status).to_string();
        let dest = "tcp 192.0.2.10:80 10.1.0.11:8080";
        assert_eq!(
            shown(status(40, 10, 30_000, Some(570_000))),
            format!(
                "{dest}: 10 of 40 connections are open, about 10s to go, 9m30s until the deadline, then reset"
            )
        );
        assert_eq!(
            shown(status(40, 40, 1_000, None)),
            format!("{dest}: 40 of 40 connections are open, no deadline")
        );
        assert_eq!(
            shown(status(40, 0, 1_000, Some(0))),
            format!("{dest}: 0 of 40 connections are open, drained")
        );
        assert_eq!(
            shown(status(1, 1, 1_000, Some(0))),
            format!("{dest}: 1 of 1 connections are open, deadline over: reset")
        );
    }

    #[test]
    fn times_have_their_largest_units() {
        let told = |millis| Time(Millis(millis)).to_string();
        assert_eq!([told(1), told(61_000), told(3_660_000)], ["1s", "1m01s", "1h01m"]);
    }
}
