//! The functions of the C library that stand before the real ones. Each looks whether
//! it is asked for something of ours, and passes on everything else as it came.
#![expect(unsafe_code, reason = "functions for C, called with its pointers")]

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::os::fd::{AsRawFd as _, BorrowedFd, IntoRawFd as _, OwnedFd};
use std::ptr;
use std::slice;
use std::sync::{Mutex, PoisonError};

use ipvs_netlink::{Errno, sockopt};
use libc::{FILE, epoll_event, msghdr, size_t, sockaddr, socklen_t, ssize_t};
use rustix::net::SendFlags;

use crate::takeover::{DECISIVE, Sent, is_ours, may_be_replaced, send_if_ours};
use crate::{ask, files};

/// The next function of this name, behind ours; that of the C library, as a rule.
macro_rules! next {
    ($name:literal as fn($($arg:ty),* $(,)?) -> $result:ty) => {{
        static FOUND: std::sync::OnceLock<usize> = std::sync::OnceLock::new();
        let found = *FOUND.get_or_init(|| {
            // SAFETY: the name is a text that ends with NUL.
            unsafe { libc::dlsym(libc::RTLD_NEXT, $name.as_ptr()) as usize }
        });
        // SAFETY: the C library has a function of this name with this signature, and a
        // program that is linked to it could not have started without it.
        unsafe {
            std::mem::transmute::<usize, unsafe extern "C" fn($($arg),*) -> $result>(found)
        }
    }};
}

/// Puts `new` in the place of the descriptor `old`.
pub(crate) fn replace(
    old: BorrowedFd<'_>,
    new: BorrowedFd<'_>,
    close_on_exec: bool,
) -> Result<(), Errno> {
    let flags = if close_on_exec { libc::O_CLOEXEC } else { 0 };
    // SAFETY: no pointer is involved, and the number stays an open descriptor.
    let outcome = unsafe { libc::syscall(libc::SYS_dup3, new.as_raw_fd(), old.as_raw_fd(), flags) };
    if outcome < 0 {
        return Err(last_errno());
    }
    watch_again(old.as_raw_fd());
    Ok(())
}

/// A socket that is waited for by epoll: the descriptors of both, and what for. A
/// registration is one of a socket, not of its number, so it ends when the socket is
/// replaced.
#[derive(Clone, Copy)]
struct Watch {
    epoll: c_int,
    fd: c_int,
    events: u32,
    data: u64,
}

/// Those of sockets that may yet be replaced.
static WATCHES: Mutex<Vec<Watch>> = Mutex::new(Vec::new());

/// Has the socket that stands in another's place now waited for as that one was.
fn watch_again(fd: c_int) {
    let real = next!(c"epoll_ctl" as fn(c_int, c_int, c_int, *mut epoll_event) -> c_int);
    let watches = WATCHES.lock().unwrap_or_else(PoisonError::into_inner);
    for watch in watches.iter().filter(|watch| watch.fd == fd) {
        let mut event = epoll_event { events: watch.events, u64: watch.data };
        // An epoll descriptor that is closed by now is of no interest.
        // SAFETY: the event lives during the call.
        unsafe { real(watch.epoll, libc::EPOLL_CTL_ADD, fd, &raw mut event) };
    }
}

/// `epoll_ctl(2)`: remembers who waits for a socket that may become the daemon's.
///
/// # Safety
///
/// As for the real one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn epoll_ctl(
    epoll: c_int,
    operation: c_int,
    fd: c_int,
    event: *mut epoll_event,
) -> c_int {
    let real = next!(c"epoll_ctl" as fn(c_int, c_int, c_int, *mut epoll_event) -> c_int);
    // SAFETY: the caller's arguments.
    let outcome = unsafe { real(epoll, operation, fd, event) };
    if outcome == 0 && descriptor(fd).is_some_and(may_be_replaced) {
        let mut watches = WATCHES.lock().unwrap_or_else(PoisonError::into_inner);
        watches.retain(|watch| (watch.epoll, watch.fd) != (epoll, fd));
        if operation != libc::EPOLL_CTL_DEL && !event.is_null() {
            // SAFETY: the real one has read it.
            let epoll_event { events, u64: data } = unsafe { event.read_unaligned() };
            watches.push(Watch { epoll, fd, events, data });
        }
    }
    outcome
}

