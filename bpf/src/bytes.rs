//! Checked access to packet memory, and sums over it, for both program types.

use core::arch::asm;

use ipvs_wire::checksum::Sum;
use ipvs_wire::crc32c;

use crate::kernel;

/// Offsets beyond this are refused, which gives the verifier a bound.
const MAX_OFFSET: u32 = 0x7fff;

/// Octets between two pointers.
///
/// The verifier takes a difference of pointers in 64 bits only, and the
/// compiler would like to take it in 32: adding nothing hides it.
#[inline(always)]
pub(crate) fn distance(data: usize, end: usize) -> u32 {
    let mut distance = end - data;
    // SAFETY: the instruction changes nothing.
    unsafe { asm!("{0} += 0", inout(reg) distance) };
    distance as u32
}

/// The offset, if it is one that the verifier can be shown to have a bound.
///
/// The verifier of 6.1 forgets what a comparison said about a number of which
/// a copy lies on the stack: the mask says it again, where the number is used.
#[inline(always)]
fn bounded(at: u32) -> Option<usize> {
    if at > MAX_OFFSET {
        return None;
    }
    let mut at = at as usize;
    // SAFETY: the instruction changes nothing, the number has no other bits.
    unsafe { asm!("{0} &= 0x7fff", inout(reg) at) };
    Some(at)
}

/// Copies `N` octets at `at` of the packet between `data` and `end`.
#[inline(always)]
pub(crate) fn load<const N: usize>(data: usize, end: usize, at: u32) -> Option<[u8; N]> {
    let start = data + bounded(at)?;
    let mut stop = start + N;
    if N == 1 {
        // Or the compiler compares `start >= end`, from which the verifier learns nothing.
        // SAFETY: the instruction changes nothing.
        unsafe { asm!("{0} += 0", inout(reg) stop) };
    }
    if stop > end {
        return None;
    }
    // SAFETY: the octets lie between `data` and `end`, checked above.
    Some(unsafe { *(start as *const [u8; N]) })
}

/// Overwrites `N` octets at `at`.
#[inline(always)]
pub(crate) fn store<const N: usize>(
    data: usize,
    end: usize,
    at: u32,
    octets: [u8; N],
) -> Option<()> {
    let start = data + bounded(at)?;
    let mut stop = start + N;
    if N == 1 {
        // As in `load`.
        // SAFETY: the instruction changes nothing.
        unsafe { asm!("{0} += 0", inout(reg) stop) };
    }
    if stop > end {
        return None;
    }
    // SAFETY: the octets lie between `data` and `end`, checked above.
    unsafe { *(start as *mut [u8; N]) = octets };
    Some(())
}

/// Copies `N` words at `at`.
#[inline(always)]
pub(crate) fn load_words<const N: usize>(data: usize, end: usize, at: u32) -> Option<[u32; N]> {
    let start = data + bounded(at)?;
    if start + N * 4 > end {
        return None;
    }
    // SAFETY: the octets lie between `data` and `end`, checked above.
    Some(unsafe { (start as *const [u32; N]).read_unaligned() })
}

/// Overwrites `N` words at `at`.
#[inline(always)]
pub(crate) fn store_words<const N: usize>(
    data: usize,
    end: usize,
    at: u32,
    words: [u32; N],
) -> Option<()> {
    let start = data + bounded(at)?;
    if start + N * 4 > end {
        return None;
    }
    // SAFETY: the octets lie between `data` and `end`, checked above.
    unsafe { (start as *mut [u32; N]).write_unaligned(words) };
    Some(())
}

/// What [`sum`] and [`crc32c`] read with: copies of octets at an offset.
pub(crate) trait Read {
    fn read<const N: usize>(&self, at: u32) -> Option<[u8; N]>;
}

/// See [`ipvs_wire::Buffer::sum`].
#[inline(always)]
pub(crate) fn sum<R: Read>(source: &R, at: u32, count: u32) -> Option<u16> {
    const CHUNK: u32 = 16;
    let mut sum = Sum::ZERO;
    let mut complete = true;
    kernel::repeat(count / CHUNK, |turn| {
        match source.read::<16>(at + turn * CHUNK) {
            Some(o) => {
                sum = sum
                    .add32(u32::from_ne_bytes([o[0], o[1], o[2], o[3]]))
                    .add32(u32::from_ne_bytes([o[4], o[5], o[6], o[7]]))
                    .add32(u32::from_ne_bytes([o[8], o[9], o[10], o[11]]))
                    .add32(u32::from_ne_bytes([o[12], o[13], o[14], o[15]]));
            }
            None => complete = false,
        }
        complete
    });
    let done = count / CHUNK * CHUNK;
    kernel::repeat((count - done) / 2, |turn| {
        match source.read::<2>(at + done + turn * 2) {
            Some(word) => sum = sum.add16(u16::from_ne_bytes(word)),
            None => complete = false,
        }
        complete
    });
    if count % 2 != 0 {
        let [last] = source.read::<1>(at + count - 1)?;
        sum = sum.add16(u16::from_ne_bytes([last, 0]));
    }
    complete.then(|| sum.fold())
}

/// See [`ipvs_wire::Buffer::crc32c`].
#[inline(always)]
pub(crate) fn crc32c<R: Read>(source: &R, at: u32, count: u32, zeroed: u32) -> Option<u32> {
    let mut state = crc32c::START;
    let mut complete = true;
    kernel::repeat(count, |turn| {
        match source.read::<1>(at + turn) {
            Some([octet]) => {
                let hidden = (at + turn).wrapping_sub(zeroed) < 4;
                state = crc32c::step(state, if hidden { 0 } else { octet });
            }
            None => complete = false,
        }
        complete
    });
    complete.then(|| crc32c::finish(state))
}
