//! The short ways beside the long ones: the same packets, sockets and errors.

use super::*;
use crate::errno::Errno;
use crate::frame::Batch;
use crate::stack::route::Route;
use crate::stack::testing::*;
use crate::stack::{Config, Neighbor, Stack};
use crate::time::Duration;
use crate::wire::arp;

/// A bed whose peer is known, with a socket on a port.
fn bed(config: Config, at: &str) -> (Bed, u32) {
    let mut b = Bed::new(config);
    b.learn_peer();
    let Stack { udp, core, .. } = &mut b.stack;
    let id = udp.open(core, 3, false).unwrap();
    udp.bind(core, id, addr(at), &mut |_, _| Ok(())).unwrap();
    (b, id)
}

/// One whose first address is another one: nothing takes the short way in.
fn long_way() -> Config {
    let mut config = owned();
    config.addresses.insert(0, (ip("10.7.0.1"), 24));
    config
}

fn frame(packet: &[u8]) -> Vec<u8> {
    eth(OUR_MAC, ethernet::IPV4, packet)
}

fn query(payload: &[u8]) -> Vec<u8> {
    frame(&udp_packet("10.0.0.2:1000", "10.0.0.1:53", payload))
}

/// Whether the short way takes a frame, for all that is checked before a socket's queue.
fn is_short(b: &mut Bed, bytes: &[u8]) -> bool {
    let core = &mut b.stack.core;
    let mut frame = core.pool.alloc().unwrap();
    frame.set_range(64, bytes.len());
    core.pool.bytes_mut(&mut frame).copy_from_slice(bytes);
    let packet = Packet::single(frame);
    let is = Arrival::of(core, &b.stack.udp, &packet).is_some();
    packet.free(&mut core.pool);
    is
}

/// What came of a frame: events, what can be read, what was dropped and answered.
fn outcome(b: &mut Bed, id: u32, bytes: &[u8]) -> String {
    b.put(bytes);
    let events: Vec<_> = b.stack.core.events.drain(..).collect();
    let mut buffer = [0; 100];
    let Stack { udp, core, .. } = &mut b.stack;
    let read = udp.recv(core, id, &mut buffer, false);
    let seen = format!("{events:?} {read:?} {buffer:x?}");
    format!("{seen} {:x?} {:?}", b.take(), b.all_drops())
}

#[test]
fn whatever_comes_in_comes_to_the_same_as_by_the_long_way() {
    let ((mut short, id), (mut long, other)) = (bed(owned(), "0.0.0.0:53"), bed(long_way(), "0.0.0.0:53"));
    let good = query(b"a question");
    assert!(is_short(&mut short, &good) && !is_short(&mut long, &good));
    let mut taken = 0;
    for bit in 0..good.len() * 8 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        // As it is; with IP's checksum made right, as far as it still is a header; and
        // with UDP's, so that nothing is left but what the bit means.
        let mut fixed = bad.clone();
        if fixed[IP] == 0x45 {
            fix_header(&mut fixed[IP..]);
        }
        let mut whole = fixed.clone();
        whole[UDP + 6..UDP + 8].fill(0);
        let sum = checksum::sum(&whole[UDP - 8..]).add_u16(17).add_u16((whole.len() - UDP) as u16);
        whole[UDP + 6..UDP + 8].copy_from_slice(&sum.finish().to_be_bytes());
        for bytes in [bad, fixed, whole] {
            taken += usize::from(is_short(&mut short, &bytes));
            let (a, b) = (outcome(&mut short, id, &bytes), outcome(&mut long, other, &bytes));
            assert_eq!(a, b, "bit {bit}: {bytes:x?}");
        }
    }
    // A packet that says it is shorter, or longer, than what came.
    for total in 0..80 {
        let mut bytes = good.clone();
        bytes[IP + 2..IP + 4].copy_from_slice(&u16::to_be_bytes(total));
        fix_header(&mut bytes[IP..]);
        let (a, b) = (outcome(&mut short, id, &bytes), outcome(&mut long, other, &bytes));
        assert_eq!(a, b, "total length {total}");
    }
    // Bits of the payload, the sender, the type of service: nothing is wrong with them.
    assert!(taken > 100, "{taken}");
}

