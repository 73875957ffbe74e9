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

#[cfg(test)]
mod tests {
    use super::*;

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
