//! Segments on their way to a connection, a listener, a TIME-WAIT entry, or to
//! nobody.

use super::hash::FlowKey;
use super::listener::Listener;
use super::passive::Syn;
use super::{Marks, NONE, Slot, Table, WAITING, env};
use crate::frame::Packet;
use crate::stack::core::{Core, Event};
use crate::stack::ip_input::IpMeta;
use crate::stack::neighbor::{Resolve, Waiter};
use crate::stack::quick::{Flow, Lone, Quick};
use crate::tcp::time_wait::Action;
use crate::tcp::{Connection, Events, IcmpError, Link, Readiness, Reply, State, Template};
use crate::telemetry::DropReason;
use crate::wire::ethernet::Mac;
use crate::wire::tcp::{Flags, Segment};
use core::net::SocketAddr;

/// Stands for nobody among those who wait for a neighbour.
pub(super) const NOBODY: Waiter = Waiter(u64::MAX);

/// What a change of a connection looks like to who waits for readiness.
#[inline]
fn readiness(events: Events) -> Readiness {
    let mut ready = Readiness::empty();
    ready.set(Readiness::IN, events.intersects(Events::READABLE | Events::PEER_CLOSED));
    ready.set(Readiness::PRI, events.contains(Events::URGENT));
    ready.set(Readiness::OUT, events.intersects(Events::WRITABLE | Events::CONNECTED));
    // With our side shut too it is a hang-up; who does not see one is not told.
    ready.set(Readiness::RDHUP | Readiness::HUP, events.contains(Events::PEER_CLOSED));
    if events.intersects(Events::ERROR | Events::CLOSED | Events::TIME_WAIT) {
        ready |= Readiness::IN | Readiness::OUT | Readiness::ERR | Readiness::HUP | Readiness::RDHUP;
    }
    ready
}

/// Why a segment is none that any TCP sends: probes of port scanners, and worse.
/// After the handshake every segment has ACK or RST; a SYN begins and ends nothing
/// else.
#[inline]
fn impossible(seg: &Segment) -> Option<DropReason> {
    if seg.src_port == 0 || seg.dst_port == 0 {
        return Some(DropReason::TcpMalformed);
    }
    if seg.flags.contains(Flags::ACK) && !seg.flags.contains(Flags::SYN) {
        return None;
    }
    let kind = seg.flags & (Flags::SYN | Flags::FIN | Flags::RST);
    let good = kind == Flags::SYN || kind == Flags::RST;
    (!good).then_some(DropReason::TcpBadFlags)
}

impl Slot {
    /// True for the slot of this flow's connection, if segments come to it from the wire.
    #[inline(always)]
    fn is_found(&self, (local, remote, ports): Flow) -> bool {
        let found = self.marks & (Marks::INDEXED | Marks::LOOPED) == Marks::INDEXED;
        found && self.key.is_v4(local, remote, ports)
    }

    /// True where a plain segment of this slot's connection can go the shortest way.
    #[inline(always)]
    fn can_take(&self, quick: &Quick) -> bool {
        !quick.fin && self.conn.as_ref().is_some_and(|conn| conn.is_quick(&quick.seg))
    }

    /// Takes a segment that it [can](Self::can_take).
    #[inline(always)]
    fn take(&mut self, touched: &mut Vec<u32>, core: &mut Core, quick: &Quick, packet: Packet) {
        let Some(conn) = &mut self.conn else { return packet.free(&mut core.pool) };
        let Core { now, pool, counters, config, .. } = core;
        conn.input_quick(*now, pool, counters, &config.tcp, &quick.seg, quick.payload(packet));
        counters.tcp_segments_in += 1;
        if !self.marks.contains(Marks::TOUCHED) {
            self.marks.insert(Marks::TOUCHED);
            touched.push(quick.id);
        }
        if quick.seg.len > 0 && self.token != NONE {
            let event = Event { token: self.token, ready: Readiness::IN };
            // Segments in a row make one event.
            if core.events.last() != Some(&event) {
                core.events.push(event);
            }
        }
    }
}

/// How a lone packet went.
pub(in crate::stack) enum Taken {
    /// It is taken.
    Yes,
    /// A plain segment of the connection found last, but not for the shortest way.
    Plain(Packet),
    /// Anything else.
    Other(Packet),
}

