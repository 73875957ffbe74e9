//! IPv4 on its way out: headers, identification, fragmentation, path MTUs.

use super::Core;
use super::lru::Lru;
use super::route::Path;
use crate::errno::{Errno, Result};
use crate::frame::Frame;
use crate::rng::Rng;
use crate::telemetry::DropReason;
use crate::time::Instant;
use crate::wire::ethernet;
use crate::wire::ipv4::{self, DF, MF};
use core::hash::{Hash, Hasher};
use core::net::{IpAddr, Ipv4Addr};
use hashbrown::HashTable;
use siphasher::sip::SipHasher13;
use zerocopy::IntoBytes;

/// What the IP header of a packet to be sent says.
#[derive(Clone, Copy, Debug)]
pub struct IpHeader {
    /// Source address.
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
    /// Protocol number of the payload.
    pub protocol: u8,
    /// Time to live.
    pub ttl: u8,
    /// Type of service.
    pub tos: u8,
    /// Do not fragment.
    pub df: bool,
}

/// Identification of packets that may be fragmented (RFC 6864): a counter for
/// each of a number of groups of (source, destination, protocol), starting
/// anywhere, so that one flow's rate does not show in another's numbers.
/// Packets with DF have zero.
#[derive(Debug)]
pub struct Identification {
    key: [u8; 16],
    counters: Box<[u16]>,
}

const IDENT_GROUPS: usize = 1024;

impl Identification {
    pub(super) fn new(rng: &mut Rng) -> Self {
        let counters = (0..IDENT_GROUPS).map(|_| rng.next_u32() as u16).collect();
        Self { key: rng.key(), counters }
    }

    fn next(&mut self, src: Ipv4Addr, dst: Ipv4Addr, protocol: u8) -> u16 {
        let mut h = SipHasher13::new_with_key(&self.key);
        (src, dst, protocol).hash(&mut h);
        let h = h.finish();
        let counter = &mut self.counters[h as usize % IDENT_GROUPS];
        *counter = counter.wrapping_add(1);
        // A flow's own offset keeps the flows of a group apart.
        counter.wrapping_add((h >> 32) as u16)
    }
}

/// What ICMP told of the MTUs of paths (RFC 1191), for who keeps no such note
/// of his own (UDP, ICMP). Bounded, the least recently used goes.
#[derive(Debug)]
pub struct PathMtus {
    index: HashTable<u32>,
    entries: Vec<(IpAddr, usize, Instant)>,
    lru: Lru,
    key: [u8; 16],
}

impl PathMtus {
    pub(super) fn new(rng: &mut Rng) -> Self {
        Self { index: HashTable::new(), entries: Vec::new(), lru: Lru::default(), key: rng.key() }
    }

    /// Forgets all of them.
    pub(super) fn clear(&mut self) {
        self.index.clear();
        self.entries.clear();
        self.lru = Lru::default();
    }

    fn hash(key: &[u8; 16], ip: IpAddr) -> u64 {
        let mut h = SipHasher13::new_with_key(key);
        ip.hash(&mut h);
        h.finish()
    }

    fn find(&self, ip: IpAddr) -> Option<u32> {
        self.index.find(Self::hash(&self.key, ip), |&s| self.entries[s as usize].0 == ip).copied()
    }

    #[inline]
    fn get(&mut self, ip: IpAddr, now: Instant) -> Option<usize> {
        if self.entries.is_empty() {
            return None;
        }
        self.get_until(ip, now).map(|(mtu, _)| mtu)
    }

    /// With the time when it is forgotten.
    fn get_until(&mut self, ip: IpAddr, now: Instant) -> Option<(usize, Instant)> {
        let slot = self.find(ip)?;
        let (_, mtu, until) = self.entries[slot as usize];
        self.lru.touch(slot);
        (now < until).then_some((mtu, until))
    }

