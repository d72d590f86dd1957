//! One command line: read word by word, each value as it comes, then checked
//! as a whole. The order of the checks decides which error a user sees.

use std::net::IpAddr;

use ipvs_core::addr::{Addr, Family};
use ipvs_core::command::TimeoutEdit;
use ipvs_core::dest::{DestKey, DestSpec, ForwardingMethod};
use ipvs_core::name::Name;
use ipvs_core::service::{ServiceFlags, ServiceKey, ServiceSpec};
use ipvs_netlink::sync::{SyncDaemon, SyncState};

use super::names::Names;
use super::options::{Given, GivenSet, OPTIONS, Typed, Verb};
use super::popt::Parser;
use super::rules::{self, Tunnel};
use super::values::{endpoint, ipv4_or_host, leading_number, number};

/// Longest time that can be asked for, in seconds: 31 days.
const MAX_TIMEOUT: u32 = 2_678_400;
/// Persistence without a time, in seconds.
const PERSISTENCE: u32 = 360;
/// Largest weight and threshold.
const MAX_COUNT: u32 = i32::MAX.cast_unsigned();
/// Longest payload of a sync message.
const MAX_SYNC_LEN: u32 = 65507;
/// Mask of a single IPv6 address.
const WHOLE_IPV6: u32 = 128;

const TCP: u8 = 6;
const UDP: u8 = 17;

/// A command line that makes sense.
#[derive(Clone, Debug)]
pub(crate) struct Invocation {
    /// What is to be done.
    pub(crate) verb: Verb,
    /// Which options were given.
    pub(crate) given: GivenSet,
    /// The service, if one was given.
    pub(crate) service: ServiceKey,
    /// Its configuration.
    pub(crate) service_spec: ServiceSpec,
    /// The real server, if one was given.
    pub(crate) dest: DestKey,
    /// Its configuration.
    pub(crate) dest_spec: DestSpec,
    /// The values of `--set`.
    pub(crate) timeouts: TimeoutEdit,
    /// The sync daemon to start or stop.
    pub(crate) sync: SyncDaemon,
}

/// Why a command line comes to nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// `-h` was asked for.
    Help,
    /// `-v` was asked for.
    Version,
    /// The first word is no command.
    TryHelp,
    /// It contradicts itself; ends a restore.
    Usage(Vec<u8>),
    /// It cannot be read; a restore goes on.
    Unreadable(Vec<u8>),
}

impl Stop {
    fn usage(text: impl Into<String>) -> Self {
        Self::Usage(text.into().into_bytes())
    }

    /// A message with a value in quotes and something behind.
    fn quoted(before: &str, value: &[u8], after: &str) -> Self {
        Self::Usage([before.as_bytes(), b" `", value, b"'", after.as_bytes()].concat())
    }
}

/// Reads a command line without the program's name.
pub(crate) fn parse(words: &[Vec<u8>], names: &dyn Names) -> Result<Invocation, Stop> {
    let mut parser = Parser::new(OPTIONS, words);
    let mut line = Line::new(names);
    match parser.next() {
        Some(Ok((Typed::Verb(verb), value))) => line.begin(verb, value)?,
        Some(Ok((Typed::Help, _))) => return Err(Stop::Help),
        Some(Ok((Typed::Version, _))) => return Err(Stop::Version),
        None if words.is_empty() => {}
        _ => return Err(Stop::TryHelp),
    }
    while let Some(option) = parser.next() {
        match option {
            Ok((Typed::Verb(_) | Typed::Help | Typed::Version, _)) => {
                return Err(Stop::quoted("invalid option", parser.word(), ""));
            }
            Ok((typed, value)) => line.option(typed, value.unwrap_or(&[]), value.is_some())?,
            Err(fault) => {
                let text = format!(": {fault}");
                return Err(Stop::Unreadable([parser.word(), text.as_bytes()].concat()));
            }
        }
    }
    line.end(&parser.into_leftover())
}

