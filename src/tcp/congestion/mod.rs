//! Congestion control: how much may be under way (RFC 5681).
//!
//! An algorithm sees acknowledgments in batches (one [`Ack`] for all that was
//! acknowledged or delivered at once), the start and end of recovery, time-outs,
//! marks of ECN, and that a loss was none. What it keeps beside the window is in
//! a box that is made when it is first needed: a connection that never fills its
//! window has none.

mod reno;

use crate::time::{Duration, Instant};

/// Which algorithm.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Algorithm {
    /// RFC 5681.
    #[default]
    Reno,
}

impl Algorithm {
    /// Its name, as TCP_CONGESTION has it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Reno => "reno",
        }
    }

    /// The algorithm of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "reno" => Some(Self::Reno),
            _ => None,
        }
    }
}

/// How fast data got through, by one acknowledged segment
/// (draft-cheng-iccrg-delivery-rate-estimation).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateSample {
    /// Bytes that had been delivered when the segment left.
    pub prior_delivered: u32,
    /// Bytes delivered since.
    pub delivered: u32,
    /// In so much time: the longer of the times for sending and acknowledging.
    pub interval: Duration,
    /// Bytes marked lost since the segment left.
    pub lost: u32,
    /// Bytes under way when the segment had left, itself included.
    pub tx_in_flight: u32,
    /// The program did not keep the window full.
    pub app_limited: bool,
}

/// What an arriving segment acknowledged or delivered, in recovery or not.
#[derive(Clone, Copy, Debug)]
pub struct Ack {
    /// The time of this turn.
    pub now: Instant,
    /// Bytes newly acknowledged by the cumulative number.
    pub acked: u32,
    /// Bytes newly acknowledged or selectively acknowledged.
    pub delivered: u32,
    /// Bytes newly marked lost.
    pub lost: u32,
    /// Bytes under way after this ACK (RFC 6675's pipe).
    pub in_flight: u32,
    /// The same before it.
    pub prior_in_flight: u32,
    /// SND.UNA after it: a round ends where it passes what SND.NXT was.
    pub una: u32,
    /// SND.NXT.
    pub nxt: u32,
    /// Payload bytes of a full segment.
    pub mss: u32,
    /// This ACK's round trip time, if it tells one.
    pub rtt: Option<Duration>,
    /// The smoothed round trip time; zero before the first.
    pub srtt: Duration,
    /// The least lately; zero before the first.
    pub min_rtt: Duration,
    /// It carries ECE.
    pub ece: bool,
    /// Recovery, fast or after a time-out, was on when it came.
    pub recovery: bool,
    /// The window, not the program or the peer, held the sender back.
    pub window_limited: bool,
    /// The rate of delivery.
    pub rate: Option<RateSample>,
}

/// The window, and what the algorithm keeps.
#[derive(Clone, Debug)]
pub struct Congestion {
    /// Bytes that may be under way.
    pub window: u32,
    algorithm: Algorithm,
    state: Option<Box<State>>,
}

const _: () = assert!(size_of::<Congestion>() <= 16);

/// What is needed once a window was filled or a loss seen.
#[derive(Clone, Debug)]
struct State {
    /// Slow start ends here, in bytes.
    threshold: u32,
    kind: Kind,
    /// Window, threshold and all before the last loss.
    undo: Option<(u32, u32, Kind)>,
}

#[derive(Clone, Debug)]
enum Kind {
    Reno(reno::Reno),
}

impl State {
    fn new(algorithm: Algorithm) -> Self {
        let kind = match algorithm {
            Algorithm::Reno => Kind::Reno(reno::Reno::default()),
        };
        Self { threshold: u32::MAX, kind, undo: None }
    }
}

impl Congestion {
    /// At the start of a connection: `initial` segments of `mss` bytes.
    pub fn new(algorithm: Algorithm, initial: u32, mss: u32) -> Self {
        Self { window: initial * mss, algorithm, state: None }
    }

    /// Which algorithm it is.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Slow start ends here, in bytes; `u32::MAX` before the first loss.
    #[inline]
    pub fn threshold(&self) -> u32 {
        self.state.as_ref().map_or(u32::MAX, |s| s.threshold)
    }

    /// Goes on with another algorithm; window and threshold stay.
    pub fn switch(&mut self, algorithm: Algorithm) {
        if self.algorithm == algorithm {
            return;
        }
        let threshold = self.threshold();
        self.algorithm = algorithm;
        self.state = Some(Box::new(State { threshold, ..State::new(algorithm) }));
    }

    #[inline]
    fn state(&mut self) -> (&mut u32, &mut State) {
        let algorithm = self.algorithm;
        (&mut self.window, self.state.get_or_insert_with(|| Box::new(State::new(algorithm))))
    }

    /// It wants to hear of every ACK, also where the window was not the limit.
    #[inline]
    pub fn wants_all(&self) -> bool {
        self.algorithm > Algorithm::Reno
    }

    /// It says itself what the window is in recovery.
    pub fn owns_recovery(&self) -> bool {
        false
    }

    /// Bytes a second at which segments are to leave, where it says so.
    pub fn pacing_rate(&self, _srtt: Duration, _mss: u32) -> Option<u64> {
        None
    }

