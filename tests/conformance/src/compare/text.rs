//! Listings against listings, told as a line diff.

use similar::{ChangeTag, TextDiff};

use crate::case::Volatile;

/// How a listing is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Line by line, in this order.
    Ordered,
    /// A listing of connections: lines behind the heading in any order, and
    /// times to expiry within [`TOLERANCE`].
    Connections,
}

/// Seconds by which times to expiry may differ: the kernel's timers are coarse.
pub const TOLERANCE: u64 = 2;

/// The lines that differ, `-` expected and `+` got.
pub fn compare(expected: &str, got: &str, volatile: &Volatile, kind: Kind) -> Vec<String> {
    let Volatile::Lines(volatile) = volatile else { return Vec::new() };
    let (mut expected, mut got) = (lines(expected), lines(got));
    match kind {
        Kind::Connections => {
            sort_connections(&mut expected);
            sort_connections(&mut got);
            forgive_timers(&expected, &mut got);
        }
        Kind::Ordered if expected.len() == got.len() => {
            for place in volatile {
                if let (Some(line), Some(wanted)) = (got.get_mut(*place), expected.get(*place)) {
                    line.clone_from(wanted);
                }
            }
        }
        Kind::Ordered => {}
    }
    let whole = |lines: &[String]| lines.iter().flat_map(|line| [line, "\n"]).collect::<String>();
    let (expected, got) = (whole(&expected), whole(&got));
    let changes = TextDiff::from_lines(&expected, &got);
    let told = changes.iter_all_changes().filter_map(|change| {
        let sign = match change.tag() {
            ChangeTag::Delete => '-',
            ChangeTag::Insert => '+',
            ChangeTag::Equal => return None,
        };
        Some(format!("{sign} {}", change.value().trim_end_matches('\n')))
    });
    told.collect()
}

fn lines(text: &str) -> Vec<String> {
    text.trim_end_matches('\n').split('\n').map(str::to_owned).collect()
}

/// The parts of a line of `ipvsadm -Lc`: protocol, seconds to expiry, the rest.
fn connection(line: &str) -> Option<(&str, u64, &str)> {
    let (protocol, rest) = line.split_once(' ')?;
    let (timer, rest) = rest.trim_start().split_once(' ')?;
    let (minutes, seconds) = timer.split_once(':')?;
    Some((protocol, minutes.parse::<u64>().ok()? * 60 + seconds.parse::<u64>().ok()?, rest))
}

/// The heading is up to the line that names the columns.
fn sort_connections(lines: &mut [String]) {
    let heading =
        lines.iter().position(|line| line.starts_with("pro ")).map_or(0, |place| place + 1);
    if let Some(entries) = lines.get_mut(heading..) {
        entries.sort_by_cached_key(|line| match connection(line) {
            Some((protocol, _, rest)) => format!("{protocol} {rest}"),
            None => line.clone(),
        });
    }
}

/// Takes over the expected line where only the timer differs, and not by much.
fn forgive_timers(expected: &[String], got: &mut [String]) {
    for line in got {
        let Some((protocol, timer, rest)) = connection(line) else { continue };
        let same = expected.iter().find(|wanted| {
            connection(wanted).is_some_and(|(wanted_protocol, wanted_timer, wanted_rest)| {
                (wanted_protocol, wanted_rest) == (protocol, rest)
                    && wanted_timer.abs_diff(timer) <= TOLERANCE
            })
        });
        if let Some(wanted) = same {
            line.clone_from(wanted);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADING: &str = "IPVS connection entries\npro expire state       source\n";

    fn connections(expected: &str, got: &str) -> Vec<String> {
        let volatile = Volatile::default();
        let whole = |entries: &str| format!("{HEADING}{entries}");
        compare(&whole(expected), &whole(got), &volatile, Kind::Connections)
    }

    #[test]
    fn connections_may_come_in_any_order() {
        let (a, b) = ("TCP 14:59  ESTABLISHED a\n", "TCP 00:59  SYN_RECV    b\n");
        assert!(connections(&format!("{a}{b}"), &format!("{b}{a}")).is_empty());
        assert_eq!(connections(&format!("{a}{b}"), a), ["- TCP 00:59  SYN_RECV    b"]);
    }

    #[test]
    fn a_timer_may_be_two_seconds_off_and_no_more() {
        assert!(connections("TCP 01:00  CLOSE a\n", "TCP 00:58  CLOSE a\n").is_empty());
        assert_eq!(
            connections("TCP 01:00  CLOSE a\n", "TCP 00:57  CLOSE a\n"),
            ["- TCP 01:00  CLOSE a", "+ TCP 00:57  CLOSE a"]
        );
        assert_eq!(connections("TCP 01:00  CLOSE a\n", "TCP 01:00  CLOSE b\n").len(), 2);
    }

    #[test]
    fn other_listings_are_compared_line_by_line() {
        let check = |volatile: Volatile| compare("a\nb\n", "b\nx\n", &volatile, Kind::Ordered);
        assert_eq!(check(Volatile::default()), ["- a", "+ x"]);
        assert_eq!(check(Volatile::Lines(vec![0, 1])), Vec::<String>::new());
        assert_eq!(check(Volatile::All("all".into())), Vec::<String>::new());
    }
}
