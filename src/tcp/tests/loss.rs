//! Retransmission (RFC 6298, 5681, 6582, 3042).

use super::*;

/// An established connection with `n` full segments under way.
fn under_way(n: usize) -> Solo {
    let mut solo = Solo::plain();
    solo.host.send(&pattern(n * 1000));
    assert_eq!(solo.leaving().len(), n);
    solo
}

/// The congestion window and threshold in segments.
fn windows(solo: &Solo) -> (u32, u32) {
    let info = solo.host.conn().info(solo.host.now, &solo.host.config);
    (info.snd_cwnd, info.snd_ssthresh)
}

#[test]
fn the_timer_sends_the_first_again_and_backs_off() {
    // RFC 6298, 5.4 to 5.6; RFC 5681, eq. 4.
    let mut solo = under_way(8);
    let start = solo.host.now;
    let mut times = Vec::new();
    for _ in 0..4 {
        solo.host.advance(Duration::from_secs(10));
        times.push(solo.host.now.since(start).as_millis());
        assert_eq!(solo.leaving(), [(0, 1000)]);
    }
    // The RTT of the handshake was 0: the least RTO, 200 ms, doubled each time.
    assert_eq!(times, [200, 600, 1400, 3000]);
    assert_eq!(windows(&solo), (1, 4));
    // What comes after is sent in slow start, a segment more for an ACK.
    solo.get_ack(1000);
    assert_eq!(solo.leaving(), [(1000, 1000), (2000, 1000)]);
    solo.get_ack(2000);
    assert_eq!(solo.leaving().len(), 3);
    assert_eq!(solo.host.counters.tcp_timeouts, 4);
    solo.host.finish();
}

#[test]
fn a_timeout_that_was_not_needed_sends_little_again() {
    let mut solo = under_way(8);
    solo.host.advance(Duration::from_secs(10));
    assert_eq!(solo.leaving(), [(0, 1000)]);
    solo.get_ack(8000);
    solo.host.silent();
    solo.host.send(&pattern(1000));
    assert_eq!(solo.leaving(), [(8000, 1000)]);
    solo.host.finish();
}

#[test]
fn three_duplicates_start_fast_retransmit_and_recovery() {
    // RFC 5681, 3.2; RFC 3042 before the third; RFC 6582 for partial ACKs.
    let mut solo = under_way(10);
    solo.host.send(&pattern(20_000));
    solo.host.silent();
    solo.get_ack(0);
    assert_eq!(solo.leaving(), [(10_000, 1000)], "limited transmit");
    solo.get_ack(0);
    assert_eq!(solo.leaving(), [(11_000, 1000)]);
    solo.get_ack(0);
    assert_eq!(solo.leaving(), [(0, 1000)], "fast retransmit");
    assert_eq!(windows(&solo), (9, 6), "half of 12 under way, to be reached step by step");
    // 12 under way less 3 that arrived: 9 in the pipe, on the way to 6.
    for _ in 0..3 {
        solo.get_ack(0);
        solo.host.silent();
    }
    solo.get_ack(0);
    assert_eq!(solo.leaving(), [(12_000, 1000)]);
    // A partial ACK: the fourth is missing too, and sent at once.
    solo.get_ack(3000);
    let again = solo.leaving();
    assert_eq!(again[0], (3000, 1000));
    assert_eq!(windows(&solo).1, 6);
    solo.get_ack(9000);
    let after = windows(&solo);
    assert!(after.0 <= 6, "{after:?}");
    let info = solo.host.conn().info(solo.host.now, &solo.host.config);
    assert_eq!(info.ca_state, 0, "recovery is over");
    assert_eq!(info.total_retrans, 2);
    solo.host.finish();
}

#[test]
fn what_is_no_duplicate_does_not_count() {
    // RFC 5681, 2: data, a new window, nothing outstanding.
    let mut solo = under_way(5);
    for window in [50_000, 50_001, 50_002, 50_003] {
        solo.window = window;
        solo.get(ACK, b"");
    }
    for _ in 0..4 {
        solo.get(ACK, b"data");
    }
    assert!(solo.leaving().iter().all(|s| s.1 == 0));
    solo.get_ack(5000);
    for _ in 0..4 {
        solo.get(ACK, b"");
    }
    solo.host.silent();
    assert_eq!(solo.host.counters.tcp_retransmits, 0);
    solo.host.finish();
}

