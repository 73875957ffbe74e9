//! SYN cookies (RFC 4987, 3.6): a listener whose SYN queue is full answers with a
//! sequence number that says all that has to be known of the SYN, and keeps
//! nothing. Only who got the answer can send the ACK that opens the connection.

use super::hash::FlowKey;
use crate::rng::Rng;
use crate::time::{Duration, Instant};
use core::hash::Hasher;
use siphasher::sip::SipHasher24;

/// When a listener answers with cookies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SynCookies {
    /// Never: SYNs beyond the queue are dropped.
    Off,
    /// Where its SYN queue is full.
    #[default]
    Auto,
    /// Always: no state is kept for any SYN.
    Always,
}

/// How long a secret is used for new cookies. It is good for as long again.
pub const PERIOD: Duration = Duration::from_secs(64);

/// The segment sizes that a cookie can stand for: the largest that the peer's is
/// not below. Four bits of the number; the other 28 are the hash.
const SIZES: [u16; 16] =
    [48, 128, 256, 536, 800, 1024, 1220, 1300, 1340, 1380, 1400, 1420, 1440, 1452, 1460, 8960];

/// The secrets.
#[derive(Debug, Default)]
pub struct Cookies {
    /// The present one and the one before.
    keys: [[u8; 16]; 2],
    /// When the present one began; none was drawn yet.
    since: Option<Instant>,
}

impl Cookies {
    /// Draws a new secret where the present one has served its time.
    fn turn(&mut self, now: Instant, rng: &mut Rng) {
        match self.since {
            Some(since) if now.since(since) < PERIOD => {}
            Some(since) if now.since(since) < PERIOD + PERIOD => {
                self.keys = [rng.key(), self.keys[0]];
                self.since = Some(since + PERIOD);
            }
            _ => {
                self.keys = [rng.key(), rng.key()];
                self.since = Some(now);
            }
        }
    }

    /// The initial sequence number that answers the SYN `irs` of a flow, whose
    /// sender takes segments of `mss` bytes.
    pub fn make(&mut self, now: Instant, rng: &mut Rng, key: &FlowKey, irs: u32, mss: u16) -> u32 {
        self.turn(now, rng);
        let size = SIZES.iter().rposition(|&s| s <= mss).unwrap_or(0) as u32;
        hash(&self.keys[0], key, irs, size)
    }

    /// The segment size that a cookie stands for; `None` if it is not one of the
    /// last two secrets, for this flow and this SYN.
    pub fn check(&mut self, now: Instant, rng: &mut Rng, key: &FlowKey, irs: u32, cookie: u32) -> Option<u16> {
        self.turn(now, rng);
        let size = cookie & 15;
        let good = self.keys.iter().any(|secret| hash(secret, key, irs, size) == cookie);
        good.then_some(SIZES[size as usize])
    }
}

/// SipHash-2-4 of the flow, the peer's number and the size, with the size in the
/// low bits.
fn hash(secret: &[u8; 16], key: &FlowKey, irs: u32, size: u32) -> u32 {
    let mut hash = SipHasher24::new_with_key(secret);
    key.feed(&mut hash);
    hash.write_u32(irs);
    hash.write_u32(size);
    (hash.finish() as u32) & !15 | size
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(port: u16) -> FlowKey {
        FlowKey::new([10, 0, 0, 1].into(), 80, [10, 0, 0, 2].into(), port)
    }

    #[test]
    fn a_cookie_is_good_for_its_flow_and_syn_alone() {
        let (mut c, mut rng, now) = (Cookies::default(), Rng::new(1), Instant::ZERO);
        for (mss, kept) in [(20, 48), (536, 536), (1459, 1452), (1460, 1460), (65_535, 8960)] {
            let cookie = c.make(now, &mut rng, &key(1000), 77, mss);
            assert_eq!(c.check(now, &mut rng, &key(1000), 77, cookie), Some(kept));
            assert_eq!(c.check(now, &mut rng, &key(1001), 77, cookie), None);
            assert_eq!(c.check(now, &mut rng, &key(1000), 78, cookie), None);
            // The size cannot be changed by who does not know the secret.
            assert_eq!(c.check(now, &mut rng, &key(1000), 77, cookie ^ 1), None);
        }
    }

    #[test]
    fn a_cookie_lives_one_period_at_least_and_two_at_most() {
        let start = Instant::from_nanos(5_000_000_000);
        for begin in [0, 1, 30, 63] {
            let (mut c, mut rng) = (Cookies::default(), Rng::new(1));
            c.make(start, &mut rng, &key(9), 0, 536);
            let made = start + Duration::from_secs(begin);
            let cookie = c.make(made, &mut rng, &key(1), 5, 1460);
            let at = |s| made + Duration::from_secs(s);
            assert_eq!(c.check(at(64), &mut rng, &key(1), 5, cookie), Some(1460));
            assert_eq!(c.check(at(128), &mut rng, &key(1), 5, cookie), None);
        }
        let (mut c, mut rng) = (Cookies::default(), Rng::new(1));
        let cookie = c.make(start, &mut rng, &key(1), 5, 1460);
        let late = start + Duration::from_secs(1000);
        assert_eq!(c.check(late, &mut rng, &key(1), 5, cookie), None);
    }

    #[test]
    fn guessing_does_not_open_a_connection() {
        let (mut c, mut rng, now) = (Cookies::default(), Rng::new(1), Instant::ZERO);
        let mut guess = Rng::new(2);
        let hits = (0..200_000).filter(|_| {
            let cookie = guess.next_u32();
            c.check(now, &mut rng, &key(1), 5, cookie).is_some()
        });
        assert_eq!(hits.count(), 0);
    }
}
