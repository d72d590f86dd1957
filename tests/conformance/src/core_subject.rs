//! The core alone: tables in memory, a host that is data, a clock that is a
//! number.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use ipvs_core::addr::{Addr, Family};
use ipvs_core::director::{self, Arrival, Scratch};
use ipvs_core::hop::{RouteQuery, Way, WayKind};
use ipvs_core::snapshot::Control;
use ipvs_core::tables::Tables as _;
use ipvs_core::time::Instant;
use ipvs_core::verdict::Verdict;
use ipvs_plane::fragment;
use ipvs_plane::frame::Frame as Buffer;
use ipvs_plane::memory::{self, MemoryTables};
use ipvs_plane::reassembly::{Expired, Reassembly};
use ipvs_plane::registry::Registry;
use ipvs_plane::store::{Limits, Store as _};

use crate::case::{Frame, Output};
use crate::host::Host;
use crate::marks::{self, Meant};
use crate::room::Room;
use crate::shell;
use crate::subject::{self, Handled, Subject, Trouble};

/// Connections that there is room for: more than any case makes.
const CONNECTIONS: u32 = 1 << 12;
/// When a replay begins, on the clock of the tables: not at 0, where a mistake
/// with times before the beginning would hide.
const START: Duration = Duration::from_secs(1000);

/// The core with what a plane must offer it.
#[derive(Debug)]
pub struct CoreSubject {
    registry: Registry<MemoryTables<Virtual>>,
    reassembly: Reassembly,
    elapsed: Duration,
    /// Where lines run that need a shell, from the first of them on.
    room: Option<Room>,
}

/// The host of the tables.
#[derive(Debug)]
struct Virtual {
    host: Host,
    now: Instant,
}

impl memory::Host for Virtual {
    fn route(&self, query: &RouteQuery) -> Way {
        self.host.route(query)
    }

    fn source_towards(&self, family: Family, addr: Addr) -> Option<Addr> {
        let query = RouteQuery { family, destination: addr, source: Addr::UNSPECIFIED };
        let way = self.host.route(&query);
        if !matches!(way.kind, WayKind::Known | WayKind::Unresolved) {
            return Some(Addr::UNSPECIFIED);
        }
        let index = way.hop.ifindex;
        let own =
            self.host.interface_at(index).and_then(|it| self.host.own_address(it.name, family));
        Some(own.map_or(Addr::UNSPECIFIED, |own| Addr::from_ip(own).1))
    }

    fn interface(&self, name: &str) -> Option<u32> {
        self.host.interface(name).map(|it| it.index)
    }

    fn mtu(&self, name: &str) -> Option<u32> {
        self.host.interface(name).map(|it| it.mtu)
    }

    fn now(&self) -> Instant {
        self.now
    }
}

impl CoreSubject {
    /// A director without services on the host of `std-1`.
    pub fn new() -> Result<Self, Trouble> {
        let host =
            Virtual { host: Host::std_1(), now: instant(START.saturating_sub(subject::BEFORE)) };
        let limits = Limits { conns: CONNECTIONS, ..Limits::default() };
        let tables = MemoryTables::new(host, limits)
            .map_err(|error| anyhow!("no memory for the tables: {error:?}"))?;
        let Ok(mut registry) = Registry::new(tables);
        registry.store_mut().host.now = instant(START);
        let (reassembly, elapsed) = (Reassembly::default(), Duration::ZERO);
        Ok(Self { registry, reassembly, elapsed, room: None })
    }

    /// What a host says of fragments whose datagrams did not become whole in time.
    fn expire_fragments(&mut self) -> Result<Vec<Frame>, Trouble> {
        let tables = self.registry.store();
        let now = tables.host.now;
        let mut frames = Vec::new();
        for Expired { first, ifindex } in self.reassembly.expire(now, |it| tables.count(it)) {
            let Some(mut first) = first else { continue };
            let mut scratch = Scratch::default();
            let verdict =
                director::reassembly_failed(&mut first, tables, &mut scratch, ifindex, now);
            frames.extend(carry_out(verdict, first, tables, &scratch)?.frames);
        }
        Ok(frames)
    }

    /// Its control side.
    pub fn control(&mut self) -> &mut dyn Control {
        &mut self.registry
    }
}

