//! Holding ports against the kernel, so that no socket of its own gets one of ours.
//!
//! TCP: for each address a kernel socket with SO_REUSEADDR and a filter that
//! drops everything, listening. It refuses other binders, and stays silent to
//! segments that leak past the steering program (one that is bound but does not
//! listen would have the kernel answer with RST). UDP: a bound, filtered socket.
//!
//! "Any address" means the interface's addresses one by one, so that holders of
//! the port on 127.0.0.1 do not conflict.

use crate::errno::{Errno, Result};
use crate::runtime::sys::last_errno;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// Descriptors in one SCM_RIGHTS message, at most (SCM_MAX_FD is 253).
const STASH_BATCH: usize = 128;
/// How often a free port is looked for that is free on every address.
const TRIES: usize = 64;

/// The transport protocol of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// A port that the kernel gives to nobody else while this lives.
#[derive(Debug)]
pub struct Reservation {
    port: u16,
    _sockets: Vec<OwnedFd>,
}

impl Reservation {
    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }
}

/// Reserves a TCP port on these addresses; port 0: one that is free.
///
/// # Errors
/// EADDRINUSE: a kernel socket holds it. EACCES: below 1024 without
/// CAP_NET_BIND_SERVICE. EADDRNOTAVAIL: an address is not the host's, or none
/// was given. EMFILE, ENFILE, ENOMEM.
pub fn reserve_tcp(addresses: &[IpAddr], port: u16) -> Result<Reservation> {
    reserve(Transport::Tcp, addresses, port)
}

/// Reserves a UDP port on these addresses; port 0: one that is free.
///
/// # Errors
/// As [`reserve_tcp`].
pub fn reserve_udp(addresses: &[IpAddr], port: u16) -> Result<Reservation> {
    reserve(Transport::Udp, addresses, port)
}

/// Reserves a port of either protocol; see [`reserve_tcp`].
///
/// # Errors
/// As [`reserve_tcp`].
pub fn reserve(transport: Transport, addresses: &[IpAddr], port: u16) -> Result<Reservation> {
    let Some((first, others)) = addresses.split_first() else { return Err(Errno::EADDRNOTAVAIL) };
    let mut refused = Vec::new(); // kept until the end, so that the kernel offers others
    for _ in 0..if port == 0 { TRIES } else { 1 } {
        let socket = hold(transport, *first, port)?;
        let port = local_port(socket.as_raw_fd())?;
        let rest: Result<Vec<_>> = others.iter().map(|a| hold(transport, *a, port)).collect();
        match rest {
            Ok(mut sockets) => {
                sockets.push(socket);
                return Ok(Reservation { port, _sockets: sockets });
            }
            Err(Errno::EADDRINUSE) => refused.push(socket),
            Err(why) => return Err(why),
        }
    }
    Err(Errno::EADDRINUSE)
}

/// A run of ports reserved ahead, for connections that the stack opens: these
/// must not pay system calls for each.
///
/// The sockets that hold them wait in a socket pair of this process rather than
/// in its descriptor table, where thousands would not fit.
#[derive(Debug)]
pub struct PortBlock {
    first: u16,
    count: u16,
    _stash: Stash,
}

impl PortBlock {
    /// Reserves up to `count` ports in a row, on each of these addresses. First
    /// beyond the range from which the kernel takes ports for its own
    /// connections, then below, then in it; where no such run is free, a run of
    /// half as many, and so on.
    ///
    /// # Errors
    /// As [`reserve_tcp`], where not even a single port can be had.
    pub fn reserve(transport: Transport, addresses: &[IpAddr], count: u16) -> Result<Self> {
        if addresses.is_empty() {
            return Err(Errno::EADDRNOTAVAIL);
        }
        let (low, high) = kernel_range();
        let regions = [
            (u32::from(high) + 1, 65_535),
            (10_000, u32::from(low).saturating_sub(1)),
            (u32::from(low), u32::from(high)),
        ];
        let mut wanted = count;
        while wanted > 0 {
            for (from, to) in regions {
                if let Some(block) = Self::find(transport, addresses, wanted, from..=to)? {
                    return Ok(block);
                }
            }
            wanted /= 2;
        }
        Err(Errno::EADDRINUSE)
    }

