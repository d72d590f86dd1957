//! The user-space plane as the replay drives it.
//!
//! It has the virtual addresses itself: the host lacks them, and does not
//! forward. So what a host answered for such an address in a recording is not
//! answered here, and the plane's own word that it passed the packet stands
//! for it, as with the core alone.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::Result;
use ipvs_core::snapshot::Control;
use ipvs_core::verdict::Reason;
use ipvs_plane::plane::Plane as _;
use ipvs_plane::store::Limits;
use ipvs_plane::user::{Options, Selection, StartError, UserPlane};

use crate::host::Host;
use crate::namespace_subject::Driven;
use crate::subject::Trouble;

/// Sizes of the tables: more than any case needs.
const LIMITS: Limits =
    Limits { services: 64, dests: 256, members: 1024, blocks: 256, cached: 256, conns: 1 << 12 };

/// The host that the plane is on: that of the recordings without the virtual addresses.
pub fn host() -> Host {
    let mut host = Host::std_1();
    for interface in &mut host.interfaces {
        interface.addresses.retain(|address| address.prefix_len() != address.max_prefix_len());
    }
    host
}

/// The user-space plane in the network namespace of this thread.
#[derive(Debug)]
pub struct User {
    plane: UserPlane,
    passed: HashMap<&'static str, u64>,
}

impl User {
    /// Starts its thread.
    pub fn start() -> Result<Box<dyn Driven>, Trouble> {
        let ports = Selection::Named(["c0", "s0"].map(str::to_owned).to_vec());
        let plane = UserPlane::start(&Options { ports, limits: LIMITS, ..Options::default() })
            .map_err(|error| match error {
                StartError::NotPermitted { .. } => Trouble::Unsupported(error.to_string()),
                other => Trouble::Broken(other.into()),
            })?;
        Ok(Box::new(Self { plane, passed: HashMap::new() }))
    }
}

impl Driven for User {
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

    fn resolves(&self) -> bool {
        true
    }

    fn passed(&mut self) -> Option<String> {
        let counted: HashMap<_, _> = self
            .plane
            .reasons()
            .into_iter()
            // Reasons to pass come first. The probes of the wire are no IP packets.
            .filter(|(reason, _)| (*reason as u32) < Reason::ShortTransport as u32)
            .filter(|(reason, _)| *reason != Reason::NotIp)
            .map(|(reason, count)| (reason.label(), count))
            .collect();
        let news = counted.iter().find(|(label, count)| self.passed.get(*label) != Some(*count));
        let passed = news.map(|(label, _)| (*label).to_owned());
        self.passed = counted;
        passed
    }
}
