//! Requests as bytes and the bytes that answer them: framing, errnos and their
//! order, dumps, and what no bytes may do.

#![expect(
    clippy::tests_outside_test_module,
    clippy::unwrap_used,
    reason = "the whole file is a test module"
)]

mod framing;
mod support;

use framing::request;
use ipvs_core::addr::{Addr, Family};
use ipvs_core::service::{ServiceFlags, ServiceKey, ServiceSpec};
use ipvs_netlink::attr::{Attrs, Writer};
use ipvs_netlink::message::{Messages, flags, kind};
use ipvs_netlink::numbers::{self, command, daemon, dst, info, svc, top};
use ipvs_netlink::{Access, Errno, conn, controller, serve, serve_as, service};
use proptest::prelude::*;
use support::SmallTable;

const REQUEST: u16 = flags::REQUEST | flags::ACK;
const DUMP: u16 = flags::REQUEST | flags::DUMP;

fn ipvs(flags: u16, command: u8, write: impl FnOnce(&mut Writer)) -> Vec<u8> {
    request(numbers::FAMILY_ID, flags, command, write)
}

fn answer(table: &mut SmallTable, request: &[u8]) -> Vec<Vec<u8>> {
    let mut datagrams = Vec::new();
    serve(request, table, &mut |bytes| datagrams.push(bytes.to_vec()));
    datagrams
}

/// The errno of the only answer, or that there was an acknowledgement.
fn outcome(table: &mut SmallTable, request: &[u8]) -> Result<(), Errno> {
    let datagrams = answer(table, request);
    let last = datagrams.last().expect("an answer");
    let message = Messages(last).next().expect("a message");
    message.error().expect("an acknowledgement or an error").map_or(Ok(()), Err)
}

fn vip() -> ServiceKey {
    ServiceKey::address(Family::V4, 6, Addr::v4([192, 0, 2, 10]), 80)
}

fn spec(scheduler: &str) -> ServiceSpec {
    ServiceSpec {
        scheduler: scheduler.into(),
        engine: "".into(),
        flags: 0,
        timeout: 0,
        netmask: [255; 4],
    }
}

/// A table with the service of [`vip`].
fn table() -> SmallTable {
    let mut table = SmallTable::default();
    let add = ipvs(REQUEST, command::NEW_SERVICE, |w| service::write_full(w, &vip(), &spec("rr")));
    assert_eq!(outcome(&mut table, &add), Ok(()));
    table
}

/// The attributes of a complete destination but for those in `without`.
fn dest(w: &mut Writer, without: &[u16], change: impl FnOnce(&mut Writer)) {
    service::write_key(w, &vip());
    w.nest(top::DEST, |w| {
        let mut put = |number, payload: &[u8]| {
            if !without.contains(&number) {
                w.attr(number, payload);
            }
        };
        put(dst::ADDR, &[10, 1, 0, 11]);
        put(dst::PORT, &[0, 80]);
        put(dst::FWD_METHOD, &0u32.to_ne_bytes());
        put(dst::WEIGHT, &1u32.to_ne_bytes());
        put(dst::U_THRESH, &0u32.to_ne_bytes());
        put(dst::L_THRESH, &0u32.to_ne_bytes());
        change(w);
    });
}

/// Checks what a destination command comes to.
#[track_caller]
fn check_dest(
    number: u8,
    without: &[u16],
    change: impl FnOnce(&mut Writer),
    expect: Result<(), Errno>,
) {
    let request = ipvs(REQUEST, number, |w| dest(w, without, change));
    assert_eq!(outcome(&mut table(), &request), expect);
}

#[test]
fn a_change_is_acknowledged_in_one_datagram() {
    let flush = ipvs(REQUEST, command::FLUSH, |_| {});
    let datagrams = answer(&mut table(), &flush);
    assert_eq!(datagrams.len(), 1);
    assert_eq!(datagrams[0].len(), 36);
    assert_eq!(datagrams[0][20..], flush[..16]);
}

