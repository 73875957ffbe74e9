//! Two hosts, the wire between them, and the passing of time.

use crate::program::Program;
use crate::scenario::{ADDRESSES, Class, Drive, End as Ending, Scenario};
use ringroad::device::Device;
use ringroad::device::memory::{End, Impairments, MemoryDevice, Wire};
use ringroad::errno::Errno;
use ringroad::frame::{Batch, Pool};
use ringroad::socket::linux::*;
use ringroad::socket::{EpollEvent, Handle, SendMeta, Sockets};
use ringroad::stack::Stack;
use ringroad::time::{Duration, Instant};
use ringroad::wire::trace::{Begins, Style, Tracer};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

const PORT: u16 = 80;
const UDP_PORT: u16 = 5000;
/// What the listener and the UDP socket are called in epoll sets.
const LISTENER: u64 = u64::MAX;
/// Virtual time that a run may take, turns that follow each other at once, and the
/// time that one takes.
const LONGEST: Duration = Duration::from_secs(6 * 3600);
const STEPS_AT_ONCE: usize = 20_000;
const TURN: Duration = Duration::from_micros(20);
const STEPS: usize = 2_000_000;
/// Packets shown where one of many seeds fails; where it runs alone, all.
const SHOWN: usize = 80;

/// A host: a device, a stack, and what its programs wait for.
struct Host {
    device: MemoryDevice,
    sockets: Sockets,
    batch: Batch,
    listener: Handle,
    udp: Handle,
    epoll: Handle,
    datagrams: u64,
}

pub struct World {
    seed: u64,
    scenario: Scenario,
    wire: Wire,
    hosts: [Host; 2],
    programs: Vec<Program>,
    /// By the hosts of client and server and the client's port: the connection's
    /// number. (One port may lead to both hosts.)
    numbers: BTreeMap<(usize, usize, u16), usize>,
    /// Connections and datagrams that did not begin yet.
    next_connection: usize,
    next_datagram: usize,
    cut: bool,
    now: Instant,
    /// Of every byte sent.
    digest: Arc<AtomicU64>,
}

impl World {
    pub fn new(class: Class, seed: u64) -> Self {
        let mut scenario = Scenario::new(class, seed);
        scenario.connections.sort_by_key(|c| c.start);
        scenario.datagrams.sort_by_key(|d| d.at);
        let (wire, a, b) = Wire::new(scenario.wire.clone(), seed);
        wire.capture(4096);
        let host = |n: usize, device| Host::new(device, &scenario, n, seed);
        let hosts = [host(0, a), host(1, b)];
        let mut world = Self {
            seed,
            scenario,
            wire,
            hosts,
            programs: Vec::new(),
            numbers: BTreeMap::new(),
            next_connection: 0,
            next_datagram: 0,
            cut: false,
            now: Instant::ZERO,
            digest: Arc::new(AtomicU64::new(0xcbf2_9ce4_8422_2325)),
        };
        world.mend();
        for end in [End::A, End::B] {
            let digest = world.digest.clone();
            let filter = move |bytes: &mut Vec<u8>| {
                let add = |hash: u64, b: &u8| (hash ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3);
                digest.store(bytes.iter().fold(digest.load(Relaxed), add), Relaxed);
                true
            };
            world.wire.set_filter(end, Some(Box::new(filter)));
        }
        world
    }

    fn mend(&mut self) {
        for (end, what) in [End::A, End::B].into_iter().zip(&self.scenario.impairments) {
            self.wire.set_impairments(end, what.clone());
        }
    }

    /// Runs until everything has ended, checks what came of it, and gives a
    /// digest of every byte on the wire.
    pub fn run(mut self) -> u64 {
        let verbose = std::env::var_os("RINGROAD_SEED").is_some();
        let report = Report { seed: self.seed, class: self.scenario.class, wire: self.wire.clone() };
        if verbose {
            eprintln!("{:#?}", self.scenario);
        }
        let (mut steps, mut at_once) = (0, 0);
        loop {
            self.step();
            steps += 1;
            let Some(next) = self.next_event() else { break };
            at_once = if next <= self.now { at_once + 1 } else { 0 };
            assert!(at_once < STEPS_AT_ONCE, "no rest at {:?}", self.now);
            assert!(steps < STEPS, "{steps} steps and no end");
            // A turn takes time: a stack that waits for the device is asked again.
            self.now = next.max(self.now + TURN);
            assert!(self.now.since(Instant::ZERO) < LONGEST, "a hang: {}", self.waiting());
            self.wire.advance(self.now);
        }
        self.check_end();
        drop(report);
        self.digest.load(Relaxed)
    }

