//! A port: the interface where frames come in and go out, by a packet socket
//! with a ring.
//!
//! The socket sees every frame as the host's stack does, with what that leaves
//! for later: unfilled checksums, trains of segments (a virtio header says
//! which). What it gets is a copy, so the stack sees each frame too: see
//! [`super::forwarding`].

use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd};

use rustix::net::{RecvAncillaryBuffer, RecvFlags, recvmsg, sockopt};

use crate::frame::Frame;
use crate::packet::outlet::{Outlet, QUEUE};
use crate::packet::pool::Pool;
use crate::packet::sys::{self, Ring, RingLayout};
use crate::packet::virtio::{self, VirtioHeader};
use crate::rtnetlink::Link;

/// What precedes a frame in its slot: headers, virtio header and padding, rounded up.
const OVERHEAD: u32 = 128;
/// Slots that hold any frame, a train of 64 KiB included: 17 pages.
const LARGE_SLOT: u32 = 17 * 4096;
/// Octets of a ring whose large frames take the way by the socket's queue.
const SMALL_RING: u32 = 8 << 20;
/// Octets of a ring whose slots hold any frame.
const LARGE_RING: u32 = 32 << 20;
/// Where `struct sockaddr_ll` begins in a slot, behind `struct tpacket2_hdr`.
const ADDRESS: usize = 32;
/// Place of the packet type in it.
const PACKET_TYPE: usize = ADDRESS + 10;

/// What became of a slot.
#[derive(Debug)]
enum Taken {
    /// A frame for this host or for a group.
    Frame(Frame),
    /// A frame too long for its slot, which waits in the socket's queue.
    Queued(Frame, Queued),
    /// One that is not looked at.
    Ignored,
    /// One that is not whole or cannot be passed on.
    Lost,
}

/// A frame that waits in the socket's queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Queued {
    /// The VLAN tag that the kernel took off.
    tag: Option<[u8; 4]>,
    /// Its length without that.
    len: usize,
    /// It is for another host.
    ignored: bool,
}

/// What a port has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortCounters {
    /// Frames taken from the ring and dealt with.
    pub seen: u64,
    /// Frames that the kernel had no place in the ring for.
    pub overrun: u64,
    /// Frames that came in pieces, or of a kind that cannot be passed on.
    pub unreadable: u64,
    /// Frames sent.
    pub sent: u64,
    /// Frames that the kernel or the interface refused.
    pub unsent: u64,
}

/// A port.
#[derive(Debug)]
pub(super) struct Port {
    pub(super) link: Link,
    counters: PortCounters,
    // Unmapped before the socket is closed.
    ring: Ring,
    outlet: Outlet,
}

impl Port {
    /// Starts to take frames from an interface.
    pub(super) fn open(link: Link) -> io::Result<Self> {
        let outlet = Outlet::new()?;
        let socket = outlet.socket();
        let one: i32 = 1;
        sys::set_packet_option(socket.as_fd(), libc::PACKET_IGNORE_OUTGOING, &one)?;
        sys::set_packet_option(socket.as_fd(), libc::PACKET_COPY_THRESH, &one)?;
        let queues = sockopt::set_socket_recv_buffer_size_force(socket, QUEUE).is_ok();
        let ring = Ring::new(socket, layout(link.mtu, queues))?;
        sys::bind(socket.as_fd(), link.index, libc::ETH_P_ALL)?;
        Ok(Self { link, counters: PortCounters::default(), ring, outlet })
    }

    /// The next frame that has come in, and is for this host or for a group.
    pub(super) fn receive(&mut self, pool: &mut Pool) -> Option<Frame> {
        loop {
            let taken = self.ring.take(|slot| take(slot, pool).unwrap_or(Taken::Lost))?;
            self.counters.seen += 1;
            match taken {
                Taken::Frame(frame) => return Some(frame),
                Taken::Queued(frame, queued) => match self.dequeue(frame, queued) {
                    Ok(frame) if queued.ignored => pool.give(frame),
                    Ok(frame) => return Some(frame),
                    Err(_) => self.counters.unreadable += 1,
                },
                Taken::Ignored => {}
                Taken::Lost => self.counters.unreadable += 1,
            }
        }
    }