impl Table {
    /// A segment whose checksum is right; `packet`'s range is its payload. All
    /// frames are consumed.
    #[inline]
    pub(in crate::stack) fn input(
        &mut self,
        core: &mut Core,
        meta: &IpMeta,
        seg: &Segment,
        packet: Packet,
    ) {
        let key = FlowKey::new(meta.dst, seg.dst_port, meta.src, seg.src_port);
        if let Some(reason) = impossible(seg)
            && !self.answers_and_ends(&key, seg)
        {
            return core.discard(packet, reason);
        }
        match self.find(&key) {
            Some(id) if id & WAITING == 0 => self.connection_input(core, id, seg, packet),
            Some(id) => self.waiting_input(core, id & !WAITING, &key, seg, packet),
            None if core.book.is_some() => self.maybe_stray(core, meta, &key, seg, packet),
            None => self.stranger_input(core, &key, seg, packet, None),
        }
    }

    /// The answer to a SYN, which may be all that the peer has to say: a SYN-ACK with
    /// data and a FIN.
    #[cold]
    fn answers_and_ends(&self, key: &FlowKey, seg: &Segment) -> bool {
        let all = Flags::SYN | Flags::FIN | Flags::ACK;
        let id = self.find(key).filter(|id| id & WAITING == 0);
        let opening = |id| self.conn(id).state() == State::SynSent;
        seg.flags & (all | Flags::RST) == all && id.is_some_and(opening)
    }

    /// A segment of no connection here, where there are other stacks.
    #[cold]
    fn maybe_stray(&mut self, core: &mut Core, meta: &IpMeta, key: &FlowKey, seg: &Segment, packet: Packet) {
        if let Some(packet) = core.stray(6, meta, (seg.dst_port, seg.src_port), packet) {
            self.stranger_input(core, key, seg, packet, None);
        }
    }

    /// The connection of this flow over IPv4. The one found last is looked at first:
    /// segments of one flow come in rows. Of a connection to ourselves nothing comes
    /// from the wire.
    #[inline(always)]
    pub(in crate::stack) fn find_quick(&self, flow: Flow) -> Option<u32> {
        match self.slots.get(self.last_found as usize) {
            Some(slot) if slot.is_found(flow) => Some(self.last_found),
            _ => self.find_v4(flow.0, flow.1, flow.2),
        }
    }

    #[inline(never)]
    fn find_v4(&self, local: u32, remote: u32, ports: u32) -> Option<u32> {
        let hash = self.keyed.flow_v4(local, remote, ports);
        let is = |&n: &u32| n & WAITING == 0 && self.slots[n as usize].key.is_v4(local, remote, ports);
        let id = *self.flows.find(hash, is)?;
        (!self.slots[id as usize].marks.contains(Marks::LOOPED)).then_some(id)
    }

    /// A plain segment of a connection. Gives back what cannot take the shortest way.
    #[inline(always)]
    pub(in crate::stack) fn quick_input(
        &mut self,
        core: &mut Core,
        quick: Quick,
        packet: Packet,
    ) -> Option<Packet> {
        let slot = &mut self.slots[quick.id as usize];
        if !slot.can_take(&quick) {
            return Some(packet);
        }
        self.last_found = quick.id;
        slot.take(&mut self.touched, core, &quick, packet);
        None
    }

    /// The same for the only packet of a batch, with one look at the slot.
    #[inline(always)]
    pub(in crate::stack) fn lone_input(&mut self, core: &mut Core, packet: Packet) -> Taken {
        let Some(lone) = Lone::of(core, &packet) else { return Taken::Other(packet) };
        let flow = lone.flow();
        let slot = match self.slots.get_mut(self.last_found as usize) {
            Some(slot) if slot.is_found(flow) => slot,
            _ => {
                let Some(id) = self.find_v4(flow.0, flow.1, flow.2) else { return Taken::Other(packet) };
                self.last_found = id;
                &mut self.slots[id as usize]
            }
        };
        let quick = lone.read(self.last_found);
        if !slot.can_take(&quick) {
            return Taken::Plain(packet);
        }
        slot.take(&mut self.touched, core, &quick, packet);
        Taken::Yes
    }

