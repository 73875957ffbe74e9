//! Urgent data (RFC 6093).

use super::*;

fn urgent(solo: &mut Solo, pointer: u16, data: &[u8]) {
    let mut seg = segment(ACK | URG, solo.seq, solo.ack, 60_000, Options::default(), data.len());
    seg.urgent = pointer;
    solo.seq = solo.seq.wrapping_add(data.len() as u32);
    solo.host.input(&seg, data);
}

fn recv(solo: &mut Solo, most: usize) -> Vec<u8> {
    let mut buf = vec![0; most];
    let n = solo.host.with(|c, e| c.recv(e, &mut buf, false));
    buf[..n].to_vec()
}

fn oob(solo: &mut Solo) -> crate::errno::Result<Option<u8>> {
    solo.host.with(|c, _| c.recv_urgent(false))
}

#[test]
fn a_read_stops_at_the_mark_and_leaves_the_urgent_byte_out() {
    // MUST-62.
    let mut solo = Solo::plain();
    urgent(&mut solo, 4, b"abcdef");
    assert_eq!(solo.host.take_events(), Events::READABLE | Events::URGENT);
    assert!(solo.host.conn().readiness().contains(Readiness::PRI));
    assert_eq!(solo.host.conn().urgent_mark(), Some(3));
    assert_eq!(recv(&mut solo, 2), b"ab");
    assert_eq!(recv(&mut solo, 9), b"c");
    assert!(solo.host.conn().at_mark());
    assert_eq!(oob(&mut solo), Ok(Some(b'd')));
    assert_eq!(recv(&mut solo, 9), b"ef");
    assert_eq!((solo.host.conn().urgent_mark(), oob(&mut solo)), (None, Err(Errno::EINVAL)));
    // The window opens by all six.
    assert_eq!(solo.host.conn().hot.rcv_used, 0);
    solo.host.finish();
}

#[test]
fn a_pointer_ahead_of_its_byte_is_known_before_it_comes() {
    let mut solo = Solo::plain();
    urgent(&mut solo, 9, b"abcd");
    assert_eq!(oob(&mut solo), Err(Errno::EAGAIN));
    assert!(!solo.host.conn().readiness().contains(Readiness::PRI));
    // The byte may come in a segment that says nothing of it.
    solo.get(ACK | PSH, b"efghij");
    assert_eq!(oob(&mut solo), Ok(Some(b'i')));
    assert_eq!(recv(&mut solo, 20), b"abcdefgh");
    assert_eq!(recv(&mut solo, 20), b"j");
    solo.host.finish();
}

#[test]
fn behind_an_urgent_byte_that_is_read_apart_the_stream_ends() {
    let mut solo = Solo::plain();
    urgent(&mut solo, 1, b"a");
    assert!(!solo.host.conn().eof());
    solo.get(ACK | FIN, b"");
    // A peek sees the end too, which leaves the byte where it is.
    assert!(solo.host.conn().eof());
    assert_eq!(oob(&mut solo), Ok(Some(b'a')));
    assert_eq!(recv(&mut solo, 9), b"");
    assert!(solo.host.conn().eof());
    solo.host.finish();
}

#[test]
fn a_later_pointer_takes_the_mark_along_and_an_old_one_does_not() {
    let mut solo = Solo::plain();
    urgent(&mut solo, 2, b"ab");
    urgent(&mut solo, 2, b"cd");
    assert_eq!(solo.host.conn().urgent_mark(), Some(3));
    // What was received is not announced again.
    let mut seg = segment(ACK | URG, solo.seq, solo.ack, 60_000, Options::default(), 0);
    seg.seq = seg.seq.wrapping_sub(3);
    seg.urgent = 1;
    solo.host.input(&seg, b"");
    assert_eq!(solo.host.conn().urgent_mark(), Some(3));
    assert_eq!(recv(&mut solo, 20), b"abc");
    solo.host.finish();
}

#[test]
fn at_the_mark_a_later_pointer_drops_the_byte_in_front() {
    let mut solo = Solo::plain();
    urgent(&mut solo, 1, b"X");
    assert!(solo.host.conn().at_mark());
    urgent(&mut solo, 3, b"abY");
    assert_eq!(recv(&mut solo, 20), b"ab");
    assert_eq!(oob(&mut solo), Ok(Some(b'Y')));
    solo.host.finish();
}

#[test]
fn the_pointer_that_leaves_points_behind_the_byte_until_that_is_acknowledged() {
    // MUST-30, MUST-31; the whole write is urgent, however long.
    let mut solo = Solo::plain();
    solo.host.send(&pattern(500));
    solo.host.with(|c, _| c.mark_urgent());
    let out = solo.host.out_one();
    assert_eq!((out.seg.flags.contains(URG), out.seg.urgent), (true, 500));
    // Urgent data is not held back for company (Nagle), and what follows before
    // the acknowledgment points back to it no more.
    solo.host.send(b"x");
    solo.host.with(|c, _| c.mark_urgent());
    let out = solo.host.out_one();
    assert_eq!((out.len(), out.seg.urgent), (1, 1));
    solo.host.send(b"y");
    let out = solo.host.out_one();
    assert_eq!((out.len(), out.seg.flags.contains(URG)), (1, false));
    solo.get_ack(501);
    // It is acknowledged: small ones wait again.
    solo.host.send(b"z");
    solo.host.silent();
    solo.host.finish();
}

#[test]
fn a_shut_window_lets_the_pointer_through() {
    let mut solo = Solo::plain();
    solo.window = 0;
    solo.get(ACK, b"");
    solo.host.send(b"urgent");
    solo.host.with(|c, _| c.mark_urgent());
    solo.host.silent();
    solo.host.advance(Duration::from_secs(1));
    let probe = solo.host.out_one();
    assert_eq!((probe.len(), probe.seg.urgent), (1, 6));
    solo.get(ACK, b"");
    // Any ACK of ours says so too.
    solo.get_at(-1, ACK, b"x");
    let acks = solo.host.out();
    assert!(acks.iter().any(|o| o.seg.flags.contains(URG) && o.seg.urgent == 6), "{acks:?}");
    solo.host.finish();
}

#[test]
fn a_lent_frame_ends_at_the_mark() {
    let mut solo = Solo::plain();
    urgent(&mut solo, 3, b"abXde");
    let lent = |solo: &mut Solo| {
        let frame = solo.host.with(|c, e| c.recv_frame(e.pool)).unwrap();
        let bytes = solo.host.pool.bytes(&frame).to_vec();
        let n = frame.len();
        solo.host.pool.free(frame);
        let _ = solo.host.with(|c, _| c.recv_release(n));
        bytes
    };
    assert_eq!(lent(&mut solo), b"ab");
    assert!(solo.host.conn().at_mark());
    assert_eq!(lent(&mut solo), b"de");
    assert_eq!(solo.host.conn().hot.rcv_used, 0);
    solo.host.finish();
}
