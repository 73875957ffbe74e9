//! The words in which a connection speaks with its surroundings.

use super::Config;
use crate::frame::{Pool, TxQueue};
use crate::rng::Rng;
use crate::telemetry::Counters;
use crate::time::Instant;

/// What a connection needs from outside while it works.
#[derive(Debug)]
pub struct Env<'a> {
    /// The time of this turn.
    pub now: Instant,
    /// The worker's frames.
    pub pool: &'a mut Pool,
    /// What is to be sent.
    pub tx: &'a mut TxQueue,
    /// The worker's counters.
    pub counters: &'a mut Counters,
    /// Limits and times common to all connections.
    pub config: &'a Config,
    /// Chance.
    pub rng: &'a mut Rng,
}

/// The states of a connection (RFC 9293, 3.3.2). The numbers are Linux's, as
/// TCP_INFO gives them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum State {
    /// Data flows both ways.
    Established = 1,
    /// Our SYN is out.
    SynSent = 2,
    /// A SYN came in, ours is not acknowledged.
    SynReceived = 3,
    /// We closed; our FIN is not acknowledged.
    FinWait1 = 4,
    /// We closed and that is acknowledged; the peer did not close.
    FinWait2 = 5,
    /// Both closed and all is acknowledged; old segments may wander about.
    TimeWait = 6,
    /// There is no connection (any more).
    Closed = 7,
    /// The peer closed; we did not.
    CloseWait = 8,
    /// The peer closed, then we did; our FIN is not acknowledged.
    LastAck = 9,
    /// A socket that listens. No connection is ever in this state.
    Listen = 10,
    /// Both closed at once; our FIN is not acknowledged.
    Closing = 11,
}

impl State {
    /// The program may still send.
    #[inline]
    pub const fn can_send(self) -> bool {
        matches!(self, Self::Established | Self::CloseWait)
    }

    /// More data may come in.
    #[inline]
    pub const fn can_receive(self) -> bool {
        matches!(self, Self::Established | Self::FinWait1 | Self::FinWait2)
    }

    /// Both sides know each other's sequence numbers.
    #[inline]
    pub const fn is_synchronized(self) -> bool {
        !matches!(self, Self::Closed | Self::Listen | Self::SynSent | Self::SynReceived)
    }
}

bitflags::bitflags! {
    /// What a step brought about that the socket layer has to know.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Events: u16 {
        /// There is data to read that was not there before.
        const READABLE = 0x01;
        /// The send buffer has room again.
        const WRITABLE = 0x02;
        /// The connection reached ESTABLISHED.
        const CONNECTED = 0x04;
        /// The peer's FIN came in order: end of file after the queued data.
        const PEER_CLOSED = 0x08;
        /// An error is to be taken with `take_error`.
        const ERROR = 0x10;
        /// The state is CLOSED: the connection answers nothing more and has no
        /// timer. Data that was queued can still be read.
        const CLOSED = 0x20;
        /// The state is TIME-WAIT: a `time_wait::Entry` can take its place.
        const TIME_WAIT = 0x40;
        /// A timer expired and nothing was heard from the peer: perhaps the next
        /// hop has moved (RFC 1122, 2.3.2.1).
        const UNHEARD = 0x80;
        /// An urgent byte came in.
        const URGENT = 0x100;
    }
}

/// What a step asks its caller to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Disposition {
    /// What happened.
    pub events: Events,
    /// There is something to send: call `flush` at the end of the batch.
    pub flush: bool,
}

impl Disposition {
    /// Nothing happened, nothing is to be sent.
    pub const NONE: Self = Self { events: Events::empty(), flush: false };

    /// Both together.
    #[inline]
    pub fn and(self, other: Self) -> Self {
        Self { events: self.events | other.events, flush: self.flush | other.flush }
    }
}

/// What became of a flush.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Flush {
    /// Everything that may be sent now was sent.
    Done,
    /// The transmit queue was full or the pool empty: flush again next turn.
    Again,
    /// As much left as may in one turn, and there is more: flush again in the next,
    /// which is due at once.
    More,
}

bitflags::bitflags! {
    /// What a program can do with a socket at once; the bits of epoll.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct Readiness: u32 {
        /// EPOLLIN: data or end of file.
        const IN = 0x001;
        /// EPOLLPRI: urgent data.
        const PRI = 0x002;
        /// EPOLLOUT: room to send.
        const OUT = 0x004;
        /// EPOLLERR: an error waits.
        const ERR = 0x008;
        /// EPOLLHUP: closed both ways.
        const HUP = 0x010;
        /// EPOLLRDHUP: the peer closed.
        const RDHUP = 0x2000;
    }
}