    /// The slot of the connection found last.
    pub(in crate::stack) fn last_found(&self) -> u32 {
        self.last_found
    }

    /// The connection of a slot, to which more of a run may come.
    #[inline(always)]
    pub(in crate::stack) fn conn_of(&mut self, id: u32) -> Option<&mut Connection> {
        self.slots[id as usize].conn.as_mut()
    }

    /// True where the second of two ACKs without data says all that the first does:
    /// of one connection that expects both, with the same timestamp, and for more.
    pub(in crate::stack) fn stands_for(&self, first: &Quick, second: &Quick) -> bool {
        if first.id != second.id || !second.is_bare() {
            return false;
        }
        let (a, b) = (&first.seg, &second.seg);
        let Some(conn) = &self.slots[first.id as usize].conn else { return false };
        let forward = b.ack.wrapping_sub(a.ack) as i32 > 0 && a.timestamp == b.timestamp;
        forward && conn.is_expected(a) && conn.is_expected(b)
    }

    /// The same for all others that are plain: those that header prediction takes
    /// (acknowledgments of some of what is under way, and what makes windows and buffers
    /// grow), and those that open and end a connection, or are out of place.
    #[inline(never)]
    pub(in crate::stack) fn plain_input(&mut self, core: &mut Core, quick: Quick, mut packet: Packet) {
        self.last_found = quick.id;
        let (slot, seg) = (&mut self.slots[quick.id as usize], &quick.seg);
        if let Some(conn) = slot.conn.as_mut().filter(|conn| !quick.fin && conn.is_expected(seg)) {
            core.counters.tcp_segments_in += 1;
            let payload = quick.any_payload(&mut core.pool, packet);
            let done = conn.input_expected(&mut env(core, false), seg, payload);
            self.touch(quick.id);
            return self.report(core, quick.id, done.events);
        }
        if self.is_edge(&quick) {
            return self.edge_input(core, &quick, packet);
        }
        match quick.whole(&core.pool, &mut packet) {
            Some(seg) => self.connection_input(core, quick.id, &seg, packet),
            None => core.discard(packet, DropReason::TcpMalformed),
        }
    }

    /// It opens or ends a connection as nearly all do that do, and a listener has room.
    fn is_edge(&self, quick: &Quick) -> bool {
        let slot = &self.slots[quick.id as usize];
        let room = |l: &Listener| l.inherit.defer_accept == 0 && !l.is_accept_queue_full();
        slot.conn.as_ref().is_some_and(|conn| conn.is_edge(&quick.seg, quick.fin))
            && (!slot.marks.contains(Marks::HALF_OPEN) || self.listeners.get(slot.listener).is_some_and(room))
    }

    fn edge_input(&mut self, core: &mut Core, quick: &Quick, packet: Packet) {
        let slot = &mut self.slots[quick.id as usize];
        let payload = quick.any_payload(&mut core.pool, packet);
        let Some(conn) = &mut slot.conn else { return };
        let done = conn.input_edge(&mut env(core, false), &quick.seg, payload, quick.fin);
        if done.events.contains(Events::CLOSED) && slot.token == NONE && !slot.marks.contains(Marks::READY) && !conn.has_fast_open() {
            // Nobody has it, and nothing leaves any more.
            return self.remove(core, quick.id);
        }
        // What a bare ACK opened has nothing to send yet.
        if done.flush || conn.wants_flush() || conn.deadline() < slot.armed {
            self.touch(quick.id);
        }
        self.report(core, quick.id, done.events);
    }

    /// A plain segment in several frames. Gives back what is not expected, untouched.
    pub(in crate::stack) fn several_input(
        &mut self,
        core: &mut Core,
        quick: &Quick,
        mut packet: Packet,
    ) -> Option<Packet> {
        let conn = self.slots[quick.id as usize].conn.as_mut();
        let Some(conn) = conn.filter(|conn| !quick.fin && conn.is_expected(&quick.seg)) else {
            return Some(packet);
        };
        self.last_found = quick.id;
        core.counters.tcp_segments_in += 1;
        quick.trim(&mut packet);
        let done = conn.chain_expected(&mut env(core, false), &quick.seg, packet);
        self.touch(quick.id);
        self.report(core, quick.id, done.events);
        None
    }

