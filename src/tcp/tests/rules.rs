//! The checks of RFC 9293, 3.10.7.4, RFC 5961 and RFC 7323, one by one.

use super::*;

#[test]
fn what_is_outside_of_the_window_is_acknowledged_and_dropped() {
    // First check: table 6.
    let mut solo = Solo::plain();
    solo.get(ACK, b"0123456789");
    solo.host.out_one();
    // Wholly old; wholly beyond the window.
    for (ahead, reason) in [(-10, DropReason::TcpDuplicate), (200_000, DropReason::TcpOutOfWindow)] {
        solo.get_at(ahead, ACK, b"0123456789");
        let ack = solo.host.out_one().seg;
        assert_eq!((ack.ack, ack.flags), (IRS.wrapping_add(11), ACK));
        assert_eq!(solo.host.counters.dropped(reason), 1);
    }
    assert_eq!(solo.host.recv_all(), b"0123456789");
    solo.host.finish();
}

#[test]
fn what_overlaps_the_window_is_trimmed() {
    let mut config = Config::default();
    config.options.receive_buffer = 1024;
    let mut solo = Solo::established(config, PLAIN);
    solo.get(ACK, &pattern(600));
    solo.get_at(-100, ACK, &pattern(2000)[500..1500]);
    assert_eq!(solo.host.recv_all(), pattern(1024));
    solo.host.finish();
}

#[test]
fn empty_segments_outside_of_the_window_are_answered_seldom() {
    let mut solo = Solo::plain();
    solo.get_at(-1, ACK, b"");
    solo.host.out_one();
    for _ in 0..50 {
        solo.get_at(-1, ACK, b"");
        solo.host.silent();
    }
    solo.host.now += ms(501);
    solo.get_at(-1, ACK, b"");
    solo.host.out_one();
    solo.host.finish();
}

#[test]
fn a_reset_counts_only_at_exactly_the_next_number() {
    // RFC 5961, 3.2.
    let mut solo = Solo::plain();
    for ahead in [-1, 100_000_000] {
        solo.get_at(ahead, RST, b"");
        solo.host.silent();
    }
    solo.get_at(100, RST, b"");
    let challenge = solo.host.out_one().seg;
    assert_eq!((challenge.flags, challenge.ack), (ACK, IRS.wrapping_add(1)));
    assert_eq!(challenge.seq, ISS.wrapping_add(1));
    assert_eq!(solo.host.counters.tcp_challenge_acks, 1);
    assert_eq!(solo.host.state(), State::Established);
    solo.get(ACK, b"unread");
    solo.get_at(0, RST, b"");
    assert_eq!(solo.host.state(), State::Closed);
    let events = Events::CLOSED | Events::ERROR | Events::READABLE;
    assert_eq!(solo.host.take_events(), events);
    assert_eq!(solo.host.recv_all(), b"unread", "what came before stays to be read");
    assert_eq!(solo.host.take_error(), Some(Errno::ECONNRESET));
    assert_eq!(solo.host.conn().deadline(), Instant::NEVER);
    solo.host.silent();
    solo.host.finish();
}

#[test]
fn a_reset_in_close_wait_is_a_broken_pipe_and_none_in_last_ack() {
    let mut solo = Solo::plain();
    solo.get(ACK | FIN, b"");
    solo.host.out_one();
    solo.get_at(0, RST, b"");
    assert_eq!(solo.host.take_error(), Some(Errno::EPIPE));
    solo.host.finish();

    let mut solo = Solo::plain();
    solo.get(ACK | FIN, b"");
    solo.host.close();
    solo.host.out_one();
    assert_eq!(solo.host.state(), State::LastAck);
    solo.get_at(0, RST, b"");
    assert_eq!((solo.host.state(), solo.host.take_error()), (State::Closed, None));
    solo.host.finish();
}

