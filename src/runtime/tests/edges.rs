//! What happens at the edges: panics, forks, ends of streams, closes.

use super::*;
use crate::device::Capabilities;
use crate::errno::Errno;
use crate::frame::{Batch, TxQueue};
use crate::runtime::posix;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

/// A device that has nothing, counts its calls, and panics on request.
#[derive(Clone)]
struct Odd {
    capabilities: Capabilities,
    panics: Arc<AtomicBool>,
    transmits: Arc<AtomicUsize>,
}

impl Odd {
    fn new() -> Self {
        let capabilities = Capabilities { mtu: 1500, mac: [2; 6], partial_checksums: false };
        Self { capabilities, panics: Arc::default(), transmits: Arc::default() }
    }

    fn runtime(&self) -> Runtime {
        let stack = stack::Config { mode: stack::Mode::Owned, addresses: vec![(A, 24)], ..stack::Config::default() };
        let pool = Pool::new(Arena::heap(64, 2048), 0, 64);
        let sockets = Sockets::new(Stack::new(stack, pool, 1));
        let station = Station { device: self.clone(), sockets, fd: None, mirror: None, tick: None };
        Runtime::with_stations(config(Wait::Spin), vec![station]).unwrap()
    }
}

impl Device for Odd {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn receive(&mut self, _: &mut Pool, _: &mut Batch) {
        assert!(!self.panics.load(Ordering::Relaxed), "on purpose");
    }

    fn transmit(&mut self, _: &mut Pool, _: &mut TxQueue) {
        self.transmits.fetch_add(1, Ordering::Relaxed);
    }

    fn reap(&mut self, _: &mut Pool) {}

    fn refill(&mut self, _: &mut Pool) {}
}

#[test]
fn a_panic_that_c_does_not_see_ends_the_worker_all_the_same() {
    let _turn = super::threads::one_at_a_time();
    let odd = Odd::new();
    let runtime = odd.runtime();
    runtime.install().unwrap();
    let result = runtime.run_loop(move || {
        let set = posix::epoll_create(true).unwrap();
        odd.panics.store(true, Ordering::Relaxed);
        // As the C layer does it.
        let wait = || posix::epoll_wait(set, &mut Vec::new(), 1, None);
        let caught = std::panic::catch_unwind(core::panic::AssertUnwindSafe(wait));
        assert!(caught.is_err());
        crate::runtime::panicked();
        odd.panics.store(false, Ordering::Relaxed);
        assert_eq!(posix::socket(libc::AF_INET, libc::SOCK_STREAM, 0), Err(Errno::ENETDOWN));
        true
    });
    assert!(result.unwrap_err().to_string().contains("panicked"));
}

#[test]
fn a_device_is_asked_to_transmit_every_turn() {
    let odd = Odd::new();
    let _runtime = odd.runtime();
    let until = std::time::Instant::now() + Duration::from_secs(10);
    while odd.transmits.load(Ordering::Relaxed) < 10 {
        assert!(std::time::Instant::now() < until, "what was not kicked off stays in the ring");
        std::thread::yield_now();
    }
}

#[test]
fn while_a_loop_runs_another_one_is_refused() {
    let _turn = super::threads::one_at_a_time();
    let (a, b) = pair(Wait::Block);
    a.install().unwrap();
    std::thread::scope(|scope| {
        let first = scope.spawn(|| {
            a.run_loop(|| {
                let set = posix::epoll_create(true).unwrap();
                let _ = posix::epoll_wait(set, &mut Vec::new(), 1, Some(Duration::from_millis(300)));
                posix::close(set).unwrap();
                false
            })
        });
        std::thread::sleep(Duration::from_millis(100));
        assert!(a.run_loop(|| false).is_err());
        first.join().unwrap().unwrap();
    });
    drop(b);
}

#[test]
fn a_child_forked_before_the_first_socket_has_none() {
    let _turn = super::threads::one_at_a_time();
    let (a, b) = pair(Wait::Block);
    a.install().unwrap();
    // SAFETY: the child makes one call and leaves; an alarm ends it if it hangs.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: takes no pointers.
        unsafe { libc::alarm(5) };
        let refused = posix::socket(libc::AF_INET, libc::SOCK_STREAM, 0) == Err(Errno::EBADF);
        // SAFETY: ends the child at once.
        unsafe { libc::_exit(i32::from(!refused)) };
    }
    let mut status = 0;
    // SAFETY: waits for the child made above.
    unsafe { libc::waitpid(child, &mut status, 0) };
    assert_eq!(status, 0);
    drop((a, b));
}