    fn set(&mut self, ip: IpAddr, mtu: usize, until: Instant, max: usize) {
        if let Some(slot) = self.find(ip) {
            self.entries[slot as usize] = (ip, mtu, until);
            return;
        }
        let slot = if self.entries.len() < max {
            self.entries.push((ip, mtu, until));
            self.entries.len() as u32 - 1
        } else {
            let Some(slot) = self.lru.oldest() else { return };
            self.lru.remove(slot);
            let old = self.entries[slot as usize].0;
            if let Ok(e) = self.index.find_entry(Self::hash(&self.key, old), |&s| s == slot) {
                e.remove();
            }
            self.entries[slot as usize] = (ip, mtu, until);
            slot
        };
        let (key, entries) = (&self.key, &self.entries);
        self.index.insert_unique(Self::hash(key, ip), slot, |&s| {
            Self::hash(key, entries[s as usize].0)
        });
        self.lru.insert(slot);
    }
}

impl Core {
    /// Largest packet to a destination: the path's, or less where ICMP said so.
    #[inline]
    pub fn path_mtu(&mut self, path: &Path, dst: IpAddr) -> usize {
        match self.path_mtus.get(dst, self.now) {
            Some(mtu) if !path.is_local => mtu.min(path.mtu),
            _ => path.mtu,
        }
    }

    /// As [`Core::path_mtu`], and until when it is so.
    pub(super) fn path_mtu_until(&mut self, path: &Path, dst: IpAddr) -> (usize, Instant) {
        match self.path_mtus.get_until(dst, self.now) {
            Some((mtu, until)) => (mtu.min(path.mtu), until),
            None => (path.mtu, Instant::NEVER),
        }
    }

    /// Forgets what ICMP told of paths.
    pub(super) fn forget_path_mtus(&mut self) {
        self.path_mtus.clear();
        self.ways.forget();
    }

    /// An ICMP error that fits a live flow said that packets to `dst` may have
    /// `mtu` bytes.
    pub(super) fn learn_path_mtu(&mut self, dst: IpAddr, mtu: usize) {
        let mtu = mtu.max(self.config.icmp.min_path_mtu);
        let until = self.now + self.config.icmp.path_mtu_age;
        self.path_mtus.set(dst, mtu, until, self.config.icmp.max_path_mtus);
        self.ways.forget();
    }

    #[cfg(test)]
    pub(super) fn learnt_path_mtu(&mut self, dst: IpAddr) -> Option<usize> {
        self.path_mtus.get(dst, self.now)
    }

    /// Sends one packet whose `payload_len` bytes lie in `frame` behind
    /// [`Core::ip_room`]. It fits the path; the frame is consumed.
    #[inline]
    pub fn send_frame(&mut self, path: &Path, h: &IpHeader, mut frame: Frame, payload_len: usize) {
        let (IpAddr::V4(src), IpAddr::V4(dst)) = (h.src, h.dst) else {
            self.counters.drop(DropReason::NoRoute);
            self.pool.free(frame);
            return;
        };
        let (ident, flags) =
            if h.df { (0, DF) } else { (self.identification.next(src, dst, h.protocol), 0) };
        let ip =
            ipv4::Header::new(src, dst, h.protocol, payload_len, h.ttl, h.tos, ident, flags);
        let room = self.ip_room(false);
        let buffer = self.pool.buffer_mut(&mut frame);
        buffer[room - ipv4::HEADER_LEN..room].copy_from_slice(ip.as_bytes());
        self.dispatch(path, frame, room + payload_len);
    }

    /// Puts the link's header before a packet and sends it where it goes.
    #[inline]
    fn dispatch(&mut self, path: &Path, mut frame: Frame, len: usize) {
        if self.interface.link_len != 0 {
            let mac = self.interface.mac.0;
            let buffer = self.pool.buffer_mut(&mut frame);
            buffer[..6].copy_from_slice(&mac);
            buffer[6..12].copy_from_slice(&mac);
            buffer[12..14].copy_from_slice(&ethernet::IPV4.to_be_bytes());
        }
        if path.is_local {
            self.transmit_loop(frame, len);
        } else if self.interface.link_len == 0 {
            self.transmit(frame, len);
        } else {
            self.transmit_via(path.next_hop, frame, len);
        }
    }

    fn transmit_loop(&mut self, frame: Frame, len: usize) {
        if self.pool.is_chained(&frame) {
            return self.transmit_chain(frame, true);
        }
        if self.loop_tx.room() == 0 {
            self.counters.drop(DropReason::TransmitQueueFull);
            self.pool.free(frame);
            return;
        }
        let desc = self.pool.transmit_and_free(frame, len);
        self.loop_tx.push(desc);
    }

