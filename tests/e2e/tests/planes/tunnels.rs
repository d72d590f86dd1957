//! Tunnels of every kind, unpacked by real servers that look at every checksum.

use std::fs;
use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use ipvs_e2e::programs::{curl, nginx, sha256};
use ipvs_e2e::{Bed, Method, Plane, vip};
use ipvs_lab::UdpClient;

use crate::datagrams::exchange;
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