/// A command line that is being read.
struct Line<'a> {
    names: &'a dyn Names,
    verb: Verb,
    given: GivenSet,
    service: ServiceKey,
    scheduler: Name,
    engine: Name,
    flags: u32,
    persistence: u32,
    netmask: [u8; 4],
    sched_flags: Vec<u8>,
    dest: DestKey,
    dest_spec: DestSpec,
    tunnel: Tunnel,
    timeouts: TimeoutEdit,
    sync: SyncDaemon,
}

impl<'a> Line<'a> {
    fn new(names: &'a dyn Names) -> Self {
        Self {
            names,
            verb: Verb::List,
            given: GivenSet::default(),
            service: ServiceKey::address(Family::V4, 0, Addr::UNSPECIFIED, 0),
            scheduler: "wlc".into(),
            engine: Name::default(),
            flags: 0,
            persistence: 0,
            netmask: [255; 4],
            sched_flags: Vec::new(),
            dest: DestKey::new(Family::V4, Addr::UNSPECIFIED, 0),
            dest_spec: DestSpec {
                weight: 1,
                upper: 0,
                lower: 0,
                tunnel_port: 0,
                tunnel_flags: 0,
                tunnel_type: 0,
                method: ForwardingMethod::DirectRoute as u8,
                reserved: [0; 2],
            },
            tunnel: Tunnel::default(),
            timeouts: TimeoutEdit::default(),
            sync: SyncDaemon {
                state: 0,
                interface: "eth0".into(),
                sync_id: 0,
                max_len: 0,
                group: None,
                port: 0,
                ttl: 0,
            },
        }
    }

    /// Takes the command, and the state that a daemon command has as value.
    fn begin(&mut self, verb: Verb, value: Option<&[u8]>) -> Result<(), Stop> {
        self.verb = verb;
        let illegal = match verb {
            Verb::StartDaemon => "illegal start-daemon parameter specified",
            Verb::StopDaemon => "illegal start_daemon specified",
            _ => return Ok(()),
        };
        let state = match value {
            Some(b"master") => SyncState::Master,
            Some(b"backup") => SyncState::Backup,
            _ => return Err(Stop::usage(illegal)),
        };
        self.sync.state = state.number();
        Ok(())
    }

    /// Notes that an option was given, which may be once only.
    fn note(&mut self, given: Given) -> Result<(), Stop> {
        if self.given.insert(given) {
            return Ok(());
        }
        Err(Stop::usage(format!("multiple '{}' options specified", given.name())))
    }

    /// Takes an option and its value.
    fn option(&mut self, typed: Typed, value: &[u8], has_value: bool) -> Result<(), Stop> {
        match typed {
            Typed::Service(protocol) => {
                self.note(Given::ServiceAddress)?;
                let endpoint = endpoint(value, protocol, self.names).ok_or_else(|| {
                    Stop::usage("illegal virtual server address[:port] specified")
                })?;
                let (family, addr) = Addr::from_ip(endpoint.ip);
                let port = endpoint.port.unwrap_or(0);
                self.service = ServiceKey::address(family, protocol, addr, port);
                if family == Family::V6 {
                    self.netmask = WHOLE_IPV6.to_ne_bytes();
                }
                Ok(())
            }
            Typed::Fwmark => {
                self.note(Given::ServiceAddress)?;
                let mark = number(value, 1, u32::MAX)
                    .ok_or_else(|| Stop::quoted("invalid fwmark value", value, " specified"))?;
                self.service = ServiceKey::fwmark(Family::V4, mark);
                Ok(())
            }
            Typed::Ipv6 => {
                if !self.service.is_fwmark() {
                    return Err(Stop::usage("-6 used before -f\n"));
                }
                self.service = ServiceKey::fwmark(Family::V6, self.service.fwmark);
                self.netmask = WHOLE_IPV6.to_ne_bytes();
                Ok(())
            }
            Typed::Method(number) => {
                self.note(Given::ForwardingMethod)?;
                self.dest_spec.method = number;
                Ok(())
            }
            Typed::Plain(given) => {
                self.note(given)?;
                self.plain(given, value, has_value)
            }
            Typed::Sort | Typed::Verb(_) | Typed::Help | Typed::Version => Ok(()),
        }
    }

