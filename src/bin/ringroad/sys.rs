//! Thin wrappers of the system calls that the commands need and the standard
//! library lacks: epoll, connecting without waiting, limits, signals.

use std::io;
use std::mem;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

/// An epoll set of the kernel.
pub struct Epoll {
    fd: OwnedFd,
    events: Vec<libc::epoll_event>,
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

impl Epoll {
    /// A new set that reports up to `events` events at once.
    pub fn new(events: usize) -> io::Result<Self> {
        // SAFETY: no pointers; the result is checked before it becomes an OwnedFd.
        let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        check(fd)?;
        // SAFETY: the descriptor is new and belongs to nobody else.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Self { fd, events: vec![libc::epoll_event { events: 0, u64: 0 }; events] })
    }

    fn control(
        &self,
        op: libc::c_int,
        fd: RawFd,
        events: libc::c_int,
        data: u64,
    ) -> io::Result<()> {
        let mut event = libc::epoll_event { events: events as u32, u64: data };
        // SAFETY: `event` is a live epoll_event for the length of the call.
        check(unsafe { libc::epoll_ctl(self.fd.as_raw_fd(), op, fd, &mut event) }).map(drop)
    }

    /// Watch `fd` for `events`; they are reported with `data`.
    pub fn add(&self, fd: &impl AsRawFd, events: libc::c_int, data: u64) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, fd.as_raw_fd(), events, data)
    }

    /// Watch `fd` for other events.
    pub fn modify(&self, fd: &impl AsRawFd, events: libc::c_int, data: u64) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_MOD, fd.as_raw_fd(), events, data)
    }

    /// Wait up to `timeout_ms` (0: not at all, -1: for ever). A signal counts as no events.
    pub fn wait(&mut self, timeout_ms: i32) -> io::Result<usize> {
        let (events, room) = (self.events.as_mut_ptr(), self.events.len() as i32);
        // SAFETY: the kernel writes at most `room` events into our vector of that length.
        match check(unsafe { libc::epoll_wait(self.fd.as_raw_fd(), events, room, timeout_ms) }) {
            Ok(n) => Ok(n as usize),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => Ok(0),
            Err(e) => Err(e),
        }
    }

    /// Event `i` of the last wait: its bits and data.
    pub fn event(&self, i: usize) -> (libc::c_int, u64) {
        let event = self.events[i];
        (event.events as libc::c_int, event.u64)
    }
}

/// Start connecting a non-blocking TCP socket; it becomes writable when it is
/// connected or has failed (`take_error` says which).
pub fn connect_nonblocking(to: SocketAddr) -> io::Result<TcpStream> {
    let domain = if to.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let kind = libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: no pointers; the result is checked before use.
    let fd = check(unsafe { libc::socket(domain, kind, 0) })?;
    // SAFETY: the descriptor is new, a stream socket, and belongs to nobody else.
    let stream = unsafe { TcpStream::from_raw_fd(fd) };
    let (address, len) = raw_address(to);
    // SAFETY: `address` holds a socket address of `len` bytes and outlives the call.
    let result = unsafe { libc::connect(fd, (&raw const address).cast(), len) };
    match check(result) {
        Ok(_) => Ok(stream),
        Err(e) if e.raw_os_error() == Some(libc::EINPROGRESS) => Ok(stream),
        Err(e) => Err(e),
    }
}

fn raw_address(to: SocketAddr) -> (libc::sockaddr_storage, libc::socklen_t) {
    // SAFETY: all-zero bytes are a valid sockaddr_storage.
    let mut storage: libc::sockaddr_storage = unsafe { mem::zeroed() };
    let len = match to {
        SocketAddr::V4(v4) => {
            let raw = libc::sockaddr_in {
                sin_family: libc::AF_INET as u16,
                sin_port: v4.port().to_be(),
                sin_addr: libc::in_addr { s_addr: u32::from(*v4.ip()).to_be() },
                sin_zero: [0; 8],
            };
            // SAFETY: sockaddr_storage is larger than, and aligned for, every socket address.
            unsafe { (&raw mut storage).cast::<libc::sockaddr_in>().write(raw) };
            size_of::<libc::sockaddr_in>()
        }
        SocketAddr::V6(v6) => {
            let raw = libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as u16,
                sin6_port: v6.port().to_be(),
                sin6_flowinfo: v6.flowinfo(),
                sin6_addr: libc::in6_addr { s6_addr: v6.ip().octets() },
                sin6_scope_id: v6.scope_id(),
            };
            // SAFETY: sockaddr_storage is larger than, and aligned for, every socket address.
            unsafe { (&raw mut storage).cast::<libc::sockaddr_in6>().write(raw) };
            size_of::<libc::sockaddr_in6>()
        }
    };
    (storage, len as libc::socklen_t)
}

/// Raise the limit of open files as far as we may; what it then is.
pub fn raise_file_limit() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a live rlimit that the kernel fills in.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) } != 0 {
        return 1024;
    }
    let wanted = libc::rlimit { rlim_cur: limit.rlim_max, ..limit };
    // SAFETY: `wanted` is a live rlimit that the kernel reads.
    let raised = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &wanted) } == 0;
    if raised { wanted.rlim_cur } else { limit.rlim_cur }
}

static STOP: AtomicBool = AtomicBool::new(false);

extern "C" fn note_stop(_: libc::c_int) {
    // A second signal ends the process the ordinary way.
    if STOP.swap(true, Ordering::Relaxed) {
        // SAFETY: _exit is safe in a signal handler.
        unsafe { libc::_exit(130) };
    }
}

/// From now on SIGINT and SIGTERM set a flag instead of ending the process;
/// a second one still ends it.
pub fn catch_stop_signals() {
    for signal in [libc::SIGINT, libc::SIGTERM] {
        // SAFETY: `note_stop` only touches an atomic and may call _exit, both
        // safe in a handler; the struct is zeroed, which is a valid sigaction.
        unsafe {
            let mut action: libc::sigaction = mem::zeroed();
            action.sa_sigaction = note_stop as *const () as usize;
            libc::sigaction(signal, &action, std::ptr::null_mut());
        }
    }
}

/// Act as if a stop signal had come.
pub fn request_stop() {
    STOP.store(true, Ordering::Relaxed);
}

/// A stop signal has come.
#[inline]
pub fn stop_requested() -> bool {
    STOP.load(Ordering::Relaxed)
}
