//! Data both ways: coalescing, Nagle, delayed ACKs, lent frames, and whole
//! streams over a wire that loses, repeats and reorders.

use super::*;

#[test]
fn an_echo_takes_two_segments_once_the_start_is_over() {
    let mut pair = Pair::open(Config::default());
    for round in 0..20u32 {
        let (a0, b0) = (pair.a.counters.tcp_segments_out, pair.b.counters.tcp_segments_out);
        pair.a.send(&[7; 64]);
        pair.emit(true);
        let (_, _, _, packet) = pair.wire.pop_front().unwrap();
        pair.deliver(true, &packet);
        let got = core::mem::take(&mut pair.got_b);
        assert_eq!(got, [7; 64]);
        pair.b.send(&got);
        pair.emit(false);
        let (_, _, _, packet) = pair.wire.pop_front().unwrap();
        pair.deliver(false, &packet);
        if round > 16 {
            assert_eq!(pair.a.counters.tcp_segments_out - a0, 1);
        }
        assert_eq!(pair.b.counters.tcp_segments_out - b0, 1, "the ACK travels with the answer");
        if round <= 16 {
            pair.emit(true);
            while let Some((_, _, _, packet)) = pair.wire.pop_front() {
                pair.deliver(true, &packet);
            }
        }
    }
    pair.finish();
}

#[test]
fn nagle_holds_a_second_small_write_back_and_nodelay_does_not() {
    // SHLD-7, MUST-17.
    let mut solo = Solo::plain();
    solo.host.send(b"one");
    assert_eq!(solo.leaving(), [(0, 3)]);
    solo.host.send(b"two");
    solo.host.send(b"three");
    solo.host.silent();
    solo.get_ack(3);
    let both = solo.host.out_one();
    assert_eq!((solo.rel(&both), &both.data[..]), (3, &b"twothree"[..]));
    assert!(both.seg.flags.contains(PSH));
    solo.host.send(b"four");
    solo.host.silent();
    let d = solo.host.with(|c, _| c.set_nodelay(true));
    assert!(d.flush);
    assert_eq!(solo.leaving(), [(11, 4)]);
    solo.host.finish();
}

#[test]
fn push_marks_the_last_segment_of_a_write() {
    // MUST-61.
    let mut solo = Solo::plain();
    solo.host.send(&pattern(2500));
    let flags: Vec<_> = solo.host.out().iter().map(|o| (o.len(), o.seg.flags)).collect();
    assert_eq!(flags, [(1000, ACK), (1000, ACK), (500, ACK | PSH)]);
    solo.host.finish();
}

#[test]
fn a_small_segment_waits_for_the_ack_of_another_small_one() {
    // SHLD-7, with Minshall's change: behind full ones it does not wait.
    let mut solo = Solo::plain();
    solo.host.send(&pattern(2500));
    assert_eq!(solo.leaving(), [(0, 1000), (1000, 1000), (2000, 500)]);
    solo.host.send(&pattern(300));
    assert_eq!(solo.leaving(), []);
    solo.get_ack(2000);
    assert_eq!(solo.leaving(), [], "the small one is still out");
    solo.get_ack(500);
    assert_eq!(solo.leaving(), [(2500, 300)]);
    // A full one leaves while a small one is out, a small one behind it does not.
    solo.host.send(&pattern(1200));
    assert_eq!(solo.leaving(), [(2800, 1000)]);
    solo.get_ack(300);
    assert_eq!(solo.leaving(), [(3800, 200)]);
    solo.host.finish();
}

#[test]
fn cork_holds_all_but_full_segments_back_for_a_while() {
    let mut solo = Solo::plain();
    let d = solo.host.with(|c, _| c.set_cork(true));
    assert!(!d.flush);
    solo.host.send(&pattern(1300));
    assert_eq!(solo.leaving(), [(0, 1000)]);
    solo.get_ack(1000);
    solo.host.silent();
    let d = solo.host.with(|c, _| c.set_cork(false));
    assert!(d.flush);
    assert_eq!(solo.leaving(), [(1000, 300)]);
    solo.get_ack(300);
    let _ = solo.host.with(|c, _| c.set_cork(true));
    solo.host.send(b"late");
    solo.host.silent();
    solo.host.advance(ms(199));
    solo.host.silent();
    solo.host.advance(ms(1));
    assert_eq!(solo.leaving(), [(1300, 4)]);
    solo.host.finish();
}

