//! What happens in a run, drawn from its seed.

use crate::draw::Draw;
use crate::features::{Class, Features, Has};
use crate::host_plan::{self, HostPlan};
use crate::net::{NetConfig, Shape};
use crate::side_plan::{self, SidePlan};
use ringroad::device::memory::Impairments;
use ringroad::time::{Duration, Instant};
use std::net::Ipv4Addr;

/// A connection.
#[derive(Clone, Debug)]
pub struct ConnPlan {
    pub id: u16,
    /// It begins only if this one is over by then.
    pub after: Option<u16>,
    pub start: Instant,
    /// Which host connects, to which, and to which of its listeners.
    pub client: usize,
    pub server: usize,
    pub listener: usize,
    /// The client's port, where it chooses one.
    pub bind: Option<u16>,
    /// What the client does, and what the server does.
    pub sides: [SidePlan; 2],
}

/// A datagram.
#[derive(Clone, Debug)]
pub struct DatagramPlan {
    pub at: Instant,
    pub from: usize,
    pub to: usize,
    pub len: usize,
}

/// Something that happens to the network or a host.
#[derive(Clone, Debug, PartialEq)]
pub enum What {
    /// Nothing passes between the hosts in this set and the others.
    Part(u64),
    /// Nothing passes at all.
    Cut,
    /// Everything passes again.
    Mend,
    /// A host stops where it is, and begins again with another seed.
    Restart(usize),
    /// A host that is down until then begins again.
    Begin(usize),
    CloseListener(usize, usize),
    OpenListener(usize, usize),
    /// The host has its address no more, or has it again.
    Address(usize, bool),
    Mtu(usize, usize),
    /// The host reaches another by a gateway, or again directly.
    Route(usize, usize, Option<usize>),
    /// A gateway's packet size changes, and whether it tells.
    Gateway(usize, usize, bool),
}

#[derive(Clone, Debug)]
pub struct Happening {
    pub at: Instant,
    pub what: What,
}

/// A whole run.
#[derive(Clone, Debug)]
pub struct Scenario {
    pub class: Class,
    pub features: Features,
    pub net: NetConfig,
    /// Time from one turn of a worker to its next.
    pub turn: Duration,
    /// What happens to what each host sends.
    pub impairments: Vec<Impairments>,
    pub shapes: Vec<Shape>,
    pub hosts: Vec<HostPlan>,
    pub gateways: Vec<(usize, bool)>,
    pub connections: Vec<ConnPlan>,
    pub datagrams: Vec<DatagramPlan>,
    pub happenings: Vec<Happening>,
}

pub fn address(host: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, 1 + host as u8)
}

pub fn mac(host: usize) -> [u8; 6] {
    [2, 0, 0, 0, 0, 0x0a + host as u8]
}

fn time(d: &mut Draw, from: u64, most: u64) -> Instant {
    Instant::ZERO + Duration::from_millis(from) + d.millis(most)
}

impl Scenario {
    pub fn new(class: Class, seed: u64) -> Self {
        let mut d = Draw::new(seed.wrapping_mul(31) ^ (class as u64) << 40);
        let features = Features::draw(class, &mut d);
        let has = features.has;
        let hosts = if has.contains(Has::HOSTS) { d.between(3, 8) as usize } else { 2 };
        let mtu = d.pick(&[1500, 1500, 1500, 1280, 576]);
        // By a draw of its own: frames hold 2,048 bytes, so these packets are of several.
        let mut jumbo = Draw::new(seed ^ 0x9000 << 48);
        let mtu = if jumbo.one_in(5) { jumbo.pick(&[9000, 9000, 3498]) } else { mtu };
        let frames = if has.contains(Has::FEW_FRAMES) { d.between(160, 400) as u32 } else { 2048 };
        let frames = if has.contains(Has::BIG) { 8192 } else { frames };
        let net = network(&features, mtu, frames, &mut d);
        let turn = if has.contains(Has::LATE_WORKER) { d.pick(&[200, 1000, 3000]) } else { d.pick(&[20, 20, 5]) };
        let count = match has {
            _ if has.contains(Has::MANY) => d.between(30, 120),
            _ if has.contains(Has::FEW_FRAMES) => d.between(1, 4),
            _ if has.contains(Has::BIG) => d.between(1, 2),
            _ => d.between(1, 8),
        };
        let budget = &mut budget(class, &features, &mut d);
        let mut connections: Vec<ConnPlan> =
            (0..count).map(|n| connection(&features, n as u16, hosts, budget, &mut d)).collect();
        if class == Class::Big && seed % 10 == 7 {
            hundred_megabytes(&mut connections[0]);
        }
        if has.contains(Has::REUSE) {
            reuse(&features, &mut connections, &mut d);
        }
        connections.sort_by_key(|c| c.start);
        let datagrams = if has.contains(Has::DATAGRAMS) { d.below(30) } else { 0 };
        let mut datagrams: Vec<_> = (0..datagrams).map(|_| datagram(hosts, &mut d)).collect();
        datagrams.sort_by_key(|d| d.at);
        let mut scenario = Self {
            class,
            features,
            net,
            turn: Duration::from_micros(turn),
            impairments: (0..hosts).map(|_| impairments(&features, &mut d)).collect(),
            shapes: (0..hosts).map(|_| shape(&features, &mut d)).collect(),
            hosts: (0..hosts).map(|n| host_plan::draw(n, &features, mtu, frames, &mut d)).collect(),
            gateways: Vec::new(),
            connections,
            datagrams,
            happenings: Vec::new(),
        };
        scenario.draw_happenings(&mut d);
        scenario
    }

