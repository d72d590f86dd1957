//! Persistence: templates that send a client, or a network of clients, to the
//! destination it had before.

use ipvs_wire::Buffer;

use crate::addr::{Addr, Family};
use crate::admit;
use crate::conn::{Conn, ConnFlags, ConnId, Found, NONE, Tuple};
use crate::dest::{Dest, DestId};
use crate::director::Packet;
use crate::engine;
use crate::expiry;
use crate::service::{Service, ServiceFlags};
use crate::tables::{Linked, Tables};

/// State of a template on which no connection was established yet.
pub const NONE_YET: u8 = 0;
/// State of a template that is proven: a connection on it was established.
pub const ASSURED: u8 = 1;

/// The port under which a template lies that must not be found any more.
const HIDDEN_PORT: u16 = 0xffff;
/// The port of FTP control connections, whose data connections share the template.
const FTP: u16 = 21;

/// Finds the template for a client's packet; [`NONE`] if there is none that
/// may be used.
#[inline(always)]
pub(crate) fn find<B: Buffer, T: Tables>(
    packet: &mut Packet<'_, B>,
    tables: &T,
    service: &Service,
) -> ConnId {
    find_for(packet, tables, service, NONE)
}

/// The same, of those that lead to the destination `wanted`, or to any if that
/// is [`NONE`].
#[inline(never)]
pub(crate) fn find_for<B: Buffer, T: Tables>(
    packet: &mut Packet<'_, B>,
    tables: &T,
    service: &Service,
    wanted: DestId,
) -> ConnId {
    let id = look(packet, tables, service);
    let Some(template) = tables.conn(id) else { return NONE };
    if template.has_ended(packet.now)
        && expiry::expire(tables, &mut packet.room.key, id, template, packet.now)
    {
        return NONE;
    }
    let quiescent_ends = tables.settings().expire_quiescent_template != 0;
    let usable = tables.dest(template.dest.get()).is_some_and(|dest| {
        dest.is_available() && !dest.is_draining() && !(quiescent_ends && dest.spec.weight == 0)
    }) && (wanted == NONE || template.dest.get() == wanted);
    if usable {
        return id;
    }
    hide(&mut packet.room.key, tables, id, template);
    NONE
}

/// The template under the key of the client in the room, whatever it is good for.
#[inline(always)]
fn look<B: Buffer, T: Tables>(packet: &mut Packet<'_, B>, tables: &T, service: &Service) -> ConnId {
    let room = &mut *packet.room;
    set_key(&mut room.key, &room.client, service);
    if service.engine == engine::NONE {
        return tables.find(&room.key).map_or(NONE, |found| found.id);
    }
    let hash = engine::hash(&room.data);
    for probe in 0..engine::PROBES {
        engine::mark(&mut room.key, hash, probe);
        if let Some(Found { id, .. }) = tables.find(&room.key)
            && tables.engine_data_is(id, &room.data)
        {
            return id;
        }
    }
    NONE
}

/// Makes the template that sends the client in the room to the destination;
/// [`NONE`] if the table is full.
#[inline(never)]
pub(crate) fn make<B: Buffer, T: Tables>(
    packet: &mut Packet<'_, B>,
    tables: &T,
    service: &Service,
    dest_id: DestId,
    dest: &Dest,
) -> ConnId {
    let Some(id) = tables.allocate() else { return NONE };
    let Some(template) = tables.conn(id) else {
        tables.release(id);
        return NONE;
    };
    let room = &mut *packet.room;
    let key = &mut room.key;
    set_key(key, &room.client, service);
    let mut flags = admit::flags_for(dest) | ConnFlags::TEMPLATE;
    if service.has(ServiceFlags::ONE_PACKET) {
        // Defence treats it by what came through it, as no connection assures it.
        flags |= ConnFlags::ONE_PACKET;
    }
    if service.engine != engine::NONE {
        flags |= ConnFlags::ENGINE;
        if !tables.put_engine_data(id, &room.data) {
            tables.release(id);
            return NONE;
        }
    }
    template.timeout.set(service.spec.timeout.saturating_mul(1000));
    template.rearm(packet.now);
    template.dest_port.set(if key.destination_port == 0 { 0 } else { dest.key.port });
    template.fwmark.set(room.mark);
    template.control.set(NONE);
    admit::start(template, dest_id, flags);
    let hash = if flags & ConnFlags::ENGINE != 0 { engine::hash(&room.data) } else { 0 };
    let mut other = NONE;
    for probe in 0..engine::PROBES {
        if flags & ConnFlags::ENGINE != 0 {
            engine::mark(key, hash, probe);
        }
        template.set_tuple(key);
        match tables.link(key, Found { id, reply: false }) {
            Linked::New => {
                expiry::bind(tables, dest_id, dest, flags);
                return id;
            }
            // Other data with the same hash: the next place.
            Linked::Taken(found)
                if flags & ConnFlags::ENGINE != 0
                    && !tables.engine_data_is(found.id, &room.data) => {}
            // Another CPU was first: its template counts.
            Linked::Taken(found) => {
                other = found.id;
                break;
            }
            Linked::Full => break,
        }
    }
    if flags & ConnFlags::ENGINE != 0 {
        tables.forget_engine_data(id);
    }
    template.flags.set(0);
    tables.release(id);
    other
}

