//! The functions `rr_sim_*`.

use super::{Settings, Sim, current, enter, leave, rr_sim, rr_sim_config};
use crate::errno::Errno;
use crate::ffi::errno::{guard, shielded};
use crate::ffi::message;
use crate::time::Instant;
use core::ffi::{c_int, c_void};
use core::sync::atomic::Ordering;

/// Makes a stack without thread, device or clock; its time is 0. Every random
/// choice (initial sequence numbers, ports, IP ids, hash keys) comes from the
/// seed. `cfg` may be NULL: the defaults. NULL with errno EINVAL for a bad
/// configuration, and rr_strerror says which field.
///
/// # Safety
/// `cfg` is null or valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rr_sim_new(cfg: *const rr_sim_config, seed: u64) -> *mut rr_sim {
    guard(|| {
        // SAFETY: the caller's promise.
        let settings = unsafe { Settings::read(cfg) }?;
        Ok(Box::into_raw(Box::new(rr_sim::new(Sim::new(settings, seed)))))
    })
}

/// From now on this thread's rr_socket ... rr_epoll_wait act on this stack, and
/// never block; descriptors are the simulation's own. NULL leaves. One thread
/// at a time: EBUSY while another is inside. A thread that ends leaves.
///
/// # Safety
/// `sim` is null or from `rr_sim_new` and not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rr_sim_enter(sim: *mut rr_sim) -> c_int {
    guard(|| {
        if sim.is_null() {
            leave();
            return Ok(0);
        }
        // SAFETY: the caller's promise.
        enter(unsafe { &*sim }).map(|()| 0)
    })
}

/// Changes what the fields `tcp_...` of the configuration say of new connections
/// and of bounds, as a system's administrator would; the other fields, and the
/// connections and sockets that are there, stay as they are. 0, or -1 with errno
/// EINVAL (rr_strerror says which field) or EFAULT.
///
/// # Safety
/// `sim` is null or valid; `cfg` is null or valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rr_sim_configure(sim: *mut rr_sim, cfg: *const rr_sim_config) -> c_int {
    guard(|| {
        // SAFETY: the caller's promise.
        let sim = unsafe { sim.as_ref() }.ok_or(Errno::EFAULT)?;
        // SAFETY: the caller's promise.
        let settings = unsafe { Settings::read(cfg) }?;
        sim.with(|s| {
            s.configure(settings);
            Ok(0)
        })
    })
}

/// Forgets what the stack learnt of destinations: path MTUs, Fast Open's cookies.
///
/// # Safety
/// `sim` is null or valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rr_sim_forget(sim: *mut rr_sim) {
    shielded((), || {
        // SAFETY: the caller's promise.
        if let Some(sim) = unsafe { sim.as_ref() } {
            let _ = sim.with(|s| {
                s.sockets.stack.forget_destinations();
                Ok(())
            });
        }
    });
}

/// Hands the stack a frame from the wire: an IP packet with raw_ip, else an
/// Ethernet frame. rr_sim_poll works on it. 0, or -1 with errno EINVAL (empty),
/// EMSGSIZE (larger than a frame), ENOBUFS (no frame is free), EFAULT.
///
/// # Safety
/// `sim` is null or valid; `frame` is null or `len` readable bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rr_sim_inject(sim: *mut rr_sim, frame: *const c_void, len: usize) -> c_int {
    guard(|| {
        // SAFETY: the caller's promise.
        let sim = unsafe { sim.as_ref() }.ok_or(Errno::EFAULT)?;
        // SAFETY: the caller's promise.
        let frame = unsafe { message::bytes(frame, len) }?;
        sim.with(|s| s.inject(frame)).map(|()| 0)
    })
}

/// Takes the oldest frame that the stack has sent: its length, 0 where nothing
/// waits, or -1 with errno EMSGSIZE (`len` is too short; the frame stays) or
/// EFAULT. `sent_at_ns`, if not NULL, gets the time of its sending.
///
/// # Safety
/// `sim` is null or valid; `buf` is null or `len` writable bytes; `sent_at_ns`
/// is null or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rr_sim_collect(
    sim: *mut rr_sim,
    buf: *mut c_void,
    len: usize,
    sent_at_ns: *mut u64,
) -> isize {
    guard(|| {
        // SAFETY: the caller's promise.
        let sim = unsafe { sim.as_ref() }.ok_or(Errno::EFAULT)?;
        // SAFETY: the caller's promise.
        let buf = unsafe { message::bytes_mut(buf, len) }?;
        let Some((len, at)) = sim.with(|s| s.collect(buf))? else { return Ok(0) };
        if !sent_at_ns.is_null() {
            // SAFETY: the caller's promise.
            unsafe { sent_at_ns.write(at.as_nanos()) };
        }
        Ok(len as isize)
    })
}

/// Sets the stack's clock. It does not go backwards.
///
/// # Safety
/// `sim` is null or valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rr_sim_clock_set(sim: *mut rr_sim, now_ns: u64) {
    shielded((), || {
        // SAFETY: the caller's promise.
        if let Some(sim) = unsafe { sim.as_ref() } {
            let _ = sim.with(|s| {
                s.set_clock(Instant::from_nanos(now_ns));
                Ok(())
            });
        }
    });
}

/// Runs the stack at the time that was set: works on what was injected, on
/// timers that are due, and sends what is to be sent.
///
/// # Safety
/// `sim` is null or valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rr_sim_poll(sim: *mut rr_sim) {
    shielded((), || {
        // SAFETY: the caller's promise.
        if let Some(sim) = unsafe { sim.as_ref() } {
            let _ = sim.with(|s| {
                s.poll();
                Ok(())
            });
        }
    });
}

/// When the stack wants to be polled next, if nothing is injected before;
/// UINT64_MAX: never. A time that has passed: at once.
///
/// # Safety
/// `sim` is null or valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rr_sim_next_deadline(sim: *const rr_sim) -> u64 {
    shielded(u64::MAX, || {
        // SAFETY: the caller's promise.
        let Some(sim) = (unsafe { sim.as_ref() }) else { return u64::MAX };
        let deadline = sim.with(|s| Ok(s.next_deadline()));
        deadline.ok().flatten().map_or(u64::MAX, Instant::as_nanos)
    })
}

/// Ends a stack, with its sockets and the frames that it lent. NULL is nothing.
/// One that another thread is in is left alone.
///
/// # Safety
/// `sim` is null or from `rr_sim_new` and not freed; no other call on it runs
/// or follows.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rr_sim_free(sim: *mut rr_sim) {
    shielded((), || {
        if sim.is_null() {
            return;
        }
        if current().is_some_and(|e| core::ptr::eq(e.0, sim)) {
            leave();
        }
        // SAFETY: the caller's promise.
        let shared = unsafe { &*sim };
        let owned = shared.owner.load(Ordering::Acquire) != 0;
        if owned || shared.busy.load(Ordering::Acquire) {
            return;
        }
        // SAFETY: it came from `Box::into_raw`, and by the caller's promise
        // nobody uses it any more.
        drop(unsafe { Box::from_raw(sim) });
    });
}
