//! SO_RCVLOWAT and SO_LINGER as any thread sees them.

use super::threads::Bed;
use super::*;
use crate::errno::Errno;
use crate::runtime::posix;
use crate::socket::{Handle, Sockets};
use crate::time::Instant;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

/// Sends as many bytes as the test says on its one connection, and reads only when
/// told.
struct Peer {
    listener: Handle,
    open: Option<Handle>,
    told: Arc<Told>,
}

#[derive(Default)]
struct Told {
    send: AtomicU32,
    read: AtomicBool,
}

impl Peer {
    fn new(s: &mut Sockets, told: Arc<Told>) -> Self {
        let listener = s.socket(libc::AF_INET, libc::SOCK_STREAM, 0).unwrap();
        let small = 4096i32.to_ne_bytes();
        s.set_option(listener, libc::SOL_SOCKET, libc::SO_RCVBUF, &small).unwrap();
        s.bind(listener, at(B, 7)).unwrap();
        s.listen(listener, 8).unwrap();
        Self { listener, open: None, told }
    }
}

impl crate::runtime::App for Peer {
    fn turn(&mut self, _: Instant, s: &mut Sockets) -> ControlFlow<()> {
        if let Ok((h, _)) = s.accept(self.listener)
            && let Some(old) = self.open.replace(h)
        {
            let _ = s.close(old);
        }
        let Some(h) = self.open else { return ControlFlow::Continue(()) };
        let n = self.told.send.swap(0, Ordering::AcqRel) as usize;
        if n > 0 {
            assert_eq!(s.send(h, &vec![1; n], 0), Ok(n));
        }
        let mut buf = [0; 65536];
        if self.told.read.load(Ordering::Acquire) {
            let _ = s.recv(h, &mut buf, 0);
        }
        ControlFlow::Continue(())
    }
}

fn connect() -> i32 {
    let fd = posix::socket(libc::AF_INET, libc::SOCK_STREAM, 0).unwrap();
    posix::connect(fd, at(B, 7)).unwrap();
    fd
}

fn poll(fd: i32, ms: u64) -> bool {
    let mut fds = [libc::pollfd { fd, events: libc::POLLIN, revents: 0 }];
    posix::poll(&mut fds, Some(Duration::from_millis(ms))).unwrap() > 0
}

fn arrived(fd: i32, n: usize) {
    while posix::bytes_readable(fd).unwrap() < n {
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_thread_waits_for_as_many_bytes_as_it_wants_at_a_time() {
    let told = Arc::new(Told::default());
    let theirs = told.clone();
    Bed::new(Wait::Block).against(move |s| Peer::new(s, theirs.clone()), || {
        let fd = connect();
        let send = |n: u32| told.send.store(n, Ordering::Release);
        let low = |n: i32| posix::set_option(fd, libc::SOL_SOCKET, libc::SO_RCVLOWAT, &n.to_ne_bytes()).unwrap();
        low(1000);
        let set = posix::epoll_create(true).unwrap();
        posix::epoll_ctl(set, libc::EPOLL_CTL_ADD, fd, libc::EPOLLIN as u32, 5).unwrap();
        let waits = |ms| {
            let mut out = Vec::new();
            posix::epoll_wait(set, &mut out, 4, Some(Duration::from_millis(ms))).unwrap();
            out.len()
        };
        send(600);
        arrived(fd, 600);
        assert!(!poll(fd, 20) && waits(20) == 0, "600 are not enough");
        // A call that does not wait takes what there is.
        let mut buf = [0; 4096];
        assert_eq!(posix::recv(fd, &mut buf[..50], libc::MSG_DONTWAIT), Ok(50));
        assert_eq!(posix::recv(fd, &mut buf, libc::MSG_DONTWAIT | libc::MSG_PEEK), Ok(550));
        send(450);
        assert!(poll(fd, 5000) && waits(5000) == 1, "1,000 are");
        low(2000);
        assert!(!poll(fd, 0) && waits(0) == 0);
        low(700);
        assert!(poll(fd, 0) && waits(5000) == 1);
        low(1500);
        // One that waits takes what comes until it has as many, or what it asked for.
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(30));
                send(600);
            });
            assert_eq!(posix::recv(fd, &mut buf, 0), Ok(1600));
        });
        send(100);
        assert_eq!(posix::recv(fd, &mut buf[..100], 0), Ok(100));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                send(1000);
                std::thread::sleep(Duration::from_millis(30));
                send(500);
            });
            assert_eq!(posix::recv(fd, &mut buf, libc::MSG_PEEK), Ok(1500));
            assert_eq!(posix::recv(fd, &mut buf, 0), Ok(1500));
        });
        // SO_RCVTIMEO ends the wait with what there is.
        let timeout = [0i64.to_ne_bytes(), 50_000i64.to_ne_bytes()].concat();
        posix::set_option(fd, libc::SOL_SOCKET, libc::SO_RCVTIMEO, &timeout).unwrap();
        send(10);
        assert_eq!(posix::recv(fd, &mut buf, 0), Ok(10));
        assert_eq!(posix::recv(fd, &mut buf, 0), Err(Errno::EAGAIN));
        posix::close(set).unwrap();
        posix::close(fd).unwrap();
    });
}

#[test]
fn close_lingers_until_the_peer_has_all_or_the_time_is_over() {
    let told = Arc::new(Told::default());
    let theirs = told.clone();
    Bed::new(Wait::Block).against(move |s| Peer::new(s, theirs.clone()), || {
        let linger = |fd, seconds: i32| {
            let value = [1i32.to_ne_bytes(), seconds.to_ne_bytes()].concat();
            posix::set_option(fd, libc::SOL_SOCKET, libc::SO_LINGER, &value).unwrap();
        };
        // The peer reads nothing, and its window is small: the time is waited for.
        let fd = connect();
        linger(fd, 1);
        assert_eq!(posix::send(fd, &[2; 40_000], libc::MSG_DONTWAIT), Ok(40_000));
        let begun = std::time::Instant::now();
        posix::close(fd).unwrap();
        let took = begun.elapsed();
        assert!(took >= Duration::from_secs(1) && took < Duration::from_secs(10), "{took:?}");
        assert_eq!(posix::send(fd, &[2], 0), Err(Errno::EBADF));
        // It begins to read: `close` returns once it has everything.
        let fd = connect();
        linger(fd, 100);
        assert_eq!(posix::send(fd, &[2; 40_000], libc::MSG_DONTWAIT), Ok(40_000));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(300));
                told.read.store(true, Ordering::Release);
            });
            let begun = std::time::Instant::now();
            posix::close(fd).unwrap();
            let took = begun.elapsed();
            assert!(took >= Duration::from_millis(300) && took < Duration::from_secs(50), "{took:?}");
        });
        // What was not read makes it a reset, which waits for nothing.
        let fd = connect();
        linger(fd, 100);
        std::thread::sleep(Duration::from_millis(20));
        told.send.store(10, Ordering::Release);
        arrived(fd, 10);
        let begun = std::time::Instant::now();
        posix::close(fd).unwrap();
        assert!(begun.elapsed() < Duration::from_secs(10));
    });
}
