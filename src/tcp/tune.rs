//! Buffers that grow with what the path carries, where the program set no size.
//!
//! Receiving: what the program read in a round trip is what the sender had under
//! way; twice that is offered, and more while it still rises, so that the window
//! stays ahead of slow start (dynamic right-sizing, Fisk and Feng 2001). Sending:
//! two congestion windows, one under way and one that waits; with BBR three; but on a
//! short path, where growing brought nothing, no more than one of that rate and least
//! round trip has use for: there the window also opens when the peer pauses, and what
//! is written long before it leaves has to come from memory again. The path may have
//! become longer: where that bound holds the buffer, the least round trip is measured
//! anew now and then, with little under way. One
//! connection gets no more than a part of the pool (`Config::tune_share`), and
//! nothing while under a quarter of it is free; then receive buffers go back towards
//! what they began with. A window that was announced stays (SHLD-14): it just is not
//! renewed.

use super::{Config, ConnOptions};
use super::connection::{Bits, Connection, MOST, Watch};
use super::seq;
use super::types::{Disposition, Env};
use crate::time::{Duration, Instant};

/// No look at the buffer for so many bytes.
const NEVER: u32 = 1 << 30;

/// What the last look at the receive buffer saw.
#[derive(Debug, Default)]
pub(super) struct Tuning {
    since: Option<Instant>,
    /// The number of the next byte to read then.
    read: u32,
    /// Bytes that were read in the round trip before.
    before: u32,
    /// Round trip time in microseconds as the receiver sees it; 0: not known.
    rtt: u32,
    /// The program's bound of the window (TCP_WINDOW_CLAMP); 0: none.
    pub clamp: u32,
    /// Sending: when the path was looked at last, what was acknowledged until then, the
    /// highest rate (bytes in a millisecond), and what of a window the path has use for.
    looked: Option<Instant>,
    acked: u64,
    rate: u64,
    of_use: u32,
    /// When the least round trip may be measured anew, and whether it was.
    measure_at: Instant,
    measured: bool,
    /// The whole buffer, while only a little of it is used for that (0: it is not), and
    /// where what was queued before ends, as a count of acknowledged bytes (0: it did).
    whole: u32,
    until: u64,
}

/// The least round trip is measured anew so often, for so many usual round trips, with
/// such a part of the buffer or so many segments: few enough that what waits for a slow
/// peer is not taken for the path, enough that none waits for a delayed ACK and that a
/// third of them takes any segment.
const AGAIN: Duration = Duration::from_secs(10);
const TRIPS: u64 = 2;
const PART: u32 = 16;
const SEGMENTS: u32 = 3;

/// A path's queues may hold so many times what it holds without them.
const QUEUES: u64 = 4;
/// Round trips, in microseconds, from which on a window is never too large.
const LONG: u64 = 2000;
/// Nothing acknowledged for so many usual round trips: somebody paused.
const PAUSE: u64 = 4;

impl Connection {
    /// Looks at the receive buffer next after so many bytes.
    pub(super) fn tune_after(&mut self) {
        let step = match self.cold.tune_receive {
            true => (self.hot.rcv_buf / 8).clamp(2048, NEVER),
            false => NEVER,
        };
        self.hot.tune_at = self.hot.rcv_nxt.wrapping_add(step);
    }

    /// An eighth of the buffer's size came in since the last look. `echo` is the
    /// timestamp echoed by the segment.
    #[cold]
    #[inline(never)]
    pub(super) fn tune_received(&mut self, env: &Env, echo: Option<u32>) -> Disposition {
        self.tune_after();
        if !self.cold.tune_receive {
            return Disposition::NONE;
        }
        let took = self.echoed(env, echo).map_or(0, |t| t.as_micros() as u32);
        let handshake = self.warm.rtt.smoothed();
        let read = self.read_seq();
        let t = &mut self.extra().tuning;
        t.rtt = match (t.rtt, took) {
            (0, 0) => handshake,
            (old, 0) => old,
            (0, new) => new,
            // The least counts: a sender that waits makes it look longer.
            (old, new) if new < old => new,
            (old, new) => old - old / 8 + new / 8,
        };
        if t.rtt == 0 {
            t.rtt = 1000; // the clock is no finer
        }
        let Some(since) = t.since else {
            (t.since, t.read) = (Some(env.now), read);
            return Disposition::NONE;
        };
        let elapsed = env.now.since(since);
        if elapsed < Duration::from_micros(t.rtt.into()) {
            return Disposition::NONE;
        }
        let bytes = u64::from(seq::distance(t.read, read));
        let one_trip = bytes * u64::from(t.rtt.max(1)) / elapsed.as_micros().max(1);
        let one_trip = one_trip.min(NEVER.into()) as u32;
        let rise = one_trip.saturating_sub(t.before);
        (t.since, t.read, t.before) = (Some(env.now), read, one_trip);
        let wanted = one_trip.saturating_mul(2).saturating_add(rise.saturating_mul(4));
        self.resize_received(env, wanted)
    }

