//! Opening: `connect`, and `sendmsg` with MSG_FASTOPEN (RFC 7413), which opens and
//! sends.

use super::posix::{self, may_wait, on_local, on_shared};
use crate::errno::{Errno, Result};
use crate::socket::SendMeta;
use core::net::SocketAddr;
use std::io::IoSlice;
use std::os::fd::RawFd;

/// Sends what the SYN takes, and in a call that blocks the rest behind it.
pub(super) fn send(
    fd: RawFd,
    parts: &[IoSlice<'_>],
    flags: i32,
    to: SocketAddr,
    meta: &SendMeta,
) -> Result<usize> {
    let waits = flags & libc::MSG_DONTWAIT == 0 && may_wait(fd);
    let first = if waits { flags } else { flags | libc::MSG_DONTWAIT };
    let begun = on_local(fd, flags | libc::MSG_DONTWAIT, libc::SO_SNDTIMEO, |s, h| {
        s.send_message(h, parts, first, Some(to), meta)
    });
    let later = flags & !libc::MSG_FASTOPEN;
    let sent = match begun {
        Some(Ok(n)) => n,
        // Nothing was taken yet.
        Some(Err(Errno::EINPROGRESS)) => 0,
        Some(Err(error)) => return Err(error),
        // A socket of any thread: its data goes by a ring, behind the SYN.
        None => {
            connect(fd, to)?;
            0
        }
    };
    let mut rest: Vec<IoSlice<'_>> = parts.iter().map(|p| IoSlice::new(p)).collect();
    let mut rest = &mut rest[..];
    IoSlice::advance_slices(&mut rest, sent);
    if waits && sent > 0 {
        // As Linux: the call ends with the handshake, well or not.
        connect(fd, to)?;
    }
    if rest.is_empty() {
        return Ok(sent);
    }
    match posix::send_message(fd, rest, later, None, meta) {
        Ok(n) => Ok(sent + n),
        Err(_) if sent > 0 => Ok(sent),
        Err(Errno::EAGAIN) => Err(Errno::EINPROGRESS),
        Err(error) => Err(error),
    }
}

/// `connect`.
///
/// # Errors
/// As the system's.
pub fn connect(fd: RawFd, addr: SocketAddr) -> Result<()> {
    let mut begun = false;
    let blocking = may_wait(fd);
    let local = on_local(fd, 0, libc::SO_SNDTIMEO, |s, h| match s.connect(h, addr) {
        Err(Errno::EINPROGRESS | Errno::EALREADY) if blocking => {
            begun = true;
            Err(Errno::EAGAIN)
        }
        Err(Errno::EISCONN) if begun => Ok(()),
        // Not the blocking kind of "try again" (no port, no memory).
        Err(Errno::EAGAIN) => Err(Errno::EADDRNOTAVAIL),
        result => result,
    });
    match local {
        // SO_SNDTIMEO is over: it goes on by itself.
        Some(Err(Errno::EAGAIN)) => Err(Errno::EINPROGRESS),
        Some(result) => result,
        None => on_shared(fd, |t, s| s.connect(t, addr)),
    }
}
