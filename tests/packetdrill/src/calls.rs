//! The system calls of the interface, over the `rr_` functions, which never
//! block in simulation: what blocks here waits in the machine.

use crate::machine::{Machine, Outcome, Wait, World};
use core::ffi::{c_int, c_long, c_longlong, c_uint, c_ulong, c_void};
use core::ptr::{null, null_mut};
use libc::{epoll_event, iovec, loff_t, msghdr, nfds_t, off_t, pollfd, size_t, sockaddr, socklen_t, timeval};
use ringroad::ffi::*;

/// A call on a descriptor: the stack's, or, where it is not one of ours, the
/// system's.
macro_rules! either {
    ($machine:expr, $fd:expr, |$inner:ident| $ours:expr, $system:expr) => {
        $machine.at_once(|world| match world.descriptor($fd) {
            Some($inner) => Outcome::of($ours),
            None => Outcome::of($system),
        })
    };
}

pub(crate) unsafe fn socket(m: &Machine, domain: c_int, kind: c_int, protocol: c_int) -> Outcome {
    m.at_once(|world| match rr_socket(domain, kind, protocol) {
        inner @ 0.. => world.adopt(inner),
        failed => Outcome::of(failed),
    })
}

pub(crate) unsafe fn bind(m: &Machine, fd: c_int, addr: *const sockaddr, len: socklen_t) -> Outcome {
    // SAFETY: the caller's promise, handed on; so below, wherever nothing else is said.
    either!(m, fd, |inner| unsafe { rr_bind(inner, addr, len) }, unsafe { libc::bind(fd, addr, len) })
}

pub(crate) unsafe fn listen(m: &Machine, fd: c_int, backlog: c_int) -> Outcome {
    // SAFETY: a plain call.
    either!(m, fd, |inner| rr_listen(inner, backlog), unsafe { libc::listen(fd, backlog) })
}

/// How long a call on this descriptor may wait, by its flags, O_NONBLOCK and the
/// time-out that the option names.
fn patience(inner: c_int, flags: c_int, option: c_int) -> Wait {
    // SAFETY: F_GETFL has no pointer.
    let status = unsafe { rr_fcntl(inner, libc::F_GETFL, 0) };
    if flags & libc::MSG_DONTWAIT != 0 || status & libc::O_NONBLOCK != 0 {
        return Wait::No;
    }
    let mut time = timeval { tv_sec: 0, tv_usec: 0 };
    let mut len = size_of::<timeval>() as socklen_t;
    // SAFETY: a struct of that length.
    unsafe { rr_getsockopt(inner, libc::SOL_SOCKET, option, (&raw mut time).cast(), &mut len) };
    match time.tv_sec as u64 * 1_000_000_000 + time.tv_usec as u64 * 1000 {
        0 => Wait::Ever,
        ns => Wait::For(ns),
    }
}

/// As [`patience`], of a descriptor that may be the system's.
fn patience_of(world: &World, fd: c_int, flags: c_int, option: c_int) -> Wait {
    world.descriptor(fd).map_or(Wait::No, |inner| patience(inner, flags, option))
}

pub(crate) unsafe fn accept(m: &Machine, fd: c_int, addr: *mut sockaddr, len: *mut socklen_t) -> Outcome {
    m.call(
        |world| patience_of(world, fd, 0, libc::SO_RCVTIMEO),
        move |world, last| {
            let Some(inner) = world.descriptor(fd) else {
                // SAFETY: the caller's promise.
                return Some(Outcome::of(unsafe { libc::accept(fd, addr, len) }));
            };
            // SAFETY: the caller's promise; it waits for this call.
            match Outcome::of(unsafe { rr_accept(inner, addr, len) }) {
                failed if failed.would_block() && !last => None,
                failed if failed.value < 0 => Some(failed),
                accepted => Some(world.adopt(accepted.value as c_int)),
            }
        },
    )
}

