//! BBR, version 3 (draft-ietf-ccwg-bbr): a model of the path, of its bandwidth
//! and round trip time, says how fast to send and how much may be under way;
//! loss only bounds it where there is more of it than a share that is set.

mod cycle;
mod model;

use super::{Ack, RateSample};
use crate::time::{Duration, Instant};
use model::{Bounds, FullPipe, MaxFilter};

/// Gains are in hundredths.
const STARTUP_PACING: u64 = 277;
const DRAIN_PACING: u64 = 50;
const CWND: u64 = 200;
const UP_CWND: u64 = 225;
const PROBE_RTT_CWND: u64 = 50;
/// Paced this much below the model, so that queues drain (BBRPacingMarginPercent).
const MARGIN: u64 = 1;
const MIN_RTT_LASTS: Duration = Duration::from_secs(10);
const PROBE_RTT_EVERY: Duration = Duration::from_secs(5);
const PROBE_RTT_LASTS: Duration = Duration::from_millis(200);
/// Losses that are apart which end startup, with the share.
const STARTUP_LOSSES: u32 = 6;

/// The states (4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Startup,
    Drain,
    Down,
    Cruise,
    Refill,
    Up,
    ProbeRtt,
}

/// What BBR keeps. Bytes, bytes a second, and numbers of bytes delivered since
/// the beginning, modulo 2^32.
#[derive(Clone, Debug)]
pub(super) struct Bbr {
    pub phase: Phase,
    /// The share of lost bytes, in hundredths, from which loss is congestion.
    loss_share: u32,
    pacing_rate: u64,
    /// Bytes that leave at once.
    quantum: u32,
    delivered: u32,

    /// The round ends when what leaves after this is delivered.
    next_round: u32,
    round_start: bool,
    rounds: u32,

    max_bw: MaxFilter,
    bw: u64,
    full: FullPipe,
    bounds: Bounds,

    min_rtt: Duration,
    min_rtt_at: Instant,
    probe_rtt_min: Duration,
    probe_rtt_min_at: Instant,
    probe_rtt_due: bool,
    probe_rtt_done: Option<Instant>,
    probe_rtt_round: bool,

    cycle: cycle::Cycle,

    /// The window before recovery or a probe of the round trip time.
    prior_window: u32,
    idle_restart: bool,
    /// The window was all used when this ACK came.
    limited: bool,

    extra_acked: [u32; 2],
    extra_round: u32,
    extra_since: Instant,
    extra_from: u32,
}

impl Bbr {
    /// Before anything is known (4.2.1, 4.6.2).
    pub fn new(loss_share: u8) -> Self {
        Self {
            phase: Phase::Startup,
            loss_share: loss_share.into(),
            pacing_rate: 0,
            quantum: 0,
            delivered: 0,
            next_round: 0,
            round_start: false,
            rounds: 0,
            max_bw: MaxFilter::default(),
            bw: 0,
            full: FullPipe::default(),
            bounds: Bounds::default(),
            min_rtt: Duration::MAX,
            min_rtt_at: Instant::ZERO,
            probe_rtt_min: Duration::MAX,
            probe_rtt_min_at: Instant::ZERO,
            probe_rtt_due: false,
            probe_rtt_done: None,
            probe_rtt_round: false,
            cycle: cycle::Cycle::default(),
            prior_window: 0,
            idle_restart: false,
            limited: false,
            extra_acked: [0; 2],
            extra_round: 0,
            extra_since: Instant::ZERO,
            extra_from: 0,
        }
    }

    /// BBRUpdateOnACK (4.2.3).
    pub fn on_ack(&mut self, window: &mut u32, ack: &Ack) {
        self.delivered = ack.total;
        self.limited = ack.window_limited;
        if let Some(rate) = &ack.rate {
            self.update_model(ack, rate, *window);
        }
        self.update_min_rtt(ack);
        self.check_probe_rtt(window, ack);
        if let Some(rate) = &ack.rate {
            self.bounds.advance(rate);
        }
        // BBRBoundBWForModel.
        self.bw = self.max_bw.get().min(self.bounds.bw_lo);
        self.set_pacing_rate(*window, ack);
        self.set_window(window, ack);
    }

