//! Threads of a program against a program on a worker, and the reverse.

use super::*;
use crate::errno::Errno;
use crate::runtime::{App, posix};
use crate::socket::{Handle, Sockets};
use crate::time::Instant;
use std::ops::ControlFlow;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// The turn of a test that uses `posix`, whose runtime is the process's.
pub(super) fn one_at_a_time() -> MutexGuard<'static, ()> {
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A runtime at each end; posix calls go to A's. Tests that use it run one
/// after the other.
pub(super) struct Bed {
    a: Option<Runtime>,
    b: Option<Runtime>,
    _turn: MutexGuard<'static, ()>,
}

impl Bed {
    pub(super) fn new(wait: Wait) -> Self {
        let turn = one_at_a_time();
        let (a, b) = pair(wait);
        a.install().unwrap();
        Self { a: Some(a), b: Some(b), _turn: turn }
    }

    /// The runtime that posix calls go to.
    pub(super) fn a(&self) -> &Runtime {
        self.a.as_ref().unwrap()
    }

    /// Runs a program on B's worker while `f` runs here.
    pub(super) fn against<A: App + 'static>(&mut self, make: impl Fn(&mut Sockets) -> A + Send + Sync, f: impl FnOnce()) {
        let b = self.b.take().unwrap();
        let stopper = b.stopper();
        let (tell, told) = std::sync::mpsc::channel();
        let made = |_, sockets: &mut Sockets| {
            let app = make(sockets);
            tell.send(()).unwrap();
            app
        };
        std::thread::scope(|scope| {
            scope.spawn(move || b.run(made));
            told.recv().unwrap();
            let _stop = StopAtEnd(stopper);
            f();
        });
        drop(self.a.take());
    }
}

/// Stops a runtime, also where a test fails.
pub(super) struct StopAtEnd(pub crate::runtime::Stopper);

impl Drop for StopAtEnd {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// Echoes TCP and UDP on port 7 until it is stopped.
struct Echo {
    listener: Handle,
    udp: Handle,
    open: Vec<(Handle, Vec<u8>)>,
}

impl Echo {
    fn new(sockets: &mut Sockets) -> Self {
        let listener = sockets.socket(libc::AF_INET, libc::SOCK_STREAM, 0).unwrap();
        sockets.bind(listener, at(B, 7)).unwrap();
        sockets.listen(listener, 128).unwrap();
        let udp = sockets.socket(libc::AF_INET, libc::SOCK_DGRAM, 0).unwrap();
        sockets.bind(udp, at(B, 7)).unwrap();
        Self { listener, udp, open: Vec::new() }
    }
}

impl App for Echo {
    fn turn(&mut self, _now: Instant, sockets: &mut Sockets) -> ControlFlow<()> {
        let mut buf = [0; 4096];
        while let Ok((n, meta)) = sockets.recv_from(self.udp, &mut buf, 0) {
            sockets.send_to(self.udp, &buf[..n], 0, meta.from, &Default::default()).unwrap();
        }
        while let Ok((h, _)) = sockets.accept(self.listener) {
            self.open.push((h, Vec::new()));
        }
        self.open.retain_mut(|(h, late)| {
            if late.len() < 65536 {
                match sockets.recv(*h, &mut buf, 0) {
                    Ok(0) if late.is_empty() => {
                        sockets.close(*h).unwrap();
                        return false;
                    }
                    Ok(n) => late.extend(&buf[..n]),
                    Err(Errno::EAGAIN) => {}
                    Err(_) => {
                        sockets.close(*h).unwrap();
                        return false;
                    }
                }
            }
            if !late.is_empty()
                && let Ok(n) = sockets.send(*h, late, 0)
            {
                late.drain(..n);
            }
            true
        });
        ControlFlow::Continue(())
    }
}

fn connect() -> i32 {
    let fd = posix::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0).unwrap();
    posix::connect(fd, at(B, 7)).unwrap();
    fd
}

fn read_exactly(fd: i32, n: usize) -> Vec<u8> {
    let mut all = vec![0; n];
    let mut got = 0;
    while got < n {
        match posix::recv(fd, &mut all[got..], 0).unwrap() {
            0 => panic!("ended after {got} of {n}"),
            more => got += more,
        }
    }
    all
}