    /// Takes an option that stands for itself.
    fn plain(&mut self, given: Given, value: &[u8], has_value: bool) -> Result<(), Stop> {
        let count = |min, max, text| number(value, min, max).ok_or_else(|| Stop::usage(text));
        let short = |min: u16, max: u32, text| {
            let value = count(min.into(), max, text)?;
            u16::try_from(value).ok().ok_or_else(|| Stop::usage(text))
        };
        match given {
            Given::Scheduler if value.is_empty() => self.scheduler = "wlc".into(),
            Given::Scheduler => self.scheduler = Name::truncated(value),
            Given::Persistent => {
                self.flags |= ServiceFlags::PERSISTENT;
                self.persistence = if has_value { timeout(value, 1)? } else { PERSISTENCE };
            }
            Given::Netmask => self.netmask = self.netmask(value)?,
            Given::Engine => self.engine = Name::truncated(value),
            Given::OnePacket => self.flags |= ServiceFlags::ONE_PACKET,
            Given::SchedFlags => self.sched_flags = value.to_vec(),
            Given::RealServer => {
                // To ipvsadm, a service of a mark is one of TCP.
                let is_fwmark = self.service.is_fwmark();
                let protocol = if is_fwmark { TCP } else { self.service.protocol };
                let endpoint = endpoint(value, protocol, self.names)
                    .ok_or_else(|| Stop::usage("illegal real server address[:port] specified"))?;
                let (family, addr) = Addr::from_ip(endpoint.ip);
                let port = endpoint.port.unwrap_or(self.service.port);
                self.dest = DestKey::new(family, addr, port);
            }
            Given::Weight => {
                let weight = count(0, MAX_COUNT, "illegal weight specified")?;
                self.dest_spec.weight = weight.cast_signed();
            }
            Given::UpperThreshold => {
                self.dest_spec.upper = count(0, MAX_COUNT, "illegal u_threshold specified")?;
            }
            Given::LowerThreshold => {
                self.dest_spec.lower = count(0, MAX_COUNT, "illegal l_threshold specified")?;
            }
            Given::TunType => {
                let named = Tunnel::ALL.iter().find(|tunnel| tunnel.name().as_bytes() == value);
                let illegal = || Stop::usage("illegal tunnel type specified");
                self.tunnel = *named.ok_or_else(illegal)?;
            }
            Given::TunPort => {
                self.dest_spec.tunnel_port = short(1, 65535, "illegal tunnel port specified")?;
            }
            Given::TunNoCsum => self.dest_spec.tunnel_flags = 0,
            Given::TunCsum => self.dest_spec.tunnel_flags = 1,
            Given::TunRemCsum => self.dest_spec.tunnel_flags = 2,
            Given::McastInterface => self.sync.interface = Name::truncated(value),
            Given::SyncId => self.sync.sync_id = count(0, 255, "illegal syncid specified")?,
            Given::SyncMaxLen => {
                self.sync.max_len = short(1, MAX_SYNC_LEN, "illegal sync-maxlen specified")?;
            }
            Given::McastGroup => self.sync.group = Some(mcast_group(value)?),
            Given::McastPort => {
                self.sync.port = short(1, 65535, "illegal mcast-port specified")?;
            }
            Given::McastTtl => {
                let [ttl, _] = short(1, 255, "illegal mcast-ttl specified")?.to_le_bytes();
                self.sync.ttl = ttl;
            }
            Given::Numeric
            | Given::Json
            | Given::Full
            | Given::Atomic
            | Given::Connection
            | Given::ServiceAddress
            | Given::ForwardingMethod
            | Given::Timeout
            | Given::Daemon
            | Given::Stats
            | Given::Rate
            | Given::Thresholds
            | Given::PersistentConn
            | Given::NoSort
            | Given::Exact
            | Given::TunInfo => {}
        }
        Ok(())
    }

