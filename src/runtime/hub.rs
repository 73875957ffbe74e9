//! What every thread sees of a runtime: its workers' seats.
//!
//! A hub is never freed: descriptors, threads' rings and lent frames may point
//! to it after the runtime has ended, and find its seats empty.

use super::channel::Channel;
use super::config::Config;
use super::epoll::SetShared;
use super::link::Link;
use super::losses::Losses;
use super::ring::LINE;
use super::sleep::Sleeper;
use crate::frame::Arena;
use crate::errno::Errno;
use crate::socket::Handle;
use core::mem::offset_of;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU16, AtomicUsize, Ordering};
use crossbeam::queue::SegQueue;
use crossbeam::utils::CachePadded;
use std::io;
use std::sync::{Arc, OnceLock};

/// What is put at a worker's door without a ring of one's own: rare things.
pub(super) enum Knock {
    /// A thread's rings to this worker.
    Channel(Channel),
    /// A socket that was closed while its thread was ending.
    Close(Arc<Link>),
    /// An epoll set that is gone.
    CloseSet(Arc<SetShared>),
    /// The worker's own part of such a set.
    CloseOwnSet(Handle),
    /// Something changed that the worker's program may wait for.
    Look,
}

/// One worker as others see it.
pub(super) struct Seat {
    /// Wakes the worker.
    pub sleeper: Sleeper,
    /// How often somebody knocked; the worker reads it once a turn.
    pub knocks: CachePadded<AtomicUsize>,
    /// What was brought.
    pub door: SegQueue<Knock>,
    /// Written by the worker: it wants its frames back soon.
    pub hungry: CachePadded<AtomicBool>,
    /// The worker has ended and answers nothing any more (Release by the worker
    /// as its last act, Acquire by whoever waits for an answer: a call that was
    /// not answered by then never will be).
    pub down: AtomicBool,
    /// What the worker's queue and stack lost, told when it ends.
    pub losses: OnceLock<Losses>,
}

/// What others write to while the worker runs is in lines apart from what it writes to,
/// and from what both only read; and no seat has a line with its neighbour's.
const _: () = {
    let mine = [offset_of!(Seat, hungry) / LINE, offset_of!(Seat, down) / LINE];
    let others = [offset_of!(Seat, knocks) / LINE, offset_of!(Seat, door) / LINE];
    assert!(mine[0] != others[0] && mine[0] != others[1] && mine[1] != others[0] && mine[1] != others[1]);
    assert!(offset_of!(Seat, sleeper) / LINE != mine[0] && offset_of!(Seat, sleeper) / LINE != others[0]);
    assert!(align_of::<Seat>() >= LINE && size_of::<Seat>().is_multiple_of(LINE));
};

impl Seat {
    /// Leaves something at the door and wakes the worker.
    pub fn knock(&self, what: Knock) {
        self.door.push(what);
        self.knocks.fetch_add(1, Ordering::Release);
        self.sleeper.wake();
    }

    /// True once the worker has ended.
    #[inline]
    pub fn is_down(&self) -> bool {
        self.down.load(Ordering::Acquire)
    }
}

/// A runtime as every thread sees it.
pub struct Hub {
    /// Its number in this process.
    pub(super) number: u16,
    pub(super) config: Config,
    pub(super) seats: Box<[Seat]>,
    pub(super) arena: Arc<Arena>,
    /// The workers are to end.
    pub(super) stop: AtomicBool,
    /// Why the runtime failed, set once: the errno of every later call, and words.
    failed: OnceLock<(Errno, String)>,
    /// Counts threads, to spread them over the workers. Apart from what workers read in
    /// every turn.
    pub(super) threads: CachePadded<AtomicUsize>,
}

static NUMBER: AtomicU16 = AtomicU16::new(1);
/// The runtime that `posix` calls use.
static CURRENT: AtomicPtr<Hub> = AtomicPtr::new(core::ptr::null_mut());

impl Hub {
    pub(super) fn new(config: Config, workers: usize, arena: Arc<Arena>) -> io::Result<&'static Self> {
        let seat = || {
            Ok(Seat {
                sleeper: Sleeper::new()?,
                knocks: CachePadded::default(),
                door: SegQueue::new(),
                hungry: CachePadded::default(),
                down: AtomicBool::new(false),
                losses: OnceLock::new(),
            })
        };
        Ok(Box::leak(Box::new(Self {
            number: NUMBER.fetch_add(1, Ordering::Relaxed),
            seats: (0..workers).map(|_| seat()).collect::<io::Result<_>>()?,
            config,
            arena,
            stop: AtomicBool::new(false),
            failed: OnceLock::new(),
            threads: CachePadded::default(),
        })))
    }

    /// The runtime that new sockets are made on.
    #[inline]
    pub(super) fn current() -> Option<&'static Self> {
        // SAFETY: null, or a hub, which is never freed.
        unsafe { CURRENT.load(Ordering::Acquire).as_ref() }
    }

    /// Makes this the runtime of new sockets. False where another one is.
    pub(super) fn install(&'static self) -> bool {
        super::posix::watch_forks();
        let this = core::ptr::from_ref(self).cast_mut();
        CURRENT
            .compare_exchange(core::ptr::null_mut(), this, Ordering::AcqRel, Ordering::Acquire)
            .is_ok_and(|old| old.is_null())
    }

    /// No new sockets on this one.
    pub(super) fn uninstall(&'static self) {
        let this = core::ptr::from_ref(self).cast_mut();
        let _ = CURRENT.compare_exchange(
            this,
            core::ptr::null_mut(),
            Ordering::AcqRel,
            Ordering::Acquire,
        );
    }

    /// Tells the workers to end.
    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        for seat in &self.seats {
            seat.sleeper.wake();
        }
    }

    /// The runtime cannot go on: its workers end, and every call fails so.
    pub(super) fn fail(&self, errno: Errno, why: &str) {
        let _ = self.failed.set((errno, why.to_owned()));
        self.stop();
    }

    /// Why it failed, if it did.
    pub(super) fn failure(&self) -> Option<&str> {
        self.failed.get().map(|(_, why)| why.as_str())
    }

    #[inline]
    pub(super) fn stopping(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }
}

impl core::fmt::Debug for Hub {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Hub")
            .field("number", &self.number)
            .field("workers", &self.seats.len())
            .finish_non_exhaustive()
    }
}
