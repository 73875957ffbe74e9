//! The end of a turn: timers, neighbours that answered, everything that waits to
//! be sent, and connections that are over.

use super::{FAR, LOOK, Marks, NONE, Table, WAITING, env};
use crate::errno::Errno;
use crate::stack::core::{Core, Event};
use crate::tcp::{Events, Flush, Readiness};
use crate::time::{Duration, Instant};
use crate::wire::ethernet::Mac;
use core::net::IpAddr;

/// How often it is looked whether there are frames for programs that found none,
/// and room for connections that found the transmit queue full.
const HUNGER: Duration = Duration::from_millis(1);

impl Table {
    /// Does what is due: timers of connections, ends of TIME-WAIT, neighbours.
    #[inline]
    pub(in crate::stack) fn timers(&mut self, core: &mut Core) {
        if self.wheel.is_due(core.now) {
            self.wheel_turned(core);
        }
        if !self.waits.is_empty() {
            while let Some(id) = self.waits.next_over(core.now) {
                self.end_waiting(id);
            }
        }
        if !self.stalled.is_empty() && core.pool.available() < core.config.tcp.frames_low {
            self.relieve(core);
        }
        if !self.starved.is_empty() && core.pool.available() > core.config.tcp.send_reserve() {
            self.feed(core);
        }
    }

    /// A tick of the wheel, a millisecond, is over.
    #[inline(never)]
    fn wheel_turned(&mut self, core: &mut Core) {
        let mut woken = core::mem::take(&mut self.woken);
        self.wheel.advance(core.now, &mut woken);
        for id in woken.drain(..) {
            self.wake(core, id);
        }
        self.woken = woken;
    }

    /// There are frames again: programs that found none are told.
    #[cold]
    fn feed(&mut self, core: &mut Core) {
        for id in self.starved.drain(..) {
            let slot = &mut self.slots[id as usize];
            let waits = slot.marks.contains(Marks::STARVED);
            slot.marks.remove(Marks::STARVED);
            if let Some(conn) = slot.conn.as_mut().filter(|_| waits) {
                conn.fed();
            }
            if waits && slot.token != NONE {
                core.events.push(Event { token: slot.token, ready: Readiness::OUT });
            }
        }
    }

    /// A time of the wheel has come.
    fn wake(&mut self, core: &mut Core, id: u32) {
        let (id, look) = (id & !LOOK, id & LOOK != 0);
        let slot = &mut self.slots[id as usize];
        if look {
            slot.marks.remove(Marks::FAR);
        }
        let Some(conn) = &mut slot.conn else { return };
        // A wake-up of a use of the slot before, or one that was moved forward.
        if slot.armed > core.now && !look {
            return;
        }
        if slot.armed <= core.now {
            slot.armed = Instant::NEVER;
        }
        if conn.deadline() > core.now {
            return self.arm(core.now, id);
        }
        let looped = slot.marks.contains(Marks::LOOPED);
        let done = conn.on_timer(&mut env(core, looped));
        let remote = slot.key.remote().ip();
        self.note_stalled(id);
        self.touch(id);
        self.report(core, id, done.events - Events::UNHEARD);
        if done.events.contains(Events::UNHEARD) && !looped {
            self.doubt_path(core, id, remote);
        }
    }

    /// Nothing was heard for a while: perhaps the next hop has another address
    /// by now (RFC 1122, 2.3.2.1). One that was not confirmed lately is asked.
    #[cold]
    fn doubt_path(&mut self, core: &mut Core, id: u32, remote: IpAddr) {
        if let Ok(path) = core.route(remote) {
            self.resolve(core, id, path.next_hop);
        }
    }

    /// Sees to it that the wheel wakes the connection at its deadline. Deadlines
    /// that moved back leave the wheel alone: it wakes early, and looks again.
    fn arm(&mut self, now: Instant, id: u32) {
        let slot = &mut self.slots[id as usize];
        let Some(conn) = &slot.conn else { return };
        let deadline = conn.deadline();
        if deadline >= slot.armed {
            return;
        }
        if deadline > now + FAR {
            return self.arm_far(now, id);
        }
        slot.armed = deadline;
        self.wheel.schedule(id, deadline);
    }