    #[inline]
    pub(super) fn connection_input(&mut self, core: &mut Core, id: u32, seg: &Segment, packet: Packet) {
        let slot = &mut self.slots[id as usize];
        let Some(conn) = &mut slot.conn else {
            return core.discard(packet, DropReason::TcpNoSocket);
        };
        if slot.marks.contains(Marks::HALF_OPEN)
            && conn.completes_handshake(seg)
            && let Some(l) = self.listeners.get(slot.listener)
        {
            if l.inherit.defer_accept > 0 && conn.defers(seg, l.inherit.defer_accept) {
                core.counters.tcp_deferred += 1;
                return packet.free(&mut core.pool);
            }
            if l.is_accept_queue_full() {
                return self.overflow(core, id, seg, packet);
            }
        }
        let looped = slot.marks.contains(Marks::LOOPED);
        let payload = if seg.payload_len == 0 {
            packet.free(&mut core.pool);
            None
        } else {
            Some(packet)
        };
        let done = conn.input(&mut env(core, looped), seg, payload);
        self.touch(id);
        self.report(core, id, done.events);
    }

    /// Tells the socket what happened, and does what it means for the table.
    #[inline]
    pub(super) fn report(&mut self, core: &mut Core, id: u32, events: Events) {
        if events.is_empty() {
            return;
        }
        if events.intersects(Events::CONNECTED | Events::CLOSED | Events::TIME_WAIT) {
            self.state_changed(core, id, events);
        }
        let token = self.slots[id as usize].token;
        if token != NONE {
            core.events.push(Event { token, ready: readiness(events) });
        }
    }

    #[cold]
    fn state_changed(&mut self, core: &mut Core, id: u32, events: Events) {
        let slot = &mut self.slots[id as usize];
        if events.contains(Events::CONNECTED) && slot.marks.contains(Marks::HALF_OPEN) {
            let listener = slot.listener;
            self.leave_listener(id);
            self.push_ready(core, id, listener);
        }
        if self.slots[id as usize].conn.as_ref().is_some_and(Connection::has_fast_open) {
            self.fast_open_over(core, id, events.contains(Events::CLOSED));
        }
        let slot = &mut self.slots[id as usize];
        slot.marks.set(Marks::TIME_WAIT, events.contains(Events::TIME_WAIT));
        if events.contains(Events::CLOSED) {
            slot.marks.insert(Marks::CLOSED);
            self.leave_listener(id);
            self.leave_index(id);
        }
        if events.intersects(Events::CLOSED | Events::TIME_WAIT) {
            self.touch(id);
        }
    }

    #[cold]
    fn waiting_input(
        &mut self,
        core: &mut Core,
        id: u32,
        key: &FlowKey,
        seg: &Segment,
        packet: Packet,
    ) {
        let entry = self.waits.entry_mut(id);
        let ends = entry.expires(core.now);
        let mut action = entry.input(core.now, &core.config.tcp, seg);
        if entry.expires(core.now) != ends {
            self.waits.begin_anew(id);
        }
        if let Action::Reopen { .. } = action
            && !self.would_take(key)
        {
            // Where nobody listens, or there is no room, a SYN does not cut TIME-WAIT
            // short (RFC 1337).
            action = self.waits.entry_mut(id).challenge(core.now, &core.config.tcp);
        }
        match action {
            Action::Reopen { above } => {
                self.end_waiting(id);
                return self.stranger_input(core, key, seg, packet, Some(above));
            }
            Action::Ack(reply) => self.send_reply(core, key, &reply),
            Action::Nothing => {}
        }
        packet.free(&mut core.pool);
    }

    /// Takes an entry out of TIME-WAIT.
    pub(super) fn end_waiting(&mut self, id: u32) {
        let (key, reuse) = (self.waits.key(id), self.waits.reuse(id));
        self.unindex(&key, id | WAITING);
        self.waits.remove(id);
        self.ports.remove_connection(key.local_port(), reuse);
    }

