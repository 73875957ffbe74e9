//! Every reason to drop something is reached: a table from each reason to a test
//! that makes it count, and a test that the table is complete.

use ringroad::device::memory::{End, MemoryDevice, Wire, WireConfig};
use ringroad::device::Device;
use ringroad::errno::Errno;
use ringroad::frame::{Batch, Pool};
use ringroad::socket::linux::*;
use ringroad::socket::{Handle, SendMeta, Sockets};
use ringroad::stack::tcp::SynCookies;
use ringroad::stack::{Config, Mode, Stack};
use ringroad::telemetry::DropReason as D;
use ringroad::time::{Duration, Instant};
use ringroad::wire::ethernet::{self, Mac};
use ringroad::wire::tcp::{Flags, Options, Order, Segment};
use ringroad::wire::{arp, checksum, icmpv4, ipv4, ipv6, tcp, udp};
use std::net::{Ipv4Addr, SocketAddr};
use zerocopy::IntoBytes;

/// How a reason is reached.
enum Way {
    /// By this test of the whole stack.
    Stack(fn(&mut Bed)),
    /// By a reader of `wire` alone, which the stack does not use yet.
    Reader(fn() -> D),
    /// Not in the pure layers: by this test in this file.
    Elsewhere(&'static str, &'static str),
}

use Way::{Elsewhere, Reader, Stack as Whole};

