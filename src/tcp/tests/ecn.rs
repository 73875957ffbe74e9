//! Explicit congestion notification (RFC 3168) and DCTCP's echo (RFC 8257).

use super::*;

const ECE: Flags = Flags::ECE;
const CWR: Flags = Flags::CWR;
const ECT: u8 = 2;

fn config(ecn: EcnMode) -> Config {
    Config { ecn, ..Config::default() }
}

fn has_ecn(host: &Host) -> bool {
    host.conn().info(host.now, &host.config).ecn
}

/// A connection that opened actively, with what the peer's SYN-ACK says.
fn opened(config: Config, answer: Flags) -> (Solo, Out) {
    opened_with(config, answer, false)
}

fn opened_with(config: Config, answer: Flags, sack: bool) -> (Solo, Out) {
    let mut host = Host::new(config, 1);
    let options = host.config.options.clone();
    let t = template("10.0.0.1:80", "10.0.0.2:4000");
    let conn = Connection::connect(&mut host.env(), t, &options, initial(ISS), 1500);
    host.conn = Some(conn);
    let syn = host.out_one();
    let ack = ISS.wrapping_add(1);
    let (seq, window) = (IRS.wrapping_add(1), 60_000);
    let mut solo = Solo { host, seq, ack, window, time: None, echo: 0 };
    let options = Options { mss: Some(1000), sack_permitted: sack, ..Options::default() };
    let seg = segment(SYN | ACK | answer, IRS, ack, window, options, 0);
    solo.host.input(&seg, &[]);
    solo.host.out_one();
    (solo, syn)
}

impl Solo {
    /// The peer's next segment arrives, marked by the path or not.
    fn get_marked(&mut self, flags: Flags, data: &[u8], ce: bool) {
        let seg = segment(flags, self.seq, self.ack, self.window, self.options(), data.len());
        self.seq = self.seq.wrapping_add(seg.seq_len());
        self.host.input(&Segment { ce, ..seg }, data);
    }

    /// What the peer acknowledged last, relative to the first byte.
    fn rel_ack(&self) -> u32 {
        self.ack.wrapping_sub(ISS.wrapping_add(1))
    }

    fn window_segments(&self) -> u32 {
        self.host.conn().info(self.host.now, &self.host.config).snd_cwnd
    }
}

#[test]
fn it_is_granted_to_who_asks_and_asked_for_where_that_is_set() {
    use EcnMode::{Accept, Off, Request};
    for (a, b, on) in [
        (Request, Accept, true),
        (Request, Request, true),
        (Request, Off, false),
        (Accept, Accept, false),
        (Off, Request, false),
    ] {
        let mut pair = Pair::new(config(a), config(b));
        pair.run(ms(100));
        assert_eq!((has_ecn(&pair.a), has_ecn(&pair.b)), (on, on), "{a:?} {b:?}");
        pair.finish();
    }
}

#[test]
fn dctcp_asks_whatever_is_set() {
    let mut both = config(EcnMode::Off);
    both.options.congestion = Algorithm::Dctcp;
    let pair = Pair::open(both);
    assert!(has_ecn(&pair.a) && has_ecn(&pair.b));
    pair.finish();
}

#[test]
fn a_syn_that_goes_again_does_not_ask() {
    let mut host = Host::new(config(EcnMode::Request), 1);
    let options = host.config.options.clone();
    let t = template("10.0.0.1:80", "10.0.0.2:4000");
    host.conn = Some(Connection::connect(&mut host.env(), t, &options, initial(ISS), 1500));
    let first = host.out_one();
    assert_eq!((first.seg.flags, first.tos & 3), (SYN | ECE | CWR, 0));
    host.advance(Duration::from_secs(2));
    assert_eq!(host.out_one().seg.flags, SYN);
    // The late answer to the first does not count either.
    let answer = segment(SYN | ACK | ECE, IRS, ISS.wrapping_add(1), 60_000, Options::default(), 0);
    host.input(&answer, &[]);
    assert!(host.state() == State::Established && !has_ecn(&host));
    host.out();
    host.finish();
}

