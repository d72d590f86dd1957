//! The last steps of a packet that the director sends: it waits for its
//! neighbour, and is cut where it is longer than its way.

use std::hash::{BuildHasher as _, RandomState};

use ipvs_core::time::Instant;
use ipvs_wire::ethernet;

use super::host::{LinuxHost, NeighbourKey};
use super::pending::{Pending, Queued};
use super::pool::Pool;
use super::segment;
use crate::fragment;
use crate::frame::Frame;

/// Where frames can be sent.
pub(crate) trait Outlets {
    /// Sends a frame by the interface as it is, but for what the kernel does
    /// on the way out.
    fn send(&mut self, frame: Frame, ifindex: u32, pool: &mut Pool);
}

/// Packets on their last steps.
#[derive(Debug, Default)]
pub(crate) struct Leaving {
    /// Frames nobody uses.
    pub(crate) pool: Pool,
    /// Those that wait for a neighbour.
    pub(crate) pending: Pending,
    /// Packets that could not be made ready to be sent.
    pub(crate) unfinished: u64,
    ids: Identifications,
    /// Room for the pieces of one train.
    segments: Vec<Frame>,
}

/// Identifications of IPv6 datagrams: none repeats soon, and none can be
/// guessed (RFC 7739).
#[derive(Debug, Default)]
struct Identifications {
    secret: RandomState,
    next: u64,
}

impl Identifications {
    #[expect(clippy::cast_possible_truncation, reason = "any 32 bits will do")]
    fn take(&mut self) -> u32 {
        self.next += 1;
        self.secret.hash_one(self.next) as u32
    }
}

impl Leaving {
    /// Sends a frame that is addressed, in pieces if it must be.
    pub(crate) fn forward(
        &mut self,
        frame: Frame,
        ifindex: u32,
        mtu: u32,
        outlets: &mut impl Outlets,
    ) {
        let header_len = ethernet::parse(&frame).map_or(0, |it| it.payload);
        let long = fragment::must_cut(&frame, header_len, mtu);
        let whole = frame.segment_len == 0 && !frame.checksum_pending;
        if !long && (whole || frame.outer_len() == 0) {
            outlets.send(frame, ifindex, &mut self.pool);
            return;
        }
        let mut segments = std::mem::take(&mut self.segments);
        if whole {
            segments.push(frame);
        } else if segment::finish(frame, mtu, &mut self.pool, |it| segments.push(it)).is_none() {
            self.unfinished += 1;
        }
        for segment in segments.drain(..) {
            let pieces = if fragment::must_cut(&segment, header_len, mtu) {
                fragment::cut(&segment, mtu, self.ids.take())
            } else {
                None
            };
            match pieces {
                Some(pieces) => {
                    self.pool.give(segment);
                    for piece in pieces {
                        outlets.send(Frame::new(piece), ifindex, &mut self.pool);
                    }
                }
                // What may not be cut, the kernel refuses, and the outlet counts.
                None => outlets.send(segment, ifindex, &mut self.pool),
            }
        }
        self.segments = segments;
    }

    /// Sends a frame once its neighbour is known.
    pub(crate) fn resolve(
        &mut self,
        frame: Frame,
        key: NeighbourKey,
        now: Instant,
        host: &LinuxHost,
        outlets: &mut impl Outlets,
    ) {
        if self.pending.add(key, frame, now, &mut self.pool) != Queued::First {
            return;
        }
        match host.resolve(key) {
            Ok(Some(mac)) => self.release(key, mac, host, outlets),
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(%error, ?key, "the kernel does not look for the neighbour");
                self.give_up(key);
            }
        }
    }

    /// Sends what has waited for a neighbour.
    pub(crate) fn release(
        &mut self,
        key: NeighbourKey,
        mac: ethernet::Mac,
        host: &LinuxHost,
        outlets: &mut impl Outlets,
    ) {
        let Some(link) = host.link(key.0) else {
            self.give_up(key);
            return;
        };
        let (own, mtu) = (link.mac.unwrap_or_default(), link.mtu);
        for mut frame in self.pending.release(key) {
            if ethernet::set_addresses(&mut frame, mac, own).is_some() {
                self.forward(frame, key.0, mtu, outlets);
            }
        }
    }

    /// Gives up what waits for a neighbour.
    pub(crate) fn give_up(&mut self, key: NeighbourKey) {
        self.pending.give_up(key, &mut self.pool);
    }

    /// Gives up what has waited too long for a neighbour.
    pub(crate) fn expire(&mut self, now: Instant) {
        self.pending.expire(now, &mut self.pool);
    }
}
