//! The end of connections: by their timers, or because something else says so.

use crate::conn::{Conn, ConnFlags, ConnId, Found, Tuple};
use crate::dest::{Dest, DestId, ForwardingMethod, Load};
use crate::tables::Tables;
use crate::time::{Instant, Millis};

/// How long a connection that others hang on waits before it looks again.
const RETRY: Millis = Millis(60_000);

/// How long one that others hang on is left when it is due: they may be due in the same moment,
/// and go first, as on a kernel, whose timers of one moment run the last one first. More than
/// it takes until every connection has been looked at.
const GRACE: Millis = Millis(1500);

/// Ends what is due among the `count` places from `first`. `key` is room to
/// build keys in.
#[inline(always)]
pub fn sweep<T: Tables>(tables: &T, key: &mut Tuple, first: ConnId, count: u32, now: Instant) {
    tables.repeat(count, |step| {
        let id = first.wrapping_add(step);
        if let Some(conn) = tables.conn(id)
            && conn.has(ConnFlags::HASHED)
            && conn.has_ended(now)
            && (conn.controls.get() == 0 || conn.has_ended_before(now, GRACE))
        {
            expire(tables, key, id, conn, now);
        }
        true
    });
}

/// The timer of `conn` has run out, or is taken to have.
///
/// Returns whether the connection is gone: one that others hang on is not, it
/// gets another minute. `key` is room to build keys in.
#[inline(never)]
pub fn expire<T: Tables>(
    tables: &T,
    key: &mut Tuple,
    id: ConnId,
    conn: &Conn,
    now: Instant,
) -> bool {
    if conn.controls.get() != 0 {
        conn.timeout.set(RETRY.0);
        conn.rearm(now);
        return false;
    }
    if take_out(tables, key, id, conn) {
        finish(tables, id, conn);
    }
    true
}

/// Takes a connection out of the table, unless somebody else does. It is the caller's then.
#[inline(always)]
pub(crate) fn take_out<T: Tables>(tables: &T, key: &mut Tuple, id: ConnId, conn: &Conn) -> bool {
    let flags = conn.flags.get();
    // Whoever clears the flag ends the connection, so two CPUs never do it twice.
    if flags & ConnFlags::HASHED == 0
        || !tables.replace(&conn.flags, flags, flags & !ConnFlags::HASHED)
    {
        return false;
    }
    unlink(tables, key, id, conn, flags);
    true
}

/// Takes an ended connection off the counts and gives its place back.
#[inline(always)]
pub fn finish<T: Tables>(tables: &T, id: ConnId, conn: &Conn) {
    unbind(tables, conn, conn.flags.get());
    if conn.has(ConnFlags::ENGINE) {
        tables.forget_engine_data(id);
    }
    if conn.has(ConnFlags::NO_CLIENT_PORT)
        && let Some(expected) = tables.expected()
    {
        tables.add(expected, u32::MAX);
    }
    if let Some(control) = tables.conn(conn.control.get()) {
        tables.add(&control.controls, u32::MAX);
    }
    conn.flags.set(0);
    tables.release(id);
}

/// Takes the keys of `conn` out of the table, as far as they are still its own.
#[inline(always)]
fn unlink<T: Tables>(tables: &T, key: &mut Tuple, id: ConnId, conn: &Conn, flags: u32) {
    *key = conn.tuple.get();
    if tables.find(key).is_some_and(|found| found.id == id) {
        tables.unlink(key);
    }
    if ForwardingMethod::from_flags(flags) == ForwardingMethod::Masquerade
        && let Some(dest) = tables.dest(conn.dest.get())
    {
        set_reply_tuple(key, conn, dest);
        if tables.find(key) == Some(Found { id, reply: true }) {
            tables.unlink(key);
        }
    }
}

/// Makes `key` that of a masqueraded connection's replies, as they come in.
#[inline(always)]
pub fn set_reply_tuple(key: &mut Tuple, conn: &Conn, dest: &Dest) {
    let tuple = conn.tuple.get();
    *key = Tuple {
        source: conn.dest_addr(dest),
        source_port: conn.dest_port.get(),
        destination: tuple.source,
        destination_port: tuple.source_port,
        ..tuple
    };
}

/// Counts a new connection at its destination.
#[inline(always)]
pub fn bind<T: Tables>(tables: &T, id: DestId, dest: &Dest, flags: u32) {
    let Some(load) = tables.load(id) else { return };
    tables.add(counted(load, flags), 1);
    let total = load.active.get().wrapping_add(load.inactive.get());
    if dest.spec.upper != 0 && total >= dest.spec.upper {
        load.overloaded.set(1);
    }
}

/// Takes an ended connection off its destination's counts, and the overload
/// mark if that ends it.
#[inline(always)]
fn unbind<T: Tables>(tables: &T, conn: &Conn, flags: u32) {
    let id = conn.dest.get();
    let (Some(dest), Some(load)) = (tables.dest(id), tables.load(id)) else { return };
    tables.add(counted(load, flags), u32::MAX);
    let total = u64::from(load.active.get()) + u64::from(load.inactive.get());
    if is_relieved(dest, total) {
        load.overloaded.set(0);
    }
}

/// Whether a load of `total` connections ends the overload of its destination:
/// below the lower threshold, or below three quarters of the upper one if there
/// is no lower.
#[inline(always)]
pub fn is_relieved(dest: &Dest, total: u64) -> bool {
    if dest.spec.lower != 0 {
        total < u64::from(dest.spec.lower)
    } else if dest.spec.upper != 0 {
        total * 4 < u64::from(dest.spec.upper) * 3
    } else {
        true
    }
}

#[inline(always)]
fn counted(load: &Load, flags: u32) -> &core::cell::Cell<u32> {
    if flags & ConnFlags::TEMPLATE != 0 {
        &load.persistent
    } else if flags & ConnFlags::INACTIVE != 0 {
        &load.inactive
    } else {
        &load.active
    }
}
