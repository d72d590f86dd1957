//! What the plane takes of the kernel: memory of maps, time of programs.

use std::fs;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};

use aya::maps::MapData;
use aya::programs::{ProgramError, Xdp};
use aya_obj::programs::XdpAttachType;

use super::AttachMode;
use super::attach::Attached;
use super::object::{CONTROL, EGRESS, MAPS, Pins, TC, TC_ARRIVING, TC_LEAVING, TC_ROUTED, XDP};
use crate::measure::{Interface, Program};

/// The programs that packets meet first. What runs behind them counts as theirs.
const TC_PROGRAMS: [&str; 5] = [TC, TC_ARRIVING, TC_ROUTED, TC_LEAVING, EGRESS];

/// What the kernel tells of a map or program at one of its descriptors.
struct About(String);

impl About {
    fn of(fd: BorrowedFd<'_>) -> Option<Self> {
        fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd())).ok().map(Self)
    }

    fn text(&self, name: &str) -> Option<&str> {
        let mut lines = self.0.lines().filter_map(|line| line.split_once(':'));
        lines.find(|(key, _)| *key == name).map(|(_, value)| value.trim())
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.text(name)?.parse().ok()
    }
}

/// Every map that is pinned, and the octets that it takes.
pub(super) fn maps(pins: &Pins) -> Vec<(&'static str, u64)> {
    let memory = |name: &&'static str| {
        let map = MapData::from_pin(pins.map(name)).ok()?;
        Some((*name, About::of(map.fd().as_fd())?.number("memlock")?))
    };
    MAPS.iter().filter_map(memory).collect()
}

/// Every program that is pinned.
pub(super) fn programs(pins: &Pins) -> Vec<Program> {
    let program = |name, fd: BorrowedFd<'_>| {
        let about = About::of(fd)?;
        Some(Program {
            name,
            tag: about.text("prog_tag")?.to_owned(),
            run_time_ns: about.number("run_time_ns").unwrap_or_default(),
            runs: about.number("run_cnt").unwrap_or_default(),
        })
    };
    let tc = |name| program(name, pins.tc(name).ok()?.fd().ok()?.as_fd());
    let xdp =
        |name, found: Result<Xdp, ProgramError>| program(name, found.ok()?.fd().ok()?.as_fd());
    let control = Xdp::from_pin(pins.map(CONTROL), XdpAttachType::Interface);
    let mut programs: Vec<Program> = TC_PROGRAMS.into_iter().filter_map(tc).collect();
    programs.extend(xdp(XDP, Xdp::from_pin(pins.map(XDP), XdpAttachType::Interface)));
    programs.extend(xdp(CONTROL, control));
    programs
}

/// An interface in words that stay.
pub(super) fn interface(attached: &Attached) -> Interface {
    let mode = match attached.mode {
        AttachMode::Xdp => "xdp",
        AttachMode::Netfilter => "netfilter",
        AttachMode::Tc | AttachMode::Auto => "tc",
    };
    Interface { name: attached.interface.clone(), mode, reason: attached.reason.clone() }
}
