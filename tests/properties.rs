//! Property tests of `wire` against etherparse, an independent reader and writer
//! of the same headers, both ways; and that no bytes whatever make it panic.

use etherparse::{
    ArpEthIpv4Packet, ArpOperation, Icmpv4Header, Icmpv4Type, Icmpv6Header, Icmpv6Type, IpNumber,
    Ipv4Header, Ipv6Header, NetSlice, PacketBuilder, SlicedPacket, TcpHeader, TcpOptionElement,
    TransportSlice, UdpHeader,
};
use proptest::collection::vec;
use proptest::prelude::*;
use ringroad::telemetry::DropReason;
use ringroad::wire::ethernet::Mac;
use ringroad::wire::tcp::{Flags, Options, Order, SackBlock, Segment};
use ringroad::wire::trace::{Begins, Style, Tracer};
use ringroad::wire::{arp, checksum, ethernet, icmpv4, icmpv6, ipv4, ipv6, tcp, udp, vlan};
use std::net::{Ipv4Addr, Ipv6Addr};
use zerocopy::IntoBytes;

fn payloads() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..1500)
}

fn options() -> impl Strategy<Value = Options> {
    let blocks = vec(any::<(u32, u32)>(), 0..5);
    let (mss, scale) = (any::<Option<u16>>(), any::<Option<u8>>());
    (mss, scale, any::<bool>(), any::<Option<(u32, u32)>>(), blocks).prop_map(
        |(mss, window_scale, sack_permitted, timestamp, blocks)| Options {
            mss,
            window_scale,
            sack_permitted,
            timestamp,
            sack: blocks.into_iter().take(4).map(|(left, right)| SackBlock { left, right }).collect(),
            ..Options::default()
        },
    )
}

fn segments() -> impl Strategy<Value = Segment> {
    (any::<[u16; 4]>(), any::<[u32; 2]>(), any::<u8>(), options()).prop_map(
        |([src_port, dst_port, window, urgent], [seq, ack], flags, options)| Segment {
            src_port,
            dst_port,
            seq,
            ack,
            flags: Flags::from_bits_retain(flags),
            window,
            urgent,
            options,
            header_len: 0,
            payload_len: 0,
            ce: false,
        },
    )
}

/// The options as etherparse names them, NOPs left out.
fn elements(options: &Options) -> Vec<TcpOptionElement> {
    let mut all = Vec::new();
    all.extend(options.mss.map(TcpOptionElement::MaximumSegmentSize));
    if options.sack_permitted {
        all.push(TcpOptionElement::SelectiveAcknowledgementPermitted);
    }
    all.extend(options.timestamp.map(|(value, echo)| TcpOptionElement::Timestamp(value, echo)));
    all.extend(options.window_scale.map(TcpOptionElement::WindowScale));
    if let [first, rest @ ..] = &options.sack[..] {
        let pair = |b: &SackBlock| (b.left, b.right);
        let mut more = [None; 3];
        for (to, from) in more.iter_mut().zip(rest) {
            *to = Some(pair(from));
        }
        all.push(TcpOptionElement::SelectiveAcknowledgement(pair(first), more));
    }
    all
}

/// The options that fit into a header beside the others.
fn that_fit(mut options: Options, order: Order) -> Options {
    while tcp::parse_options(&options.encode(order)).unwrap().sack.len() < options.sack.len() {
        options.sack.pop();
    }
    options
}

fn check_flags(ours: Flags, theirs: &TcpHeader) {
    let bits = [
        (Flags::FIN, theirs.fin),
        (Flags::SYN, theirs.syn),
        (Flags::RST, theirs.rst),
        (Flags::PSH, theirs.psh),
        (Flags::ACK, theirs.ack),
        (Flags::URG, theirs.urg),
        (Flags::ECE, theirs.ece),
        (Flags::CWR, theirs.cwr),
    ];
    for (bit, set) in bits {
        assert_eq!(ours.contains(bit), set, "{bit:?}");
    }
}

