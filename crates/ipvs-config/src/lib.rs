//! The director's configuration file: its text becomes the state that is
//! wanted, and that, beside what runs, a plan. Nothing here reads or changes
//! anything but its arguments.

#![forbid(unsafe_code)]

mod error;
mod export;
mod file;
mod mark;
mod plan;
mod read;
pub mod rule;
mod running;
mod sync;
mod words;

pub use error::ConfigError;
pub use export::export;
pub use plan::{Change, plan};
pub use read::{Service, Wanted, read};
pub use running::{Running, RunningService};
