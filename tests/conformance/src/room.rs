//! A real shell for lines of the cases that need one, in which `ipvsadm`,
//! `sysctl` and `cat` are ours.
//!
//! They are this program by another name ([`applet`](crate::applet)), found
//! first on the shell's path, and ask the director of the replay over a socket.

use std::ffi::OsString;
use std::fs;
use std::io::{self, PipeReader};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context as _, Result, anyhow};
use ipvs_core::snapshot::Control;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, accept_with,
    bind, listen, recv, send, socket_with,
};
use tempfile::TempDir;

use crate::applet;
use crate::case::Output;
use crate::subject::Trouble;

/// The program that our programs are another name of.
const PROGRAM: &str = "ipvs-conformance";
/// Longest request of a client, in octets.
const LONGEST: usize = 1 << 16;
/// Clients that may wait to be accepted.
const BACKLOG: i32 = 16;

/// A folder with our programs, the socket that they ask, and files that the
/// lines of a case leave for each other.
#[derive(Debug)]
pub struct Room {
    folder: TempDir,
    listener: OwnedFd,
}

impl Room {
    /// A room with nothing in it of another case.
    pub fn open() -> Result<Self, Trouble> {
        let program = program().ok_or_else(|| {
            Trouble::Unsupported(format!("a shell needs the program {PROGRAM}, which is not built"))
        })?;
        Ok(Self::with(&program)?)
    }

    fn with(program: &Path) -> Result<Self> {
        let folder = tempfile::tempdir().context("cannot make a folder")?;
        let bin = folder.path().join("bin");
        fs::create_dir(&bin)?;
        for name in applet::NAMES {
            symlink(program, bin.join(name))?;
        }
        fs::create_dir(folder.path().join("tmp"))?;
        let listener =
            socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        bind(&listener, &SocketAddrUnix::new(folder.path().join("socket"))?)?;
        listen(&listener, BACKLOG)?;
        Ok(Self { folder, listener })
    }

    /// Runs a line by `shell`, a command without arguments that starts one, and
    /// answers our programs from `control` meanwhile.
    pub fn run(&self, line: &str, mut shell: Command, control: &mut dyn Control) -> Result<Output> {
        let folder = self.folder.path();
        let others = std::env::var_os("PATH").unwrap_or_default();
        let mut path = OsString::from(folder.join("bin"));
        path.push(":");
        path.push(&others);
        // What the recordings left in /tmp does not leave the room.
        let line = line.replace("/tmp/", &format!("{}/", folder.join("tmp").display()));
        shell
            .args(["-c", &line])
            .env("PATH", path)
            .env(applet::OTHERS, others)
            .env(applet::SOCKET, folder.join("socket"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let child = shell.spawn().context("cannot start a shell")?;
        let (ended, end) = io::pipe()?;
        let waiter = thread::spawn(move || {
            let output = child.wait_with_output();
            drop(end);
            output
        });
        self.answer_until(&ended, control)?;
        let output = waiter.join().map_err(|_panic| anyhow!("the shell was lost"))??;
        let text = |octets: Vec<u8>| String::from_utf8_lossy(&octets).into_owned();
        Ok(Output {
            rc: output.status.code().unwrap_or(-1),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        })
    }

    /// Answers whoever asks until the other end of `ended` is closed.
    fn answer_until(&self, ended: &PipeReader, control: &mut dyn Control) -> Result<()> {
        let mut peers: Vec<OwnedFd> = Vec::new();
        let mut buffer = vec![0; LONGEST];
        loop {
            let all = [ended.as_fd(), self.listener.as_fd()].into_iter();
            let all = all.chain(peers.iter().map(OwnedFd::as_fd));
            let mut polled: Vec<PollFd<'_>> =
                all.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
            poll(&mut polled, None)?;
            let mut ready = polled.iter().map(|it| !it.revents().is_empty());
            let (is_over, knocks) = (ready.next() == Some(true), ready.next() == Some(true));
            let asks: Vec<bool> = ready.collect();
            let mut kept = Vec::new();
            for (peer, asks) in peers.into_iter().zip(asks) {
                if !asks || answer(&peer, &mut buffer, control)? {
                    kept.push(peer);
                }
            }
            peers = kept;
            if knocks {
                peers.push(accept_with(&self.listener, SocketFlags::CLOEXEC)?);
            }
            if is_over {
                return Ok(());
            }
        }
    }
}

/// Answers one request; returns whether the peer is still there.
fn answer(peer: &OwnedFd, buffer: &mut [u8], control: &mut dyn Control) -> io::Result<bool> {
    let (len, _) = recv(peer, &mut *buffer, RecvFlags::empty())?;
    let Some(request) = buffer.get(..len).filter(|request| !request.is_empty()) else {
        return Ok(false);
    };
    let mut is_there = true;
    ipvs_netlink::serve(request, control, &mut |datagram| {
        // One that went away has had enough.
        is_there &= send(peer, datagram, SendFlags::NOSIGNAL).is_ok();
    });
    Ok(is_there)
}

/// This program, or the one beside the test that runs.
fn program() -> Option<PathBuf> {
    let this = std::env::current_exe().ok()?;
    if this.file_name()? == PROGRAM {
        return Some(this);
    }
    let beside = this.parent()?.parent()?.join(PROGRAM);
    beside.exists().then_some(beside)
}
