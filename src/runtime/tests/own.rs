//! A worker's own sockets and sets, by the short way and by the long one.

use super::threads::Bed;
use super::*;
use crate::errno::Errno;
use crate::runtime::posix::{self, own_ready, own_ready_now, own_recv, own_recv_now, own_send, own_send_now};
use crate::runtime::worker::{current_owner, run_blocked_turn, set_in_simulation, with_sockets};
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const IN: u32 = libc::EPOLLIN as u32;
const ADD: i32 = libc::EPOLL_CTL_ADD;

fn listener(port: u16) -> RawFd {
    let fd = posix::socket(libc::AF_INET, libc::SOCK_STREAM, 0).unwrap();
    posix::bind(fd, at(A, port)).unwrap();
    posix::listen(fd, 8).unwrap();
    fd
}

fn wait(set: RawFd, ms: u64) -> crate::errno::Result<Vec<u64>> {
    let mut out = Vec::new();
    posix::epoll_wait(set, &mut out, 4, Some(Duration::from_millis(ms)))?;
    Ok(out.iter().map(|event| event.data).collect())
}

fn ready(set: RawFd) -> Vec<u64> {
    let mut out = Vec::new();
    assert_eq!(own_ready(set, 4, |event| out.push(event.data)), out.len());
    out
}

/// A connection of the worker's own to itself: its descriptors.
pub(super) fn connection(port: u16) -> [RawFd; 2] {
    let listening = listener(port);
    let fd = posix::socket(libc::AF_INET, libc::SOCK_STREAM, 0).unwrap();
    posix::connect(fd, at(A, port)).unwrap();
    let (accepted, _) = posix::accept4(listening, libc::SOCK_NONBLOCK).unwrap();
    posix::close(listening).unwrap();
    [fd, accepted]
}

#[test]
fn the_short_way_is_the_workers_own_and_does_not_wait() {
    let bed = Bed::new(Wait::Block);
    bed.a().run_loop(|| {
        let [far, near] = connection(9);
        let set = posix::epoll_create(true).unwrap();
        posix::epoll_ctl(set, ADD, near, IN, 5).unwrap();
        let mut buf = [0; 8];
        assert_eq!(own_recv(near, &mut buf, 0), Some(Err(Errno::EAGAIN)));
        assert!(ready(set).is_empty());
        assert_eq!(own_recv(far, &mut buf, 0), None, "it may have to wait");
        assert_eq!(own_recv(far, &mut buf, libc::MSG_DONTWAIT), Some(Err(Errno::EAGAIN)));
        assert_eq!((own_send(far, b"ping", 0), posix::send(far, b"ping", 0)), (None, Ok(4)));
        assert_eq!(wait(set, 5000), Ok(vec![5]));
        assert_eq!(ready(set), [5], "level is told again");
        // In a simulation the numbers are the simulation's.
        set_in_simulation(true);
        assert_eq!((own_recv(near, &mut buf, 0), ready(set)), (None, vec![]));
        set_in_simulation(false);
        std::thread::scope(|scope| {
            let other = scope.spawn(move || (own_recv(near, &mut [0; 8], 0), ready(set)));
            assert_eq!(other.join().unwrap(), (None, vec![]), "another thread");
        });
        assert_eq!(own_recv(near, &mut buf, 0), Some(Ok(4)));
        assert_eq!(own_send(near, b"pong", 0), Some(Ok(4)));
        assert_eq!(posix::recv(far, &mut buf, 0), Ok(4));
        // No socket, and no set.
        assert_eq!((own_recv(set, &mut buf, 0), ready(near)), (None, vec![]));
        assert_eq!(posix::recv(set, &mut buf, libc::MSG_DONTWAIT), Err(Errno::ENOTSOCK));
        assert_eq!(wait(near, 0), Err(Errno::EINVAL));
        assert_eq!((posix::dup(set, 0, true), posix::nonblocking(set)), (Err(Errno::EINVAL), Ok(false)));
        let inner = posix::epoll_create(true).unwrap();
        assert_eq!(posix::epoll_ctl(set, ADD, inner, IN, 6), Err(Errno::EINVAL), "a set in a set");
        [far, near, set, inner].into_iter().for_each(|fd| posix::close(fd).unwrap());
        assert_eq!((own_recv(near, &mut buf, 0), ready(set)), (None, vec![]));
        assert_eq!(wait(set, 0), Err(Errno::EBADF));
        false
    })
    .unwrap();
}

