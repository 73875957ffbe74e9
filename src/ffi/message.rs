//! `struct iovec`, and the ancillary data of `struct msghdr`.

use crate::errno::{Errno, Result};
use crate::socket::SendMeta;
use arrayvec::ArrayVec;
use core::ffi::{c_int, c_void};
use core::net::{Ipv4Addr, Ipv6Addr};
use core::ops::{Deref, DerefMut};
use libc::iovec;
use std::io::{IoSlice, IoSliceMut};

/// Parts of one message, at most (the kernel's UIO_MAXIOV).
pub(super) const MAX_PARTS: usize = 1024;
/// Bytes before the data of a control message.
const HEADER: usize = size_of::<libc::cmsghdr>();
/// What the start of a control message is aligned to.
const ALIGN: usize = size_of::<usize>();

/// The bytes of a program's buffer.
///
/// # Errors
/// EFAULT for a null pointer to more than nothing.
///
/// # Safety
/// `data` is null or points to `len` readable bytes that do not change.
#[inline]
pub(super) unsafe fn bytes<'a>(data: *const c_void, len: usize) -> Result<&'a [u8]> {
    if data.is_null() {
        return if len == 0 { Ok(&[]) } else { Err(Errno::EFAULT) };
    }
    let len = len.min(isize::MAX as usize);
    // SAFETY: the caller's promise.
    Ok(unsafe { core::slice::from_raw_parts(data.cast(), len) })
}

/// The bytes of a program's buffer, to write.
///
/// # Errors
/// EFAULT for a null pointer to more than nothing.
///
/// # Safety
/// `data` is null or points to `len` writable bytes that nobody else uses.
#[inline]
pub(super) unsafe fn bytes_mut<'a>(data: *mut c_void, len: usize) -> Result<&'a mut [u8]> {
    if data.is_null() {
        return if len == 0 { Ok(&mut []) } else { Err(Errno::EFAULT) };
    }
    let len = len.min(isize::MAX as usize);
    // SAFETY: the caller's promise. The bytes may be uninitialised to C; they
    // are only ever written here.
    Ok(unsafe { core::slice::from_raw_parts_mut(data.cast(), len) })
}

/// The parts to send, and their bytes in all.
///
/// # Errors
/// EMSGSIZE for too many parts, EFAULT for null pointers, EINVAL for more than
/// `SSIZE_MAX` bytes.
///
/// # Safety
/// `parts` is null or points to `count` structs, each of which is as in [`bytes`].
pub(super) unsafe fn gather<'a>(parts: *const iovec, count: usize) -> Result<Parts<IoSlice<'a>>> {
    // SAFETY: the caller's promise.
    let parts = unsafe { checked(parts, count) }?;
    let one = |p: &iovec| {
        // SAFETY: the caller's promise.
        unsafe { bytes(p.iov_base, p.iov_len) }.map(IoSlice::new)
    };
    parts.iter().map(one).collect()
}

/// The parts to receive into.
///
/// # Errors
/// As [`gather`].
///
/// # Safety
/// As [`gather`], with [`bytes_mut`]; the parts do not overlap.
pub(super) unsafe fn scatter<'a>(
    parts: *const iovec,
    count: usize,
) -> Result<Parts<IoSliceMut<'a>>> {
    // SAFETY: the caller's promise.
    let parts = unsafe { checked(parts, count) }?;
    let one = |p: &iovec| {
        // SAFETY: the caller's promise.
        unsafe { bytes_mut(p.iov_base, p.iov_len) }.map(IoSliceMut::new)
    };
    parts.iter().map(one).collect()
}

/// The parts of a message: few of them need no memory of their own.
pub(super) enum Parts<T> {
    Few(ArrayVec<T, FEW>),
    Many(Vec<T>),
}

/// As many as that.
const FEW: usize = 8;

impl<T> FromIterator<T> for Parts<T> {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Self {
        let mut items = items.into_iter();
        let few: ArrayVec<T, FEW> = items.by_ref().take(FEW).collect();
        match items.next() {
            None => Self::Few(few),
            Some(next) => Self::Many(few.into_iter().chain([next]).chain(items).collect()),
        }
    }
}

impl<T> Deref for Parts<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        match self {
            Self::Few(few) => few,
            Self::Many(many) => many,
        }
    }
}

impl<T> DerefMut for Parts<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        match self {
            Self::Few(few) => few,
            Self::Many(many) => many,
        }
    }
}

