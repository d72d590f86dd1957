//! `ipvs check`, `ipvs plan` and `ipvs apply`: a configuration file, by itself, beside
//! what runs, and made so.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use clap::Args;
use ipvs_config::health::{Checked, Standing, Weight};
use ipvs_config::{Change, Running, RunningService, Wanted};
use ipvs_core::snapshot::AsksFor;
use ipvs_daemon::DEFAULT_SOCKET;
use ipvs_netlink::client::{SeqpacketTransport, Transport};
use ipvs_netlink::health::Health;
use ipvs_netlink::transaction::Terms;
use ipvs_netlink::{Client, ClientError, Errno, NotMade};

use crate::adm::system_text;

#[derive(Debug, Args)]
pub(super) struct Check {
    /// The configuration
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// A file and the director that it is for, as `plan` and `apply` take them.
#[derive(Debug, Args)]
pub(super) struct Plan {
    /// Where the daemon listens
    #[arg(long, value_name = "PATH", env = "IPVS_SOCKET", default_value = DEFAULT_SOCKET)]
    socket: PathBuf,
    /// The configuration
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// The same, as `apply` takes it.
#[derive(Debug, Args)]
pub(super) struct Apply {
    #[command(flatten)]
    plan: Plan,
    /// Restore what there was before after this time, unless `ipvs confirm` comes: 60s, 5m, 1h
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    confirm: Option<u32>,
}

/// A time with its unit, in seconds.
pub(super) fn seconds(text: &str) -> Result<u32, String> {
    let units = [("s", 1), ("m", 60), ("h", 3600)];
    let number = |(unit, factor): (&str, u32)| {
        text.strip_suffix(unit)?.parse::<u32>().ok()?.checked_mul(factor)
    };
    match units.into_iter().find_map(number) {
        Some(seconds @ 1..=86_400) => Ok(seconds),
        _ => Err("a time is a number with its unit, s, m or h: from 1s to 24h".into()),
    }
}

/// Plans that are made anew because others changed something meanwhile.
const ATTEMPTS: usize = 10;

/// Reads the file, and says nothing if it is right.
pub(super) fn check(options: &Check) -> Result<(), String> {
    read(&options.file).map(drop)
}

/// Shows what would change; whether anything would.
pub(super) fn plan(options: &Plan) -> Result<bool, String> {
    let wanted = read(&options.file)?;
    let mut client = connect(&options.socket)?;
    let running = running(&mut client).map_err(|error| at(&options.socket, error))?;
    let changes = ipvs_config::plan(&wanted, &running);
    show(&changes).map_err(|error| error.to_string())?;
    Ok(!changes.is_empty())
}

/// Makes what runs what the file says, and shows what was changed.
pub(super) fn apply(options: &Apply) -> Result<(), String> {
    let Apply { plan, confirm } = options;
    let wanted = read(&plan.file)?;
    let mut client = connect(&plan.socket)?;
    for _ in 0..ATTEMPTS {
        let terms = Terms { unchanged: true, trial: *confirm };
        if let Some(changes) = apply_once(&mut client, &wanted, terms, &plan.socket)? {
            // It is done, whether somebody listens or not.
            drop(show(&changes));
            if let Some(seconds) = confirm {
                let text = if changes.is_empty() {
                    "nothing had to be changed, so nothing is on trial".to_owned()
                } else {
                    format!("rolled back in {seconds} s unless `ipvs confirm` comes")
                };
                let _unheard = writeln!(io::stderr().lock(), "ipvs apply: {text}");
            }
            return Ok(());
        }
    }
    Err("what runs is being changed all the time (nothing was changed)".into())
}

/// Plans and has the plan made in one transaction; `None` if something was changed meanwhile.
fn apply_once<T: Transport>(
    client: &mut Client<T>,
    wanted: &Wanted,
    terms: Terms,
    socket: &Path,
) -> Result<Option<Vec<Change>>, String> {
    client.begin_all().map_err(|error| at(socket, busy(error)))?;
    let running = running(client).map_err(|error| at(socket, error))?;
    let changes = ipvs_config::plan(wanted, &running);
    let edits: Vec<_> = changes.iter().filter_map(Change::edit).collect();
    if changes.iter().any(|change| matches!(change, Change::Checks(..))) {
        client
            .check_all(&Checked::of(&wanted.services).file())
            .map_err(|error| at(socket, error))?;
    }
    match client.commit_all(&edits, terms) {
        Ok(()) => Ok(Some(changes)),
        Err(NotMade::Changed) => Ok(None),
        Err(NotMade::Edit { position, errno, reason }) => {
            let change = changes.get(position).map(ToString::to_string).unwrap_or_default();
            let why = reason.unwrap_or_else(|| system_text(&ClientError::Refused(errno)));
            Err(format!("{change}: {why} (nothing was changed)"))
        }
        Err(error) => Err(at(socket, error)),
    }
}

/// Keeps what is on trial, or undoes it.
pub(super) fn end_trial(socket: &Path, keep: bool) -> Result<(), String> {
    connect(socket)?.end_trial(keep).map_err(|error| match error {
        ClientError::Refused(Errno::NOENT) => "nothing is on trial".into(),
        ClientError::Refused(Errno::IO) => {
            "what ran before cannot be restored; the daemon's log says why".into()
        }
        error => at(socket, system_text(&error)),
    })
}

/// Prints what runs as a file; what a file cannot say, in words.
pub(super) fn export(socket: &Path) -> Result<Vec<String>, String> {
    let mut client = connect(socket)?;
    let mut read_running = || running(&mut client).map_err(|error| at(socket, error));
    let mut attempts = 0;
    loop {
        let text = ipvs_config::export(&read_running()?.wanted());
        attempts += 1;
        // What a file has no word for shows when it is read again; so does what was changed
        // while it was being asked for.
        let left_out = match ipvs_config::read("what runs", &text) {
            Ok(wanted) => ipvs_config::plan(&wanted, &read_running()?),
            Err(_) if attempts < ATTEMPTS => continue,
            Err(error) => return Err(format!("a file cannot say what runs: {error}")),
        };
        if left_out.is_empty() || attempts == ATTEMPTS {
            let mut stdout = io::stdout().lock();
            return match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
                Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.to_string()),
                _ => Ok(left_out.iter().map(ToString::to_string).collect()),
            };
        }
    }
}

