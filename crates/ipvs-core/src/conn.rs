//! Connections and persistence templates: the records every packet meets.

use core::cell::Cell;

use ipvs_wire::Headers;
use ipvs_wire::transport::protocol;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::addr::{Addr, Family};
use crate::dest::{Dest, DestId, ForwardingMethod};
use crate::hop::CachedHop;
use crate::time::{Instant, Millis};

/// Place of a connection in its table.
pub type ConnId = u32;

/// The place that no connection or destination has.
pub const NONE: u32 = u32::MAX;

/// Addresses and ports of a packet, as the packet has them: the key under
/// which a connection is found in either direction with one lookup.
///
/// There is no padding: the kernel hashes every octet of a map key.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Tuple {
    /// Source address.
    pub source: Addr,
    /// Destination address.
    pub destination: Addr,
    /// Source port, host order.
    pub source_port: u16,
    /// Destination port, host order.
    pub destination_port: u16,
    /// IANA protocol number.
    pub protocol: u8,
    /// [`Family::tag`].
    pub family: u8,
    /// [`Tuple::PACKET`], [`Tuple::TEMPLATE`], [`Tuple::EXPECTED`], or
    /// [`Tuple::ENGINE`] with a part of a hash.
    pub kind: u16,
}

const _: () = assert!(size_of::<Tuple>() == 40);

/// The port of IKE (RFC 7296, section 2).
const IKE: u16 = 500;

impl Tuple {
    /// Key of a connection.
    pub const PACKET: u16 = 0;
    /// Key of a persistence template.
    pub const TEMPLATE: u16 = 1;
    /// Key of a connection whose client's port its first packet will say.
    pub const EXPECTED: u16 = 2;
    /// Bit of the key of a template with [engine](crate::engine) data. The
    /// other bits, and the source port, are a hash of the data.
    pub const ENGINE: u16 = 0x8000;

    /// The key of the packet with these headers.
    #[inline(always)]
    pub const fn of(h: &Headers) -> Self {
        Self {
            source: Addr::from_words(h.source),
            destination: Addr::from_words(h.destination),
            source_port: h.source_port,
            destination_port: h.destination_port,
            protocol: h.protocol,
            family: h.version,
            kind: Self::PACKET,
        }
    }

    /// The key of the IKE connection that a packet of `IPsec` with these headers follows.
    #[inline(always)]
    pub const fn of_ike(h: &Headers) -> Self {
        Self { source_port: IKE, destination_port: IKE, protocol: protocol::UDP, ..Self::of(h) }
    }

    /// The key of a packet in the other direction.
    #[inline(always)]
    #[must_use]
    pub const fn reversed(&self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            source_port: self.destination_port,
            destination_port: self.source_port,
            ..*self
        }
    }

    /// Address family of both addresses.
    #[inline(always)]
    pub const fn family(&self) -> Family {
        Family::from_tag(self.family)
    }
}

/// What a [`Tuple`] leads to: a connection, and in which of its directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// The connection.
    pub id: ConnId,
    /// The tuple is that of its replies.
    pub reply: bool,
}

impl Found {
    const REPLY: u32 = 1 << 31;

    /// As one word, the form in which tables keep it.
    #[inline(always)]
    pub const fn word(self) -> u32 {
        if self.reply { self.id | Self::REPLY } else { self.id }
    }

    /// From the form in which tables keep it.
    #[inline(always)]
    pub const fn from_word(word: u32) -> Self {
        Self { id: word & !Self::REPLY, reply: word & Self::REPLY != 0 }
    }
}

/// A connection, or a persistence template.
///
/// Every field is a cell because packets on several CPUs work on one record.
/// What a packet of a known connection needs lies in the first 64 octets: with
/// many connections every further cache line costs more than all the work.
#[derive(Debug, FromBytes, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct Conn {
    /// When it ends, in nanoseconds of the plane's clock.
    pub expires: Cell<u64>,
    /// How long it lives without a packet.
    pub timeout: Cell<u32>,
    /// Its destination, or [`NONE`].
    pub dest: Cell<DestId>,
    /// Bits of [`ConnFlags`].
    pub flags: Cell<u32>,
    /// Packets from the client.
    pub in_packets: Cell<u32>,
    /// Port at the destination, host order.
    pub dest_port: Cell<u16>,
    /// State number within its protocol.
    pub state: Cell<u8>,
    /// Zero.
    pub reserved: Cell<u8>,
    /// The template or control connection it hangs on, or [`NONE`].
    pub control: Cell<ConnId>,
    /// How many connections hang on this one.
    pub controls: Cell<u32>,
    /// The firewall mark it was made under; 0 for none.
    pub fwmark: Cell<u32>,
    /// Where replies go next.
    pub reply_hop: CachedHop,
    /// Client to virtual service, the key it is found under.
    pub tuple: Cell<Tuple>,
    /// By the flags: what the [helper](crate::helper) keeps of a control
    /// connection, or the address of a data connection
    /// [elsewhere](ConnFlags::ELSEWHERE).
    pub extra: [Cell<u32>; 6],
}

