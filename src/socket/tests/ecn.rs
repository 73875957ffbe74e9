//! Marks of a congested path, from the IP header to the echo (RFC 3168, 8257).

use super::*;
use crate::stack::testing::fix_header;
use crate::tcp::{Algorithm, EcnMode};
use crate::wire::ethernet;
use crate::wire::tcp::{self as wire, Flags, Segment};

/// The codepoints of the IP header (RFC 3168, 5).
const ECT: u8 = 2;
const CE: u8 = 3;

/// What becomes of a packet on its way.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Arrives,
    Marked,
    Lost,
}

use Fate::{Arrives, Lost, Marked};

/// Two hosts that do ECN, with this algorithm, and a connection between them.
fn with_ecn(algorithm: Algorithm) -> (Net, Handle, Handle) {
    let mut configs = [config(1), config(2)];
    for c in &mut configs {
        c.tcp.ecn = EcnMode::Request;
        c.tcp.options.congestion = algorithm;
    }
    let [a, b] = configs;
    let mut net = Net::with(a, b);
    let (client, server, _) = net.connected(80);
    // An exchange: nothing is acknowledged that was not data.
    net.a.send(client, b"hello", 0).unwrap();
    net.pass(Duration::from_secs(1));
    assert_eq!(net.b.recv(server, &mut [0; 9], 0), Ok(5));
    (net, client, server)
}

/// All that `from` has to send goes to `to` in one batch; each packet's codepoint
/// as it left, and its segment.
fn across(from: &mut Sockets, to: &mut Sockets, now: Instant, fates: &[Fate]) -> Vec<(u8, Segment)> {
    from.turn(now);
    let (mut batch, mut left) = (Batch::new(), Vec::new());
    while let Some(desc) = from.tx().1.pop() {
        let mut bytes = from.tx().0.tx_bytes(&desc).to_vec();
        from.tx().0.complete(desc.index());
        let ip = &mut bytes[ethernet::HEADER_LEN..];
        let fate = fates.get(left.len()).copied().unwrap_or(Arrives);
        left.push((ip[1] & 3, wire::parse(&ip[20..]).unwrap()));
        if fate == Marked {
            ip[1] |= CE;
            fix_header(ip);
        }
        if fate != Lost {
            let pool = &mut to.stack.core.pool;
            let mut frame = pool.alloc().unwrap();
            pool.buffer_mut(&mut frame)[..bytes.len()].copy_from_slice(&bytes);
            frame.set_range(0, bytes.len());
            batch.push(Packet::single(frame));
        }
    }
    to.receive(now, &mut batch);
    left
}

/// The congestion window in segments (tcpi_snd_cwnd).
fn window(s: &mut Sockets, h: Handle) -> u32 {
    let mut info = [0; 84];
    s.get_option(h, IPPROTO_TCP, TCP_INFO, &mut info).unwrap();
    u32::from_ne_bytes(info[80..].try_into().unwrap())
}

impl Net {
    /// The client sends so many full segments, of which these become so.
    fn data(&mut self, client: Handle, fates: &[Fate]) -> Vec<(u8, Segment)> {
        self.a.send(client, &vec![7; 1448 * fates.len()], 0).unwrap();
        let sent = across(&mut self.a, &mut self.b, self.now, fates);
        assert_eq!(sent.len(), fates.len());
        assert!(sent.iter().all(|(codepoint, _)| *codepoint == ECT), "data is sent as capable");
        sent
    }

    /// What the server answers, and whether each says that there was a mark.
    fn answers(&mut self) -> Vec<(u32, bool)> {
        let sent = across(&mut self.b, &mut self.a, self.now, &[]);
        assert!(sent.iter().all(|(codepoint, _)| *codepoint == 0), "bare ACKs are not");
        sent.iter().map(|(_, s)| (s.ack, s.flags.contains(Flags::ECE))).collect()
    }
}

#[test]
fn a_mark_in_the_ip_header_is_echoed_until_the_window_is_reduced() {
    let (mut net, client, _) = with_ecn(Algorithm::Cubic);
    let before = window(&mut net.a, client);
    // The short way in knows of no marks.
    let sent = net.data(client, &[Arrives]);
    let end = |s: &Segment| s.seq.wrapping_add(s.payload_len as u32);
    assert_eq!(net.answers(), [(end(&sent[0].1), false)]);
    // What would take it but for the mark.
    let sent = net.data(client, &[Marked]);
    assert_eq!(net.answers(), [(end(&sent[0].1), true)]);
    assert!(window(&mut net.a, client) < before, "the echo came back as congestion");
    // The next data says so, and the echo ends.
    let sent = net.data(client, &[Arrives]);
    assert!(sent[0].1.flags.contains(Flags::CWR));
    assert_eq!(net.answers(), [(end(&sent[0].1), false)]);
}

#[test]
fn a_mark_on_a_segment_out_of_order_is_echoed_too() {
    let (mut net, client, _) = with_ecn(Algorithm::Cubic);
    let sent = net.data(client, &[Lost, Marked]);
    assert_eq!(net.answers(), [(sent[0].1.seq, true)]);
}

#[test]
fn one_acknowledgment_never_covers_marked_and_unmarked_data_of_a_batch() {
    // RFC 8257, 3.2: DCTCP counts the marked bytes.
    let (mut net, client, _) = with_ecn(Algorithm::Dctcp);
    let sent = net.data(client, &[Arrives, Arrives, Marked, Marked, Arrives]);
    let end = |i: usize| sent[i].1.seq.wrapping_add(1448);
    assert_eq!(net.answers(), [(end(1), false), (end(3), true), (end(4), false)]);
}
