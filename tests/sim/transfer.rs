//! How a program reads and writes, and what it checks each time.

use crate::draw::fill;
use crate::program::{Context, Program};
use ringroad::errno::{Errno, Result};
use ringroad::socket::linux::*;
use ringroad::socket::{Handle, Readiness};
use std::io::IoSlice;

impl Program {
    /// Writes what it has to and can.
    pub fn write(&mut self, c: &mut Context, h: Handle) {
        while self.wants_to_write() {
            let left = self.plan.send - self.sent;
            let len = left.min(self.plan.write_chunk as u64).min(c.scratch.data.len() as u64) as usize;
            let done = match self.draw.below(4) {
                0 | 1 if self.plan.alloc => self.send_frame(c, h, len),
                0 if self.plan.flags => self.send_vectored(c, h, len),
                1 if self.plan.flags => self.send(c, h, len, MSG_NOSIGNAL | MSG_MORE),
                _ => self.send(c, h, len, MSG_NOSIGNAL),
            };
            match done {
                Ok(n) => {
                    assert!(n > 0 && n <= len, "{}: send said {n} of {len}", self.name());
                    self.sent += n as u64;
                    self.write_pause = Self::later(c.now, self.plan.write_pause);
                }
                Err(Errno::EAGAIN) => {
                    let ready = c.sockets.readiness(h);
                    assert!(!ready.contains(Readiness::OUT), "{}: ready, and EAGAIN", self.name());
                    return;
                }
                Err(error) => return self.fail(c, h, error),
            }
            if self.abort_is_due() || !self.plan.greedy {
                return;
            }
        }
    }

    fn send(&mut self, c: &mut Context, h: Handle, len: usize, flags: i32) -> Result<usize> {
        let data = &mut c.scratch.data[..len];
        fill(self.stream(self.role), self.sent, data);
        c.sockets.send(h, data, flags)
    }

    fn send_vectored(&mut self, c: &mut Context, h: Handle, len: usize) -> Result<usize> {
        let data = &mut c.scratch.data[..len];
        fill(self.stream(self.role), self.sent, data);
        let (a, b) = data.split_at(self.draw.below(len as u64 + 1) as usize);
        let (b, d) = b.split_at(self.draw.below(b.len() as u64 + 1) as usize);
        c.sockets.send_vectored(h, &[a, b, d].map(IoSlice::new), MSG_NOSIGNAL)
    }

    /// Sends in a frame of the stack's.
    fn send_frame(&mut self, c: &mut Context, h: Handle, len: usize) -> Result<usize> {
        let mut frame = c.sockets.zc_alloc(h)?;
        frame.truncate(len);
        let n = frame.len();
        let (pool, _) = c.sockets.tx();
        fill(self.stream(self.role), self.sent, pool.bytes_mut(&mut frame));
        if self.draw.one_in(8) {
            // It thinks better of it.
            c.sockets.zc_release(h, frame).expect("a frame that was handed out");
            return self.send(c, h, len, MSG_NOSIGNAL);
        }
        match c.sockets.zc_send(h, frame) {
            Ok(()) => Ok(n),
            Err((error, frame)) => {
                c.sockets.zc_release(h, frame).expect("a frame that came back");
                Err(error)
            }
        }
    }

    /// Reads what there is.
    pub fn read(&mut self, c: &mut Context, h: Handle) {
        while self.wants_to_read() {
            let ready = c.sockets.readiness(h);
            let there = c.sockets.bytes_readable(h).expect("FIONREAD");
            let n = match self.read_some(c, h) {
                Ok(0) => {
                    assert_eq!(there, 0, "{}: an end before {there} bytes", self.name());
                    self.eof = true;
                    return;
                }
                Ok(n) => n,
                Err(Errno::EAGAIN) => {
                    let idle = there == 0 && !ready.contains(Readiness::IN);
                    assert!(idle, "{}: {ready:?} with {there} bytes, and EAGAIN", self.name());
                    return;
                }
                Err(error) => {
                    assert_eq!(there, 0, "{}: {error:?} before {there} bytes", self.name());
                    return self.fail(c, h, error);
                }
            };
            assert!(ready.contains(Readiness::IN), "{}: not ready, but {n} bytes", self.name());
            assert!(n <= there, "{}: {n} bytes of {there}", self.name());
            self.pause_reading(c, n as u64);
            if self.abort_is_due() || !self.plan.greedy {
                return;
            }
        }
    }

