//! Opening (RFC 9293, 3.5; MUST-10 to MUST-16).

use super::*;

#[test]
fn a_syn_announces_what_we_know_and_the_answer_decides() {
    let mut host = Host::new(Config::default(), 1);
    let options = host.config.options.clone();
    let t = template("10.0.0.2:4000", "10.0.0.1:80");
    host.conn = Some(Connection::connect(&mut host.env(), t, &options, initial(ISS), 1500));
    assert_eq!(host.state(), State::SynSent);
    let syn = host.out_one().seg;
    assert_eq!((syn.seq, syn.ack, syn.flags), (ISS, 0, SYN));
    assert_eq!(syn.options.mss, Some(1460));
    assert_eq!(syn.options.window_scale, Some(7), "6 MiB fit");
    assert_eq!(syn.window, 65_535, "not scaled");
    assert!(syn.options.sack_permitted);
    let (value, echo) = syn.options.timestamp.unwrap();
    assert_eq!(echo, 0);

    let answer = Options {
        mss: Some(1200),
        window_scale: Some(20),
        timestamp: Some((77, value)),
        ..Options::default()
    };
    let seg = segment(SYN | ACK, IRS, ISS.wrapping_add(1), 1000, answer, 0);
    host.input(&seg, b"");
    assert_eq!(host.state(), State::Established);
    assert_eq!(host.take_events(), Events::CONNECTED | Events::WRITABLE);
    let ack = host.out_one().seg;
    assert_eq!((ack.seq, ack.ack, ack.flags), (ISS.wrapping_add(1), IRS.wrapping_add(1), ACK));
    assert_eq!(ack.options.timestamp.unwrap().1, 77);
    let info = host.conn().info(host.now, &host.config);
    // 14 is the largest shift (RFC 7323, 2.3), and does not count for the SYN's window.
    assert_eq!((info.snd_wscale, info.snd_wnd), (14, 1000));
    assert_eq!((info.snd_mss, info.sack, info.timestamps), (1188, false, true));
    host.finish();
}

#[test]
fn a_syn_ack_carries_only_what_the_syn_offered() {
    let (solo, synack) = Solo::syn_received(Config::default(), PLAIN);
    let seg = &synack.seg;
    assert_eq!((seg.flags, seg.seq, seg.ack), (SYN | ACK, ISS, IRS.wrapping_add(1)));
    let only_mss = Options { mss: Some(1460), ..Options::default() };
    assert_eq!(seg.options, only_mss);
    assert_eq!(solo.host.state(), State::SynReceived);
    solo.host.finish();

    let (solo, synack) = Solo::syn_received(Config::default(), MODERN);
    let o = &synack.seg.options;
    assert!(o.sack_permitted && o.window_scale.is_some());
    assert_eq!(o.timestamp.unwrap().1, 5000);
    solo.host.finish();
}

#[test]
fn without_the_option_a_segment_is_536_bytes() {
    // MUST-15.
    let mut config = Config::default();
    config.options.timestamps = false;
    let mut host = Host::new(config, 1);
    let options = host.config.options.clone();
    let t = template("10.0.0.2:4000", "10.0.0.1:80");
    host.conn = Some(Connection::connect(&mut host.env(), t, &options, initial(ISS), 1500));
    host.out_one();
    let seg = segment(SYN | ACK, IRS, ISS.wrapping_add(1), 60_000, Options::default(), 0);
    host.input(&seg, b"");
    host.out_one();
    assert_eq!(host.conn().segment_size(), 536);
    host.finish();
}

#[test]
fn simultaneous_open_ends_established_on_both_sides() {
    // RFC 9293, figure 8 (MUST-10, MUST-11).
    let mut pair = Pair::new(Config::default(), Config::default());
    let options = pair.b.config.options.clone();
    let t = template("10.0.0.1:80", "10.0.0.2:4000");
    let conn = Connection::connect(&mut pair.b.env(), t, &options, initial(0x7fff_ff00), 1500);
    pair.b.conn = Some(conn);
    pair.run(ms(7));
    assert_eq!((pair.a.state(), pair.b.state()), (State::SynReceived, State::SynReceived));
    pair.run(ms(100));
    assert_eq!((pair.a.state(), pair.b.state()), (State::Established, State::Established));
    pair.a.send(b"over there");
    pair.b.send(b"over here");
    pair.run(ms(100));
    assert_eq!((&pair.got_a[..], &pair.got_b[..]), (&b"over here"[..], &b"over there"[..]));
    for counters in [&pair.a.counters, &pair.b.counters] {
        assert_eq!((counters.tcp_retransmits, counters.tcp_challenge_acks), (0, 0));
        assert_eq!(counters.dropped(DropReason::TcpDuplicate), 0, "the SYN-ACK counts as an ACK");
    }
    pair.finish();
}