    /// The mask of `-M`, read by the family known so far.
    fn netmask(&self, value: &[u8]) -> Result<[u8; 4], Stop> {
        match self.service.family() {
            Family::V6 => match u32::try_from(leading_number(value)) {
                Ok(prefix @ 1..=WHOLE_IPV6) => Ok(prefix.to_ne_bytes()),
                _ => Err(Stop::usage("illegal ipv6 netmask specified")),
            },
            Family::V4 => {
                let mask = ipv4_or_host(value, self.names).ok_or_else(|| {
                    Stop::usage("illegal virtual server persistent mask specified")
                })?;
                Ok(mask.octets())
            }
        }
    }

    /// Checks the line as a whole, with the words that are no options.
    fn end(mut self, leftover: &[&[u8]]) -> Result<Invocation, Stop> {
        let mut leftover = leftover.iter();
        if self.verb == Verb::Set {
            let (Some(tcp), Some(tcp_fin), Some(udp)) =
                (leftover.next(), leftover.next(), leftover.next())
            else {
                return Err(Stop::usage("--set option requires 3 timeout values"));
            };
            self.timeouts = TimeoutEdit {
                tcp: timeout(tcp, 0)?,
                tcp_fin: timeout(tcp_fin, 0)?,
                udp: timeout(udp, 0)?,
            };
        }
        if let Some(word) = leftover.next() {
            return Err(Stop::Usage([b"unexpected argument ", *word].concat()));
        }
        self.flags |= sched_flags(&self.sched_flags, self.scheduler)?;
        let combination = |bad: rules::BadCombination| Stop::usage(bad.to_string());
        rules::check_command(self.verb, self.given).map_err(combination)?;
        match self.verb {
            Verb::List if rules::list_conflicts(self.given) => {
                return Err(Stop::usage("options conflicts in the list command"));
            }
            Verb::AddService | Verb::EditService => self.check_service()?,
            Verb::AddServer | Verb::EditServer => self.check_server()?,
            _ => {}
        }
        Ok(Invocation {
            verb: self.verb,
            given: self.given,
            service: self.service,
            service_spec: ServiceSpec {
                scheduler: self.scheduler,
                engine: self.engine,
                flags: self.flags,
                timeout: self.persistence,
                netmask: self.netmask,
            },
            dest: self.dest,
            dest_spec: self.dest_spec,
            timeouts: self.timeouts,
            sync: self.sync,
        })
    }

    /// Checks a service that is to be added or edited.
    fn check_service(&self) -> Result<(), Stop> {
        let key = &self.service;
        let is_persistent = self.flags & ServiceFlags::PERSISTENT != 0;
        if !key.is_fwmark() && key.port == 0 && !is_persistent {
            return Err(Stop::usage("Zero port specified for non-persistent service"));
        }
        let is_one_packet = self.flags & ServiceFlags::ONE_PACKET != 0;
        if is_one_packet && !key.is_fwmark() && key.protocol != UDP {
            return Err(Stop::usage("One-Packet Scheduling is only for UDP virtual services"));
        }
        Ok(())
    }

