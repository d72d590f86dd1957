//! Proves the decapsulator with a tunnelling director small enough to be seen through.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr},
    sync::atomic::AtomicBool,
    time::Duration,
};

use super::*;
use crate::{
    Fnv1a, HttpClient, MacAddr, Offload, Pattern, Plan, RealServer, Topology, UdpClient, VIP4,
    VIP6, testing::isolated,
};

const TIMEOUT: Duration = Duration::from_secs(5);
const PORT: u16 = 80;
const VNET_LEN: usize = 10;
const ETHERNET_LEN: usize = 14;

/// A lab with one real server and a director without a kernel's opinion on the VIP: what comes
/// for it is for the test's tunnel alone.
fn lab() -> (Topology, RealServer) {
    let plan = Plan { director_owns_vips: false, server_mtu: 1600, ..Plan::with_servers(1) };
    let lab = plan.build().unwrap();
    lab.director().sysctl("net/ipv4/ip_forward", "0").unwrap();
    lab.director().sysctl("net/ipv6/conf/all/forwarding", "0").unwrap();
    let director = lab.director_client_side().mac().unwrap();
    for vip in [IpAddr::from(VIP4), VIP6.into()] {
        lab.client_link().add_neighbour(vip, director).unwrap();
    }
    let server = lab.servers()[0].serve(PORT).unwrap();
    (lab, server)
}

/// What a tunnel does with a frame.
type Send<'a> = Box<dyn Fn(&[u8]) + Sync + 'a>;

/// Puts every IP packet for the VIP that comes to the director into a packet for `dest`.
struct Tunnel<'a> {
    receiver: Socket,
    send: Send<'a>,
    macs: [MacAddr; 2],
    addresses: [IpAddr; 2],
    /// The longest packet in octets that went through.
    longest: AtomicU64,
    done: AtomicBool,
}

impl Tunnel<'_> {
    fn new(lab: &Topology, dest: IpAddr) -> Self {
        let (from, to) = (lab.director_client_side(), lab.director_server_side());
        let sender = lab.director().run(|| open_sender(to.index())).unwrap().unwrap();
        Self {
            receiver: lab.director().run(|| open_client_side(from.index())).unwrap(),
            send: Box::new(move |frame| (&sender).write_all(frame).unwrap()),
            macs: [lab.servers()[0].link().mac().unwrap(), to.mac().unwrap()],
            addresses: [lab.director_address(crate::Segment::Server, dest), dest],
            longest: AtomicU64::new(0),
            done: AtomicBool::new(false),
        }
    }

    /// Tunnels on a thread while `work` runs.
    fn while_tunnelling<T>(&self, work: impl FnOnce() -> T) -> T {
        struct Done<'a>(&'a AtomicBool);
        impl Drop for Done<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        thread::scope(|scope| {
            let _done = Done(&self.done);
            scope.spawn(|| {
                let mut frame = vec![0; FRAME_LEN];
                while !self.done.load(Ordering::Relaxed) {
                    // The read times out now and then, to look at `done`.
                    if let Ok(length) = (&self.receiver).read(&mut frame) {
                        self.forward(&frame[..length]);
                    }
                }
            });
            work()
        })
    }

    fn forward(&self, frame: &[u8]) {
        let (vnet, frame) = frame.split_at(VNET_LEN);
        let (ethernet, packet) = frame.split_at(ETHERNET_LEN);
        let protocol = match ethernet[12..] {
            [0x08, 0x00] => outer::IPIP,
            [0x86, 0xdd] if packet[6] != 58 => outer::IPV6, // but no neighbour discovery
            _ => return,
        };
        let (ethertype, header) = self.outer_header(protocol, packet.len());
        let mut vnet = vnet.to_vec();
        let shift = u16::try_from(header.len()).unwrap();
        for at in [2, 6] {
            // hdr_len and csum_start
            let value = u16::from_ne_bytes([vnet[at], vnet[at + 1]]);
            if value != 0 {
                vnet[at..at + 2].copy_from_slice(&(value + shift).to_ne_bytes());
            }
        }
        let [to, from] = self.macs;
        let sent = [&vnet[..], &to.0, &from.0, &ethertype, &header, packet].concat();
        (self.send)(&sent);
        self.longest.fetch_max(packet.len() as u64, Ordering::Relaxed);
    }

    fn outer_header(&self, protocol: u8, len: usize) -> ([u8; 2], Vec<u8>) {
        match self.addresses {
            [IpAddr::V4(from), IpAddr::V4(to)] => {
                let len = u16::try_from(20 + len).unwrap().to_be_bytes();
                let mut header = vec![0x45, 0, len[0], len[1], 0, 0, 0x40, 0, 64, protocol, 0, 0];
                header.extend_from_slice(&[from.octets(), to.octets()].concat());
                let sum: u32 =
                    header.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
                let sum = u16::try_from(sum % 0xffff).unwrap();
                header[10..12].copy_from_slice(&(!sum).to_be_bytes());
                ([0x08, 0x00], header)
            }
            [IpAddr::V6(from), IpAddr::V6(to)] => {
                let len = u16::try_from(len).unwrap().to_be_bytes();
                let mut header = vec![0x60, 0, 0, 0, len[0], len[1], protocol, 64];
                header.extend_from_slice(&[from.octets(), to.octets()].concat());
                ([0x86, 0xdd], header)
            }
            _ => panic!("outer addresses of two families"),
        }
    }
}

