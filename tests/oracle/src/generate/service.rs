//! Virtual services and their destinations as a scenario knows them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::rng::Rng;

/// A transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// The option of `ipvsadm` that names a service of it.
    pub(crate) const fn option(self) -> &'static str {
        match self {
            Self::Tcp => "-t",
            Self::Udp => "-u",
            Self::Sctp => "--sctp-service",
        }
    }
}

/// A forwarding method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    /// Masquerading.
    Nat,
    /// Direct routing.
    Dr,
    /// An IP-in-IP tunnel.
    Tunnel,
    /// Another tunnel, or one between addresses of either family: its options.
    Mixed(&'static str),
}

impl Method {
    /// The options of `ipvsadm`.
    pub(crate) const fn options(self) -> &'static str {
        match self {
            Self::Nat => "-m",
            Self::Dr => "-g",
            Self::Tunnel => "-i",
            Self::Mixed(options) => options,
        }
    }

    /// Whether the destination may have another port than the service.
    pub(crate) const fn maps_ports(self) -> bool {
        matches!(self, Self::Nat)
    }
}

/// A virtual service.
#[derive(Clone, Debug)]
pub(crate) struct Service {
    /// Protocol.
    pub(crate) protocol: Protocol,
    /// Virtual address and port; port 0 for any.
    pub(crate) address: SocketAddr,
    /// Its destinations.
    pub(crate) servers: Vec<Server>,
    /// Destinations that were taken away.
    pub(crate) gone: Vec<Server>,
    /// Options behind the scheduler.
    pub(crate) options: String,
}

/// A destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Server {
    /// Address and port.
    pub(crate) address: SocketAddr,
    /// Forwarding method.
    pub(crate) method: Method,
    /// Upper and lower threshold; 0 for none.
    pub(crate) limits: (usize, usize),
}

impl Service {
    /// How `ipvsadm` names it.
    pub(crate) fn name(&self) -> String {
        format!("{} {}", self.protocol.option(), self.address)
    }
}

/// A virtual address, the `number`th of its family; both wrap.
pub(crate) fn virtual_address(v6: bool, number: usize) -> IpAddr {
    let last = u8::try_from(number % 3).unwrap_or(0);
    if v6 {
        Ipv6Addr::new(0x2001, 0xdb8, 0xc, 0, 0, 0, 0, 0x10 + u16::from(last)).into()
    } else {
        Ipv4Addr::new(192, 0, 2, 10 + last).into()
    }
}

/// The address of a real server: those on the link, then those behind the router.
pub(crate) fn server_address(v6: bool, number: usize) -> IpAddr {
    let number = u8::try_from(number % 16).unwrap_or(0);
    let far = number >= 12;
    let n = if far { number } else { number + 11 };
    if v6 {
        let digits = u16::from(n / 10) * 16 + u16::from(n % 10);
        Ipv6Addr::new(0x2001, 0xdb8, if far { 6 } else { 5 }, 0, 0, 0, 0, digits).into()
    } else {
        Ipv4Addr::new(10, if far { 2 } else { 1 }, 0, n).into()
    }
}

/// The address of a client.
pub(crate) fn client_address(v6: bool, rng: &mut Rng, of: usize) -> IpAddr {
    let number = u8::try_from(rng.below(of.min(250)) + 1).unwrap_or(1);
    match (v6, rng.chance(25)) {
        (false, false) => Ipv4Addr::new(198, 51, 100, number).into(),
        (false, true) => Ipv4Addr::new(203, 0, 113, number).into(),
        (true, far) => {
            let net = if far { 7 } else { 0 };
            Ipv6Addr::new(0x2001, 0xdb8, 0xffff, net, 0, 0, 0, u16::from(number)).into()
        }
    }
}
