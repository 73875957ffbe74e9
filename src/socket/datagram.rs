//! The calls on UDP and ICMP sockets.

use super::linux::*;
use super::options::Options;
use super::table::{Flags, Kind};
use super::types::Handle;
use super::{RecvMeta, SendMeta, Sockets};
use crate::errno::{Errno, Result};
use crate::stack::datagram::PathMtu;
use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

const UDP: u8 = IPPROTO_UDP as u8;
const ANY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

impl Sockets {
    pub(super) fn open_udp(&mut self, options: Arc<Options>) -> Result<Handle> {
        let h = self.table.insert(Kind::Idle, options)?;
        match self.stack.udp.open(&self.stack.core, h.index(), false) {
            Ok(id) => {
                self.table.at_mut(h.index()).kind = Kind::Udp(id);
                Ok(h)
            }
            Err(error) => {
                self.table.remove(h);
                Err(error)
            }
        }
    }

    pub(super) fn open_icmp(&mut self, options: Arc<Options>, raw: bool) -> Result<Handle> {
        let h = self.table.insert(Kind::Idle, options)?;
        match self.stack.icmp.open(&self.stack.core, h.index(), raw) {
            Ok(id) => {
                let socket = self.table.at_mut(h.index());
                socket.kind = Kind::Icmp(id);
                socket.flags.set(Flags::RAW, raw);
                Ok(h)
            }
            Err(error) => {
                self.table.remove(h);
                Err(error)
            }
        }
    }

    /// Sets the error that waits on a datagram socket.
    pub fn fail_datagrams(&mut self, h: Handle, error: Errno) {
        match self.table.get(h).map(|s| s.kind) {
            Ok(Kind::Udp(id)) => self.stack.udp.fail(id, error),
            Ok(Kind::Icmp(id)) => self.stack.icmp.fail(id, error),
            _ => {}
        }
    }

    pub(super) fn datagram_bind(&mut self, h: Handle, addr: SocketAddr) -> Result<()> {
        let (stack, guard) = (&mut self.stack, &mut self.guard);
        match self.table.get(h)?.kind {
            Kind::Udp(id) => {
                let mut hold = |ip, port| match guard {
                    Some(guard) => guard.hold(UDP, ip, port, false),
                    None => Ok(()),
                };
                stack.udp.bind(&mut stack.core, id, addr, &mut hold).map(drop)
            }
            Kind::Icmp(id) => stack.icmp.bind(&mut stack.core, id, addr).map(drop),
            _ => Err(Errno::EINVAL),
        }
    }

    /// Whether "try again" of a send says that no port is free to send from, for which
    /// nobody waits.
    pub fn lacks_port(&self, h: Handle) -> bool {
        matches!(self.table.get(h).map(|s| s.kind), Ok(Kind::Udp(id)) if !self.stack.udp.is_bound(id))
    }

    /// Binds a UDP socket that is not bound to any free port.
    #[inline]
    fn auto_bind(&mut self, h: Handle, id: u32) -> Result<()> {
        if self.stack.udp.is_bound(id) {
            return Ok(());
        }
        match self.datagram_bind(h, ANY) {
            // As Linux: no port is free for who did not name one.
            Err(Errno::EADDRINUSE) => Err(Errno::EAGAIN),
            done => done,
        }
    }

    pub(super) fn datagram_connect(&mut self, h: Handle, peer: Option<SocketAddr>) -> Result<()> {
        if peer.is_some_and(|p| !p.is_ipv4()) {
            return Err(Errno::EAFNOSUPPORT);
        }
        match (self.table.get(h)?.kind, peer) {
            (Kind::Udp(id), Some(peer)) => {
                self.auto_bind(h, id)?;
                self.stack.udp.connect(&mut self.stack.core, id, peer)
            }
            (Kind::Udp(id), None) => {
                self.stack.udp.disconnect(id);
                Ok(())
            }
            (Kind::Icmp(id), peer) => {
                self.stack.icmp.connect(&mut self.stack.core, id, peer.map(|p| p.ip()))
            }
            _ => Err(Errno::EINVAL),
        }
    }

    #[inline(always)]
    pub(super) fn datagram_send(
        &mut self,
        h: Handle,
        parts: &[&[u8]],
        flags: i32,
        to: Option<SocketAddr>,
        meta: &SendMeta,
    ) -> Result<usize> {
        if let Kind::Udp(id) = self.table.get(h)?.kind
            && let [data] = parts
            && flags & MSG_OOB == 0
            && self.stack.udp.send_quick(&mut self.stack.core, id, data, to, meta)
        {
            return Ok(data.len());
        }
        self.datagram_send_any(h, parts, flags, to, meta)
    }

    #[inline(never)]
    fn datagram_send_any(
        &mut self,
        h: Handle,
        parts: &[&[u8]],
        flags: i32,
        to: Option<SocketAddr>,
        meta: &SendMeta,
    ) -> Result<usize> {
        if flags & MSG_OOB != 0 {
            return Err(Errno::EOPNOTSUPP);
        }
        match self.table.get(h)?.kind {
            Kind::Udp(id) => {
                self.auto_bind(h, id)?;
                self.stack.udp.send(&mut self.stack.core, id, parts, to, meta)
            }
            Kind::Icmp(id) => {
                let to = to.map(|to| to.ip());
                self.stack.icmp.send(&mut self.stack.core, id, parts, to, meta)
            }
            _ => Err(Errno::ENOTSOCK),
        }
    }

