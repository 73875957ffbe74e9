//! Closing (RFC 9293, 3.6): every way from ESTABLISHED to CLOSED.

use super::*;

#[test]
fn a_normal_close_passes_through_every_state() {
    // Figure 12: our side first.
    let mut solo = Solo::plain();
    solo.host.close();
    assert_eq!(solo.host.state(), State::FinWait1);
    let fin = solo.host.out_one().seg;
    assert_eq!((fin.flags, fin.seq), (FIN | ACK, ISS.wrapping_add(1)));
    solo.get_ack(1);
    assert_eq!(solo.host.state(), State::FinWait2);
    solo.get(ACK | FIN, b"");
    assert_eq!(solo.host.state(), State::TimeWait);
    assert!(solo.host.take_events().contains(Events::TIME_WAIT | Events::PEER_CLOSED));
    let ack = solo.host.out_one().seg;
    assert_eq!((ack.flags, ack.ack), (ACK, IRS.wrapping_add(2)));
    // MUST-13: 2 MSL.
    assert_eq!(solo.host.conn().deadline(), solo.host.now + solo.host.config.time_wait);
    solo.host.advance(Duration::from_secs(60));
    assert_eq!(solo.host.state(), State::Closed);
    assert!(solo.host.take_events().contains(Events::CLOSED));
    solo.host.finish();
}

#[test]
fn the_peers_close_first_then_ours() {
    let mut solo = Solo::plain();
    solo.get(ACK | FIN, b"last words");
    assert_eq!(solo.host.state(), State::CloseWait);
    assert!(solo.host.take_events().contains(Events::PEER_CLOSED | Events::READABLE));
    let ready = solo.host.conn().readiness();
    assert!(ready.contains(Readiness::IN | Readiness::RDHUP | Readiness::OUT));
    assert_eq!(solo.host.out_one().seg.ack, IRS.wrapping_add(12));
    assert!(!solo.host.conn().eof());
    assert_eq!(solo.host.recv_all(), b"last words");
    assert!(solo.host.conn().eof());
    // Half-closed: we still send.
    assert_eq!(solo.host.send(b"answer"), 6);
    solo.host.out_one();
    solo.get_ack(6);
    solo.host.close();
    assert_eq!(solo.host.state(), State::LastAck);
    assert_eq!(solo.host.out_one().seg.flags, FIN | ACK);
    solo.get_ack(1);
    assert_eq!(solo.host.state(), State::Closed);
    assert_eq!(solo.host.take_error(), None);
    solo.host.finish();
}

#[test]
fn a_simultaneous_close_ends_in_time_wait() {
    // Figure 13.
    let mut solo = Solo::plain();
    solo.host.close();
    solo.host.out_one();
    solo.get(ACK | FIN, b"");
    assert_eq!(solo.host.state(), State::Closing);
    solo.host.out_one();
    solo.get_ack(1);
    assert_eq!(solo.host.state(), State::TimeWait);
    solo.host.finish();
}

#[test]
fn a_fin_that_acknowledges_ours_goes_straight_to_time_wait() {
    let mut solo = Solo::plain();
    solo.host.shutdown();
    solo.host.out_one();
    solo.ack = solo.ack.wrapping_add(1);
    solo.get(ACK | FIN, b"");
    assert_eq!(solo.host.state(), State::TimeWait);
    let ready = solo.host.conn().readiness();
    assert!(ready.contains(Readiness::HUP | Readiness::IN | Readiness::OUT));
    solo.host.finish();
}

#[test]
fn the_fin_travels_with_the_last_data_and_is_sent_again_with_it() {
    let mut solo = Solo::plain();
    solo.host.send(b"bye");
    solo.host.shutdown();
    let last = solo.host.out_one();
    assert_eq!((&last.data[..], last.seg.flags), (&b"bye"[..], FIN | PSH | ACK));
    assert_eq!(solo.host.send(b"more"), 0);
    solo.host.advance(ms(1000));
    let again = solo.host.out_one();
    assert_eq!((&again.data[..], again.seg.flags), (&b"bye"[..], FIN | PSH | ACK));
    solo.get_ack(3);
    assert_eq!(solo.host.state(), State::FinWait1);
    solo.host.advance(ms(5000));
    let fin = solo.host.out_one();
    assert_eq!((solo.rel(&fin), fin.len(), fin.seg.flags), (3, 0, FIN | ACK));
    solo.get_ack(1);
    assert_eq!(solo.host.state(), State::FinWait2);
    solo.host.finish();
}