/// A connection from B to a listener of A's, whose ends are both looked at here.
struct Peer {
    h: crate::socket::Handle,
    say: &'static [u8],
    close: bool,
    seen: Arc<AtomicUsize>,
}

/// What a peer's `recv` said last: 0 nothing yet, 1 the end, 2 a reset.
const ENDED: usize = 1;
const RESET: usize = 2;

impl crate::runtime::App for Peer {
    fn turn(&mut self, _: crate::time::Instant, sockets: &mut Sockets) -> std::ops::ControlFlow<()> {
        if !self.say.is_empty() {
            match sockets.send(self.h, self.say, 0) {
                Ok(n) => self.say = &self.say[n..],
                Err(Errno::EAGAIN) => {}
                Err(_) => self.say = &[],
            }
        } else if self.close {
            self.close = false;
            let _ = sockets.shutdown(self.h, libc::SHUT_WR);
        }
        let seen = match sockets.recv(self.h, &mut [0; 64], 0) {
            Ok(0) => ENDED,
            Err(Errno::ECONNRESET) => RESET,
            _ => return std::ops::ControlFlow::Continue(()),
        };
        // The first counts: behind a reset there is an end, too.
        let _ = self.seen.compare_exchange(0, seen, Ordering::Relaxed, Ordering::Relaxed);
        std::ops::ControlFlow::Continue(())
    }
}

fn listen() -> i32 {
    let fd = posix::socket(libc::AF_INET, libc::SOCK_STREAM, 0).unwrap();
    posix::bind(fd, at(A, 8)).unwrap();
    posix::listen(fd, 256).unwrap();
    fd
}

/// Runs `f` on a connection whose peer says something, and then closes if asked.
fn with_peer(say: &'static [u8], close: bool, f: impl FnOnce(i32)) {
    let _turn = super::threads::one_at_a_time();
    let (a, b) = pair(Wait::Block);
    a.install().unwrap();
    let listener = listen();
    let stopper = b.stopper();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let _ = b.run(|_, sockets| {
                let h = sockets.socket(libc::AF_INET, libc::SOCK_STREAM, 0).unwrap();
                assert_eq!(sockets.connect(h, at(A, 8)), Err(Errno::EINPROGRESS));
                Peer { h, say, close, seen: Arc::default() }
            });
        });
        let _stop = super::threads::StopAtEnd(stopper);
        let (fd, _) = posix::accept4(listener, 0).unwrap();
        f(fd);
        let _ = posix::close(fd);
        posix::close(listener).unwrap();
    });
}

fn readable(fd: i32) {
    let mut fds = [libc::pollfd { fd, events: libc::POLLIN, revents: 0 }];
    assert_eq!(posix::poll(&mut fds, Some(Duration::from_secs(10))), Ok(1));
}

#[test]
fn a_wait_for_all_ends_with_the_stream() {
    with_peer(b"half", true, |fd| {
        let mut buf = [0; 8];
        assert_eq!(posix::recv(fd, &mut buf, libc::MSG_WAITALL), Ok(4));
        assert_eq!(&buf[..4], b"half");
        assert_eq!(posix::recv(fd, &mut buf, libc::MSG_WAITALL), Ok(0));
    });
}

#[test]
fn a_read_of_nothing_and_odd_flags_return_while_data_waits() {
    with_peer(b"data", false, |fd| {
        readable(fd);
        assert_eq!(posix::recv(fd, &mut [], 0), Ok(0));
        assert_eq!(posix::recv(fd, &mut [0; 4], libc::MSG_OOB), Err(Errno::EINVAL));
        assert_eq!(posix::recv(fd, &mut [0; 4], libc::MSG_ERRQUEUE), Err(Errno::EAGAIN));
        let mut buf = [0; 4];
        assert_eq!(posix::recv(fd, &mut buf, libc::MSG_CMSG_CLOEXEC), Ok(4));
        assert_eq!(&buf, b"data");
    });
}

#[test]
fn what_one_thread_leaves_wakes_another() {
    with_peer(b"data", false, |fd| {
        readable(fd);
        assert_eq!(posix::recv(fd, &mut [0; 1], 0), Ok(1));
        // As a thread does that found nothing before the other came.
        super::super::channel::with(|thread| {
            let socket = posix::shared_of(fd)?;
            let soon = crate::runtime::sys::monotonic_ns() + 5_000_000_000;
            socket.wait(thread, 1, Some(soon))
        })
        .unwrap();
    });
}

#[test]
fn setting_an_option_again_and_again_keeps_one_of_it() {
    with_peer(b"", false, |fd| {
        for i in 0..100i32 {
            let value = (i % 2).to_ne_bytes();
            posix::set_option(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, &value).unwrap();
        }
        assert_eq!(posix::shared_of(fd).unwrap().settings_kept(), 1);
    });
}

