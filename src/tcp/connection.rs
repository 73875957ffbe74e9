//! One connection's state.

use super::config::ConnOptions;
use super::congestion::Congestion;
use super::flow::Flow;
use super::extra::Extra;
use super::jumbo::limits;
use super::recv_queue::RecvQueue;
use super::loss::{Recovery, Reordering};
use super::rtt::{MinRtt, Rtt};
use super::send_queue::SendQueue;
use super::timers::{Mode, SlowTimers, Timers};
use super::types::{Discover, Env, State};
use super::{Template, isn};
use crate::time::Instant;
use crate::wire::tcp::SackBlock;
use core::num::NonZeroU8;

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
        /// A mark of ECN is to be echoed, or a reduction to be told.
        const ECN_BUSY = 1 << 5;
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
        /// There are books of losses; always in recovery of either kind.
        const BOOKS = 1 << 26;
        /// A lost tail is probed for.
        const TAIL = 1 << 27;
        /// The probe is to leave at the next flush.
        const TAIL_DUE = 1 << 28;
        /// No probe: one is out, or SACK blocks tell what is missing.
        const NO_PROBE = 1 << 29;
        /// A duplicate came in that the next ACK reports.
        const DSACK = 1 << 30;
        /// What a flush does not do on the short way.
        const TROUBLE = Self::RECOVERY.bits() | Self::LOSS.bits() | Self::TAIL_DUE.bits();
        /// Something in the box of rare things has to be looked after on sending.
        const CARE = 1 << 31;
        /// Input in this state is not for the fast path.
        const SLOW = Self::BOOKS.bits() | Self::GAP.bits() | Self::ECN_BUSY.bits()
            | Self::URGENT.bits();
        /// What a lone segment need not think of on leaving.
        const LONE_MAY = Self::ACK_PENDING.bits() | Self::ACK_NOW.bits()
            | Self::TIMESTAMPS.bits() | Self::SACK.bits() | Self::SCALING.bits()
            | Self::NODELAY.bits() | Self::KEEPALIVE.bits() | Self::QUICK_ACK.bits()
            | Self::PASSIVE.bits() | Self::SYN_REPEATED.bits() | Self::TAIL.bits()
            | Self::STARVED.bits();
    }
}

bitflags::bitflags! {
    /// Which of the cold fields are in use: where one is not, its line need not come.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(super) struct Watch: u8 {
        /// There is a [`Cold::flow`].
        const FLOW = 1;
        /// [`Cold::stalled`] holds.
        const STALLED = 2;
        /// There is a [`Cold::user_timeout`].
        const USER_TIMEOUT = 4;
        /// [`Cold::low_water`] is more than a byte.
        const LOW_WATER = 8;
    }
}

/// A byte with one value. That a place has no connection is told by another value of some
/// byte in it that has most to spare, and each call looks there first: with this one it is
/// a byte of the first line, and not one of whichever cold field has most.
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
pub(super) enum There {
    Is,
}

/// What every segment in order touches, in or out: two lines. The numbers and windows
/// that it is compared with, and the queue that it leaves from and is acknowledged in.
#[derive(Debug)]
#[repr(C, align(64))]
pub(super) struct Hot {
    pub state: State,
    /// Segments that still get an ACK at once.
    pub quick: u8,
    /// Duplicate ACKs received in a row.
    pub dup_acks: u8,
    /// Where `None` of an `Option<Connection>` is told, see [`There`].
    pub there: There,
    pub bits: Bits,
    /// Payload bytes in a full segment of ours.
    pub mss: u16,
    /// Payload bytes in the largest segment of the peer's.
    pub rcv_mss: u16,
    pub snd_scale: u8,
    pub rcv_scale: u8,
    /// How often the RTO doubled, and perhaps `rtt::PROBED`.
    pub backoff: u8,
    /// Time-outs since the peer last gave a sign of life.
    pub retries: u8,

