//! The socket calls on a simulated stack, with the names and shapes of the
//! runtime's. None of them blocks.

use super::Sim;
use crate::errno::{Errno, Result};
use crate::socket::{EpollEvent, Figure, Handle, Readiness, RecvMeta, SendMeta};
use core::ffi::c_int;
use core::net::SocketAddr;
use std::io::{IoSlice, IoSliceMut};

/// What a type of socket may be combined with.
const TYPE_FLAGS: c_int = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
/// The bits of a type that are no flags.
const TYPE_MASK: c_int = 0xf;
/// Bytes that a datagram or one read into several parts brings, at most.
const SCRATCH: usize = 65_536;

impl Sim {
    #[inline]
    fn handle(&self, fd: c_int) -> Result<Handle> {
        self.descriptors.get(fd)
    }

    pub(in crate::ffi) fn is_open(&self, fd: c_int) -> Result<()> {
        self.handle(fd).map(|_| ())
    }

    /// A descriptor for a new handle, which is closed again where there is none.
    fn descriptor(&mut self, handle: Handle, flags: c_int) -> Result<c_int> {
        let (nonblocking, cloexec) = (flags & libc::SOCK_NONBLOCK != 0, flags & libc::SOCK_CLOEXEC != 0);
        let fd = self.descriptors.open(handle, nonblocking, cloexec);
        if fd.is_err() {
            let _ = self.sockets.close(handle);
        }
        fd
    }

    pub(in crate::ffi) fn socket(&mut self, domain: c_int, kind: c_int, protocol: c_int) -> Result<c_int> {
        if kind & !(TYPE_MASK | TYPE_FLAGS) != 0 {
            return Err(Errno::EINVAL);
        }
        let handle = self.sockets.socket(domain, kind & TYPE_MASK, protocol)?;
        self.descriptor(handle, kind)
    }

    pub(in crate::ffi) fn bind(&mut self, fd: c_int, addr: SocketAddr) -> Result<()> {
        self.sockets.bind(self.handle(fd)?, addr)
    }

    pub(in crate::ffi) fn listen(&mut self, fd: c_int, backlog: c_int) -> Result<()> {
        self.sockets.listen(self.handle(fd)?, backlog)
    }

    pub(in crate::ffi) fn accept4(&mut self, fd: c_int, flags: c_int) -> Result<(c_int, SocketAddr)> {
        let listener = self.handle(fd)?;
        if !self.descriptors.has_room() {
            return Err(Errno::EMFILE);
        }
        let (handle, from) = self.sockets.accept(listener)?;
        Ok((self.descriptor(handle, flags)?, from))
    }

    pub(in crate::ffi) fn connect(&mut self, fd: c_int, addr: SocketAddr) -> Result<()> {
        self.sockets.connect(self.handle(fd)?, addr)
    }

    pub(in crate::ffi) fn disconnect(&mut self, fd: c_int) -> Result<()> {
        self.sockets.disconnect(self.handle(fd)?)
    }

    #[inline]
    pub(in crate::ffi) fn send(&mut self, fd: c_int, data: &[u8], flags: c_int) -> Result<usize> {
        let flags = flags | self.patience(fd)?;
        self.sockets.send(self.handle(fd)?, data, flags)
    }

    /// O_NONBLOCK as a flag of one call: none blocks, but what opens a connection
    /// takes more where it would.
    #[inline]
    fn patience(&self, fd: c_int) -> Result<c_int> {
        Ok(if self.descriptors.nonblocking(fd)? { libc::MSG_DONTWAIT } else { 0 })
    }

