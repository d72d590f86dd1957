//! The thread that owns the tables: it takes frames from the ports, leads them
//! through the core, sends what comes out, and in between does what the
//! control side asks.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::Duration;

use ipvs_core::addr::{Addr, Family};
use ipvs_core::command::{Command, CommandError};
use ipvs_core::conn::Tuple;
use ipvs_core::director::{self, Arrival, Scratch};
use ipvs_core::sched::cache;
use ipvs_core::snapshot::Refused;
use ipvs_core::tables::Tables as _;
use ipvs_core::time::{Instant, Millis};
use ipvs_core::verdict::{Reason, Verdict};
use ipvs_core::{defence, expiry};
use ipvs_wire::{Buffer, ethernet};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::forwarding::Forwarding;
use super::port::Port;
use super::selection::Selection;
use super::virtual_addrs::VirtualAddrs;
use super::{Options, StartError, arp, nd};
use crate::frame::Frame;
use crate::memory::{Host as _, MemoryTables};
use crate::packet::host::{LinuxHost, NeighbourKey};
use crate::packet::leaving::{Leaving, Outlets};
use crate::packet::pool::Pool;
use crate::reassembly::{Expired, Reassembly};
use crate::registry::Registry;
use crate::rtnetlink::{Link, Monitor};
use crate::store::Store as _;

/// Frames taken from one port before the next has its turn.
const BUDGET: u32 = 256;
/// Turns between two looks for other things than frames.
const TURNS: u32 = 16;
/// Between two looks at the timers.
const TICK: Millis = Millis(100);
/// Looks that it takes to see all of them.
const SHARES: u32 = 10;

/// What the control side asks: it is done between two packets.
pub(super) type Request = Box<dyn FnOnce(&mut Worker) + Send>;

/// The ports.
#[derive(Debug, Default)]
pub(super) struct Ports {
    pub(super) all: Vec<Port>,
    /// Frames to an interface that is no port.
    pub(super) portless: u64,
}

impl Outlets for Ports {
    fn send(&mut self, frame: Frame, ifindex: u32, pool: &mut Pool) {
        if let Some(port) = self.all.iter_mut().find(|port| port.link.index == ifindex) {
            port.send(frame, pool);
        } else {
            self.portless += 1;
            pool.give(frame);
        }
    }
}

/// The worker.
pub(super) struct Worker {
    pub(super) registry: Registry<MemoryTables<LinuxHost>>,
    pub(super) ports: Ports,
    pub(super) vips: VirtualAddrs,
    pub(super) leaving: Leaving,
    reassembly: Reassembly,
    pub(super) forwarding: Forwarding,
    pub(super) selection: Selection,
    /// It answers for the virtual addresses.
    answers: bool,
    /// Ports that could not be opened, by name, and why.
    pub(super) failures: Vec<(String, String)>,
    /// Packets for the host that it cannot be given changed.
    pub(super) undelivered: u64,
    scratch: Scratch,
    monitor: Monitor,
    /// When the timers are looked at, on the host's clock.
    next_tick: Instant,
    ticks: u32,
    running: bool,
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker").field("ports", &self.ports.all).finish_non_exhaustive()
    }
}

impl Worker {
    /// Opens everything in the calling thread's network namespace.
    pub(super) fn new(options: &Options) -> Result<Self, StartError> {
        let limits = options.limits;
        // Before the first question, so that no change is missed.
        let monitor = Monitor::open().map_err(StartError::netlink)?;
        let host = LinuxHost::open().map_err(StartError::netlink)?;
        let tables = MemoryTables::new(host, limits)
            .map_err(|_no_more_to_say| StartError::Memory(limits.conns))?;
        let Ok(registry) = Registry::new(tables);
        let mut worker = Self {
            registry,
            ports: Ports::default(),
            vips: VirtualAddrs::default(),
            leaving: Leaving::default(),
            reassembly: Reassembly::default(),
            forwarding: Forwarding::default(),
            selection: options.ports.clone(),
            answers: options.answers_for_vips,
            failures: Vec::new(),
            undelivered: 0,
            scratch: Scratch::default(),
            monitor,
            next_tick: Instant::default(),
            ticks: 0,
            running: true,
        };
        worker.selection.check(worker.host().links())?;
        for link in worker.wanted() {
            worker.open(link)?;
        }
        Ok(worker)
    }

