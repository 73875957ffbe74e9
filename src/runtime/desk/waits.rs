//! Threads that wait for a shared socket.

use crate::runtime::channel::Reply;
use crate::runtime::link::{LinkId, SOME, SPECIAL};
use crate::runtime::worker::Core;
use crate::tcp::Readiness;

/// A thread that waits for a link.
pub(in crate::runtime) struct Waiter {
    pub channel: usize,
    pub interest: u32,
    pub ticket: u64,
}

impl Waiter {
    fn is_for_data(&self) -> bool {
        self.interest & (SOME | Readiness::IN.bits()) != 0
    }

    /// What is ready ends the wait. That the peer sends no more ends those for data:
    /// a write that waits for room would find as little as before.
    pub fn is_met_by(&self, ready: u32) -> bool {
        let over = if self.is_for_data() { SPECIAL } else { SPECIAL & !Readiness::RDHUP.bits() };
        ready & (self.interest | over) != 0
    }
}

impl Core {
    /// The stream was shut for writing: those who wait for room hear of it, whose room
    /// does not come any more.
    pub(in crate::runtime) fn wake_writers(&mut self, id: LinkId) {
        let Some(link) = self.desk.link(id) else { return };
        let waiters = core::mem::take(&mut link.waiters).into_iter();
        let (readers, writers) = waiters.partition(Waiter::is_for_data);
        link.waiters = readers;
        for writer in writers {
            self.reply(writer.channel, Reply::Woken(writer.ticket));
            self.wake(writer.channel);
        }
    }

    /// A thread waits for one of these from now on.
    pub(super) fn wait_for(&mut self, channel: usize, id: LinkId, interest: u32, ticket: u64) {
        self.pump(id, 0);
        let ready = match self.desk.link(id) {
            None => u32::MAX,
            Some(link) if link.nudged => u32::MAX,
            Some(link) => link.level(),
        };
        let waiter = Waiter { channel, interest, ticket };
        if waiter.is_met_by(ready) {
            self.reply(channel, Reply::Woken(ticket));
            self.wake(channel);
        } else if let Some(link) = self.desk.link(id) {
            link.waiters.push(waiter);
        }
    }
}
