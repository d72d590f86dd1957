//! The maps. Sizes are defaults; the loader sets those of this host.

use core::ffi::c_void;

use aya_ebpf::bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC, bpf_timer};
use aya_ebpf::btf_maps::{
    Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, ProgramArray, Queue, RingBuf,
};
use aya_ebpf::helpers::generated as helpers;
use aya_ebpf::macros::btf_map;
use ipvs_core::addr::AddrKey;
use ipvs_core::conn::{Conn, Tuple};
use ipvs_core::defence::Defence;
use ipvs_core::dest::{Dest, Load};
use ipvs_core::director::Scratch;
use ipvs_core::engine::{Caller, CallerKey, Data};
use ipvs_core::hop::{CachedHop, MtuKey, PathMtu};
use ipvs_core::mark::{self, MarkRule};
use ipvs_core::near::Bucket;
use ipvs_core::sched::cache::{Cache, CacheKey, Cached};
use ipvs_core::sched::table::BLOCK;
use ipvs_core::service::{Service, ServiceKey};
use ipvs_core::settings::Settings;
use ipvs_core::stats::LiveCounters;
use ipvs_core::verdict::Stage;

use crate::fib::Params;
use crate::skb::Neighbour;

/// An element that an update replaces by a new one stays readable for packets
/// that look at it only if elements are not preallocated.
const COPIED: usize = BPF_F_NO_PREALLOC as usize;

/// The slow path in the daemon works on these arrays too, mapped into its
/// memory. Elements of one that may be mapped begin on a page, and so those of
/// 64 octets, or a multiple, on a cache line.
const ALIGNED: usize = BPF_F_MMAPABLE as usize;

/// A record with cells, which several CPUs work on.
#[repr(transparent)]
pub(crate) struct Shared<T>(pub(crate) T);

// SAFETY: what races on the cells can do is what the core allows for.
unsafe impl<T> Sync for Shared<T> {}

/// The timer of the sweep, and how far it is.
#[repr(C)]
pub(crate) struct Sweeper {
    pub(crate) timer: bpf_timer,
    pub(crate) next: u32,
    pub(crate) reserved: u32,
}

// SAFETY: the kernel guards the timer; the place is written by its callback alone.
unsafe impl Sync for Sweeper {}

#[btf_map]
pub(crate) static IPVS_SETTINGS: Array<Settings, 1, ALIGNED> = Array::new();
#[btf_map]
pub(crate) static IPVS_SERVICES: HashMap<ServiceKey, Service, 16384, COPIED> = HashMap::new();
#[btf_map]
pub(crate) static IPVS_SCHED: Array<Shared<core::cell::Cell<u64>>, 16384, ALIGNED> = Array::new();
#[btf_map]
pub(crate) static IPVS_MEMBERS: Array<u32, 262_144, ALIGNED> = Array::new();
/// Blocks of the schedulers' hash tables.
#[btf_map]
pub(crate) static IPVS_SLOTS: HashMap<u32, [u32; BLOCK as usize], 65536, COPIED> = HashMap::new();
/// Mark rules; an edit writes the new list beside the old one.
#[btf_map]
pub(crate) static IPVS_MARKS: Array<MarkRule, { mark::PLACES as usize }, ALIGNED> = Array::new();
/// Caches of lblc and lblcr: what there is of one besides its entries.
#[btf_map]
pub(crate) static IPVS_CACHES: Array<Shared<Cache>, 4096, ALIGNED> = Array::new();
/// The entries of all caches.
#[btf_map]
pub(crate) static IPVS_CACHED: HashMap<CacheKey, Shared<Cached>, 65536, COPIED> = HashMap::new();
#[btf_map]
pub(crate) static IPVS_DESTS: Array<Dest, 131_072, ALIGNED> = Array::new();
#[btf_map]
pub(crate) static IPVS_LOADS: Array<Shared<Load>, 131_072, ALIGNED> = Array::new();
#[btf_map]
pub(crate) static IPVS_COUNTERS: PerCpuArray<Shared<LiveCounters>, 131_072> = PerCpuArray::new();
#[btf_map]
pub(crate) static IPVS_HOPS: Array<Shared<CachedHop>, 131_072, ALIGNED> = Array::new();
/// What routes say of the MTU, by family and prefix, as the daemon has found it.
#[btf_map]
pub(crate) static IPVS_ROUTE_MTUS: LpmTrie<MtuKey, u32, 16384> = LpmTrie::new();
/// What errors from inside tunnels have said of paths.
#[btf_map]
pub(crate) static IPVS_PATH_MTUS: LruHashMap<AddrKey, PathMtu, 16384> = LruHashMap::new();
#[btf_map]
pub(crate) static IPVS_ADDRS: HashMap<AddrKey, u32, 147_456, COPIED> = HashMap::new();
#[btf_map]
pub(crate) static IPVS_INDEX: HashMap<Tuple, u32, 524_288, COPIED> = HashMap::new();
#[btf_map]
pub(crate) static IPVS_NEAR: Array<Shared<Bucket>, 131_072, ALIGNED> = Array::new();
#[btf_map]
pub(crate) static IPVS_CONNS: Array<Shared<Conn>, 262_144, ALIGNED> = Array::new();
#[btf_map]
pub(crate) static IPVS_DEFENCE: Array<Shared<Defence>, 1, ALIGNED> = Array::new();
/// Places of ended connections, first in, first out: so a place rests before
/// it is used again.
#[btf_map]
pub(crate) static IPVS_FREE: Queue<u32, 262_144> = Queue::new();
/// How many places of `IPVS_CONNS` were ever used.
#[btf_map]
pub(crate) static IPVS_USED: Array<Shared<core::cell::Cell<u32>>, 1, ALIGNED> = Array::new();
/// What persistence engines keep of their templates.
#[btf_map]
pub(crate) static IPVS_ENGINE_DATA: HashMap<u32, Data, 262_144, COPIED> = HashMap::new();
/// Destinations that send by themselves.
#[btf_map]
pub(crate) static IPVS_CALLERS: HashMap<CallerKey, Caller, 131_072, COPIED> = HashMap::new();
/// How many connections wait for their first packet to say the client's port.
#[btf_map]
pub(crate) static IPVS_EXPECTED: Array<Shared<core::cell::Cell<u32>>, 1, ALIGNED> = Array::new();
#[btf_map]
pub(crate) static IPVS_REASONS: PerCpuArray<u64, 64> = PerCpuArray::new();
/// Packets on their way to the slow path.
#[btf_map]
pub(crate) static IPVS_SLOW: RingBuf<u8, 4_194_304> = RingBuf::new();
/// What the slow path counts: it belongs to no CPU.
#[btf_map]
static IPVS_SLOW_COUNTERS: Array<Shared<LiveCounters>, 131_072, ALIGNED> = Array::new();
#[btf_map]
static IPVS_SLOW_REASONS: Array<u64, 64, ALIGNED> = Array::new();
#[btf_map]
pub(crate) static IPVS_SWEEPER: Array<Sweeper, 1> = Array::new();
/// Room for the packet that this CPU works on.
#[btf_map]
static IPVS_SCRATCH: PerCpuArray<Scratch, 1> = PerCpuArray::new();
/// Room for the sweep's keys: apart, since a sweep may interrupt a packet.
#[btf_map]
pub(crate) static IPVS_SWEEP_KEY: PerCpuArray<Tuple, 1> = PerCpuArray::new();
/// Room for route lookups.
#[btf_map]
pub(crate) static IPVS_FIB: PerCpuArray<Params, 1> = PerCpuArray::new();

