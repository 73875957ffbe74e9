//! Which of the processor's units does the long sums.

use std::sync::OnceLock;

/// A way to sum. Those that ask for more than every processor has are only handed
/// out where they can run.
#[derive(Debug)]
pub struct Unit {
    pub(super) name: &'static str,
    /// Whether this processor has what the functions ask for.
    pub(super) present: fn() -> bool,
    pub(super) sum: unsafe fn(&[u8]) -> u16,
    /// Both slices must be equally long.
    pub(super) copy_and_sum: unsafe fn(&mut [u8], &[u8]) -> u16,
}

impl Unit {
    /// Its name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// As [`super::sum`], by this unit.
    #[inline]
    pub fn sum(&self, bytes: &[u8]) -> u16 {
        // SAFETY: a unit is only handed out where it is present.
        unsafe { (self.sum)(bytes) }
    }

    /// As [`super::copy_and_sum`], by this unit.
    ///
    /// # Panics
    /// If `dst` is shorter than `src`.
    #[inline]
    pub fn copy_and_sum(&self, dst: &mut [u8], src: &[u8]) -> u16 {
        // SAFETY: as above; both are equally long.
        unsafe { (self.copy_and_sum)(&mut dst[..src.len()], src) }
    }
}

/// What this processor has, the fastest first. The last is the portable one, which
/// there is everywhere.
pub fn units() -> impl Iterator<Item = &'static Unit> {
    super::UNITS.iter().copied().filter(|unit| (unit.present)())
}

static CHOSEN: OnceLock<&'static Unit> = OnceLock::new();

/// The fastest unit.
pub(super) fn chosen() -> &'static Unit {
    CHOSEN.get_or_init(|| units().next().unwrap_or(&super::portable::UNIT))
}

/// The sum by the fastest unit. Not inlined: what is short does not come here, and
/// its callers stay small.
#[inline(never)]
pub(super) fn sum(bytes: &[u8]) -> u16 {
    match CHOSEN.get() {
        Some(unit) => unit.sum(bytes),
        None => first_sum(bytes),
    }
}

/// Copies and sums by the fastest unit.
///
/// # Panics
/// If `dst` is shorter than `src`.
#[inline(never)]
pub(super) fn copy_and_sum(dst: &mut [u8], src: &[u8]) -> u16 {
    match CHOSEN.get() {
        Some(unit) => unit.copy_and_sum(dst, src),
        None => first_copy_and_sum(dst, src),
    }
}

#[cold]
fn first_sum(bytes: &[u8]) -> u16 {
    chosen().sum(bytes)
}

#[cold]
fn first_copy_and_sum(dst: &mut [u8], src: &[u8]) -> u16 {
    chosen().copy_and_sum(dst, src)
}
