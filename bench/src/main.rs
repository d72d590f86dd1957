//! `cargo xtask bench`: what a packet costs on the way through the director,
//! next to the kernel's own ways of sending it on, what connections take, and what
//! configuring very much takes.

mod all;
mod connect;
mod control;
mod daemon;
mod director;
mod forward;
mod machine;
mod memory;
mod mode;
mod packet;
mod program;
mod programs;
mod proxy;
mod report;
mod rig;
mod scale;
mod sheet;
mod subject;

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::{Context as _, Result, ensure};
use clap::{Parser, Subcommand};
use nix::mount::{MsFlags, mount};

/// Measures what a packet costs, what connections take, and what the control side takes.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench")]
#[command(args_conflicts_with_subcommands = true, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    task: Option<Task>,
    /// Every suite, in less than half an hour, and what was asked held against what was measured
    #[arg(long)]
    all: bool,
    /// With --all: only these suites
    #[arg(long, value_name = "SUITE,…", value_delimiter = ',', requires = "all")]
    only: Vec<String>,
    /// With --all: put figures, tables and pictures into bench/results
    #[arg(long, requires = "all")]
    json: bool,
    /// One short round of every suite: does it all work?
    #[arg(long, conflicts_with = "all")]
    smoke: bool,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Packets per second of each way to send them on, and what it adds
    Forward(forward::Options),
    /// Seconds to load and list very many services, and to edit one
    Control(control::Options),
    /// Nanoseconds of the plane's program alone
    Program(program::Options),
    /// New connections, into an empty and a full table, and among known ones
    Connect(connect::Options),
    /// Two CPUs against one
    Scale(scale::Options),
    /// What real programs see through us and through others
    ProxyView(proxy::Options),
    /// Octets that a connection takes, and what very many cost while nothing moves
    Memory(memory::Options),
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
    let Some(task) = &cli.task else {
        if cli.smoke {
            return all::smoke();
        }
        let outcome = all::run(cli.json, &cli.only, &mut text);
        print(&text)?;
        return outcome;
    };
    let outcome = run_task(task, &mut text);
    print(&text)?;
    outcome
}

fn run_task(task: &Task, out: &mut Vec<u8>) -> Result<()> {
    match task {
        Task::Forward(options) => forward::run_task(options, out),
        Task::Control(options) => control::run_task(options, out),
        Task::Program(options) => program::run_task(options, out),
        Task::Connect(options) => connect::run_task(options, out),
        Task::Scale(options) => scale::run_task(options, out),
        Task::ProxyView(options) => proxy::run_task(options, out),
        Task::Memory(options) => memory::run_task(options, out),
    }
}

fn print(text: &[u8]) -> Result<()> {
    match io::stdout().lock().write_all(text) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// Says how far the bench is, on standard error: the table alone goes to
/// standard output.
fn say(line: &str) {
    // Nobody is left to be told that standard error is closed.
    drop(writeln!(io::stderr().lock(), "{line}"));
}
