//! `cargo xtask kernel VERSION`: the eBPF plane on another kernel than this
//! machine's, in a qemu guest that holds nothing but it.
//!
//! The guest is a kernel of Debian's and an initial file system with the
//! replayer of recorded cases: it says what its verifier thinks of the
//! programs, replays, and powers off. Without hardware virtualisation that takes
//! a quarter of an hour, so it is run by hand or by night.

mod guest;

use anyhow::{Context as _, Result, bail};
use ipvs_guest::{Clock, Image, Kernel, Machine, NEEDED};

use crate::packages;
use crate::run::{cargo, output, run, say, workspace};
use guest::{ENDED, run_to_end};

/// What is needed besides what a guest needs.
const ALSO: [(&str, &str); 1] = [("ip", "iproute2")];
/// What the director's host and the recorded cases need of a modular kernel.
const MODULES: [&str; 3] = ["veth", "sch_ingress", "cls_bpf"];

/// Which kernel, and what to do there.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Debian's kernel of this version
    #[arg(value_parser = ["6.1"])]
    version: String,
    /// Only cases with one of these tags or names
    #[arg(long, value_name = "TAG,…")]
    only: Option<String>,
    /// Load the programs and replay nothing
    #[arg(long)]
    load_only: bool,
    /// Use the processor's virtualisation: much faster, where a guest may use it
    #[arg(long)]
    kvm: bool,
    /// Minutes after which the guest is given up
    #[arg(long, default_value_t = 60)]
    minutes: u64,
}

/// Makes the guest and runs it.
pub(crate) fn run_task(options: &Options) -> Result<()> {
    let missing = packages::install_of(&[&NEEDED[..], &ALSO[..]].concat());
    if !missing.is_empty() {
        bail!("needs {}: install them and try again", missing.join(", "));
    }
    run(cargo().args(["build", "--quiet", "--package", "ipvs-conformance"]))?;
    run(cargo().args(["build", "--quiet", "--package", "ipvs-plane", "--example", "verifier"]))?;
    let home = workspace().join("target/kernel").join(&options.version);
    let kernel = Kernel::in_folder(&home)?;
    let mut image = Image::new(home.join("root"))?;
    image.modules(&kernel, &MODULES)?;
    for program in ["ip", "busybox"] {
        let found = output(
            std::process::Command::new("sh").args(["-c", &format!("command -v {program}")]),
        )?;
        image.program(found.trim().as_ref(), program)?;
    }
    let built = workspace().join("target/debug");
    image.program(&built.join("examples/verifier"), "verifier")?;
    image.program(&built.join("ipvs-conformance"), "conformance")?;
    // The replayer looks for the cases where it was built.
    for part in ["cases", "passing.txt"] {
        image.copy(&workspace().join("tests/conformance").join(part))?;
    }
    image.script(&script(options))?;
    let archive = image.pack(&home.join("initrd"))?;
    say(&format!("booting {}", kernel.release));
    let machine = Machine {
        kernel: &kernel.image,
        archive: &archive,
        clock: Clock::Real { kvm: options.kvm },
        memory: 2048,
        words: "",
        shared: None,
    };
    let ended = run_to_end(&machine, options.minutes, say).context("the guest")?;
    if ended != Some(0) {
        bail!("the eBPF plane does not do on {} what it must: see above", kernel.release);
    }
    Ok(())
}

/// What the guest does once it is up; it powers off with the status in `$failed`.
fn script(options: &Options) -> String {
    let mut parts = vec!["verifier".to_owned()];
    if !options.load_only {
        let only =
            options.only.as_ref().map_or_else(String::new, |tags| format!(" --only '{tags}'"));
        let replay = |plane| format!("conformance --must-pass --plane {plane}{only}");
        parts.extend(["bpf", "xdp"].map(replay));
    }
    format!(
        "mount -t bpf bpf /sys/fs/bpf\nip link set lo up\nfailed=0\n\
         {} || failed=1\necho {ENDED}$failed\npoweroff -f\n",
        parts.join(" || failed=1\n")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_of_any_part_is_told_at_the_end() {
        let options = Options {
            version: "6.1".into(),
            only: Some("nat".into()),
            load_only: false,
            kvm: false,
            minutes: 1,
        };
        let script = script(&options);
        let parts: Vec<&str> = script.lines().skip_while(|it| *it != "failed=0").skip(1).collect();
        assert_eq!(parts.len(), 5);
        assert!(parts.iter().take(3).all(|line| line.ends_with(" || failed=1")));
        assert!(parts[1].contains("--only 'nat'"));
    }
}
