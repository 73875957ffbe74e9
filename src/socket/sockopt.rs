//! `setsockopt` and `getsockopt`.

use super::linux::*;
use super::options::{Options, int, put, put_int};
use super::table::{Flags, Kind};
use super::types::Handle;
use super::{Sockets, info};
use crate::errno::{Errno, Result};
use crate::tcp::{Algorithm, Readiness, State};
use std::sync::Arc;

/// Bytes of a name of TCP_CONGESTION.
const NAME_LEN: usize = 16;

impl Sockets {
    /// Sets an option; numbers and byte layouts are Linux's.
    ///
    /// # Errors
    /// `ENOPROTOOPT` (unknown, or not to be set), `EINVAL`, `EDOM`, `ENOENT` (an
    /// unknown congestion control), `EBADF`, `ENOTSOCK`.
    pub fn set_option(&mut self, h: Handle, level: i32, name: i32, value: &[u8]) -> Result<()> {
        let socket = self.table.get(h)?;
        let kind = socket.kind;
        let stream = is_stream(kind);
        if let Kind::Set(_) = kind {
            return Err(Errno::ENOTSOCK);
        }
        if stream && (level, name) == (IPPROTO_TCP, TCP_CONGESTION) {
            return self.set_congestion(h, value);
        }
        if stream && level == IPPROTO_TCP {
            self.may_set(kind, name, value)?;
        }
        let socket = self.table.get(h)?;
        let mut options = (*socket.options).clone();
        options.set(level, name, value, stream, &self.limits)?;
        let socket = self.table.get_mut(h)?;
        socket.options = Arc::new(options);
        self.apply(h, level, name)
    }

    /// What some options ask of the socket's state, as Linux does.
    fn may_set(&self, kind: Kind, name: i32, value: &[u8]) -> Result<()> {
        match name {
            TCP_WINDOW_CLAMP if kind != Kind::Idle && int(value)? == 0 => Err(Errno::EINVAL),
            TCP_FASTOPEN if matches!(kind, Kind::Stream(_)) => Err(Errno::EINVAL),
            TCP_FASTOPEN_CONNECT if !self.stack.core.config.table.fast_open_client => {
                Err(Errno::EOPNOTSUPP)
            }
            TCP_FASTOPEN_CONNECT | TCP_FASTOPEN_NO_COOKIE if matches!(kind, Kind::Stream(_)) => {
                Err(Errno::EINVAL)
            }
            TCP_FASTOPEN_CONNECT if kind != Kind::Idle => Err(Errno::EINVAL),
            _ => Ok(()),
        }
    }

    /// Hands a changed option on to what it acts on.
    fn apply(&mut self, h: Handle, level: i32, name: i32) -> Result<()> {
        let socket = self.table.get(h)?;
        let (kind, options) = (socket.kind, socket.options.clone());
        let bound = socket.bound.as_ref().map(|b| b.id);
        match kind {
            Kind::Stream(conn) => {
                self.apply_stream(conn, level, name, &options);
                if (level, name) == (SOL_SOCKET, SO_SNDBUF) {
                    // It may have grown: who waits for room looks again.
                    self.happened(h, Readiness::OUT);
                }
                if (level, name) == (SOL_SOCKET, SO_RCVLOWAT) {
                    // What waits may be enough now.
                    self.happened(h, Readiness::IN);
                }
            }
            Kind::Listener(listener) => {
                let inherit = self.inherit(&options);
                if let Some(kept) = self.stack.tcp.listener_options(listener) {
                    *kept = inherit;
                }
            }
            kind => self.datagram_apply(kind, &options),
        }
        if let Some(id) = bound {
            self.stack.tcp.ports.set_reuse(id, options.reuse);
        }
        Ok(())
    }

