//! The calls that move data, and what all that may wait have in common.
//!
//! A wait on a worker's own socket runs the worker's turns, in one of which the socket
//! may become any thread's. The call goes on there with what is left of it.

use super::{NONBLOCKING, TABLE, now_plus, on_shared, on_socket, timeval_us};
use crate::errno::{Errno, Result};
use crate::runtime::channel::Thread;
use crate::runtime::descriptors::{Entry, Owner};
use crate::runtime::hub::Hub;
use crate::runtime::shared::{SharedSocket, scatter};
use crate::runtime::{opening, sys, worker};
use crate::socket::{Handle, RecvMeta, SendMeta, Sockets};
use crate::tcp::Readiness;
use core::net::SocketAddr;
use core::sync::atomic::{AtomicU64, Ordering};
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::Duration;

/// Bytes that a read into several parts has room for, at least.
const SCRATCH: usize = 1 << 18;

/// What a call has done of itself.
#[derive(Clone, Copy, Default)]
pub(in crate::runtime) struct Begun {
    /// Bytes moved.
    pub moved: usize,
    /// When it gives up, if it has asked that yet; `None` within: never.
    pub deadline: Option<Option<u64>>,
}

impl Begun {
    /// The deadline of a call whose time-out in microseconds is this; 0: none.
    pub fn deadline(&self, timeout: &AtomicU64) -> Option<u64> {
        self.deadline.unwrap_or_else(|| match timeout.load(Ordering::Relaxed) {
            0 => None,
            us => Some(now_plus(Duration::from_micros(us))),
        })
    }
}

/// A call that may wait.
pub(in crate::runtime) struct Call {
    fd: RawFd,
    flags: i32,
    timeout_option: i32,
    begun: Begun,
    /// The socket that it began on. Its descriptor may be another's by now.
    own: Option<(Owner, u64)>,
}

impl Call {
    /// One that waits unless `flags` or the socket say otherwise, as long as the option
    /// says.
    #[inline]
    pub fn new(fd: RawFd, flags: i32, timeout_option: i32) -> Self {
        Self { fd, flags, timeout_option, begun: Begun::default(), own: None }
    }

    /// On a worker's own socket: tries until it does not say EAGAIN, running the
    /// worker's turns meanwhile if the call may block. An attempt counts what it moved.
    /// `None`: it is not one, or is one no more ([`Call::on_shared`]).
    #[inline]
    pub fn on_local<R>(
        &mut self,
        mut attempt: impl FnMut(&mut Sockets, Handle, &mut usize) -> Result<R>,
    ) -> Option<Result<R>> {
        if worker::is_busy() {
            return Some(Err(Errno::EBUSY));
        }
        loop {
            let Ok(Some(Entry::Local(owner, raw))) = TABLE.lookup(self.fd) else { return None };
            let h = Handle::from_raw(raw);
            if self.own.is_some_and(|own| own != (owner, raw)) {
                return Some(Err(Errno::EBADF));
            }
            let result = worker::with_sockets(owner, |s| attempt(s, h, &mut self.begun.moved))?;
            if !matches!(result, Err(Errno::EAGAIN)) {
                return Some(result);
            }
            if self.flags & libc::MSG_DONTWAIT != 0 || TABLE.status(self.fd) & NONBLOCKING != 0 {
                worker::found_nothing();
                return Some(result);
            }
            self.own = Some((owner, raw));
            let deadline = self.deadline(owner, h);
            if deadline.is_some_and(|d| sys::monotonic_ns() >= d) {
                return Some(result);
            }
            if Hub::current().is_none_or(Hub::stopping) {
                return Some(Err(Errno::ENETDOWN));
            }
            worker::run_blocked_turn(deadline);
        }
    }

    fn deadline(&mut self, owner: Owner, h: Handle) -> Option<u64> {
        *self.begun.deadline.get_or_insert_with(|| {
            let mut value = [0; 16];
            let read = worker::with_sockets(owner, |s| {
                s.get_option(h, libc::SOL_SOCKET, self.timeout_option, &mut value)
            });
            let us = timeval_us(&value);
            (matches!(read, Some(Ok(_))) && us > 0).then(|| now_plus(Duration::from_micros(us)))
        })
    }

    /// The rest of it, on a socket that any thread may use.
    pub fn on_shared<R>(
        &self,
        f: impl FnOnce(&mut Thread, &Arc<SharedSocket>, Begun) -> Result<R>,
    ) -> Result<R> {
        on_shared(self.fd, |thread, socket| {
            if self.own.is_some_and(|(owner, raw)| !socket.was(owner, raw)) {
                return Err(Errno::EBADF);
            }
            f(thread, socket, self.begun)
        })
    }

