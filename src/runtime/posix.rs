//! The calls of POSIX on descriptors, from any thread.
//!
//! On a worker's own thread a call on a socket that was made there is a plain
//! function call on that core's stack, and one that would block runs the
//! worker's turns until it need not. Elsewhere it goes through the socket's
//! rings. `flags` and options are Linux's numbers; errors are the system's.

mod epoll;
mod figures;
mod own;
mod poll;
mod share;

pub use epoll::{epoll_create, epoll_ctl, epoll_wait};
pub use figures::{
    bytes_readable, close_on_exec, figure, nonblocking, set_close_on_exec, set_nonblocking,
};
pub(super) use own::on_own;
pub use own::{own_ready, own_ready_now, own_recv, own_recv_from, own_recv_now, own_send, own_send_now, own_send_to};
pub use poll::poll;
pub(super) use share::open_members;

use super::channel::{self, Thread};
use super::descriptors::{Entry, Guard, Owner, Table, keep_on_exec};
use super::hub::Hub;
use super::set::EpollSet;
use super::shared::{SharedSocket, scatter};
use super::{sys, worker};
pub use super::opening::connect;
use crate::errno::{Errno, Result};
use crate::socket::{Handle, RecvMeta, SendMeta, Sockets};
use crate::tcp::Readiness;
use core::net::SocketAddr;
use core::sync::atomic::Ordering;
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::Duration;

/// What a descriptor of ours can be, beside a worker's own socket.
enum Object {
    Socket(Arc<SharedSocket>),
    Epoll(Arc<EpollSet>),
}

static TABLE: Table<Object> = Table::new();

/// Bytes that a read into several parts has room for, at least.
const SCRATCH: usize = 1 << 18;

/// In a descriptor's status: O_NONBLOCK, of a worker's own socket.
const NONBLOCKING: u32 = 1;

/// `struct timeval` in microseconds; what cannot be is none.
pub(super) fn timeval_us(value: &[u8]) -> u64 {
    let part = |at: usize| {
        let bytes = value.get(at..at + 8).and_then(|b| b.try_into().ok());
        bytes.map_or(0, |b| i64::from_ne_bytes(b).max(0) as u64)
    };
    part(0).saturating_mul(1_000_000).saturating_add(part(8))
}

fn now_plus(timeout: Duration) -> u64 {
    sys::monotonic_ns().saturating_add(timeout.as_nanos().min(u64::MAX.into()) as u64)
}

/// A socket, wherever it is.
enum Found<'t> {
    Local(Owner, Handle),
    /// An epoll set of this worker's own.
    LocalSet(Owner, Handle),
    Shared(Guard<'t, Object>),
}

/// Looks a descriptor up; a worker's own socket or set that another thread uses
/// becomes one that any thread may use.
fn find(fd: RawFd) -> Result<Found<'static>> {
    if worker::in_app() {
        return Err(Errno::EBUSY);
    }
    loop {
        match TABLE.lookup(fd)?.ok_or(Errno::EBADF)? {
            Entry::Shared(guard) => return Ok(Found::Shared(guard)),
            Entry::Local(owner, raw) if worker::current_owner() == Some(owner) => {
                return Ok(Found::Local(owner, Handle::from_raw(raw)));
            }
            Entry::LocalSet(owner, raw) if worker::current_owner() == Some(owner) => {
                return Ok(Found::LocalSet(owner, Handle::from_raw(raw)));
            }
            Entry::Local(owner, _) | Entry::LocalSet(owner, _) => share::promote(fd, owner)?,
        }
    }
}

/// The way of most calls: on the worker's own sockets, or on a shared one.
fn on_socket<R>(
    fd: RawFd,
    local: impl FnOnce(&mut Sockets, Handle) -> Result<R>,
    shared: impl FnOnce(&mut Thread, &Arc<SharedSocket>) -> Result<R>,
) -> Result<R> {
    let result = match find(fd)? {
        Found::Local(owner, h) => worker::with_sockets(owner, |s| local(s, h)).ok_or(Errno::EBADF)?,
        Found::LocalSet(..) => Err(Errno::ENOTSOCK),
        Found::Shared(guard) => match &*guard {
            Object::Socket(socket) => channel::with(|thread| shared(thread, socket)),
            Object::Epoll(_) => Err(Errno::ENOTSOCK),
        },
    };
    if matches!(result, Err(Errno::EAGAIN)) {
        worker::found_nothing();
    }
    result
}