/// What a connection that was begun has come to, if it has.
fn connected(inner: c_int) -> Option<Outcome> {
    let mut p = pollfd { fd: inner, events: libc::POLLOUT, revents: 0 };
    // SAFETY: one struct.
    if unsafe { rr_poll(&mut p, 1, 0) } == 0 {
        return None;
    }
    let (mut error, mut len): (c_int, _) = (0, size_of::<c_int>() as socklen_t);
    // SAFETY: a number of that length.
    unsafe { rr_getsockopt(inner, libc::SOL_SOCKET, libc::SO_ERROR, (&raw mut error).cast(), &mut len) };
    Some(if error == 0 { Outcome::ok(0) } else { Outcome::error(error) })
}

pub(crate) unsafe fn connect(m: &Machine, fd: c_int, addr: *const sockaddr, len: socklen_t) -> Outcome {
    let mut begun = false;
    m.call(
        |world| patience_of(world, fd, 0, libc::SO_SNDTIMEO),
        move |world, last| {
            let Some(inner) = world.descriptor(fd) else {
                // SAFETY: the caller's promise.
                return Some(Outcome::of(unsafe { libc::connect(fd, addr, len) }));
            };
            if begun {
                return connected(inner).or_else(|| last.then(|| Outcome::error(libc::EINPROGRESS)));
            }
            // SAFETY: the caller's promise.
            let outcome = Outcome::of(unsafe { rr_connect(inner, addr, len) });
            begun = true;
            let waits = [libc::EINPROGRESS, libc::EALREADY].contains(&outcome.errno);
            (last || outcome.value == 0 || !waits).then_some(outcome)
        },
    )
}

/// Receives: `take` is the call, with the flags that are left to it. With
/// MSG_WAITALL it is made again on what is left of the first part.
fn receive(
    m: &Machine,
    fd: c_int,
    flags: c_int,
    most: usize,
    mut take: impl FnMut(Option<c_int>, usize, c_int) -> Outcome + 'static,
) -> Outcome {
    let all = flags & libc::MSG_WAITALL != 0 && flags & libc::MSG_PEEK == 0;
    let mut got = 0;
    m.call(
        |world| patience_of(world, fd, flags, libc::SO_RCVTIMEO),
        move |world, last| {
            let inner = world.descriptor(fd);
            loop {
                let outcome = take(inner, got, flags & !libc::MSG_WAITALL);
                match outcome.value {
                    n @ 1.. if all && got + (n as usize) < most => got += n as usize,
                    n @ 0.. => return Some(Outcome::ok(n + got as i64)),
                    _ if outcome.would_block() && !last && inner.is_some() => return None,
                    _ if got > 0 => return Some(Outcome::ok(got as i64)),
                    _ => return Some(outcome),
                }
            }
        },
    )
}

pub(crate) unsafe fn read(m: &Machine, fd: c_int, buf: *mut c_void, count: size_t) -> Outcome {
    receive(m, fd, 0, count, move |inner, _, _| match inner {
        // SAFETY: the caller's promise; it waits for this call.
        Some(inner) => Outcome::of(unsafe { rr_read(inner, buf, count) } as i64),
        // SAFETY: the caller's promise.
        None => Outcome::of(unsafe { libc::read(fd, buf, count) } as i64),
    })
}

pub(crate) unsafe fn readv(m: &Machine, fd: c_int, parts: *const iovec, count: c_int) -> Outcome {
    receive(m, fd, 0, 0, move |inner, _, _| match inner {
        // SAFETY: the caller's promise; it waits for this call.
        Some(inner) => Outcome::of(unsafe { rr_readv(inner, parts, count) } as i64),
        // SAFETY: the caller's promise.
        None => Outcome::of(unsafe { libc::readv(fd, parts, count) } as i64),
    })
}

pub(crate) unsafe fn recv(m: &Machine, fd: c_int, buf: *mut c_void, len: size_t, flags: c_int) -> Outcome {
    // SAFETY: the caller's promise.
    unsafe { recvfrom(m, fd, buf, len, flags, null_mut(), null_mut()) }
}

