//! Packets that are cut short or contradict themselves: counted, passed or
//! dropped, and never forwarded.

use std::net::Ipv4Addr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use ipvs_e2e::frames::{Ipv4, Port, checksum, ethernet, repair, tcp, udp};
use ipvs_e2e::{Bed, Plane, Server};
use ipvs_lab::{VIP4, VIP6, udp_exchange};

/// Whom the packets seem to come from; nobody else has this address.
const CLIENT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 66);
const CLIENT6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0xc, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x66];
const PORT: u16 = 80;
const PATIENCE: Duration = Duration::from_secs(1);

const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;

/// What is sent, the EtherType, the packet, and the reasons that may be counted.
type Sample = (&'static str, u16, Vec<u8>, &'static [&'static str]);

fn bed(plane: Plane) -> Result<(Bed, Vec<Server>)> {
    let bed = Bed::new(plane, 1)?;
    let servers = bed.serve(PORT)?;
    for transport in ["-t", "-u"] {
        bed.make_services(transport, PORT, "rr", |_| PORT)?;
    }
    // Neighbours are known, and the way to the server is open.
    bed.lab.client().run(|| {
        udp_exchange((VIP4, PORT).into(), b"ping", PATIENCE)?;
        udp_exchange((VIP6, PORT).into(), b"ping", PATIENCE)
    })??;
    Ok((bed, servers))
}

pub(crate) fn samples(plane: Plane) -> Result<()> {
    let (bed, servers) = bed(plane)?;
    let server = &servers.first().context("no server")?.host;
    // At the director's port of the switch: the switch itself may drop them.
    let client = Port::open(bed.lab.switch(), "c-director")?;
    let behind = Port::open(server.namespace(), "eth0")?;
    let (from, to) = (bed.lab.client_link(), bed.lab.director_client_side());
    let mut complaints = Vec::new();
    for (what, kind, packet, reasons) in [ipv4_samples(), ipv6_samples()].concat() {
        let frame = [ethernet(from, to, kind)?, packet].concat();
        if let Err(complaint) = sample(&bed, &client, &behind, &frame, reasons) {
            complaints.push(format!("{what}: {complaint:#}"));
        }
    }
    ensure!(complaints.is_empty(), "{}", complaints.join("\n"));
    // The director is as good as before.
    bed.lab.client().run(|| udp_exchange((VIP4, PORT).into(), b"ping", PATIENCE))??;
    Ok(())
}

/// Sends one sample and looks what becomes of it.
fn sample(bed: &Bed, client: &Port, behind: &Port, frame: &[u8], reasons: &[&str]) -> Result<()> {
    let before = bed.packets()?;
    let connections = bed.client()?.connections()?.len();
    behind.take()?;
    client.send(frame)?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let now = bed.packets()?;
        if reasons.iter().any(|reason| now.get(*reason) > before.get(*reason)) {
            break;
        }
        ensure!(Instant::now() < deadline, "not counted as {reasons:?}: {before:?}, then {now:?}");
        thread::sleep(Duration::from_millis(2));
    }
    let theirs = behind.take()?;
    let stray = theirs.iter().find(|frame| is_ours(frame));
    ensure!(stray.is_none(), "the real server got {stray:02x?}");
    ensure!(bed.client()?.connections()?.len() == connections, "it made a connection");
    Ok(())
}

/// Whether a frame holds one of the addresses that only the samples come from.
fn is_ours(frame: &[u8]) -> bool {
    let holds = |octets: &[u8]| frame.windows(octets.len()).any(|window| window == octets);
    // Not what looks for their MAC address.
    frame.get(12..14) != Some(&[8, 6]) && (holds(&CLIENT.octets()) || holds(&CLIENT6))
}

const MALFORMED: &[&str] = &["malformed"];
const CUT: &[&str] = &["malformed", "short_transport", "no_service"];
const ICMP: &[&str] = &["malformed", "other_protocol"];

fn ipv4_samples() -> Vec<Sample> {
    let datagram = udp((CLIENT, 4242), (VIP4, PORT), b"malformed").octets();
    let syn = tcp((CLIENT, 4242), (VIP4, PORT), 2).octets();
    let changed = |packet: &[u8], change: &dyn Fn(&mut Vec<u8>)| {
        let mut packet = packet.to_vec();
        change(&mut packet);
        repair(&mut packet);
        packet
    };
    let total = |packet: &mut Vec<u8>, length: u16| {
        packet.splice(2..4, length.to_be_bytes());
    };
    let inner_of = |length: usize| {
        // Port unreachable, about a packet of which so much is quoted.
        let quoted: Vec<u8> = syn.iter().copied().take(length).collect();
        let mut message = [&[3, 3, 0, 0, 0, 0, 0, 0][..], &quoted].concat();
        let sum = checksum(&message).to_be_bytes();
        message.splice(2..4, sum);
        Ipv4 { source: CLIENT, destination: VIP4, protocol: 1, payload: message }.octets()
    };
    vec![
        ("IPv4 header cut short", IPV4, syn[..12].to_vec(), MALFORMED),
        ("no IPv4 header at all", IPV4, Vec::new(), MALFORMED),
        ("version 6 in an IPv4 frame", IPV4, changed(&syn, &|p| p[0] = 0x65), MALFORMED),
        ("header length below 5", IPV4, changed(&syn, &|p| p[0] = 0x44), MALFORMED),
        ("header longer than the packet", IPV4, changed(&syn[..24], &|p| p[0] = 0x4f), MALFORMED),
        ("total length beyond the frame", IPV4, changed(&syn, &|p| total(p, 1000)), MALFORMED),
        ("total length below the header", IPV4, changed(&syn, &|p| total(p, 19)), MALFORMED),
        (
            "wrong header checksum",
            IPV4,
            {
                let mut p = syn.clone();
                p[10] ^= 0x55;
                p
            },
            MALFORMED,
        ),
        ("TCP header cut short", IPV4, changed(&syn[..30], &|p| total(p, 30)), CUT),
        ("no TCP header at all", IPV4, changed(&syn[..20], &|p| total(p, 20)), CUT),
        ("UDP header cut short", IPV4, changed(&datagram[..26], &|p| total(p, 26)), CUT),
        (
            "a later fragment of nothing",
            IPV4,
            changed(&datagram, &|p| {
                p.splice(6..8, [0, 1]);
            }),
            &["deferred_fragment", "malformed"],
        ),
        ("ICMP error about nothing", IPV4, inner_of(0), ICMP),
        ("ICMP error about a part of a header", IPV4, inner_of(15), ICMP),
        ("ICMP error about a packet without ports", IPV4, inner_of(20), ICMP),
        ("neither IPv4 nor IPv6", 0x88b5, syn.clone(), &["not_ip"]),
    ]
}

fn ipv6_samples() -> Vec<Sample> {
    let header = |next: u8, length: usize| {
        let length = u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes();
        let mut octets = vec![0x60, 0, 0, 0, length[0], length[1], next, 64];
        octets.extend(CLIENT6);
        octets.extend(VIP6.octets());
        octets
    };
    let whole = |next: u8, payload: &[u8]| [header(next, payload.len()), payload.to_vec()].concat();
    let syn = tcp((CLIENT, 4242), (VIP4, PORT), 2).payload;
    let with_length = |length| [header(6, length), syn.clone()].concat();
    vec![
        ("IPv6 header cut short", IPV6, header(6, 0)[..30].to_vec(), MALFORMED),
        (
            "version 4 in an IPv6 frame",
            IPV6,
            {
                let mut p = whole(6, &syn);
                p[0] = 0x40;
                p
            },
            MALFORMED,
        ),
        ("payload length beyond the frame", IPV6, with_length(2000), MALFORMED),
        ("TCP cut short by the payload length", IPV6, with_length(10), CUT),
        ("TCP cut short", IPV6, whole(6, &syn[..10]), CUT),
        ("an extension header that does not end", IPV6, whole(0, &[6, 200, 1, 4, 0, 0, 0, 0]), CUT),
        ("an extension header cut short", IPV6, whole(60, &[6]), CUT),
        (
            "a fragment header cut short",
            IPV6,
            whole(44, &[6, 0, 0]),
            &["malformed", "short_transport", "fragment"],
        ),
        (
            "a chain of extension headers without an end",
            IPV6,
            whole(60, &[60, 0, 1, 4, 0, 0, 0, 0].repeat(100)),
            &["malformed", "short_transport", "other_protocol"],
        ),
    ]
}

/// What is wrong behind the IP header is no director's business, as it is none
/// of the kernel's IPVS: the server gets it as wrong as it was.
pub(crate) fn wrong_transport(plane: Plane) -> Result<()> {
    let (bed, servers) = bed(plane)?;
    let server = servers.first().context("no server")?;
    let client = Port::open(bed.lab.client(), "eth0")?;
    let behind = Port::open(server.host.namespace(), "eth0")?;
    let (from, to) = (bed.lab.client_link(), bed.lab.director_client_side());
    let answered = server.udp.datagrams();
    let datagram = |port| udp((CLIENT, port), (VIP4, PORT), b"spoilt");
    let syn = |port| tcp((CLIENT, port), (VIP4, PORT), 2);
    let spoil = |mut packet: Ipv4, at: usize, octet: u8| {
        packet.payload[at] = octet;
        packet
    };
    for (what, packet) in [
        ("a wrong UDP checksum", spoil(datagram(4301), 9, b'P')),
        ("a UDP length beyond the packet", spoil(datagram(4302), 5, 200)),
        ("a UDP length below its header", spoil(datagram(4303), 5, 7)),
        ("a TCP header longer than the packet", spoil(syn(4304), 12, 0xf0)),
        ("a TCP header length below 5", spoil(syn(4305), 12, 0x40)),
    ] {
        client.send(&[ethernet(from, to, IPV4)?, packet.octets()].concat())?;
        let deadline = Instant::now() + PATIENCE;
        let frame = loop {
            if let Some(frame) = behind.take()?.into_iter().find(|frame| is_ours(frame)) {
                break frame;
            }
            ensure!(Instant::now() < deadline, "{what} does not arrive");
            thread::sleep(Duration::from_millis(2));
        };
        let came = frame.get(14..34 + packet.payload.len()).context("the packet was cut")?;
        ensure!(checksum(&came[..20]) == 0, "{what}: the IP header is wrong: {came:02x?}");
        let checksum_at = if packet.protocol == 6 { 16 } else { 6 };
        let without_checksum = |payload: &[u8]| {
            let mut payload = payload.to_vec();
            payload.drain(checksum_at..checksum_at + 2);
            payload
        };
        let unchanged = without_checksum(&came[20..]) == without_checksum(&packet.payload);
        ensure!(unchanged, "{what}: something else was changed: {came:02x?}");
        let destination = Ipv4Addr::new(came[16], came[17], came[18], came[19]);
        let arrived = Ipv4 { destination, payload: came[20..].to_vec(), ..packet };
        let sum = checksum(&[arrived.pseudo_header(), arrived.payload.clone()].concat());
        ensure!(sum != 0, "{what}: the checksum was made good: {came:02x?}");
    }
    bed.lab.client().run(|| udp_exchange((VIP4, PORT).into(), b"ping", PATIENCE))??;
    // It counts an answer after it was sent.
    ensure!(server.udp.datagrams() <= answered + 1, "the server has answered a spoilt one");
    Ok(())
}