    /// Checks a real server that is to be added or edited, and sets what
    /// follows from its method.
    fn check_server(&mut self) -> Result<(), Stop> {
        let is_tunnel = self.dest_spec.forwarding() == ForwardingMethod::Tunnel;
        if self.dest.family() != self.service.family() && !is_tunnel {
            return Err(Stop::usage(
                "Different address family is allowed only for tunneling servers",
            ));
        }
        let tunnel_options =
            [Given::TunType, Given::TunPort, Given::TunNoCsum, Given::TunCsum, Given::TunRemCsum];
        if is_tunnel {
            rules::check_tunnel(self.tunnel, self.given)
                .map_err(|bad| Stop::usage(bad.to_string()))?;
        } else if self.given.has_any(&tunnel_options) {
            return Err(Stop::usage("Tunnel options conflict with forward method"));
        }
        self.dest_spec.tunnel_type = self.tunnel as u8;
        // Only masquerading can change a port; ipvsadm corrects it in silence.
        let can_map_ports = self.dest_spec.forwarding() == ForwardingMethod::Masquerade;
        if !self.service.is_fwmark() && !can_map_ports {
            self.dest = DestKey { port: self.service.port, ..self.dest };
        }
        Ok(())
    }
}

/// A time of at least `min` seconds.
fn timeout(value: &[u8], min: u32) -> Result<u32, Stop> {
    number(value, min, MAX_TIMEOUT)
        .ok_or_else(|| Stop::quoted("invalid timeout value", value, " specified"))
}

/// The group of `--mcast-group`; names are not resolved.
fn mcast_group(value: &[u8]) -> Result<IpAddr, Stop> {
    let text = str::from_utf8(value).unwrap_or_default();
    let (ip, family): (Option<IpAddr>, _) = if value.contains(&b':') {
        (text.parse().ok().map(IpAddr::V6), "invalid IPv6 mcast-group")
    } else {
        (text.parse().ok().map(IpAddr::V4), "invalid IPv4 mcast-group")
    };
    ip.filter(IpAddr::is_multicast).ok_or_else(|| Stop::quoted(family, value, ""))
}

/// The bits of `-b` for a service with this scheduler.
fn sched_flags(text: &[u8], scheduler: Name) -> Result<u32, Stop> {
    const FLAGS: [(&[u8], &str, u32); 7] = [
        (b"flag-1", "", ServiceFlags::SCHED_1),
        (b"flag-2", "", ServiceFlags::SCHED_2),
        (b"flag-3", "", ServiceFlags::SCHED_3),
        (b"sh-fallback", "sh", ServiceFlags::SCHED_1),
        (b"sh-port", "sh", ServiceFlags::SCHED_2),
        (b"mh-fallback", "mh", ServiceFlags::SCHED_1),
        (b"mh-port", "mh", ServiceFlags::SCHED_2),
    ];
    // ipvsadm 1.31 dies of a signal here.
    if !text.is_empty() && text.iter().all(|&octet| octet == b',') {
        return Err(Stop::quoted("invalid scheduler flag", text, ""));
    }
    let mut bits = 0;
    for item in text.split(|&octet| octet == b',').filter(|item| !item.is_empty()) {
        let known = FLAGS.iter().find(|(name, ..)| *name == item);
        let Some(&(_, of, bit)) = known else {
            return Err(Stop::quoted("invalid scheduler flag", item, ""));
        };
        if !of.is_empty() && scheduler.as_str() != of {
            return Err(Stop::quoted("incompatible scheduler flag", item, ""));
        }
        bits |= bit;
    }
    Ok(bits)
}

#[cfg(test)]
mod tests {
    use super::super::names::NoNames;
    use super::*;

    fn read(line: &str) -> Result<Invocation, Stop> {
        let words: Vec<Vec<u8>> = line.split_whitespace().map(Into::into).collect();
        parse(&words, &NoNames)
    }

