//! The table of TCP connections of one core, above [`crate::tcp::Connection`]:
//! which connection a segment is for, who listens, which port is free, when a
//! connection's timer is due, and what has to be sent at the end of a turn.
//!
//! A connection lives in a slab and is named by its slot. Packets find it by a
//! keyed hash of the 4-tuple; calls from the program come with the slot. Nothing
//! here is linear in the number of connections but the answer to a neighbour
//! that moved.

#![forbid(unsafe_code)]

mod ahead;
mod audit;
mod calls;
mod config;
mod cookies;
mod fast_open;
pub(super) mod hash;
mod input;
mod listener;
mod open;
mod passive;
mod ports;
mod pressure;
mod turn;
mod waits;
mod wheel;

pub use config::TableConfig;
pub use hash::{FlowKey, Keyed};
pub(in crate::stack) use input::Taken;
pub use cookies::SynCookies;
pub use fast_open::FastOpenKeys;
pub use listener::Inherit;
pub use open::Open;
pub use ports::{BindId, Ports, Reuse};

use super::core::Core;
use crate::stack::FlowBook;
use crate::tcp::{Connection, Env, isn};
use crate::time::{Duration, Instant};
use core::cell::Cell;
use hashbrown::HashTable;
use listener::Listeners;
use waits::Waits;
use wheel::Wheel;

/// No socket, no listener.
pub const NONE: u32 = u32::MAX;
/// In the flow index: the number is that of a TIME-WAIT entry.
const WAITING: u32 = 1 << 31;
/// In the wheel: a look at a slot whose deadline was far away.
const LOOK: u32 = 1 << 31;
/// Deadlines further away than this are not put into the wheel themselves. A
/// wheel forgets nothing before its time: a connection that talks would leave an
/// entry for its keepalive timer behind with each exchange, for hours.
const FAR: Duration = Duration::from_secs(30);

bitflags::bitflags! {
    /// What the table knows of a connection.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    struct Marks: u16 {
        /// On the list of those to be flushed.
        const TOUCHED = 0x001;
        /// Both ends are ours: segments go through the loop queue.
        const LOOPED = 0x002;
        /// In the flow index.
        const INDEXED = 0x004;
        /// In its listener's SYN queue.
        const HALF_OPEN = 0x008;
        /// In its listener's accept queue.
        const READY = 0x010;
        /// Its socket had set SO_REUSEADDR.
        const REUSE = 0x020;
        /// Its socket had set SO_REUSEPORT.
        const REUSE_PORT = 0x1000;
        /// In TIME-WAIT: an entry takes its place after the next flush.
        const TIME_WAIT = 0x040;
        /// Closed: after the next flush it goes, unless somebody still reads it.
        const CLOSED = 0x080;
        /// Its program found no frame to send with, and waits to be told.
        const STARVED = 0x100;
        /// The wheel looks at this slot within [`FAR`]. Of the slot, whoever uses it.
        const FAR = 0x200;
        /// In the queue of those whose peers take nothing.
        const STALLED = 0x400;
        /// Its program gave it up.
        const ORPHAN = 0x800;
        /// Accepted since the last flush, with data that came before.
        const ACCEPTED = 0x2000;
        /// What is the slot's and not its connection's.
        const KEPT = Self::TOUCHED.bits() | Self::FAR.bits();
    }
}

impl Marks {
    fn reuse(self) -> Reuse {
        Reuse { addr: self.contains(Self::REUSE), port: self.contains(Self::REUSE_PORT) }
    }

    fn set_reuse(&mut self, reuse: Reuse) {
        self.set(Self::REUSE, reuse.addr);
        self.set(Self::REUSE_PORT, reuse.port);
    }
}

/// A place in the slab: a line of the table's own, and the connection.
#[derive(Debug)]
#[repr(C)]
struct Slot {
    /// The wheel wakes this slot no later than then.
    armed: Instant,
    key: FlowKey,
    /// The socket that the connection belongs to, or `NONE`.
    token: u32,
    /// Half open or ready: the listener. Else `NONE`.
    listener: u32,
    /// Half open: the place in the listener's SYN queue.
    place: u32,
    /// Counts the slot's uses, so that a late answer finds no stranger.
    generation: u32,
    marks: Marks,
    conn: Option<Connection>,
}

impl Slot {
    /// Its first bytes, which is what segments touch that nothing is unusual about.
    const WARM: usize = core::mem::offset_of!(Slot, conn) + Connection::WARM;

