//! What can be asked of a connection.

use super::connection::{Bits, Connection, Watch};
use super::seq;
use super::types::{Readiness, State};
use super::Template;
use crate::errno::Errno;
use crate::frame::Pool;
use crate::time::Instant;
use crate::wire::ethernet::Mac;

impl Connection {
    /// The state.
    #[inline]
    pub fn state(&self) -> State {
        self.hot.state
    }

    /// Our address and port.
    pub fn local(&self) -> core::net::SocketAddr {
        self.template.local()
    }

    /// The peer's address and port.
    pub fn remote(&self) -> core::net::SocketAddr {
        self.template.remote()
    }

    /// The headers, to change TTL or type of service.
    pub fn template_mut(&mut self) -> &mut Template {
        &mut self.template
    }

    /// The earliest of the timers; [`Instant::NEVER`] if none is set.
    #[inline]
    pub fn deadline(&self) -> Instant {
        self.warm.timers.earliest().min(self.cold.timers.earliest())
    }

    /// True where `flush` has something to do.
    #[inline]
    pub fn wants_flush(&self) -> bool {
        let due = Bits::ACK_NOW
            | Bits::SYN_DUE
            | Bits::KEEP_DUE
            | Bits::PROBE_DUE
            | Bits::TAIL_DUE
            | Bits::FIN_LOST;
        let h = &self.hot;
        h.bits.intersects(due) || h.send.lost() > 0 || h.send.has_unsent() || self.owes_fin()
    }

    /// A FIN is queued and was never sent.
    #[inline]
    pub(super) fn owes_fin(&self) -> bool {
        self.hot.bits.contains(Bits::FIN_QUEUED) && !self.hot.bits.contains(Bits::FIN_SENT)
    }

    /// True once the peer's FIN came in order and all data before it was read, but
    /// perhaps for an urgent byte that is not read with the others.
    #[inline]
    pub fn eof(&self) -> bool {
        self.hot.bits.contains(Bits::PEER_CLOSED) && !self.has_readable()
    }

    /// Bytes that can be read.
    #[inline]
    pub fn recv_len(&self) -> usize {
        self.recv.len()
    }

    /// Bytes that `send` takes now, memory permitting.
    #[inline]
    pub fn send_space(&self) -> usize {
        if !self.may_send() {
            return 0;
        }
        self.hot.snd_buf.saturating_sub(self.queued()) as usize
    }

    /// Bytes written that are not acknowledged.
    #[inline]
    pub(super) fn queued(&self) -> u32 {
        seq::distance(self.hot.snd_una, self.hot.snd_end)
    }

    /// Bytes written that are not acknowledged, a FIN not counted (SIOCOUTQ).
    pub fn unacknowledged(&self) -> u32 {
        if self.hot.state.is_synchronized() { self.queued() } else { 0 }
    }

    /// Bytes written that were not sent (SIOCOUTQNSD).
    pub fn unsent(&self) -> u32 {
        seq::distance(self.hot.snd_nxt, self.hot.snd_end)
    }

    /// True where the last `send` stopped for want of a frame, not of buffer.
    /// No ACK need come that would wake the program: whoever sees this says
    /// [`Connection::fed`] when there are frames again. Until then, or the next
    /// call, there is no room to send.
    pub fn starved(&self) -> bool {
        self.hot.bits.contains(Bits::STARVED)
    }

    /// There are frames again.
    pub fn fed(&mut self) {
        self.hot.bits -= Bits::STARVED;
    }

    /// True after `shutdown_send` or `close`.
    pub fn send_shut(&self) -> bool {
        self.hot.bits.contains(Bits::FIN_QUEUED) || self.hot.state == State::Closed
    }

    /// True where at least a third of the send buffer is free (as Linux has it).
    #[inline(always)]
    pub(super) fn writable(&self) -> bool {
        let queued = u64::from(self.queued());
        queued * 3 <= u64::from(self.hot.snd_buf) * 2 && self.send_space() > 0
    }

    /// So much waits as the program wants at a time (SO_RCVLOWAT), or something, and
    /// the peer may send no more of it.
    #[inline(always)]
    fn has_enough(&self) -> bool {
        let n = self.recv_len();
        let waits = self.warm.watch.contains(Watch::LOW_WATER) && n < self.cold.low_water as usize;
        n > 0 && (!waits || self.window_is_used())
    }

