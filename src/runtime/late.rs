//! What a turn sends that comes late.
//!
//! A connection sends a part in a turn and gives way to the next, which is due at once;
//! but a program that takes long over its own turns must not make it slow.

use crate::device::Device;
use crate::socket::Sockets;
use crate::time::{Duration, Instant};

/// A turn is late if it comes so long after the last.
const LATE: Duration = Duration::from_micros(100);
/// So many turns' parts it sends then.
const PARTS: usize = 32;

/// A turn at `now` is late, after one at `last`.
#[inline]
pub(super) fn is_late(last: Instant, now: Instant) -> bool {
    now.since(last) >= LATE
}

/// Sends what the next turns would; the last part is left in the queue.
#[cold]
pub(super) fn send_rest<D: Device>(device: &mut D, sockets: &mut Sockets, now: Instant) {
    for _ in 0..PARTS {
        let (pool, queue) = sockets.tx();
        device.transmit(pool, queue);
        device.reap(pool);
        sockets.turn(now);
        if !sockets.has_more_to_send() {
            break;
        }
    }
}
