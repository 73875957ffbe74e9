//! One simulated machine: the stack, its clock, its descriptors, and the calls
//! that wait in it.
//!
//! packetdrill runs a script on its main thread, and calls that the script says
//! block on a second one. A call that has to wait does not move time; the main
//! thread does, and tries the waiting calls anew whenever something is due, so
//! that each ends at the virtual time at which it would have, whichever way the
//! threads are scheduled.

use crate::flags::Flags;
use crate::preload;
use core::cell::Cell;
use core::ffi::{CStr, c_int, c_void};
use ringroad::ffi::*;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};

/// What packetdrill sees as time 0 of the stack, in microseconds: a date.
const EPOCH_US: u64 = 1_700_000_000_000_000;
/// How far each look at the clock moves it: a program that spins gets on.
const LOOK_NS: u64 = 1_000;
/// Rounds of work at one moment before the stack counts as stuck.
const ROUNDS: u32 = 10_000;

/// Bytes of an IP packet, at most.
const LARGEST: usize = 65_535;

/// What a call gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) value: i64,
    /// Of a failed one.
    pub(crate) errno: c_int,
}

impl Outcome {
    pub(crate) fn ok(value: i64) -> Self {
        Self { value, errno: 0 }
    }

    pub(crate) fn error(errno: c_int) -> Self {
        Self { value: -1, errno }
    }

    /// What a call in C's manner gave, `errno` included.
    pub(crate) fn of(value: impl Into<i64>) -> Self {
        let value = value.into();
        // SAFETY: this thread's own errno.
        Self { value, errno: if value < 0 { unsafe { *libc::__errno_location() } } else { 0 } }
    }

    pub(crate) fn would_block(self) -> bool {
        self.value < 0 && self.errno == libc::EAGAIN
    }
}

/// How long a call may wait.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wait {
    /// Not at all.
    No,
    /// So many nanoseconds.
    For(u64),
    /// Until it is done.
    Ever,
}

/// One attempt at a call; true: it is the last, an answer must come.
type Attempt = Box<dyn FnMut(&mut World, bool) -> Option<Outcome>>;

/// A call that waits on another thread than packetdrill's main one.
struct Waiter {
    id: u64,
    deadline: Option<u64>,
    attempt: Attempt,
}

/// What is behind the lock.
pub(crate) struct World {
    sim: *mut rr_sim,
    /// Nanoseconds since the stack began.
    now: u64,
    cap: u64,
    /// From the process's descriptors, each an eventfd, to the stack's.
    descriptors: BTreeMap<c_int, c_int>,
    /// What the stack sent, and when: its transmit queue is emptied at once, as a
    /// wire would, so that nothing waits for packetdrill to look.
    sent: VecDeque<(Vec<u8>, u64)>,
    waiters: Vec<Waiter>,
    finished: HashMap<u64, (Outcome, u64)>,
    next_id: u64,
    /// A call of another thread ended, which may still be on its way out.
    ended: bool,
}

// SAFETY: all use is under the machine's lock. A waiting attempt holds pointers of
// its call's arguments; they stay valid as that call is still under way.
unsafe impl Send for World {}

/// The machine; packetdrill's `userdata`.
pub(crate) struct Machine {
    world: Mutex<World>,
    done: Condvar,
    main: ThreadId,
    /// What the stack's configuration says, and points to.
    flags: Mutex<Flags>,
}

thread_local! {
    /// When this thread's last call ended, where it had to wait: what the next
    /// look at the clock gives.
    static ENDED_AT: Cell<Option<u64>> = const { Cell::new(None) };
}

/// The lock, with the stack entered on this thread.
pub(crate) struct Inside<'a>(Option<MutexGuard<'a, World>>);

impl<'a> Inside<'a> {
    fn new(guard: MutexGuard<'a, World>) -> Self {
        // SAFETY: the stack lives as long as the world; under the lock no other
        // thread is in it.
        unsafe { rr_sim_enter(guard.sim) };
        Self(Some(guard))
    }

