//! The socket at which clients knock.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, connect, listen,
    socket_with,
};

use crate::DaemonError;
use crate::rights::Rights;

/// Clients that may wait to be accepted.
const BACKLOG: i32 = 64;

/// A listening socket, whose file is removed with it.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: OwnedFd,
    path: PathBuf,
    published: bool,
}

impl Listener {
    /// Makes sure that nobody listens at `path`, and makes a socket that does
    /// so once it is [published](Self::publish).
    pub(crate) fn claim(path: &Path, rights: &Rights) -> Result<Self, DaemonError> {
        let failed = |source| DaemonError::Socket { path: path.to_owned(), source };
        match fs::symlink_metadata(path) {
            Ok(found) if !found.file_type().is_socket() => {
                return Err(DaemonError::NotASocket(path.to_owned()));
            }
            Ok(_) if answers(path).map_err(failed)? => {
                return Err(DaemonError::SocketInUse(path.to_owned()));
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
        let socket = make(path, rights).map_err(failed)?;
        Ok(Self { socket, path: path.to_owned(), published: false })
    }

    /// Lets clients find the socket.
    pub(crate) fn publish(&mut self) -> Result<(), DaemonError> {
        let failed = |source| DaemonError::Socket { path: self.path.clone(), source };
        fs::rename(unpublished(&self.path), &self.path).map_err(failed)?;
        self.published = true;
        Ok(())
    }

    /// The next client that waits; `None` if there is none.
    pub(crate) fn accept(&self) -> io::Result<Option<OwnedFd>> {
        match accept_with(&self.socket, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
            Ok(socket) => Ok(Some(socket)),
            Err(Errno::AGAIN | Errno::INTR | Errno::CONNABORTED) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let path = if self.published { self.path.clone() } else { unpublished(&self.path) };
        // Whoever removed it before us wanted the same.
        let _removed = fs::remove_file(path);
    }
}

/// Where the socket lies while its daemon is not ready.
fn unpublished(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    name.into()
}

/// Makes a listening socket under its first name, for those with rights only.
fn make(path: &Path, rights: &Rights) -> io::Result<OwnedFd> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    let hidden = unpublished(path);
    match fs::remove_file(&hidden) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    bind(&socket, &SocketAddrUnix::new(&hidden)?)?;
    // Before anybody can connect; and the group before the mode that is for it.
    fs::set_permissions(&hidden, fs::Permissions::from_mode(0o600))?;
    let (group, mode) = rights.of_file();
    std::os::unix::fs::chown(&hidden, None, group.map(nix::unistd::Gid::as_raw))?;
    fs::set_permissions(&hidden, fs::Permissions::from_mode(mode))?;
    listen(&socket, BACKLOG)?;
    Ok(socket)
}

/// Whether a process listens there.
fn answers(path: &Path) -> io::Result<bool> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    match connect(&socket, &SocketAddrUnix::new(path)?) {
        Err(Errno::CONNREFUSED | Errno::NOENT) => Ok(false),
        // Somebody is there: with a full backlog, or with another type of socket.
        Ok(()) | Err(Errno::AGAIN | Errno::PROTOTYPE) => Ok(true),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Readers;

    fn claim(path: &Path) -> Result<Listener, DaemonError> {
        Listener::claim(path, &Rights::find(None, &Readers::None).unwrap())
    }

    #[test]
    fn a_socket_that_nobody_answers_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("made/ipvs.sock");
        let mut dead = claim(&path).unwrap();
        dead.publish().unwrap();
        // As after SIGKILL: the file stays, the listener is gone.
        dead.published = false;
        drop(dead);
        assert!(path.exists() && !answers(&path).unwrap());
        let mut next = claim(&path).unwrap();
        next.publish().unwrap();
        assert!(answers(&path).unwrap());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        drop(next);
        assert!(!path.exists());
    }

    #[test]
    fn a_daemon_that_answers_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ipvs.sock");
        let mut first = claim(&path).unwrap();
        first.publish().unwrap();
        assert!(matches!(claim(&path), Err(DaemonError::SocketInUse(_))));
        assert!(answers(&path).unwrap(), "the first still answers");
    }

    #[test]
    fn a_file_that_is_no_socket_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notes.txt");
        fs::write(&path, "precious").unwrap();
        assert!(matches!(claim(&path), Err(DaemonError::NotASocket(_))));
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }

    #[test]
    fn a_socket_is_not_found_before_it_is_published() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ipvs.sock");
        let listener = claim(&path).unwrap();
        assert!(!path.exists());
        drop(listener);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left");
    }
}
