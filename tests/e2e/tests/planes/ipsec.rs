//! What follows a connection of IKE: ESP, and over IPv4 AH.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use ipvs_e2e::{Bed, Method, Plane, vip};
use ipvs_lab::{Namespace, UdpClient};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketType, ipproto, recvfrom, sendto, socket,
};

const IKE: u16 = 500;
const TIMEOUT: Duration = Duration::from_secs(10);
/// As long as a header and some more.
const PACKET: &[u8] = b"not a secret, but nobody in between can tell";

/// Packets go to the server that the exchange of keys went to, and back by the virtual address.
pub(crate) fn followed(plane: Plane) -> Result<()> {
    let bed = Bed::new(plane, 2)?;
    let _servers = bed.serve(IKE)?;
    bed.make_services("-u", IKE, "rr", |_| IKE)?;
    for (method, v4) in
        [Method::Nat, Method::DirectRouting].map(|m| [(m, true), (m, false)]).concat()
    {
        let at = SocketAddr::new(vip(method, v4), IKE);
        let client = bed.lab.client();
        let address = bed.lab.client_address(at.ip());
        let from = SocketAddr::new(address, IKE);
        let keys = client.run(|| UdpClient::connect_from(from, at))??;
        let answer = keys.exchange(b"keys", TIMEOUT)?;
        let host = bed.lab.servers().iter().find(|host| host.name() == answer.server);
        let host = host.context("nobody of that name")?;
        let protocols: &[Protocol] =
            if v4 { &[ipproto::ESP, ipproto::AH] } else { &[ipproto::ESP] };
        for protocol in protocols {
            let what = || format!("{at} {protocol:?}: {:?}", bed.packets());
            let here = open(client, *protocol, v4)?;
            let there = open(host.namespace(), *protocol, v4)?;
            let to = SocketAddr::new(at.ip(), 0);
            sendto(&here, PACKET, SendFlags::empty(), &to)?;
            ensure!(taken(&there).with_context(what)? == address, "not the client's");
            let back = SocketAddr::new(address, 0);
            if method == Method::Nat {
                sendto(&there, PACKET, SendFlags::empty(), &back)?;
                ensure!(taken(&here).with_context(what)? == at.ip(), "not the service's");
            }
        }
    }
    Ok(())
}

/// A socket for all packets of the protocol that the host takes.
fn open(namespace: &Namespace, protocol: Protocol, v4: bool) -> Result<OwnedFd> {
    let family = if v4 { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = namespace.run(|| socket(family, SocketType::RAW, Some(protocol)))??;
    set_socket_timeout(&socket, Timeout::Recv, Some(TIMEOUT))?;
    Ok(socket)
}

/// Takes the packet, and says where it came from.
fn taken(socket: &OwnedFd) -> Result<IpAddr> {
    let mut octets = [0; 1500];
    let (_, length, from) = recvfrom(socket, &mut octets, RecvFlags::empty())?;
    let octets = octets.get(..length).unwrap_or_default();
    ensure!(octets.ends_with(PACKET), "another packet: {octets:?}");
    let from = from.context("from nowhere")?;
    Ok(SocketAddr::try_from(from)?.ip())
}
