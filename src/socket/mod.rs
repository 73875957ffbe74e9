//! The program's view of one core: sockets behind handles, with the calls,
//! options and errors of POSIX as Linux has them, epoll sets, and frames lent
//! without a copy. Every call returns at once; what would block is `EAGAIN`, and
//! waiting is the runtime's business.
//!
//! ```text
//! Sockets::receive(batch) -> stack -> events -> ready lists
//! program: epoll_wait, recv, send ...
//! Sockets::turn(now)      -> timers, segments to Core::tx
//! ```

#![forbid(unsafe_code)]

mod datagram;
mod deliver;
mod epoll;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod fast_open;
mod info;
pub mod linux;
mod now;
mod options;
mod sets;
mod sockopt;
mod table;
mod tcp;
mod types;
mod zero_copy;

pub use crate::tcp::Readiness;
pub use crate::stack::datagram::{RecvMeta, SendMeta};
pub use types::{EpollEvent, Figure, Handle, Membership, PortGuard};

use crate::errno::{Errno, Result};
use crate::frame::{Batch, Pool, TxQueue};
use crate::stack::Stack;
use crate::time::Instant;
use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use linux::*;
use options::{Limits, Options};
use std::io::IoSlice;
use std::sync::Arc;
use table::{Flags, Kind, View};

/// Flags of `send` and `recv` that change nothing in a call that never blocks.
const QUIET: i32 = MSG_DONTWAIT | MSG_NOSIGNAL | MSG_WAITALL;

/// One core's sockets.
pub struct Sockets {
    /// The stack under them.
    pub stack: Stack,
    table: table::Sockets,
    sets: epoll::Sets,
    /// The handle's place of each epoll set.
    places: Vec<u32>,
    /// Places whose readiness changed and is watched.
    watched: Vec<u32>,
    guard: Option<Box<dyn PortGuard>>,
    /// What a new socket starts with.
    defaults: Arc<Options>,
    limits: Limits,
    /// By frame number: whom it was lent to.
    lent: Vec<zero_copy::Lent>,
}

impl Sockets {
    /// Sockets over a stack.
    pub fn new(stack: Stack) -> Self {
        let config = &stack.core.config;
        let (tcp, datagram) = (&config.tcp, &config.datagram);
        let limits = Limits {
            max_sndbuf: tcp.max_send_buffer as usize,
            max_window: tcp.max_receive_buffer as usize,
            max_rcvbuf: (tcp.max_receive_buffer as usize).max(datagram.max_receive_buffer),
            sndbuf: tcp.options.send_buffer as usize,
            rcvbuf: tcp.options.receive_buffer as usize,
            ttl: config.ttl,
        };
        let defaults = Options::of(&tcp.options);
        Self {
            table: table::Sockets::new(config.table.max_sockets),
            stack,
            sets: epoll::Sets::default(),
            places: Vec::new(),
            watched: Vec::new(),
            guard: None,
            defaults: Arc::new(defaults),
            limits,
            lent: Vec::new(),
        }
    }

    /// Gives the sockets a guard over ports; before the first `bind`.
    pub fn set_guard(&mut self, guard: Box<dyn PortGuard>) {
        self.guard = Some(guard);
    }

    /// Takes in a batch of received packets. All frames are consumed.
    #[inline]
    pub fn receive(&mut self, now: Instant, batch: &mut Batch) {
        self.stack.receive(now, batch);
        if !self.deliver_known() {
            self.deliver();
        }
    }

    /// Does what is due at `now`, and queues everything that waits to be sent.
    /// Called once a loop, after the program's turn.
    #[inline]
    pub fn turn(&mut self, now: Instant) {
        self.turn_and_tell(now);
    }

    /// As [`Sockets::turn`]: true where something happened at a socket that a program
    /// may wait for.
    #[inline]
    pub fn turn_and_tell(&mut self, now: Instant) -> bool {
        self.stack.turn(now);
        let any = self.deliver();
        if self.stack.tcp.ports.has_released() {
            self.release_ports();
        }
        any
    }

