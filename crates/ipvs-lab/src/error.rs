//! What can go wrong while a lab is built or used.

use std::io;

/// Why a step of the lab failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The kernel refused a step.
    #[error("cannot {action}: {source}")]
    Refused {
        /// The step, as an infinitive: "add address 192.0.2.1/24 to eth0 of client".
        action: String,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The kernel, or the rights of this process, lack something that every lab needs.
    #[error("cannot {action}: {source}; {advice}")]
    Unavailable {
        /// The step, as an infinitive.
        action: String,
        /// The kernel's answer.
        #[source]
        source: io::Error,
        /// What the user can do about it.
        advice: &'static str,
    },
    /// A namespace has no interface of this name.
    #[error("namespace {namespace} has no interface {link}")]
    NoSuchLink {
        /// The label of the namespace.
        namespace: String,
        /// The interface looked for.
        link: String,
    },
    /// What was awaited did not come in time.
    #[error("timed out while waiting for {what}")]
    TimedOut {
        /// What was awaited.
        what: String,
    },
    /// The caller asked for something that makes no sense; fixed by reading the code.
    #[error("misuse of the lab: {0}")]
    Misuse(&'static str),
}

/// A result whose error is the lab's.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Adds to an I/O error what was being done.
pub(crate) trait Doing<T> {
    /// Names the step that failed, as an infinitive.
    fn doing(self, action: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<io::Error>> Doing<T> for std::result::Result<T, E> {
    fn doing(self, action: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| Error::Refused { action: action(), source: source.into() })
    }
}
