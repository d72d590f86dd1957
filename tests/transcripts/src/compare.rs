//! Whether two blocks agree, less what a transcript cannot know.

use std::net::Ipv4Addr;

use similar::TextDiff;

use crate::transcript::Block;

/// Ticks a second of the kernel that was recorded, and of ours.
const TICKS: (u64, u64) = (100, 250);

/// Whether what was got is what was recorded.
pub(crate) fn agree(expect: &Block, got: &Block) -> bool {
    if (expect.status, &expect.stderr) != (got.status, &got.stderr) {
        return false;
    }
    let mut ours = got.stdout.clone();
    let mut theirs = expect.stdout.clone();
    if expect.command.contains("/proc/net/ip_vs") {
        for line in &mut ours {
            *line = in_recorded_ticks(line);
        }
        // The order there is that of a hash table.
        (theirs, ours) = (sorted(&theirs), sorted(&ours));
    } else if hangs_on_hash_order(&theirs) {
        (theirs, ours) = (sorted(&theirs), sorted(&ours));
    }
    theirs == ours
}

/// The lines of a block, `-` where recorded only and `+` where ours only.
pub(crate) fn difference(expect: &Block, got: &Block) -> String {
    let (expect_text, got_text) = (expect.printed(), got.printed());
    let changes = TextDiff::from_lines(&expect_text, &got_text);
    let lines = changes.iter_all_changes().map(|change| format!("{} {change}", change.tag()));
    format!("$ {}\n{}", expect.command, lines.collect::<String>())
}

/// A persistence timeout stands in ticks there.
fn in_recorded_ticks(line: &str) -> String {
    let Some((before, after)) = line.split_once("persistent ") else { return line.to_owned() };
    let (ticks, rest) = after.split_once(' ').unwrap_or((after, ""));
    match ticks.parse::<u64>() {
        Ok(ticks) => format!("{before}persistent {} {rest}", ticks * TICKS.0 / TICKS.1),
        Err(_) => line.to_owned(),
    }
}

/// Lines in an order of their own, services and destinations kept together.
fn sorted(lines: &[String]) -> Vec<String> {
    let mut groups: Vec<Vec<String>> = Vec::new();
    for line in lines {
        let belongs = line.starts_with("  ->") || line.starts_with("-a ");
        match groups.last_mut() {
            Some(group) if belongs => group.push(line.clone()),
            _ => groups.push(vec![line.clone()]),
        }
    }
    groups.sort();
    groups.concat()
}

/// Whether services of a listing have addresses that the original tool compares by a
/// difference of more than 31 bits, which is no order: it then shows them in one that
/// hangs on the kernel's hash table.
fn hangs_on_hash_order(lines: &[String]) -> bool {
    let words = lines.iter().filter_map(|line| {
        let service = line.strip_prefix("-A ").unwrap_or(line);
        service.split_whitespace().nth(1)
    });
    let mut v4 = Vec::new();
    let mut v6 = 0;
    for word in words {
        if word.starts_with('[') {
            v6 += 1;
        } else if let Some(Ok(ip)) = word.split(':').next().map(str::parse::<Ipv4Addr>) {
            v4.push(u32::from(ip));
        }
    }
    let (least, most) = (v4.iter().min(), v4.iter().max());
    let spread = most.zip(least).is_some_and(|(most, least)| most - least > 1 << 31);
    spread || v6 > 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(command: &str, stdout: &[&str]) -> Block {
        let stdout = stdout.iter().map(ToString::to_string).collect();
        Block { command: command.to_owned(), stdout, ..Block::default() }
    }

    #[test]
    fn a_line_more_or_another_status_is_a_difference() {
        let expect = block("ipvsadm -L", &["a", "b"]);
        assert!(agree(&expect, &expect));
        assert!(!agree(&expect, &block("ipvsadm -L", &["b", "a"])));
        assert!(!agree(&expect, &block("ipvsadm -L", &["a"])));
        assert!(!agree(&expect, &Block { status: 1, ..expect.clone() }));
        let other = difference(&expect, &block("ipvsadm -L", &["a", "c"]));
        assert_eq!(other, "$ ipvsadm -L\n  1 a\n- 1 b\n+ 1 c\n  = 0\n");
    }

    #[test]
    fn ticks_of_two_kernels_are_the_same_time() {
        let line = |ticks| format!("TCP  C000020A:0050 rr persistent {ticks} FFFFFFFF");
        assert_eq!(in_recorded_ticks(&line(15000)), line(6000));
        let (theirs, ours) = (line(6000), line(15000));
        let command = "cat /proc/net/ip_vs";
        assert!(agree(&block(command, &[&theirs]), &block(command, &[&ours])));
        assert!(!agree(&block(command, &[&theirs]), &block(command, &[&theirs])));
    }

    #[test]
    fn only_addresses_far_apart_may_stand_in_any_order() {
        let near = ["-A -t 192.0.2.10:80 -s rr", "-A -t 192.0.2.11:80 -s rr"];
        let far = ["-A -t 1.2.3.4:80 -s rr", "-a -t 1.2.3.4:80", "-A -t 192.0.2.11:80 -s rr"];
        assert!(!agree(&block("", &near), &block("", &[near[1], near[0]])));
        assert!(agree(&block("", &far), &block("", &[far[2], far[0], far[1]])));
        assert!(!agree(&block("", &far), &block("", &[far[0], far[2], far[1]])));
    }
}
