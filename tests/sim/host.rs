//! A host: a device, a stack, listeners, and what its programs wait for.

use crate::host_plan::HostPlan;
use crate::net::{Net, NetDevice};
use crate::scenario::{address, mac};
use ringroad::device::Device;
use ringroad::errno::Errno;
use ringroad::frame::{Batch, Pool};
use ringroad::socket::linux::*;
use ringroad::socket::{EpollEvent, Handle, SendMeta, Sockets};
use ringroad::stack::Stack;
use ringroad::time::{Duration, Instant};
use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};
use std::net::{IpAddr, SocketAddr};

const UDP_PORT: u16 = 5000;
/// What listeners are called in the epoll set: from here up.
pub const LISTENERS: u64 = 1 << 40;
/// In the timers, in a program's place: a listener may accept again.
pub const NOBODY: usize = usize::MAX;
/// Bytes of a frame.
const FRAME: u16 = 2048;

pub struct Host {
    pub n: usize,
    pub plan: HostPlan,
    pub device: NetDevice,
    pub sockets: Sockets,
    batch: Batch,
    pub listeners: Vec<Option<Handle>>,
    /// No `accept` before then.
    pub accept_after: Vec<Instant>,
    pub udp: Handle,
    pub epoll: Handle,
    /// Numbers of the datagrams that came.
    pub datagrams: BTreeSet<u64>,
    /// Numbers of those that were refused here: the ring was full, say.
    pub refused: BTreeSet<u64>,
    /// It stopped, and did not begin again.
    pub down: bool,
    /// It stopped, and began again.
    pub restarted: bool,
    /// It has its address.
    pub addressed: bool,
    /// It has something to do that no timer tells of.
    pub dirty: bool,
    /// Programs that run here, and when they want to.
    pub programs: Vec<usize>,
    pub timers: BinaryHeap<Reverse<(Instant, usize)>>,
    /// Routes to other hosts, and the gateways they go by.
    pub routes: Vec<(usize, usize)>,
}

impl Host {
    /// A host whose stack begins at `now`.
    pub fn new(n: usize, plan: &HostPlan, net: &Net, now: Instant, seed: u64) -> Self {
        let pool = Pool::heap(plan.frames, FRAME);
        let mut sockets = Sockets::new(Stack::new(plan.config.clone(), pool, seed));
        sockets.turn(now);
        let udp = sockets.socket(AF_INET, SOCK_DGRAM, 0).expect("a socket");
        sockets.bind(udp, SocketAddr::new(address(n).into(), UDP_PORT)).expect("bind");
        let epoll = sockets.epoll_create().expect("an epoll set");
        let mut host = Self {
            n,
            plan: plan.clone(),
            device: net.device(n, mac(n), plan.config.mtu),
            sockets,
            batch: Batch::new(),
            listeners: vec![None; plan.listeners.len()],
            accept_after: vec![now; plan.listeners.len()],
            udp,
            epoll,
            datagrams: BTreeSet::new(),
            refused: BTreeSet::new(),
            down: false,
            restarted: false,
            addressed: true,
            dirty: true,
            programs: Vec::new(),
            timers: BinaryHeap::new(),
            routes: Vec::new(),
        };
        for i in 0..plan.listeners.len() {
            host.listen(i);
        }
        host.device.refill(&mut host.sockets.stack.core.pool);
        host
    }

    /// Opens listener `i`. A port in use by connections is no obstacle.
    pub fn listen(&mut self, i: usize) {
        if self.listeners[i].is_some() || self.down {
            return;
        }
        let plan = &self.plan.listeners[i];
        let h = self.sockets.socket(AF_INET, SOCK_STREAM, 0).expect("a socket");
        let on = 1i32.to_ne_bytes();
        self.sockets.set_option(h, SOL_SOCKET, SO_REUSEADDR, &on).expect("SO_REUSEADDR");
        let any: IpAddr = [0, 0, 0, 0].into();
        self.sockets.bind(h, SocketAddr::new(any, plan.port)).expect("bind");
        for (name, value) in [(TCP_FASTOPEN, plan.fast_open), (TCP_DEFER_ACCEPT, plan.defer)] {
            self.sockets.set_option(h, IPPROTO_TCP, name, &value.to_ne_bytes()).expect("an option");
        }
        if let Some(name) = plan.congestion {
            self.sockets.set_option(h, IPPROTO_TCP, TCP_CONGESTION, name.as_bytes()).expect("TCP_CONGESTION");
        }
        self.sockets.listen(h, plan.backlog).expect("listen");
        let token = LISTENERS + i as u64;
        self.sockets.epoll_ctl(self.epoll, EPOLL_CTL_ADD, h, EPOLLIN | EPOLLET, token).expect("EPOLL_CTL_ADD");
        self.listeners[i] = Some(h);
        self.dirty = true;
    }

    pub fn close_listener(&mut self, i: usize) {
        if let Some(h) = self.listeners[i].take() {
            self.sockets.close(h).expect("close of a listener");
            self.dirty = true;
        }
    }

