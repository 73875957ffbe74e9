//! The tail loss probe (RFC 8985, 7): where the last segments of a flight are
//! lost nothing comes behind them that would show it. A probe does, long before
//! the time-out.

use super::{FLUSH, Recovery, Seen};
use crate::tcp::Config;
use crate::tcp::connection::{Bits, Connection};
use crate::tcp::output::{Along, Sent};
use crate::tcp::rtt::PROBED;
use crate::tcp::seq;
use crate::tcp::timers::Mode;
use crate::tcp::types::{Disposition, Env};
use crate::time::Duration;
use crate::wire::tcp::{Flags, Segment};

/// A probe that was not answered yet.
#[derive(Clone, Copy, Debug)]
pub(in crate::tcp) struct Tail {
    /// SND.NXT when it left.
    pub end: u32,
    /// It was no new data.
    pub resent: bool,
    /// Bytes outstanding then.
    flight: u32,
}

impl Connection {
    /// The probe timer (7.2): two round trips; for one segment the peer's delayed
    /// ACK too. A first guess where nothing was measured. The coarse clock of both
    /// ends is allowed for.
    #[inline]
    pub(in crate::tcp) fn probe_timeout(&self, config: &Config) -> Duration {
        let rtt = &self.warm.rtt;
        match self.hot.send.sent() {
            _ if !rtt.is_measured() => Duration::from_secs(1),
            0 | 1 => rtt.lone_probe(config),
            _ => rtt.twice() + Duration::from_millis(2),
        }
    }

    /// The probe's time has come. Without a measurement since the last one there is
    /// none (7.3): on a path that became longer each segment would be sent again
    /// before its ACK comes, and none could be measured. The time-out is next.
    #[cold]
    pub(super) fn on_probe_timer(&mut self, env: &mut Env) -> Disposition {
        if self.hot.backoff & PROBED == 0 {
            self.hot.bits |= Bits::TAIL_DUE;
            return FLUSH;
        }
        self.hot.bits -= Bits::TAIL;
        self.set_retransmit(env.now, env.config);
        self.hot.bits |= Bits::TAIL;
        Disposition::NONE
    }

    /// Sends the probe (7.3): new data if there is and the peer takes it, whatever
    /// the congestion window says, else the last segment again.
    #[cold]
    pub(in crate::tcp) fn send_tail_probe(&mut self, env: &mut Env) -> Sent {
        let h = &self.hot;
        let room = seq::distance(h.snd_nxt, h.snd_una.wrapping_add(h.snd_wnd));
        let fresh = h.send.first_unsent().filter(|&i| {
            let len = h.send.get(i).len();
            len <= room && len <= h.mss.into()
        });
        if h.snd_una == h.snd_nxt {
            self.hot.bits -= Bits::TAIL_DUE;
            return Ok(());
        }
        if let Some(i) = fresh {
            let fin = self.hot.send.is_last(i) && self.owes_fin();
            self.send_segment(env, i, Along { fin, push: false })?;
        } else {
            let sent = self.hot.send.sent() as usize;
            if sent > 0 {
                self.send_segment(env, sent - 1, Along::default())?;
            } else {
                self.send_control(env, self.hot.snd_end, Flags::FIN | Flags::ACK)?;
            }
            self.cold.total_retrans += 1;
            env.counters.tcp_retransmits += 1;
        }
        env.counters.tcp_tail_probes += 1;
        let end = self.hot.snd_nxt;
        self.hot.bits -= Bits::TAIL_DUE;
        self.hot.bits |= Bits::NO_PROBE;
        self.hot.backoff |= PROBED;
        let flight = end.wrapping_sub(self.hot.snd_una);
        self.books().1.tail = Some(Tail { end, resent: fresh.is_none(), flight });
        // The time-out counts from here.
        self.warm.mode = Mode::Retransmit;
        self.set_retransmit(env.now, env.config);
        Ok(())
    }

    /// 7.4: what the answer to a probe says. A segment that was sent again and did
    /// not come twice had been lost: the window shrinks for it.
    pub(super) fn tail_probe_answered(
        &mut self,
        env: &mut Env,
        r: &mut Recovery,
        seg: &Segment,
        seen: &Seen,
    ) {
        let Some(tail) = r.tail else { return };
        if seq::lt(seg.ack, tail.end) {
            return;
        }
        let plain = seen.delivered == 0 && seg.payload_len == 0;
        if tail.resent && seq::gt(seg.ack, tail.end) && !seen.probe_duplicate {
            let h = &mut self.hot;
            let mss = u32::from(h.mss);
            if !h.bits.intersects(Bits::RECOVERY | Bits::LOSS) {
                self.reduce_for_loss(env, tail.flight);
                self.warm.congestion.on_recovered(env.now, tail.flight, mss);
            }
            r.tail = None;
        } else if !tail.resent || seen.probe_duplicate || plain && seen.sacked == 0 {
            r.tail = None;
        }
    }
}
