//! The user-space plane at work, between real clients and real servers in
//! network namespaces, offloads as the kernel has them.
#![expect(clippy::tests_outside_test_module, reason = "an integration test is a test module")]
#![expect(clippy::unwrap_used, reason = "a step that fails, fails the test")]

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use ipvs_core::addr::Addr;
use ipvs_core::command::Command;
use ipvs_core::dest::{DestKey, DestSpec, ForwardingMethod};
use ipvs_core::service::{ServiceKey, ServiceSpec};
use ipvs_core::snapshot::{Control as _, ServiceStatus};
use ipvs_core::verdict::Reason;
use ipvs_lab::testing::isolated;
use ipvs_lab::{
    Fnv1a, HttpClient, Pattern, Plan, RealServer, Topology, UdpClient, VIP4, VIP6, udp_exchange,
};
use ipvs_plane::plane::Plane as _;
use ipvs_plane::store::Limits;
use ipvs_plane::user::{Options, Selection, StartError, UserPlane};

const PORT: u16 = 80;
const TIMEOUT: Duration = Duration::from_secs(5);
const TCP: u8 = 6;
const UDP: u8 = 17;
const VIPS: [IpAddr; 2] = [IpAddr::V4(VIP4), IpAddr::V6(VIP6)];
const METHODS: [ForwardingMethod; 3] =
    [ForwardingMethod::Masquerade, ForwardingMethod::DirectRoute, ForwardingMethod::Tunnel];

fn options() -> Options {
    let limits =
        Limits { services: 64, dests: 256, members: 512, blocks: 64, cached: 64, conns: 4096 };
    Options { limits, ..Options::default() }
}

fn start(lab: &Topology) -> UserPlane {
    lab.director().run(|| UserPlane::start(&options())).unwrap().unwrap()
}

/// A lab whose director's kernel does not have the virtual addresses, with
/// room for a tunnel's header behind the director.
fn lab(servers: usize) -> (Topology, Vec<RealServer>) {
    let plan = Plan { director_owns_vips: false, server_mtu: 1600, ..Plan::with_servers(servers) };
    let lab = plan.build().unwrap();
    let servers = lab.serve(PORT).unwrap();
    (lab, servers)
}

fn service(vip: IpAddr, protocol: u8) -> ServiceKey {
    let (family, addr) = Addr::from_ip(vip);
    ServiceKey::address(family, protocol, addr, PORT)
}

/// Adds a round-robin service for HTTP and one for UDP, with every server.
fn balance(plane: &mut UserPlane, vip: IpAddr, method: ForwardingMethod, servers: &[RealServer]) {
    for protocol in [TCP, UDP] {
        let key = service(vip, protocol);
        let spec = ServiceSpec {
            scheduler: "rr".into(),
            engine: "".into(),
            flags: 0,
            timeout: 0,
            netmask: if vip.is_ipv4() { [0xff; 4] } else { 128_u32.to_ne_bytes() },
        };
        let dests = servers.iter().map(|server| {
            let (family, addr) = Addr::from_ip(server.host.address(vip));
            let spec = DestSpec {
                weight: 1,
                upper: 0,
                lower: 0,
                tunnel_port: 0,
                tunnel_flags: 0,
                tunnel_type: 0,
                method: method as u8,
                reserved: [0; 2],
            };
            Command::AddDest(key, DestKey::new(family, addr, PORT), spec)
        });
        let commands: Vec<_> = [Command::AddService(key, spec)].into_iter().chain(dests).collect();
        plane.apply(&commands).unwrap();
    }
}

/// A service as it is shown once its statistics are made anew.
fn status(plane: &mut UserPlane, vip: IpAddr, protocol: u8) -> ServiceStatus {
    plane.shift_clock(Duration::from_secs(2));
    plane.tick();
    plane.service(&service(vip, protocol)).unwrap()
}

fn reason(plane: &mut UserPlane, wanted: Reason) -> u64 {
    plane.reasons().into_iter().find(|(it, _)| *it == wanted).map_or(0, |(_, count)| count)
}

