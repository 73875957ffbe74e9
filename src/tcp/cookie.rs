//! The connection's part of SYN cookies (RFC 4987, 3.6): a SYN-ACK that nothing
//! is remembered of, and the connection that its ACK opens. What the SYN offered
//! beside the segment size travels in the low bits of our timestamp, which the
//! ACK echoes; a peer without timestamps gets neither window scaling nor SACK.

use super::connection::{Bits, Connection};
use super::types::Env;
use super::{ConnOptions, Template, isn};
use crate::wire::tcp::{Flags, Options, Segment};

/// Bits of the timestamp that are ours to use: 64 ms of its clock.
const MASK: u32 = 0x3f;
/// The peer's window scale, or that it offered none.
const SCALE: u32 = 0x0f;
const NO_SCALE: u32 = 0x0f;
const SACK: u32 = 0x10;
/// It offered ECN.
const ECN: u32 = 0x20;
const ECN_SETUP: Flags = Flags::ECE.union(Flags::CWR);

impl Connection {
    /// Answers a SYN without keeping anything of it; `initial` has the cookie.
    /// False if there was no room to send.
    pub fn send_cookie(
        env: &mut Env,
        template: Template,
        options: &ConnOptions,
        initial: isn::Initial,
        mtu: usize,
        syn: &Segment,
    ) -> bool {
        let mut offer = syn.clone();
        if syn.options.timestamp.is_none() {
            // Nothing that could not be told afterwards is agreed to.
            offer.flags -= ECN_SETUP;
        }
        let mut conn = Self::accept(env, template, options, initial, mtu, &offer);
        conn.hot.bits |= Bits::PATH;
        if conn.hot.bits.contains(Bits::TIMESTAMPS) {
            let now = conn.ts_now(env.now);
            let ecn = if syn.flags.contains(ECN_SETUP) { ECN } else { 0 };
            let mut value = now & !MASK | conn.offered() | ecn;
            if super::seq::gt(value, now) {
                value = value.wrapping_sub(MASK + 1);
            }
            conn.warm.ts_offset = conn.warm.ts_offset.wrapping_sub(now.wrapping_sub(value));
        } else {
            conn.hot.bits -= Bits::SACK | Bits::SCALING;
            conn.hot.rcv_scale = 0;
        }
        let sent = conn.send_syn(env).is_ok();
        conn.dispose(env.pool);
        sent
    }

    /// What both sides know, as the timestamp's low bits say it.
    fn offered(&self) -> u32 {
        let h = &self.hot;
        let scale = if h.bits.contains(Bits::SCALING) { h.snd_scale.into() } else { NO_SCALE };
        scale | if h.bits.contains(Bits::SACK) { SACK } else { 0 }
    }

    /// The connection that the ACK of a cookie opens: ESTABLISHED, and `ack` not
    /// yet taken in. `initial` has the cookie, `mss` is what it stands for.
    pub fn from_cookie(
        env: &mut Env,
        template: Template,
        options: &ConnOptions,
        initial: isn::Initial,
        mtu: usize,
        ack: &Segment,
        mss: u16,
    ) -> Self {
        let mut offer = Options { mss: Some(mss), ..Options::default() };
        let mut flags = Flags::SYN;
        if let Some((value, echo)) = ack.options.timestamp {
            offer.timestamp = Some((value, 0));
            offer.sack_permitted = echo & SACK != 0;
            flags.set(ECN_SETUP, echo & ECN != 0);
            let scale = echo & SCALE;
            offer.window_scale = (scale != NO_SCALE).then_some(scale as u8);
        }
        let syn = Segment {
            seq: ack.seq.wrapping_sub(1),
            flags,
            options: offer,
            payload_len: 0,
            ..ack.clone()
        };
        let mut conn = Self::accept(env, template, options, initial, mtu, &syn);
        let h = &mut conn.hot;
        let most = h.rcv_buf.min(65_535);
        h.rcv_edge = h.rcv_nxt.wrapping_add(most);
        h.snd_nxt = initial.iss.wrapping_add(1);
        // No round trip time: the timestamp that is echoed was not exact.
        let _ = conn.open(env, initial.iss.wrapping_add(1));
        conn
    }
}
