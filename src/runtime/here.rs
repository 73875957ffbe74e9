//! What a call finds on its own thread: a worker, its sockets, or neither.

use super::descriptors::{Owner, local_state};
use super::hub::Hub;
use super::worker::Core;
use crate::socket::Sockets;
use crate::time::Instant;
use core::cell::Cell;
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
    /// their worker's, in its program's loop, and in no simulation. Else null.
    own: Cell<*mut Sockets>,
    /// The same, but that the thread need not be in its program's loop.
    mine: Cell<*mut Sockets>,
    /// What the table says of the descriptors of such sockets.
    state: Cell<u64>,
    /// The worker whose thread this is, whatever it does.
    seated: Cell<Option<Current>>,
    in_loop: Cell<bool>,
    in_app: Cell<bool>,
    in_simulation: Cell<bool>,
    /// Waits since the last turn, [`WAIT`] each, and calls that found nothing.
    waits: Cell<u32>,
}

/// So many waits without a turn, and the next runs one: a loop that waits on its own
/// and always finds something must not keep its worker from the network.
const WAITS: u32 = 16 * WAIT;
/// A wait is worth as many calls that found nothing: of those, what a turn brings for
/// every connection of a batch is no reason for another one.
const WAIT: u32 = 8;

thread_local! {
    static HERE: Here = const { Here {
        own: Cell::new(core::ptr::null_mut()),
        mine: Cell::new(core::ptr::null_mut()),
        state: Cell::new(0),
        seated: Cell::new(None),
        in_loop: Cell::new(false),
        in_app: Cell::new(false),
        in_simulation: Cell::new(false),
        waits: Cell::new(0),
    } };
}

impl Here {
    fn sit(&self, current: Current) {
        self.state.set(local_state(current.owner));
        self.seated.set(Some(current));
        self.find_mine();
    }

    fn find_mine(&self) {
        let current = if self.in_simulation.get() { None } else { self.seated.get() };
        self.mine.set(current.map_or(core::ptr::null_mut(), |c| c.sockets));
    }

    #[inline(always)]
    fn set_in_loop(&self, yes: bool) {
        self.in_loop.set(yes);
        self.waits.set(0);
        self.own.set(if yes { self.mine.get() } else { core::ptr::null_mut() });
    }

    #[inline(always)]
    fn count_wait(&self) -> u32 {
        let waits = self.waits.get();
        self.waits.set(waits.saturating_add(WAIT));
        waits
    }

    fn rise(&self) {
        self.set_in_loop(false);
        self.in_app.set(false);
        self.seated.set(None);
        self.find_mine();
    }

    fn current(&self) -> Option<Current> {
        if self.in_loop.get() { self.seated.get() } else { None }
    }
}

/// Runs `f` on this thread's own sockets and what `find` finds by the state of their
/// descriptors; `None` where it finds nothing, and where the thread has no such
/// sockets. The first step of most calls: some 5 instructions.
#[inline(always)]
pub(super) fn on_own<K, R>(
    find: impl FnOnce(u64) -> Option<K>,
    f: impl FnOnce(&mut Sockets, K) -> R,
) -> Option<R> {
    let (sockets, state) = HERE.with(|here| (here.own.get(), here.state.get()));
    if sockets.is_null() {
        return None;
    }
    let found = find(state)?;
    // SAFETY: as in `with_sockets`: `own` is null but in the program's loop.
    Some(f(unsafe { &mut *sockets }, found))
}

/// As [`on_own`], for a look at what there is: one that finds something is counted as a
/// wait. `None` also where a turn is due ([`run_due_turn`]).
#[inline(always)]
pub(super) fn look_on_own<K, R>(
    find: impl FnOnce(u64) -> Option<K>,
    f: impl FnOnce(&Sockets, K) -> Option<R>,
) -> Option<R> {
    let (sockets, state, waits) = HERE.with(|here| (here.own.get(), here.state.get(), here.waits.get()));
    if sockets.is_null() || waits >= WAITS {
        return None;
    }
    // SAFETY: as in `on_own`.
    let seen = f(unsafe { &*sockets }, find(state)?)?;
    HERE.with(|here| here.waits.set(waits + WAIT));
    Some(seen)
}

