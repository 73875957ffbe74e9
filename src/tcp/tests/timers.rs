//! Giving up (RFC 9293, 3.8.3), user timeout, keepalive (3.8.4).

use super::*;

/// Runs until the connection is closed; what left, with the time it took.
fn until_closed(host: &mut Host) -> (Vec<Out>, Duration) {
    let (start, mut all) = (host.now, Vec::new());
    while host.state() != State::Closed {
        all.extend(host.out());
        assert!(host.conn().deadline() < Instant::NEVER, "it ends some time");
        host.advance(Duration::from_secs(3600 * 3));
    }
    (all, host.now.since(start))
}

#[test]
fn data_that_nobody_acknowledges_ends_the_connection() {
    // MUST-20, SHLD-11: R2 is at least 100 seconds.
    let mut solo = Solo::plain();
    solo.host.send(b"hello?");
    let (all, took) = until_closed(&mut solo.host);
    assert_eq!(all.len(), 16);
    assert!(took >= Duration::from_secs(100));
    assert_eq!(solo.host.take_error(), Some(Errno::ETIMEDOUT));
    assert!(solo.host.take_events().contains(Events::ERROR | Events::CLOSED));
    solo.host.finish();
}

#[test]
fn a_soft_error_says_why() {
    let mut solo = Solo::plain();
    solo.host.send(b"hello?");
    solo.host.out_one();
    let una = ISS.wrapping_add(1);
    let _ = solo.host.with(|c, e| c.icmp_error(e, IcmpError::Unreachable, una, false));
    until_closed(&mut solo.host);
    assert_eq!(solo.host.take_error(), Some(Errno::EHOSTUNREACH));
    solo.host.finish();
}

#[test]
fn the_user_timeout_comes_first() {
    // RFC 5482; TCP_USER_TIMEOUT.
    let mut solo = Solo::plain();
    solo.host.with(|c, _| c.set_user_timeout(5000));
    solo.host.send(b"hello?");
    let (all, took) = until_closed(&mut solo.host);
    assert_eq!((all.len(), took), (5, Duration::from_secs(5)));
    assert_eq!(solo.host.take_error(), Some(Errno::ETIMEDOUT));
    solo.host.finish();
}

#[test]
fn the_user_timeout_of_a_fin_begins_with_it() {
    let mut solo = Solo::plain();
    solo.host.with(|c, _| c.set_user_timeout(3300));
    solo.host.send(b"hello");
    solo.host.out_one();
    solo.get_ack(5);
    solo.host.advance(ms(2100));
    solo.host.shutdown();
    solo.host.out_one();
    let (all, took) = until_closed(&mut solo.host);
    assert_eq!((all.len(), took), (4, ms(3300)));
    solo.host.finish();
}

#[test]
fn the_user_timeout_ends_a_handshake_too() {
    let mut config = Config::default();
    config.options.user_timeout = 1500;
    let (mut solo, _) = Solo::syn_received(config, PLAIN);
    let (all, took) = until_closed(&mut solo.host);
    assert_eq!((all.len(), took), (1, ms(1500)));
    solo.host.finish();
}

#[test]
fn an_acknowledgment_starts_the_limits_anew() {
    let mut solo = Solo::modern();
    solo.host.with(|c, _| c.set_user_timeout(1000));
    for _ in 0..5 {
        solo.host.send(b"x");
        solo.host.out_one();
        solo.host.advance(Duration::from_secs(1));
        solo.host.out_one();
        solo.host.advance(Duration::from_secs(1));
        solo.echo = solo.host.out_one().seg.options.timestamp.unwrap().0;
        solo.get_ack(1);
        assert_eq!(solo.host.state(), State::Established);
        solo.host.silent();
    }
    solo.host.finish();
}

#[test]
fn a_closed_program_waits_less() {
    let config = Config { orphan_retries: 3, ..Config::default() };
    let mut solo = Solo::established(config, PLAIN);
    solo.host.send(b"bye");
    solo.host.close();
    let (all, _) = until_closed(&mut solo.host);
    assert_eq!(all.len(), 4);
    solo.host.finish();
}

#[test]
fn a_syn_ack_that_nobody_acknowledges_ends() {
    let (mut solo, _) = Solo::syn_received(Config::default(), PLAIN);
    let (all, _) = until_closed(&mut solo.host);
    assert_eq!(all.len(), 5);
    assert!(all.iter().all(|o| o.seg.flags == SYN | ACK));
    solo.host.finish();
}

#[test]
fn keepalive_probes_an_idle_connection_and_gives_up() {
    // MUST-24 to MUST-29.
    let mut solo = Solo::plain();
    assert_eq!(solo.host.conn().deadline(), Instant::NEVER, "off by default");
    let now = solo.host.now;
    solo.host.with(|c, _| {
        c.set_keepalive(now, true);
        assert_eq!(c.keepalive_times(), (7200, 75, 9));
        c.set_keepalive_times(now, 60, 10, 3);
    });
    solo.host.advance(Duration::from_secs(40));
    solo.get(ACK, b"a sign of life");
    solo.host.out_one();
    let quiet_since = solo.host.now;
    solo.host.advance(Duration::from_secs(3600));
    let probe = solo.host.out_one();
    assert_eq!(solo.host.now.since(quiet_since), Duration::from_secs(60));
    assert_eq!((probe.seg.seq, probe.len(), probe.seg.flags), (ISS, 0, ACK));
    // An answer, even a plain one, is life.
    solo.get(ACK, b"");
    solo.host.silent();
    let (all, took) = until_closed(&mut solo.host);
    assert_eq!(took, Duration::from_secs(60 + 3 * 10));
    assert_eq!(all.len(), 3);
    assert_eq!(solo.host.take_error(), Some(Errno::ETIMEDOUT));
    solo.host.finish();
}