/// Why no transaction was begun, in words that help.
fn busy(error: NotMade) -> String {
    match error {
        NotMade::Failed(ClientError::Refused(Errno::BUSY)) => {
            "too many transactions are open: try again (nothing was changed)".into()
        }
        other => other.to_string(),
    }
}

fn connect(socket: &Path) -> Result<Client<SeqpacketTransport>, String> {
    let transport = SeqpacketTransport::connect(socket).map_err(ClientError::from);
    transport.and_then(Client::new).map_err(|error| at(socket, system_text(&error)))
}

fn at(socket: &Path, error: impl std::fmt::Display) -> String {
    format!("{}: {error}", socket.display())
}

/// Prints changes, one a line; a reader that has had enough is no failure.
fn show(changes: &[Change]) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match changes.iter().try_for_each(|change| writeln!(stdout, "{change}")) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

fn read(path: &Path) -> Result<Wanted, String> {
    let name = path.display().to_string();
    let text = fs::read_to_string(path).map_err(|error| format!("{name}: {error}"))?;
    ipvs_config::read(&name, &text).map_err(|error| error.to_string())
}

/// What the director that `client` asks runs, all of one moment as far as that can be had.
fn running<T: Transport>(client: &mut Client<T>) -> Result<Running, ClientError> {
    let mut health = client.health()?;
    for _ in 0..ATTEMPTS {
        let running = running_with(client, &health)?;
        let again = client.health()?;
        if again.generation == health.generation {
            return Ok(running);
        }
        health = again;
    }
    running_with(client, &health)
}

fn running_with<T: Transport>(
    client: &mut Client<T>,
    health: &Health,
) -> Result<Running, ClientError> {
    let mut services = Vec::new();
    for service in client.services()? {
        let dests = client
            .dests(&service.key)?
            .into_iter()
            .map(|dest| (dest.key, dest.spec, u64::from(dest.active) + u64::from(dest.inactive)));
        let (key, spec) = (service.key, service.spec);
        services.push(RunningService { key, spec, dests: dests.collect() });
    }
    let (timeouts, settings) = (client.timeouts()?, client.settings()?);
    let (marks, sync) = (client.mark_rules()?, client.sync_daemons()?);
    let mut checked = checked(health)?;
    let drains = client.drains()?;
    checked.standings.drained = drains.iter().map(|it| (it.service, it.dest)).collect();
    Ok(Running { services, timeouts, settings, marks, sync, checked })
}

/// What is checked, as the daemon says it.
fn checked(health: &Health) -> Result<Checked, ClientError> {
    let text = std::str::from_utf8(&health.file).ok();
    let file = text.and_then(|text| ipvs_config::read("what is checked", text).ok());
    let file = file.ok_or(ClientError::BadAnswer("the checks of another version"))?;
    let mut checked = Checked::of(&file.services);
    checked.standings.quorums = health.quorums.iter().copied().collect();
    let warming = health.warming.iter();
    checked.standings.warming =
        warming.map(|(service, dest, percent)| ((*service, *dest), *percent)).collect();
    for it in &health.standings {
        let weight = match it.asks {
            None => Weight::Configured,
            Some(AsksFor::Percent(percent)) => Weight::Percent(percent),
            Some(AsksFor::Weight(weight)) => Weight::Exactly(weight),
        };
        checked.standings.dests.insert((it.service, it.dest), Standing { up: it.up, weight });
    }
    Ok(checked)
}
