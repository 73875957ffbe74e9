//! Tests of whole connections: one against a script, or two joined by a wire
//! whose losses, delays and duplicates the test chooses.

mod burst;
mod close;
mod conformance;
mod early;
mod ecn;
mod edges;
mod handshake;
mod loss;
mod manners;
mod recovery;
mod pacing;
mod path;
mod rules;
mod search;
mod storm;
mod timers;
mod transfer;
mod urgent;
mod ways;
mod user_timeout;
mod window;

use super::fuzzing::packet::{Out, give_back, open};
use super::*;
use crate::errno::Errno;
use crate::frame::{Frame, Packet, Pool, TxDesc, TxQueue};
use crate::rng::Rng;
use crate::telemetry::{Counters, DropReason};
use crate::time::{Duration, Instant};
use crate::wire::tcp::{Flags, Options, SackBlock, Segment};
use std::collections::VecDeque;

const FIN: Flags = Flags::FIN;
const SYN: Flags = Flags::SYN;
const RST: Flags = Flags::RST;
const PSH: Flags = Flags::PSH;
const ACK: Flags = Flags::ACK;
const URG: Flags = Flags::URG;

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

impl Out {
    fn len(&self) -> usize {
        self.data.len()
    }
}

/// One end: a connection and all that surrounds it.
struct Host {
    conn: Option<Connection>,
    pool: Pool,
    tx: TxQueue,
    counters: Counters,
    config: Config,
    rng: Rng,
    now: Instant,
    events: Events,
    /// Descriptors whose completion is held back, while `hold` is set.
    pending: Vec<TxDesc>,
    hold: bool,
    /// Frames that the test has in its hands.
    lent: usize,
    again: bool,
}

impl Host {
    fn new(mut config: Config, seed: u64) -> Self {
        // Reno's windows are the easiest to tell. Who wants another names it.
        if config.options.congestion == Algorithm::default() {
            config.options.congestion = Algorithm::Reno;
        }
        Self {
            conn: None,
            pool: Pool::heap(2048, 2048),
            tx: TxQueue::new(2048),
            counters: Counters::default(),
            config,
            rng: Rng::new(seed),
            now: Instant::from_nanos(1_000_000_000),
            events: Events::empty(),
            pending: Vec::new(),
            hold: false,
            lent: 0,
            again: false,
        }
    }

    /// Runs `f` with the connection and its surroundings.
    fn with<R>(&mut self, f: impl FnOnce(&mut Connection, &mut Env) -> R) -> R {
        let mut conn = self.conn.take().expect("a connection");
        let r = f(&mut conn, &mut self.env());
        self.conn = Some(conn);
        r
    }

