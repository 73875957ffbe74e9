//! Calls of two threads on one member of a set, whose worker answers them the other way
//! round.

use super::by_hand::Hand;
use crate::runtime::channel;
use crate::runtime::set::EpollSet;
use crate::runtime::worker::Core;
use libc::{EPOLL_CTL_ADD as ADD, EPOLL_CTL_DEL as DEL, EPOLL_CTL_MOD as MOD};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

const IN: u32 = 0x1;
const OUT: u32 = 0x4;
/// EPOLLERR | EPOLLHUP.
const ALWAYS: u32 = 0x8 | 0x10;
/// What the member is called.
const FD: i32 = 77;

/// Whether a command of this thread's waits.
fn waits(core: &mut Core, channel: usize) -> bool {
    core.answer_door();
    core.desk.channels.get_mut(channel).and_then(Option::as_mut).is_some_and(|c| !c.commands.is_empty())
}

/// Carries out the first of two changes as far as the call to the worker, then the
/// second; the worker answers the second first. What it is asked to report then.
fn crossed(before: Option<u32>, first: (i32, u32), second: (i32, u32)) -> Vec<u32> {
    let mut hand = Hand::new();
    let socket = Arc::new(hand.datagrams(53));
    let (hub, kernel) = (hand.core.hub, EpollSet::kernel().unwrap());
    let set = EpollSet::new(hub, kernel.as_raw_fd(), None).unwrap();
    if let Some(events) = before {
        hand.serve(|thread| set.control(thread, ADD, FD, &socket, events, 1).unwrap());
    }
    let step = AtomicUsize::new(0);
    let change = |(op, events)| channel::with(|thread| set.control(thread, op, FD, &socket, events, 1)).unwrap();
    std::thread::scope(|scope| {
        let (step, change) = (&step, &change);
        // Who spoke to the worker first is answered first from then on.
        let later = scope.spawn(move || {
            channel::with(|thread| thread.call(hub, 0, |_| ())).unwrap();
            step.store(1, Ordering::Release);
            while step.load(Ordering::Acquire) < 2 {
                std::thread::yield_now();
            }
            change(second);
        });
        while step.load(Ordering::Acquire) < 1 {
            hand.turn();
            std::thread::yield_now();
        }
        let sooner = scope.spawn(move || change(first));
        while !waits(&mut hand.core, 1) {
            std::thread::yield_now();
        }
        step.store(2, Ordering::Release);
        while !waits(&mut hand.core, 0) {
            std::thread::yield_now();
        }
        while !(later.is_finished() && sooner.is_finished()) {
            hand.turn();
            std::thread::yield_now();
        }
    });
    let link = hand.core.desk.link(socket.links()[0].id).unwrap();
    link.subscriptions.iter().map(|s| s.asks()).collect()
}

#[test]
fn who_is_added_is_asked_for_what_another_thread_made_of_it_meanwhile() {
    assert_eq!(crossed(None, (ADD, IN), (MOD, OUT)), [OUT | ALWAYS]);
}

#[test]
fn who_is_added_and_taken_out_meanwhile_is_not_reported() {
    assert_eq!(crossed(None, (ADD, IN), (DEL, 0)), [0u32; 0]);
}

#[test]
fn of_two_changes_the_last_one_counts_whichever_the_worker_hears_of_first() {
    assert_eq!(crossed(Some(IN), (MOD, IN), (MOD, OUT)), [OUT | ALWAYS]);
}
