//! Hosts, the network between them, and the passing of time.

use crate::features::{Class, Has};
use crate::gateway::Gateway;
use crate::host::{Host, LISTENERS, NOBODY};
use crate::model::{self, Cause, Record, Verdict};
use crate::net::{Net, NetConfig};
use crate::program::{Context, Program, Scratch};
use crate::report::{Report, alone};
use crate::seen::Seen;
use crate::scenario::{Scenario, address, mac};
use crate::side_plan::Drive;
use ringroad::socket::{EpollEvent, Handle};
use ringroad::errno::Errno;
use ringroad::socket::linux::*;
use ringroad::stack::tcp::SynCookies;
use ringroad::time::Instant;
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// Turns that follow each other at once, and turns in all.
const AT_ONCE: usize = 20_000;
/// A worker without frames looks for some each millisecond, for hours if its
/// connections are slow.
const STEPS: usize = 40_000_000;
/// Times that one host's programs are asked in one turn.
const ROUNDS: usize = 100_000;
/// In the options of TCP_INFO: both sides do ECN.
const TCPI_OPT_ECN: u8 = 8;
/// Programs looked at each turn for lost wake-ups.
const LOOKED_AT: usize = 4;

/// How a run went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Of all packets: the same for the same seed.
    pub digest: u64,
    pub packets: u64,
    pub connections: u64,
    /// Connections that had to be whole, and were.
    pub whole: u64,
    pub bytes: u64,
    pub errors: u64,
    /// Packets marked for congestion on the way.
    pub marked: u64,
    pub seen: Seen,
}

pub struct World {
    pub seed: u64,
    pub scenario: Scenario,
    pub net: Net,
    pub hosts: Vec<Host>,
    pub programs: Vec<Program>,
    pub records: Vec<Record>,
    /// By client, server, and their ports: the connections' numbers.
    numbers: BTreeMap<(usize, usize, u16, u16), Vec<usize>>,
    /// Connections, datagrams and happenings that did not begin yet.
    pub next_connection: usize,
    next_datagram: usize,
    pub next_happening: usize,
    pub now: Instant,
    scratch: Scratch,
    events: Vec<EpollEvent>,
    pub seen: Seen,
}

impl World {
    pub fn new(class: Class, seed: u64) -> Self {
        let scenario = Scenario::new(class, seed);
        let capture = if alone() { 100_000 } else { scenario.net.capture };
        let config = NetConfig { capture, ..scenario.net.clone() };
        let net = Net::new(config, &scenario.impairments, &scenario.shapes, seed);
        for (number, (mtu, silent)) in scenario.gateways.iter().enumerate() {
            net.add_gateway(Gateway::new(number as u8, *mtu, *silent));
        }
        let hosts = scenario.hosts.iter().enumerate();
        let host = |(n, plan)| Host::new(n, plan, &net, Instant::ZERO, seed ^ (n as u64 + 1) << 48);
        let hosts: Vec<Host> = hosts.map(host).collect();
        for n in 0..hosts.len() {
            net.own(address(n), n, mac(n));
        }
        Self {
            seed,
            net,
            hosts,
            programs: Vec::new(),
            records: Vec::new(),
            numbers: BTreeMap::new(),
            next_connection: 0,
            next_datagram: 0,
            next_happening: 0,
            now: Instant::ZERO,
            scratch: Scratch::new(),
            events: Vec::new(),
            seen: Seen::empty(),
            scenario,
        }
    }

