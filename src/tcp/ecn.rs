//! Explicit congestion notification (RFC 3168), and DCTCP's way of echoing it
//! (RFC 8257, 3.2).

use super::congestion::Algorithm;
use super::connection::{Bits, Connection};
use super::seq;
use super::types::{Env, State};
use crate::wire::tcp::{Flags, Segment};

/// Whether ECN is negotiated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Neither asked for nor granted.
    Off,
    /// Granted to peers that ask, and not asked for.
    #[default]
    Accept,
    /// Asked for and granted.
    Request,
}

/// What one connection knows of it.
#[derive(Debug, Default)]
pub(super) struct Ecn {
    /// Both sides do it.
    pub on: bool,
    /// The peer's SYN asked for it.
    asked: bool,
    /// ECE is to be sent until a CWR comes.
    echo: bool,
    /// The next new data tells that the window was reduced.
    cwr: bool,
    /// DCTCP.CE: the last data came with a mark.
    ce: bool,
    /// The segment that is looked at carries ECE.
    pub ece: bool,
    /// SND.NXT at the last mark that counted: none does until more than that is
    /// acknowledged.
    end: Option<u32>,
    /// The window was reduced for it.
    reduced: bool,
    /// Segments that were acknowledged with ECE.
    pub delivered_ce: u32,
}

impl Connection {
    fn wants_ecn(&self, env: &Env) -> bool {
        env.config.ecn == Mode::Request || self.warm.congestion.needs_ecn()
    }

    /// The flags of a SYN or SYN-ACK. One that goes again asks for nothing:
    /// perhaps the flags were why the first was lost (RFC 3168, 6.1.1.1).
    pub(super) fn syn_ecn_flags(&self, env: &Env, answering: bool) -> Flags {
        let first = self.hot.snd_nxt == self.cold.iss;
        let asked = self.cold.flow.as_ref().is_some_and(|f| f.ecn.asked);
        match answering {
            true if asked => Flags::ECE,
            false if first && self.wants_ecn(env) => Flags::ECE | Flags::CWR,
            _ => Flags::empty(),
        }
    }

    /// What the peer's SYN or SYN-ACK says of ECN (RFC 3168, 6.1.1).
    pub(super) fn negotiate_ecn(&mut self, env: &Env, syn: &Segment) {
        let both = Flags::ECE | Flags::CWR;
        let theirs = syn.flags & both;
        if syn.flags.contains(Flags::ACK) {
            // The answer to a SYN that did not ask means nothing.
            let asked = self.wants_ecn(env) && self.syn_was_sent_once();
            if asked && theirs == Flags::ECE {
                self.flow().ecn.on = true;
            }
        } else if theirs == both && (env.config.ecn != Mode::Off || self.warm.congestion.needs_ecn()) {
            let ecn = &mut self.flow().ecn;
            (ecn.on, ecn.asked) = (true, true);
        } else if let Some(flow) = &mut self.cold.flow {
            (flow.ecn.on, flow.ecn.asked) = (false, false);
        }
        let on = self.ecn_is_on();
        self.template.set_ect(on);
    }

    fn syn_was_sent_once(&self) -> bool {
        self.hot.state == State::SynSent && !self.hot.bits.contains(Bits::SYN_REPEATED)
    }

    /// Both sides do it.
    pub(super) fn ecn_is_on(&self) -> bool {
        self.cold.flow.as_ref().is_some_and(|f| f.ecn.on)
    }

    /// A segment that is acceptable: marks of the path on data, and the peer's
    /// word that it has reduced its window.
    #[inline]
    pub(super) fn take_ecn(&mut self, env: &mut Env, seg: &Segment) {
        if self.ecn_is_on() {
            self.take_marks(env, seg);
        }
    }

    #[inline(never)]
    fn take_marks(&mut self, env: &mut Env, seg: &Segment) {
        let dctcp = self.warm.congestion.needs_ecn();
        let ecn = &mut self.flow().ecn;
        ecn.ece = seg.flags.contains(Flags::ECE) && !seg.flags.contains(Flags::SYN);
        if seg.payload_len > 0 {
            if seg.flags.contains(Flags::CWR) {
                ecn.echo = false;
            }
            // RFC 3168, 6.1.3.
            ecn.echo |= seg.ce && !dctcp;
            let turned = dctcp && seg.ce != ecn.ce;
            if turned && self.hot.bits.contains(Bits::ACK_PENDING) {
                // RFC 8257, 3.2: what came before is acknowledged as it came.
                self.hot.bits |= Bits::ACK_NOW;
                let _full = self.send_acks(env);
            }
            self.flow().ecn.ce = seg.ce && dctcp;
        }
        self.mark_ecn_busy();
    }

