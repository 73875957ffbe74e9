//! Congestion control: how much may be under way (RFC 5681).
//!
//! An algorithm sees acknowledgments in batches (one [`Ack`] for all that was
//! acknowledged or delivered at once), the start and end of recovery, time-outs,
//! marks of ECN, and that a loss was none. What it keeps beside the window is in
//! a box that is made when it is first needed: a connection that never fills its
//! window has none.

mod bbr;
mod cubic;
mod dctcp;
mod hystart;
mod reno;

use crate::time::{Duration, Instant};

/// Which algorithm.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Algorithm {
    /// RFC 9438.
    #[default]
    Cubic,
    /// RFC 5681.
    Reno,
    /// RFC 8257: for networks of one owner, whose switches mark.
    Dctcp,
    /// draft-ietf-ccwg-bbr.
    Bbr,
}

impl Algorithm {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Cubic, Self::Reno, Self::Dctcp, Self::Bbr];

    /// Its name, as TCP_CONGESTION has it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cubic => "cubic",
            Self::Reno => "reno",
            Self::Dctcp => "dctcp",
            Self::Bbr => "bbr",
        }
    }

    /// The algorithm of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|a| a.name() == name)
    }
}

bitflags::bitflags! {
    /// Why segments are spaced out.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Paced: u8 {
        /// It is set so for all connections.
        const ALWAYS = 1;
        /// The algorithm cannot do without.
        const NEEDED = 2;
        /// The program set a largest rate.
        const CAPPED = 4;
    }
}

/// What ends a slow start before it loses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Nothing.
    None,
    /// HyStart++ (RFC 9406).
    Plus,
    /// HyStart as it was first.
    First,
}

/// What of the algorithms can be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Knobs {
    /// What ends CUBIC's slow start before it loses.
    pub hystart: Exit,
    /// Whether segments are spaced out.
    pub paced: Paced,
    /// The share of lost bytes, in hundredths, from which loss is congestion to BBR.
    pub bbr_loss: u8,
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
    /// ACKs that this one stands for, itself included: what may count of one, counts
    /// so often.
    pub acks: u32,
    /// Bytes newly acknowledged or selectively acknowledged.
    pub delivered: u32,
    /// Bytes newly marked lost.
    pub lost: u32,
    /// Bytes under way after this ACK (RFC 6675's pipe).
    pub in_flight: u32,
    /// SND.UNA after it: a round ends where it passes what SND.NXT was.
    pub una: u32,
    /// SND.NXT.
    pub nxt: u32,
    /// Bytes delivered since the beginning, modulo 2^32.
    pub total: u32,
    /// Payload bytes of a full segment.
    pub mss: u32,
    /// This ACK's round trip time, if it tells one.
    pub rtt: Option<Duration>,
    /// The smoothed round trip time; zero before the first.
    pub srtt: Duration,
    /// It carries ECE.
    pub ece: bool,
    /// Fast recovery is on: the window is set by it, unless the algorithm owns it.
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
    knobs: Knobs,
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
    Cubic(cubic::Cubic),
    Reno(reno::Reno),
    Dctcp(dctcp::Dctcp),
    Bbr(Box<bbr::Bbr>),
}

impl State {
    fn new(algorithm: Algorithm, knobs: Knobs) -> Self {
        let kind = match algorithm {
            Algorithm::Cubic if knobs.hystart == Exit::First => Kind::Cubic(cubic::Cubic::classic()),
            Algorithm::Cubic => Kind::Cubic(cubic::Cubic::new(knobs.hystart == Exit::Plus)),
            Algorithm::Reno => Kind::Reno(reno::Reno::default()),
            Algorithm::Dctcp => Kind::Dctcp(dctcp::Dctcp::default()),
            Algorithm::Bbr => Kind::Bbr(Box::new(bbr::Bbr::new(knobs.bbr_loss))),
        };
        Self { threshold: u32::MAX, kind, undo: None }
    }

    /// What undo goes back to; BBR, whose model goes on, keeps that itself.
    fn remember(&mut self, window: u32) {
        if !matches!(self.kind, Kind::Bbr(_)) {
            self.undo = Some((window, self.threshold, self.kind.clone()));
        }
    }

    /// The threshold after a loss (RFC 5681, eq. 4; RFC 9438, 4.6; RFC 8257, 3.5).
    fn after_loss(&mut self, window: u32, in_flight: u32, mss: u32) -> u32 {
        match &mut self.kind {
            // By the window, which grows only while it is filled.
            Kind::Cubic(cubic) => cubic.reduce(window, mss),
            Kind::Reno(_) | Kind::Dctcp(_) => (in_flight / 2).max(2 * mss),
            Kind::Bbr(_) => self.threshold,
        }
    }
}

