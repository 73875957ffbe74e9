//! What the steering program does with a frame, asked of the kernel itself
//! (BPF_PROG_TEST_RUN). Needs root.

use etherparse::PacketBuilder;
use ringroad::device::xdp::{Addresses, Protocol, Steering};
use std::os::fd::{AsFd, FromRawFd, OwnedFd};

const OUR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const PEER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
const OURS: [u8; 4] = [10, 9, 0, 1];
const OTHER_OF_HOST: [u8; 4] = [10, 9, 0, 3];
const PEER: [u8; 4] = [10, 9, 0, 2];
const XDP_PASS: u32 = 2;
const XDP_REDIRECT: u32 = 4;

/// A loaded program whose queue 0 has a socket. Nothing is attached.
struct Bench {
    steering: Steering,
    _socket: OwnedFd,
}

fn addresses(owned: bool) -> Addresses {
    let list = vec![OURS.into()];
    if owned { Addresses::Owned(list) } else { Addresses::Shared(list) }
}

impl Bench {
    fn new(owned: bool) -> Self {
        Self::variant(owned, false)
    }

    fn variant(owned: bool, frags: bool) -> Self {
        let steering = Steering::load(4, frags).expect("needs root");
        steering.set_mac(OUR_MAC);
        steering.set_addresses(&addresses(owned)).unwrap();
        // SAFETY: no pointers; the descriptor is new and owned by nobody else.
        let socket = unsafe {
            let fd = libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0);
            assert!(fd >= 0, "AF_XDP: {}", std::io::Error::last_os_error());
            OwnedFd::from_raw_fd(fd)
        };
        steering.set_socket(0, socket.as_fd()).unwrap();
        Self { steering, _socket: socket }
    }

    /// The frame has this fate, counted under this reason once, and stays as it is.
    #[track_caller]
    fn expect(&self, frame: &[u8], action: u32, reason: &str) {
        let before = self.steering.counters();
        let (got, after_frame) = self.steering.try_frame(frame).unwrap();
        let after = self.steering.counters();
        let moved: Vec<_> = before
            .iter()
            .zip(after.iter())
            .filter(|(b, a)| b.2 != a.2)
            .map(|(b, a)| (a.0, a.2 - b.2))
            .collect();
        assert_eq!(moved, [(reason, 1)]);
        assert_eq!(got, action, "{reason}");
        assert_eq!(after_frame, frame, "the frame was changed");
    }

    #[track_caller]
    fn redirects(&self, frame: &[u8], reason: &str) {
        self.expect(frame, XDP_REDIRECT, reason);
    }

    #[track_caller]
    fn passes(&self, frame: &[u8], reason: &str) {
        self.expect(frame, XDP_PASS, reason);
    }
}

fn tcp_to(dst: [u8; 4], port: u16) -> Vec<u8> {
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(PEER_MAC, OUR_MAC)
        .ipv4(PEER, dst, 64)
        .tcp(40_000, port, 1, 1000)
        .write(&mut frame, b"hello")
        .unwrap();
    frame
}

fn udp_to(dst: [u8; 4], port: u16) -> Vec<u8> {
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(PEER_MAC, OUR_MAC)
        .ipv4(PEER, dst, 64)
        .udp(40_000, port)
        .write(&mut frame, b"hello")
        .unwrap();
    frame
}

/// Ethernet and an IPv4 header without options before `payload`.
fn ipv4(protocol: u8, id: u16, fragment: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    frame.extend(OUR_MAC);
    frame.extend(PEER_MAC);
    frame.extend([8, 0, 0x45, 0]);
    frame.extend((20 + payload.len() as u16).to_be_bytes());
    frame.extend(id.to_be_bytes());
    frame.extend(fragment.to_be_bytes());
    frame.extend([64, protocol, 0, 0]);
    frame.extend(PEER);
    frame.extend(OURS);
    frame.extend(payload);
    frame
}

fn ports_then_data(src: u16, dst: u16) -> Vec<u8> {
    let mut data = src.to_be_bytes().to_vec();
    data.extend(dst.to_be_bytes());
    data.extend([0; 60]);
    data
}