fn last_errno() -> Errno {
    let last = std::io::Error::last_os_error();
    Errno::from_io_error(&last).unwrap_or(Errno::IO)
}

/// Fails as functions of the C library do.
fn fail(errno: Errno) -> c_int {
    // SAFETY: nothing is asked of the caller.
    let place = unsafe { libc::__errno_location() };
    // SAFETY: it is the calling thread's own.
    unsafe { place.write(errno.raw_os_error()) };
    -1
}

fn descriptor(fd: c_int) -> Option<BorrowedFd<'static>> {
    // SAFETY: the caller has it open while it is in a function that takes it; if not, the
    // kernel says so.
    (fd >= 0).then(|| unsafe { BorrowedFd::borrow_raw(fd) })
}

/// The octets at `start`.
///
/// # Safety
///
/// There are so many, or `start` is null.
unsafe fn octets<'a>(start: *const c_void, len: size_t) -> &'a [u8] {
    if start.is_null() {
        return &[];
    }
    // SAFETY: as the caller promises.
    unsafe { slice::from_raw_parts(start.cast(), len) }
}

/// Octets that may be too long for the length's type.
fn length(sent: usize) -> ssize_t {
    ssize_t::try_from(sent).unwrap_or(ssize_t::MAX)
}

/// Sends octets that lie together, if they are for the daemon.
fn led(fd: c_int, datagram: &[u8], flags: c_int) -> Option<ssize_t> {
    let start = datagram.get(..DECISIVE).unwrap_or(datagram);
    let flags = SendFlags::from_bits_retain(flags.cast_unsigned());
    match send_if_ours(descriptor(fd)?, start, flags, || datagram.to_vec()) {
        Ok(Sent::Untouched) => None,
        Ok(Sent::ToDaemon(sent)) => Some(length(sent)),
        Err(errno) => Some(length_of_failure(errno)),
    }
}

fn length_of_failure(errno: Errno) -> ssize_t {
    ssize_t::try_from(fail(errno)).unwrap_or(-1)
}

/// `send(2)`.
///
/// # Safety
///
/// As for the real one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn send(
    fd: c_int,
    from: *const c_void,
    len: size_t,
    flags: c_int,
) -> ssize_t {
    // SAFETY: the caller's buffer, as send demands it.
    if let Some(sent) = led(fd, unsafe { octets(from, len) }, flags) {
        return sent;
    }
    let real = next!(c"send" as fn(c_int, *const c_void, size_t, c_int) -> ssize_t);
    // SAFETY: the caller's arguments.
    unsafe { real(fd, from, len, flags) }
}

/// `sendto(2)`.
///
/// # Safety
///
/// As for the real one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sendto(
    fd: c_int,
    from: *const c_void,
    len: size_t,
    flags: c_int,
    to: *const sockaddr,
    to_len: socklen_t,
) -> ssize_t {
    // SAFETY: the caller's buffer, as sendto demands it.
    if let Some(sent) = led(fd, unsafe { octets(from, len) }, flags) {
        return sent;
    }
    let real = next!(
        c"sendto" as fn(c_int, *const c_void, size_t, c_int, *const sockaddr, socklen_t) -> ssize_t
    );
    // SAFETY: the caller's arguments.
    unsafe { real(fd, from, len, flags, to, to_len) }
}

/// `write(2)`.
///
/// # Safety
///
/// As for the real one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn write(fd: c_int, from: *const c_void, len: size_t) -> ssize_t {
    // SAFETY: the caller's buffer, as write demands it.
    if let Some(sent) = led(fd, unsafe { octets(from, len) }, 0) {
        return sent;
    }
    let real = next!(c"write" as fn(c_int, *const c_void, size_t) -> ssize_t);
    // SAFETY: the caller's arguments.
    unsafe { real(fd, from, len) }
}

