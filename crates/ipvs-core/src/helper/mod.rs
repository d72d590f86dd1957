//! The FTP helper: it reads the control connections of masqueraded FTP
//! services, expects the data connections that they speak of, and puts the
//! virtual address where a server announces its own.
//!
//! It looks at one segment at a time and only while the control connection is
//! ESTABLISHED, as the kernel's does (recorded on 6.1). Nothing is kept of the
//! text but what [`Memory`] holds.

pub(crate) mod expect;
mod ftp;
mod segment;
mod sequence;

use ipvs_wire::Buffer;
use ipvs_wire::transport::{protocol, tcp};

use crate::conn::{Conn, ConnId, Tuple};
use crate::dest::{Dest, ForwardingMethod};
use crate::director::Packet;
use crate::proto::tcp::ESTABLISHED;
use crate::settings::Settings;
use crate::tables::Tables;
use crate::verdict::Reason;

use ftp::{Command, Mode};
use segment::{SEQUENCE, Segment};
use sequence::Memory;

/// Whether a new connection with these flags is helped: a masqueraded one to
/// a virtual port of FTP.
#[inline(always)]
pub(crate) fn is_helped(settings: &Settings, tuple: &Tuple, flags: u32) -> bool {
    tuple.protocol == protocol::TCP
        && ForwardingMethod::from_flags(flags) == ForwardingMethod::Masquerade
        && tuple.destination_port != 0
        && settings.ftp_ports.contains(&tuple.destination_port)
}

/// Reads a client's packet of a control connection, before it is translated.
pub(crate) fn request<B: Buffer, T: Tables>(
    packet: &mut Packet<'_, B>,
    tables: &T,
    id: ConnId,
    conn: &Conn,
    dest: &Dest,
) -> Result<(), Reason> {
    let Some(segment) = Segment::read(packet.buf, packet.headers) else { return Ok(()) };
    if !segment::is_sound(packet.buf, packet.headers) {
        return Err(Reason::BadChecksum);
    }
    let memory = Memory(&conn.extra);
    let tuple = conn.tuple.get();
    if conn.state.get() == ESTABLISHED {
        match ftp::command(packet.buf, &segment, tuple.family()) {
            Command::Enter(mode) => memory.set_mode(mode),
            Command::Data { addr, port } => {
                memory.set_mode(Mode::Active);
                let data = expect::Data::active(&tuple, conn.dest_port.get(), addr, port);
                if !expect::data(packet.room, tables, packet.now, (id, conn), dest, &data) {
                    return Err(Reason::TableFull);
                }
            }
            Command::Other => {}
        }
    }
    let has_ack = segment.flags & (tcp::ACK | tcp::SYN | tcp::RST) == tcp::ACK;
    if has_ack && memory.is_never_sent(segment.acknowledged) {
        return Err(Reason::NeverSent);
    }
    sequence::shift_back(packet.buf, packet.headers, &segment, memory).ok_or(Reason::Unwritable)
}

/// Reads a server's packet of a control connection, before it is translated,
/// and rewrites what it announces. Returns the length of the datagram after it.
pub(crate) fn reply<B: Buffer, T: Tables>(
    packet: &mut Packet<'_, B>,
    tables: &T,
    id: ConnId,
    conn: &Conn,
) -> Result<u32, Reason> {
    let len = packet.headers.total_len;
    let Some(segment) = Segment::read(packet.buf, packet.headers) else { return Ok(len) };
    if !segment::is_sound(packet.buf, packet.headers) {
        return Err(Reason::BadChecksum);
    }
    let memory = Memory(&conn.extra);
    memory.note_sent(&segment);
    let tuple = conn.tuple.get();
    let mut growth = None;
    if conn.state.get() == ESTABLISHED
        && let Some(dest) = tables.dest(conn.dest.get())
        && let mode = memory.mode_at(segment.sequence)
        && let Some(said) = ftp::announced(packet.buf, &segment, tuple.family(), mode)
    {
        let data = expect::Data::passive(&tuple, dest, said.addr, said.port);
        if !expect::data(packet.room, tables, packet.now, (id, conn), dest, &data) {
            return Err(Reason::TableFull);
        }
        let text = ftp::announcement(mode, tuple.destination, said.port);
        let grown = segment::rewrite(packet.buf, packet.headers, said.place, text.octets())
            .ok_or(Reason::Unwritable)?;
        memory.rewrote(mode, segment.sequence, grown);
        growth = Some(grown);
    }
    let sequence = memory.shifted(segment.sequence);
    if growth.is_some() || sequence != segment.sequence {
        packet
            .buf
            .store(segment.at + SEQUENCE, sequence.to_be_bytes())
            .ok_or(Reason::Unwritable)?;
        segment::sum_up(packet.buf, packet.headers, growth.unwrap_or(0))
            .ok_or(Reason::Unwritable)?;
    }
    Ok(len.wrapping_add_signed(growth.unwrap_or(0)))
}
