//! Additions that follow one another in a datagram, as in a restore: they are made
//! together, and each is answered as if it had come alone.

use std::collections::HashSet;

use ipvs_core::command::Command;
use ipvs_core::service::ServiceKey;
use ipvs_core::snapshot::Control;
use rustix::io::Errno;

use crate::errno_of;
use crate::message::{Message, acknowledgement, flags, refusal};
use crate::numbers::{self, command};
use crate::server::{Access, Top, decode, read_top};

/// Length at which acknowledgements begin a new datagram, in octets.
const ACKS_LEN: usize = 3776;

/// What answers a datagram: data at once, and what ends each request gathered.
pub(crate) struct Reply<'r> {
    send: &'r mut dyn FnMut(&[u8]),
    /// Acknowledgements and errors, in front of whatever comes next.
    waiting: Vec<u8>,
}

impl<'r> Reply<'r> {
    pub(crate) const fn new(send: &'r mut dyn FnMut(&[u8])) -> Self {
        Self { send, waiting: Vec::new() }
    }

    /// Sends a datagram of data, behind what waits.
    pub(crate) fn data(&mut self, datagram: &[u8]) {
        self.flush();
        (self.send)(datagram);
    }

    /// Ends a request that is not its own acknowledgement.
    pub(crate) fn end(&mut self, message: &Message<'_>, outcome: Result<(), Errno>) {
        let last = match outcome {
            Ok(()) if message.header.has(flags::ACK) => acknowledgement(message),
            Ok(()) => return,
            Err(errno) => refusal(message, errno),
        };
        if self.waiting.len() + last.bytes().len() > ACKS_LEN {
            self.flush();
        }
        self.waiting.extend_from_slice(last.bytes());
    }

    /// Sends what waits.
    pub(crate) fn flush(&mut self) {
        if !self.waiting.is_empty() {
            (self.send)(&self.waiting);
            self.waiting.clear();
        }
    }
}

/// Additions that are still to be made.
#[derive(Default)]
pub(crate) struct Additions<'m> {
    messages: Vec<Message<'m>>,
    commands: Vec<Command>,
    /// Services that are there, or will be.
    known: HashSet<ServiceKey>,
}

impl<'m> Additions<'m> {
    /// Takes the message, if it is an addition that can wait for those behind it.
    pub(crate) fn take(
        &mut self,
        access: Access,
        message: &Message<'m>,
        control: &mut dyn Control,
    ) -> bool {
        let Some(command) = self.read(access, message, control) else { return false };
        if let Command::AddService(key, _) | Command::AddDest(key, ..) = &command {
            self.known.insert(*key);
        }
        self.messages.push(*message);
        self.commands.push(command);
        true
    }

    fn read(
        &self,
        access: Access,
        message: &Message<'_>,
        control: &mut dyn Control,
    ) -> Option<Command> {
        let header = &message.header;
        let (number, attrs) = message.generic()?;
        let adds = header.kind == numbers::FAMILY_ID
            && header.has(flags::REQUEST)
            && !header.has(flags::DUMP)
            && matches!(number, command::NEW_SERVICE | command::NEW_DEST);
        if !adds || access != Access::Admin {
            return None;
        }
        let top: Top<'_> = read_top(attrs).ok()?;
        // One that is malformed is refused alone, behind those before it: by which of its
        // faults depends on what they have done.
        decode(number, &top, &mut |key| {
            if self.known.contains(key) {
                return Some(0);
            }
            control.service(key).map(|service| service.spec.flags)
        })
        .ok()
    }

    /// Makes them, and ends their requests.
    pub(crate) fn make(&mut self, control: &mut dyn Control, reply: &mut Reply<'_>) {
        if self.commands.is_empty() {
            return;
        }
        let mut messages = self.messages.drain(..);
        control.apply_each(&self.commands, &mut |outcome| {
            if let Some(message) = messages.next() {
                reply.end(&message, outcome.map_err(errno_of));
            }
        });
        drop(messages);
        self.commands.clear();
        self.known.clear();
    }
}
