use super::*;
use crate::wire::checksum;
use crate::wire::ethernet::Mac;
use crate::wire::tcp::{Options, Order, SackBlock};
use zerocopy::IntoBytes;

const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);

fn ip(src: Ipv4Addr, dst: Ipv4Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let h = ipv4::Header::new(src, dst, protocol, payload.len(), 64, 0, 1, ipv4::DF);
    [h.as_bytes(), payload].concat()
}

struct Side {
    src: (Ipv4Addr, u16),
    dst: (Ipv4Addr, u16),
}

const UP: Side = Side { src: (CLIENT, 40000), dst: (SERVER, 80) };
const DOWN: Side = Side { src: (SERVER, 80), dst: (CLIENT, 40000) };

fn segment(side: &Side, flags: Flags, seq: u32, ack: u32, options: Options, len: usize) -> Vec<u8> {
    let segment = Segment {
        src_port: side.src.1,
        dst_port: side.dst.1,
        seq,
        ack,
        flags,
        window: 502,
        urgent: 0,
        options,
        header_len: 0,
        payload_len: 0,
        ce: false,
    };
    let mut out = [0; 200];
    let pseudo = checksum::pseudo_v4(side.src.0.octets(), side.dst.0.octets(), 6, 0);
    let len = tcp::build(&mut out, &segment, Order::Linux, pseudo, &vec![b'x'; len]);
    ip(side.src.0, side.dst.0, ipv4::TCP, &out[..len])
}

fn syn_options() -> Options {
    Options {
        mss: Some(1460),
        sack_permitted: true,
        timestamp: Some((7, 0)),
        window_scale: Some(7),
        ..Default::default()
    }
}

fn conversation() -> Vec<Vec<u8>> {
    let ts = || Options { timestamp: Some((8, 9)), ..Default::default() };
    let sack = [SackBlock { left: 1100, right: 1200 }].into_iter().collect();
    let data = Flags::ACK | Flags::PSH;
    vec![
        segment(&UP, Flags::SYN, 1000, 0, syn_options(), 0),
        segment(&DOWN, Flags::SYN | Flags::ACK, 5000, 1001, syn_options(), 0),
        segment(&UP, Flags::ACK, 1001, 5001, ts(), 0),
        segment(&UP, data, 1001, 5001, ts(), 64),
        segment(&DOWN, Flags::ACK, 5001, 1065, Options { sack, ..ts() }, 0),
        segment(&DOWN, data | Flags::FIN, 5001, 1065, Options::default(), 5),
        segment(&UP, Flags::RST, 1065, 0, Options::default(), 0),
    ]
}

/// Each line is what tcpdump 4.99 prints for these bytes (`-n -t`), but for the
/// word HTTP that it adds to data of port 80.
#[test]
fn a_conversation_reads_as_tcpdump_prints_it() {
    let mut tracer = Tracer::default();
    let lines: Vec<_> = conversation().iter().map(|p| tracer.packet(Begins::Ip, p)).collect();
    let expected = [
        "IP 10.0.0.1.40000 > 10.0.0.2.80: Flags [S], seq 1000, win 502, options [mss 1460,sackOK,TS val 7 ecr 0,nop,wscale 7], length 0",
        "IP 10.0.0.2.80 > 10.0.0.1.40000: Flags [S.], seq 5000, ack 1001, win 502, options [mss 1460,sackOK,TS val 7 ecr 0,nop,wscale 7], length 0",
        "IP 10.0.0.1.40000 > 10.0.0.2.80: Flags [.], ack 1, win 502, options [nop,nop,TS val 8 ecr 9], length 0",
        "IP 10.0.0.1.40000 > 10.0.0.2.80: Flags [P.], seq 1:65, ack 1, win 502, options [nop,nop,TS val 8 ecr 9], length 64",
        "IP 10.0.0.2.80 > 10.0.0.1.40000: Flags [.], ack 65, win 502, options [nop,nop,TS val 8 ecr 9,nop,nop,sack 1 {100:200}], length 0",
        "IP 10.0.0.2.80 > 10.0.0.1.40000: Flags [FP.], seq 1:6, ack 65, win 502, length 5",
        "IP 10.0.0.1.40000 > 10.0.0.2.80: Flags [R], seq 1065, win 502, length 0",
    ];
    assert_eq!(lines, expected);
}

#[test]
fn the_classic_style_shows_ranges_and_lengths() {
    let mut tracer = Tracer::new(Style::Classic);
    let lines: Vec<_> = conversation().iter().map(|p| tracer.packet(Begins::Ip, p)).collect();
    assert_eq!(lines[0], "IP 10.0.0.1.40000 > 10.0.0.2.80: S 1000:1000(0) win 502 <mss 1460,sackOK,timestamp 7 0,nop,wscale 7>");
    assert_eq!(lines[2], "IP 10.0.0.1.40000 > 10.0.0.2.80: . ack 1 win 502 <nop,nop,timestamp 8 9>");
    assert_eq!(lines[3], "IP 10.0.0.1.40000 > 10.0.0.2.80: P 1:65(64) ack 1 win 502 <nop,nop,timestamp 8 9>");
    assert_eq!(lines[5], "IP 10.0.0.2.80 > 10.0.0.1.40000: FP 1:6(5) ack 65 win 502");
}