    fn mark_ecn_busy(&mut self) {
        let ecn = &self.flow().ecn;
        let busy = ecn.echo || ecn.cwr || ecn.ce;
        self.hot.bits.set(Bits::ECN_BUSY, busy);
    }

    /// ECE on an ACK that moves SND.UNA to `ack` or repeats it: the window is
    /// reduced, at most once for what is under way (RFC 3168, 6.1.2), and not
    /// where a loss reduced it already.
    #[inline]
    pub(super) fn take_echo(&mut self, env: &Env, ack: u32) {
        if self.cold.flow.as_ref().is_some_and(|f| f.ecn.on && f.ecn.ece) {
            self.reduce_for_echo(env, ack);
        }
    }

    #[inline(never)]
    fn reduce_for_echo(&mut self, env: &Env, ack: u32) {
        let h = &self.hot;
        let (nxt, mss) = (h.snd_nxt, u32::from(h.mss));
        let newly = seq::distance(h.snd_una, ack);
        let flight = nxt.wrapping_sub(h.snd_una);
        let lost = h.bits.intersects(Bits::RECOVERY | Bits::LOSS);
        let ecn = &mut self.flow().ecn;
        ecn.delivered_ce = ecn.delivered_ce.wrapping_add(newly.div_ceil(mss.max(1)));
        // The ACK for the last of them echoes too: the peer hears of the reduction
        // with the first data behind it. Far behind, `end` says nothing any more.
        let known = |end: u32| end.wrapping_sub(ack) <= nxt.wrapping_sub(ack);
        if ecn.end.is_some_and(known) || flight == 0 {
            return;
        }
        (ecn.end, ecn.cwr, ecn.reduced) = (Some(nxt), true, !lost);
        if !lost {
            self.warm.congestion.on_ecn(env.now, flight, mss);
        }
        self.mark_ecn_busy();
    }

    /// A loss reduces the window, and the peer is told, as of any reduction. Marks
    /// and losses of one window of data count once (RFC 3168, 6.1.2); DCTCP's
    /// answer to a mark is too small to stand for that (RFC 8257, 3.5).
    #[cold]
    pub(super) fn reduce_for_loss(&mut self, env: &Env, flight: u32) {
        let mss = u32::from(self.hot.mss);
        if !self.is_reduced_for_mark() {
            self.warm.congestion.on_recovery(env.now, flight, mss);
        }
        self.tell_reduction();
    }

    fn is_reduced_for_mark(&self) -> bool {
        let h = &self.hot;
        let full = matches!(self.warm.congestion.algorithm(), Algorithm::Cubic | Algorithm::Reno);
        let flight = h.snd_nxt.wrapping_sub(h.snd_una);
        let under_way = |end: u32| (1..=flight).contains(&end.wrapping_sub(h.snd_una));
        let ecn = self.cold.flow.as_ref().map(|f| &f.ecn).filter(|e| e.reduced);
        full && ecn.and_then(|e| e.end).is_some_and(under_way)
    }

    /// The next new data says that the window was reduced.
    pub(super) fn tell_reduction(&mut self) {
        if self.ecn_is_on() {
            self.flow().ecn.cwr = true;
            self.mark_ecn_busy();
        }
    }

    /// It was not, after all.
    pub(super) fn withdraw_reduction(&mut self) {
        if self.ecn_is_on() && !self.is_reduced_for_mark() {
            self.flow().ecn.cwr = false;
            self.mark_ecn_busy();
        }
    }

    /// The ACK was dealt with.
    #[inline]
    pub(super) fn forget_echo(&mut self) {
        if let Some(flow) = &mut self.cold.flow {
            flow.ecn.ece = false;
        }
    }

    /// The segment that is looked at carries ECE.
    pub(super) fn echoes(&self) -> bool {
        self.cold.flow.as_ref().is_some_and(|f| f.ecn.on && f.ecn.ece)
    }

    /// The flags that a segment with our acknowledgment carries now; `fresh`: it
    /// carries data that was never sent.
    #[inline]
    pub(super) fn ecn_flags(&mut self, fresh: bool) -> Flags {
        if self.hot.bits.contains(Bits::ECN_BUSY) { self.busy_ecn_flags(fresh) } else { Flags::empty() }
    }

    #[cold]
    fn busy_ecn_flags(&mut self, fresh: bool) -> Flags {
        let ecn = &mut self.flow().ecn;
        let mut flags = Flags::empty();
        flags.set(Flags::ECE, ecn.echo || ecn.ce);
        if fresh && core::mem::take(&mut ecn.cwr) {
            flags |= Flags::CWR;
            self.mark_ecn_busy();
        }
        flags
    }
}