#[test]
fn the_shortest_way_leaves_what_is_not_the_workers_own_and_what_is_due_a_turn() {
    let bed = Bed::new(Wait::Block);
    bed.a().run_loop(|| {
        let [far, near] = connection(9);
        let set = posix::epoll_create(true).unwrap();
        posix::epoll_ctl(set, ADD, near, IN, 5).unwrap();
        let tried = move || {
            let (got, sent) = (own_recv_now::<0>(near, &mut [0; 2], 0), own_send_now::<0>(near, b"", 0));
            (got, sent, own_ready_now(set).map(|event| event.data))
        };
        assert_eq!(tried(), (0, 0, None));
        posix::send(far, b"ping", 0).unwrap();
        assert_eq!(wait(set, 5000), Ok(vec![5]));
        assert_eq!(tried(), (0, 0, Some(5)));
        let mine = move || {
            let (got, sent) = (own_recv_now::<0>(near, &mut [0; 8], 0), own_send_now::<0>(near, b"pong", 0));
            (got, sent, own_ready_now(set).map(|event| event.data))
        };
        set_in_simulation(true);
        assert_eq!(mine(), (0, 0, None));
        set_in_simulation(false);
        std::thread::scope(|scope| {
            assert_eq!(scope.spawn(mine).join().unwrap(), (0, 0, None), "another thread");
        });
        // Who always finds something gets his turns, too.
        let found = (0..1000).take_while(|_| own_ready_now(set).is_some()).count();
        assert!((1..1000).contains(&found), "{found}");
        assert_eq!((wait(set, 0), tried()), (Ok(vec![5]), (0, 0, Some(5))));
        assert_eq!((own_recv_now::<0>(set, &mut [0; 8], 0), own_ready_now(near)), (0, None), "no socket, no set");
        assert_eq!(own_recv(near, &mut [0; 8], 0), Some(Ok(4)));
        assert_eq!(own_send_now::<0>(near, b"pong", 0), 4);
        assert_eq!(posix::recv(far, &mut [0; 8], 0), Ok(4));
        [far, near, set].into_iter().for_each(|fd| posix::close(fd).unwrap());
        assert_eq!(mine(), (0, 0, None), "closed");
        false
    })
    .unwrap();
}

#[test]
fn a_read_of_the_error_queue_or_the_urgent_byte_does_not_wait() {
    let bed = Bed::new(Wait::Block);
    bed.a().run_loop(|| {
        let [fd, far] = connection(9);
        let ten_seconds = [10i64, 0].map(i64::to_ne_bytes).concat();
        posix::set_option(fd, libc::SOL_SOCKET, libc::SO_RCVTIMEO, &ten_seconds).unwrap();
        let begun = std::time::Instant::now();
        let mut buf = [0; 4];
        assert_eq!(posix::recv(fd, &mut buf, libc::MSG_ERRQUEUE), Err(Errno::EAGAIN));
        let mut parts = [std::io::IoSliceMut::new(&mut buf)];
        assert_eq!(posix::recv_message(fd, &mut parts, libc::MSG_ERRQUEUE).err(), Some(Errno::EAGAIN));
        assert_eq!(posix::recv(fd, &mut buf, libc::MSG_OOB), Err(Errno::EINVAL));
        assert!(begun.elapsed() < Duration::from_secs(9));
        [fd, far].into_iter().for_each(|fd| posix::close(fd).unwrap());
        false
    })
    .unwrap();
}