    /// Checks the error of a line that is refused for what it says.
    #[track_caller]
    fn refuses(line: &str, expect: &str) {
        match read(line) {
            Err(Stop::Usage(text)) => assert_eq!(String::from_utf8_lossy(&text), expect),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_service_without_options_has_the_defaults_of_ipvsadm() {
        let line = read("-A -t 192.0.2.10:80").unwrap();
        assert_eq!(line.service, ServiceKey::address(Family::V4, 6, Addr::v4([192, 0, 2, 10]), 80));
        assert_eq!(line.service_spec.scheduler.as_str(), "wlc");
        assert_eq!((line.service_spec.flags, line.service_spec.timeout), (0, 0));
        assert_eq!(line.service_spec.netmask, [255; 4]);
    }

    #[test]
    fn persistence_without_a_time_is_six_minutes() {
        let line = read("-A -t 192.0.2.10:80 -p -s rr").unwrap();
        assert_eq!(line.service_spec.timeout, 360);
        assert_eq!(line.service_spec.flags, ServiceFlags::PERSISTENT);
    }

    #[test]
    fn a_mask_is_read_by_the_family_known_so_far() {
        let mask = |line: &str| read(line).unwrap().service_spec.netmask;
        assert_eq!(mask("-A -M 255.255.0.0 -t 192.0.2.10:80 -p"), [255, 255, 0, 0]);
        assert_eq!(mask("-A -M 255.255.0.0 -t [2001:db8::1]:80 -p"), 128_u32.to_ne_bytes());
        assert_eq!(mask("-A -t [2001:db8::1]:80 -p -M 48x"), 48_u32.to_ne_bytes());
        assert_eq!(mask("-A -f 1 -M 24 -p"), [0, 0, 0, 24]);
        assert_eq!(mask("-A -f 1 -M 24 -6 -p"), 128_u32.to_ne_bytes());
        refuses("-A -t [2001:db8::1]:80 -M 129", "illegal ipv6 netmask specified");
        refuses("-A -f 1 -M x", "illegal virtual server persistent mask specified");
    }

    #[test]
    fn the_port_of_a_real_server_is_that_of_the_service_before_it() {
        let port = |line: &str| read(line).unwrap().dest.port;
        assert_eq!(port("-a -t 192.0.2.10:80 -r 10.1.0.11 -m"), 80);
        assert_eq!(port("-a -t 192.0.2.10:80 -r 10.1.0.11:8080 -m"), 8080);
        assert_eq!(port("-a -t 192.0.2.10:80 -r 10.1.0.11:0 -m"), 0);
        assert_eq!(port("-a -r 10.1.0.11 -t 192.0.2.10:80 -m"), 0);
    }

    #[test]
    fn the_port_cannot_change_without_masquerading() {
        let port = |line: &str| read(line).unwrap().dest.port;
        assert_eq!(port("-a -t 192.0.2.10:80 -r 10.1.0.11:8080 -g"), 80);
        assert_eq!(port("-e -t 192.0.2.10:80 -r 10.1.0.11:8080 -i"), 80);
        assert_eq!(port("-a -f 1 -r 10.1.0.11:8080 -i"), 8080);
        assert_eq!(port("-d -t 192.0.2.10:80 -r 10.1.0.11:8080"), 8080);
    }

    #[test]
    fn a_value_is_judged_before_the_combination() {
        refuses("-C -n -w abc", "illegal weight specified");
        refuses("-C -n -w 1", "Illegal 'numeric' option with the 'flush' command");
    }

    #[test]
    fn the_numbers_of_set_are_counted_before_they_are_read() {
        refuses("--set a b", "--set option requires 3 timeout values");
        refuses("--set 1 2 -n", "--set option requires 3 timeout values");
        refuses("--set 1 2 c", "invalid timeout value `c' specified");
        refuses("--set 1 2 3 4 -n", "unexpected argument 4");
    }

    #[test]
    fn commas_alone_are_refused_where_ipvsadm_crashes() {
        refuses("-A -t 192.0.2.10:80 -s sh -b ,", "invalid scheduler flag `,'");
    }

    #[test]
    fn no_words_mean_a_listing() {
        assert_eq!(read("").unwrap().verb, Verb::List);
        assert_eq!(read("extra").map(|_| ()), Err(Stop::TryHelp));
    }
}
