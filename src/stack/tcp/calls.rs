//! What programs do with a connection, by its number. Numbers are the socket
//! layer's to keep right: it holds one for as long as it did not close it.

use super::{Marks, NONE, Slot, Table, env};
use crate::arch;
use crate::frame::Frame;
use crate::stack::core::Core;
use crate::tcp::{Connection, Disposition, Env, Readiness};
use core::net::SocketAddr;

/// Where a connection is listed that was touched, with room for it.
struct Listed<'a> {
    marks: &'a mut Marks,
    touched: &'a mut Vec<u32>,
}

impl Listed<'_> {
    /// Lists it, if it is not; without a call.
    #[inline(always)]
    fn add(&mut self, id: u32) {
        if !self.marks.contains(Marks::TOUCHED) {
            self.marks.insert(Marks::TOUCHED);
            assert!(self.touched.len() < self.touched.capacity(), "there was room");
            self.touched.push(id);
        }
    }
}

impl Table {
    /// The connection.
    ///
    /// # Panics
    /// If there is none of this number.
    #[inline(always)]
    pub fn conn(&self, id: u32) -> &Connection {
        self.slots[id as usize].conn.as_ref().expect("a socket's connection lives until its close")
    }

    /// The connection, to change settings of.
    ///
    /// # Panics
    /// As [`Table::conn`].
    #[inline]
    pub fn conn_mut(&mut self, id: u32) -> &mut Connection {
        self.slots[id as usize].conn.as_mut().expect("a socket's connection lives until its close")
    }

    /// What it is ready for now, where nothing is unusual about it.
    #[inline(always)]
    pub fn plain_readiness(&self, id: u32, writing: bool) -> Option<Readiness> {
        self.slots.get(id as usize)?.conn.as_ref()?.plain_readiness(writing)
    }

    #[inline]
    fn with<T>(&mut self, core: &mut Core, id: u32, f: impl FnOnce(&mut Connection, &mut Env) -> T) -> T {
        let looped = self.slots[id as usize].marks.contains(Marks::LOOPED);
        f(self.conn_mut(id), &mut env(core, looped))
    }

    /// Our address and port.
    pub fn local(&self, id: u32) -> SocketAddr {
        self.slots[id as usize].key.local()
    }

    /// The peer's address and port.
    pub fn remote(&self, id: u32) -> SocketAddr {
        self.slots[id as usize].key.remote()
    }

    /// The short way of [`send`](Self::send), without a call: a few bytes that are a
    /// segment of their own. False, and nothing done, where it is not so, or there is no
    /// such connection.
    #[inline(always)]
    pub fn send_lone(&mut self, core: &mut Core, id: u32, data: &[u8]) -> bool {
        let Some((conn, mut list)) = self.lone_sender(id) else { return false };
        let sent = conn.send_lone(&mut core.pool, &mut core.counters, &core.config.tcp, data);
        if sent {
            list.add(id);
        }
        sent
    }

    /// The short way of [`send_frame`](Self::send_frame), likewise, of the first `len` bytes
    /// of a frame; `received`: so many of it were lent. It is taken, or left where it is
    /// not so.
    #[inline(always)]
    pub fn send_frame_lone(&mut self, core: &mut Core, id: u32, frame: &mut Option<Frame>, len: u16, received: u16) {
        let Some((conn, mut list)) = self.lone_sender(id) else { return };
        conn.send_frame_lone(&core.pool, frame, len, received);
        if frame.is_none() {
            list.add(id);
        }
    }

    /// A connection that may send by a short way, and its place on the list of those that
    /// are touched; `None` where there is none, or no room on the list.
    #[inline(always)]
    fn lone_sender(&mut self, id: u32) -> Option<(&mut Connection, Listed<'_>)> {
        let spread = self.is_spread();
        let slot = self.slots.get_mut(id as usize)?;
        if spread {
            // What sends and was quiet: its other lines are needed soon, too.
            arch::prefetch_front(slot, Slot::WARM);
        }
        let Slot { conn: Some(conn), marks, .. } = slot else { return None };
        if !marks.contains(Marks::TOUCHED) && self.touched.len() == self.touched.capacity() {
            return None;
        }
        Some((conn, Listed { marks, touched: &mut self.touched }))
    }

    /// The short way of [`recv`](Self::recv), likewise: little data, in one frame, of
    /// which `buf` takes all. 0 where it is not so.
    #[inline(always)]
    pub fn recv_lone(&mut self, core: &mut Core, id: u32, buf: &mut [u8]) -> usize {
        let Some(conn) = self.touched_conn(id) else { return 0 };
        conn.recv_lone(&mut core.pool, &mut core.counters, buf)
    }

    /// The connection, if it is touched: what came in has done that, but where the
    /// program comes a turn late.
    #[inline(always)]
    fn touched_conn(&mut self, id: u32) -> Option<&mut Connection> {
        let Slot { conn, marks, .. } = self.slots.get_mut(id as usize)?;
        if marks.contains(Marks::TOUCHED) { conn.as_mut() } else { None }
    }

    /// The short way of [`recv_frame`](Self::recv_frame), without a call.
    #[inline(always)]
    pub fn recv_frame_now(&mut self, id: u32) -> Option<Frame> {
        self.slots.get_mut(id as usize)?.conn.as_mut()?.recv_frame_now()
    }

