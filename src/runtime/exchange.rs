//! Rings between workers: frames for flows of another worker's, and frames that
//! go home.
//!
//! Who owns a flow is found without a lock: each worker publishes what it owns,
//! as fingerprints of flows and bits of ports, in a directory that it alone
//! writes. Another worker looks there only when a packet fits nothing of its
//! own, which is a flow that changed queues, or a port that one worker alone
//! holds. A packet is handed over once: whom it was handed to treats it as its
//! own, so a wrong guess ends in a reset and never in a circle.

use super::inbox::{Inbox, Outbox, inbox};
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
pub(super) struct Exchange {
    /// By worker; `None` for oneself. Padded as an inbox's ends are.
    to: Vec<Option<CachePadded<Outbox<Parcel>>>>,
    from: Inbox<Parcel>,
    /// By worker: frames that found no room.
    late: Vec<VecDeque<Frame>>,
    /// Frames are still to be carried.
    pub again: bool,
}

impl Exchange {
    /// The ends of every worker, for so many workers.
    pub fn new(workers: usize) -> Vec<Self> {
        let (all, to): (Vec<_>, Vec<_>) = (0..workers).map(|worker| inbox(worker, workers, STRAYS)).unzip();
        let mut all: Vec<Self> = all
            .into_iter()
            .map(|from| Self {
                to: Vec::with_capacity(workers),
                from,
                late: (0..workers).map(|_| VecDeque::new()).collect(),
                again: false,
            })
            .collect();
        for ends in to {
            for (worker, end) in all.iter_mut().zip(ends) {
                worker.to.push(end.map(CachePadded::new));
            }
        }
        all
    }

    /// True where another worker put something in a ring: a load and a comparison, however
    /// many the others are. What it may miss, and why no worker sleeps over it: inbox.rs.
    #[inline(always)]
    pub fn has_work(&self) -> bool {
        self.from.has_work()
    }
}

impl Core {
    /// Takes in what other workers handed over: whether there was anything. Where
    /// nobody did, as almost always, that is a load and a comparison.
    #[inline]
    pub(super) fn exchange_turn(&mut self, batch: &mut Batch) -> bool {
        if self.sockets.stack.core.strays.is_empty() && !self.exchange.has_work() {
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
        debug_assert!(batch.is_empty(), "what came in was taken");
        any |= self.exchange.from.take(|parcel| {
            match parcel {
                Parcel::Stray(packet) => batch.push(packet),
                Parcel::Home(frame) => self.sockets.stack.core.pool.free(frame),
            }
            !batch.is_full()
        });
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
            ring.push_batch(&mut frames);
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
