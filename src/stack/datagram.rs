//! What UDP and ICMP sockets share: the queue of received datagrams, and what is
//! said about one beside its bytes.

use super::ip_input::IpMeta;
use super::Core;
use crate::arch;
use crate::errno::{Errno, Result};
use crate::frame::{Frame, Packet, Pool};
use crate::time::Instant;
use core::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::collections::VecDeque;

/// What a datagram is sent with where it differs from the socket's options.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SendMeta {
    /// Type of service.
    pub tos: Option<u8>,
    /// Time to live, 1 to 255.
    pub ttl: Option<u8>,
    /// Source address, one of ours.
    pub source: Option<IpAddr>,
}

impl SendMeta {
    /// Nothing differs.
    #[inline(always)]
    pub(super) fn is_default(&self) -> bool {
        self.tos.is_none() && self.ttl.is_none() && self.source.is_none()
    }
}

/// What is known of a received datagram beside its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecvMeta {
    /// The sender; `None` where there is no datagram, but the end: the socket was
    /// shut down for reading.
    pub from: Option<SocketAddr>,
    /// The address it was sent to (IP_PKTINFO).
    pub to: IpAddr,
    /// Type of service.
    pub tos: u8,
    /// Time to live.
    pub ttl: u8,
    /// When it was received.
    pub time: Instant,
    /// Bytes of the whole datagram; what did not fit the caller's buffer is gone.
    pub full_len: usize,
}

impl RecvMeta {
    /// The end of a socket that was shut down for reading.
    pub(super) fn end(to: IpAddr) -> Self {
        Self { from: None, to, tos: 0, ttl: 0, time: Instant::ZERO, full_len: 0 }
    }
}

/// What datagrams of a socket say about fragmentation (IP_MTU_DISCOVER).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum PathMtu {
    /// Never DF.
    Dont = 0,
    /// DF on what fits the path; what does not goes in fragments. The default.
    #[default]
    Want = 1,
    /// Always DF; what does not fit the path is refused with EMSGSIZE.
    Do = 2,
    /// Always DF; only the interface's MTU bounds.
    Probe = 3,
}

impl PathMtu {
    /// The value of this number.
    pub fn from_raw(n: i32) -> Option<Self> {
        [Self::Dont, Self::Want, Self::Do, Self::Probe].into_iter().find(|&p| p as i32 == n)
    }
}

#[derive(Debug)]
enum Payload {
    /// The frames it came in.
    Frames(Packet),
    /// The next so many bytes of `Queue::copied`.
    Copied(usize),
}

#[derive(Debug)]
struct Item {
    payload: Payload,
    of: Received,
}

/// Received datagrams, oldest first.
#[derive(Debug, Default)]
pub(super) struct Queue {
    items: VecDeque<Item>,
    copied: VecDeque<u8>,
    bytes: usize,
    frames: usize,
}

/// Copies bytes of a ring without taking them.
fn peek(ring: &VecDeque<u8>, out: &mut [u8]) {
    let (a, b) = ring.as_slices();
    let n = out.len().min(a.len());
    let (first, second) = out.split_at_mut(n);
    first.copy_from_slice(&a[..n]);
    second.copy_from_slice(&b[..second.len()]);
}

/// Copies the front of a packet; says how much.
pub(super) fn copy_packet(pool: &Pool, packet: &Packet, mut out: &mut [u8]) -> usize {
    let mut copied = 0;
    for frame in packet.iter() {
        let bytes = pool.bytes(frame);
        let n = bytes.len().min(out.len());
        let (now, later) = out.split_at_mut(n);
        now.copy_from_slice(&bytes[..n]);
        out = later;
        copied += n;
    }
    copied
}

impl Queue {
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    pub fn held_frames(&self) -> usize {
        self.frames
    }

    /// Bytes of the next datagram (FIONREAD).
    pub fn next_len(&self) -> usize {
        self.items.front().map_or(0, |i| i.of.len())
    }

    /// Whether a datagram of `len` bytes still fits; one always does.
    #[inline]
    pub fn has_room(&self, len: usize, max_bytes: usize, max_datagrams: usize) -> bool {
        self.items.is_empty()
            || (self.bytes + len <= max_bytes && self.items.len() < max_datagrams)
    }

    /// Adds a datagram. Its frames stay with the queue, or, where free ones are
    /// few, only its bytes.
    #[inline(always)]
    pub fn push(&mut self, core: &mut Core, packet: Packet, of: Received) {
        let low = core.pool.capacity() / 256 * core.config.datagram.copy_below;
        if core.pool.available() <= low {
            return self.push_copy_and_free(core, packet, of);
        }
        self.bytes += of.len();
        self.frames += packet.frames();
        self.items.push_back(Item { payload: Payload::Frames(packet), of });
    }

    #[cold]
    fn push_copy_and_free(&mut self, core: &mut Core, packet: Packet, of: Received) {
        self.push_copy(core, &packet, of);
        packet.free(&mut core.pool);
    }

    /// Adds a copy of a datagram.
    pub fn push_copy(&mut self, core: &mut Core, packet: &Packet, of: Received) {
        for frame in packet.iter() {
            self.copied.extend(core.pool.bytes(frame));
        }
        core.counters.rx_copied_bytes += u64::from(of.len);
        self.bytes += of.len();
        self.items.push_back(Item { payload: Payload::Copied(of.len()), of });
    }

    /// The next datagram, if it waits in one frame.
    #[inline(always)]
    pub fn front(&self) -> Option<(&Frame, &Received)> {
        match self.items.front()? {
            Item { payload: Payload::Frames(Packet { head, rest: None }), of } => Some((head, of)),
            _ => None,
        }
    }