    fn find(
        transport: Transport,
        addresses: &[IpAddr],
        count: u16,
        region: core::ops::RangeInclusive<u32>,
    ) -> Result<Option<Self>> {
        let mut stash = Stash::new()?;
        let mut first = *region.start();
        for port in region.clone() {
            if first + u32::from(count) - 1 > *region.end() {
                return Ok(None); // no room for a run any more
            }
            let held: Result<Vec<_>> =
                addresses.iter().map(|a| hold(transport, *a, port as u16)).collect();
            match held {
                Ok(sockets) => stash.put(sockets)?,
                Err(Errno::EADDRINUSE | Errno::EACCES) => {
                    stash = Stash::new()?;
                    first = port + 1;
                    continue;
                }
                Err(why) => return Err(why),
            }
            if port - first + 1 == u32::from(count) {
                stash.flush()?;
                return Ok(Some(Self { first: first as u16, count, _stash: stash }));
            }
        }
        Ok(None)
    }

    /// The lowest port of the run.
    pub fn first(&self) -> u16 {
        self.first
    }

    /// How many ports there are.
    pub fn count(&self) -> u16 {
        self.count
    }

    /// True where the port is one of the run.
    pub fn contains(&self, port: u16) -> bool {
        port.checked_sub(self.first).is_some_and(|n| n < self.count)
    }
}

/// Sockets on their way from this process to itself. They are closed when the
/// pair is.
#[derive(Debug)]
struct Stash {
    pairs: Vec<(OwnedFd, OwnedFd)>,
    waiting: Vec<OwnedFd>,
}

impl Stash {
    fn new() -> Result<Self> {
        Ok(Self { pairs: vec![pair()?], waiting: Vec::new() })
    }

    fn put(&mut self, sockets: Vec<OwnedFd>) -> Result<()> {
        self.waiting.extend(sockets);
        if self.waiting.len() >= STASH_BATCH { self.flush() } else { Ok(()) }
    }

    /// Sends what waits, and closes our descriptors of it.
    fn flush(&mut self) -> Result<()> {
        for batch in self.waiting.chunks(STASH_BATCH) {
            let fds: Vec<RawFd> = batch.iter().map(AsRawFd::as_raw_fd).collect();
            let last = self.pairs.last().map(|(to, _)| to.as_raw_fd()).ok_or(Errno::EBADF)?;
            match send_fds(last, &fds) {
                Err(Errno::EAGAIN | Errno::ENOBUFS) => {
                    let fresh = pair()?; // this one's queue is full
                    send_fds(fresh.0.as_raw_fd(), &fds)?;
                    self.pairs.push(fresh);
                }
                sent => sent?,
            }
        }
        self.waiting.clear();
        Ok(())
    }
}

fn pair() -> Result<(OwnedFd, OwnedFd)> {
    let mut fds = [0; 2];
    let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: room for two descriptors.
    if unsafe { libc::socketpair(libc::AF_UNIX, kind, 0, fds.as_mut_ptr()) } < 0 {
        return Err(last_errno());
    }
    // SAFETY: new descriptors that nobody else owns.
    Ok(unsafe { (OwnedFd::from_raw_fd(fds[0]), OwnedFd::from_raw_fd(fds[1])) })
}

fn send_fds(to: RawFd, fds: &[RawFd]) -> Result<()> {
    let payload = size_of_val(fds) as u32;
    // SAFETY: these only compute sizes.
    let (space, len) = unsafe { (libc::CMSG_SPACE(payload), libc::CMSG_LEN(payload)) };
    let mut control = vec![0u64; (space as usize).div_ceil(8)]; // aligned for a cmsghdr
    let mut byte = 0u8;
    let mut vector = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
    // SAFETY: all zeros is a valid msghdr.
    let mut message: libc::msghdr = unsafe { core::mem::zeroed() };
    message.msg_iov = &mut vector;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = space as _;
    // SAFETY: the control buffer has room for one header and the descriptors
    // (CMSG_SPACE), and all buffers live through the call.
    let n = unsafe {
        let header = libc::CMSG_FIRSTHDR(&message);
        (*header).cmsg_level = libc::SOL_SOCKET;
        (*header).cmsg_type = libc::SCM_RIGHTS;
        (*header).cmsg_len = len as _;
        let data = libc::CMSG_DATA(header).cast::<RawFd>();
        core::ptr::copy_nonoverlapping(fds.as_ptr(), data, fds.len());
        libc::sendmsg(to, &message, libc::MSG_NOSIGNAL)
    };
    if n < 0 { Err(last_errno()) } else { Ok(()) }
}

