//! What UDP and ICMP sockets share: the queue of received datagrams, and what is
//! said about one beside its bytes.

use super::ip_input::IpMeta;
use super::Core;
use crate::errno::{Errno, Result};
use crate::frame::{Packet, Pool};
use crate::time::Instant;
use core::net::{IpAddr, SocketAddr};
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
    meta: RecvMeta,
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
        self.items.front().map_or(0, |i| i.meta.full_len)
    }

    /// Whether a datagram of `len` bytes still fits; one always does.
    #[inline]
    pub fn has_room(&self, len: usize, max_bytes: usize, max_datagrams: usize) -> bool {
        self.items.is_empty()
            || (self.bytes + len <= max_bytes && self.items.len() < max_datagrams)
    }

    /// Adds a datagram. Its frames stay with the queue, or, where free ones are
    /// few, only its bytes.
    #[inline]
    pub fn push(&mut self, core: &mut Core, packet: Packet, meta: RecvMeta) {
        let low = core.pool.capacity() / 256 * core.config.datagram.copy_below;
        if core.pool.available() <= low {
            self.push_copy(core, &packet, meta);
            packet.free(&mut core.pool);
            return;
        }
        self.bytes += meta.full_len;
        self.frames += packet.frames();
        self.items.push_back(Item { payload: Payload::Frames(packet), meta });
    }

    /// Adds a copy of a datagram.
    pub fn push_copy(&mut self, core: &mut Core, packet: &Packet, meta: RecvMeta) {
        for frame in packet.iter() {
            self.copied.extend(core.pool.bytes(frame));
        }
        core.counters.rx_copied_bytes += meta.full_len as u64;
        self.bytes += meta.full_len;
        self.items.push_back(Item { payload: Payload::Copied(meta.full_len), meta });
    }

    /// Copies the next datagram's front into `buffer` and takes it off, unless
    /// `keep`.
    pub fn recv(&mut self, core: &mut Core, buffer: &mut [u8], keep: bool) -> Result<RecvMeta> {
        let item = self.items.front().ok_or(Errno::EAGAIN)?;
        let meta = item.meta;
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

    /// Takes the next datagram in frames. A copied one is put into a frame first.
    pub fn recv_packet(&mut self, core: &mut Core) -> Result<(Packet, RecvMeta)> {
        let item = self.items.front().ok_or(Errno::EAGAIN)?;
        let meta = item.meta;
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
        self.bytes -= item.meta.full_len;
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

/// The meta data of a datagram of `len` bytes from port `port`.
#[inline]
pub(super) fn received(core: &Core, meta: &IpMeta, port: u16, len: usize) -> RecvMeta {
    RecvMeta {
        from: Some(SocketAddr::new(meta.src, port)),
        to: meta.dst,
        tos: meta.tos,
        ttl: meta.ttl,
        time: core.now,
        full_len: len,
    }
}
