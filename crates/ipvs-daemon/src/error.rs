//! Why a daemon does not start, or cannot go on.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use ipvs_plane::{bpf, user};

/// Why a daemon does not start, or cannot go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DaemonError {
    /// Another daemon answers on the socket.
    #[error(
        "a daemon listens on {0} already; end it first, or choose another socket with --socket"
    )]
    SocketInUse(PathBuf),
    /// What is in the socket's place is no socket.
    #[error("{0} is there and is no socket; choose another path with --socket")]
    NotASocket(PathBuf),
    /// A group that is to have rights is unknown.
    #[error("there is no group `{0}` on this host")]
    NoGroup(String),
    /// The socket could not be made.
    #[error("cannot listen on {path}: {source}{}", advice(source))]
    Socket {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Metrics cannot be served.
    #[error(
        "cannot serve metrics at {address}: {source}; choose an address of this host and a \
         free port with --metrics"
    )]
    Metrics {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// Another daemon drives what is pinned there.
    #[error("another daemon drives what is pinned in {0}; end it first")]
    PinsInUse(PathBuf),
    /// The directory of the pins could not be locked.
    #[error("cannot lock {path}: {source}")]
    Lock {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The eBPF plane could not be started.
    #[error("eBPF plane: {0}")]
    Bpf(#[from] bpf::StartError),
    /// The user-space plane could not be started.
    #[error("user-space plane: {0}")]
    User(#[from] user::StartError),
    /// Neither plane could be started.
    #[error("eBPF plane: {bpf}; user-space plane: {user}")]
    NoPlane {
        /// Why not in eBPF.
        bpf: bpf::StartError,
        /// Why not in user space.
        user: user::StartError,
    },
    /// The configuration file is wrong, or cannot be had, and nothing ran before.
    #[error("{0} (nothing was started)")]
    Config(String),
    /// Signals could not be received.
    #[error("cannot receive signals: {0}")]
    Signals(io::Error),
    /// News of the host's network cannot be had.
    #[error("cannot listen to rtnetlink: {0}")]
    Host(io::Error),
    /// Waiting for the next event failed.
    #[error("cannot wait for events: {0}")]
    Wait(io::Error),
    /// The user-space plane has stopped by itself.
    #[error("the user-space plane has ended: nothing is forwarded any more")]
    PlaneEnded,
}

/// What to do about a socket that could not be made.
fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "; run as root, or choose a path you may write to with --socket"
        }
        _ => "",
    }
}
