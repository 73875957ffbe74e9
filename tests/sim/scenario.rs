//! What happens in a run, drawn from its seed.

use ringroad::device::memory::{Impairments, WireConfig};
use ringroad::rng::Rng;
use ringroad::stack::{Config, Mode};
use ringroad::time::{Duration, Instant};
use ringroad::wire::ethernet::Mac;
use std::net::Ipv4Addr;

/// Kinds of scenarios.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Nothing goes wrong.
    Perfect,
    /// Up to a few percent of everything.
    Bad,
    /// Up to 15 percent of everything.
    Terrible,
    /// A bottleneck with little room before it.
    Slow,
    /// Pools that run dry.
    FewFrames,
    /// Programs close early and abort.
    Aborts,
    /// Nothing passes for some seconds.
    Cut,
    /// From some time on nothing passes.
    CutForEver,
    /// Many small connections.
    Many,
}

/// How a program learns that a socket is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drive {
    /// It tries at every step.
    Always,
    /// It waits for level-triggered epoll events.
    Level,
    /// It waits for edge-triggered epoll events.
    Edge,
}

/// How a side ends its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// `shutdown` after the last byte, `close` after the peer's end.
    Shutdown,
    /// `close` after the last byte, whatever the peer does.
    Close,
    /// SO_LINGER zero and `close`, once this many bytes went either way.
    Abort(u64),
}

/// What one side of a connection does.
#[derive(Clone, Debug)]
pub struct SidePlan {
    pub send: u64,
    pub end: End,
    /// Bytes in a call of `send`, at most.
    pub write_chunk: usize,
    /// Bytes in a call of `recv`, at most.
    pub read_chunk: usize,
    /// Time from one `recv` to the next.
    pub read_pause: Duration,
    pub nodelay: bool,
    pub cork: bool,
    pub keepalive: bool,
    pub send_buffer: Option<i32>,
    pub receive_buffer: Option<i32>,
}

/// A connection.
#[derive(Clone, Debug)]
pub struct ConnPlan {
    pub start: Instant,
    /// Which host connects, and to which.
    pub client: usize,
    pub server: usize,
    /// What the client does, and what the server does.
    pub sides: [SidePlan; 2],
}

/// A datagram.
#[derive(Clone, Debug)]
pub struct DatagramPlan {
    pub at: Instant,
    pub from: usize,
    pub len: usize,
}

/// A whole run.
#[derive(Clone, Debug)]
pub struct Scenario {
    pub class: Class,
    pub drive: Drive,
    pub wire: WireConfig,
    /// What happens to what each host sends.
    pub impairments: [Impairments; 2],
    pub hosts: [Config; 2],
    pub frames: [u32; 2],
    pub connections: Vec<ConnPlan>,
    pub datagrams: Vec<DatagramPlan>,
    /// When the wire is cut, and when it is whole again.
    pub cut: Option<(Instant, Instant)>,
}

pub const ADDRESSES: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2)];

/// Draws from a generator.
struct Draw(Rng);

impl Draw {
    fn below(&mut self, n: u64) -> u64 {
        self.0.next_u64() % n.max(1)
    }

    fn between(&mut self, from: u64, to: u64) -> u64 {
        from + self.below(to - from + 1)
    }

    /// True once in `n` times.
    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// Up to `2^bits`, small values as likely as large ones.
    fn spread(&mut self, bits: u64) -> u64 {
        let bits = self.between(0, bits);
        self.below(1 << bits)
    }

    fn probability(&mut self, most: f64) -> f64 {
        if self.one_in(3) { 0.0 } else { self.below(1000) as f64 / 1000.0 * most }
    }

    fn pick<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len() as u64) as usize]
    }

    fn millis(&mut self, most: u64) -> Duration {
        Duration::from_micros(self.below(most * 1000 + 1))
    }
}

