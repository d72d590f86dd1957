//! Sync daemons: kept and listed, as they were asked for. No messages are sent
//! or taken yet, and whoever starts one is told so.

use ipvs_core::command::CommandError;
use ipvs_core::sync::{SyncDaemon, SyncState};

use super::Registry;
use super::apply::Draft;
use crate::store::Store;

/// What is said of a daemon that was started.
pub const NO_MESSAGES: &str = "is kept and listed, but no messages are sent or taken yet";

impl<S: Store> Registry<S> {
    pub(super) fn start_sync(
        &mut self,
        draft: &mut Draft,
        asked: &SyncDaemon,
    ) -> Result<(), CommandError> {
        let mtu = self.store.mtu(asked.interface.as_str()).ok_or(CommandError::NoInterface)?;
        SyncState::from_number(asked.state).ok_or(CommandError::Invalid)?;
        if draft.sync.iter().any(|daemon| daemon.state == asked.state) {
            return Err(CommandError::SyncRuns);
        }
        // The messages have no way to tell of a destination of the other family.
        if self.has_mixed_families(draft) {
            return Err(CommandError::Invalid);
        }
        draft.sync.push(asked.completed(mtu));
        draft.sync.sort_by_key(|daemon| daemon.state);
        Ok(())
    }

    /// Whether a service has a destination of the other family.
    fn has_mixed_families(&self, draft: &Draft) -> bool {
        let untouched = self.services.iter().filter(|(key, _)| !draft.services.contains_key(key));
        let entries = untouched.map(|(_, entry)| entry).chain(draft.services.values().flatten());
        entries.into_iter().any(|entry| {
            let mut dests = entry.dests.iter().filter_map(|id| self.dest_in(draft, *id));
            dests.any(|dest| dest.key.family != entry.key.family)
        })
    }

    /// The sync daemons that were started, the master first.
    pub fn sync_daemons(&self) -> &[SyncDaemon] {
        &self.sync
    }
}

pub(super) fn stop(draft: &mut Draft, state: SyncState) -> Result<(), CommandError> {
    let running = draft.sync.iter().position(|daemon| daemon.state == state.number());
    draft.sync.remove(running.ok_or(CommandError::NoSync)?);
    Ok(())
}
