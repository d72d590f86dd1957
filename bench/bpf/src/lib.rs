//! What the bench and its eBPF programs share: headers, the generator's plan,
//! what the sink expects and what it counted.

#![no_std]
#![forbid(unsafe_code)]

pub mod headers;
pub mod records;
