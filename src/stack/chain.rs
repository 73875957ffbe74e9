//! Packets that are larger than a frame: how they are made, sent, and taken in from
//! ourselves. Where they come from the wire they are [`Packet`]s as any other.

use super::Core;
use super::ip_output::{Gather, IpHeader};
use super::route::Path;
use crate::errno::{Errno, Result};
use crate::frame::{Frame, MOST_PIECES, Packet, Pieces, Pool, TxDesc};
use crate::telemetry::DropReason;

/// Bytes of headers that a frame of a chain has room for, whichever part it becomes
/// when a segment is cut anew.
const HEADERS: usize = 128;

/// Bytes in the largest IP packet that is made: of several frames where the device
/// takes such.
pub(super) fn largest_packet(pool: &Pool, link_len: usize, multi_buffer: bool) -> usize {
    let capacity = pool.arena().capacity();
    let single = capacity.saturating_sub(link_len);
    if multi_buffer { single.max(capacity.saturating_sub(HEADERS) * MOST_PIECES) } else { single }
}

impl Core {
    /// Whether a packet of `len` bytes behind the link's header is larger than a frame.
    #[inline]
    pub(super) fn is_jumbo(&self, len: usize) -> bool {
        self.interface.link_len + len > self.pool.frame_capacity()
    }

    /// Sends a payload of `len` bytes, given in parts, as one packet of several
    /// frames. It fits the path.
    ///
    /// # Errors
    /// `EAGAIN`: no free frames, or the transmit queue is full.
    #[cold]
    pub(super) fn send_chain(&mut self, path: &Path, h: &IpHeader, parts: &[&[u8]], len: usize) -> Result<()> {
        let (room, capacity) = (self.ip_room(false), self.pool.arena().capacity());
        let pieces = (room + len).div_ceil(capacity);
        if pieces > MOST_PIECES {
            return Err(Errno::EMSGSIZE);
        }
        if !self.can_send(path, pieces) {
            return Err(Errno::EAGAIN);
        }
        let mut gather = Gather::new(parts);
        let mut head = self.pool.alloc().ok_or(Errno::EAGAIN)?;
        gather.copy(&mut self.pool.buffer_mut(&mut head)[room..]);
        let (mut rest, mut left) = (Pieces::new(), room + len - capacity);
        while left > 0 {
            let Some(mut frame) = self.pool.alloc() else { break };
            frame.set_range(0, left.min(capacity));
            gather.copy(self.pool.bytes_mut(&mut frame));
            left -= frame.len();
            rest.push(frame);
        }
        self.pool.link(&head, rest);
        self.counters.tx_copied_bytes += len as u64;
        self.send_frame(path, h, head, len);
        Ok(())
    }

    /// Hands a chain to the device, or to ourselves: all of it or nothing. Its first
    /// frame is full.
    #[cold]
    pub(super) fn transmit_chain(&mut self, head: Frame, looped: bool) {
        let len = self.pool.arena().capacity();
        let tx = if looped { &mut self.loop_tx } else { &mut self.tx };
        if tx.room() < self.pool.pieces(&head) {
            self.counters.drop(DropReason::TransmitQueueFull);
            return self.pool.free(head);
        }
        if !looped {
            self.counters.tx_packets += 1;
            self.counters.tx_bytes += (len + self.pool.rest_bytes(&head).map(<[u8]>::len).sum::<usize>()) as u64;
        }
        self.pool.transmit_chain(&head, len, tx);
        self.pool.free(head);
    }

    /// Takes a packet off the loop queue, of which this is the first descriptor, as a
    /// copy; `None` where there are too few frames.
    pub(super) fn copy_looped(&mut self, first: TxDesc) -> Option<Packet> {
        let (mut packet, mut desc, mut short) = (None::<Packet>, first, false);
        loop {
            match self.pool.alloc() {
                Some(mut frame) => {
                    let bytes = self.pool.tx_bytes(&desc);
                    let len = bytes.len();
                    self.pool.buffer_mut(&mut frame)[..len].copy_from_slice(bytes);
                    frame.set_range(0, len);
                    match &mut packet {
                        None => packet = Some(Packet::single(frame)),
                        Some(packet) => packet.push(frame, &mut self.pool),
                    }
                }
                None => short = true,
            }
            self.pool.complete(desc.index());
            if !desc.more {
                break;
            }
            let Some(next) = self.loop_tx.pop() else { break };
            desc = next;
        }
        if short && let Some(packet) = packet.take() {
            packet.free(&mut self.pool);
        }
        packet
    }
}
