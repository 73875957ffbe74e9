//! Sums with plain 64-bit additions: for short runs everywhere, and for all where
//! there is no vector unit.

use super::unit::Unit;

pub(super) static UNIT: Unit = Unit {
    name: "portable",
    present: || true,
    sum: |bytes| sum(bytes),
    copy_and_sum: |dst, src| copy_and_sum(dst, src),
};

/// A sum on its way: 64-bit words with the carries beside them.
#[derive(Clone, Copy, Default)]
struct Acc {
    words: u64,
    carries: u64,
}

impl Acc {
    fn new(words: u64) -> Self {
        Self { words, carries: 0 }
    }

    #[inline(always)]
    fn word(&mut self, word: u64) {
        let (words, carry) = self.words.overflowing_add(word);
        self.words = words;
        self.carries += u64::from(carry);
    }

    /// Adds whole words, the carry of each going into the next.
    #[inline(always)]
    fn chain<const N: usize>(&mut self, bytes: &[u8; N]) {
        let mut carry = false;
        for word in bytes.as_chunks::<8>().0 {
            (self.words, carry) = self.words.carrying_add(u64::from_le_bytes(*word), carry);
        }
        self.carries += u64::from(carry);
    }

    /// Adds the last `n` bytes of `all`, fewer than eight of them. They stand at
    /// an even distance from the beginning.
    #[inline(always)]
    fn tail(&mut self, all: &[u8], n: usize) {
        if n == 0 {
            return;
        }
        match all.last_chunk::<8>() {
            // One read; what was added before is shifted out.
            Some(last) => self.word(u64::from_le_bytes(*last) >> (64 - 8 * n)),
            None => self.word(few(all)),
        }
    }

    /// True where the sum is all ones: a multiple of 65,535 that is not zero. A
    /// multiplication and a comparison tell, for which no folding is needed.
    #[inline(always)]
    fn is_ones(self) -> bool {
        let (sum, carry) = self.words.overflowing_add(self.carries);
        is_ones_word(sum + u64::from(carry))
    }

    /// Folded to 16 bits.
    #[inline(always)]
    fn fold(self) -> u16 {
        let (sum, carry) = self.words.overflowing_add(self.carries);
        fold(sum + u64::from(carry))
    }
}

/// What 65,535 times it is 1, modulo 2^64.
const INVERSE: u64 = 0xfffe_fffe_fffe_ffff;
const _: () = assert!(INVERSE.wrapping_mul(0xffff) == 1);

/// True for a multiple of 65,535 that is not zero: those, and no others, become by
/// its inverse what they are multiples by, which is small.
#[inline(always)]
pub const fn is_ones_word(sum: u64) -> bool {
    sum != 0 && sum.wrapping_mul(INVERSE) <= u64::MAX / 0xffff
}

/// Folds a sum of 16-bit words to 16 bits. Where its halves change places and are
/// added, the carry of the lower goes into the upper, which is the folded sum.
#[inline(always)]
pub const fn fold(sum: u64) -> u16 {
    fold32((sum.wrapping_add(sum.rotate_left(32)) >> 32) as u32)
}

/// As [`fold`].
#[inline(always)]
pub const fn fold32(sum: u32) -> u16 {
    (sum.wrapping_add(sum.rotate_left(16)) >> 16) as u16
}

/// Bytes that a vector unit sums at once, at most: 32-bit lanes, and their total,
/// hold no more. It is even, so that the sums of parts add up as words.
#[allow(dead_code)] // where there is no vector unit
pub(super) const PART: usize = 1 << 16;

/// The sum of the parts that have these sums.
#[allow(dead_code)] // as above
#[cold]
pub(super) fn in_parts(sums: impl Iterator<Item = u16>) -> u16 {
    fold(sums.map(u64::from).sum())
}