/// On a worker's own socket: tries until it does not say EAGAIN, running the
/// worker's turns meanwhile if the call may block. `None`: it is not one.
#[inline]
pub(super) fn on_local<R>(
    fd: RawFd,
    flags: i32,
    timeout_option: i32,
    mut attempt: impl FnMut(&mut Sockets, Handle) -> Result<R>,
) -> Option<Result<R>> {
    if worker::in_app() {
        return Some(Err(Errno::EBUSY));
    }
    let mut deadline = None;
    loop {
        let Ok(Some(Entry::Local(owner, raw))) = TABLE.lookup(fd) else { return None };
        let h = Handle::from_raw(raw);
        let result = worker::with_sockets(owner, |s| attempt(s, h))?;
        if !matches!(result, Err(Errno::EAGAIN)) {
            return Some(result);
        }
        if flags & libc::MSG_DONTWAIT != 0 || TABLE.status(fd) & NONBLOCKING != 0 {
            worker::found_nothing();
            return Some(result);
        }
        let deadline = *deadline.get_or_insert_with(|| {
            let mut value = [0; 16];
            let read = worker::with_sockets(owner, |s| {
                s.get_option(h, libc::SOL_SOCKET, timeout_option, &mut value)
            });
            let us = timeval_us(&value);
            (matches!(read, Some(Ok(_))) && us > 0).then(|| now_plus(Duration::from_micros(us)))
        });
        if deadline.is_some_and(|d| sys::monotonic_ns() >= d) {
            return Some(result);
        }
        if Hub::current().is_none_or(Hub::stopping) {
            return Some(Err(Errno::ENETDOWN));
        }
        worker::run_blocked_turn(deadline);
    }
}

/// True where a call may wait: O_NONBLOCK is not set.
pub(super) fn may_wait(fd: RawFd) -> bool {
    TABLE.status(fd) & NONBLOCKING == 0
}

pub(super) fn on_shared<R>(fd: RawFd, f: impl FnOnce(&mut Thread, &Arc<SharedSocket>) -> Result<R>) -> Result<R> {
    on_socket(fd, |_, _| Err(Errno::EBADF), f)
}

/// True where the descriptor is one of ours.
#[inline]
pub fn is_ours(fd: RawFd) -> bool {
    TABLE.is_ours(fd)
}

/// Children of this process are told from it from now on.
pub(super) fn watch_forks() {
    TABLE.watch_forks();
}

/// True in a forked child, whose calls fail.
pub fn forked() -> bool {
    TABLE.forked()
}

/// True where there is a runtime, on which new sockets are made.
pub fn is_running() -> bool {
    Hub::current().is_some()
}

/// Refuses a descriptor that is not open.
///
/// # Errors
/// `EBADF`.
pub fn is_open(fd: RawFd) -> Result<()> {
    TABLE.lookup(fd)?.map(|_| ()).ok_or(Errno::EBADF)
}

/// `socket`; `kind` may carry SOCK_NONBLOCK and SOCK_CLOEXEC.
///
/// # Errors
/// As the system's; `ENETDOWN` where no runtime is running.
pub fn socket(domain: i32, kind: i32, protocol: i32) -> Result<RawFd> {
    if TABLE.forked() {
        return Err(Errno::EBADF);
    }
    if worker::in_app() {
        return Err(Errno::EBUSY);
    }
    let hub = Hub::current().ok_or(Errno::ENETDOWN)?;
    let nonblocking = kind & libc::SOCK_NONBLOCK != 0;
    let plain = kind & !(libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC);
    let fd = if let Some(owner) = worker::current_owner() {
        let h = worker::with_sockets(owner, |s| s.socket(domain, plain, protocol)).ok_or(Errno::EBADF)??;
        name_local(owner, h, nonblocking)?
    } else {
        channel::with(|thread| {
            let socket = SharedSocket::open(thread, hub, domain, plain, protocol, nonblocking)?;
            name_shared(socket)
        })?
    };
    keep_on_exec(fd, kind & libc::SOCK_CLOEXEC == 0);
    Ok(fd)
}

fn name_local(owner: Owner, h: Handle, nonblocking: bool) -> Result<RawFd> {
    let status = if nonblocking { NONBLOCKING } else { 0 };
    TABLE.insert_local(owner, h.to_raw(), status).inspect_err(|_| {
        let _ = worker::with_sockets(owner, |s| s.close(h));
    })
}