#[test]
fn a_syn_in_a_live_connection_is_challenged() {
    // RFC 5961, 4.2: whatever its number.
    let mut solo = Solo::plain();
    for ahead in [-50_000, 0, 500, 200_000] {
        solo.get_at(ahead, SYN, b"and text");
        let challenge = solo.host.out_one().seg;
        assert_eq!((challenge.flags, challenge.seq), (ACK, ISS.wrapping_add(1)));
        assert_eq!(challenge.ack, solo.seq);
    }
    assert_eq!((solo.host.state(), solo.host.conn().recv_len()), (State::Established, 0));
    assert_eq!(solo.host.counters.tcp_challenge_acks, 4);
    // A peer that knows of no connection answers that with an RST for its number.
    solo.get_at(0, RST, b"");
    assert_eq!(solo.host.state(), State::Closed);
    solo.host.finish();
}

#[test]
fn challenge_acks_are_limited_and_the_limit_cannot_be_told() {
    // RFC 5961, 7; CVE-2016-5696.
    let mut limits = Vec::new();
    let mut solo = Solo::plain();
    for _ in 0..20 {
        let mut answered = 0;
        for _ in 0..40 {
            solo.get_at(7, RST, b"");
            answered += solo.host.out().len();
        }
        assert!((5..15).contains(&answered), "{answered}");
        limits.push(answered);
        solo.host.now += ms(1000);
    }
    limits.sort();
    limits.dedup();
    assert!(limits.len() > 3, "the limit differs from second to second");
    solo.host.finish();
}

#[test]
fn a_syn_in_syn_received_ends_it_or_gets_the_syn_ack_again() {
    let (mut solo, _) = Solo::syn_received(Config::default(), PLAIN);
    solo.get_at(-1, SYN, b"");
    assert_eq!(solo.host.out_one().seg.flags, SYN | ACK);
    assert_eq!(solo.host.state(), State::SynReceived);
    solo.get_at(5, SYN, b"");
    assert_eq!((solo.host.state(), solo.host.take_error()), (State::Closed, None));
    solo.host.finish();
}

#[test]
fn a_reset_in_passive_syn_received_tells_nobody() {
    let (mut solo, _) = Solo::syn_received(Config::default(), PLAIN);
    solo.get_at(0, RST, b"");
    assert_eq!((solo.host.state(), solo.host.take_error()), (State::Closed, None));
    solo.host.finish();
}

#[test]
fn a_wrong_ack_in_syn_received_gets_an_rst() {
    let (mut solo, _) = Solo::syn_received(Config::default(), PLAIN);
    solo.ack = ISS.wrapping_add(2);
    solo.get(ACK, b"");
    let rst = solo.host.out_one().seg;
    assert_eq!((rst.flags, rst.seq), (RST, ISS.wrapping_add(2)));
    assert_eq!(solo.host.state(), State::SynReceived);
    solo.host.finish();
}

#[test]
fn a_segment_without_ack_is_dropped() {
    let mut solo = Solo::plain();
    solo.get_at(0, PSH, b"no ack");
    assert_eq!(solo.host.conn().recv_len(), 0);
    solo.host.silent();
    solo.host.finish();
}

#[test]
fn acks_of_what_was_never_sent_or_is_far_too_old_are_challenged() {
    // RFC 5961, 5.2.
    let mut solo = Solo::plain();
    solo.host.send(&pattern(1000));
    solo.host.out_one();
    let right = solo.ack;
    for wrong in [1001, 60_001u32.wrapping_neg()] {
        solo.ack = right.wrapping_add(wrong);
        solo.get_at(0, ACK, b"data of a spoofer");
        assert_eq!(solo.host.out_one().seg.flags, ACK);
    }
    assert_eq!(solo.host.conn().recv_len(), 0);
    assert_eq!(solo.host.counters.dropped(DropReason::TcpBadAck), 2);
    // Old by as much as the largest window is fine, and its text is taken, though
    // the window is smaller since.
    solo.window = 100;
    solo.ack = right;
    solo.get(ACK, b"");
    solo.ack = right.wrapping_sub(60_000);
    solo.get(ACK, b"text");
    assert_eq!(solo.host.conn().recv_len(), 4);
    solo.host.finish();
}

#[test]
fn a_segment_without_the_timestamp_that_was_agreed_on_is_dropped_or_taken() {
    // RFC 7323, 3.2 (SHOULD), and Linux's way.
    for (required, read) in [(true, &b""[..]), (false, b"bare")] {
        let config = Config { require_timestamps: required, ..Config::default() };
        let mut solo = Solo::established(config, MODERN);
        solo.time = None;
        solo.get(ACK, b"bare");
        assert_eq!(solo.host.recv_all(), read);
        assert_eq!(solo.host.counters.dropped(DropReason::TcpPaws), u64::from(required));
        solo.host.finish();
    }
}

