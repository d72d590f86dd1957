//! What becomes of a packet, and the reason where it is not balanced.

use crate::tables::Tables;

impl Reason {
    /// Whether a packet that is not balanced for this reason is dropped.
    #[inline(always)]
    pub const fn drops(self) -> bool {
        self as u32 >= Self::ShortTransport as u32 && self as u32 <= Self::Unsupported as u32
    }
}

/// What to do with a packet. Every packet has exactly one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// Hand it to the host. It is unchanged, but for a packet to a
    /// masqueraded destination on the host itself.
    Pass(Reason),
    /// Ours, translated, and the host's: its source may be an address of the host,
    /// which takes that from no wire.
    Deliver,
    /// Ours, and refused.
    Drop(Reason),
    /// Ours, and unchanged: to be led through the director again where memory
    /// and time are at hand. Nothing was counted or done for it but that a
    /// connection may have been made. The plane counts it when it takes it.
    Defer(Reason),
    /// Not decided yet: to be led on by
    /// [`director::go_on`](crate::director::go_on). Only where the plane has the
    /// stages of a packet's way [apart](crate::tables::Tables::STAGES_APART).
    GoOn(Stage),
    /// Send the frame as it is now through this interface. A plane that
    /// [cuts](crate::tables::Tables::CUTS) may find it longer than `mtu`.
    Send {
        /// Interface.
        ifindex: u32,
        /// Largest IP packet on the way, in octets.
        mtu: u32,
    },
    /// Send the packet through this interface once the MAC address of
    /// [the neighbour](crate::director::Scratch::neighbour) is known.
    Resolve {
        /// Interface.
        ifindex: u32,
    },
}

/// A part of a packet's way through the director. A plane whose programs have
/// room and time for so much only makes a program of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Stage {
    /// An ICMP packet: what it quotes, and where it goes.
    Icmp = 0,
    /// A packet of no known connection: service, scheduler, a new connection.
    Admission = 1,
    /// A packet of the connection that admission has found for it.
    Forwarding = 2,
    /// A packet that is answered by an error.
    Refusal = 3,
    /// An ICMP packet that may be about a tunnel's.
    Tunnelled = 4,
}

impl Stage {
    /// Every stage that a packet may go on with, by number.
    pub const ALL: [Self; 5] =
        [Self::Icmp, Self::Admission, Self::Forwarding, Self::Refusal, Self::Tunnelled];
}

/// A [`Verdict`] in one register, as functions of the core hand it on: an eBPF
/// function returns no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) struct Outcome(u64);

impl Outcome {
    const PASS: u64 = 0;
    const DROP: u64 = 1 << 32;
    const SEND: u64 = 2 << 32;
    const RESOLVE: u64 = 3 << 32;
    const DEFER: u64 = 4 << 32;
    const GO_ON: u64 = 5 << 32;
    const DELIVER: u64 = 6 << 32;

    #[inline(always)]
    pub(crate) const fn pass(reason: Reason) -> Self {
        Self(Self::PASS | reason as u64)
    }

    #[inline(always)]
    pub(crate) const fn drop(reason: Reason) -> Self {
        Self(Self::DROP | reason as u64)
    }

    #[inline(always)]
    pub(crate) const fn send(ifindex: u32) -> Self {
        Self(Self::SEND | ifindex as u64)
    }

    #[inline(always)]
    pub(crate) const fn resolve(ifindex: u32) -> Self {
        Self(Self::RESOLVE | ifindex as u64)
    }

    #[inline(always)]
    pub(crate) const fn defer(reason: Reason) -> Self {
        Self(Self::DEFER | reason as u64)
    }

    #[inline(always)]
    pub(crate) const fn go_on(stage: Stage) -> Self {
        Self(Self::GO_ON | stage as u64)
    }

    #[inline(always)]
    pub(crate) const fn deliver() -> Self {
        Self(Self::DELIVER)
    }

    /// Whether the packet is left, unchanged and not counted, to another plane that leads it
    /// through the director from the beginning.
    #[inline(always)]
    pub(crate) const fn is_left<T: Tables>(self) -> bool {
        match self.0 >> 32 {
            0 => !T::RESOLVES,
            4 => true,
            _ => false,
        }
    }

    /// The verdict on a packet whose way takes `mtu` octets.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "the low half is the number")]
    pub(crate) const fn verdict(self, mtu: u32) -> Verdict {
        let number = self.0 as u32;
        match self.0 >> 32 {
            0 => Verdict::Pass(Reason::from_number(number)),
            1 => Verdict::Drop(Reason::from_number(number)),
            2 => Verdict::Send { ifindex: number, mtu },
            3 => Verdict::Resolve { ifindex: number },
            4 => Verdict::Defer(Reason::from_number(number)),
            6 => Verdict::Deliver,
            _ if number == Stage::Icmp as u32 => Verdict::GoOn(Stage::Icmp),
            _ if number == Stage::Admission as u32 => Verdict::GoOn(Stage::Admission),
            _ if number == Stage::Forwarding as u32 => Verdict::GoOn(Stage::Forwarding),
            _ if number == Stage::Tunnelled as u32 => Verdict::GoOn(Stage::Tunnelled),
            _ => Verdict::GoOn(Stage::Refusal),
        }
    }
}

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident = $label:literal,)+) => {
        /// Why a packet was passed or dropped: one counter each.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u32)]
        pub enum Reason {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Reason {
            /// Every reason, in the order of their counters.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// The reason with this number; of none, the last.
            #[inline(always)]
            pub const fn from_number(number: u32) -> Self {
                $(if number == Self::$name as u32 { return Self::$name; })+
                Self::Replied
            }

            /// The name of its counter.
            pub const fn label(self) -> &'static str {
                match self { $(Self::$name => $label,)+ }
            }
        }
    };
}

