//! Laws of the headers, held for random octets and for what an independent
//! reader of packets makes of well-formed ones.
#![expect(
    clippy::tests_outside_test_module,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "the whole program is a test"
)]

mod checksum;
mod headers;
