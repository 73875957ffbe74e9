//! Urgent data as RFC 6093 says it is used and Linux has it: one byte, the one
//! before where the pointer points, read apart (MSG_OOB) or in line; reading
//! stops at it once. The pointer that we send points behind the last byte too.

use super::connection::{Bits, Connection};
use super::input::Arrival;
use super::seq;
use super::types::{Disposition, Env, Events, State};
use crate::errno::{Errno, Result};
use crate::frame::{Frame, Pool};
use crate::wire::tcp::Flags;

/// What is known of the urgent byte that the peer announced last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Byte {
    /// There is none.
    #[default]
    None,
    /// It is still to come.
    Awaited,
    Here(u8),
    /// It was read apart; the mark stands until reading passes it.
    Taken,
}

/// Both directions of one connection.
#[derive(Debug, Default)]
pub(super) struct Urgent {
    byte: Byte,
    /// The number of the peer's urgent byte: the mark.
    at: u32,
    /// SO_OOBINLINE: the byte is read with the others.
    inline: bool,
    /// SND.UP: behind our last urgent byte. Only with `sending`.
    up: u32,
    /// `up` is not acknowledged yet.
    sending: bool,
}

impl Connection {
    /// The number of the next byte that the program reads.
    pub(super) fn read_seq(&self) -> u32 {
        let fin = u32::from(self.hot.bits.contains(Bits::PEER_CLOSED));
        self.hot.rcv_nxt.wrapping_sub(self.recv_len() as u32).wrapping_sub(fin)
    }

    fn urgent(&self) -> Option<&Urgent> {
        self.extra.as_ref().map(|e| &e.urgent)
    }

    /// Sixth: the urgent pointer (MUST-62; RFC 6093, 3), and the byte it is about.
    pub(super) fn note_urgent(&mut self, env: &mut Env, a: &Arrival) -> Disposition {
        let announced = a.seg.flags.contains(Flags::URG) && self.hot.state.can_receive();
        if announced {
            self.take_pointer(env, a);
        } else if !self.hot.bits.contains(Bits::URGENT) {
            return Disposition::NONE;
        }
        let Some(extra) = &mut self.extra else { return Disposition::NONE };
        let ahead = extra.urgent.at.wrapping_sub(a.seq) as usize;
        if extra.urgent.byte == Byte::Awaited
            && let Some(packet) = &a.payload
            && ahead < packet.len()
        {
            let mut at = ahead;
            let frames = core::iter::once(&packet.head).chain(packet.rest.iter().flat_map(|r| r.iter()));
            for frame in frames {
                if let Some(byte) = env.pool.bytes(frame).get(at) {
                    extra.urgent.byte = Byte::Here(*byte);
                    break;
                }
                at -= frame.len();
            }
            return Disposition { events: Events::URGENT, flush: false };
        }
        Disposition::NONE
    }

    /// A pointer counts where it points to what was neither read nor received,
    /// and beyond the last one.
    #[cold]
    fn take_pointer(&mut self, env: &mut Env, a: &Arrival) {
        let at = a.seg.seq.wrapping_add(u32::from(a.seg.urgent).saturating_sub(1));
        let read = self.read_seq();
        if seq::gt(read, at) || seq::lt(at, self.hot.rcv_nxt) {
            return;
        }
        let old = &self.extra().urgent;
        let (known, at_mark, inline) = (old.byte != Byte::None, old.at == read, old.inline);
        if known && !seq::gt(at, old.at) {
            return;
        }
        if known && at_mark && !inline && self.recv_len() > 0 {
            // The byte before was never part of the stream.
            self.skip_byte(env.pool);
        }
        let urgent = &mut self.extra().urgent;
        (urgent.byte, urgent.at) = (Byte::Awaited, at);
        self.hot.bits |= Bits::URGENT;
    }

    fn skip_byte(&mut self, pool: &mut Pool) {
        self.recv.skip(pool);
        let _due = self.recv_release(1);
    }

    /// Bytes that can be read before the mark; `None` where there is none.
    pub fn urgent_mark(&self) -> Option<u32> {
        let urgent = self.urgent().filter(|_| self.hot.bits.contains(Bits::URGENT))?;
        Some(seq::distance(self.read_seq(), urgent.at))
    }

    /// True where the next byte would be the urgent one (sockatmark, SIOCATMARK).
    pub fn at_mark(&self) -> bool {
        self.hot.bits.contains(Bits::URGENT)
            && self.urgent().is_some_and(|u| u.at == self.read_seq())
    }

    /// True where an urgent byte waits to be read apart (EPOLLPRI).
    pub(super) fn has_urgent(&self) -> bool {
        self.urgent().is_some_and(|u| matches!(u.byte, Byte::Here(_)))
    }

    /// Bytes that a read gets, or, in front of the mark, that lie before it
    /// (SIOCINQ as Linux counts).
    pub fn readable(&self) -> usize {
        if !self.hot.bits.contains(Bits::URGENT) || self.urgent().is_none_or(|u| u.inline) {
            return self.recv_len();
        }
        let before = self.urgent_mark().map_or(usize::MAX, |n| n as usize);
        self.recv_len().min(before)
    }

