//! The short way of calls on a worker's own thread to its own sockets. Where there is
//! none (`None`), nothing was done: the long way looks at everything, and says what is
//! wrong with arguments that are.

use super::address::{self, Given, PlaceV4};
use super::data::{signal_broken_pipe, told};
use super::errno::{attempt, quick};
use super::message;
use super::target::Target;
use crate::runtime::posix;
use core::ffi::{c_int, c_void};
use libc::{sockaddr, socklen_t, ssize_t};

/// `send` of a few bytes that a stream takes at once; 0 where it is not so. Each `CALL`
/// has one of its own, so that the compiler puts it into the call.
///
/// # Safety
/// `buf` is null or `len` readable bytes.
#[inline(always)]
pub(super) unsafe fn send_now<const CALL: usize>(
    fd: c_int,
    buf: *const c_void,
    len: usize,
    flags: c_int,
) -> ssize_t {
    quick(move || {
        // SAFETY: the caller's promise.
        let Ok(data) = (unsafe { message::bytes(buf, len) }) else { return 0 };
        posix::own_send_now::<CALL>(fd, data, flags) as ssize_t
    })
}

/// `recv` of little data that is there; 0 where it is not so. `CALL` as in [`send_now`].
///
/// # Safety
/// `buf` is null or `len` writable bytes.
#[inline(always)]
pub(super) unsafe fn recv_now<const CALL: usize>(
    fd: c_int,
    buf: *mut c_void,
    len: usize,
    flags: c_int,
) -> ssize_t {
    quick(move || {
        // SAFETY: the caller's promise.
        let Ok(out) = (unsafe { message::bytes_mut(buf, len) }) else { return 0 };
        posix::own_recv_now::<CALL>(fd, out, flags) as ssize_t
    })
}

/// `sendto` of a few bytes by UDP; 0 where it is not so simple.
///
/// # Safety
/// `buf` is null or `len` readable bytes, `addr` likewise.
#[inline(always)]
pub(super) unsafe fn send_to_now(
    fd: c_int,
    buf: *const c_void,
    len: usize,
    flags: c_int,
    addr: *const sockaddr,
    addr_len: socklen_t,
) -> ssize_t {
    quick(move || {
        // SAFETY: the caller's promise.
        let Ok(data) = (unsafe { message::bytes(buf, len) }) else { return 0 };
        // SAFETY: likewise.
        let Some(to) = (unsafe { address::read_v4(addr, addr_len) }) else { return 0 };
        posix::own_send_to_now(fd, data, flags, to) as ssize_t
    })
}

/// `recvfrom` of a small datagram that is there; 0 where it is not so simple.
///
/// # Safety
/// `buf` is null or `len` writable bytes; `addr` is null, or `addr_len` is null
/// or valid and `addr` has `*addr_len` writable bytes.
#[inline(always)]
pub(super) unsafe fn recv_from_now(
    fd: c_int,
    buf: *mut c_void,
    len: usize,
    flags: c_int,
    addr: *mut sockaddr,
    addr_len: *mut socklen_t,
) -> ssize_t {
    quick(move || {
        // SAFETY: the caller's promise.
        let Ok(out) = (unsafe { message::bytes_mut(buf, len) }) else { return 0 };
        // SAFETY: likewise.
        let Some(place) = (unsafe { PlaceV4::of(addr, addr_len) }) else { return 0 };
        let Some((n, from)) = posix::own_recv_from_now(fd, out, flags) else { return 0 };
        place.put(from);
        n as ssize_t
    })
}

/// `send`.
///
/// # Safety
/// `buf` is null or `len` readable bytes.
#[inline(always)]
pub(super) unsafe fn send(
    fd: c_int,
    buf: *const c_void,
    len: usize,
    flags: c_int,
) -> Option<ssize_t> {
    let sent = attempt(move || {
        // SAFETY: the caller's promise.
        let data = unsafe { message::bytes(buf, len) }.ok()?;
        Some(posix::own_send(fd, data, flags)?.map(|n| n as ssize_t))
    })?;
    signal_broken_pipe(Target::Running, fd, flags, sent);
    Some(sent)
}

/// `recv`.
///
/// # Safety
/// `buf` is null or `len` writable bytes.
#[inline(always)]
pub(super) unsafe fn recv(
    fd: c_int,
    buf: *mut c_void,
    len: usize,
    flags: c_int,
) -> Option<ssize_t> {
    attempt(move || {
        // SAFETY: the caller's promise.
        let out = unsafe { message::bytes_mut(buf, len) }.ok()?;
        Some(posix::own_recv(fd, out, flags)?.map(|n| n as ssize_t))
    })
}

/// `sendto`.
///
/// # Safety
/// `buf` is null or `len` readable bytes, `addr` likewise.
#[inline(always)]
pub(super) unsafe fn send_to(
    fd: c_int,
    buf: *const c_void,
    len: usize,
    flags: c_int,
    addr: *const sockaddr,
    addr_len: socklen_t,
) -> Option<ssize_t> {
    let sent = attempt(move || {
        // SAFETY: the caller's promise.
        let data = unsafe { message::bytes(buf, len) }.ok()?;
        // SAFETY: likewise.
        let to = match unsafe { address::read(addr, addr_len) } {
            _ if addr.is_null() => None,
            Ok(Given::Ip(to)) => Some(to),
            _ => return None,
        };
        Some(posix::own_send_to(fd, data, flags, to)?.map(|n| n as ssize_t))
    })?;
    signal_broken_pipe(Target::Running, fd, flags, sent);
    Some(sent)
}

/// `recvfrom`.
///
/// # Safety
/// `buf` is null or `len` writable bytes; `addr` is null, or `addr_len` is null
/// or valid and `addr` has `*addr_len` writable bytes.
#[inline(always)]
pub(super) unsafe fn recv_from(
    fd: c_int,
    buf: *mut c_void,
    len: usize,
    flags: c_int,
    addr: *mut sockaddr,
    addr_len: *mut socklen_t,
) -> Option<ssize_t> {
    attempt(move || {
        // SAFETY: the caller's promise.
        let out = unsafe { message::bytes_mut(buf, len) }.ok()?;
        Some(posix::own_recv_from(fd, out, flags)?.and_then(|(n, meta)| {
            if !addr.is_null() {
                // SAFETY: the caller's promise.
                unsafe { address::write(meta.from.as_ref(), addr, addr_len) }?;
            }
            Ok(told(n, &meta, flags) as ssize_t)
        }))
    })
}
