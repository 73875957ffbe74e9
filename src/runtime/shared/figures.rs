//! How much waits in a shared socket. Urgent data: what lies before the mark goes
//! to the program by the ring; there the worker stops, and the read that passes
//! the mark is a call to it.

use super::{SharedSocket, fill_queue};
use crate::errno::{Errno, Result};
use crate::frame::Frame;
use crate::runtime::channel::Thread;
use crate::runtime::descriptors::Owner;
use crate::runtime::link::{LinkId, Rx};
use crate::runtime::sys;
use crate::socket::{Figure, Handle};
use core::sync::atomic::Ordering;

/// How often `close` asks whether all has arrived, in ns: at first, and at last.
const ASK: (u64, u64) = (1_000_000, 16_000_000);

impl SharedSocket {
    /// What the calls that block need to know of options that were set before.
    pub fn with_options(mut self, options: Result<(u64, u64, Option<i32>)>) -> Self {
        if let Ok((receive, send, linger)) = options {
            *self.recv_timeout.get_mut() = receive;
            *self.send_timeout.get_mut() = send;
            *self.lingers.get_mut() = linger.is_some();
        }
        self
    }

    /// True where it was this worker's own socket.
    pub fn was(&self, owner: Owner, raw: u64) -> bool {
        let home = &self.home;
        (self.hub.number, home.worker, home.handle.to_raw()) == (owner.runtime, owner.worker.into(), raw)
    }

    /// Its link and handle at home, where that is this worker.
    pub fn at_worker(&self, owner: Owner) -> Option<(LinkId, Handle)> {
        let home = &self.home;
        let here = (self.hub.number, home.worker) == (owner.runtime, owner.worker.into());
        here.then_some((home.id, home.handle))
    }

    /// Puts an error back that a call took which returns something else.
    pub fn leave_error(&self, thread: &mut Thread, error: Errno) -> Result<()> {
        let id = self.home.id;
        self.at_home(thread, move |core, h| {
            let result = core.sockets.leave_error(h, error);
            core.pump(id, 0);
            result
        })?
    }

    /// SO_LINGER with a time: the last descriptor is gone, and `close` waits until the
    /// peer has everything, FIN included, the time is over, or a signal comes. The
    /// worker is asked again and again: nothing else tells of a FIN that arrived. One
    /// that began as a worker's own has a deadline from there.
    pub fn linger(&self, thread: &mut Thread, deadline: Option<u64>) {
        if !self.stream || self.spread.get().is_some() || !self.lingers.load(Ordering::Relaxed) {
            return;
        }
        let (id, worker) = (self.home.id, self.home.worker);
        let begun = thread.call(self.hub, worker, move |core| core.begin_linger(id));
        let Ok(Some(seconds)) = begun else { return };
        let whole = || sys::monotonic_ns().saturating_add(seconds.saturating_mul(1_000_000_000));
        let deadline = deadline.unwrap_or_else(whole);
        let mut nap = ASK.0;
        while thread.call(self.hub, worker, move |core| core.is_link_delivered(id)) == Ok(false) {
            let now = sys::monotonic_ns();
            let until = deadline.min(now + nap);
            if now >= deadline || self.hub.stopping() || thread.wait(Some(until), |_| false).is_err() {
                return;
            }
            nap = (nap * 2).min(ASK.1);
        }
    }

    /// FIONREAD: what is in the rings; of datagrams, the first.
    pub fn bytes_readable(&self, thread: &mut Thread) -> Result<usize> {
        for link in self.links() {
            let mut receiving = link.receiving.hold();
            let n = match &mut receiving.rx {
                Rx::Stream { ring, queue } => {
                    queue.extend(core::iter::from_fn(|| ring.take()));
                    link.leave(!queue.is_empty());
                    ring.release();
                    queue.iter().map(Frame::len).sum()
                }
                Rx::Datagram { ring, queue } => {
                    fill_queue(link, queue, ring);
                    queue.front().map_or(0, |d| d.meta.full_len)
                }
                Rx::Listener { .. } => return Err(Errno::EINVAL),
            };
            if n > 0 {
                return Ok(n);
            }
        }
        self.at_home(thread, |core, h| core.sockets.bytes_readable(h))?
    }

    /// Bytes of a stream that are in the rings.
    fn in_rings(&self) -> usize {
        let mut receiving = self.home.receiving.hold();
        let Rx::Stream { ring, queue } = &mut receiving.rx else { return 0 };
        queue.extend(core::iter::from_fn(|| ring.take()));
        self.home.leave(!queue.is_empty());
        ring.release();
        queue.iter().map(Frame::len).sum()
    }

    /// SIOCATMARK, SIOCOUTQ, SIOCOUTQNSD, and TCP_INQ's. What waits for the worker is not
    /// counted; it waits only while the send buffer is full.
    pub fn figure(&self, thread: &mut Thread, figure: Figure) -> Result<usize> {
        let id = self.home.id;
        if figure == Figure::AtMark && self.stream && self.home.receiving.hold().rx.has_any() {
            return Ok(0); // what is in the ring lies before the mark
        }
        let here = match figure {
            Figure::Unread => self.in_rings(),
            _ => 0,
        };
        self.at_home(thread, move |core, h| {
            core.pump(id, 0);
            core.sockets.figure(h, figure)
        })?
        .map(|n| n + here)
    }
}
