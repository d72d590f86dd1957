//! `ipvs check` and `ipvs plan`: a configuration file, by itself and beside
//! what runs.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use clap::Args;
use ipvs_config::{Running, RunningService, Wanted};
use ipvs_daemon::DEFAULT_SOCKET;
use ipvs_netlink::client::{SeqpacketTransport, Transport};
use ipvs_netlink::{Client, ClientError};

#[derive(Debug, Args)]
pub(super) struct Check {
    /// The configuration
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct Plan {
    /// Where the daemon listens
    #[arg(long, value_name = "PATH", env = "IPVS_SOCKET", default_value = DEFAULT_SOCKET)]
    socket: PathBuf,
    /// The configuration
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// Reads the file, and says nothing if it is right.
pub(super) fn check(options: &Check) -> Result<(), String> {
    read(&options.file).map(drop)
}

/// Shows what would change; whether anything would.
pub(super) fn plan(options: &Plan) -> Result<bool, String> {
    let wanted = read(&options.file)?;
    let socket = SeqpacketTransport::connect(&options.socket).map_err(ClientError::from);
    let running = socket.and_then(Client::new).and_then(|mut client| running(&mut client));
    let running = running.map_err(|error| format!("{}: {error}", options.socket.display()))?;
    let changes = ipvs_config::plan(&wanted, &running);
    let mut stdout = io::stdout().lock();
    match changes.iter().try_for_each(|change| writeln!(stdout, "{change}")) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.to_string()),
        _ => Ok(!changes.is_empty()),
    }
}

fn read(path: &Path) -> Result<Wanted, String> {
    let name = path.display().to_string();
    let text = fs::read_to_string(path).map_err(|error| format!("{name}: {error}"))?;
    ipvs_config::read(&name, &text).map_err(|error| error.to_string())
}

/// What the director that `client` asks runs.
fn running<T: Transport>(client: &mut Client<T>) -> Result<Running, ClientError> {
    let mut services = Vec::new();
    for service in client.services()? {
        let dests = client
            .dests(&service.key)?
            .into_iter()
            .map(|dest| (dest.key, dest.spec, u64::from(dest.active) + u64::from(dest.inactive)));
        let (key, spec) = (service.key, service.spec);
        services.push(RunningService { key, spec, dests: dests.collect() });
    }
    Ok(Running { services, timeouts: client.timeouts()?, settings: client.settings()? })
}
