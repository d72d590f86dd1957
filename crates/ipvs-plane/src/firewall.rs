//! The host's firewall: which of its chains would see packets for services, did the
//! plane not take them before.
//!
//! The ruleset of nftables, with what `iptables-nft` put there, is asked of the program
//! `nft`, and again when the kernel says that it has changed. A chain counts if it
//! has a rule that packets of others can meet, or drops what meets none. What a rule
//! says is not weighed against addresses of services: better one chain too many.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use ipvs_core::addr::Family;
use ipvs_core::settings::Settings;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};
use serde::Deserialize;
use serde_json::Value;

/// `NFNLGRP_NFTABLES`: what changes in the ruleset.
const NEWS: u32 = 7;
/// Where the old iptables keeps the names of the tables that are in use.
const LEGACY: [(Family, &str); 2] = [
    (Family::V4, "/proc/thread-self/net/ip_tables_names"),
    (Family::V6, "/proc/thread-self/net/ip6_tables_names"),
];
/// The hooks that a packet for a service passes on a kernel director, or its reply.
const HOOKS: [&str; 5] = ["prerouting", "input", "forward", "output", "postrouting"];

/// The table of ours that there may be, which does not count.
pub(crate) const OWN_TABLE: &str = "inet ipvs-rs";

/// How packets get to the plane by an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// Before the firewall.
    Past,
    /// After the chains for what is sent on.
    Through,
}

/// What is known of the firewall.
#[derive(Debug)]
pub(crate) struct Firewall {
    news: Option<Socket>,
    /// Not read before there are services.
    ruleset: Option<io::Result<Ruleset>>,
    /// What was said in the log already.
    told: BTreeSet<String>,
}

impl Firewall {
    /// Listens in the calling thread's network namespace, the one to be used from.
    pub(crate) fn listen() -> Self {
        let news = listen();
        if let Err(error) = &news {
            tracing::debug!(%error, "changes of the firewall are not heard of");
        }
        Self { news: news.ok(), ruleset: None, told: BTreeSet::new() }
    }

    /// Looks at the ruleset if it has changed, and says in the log what was not said yet.
    pub(crate) fn follow(&mut self, ways: &[(&str, Way)], families: &[Family]) {
        if families.is_empty() {
            return;
        }
        if self.has_changed() || self.ruleset.is_none() {
            self.ruleset = Some(Ruleset::read());
        }
        for line in self.report(ways, families) {
            if self.told.insert(line.clone()) {
                tracing::warn!("{line}");
            }
        }
    }

    /// A line for each thing that an administrator should know, with interfaces that
    /// packets come in by, and the families of the services.
    pub(crate) fn report(&self, ways: &[(&str, Way)], families: &[Family]) -> Vec<String> {
        if families.is_empty() {
            return Vec::new();
        }
        match &self.ruleset {
            Some(Ok(ruleset)) => ruleset.report(ways, families),
            Some(Err(error)) if ways.iter().any(|(_, way)| *way == Way::Past) => vec![format!(
                "whether packets for services pass by rules of the host's firewall is not known: \
                 `nft -j list ruleset`: {error}"
            )],
            None | Some(Err(_)) => Vec::new(),
        }
    }

    /// Whether connections are tracked, and whether the table of ours is there; nothing
    /// if that is not known.
    pub(crate) fn tracking(&self) -> Option<(bool, bool)> {
        let ruleset = self.ruleset.as_ref()?.as_ref().ok()?;
        Some((ruleset.tracks, ruleset.has_own))
    }

    fn has_changed(&self) -> bool {
        let Some(news) = &self.news else { return false };
        let (mut changed, mut buffer) = (false, Vec::with_capacity(1 << 16));
        loop {
            buffer.clear();
            match news.recv(&mut buffer, 0) {
                Ok(_) => changed = true,
                // Some were lost, which is one, too.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => changed = true,
                Err(_) => return changed,
            }
        }
    }
}

fn listen() -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind(&SocketAddr::new(0, 0))?;
    socket.add_membership(NEWS)?;
    socket.set_non_blocking(true)?;
    Ok(socket)
}

/// The chains that packets of others can meet.
#[derive(Debug, Default, PartialEq, Eq)]
struct Ruleset {
    chains: Vec<Chain>,
    /// Something in it has the kernel track connections.
    tracks: bool,
    /// The table of ours is there.
    has_own: bool,
}