    pub(in crate::ffi) fn send_message(
        &mut self,
        fd: c_int,
        parts: &[IoSlice<'_>],
        flags: c_int,
        to: Option<SocketAddr>,
        meta: &SendMeta,
    ) -> Result<usize> {
        let flags = flags | self.patience(fd)?;
        self.sockets.send_message(self.handle(fd)?, parts, flags, to, meta)
    }

    #[inline]
    pub(in crate::ffi) fn recv(&mut self, fd: c_int, out: &mut [u8], flags: c_int) -> Result<usize> {
        self.sockets.recv(self.handle(fd)?, out, flags)
    }

    pub(in crate::ffi) fn recv_message(
        &mut self,
        fd: c_int,
        parts: &mut [IoSliceMut<'_>],
        flags: c_int,
    ) -> Result<(usize, RecvMeta)> {
        let handle = self.handle(fd)?;
        if let [one] = parts {
            return self.sockets.recv_from(handle, one, flags);
        }
        let room = parts.iter().map(|p| p.len()).sum::<usize>().min(SCRATCH);
        self.scratch.resize(room, 0);
        let (n, meta) = self.sockets.recv_from(handle, &mut self.scratch, flags)?;
        let mut rest = &self.scratch[..n.min(room)];
        for part in parts {
            let (now, later) = rest.split_at(part.len().min(rest.len()));
            part[..now.len()].copy_from_slice(now);
            rest = later;
        }
        Ok((n, meta))
    }

    pub(in crate::ffi) fn shutdown(&mut self, fd: c_int, how: c_int) -> Result<()> {
        self.sockets.shutdown(self.handle(fd)?, how)
    }

    pub(in crate::ffi) fn close(&mut self, fd: c_int) -> Result<()> {
        match self.descriptors.close(fd)? {
            Some(handle) => self.sockets.close(handle),
            None => Ok(()),
        }
    }

    pub(in crate::ffi) fn dup(&mut self, fd: c_int, from: c_int, cloexec: bool) -> Result<c_int> {
        self.descriptors.dup(fd, from, cloexec)
    }

    pub(in crate::ffi) fn leave_error(&mut self, fd: c_int, error: Errno) -> Result<()> {
        self.sockets.leave_error(self.handle(fd)?, error)
    }

    pub(in crate::ffi) fn set_option(&mut self, fd: c_int, level: c_int, name: c_int, value: &[u8]) -> Result<()> {
        self.sockets.set_option(self.handle(fd)?, level, name, value)
    }

    pub(in crate::ffi) fn get_option(&mut self, fd: c_int, level: c_int, name: c_int, out: &mut [u8]) -> Result<usize> {
        self.sockets.get_option(self.handle(fd)?, level, name, out)
    }

    pub(in crate::ffi) fn local_addr(&mut self, fd: c_int) -> Result<SocketAddr> {
        self.sockets.local_addr(self.handle(fd)?)
    }

    pub(in crate::ffi) fn peer_addr(&mut self, fd: c_int) -> Result<SocketAddr> {
        self.sockets.peer_addr(self.handle(fd)?)
    }

    pub(in crate::ffi) fn nonblocking(&mut self, fd: c_int) -> Result<bool> {
        self.descriptors.nonblocking(fd)
    }

    pub(in crate::ffi) fn set_nonblocking(&mut self, fd: c_int, on: bool) -> Result<()> {
        self.descriptors.set_nonblocking(fd, on)
    }

    pub(in crate::ffi) fn close_on_exec(&mut self, fd: c_int) -> Result<bool> {
        self.descriptors.close_on_exec(fd)
    }

    pub(in crate::ffi) fn set_close_on_exec(&mut self, fd: c_int, on: bool) -> Result<()> {
        self.descriptors.set_close_on_exec(fd, on)
    }

    pub(in crate::ffi) fn bytes_readable(&mut self, fd: c_int) -> Result<usize> {
        self.sockets.bytes_readable(self.handle(fd)?)
    }

    pub(in crate::ffi) fn figure(&mut self, fd: c_int, figure: Figure) -> Result<usize> {
        self.sockets.figure(self.handle(fd)?, figure)
    }

    pub(in crate::ffi) fn readiness(&mut self, fd: c_int) -> Result<Readiness> {
        Ok(self.sockets.readiness(self.handle(fd)?))
    }

    pub(in crate::ffi) fn epoll_create(&mut self, cloexec: bool) -> Result<c_int> {
        if !self.descriptors.has_room() {
            return Err(Errno::EMFILE);
        }
        let handle = self.sockets.epoll_create()?;
        self.descriptor(handle, if cloexec { libc::SOCK_CLOEXEC } else { 0 })
    }

    pub(in crate::ffi) fn epoll_ctl(
        &mut self,
        epfd: c_int,
        op: c_int,
        fd: c_int,
        events: u32,
        data: u64,
    ) -> Result<()> {
        let (set, member) = (self.handle(epfd)?, self.handle(fd)?);
        self.sockets.epoll_ctl(set, op, member, events, data)
    }

    pub(in crate::ffi) fn epoll_wait(
        &mut self,
        epfd: c_int,
        max: usize,
        mut report: impl FnMut(usize, EpollEvent),
    ) -> Result<usize> {
        let set = self.handle(epfd)?;
        self.events.clear();
        self.sockets.epoll_wait(set, &mut self.events, max)?;
        self.events.iter().enumerate().for_each(|(i, e)| report(i, *e));
        Ok(self.events.len())
    }
}
