//! Datagrams on their way to a shared socket.

use super::desk::LinkEnd;
use super::link::{Datagram, End, LENT};
use super::worker::Core;
use crate::socket::RecvMeta;
use crate::tcp::Readiness;

impl Core {
    /// Hands received datagrams to the program: copied once more, into frames
    /// that it gives back, or onto the heap where they are larger than a frame.
    pub(super) fn lend_datagrams(&mut self, link: &mut LinkEnd) -> u32 {
        let h = link.link.handle;
        let End::Datagram { rx, lent, .. } = &mut link.end else { return 0 };
        let mut any = false;
        while *lent < LENT && rx.room() > 0 {
            if !self.sockets.readiness(h).contains(Readiness::IN) {
                break;
            }
            let Ok(len) = self.sockets.bytes_readable(h) else { break };
            let Some(datagram) = self.take_datagram(h, len) else { break };
            *lent += usize::from(datagram.frame.is_some());
            let fits = rx.stage(datagram).is_ok();
            debug_assert!(fits, "there was room");
            any = true;
        }
        rx.publish();
        if any { Readiness::IN.bits() } else { 0 }
    }

    fn take_datagram(&mut self, h: crate::socket::Handle, len: usize) -> Option<Datagram> {
        let arena = &self.hub.arena;
        if len > arena.capacity() {
            let mut big = vec![0; len].into_boxed_slice();
            let (n, meta) = self.sockets.recv_from(h, &mut big, 0).ok()?;
            debug_assert_eq!(n, len);
            return Some(Datagram { frame: None, big: Some(big), meta });
        }
        let mut frame = self.sockets.stack.core.pool.alloc()?;
        match self.sockets.recv_from(h, arena.buffer_mut(&mut frame), 0) {
            Ok((n, meta)) => {
                frame.set_range(0, n);
                self.sockets.stack.core.lent += 1;
                Some(Datagram { frame: Some(frame), big: None, meta: RecvMeta { ..meta } })
            }
            Err(_) => {
                self.sockets.stack.core.pool.free(frame);
                None
            }
        }
    }
}
