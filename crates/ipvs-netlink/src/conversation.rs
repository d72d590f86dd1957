//! What is remembered between the datagrams of one client.

use ipvs_core::snapshot::Control;
use rustix::io::Errno;

use crate::message::{Message, Messages, flags};
use crate::server::{Access, Answered, answer_one};
use crate::together::{Additions, Reply};
use crate::transaction::{self, Terms, Transaction};

/// One client: what it may do, and the edits of its transaction. They are forgotten with it.
#[derive(Debug)]
pub struct Conversation {
    access: Access,
    may_begin: bool,
    transaction: Option<Transaction>,
}

impl Conversation {
    /// A conversation that has not begun.
    pub const fn new(access: Access) -> Self {
        Self { access, may_begin: true, transaction: None }
    }

    /// Whether a transaction is open.
    pub const fn is_in_transaction(&self) -> bool {
        self.transaction.is_some()
    }

    /// Has a transaction that is begun be refused with `EBUSY`, or not.
    pub const fn let_begin(&mut self, may: bool) {
        self.may_begin = may;
    }

    /// Answers the messages of one datagram; `reply` gets each datagram of the
    /// answer. Whatever the bytes are, this does not panic.
    pub fn serve(
        &mut self,
        request: &[u8],
        control: &mut dyn Control,
        reply: &mut dyn FnMut(&[u8]),
    ) {
        let mut reply = Reply::new(reply);
        let mut additions = Additions::default();
        for message in Messages(request) {
            if self.keep(&message, &mut reply) {
                continue;
            }
            if additions.take(self.access, &message, control) {
                continue;
            }
            additions.make(control, &mut reply);
            if let Some(number) = transaction::command_of(&message) {
                let outcome = self.transact(number, &message, control, &mut reply);
                reply.end(&message, outcome);
                continue;
            }
            let answered =
                answer_one(self.access, &message, control, &mut |bytes| reply.data(bytes));
            match answered {
                Ok(Answered::Dump) => {}
                Ok(Answered::Plain) => reply.end(&message, Ok(())),
                Err(errno) => reply.end(&message, Err(errno)),
            }
        }
        additions.make(control, &mut reply);
        reply.flush();
    }

    /// Keeps an edit that is part of a transaction.
    fn keep(&mut self, message: &Message<'_>, reply: &mut Reply<'_>) -> bool {
        let Some(transaction) = self.transaction.as_mut().filter(|_| transaction::is_edit(message))
        else {
            return false;
        };
        match transaction.keep(message) {
            // Whoever sends very many without waiting need not read as many refusals.
            Err(Errno::CANCELED) if !message.header.has(flags::ACK) => {}
            outcome => reply.end(message, outcome),
        }
        true
    }

    /// Begins or ends a transaction.
    fn transact(
        &mut self,
        number: u8,
        message: &Message<'_>,
        control: &mut dyn Control,
        reply: &mut Reply<'_>,
    ) -> Result<(), Errno> {
        if self.access != Access::Admin {
            return Err(Errno::PERM);
        }
        if message.header.has(flags::DUMP) {
            return Err(Errno::OPNOTSUPP);
        }
        if number == transaction::BEGIN {
            return match &self.transaction {
                Some(_) => Err(Errno::ALREADY),
                None if !self.may_begin => Err(Errno::BUSY),
                None => {
                    self.transaction = Some(Transaction::begin(control));
                    Ok(())
                }
            };
        }
        let waiting = self.transaction.take().ok_or(Errno::INVAL)?;
        if number == transaction::DISCARD {
            return Ok(());
        }
        let attrs = message.generic().map_or(&[][..], |(_, attrs)| attrs);
        waiting.commit(Terms::read(attrs)?, control).map_err(|refusal| {
            if let Some(which) = refusal.message(&message.header) {
                reply.data(which.bytes());
            }
            refusal.errno
        })
    }
}