#[test]
fn a_workers_set_takes_others_members() {
    let bed = Bed::new(Wait::Block);
    bed.a().run_loop(|| {
        let [far, near] = connection(9);
        let set = posix::epoll_create(true).unwrap();
        posix::epoll_ctl(set, ADD, near, IN, 5).unwrap();
        let mut pipe = [0; 2];
        // SAFETY: room for two descriptors.
        assert_eq!(unsafe { libc::pipe(pipe.as_mut_ptr()) }, 0);
        posix::epoll_ctl(set, ADD, pipe[0], IN, 6).unwrap();
        assert_eq!(posix::epoll_ctl(set, ADD, near, IN, 5), Err(Errno::EEXIST), "it is still there");
        assert_eq!((wait(set, 0), ready(set)), (Ok(vec![]), vec![]));
        // SAFETY: one readable byte.
        unsafe { libc::write(pipe[1], b"x".as_ptr().cast(), 1) };
        assert_eq!(wait(set, 5000), Ok(vec![6]));
        posix::epoll_ctl(set, libc::EPOLL_CTL_DEL, pipe[0], 0, 0).unwrap();
        posix::send(far, b"ping", 0).unwrap();
        assert_eq!(wait(set, 5000), Ok(vec![5]));
        [far, near, set].into_iter().for_each(|fd| posix::close(fd).unwrap());
        // SAFETY: both are ours.
        unsafe { (libc::close(pipe[0]), libc::close(pipe[1])) };
        false
    })
    .unwrap();
}

#[test]
fn a_workers_set_can_be_used_and_closed_by_others_while_the_worker_waits_on_it() {
    let bed = Bed::new(Wait::Block);
    bed.a().run_loop(|| {
        let [far, near] = connection(9);
        let set = posix::epoll_create(true).unwrap();
        posix::epoll_ctl(set, ADD, near, IN, 5).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                std::thread::sleep(Duration::from_millis(30));
                // From now on it is anybody's; what the worker put in it stays.
                let shared = posix::socket(libc::AF_INET, libc::SOCK_DGRAM, 0).unwrap();
                posix::epoll_ctl(set, ADD, shared, libc::EPOLLOUT as u32, 6).unwrap();
                posix::epoll_ctl(set, libc::EPOLL_CTL_DEL, shared, 0, 0).unwrap();
                posix::close(shared).unwrap();
                std::thread::sleep(Duration::from_millis(30));
                posix::send(far, b"ping", 0).unwrap();
            });
            // The datagram socket may be reported before it is gone.
            while wait(set, 10_000).unwrap() != [5] {}
        });
        let mut buf = [0; 8];
        assert_eq!(posix::recv(near, &mut buf, 0), Ok(4));
        std::thread::scope(|scope| {
            scope.spawn(move || {
                std::thread::sleep(Duration::from_millis(30));
                posix::close(set).unwrap();
            });
            assert_eq!(wait(set, 10_000), Err(Errno::EBADF));
        });
        // Closed from the first, by another thread.
        let set = posix::epoll_create(true).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                std::thread::sleep(Duration::from_millis(30));
                posix::close(set).unwrap();
            });
            assert_eq!(wait(set, 10_000), Err(Errno::EBADF));
        });
        [far, near].into_iter().for_each(|fd| posix::close(fd).unwrap());
        false
    })
    .unwrap();
}

#[test]
fn what_a_timer_does_ends_a_wait() {
    let bed = Bed::new(Wait::Block);
    bed.a().run_loop(|| {
        // Nobody answers: the connection ends by its timer alone.
        let fd = posix::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_NONBLOCK, 0).unwrap();
        posix::set_option(fd, libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, &100i32.to_ne_bytes()).unwrap();
        let nobody = at("10.9.0.99".parse().unwrap(), 9);
        assert_eq!(posix::connect(fd, nobody), Err(Errno::EINPROGRESS));
        let set = posix::epoll_create(true).unwrap();
        posix::epoll_ctl(set, ADD, fd, IN, 5).unwrap();
        let begun = std::time::Instant::now();
        let mut out = Vec::new();
        posix::epoll_wait(set, &mut out, 4, None).unwrap();
        assert_eq!(out[0].data, 5);
        assert!(begun.elapsed() < Duration::from_secs(20));
        [fd, set].into_iter().for_each(|fd| posix::close(fd).unwrap());
        false
    })
    .unwrap();
}