    /// Takes a frame from the socket's queue.
    ///
    /// Two CPUs that bring in long frames at the same moment may queue them in
    /// another order than that of their slots; both are lost then.
    fn dequeue(&self, mut frame: Frame, queued: Queued) -> io::Result<Frame> {
        frame.refill_zeroed(queued.len);
        let (mut header, mut beyond) = ([0; virtio::LEN], [0; 1]);
        let parts = &mut [
            IoSliceMut::new(&mut header),
            IoSliceMut::new(frame.octets_mut()),
            IoSliceMut::new(&mut beyond),
        ];
        let mut control = RecvAncillaryBuffer::default();
        let got = recvmsg(self.outlet.socket(), parts, &mut control, RecvFlags::DONTWAIT)?.bytes;
        if got != virtio::LEN + queued.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Some(tag) = queued.tag {
            let octets = std::mem::take(&mut frame).into_octets();
            let (addresses, rest) =
                octets.split_at_checked(12).ok_or(io::ErrorKind::UnexpectedEof)?;
            frame.refill(&[addresses, &tag, rest]);
        }
        VirtioHeader::parse(header).describe(&mut frame).ok_or(io::ErrorKind::Unsupported)?;
        Ok(frame)
    }

    /// Sends a frame with the next batch.
    pub(super) fn send(&mut self, frame: Frame, pool: &mut Pool) {
        self.outlet.send(frame, pool);
    }

    /// Sends what waits to be sent.
    pub(super) fn flush(&mut self, pool: &mut Pool) {
        self.outlet.flush(pool);
    }

    /// What it has counted.
    pub(super) fn counters(&self) -> PortCounters {
        PortCounters { sent: self.outlet.sent, unsent: self.outlet.unsent, ..self.counters }
    }

    /// Asks for the socket's error, which clears it: the interface went down.
    pub(super) fn clear_error(&self) {
        let error = sockopt::socket_error(self.outlet.socket());
        tracing::info!(port = %self.link.name, ?error, "the port has a problem");
    }

    /// Takes over what the kernel has counted.
    pub(super) fn count_overruns(&mut self) {
        self.counters.overrun += sys::lost(self.outlet.as_fd()).map_or(0, u64::from);
    }
}

impl AsFd for Port {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.outlet.as_fd()
    }
}

/// Trains of segments are up to 64 KiB long. Slots for them would make a ring
/// of few and far apart slots; so they wait in the socket's queue instead,
/// where that may be made long enough. An unprivileged process may not.
const fn layout(mtu: u32, queues: bool) -> RingLayout {
    let needed = mtu + OVERHEAD;
    if !queues || needed > LARGE_SLOT / 2 {
        return RingLayout { slot_len: LARGE_SLOT, block_len: 1 << 20, blocks: LARGE_RING >> 20 };
    }
    let slot_len = if needed < 2048 { 2048 } else { needed.next_power_of_two() };
    RingLayout { slot_len, block_len: 1 << 18, blocks: SMALL_RING >> 18 }
}

