//! Epoll sets, over our descriptors and the kernel's together.

use super::{Found, Object, TABLE, find, is_ours, keep_on_exec, now_plus, share};
use crate::errno::{Errno, Result};
use crate::runtime::descriptors::Owner;
use crate::runtime::hub::Hub;
use crate::runtime::set::EpollSet;
use crate::runtime::{channel, sys, worker};
use crate::socket::{EpollEvent, Handle, Sockets};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

/// `epoll_create1`.
///
/// # Errors
/// `EMFILE`, `ENFILE`; `ENETDOWN` where no runtime is running.
pub fn epoll_create(cloexec: bool) -> Result<RawFd> {
    if TABLE.forked() {
        return Err(Errno::EBADF);
    }
    if worker::is_busy() {
        return Err(Errno::EBUSY);
    }
    let hub = Hub::current().ok_or(Errno::ENETDOWN)?;
    let kernel = EpollSet::kernel()?;
    let fd = if let Some(owner) = worker::current_owner() {
        // A worker's own, until another thread uses it or what is not the worker's
        // own comes into it.
        let made = worker::with_own_core(owner, |core| {
            let h = core.sockets.epoll_create()?;
            let fd = TABLE.adopt_local(kernel, owner, h.to_raw()).inspect_err(|_| {
                let _ = core.sockets.close(h);
            })?;
            core.desk.own_sets.insert(h.to_raw(), fd);
            Ok(fd)
        });
        made.ok_or(Errno::EBADF)??
    } else {
        let set = EpollSet::new(hub, kernel.as_raw_fd(), None)?;
        TABLE.adopt(kernel, Object::Epoll(Arc::new(set)), 0)?
    };
    keep_on_exec(fd, !cloexec);
    Ok(fd)
}

/// `epoll_ctl`; the member may be ours or the kernel's.
///
/// # Errors
/// As the system's; `EINVAL` for a set in a set.
pub fn epoll_ctl(set: RawFd, op: i32, fd: RawFd, events: u32, data: u64) -> Result<()> {
    if let Found::LocalSet(owner, local) = find(set)? {
        let member = if is_ours(fd) { Some(find(fd)?) } else { None };
        match member {
            Some(Found::Local(_, h)) => {
                let control = |s: &mut Sockets| s.epoll_ctl(local, op, h, events, data);
                return worker::with_sockets(owner, control).ok_or(Errno::EBADF)?;
            }
            Some(Found::LocalSet(..)) => return Err(Errno::EINVAL),
            _ => {
                let hub = Hub::current().filter(|hub| hub.number == owner.runtime);
                may_enter(set, op, fd, events)?;
                share::share_set(hub.ok_or(Errno::ENETDOWN)?, set, owner, local)?;
            }
        }
    }
    // Its descriptor's number is nobody else's until that is over, also where
    // another thread closes it.
    match find(set)? {
        Found::Shared(guard) => match &*guard {
            Object::Epoll(set) => control(set, op, fd, events, data),
            Object::Socket(_) => Err(Errno::EINVAL),
        },
        Found::Local(..) | Found::LocalSet(..) => Err(Errno::EINVAL),
    }
}

/// Whether an empty set would do this with what is no worker's own: one that does not
/// stays as it is.
fn may_enter(set: RawFd, op: i32, fd: RawFd, events: u32) -> Result<()> {
    if !is_ours(fd) {
        return EpollSet::would_do(set, op, fd, events);
    }
    match (op, find(fd)?) {
        (libc::EPOLL_CTL_ADD, Found::Shared(guard)) if matches!(&*guard, Object::Socket(_)) => Ok(()),
        (libc::EPOLL_CTL_MOD | libc::EPOLL_CTL_DEL, Found::Shared(guard)) if matches!(&*guard, Object::Socket(_)) => Err(Errno::ENOENT),
        _ => Err(Errno::EINVAL),
    }
}

fn control(set: &EpollSet, op: i32, fd: RawFd, events: u32, data: u64) -> Result<()> {
    if !is_ours(fd) {
        return set.control_kernel(op, fd, events, data);
    }
    if let Found::Local(owner, h) = find(fd)? {
        let local = if op == libc::EPOLL_CTL_ADD { set.own_part(owner)? } else { set.local(owner, true)? };
        if let Some(local) = local {
            return worker::with_sockets(owner, |s| s.epoll_ctl(local, op, h, events, data)).ok_or(Errno::EBADF)?;
        }
        worker::with_own_core(owner, |core| share::adopt(core, fd, h)).ok_or(Errno::EBADF)??;
    }
    match find(fd)? {
        Found::Local(..) | Found::LocalSet(..) => Err(Errno::EINVAL),
        Found::Shared(guard) => match &*guard {
            Object::Socket(socket) => {
                channel::with(|thread| set.control(thread, op, fd, socket, events, data))
            }
            Object::Epoll(_) => Err(Errno::EINVAL),
        },
    }
}

/// `epoll_wait`: up to `max` events in `out`, which is emptied first. No
/// time-out: for ever.
///
/// # Errors
/// `EINTR`, `EINVAL`, `EBADF`.
pub fn epoll_wait(set: RawFd, out: &mut Vec<EpollEvent>, max: usize, timeout: Option<Duration>) -> Result<usize> {
    if max == 0 {
        return Err(Errno::EINVAL);
    }
    out.clear();
    worker::run_due_turn();
    match find(set)? {
        Found::LocalSet(owner, h) => wait_own(set, owner, h, out, max, timeout),
        Found::Shared(guard) => match &*guard {
            Object::Epoll(set) => set.wait(out, max, timeout.map(now_plus)),
            Object::Socket(_) => Err(Errno::EINVAL),
        },
        Found::Local(..) => Err(Errno::EINVAL),
    }
}

/// Waits on a worker's own set, running the worker's turns meanwhile.
fn wait_own(
    fd: RawFd,
    owner: Owner,
    h: Handle,
    out: &mut Vec<EpollEvent>,
    max: usize,
    timeout: Option<Duration>,
) -> Result<usize> {
    // One that does not wait asks for no time.
    let deadline = timeout.map(|t| if t.is_zero() { 0 } else { now_plus(t) });
    let mut first = true;
    loop {
        let n = worker::with_sockets(owner, |s| s.epoll_wait(h, out, max)).ok_or(Errno::EBADF)??;
        let over = deadline.is_some_and(|d| d == 0 || sys::monotonic_ns() >= d);
        // A worker's network goes on even under a program that only polls.
        if n > 0 || over && !first {
            return Ok(n);
        }
        if !over && Hub::current().is_none_or(Hub::stopping) {
            return Err(Errno::ENETDOWN);
        }
        first = false;
        worker::run_blocked_turn(if over { Some(0) } else { deadline });
        // Another thread may have used it in that turn, or closed it.
        match find(fd)? {
            Found::LocalSet(_, same) if same == h => {}
            Found::Shared(guard) => match &*guard {
                Object::Epoll(set) if set.local(owner, false)? == Some(h) => return set.wait(out, max, deadline),
                _ => return Err(Errno::EBADF),
            },
            _ => return Err(Errno::EBADF),
        }
    }
}
