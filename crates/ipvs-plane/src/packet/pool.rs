//! Frames that are used again, so that a busy plane allocates nothing.

use crate::frame::Frame;

/// Frames kept at most; each keeps the memory of the longest frame it held.
const KEPT: usize = 512;

/// Frames nobody uses at the moment.
#[derive(Debug, Default)]
pub(crate) struct Pool(Vec<Frame>);

impl Pool {
    /// A frame with anything in it.
    pub(crate) fn take(&mut self) -> Frame {
        self.0.pop().unwrap_or_default()
    }

    /// Takes a frame back.
    pub(crate) fn give(&mut self, frame: Frame) {
        if self.0.len() < KEPT {
            self.0.push(frame);
        }
    }
}
