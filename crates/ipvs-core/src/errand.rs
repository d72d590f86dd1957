//! What the control side has done inside the kernel, where no packet can come
//! between: a few words handed to the control program of the eBPF plane.

/// An errand: what to do, and to what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Errand {
    /// End every connection that is due, and see that the timer runs.
    Sweep,
    /// Set or clear the overload mark of a destination.
    MarkOverload {
        /// The destination.
        dest: u32,
        /// The mark.
        overloaded: bool,
    },
    /// Make a cache of lblc or lblcr an empty one of this scheduler.
    OpenCache {
        /// Place of the cache.
        cache: u32,
        /// Number of the scheduler.
        scheduler: u32,
    },
    /// Empty a cache that is nobody's any more.
    CloseCache {
        /// Place of the cache.
        cache: u32,
    },
    /// End a connection now.
    End {
        /// The connection.
        conn: u32,
    },
}

impl Errand {
    /// As words, the form in which it is handed over.
    pub const fn words(self) -> [u32; 3] {
        match self {
            Self::Sweep => [0, 0, 0],
            Self::MarkOverload { dest, overloaded } => [1, dest, overloaded as u32],
            Self::End { conn } => [2, conn, 0],
            Self::OpenCache { cache, scheduler } => [3, cache, scheduler],
            Self::CloseCache { cache } => [4, cache, 0],
        }
    }

    /// From the form in which it is handed over; what makes no sense is a sweep.
    #[inline(always)]
    pub const fn from_words(words: [u32; 3]) -> Self {
        match words {
            [1, dest, mark] => Self::MarkOverload { dest, overloaded: mark != 0 },
            [2, conn, _] => Self::End { conn },
            [3, cache, scheduler] => Self::OpenCache { cache, scheduler },
            [4, cache, _] => Self::CloseCache { cache },
            _ => Self::Sweep,
        }
    }
}
