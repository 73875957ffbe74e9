//! A connection on a bench: the fuzzer plays the peer, the program and the clock.
//! What crosses the wire is checked on the way out, whatever the target.

use super::Choices;
use super::packet::{Out, give_back, open};
use crate::frame::{Packet, Pool, TxDesc, TxQueue};
use crate::rng::Rng;
use crate::tcp::connection::Bits;
use crate::tcp::isn::Initial;
use crate::tcp::{Config, ConnOptions, Connection, Disposition, Env, Flush, Link, State, Template, seq};
use crate::telemetry::Counters;
use crate::time::{Duration, Instant};
use crate::wire::tcp::{Flags, Options, Segment};

/// A byte of a stream, by its sequence number: what comes twice is the same.
pub fn byte_at(number: u32) -> u8 {
    let x = number.wrapping_mul(0x9e37_79b1);
    (x >> 24) as u8 ^ number as u8
}

/// `len` bytes of a stream from a sequence number on.
pub fn stream(from: u32, len: usize) -> Vec<u8> {
    (0..len as u32).map(|i| byte_at(from.wrapping_add(i))).collect()
}

/// A connection and all that surrounds it.
pub struct Bench {
    conn: Option<Connection>,
    pub pool: Pool,
    tx: TxQueue,
    pub counters: Counters,
    pub config: Config,
    rng: Rng,
    pub now: Instant,
    /// Transmissions whose completion is held back.
    pending: Vec<TxDesc>,
    pub hold: bool,
    /// Sequence number of the next byte to write, and to read.
    write_at: u32,
    read_at: Option<u32>,
    /// Urgent bytes are read apart.
    apart: bool,
    /// Urgent pointers that came, and bytes that reading left out for them.
    pointers: u32,
    left_out: u32,
    /// The farthest right edge announced.
    edge: Option<u32>,
}

/// The initial sequence number of ours; the wrap is near.
const ISS: u32 = u32::MAX - 3000;

/// A segment of the peer's, without options.
pub fn segment(flags: Flags, at: u32, ack: u32, window: u16, len: usize) -> Segment {
    let options = Options::default();
    Segment {
        ce: false,
        src_port: 4000,
        dst_port: 80,
        seq: at,
        ack: if flags.contains(Flags::ACK) { ack } else { 0 },
        flags,
        window,
        urgent: 0,
        options,
        header_len: 20,
        payload_len: len,
    }
}

