//! Pacing and the rate of delivery.

use super::*;

/// What one second of sending gets through, with this option set.
fn in_a_second(config: Config, rate: u64) -> (usize, Info) {
    let mut pair = Pair::open(config);
    pair.a.with(|c, _| c.set_max_pacing_rate(rate));
    let mut info = None;
    for _ in 0..1000 {
        pair.a.send(&pattern(20_000));
        pair.run(ms(1));
        info = Some(pair.a.conn().info(pair.a.now, &pair.a.config));
    }
    let got = pair.got_b.len();
    pair.finish();
    (got, info.unwrap())
}

#[test]
fn a_program_is_held_to_its_rate() {
    let (got, info) = in_a_second(Config::default(), 500_000);
    // Two milliseconds are saved up, a segment may be over.
    assert!((480_000..=503_000).contains(&got), "{got}");
    assert_eq!((info.pacing_rate, info.max_pacing_rate), (500_000, 500_000));
    assert!((450_000..600_000).contains(&info.delivery_rate), "{}", info.delivery_rate);
    let (free, info) = in_a_second(Config::default(), 0);
    assert!(free > 1_000_000, "{free}");
    assert_eq!((info.pacing_rate, info.max_pacing_rate), (u64::MAX, u64::MAX));
}

#[test]
fn a_paced_window_leaves_over_the_round_trip_and_an_unpaced_one_at_once() {
    for pacing in [false, true] {
        let mut pair = Pair::open(Config { pacing, ..Config::default() });
        // 10 ms and ten segments: two windows a round trip, two milliseconds at once.
        pair.a.send(&pattern(20_000));
        let first = pair.a.out().len();
        assert_eq!(first == 10, !pacing, "{first}");
        assert!(!pacing || first <= 6, "{first}");
        if pacing {
            let rate = pair.a.conn().pacing_rate().unwrap();
            assert!((2_700_000..2_900_000).contains(&rate), "{rate}");
            assert!(pair.a.conn().deadline() < pair.a.now + ms(1));
            pair.a.now += ms(1);
            pair.a.timer();
            let more = pair.a.out().len();
            assert!((1..4).contains(&more), "{more}");
        }
        pair.finish();
    }
}

#[test]
fn bbr_is_always_paced_and_fills_the_wire() {
    let mut config = Config::default();
    config.options.congestion = Algorithm::Bbr;
    let (got, info) = in_a_second(config, 0);
    assert!(got > 1_000_000, "{got}");
    assert!(info.pacing_rate < u64::MAX);
}

#[test]
fn the_rate_of_delivery_is_measured_and_idle_programs_are_told_apart() {
    let mut pair = Pair::open(Config::default());
    pair.a.send(&pattern(4 * 1448));
    pair.run(ms(50));
    let info = pair.a.conn().info(pair.a.now, &pair.a.config);
    // 5,792 bytes in a round trip of 10 ms.
    assert!((550_000..=580_000).contains(&info.delivery_rate), "{}", info.delivery_rate);
    for _ in 0..50 {
        pair.a.send(&pattern(100_000));
        pair.run(ms(5));
    }
    let info = pair.a.conn().info(pair.a.now, &pair.a.config);
    assert!(info.delivery_rate > 1_000_000 && !info.delivery_rate_app_limited);
    pair.run(ms(500));
    let before = pair.a.conn().info(pair.a.now, &pair.a.config).delivery_rate;
    for _ in 0..5 {
        pair.a.send(&pattern(10));
        pair.run(ms(50));
    }
    let info = pair.a.conn().info(pair.a.now, &pair.a.config);
    assert_eq!(info.delivery_rate, before, "ten bytes a round trip are the program's doing");
    pair.finish();
}