#[test]
fn a_keepalive_probe_gets_an_answer() {
    let mut config = Config::default();
    config.options.keepalive = true;
    config.options.keep_idle = 10;
    let mut pair = Pair::open(config);
    pair.run(Duration::from_secs(3600));
    assert_eq!((pair.a.state(), pair.b.state()), (State::Established, State::Established));
    pair.finish();
}

#[test]
fn an_idle_connection_has_no_timer_and_little_memory() {
    let mut pair = Pair::open(Config::default());
    pair.a.send(&pattern(200_000));
    pair.run(Duration::from_secs(10));
    assert_eq!(pair.got_b.len(), 200_000);
    for host in [&pair.a, &pair.b] {
        assert_eq!(host.conn().deadline(), Instant::NEVER);
        assert_eq!(host.conn().held_frames(), 0);
        assert!(!host.conn().wants_flush());
    }
    // A stale wake-up does no harm.
    pair.a.timer();
    pair.a.silent();
    pair.finish();
}

#[test]
fn the_user_timeout_bounds_keepalive_instead_of_its_count() {
    let mut solo = Solo::plain();
    let now = solo.host.now;
    solo.host.with(|c, _| {
        c.set_keepalive_times(now, 10, 5, 1);
        c.set_user_timeout(31_000);
        c.set_keepalive(now, true);
    });
    let (all, took) = until_closed(&mut solo.host);
    let probes = all.iter().filter(|o| !o.seg.flags.contains(RST)).count();
    // At 10, 15, 20, 25 and 30 seconds; at 35 it is over.
    assert_eq!((probes, took.as_millis()), (5, 35_000));
    assert_eq!(solo.host.take_error(), Some(Errno::ETIMEDOUT));
    solo.host.finish();
}

/// An open connection over Ethernet, its next hop known.
fn over_ethernet() -> Host {
    let mut host = Host::new(Config::default(), 1);
    let options = host.config.options.clone();
    let mac = crate::wire::ethernet::Mac([2; 6]);
    let link = Link::Ethernet { src: mac, dst: mac };
    let (local, remote) = ("10.0.0.2:4000".parse().unwrap(), "10.0.0.1:80".parse().unwrap());
    let t = Template::new(link, local, remote, 64, 0);
    host.conn = Some(Connection::connect(&mut host.env(), t, &options, initial(ISS), 1500));
    host.with(|c, _| c.set_path(Some(mac)));
    host.output();
    let options = Options { mss: Some(1000), sack_permitted: true, ..Options::default() };
    let answer = segment(SYN | ACK, IRS, ISS.wrapping_add(1), 60_000, options, 0);
    host.input(&answer, &[]);
    host.output();
    host
}

#[test]
fn a_next_hop_that_is_not_known_is_no_congestion() {
    let mut host = over_ethernet();
    host.with(|c, _| c.set_path(None));
    let window = host.conn().warm.congestion.window;
    host.send(b"data");
    assert!(host.output().is_empty());
    for _ in 0..3 {
        host.advance(Duration::from_secs(1000));
        assert!(host.output().is_empty());
    }
    assert_eq!(host.conn().warm.congestion.window, window);
    host.with(|c, _| c.set_path(Some(crate::wire::ethernet::Mac([3; 6]))));
    assert_eq!(host.output().len(), 1);
    host.finish();
}

#[test]
fn a_probe_that_cannot_leave_does_not_keep_the_time_out_away() {
    let mut host = over_ethernet();
    host.send(b"data");
    assert_eq!(host.output().len(), 1);
    host.with(|c, _| c.set_path(None));
    for _ in 0..100 {
        if host.state() == State::Closed {
            break;
        }
        host.advance(Duration::from_secs(1000));
        assert!(host.output().is_empty());
    }
    assert_eq!(host.take_error(), Some(Errno::ETIMEDOUT));
    host.finish();
}

#[test]
fn an_echo_of_this_millisecond_is_no_round_trip_of_none() {
    let mut solo = Solo::established(Config { min_rto: ms(10), ..Config::default() }, MODERN);
    solo.host.now += ms(1000);
    solo.host.conn.as_mut().unwrap().warm.min_rtt = Default::default();
    solo.host.send(&pattern(100));
    solo.leaving();
    // Sent again: only the echo tells the round trip.
    solo.host.advance(Duration::from_secs(5));
    solo.leaving();
    solo.host.advance(Duration::from_secs(5));
    let out = solo.host.out();
    solo.echo = out[0].seg.options.timestamp.unwrap().0;
    solo.get_ack(100);
    assert!(solo.host.conn().warm.min_rtt.least() >= 1000);
    solo.host.finish();
}
