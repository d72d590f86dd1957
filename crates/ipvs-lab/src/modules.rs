//! Modules of the running kernel, for a guest that has just started and has no program for it.

use std::{
    collections::HashMap,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    kmod::{ModuleInitFlags, finit_module},
};

/// Where modules of a kernel are: those of user-mode-linux, and the usual place.
const MODULES: [&str; 2] = ["/usr/lib/uml/modules", "/lib/modules"];

/// Loads modules by their names, in order, each behind those that it needs. What the kernel has
/// built in is there already.
pub fn load_modules(names: &[&str]) -> io::Result<()> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let folder = MODULES.iter().map(|place| Path::new(place).join(release.trim()));
    let folder = folder.into_iter().find(|it| it.is_dir());
    let index = Index::read(&folder.ok_or_else(|| failed("modules of this kernel", &"missing"))?)?;
    names.iter().try_for_each(|name| index.load(name))
}

fn failed(what: &str, why: &dyn ToString) -> io::Error {
    io::Error::other(format!("{what}: {}", why.to_string()))
}

/// `modules.dep`: each module's file, with the files it needs.
struct Index {
    folder: PathBuf,
    modules: HashMap<String, Vec<String>>,
}

impl Index {
    fn read(folder: &Path) -> io::Result<Self> {
        let text = fs::read_to_string(folder.join("modules.dep"))?;
        let mut modules = HashMap::new();
        for line in text.lines() {
            let Some((file, needed)) = line.split_once(':') else { continue };
            // What is needed is listed with the first to be loaded last.
            let files = needed.split_whitespace().rev().chain([file]).map(str::to_owned);
            modules.insert(stem(file), files.collect());
        }
        Ok(Self { folder: folder.to_owned(), modules })
    }

    fn load(&self, name: &str) -> io::Result<()> {
        // What is not listed is built in.
        for file in self.modules.get(name).into_iter().flatten() {
            let path = self.folder.join(file);
            let what = || format!("module {}", path.display());
            let opened = File::open(&path).map_err(|error| failed(&what(), &error))?;
            match finit_module(&opened, c"", ModuleInitFlags::empty()) {
                Ok(()) | Err(Errno::EEXIST) => {}
                Err(errno) => return Err(failed(&what(), &errno)),
            }
        }
        Ok(())
    }
}

/// The name of a module by its file: `kernel/net/ipv6/ipv6.ko` is `ipv6`.
fn stem(file: &str) -> String {
    let name = file.rsplit('/').next().unwrap_or(file);
    name.split('.').next().unwrap_or(name).replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::stem;

    #[test]
    fn a_module_is_named_by_its_file() {
        assert_eq!(stem("kernel/net/ipv4/netfilter/ip_vs-x.ko.xz"), "ip_vs_x");
    }
}
