//! The recorded commands that mark packets, as mark rules of our own, for the
//! planes that packets reach before any firewall.
//!
//! Only the forms that the recordings use are known. Another one is an error,
//! so that no case passes by chance.

use ipvs_core::addr::{Addr, Family};
use ipvs_core::command::Command;
use ipvs_core::mark::{MarkRule, prefix_mask};
use ipvs_core::snapshot::Control;

use crate::case::Output;
use crate::subject::Trouble;

/// What a command line of the firewall comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Meant {
    /// Nothing to do with marks or firewalls.
    Other,
    /// Only what the marks are made with, or routes that marked packets take to
    /// reach the director; here they reach it anyhow.
    Nothing,
    /// These edits.
    Edits(Vec<Command>),
    /// Something that mark rules cannot do.
    Unknown,
}

/// Why a case with this line cannot be replayed.
pub fn unknown(line: &str) -> Trouble {
    Trouble::Unsupported(format!("`{line}`: packets reach this plane before the host's firewall"))
}

/// Makes edits; the tool that they stand for says nothing.
pub fn apply(control: &mut dyn Control, edits: &[Command]) -> anyhow::Result<Output> {
    control.apply(edits)?;
    Ok(Output::default())
}

/// What the words of a command line come to.
pub fn meant(words: &[String]) -> Meant {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["nft", rest @ ..] => {
            // A command for nft may be one word or several.
            let words = spaced(rest);
            nft(&words.iter().map(String::as_str).collect::<Vec<_>>())
        }
        [program @ ("iptables" | "ip6tables"), rest @ ..] => {
            let family = if *program == "ip6tables" { Family::V6 } else { Family::V4 };
            iptables(family, rest)
        }
        ["ip", "rule", "add", ..] | ["ip", "-6", "rule", "add", ..]
            if words.contains(&"fwmark") =>
        {
            Meant::Nothing
        }
        ["ip", "route", "add", "local", _, "dev", "lo", "table", _]
        | ["ip", "-6", "route", "add", "local", _, "dev", "lo", "table", _] => Meant::Nothing,
        _ => Meant::Other,
    }
}

/// The words of a command for nft, braces and commas set apart.
fn spaced(words: &[&str]) -> Vec<String> {
    let mut line = words.join(" ");
    for mark in ["{", "}", ",", ";"] {
        line = line.replace(mark, &format!(" {mark} "));
    }
    line.split_whitespace().map(str::to_owned).collect()
}

fn nft(words: &[&str]) -> Meant {
    match words {
        ["add", "table", "ip" | "ip6" | "inet", _] => Meant::Nothing,
        ["add", "chain", "ip" | "ip6" | "inet", _, _, "{", "type", "filter", "hook", hook, ..]
            if *hook == "prerouting" =>
        {
            Meant::Nothing
        }
        ["add", "rule", family @ ("ip" | "ip6" | "inet"), _, _, rest @ ..] => {
            let families: &[Family] = match *family {
                "ip" => &[Family::V4],
                "ip6" => &[Family::V6],
                _ => &[Family::V4, Family::V6],
            };
            nft_rule(families, rest).map_or(Meant::Unknown, Meant::Edits)
        }
        _ => Meant::Unknown,
    }
}

/// What a rule asks of packets, while it is read.
#[derive(Clone, Debug, Default)]
struct Wanted {
    source: Option<(Family, Addr, Addr)>,
    destination: Option<(Family, Addr, Addr)>,
    protocols: Vec<u8>,
    ports: Vec<(u16, u16)>,
    interface: Option<String>,
}

