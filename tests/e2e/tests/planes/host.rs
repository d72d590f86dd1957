//! The director's host as a client of its own services, and as their server.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use ipvs_e2e::programs::{curl, run};
use ipvs_e2e::{Bed, Method, Plane, vip};
use ipvs_lab::{HttpServer, Segment, Topology, UdpClient};

pub(crate) const NEEDS: &[&str] = &["curl"];
pub(crate) const NEEDS_IP: &[&str] = &["ip"];

const TIMEOUT: Duration = Duration::from_secs(10);

/// Virtual addresses that are not known to the real servers: they would take a packet from
/// one that is for a forged one.
fn vips() -> Result<[IpAddr; 2]> {
    Ok(["192.0.2.150".parse()?, "2001:db8:c::150".parse()?])
}

/// What the director asks of a virtual address goes to the real servers in turn, from the
/// virtual address as well as from the director's own.
pub(crate) fn asks(plane: Plane) -> Result<()> {
    let bed = Bed::new(plane, 2)?;
    let _servers = bed.serve(8080)?;
    for vip in vips()? {
        bed.lab.director_client_side().add_address(vip.into())?;
        let at = SocketAddr::new(vip, 80);
        bed.ipvsadm(&format!("-A -t {at} -s rr"))?;
        for host in bed.lab.servers() {
            let real = SocketAddr::new(host.address(at.ip()), 8080);
            bed.ipvsadm(&format!("-a -t {at} -r {real} -m"))?;
        }
        let own = bed.lab.director_address(Segment::Server, at.ip()).to_string();
        for source in [at.ip().to_string(), own] {
            let mut pages = BTreeMap::new();
            for _ in 0..4 {
                let page = curl(bed.lab.director(), at, "", &["--interface", &source])
                    .with_context(|| format!("{at} from {source}: {:?}", bed.packets()))?;
                *pages.entry(page.trim().to_owned()).or_insert(0) += 1;
            }
            ensure!(pages.len() == 2 && pages.values().all(|count| *count == 2), "{pages:?}");
        }
        let listing = bed.ipvsadm("-Lnc")?;
        ensure!(listing.contains("TIME_WAIT"), "replies are not seen:\n{listing}");
    }
    Ok(())
}

/// What the director asks goes on, too, where its host has first to find out who the real
/// server is.
pub(crate) fn asks_strangers(plane: Plane) -> Result<()> {
    let mut bed = Bed::new(plane, 1)?;
    let _servers = bed.serve(8080)?;
    let services = vips()?.map(|vip| SocketAddr::new(vip, 80));
    for at in services {
        bed.lab.director_client_side().add_address(at.ip().into())?;
        let host = bed.lab.servers().first().context("no server")?;
        bed.ipvsadm(&format!("-A -u {at} -s rr"))?;
        bed.ipvsadm(&format!("-a -u {at} -r {} -m", SocketAddr::new(host.address(at.ip()), 8080)))?;
    }
    // It has the kernel keep its neighbours known.
    bed.kill_daemon()?;
    for at in services {
        let director = bed.lab.director();
        run(director, "ip", &["neigh", "flush", "dev", Topology::DIRECTOR_SERVER_SIDE])?;
        let client = director.run(|| UdpClient::connect(at))??;
        let answer = client.exchange(b"who is there?", TIMEOUT);
        answer.with_context(|| format!("{at}: the first datagram is lost"))?;
    }
    bed.start_daemon()
}

/// A server on the director answers clients, masqueraded and directly, and what it sends
/// counts.
pub(crate) fn serves(plane: Plane) -> Result<()> {
    let bed = Bed::new(plane, 1)?;
    if plane == Plane::Netfilter {
        // The kernel does not send on to the plane what it has a socket for.
        bed.lab.director().sysctl("net/ipv4/tcp_early_demux", "0")?;
    }
    let _servers = [80, 8080]
        .map(|port| HttpServer::start(bed.lab.director(), "director", port))
        .into_iter()
        .collect::<ipvs_lab::Result<Vec<_>>>()?;
    for v4 in [true, false] {
        for (method, port) in [(Method::Nat, 8080), (Method::DirectRouting, 80)] {
            let at = SocketAddr::new(vip(method, v4), 80);
            let real = SocketAddr::new(bed.lab.director_address(Segment::Server, at.ip()), port);
            bed.ipvsadm(&format!("-A -t {at} -s rr"))?;
            bed.ipvsadm(&format!("-a -t {at} -r {real} {}", method.option()))?;
            for _ in 0..3 {
                let page = curl(bed.lab.client(), at, "", &[])
                    .with_context(|| format!("{at} {method:?}: {:?}", bed.packets()))?;
                ensure!(page.contains("director"), "{page}");
            }
            bed.await_statistics()?;
            let stats = bed.ipvsadm(&format!("-Ln --stats --exact -t {at}"))?;
            let line = stats.lines().last().context("no destination")?;
            let numbers: Vec<u64> =
                line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
            ensure!(numbers.len() == 5 && numbers.iter().all(|it| *it >= 3), "{stats}");
        }
    }
    Ok(())
}
