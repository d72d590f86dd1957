//! The director's configuration file: its text becomes the state that is
//! wanted, and that, beside what runs, a plan. Nothing here reads or changes
//! anything but its arguments.

#![forbid(unsafe_code)]

mod error;
mod file;
mod plan;
mod read;
mod words;

pub use error::ConfigError;
pub use plan::{Change, Running, RunningService, plan};
pub use read::{Service, Wanted, read};
