//! Calls of threads on a worker that has its turns when the test says so.

use super::strays::{Plug, held, numbered, receive, seat};
use super::*;
use crate::errno::Errno;
use crate::runtime::channel::{self, Command, Thread};
use crate::runtime::exchange::Exchange;
use crate::runtime::hub::Hub;
use crate::runtime::link::{PRI, SPECIAL};
use crate::runtime::posix::Begun;
use crate::runtime::shared::SharedSocket;
use crate::runtime::sys;
use crate::runtime::worker::Core;
use crate::socket::RecvMeta;
use crate::time::Instant;
use std::io::IoSliceMut;
use std::sync::atomic::Ordering;

const OUT: u32 = 0x4;

/// A worker without a thread.
pub struct Hand {
    pub core: Core,
}

impl Hand {
    pub fn new() -> Self {
        let arena = Arena::heap(2048, 2048);
        let hub = Hub::new(config(Wait::Block), 1, arena.clone()).unwrap();
        let sockets = seat(Plug::new(&Default::default(), 0), A, Pool::new(arena, 0, 2048)).sockets;
        let exchange = Exchange::new(1).remove(0);
        let now = Instant::from_nanos(1);
        let core = Core { hub, worker: 0, seat: &hub.seats[0], sockets, desk: Default::default(), exchange, program: None, ended: None, now };
        Self { core }
    }

    pub fn turn(&mut self) {
        self.core.report();
        self.core.commands();
        self.core.report();
    }

    /// Runs a call on a thread of its own, and turns until it is over.
    pub fn serve<R: Send>(&mut self, call: impl FnOnce(&mut Thread) -> R + Send) -> R {
        let result = std::thread::scope(|scope| {
            let call = scope.spawn(|| channel::with(|thread| Ok(call(thread))).unwrap());
            while !call.is_finished() {
                self.turn();
                std::thread::yield_now();
            }
            call.join().unwrap()
        });
        self.turn();
        result
    }

    /// A UDP socket of any thread's, at this port.
    pub fn datagrams(&mut self, port: u16) -> SharedSocket {
        let hub = self.core.hub;
        self.serve(|thread| {
            let socket = SharedSocket::open(thread, hub, libc::AF_INET, libc::SOCK_DGRAM, 0, true).unwrap();
            socket.bind(thread, at(A, port)).unwrap();
            socket
        })
    }
}

fn recv(thread: &mut Thread, socket: &SharedSocket) -> crate::errno::Result<(usize, RecvMeta)> {
    socket.recv(thread, &mut [IoSliceMut::new(&mut [0; 64])], 0, Begun::default())
}

/// Waits for a while: whether it was for nothing.
fn waits_in_vain(thread: &mut Thread, socket: &SharedSocket, interest: u32) -> bool {
    match socket.wait(thread, interest, Some(sys::monotonic_ns() + 20_000_000)) {
        Err(Errno::EAGAIN) => true,
        result => result.map(|()| false).unwrap(),
    }
}

#[test]
fn frames_that_a_thread_was_given_and_has_not_seen_come_back() {
    // Of the second answer a part finds no room in the ring.
    for n in [8, 600] {
        let mut hand = Hand::new();
        let hub = hand.core.hub;
        let ask = move || channel::with(|thread| thread.send(hub, 0, Command::Stock(n), true)).unwrap();
        std::thread::spawn(ask).join().unwrap();
        hand.turn();
        assert_eq!(held(&hand.core), 0);
        assert_eq!(hand.core.sockets.stack.core.lent, 0);
    }
}

#[test]
fn what_was_received_is_read_also_behind_the_end_of_its_worker() {
    let mut hand = Hand::new();
    let socket = hand.datagrams(53);
    receive(&mut hand.core, &numbered(7));
    hand.turn();
    hand.core.seat.down.store(true, Ordering::Release);
    assert_eq!(hand.serve(|thread| recv(thread, &socket).map(|(n, _)| n)), Ok(4));
    assert_eq!(hand.serve(|thread| recv(thread, &socket).map(|(n, _)| n)), Err(Errno::ENETDOWN));
}

#[test]
fn the_end_of_what_the_peer_sends_ends_waits_for_data_alone() {
    let mut hand = Hand::new();
    let socket = hand.datagrams(53);
    hand.serve(|thread| {
        socket.connect(thread, at(B, 9), false, Begun::default()).unwrap();
        socket.shutdown(thread, libc::SHUT_RD).unwrap();
    });
    hand.turn();
    assert_eq!(socket.readiness() & SPECIAL, 0x2000);
    assert!(hand.serve(|thread| waits_in_vain(thread, &socket, PRI)));
    for interest in [1, 0x2000, PRI | 1] {
        assert!(!hand.serve(|thread| waits_in_vain(thread, &socket, interest)), "{interest:x}");
    }
}

#[test]
fn a_link_waits_for_frames_once_however_often_it_is_looked_at() {
    let mut hand = Hand::new();
    let socket = hand.datagrams(53);
    let pool = &mut hand.core.sockets.stack.core.pool;
    let taken: Vec<_> = core::iter::from_fn(|| pool.alloc()).collect();
    socket.links()[0].count_short();
    for _ in 0..3 {
        hand.serve(|thread| _ = waits_in_vain(thread, &socket, OUT));
        assert_eq!(hand.core.desk.starved(), 1);
    }
    taken.into_iter().for_each(|frame| hand.core.sockets.stack.core.pool.free(frame));
    hand.turn();
    assert_eq!(hand.core.desk.starved(), 0);
}
