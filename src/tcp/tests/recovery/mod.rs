//! Loss recovery with SACK: RACK-TLP (RFC 8985), D-SACK, time-outs.

mod bulk;
mod next;
mod undo;

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