    fn draw_happenings(&mut self, d: &mut Draw) {
        let has = self.features.has;
        if has.contains(Has::CUT) {
            let what = if d.one_in(2) { What::Cut } else { What::Part(d.below(1 << self.hosts.len())) };
            let at = time(d, 0, 1500);
            self.happen(at, what);
            let end = at + d.millis(20_000);
            self.happen(end, What::Mend);
        }
        if has.contains(Has::CUT_FOR_EVER) {
            let at = time(d, 0, 500);
            self.happen(at, What::Cut);
        }
        for _ in 0..d.between(1, 3) {
            self.upheaval(d);
        }
        if has.contains(Has::GATEWAYS) {
            self.routes(d);
        }
        self.happenings.sort_by_key(|h| h.at);
    }

    fn happen(&mut self, at: Instant, what: What) {
        self.happenings.push(Happening { at, what });
    }

    /// One each of the features that change a host.
    fn upheaval(&mut self, d: &mut Draw) {
        let has = self.features.has;
        let host = d.below(self.hosts.len() as u64) as usize;
        let at = time(d, 0, 3000);
        let later = at + d.millis(10_000);
        if has.contains(Has::RESTARTS) {
            self.happen(at, What::Restart(host));
            let back = if d.one_in(2) { at + Duration::from_millis(1) } else { later };
            self.happen(back, What::Begin(host));
        }
        if has.contains(Has::REOPENED) {
            let listener = d.below(self.hosts[host].listeners.len() as u64) as usize;
            self.happen(at, What::CloseListener(host, listener));
            self.happen(later, What::OpenListener(host, listener));
        }
        if has.contains(Has::ADDRESSES) {
            self.happen(at, What::Address(host, false));
            self.happen(later, What::Address(host, true));
        }
        if has.contains(Has::MTU) {
            let mtu = self.hosts[host].config.mtu;
            let small = d.between(400, mtu as u64) as usize;
            self.happen(at, What::Mtu(host, small));
            self.happen(later, What::Mtu(host, mtu));
        }
    }

    /// Two gateways, and routes that go over one, the other, or neither.
    fn routes(&mut self, d: &mut Draw) {
        let mtu = self.hosts[0].config.mtu as u64;
        for _ in 0..2 {
            let mtu = if d.one_in(2) { mtu } else { d.between(552.min(mtu), mtu) };
            self.gateways.push((mtu as usize, false));
        }
        for _ in 0..d.between(1, 8) {
            let (at, number) = (time(d, 0, 2500), d.below(2) as usize);
            if d.one_in(4) {
                let mtu = d.between(552.min(mtu), mtu) as usize;
                self.happen(at, What::Gateway(number, mtu, false));
                continue;
            }
            let host = d.below(self.hosts.len() as u64) as usize;
            let to = (host + 1 + d.below(self.hosts.len() as u64 - 1) as usize) % self.hosts.len();
            let over = if d.one_in(3) { None } else { Some(number) };
            self.happen(at, What::Route(host, to, over));
        }
    }
}

/// Bytes that all connections together may send.
fn budget(class: Class, features: &Features, d: &mut Draw) -> u64 {
    match class {
        // Now and then a hundred megabytes.
        _ if features.has.contains(Has::BIG) => if d.one_in(40) { 100 << 20 } else { d.between(1 << 20, 6 << 20) },
        Class::Many => 200 << 10,
        Class::Terrible | Class::FewFrames => 200 << 10,
        _ if features.has.contains(Has::SMALL_SEGMENTS) => 200 << 10,
        _ => 1 << 20,
    }
}

