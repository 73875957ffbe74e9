//! Header prediction for the two edges of a connection's life: the ACK that ends the
//! handshake, with a request or not; a FIN, with the last data or not; the ACK of ours.
//! In order and with nothing unusual about them they are nearly all that open and end a
//! connection. What the steps of 3.10.7.4 would ask of each is asked at once, before
//! anything is done; `tests/edges.rs` holds both ways beside each other.

use super::connection::{Bits, Connection};
use super::input::Plain;
use super::seq;
use super::types::{Disposition, Env, State};
use crate::frame::Frame;

impl Connection {
    /// True where the segment, with a FIN or not, can take [`input_edge`](Self::input_edge).
    /// The pool is not low, and in SYN-RECEIVED the listener has room.
    pub fn is_edge(&self, seg: &Plain, fin: bool) -> bool {
        let h = &self.hot;
        let acked = seg.ack.wrapping_sub(h.snd_una);
        let says = seg.len + u32::from(fin);
        let fits = match h.state {
            State::SynReceived => self.is_opened_by(seg),
            State::Established => fin,
            State::FinWait1 | State::FinWait2 => acked > 0 || says > 0,
            State::CloseWait | State::Closing | State::LastAck => acked > 0 && says == 0,
            _ => false,
        };
        // Of an orphan's data nobody is left to read.
        fits && !h.bits.intersects(Bits::SLOW)
            && (seg.len == 0 || !h.bits.contains(Bits::ORPHAN))
            && seg.seq == h.rcv_nxt
            && self.is_time_expected(seg)
            && acked <= h.snd_nxt.wrapping_sub(h.snd_una)
            && (says == 0 || says <= seq::distance(h.rcv_nxt, h.rcv_edge))
    }

    /// It acknowledges our SYN, and with it all that was sent: the SYN-ACK.
    fn is_opened_by(&self, seg: &Plain) -> bool {
        let (h, opened) = (&self.hot, self.cold.iss.wrapping_add(1));
        seg.ack == opened && h.snd_nxt == opened && h.bits.contains(Bits::PASSIVE) && !self.cold.early
    }

    /// Takes a segment that [`is_edge`](Self::is_edge); the frame's range is its payload,
    /// `None` where it has none.
    #[inline(never)]
    pub fn input_edge(&mut self, env: &mut Env, seg: &Plain, payload: Option<Frame>, fin: bool) -> Disposition {
        env.counters.tcp_segments_in += 1;
        self.warm.last_recv = env.now;
        self.cold.keep_probes = 0;
        self.take_timestamp(seg.seq, seg.timestamp);
        if self.hot.state == State::LastAck && seg.ack == self.hot.snd_end.wrapping_add(1) {
            return self.last_acknowledged(env, seg.ack);
        }
        let mut d = Disposition::NONE;
        if self.hot.state == State::SynReceived {
            let h = &mut self.hot;
            h.snd_wnd = u32::from(seg.window) << h.snd_scale;
            self.warm.max_wnd = self.warm.max_wnd.max(h.snd_wnd);
            (h.snd_wl1, h.snd_wl2) = (seg.seq, seg.ack);
            d = self.establish(env, seg.ack, seg.timestamp.map(|t| t.1));
        } else {
            if seg.ack != self.hot.snd_una {
                d = self.edge_acknowledged(env, seg);
            }
            d.flush |= self.take_window(seg.seq, seg.ack, seg.window);
            d = d.and(self.after_fin_acked(env));
        }
        if let Some(frame) = payload {
            d = d.and(self.take_in_order(env, frame));
            if seq::ge(self.hot.rcv_nxt, self.hot.tune_at) {
                d = d.and(self.tune_received(env, seg.timestamp.map(|t| t.1)));
            }
        }
        if fin { d.and(self.take_fin(env)) } else { d }
    }

    /// Our FIN is acknowledged, and the peer's came before: nothing of what an ACK
    /// teaches is of use any more.
    fn last_acknowledged(&mut self, env: &mut Env, ack: u32) -> Disposition {
        self.warm.bytes_acked += u64::from(ack.wrapping_sub(self.hot.snd_una));
        self.hot.snd_una = ack;
        self.end(env, None)
    }

    /// The segment acknowledges something new.
    #[inline(never)]
    fn edge_acknowledged(&mut self, env: &mut Env, seg: &Plain) -> Disposition {
        self.acknowledged(env, seg.ack, seg.timestamp, seg.merged)
    }
}
