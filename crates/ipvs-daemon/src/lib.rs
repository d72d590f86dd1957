//! The daemon: a data plane behind the control socket.
//!
//! [`Daemon::start`] makes a plane, or takes over the one that an earlier
//! daemon left pinned, and opens the socket; [`Daemon::run`] answers on it
//! until a signal comes. One thread does all of it: the packets go another way. Metrics
//! are written and served by a second one, which asks the first for what it knows.
//!
//! ```no_run
//! use ipvs_daemon::{Daemon, Options};
//!
//! let daemon = Daemon::start(&Options::default())?;
//! // From here on clients are answered, as soon as `run` gets to them.
//! daemon.run()?;
//! # Ok::<(), ipvs_daemon::DaemonError>(())
//! ```

#![forbid(unsafe_code)]

mod config;
mod daemon;
mod director;
mod error;
mod health;
mod host;
mod listener;
mod manager;
mod metrics;
mod options;
mod peer;
mod pins;
mod problems;
mod rights;
mod start;
mod trial;

pub use daemon::Daemon;
pub use error::DaemonError;
pub use options::{DEFAULT_PINS, DEFAULT_SOCKET, Options, PlaneChoice};
pub use pins::detach;
pub use rights::Readers;
