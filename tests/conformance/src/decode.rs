//! A frame as a list of named fields, each with its place, so that two frames
//! can be compared field by field.
//!
//! This is deliberately not the parser of the director: a mistake there must
//! not hide itself here.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::Range;

/// One field of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// Its name, such as `ipv4.ttl`; `inner.` before it in a tunnel, `quoted.`
    /// in an ICMP error.
    pub name: String,
    /// The octets it is in.
    pub place: Range<usize>,
    /// How people read it.
    pub value: String,
}

/// A frame taken apart.
#[derive(Clone, Debug, Default)]
pub struct Decoded {
    /// Its fields in order; together they cover every octet.
    pub fields: Vec<Field>,
    /// The names of checksums that are wrong.
    pub bad_checksums: Vec<String>,
    /// Whether the packet carries another one in a tunnel.
    pub tunnel: bool,
}

impl Decoded {
    /// The field of this name.
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|field| field.name == name)
    }
}

/// Takes `frame` apart.
pub fn decode(frame: &[u8]) -> Decoded {
    let mut decoder = Decoder {
        frame,
        at: 0,
        end: frame.len(),
        prefix: String::new(),
        decoded: Decoded::default(),
    };
    if decoder.ethernet().is_none() {
        decoder.rest("cut short");
    }
    decoder.end = frame.len();
    decoder.rest("trailer");
    decoder.decoded
}

/// Where an IP packet comes from and goes to, for pseudo headers.
struct Ends<'a> {
    source: &'a [u8],
    destination: &'a [u8],
    /// It is a fragment, so checksums cannot be looked at.
    fragment: bool,
    /// It is the beginning of its packet.
    first: bool,
}

struct Decoder<'a> {
    frame: &'a [u8],
    at: usize,
    end: usize,
    prefix: String,
    decoded: Decoded,
}

type Show = fn(&[u8]) -> String;