    /// The earliest time at which anything can happen; `None`: never again.
    fn next_event(&self) -> Option<Instant> {
        let stacks = self.hosts.iter().filter_map(|h| h.sockets.next_deadline());
        let programs = self.programs.iter().filter_map(|p| p.deadline());
        let connection = self.scenario.connections.get(self.next_connection).map(|c| c.start);
        let datagram = self.scenario.datagrams.get(self.next_datagram).map(|d| d.at);
        let cut = self.scenario.cut.and_then(|(from, to)| {
            [from, to].into_iter().find(|at| *at > self.now && *at != Instant::NEVER)
        });
        // What waits behind a full ring goes on when transmissions complete: the
        // wire knows when.
        let own = [connection, datagram, cut, self.wire.next_event()];
        stacks.chain(programs).chain(own.into_iter().flatten()).min()
    }

    fn step(&mut self) {
        if let Some((from, to)) = self.scenario.cut {
            let cut = (from..to).contains(&self.now);
            if cut != self.cut {
                self.cut = cut;
                self.mend();
                if cut {
                    let nothing = Impairments { loss: 1.0, ..Default::default() };
                    self.wire.set_impairments(End::A, nothing.clone());
                    self.wire.set_impairments(End::B, nothing);
                }
            }
        }
        for n in 0..2 {
            self.hosts[n].input(self.now);
            self.hosts[n].check_frames();
            self.begin(n);
            self.run_programs(n);
            self.hosts[n].check_frames();
            let timers = self.hosts[n].sockets.next_deadline().is_some_and(|at| at <= self.now);
            self.hosts[n].output(self.now);
            self.hosts[n].check_frames();
            if timers {
                // What a timer did, the programs learn before time goes on.
                self.run_programs(n);
                self.hosts[n].output(self.now);
                self.hosts[n].check_frames();
            }
        }
    }

    /// Begins the connections and sends the datagrams whose time has come.
    fn begin(&mut self, n: usize) {
        while let Some(plan) = self.scenario.connections.get(self.next_connection)
            && plan.start <= self.now
            && plan.client == n
        {
            let plan = plan.clone();
            let number = self.next_connection;
            self.next_connection += 1;
            let sockets = &mut self.hosts[n].sockets;
            let h = sockets.socket(AF_INET, SOCK_STREAM, 0).expect("a socket");
            let mut program = Program::new(number, 0, n, &plan.sides[0], h);
            program.set_options(sockets);
            let peer = SocketAddr::new(ADDRESSES[plan.server].into(), PORT);
            program.connecting = Some(peer);
            match sockets.connect(h, peer) {
                Ok(()) | Err(Errno::EINPROGRESS) => {}
                Err(error) => panic!("connect: {error:?}"),
            }
            let port = sockets.local_addr(h).expect("a connecting socket is bound").port();
            self.numbers.insert((n, plan.server, port), number);
            self.hosts[n].add(self.scenario.drive, h, self.programs.len() as u64);
            self.programs.push(program);
        }
        while let Some(plan) = self.scenario.datagrams.get(self.next_datagram)
            && plan.at <= self.now
            && plan.from == n
        {
            let to = SocketAddr::new(ADDRESSES[1 - n].into(), UDP_PORT);
            let data = datagram(self.next_datagram as u64, plan.len);
            let host = &mut self.hosts[n];
            match host.sockets.send_to(host.udp, &data, 0, Some(to), &SendMeta::default()) {
                Ok(len) => assert_eq!(len, data.len()),
                // An earlier one met nobody, or there is no frame or room.
                Err(Errno::ECONNREFUSED | Errno::EHOSTUNREACH | Errno::EAGAIN | Errno::ENOBUFS) => {}
                Err(error) => panic!("send_to: {error:?}"),
            }
            self.next_datagram += 1;
        }
    }

    fn run_programs(&mut self, n: usize) {
        self.accept(n);
        self.hosts[n].receive_datagrams();
        let now = self.now;
        let mut due: Vec<usize> = match self.scenario.drive {
            Drive::Always => (0..self.programs.len()).collect(),
            Drive::Level | Drive::Edge => self.hosts[n].events(),
        };
        // Slow readers wake up by themselves, and so do those that only began.
        due.extend((0..self.programs.len()).filter(|i| {
            let p = &self.programs[*i];
            p.pause.is_some_and(|until| until <= now) || p.sent == 0
        }));
        for i in due {
            let program = &mut self.programs[i];
            if program.host == n {
                program.advance(&mut self.hosts[n].sockets, now);
            }
        }
    }

