//! RFC 5961, RFC 1337 and RFC 6191 on a whole stack; segments that no TCP sends;
//! answers that could be made to go round for ever.

use super::bed::*;
use ringroad::socket::linux::*;
use ringroad::telemetry::DropReason;
use ringroad::wire::tcp::{Flags, Options, Segment};
use ringroad::wire::{icmpv4, ipv4};
use zerocopy::IntoBytes;

/// Sends `segment` so often, a millisecond apart, and counts the answers.
fn answers(b: &mut Bed, segment: &Segment, payload: &[u8], times: u32) -> usize {
    let mut count = 0;
    for _ in 0..times {
        b.put(segment, payload);
        count += b.take().len();
        b.now += ms(1);
    }
    count
}

#[test]
fn a_reset_counts_at_the_next_number_alone() {
    let mut b = Bed::new(|_| ());
    let c = b.open(4000, Options::default());
    // Every place of the window but the first, and out of it.
    for offset in [1, 2, 1000, 40_000, 65_534] {
        b.put(&Segment { seq: c.seq + offset, ..c.seg(RST) }, b"");
        let answer = b.one().seg;
        assert_eq!((answer.flags, answer.seq, answer.ack), (ACK, c.ack, c.seq), "{offset}");
    }
    for offset in [-1i32, -1000, 70_000, i32::MAX] {
        b.put(&Segment { seq: c.seq.wrapping_add_signed(offset), ..c.seg(RST) }, b"");
        b.silent();
    }
    assert_eq!(b.connections(), 1);
    b.put(&c.seg(RST), b"");
    assert!(b.sockets.recv(c.h, &mut [0; 8], 0).is_err());
}

#[test]
fn a_syn_is_challenged_whatever_its_number_and_its_time() {
    let mut b = Bed::new(|_| ());
    let c = b.open(4000, modern(1000));
    for (seq, time) in [(c.seq, Some(1001)), (c.seq + 500, Some(1)), (5, None), (c.seq - 1, Some(900))] {
        let options = Options { timestamp: time.map(|t| (t, 0)), ..modern(0) };
        b.put(&Segment { seq, options, ..c.seg(SYN) }, b"");
        let answer = b.one().seg;
        assert_eq!((answer.flags, answer.ack), (ACK, c.seq), "{seq} {time:?}");
    }
    // And with an ACK: the last ACK of the handshake was lost.
    b.put(&Segment { seq: c.seq - 1, ..c.seg(SYN | ACK) }, b"");
    assert_eq!(b.one().seg.ack, c.seq);
    assert_eq!(b.connections(), 1);
    b.put(&c.seg(ACK), b"still here");
    assert_eq!(b.sockets.bytes_readable(c.h), Ok(10));
}

#[test]
fn data_with_an_acknowledgment_that_cannot_be_is_not_taken() {
    let mut b = Bed::new(|_| ());
    let mut c = b.open(4000, Options::default());
    b.sockets.send(c.h, &[1; 1000], 0).unwrap();
    b.take();
    let beyond = c.ack + 1001;
    let ancient = c.ack.wrapping_sub(60_001);
    for ack in [beyond, ancient, c.ack.wrapping_add(1 << 31)] {
        b.put(&Segment { ack, ..c.seg(ACK) }, b"injected");
        let answer = b.one().seg;
        assert_eq!((answer.flags, answer.ack), (ACK, c.seq), "{ack}");
    }
    assert_eq!(b.sockets.bytes_readable(c.h), Ok(0));
    // The oldest that can be still counts.
    c.ack = c.ack.wrapping_sub(60_000);
    b.put(&c.seg(ACK), b"old");
    assert_eq!(b.sockets.bytes_readable(c.h), Ok(3));
}

