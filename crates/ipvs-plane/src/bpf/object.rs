//! The eBPF object of this build: loading it, pinning what it made, and
//! finding that again.

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use aya::maps::{MapData, ProgramArray};
use aya::programs::{Program, ProgramError, SchedClassifier, Xdp};
use aya::{Ebpf, EbpfLoader};
use aya_obj::programs::XdpAttachType;

use ipvs_core::verdict::Stage;

use super::StartError;
use crate::store::Limits;

/// The programs, built by `cargo xtask bpf`.
static OBJECT: &[u8] = aya::include_bytes_aligned!("ipvs.bpf.o");

/// `f_type` of a BPF file system.
const BPF_FS_MAGIC: i64 = 0xcafe_4a11;

/// The maps that are kept.
pub(super) const MAPS: &[&str] = &[
    "IPVS_SETTINGS",
    "IPVS_SERVICES",
    "IPVS_SCHED",
    "IPVS_MEMBERS",
    "IPVS_SLOTS",
    "IPVS_MARKS",
    "IPVS_CACHES",
    "IPVS_CACHED",
    "IPVS_DESTS",
    "IPVS_LOADS",
    "IPVS_COUNTERS",
    "IPVS_HOPS",
    "IPVS_ROUTE_MTUS",
    "IPVS_PATH_MTUS",
    "IPVS_ADDRS",
    "IPVS_INDEX",
    "IPVS_NEAR",
    "IPVS_CONNS",
    "IPVS_FREE",
    "IPVS_USED",
    "IPVS_ENGINE_DATA",
    "IPVS_CALLERS",
    "IPVS_EXPECTED",
    "IPVS_DEFENCE",
    "IPVS_REASONS",
    "IPVS_SLOW",
    "IPVS_SLOW_COUNTERS",
    "IPVS_SLOW_REASONS",
    "IPVS_SWEEPER",
    "IPVS_DEST_ACCOUNTS",
    "IPVS_SERVICE_ACCOUNTS",
    "IPVS_TOTAL_ACCOUNT",
    TC_PROGRAMS,
    XDP_PROGRAMS,
];

/// The TC program.
pub(super) const TC: &str = "ipvs_tc";
/// The TC program for what the host sends.
pub(super) const EGRESS: &str = "ipvs_egress";
/// The TC programs for packets that pass the host's firewall: for those that come
/// in, for those that are routed to the door, and for those that leave the host.
pub(super) const TC_ARRIVING: &str = "ipvs_tc_arriving";
pub(super) const TC_ROUTED: &str = "ipvs_tc_routed";
pub(super) const TC_LEAVING: &str = "ipvs_tc_leaving";
/// The XDP program.
pub(super) const XDP: &str = "ipvs_xdp";
/// The arrays of programs by which packets go on. They are pinned because the
/// kernel empties one that nothing outside it refers to.
const TC_PROGRAMS: &str = "IPVS_TC_PROGRAMS";
const XDP_PROGRAMS: &str = "IPVS_XDP_PROGRAMS";
/// The place behind the stages of the TC program, for the two above to go on by.
#[expect(clippy::cast_possible_truncation, reason = "there are a few")]
const BEGIN: u32 = Stage::ALL.len() as u32;
/// The TC and the XDP program of a stage.
const fn programs_of(stage: Stage) -> [Option<&'static str>; 2] {
    match stage {
        Stage::Icmp => [Some("ipvs_tc_icmp"), Some("ipvs_xdp_icmp")],
        Stage::Admission => [Some("ipvs_tc_admission"), Some("ipvs_xdp_admission")],
        Stage::Forwarding => [Some("ipvs_tc_forwarding"), Some("ipvs_xdp_forwarding")],
        Stage::Refusal => [Some("ipvs_tc_refusal"), Some("ipvs_xdp_refusal")],
        // XDP leaves it to TC.
        Stage::Tunnelled => [Some("ipvs_tc_tunnelled"), None],
    }
}
/// The program that runs errands.
pub(super) const CONTROL: &str = "ipvs_control";

/// The directory in which everything is pinned.
#[derive(Clone, Debug)]
pub struct Pins {
    directory: PathBuf,
}

/// Maps by name, and the program that runs errands.
#[derive(Debug)]
pub struct Maps {
    pub(super) by_name: std::collections::HashMap<&'static str, MapData>,
    pub(super) control: Xdp,
    pub(super) directory: PathBuf,
}

impl Pins {
    /// The pins in `directory`, which is made, and a BPF file system mounted
    /// on it, if needed.
    pub fn at(directory: &Path) -> Result<Self, StartError> {
        let path = |source| StartError::Path { path: directory.to_owned(), source };
        let existing =
            directory.ancestors().find(|path| path.exists()).unwrap_or_else(|| Path::new("/"));
        let on_bpf_fs = is_bpf_fs(existing).map_err(path)?;
        std::fs::create_dir_all(directory).map_err(path)?;
        if !on_bpf_fs {
            mount_bpf_fs(directory)?;
        }
        Ok(Self { directory: directory.to_owned() })
    }