    /// Something was acknowledged or delivered. In recovery only an algorithm that
    /// owns it may change the window.
    #[inline]
    pub fn on_ack(&mut self, ack: &Ack) {
        if !ack.window_limited && !self.wants_all() {
            return;
        }
        self.on_limited_ack(ack);
    }

    #[inline(never)]
    fn on_limited_ack(&mut self, ack: &Ack) {
        let (window, state) = self.state();
        match &mut state.kind {
            Kind::Reno(reno) => reno.on_ack(window, state.threshold, ack),
        }
    }

    /// Fast recovery begins, with `in_flight` bytes outstanding (RFC 5681, eq. 4).
    /// The window is the new threshold; whoever reduces it by and by (RFC 6937)
    /// sets it again.
    pub fn on_recovery(&mut self, _now: Instant, in_flight: u32, mss: u32) {
        let (window, state) = self.state();
        state.undo = Some((*window, state.threshold, state.kind.clone()));
        state.threshold = match &state.kind {
            Kind::Reno(_) => (in_flight / 2).max(2 * mss),
        };
        *window = state.threshold;
    }

    /// Recovery is over.
    pub fn on_recovered(&mut self, _now: Instant, in_flight: u32, mss: u32) {
        // RFC 6582, 3.2, step 3, option 1: no burst where little is under way.
        self.window = self.threshold().min(in_flight.max(mss) + mss);
    }

    /// The retransmission timer expired; `first`: for the first time for this
    /// data (RFC 5681, 3.1).
    pub fn on_timeout(&mut self, _now: Instant, in_flight: u32, mss: u32, first: bool) {
        let (window, state) = self.state();
        if first {
            state.undo = Some((*window, state.threshold, state.kind.clone()));
            state.threshold = (in_flight / 2).max(2 * mss);
        }
        *window = mss;
        match &mut state.kind {
            Kind::Reno(reno) => reno.on_timeout(),
        }
    }

    /// The last loss was none: window and threshold are what they were, unless
    /// they are larger by now.
    pub fn undo(&mut self) {
        let (window, state) = self.state();
        if let Some((before, threshold, kind)) = state.undo.take() {
            *window = before.max(*window);
            state.threshold = threshold.max(state.threshold);
            state.kind = kind;
        }
    }

    /// An ACK with ECE, outside of recovery: one reduction a window (RFC 3168,
    /// 6.1.2). The caller sees to that it is one.
    pub fn on_ecn(&mut self, now: Instant, in_flight: u32, mss: u32) {
        self.on_recovery(now, in_flight, mss);
    }

    /// Nothing was sent for longer than an RTO (RFC 5681, 4.1).
    pub fn on_idle(&mut self, _now: Instant, initial: u32, mss: u32) {
        self.window = self.window.min(initial * mss);
    }
}

#[cfg(test)]
mod testing {
    use super::*;

    /// An ACK for so many bytes of a connection that fills its window.
    pub fn ack(acked: u32) -> Ack {
        Ack {
            now: Instant::ZERO,
            acked,
            delivered: acked,
            lost: 0,
            in_flight: 0,
            prior_in_flight: acked,
            una: 0,
            nxt: 0,
            mss: 1000,
            rtt: None,
            srtt: Duration::ZERO,
            min_rtt: Duration::ZERO,
            ece: false,
            recovery: false,
            window_limited: true,
            rate: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Instant = Instant::ZERO;

    #[test]
    fn names_lead_back_to_the_algorithm() {
        assert_eq!(Algorithm::from_name(Algorithm::Reno.name()), Some(Algorithm::Reno));
        assert_eq!(Algorithm::from_name("vegas"), None);
    }

    #[test]
    fn loss_halves_and_a_timeout_starts_over() {
        let mut c = Congestion::new(Algorithm::Reno, 10, 1000);
        assert_eq!(c.window, 10_000);
        c.on_recovery(NOW, 10_000, 1000);
        assert_eq!((c.window, c.threshold()), (5000, 5000));
        c.on_recovered(NOW, 1000, 1000);
        assert_eq!(c.window, 2000);
        c.on_timeout(NOW, 8000, 1000, true);
        assert_eq!((c.window, c.threshold()), (1000, 4000));
        c.on_timeout(NOW, 1000, 1000, false);
        assert_eq!((c.window, c.threshold()), (1000, 4000));
        c.on_recovery(NOW, 1000, 1000);
        assert_eq!(c.threshold(), 2000);
    }

    #[test]
    fn a_loss_that_was_none_leaves_no_trace() {
        let mut c = Congestion::new(Algorithm::Reno, 10, 1000);
        c.on_recovery(NOW, 10_000, 1000);
        c.undo();
        assert_eq!((c.window, c.threshold()), (10_000, u32::MAX));
        c.undo();
        assert_eq!((c.window, c.threshold()), (10_000, u32::MAX), "there is nothing more to undo");
    }

    #[test]
    fn an_idle_connection_restarts_at_the_initial_window() {
        let mut c = Congestion::new(Algorithm::Reno, 10, 1000);
        c.window = 50_000;
        c.on_idle(NOW, 10, 1000);
        assert_eq!(c.window, 10_000);
        c.window = 3000;
        c.on_idle(NOW, 10, 1000);
        assert_eq!(c.window, 3000);
    }
}
