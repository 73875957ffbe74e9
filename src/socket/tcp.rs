//! The calls on TCP sockets: Linux's answers for every call in every state.

use super::linux::*;
use super::options::Options;
use super::table::{Bound, Flags, Kind};
use super::types::Handle;
use super::{QUIET, Sockets};
use crate::errno::{Errno, Result};
use crate::stack::tcp::{Inherit, NONE, Open};
use crate::tcp::{ConnOptions, Discover, Readiness, State};
use core::net::{IpAddr, Ipv4Addr, SocketAddr};

const ANY: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
/// Ports that a guard may refuse in a row before `bind` to any port gives up.
const MAX_REFUSED: usize = 64;
/// How many a guard is asked for.
const TCP: u8 = IPPROTO_TCP as u8;

impl Sockets {
    /// Where the connection of a stream lies in memory, and how much of that is asked for
    /// ahead of a batch: for a tool that watches what is touched (`scripts/counts lines`).
    #[doc(hidden)]
    pub fn place(&self, h: Handle) -> Option<(core::ops::Range<usize>, usize)> {
        let (conn, _) = self.table.stream(h)?;
        Some(self.stack.tcp.place(conn))
    }

    /// What a connection of this socket starts with.
    pub(super) fn inherit(&self, options: &Options) -> Inherit {
        let defaults = &self.stack.core.config.tcp.options;
        let size = |set: usize, default: u32| if set == 0 { default } else { (set / 2) as u32 };
        let conn = ConnOptions {
            send_buffer: size(options.sndbuf, defaults.send_buffer),
            receive_buffer: size(options.rcvbuf, defaults.receive_buffer),
            window_clamp: options.window_clamp,
            nodelay: options.nodelay,
            cork: options.cork,
            quick_ack: options.quick_ack || defaults.quick_ack,
            keepalive: options.keepalive,
            keep_idle: options.keep_idle.into(),
            keep_interval: options.keep_interval.into(),
            keep_count: options.keep_count,
            user_timeout: options.user_timeout_ms,
            max_segment: match options.max_segment {
                0 => defaults.max_segment,
                wish => wish,
            },
            syn_retries: if options.syn_count > 0 { options.syn_count } else { defaults.syn_retries },
            congestion: options.congestion.unwrap_or(defaults.congestion),
            max_pacing_rate: match options.max_pacing_rate {
                u64::MAX => defaults.max_pacing_rate,
                rate => rate,
            },
            oob_inline: options.oob_inline,
            low_water: options.rcvlowat as u32,
            user_timeout_option: (options.user_timeout_option)
                .unwrap_or(defaults.user_timeout_option),
            // A size that the program set stays.
            tune_receive: defaults.tune_receive && options.rcvbuf == 0,
            tune_send: defaults.tune_send && options.sndbuf == 0,
            discover: match options.mtu_discover {
                IP_PMTUDISC_DONT => Discover::Dont,
                IP_PMTUDISC_WANT => defaults.discover,
                _ => Discover::Do,
            },
            ..defaults.clone()
        };
        Inherit {
            options: conn,
            ttl: options.ttl.unwrap_or(self.limits.ttl),
            tos: options.tos,
            reuse: options.reuse,
            defer_accept: options.defer_accept,
            fast_open: options.fast_open.min(self.stack.core.config.table.max_backlog as u32),
            fast_open_keys: options.fast_open_keys,
            fast_open_no_cookie: options.fast_open_no_cookie,
        }
    }

    pub(super) fn tcp_bind(&mut self, h: Handle, addr: SocketAddr) -> Result<()> {
        let socket = self.table.get(h)?;
        if !addr.is_ipv4() {
            return Err(Errno::EAFNOSUPPORT);
        }
        let ip = addr.ip();
        let ours = ip.is_unspecified() || self.stack.core.interface().is_local(ip);
        if !ours && !socket.options.free_bind {
            return Err(Errno::EADDRNOTAVAIL);
        }
        if socket.kind != Kind::Idle || socket.bound.is_some() {
            return Err(Errno::EINVAL);
        }
        let reuse = socket.options.reuse;
        let ports = &mut self.stack.tcp.ports;
        for _ in 0..MAX_REFUSED {
            let (id, port) = ports.bind(ip, addr.port(), reuse)?;
            let held = match &mut self.guard {
                // Nobody else on the host has a port of an address that is not its own.
                Some(guard) if ours && ports.needs_hold(ip, port) => {
                    guard.hold(TCP, ip, port, false).map(|()| ports.note_held(ip, port))
                }
                _ => Ok(()),
            };
            match held {
                Ok(()) => {
                    let addr = SocketAddr::new(ip, port);
                    self.table.get_mut(h)?.bound = Some(Box::new(Bound { id, addr }));
                    return Ok(());
                }
                Err(error) => {
                    ports.unbind(id);
                    if error != Errno::EADDRINUSE || addr.port() != 0 {
                        return Err(error);
                    }
                }
            }
        }
        Err(Errno::EADDRINUSE)
    }

