//! Frames in a recording that the kernel's own stack made, not its director.
//!
//! Where the core has no host beside it, it answers such packets with the
//! verdict `pass`; nothing more can be asked of it. So when, and only when, a
//! step ended in that verdict, the frames named here need not come from it:
//!
//! * what a host says of a packet to one of its addresses that nobody wants: a
//!   TCP reset, an SCTP abort, an ICMP error, an ICMP echo reply;
//! * the packet itself, routed on with one hop less and otherwise untouched;
//! * address resolution, at any time.
//!
//! A frame that a director must have made, such as a translated packet, is
//! never excused: a `pass` in its place is a difference.

use crate::case::Frame;
use crate::decode::{Decoded, decode};

/// Whether the kernel's stack may have sent `frame` on being passed `injected`.
pub fn accepts(frame: &Frame, injected: &Frame) -> bool {
    let (sent, given) = (decode(&frame.octets), decode(&injected.octets));
    is_resolution(&sent) || is_answer(&sent, &given) || is_routed_on(frame, injected, &sent, &given)
}

/// Whether `frame` is ARP or neighbour discovery.
pub fn resolves(frame: &Frame) -> bool {
    is_resolution(&decode(&frame.octets))
}

/// Whether `frame` is what a host without SCTP answers to an SCTP packet such as `injected`:
/// that it does not know the protocol. The host of the recordings knew it.
pub fn refuses_sctp(frame: &Frame, injected: &Frame) -> bool {
    const SCTP: Option<&str> = Some("132");
    let sent = decode(&frame.octets);
    if is_quoting(&decode(&injected.octets)) {
        return false;
    }
    let is = |name: &str, wanted: &str| value(&sent, name) == Some(wanted);
    let refuses4 = is("icmp.type", "3") && is("icmp.code", "2");
    let refuses6 = is("icmpv6.type", "4") && is("icmpv6.code", "1");
    (refuses4 && value(&sent, "quoted.ipv4.protocol") == SCTP)
        || (refuses6 && value(&sent, "quoted.ipv6.next_header") == SCTP)
}

fn value<'a>(decoded: &'a Decoded, name: &str) -> Option<&'a str> {
    decoded.field(name).map(|field| field.value.as_str())
}

/// Whether the packet is an error, which quotes another: no host answers one by an error.
fn is_quoting(packet: &Decoded) -> bool {
    packet.fields.iter().any(|field| field.name.starts_with("quoted."))
}

fn is_resolution(sent: &Decoded) -> bool {
    sent.field("arp.operation").is_some()
        || matches!(value(sent, "icmpv6.type"), Some("135" | "136"))
}

/// An answer goes back to where the packet came from.
fn is_answer(sent: &Decoded, given: &Decoded) -> bool {
    let to_sender = |family: &str| {
        let source = value(given, &format!("{family}.source"));
        source.is_some() && source == value(sent, &format!("{family}.destination"))
    };
    if sent.tunnel || !(to_sender("ipv4") || to_sender("ipv6")) {
        return false;
    }
    let is = |name: &str, wanted: &str| value(sent, name) == Some(wanted);
    let is_reset = value(sent, "tcp.flags").is_some_and(|flags| flags.contains("RST"));
    // An abort, or "shutdown complete" to a shutdown that nobody knows of (RFC 9260, 8.4).
    let is_abort = sent.field("sctp.tag").is_some()
        && value(sent, "payload")
            .is_some_and(|chunk| chunk.starts_with("0x06") || chunk.starts_with("0x0e"));
    let is_echo_reply = is("icmp.type", "0") || is("icmpv6.type", "129");
    is_reset || is_abort || is_echo_reply || is_error(sent, given)
}

/// A host refuses UDP with "port unreachable", never TCP; and an error that it
/// makes as a router bears an address of its own, not the one it was sent to. It says
/// there, too, what contradicts itself, and which protocols it does not know.
fn is_error(sent: &Decoded, given: &Decoded) -> bool {
    let is = |name: &str, kind: &str, code: Option<&str>| {
        value(sent, &format!("{name}.type")) == Some(kind)
            && code.is_none_or(|code| value(sent, &format!("{name}.code")) == Some(code))
    };
    let port_unreachable = is("icmp", "3", Some("3")) || is("icmpv6", "1", Some("4"));
    // ICMPv6 has one type for both.
    let header_problem =
        is("icmp", "12", None) || is("icmp", "3", Some("2")) || is("icmpv6", "4", None);
    let from_destination = ["ipv4", "ipv6"].iter().any(|family| {
        let source = value(sent, &format!("{family}.source"));
        source.is_some() && source == value(given, &format!("{family}.destination"))
    });
    is_quoting(sent)
        && !is_quoting(given)
        && if port_unreachable {
            given.field("tcp.flags").is_none()
        } else {
            header_problem || !from_destination
        }
}

/// Everything behind the Ethernet header is as it came in, but the hop count.
fn is_routed_on(frame: &Frame, injected: &Frame, sent: &Decoded, given: &Decoded) -> bool {
    const CHANGED: [&str; 5] =
        ["eth.destination", "eth.source", "ipv4.ttl", "ipv4.checksum", "ipv6.hop_limit"];
    let hops = |decoded: &Decoded| {
        let field = value(decoded, "ipv4.ttl").or_else(|| value(decoded, "ipv6.hop_limit"));
        field.and_then(|hops| hops.parse::<u8>().ok())
    };
    let rest = |frame: &Frame, decoded: &Decoded| {
        let kept = decoded.fields.iter().filter(|field| !CHANGED.contains(&field.name.as_str()));
        kept.filter_map(|field| frame.octets.get(field.place.clone()))
            .flatten()
            .copied()
            .collect::<Vec<u8>>()
    };
    hops(given).and_then(|hops| hops.checked_sub(1)) == hops(sent)
        && hops(sent).is_some()
        && rest(frame, sent) == rest(injected, given)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SYN: &str = "020000000c01020000000c020800450000281234400040063c5dc6336401c000020a\
                       9c400050000003e8000000005002ffff232b0000";
    const FORWARDED: &str = "020000005111020000000501080045000028123440003f06f55bc63364010a01000b\
                             9c401f90000003e8000000005002ffffbbe90000";
    const RESET: &str = "020000000c02020000000c0108004500002800004000400 64e91c000020ac6336401\
                         00509c4000000000000003e950140000 b3270000";
    const ROUTED: &str = "020000005111020000000501080045000028123440003f063d5dc6336401c000020a\
                          9c400050000003e8000000005002ffff232b0000";

    fn frame(octets: &str) -> Frame {
        Frame { dev: "c0".into(), octets: hex::decode(octets.replace(' ', "")).unwrap() }
    }

    #[test]
    fn a_reset_and_a_routed_packet_are_the_hosts() {
        assert!(accepts(&frame(RESET), &frame(SYN)));
        assert!(accepts(&frame(ROUTED), &frame(SYN)));
    }

    #[test]
    fn tcp_is_refused_with_an_error_by_directors_only() {
        let error = "020000000c02020000000c010800450000380000400040 0100c5c000020ac6336401\
                     0303e4d500000000450000281234400040063c5dc6336401c000020a9c400050000003e8";
        assert!(!accepts(&frame(error), &frame(SYN)));
    }

    #[test]
    fn a_translated_packet_is_the_directors() {
        assert!(!accepts(&frame(FORWARDED), &frame(SYN)));
    }
}