#[test]
fn the_fin_waits_for_data_before_it() {
    let mut solo = Solo::plain();
    solo.window = 1000;
    solo.get(ACK, b"");
    solo.host.send(&pattern(2500));
    solo.host.shutdown();
    let first = solo.host.out_one();
    assert_eq!((first.len(), first.seg.flags), (1000, ACK));
    solo.get_ack(1000);
    assert!(!solo.host.out_one().seg.flags.contains(FIN));
    solo.get_ack(1000);
    assert_eq!(solo.host.out_one().seg.flags, FIN | PSH | ACK);
    solo.host.finish();
}

#[test]
fn after_a_half_close_the_peers_data_is_still_taken() {
    let mut solo = Solo::plain();
    solo.host.shutdown();
    solo.host.out_one();
    solo.get(ACK, b"in fin-wait-1");
    assert_eq!(solo.host.recv_all(), b"in fin-wait-1");
    solo.get_ack(1);
    solo.get(ACK, b"in fin-wait-2");
    assert_eq!(solo.host.recv_all(), b"in fin-wait-2");
    assert_eq!(solo.host.conn().deadline(), Instant::NEVER, "a half-close may last");
    solo.host.finish();
}

#[test]
fn a_close_with_unread_data_is_an_rst() {
    // RFC 2525, 2.17; SHLD-3.
    let mut solo = Solo::plain();
    solo.get(ACK, b"nobody reads this");
    solo.host.out_one();
    let d = solo.host.with(|c, e| c.close(e));
    assert_eq!(d.events, Events::CLOSED);
    assert_eq!(solo.host.conn().held_frames(), 0);
    let packets: Vec<_> = core::iter::from_fn(|| solo.host.tx.pop()).collect();
    let rst = open(solo.host.pool.tx_bytes(&packets[0])).seg;
    assert_eq!((rst.flags, rst.seq), (RST | ACK, ISS.wrapping_add(1)));
    for desc in packets {
        solo.host.pool.complete(desc.index());
    }
    solo.host.finish();
}

#[test]
fn data_after_close_is_answered_with_an_rst() {
    let mut solo = Solo::plain();
    solo.host.close();
    solo.host.out_one();
    solo.get_ack(1);
    solo.get(ACK, b"too late");
    assert_eq!(solo.host.state(), State::Closed);
    let desc = solo.host.tx.pop().unwrap();
    assert_eq!(open(solo.host.pool.tx_bytes(&desc)).seg.flags, RST | ACK);
    solo.host.pool.complete(desc.index());
    assert_eq!(solo.host.counters.dropped(DropReason::TcpOldDataAfterClose), 1);
    solo.host.finish();
}

#[test]
fn fin_wait_2_ends_by_itself_once_the_program_is_gone() {
    let mut solo = Solo::plain();
    solo.host.close();
    solo.host.out_one();
    solo.get_ack(1);
    assert_eq!(solo.host.conn().deadline(), solo.host.now + solo.host.config.fin_wait_2);
    solo.host.advance(solo.host.config.fin_wait_2);
    assert_eq!(solo.host.state(), State::Closed);
    solo.host.finish();

    // The same where the half-close came before.
    let mut solo = Solo::plain();
    solo.host.shutdown();
    solo.host.out_one();
    solo.get_ack(1);
    solo.host.close();
    assert_eq!(solo.host.conn().deadline(), solo.host.now + solo.host.config.fin_wait_2);
    solo.host.finish();
}

#[test]
fn a_fin_sent_again_in_time_wait_is_acknowledged_and_starts_the_time_anew() {
    let mut solo = Solo::plain();
    solo.host.close();
    solo.host.out_one();
    solo.get_ack(1);
    solo.get(ACK | FIN, b"");
    solo.host.out_one();
    solo.host.advance(Duration::from_secs(30));
    solo.get_at(-1, ACK | FIN, b"");
    assert_eq!(solo.host.out_one().seg.ack, IRS.wrapping_add(2));
    assert_eq!(solo.host.conn().deadline(), solo.host.now + solo.host.config.time_wait);
    // RFC 1337: an RST does not end it.
    solo.get_at(0, RST, b"");
    assert_eq!(solo.host.state(), State::TimeWait);
    let entry = solo.host.conn().time_wait(solo.host.now, &solo.host.config);
    assert_eq!(entry.expires(solo.host.now), solo.host.now + solo.host.config.time_wait);
    solo.host.finish();
}

