//! How shared sockets end, at their worker: after what was written, with a reset
//! where something was not read, or with the worker itself.

use super::Ending;
use crate::runtime::channel::Reply;
use crate::runtime::link::{End, Link, LinkId, Rx};
use crate::runtime::worker::Core;
use core::panic::AssertUnwindSafe;
use core::sync::atomic::{Ordering, fence};
use std::panic::catch_unwind;
use std::sync::Arc;

impl Core {
    /// Shuts a stream down for writing, after what was written.
    pub(in crate::runtime) fn shutdown_link(&mut self, id: LinkId, how: i32) -> crate::errno::Result<()> {
        self.pump(id, 0);
        let Some(link) = self.desk.link(id) else { return Err(crate::errno::Errno::EBADF) };
        let h = link.link.handle;
        if link.all_taken() || how == libc::SHUT_RD {
            self.sockets.shutdown(h, how)?;
        } else {
            if how == libc::SHUT_RDWR {
                self.sockets.shutdown(h, libc::SHUT_RD)?;
            }
            link.ending = Some(Ending::Shutdown);
        }
        self.pump(id, 0);
        Ok(())
    }

    /// The last descriptor of a stream is gone: for how many seconds its `close` waits
    /// until the peer has everything (SO_LINGER). What was not read makes it a reset,
    /// which waits for nothing.
    pub(in crate::runtime) fn begin_linger(&mut self, id: LinkId) -> Option<u64> {
        let h = self.desk.link(id)?.link.handle;
        let seconds = self.sockets.blocking_options(h).ok()?.2.filter(|s| *s > 0)?;
        self.pump(id, 0);
        let unread = self.desk.link(id)?.link.unread();
        if unread > 0 || self.sockets.bytes_readable(h) != Ok(0) {
            return None;
        }
        self.shutdown_link(id, libc::SHUT_WR).ok()?;
        u64::try_from(seconds).ok()
    }

    /// Everything that was written, and the FIN behind it, has arrived; or the
    /// connection is over.
    pub(in crate::runtime) fn is_link_delivered(&mut self, id: LinkId) -> bool {
        self.pump(id, 0);
        let Some(link) = self.desk.link(id) else { return true };
        let h = link.link.handle;
        link.ending.is_none() && link.all_taken() && self.sockets.is_delivered(h)
    }

    /// Nobody has the socket any more: closes it, after what was written.
    pub(in crate::runtime) fn close_link(&mut self, link: &Arc<Link>) {
        let id = link.id;
        let Some(end) = self.desk.link(id) else { return };
        end.subscriptions.clear();
        let (h, listens) = (end.link.handle, matches!(end.end, End::Listener { .. }));
        // Those who wait without using the socket, in `poll`.
        self.nudge(id);
        let unread = self.take_back(id);
        if listens {
            // Not pumped: it would accept more, which nobody would ever take.
            self.finish_close(id);
            return;
        }
        if unread {
            // What the program did not read counts as unread: the peer is told
            // by a reset (RFC 2525, 2.17).
            let linger = [1i32.to_ne_bytes(), 0i32.to_ne_bytes()].concat();
            let _ = self.sockets.set_option(h, libc::SOL_SOCKET, libc::SO_LINGER, &linger);
            self.finish_close(id);
            return;
        }
        if let Some(end) = self.desk.link(id) {
            end.ending = Some(Ending::Close);
        }
        self.pump(id, 0);
    }

    /// Takes back what the program has not read: whether there was any data.
    pub(in crate::runtime) fn take_back(&mut self, id: LinkId) -> bool {
        let Some(link) = self.desk.link(id).map(|l| l.link.clone()) else { return false };
        let mut receiving = link.receiving.hold();
        let mut unread = false;
        let mut waiting = Vec::new();
        match &mut receiving.rx {
            Rx::Stream { ring, queue } => {
                waiting.extend(queue.drain(..));
                waiting.extend(core::iter::from_fn(|| ring.pop()));
                unread = !waiting.is_empty();
            }
            Rx::Datagram { ring, queue } => {
                let frames = queue.drain(..).filter_map(|d| d.frame);
                waiting.extend(frames);
                waiting.extend(core::iter::from_fn(|| ring.pop()).filter_map(|d| d.frame));
            }
            Rx::Listener { ring, .. } => {
                let accepted: Vec<_> = core::iter::from_fn(|| ring.pop()).collect();
                for (made, _) in accepted {
                    self.abort_link(&made);
                }
            }
        }
        for frame in waiting {
            receiving.returns.give(frame);
        }
        unread
    }

    /// A connection that was accepted ahead, and that nobody asked for.
    pub(in crate::runtime) fn abort_link(&mut self, link: &Arc<Link>) {
        let linger = [1i32.to_ne_bytes(), 0i32.to_ne_bytes()].concat();
        let _ = self.sockets.set_option(link.handle, libc::SOL_SOCKET, libc::SO_LINGER, &linger);
        self.take_back(link.id);
        self.finish_close(link.id);
    }

    pub(in crate::runtime) fn finish_close(&mut self, id: LinkId) {
        let Some(place) = self.desk.place(id) else { return };
        let Some(mut link) = self.desk.links[place].take() else { return };
        let h = link.link.handle;
        // Frames that are still in the rings go home first.
        match &mut link.end {
            End::Stream { returns, tx, .. } => {
                while let Some(frame) = returns.pop() {
                    let _ = self.sockets.zc_release(h, frame);
                }
                while let Some(frame) = tx.pop() {
                    self.take_home(frame);
                }
            }
            End::Datagram { returns, tx, .. } => {
                while let Some(frame) = returns.pop() {
                    self.take_home(frame);
                }
                while let Some(out) = tx.pop() {
                    out.frame.into_iter().for_each(|frame| self.take_home(frame));
                }
            }
            End::Listener { .. } => {}
        }
        self.sockets.unwatch(h);
        let _ = self.sockets.close(h);
        self.desk.generations[place] = self.desk.generations[place].wrapping_add(1);
        self.desk.free.push(place as u32);
    }

    /// The worker ends: everyone who waits is woken, and finds the seat down.
    pub(in crate::runtime) fn release_everyone(&mut self) {
        self.hub.seats[self.worker].down.store(true, Ordering::Release);
        // Who knocked and then found the seat up is found at the door: between
        // the two stands a full barrier on either side.
        fence(Ordering::SeqCst);
        // After a panic the links may be in any state; the sleepers come first.
        let _ = catch_unwind(AssertUnwindSafe(|| self.answer_door()));
        for channel in self.desk.channels.iter().flatten() {
            channel.sleeper.wake();
        }
        for set in self.desk.sets.iter_mut().flatten() {
            set.signal();
        }
    }

    /// Someone closed the socket under the calls of others: wakes them.
    pub(in crate::runtime) fn nudge(&mut self, id: LinkId) {
        let Some(link) = self.desk.link(id) else { return };
        link.nudged = true;
        for waiter in core::mem::take(&mut link.waiters) {
            self.reply(waiter.channel, Reply::Woken(waiter.ticket));
            self.wake(waiter.channel);
        }
    }
}