    pub fn run(mut self) -> Outcome {
        let report = Report { seed: self.seed, class: self.scenario.class, net: self.net.clone() };
        if alone() {
            eprintln!("{:#?}", self.scenario);
        }
        let (mut steps, mut at_once, mut before) = (0, 0, u64::MAX);
        loop {
            self.step();
            steps += 1;
            let Some(next) = self.next_event() else { break };
            at_once = if next <= self.now { at_once + 1 } else { 0 };
            if at_once == AT_ONCE {
                // Much to do is no fault, as long as something comes of it.
                let received = self.programs.iter().map(|p| p.received).sum();
                assert_ne!(received, before, "no rest at {:?}: {}", self.now, self.waiting());
                (at_once, before) = (0, received);
            }
            assert!(steps < STEPS, "{steps} steps and no end: {}", self.waiting());
            // A turn takes time: a stack that waits for the device is asked again.
            self.now = next.max(self.now + self.scenario.turn);
            assert!(self.now < model::longest(), "a hang:\n{}", self.waiting());
            self.net.advance(self.now);
        }
        if alone() {
            eprintln!("{}", self.waiting());
        }
        let outcome = self.check_end();
        drop(report);
        outcome
    }

    /// The earliest time at which anything can happen; `None`: never again.
    fn next_event(&self) -> Option<Instant> {
        let hosts = self.hosts.iter().filter_map(|h| h.next_event(&self.net, self.now));
        let connection = self.scenario.connections.get(self.next_connection).map(|c| c.start);
        let datagram = self.scenario.datagrams.get(self.next_datagram).map(|d| d.at);
        let happening = self.scenario.happenings.get(self.next_happening).map(|h| h.at);
        hosts.chain([connection, datagram, happening].into_iter().flatten()).min()
    }

    fn step(&mut self) {
        self.happen();
        self.begin();
        for n in 0..self.hosts.len() {
            let due = self.hosts[n].next_event(&self.net, self.now).is_some_and(|at| at <= self.now);
            if self.hosts[n].down {
                self.hosts[n].dirty = false;
                self.net.discard(n);
            } else if due {
                self.turn(n);
            }
        }
    }

    /// A turn of one host's worker.
    fn turn(&mut self, n: usize) {
        self.hosts[n].dirty = false;
        self.hosts[n].input(self.now);
        self.hosts[n].check_frames();
        let mut progress = false;
        for round in 0.. {
            assert!(round < ROUNDS, "host {n} does not come to rest: {}", self.waiting());
            progress |= self.run_programs(n);
            self.hosts[n].check_frames();
            let timers = self.hosts[n].timers_are_due(self.now);
            self.hosts[n].output(self.now);
            self.hosts[n].check_frames();
            // What a timer did, the programs learn before time goes on.
            let waits = timers && round == 0;
            if !waits && !self.hosts[n].has_events() {
                break;
            }
        }
        self.check_wake_ups(n);
        // Those that do not wait for events look again at what they brought about.
        self.hosts[n].dirty = progress;
    }

    /// Begins the connections and sends the datagrams whose time has come.
    fn begin(&mut self) {
        while let Some(plan) = self.scenario.connections.get(self.next_connection)
            && plan.start <= self.now
        {
            self.next_connection += 1;
            self.connect(self.next_connection - 1);
        }
        while let Some(plan) = self.scenario.datagrams.get(self.next_datagram)
            && plan.at <= self.now
        {
            self.hosts[plan.from].send_datagram(self.next_datagram as u64, plan.to, plan.len);
            self.next_datagram += 1;
        }
    }

    fn connect(&mut self, number: usize) {
        let plan = self.scenario.connections[number].clone();
        let mut causes = model::general(&self.scenario.features);
        causes |= self.causes_at_start(&plan);
        self.records.push(Record { causes, programs: [None; 2] });
        if self.hosts[plan.client].down || plan.after.is_some_and(|before| !self.is_over(before)) {
            return;
        }
        let host = &mut self.hosts[plan.client];
        host.dirty = true;
        let sockets = &mut host.sockets;
        let h = sockets.socket(AF_INET, SOCK_STREAM, 0).expect("a socket");
        let mut program = Program::new(number, 0, plan.client, &plan.sides[0], h, self.seed);
        program.began = self.now;
        program.urgent = plan.sides[1].urgent;
        program.set_options(sockets);
        if let Some(port) = plan.bind {
            let on = 1i32.to_ne_bytes();
            sockets.set_option(h, SOL_SOCKET, SO_REUSEADDR, &on).expect("SO_REUSEADDR");
            sockets.bind(h, SocketAddr::from(([0, 0, 0, 0], port))).expect("bind");
        }
        let port = host.plan.listeners[plan.listener].port;
        let peer = SocketAddr::new(address(plan.server).into(), port);
        program.open(sockets, h, peer, self.now);
        if !program.is_done() {
            let own = sockets.local_addr(h).expect("a connecting socket is bound").port();
            self.numbers.entry((plan.client, plan.server, own, port)).or_default().push(number);
        }
        self.add(program);
    }

