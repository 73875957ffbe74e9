//! Sentences of RFCs that no other test shows (docs/rfc*.md).

use super::*;

#[test]
fn a_shift_above_14_counts_as_14() {
    // RFC 7323, 2.3.
    let offer = Offer { scale: Some(15), window: 3, ..MODERN };
    let solo = Solo::established(Config::default(), offer);
    assert_eq!(solo.host.conn().hot.snd_scale, 14);
    assert_eq!(solo.host.conn().hot.snd_wnd, 3 << 14);
    solo.host.finish();
}

#[test]
fn one_sample_a_round_trip_is_taken() {
    // RFC 6298, 3; RFC 7323, 4.2: many samples would shorten the memory.
    let mut solo = Solo::established(Config::default(), PLAIN);
    let d = solo.host.with(|c, _| c.set_nodelay(true));
    solo.host.note(d);
    solo.host.send(&[1; 4000]);
    assert_eq!(solo.host.out().len(), 4);
    let before = solo.host.conn().warm.rtt.smoothed();
    solo.host.now += ms(100);
    solo.get_ack(1000);
    let first = solo.host.conn().warm.rtt.smoothed();
    assert_ne!(first, before, "the first ACK of the flight is measured");
    solo.host.now += ms(100);
    for _ in 0..2 {
        solo.get_ack(1000);
        assert_eq!(solo.host.conn().warm.rtt.smoothed(), first, "the next are not");
    }
    solo.get_ack(1000);
    assert_ne!(solo.host.conn().warm.rtt.smoothed(), first, "what ends the round trip is");
    solo.host.finish();
}

#[test]
fn after_a_timeout_each_ack_is_a_sample() {
    // RFC 6298, 3: at least one each round trip, and there are many in this flight.
    let mut solo = Solo::modern();
    for _ in 0..6 {
        solo.host.send(&[1; 1000]);
    }
    assert!(solo.host.out().len() >= 4);
    // A tail's probe, and then the time-out.
    for _ in 0..2 {
        solo.host.advance(Duration::from_secs(3));
        solo.echo = solo.host.out_one().seg.options.timestamp.unwrap().0;
    }
    for part in 1..4 {
        let before = solo.host.conn().warm.rtt.smoothed();
        solo.host.now += ms(10);
        solo.get_ack(1000);
        solo.host.out();
        assert_ne!(solo.host.conn().warm.rtt.smoothed(), before, "ACK number {part}");
    }
    solo.host.finish();
}

#[test]
fn a_reset_counts_whatever_its_timestamp() {
    // RFC 7323, 5.2: RSTs are exempt from PAWS.
    let mut solo = Solo::modern();
    solo.time = solo.time.map(|t| t - 1000);
    solo.get(RST, b"");
    assert_eq!(solo.host.state(), State::Closed);
    assert_eq!(solo.host.take_error(), Some(Errno::ECONNRESET));
    solo.host.finish();
}

#[test]
fn a_reset_that_does_not_count_leaves_the_timestamp_alone() {
    // RFC 7323, 5.2; the note is older than 24 days (5.5).
    let mut solo = Solo::modern();
    solo.host.now += Duration::from_secs(25 * 24 * 3600);
    let right = solo.time;
    solo.time = Some(9_000_000);
    solo.get_at(100, RST, b"");
    solo.time = right;
    solo.host.out_one();
    solo.get(ACK, b"text");
    assert_eq!(solo.host.recv_all(), b"text");
    assert_eq!(solo.host.out_one().seg.options.timestamp.unwrap().1, right.unwrap());
    solo.host.finish();
}

#[test]
fn a_reset_of_the_programs_own_has_the_timestamp() {
    // RFC 7323, 3.2 and 5.2.
    let mut solo = Solo::modern();
    let now = solo.host.conn().ts_now(solo.host.now);
    let _ = solo.host.with(|c, e| c.abort(e));
    let desc = solo.host.tx.pop().unwrap();
    let rst = open(solo.host.pool.tx_bytes(&desc)).seg;
    assert_eq!((rst.flags & RST, rst.options.timestamp), (RST, Some((now, 5000))));
    solo.host.pool.complete(desc.index());
    solo.host.finish();
}

