//! Windows: flow control, zero windows and their probes, silly windows
//! (RFC 9293, 3.8.6).

use super::*;

/// A connection whose peer shuts its window after `first` bytes.
fn shut(first: u16) -> Solo {
    let mut solo = Solo::plain();
    solo.window = first;
    solo.get(ACK, b"");
    solo.host.send(&pattern(5000));
    assert_eq!(solo.leaving(), [(0, first.into())]);
    solo.window = 0;
    solo.get_ack(first.into());
    solo.host.silent();
    solo
}

#[test]
fn a_shut_window_is_probed_with_backoff_for_as_long_as_the_peer_answers() {
    // MUST-35 to MUST-37, SHLD-29, SHLD-30.
    let mut solo = shut(1000);
    let (mut times, mut last) = (Vec::new(), solo.host.now);
    for _ in 0..40 {
        solo.host.advance(Duration::from_secs(1000));
        assert_eq!(solo.leaving(), [(1000, 1)], "one byte");
        times.push(solo.host.now.since(last).as_millis());
        last = solo.host.now;
        solo.get_ack(0);
        solo.host.silent();
    }
    assert_eq!(times[..4], [200, 400, 800, 1600]);
    assert_eq!(times[39], 120_000);
    assert_eq!(solo.host.state(), State::Established);
    // It opens: the probe's byte goes again at once, and the rest.
    solo.window = 5000;
    solo.get_ack(0);
    assert_eq!(solo.leaving()[..3], [(1000, 1), (1001, 999), (2000, 1000)]);
    solo.host.finish();
}

#[test]
fn a_probe_that_is_taken_moves_on() {
    let mut solo = shut(1000);
    solo.host.advance(Duration::from_secs(1));
    assert_eq!(solo.leaving(), [(1000, 1)]);
    solo.get_ack(1);
    solo.host.silent();
    solo.host.advance(Duration::from_secs(1));
    assert_eq!(solo.leaving(), [(1001, 1)]);
    solo.window = 60_000;
    solo.get_ack(1);
    assert_eq!(solo.leaving(), [(1002, 998), (2000, 1000), (3000, 1000), (4000, 1000)]);
    solo.host.finish();
}

#[test]
fn a_shut_window_whose_peer_is_silent_ends_the_connection() {
    let mut solo = shut(1000);
    let mut probes = 0;
    while solo.host.state() != State::Closed {
        solo.host.advance(Duration::from_secs(1000));
        probes += solo.host.out().len();
    }
    assert_eq!(probes, 15);
    assert_eq!(solo.host.take_error(), Some(Errno::ETIMEDOUT));
    solo.host.finish();
}

/// The window is shut, and a FIN was the probe of it.
fn probed_with_fin() -> Solo {
    let mut solo = Solo::plain();
    solo.window = 0;
    solo.get(ACK, b"");
    solo.host.shutdown();
    solo.host.silent();
    solo.host.advance(Duration::from_secs(1));
    assert_eq!(solo.host.out_one().seg.flags, FIN | ACK);
    solo
}

#[test]
fn a_fin_behind_a_shut_window_is_the_probe() {
    let mut solo = probed_with_fin();
    solo.get_ack(0);
    solo.window = 100;
    solo.get_ack(0);
    assert_eq!(solo.host.out_one().seg.flags, FIN | ACK);
    solo.get_ack(1);
    assert_eq!(solo.host.state(), State::FinWait2);
    solo.host.finish();
}

#[test]
fn a_window_that_shrinks_is_survived() {
    // MUST-34, SHLD-15 to SHLD-17.
    let mut solo = Solo::plain();
    solo.host.send(&pattern(5000));
    assert_eq!(solo.leaving().len(), 5);
    solo.window = 1500;
    solo.get_ack(1000);
    solo.host.silent();
    solo.host.advance(Duration::from_secs(1));
    assert_eq!(solo.leaving(), [(1000, 1000)], "only what the window holds goes again");
    solo.get_ack(1000);
    assert_eq!(solo.leaving(), [(2000, 1000), (3000, 500)]);
    // To nothing: probes, not the user timeout.
    solo.window = 0;
    solo.get_ack(1000);
    for _ in 0..30 {
        solo.host.advance(Duration::from_secs(1000));
        assert_eq!(solo.leaving(), [(3000, 1)]);
        solo.get_ack(0);
    }
    solo.window = 9000;
    solo.get_ack(0);
    let all = solo.leaving();
    assert_eq!((all[0], all[1]), ((3000, 1000), (4000, 1000)), "no runt is left of it");
    solo.host.finish();
}

