//! What both planes ask of the host's network: interfaces, addresses, routes
//! and neighbours, by rtnetlink, one question and its answer at a time; and what
//! they make there: a pair of interfaces, rules and routes that lead to it.
//!
//! A socket belongs to the network namespace of the thread that opened it, and
//! stays in it whichever thread uses it.

mod link;
mod monitor;
mod neighbour;
mod pair;
mod route;
mod rule;

use std::io;

use ipvs_core::addr::Family;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

pub(crate) use link::DOOR_ALIAS;
pub use link::{Address, Link};
pub use monitor::{Changes, Monitor};
pub use neighbour::{Neighbour, NeighbourState};
pub(crate) use pair::{End, Inet};
pub use route::FoundRoute;
pub(crate) use route::RouteMtu;
pub(crate) use rule::{LOCAL_TABLE, OwnRoute, Rule};

/// More than the kernel puts into one datagram.
const DATAGRAM_LEN: usize = 1 << 16;
/// Octets of a message's header.
const HEADER_LEN: usize = 16;

/// A socket for questions.
#[derive(Debug)]
pub struct Rtnetlink {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Rtnetlink {
    /// Opens a socket in the calling thread's network namespace.
    pub fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self { socket, sequence: 0, buffer: Vec::with_capacity(DATAGRAM_LEN) })
    }

    /// Asks for one object; `None` if the kernel sends nothing of the kind.
    fn ask(&mut self, message: RouteNetlinkMessage) -> io::Result<Option<RouteNetlinkMessage>> {
        self.send(message, 0)?;
        loop {
            for answer in self.receive()? {
                match answer {
                    NetlinkPayload::InnerMessage(inner) => return Ok(Some(inner)),
                    NetlinkPayload::Error(error) if error.code.is_some() => {
                        return Err(error.to_io());
                    }
                    NetlinkPayload::Error(_) | NetlinkPayload::Done(_) => return Ok(None),
                    _ => {}
                }
            }
        }
    }

    /// Asks for all objects of a kind.
    fn dump(&mut self, message: RouteNetlinkMessage) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.send(message, NLM_F_DUMP)?;
        let mut found = Vec::new();
        loop {
            for answer in self.receive()? {
                match answer {
                    NetlinkPayload::InnerMessage(inner) => found.push(inner),
                    NetlinkPayload::Error(error) if error.code.is_some() => {
                        return Err(error.to_io());
                    }
                    NetlinkPayload::Error(_) | NetlinkPayload::Done(_) => return Ok(found),
                    _ => {}
                }
            }
        }
    }

    /// Has the kernel change something.
    fn change(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.send(message, NLM_F_ACK | flags)?;
        loop {
            for answer in self.receive()? {
                if let NetlinkPayload::Error(error) = answer {
                    return if error.code.is_some() { Err(error.to_io()) } else { Ok(()) };
                }
            }
        }
    }

    /// Asks many questions at once, each for one object, and returns the answers in their
    /// order: so one system call carries all questions.
    fn ask_all(
        &mut self,
        questions: impl ExactSizeIterator<Item = RouteNetlinkMessage>,
    ) -> io::Result<Vec<io::Result<Option<RouteNetlinkMessage>>>> {
        let first = self.sequence.wrapping_add(1);
        let mut answers: Vec<Option<io::Result<Option<RouteNetlinkMessage>>>> = Vec::new();
        answers.resize_with(questions.len(), || None);
        self.buffer.clear();
        for question in questions {
            self.write(question, 0);
        }
        self.socket.send(&self.buffer, 0)?;
        let mut open = answers.len();
        while open > 0 {
            for message in receive(&self.socket, &mut self.buffer, 0)? {
                let place = message.header.sequence_number.wrapping_sub(first) as usize;
                let answer = match message.payload {
                    NetlinkPayload::InnerMessage(inner) => Ok(Some(inner)),
                    NetlinkPayload::Error(error) if error.code.is_some() => Err(error.to_io()),
                    NetlinkPayload::Error(_) | NetlinkPayload::Done(_) => Ok(None),
                    _ => continue,
                };
                if let Some(waiting @ None) = answers.get_mut(place) {
                    *waiting = Some(answer);
                    open -= 1;
                }
            }
        }
        Ok(answers.into_iter().flatten().collect())
    }

    fn send(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.buffer.clear();
        self.write(message, flags);
        self.socket.send(&self.buffer, 0)?;
        Ok(())
    }

    /// Writes a question behind what is in the buffer.
    fn write(&mut self, message: RouteNetlinkMessage, flags: u16) {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(message));
        message.finalize();
        let start = self.buffer.len();
        self.buffer.resize(start + message.buffer_len().next_multiple_of(4), 0);
        if let Some(place) = self.buffer.get_mut(start..) {
            message.serialize(place);
        }
    }

    /// The next datagram's messages that answer the present question.
    fn receive(&mut self) -> io::Result<Vec<NetlinkPayload<RouteNetlinkMessage>>> {
        let messages = receive(&self.socket, &mut self.buffer, 0)?;
        // An answer to an earlier question can be left over from a failure.
        let sequence = self.sequence;
        Ok(messages
            .into_iter()
            .filter(|message| message.header.sequence_number == sequence)
            .map(|message| message.payload)
            .collect())
    }
}

/// Takes one datagram from the socket and splits it into messages.
fn receive(
    socket: &Socket,
    buffer: &mut Vec<u8>,
    flags: libc::c_int,
) -> io::Result<Vec<NetlinkMessage<RouteNetlinkMessage>>> {
    buffer.clear();
    buffer.reserve(DATAGRAM_LEN);
    socket.recv(buffer, flags)?;
    let mut rest = buffer.as_slice();
    let mut messages = Vec::new();
    while !rest.is_empty() {
        let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
        // Each message is padded to four octets; a length of zero would never end.
        let len = (message.header.length as usize).next_multiple_of(4).max(HEADER_LEN);
        messages.push(message);
        rest = rest.get(len..).unwrap_or_default();
    }
    Ok(messages)
}

const fn address_family(family: Family) -> AddressFamily {
    match family {
        Family::V4 => AddressFamily::Inet,
        Family::V6 => AddressFamily::Inet6,
    }
}

/// Whether the host knows nothing of the family that was asked for.
fn is_no_family(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EOPNOTSUPP))
}

#[cfg(test)]
mod tests;
