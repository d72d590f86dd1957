//! Fuzz targets, but for libFuzzer: what an input means, and what must hold for it.
//!
//! `cargo xtask fuzz` runs them; a failed check panics, as a mistake in the code
//! under test does.

#![forbid(unsafe_code)]

pub mod control;
pub mod seeds;