fn ethernet_frame(ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let header = ethernet::Header {
        dst: Mac::BROADCAST,
        src: Mac([2, 0, 0, 0, 0, 1]),
        ethertype: ethertype.into(),
    };
    [header.as_bytes(), payload].concat()
}

#[test]
fn other_protocols_read_as_tcpdump_prints_them() {
    let mut t = Tracer::default();
    let mut frame = |kind, bytes: &[u8]| t.packet(Begins::Ethernet, &ethernet_frame(kind, bytes));
    let mac = Mac([2, 0, 0, 0, 0, 1]);
    let ask = arp::Packet::new(arp::REQUEST, mac, CLIENT, Mac::default(), SERVER);
    let tell = arp::Packet::new(arp::REPLY, mac, CLIENT, mac, SERVER);
    assert_eq!(frame(ethernet::ARP, ask.as_bytes()), "ARP, Request who-has 10.0.0.2 tell 10.0.0.1, length 28");
    assert_eq!(frame(ethernet::ARP, tell.as_bytes()), "ARP, Reply 10.0.0.1 is-at 02:00:00:00:00:01, length 28");

    let mut out = [0; 200];
    let pseudo = checksum::pseudo_v4(CLIENT.octets(), SERVER.octets(), 17, 13);
    let len = udp::build(&mut out, 5000, 9999, pseudo, b"hello");
    let datagram = ip(CLIENT, SERVER, ipv4::UDP, &out[..len]);
    assert_eq!(frame(ethernet::IPV4, &datagram), "IP 10.0.0.1.5000 > 10.0.0.2.9999: UDP, length 5");

    let mut icmp = |kind, code, a, b, body: &[u8]| {
        let mut out = [0; 200];
        let len = icmpv4::build(&mut out, kind, code, a, b, body);
        frame(ethernet::IPV4, &ip(SERVER, CLIENT, ipv4::ICMP, &out[..len]))
    };
    let start = "IP 10.0.0.2 > 10.0.0.1: ICMP ";
    for (line, expected) in [
        (icmp(8, 0, 7, 1, &[0; 56]), "echo request, id 7, seq 1, length 64"),
        (icmp(0, 0, 7, 1, &[0; 56]), "echo reply, id 7, seq 1, length 64"),
        (icmp(3, 0, 0, 0, &datagram), "net 10.0.0.2 unreachable, length 41"),
        (icmp(3, 1, 0, 0, &datagram), "host 10.0.0.2 unreachable, length 41"),
        (icmp(3, 2, 0, 0, &datagram), "10.0.0.2 protocol 17 unreachable, length 41"),
        (icmp(3, 3, 0, 0, &datagram), "10.0.0.2 udp port 9999 unreachable, length 41"),
        (icmp(3, 4, 0, 1400, &datagram), "10.0.0.2 unreachable - need to frag (mtu 1400), length 41"),
        (icmp(3, 5, 0, 0, &datagram), "10.0.0.2 unreachable - source route failed, length 41"),
        (icmp(11, 0, 0, 0, &datagram), "time exceeded in-transit, length 41"),
        (icmp(11, 1, 0, 0, &datagram), "ip reassembly time exceeded, length 41"),
        (icmp(12, 0, 0x1400, 0, &datagram), "parameter problem - octet 20, length 41"),
    ] {
        assert_eq!(line, format!("{start}{expected}"));
    }
}

#[test]
fn fragments_tags_and_version_six_are_named() {
    let mut t = Tracer::default();
    let h = ipv4::Header::new(CLIENT, SERVER, ipv4::UDP, 8, 64, 0, 1, 185);
    let bytes = [h.as_bytes(), &[0; 8]].concat();
    assert_eq!(t.packet(Begins::Ip, &bytes), "IP 10.0.0.1 > 10.0.0.2: ip-proto-17");
    let tag = vlan::Tag::new(0, 5, ethernet::IPV4);
    let tagged = ethernet_frame(ethernet::VLAN, &[tag.as_bytes(), &bytes].concat());
    assert_eq!(t.packet(Begins::Ethernet, &tagged), "vlan 5, p 0, IP 10.0.0.1 > 10.0.0.2: ip-proto-17");
    let (a, b): (core::net::Ipv6Addr, core::net::Ipv6Addr) =
        ("fd00::1".parse().unwrap(), "fd00::2".parse().unwrap());
    let mut out = [0; 64];
    let len = icmpv6::build(&mut out, (a.octets(), b.octets()), (128, 0), 0x0001_0002, &[0; 8]);
    let six = [ipv6::Header::new(a, b, ipv6::ICMPV6, len, 64).as_bytes(), &out[..len]].concat();
    assert_eq!(t.packet(Begins::Ip, &six), "IP6 fd00::1 > fd00::2: ICMP6, echo request, id 1, seq 2, length 16");
}

#[test]
fn cut_packets_print_something_and_do_not_panic() {
    let mut t = Tracer::default();
    for packet in conversation() {
        let frame = ethernet_frame(ethernet::IPV4, &packet);
        for len in 0..frame.len() {
            assert!(!t.packet(Begins::Ethernet, &frame[..len]).is_empty());
        }
    }
    let at = Instant::from_nanos(3_723_000_456_789);
    assert!(t.line(at, Begins::Ip, &[]).starts_with("01:02:03.000456 IP "));
}