#[test]
fn an_answer_that_reflects_both_flags_grants_nothing() {
    // RFC 3168, 6.1.1: some send back what they got.
    let (solo, _) = opened(config(EcnMode::Request), ECE | CWR);
    assert!(!has_ecn(&solo.host));
    solo.host.finish();
    let (solo, syn) = opened(config(EcnMode::Request), ECE);
    assert!(has_ecn(&solo.host));
    assert_eq!(syn.tos & 3, 0);
    solo.host.finish();
}

#[test]
fn only_new_data_is_sent_as_ecn_capable() {
    let (mut solo, _) = opened(config(EcnMode::Request), ECE);
    solo.host.send(&pattern(1000));
    assert_eq!(solo.host.out_one().tos & 3, ECT);
    // Sent again.
    solo.host.advance(Duration::from_secs(5));
    let again = solo.host.out_one();
    assert_eq!((again.len(), again.tos & 3), (1000, 0));
    solo.get_ack(1000);
    solo.get(ACK | PSH, &pattern(1000));
    solo.get(ACK | PSH, &pattern(1000));
    let ack = solo.host.out_one();
    assert_eq!((ack.len(), ack.tos & 3), (0, 0), "a pure ACK");
    // A probe of a shut window.
    solo.window = 0;
    solo.get(ACK, b"");
    solo.host.send(&pattern(1000));
    solo.host.silent();
    solo.host.advance(Duration::from_secs(5));
    let probe = solo.host.out_one();
    assert_eq!((probe.len(), probe.tos & 3), (1, 0));
    solo.host.finish();
}

#[test]
fn without_it_nothing_is_marked_and_nothing_taken() {
    let mut solo = Solo::plain();
    solo.host.send(&pattern(5000));
    assert!(solo.host.out().iter().all(|o| o.tos & 3 == 0));
    solo.get_marked(ACK | ECE, &pattern(1000), true);
    assert_eq!(solo.window_segments(), 10);
    solo.host.advance(ms(100));
    assert_eq!(solo.host.out_one().seg.flags, ACK);
    solo.host.finish();
}

#[test]
fn a_mark_is_echoed_until_the_peer_says_that_it_slowed_down() {
    let (mut solo, _) = opened(config(EcnMode::Request), ECE);
    solo.get_marked(ACK | PSH, &pattern(1000), true);
    solo.host.advance(ms(100));
    assert_eq!(solo.host.out_one().seg.flags, ACK | ECE);
    solo.get_marked(ACK | PSH, &pattern(1000), false);
    solo.host.advance(ms(100));
    assert_eq!(solo.host.out_one().seg.flags, ACK | ECE, "still");
    // Also on data of our own.
    solo.host.send(&pattern(10));
    assert_eq!(solo.host.out_one().seg.flags, ACK | PSH | ECE);
    solo.get_ack(10);
    solo.get_marked(ACK | PSH | CWR, &pattern(1000), false);
    solo.host.advance(ms(100));
    assert_eq!(solo.host.out_one().seg.flags, ACK);
    // A segment that says so and is marked itself starts it anew.
    solo.get_marked(ACK | PSH | CWR, &pattern(1000), true);
    solo.host.advance(ms(100));
    assert_eq!(solo.host.out_one().seg.flags, ACK | ECE);
    solo.host.finish();
}

