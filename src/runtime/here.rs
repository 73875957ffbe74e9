//! What a call finds on its own thread: a worker, its sockets, or neither.

use super::descriptors::{Owner, local_state};
use super::hub::Hub;
use super::worker::Core;
use crate::socket::Sockets;
use crate::time::Instant;
use core::cell::Cell;
use core::sync::atomic::{AtomicPtr, Ordering, compiler_fence};
use std::os::fd::RawFd;

/// What a call on a worker's own thread needs of it.
pub(super) trait Turner {
    fn core(&mut self) -> &mut Core;
    fn turn(&mut self);
    fn blocked_turn(&mut self, deadline: Option<Instant>, extra: Option<RawFd>);
    fn panicked(&mut self);
}

#[derive(Clone, Copy)]
struct Current {
    turner: *mut dyn Turner,
    sockets: *mut Sockets,
    owner: Owner,
}

/// What a call has to know of its thread, in one place: finding a thread's own
/// costs a function call in a shared library.
struct Here {
    /// The sockets that a call may use without further questions: the thread is
    /// their worker's, in its program's loop, and in no simulation. [`IN_USE`] while a
    /// call or a turn uses the worker, which is what a signal's handler in the middle of
    /// it finds. Else null.
    own: AtomicPtr<Sockets>,
    /// The same, but that the thread need not be in its program's loop.
    mine: Cell<*mut Sockets>,
    /// What the table says of the descriptors of such sockets.
    state: Cell<u64>,
    /// The worker whose thread this is, whatever it does.
    seated: Cell<Option<Current>>,
    in_loop: Cell<bool>,
    in_simulation: Cell<bool>,
    /// Waits since the last turn, [`WAIT`] each, and calls that found nothing.
    waits: Cell<u32>,
}

/// In the place of the sockets: something uses the worker already.
const IN_USE: *mut Sockets = core::ptr::without_provenance_mut(1);

/// So many waits without a turn, and the next runs one: a loop that waits on its own
/// and always finds something must not keep its worker from the network.
const WAITS: u32 = 16 * WAIT;
/// A wait is worth as many calls that found nothing: of those, what a turn brings for
/// every connection of a batch is no reason for another one.
const WAIT: u32 = 8;

thread_local! {
    static HERE: Here = const { Here {
        own: AtomicPtr::new(core::ptr::null_mut()),
        mine: Cell::new(core::ptr::null_mut()),
        state: Cell::new(0),
        seated: Cell::new(None),
        in_loop: Cell::new(false),
        in_simulation: Cell::new(false),
        waits: Cell::new(0),
    } };
}

impl Here {
    fn sit(&self, current: Current) {
        self.own.store(IN_USE, Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
        self.state.set(local_state(current.owner));
        self.seated.set(Some(current));
        self.find_mine();
    }

    fn find_mine(&self) {
        let current = if self.in_simulation.get() { None } else { self.seated.get() };
        self.mine.set(current.map_or(core::ptr::null_mut(), |c| c.sockets));
    }

    /// What a handler finds in between is [`IN_USE`]: it is first to come, last to go.
    #[inline(always)]
    fn set_in_loop(&self, yes: bool) {
        self.waits.set(0);
        if yes {
            self.in_loop.set(true);
            compiler_fence(Ordering::SeqCst);
            self.own.store(self.mine.get(), Ordering::Relaxed);
        } else {
            self.own.store(IN_USE, Ordering::Relaxed);
            compiler_fence(Ordering::SeqCst);
            self.in_loop.set(false);
        }
    }

    #[inline(always)]
    fn is_busy(&self) -> bool {
        self.own.load(Ordering::Relaxed) == IN_USE
    }

    /// The worker is in use while this lives.
    #[inline(always)]
    fn using(&self, was: *mut Sockets) -> Using<'_> {
        self.own.store(IN_USE, Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
        Using { here: self, was }
    }

    /// Runs `f` on the worker in whose program's loop the thread is, if nothing uses it
    /// and it is the one that is wanted.
    #[inline(always)]
    fn take<R>(&self, wanted: impl FnOnce(Owner) -> bool, f: impl FnOnce(Current) -> R) -> Option<R> {
        if self.is_busy() {
            return None;
        }
        let current = self.current().filter(|c| wanted(c.owner))?;
        let _using = self.using(self.own.load(Ordering::Relaxed));
        Some(f(current))
    }

    #[inline(always)]
    fn count_wait(&self) -> u32 {
        let waits = self.waits.get();
        self.waits.set(waits.saturating_add(WAIT));
        waits
    }

    fn rise(&self) {
        self.set_in_loop(false);
        self.seated.set(None);
        self.find_mine();
        compiler_fence(Ordering::SeqCst);
        self.own.store(core::ptr::null_mut(), Ordering::Relaxed);
    }

    fn current(&self) -> Option<Current> {
        if self.in_loop.get() { self.seated.get() } else { None }
    }
}

/// A use of the worker, which ends with this, also by a panic.
struct Using<'a> {
    here: &'a Here,
    was: *mut Sockets,
}

