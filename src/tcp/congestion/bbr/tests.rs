//! BBR over a path that is one line of code: a rate, a delay, a share lost.

use super::*;
use crate::tcp::congestion::testing;

const MSS: u32 = 1000;

struct Path {
    bbr: Bbr,
    window: u32,
    now: Instant,
    total: u32,
    lost: u32,
    seen: Vec<Phase>,
}

impl Path {
    fn new(share: u8) -> Self {
        Self { bbr: Bbr::new(share), window: 10 * MSS, now: Instant::ZERO, total: 0, lost: 0, seen: vec![] }
    }

    /// A round trip at `rate` bytes a second and `rtt` without a queue; `loss` in
    /// hundredths. All that the window allows is sent, a queue takes what is over.
    fn round(&mut self, rate: u64, rtt: Duration, loss: u32) {
        let flight = self.window;
        let (prior, lost_before) = (self.total, self.lost);
        let base = bytes_in(rate, rtt);
        let took = rtt.as_nanos().max(u64::from(flight) * 1_000_000_000 / rate);
        let segments = (flight / MSS).max(1);
        let mut owed = 0;
        for i in 0..segments {
            self.now += Duration::from_nanos(took / u64::from(segments));
            owed += loss;
            let lost = if owed >= 100 { MSS } else { 0 };
            owed %= 100;
            let got = MSS - lost;
            self.total += got;
            self.lost += lost;
            let delivered = (u64::from(flight).min(base)) as u32;
            let ack = Ack {
                now: self.now,
                delivered: got,
                total: self.total,
                lost,
                in_flight: flight - i * MSS,
                rtt: Some(Duration::from_nanos(took)),
                srtt: rtt,
                rate: Some(RateSample {
                    prior_delivered: prior,
                    delivered,
                    interval: rtt.max(Duration::from_nanos(u64::from(delivered) * 1_000_000_000 / rate)),
                    lost: self.lost - lost_before,
                    tx_in_flight: flight,
                    app_limited: false,
                }),
                ..testing::ack(got)
            };
            self.bbr.on_ack(&mut self.window, &ack);
            if self.seen.last() != Some(&self.bbr.phase) {
                self.seen.push(self.bbr.phase);
            }
        }
    }
}

const RATE: u64 = 10_000_000;
const RTT: Duration = Duration::from_millis(20);

#[test]
fn startup_finds_the_rate_drains_and_cruises() {
    let mut p = Path::new(20);
    (0..60).for_each(|_| p.round(RATE, RTT, 0));
    // It is down the moment that it is drained.
    assert_eq!(p.seen[..3], [Phase::Startup, Phase::Drain, Phase::Cruise]);
    let bw = p.bbr.max_bw.get();
    assert!((RATE * 99 / 100..=RATE * 101 / 100).contains(&bw), "{bw}");
    // BDP 200,000: twice that, and what aggregation asks for.
    assert!((300_000..700_000).contains(&p.window), "{}", p.window);
}

#[test]
fn a_probe_comes_every_few_seconds_and_finds_new_bandwidth() {
    let mut p = Path::new(20);
    (0..100).for_each(|_| p.round(RATE, RTT, 0));
    (0..400).for_each(|_| p.round(2 * RATE, RTT, 0));
    let cycle = [Phase::Cruise, Phase::Refill, Phase::Up, Phase::Down];
    assert!(p.seen.windows(4).any(|w| w == cycle), "{:?}", p.seen);
    assert!(p.bbr.max_bw.get() > RATE * 19 / 10, "{}", p.bbr.max_bw.get());
}

#[test]
fn the_round_trip_time_is_probed_with_half_the_product_under_way() {
    let mut p = Path::new(20);
    let mut least = u32::MAX;
    let mut probed = 0;
    // A queue of its own stands; without a probe its time would be the least.
    for _ in 0..1500 {
        p.round(RATE, RTT, 0);
        if p.bbr.phase == Phase::ProbeRtt {
            probed += 1;
            least = least.min(p.window);
        }
    }
    assert!(probed > 0);
    assert!((4 * MSS..=110_000).contains(&least), "{least}");
    assert_eq!(p.bbr.min_rtt.as_millis(), 20);
}

#[test]
fn loss_below_the_share_changes_nothing_and_above_it_bounds_the_flight() {
    let window = |share, loss| {
        let mut p = Path::new(share);
        (0..60).for_each(|_| p.round(RATE, RTT, 0));
        (0..150).for_each(|_| p.round(RATE, RTT, loss));
        (p.window, p.bbr.bounds.inflight_hi, p.bbr.bw)
    };
    let (_, hi, bw) = window(20, 5);
    assert_eq!(hi, u32::MAX);
    assert!(bw > RATE * 9 / 10, "{bw}");
    let (_, hi, _) = window(2, 5);
    assert!(hi < u32::MAX, "the draft's two in a hundred are passed");
}

#[test]
fn startup_ends_where_much_is_lost() {
    let mut p = Path::new(20);
    for _ in 0..4 {
        p.round(RATE * 100, RTT, 30);
    }
    let mut calm = Path::new(20);
    for _ in 0..4 {
        calm.round(RATE * 100, RTT, 0);
    }
    assert!(p.bbr.full.reached && !calm.bbr.full.reached);
    assert!(p.bbr.bounds.inflight_hi < u32::MAX);
}

#[test]
fn a_loss_that_was_none_gives_the_bounds_and_the_window_back() {
    let mut p = Path::new(20);
    (0..60).for_each(|_| p.round(RATE, RTT, 0));
    let before = p.window;
    p.bbr.on_recovery(p.window, false);
    p.bbr.bounds.lower(RATE, p.window);
    p.window = 10 * MSS;
    p.bbr.undo(&mut p.window);
    assert_eq!((p.window, p.bbr.bounds.bw_lo), (before, u64::MAX));
}

#[test]
fn samples_of_an_idle_program_do_not_fill_the_pipe() {
    let mut full = FullPipe::default();
    full.check(1000, true);
    (0..2).for_each(|_| full.check(1100, true));
    assert!(!full.reached);
    full.check(1250, true);
    (0..3).for_each(|_| full.check(1250, true));
    assert!(full.reached && full.is_now());
}

#[test]
fn the_first_ack_begins_no_probe_of_the_round_trip_time_however_late_the_clock() {
    let mut p = Path::new(20);
    p.now = Instant::ZERO + Duration::from_secs(100_000);
    (0..8).for_each(|_| p.round(RATE, RTT, 0));
    assert_eq!(p.seen[0], Phase::Startup);
    assert!(!p.seen.contains(&Phase::ProbeRtt), "{:?}", p.seen);
}
