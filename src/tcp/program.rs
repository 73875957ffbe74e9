//! What the program calls (RFC 9293, 3.9.1): send, receive, close, abort.

use super::Config;
use super::connection::{Bits, Connection};
use super::send_queue::Marks;
use super::seq;
use super::timers::{Slow, SlowTimers, Timers};
use super::types::{Disposition, Env, Events, State};
use crate::arch;
use crate::errno::Errno;
use crate::frame::{Frame, Pool};
use crate::telemetry::Counters;
use crate::wire::checksum;
use core::num::NonZeroU8;

impl Connection {
    /// Copies `data` to the send buffer, summing it on the way. Returns how many
    /// bytes were taken: 0 where the buffer is full, no frame is free
    /// ([`Connection::starved`]), or the state takes no data. It leaves at the
    /// next flush; the last byte is pushed (MUST-61).
    #[inline]
    pub fn send(&mut self, env: &mut Env, data: &[u8]) -> usize {
        match self.send_whole(env.pool, env.counters, env.config, data) {
            true => data.len(),
            false => self.send_any(env, data),
        }
    }

    /// The shortest way of [`send`](Self::send), without a call: a few bytes that become a
    /// segment of their own, with none before them that is not acknowledged. False, and
    /// nothing done, where it is not so.
    #[inline(always)]
    pub fn send_lone(
        &mut self,
        pool: &mut Pool,
        counters: &mut Counters,
        config: &Config,
        data: &[u8],
    ) -> bool {
        let fits = data.len() <= self.hot.send.piece.into() && data.len() <= self.send_space();
        let few = !data.is_empty() && data.len() <= arch::SHORT;
        let reserve = 2 * u64::from(config.frame_reserve);
        if !few || !fits || !self.hot.send.is_empty() || u64::from(pool.available()) <= reserve {
            return false;
        }
        let Some(frame) = pool.alloc() else { return false };
        let room = self.room();
        self.hot.send.push_lone(pool, frame, self.hot.snd_end, data, room);
        self.hot.bits -= Bits::STARVED;
        self.hot.snd_end = self.hot.snd_end.wrapping_add(data.len() as u32);
        counters.tx_copied_bytes += data.len() as u64;
        true
    }

    /// The short way of [`send`](Self::send): a write that becomes a segment of
    /// its own. False, and nothing done, where it does not.
    #[inline(always)]
    fn send_whole(
        &mut self,
        pool: &mut Pool,
        counters: &mut Counters,
        config: &Config,
        data: &[u8],
    ) -> bool {
        let (room, piece) = (self.room(), usize::from(self.hot.send.piece));
        let fits = data.len() <= piece && data.len() <= self.send_space() && !data.is_empty();
        if !fits || self.hot.send.has_unsent() || pool.available() <= config.send_reserve() {
            return false;
        }
        let Some(frame) = pool.alloc() else { return false };
        self.hot.bits -= Bits::STARVED;
        let end = self.hot.snd_end;
        self.hot.send.push_copy(pool, frame, end, data, room, Marks::PUSH);
        self.hot.snd_end = end.wrapping_add(data.len() as u32);
        counters.tx_copied_bytes += data.len() as u64;
        true
    }

    #[inline(never)]
    fn send_any(&mut self, env: &mut Env, data: &[u8]) -> usize {
        self.hot.bits -= Bits::STARVED;
        let data = &data[..data.len().min(self.send_space())];
        let (room, mss) = (self.room(), usize::from(self.hot.mss));
        if self.hot.mss > self.hot.send.piece {
            return self.queue_chains(env, data, 0);
        }
        let done = self.hot.send.append(env.pool, data, room, mss);
        self.hot.snd_end = self.hot.snd_end.wrapping_add(done as u32);
        self.queue_pieces(env, data, done)
    }

    /// Queues `data` but for what is done of it; how much then is.
    pub(super) fn queue_pieces(&mut self, env: &mut Env, data: &[u8], mut done: usize) -> usize {
        let (room, mss) = (self.room(), usize::from(self.hot.mss));
        if self.hot.mss > self.hot.send.piece {
            return self.queue_chains(env, data, done);
        }
        while done < data.len() {
            if env.pool.available() <= env.config.send_reserve() {
                self.hot.bits |= Bits::STARVED;
                break;
            }
            let Some(frame) = env.pool.alloc() else { break };
            let end = self.hot.snd_end;
            let n = (data.len() - done).min(mss);
            let piece = &data[done..done + n];
            self.hot.send.push_copy(env.pool, frame, end, piece, room, Marks::empty());
            done += n;
            self.hot.snd_end = end.wrapping_add(n as u32);
        }
        if done > 0 {
            self.hot.send.push_mark();
            env.counters.tx_copied_bytes += done as u64;
        }
        done
    }

