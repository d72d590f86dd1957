//! Laws of the director, held for random packets, commands and times over
//! tables in memory.
#![expect(
    clippy::tests_outside_test_module,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "the whole program is a test"
)]

mod caching;
mod defence;
mod drain;
mod forwarding;
mod front;
mod ftp;
mod hashing;
mod history;
mod hostile;
mod icmp;
mod leaving;
mod marks;
mod packet;
mod reuse;
mod scheduling;
mod sip;
mod tunnelled;
mod world;
