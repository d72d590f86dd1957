//! The order of listings.
//!
//! Marks and addresses are compared by the sign of their 32-bit difference, so
//! 200.0.0.1 stands before 9.0.0.1. That is no full order, and the result then
//! depends on how it is sorted: by merging halves, the left one first among
//! equals, as the C library of `ipvsadm` does.

use std::cmp::Ordering;

use ipvs_core::addr::Addr;
use ipvs_core::snapshot::{DestStatus, ServiceStatus};

/// Sorts services by mark, family, protocol, address and port.
pub(crate) fn services(services: Vec<ServiceStatus>) -> Vec<ServiceStatus> {
    merge_sort(services, |a, b| {
        by_difference(a.key.fwmark, b.key.fwmark)
            .then(a.key.family.cmp(&b.key.family))
            .then(a.key.protocol.cmp(&b.key.protocol))
            .then_with(|| by_addr(a.key.addr, b.key.addr))
            .then(a.key.port.cmp(&b.key.port))
    })
}

/// Sorts destinations by address and port, whatever their families.
pub(crate) fn dests(dests: Vec<DestStatus>) -> Vec<DestStatus> {
    merge_sort(dests, |a, b| by_addr(a.key.addr, b.key.addr).then(a.key.port.cmp(&b.key.port)))
}

/// Compares word by word.
fn by_addr(a: Addr, b: Addr) -> Ordering {
    let words = |addr: Addr| addr.words().map(u32::from_be);
    let mut pairs = words(a).into_iter().zip(words(b));
    pairs.find(|(a, b)| a != b).map_or(Ordering::Equal, |(a, b)| by_difference(a, b))
}

/// The sign of the 32-bit difference.
fn by_difference(a: u32, b: u32) -> Ordering {
    a.wrapping_sub(b).cast_signed().cmp(&0)
}

/// Sorts by any comparison, even one that is no order.
fn merge_sort<T>(mut items: Vec<T>, compare: impl Fn(&T, &T) -> Ordering + Copy) -> Vec<T> {
    if items.len() < 2 {
        return items;
    }
    let right = items.split_off(items.len() / 2);
    let mut left = merge_sort(items, compare).into_iter().peekable();
    let mut right = merge_sort(right, compare).into_iter().peekable();
    let mut merged = Vec::with_capacity(left.len() + right.len());
    while let (Some(a), Some(b)) = (left.peek(), right.peek()) {
        let from = if compare(a, b).is_gt() { &mut right } else { &mut left };
        merged.extend(from.next());
    }
    merged.extend(left);
    merged.extend(right);
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_far_apart_are_ordered_by_the_sign_of_their_difference() {
        let order = |a, b| by_addr(Addr::v4(a), Addr::v4(b));
        assert_eq!(order([192, 0, 2, 10], [192, 0, 2, 11]), Ordering::Less);
        assert_eq!(order([200, 0, 0, 1], [9, 0, 0, 1]), Ordering::Less);
        assert_eq!(order([10, 1, 0, 1], [10, 1, 0, 1]), Ordering::Equal);
    }

    #[test]
    fn the_left_one_of_equals_comes_first() {
        let items = vec![(2, 'a'), (1, 'b'), (2, 'c'), (1, 'd'), (2, 'e')];
        let sorted = merge_sort(items, |a, b| a.0.cmp(&b.0));
        let letters: String = sorted.into_iter().map(|(_, letter)| letter).collect();
        assert_eq!(letters, "bdace");
    }
}