    fn empty(key: FlowKey) -> Self {
        Self {
            conn: None,
            armed: Instant::NEVER,
            key,
            token: NONE,
            listener: NONE,
            place: 0,
            generation: 0,
            marks: Marks::empty(),
        }
    }
}

const _: () = assert!(core::mem::offset_of!(Slot, conn) == 64, "what is the table's own fills a line");
const _: () = assert!(size_of::<Slot>() <= 576, "a place is part of an idle connection's price");

/// All TCP of one core.
#[derive(Debug)]
pub struct Table {
    slots: Vec<Slot>,
    free: Vec<u32>,
    live: usize,
    flows: HashTable<u32>,
    /// The slot that the short way in found last, or expects next.
    last_found: u32,
    ahead: ahead::Ahead,
    keyed: Keyed,
    /// The flow that was hashed last, and its hash.
    hashed: Cell<(FlowKey, u64)>,
    listeners: Listeners,
    /// Who uses which local port.
    pub ports: Ports,
    waits: Waits,
    touched: Vec<u32>,
    /// How many of them could not send all they had, for want of room, or wait with
    /// their ACKs: they are not to be flushed again at once.
    stuck: usize,
    /// How many hold the ACK of a first request until their program had a turn.
    held: usize,
    /// Until when the ACKs of bulk data wait.
    acks_from: Instant,
    /// Connections whose programs found no frame to send with.
    starved: Vec<u32>,
    stalled: pressure::Stalled,
    /// Connections whose programs gave them up.
    orphans: usize,
    /// Whom the wheel wakes, while they are worked off.
    woken: Vec<u32>,
    wheel: Wheel,
    isn: isn::Generator,
    cookies: cookies::Cookies,
    fast_opens: fast_open::FastOpens,
    /// Where other stacks look for the flows of this one.
    pub book: Option<Box<dyn FlowBook>>,
}

/// True where this number in the flow index is that of the flow.
#[inline]
fn is_of(slots: &[Slot], waits: &Waits, number: u32, key: &FlowKey) -> bool {
    match number & WAITING {
        0 => slots[number as usize].key == *key,
        _ => waits.key(number & !WAITING) == *key,
    }
}

/// A connection's surroundings.
#[inline]
fn env(core: &mut Core, looped: bool) -> Env<'_> {
    Env {
        now: core.now,
        pool: &mut core.pool,
        tx: if looped { &mut core.loop_tx } else { &mut core.tx },
        counters: &mut core.counters,
        config: &core.config.tcp,
        rng: &mut core.rng,
    }
}

