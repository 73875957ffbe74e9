//! TCP Fast Open (RFC 7413): data in the SYN, and before the handshake's end.
//! Which cookie a peer gave, and which one of ours is right, is the table's to
//! know; here is what a connection does with it.

use super::connection::{Bits, Connection};
use super::jumbo::limits;
use super::burst::Stop;
use super::template::Fields;
use super::timers::Timer;
use super::types::{Disposition, Env, Events, State};
use super::{ConnOptions, Template, isn};
use crate::errno::Errno;
use crate::frame::Packet;
use crate::wire::tcp::{Cookie, Segment};

/// Bytes of options that a SYN may carry; its data leaves room for all of them.
const OPTIONS: u32 = 40;

/// What an open with data needs beside.
#[derive(Debug, Default)]
pub(super) struct FastOpen {
    /// The option of our SYN or SYN-ACK: the peer's cookie or ours, or an empty one
    /// that asks for one. `None`: none is wanted, and data goes without.
    pub option: Option<Cookie>,
    /// The SYN waits for the program's first data.
    pub deferred: bool,
    /// The queue begins with data for the SYN.
    pub carries: bool,
    /// Data bytes that the SYN carried.
    pub sent: u16,
    /// The option was not in the last SYN that was sent: the one before was lost.
    pub dropped: bool,
    /// The cookie that the SYN-ACK brought.
    pub given: Option<Cookie>,
    /// The peer answered, and announced this segment size.
    pub answered: Option<u16>,
    /// All of the SYN's data was acknowledged with it.
    pub taken: bool,
    /// Whose pending connection it is, and which of that number.
    pub owner: Option<(u32, u32)>,
}

/// What an active open with the option taught.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Learned {
    /// The peer's cookie, if it was asked for one.
    pub cookie: Option<Cookie>,
    /// What our SYN had for an option.
    pub option: Option<Cookie>,
    /// The segment size that the peer announced; `None`: it did not answer.
    pub mss: Option<u16>,
    /// A SYN with the option was lost: perhaps something on the way eats it.
    pub lost: bool,
    /// Data was sent with the SYN.
    pub tried: bool,
    /// The peer took all data of the SYN.
    pub taken: bool,
}

impl Connection {
    /// The SYN asks for a cookie, or brings one, or needs none (`None`), for data of
    /// at most a segment of `mss` bytes (0: what the route takes); with `deferred`
    /// it waits for that data.
    pub fn fast_open(&mut self, option: Option<Cookie>, mss: u16, deferred: bool) {
        self.cold.fast_open = Some(Box::new(FastOpen { option, deferred, ..FastOpen::default() }));
        self.cold.peer_mss = if mss > 0 { mss } else { self.warm.adv_mss };
        if deferred {
            self.hot.bits -= Bits::SYN_DUE;
        }
    }

    /// True where the SYN waits for data.
    pub fn is_deferred(&self) -> bool {
        self.cold.fast_open.as_ref().is_some_and(|f| f.deferred)
    }

    /// The data that the SYN is to carry, before it leaves; how much of it does. With
    /// `all` what it does not take waits behind it, as the send buffer allows, and
    /// counts too.
    pub fn send_early(&mut self, env: &mut Env, data: &[u8], all: bool) -> usize {
        let n = self.send_in_syn(env, data);
        if !all || n == data.len() {
            return n;
        }
        // The peer's segment size is not known yet; what is too long is cut later.
        let (mss, piece, path) = (self.hot.mss, self.hot.send.piece, self.warm.adv_mss);
        self.hot.mss = path.saturating_sub((self.room() - self.template.l2l3_len() - 20) as u16).max(1);
        self.hot.send.piece = self.hot.mss.min(limits(env.pool.frame_capacity(), self.room()).1 as u16);
        let room = self.hot.snd_buf.saturating_sub(self.queued()) as usize;
        let n = self.queue_pieces(env, &data[..data.len().min(n + room)], n);
        (self.hot.mss, self.hot.send.piece) = (mss, piece);
        n
    }