    /// The directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    pub(super) fn map(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    pub(super) fn link(&self, interface: &str, mode: &str) -> PathBuf {
        // A dot is the one character that a BPF file system refuses.
        self.directory.join(format!("link-{mode}-{}", interface.replace('.', "%2e")))
    }

    /// Pinned links: interface, mode and path.
    pub(super) fn links(&self) -> Vec<(String, String, PathBuf)> {
        let Ok(entries) = std::fs::read_dir(&self.directory) else { return Vec::new() };
        let split = |path: PathBuf| {
            let name = path.file_name()?.to_str()?.strip_prefix("link-")?.to_owned();
            let (mode, interface) = name.split_once('-')?;
            Some((interface.replace("%2e", "."), mode.to_owned(), path))
        };
        entries.filter_map(|entry| split(entry.ok()?.path())).collect()
    }

    /// Whether a plane is pinned here.
    pub fn are_there(&self) -> bool {
        self.map(CONTROL).exists()
    }

    /// Loads the programs, makes the maps and pins both.
    pub(super) fn load(&self, limits: &Limits) -> Result<Maps, StartError> {
        let loaded = self.load_and_pin(limits);
        if loaded.is_err() {
            // What was pinned before the failure must not be found as a whole.
            if let Err(error) = self.remove() {
                tracing::warn!(%error, "what was pinned before the failure is left");
            }
        }
        loaded
    }

    fn load_and_pin(&self, limits: &Limits) -> Result<Maps, StartError> {
        let near_buckets = limits.near_buckets();
        let mut loader = EbpfLoader::new();
        for (name, size) in [
            ("IPVS_SERVICES", limits.services),
            ("IPVS_SCHED", limits.services),
            ("IPVS_SERVICE_ACCOUNTS", limits.services),
            ("IPVS_MEMBERS", limits.members),
            ("IPVS_SLOTS", limits.blocks),
            ("IPVS_CACHES", limits.caches()),
            ("IPVS_CACHED", limits.cached),
            ("IPVS_DESTS", limits.dests),
            // Each service and each destination may have one of its own.
            ("IPVS_ADDRS", limits.services.saturating_add(limits.dests)),
            ("IPVS_LOADS", limits.dests),
            ("IPVS_COUNTERS", limits.dests),
            ("IPVS_HOPS", limits.dests),
            ("IPVS_SLOW_COUNTERS", limits.dests),
            ("IPVS_DEST_ACCOUNTS", limits.dests),
            ("IPVS_CALLERS", limits.dests),
            ("IPVS_CONNS", limits.conns),
            ("IPVS_ENGINE_DATA", limits.conns),
            ("IPVS_FREE", limits.conns),
            // A masqueraded connection stands under two keys.
            ("IPVS_INDEX", limits.conns.saturating_mul(2)),
            ("IPVS_NEAR", near_buckets),
        ] {
            loader.map_max_entries(name, size);
        }
        loader.override_global("IPVS_NEAR_BUCKETS", &near_buckets, true);
        let mut object = loader.load(OBJECT).map_err(load_error)?;
        for name in [TC, EGRESS, TC_ARRIVING, TC_ROUTED, TC_LEAVING, XDP, CONTROL] {
            load_program(&mut object, name)?;
        }
        go_on_by(&mut object, TC_PROGRAMS, BEGIN, TC)?;
        for stage in Stage::ALL {
            for (array, name) in [TC_PROGRAMS, XDP_PROGRAMS].into_iter().zip(programs_of(stage)) {
                let Some(name) = name else { continue };
                load_program(&mut object, name)?;
                go_on_by(&mut object, array, stage as u32, name)?;
            }
        }
        let mut maps = std::collections::HashMap::new();
        for name in MAPS {
            let map =
                object.take_map(name).ok_or_else(|| self.pin_error(name, &"not in the object"))?;
            let data = into_data(map);
            data.pin(self.map(name)).map_err(|error| self.pin_error(name, &error))?;
            maps.insert(*name, data);
        }
        for name in [TC, EGRESS, TC_ARRIVING, TC_ROUTED, TC_LEAVING, XDP, CONTROL] {
            let program = object
                .program_mut(name)
                .ok_or_else(|| self.pin_error(name, &"not in the object"))?;
            program.pin(self.map(name)).map_err(|error| self.pin_error(name, &error))?;
        }
        let control = Xdp::from_pin(self.map(CONTROL), XdpAttachType::Interface)
            .map_err(|error| self.pin_error(CONTROL, &error))?;
        Ok(Maps { by_name: maps, control, directory: self.directory.clone() })
    }

    /// Opens what is pinned.
    pub(super) fn open(&self) -> Result<Maps, StartError> {
        let mut maps = std::collections::HashMap::new();
        for name in MAPS {
            let data = MapData::from_pin(self.map(name)).map_err(|error| {
                StartError::OtherVersion { path: self.map(name), reason: error.to_string() }
            })?;
            maps.insert(*name, data);
        }
        let control = Xdp::from_pin(self.map(CONTROL), XdpAttachType::Interface)
            .map_err(|error| self.pin_error(CONTROL, &error))?;
        Ok(Maps { by_name: maps, control, directory: self.directory.clone() })
    }

    /// The TC program of this name.
    pub(super) fn tc(&self, name: &'static str) -> Result<SchedClassifier, StartError> {
        SchedClassifier::from_pin(self.map(name)).map_err(|error| self.pin_error(name, &error))
    }

    pub(super) fn xdp(&self) -> Result<Xdp, StartError> {
        Xdp::from_pin(self.map(XDP), XdpAttachType::Interface)
            .map_err(|error| self.pin_error(XDP, &error))
    }

    /// Removes every pin: what nothing else holds detaches and is gone.
    pub fn remove(&self) -> Result<(), StartError> {
        let failed = |path: &Path, source| StartError::Path { path: path.to_owned(), source };
        let entries =
            std::fs::read_dir(&self.directory).map_err(|error| failed(&self.directory, error))?;
        // Links first, so that no packet meets half of the rest.
        let mut paths: Vec<PathBuf> = entries.filter_map(|e| Some(e.ok()?.path())).collect();
        // Of the kernel, at the root of a BPF file system; nobody can remove them.
        paths.retain(|path| path.extension().is_none_or(|extension| extension != "debug"));
        paths.sort_by_key(|path| {
            !path.file_name().is_some_and(|name| name.as_bytes().starts_with(b"link-"))
        });
        for path in paths {
            std::fs::remove_file(&path).map_err(|error| failed(&path, error))?;
        }
        match std::fs::remove_dir(&self.directory) {
            // The file system was mounted for the pins.
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                rustix::mount::unmount(&self.directory, rustix::mount::UnmountFlags::empty())
                    .map_err(|error| failed(&self.directory, error.into()))?;
                std::fs::remove_dir(&self.directory)
            }
            removed => removed,
        }
        .map_err(|error| failed(&self.directory, error))
    }

    fn pin_error(&self, name: &str, reason: &dyn ToString) -> StartError {
        StartError::Pin { path: self.map(name), reason: reason.to_string() }
    }
}