impl Wanted {
    /// The rules that set `mark` under `mask`; several where one of ours has no sets.
    fn edits(&self, families: &[Family], mark: u32, mask: u32) -> Option<Vec<Command>> {
        let any_port = [(0, u16::MAX)];
        let ports = if self.ports.is_empty() { &any_port[..] } else { &self.ports };
        let protocols = if self.protocols.is_empty() { &[0][..] } else { &self.protocols };
        let mut edits = Vec::new();
        for family in families {
            let nets = [self.source, self.destination];
            if nets.iter().flatten().any(|(of, ..)| of != family) {
                continue;
            }
            for protocol in protocols {
                for (first, last) in ports {
                    let mut rule = MarkRule::any(*family, mark, mask);
                    rule.protocol = *protocol;
                    (rule.first_port, rule.last_port) = (*first, *last);
                    if let Some((_, addr, bits)) = self.source {
                        (rule.source, rule.source_mask) = (addr, bits);
                    }
                    if let Some((_, addr, bits)) = self.destination {
                        (rule.destination, rule.destination_mask) = (addr, bits);
                    }
                    if let Some(name) = &self.interface {
                        rule.interface.get_mut(..name.len())?.copy_from_slice(name.as_bytes());
                    }
                    edits.push(Command::AddMarkRule(rule.named()));
                }
            }
        }
        Some(edits)
    }
}

fn nft_rule(families: &[Family], words: &[&str]) -> Option<Vec<Command>> {
    let mut wanted = Wanted::default();
    let mut rest = words;
    loop {
        rest = match rest {
            ["ip" | "ip6", "saddr", net, rest @ ..] => {
                wanted.source = Some(prefix(net)?);
                rest
            }
            ["ip" | "ip6", "daddr", net, rest @ ..] => {
                wanted.destination = Some(prefix(net)?);
                rest
            }
            ["iif" | "iifname", name, rest @ ..] => {
                wanted.interface = Some(name.trim_matches('"').to_owned());
                rest
            }
            ["counter", rest @ ..] => rest,
            ["meta", "l4proto", rest @ ..] => {
                let (names, rest) = set(rest)?;
                wanted.protocols = names.iter().map(|it| protocol(it)).collect::<Option<_>>()?;
                rest
            }
            ["ip", "protocol", name, rest @ ..] | ["ip6", "nexthdr", name, rest @ ..] => {
                wanted.protocols = vec![protocol(name)?];
                rest
            }
            [name @ ("tcp" | "udp" | "sctp"), "dport", rest @ ..] => {
                let (ports, rest) = set(rest)?;
                wanted.protocols = vec![protocol(name)?];
                wanted.ports = ports.iter().map(|it| range(it, '-')).collect::<Option<_>>()?;
                rest
            }
            ["th", "dport", rest @ ..] => {
                let (ports, rest) = set(rest)?;
                wanted.ports = ports.iter().map(|it| range(it, '-')).collect::<Option<_>>()?;
                rest
            }
            ["meta", "mark", "set", mark] | ["mark", "set", mark] => {
                return wanted.edits(families, number(mark)?, u32::MAX);
            }
            _ => return None,
        };
    }
}