/// What another thread finds, while the worker runs its turns.
fn elsewhere<R: Send>(f: impl FnOnce() -> R + Send) -> R {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let other = scope.spawn(|| {
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(f));
            done.store(true, Ordering::Release);
            result.unwrap()
        });
        while !done.load(Ordering::Acquire) {
            run_blocked_turn(Some(0));
        }
        other.join().unwrap()
    })
}

/// Any call makes it everybody's.
fn touch(fd: RawFd) {
    assert_eq!(elsewhere(|| posix::recv(fd, &mut [0; 8], libc::MSG_DONTWAIT)), Err(Errno::EAGAIN));
}

#[test]
fn a_workers_set_that_another_thread_closes_leaves_nothing_behind() {
    let bed = Bed::new(Wait::Block);
    bed.a().run_loop(|| {
        let owner = current_owner().unwrap();
        let count = || with_sockets(owner, |s| s.open_handles()).unwrap();
        let [far, near] = connection(9);
        (0..100).for_each(|_| _ = run_blocked_turn(Some(0)));
        let before = count();
        for _ in 0..10 {
            let set = posix::epoll_create(true).unwrap();
            posix::epoll_ctl(set, ADD, near, IN, 5).unwrap();
            assert_eq!(elsewhere(|| posix::close(set)), Ok(()));
        }
        run_blocked_turn(Some(0));
        assert_eq!(count(), before, "sets that nobody has any more");
        assert!(with_sockets(owner, |s| (0..1000).all(|_| s.epoll_create().is_ok())).unwrap());
        [far, near].into_iter().for_each(|fd| posix::close(fd).unwrap());
        false
    })
    .unwrap();
}

#[test]
fn a_member_that_another_thread_uses_stays_in_the_workers_sets() {
    let bed = Bed::new(Wait::Block);
    bed.a().run_loop(|| {
        let [far, near] = connection(9);
        let sets = [5, 6].map(|data| {
            let set = posix::epoll_create(true).unwrap();
            posix::epoll_ctl(set, ADD, near, IN, data).unwrap();
            (set, data)
        });
        touch(near);
        for (set, data) in sets {
            assert_eq!(posix::epoll_ctl(set, ADD, near, IN, 1), Err(Errno::EEXIST));
            assert_eq!(wait(set, 0), Ok(vec![]));
            posix::send(far, b"ping", 0).unwrap();
            assert_eq!(wait(set, 5000), Ok(vec![data]));
            posix::epoll_ctl(set, libc::EPOLL_CTL_MOD, near, IN, 7).unwrap();
            assert_eq!(wait(set, 5000), Ok(vec![7]));
            posix::epoll_ctl(set, libc::EPOLL_CTL_DEL, near, 0, 0).unwrap();
            assert_eq!(wait(set, 0), Ok(vec![]));
            assert_eq!(posix::recv(near, &mut [0; 8], 0), Ok(4));
        }
        sets.into_iter().for_each(|(set, _)| posix::close(set).unwrap());
        [far, near].into_iter().for_each(|fd| posix::close(fd).unwrap());
        false
    })
    .unwrap();
}

#[test]
fn what_was_reported_once_is_not_reported_again_by_anothers_use() {
    let bed = Bed::new(Wait::Block);
    bed.a().run_loop(|| {
        let [far, near] = connection(9);
        let how = [1 << 31, 1 << 30].map(|how: u32| {
            let set = posix::epoll_create(true).unwrap();
            posix::epoll_ctl(set, ADD, near, IN | how, 5).unwrap();
            set
        });
        let unseen = posix::epoll_create(true).unwrap();
        posix::epoll_ctl(unseen, ADD, near, IN | 1 << 31, 6).unwrap();
        posix::send(far, b"ping", 0).unwrap();
        for set in how {
            assert_eq!(wait(set, 5000), Ok(vec![5]));
        }
        elsewhere(|| posix::readiness(near).unwrap());
        for set in how {
            assert_eq!(wait(set, 0), Ok(vec![]));
        }
        assert_eq!((wait(unseen, 0), wait(unseen, 0)), (Ok(vec![6]), Ok(vec![])), "a report that was due");
        posix::send(far, b"more", 0).unwrap();
        assert_eq!(wait(how[0], 5000), Ok(vec![5]), "a new edge");
        assert_eq!(wait(how[1], 0), Ok(vec![]));
        posix::epoll_ctl(how[1], libc::EPOLL_CTL_MOD, near, IN, 8).unwrap();
        assert_eq!(wait(how[1], 0), Ok(vec![8]));
        [far, near, how[0], how[1], unseen].into_iter().for_each(|fd| posix::close(fd).unwrap());
        false
    })
    .unwrap();
}