    fn leave(mut self) -> Option<MutexGuard<'a, World>> {
        // SAFETY: null leaves.
        unsafe { rr_sim_enter(core::ptr::null_mut()) };
        self.0.take()
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        if self.0.is_some() {
            // SAFETY: null leaves.
            unsafe { rr_sim_enter(core::ptr::null_mut()) };
        }
    }
}

impl core::ops::Deref for Inside<'_> {
    type Target = World;

    fn deref(&self) -> &World {
        self.0.as_ref().expect("held until it is dropped")
    }
}

impl core::ops::DerefMut for Inside<'_> {
    fn deref_mut(&mut self) -> &mut World {
        self.0.as_mut().expect("held until it is dropped")
    }
}

/// Ends the process, saying why; packetdrill gives calls no other way to.
pub(crate) fn die(why: &str) -> ! {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "ringroad-packetdrill: {why}");
    // SAFETY: plain calls. Not exit(3): another thread may be in the middle of a call.
    unsafe {
        libc::fflush(core::ptr::null_mut());
        libc::_exit(1)
    }
}

/// Runs a call: its errno is set, and no panic reaches C.
pub(crate) fn shielded(user: *mut c_void, call: impl FnOnce(&Machine) -> Outcome) -> i64 {
    // SAFETY: packetdrill gives back the `userdata` that it got, and frees it last.
    let machine = unsafe { &*user.cast::<Machine>() };
    match catch_unwind(AssertUnwindSafe(|| call(machine))) {
        Ok(outcome) => {
            if outcome.value < 0 {
                // SAFETY: this thread's own errno.
                unsafe { *libc::__errno_location() = outcome.errno };
            }
            outcome.value
        }
        Err(_) => die("a call panicked"),
    }
}

/// Why the last call of this thread failed.
fn reason() -> String {
    // SAFETY: rr_strerror gives a string of this thread's.
    let why = unsafe { CStr::from_ptr(rr_strerror(Outcome::of(-1).errno)) };
    why.to_string_lossy().into_owned()
}

impl Machine {
    /// A fresh machine.
    ///
    /// # Errors
    /// What is wrong with the flags.
    pub(crate) fn new(flags: &str) -> Result<Box<Self>, String> {
        let flags = Flags::read(flags)?;
        // SAFETY: a whole configuration with its texts.
        let sim = unsafe { rr_sim_new(&flags.config, flags.seed) };
        if sim.is_null() {
            return Err(reason());
        }
        let world = World {
            sim,
            now: 0,
            cap: flags.cap,
            descriptors: BTreeMap::new(),
            sent: VecDeque::new(),
            waiters: Vec::new(),
            finished: HashMap::new(),
            next_id: 0,
            ended: false,
        };
        let machine = Box::new(Self {
            world: Mutex::new(world),
            done: Condvar::new(),
            main: thread::current().id(),
            flags: Mutex::new(flags),
        });
        preload::register(&machine);
        Ok(machine)
    }

    /// Changes settings: flags that are added to what there is, or `forget`, which
    /// is what was learnt of destinations.
    ///
    /// # Errors
    /// What is wrong with them.
    pub(crate) fn change(&self, text: &str) -> Result<(), String> {
        let mut flags = self.flags.lock().unwrap_or_else(PoisonError::into_inner);
        let world = self.inside();
        for word in text.split_whitespace() {
            if word == "forget" {
                // SAFETY: the world's stack.
                unsafe { rr_sim_forget(world.sim) };
                continue;
            }
            flags.add(word)?;
            // SAFETY: the world's stack, and a whole configuration with its texts.
            if unsafe { rr_sim_configure(world.sim, &flags.config) } != 0 {
                return Err(reason());
            }
        }
        Ok(())
    }