const ROWS: &[(D, Way)] = &[
    (D::EthernetTruncated, Whole(|b| b.frame(&[0; 13]))),
    (D::EthernetNotForUs, Whole(|b| b.frame(&ethernet(Mac([2; 6]), ethernet::IPV4, &[0; 40])))),
    (D::EtherTypeUnknown, Whole(|b| b.frame(&ethernet(OUR_MAC, 0x88b5, &[0; 40])))),
    (D::ArpMalformed, Whole(|b| b.frame(&ethernet(OUR_MAC, ethernet::ARP, &[0; 28])))),
    (D::ArpConflict, Whole(|b| b.arp(arp::REQUEST, OURS, PEER))),
    (D::ArpIgnored, Whole(|b| b.arp(arp::REQUEST, Ipv4Addr::new(10, 0, 0, 77), PEER))),
    (D::ArpRateLimited, Whole(arp_rate_limited)),
    (D::ArpQueueFull, Whole(arp_queue_full)),
    (D::NeighborFailed, Whole(neighbor_failed)),
    (D::Ipv4Truncated, Whole(|b| b.ip_edited(|p| p.truncate(30)))),
    (D::Ipv4BadHeader, Whole(|b| b.ip_edited(|p| p[0] = 0x44))),
    (D::Ipv4BadChecksum, Whole(|b| b.ip_edited(|p| p[8] ^= 1))),
    (D::Ipv4BadOptions, Whole(|b| b.options(&[7, 9, 4, 0]))),
    (D::Ipv4SourceRoute, Whole(|b| b.options(&[131, 3, 4, 0]))),
    (D::Ipv4LinkBroadcast, Whole(link_broadcast)),
    (D::Ipv4Martian, Whole(|b| b.ip(Ipv4Addr::LOCALHOST, OURS, ipv4::UDP, 0, &[0; 8]))),
    (D::Ipv4NotForUs, Whole(|b| b.ip(PEER, Ipv4Addr::new(10, 0, 0, 9), ipv4::UDP, 0, &[0; 8]))),
    (D::Ipv4ProtocolUnknown, Whole(|b| b.ip(PEER, OURS, 200, 0, &[0; 8]))),
    (D::Ipv6Truncated, Reader(|| ipv6::parse(&[0x60; 20]).unwrap_err())),
    (D::Ipv6BadHeader, Reader(|| ipv6::parse(&[0; 40]).unwrap_err())),
    (D::Ipv6BadExtension, Reader(ipv6_bad_extension)),
    (D::FragmentDuplicate, Whole(|b| b.fragments(&[(0, 16, true), (0, 16, true)]))),
    (D::FragmentOverlap, Whole(|b| b.fragments(&[(0, 16, true), (8, 16, true)]))),
    (D::FragmentTooLarge, Whole(|b| b.fragments(&[(65_528, 16, false)]))),
    (D::FragmentTableFull, Whole(fragment_table_full)),
    (D::FragmentTimeout, Whole(fragment_timeout)),
    (D::IcmpMalformed, Whole(|b| b.ip(PEER, OURS, ipv4::ICMP, 0, &[8, 0, 1, 2]))),
    (D::IcmpTypeUnknown, Whole(|b| b.icmp(42, 0, &[]))),
    (D::IcmpIgnored, Whole(|b| b.icmp(5, 0, &[0; 28]))),
    (D::IcmpNoSocket, Whole(|b| b.icmp(icmpv4::ECHO_REPLY, 0, &[]))),
    (D::IcmpQueueFull, Whole(icmp_queue_full)),
    (D::IcmpRateLimited, Whole(icmp_rate_limited)),
    (D::IcmpQuoteInvalid, Whole(|b| b.icmp(icmpv4::UNREACHABLE, icmpv4::PORT, &[0; 28]))),
    (D::UdpMalformed, Whole(|b| b.ip(PEER, OURS, ipv4::UDP, 0, &[0, 1, 0, 2, 0, 7, 0, 0]))),
    (D::UdpBadChecksum, Whole(|b| b.ip(PEER, OURS, ipv4::UDP, 0, &[0, 1, 0, 2, 0, 8, 1, 2]))),
    (D::UdpNoSocket, Whole(|b| b.udp(9, b"x"))),
    (D::UdpQueueFull, Whole(udp_queue_full)),
    (D::TcpMalformed, Whole(|b| b.ip(PEER, OURS, ipv4::TCP, 0, &[0; 19]))),
    (D::TcpBadChecksum, Whole(tcp_bad_checksum)),
    (D::TcpBadFlags, Whole(|b| b.segment(seg(Flags::SYN | Flags::FIN, 1, 0), b""))),
    (D::TcpBadOptions, Whole(tcp_bad_options)),
    (D::TcpNoSocket, Whole(|b| b.segment(Segment { dst_port: 81, ..seg(Flags::SYN, 1, 0) }, b""))),
    (D::TcpSynQueueFull, Whole(syn_queue_full)),
    (D::TcpAcceptQueueFull, Whole(accept_queue_full)),
    (D::TcpTableFull, Whole(table_full)),
    (D::TcpPaws, Whole(paws)),
    (D::TcpOutOfWindow, Whole(|b| b.feed_connection(|c| seg(Flags::ACK, c.seq + 1_000_000, c.ack), b"x"))),
    (D::TcpDuplicate, Whole(duplicate)),
    (D::TcpBadAck, Whole(|b| b.feed_connection(|c| seg(Flags::ACK, c.seq, c.ack + 5), b""))),
    (D::TcpOldDataAfterClose, Whole(old_data_after_close)),
    (D::TcpReceiveBufferFull, Whole(receive_buffer_full)),
    (D::TcpOutOfOrderFull, Whole(out_of_order_full)),
    (D::TcpUnacceptableRst, Whole(|b| b.feed_connection(|c| seg(Flags::RST, c.seq + 5, 0), b""))),
    (D::PoolExhausted, Whole(pool_exhausted)),
    (D::TransmitQueueFull, Whole(transmit_queue_full)),
    (D::HandOverFull, Elsewhere("src/runtime/tests/strays.rs", HAND_OVER_FULL)),
    (D::NoRoute, Whole(no_route)),
    (D::DatagramRefused, Elsewhere("src/runtime/tests/datagrams.rs", REFUSED_LATER)),
];

const REFUSED_LATER: &str = "a_datagram_that_can_no_longer_be_sent_is_counted_and_told_of";
const HAND_OVER_FULL: &str = "a_full_ring_to_another_worker_drops_the_packet_and_loses_no_frame";

#[test]
fn every_reason_has_one_row() {
    for reason in D::ALL {
        let rows = ROWS.iter().filter(|(r, _)| r == reason).count();
        assert_eq!(rows, 1, "{}: {}", reason.name(), reason.text());
    }
}

#[test]
fn every_row_reaches_its_reason() {
    let mut missed = Vec::new();
    for (reason, way) in ROWS {
        match way {
            Whole(test) => {
                let mut bed = Bed::new(*reason);
                let before = bed.dropped(*reason);
                test(&mut bed);
                if bed.dropped(*reason) == before {
                    missed.push(reason.name());
                }
                bed.sockets.stack.assert_conserved();
            }
            Reader(test) => assert_eq!(test(), *reason),
            Elsewhere(place, test) => {
                let name = format!("DropReason::{}", reason.name());
                assert!(tests(place, test, &name), "{place} has no test {test} of {name}");
                for pure in ["src/wire", "src/tcp", "src/stack", "src/socket"] {
                    assert!(!mentions(pure, &name), "{name} is not {place}'s alone: {pure} has it");
                }
            }
        }
    }
    assert!(missed.is_empty(), "not reached: {missed:?}");
}