    /// What was moved counts more than why no more was: that is the next call's.
    #[inline]
    fn count(&self, result: Result<usize>) -> Result<usize> {
        match result {
            Err(_) if self.begun.moved > 0 => Ok(self.begun.moved),
            result => result,
        }
    }
}

/// [`Call::on_local`] for what goes on nowhere else.
#[inline]
pub(in crate::runtime) fn on_local<R>(
    fd: RawFd,
    flags: i32,
    timeout_option: i32,
    mut attempt: impl FnMut(&mut Sockets, Handle) -> Result<R>,
) -> Option<Result<R>> {
    Call::new(fd, flags, timeout_option).on_local(|s, h, _| attempt(s, h))
}

/// Puts an error back that a call took which returns something else.
///
/// # Errors
/// `EBADF`.
pub fn leave_error(fd: RawFd, error: Errno) -> Result<()> {
    on_socket(fd, |s, h| s.leave_error(h, error), |t, s| s.leave_error(t, error))
}

/// `send`.
///
/// # Errors
/// As the system's. EPIPE without a signal: that is the caller's to raise.
#[inline]
pub fn send(fd: RawFd, data: &[u8], flags: i32) -> Result<usize> {
    let mut call = Call::new(fd, flags, libc::SO_SNDTIMEO);
    let mut portless = false;
    let local = call.on_local(|s, h, sent| {
        *sent += match *sent {
            0 => s.send(h, data, flags).map_err(|error| not_waited_for(s, h, error, &mut portless))?,
            at => s.send_on(h, &data[at..], flags)?,
        };
        // A blocking write takes everything.
        if *sent < data.len() { Err(Errno::EAGAIN) } else { Ok(*sent) }
    });
    if portless {
        worker::found_nothing();
        return Err(Errno::EAGAIN);
    }
    let shared = |t: &mut Thread, s: &Arc<SharedSocket>, begun| {
        s.send(t, &[IoSlice::new(data)], flags, None, &SendMeta::default(), begun)
    };
    call.count(local.unwrap_or_else(|| call.on_shared(shared)))
}

/// Sets where "try again" says that no port is free, which is not the kind that is waited
/// for: another error stands for it meanwhile.
#[cold]
fn not_waited_for(sockets: &Sockets, h: Handle, error: Errno, portless: &mut bool) -> Errno {
    *portless = error == Errno::EAGAIN && sockets.lacks_port(h);
    if *portless { Errno::EADDRNOTAVAIL } else { error }
}

