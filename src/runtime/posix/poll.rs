//! `poll`, over our descriptors and the kernel's together.

use super::{Found, Object, find, is_ours, now_plus, readiness};
use crate::errno::{Errno, Result};
use crate::runtime::channel;
use crate::runtime::hub::Hub;
use crate::runtime::{sys, worker};
use std::time::Duration;

/// `poll` over ours and the kernel's descriptors: how many are ready. No
/// time-out: for ever.
///
/// # Errors
/// `EINTR`, `ENETDOWN`; `EBUSY` from within a call.
pub fn poll(fds: &mut [libc::pollfd], timeout: Option<Duration>) -> Result<usize> {
    if worker::is_busy() {
        return Err(Errno::EBUSY);
    }
    worker::run_due_turn();
    let deadline = timeout.map(now_plus);
    let mut kernel: Vec<libc::pollfd> = Vec::new();
    let mut place = Vec::new();
    for (i, p) in fds.iter().enumerate().filter(|(_, p)| p.fd >= 0 && !is_ours(p.fd)) {
        kernel.push(*p);
        place.push(i);
    }
    let first = look(fds, &mut kernel, &place)?;
    if first > 0 || timeout == Some(Duration::ZERO) {
        if worker::current_owner().is_some() && first == 0 {
            worker::run_blocked_turn(Some(0));
            return look(fds, &mut kernel, &place);
        }
        return Ok(first);
    }
    if worker::current_owner().is_some() {
        return poll_on_worker(fds, &mut kernel, &place, deadline);
    }
    channel::with(|thread| loop {
        let ticket = thread.begin();
        let links: Vec<_> = fds.iter().filter_map(|p| match find(p.fd) {
            Ok(Found::Shared(guard)) => match &*guard {
                Object::Socket(socket) => Some((p.events, socket.links().to_vec())),
                Object::Epoll(_) => None,
            },
            _ => None,
        }).collect();
        for (events, links) in &links {
            for link in links {
                let wait = channel::Command::Wait { link: link.id, interest: interest(*events), ticket };
                thread.send(link.hub, link.worker, wait, true)?;
            }
        }
        let down = || links.iter().flat_map(|(_, l)| l).any(|l| l.hub.seats[l.worker].is_down());
        let waited = thread.wait_with(deadline, &mut kernel, |t| t.is_woken() || down());
        for link in links.iter().flat_map(|(_, links)| links) {
            let _ = thread.send(link.hub, link.worker, channel::Command::Unwait { link: link.id, ticket }, false);
        }
        waited?;
        let n = look(fds, &mut kernel, &place)?;
        if n > 0 || deadline.is_some_and(|d| sys::monotonic_ns() >= d) {
            return Ok(n);
        }
    })
}

/// What poll's bits ask for, as the workers name it.
fn interest(events: i16) -> u32 {
    let mut interest = u32::from(events as u16);
    if events & libc::POLLRDNORM != 0 {
        interest |= libc::POLLIN as u32;
    }
    if events & libc::POLLWRNORM != 0 {
        interest |= libc::POLLOUT as u32;
    }
    interest
}

fn poll_on_worker(fds: &mut [libc::pollfd], kernel: &mut [libc::pollfd], place: &[usize], deadline: Option<u64>) -> Result<usize> {
    loop {
        // What the kernel or another worker has wakes nobody here: it looks again soon.
        let soon = sys::monotonic_ns() + 100_000;
        let shared = |p: &libc::pollfd| matches!(find(p.fd), Ok(Found::Shared(_)));
        let until = if kernel.is_empty() && !fds.iter().any(shared) { deadline } else { Some(deadline.map_or(soon, |d| d.min(soon))) };
        worker::run_blocked_turn(until);
        let n = look(fds, kernel, place)?;
        if n > 0 || deadline.is_some_and(|d| sys::monotonic_ns() >= d) {
            return Ok(n);
        }
        if Hub::current().is_none_or(Hub::stopping) {
            return Err(Errno::ENETDOWN);
        }
    }
}

/// Fills in what is ready now: how many.
fn look(fds: &mut [libc::pollfd], kernel: &mut [libc::pollfd], place: &[usize]) -> Result<usize> {
    const ALWAYS: i16 = libc::POLLERR | libc::POLLHUP;
    if !kernel.is_empty() {
        sys::poll(kernel, Some(0))?;
    }
    for (i, p) in fds.iter_mut().enumerate() {
        p.revents = 0;
        // One that was ours when the call began, and was closed since, is invalid.
        if p.fd >= 0 && place.binary_search(&i).is_err() {
            p.revents = match readiness(p.fd) {
                Ok(ready) => {
                    let mut bits = ready.bits() as i16;
                    if bits & libc::POLLIN != 0 {
                        bits |= libc::POLLRDNORM;
                    }
                    if bits & libc::POLLOUT != 0 {
                        bits |= libc::POLLWRNORM;
                    }
                    bits & (p.events | ALWAYS)
                }
                Err(_) => libc::POLLNVAL,
            };
        }
    }
    for (p, at) in kernel.iter().zip(place) {
        fds[*at].revents = p.revents;
    }
    Ok(fds.iter().filter(|p| p.revents != 0).count())
}