    fn apply_stream(&mut self, id: u32, level: i32, name: i32, options: &Options) {
        let inherit = self.inherit(options);
        let (core, tcp) = (&self.stack.core, &mut self.stack.tcp);
        let (now, config) = (core.now, &core.config.tcp);
        let conn = tcp.conn_mut(id);
        let kept = &inherit.options;
        match (level, name) {
            (SOL_SOCKET, SO_KEEPALIVE) => conn.set_keepalive(now, kept.keepalive),
            (SOL_SOCKET, SO_SNDBUF) => conn.set_send_buffer(config, kept.send_buffer),
            (SOL_SOCKET, SO_RCVBUF) => {
                let _ = conn.set_receive_buffer(config, kept.receive_buffer);
            }
            (SOL_SOCKET, SO_RCVLOWAT) => {
                let _ = conn.set_low_water(config, kept.low_water);
            }
            (IPPROTO_TCP, TCP_WINDOW_CLAMP) => {
                let _ = conn.set_window_clamp(config, kept);
            }
            (SOL_SOCKET, SO_MAX_PACING_RATE) => conn.set_max_pacing_rate(kept.max_pacing_rate),
            (SOL_SOCKET, SO_OOBINLINE) => conn.set_oob_inline(kept.oob_inline),
            (IPPROTO_TCP, RR_TCP_UTO) => {
                let _ = conn.set_user_timeout_option(kept.user_timeout_option);
            }
            (IPPROTO_IP, IP_MTU_DISCOVER) => conn.set_discover(kept.discover),
            (IPPROTO_IP, IP_TOS) => conn.template_mut().set_tos(inherit.tos),
            (IPPROTO_IP, IP_TTL) => conn.template_mut().set_ttl(inherit.ttl),
            (IPPROTO_TCP, TCP_NODELAY) => {
                let _ = conn.set_nodelay(kept.nodelay);
            }
            (IPPROTO_TCP, TCP_CORK) => {
                let _ = conn.set_cork(kept.cork);
            }
            (IPPROTO_TCP, TCP_QUICKACK) => {
                let _ = conn.set_quick_ack(kept.quick_ack);
            }
            (IPPROTO_TCP, TCP_KEEPIDLE | TCP_KEEPINTVL | TCP_KEEPCNT) => {
                let (idle, interval) = (kept.keep_idle, kept.keep_interval);
                conn.set_keepalive_times(now, idle, interval, kept.keep_count);
            }
            (IPPROTO_TCP, TCP_SYNCNT) => conn.set_syn_retries(kept.syn_retries),
            (IPPROTO_TCP, TCP_USER_TIMEOUT) => conn.set_user_timeout(kept.user_timeout),
            _ => return,
        }
        // What was held back may leave, timers may have moved.
        tcp.changed(id);
    }

    fn set_congestion(&mut self, h: Handle, value: &[u8]) -> Result<()> {
        let name = value.split(|&b| b == 0).next().unwrap_or_default();
        if name.is_empty() {
            return Err(Errno::EINVAL);
        }
        let found = core::str::from_utf8(name).ok().and_then(Algorithm::from_name);
        let algorithm = found.ok_or(Errno::ENOENT)?;
        let socket = self.table.get_mut(h)?;
        let kind = socket.kind;
        Arc::make_mut(&mut socket.options).congestion = Some(algorithm);
        if let Kind::Stream(conn) = kind {
            self.stack.tcp.conn_mut(conn).set_congestion(algorithm);
        }
        self.apply(h, IPPROTO_TCP, TCP_CONGESTION)
    }

