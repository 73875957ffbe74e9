//! Sockets that any thread may use.
//!
//! A stream has one link, at the worker that owns the connection; a listener
//! and a datagram socket have one at every worker. What is ready is taken from
//! the links' rings; everything else (opening, options, how a connection ended)
//! is a call to the worker.

mod datagrams;
mod figures;
mod listener;
mod streams;

use super::channel::{Command, Side, Thread, close_link};
use super::hub::Hub;
use super::link::{Kind, Link, Rx, SOME};
use super::posix::Begun;
use super::worker::Core;
use crate::errno::{Errno, Result};
use crate::frame::Frame;
use crate::socket::{Handle, RecvMeta, SendMeta};
use core::net::SocketAddr;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};
use std::collections::VecDeque;
use std::io::{IoSlice, IoSliceMut};
use std::sync::{Arc, OnceLock};

const IN: u32 = 0x1;
const OUT: u32 = 0x4;
/// EPOLLERR | EPOLLHUP.
const BROKEN: u32 = 0x8 | 0x10;
/// The largest payload of a UDP datagram over IPv4.
const MAX_DATAGRAM: usize = 65_507;

/// A socket that any thread may use.
pub(super) struct SharedSocket {
    pub hub: &'static Hub,
    pub stream: bool,
    home: Arc<Link>,
    /// The links of a listener or a datagram socket, by worker.
    spread: OnceLock<Box<[Arc<Link>]>>,
    /// Descriptors that stand for it.
    pub names: AtomicU32,
    pub nonblocking: AtomicBool,
    /// SO_RCVTIMEO and SO_SNDTIMEO in microseconds; 0: none.
    recv_timeout: AtomicU64,
    send_timeout: AtomicU64,
    /// SHUT_WR was done.
    shut: AtomicBool,
    /// SO_LINGER may be set: `close` asks.
    lingers: AtomicBool,
    /// Which link is asked first, so that none is left out.
    turn: AtomicUsize,
    /// What was set on it, to be set on the other workers' when it listens.
    settings: super::claim::Claim<Vec<(i32, i32, Vec<u8>)>>,
}

impl Drop for SharedSocket {
    fn drop(&mut self) {
        for link in self.links() {
            close_link(link.clone());
        }
    }
}