    /// A frame to write a segment into; its range is where the payload goes.
    /// `None` where there is no room to send or no free frame.
    #[inline]
    pub fn send_alloc(&mut self, env: &mut Env) -> Option<Frame> {
        let frame = self.send_alloc_now(env.pool, env.config);
        self.hot.bits.set(Bits::STARVED, frame.is_none() && self.send_space() > 0);
        frame
    }

    /// The same, without a call; nothing is done where there is none.
    #[inline(always)]
    pub fn send_alloc_now(&mut self, pool: &mut Pool, config: &Config) -> Option<Frame> {
        let n = self.send_space().min(self.hot.send.piece.into());
        if n == 0 || pool.available() <= config.send_reserve() {
            return None;
        }
        let mut frame = pool.alloc()?;
        frame.set_range(self.room(), n);
        Some(frame)
    }

    /// Sends the frame's range without copying it. It leaves at the next flush: as it is
    /// where the range begins behind as much room as the headers need, else, and where it
    /// is another worker's, as a copy.
    ///
    /// # Errors
    /// The frame itself, where the state or buffer takes no data, the range is empty or
    /// longer than a segment, the frame is being transmitted, or there is none to copy
    /// another worker's to.
    pub fn send_frame(&mut self, env: &mut Env, frame: Frame) -> Result<(), Frame> {
        let room = self.send_space();
        self.send_within(env, frame, room)
    }

    fn send_within(&mut self, env: &mut Env, mut frame: Frame, room: usize) -> Result<(), Frame> {
        let n = frame.len();
        let fits = n > 0 && n <= room && n <= self.hot.send.piece.into();
        let inside = frame.offset() + n <= env.pool.arena().capacity();
        if !fits || !inside || !env.pool.arena().owns(&frame) || env.pool.is_pending(&frame) {
            return Err(frame);
        }
        if !env.pool.is_home(&frame) {
            frame = self.copy_home(env, frame)?;
        }
        let sum = checksum::sum(env.pool.bytes(&frame)).fold();
        self.hot.send.push(frame, self.hot.snd_end, sum, Marks::PUSH);
        self.hot.snd_end = self.hot.snd_end.wrapping_add(n as u32);
        Ok(())
    }

    /// As [`send_frame`](Self::send_frame) with a frame that was received. Refused also
    /// where few frames are free, but for the first if it takes none from the pool: a peer
    /// that acknowledges nothing must not have all.
    #[inline]
    pub fn send_received(&mut self, env: &mut Env, frame: Frame) -> Result<(), Frame> {
        let takes = !self.hot.send.is_empty() || !env.pool.is_home(&frame);
        let low = takes && env.pool.available() <= env.config.send_reserve();
        self.hot.bits.set(Bits::STARVED, low);
        // It is as long as it is: where the program was told of room it may go beyond, as
        // nothing else would tell of more.
        let room = if self.writable() { usize::MAX } else { self.send_space() };
        if low { Err(frame) } else { self.send_within(env, frame, room) }
    }

    /// Why [`send_frame`](Self::send_frame) would not take a frame, of the program's or
    /// `received`. Several may be out, each as large as the room there was.
    pub fn why_not_sent(&self, frame: &Frame, received: bool) -> Errno {
        match frame.len() {
            n if received && n > self.hot.send.piece.into() => Errno::EMSGSIZE,
            n if n > self.send_space() || received => Errno::EAGAIN,
            _ => Errno::EINVAL,
        }
    }

    /// A copy of another worker's frame, which came in on its queue and goes home.
    #[cold]
    fn copy_home(&mut self, env: &mut Env, frame: Frame) -> Result<Frame, Frame> {
        let (room, n) = (self.room(), frame.len());
        if env.pool.available() <= env.config.send_reserve() {
            return Err(frame);
        }
        let Some(mut copy) = env.pool.alloc() else { return Err(frame) };
        copy.set_range(room, n);
        env.pool.bytes_mut(&mut copy).copy_from_slice(env.pool.bytes(&frame));
        env.counters.tx_copied_bytes += n as u64;
        env.pool.free(frame);
        Ok(copy)
    }

    /// The shortest way of [`send_frame`](Self::send_frame), without a call: the first
    /// `len` bytes of a frame, which are few and become a segment of their own. `received`:
    /// so many bytes of it were lent, and are used with this. The frame is taken, or left
    /// with nothing done.
    #[inline(always)]
    pub fn send_frame_lone(
        &mut self,
        pool: &Pool,
        frame: &mut Option<Frame>,
        len: u16,
        received: u16,
    ) {
        let n = usize::from(len);
        if !(1..=arch::SHORT).contains(&n) || len > self.hot.send.piece || n > self.send_space() {
            return;
        }
        if received > 0 && self.may_announce() || !self.hot.send.is_empty() {
            return;
        }
        let Some(bytes) = frame.as_ref().and_then(|frame| pool.idle_bytes(frame, len)) else { return };
        let sum = checksum::sum_short(bytes).fold();
        let Some(mut frame) = frame.take() else { return };
        frame.set_range(frame.offset(), n);
        self.hot.send.push_lone_frame(frame, self.hot.snd_end, sum);
        self.hot.snd_end = self.hot.snd_end.wrapping_add(len.into());
        self.hot.rcv_used = self.hot.rcv_used.saturating_sub(received.into());
    }