/// `sendmsg(2)`.
///
/// # Safety
///
/// As for the real one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sendmsg(fd: c_int, message: *const msghdr, flags: c_int) -> ssize_t {
    // SAFETY: the caller's message, as sendmsg demands it.
    let pieces: Vec<&[u8]> = unsafe { pieces(message) };
    let gather = |most: usize| -> Vec<u8> {
        pieces.iter().flat_map(|piece| piece.iter().copied()).take(most).collect()
    };
    let start = gather(DECISIVE);
    let wants = SendFlags::from_bits_retain(flags.cast_unsigned());
    let sent = descriptor(fd).map(|fd| send_if_ours(fd, &start, wants, || gather(usize::MAX)));
    match sent {
        Some(Ok(Sent::ToDaemon(sent))) => return length(sent),
        Some(Err(errno)) => return length_of_failure(errno),
        Some(Ok(Sent::Untouched)) | None => {}
    }
    let real = next!(c"sendmsg" as fn(c_int, *const msghdr, c_int) -> ssize_t);
    // SAFETY: the caller's arguments.
    unsafe { real(fd, message, flags) }
}

/// The pieces of a message.
///
/// # Safety
///
/// The message is null or describes memory that may be read.
unsafe fn pieces<'a>(message: *const msghdr) -> Vec<&'a [u8]> {
    // SAFETY: as the caller promises.
    let Some(message) = (unsafe { message.as_ref() }) else { return Vec::new() };
    if message.msg_iov.is_null() {
        return Vec::new();
    }
    // SAFETY: as the caller promises.
    let vectors = unsafe { slice::from_raw_parts(message.msg_iov, message.msg_iovlen) };
    // SAFETY: as the caller promises.
    vectors.iter().map(|vector| unsafe { octets(vector.iov_base, vector.iov_len) }).collect()
}

/// Makes an address that a call wrote, of the daemon's unix socket, the netlink address
/// that the program expects there; `room` is what there was for it.
///
/// # Safety
///
/// `addr` is null, or may be written so far, and `len` may be written.
unsafe fn correct(fd: c_int, addr: *mut c_void, room: socklen_t, len: *mut socklen_t, port: u32) {
    if addr.is_null() || room < 2 {
        return;
    }
    // SAFETY: there is room for the two octets of the family.
    let family = unsafe { addr.cast::<u16>().read_unaligned() };
    if c_int::from(family) != libc::AF_UNIX || !descriptor(fd).is_some_and(is_ours) {
        return;
    }
    let netlink = u16::try_from(libc::AF_NETLINK).unwrap_or(0).to_ne_bytes();
    let mut octets = [0; 12];
    for (to, from) in
        octets.iter_mut().zip(netlink.into_iter().chain([0; 2]).chain(port.to_ne_bytes()))
    {
        *to = from;
    }
    let fits = octets.len().min(room as usize);
    // SAFETY: there is so much room, and an array of this function is elsewhere.
    unsafe { ptr::copy_nonoverlapping(octets.as_ptr(), addr.cast(), fits) };
    // SAFETY: as the caller promises.
    unsafe { len.write(12) };
}

/// The length at `len`, if there is one.
///
/// # Safety
///
/// `len` is null or may be read.
unsafe fn room(len: *const socklen_t) -> socklen_t {
    // SAFETY: as the caller promises.
    unsafe { len.as_ref() }.copied().unwrap_or(0)
}

/// `recvfrom(2)`.
///
/// # Safety
///
/// As for the real one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn recvfrom(
    fd: c_int,
    to: *mut c_void,
    len: size_t,
    flags: c_int,
    from: *mut sockaddr,
    from_len: *mut socklen_t,
) -> ssize_t {
    // SAFETY: the caller's length, as recvfrom demands it.
    let room = unsafe { room(from_len) };
    let real = next!(
        c"recvfrom"
            as fn(c_int, *mut c_void, size_t, c_int, *mut sockaddr, *mut socklen_t) -> ssize_t
    );
    // SAFETY: the caller's arguments.
    let received = unsafe { real(fd, to, len, flags, from, from_len) };
    if received >= 0 {
        // SAFETY: the caller's address and length.
        unsafe { correct(fd, from.cast(), room, from_len, 0) };
    }
    received
}

