//! Root's rights for a process that has none: a user namespace of its own.

use std::{fs, io};

use nix::{
    errno::Errno,
    sched::{CloneFlags, unshare},
    unistd::{getegid, geteuid},
};

use crate::{
    Namespace,
    error::{Doing, Error, Result},
};

const WHAT: &str = "enter a user namespace";

/// Moves this process into a new user, network and mount namespace, where it is root.
///
/// Afterwards labs can be built, packet sockets opened and file systems mounted without any
/// right outside; what is done there is seen nowhere else. BPF programs stay out of reach.
/// Call it first in `main`: the kernel allows it only while the process has one thread.
pub fn enter_user_namespace() -> Result<()> {
    let (user, group) = (geteuid(), getegid());
    let flags = CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS;
    unshare(flags).map_err(|errno| match errno {
        Errno::EINVAL => {
            Error::Misuse("a user namespace is entered before the first thread starts")
        }
        errno => unavailable(errno.into()),
    })?;
    map_root(user.as_raw(), group.as_raw()).map_err(unavailable)?;
    Namespace::current("user namespace")?.link("lo")?.up()
}

/// Makes the calling process's user and group appear as root's in its new user namespace.
fn map_root(user: u32, group: u32) -> io::Result<()> {
    // The kernel lets an unprivileged process map its group only after it gave up setgroups().
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("0 {user} 1"))?;
    fs::write("/proc/self/gid_map", format!("0 {group} 1"))
}

fn unavailable(source: io::Error) -> Error {
    Error::Unavailable {
        action: WHAT.to_owned(),
        source,
        advice: "this system keeps user namespaces from unprivileged users: run as root, or see \
                 the sysctls user.max_user_namespaces, kernel.unprivileged_userns_clone and \
                 kernel.apparmor_restrict_unprivileged_userns",
    }
}

/// Returns whether this process may make network namespaces as it is.
pub fn can_make_namespaces() -> bool {
    Namespace::new("probe").is_ok()
}

/// Gives this process its own view of the mounts, so that what it mounts (a bpffs, say)
/// vanishes with it. Call it first in `main`: it holds for the calling thread and for threads
/// started later.
pub fn enter_private_mounts() -> Result<()> {
    use nix::mount::{MsFlags, mount};
    unshare(CloneFlags::CLONE_NEWNS).doing(|| "make a mount namespace".to_owned())?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
        .doing(|| "make mounts private".to_owned())
}
