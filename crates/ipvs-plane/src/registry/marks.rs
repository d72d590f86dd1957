//! The mark rules: an edit writes the whole new list to fresh places, and then
//! the one word that says which places are the list.

use ipvs_core::addr::Addr;
use ipvs_core::command::CommandError;
use ipvs_core::mark::{self, MarkRule};

use super::ids::Runs;
use super::{Registry, Run};
use crate::store::Store;

/// The rules in force.
#[derive(Debug)]
pub(super) struct Marks {
    pub(super) rules: Vec<MarkRule>,
    run: Run,
    runs: Runs,
}

impl Default for Marks {
    fn default() -> Self {
        Self { rules: Vec::new(), run: Run::default(), runs: Runs::new(mark::PLACES) }
    }
}

impl Marks {
    /// The rules that were found in the tables, in the places that `list` says.
    pub(super) fn adopt(rules: Vec<MarkRule>, list: u32) -> Self {
        let (first, len) = mark::places(list);
        let run = Run { first, len };
        let mut runs = Runs::new(mark::PLACES);
        runs.adopt(&[run]);
        Self { rules, run, runs }
    }

    pub(super) fn reclaim(&mut self) {
        self.runs.reclaim();
    }
}

/// Adds `rule` to the end of a list.
pub(super) fn add(rules: &mut Vec<MarkRule>, rule: &MarkRule) -> Result<(), CommandError> {
    check(rule)?;
    let rule = rule.named();
    if rules.contains(&rule) {
        return Err(CommandError::MarkRuleExists);
    }
    let limit = mark::MAX_RULES;
    if rules.len() >= limit as usize {
        return Err(CommandError::Full { what: "mark rules", limit });
    }
    rules.push(rule);
    Ok(())
}

/// Takes `rule` off a list.
pub(super) fn delete(rules: &mut Vec<MarkRule>, rule: &MarkRule) -> Result<(), CommandError> {
    let rule = rule.named();
    let place = rules.iter().position(|it| *it == rule).ok_or(CommandError::NoSuchMarkRule)?;
    rules.remove(place);
    Ok(())
}

/// Whether the rule can ever do what it says.
fn check(rule: &MarkRule) -> Result<(), CommandError> {
    let inside = |net: Addr, mask: Addr| {
        let (net, mask) = (net.words(), mask.words());
        net.iter().zip(mask).all(|(net, mask)| net & !mask == 0)
    };
    let sound = rule.mark & !rule.mask == 0
        && rule.mask != 0
        && rule.first_port <= rule.last_port
        && inside(rule.source, rule.source_mask)
        && inside(rule.destination, rule.destination_mask);
    if sound { Ok(()) } else { Err(CommandError::Invalid) }
}

impl<S: Store> Registry<S> {
    /// The mark rules, in the order in which packets meet them.
    pub fn mark_rules(&self) -> &[MarkRule] {
        &self.marks.rules
    }

    /// Looks for the interfaces of the rules again, after the host's changed.
    pub fn refresh_marks(&mut self) -> Result<(), S::Error> {
        let rules = self.marks.rules.clone();
        let mut settings = self.settings;
        let Some(list) = self.write_marks(&rules)? else { return Ok(()) };
        settings.mark_rules = list;
        self.store.put_settings(&settings)?;
        self.settings = settings;
        self.take_marks(rules, list);
        Ok(())
    }

    /// Writes the list to fresh places, where no packet looks yet; returns the
    /// word that makes it the list, or `None` if it is so already or there is no room.
    pub(super) fn write_marks(&mut self, rules: &[MarkRule]) -> Result<Option<u32>, S::Error> {
        let resolved: Vec<MarkRule> = rules.iter().map(|rule| self.resolved(rule)).collect();
        let present: Vec<Option<MarkRule>> = (0..self.marks.run.len)
            .map(|at| self.store.mark_rule_at(self.marks.run.first + at))
            .collect();
        if present.iter().flatten().eq(resolved.iter()) {
            return Ok(None);
        }
        #[expect(clippy::cast_possible_truncation, reason = "there are no more than MAX_RULES")]
        let Some(run) = self.marks.runs.take(rules.len() as u32) else { return Ok(None) };
        for (place, rule) in (run.first..).zip(&resolved) {
            self.store.put_mark_rule(place, rule)?;
        }
        Ok(Some(mark::list(run.first, run.len)))
    }

    /// Takes note that `rules` are in force, in the places that `list` says.
    pub(super) fn take_marks(&mut self, rules: Vec<MarkRule>, list: u32) {
        let (first, len) = mark::places(list);
        let before = std::mem::replace(&mut self.marks.run, Run { first, len });
        self.marks.runs.retire(before);
        self.marks.rules = rules;
    }

    fn resolved(&mut self, rule: &MarkRule) -> MarkRule {
        let mut rule = rule.named();
        let name = rule.interface_name();
        if !name.is_empty() {
            rule.ifindex = self.store.interface(name).unwrap_or(mark::NO_INTERFACE);
        }
        rule
    }
}
