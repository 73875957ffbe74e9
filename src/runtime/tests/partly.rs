//! Calls that have moved some bytes when something happens: the socket becomes any
//! thread's, its descriptor is closed, or the connection ends.

use super::own::connection;
use super::threads::Bed;
use super::*;
use crate::errno::{Errno, Result};
use crate::runtime::posix;
use crate::runtime::worker::run_blocked_turn;
use crate::socket::SendMeta;
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::RawFd;
use std::time::{Duration, Instant};

const MUCH: usize = 1 << 20;
const ALL: i32 = libc::MSG_WAITALL;

type Call<R> = fn(RawFd) -> R;

fn pattern() -> Vec<u8> {
    (0..MUCH).map(|i| ((i / 251) ^ i) as u8).collect()
}

/// Another thread's, once the call waits.
fn soon() {
    std::thread::sleep(Duration::from_millis(40));
}

/// Uses the descriptor: it is any thread's from then on.
fn touch(fd: RawFd) {
    posix::nonblocking(fd).unwrap();
    posix::local_addr(fd).unwrap();
    assert!(posix::shared_of(fd).is_ok());
}

fn reset(fd: RawFd) {
    let now = [1i32.to_ne_bytes(), 0i32.to_ne_bytes()].concat();
    posix::set_option(fd, libc::SOL_SOCKET, libc::SO_LINGER, &now).unwrap();
    posix::close(fd).unwrap();
}

/// On a worker, on a connection of its own; `meanwhile` on another thread.
fn beside<R>(port: u16, call: impl Fn(RawFd, RawFd) -> R, meanwhile: impl Fn(RawFd, RawFd) + Send + Sync, after: impl Fn(R, RawFd, RawFd)) {
    let [far, near] = connection(port);
    let got = std::thread::scope(|scope| {
        let meanwhile = &meanwhile;
        let other = scope.spawn(move || {
            soon();
            meanwhile(far, near);
        });
        let got = call(far, near);
        while !other.is_finished() {
            run_blocked_turn(Some(0)); // it may wait for this worker
            std::thread::yield_now();
        }
        other.join().unwrap();
        got
    });
    after(got, far, near);
    let _ = (posix::close(far), posix::close(near));
}

fn on_worker(f: fn()) {
    let bed = Bed::new(Wait::Block);
    bed.a().run_loop(move || {
        f();
        false
    })
    .unwrap();
}

/// Reads all of the pattern, on a socket that does not block.
fn read_pattern(fd: RawFd) {
    posix::set_nonblocking(fd, false).unwrap();
    let mut got = vec![0; MUCH];
    assert_eq!(posix::recv(fd, &mut got, ALL), Ok(MUCH));
    assert!(got == pattern(), "first difference at {:?}", got.iter().zip(pattern()).position(|(a, b)| *a != b));
    posix::set_nonblocking(fd, true).unwrap();
    assert_eq!(posix::recv(fd, &mut [0; 9], 0), Err(Errno::EAGAIN), "nothing twice");
}

fn send(fd: RawFd) -> Result<usize> {
    posix::send(fd, &pattern(), 0)
}

fn send_parts(fd: RawFd) -> Result<usize> {
    let all = pattern();
    let parts = [&all[..1000], &[], &all[1000..700_000], &all[700_000..]].map(IoSlice::new);
    posix::send_message(fd, &parts, 0, None, &SendMeta::default())
}

fn recv(fd: RawFd) -> (Result<usize>, [u8; 8]) {
    let mut buf = [0; 8];
    (posix::recv(fd, &mut buf, ALL), buf)
}

fn recv_parts(fd: RawFd) -> (Result<usize>, [u8; 8]) {
    let mut buf = [0; 8];
    let (one, two) = buf.split_at_mut(3);
    let got = posix::recv_message(fd, &mut [IoSliceMut::new(one), IoSliceMut::new(two)], ALL);
    (got.map(|(n, _)| n), buf)
}

#[test]
fn a_call_goes_on_where_its_socket_becomes_any_threads() {
    on_worker(|| {
        for (port, send) in [(20, send as Call<Result<usize>>), (21, send_parts)] {
            let meanwhile = |far, near| {
                touch(far);
                read_pattern(near);
            };
            beside(port, |far, _| send(far), meanwhile, |sent, _, _| assert_eq!(sent, Ok(MUCH)));
        }
        for (port, recv) in [(22, recv as Call<(Result<usize>, [u8; 8])>), (23, recv_parts)] {
            let call = |far, near| {
                assert_eq!(posix::send(near, b"abcd", 0), Ok(4));
                recv(far)
            };
            let meanwhile = |far, near| {
                touch(far);
                soon();
                assert_eq!(posix::send(near, b"efgh", 0), Ok(4));
            };
            beside(port, call, meanwhile, |got, _, _| assert_eq!(got, (Ok(8), *b"abcdefgh")));
        }
    });
}

