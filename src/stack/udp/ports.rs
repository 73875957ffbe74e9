//! Who holds which UDP port: the rules of bind, and finding the socket of a
//! received datagram.

use crate::rng::Rng;
use crate::stack::tcp::hash::{FlowKey, Keyed};
use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use hashbrown::HashTable;

/// A socket's place in the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub local: SocketAddr,
    pub peer: Option<SocketAddr>,
    pub reuse_addr: bool,
    pub reuse_port: bool,
}

/// Sockets of one address and port that are not connected, the latest last.
#[derive(Debug)]
struct Group {
    addr: IpAddr,
    members: Vec<u32>,
    /// The latest member set SO_REUSEPORT.
    shares: bool,
}

/// The only socket of a port, over IPv4: for it nothing else has to be looked up.
#[derive(Clone, Copy, Debug)]
struct Sole {
    id: u32,
    /// Zero: any address.
    local: u32,
    peer: Option<(u32, u16)>,
}

#[derive(Debug, Default)]
struct Port {
    sole: Option<Sole>,
    /// Everybody on the port, connected or not.
    holders: Vec<(u32, Place)>,
    groups: Vec<Group>,
    connected: usize,
}

impl Port {
    fn find_sole(&mut self) {
        self.sole = match self.holders[..] {
            [(id, Place { local: SocketAddr::V4(local), peer, .. })] => {
                let peer = match peer {
                    Some(SocketAddr::V4(peer)) => Some(Some((peer.ip().to_bits(), peer.port()))),
                    Some(SocketAddr::V6(_)) => None,
                    None => Some(None),
                };
                peer.map(|peer| Sole { id, local: local.ip().to_bits(), peer })
            }
            _ => None,
        };
    }
}

#[inline]
fn flow(local: SocketAddr, peer: SocketAddr) -> FlowKey {
    FlowKey::new(local.ip(), local.port(), peer.ip(), peer.port())
}

/// The tables.
#[derive(Debug)]
pub(super) struct Ports {
    /// Number of a port's entry in `entries` plus one; zero: nobody is there.
    index: Vec<u16>,
    entries: Vec<Port>,
    free: Vec<u16>,
    /// Connected sockets by both addresses and ports.
    connected: HashTable<(FlowKey, u32)>,
    keyed: Keyed,
}

impl Ports {
    pub fn new(rng: &mut Rng) -> Self {
        Self {
            index: vec![0; 1 << 16],
            entries: Vec::new(),
            free: Vec::new(),
            connected: HashTable::new(),
            keyed: Keyed::new(rng.key()),
        }
    }

    #[inline(always)]
    fn port(&self, port: u16) -> Option<&Port> {
        match self.index[usize::from(port)] {
            0 => None,
            n => Some(&self.entries[usize::from(n) - 1]),
        }
    }

    fn port_mut(&mut self, port: u16) -> &mut Port {
        let index = &mut self.index[usize::from(port)];
        if *index == 0 {
            *index = self.free.pop().unwrap_or_else(|| {
                self.entries.push(Port::default());
                self.entries.len() as u16
            });
        }
        &mut self.entries[usize::from(*index) - 1]
    }

    /// True where nobody is on the port.
    pub fn is_free(&self, port: u16) -> bool {
        self.index[usize::from(port)] == 0
    }

    /// Whether a bind to `place` would be refused: an overlapping holder is there,
    /// and not both set SO_REUSEADDR or both SO_REUSEPORT (as Linux).
    pub fn conflicts(&self, place: &Place) -> bool {
        let Some(port) = self.port(place.local.port()) else { return false };
        let mine = place.local.ip();
        port.holders.iter().any(|(_, other)| {
            let theirs = other.local.ip();
            let overlap = mine.is_ipv4() == theirs.is_ipv4()
                && (mine == theirs || mine.is_unspecified() || theirs.is_unspecified());
            let shared = (place.reuse_addr && other.reuse_addr)
                || (place.reuse_port && other.reuse_port);
            overlap && !shared
        })
    }

    /// Adds a socket.
    pub fn insert(&mut self, id: u32, place: Place) {
        let local = place.local;
        let port = self.port_mut(local.port());
        port.holders.push((id, place));
        match place.peer {
            Some(peer) => {
                port.connected += 1;
                let (keyed, flow) = (&self.keyed, flow(local, peer));
                self.connected.insert_unique(keyed.flow(&flow), (flow, id), |(f, _)| keyed.flow(f));
            }
            None => {
                let shares = place.reuse_port;
                match port.groups.iter_mut().find(|g| g.addr == local.ip()) {
                    Some(group) => {
                        group.members.push(id);
                        group.shares = shares;
                    }
                    None => {
                        port.groups.push(Group { addr: local.ip(), members: vec![id], shares });
                    }
                }
            }
        }
        self.port_mut(local.port()).find_sole();
    }

