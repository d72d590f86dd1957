//! The system calls of packet sockets that no safe wrapper offers, and the
//! memory shared with the kernel.
#![expect(unsafe_code, reason = "rings, packet socket options and sendmmsg have no safe form")]

use std::ffi::{c_int, c_void};
use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU32, Ordering};

use super::virtio;
use crate::frame::Frame;

/// Frames given to the kernel with one call, at most.
pub(crate) const BATCH: usize = 64;

/// Opens a packet socket that gets no frame before it is bound.
pub(crate) fn packet_socket() -> io::Result<OwnedFd> {
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: no pointer is involved.
    let fd = unsafe { libc::socket(libc::AF_PACKET, kind, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made the descriptor, nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Sets an option of packet sockets.
pub(crate) fn set_packet_option<T: Copy>(
    socket: BorrowedFd<'_>,
    option: c_int,
    value: &T,
) -> io::Result<()> {
    set_option(socket, libc::SOL_PACKET, option, value)
}

/// Gives what the socket sends a priority.
pub(crate) fn set_priority(socket: BorrowedFd<'_>, priority: u32) -> io::Result<()> {
    set_option(socket, libc::SOL_SOCKET, libc::SO_PRIORITY, &priority)
}

fn set_option<T: Copy>(
    socket: BorrowedFd<'_>,
    level: c_int,
    option: c_int,
    value: &T,
) -> io::Result<()> {
    let start: *const c_void = ptr::from_ref(value).cast();
    let len = libc::socklen_t::try_from(size_of::<T>()).map_err(io::Error::other)?;
    let fd = socket.as_raw_fd();
    // SAFETY: `start` and `len` describe `value`, which lives during the call and is only read.
    let outcome = unsafe { libc::setsockopt(fd, level, option, start, len) };
    if outcome < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Frames that the kernel had no place in the ring for, since the last question.
pub(crate) fn lost(socket: BorrowedFd<'_>) -> io::Result<u32> {
    let mut statistics = libc::tpacket_stats { tp_packets: 0, tp_drops: 0 };
    let mut len = libc::socklen_t::try_from(size_of_val(&statistics)).map_err(io::Error::other)?;
    let place: *mut c_void = ptr::from_mut(&mut statistics).cast();
    let (fd, option) = (socket.as_raw_fd(), libc::PACKET_STATISTICS);
    // SAFETY: `place` and `len` describe `statistics`, which lives during the call.
    let outcome = unsafe { libc::getsockopt(fd, libc::SOL_PACKET, option, place, &raw mut len) };
    if outcome < 0 { Err(io::Error::last_os_error()) } else { Ok(statistics.tp_drops) }
}

/// Binds a packet socket to an interface: from now on it gets every frame of
/// `protocol` (all of them: `ETH_P_ALL`; none: 0) that comes in there.
pub(crate) fn bind(socket: BorrowedFd<'_>, ifindex: u32, protocol: c_int) -> io::Result<()> {
    let address = libc::sockaddr_ll {
        sll_family: u16::try_from(libc::AF_PACKET).map_err(io::Error::other)?,
        sll_protocol: u16::try_from(protocol).map_err(io::Error::other)?.to_be(),
        sll_ifindex: i32::try_from(ifindex).map_err(io::Error::other)?,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    let len = libc::socklen_t::try_from(size_of_val(&address)).map_err(io::Error::other)?;
    let start = ptr::from_ref(&address).cast();
    // SAFETY: `start` and `len` describe `address`, which lives during the call.
    let outcome = unsafe { libc::bind(socket.as_raw_fd(), start, len) };
    if outcome < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Sends frames, each behind its virtio header; returns how many the kernel
/// took. An error concerns the first of them. At most [`BATCH`] are sent.
pub(crate) fn send(
    socket: BorrowedFd<'_>,
    headers: &[[u8; virtio::LEN]],
    frames: &[Frame],
) -> io::Result<usize> {
    const NOTHING: libc::iovec = libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 };
    let mut parts = [[NOTHING; 2]; BATCH];
    // SAFETY: `mmsghdr` is a C structure of integers and pointers, for all of which zero is valid.
    let mut messages: [libc::mmsghdr; BATCH] = unsafe { mem::zeroed() };
    let mut count = 0;
    for (((header, frame), part), message) in
        headers.iter().zip(frames).zip(&mut parts).zip(&mut messages)
    {
        let octets = frame.octets();
        // The kernel only reads them, in spite of the type.
        *part = [
            libc::iovec { iov_base: header.as_ptr().cast_mut().cast(), iov_len: header.len() },
            libc::iovec { iov_base: octets.as_ptr().cast_mut().cast(), iov_len: octets.len() },
        ];
        message.msg_hdr.msg_iov = part.as_mut_ptr();
        message.msg_hdr.msg_iovlen = 2;
        count += 1;
    }
    let fd = socket.as_raw_fd();
    // SAFETY: the first `count` messages point at `parts`, which point at headers and frames;
    // all of them live during the call.
    let sent = unsafe { libc::sendmmsg(fd, messages.as_mut_ptr(), count, 0) };
    usize::try_from(sent).map_err(|_negative| io::Error::last_os_error())
}

/// How a ring is laid out: slots of one frame each, in blocks of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RingLayout {
    /// Octets of a slot, a multiple of 16.
    pub(crate) slot_len: u32,
    /// Octets of a block, a multiple of the page size; a slot never crosses one.
    pub(crate) block_len: u32,
    /// Blocks.
    pub(crate) blocks: u32,
}

impl RingLayout {
    const fn slots_per_block(&self) -> u32 {
        self.block_len / self.slot_len
    }

    const fn slots(&self) -> u32 {
        self.slots_per_block() * self.blocks
    }

    const fn len(&self) -> usize {
        self.block_len as usize * self.blocks as usize
    }

    /// Where the slot with this number begins.
    const fn place(&self, slot: u32) -> usize {
        let (block, within) = (slot / self.slots_per_block(), slot % self.slots_per_block());
        block as usize * self.block_len as usize + within as usize * self.slot_len as usize
    }
}

/// The ring of received frames, shared with the kernel (`TPACKET_V2`).
///
/// Each slot begins with a status word that says whose it is. One's own slot
/// nobody else writes to.
#[derive(Debug)]
pub(crate) struct Ring {
    start: NonNull<u8>,
    layout: RingLayout,
    next: u32,
}

// SAFETY: the memory belongs to the ring alone, whichever thread has it.
unsafe impl Send for Ring {}

impl Ring {
    /// Gives `socket` a ring.
    pub(crate) fn new(socket: &OwnedFd, layout: RingLayout) -> io::Result<Self> {
        let version = libc::tpacket_versions::TPACKET_V2 as c_int;
        set_packet_option(socket.as_fd(), libc::PACKET_VERSION, &version)?;
        let request = libc::tpacket_req {
            tp_block_size: layout.block_len,
            tp_block_nr: layout.blocks,
            tp_frame_size: layout.slot_len,
            tp_frame_nr: layout.slots(),
        };
        set_packet_option(socket.as_fd(), libc::PACKET_RX_RING, &request)?;
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let (len, fd) = (layout.len(), socket.as_raw_fd());
        // SAFETY: a new mapping at a place of the kernel's choice touches no other memory.
        let start = unsafe { libc::mmap(ptr::null_mut(), len, access, libc::MAP_SHARED, fd, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { start, layout, next: 0 })
    }

    /// Shows `look` the next slot that the kernel has filled, and gives it back
    /// after that. `None`: there is none.
    pub(crate) fn take<R>(&mut self, look: impl FnOnce(&[u8]) -> R) -> Option<R> {
        let place = self.layout.place(self.next);
        // SAFETY: the place of a slot is within the mapping.
        let slot = unsafe { self.start.add(place) };
        // SAFETY: a slot begins with its status word, at a multiple of 16, and both sides
        // access it atomically; the mapping lives as long as `self`.
        let status = unsafe { AtomicU32::from_ptr(slot.as_ptr().cast()) };
        if status.load(Ordering::Acquire) & libc::TP_STATUS_USER == 0 {
            return None;
        }
        let len = self.layout.slot_len as usize;
        // SAFETY: the slot is ours until its status says otherwise, is initialised (the kernel
        // hands out zeroed pages) and lies within the mapping.
        let octets = unsafe { std::slice::from_raw_parts(slot.as_ptr(), len) };
        let seen = look(octets);
        status.store(libc::TP_STATUS_KERNEL, Ordering::Release);
        self.next = (self.next + 1) % self.layout.slots();
        Some(seen)
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: the mapping was made with this length, and nobody can look at it any more.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.layout.len()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_never_crosses_a_block() {
        let layout = RingLayout { slot_len: 69_632, block_len: 1 << 20, blocks: 2 };
        assert_eq!(layout.slots(), 30);
        for slot in 0..layout.slots() {
            let (first, last) = (layout.place(slot), layout.place(slot) + 69_631);
            assert_eq!(first >> 20, last >> 20);
            assert!(last < layout.len());
        }
    }
}
