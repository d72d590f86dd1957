//! The old control interface, socket options of a raw socket, answered by asking
//! a director. It knows IPv4 only, and counts in 32 bits.

use ipvs_core::addr::{Addr, Family};
use ipvs_core::command::{Command, TimeoutEdit};
use ipvs_core::dest::{DestKey, DestSpec};
use ipvs_core::name::Name;
use ipvs_core::service::{ServiceKey, ServiceSpec};
use ipvs_core::snapshot::{DestStatus, ServiceStatus};
use ipvs_core::stats::{Counters, Rates};
use rustix::io::Errno;

use crate::client::Transport;
use crate::sync::{SyncDaemon, SyncState};
use crate::{Client, ClientError};

/// The options, at the level of IP.
pub const OPTIONS: core::ops::RangeInclusive<i32> = 1152..=1167;

/// Numbers of the options that change something.
mod set {
    pub(super) const ADD_SERVICE: i32 = 1154;
    pub(super) const EDIT_SERVICE: i32 = 1155;
    pub(super) const DELETE_SERVICE: i32 = 1156;
    pub(super) const FLUSH: i32 = 1157;
    pub(super) const ADD_DEST: i32 = 1159;
    pub(super) const DELETE_DEST: i32 = 1160;
    pub(super) const EDIT_DEST: i32 = 1161;
    pub(super) const TIMEOUTS: i32 = 1162;
    pub(super) const START_DAEMON: i32 = 1163;
    pub(super) const STOP_DAEMON: i32 = 1164;
    pub(super) const ZERO: i32 = 1167;
}

/// Numbers of the options that are read.
mod get {
    pub(super) const VERSION: i32 = 1152;
    pub(super) const INFO: i32 = 1153;
    pub(super) const SERVICES: i32 = 1154;
    pub(super) const SERVICE: i32 = 1155;
    pub(super) const DESTS: i32 = 1156;
    pub(super) const TIMEOUTS: i32 = 1158;
    pub(super) const DAEMONS: i32 = 1159;
}

/// Lengths of the structures, in octets.
const SERVICE_LEN: usize = 44;
const DEST_LEN: usize = 24;
const DAEMON_LEN: usize = 24;
const SERVICE_ENTRY_LEN: usize = 104;
const DEST_ENTRY_LEN: usize = 96;
/// What stands before the entries of a list of services,
const SERVICES_LEN: usize = 8;
/// and of one of destinations.
const DESTS_LEN: usize = 24;
/// Least room for the version's text.
const VERSION_LEN: usize = 64;

/// The fields of a structure, by their offsets.
#[derive(Clone, Copy)]
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn array<const N: usize>(self, at: usize) -> Result<[u8; N], Errno> {
        let field = self.0.get(at..).and_then(|rest| rest.first_chunk());
        field.copied().ok_or(Errno::INVAL)
    }

    fn u32(self, at: usize) -> Result<u32, Errno> {
        Ok(u32::from_ne_bytes(self.array(at)?))
    }

    fn key(self) -> Result<ServiceKey, Errno> {
        let fwmark = self.u32(12)?;
        if fwmark != 0 {
            return Ok(ServiceKey::fwmark(Family::V4, fwmark));
        }
        let protocol = match u16::from_ne_bytes(self.array(0)?) {
            6 => 6,
            17 => 17,
            132 => 132,
            _ => return Err(Errno::FAULT),
        };
        let (addr, port) = (Addr::v4(self.array(4)?), u16::from_be_bytes(self.array(8)?));
        Ok(ServiceKey::address(Family::V4, protocol, addr, port))
    }

    fn service(self) -> Result<ServiceSpec, Errno> {
        Ok(ServiceSpec {
            scheduler: Name::truncated(&self.array::<16>(16)?),
            engine: Name::default(),
            flags: self.u32(32)?,
            timeout: self.u32(36)?,
            netmask: self.array(40)?,
        })
    }

    fn dest(self) -> Result<(DestKey, DestSpec), Errno> {
        let addr = Addr::v4(self.array(0)?);
        let key = DestKey::new(Family::V4, addr, u16::from_be_bytes(self.array(4)?));
        let spec = DestSpec {
            weight: i32::from_ne_bytes(self.array(12)?),
            upper: self.u32(16)?,
            lower: self.u32(20)?,
            tunnel_port: 0,
            tunnel_flags: 0,
            tunnel_type: DestSpec::IPIP,
            method: u8::try_from(self.u32(8)? & 7).unwrap_or(0),
            reserved: [0; 2],
        };
        Ok((key, spec))
    }

    fn daemon(self) -> Result<SyncDaemon, Errno> {
        Ok(SyncDaemon {
            state: self.u32(0)?,
            interface: Name::truncated(&self.array::<16>(4)?),
            sync_id: self.u32(20)?,
            max_len: 0,
            group: None,
            port: 0,
            ttl: 0,
        })
    }
}