/// True where the file has a test of that name with the text in it.
fn tests(file: &str, test: &str, text: &str) -> bool {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    let source = std::fs::read_to_string(path).expect("a file of sources");
    let start = source.split_once(&format!("#[test]\nfn {test}() {{\n"));
    let body = start.and_then(|(_, rest)| rest.split_once("\n}\n"));
    body.is_some_and(|(body, _)| body.contains(text))
}

/// True where a file below `dir` has the text.
fn mentions(dir: &str, text: &str) -> bool {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(dir);
    let mut dirs = vec![root];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).expect("a directory of sources") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                dirs.push(path);
            } else if std::fs::read_to_string(&path).is_ok_and(|source| source.contains(text)) {
                return true;
            }
        }
    }
    false
}

const OURS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const PEER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const OUR_MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);
const PEER_MAC: Mac = Mac([2, 0, 0, 0, 0, 2]);
const PORT: u16 = 80;

fn ethernet(dst: Mac, ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let header = ethernet::Header { dst, src: PEER_MAC, ethertype: ethertype.into() };
    [header.as_bytes(), payload].concat()
}

fn seg(flags: Flags, seq: u32, ack: u32) -> Segment {
    Segment {
        src_port: 4000,
        dst_port: PORT,
        seq,
        ack,
        flags,
        ce: false,
        window: 1000,
        urgent: 0,
        options: Options::default(),
        header_len: 0,
        payload_len: 0,
    }
}

/// An open connection: its socket, and the numbers that the peer sends next.
struct Conn {
    handle: Handle,
    seq: u32,
    ack: u32,
}

/// A stack with a listener on port 80, and the peer's end of its wire.
struct Bed {
    wire: Wire,
    device: MemoryDevice,
    sockets: Sockets,
    listener: Handle,
    now: Instant,
}

impl Bed {
    /// The bounds that a reason needs are made small.
    fn new(reason: D) -> Self {
        let mut config = Config {
            mode: Mode::Owned,
            addresses: vec![(OURS.into(), 24)],
            mac: OUR_MAC,
            ..Default::default()
        };
        match reason {
            D::ArpRateLimited => config.neighbor.rate.burst = 5,
            D::FragmentTableFull => config.fragment.max_datagrams = 2,
            D::IcmpRateLimited => config.icmp.error_rate.burst = 3,
            D::TcpSynQueueFull => {
                config.table.max_half_open = 2;
                config.table.syn_cookies = SynCookies::Off;
            }
            D::TcpTableFull => config.table.max_connections = 2,
            D::TcpOutOfOrderFull => config.tcp.out_of_order_segments = 2,
            D::TransmitQueueFull => config.transmit_queue = 4,
            _ => {}
        }
        let (wire, device, _) = Wire::new(WireConfig::default(), 1);
        let mut sockets = Sockets::new(Stack::new(config, Pool::heap(1024, 2048), 1));
        let listener = sockets.socket(AF_INET, SOCK_STREAM, 0).unwrap();
        sockets.bind(listener, SocketAddr::new(OURS.into(), PORT)).unwrap();
        sockets.listen(listener, 8).unwrap();
        let mut bed = Self { wire, device, sockets, listener, now: Instant::ZERO };
        bed.arp(arp::REQUEST, PEER, OURS);
        bed.sent();
        bed
    }

    fn dropped(&self, reason: D) -> u64 {
        self.sockets.stack.core.counters.dropped(reason)
    }

    /// A turn of the stack's loop.
    fn turn(&mut self) {
        self.wire.advance(self.now);
        let mut batch = Batch::new();
        self.device.reap(&mut self.sockets.stack.core.pool);
        self.device.refill(&mut self.sockets.stack.core.pool);
        self.device.receive(&mut self.sockets.stack.core.pool, &mut batch);
        self.sockets.receive(self.now, &mut batch);
        self.sockets.turn(self.now);
        let (pool, queue) = self.sockets.tx();
        self.device.transmit(pool, queue);
    }

    fn wait(&mut self, time: Duration) {
        self.now += time;
        self.turn();
    }

    fn frame(&mut self, bytes: &[u8]) {
        self.wire.send(End::B, bytes);
        self.turn();
    }

