//! One connection's state, and what can be asked of it.

use super::config::{Config, ConnOptions};
use super::congestion::{Algorithm, Congestion};
use super::recv_queue::RecvQueue;
use super::rtt::Rtt;
use super::send_queue::SendQueue;
use super::timers::{Mode, Timer, Timers};
use super::types::{Disposition, Env, Events, Readiness, State};
use super::{Template, isn, seq};
use crate::errno::Errno;
use crate::frame::Pool;
use crate::time::Instant;
use crate::wire::ethernet::Mac;

bitflags::bitflags! {
    /// Yes-or-no facts of a connection.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(super) struct Bits: u32 {
        /// Data came in that is not acknowledged.
        const ACK_PENDING = 1 << 0;
        /// An ACK is to leave at the next flush.
        const ACK_NOW = 1 << 1;
        /// A SYN or SYN-ACK is to leave at the next flush.
        const SYN_DUE = 1 << 2;
        /// A keepalive probe is to leave at the next flush.
        const KEEP_DUE = 1 << 3;
        /// One segment may leave whatever the peer's window says.
        const PROBE_DUE = 1 << 4;
        /// Both sides send timestamps.
        const TIMESTAMPS = 1 << 6;
        /// Both sides know SACK.
        const SACK = 1 << 7;
        /// Both sides scale windows.
        const SCALING = 1 << 8;
        const NODELAY = 1 << 9;
        const CORK = 1 << 10;
        const KEEPALIVE = 1 << 11;
        const QUICK_ACK = 1 << 12;
        /// The program sends no more: a FIN follows the data.
        const FIN_QUEUED = 1 << 13;
        /// The FIN was sent at least once.
        const FIN_SENT = 1 << 14;
        /// The FIN is to be sent again.
        const FIN_LOST = 1 << 15;
        /// The peer's FIN came in order.
        const PEER_CLOSED = 1 << 16;
        /// The program closed the socket.
        const ORPHAN = 1 << 17;
        /// The next hop is known.
        const PATH = 1 << 18;
        /// It began with a SYN of the peer's.
        const PASSIVE = 1 << 19;
        /// Fast recovery is on.
        const RECOVERY = 1 << 20;
        /// The retransmission timer expired, and not all that was outstanding
        /// then is acknowledged.
        const LOSS = 1 << 21;
        /// There is data ahead of a gap.
        const GAP = 1 << 22;
        /// The peer sent urgent data that is not read.
        const URGENT = 1 << 23;
        /// `send` found no frame.
        const STARVED = 1 << 24;
        /// The SYN was sent more than once.
        const SYN_REPEATED = 1 << 25;
        /// Input in this state is not for the fast path.
        const SLOW = Self::RECOVERY.bits() | Self::LOSS.bits() | Self::GAP.bits();
    }
}

/// What the in-order path touches.
#[derive(Debug)]
#[repr(C, align(64))]
pub(super) struct Hot {
    pub state: State,
    /// Segments that still get an ACK at once.
    pub quick: u8,
    /// Duplicate ACKs received in a row.
    pub dup_acks: u8,
    /// Duplicate ACKs to send (a peer without SACK gets one a segment).
    pub dup_out: u8,
    pub bits: Bits,
    /// Payload bytes in a full segment of ours.
    pub mss: u16,
    /// Payload bytes in the largest segment of the peer's.
    pub rcv_mss: u16,
    pub snd_scale: u8,
    pub rcv_scale: u8,
    /// How often the RTO doubled.
    pub backoff: u8,
    /// Time-outs since the peer last gave a sign of life.
    pub retries: u8,

    pub rcv_nxt: u32,
    /// The right edge of the window that was announced.
    pub rcv_edge: u32,
    /// Last.ACK.sent.
    pub last_ack: u32,
    pub ts_recent: u32,
    pub ts_offset: u32,
    pub rcv_buf: u32,
    /// Bytes in order that were not read, lent ones included.
    pub rcv_used: u32,

    pub snd_una: u32,
    pub snd_nxt: u32,
    /// After the last byte written; a FIN has this number.
    pub snd_end: u32,
    pub snd_wnd: u32,
    pub snd_wl1: u32,
    pub snd_wl2: u32,
    /// The largest window that the peer announced.
    pub max_wnd: u32,
    pub snd_buf: u32,

