//! The simulation: a stack and its sockets without thread, device or clock.
//!
//! A C program makes one with `rr_sim_new`, moves frames and time by hand, and
//! calls the same `rr_` functions as ever on the thread that entered it. They
//! never block. The same seed and the same calls give the same frames.

mod abi;
mod calls;
mod config;
mod descriptors;
mod zero_copy;

pub use abi::*;
pub use config::rr_sim_config;

use super::lent::Lent;
use crate::errno::{Errno, Result};
use crate::frame::{Batch, Packet, Pool, TxDesc};
use crate::socket::{EpollEvent, Handle, Sockets};
use crate::stack::Stack;
use crate::time::Instant;
use config::Settings;
use core::cell::{Cell, UnsafeCell};
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use descriptors::Descriptors;
use std::collections::VecDeque;

/// One simulated stack.
pub(super) struct Sim {
    sockets: Sockets,
    descriptors: Descriptors,
    lent: Lent<Handle>,
    /// Frames that were injected and wait for the next poll.
    injected: Batch,
    /// How many packets left when, oldest first. A packet may be several
    /// descriptors of the transmit queue.
    sent: VecDeque<(usize, Instant)>,
    /// Descriptors that `sent` counts.
    counted: usize,
    now: Instant,
    scratch: Vec<u8>,
    events: Vec<EpollEvent>,
}

impl Sim {
    fn new(settings: Settings, seed: u64) -> Self {
        let pool = Pool::heap(settings.frames, settings.frame_size);
        Self {
            sockets: Sockets::new(Stack::new(settings.stack, pool, seed)),
            descriptors: Descriptors::new(settings.max_descriptors),
            lent: Lent::new(settings.frames as usize),
            injected: Batch::new(),
            sent: VecDeque::new(),
            counted: 0,
            now: Instant::ZERO,
            scratch: Vec::new(),
            events: Vec::new(),
        }
    }

    /// Takes a frame from the wire; it is worked on at the next poll, in one
    /// batch with the others.
    ///
    /// # Errors
    /// EINVAL for an empty one, EMSGSIZE for one that no frame holds, ENOBUFS
    /// where no frame is free.
    fn inject(&mut self, bytes: &[u8]) -> Result<()> {
        if bytes.is_empty() {
            return Err(Errno::EINVAL);
        }
        let (pool, _) = self.sockets.tx();
        if bytes.len() > pool.arena().capacity() {
            return Err(Errno::EMSGSIZE);
        }
        let mut frame = pool.alloc().ok_or(Errno::ENOBUFS)?;
        frame.set_range(0, bytes.len());
        pool.bytes_mut(&mut frame).copy_from_slice(bytes);
        self.injected.push(Packet::single(frame));
        if self.injected.is_full() {
            self.receive();
        }
        Ok(())
    }

    fn receive(&mut self) {
        if !self.injected.is_empty() {
            self.sockets.receive(self.now, &mut self.injected);
            debug_assert!(self.injected.is_empty(), "a batch is consumed");
            self.note_sent();
        }
    }

    /// Works on what was injected, and on the timers that are due.
    fn poll(&mut self) {
        self.receive();
        self.sockets.turn(self.now);
        self.note_sent();
        if cfg!(debug_assertions) {
            self.sockets.stack.assert_conserved();
        }
    }

    /// Remembers when the packets that now wait were sent.
    fn note_sent(&mut self) {
        let (_, tx) = self.sockets.tx();
        let new = tx.len() - self.counted;
        if new > 0 {
            self.counted += new;
            match self.sent.back_mut() {
                Some((count, at)) if *at == self.now => *count += new,
                _ => self.sent.push_back((new, self.now)),
            }
        }
    }

    /// Takes the oldest packet that waits: its length, and when it was sent.
    ///
    /// # Errors
    /// EMSGSIZE where `out` is too short; the packet stays.
    fn collect(&mut self, out: &mut [u8]) -> Result<Option<(usize, Instant)>> {
        self.note_sent();
        let (pool, tx) = self.sockets.tx();
        let last = tx.iter().position(|d| !d.more);
        let Some(last) = last else { return Ok(None) };
        let len = tx.iter().take(last + 1).map(TxDesc::len).sum::<usize>();
        if len > out.len() {
            return Err(Errno::EMSGSIZE);
        }
        let mut filled = 0;
        for _ in 0..=last {
            let Some(desc) = tx.pop() else { break };
            let bytes = pool.tx_bytes(&desc);
            out[filled..filled + bytes.len()].copy_from_slice(bytes);
            filled += bytes.len();
            pool.complete(desc.index());
        }
        self.counted -= last + 1;
        let mut at = self.now;
        for _ in 0..=last {
            if let Some((count, sent)) = self.sent.front_mut() {
                at = *sent;
                *count -= 1;
                if *count == 0 {
                    self.sent.pop_front();
                }
            }
        }
        Ok(Some((filled, at)))
    }