    fn send_in_syn(&mut self, env: &mut Env, data: &[u8]) -> usize {
        let l3 = self.template.l3_len() as u16 + 20;
        let most = self.cold.mtu.saturating_sub(l3).min(self.cold.peer_mss);
        let most = u32::from(most.min(super::connection::limit(self.cold.max_segment)));
        let Some(f) = &mut self.cold.fast_open else { return 0 };
        f.deferred = false;
        self.hot.bits |= Bits::SYN_DUE;
        let with_cookie = f.option.is_none_or(|c| !c.is_empty());
        // In one frame, with all options that a SYN may carry.
        let room = env.pool.arena().capacity().saturating_sub(self.room() + OPTIONS as usize);
        let n = data.len().min(most.saturating_sub(OPTIONS) as usize).min(room);
        let n = n.min(self.hot.snd_buf as usize);
        if !with_cookie || n == 0 || env.pool.available() <= env.config.send_reserve() {
            return 0;
        }
        let Some(frame) = env.pool.alloc() else { return 0 };
        if let Some(f) = &mut self.cold.fast_open {
            f.carries = true;
        }
        let (room, end) = (self.room(), self.hot.snd_end);
        let marks = super::send_queue::Marks::PUSH;
        self.hot.send.push_copy(env.pool, frame, end, &data[..n], room, marks);
        self.hot.snd_end = end.wrapping_add(n as u32);
        env.counters.tx_copied_bytes += n as u64;
        n
    }

    /// The option of the SYN or SYN-ACK that leaves now. The black hole's way
    /// out: one that is sent again has neither option nor data (RFC 7413, 4.1.3.1).
    pub(super) fn fast_open_option(&mut self) -> Option<Cookie> {
        let again = self.hot.snd_nxt != self.cold.iss;
        let passive = self.hot.bits.contains(Bits::PASSIVE);
        let f = self.cold.fast_open.as_mut()?;
        if again && !passive {
            f.dropped = true;
            return None;
        }
        f.option
    }

    /// Sends the SYN with the data that waits behind it. `None`: there is none, or
    /// it was sent once.
    pub(super) fn send_syn_data(
        &mut self,
        env: &mut Env,
        fields: Fields,
        options: &[u8],
    ) -> Option<Result<(), Stop>> {
        let fresh = self.hot.snd_nxt == self.cold.iss && self.hot.state == State::SynSent;
        let f = self.cold.fast_open.as_mut().filter(|f| fresh && f.carries)?;
        let seg = self.hot.send.front()?;
        let Some(mut frame) = env.pool.alloc() else { return Some(Err(self.out_of_frames(env))) };
        let (len, sum) = (seg.frame.len(), seg.sum);
        let at = self.template.l2l3_len() + 20 + options.len();
        let buf = env.pool.buffer_mut(&mut frame);
        buf[at..at + len].copy_from_slice(env.pool.bytes(&seg.frame));
        self.template.stamp(buf, fields, options, len, sum);
        f.sent = len as u16;
        let desc = env.pool.transmit_and_free(frame, at + len);
        env.tx.push(desc);
        Some(Ok(()))
    }

    /// The last number that a SYN-ACK may acknowledge.
    pub(super) fn syn_end(&self) -> u32 {
        let sent = self.cold.fast_open.as_ref().map_or(0, |f| f.sent);
        self.hot.snd_nxt.wrapping_add(sent.into())
    }

    /// The SYN-ACK came: what it says of the option, and of the data. Called when
    /// the connection is open and knows of the SYN alone.
    #[cold]
    pub(super) fn fast_opened(&mut self, env: &mut Env, seg: &Segment) -> Disposition {
        let Some(f) = &mut self.cold.fast_open else { return Disposition::NONE };
        // A cookie that nobody asked for is none.
        f.given = seg.options.fast_open.filter(|c| !c.is_empty() && f.option.is_some());
        f.answered = Some(self.cold.peer_mss);
        let sent = core::mem::take(&mut f.sent);
        f.taken = sent > 0 && seg.ack == self.hot.snd_una.wrapping_add(sent.into());
        self.cold.syn_data = f.taken;
        if sent == 0 {
            return Disposition::NONE;
        }
        // It was sent, after all; what was not taken of it is lost.
        let at = self.warm.last_sent;
        self.hot.send.sent_with_syn(at);
        self.hot.snd_nxt = self.hot.snd_una.wrapping_add(sent.into());
        let mut d = Disposition { events: Events::empty(), flush: true };
        if seg.ack != self.hot.snd_una {
            d = d.and(self.acknowledged(env, seg.ack, seg.options.timestamp, 0));
        }
        if self.hot.snd_una != self.hot.snd_nxt {
            self.outstanding_is_lost();
        }
        d
    }

