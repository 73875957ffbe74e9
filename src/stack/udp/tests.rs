//! UDP and ICMP sockets on packets made by hand.

use crate::errno::Errno;
use crate::stack::datagram::{PathMtu, SendMeta};
use crate::stack::testing::*;
use crate::stack::{Config, Event, Stack};
use crate::tcp::Readiness;
use crate::telemetry::DropReason as D;
use crate::wire::{icmpv4, ipv4};
use core::net::{IpAddr, SocketAddr};

/// A UDP socket as tests use it.
struct Udp<'a>(&'a mut Stack, u32);

impl Bed {
    fn open(&mut self, token: u32) -> u32 {
        let Stack { udp, core, .. } = &mut self.stack;
        udp.open(core, token, false).unwrap()
    }

    fn udp(&mut self, id: u32) -> Udp<'_> {
        Udp(&mut self.stack, id)
    }

    fn bound(&mut self, token: u32, at: &str) -> u32 {
        let id = self.open(token);
        self.udp(id).bind(at).unwrap();
        id
    }

    fn events(&mut self) -> Vec<(u32, Readiness)> {
        self.stack.turn(self.now);
        self.stack.core.events.drain(..).map(|e: Event| (e.token, e.ready)).collect()
    }
}

impl Udp<'_> {
    fn bind(&mut self, at: &str) -> Result<SocketAddr, Errno> {
        self.0.udp.bind(&mut self.0.core, self.1, addr(at), &mut |_, _| Ok(()))
    }

    fn connect(&mut self, to: &str) -> Result<(), Errno> {
        self.0.udp.connect(&mut self.0.core, self.1, addr(to))
    }

    fn send(&mut self, data: &[u8], to: Option<&str>) -> Result<usize, Errno> {
        self.send_with(data, to, &SendMeta::default())
    }

    fn send_with(&mut self, data: &[u8], to: Option<&str>, meta: &SendMeta) -> Result<usize, Errno> {
        self.0.udp.send(&mut self.0.core, self.1, &[data], to.map(addr), meta)
    }

    fn recv(&mut self) -> Result<(Vec<u8>, String), Errno> {
        let mut buffer = vec![0; 70_000];
        let meta = self.0.udp.recv(&mut self.0.core, self.1, &mut buffer, false)?;
        buffer.truncate(meta.full_len);
        Ok((buffer, meta.from.map(|f| f.to_string()).unwrap_or_default()))
    }

    fn error(&mut self) -> Option<Errno> {
        self.0.udp.take_error(self.1)
    }
}

fn quoted(src: &str, dst: &str, kind: u8, code: u8, mtu: u16) -> Vec<u8> {
    let quote = &udp_packet(src, dst, b"12345678")[..28];
    ipv4_in(ipv4::ICMP, &icmp(kind, code, (0, mtu), quote))
}

#[test]
fn datagrams_come_with_their_circumstances() {
    let mut b = Bed::new(raw());
    let id = b.bound(3, "0.0.0.0:53");
    b.put(&udp_packet("10.0.0.2:1000", "10.0.0.1:53", b"query"));
    assert_eq!(b.events(), [(3, Readiness::IN | Readiness::OUT)]);
    let mut buffer = [0; 3];
    let Stack { udp, core, .. } = &mut b.stack;
    assert_eq!(udp.next_len(id), 5);
    let peeked = udp.recv(core, id, &mut buffer, true).unwrap();
    let meta = udp.recv(core, id, &mut buffer, false).unwrap();
    assert_eq!((peeked, &buffer), (meta, b"que"));
    assert_eq!(meta.from, Some(addr("10.0.0.2:1000")));
    assert_eq!((meta.to, meta.tos, meta.ttl, meta.full_len), (ip("10.0.0.1"), 0x10, 60, 5));
    assert_eq!(meta.time, b.now);
    assert_eq!(b.udp(id).recv(), Err(Errno::EAGAIN));
    assert_eq!(b.stack.udp.readiness(id), Readiness::OUT);
}

#[test]
fn link_padding_a_missing_checksum_and_empty_datagrams_are_fine() {
    let mut b = Bed::new(raw());
    let id = b.bound(3, "0.0.0.0:53");
    let mut padded = udp_packet("10.0.0.2:1000", "10.0.0.1:53", b"");
    padded.extend([0xee; 18]);
    b.put(&padded);
    assert_eq!(b.udp(id).recv().unwrap().0, b"");
    // UDP's own length may be less than IP's.
    let mut datagram = udp(addr("10.0.0.2:1000"), addr("10.0.0.1:53"), b"ab");
    datagram[6..8].fill(0);
    datagram.extend(b"junk");
    b.put(&ipv4_in(ipv4::UDP, &datagram));
    assert_eq!(b.udp(id).recv().unwrap().0, b"ab");
}

