//! Active and passive opens, and their end: connect, listen, accept.

use super::hash::FlowKey;
use super::listener::{Inherit, Listener};
use super::{Marks, NONE, Table, env, is_of};
use crate::errno::{Errno, Result};
use crate::stack::core::Core;
use crate::tcp::{Connection, Template};
use core::net::{IpAddr, SocketAddr};

/// Ports that a guard may refuse in a row before an active open gives up.
const MAX_REFUSED: usize = 64;

/// What an active open is to be.
#[derive(Debug)]
pub struct Open<'a> {
    /// The address that the socket was bound to, if it was and to one.
    pub source: Option<IpAddr>,
    /// The port that the socket was bound to, if it was.
    pub port: Option<u16>,
    /// The peer.
    pub remote: SocketAddr,
    /// Options of the connection.
    pub inherit: &'a Inherit,
    /// The socket's number, for events.
    pub token: u32,
}

/// Asks whoever guards the ports for one; not called twice for one that is held.
pub type Hold<'a> = &'a mut dyn FnMut(IpAddr, u16) -> Result<()>;

impl Table {
    /// Opens a connection: its SYN leaves at the end of the turn. Returns the
    /// connection's number.
    ///
    /// # Errors
    /// `EADDRNOTAVAIL` (no free port, or the bound one has a connection to this
    /// peer), `ENETUNREACH`, `EHOSTUNREACH`, `ENOBUFS` (table full).
    pub fn connect(&mut self, core: &mut Core, open: &Open, mut hold: Option<Hold>) -> Result<u32> {
        if self.live >= core.config.table.max_connections {
            return Err(Errno::ENOBUFS);
        }
        let remote = open.remote;
        let path = core.route(remote.ip())?;
        if path.is_broadcast || remote.ip().is_multicast() {
            return Err(Errno::ENETUNREACH);
        }
        let source = open.source.unwrap_or(path.source);
        if path.is_local {
            // It never reaches the wire, where a guard would have a say.
            hold = None;
        }
        let port = match open.port {
            Some(port) if self.taken(source, port, remote) => return Err(Errno::EADDRNOTAVAIL),
            Some(port) => port,
            None => self.draw_port(source, remote, &mut hold)?,
        };
        let local = SocketAddr::new(source, port);
        let initial = self.isn.initial(core.now, local, remote);
        let inherit = open.inherit;
        let template = Template::new(self.link(core), local, remote, inherit.ttl, inherit.tos);
        let mtu = core.path_mtu(&path, remote.ip());
        let conn = Connection::connect(
            &mut env(core, path.is_local),
            template,
            &inherit.options,
            initial,
            mtu,
        );
        let key = FlowKey::new(source, port, remote.ip(), remote.port());
        let mut marks = Marks::empty();
        marks.set(Marks::LOOPED, path.is_local);
        marks.set_reuse(inherit.reuse);
        let id = self.insert(conn, key, open.token, marks);
        if !self.resolve(core, id, path.next_hop) {
            self.remove(core, id);
            return Err(Errno::EHOSTUNREACH);
        }
        Ok(id)
    }

    fn taken(&self, source: IpAddr, port: u16, remote: SocketAddr) -> bool {
        self.find(&FlowKey::new(source, port, remote.ip(), remote.port())).is_some()
    }

    /// An ephemeral port whose 4-tuple is free, and which the guard allows.
    fn draw_port(&mut self, source: IpAddr, remote: SocketAddr, hold: &mut Option<Hold>) -> Result<u16> {
        for _ in 0..MAX_REFUSED {
            let Self { ports, flows, keyed, hashed, slots, waits, .. } = self;
            let taken = |port| {
                let key = FlowKey::new(source, port, remote.ip(), remote.port());
                let is = |&n: &u32| is_of(slots, waits, n, &key);
                let hash = keyed.flow(&key);
                hashed.set((key, hash));
                flows.find(hash, is).is_some()
            };
            let port = ports.choose(source, remote, taken).ok_or(Errno::EADDRNOTAVAIL)?;
            match hold {
                Some(hold) if ports.needs_hold(source, port) => match hold(source, port) {
                    Ok(()) => {
                        ports.note_held(source, port);
                        return Ok(port);
                    }
                    Err(Errno::EADDRINUSE) => {}
                    Err(error) => return Err(error),
                },
                _ => return Ok(port),
            }
        }
        Err(Errno::EADDRNOTAVAIL)
    }

    /// Begins to listen; returns the listener's number.
    pub fn listen(
        &mut self,
        core: &Core,
        addr: SocketAddr,
        backlog: usize,
        inherit: Inherit,
        token: u32,
    ) -> u32 {
        let table = &core.config.table;
        let backlog = backlog.min(table.max_backlog);
        self.listeners.insert(Listener::new(addr, token, inherit, backlog, table.max_half_open))
    }

    /// Changes the backlog of a listener.
    pub fn set_backlog(&mut self, core: &Core, listener: u32, backlog: usize) {
        let table = &core.config.table;
        if let Some(l) = self.listeners.get_mut(listener) {
            l.set_backlog(backlog.min(table.max_backlog), table.max_half_open);
        }
    }

    /// The options that accepted connections start with, to change.
    pub fn listener_options(&mut self, listener: u32) -> Option<&mut Inherit> {
        self.listeners.get_mut(listener).map(|l| &mut l.inherit)
    }

    /// Connections that wait for `accept`, half-open ones, and the bound of the
    /// first.
    pub fn listener_queues(&self, listener: u32) -> (usize, usize, usize) {
        let l = self.listeners.get(listener);
        l.map_or((0, 0, 0), |l| (l.ready_len(), l.half_open_len(), l.backlog()))
    }

    /// True where `accept` finds a connection.
    #[inline]
    pub fn can_accept(&self, listener: u32) -> bool {
        self.listeners.get(listener).is_some_and(|l| l.ready_len() > 0)
    }

    /// Takes the connection that has waited longest; from now on its events go
    /// to `token`. A program that waits for events learns of data that came with the
    /// connection when it waits again, which is after this turn's flush: the ACK of
    /// it waits for that once, and rides on an answer.
    pub fn accept(&mut self, listener: u32, token: u32) -> Option<u32> {
        let id = self.listeners.get_mut(listener)?.pop_ready()?;
        let slot = &mut self.slots[id as usize];
        slot.marks.remove(Marks::READY);
        slot.marks.set(Marks::ACCEPTED, slot.conn.as_ref().is_some_and(|conn| conn.recv_len() > 0));
        (slot.listener, slot.token) = (NONE, token);
        Some(id)
    }

    /// Ends a listener. Connections that nobody accepted are reset.
    pub fn unlisten(&mut self, core: &mut Core, listener: u32) {
        let Some(mut l) = self.listeners.remove(listener) else { return };
        for id in l.take_all() {
            let slot = &mut self.slots[id as usize];
            slot.marks.remove(Marks::HALF_OPEN | Marks::READY);
            slot.listener = NONE;
            self.abort(core, id);
        }
    }
}
