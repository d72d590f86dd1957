//! Laws of bad packets: whatever comes in, every packet gets one verdict, is
//! counted for it, and leaves only if it was sound.

use std::net::IpAddr;

use ipvs_core::command::Command;
use ipvs_core::dest::ForwardingMethod;
use ipvs_core::service::ServiceFlags;
use ipvs_core::verdict::{Reason, Verdict};
use ipvs_plane::frame::Frame;
use proptest::prelude::*;
use proptest::sample::Index;

use crate::packet::{
    INIT, SCTP, SYN, Shape, TCP, UDP, any_trimmings, be16, octets_of, pseudo, sum,
};
use crate::world::{
    Host, OUTSIDE, World, client, dest_key, dest_spec, own_mac, server, service_key, service_spec,
    vip,
};

const PORT: u16 = 80;
const PROTOCOLS: [u8; 3] = [TCP, UDP, SCTP];
const METHODS: [ForwardingMethod; 3] =
    [ForwardingMethod::Masquerade, ForwardingMethod::DirectRoute, ForwardingMethod::Tunnel];

/// A service of each protocol for each method, on addresses 0 to 2, one
/// without destinations on address 3, and one for all ports on address 4.
fn director() -> World {
    let mut commands = Vec::new();
    for v6 in [false, true] {
        for (number, method) in (0u8..).zip(METHODS) {
            for protocol in PROTOCOLS {
                let key = service_key(protocol, vip(v6, number), PORT);
                commands.push(Command::AddService(key, service_spec(key.family(), "rr", 0)));
                let dest = dest_key(server(v6, 11), 8080);
                commands.push(Command::AddDest(key, dest, dest_spec(method, 1)));
            }
        }
        let key = service_key(TCP, vip(v6, 3), PORT);
        commands.push(Command::AddService(key, service_spec(key.family(), "wlc", 0)));
        let key = service_key(TCP, vip(v6, 4), 0);
        let spec = service_spec(key.family(), "wrr", ServiceFlags::PERSISTENT);
        commands.push(Command::AddService(key, spec));
        let dest = dest_key(server(v6, 12), 0);
        commands.push(Command::AddDest(key, dest, dest_spec(ForwardingMethod::Masquerade, 3)));
    }
    let limits = ipvs_plane::store::Limits {
        services: 64,
        dests: 64,
        members: 64,
        blocks: 64,
        cached: 64,
        conns: 64,
    };
    let mut world = World::new(Host::default(), limits);
    world.registry.apply(&commands).unwrap();
    world
}

/// A client's packet that fits the director, or a server's reply to one.
fn any_shape() -> impl Strategy<Value = Shape> {
    let protocol = prop::sample::select(&PROTOCOLS[..]);
    let event = prop_oneof![
        3 => Just(None),
        1 => any::<u8>().prop_map(Some),
    ];
    (any::<bool>(), 0u8..5, protocol, event, any::<bool>(), any_trimmings(), 0u8..4).prop_map(
        |(v6, number, protocol, event, is_reply, trimmings, ttl)| {
            let event = event.unwrap_or(if protocol == TCP { SYN } else { INIT });
            let to = (vip(v6, number), PORT);
            let from = (client(v6, 7), 40_000);
            let mut shape = trimmings.put_on(&Shape::new(protocol, from, to, event));
            if is_reply {
                shape.source = server(v6, 11);
                (shape.source_port, shape.destination_port) = (8080, 40_000);
                shape.destination = client(v6, 7);
            }
            if ttl < 2 {
                shape.ttl = ttl;
            }
            shape
        },
    )
}

/// What is done to a sound frame.
#[derive(Clone, Debug)]
enum Harm {
    /// An octet anywhere is replaced.
    Anywhere(Index, u8),
    /// One of the header octets is replaced.
    InHeaders(usize, u8),
    /// The frame ends early.
    Cut(Index),
    /// The total or payload length becomes this.
    Length(u16),
    /// The IPv4 header length, or the first extension header's, becomes this.
    HeaderLength(u8),
    /// The TCP data offset becomes this.
    DataOffset(u8),
    /// It becomes a fragment (IPv4), or its next header one (IPv6).
    Fragment(u16),
}

fn any_harm() -> impl Strategy<Value = Harm> {
    prop_oneof![
        (any::<Index>(), any::<u8>()).prop_map(|(at, octet)| Harm::Anywhere(at, octet)),
        (0usize..100, any::<u8>()).prop_map(|(at, octet)| Harm::InHeaders(at, octet)),
        any::<Index>().prop_map(Harm::Cut),
        prop_oneof![0u16..64, any::<u16>()].prop_map(Harm::Length),
        any::<u8>().prop_map(Harm::HeaderLength),
        any::<u8>().prop_map(Harm::DataOffset),
        any::<u16>().prop_map(Harm::Fragment),
    ]
}