#[test]
fn partial_checksums_are_accepted_in_exactly_their_form_and_only_where_expected() {
    let partial = |extra: u16| {
        let mut d = udp(addr("10.0.0.2:1000"), addr("10.0.0.1:53"), b"ab");
        let sum = crate::wire::checksum::pseudo_v4([10, 0, 0, 2], [10, 0, 0, 1], 17, 10).fold();
        d[6..8].copy_from_slice(&(sum + extra).to_be_bytes());
        ipv4_in(ipv4::UDP, &d)
    };
    let mut b = Bed::new(raw());
    b.bound(3, "0.0.0.0:53");
    b.refused(&partial(0), D::UdpBadChecksum);
    let mut b = Bed::new(Config { partial_checksums: true, ..raw() });
    let id = b.bound(3, "0.0.0.0:53");
    b.put(&partial(0));
    assert_eq!(b.udp(id).recv().unwrap().0, b"ab");
    b.refused(&partial(1), D::UdpBadChecksum);
    b.put(&udp_packet("10.0.0.2:1000", "10.0.0.1:53", b"whole"));
    assert_eq!(b.udp(id).recv().unwrap().0, b"whole");
}

#[test]
fn what_is_sent_has_header_and_checksum() {
    let mut b = Bed::new(raw());
    let id = b.bound(3, "0.0.0.0:53");
    b.udp(id).send(b"answer", Some("10.0.0.2:1000")).unwrap();
    let (h, p) = sent(&b.one());
    assert_eq!((h.source(), h.destination(), h.ttl, h.tos), (OURS, PEER, 64, 0));
    assert_eq!((&p[..6], &p[8..]), (&[0, 53, 3, 232, 0, 14][..], &b"answer"[..]));
    let meta = SendMeta { tos: Some(0xb8), ttl: Some(3), source: Some(ip("10.0.0.1")) };
    b.udp(id).send_with(b"x", Some("10.0.0.2:1000"), &meta).unwrap();
    let (h, _) = sent(&b.one());
    assert_eq!((h.ttl, h.tos), (3, 0xb8));
    let meta = SendMeta { source: Some(ip("10.0.0.7")), ..meta };
    assert_eq!(b.udp(id).send_with(b"x", Some("10.0.0.2:1"), &meta), Err(Errno::EINVAL));
}

#[test]
fn a_checksum_of_zero_is_sent_as_ones() {
    let mut b = Bed::new(raw());
    let id = b.bound(3, "0.0.0.0:53");
    b.udp(id).send(&[0, 0], Some("10.0.0.2:1000")).unwrap();
    let (_, p) = sent(&b.one());
    let field = u16::from_be_bytes([p[6], p[7]]);
    // A payload of that value makes the sum all ones, and the checksum zero.
    b.udp(id).send(&field.to_be_bytes(), Some("10.0.0.2:1000")).unwrap();
    let (_, p) = sent(&b.one());
    assert_eq!(&p[6..8], &[0xff, 0xff]);
}

#[test]
fn parts_are_sent_as_one() {
    let mut b = Bed::new(raw());
    let id = b.bound(3, "0.0.0.0:53");
    for parts in [&[&b"abc"[..], b"", b"d", b"efgh"][..], &[&[1; 1001], &[2; 999], &[3; 501]], &[]] {
        let Stack { udp, core, .. } = &mut b.stack;
        let to = Some(addr("10.0.0.2:1000"));
        let whole = parts.concat();
        let n = udp.send(core, id, parts, to, &SendMeta::default());
        assert_eq!(n, Ok(whole.len()));
        let data: Vec<u8> = b.take().iter().flat_map(|f| sent(f).1).collect();
        assert_eq!(&data[8..], &whole[..]);
    }
}

#[test]
fn send_errors_are_the_systems() {
    let mut b = Bed::new(raw());
    let id = b.bound(3, "0.0.0.0:53");
    assert_eq!(b.udp(id).send(b"", None), Err(Errno::EDESTADDRREQ));
    assert_eq!(b.udp(id).send(b"", Some("10.0.0.2:0")), Err(Errno::EINVAL));
    assert_eq!(b.udp(id).send(b"", Some("[::1]:5")), Err(Errno::EAFNOSUPPORT));
    assert_eq!(b.udp(id).send(b"", Some("11.0.0.2:5")), Err(Errno::ENETUNREACH));
    assert_eq!(b.udp(id).send(&[0; 65_508], Some("10.0.0.2:5")), Err(Errno::EMSGSIZE));
    assert_eq!(b.udp(id).send(b"", Some("10.0.0.255:5")), Err(Errno::EACCES));
    assert_eq!(b.udp(id).connect("10.0.0.255:5"), Err(Errno::EACCES));
    b.stack.udp.options(id).broadcast = true;
    assert_eq!(b.udp(id).send(b"", Some("10.0.0.255:5")), Ok(0));
    b.take();
    b.stack.udp.options(id).path_mtu = PathMtu::Do;
    assert_eq!(b.udp(id).send(&[0; 1473], Some("10.0.0.2:5")), Err(Errno::EMSGSIZE));
    assert_eq!(b.udp(id).send(&[0; 1472], Some("10.0.0.2:5")), Ok(1472));
    let unbound = b.open(4);
    assert_eq!(b.udp(unbound).send(b"", Some("10.0.0.2:5")), Err(Errno::EINVAL));
    let lo = b.bound(5, "127.0.0.1:77");
    assert_eq!(b.udp(lo).send(b"", Some("10.0.0.2:5")), Err(Errno::EINVAL));
}

