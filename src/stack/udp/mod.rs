//! UDP (RFC 768; RFC 1122, 4.1): sockets and their table.

mod io;
mod ports;
mod quick;
#[cfg(test)]
mod tests;

use super::datagram::{PathMtu, RecvMeta};
use super::icmp::{Problem, Quote};
use super::route::Path;
use super::sockets::Sockets;
use super::Core;
use crate::errno::{Errno, Result};
use crate::frame::{Frame, Packet};
use crate::rng::Rng;
use crate::tcp::Readiness;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use ports::{Place, Ports};
pub(super) use quick::Arrival;

/// What a program can set on a socket.
#[derive(Clone, Debug)]
pub struct Options {
    /// SO_REUSEADDR. Counts at bind.
    pub reuse_addr: bool,
    /// SO_REUSEPORT. Counts at bind.
    pub reuse_port: bool,
    /// SO_BROADCAST: may send to broadcast addresses.
    pub broadcast: bool,
    /// IP_TOS.
    pub tos: u8,
    /// IP_TTL, 1 to 255.
    pub ttl: u8,
    /// IP_MULTICAST_TTL.
    pub multicast_ttl: u8,
    /// IP_MTU_DISCOVER.
    pub path_mtu: PathMtu,
    /// SO_RCVBUF in payload bytes.
    pub receive_buffer: usize,
    /// IP_RECVERR: errors that pass by themselves (RFC 1122's soft ones) are told
    /// too, and to unconnected sockets as well.
    pub all_errors: bool,
    /// IP_FREEBIND: bind takes addresses that are not the host's.
    pub free_bind: bool,
}

#[derive(Debug)]
struct Own {
    options: Options,
    /// Port 0: not bound.
    local: SocketAddr,
    /// What the program bound to, for when it takes its peer away.
    bound_ip: IpAddr,
    /// The options that counted at bind.
    reuse: (bool, bool),
    peer: Option<SocketAddr>,
}

impl Own {
    fn place(&self) -> Place {
        let (reuse_addr, reuse_port) = self.reuse;
        Place { local: self.local, peer: self.peer, reuse_addr, reuse_port }
    }
}

/// One core's UDP sockets.
#[derive(Debug)]
pub struct Table {
    sockets: Sockets<Own>,
    ports: Ports,
    matches: Vec<u32>,
}

impl Table {
    pub(super) fn new(rng: &mut Rng) -> Self {
        Self { sockets: Sockets::new(), ports: Ports::new(rng), matches: Vec::new() }
    }

    /// Opens a socket; `token` comes back in its events. Gives its number.
    ///
    /// # Errors
    /// `ENFILE`: the table is full.
    pub fn open(&mut self, core: &Core, token: u32, v6: bool) -> Result<u32> {
        let any: IpAddr =
            if v6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
        let config = &core.config;
        let own = Own {
            options: Options {
                reuse_addr: false,
                reuse_port: false,
                broadcast: false,
                tos: 0,
                ttl: config.ttl,
                multicast_ttl: 1,
                path_mtu: PathMtu::default(),
                receive_buffer: config.datagram.receive_buffer,
                all_errors: false,
                free_bind: false,
            },
            local: SocketAddr::new(any, 0),
            bound_ip: any,
            reuse: (false, false),
            peer: None,
        };
        self.sockets.open(core, token, own)
    }

    #[inline]
    fn own(&mut self, id: u32) -> &mut Own {
        &mut self.sockets.get_mut(id).own
    }

    #[inline]
    fn get(&self, id: u32) -> &Own {
        &self.sockets.get(id).own
    }

    /// Closes a socket. Gives the address and port that `bind` held, if it did.
    pub fn close(&mut self, core: &mut Core, id: u32) -> Option<SocketAddr> {
        let own = self.sockets.close(core, id);
        if own.local.port() == 0 {
            return None;
        }
        self.ports.remove(id, &own.place());
        Some(SocketAddr::new(own.bound_ip, own.local.port()))
    }

    /// A socket's options.
    pub fn options(&mut self, id: u32) -> &mut Options {
        &mut self.own(id).options
    }

    /// Sets the number that comes in a socket's events.
    pub fn set_token(&mut self, id: u32, token: u32) {
        self.sockets.set_token(id, token);
    }

    /// Whether it has a port.
    #[inline]
    pub fn is_bound(&self, id: u32) -> bool {
        self.get(id).local.port() != 0
    }

    /// A socket's own address; port 0 where it is not bound.
    pub fn local_addr(&self, id: u32) -> SocketAddr {
        self.get(id).local
    }

    /// Whom it is connected to.
    pub fn peer_addr(&self, id: u32) -> Option<SocketAddr> {
        self.get(id).peer
    }

