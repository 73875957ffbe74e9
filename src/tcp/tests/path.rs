//! The path's MTU: routers' word, silence, and age (RFC 1191, 4821, 5927).

use super::*;

fn claim(solo: &mut Solo, mtu: u16, quoted: u32) {
    let d = solo.host.with(|c, e| c.icmp_error(e, IcmpError::PacketTooBig { mtu }, quoted, false));
    solo.host.note(d);
}

fn una() -> u32 {
    ISS.wrapping_add(1)
}

fn refused(solo: &Solo) -> u64 {
    solo.host.counters.dropped(DropReason::IcmpQuoteInvalid)
}

#[test]
fn a_claim_that_what_was_acknowledged_contradicts_waits_for_a_time_out() {
    // RFC 5927, 7.2.
    let mut solo = Solo::modern();
    solo.host.send(&pattern(1448));
    solo.host.out_one();
    solo.get_ack(1448);
    solo.host.send(&pattern(3000));
    assert_eq!(solo.host.out().len(), 3);
    claim(&mut solo, 1000, una().wrapping_add(1448));
    solo.host.silent();
    assert_eq!(solo.host.conn().mtu(), 1500);
    // The quoted segment gets through: the claim was forged.
    solo.get_ack(1448);
    solo.host.out();
    for _ in 0..2 {
        // A tail probe, then the timer.
        solo.host.advance(Duration::from_secs(2));
        solo.host.out();
    }
    assert_eq!((solo.host.conn().mtu(), refused(&solo)), (1500, 1));
    // It does not: the claim counts.
    claim(&mut solo, 1000, una().wrapping_add(2 * 1448));
    solo.host.advance(Duration::from_secs(5));
    assert_eq!(solo.host.conn().mtu(), 1000);
    solo.host.finish();
}

#[test]
fn nothing_goes_below_the_floor_and_what_is_larger_than_the_path_may_be_fragmented() {
    let mut solo = Solo::modern();
    solo.host.send(&pattern(3000));
    solo.host.out();
    claim(&mut solo, 68, una());
    assert_eq!((solo.host.conn().mtu(), solo.host.conn().segment_size()), (552, 500));
    let packets = solo.host.output();
    let mut idents: Vec<_> = packets.iter().map(|p| [p[4], p[5]]).collect();
    assert!(packets.len() > 1 && packets.iter().all(|p| p[6] & 0x40 == 0), "DF is off");
    packets.iter().for_each(|p| drop(open(p)));
    idents.sort_unstable();
    idents.dedup();
    assert_eq!(idents.len(), packets.len(), "each has its own identification");
    // The same again, or more, says nothing new.
    claim(&mut solo, 68, una());
    claim(&mut solo, 1400, una());
    assert_eq!((solo.host.conn().mtu(), refused(&solo)), (552, 1));
    solo.host.finish();
}

#[test]
fn a_smaller_path_is_forgotten_after_ten_minutes() {
    // RFC 1191, 6.3.
    let mut solo = Solo::modern();
    solo.host.send(&pattern(1448));
    solo.host.out();
    claim(&mut solo, 1000, una());
    solo.host.out();
    solo.get_ack(1448);
    solo.host.advance(Duration::from_secs(590));
    solo.host.send(&pattern(10));
    solo.host.out_one();
    solo.get_ack(10);
    assert_eq!(solo.host.conn().mtu(), 1000);
    solo.host.advance(Duration::from_secs(11));
    solo.host.send(&pattern(10));
    assert_eq!(solo.host.out_one().len(), 10);
    assert_eq!((solo.host.conn().mtu(), solo.host.conn().segment_size()), (1500, 1448));
    solo.host.finish();
}

#[test]
fn where_full_segments_vanish_smaller_ones_are_tried() {
    // RFC 4821, 7.7: nobody says why.
    for probing in [true, false] {
        let mut solo = Solo::modern();
        solo.host.config.mtu_probing = if probing { MtuProbing::BlackHole } else { MtuProbing::Off };
        solo.host.send(&pattern(1448));
        solo.host.out_one();
        let (mut sizes, mut acked) = (Vec::new(), false);
        for _ in 0..5 {
            solo.host.advance(Duration::from_secs(60));
            let out = solo.host.out();
            sizes.push(out[0].len());
            acked |= out[0].len() < 1448;
        }
        // A tail probe, two time-outs, and then they are smaller; and smaller still.
        assert_eq!(sizes, if probing { [1448, 1448, 1448, 1024, 512] } else { [1448; 5] });
        assert_eq!(solo.host.counters.tcp_black_holes, if probing { 2 } else { 0 });
        if acked {
            // It is taken: the rest follows in as small ones. But not below the floor.
            solo.get_ack(512);
            assert!(solo.host.out().iter().all(|o| o.len() <= 512));
            solo.host.advance(Duration::from_secs(1000));
            solo.host.out();
            assert!(solo.host.conn().mtu() >= 552);
        }
        solo.host.finish();
    }
}

#[test]
fn a_connection_that_may_be_fragmented_hears_of_no_mtu() {
    // IP_PMTUDISC_DONT.
    let mut solo = Solo::modern();
    solo.host.with(|c, _| c.set_discover(Discover::Dont));
    solo.host.send(&pattern(1448));
    let packet = solo.host.output().remove(0);
    assert_eq!(packet[6] & 0x40, 0);
    claim(&mut solo, 1000, una());
    assert_eq!((solo.host.conn().mtu(), refused(&solo)), (1500, 1));
    solo.host.finish();
}

#[test]
fn a_syn_that_is_too_large_goes_again_at_once_and_asks_for_less() {
    let mut host = Host::new(Config::default(), 1);
    let options = host.config.options.clone();
    let t = template("10.0.0.1:4000", "10.0.0.2:80");
    host.conn = Some(Connection::connect(&mut host.env(), t, &options, initial(ISS), 1500));
    let too_big = |host: &mut Host, mtu, quoted| {
        let d = host.with(|c, e| c.icmp_error(e, IcmpError::PacketTooBig { mtu }, quoted, false));
        host.note(d);
    };
    assert_eq!(host.out_one().seg.options.mss, Some(1460));
    too_big(&mut host, 1000, ISS.wrapping_sub(1));
    host.silent();
    too_big(&mut host, 1000, ISS);
    let again = host.out_one();
    assert_eq!((again.seg.flags, again.seg.seq, again.seg.options.mss), (SYN, ISS, Some(960)));
    assert_eq!((host.state(), host.conn().mtu()), (State::SynSent, 1000));
    // Nothing was lost to congestion: the window is that of ten segments.
    let options = Options { mss: Some(1460), ..Options::default() };
    host.input(&segment(SYN | ACK, IRS, ISS.wrapping_add(1), 60_000, options, 0), b"");
    host.out_one();
    host.send(&pattern(20_000));
    let sent = host.out();
    assert!(sent.len() == 10 && sent.iter().all(|o| o.len() == 960), "{sent:?}");
    host.finish();
}
