//! On which interfaces the programs stand, in which way, and why.

use std::fmt;

use aya::programs::links::{FdLink, LinkOrder, PinnedLink};
use aya::programs::tc::{NlOptions, TcAttachOptions};
use aya::programs::{ProgramError, SchedClassifier, TcAttachType, XdpMode};

use super::object::{EGRESS, Pins, TC, TC_ARRIVING, TC_LEAVING, TC_ROUTED};
use super::{StartError, door};
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
    /// Once the host's firewall has let it through, and marked it: what the host
    /// would send on.
    Netfilter,
}

/// A program on an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// Interface.
    pub interface: String,
    /// How: never [`AttachMode::Auto`].
    pub mode: AttachMode,
    /// Why.
    pub reason: String,
}

impl fmt::Display for Attached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mode = match self.mode {
            AttachMode::Xdp => "XDP, TC behind it",
            AttachMode::Netfilter => "netfilter, and TC on what leaves",
            AttachMode::Tc | AttachMode::Auto => "TC",
        };
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
    let attached: Vec<(&Link, Attached)> =
        chosen.into_iter().map(|(link, mode)| (link, choose(link, mode))).collect();
    let places = places(&attached, links.iter().find(|link| link.loopback));
    for (interface, hook, path) in pins.links() {
        if !places.iter().any(|place| place.interface == interface && place.hook.name() == hook) {
            std::fs::remove_file(&path).map_err(|source| StartError::Path { path, source })?;
        }
    }
    for place in &places {
        match place.hook {
            Hook::Tc => attach_tc(pins, place, TC, TcAttachType::Ingress)?,
            Hook::Arriving => attach_tc(pins, place, TC_ARRIVING, TcAttachType::Ingress)?,
            Hook::Egress => attach_tc(pins, place, EGRESS, TcAttachType::Egress)?,
            Hook::Leaving => attach_tc(pins, place, TC_LEAVING, TcAttachType::Egress)?,
            Hook::Routed => attach_tc(pins, place, TC_ROUTED, TcAttachType::Egress)?,
            Hook::Xdp => attach_xdp(pins, place)?,
        }
    }
    Ok(attached.into_iter().map(|(_, attached)| attached).collect())
}

/// A hook on an interface that has a program of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hook {
    /// Where packets come in.
    Tc,
    /// The same, earlier.
    Xdp,
    /// Where packets come in that pass the firewall first.
    Arriving,
    /// Where the host's own packets leave.
    Egress,
    /// Where packets leave that the host sends on.
    Leaving,
    /// Where they leave for the door.
    Routed,
}

impl Hook {
    /// As its link is pinned.
    const fn name(self) -> &'static str {
        match self {
            Self::Tc => "tc",
            Self::Xdp => "xdp",
            Self::Arriving => "arriving",
            Self::Egress => "egress",
            Self::Leaving => "leaving",
            Self::Routed => "routed",
        }
    }
}

/// Where a program goes.
struct Place<'a> {
    interface: &'a str,
    hook: Hook,
    has_xdp: bool,
}

/// Every place that a program goes to. What has passed the firewall on its way from
/// one interface leaves by any other; what the host's own programs send to a virtual
/// address passes `loopback`.
fn places<'a>(attached: &'a [(&'a Link, Attached)], loopback: Option<&'a Link>) -> Vec<Place<'a>> {
    let netfilter = attached.iter().any(|(_, it)| it.mode == AttachMode::Netfilter);
    let place = |link: &'a Link, hook| Place { interface: &link.name, hook, has_xdp: link.has_xdp };
    let mut places = Vec::new();
    if let Some(link) = loopback {
        places.extend([Hook::Tc, Hook::Egress].map(|hook| place(link, hook)));
    }
    for (link, attached) in attached {
        let mut add = |hook| places.push(place(link, hook));
        add(Hook::Egress);
        add(if attached.mode == AttachMode::Netfilter { Hook::Arriving } else { Hook::Tc });
        if attached.mode == AttachMode::Xdp {
            add(Hook::Xdp);
        }
        if netfilter {
            add(Hook::Leaving);
        }
    }
    if netfilter {
        places.push(Place { interface: door::HOST, hook: Hook::Routed, has_xdp: false });
    }
    places
}

/// How to attach to an interface, and why so.
fn choose(link: &Link, mode: AttachMode) -> Attached {
    let (mode, reason) = match mode {
        AttachMode::Auto if link.kind.is_empty() => (AttachMode::Xdp, "a network card".into()),
        AttachMode::Auto => {
            let kind = &link.kind;
            let why = format!("a {kind} interface: checksums may be unfilled, segments large");
            (AttachMode::Tc, why)
        }
        asked => (asked, "as asked".into()),
    };
    Attached { interface: link.name.clone(), mode, reason }
}

fn attach_tc(
    pins: &Pins,
    place: &Place<'_>,
    program: &'static str,
    direction: TcAttachType,
) -> Result<(), StartError> {
    let interface = place.interface;
    let path = pins.link(interface, place.hook.name());
    let mut program = pins.tc(program)?;
    if stands(&path, holds_tc(&program, interface, direction)) {
        return Ok(());
    }
    let failed = |source: ProgramError| StartError::Attach {
        interface: interface.to_owned(),
        mode: "TC",
        source: Box::new(source),
    };
    let order = TcAttachOptions::TcxOrder(LinkOrder::default());
    if let Ok(id) = program.attach_with_options(interface, direction, order) {
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
    let id = program.attach_with_options(interface, direction, options).map_err(failed)?;
    let link = program.take_link(id).map_err(failed)?;
    std::mem::forget(link);
    Ok(())
}

fn attach_xdp(pins: &Pins, place: &Place<'_>) -> Result<(), StartError> {
    let interface = place.interface;
    let path = pins.link(interface, place.hook.name());
    if stands(&path, place.has_xdp) {
        return Ok(());
    }
    let failed = |source: ProgramError| StartError::Attach {
        interface: interface.to_owned(),
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
fn holds_tc(program: &SchedClassifier, interface: &str, direction: TcAttachType) -> bool {
    let Ok(own) = program.info().map(|info| info.id()) else { return true };
    SchedClassifier::query_tcx(interface, direction)
        .map_or(true, |(_, programs)| programs.iter().any(|program| program.id() == own))
}

fn pin_error(path: &std::path::Path, reason: &dyn ToString) -> StartError {
    StartError::Pin { path: path.to_owned(), reason: reason.to_string() }
}