#[test]
fn sources_that_are_no_hosts_and_packets_in_pieces_go_the_long_way() {
    let (mut b, id) = bed(owned(), "0.0.0.0:53");
    for src in ["0.0.0.1", "127.0.0.1", "224.0.0.1", "255.255.255.255", "10.0.0.1", "10.0.0.255", "10.0.0.0"] {
        let bytes = frame(&udp_packet(&format!("{src}:1000"), "10.0.0.1:53", b"x"));
        assert!(!is_short(&mut b, &bytes), "{src}");
        b.refused(&bytes, DropReason::Ipv4Martian);
    }
    let to_nobody = frame(&udp_packet("10.0.0.2:1000", "10.0.0.1:54", b"x"));
    assert!(!is_short(&mut b, &to_nobody));
    let mut padded = query(b"padded");
    padded.extend([0xee; 9]);
    assert!(is_short(&mut b, &padded));
    b.put(&padded);
    let Stack { udp, core, .. } = &mut b.stack;
    let (frame, of) = udp.front(id).unwrap();
    assert_eq!((core.pool.bytes(frame), of.len()), (&b"padded"[..], 6));
    udp.close(core, id);
}

#[test]
fn a_partial_checksum_is_short_where_it_is_expected() {
    let mut bytes = query(b"partial");
    let sum = checksum::pseudo_v4([10, 0, 0, 2], [10, 0, 0, 1], 17, 15).fold();
    bytes[UDP + 6..UDP + 8].copy_from_slice(&sum.to_be_bytes());
    let (mut b, _) = bed(Config { partial_checksums: true, ..owned() }, "0.0.0.0:53");
    assert!(is_short(&mut b, &bytes));
    bytes[UDP + 7] ^= 1;
    assert!(!is_short(&mut b, &bytes));
    bytes[UDP + 7] ^= 1;
    let (mut b, _) = bed(owned(), "0.0.0.0:53");
    assert!(!is_short(&mut b, &bytes));
    b.refused(&bytes, DropReason::UdpBadChecksum);
}

#[test]
fn a_batch_is_told_once_and_queues_are_bounded() {
    let mut config = owned();
    config.datagram.max_datagrams = 2;
    let (mut b, _) = bed(config, "0.0.0.0:53");
    for round in 0..2 {
        let mut batch = Batch::new();
        for _ in 0..2 {
            let core = &mut b.stack.core;
            let mut frame = core.pool.alloc().unwrap();
            let bytes = query(b"one of two");
            frame.set_range(0, bytes.len());
            core.pool.bytes_mut(&mut frame).copy_from_slice(&bytes);
            batch.push(Packet::single(frame));
        }
        b.stack.receive(b.now, &mut batch);
        // In the second round both find the queue full.
        assert_eq!(b.stack.core.events.drain(..).count(), 1 - round);
        assert_eq!(b.drops(DropReason::UdpQueueFull), 2 * round as u64);
    }
}

fn send(b: &mut Bed, id: u32, data: &[u8], to: Option<&str>) -> Result<usize, Errno> {
    let Stack { udp, core, .. } = &mut b.stack;
    udp.send(core, id, &[data], to.map(addr), &SendMeta::default())
}

/// As [`send`], but by the short way alone.
fn send_short(b: &mut Bed, id: u32, data: &[u8], to: Option<&str>) -> bool {
    let Stack { udp, core, .. } = &mut b.stack;
    udp.send_quick(core, id, data, to.map(addr), &SendMeta::default())
}

#[test]
fn what_leaves_the_short_way_is_what_leaves_the_long_way() {
    let to = Some("10.0.0.2:1000");
    for (at, len) in [("0.0.0.0:53", 0), ("10.0.0.1:53", 1), ("0.0.0.0:53", 63), ("0.0.0.0:9", 1472)] {
        let (mut b, id) = bed(owned(), at);
        let o = b.stack.udp.options(id);
        (o.ttl, o.tos) = (7, 0x28);
        let data: Vec<u8> = (0..len).map(|i| i as u8 ^ 0x5a).collect();
        assert!(!send_short(&mut b, id, &data, to), "nothing is known yet");
        assert_eq!(send(&mut b, id, &data, to), Ok(len));
        let long = b.one();
        let before = (b.stack.core.counters.tx_bytes, b.stack.core.counters.tx_copied_bytes);
        assert!(send_short(&mut b, id, &data, to));
        let short = b.one();
        assert_eq!(short, long);
        sent(&short[IP..]);
        let counters = &b.stack.core.counters;
        let sent = (counters.tx_bytes - before.0, counters.tx_copied_bytes - before.1);
        assert_eq!(sent, (short.len() as u64, len as u64));
        // Connected, the same.
        let Stack { udp, core, .. } = &mut b.stack;
        udp.connect(core, id, addr("10.0.0.2:1000")).unwrap();
        assert!(send_short(&mut b, id, &data, None));
        assert_eq!(b.one(), long);
        // And without a copy.
        let Stack { udp, core, .. } = &mut b.stack;
        let mut frame = udp.send_alloc(core, id).unwrap();
        frame.truncate(len);
        core.pool.bytes_mut(&mut frame).copy_from_slice(&data);
        udp.send_frame_quick(core, id, frame, None, &SendMeta::default()).unwrap();
        assert_eq!(b.one(), long);
    }
}

