//! Frames lent to a program without a copy, on a worker's own sockets. Sockets
//! that any thread may use copy: `EOPNOTSUPP`.

use super::hub::Hub;
use super::{posix, worker};
use crate::errno::{Errno, Result};
use crate::frame::{Arena, Frame};
use crate::socket::Sockets;
use std::os::fd::RawFd;

/// What becomes of a frame that a call does not take: it comes back.
pub type Refused = (Errno, Frame);

/// The memory that lent frames lie in.
///
/// # Errors
/// `ENETDOWN` where no runtime is running.
pub fn arena() -> Result<&'static Arena> {
    Hub::current().map(|hub| &*hub.arena).ok_or(Errno::ENETDOWN)
}

/// Lends the next received frame; `None` at the end of the stream.
///
/// # Errors
/// As `recv`; `EOPNOTSUPP` for a socket that is not this worker's own.
pub fn recv(fd: RawFd, flags: i32) -> Result<Option<Frame>> {
    let own = posix::on_own(fd, flags, |s, h| s.zc_recv(h));
    match own.or_else(|| posix::on_local(fd, flags, libc::SO_RCVTIMEO, |s, h| s.zc_recv(h))) {
        Some(Err(Errno::ESHUTDOWN)) => Ok(None),
        Some(result) => result.map(Some),
        None => Err(elsewhere(fd)),
    }
}

/// Hands out a frame to write.
///
/// # Errors
/// `EAGAIN`, `EPIPE`, and as [`recv`].
pub fn alloc(fd: RawFd) -> Result<Frame> {
    let now = libc::MSG_DONTWAIT;
    if let Some(own) = posix::on_own(fd, now, |s, h| s.zc_alloc(h)) {
        return own;
    }
    let local = posix::on_local(fd, now, libc::SO_SNDTIMEO, |s, h| s.zc_alloc(h));
    local.unwrap_or_else(|| Err(elsewhere(fd)))
}

/// Takes a frame back, read or unsent; also where the socket, since it lent that, became
/// one that any thread may use.
///
/// # Errors
/// The frame comes back with `EOPNOTSUPP` or `EBADF` where the socket is not on this
/// worker.
pub fn release(fd: RawFd, frame: Frame) -> core::result::Result<(), Refused> {
    let mut given = Some(frame);
    let now = libc::MSG_DONTWAIT;
    let mut give = |s: &mut Sockets, h| given.take().map_or(Ok(()), |frame| s.zc_release(h, frame));
    if let Some(Ok(())) = posix::on_own(fd, now, &mut give) {
        return Ok(());
    }
    let mut done = posix::on_local(fd, now, libc::SO_RCVTIMEO, &mut give);
    if done.is_none() {
        done = posix::on_shared_here(fd, give);
    }
    match given {
        Some(frame) => Err((done.map_or_else(|| elsewhere(fd), |r| r.err().unwrap_or(Errno::EBADF)), frame)),
        None => Ok(()),
    }
}

/// Takes a frame back whose socket is closed, on the worker that it was on.
///
/// # Errors
/// The frame comes back on any other thread.
pub fn release_orphan(frame: Frame) -> core::result::Result<(), Refused> {
    let mut given = Some(frame);
    if let Some(owner) = worker::current_owner() {
        worker::with_sockets(owner, |s| {
            // The books of the stack say whose it was.
            let nobody = crate::socket::Handle::from_raw(u64::MAX);
            given.take().map(|frame| s.zc_release(nobody, frame))
        });
    }
    given.map_or(Ok(()), |frame| Err((Errno::EBADF, frame)))
}

/// Sends a frame of [`alloc`], its range being the payload.
///
/// # Errors
/// As `send`; the frame comes back.
pub fn send(fd: RawFd, frame: Frame, flags: i32) -> core::result::Result<(), Refused> {
    let mut given = Some(frame);
    let mut give = |s: &mut Sockets, h| {
        let Some(frame) = given.take() else { return Ok(()) };
        s.zc_send(h, frame).map_err(|(error, frame)| {
            given = Some(frame);
            error
        })
    };
    let own = posix::on_own(fd, flags, &mut give);
    if own == Some(Ok(())) {
        return Ok(());
    }
    let done = own.or_else(|| posix::on_local(fd, flags, libc::SO_SNDTIMEO, give));
    match given {
        Some(frame) => Err((done.map_or_else(|| elsewhere(fd), |r| r.err().unwrap_or(Errno::EBADF)), frame)),
        None => Ok(()),
    }
}

#[cold]
fn elsewhere(fd: RawFd) -> Errno {
    posix::is_open(fd).err().unwrap_or(Errno::EOPNOTSUPP)
}
