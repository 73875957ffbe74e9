//! ringroad and smoltcp side by side: both get the same segments and the same
//! program calls, drawn from a seed, and what each makes of them is compared
//! after every step: what was delivered, acknowledged and sent, whether there was
//! an answer or a reset, and the state.
//!
//! Each difference is either a mistake (of ours: mended) or explained by a rule
//! of `rules.rs` with its reason; no rule may be there that no seed needs.
//! `RINGROAD_SEED=n` shows one seed step by step.

mod ringroad_host;
mod rules;
mod script;
mod smoltcp_host;

use ringroad::wire::tcp::{Flags, Segment};
use ringroad::wire::{checksum, ipv4, tcp};
use ringroad_host::Ringroad;
use rules::RULES;
use script::{Ack, Script, Step};
use smoltcp_host::Smoltcp;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

const OURS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const PEER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const PORT: u16 = 80;
const PEER_PORT: u16 = 4000;
/// The peer's initial sequence number: its stream crosses 2^32 early.
const IRS: u32 = u32::MAX - 900;
/// Both receive buffers.
const BUFFER: usize = 8192;
/// Seeds that each run tries where the environment says nothing else.
const SEEDS: u64 = 1500;
/// Seeds beyond them that rules for rare cases need.
const RARE: &[u64] = &[2126, 2243, 2650, 3179, 6433];
/// Time from one step to the next: limits on answers have passed by then.
const PAUSE: u64 = 1100;

/// States, as far as both stacks show them. A listener's connection is `Opening`
/// until the program could accept it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Opening,
    Established,
    FinWait1,
    FinWait2,
    CloseWait,
    Closing,
    LastAck,
    TimeWait,
    Closed,
}

/// What a stack offers to the driver. Times are milliseconds.
trait Host {
    /// Takes a packet in and gives what leaves at once.
    fn input(&mut self, now: u64, packet: &[u8]) -> Vec<Vec<u8>>;
    /// Lets time pass and gives what leaves by then.
    fn pass(&mut self, now: u64) -> Vec<Vec<u8>>;
    fn write(&mut self, data: &[u8]) -> usize;
    fn read(&mut self) -> Vec<u8>;
    /// The program sends no more.
    fn shutdown(&mut self);
    fn abort(&mut self);
    fn state(&mut self) -> State;
}

/// What a stack did, up to and in one step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Seen {
    /// Bytes that the program read so far.
    delivered: Vec<u8>,
    /// The highest acknowledgment, in bytes of the peer's stream.
    acked: i64,
    /// The end of what was sent, in bytes of the stack's stream; a FIN is one.
    sent: i64,
    /// In this step: an empty segment came back at once.
    answered: bool,
    /// In this step: a reset, by its sequence number from `sent` on, and whether it
    /// has an ACK.
    reset: Option<(i64, bool)>,
    state: Option<State>,
}

/// A stack, and what is known of it from the wire.
struct Side {
    host: Box<dyn Host>,
    iss: Option<u32>,
    seen: Seen,
    written: Vec<u8>,
}

/// Bytes of a stream: the peer's, or the program's.
fn stream(at: i64, len: usize, salt: u8) -> Vec<u8> {
    (at..at + len as i64).map(|i| (i as u8).wrapping_mul(31) ^ (i >> 8) as u8 ^ salt).collect()
}

/// A packet from the peer.
fn packet(segment: &Segment, payload: &[u8]) -> Vec<u8> {
    let options = segment.options.encode(tcp::Order::Linux).len();
    let len = tcp::HEADER_LEN + options + payload.len();
    let pseudo = checksum::pseudo_v4(PEER.octets(), OURS.octets(), ipv4::TCP, len as u16);
    let mut bytes = vec![0; len];
    tcp::build(&mut bytes, segment, tcp::Order::Linux, pseudo, payload);
    let header = ipv4::Header::new(PEER, OURS, ipv4::TCP, len, 64, 0, 7, ipv4::DF);
    [zerocopy::IntoBytes::as_bytes(&header), &bytes].concat()
}

