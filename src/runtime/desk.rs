//! The worker's end of everything that other threads share with it: their
//! command rings, and the sockets they use.

mod closing;
mod frames;
mod slow;
mod waits;

use super::channel::{Channel, Command, Reply};
use super::datagrams::send_late;
use super::epoll::{SetEnd, Subscription};
use super::hub::{Hub, Knock};
use super::link::{ACCEPTED, End, FULL, Kind, LENT, Link, LinkId, MARK, OPEN, PRESSED, PRI, SOME, SPECIAL, WANTED};
use super::ring::{Consumer, ring};
use super::worker::Core;
use crate::errno::Errno;
use crate::socket::{Figure, Handle, Sockets};
use crate::tcp::Readiness;
use core::net::SocketAddr;
use core::sync::atomic::{Ordering, fence};
use std::collections::HashMap;
use std::os::fd::RawFd;
use std::sync::Arc;
use waits::Waiter;

/// Commands of one thread that a turn carries out, at most.
const COMMAND_BUDGET: usize = 128;
/// Below this part of the pool the worker wants frames back at once.
const HUNGRY_PART: u32 = 4;

/// A link as the worker keeps it.
pub(super) struct LinkEnd {
    pub link: Arc<Link>,
    pub end: End,
    pub waiters: Vec<Waiter>,
    pub subscriptions: Vec<Subscription>,
    /// `Link::short` as it was when room was last reported.
    served: u32,
    /// A write that goes past the ring found no room in the socket.
    pub refused: bool,
    /// Close or shut down for writing once everything written was taken.
    pub ending: Option<Ending>,
    /// Its last descriptor was closed: no call waits on it any more.
    pub nudged: bool,
    /// It is among those that wait for frames.
    starved: bool,
}

/// What is done once everything written was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    Shutdown,
    Close,
}

/// All of them.
#[derive(Default)]
pub(super) struct Desk {
    knocks: usize,
    pub channels: Vec<Option<Channel>>,
    pub links: Vec<Option<LinkEnd>>,
    pub generations: Vec<u32>,
    pub free: Vec<u32>,
    pub sets: Vec<Option<SetEnd>>,
    /// The descriptors of the sets that this worker's own sockets may be in, by handle.
    pub own_sets: HashMap<u64, RawFd>,
    watched: Vec<(u64, Handle, Readiness)>,
    /// Links whose program waits for frames to write to.
    starved: Vec<LinkId>,
    /// Work was put off to the next turn.
    pub again: bool,
}

/// The watch token of a link.
const fn token(id: LinkId) -> u64 {
    id
}

impl Desk {
    /// True where a thread has put something in its ring, or at the door.
    pub fn has_work(&mut self, hub: &Hub, worker: usize) -> bool {
        hub.seats[worker].knocks.load(Ordering::Acquire) != self.knocks
            || self.channels.iter_mut().flatten().any(|c| !c.commands.is_empty())
    }


    /// The next channel from this one on in which something waits. Each that is
    /// passed costs some 8 instructions, every turn.
    #[inline]
    fn next_busy(&mut self, from: usize) -> Option<usize> {
        let waits = |channel: &mut Channel| !channel.commands.is_empty() || !channel.late.is_empty();
        let mut rest = self.channels.get_mut(from..)?.iter_mut();
        rest.position(|channel| channel.as_mut().is_some_and(waits)).map(|n| from + n)
    }

    pub(super) fn place(&self, id: LinkId) -> Option<usize> {
        let index = id as u32 as usize;
        let same = self.generations.get(index).is_some_and(|g| u64::from(*g) == id >> 32);
        (same && self.links[index].is_some()).then_some(index)
    }

    /// The link of this number, if it is still open.
    pub fn link(&mut self, id: LinkId) -> Option<&mut LinkEnd> {
        let place = self.place(id)?;
        self.links[place].as_mut()
    }

