//! Tunnels of every kind, unpacked by real servers that look at every checksum.

use std::fs;
use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use ipvs_e2e::programs::{curl, nginx, sha256};
use ipvs_e2e::{Bed, Method, Plane, vip};

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
