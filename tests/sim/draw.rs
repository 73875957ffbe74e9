//! Draws from a seed.

use ringroad::rng::Rng;
use ringroad::time::Duration;

/// A generator with the draws that scenarios and programs need.
#[derive(Debug)]
pub struct Draw(Rng);

impl Draw {
    pub fn new(seed: u64) -> Self {
        Self(Rng::new(seed))
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.0.next_u64() % n.max(1)
    }

    pub fn between(&mut self, from: u64, to: u64) -> u64 {
        from + self.below(to.saturating_sub(from) + 1)
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// Up to `2^bits`, small values as likely as large ones.
    pub fn spread(&mut self, bits: u64) -> u64 {
        let bits = self.between(0, bits);
        self.below(1 << bits)
    }

    /// From nearly nothing to `most`.
    pub fn probability(&mut self, most: f64) -> f64 {
        (1 + self.below(1000)) as f64 / 1000.0 * most
    }

    pub fn pick<T: Clone>(&mut self, all: &[T]) -> T {
        all[self.below(all.len() as u64) as usize].clone()
    }

    pub fn millis(&mut self, most: u64) -> Duration {
        Duration::from_micros(self.below(most * 1000 + 1))
    }
}

/// Word number `n` of a stream of bytes that follows from `key`.
fn word(key: u64, n: u64) -> u64 {
    let mut x = key.wrapping_add(n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 31
}

/// Writes the bytes of a stream from its byte number `at`.
pub fn fill(key: u64, at: u64, out: &mut [u8]) {
    let skip = (at % 8) as usize;
    let mut n = at / 8;
    let (head, rest) = out.split_at_mut(out.len().min((8 - skip) % 8));
    if !head.is_empty() {
        head.copy_from_slice(&word(key, n).to_le_bytes()[skip..skip + head.len()]);
        n += 1;
    }
    let mut words = rest.chunks_exact_mut(8);
    for out in &mut words {
        out.copy_from_slice(&word(key, n).to_le_bytes());
        n += 1;
    }
    let tail = words.into_remainder();
    let len = tail.len();
    tail.copy_from_slice(&word(key, n).to_le_bytes()[..len]);
}

#[test]
fn a_stream_has_the_same_bytes_in_any_pieces() {
    let (mut whole, mut pieces) = ([0; 1000], [0; 1000]);
    fill(7, 3, &mut whole);
    let mut d = Draw::new(1);
    let mut at = 0;
    while at < whole.len() {
        let n = (d.between(1, 20) as usize).min(whole.len() - at);
        fill(7, 3 + at as u64, &mut pieces[at..at + n]);
        at += n;
    }
    assert_eq!(whole, pieces);
}