    pub rtt: Rtt,
    /// The next measurement begins when this is acknowledged.
    pub rtt_seq: u32,
    pub congestion: Congestion,
    pub timers: Timers,
    /// When the last segment came in.
    pub last_recv: Instant,
    pub send: SendQueue,
}

/// What is seldom touched.
#[derive(Debug)]
pub(super) struct Cold {
    pub iss: u32,
    pub irs: u32,
    /// Recovery lasts until this is acknowledged (RFC 6582).
    pub recover: u32,
    /// Bytes that duplicate ACKs stand for, in recovery.
    pub sacked: u32,
    pub urgent_end: u32,
    pub error: Option<Errno>,
    pub soft_error: Option<Errno>,
    pub mode: Mode,
    /// IP packet size that the path takes.
    pub mtu: u16,
    pub adv_mss: u16,
    pub peer_mss: u16,
    pub max_segment: u16,
    pub min_mss: u16,
    pub syn_retries: u8,
    pub keep_count: u8,
    pub keep_probes: u8,
    pub keep_idle: u32,
    pub keep_interval: u32,
    pub user_timeout: u32,
    /// Since when nothing gets through.
    pub stalled: Instant,
    /// When data was last sent.
    pub last_sent: Instant,
    /// Whole second that the challenge ACKs below were drawn for.
    pub challenge_second: u32,
    pub challenge_left: u32,
    /// When an empty segment outside of the window was last answered, in ms.
    pub invalid_answered: u32,
    pub total_retrans: u32,
    pub bytes_acked: u64,
    pub bytes_received: u64,
}

impl Cold {
    /// Of a connection in no state yet. What the path allows is the caller's to set.
    fn new(env: &Env, options: &ConnOptions, iss: u32) -> Self {
        Self {
            iss,
            irs: 0,
            recover: iss,
            sacked: 0,
            urgent_end: 0,
            error: None,
            soft_error: None,
            mode: Mode::Retransmit,
            mtu: 0,
            adv_mss: 0,
            peer_mss: 0,
            max_segment: options.max_segment,
            min_mss: env.config.min_mss,
            syn_retries: options.syn_retries,
            keep_count: options.keep_count,
            keep_probes: 0,
            keep_idle: options.keep_idle,
            keep_interval: options.keep_interval,
            user_timeout: options.user_timeout,
            stalled: Instant::NEVER,
            last_sent: env.now,
            challenge_second: 0,
            challenge_left: 0,
            invalid_answered: 0,
            total_retrans: 0,
            bytes_acked: 0,
            bytes_received: 0,
        }
    }
}

/// A TCP connection (RFC 9293).
///
/// It holds frames: end it with [`Connection::dispose`], not by dropping it.
#[derive(Debug)]
#[must_use = "a connection that is dropped loses its frames"]
pub struct Connection {
    pub(super) hot: Hot,
    pub(super) recv: RecvQueue,
    pub(super) template: Template,
    pub(super) cold: Cold,
}

const _: () = assert!(size_of::<Hot>() <= 192, "the hot part fits in three cache lines");
const _: () = assert!(size_of::<Connection>() <= 512, "a connection fits in 512 bytes");

impl Connection {
    /// A connection in no state yet.
    pub(super) fn new(
        env: &Env,
        template: Template,
        options: &ConnOptions,
        initial: isn::Initial,
        mtu: usize,
    ) -> Self {
        let config = env.config;
        let mtu = mtu.clamp(68, 65_535) as u16;
        let mut bits = Bits::empty();
        bits.set(Bits::NODELAY, options.nodelay);
        bits.set(Bits::CORK, options.cork);
        bits.set(Bits::KEEPALIVE, options.keepalive);
        bits.set(Bits::QUICK_ACK, options.quick_ack);
        bits.set(Bits::TIMESTAMPS, options.timestamps);
        bits.set(Bits::SACK, options.sack);
        bits.set(Bits::SCALING, options.window_scaling);
        bits.set(Bits::PATH, template.is_raw());
        let l3 = template.l3_len() as u16;
        let adv_mss = (mtu - l3 - 20).min(limit(options.max_segment));
        // Without the option 536, or 1220 over IPv6 (MUST-15).
        let peer_mss = if template.is_v6() { 1220 } else { 536 };
        let rcv_buf = options.receive_buffer.clamp(1024, config.max_receive_buffer.max(1024));
        let scale = scale_for(rcv_buf.max(config.max_receive_buffer));
        let hot = Hot {
            state: State::Closed,
            quick: config.quick_acks,
            dup_acks: 0,
            dup_out: 0,
            bits,
            mss: 536,
            rcv_mss: adv_mss.min(536),
            snd_scale: 0,
            rcv_scale: if options.window_scaling { scale } else { 0 },
            backoff: 0,
            retries: 0,
            rcv_nxt: 0,
            rcv_edge: 0,
            last_ack: 0,
            ts_recent: 0,
            ts_offset: initial.ts_offset,
            rcv_buf,
            rcv_used: 0,
            snd_una: initial.iss,
            snd_nxt: initial.iss,
            snd_end: initial.iss.wrapping_add(1),
            snd_wnd: 0,
            snd_wl1: 0,
            snd_wl2: 0,
            max_wnd: 0,
            snd_buf: options.send_buffer.clamp(1024, config.max_send_buffer.max(1024)),
            rtt: Rtt::new(config),
            rtt_seq: initial.iss,
            congestion: Congestion::new(options.congestion, config.initial_window, 536),
            timers: Timers::OFF,
            last_recv: env.now,
            send: SendQueue::default(),
        };
        let cold = Cold { mtu, adv_mss, peer_mss, ..Cold::new(env, options, initial.iss) };
        let mut conn = Self { hot, recv: RecvQueue::default(), template, cold };
        conn.set_mss(env.pool.arena().capacity());
        conn
    }

