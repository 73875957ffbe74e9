//! Loss recovery with SACK: RACK-TLP (RFC 8985), PRR, F-RTO, D-SACK, undo.

use super::*;
use crate::tcp::LossDetection;

const SACKS: Offer = Offer { sack: true, ..PLAIN };

/// A connection over a path of 100 ms with `n` full segments under way.
fn flight_of(config: Config, offer: Offer, n: usize) -> Solo {
    let (mut solo, _) = Solo::syn_received(config, offer);
    solo.host.now += ms(100);
    solo.get(ACK, b"");
    solo.host.take_events();
    solo.host.silent();
    let mss = usize::from(solo.host.conn().segment_size());
    solo.host.send(&pattern(n * mss));
    assert_eq!(solo.leaving().len(), n);
    solo
}

fn flight(n: usize) -> Solo {
    flight_of(Config::default(), SACKS, n)
}

/// An ACK up to `ack` with these blocks, all relative to the first byte.
fn tell(solo: &mut Solo, ack: u32, blocks: &[(u32, u32)]) {
    let at = |n: u32| ISS.wrapping_add(1).wrapping_add(n);
    solo.ack = at(ack);
    let mut options = solo.options();
    for b in blocks {
        options.sack.push(SackBlock { left: at(b.0), right: at(b.1) });
    }
    let seg = segment(ACK, solo.seq, solo.ack, solo.window, options, 0);
    solo.host.input(&seg, b"");
}

fn info(solo: &Solo) -> Info {
    solo.host.conn().info(solo.host.now, &solo.host.config)
}

/// Waits until something leaves; how many milliseconds, and what.
fn wait(solo: &mut Solo) -> (u64, Vec<(u32, usize)>) {
    let start = solo.host.now;
    for _ in 0..100 {
        solo.host.advance(Duration::from_secs(1));
        let all = solo.leaving();
        if !all.is_empty() {
            return (solo.host.now.since(start).as_millis(), all);
        }
    }
    panic!("nothing leaves");
}

#[test]
fn reordering_by_a_quarter_of_the_round_trip_sends_nothing_again() {
    // RFC 8985, 6.2, steps 3 to 5.
    let mut solo = flight(4);
    solo.host.now += ms(100);
    tell(&mut solo, 0, &[(1000, 2000)]);
    solo.host.silent();
    assert_eq!((info(&solo).ca_state, info(&solo).sacked), (1, 1));
    solo.host.now += ms(20);
    tell(&mut solo, 2000, &[]);
    solo.host.silent();
    tell(&mut solo, 4000, &[]);
    let i = info(&solo);
    assert_eq!((i.total_retrans, i.reord_seen, i.reordering, i.ca_state), (0, 1, 3, 0));
    solo.host.finish();
}

#[test]
fn what_is_later_than_that_is_lost_without_another_ack() {
    let mut solo = flight(4);
    solo.host.now += ms(100);
    tell(&mut solo, 0, &[(1000, 2000)]);
    solo.host.silent();
    assert_eq!(wait(&mut solo), (25, vec![(0, 1000)]), "the reordering timer");
    let i = info(&solo);
    assert_eq!((i.ca_state, i.lost, i.retrans, i.sacked), (3, 1, 1, 1));
    assert_eq!(solo.host.counters.tcp_timeouts, 0);
    solo.host.finish();
}

#[test]
fn three_segments_behind_it_tell_a_loss_at_once_until_reordering_was_seen() {
    let mut solo = flight(8);
    solo.host.now += ms(100);
    tell(&mut solo, 0, &[(1000, 3000)]);
    solo.host.silent();
    tell(&mut solo, 0, &[(1000, 4000)]);
    assert_eq!(solo.leaving(), [(0, 1000)]);
    solo.host.finish();
    // A path that was seen to reorder: three are no proof, time is.
    let mut solo = flight(8);
    solo.host.now += ms(100);
    tell(&mut solo, 0, &[(1000, 2000)]);
    tell(&mut solo, 2000, &[]);
    tell(&mut solo, 2000, &[(3000, 7000)]);
    assert_eq!((info(&solo).reord_seen, info(&solo).sacked), (1, 4));
    solo.host.silent();
    assert_eq!(wait(&mut solo), (25, vec![(2000, 1000)]));
    solo.host.finish();
}

#[test]
fn the_early_degree_is_a_knob() {
    let config = Config { early_reordering: 1, ..Config::default() };
    let mut solo = flight_of(config, SACKS, 4);
    solo.host.now += ms(100);
    tell(&mut solo, 0, &[(1000, 2000)]);
    assert_eq!(solo.leaving(), [(0, 1000)]);
    solo.host.finish();
}