    /// What the stack has sent since the last call.
    fn sent(&mut self) -> Vec<Vec<u8>> {
        self.turn();
        std::iter::from_fn(|| self.wire.take(End::B)).collect()
    }

    fn arp(&mut self, op: u16, sender: Ipv4Addr, target: Ipv4Addr) {
        let packet = arp::Packet::new(op, PEER_MAC, sender, Mac::default(), target);
        self.frame(&ethernet(OUR_MAC, ethernet::ARP, packet.as_bytes()));
    }

    fn ip(&mut self, src: Ipv4Addr, dst: Ipv4Addr, protocol: u8, flags_offset: u16, payload: &[u8]) {
        let h = ipv4::Header::new(src, dst, protocol, payload.len(), 64, 0, 7, flags_offset);
        self.frame(&ethernet(OUR_MAC, ethernet::IPV4, &[h.as_bytes(), payload].concat()));
    }

    fn ip_edited(&mut self, edit: impl FnOnce(&mut Vec<u8>)) {
        let h = ipv4::Header::new(PEER, OURS, ipv4::UDP, 20, 64, 0, 7, 0);
        let mut packet = [h.as_bytes(), &[0; 20]].concat();
        edit(&mut packet);
        self.frame(&ethernet(OUR_MAC, ethernet::IPV4, &packet));
    }

    /// A packet with four bytes of IP options.
    fn options(&mut self, options: &[u8; 4]) {
        self.ip_edited(|p| {
            p[0] = 0x46;
            p[20..24].copy_from_slice(options);
            p[10..12].fill(0);
            let sum = checksum::sum(&p[..24]).finish();
            p[10..12].copy_from_slice(&sum.to_be_bytes());
        });
    }

    /// Fragments of one datagram: offset, length, and whether more follow.
    fn fragments(&mut self, pieces: &[(u16, usize, bool)]) {
        for (offset, len, more) in pieces {
            let flags = if *more { ipv4::MF } else { 0 } | (offset / 8);
            self.ip(PEER, OURS, ipv4::UDP, flags, &vec![0; *len]);
        }
    }

    fn icmp(&mut self, kind: u8, code: u8, body: &[u8]) {
        let mut out = [0; 256];
        let len = icmpv4::build(&mut out, kind, code, 7, 1, body);
        self.ip(PEER, OURS, ipv4::ICMP, 0, &out[..len]);
    }

    fn udp(&mut self, port: u16, payload: &[u8]) {
        let mut out = [0; 2000];
        let len = (udp::HEADER_LEN + payload.len()) as u16;
        let pseudo = checksum::pseudo_v4(PEER.octets(), OURS.octets(), ipv4::UDP, len);
        let len = udp::build(&mut out, 4000, port, pseudo, payload);
        self.ip(PEER, OURS, ipv4::UDP, 0, &out[..len]);
    }

    fn segment(&mut self, segment: Segment, payload: &[u8]) {
        let bytes = segment_bytes(&segment, payload);
        self.ip(PEER, OURS, ipv4::TCP, 0, &bytes);
    }

    /// The segments that the stack has sent since the last call.
    fn segments(&mut self) -> Vec<Segment> {
        let read = |frame: Vec<u8>| {
            let packet = ipv4::parse(frame.get(14..)?).ok()?;
            (packet.header.protocol == ipv4::TCP).then(|| tcp::parse(packet.payload).unwrap())
        };
        self.sent().into_iter().filter_map(read).collect()
    }

    /// Sends a SYN from `port` and finishes the handshake.
    fn handshake(&mut self, port: u16, options: Options) -> Conn {
        self.segments();
        let syn = Segment { src_port: port, options, ..seg(Flags::SYN, 999, 0) };
        self.segment(syn.clone(), b"");
        let answer = self.segments().pop().expect("a SYN-ACK");
        assert_eq!((answer.flags, answer.ack), (Flags::SYN | Flags::ACK, 1000));
        let (seq, ack) = (1000, answer.seq + 1);
        let options = Options { timestamp: syn.options.timestamp, ..Default::default() };
        self.segment(Segment { seq, ack, flags: Flags::ACK, options, ..syn }, b"");
        Conn { handle: self.listener, seq, ack }
    }

    fn open_with(&mut self, options: Options) -> Conn {
        let conn = self.handshake(4000, options);
        let (handle, _) = self.sockets.accept(self.listener).unwrap();
        Conn { handle, ..conn }
    }

