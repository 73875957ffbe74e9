//! What of all that a run can have did happen in it: a class whose feature never
//! comes about shows nothing.

use crate::draw::Draw;
use crate::features::Class;
use bitflags::bitflags;
use std::collections::BTreeMap;

bitflags! {
    /// Things that happened in a run.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Seen: u64 {
        /// Whole connections with this many bytes one way.
        const ONE_BYTE = 1;
        const HUNDRED_MEGABYTES = 1 << 1;
        /// A program sent after it had read the peer's end.
        const HALF_CLOSE = 1 << 2;
        /// A program saw ECONNRESET.
        const RESET = 1 << 3;
        /// A window of nothing was announced.
        const ZERO_WINDOW = 1 << 4;
        /// A reader stopped for long.
        const PAUSE = 1 << 5;
        const RESTART = 1 << 6;
        const ADDRESS = 1 << 7;
        const ROUTE = 1 << 8;
        /// Whole connections between hosts with odd timers.
        const EDGE_TIMES = 1 << 9;
        /// Sequence numbers of a connection went across 2^32.
        const WRAP = 1 << 10;
        /// An urgent byte read with the others, and one read apart.
        const URGENT_INLINE = 1 << 11;
        const URGENT_APART = 1 << 12;
        /// A connection began while the one before it was in TIME-WAIT.
        const REUSE = 1 << 13;
        const FAST_OPEN = 1 << 14;
        /// A connection that began with a cookie, and one that does ECN besides.
        const COOKIE = 1 << 15;
        const COOKIE_ECN = 1 << 16;
        /// A mark was reported to its sender.
        const ECHO = 1 << 17;
        /// Whole connections with each congestion control.
        const RENO = 1 << 18;
        const CUBIC = 1 << 19;
        const BBR = 1 << 20;
        const DCTCP = 1 << 21;
        /// A connection had its listener's.
        const INHERITED = 1 << 22;
        /// Another one while data was under way.
        const SWITCHED = 1 << 23;
        const KEEPALIVE = 1 << 24;
        /// The user timeout option was sent by both sides.
        const USER_TIMEOUT = 1 << 25;
        /// TCP_USER_TIMEOUT or too few retries ended a connection.
        const TIMED_OUT = 1 << 26;
        const DEFERRED = 1 << 27;
    }
}

impl Seen {
    pub fn congestion(name: &str) -> Self {
        match name {
            "reno" => Self::RENO,
            "cubic" => Self::CUBIC,
            "bbr" => Self::BBR,
            "dctcp" => Self::DCTCP,
            _ => Self::empty(),
        }
    }

    /// What the seeds of a class must bring about between them.
    pub fn demanded(class: Class) -> Self {
        let controls = Self::RENO | Self::CUBIC | Self::BBR | Self::DCTCP;
        match class {
            Class::Perfect | Class::Bad | Class::Terrible => Self::ONE_BYTE | Self::HALF_CLOSE | controls,
            Class::Slow => Self::ECHO,
            Class::FewFrames | Class::Cut | Class::Many => Self::HALF_CLOSE,
            Class::CutForEver => Self::TIMED_OUT,
            Class::Aborts => Self::RESET,
            Class::Wrap => Self::WRAP,
            Class::Big => Self::HUNDRED_MEGABYTES,
            Class::Upheaval => Self::RESTART | Self::ADDRESS | Self::ROUTE,
            Class::Urgent => Self::URGENT_INLINE | Self::URGENT_APART,
            Class::Reuse => Self::REUSE,
            Class::Opens => Self::FAST_OPEN | Self::COOKIE | Self::COOKIE_ECN | Self::ECHO | Self::DEFERRED,
            Class::Settings => {
                let times = Self::EDGE_TIMES | Self::PAUSE | Self::ZERO_WINDOW | Self::KEEPALIVE;
                times | Self::USER_TIMEOUT | controls | Self::INHERITED | Self::SWITCHED
            }
            Class::Swarm => Self::all() - Self::HUNDRED_MEGABYTES,
        }
    }
}

/// How far a flow came, as packets on the wire show it.
#[derive(Default)]
struct Flow {
    highest: u32,
    begun: bool,
    /// The last window that it announced was nothing.
    shut: bool,
    /// It carried the user timeout option.
    user_timeout: bool,
}

/// Looks at every packet that hosts send.
#[derive(Default)]
pub struct Watch {
    flows: BTreeMap<([u8; 8], [u8; 2], [u8; 2]), Flow>,
    pub seen: Seen,
}

const KIND_USER_TIMEOUT: u8 = 28;

