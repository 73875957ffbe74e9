//! Which of the processor's units does the long sums.

use core::sync::atomic::AtomicPtr;
use core::sync::atomic::Ordering::Relaxed;

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

/// The unit that sums: at first [`FIRST`], which puts the fastest in its place. A
/// pointer that is always good is asked for nothing but its function.
static CHOSEN: AtomicPtr<Unit> = AtomicPtr::new(core::ptr::from_ref(&FIRST).cast_mut());

static FIRST: Unit = Unit {
    name: "none yet",
    present: || true,
    sum: |bytes| chosen().sum(bytes),
    copy_and_sum: |dst, src| chosen().copy_and_sum(dst, src),
};

/// The fastest unit, which is the one that sums from now on.
#[cold]
pub(super) fn chosen() -> &'static Unit {
    let fastest = units().next().unwrap_or(&super::portable::UNIT);
    // Threads that choose together choose the same.
    CHOSEN.store(core::ptr::from_ref(fastest).cast_mut(), Relaxed);
    fastest
}

#[inline]
fn current() -> &'static Unit {
    // SAFETY: only units that live for ever are stored, and nobody writes to one; they
    // are constants, so that no order of memory is needed to see what is in them.
    unsafe { &*CHOSEN.load(Relaxed) }
}

/// The sum by the fastest unit. Not inlined: what is short does not come here, and
/// its callers stay small.
#[inline(never)]
pub(super) fn sum(bytes: &[u8]) -> u16 {
    current().sum(bytes)
}

/// Copies and sums by the fastest unit.
///
/// # Panics
/// If `dst` is shorter than `src`.
#[inline(never)]
pub(super) fn copy_and_sum(dst: &mut [u8], src: &[u8]) -> u16 {
    current().copy_and_sum(dst, src)
}
