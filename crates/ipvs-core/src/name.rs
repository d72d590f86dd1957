//! Short names (schedulers, persistence engines) of fixed size.

use core::fmt;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// A name of at most 15 octets, padded with zeros, as the kernel keeps them.
#[derive(
    Clone, Copy, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Name([u8; 16]);

impl Name {
    /// The longest name, in octets.
    pub const MAX_LEN: usize = 15;

    /// Takes the first 15 octets of `text`, up to a NUL.
    pub fn truncated(text: &[u8]) -> Self {
        let mut octets = [0; 16];
        for (to, from) in octets.iter_mut().zip(text).take(Self::MAX_LEN) {
            if *from == 0 {
                break;
            }
            *to = *from;
        }
        Self(octets)
    }

    /// The octets before the padding.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.split(|&octet| octet == 0).next().unwrap_or(&[])
    }

    /// The name as text; empty if it is not UTF-8.
    pub fn as_str(&self) -> &str {
        core::str::from_utf8(self.as_bytes()).unwrap_or("")
    }

    /// Whether there is no name.
    pub fn is_empty(&self) -> bool {
        self.0[0] == 0
    }
}

impl From<&str> for Name {
    fn from(text: &str) -> Self {
        Self::truncated(text.as_bytes())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
