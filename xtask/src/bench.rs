//! `cargo xtask bench`: runs the bench, which is a program of its own.

use std::ffi::OsString;

use anyhow::Result;

use crate::run::{cargo, run, workspace};

/// Builds the bench as users build ipvs-rs, and runs it from where the user
/// stands: files are named from there.
pub(crate) fn run_task(args: &[OsString]) -> Result<()> {
    let mut command = cargo();
    command
        .args(["run", "--quiet", "--release", "--manifest-path"])
        .arg(workspace().join("bench/Cargo.toml"))
        .arg("--")
        .args(args)
        .current_dir(std::env::current_dir()?);
    run(&mut command)
}