    fn update_model(&mut self, ack: &Ack, rate: &RateSample, window: u32) {
        self.update_round(ack, rate);
        let loss_round = self.bounds.note(ack, rate);
        let bw = bandwidth(rate);
        if bw >= self.max_bw.get() || !rate.app_limited {
            self.max_bw.update(bw);
        }
        if loss_round {
            self.end_loss_round(window);
        }
        self.update_aggregation(ack, window);
        if !rate.app_limited {
            self.full.check(bw, self.round_start);
        }
        if self.phase == Phase::Startup && self.full.reached {
            self.phase = Phase::Drain;
        }
        if self.phase == Phase::Drain && u64::from(ack.in_flight) <= self.inflight(self.bw, 100) {
            self.start_down(ack);
        }
        if self.full.reached {
            self.update_cycle(ack, rate, window);
        }
    }

    /// 4.5.1: a round trip is over when something that left after its beginning
    /// is delivered.
    fn update_round(&mut self, ack: &Ack, rate: &RateSample) {
        self.round_start = rate.prior_delivered.wrapping_sub(self.next_round) as i32 >= 0;
        if self.round_start {
            self.next_round = ack.total;
            self.rounds = self.rounds.wrapping_add(1);
            self.cycle.rounds = self.cycle.rounds.saturating_add(1);
        }
    }

    fn start_round(&mut self) {
        self.next_round = self.delivered;
    }

    /// A round for the counting of losses is over (4.3.1.3, 4.5.10.3).
    fn end_loss_round(&mut self, window: u32) {
        let too_much = self.bounds.lost_too_much(self.loss_share);
        if too_much && self.phase == Phase::Startup && self.bounds.losses >= STARTUP_LOSSES {
            self.full.reached = true;
            let hi = self.bdp(self.max_bw.get(), 100).max(self.bounds.inflight_latest.into());
            self.bounds.inflight_hi = hi.min(u32::MAX.into()) as u32;
        }
        let probing = matches!(self.phase, Phase::Startup | Phase::Refill | Phase::Up);
        if too_much && !probing {
            self.bounds.lower(self.max_bw.get(), window);
        }
        self.bounds.start_loss_round();
    }

    /// 4.5.9: how much more than expected ACKs deliver at once, lately.
    fn update_aggregation(&mut self, ack: &Ack, window: u32) {
        let since = ack.now.since(self.extra_since);
        let mut expected = bytes_in(self.bw, since);
        let mut got = u64::from(ack.total.wrapping_sub(self.extra_from));
        if got <= expected {
            (self.extra_from, self.extra_since) = (ack.total.wrapping_sub(ack.delivered), ack.now);
            (expected, got) = (0, ack.delivered.into());
        }
        if self.rounds.wrapping_sub(self.extra_round) >= 5 {
            self.extra_round = self.rounds;
            self.extra_acked = [0, self.extra_acked[0]];
        }
        let extra = (got - expected).min(window.into()) as u32;
        self.extra_acked[0] = self.extra_acked[0].max(extra);
    }

    /// 4.5.12: the least round trip time of ten seconds, looked for every five.
    fn update_min_rtt(&mut self, ack: &Ack) {
        let known = self.probe_rtt_min != Duration::MAX;
        self.probe_rtt_due = known && ack.now.since(self.probe_rtt_min_at) > PROBE_RTT_EVERY;
        if let Some(rtt) = ack.rtt
            && (rtt < self.probe_rtt_min || self.probe_rtt_due)
        {
            (self.probe_rtt_min, self.probe_rtt_min_at) = (rtt, ack.now);
        }
        let expired = ack.now.since(self.min_rtt_at) > MIN_RTT_LASTS;
        if self.probe_rtt_min < self.min_rtt || expired {
            (self.min_rtt, self.min_rtt_at) = (self.probe_rtt_min, self.probe_rtt_min_at);
        }
    }

