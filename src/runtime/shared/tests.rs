//! Calls beside a worker whose part the test plays.

use super::*;
use crate::runtime::channel::{self, Channel, Command, Reply};
use crate::runtime::hub::Knock;
use crate::runtime::link::{End, OPEN};
use crate::runtime::tests::by_hand::Hand;

/// A stream that is open, and its worker's ends.
fn stream(hand: &Hand) -> (SharedSocket, End) {
    let (link, end) = Link::new(hand.core.hub, 0, 0, Handle::from_raw(0), Kind::Stream);
    link.board.status.store(OPEN, Ordering::Release);
    (SharedSocket::over(link, true, false), end)
}

fn frame(hand: &mut Hand, bytes: &[u8]) -> Frame {
    let pool = &mut hand.core.sockets.stack.core.pool;
    let mut frame = pool.alloc().unwrap();
    pool.buffer_mut(&mut frame)[..bytes.len()].copy_from_slice(bytes);
    frame.set_range(0, bytes.len());
    frame
}

#[test]
fn what_is_in_the_ring_is_read_before_it_is_told_that_the_worker_ended() {
    let mut hand = Hand::new();
    let (socket, mut end) = stream(&hand);
    let End::Stream { rx, .. } = &mut end else { unreachable!() };
    rx.push(frame(&mut hand, b"last")).unwrap();
    hand.core.seat.down.store(true, Ordering::Release);
    let mut buf = [0; 8];
    let mut read = || channel::with(|thread| socket.recv(thread, &mut [IoSliceMut::new(&mut buf)], 0, Begun::default()).map(|(n, _)| n));
    assert_eq!([read(), read()], [Ok(4), Err(Errno::ENETDOWN)]);
    assert_eq!(&buf[..4], b"last");
}

fn next(channel: &mut Channel) -> Command {
    loop {
        match channel.commands.pop() {
            Some(command) => return command,
            None => std::thread::yield_now(),
        }
    }
}

#[test]
fn bytes_that_went_to_a_worker_count_though_it_ends_then() {
    let mut hand = Hand::new();
    let (socket, _end) = stream(&hand);
    let (seat, given) = (hand.core.seat, frame(&mut hand, b""));
    let room = socket.hub.arena.capacity();
    let sent = std::thread::scope(|scope| {
        let call = scope.spawn(|| {
            let data = vec![1; 3 * room];
            channel::with(|thread| socket.send(thread, &[IoSlice::new(&data)], 0, None, &SendMeta::default(), Begun::default()))
        });
        let mut channel = loop {
            match seat.door.pop() {
                Some(Knock::Channel(channel)) => break channel,
                _ => std::thread::yield_now(),
            }
        };
        // One frame for the first request; the end of the worker for the second.
        assert!(matches!(next(&mut channel), Command::Stock(_)));
        assert!(channel.replies.push(Reply::Stock(given)).is_ok() && channel.replies.push(Reply::StockEnd).is_ok());
        channel.sleeper.wake();
        while !matches!(next(&mut channel), Command::Stock(_)) {}
        seat.down.store(true, Ordering::Release);
        channel.sleeper.wake();
        call.join().unwrap()
    });
    assert_eq!(sent, Ok(room));
}