#[test]
fn a_change_that_asks_for_no_acknowledgement_is_answered_only_when_refused() {
    let flush = ipvs(flags::REQUEST, command::FLUSH, |_| {});
    assert_eq!(answer(&mut table(), &flush), Vec::<Vec<u8>>::new());
    let delete = |w: &mut Writer| service::write_key(w, &vip());
    let delete = ipvs(flags::REQUEST, command::DEL_SERVICE, delete);
    assert_eq!(outcome(&mut SmallTable::default(), &delete), Err(Errno::SRCH));
}

#[test]
fn data_comes_before_its_acknowledgement() {
    let get = ipvs(REQUEST, command::GET_INFO, |_| {});
    let datagrams = answer(&mut table(), &get);
    assert_eq!(datagrams.len(), 2);
    let message = Messages(&datagrams[0]).next().unwrap();
    assert_eq!((message.header.kind, message.header.flags), (numbers::FAMILY_ID, 0));
    assert_eq!((message.header.sequence, message.header.port), (7, 9));
    let (command, attrs) = message.generic().unwrap();
    assert_eq!(command, command::SET_INFO);
    let attrs: Vec<_> = Attrs(attrs).collect();
    let (version, size) = (0x0001_0201_u32.to_ne_bytes(), 4096_u32.to_ne_bytes());
    assert_eq!(attrs, [(info::VERSION, &version[..]), (info::CONN_TAB_SIZE, &size[..])]);
}

#[test]
fn a_service_is_shown_in_the_order_of_the_kernel() {
    let get = ipvs(REQUEST, command::GET_SERVICE, |w| service::write_key(w, &vip()));
    let datagrams = answer(&mut table(), &get);
    let (number, attrs) = Messages(&datagrams[0]).next().unwrap().generic().unwrap();
    assert_eq!(number, command::NEW_SERVICE);
    let (_, nest) = Attrs(attrs).next().unwrap();
    let order: Vec<u16> = Attrs(nest).map(|(number, _)| number).collect();
    let expect = [
        svc::AF,
        svc::PROTOCOL,
        svc::ADDR,
        svc::PORT,
        svc::SCHED_NAME,
        svc::FLAGS,
        svc::TIMEOUT,
        svc::NETMASK,
        svc::STATS,
        svc::STATS64,
    ];
    assert_eq!(order, expect);
    let (_, addr) = Attrs(nest).nth(2).unwrap();
    assert_eq!(addr.len(), 16);
    let (_, flags) = Attrs(nest).nth(5).unwrap();
    let expect = [ServiceFlags::HASHED.to_ne_bytes(), [255; 4]].concat();
    assert_eq!(flags, expect);
}

#[test]
fn a_destination_is_shown_in_the_order_of_the_kernel() {
    let mut table = table();
    let add = ipvs(REQUEST, command::NEW_DEST, |w| dest(w, &[], |_| {}));
    assert_eq!(outcome(&mut table, &add), Ok(()));
    let get = ipvs(DUMP, command::GET_DEST, |w| service::write_key(w, &vip()));
    let datagrams = answer(&mut table, &get);
    let (number, attrs) = Messages(&datagrams[0]).next().unwrap().generic().unwrap();
    assert_eq!(number, command::NEW_DEST);
    let (_, nest) = Attrs(attrs).next().unwrap();
    let order: Vec<u16> = Attrs(nest).map(|(number, _)| number).collect();
    assert_eq!(order, [1, 2, 3, 4, 13, 14, 15, 5, 6, 7, 8, 9, 11, 10, 12]);
}

#[test]
fn a_dump_ends_with_a_done_of_its_own_and_no_acknowledgement() {
    let get = ipvs(DUMP | flags::ACK, command::GET_SERVICE, |_| {});
    let datagrams = answer(&mut table(), &get);
    assert_eq!(datagrams.len(), 2);
    let service = Messages(&datagrams[0]).next().unwrap();
    assert_eq!(service.header.flags, flags::MULTI);
    let done = Messages(&datagrams[1]).next().unwrap();
    assert_eq!((done.header.kind, done.header.flags), (kind::DONE, flags::MULTI));
    assert_eq!(done.payload(), [0; 4]);
}