#[test]
fn nodelay_lets_out_what_waits_under_a_cork_and_not_what_comes_later() {
    let mut solo = Solo::plain();
    let _ = solo.host.with(|c, _| c.set_cork(true));
    solo.host.send(b"first");
    solo.host.silent();
    let d = solo.host.with(|c, _| c.set_nodelay(true));
    assert!(d.flush);
    assert_eq!(solo.leaving(), [(0, 5)]);
    solo.get_ack(5);
    solo.host.send(b"second");
    solo.host.silent();
    solo.host.finish();
}

#[test]
fn a_record_is_not_joined_by_what_is_written_after_it() {
    let mut solo = Solo::plain();
    solo.host.send(b"out");
    assert_eq!(solo.leaving(), [(0, 3)]);
    solo.host.send(b"one");
    solo.host.with(|c, _| c.end_record());
    solo.host.silent();
    // What is whole needs not wait; what follows is by itself.
    solo.host.send(b"two");
    assert_eq!(solo.leaving(), [(3, 3)]);
    solo.get_ack(6);
    assert_eq!(solo.leaving(), [(6, 3)]);
    solo.host.finish();
}

#[test]
fn a_window_used_at_a_rounds_begin_grows_with_all_of_the_rounds_acks() {
    let mut solo = Solo::plain();
    solo.host.send(&pattern(9000));
    assert_eq!(solo.leaving().len(), 9);
    let before = solo.host.with(|c, _| c.warm.congestion.window);
    for _ in 0..4 {
        solo.get_ack(2000);
    }
    solo.get_ack(1000);
    // To twice what was under way, and no further.
    assert_eq!(solo.host.with(|c, _| c.warm.congestion.window), before + 8000);
    solo.host.finish();
}

#[test]
fn acks_are_delayed_but_not_beyond_two_segments_or_the_timer() {
    // MUST-58, MUST-40, SHLD-18, SHLD-19.
    let config = Config { quick_acks: 0, ..Config::default() };
    let mut solo = Solo::established(config, PLAIN);
    solo.get(ACK, &pattern(1000));
    solo.host.silent();
    solo.get(ACK, &pattern(1000));
    assert_eq!(solo.host.out_one().seg.ack, IRS.wrapping_add(2001));
    solo.get(ACK | PSH, b"x");
    solo.host.silent();
    solo.host.advance(ms(39));
    solo.host.silent();
    solo.host.advance(ms(1));
    assert_eq!(solo.host.out_one().seg.ack, IRS.wrapping_add(2002));
    // A batch of many gets one ACK.
    for _ in 0..8 {
        solo.get(ACK, &pattern(1000));
    }
    assert_eq!(solo.host.out_one().seg.ack, IRS.wrapping_add(10_002));
    solo.host.finish();
}

#[test]
fn acks_are_quick_at_the_start_and_when_asked_for() {
    let mut solo = Solo::plain();
    for _ in 0..16 {
        solo.get(ACK | PSH, b"x");
        solo.host.out_one();
    }
    solo.get(ACK | PSH, b"x");
    solo.host.silent();
    let d = solo.host.with(|c, _| c.set_quick_ack(true));
    assert!(d.flush);
    solo.host.out_one();
    solo.get(ACK | PSH, b"x");
    solo.host.out_one();
    solo.host.finish();
}

