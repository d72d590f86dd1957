//! Frames that are put on the client's wire and taken off a real server's, as
//! they are.

use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd as _, OwnedFd};

use anyhow::{Context as _, Result};
use ipvs_lab::{Link, MacAddr, Namespace};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, bind, recv, send, setsockopt,
    socket, sockopt,
};

/// Longest frame that is taken.
const LONGEST: usize = 65_600;
/// Room for frames that wait to be taken, in octets.
const BUFFER: usize = 4 << 20;

/// An interface, from which frames are taken and into which they are put.
#[derive(Debug)]
pub struct Port(OwnedFd);

impl Port {
    /// Opens an interface of the namespace.
    pub fn open(namespace: &Namespace, interface: &str) -> Result<Self> {
        namespace.run(|| {
            let mut interfaces = nix::ifaddrs::getifaddrs()?;
            let address = interfaces
                .find_map(|it| {
                    let named = it.interface_name == interface;
                    named.then(|| it.address?.as_link_addr().copied())?
                })
                .with_context(|| format!("no interface {interface}"))?;
            let (kind, flags) = (SockType::Raw, SockFlag::SOCK_CLOEXEC);
            let socket = socket(AddressFamily::Packet, kind, flags, SockProtocol::EthAll)?;
            setsockopt(&socket, sockopt::RcvBuf, &BUFFER)?;
            bind(socket.as_raw_fd(), &address)?;
            Ok(Self(socket))
        })?
    }

    /// Sends a frame.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        let sent = send(self.0.as_raw_fd(), frame, MsgFlags::empty())?;
        anyhow::ensure!(sent == frame.len(), "only {sent} of {} octets were sent", frame.len());
        Ok(())
    }

    /// Takes the frames that have come, and those that this host has sent.
    pub fn take(&self) -> Result<Vec<Vec<u8>>> {
        let mut frames = Vec::new();
        let mut buffer = vec![0; LONGEST];
        loop {
            match recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
                Ok(len) => frames.push(buffer.get(..len).unwrap_or_default().to_vec()),
                Err(Errno::EAGAIN) => return Ok(frames),
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

/// An Ethernet header from one interface to another.
pub fn ethernet(from: &Link, to: &Link, kind: u16) -> Result<Vec<u8>> {
    let (MacAddr(from), MacAddr(to)) = (from.mac()?, to.mac()?);
    Ok([&to[..], &from, &kind.to_be_bytes()].concat())
}

/// The Internet checksum of `octets`.
pub fn checksum(octets: &[u8]) -> u16 {
    let sum: u32 = octets
        .chunks(2)
        .map(|pair| match pair {
            [high, low] => u32::from(u16::from_be_bytes([*high, *low])),
            [high] => u32::from(*high) << 8,
            _ => 0,
        })
        .sum();
    let once = (sum & 0xffff) + (sum >> 16);
    !u16::try_from((once & 0xffff) + (once >> 16)).unwrap_or(u16::MAX)
}

/// An IPv4 packet, correct in all fields.
#[derive(Clone, Debug)]
pub struct Ipv4 {
    /// Source address.
    pub source: Ipv4Addr,
    /// Destination address.
    pub destination: Ipv4Addr,
    /// Protocol number.
    pub protocol: u8,
    /// What follows the header.
    pub payload: Vec<u8>,
}

impl Ipv4 {
    /// Its octets.
    pub fn octets(&self) -> Vec<u8> {
        let length = u16::try_from(20 + self.payload.len()).unwrap_or(u16::MAX);
        let mut header = vec![0x45, 0];
        header.extend(length.to_be_bytes());
        header.extend([0x12, 0x34, 0x40, 0, 64, self.protocol, 0, 0]);
        header.extend(self.source.octets());
        header.extend(self.destination.octets());
        let mut packet = [header, self.payload.clone()].concat();
        repair(&mut packet);
        packet
    }

    /// The pseudo-header, for the checksum of what is inside.
    pub fn pseudo_header(&self) -> Vec<u8> {
        let length = u16::try_from(self.payload.len()).unwrap_or(u16::MAX);
        let mut octets = [self.source.octets(), self.destination.octets()].concat();
        octets.extend([0, self.protocol]);
        octets.extend(length.to_be_bytes());
        octets
    }
}

/// Puts the right checksum into the first 20 octets of an IPv4 packet.
pub fn repair(packet: &mut [u8]) {
    let Some((header, _)) = packet.split_first_chunk_mut::<20>() else { return };
    header[10..12].fill(0);
    let sum = checksum(&header[..]).to_be_bytes();
    header[10..12].copy_from_slice(&sum);
}

/// A UDP datagram over IPv4 with a right checksum.
pub fn udp(
    (source, source_port): (Ipv4Addr, u16),
    (destination, destination_port): (Ipv4Addr, u16),
    data: &[u8],
) -> Ipv4 {
    let length = u16::try_from(8 + data.len()).unwrap_or(u16::MAX);
    let mut payload = [source_port, destination_port, length, 0].map(u16::to_be_bytes).concat();
    payload.extend(data);
    let mut packet = Ipv4 { source, destination, protocol: 17, payload };
    let sum = checksum(&[packet.pseudo_header(), packet.payload.clone()].concat()).to_be_bytes();
    if let Some(field) = packet.payload.get_mut(6..8) {
        field.copy_from_slice(&sum);
    }
    packet
}

/// A TCP segment without data over IPv4 with a right checksum.
pub fn tcp(
    (source, source_port): (Ipv4Addr, u16),
    (destination, destination_port): (Ipv4Addr, u16),
    flags: u8,
) -> Ipv4 {
    let mut payload = [source_port, destination_port].map(u16::to_be_bytes).concat();
    payload.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    let mut packet = Ipv4 { source, destination, protocol: 6, payload };
    let sum = checksum(&[packet.pseudo_header(), packet.payload.clone()].concat()).to_be_bytes();
    if let Some(field) = packet.payload.get_mut(16..18) {
        field.copy_from_slice(&sum);
    }
    packet
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_right_checksum_sums_up_to_nothing() {
        let here = (Ipv4Addr::new(192, 0, 2, 66), 4242);
        let there = (Ipv4Addr::new(192, 0, 2, 100), 7);
        for packet in [udp(here, there, b"odd"), tcp(here, there, 2)] {
            assert_eq!(checksum(&packet.octets()[..20]), 0);
            assert_eq!(checksum(&[packet.pseudo_header(), packet.payload].concat()), 0);
        }
    }
}
