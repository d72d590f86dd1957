//! Laws of errors from inside tunnels: the client is told about its own packet, and what
//! was said of the path holds for all who go there.

use std::net::IpAddr;

use ipvs_core::command::Command;
use ipvs_core::dest::{DestSpec, ForwardingMethod};
use ipvs_core::verdict::{Reason, Verdict};
use ipvs_plane::frame::Frame;

use crate::icmp::error;
use crate::packet::{ACK, SYN, Shape, TCP, be16, sum};
use crate::world::{
    Host, INSIDE, OUTSIDE, World, client, dest_key, dest_spec, own_mac, own_source, server,
    service_key, service_spec, vip,
};

const PORT: u16 = 80;
const CLIENT_PORT: u16 = 40_000;
/// What [`error`] says in its last word, and so the MTU that is learnt.
const SAID: usize = 1300;
/// Fragmentation needed, and packet too big.
const UNREACHABLE: u8 = 3;
const TOO_BIG_V6: u8 = 2;

/// Tunnels by type and flags, and how much they add to a packet, but for the IP header.
const CARRIERS: [(u8, u16, usize); 5] = [(0, 0, 0), (1, 0, 12), (1, 1, 12), (2, 0, 4), (2, 1, 8)];

fn carried(tunnel_type: u8, tunnel_flags: u16) -> DestSpec {
    let spec = dest_spec(ForwardingMethod::Tunnel, 1);
    DestSpec { tunnel_type, tunnel_flags, tunnel_port: 6080, ..spec }
}

/// A director with one destination, in a family of its own, behind a tunnel.
struct Tunnelled {
    world: World,
    v6: bool,
    far_v6: bool,
}

impl Tunnelled {
    fn new(v6: bool, far_v6: bool, (tunnel_type, flags, _): (u8, u16, usize)) -> Self {
        let key = service_key(TCP, vip(v6, 0), PORT);
        let dest = dest_key(server(far_v6, 11), PORT);
        let commands = [
            Command::AddService(key, service_spec(key.family(), "rr", 0)),
            Command::AddDest(key, dest, carried(tunnel_type, flags)),
        ];
        let mut it = Self { world: World::with(&commands, Host::default()), v6, far_v6 };
        let (verdict, _) = it.send(SYN, 0, true);
        assert!(matches!(verdict, Verdict::Send { .. }), "{verdict:?}");
        it
    }

    fn request(&self, event: u8, len: usize, dont_fragment: bool) -> Shape {
        let from = (client(self.v6, 7), CLIENT_PORT);
        let shape = Shape::new(TCP, from, (vip(self.v6, 0), PORT), event);
        Shape { payload: vec![b'd'; len], dont_fragment, ..shape }
    }

    /// Sends a packet of the client, with this much in it.
    fn send(&mut self, event: u8, len: usize, dont_fragment: bool) -> (Verdict, Frame) {
        let mut frame = self.request(event, len, dont_fragment).frame(own_mac(OUTSIDE));
        (self.world.handle(&mut frame, OUTSIDE), frame)
    }

    /// An error from the tunnel's path about the packet in `frame`, of which it quotes `len`
    /// octets.
    fn error_about(&self, frame: &Frame, kind: u8, len: usize) -> Frame {
        let octets = &frame.octets()[14..];
        let router = server(self.far_v6, 99);
        let to = own_source(ipvs_core::addr::Addr::from_ip(router).0);
        error(kind, (router, to), &octets[..len.min(octets.len())], own_mac(INSIDE))
    }

    fn outer_len(&self) -> usize {
        if self.far_v6 { 40 } else { 20 }
    }
}

/// Type, code and last word of the ICMP error in a frame, and what it quotes.
fn read_error(frame: &Frame) -> (u8, u8, usize, &[u8]) {
    let ip = &frame.octets()[14..];
    assert_eq!((ip[0], ip[9]), (0x45, 1), "an IPv4 header, and ICMP behind it");
    assert_eq!(sum(0, &ip[..20]), 0xffff);
    assert_eq!(sum(0, &ip[20..be16(ip, 2)]), 0xffff);
    (ip[20], ip[21], be16(ip, 26), &ip[28..])
}

/// Counts of what went out: packets and octets.
fn counted_out(world: &World) -> (u64, u64) {
    let id = world.dest_ids().next().unwrap();
    let counters = ipvs_core::tables::Tables::counters(world.tables(), id).unwrap().read();
    (counters.out_packets, counters.out_bytes)
}

