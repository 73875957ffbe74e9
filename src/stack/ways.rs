//! What sending to an IPv4 destination comes to, once it was found out: the next
//! hop's hardware address, the source that the route says, the largest packet. One
//! look-up instead of those of the route, the neighbour and the path's MTU, for
//! datagrams; a connection has all of it in its template.
//!
//! A note is only good while nothing it was made of changed: any change of routes,
//! addresses, neighbours or path MTUs makes all of them void at once.

use super::Core;
use super::route::Path;
use crate::time::Instant;
use crate::wire::ethernet::{self, Mac};
use core::net::{IpAddr, Ipv4Addr};

/// Notes there are at most; two destinations may want the same place.
const PLACES: usize = 256;

/// How a destination is reached.
#[derive(Clone, Copy, Debug)]
pub(super) struct Way {
    dst: u32,
    /// Source address for who has none.
    pub source: u32,
    /// The next hop's hardware address.
    pub mac: Mac,
    /// Largest packet.
    pub mtu: u16,
    /// Good while this is [`Ways::generation`], and until then.
    generation: u64,
    until: Instant,
}

/// The notes.
#[derive(Debug)]
pub(super) struct Ways {
    /// Empty until the first note.
    places: Vec<Way>,
    generation: u64,
}

/// Spreads addresses of one network over all places.
#[inline(always)]
fn place(dst: u32) -> usize {
    (dst.wrapping_mul(0x9e37_79b9) >> 24) as usize
}

impl Ways {
    pub fn new() -> Self {
        Self { places: Vec::new(), generation: 1 }
    }

    /// How `dst` is reached, if that is known and still so.
    #[inline(always)]
    pub fn get(&self, dst: u32, now: Instant) -> Option<&Way> {
        let way = self.places.get(place(dst))?;
        (way.dst == dst && way.generation == self.generation && now < way.until).then_some(way)
    }

    /// Something changed that ways are made of.
    pub fn forget(&mut self) {
        self.generation += 1;
    }

    fn put(&mut self, way: Way) {
        if self.places.is_empty() {
            self.places = vec![Way { generation: 0, ..way }; PLACES];
        }
        self.places[place(way.dst)] = way;
    }
}

impl Core {
    /// Notes how a destination is reached to which a packet was just sent, if it is a
    /// neighbour's hardware address that is known.
    #[cold]
    pub(super) fn note_way(&mut self, path: &Path, dst: Ipv4Addr) {
        let IpAddr::V4(source) = path.source else { return };
        // Groups have a time to live of their own.
        let group = dst.is_multicast() || path.is_broadcast;
        if path.is_local || group || self.interface.link_len != ethernet::HEADER_LEN {
            return;
        }
        let Some((mac, fresh)) = self.neighbors.settled(path.next_hop) else { return };
        let (mtu, known) = self.path_mtu_until(path, dst.into());
        let way = Way {
            dst: dst.to_bits(),
            source: source.to_bits(),
            mac,
            mtu: u16::try_from(mtu).unwrap_or(u16::MAX),
            generation: self.ways.generation,
            until: fresh.min(known),
        };
        self.ways.put(way);
    }
}
