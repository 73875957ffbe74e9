//! SYN floods, and queues that are full.

use super::bed::*;
use ringroad::stack::tcp::SynCookies;
use ringroad::telemetry::DropReason;
use ringroad::wire::tcp::{Options, SackBlock, Segment};
use std::net::Ipv4Addr;

/// SYNs from addresses that will never answer.
fn flood(b: &mut Bed, count: u32) {
    for i in 0..count {
        let src = Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 0, 0, 3)) + i % 200);
        let syn = Segment { src_port: 1000 + (i / 200) as u16, options: modern(i), ..seg(SYN, i, 0) };
        b.put_from(src, &syn, b"");
        b.take();
    }
}

#[test]
fn a_syn_flood_keeps_nobody_out_and_takes_no_more_than_the_queue() {
    let mut b = Bed::new(|_| ());
    flood(&mut b, 2000);
    assert_eq!(b.connections(), 9, "the backlog and one");
    assert_eq!(b.counters().tcp_cookies_sent, 2000 - 9);
    let sent = b.counters().tcp_cookies_sent;
    let c = b.open(4000, Options { window_scale: Some(9), mss: Some(1380), ..modern(70_000) });
    assert_eq!((b.counters().tcp_cookies_sent, b.counters().tcp_cookies_taken), (sent + 1, 1));
    // All that the SYN offered came through.
    assert_eq!(b.agreed(c.h).0, 7);
    assert_eq!(b.agreed(c.h).1 & 15, 9);
    assert_eq!(b.sockets.send(c.h, &[7; 5000], 0), Ok(5000));
    let sizes: Vec<_> = b.take().iter().map(|o| o.data.len()).collect();
    assert_eq!(sizes[..2], [1380 - 12, 1380 - 12]);
    // Data ahead of a gap is told with SACK.
    b.put(&Segment { seq: c.seq + 10, ..c.seg(ACK) }, b"ahead");
    let answer = b.take().pop().unwrap().seg;
    let block = SackBlock { left: c.seq + 10, right: c.seq + 15 };
    assert_eq!(answer.options.sack[..], [block]);
    // The window of the ACK was scaled.
    assert_eq!(b.info(c.h, 228), 60_000 << 9);
}

#[test]
fn without_cookies_the_same_flood_keeps_everybody_out() {
    let mut b = Bed::new(|c| c.table.syn_cookies = SynCookies::Off);
    flood(&mut b, 2000);
    b.put(&Segment { options: modern(1), ..seg(SYN, 999, 0) }, b"");
    b.silent();
    assert_eq!(b.dropped(DropReason::TcpSynQueueFull), 2000 - 9 + 1);
}

#[test]
fn a_cookie_without_timestamps_carries_the_segment_size_alone() {
    let mut b = Bed::new(|c| c.table.syn_cookies = SynCookies::Always);
    let options = Options { timestamp: None, ..modern(0) };
    b.put(&Segment { options, ..seg(SYN, 999, 0) }, b"");
    let answer = b.one().seg;
    let o = &answer.options;
    assert_eq!((o.mss, o.window_scale, o.sack_permitted, o.timestamp), (Some(1460), None, false, None));
    assert_eq!(b.connections(), 0, "nothing is kept");
    b.put(&seg(ACK | PSH, 1000, answer.seq + 1), b"request");
    let (h, _) = b.sockets.accept(b.listener).unwrap();
    assert_eq!(b.agreed(h).0, 0);
    let mut buf = [0; 16];
    assert_eq!(b.sockets.recv(h, &mut buf, 0), Ok(7));
    b.sockets.send(h, &[1; 3000], 0).unwrap();
    assert_eq!(b.take()[0].data.len(), 1460);
}

#[test]
fn only_the_ack_of_a_cookie_opens_a_connection_and_only_in_time() {
    let mut b = Bed::new(|c| c.table.syn_cookies = SynCookies::Always);
    // While none was sent, none is looked for.
    b.put(&seg(ACK, 1000, 5), b"");
    assert_eq!(b.one().seg.flags, RST);
    assert_eq!(b.counters().tcp_cookies_refused, 0);
    b.put(&Segment { options: modern(1), ..seg(SYN, 999, 0) }, b"");
    let cookie = b.one().seg.seq;
    for wrong in [
        seg(ACK, 1000, cookie),
        seg(ACK, 1001, cookie + 1),
        Segment { src_port: 4001, ..seg(ACK, 1000, cookie + 1) },
        seg(ACK, 1000, cookie + 17),
    ] {
        b.put(&wrong, b"");
        assert_eq!(b.one().seg.flags, RST);
    }
    assert_eq!((b.counters().tcp_cookies_refused, b.connections()), (4, 0));
    b.wait(secs(127));
    b.put(&Segment { src_port: 4005, options: modern(1), ..seg(SYN, 999, 0) }, b"");
    b.take();
    b.wait(secs(2));
    b.put(&seg(ACK, 1000, cookie + 1), b"");
    assert_eq!((b.one().seg.flags, b.connections()), (RST, 0));
}