impl Bench {
    /// A connection that `begin` opens.
    pub fn new(
        config: Config,
        frames: u32,
        begin: impl FnOnce(&mut Env, Template, &ConnOptions, Initial) -> Connection,
    ) -> Self {
        let mut bench = Self {
            conn: None,
            pool: Pool::heap(frames, 2048),
            tx: TxQueue::new(512),
            counters: Counters::default(),
            config,
            rng: Rng::new(5),
            now: Instant::from_nanos(1_000_000_000),
            pending: Vec::new(),
            hold: false,
            write_at: ISS.wrapping_add(1),
            read_at: None,
            apart: false,
            pointers: 0,
            left_out: 0,
            edge: None,
        };
        let ends = ["10.0.0.1:80", "10.0.0.2:4000"].map(|a| a.parse().expect("an address"));
        let template = Template::new(Link::Raw, ends[0], ends[1], 64, 0);
        let options = bench.config.options.clone();
        let initial = Initial { iss: ISS, ts_offset: ISS.rotate_left(7) };
        let mut conn = begin(&mut bench.env(), template, &options, initial);
        // What is read is the whole stream, unless the target says otherwise.
        conn.set_oob_inline(true);
        bench.conn = Some(conn);
        bench
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

    /// Runs `f` with the connection and its surroundings.
    pub fn with<R>(&mut self, f: impl FnOnce(&mut Connection, &mut Env) -> R) -> R {
        let mut conn = self.conn.take().expect("a connection");
        let r = f(&mut conn, &mut self.env());
        self.conn = Some(conn);
        r
    }

    pub fn conn(&self) -> &Connection {
        self.conn.as_ref().expect("a connection")
    }

    pub fn state(&self) -> State {
        self.conn().state()
    }

    /// Writes up to `n` bytes of the stream; returns how many were taken.
    pub fn write(&mut self, n: usize) -> usize {
        let data = stream(self.write_at, n);
        let taken = self.with(|c, e| c.send(e, &data));
        assert!(taken <= n);
        self.write_at = self.write_at.wrapping_add(taken as u32);
        taken
    }

    /// Reads up to `n` bytes: they are the peer's stream, with no gap.
    pub fn read(&mut self, n: usize, peek: bool) -> usize {
        let mut buf = vec![0; n];
        let from = self.next_read();
        let got = self.with(|c, e| c.recv(e, &mut buf, peek));
        self.was_read(from, &buf[..got], peek);
        got
    }

    /// Takes the next frame of the peer's stream.
    pub fn read_frame(&mut self) {
        let from = self.next_read();
        let Some(frame) = self.with(|c, e| c.recv_frame(e.pool)) else { return };
        let bytes = self.pool.bytes(&frame).to_vec();
        self.pool.free(frame);
        let _ = self.with(|c, _| c.recv_release(bytes.len()));
        self.was_read(from, &bytes, false);
    }

    /// Urgent bytes are read apart from now on, or with the others.
    pub fn set_apart(&mut self, on: bool) {
        self.apart |= on;
        self.with(|c, _| c.set_oob_inline(!on));
    }

    /// Reads the urgent byte apart: it is the one at the mark.
    pub fn read_urgent(&mut self, peek: bool) {
        let conn = self.conn();
        let mark = conn.urgent_mark().map(|ahead| conn.read_seq().wrapping_add(ahead));
        if let Ok(Some(byte)) = self.with(|c, _| c.recv_urgent(peek)) {
            assert_eq!(Some(byte), mark.map(byte_at), "not the urgent byte");
        }
    }

    /// Writes a byte of the stream as urgent.
    pub fn write_urgent(&mut self) {
        if self.write(1) > 0 {
            self.with(|c, _| c.mark_urgent());
        }
    }

    /// The number of the byte that a read begins with.
    fn next_read(&self) -> u32 {
        let conn = self.conn();
        let all = conn.readable() == conn.recv_len();
        // Reading goes on behind an urgent byte that is read apart.
        let skips = !all && conn.at_mark();
        conn.read_seq().wrapping_add(skips.into())
    }

    /// These bytes were read: the peer's stream, and no more of it was left out
    /// than there were urgent pointers.
    fn was_read(&mut self, from: u32, bytes: &[u8], peek: bool) {
        if bytes.is_empty() {
            return;
        }
        let expected = self.read_at.unwrap_or_else(|| self.conn().cold.irs.wrapping_add(1));
        let gap = from.wrapping_sub(expected);
        assert!(gap == 0 || self.apart, "{gap} bytes are left out");
        assert!(self.left_out + gap <= self.pointers, "{gap} bytes are left out");
        assert_eq!(bytes, stream(from, bytes.len()), "what is read is not the peer's stream");
        if !peek {
            self.left_out += gap;
            self.read_at = Some(from.wrapping_add(bytes.len() as u32));
        }
    }

    /// Gives a segment to the connection; its payload is the peer's stream.
    pub fn input(&mut self, seg: &Segment, cut: usize) -> Disposition {
        self.pointers += u32::from(seg.flags.contains(Flags::URG));
        let first = seg.seq.wrapping_add(u32::from(seg.flags.contains(Flags::SYN)));
        let data = stream(first, seg.payload_len);
        let (head, rest) = data.split_at(if cut < data.len() { data.len() - cut } else { data.len() });
        let mut frame = |bytes: &[u8]| {
            let mut frame = self.pool.alloc()?;
            self.pool.buffer_mut(&mut frame)[52..52 + bytes.len()].copy_from_slice(bytes);
            frame.set_range(52, bytes.len());
            Some(frame)
        };
        let mut packet = None;
        if !data.is_empty() {
            // Where no frame is free, nothing could have come in.
            let Some(first) = frame(head) else { return Disposition::NONE };
            let second = if rest.is_empty() { None } else { frame(rest) };
            if !rest.is_empty() && second.is_none() {
                self.pool.free(first);
                return Disposition::NONE;
            }
            packet = Some(Packet { head: first, rest: second.map(|f| Box::new(vec![f])) });
        }
        let d = self.with(|c, e| c.input(e, seg, packet));
        self.check();
        d
    }

    /// Flushes, and takes what leaves apart.
    pub fn output(&mut self) -> (Vec<Out>, Flush) {
        let flush = self.with(|c, e| c.flush(e));
        let mut all = Vec::new();
        while let Some(desc) = self.tx.pop() {
            all.push(open(self.pool.tx_bytes(&desc)));
            if self.hold {
                self.pending.push(desc);
            } else {
                self.pool.complete(desc.index());
            }
        }
        for out in &all {
            self.check_out(out);
        }
        self.check();
        (all, flush)
    }

    /// The device is done with all that was sent.
    pub fn complete_all(&mut self) {
        for desc in self.pending.drain(..) {
            self.pool.complete(desc.index());
        }
    }

    /// The clock goes on to the next timer, if that is due within `most`, which
    /// then acts; else by `most`.
    pub fn advance(&mut self, most: Duration) -> Disposition {
        let deadline = self.conn().deadline();
        let end = self.now + most;
        if deadline > end {
            self.now = end;
            return Disposition::NONE;
        }
        self.now = self.now.max(deadline);
        let d = self.with(|c, e| c.on_timer(e));
        self.check();
        d
    }

    /// What leaves is our stream, within the windows, and takes nothing back.
    fn check_out(&mut self, out: &Out) {
        let (seg, h) = (&out.seg, &self.conn().hot);
        let first = seg.seq.wrapping_add(u32::from(seg.flags.contains(Flags::SYN)));
        assert_eq!(out.data, stream(first, out.data.len()), "not what was written leaves");
        if !out.data.is_empty() {
            let end = first.wrapping_add(out.data.len() as u32);
            // One byte more is a probe.
            let most = h.snd_una.wrapping_add(self.conn().warm.max_wnd).wrapping_add(1);
            assert!(seq::le(end, most), "{} bytes beyond the window", seq::distance(most, end));
            assert!(out.data.len() <= usize::from(u16::MAX));
        }
        if seg.flags.contains(Flags::URG) {
            let up = seg.seq.wrapping_add(seg.urgent.into());
            assert!(seg.urgent > 0 && seq::le(up, h.snd_end), "urgent data that was not written");
        }
        if seg.flags.intersects(Flags::SYN | Flags::RST) || !seg.flags.contains(Flags::ACK) {
            return;
        }
        let step = 1u32 << h.rcv_scale;
        let edge = seg.ack.wrapping_add(u32::from(seg.window) << h.rcv_scale);
        let farthest = self.edge.map_or(edge, |old| seq::max(old, edge));
        // The scale may hide less than a unit (RFC 7323, 2.4).
        assert!(seq::distance(edge, farthest) < step, "the window shrank from {farthest} to {edge}");
        self.edge = Some(farthest);
    }

    /// What holds between any two steps.
    pub fn check(&self) {
        self.pool.assert_conserved();
        let conn = self.conn();
        assert_eq!(self.pool.counts().held as usize, conn.held_frames(), "frames leak");
        let h = &conn.hot;
        if !h.state.is_synchronized() {
            return;
        }
        let flight = h.snd_nxt.wrapping_sub(h.snd_una);
        assert!(seq::le(h.snd_una, h.snd_nxt), "una {} nxt {}", h.snd_una, h.snd_nxt);
        assert!(seq::le(h.snd_nxt, h.snd_end.wrapping_add(1)));
        assert!(h.send.lost() <= flight && conn.pipe() <= flight);
        assert!(seq::le(h.rcv_nxt, h.rcv_edge) || h.bits.contains(Bits::PEER_CLOSED));
        assert!(seq::le(h.last_ack, h.rcv_nxt));
        assert!(conn.recv_len() as u32 <= h.rcv_used && h.rcv_used <= h.rcv_buf);
        assert!(h.mss > 0 && conn.warm.congestion.window > 0);
        let ahead = conn.recv.ahead.as_ref().map_or(0, |a| a.frames());
        assert!(ahead <= self.config.out_of_order_segments as usize);
    }

    /// Where everything was sent that may be, no timer is due at once, and what is
    /// outstanding is watched by one.
    pub fn check_rest(&self, flush: Flush) {
        let (conn, h) = (self.conn(), &self.conn().hot);
        if flush == Flush::Again {
            return;
        }
        assert!(conn.deadline() > self.now, "at {:?} a timer spins: {conn:?}", self.now);
        let outstanding = h.snd_una != h.snd_nxt && h.state.is_synchronized();
        assert!(!outstanding || conn.deadline() != Instant::NEVER, "nobody watches: {conn:?}");
    }

    /// The program closes and the peer is silent: the connection ends by itself
    /// and leaves nothing behind.
    pub fn end(mut self) {
        self.complete_all();
        self.hold = false;
        let _ = self.with(|c, e| c.close(e));
        for _ in 0..2000 {
            if self.state() == State::Closed {
                break;
            }
            let (_, flush) = self.output();
            self.check_rest(flush);
            let next = self.conn().deadline();
            assert!(next < Instant::NEVER, "it never ends: {:?}", self.conn());
            self.now = self.now.max(next);
            let _ = self.with(|c, e| c.on_timer(e));
        }
        assert_eq!(self.state(), State::Closed, "{:?}", self.conn());
        give_back(self.conn.take(), &mut self.pool, &mut self.tx);
    }
}

/// Limits of a connection by choice: all that a program or operator may set.
pub fn config(choices: &mut Choices) -> Config {
    let mut config = Config::default();
    let o = &mut config.options;
    let bits = choices.byte();
    (o.timestamps, o.sack, o.window_scaling) = (bits & 1 == 0, bits & 2 == 0, bits & 4 == 0);
    (o.nodelay, o.cork, o.quick_ack) = (bits & 8 == 0, bits & 16 != 0, bits & 32 != 0);
    o.keepalive = bits & 64 != 0;
    o.receive_buffer = choices.pick(&[256 << 10, 1024, 5000, 65_535, 1 << 20]);
    o.send_buffer = choices.pick(&[256 << 10, 1024, 5000, 65_535, 1 << 20]);
    o.user_timeout = choices.pick(&[0, 0, 0, 1, 5000]);
    config.out_of_order_segments = choices.pick(&[1024, 1, 8]);
    config.quick_acks = choices.pick(&[16, 0]);
    config.initial_window = choices.pick(&[10, 1, 2]);
    config.frame_reserve = 16;
    config.frames_low = choices.pick(&[48, 200]);
    config
}
