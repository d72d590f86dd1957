//! When the kernel handles packets, for a guest whose only processor is short of time.

use std::{fs, io};

use nix::unistd::Pid;

use crate::sys;

/// Lets the kernel's threads for packets (`ksoftirqd`) run before any program.
///
/// A packet that is sent over a veth pair is handled before the system call returns, unless the
/// kernel has been at it for two ticks, which says nothing where the guest itself had to wait
/// for a processor: then a thread is left with the rest, and programs run beside it.
pub fn handle_packets_first() -> io::Result<()> {
    for process in fs::read_dir("/proc")? {
        let process = process?;
        let number = process.file_name().to_str().and_then(|name| name.parse().ok());
        let Some(number) = number else { continue };
        // A process may end meanwhile.
        let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
        if name.starts_with("ksoftirqd/") {
            sys::run_first(Pid::from_raw(number))?;
        }
    }
    Ok(())
}