#[test]
fn a_connected_socket_hears_its_peer_alone() {
    let mut b = Bed::new(raw());
    let any = b.bound(1, "0.0.0.0:53");
    let one = b.open(2);
    for id in [any, one] {
        b.stack.udp.options(id).reuse_addr = true;
    }
    // The first was bound without it.
    assert_eq!(b.udp(one).bind("0.0.0.0:53"), Err(Errno::EADDRINUSE));
    b.udp(one).bind("0.0.0.0:54").unwrap();
    b.udp(one).connect("10.0.0.2:1000").unwrap();
    assert_eq!(b.stack.udp.local_addr(one), addr("10.0.0.1:54"));
    assert_eq!(b.stack.udp.peer_addr(one), Some(addr("10.0.0.2:1000")));
    b.put(&udp_packet("10.0.0.2:1000", "10.0.0.1:54", b"yes"));
    assert_eq!(b.udp(one).recv().unwrap().0, b"yes");
    b.put(&udp_packet("10.0.0.2:1001", "10.0.0.1:54", b"no"));
    b.put(&udp_packet("10.0.0.3:1000", "10.0.0.1:54", b"no"));
    assert_eq!((b.udp(one).recv(), b.drops(D::UdpNoSocket)), (Err(Errno::EAGAIN), 2));
    b.take();
    b.udp(one).send(b"x", None).unwrap();
    assert_eq!(sent(&b.one()).0.destination(), PEER);
    // Without the peer it is bound as before.
    b.stack.udp.disconnect(one);
    assert_eq!(b.stack.udp.local_addr(one), addr("0.0.0.0:54"));
    b.put(&udp_packet("10.0.0.3:1000", "10.0.0.1:54", b"now"));
    assert_eq!(b.udp(one).recv().unwrap().0, b"now");
    assert_eq!(b.udp(one).send(b"x", None), Err(Errno::EDESTADDRREQ));
}

#[test]
fn the_most_exact_socket_wins() {
    let mut config = raw();
    config.addresses.push((ip("10.0.0.9"), 24));
    let mut b = Bed::new(config);
    let ids: Vec<u32> = (0..3).map(|i| b.open(i)).collect();
    for &id in &ids {
        b.stack.udp.options(id).reuse_addr = true;
    }
    b.udp(ids[0]).bind("0.0.0.0:53").unwrap();
    b.udp(ids[1]).bind("10.0.0.9:53").unwrap();
    b.udp(ids[2]).bind("10.0.0.9:53").unwrap();
    b.udp(ids[2]).connect("10.0.0.2:7").unwrap();
    for (src, dst, to) in [
        ("10.0.0.2:6", "10.0.0.1:53", 0),
        ("10.0.0.2:6", "10.0.0.9:53", 1),
        ("10.0.0.2:7", "10.0.0.9:53", 2),
    ] {
        b.put(&udp_packet(src, dst, b"x"));
        for (i, &id) in ids.iter().enumerate() {
            assert_eq!(b.udp(id).recv().is_ok(), i == to, "{src} to {dst}");
        }
    }
    // Nobody on the address: told so.
    let (core, udp) = (&mut b.stack.core, &mut b.stack.udp);
    assert_eq!(udp.close(core, ids[0]), Some(addr("0.0.0.0:53")));
    b.put(&udp_packet("10.0.0.2:6", "10.0.0.1:53", b"x"));
    assert_eq!(sent(&b.one()).1[..2], [3, 3]);
}

#[test]
fn bind_follows_linux() {
    let mut b = Bed::new(raw());
    let with = |b: &mut Bed, addr: bool, port: bool| {
        let id = b.open(0);
        let o = b.stack.udp.options(id);
        (o.reuse_addr, o.reuse_port) = (addr, port);
        id
    };
    for (first, second, ok) in [
        ((false, false), (false, false), false),
        ((true, false), (false, false), false),
        ((true, false), (true, false), true),
        ((false, true), (false, true), true),
        ((true, false), (false, true), false),
        ((true, true), (false, true), true),
    ] {
        for (one, two) in [
            ("0.0.0.0:53", "0.0.0.0:53"),
            ("0.0.0.0:53", "10.0.0.1:53"),
            ("10.0.0.1:53", "0.0.0.0:53"),
            ("10.0.0.1:53", "10.0.0.1:53"),
        ] {
            let (a, c) = (with(&mut b, first.0, first.1), with(&mut b, second.0, second.1));
            b.udp(a).bind(one).unwrap();
            let expected = if ok { Ok(addr(two)) } else { Err(Errno::EADDRINUSE) };
            assert_eq!(b.udp(c).bind(two), expected, "{first:?} {second:?} {one} {two}");
            let Stack { udp, core, .. } = &mut b.stack;
            udp.close(core, a);
            udp.close(core, c);
        }
    }
    let id = b.bound(0, "127.0.0.1:53");
    assert_eq!(b.udp(id).bind("127.0.0.1:54"), Err(Errno::EINVAL));
    b.bound(0, "10.0.0.1:53");
    let id = b.open(0);
    assert_eq!(b.udp(id).bind("10.0.0.2:55"), Err(Errno::EADDRNOTAVAIL));
    assert_eq!(b.udp(id).bind("[::1]:55"), Err(Errno::EAFNOSUPPORT));
    b.udp(id).bind("10.0.0.255:55").unwrap();
}