#[test]
fn a_checksum_of_zero_leaves_the_short_way_as_ones() {
    let (mut b, id) = bed(owned(), "0.0.0.0:53");
    let to = Some("10.0.0.2:1000");
    send(&mut b, id, &[0, 0], to).unwrap();
    let first = b.one();
    let field = [first[UDP + 6], first[UDP + 7]];
    assert!(send_short(&mut b, id, &field, to));
    assert_eq!(b.one()[UDP + 6..UDP + 8], [0xff, 0xff]);
}

#[test]
fn what_is_unusual_does_not_leave_the_short_way() {
    let (mut b, id) = bed(Config { transmit_queue: 8, ..owned() }, "0.0.0.0:53");
    let to = "10.0.0.2:1000";
    send(&mut b, id, b"first", Some(to)).unwrap();
    b.one();
    assert!(send_short(&mut b, id, b"x", Some(to)));
    b.one();
    assert!(!send_short(&mut b, id, b"x", None), "no peer");
    assert!(!send_short(&mut b, id, b"x", Some("10.0.0.2:0")), "no port");
    assert!(!send_short(&mut b, id, b"x", Some("10.0.0.3:1000")), "somebody else");
    assert!(!send_short(&mut b, id, &[0; 1473], Some(to)), "too large");
    let Stack { udp, core, .. } = &mut b.stack;
    for meta in [
        SendMeta { ttl: Some(3), ..SendMeta::default() },
        SendMeta { tos: Some(3), ..SendMeta::default() },
        SendMeta { source: Some(ip("10.0.0.1")), ..SendMeta::default() },
    ] {
        assert!(!udp.send_quick(core, id, b"x", Some(addr(to)), &meta), "{meta:?}");
    }
    for (path_mtu, short) in [(PathMtu::Dont, false), (PathMtu::Probe, false), (PathMtu::Do, true)] {
        b.stack.udp.options(id).path_mtu = path_mtu;
        assert_eq!(send_short(&mut b, id, b"x", Some(to)), short, "{path_mtu:?}");
    }
    b.one();
    b.stack.udp.sockets.fail(id, Errno::ECONNREFUSED);
    assert!(!send_short(&mut b, id, b"x", Some(to)), "an error waits");
    assert_eq!(send(&mut b, id, b"x", Some(to)), Err(Errno::ECONNREFUSED));
    while b.stack.core.tx.room() > 0 {
        assert_eq!(send(&mut b, id, b"x", Some(to)), Ok(1));
    }
    assert!(!send_short(&mut b, id, b"x", Some(to)), "no room");
    assert_eq!(send(&mut b, id, b"x", Some(to)), Err(Errno::EAGAIN));
    b.take();
    let Stack { udp, core, .. } = &mut b.stack;
    udp.connect(core, id, addr(to)).unwrap();
    udp.shutdown(id, false, true).unwrap();
    assert!(!send_short(&mut b, id, b"x", None), "shut");
}

#[test]
fn a_loopback_source_is_refused_by_the_long_way() {
    let (mut b, id) = bed(owned(), "127.0.0.1:53");
    let Stack { udp, core, .. } = &mut b.stack;
    let any = udp.open(core, 4, false).unwrap();
    udp.bind(core, any, addr("0.0.0.0:9"), &mut |_, _| Ok(())).unwrap();
    assert_eq!(send(&mut b, any, b"x", Some("10.0.0.2:1")), Ok(1));
    assert!(send_short(&mut b, any, b"x", Some("10.0.0.2:1")));
    assert!(!send_short(&mut b, id, b"x", Some("10.0.0.2:1")));
    assert_eq!(send(&mut b, id, b"x", Some("10.0.0.2:1")), Err(Errno::EINVAL));
}

/// A bed that knows the way to the peer, and one that something is done to before the
/// next datagram.
fn after(config: Config, change: impl FnOnce(&mut Bed)) -> (Bed, u32) {
    let shared = config.mode == crate::stack::Mode::Shared;
    let (mut b, id) = bed(config, "0.0.0.0:53");
    if shared {
        b.stack.core.set_neighbor(PEER.into(), Neighbor::Known(PEER_MAC));
    }
    send(&mut b, id, b"first", Some("10.0.0.2:1000")).unwrap();
    b.one();
    assert!(send_short(&mut b, id, b"second", Some("10.0.0.2:1000")));
    b.one();
    change(&mut b);
    assert!(!send_short(&mut b, id, b"third", Some("10.0.0.2:1000")), "the way is void");
    (b, id)
}

