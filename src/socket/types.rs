//! What the calls of the socket layer take and give.

use crate::errno::Result;
use core::net::IpAddr;

/// Names a socket or an epoll set of one [`Sockets`](super::Sockets). The
/// number of a closed one is not mistaken for its successor's: half of it is a
/// generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Handle(u64);

impl Handle {
    #[inline]
    pub(super) const fn new(index: u32, generation: u32) -> Self {
        Self(((generation as u64) << 32) | index as u64)
    }

    /// Its place in the table: small, and used again after a close.
    #[inline]
    pub const fn index(self) -> u32 {
        self.0 as u32
    }

    #[inline]
    pub(super) const fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// The handle as a number, for a program to keep.
    pub const fn to_raw(self) -> u64 {
        self.0
    }

    /// From such a number. A number that was never a handle is refused by the
    /// calls with `EBADF`.
    pub const fn from_raw(raw: u64) -> Self {
        Self(raw)
    }
}

/// A figure of a stream that `ioctl` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Figure {
    /// SIOCATMARK: 1 where the next byte is the urgent one.
    AtMark,
    /// SIOCOUTQ: bytes written and not acknowledged.
    Unacknowledged,
    /// SIOCOUTQNSD: bytes written and not sent.
    Unsent,
    /// TCP_INQ: bytes that can be read.
    Unread,
    /// 1 where the peer closed and all was read.
    Ended,
}

/// One reported member of an epoll set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EpollEvent {
    /// `EPOLL*` bits.
    pub events: u32,
    /// What the program gave to `epoll_ctl`.
    pub data: u64,
}

/// The runtime's say over ports: it refuses those that a kernel socket holds,
/// reserves ours against the kernel, and steers their packets to us. Without
/// one (simulation, owned addresses) every port is free.
///
/// Asked on `bind`, `listen` and `connect`, never per packet.
pub trait PortGuard: Send {
    /// A socket wants `port`. `protocol` is 6 (TCP) or 17 (UDP); an unspecified
    /// `addr` means every address of the interface. `active`: the port was drawn
    /// from the ephemeral range for an active open.
    ///
    /// # Errors
    /// `EADDRINUSE` where it is taken, `EACCES` where it needs a privilege.
    fn hold(&mut self, protocol: u8, addr: IpAddr, port: u16, active: bool) -> Result<()>;

    /// What [`hold`](Self::hold) was called for does not use the port any more,
    /// TIME-WAIT included. Called once for each successful `hold`, with the same
    /// arguments.
    fn release(&mut self, protocol: u8, addr: IpAddr, port: u16);
}

/// A socket's place in an epoll set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Membership {
    /// The set.
    pub set: Handle,
    /// What was asked for, with the bits that say how.
    pub wanted: EpollEvent,
    /// The next wait looks at it.
    pub listed: bool,
}
