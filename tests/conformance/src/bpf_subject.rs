//! The eBPF plane as the replay drives it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use ipvs_core::snapshot::Control;
use ipvs_plane::bpf::{AttachMode, BpfPlane, Options, StartError};
use ipvs_plane::plane::Plane as _;
use ipvs_plane::store::Limits;
use nix::mount::{MsFlags, mount};
use nix::unistd::gettid;

use crate::namespace_subject::Driven;
use crate::subject::Trouble;

/// Where BPF file systems are mounted.
const BPF_FS: &str = "/sys/fs/bpf";
/// Sizes of the tables: more than any case needs, and quickly made.
const LIMITS: Limits =
    Limits { services: 64, dests: 256, members: 1024, blocks: 256, cached: 256, conns: 1 << 12 };

/// Gives this process a BPF file system of its own, so that whatever is
/// pinned goes when it ends, however it ends. To be called before threads start.
pub fn prepare() -> anyhow::Result<()> {
    ipvs_lab::enter_private_mounts()?;
    mount(Some("bpf"), BPF_FS, Some("bpf"), MsFlags::empty(), None::<&str>)
        .with_context(|| format!("cannot mount a BPF file system on {BPF_FS}"))
}

/// The eBPF plane in the network namespace of this thread.
#[derive(Debug)]
pub struct Bpf {
    plane: BpfPlane,
    pins: PathBuf,
    mode: AttachMode,
}

impl Bpf {
    /// Loads and attaches the programs.
    pub fn start(mode: AttachMode) -> Result<Box<dyn Driven>, Trouble> {
        let pins = Path::new(BPF_FS).join(format!("ipvs-conformance-{}", gettid()));
        let interfaces = ["c0", "s0"].map(|name| (name.to_owned(), mode)).to_vec();
        let options = Options { pins: pins.clone(), interfaces, limits: LIMITS };
        let plane = BpfPlane::start(&options).map_err(|error| match error {
            StartError::NotPermitted { .. } => Trouble::Unsupported(error.to_string()),
            other => Trouble::Broken(other.into()),
        })?;
        Ok(Box::new(Self { plane, pins, mode }))
    }
}

impl Driven for Bpf {
    fn control(&mut self) -> &mut dyn Control {
        &mut self.plane
    }

    fn pass_time(&mut self, by: Duration) {
        self.plane.shift_clock(by);
        self.plane.tick();
    }

    fn until_look(&mut self) -> Duration {
        self.plane.until_look()
    }

    fn host_changed(&mut self) {
        self.plane.host_changed();
    }

    fn settle(&mut self) {
        self.plane.settle();
    }

    fn has_marks(&self) -> bool {
        self.mode == AttachMode::Netfilter
    }
}

impl Drop for Bpf {
    fn drop(&mut self) {
        // The file system goes with the process; the next case only needs its place.
        drop(BpfPlane::detach_at(&self.pins));
    }
}
