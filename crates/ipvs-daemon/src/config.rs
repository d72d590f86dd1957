//! The configuration file that a daemon is started with.

use std::fs;
use std::path::{Path, PathBuf};

use ipvs_core::snapshot::Control as _;

use crate::director::Director;

/// Where it is.
#[derive(Clone, Debug)]
pub(crate) struct ConfigFile(PathBuf);

impl ConfigFile {
    /// The file at `path`, from wherever the process goes to later.
    pub(crate) fn at(path: &Path) -> Self {
        Self(std::path::absolute(path).unwrap_or_else(|_| path.to_owned()))
    }

    /// Makes what runs what the file says, all of it or nothing.
    pub(crate) fn load(&self, director: &mut Director) -> Result<usize, String> {
        let name = self.0.display().to_string();
        if director.is_on_trial() {
            return Err(format!("{name}: what was applied before is on trial still"));
        }
        let text = fs::read_to_string(&self.0).map_err(|error| format!("{name}: {error}"))?;
        let wanted = ipvs_config::read(&name, &text).map_err(|error| error.to_string())?;
        director.make(&wanted).map_err(|error| format!("{name}: {error}"))
    }
}