pub(crate) unsafe fn recvfrom(
    m: &Machine,
    fd: c_int,
    buf: *mut c_void,
    len: size_t,
    flags: c_int,
    addr: *mut sockaddr,
    addr_len: *mut socklen_t,
) -> Outcome {
    receive(m, fd, flags, len, move |inner, got, flags| {
        let (to, room) = (buf.wrapping_byte_add(got), len - got);
        match inner {
            // SAFETY: the caller's promise; it waits for this call.
            Some(inner) => Outcome::of(unsafe { rr_recvfrom(inner, to, room, flags, addr, addr_len) } as i64),
            // SAFETY: the caller's promise.
            None => Outcome::of(unsafe { libc::recvfrom(fd, to, room, flags, addr, addr_len) } as i64),
        }
    })
}

pub(crate) unsafe fn recvmsg(m: &Machine, fd: c_int, msg: *mut msghdr, flags: c_int) -> Outcome {
    receive(m, fd, flags, 0, move |inner, _, flags| match inner {
        // SAFETY: the caller's promise; it waits for this call.
        Some(inner) => Outcome::of(unsafe { rr_recvmsg(inner, msg, flags) } as i64),
        // SAFETY: the caller's promise.
        None => Outcome::of(unsafe { libc::recvmsg(fd, msg, flags) } as i64),
    })
}

/// What of some parts is left after so many bytes.
fn rest(parts: &[iovec], mut skip: usize) -> Vec<iovec> {
    let mut left = Vec::new();
    for part in parts {
        let cut = skip.min(part.iov_len);
        skip -= cut;
        if cut < part.iov_len {
            let iov_base = part.iov_base.wrapping_byte_add(cut);
            left.push(iovec { iov_base, iov_len: part.iov_len - cut });
        }
    }
    left
}

/// Sends: `first` is the call as the program made it; what it leaves of `parts`
/// is sent as room appears, where the descriptor may wait.
fn transmit(
    m: &Machine,
    fd: c_int,
    flags: c_int,
    parts: Vec<iovec>,
    mut first: impl FnMut(Option<c_int>) -> Outcome + 'static,
) -> Outcome {
    let total: usize = parts.iter().map(|p| p.iov_len).fold(0, usize::saturating_add);
    let (mut sent, mut opens) = (0, false);
    m.call(
        |world| patience_of(world, fd, flags, libc::SO_SNDTIMEO),
        move |world, last| {
            let inner = world.descriptor(fd);
            loop {
                if opens && sent > 0 {
                    // Data in a SYN: the call is done when the connection is open.
                    match connected(inner.unwrap_or(-1)) {
                        None if !last => return None,
                        Some(failed) if failed.value < 0 => return Some(failed),
                        _ => opens = false,
                    }
                    if sent == total {
                        return Some(Outcome::ok(sent as i64));
                    }
                }
                let outcome = if sent == 0 {
                    first(inner)
                } else {
                    more(inner.unwrap_or(-1), &rest(&parts, sent), flags & !libc::MSG_FASTOPEN)
                };
                let waits = outcome.would_block() || outcome.errno == libc::EINPROGRESS;
                match outcome.value {
                    n @ 1.. if inner.is_some_and(opening) && !last => {
                        opens = true;
                        sent += n as usize;
                    }
                    n @ 1.. if inner.is_some() && !last && sent + (n as usize) < total => sent += n as usize,
                    n @ 0.. => return Some(Outcome::ok(n + sent as i64)),
                    _ if waits && !last && inner.is_some() => return None,
                    _ if sent > 0 => return Some(Outcome::ok(sent as i64)),
                    _ => return Some(outcome),
                }
            }
        },
    )
}

/// True while a connection's SYN is on its way.
fn opening(inner: c_int) -> bool {
    const SYN_SENT: u8 = 2;
    let (mut state, mut len) = (0u8, 1);
    // SAFETY: TCP_INFO begins with the state, and one byte is there.
    unsafe { rr_getsockopt(inner, libc::IPPROTO_TCP, libc::TCP_INFO, (&raw mut state).cast(), &mut len) };
    state == SYN_SENT
}