impl Side {
    fn new(host: Box<dyn Host>) -> Self {
        Self { host, iss: None, seen: Seen::default(), written: Vec::new() }
    }

    /// Notes what left. `now` is true for answers to the segment of this step.
    fn note(&mut self, packets: &[Vec<u8>], now: bool) {
        for bytes in packets {
            let ip = ipv4::parse(bytes).expect("an IPv4 packet");
            let seg = tcp::parse(ip.payload).expect("a segment");
            let data = &ip.payload[seg.header_len..];
            if seg.flags.contains(Flags::SYN) {
                self.iss = Some(seg.seq);
            }
            let at = i64::from(seg.seq.wrapping_sub(self.iss.unwrap_or(0)) as i32) - 1;
            if seg.flags.contains(Flags::RST) {
                self.seen.reset = Some((at - self.seen.sent, seg.flags.contains(Flags::ACK)));
                continue;
            }
            if seg.flags.contains(Flags::ACK) {
                let ack = i64::from(seg.ack.wrapping_sub(IRS.wrapping_add(1)) as i32);
                assert!(ack >= self.seen.acked, "an acknowledgment was taken back");
                self.seen.acked = ack;
            }
            if !data.is_empty() {
                let end = at as usize + data.len();
                assert_eq!(data, &self.written[at as usize..end], "not what was written leaves");
            }
            let end = at + i64::from(seg.seq_len());
            self.seen.sent = self.seen.sent.max(end);
            self.seen.answered |= now;
        }
    }

    /// Does a step; what came of it is in `seen`.
    fn step(&mut self, step: &Step, now: u64) {
        (self.seen.answered, self.seen.reset) = (false, None);
        let mut left = Vec::new();
        match step {
            Step::Segment { seq, len, flags, ack, window, .. } => {
                let base = self.iss.unwrap_or(0).wrapping_add(1);
                let ack = match *ack {
                    Ack::Sent => self.seen.sent,
                    Ack::Half => self.seen.sent / 2,
                    Ack::Off(by) => self.seen.sent + by,
                };
                let seg = Segment {
                    ce: false,
                    src_port: PEER_PORT,
                    dst_port: PORT,
                    seq: IRS.wrapping_add(1).wrapping_add(*seq as u32),
                    ack: base.wrapping_add(ack as u32),
                    flags: *flags,
                    window: *window,
                    urgent: 0,
                    options: step.options(),
                    header_len: 0,
                    payload_len: *len,
                };
                let payload = stream(*seq, *len, 0x5a);
                left = self.host.input(now, &packet(&seg, &payload));
            }
            Step::Write(n) => {
                let data = stream(self.written.len() as i64, *n, 0xa5);
                let taken = self.host.write(&data);
                self.written.extend(&data[..taken]);
            }
            Step::Read => self.seen.delivered.extend(self.host.read()),
            Step::Shutdown => self.host.shutdown(),
            Step::Abort => self.host.abort(),
            Step::Wait => {}
        }
        self.note(&left, matches!(step, Step::Segment { .. }));
        let later = self.host.pass(now);
        self.note(&later, matches!(step, Step::Segment { .. }));
        self.seen.state = Some(self.host.state());
    }

    /// Lets time go by; what leaves then was not asked for by a segment.
    fn pause(&mut self, until: u64) {
        let left = self.host.pass(until);
        self.note(&left, false);
        self.seen.state = Some(self.host.state());
    }
}