fn ipv4_packet(src: [u8; 4], dst: [u8; 4], protocol: u8, payload: &[u8]) -> Vec<u8> {
    let header =
        ipv4::Header::new(src.into(), dst.into(), protocol, payload.len(), 64, 0, 7, ipv4::DF);
    [header.as_bytes(), payload].concat()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    #[test]
    fn segments_we_build_are_read_by_etherparse(
        segment in segments(),
        (src, dst) in any::<([u8; 4], [u8; 4])>(),
        payload in payloads(),
        freebsd in any::<bool>(),
    ) {
        let order = if freebsd { Order::FreeBsd } else { Order::Linux };
        let mut out = vec![0; tcp::MAX_HEADER_LEN + payload.len()];
        let options_len = segment.options.encode(order).len();
        let len = tcp::HEADER_LEN + options_len + payload.len();
        let pseudo = checksum::pseudo_v4(src, dst, ipv4::TCP, len as u16);
        prop_assert_eq!(tcp::build(&mut out, &segment, order, pseudo, &payload), len);
        let packet = ipv4_packet(src, dst, ipv4::TCP, &out[..len]);
        let sliced = SlicedPacket::from_ip(&packet).unwrap();
        let Some(NetSlice::Ipv4(ip)) = sliced.net else { panic!("no IPv4") };
        let ip = ip.header().to_header();
        prop_assert_eq!(ip.header_checksum, ip.calc_header_checksum());
        prop_assert!(ip.dont_fragment && ip.time_to_live == 64);
        let Some(TransportSlice::Tcp(slice)) = sliced.transport else { panic!("no TCP") };
        let theirs = slice.to_header();
        prop_assert_eq!(slice.payload(), &payload[..]);
        prop_assert_eq!(theirs.checksum, theirs.calc_checksum_ipv4(&ip, &payload).unwrap());
        prop_assert_eq!(
            (theirs.source_port, theirs.destination_port, theirs.sequence_number, theirs.acknowledgment_number),
            (segment.src_port, segment.dst_port, segment.seq, segment.ack)
        );
        prop_assert_eq!((theirs.window_size, theirs.urgent_pointer), (segment.window, segment.urgent));
        check_flags(segment.flags, &theirs);
        let mut read: Vec<_> = theirs.options_iterator().map(Result::unwrap).collect();
        read.retain(|e| *e != TcpOptionElement::Noop);
        let mut expected = elements(&that_fit(segment.options.clone(), order));
        if freebsd {
            // The same options in another order.
            let key = |e: &TcpOptionElement| format!("{e:?}");
            read.sort_by_key(key);
            expected.sort_by_key(key);
        }
        prop_assert_eq!(read, expected);
    }

    #[test]
    fn segments_etherparse_builds_are_read_by_us(
        segment in segments(),
        (src, dst) in any::<([u8; 4], [u8; 4])>(),
        payload in payloads(),
    ) {
        let options = that_fit(segment.options.clone(), Order::Linux);
        let mut header = TcpHeader::new(segment.src_port, segment.dst_port, segment.seq, segment.window);
        header.acknowledgment_number = segment.ack;
        header.urgent_pointer = segment.urgent;
        for (bit, set) in [
            (Flags::FIN, &mut header.fin), (Flags::SYN, &mut header.syn),
            (Flags::RST, &mut header.rst), (Flags::PSH, &mut header.psh),
            (Flags::ACK, &mut header.ack), (Flags::URG, &mut header.urg),
            (Flags::ECE, &mut header.ece), (Flags::CWR, &mut header.cwr),
        ] {
            *set = segment.flags.contains(bit);
        }
        header.set_options(&elements(&options)).unwrap();
        header.checksum = header.calc_checksum_ipv4_raw(src, dst, &payload).unwrap();
        let bytes = [&header.to_bytes()[..], &payload].concat();
        let ours = tcp::parse(&bytes).unwrap();
        let (header_len, payload_len) = (header.header_len(), payload.len());
        prop_assert_eq!(&ours, &Segment { options, header_len, payload_len, ..segment });
        let pseudo = checksum::pseudo_v4(src, dst, ipv4::TCP, bytes.len() as u16);
        prop_assert_eq!(pseudo.add(checksum::sum(&bytes)).finish(), 0);
    }

    #[test]
    fn datagrams_go_both_ways(
        (src, dst) in any::<([u8; 4], [u8; 4])>(),
        (from, to) in any::<(u16, u16)>(),
        payload in payloads(),
    ) {
        let mut out = vec![0; udp::HEADER_LEN + payload.len()];
        let pseudo = checksum::pseudo_v4(src, dst, ipv4::UDP, out.len() as u16);
        udp::build(&mut out, from, to, pseudo, &payload);
        let theirs = UdpHeader::with_ipv4_checksum(
            from, to, &Ipv4Header::new(0, 64, IpNumber::UDP, src, dst).unwrap(), &payload,
        ).unwrap();
        prop_assert_eq!(&out[..udp::HEADER_LEN], &theirs.to_bytes()[..]);
        let (header, read) = udp::parse(&out).unwrap();
        prop_assert_eq!((header.src_port.get(), header.dst_port.get(), read), (from, to, &payload[..]));
    }

    #[test]
    fn ipv4_headers_go_both_ways(
        (src, dst) in any::<([u8; 4], [u8; 4])>(),
        (tos, ttl, protocol, ident) in any::<(u8, u8, u8, u16)>(),
        (df, mf, offset) in (any::<bool>(), any::<bool>(), 0u16..8192),
        payload in payloads(),
        words in 0usize..=10,
    ) {
        let flags = if df { ipv4::DF } else { 0 } | if mf { ipv4::MF } else { 0 } | offset;
        let ours = ipv4::Header::new(src.into(), dst.into(), protocol, payload.len(), ttl, tos, ident, flags);
        let (theirs, rest) = Ipv4Header::from_slice(ours.as_bytes()).unwrap();
        prop_assert!(rest.is_empty());
        prop_assert_eq!(theirs.header_checksum, theirs.calc_header_checksum());
        prop_assert_eq!(theirs.dscp.value() << 2 | theirs.ecn.value(), tos);
        prop_assert_eq!((theirs.time_to_live, theirs.protocol.0, theirs.identification), (ttl, protocol, ident));
        prop_assert_eq!((theirs.dont_fragment, theirs.more_fragments), (df, mf));
        prop_assert_eq!((theirs.fragment_offset.value(), theirs.source, theirs.destination), (offset, src, dst));
        // With options, and padding of the link behind the packet.
        let mut theirs = theirs;
        theirs.options = vec![1; words * 4][..].try_into().unwrap();
        theirs.set_payload_len(payload.len()).unwrap();
        theirs.header_checksum = theirs.calc_header_checksum();
        let bytes = [&theirs.to_bytes()[..], &payload, &[0; 7]].concat();
        let read = ipv4::parse(&bytes).unwrap();
        prop_assert_eq!(read.payload, &payload[..]);
        prop_assert_eq!((read.options.len(), ipv4::check_options(read.options)), (words * 4, Ok(())));
        prop_assert_eq!(read.header.fragment_offset(), usize::from(offset) * 8);
        prop_assert_eq!((read.header.dont_fragment(), read.header.more_fragments()), (df, mf));
        prop_assert_eq!(read.header.is_fragment(), theirs.is_fragmenting_payload());
        // Any one bit turned over in the header is noticed.
        let mut bad = bytes;
        let bit = usize::from(ident) % (theirs.header_len() * 8);
        bad[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(ipv4::parse(&bad).is_err());
    }

    #[test]
    fn ipv6_headers_go_both_ways(
        (src, dst) in any::<([u8; 16], [u8; 16])>(),
        (class, flow, hops) in (any::<u8>(), 0u32..1 << 20, any::<u8>()),
        payload in payloads(),
        fragment in any::<Option<(u32, bool)>>(),
        offset in 0u16..8192,
    ) {
        let ours = ipv6::Header::new(src.into(), dst.into(), ipv4::UDP, payload.len(), hops).with_class(class, flow);
        let (theirs, _) = Ipv6Header::from_slice(ours.as_bytes()).unwrap();
        prop_assert_eq!((theirs.traffic_class, theirs.flow_label.value(), theirs.hop_limit), (class, flow, hops));
        prop_assert_eq!((theirs.source, theirs.destination), (src, dst));
        let mut theirs = theirs;
        let mut chain = Vec::new();
        if let Some((ident, more)) = fragment {
            theirs.next_header = IpNumber::IPV6_FRAGMENTATION_HEADER;
            // By hand (RFC 8200, 4.5): etherparse 0.19 puts offset and M in the
            // wrong bits of this header, writing and reading.
            let field = u128::from(offset) << 35 | u128::from(more) << 32 | u128::from(ident);
            let field = u128::from(ipv4::UDP) << 56 | field;
            chain = (field as u64).to_be_bytes().to_vec();
        }
        theirs.set_payload_length(chain.len() + payload.len()).unwrap();
        let bytes = [&theirs.to_bytes()[..], &chain, &payload, &[0; 3]].concat();
        let read = ipv6::parse(&bytes).unwrap();
        prop_assert_eq!((read.protocol, read.payload), (ipv4::UDP, &payload[..]));
        let expected = fragment.map(|(ident, more)| ipv6::Fragment { offset: usize::from(offset) * 8, more, ident });
        prop_assert_eq!(read.fragment, expected.filter(|f| f.more || f.offset > 0));
        if let Some(f) = expected {
            prop_assert_eq!(&f.encode(ipv4::UDP)[..], &chain[..]);
        }
    }

    #[test]
    fn icmp_messages_go_both_ways(
        (id, seq, mtu) in any::<(u16, u16, u16)>(),
        (src, dst) in any::<([u8; 16], [u8; 16])>(),
        payload in payloads(),
    ) {
        let echo = etherparse::IcmpEchoHeader { id, seq };
        let needed = etherparse::icmpv4::DestUnreachableHeader::FragmentationNeeded { next_hop_mtu: mtu };
        let mut out = vec![0; 8 + payload.len()];
        for (kind, ours) in [
            (Icmpv4Type::EchoRequest(echo), (icmpv4::ECHO_REQUEST, 0, id, seq)),
            (Icmpv4Type::EchoReply(echo), (icmpv4::ECHO_REPLY, 0, id, seq)),
            (Icmpv4Type::DestinationUnreachable(needed), (icmpv4::UNREACHABLE, icmpv4::FRAGMENTATION_NEEDED, 0, mtu)),
        ] {
            icmpv4::build(&mut out, ours.0, ours.1, ours.2, ours.3, &payload);
            let theirs = Icmpv4Header::with_checksum(kind, &payload);
            prop_assert_eq!(&out[..8], &theirs.to_bytes()[..]);
            let (header, body) = icmpv4::parse(&out).unwrap();
            prop_assert_eq!((header.kind, header.word2.get(), body), (ours.0, ours.3, &payload[..]));
        }
        let kind = Icmpv6Type::EchoRequest(echo);
        let theirs = Icmpv6Header::with_checksum(kind, src, dst, &payload).unwrap();
        let word = u32::from(id) << 16 | u32::from(seq);
        icmpv6::build(&mut out, (src, dst), (icmpv6::ECHO_REQUEST, 0), word, &payload);
        prop_assert_eq!(&out[..8], &theirs.to_bytes()[..]);
        let (header, body) = icmpv6::parse(src, dst, &out).unwrap();
        prop_assert_eq!((header.echo(), body), ((id, seq), &payload[..]));
    }

    #[test]
    fn arp_goes_both_ways(
        (sha, tha) in any::<([u8; 6], [u8; 6])>(),
        (spa, tpa) in any::<([u8; 4], [u8; 4])>(),
        ask in any::<bool>(),
    ) {
        let (op, operation) = if ask { (arp::REQUEST, ArpOperation::REQUEST) } else { (arp::REPLY, ArpOperation::REPLY) };
        let ours = arp::Packet::new(op, Mac(sha), spa.into(), Mac(tha), tpa.into());
        let theirs = ArpEthIpv4Packet {
            operation, sender_mac: sha, sender_ipv4: spa, target_mac: tha, target_ipv4: tpa,
        };
        prop_assert_eq!(ours.as_bytes(), &theirs.to_bytes()[..]);
        let bytes = theirs.to_bytes();
        let read = arp::parse(&bytes).unwrap();
        prop_assert_eq!((read.op.get(), read.sha, read.tha), (op, Mac(sha), Mac(tha)));
        prop_assert_eq!((read.spa(), read.tpa()), (Ipv4Addr::from(spa), Ipv4Addr::from(tpa)));
    }

    #[test]
    fn whole_frames_of_etherparse_are_walked(
        (src, dst) in any::<([u8; 6], [u8; 6])>(),
        (from, to) in any::<([u8; 4], [u8; 4])>(),
        tag in proptest::option::of(0u16..4096),
        payload in payloads(),
    ) {
        let builder = PacketBuilder::ethernet2(src, dst);
        let mut bytes = Vec::new();
        match tag {
            Some(id) => builder.single_vlan(id.try_into().unwrap()).ipv4(from, to, 9).udp(1, 2).write(&mut bytes, &payload),
            None => builder.ipv4(from, to, 9).udp(1, 2).write(&mut bytes, &payload),
        }.unwrap();
        let (header, mut rest) = ethernet::parse(&bytes).unwrap();
        prop_assert_eq!((header.src, header.dst), (Mac(src), Mac(dst)));
        let mut ethertype = header.ethertype.get();
        if let Some(id) = tag {
            prop_assert_eq!(ethertype, ethernet::VLAN);
            let (tag, behind) = vlan::parse(rest).unwrap();
            prop_assert_eq!(tag.vlan(), id);
            (ethertype, rest) = (tag.ethertype.get(), behind);
        }
        prop_assert_eq!(ethertype, ethernet::IPV4);
        let packet = ipv4::parse(rest).unwrap();
        prop_assert_eq!((packet.header.ttl, packet.header.source()), (9, Ipv4Addr::from(from)));
        prop_assert_eq!(udp::parse(packet.payload).unwrap().1, &payload[..]);
    }
}

/// Every reader of `wire` on the same bytes.
fn read_all(bytes: &[u8]) {
    let _ = (arp::parse(bytes), icmpv4::parse(bytes), udp::parse(bytes), vlan::parse(bytes));
    let _ = (tcp::parse(bytes), tcp::parse_options(bytes), ipv4::check_options(bytes));
    let _ = icmpv6::parse([0; 16], [0; 16], bytes);
    if let Ok(packet) = ipv4::parse(bytes) {
        let _ = ipv4::check_options(packet.options);
        let _ = (tcp::parse(packet.payload), udp::parse(packet.payload));
    }
    if let Ok(packet) = ipv6::parse(bytes) {
        let _ = (tcp::parse(packet.payload), udp::parse(packet.payload));
    }
    for style in [Style::Modern, Style::Classic] {
        let mut tracer = Tracer::new(style);
        tracer.packet(Begins::Ethernet, bytes);
        tracer.packet(Begins::Ip, bytes);
    }
}

/// Where both readers take a packet, they see the same.
fn compare(bytes: &[u8]) {
    let Ok(ours) = ipv4::parse(bytes) else { return };
    let (theirs, _) = Ipv4Header::from_slice(bytes).expect("we took it");
    assert_eq!(usize::from(theirs.payload_len().unwrap()), ours.payload.len());
    assert_eq!(theirs.options.as_slice(), ours.options);
    if ours.header.protocol != ipv4::TCP || ours.header.is_fragment() {
        return;
    }
    match (tcp::parse(ours.payload), TcpHeader::from_slice(ours.payload)) {
        (Ok(segment), Ok((header, payload))) => {
            assert_eq!((segment.payload_len, segment.seq), (payload.len(), header.sequence_number));
            check_flags(segment.flags, &header);
        }
        (Err(reason), theirs) => {
            assert!(theirs.is_err() || reason == DropReason::TcpBadOptions, "{reason:?}");
        }
        (Ok(_), Err(e)) => panic!("etherparse refuses what we take: {e}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) })]

    #[test]
    fn no_bytes_make_a_reader_panic(bytes in vec(any::<u8>(), 0..200)) {
        read_all(&bytes);
        compare(&bytes);
    }

    #[test]
    fn no_damage_to_a_good_packet_makes_a_reader_panic(
        segment in segments(),
        payload in vec(any::<u8>(), 0..40),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in any::<prop::sample::Index>(),
        repair in any::<bool>(),
        six in any::<bool>(),
    ) {
        let mut out = [0; 200];
        let len = tcp::build(&mut out, &segment, Order::Linux, checksum::Sum::ZERO, &payload);
        let mut bytes = if six {
            let (a, b) = (Ipv6Addr::LOCALHOST, Ipv6Addr::LOCALHOST);
            [ipv6::Header::new(a, b, 6, len, 9).as_bytes(), &out[..len]].concat()
        } else {
            ipv4_packet([10, 0, 0, 1], [10, 0, 0, 2], ipv4::TCP, &out[..len])
        };
        for (at, value) in damage {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        bytes.truncate(1 + cut.index(bytes.len() * 2)); // half of the time not at all
        if repair && !six && bytes.len() >= 20 {
            // A right header checksum lets the damage through to the next layer.
            let header = (usize::from(bytes[0] & 15) * 4).clamp(20, bytes.len());
            bytes[10..12].fill(0);
            let sum = checksum::sum(&bytes[..header]).finish();
            bytes[10..12].copy_from_slice(&sum.to_be_bytes());
        }
        read_all(&bytes);
        compare(&bytes);
        let frame = [&[0; 12][..], &[8, 0], &bytes].concat();
        read_all(&frame);
    }
}