#[test]
fn a_lost_syn_is_sent_again_after_a_second_then_two() {
    let mut pair = Pair::new(Config::default(), Config::default());
    let mut times = 0;
    pair.fate = Box::new(move |_, seg| {
        times += u32::from(seg.flags == SYN);
        if times <= 2 { Fate::Drop } else { Fate::Pass }
    });
    pair.run(ms(2999));
    assert_eq!(pair.a.state(), State::SynSent);
    pair.run(ms(100));
    assert_eq!(pair.a.state(), State::Established);
    // RFC 5681, 3.1: one segment after a lost SYN.
    let info = pair.a.conn().info(pair.a.now, &pair.a.config);
    assert_eq!(info.snd_cwnd, 1);
    pair.finish();
}

#[test]
fn a_lost_syn_ack_is_sent_again_by_either_timer() {
    let mut pair = Pair::new(Config::default(), Config::default());
    let mut lost = false;
    pair.fate = Box::new(move |to_b, _| {
        let drop = !to_b && !lost;
        lost |= drop;
        if drop { Fate::Drop } else { Fate::Pass }
    });
    pair.run(ms(1500));
    assert_eq!(pair.b.state(), State::Established);
    pair.finish();
}

#[test]
fn the_initial_window_is_ten_segments() {
    // RFC 6928.
    let mut solo = Solo::modern();
    solo.host.send(&pattern(100_000));
    assert_eq!(solo.host.out().len(), 10);
    solo.host.finish();
}

#[test]
fn a_refused_connection_says_so() {
    let mut host = Host::new(Config::default(), 1);
    let options = host.config.options.clone();
    let t = template("10.0.0.2:4000", "10.0.0.1:80");
    host.conn = Some(Connection::connect(&mut host.env(), t, &options, initial(ISS), 1500));
    host.out_one();
    // An RST without or with the wrong ACK does not count.
    host.input(&segment(RST, 0, 0, 0, Options::default(), 0), b"");
    host.input(&segment(RST | ACK, 0, ISS, 0, Options::default(), 0), b"");
    assert_eq!(host.state(), State::SynSent);
    host.input(&segment(RST | ACK, 0, ISS.wrapping_add(1), 0, Options::default(), 0), b"");
    assert_eq!(host.state(), State::Closed);
    assert_eq!(host.take_events(), Events::CLOSED | Events::ERROR);
    assert_eq!(host.take_error(), Some(Errno::ECONNREFUSED));
    host.finish();
}

#[test]
fn an_unacceptable_ack_in_syn_sent_gets_an_rst() {
    let mut host = Host::new(Config::default(), 1);
    let options = host.config.options.clone();
    let t = template("10.0.0.2:4000", "10.0.0.1:80");
    host.conn = Some(Connection::connect(&mut host.env(), t, &options, initial(ISS), 1500));
    host.out_one();
    for ack in [ISS, ISS.wrapping_add(2)] {
        host.input(&segment(SYN | ACK, IRS, ack, 100, Options::default(), 0), b"");
        let rst = host.out_one().seg;
        assert_eq!((rst.flags, rst.seq), (RST, ack));
    }
    host.input(&segment(ACK, IRS, ISS.wrapping_add(1), 100, Options::default(), 0), b"");
    assert_eq!(host.state(), State::SynSent);
    host.silent();
    host.finish();
}

