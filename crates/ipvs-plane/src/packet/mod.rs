//! Packet sockets, and what goes out by them: frames that wait for a neighbour,
//! are cut, completed and sent.
//!
//! Both planes send this way what the kernel does not send for them.

pub(crate) mod host;
pub(crate) mod leaving;
pub(crate) mod outlet;
pub(crate) mod pending;
pub(crate) mod pool;
pub(crate) mod segment;
pub(crate) mod sys;
#[cfg(test)]
pub(crate) mod testing;
pub(crate) mod unfilled;
pub(crate) mod virtio;
