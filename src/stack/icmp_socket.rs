//! ICMP sockets: ping (SOCK_DGRAM, IPPROTO_ICMP) and raw (SOCK_RAW, IPPROTO_ICMP).
//!
//! A ping socket sends echo requests under an identifier of its own and gets
//! their replies. A raw socket sends any ICMP message as it is given, and gets
//! every one that comes in, IP header included. Both exist on owned addresses
//! alone: on a shared one ICMP is the kernel's.

use super::datagram::{PathMtu, Received, RecvMeta, SendMeta};
use super::icmp::{Problem, Quote};
use super::ip_input::IpMeta;
use super::sockets::Sockets;
use super::{Core, IpHeader, Mode};
use crate::errno::{Errno, Result};
use crate::frame::Packet;
use crate::tcp::Readiness;
use crate::telemetry::DropReason;
use crate::wire::{checksum, icmpv4, ipv4};
use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use hashbrown::HashTable;

/// What a program can set on a socket.
#[derive(Clone, Debug)]
pub struct Options {
    /// SO_BROADCAST: may send to broadcast addresses.
    pub broadcast: bool,
    /// IP_TOS.
    pub tos: u8,
    /// IP_TTL, 1 to 255.
    pub ttl: u8,
    /// IP_MTU_DISCOVER.
    pub path_mtu: PathMtu,
    /// SO_RCVBUF in bytes.
    pub receive_buffer: usize,
    /// IP_RECVERR: soft errors are told too, and to unconnected sockets as well.
    pub all_errors: bool,
    /// IP_FREEBIND: bind takes addresses that are not the host's.
    pub free_bind: bool,
    /// ICMP_FILTER of a raw socket: bit n set: messages of type n (up to 31) are
    /// not for it.
    pub filter: u32,
}

#[derive(Debug)]
struct Own {
    options: Options,
    raw: bool,
    /// Ping: the identifier; 0: none yet.
    ident: u16,
    local: IpAddr,
    peer: Option<IpAddr>,
}

/// One core's ICMP sockets.
#[derive(Debug)]
pub struct Table {
    sockets: Sockets<Own>,
    /// Ping sockets by identifier.
    idents: HashTable<(u16, u32)>,
    /// Raw sockets.
    raw: Vec<u32>,
}

