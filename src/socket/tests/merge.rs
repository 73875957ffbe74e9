//! ACKs of one flow that come in a row, in one batch.

use super::*;
use crate::telemetry::DropReason;

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

fn deliver(to: &mut Sockets, now: Instant, packets: &[Vec<u8>]) {
    let mut batch = Batch::new();
    for bytes in packets {
        let mut frame = to.stack.core.pool.alloc().unwrap();
        to.stack.core.pool.buffer_mut(&mut frame)[..bytes.len()].copy_from_slice(bytes);
        frame.set_range(0, bytes.len());
        batch.push(Packet::single(frame));
    }
    to.receive(now, &mut batch);
    to.stack.assert_conserved();
}

/// `a` writes so many segments, and `b` acknowledges each by itself: the ACKs.
fn acks(net: &mut Net, client: Handle, segments: usize) -> Vec<Vec<u8>> {
    let sent = net.a.send(client, &vec![5; 1448 * segments], 0).unwrap();
    assert_eq!(sent, 1448 * segments);
    net.a.turn(net.now);
    let mut acks = Vec::new();
    for segment in packets(&mut net.a) {
        deliver(&mut net.b, net.now, &[segment]);
        net.b.turn(net.now);
        acks.extend(packets(&mut net.b));
    }
    acks
}

fn window(net: &Net) -> u32 {
    net.a.stack.tcp.conn(0).info(net.now, &net.a.stack.core.config.tcp).snd_cwnd
}

#[test]
fn the_last_stands_for_all_and_the_window_grows_no_less() {
    let grown = |together: bool| {
        let mut net = Net::new();
        let (client, _, _) = net.connected(80);
        let acks = acks(&mut net, client, 8);
        assert_eq!(acks.len(), 8, "at the start each is acknowledged");
        for some in acks.chunks(if together { 8 } else { 1 }) {
            deliver(&mut net.a, net.now, some);
        }
        assert_eq!(net.a.stack.tcp.conn(0).unacknowledged(), 0);
        let counters = &net.a.stack.core.counters;
        (counters.tcp_acks_merged, counters.tcp_segments_in, window(&net))
    };
    let (apart, together) = (grown(false), grown(true));
    assert_eq!((apart.0, together.0), (0, 7));
    assert_eq!(apart.1, together.1, "all of them came in");
    // Apart, the last find the window no longer filled.
    assert!(apart.2 > 10 && together.2 >= apart.2 && together.2 <= 10 + 8);
}

#[test]
fn what_says_more_stands_for_itself() {
    let mut net = Net::new();
    let (client, _, listener) = net.connected(80);
    let (other, _) = net.join(listener, 80);
    let mut row = acks(&mut net, client, 4);
    // Another flow's in the middle, a damaged one, and the first once more, late.
    let foreign = acks(&mut net, other, 1);
    row.insert(2, foreign[0].clone());
    row[3][50] ^= 1;
    row.push(row[0].clone());
    deliver(&mut net.a, net.now, &row);
    let counters = &net.a.stack.core.counters;
    assert_eq!(counters.tcp_acks_merged, 1, "the first two");
    assert_eq!(counters.dropped(DropReason::TcpBadChecksum), 1);
    assert_eq!(net.a.stack.tcp.conn(0).unacknowledged(), 0);
    assert_eq!(net.a.stack.tcp.conn(1).unacknowledged(), 0);
}
