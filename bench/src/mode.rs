//! What is measured: the ways a director can send packets on.

use std::fmt;

use ipvs_bench_programs::headers::{GRE, Ip, Ipv4, Ipv6, TCP, UDP};
use ipvs_bench_programs::records::{Expectation, Range};
use ipvs_core::addr::Family;
use ipvs_core::dest::{DestSpec, ForwardingMethod};

use crate::packet::{Addresses, DEST_PORT, GUE_PORT, PORT, TTL};
use crate::rig::Entry;

/// A way of sending packets on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// An XDP program that sets MAC addresses and looks at nothing.
    Floor,
    /// The same by a TC program: what the kernel's packet structure costs.
    TcFloor,
    /// The kernel's forwarding by route.
    IpForward,
    /// nftables: destination NAT with connection tracking.
    NftDnat,
    /// The eBPF plane at this hook, to destinations by this method.
    Ipvs(Hook, Method),
}

/// Where the plane gets its packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hook {
    /// Before the kernel makes its packet structure.
    Xdp,
    /// With the kernel's packet structure.
    Tc,
}

impl Hook {
    /// Names of the bench's programs that restore a packet and go on, without the family, and
    /// that do nothing; and of the array with what they go on with.
    pub(crate) const fn runner(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Xdp => ("bench_run", "bench_noop", "BENCH_XDP_PROGRAM"),
            Self::Tc => ("bench_tc_run", "bench_tc_noop", "BENCH_TC_PROGRAM"),
        }
    }

    /// The name of the plane's program.
    pub(crate) const fn program(self) -> &'static str {
        match self {
            Self::Xdp => "ipvs_xdp",
            Self::Tc => "ipvs_tc",
        }
    }

    /// What a program returns whose packet is to leave by another interface.
    pub(crate) const fn redirect(self) -> u32 {
        match self {
            Self::Xdp => 4,
            Self::Tc => 7,
        }
    }
}

/// How destinations get their packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    /// Masquerading.
    Nat,
    /// Direct routing.
    Dr,
    /// A tunnel of IP in IP.
    Ipip,
    /// A tunnel by GRE.
    Gre,
    /// A tunnel by GUE.
    Gue,
}

impl Method {
    /// Its name in tables and files.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Nat => "nat",
            Self::Dr => "dr",
            Self::Ipip => "ipip",
            Self::Gre => "gre",
            Self::Gue => "gue",
        }
    }

    /// The port of destinations: only masquerading may change it.
    pub(crate) const fn port(self) -> u16 {
        if matches!(self, Self::Nat) { DEST_PORT } else { PORT }
    }

    /// A destination, as ipvsadm is told.
    pub(crate) fn options(self) -> String {
        match self {
            Self::Nat => "-m".to_owned(),
            Self::Dr => "-g".to_owned(),
            Self::Ipip => "-i".to_owned(),
            Self::Gre => "-i --tun-type gre --tun-nocsum".to_owned(),
            Self::Gue => format!("-i --tun-type gue --tun-port {GUE_PORT} --tun-nocsum"),
        }
    }

    /// A destination, as the plane is told.
    pub(crate) fn spec(self) -> DestSpec {
        let (method, tunnel_type, tunnel_port) = match self {
            Self::Nat => (ForwardingMethod::Masquerade, 0, 0),
            Self::Dr => (ForwardingMethod::DirectRoute, 0, 0),
            Self::Ipip => (ForwardingMethod::Tunnel, DestSpec::IPIP, 0),
            Self::Gre => (ForwardingMethod::Tunnel, DestSpec::GRE, 0),
            Self::Gue => (ForwardingMethod::Tunnel, DestSpec::GUE, GUE_PORT),
        };
        let method = method as u8;
        DestSpec { weight: 1, method, tunnel_type, tunnel_port, ..DestSpec::default() }
    }
}

impl Mode {
    /// All of them, in the order of each round.
    pub(crate) const ALL: [Self; 14] = [
        Self::Floor,
        Self::Ipvs(Hook::Xdp, Method::Nat),
        Self::Ipvs(Hook::Xdp, Method::Dr),
        Self::Ipvs(Hook::Xdp, Method::Ipip),
        Self::Ipvs(Hook::Xdp, Method::Gre),
        Self::Ipvs(Hook::Xdp, Method::Gue),
        Self::TcFloor,
        Self::Ipvs(Hook::Tc, Method::Nat),
        Self::Ipvs(Hook::Tc, Method::Dr),
        Self::Ipvs(Hook::Tc, Method::Ipip),
        Self::Ipvs(Hook::Tc, Method::Gre),
        Self::Ipvs(Hook::Tc, Method::Gue),
        Self::IpForward,
        Self::NftDnat,
    ];

