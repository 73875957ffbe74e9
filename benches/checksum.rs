//! The internet checksum: a loop of 16-bit words, what is chosen on this machine,
//! and each unit that it has.
//!
//! ```text
//! cargo bench --bench checksum [-- sum/256]
//! ```
//!
//! One iteration takes 16 packets, as a batch would. Of the loops, `words` loads and
//! adds each word by itself: its words are relaxed atomics, which compilers do not
//! put into vectors. `compiled` is the same loop over bytes, with which the compiler
//! may do what it likes for a processor of the baseline.

#![allow(missing_docs)] // what criterion's macro makes is public

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ringroad::arch;
use std::hint::black_box;
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};
use std::time::Duration;

/// Packets in an iteration.
pub const BATCH: usize = 16;
/// Bytes from one packet to the next, and where in it the sum begins: a segment
/// behind the headers of Ethernet and IPv4.
const STRIDE: usize = 9152;
const AT: usize = 34;

const LENGTHS: [usize; 15] =
    [2, 8, 14, 20, 32, 64, 96, 128, 192, 255, 256, 512, 1024, 1448, 9000];

fn folded(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

#[inline(never)]
fn words(words: &[AtomicU16]) -> u16 {
    folded(words.iter().map(|word| u64::from(word.load(Relaxed))).sum())
}

#[inline(never)]
fn compiled(bytes: &[u8]) -> u16 {
    let (pairs, last) = bytes.as_chunks::<2>();
    let sum: u64 = pairs.iter().map(|pair| u64::from(u16::from_le_bytes(*pair))).sum();
    folded(sum + last.first().map_or(0, |byte| u64::from(*byte)))
}

/// What is copied from, and where to.
pub struct Packets {
    bytes: Vec<u8>,
    space: Vec<u8>,
    words: Vec<AtomicU16>,
}

impl Packets {
    /// Bytes that differ.
    pub fn make() -> Self {
        let byte = |i: usize| (i.wrapping_mul(2_654_435_761) >> 13) as u8;
        let bytes: Vec<u8> = (0..BATCH * STRIDE).map(byte).collect();
        let words = bytes.as_chunks::<2>().0.iter().map(|w| AtomicU16::new(u16::from_le_bytes(*w))).collect();
        Self { space: vec![0; bytes.len()], bytes, words }
    }

    /// Sums so many bytes of each packet.
    pub fn sums(&self, len: usize, sum: impl Fn(&[u8]) -> u16) {
        for packet in self.bytes.chunks(STRIDE) {
            black_box(sum(black_box(&packet[AT..AT + len])));
        }
    }

    /// The same by the loop of words.
    pub fn word_sums(&self, len: usize) {
        for packet in self.words.chunks(STRIDE / 2) {
            black_box(words(black_box(&packet[AT / 2..][..len.div_ceil(2)])));
        }
    }

    /// Copies to where a payload stands behind the largest headers.
    fn copies(&mut self, len: usize, copy: impl Fn(&mut [u8], &[u8]) -> u16) {
        for (to, from) in self.space.chunks_mut(STRIDE).zip(self.bytes.chunks(STRIDE)) {
            black_box(copy(black_box(&mut to[66..66 + len]), black_box(&from[..len])));
        }
    }
}

type Group<'a> = BenchmarkGroup<'a, WallTime>;

fn group<'a>(c: &'a mut Criterion, name: &str, len: usize) -> Group<'a> {
    let mut group = c.benchmark_group(name);
    group.warm_up_time(Duration::from_millis(100)).measurement_time(Duration::from_millis(400));
    group.sample_size(40).throughput(Throughput::Bytes((BATCH * len) as u64));
    group
}

fn sum_arm(group: &mut Group, name: &str, packets: &Packets, len: usize, sum: impl Fn(&[u8]) -> u16) {
    group.bench_function(BenchmarkId::new(name, len), |b| b.iter(|| packets.sums(len, &sum)));
}

fn sums(c: &mut Criterion) {
    let packets = Packets::make();
    for len in LENGTHS {
        let mut group = group(c, "sum", len);
        group.bench_function(BenchmarkId::new("words", len), |b| b.iter(|| packets.word_sums(len)));
        sum_arm(&mut group, "compiled", &packets, len, compiled);
        sum_arm(&mut group, "chosen", &packets, len, arch::sum);
        for unit in arch::units() {
            sum_arm(&mut group, unit.name(), &packets, len, |bytes| unit.sum(bytes));
        }
        group.finish();
    }
}

fn copy_arm(
    group: &mut Group,
    name: &str,
    packets: &mut Packets,
    len: usize,
    copy: impl Fn(&mut [u8], &[u8]) -> u16,
) {
    group.bench_function(BenchmarkId::new(name, len), |b| b.iter(|| packets.copies(len, &copy)));
}

/// A copy by memcpy with a sum after it, of the loop and of ours, beside one pass.
fn copies(c: &mut Criterion) {
    let mut packets = Packets::make();
    for len in LENGTHS {
        let mut group = group(c, "copy", len);
        let after = |sum: fn(&[u8]) -> u16| {
            move |to: &mut [u8], from: &[u8]| {
                to.copy_from_slice(from);
                sum(from)
            }
        };
        copy_arm(&mut group, "compiled", &mut packets, len, after(compiled));
        copy_arm(&mut group, "twice", &mut packets, len, after(arch::sum));
        copy_arm(&mut group, "chosen", &mut packets, len, arch::copy_and_sum);
        for unit in arch::units() {
            copy_arm(&mut group, unit.name(), &mut packets, len, |to, from| unit.copy_and_sum(to, from));
        }
        group.finish();
    }
}

criterion_group!(benches, sums, copies);
criterion_main!(benches);