#[test]
fn options_that_were_not_agreed_or_come_too_late_are_ignored() {
    // RFC 7323, 2.2, 2.3 and 3.2.
    let odd = Options { window_scale: Some(3), timestamp: Some((1, 2)), ..Options::default() };
    let mut solo = Solo::plain();
    let seg = segment(ACK, solo.seq, solo.ack, 999, odd, 4);
    solo.host.input(&seg, b"text");
    assert_eq!(solo.host.recv_all(), b"text");
    let h = &solo.host.conn().hot;
    assert_eq!((h.snd_scale, h.rcv_scale, h.snd_wnd), (0, 0, 999));
    assert_eq!(solo.host.out_one().seg.options, Options::default());
    solo.host.finish();
    // A scale after the SYN changes nothing.
    let mut solo = Solo::modern();
    let late = Options { window_scale: Some(3), ..solo.options() };
    let seg = segment(ACK, solo.seq, solo.ack, 999, late, 0);
    solo.host.input(&seg, b"");
    let h = &solo.host.conn().hot;
    assert_eq!((h.snd_scale, h.snd_wnd), (7, 999 << 7));
    solo.host.finish();
}

#[test]
fn the_echo_of_a_syn_without_ack_is_not_looked_at() {
    // RFC 7323, 3.2: a simultaneous open.
    let mut host = Host::new(Config::default(), 1);
    let options = host.config.options.clone();
    let t = template("10.0.0.2:4000", "10.0.0.1:80");
    host.conn = Some(Connection::connect(&mut host.env(), t, &options, initial(ISS), 1500));
    let (value, _) = host.out_one().seg.options.timestamp.unwrap();
    let stamped = Options { timestamp: Some((77, value)), ..Options::default() };
    host.input(&segment(SYN, IRS, 0, 1000, stamped, 0), b"");
    assert_eq!(host.state(), State::SynReceived);
    assert!(!host.conn().warm.rtt.is_measured());
    assert_eq!(host.out_one().seg.options.timestamp, Some((value, 77)));
    host.finish();
}

#[test]
fn what_was_announced_is_taken_though_the_scale_hides_it() {
    // RFC 7323, 2.4, 1 and 2.
    let mut config = Config::default();
    (config.options.receive_buffer, config.options.tune_receive) = (12_800, false);
    let mut solo = Solo::established(config, MODERN);
    solo.get(ACK, &[1; 100]);
    assert_eq!(solo.host.out_one().seg.window, 99, "28 bytes are not said");
    solo.get_at(12_672, ACK, &[2; 28]);
    let ack = solo.host.out_one().seg;
    assert_eq!(ack.options.sack[0].right, IRS.wrapping_add(12_801));
    solo.get_at(12_700, ACK, b"beyond");
    assert_eq!(solo.host.counters.dropped(DropReason::TcpOutOfWindow), 1);
    solo.host.finish();
}

#[test]
fn a_reset_may_have_text() {
    // SHLD-2.
    let mut solo = Solo::plain();
    solo.get(RST | ACK, b"go away");
    assert_eq!((solo.host.state(), solo.host.conn().recv_len()), (State::Closed, 0));
    assert_eq!(solo.host.take_error(), Some(Errno::ECONNRESET));
    solo.host.finish();
}

#[test]
fn a_shut_window_takes_urgent_pointers_and_resets() {
    // MUST-66.
    let mut config = Config::default();
    config.options.receive_buffer = 1024;
    let mut solo = Solo::established(config, PLAIN);
    solo.get(ACK, &pattern(1024));
    assert_eq!(solo.host.out_one().seg.window, 0);
    let mut seg = segment(ACK | URG, solo.seq, solo.ack, 60_000, Options::default(), 1);
    seg.urgent = 1;
    solo.host.input(&seg, b"!");
    assert_eq!(solo.host.conn().urgent_mark(), Some(1024));
    assert_eq!(solo.host.out_one().seg.window, 0, "its byte is refused");
    solo.get_at(0, RST, b"");
    assert_eq!(solo.host.state(), State::Closed);
    solo.host.finish();
}

