//! The user timeout option (RFC 5482).

use super::*;

fn with_option(ours: u32, theirs: Option<u16>) -> (Solo, Out, Out) {
    let mut config = Config::default();
    config.options.user_timeout_option = true;
    config.options.user_timeout = ours;
    let mut host = Host::new(config, 1);
    let options = Options { mss: Some(1000), user_timeout: theirs, ..Options::default() };
    let syn = segment(SYN, IRS, 0, 60_000, options, 0);
    let t = template("10.0.0.1:80", "10.0.0.2:4000");
    let conn_options = host.config.options.clone();
    host.conn = Some(Connection::accept(&mut host.env(), t, &conn_options, initial(ISS), 1500, &syn));
    let synack = host.out_one();
    let (seq, ack) = (IRS.wrapping_add(1), ISS.wrapping_add(1));
    let mut solo = Solo { host, seq, ack, window: 60_000, time: None, echo: 0 };
    solo.get(ACK, b"");
    solo.host.send(b"x");
    let out = solo.host.out();
    assert_eq!(out.len(), 2, "an ACK with the option, then the data");
    let first = out[0].clone();
    (solo, synack, first)
}

#[test]
fn syn_and_first_segment_carry_it_and_the_longer_wish_counts() {
    let (mut solo, synack, first) = with_option(0, Some(600));
    assert_eq!((synack.seg.options.user_timeout, first.seg.options.user_timeout), (Some(300), Some(300)));
    assert_eq!(solo.host.conn().user_timeout(), 600_000);
    solo.host.send(b"y");
    assert!(solo.host.out().iter().all(|o| o.seg.options.user_timeout.is_none()), "once");
    // Later ones count too, within the limits: L_LIMIT, U_LIMIT, and never zero.
    for (value, ms) in [(0x8000 | 2000, 3_600_000), (1, 300_000), (0, 300_000)] {
        let options = Options { user_timeout: Some(value), ..Options::default() };
        let seg = segment(ACK, solo.seq, solo.ack, 60_000, options, 0);
        solo.host.input(&seg, b"");
        assert_eq!(solo.host.conn().user_timeout(), ms);
    }
    solo.host.finish();
}

#[test]
fn a_segment_whose_ack_cannot_be_changes_nothing() {
    let (mut solo, ..) = with_option(0, None);
    assert_eq!(solo.host.conn().user_timeout(), 0);
    let options = Options { user_timeout: Some(600), ..Options::default() };
    let seg = segment(ACK, solo.seq, solo.ack.wrapping_add(9), 60_000, options, 0);
    solo.host.input(&seg, b"");
    assert_eq!(solo.host.conn().user_timeout(), 0);
    solo.host.finish();
}

#[test]
fn what_the_program_set_is_advertised_and_not_the_peers_to_change() {
    let (mut solo, synack, _) = with_option(30_000, Some(600));
    assert_eq!(synack.seg.options.user_timeout, Some(30));
    assert_eq!(solo.host.conn().user_timeout(), 30_000, "CHANGEABLE is false");
    solo.get_ack(1);
    solo.host.with(|c, _| c.set_user_timeout(90_000));
    assert_eq!(solo.host.out_one().seg.options.user_timeout, Some(90));
    solo.host.silent();
    solo.host.finish();
}

#[test]
fn without_the_option_on_nothing_is_sent_or_believed() {
    let mut solo = Solo::plain();
    let options = Options { user_timeout: Some(600), ..Options::default() };
    let seg = segment(ACK, solo.seq, solo.ack, 60_000, options, 0);
    solo.host.input(&seg, b"");
    assert_eq!(solo.host.conn().user_timeout(), 0);
    solo.host.silent();
    solo.host.finish();
}