    /// Copies received data to `buf`. Returns how many bytes; 0 with
    /// [`Connection::eof`] is the end. `peek` leaves them in the queue. Where
    /// [`Connection::wants_flush`] is true afterwards a window update is due.
    #[inline]
    pub fn recv(&mut self, env: &mut Env, buf: &mut [u8], peek: bool) -> usize {
        if self.hot.bits.contains(Bits::URGENT) {
            return self.recv_marked(env, buf, peek);
        }
        let n = self.recv.read(env.pool, buf, peek);
        env.counters.rx_copied_bytes += n as u64;
        if !peek && n > 0 {
            let _due = self.recv_release(n);
        }
        n
    }

    /// The shortest way of [`recv`](Self::recv), without a call: little data, in one frame,
    /// of which `buf` takes all. 0, and nothing done, where it is not so, and where more
    /// is to be done: about an urgent byte, or the window.
    #[inline(always)]
    pub fn recv_lone(&mut self, pool: &mut Pool, counters: &mut Counters, buf: &mut [u8]) -> usize {
        if self.hot.bits.contains(Bits::URGENT) || self.may_announce() {
            return 0;
        }
        let n = self.recv.read_lone(pool, buf);
        if n == 0 {
            return 0;
        }
        self.hot.rcv_used = self.hot.rcv_used.saturating_sub(n as u32);
        counters.rx_copied_bytes += n as u64;
        n
    }

    /// Lends the first frame of received data; its range is the data. The window
    /// opens when [`Connection::recv_release`] is told its length.
    pub fn recv_frame(&mut self, pool: &mut Pool) -> Option<Frame> {
        if self.hot.bits.contains(Bits::URGENT) {
            return self.recv_frame_marked(pool);
        }
        self.recv.pop()
    }

    /// As [`recv_frame`](Self::recv_frame), without a call. `None`, and nothing done,
    /// also where there are several, or an urgent mark.
    #[inline(always)]
    pub fn recv_frame_now(&mut self) -> Option<Frame> {
        if self.hot.bits.contains(Bits::URGENT) { None } else { self.recv.pop_only() }
    }

    /// As [`recv_release`](Self::recv_release), without a call, and frees the frame. It is
    /// left, with nothing done, where more is to be done.
    #[inline(always)]
    pub fn recv_release_now(&mut self, pool: &mut Pool, frame: &mut Option<Frame>, bytes: u16) {
        if self.may_announce() {
            return;
        }
        pool.free_idle(frame);
        if frame.is_none() {
            self.hot.rcv_used = self.hot.rcv_used.saturating_sub(bytes.into());
        }
    }

    /// Data of so many bytes that was lent was used. The frame is freed by
    /// whoever has it.
    #[inline]
    pub fn recv_release(&mut self, bytes: usize) -> Disposition {
        self.hot.rcv_used = self.hot.rcv_used.saturating_sub(bytes as u32);
        self.after_release()
    }

    /// Announces the window where it has grown by enough: at least a segment or
    /// half the buffer (MUST-39, RFC 9293, 3.8.6.2.2), and to twice what is left.
    #[inline]
    pub(super) fn after_release(&mut self) -> Disposition {
        if !self.may_announce() {
            return Disposition::NONE;
        }
        let h = &mut self.hot;
        let left = seq::distance(h.rcv_nxt, h.rcv_edge);
        // Not more than the header can say.
        let free = h.rcv_buf.saturating_sub(h.rcv_used).min(65_535 << h.rcv_scale);
        let step = u32::from(self.warm.adv_mss).min(h.rcv_buf / 2);
        let due = free >= left.saturating_mul(2).max(left + step) && h.state.can_receive();
        if due {
            h.bits |= Bits::ACK_NOW;
        }
        Disposition { events: Events::empty(), flush: due }
    }

    /// True where so little is left of the window that a larger one may be worth
    /// announcing: twice more than half the buffer can never be free.
    #[inline(always)]
    fn may_announce(&self) -> bool {
        seq::distance(self.hot.rcv_nxt, self.hot.rcv_edge) <= self.hot.rcv_buf / 2
    }

