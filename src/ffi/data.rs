//! Reading and writing.

use super::address::{self, Given};
use super::errno::{self, guard, shielded};
use super::message::{self, Control};
use super::own;
use super::target::Target;
use super::tell::{tell, tell_unread};
use crate::errno::{Errno, Result};
use crate::socket::{RecvMeta, SendMeta};
use core::ffi::{c_int, c_uint, c_void};
use core::net::SocketAddr;
use libc::{iovec, mmsghdr, msghdr, size_t, sockaddr, socklen_t, ssize_t, timespec};
use std::time::{Duration, Instant};

/// Messages of one rr_sendmmsg or rr_recvmmsg, at most, as in Linux.
const MAX_MESSAGES: usize = 1024;

/// Runs something that sends: a stream whose other side is gone raises SIGPIPE
/// in this thread, unless the flags say MSG_NOSIGNAL.
#[inline]
fn sending(target: Target, fd: c_int, flags: c_int, body: impl FnOnce() -> Result<usize>) -> ssize_t {
    let sent = guard(|| body().map(|n| n as ssize_t));
    signal_broken_pipe(target, fd, flags, sent);
    sent
}

/// Raises SIGPIPE where what was just sent failed so.
#[inline]
pub(super) fn signal_broken_pipe(target: Target, fd: c_int, flags: c_int, sent: ssize_t) {
    if sent < 0 && flags & libc::MSG_NOSIGNAL == 0 && errno::last() == Errno::EPIPE {
        broken_pipe(target, fd);
    }
}

#[cold]
fn broken_pipe(target: Target, fd: c_int) {
    // Asked before the signal, whose handler may do anything, even jump away.
    if shielded(false, || target.is_stream(fd)) {
        // SAFETY: raises a signal in this thread, as write(2) does.
        unsafe { libc::raise(libc::SIGPIPE) };
    }
    errno::set(Errno::EPIPE);
}

/// write(2).
///
/// # Safety
/// `buf` is null or `len` readable bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rr_write(fd: c_int, buf: *const c_void, len: size_t) -> ssize_t {
    // SAFETY: the caller's promise.
    match unsafe { own::send_now::<0>(fd, buf, len, 0) } {
        // SAFETY: the caller's promise.
        0 => unsafe { write_any(fd, buf, len) },
        sent => sent,
    }
}

/// # Safety
/// `buf` is null or `len` readable bytes.
#[inline(never)]
unsafe extern "C" fn write_any(fd: c_int, buf: *const c_void, len: size_t) -> ssize_t {
    // SAFETY: the caller's promise.
    if let Some(sent) = unsafe { own::send(fd, buf, len, 0) } {
        return sent;
    }
    let Some(target) = Target::of(fd) else {
        // SAFETY: the caller's promise, handed on.
        return unsafe { libc::write(fd, buf, len) };
    };
    // SAFETY: the caller's promise.
    sending(target, fd, 0, || unsafe { send(target, fd, buf, len, 0) })
}

/// send(2).
///
/// # Safety
/// `buf` is null or `len` readable bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rr_send(fd: c_int, buf: *const c_void, len: size_t, flags: c_int) -> ssize_t {
    // SAFETY: the caller's promise.
    match unsafe { own::send_now::<1>(fd, buf, len, flags) } {
        // SAFETY: the caller's promise.
        0 => unsafe { send_any(fd, buf, len, flags) },
        sent => sent,
    }
}

/// # Safety
/// `buf` is null or `len` readable bytes.
#[inline(never)]
unsafe extern "C" fn send_any(fd: c_int, buf: *const c_void, len: size_t, flags: c_int) -> ssize_t {
    // SAFETY: the caller's promise.
    if let Some(sent) = unsafe { own::send(fd, buf, len, flags) } {
        return sent;
    }
    let Some(target) = Target::of(fd) else {
        // SAFETY: the caller's promise, handed on.
        return unsafe { libc::send(fd, buf, len, flags) };
    };
    // SAFETY: the caller's promise.
    sending(target, fd, flags, || unsafe { send(target, fd, buf, len, flags) })
}

/// # Safety
/// `buf` is null or `len` readable bytes.
#[inline(never)]
unsafe fn send(target: Target, fd: c_int, buf: *const c_void, len: usize, flags: c_int) -> Result<usize> {
    // SAFETY: the caller's promise.
    let data = unsafe { message::bytes(buf, len) }.map_err(|e| target.blame(fd, e))?;
    target.send(fd, data, flags)
}