fn start(octets: &[u8]) -> usize {
    if octets.get(12..14) == Some(&[0x81, 0]) { 18 } else { 14 }
}

/// Does the harm; the IPv4 checksum is made right again if `mend`.
fn harm(octets: &mut Vec<u8>, harms: &[Harm], mend: bool) {
    let l3 = start(octets);
    let v6 = octets[l3] >> 4 == 6;
    let set = |octets: &mut Vec<u8>, at: usize, octet: u8| {
        if let Some(place) = octets.get_mut(at) {
            *place = octet;
        }
    };
    for harm in harms {
        match *harm {
            Harm::Anywhere(at, octet) => {
                let at = at.index(octets.len().max(1));
                set(octets, at, octet);
            }
            Harm::InHeaders(at, octet) => set(octets, at, octet),
            Harm::Cut(at) => octets.truncate(at.index(octets.len() + 1)),
            Harm::Length(len) => {
                let at = l3 + if v6 { 4 } else { 2 };
                let [high, low] = len.to_be_bytes();
                set(octets, at, high);
                set(octets, at + 1, low);
            }
            Harm::HeaderLength(len) if v6 => set(octets, l3 + 41, len),
            Harm::HeaderLength(len) => set(octets, l3, 0x40 | len & 15),
            Harm::DataOffset(offset) => set(octets, l3 + if v6 { 52 } else { 32 }, offset),
            Harm::Fragment(_) if v6 => set(octets, l3 + 6, 44),
            Harm::Fragment(word) => {
                let [high, low] = word.to_be_bytes();
                set(octets, l3 + 6, high);
                set(octets, l3 + 7, low);
            }
        }
    }
    if mend && !v6 && octets.len() > l3 {
        let header = usize::from(octets[l3] & 15) * 4;
        if header >= 20
            && let Some(header) = octets.get_mut(l3..l3 + header)
        {
            header[10..12].fill(0);
            let sum = !sum(0, header);
            header[10..12].copy_from_slice(&sum.to_be_bytes());
        }
    }
}

/// Whether a director may send on anything because of this frame: its lengths
/// fit into each other, it is whole and has ports. `None`: not IP at all.
fn is_sound(octets: &[u8]) -> Option<bool> {
    let l3 = start(octets);
    let packet = octets.get(l3..)?;
    let [high, low] = *octets.get(l3 - 2..l3)?.first_chunk()?;
    let sound = |len: usize, mut at: usize, mut next: u8| {
        if len > packet.len() {
            return Some(false);
        }
        for _ in 0..8 {
            match next {
                0 | 43 | 60 if at >= 40 && packet[0] >> 4 == 6 => {
                    let [after, units] = *packet.get(at..)?.first_chunk()?;
                    (next, at) = (after, at + 8 + 8 * usize::from(units));
                }
                // One that says "not cut" is as good as none.
                44 if packet[0] >> 4 == 6 => {
                    let [after, _, high, low] = *packet.get(at..)?.first_chunk()?;
                    if high != 0 || low & !6 != 0 {
                        return Some(false);
                    }
                    (next, at) = (after, at + 8);
                }
                _ => break,
            }
        }
        Some(PROTOCOLS.contains(&next) && at + 4 <= len)
    };
    match (u16::from_be_bytes([high, low]), packet.first()? >> 4) {
        (0x0800, 4) => {
            let header = usize::from(packet[0] & 15) * 4;
            if header < 20 || packet.len() < header || sum(0, &packet[..header]) != 0xffff {
                return Some(false);
            }
            let len = be16(packet, 2);
            if len < header || packet[6] & 0x3f != 0 || packet[7] != 0 {
                return Some(false);
            }
            sound(len, header, packet[9])
        }
        (0x86dd, 6) if packet.len() >= 40 => sound(40 + be16(packet, 4), 40, packet[6]),
        _ => None,
    }
}

/// What leaves is sound itself: lengths agree, and IPv4 headers sum up.
fn leaves_sound(frame: &Frame) -> Result<(), TestCaseError> {
    let octets = frame.octets();
    let packet = &octets[start(octets)..];
    match packet[0] >> 4 {
        4 => {
            let header = usize::from(packet[0] & 15) * 4;
            let len = be16(packet, 2);
            prop_assert!(header >= 20 && len >= header && len <= packet.len());
            prop_assert_eq!(sum(0, &packet[..header]), 0xffff);
            if packet[9] == 1 {
                prop_assert_eq!(sum(0, &packet[header..len]), 0xffff, "ICMP checksum");
            }
        }
        6 => {
            let len = 40 + be16(packet, 4);
            prop_assert!(len <= packet.len());
            if packet[6] == 58 {
                let address =
                    |at: usize| IpAddr::from(<[u8; 16]>::try_from(&packet[at..at + 16]).unwrap());
                let pseudo = pseudo(address(8), address(24), 58, len - 40);
                prop_assert_eq!(sum(pseudo, &packet[40..len]), 0xffff, "ICMPv6 checksum");
            }
        }
        other => prop_assert!(false, "version {other} leaves"),
    }
    Ok(())
}