#[test]
fn a_way_ends_with_what_it_was_made_of() {
    let to = Some("10.0.0.2:1000");
    let other = Mac([2, 0, 0, 0, 0, 9]);
    let moved = |b: &mut Bed| {
        // Two changes in a row would not be believed.
        b.wait(owned().neighbor.lock);
        b.put(&arp(arp::REPLY, other, PEER, OUR_MAC, OURS, OUR_MAC));
    };
    let (mut b, id) = after(owned(), moved);
    send(&mut b, id, b"x", to).unwrap();
    assert_eq!(b.one()[..6], other.0, "the neighbour moved");

    let fresh = owned().neighbor.reachable;
    let (mut b, id) = after(owned(), |b| b.wait(fresh));
    send(&mut b, id, b"x", to).unwrap();
    assert_eq!(b.take().len(), 2, "an old entry is asked again beside its use");

    let (mut b, id) = after(owned(), |b| b.stack.core.set_link(false));
    assert_eq!(send(&mut b, id, b"x", to), Err(Errno::ENETDOWN));

    let (mut b, id) = after(owned(), |b| b.stack.core.set_mtu(100));
    send(&mut b, id, &[0; 100], to).unwrap();
    assert_eq!(b.take().len(), 2, "fragments");

    let via = |b: &mut Bed| {
        let gateway = Some(ip("10.0.0.9"));
        let (destination, prefix, metric) = (PEER.into(), 32, 0);
        b.stack.core.set_routes(&[Route { destination, prefix, gateway, source: None, metric, mtu: None }]);
    };
    let (mut b, id) = after(owned(), via);
    send(&mut b, id, b"x", to).unwrap();
    assert_eq!(b.one()[12..14], ethernet::ARP.to_be_bytes(), "the gateway is asked for");

    let readdressed = |b: &mut Bed| b.stack.core.set_addresses(&[(ip("10.0.0.8"), 24)]);
    let (mut b, id) = after(owned(), readdressed);
    send(&mut b, id, b"x", to).unwrap();
    assert_eq!(b.one()[IP + 12..IP + 16], [10, 0, 0, 8]);
}

#[test]
fn a_way_ends_with_what_routers_and_the_kernel_say() {
    let to = Some("10.0.0.2:1000");
    let age = owned().icmp.path_mtu_age;
    let (mut b, id) = after(owned(), |b| b.stack.core.learn_path_mtu(PEER.into(), 600));
    send(&mut b, id, &[0; 100], to).unwrap();
    assert!(send_short(&mut b, id, &[0; 572], to) && !send_short(&mut b, id, &[0; 573], to));
    b.take();
    b.wait(age);
    assert!(!send_short(&mut b, id, b"x", to), "what a router said is forgotten");
    send(&mut b, id, b"x", to).unwrap();
    b.learn_peer();
    send(&mut b, id, b"x", to).unwrap();
    assert!(send_short(&mut b, id, &[0; 573], to));
    b.take();
    b.stack.forget_destinations();
    assert!(!send_short(&mut b, id, b"x", to));

    let shared = || Config { mode: crate::stack::Mode::Shared, ..owned() };
    let failed = |b: &mut Bed| b.stack.core.set_neighbor(PEER.into(), Neighbor::Failed);
    let (mut b, id) = after(shared(), failed);
    send(&mut b, id, b"x", to).unwrap();
    assert!(b.take().is_empty(), "the kernel is asked first");
    // What the kernel tells stays good for as long as it says nothing else.
    b.stack.core.set_neighbor(PEER.into(), Neighbor::Known(PEER_MAC));
    b.take();
    send(&mut b, id, b"x", to).unwrap();
    b.wait(Duration::from_secs(100_000));
    assert!(send_short(&mut b, id, b"x", to));
}

#[test]
fn groups_keep_their_own_time_to_live() {
    let (mut b, id) = bed(owned(), "0.0.0.0:53");
    let gateway = Some(PEER.into());
    let (destination, prefix, metric) = (ip("224.0.0.0"), 4, 0);
    b.stack.core.set_routes(&[Route { destination, prefix, gateway, source: None, metric, mtu: None }]);
    for _ in 0..2 {
        send(&mut b, id, b"x", Some("224.1.2.3:1000")).unwrap();
        assert_eq!(b.one()[IP + 8], 1);
    }
}
