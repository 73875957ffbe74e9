//! What leaves in trouble: in which order, in which pieces, with which blocks.

use super::Frto;
use crate::tcp::burst::Stop;
use crate::tcp::connection::{Bits, Connection};
use crate::tcp::output::Sent;
use crate::tcp::send_queue::Marks;
use crate::tcp::timers::{Mode, Timer};
use crate::tcp::types::Env;
use crate::tcp::{sack, seq};
use crate::time::Duration;
use crate::wire::tcp::SackBlock;

impl Connection {
    /// Recovery counts what leaves; a probe of the tail goes first; F-RTO has new
    /// data leave before what seems lost.
    #[cold]
    pub(in crate::tcp) fn flush_in_trouble(&mut self, env: &mut Env) -> Sent {
        let before = self.pipe();
        let sent = self.flush_what_counts(env);
        let out = self.pipe().saturating_sub(before);
        if let Some(r) = &mut self.cold.recovery {
            r.prr.sent(out);
        }
        sent
    }

    fn flush_what_counts(&mut self, env: &mut Env) -> Sent {
        if self.hot.bits.contains(Bits::TAIL_DUE) {
            self.send_tail_probe(env)?;
        }
        if self.hot.bits.contains(Bits::LOSS) && self.books().1.frto == Frto::New {
            let sent = self.send_new(env);
            if sent == Err(Stop::Full) {
                return sent;
            }
            // Pacing may hold the new data back: it goes when its time has come.
            if self.hot.snd_nxt != self.cold.recover || self.was_held_back() {
                if self.hot.bits.intersects(Bits::ACK_NOW | Bits::KEEP_DUE) {
                    self.send_acks(env)?;
                }
                return sent;
            }
            // Nothing new could leave: it is as if F-RTO had not begun.
            self.books().1.frto = Frto::Off;
        }
        self.flush_all(env)
    }

    /// The first segment that is marked lost. Small ones in a row, the remains of
    /// a small window, become one.
    pub(in crate::tcp) fn next_lost(&mut self, env: &mut Env) -> Option<usize> {
        let h = &mut self.hot;
        let r = self.cold.recovery.as_mut().filter(|_| h.send.lost() > 0)?;
        let i = r.board.first_lost(&h.send)?;
        let edge = h.snd_una.wrapping_add(h.snd_wnd);
        let room = seq::distance(h.send.get(i).seq, edge).min(h.mss.into()) as usize;
        while i + 1 < h.send.sent() as usize
            && h.send.get(i + 1).marks.contains(Marks::LOST)
            && h.send.merge(env.pool, i, room)
        {
            r.board.on_merged();
        }
        Some(i)
    }

    /// Sends the ACKs that tell of a gap: one, or as many as hold all the ranges
    /// that grew in this batch, the newest in the last of them. A duplicate is
    /// reported first (RFC 2018, 4; RFC 2883, 4).
    #[cold]
    pub(in crate::tcp) fn send_sacks(&mut self, env: &mut Env, options: &mut sack::Bytes) -> Sent {
        let mut blocks: arrayvec::ArrayVec<SackBlock, 17> = self.dsack_due().into_iter().collect();
        let mut untold = blocks.len();
        if let Some(ahead) = &mut self.recv.ahead {
            blocks.extend(ahead.recent_blocks());
            untold += ahead.tell();
        }
        let room = (options.remaining_capacity().saturating_sub(4) / 8).max(1);
        let base = options.len();
        for n in (0..untold.min(blocks.len()).div_ceil(room).max(1)).rev() {
            options.truncate(base);
            sack::write(options, &blocks[n * room..]);
            self.send_ack(env, self.acceptable_seq(), options)?;
        }
        self.hot.bits -= Bits::DSACK;
        Ok(())
    }

    /// New data left: the tail's probe is due later, but not later than the
    /// time-out since the oldest left or the peer was heard.
    #[inline(never)]
    pub(in crate::tcp) fn set_probe(&mut self, env: &Env) {
        self.set_retransmit(env.now, env.config);
        let h = &self.hot;
        if let Some(front) = h.send.front().filter(|_| self.warm.mode == Mode::Probe) {
            let since = front.sent_at.max(self.warm.last_recv);
            let last = since + self.warm.rtt.rto(h.backoff, env.config);
            if last < env.now + self.probe_timeout(env.config) {
                let soon = env.now + Duration::from_millis(1);
                self.warm.timers.set(Timer::Retransmit, last.max(soon));
            }
        }
    }
}
