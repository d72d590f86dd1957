//! What the host asks of the agent in the guest, and what it is told.

use std::collections::BTreeMap;

use ipvs_conformance::case::{Case, Output, StepResult};
use serde::{Deserialize, Serialize};

/// What the agent's lines on the console begin with; the kernel's do not.
pub(crate) const MARK: &str = "#oracle ";
/// What the agent is told for it to switch the guest off.
pub(crate) const QUIT: &str = "quit";
/// The variable of the agent's environment that names the folder of jobs. A
/// kernel hands words of its command line on to its first process so.
pub(crate) const FOLDER: &str = "IPVS_ORACLE_JOBS";

/// The variable that names the file system that folder is, where it is not the guest's own.
pub(crate) const TAG: &str = "IPVS_ORACLE_TAG";
/// What that file system needs of a modular kernel.
pub(crate) const SHARED: [&str; 4] = ["virtio_pci", "9pnet", "9pnet_virtio", "9p"];

/// Scenarios to be played, each in a network of its own.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Job {
    /// The scenarios.
    pub(crate) cases: Vec<Case>,
    /// How they are played.
    pub(crate) pace: Pace,
    /// Whether statistics are wanted, which are not summed up at once.
    pub(crate) sums: bool,
}

/// How scenarios are played.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(crate) enum Pace {
    /// As fast as it goes; many frames are on their way before the first
    /// answer is looked at.
    Fast,
    /// What a frame causes is waited for before the next goes in.
    Careful,
    /// Each step at its time.
    Timed,
}

/// What the kernel did with one scenario.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Transcript {
    /// Results of the setup commands.
    pub(crate) setup: Vec<Output>,
    /// When each step began, in seconds from the start.
    pub(crate) times: Vec<f64>,
    /// What followed each step.
    pub(crate) steps: Vec<StepResult>,
    /// When the connections were listed, in seconds from the start.
    pub(crate) end: f64,
    /// The tables at the end, by name.
    pub(crate) dumps: BTreeMap<String, String>,
}
