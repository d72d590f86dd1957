//! Tunnels of every kind, unpacked by real servers that look at every checksum.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use ipvs_e2e::frames::{Ipv4, Port, checksum, ethernet};
use ipvs_e2e::programs::{curl, nginx, sha256};
use ipvs_e2e::{Bed, Method, Plane, vip};
use ipvs_lab::{Segment, UdpClient};

use crate::datagrams::{exchange, is_too_long};
use crate::web::make_body;

/// What ipvsadm is told of the tunnel.
const KINDS: [&str; 6] = [
    "--tun-type ipip",
    "--tun-type gue --tun-port 6080 --tun-nocsum",
    "--tun-type gue --tun-port 6080 --tun-csum",
    "--tun-type gue --tun-port 6080 --tun-remcsum",
    "--tun-type gre --tun-nocsum",
    "--tun-type gre --tun-csum",
];
/// Octets of a body: many trains of segments.
const BODY: u64 = 10_000_000;

/// The port of the UDP echo.
const ECHO_PORT: u16 = 5353;
/// Octets of a datagram that comes and goes in fragments.
const DATAGRAM: usize = 8000;
/// Octets of one that goes whole,
const WHOLE: usize = 1400;
/// until a router on the path says that it takes no more than these at once,
const PATH_MTU: u32 = 1380;
/// in an error that quotes so many of the tunnel's packet.
const QUOTED: usize = 512;
/// How long a packet may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// A body goes up, and comes down, in every kind of tunnel, in either family from either.
pub(crate) fn bodies(plane: Plane) -> Result<()> {
    let bed = Bed::new(plane, 1)?;
    let host = bed.lab.servers().first().context("no server")?;
    let server = nginx(&bed, host)?;
    let body = server.root.join("body");
    let hash = make_body(&body, BODY)?;
    let body = body.to_str().context("a strange path")?;
    let came = bed.folder.path().join("came");
    let came_to = came.to_str().context("a strange path")?;
    for inner_v4 in [true, false] {
        let at = SocketAddr::new(vip(Method::Tunnel, inner_v4), 80);
        for outer_v4 in [true, false] {
            let real = SocketAddr::new(host.address(vip(Method::Tunnel, outer_v4)), 80);
            for kind in KINDS {
                let what = || format!("{at} to {real} {kind}");
                bed.ipvsadm(&format!("-A -t {at} -s rr"))?;
                bed.ipvsadm(&format!("-a -t {at} -r {real} -i {kind}"))?;
                curl(bed.lab.client(), at, "body", &["-o", came_to]).with_context(what)?;
                ensure!(sha256(&came)? == hash, "{}: another body came", what());
                curl(bed.lab.client(), at, "put", &["-T", body]).with_context(what)?;
                let put = server.root.join("put");
                ensure!(sha256(&put)? == hash, "{}: another body was stored", what());
                fs::remove_file(put)?;
                bed.ipvsadm(&format!("-D -t {at}"))?;
            }
        }
    }
    let stats = bed.decapsulators.first().context("no server unpacks")?.stats();
    ensure!(stats.unpacked > 0 && stats.malformed == 0, "{stats:?}");
    Ok(())
}

/// Datagrams go in fragments as long as the link, and so longer with a tunnel's header, in
/// every kind of tunnel, in either family from either.
pub(crate) fn datagrams(plane: Plane) -> Result<()> {
    let bed = Bed::with_server_mtu(plane, 1, 1500)?;
    let host = bed.lab.servers().first().context("no server")?;
    let _servers = bed.serve(ECHO_PORT)?;
    let payload: Vec<u8> = (0..=250).cycle().take(DATAGRAM).collect();
    for inner_v4 in [true, false] {
        let at = SocketAddr::new(vip(Method::Tunnel, inner_v4), ECHO_PORT);
        for outer_v4 in [true, false] {
            let real = SocketAddr::new(host.address(vip(Method::Tunnel, outer_v4)), ECHO_PORT);
            for kind in KINDS {
                bed.ipvsadm(&format!("-A -u {at} -s rr"))?;
                bed.ipvsadm(&format!("-a -u {at} -r {real} -i {kind}"))?;
                let client = bed.lab.client().run(|| UdpClient::connect(at))??;
                exchange(&client, &payload)
                    .with_context(|| format!("{at} to {real} {kind}: {:?}", bed.status()))?;
                bed.ipvsadm(&format!("-D -u {at}"))?;
            }
        }
    }
    let stats = bed.decapsulators.first().context("no server unpacks")?.stats();
    ensure!(stats.unpacked > 0 && stats.malformed == 0, "{stats:?}");
    Ok(())
}

