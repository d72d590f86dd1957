//! The sweep: a timer that ends connections inside the kernel, daemon or no
//! daemon, and the program through which the control side has errands run.

use core::ffi::c_void;
use core::ptr;

use aya_ebpf::bindings::{bpf_timer, xdp_action, xdp_md};
use aya_ebpf::helpers::generated as helpers;
use ipvs_core::conn::{ConnId, Tuple};
use ipvs_core::errand::Errand;
use ipvs_core::sched::cache;
use ipvs_core::time::Instant;
use ipvs_core::{defence, expiry};

use crate::{bytes, kernel};
use ipvs_wire::ethernet;

use crate::maps::{self, Sweeper};
use crate::tables::{self, Maps};

/// Between two turns of the timer.
const PERIOD_NS: u64 = 50_000_000;
/// Turns in which the whole table is swept once: a second.
const TURNS: u32 = 20;
const CLOCK_MONOTONIC: u64 = 1;

/// Runs an errand of the control side, which calls this by test run with the
/// errand's words behind an Ethernet header.
#[unsafe(no_mangle)]
#[unsafe(link_section = "xdp")]
extern "C" fn ipvs_control(ctx: *mut xdp_md) -> u32 {
    // SAFETY: the context is this program's.
    let (data, end) = unsafe { ((*ctx).data as usize, (*ctx).data_end as usize) };
    let Some(words) = bytes::load_words(data, end, ethernet::HEADER_LEN) else {
        return xdp_action::XDP_ABORTED;
    };
    match Errand::from_words(words) {
        Errand::Sweep => {
            drop_entries(used());
            sweep(0, used());
            tend();
            start();
        }
        Errand::OpenCache { cache: place, scheduler } => {
            with_tables(|maps, _, now| cache::open(maps, place, scheduler, now));
        }
        Errand::CloseCache { cache: place } => with_tables(|maps, _, _| cache::close(maps, place)),
        Errand::MarkOverload { dest, overloaded } => {
            if let Some(load) = maps::IPVS_LOADS.get(dest) {
                load.0.overloaded.set(u32::from(overloaded));
            }
        }
        Errand::End { conn } => {
            if let Some(conn) = maps::IPVS_CONNS.get(conn) {
                conn.0.expires.set(0);
            }
            sweep(conn, 1);
        }
    }
    xdp_action::XDP_PASS
}

#[inline(always)]
fn start() {
    let Some(sweeper) = maps::IPVS_SWEEPER.get_ptr_mut(0) else { return };
    let map = (&raw const maps::IPVS_SWEEPER).cast_mut().cast::<c_void>();
    // SAFETY: the element is there, and the kernel guards the timer in it. A
    // timer that is there already keeps running.
    unsafe {
        let timer = &raw mut (*sweeper).timer;
        helpers::bpf_timer_init(timer, map, CLOCK_MONOTONIC);
        let callback: unsafe extern "C" fn(*mut c_void, *mut u32, *mut Sweeper) -> i32 = turn;
        helpers::bpf_timer_set_callback(timer, callback as *mut c_void);
        helpers::bpf_timer_start(timer, PERIOD_NS, 0);
    }
}

/// One turn of the timer: a share of the table, and the timer set again.
unsafe extern "C" fn turn(_map: *mut c_void, _key: *mut u32, sweeper: *mut Sweeper) -> i32 {
    // SAFETY: the kernel passes the element that holds the timer.
    let sweeper = unsafe { &mut *sweeper };
    let used = used();
    drop_entries(used);
    let first = if sweeper.next < used { sweeper.next } else { 0 };
    let share = used / TURNS + 1;
    sweep(first, share);
    tend();
    sweeper.next = first.wrapping_add(share);
    let timer: *mut bpf_timer = &raw mut sweeper.timer;
    // SAFETY: as above.
    unsafe { helpers::bpf_timer_start(timer, PERIOD_NS, 0) };
    0
}

#[inline(always)]
fn used() -> u32 {
    maps::IPVS_USED.get(0).map_or(0, |used| used.0.get())
}

/// Looks after the caches of lblc and lblcr.
#[inline(always)]
fn tend() {
    with_tables(|maps, _, now| cache::tend(maps, now));
}

#[inline(always)]
fn sweep(first: ConnId, count: u32) {
    with_tables(|maps, key, now| expiry::sweep(maps, key, first, count, now));
}

/// Defence by `drop_entry`, once a second.
#[inline(always)]
fn drop_entries(used: u32) {
    with_tables(|maps, key, now| defence::drop_entries(maps, key, used, now));
}

/// Calls `work` with the tables, room for keys, and now.
#[inline(always)]
fn with_tables(work: impl FnOnce(&Maps<false>, &mut Tuple, Instant)) {
    let Some(settings) = tables::settings() else { return };
    let maps = Maps::<false> { ctx: ptr::null_mut(), ifindex: 0, settings };
    let Some(key) = maps::IPVS_SWEEP_KEY.get_ptr_mut(0) else { return };
    // SAFETY: the element is this CPU's own, and sweeps do not nest.
    let key = unsafe { &mut *key };
    work(&maps, key, kernel::now(settings));
}