#[test]
fn a_lost_retransmission_is_found_by_what_was_sent_after_it() {
    // RFC 8985, 1.2: what counting duplicates cannot do.
    for (rack, again) in [(LossDetection::Rack, true), (LossDetection::DupAck, false)] {
        let config = Config { loss_detection: rack, ..Config::default() };
        let mut solo = flight_of(config, SACKS, 10);
        solo.host.send(&pattern(20_000));
        solo.host.now += ms(100);
        tell(&mut solo, 0, &[(1000, 4000)]);
        assert_eq!(solo.leaving()[0], (0, 1000));
        tell(&mut solo, 0, &[(1000, 9000)]);
        let more = solo.leaving();
        assert!(more.contains(&(10_000, 1000)), "{more:?}");
        solo.host.now += ms(100);
        tell(&mut solo, 0, &[(1000, 11_000)]);
        assert_eq!(solo.leaving().contains(&(0, 1000)), again);
        assert_eq!(solo.host.counters.tcp_timeouts, 0);
        solo.host.finish();
    }
}

#[test]
fn with_rfc_6675_bytes_or_ranges_behind_it_tell_a_loss_and_time_does_not() {
    let config = Config {
        loss_detection: LossDetection::DupAck,
        tail_loss_probe: false,
        ..Config::default()
    };
    let mut solo = flight_of(config.clone(), SACKS, 8);
    solo.host.now += ms(100);
    tell(&mut solo, 0, &[(1000, 3000)]);
    solo.host.now += ms(60);
    solo.host.silent();
    tell(&mut solo, 0, &[(1000, 3000), (4000, 5000)]);
    assert_eq!(solo.leaving(), [(0, 1000)], "more than two segments' bytes");
    assert_eq!(info(&solo).lost, 1, "3000 has one behind it");
    solo.host.finish();
    let mut solo = flight_of(config, SACKS, 8);
    solo.host.now += ms(100);
    tell(&mut solo, 0, &[(5000, 5900), (6000, 7000)]);
    solo.host.silent();
    solo.host.finish();
}

#[test]
fn a_lost_tail_is_probed_for_and_mended_without_a_time_out() {
    // RFC 8985, 7.2 and 7.3: two round trips after the last sign of life.
    let mut solo = flight(4);
    solo.host.now += ms(100);
    tell(&mut solo, 1000, &[]);
    solo.host.silent();
    assert_eq!(wait(&mut solo), (202, vec![(3000, 1000)]), "the last again");
    assert_eq!(solo.host.counters.tcp_tail_probes, 1);
    solo.host.now += ms(100);
    tell(&mut solo, 1000, &[(3000, 4000)]);
    let mended = solo.leaving();
    assert_eq!(mended[0], (1000, 1000), "the probe's answer shows the losses");
    solo.host.now += ms(100);
    tell(&mut solo, 2000, &[(3000, 4000)]);
    if mended.len() == 1 {
        assert_eq!(solo.leaving(), [(2000, 1000)]);
    }
    tell(&mut solo, 4000, &[]);
    let i = info(&solo);
    assert_eq!((solo.host.counters.tcp_timeouts, i.ca_state, i.total_retrans), (0, 0, 3));
    solo.host.finish();
}

#[test]
fn the_probe_is_new_data_where_there_is_some_whatever_the_window_says() {
    let config = Config { initial_window: 2, ..Config::default() };
    let mut solo = flight_of(config, SACKS, 2);
    solo.host.send(&pattern(2000));
    solo.host.silent();
    assert_eq!(wait(&mut solo), (202, vec![(2000, 1000)]));
    // One probe; then the time-out.
    let (after, again) = wait(&mut solo);
    assert_eq!((after, again[0]), (300, (0, 1000)));
    assert_eq!(solo.host.counters.tcp_tail_probes, 1);
    solo.host.finish();
}

#[test]
fn without_the_probe_only_the_time_out_is_left() {
    let config = Config { tail_loss_probe: false, ..Config::default() };
    let mut solo = flight_of(config, SACKS, 3);
    assert_eq!(wait(&mut solo), (300, vec![(0, 1000)]));
    assert_eq!((solo.host.counters.tcp_tail_probes, solo.host.counters.tcp_timeouts), (0, 1));
    solo.host.finish();
}

#[test]
fn a_loss_that_the_probe_mended_shrinks_the_window_and_a_duplicate_does_not() {
    // RFC 8985, 7.4.2.
    // By D-SACK, or by a plain duplicate of a peer that has none.
    let (twice, plain) = (Some(&[(0, 1000)][..]), Some(&[][..]));
    for (answer, shrinks) in [(None, true), (twice, false), (plain, false)] {
        let mut solo = flight(1);
        let (after, all) = wait(&mut solo);
        assert_eq!((after, all), (300, vec![(0, 1000)]), "the time-out comes before 400 ms");
        assert_eq!(solo.host.counters.tcp_timeouts, 0);
        tell(&mut solo, 1000, &[]);
        if let Some(blocks) = answer {
            tell(&mut solo, 1000, blocks);
            let reported = blocks.len() as u64;
            assert_eq!(solo.host.counters.tcp_dsack_in, reported);
        }
        solo.host.send(&pattern(1000));
        assert_eq!(solo.leaving(), [(1000, 1000)]);
        tell(&mut solo, 2000, &[]);
        assert_eq!(info(&solo).snd_ssthresh == 2, shrinks);
        solo.host.finish();
    }
}