    pub rcv_nxt: u32,
    /// The right edge of the window that was announced.
    pub rcv_edge: u32,
    /// Last.ACK.sent.
    pub last_ack: u32,
    pub ts_recent: u32,
    pub rcv_buf: u32,
    /// Bytes in order that were not read, lent ones included.
    pub rcv_used: u32,
    /// When this is received the receive buffer is looked at.
    pub tune_at: u32,

    pub snd_una: u32,
    pub snd_nxt: u32,
    /// After the last byte written; a FIN has this number.
    pub snd_end: u32,
    pub snd_wnd: u32,
    pub snd_wl1: u32,
    // Here the first line ends: all that says whether a segment is the expected one, but
    // for what is under way.
    pub snd_wl2: u32,
    pub snd_buf: u32,
    pub send: SendQueue,
}

/// What a request and its answer touch besides: clocks, estimates, counters.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Warm {
    /// Each round trip starts and stops the retransmission timer, and an ACK that leaves
    /// the delayed one. The others are cold.
    pub timers: Timers,
    /// Looked at by each ACK, and before sending.
    pub congestion: Congestion,
    /// Takes a sample of each round trip.
    pub rtt: Rtt,
    pub min_rtt: MinRtt,
    /// When the last segment came in.
    pub last_recv: Instant,
    /// When data was last sent.
    pub last_sent: Instant,
    pub bytes_acked: u64,
    pub bytes_received: u64,
    /// The next measurement of the round trip begins when this is acknowledged.
    pub rtt_seq: u32,
    /// What our timestamps are ahead of the clock: in each segment that leaves.
    pub ts_offset: u32,
    /// The largest window that the peer announced, who may do so with each segment.
    pub max_wnd: u32,
    /// After the last segment that was not full, as requests and answers are.
    pub small_end: u32,
    /// By so much at least a window opens, which is asked before each segment.
    pub adv_mss: u16,
    /// The number of the error that waits: in a byte, which is all of Linux's. Readiness
    /// asks for it.
    pub error: Option<NonZeroU8>,
    /// What the timer is set for.
    pub mode: Mode,
    pub watch: Watch,
}

/// What an echo does not touch: handshakes, options, losses, timers of seconds.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Cold {
    /// The timers that are seldom set.
    pub timers: SlowTimers,
    /// Since when nothing gets through, where [`Watch::STALLED`] says so.
    pub stalled: Instant,
    pub flow: Option<Box<Flow>>,
    /// In milliseconds; 0: none.
    pub user_timeout: u32,
    /// Readable from so many bytes on.
    pub low_water: u32,
    /// Its SYN came with data and a cookie: the program has it already.
    pub early: bool,
    /// The segment size in which as much was acknowledged at once; 0: none yet.
    pub acked_mss: u16,
    /// As [`Warm::error`].
    pub soft_error: Option<NonZeroU8>,
    pub iss: u32,
    pub irs: u32,
    /// Recovery lasts until this is acknowledged (RFC 6582).
    pub recover: u32,
    /// The buffers grow by themselves.
    pub tune_receive: bool,
    pub tune_send: bool,
    pub discover: Discover,
    pub syn_retries: u8,
    /// IP packet size that the path takes.
    pub mtu: u16,
    pub peer_mss: u16,
    pub max_segment: u16,
    pub min_mss: u16,
    pub keep_count: u8,
    pub keep_probes: u8,
    /// Duplicate ACKs to send (a peer without SACK gets one a segment).
    pub dup_out: u8,
    /// Data in the SYN was taken.
    pub syn_data: bool,
    /// The ACK that ends the handshake came and was not heard: how often the
    /// SYN-ACK may go out (TCP_DEFER_ACCEPT).
    pub deferred: u8,
    pub keep_idle: u32,
    pub keep_interval: u32,
    /// The interval that the challenge ACKs below were drawn for.
    pub challenge_span: u32,
    pub challenge_left: u32,
    /// When an empty segment outside of the window was last answered, in ms.
    pub invalid_answered: u32,
    pub total_retrans: u32,
    /// Segments that the peer reported as duplicates.
    pub dsack_dups: u32,
    /// The duplicate that the next ACK reports.
    pub dsack: SackBlock,
    pub reordering: Reordering,
    /// Fast Open's part, while there is one.
    pub fast_open: Option<Box<super::fast_open::FastOpen>>,
    /// The books of losses, while there are any.
    pub recovery: Option<Box<Recovery>>,
}

