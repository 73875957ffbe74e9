//! What a descriptor says of itself, and its two flags.

use super::{Entry, NONBLOCKING, Object, TABLE, is_open, on_socket};
use crate::errno::{Errno, Result};
use crate::runtime::{descriptors, sys, worker};
use crate::socket::Figure;
use core::sync::atomic::Ordering;
use std::os::fd::RawFd;

/// O_NONBLOCK.
///
/// # Errors
/// `EBADF`.
pub fn nonblocking(fd: RawFd) -> Result<bool> {
    match TABLE.lookup(fd)?.ok_or(Errno::EBADF)? {
        Entry::Local(..) => Ok(TABLE.status(fd) & NONBLOCKING != 0),
        Entry::LocalSet(..) => Ok(false),
        Entry::Shared(guard) => match &*guard {
            Object::Socket(socket) => Ok(socket.nonblocking.load(Ordering::Relaxed)),
            Object::Epoll(_) => Ok(false),
        },
    }
}

/// Sets O_NONBLOCK; for all descriptors of the socket, as the system has it.
///
/// # Errors
/// `EBADF`.
pub fn set_nonblocking(fd: RawFd, on: bool) -> Result<()> {
    match TABLE.lookup(fd)?.ok_or(Errno::EBADF)? {
        Entry::Local(..) if on => TABLE.change_status(fd, NONBLOCKING, 0),
        Entry::Local(..) => TABLE.change_status(fd, 0, NONBLOCKING),
        Entry::LocalSet(..) => {}
        Entry::Shared(guard) => {
            if let Object::Socket(socket) = &*guard {
                socket.nonblocking.store(on, Ordering::Relaxed);
            }
        }
    }
    Ok(())
}

/// FD_CLOEXEC.
///
/// # Errors
/// `EBADF`.
pub fn close_on_exec(fd: RawFd) -> Result<bool> {
    is_open(fd)?;
    // SAFETY: takes no pointers.
    let flags = unsafe { libc::fcntl(fd, libc::F_GETFD) };
    if flags < 0 { Err(sys::last_errno()) } else { Ok(flags & libc::FD_CLOEXEC != 0) }
}

/// Sets FD_CLOEXEC. Without it the program that is executed finds a number that
/// stands for nothing.
///
/// # Errors
/// `EBADF`.
pub fn set_close_on_exec(fd: RawFd, on: bool) -> Result<()> {
    is_open(fd)?;
    descriptors::set_close_on_exec(fd, on)
}

/// FIONREAD.
///
/// # Errors
/// As the system's.
pub fn bytes_readable(fd: RawFd) -> Result<usize> {
    let n = on_socket(fd, |s, h| s.bytes_readable(h), |t, s| s.bytes_readable(t))?;
    // A loop may ask for nothing else until there is something.
    if n == 0 {
        worker::found_nothing();
    }
    Ok(n)
}

/// SIOCATMARK, SIOCOUTQ, SIOCOUTQNSD.
///
/// # Errors
/// As the system's.
pub fn figure(fd: RawFd, figure: Figure) -> Result<usize> {
    let n = on_socket(fd, |s, h| s.figure(h, figure), |t, s| s.figure(t, figure))?;
    // As above: until all has left, or is acknowledged.
    if n > 0 && figure != Figure::AtMark {
        worker::found_nothing();
    }
    Ok(n)
}
