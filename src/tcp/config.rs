//! Limits and times of TCP: for all connections, and for one.

use super::congestion::{Algorithm, Exit, Knobs, Paced};
use super::ecn;
use super::search::MtuProbing;
use super::types::Discover;
use crate::time::Duration;

/// What all connections of a stack have in common.
#[derive(Clone, Debug)]
pub struct Config {
    /// What a connection starts with where its socket says nothing else.
    pub options: ConnOptions,
    /// Largest receive buffer that a socket may ask for, in bytes; the window
    /// scale announced at the start can carry it. Default 6 MiB.
    pub max_receive_buffer: u32,
    /// Largest send buffer that a socket may ask for, in bytes. Default 4 MiB.
    pub max_send_buffer: u32,
    /// Initial congestion window in segments (RFC 6928). Default 10.
    pub initial_window: u16,
    /// RTO before the first measurement (RFC 6298, 2.1). Default 1 s.
    pub initial_rto: Duration,
    /// Least RTO. Default 200 ms, as Linux; RFC 6298's SHOULD is 1 s.
    pub min_rto: Duration,
    /// Largest RTO, probe intervals included (at least 60 s by RFC 6298, 2.5).
    /// Default 120 s.
    pub max_rto: Duration,
    /// How often data is sent again before the connection is given up (R2,
    /// RFC 9293, 3.8.3). Default 15: at least 100 s (SHLD-11).
    pub retries: u8,
    /// The same after the program closed the socket. Default 8.
    pub orphan_retries: u8,
    /// How often a SYN is sent again. Default 7: over 3 minutes (MUST-23).
    pub syn_retries: u8,
    /// How often a SYN-ACK is sent again. Default 5.
    pub synack_retries: u8,
    /// The delayed ACK timer, under 500 ms (MUST-40). Default 40 ms.
    pub delayed_ack: Duration,
    /// Segments acknowledged at once at the start of a connection. Default 16.
    pub quick_acks: u8,
    /// How long TIME-WAIT lasts: 2 MSL (MUST-13). Default 60 s.
    pub time_wait: Duration,
    /// How long FIN-WAIT-2 may last after the program closed. Default 60 s.
    pub fin_wait_2: Duration,
    /// How long a corked partial segment is held back. Default 200 ms.
    pub cork: Duration,
    /// How long the sender waits for a window of a full segment before it sends
    /// what fits (RFC 9293, 3.8.6.2.1). Default 200 ms.
    pub override_sws: Duration,
    /// Segments kept out of order, at most, per connection. Default 65,536; the
    /// frames that they take are bounded by twice the receive buffer.
    pub out_of_order_segments: u32,
    /// Challenge ACKs per connection and interval (RFC 5961, 7). Default 10; the
    /// limit of each interval is drawn between half and one and a half of it.
    pub challenge_acks: u32,
    /// That interval. Default 1 s.
    pub challenge_interval: Duration,
    /// Least time between ACKs to empty segments outside of the window.
    /// Default 500 ms.
    pub invalid_ack_interval: Duration,
    /// Frames that received data leaves in the pool, so that ACKs can leave. Sending
    /// data leaves twice as many: what was written never keeps out what comes in,
    /// or two ends whose programs both write would wait for each other's frames.
    /// Default 64.
    pub frame_reserve: u32,
    /// Below this many free frames payloads are copied together instead of kept
    /// in the frames they came in, and nothing is kept out of order. Default 256.
    pub frames_low: u32,
    /// Payloads of at most this many bytes are copied to the end of the receive
    /// queue's last frame where one waits. Default 512.
    pub coalesce: u32,
    /// Smallest segment size that a peer or router may force on us, in payload
    /// and option bytes. Default 48.
    pub min_mss: u16,
    /// How losses are found where the peer has SACK. Default: RACK.
    pub loss_detection: LossDetection,
    /// Segments that later data overtakes before one of them is taken for lost, on
    /// a path that was not seen to reorder (DupThresh, RFC 5681 and 8985). Default 3.
    pub early_reordering: u8,
    /// A lost tail is probed for (RFC 8985, 7). Default on.
    pub tail_loss_probe: bool,
    /// How long a peer is thought to delay the ACK of a single segment, for the
    /// probe's timer. Default 200 ms.
    pub probe_ack_delay: Duration,
    /// Time-outs are checked for having been too early (F-RTO, RFC 5682). Default on.
    pub frto: bool,
    /// Duplicates that come in are reported (D-SACK, RFC 2883). Default on.
    pub dsack: bool,
    /// A window that was not used for an RTO starts again at the initial one
    /// (RFC 5681, 4.1). Default on.
    pub restart_idle: bool,
    /// Takes the place of RFC 6528's secret in initial sequence numbers: the
    /// first is this, later ones follow the clock. For simulation, where numbers
    /// are to be known or near 2^32; strangers could guess them. Default: none.
    pub sequence_base: Option<u32>,
    /// HyStart++ (RFC 9406) ends CUBIC's slow start before it loses. Default on.
    pub hystart: bool,
    /// Segments are spaced out over the round trip with every algorithm; BBR always
    /// does so. Default off.
    pub pacing: bool,
    /// The share of lost bytes in a round trip, in hundredths, from which BBR takes
    /// loss for congestion. Default 20.
    pub bbr_loss: u8,
    /// Explicit congestion notification (RFC 3168). Default: granted to peers that
    /// ask for it. A connection with DCTCP asks in any case.
    pub ecn: ecn::Mode,
    /// Part of the pool, in 1/256, that one connection's buffer may grow to by
    /// itself. Default: 64 (a quarter).
    pub tune_share: u32,
    /// The least path MTU that an ICMP error is believed to tell (RFC 5927, 7);
    /// where less is claimed packets may be fragmented. Default: 552, as Linux.
    pub min_path_mtu: u16,
    /// How long a smaller path is believed in before the route's own MTU is tried
    /// again (RFC 1191, 6.3). Default: 10 min.
    pub path_mtu_age: Duration,
    /// Where full segments vanish without an ICMP error, smaller ones are tried, and
    /// larger ones searched for with the program's data (RFC 4821); or that is done
    /// from the start. Default: from a black hole on, which costs nothing before.
    pub mtu_probing: MtuProbing,
    /// The payload of a segment where the search begins. Default: 1024, as Linux.
    pub base_mss: u16,
    /// How long after its end a search begins again. Default: 10 min.
    pub probe_interval: Duration,
    /// A search ends where fewer bytes are in doubt. Default: 8, as Linux.
    pub probe_threshold: u16,
    /// Time-outs in a row that make a black hole. Default: 3, as Linux.
    pub black_hole_retries: u8,
    /// What a peer's user timeout option can make of ours (L_LIMIT and U_LIMIT of
    /// RFC 5482, 3.1). Default: 100 s (SHLD-11's R2) to 1 h.
    pub user_timeout_limits: (Duration, Duration),
    /// Segments in the middle of a write that leave together before one carries PSH,
    /// at least; half a congestion window bounds it. Default: 2, as Linux.
    pub least_train: u32,
    /// Where both sides agreed on timestamps a segment without one is dropped
    /// (RFC 7323, 3.2: SHOULD). Default on; Linux takes it.
    pub require_timestamps: bool,
    /// CUBIC's slow start ends as HyStart first had it (Ha and Rhee, 2011), not as
    /// RFC 9406 does. Default off; Linux has it so.
    pub classic_hystart: bool,
}