/// Sets an option: makes the change that it stands for.
pub fn set<T: Transport>(
    client: &mut Client<T>,
    option: i32,
    value: &[u8],
) -> Result<(), ClientError> {
    client.apply(&command(option, value).map_err(ClientError::Refused)?)
}

fn command(option: i32, value: &[u8]) -> Result<Command, Errno> {
    let len = match option {
        set::ADD_SERVICE | set::EDIT_SERVICE | set::DELETE_SERVICE | set::ZERO => SERVICE_LEN,
        set::ADD_DEST | set::EDIT_DEST | set::DELETE_DEST => SERVICE_LEN + DEST_LEN,
        set::FLUSH => 0,
        set::TIMEOUTS => 12,
        set::START_DAEMON | set::STOP_DAEMON => DAEMON_LEN,
        _ => return Err(Errno::INVAL),
    };
    if value.len() != len {
        return Err(Errno::INVAL);
    }
    let fields = Fields(value);
    let dest = || Fields(value.get(SERVICE_LEN..).unwrap_or(&[])).dest();
    Ok(match option {
        set::ADD_SERVICE => Command::AddService(fields.key()?, fields.service()?),
        set::EDIT_SERVICE => Command::EditService(fields.key()?, fields.service()?),
        set::DELETE_SERVICE => Command::DeleteService(fields.key()?),
        set::ADD_DEST => {
            dest().and_then(|(it, spec)| Ok(Command::AddDest(fields.key()?, it, spec)))?
        }
        set::EDIT_DEST => {
            dest().and_then(|(it, spec)| Ok(Command::EditDest(fields.key()?, it, spec)))?
        }
        set::DELETE_DEST => Command::DeleteDest(fields.key()?, dest()?.0),
        set::TIMEOUTS => Command::SetTimeouts(TimeoutEdit {
            tcp: fields.u32(0)?,
            tcp_fin: fields.u32(4)?,
            udp: fields.u32(8)?,
        }),
        set::START_DAEMON => Command::StartSync(fields.daemon()?),
        set::STOP_DAEMON => {
            let state = SyncState::from_number(fields.u32(0)?);
            Command::StopSync(state.ok_or(Errno::INVAL)?)
        }
        set::ZERO => {
            let everything = fields.array(4)? == [0; 6] && fields.u32(12)? == 0;
            Command::Zero(if everything { None } else { Some(fields.key()?) })
        }
        _ => Command::Flush,
    })
}

/// Reads an option into `buffer`, whose octets are part of the question; returns
/// how many octets the answer has.
pub fn get<T: Transport>(
    client: &mut Client<T>,
    option: i32,
    buffer: &mut [u8],
) -> Result<usize, ClientError> {
    let answer = answer(client, option, buffer)?;
    let place = buffer.get_mut(..answer.len()).ok_or(ClientError::Refused(Errno::INVAL))?;
    place.copy_from_slice(&answer);
    Ok(answer.len())
}

