//! The interface as the stack sees it: addresses, hardware address, MTU.

use super::Config;
use super::route::covers;
use crate::wire::ethernet::{self, Mac};
use core::net::{IpAddr, Ipv4Addr};

/// What an IPv4 destination is to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// An address of ours.
    Own,
    /// A broadcast address of a subnet of ours, or 255.255.255.255.
    Broadcast,
    /// A multicast group.
    Multicast,
    /// Anybody else.
    Other,
}

/// The interface.
#[derive(Debug)]
pub struct Interface {
    /// Our addresses with the lengths of their subnets' prefixes.
    pub addresses: Vec<(IpAddr, u8)>,
    /// Our hardware address.
    pub mac: Mac,
    /// Largest IP packet in bytes, as far as a frame holds it.
    pub mtu: usize,
    /// Bytes of the link's header: 14, or 0 where frames are IP packets.
    pub link_len: usize,
    /// The first IPv4 address for the short way in; zero, which is nobody's, where
    /// there is none or no Ethernet.
    pub(super) quick_own: u32,
    /// The hardware address as the short ways in read one; none that can be read where
    /// there is no address for them.
    pub(super) quick_mac: u64,
    /// The IPv4 addresses once more, as the packet path compares them.
    v4: Vec<Subnet>,
}

#[derive(Debug)]
struct Subnet {
    own: u32,
    /// Bits of the network.
    mask: u32,
    /// The network has broadcast addresses: its prefix is 30 bits or less.
    has_broadcast: bool,
}

impl Subnet {
    fn new(own: Ipv4Addr, prefix: u8) -> Self {
        let mask = !u32::MAX.checked_shr(prefix.into()).unwrap_or(0);
        Self { own: own.to_bits(), mask, has_broadcast: prefix < 31 }
    }

    /// RFC 1122, 3.3.6: all ones in the host's part, or (obsolete) all zeros.
    #[inline(always)]
    fn is_broadcast(&self, ip: u32) -> bool {
        let host = ip & !self.mask;
        (ip ^ self.own) & self.mask == 0 && (host == 0 || host == !self.mask) && self.has_broadcast
    }
}

/// What no hardware address is read as: the lower bytes of the word are zero.
const NO_MAC: u64 = 1;

/// A hardware address in the upper bytes of a word, in the order of the wire.
fn quick_mac(mac: Mac) -> u64 {
    let [a, b, c, d, e, f] = mac.0;
    u64::from_le_bytes([0, 0, a, b, c, d, e, f])
}

impl Interface {
    /// The interface of a configuration.
    pub fn new(config: &Config) -> Self {
        let mut interface = Self {
            addresses: Vec::new(),
            mac: config.mac,
            mtu: config.mtu.clamp(68, 65_535),
            link_len: if config.raw_ip { 0 } else { ethernet::HEADER_LEN },
            quick_own: 0,
            quick_mac: NO_MAC,
            v4: Vec::new(),
        };
        interface.set_addresses(&config.addresses);
        interface
    }

    /// Replaces the addresses.
    pub fn set_addresses(&mut self, addresses: &[(IpAddr, u8)]) {
        self.addresses.clear();
        self.addresses.extend_from_slice(addresses);
        self.v4.clear();
        self.v4.extend(addresses.iter().filter_map(|&(a, prefix)| match a {
            IpAddr::V4(a) => Some(Subnet::new(a, prefix)),
            IpAddr::V6(_) => None,
        }));
        let first = self.v4.first().filter(|_| self.link_len == ethernet::HEADER_LEN);
        self.quick_own = first.map_or(0, |s| s.own);
        self.set_mac(self.mac);
    }

    /// Replaces the hardware address.
    pub fn set_mac(&mut self, mac: Mac) {
        self.mac = mac;
        self.quick_mac = if self.quick_own == 0 { NO_MAC } else { quick_mac(mac) };
    }

    /// True for one of the interface's own addresses.
    #[inline]
    pub fn is_own(&self, ip: IpAddr) -> bool {
        self.addresses.iter().any(|(a, _)| *a == ip)
    }

    /// True for what never leaves the stack: our own addresses and the loopback
    /// ones (127.0.0.0/8, ::1).
    #[inline]
    pub fn is_local(&self, ip: IpAddr) -> bool {
        self.is_own(ip) || ip.is_loopback()
    }

    /// True for an IPv4 address that is neither ours nor a broadcast address of a subnet
    /// of ours.
    #[inline(always)]
    pub(super) fn is_other(&self, ip: u32) -> bool {
        for subnet in &self.v4 {
            if subnet.own == ip || subnet.is_broadcast(ip) {
                return false;
            }
        }
        true
    }

    /// What an IPv4 destination is to us.
    #[inline]
    pub fn class(&self, dst: Ipv4Addr) -> Class {
        let ip = dst.to_bits();
        if self.v4.iter().any(|s| s.own == ip) {
            Class::Own
        } else if ip == u32::MAX || self.v4.iter().any(|s| s.is_broadcast(ip)) {
            Class::Broadcast
        } else if dst.is_multicast() {
            Class::Multicast
        } else {
            Class::Other
        }
    }

    /// True for the all-ones address of a subnet of ours, or its all-zeros one
    /// (RFC 1122, 3.3.6: an obsolete form of it), and not an address of ours.
    /// Subnets of /31 and /32 have none.
    pub fn is_subnet_broadcast(&self, ip: Ipv4Addr) -> bool {
        self.class(ip) == Class::Broadcast && !ip.is_broadcast()
    }

    /// The address of ours, and its prefix, whose subnet `ip` is in: the longest.
    pub fn subnet_of(&self, ip: IpAddr) -> Option<(IpAddr, u8)> {
        let matching = self.addresses.iter().filter(|&&(a, prefix)| covers(a, prefix, ip));
        // The first of equally long ones.
        matching.copied().reduce(|best, a| if a.1 > best.1 { a } else { best })
    }

    /// The first address of the family.
    pub fn primary(&self, v6: bool) -> Option<IpAddr> {
        self.addresses.iter().map(|(a, _)| *a).find(|a| a.is_ipv6() == v6)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations_are_told_apart() {
        let i = Interface::new(&Config {
            addresses: vec![
                ("10.0.0.1".parse().unwrap(), 24),
                ("10.2.0.1".parse().unwrap(), 31),
                ("fe80::1".parse().unwrap(), 64),
            ],
            ..Config::default()
        });
        let class = |s: &str| i.class(s.parse().unwrap());
        assert_eq!(class("10.0.0.1"), Class::Own);
        assert_eq!(class("10.2.0.1"), Class::Own);
        assert_eq!(class("10.0.0.255"), Class::Broadcast);
        assert_eq!(class("10.0.0.0"), Class::Broadcast);
        assert_eq!(class("255.255.255.255"), Class::Broadcast);
        assert_eq!(class("10.2.0.0"), Class::Other);
        assert_eq!(class("224.0.0.1"), Class::Multicast);
        assert_eq!(class("10.0.0.2"), Class::Other);
        assert!(i.is_own("fe80::1".parse().unwrap()));
        let other = |s: &str| i.is_other(s.parse::<Ipv4Addr>().unwrap().to_bits());
        assert!(other("10.2.0.0") && other("10.0.0.2"));
        assert!(!other("10.0.0.1") && !other("10.2.0.1") && !other("10.0.0.255") && !other("10.0.0.0"));
    }
}
