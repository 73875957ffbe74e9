//! The headers of a connection, made once: every segment starts from a copy and
//! only what changes is patched in.

use super::Reply;
use crate::arch::fold;
use crate::frame::{Pool, TxQueue};
use crate::wire::checksum;
use crate::wire::ethernet::{self, Mac};
use crate::wire::tcp::Flags;
use core::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

/// Bytes of a TCP header without options.
const TCP: usize = 20;
/// The largest of all: Ethernet, IPv6, and the ports.
const MAX: usize = 14 + 40 + 4;
/// ECT(0) (RFC 3168, 5).
const ECT: u8 = 2;

/// What lies under IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// Ethernet II.
    Ethernet {
        /// Our address.
        src: Mac,
        /// The next hop's address.
        dst: Mac,
    },
    /// Nothing: frames are bare IP packets.
    Raw,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    EthernetV4,
    EthernetV6,
    RawV4,
    RawV6,
}

/// The complete link and IP header of a connection, and its ports, with their
/// sums taken.
///
/// The bytes come last: over IPv4 a third of them is not used, and may lie in a line that
/// does not come with the others.
#[derive(Clone, Debug)]
#[repr(C)]
pub struct Template {
    /// Sum of the IPv4 header without total length and checksum.
    ip_sum: u16,
    /// Sum of the pseudo-header without the length, and of the ports.
    pseudo: u16,
    shape: Shape,
    bytes: [u8; MAX],
}

/// The changing part of a TCP header.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fields {
    pub seq: u32,
    pub ack: u32,
    pub flags: Flags,
    pub window: u16,
}

impl Template {
    /// For a connection over IPv4. DF is set, so the identification can be and
    /// is zero (RFC 6864, 4.1).
    pub fn v4(link: Link, local: SocketAddrV4, remote: SocketAddrV4, ttl: u8, tos: u8) -> Self {
        let shape = if link == Link::Raw { Shape::RawV4 } else { Shape::EthernetV4 };
        let mut t = Self::linked(link, shape, ethernet::IPV4);
        let l2 = t.l2();
        let ip = &mut t.bytes[l2..];
        ip[0] = 0x45;
        ip[1] = tos & !3;
        ip[6] = 0x40;
        ip[8] = ttl;
        ip[9] = 6;
        ip[12..16].copy_from_slice(&local.ip().octets());
        ip[16..20].copy_from_slice(&remote.ip().octets());
        ip[20..22].copy_from_slice(&local.port().to_be_bytes());
        ip[22..24].copy_from_slice(&remote.port().to_be_bytes());
        t.resum();
        t
    }

    /// For a connection over IPv6; `tos` is the traffic class, `ttl` the hop limit.
    pub fn v6(link: Link, local: SocketAddrV6, remote: SocketAddrV6, ttl: u8, tos: u8) -> Self {
        let shape = if link == Link::Raw { Shape::RawV6 } else { Shape::EthernetV6 };
        let mut t = Self::linked(link, shape, ethernet::IPV6);
        let l2 = t.l2();
        let ip = &mut t.bytes[l2..];
        ip[0] = 0x60 | tos >> 4;
        ip[1] = (tos & !3) << 4;
        ip[6] = 6;
        ip[7] = ttl;
        ip[8..24].copy_from_slice(&local.ip().octets());
        ip[24..40].copy_from_slice(&remote.ip().octets());
        ip[40..42].copy_from_slice(&local.port().to_be_bytes());
        ip[42..44].copy_from_slice(&remote.port().to_be_bytes());
        t.resum();
        t
    }

    /// For a connection over whichever version the addresses are.
    ///
    /// # Panics
    /// If they differ in it.
    pub fn new(link: Link, local: SocketAddr, remote: SocketAddr, ttl: u8, tos: u8) -> Self {
        match (local, remote) {
            (SocketAddr::V4(local), SocketAddr::V4(remote)) => Self::v4(link, local, remote, ttl, tos),
            (SocketAddr::V6(local), SocketAddr::V6(remote)) => Self::v6(link, local, remote, ttl, tos),
            _ => panic!("both ends of a connection speak the same IP version"),
        }
    }