#[test]
fn ephemeral_ports_are_scattered_in_their_range_and_run_out() {
    let mut config = raw();
    config.ephemeral_ports = (40_000, 40_031);
    let mut b = Bed::new(config);
    let mut ports = Vec::new();
    for i in 0..32 {
        let id = b.open(i);
        ports.push(b.udp(id).bind("0.0.0.0:0").unwrap().port());
    }
    let rising = ports.windows(2).filter(|w| w[1] == w[0] + 1).count();
    assert!(rising < 16, "{ports:?}");
    ports.sort_unstable();
    assert_eq!(ports, (40_000..=40_031).collect::<Vec<_>>());
    let id = b.open(99);
    assert_eq!(b.udp(id).bind("0.0.0.0:0"), Err(Errno::EADDRINUSE));
}

#[test]
fn whoever_is_outside_has_a_say_over_ports() {
    let mut config = raw();
    config.ephemeral_ports = (40_000, 40_003);
    let mut b = Bed::new(config);
    let id = b.open(1);
    let Stack { udp, core, .. } = &mut b.stack;
    let mut asked = Vec::new();
    let mut hold = |ip: IpAddr, port: u16| {
        asked.push((ip, port));
        if port == 40_002 { Ok(()) } else { Err(Errno::EADDRINUSE) }
    };
    assert_eq!(udp.bind(core, id, addr("0.0.0.0:53"), &mut hold), Err(Errno::EADDRINUSE));
    assert_eq!(udp.bind(core, id, addr("0.0.0.0:0"), &mut hold), Ok(addr("0.0.0.0:40002")));
    assert_eq!(asked[0], (ip("0.0.0.0"), 53));
    let id = udp.open(core, 2, false).unwrap();
    let refused = udp.bind(core, id, addr("0.0.0.0:53"), &mut |_, _| Err(Errno::EACCES));
    assert_eq!(refused, Err(Errno::EACCES));
    assert!(udp.bind(core, id, addr("0.0.0.0:53"), &mut |_, _| Ok(())).is_ok());
}

#[test]
fn a_reuseport_group_shares_peers_and_the_latest_reuseaddr_has_all() {
    let mut b = Bed::new(raw());
    for (port, group) in [(53, true), (54, false)] {
        let ids: Vec<u32> = (0..4).map(|i| b.open(i)).collect();
        for &id in &ids {
            let o = b.stack.udp.options(id);
            (o.reuse_addr, o.reuse_port) = (!group, group);
            b.udp(id).bind(&format!("0.0.0.0:{port}")).unwrap();
        }
        for peer in 0..64 {
            for _ in 0..2 {
                b.put(&udp_packet(&format!("10.0.0.2:{}", 1000 + peer), &format!("10.0.0.1:{port}"), b""));
            }
        }
        let mut counts = [0; 4];
        for (i, &id) in ids.iter().enumerate() {
            while b.udp(id).recv().is_ok() {
                counts[i] += 1;
            }
        }
        if group {
            // A peer's datagrams stay together.
            assert!(counts.iter().all(|&c| c > 8 && c % 2 == 0), "{counts:?}");
        } else {
            assert_eq!(counts, [0, 0, 0, 128]);
        }
    }
}

#[test]
fn receive_queues_are_bounded_in_bytes_and_datagrams() {
    let mut config = raw();
    config.datagram.max_datagrams = 5;
    let mut b = Bed::new(config);
    let id = b.bound(1, "0.0.0.0:53");
    let put = |b: &mut Bed, len| b.put(&udp_packet("10.0.0.2:9", "10.0.0.1:53", &vec![0; len]));
    (0..7).for_each(|_| put(&mut b, 10));
    assert_eq!((b.drops(D::UdpQueueFull), b.stack.held_frames()), (2, 5));
    while b.udp(id).recv().is_ok() {}
    b.stack.udp.options(id).receive_buffer = 250;
    (0..5).for_each(|_| put(&mut b, 100));
    assert_eq!((b.drops(D::UdpQueueFull), b.stack.held_frames()), (5, 2));
    while b.udp(id).recv().is_ok() {}
    // One always fits.
    put(&mut b, 1000);
    assert_eq!(b.udp(id).recv().unwrap().0.len(), 1000);
    put(&mut b, 1000);
    let Stack { udp, core, .. } = &mut b.stack;
    udp.close(core, id);
    assert_eq!(b.stack.held_frames(), 0);
}

#[test]
fn where_frames_are_few_payloads_are_copied() {
    let mut b = Bed::with_pool(raw(), 256, 2048);
    let id = b.bound(1, "0.0.0.0:53");
    for i in 0..250u32 {
        b.put(&udp_packet("10.0.0.2:9", "10.0.0.1:53", &[i as u8; 600][..200 + i as usize]));
    }
    let held = b.stack.held_frames();
    assert!((180..=192).contains(&held), "{held} frames");
    assert_eq!(b.drops(D::UdpQueueFull), 0);
    for i in 0..250u32 {
        assert_eq!(b.udp(id).recv().unwrap().0, vec![i as u8; 200 + i as usize]);
    }
    assert_eq!(b.stack.held_frames(), 0);
    b.stack.assert_conserved();
}