    fn env(&mut self) -> Env<'_> {
        Env {
            now: self.now,
            pool: &mut self.pool,
            tx: &mut self.tx,
            counters: &mut self.counters,
            config: &self.config,
            rng: &mut self.rng,
        }
    }

    fn conn(&self) -> &Connection {
        self.conn.as_ref().expect("a connection")
    }

    fn state(&self) -> State {
        self.conn().state()
    }

    fn note(&mut self, d: Disposition) {
        self.events |= d.events;
    }

    /// The events since the last call.
    fn take_events(&mut self) -> Events {
        core::mem::take(&mut self.events)
    }

    fn send(&mut self, data: &[u8]) -> usize {
        self.with(|c, e| c.send(e, data))
    }

    fn recv_all(&mut self) -> Vec<u8> {
        let mut buf = vec![0; self.conn().recv_len()];
        let n = self.with(|c, e| c.recv(e, &mut buf, false));
        assert_eq!(n, buf.len());
        buf
    }

    fn shutdown(&mut self) {
        let d = self.with(|c, _| c.shutdown_send());
        self.note(d);
    }

    fn close(&mut self) {
        let d = self.with(|c, e| c.close(e));
        self.note(d);
    }

    fn take_error(&mut self) -> Option<Errno> {
        self.with(|c, _| c.take_error())
    }

    fn timer(&mut self) {
        let d = self.with(|c, e| c.on_timer(e));
        self.note(d);
    }

    /// Flushes as often as is due now, and takes what leaves as raw IP packets.
    fn output(&mut self) -> Vec<Vec<u8>> {
        let mut packets = Vec::new();
        loop {
            let (flush, part) = self.output_once();
            packets.extend(part);
            if flush != Flush::More {
                return packets;
            }
        }
    }

    /// Flushes once.
    fn output_once(&mut self) -> (Flush, Vec<Vec<u8>>) {
        let flush = self.with(|c, e| c.flush(e));
        self.again = flush == Flush::Again;
        let mut packets = Vec::new();
        while let Some(desc) = self.tx.pop() {
            packets.push(self.pool.tx_bytes(&desc).to_vec());
            if self.hold {
                self.pending.push(desc);
            } else {
                self.pool.complete(desc.index());
            }
        }
        self.check();
        (flush, packets)
    }

    fn complete_all(&mut self) {
        for desc in self.pending.drain(..) {
            self.pool.complete(desc.index());
        }
    }

    /// Flushes, and takes what leaves apart.
    fn out(&mut self) -> Vec<Out> {
        self.output().iter().map(|p| open(p)).collect()
    }

    /// Flushes; exactly one segment leaves.
    fn out_one(&mut self) -> Out {
        let mut all = self.out();
        assert_eq!(all.len(), 1, "{all:?}");
        all.remove(0)
    }

    #[track_caller]
    fn silent(&mut self) {
        let all = self.out();
        assert!(all.is_empty(), "{all:?}");
    }

    /// Gives a segment and its payload to the connection.
    fn input(&mut self, seg: &Segment, data: &[u8]) {
        let payload = (!data.is_empty()).then(|| {
            let mut frame = self.pool.alloc().expect("a frame");
            self.pool.buffer_mut(&mut frame)[52..52 + data.len()].copy_from_slice(data);
            frame.set_range(52, data.len());
            Packet::single(frame)
        });
        let d = self.with(|c, e| c.input(e, seg, payload));
        self.note(d);
        self.check();
    }

    /// Goes on in time and lets timers act.
    fn advance(&mut self, by: Duration) {
        let end = self.now + by;
        while self.conn().deadline() <= end {
            self.now = self.now.max(self.conn().deadline());
            self.timer();
            if self.state() == State::Closed {
                return;
            }
            if !self.conn().wants_flush() {
                continue;
            }
            return;
        }
        self.now = end;
    }

    /// No frame is lost.
    fn check(&self) {
        self.pool.assert_conserved();
        let held = self.conn.as_ref().map_or(0, Connection::held_frames) + self.lent;
        assert_eq!(self.pool.counts().held as usize, held, "frames leak");
    }

    /// Ends the connection; all frames must be free afterwards.
    fn finish(mut self) {
        self.complete_all();
        give_back(self.conn.take(), &mut self.pool, &mut self.tx);
    }
}

fn template(local: &str, remote: &str) -> Template {
    Template::new(Link::Raw, local.parse().unwrap(), remote.parse().unwrap(), 64, 0)
}

fn initial(iss: u32) -> isn::Initial {
    isn::Initial { iss, ts_offset: iss.rotate_left(7) }
}

/// A connection against a script: the test plays the peer.
struct Solo {
    host: Host,
    /// The peer's next sequence number and the acknowledgment it sends.
    seq: u32,
    ack: u32,
    window: u16,
    /// The peer's timestamp and the last one of ours, where in use.
    time: Option<u32>,
    echo: u32,
}

/// Our initial sequence number in scripts: the wrap is near.
const ISS: u32 = u32::MAX - 2000;
/// The peer's.
const IRS: u32 = u32::MAX - 700;

/// What the peer's SYN offers in scripts.
#[derive(Clone, Copy)]
struct Offer {
    mss: u16,
    scale: Option<u8>,
    sack: bool,
    time: bool,
    window: u16,
}

const PLAIN: Offer = Offer { mss: 1000, scale: None, sack: false, time: false, window: 60_000 };
const MODERN: Offer = Offer { mss: 1460, scale: Some(7), sack: true, time: true, window: 60_000 };

