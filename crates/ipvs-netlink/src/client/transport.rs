//! Ways to reach a director: its socket, the kernel, or the same process.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use ipvs_core::snapshot::Control;
use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, bind, connect,
    recv, send, sendto, socket_with,
};

use crate::{Access, Conversation};

/// Longest datagram that is read, in octets; no director sends longer ones.
const BUFFER_LEN: usize = 64 * 1024;

/// Sends requests and receives the datagrams of their answers.
pub trait Transport {
    /// Sends one message.
    fn send(&mut self, message: &[u8]) -> io::Result<()>;

    /// Waits for a datagram and puts it into `buffer`, in place of what was there.
    fn receive(&mut self, buffer: &mut Vec<u8>) -> io::Result<()>;

    /// Whether the other side is a kernel, which shows connections in `/proc` only.
    fn is_kernel(&self) -> bool {
        false
    }
}

impl<T: Transport + ?Sized> Transport for Box<T> {
    fn send(&mut self, message: &[u8]) -> io::Result<()> {
        (**self).send(message)
    }

    fn receive(&mut self, buffer: &mut Vec<u8>) -> io::Result<()> {
        (**self).receive(buffer)
    }

    fn is_kernel(&self) -> bool {
        (**self).is_kernel()
    }
}

/// Receives one datagram from a socket.
fn receive_from(socket: &OwnedFd, buffer: &mut Vec<u8>) -> io::Result<()> {
    buffer.resize(BUFFER_LEN, 0);
    let (_, len) = recv(socket, buffer.as_mut_slice(), RecvFlags::TRUNC)?;
    if len == 0 {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the director hung up"));
    }
    if len > BUFFER_LEN {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a datagram too long to read"));
    }
    buffer.truncate(len);
    Ok(())
}

/// A daemon's unix socket (`SOCK_SEQPACKET`): one message a packet.
#[derive(Debug)]
pub struct SeqpacketTransport {
    socket: OwnedFd,
}

impl SeqpacketTransport {
    /// Connects to the socket at `path`.
    pub fn connect(path: &Path) -> io::Result<Self> {
        let socket =
            socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        connect(&socket, &SocketAddrUnix::new(path)?)?;
        Ok(Self { socket })
    }
}

impl Transport for SeqpacketTransport {
    fn send(&mut self, message: &[u8]) -> io::Result<()> {
        send(&self.socket, message, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    fn receive(&mut self, buffer: &mut Vec<u8>) -> io::Result<()> {
        receive_from(&self.socket, buffer)
    }
}

/// The kernel's own IPVS, over generic netlink.
#[derive(Debug)]
pub struct KernelTransport {
    socket: OwnedFd,
}

impl KernelTransport {
    /// Opens a netlink socket in this network namespace.
    pub fn open() -> io::Result<Self> {
        let protocol = Some(netlink::GENERIC);
        let socket =
            socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)?;
        bind(&socket, &SocketAddrNetlink::new(0, 0))?;
        Ok(Self { socket })
    }
}

impl Transport for KernelTransport {
    fn send(&mut self, message: &[u8]) -> io::Result<()> {
        sendto(&self.socket, message, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
        Ok(())
    }

    fn receive(&mut self, buffer: &mut Vec<u8>) -> io::Result<()> {
        receive_from(&self.socket, buffer)
    }

    fn is_kernel(&self) -> bool {
        true
    }
}

/// A [`Control`] in this process, asked in bytes all the same.
pub struct LocalTransport<'a> {
    control: &'a mut dyn Control,
    conversation: Conversation,
    datagrams: VecDeque<Vec<u8>>,
}

impl<'a> LocalTransport<'a> {
    /// Answers from `control`.
    pub fn new(control: &'a mut dyn Control) -> Self {
        let conversation = Conversation::new(Access::Admin);
        Self { control, conversation, datagrams: VecDeque::new() }
    }
}

impl fmt::Debug for LocalTransport<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalTransport").field("datagrams", &self.datagrams).finish_non_exhaustive()
    }
}

impl Transport for LocalTransport<'_> {
    fn send(&mut self, message: &[u8]) -> io::Result<()> {
        let Self { control, conversation, datagrams } = self;
        conversation.serve(message, *control, &mut |bytes| datagrams.push_back(bytes.to_vec()));
        Ok(())
    }

    fn receive(&mut self, buffer: &mut Vec<u8>) -> io::Result<()> {
        *buffer = self.datagrams.pop_front().ok_or(io::ErrorKind::UnexpectedEof)?;
        Ok(())
    }
}
