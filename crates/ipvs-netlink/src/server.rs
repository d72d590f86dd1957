//! The server: a request's bytes in, calls of [`Control`], an answer's bytes out.

use ipvs_core::command::{Command, TimeoutEdit};
use ipvs_core::service::ServiceKey;
use ipvs_core::snapshot::Control;
use rustix::io::Errno;

use crate::attr::{Policy, Table, Writer};
use crate::conversation::Conversation;
use crate::dest::{self, DestAttrs};
use crate::message::{Header, Message, answer, done, flags, kind};
use crate::numbers::{self, MAX_TIMEOUT_SECS, command, info, top};
use crate::service::{self, ServiceAttrs};
use crate::sync::{self, DaemonAttrs, SyncState};
use crate::transaction::changes;
use crate::{
    conn, controller, drains, errno_of, health, helper, marks, setting, statistics, status,
    transaction,
};

/// Length at which a dump begins a new datagram, in octets.
///
/// A reader with a buffer of one page gets every message whole; the kernel's
/// first datagrams are as long.
const DUMP_LEN: usize = 3776;
/// The same for the family of our own, whose only reader has a larger buffer.
const OWN_DUMP_LEN: usize = 32 * 1024;

const TOP_POLICY: &[(u16, Policy)] = &[
    (top::SERVICE, Policy::Nest),
    (top::DEST, Policy::Nest),
    (top::DAEMON, Policy::Nest),
    (top::TIMEOUT_TCP, Policy::AtLeast(4)),
    (top::TIMEOUT_TCP_FIN, Policy::AtLeast(4)),
    (top::TIMEOUT_UDP, Policy::AtLeast(4)),
];

/// The top-level attributes of a request.
pub(crate) type Top<'a> = Table<'a, 7>;

/// Reads them.
pub(crate) fn read_top(attrs: &[u8]) -> Result<Top<'_>, Errno> {
    Top::parse(attrs, TOP_POLICY).or(Err(Errno::RANGE))
}

/// What the peer may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Everything.
    Admin,
    /// Whatever changes nothing; the rest is refused with `EPERM`.
    Read,
    /// Resolve a family; every command of it is refused with `EPERM`.
    None,
}

impl Access {
    /// Whether a command is allowed that changes something, or nothing.
    const fn allows(self, changes: bool) -> bool {
        match self {
            Self::Admin => true,
            Self::Read => !changes,
            Self::None => false,
        }
    }
}

/// Answers the messages of one datagram; `reply` gets each datagram of the
/// answer. Whatever the bytes are, this does not panic.
pub fn serve(request: &[u8], control: &mut dyn Control, reply: &mut dyn FnMut(&[u8])) {
    serve_as(Access::Admin, request, control, reply);
}

/// [`serve`] for a peer that may lack rights. A transaction ends with the datagram: it is a
/// [`Conversation`] that has several.
pub fn serve_as(
    access: Access,
    request: &[u8],
    control: &mut dyn Control,
    reply: &mut dyn FnMut(&[u8]),
) {
    Conversation::new(access).serve(request, control, reply);
}

/// How a request was answered.
pub(crate) enum Answered {
    /// Done, with or without data; wants an acknowledgement if asked for.
    Plain,
    /// By a dump, which is its own acknowledgement.
    Dump,
}

/// A request of one of our families.
struct Request<'a, 'm> {
    header: &'m Header,
    command: u8,
    attrs: &'a [u8],
    dump: bool,
}

/// Answers one message, but for the acknowledgement.
pub(crate) fn answer_one(
    access: Access,
    message: &Message<'_>,
    control: &mut dyn Control,
    reply: &mut dyn FnMut(&[u8]),
) -> Result<Answered, Errno> {
    let header = &message.header;
    if !header.has(flags::REQUEST) || header.kind < kind::FIRST_FAMILY {
        return Ok(Answered::Plain);
    }
    if ![controller::ID, numbers::FAMILY_ID, conn::FAMILY_ID].contains(&header.kind) {
        return Err(Errno::NOENT);
    }
    let (command, attrs) = message.generic().ok_or(Errno::INVAL)?;
    let request = Request { header, command, attrs, dump: header.has(flags::DUMP) };
    match header.kind {
        controller::ID => resolve(&request, reply),
        conn::FAMILY_ID => own(access, &request, control, reply),
        _ => ipvs(access, &request, control, reply),
    }
}