#[test]
fn frames_are_lent_and_given_without_a_copy() {
    let mut b = Bed::new(raw());
    let id = b.bound(1, "0.0.0.0:53");
    b.put(&udp_packet("10.0.0.2:9", "10.0.0.1:53", b"hello"));
    let Stack { udp, core, .. } = &mut b.stack;
    let (packet, meta) = udp.recv_packet(core, id).unwrap();
    assert_eq!(core.pool.bytes(&packet.head), b"hello");
    packet.free(&mut core.pool);
    let mut frame = udp.send_alloc(core, id).unwrap();
    frame.truncate(4);
    core.pool.bytes_mut(&mut frame).copy_from_slice(b"back");
    udp.send_frame(core, id, frame, meta.from, &SendMeta::default()).unwrap();
    assert_eq!(&sent(&b.one()).1[8..], b"back");
    // A range somewhere else is sent too, by a copy.
    let Stack { udp, core, .. } = &mut b.stack;
    let copied = core.counters.tx_copied_bytes;
    let mut frame = core.pool.alloc().unwrap();
    frame.set_range(0, 3);
    core.pool.bytes_mut(&mut frame).copy_from_slice(b"abc");
    udp.send_frame(core, id, frame, meta.from, &SendMeta::default()).unwrap();
    assert_eq!(core.counters.tx_copied_bytes, copied + 3);
    assert_eq!(&sent(&b.one()).1[8..], b"abc");
    // In an error the frame comes back.
    let Stack { udp, core, .. } = &mut b.stack;
    let frame = udp.send_alloc(core, id).unwrap();
    let (error, frame) = udp.send_frame(core, id, frame, None, &SendMeta::default()).unwrap_err();
    assert_eq!(error, Errno::EDESTADDRREQ);
    core.pool.free(frame);
    b.stack.assert_conserved();
}

#[test]
fn icmp_errors_reach_connected_sockets_as_in_linux() {
    let mut b = Bed::new(raw());
    let id = b.bound(1, "0.0.0.0:53");
    let port = quoted("10.0.0.1:53", "10.0.0.2:9", 3, 3, 0);
    // Not connected: nothing is told.
    b.put(&port);
    assert_eq!(b.udp(id).error(), None);
    b.udp(id).connect("10.0.0.2:9").unwrap();
    b.events();
    b.put(&port);
    assert_eq!(b.events(), [(1, Readiness::OUT | Readiness::ERR)]);
    assert_eq!(b.udp(id).recv(), Err(Errno::ECONNREFUSED));
    assert_eq!(b.udp(id).recv(), Err(Errno::EAGAIN));
    for (kind, code, errno, hard) in [
        (3, 2, Errno::ENOPROTOOPT, true),
        (3, 10, Errno::EHOSTUNREACH, true),
        (3, 13, Errno::EHOSTUNREACH, true),
        (12, 0, Errno::EPROTO, true),
        (3, 0, Errno::ENETUNREACH, false),
        (3, 1, Errno::EHOSTUNREACH, false),
        (3, 5, Errno::EOPNOTSUPP, false),
        (11, 0, Errno::EHOSTUNREACH, false),
        (3, 4, Errno::EMSGSIZE, false),
    ] {
        for all in [false, true] {
            b.stack.udp.options(id).all_errors = all;
            b.put(&quoted("10.0.0.1:53", "10.0.0.2:9", kind, code, 1400));
            assert_eq!(b.udp(id).error(), (all || hard).then_some(errno), "type {kind} code {code}");
        }
    }
    // A send tells it too.
    b.put(&port);
    assert_eq!(b.udp(id).send(b"x", None), Err(Errno::ECONNREFUSED));
    assert_eq!(b.udp(id).send(b"x", None), Ok(1));
    // Another peer's is none of its business.
    b.refused_error(&quoted("10.0.0.1:53", "10.0.0.3:9", 3, 3, 0));
}

impl Bed {
    fn refused_error(&mut self, bytes: &[u8]) {
        self.take();
        self.refused(bytes, D::IcmpQuoteInvalid);
    }
}

#[test]
fn a_path_mtu_that_icmp_tells_is_kept_to() {
    let mut b = Bed::new(raw());
    let id = b.bound(1, "0.0.0.0:53");
    b.put(&quoted("10.0.0.1:53", "10.0.0.2:9", 3, 4, 1000));
    b.udp(id).send(&[0; 1200], Some("10.0.0.2:9")).unwrap();
    let out = b.take();
    assert_eq!(out.iter().map(Vec::len).collect::<Vec<_>>(), [996, 252]);
    b.udp(id).send(&[0; 1200], Some("10.0.0.3:9")).unwrap();
    assert_eq!(b.take().len(), 1);
    b.stack.udp.options(id).path_mtu = PathMtu::Do;
    assert_eq!(b.udp(id).send(&[0; 1200], Some("10.0.0.2:9")), Err(Errno::EMSGSIZE));
    b.stack.udp.options(id).path_mtu = PathMtu::Probe;
    assert_eq!(b.udp(id).send(&[0; 1200], Some("10.0.0.2:9")), Ok(1200));
    b.take();
    // Too small to be true: only as small as is believed.
    b.stack.udp.options(id).path_mtu = PathMtu::Want;
    b.put(&quoted("10.0.0.1:53", "10.0.0.2:9", 3, 4, 68));
    b.udp(id).send(&[0; 1000], Some("10.0.0.2:9")).unwrap();
    assert_eq!(b.take()[0].len(), 548);
    // It is forgotten after ten minutes.
    b.wait(crate::time::Duration::from_secs(601));
    b.udp(id).send(&[0; 1200], Some("10.0.0.2:9")).unwrap();
    assert_eq!(b.take().len(), 1);
}

