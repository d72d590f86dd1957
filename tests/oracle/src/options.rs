//! What the command line says.

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use ipvs_conformance::plane::Plane;

/// Plays random scenarios into a live kernel's IPVS and into our planes, and compares.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask oracle")]
pub(crate) struct Options {
    /// The seed of the first scenario; the next have the numbers after it [default: the time]
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// How long to go on [default: until the scenarios are played, or 3]
    #[arg(long)]
    pub(crate) minutes: Option<u64>,
    /// How many scenarios to play [default: as many as there is time for]
    #[arg(long)]
    pub(crate) scenarios: Option<u64>,
    /// The plane that is held against the kernel
    #[arg(long, value_enum, default_value_t = Plane::Core)]
    pub(crate) plane: Plane,
    /// What the kernel runs in
    #[arg(long, value_enum, default_value_t = Kind::Uml)]
    pub(crate) guest: Kind,
    /// Only scenarios about these topics
    #[arg(long, value_name = "TOPIC,…", value_delimiter = ',')]
    pub(crate) only: Vec<String>,
    /// Save scenarios with a difference to this folder, as cases
    #[arg(long, value_name = "DIR")]
    pub(crate) save: Option<PathBuf>,
    /// How many scenarios a guest plays at a time
    #[arg(long, default_value_t = 32)]
    pub(crate) batch: usize,
    /// How many guests play
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) guests: u16,
    /// How many times as many packets as usual a scenario has: with one seed, other ones
    #[arg(long, value_name = "TIMES", default_value_t = 1)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=20))]
    pub(crate) longer: u16,
}

/// What the kernel runs in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    /// user-mode-linux, in real time.
    Uml,
    /// qemu with Debian's kernel, in virtual time: hours pass within seconds.
    Qemu,
}

impl Kind {
    /// How long a batch may take.
    pub(crate) const fn patience(self) -> Duration {
        match self {
            Self::Uml => Duration::from_mins(5),
            Self::Qemu => Duration::from_mins(15),
        }
    }
}
