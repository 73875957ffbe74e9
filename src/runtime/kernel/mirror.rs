//! A copy of what the kernel knows about one interface, kept by rtnetlink.
//!
//! Routes: the main table's over this interface. Policy rules and routes by way
//! of another family's gateway are not followed.

use super::netlink::{
    Message, Request, Socket, address, address_bytes, attributes, messages, u16_at, u32_at,
};
use crate::stack::{Neighbor, Route};
use crate::wire::ethernet::Mac;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, RawFd};

const GROUPS: i32 = libc::RTMGRP_LINK
    | libc::RTMGRP_NEIGH
    | libc::RTMGRP_IPV4_IFADDR
    | libc::RTMGRP_IPV4_ROUTE
    | libc::RTMGRP_IPV6_IFADDR
    | libc::RTMGRP_IPV6_ROUTE;

const RTAX_MTU: u16 = 2;
const NDA_FLAGS_EXT: u16 = 15;
const NTF_EXT_MANAGED: u32 = 1;
const NTF_USE: u8 = 1;
const USABLE: u16 = libc::NUD_REACHABLE
    | libc::NUD_STALE
    | libc::NUD_DELAY
    | libc::NUD_PROBE
    | libc::NUD_NOARP
    | libc::NUD_PERMANENT;

/// Neighbours that are kept fresh at the same time, at most; the one asked for
/// longest ago is then let go.
const MAX_ASKED: usize = 1024;

/// What changed. [`Netlink::addresses`] and [`Netlink::routes`] have the new state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The interface's addresses.
    Address,
    /// The routes over the interface.
    Route,
    /// A neighbour that was asked for.
    Neighbor(IpAddr, Neighbor),
    /// The interface itself.
    Link(LinkState),
}

/// The state of the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkState {
    /// It still exists. Once deleted it does not come back under its number.
    pub exists: bool,
    /// Administratively up.
    pub up: bool,
    /// Up and with a carrier.
    pub running: bool,
    /// Largest IP packet in bytes.
    pub mtu: usize,
    /// The hardware address.
    pub mac: Mac,
}

impl LinkState {
    const GONE: Self = Self { exists: false, up: false, running: false, mtu: 0, mac: Mac([0; 6]) };
}

/// The mirror of one interface.
///
/// Neighbours that were asked for stay marked as managed, which has the kernel
/// keep them fresh although it sees none of our traffic; dropping the mirror
/// takes the mark away.
#[derive(Debug)]
pub struct Netlink {
    index: u32,
    events: Socket,
    requests: Socket,
    state: State,
    changes: Vec<Change>,
    /// When (in questions) each neighbour was asked for.
    asked: BTreeMap<IpAddr, u64>,
    questions: u64,
}

#[derive(Clone, Debug)]
struct State {
    addresses: Vec<(IpAddr, u8)>,
    routes: Vec<Route>,
    neighbors: BTreeMap<IpAddr, Neighbor>,
    /// Neighbours whose address somebody has set for good.
    fixed: BTreeSet<IpAddr>,
    link: LinkState,
}

impl Default for State {
    fn default() -> Self {
        Self {
            addresses: Vec::new(),
            routes: Vec::new(),
            neighbors: BTreeMap::new(),
            fixed: BTreeSet::new(),
            link: LinkState::GONE,
        }
    }
}

/// What a message did to the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effect {
    None,
    Address { removed: bool },
    Route,
    Neighbor(IpAddr),
    Link,
}

impl Netlink {
    /// Mirrors the interface of this number in the caller's network namespace.
    ///
    /// # Errors
    /// The system's; ENODEV where there is no such interface.
    pub fn open(index: u32) -> io::Result<Self> {
        let mut mirror = Self {
            index,
            events: Socket::new(libc::NETLINK_ROUTE, GROUPS as u32)?, // before the dump, so nothing is missed
            requests: Socket::new(libc::NETLINK_ROUTE, 0)?,
            state: State::default(),
            changes: Vec::new(),
            asked: BTreeMap::new(),
            questions: 0,
        };
        mirror.state = mirror.dump()?;
        if !mirror.state.link.exists {
            return Err(io::Error::from_raw_os_error(libc::ENODEV));
        }
        Ok(mirror)
    }