/// What is not taken in leaves no trace: a timestamp that a stranger made would
/// make all of the peer's own old.
#[test]
fn a_segment_that_does_not_count_sets_no_timestamp() {
    let mut b = Bed::new(|_| ());
    let mut c = b.open(4000, modern(5000));
    b.put(&c.seg(ACK), b"0123456789");
    b.take();
    c.seq += 10;
    b.sockets.send(c.h, &[1; 100], 0).unwrap();
    b.take();
    let future = Options { timestamp: Some((0x4000_0000, 0)), ..Default::default() };
    for (flags, ack) in [
        (ACK, c.ack.wrapping_sub(1 << 30)),
        (ACK, c.ack.wrapping_add(101)),
        (RST, 0),
        (RST | ACK, c.ack),
    ] {
        // It begins before the window and reaches into it.
        let forged = Segment { seq: c.seq - 5, options: future.clone(), ..c.seg(flags) };
        b.put(&Segment { ack, ..forged }, b"injected");
        b.take();
        b.put(&c.seg(ACK), b"own");
        c.seq += 3;
        assert_eq!(b.one().seg.ack, c.seq, "{flags:?} {ack}");
        assert_eq!(b.dropped(DropReason::TcpPaws), 0);
    }
}

/// Nothing that comes in is lost without a word in the counters.
#[test]
fn what_a_listener_has_no_connection_for_is_counted() {
    let mut b = Bed::new(|_| ());
    for (flags, answered) in [(ACK, 1), (SYN | ACK, 1), (RST | ACK, 0), (ACK | FIN, 1)] {
        let before = b.dropped(DropReason::TcpNoSocket);
        b.put(&seg(flags, 5, 7), b"");
        assert_eq!(b.take().len(), answered);
        assert_eq!(b.dropped(DropReason::TcpNoSocket), before + 1, "{flags:?}");
    }
}

/// CVE-2016-5696: what one connection answers says nothing of another, and how
/// much it answers differs from second to second.
#[test]
fn challenges_are_counted_for_each_connection_and_nobody_can_count_on_them() {
    let mut b = Bed::new(|_| ());
    let (victim, own) = (b.open(4000, Options::default()), b.open(4001, Options::default()));
    let mut counts = std::collections::BTreeSet::new();
    for _ in 0..12 {
        // From the beginning of a second on.
        b.wait(ms(1000 - b.now.as_nanos() / 1_000_000 % 1000));
        let probe = Segment { seq: own.seq + 1, ..own.seg(RST) };
        let before = answers(&mut b, &probe, b"", 100);
        assert!((5..15).contains(&before), "{before}");
        counts.insert(before);
        // The attacker's own are used up; the victim's are not.
        let probe = Segment { seq: victim.seq + 1, ..victim.seg(RST) };
        assert!(answers(&mut b, &probe, b"", 3) == 3);
    }
    assert!(counts.len() >= 4, "{counts:?}");
}