    /// Reads an option into the front of `out`, cut to what fits; returns the
    /// bytes written.
    ///
    /// # Errors
    /// `ENOPROTOOPT`, `ENOTCONN` (IP_MTU without a connection), `EBADF`,
    /// `ENOTSOCK`.
    pub fn get_option(&mut self, h: Handle, level: i32, name: i32, out: &mut [u8]) -> Result<usize> {
        let socket = self.table.get(h)?;
        let (kind, stream) = (socket.kind, is_stream(socket.kind));
        match (level, name) {
            _ if matches!(kind, Kind::Set(_)) => Err(Errno::ENOTSOCK),
            (SOL_SOCKET, SO_ERROR) => {
                let error = self.take_error(h)?;
                Ok(put_int(out, error.map_or(0, Errno::raw)))
            }
            (SOL_SOCKET, SO_TYPE) if stream => Ok(put_int(out, SOCK_STREAM)),
            (SOL_SOCKET, SO_TYPE) if socket.flags.contains(Flags::RAW) => {
                Ok(put_int(out, SOCK_RAW))
            }
            (SOL_SOCKET, SO_TYPE) => Ok(put_int(out, SOCK_DGRAM)),
            (SOL_SOCKET, SO_DOMAIN) => Ok(put_int(out, AF_INET)),
            (SOL_SOCKET, SO_PROTOCOL) => Ok(put_int(out, match kind {
                Kind::Udp(_) => IPPROTO_UDP,
                Kind::Icmp(_) => IPPROTO_ICMP,
                _ => IPPROTO_TCP,
            })),
            (SOL_SOCKET, SO_ACCEPTCONN) => {
                Ok(put_int(out, matches!(kind, Kind::Listener(_)).into()))
            }
            (SOL_SOCKET, SO_RCVBUF | SO_SNDBUF) if let Kind::Stream(conn) = kind => {
                let set = if name == SO_RCVBUF { socket.options.rcvbuf } else { socket.options.sndbuf };
                let conn = self.stack.tcp.conn(conn);
                // Not set: as large as it has grown.
                let grown = if name == SO_RCVBUF { conn.receive_buffer() } else { conn.send_buffer() };
                Ok(put_int(out, if set == 0 { grown as i32 } else { set as i32 }))
            }
            (IPPROTO_IP, IP_MTU) => self.get_mtu(kind, out),
            (IPPROTO_TCP, TCP_INFO | TCP_CONGESTION | TCP_MAXSEG | TCP_SYNCNT) if stream => {
                self.get_tcp(h, name, out)
            }
            _ => socket.options.get(level, name, out, stream, &self.limits),
        }
    }

    fn get_tcp(&self, h: Handle, name: i32, out: &mut [u8]) -> Result<usize> {
        let socket = self.table.get(h)?;
        let conn = match socket.kind {
            Kind::Stream(conn) => Some(self.stack.tcp.conn(conn)),
            _ => None,
        };
        let default = self.stack.core.config.tcp.options.congestion;
        match name {
            TCP_CONGESTION => {
                let kept = socket.options.congestion.unwrap_or(default);
                let mut value = [0; NAME_LEN];
                let name = conn.map_or(kept, |c| c.congestion()).name();
                value[..name.len()].copy_from_slice(name.as_bytes());
                Ok(put(out, &value))
            }
            TCP_MAXSEG => {
                // 536 where nothing is known (RFC 9293, 3.7.1).
                let wish = match socket.options.max_segment {
                    0 => 536,
                    mss => mss,
                };
                Ok(put_int(out, conn.map_or(wish, |c| c.segment_size()).into()))
            }
            TCP_SYNCNT => {
                let default = self.stack.core.config.tcp.syn_retries;
                let set = socket.options.syn_count;
                Ok(put_int(out, if set > 0 { set } else { default }.into()))
            }
            _ => Ok(put(out, &self.info_bytes(socket.kind))),
        }
    }

    fn info_bytes(&self, kind: Kind) -> [u8; info::LEN] {
        let mut bytes = [0; info::LEN];
        match kind {
            Kind::Stream(conn) => {
                let core = &self.stack.core;
                return info::bytes(&self.stack.tcp.conn(conn).info(core.now, &core.config.tcp));
            }
            Kind::Listener(id) => {
                // As in Linux: unacked is what waits, sacked the bound.
                let (ready, _, backlog) = self.stack.tcp.listener_queues(id);
                bytes[0] = State::Listen as u8;
                bytes[24..28].copy_from_slice(&(ready as u32).to_ne_bytes());
                bytes[28..32].copy_from_slice(&(backlog as u32).to_ne_bytes());
            }
            _ => bytes[0] = State::Closed as u8,
        }
        bytes
    }

    fn get_mtu(&mut self, kind: Kind, out: &mut [u8]) -> Result<usize> {
        let peer = match kind {
            Kind::Stream(conn) => return Ok(put_int(out, self.stack.tcp.conn(conn).mtu() as i32)),
            kind => self.datagram_ends(kind).1,
        };
        let peer = peer.ok_or(Errno::ENOTCONN)?.ip();
        let path = self.stack.core.route(peer)?;
        let mtu = self.stack.core.path_mtu(&path, peer);
        Ok(put_int(out, mtu as i32))
    }