/// # Safety
/// `parts` is null or points to `count` structs.
unsafe fn checked<'a>(parts: *const iovec, count: usize) -> Result<&'a [iovec]> {
    if count == 0 {
        return Ok(&[]);
    }
    if count > MAX_PARTS {
        return Err(Errno::EMSGSIZE);
    }
    if parts.is_null() {
        return Err(Errno::EFAULT);
    }
    // SAFETY: the caller's promise.
    let parts = unsafe { core::slice::from_raw_parts(parts, count) };
    let total = parts.iter().try_fold(0usize, |sum, p| sum.checked_add(p.iov_len));
    match total {
        Some(total) if total <= isize::MAX as usize => Ok(parts),
        _ => Err(Errno::EINVAL),
    }
}

/// Reads the control messages of something that is sent. Those of other
/// protocols are skipped, as the kernel does.
///
/// # Errors
/// EINVAL for a malformed one, and for a wish of IP that is not known.
pub(super) fn wishes(mut control: &[u8]) -> Result<SendMeta> {
    let mut wishes = SendMeta::default();
    while control.len() >= HEADER {
        let len = usize::from_ne_bytes(array(control));
        let level = c_int::from_ne_bytes(array(&control[8..]));
        let name = c_int::from_ne_bytes(array(&control[12..]));
        if len < HEADER || len > control.len() {
            return Err(Errno::EINVAL);
        }
        wish(&mut wishes, level, name, &control[HEADER..len])?;
        control = control.get(len.next_multiple_of(ALIGN)..).unwrap_or(&[]);
    }
    Ok(wishes)
}

fn wish(wishes: &mut SendMeta, level: c_int, name: c_int, data: &[u8]) -> Result<()> {
    match (level, name) {
        (libc::IPPROTO_IP, libc::IP_TTL) => {
            wishes.ttl = Some(u8::try_from(integer(data)?).ok().filter(|&t| t > 0).ok_or(Errno::EINVAL)?);
        }
        (libc::IPPROTO_IP, libc::IP_TOS) if data.len() == 1 => wishes.tos = Some(data[0]),
        (libc::IPPROTO_IP, libc::IP_TOS) | (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => {
            wishes.tos = Some(u8::try_from(integer(data)?).map_err(|_| Errno::EINVAL)?);
        }
        (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT) => match integer(data)? {
            -1 => wishes.ttl = None,
            hops => wishes.ttl = Some(u8::try_from(hops).map_err(|_| Errno::EINVAL)?),
        },
        (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
            if data.len() != size_of::<libc::in_pktinfo>() {
                return Err(Errno::EINVAL);
            }
            let source = Ipv4Addr::from(array::<4>(&data[4..]));
            wishes.source = (!source.is_unspecified()).then_some(source.into());
        }
        (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
            if data.len() < size_of::<libc::in6_pktinfo>() {
                return Err(Errno::EINVAL);
            }
            let source = Ipv6Addr::from(array::<16>(data));
            wishes.source = (!source.is_unspecified()).then_some(source.into());
        }
        (libc::IPPROTO_IP, _) => return Err(Errno::EINVAL),
        _ => {}
    }
    Ok(())
}

fn integer(data: &[u8]) -> Result<c_int> {
    if data.len() != size_of::<c_int>() {
        return Err(Errno::EINVAL);
    }
    Ok(c_int::from_ne_bytes(array(data)))
}

fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[..N]);
    out
}

/// Writes control messages into a program's buffer.
#[derive(Debug)]
pub(super) struct Control<'a> {
    room: &'a mut [u8],
    used: usize,
    truncated: bool,
}

impl<'a> Control<'a> {
    /// Nothing written yet.
    pub(super) fn new(room: &'a mut [u8]) -> Self {
        Self { room, used: 0, truncated: false }
    }

    /// Adds a message; what does not fit is cut off, and [`Self::finish`] says so.
    pub(super) fn put(&mut self, level: c_int, name: c_int, data: &[u8]) {
        let room = &mut self.room[self.used..];
        if room.len() < HEADER {
            self.truncated = true;
            return;
        }
        let mut len = HEADER + data.len();
        if len > room.len() {
            self.truncated = true;
            len = room.len();
        }
        room[..8].copy_from_slice(&len.to_ne_bytes());
        room[8..12].copy_from_slice(&level.to_ne_bytes());
        room[12..16].copy_from_slice(&name.to_ne_bytes());
        room[HEADER..len].copy_from_slice(&data[..len - HEADER]);
        self.used += len.next_multiple_of(ALIGN).min(room.len());
    }

    /// Bytes written, and the flag MSG_CTRUNC where something did not fit.
    pub(super) fn finish(self) -> (usize, c_int) {
        (self.used, if self.truncated { libc::MSG_CTRUNC } else { 0 })
    }
}

/// The data of an IP_PKTINFO message: the packet came to `to`.
pub(super) fn pktinfo(to: Ipv4Addr, interface: u32) -> [u8; 12] {
    let mut out = [0; 12];
    out[..4].copy_from_slice(&interface.to_ne_bytes());
    out[4..8].copy_from_slice(&to.octets());
    out[8..].copy_from_slice(&to.octets());
    out
}

