//! RSTs: of a connection, and what a segment gets that no connection is there for.

use super::Reply;
use super::connection::{Bits, Connection};
use super::types::{Env, State};
use crate::telemetry::DropReason;
use crate::wire::tcp::{Flags, Segment};

/// The RST that answers a segment for which there is no connection (RFC 9293,
/// 3.10.7.1); none for an RST.
pub fn reset_reply(seg: &Segment) -> Option<Reply> {
    if seg.flags.contains(Flags::RST) {
        return None;
    }
    let (seq, ack) = if seg.flags.contains(Flags::ACK) {
        (seg.ack, None)
    } else {
        (0, Some(seg.seq.wrapping_add(seg.seq_len())))
    };
    Some(Reply { seq, ack, reset: true, window: 0, timestamp: None })
}

impl Connection {
    /// Sends an RST. It is not sent again, so that one that finds no frame or no
    /// room is lost like one that the network drops.
    #[cold]
    pub(super) fn send_reset(&mut self, env: &mut Env, seq: u32, ack: Option<u32>) {
        if !self.hot.bits.contains(Bits::PATH) {
            return;
        }
        // RFC 7323, 3.2: an RST should have the option too.
        let agreed = self.hot.state != State::SynSent;
        let stamped = agreed && self.hot.bits.contains(Bits::TIMESTAMPS);
        let timestamp = stamped.then(|| (self.ts_now(env.now), self.hot.ts_recent));
        let window = if ack.is_some() { self.window() } else { 0 };
        let reply = Reply { seq, ack, reset: true, window, timestamp };
        if self.template.send(env.pool, env.tx, &reply) {
            env.counters.tcp_resets_out += 1;
            env.counters.tcp_segments_out += 1;
        } else {
            env.counters.drop(DropReason::TransmitQueueFull);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::tcp::Options;

    fn segment(flags: Flags, payload_len: usize) -> Segment {
        Segment {
            src_port: 1,
            dst_port: 2,
            seq: u32::MAX,
            ack: 77,
            flags,
            window: 0,
            urgent: 0,
            options: Options::default(),
            header_len: 20,
            payload_len,
            ce: false,
        }
    }

    #[test]
    fn an_rst_gets_no_answer() {
        assert_eq!(reset_reply(&segment(Flags::RST, 0)), None);
        assert_eq!(reset_reply(&segment(Flags::RST | Flags::ACK, 0)), None);
    }

    #[test]
    fn the_answer_is_acceptable_to_the_sender() {
        let with_ack = reset_reply(&segment(Flags::ACK, 10)).unwrap();
        assert_eq!((with_ack.seq, with_ack.ack), (77, None));
        let syn = reset_reply(&segment(Flags::SYN | Flags::FIN, 10)).unwrap();
        assert_eq!((syn.seq, syn.ack), (0, Some(11)));
    }
}
