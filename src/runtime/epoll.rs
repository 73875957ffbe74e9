//! Epoll sets that any thread may use, over sockets of any worker and the
//! kernel's descriptors together.
//!
//! A worker reports a member by a ring of its own to the set, at most once until
//! the report was taken; a wait takes reports into the set's ready list, and
//! asks each listed member for its readiness as it is now. So a wait costs by
//! the members that are ready. Behind the set is one of the kernel's, whose
//! descriptor the set's is: it holds the kernel's descriptors, and an eventfd
//! that workers write only while somebody sleeps on the set.
//!
//! Memory ordering: a report is due if the last one was taken. The worker
//! publishes what happened, full fence, reads `taken`; the program stores
//! `taken`, full fence, reads the readiness. So either the worker sees that the
//! report was taken, and reports again, or the program sees what happened.

use super::hub::Hub;
use super::link::LinkId;
use super::ring::{Consumer, Producer, ring};
use super::sleep::Sleepers;
use super::sys::EventFd;
use super::worker::Core;
use crate::errno::Result;
use crate::socket::Handle;
use core::sync::atomic::{AtomicU32, Ordering};
use crossbeam::utils::CachePadded;
use std::collections::VecDeque;
use std::sync::Arc;

/// Reports that wait in the ring from one worker to one set; more wait at the
/// worker.
const REPORTS: usize = 1024;

/// Reported whether asked for or not: EPOLLERR and EPOLLHUP.
const ALWAYS: u32 = 0x8 | 0x10;

/// What workers know of a set.
pub(super) struct SetShared {
    pub hub: &'static Hub,
    pub sleepers: Sleepers,
    event: EventFd,
}

/// How many reports of a member, from one worker, the set has taken. Written by
/// the set alone.
#[derive(Debug, Default)]
pub(super) struct Taken(pub CachePadded<AtomicU32>);

/// A worker's end of a set.
pub(super) struct SetEnd {
    shared: Arc<SetShared>,
    ring: Producer<u64>,
    backlog: VecDeque<u64>,
    dirty: bool,
}

/// A link's membership in a set, at the worker.
pub(super) struct Subscription {
    set: usize,
    token: u64,
    events: u32,
    reported: u32,
    taken: Arc<Taken>,
}

impl SetShared {
    pub fn new(hub: &'static Hub) -> std::io::Result<Self> {
        Ok(Self { hub, sleepers: Sleepers::default(), event: EventFd::new()? })
    }

    /// The descriptor that wakes sleepers.
    pub fn fd(&self) -> std::os::fd::RawFd {
        self.event.fd()
    }

    /// Wakes one sleeper, whatever the flag says.
    pub fn signal(&self) {
        self.event.signal();
    }

    /// Wakes one sleeper, if there is one.
    pub fn wake(&self) {
        if self.sleepers.must_wake() {
            self.event.signal();
        }
    }
}

impl SetEnd {
    fn put(&mut self, token: u64) {
        self.dirty = true;
        if !self.backlog.is_empty() {
            self.backlog.push_back(token);
        } else if let Err(token) = self.ring.push(token) {
            self.backlog.push_back(token);
        }
    }

    /// Wakes the set for what was reported: whether reports still wait here.
    pub fn flush(&mut self) -> bool {
        if !self.dirty {
            return false;
        }
        while let Some(token) = self.backlog.pop_front() {
            if let Err(token) = self.ring.push(token) {
                self.backlog.push_front(token);
                break;
            }
        }
        self.shared.wake();
        self.dirty = !self.backlog.is_empty();
        self.dirty
    }

    /// Wakes the set whatever there is.
    pub fn signal(&self) {
        self.shared.signal();
    }
}

impl Subscription {
    /// The set's place at the worker.
    pub fn set(&self) -> usize {
        self.set
    }

    /// What the member asks for.
    #[cfg(test)]
    pub fn asks(&self) -> u32 {
        self.events
    }

    /// Reports the member if it asked for one of these events and the last
    /// report was taken. After the fence that follows the publishing.
    pub fn report(&mut self, edges: u32, sets: &mut [Option<SetEnd>]) {
        if edges & (self.events | ALWAYS) == 0 {
            return;
        }
        if self.taken.0.load(Ordering::Relaxed) != self.reported {
            return;
        }
        if let Some(Some(set)) = sets.get_mut(self.set) {
            self.reported = self.reported.wrapping_add(1);
            set.put(self.token);
        }
    }
}

impl Core {
    /// Enters a link into a set: this worker's end of the set's ring where it is
    /// new here.
    pub(super) fn subscribe(
        &mut self,
        id: LinkId,
        shared: &Arc<SetShared>,
        token: u64,
        events: u32,
        taken: Arc<Taken>,
    ) -> Option<Consumer<u64>> {
        let sets = &mut self.desk.sets;
        let is_this = |s: &Option<SetEnd>| s.as_ref().is_some_and(|s| Arc::ptr_eq(&s.shared, shared));
        let (set, consumer) = match sets.iter().position(is_this) {
            Some(set) => (set, None),
            None => {
                let (producer, consumer) = ring(REPORTS);
                let end = SetEnd { shared: shared.clone(), ring: producer, backlog: VecDeque::new(), dirty: false };
                let place = sets.iter().position(Option::is_none).unwrap_or_else(|| {
                    sets.push(None);
                    sets.len() - 1
                });
                sets[place] = Some(end);
                (place, Some(consumer))
            }
        };
        if let Some(link) = self.desk.link(id) {
            link.subscriptions.push(Subscription { set, token, events, reported: 0, taken });
            self.pump(id, 0);
        }
        consumer
    }

    /// Changes what a membership asks for.
    pub(super) fn resubscribe(&mut self, id: LinkId, token: u64, events: u32) {
        if let Some(link) = self.desk.link(id) {
            for subscription in link.subscriptions.iter_mut().filter(|s| s.token == token) {
                subscription.events = events;
            }
        }
    }

    /// Ends a membership.
    pub(super) fn unsubscribe(&mut self, id: LinkId, shared: &Arc<SetShared>, token: u64) {
        let sets = &self.desk.sets;
        let is_this = |s: &Option<SetEnd>| s.as_ref().is_some_and(|s| Arc::ptr_eq(&s.shared, shared));
        let Some(set) = sets.iter().position(is_this) else { return };
        if let Some(link) = self.desk.link(id) {
            link.subscriptions.retain(|s| s.set != set || s.token != token);
        }
    }

    /// Closes a set of this worker's own sockets.
    pub(super) fn close_own_set(&mut self, h: Handle) -> Result<()> {
        self.desk.own_sets.remove(&h.to_raw());
        self.sockets.close(h)
    }

    /// A set is gone: its memberships were ended before.
    pub(super) fn close_set(&mut self, shared: &Arc<SetShared>) {
        for place in 0..self.desk.sets.len() {
            let gone = matches!(&self.desk.sets[place], Some(s) if Arc::ptr_eq(&s.shared, shared));
            if gone {
                self.desk.drop_subscriptions(place);
                self.desk.sets[place] = None;
            }
        }
    }
}