#[test]
fn connections_that_nobody_accepted_are_reset_with_their_listener() {
    let _turn = super::threads::one_at_a_time();
    let (a, b) = pair(Wait::Block);
    a.install().unwrap();
    let listener = listen();
    let seen: Arc<Vec<Arc<AtomicUsize>>> = Arc::new((0..100).map(|_| Arc::default()).collect());
    struct Peers(Vec<Peer>);
    impl crate::runtime::App for Peers {
        fn turn(&mut self, now: crate::time::Instant, sockets: &mut Sockets) -> std::ops::ControlFlow<()> {
            self.0.iter_mut().for_each(|peer| _ = peer.turn(now, sockets));
            std::ops::ControlFlow::Continue(())
        }
    }
    let stopper = b.stopper();
    std::thread::scope(|scope| {
        let watched = seen.clone();
        scope.spawn(move || {
            let _ = b.run(move |_, sockets| {
                let peer = |seen: &Arc<AtomicUsize>| {
                    let h = sockets.socket(libc::AF_INET, libc::SOCK_STREAM, 0).unwrap();
                    assert_eq!(sockets.connect(h, at(A, 8)), Err(Errno::EINPROGRESS));
                    Peer { h, say: b"", close: false, seen: seen.clone() }
                };
                Peers(watched.iter().map(peer).collect())
            });
        });
        let _stop = super::threads::StopAtEnd(stopper);
        std::thread::sleep(Duration::from_millis(300));
        posix::close(listener).unwrap();
        let until = std::time::Instant::now() + Duration::from_secs(5);
        let reset = || seen.iter().filter(|s| s.load(Ordering::Relaxed) == RESET).count();
        while reset() < 100 {
            assert!(std::time::Instant::now() < until, "{} of 100 were reset", reset());
            std::thread::sleep(Duration::from_millis(5));
        }
    });
}

#[test]
fn waits_on_sets_and_sockets_end_with_the_runtime_and_with_the_set() {
    let _turn = super::threads::one_at_a_time();
    let (a, b) = pair(Wait::Block);
    a.install().unwrap();
    let listener = listen();
    let wait = |set: i32| {
        let mut out = Vec::new();
        posix::epoll_wait(set, &mut out, 4, Some(Duration::from_secs(10))).map(|n| (n, out.first().map(|e| e.events)))
    };
    std::thread::scope(|scope| {
        let set = posix::epoll_create(true).unwrap();
        let waits = [scope.spawn(move || wait(set)), scope.spawn(move || wait(set))];
        std::thread::sleep(Duration::from_millis(50));
        posix::close(set).unwrap();
        waits.into_iter().for_each(|w| assert_eq!(w.join().unwrap(), Err(Errno::EBADF)));

        let set = posix::epoll_create(true).unwrap();
        posix::epoll_ctl(set, libc::EPOLL_CTL_ADD, listener, 1, 7).unwrap();
        let waiting = scope.spawn(move || wait(set));
        let polling = scope.spawn(move || {
            let mut fds = [libc::pollfd { fd: listener, events: libc::POLLRDNORM, revents: 0 }];
            (posix::poll(&mut fds, Some(Duration::from_secs(10))), fds[0].revents & libc::POLLERR)
        });
        std::thread::sleep(Duration::from_millis(50));
        let begun = std::time::Instant::now();
        drop((a, b));
        let events = (libc::EPOLLERR | libc::EPOLLHUP | libc::EPOLLIN) as u32;
        assert_eq!(waiting.join().unwrap(), Ok((1, Some(events))));
        assert_eq!(polling.join().unwrap(), (Ok(1), libc::POLLERR));
        assert!(begun.elapsed() < Duration::from_secs(5));
        posix::close(set).unwrap();
        posix::close(listener).unwrap();
    });
}

#[test]
fn a_poll_ends_when_its_socket_is_closed() {
    with_peer(b"", false, |fd| {
        let other = posix::dup(fd, 0, true).unwrap();
        std::thread::scope(|scope| {
            let polling = scope.spawn(move || {
                let mut fds = [libc::pollfd { fd: other, events: libc::POLLIN, revents: 0 }];
                (posix::poll(&mut fds, Some(Duration::from_secs(10))), fds[0].revents)
            });
            std::thread::sleep(Duration::from_millis(50));
            posix::close(other).unwrap();
            assert!(!polling.is_finished(), "the other descriptor keeps the socket");
            posix::close(fd).unwrap();
            assert_eq!(polling.join().unwrap(), (Ok(1), libc::POLLNVAL));
        });
    });
}
