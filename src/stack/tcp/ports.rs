//! Local ports: who holds which, the rules of `bind`, and the choice of
//! ephemeral ports (RFC 6056, 3.3.4: a keyed hash of the destination plus a
//! counter, so that ports neither repeat soon nor can be guessed).

use super::hash::{self, FlowKey, Keyed};
use crate::errno::{Errno, Result};
use crate::rng::Rng;
use core::net::{IpAddr, SocketAddr};
use hashbrown::HashMap;

/// Counters of RFC 6056's algorithm 4: flows whose keys differ draw from
/// different ones, so that one busy destination does not show in the others.
const COUNTERS: usize = 64;

/// What a socket's SO_REUSEADDR and SO_REUSEPORT say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reuse {
    /// SO_REUSEADDR.
    pub addr: bool,
    /// SO_REUSEPORT.
    pub port: bool,
}

/// The number of a bind, until it is undone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BindId(u32);

#[derive(Clone, Copy, Debug)]
struct Bind {
    addr: IpAddr,
    port: u16,
    reuse: Reuse,
    listening: bool,
}

/// Use of one port by binds, connections and TIME-WAIT entries.
#[derive(Clone, Copy, Debug, Default)]
struct Use {
    users: u32,
    /// Connections among them whose socket did not set SO_REUSEADDR.
    no_addr: u32,
    /// The same for SO_REUSEPORT.
    no_port: u32,
    /// The same for either.
    neither: u32,
}

impl Use {
    /// The counts that a connection of these options is in.
    fn counts(&mut self, reuse: Reuse) -> impl Iterator<Item = &mut u32> {
        let Self { no_addr, no_port, neither, .. } = self;
        let addr = (!reuse.addr).then_some(no_addr);
        let port = (!reuse.port).then_some(no_port);
        let both = (!reuse.addr && !reuse.port).then_some(neither);
        addr.into_iter().chain(port).chain(both)
    }

    /// True where a connection stands in the way of a bind: each has to share an
    /// option with it.
    fn refuses(&self, reuse: Reuse, connections: u32) -> bool {
        match (reuse.addr, reuse.port) {
            (false, false) => connections > 0,
            (true, false) => self.no_addr > 0,
            (false, true) => self.no_port > 0,
            (true, true) => self.neither > 0,
        }
    }
}

/// One core's table of local TCP ports.
#[derive(Debug)]
pub struct Ports {
    uses: Vec<Use>,
    binds: Vec<Option<Bind>>,
    free: Vec<u32>,
    by_port: HashMap<u16, Vec<u32>, Keyed>,
    /// Addresses under which a port was held at the guard.
    held: HashMap<u16, Vec<IpAddr>, Keyed>,
    released: Vec<(IpAddr, u16)>,
    key: Keyed,
    counters: [u32; COUNTERS],
    range: (u16, u16),
}

impl Ports {
    /// An empty table that draws ephemeral ports from `range`, both ends included.
    pub fn new(range: (u16, u16), rng: &mut Rng) -> Self {
        let key = Keyed::new(rng.key());
        let low = range.0.max(1);
        Self {
            uses: vec![Use::default(); 1 << 16],
            binds: Vec::new(),
            free: Vec::new(),
            by_port: HashMap::with_hasher(key),
            held: HashMap::with_hasher(key),
            released: Vec::new(),
            key,
            counters: core::array::from_fn(|_| rng.next_u32()),
            range: (low, range.1.max(low)),
        }
    }

    /// Binds to an address and port by the rules of Linux: an overlapping bind
    /// is allowed where both sides set SO_REUSEADDR and the other does not
    /// listen, or both set SO_REUSEPORT; connections and TIME-WAIT entries of the
    /// port stand in the way unless one of the two is set on both sides. Port 0
    /// takes any free port of the ephemeral range.
    ///
    /// # Errors
    /// `EADDRINUSE`.
    pub fn bind(&mut self, addr: IpAddr, port: u16, reuse: Reuse) -> Result<(BindId, u16)> {
        let port = match port {
            0 => self.pick(addr).ok_or(Errno::EADDRINUSE)?,
            port if self.conflicts(addr, port, reuse) => return Err(Errno::EADDRINUSE),
            port => port,
        };
        let bind = Some(Bind { addr, port, reuse, listening: false });
        let id = match self.free.pop() {
            Some(id) => {
                self.binds[id as usize] = bind;
                id
            }
            None => {
                self.binds.push(bind);
                self.binds.len() as u32 - 1
            }
        };
        self.by_port.entry(port).or_default().push(id);
        self.uses[usize::from(port)].users += 1;
        Ok((BindId(id), port))
    }

    fn conflicts(&self, addr: IpAddr, port: u16, reuse: Reuse) -> bool {
        let others = self.by_port.get(&port).map_or(&[][..], Vec::as_slice);
        let bound = others.iter().filter_map(|&id| self.binds[id as usize]).any(|other| {
            let both_addr = reuse.addr && other.reuse.addr && !other.listening;
            overlap(addr, other.addr) && !both_addr && !(reuse.port && other.reuse.port)
        });
        let usage = self.uses[usize::from(port)];
        let connections = usage.users - others.len() as u32;
        bound || usage.refuses(reuse, connections)
    }