    fn pause_reading(&mut self, c: &Context, n: u64) {
        self.received += n;
        self.read_pause = Self::later(c.now, self.plan.read_pause);
        if let Some((at, pause)) = self.plan.stop
            && self.received >= at
        {
            self.plan.stop = None;
            self.read_pause = Self::later(c.now, pause);
        }
    }

    /// Reads in one of the ways there are; checks the bytes.
    fn read_some(&mut self, c: &mut Context, h: Handle) -> Result<usize> {
        let len = self.plan.read_chunk.min(c.scratch.data.len());
        let flags = if self.plan.flags { self.draw.below(8) } else { 7 };
        if self.plan.lend.is_some() && self.draw.one_in(2) {
            return self.read_lent(c, h);
        }
        match flags {
            0 => {
                // What is peeked at stays, and is the same when it is read.
                let peeked = c.sockets.recv(h, &mut c.scratch.data[..len], MSG_PEEK)?;
                self.check(c, peeked);
                let n = c.sockets.recv(h, &mut c.scratch.data[..len], 0)?;
                assert_eq!(n, peeked, "{}: read and peeked", self.name());
                self.check(c, n);
                Ok(n)
            }
            // Bytes that are thrown away still count.
            1 => c.sockets.recv(h, &mut c.scratch.data[..len], MSG_TRUNC),
            2 => {
                let (n, _) = c.sockets.recv_from(h, &mut c.scratch.data[..len], 0)?;
                self.check(c, n);
                Ok(n)
            }
            _ => {
                let n = c.sockets.recv(h, &mut c.scratch.data[..len], 0)?;
                self.check(c, n);
                Ok(n)
            }
        }
    }

    fn read_lent(&mut self, c: &mut Context, h: Handle) -> Result<usize> {
        let frame = match c.sockets.zc_recv(h) {
            Err(Errno::ESHUTDOWN) => return Ok(0),
            frame => frame?,
        };
        let n = frame.len();
        assert!(n > 0, "{}: an empty frame", self.name());
        let (pool, _) = c.sockets.tx();
        c.scratch.data[..n].copy_from_slice(pool.bytes(&frame));
        self.check(c, n);
        let keep = self.plan.lend.unwrap_or_default();
        // Few are kept, so that the window and the pool do not hang on them.
        if keep.as_nanos() == 0 || self.lent.len() >= 4 {
            c.sockets.zc_release(h, frame).expect("a frame that was lent");
        } else {
            self.lent.push((frame, c.now + keep));
        }
        Ok(n)
    }

    /// The bytes are those that the peer sent, from where this end has read to.
    fn check(&self, c: &mut Context, n: usize) {
        let (got, expected) = (&c.scratch.data[..n], &mut c.scratch.expected[..n]);
        fill(self.stream(1 - self.role), self.received, expected);
        if got != expected {
            let at = got.iter().zip(expected.iter()).position(|(a, b)| a != b).unwrap_or(0);
            panic!("{}: byte {} is wrong", self.name(), self.received + at as u64);
        }
    }

    /// The connection failed: no byte comes any more but those that were there, and
    /// none is taken.
    pub fn after_the_end(&mut self, c: &mut Context, h: Handle) {
        let mut there = c.sockets.bytes_readable(h).expect("FIONREAD");
        while there > 0 {
            let len = there.min(c.scratch.data.len());
            let n = c.sockets.recv(h, &mut c.scratch.data[..len], 0).expect("bytes that are there");
            self.check(c, n);
            self.received += n as u64;
            there -= n;
        }
        let read = c.sockets.recv(h, &mut c.scratch.data[..16], 0);
        let over = matches!(read, Ok(0) | Err(Errno::ENOTCONN));
        assert!(over, "{}: {read:?} after {:?}", self.name(), self.error);
        let written = c.sockets.send(h, b"x", MSG_NOSIGNAL);
        let over = matches!(written, Err(Errno::EPIPE | Errno::ENOTCONN));
        assert!(over, "{}: {written:?} sent after {:?}", self.name(), self.error);
    }
}