/// The range from which the kernel takes ports for its own connections.
fn kernel_range() -> (u16, u16) {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range");
    let text = text.unwrap_or_default();
    let mut numbers = text.split_whitespace().filter_map(|n| n.parse().ok());
    match (numbers.next(), numbers.next()) {
        (Some(low), Some(high)) if low <= high => (low, high),
        _ => (32_768, 60_999),
    }
}

/// The kernel socket that holds a port on one address.
fn hold(transport: Transport, address: IpAddr, port: u16) -> Result<OwnedFd> {
    let family = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let kind = match transport {
        Transport::Tcp => libc::SOCK_STREAM,
        Transport::Udp => libc::SOCK_DGRAM,
    };
    // SAFETY: takes no pointers.
    let fd = unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK, 0) };
    if fd < 0 {
        return Err(last_errno());
    }
    // SAFETY: a new descriptor that nobody else owns.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    if family == libc::AF_INET6 {
        set(fd, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, &1i32)?;
    }
    if transport == Transport::Tcp {
        // Connections of the kernel's that wait out their TIME-WAIT do not
        // conflict; sockets that listen do.
        set(fd, libc::SOL_SOCKET, libc::SO_REUSEADDR, &1i32)?;
    }
    // One instruction: return 0, drop. Set before anything can arrive.
    let mut code = libc::sock_filter { code: 0x06, jt: 0, jf: 0, k: 0 };
    let program = libc::sock_fprog { len: 1, filter: &mut code };
    set(fd, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program)?;
    bind(fd, address, port)?;
    if transport == Transport::Tcp {
        // SAFETY: takes no pointers.
        if unsafe { libc::listen(fd, 1) } < 0 {
            return Err(last_errno());
        }
    }
    Ok(socket)
}

fn set<T>(fd: RawFd, level: i32, name: i32, value: &T) -> Result<()> {
    // SAFETY: the value lives through the call and its size is given.
    let n = unsafe {
        libc::setsockopt(fd, level, name, core::ptr::from_ref(value).cast(), size_of::<T>() as u32)
    };
    if n < 0 { Err(last_errno()) } else { Ok(()) }
}

fn bind(fd: RawFd, address: IpAddr, port: u16) -> Result<()> {
    let n = match address {
        IpAddr::V4(v4) => {
            // SAFETY: all zeros is a valid sockaddr_in.
            let mut to: libc::sockaddr_in = unsafe { core::mem::zeroed() };
            to.sin_family = libc::AF_INET as u16;
            to.sin_port = port.to_be();
            to.sin_addr.s_addr = u32::from_ne_bytes(v4.octets());
            // SAFETY: the address lives through the call and its size is given.
            unsafe { libc::bind(fd, (&raw const to).cast(), size_of_val(&to) as u32) }
        }
        IpAddr::V6(v6) => {
            // SAFETY: all zeros is a valid sockaddr_in6.
            let mut to: libc::sockaddr_in6 = unsafe { core::mem::zeroed() };
            to.sin6_family = libc::AF_INET6 as u16;
            to.sin6_port = port.to_be();
            to.sin6_addr.s6_addr = v6.octets();
            // SAFETY: as above.
            unsafe { libc::bind(fd, (&raw const to).cast(), size_of_val(&to) as u32) }
        }
    };
    if n < 0 { Err(last_errno()) } else { Ok(()) }
}