#[test]
fn an_echo_reduces_the_window_once_and_the_next_new_data_says_so() {
    let (mut solo, _) = opened(config(EcnMode::Request), ECE);
    solo.host.send(&pattern(10_000));
    assert_eq!(solo.leaving().len(), 10);
    solo.ack = solo.ack.wrapping_add(1000);
    solo.get(ACK | ECE, b"");
    assert_eq!(solo.window_segments(), 5);
    for _ in 0..8 {
        solo.ack = solo.ack.wrapping_add(1000);
        solo.get(ACK | ECE, b"");
    }
    assert!(solo.window_segments() >= 5, "once for what was under way");
    solo.host.send(&pattern(3000));
    let flags: Vec<_> = solo.host.out().iter().map(|o| o.seg.flags.contains(CWR)).collect();
    assert_eq!(flags, [true, false, false]);
    solo.get_ack(1000);
    let before = solo.window_segments();
    solo.ack = solo.ack.wrapping_add(1000);
    solo.get(ACK | ECE, b"");
    assert!(solo.window_segments() < before, "again for what was sent later");
    let info = solo.host.conn().info(solo.host.now, &solo.host.config);
    assert_eq!(info.delivered_ce, 10);
    solo.host.finish();
}

#[test]
fn dctcp_acknowledges_at_once_where_marks_begin_and_end() {
    let mut c = config(EcnMode::Off);
    c.options.congestion = Algorithm::Dctcp;
    c.quick_acks = 0;
    let (mut solo, _) = opened(c, ECE);
    solo.get_marked(ACK | PSH, &pattern(100), false);
    solo.host.silent();
    // What came unmarked is acknowledged as such, up to where the mark begins.
    solo.get_marked(ACK | PSH, &pattern(100), true);
    let acks: Vec<_> = solo.host.out().iter().map(|o| (o.seg.flags, o.seg.ack)).collect();
    let at = |n: u32| IRS.wrapping_add(1 + n);
    assert_eq!(acks[0], (ACK, at(100)));
    solo.host.advance(ms(100));
    let rest = solo.host.out();
    assert!(rest.iter().all(|o| o.seg.flags == ACK | ECE && o.seg.ack == at(200)));
    solo.get_marked(ACK | PSH, &pattern(100), true);
    solo.get_marked(ACK | PSH, &pattern(100), false);
    let acks: Vec<_> = solo.host.out().iter().map(|o| (o.seg.flags, o.seg.ack)).collect();
    assert_eq!(acks[0], (ACK | ECE, at(300)));
    solo.host.advance(ms(100));
    assert!(solo.host.out().iter().all(|o| o.seg.flags == ACK));
    solo.host.finish();
}

#[test]
fn dctcp_shrinks_by_the_share_that_is_marked() {
    let mut c = config(EcnMode::Off);
    c.options.congestion = Algorithm::Dctcp;
    c.options.send_buffer = 1 << 20;
    let (mut solo, _) = opened(c, ECE);
    // Thirty windows without a mark: alpha is about a seventh.
    for _ in 0..30 {
        solo.host.send(&pattern(20_000));
        let n = solo.leaving().len() as u32;
        if n > 0 {
            solo.get_ack(1000 * n);
        }
    }
    let before = solo.window_segments();
    solo.host.send(&pattern(20_000));
    let n = solo.leaving().len() as u32;
    solo.ack = solo.ack.wrapping_add(1000 * n);
    solo.get(ACK | ECE, b"");
    let after = solo.window_segments();
    assert!(after < before && after * 10 >= before * 9, "{before} {after}");
    solo.host.finish();
}

/// Ten segments are under way, and the first ACK tells of a mark.
fn reduced() -> Solo {
    let (mut solo, _) = opened_with(config(EcnMode::Request), ECE, true);
    solo.host.send(&pattern(10_000));
    assert_eq!(solo.leaving().len(), 10);
    solo.ack = solo.ack.wrapping_add(1000);
    solo.get(ACK | ECE, b"");
    assert_eq!(solo.window_segments(), 5);
    solo
}