#[test]
fn what_was_moved_is_told_where_the_descriptor_is_closed_or_anothers() {
    on_worker(|| {
        let close = |far, _| posix::close(far).unwrap();
        let replace = |far, _| {
            posix::close(far).unwrap();
            // Numbers are kept for the thread's next sockets: one of them has it.
            let others: Vec<_> = (0..8).map(|_| posix::socket(libc::AF_INET, libc::SOCK_DGRAM, 0).unwrap()).collect();
            others.into_iter().filter(|fd| *fd != far).for_each(|fd| posix::close(fd).unwrap());
        };
        for (port, recv) in [(30, recv as Call<(Result<usize>, [u8; 8])>), (31, recv_parts)] {
            let call = |far, near| {
                assert_eq!(posix::send(near, b"abcd", 0), Ok(4));
                recv(far)
            };
            let right = |(got, buf): (Result<usize>, [u8; 8]), _, _| assert_eq!((got, &buf[..4]), (Ok(4), &b"abcd"[..]));
            beside(port, call, close, right);
            beside(port + 10, call, replace, right);
        }
        for (port, send) in [(32, send as Call<Result<usize>>), (33, send_parts)] {
            let right = |sent: Result<usize>, _, _| assert!(sent.is_ok_and(|n| (1..MUCH).contains(&n)), "{sent:?}");
            beside(port, |far, _| send(far), close, right);
        }
        beside(34, |far, _| posix::recv(far, &mut [0; 8], 0), close, |got, _, _| assert_eq!(got, Err(Errno::EBADF)));
    });
}

#[test]
fn a_close_that_lingers_closes_what_became_any_threads_meanwhile() {
    on_worker(|| {
        let lasts = [1i32.to_ne_bytes(), 30i32.to_ne_bytes()].concat();
        let call = |far, _| {
            posix::set_option(far, libc::SOL_SOCKET, libc::SO_LINGER, &lasts).unwrap();
            // More than its peer takes.
            while posix::send(far, &pattern(), libc::MSG_DONTWAIT).is_ok() {}
            posix::close(far)
        };
        let meanwhile = |far, near| {
            touch(far);
            soon();
            reset(near);
        };
        beside(35, call, meanwhile, |closed, far, _| {
            assert_eq!((closed, posix::is_open(far)), (Ok(()), Err(Errno::EBADF)));
        });
    });
}

#[test]
fn a_time_out_goes_on_where_its_socket_becomes_any_threads() {
    on_worker(|| {
        let two = [2i64.to_ne_bytes(), 0i64.to_ne_bytes()].concat();
        let call = |far, _| {
            posix::set_option(far, libc::SOL_SOCKET, libc::SO_RCVTIMEO, &two).unwrap();
            let begun = Instant::now();
            (posix::recv(far, &mut [0; 8], 0), begun.elapsed())
        };
        let meanwhile = |far, _| {
            std::thread::sleep(Duration::from_millis(1600));
            touch(far);
        };
        beside(36, call, meanwhile, |(got, took), _, _| {
            assert_eq!(got, Err(Errno::EAGAIN));
            assert!((Duration::from_secs(2)..Duration::from_millis(3200)).contains(&took), "{took:?}");
        });
    });
}

/// A reset in the middle of a call: the call says how much was moved, the next how the
/// connection ended, and the one after it that it is over.
fn resets(first_port: u16) {
    let meanwhile = |_, near| reset(near);
    for (port, recv) in [(0, recv as Call<(Result<usize>, [u8; 8])>), (1, recv_parts)] {
        let call = |far, near| {
            assert_eq!(posix::send(near, b"abcd", 0), Ok(4));
            recv(far)
        };
        beside(first_port + port, call, meanwhile, |(got, buf), far, _| {
            assert_eq!((got, &buf[..4]), (Ok(4), &b"abcd"[..]));
            let next = [(); 2].map(|()| posix::recv(far, &mut [0; 8], 0));
            assert_eq!(next, [Err(Errno::ECONNRESET), Ok(0)]);
        });
    }
    for (port, send) in [(2, send as Call<Result<usize>>), (3, send_parts)] {
        beside(first_port + port, |far, _| send(far), meanwhile, |sent, far, _| {
            assert!(sent.is_ok_and(|n| (1..MUCH).contains(&n)), "{sent:?}");
            let next = [(); 2].map(|()| posix::send(far, b"x", 0));
            assert_eq!(next, [Err(Errno::ECONNRESET), Err(Errno::EPIPE)]);
        });
    }
}

#[test]
fn a_call_that_moved_something_leaves_the_connections_error() {
    on_worker(|| resets(40));
    let bed = Bed::new(Wait::Block);
    resets(50);
    drop(bed);
}