    fn linked(link: Link, shape: Shape, ethertype: u16) -> Self {
        let mut bytes = [0; MAX];
        if let Link::Ethernet { src, dst } = link {
            bytes[0..6].copy_from_slice(&dst.0);
            bytes[6..12].copy_from_slice(&src.0);
            bytes[12..14].copy_from_slice(&ethertype.to_be_bytes());
        }
        Self { bytes, shape, ip_sum: 0, pseudo: 0 }
    }

    /// Takes the sums again after a change of the IP header.
    fn resum(&mut self) {
        let (ip, end) = (self.l2(), self.l2l3_len());
        if let (false, Some(head)) = (self.is_v6(), self.bytes[ip..].first_chunk::<24>()) {
            // Without a call: nearly every connection is one over IPv4.
            let [kind, part, life, from, to, ports] = core::array::from_fn(|i| {
                u64::from(u32::from_be_bytes([head[4 * i], head[4 * i + 1], head[4 * i + 2], head[4 * i + 3]]))
            });
            self.ip_sum = fold(kind + part + life + from + to);
            self.pseudo = fold(from + to + ports + 6);
            return;
        }
        self.ip_sum = checksum::sum(&self.bytes[ip..end]).fold();
        self.pseudo = checksum::sum(&self.bytes[ip + 8..end + 4]).add_u16(6).fold();
    }

    const fn l2(&self) -> usize {
        match self.shape {
            Shape::EthernetV4 | Shape::EthernetV6 => 14,
            Shape::RawV4 | Shape::RawV6 => 0,
        }
    }

    /// Bytes of link and IP header.
    #[inline]
    pub const fn l2l3_len(&self) -> usize {
        match self.shape {
            Shape::EthernetV4 => 34,
            Shape::EthernetV6 => 54,
            Shape::RawV4 => 20,
            Shape::RawV6 => 40,
        }
    }

    /// Bytes of the IP header.
    pub const fn l3_len(&self) -> usize {
        if self.is_v6() { 40 } else { 20 }
    }

    /// True for IPv6.
    pub const fn is_v6(&self) -> bool {
        matches!(self.shape, Shape::EthernetV6 | Shape::RawV6)
    }

    /// True where there is no link header, and so no neighbour to be found.
    pub const fn is_raw(&self) -> bool {
        matches!(self.shape, Shape::RawV4 | Shape::RawV6)
    }

    /// Sets the next hop's hardware address (no effect on a raw link).
    pub fn set_dst_mac(&mut self, mac: Mac) {
        if !self.is_raw() {
            self.bytes[0..6].copy_from_slice(&mac.0);
        }
    }

    /// Sets our own hardware address.
    pub fn set_src_mac(&mut self, mac: Mac) {
        if !self.is_raw() {
            self.bytes[6..12].copy_from_slice(&mac.0);
        }
    }

    /// Sets the type of service or traffic class; its two low bits are ECN's
    /// ([`Template::set_ect`]).
    pub fn set_tos(&mut self, tos: u8) {
        self.put_tos(tos & !3 | self.ecn_bits());
    }

    /// Data is sent as that of an ECN-capable transport, ECT(0), or not.
    pub(super) fn set_ect(&mut self, on: bool) {
        let ecn = if on { ECT } else { 0 };
        if self.ecn_bits() != ecn {
            self.put_tos(self.tos() & !3 | ecn);
        }
    }

    fn tos(&self) -> u8 {
        let ip = self.l2();
        if self.is_v6() {
            self.bytes[ip] << 4 | self.bytes[ip + 1] >> 4
        } else {
            self.bytes[ip + 1]
        }
    }

    fn ecn_bits(&self) -> u8 {
        self.tos() & 3
    }

