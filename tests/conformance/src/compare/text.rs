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
    /// The same from the kernel's files, where the time stands last.
    ProcConnections,
    /// Lines in any order: services, which the kernel shows as it hashes them.
    AnyOrder,
    /// Line by line, but rates only about the same: estimates depend on when they
    /// were made. They stand below a heading that says so.
    Rates {
        /// Of the numbers.
        radix: u32,
    },
}

/// Seconds by which times to expiry may differ: the kernel's timers are coarse.
pub const TOLERANCE: u64 = 2;

/// The lines that differ, `-` expected and `+` got.
pub fn compare(expected: &str, got: &str, volatile: &Volatile, kind: Kind) -> Vec<String> {
    let Volatile::Lines(volatile) = volatile else { return Vec::new() };
    let (mut expected, mut got) = (lines(expected), lines(got));
    match kind {
        Kind::ProcConnections => {
            expected.sort();
            got.sort();
            forgive(&expected, &mut got, proc_connection);
        }
        Kind::AnyOrder => {
            // Where a line stood in one recording, another may have stood in the next.
            let mut kept = 0;
            expected.retain(|_| {
                kept += 1;
                !volatile.contains(&(kept - 1))
            });
            if !volatile.is_empty() && expected.len() + volatile.len() == got.len() {
                got.retain(|line| expected.contains(line));
            }
            expected.sort();
            got.sort();
        }
        Kind::Connections => {
            sort_connections(&mut expected);
            sort_connections(&mut got);
            forgive(&expected, &mut got, connection);
        }
        Kind::Ordered | Kind::Rates { .. } if expected.len() == got.len() => {
            let mut are_rates = false;
            for (wanted, line) in expected.iter().zip(&mut got) {
                are_rates |= wanted.contains("Conns/s") || wanted.contains("CPS");
                let is_same = match kind {
                    Kind::Rates { radix } if are_rates => is_about(wanted, line, radix),
                    _ => is_of_the_machine(wanted, line),
                };
                if is_same {
                    line.clone_from(wanted);
                }
            }
            for place in volatile {
                if let (Some(line), Some(wanted)) = (got.get_mut(*place), expected.get(*place)) {
                    line.clone_from(wanted);
                }
            }
        }
        Kind::Ordered | Kind::Rates { .. } => {}
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

/// The lines in which a number that the kernel drew lots for is far from the
/// recorded one: more than a half above it, or below a quarter, as on a busy
/// machine a plane's clock goes on while the replay waits.
pub fn follow(expected: &str, got: &str, volatile: &Volatile) -> Vec<String> {
    let Volatile::Lines(volatile) = volatile else { return Vec::new() };
    let (expected, got) = (lines(expected), lines(got));
    let number = |lines: &[String], place: usize| lines.get(place)?.trim().parse::<u64>().ok();
    let far = volatile.iter().filter_map(|place| {
        let wanted = number(&expected, *place)?;
        let is_near = number(&got, *place)
            .is_some_and(|found| found * 4 >= wanted && found * 2 <= wanted * 3);
        let found = got.get(*place).map_or("nothing", String::as_str);
        (!is_near).then(|| format!("got {found}, expected about {wanted}"))
    });
    far.collect()
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
            Some((protocol, timer, rest)) => (format!("{protocol} {rest}"), timer),
            None => (line.clone(), 0),
        });
    }
}

/// The parts of a line of the kernel's files of connections: nothing, seconds to
/// expiry, the rest.
fn proc_connection(line: &str) -> Option<(&str, u64, &str)> {
    let (rest, timer) = line.trim_end().rsplit_once(' ')?;
    Some(("", timer.parse().ok()?, rest.trim_end()))
}

/// Whether two lines show a setting whose default is that of the machine.
fn is_of_the_machine(expected: &str, got: &str) -> bool {
    const QUEUE: &str = "net.ipv4.vs.sync_qlen_max = ";
    let is_number =
        |line: &str| line.strip_prefix(QUEUE).is_some_and(|it| it.parse::<u64>().is_ok());
    is_number(expected) && is_number(got)
}