impl Config {
    /// Frames that sending data leaves in the pool.
    #[inline(always)]
    pub fn send_reserve(&self) -> u32 {
        self.frame_reserve.saturating_mul(2)
    }

    /// What of them is congestion control's.
    pub(super) fn knobs(&self) -> Knobs {
        let paced = if self.pacing { Paced::ALWAYS } else { Paced::empty() };
        let hystart = match (self.hystart, self.classic_hystart) {
            (false, _) => Exit::None,
            (true, false) => Exit::Plus,
            (true, true) => Exit::First,
        };
        Knobs { hystart, paced, bbr_loss: self.bbr_loss }
    }
}

/// How losses are found by SACK blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LossDetection {
    /// By time: what was sent well before something that arrived (RFC 8985).
    #[default]
    Rack,
    /// By counting what arrived behind it (RFC 6675).
    DupAck,
}

/// What can differ from connection to connection.
#[derive(Clone, Debug)]
pub struct ConnOptions {
    /// Bytes that wait to be sent or acknowledged, at most, at the start.
    /// Default 256 KiB.
    pub send_buffer: u32,
    /// Bytes that wait to be read, at most; the largest window that is announced
    /// at the start. Default 128 KiB.
    pub receive_buffer: u32,
    /// Nagle's algorithm is off (MUST-17).
    pub nodelay: bool,
    /// Only full segments leave (TCP_CORK).
    pub cork: bool,
    /// ACKs are not delayed (TCP_QUICKACK, lasting).
    pub quick_ack: bool,
    /// Keepalive probes are sent (off by default, MUST-25).
    pub keepalive: bool,
    /// Idle seconds before the first probe. Default 7,200 (MUST-28).
    pub keep_idle: u32,
    /// Seconds between probes. Default 75.
    pub keep_interval: u32,
    /// Unanswered probes that end the connection. Default 9.
    pub keep_count: u8,
    /// Milliseconds that data may stay unacknowledged (RFC 5482's user timeout,
    /// TCP_USER_TIMEOUT); 0: the retry limits alone.
    pub user_timeout: u32,
    /// Largest segment size to send and announce (TCP_MAXSEG); 0: by the MTU.
    pub max_segment: u16,
    /// SYNs sent again before giving up (TCP_SYNCNT); 0: the stack's.
    pub syn_retries: u8,
    /// Offer or accept timestamps (RFC 7323).
    pub timestamps: bool,
    /// Offer or accept selective acknowledgment (RFC 2018).
    pub sack: bool,
    /// Offer or accept window scaling (RFC 7323).
    pub window_scaling: bool,
    /// Congestion control (TCP_CONGESTION). Default: CUBIC.
    pub congestion: Algorithm,
    /// Bytes a second that are sent at most (SO_MAX_PACING_RATE); 0: any.
    pub max_pacing_rate: u64,
    /// The receive buffer grows with what the path carries, up to the stack's
    /// bound. Default: yes.
    pub tune_receive: bool,
    /// The send buffer grows with the congestion window, likewise.
    pub tune_send: bool,
    /// Bytes that are offered to the peer at most, however large the buffer is
    /// (TCP_WINDOW_CLAMP); 0: no bound.
    pub window_clamp: u32,
    /// Whether packets may be fragmented (IP_MTU_DISCOVER).
    pub discover: Discover,
    /// The user timeout option is sent and accepted (RFC 5482). Default: no, as
    /// the RFC has it.
    pub user_timeout_option: bool,
    /// Urgent data is read in line (SO_OOBINLINE).
    pub oob_inline: bool,
    /// With fewer bytes a connection is not said to be readable (SO_RCVLOWAT), unless
    /// its window is nearly shut. Default: 1.
    pub low_water: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            options: ConnOptions::default(),
            max_receive_buffer: 6 << 20,
            max_send_buffer: 4 << 20,
            initial_window: 10,
            initial_rto: Duration::from_secs(1),
            min_rto: Duration::from_millis(200),
            max_rto: Duration::from_secs(120),
            retries: 15,
            orphan_retries: 8,
            syn_retries: 7,
            synack_retries: 5,
            delayed_ack: Duration::from_millis(40),
            quick_acks: 16,
            time_wait: Duration::from_secs(60),
            fin_wait_2: Duration::from_secs(60),
            cork: Duration::from_millis(200),
            override_sws: Duration::from_millis(200),
            out_of_order_segments: 65_536,
            challenge_acks: 10,
            challenge_interval: Duration::from_secs(1),
            invalid_ack_interval: Duration::from_millis(500),
            frame_reserve: 64,
            frames_low: 256,
            coalesce: 512,
            min_mss: 48,
            loss_detection: LossDetection::Rack,
            early_reordering: 3,
            tail_loss_probe: true,
            probe_ack_delay: Duration::from_millis(200),
            frto: true,
            dsack: true,
            restart_idle: true,
            sequence_base: None,
            hystart: true,
            pacing: false,
            bbr_loss: 20,
            ecn: ecn::Mode::Accept,
            tune_share: 64,
            min_path_mtu: 552,
            path_mtu_age: Duration::from_secs(600),
            mtu_probing: MtuProbing::BlackHole,
            base_mss: 1024,
            probe_interval: Duration::from_secs(600),
            probe_threshold: 8,
            black_hole_retries: 3,
            user_timeout_limits: (Duration::from_secs(100), Duration::from_secs(3600)),
            least_train: 2,
            require_timestamps: true,
            classic_hystart: false,
        }
    }
}

impl Default for ConnOptions {
    fn default() -> Self {
        Self {
            send_buffer: 256 << 10,
            receive_buffer: 128 << 10,
            nodelay: false,
            cork: false,
            quick_ack: false,
            keepalive: false,
            keep_idle: 7200,
            keep_interval: 75,
            keep_count: 9,
            user_timeout: 0,
            max_segment: 0,
            syn_retries: 0,
            timestamps: true,
            sack: true,
            window_scaling: true,
            congestion: Algorithm::Cubic,
            max_pacing_rate: 0,
            tune_receive: true,
            tune_send: true,
            window_clamp: 0,
            discover: Discover::Do,
            user_timeout_option: false,
            oob_inline: false,
            low_water: 1,
        }
    }
}
