//! Debian's Linux 6.1 in a qemu guest that holds nothing but what it is given: a kernel that is
//! unpacked and not installed, an initial file system of programs of this machine, and the
//! machine that boots them.

mod image;
mod kernel;
mod machine;
mod run;

pub use image::Image;
pub use kernel::Kernel;
pub use machine::{Clock, Machine};

/// What is needed to make and run a guest: a program, and Debian's package that it is in.
pub const NEEDED: [(&str, &str); 3] =
    [(machine::PROGRAM, "qemu-system-x86"), ("busybox", "busybox-static"), ("modprobe", "kmod")];
