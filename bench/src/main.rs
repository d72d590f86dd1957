//! `cargo xtask bench`: what a packet costs on the way through the director,
//! next to the kernel's own ways of sending it on, and what configuring very much takes.

mod control;
mod director;
mod forward;
mod machine;
mod mode;
mod packet;
mod programs;
mod report;
mod rig;
mod subject;

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::{Context as _, Result, ensure};
use clap::{Parser, Subcommand};
use nix::mount::{MsFlags, mount};

/// Measures what a packet costs, and what the control side takes.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Packets per second of each way to send them on, and what it adds
    Forward(forward::Options),
    /// Seconds to load and list very many services, and to edit one
    Control(control::Options),
}

fn main() -> ExitCode {
    if let Some(code) = control::other_program() {
        return code;
    }
    match run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody is left to be told that standard error is closed.
            drop(writeln!(io::stderr().lock(), "error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<()> {
    ensure!(ipvs_lab::can_make_namespaces(), "the bench makes network namespaces: run it as root");
    // What is pinned there goes with this process, however it ends.
    ipvs_lab::enter_private_mounts()?;
    mount(Some("bpf"), director::BPF_FS, Some("bpf"), MsFlags::empty(), None::<&str>)
        .with_context(|| format!("cannot mount a BPF file system on {}", director::BPF_FS))?;
    let mut text = Vec::new();
    let outcome = match &cli.task {
        Task::Forward(options) => forward::run_task(options, &mut text),
        Task::Control(options) => control::run_task(options, &mut text),
    };
    match io::stdout().lock().write_all(&text) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error.into()),
        _ => {}
    }
    outcome
}
