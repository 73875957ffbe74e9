//! The network: a switch with impaired links between its ports, and gateways
//! that lead from port to port with a smaller packet size.

use ringroad::device::memory::{Impairments, Link, LinkCounts};
use ringroad::device::{Capabilities, Device};
use ringroad::frame::{Batch, Packet, Pool, TxDesc, TxQueue};
use ringroad::time::{Duration, Instant};
use crate::draw::Draw;
use crate::gateway::{self, Gateway, Verdict};
use crate::seen::{Seen, Watch};
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::net::Ipv4Addr;
use std::rc::Rc;

/// How the network is made.
#[derive(Clone, Debug)]
pub struct NetConfig {
    /// Frames are IP packets without a link header.
    pub raw_ip: bool,
    /// Bytes in a packet, at most.
    pub max_len: usize,
    /// Time from a transmission to its completion, at each port.
    pub completion_delay: Duration,
    /// Transmissions that may be pending at a port (its TX ring).
    pub tx_ring: usize,
    /// Packets that may wait for a port, from each other one (its RX ring).
    pub rx_ring: usize,
    /// Frames that a device keeps to receive into.
    pub fill: usize,
    /// Bytes left free in front of a received packet.
    pub headroom: usize,
    /// Packets that are copied for the report.
    pub capture: usize,
}

/// What a port does to what its host sends, beyond the links' impairments.
#[derive(Clone, Debug, Default)]
pub struct Shape {
    /// Times of total loss: mean time between them, and longest duration.
    pub bursts: Option<(Duration, Duration)>,
    /// Probability that a packet of an ECN-capable transport is marked.
    pub mark: f64,
}

struct Port {
    shape: Shape,
    draw: Draw,
    /// The present or next burst: from, to.
    burst: (Instant, Instant),
    /// Larger packets are not sent: the interface's MTU.
    max_len: usize,
    completion: Option<Instant>,
}

/// A packet as it was sent.
#[derive(Clone, Debug)]
pub struct Captured {
    pub at: Instant,
    pub from: usize,
    pub bytes: Vec<u8>,
}

struct Inner {
    config: NetConfig,
    now: Instant,
    ports: Vec<Port>,
    /// From each port to each, by `from * ports + to`; to itself: what gateways say.
    links: Vec<Link>,
    /// Nothing passes from one port to another.
    blocked: Vec<bool>,
    /// Where senders' addresses were seen last.
    known: BTreeMap<[u8; 6], usize>,
    gateways: Vec<Gateway>,
    capture: VecDeque<Captured>,
    /// Of every packet sent, with its time and sender.
    digest: u64,
    sent: u64,
    /// Lost in bursts, behind cuts, or for their size.
    lost: u64,
    marked: u64,
    watch: Watch,
}

/// The network. Clones are the same one.
#[derive(Clone)]
pub struct Net(Rc<RefCell<Inner>>);

fn mix(hash: u64, word: u64) -> u64 {
    (hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29)
}

/// A fingerprint of bytes.
fn print(seed: u64, bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let hash = words.iter().fold(mix(seed, bytes.len() as u64), |h, w| mix(h, u64::from_le_bytes(*w)));
    rest.iter().fold(hash, |h, b| mix(h, u64::from(*b)))
}

impl Net {
    pub fn new(config: NetConfig, links: &[Impairments], shapes: &[Shape], seed: u64) -> Self {
        let n = links.len();
        let link = |i: usize| {
            Link::new(links[i / n].clone(), seed ^ (i as u64 + 1) << 40, config.rx_ring, 65_535)
        };
        let port = |i: usize| Port {
            shape: shapes[i].clone(),
            draw: Draw::new(seed ^ (i as u64 + 1) << 32),
            burst: (Instant::ZERO, Instant::ZERO),
            max_len: config.max_len,
            completion: None,
        };
        Self(Rc::new(RefCell::new(Inner {
            now: Instant::ZERO,
            ports: (0..n).map(port).collect(),
            links: (0..n * n).map(link).collect(),
            blocked: vec![false; n * n],
            known: BTreeMap::new(),
            gateways: Vec::new(),
            capture: VecDeque::new(),
            digest: seed,
            sent: 0,
            lost: 0,
            marked: 0,
            watch: Watch::default(),
            config,
        })))
    }

    /// A device at this port; the one before it there must be gone.
    pub fn device(&self, port: usize, mac: [u8; 6], mtu: usize) -> NetDevice {
        let config = self.0.borrow().config.clone();
        self.0.borrow_mut().ports[port].completion = None;
        NetDevice {
            capabilities: Capabilities { mtu, mac, partial_checksums: false },
            net: self.clone(),
            port,
            config,
            fill: VecDeque::new(),
            pending: VecDeque::new(),
            begun: Vec::new(),
        }
    }

    pub fn add_gateway(&self, gateway: Gateway) {
        self.0.borrow_mut().gateways.push(gateway);
    }

    /// Changes a gateway's packet size, and whether it says so to senders.
    pub fn set_gateway(&self, number: usize, mtu: usize, silent: bool) {
        let gateway = &mut self.0.borrow_mut().gateways[number];
        (gateway.mtu, gateway.silent) = (mtu, silent);
    }