    fn accept(&mut self, n: usize) {
        loop {
            let host = &mut self.hosts[n];
            let (h, peer) = match host.sockets.accept(host.listener) {
                Ok(accepted) => accepted,
                Err(Errno::EAGAIN) => return,
                Err(error) => panic!("accept: {error:?}"),
            };
            let client = ADDRESSES.iter().position(|a| peer.ip() == *a).expect("a host's address");
            let number = self.numbers[&(client, n, peer.port())];
            let plan = &self.scenario.connections[number].sides[1];
            let twice = self.programs.iter().any(|p| p.conn == number && p.role == 1);
            assert!(!twice, "connection {number} of {peer} was accepted twice");
            let program = Program::new(number, 1, n, plan, h);
            program.set_options(&mut host.sockets);
            host.add(self.scenario.drive, h, self.programs.len() as u64);
            self.programs.push(program);
        }
    }

    /// Who waits for what, where a run does not end.
    fn waiting(&self) -> String {
        let open: Vec<String> = self
            .programs
            .iter()
            .filter(|p| !p.is_done())
            .map(|p| {
                format!(
                    "connection {} role {}: {:?}, sent {} of {}, received {}, end {}, ready {:?}",
                    p.conn,
                    p.role,
                    p.handle,
                    p.sent,
                    p.plan.send,
                    p.received,
                    p.eof,
                    p.handle.map(|h| self.hosts[p.host].sockets.readiness(h)),
                )
            })
            .collect();
        let counts = self.hosts.iter().map(|h| h.sockets.stack.core.pool.counts());
        let connections = self.hosts.iter().map(|h| h.sockets.stack.tcp.connections());
        format!(
            "{}\n{:?} connections {:?}",
            open.join("\n"),
            counts.collect::<Vec<_>>(),
            connections.collect::<Vec<_>>()
        )
    }

    fn check_end(&mut self) {
        assert_eq!(self.next_connection, self.scenario.connections.len());
        for number in 0..self.next_connection {
            self.check_connection(number);
        }
        for (n, host) in self.hosts.iter_mut().enumerate() {
            let tcp = &host.sockets.stack.tcp;
            assert_eq!((tcp.connections(), tcp.waiting()), (0, 0), "host {n} keeps connections");
            let counts = host.sockets.stack.core.pool.counts();
            assert_eq!((counts.held, counts.tx), (0, 0), "host {n} keeps frames");
            let sent = self.scenario.datagrams.iter().filter(|d| d.from != n).count() as u64;
            if self.scenario.class == Class::Perfect {
                assert_eq!(host.datagrams, sent, "host {n}: datagrams were lost");
            }
        }
    }

    fn check_connection(&self, number: usize) {
        let plan = &self.scenario.connections[number];
        let find = |role| self.programs.iter().find(|p| p.conn == number && p.role == role);
        let client = find(0).expect("every client began");
        let server = find(1);
        for p in [Some(client), server].into_iter().flatten() {
            assert!(p.is_done(), "connection {number} role {} did not end: {}", p.role, self.waiting());
        }
        let fair = !self.scenario.unfair()
            && plan.sides.iter().all(|side| side.end == Ending::Shutdown);
        if fair && server.is_none() {
            // The one way to fail on a fair wire: ARP gives up after three losses.
            assert_eq!(client.error, Some(Errno::EHOSTUNREACH), "connection {number}");
            return;
        }
        let Some(server) = server else {
            assert!(client.error.is_some() || client.aborted || client.finished);
            return;
        };
        for (from, to) in [(client, server), (server, client)] {
            if to.eof {
                assert!(from.finished, "connection {number}: an end that nobody sent");
                assert_eq!(to.received, from.sent, "connection {number}: not all arrived");
            }
            assert!(to.received <= from.sent);
            if fair {
                assert_eq!(to.error, None, "connection {number} role {}", to.role);
                assert!(to.eof && from.sent == from.plan.send);
            } else if plan.sides.iter().all(|side| side.end == Ending::Shutdown) {
                let whole = to.eof && to.finished;
                assert!(whole || to.error.is_some(), "connection {number}: neither whole nor failed");
            }
        }
    }
}