#[test]
fn paws_drops_an_old_segment_and_acknowledges() {
    // RFC 7323, 5.3.
    let mut solo = Solo::modern();
    solo.time = Some(6000);
    solo.get(ACK, b"new");
    solo.host.out_one();
    solo.time = Some(5999);
    solo.get(ACK, b"old");
    assert_eq!(solo.host.out_one().seg.ack, IRS.wrapping_add(4));
    assert_eq!(solo.host.counters.dropped(DropReason::TcpPaws), 1);
    assert_eq!(solo.host.recv_all(), b"new");
    // An RST is exempt.
    solo.seq = IRS.wrapping_add(4);
    solo.get_at(0, RST, b"");
    assert_eq!(solo.host.state(), State::Closed);
    solo.host.finish();
}

#[test]
fn a_segment_that_acknowledges_what_was_not_sent_leaves_the_timestamp_alone() {
    let mut solo = Solo::modern();
    let right = solo.ack;
    (solo.ack, solo.time) = (right.wrapping_add(1000), Some(9000));
    solo.get_at(0, ACK, b"bad");
    solo.host.out();
    // The peer's own is behind that, and taken.
    (solo.ack, solo.time) = (right, Some(6001));
    solo.get(ACK, b"good");
    assert_eq!(solo.host.recv_all(), b"good");
    assert_eq!(solo.host.out_one().seg.options.timestamp.unwrap().1, 6001);
    solo.host.finish();
}

#[test]
fn timestamps_wrap_and_go_stale() {
    let mut solo = Solo::modern();
    for time in [0x7000_0000, 0xe000_0000, 0xffff_fffe, 3] {
        solo.time = Some(time);
        solo.get(ACK, b"x");
        assert_eq!(solo.host.out_one().seg.options.timestamp.unwrap().1, time);
    }
    // After 24 days an older timestamp is taken (RFC 7323, 5.5).
    solo.host.now += Duration::from_secs(25 * 24 * 3600);
    solo.time = Some(2);
    solo.get(ACK, b"y");
    assert_eq!(solo.host.recv_all(), b"xxxxy");
    // And it is what later ones compare with.
    solo.get(ACK, b"z");
    assert_eq!(solo.host.recv_all(), b"z");
    solo.host.finish();
}

#[test]
fn a_segment_without_the_agreed_timestamp_is_dropped() {
    // RFC 7323, 3.2.
    let mut solo = Solo::modern();
    solo.time = None;
    solo.get_at(0, ACK, b"x");
    solo.host.silent();
    assert_eq!((solo.host.state(), solo.host.conn().recv_len()), (State::Established, 0));
    solo.get_at(0, RST, b"");
    assert_eq!(solo.host.state(), State::Closed);
    solo.host.finish();
}

#[test]
fn the_timestamp_echoed_is_of_the_earliest_segment_not_acknowledged() {
    // RFC 7323, 4.3: a delayed ACK, and a hole.
    let config = Config { quick_acks: 0, ..Config::default() };
    let mut solo = Solo::established(config, MODERN);
    solo.time = Some(5001);
    solo.get(ACK, &pattern(1448));
    solo.time = Some(5002);
    solo.get(ACK, &pattern(1448));
    assert_eq!(solo.host.out_one().seg.options.timestamp.unwrap().1, 5001);
    solo.time = Some(5003);
    solo.get_at(1448, ACK, b"ahead");
    assert_eq!(solo.host.out_one().seg.options.timestamp.unwrap().1, 5001);
    solo.time = Some(5004);
    solo.get(ACK, &pattern(1448));
    assert_eq!(solo.host.out_one().seg.options.timestamp.unwrap().1, 5004);
    solo.host.finish();
}