    /// 4.3.4: now and then so little is under way that no queue is left.
    fn check_probe_rtt(&mut self, window: &mut u32, ack: &Ack) {
        if self.phase != Phase::ProbeRtt && self.probe_rtt_due && !self.idle_restart {
            self.save_window(*window, ack.recovery);
            self.phase = Phase::ProbeRtt;
            self.probe_rtt_done = None;
            self.cycle.stop_probing();
            self.start_round();
        }
        if self.phase == Phase::ProbeRtt {
            self.handle_probe_rtt(window, ack);
        }
        if ack.delivered > 0 {
            self.idle_restart = false;
        }
    }

    fn handle_probe_rtt(&mut self, window: &mut u32, ack: &Ack) {
        match self.probe_rtt_done {
            None if ack.in_flight <= self.probe_rtt_window(ack.mss) => {
                self.probe_rtt_done = Some(ack.now + PROBE_RTT_LASTS);
                self.probe_rtt_round = false;
                self.start_round();
            }
            None => {}
            Some(done) => {
                self.probe_rtt_round |= self.round_start;
                if self.probe_rtt_round && ack.now > done {
                    self.probe_rtt_min_at = ack.now;
                    *window = self.prior_window.max(*window);
                    self.leave_probe_rtt(ack);
                }
            }
        }
    }

    fn leave_probe_rtt(&mut self, ack: &Ack) {
        self.bounds.reset_lower();
        if self.full.reached {
            self.start_down(ack);
            self.phase = Phase::Cruise;
        } else {
            self.phase = Phase::Startup;
        }
    }

    fn save_window(&mut self, window: u32, in_recovery: bool) {
        let keep = in_recovery || self.phase == Phase::ProbeRtt;
        self.prior_window = if keep { self.prior_window.max(window) } else { window };
    }

    /// Loss recovery begins, fast or after a time-out.
    pub fn on_recovery(&mut self, window: u32, again: bool) {
        self.save_window(window, again);
        self.bounds.remember();
    }

    /// Recovery is over.
    pub fn on_recovered(&mut self, window: &mut u32) {
        *window = self.prior_window.max(*window);
    }

    /// The loss was none (4.2.3, BBRHandleSpuriousLossDetection).
    pub fn undo(&mut self, window: &mut u32) {
        *window = self.prior_window.max(*window);
        self.full.restart(0);
        self.bounds.recall();
    }

    /// The path says that a queue grows (RFC 3168): the lower bounds shrink as by
    /// loss, until the next probe. The draft says nothing of ECN.
    pub fn on_mark(&mut self, window: u32) {
        if !matches!(self.phase, Phase::Startup | Phase::Refill | Phase::Up) {
            self.bounds.lower(self.max_bw.get(), window);
        }
        if self.phase == Phase::Startup {
            self.full.reached = true;
        }
    }

    /// Sending begins again with nothing under way (4.4.3).
    pub fn on_idle(&mut self, now: Instant) {
        self.idle_restart = true;
        self.extra_since = now;
        if matches!(self.phase, Phase::Down | Phase::Cruise | Phase::Refill | Phase::Up) {
            let rate = self.bw * (100 - MARGIN) / 100;
            if rate > 0 {
                self.pacing_rate = rate;
            }
        }
    }

    /// It probes the round trip time: what it sends then says nothing of the rate.
    pub fn is_app_limited(&self) -> bool {
        self.phase == Phase::ProbeRtt
    }

    /// 4.6.2 and 4.6.3.
    fn set_pacing_rate(&mut self, window: u32, ack: &Ack) {
        if self.pacing_rate == 0 || self.bw == 0 {
            self.pacing_rate = first_rate(window, ack.srtt);
        }
        let rate = self.bw * self.pacing_gain() / 100 * (100 - MARGIN) / 100;
        if rate > 0 && (self.full.reached || rate > self.pacing_rate) {
            self.pacing_rate = rate;
        }
        let millisecond = (self.pacing_rate / 1000).min(64 << 10) as u32;
        self.quantum = millisecond.max(2 * ack.mss);
    }