impl Warm {
    /// Of a connection in no state yet. What the path allows is the caller's to set.
    #[inline(always)]
    fn new(env: &Env, options: &ConnOptions, initial: isn::Initial, adv_mss: u16) -> Self {
        let mut watch = Watch::empty();
        if options.user_timeout > 0 || options.low_water > 1 {
            watch.set(Watch::USER_TIMEOUT, options.user_timeout > 0);
            watch.set(Watch::LOW_WATER, options.low_water > 1);
        }
        Self {
            timers: Timers::OFF,
            congestion: Congestion::new(options.congestion, env.config.knobs(), 10 * 536),
            rtt: Rtt::new(env.config),
            min_rtt: MinRtt::default(),
            last_recv: env.now,
            last_sent: env.now,
            bytes_acked: 0,
            bytes_received: 0,
            rtt_seq: initial.iss,
            ts_offset: initial.ts_offset,
            max_wnd: 0,
            small_end: initial.iss,
            adv_mss,
            error: None,
            mode: Mode::Retransmit,
            watch,
        }
    }
}

impl Cold {
    /// Likewise.
    #[inline(always)]
    fn new(env: &Env, options: &ConnOptions, iss: u32) -> Self {
        Self {
            timers: SlowTimers::OFF,
            stalled: Instant::NEVER,
            flow: None,
            user_timeout: options.user_timeout,
            low_water: options.low_water.max(1),
            early: false,
            acked_mss: 0,
            soft_error: None,
            iss,
            irs: 0,
            recover: iss,
            tune_receive: options.tune_receive,
            tune_send: options.tune_send,
            discover: options.discover,
            syn_retries: options.syn_retries,
            mtu: 0,
            peer_mss: 0,
            max_segment: options.max_segment,
            min_mss: env.config.min_mss,
            keep_count: options.keep_count,
            keep_probes: 0,
            dup_out: 0,
            syn_data: false,
            deferred: 0,
            keep_idle: options.keep_idle,
            keep_interval: options.keep_interval,
            challenge_span: 0,
            challenge_left: 0,
            invalid_answered: 0,
            total_retrans: 0,
            dsack_dups: 0,
            dsack: SackBlock { left: 0, right: 0 },
            reordering: Reordering::new(env.config.early_reordering),
            fast_open: None,
            recovery: None,
        }
    }
}

/// A TCP connection (RFC 9293).
///
/// It holds frames: end it with [`Connection::dispose`], not by dropping it. What a
/// segment there and an answer back touch comes first, in five lines; `scripts/counts lines`
/// looks whether it is all of that and nothing else.
#[derive(Debug)]
#[repr(C)]
#[must_use = "a connection that is dropped loses its frames"]
pub struct Connection {
    pub(super) hot: Hot,
    pub(super) warm: Warm,
    pub(super) recv: RecvQueue,
    pub(super) template: Template,
    pub(super) cold: Cold,
    /// What only some connections need.
    pub(super) extra: Option<Box<Extra>>,
}

const LINE: usize = 64;
/// Where a field lies in a connection.
macro_rules! at {
    ($($field:tt)+) => { core::mem::offset_of!(Connection, $($field)+) };
}
const _: () = assert!(size_of::<Hot>() <= 2 * LINE && align_of::<Hot>() == LINE, "the hot part is two lines");
const _: () = assert!(at!(hot) == 0 && at!(warm) == 2 * LINE, "and nothing else lies in them");
const _: () = assert!(at!(hot.snd_wl1) + 4 <= LINE, "what a segment is compared with, in the first");
const _: () = assert!(at!(hot.snd_wl2) == LINE, "what it changes, and the queue, in the second");
const _: () = assert!(at!(warm.last_sent) + 8 == 3 * LINE, "clocks and estimates in the third");
const _: () = assert!(at!(warm.bytes_acked) == 3 * LINE, "counters and the first frame in the fourth");
const _: () = assert!(at!(recv) + RecvQueue::FRONT == 4 * LINE);
const _: () = assert!(
    at!(template) + Template::USED_V4 <= Connection::WARM,
    "an echo over IPv4 touches no more lines"
);
const _: () = assert!(at!(cold) >= Connection::WARM, "nothing cold comes with them");
const _: () = assert!(size_of::<Connection>() <= 512, "a connection fits in 512 bytes");

