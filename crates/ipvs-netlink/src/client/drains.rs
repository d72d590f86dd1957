//! The client's part of drains.

use ipvs_core::command::Command;
use ipvs_core::drain::DrainStatus;

use super::{Client, ClientError, Transport};
use crate::attr::Writer;
use crate::message::flags;
use crate::{conn, drains};

impl<T: Transport> Client<T> {
    /// Every destination that is drained, in no order.
    pub fn drains(&mut self) -> Result<Vec<DrainStatus>, ClientError> {
        let family = self.resolve(conn::FAMILY_NAME)?;
        let mut all = Vec::new();
        let mut take = |attrs: &[u8]| {
            all.push(drains::read(attrs)?);
            Some(())
        };
        self.dump(family, drains::GET_DRAIN, |_| {}, &mut take)?;
        Ok(all)
    }

    /// Makes an edit that begins or ends a drain.
    pub(super) fn change_drain(&mut self, edit: &Command) -> Result<(), ClientError> {
        let family = self.resolve(conn::FAMILY_NAME)?;
        let request = self.drain_request(family, edit, flags::ACK);
        self.exchange(request.bytes(), |_, _| Some(()))
    }

    /// The request that makes such an edit.
    pub(super) fn drain_request(&mut self, family: u16, edit: &Command, flags: u16) -> Writer {
        let command = match edit {
            Command::UndrainDest(..) => drains::UNDRAIN,
            _ => drains::DRAIN,
        };
        self.request(family, command, flags, |writer| drains::write_edit(writer, edit))
    }
}
