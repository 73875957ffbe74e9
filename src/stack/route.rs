//! Routes: where a packet goes next, and from which address.

use super::interface::Interface;
use crate::errno::{Errno, Result};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Destinations whose first `prefix` bits are those of this address.
    pub destination: IpAddr,
    /// Bits that count, 0 to 32 or 128.
    pub prefix: u8,
    /// The next hop; `None`: the destination is on the link.
    pub gateway: Option<IpAddr>,
    /// The source that packets get where the program chose none.
    pub source: Option<IpAddr>,
    /// Among equal prefixes the lowest wins.
    pub metric: u32,
    /// Largest packet on this route, if less than the interface's.
    pub mtu: Option<usize>,
}

/// What the routes say about a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path {
    /// Source address for who has none.
    pub source: IpAddr,
    /// Whose hardware address the packet goes to.
    pub next_hop: IpAddr,
    /// Largest IP packet in bytes that fits the link (and a frame).
    pub mtu: usize,
    /// The destination is an address of ours: packets go to the loop queue
    /// ([`Core::loop_tx`](super::Core::loop_tx)).
    pub is_local: bool,
    /// The destination is a broadcast address.
    pub is_broadcast: bool,
}

/// True where the first `prefix` bits of both are the same.
#[inline]
pub fn covers(net: IpAddr, prefix: u8, ip: IpAddr) -> bool {
    match (net, ip) {
        (IpAddr::V4(net), IpAddr::V4(ip)) => {
            let differ = net.to_bits() ^ ip.to_bits();
            differ.checked_shr(32 - u32::from(prefix.min(32))).unwrap_or(0) == 0
        }
        (IpAddr::V6(net), IpAddr::V6(ip)) => {
            let differ = net.to_bits() ^ ip.to_bits();
            differ.checked_shr(128 - u32::from(prefix.min(128))).unwrap_or(0) == 0
        }
        _ => false,
    }
}

/// The routes, longest prefix first, then lowest metric.
#[derive(Debug, Default)]
pub struct Table {
    routes: Vec<Route>,
}

impl Table {
    /// Replaces all routes; what is beyond `max` (the least specific) is left out.
    pub fn set(&mut self, routes: &[Route], max: usize) {
        self.routes.clear();
        self.routes.extend_from_slice(routes);
        self.routes.sort_by_key(|r| (core::cmp::Reverse(r.prefix), r.metric));
        self.routes.truncate(max);
    }

    /// All routes, in the order they are tried.
    pub fn iter(&self) -> impl Iterator<Item = &Route> {
        self.routes.iter()
    }

    fn find(&self, ip: IpAddr) -> Option<&Route> {
        self.routes.iter().find(|r| covers(r.destination, r.prefix, ip))
    }

