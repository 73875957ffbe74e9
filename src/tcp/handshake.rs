//! Opening: active, passive and simultaneous (RFC 9293, 3.5 and 3.10.7.3).

use super::connection::{Bits, Connection, Watch};
use super::input::Arrival;
use super::burst::Stop;
use super::template::Fields;
use super::timers::Timer;
use super::types::{Disposition, Env, Events, State};
use super::{ConnOptions, Template, isn, sack, seq};
use crate::errno::Errno;
use crate::telemetry::DropReason;
use crate::wire::tcp::{Flags, Options, Segment};

impl Connection {
    /// Opens a connection actively: SYN-SENT. The SYN leaves at the first flush
    /// with a known path. `mtu` is the path's, in bytes of IP packet.
    pub fn connect(
        env: &mut Env,
        template: Template,
        options: &ConnOptions,
        initial: isn::Initial,
        mtu: usize,
    ) -> Self {
        let mut place = None;
        let conn = Self::new(&mut place, env, template, options, initial, mtu);
        conn.hot.state = State::SynSent;
        conn.hot.bits |= Bits::SYN_DUE;
        place.expect("it was just made")
    }

    /// Answers a SYN: SYN-RECEIVED. The SYN-ACK leaves at the first flush with a
    /// known path. The caller has checked that `syn` has SYN and neither ACK nor
    /// RST; data on it is not taken, the peer sends it again.
    pub fn accept(
        env: &mut Env,
        template: Template,
        options: &ConnOptions,
        initial: isn::Initial,
        mtu: usize,
        syn: &Segment,
    ) -> Self {
        let mut place = None;
        Self::accept_in(&mut place, env, template, options, initial, mtu, syn);
        place.expect("it was just made")
    }