fn network(features: &Features, mtu: usize, frames: u32, d: &mut Draw) -> NetConfig {
    let has = features.has;
    let few = has.contains(Has::SMALL_RINGS);
    NetConfig {
        raw_ip: has.contains(Has::RAW_IP),
        max_len: mtu + 18,
        completion_delay: if has.contains(Has::SLOW_COMPLETIONS) { d.millis(3) } else { Duration::ZERO },
        tx_ring: if few { d.pick(&[64, 5, 1]) } else { 2048 },
        rx_ring: if few { d.pick(&[256, 32]) } else { 2048 },
        // One packet at least: 9,018 bytes in frames with head room are six.
        fill: if few { d.pick(&[64, 8]) } else { frames.min(256) as usize / 4 },
        headroom: d.pick(&[0, 256]),
        capture: 300,
    }
}

fn impairments(features: &Features, d: &mut Draw) -> Impairments {
    let (has, most) = (features.has, features.damage);
    let mut p = |feature, most| if has.contains(feature) { d.probability(most) } else { 0.0 };
    let (loss, duplicate, reorder) = (p(Has::LOSS, most), p(Has::DUPLICATE, most), p(Has::REORDER, most));
    let (corrupt, truncate) = (p(Has::CORRUPT, most / 2.0), p(Has::TRUNCATE, most / 4.0));
    let rate = has.contains(Has::RATE);
    let delay = d.pick(&[1, 20, 20, 100]);
    Impairments {
        loss,
        duplicate,
        reorder,
        reorder_by: d.millis(20) + Duration::from_micros(1),
        corrupt,
        truncate,
        delay: if has.contains(Has::DELAY) { d.millis(delay) } else { Duration::ZERO },
        jitter: if has.contains(Has::JITTER) { d.millis(5) } else { Duration::ZERO },
        bytes_per_second: if rate { d.between(50_000, 5_000_000) } else { 0 },
        queue_bytes: if rate { d.between(4, 100) as usize * 1600 } else { 1 << 20 },
    }
}

fn shape(features: &Features, d: &mut Draw) -> Shape {
    let has = features.has;
    let longest = d.millis(300) + Duration::from_millis(1);
    // The wire is whole most of the time.
    let bursts = (longest.saturating_mul(d.between(4, 40)), longest);
    Shape {
        bursts: has.contains(Has::BURSTS).then_some(bursts),
        mark: if has.contains(Has::MARKS) { d.pick(&[0.01, 0.1, 0.5]) } else { 0.0 },
    }
}

fn connection(features: &Features, n: u16, hosts: usize, budget: &mut u64, d: &mut Draw) -> ConnPlan {
    let has = features.has;
    let client = d.below(hosts as u64) as usize;
    let other = (client + 1 + d.below(hosts as u64 - 1) as usize) % hosts;
    let own = has.contains(Has::LOOPBACK) && d.one_in(3);
    let listener = d.below(host_plan::LISTENERS as u64) as usize;
    let mut side = |budget: &mut u64| {
        let most = if has.contains(Has::MANY) { 1 << 12 } else { *budget };
        let side = side_plan::draw(features, most, d);
        *budget = budget.saturating_sub(side.send).max(1000);
        side
    };
    let sides = [side(budget), side(budget)];
    ConnPlan {
        id: n,
        after: None,
        start: time(d, 0, 2000),
        client,
        server: if own { client } else { other },
        listener,
        bind: (has.contains(Has::BOUND) && d.one_in(2)).then_some(20_000 + n),
        sides,
    }
}

/// The connection sends that much, with nothing that slows it down.
fn hundred_megabytes(c: &mut ConnPlan) {
    for side in &mut c.sides {
        side.settings.clear();
        (side.read_chunk, side.write_chunk) = (1 << 16, 1 << 16);
    }
    c.sides[1].send = 100 << 20;
}

/// Some connections have others behind them, from the same port to the same
/// listener. Their servers end first, and so are in TIME-WAIT then.
fn reuse(features: &Features, connections: &mut Vec<ConnPlan>, d: &mut Draw) {
    let first = connections.len();
    for i in 0..first.min(20) {
        let mut before = i;
        for _ in 0..d.below(4) {
            let id = connections.len() as u16;
            connections[before].sides[0].last = true;
            connections[before].bind = Some(20_000 + i as u16);
            let mut next = connections[before].clone();
            let most = 1 << 14;
            next.sides = [side_plan::draw(features, most, d), side_plan::draw(features, most, d)];
            (next.id, next.after) = (id, Some(connections[before].id));
            next.start += Duration::from_secs(1) + d.millis(20_000);
            before = connections.len();
            connections.push(next);
        }
    }
}

fn datagram(hosts: usize, d: &mut Draw) -> DatagramPlan {
    let from = d.below(hosts as u64) as usize;
    let to = (from + 1 + d.below(hosts as u64 - 1) as usize) % hosts;
    DatagramPlan { at: time(d, 0, 3000), from, to, len: 8 + d.spread(12) as usize }
}
