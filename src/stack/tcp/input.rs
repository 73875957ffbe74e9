//! Segments on their way to a connection, a listener, a TIME-WAIT entry, or to
//! nobody.

use super::hash::FlowKey;
use super::{Marks, NONE, Slot, Table, WAITING, env};
use crate::frame::Packet;
use crate::stack::core::{Core, Event};
use crate::stack::ip_input::IpMeta;
use crate::stack::neighbor::{Resolve, Waiter};
use crate::stack::quick::Quick;
use crate::tcp::time_wait::Action;
use crate::tcp::{
    Connection, Events, IcmpError, Link, Plain, Readiness, Reply, Template, reset_reply,
};
use crate::telemetry::DropReason;
use crate::wire::ethernet::Mac;
use crate::wire::tcp::{Flags, Segment};
use core::net::SocketAddr;

/// Stands for nobody among those who wait for a neighbour.
const NOBODY: Waiter = Waiter(u64::MAX);

/// What a change of a connection looks like to who waits for readiness.
#[inline]
fn readiness(events: Events) -> Readiness {
    let mut ready = Readiness::empty();
    ready.set(Readiness::IN, events.intersects(Events::READABLE | Events::PEER_CLOSED));
    ready.set(Readiness::OUT, events.intersects(Events::WRITABLE | Events::CONNECTED));
    // With our side shut too it is a hang-up; who does not see one is not told.
    ready.set(Readiness::RDHUP | Readiness::HUP, events.contains(Events::PEER_CLOSED));
    if events.intersects(Events::ERROR | Events::CLOSED | Events::TIME_WAIT) {
        ready |= Readiness::IN | Readiness::OUT | Readiness::ERR | Readiness::HUP | Readiness::RDHUP;
    }
    ready
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
        match self.find(&key) {
            Some(id) if id & WAITING == 0 => self.connection_input(core, id, seg, packet),
            Some(id) => self.waiting_input(core, id & !WAITING, &key, seg, packet),
            None if core.book.is_some() => self.maybe_stray(core, meta, &key, seg, packet),
            None => self.stranger_input(core, &key, seg, packet, None),
        }
    }

    /// A segment of no connection here, where there are other stacks.
    #[cold]
    fn maybe_stray(&mut self, core: &mut Core, meta: &IpMeta, key: &FlowKey, seg: &Segment, packet: Packet) {
        if let Some(packet) = core.stray(6, meta, (seg.dst_port, seg.src_port), packet) {
            self.stranger_input(core, key, seg, packet, None);
        }
    }

    /// The connection of this flow over IPv4, if the segment is what it expects.
    /// The connection found last is looked at first: segments of one flow come in
    /// rows. Of a connection to ourselves nothing comes from the wire.
    #[inline(always)]
    pub(in crate::stack) fn expecting(
        &self,
        local: u32,
        remote: u32,
        ports: u32,
        segment: &Plain,
    ) -> Option<u32> {
        let is = |slot: &Slot| {
            slot.marks.contains(Marks::INDEXED) && slot.key.is_v4(local, remote, ports)
        };
        let id = match self.slots.get(self.last_found as usize) {
            Some(slot) if is(slot) => self.last_found,
            _ => self.find_v4(local, remote, ports)?,
        };
        let slot = self.slots.get(id as usize)?;
        let conn = slot.conn.as_ref()?;
        (!slot.marks.contains(Marks::LOOPED) && conn.is_expected(segment)).then_some(id)
    }

    #[inline(never)]
    fn find_v4(&self, local: u32, remote: u32, ports: u32) -> Option<u32> {
        let hash = self.keyed.flow_v4(local, remote, ports);
        let is = |&n: &u32| self.key_of(n).is_v4(local, remote, ports);
        self.flows.find(hash, is).copied()
    }

    /// The segment that a connection expects (see [`Table::expecting`]).
    #[inline(always)]
    pub(in crate::stack) fn quick_input(&mut self, core: &mut Core, quick: &Quick, mut packet: Packet) {
        self.last_found = quick.id;
        let slot = &mut self.slots[quick.id as usize];
        let Some(conn) = &mut slot.conn else {
            return core.discard(packet, DropReason::TcpNoSocket);
        };
        core.counters.tcp_segments_in += 1;
        let payload = if quick.segment.len == 0 {
            core.pool.free(packet.head);
            None
        } else {
            quick.trim(&mut packet);
            Some(packet.head)
        };
        let done = conn.input_expected(&mut env(core, false), &quick.segment, payload);
        if !slot.marks.contains(Marks::TOUCHED) {
            slot.marks.insert(Marks::TOUCHED);
            self.touched.push(quick.id);
        }
        if slot.token != NONE && !done.events.is_empty() {
            core.events.push(Event { token: slot.token, ready: readiness(done.events) });
        }
    }

    #[inline]
    fn connection_input(&mut self, core: &mut Core, id: u32, seg: &Segment, packet: Packet) {
        let slot = &mut self.slots[id as usize];
        if slot.marks.contains(Marks::HALF_OPEN)
            && self.listeners.get(slot.listener).is_some_and(|l| l.is_accept_queue_full())
            && seg.flags & (Flags::ACK | Flags::RST | Flags::SYN) == Flags::ACK
        {
            // As in Linux: the client sends it again, and finds room then.
            return core.discard(packet, DropReason::TcpAcceptQueueFull);
        }
        let Some(conn) = &mut slot.conn else {
            return core.discard(packet, DropReason::TcpNoSocket);
        };
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
            let slot = &mut self.slots[id as usize];
            slot.marks.insert(Marks::READY);
            slot.listener = listener;
            if let Some(l) = self.listeners.get_mut(listener) {
                l.push_ready(id);
                core.events.push(Event { token: l.token, ready: Readiness::IN });
            }
        }
        let slot = &mut self.slots[id as usize];
        slot.marks.set(Marks::TIME_WAIT, events.contains(Events::TIME_WAIT));
        if events.contains(Events::CLOSED) {
            slot.marks.insert(Marks::CLOSED);
            self.leave_listener(id);
            self.leave_index(id);
        }
        self.touch(id);
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
        let entry = &mut self.waits.get_mut(id).entry;
        let mut action = entry.input(core.now, &core.config.tcp, seg);
        if let Action::Reopen { .. } = action
            && self.listeners.find(key.local(), key.remote()).is_none()
        {
            // Where nobody listens a SYN does not cut TIME-WAIT short (RFC 1337).
            action = entry.challenge(core.now, &core.config.tcp);
        }
        match action {
            Action::Reopen { above } => {
                self.end_waiting(id);
                return self.stranger_input(core, key, seg, packet, Some(above));
            }
            Action::Ack(reply) => {
                if seg.flags.contains(Flags::FIN) {
                    self.waits.begin_anew(id);
                }
                self.send_reply(core, key, &reply);
            }
            Action::Nothing => {}
        }
        packet.free(&mut core.pool);
    }

    /// Takes an entry out of TIME-WAIT.
    pub(super) fn end_waiting(&mut self, id: u32) {
        let (key, reuse) = (self.waits.get(id).key, self.waits.reuse_addr(id));
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
        packet.free(&mut core.pool);
        let kind = seg.flags & (Flags::SYN | Flags::FIN | Flags::RST | Flags::ACK);
        let bad = kind.is_empty()
            || kind.contains(Flags::SYN | Flags::FIN)
            || kind.contains(Flags::SYN | Flags::RST);
        if bad || seg.src_port == 0 || seg.dst_port == 0 {
            let malformed = seg.src_port == 0 || seg.dst_port == 0;
            let reason = if malformed { DropReason::TcpMalformed } else { DropReason::TcpBadFlags };
            return core.counters.drop(reason);
        }
        let listener = self.listeners.find(key.local(), key.remote());
        match listener {
            Some(listener) if kind == Flags::SYN => {
                if let Err(reason) = self.open_passive(core, listener, key, seg, above) {
                    core.counters.drop(reason);
                }
                return;
            }
            None => core.counters.drop(DropReason::TcpNoSocket),
            // RFC 9293, 3.10.7.2, fourth: neither SYN nor ACK.
            Some(_) if !kind.contains(Flags::ACK) => {
                return core.counters.drop(DropReason::TcpBadFlags);
            }
            Some(_) => {}
        }
        if let Some(reply) = reset_reply(seg) {
            core.counters.tcp_resets_out += 1;
            self.send_reply(core, key, &reply);
        }
    }

    /// A connection for a SYN, if all bounds allow it.
    fn open_passive(
        &mut self,
        core: &mut Core,
        listener: u32,
        key: &FlowKey,
        syn: &Segment,
        above: Option<u32>,
    ) -> Result<(), DropReason> {
        let l = self.listeners.get(listener).ok_or(DropReason::TcpNoSocket)?;
        if l.is_accept_queue_full() {
            return Err(DropReason::TcpAcceptQueueFull);
        }
        if l.is_syn_queue_full() {
            return Err(DropReason::TcpSynQueueFull);
        }
        if self.live >= core.config.table.max_connections {
            return Err(DropReason::TcpTableFull);
        }
        let (local, remote) = (key.local(), key.remote());
        let path = core.route(remote.ip()).map_err(|_| DropReason::NoRoute)?;
        let mut initial = self.isn.initial(core.now, local, remote);
        if let Some(above) = above {
            initial.iss = beyond(initial.iss, above);
        }
        let template = Template::new(self.link(core), local, remote, l.inherit.ttl, l.inherit.tos);
        let options = &l.inherit.options;
        let mut marks = Marks::HALF_OPEN;
        marks.set(Marks::LOOPED, path.is_local);
        marks.set(Marks::REUSE, l.inherit.reuse.addr);
        let mtu = core.path_mtu(&path, remote.ip());
        let conn = Connection::accept(
            &mut env(core, path.is_local),
            template,
            options,
            initial,
            mtu,
            syn,
        );
        let id = self.insert(conn, *key, NONE, marks);
        let place = self.listeners.get_mut(listener).map_or(0, |l| l.push_half_open(id));
        let slot = &mut self.slots[id as usize];
        (slot.listener, slot.place) = (listener, place);
        if !self.resolve(core, id, path.next_hop) {
            self.remove(core, id);
            return Err(DropReason::NeighborFailed);
        }
        Ok(())
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
    fn send_reply(&mut self, core: &mut Core, key: &FlowKey, reply: &Reply) {
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
        let done = conn.icmp_error(&mut env(core, looped), kind, seq);
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

/// The initial sequence number, moved beyond the last one of the connection
/// before (RFC 1122, 4.2.2.13).
fn beyond(iss: u32, above: u32) -> u32 {
    let ahead = iss.wrapping_sub(above);
    if ahead > 0 && ahead < 1 << 31 { iss } else { above.wrapping_add(65_537) }
}

#[cfg(test)]
mod tests {
    use super::beyond;

    #[test]
    fn a_reopened_connection_starts_beyond_the_old_one() {
        assert_eq!(beyond(1000, 999), 1000);
        assert_eq!(beyond(999, 1000), 66_537);
        assert_eq!(beyond(5, u32::MAX), 5);
        assert_eq!(beyond(u32::MAX, 5), 65_542);
    }
}
