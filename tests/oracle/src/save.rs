//! Scenarios as cases of the corpus, for `cargo xtask conformance`.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use ipvs_conformance::case::Recorded;

/// Writes the scenario and what the kernel did to a folder of its name under `folder`.
pub(crate) fn save(folder: &Path, recorded: &Recorded) -> Result<()> {
    let own = folder.join(&recorded.case.name);
    fs::create_dir_all(&own).with_context(|| format!("cannot make {}", own.display()))?;
    let write = |name: &str, text: Vec<u8>| {
        let path = own.join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    };
    write("case.json", serde_json::to_vec_pretty(&recorded.case)?)?;
    write("expected.json", serde_json::to_vec_pretty(&recorded.expected)?)
}