#[test]
fn a_connection_that_nobody_answers_times_out() {
    // MUST-20, MUST-23: at least three minutes for a SYN.
    let mut host = Host::new(Config::default(), 1);
    let options = host.config.options.clone();
    let t = template("10.0.0.2:4000", "10.0.0.1:80");
    host.conn = Some(Connection::connect(&mut host.env(), t, &options, initial(ISS), 1500));
    let (start, mut syns) = (host.now, 0);
    while host.state() != State::Closed {
        syns += host.out().len();
        host.advance(ms(1000));
    }
    assert_eq!(syns, 8);
    assert!(host.now.since(start) >= Duration::from_secs(180));
    assert_eq!(host.take_error(), Some(Errno::ETIMEDOUT));
    host.finish();
}

#[test]
fn nothing_leaves_until_the_next_hop_is_known() {
    let mut host = Host::new(Config::default(), 1);
    let options = host.config.options.clone();
    let mac = crate::wire::ethernet::Mac([2; 6]);
    let link = Link::Ethernet { src: mac, dst: mac };
    let (local, remote) = ("10.0.0.2:4000".parse().unwrap(), "10.0.0.1:80".parse().unwrap());
    let t = Template::new(link, local, remote, 64, 0);
    host.conn = Some(Connection::connect(&mut host.env(), t, &options, initial(ISS), 1500));
    assert!(host.output().is_empty());
    assert_eq!(host.conn().deadline(), Instant::NEVER);
    host.with(|c, _| c.set_path(Some(crate::wire::ethernet::Mac([9; 6]))));
    let out = host.output();
    assert_eq!(&out[0][..12], &[9, 9, 9, 9, 9, 9, 2, 2, 2, 2, 2, 2]);
    host.with(|c, e| {
        let d = c.fail(e, Errno::EHOSTUNREACH);
        assert_eq!(d.events, Events::CLOSED | Events::ERROR);
    });
    assert_eq!(host.take_error(), Some(Errno::EHOSTUNREACH));
    host.finish();
}

#[test]
fn a_silent_neighbour_ends_a_passive_open_only_before_its_syn_ack_has_left() {
    let (mut solo, _) = Solo::syn_received(Config::default(), PLAIN);
    solo.host.with(|c, e| {
        assert_eq!(c.fail(e, Errno::EHOSTUNREACH).events, Events::empty());
        assert_eq!((c.state(), c.soft_error()), (State::SynReceived, Some(Errno::EHOSTUNREACH)));
    });
    solo.get(ACK, b"");
    assert_eq!(solo.host.state(), State::Established);
    solo.host.finish();
    // Of another nothing has left: to its peer it is not open.
    let mut host = Host::new(Config::default(), 1);
    let syn = segment(SYN, IRS, 0, 60_000, Options::default(), 0);
    let options = host.config.options.clone();
    let t = template("10.0.0.1:80", "10.0.0.2:4000");
    host.conn = Some(Connection::accept(&mut host.env(), t, &options, initial(ISS), 1500, &syn));
    let d = host.with(|c, e| c.fail(e, Errno::EHOSTUNREACH));
    assert_eq!(d.events, Events::CLOSED | Events::ERROR);
    host.finish();
}

#[test]
fn data_and_fin_on_the_handshakes_last_segments_are_taken() {
    let (mut solo, _) = Solo::syn_received(Config::default(), PLAIN);
    solo.get(ACK | PSH | FIN, b"hello");
    assert_eq!(solo.host.state(), State::CloseWait);
    assert_eq!(solo.host.recv_all(), b"hello");
    assert!(solo.host.conn().eof());
    assert_eq!(solo.host.out_one().seg.ack, IRS.wrapping_add(7));
    solo.host.finish();
}

#[test]
fn data_that_answers_a_syns_does_not_shorten_the_handshakes_round_trip() {
    for (offer, rtt) in [(MODERN, 100_000), (PLAIN, 0)] {
        let (mut solo, _) = Solo::syn_received(Config::default(), offer);
        solo.host.conn.as_mut().unwrap().cold.early = true;
        solo.host.now += ms(90);
        solo.host.send(b"early");
        assert_eq!(solo.host.out().len(), 1);
        solo.host.now += ms(10);
        solo.get(ACK, b"");
        assert_eq!(solo.host.state(), State::Established);
        assert_eq!(solo.host.conn().warm.rtt.smoothed(), rtt);
        solo.host.finish();
    }
}
