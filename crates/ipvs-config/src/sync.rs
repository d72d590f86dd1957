//! Sync daemons in the file, and beside those that run.

use std::net::IpAddr;

use ipvs_core::sync::{SyncDaemon, SyncState};
use toml::Spanned;

use crate::file;
use crate::read::{Read, wrong};
use crate::rule;

/// The daemons as they are written, the master first.
pub(crate) fn daemons(file: &file::Sync) -> Read<Vec<SyncDaemon>> {
    let both = [(SyncState::Master, &file.master), (SyncState::Backup, &file.backup)];
    let given = both.into_iter().filter_map(|(state, given)| Some((state, given.as_ref()?)));
    given.map(|(state, given)| daemon(state, given.get_ref())).collect()
}

fn daemon(state: SyncState, it: &file::SyncDaemon) -> Read<SyncDaemon> {
    let name = it.interface.get_ref();
    if let Err(why) = rule::interface(name) {
        return wrong(&it.interface, why);
    }
    let group = match &it.group {
        None => None,
        Some(text) => match text.get_ref().parse::<IpAddr>() {
            Ok(group) if group.is_multicast() => Some(group),
            _ => return wrong(text, format!("`{}` is no multicast group", text.get_ref())),
        },
    };
    Ok(SyncDaemon {
        state: state.number(),
        interface: name.as_str().into(),
        sync_id: it.id.as_ref().map_or(0, |id| (*id.get_ref()).into()),
        max_len: set(it.max_length.as_ref())?,
        group,
        port: set(it.port.as_ref())?,
        ttl: set(it.ttl.as_ref())?,
    })
}

/// 0 for what is left out, which is nothing that can be asked for.
fn set<T: Copy + Default + PartialEq>(given: Option<&Spanned<T>>) -> Read<T> {
    match given {
        Some(given) if *given.get_ref() == T::default() => {
            wrong(given, "0 is no value; leave the key out for the director's choice")
        }
        given => Ok(given.map_or_else(T::default, |given| *given.get_ref())),
    }
}

/// Whether the daemon that runs is as it is wanted.
pub(crate) fn is_as_wanted(running: &SyncDaemon, wanted: &SyncDaemon) -> bool {
    // What the director chose for it depends on the interface.
    let max_len = if wanted.max_len == 0 { running.max_len } else { wanted.max_len };
    let id = |daemon: &SyncDaemon| daemon.sync_id & 0xff;
    let full = SyncDaemon { max_len, ..*wanted }.completed(1500);
    id(running) == id(wanted) && SyncDaemon { sync_id: full.sync_id, ..*running } == full
}

/// What it is called in a plan.
pub(crate) fn shown(state: u32) -> &'static str {
    match SyncState::from_number(state) {
        Some(SyncState::Master) => "master",
        Some(SyncState::Backup) | None => "backup",
    }
}
