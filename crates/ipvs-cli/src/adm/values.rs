//! Values of options: numbers, addresses with a port, masks.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::names::Names;

/// The number that `text` says, if it is within `min..=max`.
///
/// Decimal only; blanks, a sign and zeros in front are allowed, nothing behind.
pub(crate) fn number(text: &[u8], min: u32, max: u32) -> Option<u32> {
    let text = str::from_utf8(text).ok()?.trim_start_matches(is_space);
    let (digits, is_negative) = match text.strip_prefix('-') {
        Some(digits) => (digits, true),
        None => (text.strip_prefix('+').unwrap_or(text), false),
    };
    if digits.is_empty() || !digits.bytes().all(|octet| octet.is_ascii_digit()) {
        return None;
    }
    let value: u32 = digits.parse().ok()?;
    (value >= min && value <= max && !(is_negative && value > 0)).then_some(value)
}

/// Number at the start of `text`, 0 if there is none: as C's `atoi` reads it on
/// machines with 64 bits, where a number is cut to the lower 32.
pub(crate) fn leading_number(text: &[u8]) -> i32 {
    let text = text.trim_ascii_start();
    let (digits, sign) = match text.strip_prefix(b"-") {
        Some(digits) => (digits, -1),
        None => (text.strip_prefix(b"+").unwrap_or(text), 1),
    };
    let digits = digits.iter().take_while(|octet| octet.is_ascii_digit());
    let value = digits.fold(0_i64, |value, octet| {
        value.saturating_mul(10).saturating_add(sign * i64::from(octet - b'0'))
    });
    #[expect(clippy::cast_possible_truncation, reason = "cut as there")]
    let value = value as i32;
    value
}

/// What C's `isspace` takes for a blank.
const fn is_space(letter: char) -> bool {
    matches!(letter, ' ' | '\t' | '\n' | '\x0b' | '\x0c' | '\r')
}

/// An IPv4 address in any of the forms of C's `inet_aton`: one to four parts,
/// decimal, octal or hexadecimal, of which the last fills what is left.
pub(crate) fn inet_aton(text: &str) -> Option<Ipv4Addr> {
    // Blanks may follow, and then anything.
    let text = text.split(is_space).next()?;
    let parts: Vec<u32> = text.split('.').map(aton_part).collect::<Option<_>>()?;
    let (&last, front) = parts.split_last()?;
    if front.len() > 3 || front.iter().any(|&part| part > 0xff) {
        return None;
    }
    let mut value: u32 = 0;
    for part in front {
        value = value << 8 | part;
    }
    let last_bits = 32 - 8 * u32::try_from(front.len()).ok()?;
    if last_bits < 32 && last >> last_bits != 0 {
        return None;
    }
    let front_bits = value.checked_shl(last_bits).unwrap_or(0);
    Some(Ipv4Addr::from(front_bits | last))
}

fn aton_part(text: &str) -> Option<u32> {
    let (digits, radix) = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => (digits, 16),
        None if text.len() > 1 && text.starts_with('0') => (text, 8),
        None => (text, 10),
    };
    // `from_str_radix` would take a sign.
    if !digits.bytes().all(|octet| octet.is_ascii_alphanumeric()) {
        return None;
    }
    u32::from_str_radix(digits, radix).ok()
}

/// An IPv4 address or the name of a host that has one.
pub(crate) fn ipv4_or_host(text: &[u8], names: &dyn Names) -> Option<Ipv4Addr> {
    let text = str::from_utf8(text).ok()?;
    inet_aton(text).or_else(|| names.host_addr(text))
}

/// An address and perhaps a port, as typed for a service or a real server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// The address.
    pub(crate) ip: IpAddr,
    /// The port, unless there was none.
    pub(crate) port: Option<u16>,
}

