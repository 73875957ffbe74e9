//! Plain headers beside all others: the same packets come of both ways in.

use super::*;
use crate::stack::Config;
use crate::stack::testing::*;

/// A SYN for a port where nobody listens.
fn syn() -> Vec<u8> {
    let mut segment = vec![0x10, 0, 0, 9, 0, 0, 0, 5, 0, 0, 0, 0, 0x60, 2, 0xff, 0xff, 0, 0, 0, 0, 2, 4, 5, 0xb4];
    let pseudo = checksum::pseudo_v4(PEER.octets(), OURS.octets(), ipv4::TCP, 24);
    let sum = checksum::sum(&segment).add(pseudo).finish();
    segment[16..18].copy_from_slice(&sum.to_be_bytes());
    ipv4_in(ipv4::TCP, &segment)
}

fn outcome(b: &mut Bed, bytes: &[u8]) -> String {
    b.put(bytes);
    format!("{:x?} {:?}", b.take(), b.all_drops())
}

#[test]
fn whatever_comes_in_by_one_read_comes_to_the_same_as_step_by_step() {
    // The second bed's first address is another one: no header is plain to it.
    let mut config = Config { partial_checksums: true, ..owned() };
    let mut short = Bed::new(config.clone());
    config.addresses.insert(0, (ip("10.7.0.1"), 24));
    let mut long = Bed::new(config);
    short.learn_peer();
    long.learn_peer();
    let echo = ipv4_in(ipv4::ICMP, &icmp(icmpv4::ECHO_REQUEST, 0, (7, 1), b"well?"));
    let unknown = ipv4_in(99, b"no such protocol");
    let answers = [syn(), echo].map(|packet| {
        let good = eth(OUR_MAC, ethernet::IPV4, &packet);
        outcome(&mut long, &good);
        short.put(&good);
        short.take().len()
    });
    assert_eq!(answers, [1, 1], "both are answered");
    for packet in [syn(), ipv4_in(ipv4::ICMP, &icmp(icmpv4::ECHO_REQUEST, 0, (7, 1), b"well?")), unknown] {
        let mut good = eth(OUR_MAC, ethernet::IPV4, &packet);
        // Behind a short packet comes padding.
        good.extend([0xee; 5]);
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let mut fixed = bad.clone();
            if fixed[IP] == 0x45 {
                fix_header(&mut fixed[IP..]);
            }
            for bytes in [bad, fixed] {
                let (a, b) = (outcome(&mut short, &bytes), outcome(&mut long, &bytes));
                assert_eq!(a, b, "bit {bit}: {bytes:x?}");
            }
        }
    }
}

#[test]
fn a_packet_without_a_link_header_is_never_read_as_one_with() {
    // Where a frame would have our hardware address, its type, and IPv4 to nobody.
    for config in [Config { addresses: Vec::new(), ..owned() }, Config { raw_ip: true, ..owned() }] {
        let interface = Interface::new(&config);
        let mut head = [0; PLAIN];
        head[..6].copy_from_slice(&config.mac.0);
        head[12..16].copy_from_slice(&[8, 0, 0x45, 0]);
        head[IP + 12..IP + 16].copy_from_slice(&[192, 0, 2, 1]);
        assert!(!is_plain(&interface, &head));
    }
    let interface = Interface::new(&owned());
    let frame = eth(OUR_MAC, ethernet::IPV4, &ipv4_in(ipv4::UDP, &[0; 8]));
    assert!(is_plain::<PLAIN>(&interface, frame.first_chunk().unwrap()), "it can be");
}
