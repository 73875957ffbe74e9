//! TIME-WAIT in few bytes: what has to be remembered after both sides closed
//! (RFC 9293, 3.10.7.4; RFC 1337; RFC 6191).

use super::{Config, Reply, seq};
use crate::time::{Duration, Instant};
use crate::wire::tcp::{Flags, Segment};

/// A connection in TIME-WAIT. Addresses and ports are the table's to keep.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    pub(super) snd_nxt: u32,
    pub(super) rcv_nxt: u32,
    pub(super) ts_recent: u32,
    pub(super) ts_offset: u32,
    /// Milliseconds of the clock, modulo 2^32.
    pub(super) expires: u32,
    pub(super) answered: u32,
    pub(super) window: u16,
    pub(super) timestamps: bool,
    /// The table's to use: a byte that would else be padding.
    pub mark: u8,
}

const _: () = assert!(size_of::<Entry>() <= 28, "with both ends, a place in the order and in an index 64 bytes");

/// What a segment for an entry asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing.
    Nothing,
    /// Send this.
    Ack(Reply),
    /// The segment is a SYN that begins a new connection: drop the entry and
    /// hand the SYN to the listener, if there is one. The new initial sequence
    /// number has to come after `above` (RFC 1122, 4.2.2.13).
    Reopen {
        /// Last sequence number of the old connection.
        above: u32,
    },
}

impl Entry {
    /// When it ends.
    pub fn expires(&self, now: Instant) -> Instant {
        let left = self.expires.wrapping_sub(now.as_millis_wrapping()) as i32;
        now + Duration::from_millis(left.max(0) as u64)
    }

    /// 2 MSL begin now.
    pub fn begin(&mut self, now: Instant, config: &Config) {
        self.expires = (now + config.time_wait).as_millis_wrapping();
    }

    /// True where 2 MSL have passed.
    pub fn is_over(&self, now: Instant) -> bool {
        seq::ge(now.as_millis_wrapping(), self.expires)
    }

    /// A segment came in. RSTs do not end TIME-WAIT (RFC 1337); a FIN sent again
    /// starts the time anew.
    pub fn input(&mut self, now: Instant, config: &Config, seg: &Segment) -> Action {
        if seg.flags.contains(Flags::RST) {
            return Action::Nothing;
        }
        let fresh_time = match seg.options.timestamp {
            Some((value, _)) if self.timestamps => Some(seq::gt(value, self.ts_recent)),
            _ => None,
        };
        if seg.flags.contains(Flags::SYN) && !seg.flags.contains(Flags::ACK) {
            // RFC 6191, 2: by timestamp where both have it, else by sequence number.
            let newer = seq::gt(seg.seq, self.rcv_nxt);
            let begins = match fresh_time {
                Some(fresh) => fresh || self.ts_equal(seg) && newer,
                None => newer,
            };
            if begins {
                return Action::Reopen { above: self.snd_nxt };
            }
            return self.answer(now, config, true);
        }
        if seg.flags.contains(Flags::FIN) && seg.seq.wrapping_add(seg.seq_len()) == self.rcv_nxt {
            self.begin(now, config);
        }
        let empty = seg.seq_len() == 0;
        if empty && seg.seq == self.rcv_nxt {
            return Action::Nothing;
        }
        self.answer(now, config, empty)
    }

    /// The answer to a SYN that would begin a new connection where nobody wants
    /// one: an ACK (RFC 5961, 4), so often as to other empty segments.
    pub fn challenge(&mut self, now: Instant, config: &Config) -> Action {
        self.answer(now, config, true)
    }

    fn ts_equal(&self, seg: &Segment) -> bool {
        seg.options.timestamp.is_some_and(|(value, _)| value == self.ts_recent)
    }

    /// An ACK; to empty segments only now and then, lest two ends acknowledge
    /// each other for ever.
    fn answer(&mut self, now: Instant, config: &Config, limited: bool) -> Action {
        let ms = now.as_millis_wrapping();
        let pause = config.invalid_ack_interval.as_millis() as u32;
        if limited && ms.wrapping_sub(self.answered) < pause {
            return Action::Nothing;
        }
        self.answered = ms;
        Action::Ack(Reply {
            seq: self.snd_nxt,
            ack: Some(self.rcv_nxt),
            reset: false,
            window: self.window,
            timestamp: self.timestamps.then(|| (ms.wrapping_add(self.ts_offset), self.ts_recent)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::tcp::Options;

    fn entry() -> Entry {
        Entry {
            snd_nxt: 5000,
            rcv_nxt: 100,
            ts_recent: 1000,
            ts_offset: 7,
            expires: 60_000,
            answered: 0,
            window: 9,
            timestamps: true,
            mark: 0,
        }
    }

    fn segment(flags: Flags, number: u32, time: Option<u32>) -> Segment {
        let options = Options { timestamp: time.map(|t| (t, 0)), ..Options::default() };
        Segment {
            src_port: 1,
            dst_port: 2,
            seq: number,
            ack: 5000,
            flags,
            window: 0,
            urgent: 0,
            options,
            header_len: 20,
            payload_len: 0,
            ce: false,
        }
    }

    const AT: Instant = Instant::from_nanos(1_000_000_000);

    #[test]
    fn a_reset_does_not_end_it() {
        let seg = segment(Flags::RST, 100, Some(2000));
        assert_eq!(entry().input(AT, &Config::default(), &seg), Action::Nothing);
    }

    #[test]
    fn a_syn_reopens_by_timestamp_or_by_sequence_number() {
        let config = Config::default();
        let reopen = Action::Reopen { above: 5000 };
        let newer_time = segment(Flags::SYN, 50, Some(1001));
        assert_eq!(entry().input(AT, &config, &newer_time), reopen);
        let older_time = segment(Flags::SYN, 200, Some(999));
        assert!(matches!(entry().input(AT, &config, &older_time), Action::Ack(_)));
        let same_time = segment(Flags::SYN, 200, Some(1000));
        assert_eq!(entry().input(AT, &config, &same_time), reopen);
        let newer = segment(Flags::SYN, 101, None);
        assert_eq!(entry().input(AT, &config, &newer), reopen);
        let older = segment(Flags::SYN, 100, None);
        assert!(matches!(entry().input(AT, &config, &older), Action::Ack(_)));
    }

    #[test]
    fn a_fin_sent_again_is_acknowledged_and_starts_the_time_anew() {
        let config = Config::default();
        let mut e = entry();
        let now = Instant::from_nanos(30_000_000_000);
        let action = e.input(now, &config, &segment(Flags::FIN | Flags::ACK, 99, Some(1000)));
        let Action::Ack(reply) = action else { panic!("{action:?}") };
        assert_eq!((reply.seq, reply.ack, reply.timestamp), (5000, Some(100), Some((30_007, 1000))));
        assert_eq!(e.expires(now), now + config.time_wait);
        assert!(!e.is_over(now) && e.is_over(now + config.time_wait));
    }

    #[test]
    fn empty_segments_out_of_place_are_answered_seldom() {
        let config = Config::default();
        let mut e = entry();
        let stray = segment(Flags::ACK, 98, Some(1000));
        assert!(matches!(e.input(AT, &config, &stray), Action::Ack(_)));
        assert_eq!(e.input(AT, &config, &stray), Action::Nothing);
        let in_place = segment(Flags::ACK, 100, Some(1000));
        assert_eq!(e.input(AT + config.time_wait, &config, &in_place), Action::Nothing);
    }
}