    /// As [`accept`](Self::accept), in the place where the connection is to lie.
    #[inline(never)]
    pub fn accept_in<'a>(
        place: &'a mut Option<Self>,
        env: &mut Env,
        template: Template,
        options: &ConnOptions,
        initial: isn::Initial,
        mtu: usize,
        syn: &Segment,
    ) -> &'a mut Self {
        let conn = Self::new(place, env, template, options, initial, mtu);
        conn.hot.state = State::SynReceived;
        conn.hot.bits |= Bits::SYN_DUE | Bits::PASSIVE;
        conn.take_syn(env, syn);
        conn
    }

    /// Notes the peer's numbers, window and options.
    fn take_syn(&mut self, env: &Env, syn: &Segment) {
        self.cold.irs = syn.seq;
        let h = &mut self.hot;
        let announced = h.rcv_edge.wrapping_sub(h.rcv_nxt);
        h.rcv_nxt = syn.seq.wrapping_add(1);
        h.rcv_edge = h.rcv_nxt.wrapping_add(announced);
        h.last_ack = h.rcv_nxt;
        self.warm.last_recv = env.now;
        // The window of a SYN is not scaled (RFC 7323, 2.2).
        h.snd_wnd = syn.window.into();
        self.warm.max_wnd = h.snd_wnd;
        h.snd_wl1 = syn.seq;
        h.snd_wl2 = if syn.flags.contains(Flags::ACK) { syn.ack } else { h.snd_una };
        self.negotiate_ecn(env, syn);
        self.negotiate(env, &syn.options);
    }

    fn negotiate(&mut self, env: &Env, theirs: &Options) {
        let h = &mut self.hot;
        if let Some(mss) = theirs.mss {
            self.cold.peer_mss = mss;
        }
        if !theirs.sack_permitted {
            h.bits -= Bits::SACK;
        }
        match theirs.timestamp {
            Some((value, _)) => h.ts_recent = value,
            None => h.bits -= Bits::TIMESTAMPS,
        }
        if let Some(value) = theirs.user_timeout {
            self.take_user_timeout(env.config, value);
        }
        let h = &mut self.hot;
        match theirs.window_scale {
            Some(shift) if h.bits.contains(Bits::SCALING) => h.snd_scale = shift.min(14),
            _ => {
                h.bits -= Bits::SCALING;
                (h.rcv_scale, h.snd_scale) = (0, 0);
            }
        }
        self.set_mss(env.pool.arena().capacity());
        self.search_from_start(env);
        self.start_window(env, env.config.initial_window.into());
    }

    /// RFC 6928, 2: ten segments, at most 14,600 bytes unless two are more.
    fn start_window(&mut self, env: &Env, segments: u32) {
        let mss = u32::from(self.hot.mss);
        let bytes = (segments * mss).min((2 * mss).max(segments * 1460));
        let c = &self.warm.congestion;
        self.warm.congestion = super::congestion::Congestion::new(c.algorithm(), c.knobs(), bytes);
        debug_assert!(env.config.initial_window > 0);
    }

    /// The handshake is over: our SYN is acknowledged.
    pub(super) fn establish(&mut self, env: &mut Env, ack: u32, echo: Option<u32>) -> Disposition {
        let repeated = self.hot.bits.contains(Bits::SYN_REPEATED);
        // What was sent last may be data that answered the SYN's.
        let answered = self.cold.early && self.hot.send.sent() > 0;
        if !repeated && !answered {
            let took = env.now.since(self.warm.last_sent);
            self.warm.rtt.sample(took);
            self.warm.min_rtt.sample(took, env.now);
        } else if let Some(took) = self.echoed(env, echo) {
            self.warm.rtt.sample(took);
        } else if repeated {
            self.warm.rtt.after_syn_timeout();
        }
        // One that was too large for the path was not lost to congestion.
        let resized = self.hot.state == State::SynSent && self.hot.retries == 0;
        if repeated && !resized {
            // RFC 5681, 3.1: at most one segment after a lost SYN.
            self.start_window(env, 1);
        }
        self.open(env, ack)
    }

    /// ESTABLISHED, whatever is known of the round trip time.
    pub(super) fn open(&mut self, env: &mut Env, ack: u32) -> Disposition {
        let h = &mut self.hot;
        h.snd_una = ack;
        self.warm.rtt_seq = ack;
        (h.backoff, h.retries) = (0, 0);
        self.warm.timers.stop(Timer::Retransmit);
        h.bits -= Bits::SYN_DUE;
        h.bits.set(Bits::TAIL, h.bits.contains(Bits::SACK) && env.config.tail_loss_probe);
        self.warm.watch -= Watch::STALLED;
        let closing = h.bits.contains(Bits::FIN_QUEUED);
        h.state = if closing { State::FinWait1 } else { State::Established };
        self.tune_after();
        if self.user_timeout_option() {
            let _ = self.advertise();
        }
        self.restart_keepalive(env.now);
        env.counters.tcp_opened += 1;
        Disposition { events: Events::CONNECTED | Events::WRITABLE, flush: closing }
    }

    /// RFC 9293, 3.10.7.3: a segment in SYN-SENT.
    pub(super) fn in_syn_sent(&mut self, env: &mut Env, a: &mut Arrival) -> Disposition {
        let seg = a.seg;
        let has_ack = seg.flags.contains(Flags::ACK);
        // First: the ACK. Ours is the SYN alone.
        if has_ack && !(seq::gt(seg.ack, self.cold.iss) && seq::le(seg.ack, self.syn_end())) {
            env.counters.drop(DropReason::TcpBadAck);
            if !seg.flags.contains(Flags::RST) {
                self.send_reset(env, seg.ack, None);
            }
            return Disposition::NONE;
        }
        if has_ack && !self.echoes_a_syn(env, seg) {
            // Of a connection before, or forged: the answer to ours is still to come.
            env.counters.drop(DropReason::TcpPaws);
            self.send_reset(env, seg.ack, None);
            return Disposition::NONE;
        }
        // Second: the RST counts only with an acknowledgment of our SYN.
        if seg.flags.contains(Flags::RST) {
            if !has_ack {
                env.counters.drop(DropReason::TcpUnacceptableRst);
                return Disposition::NONE;
            }
            env.counters.tcp_aborted += 1;
            return self.end(env, Some(Errno::ECONNREFUSED));
        }
        // Fourth: the SYN.
        if !seg.flags.contains(Flags::SYN) {
            env.counters.drop(DropReason::TcpBadFlags);
            return Disposition::NONE;
        }
        self.take_syn(env, seg);
        if !has_ack {
            // Simultaneous open (MUST-10): our SYN goes again, with an ACK.
            self.hot.state = State::SynReceived;
            self.hot.bits |= Bits::SYN_DUE;
            self.warm.timers.stop(Timer::Retransmit);
            return Disposition { events: Events::empty(), flush: true };
        }
        let syn_acked = self.cold.iss.wrapping_add(1);
        let mut d = self.establish(env, syn_acked, seg.options.timestamp.map(|t| t.1));
        self.hot.bits |= Bits::ACK_NOW;
        d.flush = true;
        a.pass_syn();
        if self.has_fast_open() {
            d = d.and(self.fast_opened(env, seg));
        }
        d.and(self.after_ack(env, a))
    }

    /// False where the timestamp that a SYN-ACK echoes is of none of our SYNs.
    fn echoes_a_syn(&self, env: &Env, seg: &Segment) -> bool {
        let Some((_, echo)) = seg.options.timestamp.filter(|t| t.1 != 0) else { return true };
        if !self.hot.bits.contains(Bits::TIMESTAMPS) || seg.flags.contains(Flags::RST) {
            return true;
        }
        let first = self.stalled().min(self.warm.last_sent);
        seq::le(self.ts_now(first), echo) && seq::le(echo, self.ts_now(env.now))
    }

    /// Sends the SYN or SYN-ACK that is due, or an ACK in SYN-RECEIVED.
    pub(super) fn flush_handshake(&mut self, env: &mut Env) -> Result<(), Stop> {
        if self.hot.bits.contains(Bits::SYN_DUE) {
            self.send_syn(env)?;
        }
        if self.is_early() && self.hot.snd_nxt != self.cold.iss {
            // What answers the SYN's data need not wait for the handshake's end.
            self.send_new(env)?;
        }
        if self.hot.bits.contains(Bits::ACK_NOW) { self.send_acks(env) } else { Ok(()) }
    }

    pub(super) fn send_syn(&mut self, env: &mut Env) -> Result<(), Stop> {
        if env.tx.room() == 0 {
            return Err(self.out_of_queue(env));
        }
        let answering = self.hot.state == State::SynReceived;
        let flags = if answering { Flags::SYN | Flags::ACK } else { Flags::SYN };
        let flags = flags | self.syn_ecn_flags(env, answering);
        // The window of a SYN is not scaled.
        let most = self.hot.rcv_buf.min(65_535);
        self.hot.rcv_edge = self.hot.rcv_nxt.wrapping_add(most);
        let fields = Fields {
            seq: self.cold.iss,
            ack: if answering { self.hot.rcv_nxt } else { 0 },
            flags,
            window: most as u16,
        };
        let mut options = self.syn_options(env);
        if self.has_fast_open()
            && let Some(cookie) = self.fast_open_option()
        {
            let _ = options.try_extend_from_slice(&cookie.option());
        }
        match self.send_syn_data(env, fields, &options) {
            Some(sent) => sent?,
            None if self.template.send_bare(env.pool, env.tx, fields, &options) => {}
            None => return Err(self.out_of_frames(env)),
        }
        env.counters.tcp_segments_out += 1;
        let h = &mut self.hot;
        if h.snd_nxt != self.cold.iss {
            // Also where a simultaneous open makes it a SYN-ACK: which of the two
            // is acknowledged cannot be told.
            h.bits |= Bits::SYN_REPEATED;
            if h.retries > 0 || h.bits.contains(Bits::PASSIVE) {
                self.cold.total_retrans += 1;
                env.counters.tcp_retransmits += 1;
            }
        }
        h.snd_nxt = seq::max(h.snd_nxt, self.cold.iss.wrapping_add(1));
        h.last_ack = h.rcv_nxt;
        h.bits -= Bits::SYN_DUE | Bits::ACK_NOW | Bits::ACK_PENDING;
        self.warm.last_sent = env.now;
        Ok(())
    }

    /// The options of a SYN (MUST-14), in the order that Linux sends them. After
    /// `negotiate` the bits say what both sides know.
    fn syn_options(&self, env: &Env) -> sack::Bytes {
        let h = &self.hot;
        let mut bytes = sack::Bytes::new();
        let [m, s] = self.warm.adv_mss.to_be_bytes();
        bytes.extend([2, 4, m, s]);
        let permitted = h.bits.contains(Bits::SACK);
        if h.bits.contains(Bits::TIMESTAMPS) {
            bytes.extend(if permitted { [4, 2] } else { [1, 1] });
            bytes.extend([8, 10]);
            bytes.extend(self.ts_now(env.now).to_be_bytes());
            bytes.extend(h.ts_recent.to_be_bytes());
        } else if permitted {
            bytes.extend([1, 1, 4, 2]);
        }
        if h.bits.contains(Bits::SCALING) {
            bytes.extend([1, 3, 3, h.rcv_scale]);
        }
        // A Fast Open cookie needs the room; then it goes with data.
        if let Some(option) = self.user_timeout_bytes()
            && !self.has_fast_open()
        {
            bytes.extend(option);
        }
        bytes
    }
}
