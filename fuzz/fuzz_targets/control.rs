//! Whatever a client sends to the daemon's socket.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| ipvs_fuzz::control::check(input));
