//! The programs: one for each end of a connection.

use crate::scenario::{End, SidePlan};
use ringroad::errno::Errno;
use ringroad::socket::linux::*;
use ringroad::socket::{Handle, Sockets};
use ringroad::time::Instant;
use std::net::SocketAddr;

/// One end of a connection, and what the program there knows.
#[derive(Debug)]
pub struct Program {
    /// The connection's number, and 0 for the client or 1 for the server.
    pub conn: usize,
    pub role: usize,
    pub host: usize,
    pub plan: SidePlan,
    pub handle: Option<Handle>,
    /// Set while `connect` has not ended.
    pub connecting: Option<SocketAddr>,
    pub sent: u64,
    pub received: u64,
    /// The last byte was followed by `shutdown` or an orderly `close`.
    pub finished: bool,
    pub eof: bool,
    pub aborted: bool,
    pub error: Option<Errno>,
    /// When it reads again, while it pauses.
    pub pause: Option<Instant>,
}

/// Byte number `at` of what this end of the connection sends.
fn byte(conn: usize, role: usize, at: u64) -> u8 {
    let mut x = (conn as u64) << 40 ^ (role as u64) << 36 ^ (at / 8);
    x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    (x >> (at % 8 * 8)) as u8
}

impl Program {
    pub fn new(conn: usize, role: usize, host: usize, plan: &SidePlan, handle: Handle) -> Self {
        Self {
            conn,
            role,
            host,
            plan: plan.clone(),
            handle: Some(handle),
            connecting: None,
            sent: 0,
            received: 0,
            finished: false,
            eof: false,
            aborted: false,
            error: None,
            pause: None,
        }
    }

    /// Sets the socket's options by the plan.
    pub fn set_options(&self, sockets: &mut Sockets) {
        let Some(h) = self.handle else { return };
        let mut set = |level, name, value: i32| {
            sockets.set_option(h, level, name, &value.to_ne_bytes()).expect("an option");
        };
        set(IPPROTO_TCP, TCP_NODELAY, self.plan.nodelay.into());
        set(IPPROTO_TCP, TCP_CORK, self.plan.cork.into());
        if self.plan.keepalive {
            set(SOL_SOCKET, SO_KEEPALIVE, 1);
            set(IPPROTO_TCP, TCP_KEEPIDLE, 20);
            set(IPPROTO_TCP, TCP_KEEPINTVL, 5);
            set(IPPROTO_TCP, TCP_KEEPCNT, 6);
        }
        if let Some(bytes) = self.plan.send_buffer {
            set(SOL_SOCKET, SO_SNDBUF, bytes);
        }
        if let Some(bytes) = self.plan.receive_buffer {
            set(SOL_SOCKET, SO_RCVBUF, bytes);
        }
    }

    pub fn is_done(&self) -> bool {
        self.handle.is_none()
    }

    /// Does all that can be done now.
    pub fn advance(&mut self, sockets: &mut Sockets, now: Instant) {
        let Some(h) = self.handle else { return };
        if !self.connected(sockets, h) || self.abort(sockets, h) {
            return;
        }
        self.write(sockets, h);
        if self.is_done() || self.abort(sockets, h) {
            return;
        }
        self.read(sockets, h, now);
        if self.is_done() || self.abort(sockets, h) {
            return;
        }
        if self.finished && self.eof {
            self.close(sockets, h);
        }
    }

    fn close(&mut self, sockets: &mut Sockets, h: Handle) {
        sockets.close(h).expect("close of an open handle");
        self.handle = None;
    }

    fn fail(&mut self, sockets: &mut Sockets, h: Handle, error: Errno) {
        self.error = Some(error);
        self.close(sockets, h);
    }

    fn connected(&mut self, sockets: &mut Sockets, h: Handle) -> bool {
        let Some(peer) = self.connecting else { return true };
        match sockets.connect(h, peer) {
            Err(Errno::EALREADY) => return false,
            Ok(()) | Err(Errno::EISCONN) => self.connecting = None,
            Err(error) => self.fail(sockets, h, error),
        }
        !self.is_done()
    }

    fn abort(&mut self, sockets: &mut Sockets, h: Handle) -> bool {
        let End::Abort(at) = self.plan.end else { return false };
        if self.sent + self.received < at {
            return false;
        }
        let linger = [1i32.to_ne_bytes(), 0i32.to_ne_bytes()].concat();
        sockets.set_option(h, SOL_SOCKET, SO_LINGER, &linger).expect("SO_LINGER");
        self.aborted = true;
        self.close(sockets, h);
        true
    }

    fn write(&mut self, sockets: &mut Sockets, h: Handle) {
        while self.sent < self.plan.send {
            let len = (self.plan.send - self.sent).min(self.plan.write_chunk as u64);
            let data: Vec<u8> =
                (self.sent..self.sent + len).map(|at| byte(self.conn, self.role, at)).collect();
            match sockets.send(h, &data, MSG_NOSIGNAL) {
                Ok(n) => {
                    assert!(n > 0 && n <= data.len(), "send said {n} of {}", data.len());
                    self.sent += n as u64;
                }
                Err(Errno::EAGAIN) => return,
                Err(error) => return self.fail(sockets, h, error),
            }
            if matches!(self.plan.end, End::Abort(at) if self.sent + self.received >= at) {
                return;
            }
        }
        match self.plan.end {
            End::Shutdown | End::Abort(_) if !self.finished => {
                if let Err(error) = sockets.shutdown(h, SHUT_WR) {
                    return self.fail(sockets, h, error);
                }
                self.finished = true;
            }
            End::Close => {
                self.finished = true;
                self.close(sockets, h);
            }
            _ => {}
        }
    }

    fn read(&mut self, sockets: &mut Sockets, h: Handle, now: Instant) {
        if self.pause.is_some_and(|until| until <= now) {
            self.pause = None;
        }
        let mut buffer = vec![0; self.plan.read_chunk];
        while !self.eof && self.pause.is_none() {
            match sockets.recv(h, &mut buffer, 0) {
                Ok(0) => self.eof = true,
                Ok(n) => self.check(&buffer[..n], now),
                Err(Errno::EAGAIN) => return,
                Err(error) => return self.fail(sockets, h, error),
            }
        }
    }

    fn check(&mut self, data: &[u8], now: Instant) {
        for (at, got) in (self.received..).zip(data) {
            let expected = byte(self.conn, 1 - self.role, at);
            assert_eq!(*got, expected, "connection {} role {}: byte {at}", self.conn, self.role);
        }
        self.received += data.len() as u64;
        if self.plan.read_pause.as_nanos() > 0 {
            self.pause = Some(now + self.plan.read_pause);
        }
    }

    /// When it wants to run again, whatever happens.
    pub fn deadline(&self) -> Option<Instant> {
        if self.is_done() { None } else { self.pause }
    }
}