#[test]
fn blocking_threads_get_their_echoes() {
    for wait in [Wait::Block, Wait::Adaptive] {
        let mut bed = Bed::new(wait);
        bed.against(Echo::new, || {
            std::thread::scope(|scope| {
                for t in 0..3u8 {
                    scope.spawn(move || {
                        let fd = connect();
                        for i in 0..50 {
                            let message = vec![t; 1 + i * 7];
                            assert_eq!(posix::send(fd, &message, 0), Ok(message.len()));
                            assert_eq!(read_exactly(fd, message.len()), message);
                        }
                        posix::shutdown(fd, libc::SHUT_WR).unwrap();
                        assert_eq!(posix::recv(fd, &mut [0; 9], 0), Ok(0));
                        assert_eq!(posix::send(fd, b"x", 0), Err(Errno::EPIPE));
                        posix::close(fd).unwrap();
                        assert_eq!(posix::recv(fd, &mut [0; 9], 0), Err(Errno::EBADF));
                    });
                }
            });
        });
    }
}

#[test]
fn much_data_goes_both_ways_whole() {
    let mut bed = Bed::new(Wait::Block);
    bed.against(Echo::new, || {
        let fd = connect();
        let data: Vec<u8> = (0..2_000_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut sent = 0;
                while sent < data.len() {
                    sent += posix::send(fd, &data[sent..(sent + 50_000).min(data.len())], 0).unwrap();
                }
                posix::shutdown(fd, libc::SHUT_WR).unwrap();
            });
            let back = read_exactly(fd, data.len());
            assert!(back == data);
            assert_eq!(posix::recv(fd, &mut [0; 9], 0), Ok(0));
        });
        posix::close(fd).unwrap();
    });
}

#[test]
fn what_would_block_says_so_and_times_out() {
    let mut bed = Bed::new(Wait::Block);
    bed.against(Echo::new, || {
        let fd = connect();
        assert_eq!(posix::recv(fd, &mut [0; 9], libc::MSG_DONTWAIT), Err(Errno::EAGAIN));
        posix::set_nonblocking(fd, true).unwrap();
        assert_eq!(posix::recv(fd, &mut [0; 9], 0), Err(Errno::EAGAIN));
        posix::set_nonblocking(fd, false).unwrap();
        let mut timeout = [0u8; 16];
        timeout[8..].copy_from_slice(&30_000i64.to_ne_bytes());
        posix::set_option(fd, libc::SOL_SOCKET, libc::SO_RCVTIMEO, &timeout).unwrap();
        let begun = std::time::Instant::now();
        assert_eq!(posix::recv(fd, &mut [0; 9], 0), Err(Errno::EAGAIN));
        assert!(begun.elapsed() >= Duration::from_millis(30));
        let other = posix::dup(fd, 0, true).unwrap();
        posix::close(fd).unwrap();
        posix::send(other, b"still here", 0).unwrap();
        assert_eq!(read_exactly(other, 10), b"still here");
        posix::send(other, b"look first", 0).unwrap();
        let mut fds = [libc::pollfd { fd: other, events: libc::POLLIN, revents: 0 }];
        assert_eq!(posix::poll(&mut fds, Some(Duration::from_secs(10))), Ok(1));
        assert_eq!(posix::recv(other, &mut [0; 4], libc::MSG_PEEK), Ok(4));
        assert_eq!(posix::bytes_readable(other), Ok(10));
        assert_eq!(posix::figure(other, crate::socket::Figure::Unread), Ok(10), "TCP_INQ");
        assert_eq!(read_exactly(other, 10), b"look first");
        fds[0].events = libc::POLLIN;
        assert_eq!(posix::poll(&mut fds, Some(Duration::from_millis(20))), Ok(0));
        posix::close(other).unwrap();
        let refused = posix::socket(libc::AF_INET, libc::SOCK_STREAM, 0).unwrap();
        assert_eq!(posix::connect(refused, at(B, 9)), Err(Errno::ECONNREFUSED));
        posix::close(refused).unwrap();
    });
}

#[test]
fn datagrams_come_back() {
    let mut bed = Bed::new(Wait::Block);
    bed.against(Echo::new, || {
        let fd = posix::socket(libc::AF_INET, libc::SOCK_DGRAM, 0).unwrap();
        for size in [0, 1, 64, 1400, 4000] {
            let data = vec![size as u8; size];
            let parts = [std::io::IoSlice::new(&data)];
            let sent = posix::send_message(fd, &parts, 0, Some(at(B, 7)), &Default::default());
            assert_eq!(sent, Ok(size));
            let mut buf = vec![0; 5000];
            let (n, meta) =
                posix::recv_message(fd, &mut [std::io::IoSliceMut::new(&mut buf)], 0).unwrap();
            assert_eq!((n, meta.from), (size, Some(at(B, 7))));
            assert_eq!(buf[..n], data);
        }
        posix::close(fd).unwrap();
    });
}

