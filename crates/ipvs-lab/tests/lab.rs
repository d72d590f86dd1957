//! The lab carries traffic, by every way that a director will use, and leaves nothing behind.
#![expect(clippy::tests_outside_test_module, reason = "an integration test is a test module")]

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use ipvs_lab::{
    End, Fnv1a, HttpClient, MacAddr, Namespace, Offload, Pattern, Plan, Seen, UdpClient, VIP4,
    VIP6, testing::isolated, udp_exchange, veth,
};

const TIMEOUT: Duration = Duration::from_secs(5);
const PORT: u16 = 80;

#[test]
fn a_client_reaches_every_real_server_by_http_and_udp() {
    isolated("a_client_reaches_every_real_server_by_http_and_udp", || {
        let lab = Plan::with_servers(2).build().unwrap();
        let servers = lab.serve(PORT).unwrap();
        for server in &servers {
            for address in [server.host.v4(), server.host.v6()] {
                let to = SocketAddr::new(address, PORT);
                let answer =
                    lab.client().run(|| HttpClient::new().get(to, TIMEOUT)).unwrap().unwrap();
                assert_eq!((answer.status, answer.server.as_str()), (200, server.host.name()));
                assert_eq!(answer.local.ip(), lab.client_address(address));
                assert_eq!(answer.seen, Some(Seen { client: answer.local, at: to }));
                let answer = lab.client().run(|| udp_exchange(to, b"ping", TIMEOUT)).unwrap();
                let answer = answer.unwrap();
                assert_eq!(answer.server, server.host.name());
                let client = SocketAddr::new(lab.client_address(address), answer.local.port());
                assert_eq!(answer.seen, Seen { client, at: to });
            }
            assert_eq!((server.http.requests(), server.udp.datagrams()), (2, 2));
        }
    });
}

/// The client's way to a real server by its router, with the VIP as destination, is that of
/// direct routing: nobody rewrites, and the answer must not pass the director.
#[test]
fn a_real_server_answers_for_the_vip_past_the_director() {
    isolated("a_real_server_answers_for_the_vip_past_the_director", || {
        let plan = Plan { director_owns_vips: false, ..Plan::with_servers(1) };
        let lab = plan.build().unwrap();
        let servers = lab.serve(PORT).unwrap();
        let host = &servers[0].host;
        for vip in [IpAddr::from(VIP4), VIP6.into()] {
            // In place of a director: the VIP is behind the router, the router knows the server.
            let router = "192.0.2.254".parse::<IpAddr>().unwrap();
            let router = if vip.is_ipv4() { router } else { "2001:db8:c::fe".parse().unwrap() };
            let via = |gateway| ipvs_lab::Route::via(vip.into(), gateway);
            lab.client().add_route(via(router)).unwrap();
            lab.router().add_route(via(host.address(vip))).unwrap();
            let to = SocketAddr::new(vip, PORT);
            // A dead director proves that the answers go another way.
            lab.director_client_side().down().unwrap();
            let answer = lab.client().run(|| HttpClient::new().get(to, TIMEOUT)).unwrap();
            let answer = answer.unwrap();
            assert_eq!((answer.server.as_str(), answer.seen.unwrap().at), (host.name(), to));
            let answer = lab.client().run(|| udp_exchange(to, b"ping", TIMEOUT)).unwrap().unwrap();
            assert_eq!((answer.server.as_str(), answer.seen.at), (host.name(), to));
        }
    });
}

#[test]
fn bodies_arrive_whole_in_both_directions() {
    isolated("bodies_arrive_whole_in_both_directions", || {
        let lab = Plan::with_servers(1).build().unwrap();
        let servers = lab.serve(PORT).unwrap();
        let to = SocketAddr::new(servers[0].host.v4(), PORT);
        let body = Pattern::default().bytes(1_000_000);
        lab.client()
            .run(|| {
                let mut client = HttpClient::new().keep_alive();
                let down = client.get_path("/bytes/1000000", to, TIMEOUT).unwrap();
                assert!(down.body == body);
                let up = client.post("/sink", &body, to, TIMEOUT).unwrap();
                let expected = format!("{} {}\n", body.len(), Fnv1a::of(&body));
                assert_eq!(String::from_utf8(up.body).unwrap(), expected);
                assert_eq!(up.local, down.local, "the connection is kept");
                assert_eq!(client.get_path("/none", to, TIMEOUT).unwrap().status, 404);
            })
            .unwrap();
        assert_eq!((servers[0].http.connections(), servers[0].http.requests()), (1, 3));
    });
}

#[test]
fn frames_are_as_on_a_wire_without_offloads() {
    isolated("frames_are_as_on_a_wire_without_offloads", || {
        let lab = Plan::with_servers(1).build().unwrap();
        lab.disable_offloads().unwrap();
        let servers = lab.serve(PORT).unwrap();
        let to = SocketAddr::new(servers[0].host.v4(), PORT);
        let get = || HttpClient::new().get_path("/bytes/1000000", to, TIMEOUT);
        assert_eq!(lab.client().run(get).unwrap().unwrap().body.len(), 1_000_000);
        let packets = packets_received(lab.client(), "eth0");
        // 1448 octets of data fit into a segment.
        assert!(packets >= 1_000_000 / 1448, "only {packets} packets came");
    });
}