    pub(super) fn tcp_listen(&mut self, h: Handle, backlog: i32) -> Result<()> {
        // Negative ones are huge, as in Linux.
        let backlog = backlog as u32 as usize;
        match self.table.get(h)?.kind {
            Kind::Listener(listener) => {
                self.stack.tcp.set_backlog(&self.stack.core, listener, backlog);
                return Ok(());
            }
            Kind::Idle => {}
            _ => return Err(Errno::EINVAL),
        }
        if self.table.get(h)?.bound.is_none() {
            self.tcp_bind(h, SocketAddr::new(ANY, 0))?;
        }
        let socket = self.table.get(h)?;
        let Some(bound) = socket.bound.as_deref().copied() else { return Err(Errno::EINVAL) };
        let inherit = self.inherit(&socket.options);
        let tcp = &mut self.stack.tcp;
        tcp.ports.set_listening(bound.id, true)?;
        let listener = tcp.listen(&self.stack.core, bound.addr, backlog, inherit, h.index());
        let socket = self.table.get_mut(h)?;
        socket.kind = Kind::Listener(listener);
        Ok(())
    }

    pub(super) fn tcp_accept(&mut self, h: Handle, listener: u32) -> Result<(Handle, SocketAddr)> {
        if !self.stack.tcp.can_accept(listener) {
            return Err(Errno::EAGAIN);
        }
        let options = self.table.get(h)?.options.clone();
        let new = self.table.insert(Kind::Idle, options)?;
        let Some(conn) = self.stack.tcp.accept(listener, new.index()) else {
            self.table.remove(new);
            return Err(Errno::EAGAIN);
        };
        self.table.at_mut(new.index()).kind = Kind::Stream(conn);
        Ok((new, self.stack.tcp.remote(conn)))
    }

    pub(super) fn tcp_connect(&mut self, h: Handle, addr: SocketAddr) -> Result<()> {
        let socket = self.table.get(h)?;
        if !addr.is_ipv4() {
            return Err(Errno::EAFNOSUPPORT);
        }
        match socket.kind {
            Kind::Idle => {
                let conn = self.tcp_open(h, addr)?;
                self.tcp_opened(h, conn)
            }
            Kind::Stream(conn) if socket.flags.contains(Flags::CONNECTING) => {
                self.tcp_connecting(h, conn)
            }
            _ => Err(Errno::EISCONN),
        }
    }

    /// `connect` again: how far the first got.
    fn tcp_connecting(&mut self, h: Handle, conn: u32) -> Result<()> {
        match self.stack.tcp.conn(conn).state() {
            State::SynSent | State::SynReceived => Err(Errno::EALREADY),
            State::Closed => {
                let error = self.stack.tcp.conn_mut(conn).take_error();
                self.drop_conn(h, conn)?;
                Err(error.unwrap_or(Errno::ECONNABORTED))
            }
            _ => {
                self.table.get_mut(h)?.flags.remove(Flags::CONNECTING);
                Ok(())
            }
        }
    }

    /// The socket has no connection any more; its bind stays.
    fn drop_conn(&mut self, h: Handle, conn: u32) -> Result<()> {
        self.stack.tcp.abort(&mut self.stack.core, conn);
        let socket = self.table.get_mut(h)?;
        socket.kind = Kind::Idle;
        socket.flags &= Flags::WATCHED | Flags::REPORTED;
        Ok(())
    }

