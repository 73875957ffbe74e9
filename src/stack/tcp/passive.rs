//! Passive opens: what a SYN, and the ACK that ends a handshake, make of a
//! listener and its bounds.

use super::fast_open::Verdict;
use super::hash::FlowKey;
use super::{Marks, NONE, SynCookies, Table, env};
use crate::frame::Packet;
use crate::stack::core::{Core, Event};
use crate::stack::neighbor::Resolve;
use crate::stack::route::Path;
use crate::tcp::{Connection, Readiness, Template, isn, reset_reply};
use crate::telemetry::DropReason;
use crate::wire::tcp::{Cookie, Segment};

/// A SYN and what is known of it.
#[derive(Clone, Copy)]
pub(super) struct Syn<'a> {
    pub listener: u32,
    pub key: &'a FlowKey,
    pub seg: &'a Segment,
    /// The last sequence number of the connection before, if it was in TIME-WAIT.
    pub above: Option<u32>,
}

/// What a connection to a listener is made of.
struct Parts {
    template: Template,
    path: Path,
    mtu: usize,
    initial: isn::Initial,
    marks: Marks,
}

impl Table {
    /// A connection for a SYN, or a cookie, if all bounds allow it.
    pub(super) fn open_passive(
        &mut self,
        core: &mut Core,
        syn: &Syn,
        packet: Packet,
    ) -> Result<(), DropReason> {
        match self.admit(core, syn) {
            Ok(true) => {}
            cookie_or_not => {
                packet.free(&mut core.pool);
                cookie_or_not?;
                return self.send_cookie(core, syn);
            }
        }
        let (verdict, parts) = (self.fast_open_verdict(core, syn), self.parts(core, syn));
        match (verdict, parts) {
            (Verdict::Early(option), Ok(parts)) => self.open_early_passive(core, syn, parts, option, packet),
            (verdict, parts) => {
                // Data is not taken without a cookie; the peer sends it again.
                packet.free(&mut core.pool);
                let give = if let Verdict::Give(cookie) = verdict { Some(cookie) } else { None };
                self.open_half(core, syn, parts?, give)
            }
        }
    }

    /// True where there is room for a connection, false where a cookie is to be
    /// sent instead.
    fn admit(&self, core: &Core, syn: &Syn) -> Result<bool, DropReason> {
        let l = self.listeners.get(syn.listener).ok_or(DropReason::TcpNoSocket)?;
        if l.is_accept_queue_full() {
            return Err(DropReason::TcpAcceptQueueFull);
        }
        let full = l.is_syn_queue_full();
        // A number that has to come after another's cannot be a cookie.
        let cookie = syn.above.is_none()
            && match core.config.table.syn_cookies {
                SynCookies::Off => false,
                SynCookies::Auto => full,
                SynCookies::Always => true,
            };
        if cookie {
            return Ok(false);
        }
        if full {
            return Err(DropReason::TcpSynQueueFull);
        }
        if self.live >= core.config.table.max_connections {
            return Err(DropReason::TcpTableFull);
        }
        Ok(true)
    }

    /// True where a listener would take a connection of this flow into its queue.
    pub(super) fn would_take(&self, key: &FlowKey) -> bool {
        let listener = self.listeners.find(key.local(), key.remote());
        let l = listener.and_then(|l| self.listeners.get(l));
        l.is_some_and(|l| !l.is_accept_queue_full() && !l.is_syn_queue_full())
    }

    fn parts(&self, core: &mut Core, syn: &Syn) -> Result<Parts, DropReason> {
        let l = self.listeners.get(syn.listener).ok_or(DropReason::TcpNoSocket)?;
        let (local, remote) = (syn.key.local(), syn.key.remote());
        let path = core.route(remote.ip()).map_err(|_| DropReason::NoRoute)?;
        let mut initial = self.isn.initial(core.now, local, remote);
        if let Some(above) = syn.above {
            initial.iss = beyond(initial.iss, above);
        }
        let (ttl, tos) = (l.inherit.ttl, l.inherit.tos);
        let template = Template::new(self.link(core), local, remote, ttl, tos);
        let mut marks = Marks::empty();
        marks.set(Marks::LOOPED, path.is_local);
        marks.set_reuse(l.inherit.reuse);
        let mtu = core.path_mtu(&path, remote.ip());
        Ok(Parts { template, path, mtu, initial, marks })
    }

    /// SYN-RECEIVED, in the listener's SYN queue.
    fn open_half(
        &mut self,
        core: &mut Core,
        syn: &Syn,
        p: Parts,
        give: Option<Cookie>,
    ) -> Result<(), DropReason> {
        let id = self.reserve(syn.key);
        let Some(l) = self.listeners.get(syn.listener) else {
            self.free.push(id);
            return Err(DropReason::TcpNoSocket);
        };
        let conn = Connection::accept_in(
            &mut self.slots[id as usize].conn,
            &mut env(core, p.path.is_local),
            p.template,
            &l.inherit.options,
            p.initial,
            p.mtu,
            syn.seg,
        );
        if let Some(cookie) = give {
            conn.give_cookie(cookie);
        }
        self.enter(id, *syn.key, NONE, p.marks | Marks::HALF_OPEN);
        let place = self.listeners.get_mut(syn.listener).map_or(0, |l| l.push_half_open(id));
        let slot = &mut self.slots[id as usize];
        (slot.listener, slot.place) = (syn.listener, place);
        if !self.resolve(core, id, p.path.next_hop) {
            self.remove(core, id);
            return Err(DropReason::NeighborFailed);
        }
        Ok(())
    }