#[test]
fn every_method_balances_http_and_udp_of_both_families() {
    isolated("every_method_balances_http_and_udp_of_both_families", || {
        let (lab, servers) = lab(2);
        let names: Vec<_> = servers.iter().map(|server| server.host.name().to_owned()).collect();
        let mut plane = start(&lab);
        for method in METHODS {
            for vip in VIPS {
                balance(&mut plane, vip, method, &servers);
                let to = SocketAddr::new(vip, PORT);
                let mut seen = Vec::new();
                for _ in 0..4 {
                    let answer = lab.client().run(|| HttpClient::new().get(to, TIMEOUT)).unwrap();
                    seen.push(answer.unwrap_or_else(|e| panic!("{method:?} {vip}: {e}")).server);
                }
                seen.sort();
                let twice = [&names[0], &names[0], &names[1], &names[1]];
                assert!(seen.iter().eq(twice), "{method:?} {vip}: {seen:?}");
                let mut seen = Vec::new();
                for _ in 0..4 {
                    let answer = lab.client().run(|| udp_exchange(to, b"ping", TIMEOUT)).unwrap();
                    seen.push(answer.unwrap_or_else(|e| panic!("{method:?} {vip}: {e}")).server);
                }
                seen.sort();
                assert!(seen.iter().eq(twice), "{method:?} {vip}: {seen:?}");
                assert_eq!(status(&mut plane, vip, TCP).counters.conns, 4);
                let udp = status(&mut plane, vip, UDP).counters;
                let replies = if method == ForwardingMethod::Masquerade { 4 } else { 0 };
                assert_eq!((udp.conns, udp.in_packets, udp.out_packets), (4, 4, replies));
                plane.apply(&[Command::Flush]).unwrap();
            }
        }
        assert_eq!(reason(&mut plane, Reason::Malformed), 0);
    });
}

/// Trains of segments and unfilled checksums, in both directions, through every method.
#[test]
fn large_bodies_arrive_whole_in_both_directions() {
    isolated("large_bodies_arrive_whole_in_both_directions", || {
        let (lab, servers) = lab(1);
        let mut plane = start(&lab);
        let body = Pattern::default().bytes(4_000_000);
        for method in METHODS {
            for vip in VIPS {
                balance(&mut plane, vip, method, &servers);
                let to = SocketAddr::new(vip, PORT);
                lab.client()
                    .run(|| {
                        let mut client = HttpClient::new().keep_alive();
                        let up = client.post("/sink", &body, to, TIMEOUT);
                        let up = up.unwrap_or_else(|e| panic!("{method:?} {vip} up: {e}"));
                        let expected = format!("{} {}\n", body.len(), Fnv1a::of(&body));
                        assert_eq!(String::from_utf8(up.body).unwrap(), expected);
                        let down = client.get_path("/bytes/4000000", to, TIMEOUT);
                        let down = down.unwrap_or_else(|e| panic!("{method:?} {vip} down: {e}"));
                        assert!(down.body == body);
                    })
                    .unwrap();
                plane.apply(&[Command::Flush]).unwrap();
            }
        }
        let ports = plane.ports();
        assert!(ports.iter().all(|port| port.counters.unreadable == 0), "{ports:?}");
    });
}

#[test]
fn a_packet_waits_for_its_neighbour_and_is_sent_once() {
    isolated("a_packet_waits_for_its_neighbour_and_is_sent_once", || {
        let (lab, servers) = lab(1);
        let mut plane = start(&lab);
        let vip = VIPS[0];
        balance(&mut plane, vip, ForwardingMethod::Masquerade, &servers);
        // Nobody has talked to the server yet: the first datagram finds no MAC address.
        let client = lab.client().run(|| UdpClient::connect((vip, PORT).into())).unwrap().unwrap();
        client.exchange(b"first", TIMEOUT).unwrap();
        let counters = status(&mut plane, vip, UDP).counters;
        assert_eq!((counters.in_packets, counters.out_packets), (1, 1));
        let report = plane.report().join("\n");
        assert!(!report.contains("dropped"), "{report}");
    });
}

#[test]
fn the_plane_answers_for_the_virtual_address_and_the_kernel_stays_silent() {
    isolated("the_plane_answers_for_the_virtual_address_and_the_kernel_stays_silent", || {
        let (lab, servers) = lab(1);
        let mut plane = start(&lab);
        for vip in VIPS {
            let to = SocketAddr::new(vip, PORT);
            let refused = lab.client().run(|| HttpClient::new().get(to, TIMEOUT / 10)).unwrap();
            assert!(refused.is_err(), "nobody has the address");
            balance(&mut plane, vip, ForwardingMethod::Masquerade, &servers);
            lab.client().run(|| HttpClient::new().get(to, TIMEOUT)).unwrap().unwrap();
        }
    });
}