    /// Takes a socket out that was inserted with this place.
    pub fn remove(&mut self, id: u32, place: &Place) {
        let number = place.local.port();
        let port = self.port_mut(number);
        port.holders.retain(|(i, _)| *i != id);
        if let Some(peer) = place.peer {
            port.connected -= 1;
            let hash = self.keyed.flow(&flow(place.local, peer));
            if let Ok(entry) = self.connected.find_entry(hash, |(_, i)| *i == id) {
                entry.remove();
            }
        } else {
            for group in &mut port.groups {
                group.members.retain(|i| *i != id);
                let latest = group.members.last();
                group.shares = port.holders.iter().any(|(i, p)| Some(i) == latest && p.reuse_port);
            }
            port.groups.retain(|g| !g.members.is_empty());
        }
        let index = &mut self.index[usize::from(number)];
        let port = &mut self.entries[usize::from(*index) - 1];
        port.find_sole();
        if port.holders.is_empty() {
            *port = Port::default();
            self.free.push(*index);
            *index = 0;
        }
    }

    /// The socket for a datagram from `peer` to `local`: the one connected to
    /// just that peer, else one bound to the address, else one bound to any.
    #[inline]
    pub fn find(&self, local: SocketAddr, peer: SocketAddr) -> Option<u32> {
        let port = self.port(local.port())?;
        if port.connected > 0
            && let Some(id) = self.find_connected(local, peer)
        {
            return Some(id);
        }
        let ip = local.ip();
        let any = |g: &&Group| g.addr.is_unspecified() && g.addr.is_ipv4() == ip.is_ipv4();
        let group = match &port.groups[..] {
            [only] => Some(only).filter(|g| g.addr == ip || any(g)),
            all => all.iter().find(|g| g.addr == ip).or_else(|| all.iter().find(any)),
        };
        let group = group?;
        match &group.members[..] {
            [only] => Some(*only),
            _ => Some(self.choose(group, local, peer)),
        }
    }

    /// As [`Ports::find`] over IPv4.
    #[inline(always)]
    pub fn find_v4(&self, local: (u32, u16), peer: (u32, u16)) -> Option<u32> {
        match self.port(local.1)?.sole {
            Some(sole) => {
                let exact = sole.local == local.0;
                let takes = match sole.peer {
                    Some(of) => exact && of == peer,
                    None => exact || sole.local == 0,
                };
                takes.then_some(sole.id)
            }
            None => self.find_among(local, peer),
        }
    }

    #[inline(never)]
    fn find_among(&self, local: (u32, u16), peer: (u32, u16)) -> Option<u32> {
        let end = |(ip, port)| SocketAddr::from((Ipv4Addr::from_bits(ip), port));
        self.find(end(local), end(peer))
    }

    /// The socket connected from `local` to `peer`.
    pub fn find_connected(&self, local: SocketAddr, peer: SocketAddr) -> Option<u32> {
        let flow = flow(local, peer);
        self.connected.find(self.keyed.flow(&flow), |(f, _)| *f == flow).map(|(_, id)| *id)
    }

    /// Among several on one address: a group of SO_REUSEPORT shares the peers,
    /// else the latest has all.
    fn choose(&self, group: &Group, local: SocketAddr, peer: SocketAddr) -> u32 {
        let members = &group.members;
        if !group.shares {
            return members[members.len() - 1];
        }
        let hash = self.keyed.flow(&flow(local, peer));
        members[(hash % members.len() as u64) as usize]
    }

    /// Everybody who gets a datagram to a group address: bound to it or to any,
    /// and connected to nobody else.
    pub fn find_all(&self, local: SocketAddr, peer: SocketAddr, out: &mut Vec<u32>) {
        let Some(port) = self.port(local.port()) else { return };
        out.extend(port.holders.iter().filter_map(|(id, place)| {
            let ip = place.local.ip();
            let bound = ip == local.ip() || (ip.is_unspecified() && ip.is_ipv4() == local.is_ipv4());
            (bound && place.peer.is_none_or(|p| p == peer)).then_some(*id)
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn over_ipv4_the_same_socket_is_found_whoever_shares_its_port() {
        let mut rng = Rng::new(5);
        let ips = ["0.0.0.0", "10.0.0.1", "10.0.0.2", "10.0.0.3"].map(|s| s.parse::<Ipv4Addr>().unwrap());
        for _ in 0..300 {
            let mut ports = Ports::new(&mut rng);
            let mut held = Vec::new();
            for id in 0..rng.below(5) {
                let (local, port) = (ips[rng.below(3) as usize], 1 + rng.below(2) as u16);
                let peer = (ips[2 + rng.below(2) as usize], 5 + rng.below(2) as u16);
                let place = Place {
                    local: SocketAddr::from((local, port)),
                    peer: (rng.below(2) == 0).then(|| SocketAddr::from(peer)),
                    reuse_addr: false,
                    reuse_port: rng.below(2) == 0,
                };
                ports.insert(id, place);
                held.push((id, place));
            }
            while let Some((id, place)) = held.pop() {
                for (port, from, at) in [(1, 5, 2), (1, 6, 3), (2, 5, 3), (2, 6, 2), (3, 5, 2)] {
                    for local in &ips[1..3] {
                        let (own, peer) = (SocketAddr::from((*local, port)), SocketAddr::from((ips[at], from)));
                        let short = ports.find_v4((local.to_bits(), port), (ips[at].to_bits(), from));
                        assert_eq!(short, ports.find(own, peer), "{held:?} {id} {place:?} {own} {peer}");
                    }
                }
                ports.remove(id, &place);
            }
            assert_eq!(ports.find_v4((ips[1].to_bits(), 1), (ips[2].to_bits(), 5)), None);
        }
    }
}