/// `recvfrom(2)` of a program built with checks of its buffers.
///
/// # Safety
///
/// As for the real one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __recvfrom_chk(
    fd: c_int,
    to: *mut c_void,
    len: size_t,
    to_len: size_t,
    flags: c_int,
    from: *mut sockaddr,
    from_len: *mut socklen_t,
) -> ssize_t {
    // SAFETY: the caller's length, as recvfrom demands it.
    let room = unsafe { room(from_len) };
    let real = next!(
        c"__recvfrom_chk"
            as fn(
                c_int,
                *mut c_void,
                size_t,
                size_t,
                c_int,
                *mut sockaddr,
                *mut socklen_t,
            ) -> ssize_t
    );
    // SAFETY: the caller's arguments.
    let received = unsafe { real(fd, to, len, to_len, flags, from, from_len) };
    if received >= 0 {
        // SAFETY: the caller's address and length.
        unsafe { correct(fd, from.cast(), room, from_len, 0) };
    }
    received
}

/// `recvmsg(2)`.
///
/// # Safety
///
/// As for the real one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn recvmsg(fd: c_int, message: *mut msghdr, flags: c_int) -> ssize_t {
    // SAFETY: the caller's message, as recvmsg demands it.
    let room = unsafe { message.as_ref() }.map_or(0, |message| message.msg_namelen);
    let real = next!(c"recvmsg" as fn(c_int, *mut msghdr, c_int) -> ssize_t);
    // SAFETY: the caller's arguments.
    let received = unsafe { real(fd, message, flags) };
    if received >= 0 {
        // SAFETY: the caller's message, which the real one could use.
        if let Some(message) = unsafe { message.as_mut() } {
            let len = &raw mut message.msg_namelen;
            // SAFETY: the caller's address and its length.
            unsafe { correct(fd, message.msg_name, room, len, 0) };
        }
    }
    received
}

/// `getsockname(2)`.
///
/// # Safety
///
/// As for the real one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getsockname(fd: c_int, addr: *mut sockaddr, len: *mut socklen_t) -> c_int {
    // SAFETY: the caller's length, as getsockname demands it.
    let room = unsafe { room(len) };
    let real = next!(c"getsockname" as fn(c_int, *mut sockaddr, *mut socklen_t) -> c_int);
    // SAFETY: the caller's arguments.
    let outcome = unsafe { real(fd, addr, len) };
    if outcome == 0 {
        // SAFETY: the caller's address and length.
        unsafe { correct(fd, addr.cast(), room, len, std::process::id()) };
    }
    outcome
}

/// Whether a netlink address is given for a socket that is the daemon's.
///
/// # Safety
///
/// `addr` is null or may be read so far.
unsafe fn is_addressed(fd: c_int, addr: *const sockaddr, len: socklen_t) -> bool {
    // SAFETY: there are the two octets of the family.
    let family = if len < 2 { None } else { unsafe { addr.cast::<u16>().as_ref() } };
    family.is_some_and(|family| c_int::from(*family) == libc::AF_NETLINK)
        && descriptor(fd).is_some_and(is_ours)
}

/// `bind(2)`: the daemon's socket needs no netlink address.
///
/// # Safety
///
/// As for the real one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bind(fd: c_int, addr: *const sockaddr, len: socklen_t) -> c_int {
    // SAFETY: the caller's address.
    if unsafe { is_addressed(fd, addr, len) } {
        return 0;
    }
    let real = next!(c"bind" as fn(c_int, *const sockaddr, socklen_t) -> c_int);
    // SAFETY: the caller's arguments.
    unsafe { real(fd, addr, len) }
}

/// `connect(2)`: the daemon's socket is connected.
///
/// # Safety
///
/// As for the real one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn connect(fd: c_int, addr: *const sockaddr, len: socklen_t) -> c_int {
    // SAFETY: the caller's address.
    if unsafe { is_addressed(fd, addr, len) } {
        return 0;
    }
    let real = next!(c"connect" as fn(c_int, *const sockaddr, socklen_t) -> c_int);
    // SAFETY: the caller's arguments.
    unsafe { real(fd, addr, len) }
}

/// Whether the old interface is meant, and the kernel's is not.
fn is_old_interface(level: c_int, option: c_int) -> bool {
    level == libc::IPPROTO_IP && sockopt::OPTIONS.contains(&option) && crate::socket().is_some()
}