#[test]
fn two_ends_that_disagree_do_not_acknowledge_each_other_for_ever() {
    // Each state answers an empty segment out of place twice a second at most.
    let mut b = Bed::new(|_| ());
    let limited = |b: &mut Bed, segment: &Segment, what: &str| {
        b.wait(secs(2));
        let n = answers(b, segment, b"", 900);
        assert!((1..=2).contains(&n), "{what}: {n}");
    };
    let c = b.open(4000, Options::default());
    limited(&mut b, &Segment { seq: c.seq - 1, ..c.seg(ACK) }, "ESTABLISHED, old");
    limited(&mut b, &Segment { seq: c.seq + 100_000, ..c.seg(ACK) }, "ESTABLISHED, ahead");
    b.sockets.shutdown(c.h, SHUT_WR).unwrap();
    b.take();
    limited(&mut b, &Segment { seq: c.seq - 1, ..c.seg(ACK) }, "FIN-WAIT-1");
    let fin = Conn { ack: c.ack + 1, ..c.clone() };
    b.put(&fin.seg(ACK), b"");
    limited(&mut b, &Segment { seq: c.seq - 1, ..fin.seg(ACK) }, "FIN-WAIT-2");
    b.put(&fin.seg(FIN | ACK), b"");
    b.take();
    assert_eq!(b.sockets.stack.tcp.waiting(), 1);
    limited(&mut b, &Segment { seq: c.seq - 1, ..fin.seg(ACK) }, "TIME-WAIT");
    limited(&mut b, &Segment { seq: c.seq - 9, ..fin.seg(SYN) }, "TIME-WAIT, an old SYN");
    // Old by its timestamp.
    let c = b.open(4001, modern(5000));
    let options = Options { timestamp: Some((4000, 0)), ..Default::default() };
    limited(&mut b, &Segment { options, ..c.seg(ACK) }, "PAWS");
    b.put(&c.seg(FIN | ACK), b"");
    b.take();
    let half_closed = Conn { seq: c.seq + 1, ..c };
    limited(&mut b, &Segment { seq: c.seq - 9, ..half_closed.seg(ACK) }, "CLOSE-WAIT");
    // A SYN that comes again and again has its answer twice a second.
    b.wait(secs(1));
    let syn = Segment { src_port: 4002, ..seg(SYN, 77, 0) };
    b.put(&syn, b"");
    b.take();
    let n = answers(&mut b, &syn, b"", 900);
    assert!((1..=2).contains(&n), "SYN-RECEIVED: {n}");
}

#[test]
fn segments_that_no_tcp_sends_are_dropped_wherever_they_come() {
    let mut b = Bed::new(|_| ());
    let c = b.open(4000, Options::default());
    b.handshake(4001, Options::default());
    let urg = Flags::URG;
    let bad = [
        Flags::empty(),
        FIN,
        PSH,
        urg,
        FIN | PSH | urg,
        SYN | FIN,
        SYN | FIN | ACK,
        SYN | RST,
        SYN | RST | ACK,
        SYN | FIN | RST | PSH | ACK | urg,
        FIN | RST,
    ];
    let mut count = 0;
    for flags in bad {
        // To a connection at the number that counts, to a listener, to nobody.
        for segment in [
            c.seg(flags),
            Segment { src_port: 5000, ..seg(flags, 1, 0) },
            Segment { dst_port: 81, ..seg(flags, 1, 0) },
        ] {
            b.put(&segment, b"");
            b.silent();
            count += 1;
        }
    }
    assert_eq!(b.dropped(DropReason::TcpBadFlags), count);
    for (src_port, dst_port) in [(0, PORT), (4000, 0), (0, 0)] {
        b.put(&Segment { src_port, dst_port, ..seg(SYN, 1, 0) }, b"");
        b.silent();
    }
    assert_eq!((b.dropped(DropReason::TcpMalformed), b.connections()), (3, 2));
}

#[test]
fn land_and_martians_do_not_come_in() {
    let mut b = Bed::new(|_| ());
    // A SYN from ourselves to ourselves.
    b.put_from(OURS, &Segment { src_port: PORT, ..seg(SYN, 1, 0) }, b"");
    let strange = [[0, 0, 0, 0], [127, 0, 0, 1], [224, 0, 0, 1], [240, 0, 0, 1], [255; 4], [10, 0, 0, 255]];
    for src in strange {
        b.put_from(src.into(), &seg(SYN, 1, 0), b"");
    }
    b.silent();
    assert_eq!(b.dropped(DropReason::Ipv4Martian), 7);
    assert_eq!(b.connections(), 0);
}

