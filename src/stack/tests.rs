//! IP, ARP, ICMP and reassembly on packets made by hand.

use super::neighbor::{Neighbor, Resolve, Waiter};
use super::testing::*;
use super::*;
use crate::frame::TxQueue;
use crate::telemetry::DropReason as D;
use crate::time::Duration;
use crate::wire::ethernet::{self, Mac};
use crate::wire::{arp as warp, checksum, icmpv4, ipv4};
use ::core::net::{IpAddr, Ipv4Addr};

fn echo(body: &[u8]) -> Vec<u8> {
    ipv4_in(ipv4::ICMP, &icmp(icmpv4::ECHO_REQUEST, 0, (0x1234, 7), body))
}

fn assert_echo_reply(out: &[u8], body: &[u8]) {
    let (h, p) = sent(out);
    assert_eq!((h.source(), h.destination(), h.tos, h.ttl), (OURS, PEER, 0x10, 64));
    assert_eq!(&p[..2], &[0, 0]);
    assert_eq!(&p[4..8], &[0x12, 0x34, 0, 7]);
    assert_eq!(&p[8..], body);
}

#[test]
fn echo_requests_are_answered_with_their_data() {
    let mut b = Bed::new(raw());
    for len in [0, 1, 56, 1400, 1472] {
        let body: Vec<u8> = (0..len).map(|i| i as u8).collect();
        b.put(&echo(&body));
        assert_echo_reply(&b.one(), &body);
    }
}

#[test]
fn a_large_echo_comes_in_fragments_and_goes_in_fragments() {
    let mut b = Bed::new(Config { mtu: 1500, ..raw() });
    let body: Vec<u8> = (0..65_507u32).map(|i| (i * 7) as u8).collect();
    let whole = echo(&body);
    for f in fragments(&whole, 1480).iter().rev() {
        b.put(f);
    }
    let out = b.take();
    assert_eq!(out.len(), 65_515usize.div_ceil(1480));
    // Put together by the same code on another stack, it is the reply.
    let mut data = Vec::new();
    for (i, f) in out.iter().enumerate() {
        let (h, p) = sent(f);
        assert_eq!(h.fragment_offset(), i * 1480);
        assert_eq!(h.more_fragments(), i + 1 < out.len());
        data.extend(p);
    }
    assert_eq!(checksum::sum(&data).finish(), 0);
    assert_eq!(&data[8..], &body[..]);
    assert_eq!(b.stack.core.reassembly.len(), 0);
    assert_eq!(b.stack.held_frames(), 0);
}

#[test]
fn a_jumbo_echo_is_one_packet_both_ways() {
    let mut b = Bed::new(Config { mtu: 9000, multi_buffer: true, ..raw() });
    for len in [2019, 2020, 2021, 8000, 8972] {
        let body: Vec<u8> = (0..len).map(|i| (i * 3) as u8).collect();
        b.put(&echo(&body));
        assert_echo_reply(&b.one(), &body);
        assert_eq!(b.stack.core.pool.available(), FRAMES);
    }
    // Without frames for all of it none is taken.
    let mut b = Bed::with_pool(Config { mtu: 9000, multi_buffer: true, ..raw() }, 9, 2048);
    b.put(&echo(&[7; 8972]));
    assert!(b.take().is_empty());
    assert_eq!((b.drops(D::PoolExhausted), b.stack.core.pool.available()), (1, 9));
    // A device of single frames has an MTU of one.
    let b = Bed::new(Config { mtu: 9000, ..raw() });
    assert_eq!(b.stack.core.interface().mtu, 2048);
}

#[test]
fn a_jumbo_packet_that_is_cut_short_or_has_no_header_is_dropped_whole() {
    let mut b = Bed::new(Config { mtu: 9000, multi_buffer: true, ..raw() });
    let whole = echo(&[1; 8000]);
    b.put(&whole[..6000]);
    assert_eq!(b.drops(D::Ipv4Truncated), 1);
    // What comes behind the packet's end goes back at once.
    let mut long = whole.clone();
    long.extend([0; 5000]);
    b.put(&long);
    assert_echo_reply(&b.one(), &[1; 8000]);
    let mut bad = whole;
    bad[7000] ^= 1;
    b.put(&bad);
    assert_eq!(b.drops(D::IcmpMalformed), 1);
    assert_eq!((b.take().len(), b.stack.core.pool.available()), (0, FRAMES));
}

#[test]
fn echo_is_the_kernels_on_a_shared_address_and_nobodys_for_groups() {
    let mut b = Bed::new(Config { mode: Mode::Shared, ..raw() });
    b.refused(&echo(b"x"), D::IcmpIgnored);
    let mut b = Bed::new(raw());
    let request = icmp(icmpv4::ECHO_REQUEST, 0, (1, 1), b"");
    let to_all = ipv4_of(PEER, Ipv4Addr::new(10, 0, 0, 255), ipv4::ICMP, 0, &request);
    b.refused(&to_all, D::IcmpIgnored);
}

#[test]
fn echo_replies_and_errors_are_limited_in_rate() {
    let mut config = raw();
    config.icmp.echo_rate = config::Rate { per_second: 10, burst: 3 };
    config.icmp.error_rate = config::Rate { per_second: 10, burst: 2 };
    let mut b = Bed::new(config);
    (0..10).for_each(|_| b.put(&echo(b"")));
    assert_eq!((b.take().len(), b.drops(D::IcmpRateLimited)), (3, 7));
    (0..10).for_each(|_| b.put(&udp_packet("10.0.0.2:9", "10.0.0.1:99", b"")));
    assert_eq!((b.take().len(), b.drops(D::IcmpRateLimited)), (2, 15));
    b.wait(Duration::from_secs(1));
    b.put(&echo(b""));
    assert_eq!(b.take().len(), 1);
}

