//! Sockets: made, named, connected, configured, closed.

use super::address::{self, Given};
use super::errno::guard;
use super::message;
use super::target::Target;
use crate::errno::{Errno, Result};
use core::ffi::{c_int, c_void};
use core::net::SocketAddr;
use libc::{sockaddr, socklen_t};

/// socket(2). Internet sockets are ringroad's; those of other families are the
/// system's. ENETDOWN before rr_init.
#[unsafe(no_mangle)]
pub extern "C" fn rr_socket(domain: c_int, r#type: c_int, protocol: c_int) -> c_int {
    let here = Target::here();
    let ours = matches!(domain, libc::AF_INET | libc::AF_INET6);
    if !ours && !matches!(here, Some(Target::Sim(_))) {
        // SAFETY: plain numbers.
        return unsafe { libc::socket(domain, r#type, protocol) };
    }
    guard(|| here.ok_or(Errno::ENETDOWN)?.socket(domain, r#type, protocol))
}

/// bind(2).
///
/// # Safety
/// `addr` is null or `len` readable bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rr_bind(fd: c_int, addr: *const sockaddr, len: socklen_t) -> c_int {
    let Some(target) = Target::of(fd) else {
        // SAFETY: the caller's promise, handed on.
        return unsafe { libc::bind(fd, addr, len) };
    };
    guard(|| {
        // SAFETY: the caller's promise.
        let given = unsafe { address::read(addr, len) };
        let addr = match given.map_err(|e| target.blame(fd, e))? {
            Given::Ip(addr) => addr,
            // As Linux for old programs: an all-zero address means any.
            Given::Unspec if len >= 16 => {
                // SAFETY: `len` bytes are readable, and the address was not null.
                let ip = unsafe { addr.byte_add(4).cast::<u32>().read_unaligned() };
                // SAFETY: likewise.
                let port = unsafe { addr.byte_add(2).cast::<u16>().read_unaligned() };
                if ip != 0 {
                    return Err(target.blame(fd, Errno::EAFNOSUPPORT));
                }
                SocketAddr::from(([0, 0, 0, 0], u16::from_be(port)))
            }
            Given::Unspec | Given::None => return Err(target.blame(fd, Errno::EINVAL)),
        };
        target.bind(fd, addr).map(|()| 0)
    })
}

/// listen(2).
#[unsafe(no_mangle)]
pub extern "C" fn rr_listen(fd: c_int, backlog: c_int) -> c_int {
    let Some(target) = Target::of(fd) else {
        // SAFETY: plain numbers.
        return unsafe { libc::listen(fd, backlog) };
    };
    guard(|| target.listen(fd, backlog).map(|()| 0))
}

/// accept(2).
///
/// # Safety
/// As [`rr_accept4`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rr_accept(fd: c_int, addr: *mut sockaddr, len: *mut socklen_t) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { rr_accept4(fd, addr, len, 0) }
}

/// accept4(2).
///
/// # Safety
/// `addr` is null, or `len` is null or valid and `addr` has `*len` writable bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rr_accept4(
    fd: c_int,
    addr: *mut sockaddr,
    len: *mut socklen_t,
    flags: c_int,
) -> c_int {
    let Some(target) = Target::of(fd) else {
        // SAFETY: the caller's promise, handed on.
        return unsafe { libc::accept4(fd, addr, len, flags) };
    };
    guard(|| {
        if flags & !(libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC) != 0 {
            return Err(Errno::EINVAL);
        }
        let (new, from) = target.accept4(fd, flags)?;
        if addr.is_null() {
            return Ok(new);
        }
        // SAFETY: the caller's promise.
        let written = unsafe { address::write(Some(&from), addr, len) };
        if let Err(error) = written {
            // As in Linux, the connection is lost.
            let _ = target.close(new);
            return Err(error);
        }
        Ok(new)
    })
}

/// connect(2). AF_UNSPEC takes a datagram socket's peer away.
///
/// # Safety
/// `addr` is null or `len` readable bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rr_connect(fd: c_int, addr: *const sockaddr, len: socklen_t) -> c_int {
    let Some(target) = Target::of(fd) else {
        // SAFETY: the caller's promise, handed on.
        return unsafe { libc::connect(fd, addr, len) };
    };
    guard(|| {
        // SAFETY: the caller's promise.
        let given = unsafe { address::read(addr, len) };
        match given.map_err(|e| target.blame(fd, e))? {
            Given::Ip(addr) => target.connect(fd, addr)?,
            Given::Unspec => target.disconnect(fd)?,
            Given::None => return Err(target.blame(fd, Errno::EINVAL)),
        }
        Ok(0)
    })
}

