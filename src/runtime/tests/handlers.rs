//! What calls within calls find: those of a signal's handler that came in the middle of
//! one on a worker, or of what runs in the worker's turn.

use super::own::connection;
use super::threads::Bed;
use super::*;
use crate::errno::Errno;
use crate::runtime::hub::Hub;
use crate::runtime::posix;
use crate::runtime::worker::{current_owner, on_own, run_blocked_turn, run_turn, with_core, with_own_core, with_sockets};
use crate::runtime::{channel, sys};
use std::os::fd::RawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

const NOW: i32 = libc::MSG_DONTWAIT;
const BUSY: Errno = Errno::EBUSY;

/// Every way into the worker is shut, and says so.
fn refused(fd: RawFd, set: RawFd) {
    let mut buf = [0; 8];
    assert_eq!((posix::own_send_now::<0>(fd, b"x", 0), posix::own_recv_now::<0>(fd, &mut buf, 0)), (0, 0));
    assert_eq!((posix::own_send(fd, b"x", NOW), posix::own_recv(fd, &mut buf, NOW)), (None, None));
    assert_eq!((posix::own_ready(set, 4, |_| ()), posix::own_ready_now(set).is_none()), (0, true));
    for flags in [NOW, 0] {
        assert_eq!(posix::send(fd, b"x", flags), Err(BUSY));
        assert_eq!(posix::recv(fd, &mut buf, flags), Err(BUSY));
    }
    assert_eq!(posix::accept4(fd, 0).err(), Some(BUSY));
    assert_eq!(posix::socket(libc::AF_INET, libc::SOCK_DGRAM, 0), Err(BUSY));
    assert_eq!((posix::close(fd), posix::shutdown(fd, libc::SHUT_WR), posix::local_addr(fd).err()), (Err(BUSY), Err(BUSY), Some(BUSY)));
    assert_eq!((posix::epoll_create(true), posix::epoll_ctl(set, libc::EPOLL_CTL_DEL, fd, 0, 0)), (Err(BUSY), Err(BUSY)));
    for ms in [0, 5000] {
        let timeout = Some(Duration::from_millis(ms));
        let mut asked = [libc::pollfd { fd, events: libc::POLLIN, revents: 0 }];
        assert_eq!(posix::epoll_wait(set, &mut Vec::new(), 4, timeout), Err(BUSY));
        assert_eq!(posix::poll(&mut asked, timeout), Err(BUSY));
    }
    let hub = Hub::current().unwrap();
    assert!(!run_turn(hub) && !run_blocked_turn(Some(0)) && with_core(hub, 0, |_| ()).is_none());
    assert_eq!(channel::with(|thread| thread.call(hub, 0, |_| ())).err(), Some(BUSY));
}

#[test]
fn a_call_within_a_use_of_the_worker_is_refused_and_does_nothing() {
    let bed = Bed::new(Wait::Block);
    bed.a().run_loop(|| {
        let [far, near] = connection(9);
        let set = posix::epoll_create(true).unwrap();
        posix::epoll_ctl(set, libc::EPOLL_CTL_ADD, near, libc::EPOLLIN as u32, 5).unwrap();
        posix::send(far, b"ping", 0).unwrap();
        let owner = current_owner().unwrap();
        posix::epoll_wait(set, &mut Vec::new(), 4, None).unwrap();
        on_own(Some, |_, _| refused(near, set)).unwrap();
        with_sockets(owner, |_| refused(near, set)).unwrap();
        with_own_core(owner, |_| refused(near, set)).unwrap();
        posix::own_ready(set, 4, |_| refused(near, set));
        let nothing = |_| assert!(with_sockets(owner, |_| ()).is_none() && with_own_core(owner, |_| ()).is_none());
        on_own(Some, |_, _| nothing(())).unwrap();
        // All is as it was, and the worker's own.
        let mut buf = [0; 8];
        assert_eq!(posix::own_ready_now(set).map(|event| event.data), Some(5));
        assert_eq!((posix::own_recv(near, &mut buf, NOW), posix::own_send(near, b"pong", NOW)), (Some(Ok(4)), Some(Ok(4))));
        assert_eq!(posix::recv(far, &mut buf, 0), Ok(4), "and not a byte more");
        assert_eq!(posix::recv(far, &mut buf, NOW), Err(Errno::EAGAIN));
        [far, near, set].into_iter().for_each(|fd| posix::close(fd).unwrap());
        false
    })
    .unwrap();
}

#[test]
fn a_use_that_panics_is_over() {
    let bed = Bed::new(Wait::Block);
    bed.a().run_loop(|| {
        let [far, near] = connection(9);
        let owner = current_owner().unwrap();
        let short = || on_own(Some, |_, _| std::panic::resume_unwind(Box::new(())));
        let long = || with_sockets(owner, |_| std::panic::resume_unwind(Box::new(())));
        assert!(catch_unwind(AssertUnwindSafe(short)).is_err() && catch_unwind(AssertUnwindSafe(long)).is_err());
        assert_eq!((posix::own_send(near, b"x", NOW), posix::recv(far, &mut [0; 8], 0)), (Some(Ok(1)), Ok(1)));
        [far, near].into_iter().for_each(|fd| posix::close(fd).unwrap());
        false
    })
    .unwrap();
}

