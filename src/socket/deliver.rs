//! What happened at sockets, on its way to epoll sets and watchers.

use super::Sockets;
use super::linux::with_norms;
use super::table::{Flags, Socket, View};
use crate::arch;
use crate::tcp::Readiness;

/// Events between the one that is told and the one whose socket is asked for.
const SOON: usize = 4;

impl Sockets {
    /// Hands the stack's events to epoll sets and watchers: whether there were any.
    #[inline]
    pub(super) fn deliver(&mut self) -> bool {
        let any = !self.stack.core.events.is_empty();
        if any {
            self.deliver_events();
        }
        any
    }

    fn deliver_events(&mut self) {
        let events = self.stack.core.events.len();
        // Telling of an event makes no other.
        for i in 0..events {
            if events > SOON {
                self.look_ahead(i);
            }
            let event = self.stack.core.events[i];
            self.notify(event.token, event.ready);
        }
        self.stack.core.events.clear();
    }

    /// Where many have something to tell, their places and pairs are far apart in
    /// memory: those of events to come are asked for. A place says where the pair is.
    #[inline(always)]
    fn look_ahead(&self, i: usize) {
        let events = &self.stack.core.events;
        if let Some(event) = events.get(i + 2 * SOON) {
            arch::prefetch_front(self.table.at(event.token), size_of::<Socket>());
        }
        if let Some(event) = events.get(i + SOON) {
            self.sets.prefetch(self.table.at(event.token).members);
        }
    }

    /// Something happened at the socket of this place.
    #[inline]
    pub(super) fn notify(&mut self, index: u32, edges: Readiness) {
        let socket = self.table.at_mut(index);
        let head = socket.members;
        if socket.flags & (Flags::WATCHED | Flags::REPORTED) == Flags::WATCHED {
            socket.flags.insert(Flags::REPORTED);
            self.watched.push(index);
        }
        if !self.sets.knows(head) {
            self.notify_sets(head, edges);
        }
    }

    #[inline(never)]
    fn notify_sets(&mut self, head: u32, edges: Readiness) {
        let view = View { table: &self.table, stack: &self.stack, places: &self.places };
        self.sets.notify(head, with_norms(edges.bits()), &view);
    }
}
