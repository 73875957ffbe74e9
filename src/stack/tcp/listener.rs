//! Listening sockets: which one a SYN is for, its SYN queue and its accept
//! queue, both bounded.

use super::hash::{self, Keyed};
use super::ports::Reuse;
use super::cookies;
use super::fast_open::{Early, FastOpenKeys};
use crate::tcp::ConnOptions;
use crate::time::Instant;
use core::net::{IpAddr, SocketAddr};
use std::collections::VecDeque;

/// What a connection takes over from the socket that accepts it.
#[derive(Clone, Debug)]
pub struct Inherit {
    /// Options of the connection.
    pub options: ConnOptions,
    /// Time to live.
    pub ttl: u8,
    /// Type of service.
    pub tos: u8,
    /// SO_REUSEADDR and SO_REUSEPORT.
    pub reuse: Reuse,
    /// TCP_DEFER_ACCEPT: how often the SYN-ACK goes out before a bare ACK counts.
    pub defer_accept: u8,
    /// TCP_FASTOPEN: connections that the program may have before their handshake
    /// is over; 0: none.
    pub fast_open: u32,
    /// TCP_FASTOPEN_KEY: keys of the listener's own.
    pub fast_open_keys: Option<FastOpenKeys>,
    /// TCP_FASTOPEN_NO_COOKIE: data from SYNs is taken without a cookie.
    pub fast_open_no_cookie: bool,
}

#[cfg(test)]
impl Inherit {
    /// What a socket has that was asked for nothing.
    pub(in crate::stack) fn plain() -> Self {
        Self {
            options: ConnOptions::default(),
            ttl: 64,
            tos: 0,
            reuse: Reuse::default(),
            defer_accept: 0,
            fast_open: 0,
            fast_open_keys: None,
            fast_open_no_cookie: false,
        }
    }
}

/// A listening socket.
#[derive(Debug)]
pub struct Listener {
    /// Where it listens; the address may be unspecified.
    pub addr: SocketAddr,
    /// The socket's number, for events.
    pub token: u32,
    /// What accepted connections start with.
    pub inherit: Inherit,
    /// Bound of the accept queue; as in Linux one more fits.
    pub(super) backlog: usize,
    /// Bound of the SYN queue, whatever the backlog.
    max_half_open: usize,
    /// When the last cookie was sent.
    cookie_at: Option<Instant>,
    /// Tells it from others of the same number.
    pub serial: u32,
    /// Connections whose handshake is not over, and which the program has.
    pub early: Early,
    /// Connections in SYN-RECEIVED.
    half_open: Vec<u32>,
    /// Connections that wait for `accept`, oldest first.
    ready: VecDeque<u32>,
}

impl Listener {
    /// A listener with empty queues.
    pub fn new(addr: SocketAddr, token: u32, inherit: Inherit, backlog: usize, max_half_open: usize) -> Self {
        let (half_open, ready) = (Vec::new(), VecDeque::new());
        let early = Early::default();
        Self {
            addr,
            token,
            inherit,
            backlog,
            max_half_open,
            cookie_at: None,
            serial: 0,
            early,
            half_open,
            ready,
        }
    }

    /// True where no SYN is taken into the queue: as in Linux it holds no more
    /// than the accept queue would.
    #[inline]
    pub fn is_syn_queue_full(&self) -> bool {
        self.half_open.len() >= self.max_half_open.min(self.backlog.saturating_add(1))
    }

    /// A SYN was answered with a cookie.
    pub fn note_cookie(&mut self, now: Instant) {
        self.cookie_at = Some(now);
    }

    /// True where the ACK of a cookie may come: nobody need try to guess one
    /// while none are sent.
    pub fn expects_cookie(&self, now: Instant) -> bool {
        self.cookie_at.is_some_and(|at| now.since(at) < cookies::PERIOD + cookies::PERIOD)
    }

    /// True where no connection gets through to `accept`.
    #[inline]
    pub fn is_accept_queue_full(&self) -> bool {
        self.ready.len() > self.backlog
    }

    /// A second `listen` changes the bounds; what is queued stays.
    pub fn set_backlog(&mut self, backlog: usize, max_half_open: usize) {
        (self.backlog, self.max_half_open) = (backlog, max_half_open);
    }

    /// Adds a half-open connection; returns its place.
    pub fn push_half_open(&mut self, conn: u32) -> u32 {
        self.half_open.push(conn);
        self.half_open.len() as u32 - 1
    }

    /// Removes the half-open connection at `place`. The one that takes its place
    /// is returned, if any, to be told.
    pub fn remove_half_open(&mut self, place: u32) -> Option<u32> {
        self.half_open.swap_remove(place as usize);
        self.half_open.get(place as usize).copied()
    }

    /// A connection is through its handshake.
    pub fn push_ready(&mut self, conn: u32) {
        self.ready.push_back(conn);
    }

    /// The connection that has waited longest.
    pub fn pop_ready(&mut self) -> Option<u32> {
        self.ready.pop_front()
    }

    /// Connections that wait for `accept`.
    #[inline]
    pub fn ready_len(&self) -> usize {
        self.ready.len()
    }

    /// The bound of the accept queue.
    pub fn backlog(&self) -> usize {
        self.backlog
    }

    /// Half-open connections.
    pub fn half_open_len(&self) -> usize {
        self.half_open.len()
    }

    /// All connections of both queues, for closing.
    pub fn take_all(&mut self) -> Vec<u32> {
        self.half_open.drain(..).chain(self.ready.drain(..)).collect()
    }
}

/// Those of one port that listen at one address: several are a SO_REUSEPORT group.
#[derive(Debug)]
struct Group {
    addr: IpAddr,
    members: Vec<u32>,
}