    /// Bytes in front of the payload of a data segment.
    #[inline]
    pub(super) fn room(&self) -> usize {
        let options = if self.hot.bits.contains(Bits::TIMESTAMPS) { 12 } else { 0 };
        self.template.l2l3_len() + 20 + options
    }

    /// Eff.snd.MSS (RFC 9293, 3.7.1; MUST-16): what the peer, the path, the
    /// program and a frame allow, less the options.
    pub(super) fn set_mss(&mut self, frame_capacity: usize) {
        let path = self.cold.mtu.saturating_sub(self.template.l3_len() as u16 + 20);
        let options = if self.hot.bits.contains(Bits::TIMESTAMPS) { 12 } else { 0 };
        let mss = self.cold.peer_mss.min(path).min(limit(self.cold.max_segment));
        let mss = mss.max(self.cold.min_mss).saturating_sub(options).max(1);
        let frame = frame_capacity.saturating_sub(self.room()).max(1);
        self.hot.mss = usize::from(mss).min(frame) as u16;
    }

    /// The state.
    #[inline]
    pub fn state(&self) -> State {
        self.hot.state
    }

    /// Our address and port.
    pub fn local(&self) -> core::net::SocketAddr {
        self.template.local()
    }

    /// The peer's address and port.
    pub fn remote(&self) -> core::net::SocketAddr {
        self.template.remote()
    }

    /// The headers, to change TTL or type of service.
    pub fn template_mut(&mut self) -> &mut Template {
        &mut self.template
    }

    /// The earliest of the timers; [`Instant::NEVER`] if none is set.
    #[inline]
    pub fn deadline(&self) -> Instant {
        self.hot.timers.earliest()
    }

    /// True where `flush` has something to do.
    #[inline]
    pub fn wants_flush(&self) -> bool {
        let due = Bits::ACK_NOW
            | Bits::SYN_DUE
            | Bits::KEEP_DUE
            | Bits::PROBE_DUE
            | Bits::FIN_LOST;
        let h = &self.hot;
        h.bits.intersects(due) || h.send.lost() > 0 || h.send.has_unsent() || self.owes_fin()
    }

    /// A FIN is queued and was never sent.
    #[inline]
    pub(super) fn owes_fin(&self) -> bool {
        self.hot.bits.contains(Bits::FIN_QUEUED) && !self.hot.bits.contains(Bits::FIN_SENT)
    }

    /// True once the peer's FIN came in order and all data before it was read.
    #[inline]
    pub fn eof(&self) -> bool {
        self.hot.bits.contains(Bits::PEER_CLOSED) && self.recv_len() == 0
    }

    /// Bytes that can be read.
    #[inline]
    pub fn recv_len(&self) -> usize {
        self.recv.len()
    }

    /// Bytes that `send` takes now, memory permitting.
    #[inline]
    pub fn send_space(&self) -> usize {
        if !self.hot.state.can_send() || self.hot.bits.contains(Bits::FIN_QUEUED) {
            return 0;
        }
        self.hot.snd_buf.saturating_sub(self.queued()) as usize
    }

