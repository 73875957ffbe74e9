//! What leaves together: where PSH stands in the middle of a write.

use super::connection::Connection;
use super::output::{Full, Sent};
use super::send_queue::Marks;
use super::seq;
use super::types::Env;

impl Connection {
    /// Segments that Linux would hand to its device as one packet: about a
    /// millisecond's worth at twice the rate of the window, more where the path is
    /// short; so many at least (`Config::least_train`).
    pub(super) fn train(&self, least: u32) -> u32 {
        let (h, rtt) = (&self.hot, self.hot.rtt.smoothed());
        if rtt == 0 {
            return u32::MAX;
        }
        let rate = u64::from(h.congestion.window) * 2_000_000 / u64::from(rtt);
        let near = 65_536u64 >> (self.cold.min_rtt.least() >> 9).min(63);
        (((rate >> 10) + near) / u64::from(h.mss)).clamp(least.clamp(1, 1000).into(), 1000) as u32
    }

    /// Sends a segment from the middle of a write, after `burst` that left with it.
    /// The last of several carries PSH, as does each that fills half a window or a
    /// train, as in Linux: the peer need not wait for more. Gives the next's place.
    #[inline(never)]
    pub(super) fn send_in_burst(&mut self, env: &mut Env, i: usize, fin: bool, burst: u32) -> Result<u32, Full> {
        let h = &self.hot;
        let mss = u32::from(h.mss);
        let len = h.send.get(i).len();
        let (window, edge) = (h.congestion.window, h.snd_una.wrapping_add(h.snd_wnd));
        let last = h.send.is_last(i) || {
            let next = h.send.get(i + 1).len().min(mss);
            self.pipe() + len + next > window || seq::distance(h.snd_nxt, edge) < len + next
        };
        let half = (window / mss / 2).clamp(1, self.train(env.config.least_train));
        let place = burst % half;
        let push = place > 0 && (last || place + 1 == half);
        self.hot.send.get_mut(i).marks.set(Marks::TRAIN, push);
        self.pushed(i, push, |conn| conn.send_fresh(env, i, fin)).map(|()| burst + 1)
    }

    /// Sends segment `i` again. Where the one in front of it in its train did just
    /// then (up to `end`), it carries PSH as it did the first time. Gives what the
    /// next is to be told.
    #[cold]
    pub(super) fn send_again(&mut self, env: &mut Env, i: usize, end: Option<u32>) -> Result<Option<u32>, Full> {
        let seg = self.hot.send.get(i);
        let (last, next) = (seg.marks.contains(Marks::TRAIN), seg.end());
        let push = last && end == Some(seg.seq);
        self.pushed(i, push, |conn| conn.send_segment(env, i, false))?;
        Ok((!last).then_some(next))
    }

    /// Sends segment `i` by this call, with PSH if that is due now or anyway.
    #[inline]
    fn pushed(&mut self, i: usize, push: bool, send: impl FnOnce(&mut Self) -> Sent) -> Sent {
        let anyway = self.hot.send.get(i).marks.contains(Marks::PUSH);
        self.hot.send.get_mut(i).marks.set(Marks::PUSH, push || anyway);
        let sent = send(self);
        self.hot.send.get_mut(i).marks.set(Marks::PUSH, anyway);
        sent
    }
}