    fn resize_received(&mut self, env: &Env, wanted: u32) -> Disposition {
        let config = env.config;
        let most = share(env, self.hot.rcv_mss).min(config.max_receive_buffer);
        let most = most.min(self.clamp());
        let buffer = &mut self.hot.rcv_buf;
        if is_short(env) {
            let least = config.options.receive_buffer.min(*buffer);
            *buffer = (*buffer - *buffer / 4).max(least);
            return Disposition::NONE;
        }
        if wanted.min(most) <= *buffer {
            return Disposition::NONE;
        }
        *buffer = wanted.min(most);
        self.tune_after();
        self.after_release()
    }

    /// The send buffer is nearly full when an ACK comes: it, not the congestion
    /// window, may be what holds the sender back.
    #[cold]
    #[inline(never)]
    pub(super) fn tune_sent(&mut self, env: &Env) {
        if !self.cold.tune_send || self.is_measuring(env.now) || is_short(env) {
            return;
        }
        let most = share(env, self.hot.mss).min(env.config.max_send_buffer);
        // What arrived behind a gap stays in the buffer, and a congestion control that
        // goes on in recovery as before has a third window of that.
        let windows = if self.warm.congestion.owns_recovery() { 3 } else { 2 };
        let wanted = |window: u32| window.saturating_mul(windows).min(most);
        let (window, of_use) = (self.warm.congestion.window, self.window_of_use(env.now));
        let buffer = self.hot.snd_buf;
        self.hot.snd_buf = buffer.max(wanted(window.min(of_use)));
        if wanted(window) > buffer {
            self.measure_anew(env.now);
        }
    }

    /// What of the window the path has use for: on a long one all, as where the rate rose
    /// with it (by a quarter, to more than ever), and before anything is known; else, by
    /// the rate over the last usual round trip or somewhat longer, what is acknowledged in
    /// some of the least ones, which a pause of the peer does not lengthen. A look that a
    /// pause was in tells nothing: nothing grows until the next.
    fn window_of_use(&mut self, now: Instant) -> u32 {
        let (least, usual) = (u64::from(self.warm.min_rtt.least()), u64::from(self.warm.rtt.smoothed()));
        let acked = self.warm.bytes_acked;
        let t = &mut self.extra().tuning;
        let Some(looked) = t.looked else {
            (t.looked, t.acked, t.of_use, t.measure_at) = (Some(now), acked, NEVER, now + AGAIN);
            return NEVER;
        };
        let elapsed = now.since(looked).as_micros();
        if elapsed < usual.max(1) {
            return t.of_use;
        }
        let bytes = acked - t.acked;
        (t.looked, t.acked) = (Some(now), acked);
        let rate = bytes * 1000 / elapsed;
        // Queues may have made it look long, which is known once it was measured.
        let long = if t.measured { least } else { usual };
        t.of_use = if least == 0 || long >= LONG {
            NEVER
        } else if elapsed > PAUSE * usual.max(1) {
            0
        } else if rate > t.rate + t.rate / 4 {
            t.rate = rate;
            NEVER
        } else {
            (QUEUES * bytes * least / elapsed).min(NEVER.into()) as u32
        };
        t.of_use
    }

    /// The window asks for more, and whether the path has use for that is known by a least
    /// round trip that may be of minutes ago. Every `AGAIN` it is measured with little
    /// under way, so that neither our own queue nor a busy peer is in it: for that the
    /// buffer is small, once what is in it has left.
    fn measure_anew(&mut self, now: Instant) {
        if now < self.extra().tuning.measure_at || u64::from(self.warm.min_rtt.least()) >= LONG {
            return;
        }
        let (buffer, mss) = (self.hot.snd_buf, u32::from(self.hot.mss).max(1));
        let little = (buffer / PART / mss).max(SEGMENTS) * mss;
        if little >= buffer || self.hot.bits.intersects(Bits::TROUBLE) {
            return;
        }
        let until = self.warm.bytes_acked + u64::from(self.queued());
        let t = &mut self.extra().tuning;
        (t.whole, t.until, t.looked, t.measure_at) = (buffer, until, Some(now), now + AGAIN);
        self.hot.snd_buf = little;
    }

