//! On which interfaces the programs stand, in which way, and why.

use std::fmt;

use aya::programs::links::{FdLink, LinkOrder, PinnedLink};
use aya::programs::tc::{NlOptions, TcAttachOptions};
use aya::programs::{ProgramError, SchedClassifier, TcAttachType, XdpMode};

use super::StartError;
use super::object::{EGRESS, Pins, TC};
use crate::rtnetlink::{Link, Rtnetlink};

/// How to attach to an interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AttachMode {
    /// XDP where it pays, TC where it must.
    #[default]
    Auto,
    /// Before the kernel makes its packet structure; with TC behind it for
    /// what XDP cannot do.
    Xdp,
    /// On the kernel's packet structure.
    Tc,
}

/// A program on an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// Interface.
    pub interface: String,
    /// XDP is used; else TC alone.
    pub xdp: bool,
    /// Why.
    pub reason: String,
}

impl fmt::Display for Attached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mode = if self.xdp { "XDP, TC behind it" } else { "TC" };
        write!(f, "{}: {mode} ({})", self.interface, self.reason)
    }
}

/// Attaches to every interface asked for, or to all that carry frames, and
/// lets go of those that are no longer asked for.
pub(super) fn attach_all(
    pins: &Pins,
    wanted: &[(String, AttachMode)],
) -> Result<Vec<Attached>, StartError> {
    let links =
        Rtnetlink::open().and_then(|mut netlink| netlink.links()).map_err(StartError::Netlink)?;
    let chosen: Vec<(&Link, AttachMode)> = if wanted.is_empty() {
        links.iter().filter(|link| link.carries_frames()).map(|l| (l, AttachMode::Auto)).collect()
    } else {
        let find = |(name, mode): &(String, AttachMode)| {
            let link = links.iter().find(|link| link.name == *name);
            link.map(|link| (link, *mode)).ok_or_else(|| StartError::NoInterface(name.clone()))
        };
        wanted.iter().map(find).collect::<Result<_, _>>()?
    };
    let loopback = links.iter().find(|link| link.loopback);
    for (interface, mode, path) in pins.links() {
        let kept = chosen.iter().any(|(link, wanted)| {
            link.name == interface && (mode != "xdp" || wants_xdp(link, *wanted).0)
        }) || loopback.is_some_and(|link| link.name == interface && mode != "xdp");
        if !kept {
            std::fs::remove_file(&path).map_err(|source| StartError::Path { path, source })?;
        }
    }
    // What the host's own programs send to a virtual address passes there.
    if let Some(link) = loopback {
        attach_tc(pins, &link.name)?;
    }
    chosen.into_iter().map(|(link, mode)| attach(pins, link, mode)).collect()
}

fn attach(pins: &Pins, link: &Link, mode: AttachMode) -> Result<Attached, StartError> {
    let (xdp, reason) = wants_xdp(link, mode);
    attach_tc(pins, &link.name)?;
    if xdp {
        attach_xdp(pins, link)?;
    }
    Ok(Attached { interface: link.name.clone(), xdp, reason })
}

/// Whether XDP is to be used, and why.
fn wants_xdp(link: &Link, mode: AttachMode) -> (bool, String) {
    match mode {
        AttachMode::Xdp => (true, "as asked".into()),
        AttachMode::Tc => (false, "as asked".into()),
        AttachMode::Auto if link.kind.is_empty() => (true, "a network card".into()),
        AttachMode::Auto => {
            let kind = &link.kind;
            (false, format!("a {kind} interface: checksums may be unfilled, segments large"))
        }
    }
}

/// Attaches the TC programs, for what comes in and for what the host sends.
fn attach_tc(pins: &Pins, interface: &str) -> Result<(), StartError> {
    attach_classifier(pins, interface, TC, TcAttachType::Ingress)?;
    attach_classifier(pins, interface, EGRESS, TcAttachType::Egress)
}

fn attach_classifier(
    pins: &Pins,
    interface: &str,
    name: &'static str,
    side: TcAttachType,
) -> Result<(), StartError> {
    let path = pins.link(interface, if side == TcAttachType::Ingress { "tc" } else { "egress" });
    let mut program = pins.tc(name)?;
    if stands(&path, holds_tc(&program, interface, side)) {
        return Ok(());
    }
    let failed = |source: ProgramError| StartError::Attach {
        interface: interface.to_owned(),
        mode: "TC",
        source: Box::new(source),
    };
    let order = TcAttachOptions::TcxOrder(LinkOrder::default());
    if let Ok(id) = program.attach_with_options(interface, side, order) {
        let link = program.take_link(id).map_err(failed)?;
        let link: FdLink = link.try_into().map_err(|error| pin_error(&path, &error))?;
        link.pin(&path).map_err(|error| pin_error(&path, &error))?;
        return Ok(());
    }
    // Kernels before 6.6: a filter of the clsact queueing discipline, which
    // stays on its own.
    let clsact = aya::programs::tc::qdisc_add_clsact(interface);
    tracing::debug!(?clsact, interface, "clsact");
    let options = TcAttachOptions::Netlink(NlOptions::default());
    let id = program.attach_with_options(interface, side, options).map_err(failed)?;
    let link = program.take_link(id).map_err(failed)?;
    std::mem::forget(link);
    Ok(())
}

fn attach_xdp(pins: &Pins, link: &Link) -> Result<(), StartError> {
    let interface = &link.name;
    let path = pins.link(interface, "xdp");
    if stands(&path, link.has_xdp) {
        return Ok(());
    }
    let failed = |source: ProgramError| StartError::Attach {
        interface: interface.clone(),
        mode: "XDP",
        source: Box::new(source),
    };
    let mut program = pins.xdp()?;
    let id = program.attach(interface, XdpMode::Driver).map_err(failed)?;
    let link = program.take_link(id).map_err(failed)?;
    let link: FdLink = link.try_into().map_err(|error| pin_error(&path, &error))?;
    link.pin(&path).map_err(|error| pin_error(&path, &error))?;
    Ok(())
}

/// Whether the link pinned there still does something on its interface, which
/// may have been deleted, and made again under the same name. If not, its pin is
/// removed.
fn stands(path: &std::path::Path, on_interface: bool) -> bool {
    let pinned = PinnedLink::from_pin(path).is_ok();
    if pinned && !on_interface {
        // Nothing to lose: a link without an interface does nothing.
        let _removed = std::fs::remove_file(path);
    }
    pinned && on_interface
}

/// Whether the interface has the program; where the kernel cannot tell, before
/// 6.6, it is believed to.
fn holds_tc(program: &SchedClassifier, interface: &str, side: TcAttachType) -> bool {
    let Ok(own) = program.info().map(|info| info.id()) else { return true };
    SchedClassifier::query_tcx(interface, side)
        .map_or(true, |(_, programs)| programs.iter().any(|program| program.id() == own))
}

fn pin_error(path: &std::path::Path, reason: &dyn ToString) -> StartError {
    StartError::Pin { path: path.to_owned(), reason: reason.to_string() }
}
