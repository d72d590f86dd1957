//! The eBPF programs of ipvs-rs: XDP and TC entry points around the core, and
//! the sweep that ends connections inside the kernel.
//!
//! No rule of IPVS stands here: a program reaches the octets of its packet
//! ([`xdp`], [`skb`]) and the maps ([`tables`]), asks the core, and does what
//! the verdict says.

#![no_std]
#![no_main]
#![feature(core_intrinsics, asm_experimental_arch)]
#![allow(internal_features, reason = "core's atomics have no read-modify-write for eBPF")]
#![expect(unsafe_code, reason = "packet memory and maps are reached by raw pointers")]

mod bytes;
mod fib;
mod kernel;
mod maps;
mod skb;
mod slow;
mod sweep;
mod tables;
mod xdp;

/// The kernel lends its GPL-only helpers to programs that say this.
#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // Never linked: an object with a panic path in it is refused by its build.
    loop {}
}