#[test]
fn the_last_ack_for_what_was_under_way_still_echoes_and_reduces_nothing() {
    // The peer hears of the reduction with the first data behind it.
    let mut solo = reduced();
    for _ in 0..9 {
        solo.ack = solo.ack.wrapping_add(1000);
        solo.get(ACK | ECE, b"");
        solo.host.send(&pattern(1000));
        solo.leaving();
    }
    assert_eq!(solo.rel_ack(), 10_000);
    assert!(solo.window_segments() >= 5, "{}", solo.window_segments());
    solo.ack = solo.ack.wrapping_add(1000);
    solo.get(ACK | ECE, b"");
    assert!(solo.window_segments() < 5, "that is another mark");
    solo.host.finish();
}

#[test]
fn a_mark_counts_however_many_bytes_after_the_last() {
    let mut solo = reduced();
    solo.get_ack(9000);
    solo.host.send(&pattern(1000));
    solo.leaving();
    solo.get_ack(1000);
    assert_eq!(solo.host.conn().unacknowledged(), 0);
    // Two gigabytes and some later.
    let far = 0x9000_0000u32;
    let conn = solo.host.conn.as_mut().unwrap();
    let (h, rtt_seq) = (&mut conn.hot, &mut conn.warm.rtt_seq);
    for number in [&mut h.snd_una, &mut h.snd_nxt, &mut h.snd_end, &mut h.snd_wl2, rtt_seq] {
        *number = number.wrapping_add(far);
    }
    solo.ack = solo.ack.wrapping_add(far);
    let before = solo.window_segments();
    solo.host.send(&pattern(5000));
    assert_eq!(solo.host.out().len(), 5);
    solo.ack = solo.ack.wrapping_add(1000);
    solo.get(ACK | ECE, b"");
    assert!(solo.window_segments() < before);
    solo.host.finish();
}

/// The peer has what lies behind a missing segment, as far as `right`.
fn tell_sack(solo: &mut Solo, left: u32, right: u32) {
    let at = |n: u32| ISS.wrapping_add(1).wrapping_add(n);
    let mut options = solo.options();
    options.sack.push(SackBlock { left: at(left), right: at(right) });
    let seg = segment(ACK, solo.seq, solo.ack, solo.window, options, 0);
    solo.host.input(&seg, b"");
}

#[test]
fn marks_and_losses_of_one_window_of_data_reduce_once() {
    // RFC 3168, 6.1.2: "a series of dropped and/or CE packets from a single window".
    let mut solo = reduced();
    tell_sack(&mut solo, 2000, 6000);
    solo.leaving();
    assert_eq!(solo.host.counters.tcp_recoveries, 1);
    assert_eq!(solo.host.conn().warm.congestion.threshold(), 5000);
    solo.get_ack(9000);
    // The next window's loss does reduce.
    solo.host.send(&pattern(10_000));
    assert_eq!(solo.leaving().len(), 5);
    tell_sack(&mut solo, 11_000, 14_000);
    solo.leaving();
    assert_eq!(solo.host.counters.tcp_recoveries, 2);
    assert!(solo.host.conn().warm.congestion.threshold() < 5000);
    solo.host.finish();
}

#[test]
fn what_reduces_the_window_for_a_loss_is_told_too() {
    // RFC 3168, 6.1.2: "for any reason".
    for by_time in [false, true] {
        let (mut solo, _) = opened_with(config(EcnMode::Request), ECE, !by_time);
        solo.host.send(&pattern(10_000));
        solo.leaving();
        if by_time {
            solo.host.advance(Duration::from_secs(5));
        } else {
            tell_sack(&mut solo, 1000, 5000);
        }
        let again = solo.host.out();
        assert!(again.iter().all(|o| solo.rel(o) >= 10_000 || !o.seg.flags.contains(CWR)));
        solo.get_ack(10_000);
        solo.host.send(&pattern(2000));
        let new = solo.host.out().into_iter().find(|o| solo.rel(o) == 10_000).unwrap();
        assert!(new.seg.flags.contains(CWR), "{by_time}");
        solo.host.finish();
    }
}
