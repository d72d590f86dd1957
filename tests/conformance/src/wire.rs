//! The other ends of the director's interfaces: frames are put in and taken
//! out as they are.

use std::collections::VecDeque;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, bind, recv, send, setsockopt,
    socket, sockopt,
};
use nix::unistd::Pid;

use crate::case::Frame;
use crate::host::{Host, Mac};
use crate::layout::Layout;

/// How long the director may take to answer an ARP request.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest frame that is taken.
const LONGEST: usize = 65_600;
/// Room for what one step makes, in octets.
const BUFFER: usize = 4 << 20;

/// The other ends.
#[derive(Debug)]
pub struct Wire {
    ends: Vec<End>,
    probes: u16,
}

#[derive(Debug)]
struct End {
    /// The director's interface.
    dev: &'static str,
    socket: OwnedFd,
    /// Its MAC address and one of its IPv4 addresses.
    director: (Mac, [u8; 4]),
    taken: VecDeque<Vec<u8>>,
}

impl Wire {
    /// Opens the other ends of `layout`.
    ///
    /// From now on the calling thread stays on one CPU: the kernel keeps
    /// frames in order that were sent on the same one.
    pub fn open(layout: &Layout, host: &Host) -> Result<Self> {
        stay_on_this_cpu()?;
        let mut ends = Vec::new();
        for (dev, other) in &layout.pairs {
            let interface = host.interface(dev).context("no such interface")?;
            let address = interface.addresses.iter().find_map(|it| match it.addr() {
                std::net::IpAddr::V4(v4) => Some(v4.octets()),
                std::net::IpAddr::V6(_) => None,
            });
            ends.push(End {
                dev,
                socket: layout.outside.run(|| packet_socket(other))??,
                director: (interface.mac, address.context("no IPv4 address")?),
                taken: VecDeque::new(),
            });
        }
        Ok(Self { ends, probes: 0 })
    }

    /// Sends `frame` into the director.
    pub fn send(&self, frame: &Frame) -> Result<()> {
        let end = self.ends.iter().find(|end| end.dev == frame.dev).context("no such interface")?;
        end.send(&frame.octets)
    }

    /// Waits until the director's kernel is done with everything sent so far,
    /// and returns what came out, interface by interface.
    ///
    /// It is done when it has answered an ARP request sent after it, on each
    /// interface, twice: what the first of them waits for may cause a frame on
    /// another interface.
    pub fn settle(&mut self) -> Result<Vec<Frame>> {
        for _ in 0..2 {
            for end in &mut self.ends {
                self.probes = self.probes.wrapping_add(1);
                end.ask(self.probes)?;
            }
        }
        let mut frames = Vec::new();
        for end in &mut self.ends {
            let taken = end.taken.drain(..).filter(|octets| !is_noise(octets));
            frames.extend(taken.map(|octets| Frame { dev: end.dev.to_owned(), octets }));
        }
        Ok(frames)
    }
}

impl End {
    fn send(&self, octets: &[u8]) -> Result<()> {
        let sent = send(self.socket.as_raw_fd(), octets, MsgFlags::empty())
            .with_context(|| format!("cannot send {} octets into {}", octets.len(), self.dev))?;
        if sent != octets.len() {
            bail!("only {sent} of {} octets went into {}", octets.len(), self.dev);
        }
        Ok(())
    }

    /// Sends an ARP probe (RFC 5227: without a sender address, so that nobody
    /// learns from it) and takes frames until its answer comes.
    fn ask(&mut self, number: u16) -> Result<()> {
        let [high, low] = number.to_be_bytes();
        let asker: Mac = [2, 0, 0xba, 0xba, high, low];
        let (director, address) = self.director;
        let mut probe = Vec::with_capacity(42);
        probe.extend([director, asker].concat());
        probe.extend([0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1]);
        probe.extend(asker);
        probe.extend([0; 4 + 6]);
        probe.extend(address);
        self.send(&probe)?;
        let deadline = Instant::now() + PATIENCE;
        let mut buffer = vec![0; LONGEST];
        loop {
            let len = match recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
                Ok(len) => len,
                Err(Errno::EAGAIN) => {
                    self.wait(deadline)?;
                    continue;
                }
                Err(errno) => return Err(errno).context("cannot receive"),
            };
            let frame = buffer.get(..len).unwrap_or_default();
            if frame.starts_with(&asker) {
                return Ok(());
            }
            self.taken.push_back(frame.to_vec());
        }
    }

    fn wait(&self, deadline: Instant) -> Result<()> {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        let mut fds = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
        if poll(&mut fds, left)? == 0 {
            bail!("the director's host did not answer ARP on {} within {PATIENCE:?}", self.dev);
        }
        Ok(())
    }
}

