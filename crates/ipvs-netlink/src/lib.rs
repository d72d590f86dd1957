//! The IPVS generic-netlink family as bytes: what the kernel answers, answered
//! from a [`Control`](ipvs_core::snapshot::Control), and a client for either.
//!
//! The bytes of this family are the API of the director. [`serve`] turns the
//! datagrams of one request into calls of `Control` and datagrams of an
//! answer, and a [`Conversation`] those of a client; they have no socket, so that
//! the daemon, a preloaded library and tests use the same code. [`Client`] asks a daemon over a unix seqpacket socket, a
//! real kernel over generic netlink, or a `Control` in the same process.
//!
//! Beside the kernel's family there is one of our own, [`conn`], [`status`], [`marks`], [`drains`],
//! [`transaction`] and settings, for what the kernel only shows in `/proc` or not at all.
//! `docs/netlink.md` describes both. [`sockopt`] and [`views`] are the two other ways in which a kernel can be
//! asked: its old socket options, and its files.
//!
//! The numbers of the kernel's interface (commands, attributes, connection
//! flags) appear in this crate only.

#![forbid(unsafe_code)]

pub mod attr;
pub mod client;
pub mod conn;
pub mod controller;
mod conversation;
pub mod dest;
pub mod drains;
mod errno;
pub mod health;
pub mod helper;
pub mod marks;
pub mod message;
pub mod numbers;
mod server;
pub mod service;
mod setting;
pub mod sockopt;
pub mod statistics;
mod stats;
pub mod status;
pub mod sync;
mod together;
pub mod transaction;
pub mod views;

pub use client::{Client, ClientError, Info, NotMade};
pub use conversation::Conversation;
pub use errno::errno_of;
pub use rustix::io::Errno;
pub use server::{Access, serve, serve_as};