    /// Makes a link for a socket of this worker's.
    pub fn open(&mut self, hub: &'static Hub, worker: usize, sockets: &mut Sockets, handle: Handle, kind: Kind) -> Arc<Link> {
        let index = self.free.pop().unwrap_or_else(|| {
            self.links.push(None);
            self.generations.push(0);
            self.links.len() as u32 - 1
        });
        let id = u64::from(self.generations[index as usize]) << 32 | u64::from(index);
        let (link, end) = Link::new(hub, worker, id, handle, kind);
        link.low_water.store(sockets.low_water(handle) as u32, Ordering::Relaxed);
        self.links[index as usize] = Some(LinkEnd {
            link: link.clone(),
            end,
            waiters: Vec::new(),
            subscriptions: Vec::new(),
            served: 0,
            refused: false,
            ending: None,
            nudged: false,
            starved: false,
        });
        sockets.watch(handle, token(id));
        link
    }

    /// How many links wait for frames.
    #[cfg(test)]
    pub fn starved(&self) -> usize {
        self.starved.len()
    }

    /// Ends all memberships in a set that is gone. Linear in all links, once.
    pub fn drop_subscriptions(&mut self, set: usize) {
        for link in self.links.iter_mut().flatten() {
            link.subscriptions.retain(|s| s.set() != set);
        }
    }

    /// Makes a stream's link a listener's; the program's end of the new ring.
    pub fn listen(&mut self, id: LinkId) -> Option<Consumer<(Arc<Link>, SocketAddr)>> {
        let (producer, consumer) = ring(ACCEPTED);
        let link = self.link(id)?;
        if matches!(link.end, End::Listener { .. }) {
            return None;
        }
        link.end = End::Listener { rx: producer };
        Some(consumer)
    }
}

impl Core {
    /// Makes a link for a socket of this worker's.
    pub(super) fn open_link(&mut self, h: Handle, kind: Kind) -> Arc<Link> {
        let link = self.desk.open(self.hub, self.worker, &mut self.sockets, h, kind);
        self.pump(link.id, 0);
        link
    }

    /// Carries out what other threads asked for: whether there was anything.
    #[inline]
    pub(super) fn commands(&mut self) -> bool {
        self.desk.again = false;
        let mut any = self.answer_door();
        let mut from = 0;
        while let Some(channel) = self.desk.next_busy(from) {
            any |= self.serve(channel);
            from = channel + 1;
        }
        any
    }

    /// Carries out one thread's commands: whether there were any.
    #[inline(never)]
    fn serve(&mut self, channel: usize) -> bool {
        let mut n = 0;
        while let Some(Some(thread)) = self.desk.channels.get_mut(channel) {
            if n == COMMAND_BUDGET {
                self.desk.again = true;
                break;
            }
            let Some(command) = thread.commands.pop() else { break };
            n += 1;
            self.command(channel, command);
        }
        self.late_replies(channel);
        n > 0
    }

    #[inline]
    pub(super) fn answer_door(&mut self) -> bool {
        let knocks = self.seat.knocks.load(Ordering::Acquire);
        knocks != self.desk.knocks && self.open_door(knocks)
    }

    #[cold]
    fn open_door(&mut self, knocks: usize) -> bool {
        self.desk.knocks = knocks;
        let seat = self.seat;
        while let Some(knock) = seat.door.pop() {
            match knock {
                Knock::Channel(channel) => {
                    match self.desk.channels.iter_mut().find(|c| c.is_none()) {
                        Some(place) => *place = Some(channel),
                        None => self.desk.channels.push(Some(channel)),
                    }
                }
                Knock::Close(link) => self.close_link(&link),
                Knock::CloseSet(set) => self.close_set(&set),
                Knock::CloseOwnSet(h) => _ = self.close_own_set(h),
                Knock::Look => {}
            }
        }
        true
    }

    fn command(&mut self, channel: usize, command: Command) {
        match command {
            Command::Call(call) => {
                // SAFETY: sent to this worker, which is up, and popped once.
                unsafe { call.run(self) };
                self.wake(channel);
            }
            Command::Pump(id, side) => {
                if let Some(link) = self.desk.link(id) {
                    link.link.answer(side);
                    self.pump(id, 0);
                }
            }
            Command::Wait { link, interest, ticket } => self.wait_for(channel, link, interest, ticket),
            Command::Unwait { link, ticket } => {
                if let Some(link) = self.desk.link(link) {
                    link.waiters.retain(|w| w.channel != channel || w.ticket != ticket);
                }
            }
            Command::Close(link) => self.close_link(&link),
            Command::Stock(n) => self.hand_out(channel, n),
            Command::Return(frame) => self.take_home(frame),
            Command::Leave(replies) => self.leave(channel, *replies),
        }
    }

