//! Peers that make us keep things: for them, and in place of others.

use super::bed::*;
use ringroad::errno::Errno;
use ringroad::socket::linux::*;
use ringroad::telemetry::DropReason;
use ringroad::wire::tcp::{Options, Segment};

fn free(b: &Bed) -> u32 {
    b.sockets.stack.core.pool.available()
}

/// Connections whose peers shut their windows for good, until there are no frames
/// for the programs' data. Returns them.
fn sockstress(b: &mut Bed) -> Vec<Conn> {
    let mut all = Vec::new();
    b.sockets.listen(b.listener, 100).unwrap();
    for port in 5000..5030 {
        let c = b.open(port, Options::default());
        b.put(&Segment { window: 0, ..c.seg(ACK) }, b"GET");
        let _ = b.sockets.send(c.h, &[1; 60_000], 0);
        b.take();
        b.wait(ms(100));
        all.push(c);
    }
    all
}

/// The probe of the peer's shut window is answered: it is still shut.
fn answer_probes(b: &mut Bed, all: &[Conn], time: ringroad::time::Duration) {
    let end = b.now + time;
    while b.now < end {
        for out in b.wait(ms(100)) {
            let c = all.iter().find(|c| c.port == out.seg.dst_port);
            if let Some(c) = c.filter(|_| out.seg.flags.contains(ACK) && !out.seg.flags.contains(RST)) {
                b.put(&Segment { window: 0, seq: c.seq + 3, ..c.seg(ACK) }, b"");
            }
        }
    }
}

#[test]
fn stalled_connections_go_when_memory_is_short_and_the_oldest_first() {
    let mut b = Bed::with_frames(1024, |_| ());
    let all = sockstress(&mut b);
    assert!(free(&b) < 256, "memory is short: {}", free(&b));
    answer_probes(&mut b, &all, secs(20));
    let ended = b.counters().tcp_stalled_ended as usize;
    assert!(ended > 0 && ended < all.len(), "{ended}");
    assert!(free(&b) >= 256, "{}", free(&b));
    for (i, c) in all.iter().enumerate() {
        let result = b.sockets.send(c.h, b"x", 0);
        assert_eq!(result == Err(Errno::ECONNABORTED), i < ended, "{i} of {ended}: {result:?}");
    }
    // Somebody else is served.
    let c = b.open(4000, Options::default());
    assert_eq!(b.sockets.send(c.h, &[1; 10_000], 0), Ok(10_000));
}

#[test]
fn while_there_is_memory_a_shut_window_may_last() {
    let mut b = Bed::with_frames(8192, |_| ());
    let all = sockstress(&mut b);
    answer_probes(&mut b, &all, secs(300));
    assert_eq!((b.counters().tcp_stalled_ended, b.connections()), (0, all.len()));
}

#[test]
fn a_peer_that_takes_something_is_not_stalled() {
    let mut b = Bed::with_frames(1024, |_| ());
    let all = sockstress(&mut b);
    // The oldest takes a segment: it is behind the others now.
    let first = &all[0];
    let opened = Segment { seq: first.seq + 3, window: 2000, ..first.seg(ACK) };
    b.put(&opened, b"");
    let got: u32 = b.take().iter().filter(|o| o.seg.dst_port == 5000).map(|o| o.data.len() as u32).sum();
    assert!(got > 0);
    let ack = first.ack.wrapping_add(got);
    b.put(&Segment { ack, seq: first.seq + 3, window: 0, ..first.seg(ACK) }, b"");
    let rest: Vec<_> = all[1..].to_vec();
    answer_probes(&mut b, &rest, secs(11));
    assert!(b.counters().tcp_stalled_ended > 0);
    assert!(b.sockets.readiness(first.h).bits() & EPOLLERR == 0, "the first lives");
}

#[test]
fn closed_connections_that_do_not_end_are_bounded() {
    let mut b = Bed::new(|c| c.table.max_orphans = 3);
    b.sockets.listen(b.listener, 100).unwrap();
    let mut resets = 0;
    for port in 5000..5010 {
        let c = b.open(port, Options::default());
        b.sockets.close(c.h).unwrap();
        resets += b.take().iter().filter(|o| o.seg.flags.contains(RST)).count();
    }
    assert_eq!((resets, b.connections(), b.counters().tcp_orphans_reset), (7, 3, 7));
    // Ones that end make room.
    b.wait(secs(400));
    assert_eq!(b.connections(), 0);
    let c = b.open(6000, Options::default());
    b.sockets.close(c.h).unwrap();
    assert_eq!(b.one().seg.flags, FIN | ACK);
}

