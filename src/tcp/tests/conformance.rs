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
    let before = solo.host.conn().hot.rtt.smoothed();
    solo.host.now += ms(100);
    solo.get_ack(1000);
    let first = solo.host.conn().hot.rtt.smoothed();
    assert_ne!(first, before, "the first ACK of the flight is measured");
    solo.host.now += ms(100);
    for _ in 0..2 {
        solo.get_ack(1000);
        assert_eq!(solo.host.conn().hot.rtt.smoothed(), first, "the next are not");
    }
    solo.get_ack(1000);
    assert_ne!(solo.host.conn().hot.rtt.smoothed(), first, "what ends the round trip is");
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