#[test]
fn another_threads_wait_finds_what_the_worker_put_into_its_set() {
    let bed = Bed::new(Wait::Block);
    bed.a().run_loop(|| {
        let [far, near] = connection(9);
        let [far2, near2] = connection(10);
        let set = posix::epoll_create(true).unwrap();
        posix::epoll_ctl(set, ADD, near, IN, 5).unwrap();
        posix::send(far, b"ping", 0).unwrap();
        assert_eq!(elsewhere(|| wait(set, 10_000)), Ok(vec![5]));
        assert_eq!(wait(set, 5000), Ok(vec![5]), "and the worker's own");
        assert_eq!(posix::recv(near, &mut [0; 8], 0), Ok(4));
        // What comes in later, while the other one sleeps.
        let waits = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let other = scope.spawn(|| {
                waits.store(true, Ordering::Release);
                wait(set, 10_000)
            });
            while !waits.load(Ordering::Acquire) {
                run_blocked_turn(Some(0));
            }
            (0..100).for_each(|_| _ = run_blocked_turn(Some(crate::runtime::sys::monotonic_ns() + 300_000)));
            posix::epoll_ctl(set, ADD, near2, IN, 6).unwrap();
            posix::send(far2, b"ping", 0).unwrap();
            while !other.is_finished() {
                run_blocked_turn(Some(0));
            }
            assert_eq!(other.join().unwrap(), Ok(vec![6]));
        });
        assert_eq!(wait(set, 5000), Ok(vec![6]));
        [far, near, far2, near2, set].into_iter().for_each(|fd| posix::close(fd).unwrap());
        false
    })
    .unwrap();
}

#[test]
fn a_loop_that_always_finds_something_keeps_nothing_from_the_network() {
    let bed = Bed::new(Wait::Block);
    bed.a().run_loop(|| {
        let [far, near] = connection(9);
        let set = posix::epoll_create(true).unwrap();
        posix::epoll_ctl(set, ADD, far, libc::EPOLLOUT as u32, 5).unwrap();
        // By the long way alone, and by the short one first; then on a set of anybody's.
        let by_short = |set| if ready(set) == [5] { Ok(vec![5]) } else { wait(set, 10_000) };
        let ways: [&dyn Fn(RawFd) -> crate::errno::Result<Vec<u64>>; 2] = [&|set| wait(set, 10_000), &by_short];
        for shared in [false, true] {
            if shared {
                let bits = elsewhere(|| posix::readiness(far).unwrap().bits());
                assert_eq!(bits, libc::EPOLLOUT as u32);
            }
            for way in ways {
                posix::send(far, b"ping", 0).unwrap();
                let begun = std::time::Instant::now();
                while posix::recv(near, &mut [0; 8], 0) == Err(Errno::EAGAIN) {
                    assert_eq!(way(set), Ok(vec![5]));
                    assert!(begun.elapsed() < Duration::from_secs(10), "nothing comes in");
                }
            }
        }
        [far, near, set].into_iter().for_each(|fd| posix::close(fd).unwrap());
        false
    })
    .unwrap();
}

