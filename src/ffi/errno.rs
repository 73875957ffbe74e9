//! How a call fails in C: -1 (or a null pointer), the number in `errno`, and,
//! where a number says too little, a sentence for `rr_strerror`.

use crate::errno::{Errno, Result};
use core::cell::{Cell, RefCell};
use core::ffi::{CStr, c_char, c_int};
use std::ffi::CString;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What a C function gives back when it fails.
pub(super) trait Failed {
    /// The value that says so.
    const FAILED: Self;
}

impl Failed for c_int {
    const FAILED: Self = -1;
}

impl Failed for isize {
    const FAILED: Self = -1;
}

impl<T> Failed for *mut T {
    const FAILED: Self = core::ptr::null_mut();
}

/// How far the sentence of this thread's last failure has got.
#[derive(Clone, Copy, PartialEq)]
enum Sentence {
    /// There is none.
    None,
    /// Written by the call that is about to fail.
    Fresh,
    /// That call has failed with the number kept here.
    Of(Errno),
}

thread_local! {
    static SENTENCE: Cell<Sentence> = const { Cell::new(Sentence::None) };
    static TEXT: RefCell<CString> = RefCell::new(CString::default());
    static ANSWER: RefCell<CString> = RefCell::new(CString::default());
}

/// Leaves a sentence for `rr_strerror` beside the error that the running call
/// returns.
pub(super) fn explained(error: Errno, sentence: impl core::fmt::Display) -> Errno {
    let text = sentence.to_string().replace('\0', " ");
    TEXT.set(CString::new(text).unwrap_or_default());
    SENTENCE.set(Sentence::Fresh);
    error
}

/// Puts the error in `errno`.
#[inline(never)]
pub(super) fn set(error: Errno) {
    match SENTENCE.get() {
        Sentence::None => {}
        Sentence::Fresh => SENTENCE.set(Sentence::Of(error)),
        Sentence::Of(_) => SENTENCE.set(Sentence::None),
    }
    // SAFETY: the pointer is to this thread's own errno.
    unsafe { *libc::__errno_location() = error.raw() }
}

/// The error that a failed call of libc left in `errno`.
pub(super) fn last() -> Errno {
    // SAFETY: the pointer is to this thread's own errno.
    Errno::from_raw(unsafe { *libc::__errno_location() }).unwrap_or(Errno::EIO)
}

/// Runs a call's body: no panic leaves it, and its error becomes `errno`.
#[inline]
pub(super) fn guard<T: Failed>(body: impl FnOnce() -> Result<T>) -> T {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(value)) => value,
        Ok(Err(error)) => {
            set(error);
            T::FAILED
        }
        Err(panic) => panicked(panic),
    }
}

/// As [`guard`], for a way that a call can take only sometimes: `None` where not.
#[inline(always)]
pub(super) fn attempt<T: Failed>(body: impl FnOnce() -> Option<Result<T>>) -> Option<T> {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Some(Ok(value))) => Some(value),
        Ok(Some(Err(error))) => {
            set(error);
            Some(T::FAILED)
        }
        Ok(None) => None,
        Err(panic) => Some(panicked(panic)),
    }
}

/// As [`guard`], for a short way, which either does what the call is to do or nothing:
/// 0 where that.
#[inline(always)]
pub(super) fn quick<T: Failed>(body: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(panicked)
}

#[cold]
fn panicked<T: Failed>(panic: Box<dyn core::any::Any + Send>) -> T {
    // Not dropped: a payload whose drop panics would cross into C.
    core::mem::forget(panic);
    crate::runtime::panicked();
    set(Errno::ENETDOWN);
    T::FAILED
}

/// As [`guard`], for functions that cannot say that they failed.
pub(super) fn shielded<T>(fallback: T, body: impl FnOnce() -> T) -> T {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(value) => value,
        Err(panic) => {
            core::mem::forget(panic);
            fallback
        }
    }
}

/// What went wrong, in words. For the error of this thread's last failed call
/// that may be a whole sentence (what failed, why, what to do); for any other
/// number it is what strerror(3) gives. The text is this thread's, and stays
/// until its next rr_strerror.
#[unsafe(no_mangle)]
pub extern "C" fn rr_strerror(errnum: c_int) -> *const c_char {
    shielded(c"Unknown error".as_ptr(), || {
        let text = match SENTENCE.get() {
            Sentence::Of(error) if error.raw() == errnum => TEXT.with_borrow(CString::clone),
            _ => system_text(errnum),
        };
        ANSWER.set(text);
        ANSWER.with_borrow(|text| text.as_ptr())
    })
}

fn system_text(errnum: c_int) -> CString {
    if let Some(error) = Errno::from_raw(errnum) {
        return CString::new(error.text()).unwrap_or_default();
    }
    let mut text = [0u8; 128];
    // SAFETY: the buffer is as long as it is said to be.
    unsafe { libc::strerror_r(errnum, text.as_mut_ptr().cast(), text.len()) };
    CStr::from_bytes_until_nul(&text).map_or_else(|_| CString::default(), CStr::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strerror(errnum: c_int) -> String {
        // SAFETY: rr_strerror gives a string of this thread.
        unsafe { CStr::from_ptr(rr_strerror(errnum)) }.to_str().unwrap().to_owned()
    }

    #[test]
    fn a_sentence_lasts_until_the_next_failure() {
        assert_eq!(guard(|| Err::<c_int, _>(explained(Errno::EINVAL, "wait: no such mode"))), -1);
        assert_eq!(last(), Errno::EINVAL);
        assert_eq!(strerror(libc::EINVAL), "wait: no such mode");
        assert_eq!(strerror(libc::EBADF), "Bad file descriptor");
        assert_eq!(strerror(libc::EINVAL), "wait: no such mode");
        assert_eq!(guard(|| Err::<isize, _>(Errno::EINVAL)), -1);
        assert_eq!(strerror(libc::EINVAL), "Invalid argument");
    }

    #[test]
    fn other_numbers_are_the_systems() {
        assert_eq!(strerror(libc::ENOTEMPTY), "Directory not empty");
        assert!(strerror(99_999).contains("99999"));
    }

    #[test]
    fn a_panic_becomes_enetdown() {
        let failed: c_int = guard(|| panic!("not for C"));
        assert_eq!((failed, last()), (-1, Errno::ENETDOWN));
    }
}