#[test]
fn small_payloads_are_copied_together_and_large_ones_keep_their_frames() {
    let mut solo = Solo::plain();
    for _ in 0..10 {
        solo.get(ACK, &[b'a'; 100]);
    }
    assert_eq!(solo.host.conn().held_frames(), 1);
    solo.get(ACK, &pattern(1000));
    assert_eq!(solo.host.conn().held_frames(), 2);
    assert_eq!(solo.host.counters.rx_copied_bytes, 900);
    assert_eq!(solo.host.recv_all().len(), 2000);
    assert_eq!(solo.host.conn().held_frames(), 0);
    solo.host.finish();
}

#[test]
fn a_peek_leaves_the_data_and_reads_may_be_partial() {
    let mut solo = Solo::plain();
    solo.get(ACK, &pattern(600));
    solo.get(ACK, &pattern(600));
    let mut buf = [0; 900];
    assert_eq!(solo.host.with(|c, e| c.recv(e, &mut buf, true)), 900);
    assert_eq!(buf[600..], pattern(300)[..]);
    assert_eq!(solo.host.conn().recv_len(), 1200);
    assert_eq!(solo.host.with(|c, e| c.recv(e, &mut buf, false)), 900);
    assert_eq!(solo.host.recv_all(), pattern(600)[300..]);
    solo.host.finish();
}

#[test]
fn lent_frames_keep_the_window_until_they_are_released() {
    let mut solo = Solo::plain();
    solo.get(ACK, &pattern(1000));
    let frame: Frame = solo.host.with(|c, e| c.recv_frame(e.pool)).unwrap();
    solo.host.lent = 1;
    assert_eq!(solo.host.pool.bytes(&frame), pattern(1000));
    let before = solo.host.conn().info(solo.host.now, &solo.host.config).rcv_space;
    solo.host.lent = 0;
    solo.host.pool.free(frame);
    let _ = solo.host.with(|c, _| c.recv_release(1000));
    let after = solo.host.conn().info(solo.host.now, &solo.host.config).rcv_space;
    assert_eq!(after - before, 1000);
    assert!(solo.host.with(|c, e| c.recv_frame(e.pool)).is_none());
    solo.host.finish();
}

#[test]
fn a_frame_that_the_program_filled_leaves_uncopied() {
    let mut solo = Solo::modern();
    let mut frame = solo.host.with(|c, e| c.send_alloc(e)).unwrap();
    assert_eq!(frame.len(), 1448);
    let text = b"straight from the program";
    let at = frame.offset();
    solo.host.pool.bytes_mut(&mut frame)[..text.len()].copy_from_slice(text);
    frame.set_range(at, text.len());
    solo.host.with(|c, e| c.send_frame(e, frame)).unwrap();
    assert_eq!(solo.host.out_one().data, text);
    assert_eq!(solo.host.counters.tx_copied_bytes, 0);

    // A range elsewhere is sent all the same, by a copy; a bad one is refused.
    let mut frame = solo.host.with(|c, e| c.send_alloc(e)).unwrap();
    frame.set_range(at + 100, 9);
    solo.host.with(|c, e| c.send_frame(e, frame)).unwrap();
    solo.get_ack(text.len() as u32);
    assert_eq!(solo.host.out_one().len(), 9);
    let mut frame = solo.host.with(|c, e| c.send_alloc(e)).unwrap();
    for (offset, len) in [(at, 0), (at, 1449), (2040, 9)] {
        frame.set_range(offset, len);
        frame = solo.host.with(|c, e| c.send_frame(e, frame)).unwrap_err();
    }
    solo.host.pool.free(frame);
    solo.host.finish();
}

#[test]
fn the_send_buffer_is_bounded_and_says_when_there_is_room_again() {
    let mut config = Config::default();
    config.options.send_buffer = 5000;
    config.options.tune_send = false;
    let mut solo = Solo::established(config, PLAIN);
    assert_eq!(solo.host.send(&pattern(9000)), 5000);
    assert_eq!(solo.host.send(b"x"), 0);
    assert!(!solo.host.conn().readiness().contains(Readiness::OUT));
    assert_eq!(solo.leaving().len(), 5);
    solo.get_ack(1000);
    assert_eq!(solo.host.take_events(), Events::empty(), "less than a third is free");
    solo.get_ack(1000);
    assert_eq!(solo.host.take_events(), Events::WRITABLE);
    assert!(solo.host.conn().readiness().contains(Readiness::OUT));
    solo.host.finish();
}

