//! The client: asks a daemon, a kernel or a `Control` in the same process, in
//! the same bytes.

use std::io;

use ipvs_core::command::Command;
use ipvs_core::service::ServiceKey;
use ipvs_core::snapshot::{DestStatus, ServiceStatus, Timeouts};
use rustix::io::Errno;

use crate::attr::{Table, Writer};
use crate::conn::Connection;
use crate::dest::{self, DestAttrs};
use crate::health::{self, Health};
use crate::helper::{self, Helper};
use crate::message::{Header, Messages, flags, kind};
use crate::numbers::{self, command, info, top};
use crate::service::{self, ServiceAttrs};
use crate::statistics::{self, Statistics};
use crate::status::{self, Status};
use crate::sync::{self, DaemonAttrs, SyncDaemon};
use crate::{conn, controller, setting};

mod batch;
mod drains;
mod marks;
mod proc;
mod transaction;
mod transport;

pub use transaction::NotMade;
pub use transport::{KernelTransport, LocalTransport, SeqpacketTransport, Transport};

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The director refused it.
    #[error("refused: {0}")]
    Refused(Errno),
    /// The director could not be reached, or stopped answering.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The answer makes no sense.
    #[error("bad answer: {0}")]
    BadAnswer(&'static str),
}

/// What the director says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Info {
    /// Version, as `major << 16 | minor << 8 | patch`.
    pub version: u32,
    /// Size of the connection table, in entries.
    pub table_size: u32,
}

/// A connection to a director, by way of `T`.
///
/// ```no_run
/// use ipvs_netlink::client::{Client, SeqpacketTransport};
///
/// let socket = SeqpacketTransport::connect("/run/ipvs/ipvs.sock".as_ref())?;
/// for service in Client::new(socket)?.services()? {
///     assert!(!service.spec.scheduler.is_empty());
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Client<T> {
    transport: T,
    family: u16,
    sequence: u32,
    buffer: Vec<u8>,
}

impl<T: Transport> Client<T> {
    /// Resolves the IPVS family; fails with `ENOENT` where there is none.
    pub fn new(transport: T) -> Result<Self, ClientError> {
        let mut client = Self { transport, family: 0, sequence: 0, buffer: Vec::new() };
        client.family = client.resolve(numbers::FAMILY_NAME)?;
        Ok(client)
    }

    /// Version and table size.
    pub fn info(&mut self) -> Result<Info, ClientError> {
        let mut answer = None;
        self.ask(
            command::GET_INFO,
            |_| {},
            |_, attrs| {
                let table = Table::<3>::parse(attrs, &[]).ok()?;
                let version = table.u32(info::VERSION)?;
                answer = Some(Info { version, table_size: table.u32(info::CONN_TAB_SIZE)? });
                Some(())
            },
        )?;
        answer.ok_or(ClientError::BadAnswer("no version"))
    }

    /// Makes one edit.
    pub fn apply(&mut self, edit: &Command) -> Result<(), ClientError> {
        match self.edit(edit, flags::ACK) {
            Some(request) => self.exchange(request.bytes(), |_, _| Some(())),
            None => self.apply_own(edit),
        }
    }

    /// Makes an edit that there is no request of the kernel's family for.
    fn apply_own(&mut self, edit: &Command) -> Result<(), ClientError> {
        match edit {
            Command::SetSysctl(sysctl, value) => self.set_setting(sysctl.name, &value.to_string()),
            Command::DrainDest(..) | Command::UndrainDest(..) => self.change_drain(edit),
            _ => self.change_marks(core::slice::from_ref(edit)),
        }
    }