    /// Takes ECT out of a header that was stamped: pure ACKs, what is sent again
    /// and probes do not have it (RFC 3168, 6.1.4 to 6.1.6).
    #[cold]
    fn clear_ect(&self, buf: &mut [u8]) {
        let ip = self.l2();
        if self.is_v6() {
            buf[ip + 1] &= !(3 << 4);
            return;
        }
        buf[ip + 1] &= !3;
        // RFC 1624, eqn. 3: ~(~HC + ~m + m').
        let sum = u32::from(!u16::from_be_bytes([buf[ip + 10], buf[ip + 11]]));
        let sum = sum + u32::from(!u16::from(self.ecn_bits()));
        let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
        buf[ip + 10..ip + 12].copy_from_slice(&sum.to_be_bytes());
    }

    /// As [`Template::stamp_any`], without ECT.
    pub(super) fn stamp_without_ect(
        &self,
        buf: &mut [u8],
        fields: Fields,
        timestamp: Option<(u32, u32)>,
        payload_len: usize,
        payload_sum: u16,
    ) {
        self.stamp_any(buf, fields, timestamp, payload_len, payload_sum);
        if self.ecn_bits() != 0 {
            self.clear_ect(buf);
        }
    }

    fn put_tos(&mut self, tos: u8) {
        let ip = self.l2();
        if self.is_v6() {
            self.bytes[ip] = 0x60 | tos >> 4;
            self.bytes[ip + 1] = tos << 4 | self.bytes[ip + 1] & 0xf;
        } else {
            self.bytes[ip + 1] = tos;
        }
        self.resum();
    }

    /// Sets the time to live or hop limit.
    pub fn set_ttl(&mut self, ttl: u8) {
        let at = self.l2() + if self.is_v6() { 7 } else { 8 };
        self.bytes[at] = ttl;
        self.resum();
    }

    fn end(&self, which: usize) -> SocketAddr {
        let (ip, ports) = (self.l2(), self.l2l3_len());
        let port = u16::from_be_bytes([self.bytes[ports + which * 2], self.bytes[ports + which * 2 + 1]]);
        if self.is_v6() {
            let at = ip + 8 + 16 * which;
            let mut octets = [0; 16];
            octets.copy_from_slice(&self.bytes[at..at + 16]);
            SocketAddr::from((Ipv6Addr::from(octets), port))
        } else {
            let at = ip + 12 + 4 * which;
            let mut octets = [0; 4];
            octets.copy_from_slice(&self.bytes[at..at + 4]);
            SocketAddr::from((Ipv4Addr::from(octets), port))
        }
    }

    /// Our address and port.
    pub fn local(&self) -> SocketAddr {
        self.end(0)
    }

    /// The peer's address and port.
    pub fn remote(&self) -> SocketAddr {
        self.end(1)
    }

    /// Writes all headers to the front of `buf`. `options` is a multiple of 4
    /// bytes; `payload_sum` is the folded sum of the `payload_len` bytes that
    /// follow the headers.
    pub(super) fn stamp(
        &self,
        buf: &mut [u8],
        fields: Fields,
        options: &[u8],
        payload_len: usize,
        payload_sum: u16,
    ) {
        // An ACK, or a FIN: a timestamp alone, in a straight line.
        if let (Shape::EthernetV4, Ok(timestamp)) = (self.shape, <&[u8; 12]>::try_from(options)) {
            return self.stamp_at::<34>(buf, fields, timestamp, payload_len, payload_sum);
        }
        // A SYN with all options.
        if let (Shape::EthernetV4, Ok(all)) = (self.shape, <&[u8; 20]>::try_from(options)) {
            return self.stamp_at::<34>(buf, fields, all, payload_len, payload_sum);
        }
        match self.shape {
            Shape::EthernetV4 => self.stamp_at::<34>(buf, fields, options, payload_len, payload_sum),
            Shape::EthernetV6 => self.stamp_at::<54>(buf, fields, options, payload_len, payload_sum),
            Shape::RawV4 => self.stamp_at::<20>(buf, fields, options, payload_len, payload_sum),
            Shape::RawV6 => self.stamp_at::<40>(buf, fields, options, payload_len, payload_sum),
        }
    }