impl Solo {
    /// A passive connection in SYN-RECEIVED, its SYN-ACK gone.
    fn syn_received(config: Config, offer: Offer) -> (Self, Out) {
        let mut host = Host::new(config, 1);
        let mut solo_time = None;
        let options = Options {
            mss: Some(offer.mss),
            window_scale: offer.scale,
            sack_permitted: offer.sack,
            timestamp: offer.time.then(|| {
                solo_time = Some(5000);
                (5000, 0)
            }),
            ..Options::default()
        };
        let syn = segment(SYN, IRS, 0, offer.window, options, 0);
        let t = template("10.0.0.1:80", "10.0.0.2:4000");
        let conn_options = host.config.options.clone();
        let conn = Connection::accept(&mut host.env(), t, &conn_options, initial(ISS), 1500, &syn);
        host.conn = Some(conn);
        let synack = host.out_one();
        let echo = synack.seg.options.timestamp.map_or(0, |t| t.0);
        let solo = Self {
            host,
            seq: IRS.wrapping_add(1),
            ack: ISS.wrapping_add(1),
            window: offer.window,
            time: solo_time,
            echo,
        };
        (solo, synack)
    }

    /// An established connection.
    fn established(config: Config, offer: Offer) -> Self {
        let (mut solo, _) = Self::syn_received(config, offer);
        solo.get(ACK, b"");
        assert_eq!(solo.host.state(), State::Established);
        solo.host.take_events();
        solo.host.silent();
        solo
    }

    fn plain() -> Self {
        Self::established(Config::default(), PLAIN)
    }

    fn modern() -> Self {
        Self::established(Config::default(), MODERN)
    }

    fn options(&self) -> Options {
        Options { timestamp: self.time.map(|t| (t, self.echo)), ..Options::default() }
    }

    /// The peer's next segment arrives.
    fn get(&mut self, flags: Flags, data: &[u8]) {
        let seg = segment(flags, self.seq, self.ack, self.window, self.options(), data.len());
        self.seq = self.seq.wrapping_add(seg.seq_len());
        self.host.input(&seg, data);
    }

    /// A segment `ahead` of (or behind) the peer's next arrives.
    fn get_at(&mut self, ahead: i32, flags: Flags, data: &[u8]) {
        let at = self.seq.wrapping_add(ahead as u32);
        let seg = segment(flags, at, self.ack, self.window, self.options(), data.len());
        self.host.input(&seg, data);
    }

    /// An empty ACK up to `ahead` of what was acknowledged last.
    fn get_ack(&mut self, ahead: u32) {
        self.ack = self.ack.wrapping_add(ahead);
        self.get(ACK, b"");
    }

    /// Our sequence number relative to the first byte.
    fn rel(&self, out: &Out) -> u32 {
        out.seg.seq.wrapping_sub(ISS.wrapping_add(1))
    }

    /// (relative sequence number, length) of all that leaves.
    fn leaving(&mut self) -> Vec<(u32, usize)> {
        let all = self.host.out();
        all.iter().map(|o| (self.rel(o), o.len())).collect()
    }
}

fn segment(flags: Flags, at: u32, ack: u32, window: u16, options: Options, len: usize) -> Segment {
    Segment {
        src_port: 4000,
        dst_port: 80,
        seq: at,
        ack: if flags.contains(ACK) { ack } else { 0 },
        flags,
        window,
        urgent: 0,
        options,
        header_len: 20,
        payload_len: len,
        ce: false,
    }
}

/// What becomes of a packet on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Pass,
    Drop,
    Twice,
    /// Comes so much later.
    Late(Duration),
}

/// Two ends and the wire between them.
struct Pair {
    a: Host,
    b: Host,
    delay: Duration,
    /// What goes to `b` arrives no closer together than this.
    gap: Duration,
    /// The largest packet of both ends' interfaces.
    mtu: usize,
    /// What is under way: arrival, order of sending, to b?, packet.
    wire: VecDeque<(Instant, u64, bool, Vec<u8>)>,
    sent: u64,
    fate: Box<dyn FnMut(bool, &Segment) -> Fate>,
    /// Both ends read what comes in.
    reading: bool,
    got_a: Vec<u8>,
    got_b: Vec<u8>,
}

impl Pair {
    /// `a` opens actively, `b` waits for its SYN.
    fn new(config_a: Config, config_b: Config) -> Self {
        Self::with_mtu(config_a, config_b, 1500)
    }

