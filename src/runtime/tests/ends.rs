//! Calls that wait, and what ends them from another thread.

use super::threads::Bed;
use super::*;
use crate::errno::{Errno, Result};
use crate::runtime::posix;
use crate::runtime::posix::shared_of;
use std::sync::mpsc;
use std::time::Duration;

/// What a call of another thread's comes to, of which `end` is the end.
fn ended_by<R: Send + 'static>(calls: usize, call: impl Fn() -> R + Send + Clone + 'static, end: impl FnOnce()) -> Vec<R> {
    let (tell, told) = mpsc::channel();
    for _ in 0..calls {
        let (tell, call) = (tell.clone(), call.clone());
        std::thread::spawn(move || tell.send(call()));
    }
    std::thread::sleep(Duration::from_millis(50));
    assert!(told.try_recv().is_err(), "it waits");
    end();
    (0..calls).map(|_| told.recv_timeout(Duration::from_secs(10)).expect("it ends")).collect()
}

fn listen() -> i32 {
    let fd = posix::socket(libc::AF_INET, libc::SOCK_STREAM, 0).unwrap();
    posix::bind(fd, at(A, 8)).unwrap();
    posix::listen(fd, 16).unwrap();
    assert!(shared_of(fd).is_ok());
    fd
}

#[test]
fn an_accept_ends_where_its_listener_is_shut_down() {
    let _bed = Bed::new(Wait::Block);
    let fd = listen();
    let accept = move || posix::accept4(fd, 0).map(|_| ());
    let got = ended_by(2, accept, || posix::shutdown(fd, libc::SHUT_RD).unwrap());
    assert_eq!(got, [Err(Errno::EINVAL); 2]);
    posix::close(fd).unwrap();
}

#[test]
fn a_read_of_datagrams_ends_where_it_is_shut_down() {
    let _bed = Bed::new(Wait::Block);
    let fd = posix::socket(libc::AF_INET, libc::SOCK_DGRAM, 0).unwrap();
    posix::connect(fd, at(B, 9)).unwrap();
    let read = move || posix::recv(fd, &mut [0; 8], 0);
    let got = ended_by(1, read, || posix::shutdown(fd, libc::SHUT_RD).unwrap());
    assert_eq!(got, [Ok(0)]);
    posix::close(fd).unwrap();
}

#[test]
fn a_write_that_waits_for_room_ends_where_its_stream_is_shut_down() {
    let _bed = Bed::new(Wait::Block);
    let listener = listen();
    for how in [libc::SHUT_RDWR, libc::SHUT_WR] {
        let fd = posix::socket(libc::AF_INET, libc::SOCK_STREAM, 0).unwrap();
        posix::connect(fd, at(A, 8)).unwrap();
        let (peer, _) = posix::accept4(listener, 0).unwrap();
        // More than all buffers hold, which nobody reads.
        let write = move || posix::send(fd, &vec![7; 64 << 20], libc::MSG_NOSIGNAL);
        let got = ended_by(1, write, || posix::shutdown(fd, how).unwrap());
        assert!(matches!(got[0], Ok(n) if 0 < n && n < 64 << 20), "{got:?}");
        assert_eq!(posix::send(fd, b"x", libc::MSG_NOSIGNAL), Err(Errno::EPIPE));
        [fd, peer].into_iter().for_each(|fd| posix::close(fd).unwrap());
    }
    posix::close(listener).unwrap();
}

#[test]
fn all_who_wait_for_edges_hear_of_the_end_of_the_network() {
    let _turn = super::threads::one_at_a_time();
    let (a, b) = pair(Wait::Block);
    a.install().unwrap();
    let (listener, set) = (listen(), posix::epoll_create(true).unwrap());
    let edge = (libc::EPOLLIN | libc::EPOLLET) as u32;
    posix::epoll_ctl(set, libc::EPOLL_CTL_ADD, listener, edge, 7).unwrap();
    let wait = move || -> Result<usize> { posix::epoll_wait(set, &mut Vec::new(), 4, None) };
    let got = ended_by(3, wait, || drop((a, b)));
    assert_eq!(got, [Ok(1); 3]);
    [set, listener].into_iter().for_each(|fd| posix::close(fd).unwrap());
}