    /// Tells the gateways who has an address.
    pub fn own(&self, ip: Ipv4Addr, port: usize, mac: [u8; 6]) {
        for gateway in &mut self.0.borrow_mut().gateways {
            gateway.owners.insert(ip, (port, mac));
        }
    }

    pub fn set_max_len(&self, port: usize, max_len: usize) {
        self.0.borrow_mut().ports[port].max_len = max_len;
    }

    /// Cuts or mends what leads from one port to another.
    pub fn block(&self, from: usize, to: usize, on: bool) {
        let inner = &mut *self.0.borrow_mut();
        let n = inner.ports.len();
        inner.blocked[from * n + to] = on;
    }

    /// Sets the time.
    pub fn advance(&self, now: Instant) {
        let inner = &mut *self.0.borrow_mut();
        inner.now = now;
        inner.links.iter_mut().for_each(|l| l.bound(now));
    }

    /// When something arrives at this port or a transmission of its completes.
    pub fn next_event(&self, port: usize) -> Option<Instant> {
        let inner = self.0.borrow();
        let n = inner.ports.len();
        let arrivals = (0..n).filter_map(|from| inner.links[from * n + port].next_arrival());
        arrivals.chain(inner.ports[port].completion).min()
    }

    /// Throws away what arrived at a port whose host is down.
    pub fn discard(&self, port: usize) {
        let inner = &mut *self.0.borrow_mut();
        let (n, now) = (inner.ports.len(), inner.now);
        inner.ports[port].completion = None;
        for from in 0..n {
            let link = &mut inner.links[from * n + port];
            while link.peek(now).is_some() {
                link.pop().into_iter().for_each(|bytes| link.recycle(bytes));
            }
        }
    }

    pub fn digest(&self) -> u64 {
        self.0.borrow().digest
    }

    pub fn sent(&self) -> u64 {
        self.0.borrow().sent
    }

    /// Packets that links delivered or lost, those that no link saw (lost in
    /// bursts or cuts, or too large), and those marked.
    pub fn counts(&self) -> (LinkCounts, u64, u64) {
        let inner = self.0.borrow();
        let mut all = LinkCounts::default();
        for c in inner.links.iter().map(|l| l.counts) {
            all.sent += c.sent;
            all.delivered += c.delivered;
            all.lost += c.lost;
            all.duplicated += c.duplicated;
            all.queue_full += c.queue_full;
            all.ring_full += c.ring_full;
            all.too_large += c.too_large;
        }
        (all, inner.lost, inner.marked)
    }

    /// What was seen on the wire.
    pub fn seen(&self) -> Seen {
        self.0.borrow().watch.seen
    }

    /// Packets under way.
    pub fn in_flight(&self) -> usize {
        self.0.borrow().links.iter().map(Link::in_flight).sum()
    }

    pub fn captured(&self) -> Vec<Captured> {
        self.0.borrow().capture.iter().cloned().collect()
    }
}

impl Inner {
    fn send(&mut self, from: usize, bytes: &mut [u8]) {
        self.sent += 1;
        self.digest = print(mix(self.digest, self.now.as_nanos() ^ (from as u64) << 56), bytes);
        self.keep(from, bytes);
        self.watch.look(bytes.get(if self.config.raw_ip { 0 } else { 14 }..).unwrap_or_default());
        if bytes.len() > self.ports[from].max_len || self.in_burst(from) {
            self.lost += 1;
            return;
        }
        let mark = self.ports[from].shape.mark;
        if mark > 0.0 && (self.ports[from].draw.below(1 << 20) as f64) < mark * f64::from(1 << 20) {
            self.marked += u64::from(gateway::mark(bytes, self.config.raw_ip));
        }
        self.switch(from, bytes);
    }

    fn keep(&mut self, from: usize, bytes: &[u8]) {
        let mut copy = match self.capture.len() >= self.config.capture {
            true => self.capture.pop_front().map(|c| c.bytes).unwrap_or_default(),
            false => Vec::new(),
        };
        copy.clear();
        copy.extend_from_slice(bytes);
        self.capture.push_back(Captured { at: self.now, from, bytes: copy });
    }

    fn in_burst(&mut self, from: usize) -> bool {
        let port = &mut self.ports[from];
        let Some((between, longest)) = port.shape.bursts else { return false };
        while port.burst.1 <= self.now {
            let gap = Duration::from_nanos(port.draw.below(2 * between.as_nanos()));
            let len = Duration::from_nanos(port.draw.below(longest.as_nanos()));
            let start = port.burst.1 + gap;
            port.burst = (start, start + len + Duration::from_nanos(1));
        }
        port.burst.0 <= self.now
    }

