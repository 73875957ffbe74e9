//! A worker: one thread, one core, one queue, one stack.
//!
//! A turn is: reap completions, receive, input, the program's loop, commands of
//! other threads, timers, transmit (one kick), refill, and then perhaps a wait.
//! Each step has a budget, so that no flow, queue or thread starves another.

use super::clock::Clock;
use super::config::{MOST_ACK_SPACING, Wait};
use super::desk::Desk;
use super::descriptors::Owner;
use super::exchange::Exchange;
use super::here::{self, InLoop, Turner};
pub(super) use super::here::{
    current_owner, found_nothing, is_busy, look_on_own, on_own, run_blocked_turn, run_blocked_turn_with,
    run_due_turn, run_turn, wait_on_own, with_core, with_own_core, with_sockets,
};
pub(crate) use super::here::{panicked, set_in_simulation};
use super::hub::{Hub, Seat};
use super::late;
use super::losses::Losses;
use super::mirror::Mirror;
use super::patience::Patience;
use super::program::Program;
use super::sys;
use crate::device::Device;
use crate::errno::Errno;
use crate::frame::Batch;
use crate::socket::Sockets;
use crate::time::{Duration, Instant};
use core::sync::atomic::{Ordering, fence};
use std::os::fd::RawFd;
use std::sync::Arc;

/// A worker without its device.
pub(super) struct Core {
    pub hub: &'static Hub,
    pub worker: usize,
    /// Its own in the hub.
    pub seat: &'static Seat,
    pub sockets: Sockets,
    pub desk: Desk,
    pub exchange: Exchange,
    pub program: Option<Program>,
    /// Dropped when the program ends.
    pub ended: Option<Box<dyn FnOnce()>>,
    pub now: Instant,
}

/// One worker's seat at its device.
pub struct Station<D> {
    /// The device.
    pub device: D,
    /// Its sockets, over its pool.
    pub sockets: Sockets,
    /// What to poll for received packets; `None`: the device has nothing to poll
    /// (the memory wire), and a sleeping worker looks again every 50 us.
    pub fd: Option<RawFd>,
    /// The kernel's addresses, routes and neighbours, where they are followed.
    pub mirror: Option<Mirror>,
    /// Told the time before every turn (the memory wire's clock).
    pub tick: Option<Box<dyn FnMut(Instant) + Send>>,
}

pub(super) struct Worker<D> {
    core: Core,
    device: D,
    fd: Option<RawFd>,
    mirror: Option<Mirror>,
    tick: Option<Box<dyn FnMut(Instant) + Send>>,
    clock: Clock,
    batch: Batch,
    /// When there was last something to do.
    busy_at: Instant,
    /// Of an adaptive worker.
    patience: Patience,
    /// When it last let the core's other threads run.
    gave_way: Instant,
    /// When a turn last sent.
    sent_at: Instant,
    /// Something waits for the next turn.
    unsent: bool,
    /// Gives the kernel its traffic back.
    detach: Detach,
    /// It panicked within the program's loop: nothing of it is used any more.
    dead: bool,
}

/// Detaches from the interface, on whatever thread.
pub(super) type Detach = Arc<dyn Fn() + Send + Sync>;

/// A worker that does not sleep lets others of its core run so often.
const GIVE_WAY: Duration = Duration::from_micros(50);

/// How often a worker without a descriptor to poll looks at its device.
const BLIND_SLEEP_NS: u64 = 50_000;
/// How long a worker with work put off sleeps at most.
const SHORT_SLEEP_NS: u64 = 1_000_000;