#[test]
fn a_close_ends_the_calls_of_others() {
    let mut bed = Bed::new(Wait::Block);
    bed.against(Echo::new, || {
        let fd = connect();
        std::thread::scope(|scope| {
            let reader = scope.spawn(move || posix::recv(fd, &mut [0; 9], 0));
            std::thread::sleep(Duration::from_millis(50));
            posix::close(fd).unwrap();
            assert_eq!(reader.join().unwrap(), Err(Errno::EBADF));
        });
    });
}

#[test]
fn an_epoll_set_waits_for_sockets_and_for_the_kernels_descriptors() {
    let mut bed = Bed::new(Wait::Block);
    bed.against(Echo::new, || {
        let set = posix::epoll_create(true).unwrap();
        let fds: Vec<i32> = (0..40).map(|_| connect()).collect();
        let et_in = libc::EPOLLIN as u32 | libc::EPOLLET as u32;
        for (i, &fd) in fds.iter().enumerate() {
            let events = if i % 2 == 0 { libc::EPOLLIN as u32 } else { et_in };
            posix::epoll_ctl(set, libc::EPOLL_CTL_ADD, fd, events, i as u64).unwrap();
        }
        let again = posix::epoll_ctl(set, libc::EPOLL_CTL_ADD, fds[0], 1, 0);
        assert_eq!(again, Err(Errno::EEXIST));
        let mut out = Vec::new();
        assert_eq!(posix::epoll_wait(set, &mut out, 8, Some(Duration::from_millis(20))), Ok(0));
        for round in 0..30 {
            let i = round * 7 % fds.len();
            posix::send(fds[i], b"ping", 0).unwrap();
            let n = posix::epoll_wait(set, &mut out, 8, Some(Duration::from_secs(10))).unwrap();
            assert_eq!((n, out[0].data, out[0].events), (1, i as u64, 1), "round {round}");
            let more = posix::epoll_wait(set, &mut out, 8, Some(Duration::ZERO)).unwrap();
            assert_eq!(more, usize::from(i.is_multiple_of(2)), "level is told again, an edge is not");
            assert_eq!(read_exactly(fds[i], 4), b"ping");
        }
        let mut pipe = [0; 2];
        // SAFETY: room for two descriptors.
        assert_eq!(unsafe { libc::pipe(pipe.as_mut_ptr()) }, 0);
        posix::epoll_ctl(set, libc::EPOLL_CTL_ADD, pipe[0], 1, 999).unwrap();
        // SAFETY: one readable byte.
        unsafe { libc::write(pipe[1], b"x".as_ptr().cast(), 1) };
        posix::epoll_wait(set, &mut out, 8, Some(Duration::from_secs(10))).unwrap();
        assert_eq!(out[0].data, 999);
        posix::epoll_ctl(set, libc::EPOLL_CTL_DEL, pipe[0], 0, 0).unwrap();
        posix::epoll_ctl(set, libc::EPOLL_CTL_DEL, fds[0], 0, 0).unwrap();
        posix::send(fds[0], b"ping", 0).unwrap();
        let n = posix::epoll_wait(set, &mut out, 8, Some(Duration::from_millis(50)));
        assert_eq!(n, Ok(0));
        // SAFETY: both are ours.
        unsafe { (libc::close(pipe[0]), libc::close(pipe[1])) };
        fds.iter().for_each(|fd| posix::close(*fd).unwrap());
        posix::close(set).unwrap();
    });
}

/// Opens connections to port 8 of A, and checks that what it sends comes back.
struct Clients {
    open: Vec<(Handle, usize)>,
    rounds: usize,
}

impl Clients {
    fn new(sockets: &mut Sockets, count: usize, rounds: usize) -> Self {
        let open = (0..count)
            .map(|_| {
                let h = sockets.socket(libc::AF_INET, libc::SOCK_STREAM, 0).unwrap();
                assert_eq!(sockets.connect(h, at(A, 8)), Err(Errno::EINPROGRESS));
                (h, 0)
            })
            .collect();
        Self { open, rounds }
    }
}

