//! `cargo xtask`: one entry for everything a developer of ipvs-rs runs.

mod bpf;
mod run;

use std::process::ExitCode;

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
    /// Builds the committed eBPF object from its sources.
    Bpf(bpf::Options),
}

fn main() -> ExitCode {
    let result = match Cli::parse().task {
        Task::Bpf(options) => bpf::run_task(&options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            run::say(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