    /// As [`Template::stamp`] with the options of a data segment: a timestamp and
    /// its echo, or none. The commonest shape is written in a straight line.
    #[inline(always)]
    pub(super) fn stamp_data(
        &self,
        buf: &mut [u8],
        fields: Fields,
        timestamp: Option<(u32, u32)>,
        payload_len: usize,
        payload_sum: u16,
    ) {
        if let Some(timestamp) = timestamp
            && self.is_plain()
        {
            return self.stamp_plain(buf, fields, timestamp, payload_len, payload_sum);
        }
        self.stamp_any(buf, fields, timestamp, payload_len, payload_sum);
    }

    /// Bytes of the headers of the commonest shape: Ethernet, IPv4, TCP with a timestamp.
    pub(super) const PLAIN: usize = 34 + TCP + 12;

    /// Bytes of the template that are used over Ethernet and IPv4.
    pub(super) const USED_V4: usize = core::mem::offset_of!(Self, bytes) + 34 + 4;

    /// True for the commonest shape.
    #[inline(always)]
    pub(super) fn is_plain(&self) -> bool {
        self.shape == Shape::EthernetV4
    }

    /// As [`Template::stamp_data`] for the commonest shape: some 55 instructions.
    #[inline(always)]
    pub(super) fn stamp_plain(
        &self,
        buf: &mut [u8],
        f: Fields,
        (value, echo): (u32, u32),
        payload_len: usize,
        payload_sum: u16,
    ) {
        const AT: usize = 34;
        let (Some(head), Some(same)) = (buf.first_chunk_mut::<{ Self::PLAIN }>(), self.bytes.first_chunk::<{ AT + 4 }>())
        else {
            return;
        };
        head[..AT + 4].copy_from_slice(same);
        let tcp_len = TCP + 12 + payload_len;
        let total = (20 + tcp_len) as u16;
        // Two 16-bit words: one carry at most.
        let sum = u32::from(self.ip_sum) + u32::from(total);
        let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
        head[16..18].copy_from_slice(&total.to_be_bytes());
        head[24..26].copy_from_slice(&sum.to_be_bytes());
        // The header's length, the flags, the window; two NOPs, the option's kind and length.
        let word = ((TCP + 12) as u32) << 26 | u32::from(f.flags.bits()) << 16 | u32::from(f.window);
        let option = u32::from_be_bytes([1, 1, 8, 10]);
        let words = [f.seq, f.ack, word, option, value, echo];
        let sum = words.iter().map(|&w| u64::from(w)).sum::<u64>()
            + u64::from(self.pseudo)
            + tcp_len as u64
            + u64::from(payload_sum);
        // The urgent pointer behind the checksum is zero.
        let check = u32::from(!fold(sum)) << 16;
        for (i, word) in [f.seq, f.ack, word, check, option, value, echo].into_iter().enumerate() {
            head[AT + 4 + 4 * i..AT + 8 + 4 * i].copy_from_slice(&word.to_be_bytes());
        }
    }

    /// As [`Template::stamp_data`], for every shape.
    #[inline(never)]
    pub(super) fn stamp_any(
        &self,
        buf: &mut [u8],
        fields: Fields,
        timestamp: Option<(u32, u32)>,
        payload_len: usize,
        payload_sum: u16,
    ) {
        match timestamp {
            None => self.stamp(buf, fields, &[], payload_len, payload_sum),
            Some((value, echo)) => {
                self.stamp(buf, fields, &timestamp_option(value, echo), payload_len, payload_sum);
            }
        }
    }

