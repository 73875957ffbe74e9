//! The internet checksum (RFC 1071) and its incremental update (RFC 1624).
//!
//! A [`Sum`] is a one's complement sum not yet inverted, in the byte order of
//! the wire. Sums of parts that begin at even distances add up.

use crate::arch;

/// A partial one's complement sum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum(u32);

impl Sum {
    /// The sum of nothing.
    pub const ZERO: Self = Self(0);

    /// From a folded 16-bit sum.
    pub const fn from_u16(v: u16) -> Self {
        Self(v as u32)
    }

    /// From a plain sum of 32-bit words.
    #[inline(always)]
    pub const fn from_words(sum: u64) -> Self {
        Self::ZERO.add_u32(sum as u32).add_u32((sum >> 32) as u32)
    }

    /// Folded to 16 bits.
    #[inline]
    pub const fn fold(self) -> u16 {
        arch::fold32(self.0)
    }

    /// Adds a 16-bit word.
    #[inline]
    pub const fn add_u16(self, v: u16) -> Self {
        Self(self.0 + v as u32)
    }

    /// Adds a 32-bit word.
    #[inline]
    pub const fn add_u32(self, v: u32) -> Self {
        Self(self.0 + (v >> 16) + (v & 0xffff))
    }

    /// Adds another sum (of bytes at an even distance).
    #[inline]
    pub const fn add(self, other: Self) -> Self {
        Self(self.0 + other.fold() as u32)
    }

    /// Adds the sum of bytes that begin at an odd distance.
    #[inline]
    pub const fn add_odd(self, other: Self) -> Self {
        Self(self.0 + other.fold().swap_bytes() as u32)
    }

    /// Adds the sum of bytes that begin `at` bytes further on.
    #[inline]
    pub const fn add_at(self, at: usize, other: Self) -> Self {
        if at.is_multiple_of(2) { self.add(other) } else { self.add_odd(other) }
    }

    /// Takes away the sum of bytes, among those summed, that begin at `at` (RFC 1624).
    /// What is left of zeros may be all ones: the same to a checksum, which has more
    /// to cover than them.
    #[inline]
    pub const fn sub_at(self, at: usize, other: Self) -> Self {
        self.add_at(at, Self(!other.fold() as u32))
    }

    /// The checksum: folded and inverted.
    #[inline]
    pub const fn finish(self) -> u16 {
        !self.fold()
    }
}

/// The sum of `bytes`; an odd last byte counts as if a zero followed.
#[inline]
pub fn sum(bytes: &[u8]) -> Sum {
    Sum(arch::sum(bytes).swap_bytes().into())
}

/// As [`sum`], for at most [`arch::SHORT`] bytes and without a call.
///
/// # Panics
/// If there are more.
#[inline(always)]
pub fn sum_short(bytes: &[u8]) -> Sum {
    Sum(arch::sum_short(bytes).swap_bytes().into())
}

/// True where a checksum in `bytes`, over them and `pseudo`, is right. Cheaper
/// than the sum itself.
#[inline(always)]
pub fn is_right(bytes: &[u8], pseudo: Sum) -> bool {
    // Turned around, its two halves are the words of the machine's order.
    arch::is_ones(bytes, pseudo.0.swap_bytes())
}

/// Copies `src` to the front of `dst` and sums it on the way.
///
/// # Panics
/// If `dst` is shorter than `src`.
#[inline]
pub fn copy_and_sum(dst: &mut [u8], src: &[u8]) -> Sum {
    Sum(arch::copy_and_sum(dst, src).swap_bytes().into())
}

/// As [`copy_and_sum`], for at most [`arch::SHORT`] bytes and without a call.
///
/// # Panics
/// If `dst` is shorter than `src`.
#[inline(always)]
pub fn copy_and_sum_short(dst: &mut [u8], src: &[u8]) -> Sum {
    Sum(arch::copy_and_sum_short(dst, src).swap_bytes().into())
}

/// The sum of the pseudo-header of IPv4 (RFC 9293, 3.1).
#[inline]
pub fn pseudo_v4(src: [u8; 4], dst: [u8; 4], protocol: u8, len: u16) -> Sum {
    Sum::ZERO
        .add_u32(u32::from_be_bytes(src))
        .add_u32(u32::from_be_bytes(dst))
        .add_u16(protocol.into())
        .add_u16(len)
}