    /// Both ends of a connection began, and ended.
    fn is_over(&self, id: u16) -> bool {
        let number = self.scenario.connections.iter().position(|c| c.id == id).expect("a connection");
        let done = |i: &Option<usize>| i.is_some_and(|i| self.programs[i].is_done());
        self.records.get(number).is_some_and(|r| r.programs.iter().all(done))
    }

    /// What a connection has when it is accepted.
    fn accepted(&mut self, n: usize, i: usize, number: usize, h: Handle) {
        let host = &mut self.hosts[n];
        if let Some(name) = host.plan.listeners[i].congestion {
            assert_eq!(Program::congestion(&mut host.sockets, h), name, "the listener's congestion control");
            self.seen |= Seen::INHERITED;
        }
        let mut info = [0; 8];
        host.sockets.get_option(h, IPPROTO_TCP, TCP_INFO, &mut info).expect("TCP_INFO");
        let config = &host.plan.config;
        if config.table.syn_cookies == SynCookies::Always && info[5] & TCPI_OPT_ECN != 0 {
            self.seen |= Seen::COOKIE_ECN;
        }
        let Some(before) = self.scenario.connections[number].after else { return };
        let before = self.scenario.connections.iter().position(|c| c.id == before).expect("a connection");
        // Its server ended first, so that it has the TIME-WAIT.
        let server = self.records[before].programs[1].map(|i| &self.programs[i]).expect("it is over");
        let whole = server.error.is_none() && !server.aborted && !server.killed && !server.closed_early;
        if whole && self.now < server.ended + config.tcp.time_wait {
            self.seen |= Seen::REUSE;
        }
    }

    /// Lets a program begin.
    fn add(&mut self, mut program: Program) {
        let (index, n) = (self.programs.len(), program.host);
        self.records[program.conn].programs[program.role] = Some(index);
        let host = &mut self.hosts[n];
        host.programs.push(index);
        program.enroll(&mut context(host, self.now, index, &mut self.scratch));
        self.programs.push(program);
    }

    /// Runs the programs of a host that have something to do. True where any of
    /// them got anywhere.
    fn run_programs(&mut self, n: usize) -> bool {
        let before = self.progress(n);
        self.hosts[n].receive_datagrams(&mut self.scratch.data);
        while let Some(timer) = self.hosts[n].timers.peek()
            && timer.0.0 <= self.now
        {
            let (_, i) = self.hosts[n].timers.pop().expect("it was there").0;
            if i != NOBODY && self.programs[i].deadline().is_some_and(|at| at <= self.now) {
                self.advance(i, 0);
            }
        }
        for i in 0..self.hosts[n].listeners.len() {
            self.accept(n, i);
        }
        let programs = std::mem::take(&mut self.hosts[n].programs);
        for i in &programs {
            if self.programs[*i].plan.drive == Drive::Always {
                self.advance(*i, 0);
            }
        }
        self.hosts[n].programs = programs;
        self.take_events(n);
        let done = |i: &usize| !self.programs[*i].is_done();
        self.hosts[n].programs.retain(done);
        self.progress(n) != before
    }

    /// Runs whom epoll names, until it names nobody.
    fn take_events(&mut self, n: usize) {
        let mut events = std::mem::take(&mut self.events);
        for round in 0.. {
            assert!(round < ROUNDS, "epoll on host {n} has no end: {}", self.waiting());
            self.hosts[n].events(&mut events);
            if events.is_empty() {
                break;
            }
            for event in &events {
                if event.data >= LISTENERS {
                    self.accept(n, (event.data - LISTENERS) as usize);
                } else {
                    self.advance(event.data as usize, event.events);
                }
            }
        }
        self.events = events;
    }

