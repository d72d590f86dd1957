//! The director: services, destinations, connections, schedulers and
//! forwarding, every rule of IPVS once.
//!
//! The crate is pure: bytes, the present time and tables go in, a verdict and
//! table edits come out. It reads no clock and no random source, allocates
//! nothing, logs nothing and cannot panic on a packet, so that the same code is
//! the eBPF program and the user-space plane.
//!
//! A packet enters at [`director::handle`]; time passes by
//! [`expiry::sweep`]. [`tables::Tables`] is what a plane must offer.

#![no_std]
#![forbid(unsafe_code)]

pub mod addr;
mod admit;
pub mod behind;
pub mod command;
pub mod conn;
pub mod defence;
pub mod deferred;
pub mod dest;
pub mod director;
pub mod drain;
pub mod engine;
pub mod errand;
pub mod estimator;
pub mod expiry;
mod forward;
mod fragments;
pub mod helper;
pub mod hop;
mod icmp;
pub mod mark;
pub mod name;
pub mod near;
mod one_packet;
mod options;
pub mod own;
pub mod persistence;
pub mod proto;
pub mod sched;
pub mod service;
pub mod settings;
pub mod snapshot;
mod standing;
pub mod stats;
pub mod sync;
pub mod sysctl;
pub mod tables;
pub mod time;
pub mod verdict;
