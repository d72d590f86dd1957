//! The data planes of ipvs-rs, and what both share on the control side.
//!
//! * [`registry`] turns commands into records and keeps the lists in order;
//!   the only code that decides what a command does.
//! * [`store`] is what it writes to: maps of the kernel or memory.
//! * [`memory`] holds the tables of a plane in this process.
//! * [`measure`] is what metrics are made of.
//! * [`plane`] is what a daemon drives; [`bpf`] and [`user`] are the two planes.
//! * `firewall` tells which of the host's chains packets for services pass by.
//! * [`rtnetlink`] asks the host for interfaces, routes and neighbours.

pub mod bpf;
mod firewall;
pub mod fragment;
pub mod frame;
pub mod measure;
pub mod memory;
mod packet;
pub mod plane;
pub mod reassembly;
pub mod registry;
pub mod rtnetlink;
pub mod store;
pub mod user;