    /// The interface's addresses with their prefix lengths.
    pub fn addresses(&self) -> &[(IpAddr, u8)] {
        &self.state.addresses
    }

    /// The routes over the interface.
    pub fn routes(&self) -> &[Route] {
        &self.state.routes
    }

    /// The interface's state.
    pub fn link(&self) -> LinkState {
        self.state.link
    }

    /// What the kernel knows about a neighbour.
    pub fn neighbor(&self, ip: IpAddr) -> Neighbor {
        self.state.neighbors.get(&ip).copied().unwrap_or(Neighbor::Gone)
    }

    /// The descriptor to poll: readable when something changed.
    pub fn fd(&self) -> RawFd {
        self.events.as_raw_fd()
    }

    /// What changed since the last call. Never blocks.
    ///
    /// # Errors
    /// The system's, where the state had to be read anew and could not be.
    pub fn poll(&mut self) -> io::Result<Vec<Change>> {
        let mut changes = std::mem::take(&mut self.changes);
        let mut routes_stale = false;
        loop {
            let data = match self.events.receive(false) {
                Ok(Some(data)) => data,
                Ok(None) => break,
                Err(why) if why.raw_os_error() == Some(libc::ENOBUFS) => {
                    self.resync(&mut changes)?; // more came than the socket holds
                    continue;
                }
                Err(why) => return Err(why),
            };
            for message in messages(data) {
                let before = self.state.link;
                match self.state.apply(self.index, message) {
                    Effect::None => {}
                    Effect::Address { removed } => {
                        push(&mut changes, Change::Address);
                        routes_stale |= removed;
                    }
                    Effect::Route => push(&mut changes, Change::Route),
                    Effect::Neighbor(ip) if self.asked.contains_key(&ip) => {
                        let now = self.state.neighbors.get(&ip).copied();
                        push(&mut changes, Change::Neighbor(ip, now.unwrap_or(Neighbor::Gone)));
                    }
                    Effect::Neighbor(_) => {}
                    Effect::Link => {
                        push(&mut changes, Change::Link(self.state.link));
                        routes_stale |= before.up != self.state.link.up;
                    }
                }
            }
        }
        if routes_stale {
            self.reread_routes(&mut changes)?;
        }
        Ok(changes)
    }

    /// The kernel says nothing of IPv4 routes that go with an address or with
    /// the interface, so they are read again.
    fn reread_routes(&mut self, changes: &mut Vec<Change>) -> io::Result<()> {
        let mut fresh = State::default();
        self.dump_into(&mut fresh, libc::RTM_GETROUTE, libc::AF_UNSPEC)?;
        if fresh.routes != self.state.routes {
            self.state.routes = fresh.routes;
            push(changes, Change::Route);
        }
        Ok(())
    }

    fn resync(&mut self, changes: &mut Vec<Change>) -> io::Result<()> {
        let old = std::mem::take(&mut self.state);
        self.state = match self.dump() {
            Ok(state) => state,
            Err(why) => {
                self.state = old;
                return Err(why);
            }
        };
        if old.addresses != self.state.addresses {
            push(changes, Change::Address);
        }
        if old.routes != self.state.routes {
            push(changes, Change::Route);
        }
        if old.link != self.state.link {
            push(changes, Change::Link(self.state.link));
        }
        for ip in self.asked.keys() {
            let now = self.state.neighbors.get(ip).copied().unwrap_or(Neighbor::Gone);
            if old.neighbors.get(ip) != Some(&now) {
                push(changes, Change::Neighbor(*ip, now));
            }
        }
        Ok(())
    }

    fn dump(&mut self) -> io::Result<State> {
        let mut state = State::default();
        for kind in [libc::RTM_GETLINK, libc::RTM_GETADDR, libc::RTM_GETROUTE, libc::RTM_GETNEIGH] {
            self.dump_into(&mut state, kind, libc::AF_UNSPEC)?;
        }
        Ok(state)
    }