    /// Its name in tables and files.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Floor => "floor",
            Self::TcFloor => "tc-floor",
            Self::IpForward => "ip-forward",
            Self::NftDnat => "nft-dnat",
            Self::Ipvs(Hook::Xdp, Method::Nat) => "xdp-nat",
            Self::Ipvs(Hook::Xdp, Method::Dr) => "xdp-dr",
            Self::Ipvs(Hook::Xdp, Method::Ipip) => "xdp-ipip",
            Self::Ipvs(Hook::Xdp, Method::Gre) => "xdp-gre",
            Self::Ipvs(Hook::Xdp, Method::Gue) => "xdp-gue",
            Self::Ipvs(Hook::Tc, Method::Nat) => "tc-nat",
            Self::Ipvs(Hook::Tc, Method::Dr) => "tc-dr",
            Self::Ipvs(Hook::Tc, Method::Ipip) => "tc-ipip",
            Self::Ipvs(Hook::Tc, Method::Gre) => "tc-gre",
            Self::Ipvs(Hook::Tc, Method::Gue) => "tc-gue",
        }
    }

    /// The mode of this name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.name() == name)
    }

    /// How frames get in.
    pub(crate) const fn entry(self) -> Entry {
        match self {
            Self::Floor | Self::Ipvs(Hook::Xdp, _) => Entry::Xdp,
            Self::TcFloor | Self::IpForward | Self::NftDnat | Self::Ipvs(Hook::Tc, _) => {
                Entry::Stack
            }
        }
    }

    /// Whether connections are kept, so that there are any to be set up.
    pub(crate) const fn has_connections(self) -> bool {
        matches!(self, Self::NftDnat | Self::Ipvs(..))
    }

    /// Whether replies go back through the director.
    pub(crate) const fn translates(self) -> bool {
        matches!(self, Self::NftDnat | Self::Ipvs(_, Method::Nat))
    }

    /// The name of the eBPF program that does the work.
    pub(crate) const fn program(self) -> Option<&'static str> {
        match self {
            Self::Floor => Some("bench_floor"),
            Self::TcFloor => Some("bench_tc_floor"),
            Self::Ipvs(hook, _) => Some(hook.program()),
            Self::IpForward | Self::NftDnat => None,
        }
    }

    /// What the sink takes for right.
    pub(crate) fn expectation(self, addresses: &Addresses) -> Expectation {
        let to = if self.translates() { addresses.dests() } else { addresses.vip_only() };
        let dests = addresses.dests();
        let (inside, ethertype) = match addresses.family {
            Family::V4 => (Ipv4::INSIDE, Ipv4::ETHERTYPE),
            Family::V6 => (Ipv6::INSIDE, Ipv6::ETHERTYPE),
        };
        let [high, low] = ethertype.to_be_bytes();
        let (tunnel, outer, carrier_len, carrier) = match self {
            Self::Ipvs(_, Method::Ipip) => (dests, inside, 0, [0; 4]),
            Self::Ipvs(_, Method::Gre) => (dests, GRE, 4, [0, 0, high, low]),
            // Behind ports, length and checksum.
            Self::Ipvs(_, Method::Gue) => (dests, UDP, 12, [0, inside, 0, 0]),
            _ => (Range::default(), 0, 0, [0; 4]),
        };
        let ttl = if matches!(self, Self::Floor | Self::TcFloor) { TTL } else { TTL - 1 };
        Expectation {
            tunnel,
            carrier_len,
            carrier,
            outer: u32::from(outer),
            to,
            protocol: u32::from(TCP),
            port: u32::from(if self.translates() { DEST_PORT } else { PORT }),
            ttl: u32::from(ttl),
            thorough: 0,
            answers: 0,
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mode_is_found_by_its_name() {
        for mode in Mode::ALL {
            assert_eq!(Mode::named(mode.name()), Some(mode));
        }
        assert_eq!(Mode::named("xdp"), None);
    }
}