#[test]
fn a_time_out_that_was_too_early_is_undone_by_what_was_sent_once() {
    // RFC 5682, 3.1: without timestamps.
    for frto in [true, false] {
        let config = Config { tail_loss_probe: false, frto, ..Config::default() };
        let mut solo = flight_of(config, SACKS, 6);
        assert_eq!(wait(&mut solo), (300, vec![(0, 1000)]));
        assert_eq!((info(&solo).snd_cwnd, info(&solo).ca_state), (1, 4));
        tell(&mut solo, 2000, &[]);
        let again = solo.leaving();
        let i = info(&solo);
        if frto {
            assert!(again.is_empty(), "{again:?}");
            assert_eq!((i.snd_cwnd, i.ca_state, i.lost, i.total_retrans), (10, 0, 0, 1));
            assert_eq!(solo.host.counters.tcp_undone, 1);
        } else {
            assert!(!again.is_empty() && i.snd_cwnd < 5);
        }
        solo.host.finish();
    }
}

#[test]
fn without_sack_new_data_tells_whether_the_time_out_was_too_early() {
    // RFC 5682, 2.1: steps 2b, 3a and 3b.
    for spurious in [true, false] {
        let mut solo = flight_of(Config::default(), PLAIN, 6);
        assert_eq!(wait(&mut solo), (300, vec![(0, 1000)]));
        solo.host.send(&pattern(10_000));
        solo.host.silent();
        solo.get_ack(1000);
        assert_eq!(solo.leaving(), [(6000, 1000), (7000, 1000)], "new data first");
        if spurious {
            solo.get_ack(1000);
            assert_eq!((info(&solo).snd_cwnd, info(&solo).ca_state), (10, 0));
            assert!(solo.leaving().iter().all(|s| s.0 >= 8000));
            assert_eq!((info(&solo).total_retrans, solo.host.counters.tcp_undone), (1, 1));
        } else {
            solo.get_ack(0);
            assert_eq!(solo.leaving().first(), Some(&(1000, 1000)));
            assert_eq!(info(&solo).ca_state, 4);
        }
        solo.host.finish();
    }
}

#[test]
fn pacing_may_hold_back_the_new_data_that_f_rto_sends_first() {
    // RFC 5682, 2.1, step 2b: it goes first when its time has come.
    let mut solo = flight_of(Config::default(), PLAIN, 6);
    solo.host.with(|c, _| c.set_max_pacing_rate(20_000));
    assert_eq!(wait(&mut solo), (300, vec![(0, 1000)]));
    solo.host.send(&pattern(10_000));
    solo.get_ack(1000);
    solo.host.silent();
    let (after, sent) = wait(&mut solo);
    assert!((48..=50).contains(&after), "a segment in 50 ms, two saved: {after}");
    assert_eq!(sent, [(6000, 1000)], "not what only seems lost");
    solo.get_ack(1000);
    assert_eq!((info(&solo).ca_state, solo.host.counters.tcp_undone), (0, 1));
    solo.host.finish();
}

#[test]
fn a_time_out_in_recovery_that_was_none_leaves_what_recovery_ends_with() {
    // The loss was one: the window goes back to the goal of the reduction, not to
    // where it stood on the way down.
    let offer = Offer { time: true, mss: 1012, ..SACKS };
    let mut config =
        Config { initial_window: 20, tail_loss_probe: false, ..Config::default() };
    config.options.congestion = Algorithm::Reno;
    let mut solo = flight_of(config, offer, 20);
    let old = solo.host.conn().ts_now(solo.host.now);
    solo.host.now += ms(100);
    solo.echo = old;
    tell(&mut solo, 0, &[(1000, 4000)]);
    assert_eq!(solo.leaving(), [(0, 1000)]);
    assert_eq!((info(&solo).snd_cwnd, info(&solo).snd_ssthresh), (17, 10));
    let repair = solo.host.conn().ts_now(solo.host.now);
    assert_eq!(wait(&mut solo).1, [(0, 1000)]);
    assert_eq!((info(&solo).ca_state, info(&solo).snd_cwnd), (4, 1));
    solo.host.now += ms(5);
    solo.echo = repair;
    tell(&mut solo, 4000, &[]);
    let i = info(&solo);
    assert_eq!((i.ca_state, i.snd_cwnd, i.snd_ssthresh), (0, 10, 10));
    assert_eq!(solo.host.counters.tcp_undone, 1);
    solo.host.finish();
}