#[test]
fn what_comes_again_after_a_lost_ack_is_answered_with_its_own_timestamp() {
    // RFC 7323, 4.3, (2): else the sender takes its time-out for a round trip.
    let mut solo = Solo::modern();
    solo.time = Some(6000);
    solo.get(ACK, b"once");
    assert_eq!(solo.host.out_one().seg.options.timestamp.unwrap().1, 6000);
    solo.time = Some(126_000);
    solo.get_at(-4, ACK, b"once");
    assert_eq!(solo.host.out_one().seg.options.timestamp.unwrap().1, 126_000);
    assert_eq!(solo.host.recv_all(), b"once");
    solo.host.finish();
}

#[test]
fn sack_blocks_name_the_latest_first() {
    // RFC 2018, 4.
    let mut solo = Solo::modern();
    let base = solo.seq;
    let blocks = |out: &Out| -> Vec<(u32, u32)> {
        let rel = |n: u32| n.wrapping_sub(base);
        out.seg.options.sack.iter().map(|b: &SackBlock| (rel(b.left), rel(b.right))).collect()
    };
    solo.get_at(100, ACK, &[1; 50]);
    assert_eq!(blocks(&solo.host.out_one()), [(100, 150)]);
    solo.get_at(300, ACK, &[1; 50]);
    assert_eq!(blocks(&solo.host.out_one()), [(300, 350), (100, 150)]);
    solo.get_at(150, ACK, &[1; 50]);
    assert_eq!(blocks(&solo.host.out_one()), [(100, 200), (300, 350)]);
    solo.get_at(500, ACK, &[1; 50]);
    solo.get_at(700, ACK, &[1; 50]);
    // Three fit beside a timestamp, and a batch gets one ACK.
    assert_eq!(blocks(&solo.host.out_one()), [(700, 750), (500, 550), (100, 200)]);
    solo.get(ACK, &[1; 100]);
    let filled = solo.host.out_one();
    assert_eq!(filled.seg.ack, base.wrapping_add(200));
    assert_eq!(blocks(&filled), [(700, 750), (500, 550), (300, 350)]);
    solo.get_at(100, ACK, &[1; 1000]);
    let all = solo.host.out_one();
    assert_eq!((all.seg.ack, blocks(&all)), (base.wrapping_add(1200), vec![]));
    assert_eq!(solo.host.recv_all().len(), 1200);
    solo.host.finish();
}

#[test]
fn a_peer_without_sack_gets_a_duplicate_ack_for_each_segment() {
    // RFC 5681, 4.2: the exception to one ACK a batch.
    let mut solo = Solo::plain();
    for i in 1..4 {
        solo.get_at(i * 100, ACK, &[1; 50]);
    }
    let acks = solo.host.out();
    assert_eq!(acks.len(), 3);
    assert!(acks.iter().all(|a| a.seg.ack == solo.seq && a.seg.options.sack.is_empty()));
    solo.host.finish();
}

#[test]
fn what_waits_behind_a_gap_is_bounded_in_segments() {
    let config = Config { out_of_order_segments: 4, ..Config::default() };
    let mut solo = Solo::established(config, MODERN);
    for i in 1..9 {
        solo.get_at(i * 100, ACK, &[1; 50]);
    }
    assert_eq!(solo.host.conn().held_frames(), 4);
    assert_eq!(solo.host.counters.dropped(DropReason::TcpOutOfOrderFull), 4);
    solo.host.finish();
}

#[test]
fn a_low_pool_keeps_nothing_behind_a_gap() {
    let mut solo = Solo::modern();
    solo.host.config.frames_low = 1 << 20;
    solo.get_at(100, ACK, &[1; 50]);
    assert_eq!(solo.host.conn().held_frames(), 0);
    assert_eq!(solo.host.counters.dropped(DropReason::PoolExhausted), 1);
    // In order it is taken, and copied together.
    solo.get(ACK, &pattern(900));
    solo.get(ACK, &pattern(900));
    assert_eq!(solo.host.conn().held_frames(), 1);
    assert_eq!(solo.host.recv_all().len(), 1800);
    solo.host.finish();
}

