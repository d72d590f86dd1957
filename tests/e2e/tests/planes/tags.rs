//! Packets with a VLAN tag.

use std::net::{IpAddr, Ipv4Addr};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use ipvs_e2e::frames::{Port, ethernet, udp};
use ipvs_e2e::{Bed, METHODS, Plane, vip};

const PORT: u16 = 7;
const FROM: u16 = 4242;
/// Of VLAN 5, IPv4 behind it.
const TAG: [u8; 4] = [0, 5, 8, 0];
const TAGGED: u16 = 0x8100;
const PATIENCE: Duration = Duration::from_secs(10);

/// A real server, which is in no VLAN, gets what a client has sent in one.
pub(crate) fn stay_behind(plane: Plane) -> Result<()> {
    let bed = Bed::new(plane, 1)?;
    let servers = bed.serve(PORT)?;
    let server = servers.first().context("no server")?;
    bed.make_services("-u", PORT, "rr", |_| PORT)?;
    let port = Port::open(bed.lab.switch(), "c-director")?;
    let header = ethernet(bed.lab.client_link(), bed.lab.director_client_side(), TAGGED)?;
    let IpAddr::V4(client) = bed.lab.client_address(Ipv4Addr::UNSPECIFIED.into()) else {
        bail!("no address of IPv4")
    };
    for (answered, method) in (1..).zip(METHODS) {
        let IpAddr::V4(at) = vip(method, true) else { bail!("no address of IPv4") };
        let packet = udp((client, FROM), (at, PORT), b"tagged").octets();
        port.send(&[&header[..], &TAG, &packet].concat())?;
        let deadline = Instant::now() + PATIENCE;
        while server.udp.datagrams() < answered {
            ensure!(Instant::now() < deadline, "{method:?}: nothing came: {:?}", bed.packets());
            thread::sleep(Duration::from_millis(5));
        }
    }
    Ok(())
}
