//! Topology `std-1` in the guest, made without a thread: that would cost more
//! there than all the rest.
//!
//! The director has a namespace of its own in each scenario; the other ends of
//! its interfaces are in the agent's own.

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, Result};
use ipvs_conformance::host::{Host, Target};
use ipvs_conformance::layout::{DIRECTOR_SYSCTLS, NO_ADDRESS};
use ipvs_lab::{End, Link, MacAddr, Namespace, Route, veth};
use nix::sched::{CloneFlags, unshare};

/// How many ICMP errors a host may send in a second, and at once: any number.
pub(crate) const ERRORS: [(&str, &str); 2] =
    [("icmp_msgs_per_sec", "100000"), ("icmp_msgs_burst", "100000")];

/// A laid-out network.
#[derive(Debug)]
pub(crate) struct Layout {
    /// Where the director is.
    pub(crate) director: Namespace,
    /// The other ends, each with the name of the director's interface.
    pub(crate) ends: Vec<(&'static str, Link)>,
}

/// Makes the agent's own namespace ready for other ends.
pub(crate) fn prepare() -> Result<()> {
    fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1")?;
    Ok(())
}

impl Layout {
    /// Makes the namespace and its network. The calling thread is in it from then on.
    pub(crate) fn build(home: &Namespace) -> Result<Self> {
        // The kernel takes its time to end a network: no name is used again.
        static LAID_OUT: AtomicUsize = AtomicUsize::new(0);
        let number = LAID_OUT.fetch_add(1, Ordering::Relaxed);
        unshare(CloneFlags::CLONE_NEWNET).context("no new network namespace")?;
        let director = Namespace::current("director")?;
        director.link("lo")?.up()?;
        for (key, value) in DIRECTOR_SYSCTLS.into_iter().chain([NO_ADDRESS]) {
            fs::write(format!("/proc/sys/{key}"), value).with_context(|| key.to_owned())?;
        }
        for (key, value) in ERRORS {
            // Older kernels have one for all namespaces; that is set when the guest starts.
            let _ = fs::write(format!("/proc/sys/net/ipv4/{key}"), value);
        }
        let host = Host::std_1();
        let mut ends = Vec::new();
        for interface in &host.interfaces {
            let other = format!("{}-{number}", interface.name);
            let (inner, outer) = veth(
                End::new(&director, interface.name).mac(MacAddr(interface.mac)),
                End::new(home, &other).mac(MacAddr(interface.peer)),
                None,
            )?;
            inner.disable_offloads()?;
            outer.disable_offloads()?;
            for address in &interface.addresses {
                inner.add_address(*address)?;
            }
            for (_, address, mac) in host.neighbours.iter().filter(|it| it.0 == interface.name) {
                inner.add_neighbour(*address, MacAddr(*mac))?;
            }
            ends.push((interface.name, outer));
        }
        for entry in &host.routes {
            if let Target::Out { via: Some(router), .. } = entry.target {
                director.add_route(Route::via(entry.to, router))?;
            }
        }
        Ok(Self { director, ends })
    }
}
