//! The epoll family.

use super::errno::{guard, quick, set};
use super::poll::{Mask, system};
use super::sim::Entered;
use super::target::Target;
use crate::errno::{Errno, Result};
use crate::runtime::posix;
use crate::socket::EpollEvent;
use core::cell::Cell;
use core::ffi::c_int;
use libc::{epoll_event, sigset_t};
use std::time::Duration;

/// Events of one wait, at most, as in Linux.
const MAX_EVENTS: usize = c_int::MAX as usize / size_of::<epoll_event>();

/// epoll_create(2).
#[unsafe(no_mangle)]
pub extern "C" fn rr_epoll_create(size: c_int) -> c_int {
    if size <= 0 {
        set(Errno::EINVAL);
        return -1;
    }
    rr_epoll_create1(0)
}

/// epoll_create1(2). Descriptors of ringroad and of the system may be in one
/// set. Before rr_init the set is the system's, and takes the system's only.
#[unsafe(no_mangle)]
pub extern "C" fn rr_epoll_create1(flags: c_int) -> c_int {
    let Some(here) = Target::here() else {
        // SAFETY: a plain number.
        return unsafe { libc::epoll_create1(flags) };
    };
    guard(|| {
        if flags & !libc::EPOLL_CLOEXEC != 0 {
            return Err(Errno::EINVAL);
        }
        here.epoll_create(flags & libc::EPOLL_CLOEXEC != 0)
    })
}

/// epoll_ctl(2).
///
/// # Safety
/// `event` is null or valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rr_epoll_ctl(
    epfd: c_int,
    op: c_int,
    fd: c_int,
    event: *mut epoll_event,
) -> c_int {
    let Some(target) = Target::of(epfd) else {
        // SAFETY: the caller's promise, handed on.
        return unsafe { libc::epoll_ctl(epfd, op, fd, event) };
    };
    guard(|| {
        let (mut events, mut data) = (0, 0);
        if op != libc::EPOLL_CTL_DEL {
            if event.is_null() {
                return Err(Errno::EFAULT);
            }
            // SAFETY: not null, so valid by the caller's promise.
            let event = unsafe { event.read_unaligned() };
            (events, data) = (event.events, event.u64);
        }
        target.epoll_ctl(epfd, op, fd, events, data).map(|()| 0)
    })
}

/// epoll_wait(2).
///
/// # Safety
/// `events` is null or `max` writable structs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rr_epoll_wait(
    epfd: c_int,
    events: *mut epoll_event,
    max: c_int,
    timeout_ms: c_int,
) -> c_int {
    // SAFETY: the caller's promise.
    match unsafe { ready_now(epfd, events, max) } {
        // SAFETY: the caller's promise.
        0 => unsafe { wait_any(epfd, events, max, timeout_ms) },
        n => n,
    }
}

/// The one event of a worker's own set, on its own thread; 0 where there is none, or not
/// so simply.
///
/// # Safety
/// `events` is null or `max` writable structs.
#[inline(always)]
unsafe fn ready_now(epfd: c_int, events: *mut epoll_event, max: c_int) -> c_int {
    if max <= 0 || max as usize > MAX_EVENTS || events.is_null() {
        return 0;
    }
    quick(|| match posix::own_ready_now(epfd) {
        Some(event) => {
            let event = epoll_event { events: event.events, u64: event.data };
            // SAFETY: not null, and room for one at least.
            unsafe { events.write_unaligned(event) };
            1
        }
        None => 0,
    })
}

/// # Safety
/// `events` is null or `max` writable structs.
#[inline(never)]
unsafe extern "C" fn wait_any(epfd: c_int, events: *mut epoll_event, max: c_int, timeout_ms: c_int) -> c_int {
    // SAFETY: the caller's promise.
    match unsafe { ready(epfd, events, max) } {
        // SAFETY: the caller's promise.
        0 => unsafe { rr_epoll_pwait(epfd, events, max, timeout_ms, core::ptr::null()) },
        n => n,
    }
}