    #[inline(always)]
    fn stamp_at<const L: usize>(
        &self,
        buf: &mut [u8],
        f: Fields,
        options: &[u8],
        payload_len: usize,
        payload_sum: u16,
    ) {
        let (Some((head, tcp)), Some(bytes)) =
            (buf.split_first_chunk_mut::<L>(), self.bytes.first_chunk::<L>())
        else {
            return;
        };
        *head = *bytes;
        let tcp_len = TCP + options.len() + payload_len;
        if L == 34 || L == 20 {
            let total = (20 + tcp_len) as u16;
            // Two 16-bit words: one carry at most.
            let sum = u32::from(self.ip_sum) + u32::from(total);
            let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
            head[L - 18..L - 16].copy_from_slice(&total.to_be_bytes());
            head[L - 10..L - 8].copy_from_slice(&sum.to_be_bytes());
        } else {
            head[L - 36..L - 34].copy_from_slice(&(tcp_len as u16).to_be_bytes());
        }
        let offset = ((TCP + options.len()) as u32) << 26;
        let word = offset | u32::from(f.flags.bits()) << 16 | u32::from(f.window);
        let sum = u64::from(self.pseudo)
            + tcp_len as u64
            + u64::from(f.seq)
            + u64::from(f.ack)
            + u64::from(word)
            + words(options)
            + u64::from(payload_sum);
        let Some((fixed, rest)) = tcp.split_first_chunk_mut::<TCP>() else { return };
        fixed[0..4].copy_from_slice(&self.bytes[L..L + 4]);
        fixed[4..8].copy_from_slice(&f.seq.to_be_bytes());
        fixed[8..12].copy_from_slice(&f.ack.to_be_bytes());
        fixed[12..16].copy_from_slice(&word.to_be_bytes());
        // The urgent pointer behind the checksum is zero.
        fixed[16..20].copy_from_slice(&(u32::from(!fold(sum)) << 16).to_be_bytes());
        // What nearly every segment carries has a fixed size.
        match (options.first_chunk::<12>(), rest.first_chunk_mut::<12>()) {
            (Some(stamp), Some(to)) if options.len() == 12 => *to = *stamp,
            _ => rest[..options.len()].copy_from_slice(options),
        }
    }

    /// Whether packets may not be fragmented on their way; over IPv6 they never are.
    pub(super) const fn has_df(&self) -> bool {
        self.is_v6() || self.bytes[self.l2() + 6] & 0x40 != 0
    }

    /// DF on or off.
    pub(super) fn set_df(&mut self, on: bool) {
        if !self.is_v6() {
            let at = self.l2() + 6;
            self.bytes[at] = if on { 0x40 } else { 0 };
            self.resum();
        }
    }

    /// Puts an identification into finished headers of IPv4, where it was zero.
    #[inline]
    pub(super) fn identify(&self, buf: &mut [u8], ident: Option<u16>) {
        let Some(ident) = ident else { return };
        let ip = &mut buf[self.l2()..];
        ip[4..6].copy_from_slice(&ident.to_be_bytes());
        let sum = u64::from(!u16::from_be_bytes([ip[10], ip[11]])) + u64::from(ident);
        ip[10..12].copy_from_slice(&(!fold(sum)).to_be_bytes());
    }

    /// Puts an urgent pointer into finished headers, if there is one.
    #[inline]
    pub(super) fn mark_urgent(&self, buf: &mut [u8], pointer: Option<u16>) {
        let Some(pointer) = pointer else { return };
        let tcp = &mut buf[self.l2l3_len()..];
        tcp[13] |= Flags::URG.bits();
        tcp[18..20].copy_from_slice(&pointer.to_be_bytes());
        // The flag and the pointer were zero before (RFC 1624).
        let sum = u64::from(!u16::from_be_bytes([tcp[16], tcp[17]]));
        let sum = sum + u64::from(Flags::URG.bits()) + u64::from(pointer);
        tcp[16..18].copy_from_slice(&(!fold(sum)).to_be_bytes());
    }