fn icmp_error(kind: u8, quoted_src: [u8; 4], protocol: u8, port: u16) -> Vec<u8> {
    let mut data = vec![kind, 3, 0, 0, 0, 0, 0, 0, 0x45, 0, 0, 40, 0, 1, 0, 0, 64, protocol, 0, 0];
    data.extend(quoted_src);
    data.extend(PEER);
    data.extend(port.to_be_bytes());
    data.extend(40_000u16.to_be_bytes());
    data.extend([0; 4]);
    ipv4(1, 7, 0, &data)
}

fn arp(operation: u16, target: [u8; 4], dst: [u8; 6]) -> Vec<u8> {
    let mut frame = dst.to_vec();
    frame.extend(PEER_MAC);
    frame.extend([8, 6, 0, 1, 8, 0, 6, 4]);
    frame.extend(operation.to_be_bytes());
    frame.extend(PEER_MAC);
    frame.extend(PEER);
    frame.extend([0; 6]);
    frame.extend(target);
    frame
}

#[test]
fn a_held_port_is_redirected_and_only_for_its_protocol() {
    let bench = Bench::new(false);
    bench.passes(&tcp_to(OURS, 80), "pass_port");
    bench.steering.hold_port(Protocol::Tcp, 80);
    bench.redirects(&tcp_to(OURS, 80), "redirect_tcp");
    bench.passes(&tcp_to(OURS, 81), "pass_port");
    bench.passes(&udp_to(OURS, 80), "pass_port");
    bench.steering.hold_port(Protocol::Udp, 81);
    bench.redirects(&udp_to(OURS, 81), "redirect_udp");
    bench.passes(&tcp_to(OURS, 81), "pass_port");
}

#[test]
fn a_port_stays_held_until_its_last_user_is_gone() {
    let bench = Bench::new(false);
    for port in [1, 2, 65_534, 65_535] {
        bench.steering.hold_port(Protocol::Udp, port);
        bench.steering.hold_port(Protocol::Udp, port);
        bench.redirects(&udp_to(OURS, port), "redirect_udp");
        bench.steering.release_port(Protocol::Udp, port);
        bench.redirects(&udp_to(OURS, port), "redirect_udp");
        bench.steering.release_port(Protocol::Udp, port);
        bench.passes(&udp_to(OURS, port), "pass_port");
        assert!(!bench.steering.is_held(Protocol::Udp, port));
    }
}

#[test]
fn other_addresses_of_the_host_stay_with_the_kernel() {
    let bench = Bench::new(false);
    bench.steering.hold_port(Protocol::Tcp, 80);
    bench.passes(&tcp_to(OTHER_OF_HOST, 80), "pass_address");
    let both = Addresses::Shared(vec![OURS.into(), OTHER_OF_HOST.into()]);
    bench.steering.set_addresses(&both).unwrap();
    bench.redirects(&tcp_to(OTHER_OF_HOST, 80), "redirect_tcp");
    bench.redirects(&tcp_to(OURS, 80), "redirect_tcp");
    bench.steering.set_addresses(&Addresses::Shared(vec![OTHER_OF_HOST.into()])).unwrap();
    bench.passes(&tcp_to(OURS, 80), "pass_address");
    bench.redirects(&tcp_to(OTHER_OF_HOST, 80), "redirect_tcp");
}

#[test]
fn only_frames_to_our_mac_are_ours() {
    for owned in [false, true] {
        let bench = Bench::new(owned);
        bench.steering.hold_port(Protocol::Tcp, 80);
        let mut frame = tcp_to(OURS, 80);
        for other in [[2, 0, 0, 0, 0, 9], [0xff; 6], [1, 0, 0x5e, 0, 0, 1]] {
            frame[..6].copy_from_slice(&other);
            bench.passes(&frame, "pass_mac");
        }
        // Another address from now on, by a plain write.
        bench.steering.set_mac([2, 0, 0, 0, 0, 9]);
        frame[..6].copy_from_slice(&[2, 0, 0, 0, 0, 9]);
        bench.redirects(&frame, if owned { "redirect_owned" } else { "redirect_tcp" });
        bench.passes(&tcp_to(OURS, 80), "pass_mac");
    }
}