    fn with_mtu(config_a: Config, config_b: Config, mtu: usize) -> Self {
        let (mut a, mut b) = (Host::new(config_a, 11), Host::new(config_b, 12));
        if mtu > 2048 {
            (a.pool, b.pool) = (Pool::heap(2048, mtu as u16 + 64), Pool::heap(2048, mtu as u16 + 64));
        }
        let options = a.config.options.clone();
        let t = template("10.0.0.2:4000", "10.0.0.1:80");
        a.conn = Some(Connection::connect(&mut a.env(), t, &options, initial(0xffff_f000), mtu));
        Self {
            a,
            b,
            delay: ms(5),
            gap: Duration::ZERO,
            mtu,
            wire: VecDeque::new(),
            sent: 0,
            fate: Box::new(|_, _| Fate::Pass),
            reading: true,
            got_a: Vec::new(),
            got_b: Vec::new(),
        }
    }

    /// An open connection.
    fn open(config: Config) -> Self {
        let mut pair = Self::new(config.clone(), config);
        pair.run(ms(100));
        assert_eq!(pair.a.state(), State::Established);
        assert_eq!(pair.b.state(), State::Established);
        pair
    }

    fn now(&self) -> Instant {
        self.a.now
    }

    fn emit(&mut self, to_b: bool) {
        let from = if to_b { &mut self.a } else { &mut self.b };
        if from.conn.is_none() {
            return;
        }
        for packet in from.output() {
            let seg = open(&packet).seg;
            let spaced = to_b && self.gap > Duration::ZERO;
            let before = self.wire.iter().filter(|w| spaced && w.2).map(|w| w.0 + self.gap).max();
            let at = before.unwrap_or(self.a.now).max(self.a.now + self.delay);
            self.sent += 1;
            match (self.fate)(to_b, &seg) {
                Fate::Drop => continue,
                Fate::Pass => {}
                Fate::Late(by) => {
                    self.wire.push_back((at + by, self.sent, to_b, packet));
                    continue;
                }
                Fate::Twice => self.wire.push_back((at, self.sent, to_b, packet.clone())),
            }
            self.wire.push_back((at, self.sent, to_b, packet));
        }
    }

    fn deliver(&mut self, to_b: bool, packet: &[u8]) {
        let out = open(packet);
        let host = if to_b { &mut self.b } else { &mut self.a };
        if host.conn.is_none() {
            if out.seg.flags & (SYN | ACK | RST) != SYN {
                return;
            }
            let options = host.config.options.clone();
            let t = template("10.0.0.1:80", "10.0.0.2:4000");
            let first = initial(0x7fff_ff00);
            let conn = Connection::accept(&mut host.env(), t, &options, first, self.mtu, &out.seg);
            host.conn = Some(conn);
            return;
        }
        host.input(&out.seg, &out.data);
        if self.reading {
            let got = if to_b { &mut self.got_b } else { &mut self.got_a };
            got.extend(host.recv_all());
        }
    }

    /// Runs for so long.
    fn run(&mut self, span: Duration) {
        let end = self.now() + span;
        loop {
            self.emit(true);
            self.emit(false);
            let timer = |h: &Host| h.conn.as_ref().map_or(Instant::NEVER, Connection::deadline);
            let next = self.wire.iter().map(|w| w.0).min().unwrap_or(Instant::NEVER);
            let next = next.min(timer(&self.a)).min(timer(&self.b));
            if next > end {
                (self.a.now, self.b.now) = (end, end);
                return;
            }
            let now = self.a.now.max(next);
            (self.a.now, self.b.now) = (now, now);
            for host in [&mut self.a, &mut self.b] {
                if host.conn.as_ref().is_some_and(|c| c.deadline() <= now) {
                    host.timer();
                }
            }
            let mut due: Vec<_> = self.wire.iter().filter(|w| w.0 <= now).cloned().collect();
            self.wire.retain(|w| w.0 > now);
            due.sort_by_key(|w| (w.0, w.1));
            for (_, _, to_b, packet) in due {
                self.deliver(to_b, &packet);
            }
        }
    }

    fn finish(self) {
        self.a.finish();
        self.b.finish();
    }
}

/// Bytes that tell where they belong.
fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i ^ i >> 8 ^ i >> 16) as u8).collect()
}