    /// Since when nothing gets through; [`Instant::NEVER`]: it does.
    pub(super) fn stalled(&self) -> Instant {
        if self.warm.watch.contains(Watch::STALLED) { self.cold.stalled } else { Instant::NEVER }
    }

    /// At most a segment is left of the window that was announced.
    pub fn window_is_used(&self) -> bool {
        seq::distance(self.hot.rcv_nxt, self.hot.rcv_edge) <= self.hot.rcv_mss.into()
    }

    /// What a program can do at once, in epoll's bits, as Linux reports it.
    #[inline(always)]
    pub fn readiness(&self) -> Readiness {
        self.plain_readiness(true).unwrap_or_else(|| self.any_readiness())
    }

    /// The same, without a call, of a connection that is open and in no trouble; whether
    /// it can be written to only where that is `asked`.
    #[inline(always)]
    pub fn plain_readiness(&self, asked: bool) -> Option<Readiness> {
        let h = &self.hot;
        let over = Bits::PEER_CLOSED | Bits::FIN_QUEUED | Bits::STARVED | Bits::URGENT;
        if h.state != State::Established || h.bits.intersects(over) || self.warm.error.is_some() {
            return None;
        }
        let mut ready = Readiness::empty();
        ready.set(Readiness::IN, self.has_enough());
        ready.set(Readiness::OUT, asked && self.writable());
        Some(ready)
    }

    #[inline(never)]
    pub(super) fn any_readiness(&self) -> Readiness {
        let h = &self.hot;
        let mut ready = Readiness::empty();
        ready.set(Readiness::ERR, self.warm.error.is_some());
        let peer_closed = h.bits.contains(Bits::PEER_CLOSED) || h.state == State::Closed;
        let both = h.state == State::Closed || peer_closed && h.bits.contains(Bits::FIN_QUEUED);
        ready.set(Readiness::HUP, both);
        ready.set(Readiness::RDHUP, peer_closed);
        if h.state == State::SynSent || h.state == State::SynReceived && !self.is_early() {
            // One whose SYN waits for data can be given some.
            ready.set(Readiness::OUT, self.is_deferred());
            return ready;
        }
        ready.set(Readiness::IN, peer_closed || self.has_readable() && self.has_enough());
        ready.set(Readiness::PRI, self.has_urgent());
        let starved = h.bits.contains(Bits::STARVED);
        ready.set(Readiness::OUT, self.send_shut() || self.writable() && !starved);
        ready
    }

    /// The error that ended the connection, or a soft one; once.
    pub fn take_error(&mut self) -> Option<Errno> {
        self.warm.error.take().and_then(number_error)
    }

    /// True where an error is there to be taken.
    pub fn has_error(&self) -> bool {
        self.warm.error.is_some()
    }

    /// Puts an error back that was taken.
    pub fn put_error(&mut self, error: Errno) {
        self.warm.error = core::num::NonZeroU8::new(error as u8);
    }

    /// The last soft error (RFC 1122, 4.2.4.1), not taken.
    pub fn soft_error(&self) -> Option<Errno> {
        self.cold.soft_error.and_then(number_error)
    }

    /// The next hop's hardware address, or that it is not known: then nothing
    /// is sent until it is.
    pub fn set_path(&mut self, mac: Option<Mac>) {
        if self.template.is_raw() {
            return;
        }
        self.hot.bits.set(Bits::PATH, mac.is_some());
        if let Some(mac) = mac {
            self.template.set_dst_mac(mac);
        }
    }

    /// Sets our own hardware address.
    pub fn set_source(&mut self, mac: Mac) {
        self.template.set_src_mac(mac);
    }

    /// Frames that the connection holds.
    pub fn held_frames(&self) -> usize {
        self.hot.send.frames() + self.recv.frames()
    }

    /// Ends it, whatever its state, and gives all frames back. Nothing is sent.
    pub fn dispose(mut self, pool: &mut Pool) {
        self.give_back(pool);
    }

    /// As [`Connection::dispose`], in the place where it lies; it is to be dropped next.
    pub fn give_back(&mut self, pool: &mut Pool) {
        self.hot.send.clear(pool);
        self.recv.clear(pool);
    }
}

/// The error of a number that is kept in a byte.
fn number_error(number: core::num::NonZeroU8) -> Option<Errno> {
    Errno::from_raw(number.get().into())
}