/// sendto(2).
///
/// # Safety
/// `buf` is null or `len` readable bytes, `addr` likewise.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rr_sendto(
    fd: c_int,
    buf: *const c_void,
    len: size_t,
    flags: c_int,
    addr: *const sockaddr,
    addr_len: socklen_t,
) -> ssize_t {
    // SAFETY: the caller's promise.
    match unsafe { own::send_to_now(fd, buf, len, flags, addr, addr_len) } {
        // SAFETY: the caller's promise.
        0 => unsafe { sendto_any(fd, buf, len, flags, addr, addr_len) },
        sent => sent,
    }
}

/// # Safety
/// As [`rr_sendto`].
#[inline(never)]
unsafe extern "C" fn sendto_any(
    fd: c_int,
    buf: *const c_void,
    len: size_t,
    flags: c_int,
    addr: *const sockaddr,
    addr_len: socklen_t,
) -> ssize_t {
    // SAFETY: the caller's promise.
    if let Some(sent) = unsafe { own::send_to(fd, buf, len, flags, addr, addr_len) } {
        return sent;
    }
    let Some(target) = Target::of(fd) else {
        // SAFETY: the caller's promise, handed on.
        return unsafe { libc::sendto(fd, buf, len, flags, addr, addr_len) };
    };
    sending(target, fd, flags, || {
        // SAFETY: the caller's promise.
        let Some(to) = (unsafe { destination(target, fd, addr, addr_len, flags) })? else {
            // SAFETY: the caller's promise.
            return unsafe { send(target, fd, buf, len, flags) };
        };
        // SAFETY: the caller's promise.
        let data = unsafe { message::bytes(buf, len) }.map_err(|e| target.blame(fd, e))?;
        let parts = [std::io::IoSlice::new(data)];
        target.send_message(fd, &parts, flags, Some(to), &SendMeta::default())
    })
}

/// Where a message goes, if it says so.
///
/// # Safety
/// `addr` is null or `len` readable bytes.
unsafe fn destination(
    target: Target,
    fd: c_int,
    addr: *const sockaddr,
    len: socklen_t,
    flags: c_int,
) -> Result<Option<SocketAddr>> {
    if addr.is_null() {
        return Ok(None);
    }
    // SAFETY: the caller's promise.
    match unsafe { address::read(addr, len) }.map_err(|e| target.blame(fd, e))? {
        Given::Ip(addr) => Ok(Some(addr)),
        Given::None => Ok(None),
        // Nobody opens to nowhere; of Linux's two errors for it this is the opening's.
        Given::Unspec if flags & libc::MSG_FASTOPEN != 0 => Err(target.blame(fd, Errno::EOPNOTSUPP)),
        Given::Unspec => Err(target.blame(fd, Errno::EAFNOSUPPORT)),
    }
}

/// writev(2).
///
/// # Safety
/// `parts` is null or `count` structs with readable bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rr_writev(fd: c_int, parts: *const iovec, count: c_int) -> ssize_t {
    let Some(target) = Target::of(fd) else {
        // SAFETY: the caller's promise, handed on.
        return unsafe { libc::writev(fd, parts, count) };
    };
    sending(target, fd, 0, || {
        let count = vector_len(target, fd, count)?;
        // SAFETY: the caller's promise.
        let parts = unsafe { message::gather(parts, count) }.map_err(|e| target.blame(fd, e))?;
        target.send_message(fd, &parts, 0, None, &SendMeta::default())
    })
}

/// The number of parts that writev(2) and readv(2) take: EINVAL for too many,
/// where sendmsg(2) says EMSGSIZE.
fn vector_len(target: Target, fd: c_int, count: c_int) -> Result<usize> {
    match usize::try_from(count) {
        Ok(count) if count <= message::MAX_PARTS => Ok(count),
        _ => Err(target.blame(fd, Errno::EINVAL)),
    }
}

/// sendmsg(2). Ancillary data: IP_PKTINFO (the source address), IP_TOS, IP_TTL,
/// and their IPv6 names.
///
/// # Safety
/// `msg` is null or valid, and so is what it points to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rr_sendmsg(fd: c_int, msg: *const msghdr, flags: c_int) -> ssize_t {
    let Some(target) = Target::of(fd) else {
        // SAFETY: the caller's promise, handed on.
        return unsafe { libc::sendmsg(fd, msg, flags) };
    };
    // SAFETY: the caller's promise.
    sending(target, fd, flags, || unsafe { send_message(target, fd, msg, flags) }.map(|(sent, _)| sent))
}

