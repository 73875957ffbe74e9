//! Gateways: they answer ARP, forward IPv4 from port to port, and know a smaller
//! packet size than the wire, of which they tell senders or not.

use ringroad::wire::checksum;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// Bytes of an Ethernet header.
const LINK: usize = 14;
const ICMP_FRAGMENTATION_NEEDED: [u8; 2] = [3, 4];

/// A router with one foot in the network.
#[derive(Clone, Debug)]
pub struct Gateway {
    pub ip: Ipv4Addr,
    pub mac: [u8; 6],
    /// Larger packets do not pass.
    pub mtu: usize,
    /// It does not tell senders of packets that are too large: a black hole.
    pub silent: bool,
    /// Who has which address: a port, and its hardware address.
    pub owners: BTreeMap<Ipv4Addr, (usize, [u8; 6])>,
}

/// What a gateway does with a packet.
pub enum Verdict {
    NotMine,
    Lost,
    /// It was changed, and goes to this port.
    Forward(usize),
    /// Something goes back to its sender.
    Answer(Vec<u8>),
}

impl Gateway {
    pub fn new(number: u8, mtu: usize, silent: bool) -> Self {
        Self {
            ip: Ipv4Addr::new(10, 0, 0, 254 - number),
            mac: [2, 0, 0, 0, 1, number],
            mtu,
            silent,
            owners: BTreeMap::new(),
        }
    }

    pub fn take(&self, from: usize, bytes: &mut [u8]) -> Verdict {
        let asks = bytes.len() >= 42 && bytes[12..14] == [8, 6] && bytes[20..22] == [0, 1];
        if asks && bytes[38..42] == self.ip.octets() {
            return Verdict::Answer(self.arp_reply(bytes));
        }
        if !bytes.starts_with(&self.mac) {
            return Verdict::NotMine;
        }
        let is_ip = bytes.len() >= LINK + 20 && bytes[12..14] == [8, 0] && bytes[LINK] == 0x45;
        if !is_ip || bytes[LINK + 8] <= 1 {
            return Verdict::Lost;
        }
        if bytes.len() - LINK > self.mtu {
            let dont_fragment = bytes[LINK + 6] & 0x40 != 0;
            let told = dont_fragment && !self.silent;
            return if told { Verdict::Answer(self.too_big(bytes)) } else { Verdict::Lost };
        }
        let target = Ipv4Addr::new(bytes[30], bytes[31], bytes[32], bytes[33]);
        match self.owners.get(&target) {
            Some(&(port, mac)) if port != from => {
                bytes[..6].copy_from_slice(&mac);
                bytes[6..12].copy_from_slice(&self.mac);
                bytes[LINK + 8] -= 1;
                header_checksum(&mut bytes[LINK..LINK + 20]);
                Verdict::Forward(port)
            }
            _ => Verdict::Lost,
        }
    }

    fn arp_reply(&self, request: &[u8]) -> Vec<u8> {
        let mut reply = request[..42].to_vec();
        reply.copy_within(6..12, 0);
        reply[6..12].copy_from_slice(&self.mac);
        reply[21] = 2;
        reply[32..42].copy_from_slice(&request[22..32]);
        reply[22..28].copy_from_slice(&self.mac);
        reply[28..32].copy_from_slice(&self.ip.octets());
        reply
    }

    fn too_big(&self, packet: &[u8]) -> Vec<u8> {
        let quote = &packet[LINK..packet.len().min(LINK + 48)];
        let mut answer = packet[..LINK + 20].to_vec();
        answer.copy_within(6..12, 0);
        answer[6..12].copy_from_slice(&self.mac);
        let ip = &mut answer[LINK..];
        ip[2..4].copy_from_slice(&(28 + quote.len() as u16).to_be_bytes());
        ip[6] = 0;
        (ip[8], ip[9]) = (64, 1);
        ip.copy_within(12..16, 16);
        ip[12..16].copy_from_slice(&self.ip.octets());
        header_checksum(ip);
        let mut icmp = [&ICMP_FRAGMENTATION_NEEDED[..], &[0; 4], &(self.mtu as u16).to_be_bytes(), quote].concat();
        let sum = complement(&icmp);
        icmp[2..4].copy_from_slice(&sum);
        answer.extend_from_slice(&icmp);
        answer
    }
}

/// The one's complement checksum of bytes that hold zero where it goes.
fn complement(bytes: &[u8]) -> [u8; 2] {
    let words = bytes.chunks(2).map(|w| u32::from(w[0]) << 8 | u32::from(*w.get(1).unwrap_or(&0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}

fn header_checksum(header: &mut [u8]) {
    header[10..12].fill(0);
    let sum = complement(header);
    header[10..12].copy_from_slice(&sum);
}

/// Marks a packet of an ECN-capable transport (RFC 3168, 5); true where it was one.
pub fn mark(bytes: &mut [u8], raw_ip: bool) -> bool {
    let at = if raw_ip { 0 } else { LINK };
    let ip = (raw_ip || bytes.get(12..14) == Some(&[8, 0])) && bytes.get(at) == Some(&0x45);
    if !ip || bytes.len() < at + 20 || bytes[at + 1] & 3 == 0 {
        return false;
    }
    bytes[at + 1] |= 3;
    header_checksum(&mut bytes[at..at + 20]);
    true
}

#[test]
fn what_a_gateway_writes_has_right_checksums() {
    let gateway = Gateway::new(0, 600, false);
    let mut packet = vec![0; 1000];
    packet[..6].copy_from_slice(&gateway.mac);
    packet[12..14].copy_from_slice(&[8, 0]);
    packet[LINK..LINK + 10].copy_from_slice(&[0x45, 2, 3, 218, 0, 0, 0x40, 0, 64, 6]);
    let Verdict::Answer(answer) = gateway.take(0, &mut packet) else { panic!("it fits") };
    let none = checksum::Sum::default();
    assert!(checksum::is_right(&answer[LINK..LINK + 20], none));
    assert!(checksum::is_right(&answer[LINK + 20..], none));
    assert!(mark(&mut packet, false));
    assert_eq!(packet[LINK + 1], 3);
    assert!(checksum::is_right(&packet[LINK..LINK + 20], none));
}