    pub(super) fn reply(&mut self, channel: usize, reply: Reply) {
        let Some(channel) = &mut self.desk.channels[channel] else { return };
        if !channel.late.is_empty() {
            channel.late.push_back(reply);
        } else if let Err(reply) = channel.replies.push(reply) {
            channel.late.push_back(reply);
        }
    }

    fn late_replies(&mut self, channel: usize) {
        let Some(channel) = &mut self.desk.channels[channel] else { return };
        if channel.late.is_empty() {
            return;
        }
        while let Some(reply) = channel.late.pop_front() {
            if let Err(reply) = channel.replies.push(reply) {
                channel.late.push_front(reply);
                break;
            }
        }
        channel.sleeper.wake();
        self.desk.again |= !channel.late.is_empty();
    }

    pub(super) fn wake(&mut self, channel: usize) {
        if let Some(channel) = &self.desk.channels[channel] {
            channel.sleeper.wake();
        }
    }

    /// Moves what waits in the rings of a link, and in its socket, and tells
    /// whoever is to know. `edges`: EPOLL bits that happened besides.
    pub(super) fn pump(&mut self, id: LinkId, edges: u32) {
        let Some(place) = self.desk.place(id) else { return };
        let Some(mut link) = self.desk.links[place].take() else { return };
        let mut edges = edges;
        match &mut link.end {
            End::Listener { .. } => edges |= self.accept_ahead(&mut link),
            End::Stream { .. } => {
                self.sockets_take(&mut link);
                edges |= self.lend_stream(&mut link);
            }
            End::Datagram { .. } => {
                self.sockets_take(&mut link);
                edges |= self.lend_datagrams(&mut link);
            }
        }
        edges |= link.publish(&self.sockets);
        // What was published above, and the room that was made, are seen by
        // whoever says after this fence that it found none (`Link::short`), or
        // that it has taken the last report (`Subscription::report`).
        fence(Ordering::SeqCst);
        edges |= self.serve_short(&mut link);
        let ending = link.ending.filter(|_| link.all_taken());
        if ending == Some(Ending::Shutdown) {
            link.ending = None;
            let _ = self.sockets.shutdown(link.link.handle, libc::SHUT_WR);
        }
        self.tell(&mut link, edges);
        self.desk.links[place] = Some(link);
        if ending == Some(Ending::Close) {
            self.finish_close(id);
        }
    }

    /// Takes in returned frames, and what the program wrote as far as the socket
    /// takes it.
    fn sockets_take(&mut self, link: &mut LinkEnd) {
        let h = link.link.handle;
        let arena = &self.hub.arena;
        match &mut link.end {
            End::Stream { returns, tx, lent, .. } => {
                while let Some(frame) = returns.take() {
                    *lent -= 1;
                    let _ = self.sockets.zc_release(h, frame);
                }
                returns.release();
                while let Some(frame) = tx.peek() {
                    match self.sockets.send_on(h, arena.bytes(frame), libc::MSG_NOSIGNAL) {
                        Ok(n) => frame.trim_front(n),
                        Err(Errno::EAGAIN) => break,
                        // The connection is over; the next call says how.
                        Err(_) => frame.truncate(0),
                    }
                    if !frame.is_empty() {
                        break;
                    }
                    if let Some(frame) = tx.take() {
                        self.sockets.stack.core.lent -= 1;
                        self.sockets.stack.core.pool.free(frame);
                    }
                }
                tx.release();
            }
            End::Datagram { returns, tx, lent, .. } => {
                while let Some(frame) = returns.take() {
                    *lent -= 1;
                    self.sockets.stack.core.lent -= 1;
                    self.sockets.stack.core.pool.free(frame);
                }
                returns.release();
                while let Some(out) = tx.peek() {
                    let bytes = match (&out.frame, &out.big) {
                        (Some(frame), _) => arena.bytes(frame),
                        (None, Some(big)) => big,
                        (None, None) => &[],
                    };
                    if let Err(error) = send_late(&mut self.sockets, h, bytes, out) {
                        if error == Errno::EAGAIN {
                            break; // the socket tells when there is room
                        }
                        // The next one goes by a call, which says why.
                        *link.link.way.hold() = None;
                    }
                    let Some(out) = tx.take() else { break };
                    if let Some(frame) = out.frame {
                        self.sockets.stack.core.lent -= 1;
                        self.sockets.stack.core.pool.free(frame);
                    }
                }
                tx.release();
            }
            End::Listener { .. } => {}
        }
    }

