//! The calls of POSIX on descriptors, from any thread.
//!
//! On a worker's own thread a call on a socket that was made there is a plain
//! function call on that core's stack, and one that would block runs the
//! worker's turns until it need not. Elsewhere it goes through the socket's
//! rings. `flags` and options are Linux's numbers; errors are the system's.

mod data;
mod epoll;
mod figures;
mod own;
mod poll;
mod share;

pub(super) use data::{Begun, Call, on_local, send_rest};
pub use data::{leave_error, recv, recv_message, send, send_message};
pub use epoll::{epoll_create, epoll_ctl, epoll_wait};
pub use figures::{
    bytes_readable, close_on_exec, figure, nonblocking, set_close_on_exec, set_nonblocking,
};
pub(super) use own::on_own;
pub(crate) use own::on_own_now;
pub use own::{
    own_ready, own_ready_now, own_recv, own_recv_from, own_recv_from_now, own_recv_now, own_send, own_send_now, own_send_to,
    own_send_to_now,
};
pub use poll::poll;
pub(super) use share::open_members;

use super::channel::{self, Thread};
use super::descriptors::{Entry, Guard, Owner, Table, keep_on_exec};
use super::hub::Hub;
use super::set::EpollSet;
use super::shared::SharedSocket;
use super::{sys, worker};
pub use super::opening::connect;
use crate::errno::{Errno, Result};
use crate::socket::{Handle, Sockets};
use crate::tcp::Readiness;
use core::net::SocketAddr;
use core::sync::atomic::Ordering;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::Duration;

/// What a descriptor of ours can be, beside a worker's own socket.
enum Object {
    Socket(Arc<SharedSocket>),
    Epoll(Arc<EpollSet>),
}

static TABLE: Table<Object> = Table::new();

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
/// becomes one that any thread may use. `EBUSY` from within a call or a turn.
fn find(fd: RawFd) -> Result<Found<'static>> {
    if worker::is_busy() {
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

/// True where a call may wait: O_NONBLOCK is not set.
pub(super) fn may_wait(fd: RawFd) -> bool {
    TABLE.status(fd) & NONBLOCKING == 0
}

pub(super) fn on_shared<R>(fd: RawFd, f: impl FnOnce(&mut Thread, &Arc<SharedSocket>) -> Result<R>) -> Result<R> {
    on_socket(fd, |_, _| Err(Errno::EBADF), f)
}

/// Runs `f` on a socket that any thread may use, where this thread is its worker's.
pub(super) fn on_shared_here<R>(fd: RawFd, f: impl FnOnce(&mut Sockets, Handle) -> R) -> Option<R> {
    let owner = worker::current_owner()?;
    let Ok(Some(Entry::Shared(guard))) = TABLE.lookup(fd) else { return None };
    let Object::Socket(socket) = &*guard else { return None };
    let (id, h) = socket.at_worker(owner)?;
    worker::with_own_core(owner, |core| {
        let result = f(&mut core.sockets, h);
        core.pump(id, 0);
        result
    })
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
    if worker::is_busy() {
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
    let mut call = Call::new(fd, 0, libc::SO_RCVTIMEO);
    let accepted = call.on_local(|s, h, _| s.accept(h));
    let (new, peer) = match accepted {
        Some(result) => {
            let (h, peer) = result?;
            let owner = worker::current_owner().ok_or(Errno::EBADF)?;
            (name_local(owner, h, nonblocking)?, peer)
        }
        None => call.on_shared(|thread, socket, begun| {
            let (made, peer) = socket.accept(thread, nonblocking, begun)?;
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

/// `shutdown`.
///
/// # Errors
/// As the system's.
pub fn shutdown(fd: RawFd, how: i32) -> Result<()> {
    on_socket(fd, |s, h| s.shutdown(h, how), |t, s| s.shutdown(t, how))
}

/// SO_LINGER with a time: `close` waits until the peer has everything, FIN
/// included, or the time is over; O_NONBLOCK or not, as in Linux. Meanwhile another
/// thread may use the descriptor, or close it: what it stands for then is looked up anew,
/// and is to linger until the same time.
fn linger(fd: RawFd, owner: Owner, h: Handle) -> Result<(Found<'static>, Option<u64>)> {
    let options = worker::with_sockets(owner, |s| s.blocking_options(h));
    let Some(Ok((_, _, Some(seconds @ 1..)))) = options else { return Ok((Found::Local(owner, h), None)) };
    let deadline = now_plus(Duration::from_secs(seconds as u64));
    // What was not read makes it a reset, which waits for nothing.
    let begun = worker::with_sockets(owner, |s| {
        s.bytes_readable(h) == Ok(0) && s.shutdown(h, libc::SHUT_WR).is_ok()
    });
    while begun == Some(true) && sys::monotonic_ns() < deadline {
        let over = worker::with_sockets(owner, |s| s.is_delivered(h)).unwrap_or(true);
        if over || Hub::current().is_none_or(Hub::stopping) {
            break;
        }
        worker::run_blocked_turn(Some(deadline));
    }
    let found = find(fd)?;
    let same = match &found {
        Found::Local(_, now) => *now == h,
        Found::LocalSet(..) => false,
        Found::Shared(guard) => matches!(&**guard, Object::Socket(s) if s.was(owner, h.to_raw())),
    };
    if same { Ok((found, Some(deadline))) } else { Err(Errno::EBADF) }
}

/// `close`.
///
/// # Errors
/// `EBADF`.
pub fn close(fd: RawFd) -> Result<()> {
    let (found, deadline) = match find(fd)? {
        Found::Local(owner, h) => linger(fd, owner, h)?,
        found => (found, None),
    };
    match found {
        Found::Local(owner, h) => {
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
                    socket.linger(thread, deadline);
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
