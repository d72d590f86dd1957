//! The host door, in a network namespace of its own.
#![expect(clippy::tests_outside_test_module, reason = "an integration test is a test module")]
#![expect(clippy::unwrap_used, reason = "a step that fails, fails the test")]

use std::net::{IpAddr, UdpSocket};
use std::time::Duration;

use ipvs_lab::testing::isolated;
use ipvs_lab::{Namespace, Plan, VIP4, VIP6};
use ipvs_plane::bpf::door::{self, Door, DoorError};
use ipvs_plane::rtnetlink::Rtnetlink;
use ipvs_wire::ethernet;
use ipvs_wire::ipv4::Ipv4Fields;

const TIMEOUT: Duration = Duration::from_secs(5);
const PORT: u16 = 4000;
const UDP: u8 = 17;

fn open(namespace: &Namespace) -> Result<Door, DoorError> {
    namespace.run(|| Door::open(&mut Rtnetlink::open()?)).unwrap()
}

fn links(namespace: &Namespace) -> Vec<String> {
    let links = namespace.run(|| Rtnetlink::open().unwrap().links().unwrap()).unwrap();
    links.into_iter().map(|link| link.name).collect()
}

/// A datagram from an address to itself, in a frame for the host's side.
fn datagram(addr: IpAddr, payload: &[u8]) -> Vec<u8> {
    let len = u16::try_from(8 + payload.len()).unwrap();
    let udp = |checksum: u16| {
        let mut udp = [PORT + 1, PORT, len, checksum].map(u16::to_be_bytes).concat();
        udp.extend_from_slice(payload);
        udp
    };
    let mut checksum = 0;
    let mut frame = [door::HOST_MAC, door::PLANE_MAC].concat();
    match addr {
        IpAddr::V4(addr) => {
            let word = u32::from_ne_bytes(addr.octets());
            let fields = Ipv4Fields {
                tos: 0,
                total_len: 20 + len,
                id: 1,
                flags: 0,
                ttl: 1,
                protocol: UDP,
                source: word,
                destination: word,
            };
            frame.extend(ethernet::IPV4.to_be_bytes());
            frame.extend(fields.octets());
        }
        IpAddr::V6(addr) => {
            // Of the same octets twice, the sum is that of the rest twice over.
            let mut sum: u32 = 2 * addr.segments().iter().map(|it| u32::from(*it)).sum::<u32>();
            sum += u32::from(len) + u32::from(UDP);
            for pair in udp(0).chunks(2) {
                let [first, second] = [0, 1].map(|at| u32::from(*pair.get(at).unwrap_or(&0)));
                sum += first << 8 | second;
            }
            let folded = (sum & 0xffff) + (sum >> 16);
            checksum = !u16::try_from((folded & 0xffff) + (folded >> 16)).unwrap();
            frame.extend(ethernet::IPV6.to_be_bytes());
            frame.extend([0x60, 0, 0, 0, len.to_be_bytes()[0], len.to_be_bytes()[1], UDP, 1]);
            frame.extend([addr.octets(), addr.octets()].concat());
        }
    }
    frame.extend(udp(checksum));
    frame
}

/// Packets sent out of an interface.
fn sent(namespace: &Namespace, interface: &str) -> u64 {
    let path = "/proc/thread-self/net/dev";
    let table = namespace.run(|| std::fs::read_to_string(path).unwrap()).unwrap();
    let line = table.lines().find_map(|line| line.trim().strip_prefix(&format!("{interface}:")));
    line.unwrap().split_whitespace().nth(9).unwrap().parse().unwrap()
}

#[test]
fn the_host_takes_in_what_comes_by_the_door_even_from_its_own_address() {
    let name = "the_host_takes_in_what_comes_by_the_door_even_from_its_own_address";
    isolated(name, || {
        let lab = Plan::with_servers(0).build().unwrap();
        let director = lab.director();
        open(director).unwrap();
        let plane = director.link(door::PLANE).unwrap();
        for (addr, word) in [(IpAddr::from(VIP4), "four"), (IpAddr::from(VIP6), "six")] {
            let socket = director.run(|| UdpSocket::bind((addr, PORT)).unwrap()).unwrap();
            socket.set_read_timeout(Some(TIMEOUT)).unwrap();
            plane.send_frame(&datagram(addr, word.as_bytes())).unwrap();
            let mut buffer = [0; 16];
            let (len, from) = socket.recv_from(&mut buffer).unwrap();
            assert_eq!((&buffer[..len], from.ip()), (word.as_bytes(), addr));
        }
        let sent = [door::HOST, door::PLANE].map(|interface| sent(director, interface));
        assert_eq!(sent, [0, 2], "nothing moves by itself");
    });
}

#[test]
fn the_door_is_found_again_and_removed_whole() {
    isolated("the_door_is_found_again_and_removed_whole", || {
        let director = Namespace::new("director").unwrap();
        let before = links(&director);
        let made = open(&director).unwrap();
        assert_eq!(open(&director).unwrap(), made);
        let remove = || Door::remove(&mut Rtnetlink::open().unwrap()).unwrap();
        director.run(remove).unwrap();
        assert_eq!(links(&director), before);
        director.run(remove).unwrap();
    });
}

#[test]
fn an_interface_of_somebody_else_is_not_taken_for_the_door() {
    isolated("an_interface_of_somebody_else_is_not_taken_for_the_door", || {
        let director = Namespace::new("director").unwrap();
        let end = ipvs_lab::End::new;
        ipvs_lab::veth(end(&director, door::HOST), end(&director, door::PLANE), None).unwrap();
        let before = links(&director);
        let error = open(&director).unwrap_err();
        assert!(matches!(error, DoorError::Taken(_)), "{error}");
        director.run(|| Door::remove(&mut Rtnetlink::open().unwrap()).unwrap()).unwrap();
        assert_eq!(links(&director), before);
    });
}
