//! Sequence arithmetic against 64-bit numbers that do not wrap.

use super::Choices;
use crate::tcp::seq::{self, Seq};
use std::collections::BTreeMap;

/// Two numbers within 2^31 of each other compare as the long numbers that they
/// are the low halves of; and a map of numbers keeps their order across the wrap.
pub fn seq_arithmetic(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let long = u64::from(choices.word()) + (1 << 32);
    let apart = i64::from((choices.word() as i32) >> choices.below(32));
    if apart == i64::from(i32::MIN) {
        return; // exactly half the space: neither comes first
    }
    let other = long.wrapping_add_signed(apart);
    let (a, b) = (long as u32, other as u32);
    assert_eq!(seq::lt(a, b), long < other);
    assert_eq!(seq::le(a, b), long <= other);
    assert_eq!(seq::gt(a, b), long > other);
    assert_eq!(seq::ge(a, b), long >= other);
    assert_eq!(seq::max(a, b), long.max(other) as u32);
    assert_eq!(u64::from(seq::distance(a, b)), other.saturating_sub(long));
    assert_eq!(Seq(a).cmp(&Seq(b)), long.cmp(&other));

    let (mut short, mut whole) = (BTreeMap::new(), BTreeMap::new());
    while !choices.is_done() {
        let at = long + u64::from(choices.word() >> 2);
        short.insert(Seq(at as u32), at);
        whole.insert(at, at);
    }
    assert!(short.values().eq(whole.values()));
}
