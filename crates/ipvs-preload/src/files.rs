//! Files under `/proc` that a kernel shows IPVS in, as copies in memory.

use std::os::fd::OwnedFd;

use ipvs_netlink::{Errno, views};
use rustix::fs::{MemfdFlags, SeekFrom, memfd_create, seek};
use rustix::io::write;

use crate::{ask, socket};

/// Opens the file at `path` to be read; `None` if it is none of ours.
pub(crate) fn open(path: &[u8]) -> Option<Result<OwnedFd, Errno>> {
    // Cheap, and enough for nearly all files.
    let name = path.strip_prefix(b"/proc/")?;
    socket()?;
    let name = std::str::from_utf8(name).ok()?;
    let view = name.strip_prefix("net/").filter(|name| views::FILES.contains(name));
    let text = if let Some(view) = view {
        ask(|client| views::text(client, view))
    } else {
        let setting = name.strip_prefix("sys/net/ipv4/vs/")?;
        ask(|client| client.setting(setting)).map(|value| value + "\n")
    };
    Some(text.and_then(|text| copy(name, text.as_bytes())))
}

fn copy(name: &str, mut text: &[u8]) -> Result<OwnedFd, Errno> {
    let file = memfd_create(name, MemfdFlags::CLOEXEC)?;
    while !text.is_empty() {
        let written = write(&file, text)?;
        text = text.get(written..).unwrap_or(&[]);
    }
    seek(&file, SeekFrom::Start(0))?;
    Ok(file)
}
