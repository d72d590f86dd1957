//! Checks of the health of destinations.
//!
//! [`check`](check::check) makes one check, [`State`](state::State) says what its results mean,
//! and [`Checks`] makes all of them in a thread of its own and tells what changes.

#![forbid(unsafe_code)]

pub mod check;
mod record;
mod schedule;
pub mod state;
mod target;
mod thread;

pub use record::{Last, Record, Table};
pub use target::{Target, TargetKey};
pub use thread::{Checks, Turn};