#[test]
fn the_timer_runs_from_the_oldest_that_left_and_anew_from_each_ack() {
    // RFC 6298, 5.1 to 5.3.
    let mut solo = Solo::plain();
    let d = solo.host.with(|c, _| c.set_nodelay(true));
    solo.host.note(d);
    let start = solo.host.now;
    for _ in 0..2 {
        solo.host.send(&pattern(1000));
        solo.host.out_one();
        assert_eq!(solo.host.conn().deadline(), start + ms(200), "it runs already");
        solo.host.now += ms(150);
    }
    solo.host.now = start + ms(199);
    solo.get_ack(1000);
    solo.host.silent();
    let due = solo.host.conn().deadline();
    assert!(due >= start + ms(399), "anew");
    solo.get_ack(1000);
    assert_eq!(solo.host.conn().deadline(), Instant::NEVER);
    solo.host.finish();
}

#[test]
fn what_was_just_repaired_is_not_sent_again_before_a_whole_time_out() {
    // RFC 6298, 5.
    let mut solo = Solo::plain();
    solo.host.send(&pattern(8000));
    assert_eq!(solo.leaving().len(), 8);
    solo.host.now += ms(190);
    for _ in 0..3 {
        solo.get_ack(0);
    }
    assert_eq!(solo.leaving(), [(0, 1000)]);
    let repaired = solo.host.now;
    solo.host.advance(Duration::from_secs(1));
    assert_eq!(solo.leaving(), [(0, 1000)]);
    assert_eq!(solo.host.now.since(repaired), ms(200));
    solo.host.finish();
}

#[test]
fn data_after_a_lost_syn_waits_three_seconds_unless_a_timestamp_measured() {
    // RFC 6298, 5.7.
    for (offer, wait) in [(PLAIN, 3000), (Offer { sack: false, ..MODERN }, 200)] {
        let (mut solo, _) = Solo::syn_received(Config::default(), offer);
        solo.host.advance(Duration::from_secs(1));
        let again = solo.host.out_one().seg;
        solo.echo = again.options.timestamp.map_or(0, |t| t.0);
        solo.get(ACK, b"");
        solo.host.send(b"data");
        assert_eq!(solo.leaving(), [(0, 4)]);
        let start = solo.host.now;
        solo.host.advance(Duration::from_secs(10));
        assert_eq!(solo.leaving(), [(0, 4)]);
        assert_eq!(solo.host.now.since(start), ms(wait));
        solo.host.finish();
    }
}

#[test]
fn the_next_hop_is_in_doubt_after_three_retransmissions() {
    // MUST-20, SHLD-10: R1.
    let mut solo = Solo::plain();
    solo.host.send(b"data");
    solo.host.out_one();
    for doubt in [false, false, true, true] {
        solo.host.advance(Duration::from_secs(10));
        assert_eq!(solo.host.take_events().contains(Events::UNHEARD), doubt);
        solo.host.out_one();
    }
    solo.host.finish();
}

#[test]
fn the_time_that_challenges_are_counted_over_is_a_knob() {
    // RFC 5961, 7.
    for (interval, most) in [(ms(100), 1000), (Duration::from_secs(60), 15)] {
        let config = Config { challenge_interval: interval, ..Config::default() };
        let mut solo = Solo::established(config, PLAIN);
        for _ in 0..200 {
            solo.get_at(7, RST, b"");
            solo.host.out();
            solo.host.now += ms(20);
        }
        let answered = solo.host.counters.tcp_challenge_acks;
        assert!(if most == 15 { answered < 15 } else { answered > 100 }, "{answered}");
        solo.host.finish();
    }
}

