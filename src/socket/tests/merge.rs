//! Segments of one flow that come in a row, in one batch.

use super::*;
use crate::telemetry::DropReason;
use crate::wire::checksum;
use proptest::prelude::*;

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

#[test]
fn data_in_a_row_is_taken_as_one_and_nothing_of_it_is_lost() {
    let taken = |together: bool| {
        let mut net = Net::new();
        let (client, server, _) = net.connected(80);
        let text: Vec<u8> = (0..8 * 1448).map(|i| (i % 251) as u8).collect();
        assert_eq!(net.a.send(client, &text, 0), Ok(text.len()));
        net.a.turn(net.now);
        for some in packets(&mut net.a).chunks(if together { 8 } else { 1 }) {
            deliver(&mut net.b, net.now, some);
        }
        net.b.turn(net.now);
        let acks = packets(&mut net.b).len();
        let mut got = Vec::new();
        while let Ok(part) = recv(&mut net.b, server) {
            got.extend(part);
        }
        assert_eq!(got, text);
        let counters = &net.b.stack.core.counters;
        (counters.tcp_segments_merged, counters.tcp_segments_in, acks)
    };
    let (apart, together) = (taken(false), taken(true));
    assert_eq!((apart.0, together.0), (0, 7));
    assert_eq!((apart.1, apart.2), (together.1, together.2));
}

#[test]
fn a_row_of_data_ends_where_another_flow_a_gap_or_a_damaged_segment_comes() {
    let mut net = Net::new();
    let (client, server, listener) = net.connected(80);
    let (other, second) = net.join(listener, 80);
    net.a.send(client, &[5; 8 * 1448], 0).unwrap();
    net.a.turn(net.now);
    let mut row = packets(&mut net.a);
    net.a.send(other, b"hello", 0).unwrap();
    net.a.turn(net.now);
    row.insert(3, packets(&mut net.a).remove(0));
    // Of eight, the seventh is damaged, and the eighth lies ahead of a gap.
    row[7][100] ^= 1;
    deliver(&mut net.b, net.now, &row);
    let counters = &net.b.stack.core.counters;
    assert_eq!(counters.tcp_segments_merged, 2 + 2, "behind the first, and behind the fourth");
    assert_eq!(counters.dropped(DropReason::TcpBadChecksum), 1);
    let mut got = 0;
    while let Ok(part) = recv(&mut net.b, server) {
        got += part.len();
    }
    assert_eq!((got, recv(&mut net.b, second)), (6 * 1448, Ok(b"hello".to_vec())));
}

#[test]
fn behind_an_ack_without_data_no_row_begins() {
    let mut net = Net::new();
    let (client, server, _) = net.connected(80);
    let ep = net.b.epoll_create().unwrap();
    net.b.epoll_ctl(ep, EPOLL_CTL_ADD, server, EPOLLIN, 7).unwrap();
    assert_eq!(net.b.send(server, b"a question", 0), Ok(10));
    net.b.turn(net.now);
    deliver(&mut net.a, net.now, &packets(&mut net.b));
    net.a.send(client, b"an answer that is not short", 0).unwrap();
    net.a.turn(net.now);
    let answer = packets(&mut net.a).remove(0);
    // What it acknowledges alone, then all of it, in one batch.
    let mut ack = answer[..66].to_vec();
    ack[17] = 52;
    mend(&mut ack);
    deliver(&mut net.b, net.now, &[ack, answer]);
    net.b.turn(net.now);
    assert_eq!(net.b.stack.core.counters.tcp_segments_merged, 0);
    assert_eq!(events(&mut net.b, ep), [(EPOLLIN, 7)], "the program hears of it");
    assert_eq!(recv(&mut net.b, server), Ok(b"an answer that is not short".to_vec()));
}

/// Makes both sums right, where all is there that they are over.
fn mend(bytes: &mut [u8]) {
    let end = 14 + usize::from(u16::from_be_bytes([bytes[16], bytes[17]]));
    if end < 54 || end > bytes.len() {
        return;
    }
    bytes[24..26].fill(0);
    let sum = checksum::sum(&bytes[14..34]).finish();
    bytes[24..26].copy_from_slice(&sum.to_be_bytes());
    bytes[50..52].fill(0);
    let pseudo = checksum::sum(&bytes[26..34]).add_u16(6).add_u16((end - 34) as u16);
    let sum = checksum::sum(&bytes[34..end]).add(pseudo).finish();
    bytes[50..52].copy_from_slice(&sum.to_be_bytes());
}