/// The controller's commands.
fn resolve(request: &Request<'_, '_>, reply: &mut dyn FnMut(&[u8])) -> Result<Answered, Errno> {
    if request.command != controller::GET_FAMILY {
        return Err(Errno::OPNOTSUPP);
    }
    if request.dump {
        let mut dump = Dump::new(request.header, DUMP_LEN, reply);
        for family in controller::families() {
            dump.message(|writer| controller::write(writer, request.header, flags::MULTI, family));
        }
        return Ok(dump.finish());
    }
    let family = controller::find(request.attrs)?;
    let mut writer = Writer::new();
    controller::write(&mut writer, request.header, 0, family);
    reply(writer.bytes());
    Ok(Answered::Plain)
}

/// The commands of our own family.
fn own(
    access: Access,
    request: &Request<'_, '_>,
    control: &mut dyn Control,
    reply: &mut dyn FnMut(&[u8]),
) -> Result<Answered, Errno> {
    let is_known = matches!(
        request.command,
        conn::GET_CONN
            | conn::GET_STATUS
            | conn::GET_SETTING
            | conn::SET_SETTING
            | marks::CHANGE_MARKS
            | marks::GET_MARK
            | drains::DRAIN
            | drains::UNDRAIN
            | drains::GET_DRAIN
            | conn::GET_STATS
            | conn::GET_HELPER
            | health::GET_HEALTH
            | transaction::CONFIRM
            | transaction::ROLL_BACK
    );
    if !is_known {
        return Err(Errno::OPNOTSUPP);
    }
    if !access.allows(changes(conn::FAMILY_ID, request.command)) {
        return Err(Errno::PERM);
    }
    if !request.dump {
        own_plain(request, control, reply)?;
        return Ok(Answered::Plain);
    }
    if changes(conn::FAMILY_ID, request.command) {
        return Err(Errno::OPNOTSUPP);
    }
    let header = answer(request.header, conn::FAMILY_ID, flags::MULTI);
    let mut dump = Dump::new(request.header, OWN_DUMP_LEN, reply);
    let mut add = |command, write: &dyn Fn(&mut Writer)| {
        dump.message(|writer| writer.generic(header, command, conn::FAMILY_VERSION, write));
    };
    match request.command {
        conn::GET_CONN => control.connections(&mut |status| {
            add(conn::NEW_CONN, &|writer| conn::write(writer, &status));
        }),
        conn::GET_SETTING => control.sysctls(&mut |name, value| {
            add(conn::NEW_SETTING, &|writer| setting::write(writer, name, value));
        }),
        marks::GET_MARK => control.mark_rules(&mut |rule| {
            add(marks::NEW_MARK, &|writer| marks::write(writer, rule));
        }),
        drains::GET_DRAIN => control.drains(&mut |drain| {
            add(drains::NEW_DRAIN, &|writer| drains::write(writer, &drain));
        }),
        conn::GET_STATS => {
            let total = control.statistics();
            add(conn::NEW_STATS, &|writer| statistics::write_total(writer, &total));
            let mut cpu = 0;
            control.cpu_counters(&mut |counters| {
                add(conn::NEW_STATS, &|writer| statistics::write_cpu(writer, cpu, &counters));
                cpu += 1;
            });
        }
        health::GET_HEALTH => {
            let generation = control.generation();
            add(health::NEW_HEALTH, &|writer| health::write_generation(writer, generation));
            control.health(&mut |it| {
                health::each_part(it, &mut |it| {
                    add(health::NEW_HEALTH, &|writer| health::write(writer, it));
                });
            });
        }
        conn::GET_HELPER => helper::each(control, &mut |helper| {
            add(conn::NEW_HELPER, &|writer| helper::write(writer, helper));
        }),
        _ => {
            control.describe(&mut |line| {
                add(conn::NEW_STATUS, &|writer| status::write_line(writer, line));
            });
            control.interfaces(&mut |name, mode, why| {
                add(conn::NEW_STATUS, &|writer| status::write_interface(writer, name, mode, why));
            });
            control.tables(&mut |name, entries, capacity| {
                let write = |writer: &mut _| status::write_table(writer, name, entries, capacity);
                add(conn::NEW_STATUS, &write);
            });
            control.packets_by_reason(&mut |reason, packets| {
                add(conn::NEW_STATUS, &|writer| status::write_packets(writer, reason, packets));
            });
            control.problems(&mut |problem| {
                add(conn::NEW_STATUS, &|writer| status::write_problem(writer, problem));
            });
        }
    }
    Ok(dump.finish())
}