#[test]
fn a_timeout_during_recovery_starts_over() {
    let mut solo = under_way(10);
    for _ in 0..3 {
        solo.get_ack(0);
    }
    assert_eq!(solo.leaving(), [(0, 1000)]);
    solo.host.advance(Duration::from_secs(10));
    assert_eq!(solo.leaving(), [(0, 1000)]);
    assert_eq!(windows(&solo).0, 1);
    // RFC 6582: duplicates of what was sent before do not start it anew.
    for _ in 0..5 {
        solo.get_ack(0);
    }
    solo.host.silent();
    solo.get_ack(10_000);
    solo.host.silent();
    solo.host.finish();
}

#[test]
fn karn_a_segment_sent_again_is_not_measured_but_a_timestamp_is() {
    let mut solo = under_way(1);
    solo.host.advance(Duration::from_secs(10));
    solo.host.out_one();
    solo.host.now += ms(150);
    solo.get_ack(1000);
    let info = solo.host.conn().info(solo.host.now, &solo.host.config);
    assert_eq!(info.rtt, 0);
    solo.host.finish();

    let mut solo = Solo::modern();
    solo.host.send(b"x");
    solo.host.out_one();
    solo.host.advance(Duration::from_secs(10));
    solo.echo = solo.host.out_one().seg.options.timestamp.unwrap().0;
    solo.host.now += ms(80);
    solo.get_ack(1);
    let info = solo.host.conn().info(solo.host.now, &solo.host.config);
    assert_eq!(info.rtt, 10_000, "an eighth of the 80 ms");
    solo.host.finish();
}

#[test]
fn a_pending_frame_is_sent_again_by_a_copy() {
    let mut solo = Solo::plain();
    solo.host.hold = true;
    solo.host.send(&pattern(1000));
    let first = solo.host.out_one();
    solo.host.advance(Duration::from_secs(1));
    let again = solo.host.out_one();
    assert_eq!((first.data, first.seg.seq), (again.data.clone(), again.seg.seq));
    assert_eq!(solo.host.pending.len(), 2);
    assert_ne!(solo.host.pending[0].index(), solo.host.pending[1].index());
    // After completion the frame itself is used again.
    solo.host.complete_all();
    solo.host.advance(Duration::from_secs(1));
    assert_eq!(solo.host.out_one().data, again.data);
    assert_eq!(solo.host.conn().held_frames(), 1);
    // Acknowledged while it is pending: free after completion.
    solo.get_ack(1000);
    assert_eq!(solo.host.pool.counts().tx, 1);
    solo.host.finish();
}

#[test]
fn an_ack_in_the_middle_of_a_segment_trims_it() {
    let mut solo = under_way(2);
    solo.get_ack(333);
    solo.host.advance(Duration::from_secs(1));
    let again = solo.host.out_one();
    assert_eq!((solo.rel(&again), &again.data[..]), (333, &pattern(1000)[333..]));
    solo.host.finish();
}

#[test]
fn the_fin_alone_is_sent_again() {
    let mut solo = Solo::plain();
    solo.host.shutdown();
    solo.host.out_one();
    solo.host.advance(Duration::from_secs(1));
    assert_eq!(solo.host.out_one().seg.flags, FIN | ACK);
    assert_eq!(solo.host.counters.tcp_retransmits, 1);
    solo.get_ack(1);
    assert_eq!(solo.host.conn().deadline(), Instant::NEVER);
    solo.host.finish();
}

