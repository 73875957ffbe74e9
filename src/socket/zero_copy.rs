//! Frames lent to the program, and frames of the program's to be sent. A frame
//! is in one hand at a time: the token moves. What comes back is checked against
//! what went out.

use super::Sockets;
use super::table::Kind;
use super::types::Handle;
use crate::errno::{Errno, Result};
use crate::frame::Frame;
use crate::tcp::State;

/// What the books say of a frame that is out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Lent {
    /// It is not out.
    #[default]
    No,
    /// Received data of this handle, and so many bytes of it.
    Received(Handle, u16),
    /// Empty, to be filled, by this handle, and room for so many bytes.
    Empty(Handle, u16),
}

impl Sockets {
    /// Lends the next received frame; its range is the data.
    ///
    /// # Errors
    /// `ESHUTDOWN` at the end of the stream; `EAGAIN`; `ENOTCONN`; what ended the
    /// connection; `ENOBUFS` (an urgent mark is within the next frame, and there is
    /// none free for the part before it: [`Sockets::recv`] needs none); `EMSGSIZE` (a datagram larger
    /// than a frame is next: it stays, for [`Sockets::recv`]);
    /// `EOPNOTSUPP` (neither TCP nor UDP); `EBADF`.
    pub fn zc_recv(&mut self, h: Handle) -> Result<Frame> {
        let socket = self.table.get(h)?;
        let frame = match socket.kind {
            Kind::Stream(conn) => match self.stack.tcp.recv_frame(&mut self.stack.core, conn) {
                Some(frame) => frame,
                // The part before the urgent mark needs a frame of its own.
                None if self.stack.tcp.conn(conn).readable() > 0 => return Err(Errno::ENOBUFS),
                None => {
                    return match self.tcp_recv(h, &mut [0], 0) {
                        Ok(_) => Err(Errno::ESHUTDOWN),
                        Err(error) => Err(error),
                    };
                }
            },
            Kind::Udp(id) => self.stack.udp.recv_frame(&mut self.stack.core, id)?,
            Kind::Idle | Kind::Listener(_) => return Err(Errno::ENOTCONN),
            _ => return Err(Errno::EOPNOTSUPP),
        };
        let len = frame.len() as u16;
        self.lend(&frame, Lent::Received(h, len));
        Ok(frame)
    }

    /// Takes a frame back: lent by `zc_recv` (the window opens by it), or had
    /// from `zc_alloc` and not sent.
    ///
    /// # Errors
    /// `EINVAL`: the frame was not lent by this handle. It is taken all the same,
    /// where it is one of this stack's: a token cannot be given back twice.
    pub fn zc_release(&mut self, h: Handle, frame: Frame) -> Result<()> {
        let lent = self.settle(&frame);
        let core = &mut self.stack.core;
        if !core.pool.arena().owns(&frame) {
            return Err(Errno::EINVAL);
        }
        core.pool.free(frame);
        match lent {
            Lent::Received(to, bytes) if to == h => {
                if let Some((conn, _)) = self.table.stream(h) {
                    self.stack.tcp.recv_release(core, conn, bytes.into());
                }
                Ok(())
            }
            Lent::Empty(to, _) if to == h => Ok(()),
            _ => Err(Errno::EINVAL),
        }
    }

    /// An empty frame to be filled and given to `zc_send`: its range is where the
    /// payload goes, and may be shortened at its end.
    ///
    /// # Errors
    /// `EAGAIN` (no frame free, send buffer full, not connected yet), `EPIPE`,
    /// `EOPNOTSUPP`, `EBADF`, or what ended the connection.
    pub fn zc_alloc(&mut self, h: Handle) -> Result<Frame> {
        let socket = self.table.get(h)?;
        let core = &mut self.stack.core;
        let frame = match socket.kind {
            Kind::Stream(conn) => {
                if !self.stack.tcp.conn(conn).may_send() {
                    self.tcp_send(h, &[], 0)?;
                    return Err(Errno::EAGAIN);
                }
                self.stack.tcp.send_alloc(core, conn)
            }
            Kind::Udp(id) => self.stack.udp.send_alloc(core, id),
            Kind::Idle | Kind::Listener(_) => return Err(Errno::EPIPE),
            _ => return Err(Errno::EOPNOTSUPP),
        };
        let frame = frame.ok_or(Errno::EAGAIN)?;
        self.lend(&frame, Lent::Empty(h, frame.len() as u16));
        Ok(frame)
    }

