//! Keeps the kernel from forwarding what this plane balances.
//!
//! A packet socket gets copies: the host's stack sees every frame too. That
//! does no harm as long as the host does not route between its interfaces:
//!
//! * A client's packet to a virtual address that is not the host's own is to
//!   another host; with forwarding off the kernel drops it in silence (with the
//!   address on the host, it would refuse the connection).
//! * A real server's reply is to the client: another host, too. With
//!   forwarding on it would reach the client a second time, untranslated, and
//!   be answered with a reset.
//! * What is for the host itself is not changed by the switch.
//!
//! IPv4 has the switch per interface that a packet comes in by; IPv6 has one
//! for the host, and since Linux 6.17 one that overrules it per interface.

use std::fs;
use std::io;
use std::path::PathBuf;

/// Where sysctls are.
const SYSCTL: &str = "/proc/sys/net";

/// A switch that was turned off, to be turned on again at the end.
#[derive(Debug)]
struct Switch {
    path: PathBuf,
    before: String,
}

/// The switches this plane has turned off.
#[derive(Debug, Default)]
pub(super) struct Forwarding {
    turned_off: Vec<Switch>,
}

/// A switch that is on and cannot be turned off.
#[derive(Debug, thiserror::Error)]
#[error(
    "the kernel forwards packets itself ({path} is {value}), and the plane may not change that: \
     {source}; turn it off with `sysctl -w`, for clients would get replies twice"
)]
pub struct ForwardingError {
    path: String,
    value: String,
    #[source]
    source: io::Error,
}

impl Forwarding {
    /// Turns forwarding off for what comes in by `interface`.
    pub(super) fn turn_off(&mut self, interface: &str) -> Result<(), ForwardingError> {
        let switches = [
            format!("{SYSCTL}/ipv4/conf/{interface}/forwarding"),
            format!("{SYSCTL}/ipv6/conf/all/forwarding"),
            format!("{SYSCTL}/ipv6/conf/{interface}/force_forwarding"),
        ];
        for path in switches {
            // A kernel without IPv6, or without the newest switch, does not forward by it.
            let Ok(value) = fs::read_to_string(&path) else { continue };
            let value = value.trim_end().to_owned();
            if value == "0" {
                continue;
            }
            match fs::write(&path, "0") {
                Ok(()) => {
                    self.turned_off.push(Switch { path: path.into(), before: value });
                }
                Err(source) => return Err(ForwardingError { path, value, source }),
            }
        }
        Ok(())
    }

    /// The switches that were turned off, by their paths.
    pub(super) fn turned_off(&self) -> impl Iterator<Item = String> {
        self.turned_off.iter().map(|switch| switch.path.display().to_string())
    }
}

impl Drop for Forwarding {
    fn drop(&mut self) {
        for switch in self.turned_off.drain(..).rev() {
            // The interface may be gone by now.
            let _ = fs::write(&switch.path, &switch.before);
        }
    }
}
