//! Places in the tables: which are free, and which only after a while.
//!
//! A packet may still work with a record that an edit has just replaced, so a
//! place that falls free waits in limbo until the next `reclaim`.

use std::collections::HashSet;

use super::Run;

/// Places for single records.
#[derive(Debug)]
pub(super) struct Ids {
    limit: u32,
    fresh: u32,
    free: Vec<u32>,
    limbo: Vec<u32>,
}

impl Ids {
    pub(super) fn new(limit: u32) -> Self {
        Self { limit, fresh: 0, free: Vec::new(), limbo: Vec::new() }
    }

    pub(super) fn limit(&self) -> u32 {
        self.limit
    }

    pub(super) fn take(&mut self) -> Option<u32> {
        if self.free.is_empty() && self.fresh == self.limit {
            self.reclaim();
        }
        self.free.pop().or_else(|| {
            (self.fresh < self.limit).then(|| {
                self.fresh += 1;
                self.fresh - 1
            })
        })
    }

    /// Gives back a place that was never used.
    pub(super) fn untake(&mut self, id: u32) {
        self.free.push(id);
    }

    /// Gives back a place that packets may still look at.
    pub(super) fn retire(&mut self, id: u32) {
        self.limbo.push(id);
    }

    /// The places that fell free since the last `reclaim`.
    pub(super) fn resting(&self) -> &[u32] {
        &self.limbo
    }

    pub(super) fn reclaim(&mut self) {
        self.free.append(&mut self.limbo);
    }

    /// Takes exactly the places in `used`, of tables that were found filled.
    pub(super) fn adopt(&mut self, used: &[u32]) {
        self.fresh = used.iter().max().map_or(0, |max| max + 1);
        let used: HashSet<u32> = used.iter().copied().collect();
        self.free = (0..self.fresh).filter(|id| !used.contains(id)).collect();
    }
}

/// Runs of places, for lists.
#[derive(Debug)]
pub(super) struct Runs {
    limit: u32,
    /// Free runs by their first place; neighbours are joined.
    free: std::collections::BTreeMap<u32, u32>,
    limbo: Vec<Run>,
}

impl Runs {
    pub(super) fn new(limit: u32) -> Self {
        Self { limit, free: [(0, limit)].into(), limbo: Vec::new() }
    }

    pub(super) fn limit(&self) -> u32 {
        self.limit
    }

    pub(super) fn take(&mut self, len: u32) -> Option<Run> {
        self.take_free(len).or_else(|| {
            self.reclaim();
            self.take_free(len)
        })
    }

    fn take_free(&mut self, len: u32) -> Option<Run> {
        if len == 0 {
            return Some(Run::default());
        }
        let (&first, &have) = self.free.iter().find(|(_, have)| **have >= len)?;
        self.free.remove(&first);
        if have > len {
            self.free.insert(first + len, have - len);
        }
        Some(Run { first, len })
    }

    pub(super) fn retire(&mut self, run: Run) {
        if run.len != 0 {
            self.limbo.push(run);
        }
    }

    /// The places that fell free since the last `reclaim`.
    pub(super) fn resting(&self) -> impl Iterator<Item = u32> {
        self.limbo.iter().flat_map(|run| run.first..run.first + run.len)
    }

    pub(super) fn reclaim(&mut self) {
        for run in std::mem::take(&mut self.limbo) {
            self.put(run);
        }
    }

    fn put(&mut self, run: Run) {
        let Run { mut first, mut len } = run;
        if let Some((&before, &have)) = self.free.range(..first).next_back()
            && before + have == first
        {
            self.free.remove(&before);
            first = before;
            len += have;
        }
        if let Some(have) = self.free.remove(&(first + len)) {
            len += have;
        }
        self.free.insert(first, len);
    }

    /// Takes exactly the runs in `used`, of tables that were found filled.
    pub(super) fn adopt(&mut self, used: &[Run]) {
        let mut used: Vec<Run> = used.iter().copied().filter(|run| run.len != 0).collect();
        used.sort_by_key(|run| run.first);
        self.free.clear();
        let mut next = 0;
        for run in used {
            if run.first > next {
                self.free.insert(next, run.first - next);
            }
            next = next.max(run.first + run.len);
        }
        if next < self.limit {
            self.free.insert(next, self.limit - next);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_retired_run_is_used_again_only_after_it_is_reclaimed() {
        let mut runs = Runs::new(4);
        let run = runs.take(2).unwrap();
        runs.retire(run);
        assert_eq!(runs.take_free(4), None);
        runs.reclaim();
        assert_eq!(runs.take_free(4), Some(Run { first: 0, len: 4 }));
    }

    #[test]
    fn adopted_runs_are_not_given_out_again() {
        let mut runs = Runs::new(10);
        runs.adopt(&[Run { first: 6, len: 2 }, Run { first: 0, len: 3 }]);
        assert_eq!(runs.take(3), Some(Run { first: 3, len: 3 }));
        assert_eq!(runs.take(2), Some(Run { first: 8, len: 2 }));
        assert_eq!(runs.take(1), None);
    }

    #[test]
    fn adopted_ids_leave_the_gaps_free() {
        let mut ids = Ids::new(4);
        ids.adopt(&[0, 2]);
        assert_eq!([ids.take(), ids.take(), ids.take()], [Some(1), Some(3), None]);
    }
}
