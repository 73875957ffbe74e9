//! Epoll sets, over our descriptors and the kernel's together.

use super::{Found, Object, TABLE, find, is_ours, keep_on_exec, now_plus};
use crate::errno::{Errno, Result};
use crate::runtime::hub::Hub;
use crate::runtime::set::EpollSet;
use crate::runtime::{channel, worker};
use crate::socket::EpollEvent;
use std::os::fd::RawFd;
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
    let hub = Hub::current().ok_or(Errno::ENETDOWN)?;
    let (set, fd) = EpollSet::new(hub)?;
    let fd = TABLE.adopt(fd, Object::Epoll(Arc::new(set)), 0)?;
    keep_on_exec(fd, !cloexec);
    Ok(fd)
}

/// Runs `f` on a set. Its descriptor's number is nobody else's until that is
/// over, also where another thread closes it.
fn on_set<R>(fd: RawFd, f: impl FnOnce(&EpollSet) -> Result<R>) -> Result<R> {
    match find(fd)? {
        Found::Shared(guard) => match &*guard {
            Object::Epoll(set) => f(set),
            Object::Socket(_) => Err(Errno::EINVAL),
        },
        Found::Local(..) => Err(Errno::EINVAL),
    }
}

/// `epoll_ctl`; the member may be ours or the kernel's.
///
/// # Errors
/// As the system's; `EINVAL` for a set in a set.
pub fn epoll_ctl(set: RawFd, op: i32, fd: RawFd, events: u32, data: u64) -> Result<()> {
    on_set(set, |set| control(set, op, fd, events, data))
}

fn control(set: &EpollSet, op: i32, fd: RawFd, events: u32, data: u64) -> Result<()> {
    if !is_ours(fd) {
        return set.control_kernel(op, fd, events, data);
    }
    match find(fd)? {
        Found::Local(owner, h) => {
            let local = set.local(owner, true)?.ok_or(Errno::EBADF)?;
            worker::with_sockets(owner, |s| s.epoll_ctl(local, op, h, events, data)).ok_or(Errno::EBADF)?
        }
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
    on_set(set, |set| set.wait(out, max, timeout.map(now_plus)))
}
