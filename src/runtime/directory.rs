//! The directory of flows: who owns what, for the packet that came to another.
//!
//! Each worker writes its own table, of fingerprints in lines of sixteen, and
//! its own port counts; others only read them, and only for a packet that fits
//! nothing of their own. A fingerprint can be mistaken for another (once in some
//! hundred million look-ups), and a table can be full (then a stray flow is
//! reset instead of handed over).
//!
//! Memory ordering: Relaxed, but for the pages, which a `OnceLock` publishes. The entry is
//! a hint; what is true is the owner's own table, which it asks on its own thread.

use crate::stack::FlowBook;
use core::hash::{Hash, Hasher};
use core::net::SocketAddr;
use core::sync::atomic::{AtomicU16, AtomicU32, Ordering};
use siphasher::sip::SipHasher13;
use std::sync::{Arc, OnceLock};

const LINE: usize = 16;
/// Lines of each worker: room for a million flows in 8 MiB, which are taken a page at a
/// time when a flow falls into it.
const LINES: usize = 1 << 17;
/// Lines of a page: few, as flows are spread over all.
const PAGE: usize = 8;

#[repr(align(64))]
#[derive(Default)]
struct Line([AtomicU32; LINE]);

type Page = Box<[Line]>;

/// Counts of ports, in lines of their own as well: tables of two workers may lie side by
/// side.
#[repr(align(64))]
#[derive(Default)]
struct Ports([AtomicU16; PORTS]);

const PORTS: usize = 32;
const _: () = assert!(size_of::<Line>() == 64 && size_of::<Ports>() == 64);

/// What one worker owns: written by it alone.
struct Share {
    pages: Box<[OnceLock<Page>]>,
    /// Sockets bound to each port: TCP's, then UDP's.
    ports: Box<[Ports]>,
}

/// What all workers of a runtime own.
pub(super) struct Directory {
    shares: Vec<Share>,
    key: (u64, u64),
}

impl Directory {
    /// An empty directory.
    pub fn new(workers: usize, key: (u64, u64)) -> Arc<Self> {
        let share = || Share {
            pages: (0..LINES / PAGE).map(|_| OnceLock::new()).collect(),
            ports: (0..(2 << 16) / PORTS).map(|_| Ports::default()).collect(),
        };
        Arc::new(Self { shares: (0..workers).map(|_| share()).collect(), key })
    }

    /// The flow's fingerprint, never zero, and its two lines.
    fn place(&self, local: SocketAddr, remote: SocketAddr) -> (u32, [usize; 2]) {
        let mut hasher = SipHasher13::new_with_keys(self.key.0, self.key.1);
        (local, remote).hash(&mut hasher);
        let hash = hasher.finish();
        let line = (hash >> 32) as usize;
        ((hash as u32).max(1), [line % LINES, ((line / LINES) ^ line.wrapping_mul(31)) % LINES])
    }
}

impl Share {
    fn open(&self, fingerprint: u32, lines: [usize; 2]) {
        let page = || (0..PAGE).map(|_| Line::default()).collect();
        let mut places = lines.iter().flat_map(|n| &self.pages[n / PAGE].get_or_init(page)[n % PAGE].0);
        if let Some(free) = places.find(|p| p.load(Ordering::Relaxed) == 0) {
            free.store(fingerprint, Ordering::Relaxed);
        }
    }

    fn close(&self, fingerprint: u32, lines: [usize; 2]) {
        if let Some(place) = self.find(fingerprint, lines) {
            place.store(0, Ordering::Relaxed);
        }
    }

    fn find(&self, fingerprint: u32, lines: [usize; 2]) -> Option<&AtomicU32> {
        let taken = lines.iter().filter_map(|n| Some(&self.pages[n / PAGE].get()?[n % PAGE]));
        taken.flat_map(|line| &line.0).find(|p| p.load(Ordering::Relaxed) == fingerprint)
    }

    fn port(&self, protocol: u8, port: u16) -> &AtomicU16 {
        let udp = i32::from(protocol) == libc::IPPROTO_UDP;
        let place = (usize::from(udp) << 16) | usize::from(port);
        &self.ports[place / PORTS].0[place % PORTS]
    }
}

