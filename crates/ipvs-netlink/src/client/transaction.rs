//! The client's part of transactions.

use ipvs_core::command::Command;
use rustix::io::Errno;

use super::batch::DATAGRAM_LEN;
use super::{Client, ClientError, Transport};
use crate::attr::Writer;
use crate::message::flags;
use crate::transaction::Terms;
use crate::{conn, health, marks, setting, transaction};

/// Why a list of edits was not made. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NotMade {
    /// One of them was refused.
    #[error("edit {position}: {}", reason.as_deref().unwrap_or("refused"))]
    Edit {
        /// Its position in the list, from 0.
        position: usize,
        /// What it would have been refused with, alone.
        errno: Errno,
        /// Why, in the director's words, if it has some.
        reason: Option<String>,
    },
    /// The director makes one edit at a time only, as a kernel does.
    #[error("the director makes one edit at a time only")]
    Unsupported,
    /// Something was changed since the transaction was begun.
    #[error("what runs was changed meanwhile")]
    Changed,
    /// What was applied before is still on trial.
    #[error(
        "what was applied before is on trial: `ipvs confirm` keeps it, `ipvs rollback` undoes it"
    )]
    OnTrial,
    /// Something else.
    #[error(transparent)]
    Failed(#[from] ClientError),
}

impl<T: Transport> Client<T> {
    /// Makes edits in order, all at once or none.
    pub fn apply_all(&mut self, edits: &[Command]) -> Result<(), NotMade> {
        self.begin_all()?;
        self.commit_all(edits, Terms::default())
    }

    /// Begins a transaction: what is asked from here on can be part of its
    /// [terms](Terms::unchanged). It ends with [`commit_all`](Self::commit_all), or with this
    /// client.
    pub fn begin_all(&mut self) -> Result<(), NotMade> {
        if self.transport.is_kernel() {
            return Err(NotMade::Unsupported);
        }
        let family = self.resolve(conn::FAMILY_NAME)?;
        self.command(family, transaction::BEGIN).map_err(|error| match error {
            ClientError::Refused(Errno::OPNOTSUPP) => NotMade::Unsupported,
            error => error.into(),
        })
    }

    /// Has checked from the end of the transaction on, if it is committed, what a configuration
    /// file says.
    pub fn check_all(&mut self, file: &str) -> Result<(), NotMade> {
        let family = self.resolve(conn::FAMILY_NAME)?;
        // An empty one says something, too.
        let first = file.as_bytes().get(..0).filter(|_| file.is_empty());
        for part in file.as_bytes().chunks(health::PART).chain(first) {
            let write = |writer: &mut Writer| health::write_part(writer, part);
            let request = self.request(family, health::SET_HEALTH, 0, write);
            self.transport.send(request.bytes()).map_err(ClientError::from)?;
        }
        Ok(())
    }

    /// Makes edits in order, all at once or none, and ends the transaction that was begun.
    pub fn commit_all(&mut self, edits: &[Command], terms: Terms) -> Result<(), NotMade> {
        let family = self.resolve(conn::FAMILY_NAME)?;
        // None asks for an acknowledgement: what is wrong is said of all of them in the end.
        let mut datagram = Vec::new();
        for edit in edits {
            let request = match self.edit(edit, 0) {
                Some(request) => request,
                None => self.own_edit(family, edit),
            };
            datagram.extend_from_slice(request.bytes());
            if datagram.len() >= DATAGRAM_LEN {
                self.transport.send(&datagram).map_err(ClientError::from)?;
                datagram.clear();
            }
        }
        if !datagram.is_empty() {
            self.transport.send(&datagram).map_err(ClientError::from)?;
        }
        let mut at_fault = None;
        let request = self.request(family, transaction::COMMIT, flags::ACK, |writer| {
            terms.write(writer);
        });
        let outcome = self.exchange(request.bytes(), |_, attrs| {
            at_fault = Some(transaction::read_refused(attrs)?);
            Some(())
        });
        match (outcome, at_fault) {
            (Err(ClientError::Refused(errno)), Some((position, reason))) => {
                let position = usize::try_from(position).unwrap_or(usize::MAX);
                Err(NotMade::Edit { position, errno, reason })
            }
            (Err(ClientError::Refused(Errno::STALE)), None) if terms.unchanged => {
                Err(NotMade::Changed)
            }
            (Err(ClientError::Refused(Errno::INPROGRESS)), None) => Err(NotMade::OnTrial),
            (outcome, _) => Ok(outcome?),
        }
    }

    /// Keeps what is on trial, or restores what there was before; refused with `ENOENT` if
    /// nothing is on trial.
    pub fn end_trial(&mut self, keep: bool) -> Result<(), ClientError> {
        let family = self.resolve(conn::FAMILY_NAME)?;
        self.command(family, if keep { transaction::CONFIRM } else { transaction::ROLL_BACK })
    }

    /// Sends a command without attributes and awaits its acknowledgement.
    fn command(&mut self, family: u16, command: u8) -> Result<(), ClientError> {
        let request = self.request(family, command, flags::ACK, |_| {});
        self.exchange(request.bytes(), |_, _| Some(()))
    }

    /// The request that makes an edit of what only our own family has.
    fn own_edit(&mut self, family: u16, edit: &Command) -> Writer {
        if let Command::SetSysctl(sysctl, value) = edit {
            return self.request(family, conn::SET_SETTING, 0, |writer| {
                setting::write_change(writer, sysctl.name, &value.to_string());
            });
        }
        if let Command::DrainDest(..) | Command::UndrainDest(..) = edit {
            return self.drain_request(family, edit, 0);
        }
        let edits = core::slice::from_ref(edit);
        self.request(family, marks::CHANGE_MARKS, 0, |writer| marks::write_edits(writer, edits))
    }
}
