//! One queue: its four rings, and the bursts that go through them.

mod figures;
mod polling;

pub use figures::{Figures, Statistics};
pub use polling::Kept;

use super::attach::Steering;
use super::error::{Error, Result};
use super::interface::Interface;
use super::join::Joiner;
use super::umem::Umem;
use super::{Bind, XdpConfig, no_chains};
use crate::device::{Capabilities, Device};
use crate::frame::{Batch, MOST_PIECES, Packet, Pool, TxDesc, TxQueue};
use arrayvec::ArrayVec;
use core::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::{Duration, Instant};
use xsk_rs::FrameDesc;
use xsk_rs::config::{BindFlags, LibxdpFlags, QueueSize, SocketConfig};

const BURST: usize = 64;
/// Kicks in one go, at most; 32 descriptors each where the budget cannot be raised.
const KICKS: u32 = 128;
const XDP_OPTIONS: libc::c_int = 8;
const XDP_OPTIONS_ZEROCOPY: u32 = 1;
const XDP_MAX_TX_SKB_BUDGET: libc::c_int = 9; // Linux 6.17; not in older headers
const REBIND_LIMIT: Duration = Duration::from_secs(3);

/// One worker's queue of the interface.
///
/// Dropping it detaches the steering program first, whoever else still holds
/// the interface: a steered queue without its socket would break flows. So the
/// devices of one [`open`](super::open) are dropped together.
pub struct XdpDevice {
    capabilities: Capabilities,
    queue: u32,
    /// The interface's number, which its name may lose to another.
    interface: u32,
    // The sockets close when these are gone, after `Drop` has detached.
    tx: xsk_rs::TxQueue,
    rx: xsk_rs::RxQueue,
    fill: xsk_rs::FillQueue,
    completion: xsk_rs::CompQueue,
    umem: Umem,
    steering: Steering,
    zero_copy: bool,
    multi_buffer: bool,
    /// The most frames that lie in the fill and RX rings together.
    fill_target: u32,
    /// Free frames that refilling leaves to the transmitting side.
    reserve: u32,
    /// Descriptors lie in the TX ring that the kernel has not been told of.
    unkicked: bool,
    /// The interface was found down, or gone, by the last kick.
    down: bool,
    polling: polling::Polling,
    /// Places of the TX ring.
    tx_ring: u32,
    joiner: Joiner,
    scratch: Box<[FrameDesc; BURST]>,
    figures: Figures,
}