#[test]
fn fin_wait_2_of_a_closed_socket_ends() {
    let mut b = Bed::new(|_| ());
    let c = b.open(4000, Options::default());
    b.sockets.close(c.h).unwrap();
    b.take();
    b.put(&Segment { ack: c.ack + 1, ..c.seg(ACK) }, b"");
    b.wait(secs(59));
    assert_eq!(b.connections(), 1);
    b.wait(secs(2));
    assert_eq!(b.connections(), 0);
}

/// CVE-2018-5390, through the whole stack: what a peer can pin is bounded by twice
/// the receive buffer, and the stream still arrives.
#[test]
fn tiny_segments_ahead_of_a_gap_pin_no_more_than_the_bound() {
    for step in [2u32, 7] {
        let mut b = Bed::with_frames(4096, |_| ());
        let c = b.open(4000, modern(1));
        let before = free(&b);
        for i in (0..20_000u32).rev() {
            let at = c.seq + 1 + i * step;
            b.put(&Segment { seq: at, ..c.seg(ACK) }, &[at as u8]);
            b.take();
        }
        let pinned = before - free(&b);
        assert!(pinned <= 2 * 262_144 / 2048, "{pinned} frames");
        assert!(b.dropped(DropReason::TcpOutOfOrderFull) > 0);
        // All of it again, in order: what was kept fits in, what was not is new.
        let mut got = Vec::new();
        let mut buf = [0; 65_536];
        let mut at = c.seq;
        while got.len() < 20_000 {
            let data: Vec<u8> = (at..at + 1000).map(|n| n as u8).collect();
            b.put(&Segment { seq: at, ..c.seg(ACK) }, &data);
            at = b.wait(ms(50)).pop().unwrap().seg.ack;
            while let Ok(n) = b.sockets.recv(c.h, &mut buf, 0) {
                got.extend_from_slice(&buf[..n]);
            }
        }
        let expected: Vec<u8> = (0..got.len() as u32).map(|i| (c.seq + i) as u8).collect();
        assert!(got == expected);
    }
}

/// Segments of few bytes in a row behind one gap share frames.
#[test]
fn tiny_segments_in_a_row_are_kept_together() {
    let mut b = Bed::with_frames(4096, |_| ());
    let c = b.open(4000, modern(1));
    let before = free(&b);
    for i in 0..5000u32 {
        let at = c.seq + 1 + i * 4;
        b.put(&Segment { seq: at, ..c.seg(ACK) }, &[1; 4]);
        b.take();
    }
    assert!(before - free(&b) <= 12, "{} frames for 20,000 bytes", before - free(&b));
    b.put(&c.seg(ACK), b"!");
    assert_eq!(b.sockets.bytes_readable(c.h), Ok(20_001));
}

/// CVE-2019-11479: a peer that asks for segments of one byte gets the least size.
#[test]
fn a_tiny_segment_size_is_not_believed() {
    for (asked, options, least) in [(1, 0, 48), (8, 12, 36), (0, 0, 48), (47, 0, 48), (100, 0, 100)] {
        let mut b = Bed::new(|_| ());
        let time = (options > 0).then_some((1, 0));
        let c = b.open(4000, Options { mss: Some(asked), timestamp: time, ..Default::default() });
        b.sockets.send(c.h, &[1; 5000], 0).unwrap();
        let sizes: Vec<_> = b.take().iter().map(|o| o.data.len()).collect();
        assert!(sizes.len() > 1 && sizes.iter().all(|n| *n == least), "{asked}: {sizes:?}");
    }
    let mut b = Bed::new(|c| c.tcp.min_mss = 500);
    let c = b.open(4000, Options { mss: Some(1), ..Default::default() });
    b.sockets.send(c.h, &[1; 5000], 0).unwrap();
    assert_eq!(b.take()[0].data.len(), 500);
}

/// CVE-2019-11478's cousin: a window that opens byte by byte does not cut what
/// waits into as many pieces.
#[test]
fn a_window_opened_byte_by_byte_does_not_cut_the_queue_to_pieces() {
    let mut b = Bed::new(|_| ());
    let c = b.open(4000, Options { mss: Some(1000), ..Default::default() });
    b.put(&Segment { window: 1, ..c.seg(ACK) }, b"");
    b.sockets.send(c.h, &[1; 100_000], 0).unwrap();
    b.take();
    let before = b.sockets.stack.tcp.held_frames();
    for window in 1..4000 {
        b.put(&Segment { window, ..c.seg(ACK) }, b"");
        b.take();
    }
    let after = b.sockets.stack.tcp.held_frames();
    assert!(after <= before + 20, "{before} pieces became {after}");
}
