//! The sending half of a packet socket: frames leave in batches.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use ipvs_core::own::FROM_DAEMON;
use rustix::net::sockopt;

use super::pool::Pool;
use super::sys::{self, BATCH};
use super::virtio::{self, VirtioHeader};
use crate::frame::Frame;

/// Octets that may wait in the socket's queues.
pub(crate) const QUEUE: usize = 16 << 20;

/// A packet socket on one interface.
#[derive(Debug)]
pub(crate) struct Outlet {
    socket: OwnedFd,
    outgoing: Vec<Frame>,
    headers: Vec<[u8; virtio::LEN]>,
    /// Frames sent.
    pub(crate) sent: u64,
    /// Frames that the kernel or the interface refused.
    pub(crate) unsent: u64,
}

impl Outlet {
    /// A socket that is not bound to an interface yet.
    pub(crate) fn new() -> io::Result<Self> {
        let socket = sys::packet_socket()?;
        sys::set_packet_option(socket.as_fd(), libc::PACKET_VNET_HDR, &1_i32)?;
        let _ = sockopt::set_socket_send_buffer_size_force(&socket, QUEUE)
            .or_else(|_not_allowed| sockopt::set_socket_send_buffer_size(&socket, QUEUE));
        Ok(Self {
            socket,
            outgoing: Vec::with_capacity(BATCH),
            headers: Vec::with_capacity(BATCH),
            sent: 0,
            unsent: 0,
        })
    }

    /// A socket that sends by interface `ifindex` and receives nothing, for a daemon whose
    /// programs look at what the host sends.
    pub(crate) fn open(ifindex: u32) -> io::Result<Self> {
        let outlet = Self::new()?;
        sys::set_priority(outlet.as_fd(), FROM_DAEMON)?;
        sys::bind(outlet.as_fd(), ifindex, 0)?;
        Ok(outlet)
    }

    /// The socket.
    pub(crate) fn socket(&self) -> &OwnedFd {
        &self.socket
    }

    /// Sends a frame with the next batch.
    pub(crate) fn send(&mut self, frame: Frame, pool: &mut Pool) {
        let Some(header) = VirtioHeader::of(&frame) else {
            self.unsent += 1;
            pool.give(frame);
            return;
        };
        self.outgoing.push(frame);
        self.headers.push(header.octets());
        if self.outgoing.len() >= BATCH {
            self.flush(pool);
        }
    }

    /// Sends what waits to be sent.
    pub(crate) fn flush(&mut self, pool: &mut Pool) {
        let mut done = 0;
        while let (Some(headers), Some(frames)) =
            (self.headers.get(done..), self.outgoing.get(done..))
            && !frames.is_empty()
        {
            match sys::send(self.socket.as_fd(), headers, frames) {
                Ok(sent) => {
                    self.sent += sent as u64;
                    done += sent.max(1);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    tracing::trace!(socket = ?self.socket, %error, "a frame was not sent");
                    self.unsent += 1;
                    done += 1;
                }
            }
        }
        self.headers.clear();
        self.outgoing.drain(..).for_each(|frame| pool.give(frame));
    }
}

impl AsFd for Outlet {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
