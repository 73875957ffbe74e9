//! Frames that the wire damaged.

use super::*;

fn deliver(to: &mut Sockets, now: Instant, bytes: &[u8]) {
    let pool = &mut to.stack.core.pool;
    let mut frame = pool.alloc().unwrap();
    pool.buffer_mut(&mut frame)[..bytes.len()].copy_from_slice(bytes);
    frame.set_range(0, bytes.len());
    let mut batch = Batch::new();
    batch.push(Packet::single(frame));
    to.receive(now, &mut batch);
}

#[test]
fn a_segment_with_any_bit_turned_is_refused_and_padding_is_no_text() {
    let mut net = Net::new();
    let (client, server, _) = net.connected(80);
    net.a.send(client, b"some text", 0).unwrap();
    net.a.turn(net.now);
    let (pool, queue) = net.a.tx();
    let desc = queue.pop().unwrap();
    let frame = pool.tx_bytes(&desc).to_vec();
    pool.complete(desc.index());
    for bit in 0..frame.len() * 8 {
        // The sender's hardware address stands under no checksum.
        if (6 * 8..12 * 8).contains(&bit) {
            continue;
        }
        let mut damaged = frame.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        deliver(&mut net.b, net.now, &damaged);
        assert_eq!(recv(&mut net.b, server).unwrap_err(), Errno::EAGAIN, "bit {bit}");
    }
    for len in 0..frame.len() {
        deliver(&mut net.b, net.now, &frame[..len]);
        assert_eq!(recv(&mut net.b, server).unwrap_err(), Errno::EAGAIN, "{len} bytes");
    }
    let padded = [&frame[..], &[0xa5; 7]].concat();
    deliver(&mut net.b, net.now, &padded);
    assert_eq!(recv(&mut net.b, server).unwrap(), b"some text");
    net.run();
    net.b.stack.assert_conserved();
}