impl App for Clients {
    fn turn(&mut self, _now: Instant, sockets: &mut Sockets) -> ControlFlow<()> {
        let rounds = self.rounds;
        self.open.retain_mut(|(h, sent)| {
            let mut buf = [0; 64];
            if *sent > 0 {
                match sockets.recv(*h, &mut buf, 0) {
                    Ok(n) => assert_eq!(buf[..n], (*sent as u64).to_ne_bytes()),
                    Err(Errno::EAGAIN) => return true,
                    Err(error) => panic!("{error}"),
                }
            }
            if *sent == rounds {
                sockets.close(*h).unwrap();
                return false;
            }
            if sockets.send(*h, &(*sent as u64 + 1).to_ne_bytes(), 0) == Ok(8) {
                *sent += 1;
            }
            true
        });
        if self.open.is_empty() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

fn listen() -> i32 {
    let fd = posix::socket(libc::AF_INET, libc::SOCK_STREAM, 0).unwrap();
    posix::bind(fd, at(A, 8)).unwrap();
    posix::listen(fd, 128).unwrap();
    fd
}

#[test]
fn threads_accept_and_serve() {
    let bed = Bed::new(Wait::Block);
    let listener = listen();
    std::thread::scope(|scope| {
        let servers: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(move || {
                    let mut served = 0;
                    while let Ok((fd, peer)) = posix::accept4(listener, libc::SOCK_CLOEXEC) {
                        assert_eq!(peer.ip(), B);
                        let mut buf = [0; 64];
                        loop {
                            match posix::recv(fd, &mut buf, 0).unwrap() {
                                0 => break,
                                n => assert_eq!(posix::send(fd, &buf[..n], 0), Ok(n)),
                            }
                        }
                        posix::close(fd).unwrap();
                        served += 1;
                    }
                    served
                })
            })
            .collect();
        let b = bed.b.as_ref().unwrap();
        b.run(|_, sockets| Clients::new(sockets, 12, 20)).unwrap();
        std::thread::sleep(Duration::from_millis(50));
        posix::close(listener).unwrap();
        assert_eq!(servers.into_iter().map(|s| s.join().unwrap()).sum::<usize>(), 12);
    });
}

#[test]
fn an_epoll_server_on_a_thread_serves_many() {
    let bed = Bed::new(Wait::Block);
    let listener = listen();
    posix::set_nonblocking(listener, true).unwrap();
    let set = posix::epoll_create(true).unwrap();
    posix::epoll_ctl(set, libc::EPOLL_CTL_ADD, listener, 1, listener as u64).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| bed.b.as_ref().unwrap().run(|_, sockets| Clients::new(sockets, 60, 10)).unwrap());
        let (mut out, mut ended, mut buf) = (Vec::new(), 0, [0; 64]);
        while ended < 60 {
            posix::epoll_wait(set, &mut out, 16, Some(Duration::from_secs(20))).unwrap();
            assert!(!out.is_empty(), "nothing for 20 s; {ended} ended");
            for event in &out {
                let fd = event.data as i32;
                if fd == listener {
                    while let Ok((fd, _)) = posix::accept4(listener, libc::SOCK_NONBLOCK) {
                        let events = (libc::EPOLLIN | libc::EPOLLET) as u32;
                        posix::epoll_ctl(set, libc::EPOLL_CTL_ADD, fd, events, fd as u64).unwrap();
                    }
                    continue;
                }
                loop {
                    match posix::recv(fd, &mut buf, 0) {
                        Ok(0) => {
                            posix::close(fd).unwrap();
                            ended += 1;
                            break;
                        }
                        Ok(n) => assert_eq!(posix::send(fd, &buf[..n], 0), Ok(n)),
                        Err(error) => {
                            assert_eq!(error, Errno::EAGAIN);
                            break;
                        }
                    }
                }
            }
        }
    });
    posix::close(set).unwrap();
    posix::close(listener).unwrap();
}

