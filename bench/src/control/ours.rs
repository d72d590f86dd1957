//! Our daemon, in a network of its own: every destination is behind one router, so that
//! the neighbour table of the machine, which all namespaces share, is left alone.

use std::net::Ipv4Addr;
use std::path::Path;

use anyhow::{Context as _, Result};
use ipvs_lab::{End, IpNet, MacAddr, Namespace, Route, veth};

use super::load::{Load, Round};
use crate::daemon::Daemon;
use crate::director::BPF_FS;

/// One round on a plane that has just started.
pub(crate) fn measure(plane: &str, load: Load) -> Result<Round> {
    let folder = tempfile::Builder::new().prefix("ipvs-bench-").tempdir()?;
    let director = Namespace::for_lab("bench-director")?;
    let outside = Namespace::for_lab("bench-outside")?;
    let (inner, _outer) = veth(End::new(&director, "d0"), End::new(&outside, "r0"), None)?;
    let router = Ipv4Addr::new(192, 0, 2, 254).into();
    inner.add_address(IpNet::new(Ipv4Addr::new(192, 0, 2, 1).into(), 24)?)?;
    inner.add_neighbour(router, MacAddr::local(1, 254))?;
    director.add_route(Route::default_via(router))?;
    if plane == "bpf" {
        director.forward_packets()?;
    }
    let pins = Path::new(BPF_FS).join("control");
    let daemon = Daemon::start(&director, plane, &["-i", "d0"], &pins, folder.path())?;
    let measured = load.measure(folder.path(), &|| daemon.adm());
    let measured = measured.with_context(|| daemon.log());
    daemon.stop()?;
    measured
}