    fn lend_stream(&mut self, link: &mut LinkEnd) -> u32 {
        let h = link.link.handle;
        let End::Stream { rx, lent, .. } = &mut link.end else { return 0 };
        let mut bytes = 0;
        // A frame may be home before its slot in the ring is free: both are asked.
        // The program rings after it has freed the slots.
        while *lent < LENT && rx.room() > 0 && self.sockets.bytes_readable(h).is_ok_and(|n| n > 0) {
            if self.sockets.figure(h, Figure::AtMark) == Ok(1) {
                break; // passed by a call alone
            }
            let Ok(frame) = self.sockets.zc_recv(h) else { break };
            bytes += frame.len();
            let fits = rx.stage(frame).is_ok();
            debug_assert!(fits, "there was room");
            *lent += 1;
        }
        if bytes == 0 {
            rx.publish();
            return 0;
        }
        // Counted first: what is read was counted before.
        let total = &link.link.board.lent;
        total.store(total.load(Ordering::Relaxed).wrapping_add(bytes as u32), Ordering::Release);
        rx.publish();
        if link.link.has_enough() { SOME | Readiness::IN.bits() } else { SOME }
    }

    fn accept_ahead(&mut self, link: &mut LinkEnd) -> u32 {
        let mut edges = 0;
        while let End::Listener { rx } = &mut link.end {
            if rx.room() == 0 {
                break;
            }
            let Ok((handle, peer)) = self.sockets.accept(link.link.handle) else { break };
            let made = self.desk.open(self.hub, self.worker, &mut self.sockets, handle, Kind::Stream);
            let id = made.id;
            // Its data, if some came already, is there before the program is.
            self.pump(id, 0);
            let End::Listener { rx } = &mut link.end else { break };
            let fits = rx.push((made, peer)).is_ok();
            debug_assert!(fits, "there was room");
            edges = SOME | Readiness::IN.bits();
        }
        edges
    }

    /// The program found no room, and there is some again.
    fn serve_short(&mut self, link: &mut LinkEnd) -> u32 {
        let short = link.link.short.load(Ordering::Relaxed);
        if short == link.served {
            return 0;
        }
        let pool = &self.sockets.stack.core.pool;
        if pool.available() < pool.capacity() / HUNGRY_PART {
            if !core::mem::replace(&mut link.starved, true) {
                self.desk.starved.push(link.link.id);
            }
            return 0;
        }
        if !link.has_room() {
            return 0;
        }
        link.served = short;
        Readiness::OUT.bits()
    }

    /// Wakes those who wait for one of these events, and reports them to sets.
    fn tell(&mut self, link: &mut LinkEnd, edges: u32) {
        if !link.waiters.is_empty() {
            let ready = edges | link.level();
            for i in (0..link.waiters.len()).rev() {
                if link.waiters[i].is_met_by(ready) {
                    let waiter = link.waiters.swap_remove(i);
                    self.reply(waiter.channel, Reply::Woken(waiter.ticket));
                    self.wake(waiter.channel);
                }
            }
        }
        let edges = edges & !SOME;
        if edges != 0 {
            for subscription in &mut link.subscriptions {
                subscription.report(edges, &mut self.desk.sets);
            }
        }
    }

    /// Looks at the sockets whose readiness changed, at links that starved, and
    /// at what is late: whether there was anything.
    #[inline]
    pub(super) fn report(&mut self) -> bool {
        let desk = &self.desk;
        let nothing = desk.starved.is_empty() && desk.sets.is_empty() && !self.sockets.has_watched();
        !nothing && self.report_changes()
    }

