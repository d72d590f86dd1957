//! News of the host's network.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use netlink_packet_core::NetlinkPayload;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use super::neighbour::Neighbour;
use super::receive;

/// Multicast groups of rtnetlink (`RTNLGRP_*`): links, neighbours, and
/// addresses, routes and rules of both families.
const GROUPS: [u32; 8] = [1, 3, 5, 7, 8, 9, 11, 19];

/// What has happened since the last look.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "any of them may have happened, in any mix")]
pub struct Changes {
    /// An interface came, went or changed.
    pub links: bool,
    /// An address came or went.
    pub addresses: bool,
    /// A route or a rule came, went or changed.
    pub routes: bool,
    /// Neighbours that changed, oldest news first.
    pub neighbours: Vec<Neighbour>,
    /// News were lost: anything may have changed.
    pub lost: bool,
}

impl Changes {
    /// Whether nothing has happened.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A socket on which the kernel says what changes.
///
/// It becomes readable when there are news.
#[derive(Debug)]
pub struct Monitor {
    socket: Socket,
    buffer: Vec<u8>,
}

impl Monitor {
    /// Starts to listen in the calling thread's network namespace.
    pub fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind(&SocketAddr::new(0, 0))?;
        for group in GROUPS {
            socket.add_membership(group)?;
        }
        socket.set_non_blocking(true)?;
        Ok(Self { socket, buffer: Vec::new() })
    }

    /// Takes all news that are there.
    pub fn drain(&mut self) -> io::Result<Changes> {
        let mut changes = Changes::default();
        loop {
            match receive(&self.socket, &mut self.buffer, 0) {
                Ok(messages) => {
                    for message in messages {
                        if let NetlinkPayload::InnerMessage(inner) = message.payload {
                            changes.add(&inner);
                        }
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(changes),
                Err(error)
                    if error.raw_os_error() == Some(libc::ENOBUFS)
                        || error.kind() == io::ErrorKind::InvalidData =>
                {
                    changes.lost = true;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl Changes {
    fn add(&mut self, message: &RouteNetlinkMessage) {
        use RouteNetlinkMessage::*;
        match message {
            NewLink(_) | DelLink(_) => self.links = true,
            NewAddress(_) | DelAddress(_) => self.addresses = true,
            NewRoute(_) | DelRoute(_) | NewRule(_) | DelRule(_) => self.routes = true,
            NewNeighbour(message) => self.neighbours.extend(Neighbour::of(message)),
            DelNeighbour(message) => {
                // A deleted entry still says the address it had.
                self.neighbours.extend(Neighbour::of(message).map(Neighbour::forgotten));
            }
            _ => {}
        }
    }
}

impl AsFd for Monitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
