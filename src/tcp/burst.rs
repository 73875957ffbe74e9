//! What leaves together: how much of it, and where PSH stands in the middle of a write.

use super::connection::{Bits, Connection};
use super::output::Along;
use super::send_queue::{Marks, Segment};
use super::seq;
use super::template::Fields;
use super::types::Env;
use crate::wire::tcp::Flags;

/// Why a step of output ended early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// The transmit queue is full or the pool empty.
    Full,
    /// As much left as may in one turn.
    Share,
}

/// Bytes of new data after which a connection gives way until the next turn. What
/// leaves in a turn was written, goes to the device, is acknowledged and has its frames
/// filled again: as little as keeps the device busy stays in the processor's caches on
/// all of that way. Acknowledgments come in between, and other connections.
const SHARE: u32 = 64 * 1024;

/// Segments that leave one after another.
#[derive(Debug, Default)]
pub(super) struct Burst {
    /// So many left from the middle of a write since the last PSH.
    place: u32,
    /// With so many PSH is due; zero before it is needed.
    most: u32,
    /// Bytes that left.
    bytes: u32,
}

impl Burst {
    /// As much left as may in one turn.
    #[inline(always)]
    pub fn is_over(&self) -> bool {
        self.bytes >= SHARE
    }

    /// A segment of `len` bytes leaves: one that ends a write, and has PSH for that; or
    /// else, true where it has it as the last of several.
    #[inline(always)]
    fn goes(&mut self, len: u32, pushed: bool, ends_flight: bool) -> bool {
        self.bytes += len;
        let place = self.place;
        let full = place + 1 == self.most || self.is_over();
        self.place = if pushed || full { 0 } else { place + 1 };
        !pushed && place > 0 && (full || ends_flight)
    }
}

impl Segment {
    /// It can be sent from where it lies.
    #[inline(always)]
    fn is_ready(&self, env: &Env, room: usize) -> bool {
        let (queue, idle) = match self.more {
            0 => (1, !env.pool.is_pending(&self.frame)),
            _ => (env.pool.pieces(&self.frame), !env.pool.is_chain_pending(&self.frame)),
        };
        idle && self.frame.offset() == room && env.tx.room() >= queue && env.pool.is_home(&self.frame)
    }

    /// Hands it, which [is ready](Self::is_ready), to the device with headers by `write`.
    #[inline(always)]
    fn leave(&mut self, env: &mut Env, room: usize, write: impl FnOnce(&mut [u8])) {
        write(env.pool.buffer_mut(&mut self.frame));
        let len = room + self.frame.len();
        if self.more > 0 {
            return env.pool.transmit_chain(&self.frame, len, env.tx);
        }
        let desc = env.pool.transmit(&self.frame, len);
        env.tx.push(desc);
    }
}

impl Connection {
    /// Segments that Linux would hand to its device as one packet: about a
    /// millisecond's worth at twice the rate of the window, more where the path is
    /// short; so many at least (`Config::least_train`).
    pub(super) fn train(&self, least: u32) -> u32 {
        let (h, rtt) = (&self.hot, self.warm.rtt.smoothed());
        if rtt == 0 {
            return u32::MAX;
        }
        let rate = u64::from(self.warm.congestion.window) * 2_000_000 / u64::from(rtt);
        let near = 65_536u64 >> (self.warm.min_rtt.least() >> 9).min(63);
        (((rate >> 10) + near) / u64::from(h.mss)).clamp(least.clamp(1, 1000).into(), 1000) as u32
    }

    /// Finds out with how many segments PSH is due, if it is not known yet.
    #[inline]
    fn begin(&self, least: u32, burst: &mut Burst) {
        if burst.most == 0 {
            let half = self.warm.congestion.window / u32::from(self.hot.mss) / 2;
            burst.most = half.clamp(1, self.train(least));
        }
    }

