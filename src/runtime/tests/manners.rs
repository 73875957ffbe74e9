//! SO_RCVLOWAT and SO_LINGER as any thread sees them, SO_RCVLOWAT as a worker's own
//! calls do, and opening with data (RFC 7413) by calls that wait.

use super::threads::{Bed, one_at_a_time};
use super::*;
use crate::errno::Errno;
use crate::runtime::posix;
use crate::socket::{Handle, RecvMeta, SendMeta, Sockets};
use crate::time::Instant;
use std::io::{IoSlice, IoSliceMut};
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

fn listener(port: u16) -> i32 {
    let fd = posix::socket(libc::AF_INET, libc::SOCK_STREAM, 0).unwrap();
    posix::bind(fd, at(A, port)).unwrap();
    posix::listen(fd, 8).unwrap();
    fd
}

#[test]
fn a_workers_own_calls_wait_for_as_many_bytes_too() {
    let bed = Bed::new(Wait::Block);
    bed.a().run_loop(|| {
        let listening = listener(9);
        std::thread::scope(|scope| {
            let (tell, told) = std::sync::mpsc::channel::<usize>();
            scope.spawn(move || {
                let fd = posix::socket(libc::AF_INET, libc::SOCK_STREAM, 0).unwrap();
                posix::connect(fd, at(A, 9)).unwrap();
                for n in told {
                    std::thread::sleep(Duration::from_millis(30));
                    posix::send(fd, &vec![1; n], 0).unwrap();
                }
            });
            let send = |n: usize| tell.send(n).unwrap();
            let (fd, _) = posix::accept4(listening, 0).unwrap();
            let set = |name, value: &[u8]| posix::set_option(fd, libc::SOL_SOCKET, name, value).unwrap();
            set(libc::SO_RCVLOWAT, &1000i32.to_ne_bytes());
            let events = posix::epoll_create(true).unwrap();
            posix::epoll_ctl(events, libc::EPOLL_CTL_ADD, fd, libc::EPOLLIN as u32, 5).unwrap();
            let waits = |ms| {
                let mut out = Vec::new();
                posix::epoll_wait(events, &mut out, 4, Some(Duration::from_millis(ms))).unwrap();
                out.len()
            };
            let mut buf = [0; 4096];
            send(600);
            assert!(!poll(fd, 100) && waits(50) == 0, "600 are not enough");
            assert_eq!(posix::recv(fd, &mut buf[..50], libc::MSG_DONTWAIT), Ok(50));
            send(450);
            assert!(poll(fd, 5000) && waits(5000) == 1, "1,000 are");
            assert_eq!(posix::recv(fd, &mut buf, 0), Ok(1000));
            // One that waits takes what comes until it has as many, or what it asked for.
            [600, 500].into_iter().for_each(send);
            assert_eq!(posix::recv(fd, &mut buf, libc::MSG_PEEK), Ok(1100));
            assert_eq!(posix::recv(fd, &mut buf[..100], 0), Ok(100));
            assert_eq!(posix::recv(fd, &mut buf, 0), Ok(1000));
            [600, 500].into_iter().for_each(send);
            let (first, second) = buf.split_at_mut(100);
            let mut parts = [IoSliceMut::new(first), IoSliceMut::new(second)];
            let got = posix::recv_message(fd, &mut parts, 0).map(|(n, _): (usize, RecvMeta)| n);
            assert_eq!(got, Ok(1100));
            // SO_RCVTIMEO ends the wait with what there is.
            set(libc::SO_RCVTIMEO, &[0i64.to_ne_bytes(), 200_000i64.to_ne_bytes()].concat());
            send(10);
            assert_eq!(posix::recv(fd, &mut buf, 0), Ok(10));
            assert_eq!(posix::recv(fd, &mut buf, 0), Err(Errno::EAGAIN));
            [fd, events].into_iter().for_each(|fd| posix::close(fd).unwrap());
        });
        posix::close(listening).unwrap();
        false
    })
    .unwrap();
}

#[test]
fn a_call_that_opens_and_waits_sends_all_and_ends_with_the_handshake() {
    let _turn = one_at_a_time();
    let (wire, device, _) = Wire::new(WireConfig::default(), 5);
    let mut station = station(&wire, device, A, Pool::new(Arena::heap(2048, 2048), 0, 2048));
    station.sockets.stack.core.config.table.fast_open_server = true;
    let runtime = Runtime::with_stations(config(Wait::Block), vec![station]).unwrap();
    runtime.install().unwrap();
    let tcp = libc::IPPROTO_TCP;
    let stream = || posix::socket(libc::AF_INET, libc::SOCK_STREAM, 0).unwrap();
    let open = |fd, data: &[u8], port| {
        let parts = [IoSlice::new(data)];
        posix::send_message(fd, &parts, libc::MSG_FASTOPEN, Some(at(A, port)), &SendMeta::default())
    };
    // The state, and whether the SYN brought data.
    let info = move |fd| {
        let mut out = [0; 64];
        posix::get_option(fd, tcp, libc::TCP_INFO, &mut out).unwrap();
        (out[0], out[5] & 0x20 != 0)
    };
    runtime
        .run_loop(move || {
            let listening = listener(9);
            posix::set_option(listening, tcp, libc::TCP_FASTOPEN, &5i32.to_ne_bytes()).unwrap();
            let accepted = |fd, data: &[u8], early: bool| {
                let (server, _) = posix::accept4(listening, 0).unwrap();
                let mut got = vec![0; data.len()];
                assert_eq!(posix::recv(server, &mut got, libc::MSG_WAITALL), Ok(data.len()));
                assert!(got == data && info(server) == (1, early), "{:?}", info(server));
                [fd, server].into_iter().for_each(|fd| posix::close(fd).unwrap());
            };
            let data: Vec<u8> = (0..100_000u32).map(|i| (i * 7) as u8).collect();
            // The first SYN asks for a cookie; the second has it, and data.
            for early in [false, true] {
                let fd = stream();
                assert_eq!(open(fd, &data, 9), Ok(data.len()));
                assert_eq!(info(fd).0, 1, "established");
                assert_eq!(open(fd, b"x", 9), Err(Errno::EISCONN));
                accepted(fd, &data, early);
            }
            let fd = stream();
            assert_eq!(open(fd, b"hello", 10), Err(Errno::ECONNREFUSED));
            posix::close(fd).unwrap();
            // `connect` does not wait: the first data opens.
            let fd = stream();
            posix::set_option(fd, tcp, libc::TCP_FASTOPEN_CONNECT, &1i32.to_ne_bytes()).unwrap();
            assert_eq!(posix::connect(fd, at(A, 9)), Ok(()));
            assert_eq!(posix::send(fd, b"hello", 0), Ok(5));
            accepted(fd, b"hello", true);
            // From a thread that is no worker the data goes behind the handshake.
            std::thread::scope(|scope| {
                let theirs = scope.spawn(|| {
                    let fd = stream();
                    assert_eq!(open(fd, &data, 9), Ok(data.len()));
                    fd
                });
                let (server, _) = posix::accept4(listening, 0).unwrap();
                let mut got = vec![0; data.len()];
                assert_eq!(posix::recv(server, &mut got, libc::MSG_WAITALL), Ok(data.len()));
                assert!(got == data);
                posix::close(server).unwrap();
                posix::close(theirs.join().unwrap()).unwrap();
            });
            posix::close(listening).unwrap();
            false
        })
        .unwrap();
}
