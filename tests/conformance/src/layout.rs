//! Topology `std-1` in network namespaces: the director's with the interfaces
//! `c0` and `s0`, and one outside with their other ends, `cp` and `sp`, which
//! say nothing by themselves.

use std::time::Duration;

use anyhow::{Context as _, Result};
use ipvs_lab::{End, Link, MacAddr, Namespace, Offload, Route, veth};

use crate::host::{Host, Target};

/// What the recordings were made with, and what keeps a host from speaking
/// unasked: no duplicate address detection, no router solicitation, no
/// link-local addresses; errors are not rationed.
pub const DIRECTOR_SYSCTLS: [(&str, &str); 10] = [
    ("net/ipv4/ip_forward", "1"),
    ("net/ipv4/conf/all/rp_filter", "0"),
    ("net/ipv4/conf/all/send_redirects", "0"),
    ("net/ipv4/conf/default/rp_filter", "0"),
    ("net/ipv4/conf/default/send_redirects", "0"),
    ("net/ipv4/icmp_ratelimit", "0"),
    ("net/ipv6/icmp/ratelimit", "0"),
    ("net/ipv6/conf/all/forwarding", "1"),
    ("net/ipv6/conf/default/accept_dad", "0"),
    ("net/ipv6/conf/default/router_solicitations", "0"),
];
/// No link-local addresses (`addrgenmode none`).
pub const NO_ADDRESS: (&str, &str) = ("net/ipv6/conf/default/addr_gen_mode", "1");

/// A laid-out network.
#[derive(Debug)]
pub struct Layout {
    /// Where the director runs.
    pub director: Namespace,
    /// Where the other ends are.
    pub outside: Namespace,
    /// The names of the director's interfaces, each with that of its other end.
    pub pairs: Vec<(&'static str, &'static str)>,
}

impl Layout {
    /// Makes the namespaces of `host`; they go when this value does.
    pub fn build(host: &Host) -> Result<Self> {
        let director = Namespace::new("conf-director")?;
        let outside = Namespace::new("conf-outside")?;
        for (key, value) in DIRECTOR_SYSCTLS.into_iter().chain([NO_ADDRESS]) {
            director.sysctl(key, value)?;
        }
        outside.sysctl("net/ipv6/conf/default/disable_ipv6", "1")?;
        let mut pairs = Vec::new();
        for interface in &host.interfaces {
            let other = if interface.name == "c0" { "cp" } else { "sp" };
            let ends = veth(
                End::new(&director, interface.name).mac(MacAddr(interface.mac)),
                End::new(&outside, other).mac(MacAddr(interface.peer)),
                None,
            )?;
            prepare(&ends.0, &ends.1)?;
            for address in &interface.addresses {
                ends.0.add_address(*address)?;
            }
            pairs.push((interface.name, other));
        }
        for (dev, address, mac) in &host.neighbours {
            director.link(dev)?.add_neighbour(*address, MacAddr(*mac))?;
        }
        for entry in &host.routes {
            if let Target::Out { via: Some(router), .. } = entry.target {
                director.add_route(Route::via(entry.to, router))?;
            }
        }
        Ok(Self { director, outside, pairs })
    }
}

/// Every checksum is in the packet, and every packet is as long as it was sent.
fn prepare(inner: &Link, outer: &Link) -> Result<()> {
    for link in [inner, outer] {
        link.disable_offloads()?;
        link.wait_until_running(Duration::from_secs(5))?;
    }
    // Frames that XDP redirects into a veth pair vanish unless its other end
    // polls, which this switches on; single frames stay as they are.
    outer
        .set_offload(Offload::GenericReceive, true)
        .context("the other end cannot take redirected frames")
}