/// All listening sockets, by address and port.
#[derive(Debug)]
pub struct Listeners {
    slots: Vec<Option<Listener>>,
    free: Vec<u32>,
    serial: u32,
    /// By port: the number of its place in `ports` plus one; zero: nobody ever was there.
    index: Vec<u32>,
    ports: Vec<Vec<Group>>,
    key: Keyed,
}

impl Listeners {
    /// None yet.
    pub fn new(key: Keyed) -> Self {
        let index = vec![0; 1 << 16];
        Self { slots: Vec::new(), free: Vec::new(), serial: 0, index, ports: Vec::new(), key }
    }

    /// Adds one.
    pub fn insert(&mut self, mut listener: Listener) -> u32 {
        self.serial = self.serial.wrapping_add(1);
        listener.serial = self.serial;
        let addr = listener.addr;
        let id = self.free.pop().unwrap_or(self.slots.len() as u32);
        match self.slots.get_mut(id as usize) {
            Some(slot) => *slot = Some(listener),
            None => self.slots.push(Some(listener)),
        }
        let place = &mut self.index[usize::from(addr.port())];
        if *place == 0 {
            self.ports.push(Vec::new());
            *place = self.ports.len() as u32;
        }
        let groups = &mut self.ports[*place as usize - 1];
        match groups.iter_mut().find(|g| g.addr == addr.ip()) {
            Some(group) => group.members.push(id),
            None => groups.push(Group { addr: addr.ip(), members: vec![id] }),
        }
        id
    }

    /// Takes one away, with its queues.
    pub fn remove(&mut self, id: u32) -> Option<Listener> {
        let listener = self.slots.get_mut(id as usize)?.take()?;
        self.free.push(id);
        let place = self.index[usize::from(listener.addr.port())] as usize;
        if let Some(groups) = place.checked_sub(1).and_then(|at| self.ports.get_mut(at)) {
            groups.iter_mut().for_each(|g| g.members.retain(|&l| l != id));
            groups.retain(|g| !g.members.is_empty());
        }
        Some(listener)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Listener> {
        self.slots.iter().flatten()
    }

    /// The listener of this number.
    #[inline]
    pub fn get(&self, id: u32) -> Option<&Listener> {
        self.slots.get(id as usize)?.as_ref()
    }

    /// The listener of this number, to change.
    #[inline]
    pub fn get_mut(&mut self, id: u32) -> Option<&mut Listener> {
        self.slots.get_mut(id as usize)?.as_mut()
    }

    /// Who listens for connections to this address from that one: the exact
    /// address before the unspecified one; in a SO_REUSEPORT group the same
    /// member for the same peer.
    pub fn find(&self, local: SocketAddr, remote: SocketAddr) -> Option<u32> {
        let place = self.index[usize::from(local.port())] as usize;
        let groups = self.ports.get(place.checked_sub(1)?)?;
        let ip = local.ip();
        let any = |g: &&Group| g.addr.is_unspecified() && g.addr.is_ipv4() == ip.is_ipv4();
        let exact = groups.iter().find(|g| g.addr == ip);
        let members = &exact.or_else(|| groups.iter().find(any))?.members;
        match members[..] {
            [only] => Some(only),
            _ => Some(members[hash::of(&self.key, &(local, remote)) as usize % members.len()]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listener(addr: &str, token: u32) -> Listener {
        let inherit = Inherit::plain();
        Listener::new(addr.parse().unwrap(), token, inherit, 1, 2)
    }

    fn find(l: &Listeners, local: &str, remote: &str) -> Option<u32> {
        l.find(local.parse().unwrap(), remote.parse().unwrap())
    }

    #[test]
    fn the_exact_address_comes_before_any() {
        let mut l = Listeners::new(Keyed::new([7; 16]));
        let any = l.insert(listener("0.0.0.0:80", 1));
        let one = l.insert(listener("10.0.0.1:80", 2));
        assert_eq!(find(&l, "10.0.0.1:80", "10.0.0.9:1000"), Some(one));
        assert_eq!(find(&l, "10.0.0.2:80", "10.0.0.9:1000"), Some(any));
        assert_eq!(find(&l, "10.0.0.2:81", "10.0.0.9:1000"), None);
        assert_eq!(find(&l, "[fd00::1]:80", "[fd00::2]:1000"), None);
        l.remove(one);
        assert_eq!(find(&l, "10.0.0.1:80", "10.0.0.9:1000"), Some(any));
        assert_eq!(l.insert(listener("10.0.0.1:90", 3)), one);
    }

    #[test]
    fn a_group_shares_the_peers() {
        let mut l = Listeners::new(Keyed::new([7; 16]));
        for token in 0..4 {
            l.insert(listener("0.0.0.0:80", token));
        }
        let mut seen = [0; 4];
        for port in 1024..2048 {
            let peer = format!("10.0.0.9:{port}");
            let id = find(&l, "10.0.0.1:80", &peer).unwrap();
            assert_eq!(find(&l, "10.0.0.1:80", &peer), Some(id));
            seen[id as usize] += 1;
        }
        assert!(seen.iter().all(|&n| n > 150), "{seen:?}");
    }

    #[test]
    fn queues_are_bounded_and_places_stay_right() {
        let mut l = listener("0.0.0.0:80", 0);
        assert_eq!((l.push_half_open(10), l.push_half_open(11)), (0, 1));
        assert!(l.is_syn_queue_full());
        assert_eq!(l.remove_half_open(0), Some(11));
        assert_eq!(l.remove_half_open(0), None);
        l.push_ready(10);
        assert!(!l.is_accept_queue_full());
        l.push_ready(11);
        assert!(l.is_accept_queue_full());
        assert_eq!((l.pop_ready(), l.ready_len()), (Some(10), 1));
        assert_eq!(l.take_all(), [11]);
    }
}
