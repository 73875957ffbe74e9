//! Two cores joined by a wire in the test, and what programs on them see.

mod damage;
mod datagram;
mod ecn;
mod epoll;
mod frames;
mod guard;
mod lent;
mod merge;
mod now;
mod spacing;
mod spread;
mod stream;
mod table;

use super::linux::*;
use super::*;
use crate::frame::Packet;
use crate::stack::{Config, Mode};
use crate::time::Duration;
use crate::wire::ethernet::Mac;

/// Two hosts on one link, and the time on both.
struct Net {
    a: Sockets,
    b: Sockets,
    now: Instant,
    /// Packets of `a`, then of `b`, are lost while this is set.
    lose: [bool; 2],
}

fn config(host: u8) -> Config {
    Config {
        mode: Mode::Owned,
        addresses: vec![(IpAddr::from([10, 0, 0, host]), 24)],
        mac: Mac([2, 0, 0, 0, 0, host]),
        ..Config::default()
    }
}

fn sockets(config: Config, seed: u64) -> Sockets {
    Sockets::new(Stack::new(config, Pool::heap(4096, 2048), seed))
}

fn addr(host: u8, port: u16) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, host], port))
}

impl Net {
    fn new() -> Self {
        Self::with(config(1), config(2))
    }

    fn with(a: Config, b: Config) -> Self {
        let (a, b) = (sockets(a, 1), sockets(b, 2));
        let now = Instant::ZERO + Duration::from_secs(1);
        let mut net = Self { a, b, now, lose: [false; 2] };
        net.run();
        net
    }

    /// One exchange; false if nothing moved.
    fn step(&mut self) -> bool {
        self.a.turn(self.now);
        self.b.turn(self.now);
        let moved = carry(&mut self.a, &mut self.b, self.now, self.lose[0])
            | carry(&mut self.b, &mut self.a, self.now, self.lose[1]);
        self.a.stack.assert_conserved();
        self.b.stack.assert_conserved();
        moved
    }

    /// Until nothing moves any more at this time.
    fn run(&mut self) {
        for _ in 0..10_000 {
            if !self.step() {
                return;
            }
            self.now += Duration::from_micros(10);
        }
        panic!("the two never rest");
    }

    /// Lets time pass, with everything that is due in it.
    fn pass(&mut self, span: Duration) {
        let end = self.now + span;
        loop {
            self.run();
            let next = [&self.a, &self.b].into_iter().filter_map(|s| s.next_deadline()).min();
            match next {
                Some(at) if at <= end => self.now = at.max(self.now + Duration::from_micros(1)),
                _ => break,
            }
        }
        self.now = self.now.max(end);
        self.run();
    }

    /// A listener on `b`, a connection from `a` to it, and the other end.
    fn connected(&mut self, port: u16) -> (Handle, Handle, Handle) {
        let listener = listen(&mut self.b, port, 16);
        let (client, server) = self.join(listener, port);
        (client, server, listener)
    }

    fn join(&mut self, listener: Handle, port: u16) -> (Handle, Handle) {
        let client = tcp(&mut self.a);
        assert_eq!(self.a.connect(client, addr(2, port)), Err(Errno::EINPROGRESS));
        self.run();
        let (server, peer) = self.b.accept(listener).unwrap();
        assert_eq!(peer, self.a.local_addr(client).unwrap());
        (client, server)
    }
}

fn carry(from: &mut Sockets, to: &mut Sockets, now: Instant, lose: bool) -> bool {
    let mut moved = false;
    loop {
        let mut batch = Batch::new();
        while batch.remaining_capacity() > 0 {
            let (pool, queue) = from.tx();
            let Some(desc) = queue.pop() else { break };
            moved = true;
            if !lose && let Some(mut frame) = to.stack.core.pool.alloc() {
                let bytes = pool.tx_bytes(&desc);
                let len = bytes.len();
                to.stack.core.pool.buffer_mut(&mut frame)[..len].copy_from_slice(bytes);
                frame.set_range(0, len);
                batch.push(Packet::single(frame));
            }
            pool.complete(desc.index());
        }
        if batch.is_empty() {
            return moved;
        }
        to.receive(now, &mut batch);
    }
}

fn tcp(s: &mut Sockets) -> Handle {
    s.socket(AF_INET, SOCK_STREAM, 0).unwrap()
}

fn udp(s: &mut Sockets) -> Handle {
    s.socket(AF_INET, SOCK_DGRAM, 0).unwrap()
}

fn listen(s: &mut Sockets, port: u16, backlog: i32) -> Handle {
    let h = tcp(s);
    set(s, h, SOL_SOCKET, SO_REUSEADDR, 1).unwrap();
    s.bind(h, SocketAddr::from(([0, 0, 0, 0], port))).unwrap();
    s.listen(h, backlog).unwrap();
    h
}

fn set(s: &mut Sockets, h: Handle, level: i32, name: i32, value: i32) -> Result<()> {
    s.set_option(h, level, name, &value.to_ne_bytes())
}

fn get(s: &mut Sockets, h: Handle, level: i32, name: i32) -> i32 {
    let mut out = [0; 4];
    assert_eq!(s.get_option(h, level, name, &mut out), Ok(4));
    i32::from_ne_bytes(out)
}

fn recv(s: &mut Sockets, h: Handle) -> Result<Vec<u8>> {
    let mut buf = [0; 4096];
    s.recv(h, &mut buf, 0).map(|n| buf[..n].to_vec())
}

fn events(s: &mut Sockets, ep: Handle) -> Vec<(u32, u64)> {
    let mut out = Vec::new();
    s.epoll_wait(ep, &mut out, 64).unwrap();
    out.into_iter().map(|e| (e.events, e.data)).collect()
}
