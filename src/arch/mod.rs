//! The processor: sums with its vector instructions, chosen at run time, and
//! prefetching. What is unsafe about them stays in here.
//!
//! A sum here is the one's complement sum of little-endian 16-bit words, folded
//! to 16 bits. An odd last byte counts as if a zero followed.

#[cfg(target_arch = "aarch64")]
mod aarch64;
mod portable;
mod unit;
#[cfg(target_arch = "x86_64")]
mod x86;

pub use portable::{fold, fold32};
pub use unit::{Unit, units};

/// The units there may be, the fastest first.
static UNITS: &[&Unit] = &[
    #[cfg(target_arch = "x86_64")]
    &x86::AVX512,
    #[cfg(target_arch = "x86_64")]
    &x86::AVX2,
    #[cfg(target_arch = "aarch64")]
    &aarch64::NEON,
    &portable::UNIT,
];

/// From this many bytes up the vector units are asked: below, a call to them
/// costs more than it saves.
const WIDE: usize = 128;

/// The sum of `bytes`.
#[inline]
pub fn sum(bytes: &[u8]) -> u16 {
    if bytes.len() < WIDE { portable::sum(bytes) } else { unit::sum(bytes) }
}

/// As [`sum`], for at most [`SHORT`] bytes: put into the caller, and without a call.
///
/// # Panics
/// If there are more.
#[inline(always)]
pub fn sum_short(bytes: &[u8]) -> u16 {
    assert!(bytes.len() <= SHORT, "not a short sum");
    portable::sum(bytes)
}

/// True where the sum of `bytes` and `plus` is all ones, as it is where a
/// checksum among them is right.
#[inline(always)]
pub fn is_ones(bytes: &[u8], plus: u32) -> bool {
    if bytes.len() < WIDE {
        return portable::is_ones(bytes, plus);
    }
    let sum = u64::from(unit::sum(bytes)) + u64::from(plus);
    portable::is_ones_word(sum)
}

/// Copies `src` to the front of `dst` and gives its sum, going over memory once.
///
/// # Panics
/// If `dst` is shorter than `src`.
#[inline]
pub fn copy_and_sum(dst: &mut [u8], src: &[u8]) -> u16 {
    if src.len() <= SHORT {
        return portable::copy_and_sum(&mut dst[..src.len()], src);
    }
    unit::copy_and_sum(dst, src)
}

/// Up to so many bytes the vector units are not asked to copy, as with [`WIDE`].
pub const SHORT: usize = 96;

/// As [`copy_and_sum`], for at most [`SHORT`] bytes: put into the caller, and without a
/// call, so that a caller that makes none itself need not save a register.
///
/// # Panics
/// If `dst` is shorter than `src`.
#[inline(always)]
pub fn copy_and_sum_short(dst: &mut [u8], src: &[u8]) -> u16 {
    portable::copy_and_sum(&mut dst[..src.len()], src)
}

/// Bytes that [`copy_short`] copies at most.
pub const SHORT_COPY: usize = 128;

/// Copies at most [`SHORT_COPY`] bytes: put into the caller, without a call or a loop.
/// Some 15 instructions for 64 bytes, as the call of memcpy alone.
///
/// # Panics
/// If `dst` is longer than that, or not as long as `src`.
#[inline(always)]
pub fn copy_short(dst: &mut [u8], src: &[u8]) {
    assert!(dst.len() <= SHORT_COPY, "not a short copy");
    assert!(dst.len() == src.len(), "a copy of another length");
    portable::copy_short(dst, &src[..dst.len()]); // one length, for the compiler
}

/// Asks the processor to bring the line that `value` begins in into its first
/// cache. It changes nothing else, whatever `value` is.
#[inline(always)]
pub fn prefetch<T: ?Sized>(value: &T) {
    prefetch_at(core::ptr::from_ref(value).cast::<u8>());
}

/// Bytes of a line of the caches.
const LINE: usize = 64;

#[inline(always)]
fn prefetch_at(address: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch of any address has no effect but on the cache; the
    // instruction is part of x86-64.
    unsafe {
        core::arch::x86_64::_mm_prefetch::<{ core::arch::x86_64::_MM_HINT_T0 }>(address.cast());
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: as above; the instruction is part of AArch64, and changes neither
    // memory nor flags.
    unsafe {
        core::arch::asm!("prfm pldl1keep, [{0}]", in(reg) address, options(nostack, readonly, preserves_flags));
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = address;
}

/// As [`prefetch`], with every line that the first `bytes` of `value` lie in.
#[inline(always)]
pub fn prefetch_front<T>(value: &T, bytes: usize) {
    let address = core::ptr::from_ref(value).cast::<u8>();
    for at in (0..bytes).step_by(LINE) {
        prefetch_at(address.wrapping_add(at));
    }
    // One that does not begin with a line may end in a further one.
    if align_of::<T>() < LINE {
        prefetch_at(address.wrapping_add(bytes.saturating_sub(1)));
    }
}

/// The name of what sums long runs of bytes on this machine.
pub fn name() -> &'static str {
    unit::chosen().name()
}

#[cfg(test)]
mod tests;