#[test]
fn a_plane_that_is_told_so_does_not_answer_for_the_virtual_address() {
    isolated("a_plane_that_is_told_so_does_not_answer_for_the_virtual_address", || {
        let (lab, servers) = lab(1);
        let options = Options { answers_for_vips: false, ..options() };
        let plane = lab.director().run(|| UserPlane::start(&options)).unwrap();
        let mut plane = plane.unwrap();
        let vip = VIPS[0];
        balance(&mut plane, vip, ForwardingMethod::Masquerade, &servers);
        let to = SocketAddr::new(vip, PORT);
        let refused = lab.client().run(|| HttpClient::new().get(to, TIMEOUT / 10)).unwrap();
        assert!(refused.is_err(), "who told the client where the address is?");
        // A router that sends the packets here does not ask.
        let mac = lab.director_client_side().mac().unwrap();
        lab.client_link().add_neighbour(vip, mac).unwrap();
        lab.client().run(|| HttpClient::new().get(to, TIMEOUT)).unwrap().unwrap();
    });
}

#[test]
fn interfaces_that_come_later_become_ports() {
    isolated("interfaces_that_come_later_become_ports", || {
        let (lab, _servers) = lab(1);
        let plane = start(&lab);
        let before = plane.ports().len();
        let here = ipvs_lab::End::new(lab.director(), "late0");
        let there = ipvs_lab::End::new(lab.router(), "late1");
        let (late, _peer) = ipvs_lab::veth(here, there, None).unwrap();
        let deadline = Instant::now() + TIMEOUT;
        while plane.ports().len() == before {
            assert!(Instant::now() < deadline, "{:?}", plane.report());
            std::thread::yield_now();
        }
        late.remove().unwrap();
        while plane.ports().len() != before {
            assert!(Instant::now() < deadline, "{:?}", plane.report());
            std::thread::yield_now();
        }
    });
}

#[test]
fn connections_end_when_the_clock_is_moved() {
    isolated("connections_end_when_the_clock_is_moved", || {
        let (lab, servers) = lab(1);
        let mut plane = start(&lab);
        let vip = VIPS[0];
        balance(&mut plane, vip, ForwardingMethod::Masquerade, &servers);
        let to = SocketAddr::new(vip, PORT);
        lab.client().run(|| udp_exchange(to, b"ping", TIMEOUT)).unwrap().unwrap();
        let count = |plane: &mut UserPlane| {
            let mut count = 0;
            plane.connections(&mut |_| count += 1);
            count
        };
        assert_eq!(count(&mut plane), 1);
        plane.shift_clock(Duration::from_secs(299));
        assert_eq!(count(&mut plane), 1);
        plane.shift_clock(Duration::from_secs(2));
        assert_eq!(count(&mut plane), 0);
    });
}

#[test]
fn the_kernel_forwards_no_longer_and_again_afterwards() {
    isolated("the_kernel_forwards_no_longer_and_again_afterwards", || {
        let (lab, _servers) = lab(1);
        let switches = [
            "net/ipv4/conf/client0/forwarding",
            "net/ipv4/conf/server0/forwarding",
            "net/ipv6/conf/all/forwarding",
        ];
        let are = |value: &str| {
            switches.iter().all(|key| lab.director().read_sysctl(key).unwrap() == value)
        };
        assert!(are("1"));
        let plane = start(&lab);
        assert!(are("0"));
        let report = plane.report().join("\n");
        assert!(report.contains("client0 (veth): user-space"), "{report}");
        assert!(report.contains("lo (NIC): left out, it is a loopback interface"), "{report}");
        assert!(report.contains("ipv4/conf/client0/forwarding: turned off"), "{report}");
        drop(plane);
        assert!(are("1"));
    });
}

#[test]
fn an_interface_that_is_not_there_is_named() {
    isolated("an_interface_that_is_not_there_is_named", || {
        let lab = Plan::with_servers(0).build().unwrap();
        let ports = Selection::Named(vec!["eth9".to_owned()]);
        let options = Options { ports, ..options() };
        let refused = lab.director().run(|| UserPlane::start(&options)).unwrap();
        assert!(matches!(refused, Err(StartError::NoSuchInterface(name)) if name == "eth9"));
    });
}

#[test]
fn a_port_counts_what_it_has_dealt_with() {
    isolated("a_port_counts_what_it_has_dealt_with", || {
        let (lab, servers) = lab(1);
        let mut plane = start(&lab);
        balance(&mut plane, VIPS[0], ForwardingMethod::Masquerade, &servers);
        let to = SocketAddr::new(VIPS[0], PORT);
        let client = lab.client().run(|| UdpClient::connect(to)).unwrap().unwrap();
        client.exchange(b"warm", TIMEOUT).unwrap();
        let before = plane.frames_seen(Topology::DIRECTOR_SERVER_SIDE);
        for _ in 0..10 {
            client.exchange(b"ping", TIMEOUT).unwrap();
        }
        assert!(plane.frames_seen(Topology::DIRECTOR_SERVER_SIDE) >= before + 10);
        assert_eq!(plane.frames_seen("none"), 0);
    });
}