    /// The path to `dst`. Subnets of the interface's addresses count as routes
    /// where no other is more specific.
    ///
    /// # Errors
    /// `ENETUNREACH`: no route, or no address of that family.
    pub fn path(&self, interface: &Interface, dst: IpAddr) -> Result<Path> {
        let mtu = interface.mtu;
        let path = |source, next_hop, mtu, is_local, is_broadcast| {
            Path { source, next_hop, mtu, is_local, is_broadcast }
        };
        if interface.is_local(dst) {
            // Frames on the way to ourselves are as large as on the way out.
            return Ok(path(dst, dst, mtu, true, false));
        }
        let subnet = interface.subnet_of(dst);
        let primary = interface.primary(dst.is_ipv6());
        let none = match dst {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        if let IpAddr::V4(v4) = dst
            && (v4.is_broadcast() || interface.is_subnet_broadcast(v4))
        {
            let source = subnet.map(|(a, _)| a).or(primary).unwrap_or(none);
            return Ok(path(source, dst, mtu, false, true));
        }
        let route = self.find(dst);
        let own_prefix = subnet.map_or(0, |(_, prefix)| prefix);
        match (route, subnet) {
            (Some(r), _) if subnet.is_none() || r.prefix >= own_prefix => {
                let next_hop = r.gateway.unwrap_or(dst);
                let source = (r.source.filter(|s| s.is_ipv4() == dst.is_ipv4()))
                    .or_else(|| interface.subnet_of(next_hop).map(|(a, _)| a))
                    .or(primary)
                    .ok_or(Errno::ENETUNREACH)?;
                Ok(path(source, next_hop, r.mtu.map_or(mtu, |m| m.min(mtu)), false, false))
            }
            (_, Some((source, _))) => Ok(path(source, dst, mtu, false, false)),
            (None, None) if dst.is_multicast() => {
                Ok(path(primary.ok_or(Errno::ENETUNREACH)?, dst, mtu, false, false))
            }
            _ => Err(Errno::ENETUNREACH),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stack::Config;

    fn ip(s: &str) -> IpAddr {
        s.parse().unwrap()
    }

    fn route(net: &str, prefix: u8, gateway: Option<&str>) -> Route {
        Route {
            destination: ip(net),
            prefix,
            gateway: gateway.map(ip),
            source: None,
            metric: 0,
            mtu: None,
        }
    }

    fn interface() -> Interface {
        Interface::new(&Config {
            addresses: vec![(ip("10.0.0.1"), 24), (ip("192.168.7.1"), 16)],
            ..Config::default()
        })
    }

    #[test]
    fn the_longest_prefix_wins_then_the_lowest_metric() {
        let mut t = Table::default();
        let mut worse = route("10.9.0.0", 16, Some("10.0.0.3"));
        worse.metric = 5;
        t.set(
            &[
                route("0.0.0.0", 0, Some("10.0.0.254")),
                worse,
                route("10.9.0.0", 16, Some("192.168.7.2")),
                route("10.9.9.0", 24, Some("10.0.0.9")),
            ],
            10,
        );
        let i = interface();
        assert_eq!(t.path(&i, ip("10.9.9.1")).unwrap().next_hop, ip("10.0.0.9"));
        let p = t.path(&i, ip("10.9.8.1")).unwrap();
        assert_eq!((p.next_hop, p.source), (ip("192.168.7.2"), ip("192.168.7.1")));
        let p = t.path(&i, ip("8.8.8.8")).unwrap();
        assert_eq!((p.next_hop, p.source), (ip("10.0.0.254"), ip("10.0.0.1")));
        // On the link, though a default route is there.
        let p = t.path(&i, ip("192.168.200.1")).unwrap();
        assert_eq!((p.next_hop, p.source), (ip("192.168.200.1"), ip("192.168.7.1")));
    }

    #[test]
    fn own_addresses_are_local_and_broadcasts_are_told() {
        let t = Table::default();
        let i = interface();
        let p = t.path(&i, ip("192.168.7.1")).unwrap();
        assert!(p.is_local && p.source == ip("192.168.7.1"));
        assert!(t.path(&i, ip("127.0.0.1")).unwrap().is_local);
        assert!(t.path(&i, ip("255.255.255.255")).unwrap().is_broadcast);
        assert!(t.path(&i, ip("10.0.0.255")).unwrap().is_broadcast);
        assert_eq!(t.path(&i, ip("10.1.0.1")), Err(Errno::ENETUNREACH));
        assert_eq!(t.path(&i, ip("fe80::1")), Err(Errno::ENETUNREACH));
        assert_eq!(t.path(&i, ip("224.0.0.9")).unwrap().source, ip("10.0.0.1"));
    }

    #[test]
    fn the_table_is_bounded_and_keeps_the_most_specific() {
        let mut t = Table::default();
        let routes: Vec<_> = (0..=20).map(|p| route("0.0.0.0", p, Some("10.0.0.254"))).collect();
        t.set(&routes, 5);
        assert_eq!(t.iter().map(|r| r.prefix).collect::<Vec<_>>(), [20, 19, 18, 17, 16]);
    }
}