    /// A port of the ephemeral range that nothing uses; by chance where it begins.
    fn pick(&mut self, addr: IpAddr) -> Option<u16> {
        let offset = hash::of(&self.key, &addr) as u32;
        self.search(offset, |ports, port| ports.uses[usize::from(port)].users == 0)
    }

    fn search(&mut self, offset: u32, free: impl Fn(&Self, u16) -> bool) -> Option<u16> {
        let (low, high) = self.range;
        let span = u32::from(high - low) + 1;
        let counter = offset as usize % COUNTERS;
        for _ in 0..span {
            let next = offset.wrapping_add(self.counters[counter]) % span;
            self.counters[counter] = self.counters[counter].wrapping_add(1);
            let port = low + next as u16;
            if free(self, port) {
                return Some(port);
            }
        }
        None
    }

    /// A port for a connection from `local` to `remote`, of which `taken` says
    /// whether the 4-tuple is in use. Ports that a program bound are left out.
    pub fn choose(
        &mut self,
        local: IpAddr,
        remote: SocketAddr,
        taken: impl Fn(u16) -> bool,
    ) -> Option<u16> {
        let offset = self.key.flow(&FlowKey::new(local, 0, remote.ip(), remote.port())) as u32;
        self.search(offset, |ports, port| !ports.is_bound(port) && !taken(port))
    }

    fn is_bound(&self, port: u16) -> bool {
        self.in_use(port) && self.by_port.contains_key(&port)
    }

    /// The bind begins to listen, or ends to.
    ///
    /// # Errors
    /// `EADDRINUSE`, if another socket of an overlapping bind listens already and
    /// not both set SO_REUSEPORT.
    pub fn set_listening(&mut self, id: BindId, on: bool) -> Result<()> {
        let Some(me) = self.binds[id.0 as usize] else { return Err(Errno::EINVAL) };
        let others = self.by_port.get(&me.port).map_or(&[][..], Vec::as_slice);
        let taken = others.iter().filter(|&&o| o != id.0).any(|&o| {
            self.binds[o as usize].is_some_and(|other| {
                other.listening
                    && overlap(me.addr, other.addr)
                    && !(me.reuse.port && other.reuse.port)
            })
        });
        if on && taken {
            return Err(Errno::EADDRINUSE);
        }
        self.binds[id.0 as usize] = Some(Bind { listening: on, ..me });
        Ok(())
    }

    /// The socket's reuse options changed after it was bound.
    pub fn set_reuse(&mut self, id: BindId, reuse: Reuse) {
        if let Some(bind) = &mut self.binds[id.0 as usize] {
            bind.reuse = reuse;
        }
    }

    /// Undoes a bind.
    pub fn unbind(&mut self, id: BindId) {
        let Some(bind) = self.binds[id.0 as usize].take() else { return };
        self.free.push(id.0);
        if let Some(list) = self.by_port.get_mut(&bind.port) {
            list.retain(|&o| o != id.0);
            if list.is_empty() {
                self.by_port.remove(&bind.port);
            }
        }
        self.drop_user(bind.port);
    }

    /// A connection or TIME-WAIT entry begins to use the port.
    pub fn add_connection(&mut self, port: u16, reuse: Reuse) {
        let usage = &mut self.uses[usize::from(port)];
        usage.users += 1;
        usage.counts(reuse).for_each(|n| *n += 1);
    }

    /// A connection or TIME-WAIT entry is gone.
    pub fn remove_connection(&mut self, port: u16, reuse: Reuse) {
        self.uses[usize::from(port)].counts(reuse).for_each(|n| *n -= 1);
        self.drop_user(port);
    }

    fn drop_user(&mut self, port: u16) {
        let usage = &mut self.uses[usize::from(port)];
        usage.users -= 1;
        if usage.users == 0
            && !self.held.is_empty()
            && let Some(addrs) = self.held.remove(&port)
        {
            self.released.extend(addrs.into_iter().map(|a| (a, port)));
        }
    }

    /// True where only binds use ports.
    pub fn is_bare(&self) -> bool {
        let users: u32 = self.uses.iter().map(|u| u.users).sum();
        users as usize == self.binds.iter().flatten().count()
    }

    /// True while a bind, a connection or a TIME-WAIT entry uses the port.
    pub fn in_use(&self, port: u16) -> bool {
        self.uses[usize::from(port)].users > 0
    }

    /// True where the guard was not yet asked for this port under this address.
    pub fn needs_hold(&self, addr: IpAddr, port: u16) -> bool {
        self.held.get(&port).is_none_or(|held| !held.contains(&addr))
    }

    /// The guard agreed; it is told when the port's last user is gone.
    pub fn note_held(&mut self, addr: IpAddr, port: u16) {
        self.held.entry(port).or_default().push(addr);
    }

    /// True where the guard is to be told of released ports.
    #[inline]
    pub fn has_released(&self) -> bool {
        !self.released.is_empty()
    }

