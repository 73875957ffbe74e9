//! ACKs of bulk data that wait for more to acknowledge.

use super::*;

const SPACING: Duration = Duration::from_micros(25);

/// Takes out what a core wants to send.
fn packets(from: &mut Sockets) -> Vec<Vec<u8>> {
    let (pool, queue) = from.tx();
    let mut out = Vec::new();
    while let Some(desc) = queue.pop() {
        out.push(pool.tx_bytes(&desc).to_vec());
        pool.complete(desc.index());
    }
    out
}

/// A connection behind its start, and so many segments that are on the way in it.
fn bulk(spacing: Duration, segments: usize) -> (Net, Vec<Vec<u8>>) {
    let mut b = config(2);
    b.table.ack_spacing = spacing;
    let mut net = Net::with(config(1), b);
    let (client, server, _) = net.connected(80);
    for _ in 0..10 {
        net.a.send(client, &[5; 40 * 1448], 0).unwrap();
        net.pass(Duration::from_millis(50));
        while recv(&mut net.b, server).is_ok() {}
    }
    assert_eq!(net.a.stack.tcp.conn(0).unacknowledged(), 0);
    net.pass(Duration::from_millis(50));
    net.a.send(client, &vec![5; 1448 * segments], 0).unwrap();
    net.a.turn(net.now);
    let row = packets(&mut net.a);
    assert_eq!(row.len(), segments);
    (net, row)
}

/// `b` gets these in a batch: how many packets it answers with, and how much they
/// leave unacknowledged, in segments.
fn answers(net: &mut Net, packets_in: &[Vec<u8>]) -> (usize, u32) {
    let copy = |s: &mut Sockets, packets: &[Vec<u8>]| {
        let mut batch = Batch::new();
        for bytes in packets {
            let mut frame = s.stack.core.pool.alloc().unwrap();
            s.stack.core.pool.buffer_mut(&mut frame)[..bytes.len()].copy_from_slice(bytes);
            frame.set_range(0, bytes.len());
            batch.push(Packet::single(frame));
        }
        batch
    };
    let mut batch = copy(&mut net.b, packets_in);
    net.b.receive(net.now, &mut batch);
    net.b.turn(net.now);
    let out = packets(&mut net.b);
    let mut batch = copy(&mut net.a, &out);
    net.a.receive(net.now, &mut batch);
    net.b.stack.assert_conserved();
    (out.len(), net.a.stack.tcp.conn(0).unacknowledged() / 1448)
}

#[test]
fn after_an_ack_the_next_waits_for_more_and_not_longer_than_it_may() {
    let (mut net, row) = bulk(SPACING, 12);
    let began = net.now;
    assert_eq!(answers(&mut net, &row[..2]), (1, 10), "the first leaves at once");
    for part in row[2..8].chunks(2) {
        net.now += Duration::from_micros(5);
        assert_eq!(answers(&mut net, part), (0, 10));
        assert!(!net.b.has_more_to_send());
        assert_eq!(net.b.next_deadline(), Some(began + SPACING));
    }
    net.now = began + SPACING;
    assert_eq!(answers(&mut net, &[]), (1, 4), "one for all six");
    assert!(net.b.next_deadline().is_none_or(|at| at > net.now));
}

#[test]
fn without_spacing_every_second_segment_is_acknowledged() {
    let (mut net, row) = bulk(Duration::ZERO, 8);
    for (n, part) in row.chunks(2).enumerate() {
        assert_eq!(answers(&mut net, part), (1, 6 - 2 * n as u32));
    }
}

#[test]
fn sixteen_segments_wait_for_nothing_and_a_gap_is_told_at_once() {
    let (mut net, row) = bulk(SPACING, 28);
    assert_eq!(answers(&mut net, &row[..2]), (1, 26));
    net.now += Duration::from_micros(1);
    assert_eq!(answers(&mut net, &row[2..16]), (0, 26), "fourteen");
    assert_eq!(answers(&mut net, &row[16..18]), (1, 10), "sixteen");
    assert_eq!(answers(&mut net, &row[18..20]), (0, 10));
    assert_eq!(answers(&mut net, &row[22..23]), (1, 8), "ahead of a gap");
}