/// Whether two lines are the same but for their last five columns, and those
/// about the same.
fn is_about(expected: &str, got: &str, radix: u32) -> bool {
    let rate = |word: &str| u64::from_str_radix(word, radix).ok();
    let (wanted, found): (Vec<&str>, Vec<&str>) =
        (expected.split_whitespace().collect(), got.split_whitespace().collect());
    let numbers = wanted.len().saturating_sub(5);
    wanted.len() == found.len()
        && wanted.get(..numbers) == found.get(..numbers)
        && wanted.iter().zip(&found).skip(numbers).all(|(wanted, found)| {
            wanted == found
                || matches!((rate(wanted), rate(found)), (Some(a), Some(b)) if is_near(a, b))
        })
}

/// Two looks at the counters may differ by one interval, in which a quarter is lost.
const fn is_near(a: u64, b: u64) -> bool {
    let (less, more) = if a < b { (a, b) } else { (b, a) };
    more - less <= 2 || less * 3 >= more * 2
}

/// Takes over the expected line where only the timer differs, and not by much;
/// each expected line once, since templates may be alike but for that.
fn forgive(
    expected: &[String],
    got: &mut [String],
    connection: fn(&str) -> Option<(&str, u64, &str)>,
) {
    let mut free: Vec<&String> = expected.iter().collect();
    for line in got {
        let Some((protocol, timer, rest)) = connection(line) else { continue };
        let same = free.iter().position(|wanted| {
            connection(wanted).is_some_and(|(wanted_protocol, wanted_timer, wanted_rest)| {
                (wanted_protocol, wanted_rest) == (protocol, rest)
                    && wanted_timer.abs_diff(timer) <= TOLERANCE
            })
        });
        if let Some(place) = same {
            line.clone_from(free.remove(place));
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
    fn connections_that_are_alike_but_for_the_timer_are_told_apart() {
        let two = "TCP 59:58  NONE a\nTCP 59:59  NONE a\n";
        assert!(connections(two, "TCP 59:59  NONE a\nTCP 59:58  NONE a\n").is_empty());
        assert_eq!(connections(two, "TCP 59:58  NONE a\n").len(), 1);
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
    fn a_number_drawn_by_lot_may_be_off_and_not_far_off() {
        let check = |got: &str| follow("30\n", got, &Volatile::Lines(vec![0])).is_empty();
        assert!(check("30\n") && check("8\n") && check("45\n"));
        assert!(!check("7\n") && !check("46\n") && !check("\n") && !check("x\n"));
    }

    #[test]
    fn rates_may_be_one_estimate_off_and_totals_may_not() {
        let check = |radix, expected: &str, got: &str| {
            compare(expected, got, &Volatile::default(), Kind::Rates { radix }).is_empty()
        };
        let listing = |name: &str, rate: u32| format!("Prot CPS\n{name} 1 2 2 {rate} 0\n");
        assert!(check(10, &listing("TCP a", 1000), &listing("TCP a", 750)));
        assert!(!check(10, &listing("TCP a", 1000), &listing("TCP a", 600)));
        assert!(!check(10, &listing("TCP a", 1000), &listing("TCP b", 1000)));
        let file =
            |total: &str, rate: &str| format!("Total\n1 2 2 {total} 0\nConns/s\n1 2 2 {rate} 0\n");
        assert!(check(16, &file("FF", "FF"), &file("FF", "C0")));
        assert!(!check(16, &file("FF", "FF"), &file("FE", "FF")));
    }

    #[test]
    fn services_of_the_kernels_file_may_come_in_any_order() {
        let check = |volatile| compare("h\na\nb 1\n", "b 2\nh\na\n", &volatile, Kind::AnyOrder);
        assert_eq!(check(Volatile::Lines(vec![2])), Vec::<String>::new());
        assert_eq!(check(Volatile::default()), ["- b 1", "+ b 2"]);
    }

    #[test]
    fn the_time_of_the_kernels_file_stands_last() {
        let check =
            |got| compare("h\nTCP a NONE 60\n", got, &Volatile::default(), Kind::ProcConnections);
        assert_eq!(check("TCP a NONE    58\nh\n"), Vec::<String>::new());
        assert_eq!(check("TCP a NONE    57\nh\n").len(), 2);
    }

    #[test]
    fn other_listings_are_compared_line_by_line() {
        let check = |volatile: Volatile| compare("a\nb\n", "b\nx\n", &volatile, Kind::Ordered);
        assert_eq!(check(Volatile::default()), ["- a", "+ x"]);
        assert_eq!(check(Volatile::Lines(vec![0, 1])), Vec::<String>::new());
        assert_eq!(check(Volatile::All("all".into())), Vec::<String>::new());
    }
}
