//! Receivers that want more than their share (Savage et al., 1999): ACKs of parts
//! of a segment, of what is not there yet, and of nothing at all.

use super::bed::*;
use ringroad::telemetry::DropReason;
use ringroad::wire::tcp::{Options, SackBlock, Segment};

const MSS: u32 = 1000;

fn options() -> Options {
    Options { mss: Some(MSS as u16), ..Default::default() }
}

/// A connection with more to send than the peer's window, and its first flight.
fn sender(b: &mut Bed) -> (Conn, u32) {
    let c = b.open(4000, options());
    b.sockets.send(c.h, &[1; 200_000], 0).unwrap();
    let sent: u32 = b.take().iter().map(|o| o.data.len() as u32).sum();
    (c, sent)
}

#[test]
fn a_segment_acknowledged_in_many_parts_counts_once() {
    let grown = |parts: u32| {
        let mut b = Bed::new(|_| ());
        let (c, sent) = sender(&mut b);
        assert_eq!((sent, b.window(c.h)), (10 * MSS, 10));
        for segment in 0..10 {
            for part in 1..=parts {
                let ack = c.ack + segment * MSS + part * MSS / parts;
                b.put(&Segment { ack, ..c.seg(ACK) }, b"");
                b.take();
            }
        }
        b.window(c.h)
    };
    let honest = grown(1);
    assert_eq!(honest, 20, "slow start: one segment for each acknowledged");
    for parts in [2, 10, 100, 1000] {
        assert!(grown(parts) <= honest, "{parts} parts: {}", grown(parts));
    }
}

#[test]
fn what_was_not_sent_cannot_be_acknowledged_and_opens_no_window() {
    let mut b = Bed::new(|_| ());
    let (c, sent) = sender(&mut b);
    for beyond in [1, MSS, 100 * MSS] {
        for _ in 0..100 {
            b.put(&Segment { ack: c.ack + sent + beyond, ..c.seg(ACK) }, b"");
        }
    }
    let answers = b.take();
    assert!(answers.iter().all(|o| o.data.is_empty()), "no new data");
    assert!(answers.len() <= 15, "{} challenges", answers.len());
    assert_eq!((b.window(c.h), b.dropped(DropReason::TcpBadAck)), (10, 300));
    // SACK blocks of the same are worth as little.
    let mut b = Bed::new(|_| ());
    let o = Options { sack_permitted: true, ..options() };
    let c = b.open(4000, o);
    b.sockets.send(c.h, &[1; 200_000], 0).unwrap();
    b.take();
    for i in 0..50u32 {
        let left = c.ack + (20 + i) * MSS;
        let sack = [SackBlock { left, right: left + MSS }].into_iter().collect();
        let options = Options { sack, ..Default::default() };
        b.put(&Segment { options, ..c.seg(ACK) }, b"");
        b.take();
    }
    assert!(b.window(c.h) <= 10);
}

/// New data that a flight of ten segments and a thousand duplicates pull out.
fn pulled_out(offer: Options, blocks: &[(u32, u32)]) -> u32 {
    let mut b = Bed::new(|_| ());
    let c = b.open(4000, offer);
    b.sockets.send(c.h, &[1; 200_000], 0).unwrap();
    let sent: u32 = b.take().iter().map(|o| o.data.len() as u32).sum();
    assert_eq!(sent, 10 * MSS);
    let block = |b: &(u32, u32)| SackBlock { left: c.ack + b.0 * MSS, right: c.ack + b.1 * MSS };
    let mut more = 0;
    for _ in 0..1000 {
        let options = Options { sack: blocks.iter().map(block).collect(), ..Default::default() };
        b.put(&Segment { options, ..c.seg(ACK) }, b"");
        let fresh = b.take().into_iter().filter(|o| o.seg.seq.wrapping_sub(c.ack) >= sent);
        more += fresh.map(|o| o.data.len() as u32).sum::<u32>();
    }
    more
}

/// A duplicate stands for a segment that left the network: there cannot be more
/// of them than were under way.
#[test]
fn spoofed_duplicate_acks_pull_out_no_more_than_was_under_way() {
    let plain = pulled_out(options(), &[]);
    assert!((MSS..=12 * MSS).contains(&plain), "{plain}");
    let sack = Options { sack_permitted: true, ..options() };
    for blocks in [&[(1, 4)][..], &[(1, 10)], &[(0, 1), (1, 10)], &[(1, 2), (3, 4), (5, 9)]] {
        let more = pulled_out(sack.clone(), blocks);
        assert!(more <= 12 * MSS, "{more} for {blocks:?}");
    }
}

/// To a peer that has SACK a duplicate ACK without a block says nothing.
#[test]
fn duplicate_acks_that_tell_nothing_send_nothing() {
    let mut b = Bed::new(|_| ());
    let c = b.open(4000, Options { sack_permitted: true, ..options() });
    b.sockets.send(c.h, &[1; 200_000], 0).unwrap();
    b.take();
    for _ in 0..1000 {
        b.put(&c.seg(ACK), b"");
        b.silent();
    }
    assert_eq!(b.window(c.h), 10);
}

/// An acknowledgment that comes before its data: it can only be of what was sent,
/// and so gives no more than one that is honest.
#[test]
fn acknowledgments_ahead_of_time_are_worth_no_more_than_honest_ones() {
    let mut b = Bed::new(|_| ());
    let (c, mut sent) = sender(&mut b);
    let mut acked = 0;
    for _ in 0..3 {
        // All that is under way at once, and the same a hundred times.
        for _ in 0..100 {
            b.put(&Segment { ack: c.ack + sent, ..c.seg(ACK) }, b"");
        }
        let newly = sent - acked;
        acked = sent;
        let more: u32 = b.take().iter().map(|o| o.data.len() as u32).sum();
        assert!(more <= 2 * newly, "{more} for {newly}");
        sent += more;
    }
}