    /// True while the least round trip is measured. The whole buffer is there again with
    /// the first ACK after that which finds the small one full.
    fn is_measuring(&mut self, now: Instant) -> bool {
        let (acked, usual) = (self.warm.bytes_acked, self.warm.rtt.smoothed());
        let t = &mut self.extra().tuning;
        if t.whole == 0 {
            return false;
        }
        if acked <= t.until {
            return true;
        }
        if t.until > 0 {
            // What was measured until now was with all under way.
            (t.until, t.looked) = (0, Some(now));
            self.warm.min_rtt.expire(now);
            return true;
        }
        let since = t.looked.unwrap_or(now);
        if now.since(since) < Duration::from_micros(TRIPS * u64::from(usual)) {
            return true;
        }
        (t.looked, t.acked, t.of_use, t.measured) = (Some(now), acked, 0, true);
        self.hot.snd_buf = core::mem::take(&mut t.whole);
        false
    }

    /// The send buffer, in bytes, all of it while only a little is used.
    pub fn send_buffer(&self) -> u32 {
        self.hot.snd_buf.max(self.extra.as_ref().map_or(0, |e| e.tuning.whole))
    }

    /// The receiver's round trip time in microseconds; 0: not measured.
    pub(super) fn tuned_rtt(&self) -> u32 {
        self.extra.as_ref().map_or(0, |e| e.tuning.rtt)
    }

    /// Whether the buffers may grow by themselves: (receive, send).
    pub fn is_tuned(&self) -> (bool, bool) {
        (self.cold.tune_receive, self.cold.tune_send)
    }

    /// Sets the receive buffer, in bytes, within the stack's bounds, and for good.
    /// A window that was announced is not taken back (SHLD-14).
    pub fn set_receive_buffer(&mut self, config: &Config, bytes: u32) -> Disposition {
        self.cold.tune_receive = false;
        let bytes = bytes.clamp(1024, config.max_receive_buffer.max(1024));
        self.hot.rcv_buf = bytes.min(self.clamp());
        self.after_release()
    }

    /// SO_RCVLOWAT, of which the options say. A buffer of no fixed size is made large
    /// enough for it, as in Linux.
    pub fn set_low_water(&mut self, config: &Config, bytes: u32) -> Disposition {
        self.cold.low_water = bytes.max(1);
        self.warm.watch.set(Watch::LOW_WATER, bytes > 1);
        let wanted = bytes.saturating_mul(2).min(config.max_receive_buffer).min(self.clamp());
        if !self.cold.tune_receive || wanted <= self.hot.rcv_buf {
            return Disposition::NONE;
        }
        self.hot.rcv_buf = wanted;
        self.tune_after();
        self.after_release()
    }

    /// Bytes that may be offered to the peer.
    fn clamp(&self) -> u32 {
        match self.extra.as_ref().map_or(0, |e| e.tuning.clamp) {
            0 => u32::MAX,
            clamp => clamp,
        }
    }

    /// TCP_WINDOW_CLAMP changed. What was offered already stays (SHLD-14); where
    /// the bound rose, a buffer of a size that the program set has it again.
    pub fn set_window_clamp(&mut self, config: &Config, options: &ConnOptions) -> Disposition {
        self.extra().tuning.clamp = options.window_clamp;
        if !self.cold.tune_receive {
            return self.set_receive_buffer(config, options.receive_buffer);
        }
        self.hot.rcv_buf = self.hot.rcv_buf.min(self.clamp());
        self.after_release()
    }

    /// Sets the send buffer, in bytes, within the stack's bounds, and for good.
    pub fn set_send_buffer(&mut self, config: &Config, bytes: u32) {
        self.cold.tune_send = false;
        self.hot.snd_buf = bytes.clamp(1024, config.max_send_buffer.clamp(1024, MOST));
    }
}

/// Bytes that one connection's buffer may grow to by itself, in segments of so
/// many bytes; large ones fill several frames.
fn share(env: &Env, mss: u16) -> u32 {
    let mss = usize::from(mss).min(env.pool.frame_capacity());
    let frames = u64::from(env.pool.capacity()) * u64::from(env.config.tune_share) / 256;
    (frames * mss as u64).min(NEVER.into()) as u32
}

/// Under a quarter of the pool is free.
fn is_short(env: &Env) -> bool {
    env.pool.available() < env.pool.capacity() / 4
}