/// Room for the neighbour that a packet waits for.
#[btf_map]
pub(crate) static IPVS_NEIGHBOUR: PerCpuArray<Neighbour, 1> = PerCpuArray::new();

/// The room for the packet that this CPU works on.
#[inline(always)]
pub(crate) fn scratch() -> Option<&'static mut Scratch> {
    // SAFETY: the element is this CPU's own, and packets do not interrupt each other.
    IPVS_SCRATCH.get_ptr_mut(0).map(|scratch| unsafe { &mut *scratch })
}

/// The place behind the stages of the program that packets begin with.
const BEGIN: usize = Stage::ALL.len();

/// The programs of the stages, each at its [`Stage`]'s number.
#[btf_map]
static IPVS_TC_PROGRAMS: ProgramArray<{ BEGIN + 1 }> = ProgramArray::new();
#[btf_map]
static IPVS_XDP_PROGRAMS: ProgramArray<{ Stage::ALL.len() }> = ProgramArray::new();

/// Goes on with the TC program of the stage; returns only if it is not there.
#[inline(always)]
pub(crate) fn go_on_by_tc(ctx: *mut c_void, stage: Stage) {
    let programs = (&raw const IPVS_TC_PROGRAMS).cast_mut().cast();
    // SAFETY: the context is this program's, the array one of TC programs.
    unsafe { helpers::bpf_tail_call(ctx, programs, stage as u32) };
}

/// Begins with the TC program, from one that has prepared the packet; returns only
/// if it is not there.
#[inline(always)]
pub(crate) fn begin_by_tc(ctx: *mut c_void) {
    let programs = (&raw const IPVS_TC_PROGRAMS).cast_mut().cast();
    // SAFETY: the context is this program's, the array one of TC programs.
    unsafe { helpers::bpf_tail_call(ctx, programs, BEGIN as u32) };
}

/// Goes on with the XDP program of the stage; returns only if it is not there.
#[inline(always)]
pub(crate) fn go_on_by_xdp(ctx: *mut c_void, stage: Stage) {
    let programs = (&raw const IPVS_XDP_PROGRAMS).cast_mut().cast();
    // SAFETY: the context is this program's, the array one of XDP programs.
    unsafe { helpers::bpf_tail_call(ctx, programs, stage as u32) };
}

/// Accounts of destinations and services (`ipvs_plane::store::Account`): the
/// control side's alone, kept here so that they outlive it.
#[btf_map]
pub(crate) static IPVS_DEST_ACCOUNTS: Array<[u64; 15], 131_072> = Array::new();
#[btf_map]
pub(crate) static IPVS_SERVICE_ACCOUNTS: Array<[u64; 15], 16384> = Array::new();
/// The same of everything together.
#[btf_map]
pub(crate) static IPVS_TOTAL_ACCOUNT: Array<[u64; 15], 1> = Array::new();

/// How many buckets `IPVS_NEAR` has; set by the loader.
#[unsafe(no_mangle)]
static IPVS_NEAR_BUCKETS: u32 = 131_072;

/// How many buckets `IPVS_NEAR` has.
#[inline(always)]
pub(crate) fn near_buckets() -> u32 {
    // SAFETY: a static. Volatile, because the loader sets another value than the compiler sees.
    unsafe { (&raw const IPVS_NEAR_BUCKETS).read_volatile() }
}