fn name_shared(socket: SharedSocket) -> Result<RawFd> {
    TABLE.insert_shared(Object::Socket(Arc::new(socket)), 0)
}

/// `bind`.
///
/// # Errors
/// As the system's.
pub fn bind(fd: RawFd, addr: SocketAddr) -> Result<()> {
    on_socket(fd, |s, h| s.bind(h, addr), |t, s| s.bind(t, addr))
}

/// `listen`.
///
/// # Errors
/// As the system's.
pub fn listen(fd: RawFd, backlog: i32) -> Result<()> {
    on_socket(fd, |s, h| s.listen(h, backlog), |t, s| s.listen(t, backlog))
}

/// `accept4`.
///
/// # Errors
/// As the system's.
pub fn accept4(fd: RawFd, flags: i32) -> Result<(RawFd, SocketAddr)> {
    if flags & !(libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC) != 0 {
        return Err(Errno::EINVAL);
    }
    let nonblocking = flags & libc::SOCK_NONBLOCK != 0;
    let accepted = on_local(fd, 0, libc::SO_RCVTIMEO, |s, h| s.accept(h));
    let (new, peer) = match accepted {
        Some(result) => {
            let (h, peer) = result?;
            let owner = worker::current_owner().ok_or(Errno::EBADF)?;
            (name_local(owner, h, nonblocking)?, peer)
        }
        None => on_shared(fd, |thread, socket| {
            let (made, peer) = socket.accept(thread, nonblocking)?;
            Ok((name_shared(made)?, peer))
        })?,
    };
    keep_on_exec(new, flags & libc::SOCK_CLOEXEC == 0);
    Ok((new, peer))
}

/// `connect` to AF_UNSPEC.
///
/// # Errors
/// As the system's.
pub fn disconnect(fd: RawFd) -> Result<()> {
    on_socket(fd, |s, h| s.disconnect(h), |t, s| s.disconnect(t))
}

/// `send`.
///
/// # Errors
/// As the system's. EPIPE without a signal: that is the caller's to raise.
#[inline]
pub fn send(fd: RawFd, data: &[u8], flags: i32) -> Result<usize> {
    let mut sent = 0;
    let local = on_local(fd, flags, libc::SO_SNDTIMEO, |s, h| {
        let n = s.send(h, &data[sent..], flags)?;
        sent += n;
        // A blocking write takes everything.
        if sent < data.len() { Err(Errno::EAGAIN) } else { Ok(sent) }
    });
    match local {
        Some(Err(_)) if sent > 0 => Ok(sent),
        Some(result) => result,
        None => on_shared(fd, |t, s| s.send(t, &[IoSlice::new(data)], flags, None, &SendMeta::default())),
    }
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
        return super::opening::send(fd, parts, flags, to, meta);
    }
    let want: usize = parts.iter().map(|p| p.len()).sum();
    let mut sent = 0;
    let local = on_local(fd, flags, libc::SO_SNDTIMEO, |s, h| {
        let n = if sent == 0 {
            s.send_message(h, parts, flags, to, meta)?
        } else {
            let mut rest: Vec<IoSlice<'_>> = parts.iter().map(|p| IoSlice::new(p)).collect();
            let mut rest = &mut rest[..];
            IoSlice::advance_slices(&mut rest, sent);
            s.send_message(h, rest, flags, to, meta)?
        };
        sent += n;
        if sent < want { Err(Errno::EAGAIN) } else { Ok(sent) }
    });
    match local {
        Some(Err(_)) if sent > 0 => Ok(sent),
        Some(result) => result,
        None => on_shared(fd, |t, s| s.send(t, parts, flags, to, meta)),
    }
}

