//! Much data over paths that lose and reorder: what it costs.

use super::*;

#[test]
fn two_hundred_losses_in_a_window_of_a_thousand_are_mended_in_a_few_round_trips() {
    let mut config = Config { initial_window: 1000, ..Config::default() };
    config.options.send_buffer = 4 << 20;
    config.options.receive_buffer = 4 << 20;
    let mut pair = Pair::new(config.clone(), config);
    pair.delay = ms(50);
    pair.run(ms(200));
    let mut n = 0;
    pair.fate = Box::new(move |to_b, seg| {
        let data = to_b && seg.payload_len > 0;
        n += u32::from(data);
        if data && n > 300 && n <= 500 { Fate::Drop } else { Fate::Pass }
    });
    let data = pattern(1_448_000);
    assert_eq!(pair.a.send(&data), data.len());
    let start = pair.now();
    while pair.got_b.len() < data.len() {
        pair.run(ms(10));
        assert!(pair.now().since(start) < Duration::from_secs(5), "{}", pair.got_b.len());
    }
    assert!(pair.got_b == data);
    let took = pair.now().since(start).as_millis();
    assert_eq!((pair.a.counters.tcp_timeouts, pair.a.counters.tcp_retransmits), (0, 200));
    assert!(took <= 400, "{took} ms are more than four round trips");
    pair.finish();
}

#[test]
fn acks_that_are_lost_do_no_harm() {
    let mut pair = Pair::open(Config::default());
    let mut n = 0;
    pair.fate = Box::new(move |to_b, _| {
        n += 1;
        if !to_b && n % 3 != 0 { Fate::Drop } else { Fate::Pass }
    });
    let data = pattern(100_000);
    let mut sent = 0;
    while pair.got_b.len() < data.len() {
        sent += pair.a.send(&data[sent..]);
        pair.run(ms(20));
        assert!(pair.now() < Instant::from_nanos(60_000_000_000));
    }
    assert!(pair.got_b == data);
    assert_eq!(pair.a.counters.tcp_recoveries, 0);
    pair.finish();
}

/// Sends `bytes` over a path of 10 ms that loses one segment in `one_in`; bytes a
/// second, and the sender's time-outs and repairs.
fn goodput(config: Config, one_in: u32, bytes: usize) -> (f64, u64, u64) {
    let mut rng = Rng::new(u64::from(one_in));
    let fate = move |_, _: &Segment| if rng.below(one_in) == 0 { Fate::Drop } else { Fate::Pass };
    let (rate, counters, _) = bulk(config, Box::new(fate), bytes);
    (rate, counters.tcp_timeouts, counters.tcp_retransmits)
}

/// The same with any fate.
fn bulk(
    config: Config,
    fate: Box<dyn FnMut(bool, &Segment) -> Fate>,
    bytes: usize,
) -> (f64, Counters, Info) {
    spaced(config, Duration::ZERO, fate, bytes)
}

/// The same where segments arrive no closer together than `gap`: each two of them
/// are acknowledged alone, not a whole flight at once.
fn spaced(
    config: Config,
    gap: Duration,
    fate: Box<dyn FnMut(bool, &Segment) -> Fate>,
    bytes: usize,
) -> (f64, Counters, Info) {
    let mut pair = Pair::open(config);
    (pair.fate, pair.gap) = (fate, gap);
    let data = pattern(bytes);
    let (mut sent, start) = (0, pair.now());
    while pair.got_b.len() < data.len() {
        sent += pair.a.send(&data[sent..]);
        pair.run(ms(1));
        assert!(pair.now().since(start) < Duration::from_secs(600));
    }
    assert!(pair.got_b == data);
    let rate = bytes as f64 / (pair.now().since(start).as_micros() as f64 / 1e6);
    let info = pair.a.conn().info(pair.a.now, &pair.a.config);
    let result = (rate, pair.a.counters.clone(), info);
    pair.finish();
    result
}

#[test]
fn a_path_that_reorders_and_loses_nothing_costs_little() {
    // One segment in ten comes up to 2 ms late, a fifth of the round trip: the
    // window adapts, and what was sent again for nothing is undone.
    let mut rng = Rng::new(5);
    let fate = move |to_b, _: &Segment| match rng.below(10) {
        0 if to_b => Fate::Late(Duration::from_micros(1 + u64::from(rng.below(2000)))),
        _ => Fate::Pass,
    };
    let (rate, counters, info) = bulk(Config::default(), Box::new(fate), 8_000_000);
    assert!(info.reord_seen > 10 && info.reordering > 3, "{info:?}");
    assert!(counters.tcp_timeouts == 0 && info.ca_state < 2, "{info:?}");
    assert!(counters.tcp_retransmits < 20, "{counters:?}");
    // 256 KiB of window a round trip of 10 to 12 ms.
    assert!(rate > 12_000_000.0, "{rate}");
}