/// shutdown(2).
#[unsafe(no_mangle)]
pub extern "C" fn rr_shutdown(fd: c_int, how: c_int) -> c_int {
    let Some(target) = Target::of(fd) else {
        // SAFETY: plain numbers.
        return unsafe { libc::shutdown(fd, how) };
    };
    guard(|| target.shutdown(fd, how).map(|()| 0))
}

/// close(2).
#[unsafe(no_mangle)]
pub extern "C" fn rr_close(fd: c_int) -> c_int {
    let Some(target) = Target::of(fd) else {
        // SAFETY: a plain number; that it is the caller's to close is its affair.
        return unsafe { libc::close(fd) };
    };
    guard(|| target.close(fd).map(|()| 0))
}

/// dup(2).
#[unsafe(no_mangle)]
pub extern "C" fn rr_dup(fd: c_int) -> c_int {
    let Some(target) = Target::of(fd) else {
        // SAFETY: a plain number.
        return unsafe { libc::dup(fd) };
    };
    guard(|| target.dup(fd, 0, false))
}

/// setsockopt(2).
///
/// # Safety
/// `value` is null or `len` readable bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rr_setsockopt(
    fd: c_int,
    level: c_int,
    name: c_int,
    value: *const c_void,
    len: socklen_t,
) -> c_int {
    let Some(target) = Target::of(fd) else {
        // SAFETY: the caller's promise, handed on.
        return unsafe { libc::setsockopt(fd, level, name, value, len) };
    };
    guard(|| {
        let len = usize::try_from(len as c_int).map_err(|_| target.blame(fd, Errno::EINVAL))?;
        // SAFETY: the caller's promise.
        let value = unsafe { message::bytes(value, len) }.map_err(|e| target.blame(fd, e))?;
        target.set_option(fd, level, name, value).map(|()| 0)
    })
}

/// Bytes of the largest option that can be read.
const LARGEST_OPTION: usize = 512;

/// getsockopt(2).
///
/// # Safety
/// `len` is null or valid; `value` is null or `*len` writable bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rr_getsockopt(
    fd: c_int,
    level: c_int,
    name: c_int,
    value: *mut c_void,
    len: *mut socklen_t,
) -> c_int {
    let Some(target) = Target::of(fd) else {
        // SAFETY: the caller's promise, handed on.
        return unsafe { libc::getsockopt(fd, level, name, value, len) };
    };
    guard(|| {
        // SAFETY: null, or valid by the caller's promise.
        let room = unsafe { len.as_ref() }.ok_or_else(|| target.blame(fd, Errno::EFAULT))?;
        let room = usize::try_from(*room as c_int).map_err(|_| target.blame(fd, Errno::EINVAL))?;
        let mut out = [0; LARGEST_OPTION];
        let room = room.min(LARGEST_OPTION);
        let n = target.get_option(fd, level, name, &mut out[..room])?;
        // SAFETY: the caller's promise; `n` is at most its length.
        let value = unsafe { message::bytes_mut(value, n) }?;
        value.copy_from_slice(&out[..n]);
        // SAFETY: not null, so valid by the caller's promise.
        unsafe { len.write(n as socklen_t) };
        Ok(0)
    })
}

/// getsockname(2).
///
/// # Safety
/// `len` is null or valid; `addr` is null or `*len` writable bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rr_getsockname(
    fd: c_int,
    addr: *mut sockaddr,
    len: *mut socklen_t,
) -> c_int {
    let Some(target) = Target::of(fd) else {
        // SAFETY: the caller's promise, handed on.
        return unsafe { libc::getsockname(fd, addr, len) };
    };
    // SAFETY: the caller's promise.
    guard(|| unsafe { name(target.local_addr(fd), addr, len) })
}

/// getpeername(2).
///
/// # Safety
/// `len` is null or valid; `addr` is null or `*len` writable bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rr_getpeername(
    fd: c_int,
    addr: *mut sockaddr,
    len: *mut socklen_t,
) -> c_int {
    let Some(target) = Target::of(fd) else {
        // SAFETY: the caller's promise, handed on.
        return unsafe { libc::getpeername(fd, addr, len) };
    };
    // SAFETY: the caller's promise.
    guard(|| unsafe { name(target.peer_addr(fd), addr, len) })
}

/// # Safety
/// As [`address::write`].
unsafe fn name(
    found: Result<SocketAddr>,
    addr: *mut sockaddr,
    len: *mut socklen_t,
) -> Result<c_int> {
    // SAFETY: the caller's promise.
    unsafe { address::write(Some(&found?), addr, len) }.map(|()| 0)
}