#[test]
fn a_source_quench_and_a_redirect_change_nothing() {
    let mut b = Bed::new(|_| ());
    let c = b.open(4000, Options::default());
    b.sockets.send(c.h, &[1; 20_000], 0).unwrap();
    let sent = b.take();
    let window = b.window(c.h);
    // As a router would quote it: our header and eight bytes.
    let quoted = ipv4::Header::new(OURS, PEER, ipv4::TCP, 1000, 64, 0, 7, 0);
    let mut body = quoted.as_bytes().to_vec();
    body.extend(PORT.to_be_bytes());
    body.extend(4000u16.to_be_bytes());
    body.extend(sent[0].seg.seq.to_be_bytes());
    for (kind, count) in [(4, 1), (5, 2)] {
        let mut out = [0; 64];
        let len = icmpv4::build(&mut out, kind, 0, 0, 0, &body);
        let h = ipv4::Header::new(PEER, OURS, ipv4::ICMP, len, 64, 0, 7, 0);
        b.packet(&[h.as_bytes(), &out[..len]].concat());
        assert_eq!(b.dropped(DropReason::IcmpIgnored), count);
    }
    b.silent();
    assert_eq!(b.window(c.h), window);
}

/// An entry in TIME-WAIT, from a connection that began with `options`.
fn time_wait(b: &mut Bed, options: Options) -> Conn {
    let c = b.open(4000, options);
    b.sockets.close(c.h).unwrap();
    b.take();
    let c = Conn { ack: c.ack.wrapping_add(1), ..c };
    b.put(&c.seg(FIN | ACK), b"");
    b.take();
    assert_eq!((b.connections(), b.sockets.stack.tcp.waiting()), (0, 1));
    Conn { seq: c.seq + 1, ..c }
}

#[test]
fn time_wait_is_not_assassinated() {
    let mut b = Bed::new(|_| ());
    let c = time_wait(&mut b, Options::default());
    for seq in [c.seq, c.seq + 1, c.seq - 1] {
        b.put(&Segment { seq, ..c.seg(RST) }, b"");
        b.silent();
    }
    // RFC 1337's figure 1: an old duplicate's answer, and the RST that it causes.
    b.put(&Segment { seq: c.seq - 500, ..c.seg(ACK) }, b"old");
    assert_eq!(b.one().seg.ack, c.seq);
    b.put(&Segment { seq: c.seq, ..c.seg(RST) }, b"");
    assert_eq!(b.sockets.stack.tcp.waiting(), 1);
}

#[test]
fn time_wait_gives_way_to_a_newer_connection_by_time_or_by_number() {
    let with = |time: Option<u32>| Options { timestamp: time.map(|t| (t, 0)), ..modern(0) };
    // Timestamp of the SYN, its number behind or ahead: reopened or not.
    for (old, new, ahead, reopened) in [
        (Some(1000), Some(1001), false, true),
        (Some(1000), Some(1000), true, true),
        (Some(1000), Some(1000), false, false),
        (Some(1000), Some(999), true, false),
        (Some(1000), None, true, true),
        (None, None, true, true),
        (None, None, false, false),
        (None, Some(7), true, true),
    ] {
        let mut b = Bed::new(|_| ());
        let c = time_wait(&mut b, with(old));
        let seq = if ahead { c.seq + 1 } else { c.seq - 100 };
        let syn = Segment { src_port: 4000, options: with(new), ..seg(SYN, seq, 0) };
        b.put(&syn, b"");
        let answer = b.one().seg;
        let what = format!("{old:?} {new:?} {ahead}");
        assert_eq!(answer.flags, if reopened { SYN | ACK } else { ACK }, "{what}");
        assert_eq!(b.sockets.stack.tcp.waiting(), usize::from(!reopened), "{what}");
        // The new one's numbers come after the old one's.
        assert!(!reopened || (answer.seq.wrapping_sub(c.ack) as i32) > 0, "{what}");
    }
}

#[test]
fn a_listener_without_room_leaves_time_wait_alone() {
    let mut b = Bed::new(|_| ());
    let c = time_wait(&mut b, Options::default());
    b.sockets.listen(b.listener, 0).unwrap();
    b.handshake(4001, Options::default());
    b.take();
    b.put(&Segment { src_port: 4000, ..seg(SYN, c.seq + 1, 0) }, b"");
    assert_eq!(b.one().seg.flags, ACK);
    assert_eq!(b.sockets.stack.tcp.waiting(), 1);
}