    /// Sends a frame from `zc_alloc` of the same handle, its range being the
    /// payload, without a copy. A stream sends a frame from its `zc_recv` as well, which
    /// the program may have changed, and which is released with that: what came in goes
    /// out, in the frame that it came in. (It is copied where it came without room for
    /// our headers in front of it, or to another worker's queue.)
    ///
    /// # Errors
    /// The frame comes back with `EINVAL` (it is not from `zc_alloc` or, of a stream,
    /// `zc_recv`; its range is empty or longer than it was), `EMSGSIZE` (what was received
    /// is longer than a segment), `EAGAIN` (send buffer full), `EPIPE`,
    /// `EDESTADDRREQ`, or what ended the connection.
    pub fn zc_send(&mut self, h: Handle, frame: Frame) -> core::result::Result<(), (Errno, Frame)> {
        let owner = self.lent_to(&frame);
        let socket = match self.table.get(h) {
            Ok(socket) => socket,
            Err(error) => return Err((error, frame)),
        };
        let received = match owner {
            Lent::Empty(to, _) if to == h => 0,
            Lent::Received(to, bytes) if to == h && matches!(socket.kind, Kind::Stream(_)) => bytes,
            _ => return Err((Errno::EINVAL, frame)),
        };
        if frame.is_empty() || received > 0 && frame.len() > received.into() {
            return Err((Errno::EINVAL, frame));
        }
        let index = frame.index();
        let core = &mut self.stack.core;
        let sent = match socket.kind {
            Kind::Stream(conn) => {
                let state = self.stack.tcp.conn(conn).state();
                if !self.stack.tcp.conn(conn).may_send() {
                    let error = self.tcp_send(h, &[], 0).err();
                    let error = error.unwrap_or(if state == State::SynSent {
                        Errno::EAGAIN
                    } else {
                        Errno::EPIPE
                    });
                    return Err((error, frame));
                }
                let error = self.stack.tcp.conn(conn).why_not_sent(&frame, received > 0);
                let sent = match received {
                    0 => self.stack.tcp.send_frame(core, conn, frame),
                    _ => self.stack.tcp.send_received(core, conn, frame, received),
                };
                sent.map_err(|frame| (error, frame))
            }
            Kind::Udp(id) => {
                let meta = super::SendMeta::default();
                self.stack.udp.send_frame(core, id, frame, None, &meta)
            }
            _ => Err((Errno::EOPNOTSUPP, frame)),
        };
        if sent.is_ok() {
            self.uncork(h);
            self.lent[index as usize] = Lent::No;
            self.stack.core.lent -= 1;
        }
        sent
    }

    /// Whether lent frames of this socket are wanted back soon, because its peer
    /// may find the window shut.
    #[inline]
    pub fn window_is_low(&self, h: Handle) -> bool {
        match self.table.get(h).map(|s| s.kind) {
            Ok(Kind::Stream(conn)) => self.stack.tcp.conn(conn).window_is_low(),
            _ => false,
        }
    }

    /// Frames that programs hold.
    pub fn lent_frames(&self) -> usize {
        self.stack.core.lent
    }

    fn lend(&mut self, frame: &Frame, lent: Lent) {
        let index = frame.index() as usize;
        if self.lent.len() <= index {
            let count = self.stack.core.pool.arena().count() as usize;
            self.lent.resize(count, Lent::No);
        }
        self.lent[index] = lent;
        self.stack.core.lent += 1;
    }

    fn lent_to(&self, frame: &Frame) -> Lent {
        if !self.stack.core.pool.arena().owns(frame) {
            return Lent::No;
        }
        self.lent.get(frame.index() as usize).copied().unwrap_or_default()
    }

    /// Strikes a frame from the books of those that are out.
    fn settle(&mut self, frame: &Frame) -> Lent {
        let lent = self.lent_to(frame);
        if lent != Lent::No {
            self.lent[frame.index() as usize] = Lent::No;
            self.stack.core.lent -= 1;
        }
        lent
    }
}
