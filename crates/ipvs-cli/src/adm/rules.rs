//! Which options go with which command, and which with which tunnel type.

use super::options::{Given, GivenSet, Verb};

/// What a table says of an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    /// May be given.
    Free,
    /// Must be given.
    Needed,
    /// Must not be given.
    Illegal,
    /// At most one of those marked so may be given.
    OneOf,
}

/// Why a combination is refused, in the words of `ipvsadm`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct BadCombination(String);

/// Checks the options of a command, one by one in the order of [`Given`].
pub(crate) fn check_command(verb: Verb, given: GivenSet) -> Result<(), BadCombination> {
    let scope = format!("the '{}' command", verb.name());
    check(&scope, ("for", "with"), given, Given::ALL.iter().copied(), |option| {
        rule_of_command(verb, option)
    })
}

/// Checks the tunnel options of a real server.
pub(crate) fn check_tunnel(tunnel: Tunnel, given: GivenSet) -> Result<(), BadCombination> {
    let scope = format!("the '{}' tunnel type", tunnel.name());
    let options = [Given::TunPort, Given::TunNoCsum, Given::TunCsum, Given::TunRemCsum];
    check(&scope, ("for", "with"), given, options.into_iter(), |option| {
        rule_of_tunnel(tunnel, option)
    })
}

fn check(
    scope: &str,
    (need, with): (&str, &str),
    given: GivenSet,
    options: impl Iterator<Item = Given>,
    rule: impl Fn(Given) -> Rule,
) -> Result<(), BadCombination> {
    let mut first: Option<Given> = None;
    for option in options {
        let name = option.name();
        let refusal = match (rule(option), given.has(option)) {
            (Rule::Needed, false) => {
                format!("You need to supply the '{name}' option {need} {scope}")
            }
            (Rule::Illegal, true) => format!("Illegal '{name}' option {with} {scope}"),
            (Rule::OneOf, true) => match first.replace(option) {
                None => continue,
                Some(first) => format!(
                    "The option '{name}' conflicts with the '{}' option in {scope}",
                    first.name()
                ),
            },
            _ => continue,
        };
        return Err(BadCombination(refusal));
    }
    Ok(())
}

/// The kinds of tunnel, by their number on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Tunnel {
    /// IP in IP.
    #[default]
    Ipip = 0,
    /// Generic UDP encapsulation.
    Gue = 1,
    /// Generic routing encapsulation.
    Gre = 2,
}

impl Tunnel {
    /// All of them.
    pub(crate) const ALL: [Self; 3] = [Self::Ipip, Self::Gue, Self::Gre];

    /// Its name.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Ipip => "ipip",
            Self::Gue => "gue",
            Self::Gre => "gre",
        }
    }
}

const fn rule_of_tunnel(tunnel: Tunnel, option: Given) -> Rule {
    match (tunnel, option) {
        (Tunnel::Gue, Given::TunPort) => Rule::Needed,
        (Tunnel::Ipip, _) | (Tunnel::Gre, Given::TunPort | Given::TunRemCsum) => Rule::Illegal,
        (Tunnel::Gue | Tunnel::Gre, _) => Rule::OneOf,
    }
}

fn rule_of_command(verb: Verb, option: Given) -> Rule {
    let free = |is_free: bool| if is_free { Rule::Free } else { Rule::Illegal };
    match option {
        Given::Numeric => free(matches!(verb, Verb::List | Verb::Save)),
        Given::Connection | Given::Timeout | Given::Daemon => match verb {
            Verb::List => Rule::OneOf,
            _ => Rule::Illegal,
        },
        Given::ServiceAddress => match verb {
            Verb::AddService
            | Verb::EditService
            | Verb::DeleteService
            | Verb::AddServer
            | Verb::EditServer
            | Verb::DeleteServer => Rule::Needed,
            Verb::List => Rule::OneOf,
            _ => free(verb == Verb::Zero),
        },
        Given::Scheduler
        | Given::Persistent
        | Given::Netmask
        | Given::OnePacket
        | Given::Engine
        | Given::SchedFlags => free(matches!(verb, Verb::AddService | Verb::EditService)),
        Given::RealServer => match verb {
            Verb::AddServer | Verb::EditServer | Verb::DeleteServer => Rule::Needed,
            _ => Rule::Illegal,
        },
        Given::ForwardingMethod
        | Given::Weight
        | Given::UpperThreshold
        | Given::LowerThreshold
        | Given::TunType
        | Given::TunPort
        | Given::TunNoCsum
        | Given::TunCsum
        | Given::TunRemCsum => free(matches!(verb, Verb::AddServer | Verb::EditServer)),
        Given::McastInterface
        | Given::McastGroup
        | Given::McastPort
        | Given::McastTtl
        | Given::SyncMaxLen => free(verb == Verb::StartDaemon),
        Given::SyncId => free(matches!(verb, Verb::StartDaemon | Verb::StopDaemon | Verb::List)),
        Given::Stats
        | Given::Rate
        | Given::Thresholds
        | Given::PersistentConn
        | Given::NoSort
        | Given::Exact
        | Given::TunInfo
        | Given::Json => free(verb == Verb::List),
        Given::Full => free(verb == Verb::Save),
        Given::Atomic => free(verb == Verb::Restore),
    }
}

/// Whether the formats of a listing contradict what is to be listed.
pub(crate) fn list_conflicts(given: GivenSet) -> bool {
    let formats = [Given::Stats, Given::Rate, Given::Thresholds];
    (given.has_any(&[Given::Connection, Given::Timeout, Given::Daemon]) && given.has_any(&formats))
        || (given.has_any(&[Given::Timeout, Given::Daemon]) && given.has(Given::PersistentConn))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(verb: Verb, options: &[Given], expect: &str) {
        let mut given = GivenSet::default();
        for &option in options {
            given.insert(option);
        }
        let text = check_command(verb, given).err().map(|error| error.to_string());
        assert_eq!(text.unwrap_or_default(), expect);
    }

    #[test]
    fn options_are_checked_in_their_own_order() {
        check(
            Verb::AddService,
            &[Given::Weight, Given::Numeric],
            "Illegal 'numeric' option with the 'add-service' command",
        );
    }

    #[test]
    fn what_is_needed_is_named() {
        check(
            Verb::AddServer,
            &[Given::ServiceAddress],
            "You need to supply the 'real-server' option for the 'add-server' command",
        );
    }

    #[test]
    fn of_two_that_conflict_the_later_is_named_first() {
        check(
            Verb::List,
            &[Given::Daemon, Given::Timeout],
            "The option 'daemon' conflicts with the 'timeout' option in the 'list' command",
        );
    }
}
