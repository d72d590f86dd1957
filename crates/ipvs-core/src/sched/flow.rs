//! What a scheduler may know of the packet that a destination is wanted for.

use crate::addr::Addr;
use crate::conn::Tuple;
use crate::time::Instant;

/// Who asks for what, and when.
///
/// For a packet that an ICMP error quotes, which goes the other way, the client
/// is the one it is for; the destination is always the packet's own.
#[derive(Clone, Copy, Debug, Default)]
pub struct Flow {
    /// The client: what sh and mh choose by.
    pub client: Addr,
    /// The packet's destination address: what dh, lblc and lblcr choose by, also
    /// where the service has a firewall mark instead of an address.
    pub destination: Addr,
    /// Now.
    pub now: Instant,
    /// The client's port, host order.
    pub client_port: u16,
}

impl Flow {
    /// Of a client's packet with this key.
    #[inline(always)]
    pub const fn of(tuple: &Tuple, now: Instant) -> Self {
        Self {
            client: tuple.source,
            destination: tuple.destination,
            now,
            client_port: tuple.source_port,
        }
    }
}
