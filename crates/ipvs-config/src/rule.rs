//! Mark rules as text: the words of `ipvs mark`, which the file has, too.

use std::fmt::Write as _;
use std::net::IpAddr;

use ipvs_core::addr::{Addr, Family};
use ipvs_core::mark::{MarkRule, prefix_len, prefix_mask};

use crate::words;

/// Addresses under a mask.
pub type Prefix = (Family, Addr, Addr);

/// A rule in the words of `ipvs mark add` that make it.
pub fn shown(rule: &MarkRule) -> String {
    let family = Family::from_tag(rule.family);
    let mut words = String::new();
    // A string takes everything.
    let _ = write!(words, "{}", rule.mark);
    if rule.mask != u32::MAX {
        let _ = write!(words, "/{:#x}", rule.mask);
    }
    let addressed = !rule.source_mask.is_unspecified() || !rule.destination_mask.is_unspecified();
    if family == Family::V6 && !addressed {
        words.push_str(" --ipv6");
    }
    for (option, addr, mask) in
        [("from", rule.source, rule.source_mask), ("to", rule.destination, rule.destination_mask)]
    {
        if !mask.is_unspecified() {
            let _ = write!(words, " --{option} {}", shown_prefix(family, addr, mask));
        }
    }
    match (rule.protocol, words::protocol(rule.protocol)) {
        (0, _) => {}
        (_, Some(name)) => {
            let _ = write!(words, " --protocol {name}");
        }
        (number, None) => {
            let _ = write!(words, " --protocol {number}");
        }
    }
    if let Some(ports) = shown_ports(rule) {
        let _ = write!(words, " --ports {ports}");
    }
    if !rule.interface_name().is_empty() {
        let _ = write!(words, " --interface {}", rule.interface_name());
    }
    words
}

/// `ADDRESS/LEN`.
pub(crate) fn shown_prefix(family: Family, addr: Addr, mask: Addr) -> String {
    format!("{}/{}", addr.to_ip(family), prefix_len(mask))
}

/// `PORT` or `PORT-PORT`; `None` for any.
pub(crate) fn shown_ports(rule: &MarkRule) -> Option<String> {
    match (rule.first_port, rule.last_port) {
        (0, u16::MAX) => None,
        (first, last) if first == last => Some(first.to_string()),
        (first, last) => Some(format!("{first}-{last}")),
    }
}

/// Reads `ADDRESS[/LEN]`.
pub fn prefix(text: &str) -> Result<Prefix, String> {
    let (addr, len) = text.split_once('/').map_or((text, None), |(addr, len)| (addr, Some(len)));
    let ip: IpAddr = addr.parse().map_err(|_bad| format!("`{addr}` is no address"))?;
    let longest = if ip.is_ipv4() { 32 } else { 128 };
    let len = match len {
        None => longest,
        Some(len) => match len.parse() {
            Ok(len) if len <= longest => len,
            _ => return Err(format!("a prefix has at most {longest} bits")),
        },
    };
    let (family, addr) = Addr::from_ip(ip);
    let mask = prefix_mask(family, len);
    let (words, bits) = (addr.words(), mask.words());
    if words.iter().zip(bits).any(|(word, bits)| word & !bits != 0) {
        return Err(format!("{ip} has bits behind the prefix of {len}"));
    }
    Ok((family, addr, mask))
}

/// Reads the name or number of a protocol.
pub fn protocol(text: &str) -> Result<u8, String> {
    match text {
        "tcp" => Ok(6),
        "udp" => Ok(17),
        "sctp" => Ok(132),
        _ => match text.parse() {
            Ok(number) if number != 0 => Ok(number),
            _ => Err("a protocol is tcp, udp, sctp or a number from 1 to 255".into()),
        },
    }
}

/// Reads `PORT[-PORT]`.
pub fn ports(text: &str) -> Result<(u16, u16), String> {
    let port = |text: &str| text.parse::<u16>().map_err(|_bad| format!("`{text}` is no port"));
    let (first, last) = match text.split_once('-') {
        Some((first, last)) => (port(first)?, port(last)?),
        None => (port(text)?, port(text)?),
    };
    if first > last { Err("the first port is behind the last".into()) } else { Ok((first, last)) }
}

/// Reads the name of an interface.
pub fn interface(text: &str) -> Result<[u8; 16], String> {
    if text.is_empty() || text.len() > 15 {
        return Err("an interface's name has 1 to 15 octets".into());
    }
    let mut name = [0; 16];
    for (to, from) in name.iter_mut().zip(text.as_bytes()) {
        *to = *from;
    }
    Ok(name)
}
