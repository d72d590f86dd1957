//! The commands and options of `ipvsadm`: how they are typed and what they are
//! called in messages.

use super::popt::{Spec, Value};

/// What the user wants done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    /// `-A`
    AddService,
    /// `-E`
    EditService,
    /// `-D`
    DeleteService,
    /// `-C`
    Flush,
    /// `-a`
    AddServer,
    /// `-e`
    EditServer,
    /// `-d`
    DeleteServer,
    /// `-L`
    List,
    /// `-Z`
    Zero,
    /// `--set`
    Set,
    /// `-S`
    Save,
    /// `-R`
    Restore,
    /// `--start-daemon`
    StartDaemon,
    /// `--stop-daemon`
    StopDaemon,
}

impl Verb {
    /// Its name in messages.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::AddService => "add-service",
            Self::EditService => "edit-service",
            Self::DeleteService => "delete-service",
            Self::Flush => "flush",
            Self::AddServer => "add-server",
            Self::EditServer => "edit-server",
            Self::DeleteServer => "delete-server",
            Self::List => "list",
            Self::Zero => "zero",
            Self::Set => "set",
            Self::Save => "save",
            Self::Restore => "restore",
            Self::StartDaemon => "start-daemon",
            Self::StopDaemon => "stop-daemon",
        }
    }
}

/// An option as messages and the table of combinations know it; several typed
/// options may stand for one. In the order in which combinations are checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Given {
    Numeric,
    Connection,
    ServiceAddress,
    Scheduler,
    Persistent,
    Netmask,
    RealServer,
    ForwardingMethod,
    Weight,
    UpperThreshold,
    LowerThreshold,
    McastInterface,
    Timeout,
    Daemon,
    Stats,
    Rate,
    Thresholds,
    PersistentConn,
    NoSort,
    SyncId,
    Exact,
    OnePacket,
    Engine,
    SchedFlags,
    McastGroup,
    McastPort,
    McastTtl,
    SyncMaxLen,
    TunInfo,
    TunType,
    TunPort,
    TunNoCsum,
    TunCsum,
    TunRemCsum,
    Json,
    Full,
    Atomic,
}

impl Given {
    /// All of them, in order.
    pub(crate) const ALL: [Self; 37] = [
        Self::Numeric,
        Self::Connection,
        Self::ServiceAddress,
        Self::Scheduler,
        Self::Persistent,
        Self::Netmask,
        Self::RealServer,
        Self::ForwardingMethod,
        Self::Weight,
        Self::UpperThreshold,
        Self::LowerThreshold,
        Self::McastInterface,
        Self::Timeout,
        Self::Daemon,
        Self::Stats,
        Self::Rate,
        Self::Thresholds,
        Self::PersistentConn,
        Self::NoSort,
        Self::SyncId,
        Self::Exact,
        Self::OnePacket,
        Self::Engine,
        Self::SchedFlags,
        Self::McastGroup,
        Self::McastPort,
        Self::McastTtl,
        Self::SyncMaxLen,
        Self::TunInfo,
        Self::TunType,
        Self::TunPort,
        Self::TunNoCsum,
        Self::TunCsum,
        Self::TunRemCsum,
        Self::Json,
        Self::Full,
        Self::Atomic,
    ];

    /// Its name in messages.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Numeric => "numeric",
            Self::Connection => "connection",
            Self::ServiceAddress => "service-address",
            Self::Scheduler => "scheduler",
            Self::Persistent => "persistent",
            Self::Netmask => "netmask",
            Self::RealServer => "real-server",
            Self::ForwardingMethod => "forwarding-method",
            Self::Weight => "weight",
            Self::UpperThreshold => "u-threshold",
            Self::LowerThreshold => "l-threshold",
            Self::McastInterface => "mcast-interface",
            Self::Timeout => "timeout",
            Self::Daemon => "daemon",
            Self::Stats => "stats",
            Self::Rate => "rate",
            Self::Thresholds => "thresholds",
            Self::PersistentConn => "persistent-conn",
            Self::NoSort => "nosort",
            Self::SyncId => "syncid",
            Self::Exact => "exact",
            Self::OnePacket => "ops",
            Self::Engine => "pe",
            Self::SchedFlags => "sched-flags",
            Self::McastGroup => "mcast-group",
            Self::McastPort => "mcast-port",
            Self::McastTtl => "mcast-ttl",
            Self::SyncMaxLen => "sync-maxlen",
            Self::TunInfo => "tun-info",
            Self::TunType => "tun-type",
            Self::TunPort => "tun-port",
            Self::TunNoCsum => "tun-nocsum",
            Self::TunCsum => "tun-csum",
            Self::TunRemCsum => "tun-remcsum",
            Self::Json => "json",
            Self::Full => "full",
            Self::Atomic => "atomic",
        }
    }
}

/// A set of [`Given`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct GivenSet(u64);

impl GivenSet {
    /// Adds one and returns whether it was new.
    pub(crate) const fn insert(&mut self, given: Given) -> bool {
        let bit = 1 << given as u8;
        let is_new = self.0 & bit == 0;
        self.0 |= bit;
        is_new
    }

    /// Whether it has one.
    pub(crate) const fn has(self, given: Given) -> bool {
        self.0 & (1 << given as u8) != 0
    }

    /// Whether it has any of these.
    pub(crate) fn has_any(self, given: &[Given]) -> bool {
        given.iter().any(|&given| self.has(given))
    }
}

