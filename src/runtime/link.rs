//! A shared socket at one worker: the rings between the two, and what each side
//! publishes for the other.
//!
//! Received frames go to the program by one ring and come home by another; what
//! the program wrote goes to the worker by a third. So a ready socket's `recv`
//! asks nobody. Whoever puts something in a ring that the other side may not be
//! looking at rings a *bell*: the program by a command, at most one on its way
//! for each ring.
//!
//! Memory ordering of a bell: the program publishes to the ring, full fence,
//! reads `seen`; the worker stores `seen`, full fence, reads the ring. So either
//! the program sees that its last bell was answered, and rings again, or the
//! worker sees what was published. Each counter has one writer.

use super::channel::Side;
use super::claim::Claim;
use super::hub::Hub;
use super::ring::{Consumer, Producer, ring};
use crate::frame::Frame;
use crate::socket::{Handle, RecvMeta, SendMeta};
use core::net::SocketAddr;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering, fence};
use crossbeam::utils::CachePadded;
use std::collections::VecDeque;
use std::sync::Arc;

/// A link's place at its worker, with a generation above it.
pub(super) type LinkId = u64;

/// Frames of one socket that the program may have, at most.
pub(super) const LENT: usize = 128;
/// Written frames that wait for the worker, at most.
pub(super) const WRITTEN: usize = 64;
/// Accepted connections that wait for the program, at most; more wait in the
/// listener's own queue.
pub(super) const ACCEPTED: usize = 64;
/// Frames that go home without a bell until there are so many.
const RETURNS: u32 = 8;

/// The socket can send: it is connected, or a datagram's.
pub(super) const OPEN: u32 = 1 << 16;
/// The worker wants this socket's frames back soon.
pub(super) const WANTED: u32 = 1 << 17;
/// The ring ends at the mark of urgent data, and there is more behind it: the
/// next read is a call.
pub(super) const MARK: u32 = 1 << 18;
/// The peer may send hardly more until the program reads.
pub(super) const PRESSED: u32 = 1 << 19;
/// Of interest and of events: there is data, however little.
pub(super) const SOME: u32 = 1 << 20;
/// A write that the ring does not take was refused, and would be again: the
/// socket's own buffer is full.
pub(super) const FULL: u32 = 1 << 21;
/// EPOLLPRI: an urgent byte waits.
pub(super) const PRI: u32 = 0x2;
/// EPOLLERR | EPOLLHUP | EPOLLRDHUP: the fast ways are closed.
pub(super) const SPECIAL: u32 = 0x8 | 0x10 | 0x2000;

/// A received datagram. One that is larger than a frame is on the heap.
pub(super) struct Datagram {
    pub frame: Option<Frame>,
    pub big: Option<Box<[u8]>>,
    pub meta: RecvMeta,
}

/// A datagram to be sent.
pub(super) struct Outgoing {
    pub frame: Option<Frame>,
    pub big: Option<Box<[u8]>>,
    pub to: Option<SocketAddr>,
    pub meta: SendMeta,
}

/// What is known of datagrams like the last one that a call sent: that they can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Way {
    pub to: Option<SocketAddr>,
    pub meta: SendMeta,
    /// As long as that one, at most.
    pub len: usize,
}

/// What the worker publishes: written by it alone.
#[derive(Debug, Default)]
pub(super) struct Board {
    /// EPOLL bits as the stack has them, without IN, and the bits above.
    pub status: AtomicU32,
    /// Bytes that went to the program in all.
    pub lent: AtomicU32,
    /// Bells answered.
    pub rx_seen: AtomicU32,
    /// Bells answered.
    pub tx_seen: AtomicU32,
}

/// The program's side of receiving.
pub(super) enum Rx {
    Stream { ring: Consumer<Frame>, queue: VecDeque<Frame> },
    Datagram { ring: Consumer<Datagram>, queue: VecDeque<Datagram> },
    Listener { ring: Consumer<(Arc<Link>, SocketAddr)>, taken: usize },
}

/// The program's way to give frames back.
pub(super) struct Returns {
    ring: Producer<Frame>,
    pending: u32,
    rung: u32,
}

/// The program's side of sending.
pub(super) enum Tx {
    Stream(Producer<Frame>),
    Datagram(Producer<Outgoing>),
}