    /// Bytes a second.
    pub fn pacing_rate(&self, window: u32, srtt: Duration) -> u64 {
        if self.pacing_rate == 0 { first_rate(window, srtt) } else { self.pacing_rate }
    }

    fn pacing_gain(&self) -> u64 {
        match self.phase {
            Phase::Startup => STARTUP_PACING,
            Phase::Drain => DRAIN_PACING,
            Phase::Down => 90,
            Phase::Up => 125,
            Phase::Cruise | Phase::Refill | Phase::ProbeRtt => 100,
        }
    }

    fn cwnd_gain(&self) -> u64 {
        match self.phase {
            Phase::Up => UP_CWND,
            Phase::ProbeRtt => PROBE_RTT_CWND,
            _ => CWND,
        }
    }

    /// The bandwidth-delay product times a gain; all there is to know before the
    /// first round trip time is the initial window.
    fn bdp(&self, bw: u64, gain: u64) -> u64 {
        if self.min_rtt == Duration::MAX {
            return 0;
        }
        (u128::from(bytes_in(bw, self.min_rtt)) * u128::from(gain) / 100) as u64
    }

    /// BBRInflight: the product, and what keeps batching from starving it (4.6.4.2).
    fn inflight(&self, bw: u64, gain: u64) -> u64 {
        self.bdp(bw, gain).max(3 * u64::from(self.quantum))
    }

    fn probe_rtt_window(&self, mss: u32) -> u32 {
        self.bdp(self.bw, PROBE_RTT_CWND).clamp(u64::from(4 * mss), u32::MAX.into()) as u32
    }

    /// 4.6.4: the window goes towards what the model asks for, by what was
    /// delivered, and stays within its bounds.
    fn set_window(&mut self, window: &mut u32, ack: &Ack) {
        let least = 4 * ack.mss;
        let extra = u64::from(self.extra_acked[0].max(self.extra_acked[1]));
        let up = if self.phase == Phase::Up { 2 * u64::from(ack.mss) } else { 0 };
        let budget = 3 * u64::from(self.quantum);
        let most = (self.bdp(self.bw, self.cwnd_gain()) + extra).max(budget) + up;
        let most = most.clamp(least.into(), u32::MAX.into()) as u32;
        // BBRModulateCwndForRecovery.
        let mut to = window.saturating_sub(ack.lost).max(ack.mss);
        if self.full.reached {
            to = to.saturating_add(ack.delivered).min(most);
        } else if to < most || self.min_rtt == Duration::MAX {
            to = to.saturating_add(ack.delivered);
        }
        to = to.max(least);
        if self.phase == Phase::ProbeRtt {
            to = to.min(self.probe_rtt_window(ack.mss));
        }
        *window = to.min(self.model_bound().max(least));
    }

    /// BBRBoundCwndForModel.
    fn model_bound(&self) -> u32 {
        let hi = match self.phase {
            Phase::Startup | Phase::Drain => u32::MAX,
            Phase::Down | Phase::Refill | Phase::Up => self.bounds.inflight_hi,
            Phase::Cruise | Phase::ProbeRtt => self.bounds.with_headroom(),
        };
        hi.min(self.bounds.inflight_lo)
    }
}

/// Before anything is known: the window in a round trip, or in a millisecond.
pub(super) fn first_rate(window: u32, srtt: Duration) -> u64 {
    let rtt = if srtt == Duration::ZERO { 1_000_000 } else { srtt.as_nanos() };
    (u128::from(window) * 1_000_000_000 / u128::from(rtt)) as u64 * STARTUP_PACING / 100
}

/// The bandwidth of a sample.
fn bandwidth(rate: &RateSample) -> u64 {
    let ns = u128::from(rate.interval.as_nanos().max(1));
    (u128::from(rate.delivered) * 1_000_000_000 / ns) as u64
}

fn bytes_in(bw: u64, time: Duration) -> u64 {
    (u128::from(bw) * u128::from(time.as_nanos()) / 1_000_000_000).min(u64::MAX.into()) as u64
}

#[cfg(test)]
mod tests;
