//! Frames against frames, octet for octet, told field by field.

use std::collections::BTreeSet;
use std::ops::Range;

use crate::case::{ExpectedFrame, Frame};
use crate::decode::{Decoded, Field, decode};

/// Compares the frames that left after one step; `injected` is the frame that
/// the step gave in, if it was one.
pub fn compare(
    expected: &[&ExpectedFrame],
    got: &[Frame],
    injected: Option<&Frame>,
) -> Vec<String> {
    let expected = by_interface(expected.to_vec(), |it: &&ExpectedFrame| &it.frame.dev);
    let got = by_interface(got.iter().collect(), |it: &&Frame| &it.dev);
    let mut lines = Vec::new();
    if expected.len() != got.len() {
        lines.push(format!("{} frames left, expected {}", got.len(), expected.len()));
    }
    for place in 0..expected.len().max(got.len()) {
        let found = match (expected.get(place), got.get(place)) {
            (Some(expected), Some(got)) => difference(expected, got, injected),
            (Some(expected), None) => vec![format!("missing: {}", summary(&expected.frame))],
            (None, Some(got)) => vec![format!("too much: {}", summary(got))],
            (None, None) => Vec::new(),
        };
        lines.extend(found.into_iter().map(|line| format!("frame {place}: {line}")));
    }
    lines
}

/// The recordings know the order of frames on each interface only.
fn by_interface<T>(mut frames: Vec<T>, dev: impl Fn(&T) -> &String) -> Vec<T> {
    frames.sort_by(|a, b| dev(a).cmp(dev(b)));
    frames
}

/// What is different about one frame.
fn difference(expected: &ExpectedFrame, got: &Frame, injected: Option<&Frame>) -> Vec<String> {
    if expected.frame == *got {
        return Vec::new();
    }
    let mut lines = Vec::new();
    if expected.frame.dev != got.dev {
        lines.push(format!("on {}, expected on {}", got.dev, expected.frame.dev));
    }
    let (old, new) = (&expected.frame.octets, &got.octets);
    if old.len() != new.len() {
        lines.push(format!("length: got {} expected {}", new.len(), old.len()));
    }
    let (before, after) = (decode(old), decode(new));
    let mut kind = before.fields.iter().filter(|field| is_transport(field)).peekable();
    if kind.peek().is_some() && kind.all(|field| after.field(&field.name).is_none()) {
        // Packets of different kinds: their fields say nothing of each other.
        return vec![
            format!("got {}", summary(got)),
            format!("expected {}", summary(&expected.frame)),
        ];
    }
    let ignored = volatile_places(expected, &before, injected);
    let same = |place: &Range<usize>| {
        place.clone().all(|at| match (old.get(at), new.get(at)) {
            _ if ignored.whole.contains(&at) => true,
            (Some(old), Some(new)) if ignored.low_half.contains(&at) => old >> 4 == new >> 4,
            (old, new) => old == new,
        })
    };
    for field in &before.fields {
        match after.field(&field.name) {
            Some(other) if other.place == field.place && same(&field.place) => {}
            Some(other)
                if other.place != field.place && octets(old, field) == octets(new, other) => {}
            Some(other) => {
                lines.push(format!("{}: got {} expected {}", field.name, other.value, field.value));
            }
            None => lines.push(format!("{}: missing, expected {}", field.name, field.value)),
        }
    }
    for field in &after.fields {
        if before.field(&field.name).is_none() {
            lines.push(format!("{}: got {}, expected none", field.name, field.value));
        }
    }
    // Volatile octets are not compared, but whatever they are, the sums must fit.
    for checksum in &after.bad_checksums {
        if !before.bad_checksums.contains(checksum) {
            lines.push(format!("{checksum}: wrong"));
        }
    }
    lines
}

/// Whether the field is above IP, in the outermost packet that the frame holds.
fn is_transport(field: &Field) -> bool {
    !["eth.", "vlan.", "ipv4.", "ipv6."].iter().any(|layer| field.name.starts_with(layer))
}

fn octets<'a>(frame: &'a [u8], field: &Field) -> Option<&'a [u8]> {
    frame.get(field.place.clone())
}

/// Places that are not compared.
#[derive(Debug, Default)]
struct Ignored {
    /// Whole octets.
    whole: BTreeSet<usize>,
    /// Octets whose low four bits are not.
    low_half: BTreeSet<usize>,
}