/// The data of an IPV6_PKTINFO message.
pub(super) fn pktinfo6(to: Ipv6Addr, interface: u32) -> [u8; 20] {
    let mut out = [0; 20];
    out[..16].copy_from_slice(&to.octets());
    out[16..].copy_from_slice(&interface.to_ne_bytes());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_messages_go_there_and_back() {
        let mut room = [0u8; 128];
        let mut control = Control::new(&mut room);
        control.put(libc::IPPROTO_IP, libc::IP_TOS, &[0x10]);
        control.put(libc::IPPROTO_IP, libc::IP_TTL, &7i32.to_ne_bytes());
        control.put(libc::SOL_SOCKET, libc::SCM_RIGHTS, &3i32.to_ne_bytes());
        control.put(libc::IPPROTO_IP, libc::IP_PKTINFO, &pktinfo([10, 0, 0, 9].into(), 2));
        let (used, flags) = control.finish();
        assert_eq!((used, flags), (24 * 3 + 32, 0));
        let got = wishes(&room[..used]).unwrap();
        let source = Some([10, 0, 0, 9].into());
        assert_eq!(got, SendMeta { tos: Some(0x10), ttl: Some(7), source });
    }

    #[test]
    fn malformed_wishes_are_refused() {
        let one = |name, data: &[u8]| {
            let mut room = [0u8; 64];
            let mut control = Control::new(&mut room);
            control.put(libc::IPPROTO_IP, name, data);
            let used = control.finish().0;
            wishes(&room[..used])
        };
        assert_eq!(one(libc::IP_TTL, &0i32.to_ne_bytes()), Err(Errno::EINVAL));
        assert_eq!(one(libc::IP_TTL, &256i32.to_ne_bytes()), Err(Errno::EINVAL));
        assert_eq!(one(libc::IP_TTL, &[1]), Err(Errno::EINVAL));
        assert_eq!(one(libc::IP_TOS, &256i32.to_ne_bytes()), Err(Errno::EINVAL));
        assert_eq!(one(libc::IP_PKTINFO, &[0; 8]), Err(Errno::EINVAL));
        assert_eq!(one(libc::IP_MTU, &[0; 4]), Err(Errno::EINVAL));
        assert_eq!(wishes(&[0; 16]), Err(Errno::EINVAL), "a length of 0");
        let mut long = [0u8; 16];
        long[0] = 17;
        assert_eq!(wishes(&long), Err(Errno::EINVAL), "longer than the buffer");
        assert_eq!(wishes(&[9; 15]), Ok(SendMeta::default()), "too short for a header");
    }

    #[test]
    fn what_does_not_fit_is_cut_and_flagged() {
        let mut room = [0u8; 22];
        let mut control = Control::new(&mut room);
        control.put(libc::IPPROTO_IP, libc::IP_PKTINFO, &[7; 12]);
        control.put(libc::IPPROTO_IP, libc::IP_TTL, &[1; 4]);
        assert_eq!(control.finish(), (22, libc::MSG_CTRUNC));
        assert_eq!((room[0], &room[16..]), (22, &[7u8; 6][..]));
    }

    #[test]
    fn parts_are_checked() {
        let data = *b"abc";
        let part = |base: *const u8, len| iovec { iov_base: base.cast_mut().cast(), iov_len: len };
        let good = [part(data.as_ptr(), 2), part(core::ptr::null(), 0), part(data.as_ptr(), 1)];
        // SAFETY: the parts point into `data`.
        let parts = unsafe { gather(good.as_ptr(), 3) }.unwrap();
        assert_eq!(parts.iter().map(|p| p.len()).collect::<Vec<_>>(), [2, 0, 1]);
        // SAFETY: the parts point into `data`, or are refused before they are read.
        unsafe {
            assert_eq!(gather(good.as_ptr(), 1025).err(), Some(Errno::EMSGSIZE));
            assert_eq!(gather(core::ptr::null(), 1).err(), Some(Errno::EFAULT));
            let null = [part(core::ptr::null(), 1)];
            assert_eq!(gather(null.as_ptr(), 1).err(), Some(Errno::EFAULT));
            let many: Vec<_> = (0..1024).map(|_| part(data.as_ptr(), 1)).collect();
            assert_eq!(gather(many.as_ptr(), 1024).map(|p| p.len()).ok(), Some(1024));
            let huge = [part(data.as_ptr(), usize::MAX), part(data.as_ptr(), 2)];
            assert_eq!(gather(huge.as_ptr(), 2).err(), Some(Errno::EINVAL));
        }
    }
}
