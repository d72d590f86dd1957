//! The director's configuration file: its text becomes the state that is
//! wanted, and that, beside what runs, a plan. Nothing here reads or changes
//! anything but its arguments.

#![forbid(unsafe_code)]

pub mod check;
mod error;
mod export;
mod export_health;
mod file;
pub mod health;
mod mark;
mod plan;
mod read;
mod read_health;
mod read_kind;
pub mod rule;
mod running;
mod sync;
pub mod words;

pub use error::ConfigError;
pub use export::export;
pub use plan::{Change, plan};
pub use read::{Service, Wanted, read};
pub use running::{Running, RunningService};
