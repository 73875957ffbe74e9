//! Sums with AVX2 and AVX-512.
//!
//! Each 16-bit word is moved into the signed range by turning over its highest
//! bit, which takes 32,768 off it; then one instruction adds pairs of words into
//! 32-bit lanes. What was taken off is added back at the end.

use super::portable::{self, Acc};
use core::arch::x86_64::{
    __m128i, __m256i, __m512i, __mmask64, _mm_add_epi32, _mm_add_epi64, _mm_cvtepi32_epi64,
    _mm_cvtsi128_si64, _mm_extract_epi64, _mm_srli_si128, _mm256_add_epi32,
    _mm256_castsi256_si128, _mm256_extracti128_si256, _mm256_loadu_si256, _mm256_madd_epi16,
    _mm256_set1_epi16, _mm256_setzero_si256, _mm256_xor_si256, _mm512_add_epi32,
    _mm512_add_epi64, _mm512_castsi512_si256, _mm512_cvtepi32_epi64, _mm512_extracti64x4_epi64,
    _mm512_loadu_si512, _mm512_madd_epi16, _mm512_maskz_loadu_epi8, _mm512_reduce_add_epi64,
    _mm512_set1_epi16, _mm512_setzero_si512, _mm512_xor_si512,
};

/// Bytes summed at once, at most: 32-bit lanes hold no more.
const PART: usize = 1 << 19;

/// What a word loses by the turn of its highest bit.
const TAKEN_OFF: i64 = 32_768;

pub(super) fn sum(bytes: &[u8]) -> u16 {
    if bytes.len() > PART {
        return long(bytes);
    }
    if is_x86_feature_detected!("avx512bw") {
        // SAFETY: the processor has AVX-512 F and BW (the latter implies the former).
        unsafe { avx512_sum(bytes) }
    } else if is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2.
        unsafe { avx2_sum(bytes) }
    } else {
        portable::sum(bytes)
    }
}

pub(super) fn name() -> &'static str {
    if is_x86_feature_detected!("avx512bw") {
        "AVX-512"
    } else if is_x86_feature_detected!("avx2") {
        "AVX2"
    } else {
        portable::name()
    }
}

#[cold]
fn long(bytes: &[u8]) -> u16 {
    // A part is even, so the parts' sums add up as words.
    let total = bytes.chunks(PART).map(|part| u64::from(sum(part))).sum();
    Acc::new(total).fold()
}

#[inline]
#[target_feature(enable = "avx2")]
fn load256(bytes: &[u8; 32]) -> __m256i {
    // SAFETY: 32 readable bytes; the load asks for no alignment.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2")]
fn add256(acc: __m256i, value: __m256i) -> __m256i {
    let turned = _mm256_xor_si256(value, _mm256_set1_epi16(i16::MIN));
    _mm256_add_epi32(acc, _mm256_madd_epi16(turned, _mm256_set1_epi16(1)))
}

/// Adds up the lanes, and what was taken off `bytes` bytes of words.
#[inline]
#[target_feature(enable = "avx2")]
fn total256(acc: [__m256i; 4], bytes: usize) -> Acc {
    let all = _mm256_add_epi32(_mm256_add_epi32(acc[0], acc[1]), _mm256_add_epi32(acc[2], acc[3]));
    let half: __m128i =
        _mm_add_epi32(_mm256_castsi256_si128(all), _mm256_extracti128_si256::<1>(all));
    let pair = _mm_add_epi64(_mm_cvtepi32_epi64(half), _mm_cvtepi32_epi64(_mm_srli_si128::<8>(half)));
    let total = _mm_cvtsi128_si64(pair) + _mm_extract_epi64::<1>(pair);
    Acc::new((total + bytes as i64 / 2 * TAKEN_OFF) as u64)
}

#[target_feature(enable = "avx2")]
fn avx2_sum(bytes: &[u8]) -> u16 {
    let mut acc = [_mm256_setzero_si256(); 4];
    let (vectors, rest) = bytes.as_chunks::<32>();
    let (fours, last) = vectors.as_chunks::<4>();
    for four in fours {
        for (acc, vector) in acc.iter_mut().zip(four) {
            *acc = add256(*acc, load256(vector));
        }
    }
    for (acc, vector) in acc.iter_mut().zip(last) {
        *acc = add256(*acc, load256(vector));
    }
    portable::finish(total256(acc, bytes.len() - rest.len()), bytes, rest.len())
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn load512(bytes: &[u8; 64]) -> __m512i {
    // SAFETY: 64 readable bytes; the load asks for no alignment.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
}

/// The lanes of the first `n` bytes, fewer than 64.
#[inline]
fn mask(n: usize) -> __mmask64 {
    (1 << n) - 1
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn add512(acc: __m512i, value: __m512i) -> __m512i {
    let turned = _mm512_xor_si512(value, _mm512_set1_epi16(i16::MIN));
    _mm512_add_epi32(acc, _mm512_madd_epi16(turned, _mm512_set1_epi16(1)))
}

/// Adds up the lanes, and what was taken off the words of `vectors` vectors.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn fold512(acc: [__m512i; 4], vectors: usize) -> u16 {
    let all = _mm512_add_epi32(_mm512_add_epi32(acc[0], acc[1]), _mm512_add_epi32(acc[2], acc[3]));
    let low = _mm512_cvtepi32_epi64(_mm512_castsi512_si256(all));
    let high = _mm512_cvtepi32_epi64(_mm512_extracti64x4_epi64::<1>(all));
    let total = _mm512_reduce_add_epi64(_mm512_add_epi64(low, high));
    Acc::new((total + vectors as i64 * 32 * TAKEN_OFF) as u64).fold()
}

#[target_feature(enable = "avx512f,avx512bw")]
fn avx512_sum(bytes: &[u8]) -> u16 {
    let mut acc = [_mm512_setzero_si512(); 4];
    let (vectors, rest) = bytes.as_chunks::<64>();
    let (fours, last) = vectors.as_chunks::<4>();
    for four in fours {
        for (acc, vector) in acc.iter_mut().zip(four) {
            *acc = add512(*acc, load512(vector));
        }
    }
    for (acc, vector) in acc.iter_mut().zip(last) {
        *acc = add512(*acc, load512(vector));
    }
    // SAFETY: only the lanes of `rest`'s bytes are read; the others are zero.
    let value = unsafe { _mm512_maskz_loadu_epi8(mask(rest.len()), rest.as_ptr().cast()) };
    acc[3] = add512(acc[3], value);
    fold512(acc, vectors.len() + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every implementation that this processor has, not only the one chosen.
    #[test]
    fn each_unit_gives_the_portable_sum() {
        let bytes: Vec<u8> = (0..3000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        let ones = vec![0xff; 3000];
        for bytes in [&bytes, &ones] {
            for start in 0..8 {
                for len in (0..700).chain([1460, 1461, 2048, 2992]) {
                    let part = &bytes[start..start + len];
                    let expected = portable::sum(part);
                    if is_x86_feature_detected!("avx2") {
                        // SAFETY: the processor has AVX2.
                        assert_eq!(unsafe { avx2_sum(part) }, expected, "AVX2, {len}");
                    }
                    if is_x86_feature_detected!("avx512bw") {
                        // SAFETY: the processor has AVX-512 F and BW.
                        assert_eq!(unsafe { avx512_sum(part) }, expected, "AVX-512, {len}");
                    }
                }
            }
        }
    }
}
