//! The inputs that fuzzing begins with: requests as our own client makes them.

use std::io;

use ipvs_core::addr::{Addr, Family};
use ipvs_core::command::{Command, TimeoutEdit};
use ipvs_core::dest::{DestKey, DestSpec};
use ipvs_core::mark::MarkRule;
use ipvs_core::service::{ServiceKey, ServiceSpec};
use ipvs_core::sync::{SyncDaemon, SyncState};
use ipvs_core::sysctl;
use ipvs_netlink::Access;
use ipvs_netlink::client::{Client, ClientError, LocalTransport, Transport};

use crate::control::{Director, vip};

fn service(scheduler: &str, engine: &str) -> ServiceSpec {
    let (scheduler, engine) = (scheduler.into(), engine.into());
    ServiceSpec { scheduler, engine, flags: 0, timeout: 0, netmask: [255; 4] }
}

fn dest(number: u8) -> DestKey {
    DestKey::new(Family::V4, Addr::v4([10, 1, 0, number]), 80)
}

fn weighing(weight: i32) -> DestSpec {
    DestSpec { weight, ..DestSpec::default() }
}

fn daemon() -> SyncDaemon {
    SyncDaemon {
        state: SyncState::Master.number(),
        interface: "eth0".into(),
        sync_id: 0,
        max_len: 0,
        group: None,
        port: 0,
        ttl: 0,
    }
}

/// What a director is configured with before it gets an input.
pub(crate) fn configuration() -> Vec<Command> {
    vec![
        Command::AddService(vip(80), service("wrr", "")),
        Command::AddDest(vip(80), dest(11), weighing(1)),
        Command::AddDest(vip(80), dest(12), weighing(3)),
        Command::AddService(vip(443), service("dh", "")),
        Command::AddDest(vip(443), dest(11), weighing(1)),
        Command::AddMarkRule(MarkRule::any(Family::V4, 7, u32::MAX)),
    ]
}

/// Edits, one for each way to change something.
fn edits() -> Vec<Command> {
    let v6 = Addr::v6([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    let v6 = ServiceKey::address(Family::V6, 17, v6, 53);
    let timeouts = TimeoutEdit { tcp: 60, tcp_fin: 0, udp: 30 };
    vec![
        Command::AddService(vip(8080), service("rr", "")),
        Command::AddService(v6, service("lblcr", "sip")),
        Command::AddService(ServiceKey::fwmark(Family::V4, 9), service("sh", "")),
        Command::EditService(vip(80), service("wlc", "")),
        Command::DeleteService(vip(443)),
        Command::AddDest(vip(80), dest(13), weighing(5)),
        Command::EditDest(vip(80), dest(12), weighing(0)),
        Command::DeleteDest(vip(80), dest(11)),
        Command::Zero(None),
        Command::Zero(Some(vip(80))),
        Command::SetTimeouts(timeouts),
        Command::StartSync(daemon()),
        Command::StopSync(SyncState::Master),
        Command::AddMarkRule(MarkRule::any(Family::V4, 9, u32::MAX)),
        Command::FlushMarkRules,
        Command::SetSysctl(&sysctl::ALL[0], sysctl::Value::One(3)),
        Command::Flush,
    ]
}

/// Keeps what a client sends.
struct Recorder<'a> {
    to: LocalTransport<'a>,
    sent: Vec<Vec<u8>>,
}

impl Transport for &mut Recorder<'_> {
    fn send(&mut self, message: &[u8]) -> io::Result<()> {
        self.sent.push(message.to_vec());
        self.to.send(message)
    }

    fn receive(&mut self, buffer: &mut Vec<u8>) -> io::Result<()> {
        self.to.receive(buffer)
    }
}

/// What a client sends to do something, as an input.
fn recorded(
    what: impl FnOnce(&mut Client<&mut Recorder<'_>>) -> Result<(), ClientError>,
) -> Vec<u8> {
    let mut director = Director::new(Access::Admin);
    let to = LocalTransport::new(director.control());
    let mut recorder = Recorder { to, sent: Vec::new() };
    // Some is refused: that is a request, too.
    let _ = Client::new(&mut recorder).and_then(|mut client| what(&mut client));
    let mut input = vec![u8::MAX];
    for datagram in &recorder.sent {
        let len = u16::try_from(datagram.len()).unwrap_or(u16::MAX);
        input.extend(len.to_le_bytes());
        input.extend(datagram);
    }
    input
}

/// The inputs for the target `control`.
pub fn control() -> Vec<Vec<u8>> {
    let mut seeds: Vec<Vec<u8>> =
        edits().iter().map(|edit| recorded(|client| client.apply(edit))).collect();
    seeds.push(recorded(|client| client.apply_each(&edits()).map(drop)));
    for count in [edits().len(), 2] {
        seeds.push(recorded(|client| {
            // The whole list is refused, its beginning is not.
            let _ = client.apply_all(edits().get(..count).unwrap_or_default());
            Ok(())
        }));
    }
    seeds.push(recorded(|client| {
        client.info()?;
        client.services()?;
        client.service(&vip(80))?;
        client.dests(&vip(80))?;
        client.timeouts()?;
        client.sync_daemons().map(drop)
    }));
    seeds.push(recorded(|client| client.connections().map(drop)));
    seeds.push(recorded(|client| client.status().map(drop)));
    seeds.push(recorded(|client| client.statistics().map(drop)));
    seeds.push(recorded(|client| client.mark_rules().map(drop)));
    seeds.push(recorded(|client| {
        client.settings()?;
        client.setting("conn_reuse_mode")?;
        client.set_setting("expire_nodest_conn", "1")
    }));
    seeds
}