    /// True where a read gets something: the urgent byte in front does not count
    /// unless it is read in line.
    pub(super) fn has_readable(&self) -> bool {
        let apart = self.at_mark() && self.urgent().is_some_and(|u| !u.inline);
        self.recv_len() > usize::from(apart)
    }

    /// The mark is behind what was read.
    fn pass_mark(&mut self) {
        let read = self.read_seq();
        if let Some(extra) = &mut self.extra
            && seq::gt(read, extra.urgent.at)
        {
            extra.urgent.byte = Byte::None;
            self.hot.bits -= Bits::URGENT;
        }
    }

    /// [`Connection::recv`] where there is a mark: it stops there, and begins
    /// behind the urgent byte unless that is read in line.
    #[cold]
    pub(super) fn recv_marked(&mut self, env: &mut Env, buf: &mut [u8], peek: bool) -> usize {
        let inline = self.urgent().is_some_and(|u| u.inline);
        let n = match self.urgent_mark() {
            Some(0) if !inline && self.recv_len() == 0 => 0,
            Some(0) if !inline && peek => {
                let mut whole = vec![0; (buf.len() + 1).min(self.recv_len())];
                let n = self.recv.read(env.pool, &mut whole, true) - 1;
                buf[..n].copy_from_slice(&whole[1..=n]);
                n
            }
            Some(0) if !inline => {
                self.skip_byte(env.pool);
                self.recv.read(env.pool, buf, false)
            }
            Some(before) if before > 0 => {
                let most = buf.len().min(before as usize);
                self.recv.read(env.pool, &mut buf[..most], peek)
            }
            _ => self.recv.read(env.pool, buf, peek),
        };
        env.counters.rx_copied_bytes += n as u64;
        if !peek {
            if n > 0 {
                let _due = self.recv_release(n);
            }
            self.pass_mark();
        }
        n
    }

    /// [`Connection::recv_frame`] where there is a mark. The part of a frame
    /// before it goes to a fresh one.
    #[cold]
    pub(super) fn recv_frame_marked(&mut self, pool: &mut Pool) -> Option<Frame> {
        let inline = self.urgent().is_some_and(|u| u.inline);
        let before = self.urgent_mark()? as usize;
        if before > 0 {
            return self.recv.pop_part(pool, before);
        }
        if !inline && self.recv_len() > 0 {
            self.skip_byte(pool);
        }
        let frame = self.recv.pop();
        self.pass_mark();
        frame
    }

    /// Reads the urgent byte apart (MSG_OOB); `None` at the end of the stream.
    ///
    /// # Errors
    /// `EINVAL`: there is none, it was read, or it is read in line. `EAGAIN`: it
    /// is still to come.
    pub fn recv_urgent(&mut self, peek: bool) -> Result<Option<u8>> {
        let (over, closed) = (
            self.hot.state == State::Closed,
            self.hot.bits.contains(Bits::PEER_CLOSED),
        );
        let known = self.hot.bits.contains(Bits::URGENT);
        let Some(extra) = self.extra.as_mut().filter(|_| known) else { return Err(Errno::EINVAL) };
        let urgent = &mut extra.urgent;
        if urgent.inline {
            return Err(Errno::EINVAL);
        }
        match urgent.byte {
            Byte::None | Byte::Taken => Err(Errno::EINVAL),
            Byte::Here(byte) => {
                if !peek {
                    urgent.byte = Byte::Taken;
                }
                Ok(Some(byte))
            }
            Byte::Awaited if over || closed => Ok(None),
            Byte::Awaited => Err(Errno::EAGAIN),
        }
    }

    /// SO_OOBINLINE.
    pub fn set_oob_inline(&mut self, on: bool) {
        if on || self.extra.is_some() {
            self.extra().urgent.inline = on;
        }
    }

    /// All that was written so far is urgent: the pointer goes behind it
    /// (MSG_OOB).
    pub fn mark_urgent(&mut self) {
        let up = self.hot.snd_end;
        let urgent = &mut self.extra().urgent;
        (urgent.up, urgent.sending) = (up, true);
        self.hot.bits |= Bits::CARE;
    }

    /// True until the peer has acknowledged our urgent data.
    pub(super) fn urgent_out(&self) -> bool {
        self.hot.bits.contains(Bits::CARE)
            && self.urgent().is_some_and(|u| u.sending && seq::gt(u.up, self.hot.snd_una))
    }

    /// The urgent pointer of a segment that begins at `from`, if it has one. One
    /// too far away for its 16 bits points as far as they go, where nothing that
    /// was sent lies beyond.
    pub(super) fn urgent_pointer(&self, from: u32) -> Option<u16> {
        if !self.urgent_out() {
            return None;
        }
        let up = self.urgent()?.up;
        match up.wrapping_sub(from) {
            _ if !seq::gt(up, from) => None,
            ahead @ 1..=0xffff => Some(ahead as u16),
            _ if seq::gt(from.wrapping_add(0xffff), self.hot.snd_nxt) => Some(0xffff),
            _ => None,
        }
    }
}
