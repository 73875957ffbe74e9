//! Reading configuration that comes from C.

use super::errno::explained;
use crate::errno::{Errno, Result};
use crate::time::Duration;
use core::ffi::{CStr, c_char};
use core::net::IpAddr;

/// A switch of a configuration that is on.
pub const RR_ON: u32 = 1;
/// A switch of a configuration that is off.
pub const RR_OFF: u32 = 2;
/// An option of TCP sockets (level IPPROTO_TCP, int): the user timeout option
/// (RFC 5482) is sent and accepted. What it says is TCP_USER_TIMEOUT, or five
/// minutes. The number is ours; Linux has no such option.
pub const RR_TCP_UTO: u32 = 5482;

/// A copy of a struct that begins with its `uint32_t` size. A caller that knows
/// an older, shorter version leaves the rest at 0.
///
/// # Errors
/// EINVAL for a size that no version had.
///
/// # Safety
/// `from` points to a `T`, or to the older version of it that its size says; `T`
/// is `repr(C)`, begins with the size, and all zeros is a `T`.
pub(super) unsafe fn versioned<T: Copy>(from: *const T, first: usize, name: &str) -> Result<T> {
    // SAFETY: the caller's promise: every version begins with the size.
    let size = match unsafe { from.cast::<u32>().read() } as usize {
        0 => first,
        size => size,
    };
    if size < first || size > size_of::<T>() {
        let most = size_of::<T>();
        let what = format!("{name}: size is {size}, this library knows {first} to {most}");
        return Err(explained(Errno::EINVAL, what));
    }
    let mut copy = core::mem::MaybeUninit::<T>::zeroed();
    // SAFETY: `size` bytes are there by the caller's promise and fit; all zeros
    // under them is a `T`.
    unsafe {
        core::ptr::copy_nonoverlapping(from.cast::<u8>(), copy.as_mut_ptr().cast(), size);
        Ok(copy.assume_init())
    }
}

/// A string of C; `None` for a null pointer and for an empty one.
///
/// # Errors
/// EINVAL where it is not UTF-8.
///
/// # Safety
/// `text` is null or a string that ends with a zero and lives for `'a`.
pub(super) unsafe fn text<'a>(text: *const c_char, name: &str) -> Result<Option<&'a str>> {
    if text.is_null() {
        return Ok(None);
    }
    // SAFETY: the caller's promise.
    let bytes = unsafe { CStr::from_ptr(text) };
    let text = bytes.to_str().map_err(|_| bad(name, bytes.to_string_lossy(), "text in UTF-8"))?;
    Ok(Some(text.trim()).filter(|t| !t.is_empty()))
}

/// EINVAL, with the field, its value and what was wanted.
pub(super) fn bad(name: &str, value: impl core::fmt::Display, wanted: &str) -> Errno {
    explained(Errno::EINVAL, format!("{name}: {value} is not {wanted}"))
}

/// Addresses with the length of their prefixes: `10.0.0.1/24,fd00::1/64`.
///
/// # Errors
/// EINVAL.
pub(super) fn addresses(list: &str) -> Result<Vec<(IpAddr, u8)>> {
    list.split(',').map(|one| cidr(one.trim())).collect()
}

fn cidr(text: &str) -> Result<(IpAddr, u8)> {
    let wrong = || bad("address", text, "an address with its prefix, as in 10.0.0.1/24");
    let (ip, prefix) = text.split_once('/').ok_or_else(wrong)?;
    let ip: IpAddr = ip.parse().map_err(|_| wrong())?;
    let prefix: u8 = prefix.parse().map_err(|_| wrong())?;
    if prefix > if ip.is_ipv4() { 32 } else { 128 } {
        return Err(wrong());
    }
    Ok((ip, prefix))
}

/// Numbers of a C configuration that go where Rust's is: 0 leaves the default.
/// The first that does not fit is remembered.
#[derive(Debug, Default)]
pub(super) struct Knobs {
    wrong: Option<Errno>,
}

impl Knobs {
    /// A number that fits in `T`.
    pub(super) fn number<T: TryFrom<u32>>(&mut self, name: &str, value: u32, to: &mut T) {
        match T::try_from(value) {
            _ if value == 0 => {}
            Ok(value) => *to = value,
            Err(_) => {
                let most = (1u64 << (8 * size_of::<T>())) - 1;
                self.wrong(name, value, &format!("a number up to {most}"));
            }
        }
    }

    /// A span of time.
    pub(super) fn time(&mut self, ns: u64, to: &mut Duration) {
        if ns != 0 {
            *to = Duration::from_nanos(ns);
        }
    }

    /// A switch.
    pub(super) fn switch(&mut self, name: &str, value: u32, to: &mut bool) {
        match value {
            0 => {}
            RR_ON => *to = true,
            RR_OFF => *to = false,
            _ => self.wrong(name, value, "0, RR_ON or RR_OFF"),
        }
    }

    /// Remembers that a field is wrong.
    pub(super) fn wrong(&mut self, name: &str, value: u32, wanted: &str) {
        if self.wrong.is_none() {
            self.wrong = Some(bad(name, value, wanted));
        }
    }

    /// The first wrong field.
    ///
    /// # Errors
    /// EINVAL.
    pub(super) fn finish(self) -> Result<()> {
        self.wrong.map_or(Ok(()), Err)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_addresses() {
        let got = addresses("10.0.0.1/24, fd00::1/64").unwrap();
        assert_eq!(got, [("10.0.0.1".parse().unwrap(), 24), ("fd00::1".parse().unwrap(), 64)]);
        for wrong in ["10.0.0.1", "10.0.0.1/33", "10.0.0/8", "fd00::1/129", "", "10.0.0.1/24,"] {
            assert_eq!(addresses(wrong), Err(Errno::EINVAL), "{wrong}");
        }
    }

    #[test]
    fn structs_of_other_versions() {
        #[repr(C)]
        #[derive(Clone, Copy, Debug, PartialEq)]
        struct Two {
            size: u32,
            old: u32,
            new: u64,
        }
        let read = |size| {
            let given = Two { size, old: 5, new: 6 };
            // SAFETY: a whole `Two`.
            unsafe { versioned(&raw const given, 8, "two") }.map(|t| (t.old, t.new))
        };
        assert_eq!(read(0), Ok((5, 0)));
        assert_eq!(read(8), Ok((5, 0)));
        assert_eq!(read(16), Ok((5, 6)));
        assert_eq!(read(4), Err(Errno::EINVAL));
        assert_eq!(read(17), Err(Errno::EINVAL));
    }

    #[test]
    fn knobs_that_do_not_fit_are_named() {
        let (mut small, mut on) = (3u8, false);
        let mut knobs = Knobs::default();
        knobs.number("small", 0, &mut small);
        assert_eq!(small, 3);
        knobs.number("small", 255, &mut small);
        knobs.switch("on", RR_ON, &mut on);
        assert_eq!((small, on), (255, true));
        knobs.number("small", 256, &mut small);
        knobs.switch("on", 3, &mut on);
        assert_eq!(knobs.finish(), Err(Errno::EINVAL));
    }
}
