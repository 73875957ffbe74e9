//! Preferred busy polling: the worker's own system calls run the driver.
//!
//! The kernel polls the queue's NAPI within a call on the socket; as long as the calls
//! go on, neither interrupts nor the kernel's packet threads do. They must go on: the
//! kernel wakes the driver no more, so each turn makes one call, whether there is
//! something to send or not (about 1 us where nothing waits, by driver).

use super::{XdpDevice, set_option};
use std::io;
use std::os::fd::AsRawFd;

const SO_INCOMING_NAPI_ID: libc::c_int = 56;
const SO_PREFER_BUSY_POLL: libc::c_int = 69;
const SO_BUSY_POLL_BUDGET: libc::c_int = 70;
/// Packets of one poll: a burst.
const BUDGET: u32 = super::BURST as u32;
/// Microseconds; a call that does not wait polls once, however long this is.
const BUSY: u32 = 20;
/// So many polls by which nothing leaves, while something waits, and polling is given
/// up: the NAPI is gone (a reset of the card renews it), or does not send. The carrier
/// may be gone, too, and then nothing is lost by it.
const STALLED: u32 = 10_000;

/// A queue's polling.
#[derive(Debug, Default)]
pub(super) struct Polling {
    /// Each turn polls.
    pub on: bool,
    /// Free places of the TX ring after the last poll, and how many polls ago they
    /// changed.
    free: u32,
    since: u32,
}

impl Polling {
    /// After a poll: true where it is to be given up.
    fn is_stalled(&mut self, waits: bool, free: u32) -> bool {
        if !waits || free != self.free {
            (self.free, self.since) = (free, 0);
        }
        self.since += u32::from(waits);
        self.since > STALLED
    }
}

impl XdpDevice {
    /// The number of the NAPI that the kernel would poll for this socket; `None` where
    /// it knows of none (the driver tells of none, the socket is not zero-copy, or
    /// Linux is older than 6.14).
    pub fn napi(&self) -> Option<u32> {
        let mut id: u32 = 0;
        let mut len = size_of::<u32>() as u32;
        // SAFETY: the value lives through the call and its size is given.
        let n = unsafe {
            libc::getsockopt(
                self.as_raw_fd(),
                libc::SOL_SOCKET,
                SO_INCOMING_NAPI_ID,
                (&raw mut id).cast(),
                &mut len,
            )
        };
        (n == 0 && id != 0).then_some(id)
    }

    /// Polls the driver in every turn, or no longer. Only for a queue whose NAPI is
    /// known, and sends, too.
    ///
    /// # Errors
    /// The kernel refuses (before Linux 5.11, or without CAP_NET_ADMIN).
    pub fn prefer_polling(&mut self, on: bool) -> io::Result<()> {
        let fd = self.as_raw_fd();
        self.polling = Polling::default();
        for (name, value) in [
            (SO_PREFER_BUSY_POLL, u32::from(on)),
            (libc::SO_BUSY_POLL, if on { BUSY } else { 0 }),
            (SO_BUSY_POLL_BUDGET, BUDGET),
        ] {
            set_option(fd, libc::SOL_SOCKET, name, value)?;
        }
        self.polling.on = on;
        Ok(())
    }

    /// True where every turn polls the driver.
    pub fn prefers_polling(&self) -> bool {
        self.polling.on
    }

    /// Has the kernel poll the driver, both ways.
    pub(super) fn poll_driver(&mut self) {
        self.figures.polls += 1;
        self.send_empty();
        let free = self.tx.nb_free_exact();
        // What did not leave is for the next turn.
        self.unkicked = free < self.tx_ring;
        if self.polling.is_stalled(self.unkicked, free) {
            self.stop_polling();
        }
    }

    #[cold]
    fn stop_polling(&mut self) {
        self.figures.polling_given_up += 1;
        // It was set by this process before; where it cannot be taken back, go on.
        let on = self.prefer_polling(false).is_err();
        self.polling.on = on;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn polling_is_given_up_where_nothing_leaves() {
        let mut polling = Polling { on: true, ..Polling::default() };
        let mut polls = |n, waits, free| (0..n).any(|_| polling.is_stalled(waits, free));
        assert!(!polls(10 * STALLED, false, 2048), "nothing waits");
        assert!(!polls(STALLED, true, 2000));
        assert!(!polls(STALLED, true, 2001), "one left");
        assert!(!polls(1, false, 2048), "all left");
        assert!(!polls(STALLED, true, 2001));
        assert!(polls(1, true, 2001));
    }
}