/// An option as typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Typed {
    /// A command; `-h` and `-v` are ones as well.
    Verb(Verb),
    /// `-h`
    Help,
    /// `-v`
    Version,
    /// `-t`, `-u`, `--sctp-service`, by protocol number.
    Service(u8),
    /// `-f`
    Fwmark,
    /// `-6`
    Ipv6,
    /// `-g`, `-i`, `-m`, by the number of the method.
    Method(u8),
    /// `--sort`, which is the default.
    Sort,
    /// One that stands for itself.
    Plain(Given),
}

/// A command with a short form.
const fn verb(long: &'static str, short: u8, verb: Verb) -> Spec<Typed> {
    Spec { long, short: Some(short), value: Value::None, meaning: Typed::Verb(verb) }
}

/// An option with a value.
const fn valued(long: &'static str, short: Option<u8>, meaning: Typed) -> Spec<Typed> {
    Spec { long, short, value: Value::Required, meaning }
}

/// An option without a value.
const fn flag(long: &'static str, short: Option<u8>, meaning: Typed) -> Spec<Typed> {
    Spec { long, short, value: Value::None, meaning }
}

/// All that can be typed.
pub(crate) const OPTIONS: &[Spec<Typed>] = &[
    verb("add-service", b'A', Verb::AddService),
    verb("edit-service", b'E', Verb::EditService),
    verb("delete-service", b'D', Verb::DeleteService),
    verb("clear", b'C', Verb::Flush),
    verb("add-server", b'a', Verb::AddServer),
    verb("edit-server", b'e', Verb::EditServer),
    verb("delete-server", b'd', Verb::DeleteServer),
    verb("list", b'L', Verb::List),
    verb("list", b'l', Verb::List),
    verb("zero", b'Z', Verb::Zero),
    verb("save", b'S', Verb::Save),
    verb("restore", b'R', Verb::Restore),
    flag("set", None, Typed::Verb(Verb::Set)),
    valued("start-daemon", None, Typed::Verb(Verb::StartDaemon)),
    valued("stop-daemon", None, Typed::Verb(Verb::StopDaemon)),
    flag("help", Some(b'h'), Typed::Help),
    flag("version", Some(b'v'), Typed::Version),
    valued("tcp-service", Some(b't'), Typed::Service(6)),
    valued("udp-service", Some(b'u'), Typed::Service(17)),
    valued("sctp-service", None, Typed::Service(132)),
    valued("fwmark-service", Some(b'f'), Typed::Fwmark),
    flag("ipv6", Some(b'6'), Typed::Ipv6),
    valued("scheduler", Some(b's'), Typed::Plain(Given::Scheduler)),
    Spec {
        long: "persistent",
        short: Some(b'p'),
        value: Value::Optional,
        meaning: Typed::Plain(Given::Persistent),
    },
    valued("netmask", Some(b'M'), Typed::Plain(Given::Netmask)),
    valued("pe", None, Typed::Plain(Given::Engine)),
    valued("sched-flags", Some(b'b'), Typed::Plain(Given::SchedFlags)),
    flag("ops", Some(b'o'), Typed::Plain(Given::OnePacket)),
    valued("real-server", Some(b'r'), Typed::Plain(Given::RealServer)),
    flag("masquerading", Some(b'm'), Typed::Method(0)),
    flag("ipip", Some(b'i'), Typed::Method(2)),
    flag("gatewaying", Some(b'g'), Typed::Method(3)),
    valued("weight", Some(b'w'), Typed::Plain(Given::Weight)),
    valued("u-threshold", Some(b'x'), Typed::Plain(Given::UpperThreshold)),
    valued("l-threshold", Some(b'y'), Typed::Plain(Given::LowerThreshold)),
    valued("tun-type", None, Typed::Plain(Given::TunType)),
    valued("tun-port", None, Typed::Plain(Given::TunPort)),
    flag("tun-nocsum", None, Typed::Plain(Given::TunNoCsum)),
    flag("tun-csum", None, Typed::Plain(Given::TunCsum)),
    flag("tun-remcsum", None, Typed::Plain(Given::TunRemCsum)),
    flag("numeric", Some(b'n'), Typed::Plain(Given::Numeric)),
    flag("connection", Some(b'c'), Typed::Plain(Given::Connection)),
    flag("timeout", None, Typed::Plain(Given::Timeout)),
    flag("daemon", None, Typed::Plain(Given::Daemon)),
    flag("stats", None, Typed::Plain(Given::Stats)),
    flag("rate", None, Typed::Plain(Given::Rate)),
    flag("thresholds", None, Typed::Plain(Given::Thresholds)),
    flag("persistent-conn", None, Typed::Plain(Given::PersistentConn)),
    flag("tun-info", None, Typed::Plain(Given::TunInfo)),
    flag("exact", Some(b'X'), Typed::Plain(Given::Exact)),
    // These three are ours.
    flag("json", None, Typed::Plain(Given::Json)),
    flag("full", None, Typed::Plain(Given::Full)),
    flag("atomic", None, Typed::Plain(Given::Atomic)),
    flag("nosort", None, Typed::Plain(Given::NoSort)),
    flag("sort", None, Typed::Sort),
    valued("mcast-interface", None, Typed::Plain(Given::McastInterface)),
    valued("syncid", None, Typed::Plain(Given::SyncId)),
    valued("sync-maxlen", None, Typed::Plain(Given::SyncMaxLen)),
    valued("mcast-group", None, Typed::Plain(Given::McastGroup)),
    valued("mcast-port", None, Typed::Plain(Given::McastPort)),
    valued("mcast-ttl", None, Typed::Plain(Given::McastTtl)),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_given_stands_at_its_number() {
        for (at, given) in Given::ALL.into_iter().enumerate() {
            assert_eq!(given as usize, at);
        }
    }
}
