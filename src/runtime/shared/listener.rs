//! Listeners that any thread may use: one at every worker.

use super::{IN, SharedSocket};
use crate::errno::{Errno, Result};
use crate::runtime::channel::{Thread, close_link};
use crate::runtime::link::{ACCEPTED, Kind, Rx, SPECIAL};
use crate::runtime::posix::Begun;
use core::net::SocketAddr;
use core::sync::atomic::Ordering;
use std::sync::Arc;

impl SharedSocket {
    /// `listen`: at every worker.
    pub fn listen(&self, thread: &mut Thread, backlog: i32) -> Result<()> {
        if self.spread.get().is_some() && self.stream {
            return self.everywhere(thread, |core, h| core.sockets.listen(h, backlog));
        }
        let id = self.home.id;
        let (ring, bound) = self.at_home(thread, move |core, h| {
            core.sockets.listen(h, backlog)?;
            let ring = core.desk.listen(id).ok_or(Errno::EINVAL)?;
            Ok((ring, core.sockets.local_addr(h)?))
        })??;
        self.home.receiving.hold().rx = Rx::Listener { ring, taken: 0 };
        let mut links = Vec::new();
        for worker in 0..self.hub.seats.len() {
            if worker == self.home.worker {
                links.push(self.home.clone());
                continue;
            }
            let settings = self.settings.hold().clone();
            let made = thread.call(self.hub, worker, move |core| {
                let domain = if bound.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
                let h = core.sockets.socket(domain, libc::SOCK_STREAM, 0)?;
                for (level, name, value) in &settings {
                    let _ = core.sockets.set_option(h, *level, *name, value);
                }
                let listening = core.sockets.bind(h, bound).and_then(|()| core.sockets.listen(h, backlog));
                if let Err(error) = listening {
                    let _ = core.sockets.close(h);
                    return Err(error);
                }
                let link = core.open_link(h, Kind::Stream);
                if let Some(ring) = core.desk.listen(link.id) {
                    link.receiving.hold().rx = Rx::Listener { ring, taken: 0 };
                }
                core.pump(link.id, 0);
                Ok(link)
            })?;
            match made {
                Ok(link) => links.push(link),
                Err(error) => {
                    links.into_iter().filter(|l| !Arc::ptr_eq(l, &self.home)).for_each(close_link);
                    return Err(error);
                }
            }
        }
        let _ = self.spread.set(links.into_boxed_slice());
        thread.call(self.hub, self.home.worker, move |core| core.pump(id, 0))
    }

    /// Whether it does, or was shut down since.
    fn still_listens(&self, thread: &mut Thread) -> Result<()> {
        let mut value = [0; 4];
        let asked = self.at_home(thread, move |core, h| {
            core.sockets.get_option(h, libc::SOL_SOCKET, libc::SO_ACCEPTCONN, &mut value).map(|_| value)
        })??;
        if i32::from_ne_bytes(asked) == 0 { Err(Errno::EINVAL) } else { Ok(()) }
    }

    /// `accept`, from all workers in turn.
    pub fn accept(&self, thread: &mut Thread, nonblocking: bool, begun: Begun) -> Result<(Self, SocketAddr)> {
        let deadline = begun.deadline(&self.recv_timeout);
        loop {
            let links = self.links();
            let first = self.turn.fetch_add(1, Ordering::Relaxed);
            // Before the look: what came before that is found by it.
            let down = links.iter().any(|l| self.hub.seats[l.worker].is_down());
            for i in 0..links.len() {
                let link = &links[(first + i) % links.len()];
                let mut receiving = link.receiving.hold();
                let Rx::Listener { ring, taken } = &mut receiving.rx else {
                    drop(receiving);
                    // It does not listen: the stack says what that is.
                    let refused = self.at_home(thread, |core, h| core.sockets.accept(h).map(|_| ()))?;
                    return Err(refused.err().unwrap_or(Errno::EINVAL));
                };
                let Some((link_made, peer)) = ring.pop() else { continue };
                *taken += 1;
                let refill = *taken >= ACCEPTED / 2;
                if refill {
                    *taken = 0;
                }
                drop(receiving);
                if refill {
                    // More may wait in the listener's own queue. This one is accepted.
                    let id = link.id;
                    let _ = thread.call(self.hub, link.worker, move |core| core.pump(id, 0));
                }
                // As in Linux an accepted connection has the listener's.
                let (receive, send) = (self.recv_timeout.load(Ordering::Relaxed), self.send_timeout.load(Ordering::Relaxed));
                let linger = self.lingers.load(Ordering::Relaxed).then_some(0);
                let made = Self::over(link_made, true, nonblocking);
                return Ok((made.with_options(Ok((receive, send, linger))), peer));
            }
            if down {
                return Err(Errno::ENETDOWN);
            }
            if links.iter().any(|l| l.status() & SPECIAL != 0) {
                self.still_listens(thread)?;
            }
            if !self.blocks(0) {
                return Err(Errno::EAGAIN);
            }
            match self.wait(thread, IN, deadline) {
                // The last that were accepted are still to be had.
                Err(Errno::ENETDOWN) => {}
                other => other?,
            }
        }
    }
}
