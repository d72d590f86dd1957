//! Makes a kernel that has just started ready: file systems and modules.

use std::fs;

use anyhow::{Context as _, Result};
use ipvs_lab::load_modules;
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};

use super::layout::ERRORS;

/// What scenarios need. IPv6 comes first: `ip_vs` wants its symbols.
const WANTED: [&str; 25] = [
    "ipv6",
    "ip_vs",
    "ip_vs_rr",
    "ip_vs_wrr",
    "ip_vs_lc",
    "ip_vs_wlc",
    "ip_vs_lblc",
    "ip_vs_lblcr",
    "ip_vs_dh",
    "ip_vs_sh",
    "ip_vs_sed",
    "ip_vs_nq",
    "ip_vs_fo",
    "ip_vs_ovf",
    "ip_vs_mh",
    "ip_vs_ftp",
    "ip_vs_pe_sip",
    "nf_conntrack",
    "ipip",
    "ip_gre",
    "ip6_gre",
    "ip6_tunnel",
    "sit",
    "veth",
    "sctp",
];

/// Mounts what system calls need, and loads the modules.
pub(crate) fn prepare() -> Result<()> {
    for (kind, place) in [("proc", "/proc"), ("sysfs", "/sys"), ("tmpfs", "/run")] {
        // Another init may have been there before.
        match mount(Some(kind), place, Some(kind), MsFlags::empty(), None::<&str>) {
            Ok(()) | Err(Errno::EBUSY) => {}
            Err(errno) => return Err(errno).context(format!("cannot mount {place}")),
        }
    }
    load_modules(&WANTED).context("cannot load modules")?;
    for (key, value) in ERRORS {
        fs::write(format!("/proc/sys/net/ipv4/{key}"), value)?;
    }
    Ok(())
}
