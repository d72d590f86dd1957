//! What comes in by the daemon's socket.
//!
//! An input is an octet that says what the client may do, and then datagrams, each
//! behind its length in two octets. They are served twice, by two directors that are
//! configured alike: by one as the daemon does it, datagram by datagram; by the other
//! message by message, with a look at the configuration in between.

use std::collections::HashMap;

use ipvs_core::addr::{Addr, Family};
use ipvs_core::command::Command;
use ipvs_core::hop::{RouteQuery, Way};
use ipvs_core::mark::MarkRule;
use ipvs_core::service::{ServiceFlags, ServiceKey};
use ipvs_core::snapshot::{Control, DestStatus, ServiceStatus, Timeouts};
use ipvs_core::sync::SyncDaemon;
use ipvs_core::sysctl;
use ipvs_core::time::{Instant, Millis};
use ipvs_netlink::client::{Client, ClientError, LocalTransport};
use ipvs_netlink::message::{HEADER_LEN, Message, Messages, flags, kind};
use ipvs_netlink::{Access, Conversation, Errno};
use ipvs_plane::memory::{Host, MemoryTables};
use ipvs_plane::registry::Registry;
use ipvs_plane::store::Limits;

use crate::seeds;

/// Room for little, so that what is full is met, too.
const LIMITS: Limits =
    Limits { services: 4, dests: 8, members: 64, blocks: 40, cached: 8, conns: 16 };

/// A host with one interface, whose clock stands.
#[derive(Debug)]
struct Still;

impl Host for Still {
    fn route(&self, _query: &RouteQuery) -> Way {
        Way::default()
    }

    fn source_towards(&self, _family: Family, _addr: Addr) -> Option<Addr> {
        Some(Addr::UNSPECIFIED)
    }

    fn interface(&self, name: &str) -> Option<u32> {
        (name == "eth0").then_some(1)
    }

    fn mtu(&self, name: &str) -> Option<u32> {
        self.interface(name).map(|_| 1500)
    }

    fn now(&self) -> Instant {
        Instant::default().after(Millis(1_000_000))
    }
}

/// A director over tables in this process, and the client whose input it gets.
#[derive(Debug)]
pub(crate) struct Director(Registry<MemoryTables<Still>>, Conversation);

impl Director {
    /// One with a few services.
    pub(crate) fn new(access: Access) -> Self {
        let tables = MemoryTables::new(Still, LIMITS).expect("memory for small tables");
        let Ok(mut registry) = Registry::new(tables);
        registry.apply(&seeds::configuration()).expect("a configuration that is in order");
        Self(registry, Conversation::new(access))
    }

    pub(crate) fn control(&mut self) -> &mut dyn Control {
        &mut self.0
    }

    /// Serves a datagram; returns those of the answer.
    fn serve(&mut self, datagram: &[u8]) -> Vec<Vec<u8>> {
        let mut answer = Vec::new();
        self.1.serve(datagram, &mut self.0, &mut |it| answer.push(it.to_vec()));
        answer
    }

