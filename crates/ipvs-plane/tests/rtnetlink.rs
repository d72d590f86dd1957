//! What the host says of its network, in a network that is known.
#![expect(clippy::tests_outside_test_module, reason = "an integration test is a test module")]
#![expect(clippy::unwrap_used, reason = "a step that fails, fails the test")]

use std::net::IpAddr;
use std::time::{Duration, Instant};

use ipvs_core::addr::Addr;
use ipvs_core::hop::RouteQuery;
use ipvs_lab::testing::isolated;
use ipvs_lab::{Plan, Topology, VIP4};
use ipvs_plane::rtnetlink::{FoundRoute, Monitor, NeighbourState, Rtnetlink};

const TIMEOUT: Duration = Duration::from_secs(5);

fn query(to: IpAddr) -> RouteQuery {
    let (family, destination) = Addr::from_ip(to);
    RouteQuery { family, destination, source: Addr::UNSPECIFIED }
}

/// A lab, and a socket in its director's namespace.
fn lab(plan: &Plan) -> (Topology, Rtnetlink) {
    let lab = plan.build().unwrap();
    let asker = lab.director().run(Rtnetlink::open).unwrap().unwrap();
    (lab, asker)
}

#[test]
fn links_addresses_and_routes_are_as_they_were_made() {
    isolated("links_addresses_and_routes_are_as_they_were_made", || {
        let (lab, mut asker) = lab(&Plan { server_mtu: 1600, ..Plan::with_servers(1) });
        let side = lab.director_server_side();
        let links = asker.links().unwrap();
        let link = links.iter().find(|link| link.name == side.name()).unwrap();
        assert_eq!((link.index, link.mtu, link.kind.as_str()), (side.index(), 1600, "veth"));
        assert_eq!(link.mac, Some(side.mac().unwrap().0));
        assert!(link.up && link.carries_frames() && !link.has_xdp);
        for server in [lab.servers()[0].v4(), lab.servers()[0].v6()] {
            let own = lab.director_address(ipvs_lab::Segment::Server, server);
            let (family, own) = Addr::from_ip(own);
            let addresses = asker.addresses().unwrap();
            assert!(addresses.iter().any(|it| it.index == link.index && it.addr == own));
            let expected = FoundRoute::Unicast {
                ifindex: link.index,
                gateway: None,
                source: Some(own),
                mtu: None,
            };
            assert_eq!(asker.route(&query(server)).unwrap(), expected, "{family:?}");
        }
        assert_eq!(asker.route(&query(VIP4.into())).unwrap(), FoundRoute::Local);
        let nowhere = "203.0.113.1".parse().unwrap();
        assert_eq!(asker.route(&query(nowhere)).unwrap(), FoundRoute::Unreachable);
        let router = "192.0.2.254".parse().unwrap();
        lab.director().add_route(ipvs_lab::Route::default_via(router)).unwrap();
        let FoundRoute::Unicast { ifindex, gateway, .. } = asker.route(&query(nowhere)).unwrap()
        else {
            panic!("there is a default route now")
        };
        assert_eq!(ifindex, lab.director_client_side().index());
        assert_eq!(gateway, Some(Addr::from_ip(router)));
    });
}

#[test]
fn many_questions_at_once_have_the_answers_of_each() {
    isolated("many_questions_at_once_have_the_answers_of_each", || {
        let (lab, mut asker) = lab(&Plan::with_servers(1));
        // One of each kind, again and again: more than fit into one datagram.
        let some: [IpAddr; 5] = [
            lab.servers()[0].v4(),
            lab.servers()[0].v6(),
            VIP4.into(),
            "203.0.113.1".parse().unwrap(),
            "10.1.0.255".parse().unwrap(),
        ];
        let queries: Vec<RouteQuery> = some.into_iter().map(query).cycle().take(203).collect();
        let found = asker.routes(&queries).unwrap();
        assert_eq!(found.len(), queries.len());
        for (query, found) in queries.iter().zip(found) {
            assert_eq!(found.unwrap(), asker.route(query).unwrap(), "{query:?}");
        }
        assert_eq!(asker.route(&query(some[4])).unwrap(), FoundRoute::Group);
        assert!(asker.routes(&[]).unwrap().is_empty());
    });
}

#[test]
fn a_neighbour_is_found_out_and_the_monitor_says_so() {
    isolated("a_neighbour_is_found_out_and_the_monitor_says_so", || {
        let (lab, mut asker) = lab(&Plan::with_servers(2));
        let mut monitor = lab.director().run(Monitor::open).unwrap().unwrap();
        let ifindex = lab.director_server_side().index();
        for (server, manage) in lab.servers().iter().zip([false, true]) {
            for address in [server.v4(), server.v6()] {
                let (family, addr) = Addr::from_ip(address);
                if manage {
                    asker.manage_neighbour(ifindex, family, addr).unwrap();
                } else {
                    assert_eq!(asker.neighbour(ifindex, family, addr).unwrap(), None);
                    asker.use_neighbour(ifindex, family, addr).unwrap();
                }
                let mac = Some(server.link().mac().unwrap().0);
                let deadline = Instant::now() + TIMEOUT;
                let heard = loop {
                    assert!(Instant::now() < deadline, "no news of {address}");
                    let news = monitor.drain().unwrap().neighbours;
                    let mut news = news.into_iter().filter(|it| it.addr == addr);
                    if let Some(heard) = news.rfind(|it| it.usable().is_some()) {
                        break heard;
                    }
                    std::thread::yield_now();
                };
                assert_eq!((heard.ifindex, heard.family, heard.mac), (ifindex, family, mac));
                let asked = asker.neighbour(ifindex, family, addr).unwrap().unwrap();
                assert_eq!((asked.usable(), asked.state), (mac, NeighbourState::Valid));
                assert_eq!(asked.managed, manage);
                asker.release_neighbour(ifindex, family, addr).unwrap();
                let released = asker.neighbour(ifindex, family, addr).unwrap().unwrap();
                assert_eq!((released.usable(), released.managed), (mac, false));
            }
        }
    });
}

#[test]
fn the_monitor_tells_what_kind_of_thing_has_changed() {
    isolated("the_monitor_tells_what_kind_of_thing_has_changed", || {
        let (lab, _asker) = lab(&Plan::with_servers(0));
        let mut monitor = lab.director().run(Monitor::open).unwrap().unwrap();
        // The kernel tells before it acknowledges, so all news are there after each step.
        let mut news = || {
            let changes = monitor.drain().unwrap();
            (changes.links, changes.addresses, changes.routes)
        };
        news();
        let side = lab.director_client_side();
        side.add_address("198.51.100.1/32".parse().unwrap()).unwrap();
        let (_, addresses, routes) = news();
        assert!(addresses && routes, "an address, and the local route to it");
        let elsewhere = "203.0.113.0/24".parse().unwrap();
        let route = ipvs_lab::Route::via(elsewhere, "192.0.2.254".parse().unwrap());
        lab.director().add_route(route).unwrap();
        let (_, addresses, routes) = news();
        assert!(!addresses && routes);
        side.set_mtu(1400).unwrap();
        let (links, addresses, _) = news();
        assert!(links && !addresses);
    });
}
