//! `ipvs takeover`: has the daemon hold what a kernel's IPVS holds, in one step.

mod steps;

use std::fmt;
use std::io::{self, BufWriter, Write as _};
use std::path::{Path, PathBuf};

use clap::Args;
use ipvs_core::settings::Settings;
use ipvs_core::snapshot::{DestStatus, ServiceStatus, Timeouts};
use ipvs_core::sync::SyncDaemon;
use ipvs_core::sysctl;
use ipvs_daemon::DEFAULT_SOCKET;
use ipvs_netlink::client::{KernelTransport, SeqpacketTransport, Transport};
use ipvs_netlink::{Client, ClientError, Errno, NotMade};
use ipvs_plane::registry::sync::NO_MESSAGES;

use self::steps::{Step, Steps};
use crate::adm::system_text;

#[derive(Debug, Args)]
pub(super) struct Takeover {
    /// Print what would be done: lines as of `ipvsadm -S --full`, and settings as comments
    #[arg(long)]
    dry_run: bool,
    /// Delete the services and stop the sync daemons that the daemon has, in the same step
    #[arg(long)]
    replace: bool,
    /// Where the daemon listens
    #[arg(long, value_name = "PATH", env = "IPVS_SOCKET", default_value = DEFAULT_SOCKET)]
    socket: PathBuf,
    /// Take over from the daemon that listens there instead of from the kernel
    #[arg(long, value_name = "PATH", hide = true)]
    from: Option<PathBuf>,
}

/// What a director has.
#[derive(Clone, Debug)]
struct Held {
    /// Each with its destinations, newest first.
    services: Vec<(ServiceStatus, Vec<DestStatus>)>,
    timeouts: Timeouts,
    settings: Vec<(String, String)>,
    sync: Vec<SyncDaemon>,
}

impl Held {
    /// What a director has that nobody has told anything.
    fn nothing() -> Self {
        let setting =
            |it: &sysctl::Sysctl| (it.name.to_owned(), it.get(&Settings::DEFAULT).to_string());
        Self {
            services: Vec::new(),
            timeouts: Timeouts { tcp: 900, tcp_fin: 120, udp: 300 },
            settings: sysctl::ALL.iter().map(setting).collect(),
            sync: Vec::new(),
        }
    }

    fn read<T: Transport>(client: &mut Client<T>) -> Result<Self, ClientError> {
        let mut services = Vec::new();
        for service in client.services()? {
            let dests = client.dests(&service.key)?;
            services.push((service, dests));
        }
        Ok(Self {
            services,
            timeouts: client.timeouts()?,
            settings: client.settings()?,
            sync: client.sync_daemons()?,
        })
    }

    fn is_empty(&self) -> bool {
        self.services.is_empty() && self.sync.is_empty()
    }
}

/// Takes over, or shows what that would be.
pub(super) fn run(options: &Takeover) -> Result<(), String> {
    let source = source(options.from.as_deref())?;
    let at = options.socket.display();
    if options.socket == Path::new("kernel") {
        return Err("it is `ipvs daemon' that takes over: --socket names where it listens".into());
    }
    let daemon = SeqpacketTransport::connect(&options.socket).map_err(ClientError::from);
    let mut daemon = match daemon.and_then(Client::new) {
        Ok(daemon) => Some(daemon),
        // What would be done can be shown without it.
        Err(error) if options.dry_run => {
            // If nobody listens, the listing is there all the same.
            let _unheard = writeln!(
                io::stderr().lock(),
                "{at}: {}: shown is what a new daemon would be told",
                system_text(&error)
            );
            None
        }
        Err(error) => return Err(format!("{at}: {}", system_text(&error))),
    };
    let target = daemon.as_mut().map(Held::read).transpose();
    let target = target.map_err(|error| format!("{at}: {}", system_text(&error)))?;
    let target = target.unwrap_or_else(Held::nothing);
    if !target.is_empty() && !options.replace {
        return Err(format!(
            "the daemon at {at} has {} already: with --replace they go in the same step",
            Count(&target)
        ));
    }
    let steps = Steps::between(&source, &target);
    match daemon.as_mut().filter(|_| !options.dry_run) {
        Some(daemon) => take(daemon, &steps, &source),
        None => show(&steps),
    }
}

/// Reads what is to be taken over.
fn source(from: Option<&Path>) -> Result<Held, String> {
    let Some(path) = from else {
        let kernel = KernelTransport::open().map_err(ClientError::from);
        return kernel.and_then(Client::new).map_err(missing).and_then(|mut kernel| {
            let held = Held::read(&mut kernel);
            held.map_err(|error| format!("the kernel's IPVS: {}", system_text(&error)))
        });
    };
    let daemon = SeqpacketTransport::connect(path).map_err(ClientError::from);
    let held = daemon.and_then(Client::new).and_then(|mut daemon| Held::read(&mut daemon));
    held.map_err(|error| format!("{}: {}", path.display(), system_text(&error)))
}

