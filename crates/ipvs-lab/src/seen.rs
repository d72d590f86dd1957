//! What a real server sees of a packet's way: whence, and to which of its addresses.

use std::{fmt, net::SocketAddr, str::FromStr};

/// The two ends of an exchange as the real server sees them.
///
/// A director that masquerades makes the server see its own address as the destination; with
/// direct routing and tunnels it sees the virtual one. The client it sees as it is, always.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Whence the request came.
    pub client: SocketAddr,
    /// To which of the server's addresses and ports it was sent.
    pub at: SocketAddr,
}

impl Seen {
    /// IPv4 addresses that a socket for both families shows as IPv6 become what they are.
    pub(crate) fn new(client: SocketAddr, at: SocketAddr) -> Self {
        let plain =
            |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
        Self { client: plain(client), at: plain(at) }
    }
}

/// Client and own address with a blank between.
impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.client, self.at)
    }
}

impl FromStr for Seen {
    type Err = std::net::AddrParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (client, at) = text.split_once(' ').unwrap_or((text, ""));
        Ok(Self { client: client.parse()?, at: at.parse()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_written_as_what_they_are_and_read_again() {
        let seen = Seen::new(
            "[::ffff:192.0.2.2]:50000".parse().unwrap(),
            "[2001:db8:5::b]:80".parse().unwrap(),
        );
        assert_eq!(seen.to_string(), "192.0.2.2:50000 [2001:db8:5::b]:80");
        assert_eq!(seen.to_string().parse(), Ok(seen));
        assert!("192.0.2.2:50000".parse::<Seen>().is_err());
    }
}
