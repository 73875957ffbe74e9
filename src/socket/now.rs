//! The short ways: what is there now, little of it, and nothing unusual about it. They
//! make no call, so that a caller that makes none itself need not save a register: of
//! the few instructions that such a call takes, saving them would be a third. Where
//! there is no such way nothing was done, and the long one looks at everything.

use super::Sockets;
use super::linux::*;
use super::table::{Flags, Kind};
use super::types::{EpollEvent, Handle};

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
            Kind::Stream(conn) if !socket.flags.contains(Flags::SHUT_READ) => self.stack.tcp.plain_readiness(conn)?,
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
