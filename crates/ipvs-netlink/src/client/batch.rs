//! Many edits, and many questions, in few datagrams.

use ipvs_core::command::Command;
use ipvs_core::service::ServiceKey;
use ipvs_core::snapshot::DestStatus;

use super::{Client, ClientError, Transport, finish, read_dest};
use crate::attr::Writer;
use crate::message::{Messages, flags, kind};
use crate::numbers::command;
use crate::service;

/// Octets of requests in one datagram; every director takes more.
pub(super) const DATAGRAM_LEN: usize = 16 * 1024;
/// Services whose destinations are asked for at once.
const SERVICES: usize = 32;

impl<T: Transport> Client<T> {
    /// Makes edits one after the other, each whatever became of those before it, and
    /// returns what became of each, in their order. As [`apply`](Self::apply) for each,
    /// without waiting for the answer to one before the next is sent.
    pub fn apply_each(
        &mut self,
        edits: &[Command],
    ) -> Result<Vec<Result<(), ClientError>>, ClientError> {
        let mut outcomes = Vec::with_capacity(edits.len());
        let mut datagram = Vec::new();
        let mut count = 0;
        for edit in edits {
            let request = self.edit(edit, flags::ACK);
            if let Some(request) = &request {
                datagram.extend_from_slice(request.bytes());
                count += 1;
            }
            if request.is_none() || datagram.len() >= DATAGRAM_LEN {
                self.exchange_all(&datagram, count, &mut outcomes)?;
                datagram.clear();
                count = 0;
            }
            if request.is_none() {
                outcomes.push(self.apply_own(edit));
            }
        }
        self.exchange_all(&datagram, count, &mut outcomes)?;
        Ok(outcomes)
    }

    /// The destinations of many services, as [`dests`](Self::dests) returns those of each.
    pub fn dests_of(&mut self, keys: &[ServiceKey]) -> Result<Vec<Vec<DestStatus>>, ClientError> {
        // A kernel answers one such question after the other.
        if self.transport.is_kernel() {
            return keys.iter().map(|key| self.dests(key)).collect();
        }
        let mut all = Vec::with_capacity(keys.len());
        for keys in keys.chunks(SERVICES) {
            let mut datagram = Vec::new();
            let first = self.sequence.wrapping_add(1);
            for key in keys {
                let write = |writer: &mut Writer| service::write_key(writer, key);
                let request = self.request(self.family, command::GET_DEST, flags::DUMP, write);
                datagram.extend_from_slice(request.bytes());
            }
            self.transport.send(&datagram)?;
            all.extend(self.read_dests(keys, first)?);
        }
        Ok(all)
    }

    /// Reads the answers to questions for destinations that begin with number `first`.
    fn read_dests(
        &mut self,
        keys: &[ServiceKey],
        first: u32,
    ) -> Result<Vec<Vec<DestStatus>>, ClientError> {
        let mut all = vec![Vec::new(); keys.len()];
        let (mut ended, mut unreadable) = (0, false);
        while ended < keys.len() {
            self.transport.receive(&mut self.buffer)?;
            for message in Messages(&self.buffer) {
                let place = message.header.sequence.wrapping_sub(first) as usize;
                let Some((key, dests)) = keys.get(place).zip(all.get_mut(place)) else { continue };
                match message.error() {
                    Some(Some(errno)) => return Err(ClientError::Refused(errno)),
                    None if message.header.kind != kind::DONE => {
                        let read = message.generic().and_then(|(_, attrs)| read_dest(attrs, key));
                        unreadable |= read.is_none();
                        dests.extend(read);
                    }
                    _ => ended += 1,
                }
            }
        }
        finish(unreadable).map(|()| all)
    }

    /// Sends the last `count` requests, which are in `datagram`, and reads the
    /// acknowledgement or error of each.
    fn exchange_all(
        &mut self,
        datagram: &[u8],
        count: u32,
        outcomes: &mut Vec<Result<(), ClientError>>,
    ) -> Result<(), ClientError> {
        if count == 0 {
            return Ok(());
        }
        self.transport.send(datagram)?;
        let mut next = self.sequence.wrapping_sub(count - 1);
        let end = self.sequence.wrapping_add(1);
        while next != end {
            self.transport.receive(&mut self.buffer)?;
            for message in Messages(&self.buffer) {
                if message.header.sequence != next {
                    continue;
                }
                if let Some(error) = message.error() {
                    outcomes.push(error.map_or(Ok(()), |errno| Err(ClientError::Refused(errno))));
                    next = next.wrapping_add(1);
                }
            }
        }
        Ok(())
    }
}