    /// A connection gave way in the last turn and could send more: the next is due now.
    pub fn has_more_to_send(&self) -> bool {
        self.stack.has_more_to_send()
    }

    /// When [`Sockets::turn`] has to be called next; `None`: not before
    /// something comes in.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.stack.next_deadline()
    }

    /// The frames, and what waits for the device.
    #[inline]
    pub fn tx(&mut self) -> (&mut Pool, &mut TxQueue) {
        (&mut self.stack.core.pool, &mut self.stack.core.tx)
    }

    /// Frames held by the stack, its sockets, and programs that borrowed some.
    pub fn held_frames(&self) -> usize {
        self.stack.held_frames()
    }

    /// Open handles, epoll sets included.
    pub fn open_handles(&self) -> usize {
        self.table.len()
    }

    #[cold]
    fn release_ports(&mut self) {
        let Some(guard) = &mut self.guard else { return };
        for (addr, port) in self.stack.tcp.ports.take_released() {
            guard.release(IPPROTO_TCP as u8, addr, port);
        }
    }

    /// Opens a socket. `domain`, `kind` and `protocol` are Linux's numbers;
    /// `kind` without SOCK_NONBLOCK and SOCK_CLOEXEC.
    ///
    /// # Errors
    /// `EAFNOSUPPORT`, `ESOCKTNOSUPPORT`, `EPROTONOSUPPORT`, `EMFILE`.
    pub fn socket(&mut self, domain: i32, kind: i32, protocol: i32) -> Result<Handle> {
        if domain != AF_INET {
            return Err(Errno::EAFNOSUPPORT);
        }
        let options = self.defaults.clone();
        match (kind, protocol) {
            (SOCK_STREAM, 0 | IPPROTO_TCP) => self.table.insert(Kind::Idle, options),
            (SOCK_DGRAM, 0 | IPPROTO_UDP) => self.open_udp(options),
            (SOCK_DGRAM, IPPROTO_ICMP) => self.open_icmp(options, false),
            (SOCK_RAW, IPPROTO_ICMP) => self.open_icmp(options, true),
            (SOCK_STREAM | SOCK_DGRAM | SOCK_RAW, _) => Err(Errno::EPROTONOSUPPORT),
            _ => Err(Errno::ESOCKTNOSUPPORT),
        }
    }

    /// Binds a socket to an address and port; 0 takes a free one.
    ///
    /// # Errors
    /// `EINVAL` (bound already), `EADDRINUSE`, `EADDRNOTAVAIL` (not our address),
    /// `EAFNOSUPPORT`, `EACCES` (the guard says so).
    pub fn bind(&mut self, h: Handle, addr: SocketAddr) -> Result<()> {
        match self.table.get(h)?.kind {
            Kind::Idle | Kind::Listener(_) | Kind::Stream(_) => self.tcp_bind(h, addr),
            Kind::Udp(_) | Kind::Icmp(_) => self.datagram_bind(h, addr),
            _ => Err(Errno::ENOTSOCK),
        }
    }

    /// Makes a TCP socket listen; again: changes the backlog.
    ///
    /// # Errors
    /// `EADDRINUSE`, `EINVAL` (connected), `EOPNOTSUPP` (not TCP).
    pub fn listen(&mut self, h: Handle, backlog: i32) -> Result<()> {
        match self.table.get(h)?.kind {
            Kind::Idle | Kind::Listener(_) | Kind::Stream(_) => self.tcp_listen(h, backlog),
            Kind::Set(_) => Err(Errno::ENOTSOCK),
            _ => Err(Errno::EOPNOTSUPP),
        }
    }

    /// Takes the connection that has waited longest, and its peer's address.
    ///
    /// # Errors
    /// `EAGAIN`, `EINVAL` (does not listen), `EOPNOTSUPP` (not TCP), `EMFILE`.
    pub fn accept(&mut self, h: Handle) -> Result<(Handle, SocketAddr)> {
        match self.table.get(h)?.kind {
            Kind::Listener(listener) => self.tcp_accept(h, listener),
            Kind::Idle | Kind::Stream(_) => Err(Errno::EINVAL),
            Kind::Set(_) => Err(Errno::ENOTSOCK),
            _ => Err(Errno::EOPNOTSUPP),
        }
    }

    /// Connects. TCP: begins to, and returns `EINPROGRESS`; a later call returns
    /// how it ended. Datagrams: sets the peer.
    ///
    /// # Errors
    /// `EINPROGRESS`, `EALREADY`, `EISCONN`, `ECONNREFUSED`, `ETIMEDOUT`,
    /// `EADDRNOTAVAIL`, `ENETUNREACH`, `EHOSTUNREACH`, `EAFNOSUPPORT`, `ENOBUFS`.
    pub fn connect(&mut self, h: Handle, addr: SocketAddr) -> Result<()> {
        match self.table.get(h)?.kind {
            Kind::Idle | Kind::Listener(_) | Kind::Stream(_) => self.tcp_connect(h, addr),
            Kind::Udp(_) | Kind::Icmp(_) => self.datagram_connect(h, Some(addr)),
            _ => Err(Errno::ENOTSOCK),
        }
    }

    /// Undoes `connect` (what connecting to AF_UNSPEC does): a datagram socket
    /// has no peer any more, a TCP connection is reset.
    ///
    /// # Errors
    /// `EBADF`, `ENOTSOCK`.
    pub fn disconnect(&mut self, h: Handle) -> Result<()> {
        match self.table.get(h)?.kind {
            Kind::Idle | Kind::Listener(_) | Kind::Stream(_) => self.tcp_disconnect(h),
            Kind::Udp(_) | Kind::Icmp(_) => self.datagram_connect(h, None),
            _ => Err(Errno::ENOTSOCK),
        }
    }

    /// Sends as much of `data` as fits.
    ///
    /// # Errors
    /// `EAGAIN`, `EPIPE`, `ECONNRESET`, `ENOTCONN`, `EDESTADDRREQ`, `EMSGSIZE`,
    /// `EOPNOTSUPP` (MSG_OOB on a datagram socket).
    #[inline]
    pub fn send(&mut self, h: Handle, data: &[u8], flags: i32) -> Result<usize> {
        match self.send_now(h, data, flags) {
            0 => self.send_any(h, data, flags),
            n => Ok(n),
        }
    }

    /// As [`Sockets::send`], of any size.
    #[inline(never)]
    fn send_any(&mut self, h: Handle, data: &[u8], flags: i32) -> Result<usize> {
        let socket = self.table.get(h)?;
        if let Kind::Stream(conn) = socket.kind
            && flags & !QUIET == 0
            && !socket.flags.contains(Flags::MORE)
        {
            let n = self.stack.tcp.send(&mut self.stack.core, conn, data);
            if n > 0 {
                return Ok(n);
            }
        }
        self.send_slow(h, data, flags)
    }

    #[cold]
    fn send_slow(&mut self, h: Handle, data: &[u8], flags: i32) -> Result<usize> {
        match self.table.get(h)?.kind {
            Kind::Idle if flags & MSG_FASTOPEN != 0 => self.send_opening(h, &[], flags, None),
            Kind::Idle | Kind::Listener(_) | Kind::Stream(_) => self.tcp_send(h, data, flags),
            Kind::Set(_) => Err(Errno::ENOTSOCK),
            _ => self.datagram_send(h, &[data], flags, None, &SendMeta::default()),
        }
    }

    /// As [`Sockets::send`] with the data in several pieces.
    ///
    /// # Errors
    /// As [`Sockets::send`].
    pub fn send_vectored(&mut self, h: Handle, data: &[IoSlice<'_>], flags: i32) -> Result<usize> {
        self.send_message(h, data, flags, None, &SendMeta::default())
    }

    /// Sends to an address (datagrams; a stream that is connected ignores it).
    ///
    /// # Errors
    /// As [`Sockets::send`].
    pub fn send_to(
        &mut self,
        h: Handle,
        data: &[u8],
        flags: i32,
        to: Option<SocketAddr>,
        meta: &SendMeta,
    ) -> Result<usize> {
        match self.table.get(h)?.kind {
            Kind::Udp(_) | Kind::Icmp(_) => {
                self.datagram_send(h, &[data], flags, to, meta)
            }
            _ if flags & MSG_FASTOPEN != 0 => self.send_opening(h, &[IoSlice::new(data)], flags, to),
            _ => self.send(h, data, flags),
        }
    }

    /// As [`Sockets::send_to`] with the data in several pieces (`sendmsg`).
    ///
    /// # Errors
    /// As [`Sockets::send`].
    pub fn send_message(
        &mut self,
        h: Handle,
        data: &[IoSlice<'_>],
        flags: i32,
        to: Option<SocketAddr>,
        meta: &SendMeta,
    ) -> Result<usize> {
        if let Kind::Udp(_) | Kind::Icmp(_) = self.table.get(h)?.kind {
            if let [whole] = data {
                return self.datagram_send(h, &[whole], flags, to, meta);
            }
            let parts: Vec<&[u8]> = data.iter().map(|piece| &piece[..]).collect();
            return self.datagram_send(h, &parts, flags, to, meta);
        }
        if flags & MSG_FASTOPEN != 0 {
            return self.send_opening(h, data, flags, to);
        }
        let mut sent = 0;
        let mut pieces = data.iter().filter(|piece| !piece.is_empty()).enumerate().peekable();
        while let Some((i, piece)) = pieces.next() {
            // A record ends with the last of them.
            let flags = if pieces.peek().is_some() { flags & !MSG_EOR } else { flags };
            match self.send(h, piece, flags) {
                Ok(n) => {
                    sent += n;
                    if n < piece.len() {
                        break;
                    }
                }
                Err(error) if i == 0 => return Err(error),
                Err(_) => break,
            }
        }
        if sent == 0 { self.send(h, &[], flags) } else { Ok(sent) }
    }

    /// Reads what is there; 0 is the end of the stream.
    ///
    /// # Errors
    /// `EAGAIN`, `ENOTCONN`, `ECONNRESET` and whatever else ended the connection.
    #[inline]
    pub fn recv(&mut self, h: Handle, buf: &mut [u8], flags: i32) -> Result<usize> {
        match self.recv_now(h, buf, flags) {
            0 => self.recv_any(h, buf, flags),
            n => Ok(n),
        }
    }

    /// As [`Sockets::recv`], of any size.
    #[inline(never)]
    fn recv_any(&mut self, h: Handle, buf: &mut [u8], flags: i32) -> Result<usize> {
        if let Kind::Stream(conn) = self.table.get(h)?.kind
            && flags & !QUIET == 0
        {
            let n = self.stack.tcp.recv(&mut self.stack.core, conn, buf, false);
            if n > 0 {
                return Ok(n);
            }
        }
        self.recv_slow(h, buf, flags)
    }

    #[cold]
    fn recv_slow(&mut self, h: Handle, buf: &mut [u8], flags: i32) -> Result<usize> {
        match self.table.get(h)?.kind {
            Kind::Idle | Kind::Listener(_) | Kind::Stream(_) => self.tcp_recv(h, buf, flags),
            Kind::Set(_) => Err(Errno::ENOTSOCK),
            _ => {
                let (n, meta) = self.datagram_recv(h, buf, flags)?;
                Ok(if flags & MSG_TRUNC != 0 { meta.full_len } else { n })
            }
        }
    }

    /// Reads what is there, and what is known of it besides. The count is of
    /// bytes copied; `full_len` says what MSG_TRUNC would.
    ///
    /// # Errors
    /// As [`Sockets::recv`].
    pub fn recv_from(&mut self, h: Handle, buf: &mut [u8], flags: i32) -> Result<(usize, RecvMeta)> {
        match self.table.get(h)?.kind {
            Kind::Udp(_) | Kind::Icmp(_) => self.datagram_recv(h, buf, flags),
            _ => {
                let n = self.recv(h, buf, flags)?;
                let (to, time) = (IpAddr::V4(Ipv4Addr::UNSPECIFIED), self.stack.core.now);
                Ok((n, RecvMeta { from: None, to, tos: 0, ttl: 0, time, full_len: n }))
            }
        }
    }

    /// Shuts a side down: SHUT_RD, SHUT_WR or SHUT_RDWR.
    ///
    /// # Errors
    /// `EINVAL`, `ENOTCONN`.
    pub fn shutdown(&mut self, h: Handle, how: i32) -> Result<()> {
        let kind = self.table.get(h)?.kind;
        if !(SHUT_RD..=SHUT_RDWR).contains(&how) {
            return Err(Errno::EINVAL);
        }
        let (read, write) = (how != SHUT_WR, how != SHUT_RD);
        match kind {
            Kind::Idle | Kind::Listener(_) | Kind::Stream(_) => self.tcp_shutdown(h, read, write),
            Kind::Set(_) => Err(Errno::ENOTSOCK),
            _ => self.datagram_shutdown(h, read, write),
        }
    }

    /// Closes a socket or an epoll set. A connection goes on ending by itself;
    /// with SO_LINGER of zero, or data unread, it is reset. (SO_LINGER of some
    /// time is the runtime's to wait for.)
    ///
    /// # Errors
    /// `EBADF`.
    pub fn close(&mut self, h: Handle) -> Result<()> {
        let socket = self.table.get(h)?;
        let (kind, members) = (socket.kind, socket.members);
        self.sets.remove_all(members);
        match kind {
            Kind::Idle | Kind::Listener(_) | Kind::Stream(_) => self.tcp_close(h),
            Kind::Udp(_) | Kind::Icmp(_) => self.datagram_close(h),
            Kind::Set(set) => self.close_set(set),
            Kind::Free => {}
        }
        self.table.remove(h);
        if self.stack.tcp.ports.has_released() {
            self.release_ports();
        }
        Ok(())
    }

    /// The address and port that the socket is bound to; unspecified and 0 if to
    /// none.
    ///
    /// # Errors
    /// `EBADF`, `ENOTSOCK`.
    pub fn local_addr(&self, h: Handle) -> Result<SocketAddr> {
        let socket = self.table.get(h)?;
        let none = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
        match socket.kind {
            Kind::Stream(conn) => Ok(self.stack.tcp.local(conn)),
            Kind::Udp(_) | Kind::Icmp(_) => Ok(self.datagram_ends(socket.kind).0),
            Kind::Set(_) => Err(Errno::ENOTSOCK),
            _ => Ok(socket.bound.as_ref().map_or(none, |b| b.addr)),
        }
    }

    /// The peer's address and port.
    ///
    /// # Errors
    /// `ENOTCONN`.
    pub fn peer_addr(&self, h: Handle) -> Result<SocketAddr> {
        let socket = self.table.get(h)?;
        match socket.kind {
            Kind::Stream(conn) => self.tcp_peer(conn),
            Kind::Udp(_) | Kind::Icmp(_) => {
                self.datagram_ends(socket.kind).1.ok_or(Errno::ENOTCONN)
            }
            Kind::Set(_) => Err(Errno::ENOTSOCK),
            _ => Err(Errno::ENOTCONN),
        }
    }

    /// What the socket is ready for now. Nothing for a handle that is not open.
    pub fn readiness(&self, h: Handle) -> Readiness {
        let Ok(socket) = self.table.get(h) else { return Readiness::empty() };
        let view = View { table: &self.table, stack: &self.stack, places: &self.places };
        match socket.kind {
            Kind::Set(set) => {
                Readiness::from_bits_truncate(self.sets.set_readiness(set, &view))
            }
            _ => view.readiness(socket),
        }
    }

    /// Bytes that can be read (FIONREAD); of datagrams, those of the first.
    ///
    /// # Errors
    /// `EINVAL` for a listener.
    pub fn bytes_readable(&self, h: Handle) -> Result<usize> {
        match self.table.get(h)?.kind {
            Kind::Stream(conn) => Ok(self.stack.tcp.conn(conn).readable()),
            Kind::Idle => Ok(0),
            Kind::Listener(_) => Err(Errno::EINVAL),
            Kind::Set(_) => Err(Errno::ENOTTY),
            kind => Ok(self.datagram_readable(kind)),
        }
    }

    /// A figure of a stream.
    ///
    /// # Errors
    /// `EINVAL` for a listener, `ENOTTY` for what is no stream.
    pub fn figure(&self, h: Handle, figure: Figure) -> Result<usize> {
        let conn = match self.table.get(h)?.kind {
            Kind::Stream(conn) => self.stack.tcp.conn(conn),
            Kind::Idle => return Ok(0),
            Kind::Listener(_) if figure == Figure::AtMark => return Ok(0),
            Kind::Listener(_) => return Err(Errno::EINVAL),
            _ => return Err(Errno::ENOTTY),
        };
        Ok(match figure {
            Figure::AtMark => conn.at_mark().into(),
            Figure::Unacknowledged => conn.unacknowledged() as usize,
            Figure::Unsent => conn.unsent() as usize,
            Figure::Unread => conn.readable(),
            Figure::Ended => conn.eof().into(),
        })
    }

    /// True where nothing that was sent, FIN included, waits for the peer's
    /// acknowledgment any more.
    pub fn is_delivered(&self, h: Handle) -> bool {
        match self.table.get(h).map(|s| s.kind) {
            Ok(Kind::Stream(conn)) => {
                use crate::tcp::State::{Closing, FinWait1, LastAck, SynReceived, SynSent};
                let state = self.stack.tcp.conn(conn).state();
                !matches!(state, FinWait1 | Closing | LastAck | SynSent | SynReceived)
            }
            _ => true,
        }
    }

    /// From now on changes of the socket's readiness are found by
    /// [`Sockets::take_watched`], the present one first.
    pub fn watch(&mut self, h: Handle, token: u64) {
        let Ok(socket) = self.table.get_mut(h) else { return };
        socket.watch = token;
        socket.flags.insert(Flags::WATCHED);
        if !socket.flags.contains(Flags::REPORTED) {
            socket.flags.insert(Flags::REPORTED);
            self.watched.push(h.index());
        }
    }

    /// No changes are reported any more.
    pub fn unwatch(&mut self, h: Handle) {
        if let Ok(socket) = self.table.get_mut(h) {
            socket.flags.remove(Flags::WATCHED);
        }
    }

    /// True where [`Sockets::take_watched`] may find some.
    #[inline]
    pub fn has_watched(&self) -> bool {
        !self.watched.is_empty() || !self.stack.core.events.is_empty()
    }

    /// Appends the watched sockets whose readiness changed, each once, with what
    /// they are ready for now.
    #[inline]
    pub fn take_watched(&mut self, out: &mut Vec<(u64, Handle, Readiness)>) {
        self.deliver();
        for i in 0..self.watched.len() {
            let index = self.watched[i];
            let socket = self.table.at_mut(index);
            let reported = socket.flags.contains(Flags::REPORTED);
            socket.flags.remove(Flags::REPORTED);
            // A place that was closed since, or closed and opened, has no mark.
            if reported && socket.flags.contains(Flags::WATCHED) && socket.kind != Kind::Free {
                let (token, h) = (socket.watch, self.table.handle(index));
                out.push((token, h, self.readiness(h)));
            }
        }
        self.watched.clear();
    }
}

#[cfg(test)]
mod tests;