    /// Ends the stack, and gives its descriptors back.
    pub(crate) fn end(self: Box<Self>) {
        preload::forget(&self);
        let Self { world, .. } = *self;
        let world = world.into_inner().unwrap_or_else(PoisonError::into_inner);
        for &fd in world.descriptors.keys() {
            // SAFETY: an eventfd of ours. Where packetdrill closed it already, which
            // it does with the C library's close, EBADF.
            unsafe { libc::close(fd) };
        }
        // SAFETY: the stack is nobody else's any more.
        unsafe { rr_sim_free(world.sim) };
    }

    /// The lock.
    pub(crate) fn inside(&self) -> Inside<'_> {
        Inside::new(self.world.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Makes a call that may have to wait: attempts it now, and then whenever
    /// something has happened, until it is done or its time is over.
    pub(crate) fn call(
        &self,
        wait: impl FnOnce(&World) -> Wait,
        mut attempt: impl FnMut(&mut World, bool) -> Option<Outcome> + 'static,
    ) -> Outcome {
        let mut world = self.inside();
        let deadline = match wait(&world) {
            Wait::No => Some(world.now),
            Wait::For(ns) => Some(world.now.saturating_add(ns)),
            Wait::Ever => None,
        };
        let at_once = deadline == Some(world.now);
        let first = attempt(&mut world, at_once);
        world.settle(&self.done);
        if let Some(outcome) = first {
            return outcome;
        }
        if thread::current().id() == self.main {
            for _ in 0..ROUNDS {
                let next = world.next().unwrap_or(u64::MAX).min(deadline.unwrap_or(u64::MAX));
                if next == u64::MAX {
                    die("a call would block for ever: nothing is under way that could end it");
                }
                world.advance(next, &self.done);
                let last = deadline.is_some_and(|at| at <= world.now);
                let outcome = attempt(&mut world, last);
                world.settle(&self.done);
                if let Some(outcome) = outcome {
                    return outcome;
                }
            }
            die("a call would block for ever");
        }
        let id = world.next_id;
        world.next_id += 1;
        world.waiters.push(Waiter { id, deadline, attempt: Box::new(attempt) });
        let mut guard = world.leave().expect("held");
        loop {
            guard = self.done.wait(guard).unwrap_or_else(PoisonError::into_inner);
            if let Some((outcome, at)) = guard.finished.remove(&id) {
                ENDED_AT.set(Some(at));
                return outcome;
            }
        }
    }

    /// A call that never waits.
    pub(crate) fn at_once(&self, call: impl FnOnce(&mut World) -> Outcome) -> Outcome {
        let mut world = self.inside();
        let outcome = call(&mut world);
        world.settle(&self.done);
        outcome
    }

    /// What the clock shows, in microseconds.
    pub(crate) fn look_at_clock(&self) -> u64 {
        if let Some(at) = ENDED_AT.take() {
            return EPOCH_US + at / 1000;
        }
        let mut world = self.inside();
        let to = world.now + LOOK_NS;
        world.advance(to, &self.done);
        EPOCH_US + world.now / 1000
    }

    /// Lets time pass.
    pub(crate) fn sleep(&self, ns: u64) {
        let mut world = self.inside();
        let to = world.now.saturating_add(ns);
        world.advance(to, &self.done);
        if core::mem::take(&mut world.ended) {
            // In the time that passes for packetdrill the other thread gets on, too.
            drop(world);
            thread::sleep(core::time::Duration::from_millis(2));
        }
    }

    /// Hands the stack a packet.
    pub(crate) fn inject(&self, packet: &[u8]) -> Outcome {
        self.at_once(|world| {
            // SAFETY: the world's stack, and readable bytes.
            Outcome::of(unsafe { rr_sim_inject(world.sim, packet.as_ptr().cast(), packet.len()) })
        })
    }

    /// The stack's next packet, and when it left in microseconds; lets time pass
    /// until there is one.
    pub(crate) fn next_packet(&self, out: &mut [u8]) -> (usize, u64) {
        let mut world = self.inside();
        loop {
            if let Some((packet, at)) = world.sent.pop_front() {
                let len = packet.len().min(out.len());
                out[..len].copy_from_slice(&packet[..len]);
                return (len, EPOCH_US + at / 1000);
            }
            let Some(next) = world.next() else {
                die("no packet comes any more: nothing is under way in the stack");
            };
            world.advance(next, &self.done);
        }
    }
}

impl World {
    /// The stack's descriptor behind one of the process's.
    pub(crate) fn descriptor(&self, fd: c_int) -> Option<c_int> {
        self.descriptors.get(&fd).copied()
    }

