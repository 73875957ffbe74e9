//! A worker's own sockets and sets, by the short way and by the long one.

use super::threads::Bed;
use super::*;
use crate::errno::Errno;
use crate::runtime::posix::{self, own_ready, own_recv, own_send};
use crate::runtime::worker::set_in_simulation;
use std::os::fd::RawFd;
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
fn connection(port: u16) -> [RawFd; 2] {
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
