//! What leaves together, and where PSH stands in it.

use super::*;

/// A connection that has measured a round trip of `rtt`, with an initial window of
/// `window` segments of 1000 bytes.
fn measured(rtt: Duration, window: u32) -> Solo {
    let config = Config { initial_window: window as u16, ..Config::default() };
    let (mut solo, _) = Solo::syn_received(config, PLAIN);
    solo.host.now += rtt;
    solo.get(ACK, b"");
    solo.host.silent();
    solo
}

/// How many segments of a write of `n` leave until each PSH.
fn pushes(solo: &mut Solo, n: usize) -> Vec<usize> {
    assert_eq!(solo.host.send(&pattern(n * 1000)), n * 1000);
    let out = solo.host.out();
    let with = out.iter().enumerate().filter(|(_, o)| o.seg.flags.contains(PSH));
    with.map(|(i, _)| i + 1).collect()
}

#[test]
fn a_train_is_a_millisecond_at_twice_the_rate_of_the_window_and_more_on_short_paths() {
    for (rtt, window, train) in [
        // 20 bytes a microsecond; nothing is added from 8 ms on.
        (ms(10), 100, 19),
        (ms(20), 100, 9),
        // Never under two.
        (ms(100), 10, 2),
        (ms(100), 100, 2),
        // 64 KiB more on the shortest paths, half of it for each half millisecond.
        (ms(1), 10, 52),
        (ms(2), 10, 17),
        (Duration::from_micros(400), 10, 114),
        // Never over a thousand.
        (Duration::from_micros(20), 500, 1000),
    ] {
        let solo = measured(rtt, window);
        assert_eq!(solo.host.conn().train(2), train, "{rtt:?}, {window} segments");
        solo.host.finish();
    }
    let (solo, _) = Solo::syn_received(Config::default(), PLAIN);
    assert_eq!(solo.host.conn().train(2), u32::MAX, "nothing was measured");
    solo.host.finish();
}

#[test]
fn push_ends_a_write_and_each_train_and_half_window_in_it() {
    // Trains of two, in a window of ten.
    let mut solo = measured(ms(100), 10);
    assert_eq!(pushes(&mut solo, 7), [2, 4, 6, 7]);
    solo.host.finish();
    // Half a window is less than the train of 52.
    let mut solo = measured(ms(1), 10);
    assert_eq!(pushes(&mut solo, 8), [5, 8]);
    solo.host.finish();
    // The train of 19 is less than half a window of 100. PLAIN's 60,000 bytes end it.
    let mut solo = measured(ms(10), 100);
    assert_eq!(pushes(&mut solo, 60), [19, 38, 57, 60]);
    solo.host.finish();
}

#[test]
fn the_last_that_fits_into_the_window_carries_push() {
    // The congestion window ends the burst, in the middle of a write.
    let mut solo = measured(ms(1), 4);
    assert_eq!(pushes(&mut solo, 9), [2, 4]);
    solo.host.finish();
    // A lone segment from the middle of a write does not: no burst.
    let mut solo = measured(ms(1), 1);
    assert_eq!(pushes(&mut solo, 3), []);
    solo.host.finish();
    // The peer's window does.
    let mut solo = measured(ms(1), 100);
    solo.window = 7000;
    solo.get(ACK, b"");
    assert_eq!(pushes(&mut solo, 20), [7]);
    solo.host.finish();
}

#[test]
fn a_connection_gives_way_after_its_share_of_a_turn() {
    let mut solo = measured(ms(10), 1000);
    solo.host.with(|c, _| c.hot.snd_wnd = 1 << 20);
    assert_eq!(solo.host.send(&pattern(195_000)), 195_000);
    let mut turns = Vec::new();
    loop {
        let (flush, packets) = solo.host.output_once();
        let out: Vec<_> = packets.iter().map(|p| open(p)).collect();
        let last = out.last().expect("something leaves");
        assert!(last.seg.flags.contains(PSH), "nothing more comes for a while");
        turns.push(out.len());
        if flush != Flush::More {
            break;
        }
    }
    // 64 KiB, in segments of 1000 bytes.
    assert_eq!(turns, [66, 66, 63]);
    solo.host.silent();
    solo.host.finish();
}
