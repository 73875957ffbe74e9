//! What the tables of UDP and of ICMP sockets share: slots, readiness, reports.

use super::datagram::Queue;
use super::{Core, Event};
use crate::errno::{Errno, Result};
use crate::tcp::Readiness;

/// The part of a datagram socket that every kind has.
#[derive(Debug)]
pub(super) struct Socket<T> {
    token: u32,
    /// The error that waits (SO_ERROR).
    pub error: Option<Errno>,
    pub queue: Queue,
    pub shut_read: bool,
    pub shut_write: bool,
    /// A send found no room; the program waits to be told.
    blocked: bool,
    /// It is in the list of those to be reported.
    touched: bool,
    /// The report ([`Sockets::reports`]) before which it was told of a datagram.
    told: u64,
    /// What its kind has beside.
    pub own: T,
}

impl<T> Socket<T> {
    #[inline(always)]
    fn readiness(&self) -> Readiness {
        let mut r = Readiness::empty();
        r.set(Readiness::IN, !self.queue.is_empty() || self.shut_read);
        r.set(Readiness::OUT, !self.blocked);
        r.set(Readiness::ERR, self.error.is_some());
        r.set(Readiness::RDHUP, self.shut_read);
        r.set(Readiness::HUP, self.shut_read && self.shut_write);
        r
    }
}

impl<T> Socket<T> {
    /// A datagram came: the socket is reported at once, and not again for the next ones
    /// before the next report.
    #[inline(always)]
    pub fn tell(&mut self, core: &mut Core, reports: u64) {
        if self.told != reports {
            self.told = reports;
            core.events.push(Event { token: self.token, ready: self.readiness() });
        }
    }
}

/// The sockets of one kind, by number.
#[derive(Debug)]
pub(super) struct Sockets<T> {
    slots: Vec<Option<Socket<T>>>,
    free: Vec<u32>,
    touched: Vec<u32>,
    blocked: Vec<u32>,
    /// Reports so far, and this one.
    reports: u64,
}

impl<T> Sockets<T> {
    pub fn new() -> Self {
        Self { slots: Vec::new(), free: Vec::new(), touched: Vec::new(), blocked: Vec::new(), reports: 1 }
    }

    /// Opens a socket. `ENFILE`: the table is full.
    pub fn open(&mut self, core: &Core, token: u32, own: T) -> Result<u32> {
        let socket = Socket {
            token,
            error: None,
            queue: Queue::default(),
            shut_read: false,
            shut_write: false,
            blocked: false,
            touched: false,
            told: 0,
            own,
        };
        if let Some(id) = self.free.pop() {
            self.slots[id as usize] = Some(socket);
            return Ok(id);
        }
        if self.slots.len() >= core.config.datagram.max_sockets {
            return Err(Errno::ENFILE);
        }
        self.slots.push(Some(socket));
        Ok(self.slots.len() as u32 - 1)
    }

    /// Closes a socket; its queue goes, what its kind has comes back.
    pub fn close(&mut self, core: &mut Core, id: u32) -> T {
        let mut socket = self.slots[id as usize].take().expect("an open socket's number");
        socket.queue.clear(&mut core.pool);
        if socket.touched {
            self.touched.retain(|&i| i != id);
        }
        if socket.blocked {
            self.blocked.retain(|&i| i != id);
        }
        self.free.push(id);
        socket.own
    }

    #[inline(always)]
    pub fn get(&self, id: u32) -> &Socket<T> {
        self.slots[id as usize].as_ref().expect("an open socket's number")
    }

    #[inline(always)]
    pub fn get_mut(&mut self, id: u32) -> &mut Socket<T> {
        self.slots[id as usize].as_mut().expect("an open socket's number")
    }

    pub fn set_token(&mut self, id: u32, token: u32) {
        self.get_mut(id).token = token;
    }

    #[inline(always)]
    pub fn readiness(&self, id: u32) -> Readiness {
        self.get(id).readiness()
    }

    pub fn held_frames(&self) -> usize {
        self.slots.iter().flatten().map(|s| s.queue.held_frames()).sum()
    }

    /// Something happened to a socket: it is reported at the end of the batch.
    #[inline]
    pub fn touch(&mut self, id: u32) {
        let socket = self.get_mut(id);
        if !socket.touched {
            socket.touched = true;
            self.touched.push(id);
        }
    }

    /// The number of the report that comes next, for [`Socket::tell`].
    #[inline(always)]
    pub fn reports(&self) -> u64 {
        self.reports
    }

    /// Sets the error that waits.
    pub fn fail(&mut self, id: u32, error: Errno) {
        self.get_mut(id).error = Some(error);
        self.touch(id);
    }

    /// A send found no room: the socket is reported when there is some.
    #[cold]
    pub fn block(&mut self, id: u32) {
        let socket = self.get_mut(id);
        if !socket.blocked {
            socket.blocked = true;
            self.blocked.push(id);
        }
    }

    /// Another report begins: whether there may be anything to be reported.
    #[inline(always)]
    pub fn begin_report(&mut self) -> bool {
        self.reports += 1;
        self.touched.len() | self.blocked.len() != 0
    }

    /// Reports every socket that something happened to, once.
    #[inline(never)]
    pub fn report(&mut self, core: &mut Core) {
        if !self.blocked.is_empty() {
            self.unblock(core);
        }
        for id in self.touched.drain(..) {
            let Some(socket) = &mut self.slots[id as usize] else { continue };
            socket.touched = false;
            core.events.push(Event { token: socket.token, ready: socket.readiness() });
        }
    }

    #[cold]
    fn unblock(&mut self, core: &mut Core) {
        if core.tx.room() == 0 || core.loop_tx.room() == 0 || core.pool.available() == 0 {
            return;
        }
        for id in core::mem::take(&mut self.blocked) {
            self.get_mut(id).blocked = false;
            self.touch(id);
        }
    }
}