#[test]
fn a_call_from_a_turn_between_two_rounds_of_the_loop_is_refused() {
    static OPEN: [AtomicI32; 2] = [const { AtomicI32::new(-1) }; 2];
    static ASKED: AtomicBool = AtomicBool::new(false);
    let bed = Bed::new(Wait::Spin);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while OPEN[1].load(Ordering::Acquire) < 0 {
                std::thread::yield_now();
            }
            let [fd, set] = [0, 1].map(|i| OPEN[i].load(Ordering::Acquire));
            // The loop returns at once, so that the worker does this in a turn of its own.
            channel::with(|thread| thread.call(Hub::current().unwrap(), 0, move |_| refused(fd, set))).unwrap();
            ASKED.store(true, Ordering::Release);
        });
        bed.a().run_loop(|| {
            if OPEN[1].load(Ordering::Relaxed) < 0 {
                let [_, near] = connection(9);
                OPEN[0].store(near, Ordering::Release);
                OPEN[1].store(posix::epoll_create(true).unwrap(), Ordering::Release);
            }
            !ASKED.load(Ordering::Acquire)
        })
        .unwrap();
    });
}

/// What the handler writes to, and what came of it.
static FD: AtomicI32 = AtomicI32::new(-1);
static SENT: AtomicUsize = AtomicUsize::new(0);
static REFUSED: AtomicUsize = AtomicUsize::new(0);
static ODD: AtomicUsize = AtomicUsize::new(0);

extern "C" fn handler(_: i32) {
    match posix::send(FD.load(Ordering::Relaxed), b"x", NOW) {
        Ok(1) => &SENT,
        Err(BUSY) => &REFUSED,
        _ => &ODD,
    }
    .fetch_add(1, Ordering::Relaxed);
}

/// Sends the calling thread SIGUSR2 every 60 us while `f` runs.
fn under_signals(f: impl FnOnce()) {
    static THREAD: AtomicU64 = AtomicU64::new(0);
    // SAFETY: a handler that touches atomics and makes calls that it may make.
    unsafe {
        let mut action: libc::sigaction = core::mem::zeroed();
        action.sa_sigaction = handler as *const () as usize;
        action.sa_flags = libc::SA_RESTART;
        assert_eq!(libc::sigaction(libc::SIGUSR2, &action, core::ptr::null_mut()), 0);
        THREAD.store(libc::pthread_self() as u64, Ordering::Relaxed);
    }
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Acquire) {
                std::thread::sleep(Duration::from_micros(60));
                // SAFETY: the thread is alive: it waits for this one.
                unsafe { libc::pthread_kill(THREAD.load(Ordering::Relaxed) as libc::pthread_t, libc::SIGUSR2) };
            }
        });
        f();
        over.store(true, Ordering::Release);
    });
}

#[test]
fn a_handler_in_the_middle_of_calls_and_sleeps_loses_no_byte_and_adds_none() {
    let bed = Bed::new(Wait::Block);
    bed.a().run_loop(|| {
        let [far, near] = connection(9);
        FD.store(near, Ordering::Relaxed);
        let (mut read, mut written, mut buf) = (0, 0, [0; 4096]);
        let until = sys::monotonic_ns() + 1_000_000_000;
        under_signals(|| {
            while sys::monotonic_ns() < until {
                written += posix::own_send(near, b"xxxxxxxx", NOW).and_then(Result::ok).unwrap_or(0);
                if let Some(Ok(n)) = posix::own_recv(far, &mut buf, NOW) {
                    assert!(buf[..n].iter().all(|b| *b == b'x'));
                    read += n;
                }
                // Its sleeps, too.
                if written % 1024 == 0 {
                    run_blocked_turn(Some(sys::monotonic_ns() + 300_000));
                }
            }
        });
        posix::shutdown(near, libc::SHUT_WR).unwrap();
        while let Ok(n @ 1..) = posix::recv(far, &mut buf, 0) {
            assert!(buf[..n].iter().all(|b| *b == b'x'));
            read += n;
        }
        let [sent, refused, odd] = [&SENT, &REFUSED, &ODD].map(|n| n.load(Ordering::Relaxed));
        assert_eq!(read, written + sent);
        assert!(sent > 0 && refused > 0, "{sent} {refused} {odd}");
        [far, near].into_iter().for_each(|fd| posix::close(fd).unwrap());
        false
    })
    .unwrap();
}

/// What a program owns closes a descriptor when the worker ends it.
struct Closes {
    fd: RawFd,
    told: std::sync::mpsc::Sender<crate::errno::Result<()>>,
    by_worker: bool,
}

impl Clone for Closes {
    fn clone(&self) -> Self {
        Self { fd: self.fd, told: self.told.clone(), by_worker: true }
    }
}

impl Drop for Closes {
    fn drop(&mut self) {
        if self.by_worker {
            let _ = self.told.send(posix::close(self.fd));
        }
    }
}

#[test]
fn what_a_program_owns_may_close_sockets_when_it_ends() {
    let bed = Bed::new(Wait::Block);
    let (told, heard) = std::sync::mpsc::channel();
    let shared = posix::socket(libc::AF_INET, libc::SOCK_DGRAM, 0).unwrap();
    let closes = Closes { fd: shared, told, by_worker: false };
    bed.a().run_loop(move || {
        let _owned = &closes;
        false
    }).unwrap();
    assert_eq!(heard.recv_timeout(Duration::from_secs(10)), Ok(Ok(())));
    assert_eq!(posix::close(shared), Err(Errno::EBADF));
}