    /// Works until it is told to stop, or nobody is left to tell it.
    pub(super) fn run(mut self, requests: &Receiver<Request>, wake: &Arc<OwnedFd>) {
        let mut turns = 0;
        while self.running {
            let busy = self.turn();
            turns += 1;
            loop {
                match requests.try_recv() {
                    Ok(request) => {
                        // What was sent before the question is done before the answer.
                        while self.turn() {}
                        request(&mut self);
                        self.flush();
                    }
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => return,
                }
            }
            // Busy, it looks for news and at the time now and then only.
            if (busy && turns < TURNS) || !self.running {
                continue;
            }
            turns = 0;
            if let Err(error) = self.wait(wake, busy) {
                tracing::error!(%error, "the user-space plane cannot wait for frames, and stops");
                return;
            }
        }
    }

    /// Ends the work after the present request.
    pub(super) fn stop(&mut self) {
        self.running = false;
    }

    pub(super) fn host(&self) -> &LinuxHost {
        &self.registry.store().host
    }

    /// Applies commands; virtual addresses that are new are announced.
    pub(super) fn apply(&mut self, commands: &[Command]) -> Result<(), Refused> {
        self.registry.apply(commands)?;
        self.follow(commands.iter());
        Ok(())
    }

    /// Applies commands, each whatever became of those before it.
    pub(super) fn apply_each(&mut self, commands: &[Command]) -> Vec<Result<(), CommandError>> {
        let mut outcomes = Vec::with_capacity(commands.len());
        self.registry.apply_each(commands, &mut |outcome| outcomes.push(outcome));
        let done = commands.iter().zip(&outcomes).filter(|(_, outcome)| outcome.is_ok());
        self.follow(done.map(|(command, _)| command));
        outcomes
    }

