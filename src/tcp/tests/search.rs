//! The search for the largest packets of a path (RFC 4821).

use super::*;

fn always() -> Config {
    bounded(MtuProbing::Always)
}

/// A window of some 40 segments: after a probe is lost the next waits for as many
/// round trips.
fn bounded(mtu_probing: MtuProbing) -> Config {
    let mut config = Config { mtu_probing, ..Config::default() };
    (config.options.tune_send, config.options.send_buffer) = (false, 24 << 10);
    config
}

/// Sends so many bytes more over a path that silently takes no packets larger than
/// `path`, and checks what arrives.
fn bulk(pair: &mut Pair, path: usize, bytes: usize) {
    let before = pair.got_b.len();
    pair.fate = Box::new(move |_, seg: &Segment| {
        let options = seg.header_len - 20;
        let size = 40 + options + seg.payload_len;
        if size > path { Fate::Drop } else { Fate::Pass }
    });
    let data = pattern(bytes);
    let mut sent = 0;
    for _ in 0..20_000 {
        sent += pair.a.send(&data[sent..]);
        pair.run(ms(5));
        if pair.got_b.len() == before + bytes {
            break;
        }
    }
    assert_eq!(pair.got_b.len(), before + bytes, "not all arrived");
    assert!(pair.got_b[before..] == data[..], "other bytes arrived");
}

/// (sent, passed, lost)
fn probes(host: &Host) -> (u64, u64, u64) {
    let c = &host.counters;
    (c.tcp_mtu_probes, c.tcp_mtu_probes_passed, c.tcp_mtu_probes_lost)
}

#[test]
fn the_largest_packet_of_a_silent_path_is_found_without_a_time_out() {
    let mut pair = Pair::open(always());
    let window = pair.a.conn().info(pair.now(), &always()).snd_cwnd;
    assert_eq!(pair.a.conn().mtu(), 1076);
    bulk(&mut pair, 1400, 10_000_000);
    let found = pair.a.conn().mtu();
    assert!((1393..=1400).contains(&found), "{found}");
    let (sent, passed, lost) = probes(&pair.a);
    assert!(sent == passed + lost && sent <= 10 && lost >= 1, "{sent} {passed} {lost}");
    let c = &pair.a.counters;
    // A probe that is missing is not congestion, and costs itself only.
    assert_eq!((c.tcp_timeouts, c.tcp_recoveries, c.tcp_black_holes), (0, 0, 0));
    assert!(c.tcp_retransmits <= 2 * lost, "{} for {lost}", c.tcp_retransmits);
    assert!(pair.a.conn().info(pair.now(), &always()).snd_cwnd > window);
    // The search is over, and begins again after ten minutes.
    bulk(&mut pair, 1400, 10_000_000);
    assert_eq!((pair.a.conn().mtu(), probes(&pair.a).0), (found, sent));
    pair.run(Duration::from_secs(601));
    bulk(&mut pair, 1500, 1_000_000);
    assert_eq!((pair.a.conn().mtu(), pair.a.conn().segment_size()), (1500, 1448));
    pair.finish();
}

#[test]
fn large_packets_are_reached_in_two_probes_where_the_path_takes_them() {
    let mut roomy = always();
    roomy.options.send_buffer = 128 << 10;
    let mut pair = Pair::with_mtu(roomy, always(), 9000);
    pair.run(ms(100));
    assert_eq!(pair.a.conn().segment_size(), 1024);
    bulk(&mut pair, 9000, 2_000_000);
    assert_eq!((pair.a.conn().mtu(), probes(&pair.a)), (9000, (2, 2, 0)));
    assert_eq!((pair.a.counters.tcp_retransmits, pair.a.conn().segment_size()), (0, 8948));
    pair.finish();
    // And over a path of the common size from large interfaces.
    let mut pair = Pair::with_mtu(always(), always(), 9000);
    pair.run(ms(100));
    bulk(&mut pair, 1500, 12_000_000);
    let found = pair.a.conn().mtu();
    assert!((1493..=1500).contains(&found), "{found} {:?}", probes(&pair.a));
    assert_eq!((pair.a.counters.tcp_timeouts, pair.a.counters.tcp_recoveries), (0, 0));
    pair.finish();
}