#[test]
fn in_a_stream_one_loss_is_mended_without_a_timeout() {
    for sack in [false, true] {
        let mut config = Config::default();
        config.options.sack = sack;
        let mut pair = Pair::open(config);
        let mut n = 0;
        pair.fate = Box::new(move |to_b, seg| {
            n += u32::from(to_b && seg.payload_len > 0);
            if n == 30 && to_b && seg.payload_len > 0 { Fate::Drop } else { Fate::Pass }
        });
        let data = pattern(200_000);
        let mut sent = 0;
        while pair.got_b.len() < data.len() {
            sent += pair.a.send(&data[sent..]);
            pair.run(ms(5));
        }
        assert!(pair.got_b == data);
        assert_eq!((pair.a.counters.tcp_timeouts, pair.a.counters.tcp_retransmits), (0, 1));
        pair.finish();
    }
}

#[test]
fn without_frames_a_retransmission_waits() {
    let mut solo = Solo::plain();
    solo.host.hold = true;
    solo.host.send(&pattern(1000));
    solo.host.out_one();
    let mut hoard = Vec::new();
    while let Some(frame) = solo.host.pool.alloc() {
        hoard.push(frame);
    }
    solo.host.lent = hoard.len();
    solo.host.advance(Duration::from_secs(1));
    solo.host.silent();
    assert!(solo.host.again);
    for frame in hoard {
        solo.host.pool.free(frame);
    }
    solo.host.lent = 0;
    assert_eq!(solo.leaving(), [(0, 1000)]);
    solo.host.finish();
}

#[test]
fn fast_retransmit_works_however_long_ago_the_last_recovery_was() {
    // Between 2 and 4 GiB after it the old mark looks as if it lay ahead.
    for behind in [1 << 30, 1 << 31, (1 << 31) + 5, 3 << 30, u32::MAX - (1 << 20)] {
        let mut solo = under_way(8);
        solo.host.with(|c, _| c.cold.recover = c.hot.snd_una.wrapping_sub(behind));
        for _ in 0..3 {
            solo.get_ack(0);
        }
        assert_eq!(solo.leaving().first(), Some(&(0, 1000)), "{behind}");
        solo.host.finish();
    }
}

#[test]
fn what_waited_for_a_repair_tells_no_round_trip_time() {
    let mut solo = under_way(8);
    for _ in 0..3 {
        solo.get_ack(0);
    }
    assert_eq!(solo.leaving(), [(0, 1000)]);
    solo.host.now += ms(150);
    solo.get_ack(8000);
    let info = solo.host.conn().info(solo.host.now, &solo.host.config);
    assert!(info.rtt < 1000, "{}", info.rtt);
    solo.host.finish();
}

#[test]
fn sack_blocks_ahead_make_a_duplicate_whatever_the_window() {
    // Receivers that grow their windows change them with every ACK.
    let mut solo = Solo::modern();
    solo.host.send(&pattern(8000));
    assert_eq!(solo.leaving().len(), 6);
    let mss = u32::from(solo.host.conn().segment_size());
    for i in 1..=3u32 {
        let left = solo.ack.wrapping_add(mss);
        let block = SackBlock { left, right: left.wrapping_add(i * mss) };
        let mut options = solo.options();
        options.sack.push(block);
        let seg = segment(ACK, solo.seq, solo.ack, 50_000 + i as u16, options, 0);
        solo.host.input(&seg, b"");
    }
    assert_eq!(solo.leaving().first(), Some(&(0, mss as usize)));
    solo.host.finish();
}

#[test]
fn what_finds_no_next_hop_is_given_up_in_the_end() {
    // Nothing is outstanding, and nothing can leave.
    let mut solo = Solo::plain();
    solo.host.with(|c, _| c.hot.bits -= super::super::connection::Bits::PATH);
    solo.host.send(b"data");
    solo.host.silent();
    let start = solo.host.now;
    while solo.host.state() != State::Closed {
        solo.host.advance(Duration::from_secs(1000));
        solo.host.silent();
        assert!(solo.host.now.since(start) < Duration::from_secs(3600), "it goes on");
    }
    // Each time-out has the stack ask for the neighbour again.
    assert!(solo.host.counters.tcp_timeouts > 10);
    assert_eq!(solo.host.take_error(), Some(Errno::ETIMEDOUT));
    solo.host.finish();
}
