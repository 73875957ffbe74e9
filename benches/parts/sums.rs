//! Checksums, each beside the loop that defines it.

use criterion::{BenchmarkId, Criterion, Throughput};
use ringroad::arch;
use std::hint::black_box;

/// From the options of a segment to a jumbo frame.
const LENGTHS: [usize; 10] = [20, 40, 64, 128, 256, 512, 1024, 1448, 2992, 9000];

/// Keeps the compiler from making vectors of a loop; it costs nothing.
#[inline(always)]
fn one_by_one(sum: u64) -> u64 {
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    {
        let mut sum = sum;
        // SAFETY: a comment, and no instruction; `sum` may have changed.
        unsafe { std::arch::asm!("/* {0} */", inout(reg) sum, options(pure, nomem, nostack, preserves_flags)) };
        sum
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    black_box(sum)
}

fn fold(mut sum: u64) -> u16 {
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// RFC 1071, 4.1: a word at a time.
fn scalar(bytes: &[u8]) -> u16 {
    let (words, rest) = bytes.as_chunks::<2>();
    let sum = words.iter().fold(0, |sum, w| one_by_one(sum + u64::from(u16::from_le_bytes(*w))));
    fold(sum + rest.first().map_or(0, |b| u64::from(*b)))
}

fn bytes(len: usize) -> Vec<u8> {
    (0..len as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

/// Sums.
pub fn checksum(c: &mut Criterion) {
    let mut group = c.benchmark_group("checksum");
    for len in LENGTHS {
        let bytes = bytes(len);
        assert_eq!(scalar(&bytes), arch::sum(&bytes), "both are the same sum");
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_function(BenchmarkId::new("scalar", len), |b| b.iter(|| scalar(black_box(&bytes))));
        group.bench_function(BenchmarkId::new(arch::name(), len), |b| b.iter(|| arch::sum(black_box(&bytes))));
    }
    group.finish();
}

/// Copies that are summed on the way.
pub fn copy(c: &mut Criterion) {
    let mut group = c.benchmark_group("copy and sum");
    for len in LENGTHS {
        let (bytes, mut to) = (bytes(len), vec![0; len]);
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_function(BenchmarkId::new("memcpy, then scalar", len), |b| {
            b.iter(|| {
                to.copy_from_slice(black_box(&bytes));
                scalar(black_box(&to))
            });
        });
        group.bench_function(BenchmarkId::new(arch::name(), len), |b| {
            b.iter(|| arch::copy_and_sum(black_box(&mut to), black_box(&bytes)));
        });
    }
    group.finish();
}