#[test]
fn the_same_calls_on_a_worker_block_without_stopping_it() {
    let bed = Bed::new(Wait::Block);
    let (a, b) = (bed.a.as_ref().unwrap(), bed.b.as_ref().unwrap());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(50));
            b.run(|_, sockets| Clients::new(sockets, 5, 30)).unwrap();
        });
        a.run_loop(|| {
            let listener = listen();
            let set = posix::epoll_create(true).unwrap();
            posix::epoll_ctl(set, libc::EPOLL_CTL_ADD, listener, 1, listener as u64).unwrap();
            let (mut out, mut ended, mut buf) = (Vec::new(), 0, [0; 64]);
            while ended < 5 {
                posix::epoll_wait(set, &mut out, 16, None).unwrap();
                for event in out.clone() {
                    let fd = event.data as i32;
                    if fd == listener {
                        let (fd, _) = posix::accept4(listener, 0).unwrap();
                        posix::epoll_ctl(set, libc::EPOLL_CTL_ADD, fd, 1, fd as u64).unwrap();
                        continue;
                    }
                    match posix::recv(fd, &mut buf, 0).unwrap() {
                        0 => {
                            posix::close(fd).unwrap();
                            ended += 1;
                        }
                        n => assert_eq!(posix::send(fd, &buf[..n], 0), Ok(n)),
                    }
                }
            }
            posix::close(listener).unwrap();
            posix::close(set).unwrap();
            false
        })
        .unwrap();
    });
}

#[test]
fn when_the_runtime_ends_calls_say_that_the_network_is_down() {
    let mut bed = Bed::new(Wait::Block);
    let fd = listen();
    let a = bed.a.take().unwrap();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(move || posix::accept4(fd, 0));
        std::thread::sleep(Duration::from_millis(50));
        drop(a);
        assert_eq!(waiting.join().unwrap(), Err(Errno::ENETDOWN));
    });
    assert_eq!(posix::socket(libc::AF_INET, libc::SOCK_STREAM, 0), Err(Errno::ENETDOWN));
    posix::close(fd).unwrap();
}

/// Lets this process have so many descriptors, and a thousand for other tests.
fn allow_descriptors(count: u64) {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a live rlimit that the kernel fills in.
    assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) }, 0);
    let wanted = limit.rlim_cur.max(count + 1000);
    assert!(wanted <= limit.rlim_max, "this test needs a hard limit of {wanted} descriptors");
    limit.rlim_cur = wanted;
    // SAFETY: `limit` is a live rlimit that the kernel reads.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) }, 0);
}

/// How many members `ROUNDS` waits look at, each for one echo, in a set of one
/// connection and so many idle sockets.
fn looks_beside(busy: i32, idle: usize) -> usize {
    let set = posix::epoll_create(true).unwrap();
    posix::epoll_ctl(set, libc::EPOLL_CTL_ADD, busy, 1, 1).unwrap();
    // Datagram sockets stand for idle members: they need no peer.
    let idle: Vec<i32> = (0..idle)
        .map(|_| posix::socket(libc::AF_INET, libc::SOCK_DGRAM, 0).unwrap())
        .collect();
    for &fd in &idle {
        posix::epoll_ctl(set, libc::EPOLL_CTL_ADD, fd, 1, fd as u64).unwrap();
    }
    let looked_at = super::super::set::looked_at;
    let mut out = Vec::new();
    // Those that were just added are looked at once; then it is quiet.
    let mut before = looked_at();
    for _ in 0..100 {
        posix::epoll_wait(set, &mut out, 64, Some(Duration::ZERO)).unwrap();
        if core::mem::replace(&mut before, looked_at()) == before {
            break;
        }
    }
    for _ in 0..ROUNDS {
        posix::send(busy, b"ping", 0).unwrap();
        posix::epoll_wait(set, &mut out, 64, Some(Duration::from_secs(10))).unwrap();
        assert_eq!((out.len(), out[0].data), (1, 1));
        assert_eq!(read_exactly(busy, 4), b"ping");
    }
    let looks = looked_at() - before;
    for fd in idle.into_iter().chain([set]) {
        posix::close(fd).unwrap();
    }
    looks
}

const ROUNDS: usize = 50;

#[test]
fn a_wait_costs_by_the_ready_members_not_by_the_idle_ones() {
    allow_descriptors(10_000);
    let mut bed = Bed::new(Wait::Block);
    bed.against(Echo::new, || {
        let busy = connect();
        let (few, many) = (looks_beside(busy, 10), looks_beside(busy, 10_000));
        // Each wait looks at the ready member, and perhaps once more at it.
        assert!((ROUNDS..=4 * ROUNDS).contains(&few), "{few} looks beside 10 idle members");
        assert!(many <= 2 * few, "{many} looks beside 10,000 idle members, {few} beside 10");
        posix::close(busy).unwrap();
    });
}