    /// Asks as ipvsadm does, which must be able to read the answers.
    fn ask<R>(
        &mut self,
        what: impl FnOnce(&mut Client<LocalTransport<'_>>) -> Result<R, ClientError>,
    ) -> R {
        let mut client = Client::new(LocalTransport::new(&mut self.0)).expect("a client");
        what(&mut client).expect("an answer that can be read")
    }

    fn configuration(&mut self) -> Configuration {
        let control = &mut self.0;
        let (mut all, mut settings) = (Vec::new(), Vec::new());
        let (mut sync, mut marks) = (Vec::new(), Vec::new());
        control.services(&mut |service| all.push(service));
        let services = all.into_iter().map(|service| {
            let mut dests = Vec::new();
            control.dests(&service.key, &mut |dest| dests.push(dest));
            (service.key, (service, dests))
        });
        let services = services.collect();
        control.sysctls(&mut |name, value| settings.push((name, value)));
        Control::sync_daemons(control, &mut |daemon| sync.push(*daemon));
        Control::mark_rules(control, &mut |rule| marks.push(*rule));
        Configuration { services, timeouts: control.timeouts(), settings, sync, marks }
    }

    /// Asks for everything there is, which a client must be able to read.
    fn assert_readable(&mut self) {
        let configured = self.configuration();
        self.ask(|client| {
            client.connections()?;
            client.statistics()?;
            for mut service in client.services()? {
                // A listing has it always, as a kernel's has.
                service.spec.flags |= ServiceFlags::HASHED;
                let expect = configured.services.get(&service.key);
                let read = (service, client.dests(&service.key)?);
                assert_eq!(Some(&read), expect, "a service is read as it is");
            }
            assert_eq!(client.timeouts()?, configured.timeouts);
            assert_eq!(client.settings()?.len(), configured.settings.len());
            assert_eq!(client.sync_daemons()?, configured.sync);
            assert_eq!(client.mark_rules()?, configured.marks);
            Ok(())
        });
    }
}

/// Everything that a client can change.
#[derive(Debug, PartialEq)]
struct Configuration {
    services: HashMap<ServiceKey, (ServiceStatus, Vec<DestStatus>)>,
    timeouts: Timeouts,
    settings: Vec<(&'static str, sysctl::Value)>,
    sync: Vec<SyncDaemon>,
    marks: Vec<MarkRule>,
}

/// Serves an input.
///
/// # Panics
///
/// If an answer is not whole, a request is not answered once, anything is changed by
/// what is refused, malformed or not allowed, or the director does not work afterwards.
pub fn check(input: &[u8]) {
    let Some((&first, input)) = input.split_first() else { return };
    let access = match first % 8 {
        0 => Access::None,
        1 => Access::Read,
        _ => Access::Admin,
    };
    let (mut director, mut other) = (Director::new(access), Director::new(access));
    let mut before = other.configuration();
    for datagram in Datagrams(input) {
        for answer in director.serve(datagram) {
            assert_whole(&answer);
        }
        let mut rest = datagram;
        for message in Messages(datagram) {
            before = check_message(&mut other, access, &message, &before);
            let len = message.bytes.len().next_multiple_of(4);
            rest = rest.get(len..).unwrap_or(&[]);
        }
        // What is behind the last whole message is half a message at most.
        if !rest.is_empty() {
            assert!(other.serve(rest).is_empty(), "half a message is answered");
            assert_eq!(other.configuration(), before, "half a message has changed something");
        }
    }
    assert_eq!(director.configuration(), before, "together they do what each does");
    director.assert_readable();
    director.ask(|client| client.apply(&Command::Flush));
    assert!(director.0.keys().next().is_none(), "a flush leaves services");
    let again = seeds::configuration();
    for edit in again.iter().filter(|edit| matches!(edit, Command::AddService(..))) {
        director.ask(|client| client.apply(edit));
    }
}

/// Serves one message; returns what is configured then.
fn check_message(
    director: &mut Director,
    access: Access,
    message: &Message<'_>,
    before: &Configuration,
) -> Configuration {
    let answer = director.serve(message.bytes);
    for datagram in &answer {
        assert_whole(datagram);
    }
    let messages: Vec<Message<'_>> = answer.iter().flat_map(|it| Messages(it)).collect();
    for it in &messages {
        let of_it = (it.header.sequence, it.header.port);
        assert_eq!(of_it, (message.header.sequence, message.header.port), "whose answer?");
    }
    let ends = messages.iter().filter(|it| matches!(it.header.kind, kind::ERROR | kind::DONE));
    let ends: Vec<Option<i32>> =
        ends.map(|it| it.error().flatten().map(Errno::raw_os_error)).collect();
    assert!(ends.len() <= 1, "answered more than once: {ends:?}");
    let header = &message.header;
    assert!(!header.has(flags::ACK) || ends.len() == 1, "not acknowledged");
    let refused = ends.first().is_some_and(Option::is_some);
    let may_change = access == Access::Admin && header.has(flags::REQUEST) && !refused;
    let after = director.configuration();
    if !may_change || header.has(flags::DUMP) {
        assert_eq!(after, *before, "what is refused or only asks has changed something");
    }
    after
}

/// A datagram of an answer is made of whole messages.
fn assert_whole(datagram: &[u8]) {
    let lens = Messages(datagram).map(|message| message.bytes.len().next_multiple_of(4));
    assert_eq!(lens.sum::<usize>(), datagram.len(), "an answer that is not whole");
    assert!(datagram.len() >= HEADER_LEN, "an answer of nothing");
}

/// The datagrams of an input; the last one may be shorter than it says.
struct Datagrams<'a>(&'a [u8]);

impl<'a> Iterator for Datagrams<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let (len, rest) = self.0.split_first_chunk()?;
        let len = usize::from(u16::from_le_bytes(*len)).min(rest.len());
        let (datagram, rest) = rest.split_at_checked(len)?;
        self.0 = rest;
        Some(datagram)
    }
}

/// The key of a service that seeds and their configuration share.
pub(crate) const fn vip(port: u16) -> ServiceKey {
    ServiceKey::address(Family::V4, 6, Addr::v4([192, 0, 2, 10]), port)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn requests_in_order_are_served() {
        for seed in seeds::control() {
            check(&seed);
        }
    }

    #[test]
    fn requests_in_order_change_something() {
        let changing = seeds::control().into_iter().filter(|seed| {
            let director = Director::new(Access::Admin);
            let (mut director, datagrams) = (director, Datagrams(seed.get(1..).unwrap()));
            let before = director.configuration();
            datagrams.for_each(|it| drop(director.serve(it)));
            director.configuration() != before
        });
        assert!(changing.count() > 10);
    }

    #[test]
    fn every_beginning_of_a_request_is_survived() {
        for seed in seeds::control().iter().filter(|seed| seed.len() < 200) {
            for len in 0..seed.len() {
                check(seed.get(..len).unwrap());
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Two requests run together, some octets changed.
        #[test]
        fn spoilt_requests_are_survived(
            one in prop::sample::select(seeds::control()),
            other in prop::sample::select(seeds::control()),
            access: u8,
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        ) {
            let mut input = [&one[..], other.get(1..).unwrap()].concat();
            for (at, octet) in changes {
                let at = at.index(input.len());
                input[at] = octet;
            }
            input[0] = access;
            check(&input);
        }
    }
}