#[test]
fn the_sender_avoids_silly_windows() {
    // MUST-38: less than a segment only if it is half the largest window seen,
    // or all there is, or after a while.
    let mut solo = Solo::plain();
    solo.window = 300;
    solo.get(ACK, b"");
    solo.host.send(&pattern(5000));
    solo.host.silent();
    solo.host.advance(ms(200));
    assert_eq!(solo.leaving(), [(0, 300)]);
    solo.host.finish();

    let offer = Offer { window: 900, ..PLAIN };
    let mut solo = Solo::established(Config::default(), offer);
    solo.host.send(&pattern(5000));
    assert_eq!(solo.leaving(), [(0, 900)]);
    solo.window = 449;
    solo.get_ack(900);
    assert_eq!(solo.leaving(), [(900, 100)], "what the cut left of a segment");
    solo.window = 549;
    solo.get_ack(0);
    solo.host.silent();
    solo.window = 550;
    solo.get_ack(0);
    assert_eq!(solo.leaving(), [(1000, 450)]);
    solo.host.finish();
}

#[test]
fn the_receiver_announces_no_silly_window_and_never_shrinks_it() {
    // MUST-39, SHLD-14.
    let mut config = Config { quick_acks: 0, ..Config::default() };
    config.options.receive_buffer = 4000;
    let mut solo = Solo::established(config, PLAIN);
    for i in 1..=4u16 {
        solo.get(ACK, &pattern(1000));
        if i % 2 == 0 {
            assert_eq!(solo.host.out_one().seg.window, 4000 - i * 1000);
        }
    }
    let mut buf = [0; 1000];
    solo.host.with(|c, e| c.recv(e, &mut buf, false));
    assert!(!solo.host.conn().wants_flush());
    solo.get_at(-1, ACK, b"");
    assert_eq!(solo.host.out_one().seg.window, 0, "a thousand is too little");
    solo.host.with(|c, e| c.recv(e, &mut buf, false));
    assert!(solo.host.conn().wants_flush());
    assert_eq!(solo.host.out_one().seg.window, 2000);
    // A smaller buffer takes nothing back.
    let config = solo.host.config.clone();
    let _ = solo.host.with(|c, _| c.set_receive_buffer(&config, 1024));
    solo.get(ACK, &pattern(1000));
    solo.get(ACK, &pattern(500));
    solo.host.silent();
    solo.host.advance(ms(40));
    assert_eq!(solo.host.out_one().seg.window, 500);
    solo.host.finish();
}

#[test]
fn a_probe_of_our_shut_window_is_refused_but_its_ack_counts() {
    // MUST-66.
    let mut config = Config::default();
    config.options.receive_buffer = 1024;
    let mut solo = Solo::established(config, PLAIN);
    solo.host.send(b"data");
    solo.get(ACK, &pattern(1024));
    assert_eq!(solo.host.out_one().seg.window, 0);
    solo.ack = solo.ack.wrapping_add(4);
    solo.get_at(0, ACK, b"p");
    let answer = solo.host.out_one().seg;
    assert_eq!((answer.ack, answer.window), (IRS.wrapping_add(1025), 0));
    assert_eq!(solo.host.conn().held_frames(), 1, "our data is acknowledged");
    // The window opens by at least half the buffer, and the peer is told.
    assert_eq!(solo.host.recv_all().len(), 1024);
    assert_eq!(solo.host.out_one().seg.window, 1024);
    solo.get_at(0, RST, b"");
    assert_eq!(solo.host.state(), State::Closed);
    solo.host.finish();
}