/// The places that are not compared.
///
/// Two recordings may agree by chance in what is random, so more than they
/// mark is left out: the IP identification, and the header checksum over it,
/// of packets that the director made itself, and the flow label of such; the identification
/// of IPv6 fragments, which is always new; and of a time of day the octets that change
/// but once a minute, or in hours.
fn volatile_places(
    expected: &ExpectedFrame,
    decoded: &Decoded,
    injected: Option<&Frame>,
) -> Ignored {
    let mut places =
        Ignored { whole: expected.volatile_bytes.iter().copied().collect(), ..Ignored::default() };
    let source = injected.map(|frame| (frame, decode(&frame.octets)));
    let carried_over = |name: &str| {
        let Some((frame, from)) = &source else { return false };
        let value = decoded.field(name).and_then(|field| octets(&expected.frame.octets, field));
        value.is_some() && value == from.field(name).and_then(|field| octets(&frame.octets, field))
    };
    let place = |name: &str| decoded.field(name).map(|field| field.place.clone());
    if decoded.tunnel || !carried_over("ipv4.id") {
        places.whole.extend(place("ipv4.id").into_iter().flatten());
        places.whole.extend(place("ipv4.checksum").into_iter().flatten());
    }
    if decoded.tunnel || !carried_over("ipv6.fragment_id") {
        places.whole.extend(place("ipv6.fragment_id").into_iter().flatten());
    }
    for options in &decoded.fields {
        // Of the outermost packet, and of one that a tunnel or an error carries.
        let Some(packet) = options.name.strip_suffix("ipv4.options") else { continue };
        for time in times(&expected.frame.octets, options.place.clone()) {
            if time.clone().any(|at| places.whole.contains(&at)) {
                places.whole.extend(time);
                places.whole.extend(place(&format!("{packet}ipv4.checksum")).into_iter().flatten());
            }
        }
    }
    if (decoded.tunnel || !carried_over("ipv6.version_class_label"))
        && let Some(place) = place("ipv6.version_class_label")
    {
        // The label is the low 20 bits; the traffic class shares one octet with it.
        places.whole.extend(place.clone().skip(2));
        places.low_half.extend(place.skip(1).take(1));
    }
    places
}

/// Where a timestamp option (RFC 791) among those at `options` has times.
fn times(frame: &[u8], options: Range<usize>) -> Vec<Range<usize>> {
    let mut at = options.start;
    while at < options.end {
        let Some(&[kind, len]) = frame.get(at..at + 2).and_then(<[u8]>::as_array) else { break };
        match kind {
            0 => break,
            1 => at += 1,
            68 if len >= 4 => {
                let with_addresses = frame.get(at + 3).is_some_and(|flags| flags & 15 != 0);
                let (first, step) = if with_addresses { (at + 8, 8) } else { (at + 4, 4) };
                let end = options.end.min(at + usize::from(len));
                return (first..end).step_by(step).map(|time| time..time + 4).collect();
            }
            _ => at += usize::from(len).max(2),
        }
    }
    Vec::new()
}