    fn open(&mut self) -> Conn {
        self.open_with(Options::default())
    }

    /// Opens a connection and sends it a segment.
    fn feed_connection(&mut self, segment: impl FnOnce(&Conn) -> Segment, payload: &[u8]) {
        let conn = self.open();
        self.segment(segment(&conn), payload);
    }

    fn udp_socket(&mut self) -> Handle {
        self.sockets.socket(AF_INET, SOCK_DGRAM, 0).unwrap()
    }

    fn send_to(&mut self, h: Handle, to: Ipv4Addr, len: usize) -> Result<usize, Errno> {
        let to = SocketAddr::new(to.into(), 9);
        self.sockets.send_to(h, &vec![0; len], 0, Some(to), &SendMeta::default())
    }
}

fn segment_bytes(segment: &Segment, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![0; tcp::MAX_HEADER_LEN + payload.len()];
    let options = segment.options.encode(Order::Linux).len();
    let len = (tcp::HEADER_LEN + options + payload.len()) as u16;
    let pseudo = checksum::pseudo_v4(PEER.octets(), OURS.octets(), ipv4::TCP, len);
    let len = tcp::build(&mut out, segment, Order::Linux, pseudo, payload);
    out.truncate(len);
    out
}

fn arp_rate_limited(b: &mut Bed) {
    let h = b.udp_socket();
    for host in 100..120 {
        let _ = b.send_to(h, Ipv4Addr::new(10, 0, 0, host), 1);
    }
    b.turn();
}

fn arp_queue_full(b: &mut Bed) {
    let h = b.udp_socket();
    for _ in 0..100 {
        let _ = b.send_to(h, Ipv4Addr::new(10, 0, 0, 100), 1);
    }
}

fn neighbor_failed(b: &mut Bed) {
    let h = b.udp_socket();
    let _ = b.send_to(h, Ipv4Addr::new(10, 0, 0, 100), 1);
    for _ in 0..5 {
        b.wait(Duration::from_secs(1));
    }
}

fn link_broadcast(b: &mut Bed) {
    let h = ipv4::Header::new(PEER, OURS, ipv4::UDP, 8, 64, 0, 7, 0);
    let packet = [h.as_bytes(), &[0; 8]].concat();
    b.frame(&ethernet(Mac::BROADCAST, ethernet::IPV4, &packet));
}

fn ipv6_bad_extension() -> D {
    let (a, b) = ("fd00::1".parse().unwrap(), "fd00::2".parse().unwrap());
    let header = ipv6::Header::new(a, b, ipv6::ROUTING, 4, 64);
    ipv6::parse(&[header.as_bytes(), &[0; 4]].concat()).unwrap_err()
}

fn fragment_table_full(b: &mut Bed) {
    for ident in 0..4 {
        let h = ipv4::Header::new(PEER, OURS, ipv4::UDP, 16, 64, 0, ident, ipv4::MF);
        let packet = [h.as_bytes(), &[0; 16]].concat();
        b.frame(&ethernet(OUR_MAC, ethernet::IPV4, &packet));
    }
}

fn fragment_timeout(b: &mut Bed) {
    b.fragments(&[(0, 16, true)]);
    b.wait(Duration::from_secs(61));
}

fn icmp_queue_full(b: &mut Bed) {
    let h = b.sockets.socket(AF_INET, SOCK_DGRAM, IPPROTO_ICMP).unwrap();
    b.sockets.bind(h, SocketAddr::new(OURS.into(), 7)).unwrap(); // its identifier
    b.sockets.set_option(h, SOL_SOCKET, SO_RCVBUF, &1i32.to_ne_bytes()).unwrap();
    for _ in 0..200 {
        b.icmp(icmpv4::ECHO_REPLY, 0, &[0; 100]);
    }
}

fn icmp_rate_limited(b: &mut Bed) {
    for _ in 0..6 {
        b.udp(9, b"x");
    }
}

fn udp_queue_full(b: &mut Bed) {
    let h = b.udp_socket();
    b.sockets.bind(h, SocketAddr::new(OURS.into(), 53)).unwrap();
    b.sockets.set_option(h, SOL_SOCKET, SO_RCVBUF, &1i32.to_ne_bytes()).unwrap();
    for _ in 0..20 {
        b.udp(53, &[0; 1400]);
    }
}

