//! Transactions, in the family `IPVS_RS` ([`conn`](crate::conn)): edits that come in many
//! datagrams and take effect all at once, or none.
//!
//! | no | command | form | answer |
//! |---|---|---|---|
//! | 10 | `BEGIN` | do | acknowledgement |
//! | 11 | `COMMIT` | do | acknowledgement; or `REFUSED`, if an edit is at fault, and the error |
//! | 12 | `DISCARD` | do | acknowledgement |
//! | 13 | `REFUSED` | | (only as a reply) |
//! | 19 | `CONFIRM` | do | acknowledgement: what is on trial is kept |
//! | 20 | `ROLL_BACK` | do | acknowledgement: what there was before the trial is restored |
//!
//! After `BEGIN`, what changes something is kept as it came, whichever of the two families
//! it is of; its acknowledgement says no more. What only asks is answered as ever, and by
//! what is in force. Attributes of `COMMIT`:
//!
//! | no | attribute | type |
//! |---|---|---|
//! | 1 | UNCHANGED | nothing: only if nothing was changed since `BEGIN`, else `ESTALE` |
//! | 2 | TRIAL | u32, seconds: what there was before is restored then, unless `CONFIRM` comes |
//!
//! With either of them a commit during a trial is refused with `EINPROGRESS`.
//!
//! Attributes of `REFUSED`:
//!
//! | no | attribute | type |
//! |---|---|---|
//! | 1 | POSITION | u32: how many edits came before the one at fault |
//! | 2 | REASON | text, for people; left out where the errno says all |

use std::collections::HashMap;

use ipvs_core::command::{Command, CommandError};
use ipvs_core::service::ServiceKey;
use ipvs_core::snapshot::{Control, TrialError};
use rustix::io::Errno;

use crate::attr::{Policy, Table, Writer, align4};
use crate::message::{Header, Message, Messages, answer, flags};
use crate::server::{decode, read_top};
use crate::{conn, drains, errno_of, health, marks, numbers, setting};

/// Has the edits that follow wait.
pub const BEGIN: u8 = 10;
/// Makes the edits that wait, all or none; they wait no longer.
pub const COMMIT: u8 = 11;
/// Forgets the edits that wait.
pub const DISCARD: u8 = 12;
/// Only as a reply: which edit was at fault.
pub const REFUSED: u8 = 13;
/// Keeps what is on trial.
pub const CONFIRM: u8 = 19;
/// Restores what there was before the trial.
pub const ROLL_BACK: u8 = 20;

/// Of `COMMIT`.
const UNCHANGED: u16 = 1;

const TRIAL: u16 = 2;

const POSITION: u16 = 1;
const REASON: u16 = 2;

/// Octets of requests that wait at most: some 400,000 edits.
pub const LONGEST: usize = 64 << 20;

/// Whether a request changes something, by its family and command.
pub(crate) fn changes(family: u16, number: u8) -> bool {
    use numbers::command as c;
    match family {
        numbers::FAMILY_ID => {
            matches!(number, c::NEW_SERVICE..=c::FLUSH)
                && ![c::GET_SERVICE, c::GET_DEST, c::GET_DAEMON].contains(&number)
                && ![c::GET_CONFIG, c::SET_INFO, c::GET_INFO].contains(&number)
        }
        conn::FAMILY_ID => {
            matches!(
                number,
                conn::SET_SETTING
                    | marks::CHANGE_MARKS
                    | drains::DRAIN
                    | drains::UNDRAIN
                    | BEGIN
                    | COMMIT
                    | DISCARD
                    | CONFIRM
                    | ROLL_BACK
                    | health::SET_HEALTH
            )
        }
        _ => false,
    }
}

/// The commands above, if it is one of them.
pub(crate) fn command_of(message: &Message<'_>) -> Option<u8> {
    let (number, _) = message.generic()?;
    let is_ours = message.header.kind == conn::FAMILY_ID
        && message.header.has(flags::REQUEST)
        && matches!(number, BEGIN | COMMIT | DISCARD);
    is_ours.then_some(number)
}