#[test]
fn a_fin_ahead_of_a_gap_waits() {
    let mut solo = Solo::modern();
    solo.get_at(5, ACK | FIN, b"world");
    assert_eq!(solo.host.state(), State::Established);
    solo.host.out_one();
    // The text again without the FIN, then what was missing.
    solo.get_at(0, ACK, b"hello");
    assert_eq!(solo.host.state(), State::CloseWait);
    assert_eq!(solo.host.out_one().seg.ack, IRS.wrapping_add(12));
    assert_eq!(solo.host.recv_all(), b"helloworld");
    solo.host.finish();

    let mut solo = Solo::plain();
    solo.get_at(5, ACK | FIN, b"");
    solo.get_at(0, ACK, b"hello");
    assert_eq!(solo.host.state(), State::CloseWait);
    assert_eq!(solo.host.recv_all(), b"hello");
    solo.host.finish();
}

#[test]
fn an_abort_sends_an_rst_and_drops_everything() {
    let mut solo = Solo::plain();
    solo.host.send(&pattern(5000));
    solo.host.out();
    let d = solo.host.with(|c, e| c.abort(e));
    assert_eq!(d.events, Events::CLOSED);
    let desc = solo.host.tx.pop().unwrap();
    let rst = open(solo.host.pool.tx_bytes(&desc)).seg;
    assert_eq!((rst.flags, rst.seq), (RST | ACK, ISS.wrapping_add(5001)));
    solo.host.pool.complete(desc.index());
    assert_eq!(solo.host.conn().held_frames(), 0);
    let ready = solo.host.conn().readiness();
    assert!(ready.contains(Readiness::IN | Readiness::OUT | Readiness::HUP | Readiness::RDHUP));
    solo.host.finish();
}

#[test]
fn closing_before_the_handshake_is_over() {
    let mut host = Host::new(Config::default(), 1);
    let options = host.config.options.clone();
    let t = template("10.0.0.2:4000", "10.0.0.1:80");
    host.conn = Some(Connection::connect(&mut host.env(), t, &options, initial(ISS), 1500));
    host.out_one();
    host.close();
    assert_eq!(host.state(), State::Closed);
    host.silent();
    host.finish();

    // In SYN-RECEIVED the FIN follows the handshake.
    let (mut solo, _) = Solo::syn_received(Config::default(), PLAIN);
    solo.host.close();
    solo.host.silent();
    solo.get(ACK, b"");
    assert_eq!(solo.host.state(), State::FinWait1);
    assert_eq!(solo.host.out_one().seg.flags, FIN | ACK);
    solo.host.finish();
}

#[test]
fn both_sides_close_at_any_moment_over_a_bad_wire() {
    for seed in 0..60u64 {
        let mut pair = Pair::open(Config::default());
        let mut rng = Rng::new(seed);
        let mut chance = Rng::new(seed + 999);
        pair.fate = Box::new(move |_, _| match chance.below(10) {
            0..3 => Fate::Drop,
            3 => Fate::Twice,
            4 => Fate::Late(ms(chance.below(40).into())),
            _ => Fate::Pass,
        });
        pair.a.send(&pattern(3000));
        pair.run(ms(rng.below(60).into()));
        pair.b.shutdown();
        pair.run(ms(rng.below(60).into()));
        pair.a.shutdown();
        pair.run(Duration::from_secs(59));
        let over = |h: &Host| matches!(h.state(), State::TimeWait | State::Closed);
        assert!(over(&pair.a) && over(&pair.b), "seed {seed}");
        assert!(pair.got_b == pattern(3000), "seed {seed}");
        pair.run(Duration::from_secs(200));
        assert_eq!((pair.a.state(), pair.b.state()), (State::Closed, State::Closed));
        pair.finish();
    }
}
