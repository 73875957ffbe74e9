//! What the rings of a shared socket do not answer: its worker does.

use super::LinkEnd;
use crate::errno::{Errno, Result};
use crate::runtime::link::LinkId;
use crate::runtime::worker::Core;
use crate::tcp::Readiness;
use core::sync::atomic::Ordering;

impl Core {
    /// Whether there is data in the link's ring, after everything was done for it.
    pub(in crate::runtime) fn has_more(&mut self, id: LinkId) -> bool {
        self.pump(id, 0);
        self.desk.link(id).is_some_and(LinkEnd::has_data)
    }

    /// A read that the rings did not answer: the end of the stream, or an error.
    /// `None`: there is data in the ring after all.
    pub(in crate::runtime) fn recv_slow(&mut self, id: LinkId, buf: &mut [u8], flags: i32, ring_first: bool) -> Option<Result<usize>> {
        self.pump(id, 0);
        let Some(link) = self.desk.link(id) else { return Some(Err(Errno::EBADF)) };
        if ring_first && link.has_data() {
            return None;
        }
        let h = link.link.handle;
        let result = self.sockets.recv(h, buf, flags);
        self.pump(id, 0);
        Some(result)
    }

    /// SO_RCVLOWAT of the link's socket changed: what waits may be enough now.
    pub(in crate::runtime) fn low_water_changed(&mut self, id: LinkId) {
        let Some(link) = self.desk.link(id) else { return };
        let bytes = self.sockets.low_water(link.link.handle);
        link.link.low_water.store(bytes as u32, Ordering::Relaxed);
        let edges = link.level() & Readiness::IN.bits();
        self.pump(id, edges);
    }

    /// A write that the ring does not take: not connected, over, or with flags. One that
    /// `goes_on` leaves what ended the connection to the next call.
    pub(in crate::runtime) fn send_slow(&mut self, id: LinkId, data: &[u8], flags: i32, goes_on: bool) -> Result<usize> {
        self.pump(id, 0);
        let Some(link) = self.desk.link(id) else { return Err(Errno::EBADF) };
        let (h, behind) = (link.link.handle, !link.all_taken());
        let result = match behind {
            true => Err(Errno::EAGAIN),
            false if goes_on => self.sockets.send_on(h, data, flags),
            false => self.sockets.send(h, data, flags),
        };
        if result == Err(Errno::EAGAIN)
            && let Some(link) = self.desk.link(id)
        {
            link.refused = true;
        }
        self.pump(id, 0);
        result
    }
}
