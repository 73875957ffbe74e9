//! Initial sequence numbers (RFC 6528; MUST-8, SHLD-1) and timestamp offsets
//! (RFC 7323, 5.4) that cannot be guessed from outside.

use crate::rng::{Rng, sip};
use crate::time::Instant;
use arrayvec::ArrayVec;
use core::net::{IpAddr, SocketAddr};
use siphasher::sip::SipHasher24;

/// What a connection starts with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Initial {
    /// Initial send sequence number.
    pub iss: u32,
    /// Added to the millisecond clock to make timestamp values. The same for
    /// all connections of one pair of addresses and ports, so that timestamps
    /// grow from one incarnation to the next (RFC 6191).
    pub ts_offset: u32,
}

/// Makes initial sequence numbers: M + F(addresses, ports, secret), M being a
/// clock of 4 microseconds, F SipHash-2-4.
#[derive(Clone, Debug)]
pub struct Generator {
    key: u128,
    /// Takes F's place in sequence numbers.
    base: Option<u32>,
}

impl Generator {
    /// A generator with a secret of its own; with `base` sequence numbers begin
    /// there and follow the clock alone.
    pub fn new(rng: &mut Rng, base: Option<u32>) -> Self {
        Self { key: u128::from_le_bytes(rng.key()), base }
    }

    /// The start of a connection between these two at this time.
    pub fn initial(&self, now: Instant, local: SocketAddr, remote: SocketAddr) -> Initial {
        let key = (self.key as u64, (self.key >> 64) as u64);
        let f = match (local, remote) {
            (SocketAddr::V4(a), SocketAddr::V4(b)) => {
                let ends = (u64::from(a.ip().to_bits()) << 32) | u64::from(b.ip().to_bits());
                let ports = (u32::from(a.port()) << 16) | u32::from(b.port());
                sip::<2, 4, 1>(key, [ends], ports)
            }
            (local, remote) => {
                let mut bytes = ArrayVec::<u8, { 2 * (16 + 2) }>::new();
                for end in [local, remote] {
                    match end.ip() {
                        IpAddr::V4(ip) => bytes.extend(ip.octets()),
                        IpAddr::V6(ip) => bytes.extend(ip.octets()),
                    }
                    bytes.extend(end.port().to_be_bytes());
                }
                SipHasher24::new_with_keys(key.0, key.1).hash(&bytes)
            }
        };
        let m = (now.as_nanos() / 4_000) as u32;
        let first = self.base.unwrap_or(f as u32);
        Initial { iss: m.wrapping_add(first), ts_offset: (f >> 32) as u32 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Duration;

    #[test]
    fn numbers_follow_the_clock_for_one_pair_and_differ_between_pairs() {
        let generator = Generator::new(&mut Rng::new(3), None);
        let at = |ms, port| {
            let now = Instant::ZERO + Duration::from_millis(ms);
            let local = SocketAddr::from(([10, 0, 0, 1], port));
            generator.initial(now, local, SocketAddr::from(([10, 0, 0, 2], 80)))
        };
        let (a, b) = (at(0, 1000), at(4, 1000));
        assert_eq!(b.iss.wrapping_sub(a.iss), 1000);
        assert_eq!(a.ts_offset, b.ts_offset);
        assert_ne!(a.iss, at(0, 1001).iss);
        assert_ne!(a.ts_offset, at(0, 1001).ts_offset);
        let other = Generator::new(&mut Rng::new(4), None);
        let ends = SocketAddr::from(([10, 0, 0, 1], 1000));
        let theirs = other.initial(Instant::ZERO, ends, SocketAddr::from(([10, 0, 0, 2], 80)));
        assert!(a.iss != theirs.iss && a.ts_offset != theirs.ts_offset);
    }
    #[test]
    fn with_a_base_numbers_are_known() {
        let generator = Generator::new(&mut Rng::new(3), Some(u32::MAX));
        let ends = ([10, 0, 0, 1], 1000).into();
        let at = |us| generator.initial(Instant::ZERO + Duration::from_micros(us), ends, ends);
        assert_eq!((at(0).iss, at(8).iss), (u32::MAX, 1));
        assert_eq!(at(0).ts_offset, at(8).ts_offset);
    }
}
