//! Deterministic bytes for bodies, and the hash that proves they arrived whole.

/// A prime, so that no power-of-two slip of the data stays unseen.
const PERIOD: usize = 65_521;

/// The endless sequence of bytes that `GET /bytes/N` answers the first N of.
#[derive(Clone, Debug)]
pub struct Pattern {
    block: Box<[u8]>,
}

impl Default for Pattern {
    fn default() -> Self {
        // Knuth's MMIX generator; only the upper bits are random enough.
        let mut state: u64 = 1;
        let block = (0..PERIOD)
            .map(|_| {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                state.to_be_bytes()[0]
            })
            .collect();
        Self { block }
    }
}

impl Pattern {
    /// Returns some bytes of the sequence from `offset` on: at least one, at most `limit`.
    /// An empty slice comes only for a limit of 0.
    pub fn slice(&self, offset: u64, limit: u64) -> &[u8] {
        let start = usize::try_from(offset % PERIOD as u64).unwrap_or_default();
        let end =
            usize::try_from(limit).map_or(PERIOD, |limit| start.saturating_add(limit)).min(PERIOD);
        self.block.get(start..end).unwrap_or_default()
    }

    /// Returns the first `length` bytes.
    pub fn bytes(&self, length: usize) -> Vec<u8> {
        self.block.iter().copied().cycle().take(length).collect()
    }
}

/// FNV-1a with 64 bits, fed piece by piece.
///
/// ```
/// let mut hash = ipvs_lab::Fnv1a::default();
/// hash.write(b"foo");
/// hash.write(b"bar");
/// assert_eq!(hash.to_string(), "85944171f73967e8");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fnv1a(u64);

impl Default for Fnv1a {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv1a {
    /// Feeds the next piece.
    pub fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    /// Returns the hash of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let mut hash = Self::default();
        hash.write(bytes);
        hash
    }
}

impl std::fmt::Display for Fnv1a {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_joined_are_the_bytes() {
        let pattern = Pattern::default();
        let length = 200_000_u64;
        let mut joined = Vec::new();
        while (joined.len() as u64) < length {
            let offset = joined.len() as u64;
            joined.extend_from_slice(pattern.slice(offset, length - offset));
        }
        assert!(joined == pattern.bytes(200_000));
    }

    #[test]
    fn the_pattern_differs_after_a_slip_of_a_segment() {
        let bytes = Pattern::default().bytes(10_000);
        assert!(bytes[..1448] != bytes[1448..2896]);
        assert!(bytes[..1024] != bytes[1024..2048]);
    }

    #[test]
    fn the_hash_of_nothing_is_the_offset_basis() {
        assert_eq!(Fnv1a::of(b"").to_string(), "cbf29ce484222325");
    }
}