fn counts(world: &World) -> Vec<u64> {
    Reason::ALL.iter().map(|reason| world.tables().counted(*reason)).collect()
}

/// Takes the frame through and checks what holds for every packet. Returns
/// whether it was passed or dropped.
fn judge(world: &mut World, frame: &Frame) -> Result<bool, TestCaseError> {
    let before = counts(world);
    let mut left = frame.clone();
    let verdict = world.handle(&mut left, OUTSIDE);
    let after = counts(world);
    let counted: Vec<Reason> = Reason::ALL
        .iter()
        .zip(before.iter().zip(&after))
        .flat_map(|(reason, (before, after))| {
            let times = usize::try_from(after - before).unwrap();
            std::iter::repeat_n(*reason, times)
        })
        .collect();
    match verdict {
        Verdict::Pass(reason) | Verdict::Drop(reason) => {
            prop_assert_eq!(counted, vec![reason]);
            if matches!(verdict, Verdict::Pass(_)) {
                prop_assert_eq!(&left, frame, "passed, but changed");
                prop_assert!(!reason.drops());
            } else {
                prop_assert!(reason.drops());
            }
            Ok(true)
        }
        Verdict::Defer(_) => {
            prop_assert_eq!(counted, vec![], "its plane counts it");
            prop_assert_eq!(&left, frame, "deferred, but changed");
            Ok(false)
        }
        Verdict::Send { .. } | Verdict::Resolve { .. } => {
            // Forwarded packets count at their destination, errors here.
            let error = [Reason::SentUnreachable, Reason::SentTimeExceeded, Reason::SentTooBig];
            prop_assert!(counted.len() <= 1 && counted.iter().all(|one| error.contains(one)));
            prop_assert_eq!(is_sound(frame.octets()), Some(true), "{:?} is sent", verdict);
            leaves_sound(&left)?;
            Ok(false)
        }
        Verdict::Deliver => {
            prop_assert_eq!(counted, vec![Reason::Replied]);
            leaves_sound(&left)?;
            Ok(false)
        }
        Verdict::GoOn(_) => Err(TestCaseError::fail("left to be led on")),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// A stream of sound and harmed packets over connections that are there:
    /// no panic, one verdict each, and only what is sound is sent on.
    #[test]
    fn harmed_packets_are_counted_and_sent_only_if_still_sound(
        packets in prop::collection::vec(
            (any_shape(), prop::collection::vec(any_harm(), 0..4), any::<bool>()),
            1..12,
        ),
    ) {
        let mut world = director();
        let (mut kept, mut total) = (0u64, 0u64);
        for (shape, harms, mend) in &packets {
            // Sound first, so that half of the harmed ones find a connection.
            let sound = shape.frame(own_mac(OUTSIDE));
            let mut octets = sound.octets().to_vec();
            harm(&mut octets, harms, *mend);
            let mut harmed = Frame::new(octets);
            harmed.checksum_pending = sound.checksum_pending;
            for frame in [sound, harmed] {
                total += 1;
                kept += u64::from(judge(&mut world, &frame)?);
            }
            world.pass_time(500);
        }
        let errors = [Reason::SentUnreachable, Reason::SentTimeExceeded, Reason::SentTooBig];
        let sent: u64 = errors.iter().map(|reason| world.tables().counted(*reason)).sum();
        prop_assert_eq!(counts(&world).iter().sum::<u64>(), kept + sent);
        prop_assert!(kept + sent <= total);
    }

    /// Noise of every length, bare or behind the beginning of a packet to a service.
    #[test]
    fn noise_gets_one_verdict(
        mut noise in prop::collection::vec(any::<u8>(), 0..160),
        (v6, dressed, mend) in any::<(bool, bool, bool)>(),
        (pending, segment_len) in (any::<bool>(), prop_oneof![Just(0u32), any::<u32>()]),
    ) {
        let mut world = director();
        if dressed && noise.len() > 54 {
            noise[..6].copy_from_slice(&own_mac(OUTSIDE));
            match (v6, vip(v6, 0)) {
                (true, IpAddr::V6(ip)) => {
                    noise[12..15].copy_from_slice(&[0x86, 0xdd, 0x60]);
                    noise[38..54].copy_from_slice(&ip.octets());
                }
                (_, ip) => {
                    noise[12..15].copy_from_slice(&[8, 0, 0x45]);
                    noise[30..34].copy_from_slice(&octets_of(ip));
                }
            }
            harm(&mut noise, &[], mend);
        }
        let mut frame = Frame::new(noise);
        frame.checksum_pending = pending;
        judge(&mut world, &frame)?;
        // A train of segments may say that its length does not fit the field.
        frame.segment_len = segment_len;
        let _verdict = world.handle(&mut frame, OUTSIDE);
    }
}