#[test]
fn a_scaled_window_carries_megabytes() {
    let mut config = Config::default();
    config.options.receive_buffer = 4 << 20;
    let mut solo = Solo::established(config, MODERN);
    solo.get(ACK, b"x");
    let out = solo.host.out_one();
    assert_eq!(u32::from(out.seg.window) << 7, (4 << 20) - 128);
    // The peer's 60,000 count 128 times.
    let info = solo.host.conn().info(solo.host.now, &solo.host.config);
    assert_eq!(info.snd_wnd, 60_000 << 7);
    solo.host.finish();
}

#[test]
fn an_old_segment_does_not_change_the_window() {
    // SND.WL1 and SND.WL2.
    let mut solo = Solo::plain();
    solo.get(ACK, b"later");
    solo.window = 10;
    solo.get_at(-6, ACK, b"?later!");
    assert_eq!(solo.host.conn().recv_len(), 6);
    let info = solo.host.conn().info(solo.host.now, &solo.host.config);
    assert_eq!(info.snd_wnd, 60_000);
    solo.host.finish();
}

#[test]
fn a_reader_that_pauses_stops_the_sender_and_lets_it_go_on() {
    let mut config = Config::default();
    config.options.receive_buffer = 20_000;
    let mut pair = Pair::open(config);
    pair.reading = false;
    let data = pattern(100_000);
    let sent = pair.a.send(&data);
    assert_eq!(sent, data.len());
    pair.run(Duration::from_secs(300));
    let waiting = pair.b.conn().recv_len();
    assert!((19_000..=20_000).contains(&waiting), "{waiting}");
    pair.reading = true;
    pair.got_b = pair.b.recv_all();
    pair.run(Duration::from_secs(2));
    assert!(pair.got_b == data);
    pair.finish();
}

#[test]
fn a_probe_that_is_under_way_does_not_make_our_acks_unacceptable() {
    // The peer's window is shut: it takes nothing beyond what it acknowledged.
    let mut solo = shut(1000);
    solo.host.advance(Duration::from_secs(1));
    assert_eq!(solo.leaving(), [(1000, 1)]);
    solo.get(ACK | PSH, b"data");
    assert_eq!(solo.leaving(), [(1000, 0)], "as the peer's next number, not the one after");
    solo.host.with(|c, e| {
        let d = c.abort(e);
        assert!(d.events.contains(Events::CLOSED));
    });
    let rst = solo.host.tx.pop().unwrap();
    let out = super::open(solo.host.pool.tx_bytes(&rst));
    assert_eq!((out.seg.flags & RST, solo.rel(&out)), (RST, 1000));
    solo.host.pool.complete(rst.index());
    solo.host.finish();
}

#[test]
fn a_window_that_stays_shut_does_not_keep_a_closed_connection_for_ever() {
    // RFC 6429: the peer answers every probe, and never opens its window.
    let mut solo = shut(1000);
    solo.host.close();
    let mut probes = 0;
    while solo.host.state() != State::Closed {
        solo.host.advance(Duration::from_secs(1000));
        probes += solo.host.out().len();
        assert!(probes <= 8, "it goes on");
        if solo.host.state() != State::Closed {
            // Opening it by a byte that is never acknowledged is no way out either.
            solo.window = (probes % 2) as u16;
            solo.get_ack(0);
            solo.window = 0;
            solo.get_ack(0);
            solo.host.out();
        }
    }
    assert_eq!(solo.host.conn().held_frames(), 0);
    solo.host.finish();
}

#[test]
fn probes_that_nobody_answers_put_the_next_hop_in_doubt() {
    let mut solo = shut(1000);
    for _ in 0..3 {
        solo.host.advance(Duration::from_secs(1000));
        assert!(!solo.host.take_events().contains(Events::UNHEARD), "the last was answered");
        solo.host.out_one();
        solo.get_ack(0);
        solo.host.silent();
    }
    for unheard in [false, true, true] {
        solo.host.advance(Duration::from_secs(1000));
        assert_eq!(solo.host.take_events().contains(Events::UNHEARD), unheard);
        solo.host.out_one();
    }
    solo.host.finish();

    let mut solo = Solo::plain();
    let now = solo.host.now;
    solo.host.with(|c, _| c.set_keepalive(now, true));
    for unheard in [false, true, true] {
        solo.host.advance(Duration::from_secs(8000));
        assert_eq!(solo.host.take_events().contains(Events::UNHEARD), unheard);
        solo.host.out_one();
    }
    solo.host.finish();
}

