//! Why the eBPF plane could not be started, and what to do about it.

use std::io;
use std::path::PathBuf;

use aya::maps::MapError;
use aya::programs::ProgramError;

use super::door::DoorError;

/// Why the eBPF plane could not be started, changed or removed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The rights for eBPF are missing.
    #[error(
        "{what}: not permitted; the eBPF plane needs root, or CAP_BPF, CAP_NET_ADMIN and \
         CAP_PERFMON in the initial user namespace (or run `--plane user`)"
    )]
    NotPermitted {
        /// What was tried.
        what: &'static str,
    },
    /// The BPF file system could not be mounted.
    #[error(
        "cannot mount a BPF file system on {path}: {source}; mount one there (`mount -t bpf bpf {path}`), or name another directory with --pins"
    )]
    Mount {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file or directory.
    #[error("{path}: {source}")]
    Path {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The object could not be read or its maps not made.
    #[error("cannot load the eBPF object: {0}")]
    Load(Box<aya::EbpfError>),
    /// A program was refused.
    #[error("the kernel refused the program {name}: {source}; kernels from 6.1 on are supported")]
    Program {
        /// Its name.
        name: &'static str,
        /// Why.
        source: Box<ProgramError>,
    },
    /// A map could not be read or written.
    #[error("map: {0}")]
    Map(Box<MapError>),
    /// Something could not be pinned or opened from its pin.
    #[error("{path}: cannot pin or open: {reason}")]
    Pin {
        /// Where.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// What is pinned has another layout than this version.
    #[error(
        "{path}: pinned by another version of ipvs ({reason}); go on with that version, or \
         remove what it pinned with `ipvs detach` (connections are lost)"
    )]
    OtherVersion {
        /// Where.
        path: PathBuf,
        /// What differs.
        reason: String,
    },
    /// There is no such interface.
    #[error("no interface named {0}")]
    NoInterface(String),
    /// Mode `netfilter` needs the host door.
    #[error("mode netfilter cannot be had: {0}")]
    NoDoor(DoorError),
    /// A program could not be attached.
    #[error("cannot attach to {interface} by {mode}: {source}")]
    Attach {
        /// Interface.
        interface: String,
        /// How.
        mode: &'static str,
        /// Why.
        source: Box<ProgramError>,
    },
    /// A thread could not be started.
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
    /// The host's network could not be read.
    #[error("cannot read the host's network: {0}")]
    Netlink(io::Error),
}

impl StartError {
    pub(super) fn map(error: MapError) -> Self {
        Self::Map(Box::new(error))
    }

    pub(super) fn program(name: &'static str, error: ProgramError) -> Self {
        if let ProgramError::LoadError { io_error, .. } = &error
            && io_error.raw_os_error() == Some(libc::EPERM)
        {
            return Self::NotPermitted { what: "loading an eBPF program" };
        }
        Self::Program { name, source: Box::new(error) }
    }
}