/// A packet socket for frames to this host with their virtio-net headers.
fn open_client_side(index: u32) -> Socket {
    let socket = Socket::new(Domain::PACKET, Type::RAW, None).unwrap();
    sys::set_vnet_header(&socket).unwrap();
    let to_this_host = [
        instruction(LOAD_WORD, 0, 0, PACKET_TYPE),
        instruction(JUMP_IF_EQUAL, 0, 1, 0),
        instruction(RETURN, 0, 0, u32::MAX),
        instruction(RETURN, 0, 0, 0),
    ];
    sys::attach_filter(&socket, &to_this_host).unwrap();
    sys::raise_receive_buffer(&socket, 16 << 20).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    sys::bind_packet_socket(&socket, index, libc::ETH_P_ALL).unwrap();
    socket
}

/// How many ICMP errors about an unknown protocol the namespace has sent.
fn protocol_errors(namespace: &Namespace) -> u64 {
    let read = |path| namespace.run(|| fs::read_to_string(path)).unwrap().unwrap();
    let (v4, v6) = (read("/proc/thread-self/net/snmp"), read("/proc/thread-self/net/snmp6"));
    let mut icmp = v4.lines().filter(|line| line.starts_with("Icmp:"));
    let (names, values) = (icmp.next().unwrap(), icmp.next().unwrap());
    let column = names.split_whitespace().position(|name| name == "OutDestUnreachs").unwrap();
    let unreachable: u64 = values.split_whitespace().nth(column).unwrap().parse().unwrap();
    let problems = v6.lines().find(|line| line.starts_with("Icmp6OutParmProblems")).unwrap();
    unreachable + problems.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
}

/// Asks and sends what a client would, and checks every answer.
fn exchange(lab: &Topology, vip: IpAddr) {
    let to = SocketAddr::new(vip, PORT);
    let body = Pattern::default().bytes(400_000);
    lab.client()
        .run(|| {
            let udp = UdpClient::connect(to).unwrap();
            assert_eq!(udp.exchange(b"ping", TIMEOUT).unwrap().server, "rs1");
            let mut http = HttpClient::new();
            assert_eq!(http.get(to, TIMEOUT).unwrap().server, "rs1");
            let answer = http.post("/sink", &body, to, TIMEOUT).unwrap();
            let expected = format!("{} {}\n", body.len(), Fnv1a::of(&body));
            assert_eq!(String::from_utf8(answer.body).unwrap(), expected);
        })
        .unwrap();
}

