//! poll, ppoll and select.

use super::errno::{self, guard};
use super::sim::Entered;
use super::target::Target;
use crate::errno::{Errno, Result};
use crate::runtime::posix;
use core::ffi::c_int;
use libc::{fd_set, nfds_t, pollfd, sigset_t, timespec, timeval};
use std::time::{Duration, Instant};

/// Said of a descriptor whether asked for or not.
const ALWAYS: i16 = libc::POLLERR | libc::POLLHUP | libc::POLLNVAL;
const READ: i16 = libc::POLLIN | libc::POLLRDNORM | libc::POLLRDBAND | libc::POLLHUP | libc::POLLERR;
const WRITE: i16 = libc::POLLOUT | libc::POLLWRNORM | libc::POLLWRBAND | libc::POLLERR;

/// Where a wait on these descriptors goes: to us where one of them is ours.
fn target_of(fds: &[pollfd]) -> Option<Target> {
    fds.iter().filter(|p| p.fd >= 0).find_map(|p| Target::of(p.fd)).or_else(Target::simulated)
}

impl Target {
    /// Waits at most so long (`None`: for ever) until one is ready; gives how
    /// many are.
    fn poll(self, fds: &mut [pollfd], timeout: Option<Duration>) -> Result<usize> {
        match self {
            Self::Sim(sim) => look(sim, fds),
            Self::Running => posix::poll(fds, timeout),
        }
    }
}

/// Looks at descriptors of a simulation, which never blocks.
fn look(sim: Entered, fds: &mut [pollfd]) -> Result<usize> {
    sim.with(|s| {
        let mut ready = 0;
        for p in fds {
            p.revents = match s.readiness(p.fd) {
                _ if p.fd < 0 => 0,
                Ok(r) => bands(r.bits()) & (p.events | ALWAYS),
                Err(_) => libc::POLLNVAL,
            };
            ready += usize::from(p.revents != 0);
        }
        Ok(ready)
    })
}

/// Readiness with the names that POSIX has besides: normal data is readable,
/// and normal data can be written.
fn bands(readiness: u32) -> i16 {
    let mut bits = readiness as i16;
    if bits & libc::POLLIN != 0 {
        bits |= libc::POLLRDNORM;
    }
    if bits & libc::POLLOUT != 0 {
        bits |= libc::POLLWRNORM;
    }
    bits
}

/// # Safety
/// `fds` is null or `count` valid structs.
unsafe fn slice<'a>(fds: *mut pollfd, count: nfds_t) -> Result<&'a mut [pollfd]> {
    if count > c_int::MAX as nfds_t {
        return Err(Errno::EINVAL);
    }
    if count == 0 {
        return Ok(&mut []);
    }
    if fds.is_null() {
        return Err(Errno::EFAULT);
    }
    // SAFETY: the caller's promise.
    Ok(unsafe { core::slice::from_raw_parts_mut(fds, count as usize) })
}

/// poll(2), over ringroad's and the system's descriptors together.
///
/// # Safety
/// `fds` is null or `count` valid structs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rr_poll(fds: *mut pollfd, count: nfds_t, timeout_ms: c_int) -> c_int {
    guard(|| {
        // SAFETY: the caller's promise.
        let slice = unsafe { slice(fds, count) }?;
        let Some(target) = target_of(slice) else {
            // SAFETY: the caller's promise, handed on.
            return system(unsafe { libc::poll(fds, count, timeout_ms) });
        };
        let timeout = u64::try_from(timeout_ms).ok().map(Duration::from_millis);
        target.poll(slice, timeout).map(|n| n as c_int)
    })
}

/// What a call of libc gave, as a result.
pub(super) fn system(result: c_int) -> Result<c_int> {
    if result < 0 { Err(errno::last()) } else { Ok(result) }
}

/// ppoll(2).
///
/// # Safety
/// `fds` is null or `count` valid structs; `timeout` and `mask` are null or valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rr_ppoll(
    fds: *mut pollfd,
    count: nfds_t,
    timeout: *const timespec,
    mask: *const sigset_t,
) -> c_int {
    guard(|| {
        // SAFETY: the caller's promise.
        let slice = unsafe { slice(fds, count) }?;
        let Some(target) = target_of(slice) else {
            // SAFETY: the caller's promise, handed on.
            return system(unsafe { libc::ppoll(fds, count, timeout, mask) });
        };
        // SAFETY: null or valid by the caller's promise.
        let timeout = unsafe { timeout.as_ref() };
        let timeout = timeout.map(|t| span(t.tv_sec, t.tv_nsec, 1)).transpose()?;
        // SAFETY: null or valid by the caller's promise.
        let _mask = unsafe { Mask::set(mask) };
        target.poll(slice, timeout).map(|n| n as c_int)
    })
}