/// Reads `host[:port]`, `IPv6` or `[IPv6]:port`; the port may be the name of a
/// service of `protocol`.
pub(crate) fn endpoint(text: &[u8], protocol: u8, names: &dyn Names) -> Option<Endpoint> {
    let text = str::from_utf8(text).ok()?;
    if text.bytes().all(|octet| octet.is_ascii_digit()) {
        return None;
    }
    let port = |text: &str| {
        let number = number(text.as_bytes(), 0, u16::MAX.into());
        let number = number.and_then(|number| u16::try_from(number).ok());
        number.or_else(|| names.service_port(text, protocol))
    };
    if let Some(text) = text.strip_prefix('[') {
        let (host, rest) = text.split_once(']')?;
        let rest = rest.strip_prefix(':')?;
        return match host.parse::<Ipv6Addr>() {
            Ok(ip) => Some(Endpoint { ip: ip.into(), port: Some(port(rest)?) }),
            // ipvsadm takes an IPv4 host here, but then forgets the port.
            Err(_) => {
                Some(Endpoint { ip: ipv4_or_host(host.as_bytes(), names)?.into(), port: None })
            }
        };
    }
    if let Ok(ip) = text.parse::<Ipv6Addr>() {
        return Some(Endpoint { ip: ip.into(), port: None });
    }
    let (host, rest) = match text.rsplit_once(':') {
        Some((host, rest)) => (host, Some(rest)),
        None => (text, None),
    };
    let ip = ipv4_or_host(host.as_bytes(), names)?.into();
    let port = match rest {
        Some(rest) => Some(port(rest)?),
        None => None,
    };
    Some(Endpoint { ip, port })
}

#[cfg(test)]
mod tests {
    use super::super::names::NoNames;
    use super::*;

    #[test]
    fn numbers_may_have_blanks_a_plus_and_zeros_in_front() {
        for (text, expect) in [
            ("7", Some(7)),
            (" 7", Some(7)),
            ("+8", Some(8)),
            ("010", Some(10)),
            ("-0", Some(0)),
            ("-1", None),
            ("", None),
            (" ", None),
            ("1x", None),
            ("1 ", None),
            ("0x10", None),
            ("1.5", None),
            ("4294967295", Some(u32::MAX)),
            ("4294967296", None),
        ] {
            assert_eq!(number(text.as_bytes(), 0, u32::MAX), expect, "{text:?}");
        }
        assert_eq!(number(b"0", 1, 9), None);
        assert_eq!(number(b"10", 1, 9), None);
    }

    #[test]
    fn ipv4_addresses_have_many_forms() {
        for (text, expect) in [
            ("192.0.2.10", Some([192, 0, 2, 10])),
            ("192.0.2.010", Some([192, 0, 2, 8])),
            ("0xC000020B", Some([192, 0, 2, 11])),
            ("3221225994", Some([192, 0, 2, 10])),
            ("10.1", Some([10, 0, 0, 1])),
            ("10.1.257", Some([10, 1, 1, 1])),
            ("24", Some([0, 0, 0, 24])),
            ("4294967295", Some([255; 4])),
            ("192.0.2.256", None),
            ("192.0.2.10.1", None),
            ("192.0.2.", None),
            (" 192.0.2.10", None),
            ("10.16777216", None),
            ("1.+1", None),
            ("08", None),
            ("", None),
        ] {
            assert_eq!(inet_aton(text), expect.map(Ipv4Addr::from), "{text:?}");
        }
    }

    /// Writes the endpoint as `IP PORT`, with `-` for no port.
    #[track_caller]
    fn check(text: &str, expect: &str) {
        let endpoint = endpoint(text.as_bytes(), 6, &NoNames);
        let text = endpoint.map(|Endpoint { ip, port }| {
            format!("{ip} {}", port.map_or_else(|| "-".to_owned(), |port| port.to_string()))
        });
        assert_eq!(text.unwrap_or_default(), expect);
    }

    #[test]
    fn endpoints_are_split_at_the_last_colon() {
        check("192.0.2.10:80", "192.0.2.10 80");
        check("192.0.2.10", "192.0.2.10 -");
        check("192.0.2.10: 81", "192.0.2.10 81");
        check("192.0.2.10:", "");
        check(":80", "");
        check("80", "");
        check("", "");
        check("192.0.2.10:80:80", "");
        check("192.0.2.10:65536", "");
    }

    #[test]
    fn ipv6_with_a_port_stands_in_brackets() {
        check("[2001:db8::1]:80", "2001:db8::1 80");
        check("2001:db8::1", "2001:db8::1 -");
        check("[2001:db8::1]", "");
        check("[2001:db8::1]:", "");
        check("[2001:db8::1:80", "");
        check("2001:db8::1]:80", "");
        check("[fe80::1%c0]:80", "");
        check("[]:80", "");
        check("[192.0.2.10]:80", "192.0.2.10 -");
    }

    #[test]
    fn a_prefix_length_ends_at_the_first_letter() {
        assert_eq!(leading_number(b"48x"), 48);
        assert_eq!(leading_number(b" +48"), 48);
        assert_eq!(leading_number(b"-1"), -1);
        assert_eq!(leading_number(b"x"), 0);
        assert_eq!(leading_number(b"4294967300"), 4);
    }
}
