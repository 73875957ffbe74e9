//! Opening a stream with data (RFC 7413): TCP_FASTOPEN_CONNECT, and `sendto` with
//! MSG_FASTOPEN.

use super::linux::{MSG_DONTWAIT, MSG_FASTOPEN};
use super::table::{Flags, Kind};
use super::types::Handle;
use super::Sockets;
use crate::errno::{Errno, Result};
use crate::stack::datagram::SendMeta;
use crate::tcp::State;
use core::net::SocketAddr;
use std::borrow::Cow;
use std::io::IoSlice;

/// Bytes that are gathered from several pieces at most: more than a SYN takes.
const LARGEST: usize = 65_535;

impl Sockets {
    /// What `connect` returns of an open that has begun: with TCP_FASTOPEN_CONNECT,
    /// and a cookie of the peer, it is done and the SYN waits for data.
    pub(super) fn tcp_opened(&mut self, h: Handle, conn: u32) -> Result<()> {
        if self.table.get(h)?.options.fast_open_connect && self.may_open_early() {
            let (_, waits) = self.open_early(h, conn, None, 0)?;
            if waits {
                self.table.get_mut(h)?.flags.remove(Flags::CONNECTING);
                return Ok(());
            }
        }
        Err(Errno::EINPROGRESS)
    }

    fn may_open_early(&self) -> bool {
        self.stack.core.config.table.fast_open_client
    }

    fn open_early(
        &mut self,
        h: Handle,
        conn: u32,
        data: Option<&[u8]>,
        flags: i32,
    ) -> Result<(usize, bool)> {
        let trusted = self.table.get(h)?.options.fast_open_no_cookie;
        let how = (trusted, flags & MSG_DONTWAIT == 0);
        Ok(self.stack.tcp.open_early(&mut self.stack.core, conn, data, how))
    }

    /// `sendto` with MSG_FASTOPEN: opens, and sends what the SYN takes; a call that
    /// may wait, which is one without MSG_DONTWAIT, leaves the rest with the
    /// connection, as far as its buffer takes it. On a connection whose open nobody has looked at since it was begun, it is a plain
    /// send.
    ///
    /// # Errors
    /// `EINPROGRESS`: the SYN asks for a cookie, and took nothing. `EOPNOTSUPP`
    /// where it is not allowed, `EINVAL` without an address, `EALREADY` while it
    /// opens, `EISCONN` later, and what `connect` gives.
    pub(super) fn send_opening(
        &mut self,
        h: Handle,
        data: &[IoSlice<'_>],
        flags: i32,
        to: Option<SocketAddr>,
    ) -> Result<usize> {
        if !self.may_open_early() {
            return Err(Errno::EOPNOTSUPP);
        }
        let conn = match self.table.get(h)?.kind {
            Kind::Idle => {
                let to = to.ok_or(Errno::EINVAL)?;
                let conn = self.tcp_open(h, to)?;
                let (n, _) = self.open_early(h, conn, Some(&gathered(data)), flags)?;
                return if n == 0 { Err(Errno::EINPROGRESS) } else { Ok(n) };
            }
            Kind::Stream(conn) => conn,
            _ => return Err(Errno::EISCONN),
        };
        if self.stack.tcp.conn(conn).is_deferred() {
            return self.send_deferred(h, conn, &gathered(data), flags);
        }
        match self.stack.tcp.conn(conn).state() {
            State::SynSent | State::SynReceived => Err(Errno::EALREADY),
            state => {
                let socket = self.table.get_mut(h)?;
                if !socket.flags.contains(Flags::CONNECTING) && state != State::Closed {
                    return Err(Errno::EISCONN);
                }
                socket.flags.remove(Flags::CONNECTING);
                let later = SendMeta::default();
                self.send_message(h, data, flags & !MSG_FASTOPEN, None, &later)
            }
        }
    }

    /// The first data of an open that waited for it.
    ///
    /// # Errors
    /// `EINPROGRESS` where there is none: the SYN leaves without.
    pub(super) fn send_deferred(
        &mut self,
        h: Handle,
        conn: u32,
        data: &[u8],
        flags: i32,
    ) -> Result<usize> {
        self.table.get_mut(h)?.flags.insert(Flags::CONNECTING);
        let all = flags & MSG_DONTWAIT == 0;
        match self.stack.tcp.send_early(&mut self.stack.core, conn, data, all) {
            0 if data.is_empty() => Err(Errno::EINPROGRESS),
            // No frame for it, or no room: once the connection is open there is.
            0 => Err(Errno::EAGAIN),
            n => Ok(n),
        }
    }
}

/// The beginning of some pieces, in one.
fn gathered<'a>(data: &'a [IoSlice<'_>]) -> Cow<'a, [u8]> {
    let mut pieces = data.iter().filter(|piece| !piece.is_empty());
    let Some(first) = pieces.next() else { return Cow::Borrowed(&[]) };
    if first.len() >= LARGEST || pieces.next().is_none() {
        return Cow::Borrowed(first);
    }
    let bytes = data.iter().flat_map(|piece| piece.iter().copied());
    Cow::Owned(bytes.take(LARGEST).collect())
}