fn load_error(error: aya::EbpfError) -> StartError {
    let mut cause: Option<&dyn std::error::Error> = Some(&error);
    while let Some(at) = cause {
        if at.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error) == Some(libc::EPERM) {
            return StartError::NotPermitted { what: "making eBPF maps" };
        }
        cause = at.source();
    }
    StartError::Load(Box::new(error))
}

fn load_program(object: &mut Ebpf, name: &'static str) -> Result<(), StartError> {
    let program = object
        .program_mut(name)
        .ok_or_else(|| StartError::program(name, ProgramError::UnexpectedProgramType))?;
    let loaded = match program {
        Program::Xdp(program) => program.load(),
        Program::SchedClassifier(program) => program.load(),
        _ => Err(ProgramError::UnexpectedProgramType),
    };
    loaded.map_err(|error| StartError::program(name, error))
}

/// Makes the program one that the others go on by.
fn go_on_by(
    object: &mut Ebpf,
    array: &'static str,
    place: u32,
    name: &'static str,
) -> Result<(), StartError> {
    let failed = |error| StartError::program(name, error);
    let program = match object.program(name) {
        Some(Program::Xdp(program)) => program.fd(),
        Some(Program::SchedClassifier(program)) => program.fd(),
        _ => Err(ProgramError::UnexpectedProgramType),
    };
    let program = program.and_then(|program| Ok(program.try_clone()?)).map_err(failed)?;
    let map = object.map_mut(array).ok_or_else(|| failed(ProgramError::UnexpectedProgramType))?;
    let mut programs = ProgramArray::try_from(map).map_err(|error| failed(error.into()))?;
    programs.set(place, &program, 0).map_err(|error| failed(error.into()))
}

fn into_data(map: aya::maps::Map) -> MapData {
    use aya::maps::Map;
    match map {
        Map::Array(data)
        | Map::HashMap(data)
        | Map::LruHashMap(data)
        | Map::PerCpuArray(data)
        | Map::Queue(data)
        | Map::RingBuf(data)
        | Map::ProgramArray(data)
        | Map::LpmTrie(data)
        | Map::Unsupported(data) => data,
        other => unreachable_map(&other),
    }
}

/// The object of this build has no map of another type.
#[expect(clippy::panic, reason = "a mistake of the build, not of the user")]
fn unreachable_map(map: &aya::maps::Map) -> MapData {
    panic!("the eBPF object has a map of a type that is not expected: {map:?}")
}

fn is_bpf_fs(path: &Path) -> io::Result<bool> {
    rustix::fs::statfs(path).map(|stat| stat.f_type == BPF_FS_MAGIC).map_err(io::Error::from)
}

fn mount_bpf_fs(path: &Path) -> Result<(), StartError> {
    let failed = |source| StartError::Mount { path: path.to_owned(), source };
    let options = CString::new("mode=0700").map_err(|error| failed(io::Error::other(error)))?;
    let flags = rustix::mount::MountFlags::NOSUID
        | rustix::mount::MountFlags::NODEV
        | rustix::mount::MountFlags::NOEXEC;
    rustix::mount::mount("bpf", path, "bpf", flags, Some(options.as_c_str()))
        .map_err(|error| failed(error.into()))
}