    /// No connection of this 4-tuple (RFC 9293, 3.10.7.1 and 3.10.7.2).
    #[cold]
    fn stranger_input(
        &mut self,
        core: &mut Core,
        key: &FlowKey,
        seg: &Segment,
        packet: Packet,
        above: Option<u32>,
    ) {
        let kind = seg.flags & (Flags::SYN | Flags::RST | Flags::ACK);
        let Some(listener) = self.listeners.find(key.local(), key.remote()) else {
            core.discard(packet, DropReason::TcpNoSocket);
            return self.refuse(core, key, seg);
        };
        let syn = Syn { listener, key, seg, above };
        match kind {
            Flags::SYN => {
                if let Err(reason) = self.open_passive(core, &syn, packet) {
                    core.counters.drop(reason);
                }
            }
            Flags::ACK => {
                if let Some(packet) = self.cookie_input(core, &syn, packet) {
                    core.discard(packet, DropReason::TcpNoSocket);
                    self.refuse(core, key, seg);
                }
            }
            // RFC 9293, 3.10.7.2, fourth: neither SYN nor ACK.
            _ if !kind.contains(Flags::ACK) => core.discard(packet, DropReason::TcpBadFlags),
            _ => {
                core.discard(packet, DropReason::TcpNoSocket);
                self.refuse(core, key, seg);
            }
        }
    }

    /// The link header of a template; the next hop comes by `resolve`.
    pub(super) fn link(&self, core: &Core) -> Link {
        let interface = core.interface();
        if interface.link_len == 0 {
            return Link::Raw;
        }
        Link::Ethernet { src: interface.mac, dst: Mac::default() }
    }

    /// Sets a connection's next hop, now or when its address is known. False if
    /// it cannot be had.
    pub(super) fn resolve(&mut self, core: &mut Core, id: u32, next_hop: core::net::IpAddr) -> bool {
        let slot = &mut self.slots[id as usize];
        let waiter = Waiter((u64::from(slot.generation) << 32) | u64::from(id));
        let Some(conn) = &mut slot.conn else { return false };
        match core.resolve(next_hop, waiter) {
            Resolve::Ready(mac) => conn.set_path(Some(mac)),
            Resolve::Pending => conn.set_path(None),
            Resolve::Failed => return false,
        }
        true
    }

    /// Sends a segment for which no connection stands. Where the next hop's
    /// address is not known it is lost; the peer will ask again.
    pub(super) fn send_reply(&mut self, core: &mut Core, key: &FlowKey, reply: &Reply) {
        let (local, remote) = (key.local(), key.remote());
        let Ok(path) = core.route(remote.ip()) else {
            return core.counters.drop(DropReason::NoRoute);
        };
        let mut template = Template::new(self.link(core), local, remote, core.config.ttl, 0);
        match core.resolve(path.next_hop, NOBODY) {
            Resolve::Ready(mac) => template.set_dst_mac(mac),
            _ => return core.counters.drop(DropReason::NeighborFailed),
        }
        let tx = if path.is_local { &mut core.loop_tx } else { &mut core.tx };
        if tx.room() == 0 {
            core.counters.drop(DropReason::TransmitQueueFull);
        } else if !template.send(&mut core.pool, tx, reply) {
            core.counters.drop(DropReason::PoolExhausted);
        } else {
            core.counters.tcp_segments_out += 1;
        }
    }

    /// An ICMP error that quotes a segment of ours. False if no connection is
    /// known for it; the sequence number is the connection's to check.
    pub(in crate::stack) fn icmp_error(
        &mut self,
        core: &mut Core,
        local: SocketAddr,
        remote: SocketAddr,
        kind: IcmpError,
        seq: u32,
    ) -> bool {
        let key = FlowKey::new(local.ip(), local.port(), remote.ip(), remote.port());
        let Some(id) = self.find(&key).filter(|id| id & WAITING == 0) else { return false };
        let slot = &mut self.slots[id as usize];
        let looped = slot.marks.contains(Marks::LOOPED);
        let Some(conn) = &mut slot.conn else { return false };
        let before = conn.mtu();
        // What no program has yet is given up: a peer that it cannot reach will not
        // end its handshake (RFC 5461, 4).
        let pending = slot.token == NONE && conn.state() == State::SynReceived;
        let done = conn.icmp_error(&mut env(core, looped), kind, seq, pending);
        let mtu = conn.mtu();
        if mtu < before {
            // It was believed: the next connection need not find out again.
            core.learn_path_mtu(remote.ip(), mtu);
        }
        self.touch(id);
        self.report(core, id, done.events);
        true
    }
}