#[test]
fn a_long_dump_is_cut_into_datagrams_of_a_page() {
    let mut table = SmallTable::default();
    for port in 1..=100 {
        let key = ServiceKey { port, ..vip() };
        let add =
            ipvs(REQUEST, command::NEW_SERVICE, |w| service::write_full(w, &key, &spec("rr")));
        assert_eq!(outcome(&mut table, &add), Ok(()));
    }
    let datagrams = answer(&mut table, &ipvs(DUMP, command::GET_SERVICE, |_| {}));
    assert!(datagrams.iter().all(|datagram| datagram.len() <= 4096));
    let messages: usize = datagrams.iter().map(|datagram| Messages(datagram).count()).sum();
    assert_eq!(messages, 101);
}

#[test]
fn destinations_of_an_unknown_service_are_an_empty_dump() {
    for write in [
        (|w: &mut Writer| service::write_key(w, &ServiceKey { port: 81, ..vip() }))
            as fn(&mut Writer),
        |w| w.nest(top::SERVICE, |w| w.u16(svc::AF, 99)),
        |w| w.attr(top::SERVICE, &[1]),
        |_| {},
    ] {
        let datagrams = answer(&mut table(), &ipvs(DUMP, command::GET_DEST, write));
        assert_eq!(datagrams.len(), 1);
        assert_eq!(Messages(&datagrams[0]).next().unwrap().header.kind, kind::DONE);
    }
}

#[test]
fn no_sync_daemon_runs_unless_started() {
    let datagrams = answer(&mut table(), &ipvs(DUMP, command::GET_DAEMON, |_| {}));
    assert_eq!(datagrams.len(), 1);
    let stop = |state| {
        ipvs(REQUEST, command::DEL_DAEMON, |w| w.nest(top::DAEMON, |w| w.u32(daemon::STATE, state)))
    };
    assert_eq!(outcome(&mut table(), &stop(1)), Err(Errno::SRCH));
    assert_eq!(outcome(&mut table(), &stop(3)), Err(Errno::INVAL));
}

#[test]
fn the_controller_resolves_both_families_and_no_other() {
    let resolve = |name: &str| {
        request(controller::ID, REQUEST, controller::GET_FAMILY, |w| {
            controller::write_request(w, name);
        })
    };
    let number = |name| {
        let datagrams = answer(&mut SmallTable::default(), &resolve(name));
        let (_, attrs) = Messages(&datagrams[0]).next().unwrap().generic().unwrap();
        controller::read_id(attrs)
    };
    assert_eq!(number("IPVS"), Some(numbers::FAMILY_ID));
    assert_eq!(number("IPVS_RS"), Some(conn::FAMILY_ID));
    assert_eq!(outcome(&mut SmallTable::default(), &resolve("TASKSTATS")), Err(Errno::NOENT));
    let nothing = request(controller::ID, REQUEST, controller::GET_FAMILY, |_| {});
    assert_eq!(outcome(&mut SmallTable::default(), &nothing), Err(Errno::INVAL));
}

#[test]
fn the_family_is_described_as_by_the_kernel() {
    let get = request(controller::ID, flags::REQUEST, controller::GET_FAMILY, |w| {
        controller::write_request(w, "IPVS");
    });
    let datagrams = answer(&mut SmallTable::default(), &get);
    let (_, attrs) = Messages(&datagrams[0]).next().unwrap().generic().unwrap();
    let attrs: Vec<_> = Attrs(attrs).collect();
    let numbers: Vec<u16> = attrs.iter().map(|(number, _)| *number).collect();
    assert_eq!(numbers, [2, 1, 3, 4, 5, 6]);
    assert_eq!(attrs[0].1, b"IPVS\0");
    let ops: Vec<(u8, u8)> = Attrs(attrs[5].1)
        .map(|(_, op)| (Attrs(op).next().unwrap().1[0], Attrs(op).nth(1).unwrap().1[0]))
        .collect();
    assert_eq!(ops.len(), 16);
    assert_eq!(ops[3], (command::GET_SERVICE, 0x0f));
    assert_eq!(ops[7], (command::GET_DEST, 0x0d));
    assert_eq!(ops[13], (command::GET_INFO, 0x0b));
}

