//! Whose a descriptor is: the simulation's that the thread is in, the running
//! stack's, or the system's.

use super::sim::{self, Entered};
use crate::errno::{Errno, Result};
use crate::runtime::posix;
use crate::socket::{Figure, RecvMeta, SendMeta};
use core::ffi::c_int;
use core::net::SocketAddr;
use std::io::{IoSlice, IoSliceMut};

/// One of ours: where its calls go.
#[derive(Clone, Copy, Debug)]
pub(super) enum Target {
    /// A simulated stack.
    Sim(Entered),
    /// The running one.
    Running,
}

/// A call that both kinds of target have.
macro_rules! calls {
    ($($(#[$doc:meta])* $name:ident($($arg:ident: $type:ty),*) -> $result:ty;)*) => {
        impl Target {
            $($(#[$doc])* #[inline]
            pub(super) fn $name(self, fd: c_int, $($arg: $type),*) -> Result<$result> {
                match self {
                    Self::Sim(sim) => sim.with(|s| s.$name(fd, $($arg),*)),
                    Self::Running => posix::$name(fd, $($arg),*),
                }
            })*
        }
    };
}

calls! {
    /// Refuses a descriptor that is not open, with EBADF.
    is_open() -> ();
    /// bind(2).
    bind(addr: SocketAddr) -> ();
    /// listen(2).
    listen(backlog: c_int) -> ();
    /// accept4(2).
    accept4(flags: c_int) -> (c_int, SocketAddr);
    /// connect(2).
    connect(addr: SocketAddr) -> ();
    /// connect(2) to AF_UNSPEC.
    disconnect() -> ();
    /// send(2).
    send(data: &[u8], flags: c_int) -> usize;
    /// sendmsg(2).
    send_message(parts: &[IoSlice<'_>], flags: c_int, to: Option<SocketAddr>, meta: &SendMeta) -> usize;
    /// recv(2).
    recv(out: &mut [u8], flags: c_int) -> usize;
    /// recvmsg(2).
    recv_message(parts: &mut [IoSliceMut<'_>], flags: c_int) -> (usize, RecvMeta);
    /// An error that is the next call's.
    leave_error(error: Errno) -> ();
    /// shutdown(2).
    shutdown(how: c_int) -> ();
    /// close(2).
    close() -> ();
    /// F_DUPFD(2const).
    dup(from: c_int, cloexec: bool) -> c_int;
    /// setsockopt(2).
    set_option(level: c_int, name: c_int, value: &[u8]) -> ();
    /// getsockopt(2).
    get_option(level: c_int, name: c_int, out: &mut [u8]) -> usize;
    /// getsockname(2).
    local_addr() -> SocketAddr;
    /// getpeername(2).
    peer_addr() -> SocketAddr;
    /// O_NONBLOCK.
    nonblocking() -> bool;
    /// O_NONBLOCK.
    set_nonblocking(on: bool) -> ();
    /// FD_CLOEXEC.
    close_on_exec() -> bool;
    /// FD_CLOEXEC.
    set_close_on_exec(on: bool) -> ();
    /// FIONREAD.
    bytes_readable() -> usize;
    /// SIOCATMARK, SIOCOUTQ, SIOCOUTQNSD.
    figure(figure: Figure) -> usize;
    /// epoll_ctl(2).
    epoll_ctl(op: c_int, member: c_int, events: u32, data: u64) -> ();
}

impl Target {
    /// Where a descriptor's calls go; `None`: to the system.
    #[inline]
    pub(super) fn of(fd: c_int) -> Option<Self> {
        match sim::current() {
            Some(sim) => Some(Self::Sim(sim)),
            None => posix::is_ours(fd).then_some(Self::Running),
        }
    }

    /// Where new sockets are made; `None`: there is no stack.
    pub(super) fn here() -> Option<Self> {
        match sim::current() {
            Some(sim) => Some(Self::Sim(sim)),
            None => posix::is_running().then_some(Self::Running),
        }
    }

    /// The simulation that this thread is in.
    pub(super) fn simulated() -> Option<Self> {
        sim::current().map(Self::Sim)
    }

    /// True for a simulation, whose calls take no time.
    pub(super) fn is_simulated(self) -> bool {
        matches!(self, Self::Sim(_))
    }

    /// The error of a call whose arguments were found bad before the descriptor
    /// was looked at: the kernel looks at the descriptor first.
    #[cold]
    pub(super) fn blame(self, fd: c_int, error: Errno) -> Errno {
        self.is_open(fd).err().unwrap_or(error)
    }

    /// socket(2).
    pub(super) fn socket(self, domain: c_int, kind: c_int, protocol: c_int) -> Result<c_int> {
        match self {
            Self::Sim(sim) => sim.with(|s| s.socket(domain, kind, protocol)),
            Self::Running => posix::socket(domain, kind, protocol),
        }
    }

    /// epoll_create1(2).
    pub(super) fn epoll_create(self, cloexec: bool) -> Result<c_int> {
        match self {
            Self::Sim(sim) => sim.with(|s| s.epoll_create(cloexec)),
            Self::Running => posix::epoll_create(cloexec),
        }
    }

    /// True for a stream socket; false too where that cannot be found out.
    pub(super) fn is_stream(self, fd: c_int) -> bool {
        let mut kind = [0; 4];
        let got = self.get_option(fd, libc::SOL_SOCKET, libc::SO_TYPE, &mut kind);
        got.is_ok() && c_int::from_ne_bytes(kind) == libc::SOCK_STREAM
    }

    /// True where an option that is a switch is on.
    pub(super) fn is_on(self, fd: c_int, level: c_int, name: c_int) -> bool {
        let mut value = [0; 4];
        let got = self.get_option(fd, level, name, &mut value);
        got.is_ok() && c_int::from_ne_bytes(value) != 0
    }
}