#[test]
fn what_cannot_be_is_dropped_and_counted() {
    let mut b = Bed::new(raw());
    let good = udp_packet("10.0.0.2:9", "10.0.0.1:99", b"hello");
    let change = |f: &dyn Fn(&mut Vec<u8>)| {
        let mut p = good.clone();
        f(&mut p);
        p
    };
    b.refused(&good[..12], D::Ipv4Truncated);
    b.refused(&good[..good.len() - 1], D::Ipv4Truncated);
    b.refused(&change(&|p| p[0] = 0x55), D::Ipv4BadHeader);
    b.refused(&change(&|p| p[0] = 0x65), D::Ipv4BadHeader);
    b.refused(&change(&|p| p[0] = 0x44), D::Ipv4BadHeader);
    b.refused(&change(&|p| p[3] = 19), D::Ipv4BadHeader);
    b.refused(&change(&|p| p[8] ^= 1), D::Ipv4BadChecksum);
    b.refused(&change(&|p| p[29] ^= 1), D::UdpBadChecksum);
    b.refused(&change(&|p| p[25] = 7), D::UdpMalformed);
    b.refused(&change(&|p| p[24] = 1), D::UdpMalformed);
    b.refused(&ipv4_in(ipv4::UDP, &[0; 7]), D::UdpMalformed);
    b.refused(&ipv4_in(ipv4::ICMP, &[8, 0, 1, 1, 0, 0, 0, 0]), D::IcmpMalformed);
    b.refused(&ipv4_in(ipv4::ICMP, &[8, 0, 0]), D::IcmpMalformed);
    b.refused(&ipv4_in(ipv4::ICMP, &icmp(13, 0, (0, 0), &[0; 12])), D::IcmpTypeUnknown);
    b.refused(&ipv4_in(ipv4::TCP, &[0; 19]), D::TcpMalformed);
    let mut segment = [0; 20];
    segment[12] = 0x50;
    b.refused(&ipv4_in(ipv4::TCP, &segment), D::TcpBadChecksum);
    segment[12] = 0x40;
    b.refused(&ipv4_in(ipv4::TCP, &segment), D::TcpMalformed);
}

#[test]
fn martians_and_strangers_are_dropped() {
    let mut b = Bed::new(raw());
    let packet = |src: [u8; 4], dst: [u8; 4]| ipv4_of(src.into(), dst.into(), 17, 0, &[0; 8]);
    let us = [10, 0, 0, 1];
    for src in [
        [0, 0, 0, 0],
        [0, 1, 2, 3],
        [127, 0, 0, 1],
        [224, 0, 0, 1],
        [240, 0, 0, 1],
        [255; 4],
        [10, 0, 0, 255],
        us,
    ] {
        b.refused(&packet(src, us), D::Ipv4Martian);
    }
    b.refused(&packet([10, 0, 0, 2], [127, 0, 0, 1]), D::Ipv4Martian);
    b.refused(&packet([10, 0, 0, 2], [0; 4]), D::Ipv4Martian);
    b.refused(&packet([10, 0, 0, 2], [10, 0, 0, 3]), D::Ipv4NotForUs);
    b.refused(&packet([10, 0, 0, 2], [224, 0, 0, 1]), D::Ipv4NotForUs);
    // TCP to many, and what stands on the link for many but in IP for one.
    let mut segment = [0; 20];
    segment[12] = 0x50;
    let to_all = ipv4_of(PEER, Ipv4Addr::BROADCAST, ipv4::TCP, 0, &segment);
    b.refused(&to_all, D::TcpMalformed);
    let mut b = Bed::new(owned());
    let packet = udp_packet("10.0.0.2:9", "10.0.0.1:99", b"");
    b.refused(&eth(Mac::BROADCAST, ethernet::IPV4, &packet), D::Ipv4LinkBroadcast);
    b.refused(&eth(Mac([2, 9, 9, 9, 9, 9]), ethernet::IPV4, &packet), D::EthernetNotForUs);
    b.refused(&eth(OUR_MAC, ethernet::IPV6, &packet), D::EtherTypeUnknown);
    b.refused(&eth(OUR_MAC, ethernet::VLAN, &packet), D::EtherTypeUnknown);
    b.refused(&[1; 13], D::EthernetTruncated);
}

#[test]
fn options_are_skipped_source_routes_refused_and_bad_ones_told() {
    let mut b = Bed::new(raw());
    let datagram = udp(addr("10.0.0.2:9"), addr("10.0.0.1:99"), b"x");
    // Record route, timestamp, router alert, NOPs: skipped, and the port is unknown.
    for options in [
        &[7, 7, 4, 0, 0, 0, 0, 0][..],
        &[68, 8, 5, 0, 0, 0, 0, 0],
        &[148, 4, 0, 0],
        &[1, 1, 1, 0],
        &[0, 9, 9, 9],
    ] {
        b.put(&with_options(options, &datagram));
        let (h, p) = sent(&b.one());
        assert_eq!((h.destination(), p[0], p[1]), (PEER, 3, 3));
        // It quotes the options too.
        assert_eq!(&p[8 + 20..8 + 20 + options.len()], options);
    }
    b.refused(&with_options(&[131, 7, 4, 10, 0, 0, 9, 0], &datagram), D::Ipv4SourceRoute);
    b.refused(&with_options(&[1, 137, 7, 4, 10, 0, 0, 9], &datagram), D::Ipv4SourceRoute);
    for (options, pointer) in
        [(&[7, 1, 0, 0][..], 20), (&[1, 1, 7, 3], 22), (&[1, 1, 1, 7], 23), (&[1, 68, 40, 5], 21)]
    {
        let before = b.drops(D::Ipv4BadOptions);
        b.put(&with_options(options, &datagram));
        assert_eq!(b.drops(D::Ipv4BadOptions), before + 1);
        let (_, p) = sent(&b.one());
        assert_eq!((p[0], p[1], p[4]), (icmpv4::PARAMETER_PROBLEM, 0, pointer));
    }
}