#[test]
fn after_a_black_hole_the_way_up_is_searched() {
    // By default nothing is probed until full segments vanish.
    assert_eq!(Config::default().mtu_probing, MtuProbing::BlackHole);
    let mut pair = Pair::open(bounded(MtuProbing::BlackHole));
    bulk(&mut pair, 1500, 500_000);
    assert_eq!((pair.a.conn().mtu(), probes(&pair.a)), (1500, (0, 0, 0)));
    bulk(&mut pair, 1400, 10_000_000);
    let found = pair.a.conn().mtu();
    assert!((1393..=1400).contains(&found), "{found} {:?}", probes(&pair.a));
    assert_eq!(pair.a.counters.tcp_black_holes, 1);
    // The path becomes narrower still: from the base on again.
    bulk(&mut pair, 1300, 10_000_000);
    let found = pair.a.conn().mtu();
    assert!((1293..=1300).contains(&found), "{found} {:?}", probes(&pair.a));
    assert_eq!(pair.a.counters.tcp_black_holes, 2);
    // What does not even take the base is halved.
    bulk(&mut pair, 600, 200_000);
    assert!((552..=600).contains(&pair.a.conn().mtu()), "{}", pair.a.conn().mtu());
    pair.finish();
    let off = Config { mtu_probing: MtuProbing::Off, ..Config::default() };
    let mut pair = Pair::open(off);
    pair.fate = Box::new(|_, seg: &Segment| if seg.payload_len > 1348 { Fate::Drop } else { Fate::Pass });
    pair.a.send(&pattern(20_000));
    pair.run(Duration::from_secs(60));
    assert_eq!((pair.got_b.len(), probes(&pair.a)), (0, (0, 0, 0)));
    pair.finish();
}

#[test]
fn without_sack_a_probe_is_found_missing_too() {
    let mut config = always();
    config.options.sack = false;
    let mut pair = Pair::open(config);
    bulk(&mut pair, 1400, 10_000_000);
    let found = pair.a.conn().mtu();
    assert!((1393..=1400).contains(&found), "{found} {:?}", probes(&pair.a));
    assert_eq!((pair.a.counters.tcp_timeouts, pair.a.counters.tcp_recoveries), (0, 0));
    pair.finish();
}

#[test]
fn a_probe_leaves_only_where_data_window_and_calm_allow_it() {
    // 7.4: the middle of 1,076 and 1,500, and four segments behind it.
    let start = |window| Solo::established(always(), Offer { scale: None, window, ..MODERN });
    let mut solo = start(60_000);
    solo.host.send(&pattern(1236 + 4 * 1024 - 1));
    assert_eq!(solo.leaving()[0], (0, 1024), "too little data");
    solo.host.finish();
    let mut solo = start(5000);
    solo.host.send(&pattern(8000));
    assert_eq!(solo.leaving()[0], (0, 1024), "too small a window");
    solo.host.finish();
    let mut solo = start(60_000);
    solo.host.send(&pattern(1000));
    solo.host.with(|c, _| c.end_record());
    solo.host.send(&pattern(8000));
    assert_eq!(solo.leaving()[0], (0, 1000), "a record ends");
    solo.host.finish();
    let mut solo = start(60_000);
    solo.host.with(|c, _| c.set_discover(Discover::Dont));
    solo.host.send(&pattern(8000));
    assert_eq!(solo.leaving()[0], (0, 1024), "it may be fragmented");
    solo.host.finish();
    let mut solo = start(60_000);
    solo.host.send(&pattern(1236 + 4 * 1024));
    let sent: Vec<_> = solo.leaving();
    assert_eq!(sent, [(0, 1236), (1236, 1024), (2260, 1024), (3284, 1024), (4308, 1024)]);
    // One at a time.
    solo.host.send(&pattern(6000));
    assert!(solo.leaving().iter().all(|s| s.1 <= 1024));
    solo.host.finish();
}

#[test]
fn what_waits_leaves_in_larger_segments_once_the_probe_is_through() {
    let mut solo = Solo::established(always(), MODERN);
    solo.host.send(&pattern(40_000));
    let first = solo.leaving();
    assert_eq!(first[0].1, 1236);
    solo.get_ack(1236);
    let then = solo.leaving();
    // All of it gets through, most likely: the whole at once, and then the new size.
    assert_eq!((then[0].1, solo.host.conn().mtu()), (1448, 1288), "{then:?}");
    assert!(then[1..].iter().all(|s| s.1 == 1236), "{then:?}");
    solo.host.finish();
}

/// `right - left` bytes from `left` on have arrived, and nothing before.
fn sack(solo: &mut Solo, left: u32, right: u32) {
    let mut options = solo.options();
    let base = ISS.wrapping_add(1);
    options.sack.push(SackBlock { left: base.wrapping_add(left), right: base.wrapping_add(right) });
    let seg = segment(ACK, solo.seq, solo.ack, solo.window, options, 0);
    solo.host.input(&seg, b"");
}