impl Congestion {
    /// At the start of a connection, with a window of so many bytes.
    pub fn new(algorithm: Algorithm, knobs: Knobs, window: u32) -> Self {
        let mut new = Self { window, algorithm, knobs, state: None };
        new.knobs.paced.set(Paced::NEEDED, algorithm == Algorithm::Bbr);
        new
    }

    /// Which algorithm it is.
    #[inline]
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// What is set of it.
    pub fn knobs(&self) -> Knobs {
        self.knobs
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
        self.knobs.paced.set(Paced::NEEDED, algorithm == Algorithm::Bbr);
        let fresh = State::new(algorithm, self.knobs);
        self.state = Some(Box::new(State { threshold, ..fresh }));
    }

    fn state(&mut self) -> (&mut u32, &mut State) {
        let (algorithm, knobs) = (self.algorithm, self.knobs);
        let make = || Box::new(State::new(algorithm, knobs));
        (&mut self.window, self.state.get_or_insert_with(make))
    }

    /// It wants to hear of every ACK, also where the window was not the limit.
    #[inline]
    pub fn wants_all(&self) -> bool {
        self.algorithm > Algorithm::Reno
    }

    /// It says itself what the window is in recovery.
    #[inline]
    pub fn owns_recovery(&self) -> bool {
        self.algorithm == Algorithm::Bbr
    }

    /// It cannot do without pacing, or was told to pace.
    #[inline]
    pub fn is_paced(&self) -> bool {
        self.knobs.paced.intersects(Paced::ALWAYS.union(Paced::NEEDED))
    }

    /// Segments are spaced out, for whatever reason.
    #[inline]
    pub fn is_spaced(&self) -> bool {
        !self.knobs.paced.is_empty()
    }

    /// The program sets a largest rate, or none any more.
    pub fn set_capped(&mut self, on: bool) {
        self.knobs.paced.set(Paced::CAPPED, on);
    }

    /// It is of no use without ECN, and echoes marks one by one.
    #[inline]
    pub fn needs_ecn(&self) -> bool {
        self.algorithm == Algorithm::Dctcp
    }

    /// What is sent now does not fill the path, by its own will.
    pub fn is_app_limited(&self) -> bool {
        match self.state.as_deref() {
            Some(State { kind: Kind::Bbr(bbr), .. }) => bbr.is_app_limited(),
            _ => false,
        }
    }

    /// Bytes a second at which segments are to leave if they are paced: in slow
    /// start twice a window a round trip, so that it can double, after it a fifth
    /// more than one. `None` where nothing is known to go by.
    pub fn pacing_rate(&self, srtt: Duration) -> Option<u64> {
        if self.algorithm == Algorithm::Bbr {
            return Some(match self.state.as_deref() {
                Some(State { kind: Kind::Bbr(bbr), .. }) => bbr.pacing_rate(self.window, srtt),
                _ => bbr::first_rate(self.window, srtt),
            });
        }
        if srtt == Duration::ZERO {
            return None;
        }
        let share = if self.window < self.threshold() / 2 { 200 } else { 120 };
        let window = u128::from(self.window) * share / 100;
        Some((window * 1_000_000_000 / u128::from(srtt.as_nanos())).min(u64::MAX.into()) as u64)
    }

    /// Something was acknowledged or delivered.
    #[inline]
    pub fn on_ack(&mut self, ack: &Ack) {
        if !ack.window_limited && !self.wants_all() {
            return;
        }
        let paced = self.is_paced();
        let (window, state) = self.state();
        let grows = ack.window_limited && !ack.recovery;
        match &mut state.kind {
            Kind::Bbr(bbr) => bbr.on_ack(window, ack),
            Kind::Cubic(cubic) if grows => cubic.on_ack(window, &mut state.threshold, ack, paced),
            Kind::Reno(reno) if grows => reno.on_ack(window, state.threshold, ack),
            Kind::Dctcp(dctcp) => {
                dctcp.count(ack);
                if grows {
                    dctcp.reno.on_ack(window, state.threshold, ack);
                }
            }
            Kind::Cubic(_) | Kind::Reno(_) => {}
        }
    }

    /// Fast recovery begins, with `in_flight` bytes outstanding (FlightSize). The
    /// window is the new threshold; whoever reduces it by and by (RFC 6937) sets it
    /// again.
    pub fn on_recovery(&mut self, _now: Instant, in_flight: u32, mss: u32) {
        let (window, state) = self.state();
        state.remember(*window);
        if let Kind::Bbr(bbr) = &mut state.kind {
            return bbr.on_recovery(*window, false);
        }
        state.threshold = state.after_loss(*window, in_flight, mss);
        *window = state.threshold;
    }