impl Host {
    fn new(device: MemoryDevice, scenario: &Scenario, n: usize, seed: u64) -> Self {
        let pool = Pool::heap(scenario.frames[n], 2048);
        let stack = Stack::new(scenario.hosts[n].clone(), pool, seed ^ (n as u64 + 1) << 48);
        let mut sockets = Sockets::new(stack);
        let any = |port| SocketAddr::new(ADDRESSES[n].into(), port);
        let listener = sockets.socket(AF_INET, SOCK_STREAM, 0).expect("a socket");
        sockets.bind(listener, any(PORT)).expect("bind");
        sockets.listen(listener, 256).expect("listen");
        let udp = sockets.socket(AF_INET, SOCK_DGRAM, 0).expect("a socket");
        sockets.bind(udp, any(UDP_PORT)).expect("bind");
        let epoll = sockets.epoll_create().expect("an epoll set");
        let mut host =
            Self { device, sockets, batch: Batch::new(), listener, udp, epoll, datagrams: 0 };
        host.add(Drive::Level, listener, LISTENER);
        host.device.refill(&mut host.sockets.stack.core.pool);
        host
    }

    /// Adds a socket to the epoll set.
    fn add(&mut self, drive: Drive, h: Handle, data: u64) {
        let edge = if drive == Drive::Edge { EPOLLET } else { 0 };
        let events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | edge;
        self.sockets.epoll_ctl(self.epoll, EPOLL_CTL_ADD, h, events, data).expect("EPOLL_CTL_ADD");
    }

    fn input(&mut self, now: Instant) {
        self.device.reap(&mut self.sockets.stack.core.pool);
        loop {
            self.device.refill(&mut self.sockets.stack.core.pool);
            self.device.receive(&mut self.sockets.stack.core.pool, &mut self.batch);
            if self.batch.is_empty() {
                return;
            }
            self.sockets.receive(now, &mut self.batch);
            assert!(self.batch.is_empty(), "receive leaves no packet behind");
        }
    }

    fn output(&mut self, now: Instant) {
        self.sockets.turn(now);
        let (pool, queue) = self.sockets.tx();
        self.device.transmit(pool, queue);
        self.device.refill(pool);
    }

    fn check_frames(&self) {
        let stack = &self.sockets.stack;
        stack.core.pool.assert_conserved();
        let (held, counted) = (stack.core.pool.counts().held as usize, self.sockets.held_frames());
        assert_eq!(held, counted, "frames that the pool calls held, and their holders");
    }

    /// The programs that epoll names.
    fn events(&mut self) -> Vec<usize> {
        let mut out: Vec<EpollEvent> = Vec::new();
        self.sockets.epoll_wait(self.epoll, &mut out, 1024).expect("epoll_wait");
        out.iter().filter(|e| e.data != LISTENER).map(|e| e.data as usize).collect()
    }

    fn receive_datagrams(&mut self) {
        let mut buffer = vec![0; 65_536];
        loop {
            match self.sockets.recv(self.udp, &mut buffer, 0) {
                Ok(len) => {
                    let number = u64::from_be_bytes(buffer[..8].try_into().expect("eight bytes"));
                    assert!(buffer[..len] == datagram(number, len)[..], "a datagram was changed");
                    self.datagrams += 1;
                }
                Err(Errno::EAGAIN) => return,
                Err(Errno::ECONNREFUSED | Errno::EHOSTUNREACH) => {}
                Err(error) => panic!("recv of a datagram: {error:?}"),
            }
        }
    }
}

/// The bytes of a datagram: its number, and what follows from it.
fn datagram(number: u64, len: usize) -> Vec<u8> {
    let tail = (8..len).map(|i| (number as usize * 31 + i * 7) as u8);
    number.to_be_bytes().into_iter().chain(tail).collect()
}

/// Says, where a run fails, how to see it again.
struct Report {
    seed: u64,
    class: Class,
    wire: Wire,
}

impl Drop for Report {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let mut tracer = Tracer::new(Style::Modern);
        let packets = self.wire.captured();
        let raw = packets.first().is_some_and(|p| p.bytes[0] == 0x45);
        let begins = if raw { Begins::Ip } else { Begins::Ethernet };
        let lines: Vec<_> = packets.iter().map(|p| tracer.line(p.at, begins, &p.bytes)).collect();
        let alone = std::env::var_os("RINGROAD_SEED").is_some();
        let shown = if alone { usize::MAX } else { SHOWN };
        for line in &lines[lines.len().saturating_sub(shown)..] {
            eprintln!("{line}");
        }
        eprintln!("failed: RINGROAD_SEED={} in class {:?}", self.seed, self.class);
    }
}
