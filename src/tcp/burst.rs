//! What leaves together: where PSH stands in the middle of a write.

use super::connection::Connection;
use super::output::{Along, Full};
use super::send_queue::Marks;
use super::seq;
use super::types::Env;

/// Segments from the middle of a write that leave one after another.
#[derive(Debug, Default)]
pub(super) struct Burst {
    /// So many left since the last PSH.
    place: u32,
    /// With so many PSH is due; zero before it is needed.
    most: u32,
}

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

    /// True where segment `i`, of `len` bytes and from the middle of a write, carries PSH
    /// as the last of several that leave together: one that ends the flight, fills half a
    /// window, or ends a train, as in Linux. The peer need not wait for more.
    #[inline]
    pub(super) fn ends_train(&self, least: u32, i: usize, len: u32, burst: &mut Burst) -> bool {
        if burst.most == 0 {
            let half = self.hot.congestion.window / u32::from(self.hot.mss) / 2;
            burst.most = half.clamp(1, self.train(least));
        }
        let place = burst.place;
        let full = place + 1 == burst.most;
        burst.place = if full { 0 } else { place + 1 };
        place > 0 && (full || self.ends_flight(i, len))
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
        self.pipe() + both > h.congestion.window || seq::distance(h.snd_nxt, edge) < both
    }

    /// Sends segment `i` again. Where the one in front of it in its train did just
    /// then (up to `end`), it carries PSH as it did the first time. Gives what the
    /// next is to be told.
    #[cold]
    pub(super) fn send_again(&mut self, env: &mut Env, i: usize, end: Option<u32>) -> Result<Option<u32>, Full> {
        let seg = self.hot.send.get(i);
        let (last, next) = (seg.marks.contains(Marks::TRAIN), seg.end());
        let with = Along { fin: false, push: last && end == Some(seg.seq) };
        self.send_segment(env, i, with)?;
        Ok((!last).then_some(next))
    }
}
