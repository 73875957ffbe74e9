//! What happens in a run, drawn from its seed. Numbers are bytes of the streams,
//! so that the script is the same for stacks with different sequence numbers.

use crate::IRS;
use ringroad::rng::Rng;
use ringroad::wire::tcp::{Flags, Options};

/// What a segment acknowledges, by what the stack has sent.
#[derive(Clone, Copy, Debug)]
pub enum Ack {
    /// All of it.
    Sent,
    /// The first half.
    Half,
    /// So much more (or less) than all.
    Off(i64),
}

#[derive(Clone, Debug)]
pub enum Step {
    /// The peer sends bytes `seq..seq + len` of its stream (its SYN is byte -1).
    Segment {
        what: &'static str,
        seq: i64,
        len: usize,
        flags: Flags,
        ack: Ack,
        window: u16,
        sack: bool,
    },
    Write(usize),
    Read,
    Shutdown,
    Abort,
    /// Nothing but time.
    Wait,
}

impl Step {
    /// The options of the segment: those of a SYN.
    pub fn options(&self) -> Options {
        match self {
            Self::Segment { flags, sack, .. } if flags.contains(Flags::SYN) => {
                Options { mss: Some(1000), sack_permitted: *sack, ..Options::default() }
            }
            _ => Options::default(),
        }
    }
}

/// A run.
#[derive(Debug)]
pub struct Script {
    pub seed: u64,
    /// The stacks listen, or else connect.
    pub passive: bool,
    pub sack: bool,
    pub steps: Vec<Step>,
}

/// Draws steps, and remembers what the peer has sent.
struct Draw {
    rng: Rng,
    /// The end of what was sent without a gap.
    next: i64,
    window: u16,
    fin: Option<i64>,
    sack: bool,
    steps: Vec<Step>,
}

const OPEN: u16 = 30_000;

impl Script {
    pub fn new(seed: u64) -> Self {
        const { assert!(IRS > 1 << 31) };
        let mut rng = Rng::new(seed ^ 0x5eed << 32);
        let (passive, sack) = (rng.below(2) == 0, rng.below(3) == 0);
        let mut d = Draw { rng, next: 0, window: OPEN, fin: None, sack, steps: Vec::new() };
        d.open(passive);
        let mut reads = d.rng.below(3) > 0;
        for _ in 0..d.rng.below(30) + 5 {
            d.step();
            if d.rng.below(12) == 0 {
                reads = !reads;
            }
            if reads {
                d.steps.push(Step::Read);
            }
        }
        Self { seed, passive, sack, steps: d.steps }
    }
}

impl Draw {
    fn one_in(&mut self, n: u32) -> bool {
        self.rng.below(n) == 0
    }

    fn put(&mut self, what: &'static str, seq: i64, len: usize, flags: Flags, ack: Ack) {
        let (window, sack) = (self.window, self.sack);
        self.steps.push(Step::Segment { what, seq, len, flags, ack, window, sack });
    }

    /// The handshake, with or without trouble.
    fn open(&mut self, passive: bool) {
        let (syn, ack) = (Flags::SYN, Flags::ACK);
        if passive {
            if self.one_in(6) {
                self.put("an ACK before the SYN", 0, 0, ack, Ack::Off(5));
            }
            self.put("SYN", -1, 0, syn, Ack::Sent);
            if self.one_in(6) {
                self.put("the SYN again", -1, 0, syn, Ack::Sent);
            }
            if self.one_in(8) {
                self.put("a wrong ACK of the SYN", 0, 0, ack, Ack::Off(77));
            }
            if self.one_in(10) {
                self.put("a reset of the handshake", 0, 0, Flags::RST, Ack::Sent);
            }
            self.put("the handshake's ACK", 0, 0, ack, Ack::Off(0));
        } else {
            self.steps.push(Step::Wait);
            if self.one_in(8) {
                self.put("a SYN-ACK of nothing sent", -1, 0, syn | ack, Ack::Off(50));
            }
            if self.one_in(8) {
                self.put("a reset without ACK", 0, 0, Flags::RST, Ack::Sent);
            }
            if self.one_in(8) {
                self.put("an ACK for the SYN alone", 0, 0, ack, Ack::Off(0));
            }
            if self.one_in(12) {
                self.put("a refusal", 0, 0, Flags::RST | ack, Ack::Off(0));
            }
            if self.one_in(5) {
                self.put("a SYN at the same time", -1, 0, syn, Ack::Sent);
                self.put("and its SYN-ACK", -1, 0, syn | ack, Ack::Off(0));
            } else {
                self.put("SYN-ACK", -1, 0, syn | ack, Ack::Off(0));
            }
        }
    }

    fn step(&mut self) {
        let ack = match self.rng.below(10) {
            0 => Ack::Half,
            1 => Ack::Off(-(i64::from(self.rng.below(600)))),
            _ => Ack::Sent,
        };
        let flags = Flags::ACK | if self.one_in(3) { Flags::PSH } else { Flags::empty() };
        let len = self.rng.below(1000) as usize + 1;
        let next = self.next;
        let far = 20_000 + i64::from(self.rng.below(100_000));
        match self.rng.below(30) {
            0..=6 => {
                self.put("in order", next, len, flags, ack);
                self.next += if self.fin.is_none() { len as i64 } else { 0 };
            }
            7 | 8 => {
                let back = i64::from(self.rng.below(1500)).min(next);
                self.put("over what came, and on", next - back, len, flags, ack);
                let end = next.max(next - back + len as i64);
                self.next = if self.fin.is_none() { end } else { next };
            }
            9..=11 => {
                let gap = i64::from(self.rng.below(1500)) + 1;
                self.put("ahead of a gap", next + gap, len, flags, ack);
            }
            12 => self.put("far ahead", next + far, len, flags, ack),
            13 => self.put("long past", (next - far).max(next - 1 - (1 << 20)), len, flags, ack),
            14 => self.put("an empty ACK", next, 0, Flags::ACK, ack),
            15 => self.put("an ACK far ahead", next, 0, Flags::ACK, Ack::Off(far)),
            16 => self.put("an empty segment far ahead", next + far, 0, Flags::ACK, ack),
            17 => self.put("a keepalive probe", next - 1, 0, Flags::ACK, Ack::Sent),
            18 if self.one_in(3) => self.put("a reset in order", next, 0, Flags::RST, ack),
            18 => self.put("a reset in the window", next + 100, 0, Flags::RST, ack),
            19 => self.put("a reset far ahead", next + far, 0, Flags::RST, ack),
            20 => self.put("a SYN in the window", next + 10, 0, Flags::SYN, ack),
            21 => self.put("data without ACK", next, len, Flags::PSH, ack),
            22 => {
                self.window = if self.window == 0 { OPEN } else { 0 };
                self.put("a window that turns", next, 0, Flags::ACK, Ack::Sent);
            }
            23 | 24 if self.fin.is_none() => {
                let len = if self.one_in(2) { 0 } else { len };
                self.put("FIN", next, len, Flags::FIN | Flags::ACK, ack);
                self.next += len as i64 + 1;
                self.fin = Some(self.next);
            }
            23 | 24 if self.fin.is_some() => {
                self.put("FIN again", next - 1, 0, Flags::FIN | Flags::ACK, Ack::Sent);
            }
            25 | 26 if self.one_in(2) => self.steps.push(Step::Shutdown),
            26 if self.one_in(4) => self.steps.push(Step::Abort),
            27 => self.steps.push(Step::Read),
            _ => {
                let n = self.rng.below(1500) as usize + 1;
                self.steps.push(Step::Write(n));
            }
        }
    }
}