/// Fewer than eight bytes as a word. Some are read twice, and fall together.
#[inline(always)]
fn few(bytes: &[u8]) -> u64 {
    let n = bytes.len();
    if let (Some(first), Some(last)) = (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
        return u64::from(u32::from_le_bytes(*first))
            | u64::from(u32::from_le_bytes(*last)) << (8 * (n - 4));
    }
    let &[first, .., last] = bytes else { return bytes.first().map_or(0, |byte| (*byte).into()) };
    u64::from(first) | u64::from(bytes[n / 2]) << (8 * (n / 2)) | u64::from(last) << (8 * (n - 1))
}

/// Goes on with `acc` through all of `all`.
#[inline(always)]
fn add_all(mut acc: Acc, all: &[u8]) -> Acc {
    let mut rest = all;
    while let Some((block, more)) = rest.split_first_chunk::<64>() {
        acc.chain(block);
        rest = more;
    }
    if let Some((block, more)) = rest.split_first_chunk::<32>() {
        acc.chain(block);
        rest = more;
    }
    if let Some((block, more)) = rest.split_first_chunk::<16>() {
        acc.chain(block);
        rest = more;
    }
    if let Some((block, more)) = rest.split_first_chunk::<8>() {
        acc.chain(block);
        rest = more;
    }
    acc.tail(all, rest.len());
    acc
}

/// True where `bytes` and `plus` sum up to all ones.
#[inline(always)]
pub(super) fn is_ones(bytes: &[u8], plus: u32) -> bool {
    add_all(Acc::new(plus.into()), bytes).is_ones()
}

/// Copies and sums. Both are equally long.
#[inline(always)]
pub(super) fn copy_and_sum(dst: &mut [u8], src: &[u8]) -> u16 {
    let (mut acc, mut to, mut from) = (Acc::default(), &mut *dst, src);
    while copy_block::<64>(&mut acc, &mut to, &mut from) {}
    if from.is_empty() {
        return acc.fold();
    }
    copy_block::<32>(&mut acc, &mut to, &mut from);
    copy_block::<16>(&mut acc, &mut to, &mut from);
    copy_block::<8>(&mut acc, &mut to, &mut from);
    if !from.is_empty() {
        acc.tail(src, from.len());
        // Some bytes twice is less work than any number of them once.
        match (dst.last_chunk_mut::<8>(), src.last_chunk::<8>()) {
            (Some(to), Some(from)) => *to = *from,
            _ => dst.copy_from_slice(src),
        }
    }
    acc.fold()
}

/// Copies by the first and the last block, which may overlap: of the sizes the largest
/// that fits. Both are equally long, and not longer than twice the largest.
#[inline(always)]
pub(super) fn copy_short(dst: &mut [u8], src: &[u8]) {
    let done = dst.len() > 64 && copy_ends::<64>(dst, src)
        || copy_ends::<32>(dst, src)
        || copy_ends::<16>(dst, src)
        || copy_ends::<8>(dst, src)
        || copy_ends::<4>(dst, src);
    if !done {
        for (to, from) in dst.iter_mut().zip(src).take(3) {
            *to = *from;
        }
    }
}

/// Copies the first and the last `N` bytes, if there are so many.
#[inline(always)]
fn copy_ends<const N: usize>(dst: &mut [u8], src: &[u8]) -> bool {
    match (dst.first_chunk_mut::<N>(), src.first_chunk::<N>()) {
        (Some(to), Some(first)) => *to = *first,
        _ => return false,
    }
    match (dst.last_chunk_mut::<N>(), src.last_chunk::<N>()) {
        (Some(to), Some(last)) => *to = *last,
        _ => return false,
    }
    true
}

/// Takes a block of `N` bytes off both, if they are that long.
#[inline(always)]
fn copy_block<const N: usize>(acc: &mut Acc, to: &mut &mut [u8], from: &mut &[u8]) -> bool {
    let Some((block, rest)) = from.split_first_chunk::<N>() else { return false };
    let Some((place, places)) = core::mem::take(to).split_first_chunk_mut::<N>() else {
        return false;
    };
    acc.chain(block);
    *place = *block;
    (*to, *from) = (places, rest);
    true
}

#[inline(always)]
pub(super) fn sum(bytes: &[u8]) -> u16 {
    if bytes.len() < 8 {
        return fold(few(bytes));
    }
    add_all(Acc::default(), bytes).fold()
}
