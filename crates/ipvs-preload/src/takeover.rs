//! Sockets that are led to the daemon.
//!
//! Which family a generic-netlink socket is for is not known before the program asks
//! the controller for the family's number. The request for `IPVS` is the moment:
//! the descriptor is made one of a connection to the daemon, which answers that request
//! and all that follow. Nothing is remembered: a descriptor is the daemon's if the other
//! end of its socket is, so copies of it and child processes are no special case.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use ipvs_netlink::controller;
use ipvs_netlink::message::{Message, Messages, kind};
use ipvs_netlink::{Errno, conn, numbers};
use rustix::fs::{OFlags, fcntl_getfl};
use rustix::io::{FdFlags, fcntl_getfd};
use rustix::net::sockopt::{
    Timeout, set_socket_timeout, socket_domain, socket_protocol, socket_timeout,
};
use rustix::net::{
    AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, getpeername,
    netlink, send, socket_with,
};

use crate::socket;

/// What becomes of a datagram that the program sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    /// It is none of ours: it is sent as the program wants it.
    Untouched,
    /// The daemon has it.
    ToDaemon(usize),
}

/// Octets of a datagram that decide.
pub(crate) const DECISIVE: usize = 256;

/// Sends a datagram if it is for the daemon. `start` is its first octets, up to
/// [`DECISIVE`], and `whole` gives all of them.
pub(crate) fn send_if_ours(
    fd: BorrowedFd<'_>,
    start: &[u8],
    flags: SendFlags,
    whole: impl FnOnce() -> Vec<u8>,
) -> Result<Sent, Errno> {
    // Cheap, and enough for nearly all that a program ever sends.
    let Some(message) = first(start) else { return Ok(Sent::Untouched) };
    if is_ours(fd) {
    } else if asks_for_us(&message) && is_generic_netlink(fd) {
        take_over(fd)?;
    } else {
        return Ok(Sent::Untouched);
    }
    let datagram = whole();
    let flags = flags | SendFlags::NOSIGNAL;
    let sent = match send(fd, &datagram, flags) {
        // The daemon was started anew since; the plane went on, and so does this socket.
        Err(Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN | Errno::CONNREFUSED) => {
            take_over(fd)?;
            send(fd, &datagram, flags)
        }
        sent => sent,
    };
    sent.map(Sent::ToDaemon)
}

/// The message at the start of a datagram, if it may be one for a family of ours.
fn first(start: &[u8]) -> Option<Message<'_>> {
    let header = ipvs_netlink::message::Header::parse(start)?;
    let known = [controller::ID, numbers::FAMILY_ID, conn::FAMILY_ID].contains(&header.kind);
    if !known || header.kind < kind::FIRST_FAMILY || socket().is_none() {
        return None;
    }
    // A longer message than `start` is not looked into, only led.
    Messages(start).next().or(Some(Message { header, bytes: start }))
}

/// Whether a program asks for the number of one of our families.
fn asks_for_us(message: &Message<'_>) -> bool {
    let Some((command, attrs)) = message.generic() else { return false };
    message.header.kind == controller::ID
        && command == controller::GET_FAMILY
        && [numbers::FAMILY_NAME, conn::FAMILY_NAME]
            .iter()
            .any(|name| controller::read_name(attrs) == Some(name.as_bytes()))
}

fn is_generic_netlink(fd: BorrowedFd<'_>) -> bool {
    socket_domain(fd) == Ok(AddressFamily::NETLINK)
        && socket_protocol(fd) == Ok(Some(netlink::GENERIC))
}

/// Whether a socket may become the daemon's, or be connected to it anew.
pub(crate) fn may_be_replaced(fd: BorrowedFd<'_>) -> bool {
    is_generic_netlink(fd) || is_ours(fd)
}

/// Whether the daemon is at the other end.
pub(crate) fn is_ours(fd: BorrowedFd<'_>) -> bool {
    let Some(path) = socket() else { return false };
    let Ok(Some(peer)) = getpeername(fd) else { return false };
    let Ok(peer) = SocketAddrUnix::try_from(peer) else { return false };
    let Some(peer) = peer.path_bytes() else { return false };
    // The daemon's socket lies under another name while the daemon is not ready.
    let path = path.as_os_str().as_encoded_bytes();
    peer == path || peer.strip_suffix(b".new") == Some(path)
}

/// Makes the descriptor one of a new connection to the daemon.
fn take_over(fd: BorrowedFd<'_>) -> Result<(), Errno> {
    let path = socket().ok_or(Errno::NOENT)?;
    let kind = SocketType::SEQPACKET;
    let new = socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)?;
    connect(&new, &SocketAddrUnix::new(path)?)?;
    inherit(fd, &new)?;
    crate::hooks::replace(fd, new.as_fd(), fcntl_getfd(fd)?.contains(FdFlags::CLOEXEC))
}

/// Gives a socket what the program had set on the one that it replaces.
fn inherit(from: BorrowedFd<'_>, to: &OwnedFd) -> Result<(), Errno> {
    for timeout in [Timeout::Recv, Timeout::Send] {
        set_socket_timeout(to, timeout, socket_timeout(from, timeout)?)?;
    }
    let nonblocking = fcntl_getfl(from)?.contains(OFlags::NONBLOCK);
    rustix::io::ioctl_fionbio(to, nonblocking)
}
