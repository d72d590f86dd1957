//! The client's part of the mark rules.

use ipvs_core::command::Command;
use ipvs_core::mark::MarkRule;

use super::{Client, ClientError, Transport};
use crate::attr::Writer;
use crate::message::flags;
use crate::{conn, marks};

impl<T: Transport> Client<T> {
    /// The mark rules, in the order in which packets meet them.
    pub fn mark_rules(&mut self) -> Result<Vec<MarkRule>, ClientError> {
        let family = self.resolve(conn::FAMILY_NAME)?;
        let mut rules = Vec::new();
        self.dump(
            family,
            marks::GET_MARK,
            |_| {},
            |attrs| {
                rules.push(marks::read(attrs)?);
                Some(())
            },
        )?;
        Ok(rules)
    }

    /// Makes edits of the mark rules, all or none.
    pub fn change_marks(&mut self, edits: &[Command]) -> Result<(), ClientError> {
        let family = self.resolve(conn::FAMILY_NAME)?;
        let write = |writer: &mut Writer| marks::write_edits(writer, edits);
        let request = self.request(family, marks::CHANGE_MARKS, flags::ACK, write);
        self.exchange(request.bytes(), |_, _| Some(()))
    }
}
