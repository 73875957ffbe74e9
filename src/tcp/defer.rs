//! TCP_DEFER_ACCEPT, by Linux's rules: the bare ACK that ends a handshake is not
//! heard, so that the program learns of the connection with its first data. The
//! SYN-ACK is not sent again until the time that the program set is nearly over;
//! then the last one gives the peer a chance to open the connection without data.

use super::connection::{Bits, Connection};
use super::types::Env;
use crate::wire::tcp::{Flags, Segment};

/// The first time-out of a SYN-ACK and the longest, in seconds: what the option's
/// seconds are counted in.
const FIRST: u32 = 1;
const LONGEST: u32 = 120;

/// The times of so many transmissions, one after the other.
fn periods() -> impl Iterator<Item = u32> {
    let mut at = 0u32;
    (0..255).map(move |i: u32| {
        at += (FIRST << i.min(7)).min(LONGEST);
        at
    })
}

/// How many times a SYN-ACK is sent within so many seconds.
pub fn transmissions(seconds: i32) -> u8 {
    if seconds <= 0 {
        return 0;
    }
    let within = periods().take_while(|&p| p < seconds as u32).count();
    (within + 1).min(255) as u8
}

/// The seconds that so many transmissions take.
pub fn seconds(transmissions: u8) -> i32 {
    let last = usize::from(transmissions).checked_sub(1);
    last.and_then(|n| periods().nth(n)).map_or(0, |s| s as i32)
}

impl Connection {
    /// The ACK that would end the handshake; true where it is not heard for now.
    pub fn defers(&mut self, seg: &Segment, limit: u8) -> bool {
        let bare = seg.payload_len == 0 && !seg.flags.contains(Flags::FIN);
        if !bare || self.hot.retries >= limit {
            return false;
        }
        self.cold.deferred = limit;
        true
    }

    /// The SYN or SYN-ACK timed out for the `before`-th time after the first: it
    /// goes again, but not to who has acknowledged it and says nothing.
    pub(super) fn resend_syn(&mut self, env: &mut Env, before: u8) {
        env.counters.tcp_timeouts += 1;
        let limit = self.cold.deferred;
        if limit == 0 || before >= limit - 1 {
            self.hot.bits |= Bits::SYN_DUE;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_become_transmissions_and_back_as_in_linux() {
        for (asked, count, read) in
            [(-1, 0, 0), (0, 0, 0), (1, 1, 1), (2, 2, 3), (3, 2, 3), (4, 3, 7), (10, 4, 15), (200, 8, 247)]
        {
            assert_eq!((transmissions(asked), seconds(count)), (count, read), "{asked}");
        }
        assert_eq!(transmissions(i32::MAX), 255);
    }
}
