//! One core's stack: IP, ARP, ICMP, UDP and TCP's tables. No I/O, no clock, no
//! thread: frames and the time come in, frames and events go out.
//!
//! ```text
//! device -> Stack::receive -> ip_input -> tcp | udp | icmp -> events
//!           Stack::turn (timers, sends, the loop queue) -> Core::tx -> device
//! ```
#![forbid(unsafe_code)]

mod arp;
mod bucket;
mod chain;
mod change;
pub mod config;
mod core;
pub mod datagram;
mod flow_book;
mod fragment;
mod icmp;
pub mod icmp_socket;
pub mod interface;
mod ip_input;
mod ip_output;
mod lru;
mod neighbor;
mod quick;
pub mod route;
mod sockets;
pub mod tcp;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
pub mod udp;
mod ways;

pub use self::core::{Core, Event};
pub use flow_book::FlowBook;
pub use config::{Config, Mode};
pub use ip_input::IpMeta;
pub use ip_output::IpHeader;
pub use neighbor::{Neighbor, Resolve, Waiter};
pub use route::{Path, Route};

use crate::arch;
use quick::{Lone, Quick, Run, is_unstamped};
use self::tcp::Taken;
use crate::frame::{Batch, Packet, Pool};
use crate::telemetry::DropReason;
use crate::time::Instant;

/// The stack of one core.
#[derive(Debug)]
pub struct Stack {
    /// What all protocols use.
    pub core: Core,
    /// TCP connections and listeners.
    pub tcp: tcp::Table,
    /// UDP sockets.
    pub udp: udp::Table,
    /// ICMP sockets.
    pub icmp: icmp_socket::Table,
}

/// Packets to ourselves that one turn takes in, at most, so that two sockets of
/// one stack that talk to each other do not keep the wire waiting.
const LOOP_BUDGET: usize = 256;

impl Stack {
    /// A stack over the frames of `pool`. The same seed gives the same bytes.
    pub fn new(config: Config, pool: Pool, seed: u64) -> Self {
        let mut core = Core::new(config, pool, seed);
        let udp = udp::Table::new(&mut core.rng);
        let tcp = tcp::Table::new(&mut core);
        Self { core, tcp, udp, icmp: icmp_socket::Table::new() }
    }

    /// Takes in a batch of received packets. All frames are consumed.
    pub fn receive(&mut self, now: Instant, batch: &mut Batch) {
        self.core.now = now;
        // A lone packet, a request or an answer, has nothing beside it to look at.
        if let Some(packet) = batch.pop() {
            if batch.is_empty() {
                self.receive_lone(packet);
            } else {
                batch.push(packet);
                self.receive_several(batch);
            }
        }
        self.report();
    }

    /// Takes in a batch of more than one.
    #[inline(never)]
    fn receive_several(&mut self, batch: &mut Batch) {
        // The headers of a batch, two lines each at most, fit the first cache.
        for packet in batch.iter().skip(1) {
            arch::prefetch(self.core.pool.bytes(&packet.head));
        }
        // Taken from the end, which costs the least.
        batch.reverse();
        if self.tcp.is_spread() {
            self.receive_spread(batch);
        } else {
            self.receive_each::<false>(batch);
        }
    }

    /// Where there are many connections: each packet's is looked for ahead.
    #[inline(never)]
    fn receive_spread(&mut self, batch: &mut Batch) {
        self.tcp.look_ahead(&self.core.pool, batch);
        self.receive_each::<true>(batch);
        self.tcp.forget_ahead();
    }

    /// Takes in the only packet of a batch; by itself, since half of what a batch asks does
    /// not matter to it (10 instructions of an echo's half).
    #[inline(always)]
    fn receive_lone(&mut self, packet: Packet) {
        self.count_received(&packet);
        match self.tcp.lone_input(&mut self.core, packet) {
            Taken::Yes => {}
            Taken::Plain(packet) => self.plain_lone(packet),
            Taken::Other(packet) => self.other_input(packet),
        }
    }