    /// Bytes written that are not acknowledged.
    #[inline]
    pub(super) fn queued(&self) -> u32 {
        seq::distance(self.hot.snd_una, self.hot.snd_end)
    }

    /// True where the last `send` stopped for want of a frame, not of buffer.
    /// No ACK need come that would wake the program: whoever sees this says
    /// [`Connection::fed`] when there are frames again. Until then, or the next
    /// call, there is no room to send.
    pub fn starved(&self) -> bool {
        self.hot.bits.contains(Bits::STARVED)
    }

    /// There are frames again.
    pub fn fed(&mut self) {
        self.hot.bits -= Bits::STARVED;
    }

    /// True after `shutdown_send` or `close`.
    pub fn send_shut(&self) -> bool {
        self.hot.bits.contains(Bits::FIN_QUEUED) || self.hot.state == State::Closed
    }

    /// True where at least a third of the send buffer is free (as Linux has it).
    #[inline(always)]
    pub(super) fn writable(&self) -> bool {
        let queued = u64::from(self.queued());
        queued * 3 <= u64::from(self.hot.snd_buf) * 2 && self.send_space() > 0
    }

    /// What a program can do at once, in epoll's bits, as Linux reports it.
    #[inline(always)]
    pub fn readiness(&self) -> Readiness {
        let h = &self.hot;
        let over = Bits::PEER_CLOSED | Bits::FIN_QUEUED | Bits::STARVED;
        if h.state != State::Established || h.bits.intersects(over) || self.cold.error.is_some() {
            return self.any_readiness();
        }
        let mut ready = Readiness::empty();
        ready.set(Readiness::IN, self.recv_len() > 0);
        ready.set(Readiness::OUT, self.writable());
        ready
    }

    #[inline(never)]
    fn any_readiness(&self) -> Readiness {
        let h = &self.hot;
        let mut ready = Readiness::empty();
        ready.set(Readiness::ERR, self.cold.error.is_some());
        let peer_closed = h.bits.contains(Bits::PEER_CLOSED) || h.state == State::Closed;
        let both = h.state == State::Closed || peer_closed && h.bits.contains(Bits::FIN_QUEUED);
        ready.set(Readiness::HUP, both);
        ready.set(Readiness::RDHUP, peer_closed);
        if h.state == State::SynSent || h.state == State::SynReceived {
            return ready;
        }
        ready.set(Readiness::IN, peer_closed || self.recv_len() > 0);
        let starved = h.bits.contains(Bits::STARVED);
        ready.set(Readiness::OUT, self.send_shut() || self.writable() && !starved);
        ready
    }

    /// The error that ended the connection, or a soft one; once.
    pub fn take_error(&mut self) -> Option<Errno> {
        self.cold.error.take()
    }

    /// The last soft error (RFC 1122, 4.2.4.1), not taken.
    pub fn soft_error(&self) -> Option<Errno> {
        self.cold.soft_error
    }

    /// The next hop's hardware address, or that it is not known: then nothing
    /// is sent until it is.
    pub fn set_path(&mut self, mac: Option<Mac>) {
        if self.template.is_raw() {
            return;
        }
        self.hot.bits.set(Bits::PATH, mac.is_some());
        if let Some(mac) = mac {
            self.template.set_dst_mac(mac);
        }
    }

    /// Bytes until the urgent mark among what is not read yet, if there is one
    /// (RFC 6093: the data itself stays in line).
    pub fn urgent_mark(&self) -> Option<u32> {
        if !self.hot.bits.contains(Bits::URGENT) {
            return None;
        }
        let read = self.hot.rcv_nxt.wrapping_sub(self.recv_len() as u32);
        Some(seq::distance(read, self.cold.urgent_end))
    }

    /// Frames that the connection holds.
    pub fn held_frames(&self) -> usize {
        self.hot.send.frames() + self.recv.frames()
    }

    /// Ends it, whatever its state, and gives all frames back. Nothing is sent.
    pub fn dispose(mut self, pool: &mut Pool) {
        self.hot.send.clear(pool);
        self.recv.clear(pool);
    }

    /// Nagle's algorithm off or on.
    pub fn set_nodelay(&mut self, on: bool) -> Disposition {
        self.hot.bits.set(Bits::NODELAY, on);
        self.flush_if_unsent()
    }

    /// Whether Nagle's algorithm is off.
    pub fn nodelay(&self) -> bool {
        self.hot.bits.contains(Bits::NODELAY)
    }

