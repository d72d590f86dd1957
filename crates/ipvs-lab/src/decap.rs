//! Stub.
use crate::{Link, Result};
/// Stub.
#[derive(Debug)]
pub struct Decapsulator(());
impl Decapsulator {
    /// Stub.
    pub fn start(_link: &Link) -> Result<Self> {
        Ok(Self(()))
    }
}
