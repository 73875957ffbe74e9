//! The short ways: what is there now, little of it, and nothing unusual about it. They
//! make no call, so that a caller that makes none itself need not save a register: of
//! the few instructions that such a call takes, saving them would be a third. Where
//! there is no such way nothing was done, and the long one looks at everything.

use super::Sockets;
use super::linux::*;
use super::table::{Flags, Kind};
use super::types::{EpollEvent, Handle};
use super::zero_copy::Lent;
use crate::frame::Frame;
use core::net::SocketAddrV4;

/// Flags that change nothing where nothing is waited for. (With MSG_WAITALL a call that
/// may block waits for more than what is there.)
const NOW: i32 = MSG_DONTWAIT | MSG_NOSIGNAL;

impl Sockets {
    /// [`Sockets::send`] of a few bytes that a stream takes as a segment of their own:
    /// how many, which is all; 0 where it is not so. Some 130 instructions.
    #[inline(always)]
    pub fn send_now(&mut self, h: Handle, data: &[u8], flags: i32) -> usize {
        let Some((conn, socket)) = self.table.stream(h) else { return 0 };
        if flags & !NOW != 0 || socket.flags.contains(Flags::MORE) {
            return 0;
        }
        if self.stack.tcp.send_lone(&mut self.stack.core, conn, data) { data.len() } else { 0 }
    }

    /// [`Sockets::recv`] of little data of a stream, in one frame, of which `buf` takes
    /// all: how much; 0 where it is not so. Some 100 instructions.
    #[inline(always)]
    pub fn recv_now(&mut self, h: Handle, buf: &mut [u8], flags: i32) -> usize {
        let Some((conn, socket)) = self.table.stream(h) else { return 0 };
        // A call that may block waits for as many bytes as SO_RCVLOWAT says.
        if flags & !NOW != 0 || socket.options.rcvlowat > 1 {
            return 0;
        }
        self.stack.tcp.recv_lone(&mut self.stack.core, conn, buf)
    }

    /// [`Sockets::send_to`] of a few bytes by UDP, to where something was sent just before:
    /// how many, which is all; 0 where it is not so.
    #[inline(always)]
    pub fn send_to_now(&mut self, h: Handle, data: &[u8], flags: i32, to: SocketAddrV4) -> usize {
        match self.table.udp(h) {
            Some(id) if flags & !NOW == 0 && self.stack.udp.send_lone(&mut self.stack.core, id, data, to) => data.len(),
            _ => 0,
        }
    }

    /// [`Sockets::recv_from`] of a small datagram, not an empty one, of which `buf` takes
    /// all: its length and its sender.
    #[inline(always)]
    pub fn recv_from_now(&mut self, h: Handle, buf: &mut [u8], flags: i32) -> Option<(usize, SocketAddrV4)> {
        let id = self.table.udp(h)?;
        if flags & !NOW != 0 {
            return None;
        }
        self.stack.udp.recv_lone(&mut self.stack.core, id, buf)
    }

    /// [`Sockets::zc_recv`] of a stream's data. `None`, and nothing done, where there is
    /// none, or a mark, or several frames; and the first time.
    #[inline(always)]
    pub fn zc_recv_now(&mut self, h: Handle, flags: i32) -> Option<Frame> {
        let (conn, _) = self.table.stream(h)?;
        if flags & !NOW != 0 || self.lent.is_empty() {
            return None;
        }
        let frame = self.stack.tcp.recv_frame_now(conn)?;
        self.lend_now(&frame, Lent::Received(h, frame.len() as u16));
        Some(frame)
    }

    /// [`Sockets::zc_alloc`] for a stream.
    #[inline(always)]
    pub fn zc_alloc_now(&mut self, h: Handle) -> Option<Frame> {
        let (conn, _) = self.table.stream(h)?;
        if self.lent.is_empty() {
            return None;
        }
        let frame = self.stack.tcp.send_alloc_now(&mut self.stack.core, conn)?;
        self.lend_now(&frame, Lent::Empty(h, frame.len() as u16));
        Some(frame)
    }

