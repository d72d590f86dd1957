//! The errno that stands for each refusal.

use ipvs_core::command::CommandError;
use rustix::io::Errno;

/// The errno that the kernel gives where it refuses the same command.
pub fn errno_of(error: CommandError) -> Errno {
    match error {
        CommandError::ServiceExists
        | CommandError::DestExists
        | CommandError::SyncRuns
        | CommandError::MarkRuleExists => Errno::EXIST,
        CommandError::NoSuchService | CommandError::NoSync => Errno::SRCH,
        CommandError::NoInterface => Errno::NODEV,
        CommandError::UnknownScheduler
        | CommandError::UnknownPersistenceEngine
        | CommandError::NoSuchDest
        | CommandError::NoSuchMarkRule => Errno::NOENT,
        CommandError::NotDrained => Errno::NODATA,
        CommandError::OutOfRange => Errno::RANGE,
        CommandError::Invalid => Errno::INVAL,
        CommandError::FamilyNotSupported => Errno::AFNOSUPPORT,
        CommandError::Full { .. } => Errno::NOMEM,
        _ => Errno::IO,
    }
}