#[test]
fn what_was_received_is_sent_back_where_the_program_was_told_of_room() {
    let mut config = Config::default();
    config.options.send_buffer = 2000;
    let (mut solo, _) = Solo::syn_received(config, PLAIN);
    solo.get(ACK, b"");
    solo.get(ACK, &pattern(1000));
    solo.get(ACK | PSH, &pattern(1000));
    let take = |host: &mut super::Host| host.with(|c, e| c.recv_frame(e.pool)).unwrap();
    let (first, second) = (take(&mut solo.host), take(&mut solo.host));
    assert_eq!(solo.host.send(&pattern(1300)), 1300);
    assert!(solo.host.conn().writable() && solo.host.conn().send_space() == 700);
    solo.host.with(|c, e| c.send_received(e, first)).unwrap();
    assert!(!solo.host.conn().writable(), "an ACK will tell of room");
    let second = solo.host.with(|c, e| c.send_received(e, second)).unwrap_err();
    solo.host.pool.free(second);
    solo.host.finish();
}

/// A program with a send buffer of 20 kB, and a peer that acknowledges all that came at
/// once.
struct Flow(Solo);

impl Flow {
    /// The handshake took so many microseconds.
    fn new(path: u64) -> Self {
        let mut config = Config::default();
        config.options.send_buffer = 20_000;
        let (mut solo, _) = Solo::syn_received(config, PLAIN);
        solo.host.now += Duration::from_micros(path);
        solo.get(ACK, b"");
        Self(solo)
    }

    fn fill(&mut self) {
        while self.0.host.send(&pattern(5000)) > 0 {}
    }

    /// What may leave does, and is acknowledged after so many microseconds: what it was.
    fn answer(&mut self, after: impl Fn(usize) -> u64) -> usize {
        let sent: usize = self.0.leaving().iter().map(|(_, len)| len).sum();
        self.0.host.now += Duration::from_micros(after(sent));
        self.0.get_ack(sent as u32);
        sent
    }

    fn rounds(&mut self, n: u32, after: impl Fn(usize) -> u64) {
        for _ in 0..n {
            self.fill();
            self.answer(&after);
        }
    }

    fn size(&self) -> u32 {
        self.0.host.conn().send_buffer()
    }
}

/// 20 bytes in a microsecond, whatever is under way.
fn fixed(sent: usize) -> u64 {
    50.max(sent as u64 / 20)
}

/// How large the send buffer becomes where the handshake took `path` microseconds and
/// each answer takes `answer`, `n` of them.
fn grown(path: u64, answer: impl Fn(u32, usize) -> u64, n: u32) -> u32 {
    let mut flow = Flow::new(path);
    for i in 0..n {
        flow.rounds(1, |sent| answer(i, sent));
    }
    let size = flow.size();
    flow.0.host.finish();
    size
}

#[test]
fn the_send_buffer_does_not_grow_with_the_pauses_of_a_near_peer() {
    // The slower, the more: by the window alone it would go on growing, but a path of
    // 50 us has no use for that.
    let paused = grown(50, |i, _| 100 * u64::from(i + 1), 15);
    assert!(paused <= 40_000, "{paused}");
    // As much for each answer in the same time is more in less.
    let near = grown(50, |_, _| 1500, 15);
    assert!(near >= 2 * paused, "{near} {paused}: the rate rose");
}

#[test]
fn a_larger_send_buffer_is_tried_now_and_then_and_kept_where_the_rate_rises() {
    // 50 us became 1,500, by the buffer alone: in 10 s there is a trial.
    let longer = |i: u32, _: usize| if i < 10 { 100 * u64::from(i + 1) } else { 1500 };
    let (before, after) = (grown(50, longer, 6000), grown(50, longer, 6800));
    assert!(before <= 40_000 && after >= 80_000, "{before} {after}");
    let fixed = |_: u32, sent: usize| fixed(sent);
    let (before, after) = (grown(50, fixed, 5000), grown(50, fixed, 12_000));
    assert!(before <= 60_000 && after <= before, "{before} {after}");
}

