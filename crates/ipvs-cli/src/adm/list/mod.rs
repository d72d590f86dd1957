//! The commands that show something: `-L` in all its forms, and `-S`.

use std::io::{self, Write};

use ipvs_core::service::ServiceKey;
use ipvs_core::snapshot::{DestStatus, ServiceStatus};
use ipvs_netlink::client::Transport;
use ipvs_netlink::conn::Connection;
use ipvs_netlink::sync::{SyncDaemon, SyncState};
use ipvs_netlink::{Client, ClientError, Info};

use self::rows::Format;
use self::text::Naming;
use super::names::Names;
use super::options::{Given, Verb};
use super::parse::Invocation;

mod conns;
mod json;
mod rows;
mod save;
pub(crate) mod save_lines;
mod sort;
mod text;

/// Services whose destinations are asked for before the first of them is shown.
const AT_ONCE: usize = 32;

/// Why a listing stopped.
#[derive(Debug)]
pub(crate) enum ListError {
    /// The director refused, or could not be asked.
    Director(ClientError),
    /// The text could not be written.
    Output(io::Error),
}

impl From<ClientError> for ListError {
    fn from(error: ClientError) -> Self {
        Self::Director(error)
    }
}

impl From<io::Error> for ListError {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

/// Shows what a command line asks for.
pub(crate) fn show<T: Transport>(
    client: &mut Client<T>,
    info: Info,
    line: &Invocation,
    names: &dyn Names,
    out: &mut dyn Write,
) -> Result<(), ListError> {
    let given = line.given;
    let naming = Naming { numeric: given.has(Given::Numeric), names };
    if given.has(Given::Connection) {
        let connections = client.connections()?;
        if given.has(Given::Json) {
            return Ok(json::write(out, &json::Connections::new(&connections))?);
        }
        return Ok(show_connections(&connections, naming, given.has(Given::PersistentConn), out)?);
    }
    if given.has(Given::Timeout) {
        let timeouts = client.timeouts()?;
        if given.has(Given::Json) {
            return Ok(json::write(out, &json::Seconds::from(timeouts))?);
        }
        let (tcp, tcp_fin, udp) = (timeouts.tcp, timeouts.tcp_fin, timeouts.udp);
        return Ok(writeln!(out, "Timeout (tcp tcpfin udp): {tcp} {tcp_fin} {udp}")?);
    }
    if given.has(Given::Daemon) {
        let daemons = client.sync_daemons()?;
        if given.has(Given::Json) {
            return Ok(json::write(out, &json::Daemons::new(&daemons))?);
        }
        return Ok(sync_daemons(&daemons, out)?);
    }
    let listing = Listing {
        format: Format::of(given),
        exact: given.has(Given::Exact),
        sorted: !given.has(Given::NoSort),
        form: match (line.verb, given.has(Given::Full)) {
            (Verb::Save, false) => Form::Lines,
            (Verb::Save, true) => Form::FullLines,
            _ => Form::Table,
        },
        naming,
    };
    if given.has(Given::Json) {
        return listing.as_json(client, info, line, out);
    }
    if given.has(Given::ServiceAddress) {
        let status = client.service(&line.service)?;
        rows::header(out, listing.format)?;
        return listing.services(client, &[status], out);
    }
    let mut services = client.services()?;
    if listing.sorted {
        services = sort::services(services);
    }
    if listing.form == Form::Table {
        let [_, major, minor, patch] = info.version.to_be_bytes();
        let size = info.table_size;
        writeln!(out, "IP Virtual Server version {major}.{minor}.{patch} (size={size})")?;
        rows::header(out, listing.format)?;
    }
    listing.services(client, &services, out)
}

/// What a listing is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// A table.
    Table,
    /// Command lines, as the original saves.
    Lines,
    /// The same with what the original does not save.
    FullLines,
}

/// How services are listed.
struct Listing<'a> {
    format: Format,
    exact: bool,
    sorted: bool,
    form: Form,
    naming: Naming<'a>,
}

impl Listing<'_> {
    /// Shows services and destinations as one object.
    fn as_json<T: Transport>(
        &self,
        client: &mut Client<T>,
        info: Info,
        line: &Invocation,
        out: &mut dyn Write,
    ) -> Result<(), ListError> {
        let mut services = if line.given.has(Given::ServiceAddress) {
            vec![client.service(&line.service)?]
        } else {
            client.services()?
        };
        if self.sorted {
            services = sort::services(services);
        }
        let mut table = json::Table::new(info);
        for services in services.chunks(AT_ONCE) {
            for (service, dests) in services.iter().zip(self.dests(client, services)?) {
                table.add(service, &dests);
            }
        }
        Ok(json::write(out, &table)?)
    }

    /// The destinations of services, as they are listed.
    fn dests<T: Transport>(
        &self,
        client: &mut Client<T>,
        services: &[ServiceStatus],
    ) -> Result<Vec<Vec<DestStatus>>, ListError> {
        let keys: Vec<ServiceKey> = services.iter().map(|service| service.key).collect();
        let dests = client.dests_of(&keys)?;
        Ok(if self.sorted { dests.into_iter().map(sort::dests).collect() } else { dests })
    }

    /// Shows services and their destinations, while the rest is still to be asked for.
    fn services<T: Transport>(
        &self,
        client: &mut Client<T>,
        services: &[ServiceStatus],
        out: &mut dyn Write,
    ) -> Result<(), ListError> {
        for services in services.chunks(AT_ONCE) {
            for (service, dests) in services.iter().zip(self.dests(client, services)?) {
                self.service(service, &dests, out)?;
            }
        }
        Ok(())
    }

    /// Shows a service and its destinations.
    fn service(
        &self,
        status: &ServiceStatus,
        dests: &[DestStatus],
        out: &mut dyn Write,
    ) -> Result<(), ListError> {
        let key = &status.key;
        if self.form != Form::Table {
            save::service(out, self.naming, status)?;
            for dest in dests {
                save::dest(out, self.naming, key, dest, self.form == Form::FullLines)?;
            }
            return Ok(());
        }
        let format = (self.format, self.exact);
        rows::service(out, format, self.naming, status)?;
        for dest in dests {
            rows::dest(out, format, self.naming, key, dest)?;
        }
        Ok(())
    }
}

/// Shows connections, in the director's order.
fn show_connections(
    connections: &[Connection],
    naming: Naming<'_>,
    with_engine: bool,
    out: &mut dyn Write,
) -> io::Result<()> {
    conns::header(out, with_engine)?;
    for conn in connections {
        conns::row(out, naming, with_engine, conn)?;
    }
    Ok(())
}

/// Shows the sync daemons, the master first.
fn sync_daemons(daemons: &[SyncDaemon], out: &mut dyn Write) -> io::Result<()> {
    for (state, name) in [(SyncState::Master, "master"), (SyncState::Backup, "backup")] {
        for daemon in daemons.iter().filter(|daemon| daemon.state == state.number()) {
            let SyncDaemon { interface, sync_id, max_len, group, port, ttl, .. } = daemon;
            write!(out, "{name} sync daemon (mcast={interface}, syncid={sync_id}")?;
            if *max_len != 0 {
                write!(out, ", maxlen={max_len}")?;
            }
            if let Some(group) = group {
                write!(out, ", group={group}")?;
            }
            if *port != 0 {
                write!(out, ", port={port}")?;
            }
            if *ttl != 0 {
                write!(out, ", ttl={ttl}")?;
            }
            writeln!(out, ")")?;
        }
    }
    Ok(())
}