/// A socket that gets and sends whole frames on `name`, an interface of the
/// calling thread's namespace.
pub fn packet_socket(name: &str) -> Result<OwnedFd> {
    let mut interfaces = nix::ifaddrs::getifaddrs()?;
    let address = interfaces
        .find_map(|it| (it.interface_name == name).then(|| it.address?.as_link_addr().copied())?)
        .with_context(|| format!("no interface {name}"))?;
    let socket =
        socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::EthAll)
            .context("cannot open a packet socket")?;
    setsockopt(&socket, sockopt::RcvBufForce, &BUFFER)?;
    bind(socket.as_raw_fd(), &address)?;
    Ok(socket)
}

fn stay_on_this_cpu() -> Result<()> {
    let this = Pid::from_raw(0);
    let allowed = sched_getaffinity(this)?;
    let first = (0..CpuSet::count()).find(|cpu| allowed.is_set(*cpu).unwrap_or(false));
    let mut only = CpuSet::new();
    only.set(first.context("no CPU to run on")?)?;
    sched_setaffinity(this, &only).context("cannot stay on one CPU")
}

/// What a host says to its neighbours unasked: group membership and router
/// solicitations. The recordings leave it out, too.
pub fn is_noise(octets: &[u8]) -> bool {
    // Most frames are seen at a glance to be none: TCP, UDP and SCTP.
    let protocol = match octets.get(12..14) {
        Some([0x08, 0x00]) => octets.get(23),
        Some([0x86, 0xdd]) => octets.get(20),
        _ => None,
    };
    if let Some(6 | 17 | 132) = protocol {
        return false;
    }
    let decoded = crate::decode::decode(octets);
    let value = |name: &str| decoded.field(name).map(|field| field.value.as_str());
    value("ipv4.protocol") == Some("2")
        || matches!(value("icmpv6.type"), Some("130" | "131" | "132" | "133" | "134" | "143"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ipvs_lab::testing::isolated;

    /// What a host without a director does with `frame`.
    fn answer(frame: &str) -> Vec<Frame> {
        let host = Host::std_1();
        let layout = Layout::build(&host).unwrap();
        let mut wire = Wire::open(&layout, &host).unwrap();
        assert_eq!(wire.settle().unwrap(), [], "the host speaks unasked");
        wire.send(&Frame { dev: "c0".into(), octets: hex::decode(frame).unwrap() }).unwrap();
        wire.settle().unwrap()
    }

    #[test]
    fn a_host_without_a_director_resets_a_connection() {
        isolated("wire::tests::a_host_without_a_director_resets_a_connection", || {
            let syn = "020000000c01020000000c020800450000281234400040063c5dc6336401c000020a\
                       9c400050000003e8000000005002ffff232b0000";
            let frames = answer(syn);
            assert_eq!(frames.len(), 1, "{frames:?}");
            let reset = crate::decode::decode(&frames[0].octets);
            assert_eq!(reset.field("tcp.flags").unwrap().value, "RST ACK");
            assert_eq!(frames[0].dev, "c0");
        });
    }

    #[test]
    fn a_host_without_a_director_routes_what_is_not_for_itself() {
        isolated("wire::tests::a_host_without_a_director_routes_what_is_not_for_itself", || {
            // The same packet, to 10.1.0.11.
            let syn = "020000000c01020000000c020800450000281234400040 06f45bc63364010a01000b\
                       9c400050000003e8000000005002ffffdb2a0000";
            let frames = answer(&syn.replace(' ', ""));
            assert_eq!(frames.len(), 1, "{frames:?}");
            assert_eq!(frames[0].dev, "s0");
            assert_eq!(frames[0].octets[..6], [2, 0, 0, 0, 0x51, 0x11]);
        });
    }
}