    /// Recovery is over.
    pub fn on_recovered(&mut self, _now: Instant, in_flight: u32, mss: u32) {
        let (window, state) = self.state();
        if let Kind::Bbr(bbr) = &mut state.kind {
            return bbr.on_recovered(window);
        }
        // RFC 6582, 3.2, step 3, option 1: no burst where little is under way.
        *window = state.threshold.min(in_flight.max(mss) + mss);
    }

    /// The retransmission timer expired; `first`: for the first time for this
    /// data (RFC 5681, 3.1); `recovery`: in fast recovery, whose loss stays one.
    pub fn on_timeout(&mut self, in_flight: u32, mss: u32, first: bool, recovery: bool) {
        let (window, state) = self.state();
        if first {
            // On its way down the window may be above where recovery would end.
            let goal = if recovery { state.threshold } else { u32::MAX };
            state.remember((*window).min(goal));
            state.threshold = state.after_loss(*window, in_flight, mss);
        }
        match &mut state.kind {
            Kind::Cubic(cubic) => cubic.on_timeout(),
            Kind::Reno(reno) => reno.on_timeout(),
            Kind::Dctcp(dctcp) => dctcp.reno.on_timeout(),
            Kind::Bbr(bbr) => bbr.on_recovery(*window, !first),
        }
        *window = mss;
    }

    /// The last loss was none: window and threshold are what they were, unless
    /// they are larger by now.
    pub fn undo(&mut self) {
        let (window, state) = self.state();
        if let Kind::Bbr(bbr) = &mut state.kind {
            return bbr.undo(window);
        }
        if let Some((before, threshold, kind)) = state.undo.take() {
            *window = before.max(*window);
            state.threshold = threshold.max(state.threshold);
            state.kind = kind;
        }
    }

    /// An ACK with ECE, outside of recovery: one reduction a window (RFC 3168,
    /// 6.1.2; RFC 8257, 3.3). The caller sees to that it is one. It cannot be
    /// undone: the mark was one.
    pub fn on_ecn(&mut self, _now: Instant, in_flight: u32, mss: u32) {
        let (window, state) = self.state();
        state.undo = None;
        state.threshold = match &mut state.kind {
            Kind::Bbr(bbr) => return bbr.on_mark(*window),
            Kind::Dctcp(dctcp) => dctcp.reduce(*window, mss),
            _ => state.after_loss(*window, in_flight, mss),
        };
        *window = state.threshold.min(*window);
    }

