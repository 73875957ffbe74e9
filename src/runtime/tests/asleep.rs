//! What comes between a worker's last look and its sleep.

use super::strays::{Cable, Plug, numbered, receive, two_cores};
use super::*;
use crate::runtime::exchange::Exchange;
use crate::runtime::here::Turner;
use crate::runtime::hub::Hub;
use crate::runtime::sys;
use crate::runtime::worker::{Core, Worker};
use crate::time::Instant;
use std::sync::Arc;
use std::time::Duration;

/// A worker that sleeps until somebody wakes it: a shared address has no timers, and
/// nothing ever comes to its device. Its turns are the test's.
fn sleepy(hub: &'static Hub, exchange: Exchange, never: &sys::EventFd) -> Worker<Plug> {
    let stack = stack::Config { mode: stack::Mode::Shared, addresses: vec![(A, 24)], ..stack::Config::default() };
    let sockets = Sockets::new(Stack::new(stack, Pool::new(hub.arena.clone(), 2048, 2048), 11));
    let device = Plug::new(&Arc::<Cable>::default(), 1);
    let station = Station { device, sockets, fd: Some(never.fd()), mirror: None, tick: None };
    Worker::new(hub, 1, exchange, station, Arc::new(|| ()))
}

/// Brings something to a worker that has looked everywhere and not slept yet: true where
/// it sleeps all the same, for so long.
fn sleeps(long: Duration, bring: impl FnOnce(&'static Hub, &mut Core)) -> bool {
    let never = sys::EventFd::new().unwrap();
    let (mut zero, one, _) = two_cores();
    let hub = one.hub;
    let mut worker = sleepy(hub, one.exchange, &never);
    // There was nothing to do in the turn before.
    (0..3).for_each(|_| worker.turn());
    bring(hub, &mut zero);
    let until = sys::monotonic_ns() + long.as_nanos() as u64;
    worker.blocked_turn(Some(Instant::from_nanos(until)), None);
    sys::monotonic_ns() >= until
}

const LONG: Duration = Duration::from_secs(10);

#[test]
fn a_worker_does_not_sleep_over_what_another_one_handed_over() {
    assert!(!sleeps(LONG, |_, zero| receive(zero, &numbered(1))));
}

#[test]
fn a_worker_does_not_sleep_over_its_end() {
    assert!(!sleeps(LONG, |hub, _| hub.stop()));
}

#[test]
fn a_worker_sleeps_where_there_is_nothing() {
    assert!(sleeps(Duration::from_millis(20), |_, _| ()));
}