impl Drop for Using<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        compiler_fence(Ordering::SeqCst);
        self.here.own.store(self.was, Ordering::Relaxed);
    }
}

/// Runs `f` on this thread's own sockets and what `find` finds by the state of their
/// descriptors; `None` where it finds nothing, and where the thread has no such
/// sockets or is using them ([`is_busy`]). The first step of most calls: some 7
/// instructions.
#[inline(always)]
pub(super) fn on_own<K, R>(
    find: impl FnOnce(u64) -> Option<K>,
    f: impl FnOnce(&mut Sockets, K) -> R,
) -> Option<R> {
    HERE.with(|here| {
        let sockets = here.own.load(Ordering::Relaxed);
        if sockets <= IN_USE {
            return None;
        }
        let found = find(here.state.get())?;
        let _using = here.using(sockets);
        // SAFETY: sockets are in `own` only in the program's loop, while nothing else
        // uses the worker, and are out of it until `f` is over.
        Some(f(unsafe { &mut *sockets }, found))
    })
}

/// As [`on_own`], for a look at what there is: one that finds something is counted as a
/// wait. `None` also where a turn is due ([`run_due_turn`]).
#[inline(always)]
pub(super) fn look_on_own<K, R>(
    find: impl FnOnce(u64) -> Option<K>,
    f: impl FnOnce(&Sockets, K) -> Option<R>,
) -> Option<R> {
    HERE.with(|here| {
        let (sockets, waits) = (here.own.load(Ordering::Relaxed), here.waits.get());
        if sockets <= IN_USE || waits >= WAITS {
            return None;
        }
        let found = find(here.state.get())?;
        let _using = here.using(sockets);
        // SAFETY: as in `on_own`.
        let seen = f(unsafe { &*sockets }, found)?;
        here.waits.set(waits + WAIT);
        Some(seen)
    })
}

/// As [`on_own`], for a wait: `None` also where a turn is due ([`run_due_turn`]).
#[inline(always)]
pub(super) fn wait_on_own<K, R>(
    find: impl FnOnce(u64) -> Option<K>,
    f: impl FnOnce(&mut Sockets, K) -> R,
) -> Option<R> {
    if HERE.with(Here::count_wait) >= WAITS { None } else { on_own(find, f) }
}

/// Before a wait of a program's loop: runs a turn, which does not block, where there
/// was none for [`WAITS`] of them.
pub(super) fn run_due_turn() {
    if HERE.with(Here::count_wait) >= WAITS {
        run_blocked_turn(Some(0));
    }
}

/// A call of a program's loop found nothing, and did not wait: one that asks again and
/// again gets its turns, too.
#[cold]
pub(super) fn found_nothing() {
    let calls = HERE.with(|here| {
        here.waits.set(here.waits.get().saturating_add(1));
        here.waits.get()
    });
    if calls >= WAITS {
        run_blocked_turn(Some(0));
    }
}

/// The thread enters a simulation, or leaves it: meanwhile no call is for the
/// worker's own sockets.
pub(crate) fn set_in_simulation(yes: bool) {
    HERE.with(|here| {
        here.in_simulation.set(yes);
        here.find_mine();
        here.waits.set(0);
        if !here.is_busy() {
            let own = if here.in_loop.get() { here.mine.get() } else { core::ptr::null_mut() };
            here.own.store(own, Ordering::Relaxed);
        }
    });
}

/// The worker whose thread this is, if it is in a program's loop.
#[inline]
pub(super) fn current_owner() -> Option<Owner> {
    HERE.with(Here::current).map(|c| c.owner)
}