#[test]
fn broadcasts_reach_everybody_who_is_bound_for_them() {
    let mut b = Bed::new(raw());
    let ids: Vec<u32> = (0..4).map(|i| b.open(i)).collect();
    for (&id, at) in ids.iter().zip(["0.0.0.0:53", "10.0.0.255:53", "10.0.0.1:53", "0.0.0.0:53"]) {
        b.stack.udp.options(id).reuse_addr = true;
        b.udp(id).bind(at).unwrap();
    }
    b.put(&udp_packet("10.0.0.2:9", "10.0.0.255:53", b"all"));
    let got: Vec<bool> = ids.iter().map(|&id| b.udp(id).recv().is_ok()).collect();
    assert_eq!(got, [true, true, false, true]);
    b.refused(&udp_packet("10.0.0.2:9", "10.0.0.255:54", b"all"), D::UdpNoSocket);
}

#[test]
fn broadcasts_go_to_everybody_on_the_link() {
    let mut b = Bed::new(owned());
    let id = b.bound(1, "0.0.0.0:53");
    b.stack.udp.options(id).broadcast = true;
    for to in ["255.255.255.255:9", "10.0.0.255:9"] {
        b.udp(id).send(b"x", Some(to)).unwrap();
        let frame = b.one();
        assert_eq!(frame[..6], [0xff; 6]);
        assert_eq!(sent(&frame[14..]).0.source(), OURS);
    }
    b.udp(id).send(b"x", Some("224.1.2.3:9")).unwrap();
    let frame = b.one();
    assert_eq!((&frame[..6], frame[14 + 8]), (&[1, 0, 0x5e, 1, 2, 3][..], 1));
}

#[test]
fn a_datagram_larger_than_a_frame_is_one_packet_where_the_mtu_allows() {
    let config = || Config { mtu: 9000, multi_buffer: true, ..raw() };
    let mut b = Bed::new(config());
    let id = b.bound(1, "10.0.0.1:7");
    b.stack.udp.options(id).path_mtu = PathMtu::Do;
    for len in [2020, 2021, 4001, 8972] {
        let data: Vec<u8> = (0..len).map(|i| (i * 5) as u8).collect();
        assert_eq!(b.udp(id).send(&data, Some("10.0.0.2:9")), Ok(len));
        let out = b.one();
        let (h, p) = sent(&out);
        assert!(!h.is_fragment() && p[8..] == data, "{len} bytes");
        // And in again.
        b.put(&udp_packet("10.0.0.2:9", "10.0.0.1:7", &data));
        assert_eq!(b.udp(id).recv().unwrap().0, data);
        assert_eq!(b.stack.core.pool.available(), FRAMES);
    }
    assert_eq!(b.udp(id).send(&[0; 8973], Some("10.0.0.2:9")), Err(Errno::EMSGSIZE));
    // To ourselves.
    assert_eq!(b.udp(id).send(&[3; 8000], Some("10.0.0.1:7")), Ok(8000));
    b.events();
    assert_eq!(b.udp(id).recv().unwrap().0, [3; 8000]);
    assert_eq!(b.stack.core.pool.available(), FRAMES);
    // All frames of it or none.
    let mut b = Bed::with_pool(config(), 4, 2048);
    let id = b.bound(1, "10.0.0.1:7");
    assert_eq!(b.udp(id).send(&[0; 8972], Some("10.0.0.2:9")), Err(Errno::EAGAIN));
    assert_eq!(b.stack.core.pool.available(), 4);
    b.stack.assert_conserved();
}

#[test]
fn a_jumbo_datagram_waits_for_its_neighbour_whole() {
    let mut b = Bed::new(Config { mtu: 9000, multi_buffer: true, ..owned() });
    let id = b.bound(1, "10.0.0.1:7");
    assert_eq!(b.udp(id).send(&[5; 8000], Some("10.0.0.2:9")), Ok(8000));
    assert_eq!(b.one()[12..14], [8, 6], "who has it?");
    b.put(&arp(2, PEER_MAC, PEER, OUR_MAC, OURS, OUR_MAC));
    let out = b.one();
    assert_eq!(out[..6], PEER_MAC.0);
    assert_eq!(sent(&out[14..]).1[8..], [5; 8000]);
    // Where the way there is noted by now.
    for len in [10, 8000, 8000] {
        assert_eq!(b.udp(id).send(&vec![5; len], Some("10.0.0.2:9")), Ok(len));
        assert_eq!(sent(&b.one()[14..]).1[8..], vec![5; len]);
    }
    assert_eq!(b.stack.core.pool.available(), FRAMES);
}