    /// SYN-RECEIVED, and in the accept queue already: its cookie was right.
    fn open_early_passive(
        &mut self,
        core: &mut Core,
        syn: &Syn,
        p: Parts,
        option: Option<Cookie>,
        packet: Packet,
    ) -> Result<(), DropReason> {
        let Some(l) = self.listeners.get_mut(syn.listener) else {
            packet.free(&mut core.pool);
            return Err(DropReason::TcpNoSocket);
        };
        l.early.begin();
        let payload = if syn.seg.payload_len > 0 {
            Some(packet)
        } else {
            packet.free(&mut core.pool);
            None
        };
        let conn = Connection::accept_early(
            &mut env(core, p.path.is_local),
            p.template,
            &l.inherit.options,
            p.initial,
            p.mtu,
            syn.seg,
            payload,
            option,
            (syn.listener, l.serial),
        );
        let id = self.insert(conn, *syn.key, NONE, p.marks);
        if !self.resolve(core, id, p.path.next_hop) {
            self.remove(core, id);
            return Err(DropReason::NeighborFailed);
        }
        core.counters.tcp_fast_open_passive += 1;
        self.push_ready(core, id, syn.listener);
        Ok(())
    }

    /// Answers a SYN without keeping anything. Where the next hop is not known
    /// the answer is lost; the peer will ask again.
    #[cold]
    fn send_cookie(&mut self, core: &mut Core, syn: &Syn) -> Result<(), DropReason> {
        let mut p = self.parts(core, syn)?;
        match core.resolve(p.path.next_hop, super::input::NOBODY) {
            Resolve::Ready(mac) => p.template.set_dst_mac(mac),
            _ => return Err(DropReason::NeighborFailed),
        }
        let Core { now, rng, .. } = core;
        let mss = syn.seg.options.mss.unwrap_or(536);
        p.initial.iss = self.cookies.make(*now, rng, syn.key, syn.seg.seq, mss);
        let l = self.listeners.get_mut(syn.listener).ok_or(DropReason::TcpNoSocket)?;
        l.note_cookie(*now);
        let mut env = env(core, p.path.is_local);
        let options = &l.inherit.options;
        if Connection::send_cookie(&mut env, p.template, options, p.initial, p.mtu, syn.seg) {
            core.counters.tcp_cookies_sent += 1;
        }
        Ok(())
    }

    /// An ACK of no connection, for a listener: perhaps of a cookie. Gives the
    /// packet back if it is not.
    #[cold]
    pub(super) fn cookie_input(&mut self, core: &mut Core, syn: &Syn, packet: Packet) -> Option<Packet> {
        let Core { now, rng, .. } = core;
        let l = self.listeners.get(syn.listener)?;
        if !l.expects_cookie(*now) {
            return Some(packet);
        }
        let (irs, cookie) = (syn.seg.seq.wrapping_sub(1), syn.seg.ack.wrapping_sub(1));
        let Some(mss) = self.cookies.check(*now, rng, syn.key, irs, cookie) else {
            core.counters.tcp_cookies_refused += 1;
            return Some(packet);
        };
        let full = if l.is_accept_queue_full() {
            Some(DropReason::TcpAcceptQueueFull)
        } else {
            let full = self.live >= core.config.table.max_connections;
            full.then_some(DropReason::TcpTableFull)
        };
        if let Some(reason) = full {
            core.discard(packet, reason);
            if core.config.table.abort_on_overflow {
                self.refuse(core, syn.key, syn.seg);
            }
            return None;
        }
        match self.open_cookie(core, syn, mss) {
            Ok(id) => self.connection_input(core, id, syn.seg, packet),
            Err(reason) => core.discard(packet, reason),
        }
        None
    }

    fn open_cookie(&mut self, core: &mut Core, syn: &Syn, mss: u16) -> Result<u32, DropReason> {
        let mut p = self.parts(core, syn)?;
        p.initial.iss = syn.seg.ack.wrapping_sub(1);
        let l = self.listeners.get(syn.listener).ok_or(DropReason::TcpNoSocket)?;
        let conn = Connection::from_cookie(
            &mut env(core, p.path.is_local),
            p.template,
            &l.inherit.options,
            p.initial,
            p.mtu,
            syn.seg,
            mss,
        );
        let id = self.insert(conn, *syn.key, NONE, p.marks);
        if !self.resolve(core, id, p.path.next_hop) {
            self.remove(core, id);
            return Err(DropReason::NeighborFailed);
        }
        core.counters.tcp_cookies_taken += 1;
        self.push_ready(core, id, syn.listener);
        Ok(id)
    }

    /// A connection waits for `accept` from now on.
    pub(super) fn push_ready(&mut self, core: &mut Core, id: u32, listener: u32) {
        let slot = &mut self.slots[id as usize];
        slot.marks.insert(Marks::READY);
        slot.listener = listener;
        if let Some(l) = self.listeners.get_mut(listener) {
            l.push_ready(id);
            core.events.push(Event { token: l.token, ready: Readiness::IN });
        }
    }

    /// The last ACK of a handshake finds the accept queue full. As in Linux it is
    /// not heard, and the client finds room when it comes again; or it is reset.
    #[cold]
    pub(super) fn overflow(&mut self, core: &mut Core, id: u32, seg: &Segment, packet: Packet) {
        core.discard(packet, DropReason::TcpAcceptQueueFull);
        if core.config.table.abort_on_overflow {
            let key = self.slots[id as usize].key;
            self.remove(core, id);
            self.refuse(core, &key, seg);
        }
    }

    /// Answers a segment with an RST, unless it is one.
    pub(super) fn refuse(&mut self, core: &mut Core, key: &FlowKey, seg: &Segment) {
        if let Some(reply) = reset_reply(seg) {
            core.counters.tcp_resets_out += 1;
            self.send_reply(core, key, &reply);
        }
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