#[test]
fn an_ack_whose_number_is_a_little_old_is_heard_and_answered() {
    let mut solo = Solo::modern();
    let hidden = 1i32 << solo.host.conn().hot.rcv_scale;
    solo.get(ACK | PSH, &pattern(1000));
    solo.host.send(&pattern(3000));
    assert!(!solo.leaving().is_empty());
    for (behind, acked, heard) in [(1, 1000, 1000), (hidden, 2000, 2000), (hidden + 1, 2500, 2000)] {
        // Later than what was answered last.
        solo.host.now += Duration::from_secs(10);
        solo.ack = ISS.wrapping_add(1 + acked);
        solo.get_at(-behind, ACK, b"");
        assert_eq!(solo.host.conn().hot.snd_una, ISS.wrapping_add(1 + heard), "{behind}");
        let answers = solo.host.out();
        assert!(answers.iter().any(|o| o.len() == 0 && o.seg.flags == ACK), "{behind}: {answers:?}");
    }
    solo.host.finish();
}

#[test]
fn two_ends_that_are_full_do_not_acknowledge_each_other_for_ever() {
    // Nothing bounds their answers but that they understand each other.
    let mut config = Config { invalid_ack_interval: Duration::ZERO, ..Config::default() };
    config.options.receive_buffer = 65_536;
    config.max_receive_buffer = 65_536;
    let mut pair = Pair::open(config);
    pair.reading = false;
    let data = pattern(200_000);
    let (mut a, mut b) = (0, 0);
    for _ in 0..300 {
        a += pair.a.send(&data[a..]);
        b += pair.b.send(&data[b..]);
        pair.run(ms(10));
    }
    assert!(pair.sent < 600, "{} segments", pair.sent);
    pair.reading = true;
    let rest_a = pair.a.recv_all();
    pair.got_a.extend(rest_a);
    let rest_b = pair.b.recv_all();
    pair.got_b.extend(rest_b);
    while pair.got_a.len() < data.len() || pair.got_b.len() < data.len() {
        a += pair.a.send(&data[a..]);
        b += pair.b.send(&data[b..]);
        pair.run(ms(10));
        assert!(pair.now() < Instant::from_nanos(60_000_000_000));
    }
    assert!(pair.got_a == data && pair.got_b == data);
    pair.finish();
}

#[test]
fn a_window_that_flaps_has_nothing_sent_again() {
    // Else two empty segments would buy a window of data, over and over.
    let mut solo = Solo::plain();
    solo.host.send(&pattern(5000));
    assert_eq!(solo.leaving().len(), 5);
    for _ in 0..5 {
        solo.window = 0;
        solo.get_ack(0);
        solo.host.silent();
        solo.window = 60_000;
        solo.get_ack(0);
        solo.host.silent();
    }
    // It is still waited for.
    solo.host.advance(Duration::from_secs(3));
    assert_eq!(solo.leaving(), [(0, 1000)]);
    solo.host.finish();
}

#[test]
fn a_window_that_opens_asks_for_a_flush_whatever_waits() {
    let mut solo = probed_with_fin();
    let seg = segment(ACK, solo.seq, solo.ack, 100, Options::default(), 0);
    let d = solo.host.with(|c, e| c.input(e, &seg, None));
    assert!(d.flush, "the FIN goes again, and its timer begins");
    assert_eq!(solo.host.out_one().seg.flags, FIN | ACK);
    solo.host.finish();
}

#[test]
fn no_buffer_is_larger_than_sequence_numbers_can_tell() {
    let mut config = Config { max_send_buffer: u32::MAX, ..Config::default() };
    config.options.send_buffer = u32::MAX;
    let mut solo = Solo::established(config.clone(), PLAIN);
    assert_eq!(solo.host.conn().send_buffer(), 1 << 30);
    solo.host.with(|c, _| c.set_send_buffer(&config, u32::MAX));
    assert_eq!(solo.host.conn().send_buffer(), 1 << 30);
    solo.host.finish();
}