    /// A descriptor of the process for one of the stack's.
    pub(crate) fn adopt(&mut self, inner: c_int) -> Outcome {
        // SAFETY: a plain call.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
        if fd < 0 {
            let failed = Outcome::of(fd);
            rr_close(inner);
            return failed;
        }
        self.descriptors.insert(fd, inner);
        Outcome::ok(fd.into())
    }

    /// Closes one of the process's descriptors; `None` where it is not ours.
    pub(crate) fn close(&mut self, fd: c_int) -> Option<Outcome> {
        let inner = self.descriptors.remove(&fd)?;
        // SAFETY: the eventfd that `adopt` made.
        unsafe { libc::close(fd) };
        Some(Outcome::of(rr_close(inner)))
    }

    /// When something is due next, in the stack or for a call that waits.
    fn next(&self) -> Option<u64> {
        // SAFETY: the world's stack.
        let stack = unsafe { rr_sim_next_deadline(self.sim) };
        let calls = self.waiters.iter().filter_map(|w| w.deadline).min();
        let next = stack.min(calls.unwrap_or(u64::MAX));
        (next != u64::MAX).then(|| next.max(self.now))
    }

    /// Lets time pass up to a moment, with everything that is due by then.
    fn advance(&mut self, to: u64, done: &Condvar) {
        let mut rounds = 0;
        while let Some(next) = self.next().filter(|&next| next <= to) {
            rounds = if next == self.now { rounds + 1 } else { 0 };
            if rounds > ROUNDS {
                die("the stack wants to be polled for ever at one moment");
            }
            self.set_clock(next);
            self.settle(done);
        }
        self.set_clock(to.max(self.now));
    }

    fn set_clock(&mut self, now: u64) {
        if now > self.cap {
            die(&format!("virtual time is over: {} s", self.cap / 1_000_000_000));
        }
        self.now = now;
        // SAFETY: the world's stack.
        unsafe { rr_sim_clock_set(self.sim, now) };
    }

    /// Runs the stack, and the calls that wait in it, at this moment.
    fn settle(&mut self, done: &Condvar) {
        for _ in 0..ROUNDS {
            self.poll();
            if !self.serve() {
                // Attempts that failed leave the stack something to look at, too.
                return self.poll();
            }
            done.notify_all();
        }
    }

    fn poll(&mut self) {
        // SAFETY: the world's stack.
        unsafe { rr_sim_poll(self.sim) };
        self.drain();
    }

    fn drain(&mut self) {
        loop {
            let (mut packet, mut at) = (vec![0; LARGEST], 0);
            // SAFETY: the world's stack, and writable bytes.
            let len = unsafe { rr_sim_collect(self.sim, packet.as_mut_ptr().cast(), LARGEST, &mut at) };
            match len {
                1.. => packet.truncate(len as usize),
                0 => return,
                _ => die("the stack does not give its packets any more"),
            }
            packet.shrink_to_fit();
            self.sent.push_back((packet, at));
        }
    }

    /// Attempts every call that waits; true where one ended.
    fn serve(&mut self) -> bool {
        let mut waiters = core::mem::take(&mut self.waiters);
        let before = self.finished.len();
        waiters.retain_mut(|w| {
            let last = w.deadline.is_some_and(|at| at <= self.now);
            let Some(outcome) = (w.attempt)(self, last) else { return true };
            self.finished.insert(w.id, (outcome, self.now));
            self.ended = true;
            false
        });
        self.waiters = waiters;
        self.finished.len() > before
    }
}
