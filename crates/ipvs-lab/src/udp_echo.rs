//! The UDP service of a real server: it answers with its name, what it sees, and the datagram.

use std::{
    io::{self, IoSlice, IoSliceMut},
    net::{Ipv6Addr, SocketAddr},
    os::fd::{AsFd, AsRawFd},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        eventfd::EventFd,
        socket::{
            ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn6, recvmsg, sendmsg,
            setsockopt, sockopt,
        },
    },
};
use socket2::{Domain, Protocol, Socket, Type};

use crate::{
    Namespace, Seen,
    error::{Doing, Result},
};

/// A UDP server on the wildcard address of a namespace, IPv4 and IPv6, that answers every
/// datagram with `NAME CLIENT AT`, a blank and the datagram, from the address the datagram was sent
/// to; see [`Seen`] for the two addresses.
///
/// It stops when dropped.
#[derive(Debug)]
pub struct UdpEcho {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    name: String,
    port: u16,
    stop: EventFd,
    answered: AtomicU64,
}

impl UdpEcho {
    /// Starts a server that calls itself `name` on `port` of `namespace`.
    pub fn start(namespace: &Namespace, name: &str, port: u16) -> Result<Self> {
        let doing = || format!("serve UDP on port {port} of {}", namespace.name());
        let socket = namespace.run(|| open(port))?.doing(doing)?;
        let shared = Arc::new(Shared {
            name: name.to_owned(),
            port,
            stop: EventFd::new().doing(doing)?,
            answered: AtomicU64::new(0),
        });
        let thread = thread::Builder::new()
            .name(format!("{name} udp"))
            .spawn({
                let shared = Arc::clone(&shared);
                move || shared.answer_until_stopped(&socket)
            })
            .doing(doing)?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// How many datagrams were answered.
    pub fn datagrams(&self) -> u64 {
        self.shared.answered.load(Ordering::Relaxed)
    }

    /// Closes the socket and waits until the thread ended.
    pub fn stop(self) {
        drop(self);
    }
}

impl Drop for UdpEcho {
    fn drop(&mut self) {
        // Fails only if the counter is full, and then the thread has been told already.
        let _ = self.shared.stop.write(1);
        if let Some(thread) = self.thread.take() {
            // A panic there was reported by its own thread.
            let _ = thread.join();
        }
    }
}

fn open(port: u16) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV6, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_only_v6(false)?;
    // Gives the destination of IPv4 datagrams too, as a mapped address.
    setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
    socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)).into())?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

impl Shared {
    fn answer_until_stopped(&self, socket: &Socket) {
        let mut datagram = vec![0; 65_536];
        loop {
            let mut ready = [
                PollFd::new(socket.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.stop.as_fd(), PollFlags::POLLIN),
            ];
            if poll(&mut ready, PollTimeout::NONE).is_err() {
                continue; // interrupted by a signal
            }
            if ready[1].any() == Some(true) {
                return;
            }
            // An error is "no more", or an ICMP error for an earlier answer.
            while let Ok(()) = self.answer_one(socket, &mut datagram) {}
        }
    }

    fn answer_one(&self, socket: &Socket, datagram: &mut [u8]) -> io::Result<()> {
        let mut control = nix::cmsg_space!(libc::in6_pktinfo);
        let mut parts = [IoSliceMut::new(datagram)];
        let received = recvmsg::<SockaddrIn6>(
            socket.as_raw_fd(),
            &mut parts,
            Some(&mut control),
            MsgFlags::empty(),
        )?;
        let sent_to = received.cmsgs()?.find_map(|message| match message {
            ControlMessageOwned::Ipv6PacketInfo(info) => Some(info),
            _ => None,
        });
        let (client, length) = (received.address, received.bytes);
        let seen = client.zip(sent_to).map(|(client, at)| {
            let at = Ipv6Addr::from(at.ipi6_addr.s6_addr);
            Seen::new((client.ip(), client.port()).into(), (at, self.port).into()).to_string()
        });
        let seen = seen.unwrap_or_default();
        // Only the address is wanted: the answer leaves by the route, not by the interface that
        // the datagram came in by (which may be that of a decapsulator).
        let source = sent_to.map(|info| libc::in6_pktinfo { ipi6_ifindex: 0, ..info });
        let control: Vec<_> = source.iter().map(ControlMessage::Ipv6PacketInfo).collect();
        // Before it leaves: who has the answer may look.
        self.answered.fetch_add(1, Ordering::Relaxed);
        let answer = [
            IoSlice::new(self.name.as_bytes()),
            IoSlice::new(b" "),
            IoSlice::new(seen.as_bytes()),
            IoSlice::new(b" "),
            IoSlice::new(datagram.get(..length).unwrap_or_default()),
        ];
        sendmsg(socket.as_raw_fd(), &answer, &control, MsgFlags::empty(), client.as_ref())?;
        Ok(())
    }
}