    /// The request that makes an edit of services, destinations, timeouts or sync daemons.
    fn edit(&mut self, edit: &Command, flags: u16) -> Option<Writer> {
        let number = match edit {
            Command::AddService(..) => command::NEW_SERVICE,
            Command::EditService(..) => command::SET_SERVICE,
            Command::DeleteService(_) => command::DEL_SERVICE,
            Command::AddDest(..) => command::NEW_DEST,
            Command::EditDest(..) => command::SET_DEST,
            Command::DeleteDest(..) => command::DEL_DEST,
            Command::Zero(_) => command::ZERO,
            Command::Flush => command::FLUSH,
            Command::SetTimeouts(_) => command::SET_CONFIG,
            Command::StartSync(_) => command::NEW_DAEMON,
            Command::StopSync(_) => command::DEL_DAEMON,
            Command::AddMarkRule(_)
            | Command::DeleteMarkRule(_)
            | Command::FlushMarkRules
            | Command::DrainDest(..)
            | Command::UndrainDest(..)
            | Command::SetSysctl(..) => return None,
        };
        let write = |writer: &mut Writer| match edit {
            Command::AddService(key, spec) | Command::EditService(key, spec) => {
                service::write_full(writer, key, spec);
            }
            Command::DeleteService(key) | Command::Zero(Some(key)) => {
                service::write_key(writer, key);
            }
            Command::AddDest(key, dest, spec) | Command::EditDest(key, dest, spec) => {
                service::write_key(writer, key);
                dest::write_full(writer, dest, spec);
            }
            Command::DeleteDest(key, dest) => {
                service::write_key(writer, key);
                dest::write_key(writer, dest);
            }
            Command::Zero(None)
            | Command::Flush
            | Command::AddMarkRule(_)
            | Command::DeleteMarkRule(_)
            | Command::FlushMarkRules
            | Command::DrainDest(..)
            | Command::UndrainDest(..)
            | Command::SetSysctl(..) => {}
            Command::StartSync(daemon) => sync::write(writer, daemon),
            Command::StopSync(state) => sync::write_state(writer, *state),
            Command::SetTimeouts(edit) => {
                writer.u32(top::TIMEOUT_TCP, edit.tcp);
                writer.u32(top::TIMEOUT_TCP_FIN, edit.tcp_fin);
                writer.u32(top::TIMEOUT_UDP, edit.udp);
            }
        };
        Some(self.request(self.family, number, flags, write))
    }

    /// One service.
    pub fn service(&mut self, key: &ServiceKey) -> Result<ServiceStatus, ClientError> {
        let mut answer = None;
        let write = |writer: &mut Writer| service::write_key(writer, key);
        self.ask(command::GET_SERVICE, write, |_, attrs| {
            answer = Some(read_service(attrs)?);
            Some(())
        })?;
        answer.ok_or(ClientError::BadAnswer("no service"))
    }

    /// All services, in the director's order.
    pub fn services(&mut self) -> Result<Vec<ServiceStatus>, ClientError> {
        let mut services = Vec::new();
        self.dump(
            self.family,
            command::GET_SERVICE,
            |_| {},
            |attrs| {
                services.push(read_service(attrs)?);
                Some(())
            },
        )?;
        Ok(services)
    }

    /// The destinations of a service, newest first; none if there is no such service.
    pub fn dests(&mut self, key: &ServiceKey) -> Result<Vec<DestStatus>, ClientError> {
        let mut dests = Vec::new();
        let write = |writer: &mut Writer| service::write_key(writer, key);
        self.dump(self.family, command::GET_DEST, write, |attrs| {
            dests.push(read_dest(attrs, key)?);
            Some(())
        })?;
        Ok(dests)
    }

    /// The timeouts in force.
    pub fn timeouts(&mut self) -> Result<Timeouts, ClientError> {
        let mut answer = None;
        self.ask(
            command::GET_CONFIG,
            |_| {},
            |_, attrs| {
                let table = read_top(attrs)?;
                answer = Some(Timeouts {
                    tcp: table.u32(top::TIMEOUT_TCP)?,
                    tcp_fin: table.u32(top::TIMEOUT_TCP_FIN)?,
                    udp: table.u32(top::TIMEOUT_UDP)?,
                });
                Some(())
            },
        )?;
        answer.ok_or(ClientError::BadAnswer("no timeouts"))
    }

    /// All connections and templates, in the director's order.
    ///
    /// A kernel has no message for them: there they come from `/proc`.
    pub fn connections(&mut self) -> Result<Vec<Connection>, ClientError> {
        if self.transport.is_kernel() {
            return Ok(proc::connections()?);
        }
        let family = self.resolve(conn::FAMILY_NAME)?;
        let mut connections = Vec::new();
        self.dump(
            family,
            conn::GET_CONN,
            |_| {},
            |attrs| {
                connections.push(conn::read(attrs)?);
                Some(())
            },
        )?;
        Ok(connections)
    }

    /// What the data plane says of itself; a kernel says nothing.
    pub fn status(&mut self) -> Result<Status, ClientError> {
        let family = self.resolve(conn::FAMILY_NAME)?;
        let mut status = Status::default();
        self.dump(family, conn::GET_STATUS, |_| {}, |attrs| status::read(attrs, &mut status))?;
        Ok(status)
    }