    fn dump_into(&mut self, state: &mut State, kind: u16, family: i32) -> io::Result<()> {
        // A dump that was interrupted by a change is asked for again.
        for _ in 0..16 {
            // The family is the first byte of every kind's fixed part; ifinfomsg
            // is the largest of these.
            let mut body = [0; 16];
            body[0] = family as u8;
            let mut copy = state.clone();
            let request = Request::new(kind, libc::NLM_F_DUMP, &body);
            let index = self.index;
            match self.requests.ask(request, |message| {
                copy.apply(index, message);
            }) {
                Ok(()) => {
                    *state = copy;
                    return Ok(());
                }
                Err(why) if why.raw_os_error() == Some(libc::EINTR) => {
                    while self.requests.receive(false)?.is_some() {}
                }
                Err(why) => return Err(why),
            }
        }
        Err(io::Error::from_raw_os_error(libc::EAGAIN))
    }

    /// Asks the kernel for a neighbour, and to keep it fresh. What it knows at
    /// once is returned and not reported again; the rest comes by
    /// [`Netlink::poll`]. STALE is usable, FAILED is [`Neighbor::Failed`].
    ///
    /// # Errors
    /// The system's: above all EPERM, without CAP_NET_ADMIN.
    pub fn ask_neighbor(&mut self, ip: IpAddr) -> io::Result<Option<Neighbor>> {
        self.questions += 1;
        self.asked.insert(ip, self.questions);
        if self.asked.len() > MAX_ASKED
            && let Some(oldest) = self.asked.iter().min_by_key(|(_, at)| **at).map(|(ip, _)| *ip)
        {
            self.release_neighbor(oldest)?;
        }
        self.mark_neighbor(ip, NTF_EXT_MANAGED)?;
        Ok(self.state.neighbors.get(&ip).copied().filter(|n| *n != Neighbor::Failed))
    }

    /// Stops keeping a neighbour fresh.
    ///
    /// # Errors
    /// The system's.
    pub fn release_neighbor(&mut self, ip: IpAddr) -> io::Result<()> {
        if self.asked.remove(&ip).is_some() && self.state.neighbors.contains_key(&ip) {
            self.mark_neighbor(ip, 0)?;
        }
        Ok(())
    }

    /// RTM_NEWNEIGH with NTF_USE (look for it now), with or without the mark. Not
    /// for one that is set for good: the kernel would forget that, and its address
    /// with it.
    fn mark_neighbor(&mut self, ip: IpAddr, mark: u32) -> io::Result<()> {
        if self.state.fixed.contains(&ip) {
            return Ok(());
        }
        let (family, bytes) = address_bytes(ip);
        let mut body = [0; 12]; // struct ndmsg
        body[0] = family;
        body[4..8].copy_from_slice(&self.index.to_ne_bytes());
        body[10] = NTF_USE;
        // The kernel acts and answers within the call that sends, so waiting for
        // the answer costs a second call, and no time.
        let flags = libc::NLM_F_CREATE | libc::NLM_F_ACK;
        let request = Request::new(libc::RTM_NEWNEIGH, flags, &body)
            .attribute(libc::NDA_DST, &bytes)
            .attribute(NDA_FLAGS_EXT, &mark.to_ne_bytes());
        self.requests.ask(request, |_| {})
    }
}

impl Drop for Netlink {
    fn drop(&mut self) {
        for ip in std::mem::take(&mut self.asked).into_keys() {
            if self.state.neighbors.contains_key(&ip) {
                let _ = self.mark_neighbor(ip, 0);
            }
        }
    }
}

/// Adds a change, in place of an earlier one of the same thing.
fn push(changes: &mut Vec<Change>, change: Change) {
    changes.retain(|old| match (old, &change) {
        (Change::Neighbor(a, _), Change::Neighbor(b, _)) => a != b,
        (Change::Link(_), Change::Link(_)) => false,
        (old, new) => old != new,
    });
    changes.push(change);
}

impl State {
    fn apply(&mut self, index: u32, message: Message<'_>) -> Effect {
        let applied = match message.kind {
            libc::RTM_NEWLINK | libc::RTM_DELLINK => self.link(index, message),
            libc::RTM_NEWADDR | libc::RTM_DELADDR => self.address(index, message),
            libc::RTM_NEWROUTE | libc::RTM_DELROUTE => self.route(index, message),
            libc::RTM_NEWNEIGH | libc::RTM_DELNEIGH => self.neighbor(index, message),
            _ => None,
        };
        applied.unwrap_or(Effect::None)
    }

