//! The fingerprint of everything that an eBPF object is made from.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use sha2::{Digest as _, Sha256};

use super::{Object, RUSTFLAGS, TARGET, toolchain};
use crate::run::{cargo, output};

/// Parts of the workspace's manifest that bear on an object.
const SECTIONS: [&str; 2] = ["[profile.bpf]", "[workspace.package]"];

/// The SHA-256, in hex, of all that decides the object's octets.
pub(super) fn hash(root: &Path, object: &Object) -> Result<String> {
    let mut sha = Sha256::new();
    let mut add = |what: &str, octets: &[u8]| {
        // Lengths keep two neighbours from reading as one.
        sha.update(format!("{what} {}\n", octets.len()));
        sha.update(octets);
    };
    for folder in object.folders {
        let mut files = Vec::new();
        collect(&root.join(folder), &mut files)?;
        files.sort();
        for file in files {
            let name = file.strip_prefix(root).unwrap_or(&file).to_string_lossy().into_owned();
            let octets = fs::read(&file).with_context(|| format!("cannot read {name}"))?;
            add(&name, &octets);
        }
    }
    let manifest = fs::read_to_string(root.join("Cargo.toml"))?;
    for section in SECTIONS {
        add(section, section_of(&manifest, section).as_bytes());
    }
    add("dependencies", dependencies(root, object.package)?.as_bytes());
    add("flags", RUSTFLAGS.join(" ").as_bytes());
    add("toolchain", toolchain::versions().as_bytes());
    Ok(format!("{:x}", sha.finalize()))
}

/// The files under `folder`, less unit tests kept in files of their own:
/// those never reach the object, and change often.
fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let entries =
        fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.file_stem().is_some_and(|stem| stem == "tests") {
            continue;
        }
        if path.is_dir() {
            collect(&path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}

/// The lines of a TOML file from the header of `section` to the next header.
fn section_of(manifest: &str, section: &str) -> String {
    let lines = manifest.lines().skip_while(|line| line.trim() != section);
    let body = lines.skip(1).take_while(|line| !line.starts_with('['));
    body.flat_map(|line| [line, "\n"]).collect()
}

/// The crates of the object with their versions and features.
fn dependencies(root: &Path, package: &str) -> Result<String> {
    let tree = output(cargo().args([
        "tree",
        "--locked",
        "--quiet",
        "--prefix=none",
        "--edges=no-dev",
        "--no-dedupe",
        "--format={p} {f}",
        "--target",
        TARGET,
        "--package",
        package,
    ]))?;
    // Our own crates are printed with the folder they lie in.
    let here = root.to_string_lossy();
    let mut crates: Vec<String> = tree.lines().map(|line| line.replace(&*here, "")).collect();
    crates.sort();
    crates.dedup();
    Ok(crates.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_ends_where_the_next_begins() {
        let manifest = "[a]\nx = 1\n[profile.bpf]\nlto = true\ndebug = 2\n\n[b]\ny = 2\n";
        assert_eq!(section_of(manifest, "[profile.bpf]"), "lto = true\ndebug = 2\n\n");
        assert_eq!(section_of(manifest, "[b]"), "y = 2\n");
        assert_eq!(section_of(manifest, "[c]"), "");
    }
}