reasons! {
    /// Passed: neither IPv4 nor IPv6.
    NotIp = "not_ip",
    /// Passed: no service and no connection of ours.
    NoService = "no_service",
    /// Passed: a protocol that is not balanced.
    OtherProtocol = "other_protocol",
    /// Passed: a header is cut short or contradicts itself; the host counts and drops it.
    Malformed = "malformed",
    /// Passed: a fragment of a datagram that cannot be ours.
    Fragment = "fragment",
    /// Passed: to a broadcast, multicast or foreign MAC address.
    OtherHost = "other_host",
    /// Passed: of no connection, and not one that starts a connection.
    NotStarting = "not_starting",
    /// Passed: to an address of a service that the host does not have.
    NotLocal = "not_local",
    /// Passed: the destination is the host itself.
    Local = "local",
    /// Passed: translated, longer than the path and allowed to be cut, which
    /// the host does as it sends it on.
    LeftToCut = "left_to_cut",
    /// Passed: a reply that the host will refuse to forward, as its time to
    /// live or its length does not do; or by a plane that leaves all but sending
    /// to the next one.
    LeftToRefuse = "left_to_refuse",
    /// Passed: reply of a connection whose replies are not translated.
    DirectReply = "direct_reply",
    /// Passed: the neighbour's MAC address is not known, the next hook resolves it.
    Unresolved = "unresolved",
    /// Passed: tagged, and the next hop is on another interface.
    Tagged = "tagged",
    /// Passed: IPv4 options that the host refuses: a source route, or what contradicts
    /// itself.
    OptionsRefused = "options_refused",
    /// Dropped: the transport header is cut short.
    ShortTransport = "short_transport",
    /// Dropped: a checksum is wrong, of an ICMP error to be translated, or of a
    /// connection whose text the helper reads.
    BadChecksum = "bad_checksum",
    /// Dropped: acknowledges to an FTP server what it never sent.
    NeverSent = "never_sent",
    /// Dropped: the connection's destination was deleted.
    DestGone = "dest_gone",
    /// Dropped: no destination, and no error could be sent for it.
    NoDestination = "no_destination",
    /// Dropped: no route to the destination.
    NoRoute = "no_route",
    /// Dropped: longer than the path, and may not or cannot be cut.
    TooLong = "too_long",
    /// Dropped: nothing in it that the service's persistence engine could go by.
    NoEngineData = "no_engine_data",
    /// Dropped: the connection table is full.
    TableFull = "table_full",
    /// Dropped: one of many that `drop_packet` lets no connection start.
    Defence = "defence",
    /// Dropped: the frame could not be changed as needed.
    Unwritable = "unwritable",
    /// Dropped: an ICMP error that cannot go on; no error is sent about an error.
    Unanswerable = "unanswerable",
    /// Dropped: a forwarding method that is not supported here.
    Unsupported = "unsupported",
    /// Dropped: no room on the way to the slow path.
    DeferredLost = "deferred_lost",
    /// Dropped: a fragment that contradicts itself, or others of its datagram.
    FragmentBad = "fragment_bad",
    /// Dropped: a fragment whose datagram did not become whole in time.
    FragmentTimeout = "fragment_timeout",
    /// Dropped: a fragment that had to make room for newer ones.
    FragmentPushedOut = "fragment_pushed_out",
    /// Answered: an error was sent to the client: no destination.
    SentUnreachable = "sent_unreachable",
    /// Answered: an error was sent: time to live exceeded.
    SentTimeExceeded = "sent_time_exceeded",
    /// Answered: an error was sent: too long for the path.
    SentTooBig = "sent_too_big",
    /// Answered: a reset, since the deadline of the destination's drain is over.
    SentReset = "sent_reset",
    /// Learnt from an error: the MTU of a tunnel's path. No client was told.
    PathMtuLearnt = "path_mtu_learnt",
    /// Noted besides the verdict: no room in the caches of lblc and lblcr; the
    /// destination was chosen all the same.
    CacheFull = "cache_full",
    /// Deferred: a fragment, which waits for the rest of its datagram.
    DeferredFragment = "deferred_fragment",
    /// Deferred: has IPv4 options, in which route and time may be recorded.
    DeferredOptions = "deferred_options",
    /// Deferred: longer than the path and allowed to be cut.
    DeferredLong = "deferred_long",
    /// Deferred: for a tunnel with a checksum, which covers what is still to be
    /// filled in or cut.
    DeferredUnfilled = "deferred_unfilled",
    /// Deferred: of a control connection whose text the FTP helper reads.
    DeferredHelped = "deferred_helped",
    /// Deferred: of a connection that is reset, since the deadline of the destination's drain
    /// is over.
    DeferredReset = "deferred_reset",
    /// Forwarded to a destination.
    Forwarded = "forwarded",
    /// A translated reply.
    Replied = "replied",
}