/// The commands of our own family that are no dump.
fn own_plain(
    request: &Request<'_, '_>,
    control: &mut dyn Control,
    reply: &mut dyn FnMut(&[u8]),
) -> Result<(), Errno> {
    let edits = match request.command {
        transaction::CONFIRM | transaction::ROLL_BACK => {
            let ended = control.end_trial(request.command == transaction::CONFIRM);
            return ended.map_err(transaction::errno_of_trial);
        }
        marks::CHANGE_MARKS => marks::read_edits(request.attrs)?,
        drains::DRAIN | drains::UNDRAIN => vec![drains::read_edit(request.command, request.attrs)?],
        _ => return settings(request, control, reply),
    };
    control.apply(&edits).map_err(|refused| errno_of(refused.error))
}

/// Reads or changes one setting.
fn settings(
    request: &Request<'_, '_>,
    control: &mut dyn Control,
    reply: &mut dyn FnMut(&[u8]),
) -> Result<(), Errno> {
    if !matches!(request.command, conn::GET_SETTING | conn::SET_SETTING) {
        return Err(Errno::OPNOTSUPP);
    }
    let (name, text) = setting::read(request.attrs).ok_or(Errno::RANGE)?;
    let name = name.ok_or(Errno::INVAL)?;
    if request.command == conn::SET_SETTING {
        let text = text.ok_or(Errno::INVAL)?;
        return control.set_sysctl(&name, &text).map_err(setting::errno_of);
    }
    let mut found = None;
    control.sysctls(&mut |known, value| {
        if known == name {
            found = Some(value);
        }
    });
    let value = found.ok_or(Errno::NOENT)?;
    let mut writer = Writer::new();
    let header = answer(request.header, conn::FAMILY_ID, 0);
    writer.generic(header, conn::NEW_SETTING, conn::FAMILY_VERSION, |writer| {
        setting::write(writer, &name, value);
    });
    reply(writer.bytes());
    Ok(())
}

/// The commands of the kernel's family.
fn ipvs(
    access: Access,
    request: &Request<'_, '_>,
    control: &mut dyn Control,
    reply: &mut dyn FnMut(&[u8]),
) -> Result<Answered, Errno> {
    if !matches!(request.command, command::NEW_SERVICE..=command::FLUSH)
        || request.command == command::SET_INFO
    {
        return Err(Errno::OPNOTSUPP);
    }
    if !access.allows(changes(numbers::FAMILY_ID, request.command)) {
        return Err(Errno::PERM);
    }
    match (request.command, request.dump) {
        (command::GET_SERVICE, true) => Ok(dump_services(request, control, reply)),
        (command::GET_DEST, true) => Ok(dump_dests(request, control, reply)),
        (command::GET_DAEMON, true) => Ok(dump_daemons(request, control, reply)),
        (command::GET_DEST | command::GET_DAEMON, false) | (_, true) => Err(Errno::OPNOTSUPP),
        (_, false) => {
            let top = read_top(request.attrs)?;
            plain(request, &top, control, reply)?;
            Ok(Answered::Plain)
        }
    }
}