    /// Segment `i`, of so many bytes, leaves. True where it is from the middle of a write
    /// (it does not end one) and carries PSH as the last of several that leave together:
    /// one that ends the flight, fills half a window, or ends a train or what one turn
    /// sends. The peer need not wait for more.
    #[inline]
    pub(super) fn ends_train(&self, least: u32, i: usize, (len, pushed): (u32, bool), burst: &mut Burst) -> bool {
        if pushed {
            return burst.goes(len, true, false);
        }
        self.begin(least, burst);
        burst.goes(len, false, self.ends_flight(i, len))
    }

    /// Nothing leaves behind segment `i`, for want of data or of room.
    #[inline]
    fn ends_flight(&self, i: usize, len: u32) -> bool {
        let h = &self.hot;
        if h.send.is_last(i) {
            return true;
        }
        let both = len + h.send.get(i + 1).len().min(h.mss.into());
        let edge = h.snd_una.wrapping_add(h.snd_wnd);
        self.pipe() + both > self.warm.congestion.window || seq::distance(h.snd_nxt, edge) < both
    }

    /// Sends what is plain of the segments that were never sent: from their own frames,
    /// within both windows, not spaced out, with nothing else to be said. All but the
    /// last, which may have to wait, or carry a FIN. What they have in common is found
    /// out once.
    #[inline(never)]
    pub(super) fn send_row(&mut self, env: &mut Env, burst: &mut Burst) {
        let odd = Bits::PROBE_DUE | Bits::ECN_BUSY | Bits::CARE;
        if self.hot.bits.intersects(odd) || self.warm.congestion.is_spaced() {
            return;
        }
        self.begin(env.config.least_train, burst);
        let (room, timestamp, window) = (self.room(), self.data_timestamp(env.now), self.window_now());
        let edge = self.hot.snd_una.wrapping_add(self.hot.snd_wnd);
        let open = self.warm.congestion.window.saturating_sub(self.pipe());
        let (h, template) = (&mut self.hot, &self.template);
        let (mss, rcv_nxt) = (u32::from(h.mss), h.rcv_nxt);
        let all = seq::distance(h.snd_nxt, edge).min(open);
        let (mut left, mut sent) = (all, 0);
        {
            let mut row = h.send.unsent();
            let mut next = row.next();
            while let (Some(seg), Some(behind)) = (next, row.next()) {
                let (len, sum) = (seg.len(), seg.sum);
                if len > left.min(mss) || burst.is_over() || !seg.is_ready(env, room) {
                    break;
                }
                let pushed = seg.marks.contains(Marks::PUSH);
                let train = burst.goes(len, pushed, left < len + behind.len().min(mss));
                let mut flags = Flags::ACK;
                flags.set(Flags::PSH, pushed || train);
                let fields = Fields { seq: seg.seq, ack: rcv_nxt, flags, window };
                seg.leave(env, room, |head| template.stamp_data(head, fields, timestamp, len as usize, sum));
                seg.sent_at = env.now;
                seg.marks.set(Marks::TRAIN, train);
                left -= len;
                sent += 1;
                next = Some(behind);
            }
        }
        if sent > 0 {
            h.send.on_sent(sent);
            h.snd_nxt = h.snd_nxt.wrapping_add(all - left);
            self.warm.last_sent = env.now;
            env.counters.tcp_segments_out += u64::from(sent) - 1;
            self.ack_left(env.counters, true);
        }
    }

    /// Sends segment `i` again. Where the one in front of it in its train did just
    /// then (up to `end`), it carries PSH as it did the first time. Gives what the
    /// next is to be told.
    #[cold]
    pub(super) fn send_again(&mut self, env: &mut Env, i: usize, end: Option<u32>) -> Result<Option<u32>, Stop> {
        let seg = self.hot.send.get(i);
        let (last, next) = (seg.marks.contains(Marks::TRAIN), seg.end());
        let with = Along { fin: false, push: last && end == Some(seg.seq) };
        self.send_segment(env, i, with)?;
        Ok((!last).then_some(next))
    }
}