impl<'a> Decoder<'a> {
    /// Takes the next `len` octets as the field `name`.
    fn take(&mut self, name: &str, len: usize, show: Show) -> Option<&'a [u8]> {
        let place = self.at..self.at.checked_add(len)?;
        let octets = self.frame.get(..self.end)?.get(place.clone())?;
        self.at = place.end;
        let name = format!("{}{name}", self.prefix);
        self.decoded.fields.push(Field { name, place, value: show(octets) });
        Some(octets)
    }

    fn byte(&mut self, name: &str, show: Show) -> Option<u8> {
        self.take(name, 1, show)?.first().copied()
    }

    fn word(&mut self, name: &str, show: Show) -> Option<u16> {
        Some(u16::from_be_bytes(*self.take(name, 2, show)?.first_chunk()?))
    }

    /// Takes all that is left as one field, if anything is.
    fn rest(&mut self, name: &str) {
        if self.at < self.end {
            let len = self.end - self.at;
            self.take(name, len, hexadecimal);
        }
    }

    /// The octets from `from` to the end of the packet.
    fn since(&self, from: usize) -> &'a [u8] {
        self.frame.get(from..self.end).unwrap_or_default()
    }

    fn wrong(&mut self, name: &str) {
        self.decoded.bad_checksums.push(format!("{}{name}", self.prefix));
    }

    fn ethernet(&mut self) -> Option<()> {
        self.take("eth.destination", 6, mac)?;
        self.take("eth.source", 6, mac)?;
        let mut ethertype = self.word("eth.type", hexadecimal)?;
        if ethertype == 0x8100 {
            self.take("vlan.tag", 2, decimal)?;
            ethertype = self.word("vlan.type", hexadecimal)?;
        }
        match ethertype {
            0x0800 => self.ipv4(true),
            0x86dd => self.ipv6(true),
            0x0806 => self.arp(),
            _ => {
                self.rest("payload");
                Some(())
            }
        }
    }

    fn arp(&mut self) -> Option<()> {
        self.take("arp.types", 6, hexadecimal)?;
        self.take("arp.operation", 2, decimal)?;
        self.take("arp.sender_mac", 6, mac)?;
        self.take("arp.sender", 4, address)?;
        self.take("arp.target_mac", 6, mac)?;
        self.take("arp.target", 4, address)?;
        Some(())
    }

    /// `whole` is false for a quotation, which is cut off anywhere.
    fn ipv4(&mut self, whole: bool) -> Option<()> {
        let start = self.at;
        let version = self.byte("ipv4.version_ihl", hexadecimal)?;
        let header_len = usize::from(version & 0x0f) * 4;
        self.take("ipv4.tos", 1, hexadecimal)?;
        let total = usize::from(self.word("ipv4.total_length", decimal)?);
        self.take("ipv4.id", 2, hexadecimal)?;
        let flags = self.word("ipv4.flags_offset", flags_offset)?;
        self.take("ipv4.ttl", 1, decimal)?;
        let protocol = self.byte("ipv4.protocol", decimal)?;
        self.take("ipv4.checksum", 2, hexadecimal)?;
        let source = self.take("ipv4.source", 4, address)?;
        let destination = self.take("ipv4.destination", 4, address)?;
        if header_len > 20 {
            self.take("ipv4.options", header_len - 20, hexadecimal)?;
        }
        if whole {
            if sum(&[self.frame.get(start..self.at)?]) != 0xffff {
                self.wrong("ipv4.checksum");
            }
            self.end = self.end.min(start + total.max(header_len));
        }
        let fragment = !whole || flags & 0x3fff != 0;
        // The offset is the low 13 bits.
        let ends = Ends { source, destination, fragment, first: flags.trailing_zeros() >= 13 };
        self.above_ip(protocol, &ends)
    }

    fn ipv6(&mut self, whole: bool) -> Option<()> {
        let start = self.at;
        self.take("ipv6.version_class_label", 4, hexadecimal)?;
        let payload = usize::from(self.word("ipv6.payload_length", decimal)?);
        let mut next = self.byte("ipv6.next_header", decimal)?;
        self.take("ipv6.hop_limit", 1, decimal)?;
        let source = self.take("ipv6.source", 16, address)?;
        let destination = self.take("ipv6.destination", 16, address)?;
        if whole {
            self.end = self.end.min(start + 40 + payload);
        }
        let mut ends = Ends { source, destination, fragment: !whole, first: true };
        loop {
            match next {
                0 | 43 | 60 => {
                    let at = self.at;
                    let of_header = *self.frame.get(..self.end)?.get(at)?;
                    let len = (usize::from(*self.frame.get(at + 1)?) + 1) * 8;
                    self.take(&format!("ipv6.extension_{next}"), len, hexadecimal)?;
                    next = of_header;
                }
                44 => {
                    next = self.byte("ipv6.fragment_next", decimal)?;
                    self.take("ipv6.fragment_reserved", 1, hexadecimal)?;
                    let offset = self.word("ipv6.fragment_offset", hexadecimal)?;
                    self.take("ipv6.fragment_id", 4, hexadecimal)?;
                    ends.fragment |= offset & 0xfff9 != 0;
                    ends.first = offset & 0xfff8 == 0;
                }
                _ => return self.above_ip(next, &ends),
            }
        }
    }

    fn above_ip(&mut self, protocol: u8, ends: &Ends<'_>) -> Option<()> {
        if !ends.first {
            self.rest("fragment");
            return Some(());
        }
        match protocol {
            6 => self.tcp(ends)?,
            17 => self.udp(ends)?,
            132 => {
                self.take("sctp.source_port", 2, decimal)?;
                self.take("sctp.destination_port", 2, decimal)?;
                self.take("sctp.tag", 4, hexadecimal)?;
                self.take("sctp.checksum", 4, hexadecimal)?;
            }
            1 => return self.icmp("icmp", ends),
            58 => return self.icmp("icmpv6", ends),
            4 | 41 | 47 if ends.fragment => self.decoded.tunnel = true,
            4 => return self.tunneled(4),
            41 => return self.tunneled(6),
            47 => return self.gre(),
            _ => {}
        }
        self.rest("payload");
        Some(())
    }

    fn tunneled(&mut self, version: u8) -> Option<()> {
        self.decoded.tunnel = true;
        self.prefix.push_str("inner.");
        if version == 4 { self.ipv4(true) } else { self.ipv6(true) }
    }

    fn gre(&mut self) -> Option<()> {
        let start = self.at;
        let flags = self.word("gre.flags", hexadecimal)?;
        let inner = self.word("gre.type", hexadecimal)?;
        if flags & 0x8000 != 0 {
            self.take("gre.checksum", 4, hexadecimal)?;
            if sum(&[self.since(start)]) != 0xffff {
                self.wrong("gre.checksum");
            }
        }
        match inner {
            0x0800 => self.tunneled(4),
            0x86dd => self.tunneled(6),
            _ => None,
        }
    }

    fn tcp(&mut self, ends: &Ends<'_>) -> Option<()> {
        let segment = self.since(self.at);
        self.take("tcp.source_port", 2, decimal)?;
        self.take("tcp.destination_port", 2, decimal)?;
        self.take("tcp.sequence", 4, decimal)?;
        self.take("tcp.acknowledgement", 4, decimal)?;
        let offset = self.byte("tcp.data_offset", hexadecimal)?;
        self.take("tcp.flags", 1, tcp_flags)?;
        self.take("tcp.window", 2, decimal)?;
        self.take("tcp.checksum", 2, hexadecimal)?;
        self.take("tcp.urgent", 2, decimal)?;
        if !ends.fragment && pseudo_sum(ends, 6, segment) != 0xffff {
            self.wrong("tcp.checksum");
        }
        let options = (usize::from(offset >> 4) * 4).saturating_sub(20);
        if options > 0 {
            self.take("tcp.options", options, hexadecimal)?;
        }
        Some(())
    }

    fn udp(&mut self, ends: &Ends<'_>) -> Option<()> {
        const GUE: u16 = 6080;
        let datagram = self.since(self.at);
        self.take("udp.source_port", 2, decimal)?;
        let port = self.word("udp.destination_port", decimal)?;
        let len = usize::from(self.word("udp.length", decimal)?);
        let checksum = self.word("udp.checksum", hexadecimal)?;
        if !ends.fragment && checksum != 0 {
            let covered = datagram.get(..len).unwrap_or(datagram);
            if pseudo_sum(ends, 17, covered) != 0xffff {
                self.wrong("udp.checksum");
            }
        }
        if port == GUE && !ends.fragment {
            let control = self.word("gue.header", hexadecimal)?;
            self.take("gue.flags", 2, hexadecimal)?;
            let private = usize::from(control >> 8 & 0x1f) * 4;
            if private > 0 {
                self.take("gue.private", private, hexadecimal)?;
            }
            return match control & 0xff {
                4 => self.tunneled(4),
                41 => self.tunneled(6),
                _ => None,
            };
        }
        Some(())
    }

    fn icmp(&mut self, name: &str, ends: &Ends<'_>) -> Option<()> {
        let message = self.since(self.at);
        let kind = self.byte(&format!("{name}.type"), decimal)?;
        self.take(&format!("{name}.code"), 1, decimal)?;
        self.take(&format!("{name}.checksum"), 2, hexadecimal)?;
        let v6 = name == "icmpv6";
        let total = if v6 { pseudo_sum(ends, 58, message) } else { sum(&[message]) };
        if !ends.fragment && total != 0xffff {
            self.wrong(&format!("{name}.checksum"));
        }
        self.take(&format!("{name}.word"), 4, hexadecimal)?;
        let error = if v6 { kind < 128 } else { matches!(kind, 3 | 4 | 5 | 11 | 12) };
        if error {
            self.prefix.push_str("quoted.");
            // A quotation may end anywhere.
            let _ = if v6 { self.ipv6(false) } else { self.ipv4(false) };
        }
        self.rest("payload");
        Some(())
    }
}

