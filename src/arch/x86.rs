//! Sums with AVX2 and AVX-512.
//!
//! Each 16-bit word is moved into the signed range by turning over its highest
//! bit, which takes 32,768 off it; then one instruction adds pairs of words into
//! 32-bit lanes. What was taken off is added back at the end. With AVX-512 that
//! instruction is one that adds to what is there already (VNNI); the few processors
//! that lack it run slower while their 512-bit units are on, and take AVX2.

use super::portable::{self, PART, fold32, in_parts};
use super::unit::Unit;
use core::arch::x86_64::{
    __m128i, __m256i, __m512i, __mmask64, _mm_add_epi32, _mm_cvtsi128_si32, _mm_shuffle_epi32,
    _mm256_add_epi32, _mm256_and_si256, _mm256_castsi256_si128, _mm256_extracti128_si256,
    _mm256_loadu_si256, _mm256_madd_epi16, _mm256_set1_epi16, _mm256_setzero_si256,
    _mm256_storeu_si256, _mm256_xor_si256, _mm512_add_epi32, _mm512_castsi512_si256, _mm512_dpwssd_epi32,
    _mm512_extracti64x4_epi64, _mm512_loadu_si512, _mm512_mask_storeu_epi8,
    _mm512_maskz_loadu_epi8, _mm512_set1_epi16, _mm512_setzero_si512, _mm512_storeu_si512,
    _mm512_xor_si512,
};
use core::ptr::null_mut;

pub(super) static AVX2: Unit = Unit {
    name: "AVX2",
    present: || is_x86_feature_detected!("avx2"),
    sum: avx2_sum,
    copy_and_sum: avx2_copy_and_sum,
};

pub(super) static AVX512: Unit = Unit {
    name: "AVX-512",
    // F is part of BW.
    present: || {
        is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vnni")
            && is_x86_feature_detected!("bmi2")
    },
    sum: avx512_sum,
    copy_and_sum: avx512_copy_and_sum,
};

/// What a word loses by the turn of its highest bit.
const TAKEN_OFF: u32 = 32_768;

/// Adds up four lanes, and what was taken off `words` words. A [`PART`] fits.
#[inline]
#[target_feature(enable = "avx2")]
fn total(lanes: __m128i, words: usize) -> u32 {
    let pair = _mm_add_epi32(lanes, _mm_shuffle_epi32::<0b00_00_11_10>(lanes));
    let all = _mm_add_epi32(pair, _mm_shuffle_epi32::<0b00_00_00_01>(pair));
    (_mm_cvtsi128_si32(all) as u32).wrapping_add(words as u32 * TAKEN_OFF)
}

/// Zeros and then ones: from byte n on, a mask of the last n of 32 bytes.
static LAST: [u8; 64] = {
    let mut bytes = [0; 64];
    let mut i = 32;
    while i < 64 {
        bytes[i] = 0xff;
        i += 1;
    }
    bytes
};

#[inline]
#[target_feature(enable = "avx2")]
fn add256(acc: __m256i, value: __m256i) -> __m256i {
    let turned = _mm256_xor_si256(value, _mm256_set1_epi16(i16::MIN));
    _mm256_add_epi32(acc, _mm256_madd_epi16(turned, _mm256_set1_epi16(1)))
}

/// Adds the words of `N` vectors, which it copies to `to` if so asked.
///
/// # Safety
/// `from` is readable and, if `COPY`, `to` writable for `N` times 32 bytes.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn block256<const COPY: bool, const N: usize>(
    mut acc: [__m256i; 2],
    to: *mut u8,
    from: *const u8,
) -> [__m256i; 2] {
    for i in 0..N {
        // SAFETY: as the caller says; neither asks for alignment.
        unsafe {
            let value = _mm256_loadu_si256(from.add(32 * i).cast());
            if COPY {
                _mm256_storeu_si256(to.add(32 * i).cast(), value);
            }
            acc[i % 2] = add256(acc[i % 2], value);
        }
    }
    acc
}

/// Sums `len` bytes, at least 32 and at most a part, and copies them if so asked.
///
/// # Safety
/// `from` is readable and, if `COPY`, `to` writable for `len` bytes.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn part256<const COPY: bool>(to: *mut u8, from: *const u8, len: usize) -> u16 {
    let (mut acc, mut at, even) = ([_mm256_setzero_si256(); 2], 0, len & !1);
    let (mut words, mut odd) = (len / 32 * 16, 0);
    // SAFETY: all that is read and written lies before `len`: `at` goes up to where
    // no vector fits any more, and there are 32 bytes before `even`.
    unsafe {
        while len - at >= 128 {
            acc = block256::<COPY, 4>(acc, to.wrapping_add(at), from.add(at));
            at += 128;
        }
        // No loop: the compiler would make a call to memcpy of it.
        if len - at >= 64 {
            acc = block256::<COPY, 2>(acc, to.wrapping_add(at), from.add(at));
            at += 64;
        }
        if len - at >= 32 {
            acc = block256::<COPY, 1>(acc, to.wrapping_add(at), from.add(at));
            at += 32;
        }
        if at < even {
            // Read together with bytes before it, which do not count again.
            let last = _mm256_loadu_si256(from.add(even - 32).cast());
            if COPY {
                _mm256_storeu_si256(to.add(even - 32).cast(), last);
            }
            let mask = _mm256_loadu_si256(LAST.as_ptr().add(even - at).cast());
            acc[1] = add256(acc[1], _mm256_and_si256(last, mask));
            words += 16;
        }
        if even < len {
            odd = *from.add(even);
            if COPY {
                *to.add(even) = odd;
            }
        }
    }
    let all = _mm256_add_epi32(acc[0], acc[1]);
    let half = _mm_add_epi32(_mm256_castsi256_si128(all), _mm256_extracti128_si256::<1>(all));
    fold32(total(half, words) + u32::from(odd))
}

