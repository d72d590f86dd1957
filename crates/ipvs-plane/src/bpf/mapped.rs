//! Arrays of the kernel, mapped into this process, so that the core works on
//! the very records that the eBPF programs work on.
#![expect(unsafe_code, reason = "memory shared with the kernel has no safe form")]

use std::cell::Cell;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd as _};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use zerocopy::FromBytes;

/// An array map of records, mapped.
///
/// The kernel, its programs and the control side change the records at any
/// time. What can come of that is what the core allows for: it is written for
/// several CPUs that work on the same records, words are read and written
/// whole, and whatever else must not be torn is changed by [`add`] and
/// [`replace`].
pub(in crate::bpf) struct Mapped<T> {
    start: NonNull<u8>,
    count: u32,
    len: usize,
    records: PhantomData<T>,
}

// SAFETY: the mapping belongs to this value alone, whichever thread has it.
unsafe impl<T> Send for Mapped<T> {}

impl<T: FromBytes> Mapped<T> {
    /// Octets from one record to the next.
    const STRIDE: usize = size_of::<T>().next_multiple_of(8);

    /// Maps an array of `count` records, made to be mapped.
    pub(in crate::bpf) fn new(map: &impl AsFd, count: u32) -> io::Result<Self> {
        let len = Self::STRIDE * count as usize;
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let fd = map.as_fd().as_raw_fd();
        // SAFETY: a new mapping at a place of the kernel's choice touches no other memory.
        let start = unsafe { libc::mmap(ptr::null_mut(), len, access, libc::MAP_SHARED, fd, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { start, count, len, records: PhantomData })
    }

    /// The record at this place.
    pub(in crate::bpf) fn get(&self, place: u32) -> Option<&T> {
        if place >= self.count {
            return None;
        }
        // SAFETY: the place is within the mapping, by the test above.
        let record = unsafe { self.start.add(place as usize * Self::STRIDE) };
        // SAFETY: the mapping lives as long as `self`, begins on a page and its records on
        // multiples of eight (of their size, if they are aligned more), and octets of any
        // value make a record.
        Some(unsafe { record.cast::<T>().as_ref() })
    }
}

impl<T> Drop for Mapped<T> {
    fn drop(&mut self) {
        // SAFETY: the mapping was made with this length, and nobody can look at it any more.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
    }
}

/// Adds to a cell that others change too; returns the value after it.
pub(in crate::bpf) fn add(cell: &Cell<u32>, delta: u32) -> u32 {
    // SAFETY: the cell is an aligned word that lives during the call, and all who change it
    // at the same time do so by one instruction.
    let shared = unsafe { AtomicU32::from_ptr(cell.as_ptr()) };
    shared.fetch_add(delta, Ordering::SeqCst).wrapping_add(delta)
}

/// Replaces `old` by `new` if the cell still holds `old`.
pub(in crate::bpf) fn replace(cell: &Cell<u32>, old: u32, new: u32) -> bool {
    // SAFETY: as above.
    let shared = unsafe { AtomicU32::from_ptr(cell.as_ptr()) };
    shared.compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst).is_ok()
}

/// The same for 64 bits.
pub(in crate::bpf) fn replace64(cell: &Cell<u64>, old: u64, new: u64) -> bool {
    // SAFETY: as above.
    let shared = unsafe { AtomicU64::from_ptr(cell.as_ptr()) };
    shared.compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst).is_ok()
}
