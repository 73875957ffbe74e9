//! What shows that a repair was for nothing: F-RTO, Eifel, D-SACK; and what is
//! undone then.

use super::*;

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
fn a_duplicate_without_blocks_ends_f_rto_too() {
    // RFC 5682, 3.1, step 3a: a peer without memory throws the new data away.
    let config = Config { tail_loss_probe: false, ..Config::default() };
    let mut solo = flight_of(config, SACKS, 6);
    assert_eq!(wait(&mut solo), (300, vec![(0, 1000)]));
    solo.host.send(&pattern(10_000));
    tell(&mut solo, 1000, &[]);
    assert_eq!(solo.leaving(), [(6000, 1000), (7000, 1000)], "new data first");
    tell(&mut solo, 1000, &[]);
    assert_eq!(solo.leaving().first(), Some(&(1000, 1000)));
    assert_eq!((info(&solo).ca_state, solo.host.counters.tcp_undone), (4, 0));
    solo.host.finish();
}
