//! Kernel helpers as the rest wants them: loops, atomics, time.

use core::cell::Cell;
use core::ffi::c_void;
use core::intrinsics::{AtomicOrdering, atomic_cxchg, atomic_xadd};

use aya_ebpf::helpers::generated as helpers;
use ipvs_core::settings::Settings;
use ipvs_core::time::Instant;

/// Turns of one `bpf_loop`, at most (`BPF_MAX_LOOPS`).
const MAX_LOOPS: u32 = 1 << 23;

/// Calls `step` with 0, 1, … until it returns false or `count` is reached.
#[inline(always)]
pub(crate) fn repeat<F: FnMut(u32) -> bool>(count: u32, mut step: F) {
    let callback: unsafe extern "C" fn(u32, *mut c_void) -> i64 = turn::<F>;
    let count = if count > MAX_LOOPS { MAX_LOOPS } else { count };
    // SAFETY: the callback gets back the closure that outlives the call.
    unsafe {
        helpers::bpf_loop(count, callback as *mut c_void, (&raw mut step).cast(), 0);
    }
}

/// One turn: 0 goes on, 1 stops.
///
/// The closure comes as a void pointer: its type would bring forward
/// declarations into the BTF, whose order is not stable.
unsafe extern "C" fn turn<F: FnMut(u32) -> bool>(index: u32, step: *mut c_void) -> i64 {
    // SAFETY: `repeat` passes its closure, and nobody else holds it meanwhile.
    let step = unsafe { &mut *step.cast::<F>() };
    if step(index) { 0 } else { 1 }
}

/// Calls `step` for the elements of a hash map until it returns false. The
/// types must be those of the map.
#[inline(always)]
pub(crate) fn each<K, V, F: FnMut(&K, &V) -> bool>(map: *mut c_void, mut step: F) {
    let callback: unsafe extern "C" fn(*mut c_void, *mut c_void, *mut c_void, *mut c_void) -> i64 =
        element::<K, V, F>;
    // SAFETY: the callback gets back the closure that outlives the call.
    unsafe {
        helpers::bpf_for_each_map_elem(map, callback as *mut c_void, (&raw mut step).cast(), 0);
    }
}

/// One element: 0 goes on, 1 stops.
unsafe extern "C" fn element<K, V, F: FnMut(&K, &V) -> bool>(
    _map: *mut c_void,
    key: *mut c_void,
    value: *mut c_void,
    step: *mut c_void,
) -> i64 {
    // SAFETY: `each` passes its closure, the kernel an element of the map.
    let (step, key, value) =
        unsafe { (&mut *step.cast::<F>(), &*key.cast::<K>(), &*value.cast::<V>()) };
    if step(key, value) { 0 } else { 1 }
}

/// Adds to a cell that other CPUs change too; returns the value after it.
#[inline(always)]
pub(crate) fn add(cell: &Cell<u32>, delta: u32) -> u32 {
    // SAFETY: the cell is an aligned word of a map value.
    let old = unsafe { atomic_xadd::<u32, u32, { AtomicOrdering::SeqCst }>(cell.as_ptr(), delta) };
    old.wrapping_add(delta)
}

/// Replaces `old` by `new` if the cell still holds `old`.
#[inline(always)]
pub(crate) fn replace(cell: &Cell<u32>, old: u32, new: u32) -> bool {
    // SAFETY: the cell is an aligned word of a map value.
    unsafe {
        atomic_cxchg::<u32, { AtomicOrdering::SeqCst }, { AtomicOrdering::SeqCst }>(
            cell.as_ptr(),
            old,
            new,
        )
        .1
    }
}

/// The same for 64 bits.
#[inline(always)]
pub(crate) fn replace64(cell: &Cell<u64>, old: u64, new: u64) -> bool {
    // SAFETY: the cell is an aligned word of a map value.
    unsafe {
        atomic_cxchg::<u64, { AtomicOrdering::SeqCst }, { AtomicOrdering::SeqCst }>(
            cell.as_ptr(),
            old,
            new,
        )
        .1
    }
}

/// The plane's clock: monotonic to a jiffy, which costs a fraction of the
/// exact clock, and moved by the settings.
#[inline(always)]
pub(crate) fn now(settings: &Settings) -> Instant {
    // SAFETY: the helper has no precondition.
    let nanos = unsafe { helpers::bpf_ktime_get_coarse_ns() };
    Instant::from_nanos(nanos.wrapping_add(settings.clock_offset()))
}
