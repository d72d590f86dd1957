//! Which plane the demo runs on, and why; and its start.

use anyhow::{Context as _, bail};
use rustix::mount::{MountFlags, mount};

use super::director::{Director, Kind};
use super::layout::Site;
use super::screen::Screen;
use crate::daemon::Plane;

/// Builds the lab and starts the director on the plane that is wanted, or on
/// the best that can be had.
pub(super) fn start(wanted: Plane, screen: &mut Screen) -> anyhow::Result<(Site, Director)> {
    let is_root = ipvs_lab::can_make_namespaces();
    if is_root {
        ipvs_lab::enter_private_mounts()?;
    } else if wanted == Plane::Bpf {
        bail!("the eBPF plane needs root's rights: run it as root, or with --plane user");
    } else {
        ipvs_lab::enter_user_namespace()?;
    }
    // Socket and pins have their usual places, and are seen by nobody else.
    mount("ipvs-demo", "/run", "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, None)
        .context("cannot mount a private /run")?;
    let asked = "as asked".to_owned();
    match wanted {
        Plane::Bpf => start_on(Kind::Bpf, asked, screen),
        Plane::User => start_on(Kind::User, asked, screen),
        Plane::Auto if !is_root => {
            let why = "this user may not load eBPF programs; a user namespace gives all the \
                       rights that the other plane needs";
            start_on(Kind::User, why.to_owned(), screen)
        }
        Plane::Auto => start_on(Kind::Bpf, "we are root".to_owned(), screen).or_else(|error| {
            screen.line(&format!("The eBPF plane does not start: {error:#}"));
            start_on(Kind::User, "the eBPF plane does not start".to_owned(), screen)
        }),
    }
}

fn start_on(kind: Kind, why: String, screen: &mut Screen) -> anyhow::Result<(Site, Director)> {
    let site = Site::build(kind == Kind::Bpf)?;
    let director = Director::start(site.lab.director(), kind, why)?;
    describe(&director, screen)?;
    Ok((site, director))
}

const PICTURE: &str = "\
client ─────┐ 192.0.2.0/24        10.1.0.0/24 ┌───── rs1, weight 3
            ├────────── director ─────────────┼───── rs2, weight 2
            └────────── router ───────────────┴───── rs3, weight 1
All of them are network namespaces of this process; they vanish with it.";

fn describe(director: &Director, screen: &mut Screen) -> anyhow::Result<()> {
    let plane = match director.kind {
        Kind::Bpf => "the eBPF plane, in the kernel",
        Kind::User => "the user-space plane, in the daemon",
    };
    screen.heading(&format!("ipvs-rs on {plane}: {}", director.why));
    screen.indented(PICTURE);
    screen.line("$ ipvs status");
    for line in director.client()?.status()?.lines {
        screen.line(&format!("  {line}"));
    }
    Ok(())
}