/// How many bytes were sent, and how many there are.
///
/// # Safety
/// As [`rr_sendmsg`].
unsafe fn send_message(
    target: Target,
    fd: c_int,
    msg: *const msghdr,
    flags: c_int,
) -> Result<(usize, usize)> {
    let blame = |e| target.blame(fd, e);
    // SAFETY: null or valid by the caller's promise.
    let msg = unsafe { msg.as_ref() }.ok_or(Errno::EFAULT).map_err(blame)?;
    // SAFETY: the caller's promise.
    let parts = unsafe { message::gather(msg.msg_iov, msg.msg_iovlen) }.map_err(blame)?;
    // SAFETY: the caller's promise.
    let to = unsafe { destination(target, fd, msg.msg_name.cast(), msg.msg_namelen, flags) }?;
    // SAFETY: the caller's promise.
    let control = unsafe { message::bytes(msg.msg_control, msg.msg_controllen) }.map_err(blame)?;
    let meta = message::wishes(control).map_err(blame)?;
    let whole = parts.iter().map(|p| p.len()).sum();
    Ok((target.send_message(fd, &parts, flags, to, &meta)?, whole))
}

/// sendmmsg(2): the number of messages sent.
///
/// # Safety
/// `msgs` is null or `count` valid structs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rr_sendmmsg(
    fd: c_int,
    msgs: *mut mmsghdr,
    count: c_uint,
    flags: c_int,
) -> c_int {
    let Some(target) = Target::of(fd) else {
        // SAFETY: the caller's promise, handed on.
        return unsafe { libc::sendmmsg(fd, msgs, count, flags) };
    };
    let sent = sending(target, fd, flags, || {
        let count = (count as usize).min(MAX_MESSAGES);
        if count > 0 && msgs.is_null() {
            return Err(target.blame(fd, Errno::EFAULT));
        }
        for i in 0..count {
            // SAFETY: the caller's promise.
            let msg = unsafe { msgs.add(i) };
            // SAFETY: the caller's promise.
            match unsafe { send_message(target, fd, &raw const (*msg).msg_hdr, flags) } {
                Ok((n, whole)) => {
                    // SAFETY: the caller's promise.
                    unsafe { (*msg).msg_len = n as c_uint };
                    // What follows in a stream must not come before its rest.
                    if n < whole {
                        return Ok(i + 1);
                    }
                }
                Err(error) if i == 0 => return Err(error),
                Err(error) => {
                    // What is the datagram's own comes again with it.
                    if target.is_stream(fd) {
                        let _ = target.leave_error(fd, error);
                    }
                    return Ok(i);
                }
            }
        }
        Ok(count)
    });
    sent as c_int
}

/// read(2).
///
/// # Safety
/// `buf` is null or `len` writable bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rr_read(fd: c_int, buf: *mut c_void, len: size_t) -> ssize_t {
    // SAFETY: the caller's promise.
    match unsafe { own::recv_now::<0>(fd, buf, len, 0) } {
        // SAFETY: the caller's promise.
        0 => unsafe { read_any(fd, buf, len) },
        got => got,
    }
}

/// # Safety
/// `buf` is null or `len` writable bytes.
#[inline(never)]
unsafe extern "C" fn read_any(fd: c_int, buf: *mut c_void, len: size_t) -> ssize_t {
    // SAFETY: the caller's promise.
    if let Some(got) = unsafe { own::recv(fd, buf, len, 0) } {
        return got;
    }
    let Some(target) = Target::of(fd) else {
        // SAFETY: the caller's promise, handed on.
        return unsafe { libc::read(fd, buf, len) };
    };
    // SAFETY: the caller's promise.
    unsafe { recv(target, fd, buf, len, 0) }
}

/// recv(2).
///
/// # Safety
/// `buf` is null or `len` writable bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rr_recv(fd: c_int, buf: *mut c_void, len: size_t, flags: c_int) -> ssize_t {
    // SAFETY: the caller's promise.
    match unsafe { own::recv_now::<1>(fd, buf, len, flags) } {
        // SAFETY: the caller's promise.
        0 => unsafe { recv_any(fd, buf, len, flags) },
        got => got,
    }
}

/// # Safety
/// `buf` is null or `len` writable bytes.
#[inline(never)]
unsafe extern "C" fn recv_any(fd: c_int, buf: *mut c_void, len: size_t, flags: c_int) -> ssize_t {
    // SAFETY: the caller's promise.
    if let Some(got) = unsafe { own::recv(fd, buf, len, flags) } {
        return got;
    }
    let Some(target) = Target::of(fd) else {
        // SAFETY: the caller's promise, handed on.
        return unsafe { libc::recv(fd, buf, len, flags) };
    };
    // SAFETY: the caller's promise.
    unsafe { recv(target, fd, buf, len, flags) }
}