    /// Announces the virtual addresses that commands have made.
    fn follow<'c>(&mut self, commands: impl Iterator<Item = &'c Command>) {
        let mut news = false;
        for command in commands {
            match command {
                // An edit among many services must not look at all of them.
                Command::AddService(key, _) => news |= self.answers && self.vips.add(key),
                Command::DeleteService(_) | Command::Flush => return self.take_vips(),
                _ => {}
            }
        }
        if news {
            self.join_groups();
            self.announce();
        }
    }

    /// Takes over the services' addresses.
    fn take_vips(&mut self) {
        if self.answers {
            self.vips.replace(self.registry.keys());
            self.join_groups();
            self.announce();
        }
    }

    /// Moves the clock, and does what has become due.
    pub(super) fn shift_clock(&mut self, by: Duration) {
        self.host().shift_clock(by);
        self.catch_up();
    }

    /// The interfaces of the ports.
    fn indexes(&self) -> Vec<u32> {
        self.ports.all.iter().map(|port| port.link.index).collect()
    }

    /// The MAC address of a port.
    fn own_mac(&self, ifindex: u32) -> Option<ethernet::Mac> {
        self.ports.all.iter().find(|port| port.link.index == ifindex)?.link.mac
    }

    /// Asks the host for everything anew.
    pub(super) fn refresh(&mut self) {
        if let Err(error) = self.registry.store_mut().host.refresh() {
            tracing::warn!(%error, "the host did not say what has changed");
        }
        let Ok(()) = self.registry.refresh_marks();
        self.new_routes();
        self.open_and_close();
    }

    /// Deals with frames that are there, in fair shares; returns whether there were any.
    fn turn(&mut self) -> bool {
        let now = self.host().now();
        let mut busy = false;
        for place in 0..self.ports.all.len() {
            for _ in 0..BUDGET {
                let Some(port) = self.ports.all.get_mut(place) else { break };
                let Some(frame) = port.receive(&mut self.leaving.pool) else { break };
                let ifindex = port.link.index;
                busy = true;
                self.handle(frame, ifindex, now);
            }
        }
        self.flush();
        busy
    }

    fn flush(&mut self) {
        for port in &mut self.ports.all {
            port.flush(&mut self.leaving.pool);
        }
    }

    fn handle(&mut self, frame: Frame, ifindex: u32, now: Instant) {
        if self.answer(&frame, ifindex) {
            self.leaving.pool.give(frame);
            return;
        }
        if let Some(whole) = self.direct(frame, ifindex, now) {
            // What was put together is no fragment, and so never put together again.
            self.direct(whole, ifindex, now);
        }
    }

    /// Leads a packet through the director. Returns the datagram that it made
    /// whole, if it is a fragment and did that.
    fn direct(&mut self, mut frame: Frame, ifindex: u32, now: Instant) -> Option<Frame> {
        let tables = self.registry.store();
        match director::handle(&mut frame, tables, &mut self.scratch, Arrival::by(ifindex), now) {
            Verdict::Send { ifindex, mtu } => {
                self.leaving.forward(frame, ifindex, mtu, &mut self.ports);
            }
            Verdict::Resolve { ifindex } => {
                let (family, next) = self.scratch.neighbour();
                let key = (ifindex, family, next);
                self.leaving.resolve(frame, key, now, &tables.host, &mut self.ports);
            }
            Verdict::Defer(reason) => {
                tables.count(reason);
                let whole = self.reassembly.take(&frame, ifindex, now, |it| tables.count(it));
                self.leaving.pool.give(frame);
                return whole;
            }
            Verdict::Pass(reason) => {
                // The stack has its own copy, which is not the changed one.
                self.undelivered += u64::from(reason == Reason::Local);
                self.leaving.pool.give(frame);
            }
            Verdict::Deliver => {
                self.undelivered += 1;
                self.leaving.pool.give(frame);
            }
            Verdict::Drop(_) | Verdict::GoOn(_) => self.leaving.pool.give(frame),
        }
        None
    }

    /// Gives up fragments whose datagrams did not become whole in time; the
    /// sender is told as by a host.
    fn expire_fragments(&mut self, now: Instant) {
        let tables = self.registry.store();
        for Expired { first, ifindex } in self.reassembly.expire(now, |it| tables.count(it)) {
            let Some(mut frame) = first else { continue };
            let verdict =
                director::reassembly_failed(&mut frame, tables, &mut self.scratch, ifindex, now);
            if let Verdict::Send { ifindex, mtu } = verdict {
                self.leaving.forward(frame, ifindex, mtu, &mut self.ports);
            }
        }
    }

    /// Sends what has waited for a neighbour.
    fn release(&mut self, key: NeighbourKey, mac: ethernet::Mac) {
        let host = &self.registry.store().host;
        self.leaving.release(key, mac, host, &mut self.ports);
    }

    /// Answers whoever asks for a virtual address; returns whether that was so.
    fn answer(&mut self, frame: &Frame, ifindex: u32) -> bool {
        let Some(ethertype) = frame.load(12).map(u16::from_be_bytes) else { return false };
        let mut reply = match ethertype {
            ethernet::ARP | ethernet::IPV6 => self.leaving.pool.take(),
            _ => return false,
        };
        let answered = (|| {
            let own = self.own_mac(ifindex)?;
            if ethertype == ethernet::ARP {
                let request = arp::Request::parse(frame)?;
                self.answers_for(ifindex, Family::V4, request.sender, request.target)?;
                request.reply(own, &mut reply);
            } else {
                let solicitation = nd::Solicitation::parse(frame)?;
                let (sender, target) = (solicitation.sender, solicitation.target);
                self.answers_for(ifindex, Family::V6, sender, target)?;
                solicitation.answer(own, &mut reply)?;
            }
            Some(())
        })();
        if answered.is_none() {
            self.leaving.pool.give(reply);
            return false;
        }
        self.ports.send(reply, ifindex, &mut self.leaving.pool);
        true
    }

    fn answers_for(&self, port: u32, family: Family, sender: Addr, target: Addr) -> Option<()> {
        let host = self.host();
        (self.vips.contains(family, target)
            && !host.owns(family, target)
            && VirtualAddrs::are_answered(host.addresses_of(port), family, sender, target))
        .then_some(())
    }

    /// Says on the links of new virtual addresses who has them.
    fn announce(&mut self) {
        for (family, addr) in self.vips.take_due() {
            if self.host().owns(family, addr) {
                continue;
            }
            let all = self.indexes();
            let covers =
                |port: &u32| self.host().addresses_of(*port).any(|own| own.covers(family, addr));
            let on_link: Vec<u32> = all.iter().copied().filter(covers).collect();
            // One that is on no link is behind every one of them.
            for ifindex in if on_link.is_empty() { all } else { on_link } {
                let Some(own) = self.own_mac(ifindex) else { continue };
                let mut frame = self.leaving.pool.take();
                let written = match family {
                    Family::V4 => {
                        arp::announce(own, addr, &mut frame);
                        Some(())
                    }
                    Family::V6 => nd::announce(own, addr, &mut frame),
                };
                match written {
                    Some(()) => self.ports.send(frame, ifindex, &mut self.leaving.pool),
                    None => self.leaving.pool.give(frame),
                }
            }
        }
    }

    /// Makes the ports hear who asks for virtual IPv6 addresses.
    fn join_groups(&mut self) {
        let ports = self.indexes();
        self.vips.join_groups(&ports);
    }

    /// Does what has become due, wherever it is.
    pub(super) fn catch_up(&mut self) {
        self.registry.store_mut().sweep();
        self.second();
        self.flush();
    }

    /// Looks at a share of the connections' timers, and at all others now and then.
    fn tick(&mut self) {
        let now = self.host().now();
        self.next_tick = now.after(TICK);
        let tables = self.registry.store();
        let share = tables.touched().div_ceil(SHARES);
        let first = share * (self.ticks % SHARES);
        defence::drop_entries(tables, &mut Tuple::default(), tables.touched(), now);
        expiry::sweep(tables, &mut Tuple::default(), first, share, now);
        cache::tend(tables, now);
        self.ticks = self.ticks.wrapping_add(1);
        if self.ticks.is_multiple_of(SHARES) {
            self.second();
        }
    }

    /// Looks at the timers that need no haste.
    fn second(&mut self) {
        let now = self.host().now();
        self.registry.tick();
        self.leaving.expire(now);
        self.expire_fragments(now);
        self.announce();
        self.ports.all.iter_mut().for_each(Port::count_overruns);
    }

    /// Waits for frames, news, requests or the next tick.
    fn wait(&mut self, wake: &OwnedFd, busy: bool) -> io::Result<()> {
        let now = self.host().now();
        let left = if busy { 0 } else { self.next_tick.nanos().saturating_sub(now.nanos()) };
        let timeout = Timespec::try_from(Duration::from_nanos(left)).map_err(io::Error::other)?;
        let mut news = false;
        {
            let mut watched = vec![
                PollFd::new(wake, PollFlags::IN),
                PollFd::from_borrowed_fd(self.monitor.as_fd(), PollFlags::IN),
            ];
            let ports = self.ports.all.iter();
            watched.extend(ports.map(|port| PollFd::from_borrowed_fd(port.as_fd(), PollFlags::IN)));
            match poll(&mut watched, Some(&timeout)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            let mut ready = watched.iter().map(PollFd::revents);
            if ready.next().is_some_and(|events| !events.is_empty()) {
                let mut count = [0; 8];
                // It is there to be read, or somebody else was faster: both are fine.
                let _ = rustix::io::read(wake, &mut count);
            }
            if ready.next().is_some_and(|events| !events.is_empty()) {
                news = true;
            }
            let failing =
                self.ports.all.iter().zip(ready).filter(|(_, it)| it.contains(PollFlags::ERR));
            failing.for_each(|(port, _)| port.clear_error());
        }
        if news {
            self.hear()?;
        }
        if self.host().now() >= self.next_tick {
            self.tick();
            self.flush();
        }
        Ok(())
    }

    /// Takes in what has changed on the host.
    fn hear(&mut self) -> io::Result<()> {
        let changes = self.monitor.drain()?;
        if changes.links || changes.addresses || changes.lost {
            self.refresh();
        } else if changes.routes {
            self.new_routes();
        }
        let mut stale = false;
        for neighbour in &changes.neighbours {
            let key = (neighbour.ifindex, neighbour.family, neighbour.addr);
            stale |= self.host().heard_of(neighbour);
            match (neighbour.usable(), neighbour.state) {
                (Some(mac), _) => self.release(key, mac),
                (None, crate::rtnetlink::NeighbourState::Unknown) => {
                    self.leaving.give_up(key);
                }
                _ => {}
            }
        }
        if changes.lost {
            for key in self.leaving.pending.keys() {
                if let Ok(Some(mac)) = self.host().resolve(key) {
                    self.release(key, mac);
                }
            }
        }
        if stale {
            self.new_routes();
        }
        self.flush();
        Ok(())
    }

    /// Lets no next hop be used that was learnt before.
    fn new_routes(&mut self) {
        self.host().forget();
        let Ok(()) = self.registry.change_settings(|settings| {
            settings.route_generation = settings.route_generation.wrapping_add(1);
        });
    }

    /// The interfaces that are to be ports.
    fn wanted(&self) -> Vec<Link> {
        let links = self.host().links().filter(|link| self.selection.wants(link));
        links.cloned().collect()
    }

    fn open(&mut self, link: Link) -> Result<(), StartError> {
        self.forwarding.turn_off(&link.name)?;
        let name = link.name.clone();
        let port = Port::open(link).map_err(|source| StartError::port(&name, source))?;
        self.ports.all.push(port);
        Ok(())
    }

    /// Follows interfaces that have come, gone or changed.
    fn open_and_close(&mut self) {
        let wanted = self.wanted();
        self.ports.all.retain(|port| {
            // A larger MTU may need larger slots.
            wanted.iter().any(|link| link.index == port.link.index && link.mtu <= port.link.mtu)
        });
        self.failures.clear();
        for link in wanted {
            if let Some(port) = self.ports.all.iter_mut().find(|port| port.link.index == link.index)
            {
                port.link = link;
                continue;
            }
            let name = link.name.clone();
            match self.open(link) {
                Ok(()) => tracing::info!(port = %name, "the port was opened"),
                Err(error) => {
                    tracing::warn!(port = %name, %error, "the port cannot be opened");
                    self.failures.push((name, error.to_string()));
                }
            }
        }
        self.join_groups();
        self.vips.announce_again();
        self.announce();
    }
}
