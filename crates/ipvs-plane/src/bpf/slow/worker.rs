//! The thread of the slow path: it takes packets out of the ring and leads
//! them through the director.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::Duration;

use aya::maps::{MapData, RingBuf};
use ipvs_core::deferred::Head;
use ipvs_core::director::{self, Arrival, Scratch};
use ipvs_core::tables::Tables as _;
use ipvs_core::time::Instant;
use ipvs_core::verdict::Verdict;
use ipvs_wire::ethernet;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use zerocopy::FromBytes as _;

use super::tables::{SlowTables, typed};
use crate::bpf::StartError;
use crate::bpf::door::{self, HOST_MAC, PLANE_MAC};
use crate::bpf::object::Maps;
use crate::frame::Frame;
use crate::packet::host::LinuxHost;
use crate::packet::leaving::{Leaving, Outlets};
use crate::packet::outlet::Outlet;
use crate::packet::pool::Pool;
use crate::packet::unfilled;
use crate::reassembly::{Expired, Reassembly};
use crate::rtnetlink::{Monitor, NeighbourState};

/// Packets between two looks for other things.
const TURNS: u32 = 64;
/// Between two looks at what waits, while something does.
const LOOK: Duration = Duration::from_secs(1);
/// Octets of the addresses of an Ethernet frame, in front of a tag.
const ADDRESSES: usize = 12;
/// A packet that the host takes in by its door is not longer than this.
const DOOR_MTU: u32 = 65_535;

/// What others ask of the thread: it is done between two packets.
pub(super) type Request = Box<dyn FnOnce(&mut Worker) + Send>;

/// The thread's own.
pub(super) struct Worker {
    ring: RingBuf<MapData>,
    tables: SlowTables,
    scratch: Scratch,
    reassembly: Reassembly,
    leaving: Leaving,
    sockets: Sockets,
    monitor: Monitor,
    /// Packets for the host that could not be given to it.
    undelivered: u64,
    running: bool,
}

/// Packet sockets, opened as they are needed.
#[derive(Default)]
struct Sockets {
    by_index: HashMap<u32, Outlet>,
    /// Frames for an interface that no socket could be opened on.
    unopened: u64,
}

impl Outlets for Sockets {
    fn send(&mut self, frame: Frame, ifindex: u32, pool: &mut Pool) {
        let outlet = match self.by_index.entry(ifindex) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => match Outlet::open(ifindex) {
                Ok(outlet) => entry.insert(outlet),
                Err(error) => {
                    tracing::warn!(%error, ifindex, "the slow path cannot send there");
                    self.unopened += 1;
                    pool.give(frame);
                    return;
                }
            },
        };
        outlet.send(frame, pool);
    }
}

impl Worker {
    /// Opens everything in the calling thread's network namespace.
    pub(super) fn new(mut maps: Maps) -> Result<Self, StartError> {
        // Before the first question, so that no change is missed.
        let monitor = Monitor::open().map_err(StartError::Netlink)?;
        let host = LinuxHost::open().map_err(StartError::Netlink)?;
        let ring = typed(&mut maps, "IPVS_SLOW")?;
        Ok(Self {
            ring,
            tables: SlowTables::new(&mut maps, host)?,
            scratch: Scratch::default(),
            reassembly: Reassembly::default(),
            leaving: Leaving::default(),
            sockets: Sockets::default(),
            monitor,
            undelivered: 0,
            running: true,
        })
    }

    /// Works until it is told to stop, or nobody is left to tell it.
    pub(super) fn run(mut self, requests: &Receiver<Request>, wake: &Arc<OwnedFd>) {
        while self.running {
            let busy = self.turn();
            loop {
                match requests.try_recv() {
                    Ok(request) => {
                        // What was deferred before the question is done before the answer.
                        while self.turn() {}
                        request(&mut self);
                        self.flush();
                    }
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => return,
                }
            }
            if !self.running {
                return;
            }
            if let Err(error) = self.wait(wake, busy) {
                tracing::error!(%error, "the slow path cannot wait for packets, and stops");
                return;
            }
        }
    }

    /// Ends the work after the present request.
    pub(super) fn stop(&mut self) {
        self.running = false;
    }

    /// Deals with packets that are there; returns whether there were any.
    fn turn(&mut self) -> bool {
        let mut busy = false;
        for _ in 0..TURNS {
            let Some(item) = self.ring.next() else { break };
            let taken = take(&item, &mut self.leaving.pool);
            drop(item);
            busy = true;
            if let Some((frame, arrival)) = taken {
                self.handle(frame, arrival);
            }
        }
        self.flush();
        busy
    }

    fn flush(&mut self) {
        for outlet in self.sockets.by_index.values_mut() {
            outlet.flush(&mut self.leaving.pool);
        }
    }

    fn handle(&mut self, frame: Frame, arrival: Arrival) {
        let now = self.tables.now();
        if let Some(whole) = self.direct(frame, arrival, now) {
            // What was put together is no fragment, and so never put together again.
            self.direct(whole, arrival, now);
        }
        self.tables.end();
    }

    /// Leads a packet through the director. Returns the datagram that it made
    /// whole, if it is a fragment and did that.
    fn direct(&mut self, mut frame: Frame, arrival: Arrival, now: Instant) -> Option<Frame> {
        self.tables.begin();
        let tables = &self.tables;
        match director::handle(&mut frame, tables, &mut self.scratch, arrival, now) {
            Verdict::Send { ifindex, mtu } => {
                self.leaving.forward(frame, ifindex, mtu, &mut self.sockets);
            }
            Verdict::Resolve { ifindex } => {
                let (family, next) = self.scratch.neighbour();
                let key = (ifindex, family, next);
                self.leaving.resolve(frame, key, now, &tables.host, &mut self.sockets);
            }
            // Its program has counted it.
            Verdict::Defer(_) => {
                let whole =
                    self.reassembly.take(&frame, arrival.ifindex, now, |it| tables.count(it));
                self.leaving.pool.give(frame);
                return whole;
            }
            Verdict::Pass(_) | Verdict::Deliver => self.deliver(frame),
            Verdict::Drop(_) | Verdict::GoOn(_) => self.leaving.pool.give(frame),
        }
        None
    }