    fn link(&mut self, index: u32, message: Message<'_>) -> Option<Effect> {
        let body = message.body; // struct ifinfomsg: family, pad, type:2, index:4, flags:4, change:4
        // Bridges announce their ports under their own family.
        if u32_at(body, 4)? != index || body[0] != libc::AF_UNSPEC as u8 {
            return None;
        }
        let old = self.link;
        if message.kind == libc::RTM_DELLINK {
            *self = Self::default();
            return Some(Effect::Link);
        }
        let flags = u32_at(body, 8)?;
        self.link.exists = true;
        self.link.up = flags & libc::IFF_UP as u32 != 0;
        self.link.running = self.link.up && flags & libc::IFF_RUNNING as u32 != 0;
        for (kind, value) in attributes(body.get(16..)?) {
            match kind {
                libc::IFLA_MTU => self.link.mtu = u32_at(value, 0)? as usize,
                libc::IFLA_ADDRESS => {
                    if let Ok(mac) = value.try_into() {
                        self.link.mac = Mac(mac);
                    }
                }
                _ => {}
            }
        }
        Some(if self.link == old { Effect::None } else { Effect::Link })
    }

    fn address(&mut self, index: u32, message: Message<'_>) -> Option<Effect> {
        let body = message.body; // struct ifaddrmsg: family, prefix, flags, scope, index:4
        if u32_at(body, 4)? != index {
            return None;
        }
        let prefix = body[1];
        let (mut own, mut flags) = (None, u32::from(body[2]));
        for (kind, value) in attributes(body.get(8..)?) {
            match kind {
                libc::IFA_LOCAL => own = address(value),
                libc::IFA_ADDRESS => own = own.or_else(|| address(value)),
                libc::IFA_FLAGS => flags = u32_at(value, 0)?,
                _ => {}
            }
        }
        let entry = (own?, prefix);
        let usable = flags & (libc::IFA_F_TENTATIVE | libc::IFA_F_DADFAILED) == 0;
        let had = self.addresses.iter().position(|a| *a == entry);
        match (message.kind == libc::RTM_NEWADDR && usable, had) {
            (true, None) => {
                // The kernel prefers primary addresses over secondary ones.
                let secondary = flags & libc::IFA_F_SECONDARY != 0;
                let at = if secondary { self.addresses.len() } else { self.primaries(entry.0) };
                self.addresses.insert(at, entry);
                Some(Effect::Address { removed: false })
            }
            (false, Some(at)) => {
                self.addresses.remove(at);
                Some(Effect::Address { removed: true })
            }
            _ => None,
        }
    }

    /// Where the next address goes: behind all of its family, so that the order
    /// is the kernel's.
    fn primaries(&self, like: IpAddr) -> usize {
        let last = self.addresses.iter().rposition(|(a, _)| a.is_ipv4() == like.is_ipv4());
        last.map_or(self.addresses.len(), |at| at + 1)
    }

