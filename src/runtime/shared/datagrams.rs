//! Datagrams of shared sockets, both ways.

use super::{MAX_DATAGRAM, OUT, SharedSocket, fill, fill_queue, gather, scatter};
use crate::errno::{Errno, Result};
use crate::runtime::channel::{Command, Side, Thread};
use crate::runtime::link::{Outgoing, Rx, SPECIAL, Tx, Way};
use crate::runtime::posix::Begun;
use crate::socket::{RecvMeta, SendMeta};
use core::net::SocketAddr;
use core::sync::atomic::Ordering;
use std::io::{IoSlice, IoSliceMut};

impl SharedSocket {
    pub(super) fn recv_datagram(&self, thread: &mut Thread, bufs: &mut [IoSliceMut<'_>], flags: i32) -> Result<(usize, RecvMeta)> {
        let links = self.links();
        let first = self.turn.fetch_add(1, Ordering::Relaxed);
        // Before the look: what came before that is found by it.
        let down = links.iter().any(|l| self.hub.seats[l.worker].is_down());
        for i in 0..links.len() {
            let link = &links[(first + i) % links.len()];
            let mut held = link.receiving.hold();
            let receiving = &mut *held;
            let Rx::Datagram { ring, queue } = &mut receiving.rx else { continue };
            fill_queue(link, queue, ring);
            let Some(datagram) = queue.front() else { continue };
            let data = match (&datagram.frame, &datagram.big) {
                (Some(frame), _) => self.hub.arena.bytes(frame),
                (None, Some(big)) => big,
                (None, None) => &[],
            };
            let n = scatter(bufs, 0, data);
            let meta = datagram.meta;
            if flags & libc::MSG_PEEK == 0 {
                let frame = queue.pop_front().and_then(|d| d.frame);
                frame.into_iter().for_each(|frame| receiving.returns.give(frame));
                link.leave(!queue.is_empty());
                let idle = ring.is_empty();
                let bell = receiving.returns.must_ring(link, idle);
                drop(held);
                self.ring_for_returns(thread, link, bell);
            }
            return Ok((n, meta));
        }
        if down {
            return Err(Errno::ENETDOWN);
        }
        for link in links {
            if link.status() & SPECIAL != 0 {
                // An error waits, or it was shut down.
                let id = link.id;
                let result = self.on(thread, link, move |core, h| {
                    if core.has_more(id) {
                        return None; // it would be read, and thrown away
                    }
                    let result = core.sockets.recv_from(h, &mut [], flags);
                    core.pump(id, 0);
                    Some(result)
                })?;
                let Some(result) = result else { return self.recv_datagram(thread, bufs, flags) };
                if result != Err(Errno::EAGAIN) {
                    return result;
                }
            }
        }
        Err(Errno::EAGAIN)
    }

    pub(super) fn send_datagram(&self, thread: &mut Thread, parts: &[IoSlice<'_>], flags: i32, to: Option<SocketAddr>, meta: &SendMeta, begun: Begun) -> Result<usize> {
        let want: usize = parts.iter().map(|p| p.len()).sum();
        if want > MAX_DATAGRAM {
            return Err(Errno::EMSGSIZE);
        }
        let worker = thread.home(self.hub);
        let links = self.links();
        let link = links.iter().find(|l| l.worker == worker).unwrap_or(&self.home);
        // The first datagram of its kind goes by a call, whose error is the program's;
        // the ones after it by the ring.
        let like = |way: Way| (way.to, way.meta) == (to, *meta) && want <= way.len;
        let known = link.way.hold().is_some_and(like) && link.status() & SPECIAL == 0;
        if !known || flags & !(libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT) != 0 {
            let mut data = vec![0; want];
            gather(parts, 0, &mut data);
            let (id, meta) = (link.id, *meta);
            let (result, portless) = self.on(thread, link, move |core, h| {
                core.pump(id, 0);
                let result = core.sockets.send_to(h, &data, flags, to, &meta);
                // Noted here, where what makes it void is done, too, before it or after it.
                *link.way.hold() = result.is_ok().then_some(Way { to, meta, len: want });
                core.pump(id, 0);
                (result, core.sockets.lacks_port(h))
            })?;
            // One that finds no room now, and may wait, waits in the ring.
            if result != Err(Errno::EAGAIN) || portless || !self.blocks(flags) {
                return result;
            }
        }
        let mut out = Outgoing { frame: None, big: None, to, meta: *meta };
        if want <= self.hub.arena.capacity() {
            let Some(mut frame) = thread.frame(self.hub, link.worker)? else {
                // A blocking call has no "try again".
                return Err(if self.blocks(flags) { Errno::ENOBUFS } else { Errno::EAGAIN });
            };
            fill(self.hub, &mut frame, parts, 0);
            out.frame = Some(frame);
        } else {
            let mut data = vec![0; want];
            gather(parts, 0, &mut data);
            out.big = Some(data.into_boxed_slice());
        }
        let deadline = begun.deadline(&self.send_timeout);
        loop {
            let mut sending = link.sending.hold();
            let Tx::Datagram(ring) = &mut sending.tx else { return Err(Errno::EOPNOTSUPP) };
            let pushed = ring.push(out);
            if pushed.is_err() {
                link.count_short();
            }
            let must_ring = sending.must_ring(link);
            drop(sending);
            if must_ring {
                thread.send(self.hub, link.worker, Command::Pump(link.id, Side::Tx), true)?;
            }
            match pushed {
                Ok(()) => return Ok(want),
                Err(back) => out = back,
            }
            let waited = if self.blocks(flags) { self.wait(thread, OUT, deadline) } else { Err(Errno::EAGAIN) };
            if let Err(error) = waited {
                out.frame.into_iter().for_each(|frame| thread.unframe(self.hub, link.worker, frame));
                return Err(error);
            }
        }
    }
}
