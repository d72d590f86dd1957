//! What a tunnel's real server does with a tunnelled packet: it takes off the outer header and
//! receives the inner packet, without any tunnel device.

use std::{
    io::{self, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::AsFd,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::eventfd::EventFd,
};
use socket2::{Domain, Protocol, Socket, Type};

use crate::{
    Link, Namespace,
    error::{Doing, Result},
    joined::Joined,
    link::{End, veth},
    outer::{self, Refusal},
    sys,
};

/// The interface at which inner packets arrive.
const INNER: &str = "decap0";
/// Its other end, into which they are fed.
const FEED: &str = "decap1";
/// Large enough for every packet, so that nothing is ever too long for the pair.
const PAIR_MTU: u32 = 65_535;
/// Virtio-net, Ethernet and the largest IP packet, with room to spare.
const FRAME_LEN: usize = 128 * 1024;

/// Unpacks IPv4 and IPv6 packets that come to an interface inside IPv4 or IPv6 (protocols 4 and
/// 41, GUE at UDP port 6080, or GRE), in any mix.
///
/// A packet socket reads the tunnelled frames, so that unfilled checksums and segments larger than
/// the MTU come through as they are, and the inner packet is sent into one end of a veth pair in
/// the same namespace, with the other end of which the kernel receives it. (A TUN device would do,
/// but `/dev/net/tun` is closed to unprivileged users on some systems.) The outer packet reaches
/// the kernel too; sockets for them keep it from answering that nobody is there.
///
/// The namespace must not filter by reverse path: make it with [`Namespace::for_lab`]. Outer
/// packets in fragments are unpacked if those come in order. It stops when dropped.
#[derive(Debug)]
pub struct Decapsulator {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    feed: Option<Link>,
}

#[derive(Debug, Default)]
struct Counters {
    unpacked: AtomicU64,
    malformed: AtomicU64,
    fragments: AtomicU64,
    lost: AtomicU64,
}

#[derive(Debug)]
struct Shared {
    stop: EventFd,
    counters: Counters,
}

/// What a [`Decapsulator`] counted since it was started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DecapsulatorStats {
    /// Packets that were unpacked and handed to the kernel; a large segment counts once.
    pub unpacked: u64,
    /// Tunnelled packets whose lengths, versions or outer checksum contradict each other.
    pub malformed: u64,
    /// Outer packets that were fragments.
    pub fragments: u64,
    /// Inner packets that the kernel would not take.
    pub lost: u64,
}

impl Decapsulator {
    /// Starts to unpack what comes to `link`; one decapsulator a namespace.
    pub fn start(link: &Link) -> Result<Self> {
        let namespace = link.namespace();
        let doing = || format!("unpack tunnelled packets of {link}");
        let (inner, feed) =
            veth(End::new(namespace, INNER), End::new(namespace, FEED), Some(PAIR_MTU))?;
        let mut decapsulator = Self {
            shared: Arc::new(Shared {
                stop: EventFd::new().doing(doing)?,
                counters: Counters::default(),
            }),
            thread: None,
            feed: Some(feed.clone()),
        };
        // The feeding end is no host's: it takes part in nothing.
        feed.sysctl("ipv6", "disable_ipv6", "1")?;
        inner.sysctl("ipv4", "rp_filter", "0")?;
        inner.wait_until_running(crate::topology::CARRIER_TIMEOUT)?;

        let worker = Worker::new(&decapsulator.shared, link, &inner, &feed)?;
        let thread = thread::Builder::new()
            .name(format!("{} decap", namespace.name()))
            .spawn(move || worker.unpack_until_stopped())
            .doing(doing)?;
        decapsulator.thread = Some(thread);
        Ok(decapsulator)
    }

    /// What was counted so far.
    pub fn stats(&self) -> DecapsulatorStats {
        let counters = &self.shared.counters;
        DecapsulatorStats {
            unpacked: counters.unpacked.load(Ordering::Relaxed),
            malformed: counters.malformed.load(Ordering::Relaxed),
            fragments: counters.fragments.load(Ordering::Relaxed),
            lost: counters.lost.load(Ordering::Relaxed),
        }
    }

    /// Stops and waits until the thread ended and the interfaces are gone.
    pub fn stop(self) {
        drop(self);
    }
}

impl Drop for Decapsulator {
    fn drop(&mut self) {
        // Fails only if the counter is full, and then the thread has been told already.
        let _ = self.shared.stop.write(1);
        if let Some(thread) = self.thread.take() {
            // A panic there was reported by its own thread.
            let _ = thread.join();
        }
        if let Some(feed) = self.feed.take() {
            // It goes with the namespace at the latest.
            let _ = feed.remove();
        }
    }
}

struct Worker {
    shared: Arc<Shared>,
    receiver: Socket,
    sender: Socket,
    _silencers: Vec<Socket>,
    /// Destination and source of the frames with inner packets.
    addresses: [u8; 12],
}

impl Worker {
    fn new(shared: &Arc<Shared>, link: &Link, inner: &Link, feed: &Link) -> Result<Self> {
        let namespace = link.namespace();
        let doing = || format!("open packet sockets in {}", namespace.name());
        let [to, from] = [inner.mac()?.0, feed.mac()?.0];
        let mut addresses = [0; 12];
        let (destination, source) = addresses.split_at_mut(to.len());
        destination.copy_from_slice(&to);
        source.copy_from_slice(&from);
        Ok(Self {
            shared: Arc::clone(shared),
            receiver: namespace.run(|| open_receiver(link.index()))?.doing(doing)?,
            sender: namespace.run(|| open_sender(feed.index()))?.doing(doing)?,
            _silencers: open_silencers(namespace).doing(doing)?,
            addresses,
        })
    }

