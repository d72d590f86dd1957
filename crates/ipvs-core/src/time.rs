//! Time as a value.

/// A moment on the plane's clock, in nanoseconds from any fixed start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instant(u64);

/// A duration in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Millis(pub u32);

impl Instant {
    /// The moment `nanos` after the start of the clock.
    #[inline(always)]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the start of the clock.
    #[inline(always)]
    pub const fn nanos(self) -> u64 {
        self.0
    }

    /// The moment `duration` later.
    #[inline(always)]
    #[must_use]
    pub const fn after(self, duration: Millis) -> Self {
        Self(self.0 + duration.0 as u64 * 1_000_000)
    }
}
