//! Mark rules in the file.

use ipvs_core::addr::{Addr, Family};
use ipvs_core::mark::MarkRule;
use toml::Spanned;

use crate::error::Mistake;
use crate::file;
use crate::read::{Read, choice, wrong};
use crate::rule::{self, Prefix};

/// A rule as it is written.
pub(crate) fn rule(given: &Spanned<file::MarkTable>) -> Read<MarkRule> {
    let it = given.get_ref();
    let mask = it.mask.as_ref().map_or(u32::MAX, |mask| *mask.get_ref());
    let mark = *it.mark.get_ref();
    if mask == 0 || mark & !mask != 0 {
        return wrong(&it.mark, "the mark must lie within its mask");
    }
    let from = it.from.as_ref().map(prefix).transpose()?;
    let to = it.to.as_ref().map(prefix).transpose()?;
    let families = [("ipv4", Family::V4), ("ipv6", Family::V6)];
    let said = it.family.as_ref().map(|family| choice("family", family, &families)).transpose()?;
    let all = [said, from.map(|(family, ..)| family), to.map(|(family, ..)| family)];
    let family = all.into_iter().flatten().next().unwrap_or(Family::V4);
    if all.into_iter().flatten().any(|other| other != family) {
        return wrong(given, "IPv4 and IPv6 in one mark rule");
    }
    let mut rule = MarkRule::any(family, mark, mask);
    (rule.source, rule.source_mask) = addrs(from);
    (rule.destination, rule.destination_mask) = addrs(to);
    if let Some(protocol) = &it.protocol {
        rule.protocol = read(protocol, &protocol.get_ref().text(), rule::protocol)?;
    }
    if let Some(ports) = &it.ports {
        if it.protocol.is_none() {
            return wrong(ports, "ports need a protocol");
        }
        (rule.first_port, rule.last_port) = read(ports, &ports.get_ref().text(), rule::ports)?;
    }
    if let Some(name) = &it.interface {
        rule.interface = read(name, name.get_ref(), rule::interface)?;
    }
    Ok(rule.named())
}

fn prefix(given: &Spanned<String>) -> Read<Prefix> {
    read(given, given.get_ref(), rule::prefix)
}

fn addrs(prefix: Option<Prefix>) -> (Addr, Addr) {
    prefix.map_or((Addr::UNSPECIFIED, Addr::UNSPECIFIED), |(_, addr, mask)| (addr, mask))
}

fn read<T, U>(at: &Spanned<U>, text: &str, by: fn(&str) -> Result<T, String>) -> Read<T> {
    by(text).map_err(|message| Mistake::new(at.span(), message))
}