/// Identifiers are ours to choose or our programs': nobody else fills the table.
fn spread(ident: u16) -> u64 {
    u64::from(ident).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

const ANY: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

impl Table {
    pub(super) fn new() -> Self {
        Self { sockets: Sockets::new(), idents: HashTable::new(), raw: Vec::new() }
    }

    /// Opens a ping or raw socket; `token` comes back in its events.
    ///
    /// # Errors
    /// `EPROTONOSUPPORT`: the address is shared. `ENFILE`: the table is full.
    pub fn open(&mut self, core: &Core, token: u32, raw: bool) -> Result<u32> {
        if core.config.mode == Mode::Shared {
            return Err(Errno::EPROTONOSUPPORT);
        }
        let options = Options {
            broadcast: false,
            tos: 0,
            ttl: core.config.ttl,
            path_mtu: PathMtu::default(),
            receive_buffer: core.config.datagram.receive_buffer,
            all_errors: false,
            free_bind: false,
            filter: 0,
        };
        let own = Own { options, raw, ident: 0, local: ANY, peer: None };
        let id = self.sockets.open(core, token, own)?;
        if raw {
            self.raw.push(id);
        }
        Ok(id)
    }

    /// Closes a socket.
    pub fn close(&mut self, core: &mut Core, id: u32) {
        let own = self.sockets.close(core, id);
        self.raw.retain(|&i| i != id);
        if let Ok(entry) = self.idents.find_entry(spread(own.ident), |(_, i)| *i == id) {
            entry.remove();
        }
    }

    fn own(&mut self, id: u32) -> &mut Own {
        &mut self.sockets.get_mut(id).own
    }

    /// A socket's options.
    pub fn options(&mut self, id: u32) -> &mut Options {
        &mut self.own(id).options
    }

    /// Sets the number that comes in a socket's events.
    pub fn set_token(&mut self, id: u32, token: u32) {
        self.sockets.set_token(id, token);
    }

    /// A socket's own address; the port of a ping socket is its identifier.
    pub fn local_addr(&self, id: u32) -> SocketAddr {
        let own = &self.sockets.get(id).own;
        SocketAddr::new(own.local, own.ident)
    }

    /// Whom it is connected to; the port is zero.
    pub fn peer_addr(&self, id: u32) -> Option<SocketAddr> {
        self.sockets.get(id).own.peer.map(|ip| SocketAddr::new(ip, 0))
    }

    /// What it is ready for.
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

    /// Bytes of the next message (FIONREAD).
    pub fn next_len(&self, id: u32) -> usize {
        self.sockets.get(id).queue.next_len()
    }

    /// Frames in receive queues.
    pub fn held_frames(&self) -> usize {
        self.sockets.held_frames()
    }

    #[inline(always)]
    pub(super) fn begin_report(&mut self) -> bool {
        self.sockets.begin_report()
    }

    pub(super) fn report(&mut self, core: &mut Core) {
        self.sockets.report(core);
    }

    fn find(&self, ident: u16) -> Option<u32> {
        self.idents.find(spread(ident), |(i, _)| *i == ident).map(|(_, id)| *id)
    }

    /// Binds a socket to an address of ours, and a ping socket to the identifier
    /// `addr.port()` (0: any that is free).
    ///
    /// # Errors
    /// `EINVAL`: a ping socket that is bound. `EADDRINUSE`: the identifier is
    /// another's, or none is free. `EADDRNOTAVAIL`, `EAFNOSUPPORT`: the address.
    pub fn bind(&mut self, core: &mut Core, id: u32, addr: SocketAddr) -> Result<SocketAddr> {
        let own = &self.sockets.get(id).own;
        if !addr.is_ipv4() {
            return Err(Errno::EAFNOSUPPORT);
        }
        let ours = addr.ip().is_unspecified() || core.interface().is_local(addr.ip());
        if !ours && !own.options.free_bind {
            return Err(Errno::EADDRNOTAVAIL);
        }
        if !own.raw {
            if own.ident != 0 {
                return Err(Errno::EINVAL);
            }
            self.take_ident(core, id, addr.port())?;
        }
        self.own(id).local = addr.ip();
        Ok(self.local_addr(id))
    }

    fn take_ident(&mut self, core: &mut Core, id: u32, wanted: u16) -> Result<()> {
        let ident = if wanted != 0 {
            Some(wanted).filter(|&i| self.find(i).is_none())
        } else {
            let start = core.rng.next_u32() as u16;
            (0..=u16::MAX).map(|i| start.wrapping_add(i)).find(|&i| i != 0 && self.find(i).is_none())
        };
        let ident = ident.ok_or(Errno::EADDRINUSE)?;
        self.idents.insert_unique(spread(ident), (ident, id), |(i, _)| spread(*i));
        self.own(id).ident = ident;
        Ok(())
    }

    /// Connects a socket: it sends to `peer` where nothing else is said, and hears
    /// from nobody else. `None` takes the peer away.
    ///
    /// # Errors
    /// `EAFNOSUPPORT`, `ENETUNREACH`, `EACCES` (broadcast), `EADDRINUSE`.
    pub fn connect(&mut self, core: &mut Core, id: u32, peer: Option<IpAddr>) -> Result<()> {
        let own = &self.sockets.get(id).own;
        if let Some(ip) = peer {
            if !ip.is_ipv4() {
                return Err(Errno::EAFNOSUPPORT);
            }
            if core.route(ip)?.is_broadcast && !own.options.broadcast {
                return Err(Errno::EACCES);
            }
            if !own.raw && own.ident == 0 {
                self.take_ident(core, id, 0)?;
            }
        }
        self.own(id).peer = peer;
        Ok(())
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

    /// Sends a message, ICMP header included, to `to` or to the peer. A ping
    /// socket's gets its identifier and checksum here; a raw socket's is sent as
    /// it is.
    ///
    /// # Errors
    /// `EINVAL`: a ping socket's message is no echo request, or the source is not
    /// ours. `EDESTADDRREQ`: nobody to send to. `EMSGSIZE`, `EACCES`,
    /// `ENETUNREACH`, `EPIPE`, `EAGAIN`: as for UDP. Or the error that waits.
    pub fn send(
        &mut self,
        core: &mut Core,
        id: u32,
        parts: &[&[u8]],
        to: Option<IpAddr>,
        meta: &SendMeta,
    ) -> Result<usize> {
        let socket = self.sockets.get_mut(id);
        if let Some(error) = socket.error.take() {
            return Err(error);
        }
        if socket.shut_write {
            return Err(Errno::EPIPE);
        }
        let to = to.or(socket.own.peer).ok_or(Errno::EDESTADDRREQ)?;
        if !to.is_ipv4() {
            return Err(Errno::EAFNOSUPPORT);
        }
        let path = core.route(to)?;
        let (options, raw) = (socket.own.options.clone(), socket.own.raw);
        if path.is_broadcast && !options.broadcast {
            return Err(Errno::EACCES);
        }
        let bound = Some(socket.own.local).filter(|ip| !ip.is_unspecified());
        let src = meta.source.or(bound).unwrap_or(path.source);
        if !core.interface().is_local(src) || (src.is_loopback() && !path.is_local) {
            return Err(Errno::EINVAL);
        }
        let message = parts.concat();
        let message = if raw { message } else { self.echo_request(core, id, message)? };
        let header = IpHeader {
            src,
            dst: to,
            protocol: ipv4::ICMP,
            ttl: meta.ttl.unwrap_or(if to.is_multicast() { 1 } else { options.ttl }),
            tos: meta.tos.unwrap_or(options.tos),
            df: options.path_mtu != PathMtu::Dont,
        };
        let mut sent = core.send_ip(&path, &header, &[&message]);
        if sent == Err(Errno::EMSGSIZE) && options.path_mtu == PathMtu::Want {
            let header = IpHeader { df: false, ..header };
            sent = core.send_ip(&path, &header, &[&message]);
        }
        if sent == Err(Errno::EAGAIN) {
            self.sockets.block(id);
        }
        sent.map(|()| message.len())
    }

    /// Puts identifier and checksum into a ping socket's message.
    fn echo_request(&mut self, core: &mut Core, id: u32, mut message: Vec<u8>) -> Result<Vec<u8>> {
        if message.len() < icmpv4::HEADER_LEN || message[..2] != [icmpv4::ECHO_REQUEST, 0] {
            return Err(Errno::EINVAL);
        }
        if self.sockets.get(id).own.ident == 0 {
            self.take_ident(core, id, 0)?;
        }
        let ident = self.sockets.get(id).own.ident;
        message[2..4].fill(0);
        message[4..6].copy_from_slice(&ident.to_be_bytes());
        let sum = checksum::sum(&message).finish();
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        Ok(message)
    }

    /// Copies the next message into `buffer` (what does not fit is lost), and
    /// takes it off unless `peek`. A raw socket's begins with the IP header.
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
            return Ok(RecvMeta::end(socket.own.local));
        }
        socket.queue.recv(core, buffer, peek)
    }

    /// Whether a socket hears messages to and from these addresses.
    fn hears(&self, id: u32, meta: &IpMeta) -> bool {
        let own = &self.sockets.get(id).own;
        (own.local == ANY || own.local == meta.dst) && own.peer.is_none_or(|p| p == meta.src)
    }

    fn deliver(&mut self, core: &mut Core, id: u32, packet: &Packet, meta: &IpMeta) {
        let len = packet.len();
        let socket = self.sockets.get(id);
        let max = core.config.datagram.max_datagrams;
        let room = socket.queue.has_room(len, socket.own.options.receive_buffer, max);
        if !room || socket.shut_read {
            return core.counters.drop(DropReason::IcmpQueueFull);
        }
        let of = Received::new(core, meta, 0, len);
        self.sockets.get_mut(id).queue.push_copy(core, packet, of);
        self.sockets.touch(id);
    }

    /// Gives a message of type `kind` (its range begins with the IP header) to
    /// the raw sockets that hear it.
    pub(super) fn raw_input(&mut self, core: &mut Core, meta: &IpMeta, kind: u8, packet: &Packet) {
        for i in 0..self.raw.len() {
            let id = self.raw[i];
            let filter = self.sockets.get(id).own.options.filter;
            let filtered = kind < 32 && filter & (1 << kind) != 0;
            if !filtered && self.hears(id, meta) {
                self.deliver(core, id, packet, meta);
            }
        }
    }

    /// True where there are raw sockets.
    pub(super) fn has_raw(&self) -> bool {
        !self.raw.is_empty()
    }

    /// Gives an echo reply to the ping socket that it answers; false where there
    /// is none.
    pub(super) fn reply(
        &mut self,
        core: &mut Core,
        meta: &IpMeta,
        ident: u16,
        packet: &Packet,
    ) -> bool {
        match self.find(ident) {
            Some(id) if self.hears(id, meta) => {
                self.deliver(core, id, packet, meta);
                true
            }
            _ => false,
        }
    }

    /// Tells the sockets of a flow what ICMP said of it; false where there are
    /// none.
    pub(super) fn problem(&mut self, quote: &Quote, problem: &Problem) -> bool {
        let ping = self.find(quote.local.port());
        let mut known = false;
        for i in 0..=self.raw.len() {
            let Some(id) = (if i == 0 { ping } else { Some(self.raw[i - 1]) }) else { continue };
            let own = &self.sockets.get(id).own;
            let theirs = own.peer.is_none_or(|p| p == quote.remote.ip())
                && (own.local == ANY || own.local == quote.local.ip());
            if !theirs {
                continue;
            }
            known = true;
            let wanted = problem.mtu.is_none() || own.options.path_mtu != PathMtu::Dont;
            let told = own.options.all_errors || (own.peer.is_some() && problem.hard);
            if wanted && told {
                self.sockets.fail(id, problem.errno);
            }
        }
        known
    }
}
