//! Tells frames whose transport checksum is still to be filled in, where
//! nothing says so but the octets.

use ipvs_wire::{Fragment, Headers};

use super::virtio::leave_checksum;
use crate::frame::Frame;

/// Marks the frame if its checksum is unfilled. The checksum of a train always is.
pub(crate) fn mark(frame: &mut Frame) {
    if frame.segment_len != 0 {
        if leave_checksum(frame).is_none() {
            frame.segment_len = 0;
        }
        return;
    }
    frame.checksum_pending = is_unfilled(frame).unwrap_or(false);
}

fn is_unfilled(frame: &Frame) -> Option<bool> {
    let headers = Headers::parse(frame).ok()?;
    if headers.fragment == Fragment::No { headers.is_unfilled(frame) } else { None }
}

#[cfg(test)]
mod tests {
    use ipvs_wire::Buffer as _;
    use proptest::prelude::*;

    use super::*;
    use crate::packet::testing::{Kind, packet};

    proptest! {
        #[test]
        fn an_unfilled_checksum_is_told_from_a_right_and_from_a_wrong_one(
            payload in prop::collection::vec(any::<u8>(), 0..2000),
            harm in 1_u16..,
            kind in 0_usize..4,
        ) {
            let right = Frame::new(packet(Kind::ALL[kind], &payload));
            let h = Headers::parse(&right).unwrap();
            let at = h.checksum_at().unwrap();
            let marked = |mut frame: Frame| {
                mark(&mut frame);
                frame.checksum_pending
            };
            prop_assert!(!marked(right.clone()));
            let mut unfilled = right.clone();
            leave_checksum(&mut unfilled).unwrap();
            let left: [u8; 2] = unfilled.load(at).unwrap();
            unfilled.checksum_pending = false;
            prop_assert!(marked(unfilled) || left == right.load(at).unwrap());
            let mut wrong = right;
            let field = u16::from_ne_bytes(wrong.load(at).unwrap()).wrapping_add(harm);
            wrong.store(at, field.to_ne_bytes()).unwrap();
            prop_assert!(!marked(wrong) || field.to_ne_bytes() == left);
        }
    }
}