    fn advance(&mut self, i: usize, events: u32) {
        let program = &mut self.programs[i];
        let host = &mut self.hosts[program.host];
        program.advance(&mut context(host, self.now, i, &mut self.scratch), events);
        if let Some(at) = program.deadline() {
            host.timers.push(std::cmp::Reverse((at, i)));
        }
    }

    /// Grows with everything that programs on this host do.
    fn progress(&self, n: usize) -> u64 {
        let programs = self.hosts[n].programs.iter().map(|i| &self.programs[*i]);
        let of = |p: &Program| p.sent + p.received + u64::from(p.eof) + u64::from(p.connecting.is_none());
        programs.map(of).sum::<u64>() + self.programs.len() as u64
    }

    fn accept(&mut self, n: usize, i: usize) {
        while let Some((h, peer)) = self.hosts[n].accept(i, self.now) {
            let client = (0..self.hosts.len()).find(|c| peer.ip() == address(*c)).expect("a host's address");
            let port = self.hosts[n].plan.listeners[i].port;
            let candidates = &self.numbers[&(client, n, peer.port(), port)];
            let fresh = |c: &&usize| self.records[**c].programs[1].is_none();
            let Some(&number) = candidates.iter().rev().find(fresh) else {
                // A copy of a SYN with data opens once more (RFC 7413, 6.3.1), and so
                // does one of an ACK that brings a cookie.
                let again = Has::FAST_OPEN | Has::COOKIES;
                assert!(self.scenario.features.has.intersects(again), "a connection of {peer} was accepted twice");
                self.hosts[n].sockets.close(h).expect("close");
                continue;
            };
            let plan = &self.scenario.connections[number].sides[1];
            let mut program = Program::new(number, 1, n, plan, h, self.seed);
            program.began = self.now;
            program.urgent = self.scenario.connections[number].sides[0].urgent;
            self.accepted(n, i, number, h);
            program.set_options(&mut self.hosts[n].sockets);
            self.add(program);
        }
    }

    /// Nobody waits for what is there. All events were taken.
    fn check_wake_ups(&mut self, n: usize) {
        let count = self.hosts[n].programs.len();
        let first = if count > LOOKED_AT { self.now.as_nanos() as usize % count } else { 0 };
        for k in 0..count.min(LOOKED_AT) {
            let i = self.hosts[n].programs[(first + k) % count];
            let host = &mut self.hosts[n];
            let mut context = context(host, self.now, i, &mut self.scratch);
            self.programs[i].check_not_forgotten(&mut context);
        }
    }

    /// Who waits for what, where a run does not end.
    pub fn waiting(&self) -> String {
        let mut text = String::new();
        for p in self.programs.iter().filter(|p| !p.is_done()) {
            let ready = p.handle.map(|h| self.hosts[p.host].sockets.readiness(h));
            text += &format!(
                "{}: sent {} of {}, received {}, end {}, paused {:?} {:?}, waits for {:#x}, ready {ready:?}\n",
                p.name(), p.sent, p.plan.send, p.received, p.eof, p.read_pause, p.write_pause, p.interest,
            );
        }
        for h in &self.hosts {
            let stack = &h.sockets.stack;
            text += &format!(
                "host {}: {:?}, {} connections, {} waiting, next {:?}\n",
                h.n, stack.core.pool.counts(), stack.tcp.connections(), stack.tcp.waiting(), h.sockets.next_deadline(),
            );
            for (reason, count) in stack.core.counters.drops().filter(|(_, count)| *count > 0) {
                text += &format!("    {count} {}\n", reason.name());
            }
        }
        text
    }