#[test]
fn unknown_protocols_and_ports_are_told_to_the_sender_but_not_about_errors() {
    let mut b = Bed::new(raw());
    b.put(&ipv4_in(99, &[7; 1000]));
    let (h, p) = sent(&b.one());
    assert_eq!((h.tos, h.protocol, p[0], p[1]), (0xc0, ipv4::ICMP, 3, 2));
    assert_eq!(p.len() + 20, 576);
    assert_eq!(&p[8..12], &ipv4_in(99, &[7; 1000])[..4]);
    assert_eq!(b.drops(D::Ipv4ProtocolUnknown), 1);
    // No answer to broadcasts or to fragments that are not the first.
    let all = Ipv4Addr::new(10, 0, 0, 255);
    b.refused(&ipv4_of(PEER, all, 99, 0, &[0; 8]), D::Ipv4ProtocolUnknown);
    // On a shared address the kernel knows more than we do.
    let mut b = Bed::new(Config { mode: Mode::Shared, ..raw() });
    b.refused(&udp_packet("10.0.0.2:9", "10.0.0.1:99", b""), D::UdpNoSocket);
}

#[test]
fn redirects_quenches_and_unfounded_errors_change_nothing() {
    let mut b = Bed::new(raw());
    let quoted = &udp_packet("10.0.0.1:5000", "10.0.0.2:9", b"12345678")[..28];
    let error = |kind, code, quoted: &[u8]| ipv4_in(ipv4::ICMP, &icmp(kind, code, (0, 0), quoted));
    b.refused(&error(5, 1, quoted), D::IcmpIgnored);
    b.refused(&error(4, 0, quoted), D::IcmpIgnored);
    b.refused(&error(3, 3, quoted), D::IcmpQuoteInvalid);
    b.refused(&error(3, 3, &quoted[..27]), D::IcmpQuoteInvalid);
    b.refused(&error(3, 3, &[]), D::IcmpQuoteInvalid);
    b.refused(&error(3, 77, quoted), D::IcmpTypeUnknown);
    let foreign = &udp_packet("10.0.0.9:5000", "10.0.0.2:9", b"12345678")[..28];
    b.refused(&error(3, 3, foreign), D::IcmpQuoteInvalid);
    b.refused(&ipv4_in(ipv4::ICMP, &icmp(0, 0, (1, 1), b"")), D::IcmpNoSocket);
}

// Fragments.

fn datagram(len: usize) -> Vec<u8> {
    let body: Vec<u8> = (0..len).map(|i| (i * 31) as u8).collect();
    udp_packet("10.0.0.2:9", "10.0.0.1:99", &body)
}

fn listener(b: &mut Bed, at: &str) -> u32 {
    let Stack { udp, core, .. } = &mut b.stack;
    let id = udp.open(core, 5, false).unwrap();
    udp.bind(core, id, addr(at), &mut |_, _| Ok(())).unwrap();
    id
}

fn received(b: &mut Bed, id: u32) -> Option<Vec<u8>> {
    let mut buffer = vec![0; 70_000];
    let meta = b.stack.udp.recv(&mut b.stack.core, id, &mut buffer, false).ok()?;
    buffer.truncate(meta.full_len);
    Some(buffer)
}

#[test]
fn fragments_in_any_order_make_the_datagram() {
    for (capacity, len, step) in
        [(2048, 3000, 1480), (512, 3000, 104), (2048, 65_507, 1480), (4096, 5000, 8), (2048, 7, 8)]
    {
        for seed in 0..8 {
            let mut config = raw();
            config.fragment.max_holes = 2000;
            let mut b = Bed::with_pool(config, 256, capacity);
            let id = listener(&mut b, "0.0.0.0:99");
            let whole = datagram(len);
            let mut parts = fragments(&whole, step);
            let mut rng = crate::rng::Rng::new(seed);
            for i in (1..parts.len()).rev() {
                parts.swap(i, rng.below(i as u32 + 1) as usize);
            }
            for (i, part) in parts.iter().enumerate() {
                assert_eq!(received(&mut b, id), None);
                b.put(part);
                // Each one twice, as long as it does not begin another datagram.
                if i + 1 < parts.len() {
                    b.put(part);
                }
            }
            assert_eq!(received(&mut b, id).unwrap(), &whole[28..], "{len} by {step}, seed {seed}");
            assert_eq!(b.drops(D::FragmentDuplicate) as usize, parts.len() - 1);
            assert_eq!(b.stack.held_frames(), 0);
        }
    }
}

fn fragment(start: usize, end: usize, more: bool) -> Vec<u8> {
    let flags = (start / 8) as u16 | if more { ipv4::MF } else { 0 };
    ipv4_of(PEER, OURS, ipv4::UDP, flags, &vec![1; end - start])
}

#[test]
fn overlaps_end_the_datagram() {
    for (first, second) in [
        (fragment(8, 24, true), fragment(16, 32, true)),
        (fragment(8, 24, true), fragment(0, 16, true)),
        (fragment(8, 24, true), fragment(0, 32, true)),
        // Ends that contradict each other.
        (fragment(8, 24, false), fragment(8, 32, false)),
        (fragment(8, 24, false), fragment(24, 32, true)),
        (fragment(8, 32, true), fragment(8, 24, false)),
        (fragment(24, 40, true), fragment(8, 16, false)),
    ] {
        let mut b = Bed::new(raw());
        b.put(&first);
        assert_eq!(b.stack.core.reassembly.len(), 1);
        b.refused(&second, D::FragmentOverlap);
        assert_eq!((b.stack.core.reassembly.len(), b.stack.held_frames()), (0, 0));
    }
}