#[test]
fn the_send_buffer_does_not_grow_with_the_pauses_of_the_program() {
    // Bursts of 100 round trips, one a second: the first answer of each has the pause in
    // its time, and is no rate that another one rises above.
    let mut flow = Flow::new(50);
    for _ in 0..60 {
        flow.rounds(100, fixed);
        while flow.answer(fixed) > 0 {}
        flow.0.host.now += ms(1000);
    }
    assert!(flow.size() <= 60_000, "{}", flow.size());
    flow.0.host.finish();
}

#[test]
fn the_send_buffer_grows_in_congestion_avoidance_too() {
    // A loss; then 50 us become 1,500.
    let mut flow = Flow::new(50);
    for i in 0..10 {
        flow.rounds(1, |_| 100 * (i + 1));
    }
    flow.fill();
    assert!(flow.0.leaving().len() > 3);
    (0..3).for_each(|_| flow.0.get_ack(0));
    assert_eq!(flow.0.leaving()[0].1, 1000, "sent again");
    flow.0.host.now += Duration::from_micros(50);
    let conn = flow.0.host.conn();
    let under_way = conn.unacknowledged() - conn.unsent();
    flow.0.get_ack(under_way);
    assert!(flow.0.host.conn().warm.congestion.threshold() < u32::MAX);
    flow.rounds(2000, |_| 1500);
    let before = flow.size();
    flow.rounds(6000, |_| 1500);
    assert!(flow.size() >= before * 3 / 2, "{before} {}", flow.size());
    flow.0.host.finish();
}

#[test]
fn a_send_buffer_on_trial_comes_back_also_where_frames_are_short() {
    let mut flow = Flow::new(50);
    flow.rounds(5000, fixed);
    let before = flow.size();
    let in_use = |flow: &mut Flow| flow.0.host.conn().hot.snd_buf;
    let mut n = 0;
    while in_use(&mut flow) == before {
        flow.rounds(1, fixed);
        n += 1;
        assert!(n < 20_000, "never");
    }
    assert_eq!(flow.size(), before, "what the program is told");
    let host = &mut flow.0.host;
    let hoard: Vec<Frame> = (300..host.pool.available()).map(|_| host.pool.alloc().unwrap()).collect();
    host.lent = hoard.len();
    flow.rounds(50, fixed);
    assert_eq!(in_use(&mut flow), before);
    hoard.into_iter().for_each(|frame| flow.0.host.pool.free(frame));
    flow.0.host.lent = 0;
    flow.0.host.finish();
}

#[test]
fn the_send_buffer_grows_on_a_path_that_became_long() {
    let long = grown(50, |i, _| if i < 10 { 100 * u64::from(i + 1) } else { 20_000 }, 20);
    assert!(long >= 80_000, "{long}");
}

#[test]
fn the_send_buffer_grows_with_bursts_on_a_long_path() {
    let mut flow = Flow::new(50_000);
    for _ in 0..20 {
        flow.fill();
        while flow.answer(|_| 50_000) > 0 {}
        flow.0.host.now += ms(120);
    }
    assert!(flow.size() > 40_000, "{}", flow.size());
    flow.0.host.finish();
}