/// The Internet checksum's sum (RFC 1071) over `parts`, each of which but the
/// last has an even length: 0xffff where a checksum in them is right.
fn sum(parts: &[&[u8]]) -> u16 {
    let mut total: u64 = 0;
    for pair in parts.iter().flat_map(|part| part.chunks(2)) {
        let (high, low) = (pair.first().copied().unwrap_or(0), pair.get(1).copied().unwrap_or(0));
        total += u64::from(u16::from_be_bytes([high, low]));
    }
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    u16::try_from(total).unwrap_or(0)
}

fn pseudo_sum(ends: &Ends<'_>, protocol: u8, segment: &[u8]) -> u16 {
    let len = u32::try_from(segment.len()).unwrap_or(u32::MAX).to_be_bytes();
    sum(&[ends.source, ends.destination, &len, &[0, protocol], segment])
}

fn hexadecimal(octets: &[u8]) -> String {
    const SHOWN: usize = 32;
    let shown = hex::encode(octets.get(..SHOWN).unwrap_or(octets));
    if octets.len() > SHOWN {
        format!("{shown}… ({} octets)", octets.len())
    } else {
        format!("0x{shown}")
    }
}

fn decimal(octets: &[u8]) -> String {
    octets.iter().fold(0u64, |value, octet| value << 8 | u64::from(*octet)).to_string()
}

