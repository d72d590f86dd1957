//! `cargo xtask bpf`: builds the eBPF object that is committed beside the
//! plane, so that users of ipvs-rs need stable Rust and nothing else.

mod gate;
mod sources;
mod toolchain;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::run::{cargo, run, say, workspace};
use toolchain::Toolchain;

/// The flags of the compiler that decide the object's instructions.
///
/// `cpu=v3` has the atomics (kernel 5.12). The last flag lets LLVM read packed
/// headers by the word, which packet memory allows.
const RUSTFLAGS: [&str; 3] = [
    "-Clink-arg=--btf",
    "-Ctarget-cpu=v3",
    "-Clink-arg=--cpu-features=+allows-misaligned-mem-access",
];
const TARGET: &str = "bpfel-unknown-none";
const PACKAGE: &str = "ipvs-bpf-programs";
const BINARY: &str = "ipvs";
const OBJECT: &str = "crates/ipvs-plane/src/bpf/ipvs.bpf.o";
const HASH: &str = "crates/ipvs-plane/src/bpf/ipvs.bpf.o.sha256-of-sources";

/// What to do with the eBPF object.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Change nothing; fail if the committed object is not what its sources give
    #[arg(long)]
    check: bool,
    /// Print the length of each function, in instructions
    #[arg(long)]
    stats: bool,
}

/// Builds the object, or checks the committed one.
pub(crate) fn run_task(options: &Options) -> Result<()> {
    let root = workspace();
    let hash = sources::hash(&root)?;
    if options.check {
        check(&root, &hash, options.stats)
    } else {
        write(&root, &hash, options.stats)
    }
}

fn write(root: &Path, hash: &str, stats: bool) -> Result<()> {
    let toolchain = Toolchain::ready(root)?;
    let built = build(root, &toolchain)?;
    let object = root.join(OBJECT);
    fs::create_dir_all(object.parent().unwrap_or(root))?;
    fs::copy(&built, &object).with_context(|| format!("cannot write {OBJECT}"))?;
    fs::write(root.join(HASH), format!("{hash}\n"))
        .with_context(|| format!("cannot write {HASH}"))?;
    say(&format!("{OBJECT}: {} octets", fs::metadata(&object)?.len()));
    if stats { gate::stats(&toolchain, &object) } else { Ok(()) }
}

fn check(root: &Path, hash: &str, stats: bool) -> Result<()> {
    let committed = fs::read_to_string(root.join(HASH))
        .with_context(|| format!("cannot read {HASH}: run `cargo xtask bpf`"))?;
    if committed.trim() != hash {
        bail!("{OBJECT} is older than its sources: run `cargo xtask bpf` and commit the object");
    }
    say("the committed eBPF object is as new as its sources");
    let toolchain = match Toolchain::ready(root) {
        Ok(toolchain) => toolchain,
        Err(error) => {
            say(&format!(
                "skipped: rebuilding the eBPF object to compare it, for want of the toolchain: {error:#}"
            ));
            return Ok(());
        }
    };
    let built = build(root, &toolchain)?;
    let object = root.join(OBJECT);
    if fs::read(&built)? != fs::read(&object).with_context(|| format!("cannot read {OBJECT}"))? {
        bail!("{OBJECT} differs from {}, which its sources give", built.display());
    }
    say("a rebuild gives the committed eBPF object, octet by octet");
    if stats { gate::stats(&toolchain, &object) } else { Ok(()) }
}

/// Compiles, strips and examines the object; returns where it lies.
fn build(root: &Path, toolchain: &Toolchain) -> Result<PathBuf> {
    let target_dir = root.join("target/bpf");
    let mut command = cargo();
    toolchain.compile_with(&mut command);
    command
        .env("CARGO_TARGET_DIR", &target_dir)
        .env("CARGO_ENCODED_RUSTFLAGS", rustflags(root, toolchain)?.join("\x1f"))
        .args(["build", "--quiet", "--locked", "--profile", "bpf"])
        .args(["--package", PACKAGE, "--bin", BINARY, "--target", TARGET]);
    run(&mut command)?;
    let linked = target_dir.join(TARGET).join("bpf").join(BINARY);
    let object = target_dir.join("ipvs.bpf.o");
    // Takes the debug information out; .BTF and .BTF.ext stay.
    run(toolchain.llvm("llvm-strip").arg("-g").arg("-o").arg(&object).arg(&linked))?;
    gate::no_panic(toolchain, &object)?;
    gate::no_forward_declaration(toolchain, &object)?;
    Ok(object)
}

/// [`RUSTFLAGS`], and what keeps the places of this machine out of the object:
/// the line information in .BTF.ext names source files.
fn rustflags(root: &Path, toolchain: &Toolchain) -> Result<Vec<String>> {
    let cargo_home = match std::env::var_os("CARGO_HOME") {
        Some(home) => PathBuf::from(home),
        None => std::env::home_dir().context("no home folder")?.join(".cargo"),
    };
    let mut flags: Vec<String> = RUSTFLAGS.map(String::from).to_vec();
    for (from, to) in [
        (root.to_owned(), "src"),
        (cargo_home.join("registry/src"), "deps"),
        (toolchain.sysroot(), "sysroot"),
    ] {
        flags.push(format!("--remap-path-prefix={}={to}", from.display()));
    }
    Ok(flags)
}