#[test]
fn our_own_addresses_loop_inside() {
    for config in [raw(), owned(), Config { mode: crate::stack::Mode::Shared, ..owned() }] {
        let mut b = Bed::new(config);
        let server = b.bound(1, "0.0.0.0:53");
        let client = b.bound(2, "0.0.0.0:0");
        for to in ["10.0.0.1:53", "127.0.0.1:53", "0.0.0.0:53"] {
            b.udp(client).send(b"ping", Some(to)).unwrap();
            assert_eq!(b.stack.next_deadline(), Some(b.now));
            assert_eq!(b.take().len(), 0);
            assert_eq!(b.events(), [(1, Readiness::IN | Readiness::OUT)]);
            let (data, from) = b.udp(server).recv().unwrap();
            assert_eq!(data, b"ping");
            b.udp(server).send(&[7; 5000], Some(&from)).unwrap();
            assert_eq!(b.take().len(), 0);
            assert_eq!(b.udp(client).recv().unwrap().0, [7; 5000]);
            b.events();
        }
        assert_eq!((b.all_drops(), b.stack.held_frames()), (vec![], 0));
    }
}

#[test]
fn a_refused_port_of_our_own_is_told() {
    let mut b = Bed::new(owned());
    let id = b.bound(2, "0.0.0.0:0");
    b.udp(id).connect("10.0.0.1:9").unwrap();
    b.udp(id).send(b"ping", None).unwrap();
    b.take();
    assert_eq!(b.udp(id).error(), Some(Errno::ECONNREFUSED));
}

#[test]
fn a_blocked_sender_is_told_when_there_is_room() {
    let mut b = Bed::new(raw());
    let id = b.bound(2, "0.0.0.0:0");
    b.stack.core.tx = crate::frame::TxQueue::new(2);
    assert_eq!(b.udp(id).send(b"1", Some("10.0.0.2:9")), Ok(1));
    assert_eq!(b.udp(id).send(b"2", Some("10.0.0.2:9")), Ok(1));
    assert_eq!(b.udp(id).send(b"3", Some("10.0.0.2:9")), Err(Errno::EAGAIN));
    assert_eq!(b.stack.udp.readiness(id), Readiness::empty());
    assert_eq!(b.events(), []);
    assert_eq!(b.take().len(), 2);
    assert_eq!(b.events(), [(2, Readiness::OUT)]);
    assert_eq!(b.udp(id).send(b"3", Some("10.0.0.2:9")), Ok(1));
}

#[test]
fn a_shut_down_socket_ends() {
    let mut b = Bed::new(raw());
    let id = b.bound(2, "0.0.0.0:53");
    let shut = |b: &mut Bed, r, w| b.stack.udp.shutdown(id, r, w);
    assert_eq!(shut(&mut b, true, true), Err(Errno::ENOTCONN));
    b.udp(id).connect("10.0.0.2:9").unwrap();
    shut(&mut b, false, true).unwrap();
    assert_eq!(b.udp(id).send(b"x", None), Err(Errno::EPIPE));
    b.put(&udp_packet("10.0.0.2:9", "10.0.0.1:53", b"last"));
    shut(&mut b, true, false).unwrap();
    assert_eq!(b.udp(id).recv().unwrap().0, b"last");
    assert_eq!(b.udp(id).recv().unwrap(), (vec![], String::new()));
    b.refused(&udp_packet("10.0.0.2:9", "10.0.0.1:53", b"late"), D::UdpQueueFull);
    assert!(b.stack.udp.readiness(id).contains(Readiness::HUP | Readiness::RDHUP));
}

#[test]
fn tables_are_bounded() {
    let mut config = raw();
    config.datagram.max_sockets = 2;
    let mut b = Bed::new(config);
    let first = b.open(1);
    b.open(2);
    let Stack { udp, core, icmp, .. } = &mut b.stack;
    assert_eq!(udp.open(core, 3, false), Err(Errno::ENFILE));
    udp.close(core, first);
    assert_eq!(udp.open(core, 3, false), Ok(first));
    assert!(icmp.open(core, 1, true).is_ok() && icmp.open(core, 1, false).is_ok());
    assert_eq!(icmp.open(core, 3, true), Err(Errno::ENFILE));
}

// ICMP sockets.

struct Ping<'a>(&'a mut Stack, u32);

impl Bed {
    fn ping(&mut self, token: u32, raw: bool) -> u32 {
        self.stack.icmp.open(&self.stack.core, token, raw).unwrap()
    }

    fn icmp(&mut self, id: u32) -> Ping<'_> {
        Ping(&mut self.stack, id)
    }
}

impl Ping<'_> {
    fn send(&mut self, message: &[u8], to: &str) -> Result<usize, Errno> {
        self.0.icmp.send(&mut self.0.core, self.1, &[message], Some(ip(to)), &SendMeta::default())
    }

    fn recv(&mut self) -> Result<Vec<u8>, Errno> {
        let mut buffer = vec![0; 70_000];
        let meta = self.0.icmp.recv(&mut self.0.core, self.1, &mut buffer, false)?;
        buffer.truncate(meta.full_len);
        Ok(buffer)
    }
}