/// Whether a command of our family ends a trial.
pub(crate) const fn is_end_of_trial(number: u8) -> bool {
    matches!(number, CONFIRM | ROLL_BACK)
}

/// The errno that stands for a failure about trials.
pub(crate) fn errno_of_trial(error: TrialError) -> Errno {
    match error {
        TrialError::Unsupported => Errno::OPNOTSUPP,
        TrialError::UnderWay => Errno::INPROGRESS,
        TrialError::None => Errno::NOENT,
        TrialError::BadChecks => Errno::INVAL,
        TrialError::NoWayBack => Errno::IO,
        TrialError::Refused(refused) => errno_of(refused.error),
    }
}

/// Whether a message asks for an edit.
pub(crate) fn is_edit(message: &Message<'_>) -> bool {
    let header = &message.header;
    header.has(flags::REQUEST)
        && !header.has(flags::DUMP)
        && command_of(message).is_none()
        && message.generic().is_some_and(|(number, _)| {
            let ends_trial = header.kind == conn::FAMILY_ID && is_end_of_trial(number);
            changes(header.kind, number) && !ends_trial
        })
}

/// On which terms a transaction is committed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// Nothing may have changed since it was begun.
    pub unchanged: bool,
    /// For so many seconds only, unless it is confirmed.
    pub trial: Option<u32>,
}

impl Terms {
    /// Writes them as attributes of `COMMIT`.
    pub(crate) fn write(self, writer: &mut Writer) {
        if self.unchanged {
            writer.attr(UNCHANGED, &[]);
        }
        if let Some(seconds) = self.trial {
            writer.u32(TRIAL, seconds);
        }
    }

    /// Reads the attributes of `COMMIT`.
    pub(crate) fn read(attrs: &[u8]) -> Result<Self, Errno> {
        let policy = [(TRIAL, Policy::AtLeast(4))];
        let table = Table::<3>::parse(attrs, &policy).or(Err(Errno::RANGE))?;
        let trial = table.u32(TRIAL);
        if trial == Some(0) {
            return Err(Errno::INVAL);
        }
        Ok(Self { unchanged: table.get(UNCHANGED).is_some(), trial })
    }
}

/// Edits that wait.
#[derive(Debug, Default)]
pub(crate) struct Transaction {
    /// The director's generation when it was begun.
    begun: u64,
    /// The requests, one behind the other, each filled up to the alignment.
    requests: Vec<u8>,
    /// There were too many.
    spoilt: bool,
}

impl Transaction {
    /// Begins one.
    pub(crate) fn begin(control: &dyn Control) -> Self {
        Self { begun: control.generation(), ..Self::default() }
    }

    /// Keeps an edit; refuses all from the first on for which there is no room, that one
    /// with `E2BIG`.
    pub(crate) fn keep(&mut self, message: &Message<'_>) -> Result<(), Errno> {
        if self.spoilt {
            return Err(Errno::CANCELED);
        }
        let len = align4(self.requests.len().saturating_add(message.bytes.len()));
        if len > LONGEST {
            // Nothing will become of those before it.
            *self = Self { requests: Vec::new(), spoilt: true, ..*self };
            return Err(Errno::TOOBIG);
        }
        self.requests.extend_from_slice(message.bytes);
        self.requests.resize(len, 0);
        Ok(())
    }