    /// What it is ready for.
    #[inline(always)]
    pub fn readiness(&self, id: u32) -> Readiness {
        self.sockets.readiness(id)
    }

    /// Sets the error that waits.
    pub fn fail(&mut self, id: u32, error: Errno) {
        self.sockets.fail(id, error);
    }

    /// Takes the error that waits (SO_ERROR).
    pub fn take_error(&mut self, id: u32) -> Option<Errno> {
        self.sockets.get_mut(id).error.take()
    }

    /// Bytes of the next datagram (FIONREAD).
    pub fn next_len(&self, id: u32) -> usize {
        self.sockets.get(id).queue.next_len()
    }

    /// Frames in receive queues.
    pub fn held_frames(&self) -> usize {
        self.sockets.held_frames()
    }

    /// Binds a socket. Port 0 takes a random free one of the ephemeral range
    /// (RFC 6056, 3.3.1). `hold` is asked for each port before it is taken, and
    /// refuses it with an error where somebody outside of the stack has it.
    ///
    /// # Errors
    /// `EINVAL`: bound already. `EADDRNOTAVAIL`: not an address of ours.
    /// `EADDRINUSE`: another socket's, or no ephemeral port is free.
    /// `EAFNOSUPPORT`: of the other IP version. And what `hold` gives.
    pub fn bind(
        &mut self,
        core: &mut Core,
        id: u32,
        addr: SocketAddr,
        hold: &mut dyn FnMut(IpAddr, u16) -> Result<()>,
    ) -> Result<SocketAddr> {
        let socket = self.get(id);
        if socket.local.port() != 0 {
            return Err(Errno::EINVAL);
        }
        if socket.local.is_ipv4() != addr.is_ipv4() {
            return Err(Errno::EAFNOSUPPORT);
        }
        let ip = addr.ip();
        let ours = ip.is_unspecified()
            || core.interface().is_local(ip)
            || ip.is_multicast()
            || matches!(ip, IpAddr::V4(v4) if v4.is_broadcast()
                || core.interface().is_subnet_broadcast(v4));
        if !ours && !socket.options.free_bind {
            return Err(Errno::EADDRNOTAVAIL);
        }
        let reuse = (socket.options.reuse_addr, socket.options.reuse_port);
        let mut place =
            Place { local: addr, peer: None, reuse_addr: reuse.0, reuse_port: reuse.1 };
        if addr.port() == 0 {
            place.local.set_port(self.ephemeral(core, ip, hold)?);
        } else if self.ports.conflicts(&place) {
            return Err(Errno::EADDRINUSE);
        } else if ours {
            hold(ip, addr.port())?;
        }
        self.ports.insert(id, place);
        let socket = self.own(id);
        (socket.local, socket.bound_ip, socket.reuse) = (place.local, ip, reuse);
        Ok(place.local)
    }

    fn ephemeral(
        &self,
        core: &mut Core,
        ip: IpAddr,
        hold: &mut dyn FnMut(IpAddr, u16) -> Result<()>,
    ) -> Result<u16> {
        let (low, high) = core.config.ephemeral_ports;
        let low = low.max(1);
        let count = u32::from(high.saturating_sub(low)) + 1;
        let start = core.rng.below(count);
        for i in 0..count {
            let port = low + ((start + i) % count) as u16;
            if !self.ports.is_free(port) {
                continue;
            }
            match hold(ip, port) {
                Ok(()) => return Ok(port),
                Err(Errno::EADDRINUSE) => {}
                Err(error) => return Err(error),
            }
        }
        Err(Errno::EADDRINUSE)
    }

    /// Connects a bound socket: it sends to `peer` where nothing else is said,
    /// and receives from nobody else. Where it was bound to any address it gets
    /// the one that leads to the peer.
    ///
    /// # Errors
    /// `EINVAL`: not bound. `EAFNOSUPPORT`. `ENETUNREACH`: no route. `EACCES`: a
    /// broadcast address without SO_BROADCAST.
    pub fn connect(&mut self, core: &mut Core, id: u32, peer: SocketAddr) -> Result<()> {
        let socket = self.get(id);
        if socket.local.port() == 0 {
            return Err(Errno::EINVAL);
        }
        let peer = self.destination(id, peer)?;
        let path = core.route(peer.ip())?;
        let socket = self.get(id);
        if path.is_broadcast && !socket.options.broadcast {
            return Err(Errno::EACCES);
        }
        let old = socket.place();
        let mut place = old;
        place.peer = Some(peer);
        place.local.set_ip(if socket.bound_ip.is_unspecified() { path.source } else { socket.bound_ip });
        self.replace(id, &old, place);
        Ok(())
    }

    /// Takes the peer away (connect to AF_UNSPEC).
    pub fn disconnect(&mut self, id: u32) {
        let socket = self.get(id);
        if socket.peer.is_none() {
            return;
        }
        let old = socket.place();
        let mut place = old;
        place.peer = None;
        place.local.set_ip(socket.bound_ip);
        self.replace(id, &old, place);
    }