    /// What is checked of destinations, and how they stand; a kernel checks nothing.
    pub fn health(&mut self) -> Result<Health, ClientError> {
        let mut health = Health::default();
        if self.transport.is_kernel() {
            return Ok(health);
        }
        let family = self.resolve(conn::FAMILY_NAME)?;
        let outcome =
            self.dump(family, health::GET_HEALTH, |_| {}, |attrs| health::read(attrs, &mut health));
        match outcome {
            // From before there were checks.
            Err(ClientError::Refused(Errno::OPNOTSUPP)) => Ok(Health::default()),
            outcome => outcome.map(|()| health),
        }
    }

    /// All settings of `net.ipv4.vs` with their values, sorted by name.
    ///
    /// A kernel has no message for them: there they are files in `/proc/sys`.
    pub fn settings(&mut self) -> Result<Vec<(String, String)>, ClientError> {
        if self.transport.is_kernel() {
            return Ok(proc::settings()?);
        }
        let family = self.resolve(conn::FAMILY_NAME)?;
        let mut settings = Vec::new();
        self.dump(
            family,
            conn::GET_SETTING,
            |_| {},
            |attrs| {
                let (name, value) = setting::read(attrs)?;
                settings.push((name?, value?));
                Some(())
            },
        )?;
        Ok(settings)
    }

    /// One setting's value; refused with `ENOENT` if there is none of this name.
    pub fn setting(&mut self, name: &str) -> Result<String, ClientError> {
        if self.transport.is_kernel() {
            return proc::setting(name);
        }
        let mut answer = None;
        let write = |writer: &mut Writer| setting::write_name(writer, name);
        self.ask_own(conn::GET_SETTING, write, |attrs| {
            answer = Some(setting::read(attrs)?.1?);
            Some(())
        })?;
        answer.ok_or(ClientError::BadAnswer("no value"))
    }

    /// Changes a setting; refused with `EINVAL` if it cannot have this value.
    pub fn set_setting(&mut self, name: &str, text: &str) -> Result<(), ClientError> {
        if self.transport.is_kernel() {
            return proc::set_setting(name, text);
        }
        let write = |writer: &mut Writer| setting::write_change(writer, name, text);
        self.ask_own(conn::SET_SETTING, write, |_| Some(()))
    }

    /// Statistics of everything together; a kernel shows them in a
    /// [file](Self::kernel_file).
    pub fn statistics(&mut self) -> Result<Statistics, ClientError> {
        let family = self.resolve(conn::FAMILY_NAME)?;
        let mut all = Statistics::default();
        self.dump(family, conn::GET_STATS, |_| {}, |attrs| statistics::read(attrs, &mut all))?;
        Ok(all)
    }

    /// The ports whose connections are helped; a kernel shows them in a
    /// [file](Self::kernel_file).
    pub fn helpers(&mut self) -> Result<Vec<Helper>, ClientError> {
        let family = self.resolve(conn::FAMILY_NAME)?;
        let mut helpers = Vec::new();
        self.dump(
            family,
            conn::GET_HELPER,
            |_| {},
            |attrs| {
                helpers.push(helper::read(attrs)?);
                Some(())
            },
        )?;
        Ok(helpers)
    }

    /// The text of a file in a kernel's `/proc/net`; `None` for another director.
    pub fn kernel_file(&self, name: &str) -> Result<Option<String>, ClientError> {
        if !self.transport.is_kernel() {
            return Ok(None);
        }
        Ok(Some(proc::file_text(name)?))
    }

    /// The sync daemons that run.
    pub fn sync_daemons(&mut self) -> Result<Vec<SyncDaemon>, ClientError> {
        let mut daemons = Vec::new();
        self.dump(
            self.family,
            command::GET_DAEMON,
            |_| {},
            |attrs| {
                let nest = read_top(attrs)?.get(top::DAEMON);
                daemons.push(DaemonAttrs::parse(nest).and_then(|attrs| attrs.daemon()).ok()?);
                Some(())
            },
        )?;
        Ok(daemons)
    }