/// As [`on_own`], for a wait: `None` also where a turn is due ([`run_due_turn`]).
#[inline(always)]
pub(super) fn wait_on_own<K, R>(
    find: impl FnOnce(u64) -> Option<K>,
    f: impl FnOnce(&mut Sockets, K) -> R,
) -> Option<R> {
    let (sockets, state, waits) = HERE.with(|here| (here.own.get(), here.state.get(), here.count_wait()));
    if sockets.is_null() || waits >= WAITS {
        return None;
    }
    let found = find(state)?;
    // SAFETY: as in `on_own`.
    Some(f(unsafe { &mut *sockets }, found))
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
        here.set_in_loop(here.in_loop.get());
    });
}

/// The worker whose thread this is, if it is in a program's loop.
#[inline]
pub(super) fn current_owner() -> Option<Owner> {
    HERE.with(Here::current).map(|c| c.owner)
}

/// True within an [`App`](super::App)'s turn, where only the sockets that it was given may
/// be used.
pub(super) fn in_app() -> bool {
    HERE.with(|here| here.in_app.get())
}

/// Runs `f` on this thread's own sockets; `None` where it is no worker's.
#[inline]
pub(super) fn with_sockets<R>(owner: Owner, f: impl FnOnce(&mut Sockets) -> R) -> Option<R> {
    let current = HERE.with(Here::current).filter(|c| c.owner == owner)?;
    // SAFETY: there is a current worker only while the worker's thread is in its program's
    // loop, when no other borrow of the worker is alive; `f` cannot come back here
    // with one, as `Sockets` calls nothing of the runtime's but the port guard.
    Some(f(unsafe { &mut *current.sockets }))
}

/// Runs `f` on this worker, if its thread is this one.
pub(super) fn with_core<R>(hub: &'static Hub, worker: usize, f: impl FnOnce(&mut Core) -> R) -> Option<R> {
    let current = HERE.with(Here::current)?;
    if current.owner.runtime != hub.number || usize::from(current.owner.worker) != worker {
        return None;
    }
    // SAFETY: as in `with_sockets`.
    Some(f(unsafe { (*current.turner).core() }))
}

/// Runs `f` on this thread's own worker; `None` where it is no such owner's.
pub(super) fn with_own_core<R>(owner: Owner, f: impl FnOnce(&mut Core) -> R) -> Option<R> {
    let current = HERE.with(Here::current).filter(|c| c.owner == owner)?;
    // SAFETY: as in `with_sockets`.
    Some(f(unsafe { (*current.turner).core() }))
}

/// Runs a turn, without waiting, if this thread is a worker of the hub's.
pub(super) fn run_turn(hub: &'static Hub) -> bool {
    let Some(current) = HERE.with(Here::current).filter(|c| c.owner.runtime == hub.number) else {
        return false;
    };
    // SAFETY: as in `with_sockets`; a turn does not enter the program's loop.
    unsafe { (*current.turner).turn() };
    true
}

/// Runs a turn of this thread's worker, and waits as its mode says if there is
/// nothing to do, at most until the deadline (ns). False: no worker's thread.
pub(super) fn run_blocked_turn(deadline: Option<u64>) -> bool {
    run_blocked_turn_with(deadline, None)
}

/// As [`run_blocked_turn`]; a wait ends also when `extra` is readable.
pub(super) fn run_blocked_turn_with(deadline: Option<u64>, extra: Option<RawFd>) -> bool {
    let Some(current) = HERE.with(Here::current) else { return false };
    HERE.with(|here| here.waits.set(0));
    // SAFETY: as in `with_sockets`; a turn does not enter the program's loop.
    unsafe { (*current.turner).blocked_turn(deadline.map(Instant::from_nanos), extra) };
    true
}

/// Ends this thread's worker, in whose program's loop a call panicked: what it
/// left half done is touched by nobody any more.
#[cold]
pub(crate) fn panicked() {
    if let Some(current) = HERE.with(Here::current) {
        HERE.with(Here::rise);
        // SAFETY: as in `with_sockets`: the panic has left every borrow.
        unsafe { (*current.turner).panicked() }
    }
}

/// Seats a worker on this thread, until it [rises](rise). The pointers are valid, and
/// what they point to is borrowed by nobody while the thread is in the program's loop.
pub(super) fn sit(turner: *mut dyn Turner, sockets: *mut Sockets, owner: Owner) {
    HERE.with(|here| here.sit(Current { turner, sockets, owner }));
}

/// The thread is no worker's any more.
pub(super) fn rise() {
    HERE.with(Here::rise);
}

/// The thread enters an [`App`](super::App)'s turn, or leaves it.
pub(super) fn set_in_app(yes: bool) {
    HERE.with(|here| here.in_app.set(yes));
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