/// What a rule looks at.
struct Case<'a> {
    step: &'a Step,
    /// Both before the step, and after it: ringroad, then smoltcp.
    before: [&'a Seen; 2],
    after: [&'a Seen; 2],
    /// The peer sent something with a later number than its next byte has.
    gap: bool,
    /// The peer's window as the last segment said.
    window: u16,
}

/// Runs a seed; counts the rules that it needed.
fn run(seed: u64, used: &mut BTreeMap<&'static str, Vec<u64>>, verbose: bool) -> Result<(), String> {
    let script = Script::new(seed);
    let mut sides =
        [Side::new(Box::new(Ringroad::new(&script))), Side::new(Box::new(Smoltcp::new(&script)))];
    let mut now = 1000;
    let (mut gap, mut last_window) = (false, 0);
    for (i, step) in script.steps.iter().enumerate() {
        let opening = sides.iter().any(|s| s.seen.state == Some(State::Opening));
        if opening && matches!(step, Step::Shutdown | Step::Abort) {
            continue; // there is no connection yet that a program could have
        }
        let before = sides.each_ref().map(|s| s.seen.clone());
        if let Step::Segment { window, .. } = step {
            last_window = *window;
        }
        for side in &mut sides {
            side.step(step, now);
        }
        // The handshake is done before a timer repeats it.
        let opening = sides.iter().any(|s| s.seen.state == Some(State::Opening));
        now += if opening { PAUSE / 20 } else { PAUSE };
        for side in &mut sides {
            side.pause(now);
        }
        if verbose {
            eprintln!("{i}: {step:?}\n   ringroad {:?}\n   smoltcp  {:?}", brief(&sides[0].seen), brief(&sides[1].seen));
        }
        let (a, mut b) = (&sides[0].seen, sides[1].seen.clone());
        if before[0].sent < before[1].sent {
            b.sent = a.sent; // explained when it began
        }
        if *a != b {
            let (before, after) = (before.each_ref(), [a, &b]);
            let case = Case { step, before, after, gap, window: last_window };
            let Some(rule) = RULES.iter().find(|r| (r.explains)(&case)) else {
                return Err(format!(
                    "seed {seed}, step {i}: {step:?}\n  ringroad was {}\n  ringroad is  {}\n  smoltcp was  {}\n  smoltcp is   {}",
                    brief(before[0]), brief(a), brief(before[1]), brief(&sides[1].seen)
                ));
            };
            used.entry(rule.name).or_default().push(seed);
            if rule.ends {
                return Ok(());
            }
        }
        gap |= matches!(step, Step::Segment { seq, len, .. } if *len > 0 && *seq > before[0].acked);
        if a.state == Some(State::Closed) {
            break;
        }
    }
    Ok(())
}

/// A line of what was seen.
fn brief(s: &Seen) -> String {
    format!(
        "{:?} delivered {} acked {} sent {} answered {} reset {:?}",
        s.state, s.delivered.len(), s.acked, s.sent, s.answered, s.reset
    )
}

#[test]
fn both_stacks_make_the_same_of_the_same_segments_or_a_rule_says_why() {
    let number = |name: &str| std::env::var(name).ok()?.trim().parse::<u64>().ok();
    let mut used = BTreeMap::new();
    if let Some(seed) = number("RINGROAD_SEED") {
        run(seed, &mut used, true).unwrap_or_else(|difference| panic!("{difference}"));
        return;
    }
    let seeds = number("RINGROAD_SEEDS").unwrap_or(SEEDS);
    let differences: Vec<_> = (0..seeds).chain(RARE.iter().copied()).filter_map(|s| run(s, &mut used, false).err()).collect();
    let shown = &differences[..differences.len().min(12)];
    assert!(shown.is_empty(), "{} seeds of {seeds} differ:\n{}", differences.len(), shown.join("\n"));
    let mut dead = Vec::new();
    for rule in RULES {
        let by = used.get(rule.name).map_or(&[][..], Vec::as_slice);
        println!("{:6} times, first in {:?}: {}", by.len(), by.first(), rule.name);
        println!("                 {}", rule.reason);
        if by.is_empty() && seeds >= SEEDS {
            dead.push(rule.name);
        }
    }
    assert!(dead.is_empty(), "no seed needs these rules: {dead:#?}");
}