    fn set_clock(&mut self, now: Instant) {
        self.now = self.now.max(now);
        self.sockets.stack.core.now = self.now;
    }

    /// What new connections begin with.
    fn configure(&mut self, settings: Settings) {
        self.sockets.stack.reconfigure(settings.stack);
    }

    fn next_deadline(&mut self) -> Option<Instant> {
        if self.injected.is_empty() { self.sockets.next_deadline() } else { Some(self.now) }
    }
}

/// A simulated stack, as C holds it.
#[allow(non_camel_case_types, missing_debug_implementations)]
pub struct rr_sim {
    /// The thread that entered it; 0: none.
    owner: AtomicU64,
    /// A call is inside.
    busy: AtomicBool,
    /// A call panicked; what it left behind is not looked at again.
    broken: AtomicBool,
    sim: UnsafeCell<Sim>,
}

// SAFETY: what is inside is reached through `with` alone, by one call at a time.
unsafe impl Sync for rr_sim {}
// SAFETY: a `Sim` is plain data, tied to no thread.
unsafe impl Send for rr_sim {}

/// Marks the end of a call, even if it panics.
struct Inside<'a>(&'a rr_sim);

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.broken.store(true, Ordering::Relaxed);
        }
        self.0.busy.store(false, Ordering::Release);
    }
}

impl rr_sim {
    fn new(sim: Sim) -> Self {
        Self {
            owner: AtomicU64::new(0),
            busy: AtomicBool::new(false),
            broken: AtomicBool::new(false),
            sim: UnsafeCell::new(sim),
        }
    }

    /// Runs a call inside.
    ///
    /// # Errors
    /// EBUSY where another call is inside (another thread's, or one that a
    /// signal handler interrupted), ENETDOWN after a panic, and the call's own.
    #[inline]
    fn with<R>(&self, call: impl FnOnce(&mut Sim) -> Result<R>) -> Result<R> {
        if self.busy.swap(true, Ordering::Acquire) {
            return Err(Errno::EBUSY);
        }
        let _inside = Inside(self);
        if self.broken.load(Ordering::Relaxed) {
            return Err(Errno::ENETDOWN);
        }
        // SAFETY: `busy` was false and is ours until `_inside` is dropped, so
        // this is the only reference.
        call(unsafe { &mut *self.sim.get() })
    }
}

/// A number for this thread, never 0 and never used again.
fn thread() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    thread_local! {
        static MINE: Cell<u64> = const { Cell::new(0) };
    }
    MINE.with(|mine| {
        if mine.get() == 0 {
            mine.set(NEXT.fetch_add(1, Ordering::Relaxed));
        }
        mine.get()
    })
}

/// Leaves the simulation that a thread is in when the thread ends.
struct Leaver;

impl Drop for Leaver {
    fn drop(&mut self) {
        leave();
    }
}

thread_local! {
    static CURRENT: Cell<*const rr_sim> = const { Cell::new(core::ptr::null()) };
    static LEAVER: Leaver = const { Leaver };
}

/// The simulation that this thread is in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entered(*const rr_sim);

/// The simulation that this thread is in, if it is in one.
#[inline]
pub(super) fn current() -> Option<Entered> {
    let sim = CURRENT.get();
    (!sim.is_null()).then_some(Entered(sim))
}

impl Entered {
    /// Runs a call in it.
    ///
    /// # Errors
    /// As [`rr_sim::with`].
    #[inline]
    pub(super) fn with<R>(self, call: impl FnOnce(&mut Sim) -> Result<R>) -> Result<R> {
        // SAFETY: this thread is the owner, and rr_sim_free frees nothing that a
        // thread owns without leaving it first.
        unsafe { &*self.0 }.with(call)
    }
}

/// Makes this thread the one inside `sim`.
///
/// # Errors
/// EBUSY where another thread is.
fn enter(sim: &rr_sim) -> Result<()> {
    let me = thread();
    match sim.owner.compare_exchange(0, me, Ordering::Acquire, Ordering::Relaxed) {
        Err(owner) if owner != me => return Err(Errno::EBUSY),
        Err(_) => return Ok(()),
        Ok(_) => {}
    }
    leave();
    LEAVER.with(|_| CURRENT.set(sim));
    crate::runtime::set_in_simulation(true);
    Ok(())
}

/// Leaves the simulation that this thread is in, if any.
fn leave() {
    let sim = CURRENT.replace(core::ptr::null());
    if !sim.is_null() {
        crate::runtime::set_in_simulation(false);
        // SAFETY: as in `Entered::with`.
        unsafe { &*sim }.owner.store(0, Ordering::Release);
    }
}