fn local_port(fd: RawFd) -> Result<u16> {
    // SAFETY: all zeros is a valid sockaddr_in6, which has room for IPv4's too.
    let mut name: libc::sockaddr_in6 = unsafe { core::mem::zeroed() };
    let mut len = size_of_val(&name) as u32;
    // SAFETY: the structure lives through the call and its size is given.
    if unsafe { libc::getsockname(fd, (&raw mut name).cast(), &mut len) } < 0 {
        return Err(last_errno());
    }
    Ok(u16::from_be(name.sin6_port)) // at the same place in both families
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
    use std::time::Duration;

    const LOCAL: &[IpAddr] = &[IpAddr::V4(Ipv4Addr::new(127, 0, 31, 1))];

    #[test]
    fn a_reserved_tcp_port_is_silent_and_nobody_elses() {
        let held = reserve_tcp(LOCAL, 0).unwrap();
        let at = (LOCAL[0], held.port());
        let taken = TcpListener::bind(at).unwrap_err();
        assert_eq!(taken.kind(), std::io::ErrorKind::AddrInUse);
        assert_eq!(reserve_tcp(LOCAL, held.port()).unwrap_err(), Errno::EADDRINUSE);
        // Neither accepted nor refused: nothing comes back.
        let silence = TcpStream::connect_timeout(&at.into(), Duration::from_millis(300));
        assert_eq!(silence.unwrap_err().kind(), std::io::ErrorKind::TimedOut);
        // Another address of the host is free.
        drop(TcpListener::bind(("127.0.31.2", held.port())).unwrap());
        let port = held.port();
        drop(held);
        drop(TcpListener::bind((LOCAL[0], port)).unwrap());
    }

    #[test]
    fn a_port_that_the_kernel_holds_is_refused() {
        let listener = TcpListener::bind((LOCAL[0], 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        assert_eq!(reserve_tcp(LOCAL, port).unwrap_err(), Errno::EADDRINUSE);
        let everywhere = TcpListener::bind(("0.0.0.0", 0)).unwrap();
        let port = everywhere.local_addr().unwrap().port();
        assert_eq!(reserve_tcp(LOCAL, port).unwrap_err(), Errno::EADDRINUSE);
        let udp = UdpSocket::bind((LOCAL[0], 0)).unwrap();
        let port = udp.local_addr().unwrap().port();
        assert_eq!(reserve_udp(LOCAL, port).unwrap_err(), Errno::EADDRINUSE);
        drop(reserve_tcp(LOCAL, port).unwrap()); // the other protocol is free
    }

    #[test]
    fn a_reserved_udp_port_swallows_what_comes() {
        let held = reserve_udp(LOCAL, 0).unwrap();
        assert!(UdpSocket::bind((LOCAL[0], held.port())).is_err());
        let socket = UdpSocket::bind((LOCAL[0], 0)).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        socket.connect((LOCAL[0], held.port())).unwrap();
        socket.send(b"x").unwrap();
        // No ICMP port unreachable, which would be ECONNREFUSED.
        assert_eq!(socket.recv(&mut [0; 8]).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    }

    #[test]
    fn several_addresses_get_the_same_port() {
        let two = [LOCAL[0], "127.0.31.9".parse().unwrap()];
        let held = reserve_tcp(&two, 0).unwrap();
        for address in two {
            assert!(TcpListener::bind((address, held.port())).is_err());
        }
        assert_eq!(reserve_tcp(&[], 0).unwrap_err(), Errno::EADDRNOTAVAIL);
        let foreign = ["192.0.2.1".parse().unwrap()];
        assert_eq!(reserve_tcp(&foreign, 0).unwrap_err(), Errno::EADDRNOTAVAIL);
    }

    #[test]
    fn a_block_holds_every_port_of_it_without_descriptors() {
        let local = ["127.0.31.77".parse().unwrap()];
        let descriptors = || std::fs::read_dir("/proc/self/fd").unwrap().count();
        let before = descriptors();
        let block = PortBlock::reserve(Transport::Tcp, &local, 1500).unwrap();
        assert!(descriptors() < before + 100, "the descriptor table is full of ports");
        assert_eq!(block.count(), 1500);
        assert!(block.contains(block.first()));
        assert!(!block.contains(block.first() - 1));
        assert!(!block.contains(block.first().wrapping_add(1500)));
        for port in (block.first()..).take(1500).step_by(97) {
            assert!(TcpListener::bind((local[0], port)).is_err(), "port {port} is free");
        }
        let first = block.first();
        drop(block);
        drop(TcpListener::bind((local[0], first)).unwrap());
    }

    #[test]
    fn a_block_goes_round_what_is_taken() {
        let local = ["127.0.31.78".parse().unwrap()];
        let (_, high) = kernel_range();
        let taken = TcpListener::bind((local[0], high + 10)).unwrap();
        let block = PortBlock::reserve(Transport::Tcp, &local, 100).unwrap();
        assert!(!block.contains(high + 10));
        assert_eq!(block.first(), high + 11);
        drop(taken);
    }
}