    /// Takes the error that waits (SO_ERROR).
    ///
    /// # Errors
    /// `EBADF`.
    pub fn take_error(&mut self, h: Handle) -> Result<Option<Errno>> {
        Ok(match self.table.get(h)?.kind {
            Kind::Stream(conn) => self.stack.tcp.conn_mut(conn).take_error(),
            kind => self.datagram_error(kind),
        })
    }

    /// True for a stream, whatever its state.
    pub fn is_stream(&self, h: Handle) -> bool {
        self.table.get(h).is_ok_and(|socket| is_stream(socket.kind))
    }

    /// True where an error waits that ended a stream.
    pub fn has_error(&self, h: Handle) -> bool {
        match self.table.get(h).map(|socket| socket.kind) {
            Ok(Kind::Stream(conn)) => self.stack.tcp.conn(conn).has_error(),
            _ => false,
        }
    }

    /// As [`Sockets::send`], of what follows data that was taken: what ended the
    /// connection stays for the next call, as in Linux, and this one says EPIPE.
    ///
    /// # Errors
    /// As there.
    pub fn send_on(&mut self, h: Handle, data: &[u8], flags: i32) -> Result<usize> {
        if self.has_error(h) { Err(Errno::EPIPE) } else { self.send(h, data, flags) }
    }

    /// Puts an error back that was taken by a call which says how much was done
    /// before it: it is the next call's, or SO_ERROR's. Only what happened to the
    /// socket, no call's own fault; and EPIPE every call finds by itself.
    ///
    /// # Errors
    /// `EBADF`.
    pub fn leave_error(&mut self, h: Handle, error: Errno) -> Result<()> {
        use Errno::{EAGAIN, EFAULT, EINTR, EINVAL, EMSGSIZE, ENETDOWN, ENOBUFS, ENOTCONN, EOPNOTSUPP, EPIPE};
        let kind = self.table.get(h)?.kind;
        if matches!(error, EAGAIN | EFAULT | EINTR | EINVAL | EMSGSIZE | ENETDOWN | ENOBUFS | ENOTCONN | EOPNOTSUPP | EPIPE) {
            return Ok(());
        }
        match kind {
            Kind::Stream(conn) if self.stack.tcp.conn(conn).state() == State::Closed => {
                self.stack.tcp.conn_mut(conn).put_error(error);
            }
            Kind::Udp(id) => self.stack.udp.fail(id, error),
            Kind::Icmp(id) => self.stack.icmp.fail(id, error),
            _ => {}
        }
        Ok(())
    }

    /// What the runtime needs for calls that block: SO_RCVTIMEO and SO_SNDTIMEO in
    /// microseconds (0: none), and SO_LINGER in seconds.
    ///
    /// # Errors
    /// `EBADF`.
    pub fn blocking_options(&self, h: Handle) -> Result<(u64, u64, Option<i32>)> {
        let o = &self.table.get(h)?.options;
        Ok((o.rcvtimeo_us, o.sndtimeo_us, o.linger))
    }

    /// Bytes from which on a stream is readable, and a read that waits returns
    /// (SO_RCVLOWAT); 1 for what is no stream.
    pub fn low_water(&self, h: Handle) -> usize {
        match self.table.get(h) {
            Ok(socket) if is_stream(socket.kind) => socket.options.rcvlowat as usize,
            _ => 1,
        }
    }

    /// True where a stream's peer may send hardly more until something is read.
    pub fn window_is_used(&self, h: Handle) -> bool {
        match self.table.get(h).map(|socket| socket.kind) {
            Ok(Kind::Stream(conn)) => self.stack.tcp.conn(conn).window_is_used(),
            _ => false,
        }
    }

    /// Whether the program asked for IP_PKTINFO, IP_RECVTOS and IP_RECVTTL.
    ///
    /// # Errors
    /// `EBADF`.
    pub fn control_options(&self, h: Handle) -> Result<(bool, bool, bool)> {
        let o = &self.table.get(h)?.options;
        Ok((o.pktinfo, o.recv_tos, o.recv_ttl))
    }
}

fn is_stream(kind: Kind) -> bool {
    matches!(kind, Kind::Idle | Kind::Listener(_) | Kind::Stream(_))
}