#[test]
fn a_family_that_is_not_there_is_refused_with_enoent() {
    let flush = request(0x1f, REQUEST, command::FLUSH, |_| {});
    assert_eq!(outcome(&mut table(), &flush), Err(Errno::NOENT));
}

#[test]
fn commands_in_the_wrong_form_are_not_supported() {
    let form = |flags, number| outcome(&mut table(), &ipvs(flags, number, |_| {}));
    for number in [0, command::SET_INFO, 18, 255, command::GET_DEST, command::GET_DAEMON] {
        assert_eq!(form(REQUEST, number), Err(Errno::OPNOTSUPP), "{number}");
    }
    for number in [command::NEW_SERVICE, command::GET_INFO, command::FLUSH] {
        assert_eq!(form(DUMP, number), Err(Errno::OPNOTSUPP), "{number}");
    }
}

#[test]
fn a_peer_that_may_read_changes_nothing() {
    let outcome = |request: &[u8]| {
        let mut last = Vec::new();
        serve_as(Access::Read, request, &mut table(), &mut |bytes| last = bytes.to_vec());
        Messages(&last).next().and_then(|message| message.error()).flatten()
    };
    assert_eq!(outcome(&ipvs(REQUEST, command::GET_INFO, |_| {})), None);
    assert_eq!(outcome(&ipvs(DUMP, command::GET_SERVICE, |_| {})), None);
    for number in [command::NEW_SERVICE, command::FLUSH, command::ZERO, command::SET_CONFIG] {
        assert_eq!(outcome(&ipvs(REQUEST, number, |_| {})), Some(Errno::PERM), "{number}");
    }
    let family = conn::FAMILY_ID;
    assert_eq!(outcome(&request(family, DUMP, conn::GET_CONN, |_| {})), None);
    assert_eq!(outcome(&request(family, REQUEST, conn::SET_SETTING, |_| {})), Some(Errno::PERM));
}

#[test]
fn a_peer_without_rights_may_resolve_the_family_only() {
    let refused = |request: &[u8]| {
        let mut last = Vec::new();
        serve_as(Access::None, request, &mut table(), &mut |bytes| last = bytes.to_vec());
        Messages(&last).next().unwrap().error().unwrap()
    };
    assert_eq!(refused(&ipvs(REQUEST, command::GET_INFO, |_| {})), Some(Errno::PERM));
    assert_eq!(refused(&ipvs(DUMP, command::GET_SERVICE, |_| {})), Some(Errno::PERM));
    let connections = request(conn::FAMILY_ID, DUMP, conn::GET_CONN, |_| {});
    assert_eq!(refused(&connections), Some(Errno::PERM));
    let resolve = request(controller::ID, REQUEST, controller::GET_FAMILY, |w| {
        controller::write_request(w, "IPVS");
    });
    assert_eq!(refused(&resolve), None);
}

#[test]
fn a_short_integer_is_einval_in_a_nest_and_erange_outside() {
    let nested = ipvs(REQUEST, command::DEL_SERVICE, |w| {
        w.nest(top::SERVICE, |w| {
            w.u16(svc::AF, numbers::AF_INET);
            w.u8(svc::FWMARK, 1);
        });
    });
    assert_eq!(outcome(&mut table(), &nested), Err(Errno::INVAL));
    let outside = ipvs(REQUEST, command::SET_CONFIG, |w| w.u16(top::TIMEOUT_TCP, 1));
    assert_eq!(outcome(&mut table(), &outside), Err(Errno::RANGE));
    let unknown = ipvs(REQUEST, 18, |w| w.u16(top::TIMEOUT_TCP, 1));
    assert_eq!(outcome(&mut table(), &unknown), Err(Errno::OPNOTSUPP));
}

