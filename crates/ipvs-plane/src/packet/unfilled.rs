//! Tells frames whose transport checksum is still to be filled in, where
//! nothing says so but the octets.

use ipvs_wire::checksum::Sum;
use ipvs_wire::{Buffer as _, Fragment, Headers};

use super::virtio::leave_checksum;
use crate::frame::Frame;

/// Marks the frame if its checksum is unfilled: the field then holds the sum
/// of the pseudo header, and the packet would be wrong with it. The checksum
/// of a train always is.
///
/// A packet whose right checksum happens to be that sum is told from one with
/// an unfilled checksum by being right.
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
    let h = Headers::parse(frame).ok()?;
    if h.fragment != Fragment::No {
        return None;
    }
    let field = u16::from_ne_bytes(frame.load(h.checksum_at()?)?);
    let pseudo = Sum::ZERO
        .addr(h.source)
        .addr(h.destination)
        .add16(u16::from_ne_bytes([0, h.protocol]))
        .add32(h.transport_len().to_be());
    let right = pseudo.add16(frame.sum(h.l4, h.transport_len())?).checksum() == 0;
    Some(field == pseudo.fold() && !right)
}

#[cfg(test)]
mod tests {
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
