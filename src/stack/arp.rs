//! ARP (RFC 826) and the care of our address (RFC 5227).

use super::config::Mode;
use super::neighbor::{ANNOUNCE_INTERVAL, DEFEND_INTERVAL, State};
use super::Core;
use crate::frame::Packet;
use crate::telemetry::DropReason;
use crate::wire::arp::{self, REPLY, REQUEST};
use crate::wire::ethernet::{self, Mac};
use core::net::{IpAddr, Ipv4Addr};
use zerocopy::IntoBytes;

impl Core {
    /// An ARP packet; its range begins behind the Ethernet header.
    #[cold]
    pub(super) fn arp_input(&mut self, packet: Packet) {
        let parsed = arp::parse(self.pool.bytes(&packet.head)).copied();
        packet.free(&mut self.pool);
        let result = match parsed {
            // On a shared address ARP is the kernel's.
            Some(_) if self.config.mode == Mode::Shared => Err(DropReason::ArpIgnored),
            Some(p) => self.arp_packet(&p),
            None => Err(DropReason::ArpMalformed),
        };
        if let Err(reason) = result {
            self.counters.drop(reason);
        }
    }

    fn arp_packet(&mut self, p: &arp::Packet) -> Result<(), DropReason> {
        let (sender, target) = (p.spa(), p.tpa());
        let sane = matches!(p.op.get(), REQUEST | REPLY)
            && !p.sha.is_multicast()
            && p.sha != Mac::default()
            && !sender.is_multicast()
            && !sender.is_broadcast()
            && !sender.is_loopback();
        if !sane {
            return Err(DropReason::ArpMalformed);
        }
        if p.sha == self.interface.mac {
            return Err(DropReason::ArpIgnored);
        }
        if self.interface.is_own(IpAddr::V4(sender)) {
            self.defend(sender);
            return Err(DropReason::ArpConflict);
        }
        let for_us = self.interface.is_own(IpAddr::V4(target));
        let learned = !sender.is_unspecified() && self.learn(sender, p.sha, for_us);
        match (p.op.get(), for_us) {
            (REQUEST, true) => self.send_arp(REPLY, target, p.sha, sender, p.sha),
            (_, true) => Ok(()),
            _ if learned => Ok(()),
            _ => Err(DropReason::ArpIgnored),
        }
    }

    /// RFC 826: an address that we know is corrected; one that we do not know is
    /// noted only when the packet is for us, as its sender will be talked to. An
    /// entry that just changed is not changed again, so that two who claim one
    /// address do not make it flap. True where the table has it now.
    fn learn(&mut self, ip: Ipv4Addr, mac: Mac, for_us: bool) -> bool {
        let (now, lock) = (self.now, self.config.neighbor.lock);
        let ip = IpAddr::V4(ip);
        // Nobody off our subnets is a next hop by ARP.
        if self.interface.subnet_of(ip).is_none() {
            return false;
        }
        let known = self.neighbors.find(ip);
        if let Some(slot) = known {
            let entry = self.neighbors.entry(slot);
            let locked = entry.state != State::Incomplete
                && entry.mac != mac
                && now.since(entry.changed) < lock;
            if locked {
                return false;
            }
        }
        if known.is_none() && !for_us {
            return false;
        }
        self.neighbor_found(ip, mac, State::Reachable);
        true
    }

    /// RFC 5227, 2.4 (b): one announcement, not more than once in ten seconds.
    fn defend(&mut self, own: Ipv4Addr) {
        let due = self.neighbors.defended.is_none_or(|at| self.now.since(at) >= DEFEND_INTERVAL);
        if due {
            self.neighbors.defended = Some(self.now);
            let _ = self.send_arp(REQUEST, own, Mac::default(), own, Mac::BROADCAST);
        }
    }

    /// Asks who has `ip`: everybody, or (to confirm it) the one who had it.
    pub(super) fn send_arp_request(&mut self, ip: Ipv4Addr, to: Mac) {
        let subnet = self.interface.subnet_of(IpAddr::V4(ip)).map(|(a, _)| a);
        let source = subnet.or_else(|| self.interface.primary(false));
        let Some(IpAddr::V4(source)) = source else { return };
        if let Err(reason) = self.send_arp(REQUEST, source, Mac::default(), ip, to) {
            self.counters.drop(reason);
        }
    }

    /// Says who we are (RFC 5227, 2.3), as often as is still to be done.
    pub(super) fn announce(&mut self) {
        let (left, at) = self.neighbors.announce;
        if left == 0 || self.now < at {
            return;
        }
        self.neighbors.announce = (left - 1, self.now + ANNOUNCE_INTERVAL);
        for i in 0..self.interface.addresses.len() {
            if let (IpAddr::V4(own), _) = self.interface.addresses[i] {
                let _ = self.send_arp(REQUEST, own, Mac::default(), own, Mac::BROADCAST);
            }
        }
    }

    fn send_arp(
        &mut self,
        op: u16,
        spa: Ipv4Addr,
        tha: Mac,
        tpa: Ipv4Addr,
        to: Mac,
    ) -> Result<(), DropReason> {
        if !self.neighbors.rate.take(self.now) {
            return Err(DropReason::ArpRateLimited);
        }
        let mut frame = self.pool.alloc().ok_or(DropReason::PoolExhausted)?;
        let mac = self.interface.mac;
        let buffer = self.pool.buffer_mut(&mut frame);
        let len = ethernet::HEADER_LEN + arp::LEN;
        buffer[..6].copy_from_slice(&to.0);
        buffer[6..12].copy_from_slice(&mac.0);
        buffer[12..14].copy_from_slice(&ethernet::ARP.to_be_bytes());
        let packet = arp::Packet::new(op, mac, spa, tha, tpa);
        buffer[ethernet::HEADER_LEN..len].copy_from_slice(packet.as_bytes());
        self.transmit(frame, len);
        Ok(())
    }
}
