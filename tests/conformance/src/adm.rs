//! Our own `ipvsadm`, run in this process.

use ipvs_core::snapshot::Control;

use crate::case::Output;
use crate::subject::Trouble;

/// Runs `ipvsadm` with these words, the first of which is its name.
pub fn run(words: &[String], _control: &mut dyn Control) -> Result<Output, Trouble> {
    Err(Trouble::Unsupported(format!("{} is not there yet", words.join(" "))))
}
