//! Sums with plain 64-bit additions: for short runs everywhere, and for all where
//! there is no vector unit.

/// A sum on its way: 64-bit words with the carries beside them.
#[derive(Clone, Copy, Default)]
pub(super) struct Acc {
    words: u64,
    carries: u64,
}

impl Acc {
    /// From what a vector unit summed.
    pub(super) fn new(words: u64) -> Self {
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
    pub(super) fn tail(&mut self, all: &[u8], n: usize) {
        if n == 0 {
            return;
        }
        if let Some(last) = all.last_chunk::<8>() {
            // One read; what was added before is shifted out.
            return self.word(u64::from_le_bytes(*last) >> (64 - 8 * n));
        }
        let mut rest = all;
        if let Some((four, more)) = rest.split_first_chunk::<4>() {
            self.word(u32::from_le_bytes(*four).into());
            rest = more;
        }
        if let Some((two, more)) = rest.split_first_chunk::<2>() {
            self.word(u16::from_le_bytes(*two).into());
            rest = more;
        }
        if let [last] = rest {
            self.word((*last).into());
        }
    }

    /// True where the sum is all ones: a multiple of 65,535 that is not zero. A
    /// multiplication and a comparison tell, for which no folding is needed.
    #[inline(always)]
    fn is_ones(self) -> bool {
        let (sum, carry) = self.words.overflowing_add(self.carries);
        let sum = sum + u64::from(carry);
        sum != 0 && sum.is_multiple_of(0xffff)
    }

    /// Folded to 16 bits.
    #[inline(always)]
    pub(super) fn fold(self) -> u16 {
        let v = (self.words & 0xffff_ffff) + (self.words >> 32) + self.carries;
        let v = (v & 0xffff) + (v >> 16 & 0xffff) + (v >> 32);
        let v = (v & 0xffff) + (v >> 16);
        ((v & 0xffff) + (v >> 16)) as u16
    }
}

/// Goes on with `acc` through the last `n` bytes of `all`.
#[inline(always)]
pub(super) fn finish(acc: Acc, all: &[u8], n: usize) -> u16 {
    add_last(acc, all, n).fold()
}

#[inline(always)]
fn add_last(mut acc: Acc, all: &[u8], n: usize) -> Acc {
    let mut rest = &all[all.len() - n..];
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
    add_last(Acc::new(plus.into()), bytes, bytes.len()).is_ones()
}

/// Copies and sums. Both are equally long.
#[inline(always)]
pub(super) fn copy_and_sum(dst: &mut [u8], src: &[u8]) -> u16 {
    let (mut acc, mut to, mut from) = (Acc::default(), &mut *dst, src);
    while copy_block::<64>(&mut acc, &mut to, &mut from) {}
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
    finish(Acc::default(), bytes, bytes.len())
}

#[allow(dead_code)] // where there is no vector unit, this is its name
pub(super) fn name() -> &'static str {
    "portable"
}
