//! A connection's figures (TCP_INFO), and what stays of it in TIME-WAIT.

use super::connection::{Bits, Connection};
use super::rtt::PROBED;
use super::time_wait::Entry;
use super::types::Info;
use super::{Config, seq};
use crate::time::Instant;

impl Connection {
    /// True where what was not read, lent data included, fills half the receive
    /// buffer: the peer may soon find the window shut.
    #[inline]
    pub fn window_is_low(&self) -> bool {
        self.hot.rcv_used >= self.hot.rcv_buf / 2
    }

    /// The figures at this time.
    pub fn info(&self, now: Instant, config: &Config) -> Info {
        let (h, c) = (&self.hot, &self.cold);
        let (mss, measured) = (u32::from(h.mss).max(1), self.measured_rate());
        let ca_state = if h.bits.contains(Bits::LOSS) {
            4
        } else if h.bits.contains(Bits::RECOVERY) {
            3
        } else {
            u8::from(h.dup_acks > 0 || h.send.sacked() > 0)
        };
        // Lost counts until acknowledged, sent again or not, as in Linux.
        let (mut sacked, mut lost, mut retrans) = (h.send.sacked() / mss, 0, 0);
        if let Some(r) = &c.recovery {
            (lost, retrans) = (r.board.lost_segments, r.board.retransmitted);
            sacked = sacked.max(r.board.sacked_segments);
        }
        Info {
            state: h.state,
            ca_state,
            retransmits: h.retries,
            probes: c.keep_probes,
            backoff: h.backoff & !PROBED,
            timestamps: h.bits.contains(Bits::TIMESTAMPS),
            sack: h.bits.contains(Bits::SACK),
            syn_data: c.syn_data,
            window_scale: h.bits.contains(Bits::SCALING),
            snd_wscale: h.snd_scale,
            rcv_wscale: h.rcv_scale,
            rto: self.warm.rtt.rto(h.backoff, config).as_micros() as u32,
            ato: config.delayed_ack.as_micros() as u32,
            snd_mss: mss,
            rcv_mss: h.rcv_mss.into(),
            unacked: h.send.sent(),
            sacked,
            lost: lost + retrans,
            retrans,
            last_data_recv: now.since(self.warm.last_recv).as_millis() as u32,
            last_data_sent: now.since(self.warm.last_sent).as_millis() as u32,
            rcv_rtt: self.tuned_rtt(),
            pmtu: c.mtu.into(),
            rtt: self.warm.rtt.smoothed(),
            rttvar: self.warm.rtt.variation(),
            snd_ssthresh: match self.warm.congestion.threshold() {
                u32::MAX => u32::MAX,
                bytes => bytes / mss,
            },
            snd_cwnd: self.warm.congestion.window / mss,
            advmss: self.warm.adv_mss.into(),
            rcv_space: h.rcv_buf.saturating_sub(h.rcv_used),
            total_retrans: c.total_retrans,
            bytes_acked: self.warm.bytes_acked,
            bytes_received: self.warm.bytes_received,
            notsent_bytes: seq::distance(h.snd_nxt, h.snd_end),
            snd_wnd: h.snd_wnd,
            rcv_wnd: seq::distance(h.rcv_nxt, h.rcv_edge),
            reordering: c.reordering.degree.into(),
            reord_seen: c.reordering.seen,
            dsack_dups: c.dsack_dups,
            min_rtt: self.warm.min_rtt.least(),
            pacing_rate: self.pacing_rate().unwrap_or(u64::MAX),
            max_pacing_rate: match self.max_pacing_rate() {
                0 => u64::MAX,
                rate => rate,
            },
            delivery_rate: measured.rate(),
            delivery_rate_app_limited: measured.app_limited,
            ecn: self.ecn_is_on(),
            delivered_ce: c.flow.as_ref().map_or(0, |f| f.ecn.delivered_ce),
        }
    }

    /// What has to be remembered of a connection in TIME-WAIT once the program
    /// needs it no more.
    pub fn time_wait(&self, now: Instant, config: &Config) -> Entry {
        let h = &self.hot;
        let ends = match self.deadline() {
            Instant::NEVER => now + config.time_wait,
            at => at,
        };
        let left = seq::distance(h.rcv_nxt, h.rcv_edge) >> h.rcv_scale;
        Entry {
            snd_nxt: h.snd_nxt,
            rcv_nxt: h.rcv_nxt,
            ts_recent: h.ts_recent,
            ts_offset: self.warm.ts_offset,
            expires: ends.as_millis_wrapping(),
            answered: now.as_millis_wrapping().wrapping_sub(1 << 20),
            window: left.min(65_535) as u16,
            timestamps: h.bits.contains(Bits::TIMESTAMPS),
            mark: 0,
        }
    }
}
