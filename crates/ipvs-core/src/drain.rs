//! Draining a destination: nothing new goes there, what is there may finish, until a deadline.
//!
//! IPVS knows weight 0, which leaves persistent clients where they are, and lets connections
//! live as long as they like. A destination that is drained keeps its weight and its place in
//! the listings; it is an overlay that ends with `undrain`.

use crate::conn::{Conn, ConnFlags};
use crate::dest::DestKey;
use crate::proto;
use crate::service::ServiceKey;
use crate::time::{Instant, Millis};

/// What becomes of the connections that are left at the deadline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u32)]
pub enum AtDeadline {
    /// They stay.
    #[default]
    Wait = 0,
    /// Their next packets start connections to other destinations, if they may start one:
    /// those of TCP, which may not, are the host's, as if the connection were over.
    Rehash = 1,
    /// Those of TCP are reset on both sides; all others are moved.
    Reset = 2,
}

impl AtDeadline {
    /// Every one.
    pub const ALL: [Self; 3] = [Self::Wait, Self::Rehash, Self::Reset];

    /// The one with this number.
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|it| *it as u32 == number)
    }

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Wait => "wait",
            Self::Rehash => "rehash",
            Self::Reset => "reset",
        }
    }
}

/// How a destination is drained.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drain {
    /// How long its connections have; `None` for as long as they like.
    pub limit: Option<Millis>,
    /// What becomes of those that are left then.
    pub then: AtDeadline,
}

/// How far a drain is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DrainStatus {
    /// The service.
    pub service: ServiceKey,
    /// The destination.
    pub dest: DestKey,
    /// What becomes of connections that are left at the deadline.
    pub then: AtDeadline,
    /// How long it goes on already.
    pub since: Millis,
    /// How long there is until the deadline, 0 behind it; `None` without one.
    pub deadline: Option<Millis>,
    /// How many connections were open in the beginning.
    pub began_with: u32,
    /// Connections that are open still.
    pub open: u32,
    /// Connections that are over, as both sides know, and only wait for their time.
    pub over: u32,
    /// Persistence templates that are left: they lead nobody there any more.
    pub persistent: u32,
}

/// Whether a connection of a destination that is drained may still carry something.
pub fn is_open(conn: &Conn) -> bool {
    !conn.has(ConnFlags::TEMPLATE | ConnFlags::RESET) && !proto::is_over(conn, 0)
}

/// The milliseconds from one moment to a later one, as many as can be told.
pub fn millis_between(from: Instant, to: Instant) -> Millis {
    let millis = to.nanos().saturating_sub(from.nanos()) / 1_000_000;
    Millis(u32::try_from(millis).unwrap_or(u32::MAX))
}