    /// Nothing was sent for longer than an RTO (RFC 5681, 4.1): the window is at
    /// most `restart` bytes. BBR's model is none the worse for it.
    pub fn on_idle(&mut self, now: Instant, restart: u32) {
        if let Some(State { kind: Kind::Bbr(bbr), .. }) = self.state.as_deref_mut() {
            return bbr.on_idle(now);
        }
        self.window = self.window.min(restart);
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
            acks: 1,
            delivered: acked,
            lost: 0,
            in_flight: 0,
            una: 0,
            nxt: 0,
            total: acked,
            mss: 1000,
            rtt: None,
            srtt: Duration::ZERO,
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
    const KNOBS: Knobs = Knobs { hystart: Exit::Plus, paced: Paced::empty(), bbr_loss: 20 };

    fn start(algorithm: Algorithm) -> Congestion {
        Congestion::new(algorithm, KNOBS, 10_000)
    }

    #[test]
    fn names_lead_back_to_the_algorithm() {
        for a in Algorithm::ALL {
            assert_eq!(Algorithm::from_name(a.name()), Some(a));
        }
        assert_eq!(Algorithm::from_name("vegas"), None);
    }

    #[test]
    fn the_configuration_says_which_hystart_ends_slow_start() {
        // ACKs in a row for half a round trip are a sign to the first one alone.
        for (hystart, classic_hystart) in [(true, true), (true, false), (false, true)] {
            let config = crate::tcp::Config { hystart, classic_hystart, ..Default::default() };
            let mut c = Congestion::new(Algorithm::Cubic, config.knobs(), 20_000);
            for at in (0..=60).step_by(2) {
                let rtt = Some(Duration::from_millis(100));
                let now = NOW + Duration::from_millis(at);
                c.on_ack(&Ack { now, una: 5000, nxt: 90_000, rtt, ..testing::ack(100) });
            }
            let ended = c.threshold() != u32::MAX;
            assert_eq!(ended, hystart && classic_hystart, "{hystart} {classic_hystart}");
        }
    }

    #[test]
    fn loss_reduces_by_each_ones_share_and_a_timeout_starts_over() {
        for (algorithm, left) in
            [(Algorithm::Reno, 5000), (Algorithm::Dctcp, 5000), (Algorithm::Cubic, 7000)]
        {
            let mut c = start(algorithm);
            c.on_recovery(NOW, 10_000, 1000);
            assert_eq!((c.window, c.threshold()), (left, left));
            c.on_recovered(NOW, 1000, 1000);
            assert_eq!(c.window, 2000);
            c.window = 8000;
            c.on_timeout(8000, 1000, true, false);
            let threshold = left * 8 / 10;
            assert_eq!((c.window, c.threshold()), (1000, threshold));
            c.on_timeout(1000, 1000, false, false);
            assert_eq!((c.window, c.threshold()), (1000, threshold), "reduced once");
            c.on_recovery(NOW, 1000, 1000);
            assert_eq!(c.threshold(), 2000);
        }
    }

    #[test]
    fn a_mark_never_makes_the_window_larger() {
        for algorithm in [Algorithm::Reno, Algorithm::Dctcp, Algorithm::Cubic] {
            let mut c = start(algorithm);
            c.window = 1000;
            c.on_ecn(NOW, 1000, 1000);
            assert_eq!((c.window, c.threshold()), (1000, 2000));
        }
    }

    #[test]
    fn a_loss_that_was_none_leaves_no_trace() {
        for algorithm in [Algorithm::Reno, Algorithm::Dctcp, Algorithm::Cubic] {
            let mut c = start(algorithm);
            let before = format!("{:?}", State::new(algorithm, KNOBS).kind);
            c.on_recovery(NOW, 10_000, 1000);
            c.undo();
            assert_eq!((c.window, c.threshold()), (10_000, u32::MAX));
            assert_eq!(format!("{:?}", c.state().1.kind), before);
            c.window = 5000;
            c.undo();
            assert_eq!(c.window, 5000, "there is nothing more to undo");
        }
    }

    #[test]
    fn a_mark_reduces_once_and_cannot_be_undone() {
        for (algorithm, left) in
            [(Algorithm::Reno, 5000), (Algorithm::Dctcp, 5000), (Algorithm::Cubic, 7000)]
        {
            let mut c = start(algorithm);
            c.on_ecn(NOW, 10_000, 1000);
            assert_eq!((c.window, c.threshold()), (left, left));
            c.undo();
            assert_eq!(c.window, left);
        }
    }

    #[test]
    fn the_window_does_not_grow_in_recovery_or_where_it_is_not_the_limit() {
        for algorithm in [Algorithm::Reno, Algorithm::Dctcp, Algorithm::Cubic] {
            let mut c = start(algorithm);
            c.on_ack(&Ack { recovery: true, ..testing::ack(1000) });
            c.on_ack(&Ack { window_limited: false, ..testing::ack(1000) });
            assert_eq!(c.window, 10_000);
            c.on_ack(&testing::ack(1000));
            assert_eq!(c.window, 11_000);
        }
    }

    #[test]
    fn a_connection_that_never_fills_its_window_keeps_no_state() {
        let mut c = start(Algorithm::Cubic);
        c.on_ack(&Ack { window_limited: false, ..testing::ack(1000) });
        assert!(c.state.is_none());
    }

    #[test]
    fn an_idle_connection_restarts_at_the_initial_window() {
        let mut c = start(Algorithm::Reno);
        c.window = 50_000;
        c.on_idle(NOW, 10_000);
        assert_eq!(c.window, 10_000);
        c.window = 3000;
        c.on_idle(NOW, 10_000);
        assert_eq!(c.window, 3000);
    }

    #[test]
    fn switching_keeps_window_and_threshold() {
        let mut c = start(Algorithm::Reno);
        c.on_recovery(NOW, 10_000, 1000);
        for a in [Algorithm::Bbr, Algorithm::Dctcp, Algorithm::Cubic] {
            c.switch(a);
            assert_eq!((c.algorithm(), c.window, c.threshold()), (a, 5000, 5000));
        }
    }

    #[test]
    fn pacing_lets_slow_start_double_and_avoidance_grow() {
        let rtt = Duration::from_millis(10);
        let mut c = start(Algorithm::Reno);
        assert_eq!(c.pacing_rate(Duration::ZERO), None);
        assert_eq!(c.pacing_rate(rtt), Some(2_000_000));
        c.on_recovery(NOW, 20_000, 1000);
        assert_eq!(c.pacing_rate(rtt), Some(1_200_000));
        // BBR: 2.77 windows a millisecond before the first round trip time.
        assert_eq!(start(Algorithm::Bbr).pacing_rate(Duration::ZERO), Some(27_700_000));
    }
}
