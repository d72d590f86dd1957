//! Network namespaces without a name in the file system: what holds them is a
//! file descriptor, so they are gone when the process is.

use std::{
    fs::{self, File},
    io,
    os::fd::{AsFd, OwnedFd},
    panic,
    process::Command,
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc},
    thread::{self, JoinHandle},
};

use netlink_packet_route::RouteNetlinkMessage;
use nix::sched::{CloneFlags, setns, unshare};
use socket2::{Domain, Socket, Type};

use crate::{
    child::ChildGuard,
    error::{Doing, Error, Result},
    link::Link,
    netlink::RouteSocket,
    sys,
};

/// A network namespace, alive as long as this value, a clone of it, one of its
/// sockets, or a thread or process inside it is.
#[derive(Clone, Debug)]
pub struct Namespace(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    name: String,
    fd: OwnedFd,
    netlink: Mutex<RouteSocket>,
    /// Asked for what goes by ioctl.
    control: Socket,
}

impl Namespace {
    /// Makes a new namespace with `lo` up and nothing else in it.
    ///
    /// `name` is only a label, for errors and for the names of threads.
    pub fn new(name: &str) -> Result<Self> {
        let made = on_a_thread(name, || -> Result<_> {
            unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| Error::Unavailable {
                action: format!("make network namespace {name}"),
                source: errno.into(),
                advice: "it needs CAP_SYS_ADMIN: run as root, or enter a user namespace first",
            })?;
            Self::of_this_thread(name)
        })??;
        made.link("lo")?.up()?;
        Ok(made)
    }

    /// Makes a namespace for a lab: as [`new`](Self::new), and addresses are usable at once
    /// (no duplicate address detection), none comes by router advertisement, and packets are
    /// taken whichever way they come (no reverse path filter).
    pub fn for_lab(name: &str) -> Result<Self> {
        let made = Self::new(name)?;
        for scope in ["all", "default"] {
            made.sysctl(&format!("net/ipv4/conf/{scope}/rp_filter"), "0")?;
            made.sysctl(&format!("net/ipv4/conf/{scope}/send_redirects"), "0")?;
            made.sysctl(&format!("net/ipv4/conf/{scope}/accept_redirects"), "0")?;
            made.sysctl(&format!("net/ipv6/conf/{scope}/accept_dad"), "0")?;
            made.sysctl(&format!("net/ipv6/conf/{scope}/accept_ra"), "0")?;
            made.sysctl(&format!("net/ipv6/conf/{scope}/accept_redirects"), "0")?;
        }
        Ok(made)
    }

    /// Returns the namespace of the calling thread.
    pub fn current(name: &str) -> Result<Self> {
        Self::of_this_thread(name)
    }

    fn of_this_thread(name: &str) -> Result<Self> {
        let fd = File::open("/proc/thread-self/ns/net")
            .doing(|| format!("hold network namespace {name}"))?;
        let netlink = RouteSocket::open().doing(|| format!("open rtnetlink in {name}"))?;
        let control = Socket::new(Domain::IPV4, Type::DGRAM, None)
            .doing(|| format!("open a socket in {name}"))?;
        Ok(Self(Arc::new(Inner {
            name: name.to_owned(),
            fd: fd.into(),
            netlink: Mutex::new(netlink),
            control,
        })))
    }

    /// The label given at birth.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Returns a number that no other living namespace has (the inode of `/proc/…/ns/net`).
    pub fn id(&self) -> Result<u64> {
        nix::sys::stat::fstat(&self.0.fd)
            .map(|stat| stat.st_ino)
            .doing(|| format!("look at namespace {}", self.name()))
    }

    /// Moves the calling thread into the namespace, for good.
    pub fn enter(&self) -> Result<()> {
        setns(self.0.fd.as_fd(), CloneFlags::CLONE_NEWNET)
            .doing(|| format!("enter namespace {}", self.name()))
    }

    /// Runs `work` on a thread of its own inside the namespace and returns what it returns.
    ///
    /// Sockets that `work` opens stay in the namespace wherever they are used later. A panic
    /// in `work` goes on in the caller.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        on_a_thread(self.name(), || self.enter().map(|()| work()))?
    }

    /// Starts `work` on a thread of its own inside the namespace.
    ///
    /// It returns after the thread has entered the namespace, so a failure to do so is seen here.
    pub fn spawn<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<JoinHandle<T>> {
        let namespace = self.clone();
        let (entered, outcome) = mpsc::sync_channel(1);
        let handle = thread::Builder::new()
            .name(self.name().to_owned())
            .spawn(move || {
                let entry = namespace.enter();
                drop(namespace);
                let outside = entry.is_err();
                // The receiver waits below; it cannot have gone.
                let _ = entered.send(entry);
                if outside {
                    // Ends the thread without a value and without a message: the caller has the error.
                    panic::resume_unwind(Box::new("outside of the namespace"));
                }
                work()
            })
            .doing(|| format!("start a thread in {}", self.name()))?;
        match outcome.recv() {
            Ok(entry) => entry.map(|()| handle),
            Err(mpsc::RecvError) => Err(Error::Misuse("the thread ended before it began")),
        }
    }

    /// Returns a command whose process starts inside the namespace and is killed
    /// (`PR_SET_PDEATHSIG`) when the thread that started it ends.
    ///
    /// Start it with [`spawn_child`](Self::spawn_child) unless the calling thread lives as long
    /// as the child is wanted.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Result<Command> {
        let fd = self
            .0
            .fd
            .try_clone()
            .doing(|| format!("start a program in namespace {}", self.name()))?;
        let mut command = Command::new(program);
        sys::start_in_namespace(&mut command, fd);
        Ok(command)
    }

    /// Starts a command made by [`command`](Self::command); the child is killed when the guard
    /// is dropped and when this process ends, whichever way it ends.
    pub fn spawn_child(&self, command: Command) -> Result<ChildGuard> {
        ChildGuard::spawn(command).doing(|| format!("start a program in namespace {}", self.name()))
    }

    /// Writes a sysctl of the namespace; `key` is the path below `/proc/sys`,
    /// as in `net/ipv4/ip_forward`.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        self.run(|| fs::write(format!("/proc/sys/{key}"), value))?
            .doing(|| format!("set sysctl {key}={value} in {}", self.name()))
    }

    /// Reads a sysctl of the namespace.
    pub fn read_sysctl(&self, key: &str) -> Result<String> {
        self.run(|| fs::read_to_string(format!("/proc/sys/{key}")))?
            .map(|text| text.trim_end().to_owned())
            .doing(|| format!("read sysctl {key} in {}", self.name()))
    }

    /// Lets the namespace forward packets, IPv4 and IPv6.
    pub fn forward_packets(&self) -> Result<()> {
        self.sysctl("net/ipv4/ip_forward", "1")?;
        self.sysctl("net/ipv6/conf/all/forwarding", "1")
    }

    /// Returns the interface of this name.
    pub fn link(&self, name: &str) -> Result<Link> {
        Link::find(self, name)
    }

    /// Sends one rtnetlink request in the namespace.
    pub(crate) fn request(
        &self,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.netlink().request(message, flags)
    }

    pub(crate) fn fd(&self) -> &OwnedFd {
        &self.0.fd
    }

    /// A socket of the namespace, for ioctls: they ask only in which namespace it was opened.
    pub(crate) fn control(&self) -> &Socket {
        &self.0.control
    }

    fn netlink(&self) -> MutexGuard<'_, RouteSocket> {
        // Answers are told apart by their sequence number, so one left unread does no harm.
        self.0.netlink.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs `work` on a new thread and hands a panic on to the caller.
fn on_a_thread<T: Send>(name: &str, work: impl FnOnce() -> T + Send) -> Result<T> {
    thread::scope(|scope| {
        let handle = thread::Builder::new()
            .name(name.to_owned())
            .spawn_scoped(scope, work)
            .doing(|| format!("start a thread in {name}"))?;
        match handle.join() {
            Ok(value) => Ok(value),
            Err(payload) => panic::resume_unwind(payload),
        }
    })
}
