//! The system calls that no safe wrapper offers; the only unsafe code of the lab.
#![expect(
    unsafe_code,
    reason = "ioctl, setsockopt, sched_setscheduler and pre_exec have no safe form"
)]

use std::{
    ffi::{c_char, c_int, c_void},
    io, mem,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::process::CommandExt,
    },
    process::Command,
};

use nix::{
    fcntl::{OFlag, open},
    sched::{CloneFlags, setns, unshare},
    sys::{prctl, signal::Signal, stat::Mode},
    unistd::{Pid, getegid, geteuid, getppid, write},
};

/// Lets the command's process enter a network namespace before it runs its program, and die
/// with the thread that started it.
pub(crate) fn start_in_namespace(command: &mut Command, namespace: OwnedFd) {
    let parent = nix::unistd::getpid();
    let enter = move || -> io::Result<()> {
        setns(namespace.as_fd(), CloneFlags::CLONE_NEWNET)?;
        prctl::set_pdeathsig(Signal::SIGKILL)?;
        // The parent may have died before the signal was asked for.
        if getppid() == parent { Ok(()) } else { Err(io::ErrorKind::NotConnected.into()) }
    };
    // SAFETY: between fork and exec the closure makes three system calls and allocates nothing.
    unsafe { command.pre_exec(enter) };
}

/// Lets the command's process enter a new user namespace as its root, with its own network and
/// mount namespaces, and die with the thread that started it.
pub(crate) fn start_in_user_namespace(command: &mut Command) {
    let (user, group) = (geteuid().as_raw(), getegid().as_raw());
    // Made here because nothing may be allocated between fork and exec.
    let maps = [
        (c"/proc/self/setgroups", "deny".to_owned()),
        (c"/proc/self/uid_map", format!("0 {user} 1")),
        (c"/proc/self/gid_map", format!("0 {group} 1")),
    ];
    let enter = move || -> io::Result<()> {
        unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)?;
        for (path, text) in &maps {
            let file = open(*path, OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty())?;
            write(&file, text.as_bytes())?;
        }
        prctl::set_pdeathsig(Signal::SIGKILL)?;
        Ok(())
    };
    // SAFETY: between fork and exec the closure makes system calls and allocates nothing.
    unsafe { command.pre_exec(enter) };
}

/// `struct ethtool_value` of linux/ethtool.h.
#[repr(C)]
struct EthtoolValue {
    command: u32,
    data: u32,
}

/// Runs an ethtool command with one value on an interface of the socket's namespace, and
/// returns the value that the kernel left.
pub(crate) fn ethtool_value(
    socket: &impl AsRawFd,
    link: &str,
    command: u32,
    data: u32,
) -> io::Result<u32> {
    const SIOCETHTOOL: libc::Ioctl = 0x8946;
    let mut value = EthtoolValue { command, data };
    // SAFETY: `ifreq` is a C structure of integers and a pointer, for all of which zero is valid.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    if link.len() >= request.ifr_name.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (slot, octet) in request.ifr_name.iter_mut().zip(link.bytes()) {
        *slot = c_char::from_ne_bytes([octet]);
    }
    request.ifr_ifru.ifru_data = (&raw mut value).cast();
    // SAFETY: the request names `value`, which outlives the call and is as large as these
    // commands need.
    let outcome = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &raw mut request) };
    if outcome < 0 { Err(io::Error::last_os_error()) } else { Ok(value.data) }
}

/// Sets a socket option whose value is a plain C structure without pointers to Rust memory
/// that the kernel would keep.
fn set_option<T>(socket: &impl AsRawFd, level: c_int, option: c_int, value: &T) -> io::Result<()> {
    let length = libc::socklen_t::try_from(size_of::<T>()).map_err(io::Error::other)?;
    let start: *const c_void = (&raw const *value).cast();
    // SAFETY: `start` and `length` describe `value`, which lives during the call.
    let outcome = unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, start, length) };
    if outcome < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Makes a packet socket give and take a virtio-net header before each frame.
pub(crate) fn set_vnet_header(socket: &impl AsRawFd) -> io::Result<()> {
    set_option(socket, libc::SOL_PACKET, libc::PACKET_VNET_HDR, &1_i32)
}

/// Attaches a classic BPF program to a socket; its return value is how many octets pass.
pub(crate) fn attach_filter(
    socket: &impl AsRawFd,
    program: &[libc::sock_filter],
) -> io::Result<()> {
    let filter = libc::sock_fprog {
        len: u16::try_from(program.len()).map_err(io::Error::other)?,
        // The kernel only reads the program, in spite of the type.
        filter: program.as_ptr().cast_mut(),
    };
    set_option(socket, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &filter)
}

/// Raises a socket's receive buffer, past the system's limit if this process may.
pub(crate) fn raise_receive_buffer(socket: &impl AsRawFd, octets: i32) -> io::Result<()> {
    set_option(socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, &octets)
        .or_else(|_not_allowed| set_option(socket, libc::SOL_SOCKET, libc::SO_RCVBUF, &octets))
}

/// Binds a packet socket to an interface and a protocol (an Ethernet type, or `ETH_P_ALL`).
pub(crate) fn bind_packet_socket(
    socket: &impl AsRawFd,
    index: u32,
    protocol: c_int,
) -> io::Result<()> {
    // SAFETY: `sockaddr_ll` is a C structure of integers, for all of which zero is valid.
    let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
    address.sll_family = u16::try_from(libc::AF_PACKET).map_err(io::Error::other)?;
    address.sll_protocol = u16::try_from(protocol).map_err(io::Error::other)?.to_be();
    address.sll_ifindex = i32::try_from(index).map_err(io::Error::other)?;
    let length = libc::socklen_t::try_from(size_of_val(&address)).map_err(io::Error::other)?;
    // SAFETY: the pointer and the length describe `address`, which lives during the call.
    let outcome = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) };
    if outcome < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Lets a thread run before all that are not real-time threads, as soon as it has work.
pub(crate) fn run_first(thread: Pid) -> io::Result<()> {
    // SAFETY: `sched_param` is a C structure of integers, for all of which zero is valid.
    let mut order: libc::sched_param = unsafe { mem::zeroed() };
    order.sched_priority = 1;
    // SAFETY: the pointer names `order`, which lives during the call.
    let outcome =
        unsafe { libc::sched_setscheduler(thread.as_raw(), libc::SCHED_FIFO, &raw const order) };
    if outcome < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Borrows the descriptor of something that offers only its number.
pub(crate) fn borrow_fd<T: AsRawFd>(owner: &T) -> BorrowedFd<'_> {
    // SAFETY: `owner` is borrowed as long as the result, and keeps its descriptor open.
    unsafe { BorrowedFd::borrow_raw(owner.as_raw_fd()) }
}
