//! Streams of shared sockets, both ways.

use super::{BROKEN, SharedSocket, fill, gather, scatter};
use crate::errno::{Errno, Result};
use crate::runtime::channel::{Command, Side, Thread, last_look};
use crate::runtime::link::{MARK, OPEN, Rx, SPECIAL, Tx};
use crate::runtime::worker::Core;
use core::sync::atomic::Ordering;
use std::io::{IoSlice, IoSliceMut};

impl SharedSocket {
    pub(super) fn recv_stream(&self, thread: &mut Thread, bufs: &mut [IoSliceMut<'_>], at: usize, flags: i32) -> Result<usize> {
        let ordinary = flags & (libc::MSG_OOB | libc::MSG_ERRQUEUE) == 0;
        let link = &self.home;
        let want = bufs.iter().map(|b| b.len()).sum::<usize>() - at;
        loop {
            let fast = ordinary && want > 0;
            let down = || self.hub.seats[link.worker].is_down();
            let take = || if fast { self.take_stream(thread, bufs, at, want, flags) } else { None };
            if let Some(n) = last_look(down, take)? {
                return Ok(n);
            }
            let status = link.status();
            if fast && status & (SPECIAL | MARK) == 0 && status & OPEN != 0 {
                return Err(Errno::EAGAIN);
            }
            let id = link.id;
            if at > 0 {
                // It ended behind the part that was read; how, the next call says.
                match thread.call(self.hub, link.worker, move |core| core.has_more(id))? {
                    true => continue,
                    false => return Ok(0),
                }
            }
            if ordinary && want == 0 && link.receiving.hold().rx.has_any() {
                return Ok(0);
            }
            // How it ended, or why it never began, the worker knows.
            let mut none = [0u8; 0];
            let buf = bufs.iter_mut().find(|b| !b.is_empty()).map_or(&mut none[..], |b| &mut b[..]);
            let slow = move |core: &mut Core| core.recv_slow(id, buf, flags, fast);
            if let Some(result) = thread.call(self.hub, link.worker, slow)? {
                return result;
            }
        }
    }

    /// Takes what waits in the ring; `None` where nothing does.
    fn take_stream(&self, thread: &mut Thread, bufs: &mut [IoSliceMut<'_>], at: usize, want: usize, flags: i32) -> Option<usize> {
        let link = &self.home;
        let arena = &self.hub.arena;
        let mut held = link.receiving.hold();
        let receiving = &mut *held;
        let Rx::Stream { ring, queue } = &mut receiving.rx else { return None };
        let (peek, cut) = (flags & libc::MSG_PEEK != 0, flags & libc::MSG_TRUNC != 0);
        let mut n = 0;
        if peek {
            queue.extend(core::iter::from_fn(|| ring.take()));
            link.leave(!queue.is_empty());
            ring.release();
            for frame in queue.iter() {
                n += scatter(bufs, at + n, arena.bytes(frame));
            }
            return (n > 0).then_some(n);
        }
        while n < want {
            if queue.is_empty() {
                let Some(frame) = ring.take() else { break };
                queue.push_back(frame);
            }
            let Some(frame) = queue.front_mut() else { break };
            let data = arena.bytes(frame);
            let step = if cut { data.len().min(want - n) } else { scatter(bufs, at + n, data) };
            n += step;
            frame.trim_front(step);
            if frame.is_empty()
                && let Some(frame) = queue.pop_front()
            {
                receiving.returns.give(frame);
            }
        }
        link.count_read(n);
        link.leave(!queue.is_empty());
        ring.release();
        let idle = queue.is_empty() && ring.is_empty();
        let bell = receiving.returns.must_ring(link, idle);
        drop(held);
        self.ring_for_returns(thread, link, bell);
        (n > 0).then_some(n)
    }

    pub(super) fn send_stream(&self, thread: &mut Thread, parts: &[IoSlice<'_>], at: usize, want: usize, flags: i32) -> Result<usize> {
        const QUIET: i32 = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
        let link = &self.home;
        if self.hub.seats[link.worker].is_down() {
            return Err(Errno::ENETDOWN);
        }
        if self.shut.load(Ordering::Relaxed) {
            return Err(Errno::EPIPE);
        }
        let status = link.status();
        if status & BROKEN != 0 || status & OPEN == 0 || flags & !QUIET != 0 || want == 0 {
            let mut data = vec![0; (want - at).min(1 << 16)];
            let n = gather(parts, at, &mut data);
            data.truncate(n);
            // A record ends with the last byte.
            let flags = if at + n < want { flags & !libc::MSG_EOR } else { flags };
            let id = link.id;
            return thread.call(self.hub, link.worker, move |core| core.send_slow(id, &data, flags, at > 0))?;
        }
        let mut sent = 0;
        // What was published counts, whatever came then: that is the next call's.
        match self.publish(thread, parts, at, want, &mut sent) {
            Err(error) if sent == 0 => Err(error),
            Ok(()) if sent == 0 => Err(Errno::EAGAIN),
            _ => Ok(sent),
        }
    }

    /// Writes to the worker's ring as far as there are frames and room, and counts the bytes.
    fn publish(&self, thread: &mut Thread, parts: &[IoSlice<'_>], at: usize, want: usize, sent: &mut usize) -> Result<()> {
        let link = &self.home;
        let mut room = true;
        // Frames are asked for without the claim: that may take a sleep.
        while at + *sent < want && room && thread.stock_up(self.hub, link.worker)? {
            let mut held = link.sending.hold();
            let sending = &mut *held;
            let Tx::Stream(ring) = &mut sending.tx else { return Err(Errno::EPIPE) };
            while at + *sent < want {
                room = ring.room() > 0;
                if !room {
                    break;
                }
                let Some(mut frame) = thread.stocked(self.hub, link.worker) else { break };
                *sent += fill(self.hub, &mut frame, parts, at + *sent);
                let staged = ring.stage(frame).is_ok();
                debug_assert!(staged, "there was room");
            }
            ring.publish();
            if !room {
                // The worker is told, and what it freed meanwhile is seen.
                link.count_short();
            }
            let must_ring = sending.must_ring(link);
            drop(held);
            if must_ring {
                thread.send(self.hub, link.worker, Command::Pump(link.id, Side::Tx), true)?;
            }
        }
        if at + *sent < want && room {
            // No frame: the same.
            let mut held = link.sending.hold();
            link.count_short();
            let must_ring = held.must_ring(link);
            drop(held);
            if must_ring {
                thread.send(self.hub, link.worker, Command::Pump(link.id, Side::Tx), true)?;
            }
        }
        Ok(())
    }
}