    /// Asks the controller for a family's number.
    fn resolve(&mut self, name: &str) -> Result<u16, ClientError> {
        let mut id = None;
        let mut writer = self.begin(controller::ID, flags::ACK, |writer| {
            writer.raw(&[controller::GET_FAMILY, controller::VERSION, 0, 0]);
            controller::write_request(writer, name);
        });
        writer.pad();
        self.exchange(writer.bytes(), |_, attrs| {
            id = Some(controller::read_id(attrs)?);
            Some(())
        })?;
        id.ok_or(ClientError::BadAnswer("family without a number"))
    }

    /// Sends a plain command of the IPVS family and reads its answer up to the
    /// acknowledgement.
    fn ask(
        &mut self,
        command: u8,
        write: impl FnOnce(&mut Writer),
        each: impl FnMut(u8, &[u8]) -> Option<()>,
    ) -> Result<(), ClientError> {
        let request = self.request(self.family, command, flags::ACK, write);
        self.exchange(request.bytes(), each)
    }

    /// The same for a plain command of our own family.
    fn ask_own(
        &mut self,
        command: u8,
        write: impl FnOnce(&mut Writer),
        mut each: impl FnMut(&[u8]) -> Option<()>,
    ) -> Result<(), ClientError> {
        let family = self.resolve(conn::FAMILY_NAME)?;
        let request = self.request(family, command, flags::ACK, write);
        self.exchange(request.bytes(), |_, attrs| each(attrs))
    }

    /// Asks for a dump and reads it to its end.
    fn dump(
        &mut self,
        family: u16,
        command: u8,
        write: impl FnOnce(&mut Writer),
        mut each: impl FnMut(&[u8]) -> Option<()>,
    ) -> Result<(), ClientError> {
        let request = self.request(family, command, flags::DUMP, write);
        self.exchange(request.bytes(), |_, attrs| each(attrs))
    }

    /// A request of `family` with the attributes that `write` writes.
    fn request(
        &mut self,
        family: u16,
        command: u8,
        flags: u16,
        write: impl FnOnce(&mut Writer),
    ) -> Writer {
        self.begin(family, flags, |writer| {
            writer.raw(&[command, numbers::FAMILY_VERSION, 0, 0]);
            write(writer);
        })
    }

    /// A message with the next sequence number.
    fn begin(&mut self, kind: u16, flags: u16, write: impl FnOnce(&mut Writer)) -> Writer {
        self.sequence = self.sequence.wrapping_add(1);
        let flags = flags | flags::REQUEST;
        let header = Header { len: 0, kind, flags, sequence: self.sequence, port: 0 };
        let mut writer = Writer::new();
        writer.message(header, write);
        writer
    }

    /// Sends `request` and hands each data message of the answer to `each`,
    /// which returns `None` for one that it cannot read.
    fn exchange(
        &mut self,
        request: &[u8],
        mut each: impl FnMut(u8, &[u8]) -> Option<()>,
    ) -> Result<(), ClientError> {
        self.transport.send(request)?;
        // A message that cannot be read is reported, but not before the rest
        // of the answer is off the socket.
        let mut unreadable = false;
        loop {
            self.transport.receive(&mut self.buffer)?;
            for message in Messages(&self.buffer) {
                if message.header.sequence != self.sequence {
                    continue;
                }
                match message.error() {
                    Some(Some(errno)) => return Err(ClientError::Refused(errno)),
                    Some(None) => return finish(unreadable),
                    None if message.header.kind == kind::DONE => return finish(unreadable),
                    None => {}
                }
                let read = message.generic().and_then(|(command, attrs)| each(command, attrs));
                unreadable |= read.is_none();
            }
        }
    }
}

/// The result of an answer that was read to its end.
const fn finish(unreadable: bool) -> Result<(), ClientError> {
    if unreadable { Err(ClientError::BadAnswer("attributes missing")) } else { Ok(()) }
}

/// The top-level attributes of an answer.
fn read_top(attrs: &[u8]) -> Option<Table<'_, 7>> {
    Table::parse(attrs, &[]).ok()
}

/// The destination in an answer, of the service with this key.
fn read_dest(attrs: &[u8], key: &ServiceKey) -> Option<DestStatus> {
    let nest = read_top(attrs)?.get(top::DEST);
    DestAttrs::parse(nest).and_then(|dest| dest.status(key.family())).ok()
}

/// The service in an answer.
fn read_service(attrs: &[u8]) -> Option<ServiceStatus> {
    let nest = read_top(attrs)?.get(top::SERVICE);
    ServiceAttrs::parse(nest).and_then(|attrs| attrs.status()).ok()
}
