//! What one ACK told, gathered segment by segment.

use crate::tcp::send_queue::{Marks, Segment};
use crate::tcp::seq;
use crate::time::{Duration, Instant};

/// The transmission that was sent last of those that are known to have arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::tcp) struct Newest {
    pub at: Instant,
    /// After its last byte, which decides among those sent at one time.
    pub end: u32,
}

impl Newest {
    /// RFC 8985, 6.1, `RACK_sent_after`.
    pub fn is_after(self, at: Instant, end: u32) -> bool {
        self.at > at || self.at == at && seq::gt(self.end, end)
    }
}

/// What one ACK told.
#[derive(Debug)]
pub(in crate::tcp) struct Seen {
    /// Bytes newly acknowledged, selectively or not.
    pub delivered: u32,
    /// Of them, those by SACK.
    pub sacked: u32,
    /// The last sent of them.
    pub newest: Option<Newest>,
    /// Something came through that was sent once, before `recover`.
    pub fresh: bool,
    /// Something came through that was sent more than once.
    pub resent: bool,
    /// The first number of what was overtaken: sent once, and later data was
    /// there already.
    pub overtaken: Option<u32>,
    /// When the last of the segments acknowledged by number was sent, unless one
    /// was sent again.
    pub sent_at: Option<Instant>,
    /// The same of those acknowledged by SACK.
    pub sacked_at: Option<Instant>,
    /// A D-SACK came with it, for so many segments.
    pub duplicates: u32,
    /// That was the probe of a lost tail.
    pub probe_duplicate: bool,
    pub now: Instant,
    pub min_rtt: Duration,
    /// The echoed timestamp, less the connection's offset.
    pub echo: Option<u32>,
    pub fack: u32,
    pub recover: u32,
}

impl Seen {
    /// Nothing yet, of an ACK that comes now without a timestamp.
    pub fn nothing(now: Instant, fack: u32, recover: u32) -> Self {
        Self {
            delivered: 0,
            sacked: 0,
            newest: None,
            fresh: false,
            resent: false,
            overtaken: None,
            sent_at: None,
            sacked_at: None,
            duplicates: 0,
            probe_duplicate: false,
            now,
            min_rtt: Duration::ZERO,
            echo: None,
            fack,
            recover,
        }
    }

    /// The peer has this segment, and that is new.
    pub fn add(&mut self, seg: &Segment, by_sack: bool) {
        self.delivered += seg.len();
        let again = seg.marks.contains(Marks::RETRANSMITTED);
        if by_sack {
            self.sacked += seg.len();
            self.sacked_at = if again { self.sacked_at } else { Some(seg.sent_at) };
        }
        if again {
            self.resent = true;
        } else {
            self.fresh |= seq::le(seg.end(), self.recover);
            if seq::lt(seg.seq, self.fack) {
                let first = self.overtaken.unwrap_or(seg.seq);
                self.overtaken = Some(if seq::lt(seg.seq, first) { seg.seq } else { first });
            }
        }
        if again && self.is_ambiguous(seg.sent_at) {
            return;
        }
        if self.newest.is_none_or(|n| !n.is_after(seg.sent_at, seg.end())) {
            self.newest = Some(Newest { at: seg.sent_at, end: seg.end() });
        }
    }

    /// RFC 8985, 6.2, step 1: an ACK that is probably for an earlier
    /// transmission than the last.
    fn is_ambiguous(&self, sent_at: Instant) -> bool {
        let older = |echo: u32| seq::lt(echo, sent_at.as_millis_wrapping());
        self.echo.is_some_and(older) || self.now.since(sent_at) < self.min_rtt
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::from_nanos(ms * 1_000_000)
    }

    #[test]
    fn the_last_sent_counts_and_of_those_the_highest() {
        // RFC 8985, 6.2, step 2.
        let newest = Newest { at: at(5), end: 1000 };
        assert!(newest.is_after(at(4), 9000) && !newest.is_after(at(6), 10));
        assert!(newest.is_after(at(5), 999) && !newest.is_after(at(5), 1000));
    }

    #[test]
    fn an_ack_for_an_earlier_transmission_tells_no_time() {
        // RFC 8985, 6.2, step 2: sent at 100, the least round trip is 20.
        let seen = |now, echo| Seen {
            echo,
            min_rtt: Duration::from_millis(20),
            ..Seen::nothing(at(now), 0, 0)
        };
        assert!(seen(119, None).is_ambiguous(at(100)) && !seen(120, None).is_ambiguous(at(100)));
        assert!(seen(120, Some(99)).is_ambiguous(at(100)));
        assert!(!seen(120, Some(100)).is_ambiguous(at(100)));
    }
}