    /// When it has something to do next.
    pub fn next_event(&self, net: &Net, now: Instant) -> Option<Instant> {
        if self.dirty {
            return Some(now);
        }
        let timer = self.timers.peek().map(|t| t.0.0);
        let stack = if self.down { None } else { self.sockets.next_deadline() };
        [timer, stack, net.next_event(self.n)].into_iter().flatten().min()
    }

    /// True where the stack's timers have something to do.
    pub fn timers_are_due(&self, now: Instant) -> bool {
        self.sockets.next_deadline().is_some_and(|at| at <= now)
    }

    pub fn input(&mut self, now: Instant) {
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

    pub fn output(&mut self, now: Instant) {
        self.sockets.turn(now);
        let (pool, queue) = self.sockets.tx();
        self.device.transmit(pool, queue);
        self.device.refill(pool);
    }

    /// No frame is lost, or in two hands.
    pub fn check_frames(&self) {
        let stack = &self.sockets.stack;
        stack.core.pool.assert_conserved();
        let (held, counted) = (stack.core.pool.counts().held as usize, self.sockets.held_frames());
        assert_eq!(held, counted, "frames that the pool of host {} calls held, and their holders", self.n);
    }

    /// What epoll reports now.
    pub fn events(&mut self, out: &mut Vec<EpollEvent>) {
        out.clear();
        self.sockets.epoll_wait(self.epoll, out, self.plan.wait).expect("epoll_wait");
    }

    /// True where epoll has something to report.
    pub fn has_events(&self) -> bool {
        self.sockets.epoll_may_be_ready(self.epoll)
    }

    /// The next connection of listener `i`, if it accepts now.
    pub fn accept(&mut self, i: usize, now: Instant) -> Option<(Handle, SocketAddr)> {
        let listener = self.listeners[i]?;
        if self.accept_after[i] > now {
            return None;
        }
        match self.sockets.accept(listener) {
            Ok(accepted) => {
                let pause = self.plan.listeners[i].pause;
                if pause > Duration::ZERO {
                    self.accept_after[i] = now + pause;
                    self.timers.push(Reverse((now + pause, NOBODY)));
                }
                Some(accepted)
            }
            Err(Errno::EAGAIN) => None,
            Err(error) => panic!("accept on host {}: {error:?}", self.n),
        }
    }

    pub fn send_datagram(&mut self, number: u64, to: usize, len: usize) {
        if self.down {
            return;
        }
        let to = SocketAddr::new(address(to).into(), UDP_PORT);
        let data = datagram(number, len);
        match self.sockets.send_to(self.udp, &data, 0, Some(to), &SendMeta::default()) {
            Ok(len) => assert_eq!(len, data.len()),
            // An earlier one met nobody, or there is no frame, room or address.
            Err(
                Errno::ECONNREFUSED
                | Errno::EHOSTUNREACH
                | Errno::ENETUNREACH
                | Errno::EADDRNOTAVAIL
                | Errno::EMSGSIZE
                | Errno::EAGAIN
                | Errno::ENOBUFS,
            ) => {
                self.refused.insert(number);
            }
            Err(error) => panic!("send_to: {error:?}"),
        }
        self.dirty = true;
    }

    pub fn receive_datagrams(&mut self, buffer: &mut [u8]) {
        loop {
            match self.sockets.recv(self.udp, buffer, 0) {
                Ok(len) => {
                    let number = u64::from_be_bytes(buffer[..8].try_into().expect("eight bytes"));
                    assert!(buffer[..len] == datagram(number, len)[..], "datagram {number} was changed");
                    self.datagrams.insert(number);
                }
                Err(Errno::EAGAIN) => return,
                Err(Errno::ECONNREFUSED | Errno::EHOSTUNREACH | Errno::EMSGSIZE) => {}
                Err(error) => panic!("recv of a datagram: {error:?}"),
            }
        }
    }

    /// After the last connection: nothing is left but what the host began with.
    pub fn check_empty(&self) {
        let n = self.n;
        let tcp = &self.sockets.stack.tcp;
        assert_eq!((tcp.connections(), tcp.waiting()), (0, 0), "host {n} keeps connections");
        assert_eq!(tcp.leftovers(), Vec::<&str>::new(), "host {n} keeps something of connections");
        let counts = self.sockets.stack.core.pool.counts();
        assert_eq!((counts.held, counts.tx), (0, 0), "host {n} keeps frames");
        let listeners = self.listeners.iter().flatten().count();
        assert_eq!(self.sockets.open_handles(), 2 + listeners, "host {n} keeps handles");
        assert_eq!(self.sockets.lent_frames(), 0, "host {n} has lent frames");
    }
}

/// The bytes of a datagram: its number, and what follows from it.
fn datagram(number: u64, len: usize) -> Vec<u8> {
    let tail = (8..len).map(|i| (number as usize * 31 + i * 7) as u8);
    number.to_be_bytes().into_iter().chain(tail).collect()
}
