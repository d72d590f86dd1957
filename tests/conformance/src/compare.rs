//! What counts as a difference from the kernel, and how it is told.

pub mod frames;
pub mod made_by_host;
pub mod text;

/// A difference: where, and what, a line at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The step or table.
    pub place: String,
    /// What differs.
    pub lines: Vec<String>,
}