#[test]
fn fragments_of_a_wrong_size_are_refused() {
    let mut b = Bed::new(raw());
    b.refused(&fragment(8, 17, true), D::FragmentTooLarge);
    b.refused(&fragment(8, 8, true), D::FragmentTooLarge);
    b.refused(&fragment(65_512, 65_520, false), D::FragmentTooLarge);
    assert_eq!(b.stack.core.reassembly.len(), 0);
}

#[test]
fn reassembly_is_bounded_in_datagrams_frames_and_gaps() {
    let mut config = raw();
    config.fragment.max_datagrams = 4;
    config.fragment.max_frames = 6;
    config.fragment.max_holes = 3;
    let mut b = Bed::new(config);
    let of = |ident: u8, start: usize, end: usize| {
        let mut f = fragment(start, end, true);
        f[5] = ident;
        fix_header(&mut f);
        f
    };
    for ident in 0..10 {
        b.put(&of(ident, 0, 8));
    }
    assert_eq!((b.stack.core.reassembly.len(), b.stack.held_frames()), (4, 4));
    assert_eq!(b.drops(D::FragmentTableFull), 6);
    // One that takes more frames than are left sends the oldest away.
    b.put(&of(9, 8, 8 + 8000));
    assert_eq!(b.stack.held_frames(), 6);
    assert!(b.stack.core.reassembly.len() < 4);
    // And one that takes more than all goes itself.
    b.refused(&of(9, 16_008, 16_008 + 16_000), D::FragmentTableFull);
    // Gaps.
    let mut b = Bed::new({
        let mut c = raw();
        c.fragment.max_holes = 3;
        c
    });
    b.put(&of(1, 16, 24));
    b.put(&of(1, 32, 40));
    b.refused(&of(1, 48, 56), D::FragmentTableFull);
    assert_eq!(b.stack.held_frames(), 0);
}

#[test]
fn what_is_not_complete_in_time_goes_and_the_sender_is_told() {
    let mut b = Bed::new(raw());
    let parts = fragments(&datagram(3000), 1480);
    b.put(&parts[0]);
    b.put(&parts[1]);
    let end = b.now + Duration::from_secs(30);
    assert_eq!(b.stack.next_deadline(), Some(end));
    b.wait(Duration::from_millis(29_999));
    assert_eq!(b.stack.core.reassembly.len(), 1);
    b.now = end;
    let (h, p) = sent(&b.one());
    assert_eq!((h.destination(), p[0], p[1]), (PEER, icmpv4::TIME_EXCEEDED, 1));
    assert_eq!(&p[8..], &parts[0][..28]);
    assert_eq!((b.drops(D::FragmentTimeout), b.stack.held_frames()), (1, 0));
    assert_eq!(b.stack.next_deadline(), None);
    // Without the first fragment nothing is said.
    b.put(&parts[1]);
    b.now += Duration::from_secs(30);
    assert_eq!(b.take().len(), 0);
    assert_eq!(b.drops(D::FragmentTimeout), 2);
}

#[test]
fn congestion_experienced_by_a_fragment_is_the_datagrams() {
    let mut b = Bed::new(raw());
    let id = listener(&mut b, "10.0.0.1:99");
    let mut parts = fragments(&datagram(100), 56);
    for (part, ecn) in parts.iter_mut().zip([2, 3]) {
        part[1] = 0x10 | ecn;
        fix_header(part);
        b.put(part);
    }
    let meta = b.stack.udp.recv(&mut b.stack.core, id, &mut [0; 100], false).unwrap();
    assert_eq!(meta.tos, 0x13);
}

// Neighbours.

fn resolve(b: &mut Bed, to: &str, waiter: u64) -> Resolve {
    b.stack.core.now = b.now;
    b.stack.core.resolve(ip(to), Waiter(waiter))
}

fn arp_of(frame: &[u8]) -> warp::Packet {
    let (h, rest) = ethernet::parse(frame).unwrap();
    assert_eq!((h.ethertype.get(), h.src), (ethernet::ARP, OUR_MAC));
    *warp::parse(rest).unwrap()
}

#[test]
fn requests_for_our_address_alone_are_answered_and_teach_us() {
    let mut b = Bed::new(owned());
    let stranger = Ipv4Addr::new(10, 0, 0, 3);
    b.refused(&arp(1, PEER_MAC, PEER, Mac::default(), stranger, Mac::BROADCAST), D::ArpIgnored);
    assert_eq!(b.stack.core.neighbors.len(), 0);
    b.put(&arp(1, PEER_MAC, PEER, Mac::default(), OURS, Mac::BROADCAST));
    let reply = b.one();
    assert_eq!(&reply[..6], &PEER_MAC.0);
    let p = arp_of(&reply);
    assert_eq!((p.op.get(), p.sha, p.spa(), p.tha, p.tpa()), (2, OUR_MAC, OURS, PEER_MAC, PEER));
    assert_eq!(resolve(&mut b, "10.0.0.2", 1), Resolve::Ready(PEER_MAC));
    // A probe (RFC 5227) is answered and teaches nothing.
    b.put(&arp(1, Mac([2; 6]), Ipv4Addr::UNSPECIFIED, Mac::default(), OURS, Mac::BROADCAST));
    assert_eq!(arp_of(&b.one()).tpa(), Ipv4Addr::UNSPECIFIED);
    assert_eq!(b.stack.core.neighbors.len(), 1);
    // An answer that nobody asked for, about somebody unknown and not to us.
    b.refused(&arp(2, PEER_MAC, stranger, PEER_MAC, stranger, Mac::BROADCAST), D::ArpIgnored);
    // Off the link nobody is a neighbour.
    b.put(&arp(2, PEER_MAC, Ipv4Addr::new(11, 0, 0, 1), OUR_MAC, OURS, OUR_MAC));
    assert_eq!(b.stack.core.neighbors.len(), 1);
}