    /// Sends a segment that no connection stands behind. False (and nothing
    /// done) where the pool is empty or the transmit queue full.
    pub fn send(&self, pool: &mut Pool, tx: &mut TxQueue, reply: &Reply) -> bool {
        let mut options = [0; 12];
        let options = match reply.timestamp {
            Some((value, echo)) => {
                options = timestamp_option(value, echo);
                &options[..]
            }
            None => &options[..0],
        };
        let mut flags = Flags::empty();
        flags.set(Flags::RST, reply.reset);
        flags.set(Flags::ACK, reply.ack.is_some());
        let fields =
            Fields { seq: reply.seq, ack: reply.ack.unwrap_or(0), flags, window: reply.window };
        self.send_bare(pool, tx, fields, options)
    }

    /// Sends a segment without payload from a fresh frame.
    pub(super) fn send_bare(&self, pool: &mut Pool, tx: &mut TxQueue, f: Fields, options: &[u8]) -> bool {
        self.send_bare_urgent(pool, tx, f, options, None)
    }

    /// The same with an urgent pointer, if there is one.
    pub(super) fn send_bare_urgent(
        &self,
        pool: &mut Pool,
        tx: &mut TxQueue,
        f: Fields,
        options: &[u8],
        urgent: Option<u16>,
    ) -> bool {
        if tx.room() == 0 {
            return false;
        }
        let sent = pool.transmit_new(self.l2l3_len() + TCP + options.len(), |buf| {
            self.stamp(buf, f, options, 0, 0);
            if self.ecn_bits() != 0 {
                self.clear_ect(buf);
            }
            self.mark_urgent(buf, urgent);
        });
        let Some(desc) = sent else { return false };
        tx.push(desc);
        true
    }
}

/// Two NOPs and the timestamp option, laid out as RFC 7323's appendix A has it.
#[inline]
pub(super) fn timestamp_option(value: u32, echo: u32) -> [u8; 12] {
    let ([a, b, c, d], [e, f, g, h]) = (value.to_be_bytes(), echo.to_be_bytes());
    [1, 1, 8, 10, a, b, c, d, e, f, g, h]
}

