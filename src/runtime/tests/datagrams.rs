//! Datagrams of threads, which the worker sends after the call is over.

use super::*;
use crate::errno::{Errno, Result};
use crate::runtime::hub::Hub;
use crate::runtime::worker::Core;
use crate::runtime::{channel, posix};
use crate::socket::{Handle, SendMeta, Sockets};
use crate::telemetry::DropReason;
use crate::time::Instant;
use std::io::IoSlice;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Counts what comes to port 7.
struct Sink {
    udp: Handle,
    got: Arc<AtomicUsize>,
}

impl crate::runtime::App for Sink {
    fn turn(&mut self, _: Instant, s: &mut Sockets) -> ControlFlow<()> {
        let mut buf = [0; 4096];
        while s.recv_from(self.udp, &mut buf, 0).is_ok() {
            self.got.fetch_add(1, Ordering::AcqRel);
        }
        ControlFlow::Continue(())
    }
}

/// Runs `f` against a sink; A's transmit queue has room for so many packets.
fn against_a_sink(transmit_queue: usize, f: impl FnOnce(i32, &AtomicUsize)) {
    let _turn = super::threads::one_at_a_time();
    let (wire, a, b) = Wire::new(WireConfig::default(), 5);
    let pool = || Pool::new(Arena::heap(2048, 2048), 0, 2048);
    let mut near = station(&wire, a, A, pool());
    let stack = stack::Config { transmit_queue, ..near.sockets.stack.core.config.clone() };
    near.sockets = Sockets::new(Stack::new(stack, pool(), 11));
    let near = Runtime::with_stations(config(Wait::Block), vec![near]).unwrap();
    near.install().unwrap();
    let far = runtime(&wire, b, B, Wait::Block);
    let got = Arc::<AtomicUsize>::default();
    let (theirs, stopper) = (got.clone(), far.stopper());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let _ = far.run(|_, s| {
                let udp = s.socket(libc::AF_INET, libc::SOCK_DGRAM, 0).unwrap();
                s.bind(udp, at(B, 7)).unwrap();
                Sink { udp, got: theirs.clone() }
            });
        });
        let _stop = super::threads::StopAtEnd(stopper);
        std::thread::sleep(Duration::from_millis(20));
        let fd = posix::socket(libc::AF_INET, libc::SOCK_DGRAM, 0).unwrap();
        f(fd, &got);
        posix::close(fd).unwrap();
    });
}

fn send(fd: i32, len: usize, meta: &SendMeta) -> Result<usize> {
    let data = vec![1; len];
    posix::send_message(fd, &[IoSlice::new(&data)], 0, Some(at(B, 7)), meta)
}

/// What the first worker says.
fn on_worker<R: Send>(f: impl FnOnce(&mut Core) -> R + Send) -> R {
    channel::with(|thread| thread.call(Hub::current().unwrap(), 0, f)).unwrap()
}

fn until(what: &str, done: impl Fn() -> bool) {
    let begun = std::time::Instant::now();
    while !done() {
        assert!(begun.elapsed() < Duration::from_secs(10), "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_datagram_that_cannot_be_sent_is_refused_also_after_good_ones() {
    against_a_sink(4096, |fd, _| {
        let plain = SendMeta::default();
        let set = |level, name, value: i32| posix::set_option(fd, level, name, &value.to_ne_bytes());
        set(libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_DO).unwrap();
        for _ in 0..3 {
            assert_eq!(send(fd, 100, &plain), Ok(100));
        }
        assert_eq!(send(fd, 3000, &plain), Err(Errno::EMSGSIZE));
        assert_eq!((send(fd, 100, &plain), send(fd, 90, &plain)), (Ok(100), Ok(90)));
        let foreign = SendMeta { source: Some("10.9.0.77".parse().unwrap()), ..plain };
        assert_eq!(send(fd, 100, &foreign), Err(Errno::EINVAL));
        assert_eq!((send(fd, 100, &plain), send(fd, 100, &plain)), (Ok(100), Ok(100)));
        // What was good before an option is not what is good after it.
        set(libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_DONT).unwrap();
        assert_eq!((send(fd, 3000, &plain), send(fd, 3000, &plain)), (Ok(3000), Ok(3000)));
        set(libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_DO).unwrap();
        assert_eq!(send(fd, 3000, &plain), Err(Errno::EMSGSIZE));
        posix::connect(fd, at(B, 7)).unwrap();
        assert_eq!((posix::send(fd, b"x", 0), posix::send(fd, b"x", 0)), (Ok(1), Ok(1)));
        posix::shutdown(fd, libc::SHUT_WR).unwrap();
        assert_eq!(posix::send(fd, b"x", 0), Err(Errno::EPIPE));
    });
}

#[test]
fn a_datagram_that_can_no_longer_be_sent_is_counted_and_told_of() {
    against_a_sink(4096, |fd, got| {
        let plain = SendMeta::default();
        let refused = || on_worker(|core| core.sockets.stack.core.counters.dropped(DropReason::DatagramRefused));
        assert_eq!((send(fd, 100, &plain), send(fd, 100, &plain)), (Ok(100), Ok(100)));
        until("both arrive", || got.load(Ordering::Acquire) == 2);
        on_worker(|core| core.sockets.stack.core.set_link(false));
        assert_eq!(refused(), 0);
        assert_eq!(send(fd, 100, &plain), Ok(100), "it is on its way to the worker");
        until("it is counted", || refused() == 1);
        assert_ne!(posix::readiness(fd).unwrap().bits() & libc::EPOLLERR as u32, 0);
        let mut error = [0; 4];
        posix::get_option(fd, libc::SOL_SOCKET, libc::SO_ERROR, &mut error).unwrap();
        assert_eq!(i32::from_ne_bytes(error), libc::ENETDOWN);
        assert_eq!(send(fd, 100, &plain), Err(Errno::ENETDOWN));
        on_worker(|core| core.sockets.stack.core.set_link(true));
        assert_eq!((send(fd, 100, &plain), send(fd, 100, &plain)), (Ok(100), Ok(100)));
        until("both arrive", || got.load(Ordering::Acquire) == 4);
        assert_eq!(refused(), 1);
    });
}

#[test]
fn a_call_that_may_wait_loses_no_datagram_to_a_full_queue() {
    against_a_sink(4, |fd, got| {
        // The queue for a neighbour that is not known yet is another one, and short.
        assert_eq!(send(fd, 100, &SendMeta::default()), Ok(100));
        until("the first arrives", || got.load(Ordering::Acquire) == 1);
        for _ in 0..2000 {
            assert_eq!(send(fd, 100, &SendMeta::default()), Ok(100));
        }
        until("all arrive", || got.load(Ordering::Acquire) == 2001);
    });
}
