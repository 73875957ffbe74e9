//! Sums with NEON, which every AArch64 processor has: one instruction adds pairs
//! of 16-bit words into 32-bit lanes.

use super::portable::{self, Acc};
use core::arch::aarch64::{
    uint32x4_t, vaddlvq_u32, vdupq_n_u32, vld1q_u8, vpadalq_u16, vreinterpretq_u16_u8,
};

/// Bytes summed at once, at most: 32-bit lanes hold no more.
const PART: usize = 1 << 19;

pub(super) fn sum(bytes: &[u8]) -> u16 {
    if bytes.len() > PART {
        return long(bytes);
    }
    // SAFETY: NEON is part of AArch64.
    let mut acc = unsafe { [vdupq_n_u32(0); 4] };
    let (vectors, rest) = bytes.as_chunks::<16>();
    for (i, vector) in vectors.iter().enumerate() {
        let acc = &mut acc[i % 4];
        // SAFETY: 16 readable bytes; NEON is part of AArch64.
        *acc = unsafe { vpadalq_u16(*acc, vreinterpretq_u16_u8(vld1q_u8(vector.as_ptr()))) };
    }
    portable::finish(total(acc), bytes, rest.len())
}

fn total(acc: [uint32x4_t; 4]) -> Acc {
    // SAFETY: NEON is part of AArch64.
    Acc::new(acc.into_iter().map(|lanes| unsafe { vaddlvq_u32(lanes) }).sum())
}

#[cold]
fn long(bytes: &[u8]) -> u16 {
    // A part is even, so the parts' sums add up as words.
    let total = bytes.chunks(PART).map(|part| u64::from(sum(part))).sum();
    Acc::new(total).fold()
}

pub(super) fn name() -> &'static str {
    "NEON"
}
