//! Rings between workers: frames for flows of another worker's, and frames that
//! go home.
//!
//! Who owns a flow is found without a lock: each worker publishes what it owns,
//! as fingerprints of flows and bits of ports, in a directory that it alone
//! writes. Another worker looks there only when a packet fits nothing of its
//! own, which is a flow that changed queues, or a port that one worker alone
//! holds. A packet is handed over once: whom it was handed to treats it as its
//! own, so a wrong guess ends in a reset and never in a circle.

use super::ring::{Consumer, Producer, ring};
use super::worker::Core;
use crate::frame::{Batch, Frame, Packet};
use crate::telemetry::DropReason;
use crossbeam::utils::CachePadded;
use std::collections::VecDeque;

/// Packets that wait between two workers, at most; more are dropped.
pub(super) const STRAYS: usize = 1024;

pub(super) enum Parcel {
    /// A packet of a flow of yours.
    Stray(Packet),
    /// A frame of your pool.
    Home(Frame),
}

/// One worker's ends of the rings to all others.
#[derive(Default)]
pub(super) struct Exchange {
    /// By worker; `None` for oneself. All workers' are made by one thread: without the
    /// padding the end of one's would lie in a line with the beginning of another's.
    to: Vec<Option<CachePadded<Producer<Parcel>>>>,
    from: Vec<Option<CachePadded<Consumer<Parcel>>>>,
    /// By worker: frames that found no room.
    late: Vec<VecDeque<Frame>>,
    /// Frames are still to be carried.
    pub again: bool,
    /// Whose ring is looked at first: a batch that is full of one's leaves the others'
    /// for later.
    first: usize,
}

impl Exchange {
    /// The ends of every worker, for so many workers.
    pub fn new(workers: usize) -> Vec<Self> {
        let mut all: Vec<Self> = (0..workers)
            .map(|_| Self {
                to: (0..workers).map(|_| None).collect(),
                from: (0..workers).map(|_| None).collect(),
                late: (0..workers).map(|_| VecDeque::new()).collect(),
                again: false,
                first: 0,
            })
            .collect();
        for a in 0..workers {
            for b in (0..workers).filter(|b| *b != a) {
                let (to, from) = ring(STRAYS);
                all[a].to[b] = Some(CachePadded::new(to));
                all[b].from[a] = Some(CachePadded::new(from));
            }
        }
        all
    }

    /// True where another worker put something in a ring: a load and two comparisons for
    /// each of them, of a line that nobody writes to meanwhile.
    ///
    /// Memory ordering: the load is an Acquire, so that what is seen in a ring is whole.
    /// It may miss what is just being put there, and no fence would change that; the next
    /// turn sees it. Only a worker that goes to sleep has no next turn: it asks once more
    /// between its announcement with a full fence and the sleep (`Worker::sleep`), and who
    /// put something there looks for the announcement after a full fence
    /// (`Sleeper::wake`). One of the two sees the other (see sleep.rs).
    #[inline]
    pub fn has_work(&mut self) -> bool {
        self.from.iter_mut().flatten().any(|ring| !ring.is_empty())
    }
}

impl Core {
    /// Takes in what other workers handed over: whether there was anything. Where
    /// nobody did, as almost always, that is 25 instructions with one other worker.
    #[inline]
    pub(super) fn exchange_turn(&mut self, batch: &mut Batch) -> bool {
        let alone = self.exchange.from.len() <= 1;
        if alone || self.sockets.stack.core.strays.is_empty() && !self.exchange.has_work() {
            return false;
        }
        self.take_parcels(batch)
    }

    fn take_parcels(&mut self, batch: &mut Batch) -> bool {
        let mut any = !self.sockets.stack.core.strays.is_empty();
        let mut strays = core::mem::take(&mut self.sockets.stack.core.strays);
        for (worker, packet) in strays.drain(..) {
            self.hand_over(worker, packet);
        }
        self.sockets.stack.core.strays = strays;
        let Exchange { from, first, .. } = &mut self.exchange;
        *first = (*first + 1) % from.len();
        let (later, sooner) = from.split_at_mut(*first);
        for ring in sooner.iter_mut().chain(later).flatten() {
            while !batch.is_full() {
                match ring.take() {
                    Some(Parcel::Stray(packet)) => batch.push(packet),
                    Some(Parcel::Home(frame)) => self.sockets.stack.core.pool.free(frame),
                    None => break,
                }
                any = true;
            }
            ring.release();
        }
        if !batch.is_empty() {
            // Whatever it is, it is handed over only once.
            self.sockets.stack.core.handed_over = true;
            self.sockets.receive(self.now, batch);
            self.sockets.stack.core.handed_over = false;
        }
        any
    }

    /// Sends frames of other pools that ended here back to them.
    #[inline]
    pub(super) fn carry_home(&mut self) {
        if self.exchange.again || self.sockets.stack.core.pool.has_foreign() {
            self.carry();
        }
    }

    fn carry(&mut self) {
        let exchange = &mut self.exchange;
        let pool = &mut self.sockets.stack.core.pool;
        let share = pool.capacity();
        for frame in pool.take_foreign() {
            // The arena is cut into equal shares, in the order of the workers.
            exchange.late[(frame.index() / share) as usize].push_back(frame);
        }
        exchange.again = false;
        for (worker, late) in exchange.late.iter_mut().enumerate() {
            if late.is_empty() {
                continue;
            }
            let Some(ring) = &mut exchange.to[worker] else { continue };
            let mut frames = core::iter::from_fn(|| late.pop_front().map(Parcel::Home));
            let room = ring.room();
            ring.push_batch(&mut frames.by_ref().take(room));
            exchange.again |= !late.is_empty();
            self.hub.seats[worker].sleeper.wake();
        }
    }

    /// Hands a packet to the worker that owns its flow. A full ring drops it.
    pub(super) fn hand_over(&mut self, worker: usize, packet: Packet) {
        let Some(Some(ring)) = self.exchange.to.get_mut(worker) else {
            return packet.free(&mut self.sockets.stack.core.pool);
        };
        match ring.push(Parcel::Stray(packet)) {
            Ok(()) => self.hub.seats[worker].sleeper.wake(),
            Err(Parcel::Stray(packet)) => {
                let core = &mut self.sockets.stack.core;
                core.counters.drop(DropReason::HandOverFull);
                packet.free(&mut core.pool);
            }
            Err(Parcel::Home(_)) => {}
        }
    }
}
