//! Destinations: key, configuration, the record the data planes read and the
//! load they keep.

use core::cell::Cell;
use core::fmt;

use ipvs_wire::tunnel::Carrier;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::addr::{Addr, Family};

/// Key of a destination within its service.
#[derive(Clone, Copy, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct DestKey {
    /// Address of the real server.
    pub addr: Addr,
    /// Port, host order; 0 means "as the packet has it".
    pub port: u16,
    /// [`Family::tag`]; may differ from the service's only with a tunnel.
    pub family: u8,
    /// Zero.
    pub reserved: u8,
}

const _: () = assert!(size_of::<DestKey>() == 20);

impl DestKey {
    /// Key of the destination at `addr` and `port`.
    pub const fn new(family: Family, addr: Addr, port: u16) -> Self {
        Self { addr, port, family: family.tag(), reserved: 0 }
    }

    /// Address family.
    #[inline(always)]
    pub const fn family(&self) -> Family {
        Family::from_tag(self.family)
    }
}

impl fmt::Debug for DestKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} port {}", self.addr.to_ip(self.family()), self.port)
    }
}

/// What a user says about a destination besides its key.
///
/// Numbers are those of the IPVS netlink family, unknown values included: the
/// kernel keeps and reports them. The default is all zeros: masqueraded, of weight 0.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct DestSpec {
    /// Relative capacity; 0 makes the destination quiescent. Negative is refused.
    pub weight: i32,
    /// Upper threshold, in connections; 0 for none.
    pub upper: u32,
    /// Lower threshold, in connections; 0 for none.
    pub lower: u32,
    /// UDP port of a gue tunnel, host order.
    pub tunnel_port: u16,
    /// Tunnel flags: [`DestSpec::CHECKSUM`], …
    pub tunnel_flags: u16,
    /// Tunnel type: [`DestSpec::IPIP`], …
    pub tunnel_type: u8,
    /// Forwarding method: see [`ForwardingMethod`]; only the low three bits count.
    pub method: u8,
    /// Zero.
    pub reserved: [u8; 2],
}

const _: () = assert!(size_of::<DestSpec>() == 20);

impl DestSpec {
    /// Tunnel type ipip.
    pub const IPIP: u8 = 0;
    /// Tunnel type gue.
    pub const GUE: u8 = 1;
    /// Tunnel type gre.
    pub const GRE: u8 = 2;
    /// Tunnel flag: with a checksum.
    pub const CHECKSUM: u16 = 1;
    /// Tunnel flag: remote checksum offload.
    pub const REMOTE_CHECKSUM: u16 = 2;

    /// How packets get there.
    #[inline(always)]
    pub const fn forwarding(&self) -> ForwardingMethod {
        ForwardingMethod::from_number(self.method)
    }

    /// What carries packets in its tunnel. A type that nobody knows is taken for ipip,
    /// as by the kernel. Remote checksum offload asks for a checksum (recorded); what is
    /// to be filled in remotely is filled in here, so that nothing is left to offload.
    #[inline(always)]
    pub const fn carrier(&self) -> Carrier {
        let summed = self.tunnel_flags & (Self::CHECKSUM | Self::REMOTE_CHECKSUM) != 0;
        match self.tunnel_type {
            Self::GUE => Carrier::Gue { summed },
            Self::GRE => Carrier::Gre { summed: self.tunnel_flags & Self::CHECKSUM != 0 },
            _ => Carrier::Bare,
        }
    }
}

/// How a packet reaches the destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ForwardingMethod {
    /// Rewritten towards the destination, replies rewritten back (NAT, `-m`).
    Masquerade = 0,
    /// Delivered to the director's own stack.
    Local = 1,
    /// Wrapped towards the destination (`-i`).
    Tunnel = 2,
    /// Sent unchanged to the destination's MAC address (`-g`).
    DirectRoute = 3,
    /// Sent on by the normal route, to no destination (`cache_bypass`).
    Bypass = 4,
}