fn more(inner: c_int, parts: &[iovec], flags: c_int) -> Outcome {
    // SAFETY: numbers and pointers, all of which may be zero.
    let mut msg: msghdr = unsafe { core::mem::zeroed() };
    msg.msg_iov = parts.as_ptr().cast_mut();
    msg.msg_iovlen = parts.len() as _;
    // SAFETY: the parts are what is left of a call's that waits for this.
    Outcome::of(unsafe { rr_sendmsg(inner, &raw const msg, flags) } as i64)
}

fn one_part(buf: *const c_void, len: usize) -> Vec<iovec> {
    vec![iovec { iov_base: buf.cast_mut(), iov_len: len }]
}

/// # Safety
/// `parts` is null or `count` structs.
unsafe fn all_parts(parts: *const iovec, count: usize) -> Vec<iovec> {
    if parts.is_null() || count > 1024 {
        return Vec::new();
    }
    // SAFETY: the caller's promise.
    unsafe { core::slice::from_raw_parts(parts, count) }.to_vec()
}

pub(crate) unsafe fn write(m: &Machine, fd: c_int, buf: *const c_void, count: size_t) -> Outcome {
    transmit(m, fd, 0, one_part(buf, count), move |inner| match inner {
        // SAFETY: the caller's promise; it waits for this call.
        Some(inner) => Outcome::of(unsafe { rr_write(inner, buf, count) } as i64),
        // SAFETY: the caller's promise.
        None => Outcome::of(unsafe { libc::write(fd, buf, count) } as i64),
    })
}

pub(crate) unsafe fn writev(m: &Machine, fd: c_int, parts: *const iovec, count: c_int) -> Outcome {
    // SAFETY: the caller's promise.
    let all = unsafe { all_parts(parts, count.max(0) as usize) };
    transmit(m, fd, 0, all, move |inner| match inner {
        // SAFETY: the caller's promise; it waits for this call.
        Some(inner) => Outcome::of(unsafe { rr_writev(inner, parts, count) } as i64),
        // SAFETY: the caller's promise.
        None => Outcome::of(unsafe { libc::writev(fd, parts, count) } as i64),
    })
}

pub(crate) unsafe fn send(m: &Machine, fd: c_int, buf: *const c_void, len: size_t, flags: c_int) -> Outcome {
    // SAFETY: the caller's promise.
    unsafe { sendto(m, fd, buf, len, flags, null(), 0) }
}

pub(crate) unsafe fn sendto(
    m: &Machine,
    fd: c_int,
    buf: *const c_void,
    len: size_t,
    flags: c_int,
    addr: *const sockaddr,
    addr_len: socklen_t,
) -> Outcome {
    transmit(m, fd, flags, one_part(buf, len), move |inner| match inner {
        // SAFETY: the caller's promise; it waits for this call.
        Some(inner) => Outcome::of(unsafe { rr_sendto(inner, buf, len, flags, addr, addr_len) } as i64),
        // SAFETY: the caller's promise.
        None => Outcome::of(unsafe { libc::sendto(fd, buf, len, flags, addr, addr_len) } as i64),
    })
}

pub(crate) unsafe fn sendmsg(m: &Machine, fd: c_int, msg: *const msghdr, flags: c_int) -> Outcome {
    // SAFETY: the caller's promise: null or a struct with its parts.
    let parts = unsafe { msg.as_ref().map(|h| all_parts(h.msg_iov, h.msg_iovlen)) };
    transmit(m, fd, flags, parts.unwrap_or_default(), move |inner| match inner {
        // SAFETY: the caller's promise; it waits for this call.
        Some(inner) => Outcome::of(unsafe { rr_sendmsg(inner, msg, flags) } as i64),
        // SAFETY: the caller's promise.
        None => Outcome::of(unsafe { libc::sendmsg(fd, msg, flags) } as i64),
    })
}

