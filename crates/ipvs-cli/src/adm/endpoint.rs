//! Where the director is: a daemon's socket, or the kernel.

use std::env;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use ipvs_netlink::ClientError;
use ipvs_netlink::client::{KernelTransport, SeqpacketTransport, Transport};

use super::{Session, Unreachable};

/// Where a daemon listens unless told otherwise.
const DEFAULT_SOCKET: &str = "/run/ipvs/ipvs.sock";
/// The value of `--socket` and `IPVS_SOCKET` that means the kernel.
const KERNEL: &str = "kernel";

/// Where a director is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// A daemon behind this socket.
    Daemon(PathBuf),
    /// The kernel's own IPVS.
    Kernel,
}

impl Endpoint {
    /// The endpoint that `IPVS_SOCKET` names, or the default.
    pub fn from_env() -> Self {
        env::var_os("IPVS_SOCKET")
            .filter(|value| !value.is_empty())
            .map_or_else(|| Self::Daemon(DEFAULT_SOCKET.into()), |value| Self::named(&value))
    }

    fn named(value: &OsStr) -> Self {
        if value == KERNEL { Self::Kernel } else { Self::Daemon(value.into()) }
    }

    /// Reaches the director there.
    pub fn connect(&self) -> Result<Session<Box<dyn Transport>>, Unreachable> {
        let transport = match self {
            Self::Daemon(path) => daemon(path),
            Self::Kernel => {
                KernelTransport::open().map(|kernel| Box::new(kernel) as Box<dyn Transport>)
            }
        };
        let opened = transport.map_err(ClientError::from).and_then(Session::open);
        opened.map_err(|cause| Unreachable { advice: self.advice(&cause), cause })
    }

    /// What to look at when there is no good answer from there.
    fn advice(&self, cause: &ClientError) -> String {
        match (self, cause) {
            (Self::Daemon(path), ClientError::Io(_)) => {
                format!("Is `ipvs daemon' running, and may you open its socket {}?", path.display())
            }
            // The words of the kernel's tool, for what a kernel answers too.
            _ => "Are you sure that IP Virtual Server is built in the kernel or as module?"
                .to_owned(),
        }
    }
}

fn daemon(path: &Path) -> io::Result<Box<dyn Transport>> {
    Ok(Box::new(SeqpacketTransport::connect(path)?))
}

/// Takes a leading `--socket PATH` (or `--socket=PATH`) off the arguments,
/// which begin with the program's name; without it, the environment decides.
pub fn split_endpoint(mut args: Vec<OsString>) -> (Endpoint, Vec<OsString>) {
    let first = args.get(1).map(|arg| arg.as_bytes().to_vec()).unwrap_or_default();
    if let Some(value) = first.strip_prefix(b"--socket=") {
        args.remove(1);
        return (Endpoint::named(&OsString::from_vec(value.to_vec())), args);
    }
    if first == b"--socket" && args.len() > 2 {
        let value = args.remove(2);
        args.remove(1);
        return (Endpoint::named(&value), args);
    }
    (Endpoint::from_env(), args)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(line: &str, endpoint: &Endpoint, rest: &str) {
        let args = line.split(' ').map(OsString::from).collect();
        let (found, args) = split_endpoint(args);
        let args: Vec<_> = args.iter().filter_map(|arg| arg.to_str()).collect();
        assert_eq!((&found, args.join(" ").as_str()), (endpoint, rest));
    }

    #[test]
    fn a_leading_socket_option_is_taken_off() {
        let socket = Endpoint::Daemon("/tmp/s".into());
        check("ipvsadm --socket /tmp/s -Ln", &socket, "ipvsadm -Ln");
        check("ipvsadm --socket=/tmp/s -Ln", &socket, "ipvsadm -Ln");
        check("ipvsadm --socket kernel", &Endpoint::Kernel, "ipvsadm");
    }
}
