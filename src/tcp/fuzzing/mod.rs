//! The bodies of the fuzz targets: each takes arbitrary bytes for choices and
//! panics where an invariant breaks. libFuzzer runs them through `fuzz/`
//! (`scripts/fuzz`); a short run over random bytes is a test like any other.
//! Built for fuzzing and tests only.

mod bench;
mod numbers;
mod options;
pub(super) mod packet;
mod queues;
mod state_machine;

pub use numbers::seq_arithmetic;
pub use options::tcp_options;
pub use queues::{reassembly, sack_scoreboard};
pub use state_machine::state_machine;

/// Choices made by the fuzzer's bytes. Beyond their end every choice is zero.
#[derive(Debug)]
pub struct Choices<'a>(&'a [u8]);

impl<'a> Choices<'a> {
    /// The choices that these bytes make.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// True where all bytes are used up.
    pub fn is_done(&self) -> bool {
        self.0.is_empty()
    }

    /// A byte.
    pub fn byte(&mut self) -> u8 {
        let (&first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        first
    }

    /// 16 bits.
    pub fn short(&mut self) -> u16 {
        u16::from_be_bytes([self.byte(), self.byte()])
    }

    /// 32 bits.
    pub fn word(&mut self) -> u32 {
        u32::from(self.short()) << 16 | u32::from(self.short())
    }

    /// A number in `0..n` (`n` up to 65,536, not zero).
    pub fn below(&mut self, n: u32) -> u32 {
        let choice: u32 = if n <= 256 { self.byte().into() } else { self.short().into() };
        choice % n
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: u32) -> bool {
        // Zero is what absent bytes choose: the plain case.
        self.below(n) == n - 1
    }

    /// One of these.
    pub fn pick<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len() as u32) as usize]
    }

    /// Up to `n` of the bytes as they are.
    pub fn take(&mut self, n: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(n.min(self.0.len()));
        self.0 = rest;
        taken
    }
}

/// Runs a body over random bytes: `count` inputs of up to `longest` bytes.
#[cfg(test)]
pub(crate) fn try_random(body: fn(&[u8]), count: u64, longest: u32) {
    for seed in 0..count {
        let mut rng = crate::rng::Rng::new(seed);
        let len = rng.below(longest) + 1;
        let bytes: Vec<u8> = (0..len).map(|_| rng.next_u32() as u8).collect();
        let tried = std::panic::catch_unwind(|| body(&bytes));
        assert!(tried.is_ok(), "the input of seed {seed} (of up to {longest} bytes) fails");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_bytes_make_the_option_parser_stumble() {
        try_random(tcp_options, 20_000, 64);
    }

    #[test]
    fn sequence_numbers_keep_their_order_whatever_they_are() {
        try_random(seq_arithmetic, 20_000, 32);
    }

    #[test]
    fn reassembly_gives_the_stream_back_whatever_comes() {
        try_random(reassembly, 3000, 600);
    }

    #[test]
    fn the_scoreboard_stays_true_whatever_the_peer_claims() {
        try_random(sack_scoreboard, 1500, 600);
    }

    #[test]
    fn no_segments_calls_and_times_break_a_connection() {
        try_random(state_machine, 1500, 1500);
    }

    #[test]
    fn choices_come_from_the_bytes_and_then_are_zero() {
        let mut choices = Choices::new(&[1, 2, 3, 200, 9]);
        assert_eq!((choices.byte(), choices.short(), choices.below(7)), (1, 0x0203, 200 % 7));
        assert_eq!((choices.take(9), choices.is_done(), choices.word()), (&[9u8][..], true, 0));
        assert!(!choices.one_in(2) && choices.pick(&['a', 'b']) == 'a');
    }
}
