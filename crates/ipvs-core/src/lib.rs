//! The director: services, destinations, connections, schedulers and
//! forwarding, every rule of IPVS once.
//!
//! The crate is pure: bytes, the present time and tables go in, a verdict and
//! table edits come out. It reads no clock and no random source, allocates
//! nothing, logs nothing and cannot panic on a packet, so that the same code is
//! the eBPF program and the user-space plane.

#![no_std]
#![forbid(unsafe_code)]

pub mod addr;
pub mod command;
pub mod dest;
pub mod name;
pub mod service;
pub mod snapshot;
pub mod stats;
