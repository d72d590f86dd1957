//! Protocol states: what a packet does to the state, the timeout and the
//! active and inactive counts of its connection.

pub mod sctp;
pub mod tcp;
pub mod udp;

use ipvs_wire::Headers;
use ipvs_wire::transport::protocol;

use crate::conn::{Conn, ConnFlags};
use crate::settings::Settings;
use crate::tables::Tables;
use crate::{defence, persistence};

/// Which way a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the client.
    FromClient,
    /// From the destination.
    FromDest,
}

/// The row group of the state tables: the kernel's IN, OUT and IN-ONLY.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Side {
    In = 0,
    Out = 1,
    InOnly = 2,
}

/// Whether the packet asks for a new connection, whatever the table says.
#[inline(always)]
pub fn is_opening(h: &Headers) -> bool {
    match h.protocol {
        protocol::TCP => tcp::is_opening(h),
        protocol::SCTP => sctp::is_opening(h),
        _ => false,
    }
}

/// Whether the packet ends a connection at once, and so is not answered.
#[inline(always)]
pub(crate) fn is_abort(h: &Headers) -> bool {
    match h.protocol {
        protocol::TCP => h.event & ipvs_wire::transport::tcp::RST != 0,
        protocol::SCTP => h.event == ipvs_wire::transport::sctp::ABORT,
        _ => false,
    }
}

/// Whether the packet may start a connection.
#[inline(always)]
pub fn may_start(h: &Headers, settings: &Settings) -> bool {
    match h.protocol {
        protocol::TCP => tcp::may_start(h, settings.sloppy_tcp != 0),
        protocol::SCTP => sctp::may_start(h, settings.sloppy_sctp != 0),
        protocol::UDP => true,
        _ => false,
    }
}

/// Whether an old connection is over, so that an opening packet of the same
/// ports may be scheduled anew (`conn_reuse_mode`).
#[inline(always)]
pub fn is_over(conn: &Conn, mode: u32) -> bool {
    match conn.tuple.get().protocol {
        protocol::TCP => {
            let waits_one_sided = mode & 2 != 0
                && conn.state.get() == tcp::FIN_WAIT
                && conn.has(ConnFlags::NO_OUTPUT);
            matches!(conn.state.get(), tcp::TIME_WAIT | tcp::CLOSE) || waits_one_sided
        }
        protocol::SCTP => conn.state.get() == sctp::CLOSED,
        _ => false,
    }
}

/// Takes the packet into the state of `conn` and sets the timeout.
#[inline(always)]
pub fn transition<T: Tables>(tables: &T, conn: &Conn, h: &Headers, direction: Direction) {
    let settings = tables.settings();
    let protocol = h.protocol;
    if protocol == protocol::UDP {
        conn.timeout.set(settings.udp_timeout);
        if direction == Direction::FromDest {
            persistence::assure(tables, conn);
        }
        return;
    }
    if !h.has_transport {
        return;
    }
    let side = side(conn, direction);
    let (state, active, timeouts) = if protocol == protocol::TCP {
        let secure = defence::is_on(settings.secure_tcp);
        let state = tcp::next(side as u8, conn.state.get(), h, secure);
        (state, tcp::is_active(state), &settings.tcp_timeouts)
    } else {
        let state = sctp::next(side as u8, conn.state.get(), h);
        (state, sctp::is_active(state), &settings.sctp_timeouts)
    };
    conn.timeout.set(timeout(timeouts, state));
    if state == conn.state.get() {
        return;
    }
    conn.state.set(state);
    // TCP and SCTP each have one state of their own by that name.
    let established = if protocol == protocol::TCP { tcp::ESTABLISHED } else { sctp::ESTABLISHED };
    if state == established {
        persistence::assure(tables, conn);
    }
    recount(tables, conn, active);
}

/// Makes `conn` one that is expected: FTP data. One that was counted active
/// stays so (seen on 6.1).
pub(crate) fn listen<T: Tables>(tables: &T, conn: &Conn) {
    conn.state.set(tcp::LISTEN);
    conn.timeout.set(timeout(&tables.settings().tcp_timeouts, tcp::LISTEN));
}

/// The timeout of `state`.
///
/// The compiler knows the tables and so which states there are, and would leave
/// out the mask that the verifier needs to see: hence the black box.
#[inline(always)]
fn timeout(timeouts: &[u32; 16], state: u8) -> u32 {
    let state = core::hint::black_box(state) & 15;
    timeouts.get(usize::from(state)).copied().unwrap_or(0)
}

/// A connection that expects no replies is judged by its client alone until a
/// reply is seen after all.
#[inline(always)]
fn side(conn: &Conn, direction: Direction) -> Side {
    if !conn.has(ConnFlags::NO_OUTPUT) {
        return match direction {
            Direction::FromClient => Side::In,
            Direction::FromDest => Side::Out,
        };
    }
    match direction {
        Direction::FromClient => Side::InOnly,
        Direction::FromDest => {
            conn.flags.set(conn.flags.get() & !ConnFlags::NO_OUTPUT);
            Side::Out
        }
    }
}

/// Moves the connection between the active and inactive counts of its destination.
#[inline(always)]
fn recount<T: Tables>(tables: &T, conn: &Conn, active: bool) {
    let flags = conn.flags.get();
    let was_active = flags & ConnFlags::INACTIVE == 0;
    if was_active == active {
        return;
    }
    // Whoever changes the flag moves the counts, so two CPUs never do it twice.
    if !tables.replace(&conn.flags, flags, flags ^ ConnFlags::INACTIVE) {
        return;
    }
    let Some(load) = tables.load(conn.dest.get()) else { return };
    let (from, to) =
        if active { (&load.inactive, &load.active) } else { (&load.active, &load.inactive) };
    tables.add(from, u32::MAX);
    tables.add(to, 1);
}

/// The name of a state as the kernel prints it.
pub const fn state_name(protocol: u8, state: u8) -> &'static str {
    match protocol {
        protocol::TCP => tcp::state_name(state),
        protocol::SCTP => sctp::state_name(state),
        protocol::UDP => udp::STATE_NAME,
        _ => "NONE",
    }
}