#[test]
fn malformed_and_shared_arp_is_dropped() {
    let mut b = Bed::new(owned());
    let good = arp(1, PEER_MAC, PEER, Mac::default(), OURS, Mac::BROADCAST);
    b.refused(&good[..40], D::ArpMalformed);
    for (at, value) in [(15, 2), (18, 5), (19, 5), (21, 9), (22, 1), (28, 224), (28, 127)] {
        let mut bad = good.clone();
        bad[at] = value;
        b.refused(&bad, D::ArpMalformed);
    }
    let mut b = Bed::new(Config { mode: Mode::Shared, ..owned() });
    b.refused(&good, D::ArpIgnored);
}

#[test]
fn an_unknown_neighbour_is_asked_thrice_then_its_waiters_fail() {
    let mut b = Bed::new(owned());
    assert_eq!(resolve(&mut b, "10.0.0.2", 11), Resolve::Pending);
    assert_eq!(resolve(&mut b, "10.0.0.2", 12), Resolve::Pending);
    let ask = b.one();
    assert_eq!(&ask[..6], &Mac::BROADCAST.0);
    let p = arp_of(&ask);
    assert_eq!((p.op.get(), p.spa(), p.tpa(), p.tha), (1, OURS, PEER, Mac::default()));
    for _ in 0..2 {
        b.wait(Duration::from_millis(990));
        assert_eq!(b.take().len(), 0);
        b.now = b.stack.next_deadline().unwrap();
        assert_eq!(b.take().len(), 1);
    }
    b.stack.core.now = b.now + Duration::from_millis(1010);
    b.stack.core.neighbor_timers();
    let failed = [(Waiter(11), None), (Waiter(12), None)];
    assert_eq!(::core::mem::take(&mut b.stack.core.resolved), failed);
    b.wait(Duration::from_millis(1010));
    assert_eq!(b.take().len(), 0);
    assert_eq!((b.stack.core.neighbors.len(), b.stack.next_deadline()), (0, None));
}

#[test]
fn an_answer_wakes_the_waiters_and_lets_the_queue_go() {
    let mut b = Bed::new(owned());
    let id = listener(&mut b, "10.0.0.1:99");
    for i in 0..70u8 {
        let Stack { udp, core, .. } = &mut b.stack;
        udp.send(core, id, &[&[i]], Some(addr("10.0.0.2:5")), &Default::default()).unwrap();
    }
    assert_eq!(resolve(&mut b, "10.0.0.2", 1), Resolve::Pending);
    assert_eq!(b.take().len(), 1);
    // The oldest had to go.
    assert_eq!((b.stack.held_frames(), b.drops(D::ArpQueueFull)), (64, 6));
    b.learn_peer();
    assert_eq!(b.stack.core.resolved, [(Waiter(1), Some(PEER_MAC))]);
    let out = b.take();
    assert_eq!(out.len(), 64);
    for (i, frame) in out.iter().enumerate() {
        assert_eq!(&frame[..6], &PEER_MAC.0);
        let (_, p) = sent(&frame[14..]);
        assert_eq!(p[8], i as u8 + 6);
    }
}

#[test]
fn packets_for_a_neighbour_that_is_not_there_are_told_to_their_socket() {
    let mut b = Bed::new(owned());
    let Stack { udp, core, .. } = &mut b.stack;
    let id = udp.open(core, 9, false).unwrap();
    udp.bind(core, id, addr("0.0.0.0:0"), &mut |_, _| Ok(())).unwrap();
    udp.connect(core, id, addr("10.0.0.2:5")).unwrap();
    udp.send(core, id, &[b"x"], None, &Default::default()).unwrap();
    for _ in 0..4 {
        b.wait(Duration::from_millis(1010));
        b.take();
    }
    assert_eq!((b.drops(D::NeighborFailed), b.stack.held_frames()), (1, 0));
    assert_eq!(b.stack.udp.take_error(id), Some(crate::errno::Errno::EHOSTUNREACH));
    assert!(b.stack.core.events.iter().any(|e| e.token == 9));
}

#[test]
fn an_old_entry_is_used_while_it_is_asked_again() {
    let mut b = Bed::new(owned());
    b.learn_peer();
    b.wait(Duration::from_secs(31));
    assert_eq!(resolve(&mut b, "10.0.0.2", 1), Resolve::Ready(PEER_MAC));
    let ask = b.one();
    assert_eq!((&ask[..6], arp_of(&ask).tpa()), (&PEER_MAC.0[..], PEER));
    assert_eq!(resolve(&mut b, "10.0.0.2", 1), Resolve::Ready(PEER_MAC));
    b.learn_peer();
    b.wait(Duration::from_secs(5));
    assert_eq!((b.take().len(), b.stack.next_deadline()), (0, None));
    // No answer: it goes, and is asked for anew.
    b.wait(Duration::from_secs(31));
    resolve(&mut b, "10.0.0.2", 1);
    for _ in 0..4 {
        b.wait(Duration::from_millis(1010));
    }
    assert_eq!(b.stack.core.neighbors.len(), 0);
}

