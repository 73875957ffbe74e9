//! Sets that several workers and threads use, at once.

use super::strays::{Cable, Plug};
use super::threads::{Bed, one_at_a_time};
use super::*;
use crate::errno::{Errno, Result};
use crate::runtime::worker::{current_owner, run_blocked_turn};
use crate::runtime::{channel, posix, sys};
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::time::Duration;

const IN: u32 = libc::EPOLLIN as u32;
const OUT: u32 = libc::EPOLLOUT as u32;
const EDGE: u32 = libc::EPOLLET as u32;
const ADD: i32 = libc::EPOLL_CTL_ADD;

fn wait(set: RawFd, ms: u64) -> Result<Vec<u64>> {
    let mut out = Vec::new();
    posix::epoll_wait(set, &mut out, 4, Some(Duration::from_millis(ms)))?;
    Ok(out.iter().map(|event| event.data).collect())
}

/// A socket that is ready for writing.
fn writable() -> RawFd {
    posix::socket(libc::AF_INET, libc::SOCK_DGRAM, 0).unwrap()
}

/// An eventfd of the kernel's, which is readable.
fn readable() -> RawFd {
    // SAFETY: takes no pointers.
    unsafe { libc::eventfd(1, libc::EFD_NONBLOCK) }
}

fn close_kernels(fd: RawFd) {
    // SAFETY: the test's own.
    unsafe { libc::close(fd) };
}

/// Lets a worker's turns go on for a while.
fn turns(ms: u64) {
    let until = sys::monotonic_ns() + ms * 1_000_000;
    while sys::monotonic_ns() < until {
        run_blocked_turn(Some(until));
    }
}

/// Runs `change` on the first of two workers, or in a thread of its own, while the
/// program of the second waits on a set that the first one made: what the wait gets.
/// The workers sleep until somebody wakes them: a shared address has no timers.
fn while_another_worker_waits(change: impl Fn(RawFd) + Send + Sync + Clone + 'static) -> Result<Vec<u64>> {
    let _turn = one_at_a_time();
    let cable = Arc::new(Cable::default());
    let arena = Arena::heap(2048, 2048);
    let never = sys::EventFd::new().unwrap();
    let stations = (0..2).map(|i| {
        let pool = Pool::new(arena.clone(), i * 1024, 1024);
        let stack = stack::Config { mode: stack::Mode::Shared, addresses: vec![(A, 24)], ..stack::Config::default() };
        let sockets = Sockets::new(Stack::new(stack, pool, 11));
        let device = Plug::new(&cable, i as usize);
        Station { device, sockets, fd: Some(never.fd()), mirror: None, tick: None }
    });
    let config = Config { workers: 2, ..config(Wait::Block) };
    let runtime = Runtime::with_stations(config, stations.collect()).unwrap();
    runtime.install().unwrap();
    let set = Arc::new(AtomicI32::new(-1));
    let (tell, told) = std::sync::mpsc::channel();
    runtime
        .run_loop(move || {
            if current_owner().unwrap().worker == 0 {
                let made = posix::epoll_create(true).unwrap();
                set.store(made, Ordering::Release);
                turns(200);
                change(made);
                turns(100);
                return false;
            }
            while set.load(Ordering::Acquire) < 0 {
                turns(1);
            }
            tell.send(wait(set.load(Ordering::Acquire), 3000)).unwrap();
            false
        })
        .unwrap();
    told.recv().unwrap()
}

#[test]
fn a_worker_that_waits_hears_of_what_another_worker_adds() {
    let got = while_another_worker_waits(|set| posix::epoll_ctl(set, ADD, writable(), OUT, 5).unwrap());
    assert_eq!(got, Ok(vec![5]));
}

#[test]
fn a_worker_that_waits_hears_of_what_a_thread_adds() {
    let got = while_another_worker_waits(|set| {
        std::thread::spawn(move || posix::epoll_ctl(set, ADD, writable(), OUT, 5).unwrap());
        turns(100);
    });
    assert_eq!(got, Ok(vec![5]));
}

#[test]
fn a_worker_that_waits_hears_of_a_kernels_descriptor() {
    let fd = readable();
    let got = while_another_worker_waits(move |set| posix::epoll_ctl(set, ADD, fd, IN, 5).unwrap());
    assert_eq!(got, Ok(vec![5]));
    close_kernels(fd);
}

