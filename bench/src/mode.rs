//! What is measured: the ways a director can send packets on.

use std::fmt;

use ipvs_bench_programs::records::{Expectation, Range};
use ipvs_core::dest::ForwardingMethod;

use crate::packet::{Addresses, DEST_PORT, PORT, TTL};
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
    Ipvs(Hook, ForwardingMethod),
}

/// Where the plane gets its packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hook {
    /// Before the kernel makes its packet structure.
    Xdp,
    /// With the kernel's packet structure.
    Tc,
}

impl Mode {
    /// All of them, in the order of each round.
    pub(crate) const ALL: [Self; 10] = [
        Self::Floor,
        Self::Ipvs(Hook::Xdp, ForwardingMethod::Masquerade),
        Self::Ipvs(Hook::Xdp, ForwardingMethod::DirectRoute),
        Self::Ipvs(Hook::Xdp, ForwardingMethod::Tunnel),
        Self::TcFloor,
        Self::Ipvs(Hook::Tc, ForwardingMethod::Masquerade),
        Self::Ipvs(Hook::Tc, ForwardingMethod::DirectRoute),
        Self::Ipvs(Hook::Tc, ForwardingMethod::Tunnel),
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
            Self::Ipvs(Hook::Xdp, ForwardingMethod::Masquerade) => "xdp-nat",
            Self::Ipvs(Hook::Xdp, ForwardingMethod::Tunnel) => "xdp-ipip",
            Self::Ipvs(Hook::Xdp, _) => "xdp-dr",
            Self::Ipvs(Hook::Tc, ForwardingMethod::Masquerade) => "tc-nat",
            Self::Ipvs(Hook::Tc, ForwardingMethod::Tunnel) => "tc-ipip",
            Self::Ipvs(Hook::Tc, _) => "tc-dr",
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
        matches!(self, Self::NftDnat | Self::Ipvs(_, ForwardingMethod::Masquerade))
    }

    /// The name of the eBPF program that does the work.
    pub(crate) const fn program(self) -> Option<&'static str> {
        match self {
            Self::Floor => Some("bench_floor"),
            Self::TcFloor => Some("bench_tc_floor"),
            Self::Ipvs(Hook::Xdp, _) => Some("ipvs_xdp"),
            Self::Ipvs(Hook::Tc, _) => Some("ipvs_tc"),
            Self::IpForward | Self::NftDnat => None,
        }
    }

    /// What the sink takes for right.
    pub(crate) fn expectation(self, addresses: &Addresses) -> Expectation {
        let to = if self.translates() { addresses.dests() } else { addresses.vip_only() };
        let tunnel = match self {
            Self::Ipvs(_, ForwardingMethod::Tunnel) => addresses.dests(),
            _ => Range::default(),
        };
        let ttl = if matches!(self, Self::Floor | Self::TcFloor) { TTL } else { TTL - 1 };
        Expectation {
            tunnel,
            to,
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