/// Receiving: one thread at a time.
pub(super) struct Receiving {
    pub rx: Rx,
    pub returns: Returns,
}

/// Sending: one thread at a time.
pub(super) struct Sending {
    pub tx: Tx,
    rung: u32,
}

/// A shared socket at one worker.
pub(super) struct Link {
    pub hub: &'static Hub,
    pub worker: usize,
    pub id: LinkId,
    pub handle: Handle,
    pub board: CachePadded<Board>,
    pub receiving: Claim<Receiving>,
    pub sending: Claim<Sending>,
    /// How often the program found no room, to write or looking for it: written under the claim of
    /// `sending`, read by the worker.
    pub short: CachePadded<AtomicU32>,
    /// Data was taken out of the ring and not read: written under the claim of
    /// `receiving`, before the ring's slots are released, read by the worker.
    pub left: CachePadded<AtomicBool>,
    /// Bytes of them that the program read: written under the claim of `receiving`.
    pub read: AtomicU32,
    /// SO_RCVLOWAT of a stream: written by the worker.
    pub low_water: AtomicU32,
    /// What goes by the ring without a question: until the socket's options change, and
    /// until the worker finds that it cannot be sent any more.
    pub way: Claim<Option<Way>>,
}

/// The worker's ends.
pub(super) enum End {
    Stream { rx: Producer<Frame>, returns: Consumer<Frame>, tx: Consumer<Frame>, lent: usize },
    Datagram { rx: Producer<Datagram>, returns: Consumer<Frame>, tx: Consumer<Outgoing>, lent: usize },
    Listener { rx: Producer<(Arc<Link>, SocketAddr)> },
}

/// The kinds of link that can be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Stream,
    Datagram,
}

impl Link {
    /// A link, and the worker's ends of its rings.
    pub fn new(hub: &'static Hub, worker: usize, id: LinkId, handle: Handle, kind: Kind) -> (Arc<Self>, End) {
        let (back, returns) = ring(LENT);
        let (rx, tx, end) = match kind {
            Kind::Stream => {
                let (producer, consumer) = ring(LENT);
                let (tx, from_program) = ring(WRITTEN);
                let end = End::Stream { rx: producer, returns, tx: from_program, lent: 0 };
                (Rx::Stream { ring: consumer, queue: VecDeque::new() }, Tx::Stream(tx), end)
            }
            Kind::Datagram => {
                let (producer, consumer) = ring(LENT);
                let (tx, from_program) = ring(WRITTEN);
                let end = End::Datagram { rx: producer, returns, tx: from_program, lent: 0 };
                (Rx::Datagram { ring: consumer, queue: VecDeque::new() }, Tx::Datagram(tx), end)
            }
        };
        let returns = Returns { ring: back, pending: 0, rung: 0 };
        let link = Arc::new(Self {
            hub,
            worker,
            id,
            handle,
            board: CachePadded::default(),
            receiving: Claim::new(Receiving { rx, returns }),
            sending: Claim::new(Sending { tx, rung: 0 }),
            short: CachePadded::default(),
            left: CachePadded::default(),
            read: AtomicU32::new(0),
            low_water: AtomicU32::new(1),
            way: Claim::new(None),
        });
        (link, end)
    }

    /// Says whether data is left between the ring and the program. By the holder
    /// of `receiving`.
    #[inline]
    pub fn leave(&self, some: bool) {
        if self.left.load(Ordering::Relaxed) != some {
            self.left.store(some, Ordering::Relaxed);
        }
    }

    /// The program read so many bytes. By the holder of `receiving`.
    #[inline]
    pub fn count_read(&self, bytes: usize) {
        let read = self.read.load(Ordering::Relaxed).wrapping_add(bytes as u32);
        self.read.store(read, Ordering::Release);
    }

    /// Bytes on their way to the program. Read by the worker it may be too much, and
    /// by the program too little, as long as the other goes on.
    pub fn unread(&self) -> u32 {
        let read = self.read.load(Ordering::Acquire);
        self.board.lent.load(Ordering::Acquire).wrapping_sub(read)
    }

    /// What is there is as much as the program wants at a time, or as much as it gets.
    pub fn has_enough(&self) -> bool {
        let low_water = self.low_water.load(Ordering::Relaxed);
        low_water <= 1 || self.unread() >= low_water || self.status() & PRESSED != 0
    }