    /// Makes the edits, all or none.
    pub(crate) fn commit(self, terms: Terms, control: &mut dyn Control) -> Result<(), Refusal> {
        if self.spoilt {
            return Err(Errno::TOOBIG.into());
        }
        if terms != Terms::default() && control.is_on_trial() {
            return Err(Errno::INPROGRESS.into());
        }
        if terms.unchanged && control.generation() != self.begun {
            return Err(Errno::STALE.into());
        }
        let mut edits = Edits::default();
        for (position, message) in (0..).zip(Messages(&self.requests)) {
            edits.add(position, &message, control).map_err(|errno| Refusal {
                position: Some(position),
                errno,
                reason: None,
            })?;
        }
        // The largest part of what is held meanwhile.
        drop(self.requests);
        let Edits { commands, positions, checks, .. } = edits;
        if commands.is_empty() && checks.is_none() {
            return Ok(());
        }
        let made = match (checks, terms.trial) {
            (Some(checks), trial) => {
                let checks = String::from_utf8(checks).or(Err(Errno::INVAL))?;
                control.apply_checked(&commands, &checks, trial)
            }
            (None, None) => control.apply(&commands).map_err(TrialError::from),
            (None, Some(seconds)) => control.apply_on_trial(&commands, seconds),
        };
        made.map_err(|error| match error {
            TrialError::Refused(refused) => Refusal {
                position: positions.get(refused.position).copied(),
                errno: errno_of(refused.error),
                reason: Some(refused.error),
            },
            other => errno_of_trial(other).into(),
        })
    }
}

/// Why nothing came of a transaction.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Refusal {
    /// Which edit was at fault, if it was one.
    position: Option<u32>,
    pub(crate) errno: Errno,
    reason: Option<CommandError>,
}

impl From<Errno> for Refusal {
    /// Of the transaction as a whole.
    fn from(errno: Errno) -> Self {
        Self { position: None, errno, reason: None }
    }
}

impl Refusal {
    /// The message that says which edit was at fault.
    pub(crate) fn message(&self, request: &Header) -> Option<Writer> {
        let position = self.position?;
        let mut writer = Writer::new();
        let header = answer(request, conn::FAMILY_ID, 0);
        writer.generic(header, REFUSED, conn::FAMILY_VERSION, |writer| {
            writer.u32(POSITION, position);
            if let Some(reason) = self.reason {
                writer.text(REASON, reason.to_string().as_bytes());
            }
        });
        Some(writer)
    }
}

/// Reads the attributes of `REFUSED`.
pub(crate) fn read_refused(attrs: &[u8]) -> Option<(u32, Option<String>)> {
    let table = Table::<3>::parse(attrs, &[]).ok()?;
    let reason = table.text(REASON).map(|text| String::from_utf8_lossy(text).into_owned());
    Some((table.u32(POSITION)?, reason))
}

/// Requests that are being read.
#[derive(Default)]
struct Edits {
    commands: Vec<Command>,
    /// For each command the position of its request, which may hold several.
    positions: Vec<u32>,
    /// What is to be checked from then on, if that is said.
    checks: Option<Vec<u8>>,
    /// The flags of services, as edits before gave them or as they are in force. Whether a
    /// service is still there by then, is for the director to see.
    flags: HashMap<ServiceKey, Option<u32>>,
}

impl Edits {
    fn add(
        &mut self,
        position: u32,
        message: &Message<'_>,
        control: &mut dyn Control,
    ) -> Result<(), Errno> {
        let (number, attrs) = message.generic().ok_or(Errno::INVAL)?;
        if message.header.kind == conn::FAMILY_ID {
            if number == health::SET_HEALTH {
                let part = health::read_part(attrs).ok_or(Errno::INVAL)?;
                self.checks.get_or_insert_default().extend_from_slice(part);
                return Ok(());
            }
            let edits = match number {
                marks::CHANGE_MARKS => marks::read_edits(attrs)?,
                drains::DRAIN | drains::UNDRAIN => vec![drains::read_edit(number, attrs)?],
                _ => vec![setting::read_edit(attrs)?],
            };
            for edit in edits {
                self.push(position, edit);
            }
            return Ok(());
        }
        let edit = decode(number, &read_top(attrs)?, &mut |key| {
            let in_force = || control.service(key).map(|service| service.spec.flags);
            *self.flags.entry(*key).or_insert_with(in_force)
        })?;
        if let Command::AddService(key, spec) | Command::EditService(key, spec) = &edit {
            self.flags.insert(*key, Some(spec.flags));
        }
        self.push(position, edit);
        Ok(())
    }

    fn push(&mut self, position: u32, edit: Command) {
        self.commands.push(edit);
        self.positions.push(position);
    }
}