/// A router between director and real server says that the tunnel's packets are too long:
/// the error is to the director's own address, and the client hears of it.
pub(crate) fn path_mtu(plane: Plane) -> Result<()> {
    let bed = Bed::new(plane, 1)?;
    let _servers = bed.serve(ECHO_PORT)?;
    let host = bed.lab.servers().first().context("no server")?;
    let port = Port::open(host.namespace(), "eth0")?;
    let payload = [b'x'; WHOLE];
    for v4 in [true, false] {
        let at = SocketAddr::new(vip(Method::Tunnel, v4), ECHO_PORT);
        let real = SocketAddr::new(host.address(at.ip()), ECHO_PORT);
        bed.ipvsadm(&format!("-A -u {at} -s rr"))?;
        bed.ipvsadm(&format!("-a -u {at} -r {real} -i"))?;
        let client = bed.lab.client().run(|| UdpClient::connect(at))??;
        port.take()?;
        let (_, told) = exchange(&client, &payload)?;
        ensure!(told == 0, "{at}: the client is told before anybody complained");
        let tunnelled = awaited(&port, if v4 { [0x08, 0] } else { [0x86, 0xdd] })?;
        let director = bed.lab.director_address(Segment::Server, at.ip());
        let kind = if v4 { 0x0800 } else { 0x86dd };
        let header = ethernet(host.link(), bed.lab.director_server_side(), kind)?;
        port.send(&[header, too_big(real.ip(), director, &tunnelled)?].concat())?;
        // Over IPv4 the client is told at once, what the director's host has believed till now;
        // over IPv6 it is told with the next datagram that is too long.
        heard(&bed, if v4 { "sent_too_big" } else { "path_mtu_learnt" })?;
        let mut told = 0;
        while let Err(error) = client.exchange(&payload, PATIENCE) {
            ensure!(is_too_long(&error), "{at}: {error}: {:?}", bed.packets());
            told += 1;
        }
        ensure!(told == if v4 { 2 } else { 1 }, "{at}: told {told} times: {:?}", bed.packets());
    }
    Ok(())
}

/// Waits until a packet has been counted with this reason.
fn heard(bed: &Bed, reason: &str) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !bed.packets()?.contains_key(reason) {
        ensure!(Instant::now() < deadline, "no {reason}: {:?}", bed.packets());
    }
    Ok(())
}

/// The long IP packet of this kind that comes by next.
fn awaited(port: &Port, kind: [u8; 2]) -> Result<Vec<u8>> {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        for frame in port.take()? {
            if let Some((header, packet)) = frame.split_at_checked(14)
                && header.ends_with(&kind)
                && packet.len() > WHOLE
            {
                return Ok(packet.to_vec());
            }
        }
    }
    bail!("no packet of the tunnel comes by")
}

/// The error that says the packet is too long.
fn too_big(from: IpAddr, to: IpAddr, about: &[u8]) -> Result<Vec<u8>> {
    let quote = about.get(..QUOTED).context("too short to be quoted")?;
    let [_, _, high, low] = PATH_MTU.to_be_bytes();
    match (from, to) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let mut payload = [&[3, 4, 0, 0, 0, 0, high, low], quote].concat();
            complete(&mut payload, &[]);
            Ok(Ipv4 { source, destination, protocol: 1, payload }.octets())
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let mut payload = [&[2, 0, 0, 0, 0, 0, high, low], quote].concat();
            let length = u16::try_from(payload.len())?.to_be_bytes();
            let addresses = [source.octets(), destination.octets()].concat();
            complete(&mut payload, &[&addresses[..], &[0, 0], &length, &[0, 0, 0, 58]].concat());
            let header = [&[0x60, 0, 0, 0], &length[..], &[58, 64], &addresses].concat();
            Ok([header, payload].concat())
        }
        _ => bail!("two families"),
    }
}

/// Puts the checksum into an error, which covers the pseudo header, too.
fn complete(error: &mut [u8], pseudo: &[u8]) {
    let sum = checksum(&[pseudo, error].concat()).to_be_bytes();
    if let Some(field) = error.get_mut(2..4) {
        field.copy_from_slice(&sum);
    }
}