/// A chain that hangs on a hook, and does something.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Chain {
    name: String,
    families: Vec<Family>,
    hook: String,
    /// Those that it is for alone, if it is.
    devices: Vec<String>,
}

/// What nft lists, as far as it matters. What else there is may grow.
#[derive(Debug, Deserialize)]
struct Listing {
    nftables: Vec<Listed>,
}

#[derive(Debug, Deserialize)]
struct Listed {
    chain: Option<ListedChain>,
    rule: Option<ListedRule>,
}

#[derive(Debug, Deserialize)]
struct ListedChain {
    family: String,
    table: String,
    name: String,
    #[serde(rename = "type")]
    kind: Option<String>,
    hook: Option<String>,
    policy: Option<String>,
    dev: Option<OneOrMore>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

#[derive(Debug, Deserialize)]
struct ListedRule {
    family: String,
    table: String,
    chain: String,
    #[serde(default)]
    expr: Vec<Value>,
}

impl Listed {
    fn is_own(&self) -> bool {
        let chain = self.chain.as_ref().map(|chain| (&chain.family, &chain.table));
        let rule = self.rule.as_ref().map(|rule| (&rule.family, &rule.table));
        chain.or(rule).is_some_and(|(family, table)| {
            OWN_TABLE.split_once(' ') == Some((family.as_str(), table.as_str()))
        })
    }

    /// Whether it has the kernel track connections. What `xt` stands for is not listed.
    fn tracks(&self) -> bool {
        let translates = self.chain.as_ref().is_some_and(|it| it.kind.as_deref() == Some("nat"));
        translates
            || self
                .rule
                .as_ref()
                .is_some_and(|rule| rule.expr.iter().any(|it| has_key(it, &["ct", "xt"])))
    }
}

/// Whether a key of these is anywhere in a value.
fn has_key(value: &Value, keys: &[&str]) -> bool {
    match value {
        Value::Object(members) => {
            members.iter().any(|(key, value)| keys.contains(&key.as_str()) || has_key(value, keys))
        }
        Value::Array(values) => values.iter().any(|value| has_key(value, keys)),
        _ => false,
    }
}

impl Ruleset {
    fn read() -> io::Result<Self> {
        let mut command = Command::new(nft());
        // Without what sets hold, which may be much.
        command.args(["-t", "-j", "list", "ruleset"]).stdin(Stdio::null()).stderr(Stdio::null());
        let output = command.output()?;
        if !output.status.success() {
            return Err(io::Error::other(output.status.to_string()));
        }
        let mut ruleset = Self::parse(&output.stdout)?;
        for (family, path) in LEGACY {
            // There is no such file where nobody uses it.
            let names = std::fs::read_to_string(path).unwrap_or_default();
            ruleset.tracks |= !names.is_empty();
            ruleset.chains.extend(names.lines().map(|name| Chain {
                name: format!("iptables-legacy table {name}"),
                families: vec![family],
                hook: String::new(),
                devices: Vec::new(),
            }));
        }
        Ok(ruleset)
    }

    fn parse(json: &[u8]) -> io::Result<Self> {
        let mut listing: Listing = serde_json::from_slice(json)?;
        let all = listing.nftables.len();
        listing.nftables.retain(|listed| !listed.is_own());
        let has_own = listing.nftables.len() != all;
        // How many rules a chain has that packets of others can meet.
        let mut rules: BTreeMap<[&str; 3], usize> = BTreeMap::new();
        for rule in listing.nftables.iter().filter_map(|it| it.rule.as_ref()) {
            let count = rules.entry([&rule.family, &rule.table, &rule.chain]).or_default();
            *count += usize::from(!is_for_loopback(&rule.expr));
        }
        let chains = listing.nftables.iter().filter_map(|it| it.chain.as_ref());
        let acts = |chain: &&ListedChain| {
            let key = [&*chain.family, &*chain.table, &*chain.name];
            chain.policy.as_deref() == Some("drop") || rules.get(&key).is_some_and(|it| *it != 0)
        };
        let chains = chains.filter(acts).filter_map(Chain::of).collect();
        Ok(Self { chains, tracks: listing.nftables.iter().any(Listed::tracks), has_own })
    }

