//! Opening a stream with data (RFC 7413): TCP_FASTOPEN_CONNECT, and `sendto` with
//! MSG_FASTOPEN.

use super::Sockets;
use super::table::{Flags, Kind};
use super::types::Handle;
use crate::errno::{Errno, Result};
use crate::tcp::State;
use core::net::SocketAddr;

impl Sockets {
    /// What `connect` returns of an open that has begun: with TCP_FASTOPEN_CONNECT,
    /// and a cookie of the peer, it is done and the SYN waits for data.
    pub(super) fn tcp_opened(&mut self, h: Handle, conn: u32) -> Result<()> {
        if self.table.get(h)?.options.fast_open_connect && self.may_open_early() {
            let (_, waits) = self.stack.tcp.open_early(&mut self.stack.core, conn, None);
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

    /// `sendto` with MSG_FASTOPEN: opens, and sends what the SYN takes.
    ///
    /// # Errors
    /// `EINPROGRESS`: the SYN asks for a cookie, and took nothing. `EOPNOTSUPP`
    /// where it is not allowed, `EINVAL` without an address, and what `connect`
    /// gives.
    pub(super) fn send_opening(&mut self, h: Handle, data: &[u8], to: Option<SocketAddr>) -> Result<usize> {
        if !self.may_open_early() {
            return Err(Errno::EOPNOTSUPP);
        }
        let to = to.ok_or(Errno::EINVAL)?;
        match self.table.get(h)?.kind {
            Kind::Idle => {}
            Kind::Stream(conn) if self.stack.tcp.conn(conn).is_deferred() => {
                return self.send_deferred(h, conn, data);
            }
            Kind::Stream(conn) => {
                let opening = matches!(self.stack.tcp.conn(conn).state(), State::SynSent | State::SynReceived);
                return Err(if opening { Errno::EALREADY } else { Errno::EISCONN });
            }
            _ => return Err(Errno::EISCONN),
        }
        let conn = self.tcp_open(h, to)?;
        match self.stack.tcp.open_early(&mut self.stack.core, conn, Some(data)) {
            (0, _) => Err(Errno::EINPROGRESS),
            (n, _) => Ok(n),
        }
    }

    /// The first data of an open that waited for it.
    pub(super) fn send_deferred(&mut self, h: Handle, conn: u32, data: &[u8]) -> Result<usize> {
        self.table.get_mut(h)?.flags.insert(Flags::CONNECTING);
        match self.stack.tcp.send_early(&mut self.stack.core, conn, data) {
            // No frame for it, or no room: once the connection is open there is.
            0 if !data.is_empty() => Err(Errno::EAGAIN),
            n => Ok(n),
        }
    }
}