/// Reads a slot. `None`: its fields contradict each other.
fn take(slot: &[u8], pool: &mut Pool) -> Option<Taken> {
    let half = |at: usize| Some(u16::from_ne_bytes(*slot.get(at..)?.first_chunk()?));
    let word = |at: usize| Some(u32::from_ne_bytes(*slot.get(at..)?.first_chunk()?));
    let status = word(0)?;
    let (len, held) = (word(4)? as usize, word(8)? as usize);
    let mac = usize::from(half(12)?);
    let packet_type = *slot.get(PACKET_TYPE)?;
    let copied = status & libc::TP_STATUS_COPY != 0;
    let ignored =
        !matches!(packet_type, libc::PACKET_HOST | libc::PACKET_BROADCAST | libc::PACKET_MULTICAST);
    if ignored && !copied {
        return Some(Taken::Ignored);
    }
    let tag = (status & libc::TP_STATUS_VLAN_VALID != 0).then(|| {
        let tpid = if status & libc::TP_STATUS_VLAN_TPID_VALID != 0 {
            half(26).unwrap_or_default()
        } else {
            ipvs_wire::ethernet::VLAN
        };
        let ([a, b], [c, d]) = (tpid.to_be_bytes(), half(24).unwrap_or_default().to_be_bytes());
        [a, b, c, d]
    });
    let mut frame = pool.take();
    if copied {
        return Some(Taken::Queued(frame, Queued { tag, len, ignored }));
    }
    if held != len {
        pool.give(frame);
        return Some(Taken::Lost);
    }
    let octets = slot.get(mac..mac.checked_add(held)?)?;
    match &tag {
        None => frame.refill(&[octets]),
        Some(tag) => {
            let (addresses, rest) = octets.split_at_checked(12)?;
            frame.refill(&[addresses, tag, rest]);
        }
    }
    let header = slot.get(mac.checked_sub(virtio::LEN)?..)?.first_chunk()?;
    VirtioHeader::parse(*header).describe(&mut frame)?;
    Some(Taken::Frame(frame))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::testing::{Kind, packet};

    /// A slot as the kernel fills it.
    fn slot(status: u32, kind: u8, octets: &[u8], len: usize) -> Vec<u8> {
        let mut slot = vec![0; 2048];
        slot[0..4].copy_from_slice(&(status | 1).to_ne_bytes());
        slot[4..8].copy_from_slice(&u32::try_from(len).unwrap().to_ne_bytes());
        slot[8..12].copy_from_slice(&u32::try_from(octets.len()).unwrap().to_ne_bytes());
        slot[12..14].copy_from_slice(&82_u16.to_ne_bytes());
        slot[24..26].copy_from_slice(&0x2007_u16.to_ne_bytes());
        slot[26..28].copy_from_slice(&0x8100_u16.to_ne_bytes());
        slot[PACKET_TYPE] = kind;
        slot[82..82 + octets.len()].copy_from_slice(octets);
        slot
    }

    fn taken(slot: &[u8]) -> Taken {
        take(slot, &mut Pool::default()).unwrap()
    }

    #[test]
    fn a_frame_comes_out_of_its_slot() {
        let octets = packet(Kind::TcpV4, &[7; 100]);
        for kind in [libc::PACKET_HOST, libc::PACKET_BROADCAST, libc::PACKET_MULTICAST] {
            let Taken::Frame(frame) = taken(&slot(0, kind, &octets, octets.len())) else {
                panic!("no frame")
            };
            assert_eq!(frame.octets(), octets);
        }
    }

    #[test]
    fn a_tag_that_the_kernel_took_off_is_put_back() {
        let octets = packet(Kind::TcpV4, &[7; 100]);
        let status = libc::TP_STATUS_VLAN_VALID | libc::TP_STATUS_VLAN_TPID_VALID;
        let Taken::Frame(frame) = taken(&slot(status, 0, &octets, octets.len())) else {
            panic!("no frame")
        };
        let expected = [&octets[..12], &[0x81, 0, 0x20, 7], &octets[12..]].concat();
        assert_eq!(frame.octets(), expected);
    }

    #[test]
    fn a_frame_to_another_host_is_ignored() {
        let octets = packet(Kind::TcpV4, &[7; 100]);
        let other = slot(0, libc::PACKET_OTHERHOST, &octets, octets.len());
        assert!(matches!(taken(&other), Taken::Ignored));
    }

    #[test]
    fn a_frame_in_pieces_is_lost_unless_it_waits_in_the_queue() {
        let octets = packet(Kind::TcpV4, &[7; 100]);
        assert!(matches!(taken(&slot(0, 0, &octets, 9000)), Taken::Lost));
        let queued = slot(libc::TP_STATUS_COPY, 0, &octets, 9000);
        let expected = Queued { tag: None, len: 9000, ignored: false };
        assert!(matches!(taken(&queued), Taken::Queued(_, queued) if queued == expected));
    }

    #[test]
    fn a_slot_holds_a_frame_of_the_links_mtu() {
        for (mtu, queues) in [(1500, true), (9000, true), (1500, false), (65_535, true)] {
            let layout = layout(mtu, queues);
            assert!(layout.slot_len >= mtu + OVERHEAD, "{mtu}");
            assert!(layout.slot_len.is_multiple_of(16) && layout.slot_len <= layout.block_len);
        }
    }
}
