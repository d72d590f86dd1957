//! `cargo xtask fuzz`: coverage-guided fuzzing on stable Rust.
//!
//! What `cargo fuzz` asks of a nightly compiler is the address sanitizer, which code
//! without `unsafe` can do without; the coverage that guides libFuzzer comes from a
//! pass of LLVM that stable has, too.

use std::path::PathBuf;

use anyhow::{Result, bail};

use crate::run::{cargo, exists, output, run, say, workspace};

/// How the code under test is compiled: with a counter for each edge, and with a call
/// for each comparison that tells libFuzzer both sides.
const COVERAGE: [&str; 6] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Ccodegen-units=1",
];

/// Octets of an input, at most.
const LONGEST: u32 = 4096;

/// What to fuzz, and for how long.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The target; `control` is what comes in by the daemon's socket
    #[arg(default_value = "control", value_parser = ["control"])]
    target: String,
    /// For how long
    #[arg(long, value_name = "N", default_value_t = 60)]
    seconds: u32,
    /// Run this input alone, as after a finding
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
}

/// Builds the target, writes its seeds, and runs it.
pub(crate) fn run_task(options: &Options) -> Result<()> {
    if !exists("c++") {
        say("SKIPPED: fuzzing: libFuzzer is compiled with a C++ compiler (package g++)");
        return Ok(());
    }
    let target = &options.target;
    let folder = workspace().join("target/fuzz");
    let (corpus, seeds) = (folder.join("corpus").join(target), folder.join("seeds").join(target));
    let findings = folder.join("findings").join(target);
    for folder in [&corpus, &findings] {
        std::fs::create_dir_all(folder)?;
    }
    let mut write_seeds = cargo();
    write_seeds.args(["run", "--quiet", "--release", "--package", "ipvs-fuzz", "--bin", "seeds"]);
    run(write_seeds.arg("--").arg(&seeds))?;

    let host = output(std::process::Command::new("rustc").arg("-vV"))?;
    let Some(host) = host.lines().find_map(|line| line.strip_prefix("host: ")) else {
        bail!("rustc does not say what it compiles for");
    };
    let mut fuzz = cargo();
    // With the triple, flags are for the target alone, not for what runs while it is built.
    fuzz.args(["run", "--quiet", "--release", "--target", host, "--target-dir"])
        .arg(&folder)
        .args(["--package", "ipvs-fuzz", "--features", "libfuzzer", "--bin", target, "--"])
        .env("RUSTFLAGS", COVERAGE.join(" "))
        .env("CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS", "true")
        .env("CARGO_PROFILE_RELEASE_OVERFLOW_CHECKS", "true");
    fuzz.arg(format!("-artifact_prefix={}/", findings.display()));
    if let Some(input) = &options.input {
        return run(fuzz.arg(std::path::absolute(input)?));
    }
    fuzz.arg(format!("-max_total_time={}", options.seconds));
    fuzz.args([format!("-max_len={LONGEST}"), "-timeout=10".to_owned()]);
    fuzz.args(["-print_final_stats=1", "-verbosity=0"]).arg(&corpus).arg(&seeds);
    run(&mut fuzz)
}