    /// Hands a packet to the host by its door. A datagram that was put together
    /// is cut again, as the kernel would have routed it on.
    fn deliver(&mut self, mut frame: Frame) {
        let door = self.tables.host.links().find(|link| link.name == door::PLANE);
        let Some(door) = door.map(|link| link.index) else {
            self.undelivered += 1;
            self.leaving.pool.give(frame);
            return;
        };
        if ethernet::set_addresses(&mut frame, HOST_MAC, PLANE_MAC).is_some() {
            self.leaving.forward(frame, door, DOOR_MTU, &mut self.sockets);
        }
    }

    /// Does what has become due.
    pub(super) fn catch_up(&mut self) {
        let now = self.tables.now();
        self.leaving.expire(now);
        self.tables.begin();
        let tables = &self.tables;
        for Expired { first, ifindex } in self.reassembly.expire(now, |it| tables.count(it)) {
            let Some(mut frame) = first else { continue };
            let verdict =
                director::reassembly_failed(&mut frame, tables, &mut self.scratch, ifindex, now);
            if let Verdict::Send { ifindex, mtu } = verdict {
                self.leaving.forward(frame, ifindex, mtu, &mut self.sockets);
            }
        }
        self.flush();
    }

    /// Asks the host for everything anew.
    pub(super) fn refresh(&mut self) {
        if let Err(error) = self.tables.host.refresh() {
            tracing::warn!(%error, "the host did not say what has changed");
        }
        let host = &self.tables.host;
        self.sockets.by_index.retain(|index, _| host.link(*index).is_some());
    }

    /// Waits for packets, news, requests, or the time to look at what waits.
    fn wait(&mut self, wake: &OwnedFd, busy: bool) -> io::Result<()> {
        let waits = !self.reassembly.is_empty() || !self.leaving.pending.is_empty();
        let timeout = match (busy, waits) {
            (true, _) => Some(Duration::ZERO),
            (false, true) => Some(LOOK),
            (false, false) => None,
        };
        let timeout = timeout.map(Timespec::try_from).transpose().map_err(io::Error::other)?;
        let mut watched = [
            PollFd::new(wake, PollFlags::IN),
            PollFd::from_borrowed_fd(self.monitor.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.ring.as_fd(), PollFlags::IN),
        ];
        match poll(&mut watched, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let [woken, news, _] = watched.map(|it| !it.revents().is_empty());
        if woken {
            let mut count = [0; 8];
            // It is there to be read, or somebody else was faster: both are fine.
            let _ = rustix::io::read(wake, &mut count);
        }
        if news {
            self.hear()?;
        }
        if waits {
            self.catch_up();
        }
        Ok(())
    }

    /// Takes in what has changed on the host.
    fn hear(&mut self) -> io::Result<()> {
        let changes = self.monitor.drain()?;
        if changes.links || changes.addresses || changes.lost {
            self.refresh();
        } else if changes.routes {
            self.tables.host.forget();
        }
        let host = &self.tables.host;
        for neighbour in &changes.neighbours {
            let key = (neighbour.ifindex, neighbour.family, neighbour.addr);
            if host.heard_of(neighbour) {
                host.forget();
            }
            match (neighbour.usable(), neighbour.state) {
                (Some(mac), _) => self.leaving.release(key, mac, host, &mut self.sockets),
                (None, NeighbourState::Unknown) => self.leaving.give_up(key),
                _ => {}
            }
        }
        if changes.lost {
            for key in self.leaving.pending.keys() {
                if let Ok(Some(mac)) = host.resolve(key) {
                    self.leaving.release(key, mac, host, &mut self.sockets);
                }
            }
        }
        self.flush();
        Ok(())
    }

    /// Lines for what an administrator should know.
    pub(super) fn report(&self) -> Vec<String> {
        let unsent: u64 = self.sockets.by_index.values().map(|outlet| outlet.unsent).sum();
        let counted = [
            (self.leaving.pending.dropped, "the next hop's MAC address was not found out"),
            (self.leaving.unfinished, "they could not be cut or completed for a tunnel"),
            (self.sockets.unopened, "no packet socket could be opened on their interface"),
            (self.undelivered, "there is no door to the host"),
            (unsent, "the kernel or the interface refused them"),
        ];
        let counted = counted.into_iter().filter(|(count, _)| *count != 0);
        counted.map(|(count, why)| format!("slow path: {count} packets dropped: {why}")).collect()
    }
}

/// Reads what a program put into the ring: the frame, and how it came in.
fn take(item: &[u8], pool: &mut Pool) -> Option<(Frame, Arrival)> {
    let (head, octets) = Head::read_from_prefix(item).ok()?;
    let octets = octets.get(..head.len as usize)?;
    let mut frame = pool.take();
    if head.is_tagged == 0 {
        frame.refill(&[octets]);
    } else {
        let (addresses, rest) = octets.split_at_checked(ADDRESSES)?;
        // The program's word holds the protocol as it lies in a packet.
        let [a, b, ..] = head.tag_protocol.to_ne_bytes();
        let [.., c, d] = head.tag.to_be_bytes();
        frame.refill(&[addresses, &[a, b, c, d], rest]);
    }
    frame.segment_len = head.segment_len;
    unfilled::mark(&mut frame);
    Some((frame, Arrival { ifindex: head.ifindex, mark: head.mark }))
}