    /// Takes the datagram off that [`Queue::front`] gave.
    #[inline(always)]
    pub fn pop_single(&mut self, pool: &mut Pool) {
        if let Some(Item { payload: Payload::Frames(packet), of }) = self.items.pop_front() {
            self.bytes -= of.len();
            self.frames -= 1;
            pool.free(packet.head);
        }
    }

    /// Reads the next datagram without a call, where it is small, waits in one frame, and
    /// `buf` takes all of it: its length and its sender. Nothing is done where not.
    #[inline(always)]
    pub fn read_lone(&mut self, pool: &mut Pool, buf: &mut [u8]) -> Option<(usize, SocketAddrV4)> {
        let (frame, of) = self.front()?;
        let (n, from) = (of.len(), SocketAddrV4::new(of.src, of.port));
        if !(1..=arch::SHORT_COPY).contains(&n) || frame.len() != n {
            return None;
        }
        let to = buf.get_mut(..n)?;
        let Item { payload: Payload::Frames(packet), of } = self.items.pop_front()? else { return None };
        if let Some(frame) = pool.free_copied(packet.head, to) {
            self.put_back(frame, of);
            return None;
        }
        self.bytes -= n;
        self.frames -= 1;
        Some((n, from))
    }

    /// Puts the datagram back that was taken off.
    #[cold]
    #[inline(never)]
    fn put_back(&mut self, frame: Frame, of: Received) {
        self.items.push_front(Item { payload: Payload::Frames(Packet::single(frame)), of });
    }

    /// Copies the next datagram's front into `buffer` and takes it off, unless
    /// `keep`.
    pub fn recv(&mut self, core: &mut Core, buffer: &mut [u8], keep: bool) -> Result<RecvMeta> {
        let item = self.items.front().ok_or(Errno::EAGAIN)?;
        let meta = item.of.meta();
        let n = buffer.len().min(meta.full_len);
        match &item.payload {
            Payload::Frames(packet) => {
                copy_packet(&core.pool, packet, &mut buffer[..n]);
            }
            Payload::Copied(_) => peek(&self.copied, &mut buffer[..n]),
        }
        core.counters.rx_copied_bytes += n as u64;
        if !keep {
            self.pop(&mut core.pool);
        }
        Ok(meta)
    }

    /// Takes the oldest datagram off in its one frame.
    ///
    /// # Errors
    /// `EAGAIN`; `EMSGSIZE`: it is larger than a frame, and stays.
    pub fn recv_frame(&mut self, core: &mut Core) -> Result<Frame> {
        if matches!(self.items.front(), Some(Item { payload: Payload::Frames(packet), .. }) if packet.rest.is_some()) {
            return Err(Errno::EMSGSIZE);
        }
        Ok(self.recv_packet(core)?.0.head)
    }

    /// Takes the next datagram in frames. A copied one is put into a frame first.
    pub fn recv_packet(&mut self, core: &mut Core) -> Result<(Packet, RecvMeta)> {
        let item = self.items.front().ok_or(Errno::EAGAIN)?;
        let meta = item.of.meta();
        if let Payload::Copied(len) = item.payload {
            if len > core.pool.arena().capacity() {
                return Err(Errno::EMSGSIZE);
            }
            let mut frame = core.pool.alloc().ok_or(Errno::EAGAIN)?;
            frame.set_range(0, len);
            peek(&self.copied, core.pool.bytes_mut(&mut frame));
            self.pop(&mut core.pool);
            return Ok((Packet::single(frame), meta));
        }
        let Some(Item { payload: Payload::Frames(packet), .. }) = self.items.pop_front() else {
            return Err(Errno::EAGAIN);
        };
        self.bytes -= meta.full_len;
        self.frames -= packet.frames();
        Ok((packet, meta))
    }

    fn pop(&mut self, pool: &mut Pool) {
        let Some(item) = self.items.pop_front() else { return };
        self.bytes -= item.of.len();
        match item.payload {
            Payload::Frames(packet) => {
                self.frames -= packet.frames();
                packet.free(pool);
            }
            Payload::Copied(len) => {
                self.copied.drain(..len);
            }
        }
    }

    /// Gives everything back.
    pub fn clear(&mut self, pool: &mut Pool) {
        while !self.items.is_empty() {
            self.pop(pool);
        }
    }
}

/// What is known of a datagram, as a queue keeps it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Received {
    pub src: Ipv4Addr,
    pub dst: Ipv4Addr,
    /// When it came.
    pub time: Instant,
    /// Bytes of it.
    pub len: u32,
    /// Where protocols have ports, the sender's.
    pub port: u16,
    pub tos: u8,
    pub ttl: u8,
}

impl Received {
    /// A datagram of `len` bytes from port `port`.
    pub fn new(core: &Core, meta: &IpMeta, port: u16, len: usize) -> Self {
        let (IpAddr::V4(src), IpAddr::V4(dst)) = (meta.src, meta.dst) else {
            unreachable!("only IPv4 gets here")
        };
        Self { src, dst, time: core.now, len: len as u32, port, tos: meta.tos, ttl: meta.ttl }
    }

    /// As the program sees it.
    #[inline(always)]
    pub fn meta(&self) -> RecvMeta {
        RecvMeta {
            from: Some(SocketAddr::new(self.src.into(), self.port)),
            to: self.dst.into(),
            tos: self.tos,
            ttl: self.ttl,
            time: self.time,
            full_len: self.len(),
        }
    }

    #[inline(always)]
    pub fn len(&self) -> usize {
        self.len as usize
    }
}