    pub(super) fn tcp_open(&mut self, h: Handle, addr: SocketAddr) -> Result<u32> {
        let socket = self.table.get(h)?;
        let inherit = self.inherit(&socket.options);
        let bound = socket.bound.as_ref().map(|b| b.addr);
        let mut remote = addr;
        if remote.ip().is_unspecified() {
            // "Any address" is this host.
            let own = self.stack.core.interface().primary(false);
            remote.set_ip(own.unwrap_or(Ipv4Addr::LOCALHOST.into()));
        }
        if remote.port() == 0 {
            // No segment may have it; nobody could ever answer.
            return Err(Errno::ECONNREFUSED);
        }
        let open = Open {
            source: bound.map(|b| b.ip()).filter(|ip| !ip.is_unspecified()),
            port: bound.map(|b| b.port()),
            remote,
            inherit: &inherit,
            token: h.index(),
        };
        let guard = &mut self.guard;
        let (tcp, core) = (&mut self.stack.tcp, &mut self.stack.core);
        let conn = match guard {
            Some(guard) => {
                let mut hold = |ip, port| guard.hold(TCP, ip, port, true);
                tcp.connect(core, &open, Some(&mut hold))?
            }
            None => tcp.connect(core, &open, None)?,
        };
        let socket = self.table.get_mut(h)?;
        socket.kind = Kind::Stream(conn);
        socket.flags.insert(Flags::CONNECTING);
        Ok(conn)
    }

    pub(super) fn tcp_disconnect(&mut self, h: Handle) -> Result<()> {
        match self.table.get(h)?.kind {
            Kind::Stream(conn) => {
                self.drop_conn(h, conn)?;
                self.happened(h, Readiness::all());
                Ok(())
            }
            Kind::Listener(listener) => self.stop_listening(h, listener),
            _ => Ok(()),
        }
    }

    fn stop_listening(&mut self, h: Handle, listener: u32) -> Result<()> {
        self.stack.tcp.unlisten(&mut self.stack.core, listener);
        let socket = self.table.get_mut(h)?;
        socket.kind = Kind::Idle;
        if let Some(bound) = &socket.bound {
            let _ = self.stack.tcp.ports.set_listening(bound.id, false);
        }
        self.happened(h, Readiness::IN | Readiness::OUT | Readiness::HUP);
        Ok(())
    }

    /// Ends what MSG_MORE of the last send asked for.
    #[inline]
    pub(super) fn uncork(&mut self, h: Handle) {
        let Ok(socket) = self.table.get_mut(h) else { return };
        if let (true, Kind::Stream(conn)) = (socket.flags.contains(Flags::MORE), socket.kind) {
            socket.flags.remove(Flags::MORE);
            let cork = socket.options.cork;
            let _ = self.stack.tcp.conn_mut(conn).set_cork(cork);
            self.stack.tcp.changed(conn);
        }
    }

    /// `send` where the fast way does not do.
    pub(super) fn tcp_send(&mut self, h: Handle, data: &[u8], flags: i32) -> Result<usize> {
        let socket = self.table.get_mut(h)?;
        let Kind::Stream(conn) = socket.kind else { return Err(Errno::EPIPE) };
        let (more, cork) = (flags & MSG_MORE != 0, socket.options.cork);
        let was = socket.flags.contains(Flags::MORE);
        let (tcp, core) = (&mut self.stack.tcp, &mut self.stack.core);
        let state = tcp.conn(conn).state();
        if let Some(error) = tcp.conn_mut(conn).take_error() {
            return Err(error);
        }
        if tcp.conn(conn).is_deferred() {
            return self.send_deferred(h, conn, data, flags);
        }
        if matches!(state, State::SynSent | State::SynReceived) && !tcp.conn(conn).is_early() {
            return Err(Errno::EAGAIN);
        }
        if !tcp.conn(conn).may_send() {
            return Err(Errno::EPIPE);
        }
        if more != was {
            // Held back until a send without MSG_MORE, or a full segment.
            self.table.get_mut(h)?.flags.set(Flags::MORE, more);
            let _ = tcp.conn_mut(conn).set_cork(cork || more);
            tcp.changed(conn);
        }
        if data.is_empty() {
            return Ok(0);
        }
        match tcp.send(core, conn, data) {
            0 => Err(Errno::EAGAIN),
            n => {
                if flags & MSG_OOB != 0 {
                    tcp.conn_mut(conn).mark_urgent();
                }
                if flags & MSG_EOR != 0 && n == data.len() {
                    tcp.conn_mut(conn).end_record();
                }
                Ok(n)
            }
        }
    }

