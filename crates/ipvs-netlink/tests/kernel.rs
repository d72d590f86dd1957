//! The same requests to a real kernel's IPVS and to ours: the answers must be
//! the same, byte for byte.
//!
//! This empties the kernel's table, so it runs only when asked to, by
//! `IPVS_KERNEL_TEST=1`, as root, in a kernel with `ip_vs` and `ip_vs_pe_sip`.
#![expect(
    clippy::tests_outside_test_module,
    clippy::unwrap_used,
    reason = "the whole file is a test module"
)]

use std::env;
use std::fmt::Write as _;
use std::io::Write as _;

use ipvs_netlink::attr::{Attrs, Writer};
use ipvs_netlink::client::{KernelTransport, LocalTransport, Transport};
use ipvs_netlink::controller;
use ipvs_netlink::message::{Messages, flags, kind};
use ipvs_netlink::numbers::{self, command, daemon, dst, svc, top};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use support::SmallTable;

mod support;

/// A request: command, flags and attributes, for whichever family number.
type Request = (u8, u16, Vec<u8>);

const PLAIN: u16 = flags::REQUEST | flags::ACK;
const DUMP: u16 = flags::REQUEST | flags::DUMP;

fn message(family: u16, (command, flags, attrs): &Request) -> Vec<u8> {
    let len = u32::try_from(20 + attrs.len()).unwrap();
    let mut bytes = len.to_ne_bytes().to_vec();
    bytes.extend(family.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend([7, 0, 0, 0, 0, 0, 0, 0, *command, 1, 0, 0]);
    bytes.extend(attrs);
    bytes
}

/// Sends a request and writes the answer as text, without what differs between
/// any two directors: the number of the family and the port.
fn ask(transport: &mut dyn Transport, family: u16, request: &Request) -> Vec<String> {
    transport.send(&message(family, request)).unwrap();
    let mut answer = Vec::new();
    let mut buffer = Vec::new();
    loop {
        transport.receive(&mut buffer).unwrap();
        for message in Messages(&buffer) {
            let header = message.header;
            let of_family = header.kind == family;
            let mut text = format!("flags {:x} ", header.flags);
            if of_family {
                let (command, attrs) = message.generic().unwrap();
                write!(text, "command {command}").unwrap();
                tree(&mut text, attrs, &[]);
            } else {
                // The request is quoted: less its family and port.
                let mut payload = message.payload().to_vec();
                for at in [8, 9, 16, 17, 18, 19] {
                    if let Some(octet) = payload.get_mut(at) {
                        *octet = 0;
                    }
                }
                write!(text, "kind {} {payload:?}", header.kind).unwrap();
            }
            answer.push(text);
            if header.kind == kind::DONE || header.kind == kind::ERROR {
                return answer;
            }
        }
    }
}

/// Writes attributes as text, nests in brackets, without the padding that
/// kernels for some machines put between counters.
fn tree(text: &mut String, attrs: &[u8], path: &[u16]) {
    for (number, payload) in Attrs(attrs) {
        let path = [path, &[number]].concat();
        let is_nest = matches!(path.as_slice(), [top::SERVICE | top::DEST | top::DAEMON])
            || matches!(path.as_slice(), [_, svc::STATS | svc::STATS64]);
        if is_nest && payload.len() > 4 {
            write!(text, " {number}[").unwrap();
            tree(text, payload, &path);
            text.push(']');
        } else if path.len() < 3 || number != 11 {
            write!(text, " {number}:{payload:02x?}").unwrap();
        }
    }
}

/// Attributes of which some are missing, and some too long or too short.
fn attrs(parts: Vec<(u16, Vec<u8>)>) -> impl Strategy<Value = Vec<u8>> {
    let count = parts.len();
    let spoilt = prop_oneof![
        6 => Just(None),
        2 => (0..count).prop_map(|at| Some((at, None))),
        1 => (0..count, 0..20_usize).prop_map(|(at, len)| Some((at, Some(len)))),
    ];
    spoilt.prop_map(move |spoilt| {
        let mut writer = Writer::new();
        for (at, (number, payload)) in parts.iter().enumerate() {
            let mut payload = payload.clone();
            match spoilt {
                Some((spoilt, None)) if spoilt == at => continue,
                Some((spoilt, Some(len))) if spoilt == at => payload.resize(len, 0),
                _ => {}
            }
            writer.attr(*number, &payload);
        }
        writer.into_bytes()
    })
}

fn text(word: &str) -> Vec<u8> {
    [word.as_bytes(), &[0]].concat()
}

/// The key of one of a few services.
fn key() -> impl Strategy<Value = Vec<(u16, Vec<u8>)>> {
    let af = prop_oneof![8 => Just(2_u16), 8 => Just(10), 1 => Just(3)];
    let protocol = prop_oneof![Just(6_u16), Just(17), Just(47)];
    let by_address =
        (af.clone(), protocol, 1..=2_u8, 0..=1_u16).prop_map(|(af, protocol, last, port)| {
            let mut addr = vec![0; 16];
            addr.splice(0..4, if af == 2 { [192, 0, 2, last] } else { [0x20, 1, 0xd, last] });
            vec![
                (svc::AF, af.to_ne_bytes().to_vec()),
                (svc::PROTOCOL, protocol.to_ne_bytes().to_vec()),
                (svc::ADDR, addr),
                (svc::PORT, port.to_be_bytes().to_vec()),
            ]
        });
    let by_mark = (af, 0..=2_u32).prop_map(|(af, mark)| {
        vec![(svc::AF, af.to_ne_bytes().to_vec()), (svc::FWMARK, mark.to_ne_bytes().to_vec())]
    });
    prop_oneof![2 => by_address, 1 => by_mark]
}

fn service() -> impl Strategy<Value = Vec<u8>> {
    const WORDS: [&str; 8] = ["rr", "wlc", "wrr", "lc", "none", "nosuch", "", "123456789012345"];
    let scheduler = prop::sample::select(&WORDS[..]);
    let engine = prop_oneof![6 => Just(None), 1 => Just(Some("")), 1 => Just(Some("sip")), 1 => Just(Some("nosuch"))];
    let mask = prop_oneof![4 => 1..=128_u32, 1 => Just(0), 1 => Just(129), 1 => Just(u32::MAX)];
    let flags = (any::<u32>(), prop_oneof![Just(u32::MAX), any::<u32>()]);
    let parts = (key(), scheduler, engine, flags, 0..=10_000_u32, mask);
    parts.prop_flat_map(|(mut parts, scheduler, engine, (flags, of), timeout, mask)| {
        parts.push((svc::SCHED_NAME, text(scheduler)));
        parts.push((svc::FLAGS, [flags.to_ne_bytes(), of.to_ne_bytes()].concat()));
        parts.push((svc::TIMEOUT, timeout.to_ne_bytes().to_vec()));
        parts.push((svc::NETMASK, mask.to_ne_bytes().to_vec()));
        parts.extend(engine.map(|engine| (svc::PE_NAME, text(engine))));
        attrs(parts)
    })
}

fn destination() -> impl Strategy<Value = Vec<u8>> {
    let family = prop_oneof![
        6 => Just(None), 1 => Just(Some(0_u16)), 2 => Just(Some(2)), 2 => Just(Some(10)), 1 => Just(Some(3)),
    ];
    let addr = prop::sample::select(
        &[
            [10, 1, 0, 11],
            [10, 1, 0, 12],
            [0, 0, 0, 0],
            [224, 0, 0, 1],
            [255, 255, 255, 255],
            [127, 0, 0, 1],
            [0xff, 2, 0, 1],
            [0xfe, 0x80, 0, 1],
            [0x20, 1, 0xd, 0xb8],
        ][..],
    );
    let weight = prop_oneof![4 => 0..=100_u32, 1 => Just(u32::MAX), 1 => Just(1 << 31)];
    let thresholds = (0..=3_u32, 0..=3_u32);
    let tunnel = prop::option::of((0..=3_u8, 0..=1_u16, 0..=3_u16));
    let parts = (family, addr, 0..=1_u16, 0..=9_u32, weight, thresholds, tunnel);
    parts.prop_flat_map(|(family, addr, port, method, weight, (upper, lower), tunnel)| {
        let mut octets = addr.to_vec();
        octets.resize(16, 0);
        let mut parts = vec![
            (dst::ADDR, octets),
            (dst::PORT, port.to_be_bytes().to_vec()),
            (dst::FWD_METHOD, method.to_ne_bytes().to_vec()),
            (dst::WEIGHT, weight.to_ne_bytes().to_vec()),
            (dst::U_THRESH, upper.to_ne_bytes().to_vec()),
            (dst::L_THRESH, lower.to_ne_bytes().to_vec()),
        ];
        parts.extend(family.map(|family| (dst::ADDR_FAMILY, family.to_ne_bytes().to_vec())));
        if let Some((kind, port, flags)) = tunnel {
            parts.push((dst::TUN_TYPE, vec![kind]));
            parts.push((dst::TUN_PORT, port.to_be_bytes().to_vec()));
            parts.push((dst::TUN_FLAGS, flags.to_ne_bytes().to_vec()));
        }
        attrs(parts)
    })
}

/// Attributes of a sync daemon that cannot start, for want of an interface.
fn sync() -> impl Strategy<Value = Vec<u8>> {
    (0..=3_u32, any::<bool>()).prop_flat_map(|(state, is_unicast)| {
        let group = if is_unicast { [10, 0, 0, 1] } else { [224, 0, 0, 81] };
        attrs(vec![
            (daemon::STATE, state.to_ne_bytes().to_vec()),
            (daemon::SYNC_ID, vec![0; 4]),
            (daemon::MCAST_GROUP, group.to_vec()),
        ])
    })
}

fn request() -> impl Strategy<Value = Request> {
    let number = prop_oneof![
        20 => prop::sample::select(&[
            command::NEW_SERVICE, command::NEW_SERVICE, command::SET_SERVICE, command::GET_SERVICE,
            command::NEW_DEST, command::NEW_DEST, command::SET_DEST, command::DEL_DEST,
            command::GET_CONFIG, command::ZERO, command::GET_INFO, command::NEW_DAEMON, command::DEL_DAEMON,
        ][..]),
        1 => Just(command::DEL_SERVICE),
        1 => 0..=20_u8,
    ];
    let dump = prop_oneof![12 => Just(PLAIN), 1 => Just(DUMP), 1 => Just(DUMP | flags::ACK)];
    let timeouts = prop_oneof![3 => Just(None), 1 => (4..=6_u16, prop_oneof![0..=1000_u32, Just(u32::MAX), Just(1 << 31)]).prop_map(Some)];
    let missing = prop_oneof![10 => Just(0), 1 => 1..=3_u16];
    let parts = (number, dump, service(), destination(), sync(), timeouts, missing);
    parts.prop_map(|(number, dump, service, dest, sync, timeout, missing)| {
        let mut writer = Writer::new();
        for (top, nest) in [(top::SERVICE, service), (top::DEST, dest), (top::DAEMON, sync)] {
            if top != missing {
                writer.attr(top, &nest);
            }
        }
        if let Some((number, value)) = timeout {
            writer.u32(number, value);
        }
        (number, dump, writer.into_bytes())
    })
}

/// The number of the kernel's IPVS family.
fn family_of(kernel: &mut dyn Transport, name: &str) -> Option<u16> {
    let mut writer = Writer::new();
    controller::write_request(&mut writer, name);
    let request = (controller::GET_FAMILY, PLAIN, writer.into_bytes());
    kernel.send(&message(controller::ID, &request)).ok()?;
    let mut buffer = Vec::new();
    let mut id = None;
    loop {
        kernel.receive(&mut buffer).ok()?;
        for message in Messages(&buffer) {
            if message.error().is_some() {
                return id;
            }
            id = message.generic().and_then(|(_, attrs)| controller::read_id(attrs));
        }
    }
}

#[test]
fn kernel_and_director_give_the_same_answers() {
    let mut out = std::io::stdout().lock();
    if env::var_os("IPVS_KERNEL_TEST").is_none() {
        writeln!(out, "skipped: IPVS_KERNEL_TEST is not set, the kernel's IPVS is left alone")
            .unwrap();
        return;
    }
    let mut kernel = KernelTransport::open().unwrap();
    let family = family_of(&mut kernel, numbers::FAMILY_NAME).expect("a kernel with ip_vs");
    let describe = |w: &mut Writer| controller::write_request(w, numbers::FAMILY_NAME);
    let mut writer = Writer::new();
    describe(&mut writer);
    let describe = (controller::GET_FAMILY, PLAIN, writer.into_bytes());
    let mut ours = SmallTable::default();
    let theirs = ask(&mut kernel, controller::ID, &describe);
    let theirs = theirs.join("\n").replacen(
        &format!("1:{:02x?}", family.to_ne_bytes()),
        &format!("1:{:02x?}", numbers::FAMILY_ID.to_ne_bytes()),
        1,
    );
    let our_answer = ask(&mut LocalTransport::new(&mut ours), controller::ID, &describe).join("\n");
    assert_eq!(our_answer, theirs);

    let cases =
        env::var("IPVS_KERNEL_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(300);
    let mut runner =
        TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    let kernel = std::cell::RefCell::new(kernel);
    let result = runner.run(&prop::collection::vec(request(), 1..40), |requests| {
        let kernel = &mut *kernel.borrow_mut();
        let mut table = SmallTable::default();
        let flush = (command::FLUSH, PLAIN, Vec::new());
        // Requests and what the kernel keeps beyond a flush.
        let mut reset = Writer::new();
        for (number, seconds) in [(4, 900), (5, 120), (6, 300)] {
            reset.u32(number, seconds);
        }
        let reset = (command::SET_CONFIG, PLAIN, reset.into_bytes());
        ask(kernel, family, &flush);
        ask(kernel, family, &reset);
        for request in requests {
            let mut ours = ask(&mut LocalTransport::new(&mut table), numbers::FAMILY_ID, &request);
            let mut theirs = ask(kernel, family, &request);
            // The order of services hangs on the kernel's hash.
            ours.sort();
            theirs.sort();
            prop_assert_eq!(ours, theirs, "{:?}", request);
        }
        Ok(())
    });
    writeln!(out, "{cases} sequences of requests").unwrap();
    if let Err(error) = result {
        panic!("{error}");
    }
}
