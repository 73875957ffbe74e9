//! fcntl and ioctl: variadic in C, of fixed arity here. The third argument is
//! an integer or a pointer, which travel alike as a variadic and as a fixed
//! argument under the C ABIs of x86-64 (System V) and aarch64 (AAPCS64).

use super::errno::guard;
use super::target::Target;
use crate::errno::{Errno, Result};
use crate::socket::Figure;
use core::ffi::{c_int, c_ulong};

/// fcntl(2). Of ours: F_GETFL, F_SETFL (O_NONBLOCK), F_GETFD, F_SETFD, F_DUPFD,
/// F_DUPFD_CLOEXEC, F_GETOWN, F_SETOWN (no effect); EINVAL for others.
///
/// # Safety
/// Where `cmd` takes a pointer, `arg` is null or a valid one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rr_fcntl(fd: c_int, cmd: c_int, arg: c_ulong) -> c_int {
    let Some(target) = Target::of(fd) else {
        // SAFETY: the caller's promise, handed on.
        return unsafe { libc::fcntl(fd, cmd, arg) };
    };
    guard(|| match cmd {
        libc::F_GETFL => {
            let nonblocking = target.nonblocking(fd)?;
            Ok(libc::O_RDWR | if nonblocking { libc::O_NONBLOCK } else { 0 })
        }
        libc::F_SETFL => {
            target.set_nonblocking(fd, arg as c_int & libc::O_NONBLOCK != 0).map(|()| 0)
        }
        libc::F_GETFD => {
            let cloexec = target.close_on_exec(fd)?;
            Ok(if cloexec { libc::FD_CLOEXEC } else { 0 })
        }
        libc::F_SETFD => {
            target.set_close_on_exec(fd, arg as c_int & libc::FD_CLOEXEC != 0).map(|()| 0)
        }
        libc::F_DUPFD => target.dup(fd, arg as c_int, false),
        libc::F_DUPFD_CLOEXEC => target.dup(fd, arg as c_int, true),
        libc::F_GETOWN | libc::F_SETOWN => target.is_open(fd).map(|()| 0),
        _ => Err(target.blame(fd, Errno::EINVAL)),
    })
}

/// SIOCATMARK, SIOCOUTQNSD: libc does not have them.
const SIOCATMARK: c_ulong = 0x8905;
const SIOCOUTQNSD: c_ulong = 0x894b;

/// ioctl(2). Of ours: FIONREAD (SIOCINQ), FIONBIO, FIOCLEX, FIONCLEX, SIOCATMARK,
/// SIOCOUTQ (TIOCOUTQ), SIOCOUTQNSD; ENOTTY for others.
///
/// # Safety
/// Where the request takes a pointer, `arg` is null or a valid one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rr_ioctl(fd: c_int, request: c_ulong, arg: c_ulong) -> c_int {
    let Some(target) = Target::of(fd) else {
        // SAFETY: the caller's promise, handed on.
        return unsafe { libc::ioctl(fd, request as _, arg) };
    };
    let pointer = arg as usize as *mut c_int;
    let figure = match request {
        SIOCATMARK => Some(Figure::AtMark),
        SIOCOUTQNSD => Some(Figure::Unsent),
        _ if request == libc::TIOCOUTQ as c_ulong => Some(Figure::Unacknowledged),
        _ => None,
    };
    guard(|| {
        if let Some(figure) = figure {
            let n = target.figure(fd, figure)?;
            // SAFETY: the caller's promise.
            unsafe { give(pointer, c_int::try_from(n).unwrap_or(c_int::MAX)) }?;
            return Ok(0);
        }
        match request as _ {
            libc::FIONREAD => {
                let n = target.bytes_readable(fd)?;
                let n = c_int::try_from(n).unwrap_or(c_int::MAX);
                // SAFETY: the caller's promise.
                unsafe { give(pointer, n) }?;
            }
            libc::FIONBIO => {
                // SAFETY: the caller's promise.
                let on = unsafe { pointer.as_ref() }.ok_or(Errno::EFAULT);
                let on = *on.map_err(|e| target.blame(fd, e))? != 0;
                target.set_nonblocking(fd, on)?;
            }
            libc::FIOCLEX => target.set_close_on_exec(fd, true)?,
            libc::FIONCLEX => target.set_close_on_exec(fd, false)?,
            _ => return Err(target.blame(fd, Errno::ENOTTY)),
        }
        Ok(0)
    })
}

/// # Safety
/// `to` is null or valid.
unsafe fn give(to: *mut c_int, value: c_int) -> Result<()> {
    if to.is_null() {
        return Err(Errno::EFAULT);
    }
    // SAFETY: not null, so valid by the caller's promise.
    unsafe { to.write(value) };
    Ok(())
}
