//! `ipvs mark`: rules that give packets a firewall mark where no firewall has
//! seen them.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use ipvs_config::rule::{self, Prefix, shown};
use ipvs_core::addr::Family;
use ipvs_core::command::Command;
use ipvs_core::mark::MarkRule;
use ipvs_daemon::DEFAULT_SOCKET;
use ipvs_netlink::client::Transport;
use ipvs_netlink::{Client, ClientError, Errno};

use super::connect;

#[derive(Debug, Args)]
pub(super) struct Mark {
    /// Where the daemon listens
    #[arg(long, value_name = "PATH", env = "IPVS_SOCKET", default_value = DEFAULT_SOCKET,
        global = true)]
    socket: PathBuf,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Add a rule to the end of the list; of the rules that a packet fits, each changes its mark
    Add(Rule),
    /// Take a rule off the list
    Del(Rule),
    /// Show the rules, each as `load` reads it
    List,
    /// Take every rule off the list
    Flush,
    /// Replace the list at once by rules from standard input, one a line as `add` takes them
    Load,
}

/// A rule, as it is typed.
#[derive(Clone, Debug, Args)]
struct Rule {
    /// The mark, and behind a slash the bits that it replaces; all unless given
    #[arg(value_name = "MARK[/MASK]", value_parser = mark)]
    mark: (u32, u32),
    /// IPv6 packets, where no address says so
    #[arg(short = '6', long)]
    ipv6: bool,
    /// Source addresses
    #[arg(long, value_name = "ADDRESS[/LEN]", value_parser = rule::prefix)]
    from: Option<Prefix>,
    /// Destination addresses
    #[arg(long, value_name = "ADDRESS[/LEN]", value_parser = rule::prefix)]
    to: Option<Prefix>,
    /// Protocol: tcp, udp, sctp or a number
    #[arg(long, value_name = "PROTOCOL", value_parser = rule::protocol)]
    protocol: Option<u8>,
    /// Destination port, or the first and last of some
    #[arg(long, value_name = "PORT[-PORT]", value_parser = rule::ports)]
    ports: Option<(u16, u16)>,
    /// Interface that packets come in by
    #[arg(long, value_name = "NAME", value_parser = rule::interface)]
    interface: Option<[u8; 16]>,
}

/// A line that `load` reads.
#[derive(Debug, Parser)]
#[command(no_binary_name = true, disable_help_flag = true)]
struct Line {
    #[command(flatten)]
    rule: Rule,
}

/// Does what the command line says.
pub(super) fn run(mark: &Mark) -> Result<(), String> {
    let edits = match &mark.verb {
        Verb::Add(rule) => vec![Command::AddMarkRule(rule.record()?)],
        Verb::Del(rule) => vec![Command::DeleteMarkRule(rule.record()?)],
        Verb::Flush => vec![Command::FlushMarkRules],
        Verb::Load => {
            let text = io::read_to_string(io::stdin().lock())
                .map_err(|error| format!("standard input: {error}"))?;
            let rules = lines(&text)?.into_iter().map(Command::AddMarkRule);
            std::iter::once(Command::FlushMarkRules).chain(rules).collect()
        }
        Verb::List => Vec::new(),
    };
    let mut client = connect(&mark.socket)?;
    if matches!(mark.verb, Verb::List) {
        return list(&mut client, &mut io::stdout().lock());
    }
    client.change_marks(&edits).map_err(|error| match error {
        ClientError::Refused(Errno::EXIST) => "this rule is there already".into(),
        ClientError::Refused(Errno::NOENT) => "there is no such rule; see `ipvs mark list`".into(),
        ClientError::Refused(Errno::NOMEM) => {
            format!("too many rules: a plane takes {}", ipvs_core::mark::MAX_RULES)
        }
        ClientError::Refused(Errno::INVAL) => {
            "the mark must lie within its mask, and an address within its prefix".into()
        }
        other => other.to_string(),
    })
}

