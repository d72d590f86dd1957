//! Makes a scenario that differs as small as it can be.

use anyhow::Result;
use ipvs_conformance::case::Case;

/// Most candidates that are played at a time.
const AT_ONCE: usize = 24;
/// Most rounds; after them what is left is small enough.
const ROUNDS: usize = 40;

/// Takes out setup commands and steps while `differs` says of what is left that
/// it differs still.
///
/// Delta debugging (Zeller and Hildebrandt 2002), but for trying all parts of
/// a round at a time, since a guest plays many scenarios in little more time
/// than one.
pub(crate) fn shrink(
    case: &Case,
    mut differs: impl FnMut(&[Case]) -> Result<Vec<bool>>,
) -> Result<Case> {
    let mut best = case.clone();
    let mut parts = 2;
    for _ in 0..ROUNDS {
        let len = best.setup.len() + best.steps.len();
        parts = parts.min(len);
        let mut found = None;
        let all: Vec<usize> = (0..parts).collect();
        for some in all.chunks(AT_ONCE) {
            let bounds = |part: usize| part * len / parts..(part + 1) * len / parts;
            let candidates: Vec<Case> =
                some.iter().map(|part| without(&best, &bounds(*part))).collect();
            let still = differs(&candidates)?;
            found = candidates.into_iter().zip(still).find_map(|(it, still)| still.then_some(it));
            if found.is_some() {
                break;
            }
        }
        match found {
            Some(smaller) => {
                best = smaller;
                parts = parts.saturating_sub(1).max(2);
            }
            None if parts >= len => break,
            None => parts *= 2,
        }
    }
    Ok(best)
}

/// The case without some of its setup commands and steps, counted in this order.
fn without(case: &Case, places: &std::ops::Range<usize>) -> Case {
    let mut left = case.clone();
    let setup = case.setup.len();
    let mut place = 0;
    left.setup.retain(|_| {
        place += 1;
        !places.contains(&(place - 1))
    });
    place = setup;
    left.steps.retain(|_| {
        place += 1;
        !places.contains(&(place - 1))
    });
    left
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn case(setup: &[&str]) -> Case {
        Case {
            name: String::new(),
            title: String::new(),
            tags: vec![],
            topology: String::new(),
            setup: setup.iter().map(|it| (*it).to_owned()).collect(),
            steps: vec![],
            end: Duration::ZERO,
        }
    }

    #[test]
    fn what_is_needed_stays_and_nothing_else() {
        let names: Vec<String> = (0..50).map(|number| number.to_string()).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let needed = ["3", "31", "44"];
        let left = shrink(&case(&names), |candidates| {
            let differs = |it: &Case| needed.iter().all(|name| it.setup.iter().any(|x| x == name));
            Ok(candidates.iter().map(differs).collect())
        });
        assert_eq!(left.unwrap().setup, needed);
    }
}
