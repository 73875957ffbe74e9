//! How a program reads and writes, and what it checks each time.

use crate::draw::fill;
use crate::program::{Context, Program};
use crate::seen::Seen;
use ringroad::errno::{Errno, Result};
use ringroad::socket::linux::*;
use ringroad::socket::{Handle, Readiness};
use std::io::IoSlice;

impl Program {
    /// Writes what it has to and can.
    pub fn write(&mut self, c: &mut Context, h: Handle) {
        while self.wants_to_write() {
            let stop = self.plan.urgent.filter(|at| *at > self.sent).unwrap_or(self.plan.send);
            let left = stop - self.sent;
            let len = left.min(self.plan.write_chunk as u64).min(c.scratch.data.len() as u64) as usize;
            let done = match self.draw.below(4) {
                _ if self.plan.urgent == Some(self.sent) => self.send(c, h, 1, MSG_NOSIGNAL | MSG_OOB),
                0 | 1 if self.plan.alloc => self.send_frame(c, h, len),
                0 if self.plan.flags => self.send_vectored(c, h, len),
                1 if self.plan.flags => self.send(c, h, len, MSG_NOSIGNAL | MSG_MORE),
                _ => self.send(c, h, len, MSG_NOSIGNAL),
            };
            match done {
                Ok(n) => {
                    assert!(n > 0 && n <= len, "{}: send said {n} of {len}", self.name());
                    self.sent += n as u64;
                    self.seen.set(Seen::HALF_CLOSE, self.eof || self.seen.contains(Seen::HALF_CLOSE));
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

    /// Sends in a frame that was lent, as much as fits in it.
    fn send_back(&mut self, c: &mut Context, h: Handle, len: usize) -> Result<usize> {
        let (mut frame, due) = self.lent.pop().expect("one is kept");
        let (at, whole) = (frame.offset(), frame.len());
        frame.truncate(len);
        let n = frame.len();
        let (pool, _) = c.sockets.tx();
        fill(self.stream(self.role), self.sent, pool.arena().bytes_mut(&mut frame));
        match c.sockets.zc_send(h, frame) {
            Ok(()) => Ok(n),
            // Of more than a segment, or with little room; and what ended the connection.
            Err((_, mut frame)) => {
                frame.set_range(at, whole);
                self.lent.push((frame, due));
                self.send(c, h, len, MSG_NOSIGNAL)
            }
        }
    }

    /// Sends in a frame of the stack's.
    fn send_frame(&mut self, c: &mut Context, h: Handle, len: usize) -> Result<usize> {
        if !self.lent.is_empty() {
            return self.send_back(c, h, len);
        }
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
            // There FIONREAD is nothing, as in Linux.
            let mark = self.at_mark();
            let n = match self.read_some(c, h) {
                Ok(0) => {
                    assert_eq!(there, 0, "{}: an end before {there} bytes", self.name());
                    // Else the verdict finds that a byte is missing.
                    if self.urgent_read {
                        self.pass_mark();
                    }
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
            assert!(n <= there || mark, "{}: {n} bytes of {there}", self.name());
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
            self.seen |= Seen::PAUSE;
            self.read_pause = Self::later(c.now, pause);
        }
    }

    /// Reads in one of the ways there are; checks the bytes.
    fn read_some(&mut self, c: &mut Context, h: Handle) -> Result<usize> {
        self.read_urgent(c, h);
        let len = self.plan.read_chunk.min(c.scratch.data.len());
        let flags = if self.plan.flags { self.draw.below(8) } else { 7 };
        if self.plan.lend.is_some() && self.draw.one_in(2) {
            match self.read_lent(c, h) {
                // To lend needs a frame at a mark; to copy needs none.
                Err(Errno::ENOBUFS) => {}
                read => return read,
            }
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
            1 => {
                let n = c.sockets.recv(h, &mut c.scratch.data[..len], MSG_TRUNC)?;
                if n > 0 {
                    self.pass_mark();
                    self.check_mark(n);
                }
                Ok(n)
            }
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

    /// True where the next byte of the stream is one that is read apart.
    fn at_mark(&self) -> bool {
        !self.plan.inline && self.urgent == Some(self.received)
    }

    /// Reading goes on behind the mark.
    fn pass_mark(&mut self) {
        if self.at_mark() {
            assert!(self.urgent_read, "{}: the urgent byte could not be read", self.name());
            self.received += 1;
        }
    }

    /// No read goes across the mark, where reading stops once.
    fn check_mark(&self, n: usize) {
        let across = self.urgent.is_some_and(|at| self.received < at && at < self.received + n as u64);
        assert!(!across, "{}: {n} bytes from {} go across the mark", self.name(), self.received);
    }

    /// Reads the urgent byte apart, if it is there.
    fn read_urgent(&mut self, c: &mut Context, h: Handle) {
        if !self.waits_for_urgent() {
            return;
        }
        let (at, mut byte, mut expected) = (self.urgent.unwrap_or(0), [0], [0]);
        match c.sockets.recv(h, &mut byte, MSG_OOB) {
            Ok(1) => {
                fill(self.stream(1 - self.role), at, &mut expected);
                assert_eq!(byte, expected, "{}: the urgent byte, number {at}", self.name());
                let again = c.sockets.recv(h, &mut byte, MSG_OOB);
                assert_eq!(again, Err(Errno::EINVAL), "{}: the urgent byte twice", self.name());
                self.urgent_read = true;
                self.seen |= Seen::URGENT_APART;
            }
            // The stream ended without it; it was not announced; it is to come.
            Ok(0) | Err(Errno::EINVAL | Errno::EAGAIN) => {}
            other => panic!("{}: MSG_OOB: {other:?}", self.name()),
        }
    }

    /// The bytes are those that the peer sent, from where this end has read to.
    fn check(&mut self, c: &mut Context, n: usize) {
        if n == 0 {
            return;
        }
        self.pass_mark();
        self.check_mark(n);
        if self.plan.inline && self.urgent == Some(self.received) {
            self.seen |= Seen::URGENT_INLINE;
        }
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
        let read = loop {
            self.read_urgent(c, h);
            let there = c.sockets.bytes_readable(h).expect("FIONREAD");
            match c.sockets.recv(h, &mut c.scratch.data, 0) {
                Ok(n) if n > 0 => {
                    self.check(c, n);
                    self.received += n as u64;
                }
                end => {
                    assert_eq!(there, 0, "{}: {end:?} before {there} bytes", self.name());
                    break end;
                }
            }
        };
        let over = matches!(read, Ok(0) | Err(Errno::ENOTCONN));
        assert!(over, "{}: {read:?} after {:?}", self.name(), self.error);
        let written = c.sockets.send(h, b"x", MSG_NOSIGNAL);
        let over = matches!(written, Err(Errno::EPIPE | Errno::ENOTCONN));
        assert!(over, "{}: {written:?} sent after {:?}", self.name(), self.error);
    }
}