/// Says that there is nothing to take over from.
fn missing(error: ClientError) -> String {
    match error {
        ClientError::Refused(Errno::NOENT) => {
            "this kernel has no ip_vs, or has not loaded it (modprobe ip_vs)".into()
        }
        error => format!("the kernel's IPVS: {}", system_text(&error)),
    }
}

/// Prints what would be done.
fn show(steps: &Steps) -> Result<(), String> {
    let mut out = BufWriter::new(io::stdout().lock());
    let lines = steps.left_out.iter().map(|it| format!("# not taken over: {it}"));
    let lines = lines.chain(steps.all.iter().map(|step| step.line.clone()));
    let written = lines.into_iter().try_for_each(|line| writeln!(out, "{line}"));
    match written.and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.to_string()),
        _ => Ok(()),
    }
}

/// Has the daemon take over, and says what.
fn take<T: Transport>(daemon: &mut Client<T>, steps: &Steps, source: &Held) -> Result<(), String> {
    let edits: Vec<_> = steps.all.iter().map(|step| step.edit).collect();
    daemon.apply_all(&edits).map_err(|error| not_made(&error, &steps.all))?;
    let mut out = io::stdout().lock();
    let mut lines =
        vec![format!("taken over: {}, {}", Count(source), counted(steps.settings, "setting"))];
    lines.extend(steps.left_out.iter().map(|it| format!("not taken over: {it}")));
    lines.extend(
        source.sync.iter().map(|it| format!("sync daemon on {}: it {NO_MESSAGES}", it.interface)),
    );
    lines.push("connections, and the table that they stand in, are left as they are".into());
    for line in lines {
        // It is done, whether somebody listens or not.
        let _unheard = writeln!(out, "{line}");
    }
    Ok(())
}

fn not_made(error: &NotMade, steps: &[Step]) -> String {
    match error {
        NotMade::Edit { position, errno, reason } => {
            let line = steps.get(*position).map_or("", |step| &step.line);
            let why = reason.clone();
            let why = why.unwrap_or_else(|| system_text(&ClientError::Refused(*errno)));
            format!("{line}: {why} (nothing was changed)")
        }
        NotMade::Failed(error) => system_text(error),
        other => other.to_string(),
    }
}

/// How much a director has, in words.
struct Count<'a>(&'a Held);

impl fmt::Display for Count<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Held { services, sync, .. } = self.0;
        let dests: usize = services.iter().map(|(_, dests)| dests.len()).sum();
        let services = counted(services.len(), "service");
        let (dests, sync) = (counted(dests, "destination"), counted(sync.len(), "sync daemon"));
        write!(f, "{services} with {dests}, {sync}")
    }
}

fn counted(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ipvs_core::proto::tcp::{ESTABLISHED, FIN_WAIT};

    #[test]
    fn a_kernel_without_ip_vs_is_named_as_such() {
        let text = missing(ClientError::Refused(Errno::NOENT));
        assert_eq!(text, "this kernel has no ip_vs, or has not loaded it (modprobe ip_vs)");
        let text = missing(ClientError::Refused(Errno::NOMEM));
        assert_eq!(text, "the kernel's IPVS: Cannot allocate memory");
    }

    #[test]
    fn what_is_refused_is_named_by_its_line() {
        let source = Held { timeouts: Timeouts { tcp: 1, tcp_fin: 2, udp: 3 }, ..Held::nothing() };
        let steps = Steps::between(&source, &Held::nothing());
        let refused = |position, reason: Option<&str>| {
            let reason = reason.map(str::to_owned);
            not_made(&NotMade::Edit { position, errno: Errno::INVAL, reason }, &steps.all)
        };
        let text = "--set 1 2 3: Invalid argument (nothing was changed)";
        assert_eq!(refused(0, None), text);
        let text = "--set 1 2 3: out of range (nothing was changed)";
        assert_eq!(refused(0, Some("out of range")), text);
    }

    #[test]
    fn a_director_that_nobody_told_anything_has_the_default_timeouts() {
        let timeouts = Held::nothing().timeouts;
        let [tcp, tcp_fin] = [ESTABLISHED, FIN_WAIT]
            .map(|state| Settings::DEFAULT.tcp_timeouts[usize::from(state)] / 1000);
        assert_eq!((timeouts.tcp, timeouts.tcp_fin), (tcp, tcp_fin));
        assert_eq!(timeouts.udp, Settings::DEFAULT.udp_timeout / 1000);
    }

    #[test]
    fn a_setting_of_another_version_is_left_out_and_named() {
        let mut source = Held::nothing();
        source.settings.push(("est_nice".into(), "0".into()));
        source.settings.push(("sloppy_tcp".into(), "no number".into()));
        let steps = Steps::between(&source, &Held::nothing());
        assert!(steps.all.is_empty());
        let expect = [
            "net.ipv4.vs.est_nice = 0, which is not known here",
            "net.ipv4.vs.sloppy_tcp = no number: invalid argument",
        ];
        assert_eq!(steps.left_out, expect);
    }
}