    /// A lone segment that cannot take the shortest way, of the connection found last. It
    /// is read again: else all of it would be kept at hand for this on that way.
    #[inline(never)]
    fn plain_lone(&mut self, packet: Packet) {
        match Lone::again(&self.core, &packet, self.tcp.last_found()) {
            Some(quick) => self.tcp.plain_input(&mut self.core, quick, packet),
            None => self.link_input(packet, false),
        }
    }

    /// Takes in each packet of a turned batch; `AHEAD`: with what was found ahead. The
    /// loop stands twice in the program, so that few connections do not ask; by itself,
    /// since its variables then fit the registers (30 instructions a packet).
    #[inline(never)]
    fn receive_each<const AHEAD: bool>(&mut self, batch: &mut Batch) {
        while let Some(mut packet) = batch.pop() {
            if AHEAD {
                self.tcp.expect(batch.len());
            }
            self.count_received(&packet);
            let Some(mut quick) = Quick::of(&self.core, &self.tcp, &packet) else {
                self.other_input(packet);
                continue;
            };
            if quick.is_bare() && !batch.is_empty() {
                self.gather_acks::<AHEAD>(&mut quick, &mut packet, batch);
            }
            let run = batch.last().and_then(|next| quick.run(&self.core.pool, &packet, next));
            if let Some(packet) = self.tcp.quick_input(&mut self.core, quick, packet) {
                self.tcp.plain_input(&mut self.core, quick, packet);
            } else if let Some(run) = &run {
                self.receive_run(run, batch);
            }
        }
    }

    /// Takes in the segments at the end of a turned batch that go on where the one before
    /// them ended, which took the shortest way, and whose headers say nothing else: only
    /// their payloads are new. Their flow was noted for the flush, and its program told,
    /// with the first.
    #[inline(never)]
    fn receive_run(&mut self, run: &Run, batch: &mut Batch) {
        let Self { core, tcp, .. } = self;
        let Some(conn) = tcp.conn_of(run.id) else { return };
        let (mut segments, mut bytes) = (0, 0);
        while let Some(packet) = batch.last()
            && let Some(seg) = run.next(core, packet)
            && conn.goes_on(seg.seq, seg.len)
            && seg.is_right(&core.pool, packet)
            && let Some(packet) = batch.pop()
        {
            segments += 1;
            bytes += packet.head.len() as u64;
            let payload = run.payload(&seg, packet);
            conn.input_more(&mut core.pool, &mut core.counters, &core.config.tcp, seg.seq, payload);
        }
        let counters = &mut core.counters;
        counters.rx_packets += segments;
        counters.rx_bytes += bytes;
        counters.tcp_segments_in += segments;
        counters.tcp_segments_merged += segments;
    }

    #[inline(always)]
    fn count_received(&mut self, packet: &Packet) {
        self.core.counters.rx_packets += 1;
        self.core.counters.rx_bytes += packet.len() as u64;
    }

    /// What is no plain segment of an open connection.
    #[inline(never)]
    fn other_input(&mut self, mut packet: Packet) {
        if packet.rest.is_some()
            && let Some(quick) = Quick::of_several(&self.core, &self.tcp, &packet)
        {
            match self.tcp.several_input(&mut self.core, &quick, packet) {
                Some(back) => packet = back,
                None => return,
            }
        }
        match udp::Arrival::of(&self.core, &self.udp, &packet) {
            Some(arrival) => self.udp.quick_input(&mut self.core, &arrival, packet),
            None => self.rare_input(packet),
        }
    }

    /// What is no datagram for a socket, either. A lone segment without a timestamp was
    /// not looked at yet.
    fn rare_input(&mut self, packet: Packet) {
        if is_unstamped(&self.core.pool, &packet)
            && let Some(quick) = Quick::of(&self.core, &self.tcp, &packet)
        {
            if let Some(packet) = self.tcp.quick_input(&mut self.core, quick, packet) {
                self.tcp.plain_input(&mut self.core, quick, packet);
            }
            return;
        }
        self.link_input(packet, false);
    }