    /// [`Sockets::zc_release`] where nothing follows from it: takes the frame, or leaves it
    /// with nothing done.
    #[inline(always)]
    pub fn zc_release_now(&mut self, h: Handle, frame: &mut Option<Frame>) {
        let Some(index) = frame.as_ref().map(Frame::index) else { return };
        let Some((conn, _)) = self.table.stream(h) else { return };
        let Some(lent) = self.lent.get_mut(index as usize) else { return };
        let core = &mut self.stack.core;
        match *lent {
            Lent::Received(to, bytes) if to == h => self.stack.tcp.recv_release_now(core, conn, frame, bytes),
            Lent::Empty(to, _) if to == h => core.pool.free_idle(frame),
            _ => return,
        }
        if frame.is_none() {
            *lent = Lent::No;
            core.lent -= 1;
        }
    }

    /// [`Sockets::zc_send`] of the few bytes at the front of a frame's range that a stream
    /// takes as a segment of their own: takes the frame, or leaves it with nothing done.
    /// The sum of 64 bytes is 35 instructions of it.
    #[inline(always)]
    pub fn zc_send_now(&mut self, h: Handle, frame: &mut Option<Frame>, len: u16, flags: i32) {
        let Some(index) = frame.as_ref().map(Frame::index) else { return };
        let Some((conn, socket)) = self.table.stream(h) else { return };
        let Some(lent) = self.lent.get_mut(index as usize) else { return };
        if flags & !NOW != 0 || socket.flags.contains(Flags::MORE) {
            return;
        }
        let (by, most, received) = match *lent {
            Lent::Received(by, bytes) => (by, bytes, bytes),
            Lent::Empty(by, room) => (by, room, 0),
            Lent::No => return,
        };
        if by != h || len > most {
            return;
        }
        self.stack.tcp.send_frame_lone(&mut self.stack.core, conn, frame, len, received);
        if frame.is_none() {
            *lent = Lent::No;
            self.stack.core.lent -= 1;
        }
    }

    #[inline(always)]
    fn lend_now(&mut self, frame: &Frame, lent: Lent) {
        if let Some(place) = self.lent.get_mut(frame.index() as usize) {
            *place = lent;
            self.stack.core.lent += 1;
        }
    }

    /// [`Sockets::epoll_wait`] where one level-triggered member is listed, and ready: it
    /// stays listed, as it is. Some 60 instructions.
    #[inline(always)]
    pub fn epoll_now(&self, ep: Handle) -> Option<EpollEvent> {
        let set = self.table.set(ep)?;
        if !self.stack.core.events.is_empty() {
            return None;
        }
        let (place, wanted) = self.sets.lone(set)?;
        let socket = self.table.look(place)?;
        let ready = match socket.kind {
            Kind::Stream(conn) if !socket.flags.contains(Flags::SHUT_READ) => {
                self.stack.tcp.plain_readiness(conn, wanted.events & (EPOLLOUT | EPOLLWRNORM) != 0)?
            }
            Kind::Udp(id) => self.stack.udp.readiness(id),
            _ => return None,
        };
        let events = with_norms(ready.bits()) & wanted.events;
        (events != 0).then_some(EpollEvent { events, data: wanted.data })
    }

    /// Hands on what a batch brought where that is one event which tells nothing new, as
    /// with a request to an idle server. False, and nothing done, where it is not so.
    #[inline(always)]
    pub(super) fn deliver_known(&mut self) -> bool {
        let [only] = self.stack.core.events.as_slice() else { return false };
        let Some(socket) = self.table.look(only.token) else { return false };
        if socket.flags.contains(Flags::WATCHED) || !self.sets.knows(socket.members) {
            return false;
        }
        self.stack.core.events.clear();
        true
    }
}
