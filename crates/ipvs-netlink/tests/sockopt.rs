//! The old interface: what a program puts in by its options comes out by them, and by
//! netlink.

#![expect(clippy::tests_outside_test_module, reason = "the whole file is a test module")]

mod support;

use ipvs_netlink::client::LocalTransport;
use ipvs_netlink::sockopt::{get, set};
use ipvs_netlink::{Client, ClientError, Errno};
use support::SmallTable;

/// A service 192.0.2.10:80, wrr, persistent for a minute.
fn service() -> Vec<u8> {
    let mut octets = Vec::new();
    octets.extend(6_u16.to_ne_bytes());
    octets.extend([0, 0, 192, 0, 2, 10, 0, 80, 0, 0]);
    octets.extend(0_u32.to_ne_bytes());
    octets.extend(b"wrr\0\0\0\0\0\0\0\0\0\0\0\0\0");
    octets.extend([1_u32, 60].iter().flat_map(|word| word.to_ne_bytes()));
    octets.extend([255; 4]);
    octets
}

/// Its destination 10.1.0.11:8080, by direct routing, weight 7, at most 9 connections.
fn dest() -> Vec<u8> {
    let mut octets = vec![10, 1, 0, 11, 0x1f, 0x90, 0, 0];
    octets.extend([3_u32, 7, 9, 2].iter().flat_map(|word| word.to_ne_bytes()));
    octets
}

fn word(octets: &[u8], at: usize) -> u32 {
    let word = octets.get(at..).and_then(|rest| rest.first_chunk());
    u32::from_ne_bytes(*word.expect("a word"))
}

fn refused(error: &ClientError) -> Option<Errno> {
    if let ClientError::Refused(errno) = error { Some(*errno) } else { None }
}

#[test]
fn a_service_and_its_destination_are_read_as_they_were_set() {
    let mut table = SmallTable::default();
    let mut client = Client::new(LocalTransport::new(&mut table)).unwrap();
    set(&mut client, 1154, &service()).unwrap();
    set(&mut client, 1159, &[service(), dest()].concat()).unwrap();

    let mut info = [0; 12];
    assert_eq!(get(&mut client, 1153, &mut info).unwrap(), 12);
    assert_eq!((word(&info, 0), word(&info, 8)), (0x01_02_01, 1));

    let mut services = vec![0; 8 + 104];
    services[0] = 1;
    assert_eq!(get(&mut client, 1154, &mut services).unwrap(), services.len());
    assert_eq!(services[8..52], service());
    assert_eq!(word(&services, 8 + 44), 1, "destinations");

    let mut dests = vec![0; 24 + 96];
    dests[..16].copy_from_slice(&service()[..16]);
    dests[16] = 1;
    assert_eq!(get(&mut client, 1156, &mut dests).unwrap(), dests.len());
    assert_eq!(dests[24..48], dest());

    let key = client.services().unwrap()[0].key;
    assert_eq!(client.dests(&key).unwrap()[0].spec.weight, 7);
    set(&mut client, 1157, &[]).unwrap();
    assert!(client.services().unwrap().is_empty());
}

#[test]
fn what_is_asked_wrongly_is_refused_as_by_a_kernel() {
    let mut table = SmallTable::default();
    let mut client = Client::new(LocalTransport::new(&mut table)).unwrap();
    let mut refusal = |option, value: &[u8]| refused(&set(&mut client, option, value).unwrap_err());
    assert_eq!(refusal(1154, &service()[1..]), Some(Errno::INVAL));
    assert_eq!(refusal(1158, &[]), Some(Errno::INVAL));
    assert_eq!(refusal(1156, &service()), Some(Errno::SRCH));
    let mut other = service();
    other[0] = 1;
    assert_eq!(refusal(1154, &other), Some(Errno::FAULT));
    let mut short = vec![0; 8];
    short[0] = 1;
    assert_eq!(refused(&get(&mut client, 1154, &mut short).unwrap_err()), Some(Errno::INVAL));
}

#[test]
fn timeouts_and_daemons_have_their_options_too() {
    let mut table = SmallTable::default();
    let mut client = Client::new(LocalTransport::new(&mut table)).unwrap();
    let timeouts: Vec<u8> = [100_u32, 0, 30].iter().flat_map(|it| it.to_ne_bytes()).collect();
    set(&mut client, 1162, &timeouts).unwrap();
    let mut now = [0; 12];
    get(&mut client, 1158, &mut now).unwrap();
    assert_eq!((word(&now, 0), word(&now, 4), word(&now, 8)), (100, 120, 30));

    let mut daemon = Vec::from(2_u32.to_ne_bytes());
    daemon.extend(b"c0\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
    daemon.extend(5_u32.to_ne_bytes());
    set(&mut client, 1163, &daemon).unwrap();
    let mut daemons = [9; 48];
    assert_eq!(get(&mut client, 1159, &mut daemons).unwrap(), 48);
    assert_eq!((&daemons[..24], &daemons[24..]), (&daemon[..], &[0; 24][..]));
    set(&mut client, 1164, &daemon).unwrap();
    assert_eq!(refused(&set(&mut client, 1164, &daemon).unwrap_err()), Some(Errno::SRCH));
}