#[target_feature(enable = "avx2")]
fn avx2_sum(bytes: &[u8]) -> u16 {
    match bytes.len() {
        0..32 => portable::sum(bytes),
        // SAFETY: so many bytes are readable.
        32..=PART => unsafe { part256::<false>(null_mut(), bytes.as_ptr(), bytes.len()) },
        _ => in_parts(bytes.chunks(PART).map(|part| avx2_sum(part))),
    }
}

/// # Safety
/// Both are equally long.
#[target_feature(enable = "avx2")]
unsafe fn avx2_copy_and_sum(dst: &mut [u8], src: &[u8]) -> u16 {
    match src.len() {
        0..32 => portable::copy_and_sum(dst, src),
        // SAFETY: so many bytes are readable, and as many writable.
        32..=PART => unsafe { part256::<true>(dst.as_mut_ptr(), src.as_ptr(), src.len()) },
        _ => {
            let parts = dst.chunks_mut(PART).zip(src.chunks(PART));
            // SAFETY: both are cut alike.
            in_parts(parts.map(|(to, from)| unsafe { avx2_copy_and_sum(to, from) }))
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni,bmi2")]
fn add512(acc: __m512i, value: __m512i) -> __m512i {
    let turned = _mm512_xor_si512(value, _mm512_set1_epi16(i16::MIN));
    _mm512_dpwssd_epi32(acc, turned, _mm512_set1_epi16(1))
}

/// Adds the words of `N` vectors, which it copies to `to` if so asked.
///
/// # Safety
/// `from` is readable and, if `COPY`, `to` writable for `N` times 64 bytes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni,bmi2")]
unsafe fn block512<const COPY: bool, const N: usize>(
    mut acc: [__m512i; 2],
    to: *mut u8,
    from: *const u8,
) -> [__m512i; 2] {
    for i in 0..N {
        // SAFETY: as the caller says; neither asks for alignment.
        unsafe {
            let value = _mm512_loadu_si512(from.add(64 * i).cast());
            if COPY {
                _mm512_storeu_si512(to.add(64 * i).cast(), value);
            }
            acc[i % 2] = add512(acc[i % 2], value);
        }
    }
    acc
}

/// Sums `len` bytes, at most a part, and copies them if so asked.
///
/// # Safety
/// `from` is readable and, if `COPY`, `to` writable for `len` bytes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni,bmi2")]
unsafe fn part512<const COPY: bool>(to: *mut u8, from: *const u8, len: usize) -> u16 {
    let (mut acc, mut at) = ([_mm512_setzero_si512(); 2], 0);
    // SAFETY: all that is read and written lies before `len`: `at` goes up to where
    // no vector fits any more, and then only the lanes of the rest are touched.
    unsafe {
        while len - at >= 256 {
            acc = block512::<COPY, 4>(acc, to.wrapping_add(at), from.add(at));
            at += 256;
        }
        // No loop: the compiler would make a call to memcpy of it.
        if len - at >= 128 {
            acc = block512::<COPY, 2>(acc, to.wrapping_add(at), from.add(at));
            at += 128;
        }
        if len - at >= 64 {
            acc = block512::<COPY, 1>(acc, to.wrapping_add(at), from.add(at));
            at += 64;
        }
        // Not without need: where nothing is mapped, a store of no lane is slow.
        if at < len {
            let lanes: __mmask64 = !(!0 << (len - at));
            let last = _mm512_maskz_loadu_epi8(lanes, from.add(at).cast());
            if COPY {
                _mm512_mask_storeu_epi8(to.add(at).cast(), lanes, last);
            }
            acc[1] = add512(acc[1], last);
        }
    }
    let acc = _mm512_add_epi32(acc[0], acc[1]);
    let half = _mm256_add_epi32(_mm512_castsi512_si256(acc), _mm512_extracti64x4_epi64::<1>(acc));
    let quarter = _mm_add_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256::<1>(half));
    fold32(total(quarter, len.div_ceil(64) * 32))
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni,bmi2")]
fn avx512_sum(bytes: &[u8]) -> u16 {
    if bytes.len() > PART {
        return avx512_sum_parts(bytes);
    }
    // SAFETY: so many bytes are readable.
    unsafe { part512::<false>(null_mut(), bytes.as_ptr(), bytes.len()) }
}

/// Apart from the sum of one, which needs no stack.
#[cold]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni,bmi2")]
fn avx512_sum_parts(bytes: &[u8]) -> u16 {
    in_parts(bytes.chunks(PART).map(|part| avx512_sum(part)))
}

/// # Safety
/// Both are equally long.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni,bmi2")]
unsafe fn avx512_copy_and_sum(dst: &mut [u8], src: &[u8]) -> u16 {
    if src.len() > PART {
        let parts = dst.chunks_mut(PART).zip(src.chunks(PART));
        // SAFETY: both are cut alike.
        return in_parts(parts.map(|(to, from)| unsafe { avx512_copy_and_sum(to, from) }));
    }
    // SAFETY: so many bytes are readable, and as many writable.
    unsafe { part512::<true>(dst.as_mut_ptr(), src.as_ptr(), src.len()) }
}