#[test]
fn a_probe_that_is_missing_with_others_tells_nothing() {
    // 7.6.4: that is congestion.
    let mut solo = Solo::established(always(), MODERN);
    solo.host.send(&pattern(20_000));
    assert_eq!(solo.leaving()[0].1, 1236);
    let before = solo.host.conn().info(solo.host.now, &always()).snd_ssthresh;
    for right in [3284, 4308, 5332, 6356] {
        sack(&mut solo, 2260, right);
    }
    let again = solo.leaving();
    assert_eq!((again[0], solo.host.counters.tcp_recoveries), ((0, 1024), 1), "{again:?}");
    assert!(solo.host.conn().info(solo.host.now, &always()).snd_ssthresh < before);
    assert_eq!(probes(&solo.host), (1, 0, 0));
    // Acknowledged now it tells nothing either: it went in pieces.
    solo.get_ack(6356);
    solo.leaving();
    assert_eq!((solo.host.conn().mtu(), probes(&solo.host).1), (1076, 0));
    solo.host.finish();
    // Alone missing it was too large, and the window stays.
    let mut solo = Solo::established(always(), MODERN);
    solo.host.send(&pattern(20_000));
    solo.leaving();
    for right in [2260, 3284, 4308, 5332] {
        sack(&mut solo, 1236, right);
    }
    let again = solo.leaving();
    assert_eq!(again[..2], [(0, 1024), (1024, 212)]);
    assert_eq!((solo.host.counters.tcp_recoveries, probes(&solo.host)), (0, (1, 0, 1)));
    assert_eq!(solo.host.conn().info(solo.host.now, &always()).snd_ssthresh, before);
    solo.host.finish();
}

#[test]
fn a_router_that_refuses_a_probe_is_believed() {
    let mut solo = Solo::established(always(), MODERN);
    solo.host.send(&pattern(1236 + 7 * 1024));
    assert_eq!(solo.leaving()[0].1, 1236);
    let claim = |solo: &mut Solo, mtu, quoted: u32| {
        let quoted = ISS.wrapping_add(1).wrapping_add(quoted);
        let d = solo.host.with(|c, e| c.icmp_error(e, IcmpError::PacketTooBig { mtu }, quoted, false));
        solo.host.note(d);
    };
    // Not of another segment, which is smaller.
    claim(&mut solo, 1200, 1236);
    assert_eq!(solo.host.counters.dropped(DropReason::IcmpQuoteInvalid), 1);
    claim(&mut solo, 1200, 0);
    assert_eq!(solo.leaving()[..2], [(0, 1024), (1024, 212)], "it goes again at once");
    assert_eq!((solo.host.counters.tcp_recoveries, probes(&solo.host)), (0, (1, 0, 1)));
    let all = solo.host.conn().unacknowledged();
    solo.get_ack(all);
    solo.host.send(&pattern(1148 + 7 * 1024));
    assert_eq!(solo.leaving()[0].1, 1200 - 52, "what it says is tried next");
    let all = solo.host.conn().unacknowledged();
    solo.get_ack(all);
    solo.host.send(&pattern(10));
    solo.host.out_one();
    assert_eq!(solo.host.conn().mtu(), 1200);
    solo.host.finish();
}

#[test]
fn a_route_that_takes_more_is_searched_and_not_believed() {
    let mut solo = Solo::established(always(), Offer { mss: 8960, ..MODERN });
    let d = solo.host.with(|c, e| c.set_mtu(e, 1800));
    solo.host.note(d);
    assert_eq!(solo.host.conn().mtu(), 1076);
    solo.host.send(&pattern(20_000));
    assert_eq!(solo.leaving()[0].1, (1076 + 1800) / 2 - 52);
    solo.host.finish();
}

#[test]
fn a_probe_that_times_out_was_too_large() {
    // 7.6.3. The window shrinks as after any time-out.
    let mut solo = Solo::established(always(), MODERN);
    solo.host.send(&pattern(20_000));
    assert_eq!(solo.leaving()[0].1, 1236);
    let mut out = Vec::new();
    while solo.host.counters.tcp_timeouts == 0 {
        solo.host.advance(Duration::from_secs(1));
        out = solo.leaving();
    }
    assert_eq!((out[0], probes(&solo.host)), ((0, 1024), (1, 0, 1)));
    solo.host.finish();
}
