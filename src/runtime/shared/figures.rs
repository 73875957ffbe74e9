//! How much waits in a shared socket. Urgent data: what lies before the mark goes
//! to the program by the ring; there the worker stops, and the read that passes
//! the mark is a call to it.

use super::{SharedSocket, fill_queue};
use crate::errno::{Errno, Result};
use crate::frame::Frame;
use crate::runtime::channel::Thread;
use crate::runtime::link::Rx;
use crate::socket::Figure;

impl SharedSocket {
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
