//! Where the RFCs leave room, Linux's way: what packetdrill's scripts hold us to.

use super::*;

fn flags(out: &[Out]) -> Vec<bool> {
    out.iter().map(|o| o.seg.flags.contains(PSH)).collect()
}

#[test]
fn the_last_of_a_burst_and_each_half_window_carry_psh() {
    let mut solo = Solo::plain();
    // Ten segments leave of thirty: half a window is five.
    solo.host.send(&pattern(30_000));
    let first = solo.host.out();
    assert_eq!(first.len(), 10);
    assert_eq!(flags(&first), [false, false, false, false, true, false, false, false, false, true]);
    solo.host.finish();
}

#[test]
fn a_lone_segment_from_the_middle_of_a_write_has_no_psh_and_the_end_of_one_has() {
    let config = Config { initial_window: 1, ..Config::default() };
    let mut solo = Solo::established(config, PLAIN);
    solo.host.send(&pattern(3000));
    assert_eq!(flags(&solo.host.out()), [false]);
    solo.get_ack(1000);
    let rest = solo.host.out();
    assert_eq!(rest.iter().map(Out::len).sum::<usize>(), 2000);
    assert_eq!(flags(&rest), [false, true]);
    solo.host.finish();
}

#[test]
fn a_train_is_as_long_as_the_least_and_its_last_carries_psh_each_time_it_goes_with_the_others() {
    // 10 segments over 100 ms: a millisecond's worth is less than two.
    for (least, end) in [(2, 2), (4, 4), (10, 5)] {
        let mut solo = Solo::established(Config { least_train: least, ..Config::default() }, PLAIN);
        solo.host.send(&pattern(500));
        solo.host.out_one();
        solo.host.advance(Duration::from_millis(100));
        solo.get_ack(500);
        // The handshake took no time, and that was no path.
        solo.host.with(|conn, env| {
            conn.warm.min_rtt = Default::default();
            conn.warm.min_rtt.sample(Duration::from_millis(100), env.now);
        });
        solo.host.send(&pattern(30_000));
        let first = flags(&solo.host.out());
        let wanted: Vec<_> = (1..=10).map(|i| i % end == 0 || i == 10).collect();
        assert_eq!(first, wanted, "{least}");
        // Only the first two of ten get through, and the others are sent again.
        solo.get_ack(2000);
        solo.host.out();
        for _ in 0..3 {
            solo.get(ACK, b"");
        }
        let again = solo.host.out();
        assert!(!again.is_empty() && again[0].seg.flags == ACK, "alone it has no PSH");
        solo.host.finish();
    }
}

#[test]
fn a_fin_after_data_is_acknowledged_with_what_the_program_says_or_a_little_later() {
    let mut solo = Solo::plain();
    solo.get(ACK | PSH, b"request");
    assert_eq!(solo.host.out_one().seg.flags, ACK);
    solo.host.recv_all();
    solo.get(ACK | FIN, b"");
    solo.host.silent();
    assert_eq!(solo.host.state(), State::CloseWait);
    // The program closes: one segment says both.
    solo.host.close();
    let fin = solo.host.out_one().seg;
    assert_eq!((fin.flags, fin.ack), (FIN | ACK, IRS.wrapping_add(9)));
    solo.host.finish();
    // It does not: the ACK goes alone.
    let mut solo = Solo::plain();
    solo.get(ACK | PSH, b"request");
    solo.host.out_one();
    solo.get(ACK | FIN, b"");
    solo.host.silent();
    solo.host.advance(ms(40));
    let ack = solo.host.out_one().seg;
    assert_eq!((ack.flags, ack.ack), (ACK, IRS.wrapping_add(9)));
    solo.host.finish();
}

#[test]
fn a_fin_that_nothing_came_before_is_acknowledged_at_once() {
    let mut solo = Solo::plain();
    solo.get(ACK | FIN, b"");
    assert_eq!(solo.host.out_one().seg.ack, IRS.wrapping_add(2));
    solo.host.finish();
}

#[test]
fn a_read_that_opens_no_more_than_the_header_can_say_is_not_announced() {
    // Without scaling the window is 65,535 however large the buffer is.
    let mut solo = Solo::plain();
    solo.get(ACK | PSH, &pattern(1000));
    solo.host.out_one();
    assert_eq!(solo.host.recv_all().len(), 1000);
    solo.host.silent();
    solo.host.finish();
}

#[test]
fn a_reset_has_the_timestamp_too() {
    // RFC 7323, 3.2.
    let mut solo = Solo::modern();
    solo.get(ACK, b"unread");
    solo.host.out_one();
    solo.host.close();
    let reset = solo.host.out_one().seg;
    assert!(reset.flags.contains(RST) && reset.options.timestamp.is_some());
    solo.host.finish();
}
