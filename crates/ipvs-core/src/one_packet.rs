//! Connections of one-packet services: each serves the packet that it was made for, and no
//! other finds it.
//!
//! But that packet itself may come again: a plane that cannot send it leaves it to the next
//! one, which leads it through the director from the beginning. Meanwhile the connection
//! waits for it under the packet's key, so that no destination is picked twice. It counts
//! once it is known what becomes of its packet.

use crate::conn::{Conn, ConnFlags, ConnId, Found, Tuple};
use crate::expiry;
use crate::tables::{Linked, Tables};

/// What was decided about the packet, with this key, of the one-packet connection that
/// `found`, a [`Found::word`], leads to.
///
/// `left` says that another plane decides: then the connection waits for it. Always true: an
/// eBPF function must return a number.
#[inline(never)]
pub(crate) fn conclude<T: Tables>(
    tables: &T,
    tuple: &Tuple,
    found: u32,
    conn: &Conn,
    left: bool,
) -> bool {
    let found = Found::from_word(found);
    if !left || !wait(tables, tuple, found, conn) {
        end(tables, found.id, conn, !left);
    }
    true
}

/// Ends a one-packet connection, which counts unless its packet makes another one.
#[inline(always)]
pub(crate) fn end<T: Tables>(tables: &T, id: ConnId, conn: &Conn, counts: bool) {
    if counts && let Some(counters) = tables.counters(conn.dest.get()) {
        counters.count_conn();
    }
    expiry::finish(tables, id, conn);
}

/// Has the connection found by the packet with this key; returns whether it waits now, and
/// is nobody's until it is [claimed](claim) or ends.
///
/// One waits already if another CPU has left a packet with the same key. Either is then as
/// good as the other.
#[inline(always)]
fn wait<T: Tables>(tables: &T, tuple: &Tuple, found: Found, conn: &Conn) -> bool {
    let flags = conn.flags.get();
    conn.flags.set(flags | ConnFlags::HASHED);
    tables.link(tuple, found) == Linked::New
        // Found all the same, by somebody who remembers an earlier one at this place?
        || !tables.replace(&conn.flags, flags | ConnFlags::HASHED, flags)
}

/// Takes a connection that waits for a packet like the one at hand; returns whether nobody
/// else did. It is that packet's from then on. `key` is room to build keys in.
#[inline(never)]
pub(crate) fn claim<T: Tables>(tables: &T, key: &mut Tuple, id: ConnId, conn: &Conn) -> bool {
    expiry::take_out(tables, key, id, conn)
}