/// The second number behind an interface's name in `/proc/net/dev`.
fn packets_received(namespace: &Namespace, link: &str) -> u64 {
    let table = namespace.run(|| fs::read_to_string("/proc/thread-self/net/dev"));
    let numbers = table.ok().and_then(Result::ok).and_then(|table| {
        let line = table.lines().find_map(|line| line.trim().strip_prefix(&format!("{link}:")))?;
        line.split_whitespace().nth(1)?.parse().ok()
    });
    numbers.unwrap_or_default()
}

#[test]
fn a_stopped_server_refuses_and_a_started_one_serves_again() {
    isolated("a_stopped_server_refuses_and_a_started_one_serves_again", || {
        let lab = Plan::with_servers(1).build().unwrap();
        let host = &lab.servers()[0];
        let to = SocketAddr::new(host.v4(), PORT);
        let server = host.serve(PORT).unwrap();
        let mut client = HttpClient::new().keep_alive();
        lab.client().run(|| client.get(to, TIMEOUT).unwrap()).unwrap();
        drop(server); // with an open connection
        assert!(lab.client().run(|| client.get(to, TIMEOUT)).unwrap().is_err());
        let _server = host.serve(PORT).unwrap();
        lab.client().run(|| client.get(to, TIMEOUT).unwrap()).unwrap();
    });
}

#[test]
fn a_dropped_namespace_takes_its_links_along() {
    isolated("a_dropped_namespace_takes_its_links_along", || {
        let (kept, dropped) = (Namespace::new("kept").unwrap(), Namespace::new("dropped").unwrap());
        assert_ne!(kept.id().unwrap(), dropped.id().unwrap());
        veth(End::new(&kept, "here"), End::new(&dropped, "there"), None).unwrap();
        kept.link("here").unwrap();
        drop(dropped);
        // The kernel takes a namespace down in the background.
        let deadline = Instant::now() + TIMEOUT;
        while kept.link("here").is_ok() {
            assert!(Instant::now() < deadline, "the other end of the pair still lives");
            std::thread::yield_now();
        }
    });
}

#[test]
fn a_child_process_is_inside_and_dies_with_its_guard() {
    isolated("a_child_process_is_inside_and_dies_with_its_guard", || {
        let namespace = Namespace::new("inside").unwrap();
        let mut command = namespace.command("sleep").unwrap();
        command.arg("60");
        let guard = namespace.spawn_child(command).unwrap();
        let process = format!("/proc/{}", guard.id());
        let inside = fs::read_link(format!("{process}/ns/net")).unwrap();
        assert_eq!(inside.to_str(), Some(format!("net:[{}]", namespace.id().unwrap()).as_str()));
        drop(guard);
        assert!(!fs::exists(process).unwrap());
    });
}

#[test]
fn links_have_what_they_were_given() {
    isolated("links_have_what_they_were_given", || {
        let (one, other) = (Namespace::new("one").unwrap(), Namespace::new("other").unwrap());
        let mac = MacAddr::local(7, 7);
        let (link, _peer) =
            veth(End::new(&one, "one").mac(mac), End::new(&other, "other"), Some(9000)).unwrap();
        link.wait_until_running(TIMEOUT).unwrap();
        assert_eq!(link.mac().unwrap(), mac);
        let mtu = one.run(|| fs::read_to_string("/proc/sys/net/ipv6/conf/one/mtu"));
        assert_eq!(mtu.unwrap().unwrap(), "9000\n");
        assert!(link.offload(Offload::TcpSegmentation).unwrap());
        link.disable_offloads().unwrap();
        for offload in Offload::ALL {
            assert!(!link.offload(offload).unwrap(), "{offload}");
        }
        link.set_offload(Offload::GenericReceive, true).unwrap();
        assert!(link.offload(Offload::GenericReceive).unwrap());
        assert!(one.link("none").is_err());
        link.down().unwrap();
        assert!(link.wait_until_running(Duration::ZERO).is_err());
    });
}

#[test]
fn a_udp_client_keeps_its_port() {
    isolated("a_udp_client_keeps_its_port", || {
        let lab = Plan::with_servers(1).build().unwrap();
        let servers = lab.serve(PORT).unwrap();
        let to = SocketAddr::new(servers[0].host.v6(), PORT);
        let client = lab.client().run(|| UdpClient::connect(to)).unwrap().unwrap();
        let first = client.exchange(b"first", TIMEOUT).unwrap();
        let second = client.exchange(b"", TIMEOUT).unwrap();
        assert_eq!(first.local, second.local);
    });
}
