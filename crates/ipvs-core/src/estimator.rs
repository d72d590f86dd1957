//! Rates by the kernel's estimator: an exponential average over about eight
//! seconds, in fixed point.

use crate::stats::{Counters, Rates};

/// Seconds between two looks at the counters.
pub const INTERVAL_SECS: u64 = 2;

/// Connections and packets per second are kept in units of 2^-10.
const COUNT_SCALE: u32 = 10;
/// Octets per second are kept in units of 2^-5.
const OCTET_SCALE: u32 = 5;

/// Counters as they were last looked at, and rates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Estimator {
    summed: Counters,
    conns: i64,
    in_packets: i64,
    out_packets: i64,
    in_octets: i64,
    out_octets: i64,
}

impl Estimator {
    /// An estimator at rest that has seen `counters`.
    pub const fn at(counters: Counters) -> Self {
        let none = 0;
        Self {
            summed: counters,
            conns: none,
            in_packets: none,
            out_packets: none,
            in_octets: none,
            out_octets: none,
        }
    }

    /// The counters at the last look, which is what is shown.
    pub const fn summed(&self) -> Counters {
        self.summed
    }

    /// The look at the end of an interval.
    pub const fn look(&mut self, counters: Counters) {
        let new = counters.since(self.summed);
        self.summed = counters;
        // Two seconds an interval take one bit off the scale.
        self.conns = averaged(self.conns, new.conns, COUNT_SCALE - 1);
        self.in_packets = averaged(self.in_packets, new.in_packets, COUNT_SCALE - 1);
        self.out_packets = averaged(self.out_packets, new.out_packets, COUNT_SCALE - 1);
        self.in_octets = averaged(self.in_octets, new.in_bytes, OCTET_SCALE - 1);
        self.out_octets = averaged(self.out_octets, new.out_bytes, OCTET_SCALE - 1);
    }

    /// Forgets the rates: those of a new zero point.
    pub const fn rest(&mut self) {
        *self = Self::at(self.summed);
    }

    /// The rates, rounded as the kernel rounds them.
    pub const fn rates(&self) -> Rates {
        Rates {
            conns: rounded(self.conns, COUNT_SCALE),
            in_packets: rounded(self.in_packets, COUNT_SCALE),
            out_packets: rounded(self.out_packets, COUNT_SCALE),
            in_bytes: rounded(self.in_octets, OCTET_SCALE),
            out_bytes: rounded(self.out_octets, OCTET_SCALE),
        }
    }
}

/// The average moved on by a quarter of the way to what was `new` in the interval.
const fn averaged(average: i64, new: u64, scale: u32) -> i64 {
    average.wrapping_add((new << scale).wrapping_sub(average.cast_unsigned()).cast_signed() >> 2)
}

/// To the nearest whole number, a half down.
const fn rounded(average: i64, scale: u32) -> u64 {
    // An average of what only grows is not negative.
    (average.wrapping_add((1 << (scale - 1)) - 1) >> scale).cast_unsigned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constant_traffic_is_approached_and_left_as_on_a_kernel() {
        let mut estimator = Estimator::default();
        let mut counters = Counters::default();
        let mut rates = [0; 8];
        for rate in &mut rates {
            counters.in_packets += 2000;
            estimator.look(counters);
            *rate = estimator.rates().in_packets;
        }
        assert_eq!(rates, [250, 437, 578, 684, 763, 822, 867, 900]);
        for _ in 0..100 {
            counters.in_packets += 2000;
            estimator.look(counters);
        }
        for rate in &mut rates {
            estimator.look(counters);
            *rate = estimator.rates().in_packets;
        }
        assert_eq!(rates, [750, 562, 422, 316, 237, 178, 133, 100]);
    }

    #[test]
    fn octets_are_kept_in_another_scale() {
        // Recorded: 290 octets in one interval, five looks later.
        let mut estimator = Estimator::default();
        let counters = Counters { in_bytes: 290, ..Counters::default() };
        for _ in 0..5 {
            estimator.look(counters);
        }
        assert_eq!(estimator.rates().in_bytes, 11);
    }

    #[test]
    fn a_rest_forgets_rates_and_keeps_the_count() {
        let mut estimator = Estimator::default();
        let counters = Counters { conns: 1000, out_bytes: 1 << 40, ..Counters::default() };
        estimator.look(counters);
        assert_ne!(estimator.rates(), Rates::default());
        estimator.rest();
        assert_eq!((estimator.rates(), estimator.summed()), (Rates::default(), counters));
    }
}