fn mac(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect::<Vec<_>>().join(":")
}

fn address(octets: &[u8]) -> String {
    if let Ok(v4) = <[u8; 4]>::try_from(octets) {
        return Ipv4Addr::from(v4).to_string();
    }
    <[u8; 16]>::try_from(octets)
        .map_or_else(|_| hexadecimal(octets), |v6| Ipv6Addr::from(v6).to_string())
}

fn flags_offset(octets: &[u8]) -> String {
    let word = octets.iter().fold(0u16, |value, octet| value << 8 | u16::from(*octet));
    let named = [(0x8000, "reserved "), (0x4000, "DF "), (0x2000, "MF ")];
    let flags: String =
        named.iter().filter(|(bit, _)| word & bit != 0).map(|(_, name)| *name).collect();
    format!("{flags}offset {}", (word & 0x1fff) * 8)
}

fn tcp_flags(octets: &[u8]) -> String {
    let flags = octets.first().copied().unwrap_or(0);
    let names = ["FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR"];
    let set = names.iter().enumerate().filter(|(bit, _)| flags >> bit & 1 != 0);
    let set: Vec<&str> = set.map(|(_, name)| *name).collect();
    if set.is_empty() { "none".into() } else { set.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::{Action, Recorded, folders};
    use std::path::Path;

    const SYN: &str = "020000000c01020000000c020800450000281234400040063c5dc6336401c000020a\
                       9c400050000003e8000000005002ffff232b0000";

    #[test]
    fn a_field_has_a_name_a_place_and_a_reading() {
        let decoded = decode(&hex::decode(SYN).unwrap());
        let value = |name: &str| decoded.field(name).unwrap().value.clone();
        assert_eq!(value("ipv4.source"), "198.51.100.1");
        assert_eq!(value("ipv4.flags_offset"), "DF offset 0");
        assert_eq!(value("tcp.flags"), "SYN");
        assert_eq!(decoded.field("ipv4.ttl").unwrap().place, 22..23);
        assert!(decoded.bad_checksums.is_empty());
    }

    #[test]
    fn a_wrong_checksum_is_named() {
        let mut frame = hex::decode(SYN).unwrap();
        frame[24] ^= 1; // the IP header's
        assert_eq!(decode(&frame).bad_checksums, ["ipv4.checksum"]);
        frame[24] ^= 1;
        frame[38] ^= 1; // a sequence number, so TCP's no longer fits
        assert_eq!(decode(&frame).bad_checksums, ["tcp.checksum"]);
    }

    #[test]
    fn the_fields_of_every_recorded_frame_cover_it_without_a_gap() {
        for folder in folders(&Path::new(env!("CARGO_MANIFEST_DIR")).join("cases")).unwrap() {
            let recorded = Recorded::load(&folder).unwrap();
            for expected in recorded.expected.steps.iter().flat_map(|step| &step.frames) {
                let frame = &expected.frame.octets;
                let mut at = 0;
                for field in decode(frame).fields {
                    assert_eq!(field.place.start, at, "{} in {}", field.name, hex::encode(frame));
                    at = field.place.end;
                }
                assert_eq!(at, frame.len());
            }
        }
    }

    #[test]
    fn the_kernel_sent_wrong_checksums_only_where_it_was_given_some() {
        for folder in folders(&Path::new(env!("CARGO_MANIFEST_DIR")).join("cases")).unwrap() {
            let recorded = Recorded::load(&folder).unwrap();
            let name = &recorded.case.name;
            let was_given_some = recorded.case.steps.iter().any(|step| match &step.action {
                Action::Frame(frame) => !decode(&frame.octets).bad_checksums.is_empty(),
                _ => false,
            });
            if was_given_some {
                continue;
            }
            for expected in recorded.expected.steps.iter().flat_map(|step| &step.frames) {
                let bad = decode(&expected.frame.octets).bad_checksums;
                assert!(
                    bad.is_empty(),
                    "{name}: {bad:?} in {}",
                    hex::encode(&expected.frame.octets)
                );
            }
        }
    }
}
