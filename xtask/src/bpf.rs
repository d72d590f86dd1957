//! `cargo xtask bpf`: builds the eBPF objects that are committed beside what
//! loads them, so that users of ipvs-rs need stable Rust and nothing else.

mod gate;
mod growth;
mod sources;
mod stack;
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

/// An object, what it is made from and where it is committed.
#[derive(Debug)]
struct Object {
    package: &'static str,
    binary: &'static str,
    path: &'static str,
    hash: &'static str,
    /// Where it is recorded how long its programs are.
    instructions: &'static str,
    /// Folders whose files are compiled into it.
    folders: &'static [&'static str],
}

const OBJECTS: [Object; 2] = [
    Object {
        package: "ipvs-bpf-programs",
        binary: "ipvs",
        path: "crates/ipvs-plane/src/bpf/ipvs.bpf.o",
        hash: "crates/ipvs-plane/src/bpf/ipvs.bpf.o.sha256-of-sources",
        instructions: "crates/ipvs-plane/src/bpf/ipvs.bpf.o.instructions",
        folders: &["bpf", "crates/ipvs-core/src", "crates/ipvs-wire/src"],
    },
    Object {
        package: "ipvs-bench-programs",
        binary: "bench",
        path: "bench/src/programs/bench.bpf.o",
        hash: "bench/src/programs/bench.bpf.o.sha256-of-sources",
        instructions: "bench/src/programs/bench.bpf.o.instructions",
        folders: &["bench/bpf", "crates/ipvs-wire/src"],
    },
];

/// What to do with the eBPF objects.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Only the object of this name: `ipvs` or `bench`
    #[arg(long, value_parser = OBJECTS.map(|object| object.binary))]
    only: Option<String>,
    /// Change nothing; fail if a committed object is not what its sources give
    #[arg(long)]
    check: bool,
    /// Print the length of each function, the depth of the stack, and what the verifier followed
    /// and how long it took
    #[arg(long)]
    stats: bool,
}

/// Builds the objects, or checks the committed ones.
pub(crate) fn run_task(options: &Options) -> Result<()> {
    let root = workspace();
    let wanted = |object: &&Object| options.only.as_ref().is_none_or(|it| it == object.binary);
    for object in OBJECTS.iter().filter(wanted) {
        let hash = sources::hash(&root, object)?;
        if options.check {
            object.check(&root, &hash, options.stats)?;
        } else {
            object.write(&root, &hash, options.stats)?;
        }
    }
    Ok(())
}

impl Object {
    fn write(&self, root: &Path, hash: &str, stats: bool) -> Result<()> {
        let toolchain = Toolchain::ready(root)?;
        let built = self.build(root, &toolchain)?;
        let place = root.join(self.path);
        fs::create_dir_all(place.parent().unwrap_or(root))?;
        fs::copy(&built, &place).with_context(|| format!("cannot write {}", self.path))?;
        fs::write(root.join(self.hash), format!("{hash}\n"))
            .with_context(|| format!("cannot write {}", self.hash))?;
        say(&format!("{}: {} octets", self.path, fs::metadata(&place)?.len()));
        growth::record(root, self.instructions, &fs::read(&place)?)?;
        if stats { tell(&toolchain, &place) } else { Ok(()) }
    }

    fn check(&self, root: &Path, hash: &str, stats: bool) -> Result<()> {
        let name = self.path;
        let committed = fs::read_to_string(root.join(self.hash))
            .with_context(|| format!("cannot read {}: run `cargo xtask bpf`", self.hash))?;
        if committed.trim() != hash {
            bail!("{name} is older than its sources: run `cargo xtask bpf` and commit the object");
        }
        say(&format!("{name} is as new as its sources"));
        growth::check(root, self.instructions, &fs::read(root.join(name))?)?;
        let toolchain = match Toolchain::ready(root) {
            Ok(toolchain) => toolchain,
            Err(error) => {
                say(&format!(
                    "skipped: rebuilding {name} to compare it, for want of the toolchain: {error:#}"
                ));
                return Ok(());
            }
        };
        let built = self.build(root, &toolchain)?;
        let place = root.join(name);
        if fs::read(&built)? != fs::read(&place).with_context(|| format!("cannot read {name}"))? {
            bail!("{name} differs from {}, which its sources give", built.display());
        }
        say(&format!("a rebuild gives {name}, octet by octet"));
        if stats { tell(&toolchain, &place) } else { Ok(()) }
    }

    /// Compiles, strips and examines the object; returns where it lies.
    fn build(&self, root: &Path, toolchain: &Toolchain) -> Result<PathBuf> {
        let target_dir = root.join("target/bpf");
        let mut command = cargo();
        toolchain.compile_with(&mut command);
        command
            .env("CARGO_TARGET_DIR", &target_dir)
            .env("CARGO_ENCODED_RUSTFLAGS", rustflags(root, toolchain)?.join("\x1f"))
            .args(["build", "--quiet", "--locked", "--profile", "bpf"])
            .args(["--package", self.package, "--bin", self.binary, "--target", TARGET]);
        run(&mut command)?;
        let linked = target_dir.join(TARGET).join("bpf").join(self.binary);
        let object = target_dir.join(format!("{}.bpf.o", self.binary));
        // Takes the debug information out; .BTF and .BTF.ext stay.
        run(toolchain.llvm("llvm-strip").arg("-g").arg("-o").arg(&object).arg(&linked))?;
        gate::no_panic(toolchain, &object)?;
        gate::no_forward_declaration(toolchain, &object)?;
        stack::fits(&fs::read(&object)?)?;
        Ok(object)
    }
}

/// Says how long the object's functions are, how deep its calls go, and what
/// this kernel's verifier thinks of it.
fn tell(toolchain: &Toolchain, object: &Path) -> Result<()> {
    gate::stats(toolchain, object)?;
    for chain in stack::chains(&fs::read(object)?)? {
        let program = chain.functions.first().map_or("?", |(name, _)| name);
        say(&format!("{:>12}  octets of stack: {program}", chain.octets));
    }
    let mut verifier = cargo();
    verifier.args(["run", "--quiet", "--package", "ipvs-plane", "--example", "verifier"]);
    if let Err(error) = run(&mut verifier) {
        say(&format!("skipped: what the verifier thinks of it: {error:#}"));
    }
    Ok(())
}

/// [`RUSTFLAGS`], and what keeps the places of this machine out of the object:
/// the line information in .BTF.ext names source files.
fn rustflags(root: &Path, toolchain: &Toolchain) -> Result<Vec<String>> {
    let cargo_home = match std::env::var_os("CARGO_HOME") {
        Some(home) => PathBuf::from(home),
        None => std::env::home_dir().context("no home folder")?.join(".cargo"),
    };
    let mut flags: Vec<String> = RUSTFLAGS.map(String::from).to_vec();
    let mut places = vec![(root.to_owned(), "src"), (toolchain.sysroot(), "sysroot")];
    // A folder for each registry, whose name is nobody's business either. Fetched
    // before, or there would be none yet on a new machine.
    run(cargo().args(["fetch", "--quiet", "--locked"]).current_dir(root))?;
    let registries = cargo_home.join("registry/src");
    for registry in
        fs::read_dir(&registries).with_context(|| format!("reading {}", registries.display()))?
    {
        places.push((registry?.path(), "deps"));
    }
    for (from, to) in places {
        flags.push(format!("--remap-path-prefix={}={to}", from.display()));
    }
    Ok(flags)
}