#[test]
fn without_frames_nothing_is_lost_and_acks_still_leave() {
    let mut solo = Solo::plain();
    let reserve = solo.host.config.frame_reserve;
    let mut hoard = Vec::new();
    while solo.host.pool.available() > reserve {
        hoard.push(solo.host.pool.alloc().unwrap());
    }
    solo.host.lent = hoard.len();
    assert_eq!(solo.host.send(b"data"), 0);
    assert!(solo.host.conn().starved());
    solo.get(ACK, b"small");
    assert_eq!(solo.host.out_one().seg.ack, IRS.wrapping_add(6));
    while let Some(frame) = solo.host.pool.alloc() {
        hoard.push(frame);
    }
    solo.host.lent = hoard.len();
    solo.get_at(-1, ACK, b"");
    solo.host.silent();
    assert!(solo.host.again, "the ACK waits for a frame");
    for frame in hoard {
        solo.host.pool.free(frame);
    }
    solo.host.lent = 0;
    solo.host.out_one();
    assert!(!solo.host.again);
    assert_eq!(solo.host.send(b"data"), 4);
    solo.host.finish();
}

#[test]
fn a_full_transmit_queue_only_delays() {
    let mut solo = Solo::modern();
    solo.host.tx = TxQueue::new(3);
    solo.host.send(&pattern(14_480));
    assert_eq!(solo.leaving().len(), 3);
    assert!(solo.host.again);
    assert_eq!(solo.leaving().len(), 3);
    assert_eq!(solo.leaving().len(), 3);
    assert_eq!(solo.leaving(), [(9 * 1448, 1448)]);
    assert!(!solo.host.again);
    solo.host.finish();
}

#[test]
fn a_stream_of_a_megabyte_arrives_whole() {
    let mut pair = Pair::open(Config::default());
    let data = pattern(1 << 20);
    let mut sent = 0;
    while pair.got_b.len() < data.len() {
        sent += pair.a.send(&data[sent..]);
        pair.run(ms(5));
    }
    assert!(pair.got_b == data);
    assert_eq!(pair.a.counters.tcp_retransmits, 0);
    pair.finish();
}

/// Both directions at once over a bad wire; every stream must arrive whole.
fn bad_wire(seed: u64, config: Config) {
    let mut pair = Pair::open(config);
    let mut rng = Rng::new(seed);
    let (loss, twice, late) = (rng.below(15), rng.below(10), rng.below(30));
    let mut chance = Rng::new(seed + 1);
    pair.fate = Box::new(move |_, _| {
        let roll = chance.below(100);
        if roll < loss {
            Fate::Drop
        } else if roll < loss + twice {
            Fate::Twice
        } else if roll < loss + twice + late {
            Fate::Late(Duration::from_micros(chance.below(30_000).into()))
        } else {
            Fate::Pass
        }
    });
    pair.a.hold = seed.is_multiple_of(3);
    let size = 1 + rng.below(150_000) as usize;
    let data = pattern(size);
    let (mut to_b, mut to_a) = (0, 0);
    for _ in 0..40_000 {
        if to_b < size {
            let n = (1 + rng.below(6000) as usize).min(size - to_b);
            to_b += pair.a.send(&data[to_b..to_b + n]);
            if to_b == size {
                pair.a.shutdown();
            }
        }
        if to_a < size {
            let n = (1 + rng.below(3000) as usize).min(size - to_a);
            to_a += pair.b.send(&data[to_a..to_a + n]);
            if to_a == size {
                pair.b.shutdown();
            }
        }
        pair.run(ms(1 + u64::from(rng.below(20))));
        if rng.below(3) == 0 {
            pair.a.complete_all();
        }
        let done = |h: &Host| matches!(h.state(), State::TimeWait | State::Closed);
        if done(&pair.a) && done(&pair.b) {
            break;
        }
    }
    assert!(pair.got_b == data && pair.got_a == data, "seed {seed}");
    assert_eq!((pair.a.take_error(), pair.b.take_error()), (None, None), "seed {seed}");
    pair.finish();
}

#[test]
fn streams_arrive_whole_over_a_bad_wire() {
    for seed in 0..24 {
        let mut config = Config::default();
        config.options.sack = seed % 2 == 0;
        config.options.timestamps = seed % 4 < 2;
        config.options.window_scaling = seed % 5 != 0;
        config.options.nodelay = seed % 6 == 0;
        if seed % 7 == 0 {
            config.options.receive_buffer = 4000;
        }
        bad_wire(seed, config);
    }
}