impl Table {
    /// An empty table, bounded by the configuration.
    pub fn new(core: &mut Core) -> Self {
        let keyed = Keyed::new(core.rng.key());
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            live: 0,
            flows: HashTable::new(),
            last_found: NONE,
            ahead: ahead::Ahead::new(),
            keyed,
            hashed: Cell::new((FlowKey::NONE, keyed.flow(&FlowKey::NONE))),
            listeners: Listeners::new(keyed),
            ports: Ports::new(core.config.table.ports(core.config.ephemeral_ports), &mut core.rng),
            waits: Waits::default(),
            touched: Vec::new(),
            stuck: 0,
            held: 0,
            acks_from: Instant::ZERO,
            starved: Vec::new(),
            stalled: pressure::Stalled::default(),
            orphans: 0,
            woken: Vec::new(),
            wheel: Wheel::new(core.now),
            isn: isn::Generator::new(&mut core.rng, core.config.tcp.sequence_base),
            cookies: cookies::Cookies::default(),
            fast_opens: fast_open::FastOpens::new(core.config.table.fast_open_keys, keyed),
            book: None,
        }
    }

    /// Connections, half-open ones included; without TIME-WAIT.
    pub fn connections(&self) -> usize {
        self.live
    }

    /// Entries in TIME-WAIT.
    pub fn waiting(&self) -> usize {
        self.waits.len()
    }

    /// Frames in the queues of all connections. Linear, for audits.
    pub fn held_frames(&self) -> usize {
        self.slots.iter().filter_map(|s| s.conn.as_ref()).map(Connection::held_frames).sum()
    }

    /// Entries in the timing wheel. Linear, for audits.
    pub fn wheel_entries(&self) -> usize {
        self.wheel.len()
    }

    /// The number in the flow index under this key.
    #[inline]
    fn find(&self, key: &FlowKey) -> Option<u32> {
        let found = self.flows.find(self.hash(key), |&n| is_of(&self.slots, &self.waits, n, key));
        found.copied()
    }

    /// The hash of a flow. What is looked up is often put in or taken out next, and
    /// segments come in rows: the last one is kept.
    #[inline]
    fn hash(&self, key: &FlowKey) -> u64 {
        let (last, hash) = self.hashed.get();
        if last == *key {
            return hash;
        }
        let hash = self.keyed.flow(key);
        self.hashed.set((*key, hash));
        hash
    }

    fn index(&mut self, key: FlowKey, number: u32) {
        if let Some(book) = &mut self.book {
            book.opened(key.local(), key.remote());
        }
        let hash = self.hash(&key);
        let Self { flows, slots, waits, keyed, .. } = self;
        flows.insert_unique(hash, number, |&n| match n & WAITING {
            0 => keyed.flow(&slots[n as usize].key),
            _ => keyed.flow(&waits.key(n & !WAITING)),
        });
    }

    fn unindex(&mut self, key: &FlowKey, number: u32) {
        if let Some(book) = &mut self.book {
            book.closed(key.local(), key.remote());
        }
        if let Ok(entry) = self.flows.find_entry(self.hash(key), |&n| n == number) {
            entry.remove();
        }
    }

    /// Puts a new connection into the slab and the index.
    fn insert(&mut self, conn: Connection, key: FlowKey, token: u32, marks: Marks) -> u32 {
        let id = self.reserve(&key);
        self.slots[id as usize].conn = Some(conn);
        self.enter(id, key, token, marks);
        id
    }

    /// A place in the slab, for a connection that is made in it.
    fn reserve(&mut self, key: &FlowKey) -> u32 {
        self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::empty(*key));
            self.slots.len() as u32 - 1
        })
    }

    /// The connection of a place that was reserved begins to count.
    fn enter(&mut self, id: u32, key: FlowKey, token: u32, marks: Marks) {
        let slot = &mut self.slots[id as usize];
        (slot.armed, slot.key, slot.token) = (Instant::NEVER, key, token);
        (slot.listener, slot.place) = (NONE, 0);
        slot.marks = slot.marks & Marks::KEPT | marks | Marks::INDEXED;
        self.live += 1;
        self.ports.add_connection(key.local_port(), marks.reuse());
        self.index(key, id);
        self.touch(id);
    }

    /// Takes a connection out of everything and gives its frames back.
    fn remove(&mut self, core: &mut Core, id: u32) {
        self.leave_listener(id);
        self.leave_index(id);
        let slot = &mut self.slots[id as usize];
        if slot.conn.as_ref().is_some_and(Connection::has_fast_open) {
            self.fast_open_over(core, id, false);
        }
        let slot = &mut self.slots[id as usize];
        let Some(conn) = &mut slot.conn else { return };
        conn.give_back(&mut core.pool);
        slot.conn = None;
        slot.generation = slot.generation.wrapping_add(1);
        slot.token = NONE;
        let (key, reuse) = (slot.key, slot.marks.reuse());
        self.orphans -= usize::from(slot.marks.contains(Marks::ORPHAN));
        // The list of touched ones and the wheel still name the slot.
        slot.marks &= Marks::KEPT;
        self.live -= 1;
        self.free.push(id);
        self.ports.remove_connection(key.local_port(), reuse);
    }

    fn leave_index(&mut self, id: u32) {
        let slot = &mut self.slots[id as usize];
        if slot.marks.contains(Marks::INDEXED) {
            slot.marks.remove(Marks::INDEXED);
            let key = slot.key;
            self.unindex(&key, id);
        }
    }

    /// Leaves the SYN queue; `READY` stays with the accept queue.
    fn leave_listener(&mut self, id: u32) {
        let slot = &mut self.slots[id as usize];
        if !slot.marks.contains(Marks::HALF_OPEN) {
            return;
        }
        slot.marks.remove(Marks::HALF_OPEN);
        let (listener, place) = (slot.listener, slot.place);
        slot.listener = NONE;
        let moved = self.listeners.get_mut(listener).and_then(|l| l.remove_half_open(place));
        if let Some(moved) = moved {
            self.slots[moved as usize].place = place;
        }
    }

    /// To be flushed at the end of the turn.
    #[inline]
    fn touch(&mut self, id: u32) {
        let marks = &mut self.slots[id as usize].marks;
        if !marks.contains(Marks::TOUCHED) {
            marks.insert(Marks::TOUCHED);
            self.touched.push(id);
        }
    }
}
