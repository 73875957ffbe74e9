//! The parts of BBR's model: the filter of bandwidths, the sign of a full pipe,
//! and the bounds that loss sets.

use crate::tcp::congestion::{Ack, RateSample};

/// The highest bandwidth of this probing cycle and the last (4.5.2).
#[derive(Clone, Copy, Debug, Default)]
pub struct MaxFilter([u64; 2]);

impl MaxFilter {
    pub fn get(&self) -> u64 {
        self.0[0].max(self.0[1])
    }

    pub fn update(&mut self, bw: u64) {
        self.0[0] = self.0[0].max(bw);
    }

    /// A new cycle; one without a sample does not count.
    pub fn advance(&mut self) {
        if self.0[0] > 0 {
            self.0 = [0, self.0[0]];
        }
    }
}

/// Three rounds without a quarter more bandwidth: the pipe is full (4.3.1.2).
#[derive(Clone, Copy, Debug, Default)]
pub struct FullPipe {
    bw: u64,
    count: u8,
    now: bool,
    pub reached: bool,
}

impl FullPipe {
    pub fn check(&mut self, bw: u64, round_start: bool) {
        if self.now {
            return;
        }
        if bw >= self.bw.saturating_add(self.bw / 4).max(1) {
            return self.restart(bw);
        }
        if round_start {
            self.count += 1;
            self.now = self.count >= 3;
            self.reached |= self.now;
        }
    }

    /// Growth is looked for from here on.
    pub fn restart(&mut self, bw: u64) {
        (self.bw, self.count, self.now) = (bw, 0, false);
    }

    pub fn is_now(&self) -> bool {
        self.now
    }
}

/// What loss says of the path (4.5.10), and the signals of the current round.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub bw_lo: u64,
    pub inflight_lo: u32,
    pub inflight_hi: u32,
    bw_latest: u64,
    pub inflight_latest: u32,
    /// The round for the counting of losses ends where this is passed.
    round_end: u32,
    over: bool,
    lost: u32,
    delivered: u32,
    /// ACKs that told of losses in this round.
    pub losses: u32,
    /// `bw_lo`, `inflight_lo` and `inflight_hi` before the last loss.
    before: (u64, u32, u32),
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            bw_lo: u64::MAX,
            inflight_lo: u32::MAX,
            inflight_hi: u32::MAX,
            bw_latest: 0,
            inflight_latest: 0,
            round_end: 0,
            over: false,
            lost: 0,
            delivered: 0,
            losses: 0,
            before: (u64::MAX, u32::MAX, u32::MAX),
        }
    }
}

/// Beta is 0.7.
fn beta(n: u64) -> u64 {
    (u128::from(n) * 7 / 10) as u64
}

impl Bounds {
    /// Takes the signals of an ACK; true where a round of them is over.
    pub fn note(&mut self, ack: &Ack, rate: &RateSample) -> bool {
        self.bw_latest = self.bw_latest.max(super::bandwidth(rate));
        self.inflight_latest = self.inflight_latest.max(rate.delivered);
        self.lost = self.lost.saturating_add(ack.lost);
        self.delivered = self.delivered.saturating_add(ack.delivered);
        self.losses += u32::from(ack.lost > 0);
        self.over = rate.prior_delivered.wrapping_sub(self.round_end) as i32 >= 0;
        if self.over {
            self.round_end = ack.total;
        }
        self.over
    }

    /// BBRAdvanceLatestDeliverySignals.
    pub fn advance(&mut self, rate: &RateSample) {
        if self.over {
            self.bw_latest = super::bandwidth(rate);
            self.inflight_latest = rate.delivered;
        }
    }

    /// More than this share, in hundredths, of the round was lost.
    pub fn lost_too_much(&self, share: u32) -> bool {
        let all = u64::from(self.lost) + u64::from(self.delivered);
        u64::from(self.lost) * 100 > all * u64::from(share)
    }

    pub fn start_loss_round(&mut self) {
        (self.lost, self.delivered, self.losses) = (0, 0, 0);
    }

    /// The short-term bounds shrink (BBRInitLowerBounds, BBRLossLowerBounds).
    pub fn lower(&mut self, max_bw: u64, window: u32) {
        let bw = if self.bw_lo == u64::MAX { max_bw } else { self.bw_lo };
        let inflight = if self.inflight_lo == u32::MAX { window } else { self.inflight_lo };
        self.bw_lo = beta(bw).max(self.bw_latest);
        self.inflight_lo = (beta(inflight.into()) as u32).max(self.inflight_latest);
    }

    pub fn reset_lower(&mut self) {
        (self.bw_lo, self.inflight_lo) = (u64::MAX, u32::MAX);
    }

    /// A probe found more under way than the path takes (BBRHandleInflightTooHigh).
    pub fn too_high(&mut self, tx_in_flight: u32, target: u64) {
        let floor = beta(target).min(u32::MAX.into()) as u32;
        self.inflight_hi = tx_in_flight.max(floor);
    }

    /// Leaves room for others (BBRHeadroom is 0.15).
    pub fn with_headroom(&self) -> u32 {
        match self.inflight_hi {
            u32::MAX => u32::MAX,
            hi => hi - (u64::from(hi) * 15 / 100) as u32,
        }
    }

    pub fn remember(&mut self) {
        self.before = (self.bw_lo, self.inflight_lo, self.inflight_hi);
    }

    pub fn recall(&mut self) {
        self.start_loss_round();
        let (bw_lo, inflight_lo, inflight_hi) = self.before;
        self.bw_lo = self.bw_lo.max(bw_lo);
        self.inflight_lo = self.inflight_lo.max(inflight_lo);
        self.inflight_hi = self.inflight_hi.max(inflight_hi);
    }
}