/// # Safety
/// `buf` is null or `len` writable bytes.
#[inline(never)]
unsafe fn recv(target: Target, fd: c_int, buf: *mut c_void, len: usize, flags: c_int) -> ssize_t {
    guard(|| {
        // SAFETY: the caller's promise.
        let out = unsafe { message::bytes_mut(buf, len) }.map_err(|e| target.blame(fd, e))?;
        target.recv(fd, out, flags).map(|n| n as ssize_t)
    })
}

/// recvfrom(2).
///
/// # Safety
/// `buf` is null or `len` writable bytes; `addr` is null, or `addr_len` is null
/// or valid and `addr` has `*addr_len` writable bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rr_recvfrom(
    fd: c_int,
    buf: *mut c_void,
    len: size_t,
    flags: c_int,
    addr: *mut sockaddr,
    addr_len: *mut socklen_t,
) -> ssize_t {
    // SAFETY: the caller's promise.
    match unsafe { own::recv_from_now(fd, buf, len, flags, addr, addr_len) } {
        // SAFETY: the caller's promise.
        0 => unsafe { recvfrom_any(fd, buf, len, flags, addr, addr_len) },
        got => got,
    }
}

/// # Safety
/// As [`rr_recvfrom`].
#[inline(never)]
unsafe extern "C" fn recvfrom_any(
    fd: c_int,
    buf: *mut c_void,
    len: size_t,
    flags: c_int,
    addr: *mut sockaddr,
    addr_len: *mut socklen_t,
) -> ssize_t {
    // SAFETY: the caller's promise.
    if let Some(got) = unsafe { own::recv_from(fd, buf, len, flags, addr, addr_len) } {
        return got;
    }
    let Some(target) = Target::of(fd) else {
        // SAFETY: the caller's promise, handed on.
        return unsafe { libc::recvfrom(fd, buf, len, flags, addr, addr_len) };
    };
    if addr.is_null() {
        // SAFETY: the caller's promise.
        return unsafe { recv(target, fd, buf, len, flags) };
    }
    guard(|| {
        // SAFETY: the caller's promise.
        let out = unsafe { message::bytes_mut(buf, len) }.map_err(|e| target.blame(fd, e))?;
        let mut parts = [std::io::IoSliceMut::new(out)];
        let (n, meta) = target.recv_message(fd, &mut parts, flags)?;
        // SAFETY: the caller's promise.
        unsafe { address::write(meta.from.as_ref(), addr, addr_len) }?;
        Ok(told(n, &meta, flags) as ssize_t)
    })
}

/// readv(2).
///
/// # Safety
/// `parts` is null or `count` structs with writable bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rr_readv(fd: c_int, parts: *const iovec, count: c_int) -> ssize_t {
    let Some(target) = Target::of(fd) else {
        // SAFETY: the caller's promise, handed on.
        return unsafe { libc::readv(fd, parts, count) };
    };
    guard(|| {
        let count = vector_len(target, fd, count)?;
        // SAFETY: the caller's promise.
        let parts = unsafe { message::scatter(parts, count) };
        let mut parts = parts.map_err(|e| target.blame(fd, e))?;
        Ok(target.recv_message(fd, &mut parts, 0)?.0 as ssize_t)
    })
}

/// recvmsg(2). Ancillary data, where the socket's options ask for it:
/// IP_PKTINFO, IP_TOS (IP_RECVTOS), IP_TTL (IP_RECVTTL), TCP_CM_INQ (TCP_INQ).
///
/// # Safety
/// `msg` is null or valid, and so is what it points to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rr_recvmsg(fd: c_int, msg: *mut msghdr, flags: c_int) -> ssize_t {
    let Some(target) = Target::of(fd) else {
        // SAFETY: the caller's promise, handed on.
        return unsafe { libc::recvmsg(fd, msg, flags) };
    };
    // SAFETY: the caller's promise.
    guard(|| unsafe { recv_message(target, fd, msg, flags) }.map(|n| n as ssize_t))
}

