//! Whether a packet goes with the connection that is found for it.

use ipvs_wire::Headers;
use ipvs_wire::transport::protocol;

use crate::conn::{Conn, ConnFlags, Found, NONE};
use crate::dest::Dest;
use crate::director::Packet;
use crate::settings::Settings;
use crate::tables::Tables;
use crate::{expiry, one_packet, proto};

/// What a known connection means for a packet.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// The packet goes with it.
    Goes,
    /// Its destination was deleted.
    Gone,
    /// It made room: the packet may start another one.
    Over,
    /// It waited for another packet.
    Taken,
    /// It is over and the packet has it reset.
    Reset,
}

/// Whether a packet goes with the connection found for it.
#[inline(always)]
pub(crate) fn standing<B, T: Tables>(
    packet: &mut Packet<'_, B>,
    tables: &T,
    Found { id, reply }: Found,
    conn: &Conn,
) -> Standing {
    if conn.has(ConnFlags::ONE_PACKET) {
        let claimed = one_packet::claim(tables, &mut packet.room.key, id, conn);
        return if claimed { Standing::Goes } else { Standing::Taken };
    }
    if reply {
        return Standing::Goes;
    }
    let dest = tables.dest(conn.dest.get());
    // What goes past all destinations has none that could be gone.
    let stands = dest.is_some_and(Dest::serves) || (dest.is_none() && conn.is_bypass());
    let settings = tables.settings();
    let makes_room = if proto::is_opening(packet.headers) && is_reusable(conn, dest, settings) {
        true
    } else if stands {
        return Standing::Goes;
    } else if dest.is_some_and(Dest::is_available) {
        // Drained to the end.
        if let Some(standing) = standing_of_reset(packet.headers, dest) {
            return standing;
        }
        true
    } else {
        settings.expire_nodest_conn != 0
    };
    if makes_room && conn.controls.get() == 0 {
        return Standing::Over;
    }
    // One that others hang on does not make way: it gets another minute.
    if makes_room && expiry::expire(tables, &mut packet.room.key, id, conn, packet.now) {
        Standing::Over
    } else if stands {
        Standing::Goes
    } else {
        Standing::Gone
    }
}

/// What becomes of a segment whose connection is to be reset; `None` if it is none such, or
/// starts another connection.
#[inline(always)]
fn standing_of_reset(headers: &Headers, dest: Option<&Dest>) -> Option<Standing> {
    if headers.protocol != protocol::TCP
        || !headers.has_transport
        || proto::is_opening(headers)
        || dest.is_none_or(|dest| dest.flags & Dest::RESETS == 0)
    {
        return None;
    }
    Some(if proto::is_abort(headers) { Standing::Goes } else { Standing::Reset })
}

/// Whether an opening packet may take the place of the connection.
#[inline(always)]
fn is_reusable(conn: &Conn, dest: Option<&Dest>, settings: &Settings) -> bool {
    if settings.expire_nodest_conn != 0 && dest.is_some_and(|dest| dest.spec.weight == 0) {
        return true;
    }
    settings.conn_reuse_mode != 0
        && conn.control.get() == NONE
        && proto::is_over(conn, settings.conn_reuse_mode)
}