#[test]
fn the_client_is_told_what_an_error_from_inside_a_tunnel_says() {
    for carrier in CARRIERS {
        let overhead = 20 + carrier.2;
        let mut it = Tunnelled::new(false, false, carrier);
        let (_, sent) = it.send(ACK, 1300, true);
        let inner = sent.octets()[14 + overhead..].to_vec();
        let mut frame = it.error_about(&sent, UNREACHABLE, 128);
        let verdict = it.world.handle(&mut frame, INSIDE);
        assert!(matches!(verdict, Verdict::Send { ifindex: OUTSIDE, .. }), "{verdict:?}");
        let ip = &frame.octets()[12..];
        assert_eq!(IpAddr::from(<[u8; 4]>::try_from(&ip[14..18]).unwrap()), vip(false, 0));
        assert_eq!(IpAddr::from(<[u8; 4]>::try_from(&ip[18..22]).unwrap()), client(false, 7));
        let quote = 128 - overhead;
        // What was known before is told first.
        assert_eq!(read_error(&frame), (3, 4, 1500 - overhead, &inner[..quote]));
        let out = u64::try_from(quote + 28 + quote).unwrap();
        assert_eq!(counted_out(&it.world), (2, out), "counted twice, of different length");
        // From now on the path is known.
        let (_, refused) = it.send(ACK, 1300, true);
        let (kind, code, mtu, _) = read_error(&refused);
        assert_eq!((kind, code, mtu), (3, 4, SAID - overhead));
        let (verdict, _) = it.send(ACK, SAID - overhead - 40, true);
        assert!(matches!(verdict, Verdict::Send { ifindex: INSIDE, .. }), "{verdict:?}");
    }
}

#[test]
fn what_a_client_allows_to_be_cut_is_no_news_for_it() {
    let mut it = Tunnelled::new(false, false, CARRIERS[0]);
    let (_, sent) = it.send(ACK, 1300, false);
    let mut frame = it.error_about(&sent, UNREACHABLE, 128);
    assert_eq!(it.world.handle(&mut frame, INSIDE), Verdict::Drop(Reason::PathMtuLearnt));
    let (verdict, _) = it.send(ACK, 1300, false);
    assert!(matches!(verdict, Verdict::Send { ifindex: INSIDE, mtu: 1300 }), "{verdict:?}");
}

#[test]
fn the_host_gets_errors_from_inside_tunnels_of_ipv6_and_the_path_is_learnt() {
    for (v6, far_v6) in [(true, true), (false, true), (true, false)] {
        for carrier in CARRIERS {
            let mut it = Tunnelled::new(v6, far_v6, carrier);
            let (_, sent) = it.send(ACK, 1200, true);
            let kind = if far_v6 { TOO_BIG_V6 } else { UNREACHABLE };
            let mut frame = it.error_about(&sent, kind, 200);
            let given = frame.clone();
            let verdict = it.world.handle(&mut frame, INSIDE);
            assert_eq!(verdict, Verdict::Pass(Reason::PathMtuLearnt), "{v6} {far_v6} {carrier:?}");
            assert_eq!(frame, given);
            if far_v6 {
                continue;
            }
            let (_, refused) = it.send(ACK, 1240, true);
            let ip = &refused.octets()[14..];
            let mtu = SAID - it.outer_len() - carrier.2;
            assert_eq!((ip[6], ip[40], be16(ip, 46)), (58, TOO_BIG_V6, mtu));
        }
    }
}

#[test]
fn what_was_learnt_of_a_path_is_forgotten_after_ten_minutes() {
    let mut it = Tunnelled::new(false, false, CARRIERS[0]);
    let (_, sent) = it.send(ACK, 1300, true);
    let _ = it.world.handle(&mut it.error_about(&sent, UNREACHABLE, 128), INSIDE);
    for (millis, goes) in [(599_000, false), (2_000, true)] {
        it.world.pass_time(millis);
        let (verdict, _) = it.send(ACK, 1300, true);
        let went = matches!(verdict, Verdict::Send { ifindex: INSIDE, .. });
        assert_eq!(went, goes, "{millis} ms later");
    }
}

#[test]
fn an_error_that_does_not_fit_the_tunnel_teaches_nothing() {
    let mut it = Tunnelled::new(false, false, CARRIERS[0]);
    let (_, sent) = it.send(ACK, 1300, true);
    let mut stranger = sent.octets().to_vec();
    stranger[14 + 20 + 20 + 1] ^= 1;
    let mut elsewhere = sent.octets().to_vec();
    elsewhere[14 + 19] ^= 1;
    for octets in [stranger, elsewhere] {
        let mut frame = it.error_about(&Frame::new(octets), UNREACHABLE, 128);
        let verdict = it.world.handle(&mut frame, INSIDE);
        assert_eq!(verdict, Verdict::Pass(Reason::NoService));
    }
    // To another address than the one that the tunnel begins at.
    let quoted = &sent.octets()[14..142];
    let addresses = (server(false, 99), vip(false, 0));
    let mut frame = error(UNREACHABLE, addresses, quoted, own_mac(INSIDE));
    assert_eq!(it.world.handle(&mut frame, INSIDE), Verdict::Pass(Reason::NoService));
    // Or with a checksum that is wrong.
    let mut octets = it.error_about(&sent, UNREACHABLE, 128).into_octets();
    octets[36] ^= 1;
    let verdict = it.world.handle(&mut Frame::new(octets), INSIDE);
    assert_eq!(verdict, Verdict::Drop(Reason::BadChecksum));
    let (verdict, _) = it.send(ACK, 1300, true);
    assert!(matches!(verdict, Verdict::Send { ifindex: INSIDE, .. }), "{verdict:?}");
}
