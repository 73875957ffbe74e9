//! ProbeBW (4.3.3): drain, cruise, refill, and look for more.

use super::{Bbr, Phase, bandwidth};
use crate::tcp::congestion::{Ack, RateSample};
use crate::time::{Duration, Instant};

/// Rounds after which a Reno flow beside this one would want a probe.
const RENO_ROUNDS: u32 = 63;

/// Where a cycle of probing stands.
#[derive(Clone, Debug, Default)]
pub struct Cycle {
    began: Instant,
    wait: Duration,
    /// Rounds since the last probe.
    pub rounds: u32,
    /// What is delivered now left while more was sent than the path may take.
    samples: bool,
    /// The probe is over, its last samples are not in.
    stopping: bool,
    up_rounds: u32,
    up_acked: u32,
    /// Bytes that have to be acknowledged for the bound to rise by a segment.
    up_step: u32,
}

impl Cycle {
    /// No more of this probe than what is under way.
    pub fn stop_probing(&mut self) {
        self.stopping = true;
    }
}

impl Bbr {
    /// BBRUpdateProbeBWCyclePhase, once the pipe was full.
    pub(super) fn update_cycle(&mut self, ack: &Ack, rate: &RateSample, window: u32) {
        self.adapt_upper(ack, rate, window);
        match self.phase {
            Phase::Down => self.come_down(ack, window),
            Phase::Cruise => {
                self.is_probe_due(ack, window);
            }
            Phase::Refill if self.round_start => {
                self.cycle.samples = true;
                self.start_up(ack, rate, window);
            }
            Phase::Up => self.go_up(ack, rate, window),
            _ => {}
        }
    }

    fn come_down(&mut self, ack: &Ack, window: u32) {
        if !self.is_probe_due(ack, window) && self.may_cruise(ack) {
            self.phase = Phase::Cruise;
        }
    }

    fn go_up(&mut self, ack: &Ack, rate: &RateSample, window: u32) {
        if self.is_up_over(rate, window) {
            self.start_down(ack);
        }
    }

    pub(super) fn start_down(&mut self, ack: &Ack) {
        self.bounds.start_loss_round();
        let c = &mut self.cycle;
        // No chance is at hand here; what differs from flow to flow does.
        let mixed = mix(ack.now.as_nanos() ^ u64::from(ack.total) << 20);
        c.rounds = (mixed & 1) as u32;
        c.wait = Duration::from_millis(2000 + (mixed >> 1) % 1000);
        (c.began, c.up_step) = (ack.now, u32::MAX);
        c.stop_probing();
        self.phase = Phase::Down;
        self.start_round();
    }

    fn start_refill(&mut self) {
        self.bounds.reset_lower();
        (self.cycle.up_rounds, self.cycle.up_acked, self.cycle.stopping) = (0, 0, false);
        self.phase = Phase::Refill;
        self.start_round();
    }

    fn start_up(&mut self, ack: &Ack, rate: &RateSample, window: u32) {
        self.full.restart(bandwidth(rate));
        self.cycle.began = ack.now;
        self.phase = Phase::Up;
        self.start_round();
        self.raise_slope(window, ack.mss);
    }

    /// 4.3.3.6: the estimated share of the pipe is used, or the bound is in the way.
    fn is_up_over(&mut self, rate: &RateSample, window: u32) -> bool {
        if self.limited && window >= self.bounds.inflight_hi {
            self.full.restart(bandwidth(rate));
            return false;
        }
        self.full.is_now()
    }

    fn may_cruise(&self, ack: &Ack) -> bool {
        let headroom = self.bounds.with_headroom().max(4 * ack.mss);
        ack.in_flight <= headroom
            && u64::from(ack.in_flight) <= self.inflight(self.max_bw.get(), 100)
    }

    /// 4.3.3.5: after two to three seconds, or when Reno would want it.
    fn is_probe_due(&mut self, ack: &Ack, window: u32) -> bool {
        let reno = self.target_inflight(window) / u64::from(ack.mss.max(1));
        let rounds = reno.min(RENO_ROUNDS.into()) as u32;
        let due = ack.now.since(self.cycle.began) > self.cycle.wait || self.cycle.rounds >= rounds;
        if due {
            self.start_refill();
        }
        due
    }

    fn target_inflight(&self, window: u32) -> u64 {
        self.inflight(self.bw, 100).min(window.into())
    }

    /// BBRAdaptLongTermModel.
    fn adapt_upper(&mut self, ack: &Ack, rate: &RateSample, window: u32) {
        let c = &mut self.cycle;
        if c.stopping && self.round_start {
            (c.stopping, c.samples) = (false, false);
            if !matches!(self.phase, Phase::Drain | Phase::ProbeRtt) && !rate.app_limited {
                self.max_bw.advance();
            }
        }
        if self.is_too_high(rate) {
            if self.cycle.samples {
                self.cycle.samples = false;
                if !rate.app_limited {
                    self.bounds.too_high(rate.tx_in_flight, self.target_inflight(window));
                }
                if self.phase == Phase::Up {
                    self.start_down(ack);
                }
            }
            return;
        }
        if self.bounds.inflight_hi == u32::MAX {
            return;
        }
        self.bounds.inflight_hi = self.bounds.inflight_hi.max(rate.tx_in_flight);
        if self.phase == Phase::Up {
            self.probe_upward(ack, window);
        }
    }

    /// More of what was under way with this segment was lost than loss as such
    /// explains.
    fn is_too_high(&self, rate: &RateSample) -> bool {
        u64::from(rate.lost) * 100 > u64::from(rate.tx_in_flight) * u64::from(self.loss_share)
    }

    /// Exponentially faster each round (BBRRaiseInflightHiSlope).
    fn raise_slope(&mut self, window: u32, mss: u32) {
        let growth = mss.saturating_mul(1 << self.cycle.up_rounds.min(20));
        self.cycle.up_rounds = (self.cycle.up_rounds + 1).min(30);
        let step = u64::from(window) * u64::from(mss) / u64::from(growth.max(1));
        self.cycle.up_step = (step as u32).max(1);
    }

    fn probe_upward(&mut self, ack: &Ack, window: u32) {
        if !self.limited || window < self.bounds.inflight_hi {
            return;
        }
        let c = &mut self.cycle;
        c.up_acked = c.up_acked.saturating_add(ack.delivered);
        let steps = c.up_acked / c.up_step.max(1);
        c.up_acked -= steps * c.up_step;
        let more = steps.saturating_mul(ack.mss);
        self.bounds.inflight_hi = self.bounds.inflight_hi.saturating_add(more).min(u32::MAX - 1);
        if self.round_start {
            self.raise_slope(window, ack.mss);
        }
    }
}

/// Every bit of the result depends on every bit of `n`.
fn mix(n: u64) -> u64 {
    let n = (n ^ n >> 31).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (n ^ n >> 29).wrapping_mul(0xd6e8_feb8_6659_fd93) >> 17
}