#[test]
fn an_echo_from_before_the_repair_undoes_it() {
    // RFC 3522 (Eifel).
    let offer = Offer { time: true, mss: 1012, ..SACKS };
    for late in [true, false] {
        let mut solo = flight_of(Config::default(), offer, 8);
        let old = solo.host.conn().ts_now(solo.host.now);
        solo.host.now += ms(100);
        solo.echo = old;
        tell(&mut solo, 0, &[(1000, 4000)]);
        assert_eq!(solo.leaving(), [(0, 1000)]);
        solo.host.now += ms(50);
        solo.echo = if late { old } else { solo.host.conn().ts_now(solo.host.now) };
        tell(&mut solo, 4000, &[]);
        let i = info(&solo);
        assert_eq!((i.ca_state, i.snd_cwnd >= 10), if late { (0, true) } else { (3, false) });
        assert_eq!(solo.host.counters.tcp_undone, u64::from(late));
        solo.host.finish();
    }
}

#[test]
fn a_repair_that_came_twice_was_for_nothing() {
    // RFC 2883 and 3708: the news comes when recovery is over.
    let mut solo = flight(8);
    solo.host.now += ms(100);
    tell(&mut solo, 0, &[(1000, 4000)]);
    assert_eq!(solo.leaving(), [(0, 1000)]);
    solo.host.now += ms(10);
    tell(&mut solo, 8000, &[]);
    assert_eq!(info(&solo).ca_state, 0);
    assert!(info(&solo).snd_cwnd < 8);
    solo.host.now += ms(90);
    tell(&mut solo, 8000, &[(0, 1000)]);
    assert_eq!((info(&solo).snd_cwnd, solo.host.counters.tcp_undone), (10, 1));
    assert_eq!((info(&solo).dsack_dups, info(&solo).reord_seen), (1, 1));
    // The books are closed when nothing was under way for a while.
    solo.host.advance(Duration::from_secs(2));
    assert!(solo.host.conn().cold.recovery.is_none());
    assert_eq!(solo.host.conn().deadline(), Instant::NEVER);
    solo.host.finish();
}

#[test]
fn what_the_peer_threw_away_is_sent_again() {
    // RFC 2018, 8: it said that it has 1000 to 5000, and acknowledges 1000.
    let mut solo = flight(6);
    solo.host.now += ms(100);
    tell(&mut solo, 0, &[(1000, 5000)]);
    assert_eq!(solo.leaving(), [(0, 1000)]);
    solo.host.now += ms(100);
    tell(&mut solo, 1000, &[]);
    assert_eq!(solo.host.conn().held_frames(), 5, "nothing is freed by SACK");
    let _ = solo.leaving();
    let (after, again) = wait(&mut solo);
    assert!(after <= 100 && again[0] == (1000, 1000), "{after} {again:?}");
    assert_eq!(info(&solo).sacked, 0);
    solo.host.finish();
}

#[test]
fn blocks_outside_of_what_is_outstanding_count_for_nothing() {
    let mut solo = flight(4);
    solo.host.now += ms(100);
    for block in [(1000, 9000), (3000, 2000), (0x7000_0000, 0x7000_1000)] {
        tell(&mut solo, 0, &[block]);
    }
    assert_eq!((info(&solo).sacked, solo.host.counters.tcp_sack_discarded), (0, 3));
    solo.host.silent();
    // A part of a segment is not the segment.
    tell(&mut solo, 0, &[(1001, 2999)]);
    assert_eq!((info(&solo).sacked, solo.host.conn().held_frames()), (0, 4));
    solo.host.finish();
}

#[test]
fn duplicates_that_come_in_are_reported_first() {
    // RFC 2883, 4.
    for on in [true, false] {
        let config = Config { dsack: on, ..Config::default() };
        let mut solo = Solo::established(config, SACKS);
        let at = |n: u32| IRS.wrapping_add(1).wrapping_add(n);
        let blocks = |o: &Out| -> Vec<(u32, u32)> {
            o.seg.options.sack.iter().map(|b| (b.left.wrapping_sub(at(0)), b.right.wrapping_sub(at(0)))).collect()
        };
        solo.get(PSH, b"");
        solo.get(ACK | PSH, b"0123456789");
        let _ = solo.host.out();
        solo.get_at(-10, ACK, b"01234");
        let whole = blocks(&solo.host.out_one());
        assert_eq!(whole, if on { vec![(0, 5)] } else { vec![] });
        // Once only; then a part of one that goes on.
        solo.get_at(-5, ACK, b"56789abcde");
        solo.seq = solo.seq.wrapping_add(5);
        assert_eq!(blocks(&solo.host.out_one()), if on { vec![(5, 10)] } else { vec![] });
        // Ahead of a gap: the block that it lies in comes second.
        solo.get_at(10, ACK, b"XXXXXXXXXX");
        solo.get_at(40, ACK, b"YYYYYYYYYY");
        let _ = solo.host.out();
        solo.get_at(12, ACK, b"XXX");
        let ahead = blocks(&solo.host.out_one());
        let expected = [(27, 30), (25, 35), (55, 65)];
        assert_eq!(ahead, if on { &expected[..] } else { &expected[1..] });
        solo.host.finish();
    }
}