impl Connection {
    /// Its first bytes, which is all that segments touch that nothing is unusual about.
    pub const WARM: usize = 5 * LINE;

    /// A connection in no state yet, made where it is to lie: each copy of it would be
    /// some 40 instructions and 16 lines.
    #[inline(always)]
    pub(super) fn new<'a>(
        place: &'a mut Option<Self>,
        env: &Env,
        template: Template,
        options: &ConnOptions,
        initial: isn::Initial,
        mtu: usize,
    ) -> &'a mut Self {
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
            there: There::Is,
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
            rcv_buf,
            rcv_used: 0,
            snd_una: initial.iss,
            snd_nxt: initial.iss,
            snd_end: initial.iss.wrapping_add(1),
            snd_wnd: 0,
            snd_wl1: 0,
            snd_wl2: 0,
            snd_buf: options.send_buffer.clamp(1024, config.max_send_buffer.clamp(1024, MOST)),
            tune_at: 0,
            send: SendQueue::default(),
        };
        let warm = Warm::new(env, options, initial, adv_mss);
        let cold = Cold { mtu, peer_mss, ..Cold::new(env, options, initial.iss) };
        let conn = place.insert(Self { hot, warm, recv: RecvQueue::default(), template, cold, extra: None });
        if options.max_pacing_rate > 0 {
            conn.set_max_pacing_rate(options.max_pacing_rate);
        }
        conn.set_mss(env.pool.arena().capacity());
        conn.set_rare(options);
        conn
    }

    /// Bytes in front of the payload of a data segment.
    #[inline]
    pub(super) fn room(&self) -> usize {
        let options = if self.hot.bits.contains(Bits::TIMESTAMPS) { 12 } else { 0 };
        self.template.l2l3_len() + 20 + options
    }

    /// Eff.snd.MSS (RFC 9293, 3.7.1; MUST-16): what the peer, the path, the
    /// program and a chain of frames allow, less the options.
    pub(super) fn set_mss(&mut self, frame_capacity: usize) {
        let path = self.cold.mtu.saturating_sub(self.template.l3_len() as u16 + 20);
        let options = if self.hot.bits.contains(Bits::TIMESTAMPS) { 12 } else { 0 };
        let mss = self.cold.peer_mss.min(path).min(limit(self.cold.max_segment));
        let mss = mss.max(self.cold.min_mss).saturating_sub(options).max(1);
        let (most, piece) = limits(frame_capacity, self.room());
        self.hot.mss = usize::from(mss).min(most) as u16;
        self.hot.send.piece = usize::from(mss).min(piece) as u16;
    }
}

/// No send buffer is larger: sequence numbers would not tell what comes first.
pub(super) const MOST: u32 = 1 << 30;

pub(super) fn limit(max_segment: u16) -> u16 {
    if max_segment == 0 { u16::MAX } else { max_segment }
}

/// The least shift by which a window of so many bytes fits in 16 bits, at most
/// 14 (RFC 7323, 2.3).
fn scale_for(buffer: u32) -> u8 {
    (0..14).find(|s| buffer >> s <= 65_535).unwrap_or(14)
}

#[cfg(test)]
mod tests {
    use super::Bits;
    use bitflags::Flags;

    #[test]
    fn no_two_facts_share_a_bit() {
        let mut seen = Bits::empty();
        for flag in Bits::FLAGS.iter().filter(|f| f.value().bits().is_power_of_two()) {
            assert!(!seen.intersects(*flag.value()), "{}", flag.name());
            seen |= *flag.value();
        }
    }
}
