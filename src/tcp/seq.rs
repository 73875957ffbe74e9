//! Sequence number arithmetic, modulo 2^32 (RFC 9293, 3.4).
//!
//! Numbers compare by their distance: right as long as they lie within 2^31 of
//! each other, which windows of at most 2^30 bytes see to.

/// True where `a` comes before `b`.
#[inline]
pub const fn lt(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) < 0
}

/// True where `a` comes before `b` or is the same.
#[inline]
pub const fn le(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) <= 0
}

/// True where `a` comes after `b`.
#[inline]
pub const fn gt(a: u32, b: u32) -> bool {
    lt(b, a)
}

/// True where `a` comes after `b` or is the same.
#[inline]
pub const fn ge(a: u32, b: u32) -> bool {
    le(b, a)
}

/// The later of the two.
#[inline]
pub const fn max(a: u32, b: u32) -> u32 {
    if lt(a, b) { b } else { a }
}

/// Bytes from `from` to `to`; zero where `to` comes first.
#[inline]
pub const fn distance(from: u32, to: u32) -> u32 {
    if lt(from, to) { to.wrapping_sub(from) } else { 0 }
}

/// A sequence number as a key of an ordered map. The order holds among numbers
/// within 2^31 of each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seq(pub u32);

impl Ord for Seq {
    fn cmp(&self, other: &Self) -> core::cmp::Ordering {
        (self.0.wrapping_sub(other.0) as i32).cmp(&0)
    }
}

impl PartialOrd for Seq {
    fn partial_cmp(&self, other: &Self) -> Option<core::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_holds_across_the_wrap() {
        for base in [0u32, 1, 0x7fff_ffff, 0x8000_0000, 0xffff_fff0, u32::MAX] {
            let next = base.wrapping_add(20);
            assert!(lt(base, next) && le(base, next) && gt(next, base) && ge(next, base));
            assert!(le(base, base) && ge(base, base) && !lt(base, base) && !gt(base, base));
            assert_eq!(max(base, next), next);
            assert_eq!((distance(base, next), distance(next, base)), (20, 0));
            assert!(Seq(base) < Seq(next));
        }
    }
}