    fn unpack_until_stopped(&self) {
        let mut frame = vec![0; FRAME_LEN];
        let mut inner = Vec::with_capacity(FRAME_LEN);
        let mut joined = Joined::default();
        loop {
            let mut ready = [
                PollFd::new(self.receiver.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.shared.stop.as_fd(), PollFlags::POLLIN),
            ];
            if poll(&mut ready, PollTimeout::NONE).is_err() {
                continue; // interrupted by a signal
            }
            if ready[1].any() == Some(true) {
                return;
            }
            // An error is "no more".
            while let Ok(length) = (&self.receiver).read(&mut frame) {
                self.unpack(frame.get(..length).unwrap_or_default(), &mut inner, &mut joined);
            }
        }
    }

    fn unpack(&self, frame: &[u8], inner: &mut Vec<u8>, joined: &mut Joined) {
        let counters = &self.shared.counters;
        let counter = match outer::strip(frame, self.addresses, inner) {
            Ok(()) => match (&self.sender).write(inner) {
                Ok(_) => &counters.unpacked,
                Err(_) => &counters.lost,
            },
            Err(Refusal::Malformed) => &counters.malformed,
            Err(Refusal::Fragment) => {
                if let Some(whole) = joined.take(frame) {
                    self.unpack(&whole, inner, joined);
                }
                &counters.fragments
            }
            Err(Refusal::NotTunnelled) => return,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// A packet socket that gets what comes to the interface for this host and looks tunnelled.
fn open_receiver(index: u32) -> io::Result<Socket> {
    let socket = Socket::new(Domain::PACKET, Type::RAW, None)?;
    sys::set_vnet_header(&socket)?;
    sys::attach_filter(&socket, &TUNNELLED)?;
    sys::raise_receive_buffer(&socket, 16 << 20)?;
    socket.set_nonblocking(true)?;
    // Nothing is received before this.
    sys::bind_packet_socket(&socket, index, libc::ETH_P_ALL)?;
    Ok(socket)
}

/// A packet socket that only sends.
fn open_sender(index: u32) -> io::Result<Socket> {
    let socket = Socket::new(Domain::PACKET, Type::RAW, None)?;
    sys::set_vnet_header(&socket)?;
    sys::bind_packet_socket(&socket, index, 0)?;
    Ok(socket)
}

/// Sockets whose being there keeps the kernel from answering that protocol or port is unknown.
fn open_silencers(namespace: &Namespace) -> io::Result<Vec<Socket>> {
    let open = |(domain, protocol): (Domain, u8)| {
        let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(i32::from(protocol))))?;
        sys::attach_filter(&socket, &NOTHING)?;
        Ok(socket)
    };
    let bind = |address: IpAddr| {
        let address = SocketAddr::new(address, outer::GUE_PORT);
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, None)?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        sys::attach_filter(&socket, &NOTHING)?;
        // Whoever else unpacks in the namespace silences that port, too.
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        Ok(socket)
    };
    let protocols = [outer::IPIP, outer::IPV6, outer::GRE];
    let kinds = [Domain::IPV4, Domain::IPV6].map(|domain| protocols.map(|it| (domain, it)));
    let any = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
    let open_all =
        || kinds.into_iter().flatten().map(open).chain(any.into_iter().map(bind)).collect();
    namespace.run(open_all).map_err(io::Error::other)?
}

const fn instruction(code: u16, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter { code, jt, jf, k }
}

const LOAD_WORD: u16 = 0x20;
const LOAD_HALF: u16 = 0x28;
const LOAD_BYTE: u16 = 0x30;
const JUMP: u16 = 0x05;
const JUMP_IF_EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;
/// `SKF_AD_OFF + SKF_AD_PKTTYPE`: 0 for a packet to this host.
const PACKET_TYPE: u32 = 0xffff_f004;

/// To this host; IPv4 or IPv6; protocol 4, 41, GRE or UDP, or destination options or a fragment
/// header before them.
const TUNNELLED: [libc::sock_filter; 16] = [
    instruction(LOAD_WORD, 0, 0, PACKET_TYPE),
    instruction(JUMP_IF_EQUAL, 0, 12, 0), // else 14
    instruction(LOAD_HALF, 0, 0, 12),
    instruction(JUMP_IF_EQUAL, 0, 2, 0x0800), // else 6
    instruction(LOAD_BYTE, 0, 0, 23),
    instruction(JUMP, 0, 0, 2),               // 8
    instruction(JUMP_IF_EQUAL, 0, 7, 0x86dd), // else 14
    instruction(LOAD_BYTE, 0, 0, 20),
    instruction(JUMP_IF_EQUAL, 6, 0, 4),  // 15
    instruction(JUMP_IF_EQUAL, 5, 0, 41), // 15
    instruction(JUMP_IF_EQUAL, 4, 0, 60), // 15
    instruction(JUMP_IF_EQUAL, 3, 0, 44), // 15
    instruction(JUMP_IF_EQUAL, 2, 0, 47), // 15
    instruction(JUMP_IF_EQUAL, 1, 0, 17), // 15
    instruction(RETURN, 0, 0, 0),
    instruction(RETURN, 0, 0, u32::MAX),
];

const NOTHING: [libc::sock_filter; 1] = [instruction(RETURN, 0, 0, 0)];

#[cfg(test)]
mod tests;