    /// Sees to it that the wheel looks at the slot again in a while, with one
    /// entry however often the deadline moves.
    fn arm_far(&mut self, now: Instant, id: u32) {
        let marks = &mut self.slots[id as usize].marks;
        if !marks.contains(Marks::FAR) {
            marks.insert(Marks::FAR);
            self.wheel.schedule(id | LOOK, now + FAR);
        }
    }

    /// Tells the connections that waited for neighbours.
    pub(in crate::stack) fn neighbors(&mut self, core: &mut Core) {
        if core.resolved.is_empty() && core.moved.is_empty() {
            return;
        }
        // Who fails may ask again, and so make another fail: that is for the next
        // time.
        for (waiter, mac) in core::mem::take(&mut core.resolved) {
            self.resolved(core, waiter.0, mac);
        }
        while let Some((ip, mac)) = core.moved.pop() {
            self.moved(core, ip, mac);
        }
    }

    fn resolved(&mut self, core: &mut Core, waiter: u64, mac: Option<Mac>) {
        let (id, generation) = (waiter as u32, (waiter >> 32) as u32);
        let Some(slot) = self.slots.get_mut(id as usize) else { return };
        let Some(conn) = &mut slot.conn else { return };
        if slot.generation != generation {
            return;
        }
        let Some(mac) = mac else { return self.unreachable(core, id) };
        conn.set_path(Some(mac));
        self.touch(id);
    }

    /// Nobody answers at the next hop. A connection that is open to nobody yet
    /// ends; others keep trying until their own timers give up (RFC 9293, 3.9.2.2).
    #[cold]
    fn unreachable(&mut self, core: &mut Core, id: u32) {
        let slot = &mut self.slots[id as usize];
        let Some(conn) = &mut slot.conn else { return };
        let looped = slot.marks.contains(Marks::LOOPED);
        let done = conn.fail(&mut env(core, looped), Errno::EHOSTUNREACH);
        let remote = slot.key.remote().ip();
        let over = done.events.contains(Events::CLOSED);
        self.touch(id);
        self.report(core, id, done.events);
        if !over && let Ok(path) = core.route(remote) {
            self.resolve(core, id, path.next_hop);
        }
    }

    /// A neighbour has another address now: all connections that go by it follow.
    #[cold]
    fn moved(&mut self, core: &mut Core, ip: IpAddr, mac: Mac) {
        for slot in &mut self.slots {
            if let Some(conn) = &mut slot.conn
                && core.route(slot.key.remote().ip()).is_ok_and(|path| path.next_hop == ip)
            {
                conn.set_path(Some(mac));
            }
        }
    }

    /// We have another hardware address now: all connections follow.
    #[cold]
    pub(in crate::stack) fn set_mac(&mut self, mac: Mac) {
        for conn in self.slots.iter_mut().filter_map(|slot| slot.conn.as_mut()) {
            conn.set_source(mac);
        }
    }

    /// Lets every touched connection send, once.
    #[inline]
    pub(in crate::stack) fn flush(&mut self, core: &mut Core) {
        if self.touched.is_empty() {
            return;
        }
        let waiting = self.touched.len();
        (self.stuck, self.held) = (0, 0);
        for i in 0..waiting {
            self.flush_one(core, self.touched[i]);
        }
        // Behind them are those that are to be flushed again.
        if self.touched.len() == waiting {
            self.touched.clear();
        } else {
            self.touched.drain(..waiting);
        }
    }