    /// The short way of [`recv_release`](Self::recv_release), which frees the frame, too,
    /// or leaves it with nothing done.
    #[inline(always)]
    pub fn recv_release_now(&mut self, core: &mut Core, id: u32, frame: &mut Option<Frame>, bytes: u16) {
        if let Some(conn) = self.touched_conn(id) {
            conn.recv_release_now(&mut core.pool, frame, bytes);
        }
    }

    /// The short way of [`send_alloc`](Self::send_alloc).
    #[inline(always)]
    pub fn send_alloc_now(&mut self, core: &mut Core, id: u32) -> Option<Frame> {
        let conn = self.slots.get_mut(id as usize)?.conn.as_mut()?;
        conn.send_alloc_now(&mut core.pool, &core.config.tcp)
    }

    /// Puts bytes into the send queue; how many fitted.
    pub fn send(&mut self, core: &mut Core, id: u32, data: &[u8]) -> usize {
        let n = self.with(core, id, |conn, env| conn.send(env, data));
        self.touch(id);
        if n < data.len() {
            self.note_starved(id);
        }
        n
    }

    /// No ACK need come that would wake a program that found no frame: the table
    /// does, once there are some again.
    #[cold]
    fn note_starved(&mut self, id: u32) {
        let starved = self.conn(id).starved();
        let marks = &mut self.slots[id as usize].marks;
        if starved && !marks.contains(Marks::STARVED) {
            marks.insert(Marks::STARVED);
            self.starved.push(id);
        }
    }

    /// Takes bytes from the receive queue, or with `peek` looks at them.
    #[inline]
    pub fn recv(&mut self, core: &mut Core, id: u32, buf: &mut [u8], peek: bool) -> usize {
        let slot = &mut self.slots[id as usize];
        let Some(conn) = &mut slot.conn else { return 0 };
        let looped = slot.marks.contains(Marks::LOOPED);
        let n = conn.recv(&mut env(core, looped), buf, peek);
        if n > 0 && !peek && !slot.marks.contains(Marks::TOUCHED) {
            slot.marks.insert(Marks::TOUCHED);
            self.touched.push(id);
        }
        n
    }

    /// A frame for the program to fill: its range is where the payload goes.
    pub fn send_alloc(&mut self, core: &mut Core, id: u32) -> Option<Frame> {
        let frame = self.with(core, id, |conn, env| conn.send_alloc(env));
        if frame.is_none() {
            self.note_starved(id);
        }
        frame
    }

    /// Queues a filled frame.
    ///
    /// # Errors
    /// The frame, if the send buffer is full or the frame not fit for it.
    pub fn send_frame(&mut self, core: &mut Core, id: u32, frame: Frame) -> Result<(), Frame> {
        self.with(core, id, |conn, env| conn.send_frame(env, frame))?;
        self.touch(id);
        Ok(())
    }

    /// Queues a frame that was received, of which so many bytes were lent.
    ///
    /// # Errors
    /// As [`send_frame`](Self::send_frame), and where few frames are free.
    pub fn send_received(&mut self, core: &mut Core, id: u32, frame: Frame, bytes: u16) -> Result<(), Frame> {
        let sent = self.with(core, id, |conn, env| conn.send_received(env, frame));
        match sent {
            Ok(()) => self.recv_release(core, id, bytes.into()),
            Err(_) => self.note_starved(id),
        }
        sent
    }

    /// Takes the first frame of the receive queue; its range is the payload.
    pub fn recv_frame(&mut self, core: &mut Core, id: u32) -> Option<Frame> {
        self.conn_mut(id).recv_frame(&mut core.pool)
    }

    /// The program is done with so many bytes of lent frames.
    pub fn recv_release(&mut self, core: &mut Core, id: u32, bytes: usize) {
        let done = self.conn_mut(id).recv_release(bytes);
        self.finish(core, id, done);
    }

    /// Something about the connection changed that may let it send.
    #[inline]
    pub fn changed(&mut self, id: u32) {
        self.touch(id);
    }

    /// Closes the sending side.
    pub fn shutdown_send(&mut self, core: &mut Core, id: u32) {
        let done = self.conn_mut(id).shutdown_send();
        self.finish(core, id, done);
    }

    /// The program gives the connection up: it ends by itself, or by an RST if
    /// data was left unread (RFC 2525, 2.17).
    pub fn close(&mut self, core: &mut Core, id: u32) {
        self.slots[id as usize].token = NONE;
        if self.is_over(id) {
            return self.remove(core, id);
        }
        if !self.orphan(core, id) {
            return self.abort(core, id);
        }
        let done = self.with(core, id, |conn, env| conn.close(env));
        self.finish(core, id, done);
    }

    /// The program gives the connection up and resets it (SO_LINGER of zero).
    pub fn abort(&mut self, core: &mut Core, id: u32) {
        self.slots[id as usize].token = NONE;
        if self.is_over(id) {
            return self.remove(core, id);
        }
        let done = self.with(core, id, |conn, env| conn.abort(env));
        self.finish(core, id, done);
    }

    /// Closed, or replaced by an entry in TIME-WAIT: kept for its socket alone.
    fn is_over(&self, id: u32) -> bool {
        !self.slots[id as usize].marks.contains(Marks::INDEXED)
    }

    fn finish(&mut self, core: &mut Core, id: u32, done: Disposition) {
        self.touch(id);
        self.report(core, id, done.events);
    }
}