    /// True where Fast Open's option went out, or data came with it.
    #[inline]
    pub fn has_fast_open(&self) -> bool {
        self.cold.fast_open.is_some()
    }

    /// What an active open taught, once it is over; taken, so that it is told once.
    pub fn take_learned(&mut self) -> Option<Learned> {
        if self.hot.bits.contains(Bits::PASSIVE) {
            return None;
        }
        let f = self.cold.fast_open.take()?;
        let (cookie, option) = (f.given, f.option);
        let tried = option.is_none_or(|c| !c.is_empty());
        Some(Learned { cookie, option, mss: f.answered, lost: f.dropped, tried, taken: f.taken })
    }

    /// Answers a SYN whose cookie is right: SYN-RECEIVED, and its data can be read
    /// and answered at once. `option` goes into the SYN-ACK, `owner` is kept.
    #[allow(clippy::too_many_arguments)] // as `accept`, and what the SYN brought
    pub fn accept_early(
        env: &mut Env,
        template: Template,
        options: &ConnOptions,
        initial: isn::Initial,
        mtu: usize,
        syn: &Segment,
        payload: Option<Packet>,
        option: Option<Cookie>,
        owner: (u32, u32),
    ) -> Self {
        let mut conn = Self::accept(env, template, options, initial, mtu, syn);
        conn.cold.early = true;
        conn.cold.fast_open = Some(Box::new(FastOpen { option, owner: Some(owner), ..FastOpen::default() }));
        conn.hot.rcv_edge = conn.hot.rcv_nxt.wrapping_add(conn.hot.rcv_buf.min(65_535));
        // What was offered is for data; our SYN's own number is under way too.
        conn.hot.snd_wnd += 1;
        conn.warm.congestion.window += 1;
        if let Some(packet) = payload {
            conn.cold.syn_data = true;
            let first = conn.hot.rcv_nxt;
            let _ = conn.take_chain(env, first, packet);
        }
        // That was no answer to anything: the quick ACKs are still to come.
        conn.hot.quick = env.config.quick_acks;
        conn.warm.timers.stop(Timer::DelayedAck);
        conn
    }

    /// A cookie goes with the SYN-ACK to who asked for one, or brought a wrong one.
    pub fn give_cookie(&mut self, cookie: Cookie) {
        let option = Some(cookie);
        self.cold.fast_open = Some(Box::new(FastOpen { option, ..FastOpen::default() }));
    }

    /// Whose pending connection this is, told once.
    pub fn take_owner(&mut self) -> Option<(u32, u32)> {
        if !self.hot.bits.contains(Bits::PASSIVE) {
            return None;
        }
        self.cold.fast_open.take().and_then(|f| f.owner)
    }

    /// Data may be sent: the state allows it, or the peer's cookie did. No state that does
    /// has a FIN queued; SYN-RECEIVED may.
    #[inline]
    pub fn may_send(&self) -> bool {
        self.hot.state.can_send() || self.is_early() && !self.hot.bits.contains(Bits::FIN_QUEUED)
    }

    /// SYN-RECEIVED, and the program has the connection already.
    #[inline]
    pub fn is_early(&self) -> bool {
        self.cold.early && self.hot.state == State::SynReceived
    }

    /// The error of an early connection that the peer resets: the program has it.
    pub(super) fn early_error(&self) -> Option<Errno> {
        self.is_early().then_some(Errno::ECONNRESET)
    }
}