/// Where a call's data goes: several buffers as one.
pub(super) fn scatter(bufs: &mut [IoSliceMut<'_>], mut at: usize, mut data: &[u8]) -> usize {
    let mut copied = 0;
    for buf in bufs {
        if at >= buf.len() {
            at -= buf.len();
            continue;
        }
        let n = data.len().min(buf.len() - at);
        buf[at..at + n].copy_from_slice(&data[..n]);
        (data, copied, at) = (&data[n..], copied + n, 0);
        if data.is_empty() {
            break;
        }
    }
    copied
}

/// Copies from several buffers, as one, beginning at `at`.
fn gather(parts: &[IoSlice<'_>], mut at: usize, out: &mut [u8]) -> usize {
    let mut copied = 0;
    for part in parts {
        if at >= part.len() {
            at -= part.len();
            continue;
        }
        let n = (out.len() - copied).min(part.len() - at);
        out[copied..copied + n].copy_from_slice(&part[at..at + n]);
        (copied, at) = (copied + n, 0);
        if copied == out.len() {
            break;
        }
    }
    copied
}

impl SharedSocket {
    fn over(home: Arc<Link>, stream: bool, nonblocking: bool) -> Self {
        Self {
            hub: home.hub,
            stream,
            home,
            spread: OnceLock::new(),
            names: AtomicU32::new(1),
            nonblocking: AtomicBool::new(nonblocking),
            recv_timeout: AtomicU64::new(0),
            send_timeout: AtomicU64::new(0),
            shut: AtomicBool::new(false),
            lingers: AtomicBool::new(false),
            turn: AtomicUsize::new(0),
            settings: super::claim::Claim::new(Vec::new()),
        }
    }

    /// Opens a socket: at the thread's worker, a datagram one at every worker.
    pub fn open(thread: &mut Thread, hub: &'static Hub, domain: i32, kind: i32, protocol: i32, nonblocking: bool) -> Result<Self> {
        let stream = kind == libc::SOCK_STREAM;
        let link_kind = if stream { Kind::Stream } else { Kind::Datagram };
        let open = move |core: &mut Core| {
            let h = core.sockets.socket(domain, kind, protocol)?;
            Ok(core.open_link(h, link_kind))
        };
        let home = thread.home(hub);
        let link = thread.call(hub, home, open)??;
        let socket = Self::over(link, stream, nonblocking);
        if !stream {
            let mut links = Vec::new();
            for worker in 0..hub.seats.len() {
                links.push(match worker == home {
                    true => socket.home.clone(),
                    false => match thread.call(hub, worker, open).and_then(|r| r) {
                        Ok(link) => link,
                        Err(error) => {
                            links.into_iter().filter(|l| !Arc::ptr_eq(l, &socket.home)).for_each(close_link);
                            return Err(error);
                        }
                    },
                });
            }
            let _ = socket.spread.set(links.into_boxed_slice());
        }
        Ok(socket)
    }

    /// Makes a worker's own socket one that any thread may use. On the worker.
    pub fn adopt(core: &mut Core, h: Handle, nonblocking: bool) -> Self {
        let mut value = [0; 4];
        let stream = core.sockets.get_option(h, libc::SOL_SOCKET, libc::SO_TYPE, &mut value).is_ok()
            && i32::from_ne_bytes(value) == libc::SOCK_STREAM;
        let listens = stream
            && core.sockets.get_option(h, libc::SOL_SOCKET, libc::SO_ACCEPTCONN, &mut value).is_ok()
            && i32::from_ne_bytes(value) != 0;
        let link = core.open_link(h, if stream { Kind::Stream } else { Kind::Datagram });
        if listens && let Some(ring) = core.desk.listen(link.id) {
            link.receiving.hold().rx = Rx::Listener { ring, taken: 0 };
        }
        core.pump(link.id, 0);
        Self::over(link, stream, nonblocking).with_options(core.sockets.blocking_options(h))
    }

    /// Its links: one, or one at every worker.
    pub fn links(&self) -> &[Arc<Link>] {
        self.spread.get().map_or(core::slice::from_ref(&self.home), |links| links)
    }

    /// Readiness as it is now: EPOLL bits.
    pub fn readiness(&self) -> u32 {
        if self.links().iter().any(|l| self.hub.seats[l.worker].is_down()) {
            return BROKEN | IN | OUT;
        }
        self.links().iter().fold(0, |ready, link| ready | link.readiness())
    }

    fn on<R: Send>(&self, thread: &mut Thread, link: &Arc<Link>, f: impl FnOnce(&mut Core, Handle) -> R + Send) -> Result<R> {
        let h = link.handle;
        thread.call(self.hub, link.worker, move |core| f(core, h))
    }

    fn at_home<R: Send>(&self, thread: &mut Thread, f: impl FnOnce(&mut Core, Handle) -> R + Send) -> Result<R> {
        self.on(thread, &self.home, f)
    }

    /// Does the same at every link; the first error counts. What was known of
    /// datagrams before is known no more.
    fn everywhere(&self, thread: &mut Thread, f: impl Fn(&mut Core, Handle) -> Result<()> + Send + Sync) -> Result<()> {
        for link in self.links() {
            let f = &f;
            self.on(thread, link, |core, h| {
                let done = f(core, h);
                // Here, where it comes behind the way of a datagram that went before it.
                *link.way.hold() = None;
                done
            })??;
        }
        Ok(())
    }

    fn blocks(&self, flags: i32) -> bool {
        flags & (libc::MSG_DONTWAIT | libc::MSG_ERRQUEUE) == 0 && !self.nonblocking.load(Ordering::Relaxed)
    }

    /// Waits until a link is ready for one of these.
    ///
    /// # Errors
    /// `EAGAIN` at the deadline, `EINTR`, `ENETDOWN`, `EBADF` where the last
    /// descriptor was closed meanwhile.
    pub fn wait(&self, thread: &mut Thread, interest: u32, deadline: Option<u64>) -> Result<()> {
        let ticket = thread.begin();
        for link in self.links() {
            thread.send(self.hub, link.worker, Command::Wait { link: link.id, interest, ticket }, true)?;
        }
        let down = || self.links().iter().any(|l| self.hub.seats[l.worker].is_down());
        let woken = thread.wait(deadline, |t| t.is_woken() || down());
        for link in self.links() {
            let _ = thread.send(self.hub, link.worker, Command::Unwait { link: link.id, ticket }, false);
        }
        if self.names.load(Ordering::Acquire) == 0 {
            return Err(Errno::EBADF);
        }
        if down() {
            return Err(Errno::ENETDOWN);
        }
        if woken? { Ok(()) } else { Err(Errno::EAGAIN) }
    }

    /// `recvmsg`.
    pub fn recv(&self, thread: &mut Thread, bufs: &mut [IoSliceMut<'_>], flags: i32, begun: Begun) -> Result<(usize, RecvMeta)> {
        let deadline = begun.deadline(&self.recv_timeout);
        let all = flags & libc::MSG_WAITALL != 0 && flags & libc::MSG_PEEK == 0 && self.stream;
        let want: usize = bufs.iter().map(|b| b.len()).sum();
        let low = if self.stream { self.home.low_water.load(Ordering::Relaxed) as usize } else { 1 };
        let peek = flags & libc::MSG_PEEK != 0;
        let enough = if all { want } else { low.min(want) };
        let mut got = if peek { 0 } else { begun.moved };
        loop {
            let step = match self.stream {
                true => self.recv_stream(thread, bufs, got, flags).map(|n| (n, stream_meta(got + n))),
                false => self.recv_datagram(thread, bufs, flags),
            };
            let error = match step {
                Ok((n, meta)) => {
                    got += n;
                    if n == 0 || got >= enough || !self.stream {
                        return Ok((got, meta));
                    }
                    if peek {
                        let ready = self.home.readiness() & (IN | BROKEN) != 0 || !self.blocks(flags);
                        if ready || self.wait(thread, IN, deadline).is_err() {
                            return Ok((got, meta));
                        }
                        got = 0;
                    }
                    continue;
                }
                Err(error) => error,
            };
            if error != Errno::EAGAIN || flags & libc::MSG_OOB != 0 || !self.blocks(flags) {
                return if got > 0 { Ok((got, stream_meta(got))) } else { Err(error) };
            }
            match self.wait(thread, SOME, deadline) {
                // The last that came is still to be had; behind it, this is the end.
                Ok(()) | Err(Errno::ENETDOWN) => {}
                Err(_) if got > 0 => return Ok((got, stream_meta(got))),
                Err(error) => return Err(error),
            }
        }
    }

    /// Rings for frames that went back. Without the claim: the worker may have to
    /// make room first. One that has ended needs none: what was read is read.
    fn ring_for_returns(&self, thread: &mut Thread, link: &Arc<Link>, bell: (bool, bool)) {
        let (ring, wake) = bell;
        if ring {
            let _ = thread.send(self.hub, link.worker, Command::Pump(link.id, Side::Rx), wake);
            fence(Ordering::SeqCst); // pairs with the worker's before it sleeps
        }
        // The worker may have come to want them, and gone to sleep, meanwhile.
        if wake || ring && link.wanted() {
            self.hub.seats[link.worker].sleeper.wake();
        }
    }

    /// `sendmsg`.
    pub fn send(&self, thread: &mut Thread, parts: &[IoSlice<'_>], flags: i32, to: Option<SocketAddr>, meta: &SendMeta, begun: Begun) -> Result<usize> {
        if !self.stream {
            return self.send_datagram(thread, parts, flags, to, meta, begun);
        }
        let deadline = begun.deadline(&self.send_timeout);
        let want: usize = parts.iter().map(|p| p.len()).sum();
        let mut sent = begun.moved;
        loop {
            let error = match self.send_stream(thread, parts, sent, want, flags) {
                Ok(n) => {
                    sent += n;
                    if sent == want || !self.blocks(flags) {
                        return Ok(sent);
                    }
                    Errno::EAGAIN
                }
                Err(error) => error,
            };
            let error = match error {
                Errno::EAGAIN if self.blocks(flags) => match self.wait(thread, OUT, deadline) {
                    Ok(()) => continue,
                    Err(error) => error,
                },
                error => error,
            };
            return if sent > 0 { Ok(sent) } else { Err(error) };
        }
    }

    /// `bind`: a datagram socket at every worker, to the same port.
    pub fn bind(&self, thread: &mut Thread, addr: SocketAddr) -> Result<()> {
        let bound = self.at_home(thread, move |core, h| {
            core.sockets.bind(h, addr)?;
            core.sockets.local_addr(h)
        })??;
        for link in self.links().iter().filter(|l| !Arc::ptr_eq(l, &self.home)) {
            self.on(thread, link, move |core, h| core.sockets.bind(h, bound))??;
        }
        Ok(())
    }

    /// `connect`; one that goes on is one that this call began.
    pub fn connect(&self, thread: &mut Thread, addr: SocketAddr, goes_on: bool, begun: Begun) -> Result<()> {
        if !self.stream {
            return self.everywhere(thread, |core, h| core.sockets.connect(h, addr));
        }
        let deadline = begun.deadline(&self.send_timeout);
        let id = self.home.id;
        let mut first = !goes_on;
        loop {
            let result = self.at_home(thread, move |core, h| {
                let result = core.sockets.connect(h, addr);
                core.pump(id, 0);
                result
            })?;
            match result {
                Err(Errno::EINPROGRESS) if first && !self.blocks(0) => return result,
                Err(Errno::EINPROGRESS) => {}
                Err(Errno::EALREADY) if !first || self.blocks(0) => {}
                // Waited for, and done.
                Err(Errno::EISCONN) if !first => return Ok(()),
                result => return result,
            }
            first = false;
            match self.wait(thread, OUT, deadline) {
                // SO_SNDTIMEO is over: it goes on by itself.
                Err(Errno::EAGAIN) => return Err(Errno::EINPROGRESS),
                result => result?,
            }
        }
    }

    /// `connect` to AF_UNSPEC.
    pub fn disconnect(&self, thread: &mut Thread) -> Result<()> {
        self.everywhere(thread, |core, h| core.sockets.disconnect(h))
    }

    /// `shutdown`, after everything that was written.
    pub fn shutdown(&self, thread: &mut Thread, how: i32) -> Result<()> {
        if !self.stream || self.spread.get().is_some() {
            return self.everywhere(thread, |core, h| core.sockets.shutdown(h, how));
        }
        let id = self.home.id;
        let ends = matches!(how, libc::SHUT_WR | libc::SHUT_RDWR);
        // First: who waits for room is woken below, and finds it.
        let before = ends && self.shut.swap(true, Ordering::Relaxed);
        let result = thread.call(self.hub, self.home.worker, move |core| {
            core.shutdown_link(id, how)?;
            if ends {
                core.wake_writers(id);
            }
            Ok(())
        });
        if ends && !before && !matches!(result, Ok(Ok(()))) {
            self.shut.store(false, Ordering::Relaxed);
        }
        result?
    }

    /// `setsockopt`.
    pub fn set_option(&self, thread: &mut Thread, level: i32, name: i32, value: &[u8]) -> Result<()> {
        self.everywhere(thread, |core, h| core.sockets.set_option(h, level, name, value))?;
        if level == libc::SOL_SOCKET && matches!(name, libc::SO_RCVTIMEO | libc::SO_SNDTIMEO) {
            let timeout = if name == libc::SO_RCVTIMEO { &self.recv_timeout } else { &self.send_timeout };
            timeout.store(super::posix::timeval_us(value), Ordering::Relaxed);
        }
        if (level, name) == (libc::SOL_SOCKET, libc::SO_LINGER) {
            self.lingers.store(true, Ordering::Relaxed);
        }
        if self.stream && (level, name) == (libc::SOL_SOCKET, libc::SO_RCVLOWAT) && self.spread.get().is_none() {
            let id = self.home.id;
            self.at_home(thread, move |core, _| core.low_water_changed(id))?;
        }
        if self.stream {
            let mut settings = self.settings.hold();
            settings.retain(|(l, n, _)| (*l, *n) != (level, name)); // the last one counts
            settings.push((level, name, value.to_vec()));
        }
        Ok(())
    }

    /// How many settings are kept.
    #[cfg(test)]
    pub fn settings_kept(&self) -> usize {
        self.settings.hold().len()
    }

    /// `getsockopt`.
    pub fn get_option(&self, thread: &mut Thread, level: i32, name: i32, out: &mut [u8]) -> Result<usize> {
        let id = self.home.id;
        self.at_home(thread, move |core, h| {
            let result = core.sockets.get_option(h, level, name, out);
            core.pump(id, 0); // SO_ERROR takes the error away
            result
        })?
    }

    /// `getsockname`.
    pub fn local_addr(&self, thread: &mut Thread) -> Result<SocketAddr> {
        self.at_home(thread, |core, h| core.sockets.local_addr(h))?
    }

    /// `getpeername`.
    pub fn peer_addr(&self, thread: &mut Thread) -> Result<SocketAddr> {
        self.at_home(thread, |core, h| core.sockets.peer_addr(h))?
    }

    /// Wakes the calls that wait on it: its last descriptor was closed.
    pub fn nudge(&self, thread: &mut Thread) {
        for link in self.links() {
            let id = link.id;
            let _ = thread.call(self.hub, link.worker, move |core| core.nudge(id));
        }
    }
}

/// What is known of a stream's data: how much it is.
fn stream_meta(n: usize) -> RecvMeta {
    let to = core::net::IpAddr::V4(core::net::Ipv4Addr::UNSPECIFIED);
    RecvMeta { from: None, to, tos: 0, ttl: 0, time: crate::time::Instant::ZERO, full_len: n }
}

/// Takes the next into the queue where that is empty.
fn fill_queue<T: Send>(link: &Link, queue: &mut VecDeque<T>, ring: &mut super::ring::Consumer<T>) {
    if queue.is_empty() && !ring.is_empty() {
        link.leave(true);
        queue.extend(ring.pop());
    }
}

/// Fills a frame from the buffers: how many bytes.
fn fill(hub: &'static Hub, frame: &mut Frame, parts: &[IoSlice<'_>], at: usize) -> usize {
    let n = gather(parts, at, hub.arena.buffer_mut(frame));
    frame.set_range(0, n);
    n
}

#[cfg(all(test, not(loom)))]
mod tests;