#[test]
fn a_queue_without_a_socket_passes() {
    let bench = Bench::new(false);
    bench.steering.hold_port(Protocol::Tcp, 80);
    bench.steering.clear_socket(0);
    bench.passes(&tcp_to(OURS, 80), "pass_no_socket");
}

#[test]
fn tagged_frames_ipv6_and_the_unknown_pass() {
    for owned in [false, true] {
        let bench = Bench::new(owned);
        bench.steering.hold_port(Protocol::Tcp, 80);
        let mut frame = tcp_to(OURS, 80);
        for (kind, reason) in [
            (0x8100u16, "pass_vlan"),
            (0x88a8, "pass_vlan"),
            (0x86dd, "pass_ipv6"),
            (0x88cc, "pass_ethertype"),
        ] {
            frame[12..14].copy_from_slice(&kind.to_be_bytes());
            bench.passes(&frame, reason);
        }
    }
}

#[test]
fn malformed_and_short_frames_pass() {
    let bench = Bench::new(false);
    bench.steering.hold_port(Protocol::Tcp, 80);
    let frame = tcp_to(OURS, 80);
    let mut wrong = frame.clone();
    wrong[14] = 0x65; // version 6 in an IPv4 frame
    bench.passes(&wrong, "pass_malformed");
    wrong[14] = 0x44; // a header of 16 bytes
    bench.passes(&wrong, "pass_malformed");
    wrong[14] = 0x4f; // a header that ends beyond the frame
    bench.passes(&wrong, "pass_truncated");
    bench.passes(&frame[..14 + 19], "pass_truncated");
    bench.passes(&frame[..14 + 20 + 3], "pass_truncated");
    bench.passes(&frame[..14], "pass_truncated");
    let mut sctp = frame.clone();
    sctp[23] = 132;
    bench.passes(&sctp, "pass_protocol");
}

#[test]
fn header_options_are_stepped_over() {
    let bench = Bench::new(false);
    bench.steering.hold_port(Protocol::Tcp, 80);
    let plain = ipv4(6, 1, 0, &ports_then_data(40_000, 80));
    let mut frame = plain[..34].to_vec();
    frame[14] = 0x4f; // 40 bytes of options
    frame.extend([1; 40]);
    frame.extend(ports_then_data(40_000, 80));
    bench.redirects(&frame, "redirect_tcp");
    // What lies where the ports would be without options is not taken for ports.
    let mut frame = plain[..34].to_vec();
    frame[14] = 0x46;
    frame.extend(ports_then_data(40_000, 80)[..4].iter());
    frame.extend(ports_then_data(40_000, 81));
    bench.passes(&frame, "pass_port");
}

#[test]
fn fragments_follow_their_first() {
    let bench = Bench::new(false);
    bench.steering.hold_port(Protocol::Udp, 53);
    let first = ipv4(17, 77, 0x2000, &ports_then_data(40_000, 53));
    let middle = ipv4(17, 77, 0x2000 | 8, &[0; 64]);
    let last = ipv4(17, 77, 16, &[0; 8]);
    // One that is too early goes to the kernel, and is counted.
    bench.passes(&last, "pass_fragment");
    bench.redirects(&first, "redirect_udp");
    bench.redirects(&middle, "redirect_fragment");
    bench.redirects(&last, "redirect_fragment");
    // Another identification or protocol is another packet.
    bench.passes(&ipv4(17, 78, 16, &[0; 8]), "pass_fragment");
    bench.passes(&ipv4(6, 77, 16, &[0; 8]), "pass_fragment");
}

#[test]
fn fragments_of_the_kernels_packets_stay_with_it() {
    let bench = Bench::new(false);
    bench.steering.hold_port(Protocol::Udp, 53);
    bench.redirects(&ipv4(17, 5, 0x2000, &ports_then_data(40_000, 53)), "redirect_udp");
    bench.redirects(&ipv4(17, 5, 8, &[0; 8]), "redirect_fragment");
    // The same identification again, now by a packet to a port of the kernel's.
    bench.passes(&ipv4(17, 5, 0x2000, &ports_then_data(40_000, 54)), "pass_port");
    bench.passes(&ipv4(17, 5, 8, &[0; 8]), "pass_fragment");
}