/// A time of C: seconds, and a rest in units of so many nanoseconds.
fn span(seconds: i64, rest: i64, unit: u32) -> Result<Duration> {
    let seconds = u64::try_from(seconds).map_err(|_| Errno::EINVAL)?;
    let rest = u32::try_from(rest).ok().filter(|r| *r < 1_000_000_000 / unit);
    Ok(Duration::new(seconds, rest.ok_or(Errno::EINVAL)? * unit))
}

/// The signal mask of a wait; the old one comes back when this is dropped.
#[derive(Debug)]
pub(super) struct Mask(Option<sigset_t>);

impl Mask {
    /// Sets a mask, unless it is null.
    ///
    /// # Safety
    /// `mask` is null or valid.
    pub(super) unsafe fn set(mask: *const sigset_t) -> Self {
        if mask.is_null() {
            return Self(None);
        }
        let mut old = core::mem::MaybeUninit::uninit();
        // SAFETY: both pointers are valid; the call fills `old`.
        unsafe {
            libc::pthread_sigmask(libc::SIG_SETMASK, mask, old.as_mut_ptr());
            Self(Some(old.assume_init()))
        }
    }
}

impl Drop for Mask {
    fn drop(&mut self) {
        if let Some(old) = &self.0 {
            // SAFETY: a valid mask.
            unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, old, core::ptr::null_mut()) };
        }
    }
}

/// select(2), over ringroad's and the system's descriptors together. As in
/// Linux, the time that is left is written back.
///
/// # Safety
/// The sets and `timeout` are null or valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rr_select(
    count: c_int,
    read: *mut fd_set,
    write: *mut fd_set,
    except: *mut fd_set,
    timeout: *mut timeval,
) -> c_int {
    guard(|| {
        let count = usize::try_from(count).map_err(|_| Errno::EINVAL)?.min(libc::FD_SETSIZE);
        // SAFETY: null or valid by the caller's promise.
        let mut sets = unsafe { [read.as_mut(), write.as_mut(), except.as_mut()] };
        let mut fds = wanted(&sets, count);
        let Some(target) = target_of(&fds) else {
            // SAFETY: the caller's promise, handed on.
            return system(unsafe { libc::select(count as c_int, read, write, except, timeout) });
        };
        // SAFETY: null or valid by the caller's promise.
        let timeout = unsafe { timeout.as_mut() };
        // As Linux: microseconds beyond a second are seconds.
        let whole = |t: &timeval| match t.tv_usec {
            0.. => span(t.tv_sec.saturating_add(t.tv_usec / 1_000_000), t.tv_usec % 1_000_000, 1000),
            _ => Err(Errno::EINVAL),
        };
        let limit = timeout.as_deref().map(whole).transpose()?;
        let begun = Instant::now();
        target.poll(&mut fds, limit)?;
        if fds.iter().any(|p| p.revents & libc::POLLNVAL != 0) {
            return Err(Errno::EBADF);
        }
        if let (Some(timeout), Some(limit), false) = (timeout, limit, target.is_simulated()) {
            let left = limit.saturating_sub(begun.elapsed());
            timeout.tv_sec = left.as_secs() as i64;
            timeout.tv_usec = left.subsec_micros().into();
        }
        Ok(report(&mut sets, &fds, count))
    })
}

/// What the three sets of select ask for, as poll would be asked.
fn wanted(sets: &[Option<&mut fd_set>; 3], count: usize) -> Vec<pollfd> {
    let mut fds = Vec::new();
    for fd in 0..count {
        let mut events = 0;
        for (set, bits) in sets.iter().zip([READ, WRITE, libc::POLLPRI]) {
            // SAFETY: the set is valid, and `fd` below its size.
            let asked = set.as_deref().is_some_and(|s| unsafe { libc::FD_ISSET(fd as c_int, s) });
            events |= if asked { bits } else { 0 };
        }
        if events != 0 {
            fds.push(pollfd { fd: fd as c_int, events, revents: 0 });
        }
    }
    fds
}

/// Leaves in the sets what is ready; gives the number of bits left.
fn report(sets: &mut [Option<&mut fd_set>; 3], fds: &[pollfd], count: usize) -> c_int {
    let mut ready = 0;
    for (set, bits) in sets.iter_mut().zip([READ, WRITE, libc::POLLPRI]) {
        let Some(set) = set else { continue };
        // SAFETY: a valid set, and descriptors below its size.
        unsafe {
            let asked = |s: &fd_set, fd| libc::FD_ISSET(fd, s);
            let hit = |s: &fd_set, p: &&pollfd| asked(s, p.fd) && p.revents & bits != 0;
            let left: Vec<c_int> = fds.iter().filter(|p| hit(set, p)).map(|p| p.fd).collect();
            (0..count as c_int).for_each(|fd| libc::FD_CLR(fd, *set));
            left.iter().for_each(|fd| libc::FD_SET(*fd, *set));
            ready += left.len() as c_int;
        }
    }
    ready
}
