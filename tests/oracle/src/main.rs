//! `cargo xtask oracle`: random scenarios, played into a live kernel's IPVS and
//! into our planes, and compared.

mod agent;
mod compare;
mod generate;
mod guest;
mod job;
mod known;
mod options;
mod packet;
mod rng;
mod save;
mod session;
mod shrink;

use std::env;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    if let Some(folder) = env::var_os(job::FOLDER) {
        agent::run(Path::new(&folder));
        return ExitCode::FAILURE;
    }
    match session::run(&options::Options::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            // Nobody is left to be told that standard error is closed.
            drop(writeln!(io::stderr().lock(), "error: {error:#}"));
            ExitCode::from(2)
        }
    }
}