#[test]
fn every_segment_has_the_agreed_timestamp() {
    // RFC 7323, 3.2; and none has what stands in SYNs only (MUST-65).
    let mut solo = Solo::modern();
    let (now, mut all) = (solo.host.now, Vec::new());
    solo.get(ACK, b"data");
    all.extend(solo.host.out());
    solo.get_at(100, ACK, b"ahead");
    all.extend(solo.host.out());
    solo.host.with(|c, _| {
        c.set_keepalive_times(now, 60, 10, 3);
        c.set_keepalive(now, true);
    });
    solo.host.advance(Duration::from_secs(60));
    all.extend(solo.host.out());
    solo.host.send(&pattern(2000));
    all.extend(solo.host.out());
    solo.window = 0;
    solo.get_ack(1448);
    for _ in 0..2 {
        solo.host.advance(Duration::from_secs(100));
        all.extend(solo.host.out());
    }
    solo.window = 60_000;
    solo.get_ack(552);
    solo.host.shutdown();
    all.extend(solo.host.out());
    solo.host.advance(Duration::from_secs(100));
    all.extend(solo.host.out());
    assert_eq!((all.len(), all[7].seg.flags), (9, FIN | ACK));
    for (i, out) in all.iter().enumerate() {
        let o = &out.seg.options;
        assert!(o.timestamp.is_some(), "{i}");
        assert_eq!((o.mss, o.window_scale, o.sack_permitted), (None, None, false), "{i}");
    }
    solo.host.finish();
}

#[test]
fn an_echo_that_acknowledges_nothing_is_not_measured() {
    // RFC 7323, 4.1: data after a pause, with an echo from before it. The block is
    // of a part of a segment, and tells nothing.
    let mut solo = Solo::modern();
    solo.host.send(&pattern(4000));
    solo.echo = solo.host.out()[0].seg.options.timestamp.unwrap().0;
    let mut options = solo.options();
    let left = solo.ack.wrapping_add(1448);
    options.sack.push(SackBlock { left, right: left.wrapping_add(100) });
    let block = segment(ACK, solo.seq, solo.ack, 60_000, options, 0);
    let before = solo.host.conn().warm.rtt.smoothed();
    solo.host.now += ms(150);
    solo.host.input(&block, b"");
    solo.get(ACK, b"data");
    assert_eq!(solo.host.conn().warm.rtt.smoothed(), before);
    solo.host.finish();
}

#[test]
fn what_paws_compares_with_never_goes_back() {
    // RFC 7323, 5.2, on the short way and the long.
    let mut solo = Solo::modern();
    for (time, recent) in [(6000, 6000), (5999, 6000), (6001, 6001), (5000, 6001)] {
        solo.time = Some(time);
        solo.get_at(0, ACK, b"");
        solo.get_at(0, ACK | PSH, b"");
        assert_eq!(solo.host.conn().hot.ts_recent, recent);
    }
    solo.host.finish();
}

#[test]
fn paws_comes_before_the_window() {
    // RFC 7323, 5.3.
    let mut solo = Solo::modern();
    solo.time = solo.time.map(|t| t - 1);
    solo.get_at(100_000_000, ACK, b"old");
    let dropped = |reason| solo.host.counters.dropped(reason);
    assert_eq!((dropped(DropReason::TcpPaws), dropped(DropReason::TcpOutOfWindow)), (1, 0));
    solo.host.finish();
}

#[test]
fn what_waits_behind_a_gap_is_not_judged_again() {
    // RFC 7323, 5.3: what fills the gap was sent later.
    let mut solo = Solo::modern();
    solo.get_at(3, ACK, b"later");
    solo.time = solo.time.map(|t| t + 1000);
    solo.get_at(0, ACK, b"now");
    assert_eq!(solo.host.recv_all(), b"nowlater");
    solo.host.finish();
}

#[test]
fn new_data_stays_inside_of_a_window_that_shrank() {
    // SHLD-15; RFC 7323, 2.4, 3.
    let mut solo = Solo::plain();
    solo.host.send(&pattern(3000));
    assert_eq!(solo.leaving().len(), 3);
    solo.window = 1500;
    solo.get_ack(1000);
    solo.host.send(&pattern(4000));
    solo.host.silent();
    solo.window = 4000;
    solo.get_ack(2000);
    assert_eq!(solo.leaving().len(), 4);
    solo.host.finish();
}