#[test]
fn one_bad_timeout_spoils_all_three() {
    let set = |udp| {
        ipvs(REQUEST, command::SET_CONFIG, |w| {
            w.u32(top::TIMEOUT_TCP, 100);
            w.u32(top::TIMEOUT_UDP, udp);
        })
    };
    let mut table = table();
    let tcp = |table: &mut SmallTable| ipvs_core::snapshot::Control::timeouts(table).tcp;
    assert_eq!(outcome(&mut table, &set(u32::MAX)), Err(Errno::INVAL));
    assert_eq!(outcome(&mut table, &set(numbers::MAX_TIMEOUT_SECS + 1)), Err(Errno::INVAL));
    assert_eq!(tcp(&mut table), 900);
    assert_eq!(outcome(&mut table, &set(numbers::MAX_TIMEOUT_SECS)), Ok(()));
    assert_eq!(tcp(&mut table), 100);
}

#[test]
fn the_family_of_a_service_is_judged_after_what_is_missing() {
    let service = |write: fn(&mut Writer)| {
        let request = ipvs(REQUEST, command::DEL_SERVICE, |w| w.nest(top::SERVICE, write));
        outcome(&mut table(), &request)
    };
    assert_eq!(service(|w| w.u16(svc::AF, 99)), Err(Errno::INVAL));
    assert_eq!(service(|w| w.u32(svc::FWMARK, 1)), Err(Errno::INVAL));
    let unknown = |w: &mut Writer| {
        w.u16(svc::AF, 99);
        w.u32(svc::FWMARK, 1);
    };
    assert_eq!(service(unknown), Err(Errno::AFNOSUPPORT));
    let none = ipvs(REQUEST, command::DEL_SERVICE, |_| {});
    assert_eq!(outcome(&mut table(), &none), Err(Errno::INVAL));
}

#[test]
fn a_new_service_needs_all_but_the_engine() {
    for missing in [svc::SCHED_NAME, svc::FLAGS, svc::TIMEOUT, svc::NETMASK] {
        let mut full = Writer::new();
        service::write_full(&mut full, &ServiceKey { port: 81, ..vip() }, &spec("rr"));
        let (_, nest) = Attrs(full.bytes()).next().unwrap();
        let request = ipvs(REQUEST, command::NEW_SERVICE, |w| {
            w.nest(top::SERVICE, |w| {
                for (number, payload) in Attrs(nest).filter(|(number, _)| *number != missing) {
                    w.attr(number, payload);
                }
            });
        });
        assert_eq!(outcome(&mut table(), &request), Err(Errno::INVAL), "{missing}");
    }
}

#[test]
fn an_existing_service_is_noticed_before_an_unknown_scheduler() {
    let add = |port, scheduler| {
        ipvs(REQUEST, command::NEW_SERVICE, |w| {
            service::write_full(w, &ServiceKey { port, ..vip() }, &spec(scheduler));
        })
    };
    assert_eq!(outcome(&mut table(), &add(80, "nosuch")), Err(Errno::EXIST));
    assert_eq!(outcome(&mut table(), &add(81, "nosuch")), Err(Errno::NOENT));
    assert_eq!(outcome(&mut table(), &add(81, "")), Err(Errno::NOENT));
}

#[test]
fn a_missing_service_is_noticed_before_its_destination() {
    let request = ipvs(REQUEST, command::NEW_DEST, |w| dest(w, &[dst::ADDR], |_| {}));
    assert_eq!(outcome(&mut SmallTable::default(), &request), Err(Errno::SRCH));
}

