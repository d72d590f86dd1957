//! Persistence engines: templates keyed by what a datagram says, not only by
//! who sends it.
//!
//! There is one, [`sip`]. An engine reads its data from a datagram that starts
//! a connection; templates then lie under client, virtual service and data, and
//! a datagram without data is dropped.

pub(crate) mod outgoing;
pub mod sip;

use ipvs_wire::Buffer;
use ipvs_wire::transport::{protocol, udp};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::addr::Addr;
use crate::conn::Tuple;
use crate::dest::{Dest, ForwardingMethod};
use crate::director::Packet;
use crate::name::Name;
use crate::service::ServiceKey;
use crate::tables::Tables;

/// No engine, in [`Service::engine`](crate::service::Service::engine).
pub const NONE: u32 = 0;
/// The engine [`sip`].
pub const SIP: u32 = 1;

/// Places under which data with one hash may lie.
pub(crate) const PROBES: u32 = 4;

/// The number of the engine with this name: [`NONE`] without a name, `None` if
/// there is no such engine.
pub fn by_name(name: &Name) -> Option<u32> {
    match name.as_str() {
        "" => Some(NONE),
        sip::NAME => Some(SIP),
        _ => None,
    }
}

/// What an engine read from a datagram, as a table keeps it for a template.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Data {
    /// Octets, in order; unused ones are zero.
    words: [u64; Self::WORDS],
    /// How many there are.
    len: u64,
}

const _: () = assert!(size_of::<Data>() == 264);

impl Data {
    /// The most octets there may be.
    pub const MAX_LEN: u64 = 255;
    const WORDS: usize = 32;

    /// These octets; `None` if they are too many.
    pub fn of(octets: &[u8]) -> Option<Self> {
        let mut data = Self::default();
        octets.iter().all(|octet| data.push(*octet)).then_some(data)
    }

    #[inline(always)]
    fn clear(&mut self) {
        for word in &mut self.words {
            *word = 0;
        }
        self.len = 0;
    }

    /// Adds an octet; returns whether there was room.
    #[inline(always)]
    fn push(&mut self, octet: u8) -> bool {
        if self.len >= Self::MAX_LEN {
            return false;
        }
        // Masked where the verifier sees it.
        let place = core::hint::black_box(self.len >> 3) & 31;
        if let Some(word) = self.words.get_mut(usize::try_from(place).unwrap_or(0)) {
            *word |= u64::from(octet) << ((self.len & 7) * 8);
        }
        self.len += 1;
        true
    }

    /// The octets.
    pub fn octets(&self) -> impl Iterator<Item = u8> {
        let len = usize::try_from(self.len).unwrap_or(0);
        self.words.iter().flat_map(|word| word.to_le_bytes()).take(len)
    }

    /// Whether two hold the same.
    #[inline(always)]
    pub fn is(&self, other: &Self) -> bool {
        let mut difference = self.len ^ other.len;
        for (one, two) in self.words.iter().zip(&other.words) {
            difference |= one ^ two;
        }
        difference == 0
    }

    /// A hash of 31 bits. Not keyed: the client's address stands beside it, so
    /// nobody disturbs others.
    #[inline(always)]
    fn hash(&self) -> u32 {
        let mut hash = self.len;
        for word in &self.words {
            let product = (hash ^ word).wrapping_mul(0xff51_afd7_ed55_8ccd);
            hash = product ^ product >> 32;
        }
        (hash.wrapping_mul(0xc4ce_b9fe_1a85_ec53) >> 33) as u32
    }
}

/// Reads what `engine` wants of a datagram; returns whether it is there.
#[inline(never)]
pub(crate) fn read<B: Buffer, T: Tables>(packet: &mut Packet<'_, B>, tables: &T) -> bool {
    let h = packet.headers;
    if h.protocol != protocol::UDP || !h.has_transport {
        return false;
    }
    let len = h.transport_len() - udp::HEADER_LEN;
    packet.buf.reach(h.l4 + h.transport_len());
    let room = &mut *packet.room;
    room.data.clear();
    sip::read(packet.buf, tables, h.l4 + udp::HEADER_LEN, len, &mut room.data, &mut room.scan)
}

/// Makes the key of a template that of one with engine data, the `probe`th of
/// those with its hash.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "the halves of a number")]
pub(crate) fn mark(key: &mut Tuple, hash: u32, probe: u32) {
    let hash = hash.wrapping_add(probe);
    key.source_port = hash as u16;
    key.kind = Tuple::ENGINE | (hash >> 16) as u16;
}

/// The hash of the data in the room.
#[inline(never)]
pub(crate) fn hash(data: &Data) -> u32 {
    data.hash()
}

/// Source of a datagram that a destination sends by itself, as a key.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct CallerKey {
    /// Its address.
    pub addr: Addr,
    /// Its port, host order.
    pub port: u16,
    /// IANA protocol number.
    pub protocol: u8,
    /// [`Family::tag`](crate::addr::Family::tag).
    pub family: u8,
}

impl CallerKey {
    /// That of whoever sends packets with this key.
    #[inline(always)]
    pub(crate) const fn of(tuple: &Tuple) -> Self {
        Self {
            addr: tuple.source,
            port: tuple.source_port,
            protocol: tuple.protocol,
            family: tuple.family,
        }
    }
}

/// A destination that may send by itself: what it sends leaves as its service's, or is
/// answered by an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Caller {
    /// The service.
    pub service: ServiceKey,
    /// The destination.
    pub dest: u32,
}

/// Whether a destination of a service may call out: its replies are translated,
/// and both have a port.
pub fn may_call(service_port: u16, dest: &Dest) -> bool {
    service_port != 0
        && dest.key.port != 0
        && dest.spec.forwarding() == ForwardingMethod::Masquerade
}