/// The commands that are no dump.
fn plain(
    request: &Request<'_, '_>,
    top: &Top<'_>,
    control: &mut dyn Control,
    reply: &mut dyn FnMut(&[u8]),
) -> Result<(), Errno> {
    let mut data = |command, write: &mut dyn FnMut(&mut Writer)| {
        let mut writer = Writer::new();
        let header = answer(request.header, numbers::FAMILY_ID, 0);
        writer.generic(header, command, numbers::FAMILY_VERSION, write);
        reply(writer.bytes());
    };
    match request.command {
        command::GET_SERVICE => {
            let key = ServiceAttrs::parse(top.get(top::SERVICE))?.key;
            let status = control.service(&key).ok_or(Errno::SRCH)?;
            data(command::NEW_SERVICE, &mut |writer| service::write_status(writer, &status));
            Ok(())
        }
        command::GET_CONFIG => {
            let timeouts = control.timeouts();
            data(command::SET_CONFIG, &mut |writer| {
                writer.u32(top::TIMEOUT_TCP, timeouts.tcp);
                writer.u32(top::TIMEOUT_TCP_FIN, timeouts.tcp_fin);
                writer.u32(top::TIMEOUT_UDP, timeouts.udp);
            });
            Ok(())
        }
        command::GET_INFO => {
            let size = control.table_size();
            data(command::SET_INFO, &mut |writer| {
                writer.u32(info::VERSION, numbers::IPVS_VERSION);
                writer.u32(info::CONN_TAB_SIZE, size);
            });
            Ok(())
        }
        _ => {
            let command = decode(request.command, top, &mut |key| {
                control.service(key).map(|service| service.spec.flags)
            })?;
            control.apply(&[command]).map_err(|refused| errno_of(refused.error))
        }
    }
}

/// The edit that a request asks for, its parts checked in the kernel's order; `present`
/// says the flags of a service, if there is one.
pub(crate) fn decode(
    number: u8,
    top: &Top<'_>,
    present: &mut dyn FnMut(&ServiceKey) -> Option<u32>,
) -> Result<Command, Errno> {
    match number {
        command::FLUSH => return Ok(Command::Flush),
        command::SET_CONFIG => return timeouts(top),
        command::NEW_DAEMON => {
            let daemon = DaemonAttrs::parse(top.get(top::DAEMON))?.daemon()?;
            return Ok(Command::StartSync(daemon));
        }
        command::DEL_DAEMON => {
            let state = DaemonAttrs::parse(top.get(top::DAEMON))?.state()?;
            let state = SyncState::from_number(state).ok_or(Errno::INVAL)?;
            return Ok(Command::StopSync(state));
        }
        command::ZERO if top.get(top::SERVICE).is_none() => return Ok(Command::Zero(None)),
        _ => {}
    }
    let attrs = ServiceAttrs::parse(top.get(top::SERVICE))?;
    let key = attrs.key;
    if number == command::NEW_SERVICE {
        return Ok(Command::AddService(key, attrs.change()?.over(0)));
    }
    let present = present(&key);
    if number == command::SET_SERVICE {
        // What is missing is noticed before the service is looked up.
        let change = attrs.change()?;
        let present = present.ok_or(Errno::SRCH)?;
        return Ok(Command::EditService(key, change.over(present)));
    }
    present.ok_or(Errno::SRCH)?;
    if number == command::DEL_SERVICE {
        return Ok(Command::DeleteService(key));
    }
    if number == command::ZERO {
        return Ok(Command::Zero(Some(key)));
    }
    let dest = DestAttrs::parse(top.get(top::DEST))?;
    if number == command::DEL_DEST {
        return Ok(Command::DeleteDest(key, dest.key(key.family())?));
    }
    let spec = dest.spec()?;
    let dest = dest.key(key.family())?;
    match number {
        command::NEW_DEST => Ok(Command::AddDest(key, dest, spec)),
        command::SET_DEST => Ok(Command::EditDest(key, dest, spec)),
        _ => Err(Errno::OPNOTSUPP),
    }
}