fn answer<T: Transport>(
    client: &mut Client<T>,
    option: i32,
    question: &[u8],
) -> Result<Vec<u8>, ClientError> {
    let wants = |len: usize| {
        if question.len() < len { Err(ClientError::Refused(Errno::INVAL)) } else { Ok(()) }
    };
    let fields = Fields(question);
    let mut out = Vec::new();
    match option {
        get::VERSION => {
            wants(VERSION_LEN)?;
            let info = client.info()?;
            let [_, major, minor, patch] = info.version.to_be_bytes();
            let size = info.table_size;
            let text = format!("IP Virtual Server version {major}.{minor}.{patch} (size={size})\0");
            out.extend(text.into_bytes());
        }
        get::INFO => {
            wants(12)?;
            let info = client.info()?;
            let services = u32::try_from(services(client)?.len()).unwrap_or(u32::MAX);
            push(&mut out, &[info.version, info.table_size, services]);
        }
        get::SERVICES => {
            let most = fields.u32(0).map_err(ClientError::Refused)? as usize;
            wants(SERVICES_LEN.saturating_add(most.saturating_mul(SERVICE_ENTRY_LEN)))?;
            let mut services = services(client)?;
            services.truncate(most);
            push(&mut out, &[u32::try_from(services.len()).unwrap_or(u32::MAX), 0]);
            for service in services {
                let dests = client.dests(&service.key)?;
                service_entry(&mut out, &service, dests.len());
            }
        }
        get::SERVICE => {
            wants(SERVICE_ENTRY_LEN)?;
            let key = fields.key().map_err(ClientError::Refused)?;
            let service = client.service(&key)?;
            let dests = client.dests(&key)?;
            service_entry(&mut out, &service, dests.len());
        }
        get::DESTS => {
            let most = fields.u32(16).map_err(ClientError::Refused)? as usize;
            wants(DESTS_LEN.saturating_add(most.saturating_mul(DEST_ENTRY_LEN)))?;
            let key = fields.key().map_err(ClientError::Refused)?;
            client.service(&key)?;
            let mut dests = client.dests(&key)?;
            dests.retain(|dest| dest.key.family() == Family::V4);
            dests.truncate(most);
            out.extend(question.iter().take(16));
            push(&mut out, &[u32::try_from(dests.len()).unwrap_or(u32::MAX), 0]);
            for dest in &dests {
                dest_entry(&mut out, dest);
            }
        }
        get::TIMEOUTS => {
            wants(12)?;
            let timeouts = client.timeouts()?;
            push(&mut out, &[timeouts.tcp, timeouts.tcp_fin, timeouts.udp]);
        }
        get::DAEMONS => {
            wants(2 * DAEMON_LEN)?;
            for daemon in client.sync_daemons()? {
                push(&mut out, &[daemon.state]);
                let name = daemon.interface.as_bytes();
                out.extend(name.iter().copied().chain(std::iter::repeat(0)).take(16));
                push(&mut out, &[daemon.sync_id]);
            }
            out.resize(2 * DAEMON_LEN, 0);
        }
        _ => return Err(ClientError::Refused(Errno::INVAL)),
    }
    Ok(out)
}

fn push(out: &mut Vec<u8>, words: &[u32]) {
    out.extend(words.iter().flat_map(|word| word.to_ne_bytes()));
}

/// The services that this interface knows.
fn services<T: Transport>(client: &mut Client<T>) -> Result<Vec<ServiceStatus>, ClientError> {
    let mut services = client.services()?;
    services.retain(|service| service.key.family() == Family::V4);
    Ok(services)
}

fn service_entry(out: &mut Vec<u8>, service: &ServiceStatus, dests: usize) {
    let ServiceStatus { key, spec, .. } = service;
    out.extend(u16::from(key.protocol).to_ne_bytes());
    out.extend([0; 2]);
    out.extend(key.addr.v4_octets());
    out.extend(key.port.to_be_bytes());
    out.extend([0; 2]);
    push(out, &[key.fwmark]);
    let name = spec.scheduler.as_bytes();
    out.extend(name.iter().copied().chain(std::iter::repeat(0)).take(16));
    push(out, &[spec.flags, spec.timeout]);
    out.extend(spec.netmask);
    push(out, &[u32::try_from(dests).unwrap_or(u32::MAX)]);
    statistics(out, &service.counters, &service.rates);
}

fn dest_entry(out: &mut Vec<u8>, dest: &DestStatus) {
    let DestStatus { key, spec, active, inactive, persistent, .. } = dest;
    out.extend(key.addr.v4_octets());
    out.extend(key.port.to_be_bytes());
    out.extend([0; 2]);
    push(out, &[spec.method.into()]);
    out.extend(spec.weight.to_ne_bytes());
    push(out, &[spec.upper, spec.lower, *active, *inactive, *persistent, 0]);
    statistics(out, &dest.counters, &dest.rates);
}

#[expect(clippy::cast_possible_truncation, reason = "cut as the kernel cuts it")]
fn statistics(out: &mut Vec<u8>, counters: &Counters, rates: &Rates) {
    let Counters { conns, in_packets, out_packets, in_bytes, out_bytes } = *counters;
    push(out, &[conns as u32, in_packets as u32, out_packets as u32, 0]);
    out.extend(in_bytes.to_ne_bytes());
    out.extend(out_bytes.to_ne_bytes());
    let Rates { conns, in_packets, out_packets, in_bytes, out_bytes } = *rates;
    let rates = [conns, in_packets, out_packets, in_bytes, out_bytes, 0];
    push(out, &rates.map(|rate| rate as u32));
}