/// `sendmsg`.
///
/// # Errors
/// As the system's.
pub fn send_message(
    fd: RawFd,
    parts: &[IoSlice<'_>],
    flags: i32,
    to: Option<SocketAddr>,
    meta: &SendMeta,
) -> Result<usize> {
    if parts.len() == 1 && to.is_none() && *meta == SendMeta::default() {
        return send(fd, &parts[0], flags);
    }
    if let Some(to) = to.filter(|_| flags & libc::MSG_FASTOPEN != 0) {
        return opening::send(fd, parts, flags, to, meta);
    }
    send_rest(fd, parts, flags, to, meta, 0)
}

/// `sendmsg` of all but the first `moved` bytes, which are gone: how many are, with them.
pub(in crate::runtime) fn send_rest(
    fd: RawFd,
    parts: &[IoSlice<'_>],
    flags: i32,
    to: Option<SocketAddr>,
    meta: &SendMeta,
    moved: usize,
) -> Result<usize> {
    let want: usize = parts.iter().map(|p| p.len()).sum();
    let mut call = Call::new(fd, flags, libc::SO_SNDTIMEO);
    call.begun.moved = moved;
    let mut portless = false;
    let local = call.on_local(|s, h, sent| {
        *sent += if *sent == 0 {
            let sent = s.send_message(h, parts, flags, to, meta);
            sent.map_err(|error| not_waited_for(s, h, error, &mut portless))?
        } else if s.has_error(h) {
            return Err(Errno::EPIPE);
        } else {
            let mut rest: Vec<IoSlice<'_>> = parts.iter().map(|p| IoSlice::new(p)).collect();
            let mut rest = &mut rest[..];
            IoSlice::advance_slices(&mut rest, *sent);
            s.send_message(h, rest, flags, to, meta)?
        };
        if *sent < want { Err(Errno::EAGAIN) } else { Ok(*sent) }
    });
    if portless {
        worker::found_nothing();
        return Err(Errno::EAGAIN);
    }
    let shared = |t: &mut Thread, s: &Arc<SharedSocket>, begun| s.send(t, parts, flags, to, meta, begun);
    call.count(local.unwrap_or_else(|| call.on_shared(shared)))
}

/// A read of the urgent byte or of the error queue waits for nothing, as in Linux.
#[inline]
fn patience(flags: i32) -> i32 {
    if flags & (libc::MSG_OOB | libc::MSG_ERRQUEUE) != 0 { flags | libc::MSG_DONTWAIT } else { flags }
}

/// A read of a stream that waits waits for SO_RCVLOWAT's bytes. One that leaves them
/// where they are gets no more than there can be.
#[inline]
fn wants_more(sockets: &Sockets, h: Handle, got: usize, flags: i32) -> bool {
    let over = Readiness::IN | Readiness::RDHUP | Readiness::HUP | Readiness::ERR;
    flags & libc::MSG_OOB == 0
        && got < sockets.low_water(h)
        && !(flags & libc::MSG_PEEK != 0 && sockets.readiness(h).intersects(over))
}

/// True where nothing is left to read but what ended the connection, which is the next
/// call's.
#[inline]
fn is_broken(sockets: &Sockets, h: Handle) -> bool {
    sockets.has_error(h) && sockets.bytes_readable(h) == Ok(0)
}

/// `recv`.
///
/// # Errors
/// As the system's.
#[inline]
pub fn recv(fd: RawFd, out: &mut [u8], flags: i32) -> Result<usize> {
    let all = flags & libc::MSG_WAITALL != 0 && flags & libc::MSG_PEEK == 0;
    let mut call = Call::new(fd, patience(flags), libc::SO_RCVTIMEO);
    let local = call.on_local(|s, h, got| {
        if *got > 0 && is_broken(s, h) {
            return Ok(*got);
        }
        let from = if flags & libc::MSG_PEEK != 0 { 0 } else { *got };
        let n = s.recv(h, &mut out[from..], flags)?;
        *got = from + n;
        let more = n > 0 && *got < out.len() && (all && s.is_stream(h) || wants_more(s, h, *got, flags));
        if more { Err(Errno::EAGAIN) } else { Ok(*got) }
    });
    let shared = |t: &mut Thread, s: &Arc<SharedSocket>, begun| {
        let (n, meta) = s.recv(t, &mut [IoSliceMut::new(out)], flags, begun)?;
        Ok(if flags & libc::MSG_TRUNC != 0 && !s.stream { meta.full_len } else { n })
    };
    call.count(local.unwrap_or_else(|| call.on_shared(shared)))
}

/// `recvmsg`.
///
/// # Errors
/// As the system's.
pub fn recv_message(fd: RawFd, parts: &mut [IoSliceMut<'_>], flags: i32) -> Result<(usize, RecvMeta)> {
    let all = flags & libc::MSG_WAITALL != 0 && flags & libc::MSG_PEEK == 0;
    let want = parts.iter().map(|p| p.len()).sum::<usize>();
    let mut last = None;
    let mut call = Call::new(fd, patience(flags), libc::SO_RCVTIMEO);
    let local = call.on_local(|s, h, got| {
        if let Some(meta) = last
            && is_broken(s, h)
        {
            return Ok((*got, RecvMeta { full_len: *got, ..meta }));
        }
        let from = if flags & libc::MSG_PEEK != 0 { 0 } else { *got };
        let (n, meta) = match parts {
            [one] => s.recv_from(h, &mut one[from..], flags)?,
            _ => {
                // As much as there can be, however long the parts are.
                let most = s.bytes_readable(h).unwrap_or(0).max(SCRATCH);
                let mut whole = vec![0; (want - from).min(most)];
                let (n, meta) = s.recv_from(h, &mut whole, flags)?;
                scatter(parts, from, &whole[..n]);
                (n, meta)
            }
        };
        *got = from + n;
        last = Some(meta);
        // Of a stream there may be more to come; a datagram has a sender.
        let short = meta.from.is_none() && n > 0 && *got < want;
        let more = short && (all || wants_more(s, h, *got, flags));
        if more { Err(Errno::EAGAIN) } else { Ok((*got, meta)) }
    });
    let result = local.unwrap_or_else(|| call.on_shared(|t, s, begun| s.recv(t, parts, flags, begun)));
    match (result, last) {
        (Err(_), Some(meta)) if call.begun.moved > 0 => {
            let got = call.begun.moved;
            Ok((got, RecvMeta { full_len: got, ..meta }))
        }
        (result, _) => result,
    }
}
