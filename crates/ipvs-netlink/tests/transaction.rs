//! Transactions: what waits, what becomes of it, and what is forgotten.

#![expect(
    clippy::tests_outside_test_module,
    clippy::unwrap_used,
    reason = "the whole file is a test module"
)]

mod framing;
mod support;

use std::io;

use framing::request;
use ipvs_core::addr::{Addr, Family};
use ipvs_core::command::Command;
use ipvs_core::dest::{DestKey, DestSpec};
use ipvs_core::mark::MarkRule;
use ipvs_core::service::{ServiceFlags, ServiceKey, ServiceSpec};
use ipvs_core::snapshot::Control as _;
use ipvs_core::sysctl;
use ipvs_netlink::client::{LocalTransport, Transport};
use ipvs_netlink::message::{Messages, flags};
use ipvs_netlink::numbers::{self, command, svc, top};
use ipvs_netlink::transaction::{BEGIN, COMMIT, DISCARD, LONGEST, Terms};
use ipvs_netlink::{
    Access, Client, ClientError, Conversation, Errno, NotMade, conn, service as service_attrs,
};
use proptest::prelude::*;
use support::SmallTable;

const ACK: u16 = flags::REQUEST | flags::ACK;

fn service(port: u16) -> ServiceKey {
    ServiceKey::address(Family::V4, 6, Addr::v4([192, 0, 2, 10]), port)
}

fn spec(scheduler: &str, flags: u32) -> ServiceSpec {
    let (scheduler, engine) = (scheduler.into(), "".into());
    ServiceSpec { scheduler, engine, flags, timeout: 60, netmask: [255; 4] }
}

fn add(port: u16) -> Command {
    Command::AddService(service(port), spec("rr", 0))
}

fn dest(number: u8) -> DestKey {
    DestKey::new(Family::V4, Addr::v4([10, 1, 0, number]), 80)
}

fn weighing(weight: i32) -> DestSpec {
    DestSpec { weight, ..DestSpec::default() }
}

/// A request to add a service.
fn adding(flags: u16, port: u16, service_flags: u32) -> Vec<u8> {
    request(numbers::FAMILY_ID, flags, command::NEW_SERVICE, |writer| {
        service_attrs::write_full(writer, &service(port), &spec("rr", service_flags));
    })
}

fn own(number: u8) -> Vec<u8> {
    request(conn::FAMILY_ID, ACK, number, |_| {})
}

/// What ends the answers to a datagram.
fn ends(
    conversation: &mut Conversation,
    table: &mut SmallTable,
    datagram: &[u8],
) -> Vec<Result<(), Errno>> {
    let mut ends = Vec::new();
    conversation.serve(datagram, table, &mut |answer| {
        let errors = Messages(answer).filter_map(|message| message.error());
        ends.extend(errors.map(|error| error.map_or(Ok(()), Err)));
    });
    ends
}

fn ports(table: &mut SmallTable) -> Vec<u16> {
    let mut ports = Vec::new();
    table.services(&mut |service| ports.push(service.key.port));
    ports.sort_unstable();
    ports
}

/// Everything that edits change.
fn all(table: &mut SmallTable) -> impl PartialEq + std::fmt::Debug + use<> {
    let mut client = Client::new(LocalTransport::new(table)).unwrap();
    let services = client.services().unwrap();
    let dests: Vec<_> =
        services.iter().map(|service| client.dests(&service.key).unwrap()).collect();
    let rest = (client.timeouts().unwrap(), client.settings().unwrap());
    (services, dests, client.mark_rules().unwrap(), rest)
}

