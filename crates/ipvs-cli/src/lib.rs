//! The `ipvs` command, subcommand by subcommand, as functions.

#![forbid(unsafe_code)]

pub mod adm;
pub mod daemon;
pub mod demo;
pub mod exec;
mod manual;
pub mod proc;
pub mod program;
pub mod sysctl;
