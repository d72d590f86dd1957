//! `cargo xtask`: one entry for everything a developer of ipvs-rs runs.

mod bench;
mod bpf;
mod deb;
mod fuzz;
mod kernel;
mod packages;
mod run;
mod test;
#[cfg(test)]
mod tidy;

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Everything a developer of ipvs-rs runs.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Measure what a packet costs, and what configuring very much takes
    #[command(disable_help_flag = true)]
    Bench {
        /// What the bench is told; `--help` lists it
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Build the committed eBPF objects from their sources, or check them
    Bpf(bpf::Options),
    /// Replay recorded behaviour of the kernel's IPVS on a plane
    #[command(disable_help_flag = true)]
    Conformance {
        /// What the runner is told; `--help` lists it
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Make a Debian package, and try it
    Deb(deb::Options),
    /// Send the daemon's socket whatever coverage-guided mutation comes up with
    Fuzz(fuzz::Options),
    /// Load the eBPF programs and replay recorded cases on another kernel, in a qemu guest
    Kernel(kernel::Options),
    /// Play random scenarios into a live kernel's IPVS and into our planes, and compare
    #[command(disable_help_flag = true)]
    Oracle {
        /// What the oracle is told; `--help` lists it
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Replay what the real ipvsadm printed before our daemon, with our tool or with the real one
    #[command(disable_help_flag = true)]
    Transcripts {
        /// What the runner is told; `--help` lists it
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Run every test there is, and say which are skipped and why
    Test(test::Options),
}

fn main() -> ExitCode {
    let result = match Cli::parse().task {
        Task::Bench { args } => bench::run_task(&args),
        Task::Bpf(options) => bpf::run_task(&options),
        Task::Conformance { args } => conformance(&args),
        Task::Deb(options) => deb::run_task(&options),
        Task::Fuzz(options) => fuzz::run_task(&options),
        Task::Kernel(options) => kernel::run_task(&options),
        Task::Oracle { args } => oracle(&args),
        Task::Transcripts { args } => transcripts(&args),
        Task::Test(options) => test::run_task(&options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            run::say(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// The runner is a program of its own, so that this one is built quickly.
fn conformance(args: &[OsString]) -> Result<()> {
    let mut command = run::cargo();
    command
        .args(["run", "--quiet", "--manifest-path"])
        .arg(run::workspace().join("tests/conformance/Cargo.toml"))
        .arg("--")
        .args(args)
        // A folder of cases is named from where the user stands.
        .current_dir(std::env::current_dir()?);
    run::run(&mut command)
}

/// As [`conformance`].
fn transcripts(args: &[OsString]) -> Result<()> {
    let mut command = run::cargo();
    command
        .args(["run", "--quiet", "--manifest-path"])
        .arg(run::workspace().join("tests/transcripts/Cargo.toml"))
        .arg("--")
        .args(args)
        .current_dir(std::env::current_dir()?);
    run::run(&mut command)
}

/// As [`conformance`], but optimised: it plays several times as many scenarios then.
fn oracle(args: &[OsString]) -> Result<()> {
    let mut command = run::cargo();
    command
        .args(["run", "--quiet", "--release", "--manifest-path"])
        .arg(run::workspace().join("tests/oracle/Cargo.toml"))
        .arg("--")
        .args(args)
        .current_dir(std::env::current_dir()?);
    run::run(&mut command)
}