    /// The ports whose last user went since the last call.
    pub fn take_released(&mut self) -> impl Iterator<Item = (IpAddr, u16)> + '_ {
        self.released.drain(..)
    }

    /// The range of ephemeral ports, both ends included.
    pub fn range(&self) -> (u16, u16) {
        self.range
    }
}

/// True where a packet could be for both addresses.
fn overlap(a: IpAddr, b: IpAddr) -> bool {
    a == b
        || a.is_unspecified() && (a.is_ipv6() || b.is_ipv4())
        || b.is_unspecified() && (b.is_ipv6() || a.is_ipv4())
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::Ipv4Addr;

    const ANY: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    const ONE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
    const TWO: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));
    const NO: Reuse = Reuse { addr: false, port: false };
    const ADDR: Reuse = Reuse { addr: true, port: false };
    const PORT: Reuse = Reuse { addr: false, port: true };

    fn ports(range: (u16, u16)) -> Ports {
        Ports::new(range, &mut Rng::new(1))
    }

    #[test]
    fn overlapping_binds_conflict_and_others_do_not() {
        let mut p = ports((1000, 1010));
        p.bind(ONE, 80, NO).unwrap();
        assert_eq!(p.bind(ONE, 80, NO).unwrap_err(), Errno::EADDRINUSE);
        assert_eq!(p.bind(ANY, 80, NO).unwrap_err(), Errno::EADDRINUSE);
        p.bind(TWO, 80, NO).unwrap();
        let (any, _) = p.bind(ANY, 81, NO).unwrap();
        assert_eq!(p.bind(ONE, 81, ADDR).unwrap_err(), Errno::EADDRINUSE);
        p.unbind(any);
        p.bind(ONE, 81, ADDR).unwrap();
    }

    #[test]
    fn reuse_addr_lets_two_bind_but_one_listen() {
        let mut p = ports((1000, 1010));
        let (a, _) = p.bind(ANY, 80, ADDR).unwrap();
        let (b, _) = p.bind(ANY, 80, ADDR).unwrap();
        p.set_listening(a, true).unwrap();
        assert_eq!(p.set_listening(b, true).unwrap_err(), Errno::EADDRINUSE);
        assert_eq!(p.bind(ONE, 80, ADDR).unwrap_err(), Errno::EADDRINUSE);
        p.set_listening(a, false).unwrap();
        p.set_listening(b, true).unwrap();
    }

    #[test]
    fn reuse_port_lets_many_listen() {
        let mut p = ports((1000, 1010));
        let (a, _) = p.bind(ONE, 80, PORT).unwrap();
        let (b, _) = p.bind(ONE, 80, PORT).unwrap();
        p.set_listening(a, true).unwrap();
        p.set_listening(b, true).unwrap();
        assert_eq!(p.bind(ONE, 80, ADDR).unwrap_err(), Errno::EADDRINUSE);
    }

    #[test]
    fn a_connection_that_is_left_stands_in_the_way_without_reuse_addr() {
        let mut p = ports((1000, 1010));
        let (a, _) = p.bind(ANY, 80, ADDR).unwrap();
        p.add_connection(80, ADDR);
        p.unbind(a);
        assert_eq!(p.bind(ANY, 80, NO).unwrap_err(), Errno::EADDRINUSE);
        p.bind(ANY, 80, ADDR).unwrap();
        p.add_connection(90, NO);
        assert_eq!(p.bind(ANY, 90, ADDR).unwrap_err(), Errno::EADDRINUSE);
        p.remove_connection(90, NO);
        p.bind(ANY, 90, NO).unwrap();
    }

    #[test]
    fn every_ephemeral_port_is_found_and_then_none() {
        let mut p = ports((5000, 5009));
        let remote = SocketAddr::new(TWO, 80);
        let mut seen = Vec::new();
        while let Some(port) = p.choose(ONE, remote, |port| seen.contains(&port)) {
            seen.push(port);
        }
        seen.sort_unstable();
        assert_eq!(seen, (5000..=5009).collect::<Vec<_>>());
        for _ in 0..10 {
            p.bind(ANY, 0, NO).unwrap();
        }
        assert_eq!(p.bind(ANY, 0, NO).unwrap_err(), Errno::EADDRINUSE);
        assert_eq!(p.choose(ONE, remote, |_| false), None);
    }

    #[test]
    fn the_guard_hears_of_a_port_when_its_last_user_goes() {
        let mut p = ports((5000, 5009));
        let (a, port) = p.bind(ONE, 80, NO).unwrap();
        assert!(p.needs_hold(ONE, port));
        p.note_held(ONE, port);
        assert!(!p.needs_hold(ONE, port) && p.needs_hold(TWO, port));
        p.add_connection(port, NO);
        p.unbind(a);
        assert!(!p.has_released() && p.in_use(port));
        p.remove_connection(port, NO);
        assert_eq!(p.take_released().collect::<Vec<_>>(), [(ONE, 80)]);
        assert!(!p.in_use(port));
    }
}