/// One worker's pen.
#[derive(Clone)]
pub(super) struct Book {
    pub directory: Arc<Directory>,
    pub worker: usize,
}

impl core::fmt::Debug for Book {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Book").field("worker", &self.worker).finish_non_exhaustive()
    }
}

impl Book {
    fn mine(&self) -> &Share {
        &self.directory.shares[self.worker]
    }

    /// A socket of this worker's was bound to a port, or let go of it.
    pub fn bound(&self, protocol: u8, port: u16, on: bool) {
        let count = self.mine().port(protocol, port);
        let n = count.load(Ordering::Relaxed);
        count.store(if on { n.saturating_add(1) } else { n.saturating_sub(1) }, Ordering::Relaxed);
    }
}

impl FlowBook for Book {
    fn opened(&mut self, local: SocketAddr, remote: SocketAddr) {
        let (fingerprint, lines) = self.directory.place(local, remote);
        self.mine().open(fingerprint, lines);
    }

    fn closed(&mut self, local: SocketAddr, remote: SocketAddr) {
        let (fingerprint, lines) = self.directory.place(local, remote);
        self.mine().close(fingerprint, lines);
    }

    fn owner(&self, protocol: u8, local: SocketAddr, remote: SocketAddr) -> Option<usize> {
        let (fingerprint, lines) = self.directory.place(local, remote);
        let shares = &self.directory.shares;
        let others = || (0..shares.len()).filter(|w| *w != self.worker);
        let tcp = i32::from(protocol) == libc::IPPROTO_TCP;
        if tcp && let Some(owner) = others().find(|w| shares[*w].find(fingerprint, lines).is_some()) {
            return Some(owner);
        }
        // Nobody's flow: a port that another worker holds, and this one does not.
        let holds = |w: &usize| shares[*w].port(protocol, local.port()).load(Ordering::Relaxed) > 0;
        if holds(&self.worker) { None } else { others().find(holds) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(port: u16) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, 1], port))
    }

    #[test]
    fn a_flow_is_found_by_others_until_it_is_closed() {
        let directory = Directory::new(3, (1, 2));
        let book = |worker| Book { directory: directory.clone(), worker };
        let (mut one, two) = (book(1), book(2));
        for port in 1..2000 {
            one.opened(at(80), at(port));
        }
        assert!((1..2000).all(|port| two.owner(6, at(80), at(port)) == Some(1)));
        assert!((1..2000).all(|port| one.owner(6, at(80), at(port)).is_none()), "its own");
        assert!((2000..4000).all(|port| two.owner(6, at(80), at(port)).is_none()));
        for port in 1..2000 {
            one.closed(at(80), at(port));
        }
        assert!((1..2000).all(|port| two.owner(6, at(80), at(port)).is_none()));
    }

    #[test]
    fn memory_is_taken_for_the_flows_there_are() {
        let directory = Directory::new(2, (1, 2));
        let taken = |worker: usize| directory.shares[worker].pages.iter().filter(|p| p.get().is_some()).count();
        let mut one = Book { directory: directory.clone(), worker: 1 };
        one.closed(at(80), at(1));
        assert_eq!((taken(0), taken(1)), (0, 0));
        one.opened(at(80), at(1));
        assert!(taken(0) == 0 && (1..=2).contains(&taken(1)));
    }

    #[test]
    fn a_port_held_by_one_worker_alone_is_found() {
        let directory = Directory::new(2, (1, 2));
        let book = |worker| Book { directory: directory.clone(), worker };
        let (zero, one) = (book(0), book(1));
        one.bound(17, 53, true);
        assert_eq!(zero.owner(17, at(53), at(9)), Some(1));
        assert_eq!(zero.owner(6, at(53), at(9)), None);
        zero.bound(17, 53, true);
        assert_eq!(zero.owner(17, at(53), at(9)), None, "both hold it");
        one.bound(17, 53, false);
        assert_eq!(one.owner(17, at(53), at(9)), Some(0));
    }
}