    fn report(&self, ways: &[(&str, Way)], families: &[Family]) -> Vec<String> {
        // Interfaces that pass by the same chains share a line.
        let mut passed: BTreeMap<(bool, Vec<String>), Vec<&str>> = BTreeMap::new();
        for (interface, way) in ways {
            let chains = self.chains.iter().filter(|chain| {
                chain.families.iter().any(|family| families.contains(family))
                    && chain.is_passed_by(interface, *way)
            });
            let names: Vec<String> = chains.map(ToString::to_string).collect();
            if !names.is_empty() {
                passed.entry((*way == Way::Through, names)).or_default().push(interface);
            }
        }
        let line = |((through, chains), mut interfaces): ((bool, Vec<String>), Vec<&str>)| {
            interfaces.sort_unstable();
            let (interfaces, chains) = (interfaces.join(", "), chains.join("; "));
            if through {
                format!(
                    "{interfaces}: packets for services pass no chain for what is for the host \
                     itself or from it, as they would on a kernel director: {chains} (rules for \
                     virtual addresses belong into a forward chain)"
                )
            } else {
                format!(
                    "{interfaces}: packets for services pass by the host's firewall: {chains} \
                     (the eBPF plane's mode `netfilter` leads them through prerouting and forward chains)"
                )
            }
        };
        passed.into_iter().map(line).collect()
    }
}

impl std::fmt::Display for Chain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name)?;
        if self.hook.is_empty() { Ok(()) } else { write!(f, " ({})", self.hook) }
    }
}

impl Chain {
    fn of(listed: &ListedChain) -> Option<Self> {
        let families = match listed.family.as_str() {
            "ip" => vec![Family::V4],
            "ip6" => vec![Family::V6],
            "inet" | "netdev" => vec![Family::V4, Family::V6],
            _ => return None,
        };
        let devices = match &listed.dev {
            Some(OneOrMore::One(device)) => vec![device.clone()],
            Some(OneOrMore::More(devices)) => devices.clone(),
            None => Vec::new(),
        };
        let hook = listed.hook.clone()?;
        let name = format!("{} {} {}", listed.family, listed.table, listed.name);
        (hook == "ingress" || HOOKS.contains(&&*hook)).then_some(Self {
            name,
            families,
            hook,
            devices,
        })
    }

    /// Whether a packet for a service that comes in by `interface` passes by it, or the
    /// reply, and would not on a kernel director.
    fn is_passed_by(&self, interface: &str, way: Way) -> bool {
        match (way, self.hook.as_str()) {
            (Way::Past, "ingress") => {
                self.devices.is_empty() || self.devices.iter().any(|it| it == interface)
            }
            (Way::Past, _) => true,
            (Way::Through, hook) => matches!(hook, "input" | "output"),
        }
    }
}

/// The families that there are services of.
pub(crate) fn families(settings: &Settings) -> Vec<Family> {
    let of = [(Family::V4, settings.services_v4), (Family::V6, settings.services_v6)];
    of.into_iter().filter(|(_, count)| *count != 0).map(|(family, _)| family).collect()
}

/// Whether a rule is for packets that the host sends to itself alone.
fn is_for_loopback(expressions: &[Value]) -> bool {
    expressions.iter().any(|expression| {
        let of = |path| expression.pointer(path).and_then(Value::as_str);
        matches!(of("/match/left/meta/key"), Some("iif" | "iifname" | "oif" | "oifname"))
            && of("/match/op") == Some("==")
            && of("/match/right") == Some("lo")
    })
}