fn set_option<T>(fd: RawFd, level: libc::c_int, name: libc::c_int, value: T) -> io::Result<()> {
    // SAFETY: the value lives through the call and its size is given.
    let n = unsafe {
        libc::setsockopt(fd, level, name, (&raw const value).cast(), size_of::<T>() as u32)
    };
    if n < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn socket_config(config: &XdpConfig, multi_buffer: bool) -> Result<SocketConfig> {
    let what = &config.interface;
    let size = |n: u32| {
        QueueSize::new(n).map_err(|why| {
            let kind = super::ErrorKind::Config;
            Error::new(kind, what, why.to_string(), "ring sizes are powers of two")
        })
    };
    let mut flags = BindFlags::empty();
    if config.need_wakeup {
        flags |= BindFlags::XDP_USE_NEED_WAKEUP;
    }
    match config.bind {
        Bind::Auto => {} // the kernel tries zero-copy, then copy
        Bind::ZeroCopy => flags |= BindFlags::XDP_ZEROCOPY,
        Bind::Copy => flags |= BindFlags::XDP_COPY,
    }
    if multi_buffer {
        flags |= BindFlags::XDP_USE_SG;
    }
    Ok(SocketConfig::builder()
        .rx_queue_size(size(config.rx_ring)?)
        .tx_queue_size(size(config.tx_ring)?)
        .bind_flags(flags)
        .libxdp_flags(LibxdpFlags::XSK_LIBXDP_FLAGS_INHIBIT_PROG_LOAD)
        .build())
}

type Rings = (xsk_rs::TxQueue, xsk_rs::RxQueue, xsk_rs::FillQueue, xsk_rs::CompQueue);

/// Makes the queue's socket and binds it. A queue that was closed a moment ago
/// may be busy for about a second.
fn bind(config: &XdpConfig, interface: &Interface, umem: &Umem, queue: u32) -> Result<Rings> {
    let what = format!("{}: binding queue {queue}", interface.name);
    let multi_buffer = config.needs_chains(interface);
    let socket_config = socket_config(config, multi_buffer)?;
    let name = xsk_rs::config::Interface::new(interface.c_name());
    let give_up = Instant::now() + REBIND_LIMIT;
    loop {
        // SAFETY: libxdp loads no program (INHIBIT_PROG_LOAD is set).
        let made = unsafe { xsk_rs::Socket::new(socket_config, umem.inner(), &name, queue) };
        let why = match made {
            Ok((tx, rx, Some((fill, completion)))) => return Ok((tx, rx, fill, completion)),
            Ok((_, _, None)) => {
                let kind = super::ErrorKind::Config;
                return Err(Error::new(kind, what, "the queue is named twice", "name it once"));
            }
            Err(why) => why,
        };
        let number = std::error::Error::source(&why)
            .and_then(|s| s.downcast_ref::<io::Error>())
            .and_then(io::Error::raw_os_error);
        match number {
            Some(libc::EBUSY) if Instant::now() < give_up => {
                std::thread::sleep(Duration::from_millis(50));
            }
            Some(libc::EOPNOTSUPP) if config.bind == Bind::ZeroCopy => {
                let kind = super::ErrorKind::Unsupported;
                return Err(Error::new(
                    kind,
                    what,
                    format!("the driver ({}) has no zero-copy AF_XDP", interface.driver),
                    "let it copy, or use another interface",
                ));
            }
            // EINVAL: the kernel does not know the flag.
            Some(number @ (libc::EINVAL | libc::EOPNOTSUPP)) if multi_buffer => {
                return Err(no_chains(interface, &io::Error::from_raw_os_error(number)));
            }
            Some(number) => return Err(Error::system(what, io::Error::from_raw_os_error(number))),
            None => {
                return Err(Error::new(super::ErrorKind::System, what, why.to_string(), ""));
            }
        }
    }
}

impl XdpDevice {
    pub(super) fn open(
        config: &XdpConfig,
        interface: &Interface,
        umem: &Umem,
        steering: &Steering,
        queue: u32,
        pool: &mut Pool,
    ) -> Result<Self> {
        let (tx, rx, fill, completion) = bind(config, interface, umem, queue)?;
        let fd = tx.fd().as_raw_fd();
        umem.bound(fd);
        // A program that this process executes would keep the queue bound.
        // SAFETY: takes no pointers.
        unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
        // Sending copies into socket buffers, which count against this limit.
        if set_option(fd, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, config.send_buffer).is_err() {
            let _ = set_option(fd, libc::SOL_SOCKET, libc::SO_SNDBUF, config.send_buffer);
        }
        // Unknown before 6.17, where a kick sends 32 at a time.
        let _ = set_option(fd, libc::SOL_XDP, XDP_MAX_TX_SKB_BUDGET, config.tx_ring);
        let mut device = Self {
            capabilities: Capabilities {
                mtu: interface.mtu,
                mac: interface.mac,
                partial_checksums: config
                    .partial_checksums
                    .unwrap_or_else(|| interface.leaves_checksums_partial()),
            },
            queue,
            interface: interface.index,
            tx,
            rx,
            fill,
            completion,
            umem: umem.clone(),
            steering: steering.clone(),
            zero_copy: false,
            multi_buffer: config.needs_chains(interface),
            fill_target: config.fill_ring.min(config.frames_per_queue),
            reserve: config.tx_reserve,
            unkicked: false,
            down: false,
            polling: polling::Polling::default(),
            tx_ring: config.tx_ring,
            joiner: Joiner::default(),
            scratch: Box::new([FrameDesc::default(); BURST]),
            figures: Figures::default(),
        };
        device.zero_copy = device.options()? & XDP_OPTIONS_ZEROCOPY != 0;
        // The crate binds before it hands out the fill ring. No frame can want a
        // buffer before the socket is in the program's map, which comes after.
        device.refill_to_target(pool);
        steering.set_socket(queue, device.as_fd())?;
        Ok(device)
    }

    fn options(&self) -> Result<u32> {
        let mut flags: u32 = 0;
        let mut len = size_of::<u32>() as u32;
        // SAFETY: the value lives through the call and its size is given.
        let n = unsafe {
            libc::getsockopt(
                self.as_raw_fd(),
                libc::SOL_XDP,
                XDP_OPTIONS,
                (&raw mut flags).cast(),
                &mut len,
            )
        };
        if n < 0 {
            return Err(Error::system("XDP_OPTIONS", io::Error::last_os_error()));
        }
        Ok(flags)
    }

    /// The queue's number.
    pub fn queue(&self) -> u32 {
        self.queue
    }

    /// True where the driver writes into our frames; false where the kernel copies.
    pub fn zero_copy(&self) -> bool {
        self.zero_copy
    }

    /// True where the frames lie on hugepages.
    pub fn huge_pages(&self) -> bool {
        self.umem.huge_pages()
    }

    /// True where packets may consist of several frames, both ways.
    pub fn multi_buffer(&self) -> bool {
        self.multi_buffer
    }

    /// True where the last attempt to send found the interface down or gone.
    /// What is in the TX ring then waits there.
    pub fn is_down(&self) -> bool {
        self.down
    }

    /// Frames that it holds by their tokens (of a packet of several buffers
    /// whose end has not come).
    pub fn held_frames(&self) -> usize {
        self.joiner.frames()
    }

    /// What the device counted.
    pub fn figures(&self) -> Figures {
        self.figures
    }

    /// What the kernel counted.
    ///
    /// # Errors
    /// The system's, which none is known of.
    pub fn statistics(&self) -> io::Result<Statistics> {
        let s = self.tx.fd().xdp_statistics()?;
        Ok(Statistics {
            rx_dropped: s.rx_dropped(),
            rx_invalid: s.rx_invalid_descs(),
            tx_invalid: s.tx_invalid_descs(),
            rx_ring_full: s.rx_ring_full(),
            fill_ring_empty: s.rx_fill_ring_empty_descs(),
            tx_ring_empty: s.tx_ring_empty_descs(),
        })
    }

    #[inline]
    fn accept(&mut self, pool: &mut Pool, descriptor: FrameDesc) -> Option<Packet> {
        let len = descriptor.lengths().data();
        let more = descriptor.has_more_frames();
        let located = self.umem.locate(descriptor.addr());
        let frame = match located {
            Some((index, Some(offset))) => pool.filled(index, offset, len),
            // It begins before the packet area: our program never does that.
            Some((index, None)) => {
                if let Some(frame) = pool.filled(index, 0, 0) {
                    pool.free(frame);
                }
                None
            }
            None => None,
        };
        let Some(frame) = frame else {
            self.figures.rx_invalid += 1;
            self.joiner.give_up(pool, more);
            return None;
        };
        if !more && self.joiner.is_idle() {
            return Some(Packet::single(frame));
        }
        let joined = self.joiner.join(pool, frame, more);
        joined.unwrap_or_else(|()| {
            self.figures.rx_chain_too_long += 1;
            None
        })
    }

    /// The descriptor for the ring; `None` where the kernel would not take it.
    fn checked(&self, desc: &TxDesc) -> Option<FrameDesc> {
        let wanted = self.multi_buffer || !desc.more;
        self.umem.tx_descriptor(desc.index(), desc.len(), desc.more).filter(|_| wanted)
    }

    /// The rest of a packet of several descriptors goes to the ring with its first,
    /// or nothing of it. False where `room` does not hold it now.
    #[inline(never)]
    fn take_chain(
        &mut self,
        pool: &mut Pool,
        queue: &mut TxQueue,
        first: TxDesc,
        descriptors: &mut ArrayVec<FrameDesc, BURST>,
        room: usize,
    ) -> bool {
        let rest = queue.rest_of_packet();
        let good = rest < MOST_PIECES;
        if good && descriptors.len() + 1 + rest > room {
            queue.unpop(first);
            return false;
        }
        let mut packet = ArrayVec::<TxDesc, MOST_PIECES>::new();
        packet.push(first);
        for desc in (0..rest).map_while(|_| queue.pop()) {
            if let Err(beyond) = packet.try_push(desc) {
                pool.cancel(beyond.element());
            }
        }
        let made: ArrayVec<FrameDesc, MOST_PIECES> = packet.iter().map_while(|d| self.checked(d)).collect();
        let whole = packet.last().is_some_and(|last| !last.more);
        if good && whole && made.len() == packet.len() {
            descriptors.extend(made);
        } else {
            self.figures.tx_invalid += packet.len() as u64;
            packet.into_iter().for_each(|desc| pool.cancel(desc));
        }
        true
    }

    /// Tells the kernel that the TX ring has something.
    fn kick(&mut self) {
        if self.polling.is_on() {
            return self.poll_driver();
        }
        if !self.unkicked {
            return;
        }
        if !self.tx.needs_wakeup() {
            self.unkicked = false; // the driver looks by itself
            return;
        }
        let mut free = self.tx.nb_free_exact();
        for _ in 0..KICKS {
            self.figures.kicks += 1;
            let Some(why) = self.send_empty() else {
                self.unkicked = false;
                return;
            };
            match why {
                // More to send than one call does; or no room for completions or
                // socket buffers, which later turns find.
                libc::EAGAIN => {
                    self.figures.kicks_again += 1;
                    let now = self.tx.nb_free_exact();
                    if now == free {
                        return;
                    }
                    free = now;
                }
                libc::EBUSY => self.figures.tx_dropped += 1, // completed, not sent
                libc::EINTR => {}
                _ => return, // ENOBUFS: the next turn tries again
            }
        }
    }

    /// An empty message, by which the kernel looks at the TX ring: what went wrong.
    fn send_empty(&mut self) -> Option<libc::c_int> {
        // SAFETY: an empty message, no pointers.
        let n = unsafe {
            libc::sendto(self.as_raw_fd(), core::ptr::null(), 0, libc::MSG_DONTWAIT, core::ptr::null(), 0)
        };
        let why = (n < 0).then(|| io::Error::last_os_error().raw_os_error().unwrap_or(0));
        match why {
            None => self.down = false,
            Some(libc::ENETDOWN | libc::ENXIO | libc::ENODEV) => self.down = true,
            Some(_) => {}
        }
        why
    }

    /// Wakes a driver that ran out of frames and sleeps.
    fn wake_fill(&self) {
        if !self.polling.is_on() && self.fill.needs_wakeup() {
            // SAFETY: an empty read, no pointers.
            unsafe {
                libc::recvfrom(
                    self.as_raw_fd(),
                    core::ptr::null_mut(),
                    0,
                    libc::MSG_DONTWAIT,
                    core::ptr::null_mut(),
                    core::ptr::null_mut(),
                )
            };
        }
    }

    fn refill_to_target(&mut self, pool: &mut Pool) {
        loop {
            let missing = self.fill_target.saturating_sub(pool.counts().fill);
            let spare = pool.available().saturating_sub(self.reserve);
            let n = missing.min(spare).min(BURST as u32);
            if n == 0 || self.fill.nb_free(n) < n {
                break;
            }
            let taken = pool.take_for_fill::<BURST>(n as usize);
            let descriptors: ArrayVec<FrameDesc, BURST> =
                taken.iter().map(|index| self.umem.descriptor(*index)).collect();
            // SAFETY: the pool just gave these frames up for filling; no token
            // and no other ring has them.
            let done = unsafe { self.fill.produce(&descriptors) };
            if done == 0 {
                taken.into_iter().for_each(|index| pool.untake_fill(index));
                break;
            }
        }
        self.wake_fill();
    }
}

impl Device for XdpDevice {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn receive(&mut self, pool: &mut Pool, batch: &mut Batch) {
        let room = batch.remaining_capacity().min(BURST);
        // SAFETY: what the descriptors name went through the pool's books as
        // "fill", and `accept` turns each into a token exactly once.
        let n = unsafe { self.rx.consume(&mut self.scratch[..room]) };
        for i in 0..n {
            let descriptor = self.scratch[i];
            if let Some(packet) = self.accept(pool, descriptor) {
                batch.push(packet);
            }
        }
    }

    fn transmit(&mut self, pool: &mut Pool, queue: &mut TxQueue) {
        while !queue.is_empty() {
            let n = queue.len().min(BURST);
            let room = (self.tx.nb_free(n as u32) as usize).min(n);
            if room == 0 {
                break;
            }
            let mut descriptors = ArrayVec::<FrameDesc, BURST>::new();
            let mut fits = true;
            while fits && descriptors.len() < room {
                let Some(desc) = queue.pop() else { break };
                if desc.more {
                    fits = self.take_chain(pool, queue, desc, &mut descriptors, room);
                    continue;
                }
                match self.checked(&desc) {
                    Some(descriptor) => descriptors.push(descriptor),
                    None => {
                        self.figures.tx_invalid += 1;
                        pool.cancel(desc);
                    }
                }
            }
            if descriptors.is_empty() && !fits {
                break; // the next packet is larger than the room
            }
            // SAFETY: each frame's transmission is pending in the pool's books,
            // so nobody writes to it or names it again before its completion.
            let done = unsafe { self.tx.produce(&descriptors) };
            debug_assert_eq!(done, descriptors.len(), "the ring had room");
            self.polling.put = self.polling.put.wrapping_add(done as u32);
            self.unkicked = true;
        }
        self.kick();
    }

    fn is_quiet(&self) -> bool {
        // While the interface is down there is nothing to be awake for.
        !self.unkicked || self.down
    }

    fn reap(&mut self, pool: &mut Pool) {
        loop {
            // SAFETY: a completed frame goes back by the pool's books, once.
            let n = unsafe { self.completion.consume(&mut self.scratch[..]) };
            for descriptor in &self.scratch[..n] {
                if let Some((index, _)) = self.umem.locate(descriptor.addr()) {
                    pool.complete(index);
                }
            }
            if n < BURST {
                break;
            }
        }
    }

    fn refill(&mut self, pool: &mut Pool) {
        // In bursts: publishing for each single frame costs more than it gains,
        // and the ring is deep.
        let missing = self.fill_target.saturating_sub(pool.counts().fill);
        if missing >= (BURST as u32 / 2).min(self.fill_target.div_ceil(4)) {
            self.refill_to_target(pool);
        }
    }

    fn losses(&self) -> Vec<(&'static str, u64)> {
        let (ours, kernels) = (self.figures, self.statistics().unwrap_or_default());
        ours.losses().into_iter().chain(kernels.losses()).collect()
    }
}

impl AsFd for XdpDevice {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the socket is open as long as its queues live, which `self` has.
        unsafe { BorrowedFd::borrow_raw(self.tx.fd().as_raw_fd()) }
    }
}

impl AsRawFd for XdpDevice {
    /// The socket, to poll: readable when packets wait. Polling also kicks.
    fn as_raw_fd(&self) -> RawFd {
        self.tx.fd().as_raw_fd()
    }
}

impl Drop for XdpDevice {
    fn drop(&mut self) {
        self.steering.detach();
        self.steering.clear_socket(self.queue);
    }
}

impl fmt::Debug for XdpDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("XdpDevice")
            .field("queue", &self.queue)
            .field("zero_copy", &self.zero_copy)
            .field("figures", &self.figures)
            .finish()
    }
}