/// The sum of the pseudo-header of IPv6 (RFC 8200, 8.1).
#[inline]
pub fn pseudo_v6(src: [u8; 16], dst: [u8; 16], protocol: u8, len: u32) -> Sum {
    sum(&src).add(sum(&dst)).add_u32(len).add_u16(protocol.into())
}

/// The checksum after a 16-bit word that it covers changed from `old` to `new`
/// (RFC 1624, equation 3).
#[inline]
pub const fn update(checksum: u16, old: u16, new: u16) -> u16 {
    Sum::from_u16(!checksum).add_u16(!old).add_u16(new).finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scalar(bytes: &[u8]) -> u16 {
        let mut s = 0u64;
        for pair in bytes.chunks(2) {
            s += u64::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
        }
        while s > 0xffff {
            s = (s & 0xffff) + (s >> 16);
        }
        s as u16
    }

    #[test]
    fn equals_the_definition_at_every_length() {
        let bytes: Vec<u8> = (0..2000u32).map(|i| (i * 131 + 7) as u8).collect();
        for len in 0..bytes.len() {
            assert_eq!(sum(&bytes[..len]).fold(), scalar(&bytes[..len]), "length {len}");
        }
    }

    #[test]
    fn parts_add_up() {
        let bytes: Vec<u8> = (0..999u32).map(|i| (i * 57 + 3) as u8).collect();
        for cut in 0..bytes.len() {
            let (a, b) = (sum(&bytes[..cut]), sum(&bytes[cut..]));
            let whole = a.add_at(cut, b);
            assert_eq!(whole.fold(), scalar(&bytes), "cut {cut}");
            assert_eq!(whole.sub_at(cut, b).fold() % 0xffff, a.fold() % 0xffff, "cut {cut}");
            let rest = Sum::ZERO.add_at(cut, whole.sub_at(0, a));
            assert_eq!(rest.fold() % 0xffff, b.fold() % 0xffff, "cut {cut}");
        }
        assert_eq!(sum(&bytes).sub_at(0, sum(&bytes)).fold() % 0xffff, 0);
    }

    #[test]
    fn plain_sums_of_words_are_sums_of_their_halves() {
        for words in [&[][..], &[1, 0xffff_ffff], &[0x1234_5678, 0x9abc_def0, 0xffff_0001], &[u32::MAX; 9]] {
            let bytes: Vec<u8> = words.iter().flat_map(|w: &u32| w.to_be_bytes()).collect();
            let plain = words.iter().map(|&w| u64::from(w)).sum();
            assert_eq!(Sum::from_words(plain).fold(), scalar(&bytes), "{words:x?}");
        }
    }

    #[test]
    fn a_right_checksum_is_seen_whatever_the_pseudo_header_sums_up_to() {
        for words in [0, 1, 0xffff, 0x1_0000, 0x1_fffe, 0x0012_3456, 0xfedc_0001, u32::MAX] {
            let mut bytes = [7, 9, 0, 0, 255, 255, 3];
            let sum = sum(&bytes).add(Sum(words)).finish();
            bytes[2..4].copy_from_slice(&sum.to_be_bytes());
            assert!(is_right(&bytes, Sum(words)), "{words:x}");
            bytes[3] ^= 1;
            assert!(!is_right(&bytes, Sum(words)), "{words:x}");
        }
        assert!(!is_right(&[0; 20], Sum::ZERO));
        assert!(is_right(&[255; 20], Sum::ZERO));
    }

    #[test]
    fn an_updated_checksum_is_that_of_the_changed_bytes() {
        let mut bytes: Vec<u8> = (0..40u8).collect();
        for word in [0, 1, 0x1234, 0xfffe, 0xffff] {
            let before = sum(&bytes).finish();
            let old = u16::from_be_bytes([bytes[6], bytes[7]]);
            bytes[6..8].copy_from_slice(&u16::to_be_bytes(word));
            assert_eq!(update(before, old, word), sum(&bytes).finish());
        }
    }
}