#[test]
fn a_ping_socket_asks_and_hears_its_own_answers() {
    let mut b = Bed::new(raw());
    let (one, two) = (b.ping(1, false), b.ping(2, false));
    let request = icmp(icmpv4::ECHO_REQUEST, 0, (0, 5), b"data");
    b.icmp(one).send(&request, "10.0.0.2").unwrap();
    let (_, p) = sent(&b.one());
    let ident = b.stack.icmp.local_addr(one).port();
    assert_eq!(p[4..6], ident.to_be_bytes());
    assert_eq!((&p[..2], &p[6..]), (&[8, 0][..], &b"\x00\x05data"[..]));
    b.icmp(two).send(&request, "10.0.0.2").unwrap();
    assert_ne!(b.stack.icmp.local_addr(two).port(), ident);
    b.take();
    let reply = icmp(icmpv4::ECHO_REPLY, 0, (ident, 5), b"data");
    b.put(&ipv4_in(ipv4::ICMP, &reply));
    assert_eq!(b.events(), [(1, Readiness::IN | Readiness::OUT)]);
    assert_eq!(b.icmp(one).recv().unwrap(), reply);
    assert_eq!(b.icmp(two).recv(), Err(Errno::EAGAIN));
    assert_eq!(b.icmp(one).send(&reply, "10.0.0.2"), Err(Errno::EINVAL));
    assert_eq!(b.icmp(one).send(&request[..7], "10.0.0.2"), Err(Errno::EINVAL));
    // An identifier can be asked for, once.
    let three = b.ping(3, false);
    let bind = |b: &mut Bed, id, at: &str| b.stack.icmp.bind(&mut b.stack.core, id, addr(at));
    assert_eq!(bind(&mut b, three, &format!("0.0.0.0:{ident}")), Err(Errno::EADDRINUSE));
    assert_eq!(bind(&mut b, three, "10.0.0.3:5"), Err(Errno::EADDRNOTAVAIL));
    assert_eq!(bind(&mut b, three, "0.0.0.0:4711"), Ok(addr("0.0.0.0:4711")));
    assert_eq!(bind(&mut b, three, "0.0.0.0:4712"), Err(Errno::EINVAL));
    let Stack { icmp: table, core, .. } = &mut b.stack;
    table.close(core, one);
    let reply = ipv4_in(ipv4::ICMP, &icmp(icmpv4::ECHO_REPLY, 0, (ident, 5), b"data"));
    b.refused(&reply, D::IcmpNoSocket);
}

#[test]
fn large_pings_go_and_come_whole_and_to_ourselves_too() {
    let mut b = Bed::new(owned());
    let id = b.ping(1, false);
    let body: Vec<u8> = (0..65_507u32).map(|i| i as u8).collect();
    let request = icmp(icmpv4::ECHO_REQUEST, 0, (0, 1), &body);
    b.icmp(id).send(&request, "10.0.0.1").unwrap();
    assert_eq!(b.take().len(), 0);
    let reply = b.icmp(id).recv().unwrap();
    assert_eq!((reply[0], &reply[8..]), (0, &body[..]));
    assert_eq!((b.all_drops(), b.stack.held_frames()), (vec![], 0));
}

#[test]
fn a_raw_socket_hears_everything_but_what_it_filters() {
    let mut b = Bed::new(raw());
    let id = b.ping(1, true);
    let echo = ipv4_in(ipv4::ICMP, &icmp(icmpv4::ECHO_REQUEST, 0, (1, 2), b"x"));
    b.put(&echo);
    assert_eq!(b.take().len(), 1);
    assert_eq!(b.icmp(id).recv().unwrap(), echo);
    b.put(&ipv4_in(ipv4::ICMP, &icmp(42, 0, (0, 0), b"")));
    assert_eq!(b.icmp(id).recv().unwrap()[20], 42);
    b.stack.icmp.options(id).filter = 1 << icmpv4::ECHO_REQUEST;
    b.put(&echo);
    b.take();
    assert_eq!(b.icmp(id).recv(), Err(Errno::EAGAIN));
    // Whatever it sends leaves as it is.
    let message = icmp(13, 0, (1, 1), &[0; 12]);
    b.icmp(id).send(&message, "10.0.0.2").unwrap();
    assert_eq!(sent(&b.one()).1, message);
}

#[test]
fn icmp_sockets_are_told_errors_and_bounded() {
    let mut config = raw();
    config.datagram.max_datagrams = 2;
    let mut b = Bed::new(config);
    let id = b.ping(1, false);
    let Stack { icmp: table, core, .. } = &mut b.stack;
    table.connect(core, id, Some(ip("10.0.0.2"))).unwrap();
    let ident = table.local_addr(id).port();
    let request = ipv4_of(OURS, PEER, ipv4::ICMP, 0, &icmp(8, 0, (ident, 1), b""));
    b.put(&ipv4_in(ipv4::ICMP, &icmp(3, 10, (0, 0), &request)));
    assert_eq!(b.icmp(id).recv(), Err(Errno::EHOSTUNREACH));
    let reply = ipv4_in(ipv4::ICMP, &icmp(icmpv4::ECHO_REPLY, 0, (ident, 5), b""));
    (0..3).for_each(|_| b.put(&reply));
    assert_eq!(b.drops(D::IcmpQueueFull), 1);
    // From somebody else than the peer.
    let other = ipv4_of([10, 0, 0, 3].into(), OURS, 1, 0, &icmp(0, 0, (ident, 5), b""));
    b.refused(&other, D::IcmpNoSocket);
    let shared = Config { mode: crate::stack::Mode::Shared, ..raw() };
    let mut b = Bed::new(shared);
    let Stack { icmp: table, core, .. } = &mut b.stack;
    assert_eq!(table.open(core, 1, false), Err(Errno::EPROTONOSUPPORT));
}
