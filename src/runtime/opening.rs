//! Opening: `connect`, and `sendmsg` with MSG_FASTOPEN (RFC 7413), which opens and
//! sends.

use super::posix::{self, Call, may_wait, on_local};
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
    let want = parts.iter().map(|p| p.len()).sum::<usize>();
    // Without data it is `connect`.
    let bare = want == 0 && begun.is_some();
    let sent = match begun {
        Some(Ok(n)) => n,
        // Nothing was taken yet.
        Some(Err(Errno::EINPROGRESS)) if waits || !bare => 0,
        Some(Err(error)) => return Err(error),
        // A socket of any thread: its data goes by a ring, behind the SYN.
        None => {
            connect(fd, to)?;
            0
        }
    };
    if waits && (sent > 0 || bare) {
        // As Linux: the call ends with the handshake, well or not, or in time.
        match connect(fd, to) {
            Err(Errno::EINPROGRESS) if !bare => return Ok(sent),
            result => result?,
        }
    }
    if sent == want {
        return Ok(sent);
    }
    match posix::send_rest(fd, parts, later, None, meta, sent) {
        Err(Errno::EAGAIN) => Err(Errno::EINPROGRESS),
        result => result,
    }
}

/// `connect`.
///
/// # Errors
/// As the system's.
pub fn connect(fd: RawFd, addr: SocketAddr) -> Result<()> {
    let mut begun = false;
    let blocking = may_wait(fd);
    let mut call = Call::new(fd, 0, libc::SO_SNDTIMEO);
    let local = call.on_local(|s, h, _| match s.connect(h, addr) {
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
        None => call.on_shared(|t, s, so_far| s.connect(t, addr, begun, so_far)),
    }
}