    /// Whether the worker wants frames back soon.
    pub fn wanted(&self) -> bool {
        self.board.status.load(Ordering::Relaxed) & WANTED != 0
            || self.hub.seats[self.worker].hungry.load(Ordering::Relaxed)
    }

    /// Says that there was no room. By the holder of `sending`.
    pub fn count_short(&self) {
        self.short.store(self.short.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        fence(Ordering::SeqCst); // pairs with the fence in `Core::pump`
    }

    /// What the worker says of the socket.
    #[inline]
    pub fn status(&self) -> u32 {
        self.board.status.load(Ordering::Acquire)
    }

    fn has_readable(&self) -> bool {
        let mut receiving = self.receiving.hold();
        let stream = matches!(receiving.rx, Rx::Stream { .. });
        receiving.rx.has_any() && (!stream || self.has_enough())
    }

    /// Whether a write would find room. Who hears no is told when there is some: the
    /// write that filled the ring was not refused, and the next one waits for that.
    fn has_room(&self) -> bool {
        let mut sending = self.sending.hold();
        if sending.tx.has_room() {
            return true;
        }
        self.count_short();
        // What the worker freed before it could see that.
        sending.tx.has_room()
    }

    /// Readiness as any thread sees it: EPOLL bits.
    pub fn readiness(&self) -> u32 {
        let status = self.status();
        let mut ready = status & (SPECIAL | PRI);
        if status & (0x10 | 0x2000 | MARK) != 0 || self.has_readable() {
            ready |= 0x1;
        }
        if status & (OPEN | FULL) == OPEN && self.has_room() {
            ready |= 0x4;
        }
        // An error makes both calls return.
        if status & 0x8 != 0 {
            ready |= 0x1 | 0x4;
        }
        ready
    }
}

impl Rx {
    /// True where a call would get something.
    pub fn has_any(&mut self) -> bool {
        match self {
            Self::Stream { ring, queue } => !queue.is_empty() || !ring.is_empty(),
            Self::Datagram { ring, queue } => !queue.is_empty() || !ring.is_empty(),
            Self::Listener { ring, .. } => !ring.is_empty(),
        }
    }
}

impl Tx {
    /// True where something fits.
    pub fn has_room(&mut self) -> bool {
        match self {
            Self::Stream(ring) => ring.room() > 0,
            Self::Datagram(ring) => ring.room() > 0,
        }
    }
}

impl Sending {
    /// Whether a bell must be rung for what was just published.
    #[inline]
    pub fn must_ring(&mut self, link: &Link) -> bool {
        fence(Ordering::SeqCst); // pairs with `Link::answer`
        let must = link.board.tx_seen.load(Ordering::Relaxed) == self.rung;
        self.rung = self.rung.wrapping_add(must.into());
        must
    }
}

impl Returns {
    /// Gives a frame back.
    #[inline]
    pub fn give(&mut self, frame: Frame) {
        // The worker lends no more than the ring holds.
        let given = self.ring.push(frame).is_ok();
        debug_assert!(given, "more came back than was lent");
        self.pending += 1;
    }

    /// Whether a bell is to be rung for what went back, and whether the worker is
    /// to be woken. `idle`: nothing more will be read for a while.
    #[inline]
    pub fn must_ring(&mut self, link: &Link, idle: bool) -> (bool, bool) {
        if self.pending == 0 {
            return (false, false);
        }
        // Pairs with `Link::answer`, and with the worker's fence before it sleeps.
        fence(Ordering::SeqCst);
        let wanted = link.wanted();
        if !wanted && !idle && self.pending < RETURNS {
            return (false, false);
        }
        self.pending = 0;
        let ring = link.board.rx_seen.load(Ordering::Relaxed) == self.rung;
        self.rung = self.rung.wrapping_add(ring.into());
        (ring, wanted)
    }
}

impl Link {
    /// The worker answers a bell: the rings are looked at after this.
    pub fn answer(&self, side: Side) {
        let seen = match side {
            Side::Rx => &self.board.rx_seen,
            Side::Tx => &self.board.tx_seen,
        };
        seen.store(seen.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        fence(Ordering::SeqCst); // pairs with the two `must_ring`
    }
}