    fn route(&mut self, index: u32, message: Message<'_>) -> Option<Effect> {
        // struct rtmsg: family, dst_len, src_len, tos, table, protocol, scope, type, flags:4
        let body = message.body;
        let (family, prefix, source_len, tos) =
            (*body.first()?, *body.get(1)?, *body.get(2)?, *body.get(3)?);
        let (mut table, kind) = (u32::from(*body.get(4)?), *body.get(7)?);
        let any: IpAddr = match i32::from(family) {
            libc::AF_INET => Ipv4Addr::UNSPECIFIED.into(),
            libc::AF_INET6 => Ipv6Addr::UNSPECIFIED.into(),
            _ => return None,
        };
        let mut route = Route {
            destination: any,
            prefix,
            gateway: None,
            source: None,
            metric: 0,
            mtu: None,
        };
        let (mut over, mut foreign_gateway) = (None, false);
        for (kind, value) in attributes(body.get(12..)?) {
            match kind {
                libc::RTA_TABLE => table = u32_at(value, 0)?,
                libc::RTA_DST => route.destination = address(value)?,
                libc::RTA_OIF => over = u32_at(value, 0),
                libc::RTA_GATEWAY => route.gateway = address(value),
                libc::RTA_PREFSRC => route.source = address(value),
                libc::RTA_PRIORITY => route.metric = u32_at(value, 0)?,
                libc::RTA_VIA => foreign_gateway = true,
                libc::RTA_METRICS => route.mtu = metric(value, RTAX_MTU),
                libc::RTA_MULTIPATH => {
                    if let Some(gateway) = hop_over(index, value) {
                        over = Some(index);
                        route.gateway = gateway;
                    }
                }
                _ => {}
            }
        }
        let ours = over == Some(index)
            && table == u32::from(libc::RT_TABLE_MAIN)
            && kind == libc::RTN_UNICAST
            && (source_len, tos, foreign_gateway) == (0, 0, false);
        if !ours {
            return None;
        }
        let had = self.routes.iter().position(|r| *r == route);
        match (message.kind == libc::RTM_NEWROUTE, had) {
            (true, None) => {
                // One that is replaced has the same destination and metric.
                self.routes.retain(|r| {
                    (r.destination, r.prefix, r.metric)
                        != (route.destination, route.prefix, route.metric)
                });
                self.routes.push(route);
                Some(Effect::Route)
            }
            (false, Some(at)) => {
                self.routes.remove(at);
                Some(Effect::Route)
            }
            _ => None,
        }
    }

    fn neighbor(&mut self, index: u32, message: Message<'_>) -> Option<Effect> {
        // struct ndmsg: family, pad:3, index:4, state:2, flags, type
        let body = message.body;
        let family = i32::from(*body.first()?);
        if u32_at(body, 4)? != index || !matches!(family, libc::AF_INET | libc::AF_INET6) {
            return None;
        }
        let state = u16_at(body, 8)?;
        let (mut ip, mut mac) = (None, None);
        for (kind, value) in attributes(body.get(12..)?) {
            match kind {
                libc::NDA_DST => ip = address(value),
                libc::NDA_LLADDR => mac = value.try_into().ok().map(Mac),
                _ => {}
            }
        }
        let ip = ip?;
        let now = match mac {
            _ if message.kind == libc::RTM_DELNEIGH => None,
            Some(mac) if state & USABLE != 0 => Some(Neighbor::Known(mac)),
            _ if state & libc::NUD_FAILED != 0 => Some(Neighbor::Failed),
            _ => None, // being looked for
        };
        let set_for_good = state & (libc::NUD_PERMANENT | libc::NUD_NOARP) != 0;
        if now.is_some() && set_for_good { self.fixed.insert(ip) } else { self.fixed.remove(&ip) };
        let before = match now {
            Some(now) => self.neighbors.insert(ip, now),
            None => self.neighbors.remove(&ip),
        };
        // A second failure answers a second question, so it is told again.
        let again = now == Some(Neighbor::Failed);
        Some(if before != now || again { Effect::Neighbor(ip) } else { Effect::None })
    }
}

/// A metric of a route.
fn metric(value: &[u8], wanted: u16) -> Option<usize> {
    let (_, value) = attributes(value).find(|(kind, _)| *kind == wanted)?;
    u32_at(value, 0).map(|n| n as usize).filter(|n| *n > 0)
}

/// The first next hop over the interface, of a route with several: its gateway.
fn hop_over(index: u32, mut value: &[u8]) -> Option<Option<IpAddr>> {
    // struct rtnexthop: len:2, flags, hops, ifindex:4
    while let Some(len) = u16_at(value, 0).map(usize::from).filter(|len| *len >= 8) {
        if u32_at(value, 4)? == index {
            let nested = attributes(value.get(8..len)?);
            let mut gateways = nested.filter(|(kind, _)| *kind == libc::RTA_GATEWAY);
            return Some(gateways.next().and_then(|(_, v)| address(v)));
        }
        value = value.get(len.next_multiple_of(4)..)?;
    }
    None
}
