//! Random numbers from a seed: everything the core chooses by chance (initial
//! sequence numbers, ports, IP identifiers, hash keys) comes from here, so that
//! the same seed gives the same bytes.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// A generator whose output cannot be predicted from what it gave before
/// (ChaCha with 8 rounds). As secret as its seed.
#[derive(Clone, Debug)]
pub struct Rng(ChaCha8Rng);

impl Rng {
    /// The generator of this seed.
    pub fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    /// 32 random bits.
    #[inline]
    pub fn next_u32(&mut self) -> u32 {
        self.0.next_u32()
    }

    /// 64 random bits.
    #[inline]
    pub fn next_u64(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A number in `0..n`, each as likely as the next to within 2^-32.
    ///
    /// # Panics
    /// If `n` is zero.
    pub fn below(&mut self, n: u32) -> u32 {
        assert!(n > 0, "there is no number below 0");
        // Multiply and shift: the bias is under n / 2^64.
        ((u128::from(self.next_u64()) * u128::from(n)) >> 64) as u32
    }

    /// The key of a keyed hash (SipHash): flow tables, sequence numbers, ports.
    pub fn key(&mut self) -> [u8; 16] {
        let mut key = [0; 16];
        self.0.fill_bytes(&mut key);
        key
    }
}

/// SipHash of whole words and half a one, with `C` rounds for each word and `D` to finish.
/// (The crate's hasher takes bytes one write after another; where packets wait for it the
/// words are at hand.) The half shares the last block with the length.
#[inline(always)]
pub fn sip<const C: usize, const D: usize, const N: usize>(key: (u64, u64), words: [u64; N], last: u32) -> u64 {
    let mut v = [
        key.0 ^ 0x736f_6d65_7073_6575,
        key.1 ^ 0x646f_7261_6e64_6f6d,
        key.0 ^ 0x6c79_6765_6e65_7261,
        key.1 ^ 0x7465_6462_7974_6573,
    ];
    for m in words {
        take::<C>(&mut v, m);
    }
    take::<C>(&mut v, ((N as u64 * 8 + 4) << 56) | u64::from(last));
    v[2] ^= 0xff;
    for _ in 0..D {
        round(&mut v);
    }
    v[0] ^ v[1] ^ v[2] ^ v[3]
}

#[inline(always)]
fn take<const C: usize>(v: &mut [u64; 4], m: u64) {
    v[3] ^= m;
    for _ in 0..C {
        round(v);
    }
    v[0] ^= m;
}

#[inline(always)]
fn round(v: &mut [u64; 4]) {
    v[0] = v[0].wrapping_add(v[1]);
    v[2] = v[2].wrapping_add(v[3]);
    v[1] = v[1].rotate_left(13) ^ v[0];
    v[3] = v[3].rotate_left(16) ^ v[2];
    v[0] = v[0].rotate_left(32);
    v[2] = v[2].wrapping_add(v[1]);
    v[0] = v[0].wrapping_add(v[3]);
    v[1] = v[1].rotate_left(17) ^ v[2];
    v[3] = v[3].rotate_left(21) ^ v[0];
    v[2] = v[2].rotate_left(32);
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::hash::Hasher;

    #[test]
    fn whole_words_hash_as_the_crate_hashes_their_bytes() {
        let (a, b) = (0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210);
        for words in [[1u64, 2], [0, 0], [u64::MAX, 0x0123_4567_89ab_cdef]] {
            let mut one = siphasher::sip::SipHasher13::new_with_keys(a, b);
            let mut two = siphasher::sip::SipHasher24::new_with_keys(a, b);
            for w in words.map(u64::to_le_bytes) {
                one.write(&w);
                two.write(&w);
            }
            let half = 0x89ab_cdef_u32;
            one.write(&half.to_le_bytes());
            two.write(&half.to_le_bytes());
            assert_eq!(sip::<1, 3, 2>((a, b), words, half), one.finish());
            assert_eq!(sip::<2, 4, 2>((a, b), words, half), two.finish());
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_numbers() {
        let (mut a, mut b, mut c) = (Rng::new(7), Rng::new(7), Rng::new(8));
        let numbers = |r: &mut Rng| (r.next_u32(), r.next_u64(), r.below(10), r.key());
        let first = numbers(&mut a);
        assert_eq!(first, numbers(&mut b));
        assert_ne!(first, numbers(&mut c));
    }

    #[test]
    fn below_reaches_every_number_and_no_other() {
        let mut rng = Rng::new(1);
        let mut seen = [0u32; 7];
        for _ in 0..7000 {
            seen[rng.below(7) as usize] += 1;
        }
        assert!(seen.iter().all(|&n| n > 800 && n < 1200), "{seen:?}");
        assert_eq!(rng.below(1), 0);
    }
}
