//! Keyed hashes of flows and addresses: who does not know the key cannot choose
//! tuples that fall into one bucket (SipHash-1-3, keyed from the stack's seed).

use crate::rng::sip;
use core::hash::BuildHasher;
use core::net::{IpAddr, SocketAddr};
use siphasher::sip::SipHasher13;

/// The 4-tuple of a connection in a form that compares quickly and is the same
/// for both IP versions: an IPv4 address stands as ::ffff:a.b.c.d, which is never
/// an address of a packet (RFC 4291, 2.5.5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowKey {
    local: [u32; 4],
    remote: [u32; 4],
    ports: u32,
}

#[inline]
fn words(ip: IpAddr) -> [u32; 4] {
    match ip {
        IpAddr::V4(a) => [0, 0, 0xffff, a.to_bits()],
        IpAddr::V6(a) => {
            let v = a.to_bits();
            [(v >> 96) as u32, (v >> 64) as u32, (v >> 32) as u32, v as u32]
        }
    }
}

fn address(words: [u32; 4]) -> IpAddr {
    match words {
        [0, 0, 0xffff, v4] => IpAddr::V4(v4.into()),
        words => IpAddr::V6(words.into_iter().fold(0, |v, w| (v << 32) | u128::from(w)).into()),
    }
}

impl FlowKey {
    /// The key of no connection.
    pub const NONE: Self = Self { local: [0; 4], remote: [0; 4], ports: 0 };

    /// The key of a connection from `local` to `remote` (both of one IP version).
    #[inline]
    pub fn new(local: IpAddr, local_port: u16, remote: IpAddr, remote_port: u16) -> Self {
        let ports = (u32::from(local_port) << 16) | u32::from(remote_port);
        Self { local: words(local), remote: words(remote), ports }
    }

    /// True for the key of this flow over IPv4.
    #[inline(always)]
    pub fn is_v4(&self, local: u32, remote: u32, ports: u32) -> bool {
        self.ports == ports
            && self.remote[3] == remote
            && self.local[2..] == [0xffff, local]
            && self.local[..2] == [0, 0]
    }

    /// The same in few bytes, where it is one over IPv4.
    #[inline]
    pub fn v4(&self) -> Option<FlowV4> {
        let [a, b, c, local] = self.local;
        let v4 = FlowV4 { local, remote: self.remote[3], ports: self.ports };
        ((a, b, c) == (0, 0, 0xffff)).then_some(v4)
    }

    /// Our address and port.
    pub fn local(&self) -> SocketAddr {
        SocketAddr::new(address(self.local), self.local_port())
    }

    /// The peer's address and port.
    pub fn remote(&self) -> SocketAddr {
        SocketAddr::new(address(self.remote), self.ports as u16)
    }

    /// Both ends, into a hash.
    pub fn feed(&self, hash: &mut impl core::hash::Hasher) {
        for word in self.local.iter().chain(&self.remote) {
            hash.write_u32(*word);
        }
        hash.write_u32(self.ports);
    }

    /// Our port.
    #[inline]
    pub fn local_port(&self) -> u16 {
        (self.ports >> 16) as u16
    }
}

/// The key of a flow over IPv4 where many are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowV4 {
    local: u32,
    remote: u32,
    ports: u32,
}

impl From<FlowV4> for FlowKey {
    fn from(v4: FlowV4) -> Self {
        let mapped = |word| [0, 0, 0xffff, word];
        Self { local: mapped(v4.local), remote: mapped(v4.remote), ports: v4.ports }
    }
}

/// The secret key, and the hashes under it.
#[derive(Clone, Copy, Debug)]
pub struct Keyed(u64, u64);

impl Keyed {
    /// From 16 random bytes.
    pub fn new(key: [u8; 16]) -> Self {
        let key = u128::from_le_bytes(key);
        Self(key as u64, (key >> 64) as u64)
    }

    /// The hash of a flow.
    #[inline]
    pub fn flow(&self, k: &FlowKey) -> u64 {
        let pair = |a: u32, b: u32| (u64::from(a) << 32) | u64::from(b);
        let ([a, b, c, d], [e, f, g, h]) = (k.local, k.remote);
        if (a, b, c) == (0, 0, 0xffff) {
            return self.flow_v4(d, h, k.ports);
        }
        self.sip([pair(a, b), pair(c, d), pair(e, f), pair(g, h)], k.ports)
    }

    /// The hash of a flow over IPv4: addresses and ports, 12 bytes.
    #[inline(always)]
    pub fn flow_v4(&self, local: u32, remote: u32, ports: u32) -> u64 {
        self.sip([(u64::from(local) << 32) | u64::from(remote)], ports)
    }

    /// SipHash-1-3: two rounds in all for an IPv4 flow, and three to finish, about 90
    /// instructions.
    #[inline(always)]
    fn sip<const N: usize>(&self, words: [u64; N], last: u32) -> u64 {
        sip::<1, 3, N>((self.0, self.1), words, last)
    }
}

impl BuildHasher for Keyed {
    type Hasher = SipHasher13;
    fn build_hasher(&self) -> SipHasher13 {
        SipHasher13::new_with_keys(self.0, self.1)
    }
}

/// The hash of anything hashable under the key, for rare look-ups.
pub fn of<T: core::hash::Hash>(key: &Keyed, value: &T) -> u64 {
    
    
    key.hash_one(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_keeps_both_ends_of_both_versions() {
        for (a, b) in [("10.0.0.1:80", "10.0.0.2:40000"), ("[fe80::1]:80", "[2001:db8::2]:65535")] {
            let (a, b): (SocketAddr, SocketAddr) = (a.parse().unwrap(), b.parse().unwrap());
            let key = FlowKey::new(a.ip(), a.port(), b.ip(), b.port());
            assert_eq!((key.local(), key.remote()), (a, b));
            assert_eq!(key.local_port(), a.port());
            assert_ne!(key, FlowKey::new(b.ip(), b.port(), a.ip(), a.port()));
            assert_eq!(key.v4().map(FlowKey::from), a.is_ipv4().then_some(key));
        }
    }
}