const _: () = assert!(size_of::<Conn>() == 128);
const _: () = assert!(core::mem::offset_of!(Conn, tuple) == 64);

/// Bits of [`Conn::flags`], with the kernel's values (seen on the sync wire).
#[derive(Clone, Copy, Debug)]
pub struct ConnFlags;

impl ConnFlags {
    /// Forwarding method.
    pub const METHOD: u32 = 0x0007;
    /// In the table.
    pub const HASHED: u32 = 0x0040;
    /// No reply has been seen, or none is expected.
    pub const NO_OUTPUT: u32 = 0x0080;
    /// Counted inactive.
    pub const INACTIVE: u32 = 0x0100;
    /// The client's port is not known yet (passive FTP data).
    pub const NO_CLIENT_PORT: u32 = 0x0800;
    /// A persistence template.
    pub const TEMPLATE: u32 = 0x1000;
    /// Serves one packet.
    pub const ONE_PACKET: u32 = 0x2000;
    /// The FTP helper looks at its packets. This and the next are our own: the
    /// sync wire has 16 bits.
    pub const HELPED: u32 = 0x0100_0000;
    /// FTP data of a host that is not the destination, but was announced by it.
    pub const ELSEWHERE: u32 = 0x0200_0000;
    /// A template with data of a persistence engine.
    pub const ENGINE: u32 = 0x0400_0000;
    /// A segment of the client went on as a reset: its destination is drained to the end.
    pub const RESET: u32 = 0x0800_0000;
    /// Those that the kernel has, too.
    pub const KERNEL: u32 = 0x00ff_ffff;
}

impl Conn {
    /// Sets its key, word by word: copied whole it is copied octet by octet by
    /// an eBPF program, in a loop that the verifier walks for every path to it.
    #[inline(always)]
    pub fn set_tuple(&self, tuple: &Tuple) {
        let [source, source_low, destination, destination_low, ports]: [u64; 5] =
            zerocopy::transmute!(*tuple);
        let ports = core::hint::black_box(ports);
        let destination = core::hint::black_box(destination);
        let words = [source, source_low, destination, destination_low, ports];
        self.tuple.set(zerocopy::transmute!(words));
    }

    /// Whether it has ended at `now`: at the deadline, not after it.
    #[inline(always)]
    pub fn has_ended(&self, now: Instant) -> bool {
        now.nanos() >= self.expires.get()
    }

    /// Whether it had ended that long before `now`.
    #[inline(always)]
    pub fn has_ended_before(&self, now: Instant, long: Millis) -> bool {
        now.nanos() >= Instant::from_nanos(self.expires.get()).after(long).nanos()
    }

    /// Starts its timer anew.
    #[inline(always)]
    pub fn rearm(&self, now: Instant) {
        self.expires.set(now.after(Millis(self.timeout.get())).nanos());
    }

    /// The address that a client's packets get when they are masqueraded.
    #[inline(always)]
    pub fn dest_addr(&self, dest: &Dest) -> Addr {
        if self.has(ConnFlags::ELSEWHERE) { self.elsewhere() } else { dest.key.addr }
    }

    /// Whether packets go on by the normal route, past all destinations.
    #[inline(always)]
    pub fn is_bypass(&self) -> bool {
        ForwardingMethod::from_flags(self.flags.get()) == ForwardingMethod::Bypass
    }

    /// The address of a connection [elsewhere](ConnFlags::ELSEWHERE).
    #[inline(always)]
    pub fn elsewhere(&self) -> Addr {
        let [a, b, c, d, ..] = &self.extra;
        Addr::from_words([a.get(), b.get(), c.get(), d.get()])
    }

    /// Whether `flag` is set.
    #[inline(always)]
    pub fn has(&self, flag: u32) -> bool {
        self.flags.get() & flag != 0
    }
}