#[test]
fn a_destination_needs_all_but_family_and_tunnel() {
    check_dest(command::NEW_DEST, &[], |_| {}, Ok(()));
    for missing in
        [dst::ADDR, dst::PORT, dst::FWD_METHOD, dst::WEIGHT, dst::U_THRESH, dst::L_THRESH]
    {
        check_dest(command::NEW_DEST, &[missing], |_| {}, Err(Errno::INVAL));
    }
    let missing = [dst::FWD_METHOD, dst::WEIGHT];
    check_dest(command::DEL_DEST, &missing, |_| {}, Err(Errno::NOENT));
}

#[test]
fn a_destination_of_no_family_is_refused_after_what_is_missing() {
    let family = |number| move |w: &mut Writer| w.u16(dst::ADDR_FAMILY, number);
    check_dest(command::NEW_DEST, &[], family(99), Err(Errno::AFNOSUPPORT));
    check_dest(command::NEW_DEST, &[dst::WEIGHT], family(99), Err(Errno::INVAL));
    check_dest(command::DEL_DEST, &[], family(99), Err(Errno::AFNOSUPPORT));
    check_dest(command::NEW_DEST, &[], family(0), Ok(()));
    check_dest(command::NEW_DEST, &[], family(10), Err(Errno::INVAL));
    check_dest(command::DEL_DEST, &[], family(10), Err(Errno::NOENT));
}

#[test]
fn the_low_three_bits_of_the_method_count() {
    let mut table = table();
    let add = ipvs(REQUEST, command::NEW_DEST, |w| {
        dest(w, &[dst::FWD_METHOD], |w| w.u32(dst::FWD_METHOD, 0x1b));
    });
    assert_eq!(outcome(&mut table, &add), Ok(()));
    let mut method = None;
    let each = &mut |status: ipvs_core::snapshot::DestStatus| method = Some(status.spec.method);
    ipvs_core::snapshot::Control::dests(&mut table, &vip(), each);
    assert_eq!(method, Some(3));
}

#[test]
fn two_requests_in_a_datagram_are_both_answered() {
    let mut both = ipvs(REQUEST, command::FLUSH, |_| {});
    both.extend(ipvs(REQUEST, command::GET_CONFIG, |_| {}));
    assert_eq!(answer(&mut table(), &both).len(), 3);
}

/// Some request that makes sense, for a mutation to spoil.
fn good_request() -> impl Strategy<Value = Vec<u8>> {
    let number = 0..=18_u8;
    let family = prop_oneof![Just(numbers::FAMILY_ID), Just(conn::FAMILY_ID), Just(controller::ID)];
    let flags = prop_oneof![Just(REQUEST), Just(DUMP)];
    (number, family, flags).prop_map(|(number, family, flags)| {
        request(family, flags, number, |w| {
            service::write_full(w, &vip(), &spec("wlc"));
            w.nest(top::DEST, |w| {
                w.attr(dst::ADDR, &[10, 1, 0, 11]);
                w.be16(dst::PORT, 80);
                w.u32(dst::FWD_METHOD, 0);
                w.u32(dst::WEIGHT, 1);
                w.u32(dst::U_THRESH, 0);
                w.u32(dst::L_THRESH, 0);
            });
            w.nest(top::DAEMON, |w| w.u32(daemon::STATE, 1));
        })
    })
}

/// Every datagram of the answer is made of whole messages.
fn answers_are_whole(request: &[u8]) -> Result<(), TestCaseError> {
    for datagram in answer(&mut table(), request) {
        let len: usize =
            Messages(&datagram).map(|message| message.bytes.len().next_multiple_of(4)).sum();
        prop_assert_eq!(len, datagram.len());
    }
    Ok(())
}

proptest! {
    /// Random bytes get no answer or a whole one, and never a panic.
    #[test]
    fn random_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        answers_are_whole(&bytes)?;
    }

    /// So do requests with a few bytes changed and the end cut off.
    #[test]
    fn spoilt_requests_are_survived(
        mut bytes in good_request(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in any::<prop::sample::Index>(),
        is_cut: bool,
    ) {
        for (at, octet) in changes {
            let at = at.index(bytes.len());
            bytes[at] = octet;
        }
        if is_cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        answers_are_whole(&bytes)?;
    }
}