pub(crate) unsafe fn fcntl(m: &Machine, fd: c_int, command: c_int, arg: c_ulong) -> Outcome {
    // SAFETY: the caller's promise.
    either!(m, fd, |inner| unsafe { rr_fcntl(inner, command, arg) }, unsafe { libc::fcntl(fd, command, arg) })
}

pub(crate) unsafe fn ioctl(m: &Machine, fd: c_int, request: c_ulong, arg: c_ulong) -> Outcome {
    // SAFETY: the caller's promise.
    either!(m, fd, |inner| unsafe { rr_ioctl(inner, request, arg) }, unsafe { libc::ioctl(fd, request as _, arg) })
}

pub(crate) unsafe fn close(m: &Machine, fd: c_int) -> Outcome {
    // SAFETY: a descriptor of the system's, which the caller gives up.
    m.at_once(|world| world.close(fd).unwrap_or_else(|| Outcome::of(unsafe { libc::close(fd) })))
}

pub(crate) unsafe fn shutdown(m: &Machine, fd: c_int, how: c_int) -> Outcome {
    // SAFETY: a plain call.
    either!(m, fd, |inner| rr_shutdown(inner, how), unsafe { libc::shutdown(fd, how) })
}

pub(crate) unsafe fn getsockopt(
    m: &Machine,
    fd: c_int,
    level: c_int,
    name: c_int,
    value: *mut c_void,
    len: *mut socklen_t,
) -> Outcome {
    either!(
        m,
        fd,
        // SAFETY: the caller's promise.
        |inner| unsafe { rr_getsockopt(inner, level, name, value, len) },
        // SAFETY: the caller's promise. Not by its name, which this library has too.
        unsafe { libc::syscall(libc::SYS_getsockopt, fd, level, name, value, len) } as c_int
    )
}

pub(crate) unsafe fn setsockopt(
    m: &Machine,
    fd: c_int,
    level: c_int,
    name: c_int,
    value: *const c_void,
    len: socklen_t,
) -> Outcome {
    either!(
        m,
        fd,
        // SAFETY: the caller's promise.
        |inner| unsafe { rr_setsockopt(inner, level, name, value, len) },
        // SAFETY: the caller's promise.
        unsafe { libc::setsockopt(fd, level, name, value, len) }
    )
}

/// A time-out of poll's and epoll_wait's kind.
fn timeout(ms: c_int) -> Wait {
    match ms {
        0 => Wait::No,
        1.. => Wait::For(ms as u64 * 1_000_000),
        _ => Wait::Ever,
    }
}

pub(crate) unsafe fn poll(m: &Machine, fds: *mut pollfd, count: nfds_t, timeout_ms: c_int) -> Outcome {
    let count = if fds.is_null() { 0 } else { count as usize };
    m.call(
        |_| timeout(timeout_ms),
        move |world, last| {
            // SAFETY: the caller's promise; it waits for this call.
            let fds = unsafe { core::slice::from_raw_parts_mut(if count == 0 { core::ptr::dangling_mut() } else { fds }, count) };
            let mut ready = 0;
            for p in fds {
                let mut one = *p;
                // SAFETY: one struct.
                unsafe {
                    match world.descriptor(p.fd) {
                        Some(inner) => {
                            one.fd = inner;
                            rr_poll(&mut one, 1, 0)
                        }
                        None => libc::poll(&mut one, 1, 0),
                    }
                };
                p.revents = one.revents;
                ready += i64::from(one.revents != 0);
            }
            (ready > 0 || last).then(|| Outcome::ok(ready))
        },
    )
}

pub(crate) unsafe fn epoll_create(m: &Machine, size: c_int) -> Outcome {
    m.at_once(|world| match rr_epoll_create(size) {
        inner @ 0.. => world.adopt(inner),
        failed => Outcome::of(failed),
    })
}

pub(crate) unsafe fn epoll_ctl(m: &Machine, set: c_int, op: c_int, fd: c_int, event: *mut epoll_event) -> Outcome {
    m.at_once(|world| match (world.descriptor(set), world.descriptor(fd)) {
        // SAFETY: the caller's promise.
        (Some(set), Some(fd)) => Outcome::of(unsafe { rr_epoll_ctl(set, op, fd, event) }),
        (Some(_), None) => Outcome::error(libc::EPERM),
        // SAFETY: the caller's promise.
        (None, _) => Outcome::of(unsafe { libc::epoll_ctl(set, op, fd, event) }),
    })
}