    fn switch(&mut self, from: usize, bytes: &mut [u8]) {
        let (to, sender) = match addresses(bytes, self.config.raw_ip) {
            Some(found) => found,
            None => return self.lost += 1,
        };
        self.known.insert(sender, from);
        if !self.config.raw_ip {
            for i in 0..self.gateways.len() {
                match self.gateways[i].take(from, bytes) {
                    Verdict::NotMine => {}
                    Verdict::Lost => return self.lost += 1,
                    Verdict::Forward(port) => return self.pass(from, port, bytes),
                    Verdict::Answer(answer) => {
                        self.pass(from, from, &answer);
                        return;
                    }
                }
            }
        }
        match self.known.get(&to) {
            Some(&port) if port != from => self.pass(from, port, bytes),
            Some(_) => self.lost += 1,
            None => (0..self.ports.len()).filter(|p| *p != from).for_each(|to| self.pass(from, to, bytes)),
        }
    }

    fn pass(&mut self, from: usize, to: usize, bytes: &[u8]) {
        let at = from * self.ports.len() + to;
        if self.blocked[at] {
            self.lost += 1;
            return;
        }
        let link = &mut self.links[at];
        let mut copy = link.buffer();
        copy.extend_from_slice(bytes);
        link.send(self.now, copy);
    }
}

/// Whom a packet is for and from whom it is, as the switch knows them.
fn addresses(bytes: &[u8], raw_ip: bool) -> Option<([u8; 6], [u8; 6])> {
    if !raw_ip {
        return Some((*bytes.first_chunk()?, *bytes.get(6..)?.first_chunk()?));
    }
    let ip = |at: usize| {
        let four = bytes.get(at..at + 4)?;
        Some([four[0], four[1], four[2], four[3], 0, 0])
    };
    Some((ip(16)?, ip(12)?))
}

struct Pending {
    desc: TxDesc,
    due: Instant,
    print: u64,
}

/// A port's device.
pub struct NetDevice {
    capabilities: Capabilities,
    net: Net,
    port: usize,
    config: NetConfig,
    fill: VecDeque<u32>,
    pending: VecDeque<Pending>,
    /// The part of a packet of several frames that fitted into the ring.
    begun: Vec<u8>,
}

impl NetDevice {
    /// True where its ring takes no more.
    pub fn is_full(&self) -> bool {
        self.pending.len() >= self.config.tx_ring
    }
}

impl Device for NetDevice {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn receive(&mut self, pool: &mut Pool, batch: &mut Batch) {
        let inner = &mut *self.net.0.borrow_mut();
        let (n, now) = (inner.ports.len(), inner.now);
        while !batch.is_full() {
            let arrival = |from: usize| Some((inner.links[from * n + self.port].next_arrival()?, from));
            let Some((at, from)) = (0..n).filter_map(arrival).min() else { break };
            if at > now {
                break;
            }
            let link = &mut inner.links[from * n + self.port];
            let (headroom, len) = (self.config.headroom, link.peek(now).map_or(0, <[u8]>::len));
            let room = pool.arena().capacity() - headroom;
            if self.fill.len() < len.div_ceil(room).max(1) {
                break;
            }
            let bytes = link.pop().expect("something arrives");
            let parts = if bytes.is_empty() { vec![&bytes[..]] } else { bytes.chunks(room).collect() };
            let mut frames = parts.into_iter().map(|part| {
                let index = self.fill.pop_front().expect("counted above");
                let mut frame = pool.filled(index, headroom, part.len()).expect("a frame of the fill ring");
                pool.bytes_mut(&mut frame).copy_from_slice(part);
                frame
            });
            let mut packet = Packet::single(frames.next().expect("at least one"));
            let rest: Vec<_> = frames.collect();
            packet.rest = (!rest.is_empty()).then(|| Box::new(rest));
            link.recycle(bytes);
            batch.push(packet);
        }
    }

    fn transmit(&mut self, pool: &mut Pool, queue: &mut TxQueue) {
        let inner = &mut *self.net.0.borrow_mut();
        let due = inner.now + self.config.completion_delay;
        let mut bytes = core::mem::take(&mut self.begun);
        while !self.is_full()
            && let Some(desc) = queue.pop()
        {
            let part = pool.tx_bytes(&desc);
            bytes.extend_from_slice(part);
            let delayed = self.config.completion_delay > Duration::ZERO;
            let print = if delayed { print(0, part) } else { 0 };
            if !desc.more {
                inner.send(self.port, &mut bytes);
                bytes.clear();
            }
            self.pending.push_back(Pending { desc, due, print });
        }
        self.begun = bytes;
        inner.ports[self.port].completion = self.pending.front().map(|p| p.due);
    }

    fn reap(&mut self, pool: &mut Pool) {
        let inner = &mut *self.net.0.borrow_mut();
        let delayed = self.config.completion_delay > Duration::ZERO;
        while let Some(pending) = self.pending.pop_front_if(|p| p.due <= inner.now) {
            let same = !delayed || print(0, pool.tx_bytes(&pending.desc)) == pending.print;
            assert!(same, "a frame was rewritten while its transmission was pending");
            pool.complete(pending.desc.index());
        }
        inner.ports[self.port].completion = self.pending.front().map(|p| p.due);
    }

    fn refill(&mut self, pool: &mut Pool) {
        while self.fill.len() < self.config.fill {
            let taken = pool.take_for_fill::<64>(self.config.fill - self.fill.len());
            if taken.is_empty() {
                return;
            }
            self.fill.extend(taken);
        }
    }
}
