//! Opening with a cookie: Fast Open's and SYN cookies, as the connection sees them.

use super::*;
use crate::tcp::connection::Bits;
use crate::wire::tcp::Cookie;

fn client(cookie: Option<Cookie>) -> Host {
    let mut host = Host::new(Config::default(), 1);
    let options = host.config.options.clone();
    let t = template("10.0.0.2:4000", "10.0.0.1:80");
    let mut conn = Connection::connect(&mut host.env(), t, &options, initial(ISS), 1500);
    conn.fast_open(cookie, 1460, true);
    host.conn = Some(conn);
    host
}

#[test]
fn a_syn_that_waited_for_data_brings_its_cookie_and_the_data() {
    // RFC 7413, 4.2.1.
    let cookie = Cookie::new(&[7; 8]).unwrap();
    let mut host = client(Some(cookie));
    assert!(host.conn().is_deferred());
    host.silent();
    let data = pattern(100);
    assert_eq!(host.with(|c, e| c.send_early(e, &data, false)), 100);
    let syn = host.out_one();
    assert_eq!((syn.seg.flags, syn.seg.options.fast_open), (SYN, Some(cookie)));
    assert_eq!(syn.data, data);
    host.finish();
}

#[test]
fn a_syn_that_asks_for_a_cookie_brings_no_data() {
    // RFC 7413, 4.1.1: an empty option asks.
    let ask = Cookie::new(&[]).unwrap();
    let mut host = client(Some(ask));
    assert_eq!(host.with(|c, e| c.send_early(e, b"hello", false)), 0);
    let syn = host.out_one();
    assert_eq!((syn.seg.options.fast_open, syn.data.len()), (Some(ask), 0));
    host.finish();
}

#[test]
fn a_syn_cookies_timestamp_has_the_scale_or_that_there_is_none() {
    // RFC 4987, 3.6, and Linux's way with the timestamp: 15 says that none was offered.
    for (echo, scale) in [(0x10 | 7, 7), (0x0f, 0)] {
        let mut host = Host::new(Config::default(), 1);
        let options = host.config.options.clone();
        let t = template("10.0.0.1:80", "10.0.0.2:4000");
        let offer = Options { timestamp: Some((77, echo)), ..Options::default() };
        let ack = segment(ACK, IRS.wrapping_add(1), ISS.wrapping_add(1), 5, offer, 0);
        let first = initial(ISS);
        let conn = Connection::from_cookie(&mut host.env(), t, &options, first, 1500, &ack, 1200);
        host.conn = Some(conn);
        host.input(&ack, b"");
        assert_eq!(host.state(), State::Established);
        let info = host.conn().info(host.now, &host.config);
        assert_eq!((info.snd_wscale, info.snd_wnd), (scale, 5 << scale), "echo {echo:#x}");
        assert_eq!(info.sack, echo & 0x10 != 0);
        host.finish();
    }
}

#[test]
fn a_path_that_may_fragment_is_looked_after_and_one_that_may_not_is_left_alone() {
    let mut solo = Solo::plain();
    for (discover, needed) in [(Discover::Dont, true), (Discover::Do, false)] {
        solo.host.with(|c, e| {
            c.set_discover(discover);
            c.look_after(e);
        });
        assert_eq!(solo.host.conn().hot.bits.contains(Bits::CARE), needed, "{discover:?}");
    }
    solo.host.finish();
}
