//! The words that schedulers keep: what edits make of them.

use ipvs_core::sched;
use ipvs_core::service::{SchedulerKind, ServiceKey};

use super::apply::Draft;
use super::{Entry, Registry, wrr_levels};
use crate::store::Store;

/// What an edit does to the memory of a service's scheduler.
#[derive(Clone, Copy, Debug)]
pub(super) enum MemoryEdit {
    /// It is bound anew.
    Reset(Levels),
    /// A destination was added or edited.
    Changed(Levels),
    /// The destination at this place, from the oldest, left a list of this length.
    Removed(u32, u32, Levels),
}

/// The greatest common divisor and the highest level of the list as it is after the edit:
/// weighted round robin goes by each, not by the last alone. Nothing for others.
pub(super) type Levels = Option<(u32, u32)>;

impl Draft {
    /// A destination of this service was added or edited.
    pub(super) fn has_changed(&mut self, service: &ServiceKey, levels: Levels) {
        // Whose scheduler does not care, is only remembered as edited.
        let known = self.memory.last().is_some_and(|(of, edit)| {
            of == service && levels.is_none() && matches!(edit, MemoryEdit::Changed(None))
        });
        if !known {
            self.memory.push((*service, MemoryEdit::Changed(levels)));
        }
    }
}

impl<S: Store> Registry<S> {
    /// See [`Levels`].
    pub(super) fn levels(&self, draft: &Draft, entry: &Entry) -> Levels {
        let dests = entry.dests.iter().filter_map(|id| self.dest_in(draft, *id));
        (entry.kind == SchedulerKind::WeightedRoundRobin)
            .then(|| wrr_levels(dests.map(|dest| dest.weight())))
    }

    /// Writes the words of services whose lists were edited.
    pub(super) fn write_words(&mut self, draft: &Draft) -> Result<(), S::Error> {
        for edits in draft.memory.chunk_by(|(one, _), (other, _)| one == other) {
            let entry = edits.first().and_then(|(key, _)| draft.services.get(key)?.as_ref());
            if let Some(entry) = entry {
                self.write_word(entry, edits.iter().map(|(_, edit)| *edit))?;
            }
        }
        Ok(())
    }

    /// What edits, one after the other, make of the memory of a service's scheduler.
    fn write_word(
        &mut self,
        entry: &Entry,
        edits: impl Iterator<Item = MemoryEdit>,
    ) -> Result<(), S::Error> {
        let mut word = None;
        for edit in edits {
            let (MemoryEdit::Reset(levels)
            | MemoryEdit::Changed(levels)
            | MemoryEdit::Removed(.., levels)) = edit;
            let changed = match edit {
                MemoryEdit::Changed(None) => continue,
                MemoryEdit::Reset(_) => 0,
                _ => word.unwrap_or_else(|| self.store.scheduler_memory(entry.id)),
            };
            word = Some(match (levels, edit) {
                (Some((gcd, top)), _) => sched::wrr_recomputed(changed, gcd, top),
                (None, MemoryEdit::Removed(place, len, _))
                    if entry.kind == SchedulerKind::RoundRobin =>
                {
                    sched::memory::after_removal(changed, place, len)
                }
                _ => changed,
            });
        }
        word.map_or(Ok(()), |word| self.store.put_scheduler_memory(entry.id, word))
    }
}
