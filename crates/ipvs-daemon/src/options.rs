//! What a daemon is started with.

use std::net::SocketAddr;
use std::path::PathBuf;

use ipvs_plane::bpf::AttachMode;
use ipvs_plane::store::Limits;

use crate::Readers;

/// Where the daemon listens unless told otherwise.
pub const DEFAULT_SOCKET: &str = "/run/ipvs/ipvs.sock";
/// Where the eBPF plane is pinned unless told otherwise.
pub const DEFAULT_PINS: &str = "/run/ipvs/bpf";

/// Which data plane is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PlaneChoice {
    /// The eBPF plane where it can be had, else the one in user space.
    #[default]
    Auto,
    /// The eBPF plane.
    Bpf,
    /// The user-space plane.
    User,
}

/// What a daemon is started with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Which plane.
    pub plane: PlaneChoice,
    /// Where to listen.
    pub socket: PathBuf,
    /// Where the eBPF plane is pinned.
    pub pins: PathBuf,
    /// Interfaces, and how the eBPF plane attaches to each; none means all
    /// that carry frames.
    pub interfaces: Vec<(String, AttachMode)>,
    /// Sizes of the tables; a plane that is found running keeps its own.
    pub limits: Limits,
    /// Virtual ports of FTP control connections that are helped, 0 for none; if
    /// not given those of a plane that is found running, else port 21.
    pub ftp_ports: Option<[u16; 8]>,
    /// What shall run from the start, and is read again at SIGHUP.
    pub config: Option<PathBuf>,
    /// The group whose members may change the configuration, besides root and the
    /// daemon's own user.
    pub group: Option<String>,
    /// Who else may read it.
    pub readers: Readers,
    /// Where metrics are served by HTTP, to everybody who gets there.
    pub metrics: Option<SocketAddr>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            plane: PlaneChoice::default(),
            socket: DEFAULT_SOCKET.into(),
            pins: DEFAULT_PINS.into(),
            interfaces: Vec::new(),
            limits: Limits::default(),
            ftp_ports: None,
            config: None,
            group: None,
            readers: Readers::None,
            metrics: None,
        }
    }
}