/// True where a call or a turn uses this thread's worker: in a signal's handler that came
/// in the middle of it, and in an [`App`](super::App)'s turn, where only the sockets that
/// it was given may be used. A call then ends with EBUSY.
#[inline(always)]
pub(super) fn is_busy() -> bool {
    HERE.with(Here::is_busy)
}

/// Runs `f` on this thread's own sockets; `None` where it is no worker's, or that is
/// [busy](is_busy).
#[inline]
pub(super) fn with_sockets<R>(owner: Owner, f: impl FnOnce(&mut Sockets) -> R) -> Option<R> {
    // SAFETY: what is taken is a worker whose thread is in its program's loop, and which
    // nothing else uses until `f` is over: whoever asks meanwhile finds it busy.
    HERE.with(|here| here.take(|of| of == owner, |c| f(unsafe { &mut *c.sockets })))
}

/// Runs `f` on this worker, if its thread is this one, and it is not [busy](is_busy).
pub(super) fn with_core<R>(hub: &'static Hub, worker: usize, f: impl FnOnce(&mut Core) -> R) -> Option<R> {
    let wanted = |of: Owner| of.runtime == hub.number && usize::from(of.worker) == worker;
    // SAFETY: as in `with_sockets`.
    HERE.with(|here| here.take(wanted, |c| f(unsafe { (*c.turner).core() })))
}

/// Runs `f` on this thread's own worker; `None` where it is no such owner's, or busy.
pub(super) fn with_own_core<R>(owner: Owner, f: impl FnOnce(&mut Core) -> R) -> Option<R> {
    // SAFETY: as in `with_sockets`.
    HERE.with(|here| here.take(|of| of == owner, |c| f(unsafe { (*c.turner).core() })))
}

/// Runs a turn, without waiting, if this thread is a worker of the hub's, and not busy.
pub(super) fn run_turn(hub: &'static Hub) -> bool {
    // SAFETY: as in `with_sockets`; a turn does not enter the program's loop.
    HERE.with(|here| here.take(|of| of.runtime == hub.number, |c| unsafe { (*c.turner).turn() })).is_some()
}

/// Runs a turn of this thread's worker, and waits as its mode says if there is
/// nothing to do, at most until the deadline (ns). False: no worker's thread, or busy.
pub(super) fn run_blocked_turn(deadline: Option<u64>) -> bool {
    run_blocked_turn_with(deadline, None)
}

/// As [`run_blocked_turn`]; a wait ends also when `extra` is readable.
pub(super) fn run_blocked_turn_with(deadline: Option<u64>, extra: Option<RawFd>) -> bool {
    let turn = |current: Current| {
        HERE.with(|here| here.waits.set(0));
        // SAFETY: as in `with_sockets`; a turn does not enter the program's loop.
        unsafe { (*current.turner).blocked_turn(deadline.map(Instant::from_nanos), extra) }
    };
    HERE.with(|here| here.take(|_| true, turn)).is_some()
}

/// Ends this thread's worker, in whose program's loop a call panicked: what it
/// left half done is touched by nobody any more.
#[cold]
pub(crate) fn panicked() {
    // A handler's call that found the worker busy has left nothing half done.
    let ended = HERE.with(|here| {
        // SAFETY: as in `with_sockets`: the panic has left every borrow.
        here.take(|_| true, |current| unsafe { (*current.turner).panicked() })
    });
    if ended.is_some() {
        HERE.with(Here::rise);
    }
}

/// Seats a worker on this thread, until it [rises](rise). The pointers are valid, and
/// what they point to is borrowed by nobody but calls of this module while the thread is
/// in the program's loop.
pub(super) fn sit(turner: *mut dyn Turner, sockets: *mut Sockets, owner: Owner) {
    HERE.with(|here| here.sit(Current { turner, sockets, owner }));
}

/// The thread is no worker's any more.
pub(super) fn rise() {
    HERE.with(Here::rise);
}

/// The thread is in its worker's program's loop while this lives.
pub(super) struct InLoop(());

impl InLoop {
    #[inline(always)]
    pub fn enter() -> Self {
        HERE.with(|here| here.set_in_loop(true));
        Self(())
    }
}

impl Drop for InLoop {
    #[inline(always)]
    fn drop(&mut self) {
        HERE.with(|here| here.set_in_loop(false));
    }
}