    /// Only full segments leave while this is on.
    pub fn set_cork(&mut self, on: bool) -> Disposition {
        self.hot.bits.set(Bits::CORK, on);
        self.flush_if_unsent()
    }

    /// Whether only full segments leave.
    pub fn cork(&self) -> bool {
        self.hot.bits.contains(Bits::CORK)
    }

    fn flush_if_unsent(&self) -> Disposition {
        Disposition { events: Events::empty(), flush: self.hot.send.has_unsent() }
    }

    /// ACKs at once, or delayed where RFC 9293 allows it.
    pub fn set_quick_ack(&mut self, on: bool) -> Disposition {
        self.hot.bits.set(Bits::QUICK_ACK, on);
        let flush = on && self.hot.bits.contains(Bits::ACK_PENDING);
        if flush {
            self.hot.bits |= Bits::ACK_NOW;
        }
        Disposition { events: Events::empty(), flush }
    }

    /// Keepalive on or off (MUST-24).
    pub fn set_keepalive(&mut self, now: Instant, on: bool) {
        self.hot.bits.set(Bits::KEEPALIVE, on);
        self.restart_keepalive(now);
    }

    /// Whether keepalive is on.
    pub fn keepalive(&self) -> bool {
        self.hot.bits.contains(Bits::KEEPALIVE)
    }

    /// Keepalive's idle and interval seconds and number of probes; all at least 1.
    pub fn set_keepalive_times(&mut self, now: Instant, idle: u32, interval: u32, count: u8) {
        self.cold.keep_idle = idle.max(1);
        self.cold.keep_interval = interval.max(1);
        self.cold.keep_count = count.max(1);
        self.restart_keepalive(now);
    }

    /// Keepalive's idle and interval seconds and number of probes.
    pub fn keepalive_times(&self) -> (u32, u32, u8) {
        (self.cold.keep_idle, self.cold.keep_interval, self.cold.keep_count)
    }

    pub(super) fn restart_keepalive(&mut self, now: Instant) {
        let synchronized = self.hot.state.is_synchronized() && self.hot.state != State::TimeWait;
        if synchronized && self.hot.bits.contains(Bits::KEEPALIVE) {
            let idle = crate::time::Duration::from_secs(self.cold.keep_idle.into());
            self.hot.timers.set(Timer::KeepAlive, now + idle);
        } else {
            self.hot.timers.stop(Timer::KeepAlive);
        }
    }

    /// The user timeout in milliseconds; 0: the retry limits alone.
    pub fn set_user_timeout(&mut self, ms: u32) {
        self.cold.user_timeout = ms;
    }

    /// The user timeout in milliseconds.
    pub fn user_timeout(&self) -> u32 {
        self.cold.user_timeout
    }

    /// Sets the receive buffer, in bytes, within the stack's bounds. A window
    /// that was announced is not taken back (SHLD-14).
    pub fn set_receive_buffer(&mut self, config: &Config, bytes: u32) -> Disposition {
        self.hot.rcv_buf = bytes.clamp(1024, config.max_receive_buffer.max(1024));
        self.after_release()
    }

    /// The receive buffer in bytes.
    pub fn receive_buffer(&self) -> u32 {
        self.hot.rcv_buf
    }

    /// Sets the send buffer, in bytes, within the stack's bounds.
    pub fn set_send_buffer(&mut self, config: &Config, bytes: u32) {
        self.hot.snd_buf = bytes.clamp(1024, config.max_send_buffer.max(1024));
    }

    /// The send buffer in bytes.
    pub fn send_buffer(&self) -> u32 {
        self.hot.snd_buf
    }

    /// Payload bytes of a full segment, options taken off (TCP_MAXSEG).
    pub fn segment_size(&self) -> u16 {
        self.hot.mss
    }

    /// Congestion control by this algorithm from now on.
    pub fn set_congestion(&mut self, algorithm: Algorithm) {
        self.hot.congestion.switch(algorithm);
    }

    /// The congestion control algorithm.
    pub fn congestion(&self) -> Algorithm {
        self.hot.congestion.algorithm()
    }
}

fn limit(max_segment: u16) -> u16 {
    if max_segment == 0 { u16::MAX } else { max_segment }
}

/// The least shift by which a window of so many bytes fits in 16 bits, at most
/// 14 (RFC 7323, 2.3).
fn scale_for(buffer: u32) -> u8 {
    (0..14).find(|s| buffer >> s <= 65_535).unwrap_or(14)
}