/// One line about a frame.
pub fn summary(frame: &Frame) -> String {
    const TOLD: [&str; 12] = [
        "arp.operation",
        "arp.target",
        "ipv4.source",
        "ipv4.destination",
        "ipv4.protocol",
        "ipv6.source",
        "ipv6.destination",
        "tcp.flags",
        "udp.destination_port",
        "inner.ipv4.destination",
        "icmp.type",
        "icmpv6.type",
    ];
    let decoded = decode(&frame.octets);
    let start = format!("on {}, {} octets", frame.dev, frame.octets.len());
    let told = TOLD.iter().filter_map(|name| decoded.field(name));
    let told = told.map(|field| format!("{} {}", field.name, field.value));
    std::iter::once(start).chain(told).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SYN: &str = "020000000c01020000000c020800450000281234400040063c5dc6336401c000020a\
                       9c400050000003e8000000005002ffff232b0000";
    const FORWARDED: &str = "020000005111020000000501080045000028123440003f06f55bc63364010a01000b\
                             9c401f90000003e8000000005002ffffbbe90000";

    fn frame(dev: &str, octets: &str) -> Frame {
        Frame { dev: dev.into(), octets: hex::decode(octets).unwrap() }
    }

    #[test]
    fn the_times_of_a_timestamp_option_are_found() {
        let only = [1, 68, 12, 5, 0, 9, 9, 9, 9, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(times(&only, 0..16), [5..9, 9..13]);
        let addressed = [68, 12, 5, 1, 192, 0, 2, 1, 9, 9, 9, 9];
        assert_eq!(times(&addressed, 0..12).as_slice(), std::slice::from_ref(&(8..12)));
        assert!(times(&[7, 4, 4, 0, 0, 68, 8, 5], 0..8).is_empty());
    }

    #[test]
    fn of_a_time_that_a_tunnel_carries_no_octet_is_compared() {
        // Half past twelve and half past two: the recorded one differs from run to run in its
        // lower two octets only.
        let times =
            ["cd73c6336401c000020a44080900029b5e62", "74f0c6336401c000020a440809000316b66a"];
        let [recorded, now] = times.map(|time| {
            frame(
                "s0",
                &format!(
                    "020000005101020000000501080045000038111100004004\
                     55a40a0100010a01000b47000024111100004011{time}0fa0003500080000"
                ),
            )
        });
        let mut wanted = expected(recorded.clone());
        wanted.volatile_bytes = vec![60, 61];
        assert!(compare(&[&wanted], std::slice::from_ref(&now), None).is_empty());
        // A sender's own words agree in both recordings, and are compared.
        assert_eq!(check(&recorded, &now, None).len(), 2);
    }

    fn expected(frame: Frame) -> ExpectedFrame {
        ExpectedFrame { frame, volatile_bytes: vec![] }
    }

    fn check(expect: &Frame, got: &Frame, injected: Option<&Frame>) -> Vec<String> {
        compare(&[&expected(expect.clone())], std::slice::from_ref(got), injected)
    }

    #[test]
    fn equal_frames_have_no_difference() {
        let (syn, forwarded) = (frame("c0", SYN), frame("s0", FORWARDED));
        assert!(check(&forwarded, &forwarded, Some(&syn)).is_empty());
    }

    #[test]
    fn a_difference_is_told_by_the_name_of_its_field() {
        let (syn, forwarded) = (frame("c0", SYN), frame("s0", FORWARDED));
        let mut got = forwarded.clone();
        got.octets[22] = 64;
        assert_eq!(
            check(&forwarded, &got, Some(&syn)),
            ["frame 0: ipv4.ttl: got 64 expected 63", "frame 0: ipv4.checksum: wrong"]
        );
    }

    #[test]
    fn the_identification_counts_only_where_it_came_in_with_the_packet() {
        let (syn, forwarded) = (frame("c0", SYN), frame("s0", FORWARDED));
        let mut got = forwarded.clone();
        got.octets[18] = 0x99; // the identification …
        got.octets[24] = 0x6e; // … and a header checksum that fits
        assert!(check(&forwarded, &got, None).is_empty());
        let told = check(&forwarded, &got, Some(&syn));
        assert_eq!(told[0], "frame 0: ipv4.id: got 0x9934 expected 0x1234");
        got.octets[24] = 0x6f;
        assert_eq!(check(&forwarded, &got, None), ["frame 0: ipv4.checksum: wrong"]);
    }

    #[test]
    fn packets_of_different_kinds_are_told_in_a_line_each() {
        let syn = frame("c0", SYN);
        let arp = frame(
            "s0",
            "ffffffffffff020000000501080600010800060400010200000005010a01\
                               0001000000000000c000020a",
        );
        assert_eq!(
            check(&arp, &syn, None),
            [
                "frame 0: got on c0, 54 octets, ipv4.source 198.51.100.1, \
                 ipv4.destination 192.0.2.10, ipv4.protocol 6, tcp.flags SYN",
                "frame 0: expected on s0, 42 octets, arp.operation 1, arp.target 192.0.2.10"
            ]
        );
    }

    #[test]
    fn missing_and_surplus_frames_are_told() {
        let (syn, forwarded) = (frame("c0", SYN), frame("s0", FORWARDED));
        let told = compare(&[&expected(forwarded.clone())], &[], Some(&syn));
        assert_eq!(told[0], "0 frames left, expected 1");
        assert!(
            told[1].starts_with("frame 0: missing: on s0, 54 octets, ipv4.source 198.51.100.1")
        );
        assert!(compare(&[], &[forwarded], Some(&syn))[1].starts_with("frame 0: too much: "));
    }

    #[test]
    fn order_counts_on_one_interface_only() {
        let (a, b) = (frame("c0", SYN), frame("s0", FORWARDED));
        let wanted = [expected(a.clone()), expected(b.clone())];
        let wanted: Vec<&ExpectedFrame> = wanted.iter().collect();
        assert!(compare(&wanted, &[b, a], None).is_empty());
    }
}