#[test]
fn an_ack_that_finds_the_accept_queue_full_is_not_heard_and_comes_again() {
    for cookies in [SynCookies::Off, SynCookies::Always] {
        let mut b = Bed::new(|c| c.table.syn_cookies = cookies);
        b.sockets.listen(b.listener, 1).unwrap();
        b.put(&Segment { src_port: 4002, options: modern(1), ..seg(SYN, 999, 0) }, b"");
        let late = b.one().seg;
        let (first, _) = (b.handshake(4000, modern(1)), b.handshake(4001, modern(1)));
        let time = Some((1, late.options.timestamp.unwrap().0));
        let c = Conn { port: 4002, ack: late.seq.wrapping_add(1), time, ..first };
        b.put(&c.seg(ACK), b"");
        b.silent();
        assert_eq!(b.dropped(DropReason::TcpAcceptQueueFull), 1);
        b.sockets.accept(b.listener).unwrap();
        b.put(&c.seg(ACK | PSH), b"hello");
        b.sockets.accept(b.listener).unwrap();
        let (h, from) = b.sockets.accept(b.listener).unwrap();
        assert_eq!((from.port(), b.sockets.bytes_readable(h)), (4002, Ok(5)));
    }
}

/// Whatever else the segment is that acknowledges our SYN: with a SYN, with a byte
/// from before the window, at the window's very end.
#[test]
fn nothing_that_ends_a_handshake_gets_past_a_full_accept_queue() {
    let mut b = Bed::new(|c| c.table.syn_cookies = SynCookies::Off);
    b.sockets.listen(b.listener, 1).unwrap();
    let mut late = Vec::new();
    for port in [4002, 4003] {
        b.put(&Segment { src_port: port, ..seg(SYN, 999, 0) }, b"");
        late.push((port, b.one().seg));
    }
    b.sockets.listen(b.listener, 8).unwrap();
    b.handshake(4000, modern(1));
    b.handshake(4001, modern(1));
    b.sockets.listen(b.listener, 1).unwrap();
    for (port, answer) in late {
        let good = Segment { src_port: port, ..seg(ACK, 1000, answer.seq.wrapping_add(1)) };
        b.put(&Segment { flags: SYN | ACK, seq: 999, ..good.clone() }, b"");
        b.put(&Segment { flags: ACK | PSH, seq: 999, ..good.clone() }, b"xy");
        b.put(&Segment { seq: 1000u32.wrapping_add(answer.window.into()), ..good.clone() }, b"");
        b.put(&Segment { flags: ACK | FIN, ..good }, b"");
    }
    assert_eq!(b.dropped(DropReason::TcpAcceptQueueFull), 8);
    assert_eq!(b.info(b.listener, 24), 2, "the bound and one");
}

#[test]
fn where_overflow_is_to_abort_the_client_hears_an_rst() {
    for cookies in [SynCookies::Off, SynCookies::Always] {
        let mut b = Bed::new(|c| {
            c.table.syn_cookies = cookies;
            c.table.abort_on_overflow = true;
        });
        b.sockets.listen(b.listener, 0).unwrap();
        b.put(&Segment { src_port: 4002, ..seg(SYN, 999, 0) }, b"");
        let late = b.one().seg;
        if cookies == SynCookies::Off {
            // The SYN queue has no room for another before the first is through.
            b.sockets.listen(b.listener, 1).unwrap();
        }
        b.handshake(4000, modern(1));
        b.sockets.listen(b.listener, 0).unwrap();
        b.put(&Segment { src_port: 4002, ..seg(ACK, 1000, late.seq.wrapping_add(1)) }, b"");
        let answer = b.one().seg;
        assert_eq!((answer.flags, answer.seq, answer.dst_port), (RST, late.seq.wrapping_add(1), 4002));
        assert_eq!(b.connections(), 1);
    }
}

#[test]
fn a_backlog_that_shrinks_keeps_what_waits_and_takes_no_more() {
    let mut b = Bed::new(|_| ());
    for port in 4000..4004 {
        b.handshake(port, modern(1));
    }
    b.sockets.listen(b.listener, 1).unwrap();
    b.put(&Segment { src_port: 5000, ..seg(SYN, 1, 0) }, b"");
    b.silent();
    for _ in 0..3 {
        b.sockets.accept(b.listener).unwrap();
    }
    b.handshake(5000, modern(1));
    // The bound on all listeners counts for huge and negative wishes.
    b.sockets.listen(b.listener, -1).unwrap();
    assert_eq!(b.info(b.listener, 28), 4096);
    b.sockets.listen(b.listener, i32::MAX).unwrap();
    assert_eq!(b.info(b.listener, 28), 4096);
}