/// One word, or those between braces; and what follows.
fn set<'a, 'w>(words: &'w [&'a str]) -> Option<(Vec<&'a str>, &'w [&'a str])> {
    match words {
        ["{", rest @ ..] => {
            let end = rest.iter().position(|word| *word == "}")?;
            let (inside, rest) = rest.split_at_checked(end)?;
            let inside = inside.iter().copied().filter(|word| *word != ",").collect();
            Some((inside, rest.get(1..)?))
        }
        [word, rest @ ..] => Some((vec![*word], rest)),
        [] => None,
    }
}

fn iptables(family: Family, words: &[&str]) -> Meant {
    let mut wanted = Wanted::default();
    let ["-t", "mangle", "-A", "PREROUTING", rest @ ..] = words else {
        return Meant::Unknown;
    };
    let mut rest = rest;
    let mut read = || -> Option<Vec<Command>> {
        loop {
            rest = match rest {
                ["-s", net, rest @ ..] => {
                    wanted.source = Some(prefix(net)?);
                    rest
                }
                ["-d", net, rest @ ..] => {
                    wanted.destination = Some(prefix(net)?);
                    rest
                }
                ["-i", name, rest @ ..] => {
                    wanted.interface = Some((*name).to_owned());
                    rest
                }
                ["-p", name, rest @ ..] => {
                    wanted.protocols = vec![protocol(name)?];
                    rest
                }
                ["-m", "tcp" | "udp" | "sctp" | "multiport", rest @ ..] => rest,
                ["--dport", ports, rest @ ..] => {
                    wanted.ports = vec![range(ports, ':')?];
                    rest
                }
                ["--dports", ports, rest @ ..] => {
                    wanted.ports =
                        ports.split(',').map(|it| range(it, ':')).collect::<Option<_>>()?;
                    rest
                }
                ["-j", "MARK", "--set-mark" | "--set-xmark", mark] => {
                    let (mark, mask) = mark.split_once('/').unwrap_or((mark, "0xffffffff"));
                    return wanted.edits(&[family], number(mark)?, number(mask)?);
                }
                _ => return None,
            };
        }
    };
    read().map_or(Meant::Unknown, Meant::Edits)
}

fn prefix(text: &str) -> Option<(Family, Addr, Addr)> {
    let net: ipnet::IpNet = match text.parse() {
        Ok(net) => net,
        Err(_) => text.parse::<std::net::IpAddr>().ok()?.into(),
    };
    let (family, addr) = Addr::from_ip(net.network());
    Some((family, addr, prefix_mask(family, net.prefix_len())))
}

fn protocol(name: &str) -> Option<u8> {
    match name {
        "tcp" => Some(6),
        "udp" => Some(17),
        "sctp" => Some(132),
        "icmp" => Some(1),
        "icmpv6" | "ipv6-icmp" => Some(58),
        "esp" => Some(50),
        "ah" => Some(51),
        "gre" => Some(47),
        other => other.parse().ok(),
    }
}

fn range(text: &str, between: char) -> Option<(u16, u16)> {
    let port = |text: &str| -> Option<u16> {
        match text {
            "http" => Some(80),
            "https" => Some(443),
            other => other.parse().ok(),
        }
    };
    match text.split_once(between) {
        Some((first, last)) => Some((port(first)?, port(last)?)),
        None => Some((port(text)?, port(text)?)),
    }
}

fn number(text: &str) -> Option<u32> {
    match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(line: &str) -> Meant {
        meant(&crate::shell::words(line).unwrap())
    }

    fn rules(line: &str) -> Vec<MarkRule> {
        let Meant::Edits(edits) = of(line) else { panic!("{line}: {:?}", of(line)) };
        let rule = |edit| match edit {
            Command::AddMarkRule(rule) => rule,
            other => panic!("{other:?}"),
        };
        edits.into_iter().map(rule).collect()
    }

    #[test]
    fn a_set_of_ports_becomes_a_rule_for_each() {
        let line = "nft add rule ip m pre ip daddr 192.0.2.10 tcp dport {80, 443} meta mark set 1";
        let rules = rules(line);
        assert_eq!(rules.len(), 2);
        for (rule, port) in rules.iter().zip([80, 443]) {
            assert_eq!((rule.first_port, rule.last_port, rule.protocol), (port, port, 6));
            assert_eq!((rule.mark, rule.mask), (1, u32::MAX));
            assert_eq!(rule.destination, Addr::v4([192, 0, 2, 10]));
        }
    }

    #[test]
    fn iptables_is_understood_too() {
        let line = "iptables -t mangle -A PREROUTING -d 192.0.2.10 -p tcp -j MARK --set-mark 5";
        let [rule] = rules(line)[..] else { panic!("not one rule") };
        assert_eq!((rule.mark, rule.protocol, rule.family), (5, 6, 4));
    }

    #[test]
    fn tables_chains_and_routes_of_marked_packets_are_nothing() {
        for line in [
            "nft add table ip m",
            "nft 'add chain ip m pre { type filter hook prerouting priority -150; }'",
            "ip rule add fwmark 7 lookup 100",
            "ip route add local 0.0.0.0/0 dev lo table 100",
        ] {
            assert_eq!(of(line), Meant::Nothing, "{line}");
        }
        assert_eq!(of("ip route add local 203.0.113.99 dev lo"), Meant::Other);
    }

    #[test]
    fn what_is_not_a_mark_is_unknown() {
        for line in [
            "nft add rule ip f fwd ct state invalid counter drop",
            "nft 'add chain ip n post { type nat hook postrouting priority 100; }'",
            "nft add rule ip n post oifname s0 masquerade",
            "iptables -A FORWARD -m state --state INVALID -j DROP",
        ] {
            assert_eq!(of(line), Meant::Unknown, "{line}");
        }
    }
}