    /// Of an ACK without data and those of its flow that follow it at once, at the end of
    /// a turned batch, only the last has something to say: leaves that one.
    #[inline(never)]
    fn gather_acks<const AHEAD: bool>(&mut self, quick: &mut Quick, packet: &mut Packet, batch: &mut Batch) {
        while let Some(next) = batch.pop() {
            if AHEAD {
                self.tcp.expect(batch.len());
            }
            let found = Quick::of(&self.core, &self.tcp, &next);
            let Some(mut later) = found.filter(|later| self.tcp.stands_for(quick, later)) else {
                // Not of that row: it is looked at anew.
                batch.push(next);
                break;
            };
            self.count_received(&next);
            later.seg.merged = quick.seg.merged + 1;
            self.core.counters.tcp_acks_merged += 1;
            self.core.counters.tcp_segments_in += 1;
            std::mem::replace(packet, next).free(&mut self.core.pool);
            *quick = later;
        }
    }

    /// Does what is due at `now`: timers, neighbours that were found or not, and
    /// everything that waits to be sent. Called once a loop, after
    /// [`Stack::receive`].
    pub fn turn(&mut self, now: Instant) {
        self.core.now = now;
        self.core.neighbor_timers();
        self.core.fragment_timers();
        self.tcp.timers(&mut self.core);
        let mut budget = LOOP_BUDGET;
        // Once, but for what goes to ourselves: each time that all of it was taken in.
        loop {
            self.flush();
            if self.core.loop_tx.is_empty() || !self.receive_looped(&mut budget) {
                break;
            }
        }
        self.report();
    }

    /// A connection gave way in the last turn and could send more.
    pub fn has_more_to_send(&self) -> bool {
        self.tcp.has_more()
    }

    /// Reports every datagram socket that something happened to, once.
    #[inline]
    fn report(&mut self) {
        if self.udp.begin_report() | self.icmp.begin_report() {
            self.udp.report(&mut self.core);
            self.icmp.report(&mut self.core);
        }
    }

    /// Tells who waited for neighbours, and lets every protocol send.
    #[inline(always)]
    fn flush(&mut self) {
        if !self.core.undeliverable.is_empty() {
            self.neighbors_unreachable();
        }
        self.tcp.neighbors(&mut self.core);
        self.tcp.flush(&mut self.core);
    }

    #[cold]
    fn neighbors_unreachable(&mut self) {
        while let Some(frame) = self.core.undeliverable.pop() {
            self.neighbor_unreachable(frame);
        }
    }

    /// Takes in what was sent to ourselves, so many packets at most. Each is copied: its
    /// sender may keep the frame to send it again. True where all was taken in.
    #[inline(never)]
    fn receive_looped(&mut self, budget: &mut usize) -> bool {
        while *budget > 0 {
            let Some(desc) = self.core.loop_tx.pop() else { return false };
            *budget -= 1;
            match self.core.copy_looped(desc) {
                Some(packet) => self.link_input(packet, true),
                None => self.core.counters.drop(DropReason::PoolExhausted),
            }
            if self.core.loop_tx.is_empty() {
                return true;
            }
        }
        false
    }

    /// When [`Stack::turn`] has to be called next, if nothing comes in before;
    /// `None`: never.
    pub fn next_deadline(&self) -> Option<Instant> {
        let core = &self.core;
        let waits = core.loop_tx.len() + core.undeliverable.len() + core.resolved.len();
        if waits > 0 {
            return Some(core.now);
        }
        let next = core.neighbors.next_deadline().min(core.reassembly.next_deadline());
        let next = next.min(self.tcp.next_deadline(core.now));
        (next != Instant::NEVER).then_some(next)
    }

    /// Frames held anywhere in the stack.
    pub fn held_frames(&self) -> usize {
        self.core.held_frames()
            + self.tcp.held_frames()
            + self.udp.held_frames()
            + self.icmp.held_frames()
    }

    /// Checks that no frame is lost and none is in two places.
    ///
    /// # Panics
    /// If the books do not balance. Frames of other workers' pools that are
    /// held here are in their own pools' books: with several pools over one
    /// arena only the pool's own books are checked.
    pub fn assert_conserved(&self) {
        let pool = &self.core.pool;
        pool.assert_conserved();
        if pool.capacity() == pool.arena().count() {
            assert_eq!(pool.counts().held as usize, self.held_frames(), "frames held by nobody");
        }
    }
}