/// `SET_CONFIG`: each timeout is optional, and one bad one spoils all.
fn timeouts(top: &Top<'_>) -> Result<Command, Errno> {
    let timeout = |number| match top.u32(number).unwrap_or(0) {
        seconds @ 0..=MAX_TIMEOUT_SECS => Ok(seconds),
        _ => Err(Errno::INVAL),
    };
    Ok(Command::SetTimeouts(TimeoutEdit {
        tcp: timeout(top::TIMEOUT_TCP)?,
        tcp_fin: timeout(top::TIMEOUT_TCP_FIN)?,
        udp: timeout(top::TIMEOUT_UDP)?,
    }))
}

/// `GET_DAEMON`: the sync daemons that run, which are two at most.
fn dump_daemons(
    request: &Request<'_, '_>,
    control: &mut dyn Control,
    reply: &mut dyn FnMut(&[u8]),
) -> Answered {
    let header = answer(request.header, numbers::FAMILY_ID, flags::MULTI);
    let mut dump = Dump::new(request.header, DUMP_LEN, reply);
    control.sync_daemons(&mut |daemon| {
        dump.message(|writer| {
            writer.generic(header, command::NEW_DAEMON, numbers::FAMILY_VERSION, |writer| {
                sync::write(writer, daemon);
            });
        });
    });
    dump.finish()
}

/// `GET_SERVICE` as a dump.
fn dump_services(
    request: &Request<'_, '_>,
    control: &mut dyn Control,
    reply: &mut dyn FnMut(&[u8]),
) -> Answered {
    let header = answer(request.header, numbers::FAMILY_ID, flags::MULTI);
    let mut dump = Dump::new(request.header, DUMP_LEN, reply);
    control.services(&mut |status| {
        dump.message(|writer| {
            writer.generic(header, command::NEW_SERVICE, numbers::FAMILY_VERSION, |writer| {
                service::write_status(writer, &status);
            });
        });
    });
    dump.finish()
}

/// `GET_DEST`: a service that is unknown or badly named has no destinations,
/// which is no error.
fn dump_dests(
    request: &Request<'_, '_>,
    control: &mut dyn Control,
    reply: &mut dyn FnMut(&[u8]),
) -> Answered {
    let header = answer(request.header, numbers::FAMILY_ID, flags::MULTI);
    let mut dump = Dump::new(request.header, DUMP_LEN, reply);
    let attrs = Top::parse(request.attrs, TOP_POLICY).ok();
    let key = attrs.and_then(|top| ServiceAttrs::parse(top.get(top::SERVICE)).ok());
    if let Some(ServiceAttrs { key, .. }) = key {
        control.dests(&key, &mut |status| {
            dump.message(|writer| {
                writer.generic(header, command::NEW_DEST, numbers::FAMILY_VERSION, |writer| {
                    dest::write_status(writer, &status);
                });
            });
        });
    }
    dump.finish()
}

/// Gathers the messages of a dump into datagrams.
struct Dump<'a> {
    request: &'a Header,
    writer: Writer,
    limit: usize,
    reply: &'a mut dyn FnMut(&[u8]),
}

impl<'a> Dump<'a> {
    fn new(request: &'a Header, limit: usize, reply: &'a mut dyn FnMut(&[u8])) -> Self {
        Self { request, writer: Writer::new(), limit, reply }
    }

    /// Adds the message that `write` writes, in a new datagram if it would
    /// make the present one too long.
    fn message(&mut self, write: impl FnOnce(&mut Writer)) {
        let before = self.writer.len();
        write(&mut self.writer);
        if before > 0 && self.writer.len() > self.limit {
            (self.reply)(self.writer.bytes().get(..before).unwrap_or(&[]));
            self.writer.drop_front(before);
        }
    }

    /// Sends what is left and the end.
    fn finish(self) -> Answered {
        if !self.writer.is_empty() {
            (self.reply)(self.writer.bytes());
        }
        (self.reply)(done(self.request).bytes());
        Answered::Dump
    }
}
