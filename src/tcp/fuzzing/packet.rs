//! What the fuzzer's bench and the tests share: packets that left, taken apart, and
//! a connection's end.

use crate::frame::{Pool, TxQueue};
use crate::tcp::Connection;
use crate::wire::tcp::{Segment, parse};
use crate::wire::{checksum, ipv4};

/// A segment that left.
#[derive(Clone, Debug)]
pub(in crate::tcp) struct Out {
    pub seg: Segment,
    pub data: Vec<u8>,
    pub tos: u8,
}

/// Takes an IP packet apart, with a link's header or without, and checks its sums.
pub(in crate::tcp) fn open(packet: &[u8]) -> Out {
    let packet = if packet[0] >> 4 == 4 { packet } else { &packet[14..] };
    let ip = ipv4::parse(packet).expect("an IPv4 packet");
    let pseudo = checksum::pseudo_v4(ip.header.src, ip.header.dst, 6, ip.payload.len() as u16);
    assert_eq!(pseudo.add(checksum::sum(ip.payload)).finish(), 0, "a wrong checksum");
    let tos = ip.header.tos;
    let seg = parse(ip.payload).expect("a TCP segment");
    let seg = Segment { ce: tos & 3 == 3, ..seg };
    let data = ip.payload[seg.header_len..].to_vec();
    Out { seg, data, tos }
}

/// Ends a connection; all frames must be free afterwards.
pub(in crate::tcp) fn give_back(conn: Option<Connection>, pool: &mut Pool, tx: &mut TxQueue) {
    if let Some(conn) = conn {
        conn.dispose(pool);
    }
    while let Some(desc) = tx.pop() {
        pool.cancel(desc);
    }
    pool.assert_conserved();
    assert_eq!(pool.available(), pool.capacity(), "frames leak");
}