/// A read of the urgent byte waits for nothing, as in Linux.
#[inline]
fn patience(flags: i32) -> i32 {
    if flags & libc::MSG_OOB != 0 { flags | libc::MSG_DONTWAIT } else { flags }
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

/// `recv`.
///
/// # Errors
/// As the system's.
#[inline]
pub fn recv(fd: RawFd, out: &mut [u8], flags: i32) -> Result<usize> {
    let all = flags & libc::MSG_WAITALL != 0 && flags & libc::MSG_PEEK == 0;
    let mut got = 0;
    let local = on_local(fd, patience(flags), libc::SO_RCVTIMEO, |s, h| {
        let from = if flags & libc::MSG_PEEK != 0 { 0 } else { got };
        let n = s.recv(h, &mut out[from..], flags)?;
        got = from + n;
        let more = n > 0 && got < out.len() && (all || wants_more(s, h, got, flags));
        if more { Err(Errno::EAGAIN) } else { Ok(got) }
    });
    match local {
        Some(Err(_)) if got > 0 => Ok(got),
        Some(result) => result,
        None => on_shared(fd, |t, s| {
            let (n, meta) = s.recv(t, &mut [IoSliceMut::new(out)], flags)?;
            Ok(if flags & libc::MSG_TRUNC != 0 && !s.stream { meta.full_len } else { n })
        }),
    }
}

/// `recvmsg`.
///
/// # Errors
/// As the system's.
pub fn recv_message(fd: RawFd, parts: &mut [IoSliceMut<'_>], flags: i32) -> Result<(usize, RecvMeta)> {
    let all = flags & libc::MSG_WAITALL != 0 && flags & libc::MSG_PEEK == 0;
    let want = parts.iter().map(|p| p.len()).sum::<usize>();
    let mut got = 0;
    let mut last = None;
    let local = on_local(fd, patience(flags), libc::SO_RCVTIMEO, |s, h| {
        let from = if flags & libc::MSG_PEEK != 0 { 0 } else { got };
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
        got = from + n;
        last = Some(meta);
        // Of a stream there may be more to come; a datagram has a sender.
        let short = meta.from.is_none() && n > 0 && got < want;
        let more = short && (all || wants_more(s, h, got, flags));
        if more { Err(Errno::EAGAIN) } else { Ok((got, meta)) }
    });
    match (local, last) {
        (Some(Err(_)), Some(meta)) if got > 0 => Ok((got, RecvMeta { full_len: got, ..meta })),
        (Some(result), _) => result,
        (None, _) => on_shared(fd, |t, s| s.recv(t, parts, flags)),
    }
}

/// `shutdown`.
///
/// # Errors
/// As the system's.
pub fn shutdown(fd: RawFd, how: i32) -> Result<()> {
    on_socket(fd, |s, h| s.shutdown(h, how), |t, s| s.shutdown(t, how))
}

/// SO_LINGER with a time: `close` waits until the peer has everything, FIN
/// included, or the time is over; O_NONBLOCK or not, as in Linux.
fn linger(owner: Owner, h: Handle) {
    let options = worker::with_sockets(owner, |s| s.blocking_options(h));
    let Some(Ok((_, _, Some(seconds @ 1..)))) = options else { return };
    let deadline = now_plus(Duration::from_secs(seconds as u64));
    // What was not read makes it a reset, which waits for nothing.
    let begun = worker::with_sockets(owner, |s| {
        s.bytes_readable(h) == Ok(0) && s.shutdown(h, libc::SHUT_WR).is_ok()
    });
    while begun == Some(true) && sys::monotonic_ns() < deadline {
        let over = worker::with_sockets(owner, |s| s.is_delivered(h)).unwrap_or(true);
        if over || Hub::current().is_none_or(Hub::stopping) {
            return;
        }
        worker::run_blocked_turn(Some(deadline));
    }
}

/// `close`.
///
/// # Errors
/// `EBADF`.
pub fn close(fd: RawFd) -> Result<()> {
    match find(fd)? {
        Found::Local(owner, h) => {
            linger(owner, h);
            TABLE.remove_local(fd)?;
            worker::with_sockets(owner, |s| s.close(h)).ok_or(Errno::EBADF)?
        }
        Found::LocalSet(owner, h) => {
            TABLE.remove_local(fd)?;
            worker::with_own_core(owner, |core| core.close_own_set(h)).ok_or(Errno::EBADF)?
        }
        Found::Shared(guard) => {
            let socket = match &*guard {
                Object::Socket(socket) => Some(socket.clone()),
                Object::Epoll(set) => {
                    set.close();
                    None
                }
            };
            TABLE.remove_shared(guard)?;
            if let Some(socket) = socket
                && socket.names.fetch_sub(1, Ordering::AcqRel) == 1
            {
                let _ = channel::with(|thread| {
                    if Arc::strong_count(&socket) > 1 {
                        // Others are in calls on it: they end with EBADF.
                        socket.nudge(thread);
                    }
                    socket.linger(thread);
                    Ok(())
                });
            }
            Ok(())
        }
    }
}

/// F_DUPFD: another descriptor of the same socket, numbered `from` or higher. (Numbers
/// that threads keep for their next sockets count as taken.)
///
/// # Errors
/// `EBADF`, `EMFILE`; `EINVAL` for an epoll set, and as the system has it where `from`
/// is no number that a descriptor may have.
pub fn dup(fd: RawFd, from: RawFd, cloexec: bool) -> Result<RawFd> {
    if from < 0 || from as u64 >= sys::most_descriptors() {
        find(fd)?;
        return Err(Errno::EINVAL);
    }
    if let Some(Entry::Local(owner, raw)) = TABLE.lookup(fd)?
        && worker::current_owner() == Some(owner)
    {
        // Two names: what any thread may use counts its names.
        worker::with_own_core(owner, |core| share::adopt(core, fd, Handle::from_raw(raw))).ok_or(Errno::EBADF)??;
    }
    let guard = match find(fd)? {
        Found::Shared(guard) => guard,
        Found::LocalSet(..) => return Err(Errno::EINVAL),
        Found::Local(..) => return Err(Errno::EBADF),
    };
    let Object::Socket(socket) = &*guard else { return Err(Errno::EINVAL) };
    let one_more = |n: u32| (n > 0).then_some(n + 1);
    // None are left where it is being closed: those who use it were told to end.
    let named = socket.names.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more);
    named.map_err(|_| Errno::EBADF)?;
    let new = TABLE.insert_shared_from(Object::Socket(socket.clone()), from).inspect_err(|_| {
        socket.names.fetch_sub(1, Ordering::AcqRel);
    })?;
    keep_on_exec(new, !cloexec);
    Ok(new)
}

/// `setsockopt`.
///
/// # Errors
/// As the system's.
pub fn set_option(fd: RawFd, level: i32, name: i32, value: &[u8]) -> Result<()> {
    on_socket(fd, |s, h| s.set_option(h, level, name, value), |t, s| s.set_option(t, level, name, value))
}

/// `getsockopt`: how many bytes were written.
///
/// # Errors
/// As the system's.
pub fn get_option(fd: RawFd, level: i32, name: i32, out: &mut [u8]) -> Result<usize> {
    match find(fd)? {
        Found::Local(owner, h) => {
            worker::with_sockets(owner, |s| s.get_option(h, level, name, out)).ok_or(Errno::EBADF)?
        }
        Found::LocalSet(..) => Err(Errno::ENOTSOCK),
        Found::Shared(guard) => match &*guard {
            Object::Socket(socket) => channel::with(|t| socket.get_option(t, level, name, out)),
            Object::Epoll(_) => Err(Errno::ENOTSOCK),
        },
    }
}

/// `getsockname`.
///
/// # Errors
/// As the system's.
pub fn local_addr(fd: RawFd) -> Result<SocketAddr> {
    on_socket(fd, |s, h| s.local_addr(h), |t, s| s.local_addr(t))
}

/// `getpeername`.
///
/// # Errors
/// As the system's.
pub fn peer_addr(fd: RawFd) -> Result<SocketAddr> {
    on_socket(fd, |s, h| s.peer_addr(h), |t, s| s.peer_addr(t))
}

/// What a descriptor is ready for now.
///
/// # Errors
/// `EBADF`.
pub fn readiness(fd: RawFd) -> Result<Readiness> {
    match find(fd)? {
        Found::Local(owner, h) => worker::with_sockets(owner, |s| s.readiness(h)).ok_or(Errno::EBADF),
        Found::LocalSet(..) => Err(Errno::EINVAL),
        Found::Shared(guard) => match &*guard {
            Object::Socket(socket) => Ok(Readiness::from_bits_truncate(socket.readiness())),
            Object::Epoll(_) => Err(Errno::EINVAL),
        },
    }
}

/// The shared socket of a descriptor, for tests of its insides.
#[cfg(test)]
pub(super) fn shared_of(fd: RawFd) -> Result<Arc<SharedSocket>> {
    match find(fd)? {
        Found::Shared(guard) => match &*guard {
            Object::Socket(socket) => Ok(socket.clone()),
            Object::Epoll(_) => Err(Errno::ENOTSOCK),
        },
        Found::Local(..) | Found::LocalSet(..) => Err(Errno::EBADF),
    }
}
