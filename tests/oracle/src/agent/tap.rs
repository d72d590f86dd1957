//! The other ends of the director's interfaces, for many frames at a time.
//!
//! One socket sees everything on both ends in one order: the frames that were
//! sent into the director, and behind each what came out because of it. So
//! what came out can be told apart afterwards, and a system call, which is
//! slow in a guest, is spent on many frames.

use std::io::IoSliceMut;
use std::os::fd::{AsRawFd as _, OwnedFd};

use anyhow::{Context as _, Result, bail};
use ipvs_conformance::case::Frame;
use ipvs_conformance::wire::is_noise;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, MultiHeaders, SockFlag, SockProtocol, SockType, recvmmsg,
    sendto, setsockopt, socket, sockopt,
};

use super::layout::Layout;

/// Longest frame on these interfaces, with room to spare.
const LONGEST: usize = 2048;
/// Frames that are taken by one system call.
const AT_ONCE: usize = 64;
/// Room for frames that wait to be taken, in octets.
const BUFFER: usize = 8 << 20;
/// `PACKET_OUTGOING` of `linux/if_packet.h`: a frame that this host sent.
const OUTGOING: u8 = 4;

/// Both other ends.
#[derive(Debug)]
pub(crate) struct Tap {
    sender: OwnedFd,
    receiver: OwnedFd,
    ends: Vec<(&'static str, LinkAddr)>,
}

/// What was seen on the other ends.
#[derive(Debug)]
pub(crate) enum Seen {
    /// A frame that was sent into the director.
    In,
    /// A frame that came out.
    Out(Frame),
}

impl Tap {
    /// Opens the sockets, in the namespace of the calling thread, which is that
    /// of the other ends: one that sends, and one that sees everything. A socket
    /// does not see what it sends itself.
    pub(crate) fn open(layout: &Layout) -> Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC;
        let open = |protocol| socket(AddressFamily::Packet, SockType::Raw, flags, protocol);
        let receiver = open(Some(SockProtocol::EthAll))?;
        setsockopt(&receiver, sockopt::RcvBufForce, &BUFFER)?;
        let addresses: Vec<_> = nix::ifaddrs::getifaddrs()?
            .filter_map(|it| Some((it.interface_name, *it.address?.as_link_addr()?)))
            .collect();
        let mut ends = Vec::new();
        for (name, end) in &layout.ends {
            let found = addresses.iter().find(|(it, _)| it == end.name());
            ends.push((*name, found.context("an interface is missing")?.1));
        }
        Ok(Self { sender: open(None)?, receiver, ends })
    }

    /// Sends a frame into the director.
    pub(crate) fn send(&self, frame: &Frame) -> Result<()> {
        let end = self.ends.iter().find(|(name, _)| *name == frame.dev);
        let (_, address) = end.with_context(|| format!("no interface {}", frame.dev))?;
        let sent = sendto(self.sender.as_raw_fd(), &frame.octets, address, MsgFlags::empty())?;
        if sent != frame.octets.len() {
            bail!("only {sent} of {} octets were sent", frame.octets.len());
        }
        Ok(())
    }

    /// Takes what was seen since the last call.
    pub(crate) fn take(&self, seen: &mut Vec<Seen>) -> Result<()> {
        let mut room = vec![[0u8; LONGEST]; AT_ONCE];
        loop {
            let mut headers = MultiHeaders::<LinkAddr>::preallocate(AT_ONCE, None);
            let mut slices: Vec<_> = room.iter_mut().map(|it| [IoSliceMut::new(it)]).collect();
            let flags = MsgFlags::MSG_DONTWAIT;
            let fd = self.receiver.as_raw_fd();
            let got: Vec<(usize, Option<LinkAddr>)> =
                match recvmmsg(fd, &mut headers, slices.iter_mut(), flags, None) {
                    Ok(messages) => messages.map(|it| (it.bytes, it.address)).collect(),
                    Err(Errno::EAGAIN) => return Ok(()),
                    Err(errno) => return Err(errno).context("cannot receive"),
                };
            let count = got.len();
            for ((len, from), octets) in got.into_iter().zip(&room) {
                let from = from.context("a frame from nowhere")?;
                seen.extend(self.told(&from, octets.get(..len).context("a frame too long")?));
            }
            if count < AT_ONCE {
                return Ok(());
            }
        }
    }

    fn told(&self, from: &LinkAddr, octets: &[u8]) -> Option<Seen> {
        let (name, _) = self.ends.iter().find(|(_, end)| end.ifindex() == from.ifindex())?;
        if from.pkttype() == OUTGOING {
            return Some(Seen::In);
        }
        let out = Frame { dev: (*name).to_owned(), octets: octets.to_vec() };
        (!is_noise(&out.octets)).then_some(Seen::Out(out))
    }
}
