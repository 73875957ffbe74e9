//! One recovery after the other: what the first leaves to the next.

use super::*;

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
    let before = solo.host.conn().warm.congestion.threshold();
    solo.host.now += ms(100);
    tell(&mut solo, 10_000, &[(11_000, last + 1000)]);
    assert_eq!(solo.host.counters.tcp_recoveries, 2, "another window's loss");
    assert!(solo.host.conn().warm.congestion.threshold() < before);
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