/// The sum of the options' 32-bit words.
#[inline]
fn words(options: &[u8]) -> u64 {
    let (words, _) = options.as_chunks::<4>();
    words.iter().map(|w| u64::from(u32::from_be_bytes(*w))).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{ipv4, tcp};

    fn link(raw: bool) -> Link {
        if raw { Link::Raw } else { Link::Ethernet { src: Mac([2; 6]), dst: Mac([4; 6]) } }
    }

    #[test]
    fn both_hardware_addresses_can_change() {
        let (local, remote) = ("10.0.0.1:1025".parse().unwrap(), "10.0.0.2:80".parse().unwrap());
        for raw in [false, true] {
            let mut t = Template::new(link(raw), local, remote, 64, 0);
            let before = t.bytes;
            t.set_src_mac(Mac([7; 6]));
            t.set_dst_mac(Mac([8; 6]));
            let link = if raw { before[..12].to_vec() } else { [[8; 6], [7; 6]].concat() };
            assert_eq!((&t.bytes[..12], &t.bytes[12..]), (&link[..], &before[12..]));
        }
    }

    #[test]
    fn headers_over_ipv4_parse_and_their_sums_are_right() {
        for raw in [false, true] {
            let local = "10.0.0.1:1025".parse().unwrap();
            let remote = "192.168.255.254:80".parse().unwrap();
            let mut t = Template::new(link(raw), local, remote, 64, 0);
            t.set_tos(0x10);
            t.set_ttl(7);
            assert_eq!((t.local(), t.remote()), (local, remote));
            let payload = b"odd number of byte!";
            for options in [&[][..], &timestamp_option(0xffff_ffff, 17)[..]] {
                let fields = Fields {
                    seq: 0xfedc_ba98,
                    ack: 0x7fff_ffff,
                    flags: Flags::ACK | Flags::PSH,
                    window: 0xffff,
                };
                let mut buf = vec![0xaa; 200];
                let room = t.l2l3_len() + 20 + options.len();
                buf[room..room + payload.len()].copy_from_slice(payload);
                let sum = checksum::sum(payload).fold();
                t.stamp(&mut buf, fields, options, payload.len(), sum);
                buf.truncate(room + payload.len());
                let ip = ipv4::parse(&buf[t.l2l3_len() - 20..]).unwrap();
                assert_eq!((ip.header.tos, ip.header.ttl), (0x10, 7));
                let pseudo =
                    checksum::pseudo_v4(ip.header.src, ip.header.dst, 6, ip.payload.len() as u16);
                assert_eq!(pseudo.add(checksum::sum(ip.payload)).finish(), 0);
                let seg = tcp::parse(ip.payload).unwrap();
                assert_eq!((seg.seq, seg.ack, seg.flags), (fields.seq, fields.ack, fields.flags));
                assert_eq!((seg.src_port, seg.dst_port, seg.window), (1025, 80, 0xffff));
                assert_eq!(seg.options.timestamp.is_some(), !options.is_empty());
                assert_eq!(seg.payload_len, payload.len());
            }
        }
    }

    #[test]
    fn the_commonest_shape_is_written_as_all_are() {
        let mut t = Template::new(link(false), "10.0.0.1:1025".parse().unwrap(), "10.0.0.2:80".parse().unwrap(), 64, 0);
        t.set_ect(true);
        for sum in [0, 1, 0x7fff, 0xfffe, 0xffff] {
            for (seq, ack, time) in [(0, 0, 0), (u32::MAX, u32::MAX, u32::MAX), (0x1234_5678, 0xfedc_ba98, 0xffff_0000)] {
                let fields = Fields { seq, ack, flags: Flags::ACK | Flags::PSH, window: 0xfffe };
                let (mut one, mut other) = ([0xaa; 200], [0xaa; 200]);
                t.stamp_plain(&mut one, fields, (time, seq), 1448, sum);
                t.stamp_any(&mut other, fields, Some((time, seq)), 1448, sum);
                assert_eq!(one, other);
            }
        }
    }

    #[test]
    fn only_data_is_sent_as_ecn_capable_and_its_sums_are_right() {
        for ends in [("10.0.0.1:1025", "10.0.0.2:80"), ("[fd00::1]:1025", "[fd00::2]:80")] {
            let mut t = Template::new(link(false), ends.0.parse().unwrap(), ends.1.parse().unwrap(), 64, 0x13);
            t.set_ect(true);
            t.set_tos(0x29);
            let fields = Fields { seq: 1, ack: 2, flags: Flags::ACK, window: 3 };
            for (ect, tos) in [(true, 0x2a), (false, 0x28)] {
                let mut buf = vec![0; 100];
                match ect {
                    true => t.stamp_any(&mut buf, fields, None, 0, 0),
                    false => t.stamp_without_ect(&mut buf, fields, None, 0, 0),
                }
                let found = if t.is_v6() { buf[14] << 4 | buf[15] >> 4 } else { buf[15] };
                assert_eq!(found, tos);
                if !t.is_v6() {
                    assert_eq!(checksum::sum(&buf[14..34]).finish(), 0);
                }
            }
        }
    }

    #[test]
    fn headers_over_ipv6_have_the_right_sum_and_length() {
        let local: SocketAddr = "[fd00::1]:1025".parse().unwrap();
        let remote: SocketAddr = "[fd00::2:3]:80".parse().unwrap();
        let mut t = Template::new(link(false), local, remote, 64, 0);
        t.set_tos(0xab);
        assert_eq!((t.local(), t.remote(), t.l2l3_len()), (local, remote, 54));
        let fields = Fields { seq: 1, ack: 2, flags: Flags::ACK, window: 3 };
        let mut buf = vec![0; 54 + 20];
        t.stamp(&mut buf, fields, &[], 0, 0);
        assert_eq!(&buf[14..16], &[0x6a, 0x80], "the two low bits are not the program's");
        assert_eq!(&buf[18..20], &[0, 20]);
        let sum = checksum::sum(&buf[22..]).add_u16(6).add_u16(20);
        assert_eq!(sum.finish(), 0);
    }
}
