//! The machine: qemu's command line.

use std::path::Path;
use std::process::Command;

/// qemu's program.
pub(crate) const PROGRAM: &str = "qemu-system-x86_64";

/// By what the guest's clock goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// This machine's, and its virtualisation if there may be one.
    Real {
        /// Whether the processor's virtualisation is used.
        kvm: bool,
    },
    /// The instructions that the guest has carried out, a nanosecond each; where the guest has
    /// nothing to do, it is at once the time of its next timer. The guest has one CPU then.
    Virtual,
}

/// A kernel, its initial file system, and the machine they run on.
#[derive(Debug)]
pub struct Machine<'a> {
    /// The bootable image.
    pub kernel: &'a Path,
    /// The initial file system.
    pub archive: &'a Path,
    /// By what its clock goes.
    pub clock: Clock,
    /// Memory in MiB.
    pub memory: u32,
    /// Words on the kernel's command line. What the kernel does not know becomes a variable of
    /// the first process's environment.
    pub words: &'a str,
    /// A folder of this machine that the guest may mount as a 9p file system of that tag.
    pub shared: Option<(&'a Path, &'a str)>,
}

impl Machine<'_> {
    /// The command that boots it; its standard streams are the guest's console.
    pub fn command(&self) -> Command {
        let mut command = Command::new(PROGRAM);
        command.args(self.arguments());
        command
    }

    /// The program, for those who start it in their own way.
    pub const fn program(&self) -> &'static str {
        PROGRAM
    }

    /// The words behind the program.
    pub fn arguments(&self) -> Vec<String> {
        let mut words: Vec<String> = Vec::new();
        let mut add = |part: &[&str]| words.extend(part.iter().map(|it| (*it).to_owned()));
        match self.clock {
            Clock::Real { kvm } => {
                add(&["-accel", if kvm { "kvm" } else { "tcg" }, "-smp", "2"]);
            }
            Clock::Virtual => {
                add(&["-accel", "tcg", "-smp", "1"]);
                add(&["-icount", "shift=0,sleep=off", "-rtc", "clock=vm"]);
            }
        }
        add(&["-cpu", "max", "-m", &self.memory.to_string()]);
        add(&["-kernel", &self.kernel.to_string_lossy()]);
        add(&["-initrd", &self.archive.to_string_lossy()]);
        // Its clock is right: what watches over it would only keep it busy.
        let watch = if self.clock == Clock::Virtual { " tsc=reliable nowatchdog" } else { "" };
        let line = format!("console=ttyS0 quiet panic=-1 mitigations=off audit=0{watch}");
        add(&["-append", format!("{line} {}", self.words).trim_end()]);
        add(&["-nographic", "-no-reboot", "-nic", "none"]);
        if let Some((folder, tag)) = self.shared {
            // A comma would end the path for qemu; doubled it does not.
            let folder = folder.to_string_lossy().replace(',', ",,");
            let device =
                format!("local,path={folder},mount_tag={tag},security_model=none,id={tag}");
            add(&["-virtfs", &device]);
        }
        words
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_with_time_of_its_own_has_one_cpu_and_counts_instructions() {
        let mut machine = Machine {
            kernel: Path::new("/k"),
            archive: Path::new("/a"),
            clock: Clock::Virtual,
            memory: 512,
            words: "",
            shared: Some((Path::new("/a,b"), "jobs")),
        };
        let line = machine.arguments().join(" ");
        assert!(line.contains("-smp 1 -icount shift=0,sleep=off -rtc clock=vm"), "{line}");
        assert!(line.contains("path=/a,,b,mount_tag=jobs"), "{line}");
        machine.clock = Clock::Real { kvm: true };
        let line = machine.arguments().join(" ");
        assert!(line.contains("-accel kvm -smp 2") && !line.contains("icount"), "{line}");
    }
}