/// By `poll`, by reading again and again, and by asking for a connection.
#[test]
fn a_loop_that_never_waits_keeps_nothing_from_the_network() {
    let bed = Bed::new(Wait::Block);
    bed.a().run_loop(|| {
        let [far, near] = connection(9);
        let one = |fd, events| libc::pollfd { fd, events, revents: 0 };
        let poll = || {
            let mut fds = [one(near, libc::POLLIN), one(far, libc::POLLOUT)];
            assert!(posix::poll(&mut fds, Some(Duration::from_secs(10))).unwrap() > 0);
            fds[0].revents != 0
        };
        let now = libc::MSG_DONTWAIT;
        let parts = || {
            let (mut a, mut b) = ([0; 1], [0; 8]);
            let mut parts = [std::io::IoSliceMut::new(&mut a), std::io::IoSliceMut::new(&mut b)];
            posix::recv_message(near, &mut parts, now | libc::MSG_PEEK).is_ok()
        };
        let ways: [&dyn Fn() -> bool; 4] = [
            &poll,
            &|| posix::recv(near, &mut [0; 8], now | libc::MSG_PEEK).is_ok(),
            &|| own_recv(near, &mut [0; 8], now | libc::MSG_PEEK).unwrap_or(posix::recv(near, &mut [0; 8], now | libc::MSG_PEEK)).is_ok(),
            &parts,
        ];
        for shared in [false, true] {
            if shared {
                elsewhere(|| posix::readiness(near).unwrap());
            }
            for (i, way) in ways.iter().enumerate() {
                posix::send(far, b"ping", 0).unwrap();
                let begun = std::time::Instant::now();
                while !way() {
                    assert!(begun.elapsed() < Duration::from_secs(5), "nothing comes in by way {i}");
                }
                assert_eq!(posix::recv(near, &mut [0; 8], 0), Ok(4));
            }
        }
        let listening = listener(10);
        posix::set_nonblocking(listening, true).unwrap();
        let fd = posix::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_NONBLOCK, 0).unwrap();
        assert_eq!(posix::connect(fd, at(A, 10)), Err(Errno::EINPROGRESS));
        let begun = std::time::Instant::now();
        let accepted = loop {
            match posix::accept4(listening, 0) {
                Ok((accepted, _)) => break accepted,
                Err(error) => assert_eq!(error, Errno::EAGAIN),
            }
            assert!(begun.elapsed() < Duration::from_secs(5), "no connection comes in");
        };
        [far, near, listening, fd, accepted].into_iter().for_each(|fd| posix::close(fd).unwrap());
        false
    })
    .unwrap();
}

#[test]
fn what_fails_leaves_a_workers_set_its_own() {
    let bed = Bed::new(Wait::Block);
    bed.a().run_loop(|| {
        let [far, near] = connection(9);
        let set = posix::epoll_create(true).unwrap();
        posix::epoll_ctl(set, ADD, near, IN, 5).unwrap();
        let file = std::fs::File::open("Cargo.toml").unwrap();
        let file = std::os::fd::AsRawFd::as_raw_fd(&file);
        let datagram = posix::socket(libc::AF_INET, libc::SOCK_DGRAM, 0).unwrap();
        let shared = posix::dup(datagram, 0, true).unwrap();
        let (modify, delete) = (libc::EPOLL_CTL_MOD, libc::EPOLL_CTL_DEL);
        let expected = [
            (-1, [Errno::EBADF, Errno::EBADF, Errno::EBADF]),
            (1_000_000, [Errno::EBADF, Errno::EBADF, Errno::EBADF]),
            (file, [Errno::EPERM, Errno::EPERM, Errno::EPERM]),
        ];
        for (fd, errors) in expected {
            let found = [ADD, modify, delete].map(|op| posix::epoll_ctl(set, op, fd, IN, 6));
            assert_eq!(found, errors.map(Err), "{fd}");
        }
        let mut pipe = [0; 2];
        // SAFETY: room for two descriptors.
        assert_eq!(unsafe { libc::pipe(pipe.as_mut_ptr()) }, 0);
        for fd in [pipe[0], shared] {
            let found = [modify, delete, 9].map(|op| posix::epoll_ctl(set, op, fd, IN, 6));
            assert_eq!(found, [Errno::ENOENT, Errno::ENOENT, Errno::EINVAL].map(Err), "{fd}");
        }
        posix::send(far, b"ping", 0).unwrap();
        assert_eq!(wait(set, 5000), Ok(vec![5]));
        assert_eq!(ready(set), [5], "by the short way: the worker's own");
        // SAFETY: both are ours.
        unsafe { (libc::close(pipe[0]), libc::close(pipe[1])) };
        [far, near, set, datagram, shared].into_iter().for_each(|fd| posix::close(fd).unwrap());
        false
    })
    .unwrap();
}