impl Scenario {
    pub fn new(class: Class, seed: u64) -> Self {
        let mut d = Draw(Rng::new(seed.wrapping_mul(2) ^ (class as u64) << 32));
        let raw_ip = d.one_in(4);
        let mtu = d.pick(&[1500, 1500, 1500, 1280, 576]);
        let frames = match class {
            Class::FewFrames => [d.between(160, 400) as u32, d.between(160, 400) as u32],
            _ => [4096, 4096],
        };
        let wire = WireConfig {
            mtu,
            completion_delay: if d.one_in(3) { d.millis(3) } else { Duration::ZERO },
            tx_ring: d.pick(&[2048, 64, 5]),
            fill: frames[0].min(frames[1]).min(256) as usize / 4,
            headroom: d.pick(&[0, 256]),
            ..Default::default()
        };
        let impairments = [impairments(class, &mut d), impairments(class, &mut d)];
        let hosts = [host(0, raw_ip, mtu, class, &mut d), host(1, raw_ip, mtu, class, &mut d)];
        let count = match class {
            Class::Many => d.between(30, 120),
            Class::FewFrames => d.between(1, 4),
            _ => d.between(1, 8),
        };
        let connections = (0..count).map(|_| connection(class, &mut d)).collect();
        let datagrams = match class {
            Class::CutForEver | Class::FewFrames => 0,
            _ => d.below(30),
        };
        let datagrams = (0..datagrams)
            .map(|_| DatagramPlan {
                at: Instant::ZERO + d.millis(3000),
                from: d.below(2) as usize,
                len: 8 + d.spread(12) as usize,
            })
            .collect();
        let cut = match class {
            Class::Cut => {
                let from = Instant::ZERO + d.millis(1000);
                Some((from, from + d.millis(20_000)))
            }
            Class::CutForEver => Some((Instant::ZERO + d.millis(500), Instant::NEVER)),
            _ => None,
        };
        let drive = d.pick(&[Drive::Always, Drive::Level, Drive::Edge]);
        Self { class, drive, wire, impairments, hosts, frames, connections, datagrams, cut }
    }

    /// True where a connection whose programs behave may still fail.
    pub fn unfair(&self) -> bool {
        matches!(self.class, Class::CutForEver)
    }
}

fn impairments(class: Class, d: &mut Draw) -> Impairments {
    let most = match class {
        Class::Perfect => return Impairments { delay: d.millis(2), ..Default::default() },
        Class::Slow => {
            return Impairments {
                delay: d.millis(20),
                bytes_per_second: d.between(50_000, 5_000_000),
                queue_bytes: d.between(4, 100) as usize * 1600,
                ..Default::default()
            };
        }
        Class::Terrible => 0.15,
        Class::Bad | Class::Aborts | Class::Many => 0.04,
        Class::FewFrames | Class::Cut | Class::CutForEver => 0.01,
    };
    Impairments {
        loss: d.probability(most),
        duplicate: d.probability(most),
        reorder: d.probability(most),
        reorder_by: d.millis(20) + Duration::from_micros(1),
        corrupt: d.probability(most / 2.0),
        truncate: d.probability(most / 4.0),
        delay: d.millis(20),
        jitter: if d.one_in(2) { d.millis(5) } else { Duration::ZERO },
        ..Default::default()
    }
}

fn host(n: usize, raw_ip: bool, mtu: usize, class: Class, d: &mut Draw) -> Config {
    let mut config = Config {
        mode: Mode::Owned,
        addresses: vec![(ADDRESSES[n].into(), 24)],
        mac: Mac([2, 0, 0, 0, 0, 0x0a + n as u8]),
        mtu,
        raw_ip,
        transmit_queue: d.pick(&[4096, 256, 32]),
        ..Default::default()
    };
    let options = &mut config.tcp.options;
    options.timestamps = !d.one_in(5);
    options.sack = !d.one_in(5);
    options.window_scaling = !d.one_in(5);
    config.tcp.initial_window = d.pick(&[10, 10, 2, 1]);
    if class == Class::FewFrames {
        config.tcp.frame_reserve = 16;
        config.tcp.frames_low = 48;
    }
    config
}

fn side(class: Class, d: &mut Draw) -> SidePlan {
    let most = match class {
        Class::Many => 12,
        Class::Terrible | Class::FewFrames => 16,
        Class::Slow => 17,
        _ => 18,
    };
    let send = d.spread(most);
    let end = match class {
        Class::Aborts => match d.below(4) {
            0 => End::Close,
            1 => End::Abort(d.spread(most)),
            _ => End::Shutdown,
        },
        _ => End::Shutdown,
    };
    let slow = d.one_in(6);
    SidePlan {
        send,
        end,
        write_chunk: 1 + d.spread(16) as usize,
        read_chunk: if slow { 100 + d.spread(12) as usize } else { 65_536 },
        read_pause: if slow { d.millis(60) } else { Duration::ZERO },
        nodelay: d.one_in(2),
        cork: d.one_in(8),
        keepalive: matches!(class, Class::Aborts | Class::CutForEver) || d.one_in(4),
        send_buffer: d.one_in(4).then(|| 4096 << d.below(5)),
        receive_buffer: d.one_in(4).then(|| 4096 << d.below(5)),
    }
}

fn connection(class: Class, d: &mut Draw) -> ConnPlan {
    let client = d.below(2) as usize;
    let server = if d.one_in(10) { client } else { 1 - client };
    let mut sides = [side(class, d), side(class, d)];
    for side in &mut sides {
        // Slow readers of much data take for ever; that is no hang.
        if side.read_pause > Duration::ZERO {
            side.read_chunk = side.read_chunk.max(1000);
        }
    }
    ConnPlan { start: Instant::ZERO + d.millis(2000), client, server, sides }
}