    /// A lone segment leaves here; everything else in [`Table::flush_any`].
    #[inline(always)]
    fn flush_one(&mut self, core: &mut Core, id: u32) {
        let slot = &mut self.slots[id as usize];
        slot.marks.remove(Marks::TOUCHED);
        let Core { now, pool, tx, counters, config, .. } = core;
        if !slot.marks.intersects(Marks::LOOPED | Marks::TIME_WAIT | Marks::CLOSED)
            && let Some(conn) = &mut slot.conn
            && let Some(timer) = conn.flush_lone(*now, pool, tx, counters, &config.tcp)
        {
            // Another that was set since is looked at when this one is.
            if timer < slot.armed {
                self.arm(core.now, id);
            }
            return;
        }
        self.flush_any(core, id);
    }

    #[inline(never)]
    fn flush_any(&mut self, core: &mut Core, id: u32) {
        let slot = &mut self.slots[id as usize];
        let Some(conn) = &mut slot.conn else { return };
        let looped = slot.marks.contains(Marks::LOOPED);
        if conn.owes_bulk_ack() && !looped {
            let next = core.now + core.config.table.ack_spacing;
            // Those of this turn leave together.
            if core.now < self.acks_from && self.acks_from != next {
                slot.marks.insert(Marks::TOUCHED);
                self.touched.push(id);
                self.stuck += 1;
                return;
            }
            self.acks_from = next;
        }
        if slot.marks.contains(Marks::ACCEPTED) {
            slot.marks.remove(Marks::ACCEPTED);
            if conn.owes_first_ack() {
                // The next turn comes at once.
                slot.marks.insert(Marks::TOUCHED);
                self.held += 1;
                return self.touched.push(id);
            }
        }
        let done = conn.flush_any(&mut env(core, looped));
        if done != Flush::Done {
            slot.marks.insert(Marks::TOUCHED);
            self.touched.push(id);
            self.stuck += usize::from(done == Flush::Again);
        } else if slot.marks.intersects(Marks::TIME_WAIT | Marks::CLOSED) {
            return self.settle(core, id);
        }
        if conn.deadline() < slot.armed {
            self.arm(core.now, id);
        }
    }

    /// A connection that sent its last: an entry takes its place in TIME-WAIT;
    /// the connection itself stays only for a socket that still reads from it.
    #[cold]
    fn settle(&mut self, core: &mut Core, id: u32) {
        let slot = &mut self.slots[id as usize];
        let (key, reuse) = (slot.key, slot.marks.reuse());
        if slot.marks.contains(Marks::TIME_WAIT | Marks::INDEXED)
            && let Some(conn) = &slot.conn
        {
            let entry = conn.time_wait(core.now, &core.config.tcp);
            self.leave_index(id);
            if self.waits.len() >= core.config.table.max_time_wait
                && let Some(oldest) = self.waits.oldest(core.now)
            {
                self.end_waiting(oldest);
            }
            let waiting = self.waits.insert(&key, entry, reuse);
            self.index(key, waiting | WAITING);
            self.ports.add_connection(key.local_port(), reuse);
        }
        let slot = &mut self.slots[id as usize];
        slot.marks.remove(Marks::TIME_WAIT);
        if slot.token == NONE && !slot.marks.contains(Marks::READY) {
            self.remove(core, id);
        }
    }

    /// Some gave way to others in the last turn and could send more. (Not those that hold
    /// an ACK until their program had a turn.)
    pub(in crate::stack) fn has_more(&self) -> bool {
        self.touched.len() > self.stuck + self.held
    }

    /// When [`Table::timers`] or [`Table::flush`] has something to do;
    /// [`Instant::NEVER`] if nothing.
    pub(in crate::stack) fn next_deadline(&self, now: Instant) -> Instant {
        if self.touched.len() > self.stuck {
            return now;
        }
        let mut wheel = self.wheel.next_deadline().unwrap_or(Instant::NEVER);
        if !self.starved.is_empty() || self.stuck > 0 {
            // Frames may come back without a packet: transmissions that complete.
            wheel = wheel.min(now + HUNGER);
        }
        if self.stuck > 0 && self.acks_from > now {
            wheel = wheel.min(self.acks_from);
        }
        wheel.min(self.waits.next_deadline(now).unwrap_or(Instant::NEVER))
    }
}