fn list<T: Transport>(client: &mut Client<T>, out: &mut dyn Write) -> Result<(), String> {
    let rules = client.mark_rules().map_err(|error| error.to_string())?;
    for rule in &rules {
        match writeln!(out, "{}", shown(rule)) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            written => written.map_err(|error| error.to_string())?,
        }
    }
    out.flush().map_err(|error| error.to_string())
}

/// The rules in a text, one a line; empty lines and those that begin with `#` are none.
fn lines(text: &str) -> Result<Vec<MarkRule>, String> {
    let rule = |(number, line): (usize, &str)| {
        let line = Line::try_parse_from(line.split_whitespace());
        line.map_err(|error| error.to_string())
            .and_then(|line| line.rule.record())
            .map_err(|error| format!("line {number}: {}", error.trim_end()))
    };
    let is_rule = |line: &str| !line.trim().is_empty() && !line.trim_start().starts_with('#');
    (1..).zip(text.lines()).filter(|(_, line)| is_rule(line)).map(rule).collect()
}

impl Rule {
    fn record(&self) -> Result<MarkRule, String> {
        let said = [self.from, self.to].into_iter().flatten().map(|(family, ..)| family);
        let said = said.chain(self.ipv6.then_some(Family::V6)).collect::<Vec<_>>();
        let family = said.first().copied().unwrap_or_default();
        if said.iter().any(|other| *other != family) {
            return Err("IPv4 and IPv6 in one rule".into());
        }
        if self.ports.is_some() && self.protocol.is_none() {
            return Err("ports need a protocol".into());
        }
        let mut rule = MarkRule::any(family, self.mark.0, self.mark.1);
        if let Some((_, addr, mask)) = self.from {
            (rule.source, rule.source_mask) = (addr, mask);
        }
        if let Some((_, addr, mask)) = self.to {
            (rule.destination, rule.destination_mask) = (addr, mask);
        }
        rule.protocol = self.protocol.unwrap_or(0);
        (rule.first_port, rule.last_port) = self.ports.unwrap_or((0, u16::MAX));
        rule.interface = self.interface.unwrap_or_default();
        Ok(rule.named())
    }
}

/// A number, decimal or behind `0x` hexadecimal.
fn number(text: &str) -> Result<u32, String> {
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.map_err(|_bad| format!("`{text}` is no number of 32 bits"))
}

fn mark(text: &str) -> Result<(u32, u32), String> {
    let (mark, mask) = match text.split_once('/') {
        Some((mark, mask)) => (number(mark)?, number(mask)?),
        None => (number(text)?, u32::MAX),
    };
    if mask == 0 || mark & !mask != 0 {
        return Err("the mark must lie within its mask".into());
    }
    Ok((mark, mask))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_shown_in_the_words_that_make_it() {
        for text in [
            "7",
            "112/0xf0 --ipv6 --protocol udp --ports 53",
            "1 --from 198.51.100.0/24 --to 192.0.2.64/26 --protocol tcp --ports 80-443",
            "9 --to 2001:db8::/32 --protocol 50 --interface eth0",
        ] {
            let [rule] = lines(text).unwrap()[..] else { panic!("{text}") };
            assert_eq!(shown(&rule), text);
        }
    }

    #[test]
    fn a_bad_line_is_named_and_spoils_all() {
        for (text, word) in [
            ("7\n\n# why\n8 --ports 80", "line 4: ports need a protocol"),
            ("7 --from 10.0.0.1/8", "line 1"),
            ("7 --from 10.0.0.0/8 --to 2001:db8::1", "line 1: IPv4 and IPv6"),
            ("0x100/0xff", "line 1"),
            ("7 --protocol tcp --ports 9-3", "line 1"),
            ("--from 10.0.0.1", "line 1"),
        ] {
            let error = lines(text).unwrap_err();
            assert!(error.contains(word), "{text}: {error}");
        }
    }
}