#[test]
fn a_moved_neighbour_is_followed_but_not_at_every_word() {
    let mut b = Bed::new(owned());
    b.learn_peer();
    let moved = Mac([2, 7, 7, 7, 7, 7]);
    let gratuitous = arp(1, moved, PEER, Mac::default(), PEER, Mac::BROADCAST);
    b.refused(&gratuitous, D::ArpIgnored);
    b.wait(Duration::from_secs(2));
    b.put(&gratuitous);
    assert_eq!(resolve(&mut b, "10.0.0.2", 1), Resolve::Ready(moved));
    assert_eq!(b.stack.core.moved, [(IpAddr::V4(PEER), moved)]);
}

#[test]
fn our_address_is_announced_and_defended() {
    let mut config = owned();
    config.neighbor.announce = true;
    let mut b = Bed::new(config);
    let first = b.one();
    let p = arp_of(&first);
    assert_eq!((p.op.get(), p.spa(), p.tpa()), (1, OURS, OURS));
    assert_eq!(&first[..6], &Mac::BROADCAST.0);
    b.wait(Duration::from_secs(2));
    assert_eq!(b.take().len(), 1);
    b.wait(Duration::from_secs(20));
    assert_eq!((b.take().len(), b.stack.next_deadline()), (0, None));
    // Somebody else claims it: one defence in ten seconds.
    let claim = arp(1, PEER_MAC, OURS, Mac::default(), OURS, Mac::BROADCAST);
    b.put(&claim);
    assert_eq!(arp_of(&b.one()).spa(), OURS);
    b.refused(&claim, D::ArpConflict);
    assert_eq!(b.stack.core.neighbors.len(), 0);
    b.wait(Duration::from_secs(10));
    b.put(&claim);
    assert_eq!(b.take().len(), 1);
}

#[test]
fn arp_is_limited_in_rate_and_the_table_in_size() {
    let mut config = owned();
    config.neighbor.rate = config::Rate { per_second: 1, burst: 5 };
    config.neighbor.max_entries = 4;
    let mut b = Bed::new(config);
    for i in 2..12 {
        assert_eq!(resolve(&mut b, &format!("10.0.0.{i}"), i), Resolve::Pending);
    }
    // Those who had to go failed, the oldest first.
    let failed: Vec<_> = b.stack.core.resolved.iter().map(|(w, m)| (w.0, *m)).collect();
    assert_eq!(failed, (2..8).map(|i| (i, None)).collect::<Vec<_>>());
    assert_eq!((b.take().len(), b.drops(D::ArpRateLimited)), (5, 5));
    assert_eq!(b.stack.core.neighbors.len(), 4);
}

#[test]
fn waiters_of_a_neighbour_are_bounded() {
    let mut config = owned();
    config.neighbor.max_waiters = 2;
    let mut b = Bed::new(config);
    let answers: Vec<_> = (0..3).map(|i| resolve(&mut b, "10.0.0.2", i)).collect();
    assert_eq!(answers, [Resolve::Pending, Resolve::Pending, Resolve::Failed]);
}

#[test]
fn on_a_shared_address_the_kernel_is_asked() {
    let mut b = Bed::new(Config { mode: Mode::Shared, ..owned() });
    assert_eq!(resolve(&mut b, "10.0.0.2", 1), Resolve::Pending);
    assert_eq!(resolve(&mut b, "fe80::2", 2), Resolve::Pending);
    assert_eq!(b.take().len(), 0);
    assert_eq!(::core::mem::take(&mut b.stack.core.neighbor_requests), [ip("10.0.0.2"), ip("fe80::2")]);
    // Its deletion of an older entry is no answer.
    b.stack.core.set_neighbor(ip("10.0.0.2"), Neighbor::Gone);
    b.stack.core.set_neighbor(ip("10.0.0.2"), Neighbor::Known(PEER_MAC));
    b.stack.core.set_neighbor(ip("fe80::2"), Neighbor::Failed);
    assert_eq!(b.stack.core.resolved, [(Waiter(1), Some(PEER_MAC)), (Waiter(2), None)]);
    b.wait(Duration::from_secs(1000));
    assert_eq!(resolve(&mut b, "10.0.0.2", 1), Resolve::Ready(PEER_MAC));
    b.stack.core.set_neighbor(ip("10.0.0.2"), Neighbor::Gone);
    assert_eq!(resolve(&mut b, "10.0.0.2", 1), Resolve::Pending);
}

// The way out.

#[test]
fn packets_are_cut_to_small_links() {
    for mtu in [68, 128, 576, 1500] {
        let mut b = Bed::new(Config { mtu, ..raw() });
        let id = listener(&mut b, "10.0.0.1:99");
        let Stack { udp, core, .. } = &mut b.stack;
        let body: Vec<u8> = (0..4000).map(|i| i as u8).collect();
        udp.send(core, id, &[&body], Some(addr("10.0.0.2:5")), &Default::default()).unwrap();
        let out = b.take();
        assert_eq!(out.len(), 4008usize.div_ceil((mtu - 20) & !7));
        let mut data = Vec::new();
        let ident = sent(&out[0]).0.ident.get();
        for f in &out {
            let (h, p) = sent(f);
            assert!(f.len() <= mtu && !h.dont_fragment() && h.ident.get() == ident);
            assert_eq!(h.fragment_offset(), data.len());
            data.extend(p);
        }
        assert_eq!(&data[8..], &body[..]);
    }
}

