//! Running other programs, and saying things to the person at the terminal.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

/// Writes one line to standard error.
pub(crate) fn say(line: &str) {
    // Nobody is left to be told that standard error is closed.
    drop(writeln!(std::io::stderr().lock(), "{line}"));
}

/// The folder of the workspace.
pub(crate) fn workspace() -> PathBuf {
    // What cargo says now goes before what it said when we were built.
    let own = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    own.parent().map_or_else(|| own.clone(), Path::to_owned)
}

/// A command that runs the cargo that runs us, with nothing of our own build
/// in its environment.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(workspace());
    for name in ["RUSTC", "RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "RUSTC_WRAPPER"] {
        command.env_remove(name);
    }
    command
}

/// Runs `command` with our own standard output and error; anything but
/// success is an error.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot start {}", told(command)))?;
    if !status.success() {
        bail!("{status}: {}", told(command));
    }
    Ok(())
}

/// Runs `command` and returns what it wrote to standard output.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot start {}", told(command)))?;
    if !output.status.success() {
        bail!("{}: {}", output.status, told(command));
    }
    String::from_utf8(output.stdout)
        .with_context(|| format!("not text: output of {}", told(command)))
}

/// The command as one would type it, less its environment.
fn told(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// Whether a program of this name can be started.
pub(crate) fn exists(program: &str) -> bool {
    Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok()
}
