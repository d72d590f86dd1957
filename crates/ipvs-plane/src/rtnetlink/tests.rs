//! The host's own network is asked; nothing in it is changed.

use super::*;
use ipvs_core::addr::Addr;
use ipvs_core::hop::RouteQuery;

fn query(family: Family, destination: Addr) -> RouteQuery {
    RouteQuery { family, destination, source: Addr::UNSPECIFIED }
}

#[test]
fn the_loopback_interface_is_listed_with_what_it_is() {
    let links = Rtnetlink::open().unwrap().links().unwrap();
    let lo = links.iter().find(|link| link.name == "lo").unwrap();
    assert!(lo.loopback && lo.index != 0 && lo.mtu != 0);
    assert!(!lo.carries_frames());
}

#[test]
fn the_hosts_own_address_is_a_local_route() {
    let mut asker = Rtnetlink::open().unwrap();
    let own = Addr::v4([127, 0, 0, 1]);
    if asker.addresses().unwrap().iter().any(|address| address.addr == own) {
        assert_eq!(asker.route(&query(Family::V4, own)).unwrap(), FoundRoute::Local);
    }
}

#[test]
fn a_source_that_is_not_the_hosts_leads_nowhere() {
    let mut asker = Rtnetlink::open().unwrap();
    let foreign = RouteQuery {
        source: Addr::v4([203, 0, 113, 77]),
        ..query(Family::V4, Addr::v4([198, 51, 100, 1]))
    };
    assert_eq!(asker.route(&foreign).unwrap(), FoundRoute::Unreachable);
}

#[test]
fn an_unknown_neighbour_is_none() {
    let mut asker = Rtnetlink::open().unwrap();
    let lo = asker.links().unwrap().iter().find(|link| link.loopback).unwrap().index;
    let found = asker.neighbour(lo, Family::V4, Addr::v4([198, 51, 100, 7])).unwrap();
    assert_eq!(found, None);
}

#[test]
fn a_prefix_covers_its_addresses_to_the_bit() {
    let v4 = |addr, prefix_len| Address { index: 1, family: Family::V4, addr, prefix_len };
    let net = v4(Addr::v4([10, 1, 0, 1]), 23);
    assert!(net.covers(Family::V4, Addr::v4([10, 1, 1, 255])));
    assert!(!net.covers(Family::V4, Addr::v4([10, 1, 2, 0])));
    assert!(!net.covers(Family::V6, Addr::v4([10, 1, 0, 2])));
    let host = v4(Addr::v4([10, 1, 0, 1]), 32);
    assert!(host.covers(Family::V4, Addr::v4([10, 1, 0, 1])));
    assert!(!host.covers(Family::V4, Addr::v4([10, 1, 0, 0])));
    assert!(v4(Addr::v4([10, 1, 0, 1]), 0).covers(Family::V4, Addr::v4([192, 0, 2, 1])));
}