impl Subject for CoreSubject {
    fn command(&mut self, line: &str) -> Result<Output, Trouble> {
        if let Some(output) = shell::plain(line, self.control()) {
            return Ok(output);
        }
        if shell::is_ours(line) && shell::needs_no_host(line) {
            let room = match &mut self.room {
                Some(room) => room,
                none => none.insert(Room::open()?),
            };
            return Ok(room.run(line, Command::new("sh"), &mut self.registry)?);
        }
        let Some(words) = shell::words(line) else {
            return Err(Trouble::Unsupported(format!("`{line}` needs a shell")));
        };
        match marks::meant(&words) {
            Meant::Other => {}
            Meant::Unknown => return Err(marks::unknown(line)),
            Meant::Nothing => return Ok(Output::default()),
            Meant::Edits(edits) => return Ok(marks::apply(self.control(), &edits)?),
        }
        let host = &mut self.registry.store_mut().host.host;
        host.command(line)
            .ok_or_else(|| Trouble::Unsupported(format!("`{line}` needs a real host")))?;
        // As the daemon would, on hearing of a changed route.
        let Ok(()) = self.registry.change_settings(|settings| settings.route_generation += 1);
        Ok(Output::default())
    }

    fn inject(&mut self, frame: &Frame) -> Result<Handled, Trouble> {
        let tables = self.registry.store();
        let index = |dev: &str| tables.host.host.interface(dev).map(|it| it.index);
        let entry = index(&frame.dev).with_context(|| format!("no interface {}", frame.dev))?;
        let mut scratch = Scratch::default();
        let mut buffer = Buffer::new(frame.octets.clone());
        let (arrival, now) = (Arrival::by(entry), tables.host.now);
        let mut verdict = director::handle(&mut buffer, tables, &mut scratch, arrival, now);
        if let Verdict::Defer(_) = verdict {
            match self.reassembly.take(&buffer, entry, now, |reason| tables.count(reason)) {
                Some(whole) => buffer = whole,
                None => return Ok(Handled::default()),
            }
            verdict = director::handle(&mut buffer, tables, &mut scratch, arrival, now);
        }
        carry_out(verdict, buffer, tables, &scratch)
    }

    fn advance(&mut self, to: Duration) -> Result<Vec<Frame>, Trouble> {
        let mut frames = Vec::new();
        while self.elapsed < to {
            self.elapsed = subject::next_tick(self.elapsed).min(to);
            let tables = self.registry.store_mut();
            tables.host.now = instant(START + self.elapsed);
            tables.sweep();
            self.registry.tick();
            frames.extend(self.expire_fragments()?);
        }
        Ok(frames)
    }
}

/// Does what the verdict on the frame in `buffer` says.
fn carry_out(
    verdict: Verdict,
    buffer: Buffer,
    tables: &MemoryTables<Virtual>,
    scratch: &Scratch,
) -> Result<Handled, Trouble> {
    match verdict {
        Verdict::Pass(reason) => {
            Ok(Handled { frames: Vec::new(), passed: Some(reason.label().to_owned()) })
        }
        Verdict::Deliver => Ok(Handled { frames: Vec::new(), passed: Some("delivered".into()) }),
        Verdict::Drop(_) | Verdict::Defer(_) | Verdict::GoOn(_) => Ok(Handled::default()),
        Verdict::Send { ifindex, mtu } => {
            let dev = tables.host.host.interface_at(ifindex).context("sent to no interface")?;
            let pieces = if fragment::must_cut(&buffer, ETHERNET_LEN, mtu) {
                fragment::cut(&buffer, mtu, 1).unwrap_or_default()
            } else {
                vec![buffer.into_octets()]
            };
            let frame = |octets| Frame { dev: dev.name.to_owned(), octets };
            Ok(Handled { frames: pieces.into_iter().map(frame).collect(), passed: None })
        }
        // The host asks for the neighbour, which never answers.
        Verdict::Resolve { .. } => {
            let (_, next) = scratch.neighbour();
            Ok(Handled { frames: Vec::new(), passed: Some(format!("resolving {next:?}")) })
        }
    }
}

/// Octets of an Ethernet header.
const ETHERNET_LEN: u32 = 14;

fn instant(since_zero: Duration) -> Instant {
    Instant::from_nanos(u64::try_from(since_zero.as_nanos()).unwrap_or(u64::MAX))
}
