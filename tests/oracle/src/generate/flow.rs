//! A connection as its two ends drive it, in order mostly, and at times not.

use std::net::SocketAddr;

use ipvs_conformance::case::Frame;
use ipvs_conformance::subject::Trouble;

use super::Scene;
use super::service::Protocol;
use crate::packet::{Body, Packet, ends, flags};
use crate::rng::Rng;

/// A connection.
#[derive(Clone, Debug)]
pub(crate) struct Flow {
    /// Protocol.
    pub(crate) protocol: Protocol,
    /// The client's end.
    pub(crate) client: SocketAddr,
    /// The virtual service's.
    pub(crate) service: SocketAddr,
    /// How a server saw the last packet that reached it by masquerading: from
    /// whom, and as whom it was meant.
    pub(crate) seen: Option<(SocketAddr, SocketAddr)>,
    /// What of the usual course is done.
    pub(crate) stage: usize,
    /// Whether packets have gone between these ends before.
    pub(crate) used: bool,
}

/// Who sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Client,
    Server,
}

use End::{Client, Server};

/// The usual course of TCP: who sends which flags, and how much data.
const TCP: [(End, u8, usize); 10] = [
    (Client, flags::SYN, 0),
    (Server, flags::SYN | flags::ACK, 0),
    (Client, flags::ACK, 0),
    (Client, flags::PSH | flags::ACK, 60),
    (Server, flags::ACK, 0),
    (Server, flags::PSH | flags::ACK, 300),
    (Client, flags::ACK, 0),
    (Client, flags::FIN | flags::ACK, 0),
    (Server, flags::FIN | flags::ACK, 0),
    (Client, flags::ACK, 0),
];

/// The usual course of SCTP (RFC 9260), by chunk types.
const SCTP: [(End, u8); 10] = [
    (Client, 1),
    (Server, 2),
    (Client, 10),
    (Server, 11),
    (Client, 0),
    (Server, 3),
    (Server, 0),
    (Client, 7),
    (Server, 8),
    (Client, 14),
];
/// Chunk types that a packet out of turn may begin with.
const CHUNKS: [u8; 14] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 14, 192];
/// The port of tunnels in UDP.
const GUE: u16 = 6080;
/// Flags that a segment out of turn may have.
const ODD: [u8; 14] = [
    0,
    flags::SYN,
    flags::FIN,
    flags::RST,
    flags::ACK,
    flags::RST | flags::ACK,
    flags::SYN | flags::ACK,
    flags::FIN | flags::ACK,
    flags::SYN | flags::FIN,
    flags::SYN | flags::RST,
    flags::PSH,
    flags::FIN | flags::PSH | 32,
    0xff,
    flags::SYN | 0xc0,
];

impl Flow {
    /// Whether its usual course is over.
    pub(crate) const fn is_over(&self) -> bool {
        let len = match self.protocol {
            Protocol::Tcp => TCP.len(),
            Protocol::Sctp => SCTP.len(),
            Protocol::Udp => 8,
        };
        self.stage >= len
    }

    /// Makes the next packet: the next of the usual course, or in `odd` of a
    /// hundred cases any other.
    pub(crate) fn step(&mut self, scene: &mut Scene, odd: usize) -> Result<(), Trouble> {
        let out_of_turn = scene.rng.chance(odd) || self.is_over();
        let (end, body) = self.body(&mut scene.rng, out_of_turn);
        if !out_of_turn {
            self.stage += 1;
        }
        let begins = match &body {
            Body::Tcp { flags, .. } => flags & flags::SYN != 0,
            Body::Sctp { chunks, .. } => chunks.first() == Some(&1),
            Body::Udp(_) => false,
        };
        if begins && self.used && !scene.reuses {
            return Ok(());
        }
        let ttl = if scene.tired > 0 && scene.rng.chance(scene.tired) {
            scene.rng.pick([0, 1, 2, 3])
        } else {
            64
        };
        let Some(frame) = self.frame(&mut scene.rng, end, ttl, body) else { return Ok(()) };
        let out = scene.send(frame)?;
        self.look(&out);
        if begins && self.used {
            scene.pause()?;
        }
        self.used = true;
        Ok(())
    }

    /// Takes note of how a server sees the connection.
    fn look(&mut self, out: &[Frame]) {
        for frame in out.iter().filter(|frame| frame.dev == "s0") {
            let Some((_, from, to)) = ends(&frame.octets) else { continue };
            if to.ip() != self.service.ip() && to.port() != GUE {
                self.seen = Some((from, to));
            }
        }
    }

    fn body(&self, rng: &mut Rng, out_of_turn: bool) -> (End, Body) {
        let any = rng.pick([Client, Client, Server]);
        match self.protocol {
            Protocol::Tcp => {
                let usual = TCP.get(self.stage).filter(|_| !out_of_turn).copied();
                let odd = (any, rng.pick(ODD), rng.pick([0, 0, 1, 40, 1000]));
                let (end, flags, len) = usual.unwrap_or(odd);
                let seq = 1000 + u32::try_from(self.stage).unwrap_or(0);
                (end, Body::Tcp { flags, seq, ack: 5000, data: vec![0x61; len] })
            }
            Protocol::Udp => {
                let len = rng.pick([0, 1, 18, 200, 1200]);
                (if self.stage == 0 { Client } else { any }, Body::Udp(vec![0x62; len]))
            }
            Protocol::Sctp => {
                let usual = SCTP.get(self.stage).filter(|_| !out_of_turn).copied();
                let (end, kind) = usual.unwrap_or_else(|| (any, rng.pick(CHUNKS)));
                let tag = if kind == 1 { 0 } else { 0x0102_0304 };
                (end, Body::Sctp { tag, chunks: chunk(kind) })
            }
        }
    }

    /// The packet of one end; `None` if it is a server's that knows of nothing.
    fn frame(&self, rng: &mut Rng, end: End, ttl: u8, body: Body) -> Option<Frame> {
        let id = u16::try_from(rng.below(1 << 16)).unwrap_or(1);
        let tos = rng.pick([0, 0, 0, 0x10, 0xb8]);
        let (from, to) = match end {
            Client => (self.client, self.service),
            Server => {
                let (from, to) = self.seen?;
                (to, from)
            }
        };
        let packet = Packet { from, to, ttl, id, whole: rng.chance(50), tos, body };
        Some(if end == Client { packet.client_frame() } else { packet.server_frame() })
    }
}

/// A chunk of this type with something in it.
fn chunk(kind: u8) -> Vec<u8> {
    let len: u8 = if matches!(kind, 1 | 2) { 20 } else { 16 };
    let mut chunk = vec![kind, if kind == 0 { 3 } else { 0 }, 0, len];
    chunk.resize(usize::from(len), 0x11);
    chunk
}