fn edit() -> impl Strategy<Value = Command> {
    let port = 80..84_u16;
    let scheduler = prop::sample::select(vec!["rr", "rr", "wlc", "nosuch"]);
    let named = (port.clone(), scheduler);
    let placed = (port.clone(), 1..4_u8, -1..9_i32);
    let setting = (prop::sample::select(sysctl::ALL.map(|it| it.name).to_vec()), 0..5_i128);
    prop_oneof![
        8 => named.clone().prop_map(|(port, name)| Command::AddService(service(port), spec(name, 0))),
        2 => named.prop_map(|(port, name)| Command::EditService(service(port), spec(name, 0))),
        2 => port.clone().prop_map(|port| Command::DeleteService(service(port))),
        8 => placed.clone().prop_map(|(port, number, weight)| {
            Command::AddDest(service(port), dest(number), weighing(weight))
        }),
        2 => placed.prop_map(|(port, number, weight)| {
            Command::EditDest(service(port), dest(number), weighing(weight))
        }),
        1 => (port.clone(), 1..4_u8)
            .prop_map(|(port, number)| Command::DeleteDest(service(port), dest(number))),
        1 => Just(Command::Flush),
        1 => Just(Command::Zero(None)),
        1 => port.prop_map(|port| Command::Zero(Some(service(port)))),
        1 => (1..4_u32).prop_map(|mark| {
            Command::AddMarkRule(MarkRule::any(Family::V6, mark, u32::MAX))
        }),
        1 => setting.prop_map(|(name, value)| {
            Command::SetSysctl(sysctl::find(name).unwrap(), sysctl::Value::One(value))
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// By a transaction a director makes what it makes of a list that it is handed, or
    /// nothing, whatever was there before.
    #[test]
    fn edits_are_made_in_order_all_or_none(
        before in prop::collection::vec(edit(), 0..8),
        edits in prop::collection::vec(edit(), 0..8),
    ) {
        let (mut one, mut other) = (SmallTable::default(), SmallTable::default());
        for edit in &before {
            let edit = core::slice::from_ref(edit);
            prop_assert_eq!(one.apply(edit), other.apply(edit));
        }
        let made = Client::new(LocalTransport::new(&mut one)).unwrap().apply_all(&edits);
        let expect = other.apply(&edits);
        prop_assert_eq!(made.is_ok(), expect.is_ok(), "{:?} and {:?}", made, expect);
        prop_assert_eq!(all(&mut one), all(&mut other));
    }
}

#[test]
fn the_edit_at_fault_is_named_with_its_reason() {
    let mut table = SmallTable::default();
    let mut client = Client::new(LocalTransport::new(&mut table)).unwrap();
    let edits: Vec<Command> = (1..5000).map(add).chain([add(77)]).collect();
    match client.apply_all(&edits) {
        Err(NotMade::Edit { position, errno, reason }) => {
            assert_eq!((position, errno), (4999, Errno::EXIST));
            assert_eq!(reason.as_deref(), Some("service already exists"));
        }
        other => panic!("{other:?}"),
    }
    let unknown = [add(80), Command::AddDest(service(81), dest(1), weighing(1))];
    match client.apply_all(&unknown) {
        Err(NotMade::Edit { position: 1, errno: Errno::SRCH, .. }) => {}
        other => panic!("{other:?}"),
    }
    assert_eq!(ports(&mut table), []);
}

#[test]
fn edits_wait_until_they_are_committed_and_questions_are_answered_by_what_is_in_force() {
    let (mut table, mut conversation) = (SmallTable::default(), Conversation::new(Access::Admin));
    let mut ends =
        |table: &mut SmallTable, datagram: &[u8]| ends(&mut conversation, table, datagram);
    assert_eq!(ends(&mut table, &own(BEGIN)), [Ok(())]);
    assert_eq!(ends(&mut table, &adding(ACK, 80, 0)), [Ok(())]);
    assert_eq!(ends(&mut table, &adding(flags::REQUEST, 81, 0)), [], "no answer was asked for");
    let ask = request(numbers::FAMILY_ID, ACK, command::GET_SERVICE, |writer| {
        service_attrs::write_key(writer, &service(80));
    });
    assert_eq!(ends(&mut table, &ask), [Err(Errno::SRCH)]);
    assert_eq!(ports(&mut table), []);
    // Another client is not held up.
    table.apply(&[add(90)]).unwrap();
    assert_eq!(ends(&mut table, &own(COMMIT)), [Ok(())]);
    assert_eq!(ports(&mut table), [80, 81, 90]);
    assert_eq!(ends(&mut table, &adding(ACK, 82, 0)), [Ok(())]);
    assert_eq!(ports(&mut table), [80, 81, 82, 90], "it is over");
}

#[test]
fn what_others_changed_meanwhile_counts() {
    let (mut table, mut conversation) = (SmallTable::default(), Conversation::new(Access::Admin));
    let begun = [own(BEGIN), adding(ACK, 80, 0), adding(ACK, 81, 0)].concat();
    assert_eq!(ends(&mut conversation, &mut table, &begun), [Ok(()); 3]);
    table.apply(&[add(81)]).unwrap();
    assert_eq!(ends(&mut conversation, &mut table, &own(COMMIT)), [Err(Errno::EXIST)]);
    assert_eq!(ports(&mut table), [81]);
}

#[test]
fn what_is_made_only_if_nothing_has_changed_is_told_that_something_has() {
    let mut table = SmallTable::default();
    let mut client = Client::new(LocalTransport::new(&mut table)).unwrap();
    let terms = Terms { unchanged: true, trial: None };
    client.begin_all().unwrap();
    assert_eq!(client.services().unwrap(), []);
    client.commit_all(&[add(80)], terms).unwrap();
    drop(client);
    let (ask, mut conversation) = (own(BEGIN), Conversation::new(Access::Admin));
    assert_eq!(ends(&mut conversation, &mut table, &ask), [Ok(())]);
    table.set_sysctl("sloppy_tcp", "1").unwrap();
    let datagram = [
        adding(ACK, 81, 0),
        request(conn::FAMILY_ID, ACK, COMMIT, |writer| {
            writer.attr(1, &[]);
        }),
    ];
    let expect = [Ok(()), Err(Errno::STALE)];
    assert_eq!(ends(&mut conversation, &mut table, &datagram.concat()), expect);
    assert_eq!(ports(&mut table), [80]);
}

#[test]
fn a_client_that_goes_and_one_that_thinks_better_of_it_leave_nothing() {
    let mut table = SmallTable::default();
    let begun = [own(BEGIN), adding(ACK, 80, 0)].concat();
    let mut gone = Conversation::new(Access::Admin);
    ends(&mut gone, &mut table, &begun);
    drop(gone);
    let mut other = Conversation::new(Access::Admin);
    assert_eq!(ends(&mut other, &mut table, &own(COMMIT)), [Err(Errno::INVAL)]);
    ends(&mut other, &mut table, &begun);
    assert_eq!(ends(&mut other, &mut table, &own(DISCARD)), [Ok(())]);
    assert_eq!(ends(&mut other, &mut table, &own(COMMIT)), [Err(Errno::INVAL)]);
    assert_eq!(ports(&mut table), []);
}

#[test]
fn flags_are_laid_over_those_that_the_same_transaction_gave() {
    let (mut table, mut conversation) = (SmallTable::default(), Conversation::new(Access::Admin));
    table.apply(&[add(80)]).unwrap();
    let one_packet = request(numbers::FAMILY_ID, ACK, command::SET_SERVICE, |writer| {
        writer.nest(top::SERVICE, |writer| {
            writer.u16(svc::AF, numbers::AF_INET);
            writer.u16(svc::PROTOCOL, 6);
            writer.attr(svc::ADDR, &service(80).addr.octets());
            writer.be16(svc::PORT, 80);
            writer.text(svc::SCHED_NAME, b"rr");
            let flags = ServiceFlags::ONE_PACKET.to_ne_bytes();
            writer.attr(svc::FLAGS, &[flags, flags].concat());
            writer.u32(svc::TIMEOUT, 0);
            writer.u32(svc::NETMASK, u32::MAX);
        });
    });
    let flush = request(numbers::FAMILY_ID, ACK, command::FLUSH, |_| {});
    let again = adding(ACK, 80, ServiceFlags::PERSISTENT);
    let all = [own(BEGIN), flush, again, one_packet, own(COMMIT)].concat();
    assert_eq!(ends(&mut conversation, &mut table, &all), [Ok(()); 5]);
    let both = ServiceFlags::PERSISTENT | ServiceFlags::ONE_PACKET;
    assert_eq!(table.service(&service(80)).unwrap().spec.flags & both, both);
}

#[test]
fn one_transaction_at_a_time_and_none_without_rights() {
    let mut table = SmallTable::default();
    let mut twice = Conversation::new(Access::Admin);
    let begun = [own(BEGIN), own(BEGIN)].concat();
    assert_eq!(ends(&mut twice, &mut table, &begun), [Ok(()), Err(Errno::ALREADY)]);
    assert!(twice.is_in_transaction());
    let mut late = Conversation::new(Access::Admin);
    late.let_begin(false);
    assert_eq!(ends(&mut late, &mut table, &own(BEGIN)), [Err(Errno::BUSY)]);
    for access in [Access::Read, Access::None] {
        let mut reader = Conversation::new(access);
        for number in [BEGIN, COMMIT, DISCARD] {
            assert_eq!(ends(&mut reader, &mut table, &own(number)), [Err(Errno::PERM)]);
        }
        assert!(!reader.is_in_transaction());
    }
    let dump = request(conn::FAMILY_ID, flags::REQUEST | flags::DUMP, BEGIN, |_| {});
    let mut other = Conversation::new(Access::Admin);
    assert_eq!(ends(&mut other, &mut table, &dump), [Err(Errno::OPNOTSUPP)]);
}

#[test]
fn what_is_too_long_is_refused_once_and_nothing_is_made_of_it() {
    let (mut table, mut conversation) = (SmallTable::default(), Conversation::new(Access::Admin));
    let mut ends = |datagram: &[u8]| ends(&mut conversation, &mut table, datagram);
    assert_eq!(ends(&own(BEGIN)), [Ok(())]);
    let one = adding(flags::REQUEST, 80, 0);
    let datagram = one.repeat(400);
    let fitting = LONGEST / one.len();
    let (mut sent, mut answers) = (0, Vec::new());
    while sent <= fitting + 400 {
        answers.extend(ends(&datagram));
        sent += 400;
    }
    assert_eq!(answers, [Err(Errno::TOOBIG)]);
    assert_eq!(ends(&adding(ACK, 80, 0)), [Err(Errno::CANCELED)]);
    assert_eq!(ends(&own(COMMIT)), [Err(Errno::TOOBIG)]);
    assert_eq!(ends(&adding(ACK, 81, 0)), [Ok(())]);
    assert_eq!(ports(&mut table), [81]);
}

#[test]
fn a_kernel_is_not_asked() {
    struct Kernel;
    impl Transport for Kernel {
        fn send(&mut self, message: &[u8]) -> io::Result<()> {
            // It resolves its family, and that is all.
            assert_eq!(Messages(message).next().unwrap().header.kind, 0x10);
            Ok(())
        }
        fn receive(&mut self, buffer: &mut Vec<u8>) -> io::Result<()> {
            let mut table = SmallTable::default();
            let mut local = LocalTransport::new(&mut table);
            let mut resolve = request(0x10, ACK, 3, |writer| writer.text(2, b"IPVS"));
            // The sequence that a client begins with.
            resolve.splice(8..12, 1_u32.to_ne_bytes());
            local.send(&resolve)?;
            local.receive(buffer)?;
            let answer = buffer.clone();
            local.receive(buffer)?;
            *buffer = [answer, core::mem::take(buffer)].concat();
            Ok(())
        }
        fn is_kernel(&self) -> bool {
            true
        }
    }
    let mut client = Client::new(Kernel).unwrap();
    assert!(matches!(client.apply_all(&[add(80)]), Err(NotMade::Unsupported)));
}

#[test]
fn a_director_that_falls_silent_is_no_refusal() {
    struct Silent<'a>(LocalTransport<'a>, u32);
    impl Transport for Silent<'_> {
        fn send(&mut self, message: &[u8]) -> io::Result<()> {
            self.1 -= 1;
            if self.1 == 0 { Err(io::ErrorKind::BrokenPipe.into()) } else { self.0.send(message) }
        }
        fn receive(&mut self, buffer: &mut Vec<u8>) -> io::Result<()> {
            self.0.receive(buffer)
        }
    }
    for sends in 2..6 {
        let mut table = SmallTable::default();
        let silent = Silent(LocalTransport::new(&mut table), sends);
        let made = Client::new(silent).unwrap().apply_all(&[add(80)]);
        assert!(matches!(made, Err(NotMade::Failed(ClientError::Io(_)))), "{sends}: {made:?}");
        assert_eq!(ports(&mut table), []);
    }
}