/// What is there already in a worker's own set, on its own thread; 0 where that is
/// nothing, or not so simple.
///
/// # Safety
/// `events` is null or `max` writable structs.
#[inline(always)]
unsafe fn ready(epfd: c_int, events: *mut epoll_event, max: c_int) -> c_int {
    if max <= 0 || max as usize > MAX_EVENTS || events.is_null() {
        return 0;
    }
    let room = max as usize;
    guard(|| {
        let mut at = events;
        let found = posix::own_ready(epfd, room, |event| {
            let event = epoll_event { events: event.events, u64: event.data };
            // SAFETY: at most `room` of them come, which the caller has.
            unsafe {
                at.write_unaligned(event);
                at = at.add(1);
            }
        });
        Ok(found as c_int)
    })
}

/// epoll_pwait(2).
///
/// # Safety
/// `events` is null or `max` writable structs; `mask` is null or valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rr_epoll_pwait(
    epfd: c_int,
    events: *mut epoll_event,
    max: c_int,
    timeout_ms: c_int,
    mask: *const sigset_t,
) -> c_int {
    let Some(target) = Target::of(epfd) else {
        // SAFETY: the caller's promise, handed on.
        return guard(|| system(unsafe { libc::epoll_pwait(epfd, events, max, timeout_ms, mask) }));
    };
    guard(|| {
        let max = usize::try_from(max).ok().filter(|m| (1..=MAX_EVENTS).contains(m));
        let max = max.ok_or(Errno::EINVAL)?;
        if events.is_null() {
            return Err(Errno::EFAULT);
        }
        // SAFETY: null or valid by the caller's promise.
        let _mask = unsafe { Mask::set(mask) };
        let timeout = u64::try_from(timeout_ms).ok().map(Duration::from_millis);
        // SAFETY: `max` structs are there by the caller's promise.
        unsafe { target.epoll_wait(epfd, events, max, timeout) }.map(|n| n as c_int)
    })
}

impl Target {
    /// Waits at most so long (`None`: for ever) for events.
    ///
    /// # Safety
    /// `events` has room for `max` structs.
    unsafe fn epoll_wait(
        self,
        epfd: c_int,
        events: *mut epoll_event,
        max: usize,
        timeout: Option<Duration>,
    ) -> Result<usize> {
        match self {
            // SAFETY: the caller's promise.
            Self::Sim(sim) => unsafe { take(sim, epfd, events, max) },
            // SAFETY: likewise.
            Self::Running => unsafe { wait(epfd, events, max, timeout) },
        }
    }
}

thread_local! {
    /// Events on their way to C.
    static EVENTS: Cell<Vec<EpollEvent>> = const { Cell::new(Vec::new()) };
}

/// Waits on a set of the running stack.
///
/// # Safety
/// `events` has room for `max` structs.
unsafe fn wait(
    epfd: c_int,
    events: *mut epoll_event,
    max: usize,
    timeout: Option<Duration>,
) -> Result<usize> {
    // Taken, not borrowed: a loop that waits on a worker may come here again.
    let mut found = EVENTS.take();
    let result = posix::epoll_wait(epfd, &mut found, max, timeout);
    if result.is_ok() {
        for (i, event) in found.iter().take(max).enumerate() {
            let event = epoll_event { events: event.events, u64: event.data };
            // SAFETY: below `max`, so there is room.
            unsafe { events.add(i).write_unaligned(event) };
        }
    }
    EVENTS.set(found);
    result
}

/// Takes what is ready from a set of a simulation, which never blocks.
///
/// # Safety
/// `events` has room for `max` structs.
unsafe fn take(sim: Entered, epfd: c_int, events: *mut epoll_event, max: usize) -> Result<usize> {
    sim.with(|s| {
        s.epoll_wait(epfd, max, |i, event| {
            debug_assert!(i < max);
            let event = epoll_event { events: event.events, u64: event.data };
            // SAFETY: a wait gives at most `max` events, which have room.
            unsafe { events.add(i).write_unaligned(event) };
        })
    })
}
