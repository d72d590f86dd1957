//! Datagrams that a destination of a service with an engine sends by itself:
//! they leave as the service's, and what answers them comes back to it.

use ipvs_wire::Buffer;
use ipvs_wire::transport::protocol;

use super::{CallerKey, NONE as NO_ENGINE};
use crate::admit;
use crate::conn::{ConnId, NONE, Tuple};
use crate::dest::Dest;
use crate::director::Packet;
use crate::forward;
use crate::persistence;
use crate::service::ServiceFlags;
use crate::tables::Tables;

/// Makes the connection for a datagram that belongs to none, if it is a
/// destination's own; [`NONE`] if it is not, or says nothing to its engine.
///
/// In two steps, each with its own share of the stack.
#[inline(never)]
pub(crate) fn connect<B: Buffer, T: Tables>(packet: &mut Packet<'_, B>, tables: &T) -> ConnId {
    if !prepare(packet, tables) {
        return NONE;
    }
    let Some(caller) = tables.caller(&packet.room.caller) else { return NONE };
    let Some(service) = tables.service(&caller.service) else { return NONE };
    let Some(dest) = tables.dest(caller.dest) else { return NONE };
    if service.has(ServiceFlags::PERSISTENT) {
        if !super::read(packet, tables) {
            return NONE;
        }
        packet.room.template = persistence::find_for(packet, tables, service, caller.dest);
        if packet.room.template == NONE {
            packet.room.template = persistence::make(packet, tables, service, caller.dest, dest);
        }
        if packet.room.template == NONE {
            return NONE;
        }
    }
    admit::connect(packet, tables, service, caller.dest, dest)
}

/// Puts into the room what the connection is made of; returns whether there is
/// to be one.
#[inline(never)]
fn prepare<B: Buffer, T: Tables>(packet: &mut Packet<'_, B>, tables: &T) -> bool {
    let tuple = packet.tuple;
    if tuple.protocol != protocol::UDP
        || !packet.headers.has_transport
        || !is_caller(tables, tuple, &mut packet.room.caller)
    {
        return false;
    }
    let Some(caller) = tables.caller(&packet.room.caller) else { return false };
    let Some(service) = tables.service(&caller.service) else { return false };
    let available = tables.dest(caller.dest).is_some_and(Dest::is_available);
    // What is for the host itself is not sent on.
    if !available || service.engine == NO_ENGINE || forward::is_for_host(packet.room, tables, tuple)
    {
        return false;
    }
    packet.room.client = Tuple {
        source: tuple.destination,
        source_port: tuple.destination_port,
        destination: service.key.addr,
        destination_port: service.key.port,
        ..*tuple
    };
    packet.room.replaces = true;
    packet.room.template = NONE;
    true
}

/// Whether packets with this key may be a destination's own; `key` is room to find out.
#[inline(always)]
pub(crate) fn is_caller<T: Tables>(tables: &T, tuple: &Tuple, key: &mut CallerKey) -> bool {
    *key = CallerKey::of(tuple);
    tables.caller(key).is_some()
}