/// The program nft, which lies where a daemon's path may not lead.
pub(crate) fn nft() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let more = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    let folders = std::env::split_paths(&path).chain(more);
    let mut paths = folders.map(|folder| folder.join("nft"));
    paths.find(|path| path.is_file()).unwrap_or_else(|| "nft".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As nft 1.0.6 prints it.
    const LISTED: &str = r#"{"nftables": [
        {"metainfo": {"version": "1.0.6", "json_schema_version": 1}},
        {"table": {"family": "inet", "name": "wall", "handle": 1}},
        {"chain": {"family": "inet", "table": "wall", "name": "in", "handle": 1, "type": "filter", "hook": "input", "prio": 0, "policy": "accept"}},
        {"chain": {"family": "inet", "table": "wall", "name": "sent", "handle": 2, "type": "filter", "hook": "forward", "prio": 0, "policy": "drop"}},
        {"chain": {"family": "inet", "table": "wall", "name": "own", "handle": 3, "type": "filter", "hook": "output", "prio": 0, "policy": "accept"}},
        {"chain": {"family": "ip", "table": "marks", "name": "pre", "handle": 1, "type": "filter", "hook": "prerouting", "prio": -150, "policy": "accept"}},
        {"chain": {"family": "ip", "table": "marks", "name": "sub", "handle": 2}},
        {"chain": {"family": "netdev", "table": "n", "name": "i", "handle": 1, "dev": "eth1", "type": "filter", "hook": "ingress", "prio": 0, "policy": "accept"}},
        {"chain": {"family": "bridge", "table": "b", "name": "f", "handle": 1, "type": "filter", "hook": "forward", "prio": 0, "policy": "drop"}},
        {"rule": {"family": "inet", "table": "wall", "chain": "in", "handle": 4, "expr": [{"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": "new"}}, {"limit": {"rate": 5, "per": "second"}}, {"drop": null}]}},
        {"rule": {"family": "inet", "table": "wall", "chain": "own", "handle": 5, "expr": [{"match": {"op": "==", "left": {"meta": {"key": "oifname"}}, "right": "lo"}}, {"accept": null}]}},
        {"rule": {"family": "ip", "table": "marks", "chain": "pre", "handle": 3, "expr": [{"jump": {"target": "sub"}}]}},
        {"rule": {"family": "ip", "table": "marks", "chain": "sub", "handle": 4, "expr": [{"xt": null}]}},
        {"rule": {"family": "netdev", "table": "n", "chain": "i", "handle": 2, "expr": [{"drop": null}]}}
    ]}"#;

    fn names(ways: &[(&str, Way)], families: &[Family]) -> Vec<(String, String)> {
        let ruleset = Ruleset::parse(LISTED.as_bytes()).unwrap();
        let lines = ruleset.report(ways, families);
        let split = |line: String| {
            let (interfaces, rest) = line.split_once(": ").unwrap();
            let chains = rest.split_once(": ").unwrap().1.rsplit_once(" (").unwrap().0;
            (interfaces.to_owned(), chains.to_owned())
        };
        lines.into_iter().map(split).collect()
    }

    fn expect(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
    }

    #[test]
    fn before_the_firewall_every_chain_that_acts_is_named() {
        let all = "inet wall in (input); inet wall sent (forward); ip marks pre (prerouting)";
        let more = format!("{all}; netdev n i (ingress)");
        let ways = [("eth0", Way::Past), ("eth1", Way::Past), ("eth2", Way::Past)];
        let found = names(&ways, &[Family::V4]);
        assert_eq!(found, expect(&[("eth0, eth2", all), ("eth1", &more)]));
    }

    #[test]
    fn chains_of_another_family_do_not_matter() {
        let found = names(&[("eth0", Way::Past)], &[Family::V6]);
        assert_eq!(found, expect(&[("eth0", "inet wall in (input); inet wall sent (forward)")]));
    }

    #[test]
    fn behind_the_firewall_only_the_hosts_own_chains_are_passed_by() {
        let found = names(&[("eth0", Way::Through)], &[Family::V4, Family::V6]);
        assert_eq!(found, expect(&[("eth0", "inet wall in (input)")]));
    }

    #[test]
    fn the_table_of_ours_is_known_and_does_not_count() {
        let own = LISTED.replace("\"wall\"", "\"ipvs-rs\"");
        let [others, own] = [LISTED, &own].map(|it| Ruleset::parse(it.as_bytes()).unwrap());
        assert_eq!((others.has_own, others.chains.len()), (false, 4));
        assert_eq!((own.has_own, own.chains.len()), (true, 2));
    }

    #[test]
    fn connections_are_tracked_where_a_rule_asks_for_them() {
        let tracks = |listed: &str| Ruleset::parse(listed.as_bytes()).unwrap().tracks;
        assert!(tracks(LISTED), "`ct state` and xt");
        let without = LISTED.replace("\"ct\"", "\"rt\"").replace("\"xt\"", "\"counter\"");
        assert!(!tracks(&without));
        assert!(tracks(&without.replace("\"type\": \"filter\"", "\"type\": \"nat\"")));
    }

    #[test]
    fn a_host_without_rules_has_nothing_to_report() {
        let listed = r#"{"nftables": [{"metainfo": {"version": "1.0.6"}}]}"#;
        let ruleset = Ruleset::parse(listed.as_bytes()).unwrap();
        assert_eq!(ruleset.report(&[("eth0", Way::Past)], &[Family::V4]), Vec::<String>::new());
    }
}
