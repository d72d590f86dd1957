//! Makes a kernel that has just started ready: file systems and modules.

use std::env;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use ipvs_lab::{handle_packets_first, load_modules};
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};

use super::layout::ERRORS;
use crate::job::{SHARED, TAG};

/// What scenarios need. IPv6 comes first: `ip_vs` wants its symbols. Before it comes a checksum
/// that others ask for by its name, which no program here would load.
pub(crate) const WANTED: [&str; 26] = [
    "crc32c_generic",
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

/// What a kernel does by the second for its memory is left alone: where time jumps from timer to
/// timer, an hour takes as long as it has timers.
const IDLE: [(&str, &str); 3] = [
    ("stat_interval", "3600"),
    ("compaction_proactiveness", "0"),
    ("dirty_writeback_centisecs", "0"),
];

/// Mounts what system calls need, and the jobs, and loads the modules.
pub(crate) fn prepare(jobs: &Path) -> Result<()> {
    for (kind, place) in [("proc", "/proc"), ("sysfs", "/sys"), ("tmpfs", "/run")] {
        // Another init may have been there before.
        match mount(Some(kind), place, Some(kind), MsFlags::empty(), None::<&str>) {
            Ok(()) | Err(Errno::EBUSY) => {}
            Err(errno) => return Err(errno).context(format!("cannot mount {place}")),
        }
    }
    if let Some(tag) = env::var_os(TAG) {
        load_modules(&SHARED).context("cannot load modules")?;
        let options = Some("trans=virtio,version=9p2000.L,msize=262144");
        mount(Some(tag.as_os_str()), jobs, Some("9p"), MsFlags::empty(), options)
            .with_context(|| format!("cannot mount {}", jobs.display()))?;
        for (key, value) in IDLE {
            fs::write(format!("/proc/sys/vm/{key}"), value).context(key)?;
        }
    }
    load_modules(&WANTED).context("cannot load modules")?;
    for (key, value) in ERRORS {
        fs::write(format!("/proc/sys/net/ipv4/{key}"), value)?;
    }
    handle_packets_first().context("cannot let packets be handled first")
}