fn assert_all_unpacked(stats: DecapsulatorStats) {
    assert!(stats.unpacked > 0);
    assert_eq!(stats, DecapsulatorStats { unpacked: stats.unpacked, ..Default::default() });
}

/// Tunnels over the wire, by packets that fit it: a packet socket cannot send a large segment
/// inside a tunnel (the kernel would have to cut it to verify it, and cannot).
fn check(vip: impl Into<IpAddr>, dest: impl Fn(&RealServer) -> IpAddr) {
    let (lab, server) = lab();
    for offload in [Offload::TcpSegmentation, Offload::GenericSegmentation] {
        lab.client_link().set_offload(offload, false).unwrap();
    }
    let tunnel = Tunnel::new(&lab, dest(&server));
    tunnel.while_tunnelling(|| exchange(&lab, vip.into()));
    assert_all_unpacked(server.decapsulator.stats());
    assert_eq!(protocol_errors(server.host.namespace()), 0);
}

#[test]
fn ipv4_in_ipv4_is_unpacked() {
    isolated("decap::tests::ipv4_in_ipv4_is_unpacked", || check(VIP4, RealServer::v4));
}

#[test]
fn ipv6_in_ipv4_is_unpacked() {
    isolated("decap::tests::ipv6_in_ipv4_is_unpacked", || check(VIP6, RealServer::v4));
}

#[test]
fn ipv4_in_ipv6_is_unpacked() {
    isolated("decap::tests::ipv4_in_ipv6_is_unpacked", || check(VIP4, RealServer::v6));
}

#[test]
fn ipv6_in_ipv6_is_unpacked() {
    isolated("decap::tests::ipv6_in_ipv6_is_unpacked", || check(VIP6, RealServer::v6));
}

/// Hands tunnelled frames to the decapsulator past the wire, with large segments and unfilled
/// checksums, as the kernel gives them when a tunnel device or an eBPF program made them.
#[test]
fn large_segments_are_unpacked_whole() {
    isolated("decap::tests::large_segments_are_unpacked_whole", || {
        for (vip, dest) in [
            (IpAddr::from(VIP4), RealServer::v4 as fn(&RealServer) -> IpAddr),
            (VIP6.into(), RealServer::v6),
        ] {
            let (lab, server) = lab();
            let namespace = server.host.namespace();
            let ends = [INNER, FEED].map(|name| namespace.link(name).unwrap());
            let shared = &server.decapsulator.shared;
            let worker = Worker::new(shared, server.host.link(), &ends[0], &ends[1]).unwrap();
            let mut tunnel = Tunnel::new(&lab, dest(&server));
            tunnel.send =
                Box::new(|frame| worker.unpack(frame, &mut Vec::new(), &mut Joined::default()));
            tunnel.while_tunnelling(|| exchange(&lab, vip));
            assert_all_unpacked(server.decapsulator.stats());
            let longest = tunnel.longest.load(Ordering::Relaxed);
            assert!(longest > 10_000, "no large segment went through: {longest}");
        }
    });
}

#[test]
fn without_a_decapsulator_the_kernel_says_that_the_protocol_is_unknown() {
    isolated(
        "decap::tests::without_a_decapsulator_the_kernel_says_that_the_protocol_is_unknown",
        || {
            for dest in [RealServer::v4 as fn(&RealServer) -> IpAddr, RealServer::v6] {
                let (lab, server) = lab();
                let dest = dest(&server);
                let host = server.host.clone();
                drop(server);
                let to = SocketAddr::new(VIP4.into(), PORT);
                let client = lab.client().run(|| UdpClient::connect(to)).unwrap().unwrap();
                let tunnel = Tunnel::new(&lab, dest);
                tunnel.while_tunnelling(|| {
                    assert!(client.exchange(b"ping", Duration::from_millis(100)).is_err());
                });
                assert!(protocol_errors(host.namespace()) > 0);
            }
        },
    );
}

impl RealServer {
    fn v4(&self) -> IpAddr {
        self.host.v4()
    }

    fn v6(&self) -> IpAddr {
        self.host.v6()
    }
}