    fn check_end(&mut self) -> Outcome {
        assert_eq!(self.records.len(), self.scenario.connections.len());
        let mut outcome = Outcome { digest: self.net.digest(), packets: self.net.sent(), ..Default::default() };
        for (number, record) in self.records.iter().enumerate() {
            let Some(client) = record.programs[0] else { continue };
            let verdict = Verdict {
                number,
                plan: &self.scenario.connections[number],
                causes: record.causes,
                client: &self.programs[client],
                server: record.programs[1].map(|i| &self.programs[i]),
                present: self.waiting(),
            };
            outcome.connections += 1;
            let sends = verdict.plan.sides.iter().map(|s| s.send);
            let (one, many) = (sends.clone().any(|n| n == 1), sends.max() >= Some(100 << 20));
            if verdict.check() {
                outcome.whole += 1;
                outcome.seen.set(Seen::ONE_BYTE, one || outcome.seen.contains(Seen::ONE_BYTE));
                outcome.seen.set(Seen::HUNDRED_MEGABYTES, many || outcome.seen.contains(Seen::HUNDRED_MEGABYTES));
            }
        }
        for p in &self.programs {
            outcome.bytes += p.received;
            outcome.errors += u64::from(p.error.is_some());
            outcome.seen |= p.seen;
            outcome.seen |= match p.error {
                Some(Errno::ECONNRESET) => Seen::RESET,
                Some(Errno::ETIMEDOUT | Errno::EHOSTUNREACH) => Seen::TIMED_OUT,
                _ => Seen::empty(),
            };
        }
        outcome.seen |= self.seen | self.net.seen() | self.counted();
        outcome.seen.set(Seen::EDGE_TIMES, outcome.whole > 0 && self.scenario.features.has.contains(Has::ODD_TIMES));
        for host in self.hosts.iter().filter(|h| !h.down) {
            host.check_empty();
        }
        if self.scenario.class == Class::Perfect {
            self.check_datagrams();
        }
        assert_eq!(self.net.in_flight(), 0, "packets under way after the end");
        let (links, _, marked) = self.net.counts();
        let came = links.delivered + links.lost + links.queue_full + links.ring_full + links.too_large;
        assert_eq!(links.sent + links.duplicated, came, "packets that are neither delivered nor lost");
        outcome.marked = marked;
        outcome
    }

    /// What the hosts have counted.
    fn counted(&self) -> Seen {
        let mut seen = Seen::empty();
        for counters in self.hosts.iter().map(|h| &h.sockets.stack.core.counters) {
            let facts = [
                (Seen::FAST_OPEN, counters.tcp_fast_open_passive),
                (Seen::COOKIE, counters.tcp_cookies_taken),
                (Seen::DEFERRED, counters.tcp_deferred),
            ];
            facts.iter().filter(|f| f.1 > 0).for_each(|f| seen |= f.0);
        }
        seen
    }

    /// Where nothing is lost, all datagrams that were taken arrive.
    fn check_datagrams(&self) {
        for (number, plan) in self.scenario.datagrams.iter().enumerate() {
            let came = self.hosts[plan.to].datagrams.contains(&(number as u64));
            let refused = self.hosts[plan.from].refused.contains(&(number as u64));
            assert!(came || refused, "datagram {number} from {} to {} was lost", plan.from, plan.to);
        }
    }

    /// Adds a cause to each connection that is under way and meets the condition.
    pub fn blame(&mut self, cause: Cause, touches: impl Fn(&crate::scenario::ConnPlan, &Record) -> bool) {
        for (plan, record) in self.scenario.connections.iter().zip(&mut self.records) {
            let ended = |i: &Option<usize>| i.is_some_and(|i| self.programs[i].is_done());
            if !record.programs.iter().all(ended) && touches(plan, record) {
                record.causes |= cause;
            }
        }
    }
}

fn context<'a>(host: &'a mut Host, now: Instant, index: usize, scratch: &'a mut Scratch) -> Context<'a> {
    Context { sockets: &mut host.sockets, now, epoll: host.epoll, token: index as u64, scratch }
}
