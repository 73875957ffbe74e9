//! Sums with NEON, which every AArch64 processor has: one instruction adds pairs
//! of 16-bit words into 32-bit lanes.

use super::portable::{self, PART, fold, in_parts};
use super::unit::Unit;
use core::arch::aarch64::{
    uint32x4_t, vaddlvq_u32, vaddq_u32, vdupq_n_u32, vld1q_u8, vpadalq_u16, vreinterpretq_u16_u8,
    vst1q_u8,
};
use core::ptr::null_mut;

pub(super) static NEON: Unit = Unit { name: "NEON", present: || true, sum, copy_and_sum };

fn sum(bytes: &[u8]) -> u16 {
    if bytes.len() > PART {
        return in_parts(bytes.chunks(PART).map(sum));
    }
    let whole = bytes.len() & !15;
    // SAFETY: so many bytes are readable.
    let total = unsafe { vectors::<false>(null_mut(), bytes.as_ptr(), whole) };
    fold(total + u64::from(portable::sum(&bytes[whole..])))
}

/// # Safety
/// Both are equally long.
unsafe fn copy_and_sum(dst: &mut [u8], src: &[u8]) -> u16 {
    if src.len() > PART {
        let parts = dst.chunks_mut(PART).zip(src.chunks(PART));
        // SAFETY: both are cut alike.
        return in_parts(parts.map(|(to, from)| unsafe { copy_and_sum(to, from) }));
    }
    let whole = src.len() & !15;
    // SAFETY: so many bytes are readable, and as many writable.
    let total = unsafe { vectors::<true>(dst.as_mut_ptr(), src.as_ptr(), whole) };
    fold(total + u64::from(portable::copy_and_sum(&mut dst[whole..], &src[whole..])))
}

/// Adds the words of `N` vectors, which it copies to `to` if so asked.
///
/// # Safety
/// `from` is readable and, if `COPY`, `to` writable for `N` times 16 bytes.
#[inline(always)]
unsafe fn block<const COPY: bool, const N: usize>(
    mut acc: [uint32x4_t; 4],
    to: *mut u8,
    from: *const u8,
) -> [uint32x4_t; 4] {
    for i in 0..N {
        // SAFETY: as the caller says; neither asks for alignment, and NEON is part
        // of AArch64.
        unsafe {
            let value = vld1q_u8(from.add(16 * i));
            if COPY {
                vst1q_u8(to.add(16 * i), value);
            }
            acc[i] = vpadalq_u16(acc[i], vreinterpretq_u16_u8(value));
        }
    }
    acc
}

/// Sums `len` bytes, whole vectors and at most a part, and copies them if so asked.
///
/// # Safety
/// `from` is readable and, if `COPY`, `to` writable for `len` bytes.
#[inline(always)]
unsafe fn vectors<const COPY: bool>(to: *mut u8, from: *const u8, len: usize) -> u64 {
    let mut at = 0;
    // SAFETY: all that is read and written lies before `len`; NEON is part of
    // AArch64.
    unsafe {
        let mut acc = [vdupq_n_u32(0); 4];
        while len - at >= 64 {
            acc = block::<COPY, 4>(acc, to.wrapping_add(at), from.add(at));
            at += 64;
        }
        // No loop: the compiler would make a call to memcpy of it.
        if len - at >= 32 {
            acc = block::<COPY, 2>(acc, to.wrapping_add(at), from.add(at));
            at += 32;
        }
        if len - at >= 16 {
            acc = block::<COPY, 1>(acc, to.wrapping_add(at), from.add(at));
        }
        vaddlvq_u32(vaddq_u32(vaddq_u32(acc[0], acc[1]), vaddq_u32(acc[2], acc[3])))
    }
}