    /// `recv` where the fast way does not do.
    pub(super) fn tcp_recv(&mut self, h: Handle, buf: &mut [u8], flags: i32) -> Result<usize> {
        let socket = self.table.get(h)?;
        if flags & MSG_OOB != 0 {
            return self.tcp_recv_urgent(h, buf, flags);
        }
        if flags & MSG_ERRQUEUE != 0 {
            return Err(Errno::EAGAIN);
        }
        let shut = socket.flags.contains(Flags::SHUT_READ);
        let Kind::Stream(conn) = socket.kind else { return Err(Errno::ENOTCONN) };
        if buf.is_empty() {
            return Ok(0);
        }
        let (tcp, core) = (&mut self.stack.tcp, &mut self.stack.core);
        if flags & !QUIET != 0 {
            // With MSG_TRUNC the bytes are thrown away: what is in the buffer
            // then is not the program's business.
            let n = tcp.recv(core, conn, buf, flags & MSG_PEEK != 0);
            if n > 0 {
                return Ok(n);
            }
        }
        let conn = tcp.conn_mut(conn);
        if conn.eof() {
            return Ok(0);
        }
        if let Some(error) = conn.take_error() {
            return Err(error);
        }
        if shut || conn.state() == State::Closed {
            return Ok(0);
        }
        Err(Errno::EAGAIN)
    }

    /// `recv` of the urgent byte.
    fn tcp_recv_urgent(&mut self, h: Handle, buf: &mut [u8], flags: i32) -> Result<usize> {
        let socket = self.table.get(h)?;
        let shut = socket.flags.contains(Flags::SHUT_READ);
        let Kind::Stream(conn) = socket.kind else { return Err(Errno::EINVAL) };
        match self.stack.tcp.conn_mut(conn).recv_urgent(flags & MSG_PEEK != 0) {
            Err(Errno::EAGAIN) if shut => Ok(0),
            Ok(Some(byte)) => {
                let Some(to) = buf.first_mut() else { return Ok(0) };
                if flags & MSG_TRUNC == 0 {
                    *to = byte;
                }
                Ok(1)
            }
            Ok(None) => Ok(0),
            Err(error) => Err(error),
        }
    }

    pub(super) fn tcp_shutdown(&mut self, h: Handle, read: bool, write: bool) -> Result<()> {
        let socket = self.table.get_mut(h)?;
        match socket.kind {
            Kind::Listener(listener) if read => self.stop_listening(h, listener),
            Kind::Listener(_) => Ok(()),
            Kind::Stream(conn) => {
                let state = self.stack.tcp.conn(conn).state();
                if state == State::Closed {
                    return Err(Errno::ENOTCONN);
                }
                if state == State::SynSent {
                    self.drop_conn(h, conn)?;
                    self.happened(h, Readiness::IN | Readiness::OUT | Readiness::HUP);
                    return Ok(());
                }
                if read {
                    socket.flags.insert(Flags::SHUT_READ);
                }
                if write {
                    self.stack.tcp.shutdown_send(&mut self.stack.core, conn);
                }
                // As Linux: whoever waits looks again, whatever for.
                self.happened(h, Readiness::all());
                Ok(())
            }
            _ => Err(Errno::ENOTCONN),
        }
    }

    pub(super) fn tcp_close(&mut self, h: Handle) {
        let socket = self.table.at_mut(h.index());
        let linger = socket.options.linger;
        let (kind, bound) = (socket.kind, socket.bound.take());
        let (tcp, core) = (&mut self.stack.tcp, &mut self.stack.core);
        match kind {
            Kind::Stream(conn) if linger == Some(0) => tcp.abort(core, conn),
            Kind::Stream(conn) => tcp.close(core, conn),
            Kind::Listener(listener) => tcp.unlisten(core, listener),
            _ => {}
        }
        if let Some(bound) = bound {
            tcp.ports.unbind(bound.id);
        }
    }

    pub(super) fn tcp_peer(&self, conn: u32) -> Result<SocketAddr> {
        match self.stack.tcp.conn(conn).state() {
            State::Closed | State::SynSent => Err(Errno::ENOTCONN),
            _ => Ok(self.stack.tcp.remote(conn)),
        }
    }
}

const _: () = assert!(NONE == u32::MAX, "no place of the handle table is mistaken for nobody");