#[test]
fn icmp_errors_are_soft_once_established_and_hard_while_opening() {
    // MUST-56, SHLD-25, SHLD-26; RFC 5927, 4.1.
    let mut solo = Solo::plain();
    solo.host.send(b"data");
    solo.host.out_one();
    let una = ISS.wrapping_add(1);
    solo.host.with(|c, e| {
        for (error, at) in [(IcmpError::PortUnreachable, una), (IcmpError::Unreachable, una)] {
            assert_eq!(c.icmp_error(e, error, at, false), Disposition::NONE);
        }
        assert_eq!(c.state(), State::Established);
        assert_eq!(c.soft_error(), Some(Errno::EHOSTUNREACH));
        // A quote of nothing that is outstanding.
        let _ = c.icmp_error(e, IcmpError::NetworkUnreachable, una.wrapping_add(4), false);
        assert_eq!(c.soft_error(), Some(Errno::EHOSTUNREACH));
    });
    solo.host.finish();

    for (error, errno) in [
        (IcmpError::PortUnreachable, Errno::ECONNREFUSED),
        (IcmpError::ProtocolUnreachable, Errno::ENOPROTOOPT),
    ] {
        let (mut solo, _) = Solo::syn_received(Config::default(), PLAIN);
        let d = solo.host.with(|c, e| c.icmp_error(e, error, ISS, false));
        assert_eq!(d.events, Events::CLOSED | Events::ERROR);
        assert_eq!(solo.host.take_error(), Some(errno));
        solo.host.finish();
    }
}

#[test]
fn a_smaller_path_cuts_what_is_outstanding() {
    // RFC 1191.
    let mut solo = Solo::modern();
    solo.host.send(&pattern(3000));
    assert_eq!(solo.leaving(), [(0, 1448), (1448, 1448), (2896, 104)]);
    let una = ISS.wrapping_add(1);
    let d = solo.host.with(|c, e| c.icmp_error(e, IcmpError::PacketTooBig { mtu: 1000 }, una, false));
    assert!(d.flush);
    assert_eq!(solo.host.conn().segment_size(), 948);
    assert_eq!(solo.leaving(), [(0, 948), (948, 500), (1448, 948), (2396, 500)]);
    // Larger, or of what is not outstanding: no effect. Silent routers: plateaus.
    solo.host.with(|c, e| {
        let _ = c.icmp_error(e, IcmpError::PacketTooBig { mtu: 1400 }, una, false);
        let _ = c.icmp_error(e, IcmpError::PacketTooBig { mtu: 500 }, una.wrapping_sub(1), false);
        assert_eq!(c.segment_size(), 948);
        let _ = c.icmp_error(e, IcmpError::PacketTooBig { mtu: 0 }, una, false);
        assert_eq!(c.segment_size(), 552 - 52, "508 is below the floor");
        let _ = c.set_mtu(e, 1500);
        assert_eq!(c.segment_size(), 1448);
    });
    solo.host.finish();
}

#[test]
fn a_nearly_empty_pool_takes_no_more_frames_for_what_nobody_reads() {
    let mut solo = Solo::plain();
    (solo.host.config.frame_reserve, solo.host.config.frames_low) = (1 << 20, 1 << 20);
    for _ in 0..3 {
        let data = pattern(1000);
        let seg = segment(ACK, solo.seq, solo.ack, 60_000, Options::default(), 1000);
        solo.host.input(&seg, &data);
        if solo.host.conn().recv_len() == 1000 * (1 + solo.host.conn().held_frames()) {
            panic!("more than a frame holds");
        }
        solo.seq = solo.host.conn().hot.rcv_nxt;
        assert_eq!(solo.host.out_one().seg.ack, solo.seq);
    }
    assert_eq!((solo.host.conn().recv_len(), solo.host.conn().held_frames()), (1000, 1));
    assert_eq!(solo.host.counters.dropped(DropReason::PoolExhausted), 2);
    // Once it was read there is room for the next.
    solo.host.recv_all();
    solo.get(ACK, &pattern(1000));
    assert_eq!(solo.host.recv_all().len(), 1000);
    solo.host.finish();
}

#[test]
fn nothing_waits_behind_a_fin() {
    let mut solo = Solo::modern();
    solo.get_at(100, ACK, b"beyond");
    assert_eq!(solo.host.conn().held_frames(), 1);
    solo.get(ACK | FIN, b"end");
    assert_eq!(solo.host.conn().held_frames(), 1);
    let ack = solo.host.out_one();
    assert!(ack.seg.options.sack.is_empty());
    assert_eq!(solo.host.recv_all(), b"end");
    assert!(solo.host.conn().eof());
    solo.host.finish();
}