impl Watch {
    /// `ip` begins with an IPv4 header.
    pub fn look(&mut self, ip: &[u8]) {
        let Some((addresses, tcp, len)) = split(ip) else { return };
        let number = |at: usize| u32::from_be_bytes([tcp[at], tcp[at + 1], tcp[at + 2], tcp[at + 3]]);
        let (seq, flags, window) = (number(4), tcp[13], u16::from_be_bytes([tcp[14], tcp[15]]));
        let header = usize::from(tcp[12] >> 4) * 4;
        if header < 20 || header > tcp.len() {
            return;
        }
        let (from, to) = ([tcp[0], tcp[1]], [tcp[2], tcp[3]]);
        let mut back = [0; 8];
        back[..4].copy_from_slice(&addresses[4..]);
        back[4..].copy_from_slice(&addresses[..4]);
        let (peer_shut, peer_option) = self.flows.get(&(back, to, from)).map_or((false, false), |f| (f.shut, f.user_timeout));
        let (syn, fin, rst) = (flags & 2 != 0, flags & 1 != 0, flags & 4 != 0);
        let flow = self.flows.entry((addresses, from, to)).or_default();
        let payload = len - header;
        if syn {
            *flow = Flow { highest: seq, begun: true, ..Flow::default() };
        } else if !rst {
            flow.shut = window == 0;
            self.seen.set(Seen::ZERO_WINDOW, self.seen.contains(Seen::ZERO_WINDOW) || window == 0);
            if flags & 0x40 != 0 {
                self.seen |= Seen::ECHO;
            }
        }
        let end = seq.wrapping_add(payload as u32).wrapping_add(u32::from(syn) + u32::from(fin));
        let ahead = end.wrapping_sub(flow.highest);
        if flow.begun && ahead < 1 << 30 {
            if end < flow.highest {
                self.seen |= Seen::WRAP;
            }
            flow.highest = end;
        } else if flow.begun && !rst && payload <= 1 && ahead == u32::MAX && !peer_shut {
            self.seen |= Seen::KEEPALIVE;
        }
        if options(&tcp[20..header]).any(|kind| kind == KIND_USER_TIMEOUT) {
            flow.user_timeout = true;
            if peer_option {
                self.seen |= Seen::USER_TIMEOUT;
            }
        }
    }
}

/// The addresses of a TCP packet, its segment, and the segment's whole length.
fn split(ip: &[u8]) -> Option<([u8; 8], &[u8], usize)> {
    if ip.len() < 40 || ip[0] != 0x45 || ip[9] != 6 || ip[6] & 0x3f != 0 || ip[7] != 0 {
        return None;
    }
    let len = usize::from(u16::from_be_bytes([ip[2], ip[3]]));
    let tcp = ip.get(20..len)?;
    (tcp.len() >= 20).then_some((*ip[12..].first_chunk()?, tcp, len - 20))
}

/// The kinds of options in a header.
fn options(mut rest: &[u8]) -> impl Iterator<Item = u8> {
    std::iter::from_fn(move || {
        while rest.first() == Some(&1) {
            rest = &rest[1..];
        }
        let (&kind, &len) = (rest.first()?, rest.get(1)?);
        if kind == 0 || len < 2 {
            return None;
        }
        rest = rest.get(usize::from(len)..).unwrap_or_default();
        Some(kind)
    })
}

/// Adds up, over many runs, in how many of them each thing happened.
pub struct Tally([u64; 64]);

impl Default for Tally {
    fn default() -> Self {
        Self([0; 64])
    }
}

impl Tally {
    pub fn add(&mut self, seen: Seen) {
        for (i, count) in self.0.iter_mut().enumerate() {
            *count += seen.bits() >> i & 1;
        }
    }

    pub fn plus(mut self, other: &Self) -> Self {
        self.0.iter_mut().zip(other.0).for_each(|(a, b)| *a += b);
        self
    }

    /// What never happened.
    pub fn missing(&self, of: Seen) -> Seen {
        of.iter().filter(|thing| self.count(*thing) == 0).collect()
    }

    fn count(&self, thing: Seen) -> u64 {
        self.0[thing.bits().trailing_zeros() as usize]
    }

    pub fn print(&self) {
        for (name, thing) in Seen::all().iter_names() {
            println!("{:>9} runs with {}", self.count(thing), name.to_lowercase());
        }
    }
}

#[test]
fn a_watch_tells_what_it_is_shown() {
    let mut segment = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
    segment.extend([0, 80, 1, 0]);
    let packet = |seq: u32, flags: u8, window: u16, options: &[u8], payload: usize| {
        let mut p = segment.clone();
        p.extend(seq.to_be_bytes());
        p.extend([0; 4]);
        p.extend([(5 + options.len() as u8 / 4) << 4, flags]);
        p.extend(window.to_be_bytes());
        p.extend([0; 4]);
        p.extend(options);
        p.resize(p.len() + payload, 0);
        let len = p.len() as u16;
        p[2..4].copy_from_slice(&len.to_be_bytes());
        p
    };
    let mut watch = Watch::default();
    let mut d = Draw::new(3);
    watch.look(&packet(u32::MAX - 5, 2, 100, &[], 0));
    watch.look(&packet(u32::MAX - 4, 0x10, 100, &[], 4));
    assert_eq!(watch.seen, Seen::empty());
    // What is old, or no TCP, shows nothing.
    watch.look(&packet(u32::MAX - 4, 0x10, 100, &[1, 1, 28, 4, 0, 9, 0, 0], 4));
    watch.look(&[0x45; 30]);
    let garbage: Vec<u8> = (0..60).map(|_| d.below(256) as u8).collect();
    watch.look(&garbage);
    assert_eq!(watch.seen, Seen::empty());
    watch.look(&packet(u32::MAX, 0x50, 0, &[], 10));
    assert_eq!(watch.seen, Seen::WRAP | Seen::ECHO | Seen::ZERO_WINDOW);
    watch.look(&packet(8, 0x10, 100, &[], 0));
    assert_eq!(watch.seen, Seen::WRAP | Seen::ECHO | Seen::ZERO_WINDOW | Seen::KEEPALIVE);
    let mut tally = Tally::default();
    tally.add(watch.seen);
    assert_eq!(tally.missing(Seen::WRAP | Seen::REUSE), Seen::REUSE);
}
