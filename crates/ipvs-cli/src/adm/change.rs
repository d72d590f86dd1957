//! The commands that change something.

use ipvs_core::command::Command;
use ipvs_core::service::ServiceKey;
use ipvs_netlink::client::Transport;
use ipvs_netlink::sync::SyncState;
use ipvs_netlink::{Client, ClientError};

use super::options::{Given, Verb};
use super::parse::Invocation;

/// Makes the change that a command line asks for; one that lists is none.
pub(crate) fn change<T: Transport>(
    client: &mut Client<T>,
    line: &Invocation,
) -> Result<(), ClientError> {
    edit(line).map_or(Ok(()), |edit| client.apply(&edit))
}

/// The edit that a command line asks for; one that lists asks for none.
pub(crate) fn edit(line: &Invocation) -> Option<Command> {
    let service = line.service;
    match line.verb {
        Verb::AddService => Some(Command::AddService(service, line.service_spec)),
        Verb::EditService => Some(Command::EditService(service, line.service_spec)),
        Verb::DeleteService => Some(Command::DeleteService(service)),
        Verb::AddServer => Some(Command::AddDest(service, line.dest, line.dest_spec)),
        Verb::EditServer => Some(Command::EditDest(service, line.dest, line.dest_spec)),
        Verb::DeleteServer => Some(Command::DeleteDest(service, line.dest)),
        Verb::Zero => {
            let one = line.given.has(Given::ServiceAddress) && !is_nothing(&service);
            Some(Command::Zero(one.then_some(service)))
        }
        Verb::Flush => Some(Command::Flush),
        Verb::Set => Some(Command::SetTimeouts(line.timeouts)),
        Verb::StartDaemon => Some(Command::StartSync(line.sync)),
        Verb::StopDaemon => {
            let state = SyncState::from_number(line.sync.state);
            Some(Command::StopSync(state.unwrap_or(SyncState::Master)))
        }
        Verb::List | Verb::Save | Verb::Restore => None,
    }
}

/// Whether the original's key of this service is all zeros, which is how it says every service.
fn is_nothing(service: &ServiceKey) -> bool {
    !service.is_fwmark() && service.port == 0 && service.addr.octets() == [0; 16]
}