/// What happens to one of the packets under way.
fn befall(row: &mut Vec<Vec<u8>>, at: usize, what: u8, how: u8) {
    let at = at % row.len();
    let bytes = &mut row[at];
    match what {
        0 => drop(row.remove(at)),
        1 => {
            let again = bytes.clone();
            row.insert((at + usize::from(how % 4)).min(row.len()), again);
        }
        2 => row.swap(at, 0),
        3 => {
            let bit = usize::from(how) * 5 % (bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        4 => bytes.extend([9; 3]),
        5 => bytes.truncate(bytes.len() - usize::from(how % 3)),
        // An ACK alone before it.
        6 if bytes.len() > 66 => {
            let mut ack = bytes[..66].to_vec();
            (ack[16], ack[17]) = (0, 52);
            mend(&mut ack);
            row.insert(at, ack);
        }
        6 => {}
        // A field says something else, and the sums are right.
        _ => {
            let fields = [15, 18, 19, 20, 22, 29, 33, 35, 37, 45, 46, 47, 47, 48, 49, 53, 54, 61, 65, 43, 41];
            bytes[fields[usize::from(what) % fields.len()]] ^= how;
            mend(bytes);
        }
    }
    if row.is_empty() {
        row.push(vec![0; 80]);
    }
}

/// All that is seen at `b` when these writes of `a` come in, befallen by that, `most`
/// packets in a batch or one by one, and how many were taken in rows.
fn seen(together: bool, writes: &[(usize, u64)], fates: &[(usize, u8, u8)], most: usize) -> (Vec<String>, u64) {
    let mut net = Net::new();
    let (client, server, listener) = net.connected(80);
    let (other, _) = net.join(listener, 80);
    net.b.send(server, b"under way", 0).unwrap();
    net.b.turn(net.now);
    packets(&mut net.b);
    let mut row = Vec::new();
    for &(len, later) in writes {
        let from = if later == 3 { other } else { client };
        let _ = net.a.send(from, &(0..len).map(|i| i as u8).collect::<Vec<_>>(), 0);
        net.now += Duration::from_millis(later);
        net.a.turn(net.now);
        row.extend(packets(&mut net.a));
    }
    for &(at, what, how) in fates {
        befall(&mut row, at, what, how);
    }
    let mut seen = Vec::new();
    for some in row.chunks(most) {
        for batch in some.chunks(if together { most } else { 1 }) {
            deliver(&mut net.b, net.now, batch);
        }
        seen.push(format!("{:?}", net.b.stack.tcp.conn(0).info(net.now, &net.b.stack.core.config.tcp)));
        net.b.turn(net.now);
        net.now += Duration::from_millis(1);
        seen.push(format!("{:?}", packets(&mut net.b)));
        if row.len() % 3 == 0 {
            seen.push(format!("{:?}", recv(&mut net.b, server)));
        }
    }
    while let Ok(part) = recv(&mut net.b, server) {
        seen.push(format!("{part:?}"));
        if part.is_empty() {
            break;
        }
    }
    let counters = &mut net.b.stack.core.counters;
    let merged = std::mem::take(&mut counters.tcp_segments_merged);
    seen.push(format!("{counters:?}"));
    (seen, merged)
}

fn writes() -> impl Strategy<Value = Vec<(usize, u64)>> {
    let len = prop_oneof![2 => 1usize..40, 2 => 100usize..1500, 4 => 2000usize..9000];
    prop::collection::vec((len, prop_oneof![4 => Just(0u64), 2 => 1u64..4]), 1..8)
}

#[test]
fn rows_come_in_at_random_too() {
    let (_, merged) = seen(true, &[(9000, 0), (9000, 3), (30, 1), (5000, 0)], &[], 64);
    assert!(merged >= 8, "{merged}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn together_is_one_by_one(
        writes in writes(),
        fates in prop::collection::vec((0usize..40, 0u8..22, 1u8..=255), 0..4),
        most in prop_oneof![Just(64usize), 2usize..9],
    ) {
        let (apart, none) = seen(false, &writes, &fates, most);
        prop_assert_eq!(none, 0);
        prop_assert_eq!(seen(true, &writes, &fates, most).0, apart);
    }
}