#[test]
fn identifications_of_packets_that_may_be_cut_differ() {
    let mut b = Bed::new(raw());
    let id = listener(&mut b, "10.0.0.1:99");
    b.stack.udp.options(id).path_mtu = datagram::PathMtu::Dont;
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..100 {
        let Stack { udp, core, .. } = &mut b.stack;
        udp.send(core, id, &[b"x"], Some(addr("10.0.0.2:5")), &Default::default()).unwrap();
        let (h, _) = sent(&b.one());
        assert!(!h.dont_fragment());
        seen.insert(h.ident.get());
    }
    assert_eq!(seen.len(), 100);
    b.stack.udp.options(id).path_mtu = datagram::PathMtu::Want;
    let Stack { udp, core, .. } = &mut b.stack;
    udp.send(core, id, &[b"x"], Some(addr("10.0.0.2:5")), &Default::default()).unwrap();
    let (h, _) = sent(&b.one());
    assert_eq!((h.dont_fragment(), h.ident.get()), (true, 0));
}

#[test]
fn full_queues_and_empty_pools_are_counted() {
    let mut b = Bed::new(raw());
    b.stack.core.tx = TxQueue::new(1);
    b.put(&echo(b"a"));
    b.refused_later();
}

impl Bed {
    /// A second echo finds no room and is not answered.
    fn refused_later(&mut self) {
        self.put(&echo(b"b"));
        assert_eq!(self.drops(D::TransmitQueueFull), 1);
        assert_eq!(self.take().len(), 1);
        // With no frame left there is no answer either.
        let pool = &mut self.stack.core.pool;
        let mut held: Vec<_> = ::core::iter::from_fn(|| pool.alloc()).collect();
        pool.free(held.pop().unwrap());
        self.stack.core.lent = held.len();
        self.put(&echo(b"c"));
        assert_eq!((self.drops(D::PoolExhausted), self.take().len()), (1, 0));
        self.stack.core.lent = 0;
        held.into_iter().for_each(|f| self.stack.core.pool.free(f));
        self.stack.assert_conserved();
    }
}

#[test]
fn packets_larger_than_a_frame_are_taken_in() {
    let mut b = Bed::with_pool(Config { mtu: 9000, ..owned() }, 64, 1024);
    let id = listener(&mut b, "10.0.0.1:99");
    for len in [900, 1000, 2000, 5001, 8972] {
        // Drivers' frames end anywhere: the checksum goes on at odd places too.
        let body: Vec<u8> = (0..len).map(|i| (i * 13) as u8).collect();
        let mut frame = eth(OUR_MAC, ethernet::IPV4, &udp_packet("10.0.0.2:9", "10.0.0.1:99", &body));
        b.put(&frame);
        assert_eq!(received(&mut b, id).unwrap(), body);
        frame.extend([0; 2000]);
        b.put(&frame);
        assert_eq!(received(&mut b, id).unwrap(), body, "with padding of frames");
        *frame.get_mut(len + 20).unwrap() ^= 1;
        b.refused(&frame, D::UdpBadChecksum);
    }
}

#[test]
fn while_the_link_is_down_there_is_no_path() {
    let mut b = Bed::new(owned());
    let id = listener(&mut b, "10.0.0.1:99");
    let send = |b: &mut Bed, to| {
        let Stack { udp, core, .. } = &mut b.stack;
        udp.send(core, id, &[b"x"], Some(addr(to)), &Default::default())
    };
    b.learn_peer();
    assert_eq!(send(&mut b, "10.0.0.2:9"), Ok(1));
    b.stack.core.set_link(false);
    assert_eq!(send(&mut b, "10.0.0.2:9"), Err(crate::errno::Errno::ENETDOWN));
    assert_eq!(send(&mut b, "10.0.0.1:99"), Ok(1));
    b.stack.core.set_link(true);
    assert_eq!(send(&mut b, "10.0.0.2:9"), Ok(1));
}

#[test]
fn what_finds_no_way_out_is_counted() {
    // An echo from beyond every route.
    let mut b = Bed::new(raw());
    let request = icmp(icmpv4::ECHO_REQUEST, 0, (1, 1), b"");
    let far = Ipv4Addr::new(192, 0, 2, 1);
    b.refused(&ipv4_of(far, OURS, ipv4::ICMP, 0, &request), D::NoRoute);
    b.refused_quietly(&ipv4_of(far, OURS, 99, 0, &[0; 8]), D::NoRoute);
    // More for one neighbour than the device takes when it is found.
    let mut b = Bed::new(Config { transmit_queue: 8, ..owned() });
    let id = listener(&mut b, "10.0.0.1:99");
    let send = |b: &mut Bed, to| {
        let Stack { udp, core, .. } = &mut b.stack;
        udp.send(core, id, &[b"x"], Some(addr(to)), &Default::default())
    };
    for _ in 0..10 {
        send(&mut b, "10.0.0.2:9").unwrap();
    }
    b.take();
    b.learn_peer();
    assert_eq!((b.take().len(), b.drops(D::TransmitQueueFull)), (8, 2));
    // No frame for what loops, and none for fragments.
    let mut b = Bed::with_pool(raw(), 8, 2048);
    let id = listener(&mut b, "10.0.0.1:99");
    let Stack { udp, core, .. } = &mut b.stack;
    udp.send(core, id, &[b"x"], Some(addr("10.0.0.1:99")), &Default::default()).unwrap();
    let held: Vec<_> = ::core::iter::from_fn(|| core.pool.alloc()).collect();
    core.lent = held.len();
    b.take();
    assert_eq!(b.drops(D::PoolExhausted), 1);
    let mut held = held.into_iter();
    b.stack.core.lent -= 1;
    b.stack.core.pool.free(held.next().unwrap());
    b.stack.core.lent -= 1;
    b.stack.core.pool.free(held.next().unwrap());
    b.put(&fragment(0, 8, true));
    b.refused(&fragment(2048, 4096, true), D::PoolExhausted);
    held.for_each(|f| b.stack.core.pool.free(f));
    b.stack.core.lent = 0;
    b.stack.assert_conserved();
}