    /// Packets that the queue of a path still takes.
    #[inline]
    pub(super) fn tx_room(&self, path: &Path) -> usize {
        if path.is_local { self.loop_tx.room() } else { self.tx.room() }
    }

    /// True where `frames` more packets can be made and sent now.
    #[inline]
    pub(super) fn can_send(&self, path: &Path, frames: usize) -> bool {
        self.tx_room(path) >= frames && self.pool.available() as usize >= frames
    }

    /// Why a packet that [`Core::send_ip`] refused did not leave.
    #[cold]
    pub(super) fn why_unsent(&self, path: &Path) -> DropReason {
        if self.tx_room(path) == 0 { DropReason::TransmitQueueFull } else { DropReason::PoolExhausted }
    }

    /// Sends a payload given in parts, as one packet or in fragments.
    ///
    /// # Errors
    /// `EMSGSIZE`: more than 65,515 bytes, or DF is set and it does not fit the
    /// path. `EAGAIN`: no free frames, or the transmit queue is full.
    /// `EAFNOSUPPORT`: not IPv4.
    pub fn send_ip(&mut self, path: &Path, h: &IpHeader, parts: &[&[u8]]) -> Result<()> {
        let (IpAddr::V4(src), IpAddr::V4(dst)) = (h.src, h.dst) else {
            return Err(Errno::EAFNOSUPPORT);
        };
        let len: usize = parts.iter().map(|p| p.len()).sum();
        let mtu = self.path_mtu(path, h.dst);
        if len + ipv4::HEADER_LEN > 65_535 || (h.df && len + ipv4::HEADER_LEN > mtu) {
            return Err(Errno::EMSGSIZE);
        }
        let room = self.ip_room(false);
        if len + ipv4::HEADER_LEN <= mtu {
            if self.is_jumbo(ipv4::HEADER_LEN + len) {
                return self.send_chain(path, h, parts, len);
            }
            if !self.can_send(path, 1) {
                return Err(Errno::EAGAIN);
            }
            let mut frame = self.pool.alloc().ok_or(Errno::EAGAIN)?;
            Gather::new(parts).copy(&mut self.pool.buffer_mut(&mut frame)[room..room + len]);
            self.counters.tx_copied_bytes += len as u64;
            self.send_frame(path, h, frame, len);
            return Ok(());
        }
        // Every fragment but the last carries a multiple of 8 bytes (RFC 791, 3.2). None
        // is larger than a frame.
        let most = mtu.min(self.pool.arena().capacity() - self.interface.link_len);
        let step = (most - ipv4::HEADER_LEN) & !7;
        if !self.can_send(path, len.div_ceil(step)) {
            return Err(Errno::EAGAIN);
        }
        let ident = self.identification.next(src, dst, h.protocol);
        let mut gather = Gather::new(parts);
        for at in (0..len).step_by(step) {
            let size = step.min(len - at);
            let flags = (at / 8) as u16 | if at + size < len { MF } else { 0 };
            let ip = ipv4::Header::new(src, dst, h.protocol, size, h.ttl, h.tos, ident, flags);
            let mut frame = self.pool.alloc().ok_or(Errno::EAGAIN)?;
            let buffer = self.pool.buffer_mut(&mut frame);
            buffer[room - ipv4::HEADER_LEN..room].copy_from_slice(ip.as_bytes());
            gather.copy(&mut buffer[room..room + size]);
            self.dispatch(path, frame, room + size);
        }
        self.counters.tx_copied_bytes += len as u64;
        Ok(())
    }
}

/// Reads parts one after the other as if they were one.
pub(super) struct Gather<'a> {
    parts: &'a [&'a [u8]],
    /// How much of the first part was read.
    at: usize,
}

impl<'a> Gather<'a> {
    pub fn new(parts: &'a [&'a [u8]]) -> Self {
        Self { parts, at: 0 }
    }

    /// Fills `out`; there is as much left.
    pub fn copy(&mut self, mut out: &mut [u8]) {
        while let (false, [part, rest @ ..]) = (out.is_empty(), self.parts) {
            let n = out.len().min(part.len() - self.at);
            let (now, later) = out.split_at_mut(n);
            now.copy_from_slice(&part[self.at..self.at + n]);
            out = later;
            self.at += n;
            if self.at == part.len() {
                (self.parts, self.at) = (rest, 0);
            }
        }
    }
}