    /// The window to announce, as it stands in the header. Its right edge never
    /// moves left (SHLD-14; what the scale cannot express is announced less but
    /// taken all the same, RFC 7323, 2.4), and moves right only by enough
    /// (MUST-39).
    #[inline(never)]
    pub(super) fn window(&mut self) -> u16 {
        let step = u32::from(self.warm.adv_mss);
        let h = &mut self.hot;
        let left = seq::distance(h.rcv_nxt, h.rcv_edge);
        let free = h.rcv_buf.saturating_sub(h.rcv_used);
        let scale = if h.state == State::SynSent { 0 } else { h.rcv_scale };
        let mut units = left >> scale;
        if free >= left + step.min(h.rcv_buf / 2) {
            units = units.max(free >> scale);
        }
        let units = units.min(65_535);
        h.rcv_edge = seq::max(h.rcv_edge, h.rcv_nxt.wrapping_add(units << scale));
        units as u16
    }

    /// As [`window`](Self::window) in a state that has one, where it mostly shrinks by
    /// what came in and stays within what was announced.
    #[inline(always)]
    pub(super) fn window_now(&mut self) -> u16 {
        let h = &self.hot;
        let left = h.rcv_edge.wrapping_sub(h.rcv_nxt);
        let free = h.rcv_buf.saturating_sub(h.rcv_used);
        let step = u32::from(self.warm.adv_mss).min(h.rcv_buf / 2);
        if left as i32 >= 0 && free < left.saturating_add(step) {
            return (left >> h.rcv_scale).min(65_535) as u16;
        }
        self.window()
    }

    /// The program sends no more: a FIN follows the queued data (half-close).
    pub fn shutdown_send(&mut self) -> Disposition {
        let next = match self.hot.state {
            State::SynReceived | State::Established => State::FinWait1,
            State::CloseWait => State::LastAck,
            _ => return Disposition::NONE,
        };
        // In SYN-RECEIVED the handshake goes on; its end finds the FIN queued.
        if self.hot.state != State::SynReceived {
            self.hot.state = next;
        }
        self.hot.bits |= Bits::FIN_QUEUED;
        Disposition { events: Events::empty(), flush: true }
    }

    /// The program has done with the connection. Data that it did not read makes
    /// this an abort (RFC 2525, 2.17; SHLD-3); else what is queued is sent, then
    /// a FIN. The connection lives on by itself until CLOSED or TIME-WAIT.
    pub fn close(&mut self, env: &mut Env) -> Disposition {
        self.hot.bits |= Bits::ORPHAN;
        match self.hot.state {
            State::Closed | State::Listen => Disposition::NONE,
            State::SynSent => self.end(env, None),
            State::TimeWait => {
                self.recv.clear(env.pool);
                Disposition::NONE
            }
            _ if self.recv_len() > 0 => self.abort(env),
            State::FinWait2 => {
                self.cold.timers.set(Slow::Linger, env.now + env.config.fin_wait_2);
                Disposition::NONE
            }
            _ => self.shutdown_send(),
        }
    }

    /// Ends the connection at once, with an RST where the peer knows of it
    /// (RFC 9293, 3.10.5). Queued data is lost.
    pub fn abort(&mut self, env: &mut Env) -> Disposition {
        match self.hot.state {
            State::Closed => return Disposition::NONE,
            State::SynSent | State::Listen | State::TimeWait => {}
            State::SynReceived => self.send_reset(env, self.hot.snd_nxt, Some(self.hot.rcv_nxt)),
            _ => self.send_reset(env, self.acceptable_seq(), Some(self.hot.rcv_nxt)),
        }
        env.counters.tcp_aborted += 1;
        self.end(env, None)
    }

    /// Goes to CLOSED; what was received stays to be read, unless the program is
    /// gone.
    pub(super) fn end(&mut self, env: &mut Env, error: Option<Errno>) -> Disposition {
        let mut events = Events::CLOSED;
        self.hot.state = State::Closed;
        (self.warm.timers, self.cold.timers) = (Timers::OFF, SlowTimers::OFF);
        self.hot.send.clear(env.pool);
        self.recv.drop_ahead(env.pool);
        self.hot.snd_end = self.hot.snd_una;
        self.hot.bits -= Bits::ACK_NOW
            | Bits::ACK_PENDING
            | Bits::SYN_DUE
            | Bits::KEEP_DUE
            | Bits::PROBE_DUE
            | Bits::FIN_LOST
            | Bits::GAP
            | Bits::FIN_QUEUED;
        if self.hot.bits.contains(Bits::ORPHAN) {
            self.recv.clear(env.pool);
        }
        if let Some(error) = error {
            self.warm.error = NonZeroU8::new(error as u8);
            events |= Events::ERROR;
        }
        Disposition { events, flush: false }
    }
}