/// `setsockopt(2)`.
///
/// # Safety
///
/// As for the real one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn setsockopt(
    fd: c_int,
    level: c_int,
    option: c_int,
    value: *const c_void,
    len: socklen_t,
) -> c_int {
    if is_old_interface(level, option) {
        // SAFETY: the caller's value.
        let value = unsafe { octets(value, len as usize) };
        return match ask(|client| sockopt::set(client, option, value)) {
            Ok(()) => 0,
            Err(errno) => fail(errno),
        };
    }
    if level == libc::SOL_NETLINK && descriptor(fd).is_some_and(is_ours) {
        return 0;
    }
    let real = next!(c"setsockopt" as fn(c_int, c_int, c_int, *const c_void, socklen_t) -> c_int);
    // SAFETY: the caller's arguments.
    unsafe { real(fd, level, option, value, len) }
}

/// `getsockopt(2)`.
///
/// # Safety
///
/// As for the real one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getsockopt(
    fd: c_int,
    level: c_int,
    option: c_int,
    value: *mut c_void,
    len: *mut socklen_t,
) -> c_int {
    if is_old_interface(level, option) {
        // SAFETY: the caller's length.
        let room = unsafe { room(len) } as usize;
        if value.is_null() {
            return fail(Errno::FAULT);
        }
        // SAFETY: the caller's value has this length.
        let buffer: &mut [u8] = unsafe { slice::from_raw_parts_mut(value.cast(), room) };
        return match ask(|client| sockopt::get(client, option, buffer)) {
            Ok(written) => {
                // SAFETY: the caller's length, which was read above.
                unsafe { len.write(socklen_t::try_from(written).unwrap_or(0)) };
                0
            }
            Err(errno) => fail(errno),
        };
    }
    let real =
        next!(c"getsockopt" as fn(c_int, c_int, c_int, *mut c_void, *mut socklen_t) -> c_int);
    // SAFETY: the caller's arguments.
    unsafe { real(fd, level, option, value, len) }
}

/// Opens a file of ours that is to be read.
///
/// # Safety
///
/// `path` is null or a text that ends with NUL.
unsafe fn opened(path: *const c_char, flags: c_int) -> Option<c_int> {
    if path.is_null() || flags & libc::O_ACCMODE != libc::O_RDONLY {
        return None;
    }
    // SAFETY: as the caller promises.
    let path = unsafe { CStr::from_ptr(path) };
    Some(files::open(path.to_bytes())?.map_or_else(fail, OwnedFd::into_raw_fd))
}

/// A function that opens a file: `open(2)` and its kin. The mode is there if a file is made.
macro_rules! opens {
    ($name:ident, $text:literal, $($before:ident: $type:ty)?) => {
        /// Opens a file.
        ///
        /// # Safety
        ///
        /// As for the real one.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(
            $($before: $type,)?
            path: *const c_char,
            flags: c_int,
            mode: c_uint,
        ) -> c_int {
            // SAFETY: the caller's path.
            if let Some(file) = unsafe { opened(path, flags) } {
                return file;
            }
            let real = next!($text as fn($($type,)? *const c_char, c_int, c_uint) -> c_int);
            // SAFETY: the caller's arguments.
            unsafe { real($($before,)? path, flags, mode) }
        }
    };
}

opens!(open, c"open",);
opens!(open64, c"open64",);
opens!(openat, c"openat", folder: c_int);
opens!(openat64, c"openat64", folder: c_int);

/// A function that opens a stream: `fopen(3)` under its two names.
macro_rules! streams {
    ($name:ident, $text:literal) => {
        /// Opens a stream.
        ///
        /// # Safety
        ///
        /// As for the real one.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(path: *const c_char, mode: *const c_char) -> *mut FILE {
            // SAFETY: the caller's mode, a text.
            let reads = !mode.is_null() && unsafe { mode.read() } == b'r'.cast_signed();
            let flags = if reads { libc::O_RDONLY } else { libc::O_RDWR };
            // SAFETY: the caller's path.
            match unsafe { opened(path, flags) } {
                Some(-1) => ptr::null_mut(),
                // SAFETY: a descriptor that nobody else has, and the caller's mode.
                Some(file) => unsafe { libc::fdopen(file, mode) },
                None => {
                    let real = next!($text as fn(*const c_char, *const c_char) -> *mut FILE);
                    // SAFETY: the caller's arguments.
                    unsafe { real(path, mode) }
                }
            }
        }
    };
}

streams!(fopen, c"fopen");
streams!(fopen64, c"fopen64");