pub(crate) unsafe fn epoll_wait(
    m: &Machine,
    set: c_int,
    events: *mut epoll_event,
    most: c_int,
    timeout_ms: c_int,
) -> Outcome {
    m.call(
        |_| timeout(timeout_ms),
        move |world, last| {
            let outcome = match world.descriptor(set) {
                // SAFETY: the caller's promise; it waits for this call.
                Some(set) => Outcome::of(unsafe { rr_epoll_wait(set, events, most, 0) }),
                // SAFETY: the caller's promise.
                None => Outcome::of(unsafe { libc::epoll_wait(set, events, most, 0) }),
            };
            (outcome.value != 0 || last).then_some(outcome)
        },
    )
}

pub(crate) unsafe fn netdev_send(m: &Machine, packet: *const c_void, len: size_t) -> Outcome {
    // SAFETY: the caller's promise.
    m.inject(unsafe { core::slice::from_raw_parts(packet.cast(), len) })
}

pub(crate) unsafe fn netdev_receive(
    m: &Machine,
    buf: *mut c_void,
    len: *mut size_t,
    time_us: *mut c_longlong,
) -> Outcome {
    // SAFETY: the caller's promise.
    unsafe {
        let (got, at) = m.next_packet(core::slice::from_raw_parts_mut(buf.cast(), *len));
        *len = got;
        *time_us = at as c_longlong;
    }
    Outcome::ok(0)
}

pub(crate) unsafe fn usleep(m: &Machine, us: c_uint) -> Outcome {
    m.sleep(u64::from(us) * 1000);
    Outcome::ok(0)
}

pub(crate) unsafe fn gettimeofday(m: &Machine, time: *mut timeval, _zone: *mut c_void) -> Outcome {
    let us = m.look_at_clock();
    let (tv_sec, tv_usec) = ((us / 1_000_000) as c_long, (us % 1_000_000) as c_long);
    // SAFETY: the caller's promise.
    unsafe { time.write(timeval { tv_sec, tv_usec }) };
    Outcome::ok(0)
}

pub(crate) unsafe fn pipe(_: &Machine, ends: *mut c_int) -> Outcome {
    // SAFETY: the caller's promise.
    Outcome::of(unsafe { libc::pipe(ends) })
}

/// Bytes that one splice moves, at most: what a pipe holds.
const PIPE: usize = 65_536;

/// Between a pipe of the system's and a socket of ours, by way of a copy.
/// Offsets are for files, which splice here has none of.
pub(crate) unsafe fn splice(
    m: &Machine,
    from: c_int,
    _from_at: *mut loff_t,
    to: c_int,
    _to_at: *mut loff_t,
    len: size_t,
    flags: c_uint,
) -> Outcome {
    let mut bytes = vec![0u8; len.min(PIPE)];
    let kind = if flags & libc::SPLICE_F_NONBLOCK != 0 { libc::MSG_DONTWAIT } else { 0 };
    let (at, most) = (bytes.as_mut_ptr().cast::<c_void>(), bytes.len());
    let (from_ours, to_ours) = {
        let world = m.inside();
        (world.descriptor(from).is_some(), world.descriptor(to).is_some())
    };
    // At urgent data splice gives nothing, and does not wait, as in Linux.
    if from_ours && at_mark(m, from) {
        return Outcome::ok(0);
    }
    // SAFETY: `bytes` outlives these calls, each of which is over when it returns.
    unsafe {
        let got = if from_ours {
            recv(m, from, at, most, kind)
        } else {
            Outcome::of(libc::read(from, at, most) as i64)
        };
        match got.value {
            n @ 1.. if to_ours => send(m, to, at, n as usize, kind | libc::MSG_NOSIGNAL),
            n @ 1.. => Outcome::of(libc::write(to, at, n as usize) as i64),
            _ => got,
        }
    }
}

