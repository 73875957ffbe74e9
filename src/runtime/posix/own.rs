//! The short way of a worker's own thread to its own sockets, for calls that need not
//! wait: one look-up of the thread, one of the descriptor, and the call. A call in here
//! costs some 25 instructions beside the same one on [`Sockets`].

use super::{NONBLOCKING, TABLE};
use crate::errno::{Errno, Result};
use crate::runtime::descriptors::KERNEL;
use crate::runtime::worker;
use crate::socket::{EpollEvent, Handle, RecvMeta, SendMeta, Sockets};
use core::net::{SocketAddr, SocketAddrV4};
use std::os::fd::RawFd;

/// Runs `f` on the worker's own socket behind a descriptor; `None` where it is no such
/// socket, or a call with these flags may wait.
#[inline(always)]
pub(in crate::runtime) fn on_own<R>(
    fd: RawFd,
    flags: i32,
    f: impl FnOnce(&mut Sockets, Handle) -> Result<R>,
) -> Option<Result<R>> {
    let find = |state| {
        let (word, status) = TABLE.local(fd, state)?;
        if status & NONBLOCKING == 0 && flags & libc::MSG_DONTWAIT == 0 {
            return None;
        }
        Some(Handle::from_raw(word))
    };
    let result = worker::on_own(find, f);
    if matches!(result, Some(Err(Errno::EAGAIN))) {
        worker::found_nothing();
    }
    result
}

/// As [`send`](super::send), of a few bytes that a worker's own stream takes at once: how
/// many; 0 where it is not so. What is done at once asks not whether it may wait. Each
/// `CALL` has one of its own, so that the compiler puts it into the call.
#[inline(always)]
pub fn own_send_now<const CALL: usize>(fd: RawFd, data: &[u8], flags: i32) -> usize {
    let send = |s: &mut Sockets, h| {
        let _own = CALL;
        s.send_now(h, data, flags)
    };
    worker::on_own(|state| own_handle(fd, state), send).unwrap_or(0)
}

/// As [`recv`](super::recv), of little data that a worker's own stream has: how much; 0
/// where it is not so. `CALL` as in [`own_send_now`].
#[inline(always)]
pub fn own_recv_now<const CALL: usize>(fd: RawFd, out: &mut [u8], flags: i32) -> usize {
    let recv = |s: &mut Sockets, h| {
        let _own = CALL;
        s.recv_now(h, out, flags)
    };
    worker::on_own(|state| own_handle(fd, state), recv).unwrap_or(0)
}

/// As [`send_message`](super::send_message), of a few bytes by a worker's own UDP socket:
/// how many; 0 where it is not so.
#[inline(always)]
pub fn own_send_to_now(fd: RawFd, data: &[u8], flags: i32, to: SocketAddrV4) -> usize {
    worker::on_own(|state| own_handle(fd, state), |s, h| s.send_to_now(h, data, flags, to)).unwrap_or(0)
}

/// As [`recv_message`](super::recv_message), of a small datagram that a worker's own UDP
/// socket has: its length, which is not 0, and its sender.
#[inline(always)]
pub fn own_recv_from_now(fd: RawFd, out: &mut [u8], flags: i32) -> Option<(usize, SocketAddrV4)> {
    worker::on_own(|state| own_handle(fd, state), |s, h| s.recv_from_now(h, out, flags))?
}

/// Runs `f`, which waits for nothing, on the worker's own socket behind a descriptor;
/// `None` where it is no such socket.
#[inline(always)]
pub(crate) fn on_own_now<R>(fd: RawFd, f: impl FnOnce(&mut Sockets, Handle) -> Option<R>) -> Option<R> {
    worker::on_own(|state| own_handle(fd, state), f).flatten()
}

/// The one event of a worker's own set; `None` where there is none, or not so simply.
#[inline(always)]
pub fn own_ready_now(set: RawFd) -> Option<EpollEvent> {
    worker::look_on_own(|state| own_handle(set, state | KERNEL), |s, h| s.epoll_now(h))
}

/// The handle behind a descriptor of exactly this state.
#[inline(always)]
fn own_handle(fd: RawFd, state: u64) -> Option<Handle> {
    TABLE.local_word(fd, state).map(Handle::from_raw)
}

/// [`send`](super::send) by the short way, where there is one.
#[inline(always)]
pub fn own_send(fd: RawFd, data: &[u8], flags: i32) -> Option<Result<usize>> {
    on_own(fd, flags, |s, h| s.send(h, data, flags))
}

/// [`recv`](super::recv) by the short way, where there is one.
#[inline(always)]
pub fn own_recv(fd: RawFd, out: &mut [u8], flags: i32) -> Option<Result<usize>> {
    on_own(fd, flags, |s, h| s.recv(h, out, flags))
}

/// [`send_message`](super::send_message) of one part by the short way, where there is
/// one. None opens a connection.
#[inline(always)]
pub fn own_send_to(fd: RawFd, data: &[u8], flags: i32, to: Option<SocketAddr>) -> Option<Result<usize>> {
    if flags & libc::MSG_FASTOPEN != 0 {
        return None;
    }
    on_own(fd, flags, |s, h| s.send_to(h, data, flags, to, &SendMeta::default()))
}

/// [`recv_message`](super::recv_message) of one part by the short way, where there is
/// one.
#[inline(always)]
pub fn own_recv_from(fd: RawFd, out: &mut [u8], flags: i32) -> Option<Result<(usize, RecvMeta)>> {
    on_own(fd, flags, |s, h| s.recv_from(h, out, flags))
}

/// Hands up to `max` events of a worker's own set that are there now to `out`: how
/// many. After 0 [`epoll_wait`](super::epoll_wait) says why, and waits; or runs the
/// turn that is due.
#[inline(always)]
pub fn own_ready(set: RawFd, max: usize, out: impl FnMut(EpollEvent)) -> usize {
    worker::wait_on_own(|state| own_handle(set, state | KERNEL), |s, h| s.epoll_take(h, max, out).unwrap_or(0)).unwrap_or(0)
}