/// # Safety
/// As [`rr_recvmsg`].
unsafe fn recv_message(
    target: Target,
    fd: c_int,
    msg: *mut msghdr,
    flags: c_int,
) -> Result<usize> {
    let blame = |e| target.blame(fd, e);
    // SAFETY: null or valid by the caller's promise.
    let msg = unsafe { msg.as_mut() }.ok_or(Errno::EFAULT).map_err(blame)?;
    // SAFETY: the caller's promise.
    let mut parts = unsafe { message::scatter(msg.msg_iov, msg.msg_iovlen) }.map_err(blame)?;
    let room = parts.iter().map(|p| p.len()).sum::<usize>();
    let (n, meta) = target.recv_message(fd, &mut parts, flags & !libc::MSG_CMSG_CLOEXEC)?;
    msg.msg_flags = flags & libc::MSG_CMSG_CLOEXEC;
    if n > 0 {
        msg.msg_flags |= flags & libc::MSG_OOB;
    }
    if meta.from.is_some() && meta.full_len > room {
        msg.msg_flags |= libc::MSG_TRUNC;
    }
    if !msg.msg_name.is_null() {
        let len = &raw mut msg.msg_namelen;
        // SAFETY: the caller's promise.
        unsafe { address::write(meta.from.as_ref(), msg.msg_name.cast(), len) }?;
    }
    let len = if msg.msg_control.is_null() { 0 } else { msg.msg_controllen };
    // SAFETY: the caller's promise.
    let mut control = Control::new(unsafe { message::bytes_mut(msg.msg_control, len) }?);
    if meta.from.is_some() {
        tell(target, fd, &meta, &mut control);
    } else if len > 0 {
        tell_unread(target, fd, &mut control);
    }
    let (used, truncated) = control.finish();
    msg.msg_controllen = used;
    msg.msg_flags |= truncated;
    Ok(told(n, &meta, flags))
}

/// What a call that received so many bytes returns: with MSG_TRUNC, a
/// datagram's whole length.
pub(super) fn told(n: usize, meta: &RecvMeta, flags: c_int) -> usize {
    if flags & libc::MSG_TRUNC != 0 && meta.from.is_some() { meta.full_len } else { n }
}

/// recvmmsg(2): the number of messages received. MSG_WAITFORONE waits for the
/// first only; the time-out is looked at after each message, as in Linux, and says
/// then how much of it is left.
///
/// # Safety
/// `msgs` is null or `count` valid structs; `timeout` is null or valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rr_recvmmsg(
    fd: c_int,
    msgs: *mut mmsghdr,
    count: c_uint,
    flags: c_int,
    timeout: *mut timespec,
) -> c_int {
    let Some(target) = Target::of(fd) else {
        // SAFETY: the caller's promise, handed on.
        return unsafe { libc::recvmmsg(fd, msgs, count, flags, timeout) };
    };
    guard(|| {
        let count = (count as usize).min(MAX_MESSAGES);
        if count > 0 && msgs.is_null() {
            return Err(target.blame(fd, Errno::EFAULT));
        }
        // SAFETY: null or valid by the caller's promise.
        let end = unsafe { timeout.as_ref() }.map(deadline).transpose()?;
        let mut flags = flags;
        for i in 0..count {
            // SAFETY: the caller's promise.
            let msg = unsafe { msgs.add(i) };
            let now = flags & !libc::MSG_WAITFORONE;
            // SAFETY: the caller's promise.
            match unsafe { recv_message(target, fd, &raw mut (*msg).msg_hdr, now) } {
                // SAFETY: the caller's promise.
                Ok(n) => unsafe { (*msg).msg_len = n as c_uint },
                Err(error) if i == 0 => return Err(error),
                Err(error) => {
                    let _ = target.leave_error(fd, error);
                    return Ok(i as c_int);
                }
            }
            if flags & libc::MSG_WAITFORONE != 0 {
                flags |= libc::MSG_DONTWAIT;
            }
            if let Some(end) = end {
                let left = end.saturating_duration_since(Instant::now());
                // SAFETY: there is a time, so it is the caller's.
                unsafe { *timeout = timespec { tv_sec: left.as_secs() as _, tv_nsec: left.subsec_nanos().into() } };
                if left.is_zero() {
                    return Ok(i as c_int + 1);
                }
            }
        }
        Ok(count as c_int)
    })
}

fn deadline(timeout: &timespec) -> Result<Instant> {
    let seconds = u64::try_from(timeout.tv_sec).map_err(|_| Errno::EINVAL)?;
    let nanos = u32::try_from(timeout.tv_nsec).ok().filter(|n| *n < 1_000_000_000);
    let span = Duration::new(seconds, nanos.ok_or(Errno::EINVAL)?);
    Instant::now().checked_add(span).ok_or(Errno::EINVAL)
}