#[test]
fn a_batch_with_many_gaps_is_told_whole() {
    // RFC 2018, 4: else the sender takes for lost what only was not told.
    let mut solo = Solo::established(Config::default(), SACKS);
    for i in 1..=10 {
        solo.get_at(i * 20, ACK, b"0123456789");
    }
    let all = solo.host.out();
    assert_eq!(all.len(), 3, "four blocks each");
    let at = |n: u32| IRS.wrapping_add(1).wrapping_add(n);
    for i in 1..=10u32 {
        let block = SackBlock { left: at(i * 20), right: at(i * 20 + 10) };
        assert!(all.iter().any(|o| o.seg.options.sack.contains(&block)), "{i}");
    }
    assert_eq!(all[2].seg.options.sack[0].left, at(200), "the newest first, in the last");
    // Nothing new to tell: one ACK.
    solo.get_at(60, ACK, b"0123456789");
    assert_eq!(solo.host.out_one().seg.options.sack[1].left, at(60));
    solo.host.finish();
}

#[test]
fn hasty_repairs_make_rack_wait_longer_for_a_while() {
    // RFC 8985, 6.2, step 4: a D-SACK a round trip widens the window.
    let mut solo = flight(8);
    solo.host.now += ms(100);
    tell(&mut solo, 0, &[(1000, 2000)]);
    tell(&mut solo, 2000, &[]);
    assert_eq!(info(&solo).reord_seen, 1);
    tell(&mut solo, 2000, &[(3000, 4000), (2500, 2600)]);
    tell(&mut solo, 2000, &[(0, 1000)]);
    let (after, again) = wait(&mut solo);
    assert_eq!((after, again[0]), (50, (2000, 1000)), "two quarters of the round trip");
    solo.host.finish();
}

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