#[test]
fn a_worker_that_waits_hears_that_the_set_is_closed() {
    let got = while_another_worker_waits(|set| posix::close(set).unwrap());
    assert_eq!(got, Err(Errno::EBADF));
}

#[test]
fn a_wait_that_fails_to_begin_leaves_known_who_else_waits() {
    let got = while_another_worker_waits(|set| {
        posix::epoll_ctl(set, ADD, writable(), IN, 4).unwrap();
        let failed = std::thread::spawn(move || {
            // As in the handler of a signal that came in the middle of a call.
            channel::with(|_| Ok(wait(set, 0))).unwrap()
        });
        turns(100);
        assert_eq!(failed.join().unwrap(), Err(Errno::EBUSY));
        posix::epoll_ctl(set, ADD, writable(), OUT, 5).unwrap();
    });
    assert_eq!(got, Ok(vec![5]));
}

#[test]
fn no_source_of_events_starves_another() {
    let bed = Bed::new(Wait::Block);
    bed.a().run_loop(|| {
        let set = posix::epoll_create(true).unwrap();
        let fds = [writable(), writable(), readable()];
        let shared = posix::dup(fds[1], 0, true).unwrap();
        posix::epoll_ctl(set, ADD, fds[0], OUT, 0).unwrap();
        posix::epoll_ctl(set, ADD, shared, OUT, 1).unwrap();
        posix::epoll_ctl(set, ADD, fds[2], IN, 2).unwrap();
        let mut seen = [0; 3];
        for _ in 0..300 {
            let mut out = Vec::new();
            assert_eq!(posix::epoll_wait(set, &mut out, 1, Some(Duration::from_secs(5))), Ok(1));
            seen[out[0].data as usize] += 1;
        }
        assert!(seen.iter().all(|n| *n >= 50), "own, shared, kernel's: {seen:?}");
        close_kernels(fds[2]);
        [fds[0], fds[1], shared, set].into_iter().for_each(|fd| posix::close(fd).unwrap());
        false
    })
    .unwrap();
}

#[test]
fn of_two_that_add_a_member_at_once_one_is_told_that_it_is_there() {
    let _bed = Bed::new(Wait::Block);
    let (set, fd) = (posix::epoll_create(true).unwrap(), writable());
    let added = AtomicUsize::new(0);
    let rounds = 1000;
    let both = Barrier::new(2);
    let add = || {
        for _ in 0..rounds {
            both.wait();
            match posix::epoll_ctl(set, ADD, fd, OUT, 5) {
                Ok(()) => _ = added.fetch_add(1, Ordering::AcqRel),
                Err(error) => assert_eq!(error, Errno::EEXIST),
            }
            if both.wait().is_leader() {
                posix::epoll_ctl(set, libc::EPOLL_CTL_DEL, fd, 0, 0).unwrap();
            }
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(add);
        scope.spawn(add);
    });
    assert_eq!(added.load(Ordering::Acquire), rounds);
    [set, fd].into_iter().for_each(|fd| posix::close(fd).unwrap());
}

#[test]
fn an_edge_of_a_kernels_descriptor_is_seen_while_that_is_added() {
    let _bed = Bed::new(Wait::Block);
    let (set, never) = (posix::epoll_create(true).unwrap(), sys::EventFd::new().unwrap());
    posix::epoll_ctl(set, ADD, never.fd(), IN, 0).unwrap();
    let (rounds, seen) = (1000, AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let looking = scope.spawn(|| {
            for round in 1..=rounds {
                let (mut got, begun) = (Vec::new(), std::time::Instant::now());
                while got.is_empty() && begun.elapsed() < Duration::from_secs(5) {
                    got = wait(set, 0).unwrap();
                }
                assert_eq!(got, [round as u64]);
                seen.store(round, Ordering::Release);
            }
        });
        for round in 1..=rounds {
            let fd = readable();
            posix::epoll_ctl(set, ADD, fd, IN | EDGE, round as u64).unwrap();
            while seen.load(Ordering::Acquire) < round && !looking.is_finished() {
                std::thread::yield_now();
            }
            posix::epoll_ctl(set, libc::EPOLL_CTL_DEL, fd, 0, 0).unwrap();
            close_kernels(fd);
        }
    });
    posix::close(set).unwrap();
}
