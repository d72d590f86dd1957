//! `libipvs_preload.so`: with it in `LD_PRELOAD`, what a program asks the kernel's
//! IPVS it asks the director's daemon. The program need not know.
//!
//! * A generic-netlink socket becomes the daemon's when the program asks the controller
//!   for the family `IPVS` on it ([`takeover`]). Until then, and for every other socket,
//!   nothing is different.
//! * The old socket options of IPVS are answered from the daemon, whatever the socket.
//! * The files that a kernel shows IPVS in, under `/proc`, can be read ([`files`]).
//!
//! The names of the C library that are taken over stand in [`hooks`], and nothing else
//! in this crate is unsafe. What this crate itself asks of the kernel it asks by system
//! calls (rustix), not by the C library, so it never meets its own hooks.

mod files;
pub mod hooks;
mod takeover;

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::sync::OnceLock;

use ipvs_netlink::client::SeqpacketTransport;
use ipvs_netlink::{Client, ClientError, Errno};

/// Where the daemon listens unless `IPVS_SOCKET` says otherwise.
const DEFAULT_SOCKET: &str = "/run/ipvs/ipvs.sock";

/// Where the daemon listens; `None` if the kernel's own IPVS is meant.
fn socket() -> Option<&'static PathBuf> {
    static SOCKET: OnceLock<Option<PathBuf>> = OnceLock::new();
    let find = || {
        let named = std::env::var_os("IPVS_SOCKET").filter(|name| !name.is_empty());
        let name = named.unwrap_or_else(|| OsString::from(DEFAULT_SOCKET));
        if name == "kernel" { None } else { Some(PathBuf::from(name)) }
    };
    SOCKET.get_or_init(find).as_ref()
}

/// Asks the daemon, for what is no netlink message of the program itself.
fn ask<T>(
    question: impl FnOnce(&mut Client<SeqpacketTransport>) -> Result<T, ClientError>,
) -> Result<T, Errno> {
    let path = socket().ok_or(Errno::NOPROTOOPT)?;
    let transport = SeqpacketTransport::connect(path).map_err(|error| errno(&error))?;
    let answer = Client::new(transport).and_then(|mut client| question(&mut client));
    answer.map_err(|error| match error {
        ClientError::Refused(errno) => errno,
        ClientError::Io(error) => errno(&error),
        _ => Errno::PROTO,
    })
}

fn errno(error: &io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}