impl ForwardingMethod {
    /// The method with this number in the low three bits; the unassigned 5 to
    /// 7 have no transmitter and are taken as local delivery.
    #[inline(always)]
    pub const fn from_number(number: u8) -> Self {
        Self::from_flags(number as u32)
    }

    /// The method in a connection's flags, whose low three bits it is.
    #[inline(always)]
    pub const fn from_flags(flags: u32) -> Self {
        match flags & 7 {
            0 => Self::Masquerade,
            2 => Self::Tunnel,
            3 => Self::DirectRoute,
            4 => Self::Bypass,
            _ => Self::Local,
        }
    }
}

/// Place of a destination in the tables of a plane.
pub type DestId = u32;

/// The destination as a data plane reads it; written by the control side only.
///
/// Fields that a decision reads together lie in one aligned octet group of
/// eight, so that a reader never sees half of an edit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Dest {
    /// Key; never changes while the place is in use.
    pub key: DestKey,
    /// Configuration.
    pub spec: DestSpec,
    /// Place of the service in its table.
    pub service: u32,
    /// [`Dest::AVAILABLE`] with what a [drain](crate::drain) adds, or 0 (deleted, waiting in
    /// the trash).
    pub flags: u32,
    /// The director's address towards it: source of a tunnel's outer header.
    pub tunnel_source: Addr,
}

const _: () = assert!(size_of::<Dest>() == 64);

impl Dest {
    /// On its service's list.
    pub const AVAILABLE: u32 = 1;
    /// Nothing new goes there.
    pub const DRAINING: u32 = 2;
    /// The deadline of its drain is over: its connections are, too.
    pub const OVER: u32 = 4;
    /// Those of TCP are then reset.
    pub const RESETS: u32 = 8;

    /// What stands for the destination of a connection that has none: its packets
    /// go on by the normal route.
    pub(crate) const NOBODY: &Self = &Self {
        key: DestKey::new(Family::V4, Addr::UNSPECIFIED, 0),
        spec: DestSpec {
            weight: 0,
            upper: 0,
            lower: 0,
            tunnel_port: 0,
            tunnel_flags: 0,
            tunnel_type: DestSpec::IPIP,
            method: ForwardingMethod::Bypass as u8,
            reserved: [0; 2],
        },
        service: 0,
        flags: 0,
        tunnel_source: Addr::UNSPECIFIED,
    };

    /// Whether it is on its service's list.
    #[inline(always)]
    pub const fn is_available(&self) -> bool {
        self.flags & Self::AVAILABLE != 0
    }

    /// Whether its connections may go on: it is on its service's list, and not drained to
    /// the end.
    #[inline(always)]
    pub const fn serves(&self) -> bool {
        self.flags & (Self::AVAILABLE | Self::OVER) == Self::AVAILABLE
    }

    /// Whether nothing new goes there, whatever its weight.
    #[inline(always)]
    pub const fn is_draining(&self) -> bool {
        self.flags & Self::DRAINING != 0
    }

    /// Its weight for new connections.
    pub const fn weight(&self) -> i32 {
        if self.is_draining() { 0 } else { self.spec.weight }
    }

    /// As packets see it: while it is drained, without a weight.
    #[must_use]
    pub const fn as_seen(&self) -> Self {
        Self { spec: DestSpec { weight: self.weight(), ..self.spec }, ..*self }
    }
}

/// What a plane counts for a destination, shared by all CPUs.
#[derive(Debug, Default, FromBytes, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct Load {
    /// Connections in an active state.
    pub active: Cell<u32>,
    /// All other connections.
    pub inactive: Cell<u32>,
    /// Persistence templates.
    pub persistent: Cell<u32>,
    /// 1 when at the upper threshold and not yet back below the lower one.
    pub overloaded: Cell<u32>,
}

const _: () = assert!(size_of::<Load>() == 16);
