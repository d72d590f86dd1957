//! Who may touch what is pinned: one daemon at a time.

use std::fs::File;
use std::io;
use std::path::Path;

use ipvs_plane::bpf::object::Pins;
use ipvs_plane::bpf::{BpfPlane, StartError};
use rustix::fs::{FlockOperation, flock};

use crate::DaemonError;

/// Keeps other daemons from the pins of one directory while it lives; the
/// kernel takes it back from a daemon that was killed.
#[derive(Debug)]
pub(crate) struct PinsLock {
    _directory: File,
}

impl PinsLock {
    /// Takes the directory, which is made if needed.
    pub(crate) fn take(directory: &Path) -> Result<Self, DaemonError> {
        Pins::at(directory)?;
        let lock = |source| DaemonError::Lock { path: directory.to_owned(), source };
        let file = File::open(directory).map_err(|source| match source.kind() {
            io::ErrorKind::PermissionDenied => {
                StartError::NotPermitted { what: "opening the directory of the pins" }.into()
            }
            _ => lock(source),
        })?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { _directory: file }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(DaemonError::PinsInUse(directory.to_owned())),
            Err(error) => Err(lock(error.into())),
        }
    }
}

/// Takes the eBPF plane that is pinned in `directory` off its interfaces and
/// removes it, connections and all.
pub fn detach(directory: &Path) -> Result<(), DaemonError> {
    if !directory.exists() {
        let source = io::Error::from(io::ErrorKind::NotFound);
        return Err(StartError::Path { path: directory.to_owned(), source }.into());
    }
    // Dropped before the file system is unmounted, which an open file prevents.
    drop(PinsLock::take(directory)?);
    Ok(BpfPlane::detach_at(directory)?)
}
