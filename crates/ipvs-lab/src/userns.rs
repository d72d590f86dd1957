//! Root's rights for a process that has none: a user namespace of its own.

use std::{
    fs, io, thread,
    time::{Duration, Instant},
};

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
    unshare_alone(flags).map_err(|errno| match errno {
        Errno::EINVAL => {
            Error::Misuse("a user namespace is entered before the first thread starts")
        }
        errno => unavailable(errno.into()),
    })?;
    map_root(user.as_raw(), group.as_raw()).map_err(unavailable)?;
    Namespace::current("user namespace")?.link("lo")?.up()
}

/// Unshares, with some patience: a thread that was joined is a thread of the process for a moment
/// longer.
fn unshare_alone(flags: CloneFlags) -> nix::Result<()> {
    let deadline = Instant::now() + Duration::from_millis(200);
    loop {
        match unshare(flags) {
            Err(Errno::EINVAL) if Instant::now() < deadline => thread::yield_now(),
            outcome => return outcome,
        }
    }
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

/// Returns whether this process has the rights that a lab needs (`CAP_SYS_ADMIN` and
/// `CAP_NET_ADMIN`), as root usually has and everybody has in a user namespace of his own.
pub fn can_make_namespaces() -> bool {
    const NET_ADMIN: u64 = 1 << 12;
    const SYS_ADMIN: u64 = 1 << 21;
    let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    effective_capabilities(&status).is_some_and(|all| all & NET_ADMIN != 0 && all & SYS_ADMIN != 0)
}

fn effective_capabilities(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn effective_capabilities_are_a_hexadecimal_mask() {
        let status = "Name:\tcat\nCapPrm:\t0000000000000000\nCapEff:\t0000000000201000\n";
        assert_eq!(effective_capabilities(status), Some(1 << 12 | 1 << 21));
        assert_eq!(effective_capabilities("Name:\tcat\n"), None);
    }
}