/// IP_MTU_DISCOVER of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Discover {
    /// Packets may be fragmented on their way (DF is off), and what routers say
    /// of the MTU does not count.
    Dont,
    /// DF is set, and segments are made to fit the path.
    #[default]
    Do,
}

/// An ICMP error about a segment of the connection. Whoever calls has checked
/// that the quoted header is the connection's; the sequence number is checked
/// here (RFC 5927, 4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IcmpError {
    /// Network, host or source route unreachable, time exceeded, parameter
    /// problem: soft (RFC 1122, 4.2.3.9; MUST-56).
    Unreachable,
    /// Network unreachable: soft.
    NetworkUnreachable,
    /// Protocol unreachable: hard (SHLD-26).
    ProtocolUnreachable,
    /// Port unreachable: hard (SHLD-26).
    PortUnreachable,
    /// Fragmentation needed, or packet too big; the next hop's MTU in bytes,
    /// zero where the router did not say.
    PacketTooBig {
        /// IP packet size that passes.
        mtu: u16,
    },
}

/// A segment without a connection's state behind it: an RST, or an ACK from
/// TIME-WAIT. Sent by [`Template::send`](super::Template::send).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgment number, with the ACK bit.
    pub ack: Option<u32>,
    /// The RST bit.
    pub reset: bool,
    /// Window as it stands in the header.
    pub window: u16,
    /// Timestamp value and echo reply.
    pub timestamp: Option<(u32, u32)>,
}

/// A connection's figures, with Linux's names (`struct tcp_info`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Info {
    pub state: State,
    /// 0 open, 1 disorder, 3 recovery, 4 loss.
    pub ca_state: u8,
    pub retransmits: u8,
    pub probes: u8,
    pub backoff: u8,
    pub timestamps: bool,
    pub sack: bool,
    /// Data in the SYN was taken (TCPI_OPT_SYN_DATA).
    pub syn_data: bool,
    pub window_scale: bool,
    pub snd_wscale: u8,
    pub rcv_wscale: u8,
    /// Microseconds.
    pub rto: u32,
    /// Delayed ACK time, microseconds.
    pub ato: u32,
    /// Payload bytes in a full segment.
    pub snd_mss: u32,
    pub rcv_mss: u32,
    /// Segments.
    pub unacked: u32,
    pub sacked: u32,
    pub lost: u32,
    pub retrans: u32,
    /// Milliseconds since data last came in.
    pub last_data_recv: u32,
    /// Milliseconds since a segment with data last left.
    pub last_data_sent: u32,
    /// The receiver's round trip time in microseconds; 0: not measured.
    pub rcv_rtt: u32,
    /// Bytes.
    pub pmtu: u32,
    /// Smoothed round trip time, microseconds.
    pub rtt: u32,
    /// Its mean deviation, microseconds.
    pub rttvar: u32,
    /// Segments.
    pub snd_ssthresh: u32,
    pub snd_cwnd: u32,
    pub advmss: u32,
    /// Bytes free for the peer to send.
    pub rcv_space: u32,
    pub total_retrans: u32,
    pub bytes_acked: u64,
    pub bytes_received: u64,
    /// Bytes in the send buffer that were not sent yet.
    pub notsent_bytes: u32,
    /// Bytes: the peer's window.
    pub snd_wnd: u32,
    /// Bytes: our window as last announced.
    pub rcv_wnd: u32,
    /// Segments that overtake others at most, and one.
    pub reordering: u32,
    /// How often that was seen.
    pub reord_seen: u32,
    /// Segments that the peer said came twice.
    pub dsack_dups: u32,
    /// The least round trip time of the last minutes, microseconds.
    pub min_rtt: u32,
    /// Bytes a second at which segments leave; all ones where they are not paced.
    pub pacing_rate: u64,
    /// The program's bound of it; all ones where there is none.
    pub max_pacing_rate: u64,
    /// Bytes a second that got through, as last measured; zero before.
    pub delivery_rate: u64,
    /// That was all there was to send, not all that the path takes.
    pub delivery_rate_app_limited: bool,
    /// Both sides do ECN.
    pub ecn: bool,
    /// Segments acknowledged with ECE.
    pub delivered_ce: u32,
}
