//! Data connections that a control connection speaks of: made before their
//! first packet comes, and hung on the control connection.

use ipvs_wire::Buffer;

use crate::addr::Addr;
use crate::admit;
use crate::conn::{Conn, ConnFlags, ConnId, Found, NONE, Tuple};
use crate::dest::{Dest, ForwardingMethod};
use crate::director::{Packet, Room};
use crate::tables::{Linked, Tables};
use crate::time::Instant;
use crate::{expiry, near, proto};

/// What [`claim`] returns where the destination was deleted.
pub(crate) const GONE: ConnId = NONE - 1;

/// A data connection to be expected.
#[derive(Clone, Copy, Debug)]
pub(super) struct Data {
    tuple: Tuple,
    dest_port: u16,
    /// Where it leads if not to the destination of the control connection.
    elsewhere: Option<Addr>,
}

impl Data {
    /// The server calls the client at `addr` and `port`, from the port below
    /// that of the control connection.
    pub(super) fn active(control: &Tuple, dest_port: u16, addr: Addr, port: u16) -> Self {
        let tuple = Tuple {
            source: addr,
            source_port: port,
            destination_port: control.destination_port.wrapping_sub(1),
            ..*control
        };
        Self { tuple, dest_port: dest_port.wrapping_sub(1), elsewhere: None }
    }

    /// The client calls the virtual address at `port`, from a port that its
    /// first packet will say.
    pub(super) fn passive(control: &Tuple, dest: &Dest, addr: Option<Addr>, port: u16) -> Self {
        let tuple =
            Tuple { source_port: 0, destination_port: port, kind: Tuple::EXPECTED, ..*control };
        Self { tuple, dest_port: port, elsewhere: addr.filter(|addr| *addr != dest.key.addr) }
    }

    const fn is_passive(&self) -> bool {
        self.tuple.kind == Tuple::EXPECTED
    }
}

/// Makes the data connection, unless it is there already, and lets it listen;
/// returns whether the tables had room.
pub(super) fn data<T: Tables>(
    room: &mut Room,
    tables: &T,
    now: Instant,
    (control_id, control): (ConnId, &Conn),
    dest: &Dest,
    data: &Data,
) -> bool {
    if let Some(found) = tables.find(&data.tuple)
        && let Some(conn) = tables.conn(found.id)
        && !(conn.has_ended(now) && expiry::expire(tables, &mut room.key, found.id, conn, now))
        && (!data.is_passive() || conn.dest_addr(dest) == data.elsewhere.unwrap_or(dest.key.addr))
    {
        proto::listen(tables, conn);
        conn.rearm(now);
        return true;
    }
    let Some(id) = tables.allocate() else { return false };
    let Some(conn) = tables.conn(id) else {
        tables.release(id);
        return false;
    };
    let dest_id = control.dest.get();
    let mut flags = admit::flags_for(dest);
    if data.is_passive() {
        flags |= ConnFlags::NO_CLIENT_PORT;
    }
    if data.elsewhere.is_some() {
        flags |= ConnFlags::ELSEWHERE;
    }
    conn.tuple.set(data.tuple);
    conn.dest_port.set(data.dest_port);
    conn.fwmark.set(control.fwmark.get());
    conn.control.set(control_id);
    admit::start(conn, dest_id, flags);
    if let Some(addr) = data.elsewhere {
        for (word, part) in conn.extra.iter().zip(addr.words()) {
            word.set(part);
        }
    }
    // Of two with one key the newer one is found.
    if !tables.relink(&data.tuple, Found { id, reply: false }) {
        conn.flags.set(0);
        tables.release(id);
        return false;
    }
    expiry::bind(tables, dest_id, dest, flags);
    tables.add(&control.controls, 1);
    if data.is_passive()
        && let Some(expected) = tables.expected()
    {
        tables.add(expected, 1);
    }
    proto::listen(tables, conn);
    conn.rearm(now);
    data.is_passive() || answer(room, tables, id, conn, dest, now)
}

/// Finds the expected connection that a client's first packet belongs to, and
/// gives it the packet's port. [`NONE`] if there is none.
#[inline(never)]
pub(crate) fn claim<B: Buffer, T: Tables>(packet: &mut Packet<'_, B>, tables: &T) -> ConnId {
    let now = packet.now;
    let key = &mut packet.room.key;
    *key = Tuple { source_port: 0, kind: Tuple::EXPECTED, ..*packet.tuple };
    let Some(Found { id, .. }) = tables.find(key) else { return NONE };
    let Some(conn) = tables.conn(id) else { return NONE };
    if conn.has_ended(now) && expiry::expire(tables, key, id, conn, now) {
        return NONE;
    }
    let Some(dest) = tables.dest(conn.dest.get()) else { return GONE };
    if !dest.is_available() {
        let ends =
            tables.settings().expire_nodest_conn != 0 && expiry::expire(tables, key, id, conn, now);
        return if ends { NONE } else { GONE };
    }
    let flags = conn.flags.get();
    // Whoever clears the flag gives the connection its port.
    if flags & ConnFlags::NO_CLIENT_PORT == 0
        || !tables.replace(&conn.flags, flags, flags & !ConnFlags::NO_CLIENT_PORT)
    {
        return tables.find(packet.tuple).map_or(NONE, |found| found.id);
    }
    if let Some(expected) = tables.expected() {
        tables.add(expected, u32::MAX);
    }
    *key = conn.tuple.get();
    if tables.find(key).is_some_and(|found| found.id == id) {
        tables.unlink(key);
    }
    conn.set_tuple(packet.tuple);
    let linked = match tables.link(packet.tuple, Found { id, reply: false }) {
        Linked::New => answer(packet.room, tables, id, conn, dest, now),
        // Made by another CPU in between.
        Linked::Taken(found) => return found.id,
        Linked::Full => false,
    };
    if linked { id } else { NONE }
}

/// Links the key of the replies; without it the connection ends.
#[inline(always)]
fn answer<T: Tables>(
    room: &mut Room,
    tables: &T,
    id: ConnId,
    conn: &Conn,
    dest: &Dest,
    now: Instant,
) -> bool {
    if ForwardingMethod::from_flags(conn.flags.get()) != ForwardingMethod::Masquerade {
        return true;
    }
    expiry::set_reply_tuple(&mut room.key, conn, dest);
    if near::relink(tables, &room.key, Found { id, reply: true }) {
        return true;
    }
    expiry::expire(tables, &mut room.key, id, conn, now);
    false
}