fn tcp_bad_checksum(b: &mut Bed) {
    let mut bytes = segment_bytes(&seg(Flags::SYN, 1, 0), b"");
    bytes[16] ^= 1;
    b.ip(PEER, OURS, ipv4::TCP, 0, &bytes);
}

fn tcp_bad_options(b: &mut Bed) {
    let mut bytes = segment_bytes(&seg(Flags::SYN, 1, 0), b"");
    bytes[12] = 6 << 4;
    bytes.extend([2, 9, 0, 0]);
    b.ip(PEER, OURS, ipv4::TCP, 0, &bytes);
}

fn syn_queue_full(b: &mut Bed) {
    for src_port in 4000..4004 {
        b.segment(Segment { src_port, ..seg(Flags::SYN, 1, 0) }, b"");
    }
}

fn accept_queue_full(b: &mut Bed) {
    b.sockets.listen(b.listener, 1).unwrap();
    for port in 4000..4002 {
        b.handshake(port, Options::default());
    }
    for src_port in 4002..4006 {
        b.segment(Segment { src_port, ..seg(Flags::SYN, 1, 0) }, b"");
    }
}

fn table_full(b: &mut Bed) {
    for src_port in 4000..4004 {
        b.segment(Segment { src_port, ..seg(Flags::SYN, 1, 0) }, b"");
    }
}

fn paws(b: &mut Bed) {
    let at = |value| Options { timestamp: Some((value, 0)), ..Default::default() };
    let conn = b.open_with(at(1000));
    let old = Segment { options: at(900), ..seg(Flags::ACK, conn.seq, conn.ack) };
    b.segment(old, b"x");
}

fn duplicate(b: &mut Bed) {
    let conn = b.open();
    for _ in 0..2 {
        b.segment(seg(Flags::ACK | Flags::PSH, conn.seq, conn.ack), b"data");
    }
}

fn old_data_after_close(b: &mut Bed) {
    let conn = b.open();
    b.sockets.close(conn.handle).unwrap();
    b.turn();
    b.segment(seg(Flags::ACK | Flags::PSH, conn.seq, conn.ack), b"data");
}

fn receive_buffer_full(b: &mut Bed) {
    b.sockets.set_option(b.listener, SOL_SOCKET, SO_RCVBUF, &1i32.to_ne_bytes()).unwrap();
    let mut conn = b.open();
    // What the window allows fills it; the next byte is a probe of a shut one.
    for _ in 0..100 {
        let window = b.segments().last().map_or(1, |s| usize::from(s.window));
        let len = window.clamp(1, 1000);
        b.segment(seg(Flags::ACK | Flags::PSH, conn.seq, conn.ack), &vec![0; len]);
        conn.seq += len as u32;
        if b.dropped(D::TcpReceiveBufferFull) > 0 {
            return;
        }
    }
}

fn out_of_order_full(b: &mut Bed) {
    let conn = b.open();
    for i in 1..6 {
        b.segment(seg(Flags::ACK, conn.seq + i * 100, conn.ack), b"gap");
    }
}

fn pool_exhausted(b: &mut Bed) {
    let mut held = Vec::new();
    let pool = &mut b.sockets.stack.core.pool;
    while let Some(frame) = pool.alloc() {
        held.push(frame);
    }
    b.arp(arp::REQUEST, PEER, OURS);
    b.icmp(icmpv4::ECHO_REQUEST, 0, b"ping");
    let pool = &mut b.sockets.stack.core.pool;
    held.into_iter().for_each(|frame| pool.free(frame));
}

fn transmit_queue_full(b: &mut Bed) {
    // All of them answered in one turn: more than the queue holds.
    for _ in 0..10 {
        let mut out = [0; 64];
        let len = icmpv4::build(&mut out, icmpv4::ECHO_REQUEST, 0, 7, 1, b"ping");
        let h = ipv4::Header::new(PEER, OURS, ipv4::ICMP, len, 64, 0, 7, 0);
        let packet = [h.as_bytes(), &out[..len]].concat();
        b.wire.send(End::B, &ethernet(OUR_MAC, ethernet::IPV4, &packet));
    }
    b.turn();
}

fn no_route(b: &mut Bed) {
    // Of another subnet, and there is no gateway: no way back.
    let stranger = Ipv4Addr::new(192, 0, 2, 1);
    let mut out = [0; 64];
    let len = icmpv4::build(&mut out, icmpv4::ECHO_REQUEST, 0, 7, 1, b"ping");
    b.ip(stranger, OURS, ipv4::ICMP, 0, &out[..len]);
}