#[test]
fn without_rack_or_without_sack_losses_are_mended_too() {
    let mathis = 1448.0 * 1.22 / (0.01f64).sqrt() / 0.010;
    let counting = Config { loss_detection: LossDetection::DupAck, ..Config::default() };
    let mut newreno = Config::default();
    newreno.options.sack = false;
    for (config, share) in [(counting, 0.6), (newreno, 0.4)] {
        let (rate, timeouts, repairs) = goodput(config, 100, 6_000_000);
        assert!(rate > share * mathis, "{rate} of {mathis}");
        assert!(timeouts <= 8 && repairs < 100, "{timeouts} {repairs}");
    }
}

/// Twenty paths that lose one in `one_in`, their ACKs as well where `acks` says so:
/// the mean of what they give, as a share of what Mathis' formula says; all time-outs;
/// and repairs for each segment lost.
fn against_theory(gap: u64, one_in: u32, acks: bool, bytes: usize) -> (f64, u64, f64) {
    use std::cell::Cell;
    use std::rc::Rc;
    // A window that is halved at each loss has 1.22 MSS / sqrt(p) a round trip.
    let mathis = 1448.0 * 1.22 * f64::from(one_in).sqrt() / 0.010;
    let (mut sum, mut timeouts, mut repairs) = (0.0, 0, 0);
    let lost = Rc::new(Cell::new(0));
    for seed in 0..20 {
        let mut config = Config::default();
        config.options.congestion = Algorithm::Reno;
        let (mut rng, lost) = (Rng::new(seed), lost.clone());
        let fate = move |to_b, _: &Segment| match to_b || acks {
            true if rng.below(one_in) == 0 => {
                lost.set(lost.get() + u64::from(to_b));
                Fate::Drop
            }
            _ => Fate::Pass,
        };
        let (rate, counters, _) = spaced(config, Duration::from_micros(gap), Box::new(fate), bytes);
        sum += rate / mathis;
        timeouts += counters.tcp_timeouts;
        repairs += counters.tcp_retransmits;
    }
    (sum / 20.0, timeouts, repairs as f64 / lost.get() as f64)
}

#[test]
fn chance_losses_cost_what_theory_says_and_no_time_outs() {
    // Losses come by chance, and two in a window halve it once: somewhat more than
    // where they come evenly, as the formula has it.
    let (share, timeouts, repairs) = against_theory(100, 100, true, 6_000_000);
    assert!((1.08..1.26).contains(&share), "{share}");
    assert_eq!(timeouts, 0);
    assert!(repairs < 1.02, "{repairs}");
    // One in twenty: windows of five, of which a time-out may be all that is left. The
    // least time-out is twenty round trips.
    let (share, timeouts, repairs) = against_theory(100, 20, true, 2_000_000);
    assert!((0.95..1.15).contains(&share), "{share}");
    assert!(timeouts <= 10 && repairs < 1.05, "{timeouts} {repairs}");
}

#[test]
fn where_one_ack_stands_for_a_whole_flight_losses_cost_hardly_more() {
    // Whatever arrives at once is acknowledged at once, and the window grows once a
    // round trip. Were that ACK lost too, all that is under way would stand still.
    let (share, timeouts, repairs) = against_theory(0, 100, false, 3_000_000);
    assert!((0.92..1.04).contains(&share), "{share}");
    assert_eq!(timeouts, 0);
    assert!(repairs < 1.02, "{repairs}");
}

#[test]
fn the_send_buffer_grows_in_recovery_too() {
    // A path that loses all the time is never out of it, and what lies behind a gap
    // takes room.
    let mut config = Config::default();
    config.options.send_buffer = 10_000;
    let mut solo = flight_of(config, SACKS, 8);
    let mss = u32::from(solo.host.conn().segment_size());
    tell(&mut solo, 0, &[(mss, 2 * mss)]);
    let h = &solo.host.conn().hot;
    assert_eq!(h.snd_buf, 2 * solo.host.conn().warm.congestion.window);
    assert!(h.snd_buf > 10_000 && solo.host.take_events().contains(Events::WRITABLE));
    solo.host.finish();
}