impl Bed {
    fn refused_quietly(&mut self, bytes: &[u8], reason: D) {
        let before = self.drops(reason);
        self.put(bytes);
        assert_eq!((self.drops(reason), self.take().len()), (before + 1, 0));
    }
}

#[test]
fn a_connection_that_hears_nothing_has_its_next_hop_confirmed() {
    let mut b = Bed::new(owned());
    b.learn_peer();
    let Stack { tcp, core, .. } = &mut b.stack;
    let open = tcp::Open {
        remote: addr("10.0.0.2:80"),
        source: None,
        port: None,
        token: 1,
        inherit: &tcp::Inherit {
            options: core.config.tcp.options.clone(),
            ttl: 64,
            tos: 0,
            reuse: Default::default(),
            defer_accept: 0,
            fast_open: 0,
            fast_open_keys: None,
            fast_open_no_cookie: false,
        },
    };
    tcp.connect(core, &open, None).unwrap();
    let is_arp = |f: &Vec<u8>| f[12..14] == ethernet::ARP.to_be_bytes();
    assert!(!is_arp(&b.one()));
    let end = b.now + Duration::from_secs(70);
    let mut asked = 0;
    let moved = Mac([2, 7, 7, 7, 7, 7]);
    while b.now < end {
        b.now = b.stack.next_deadline().unwrap();
        for frame in b.take() {
            if !is_arp(&frame) {
                // Once it is found again, its new address is used.
                assert_eq!(&frame[..6], if asked > 3 { &moved.0 } else { &PEER_MAC.0 });
                continue;
            }
            asked += 1;
            // To its old address three times, then to everybody.
            assert_eq!(&frame[..6], if asked <= 3 { &PEER_MAC.0 } else { &Mac::BROADCAST.0 });
            if asked == 4 {
                b.put(&arp(warp::REPLY, moved, PEER, OUR_MAC, OURS, OUR_MAC));
            }
        }
    }
    assert_eq!(asked, 4);
}

#[test]
fn whatever_comes_no_frame_is_lost_and_nothing_panics() {
    for (seed, config) in [owned(), raw(), Config { mode: Mode::Shared, ..owned() }].into_iter().enumerate() {
        let is_raw = config.raw_ip;
        let mut b = Bed::with_pool(config, 512, 2048);
        listener(&mut b, "0.0.0.0:99");
        if let Ok(id) = b.stack.icmp.open(&b.stack.core, 7, true) {
            let _ = b.stack.icmp.connect(&mut b.stack.core, id, None);
        }
        let mut rng = crate::rng::Rng::new(seed as u64);
        let whole = datagram(3000);
        let mut seeds: Vec<Vec<u8>> = fragments(&whole, 1480);
        seeds.extend([
            udp_packet("10.0.0.2:9", "10.0.0.1:99", b"hello"),
            udp_packet("10.0.0.2:9", "10.0.0.255:99", b"hello"),
            echo(&[1; 300]),
            ipv4_in(ipv4::ICMP, &icmp(3, 4, (0, 900), &whole[..48])),
            with_options(&[7, 7, 4, 0, 0, 0, 0, 0], &[0; 40]),
            ipv4_in(ipv4::TCP, &[0x50; 60]),
        ]);
        let arp = arp(1, PEER_MAC, PEER, Mac::default(), OURS, Mac::BROADCAST);
        for round in 0..20_000u32 {
            let pick = rng.below(seeds.len() as u32 + 1) as usize;
            let mut bytes = match seeds.get(pick) {
                Some(packet) if is_raw => packet.clone(),
                Some(packet) => eth(OUR_MAC, ethernet::IPV4, packet),
                None => arp.clone(),
            };
            for _ in 0..rng.below(4) {
                let at = rng.below(bytes.len().min(64) as u32) as usize;
                bytes[at] = rng.next_u32() as u8;
            }
            if rng.below(8) == 0 {
                bytes.truncate(1 + rng.below(bytes.len() as u32) as usize);
            }
            let ip = if is_raw { 0 } else { 14 };
            if rng.below(4) > 0 && bytes.len() > ip + 60 {
                fix_header(&mut bytes[ip..]);
            }
            b.put(&bytes);
            if round % 64 == 0 {
                b.wait(Duration::from_millis(rng.below(500).into()));
                b.take();
            }
        }
        b.wait(Duration::from_secs(100));
        b.take();
    }
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    let run = || {
        let mut b = Bed::new(owned());
        let Stack { udp, core, .. } = &mut b.stack;
        let id = udp.open(core, 1, false).unwrap();
        udp.bind(core, id, addr("0.0.0.0:0"), &mut |_, _| Ok(())).unwrap();
        udp.options(id).path_mtu = datagram::PathMtu::Dont;
        for i in 0..50 {
            let to = Some(addr(&format!("10.0.{}.2:5", i % 3)));
            let _ = udp.send(core, id, &[&[0; 2000]], to, &Default::default());
        }
        b.learn_peer();
        b.take()
    };
    assert_eq!(run(), run());
}

/// An IP packet that ends within its own header, by its length, and goes on as a plain
/// segment behind that.
#[test]
fn a_packet_shorter_than_its_header_is_dropped() {
    for total in 8..20u16 {
        let mut bed = Bed::new(owned());
        bed.learn_peer();
        let mut tcp = vec![0; 20];
        (tcp[12], tcp[13]) = (0x50, 0x10);
        let mut packet = ipv4_in(6, &tcp);
        packet[2..4].copy_from_slice(&total.to_be_bytes());
        fix_header(&mut packet);
        bed.refused(&eth(OUR_MAC, 0x0800, &packet), DropReason::Ipv4BadHeader);
    }
}
