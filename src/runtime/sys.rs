//! Thin wrappers of the system calls that the runtime needs.

use crate::errno::{Errno, Result};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// The errno of the last failed system call; EIO where the stack has no name for it.
pub fn last_errno() -> Errno {
    let raw = io::Error::last_os_error().raw_os_error().unwrap_or(0);
    Errno::from_raw(raw).unwrap_or(Errno::EIO)
}

/// Numbers of descriptors are below this (RLIMIT_NOFILE).
pub fn most_descriptors() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is valid for the call.
    match unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) } {
        0 => limit.rlim_cur,
        _ => 0,
    }
}

/// A kernel event counter: non-blocking, closed on exec.
#[derive(Debug)]
pub struct EventFd(OwnedFd);

impl EventFd {
    /// A new one, not signalled.
    pub fn new() -> io::Result<Self> {
        // SAFETY: takes no pointers.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel just gave us this descriptor.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// The descriptor.
    pub fn fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    /// Makes it readable.
    pub fn signal(&self) {
        let one = 1u64;
        // SAFETY: eight readable bytes. The only failure is a counter at its
        // maximum, where it is readable already.
        unsafe { libc::write(self.fd(), (&raw const one).cast(), 8) };
    }

    /// Makes it unreadable.
    pub fn drain(&self) {
        let mut count = 0u64;
        // SAFETY: eight writable bytes. EAGAIN means that it is drained already.
        unsafe { libc::read(self.fd(), (&raw mut count).cast(), 8) };
    }
}

/// `ppoll` with a time-out in nanoseconds (`None`: for ever): how many entries
/// are ready. EINTR where a signal came.
pub fn poll(fds: &mut [libc::pollfd], timeout_ns: Option<u64>) -> Result<usize> {
    let ts = timeout_ns.map(timespec);
    let ts = ts.as_ref().map_or(core::ptr::null(), |t| t as *const _);
    // SAFETY: the slice is valid for its length; `ts` is null or a local.
    let n = unsafe {
        libc::ppoll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, ts, core::ptr::null())
    };
    if n < 0 { Err(last_errno()) } else { Ok(n as usize) }
}

/// Waits until one descriptor is readable: whether it is.
pub fn poll_one(fd: RawFd, timeout_ns: Option<u64>) -> Result<bool> {
    let mut fds = [libc::pollfd { fd, events: libc::POLLIN, revents: 0 }];
    Ok(poll(&mut fds, timeout_ns)? > 0)
}

fn timespec(ns: u64) -> libc::timespec {
    libc::timespec {
        tv_sec: (ns / 1_000_000_000).min(i64::MAX as u64) as libc::time_t,
        tv_nsec: (ns % 1_000_000_000) as libc::c_long,
    }
}

/// CLOCK_MONOTONIC in nanoseconds.
#[inline]
pub fn monotonic_ns() -> u64 {
    let mut ts = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `ts` is writable. CLOCK_MONOTONIC always exists.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut ts) };
    ts.tv_sec as u64 * 1_000_000_000 + ts.tv_nsec as u64
}

/// A seed from the kernel's random numbers.
pub fn random_seed() -> io::Result<u64> {
    let mut seed = 0u64;
    // SAFETY: eight writable bytes.
    let n = unsafe { libc::getrandom((&raw mut seed).cast(), 8, 0) };
    if n == 8 { Ok(seed) } else { Err(io::Error::last_os_error()) }
}

/// A page that a forked child finds zeroed (MADV_WIPEONFORK): the cheapest way
/// to know, in every call, whether this is still the process that set it.
#[derive(Debug)]
pub struct ForkMark(core::ptr::NonNull<core::sync::atomic::AtomicU32>);

// SAFETY: it points to an atomic in a mapping that is never unmapped.
unsafe impl Send for ForkMark {}
// SAFETY: as above.
unsafe impl Sync for ForkMark {}

impl ForkMark {
    /// A mark set in this process. The page stays mapped for the process's life.
    pub fn new() -> io::Result<Self> {
        const PAGE: usize = 4096;
        // SAFETY: a fresh anonymous mapping.
        let page = unsafe {
            libc::mmap(
                core::ptr::null_mut(),
                PAGE,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if page == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the mapping is ours.
        if unsafe { libc::madvise(page, PAGE, libc::MADV_WIPEONFORK) } != 0 {
            return Err(io::Error::last_os_error());
        }
        let mark = core::ptr::NonNull::new(page.cast::<core::sync::atomic::AtomicU32>())
            .expect("a mapping is not at zero");
        let it = Self(mark);
        it.get().store(1, core::sync::atomic::Ordering::Relaxed);
        Ok(it)
    }

    /// What is 1, and 0 in a child of the process that made the mark.
    pub fn get(&self) -> &'static core::sync::atomic::AtomicU32 {
        // SAFETY: mapped for ever, aligned to a page, zero-initialised.
        unsafe { self.0.as_ref() }
    }
}