    #[inline(never)]
    fn report_changes(&mut self) -> bool {
        let mut watched = core::mem::take(&mut self.desk.watched);
        self.sockets.take_watched(&mut watched);
        let any = !watched.is_empty();
        for (token, _, _) in watched.drain(..) {
            self.pump(token, 0);
        }
        self.desk.watched = watched;
        for id in core::mem::take(&mut self.desk.starved) {
            self.desk.link(id).into_iter().for_each(|link| link.starved = false);
            self.pump(id, 0);
        }
        for set in self.desk.sets.iter_mut().flatten() {
            self.desk.again |= set.flush();
        }
        self.desk.again |= !self.desk.starved.is_empty();
        any
    }
}

impl LinkEnd {
    /// What the program would find: EPOLL bits, as far as the rings tell.
    fn level(&mut self) -> u32 {
        let status = self.link.board.status.load(Ordering::Relaxed);
        let some = match &mut self.end {
            End::Stream { rx, .. } => !rx.is_empty(),
            End::Datagram { rx, .. } => !rx.is_empty(),
            End::Listener { rx } => !rx.is_empty(),
        };
        // After the ring: what was taken out of it is then seen here.
        let some = some || status & MARK != 0 || self.link.left.load(Ordering::Relaxed);
        let stream = matches!(self.end, End::Stream { .. });
        let enough = !stream || status & MARK != 0 || self.link.has_enough();
        let room = status & (OPEN | FULL) == OPEN && self.has_room();
        (status & (SPECIAL | PRI))
            | if some { SOME } else { 0 }
            | if some && enough { Readiness::IN.bits() } else { 0 }
            | if room { Readiness::OUT.bits() } else { 0 }
    }

    fn has_room(&mut self) -> bool {
        match &mut self.end {
            End::Stream { tx, .. } => tx.len() <= super::link::WRITTEN / 2,
            End::Datagram { tx, .. } => tx.len() <= super::link::WRITTEN / 2,
            End::Listener { .. } => false,
        }
    }

    /// Everything that the program wrote is the socket's.
    pub fn all_taken(&mut self) -> bool {
        match &mut self.end {
            End::Stream { tx, .. } => tx.is_empty(),
            End::Datagram { tx, .. } => tx.is_empty(),
            End::Listener { .. } => true,
        }
    }

    /// True where received data waits in the ring.
    pub fn has_data(&mut self) -> bool {
        match &mut self.end {
            End::Stream { rx, .. } => !rx.is_empty(),
            End::Datagram { rx, .. } => !rx.is_empty(),
            End::Listener { rx } => !rx.is_empty(),
        }
    }

    /// Publishes the socket's status: the bits that rose.
    fn publish(&mut self, sockets: &Sockets) -> u32 {
        let ready = sockets.readiness(self.link.handle).bits();
        let mut status = ready & (SPECIAL | PRI);
        let some = ready & Readiness::IN.bits() != 0 || sockets.bytes_readable(self.link.handle).is_ok_and(|n| n > 0);
        if some && sockets.figure(self.link.handle, Figure::AtMark) == Ok(1) {
            status |= MARK;
        }
        let (datagram, lent) = match &self.end {
            End::Stream { lent, .. } => (false, *lent),
            End::Datagram { lent, .. } => (true, *lent),
            End::Listener { .. } => (false, 0),
        };
        self.refused &= ready & Readiness::OUT.bits() == 0;
        if self.refused {
            status |= FULL;
        }
        let old = self.link.board.status.load(Ordering::Relaxed);
        let connected = ready & Readiness::OUT.bits() != 0 && ready & Readiness::HUP.bits() == 0;
        if datagram || old & OPEN != 0 || connected {
            status |= OPEN;
        }
        if lent * 2 >= LENT || lent > 0 && sockets.window_is_low(self.link.handle) {
            status |= WANTED;
        }
        if self.link.low_water.load(Ordering::Relaxed) > 1
            && (lent == LENT || sockets.window_is_used(self.link.handle))
        {
            status |= PRESSED;
        }
        if status != old {
            // After the data that came before it: a reader who sees the end of
            // the stream finds the data first.
            self.link.board.status.store(status, Ordering::Release);
        }
        let rose = status & !old;
        (rose & (SPECIAL | PRI))
            | if rose & OPEN != 0 || old & !status & FULL != 0 { Readiness::OUT.bits() } else { 0 }
            | if rose & (0x10 | 0x2000 | MARK | PRESSED) != 0 { Readiness::IN.bits() } else { 0 }
    }
}