impl<D: Device + 'static> Worker<D> {
    pub fn new(hub: &'static Hub, worker: usize, exchange: Exchange, station: Station<D>, detach: Detach) -> Self {
        let mut clock = if station.tick.is_some() { Clock::plain() } else { Clock::new() };
        let now = clock.now();
        Self {
            core: Core {
                hub,
                worker,
                seat: &hub.seats[worker],
                sockets: station.sockets,
                desk: Desk::default(),
                exchange,
                program: None,
                ended: None,
                now,
            },
            device: station.device,
            fd: station.fd,
            mirror: station.mirror,
            tick: station.tick,
            clock,
            batch: Batch::new(),
            busy_at: now,
            patience: Patience::new(hub.config.spin),
            gave_way: Instant::ZERO,
            sent_at: now,
            unsent: false,
            detach,
            dead: false,
        }
    }

    /// Runs until the hub says stop.
    pub fn run(&mut self) {
        let this = core::ptr::from_mut(self);
        // SAFETY: `self` is exclusively borrowed to the end of this function; every
        // borrow through the pointer ends before the program's loop is entered.
        // `farewell` comes before it is gone.
        unsafe {
            let sockets = &raw mut (*this).core.sockets;
            let owner = (*this).core.owner();
            here::sit(this as *mut dyn Turner, sockets, owner);
            (*this).refill();
            while !(*this).core.hub.stopping() {
                (*this).receive_half();
                Self::program(this);
                if (*this).dead {
                    return;
                }
                (*this).send_half();
                let deadline = (*this).program_deadline();
                (*this).wait(deadline, None);
            }
            // What was closed is said to the peers as far as one turn goes.
            Self::end_program(this);
            (*this).receive_half();
            (*this).send_half();
            let losses = Losses::of(&(*this).device, &(*this).core.sockets.stack.core.counters);
            let _ = (*this).core.seat.losses.set(losses);
        }
    }

    /// The last act: after it, nobody is answered any more. Also after a panic.
    pub fn farewell(&mut self) {
        here::rise();
        let _ = std::panic::catch_unwind(core::panic::AssertUnwindSafe(|| self.core.end_program()));
        self.core.release_everyone();
    }

    fn program_deadline(&self) -> Option<Instant> {
        match &self.core.program {
            Some(Program::App(app)) => app.next_deadline(),
            _ => None,
        }
    }

    /// Enters the program's loop once.
    ///
    /// # Safety
    /// `this` is valid, and nothing of it is borrowed.
    unsafe fn program(this: *mut Self) {
        // SAFETY: the caller's promise; the borrow ends with the call.
        let goes_on = match unsafe { &mut (*this).core.program } {
            None => return,
            Some(Program::App(app)) => {
                // SAFETY: as above; the program is no part of the sockets.
                let (now, sockets) = unsafe { ((*this).core.now, &mut (*this).core.sockets) };
                app.turn(now, sockets).is_continue()
            }
            Some(Program::Loop(enter)) => {
                // What is boxed is not the worker's own memory, and stays while it
                // runs: a program is ended here and after the last turn alone.
                let enter: *mut dyn FnMut() -> bool = &raw mut **enter;
                let inside = InLoop::enter();
                // SAFETY: as said; calls from within have pointers, no references.
                let goes_on = unsafe { (*enter)() };
                drop(inside);
                goes_on
            }
        };
        if !goes_on {
            // SAFETY: as above.
            unsafe { Self::end_program(this) };
        }
    }

    /// Ends the program, if there is one. What it owns may close its sockets meanwhile.
    ///
    /// # Safety
    /// As of [`Worker::program`].
    unsafe fn end_program(this: *mut Self) {
        // SAFETY: the caller's promise; the borrow ends with the statement.
        let program = unsafe { (*this).core.program.take() };
        let inside = InLoop::enter();
        drop(program);
        drop(inside);
        // SAFETY: as above.
        unsafe { (*this).core.end_program() };
    }

    #[inline(always)]
    fn receive_half(&mut self) {
        let now = self.clock.now();
        self.core.now = now;
        if let Some(tick) = &mut self.tick {
            tick(now);
        }
        let sockets = &mut self.core.sockets;
        let pool = sockets.tx().0;
        self.device.reap(pool);
        self.device.receive(pool, &mut self.batch);
        let mut busy = !self.batch.is_empty();
        if busy {
            sockets.receive(now, &mut self.batch);
        }
        busy |= self.core.exchange_turn(&mut self.batch);
        if let Some(mirror) = &mut self.mirror {
            mirror.turn(&mut self.core, now);
        }
        if busy | self.core.report() {
            self.patience.heard(now.since(self.busy_at));
            self.busy_at = now;
        }
    }

    #[inline(always)]
    fn send_half(&mut self) {
        let now = self.core.now;
        // What a timer did to a socket the program has not seen yet: no sleep before that.
        let mut busy = self.core.commands();
        busy |= self.core.sockets.turn_and_tell(now);
        busy |= self.core.report();
        self.core.carry_home();
        if self.core.sockets.has_more_to_send() && late::is_late(self.sent_at, now) {
            late::send_rest(&mut self.device, &mut self.core.sockets, now);
        }
        self.sent_at = now;
        let (pool, queue) = self.core.sockets.tx();
        if busy | !queue.is_empty() {
            self.patience.heard(now.since(self.busy_at));
            self.busy_at = now;
        }
        // Also with nothing new: what an earlier call could not kick off.
        self.device.transmit(pool, queue);
        self.unsent = !queue.is_empty() || !self.device.is_quiet();
        self.refill();
    }

    fn refill(&mut self) {
        self.device.refill(self.core.sockets.tx().0);
    }

    /// Waits as the mode says, if there is nothing to do.
    fn wait(&mut self, deadline: Option<Instant>, extra: Option<RawFd>) {
        let config = &self.core.hub.config;
        let quiet = match config.wait {
            Wait::Spin => false,
            // What came in during this turn is looked at before a sleep.
            _ if self.unsent || self.busy_at >= self.core.now => false,
            // What is due as soon as that is not worth a sleep: an ACK that waits for more.
            Wait::Adaptive => {
                self.patience.is_over(self.core.now.since(self.busy_at))
                    && self.core.sockets.next_deadline().is_none_or(|at| at > self.core.now + config.spin.min(MOST_ACK_SPACING))
            }
            Wait::Block => true,
        };
        if quiet {
            self.sleep(deadline, extra);
        } else {
            self.give_way();
        }
    }

    /// Lets the core's other threads run, now and then. Packets that are too many for an
    /// interrupt the kernel leaves to a thread of the core (ksoftirqd), which waits for
    /// the end of our time slice, milliseconds, if nobody gives way. With no thread
    /// waiting it is one short system call in [`GIVE_WAY`].
    #[inline]
    fn give_way(&mut self) {
        if self.core.now.since(self.gave_way) >= GIVE_WAY {
            self.gave_way = self.core.now;
            std::thread::yield_now();
        }
    }

    #[cold]
    fn sleep(&mut self, deadline: Option<Instant>, extra: Option<RawFd>) {
        let now = self.clock.now();
        let next = self.core.sockets.next_deadline().into_iter().chain(deadline).min();
        let mut timeout = next.map(|at| at.since(now).as_nanos());
        if timeout == Some(0) {
            return;
        }
        let mut at_most = |ns: u64| timeout = Some(timeout.map_or(ns, |t| t.min(ns)));
        if self.fd.is_none() {
            at_most(BLIND_SLEEP_NS);
        }
        if self.core.desk.again || self.core.exchange.again {
            at_most(SHORT_SLEEP_NS);
        }
        let (hub, worker) = (self.core.hub, self.core.worker);
        let sleeper = &self.core.seat.sleeper;
        self.core.publish_hunger();
        sleeper.announce();
        // Everything that others write to is looked at after the announcement.
        fence(Ordering::SeqCst);
        if self.core.desk.has_work(hub, worker) || self.core.exchange.has_work() || hub.stopping() {
            sleeper.awake(false);
            return;
        }
        let one = |fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        let mut fds = [
            one(sleeper.fd()),
            one(self.fd.unwrap_or(-1)),
            one(self.mirror.as_ref().map_or(-1, Mirror::fd)),
            one(extra.unwrap_or(-1)),
        ];
        let _ = sys::poll(&mut fds, timeout);
        sleeper.awake(fds[0].revents != 0);
        if fds[1].revents & (libc::POLLERR | libc::POLLHUP | libc::POLLNVAL) != 0 {
            // A device in trouble must not make this a busy loop.
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    }
}

impl<D: Device + 'static> Turner for Worker<D> {
    fn panicked(&mut self) {
        (self.detach)();
        self.dead = true;
        self.core.hub.fail(Errno::ENETDOWN, "a worker panicked");
        // No call is answered from here on: `run` returns without a further turn.
        self.core.seat.down.store(true, Ordering::Release);
    }

    fn core(&mut self) -> &mut Core {
        &mut self.core
    }

    fn turn(&mut self) {
        self.send_half();
        self.receive_half();
    }

    fn blocked_turn(&mut self, deadline: Option<Instant>, extra: Option<RawFd>) {
        // What the program just did leaves before a sleep. What falls due in it is
        // for the next turn's first half: whoever is blocked comes again.
        self.send_half();
        self.wait(deadline, extra);
        self.receive_half();
    }
}

impl Core {
    /// The owner of this worker's local sockets.
    pub fn owner(&self) -> Owner {
        Owner { runtime: self.hub.number, worker: self.worker as u8 }
    }

    /// Ends the program, if there is one.
    pub fn end_program(&mut self) {
        self.program = None;
        if let Some(ended) = self.ended.take() {
            ended();
        }
    }
}
