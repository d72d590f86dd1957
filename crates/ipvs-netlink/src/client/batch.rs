//! Many edits in few datagrams.

use ipvs_core::command::Command;

use super::{Client, ClientError, Transport};
use crate::message::Messages;

/// Octets of requests in one datagram; every director takes more.
const DATAGRAM_LEN: usize = 16 * 1024;

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
            let request = self.edit(edit);
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
                outcomes.push(self.change_marks(core::slice::from_ref(edit)));
            }
        }
        self.exchange_all(&datagram, count, &mut outcomes)?;
        Ok(outcomes)
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
