//! Frames on their way to the threads that fill them, and back.

use super::HUNGRY_PART;
use crate::frame::Frame;
use crate::runtime::channel::Reply;
use crate::runtime::ring::Consumer;
use crate::runtime::worker::Core;
use core::sync::atomic::Ordering;

impl Core {
    /// A program's frame that was never sent comes back.
    pub(in crate::runtime) fn take_home(&mut self, frame: Frame) {
        self.sockets.stack.core.lent -= 1;
        self.sockets.stack.core.pool.free(frame);
    }

    /// Frames for a thread to fill: no more than leaves the stack enough.
    pub(super) fn hand_out(&mut self, channel: usize, n: usize) {
        let pool = &self.sockets.stack.core.pool;
        let spare = pool.available().saturating_sub(pool.capacity() / HUNGRY_PART);
        for _ in 0..n.min(spare as usize) {
            let Some(frame) = self.sockets.stack.core.pool.alloc() else { break };
            self.sockets.stack.core.lent += 1;
            self.reply(channel, Reply::Stock(frame));
        }
        self.reply(channel, Reply::StockEnd);
        self.wake(channel);
    }

    /// A thread has ended: takes back what it was given and has not seen.
    pub(super) fn leave(&mut self, channel: usize, mut replies: Consumer<Reply>) {
        let late = self.desk.channels[channel].take().map(|c| c.late).unwrap_or_default();
        for reply in core::iter::from_fn(|| replies.pop()).chain(late) {
            if let Reply::Stock(frame) = reply {
                self.take_home(frame);
            }
        }
        for link in self.desk.links.iter_mut().flatten() {
            link.waiters.retain(|w| w.channel != channel);
        }
    }

    /// Says in the seat whether frames are short. Before a sleep, with a fence
    /// after it.
    pub(in crate::runtime) fn publish_hunger(&mut self) {
        let pool = &self.sockets.stack.core.pool;
        let hungry = pool.available() < pool.capacity() / HUNGRY_PART;
        let told = &self.seat.hungry;
        if told.load(Ordering::Relaxed) != hungry {
            told.store(hungry, Ordering::Relaxed);
        }
    }
}