#[test]
fn a_window_that_was_idle_starts_over_unless_told_not_to() {
    // RFC 5681, 4.1.
    for restart_idle in [true, false] {
        let config = Config { restart_idle, initial_window: 4, ..Config::default() };
        let mut solo = flight_of(config, SACKS, 4);
        for i in 1..=4 {
            tell(&mut solo, i * 1000, &[]);
        }
        assert!(info(&solo).snd_cwnd >= 6);
        solo.host.now += Duration::from_secs(5);
        solo.host.send(&pattern(10_000));
        assert_eq!(solo.leaving().len() == 4, restart_idle);
        solo.host.finish();
    }
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
    let mut pair = Pair::open(config);
    pair.fate = fate;
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
    assert_eq!((counters.tcp_timeouts, info.ca_state), (0, 0));
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

#[test]
fn chance_losses_cost_what_theory_says_and_no_time_outs() {
    // Mathis: a window that is halved at each loss has 1.22 MSS / sqrt(p) a round
    // trip. One loss in a hundred, with ACKs lost as well.
    let mut config = Config::default();
    config.options.congestion = Algorithm::Reno;
    let (rate, timeouts, repairs) = goodput(config.clone(), 100, 6_000_000);
    let mathis = 1448.0 * 1.22 / (0.01f64).sqrt() / 0.010;
    // An ACK lets slow start grow by two segments at most, whatever ACKs were lost.
    assert!(rate > 0.65 * mathis, "{rate} of {mathis}");
    // 4,144 segments: 41 lost, hardly more sent again.
    assert!(repairs < 70, "{repairs}");
    assert!(timeouts <= 3, "{timeouts}");
    // One in twenty: still by repair, not by waiting.
    let (rate, timeouts, _) = goodput(config, 20, 2_000_000);
    let mathis = 1448.0 * 1.22 / (0.05f64).sqrt() / 0.010;
    assert!(rate > 0.6 * mathis && timeouts <= 8, "{rate} of {mathis}, {timeouts}");
}

#[test]
fn every_repair_of_a_recovery_must_come_twice_before_it_is_undone() {
    let mut solo = flight(8);
    solo.host.now += ms(100);
    tell(&mut solo, 0, &[(2000, 6000)]);
    let mut sent = solo.leaving();
    solo.host.now += ms(5);
    tell(&mut solo, 0, &[(2000, 8000)]);
    sent.extend(solo.leaving());
    assert_eq!(sent, [(0, 1000), (1000, 1000)]);
    tell(&mut solo, 8000, &[]);
    tell(&mut solo, 8000, &[(0, 1000)]);
    assert_eq!(solo.host.counters.tcp_undone, 0);
    tell(&mut solo, 8000, &[(1000, 2000)]);
    assert_eq!((solo.host.counters.tcp_undone, info(&solo).snd_cwnd), (1, 10));
    solo.host.finish();
}

#[test]
fn a_time_out_sends_again_only_what_was_sent_long_ago() {
    // RFC 8985, 6.3: what left a moment before it is not lost.
    let config = Config { tail_loss_probe: false, frto: false, ..Config::default() };
    let mut solo = flight_of(config, SACKS, 3);
    solo.host.now += ms(100);
    tell(&mut solo, 0, &[(1000, 2000)]);
    solo.host.now += ms(10);
    tell(&mut solo, 1000, &[]);
    tell(&mut solo, 2000, &[]);
    // 2000 is under way since 110 ms; more leaves shortly before its time-out.
    solo.host.now += ms(250);
    solo.host.send(&pattern(2000));
    assert_eq!(solo.leaving(), [(3000, 1000), (4000, 1000)]);
    solo.host.advance(Duration::from_secs(1));
    assert_eq!(solo.leaving(), [(2000, 1000)]);
    assert_eq!((info(&solo).ca_state, info(&solo).lost), (4, 1), "one of three");
    solo.host.finish();
}

#[test]
fn the_least_time_out_can_be_a_millisecond() {
    let config = Config {
        min_rto: ms(1),
        tail_loss_probe: false,
        ..Config::default()
    };
    let mut solo = Solo::established(config, SACKS);
    solo.host.send(&pattern(1000));
    assert_eq!(solo.leaving(), [(0, 1000)]);
    assert_eq!(wait(&mut solo), (1, vec![(0, 1000)]));
    solo.host.finish();
}

#[test]
fn a_tail_is_not_probed_again_before_something_was_measured() {
    // RFC 8985, 7.3: else a path that became longer is never measured.
    for measured in [false, true] {
        let mut solo = flight(1);
        assert_eq!(wait(&mut solo), (300, vec![(0, 1000)]), "the probe");
        solo.host.now += ms(200);
        tell(&mut solo, 1000, &[]);
        solo.host.send(&pattern(1000));
        assert_eq!(solo.leaving(), [(1000, 1000)]);
        if measured {
            solo.host.now += ms(100);
            tell(&mut solo, 2000, &[]);
            solo.host.send(&pattern(1000));
            assert_eq!(solo.leaving(), [(2000, 1000)]);
        }
        let (after, _) = wait(&mut solo);
        let counters = &solo.host.counters;
        let expected = if measured { (2, 0) } else { (1, 1) };
        assert_eq!((counters.tcp_tail_probes, counters.tcp_timeouts), expected, "{after}");
        // A time-out says no more than the probe did.
        if !measured {
            assert_eq!(info(&solo).backoff, 1);
            tell(&mut solo, 2000, &[]);
            solo.host.send(&pattern(1000));
            assert_eq!(solo.leaving(), [(2000, 1000)]);
            wait(&mut solo);
            assert_eq!(solo.host.counters.tcp_tail_probes, 1);
        }
        solo.host.finish();
    }
}

#[test]
fn without_a_round_trip_time_the_probe_waits_a_second() {
    // RFC 8985, 7.2.
    let (mut solo, _) = Solo::syn_received(Config::default(), SACKS);
    solo.host.advance(Duration::from_secs(1));
    assert_eq!(solo.host.out_one().seg.flags, SYN | ACK);
    solo.get(ACK, b"");
    solo.host.send(&pattern(500));
    assert_eq!(solo.leaving(), [(0, 500)]);
    assert_eq!(wait(&mut solo), (1000, vec![(0, 500)]));
    assert_eq!(solo.host.counters.tcp_tail_probes, 1);
    solo.host.finish();
}

#[test]
fn rack_waits_no_longer_than_a_round_trip_and_forgets_after_sixteen_recoveries() {
    // RFC 8985, 3.3.2 and 6.2, step 4.
    let mut solo = flight(4);
    solo.host.with(|c, _| (c.cold.reordering.seen, c.cold.reordering.quarters) = (1, 200));
    solo.host.now += ms(100);
    tell(&mut solo, 0, &[(1000, 2000)]);
    assert_eq!(wait(&mut solo), (100, vec![(0, 1000)]), "SRTT, not 50 of it");
    solo.host.finish();

    let mut solo = flight(8);
    solo.host.now += ms(100);
    tell(&mut solo, 0, &[(1000, 2000)]);
    tell(&mut solo, 2000, &[(3000, 4000), (2500, 2600)]);
    tell(&mut solo, 2000, &[(0, 1000)]);
    let how = solo.host.with(|c, _| c.cold.reordering);
    assert_eq!(how.quarters, 2);
    for n in 1..=16 {
        let left = solo.host.with(|c, _| {
            c.cold.reordering.recovered();
            c.cold.reordering.quarters
        });
        assert_eq!(left, if n < 16 { 2 } else { 1 });
    }
    solo.host.finish();
}

#[test]
fn what_is_lost_goes_again_only_as_the_window_allows() {
    // RFC 8985, 9.3: RACK finds seven losses, PRR lets out what three delivered.
    let mut solo = flight(10);
    solo.host.now += ms(100);
    tell(&mut solo, 0, &[(7000, 10_000)]);
    assert_eq!(info(&solo).lost, 7);
    assert_eq!(solo.leaving(), [(0, 1000), (1000, 1000), (2000, 1000)]);
    solo.host.finish();
}

#[test]
fn in_recovery_rack_waits_for_nothing_until_reordering_was_seen() {
    // RFC 8985, 3.3.2, 1.
    let mut solo = flight(10);
    solo.host.now += ms(100);
    tell(&mut solo, 0, &[(1000, 4000)]);
    assert_eq!(solo.leaving(), [(0, 1000)]);
    tell(&mut solo, 4000, &[(5000, 6000)]);
    assert_eq!(solo.leaving().first(), Some(&(4000, 1000)), "one behind it is enough");
    solo.host.finish();
}

#[test]
fn one_round_trip_makes_rack_wait_longer_once() {
    // RFC 8985, 6.2, step 4.
    let mut solo = flight(8);
    solo.host.now += ms(100);
    tell(&mut solo, 0, &[(2000, 5000)]);
    let _ = solo.leaving();
    tell(&mut solo, 5000, &[]);
    tell(&mut solo, 5000, &[(0, 1000)]);
    tell(&mut solo, 5000, &[(1000, 2000)]);
    assert_eq!((info(&solo).dsack_dups, solo.host.conn().cold.reordering.quarters), (2, 2));
    solo.host.finish();
}

#[test]
fn a_probe_from_before_recovery_says_nothing_after_it() {
    // RFC 8985, 7.1.
    let mut solo = flight(8);
    assert_eq!(wait(&mut solo), (202, vec![(7000, 1000)]));
    let tail = |solo: &Solo| solo.host.conn().cold.recovery.as_ref().unwrap().tail.is_some();
    assert!(tail(&solo));
    solo.host.now += ms(100);
    tell(&mut solo, 0, &[(7000, 8000)]);
    assert_eq!((info(&solo).ca_state, tail(&solo)), (3, false));
    solo.host.finish();
}

#[test]
fn new_data_puts_the_probe_off() {
    // RFC 8985, 7.2.
    let config = Config { min_rto: Duration::from_secs(1), ..Config::default() };
    let mut solo = flight_of(config, SACKS, 2);
    solo.host.now += ms(100);
    solo.host.send(&pattern(1000));
    assert_eq!(solo.leaving(), [(2000, 1000)]);
    assert_eq!(wait(&mut solo), (202, vec![(2000, 1000)]));
    solo.host.finish();
}

#[test]
fn for_a_single_segment_the_probe_waits_for_a_delayed_ack() {
    // RFC 8985, 7.2.
    for (n, after) in [(1, 400), (2, 202)] {
        let config = Config { min_rto: Duration::from_secs(1), ..Config::default() };
        let mut solo = flight_of(config, SACKS, n);
        assert_eq!(wait(&mut solo).0, after);
        assert_eq!(solo.host.counters.tcp_tail_probes, 1);
        solo.host.finish();
    }
}

#[test]
fn no_tail_is_probed_in_recovery_or_while_blocks_tell_what_is_missing() {
    // RFC 8985, 7.2.
    let config = Config { loss_detection: LossDetection::DupAck, ..Config::default() };
    for (blocks, then) in [((1000, 2000), 0), ((1000, 4000), 0), ((1000, 4000), 4000)] {
        let mut solo = flight_of(config.clone(), SACKS, 8);
        solo.host.now += ms(100);
        tell(&mut solo, 0, &[blocks]);
        let _ = solo.leaving();
        tell(&mut solo, then, &[blocks][..usize::from(then == 0)]);
        let _ = solo.leaving();
        wait(&mut solo);
        assert_eq!((solo.host.counters.tcp_tail_probes, solo.host.counters.tcp_timeouts), (0, 1));
        solo.host.finish();
    }
}

#[test]
fn the_reordering_timer_gives_way_to_the_time_out() {
    // RFC 8985, 8: what it waited for is known to be lost.
    let mut solo = flight(8);
    solo.host.now += ms(100);
    tell(&mut solo, 0, &[(1000, 2000)]);
    solo.host.silent();
    assert_eq!(solo.host.conn().deadline(), solo.host.now + ms(25));
    tell(&mut solo, 0, &[(1000, 4000)]);
    assert_eq!(solo.leaving(), [(0, 1000)]);
    assert!(solo.host.conn().deadline() >= solo.host.now + ms(300));
    solo.host.finish();
}

#[test]
fn a_time_out_takes_the_first_for_lost_however_late_acks_came() {
    // RFC 8985, 6.3.
    let config = Config { tail_loss_probe: false, ..Config::default() };
    let mut solo = flight_of(config, SACKS, 3);
    solo.host.now += ms(100);
    tell(&mut solo, 0, &[(1000, 2000)]);
    tell(&mut solo, 2000, &[]);
    let newest = crate::tcp::loss::Newest { at: solo.host.now, end: ISS };
    solo.host.with(|c, _| {
        let rack = &mut c.books().1.rack;
        (rack.newest, rack.rtt) = (Some(newest), Duration::from_secs(100));
    });
    assert_eq!(wait(&mut solo).1, [(2000, 1000)]);
    assert_eq!(solo.host.counters.tcp_timeouts, 1);
    solo.host.finish();
}

#[test]
fn what_is_lost_of_what_recovery_sent_is_the_next_recoverys() {
    // The loss shows while the first recovery lasts: at its end it is not forgotten.
    let mut solo = flight(10);
    solo.host.send(&pattern(20_000));
    solo.host.now += ms(100);
    tell(&mut solo, 0, &[(1000, 10_000)]);
    let sent = solo.leaving();
    assert_eq!(sent[0], (0, 1000));
    let last = sent[sent.len() - 1].0;
    assert!(last >= 12_000, "{sent:?}");
    solo.host.now += ms(100);
    // Of the new data the first is missing; so is what was sent again.
    tell(&mut solo, 0, &[(11_000, last + 1000), (1000, 10_000)]);
    let again = solo.leaving();
    assert!(again.contains(&(0, 1000)), "{again:?}");
    assert_eq!(solo.host.counters.tcp_recoveries, 1);
    let before = solo.host.conn().hot.congestion.threshold();
    solo.host.now += ms(100);
    tell(&mut solo, 10_000, &[(11_000, last + 1000)]);
    assert_eq!(solo.host.counters.tcp_recoveries, 2, "another window's loss");
    assert!(solo.host.conn().hot.congestion.threshold() < before);
    solo.host.finish();
}

#[test]
fn losses_that_time_shows_are_counted_by_the_rate_sampler() {
    let mut solo = flight(8);
    solo.host.now += ms(100);
    // The path reorders: three behind it are no proof.
    tell(&mut solo, 0, &[(1000, 2000)]);
    tell(&mut solo, 2000, &[]);
    tell(&mut solo, 2000, &[(3000, 7000)]);
    assert_eq!(wait(&mut solo).1, [(2000, 1000)]);
    assert_eq!(solo.host.counters.tcp_recoveries, 1);
    solo.host.now += ms(100);
    tell(&mut solo, 8000, &[]);
    assert_eq!(solo.host.conn().cold.flow.as_ref().unwrap().rate.lost(), 1000);
    solo.host.finish();
}

#[test]
fn a_duplicate_of_what_was_sent_once_undoes_nothing() {
    // The network made it: what was sent again was lost (RFC 3708, 2).
    let mut solo = flight(8);
    solo.host.now += ms(100);
    tell(&mut solo, 0, &[(1000, 5000)]);
    assert_eq!(solo.leaving(), [(0, 1000)]);
    let window = info(&solo).snd_cwnd;
    tell(&mut solo, 0, &[(2000, 3000), (1000, 5000)]);
    assert_eq!((info(&solo).ca_state, solo.host.counters.tcp_undone), (3, 0));
    assert!(info(&solo).snd_cwnd <= window);
    // The same of what went again: it had not been lost.
    tell(&mut solo, 5000, &[(0, 1000)]);
    assert_eq!(solo.host.counters.tcp_undone, 1);
    solo.host.finish();
}

#[test]
fn what_the_recovery_before_sent_again_does_not_undo_this_one() {
    let mut solo = flight_of(Config::default(), Offer { time: true, ..SACKS }, 10);
    let mss = u32::from(solo.host.conn().segment_size());
    let stamp = |solo: &mut Solo| {
        let all = solo.host.out();
        all.first().map_or(0, |o| o.seg.options.timestamp.unwrap().0)
    };
    solo.host.send(&pattern(60_000));
    solo.host.now += ms(100);
    tell(&mut solo, 0, &[(mss, 10 * mss)]);
    stamp(&mut solo);
    // Its repair is lost, and so is the first of the new data.
    solo.host.now += ms(100);
    tell(&mut solo, 0, &[(11 * mss, 14 * mss), (mss, 10 * mss)]);
    let second = stamp(&mut solo);
    solo.host.now += ms(100);
    solo.echo = second;
    tell(&mut solo, 10 * mss, &[(11 * mss, 14 * mss)]);
    assert_eq!(solo.host.counters.tcp_recoveries, 2);
    let all = solo.leaving();
    // What leaves then sends something else again, before the repair's ACK.
    solo.host.now += ms(1);
    let right = all.last().unwrap().0 + mss;
    tell(&mut solo, 10 * mss, &[(15 * mss, right), (11 * mss, 14 * mss)]);
    solo.host.now += ms(30);
    solo.host.timer();
    let again = solo.leaving();
    assert!(again.contains(&(14 * mss, mss as usize)), "{again:?}");
    solo.host.now += ms(10);
    tell(&mut solo, 14 * mss, &[(15 * mss, right)]);
    assert_eq!(solo.host.counters.tcp_undone, 0);
    solo.host.finish();
}