/// True where the next byte of a socket of ours is the urgent one.
fn at_mark(m: &Machine, fd: c_int) -> bool {
    const SIOCATMARK: c_ulong = 0x8905;
    let world = m.inside();
    let mut mark: c_int = 0;
    // SAFETY: SIOCATMARK writes a number.
    world.descriptor(fd).is_some_and(|fd| unsafe { rr_ioctl(fd, SIOCATMARK, (&raw mut mark) as c_ulong) } == 0 && mark != 0)
}

/// sendfile(2) to a socket of ours; `None` where it is not.
pub(crate) unsafe fn sendfile(m: &Machine, to: c_int, from: c_int, at: *mut off_t, count: size_t) -> Option<Outcome> {
    m.inside().descriptor(to)?;
    let mut bytes = vec![0u8; count.min(1 << 24)];
    // SAFETY: the vector's bytes; `at` is null or writable by the caller's promise.
    let got = unsafe {
        let (room, most) = (bytes.as_mut_ptr().cast(), bytes.len());
        Outcome::of(match at.as_ref() {
            Some(&at) => libc::pread(from, room, most, at),
            None => libc::read(from, room, most),
        } as i64)
    };
    if got.value <= 0 {
        return Some(got);
    }
    // SAFETY: `bytes` outlives the call.
    let sent = unsafe { send(m, to, bytes.as_ptr().cast(), got.value as usize, libc::MSG_NOSIGNAL) };
    if sent.value > 0 && !at.is_null() {
        // SAFETY: the caller's promise.
        unsafe { *at += sent.value as off_t };
    }
    Some(sent)
}

/// Linux's numbers, which the libc crate lacks.
const TCP_CC_INFO: c_int = 26;
const SO_MEMINFO: c_int = 55;
/// Fields of SO_MEMINFO that it has room for: of what is received, of its limit,
/// of what is sent, and of its limit.
const MEMORY: usize = 9;

/// getsockopt(2) as a `%{ }%` block asks it: TCP_INFO, and beside it two that
/// must succeed for the block to run at all. `None` where the descriptor is not
/// ours.
pub(crate) unsafe fn socket_state(
    m: &Machine,
    fd: c_int,
    level: c_int,
    name: c_int,
    value: *mut c_void,
    len: *mut socklen_t,
) -> Option<Outcome> {
    let inner = m.inside().descriptor(fd)?;
    // SAFETY: the caller's promise.
    let outcome = unsafe { getsockopt(m, fd, level, name, value, len) };
    if outcome.value >= 0 || outcome.errno != libc::ENOPROTOOPT {
        return Some(outcome);
    }
    match (level, name) {
        // Nothing to tell, as Linux says of CUBIC and Reno.
        // SAFETY: the caller's promise.
        (libc::IPPROTO_TCP, TCP_CC_INFO) => unsafe { len.write(0) },
        (libc::SOL_SOCKET, SO_MEMINFO) => {
            let mut fields = [0u32; MEMORY];
            let _inside = m.inside();
            let number = |option| {
                let (mut n, mut len) = (0, size_of::<u32>() as socklen_t);
                // SAFETY: a number of that length.
                unsafe { rr_getsockopt(inner, libc::SOL_SOCKET, option, (&raw mut n).cast(), &mut len) };
                n
            };
            // SAFETY: FIONREAD writes a number.
            unsafe { rr_ioctl(inner, libc::FIONREAD, (&raw mut fields[0]) as c_ulong) };
            fields[1] = number(libc::SO_RCVBUF);
            fields[3] = number(libc::SO_SNDBUF);
            // SAFETY: the caller's promise.
            unsafe {
                let room = size_of_val(&fields).min(*len as usize);
                core::ptr::copy_nonoverlapping(fields.as_ptr().cast::<u8>(), value.cast(), room);
                *len = room as socklen_t;
            }
        }
        _ => return Some(outcome),
    }
    Some(Outcome::ok(0))
}