/// A connection on the template was established.
#[inline(always)]
pub(crate) fn assure<T: Tables>(tables: &T, conn: &Conn) {
    if let Some(control) = tables.conn(conn.control.get())
        && control.has(ConnFlags::TEMPLATE)
    {
        control.state.set(ASSURED);
    }
}

/// Makes a template unfindable; it stays until its connections are gone.
#[inline(always)]
fn hide<T: Tables>(key: &mut Tuple, tables: &T, id: ConnId, template: &Conn) {
    tables.unlink(key);
    key.source_port = 0;
    key.destination_port = HIDDEN_PORT;
    template.dest_port.set(HIDDEN_PORT);
    template.set_tuple(key);
    // Where an older one lies hidden, this one needs no key: its timer ends it.
    let _linked = tables.link(key, Found { id, reply: false });
}

/// Makes `key` that of the template for the packet with `tuple`.
#[inline(always)]
fn set_key(key: &mut Tuple, tuple: &Tuple, service: &Service) {
    let port = match service.key.port {
        FTP => 0,
        port => port,
    };
    *key = Tuple {
        source: masked(tuple.source, tuple.family(), service.spec.netmask),
        source_port: 0,
        destination_port: port,
        kind: Tuple::TEMPLATE,
        ..*tuple
    };
    if service.key.is_fwmark() {
        key.destination = Addr::v4(service.key.fwmark.to_be_bytes());
        key.protocol = 0;
    }
}

/// The network of a client: by mask for IPv4, by prefix length for IPv6.
#[inline(always)]
fn masked(addr: Addr, family: Family, netmask: [u8; 4]) -> Addr {
    let [a, b, c, d] = addr.words();
    let mask = u32::from_ne_bytes(netmask);
    match family {
        Family::V4 => Addr::from_words([a & mask, b, c, d]),
        Family::V6 => Addr::from_words([
            a & prefix_word(mask, 0),
            b & prefix_word(mask, 32),
            c & prefix_word(mask, 64),
            d & prefix_word(mask, 96),
        ]),
    }
}

/// The part of an IPv6 prefix of `len` bits that lies in the word from `start`.
#[inline(always)]
const fn prefix_word(len: u32, start: u32) -> u32 {
    if len >= start + 32 {
        u32::MAX
    } else if len <= start {
        0
    } else {
        (u32::MAX << (start + 32 - len)).to_be()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv4_client_is_masked_by_its_netmask() {
        let client = Addr::v4([198, 51, 100, 7]);
        let net = masked(client, Family::V4, [255, 255, 255, 0]);
        assert_eq!(net, Addr::v4([198, 51, 100, 0]));
    }

    #[test]
    fn an_ipv6_client_is_masked_by_prefix_length() {
        let client = Addr::v6([0xff; 16]);
        for len in [1, 31, 32, 33, 64, 127, 128] {
            let net =
                u128::from_be_bytes(masked(client, Family::V6, u32::to_ne_bytes(len)).octets());
            assert_eq!(net, u128::MAX << (128 - len), "/{len}");
        }
    }
}