#[test]
fn icmp_errors_about_our_packets_are_ours() {
    let bench = Bench::new(false);
    bench.steering.hold_port(Protocol::Tcp, 80);
    for kind in [3, 11, 12] {
        bench.redirects(&icmp_error(kind, OURS, 6, 80), "redirect_icmp_error");
    }
    for kind in [0, 4, 5, 8, 13] {
        bench.passes(&icmp_error(kind, OURS, 6, 80), "pass_icmp");
    }
    bench.passes(&icmp_error(3, OURS, 6, 81), "pass_icmp");
    bench.passes(&icmp_error(3, OURS, 17, 80), "pass_icmp");
    bench.passes(&icmp_error(3, OURS, 1, 80), "pass_icmp");
    bench.passes(&icmp_error(3, OTHER_OF_HOST, 6, 80), "pass_icmp");
    let whole = icmp_error(3, OURS, 6, 80);
    for len in [14 + 20 + 7, 14 + 20 + 8 + 19, 14 + 20 + 8 + 20 + 3] {
        bench.passes(&whole[..len], "pass_icmp");
    }
}

#[test]
fn ping_and_arp_of_a_shared_address_are_the_kernels() {
    let bench = Bench::new(false);
    bench.passes(&ipv4(1, 1, 0, &[8, 0, 0, 0, 0, 1, 0, 1]), "pass_icmp");
    bench.passes(&arp(1, OURS, [0xff; 6]), "pass_arp");
    bench.passes(&arp(2, OURS, OUR_MAC), "pass_arp");
}

#[test]
fn everything_for_an_owned_address_is_ours() {
    let bench = Bench::new(true);
    bench.redirects(&tcp_to(OURS, 80), "redirect_owned");
    bench.redirects(&udp_to(OURS, 9), "redirect_owned");
    bench.redirects(&ipv4(1, 1, 0, &[8, 0, 0, 0, 0, 1, 0, 1]), "redirect_owned");
    bench.redirects(&ipv4(132, 1, 0, &[0; 12]), "redirect_owned");
    bench.redirects(&ipv4(17, 9, 16, &[0; 8]), "redirect_owned");
    bench.passes(&tcp_to(OTHER_OF_HOST, 80), "pass_address");
}

#[test]
fn arp_for_an_owned_address_is_ours() {
    let bench = Bench::new(true);
    bench.redirects(&arp(1, OURS, [0xff; 6]), "redirect_arp");
    bench.redirects(&arp(2, OURS, OUR_MAC), "redirect_arp");
    bench.passes(&arp(1, OTHER_OF_HOST, [0xff; 6]), "pass_arp");
    bench.passes(&arp(2, OURS, [2, 0, 0, 0, 0, 9]), "pass_mac");
    bench.passes(&arp(1, OURS, [0xff; 6])[..41], "pass_truncated");
    let mut odd = arp(1, OURS, [0xff; 6]);
    odd[18] = 8; // a hardware address of 8 bytes
    bench.passes(&odd, "pass_arp");
}

#[test]
fn the_variant_for_jumbo_frames_decides_alike() {
    let bench = Bench::variant(false, true);
    bench.steering.hold_port(Protocol::Tcp, 80);
    bench.redirects(&tcp_to(OURS, 80), "redirect_tcp");
    bench.passes(&tcp_to(OURS, 81), "pass_port");
    assert_eq!(bench.steering.program_name(), "ringroad_frags");
}

#[test]
fn sums_of_the_counters_split_by_fate() {
    let bench = Bench::new(false);
    bench.steering.hold_port(Protocol::Tcp, 80);
    for _ in 0..3 {
        bench.steering.try_frame(&tcp_to(OURS, 80)).unwrap();
    }
    bench.steering.try_frame(&tcp_to(OURS, 81)).unwrap();
    let counters = bench.steering.counters();
    assert_eq!((counters.redirected(), counters.passed()), (3, 1));
    assert_eq!(counters.get("redirect_tcp"), 3);
    assert_eq!(counters.get("no such reason"), 0);
}
