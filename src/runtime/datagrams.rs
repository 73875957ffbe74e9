//! Datagrams on their way to a shared socket, and from one.

use super::desk::LinkEnd;
use super::link::{Datagram, End, LENT, Outgoing};
use super::worker::Core;
use crate::errno::{Errno, Result};
use crate::socket::{Handle, RecvMeta, Sockets};
use crate::tcp::Readiness;
use crate::telemetry::DropReason;

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

    fn take_datagram(&mut self, h: Handle, len: usize) -> Option<Datagram> {
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

/// Sends a datagram whose call is over: an error becomes the socket's, and is counted.
///
/// # Errors
/// `EAGAIN`: nothing was done. Any other: it cannot be sent.
pub(super) fn send_late(sockets: &mut Sockets, h: Handle, bytes: &[u8], out: &Outgoing) -> Result<()> {
    let mut send = || sockets.send_to(h, bytes, libc::MSG_NOSIGNAL, out.to, &out.meta);
    let Err(first) = send() else { return Ok(()) };
    if first == Errno::EAGAIN {
        return Err(first);
    }
    // It may be one that waited for the program, and stays; then the second says what
    // becomes of the datagram.
    match send() {
        Ok(_) => {
            sockets.fail_datagrams(h, first);
            Ok(())
        }
        Err(Errno::EAGAIN) => {
            sockets.fail_datagrams(h, first);
            Err(Errno::EAGAIN)
        }
        Err(error) => {
            sockets.fail_datagrams(h, error);
            sockets.stack.core.counters.drop(DropReason::DatagramRefused);
            Err(error)
        }
    }
}