    fn replace(&mut self, id: u32, old: &Place, new: Place) {
        self.ports.remove(id, old);
        self.ports.insert(id, new);
        let socket = self.own(id);
        (socket.local, socket.peer) = (new.local, new.peer);
    }

    /// Where a datagram to `to` goes; "any address" means this host.
    fn destination(&self, id: u32, to: SocketAddr) -> Result<SocketAddr> {
        let socket = self.get(id);
        if socket.local.is_ipv4() != to.is_ipv4() {
            return Err(Errno::EAFNOSUPPORT);
        }
        let mut to = to;
        if to.ip().is_unspecified() {
            to.set_ip(match (socket.local.ip(), to.ip()) {
                (own, _) if !own.is_unspecified() => own,
                (_, IpAddr::V4(_)) => Ipv4Addr::LOCALHOST.into(),
                (_, IpAddr::V6(_)) => Ipv6Addr::LOCALHOST.into(),
            });
        }
        Ok(to)
    }

    /// Shuts a socket down for reading, writing, or both.
    ///
    /// # Errors
    /// `ENOTCONN`: it is not connected.
    pub fn shutdown(&mut self, id: u32, read: bool, write: bool) -> Result<()> {
        let socket = self.sockets.get_mut(id);
        if socket.own.peer.is_none() {
            return Err(Errno::ENOTCONN);
        }
        socket.shut_read |= read;
        socket.shut_write |= write;
        self.sockets.touch(id);
        Ok(())
    }

    /// Copies the next datagram into `buffer` (what does not fit is lost), and
    /// takes it off unless `peek`.
    ///
    /// # Errors
    /// `EAGAIN`: there is none. Or the error that waits.
    pub fn recv(
        &mut self,
        core: &mut Core,
        id: u32,
        buffer: &mut [u8],
        peek: bool,
    ) -> Result<RecvMeta> {
        let socket = self.sockets.get_mut(id);
        if let Some(error) = socket.error.take() {
            return Err(error);
        }
        if socket.queue.is_empty() && socket.shut_read {
            return Ok(RecvMeta::end(socket.own.local.ip()));
        }
        socket.queue.recv(core, buffer, peek)
    }

    /// Takes the next datagram in its frames, whose ranges are the payload.
    ///
    /// # Errors
    /// As [`Table::recv`]; `EMSGSIZE` for a datagram larger than a frame that had
    /// to be copied because frames are few.
    pub fn recv_packet(&mut self, core: &mut Core, id: u32) -> Result<(Packet, RecvMeta)> {
        let socket = self.sockets.get_mut(id);
        match socket.error.take() {
            Some(error) => Err(error),
            None => socket.queue.recv_packet(core),
        }
    }

    /// Takes the oldest datagram off in its one frame.
    ///
    /// # Errors
    /// As [`Table::recv`]; `EMSGSIZE`: it is larger than a frame, and stays; `ESHUTDOWN`
    /// where nothing comes any more.
    pub fn recv_frame(&mut self, core: &mut Core, id: u32) -> Result<Frame> {
        let socket = self.sockets.get_mut(id);
        match socket.error.take() {
            Some(error) => Err(error),
            None if socket.queue.is_empty() && socket.shut_read => Err(Errno::ESHUTDOWN),
            None => socket.queue.recv_frame(core),
        }
    }

    /// Another report begins: whether there may be anything to be reported.
    #[inline(always)]
    pub(super) fn begin_report(&mut self) -> bool {
        self.sockets.begin_report()
    }

    /// Reports every socket that something happened to, once.
    pub(super) fn report(&mut self, core: &mut Core) {
        self.sockets.report(core);
    }

    /// Tells the socket of a flow what ICMP said of it; false where there is none.
    pub(super) fn problem(&mut self, quote: &Quote, problem: &Problem) -> bool {
        let connected = self.ports.find_connected(quote.local, quote.remote);
        let Some(id) = connected.or_else(|| self.ports.find(quote.local, quote.remote)) else {
            return false;
        };
        let options = &self.get(id).options;
        let wanted = problem.mtu.is_none() || options.path_mtu != PathMtu::Dont;
        if wanted && (options.all_errors || (connected.is_some() && problem.hard)) {
            self.sockets.fail(id, problem.errno);
        }
        true
    }
}

/// The source of a datagram: what the call, the socket or the route says.
fn source(path: &Path, bound: IpAddr, asked: Option<IpAddr>) -> IpAddr {
    match asked {
        Some(ip) if !ip.is_unspecified() => ip,
        _ if !bound.is_unspecified() && !bound.is_multicast() => bound,
        _ => path.source,
    }
}