    #[inline]
    pub(super) fn datagram_recv(
        &mut self,
        h: Handle,
        buf: &mut [u8],
        flags: i32,
    ) -> Result<(usize, RecvMeta)> {
        if let Kind::Udp(id) = self.table.get(h)?.kind
            && flags & (MSG_ERRQUEUE | MSG_OOB | MSG_PEEK) == 0
            && let Some((frame, meta)) = self.stack.udp.front(id)
        {
            let n = meta.len().min(buf.len());
            buf[..n].copy_from_slice(&self.stack.core.pool.bytes(frame)[..n]);
            let read = (n, meta.meta());
            self.stack.udp.pop_front(&mut self.stack.core, id, n);
            return Ok(read);
        }
        self.datagram_recv_any(h, buf, flags)
    }

    #[inline(never)]
    fn datagram_recv_any(
        &mut self,
        h: Handle,
        buf: &mut [u8],
        flags: i32,
    ) -> Result<(usize, RecvMeta)> {
        if flags & MSG_ERRQUEUE != 0 {
            return Err(Errno::EAGAIN);
        }
        if flags & MSG_OOB != 0 {
            return Err(Errno::EOPNOTSUPP);
        }
        let (peek, core) = (flags & MSG_PEEK != 0, &mut self.stack.core);
        let meta = match self.table.get(h)?.kind {
            Kind::Udp(id) => self.stack.udp.recv(core, id, buf, peek)?,
            Kind::Icmp(id) => self.stack.icmp.recv(core, id, buf, peek)?,
            _ => return Err(Errno::ENOTSOCK),
        };
        Ok((meta.full_len.min(buf.len()), meta))
    }

    pub(super) fn datagram_shutdown(&mut self, h: Handle, read: bool, write: bool) -> Result<()> {
        match self.table.get(h)?.kind {
            Kind::Udp(id) => self.stack.udp.shutdown(id, read, write)?,
            Kind::Icmp(id) => self.stack.icmp.shutdown(id, read, write)?,
            _ => return Err(Errno::ENOTSOCK),
        }
        // As Linux: whoever waits looks again, whatever for.
        self.happened(h, crate::tcp::Readiness::all());
        Ok(())
    }

    pub(super) fn datagram_close(&mut self, h: Handle) {
        let core = &mut self.stack.core;
        match self.table.at(h.index()).kind {
            Kind::Udp(id) => {
                if let Some(addr) = self.stack.udp.close(core, id)
                    && let Some(guard) = &mut self.guard
                {
                    guard.release(UDP, addr.ip(), addr.port());
                }
            }
            Kind::Icmp(id) => self.stack.icmp.close(core, id),
            _ => {}
        }
    }

    /// Our end and the peer's.
    pub(super) fn datagram_ends(&self, kind: Kind) -> (SocketAddr, Option<SocketAddr>) {
        match kind {
            Kind::Udp(id) => (self.stack.udp.local_addr(id), self.stack.udp.peer_addr(id)),
            Kind::Icmp(id) => (self.stack.icmp.local_addr(id), self.stack.icmp.peer_addr(id)),
            _ => (ANY, None),
        }
    }

    pub(super) fn datagram_readable(&self, kind: Kind) -> usize {
        match kind {
            Kind::Udp(id) => self.stack.udp.next_len(id),
            Kind::Icmp(id) => self.stack.icmp.next_len(id),
            _ => 0,
        }
    }

    pub(super) fn datagram_error(&mut self, kind: Kind) -> Option<Errno> {
        match kind {
            Kind::Udp(id) => self.stack.udp.take_error(id),
            Kind::Icmp(id) => self.stack.icmp.take_error(id),
            _ => None,
        }
    }

    /// Hands a datagram socket's options on to the stack.
    pub(super) fn datagram_apply(&mut self, kind: Kind, options: &Options) {
        let config = &self.stack.core.config;
        let path_mtu = PathMtu::from_raw(options.mtu_discover).unwrap_or_default();
        let ttl = options.ttl.unwrap_or(config.ttl);
        let receive_buffer = match options.rcvbuf {
            0 => config.datagram.receive_buffer,
            // As it is read: the double of what was asked for.
            size => size.min(2 * config.datagram.max_receive_buffer),
        };
        match kind {
            Kind::Udp(id) => {
                let o = self.stack.udp.options(id);
                (o.reuse_addr, o.reuse_port) = (options.reuse.addr, options.reuse.port);
                (o.broadcast, o.tos, o.ttl) = (options.broadcast, options.tos, ttl);
                (o.path_mtu, o.receive_buffer) = (path_mtu, receive_buffer);
                o.free_bind = options.free_bind;
            }
            Kind::Icmp(id) => {
                let o = self.stack.icmp.options(id);
                (o.broadcast, o.tos, o.ttl) = (options.broadcast, options.tos, ttl);
                (o.path_mtu, o.receive_buffer) = (path_mtu, receive_buffer);
                o.free_bind = options.free_bind;
            }
            _ => {}
        }
    }
}
