//! Two workers at one address, whose packets come to either queue.

use super::*;
use crate::device::Capabilities;
use crate::errno::Errno;
use crate::frame::{Batch, Packet, TxQueue};
use crate::runtime::directory::{Book, Directory};
use crate::runtime::exchange::{Exchange, STRAYS};
use crate::runtime::hub::Hub;
use crate::runtime::worker::Core;
use crate::runtime::{App, posix};
use crate::socket::Handle;
use crate::telemetry::DropReason;
use crate::time::Instant;
use crate::wire::ethernet::{self, Mac};
use crate::wire::{checksum, ipv4, udp};
use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use zerocopy::IntoBytes;

/// A wire between one queue (B's) and two (A's). Which of the two gets a packet
/// changes all the time.
#[derive(Default)]
pub(super) struct Cable {
    queues: [Mutex<VecDeque<Vec<u8>>>; 3],
    sent: AtomicUsize,
}

pub(super) struct Plug {
    cable: Arc<Cable>,
    queue: usize,
    capabilities: Capabilities,
}

const AT_B: usize = 2;

impl Plug {
    pub(super) fn new(cable: &Arc<Cable>, queue: usize) -> Self {
        let mac = [2, 0, 0, 0, 0, if queue == AT_B { 0xb } else { 0xa }];
        let capabilities = Capabilities { mtu: 1500, mac, partial_checksums: false };
        Self { cable: cable.clone(), queue, capabilities }
    }
}

impl Device for Plug {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn receive(&mut self, pool: &mut Pool, batch: &mut Batch) {
        let mut queue = self.cable.queues[self.queue].lock().unwrap();
        while !batch.is_full() && !queue.is_empty() {
            let Some(mut frame) = pool.alloc() else { break };
            let bytes = queue.pop_front().unwrap();
            pool.buffer_mut(&mut frame)[..bytes.len()].copy_from_slice(&bytes);
            frame.set_range(0, bytes.len());
            batch.push(Packet::single(frame));
        }
    }

    fn transmit(&mut self, pool: &mut Pool, queue: &mut TxQueue) {
        while let Some(desc) = queue.pop() {
            let bytes = pool.tx_bytes(&desc).to_vec();
            pool.complete(desc.index());
            let n = self.cable.sent.fetch_add(1, Ordering::Relaxed);
            let arp = bytes[12..14] == [8, 6];
            match self.queue {
                AT_B if arp => {
                    // As the steering has it: every queue learns of neighbours.
                    self.cable.queues[0].lock().unwrap().push_back(bytes.clone());
                    self.cable.queues[1].lock().unwrap().push_back(bytes);
                }
                AT_B => self.cable.queues[n / 7 % 2].lock().unwrap().push_back(bytes),
                _ => self.cable.queues[AT_B].lock().unwrap().push_back(bytes),
            }
        }
    }

    fn reap(&mut self, _: &mut Pool) {}

    fn refill(&mut self, _: &mut Pool) {}
}

pub(super) fn seat(plug: Plug, ip: IpAddr, pool: Pool) -> Station<Plug> {
    let config = stack::Config {
        mode: stack::Mode::Owned,
        addresses: vec![(ip, 24)],
        mac: crate::wire::ethernet::Mac(plug.capabilities().mac),
        ..stack::Config::default()
    };
    let sockets = Sockets::new(Stack::new(config, pool, 11 + plug.queue as u64));
    Station { device: plug, sockets, fd: None, mirror: None, tick: None }
}

/// A with two workers, B with one.
fn cabled() -> (Runtime, Runtime) {
    let cable = Arc::new(Cable::default());
    let arena = Arena::heap(2048, 2048);
    let share = |i: u32| Pool::new(arena.clone(), i * 1024, 1024);
    let a = (0..2).map(|i| seat(Plug::new(&cable, i), A, share(i as u32))).collect();
    let b = vec![seat(Plug::new(&cable, AT_B), B, Pool::new(Arena::heap(1024, 2048), 0, 1024))];
    let config = Config { workers: 2, ..config(Wait::Block) };
    (
        Runtime::with_stations(config.clone(), a).unwrap(),
        Runtime::with_stations(Config { workers: 1, ..config }, b).unwrap(),
    )
}

/// Sends a megabyte, and reads it back.
struct Bulk {
    h: Handle,
    sent: usize,
    got: usize,
}

const TOTAL: usize = 1_000_000;

fn byte(i: usize) -> u8 {
    (i ^ (i >> 8) ^ (i >> 13)) as u8
}

impl App for Bulk {
    fn turn(&mut self, _now: Instant, sockets: &mut Sockets) -> ControlFlow<()> {
        let data: Vec<u8> = (self.sent..(self.sent + 4000).min(TOTAL)).map(byte).collect();
        if !data.is_empty()
            && let Ok(n) = sockets.send(self.h, &data, 0)
        {
            self.sent += n;
        }
        let mut buf = [0; 8192];
        match sockets.recv(self.h, &mut buf, 0) {
            Ok(n) => {
                assert!(n > 0, "ended after {} bytes", self.got);
                assert!(buf[..n].iter().enumerate().all(|(i, b)| *b == byte(self.got + i)));
                self.got += n;
            }
            Err(error) => assert_eq!(error, Errno::EAGAIN),
        }
        if self.got == TOTAL {
            sockets.close(self.h).unwrap();
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    }
}

#[test]
fn connections_survive_that_their_packets_change_queues() {
    let _turn = super::threads::one_at_a_time();
    let (a, b) = cabled();
    a.install().unwrap();
    let listener = posix::socket(libc::AF_INET, libc::SOCK_STREAM, 0).unwrap();
    posix::bind(listener, at(A, 8)).unwrap();
    posix::listen(listener, 16).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let (fd, _) = posix::accept4(listener, 0).unwrap();
            let mut buf = vec![0; 30_000];
            loop {
                match posix::recv(fd, &mut buf, 0).unwrap() {
                    0 => break,
                    n => assert_eq!(posix::send(fd, &buf[..n], 0), Ok(n)),
                }
            }
            posix::close(fd).unwrap();
        });
        b.run(|_, sockets| {
            let h = sockets.socket(libc::AF_INET, libc::SOCK_STREAM, 0).unwrap();
            assert_eq!(sockets.connect(h, at(A, 8)), Err(Errno::EINPROGRESS));
            Bulk { h, sent: 0, got: 0 }
        })
        .unwrap();
    });
    posix::close(listener).unwrap();
}

/// Two workers at A, without threads: each has its turn when the test says so.
/// The second one holds UDP port 53.
pub(super) fn two_cores() -> (Core, Core, Handle) {
    let cable = Arc::new(Cable::default());
    let arena = Arena::heap(4096, 2048);
    let hub = Hub::new(Config { workers: 2, ..config(Wait::Block) }, 2, arena.clone()).unwrap();
    let directory = Directory::new(2, (1, 2));
    let core = |worker: usize, exchange| {
        let pool = Pool::new(arena.clone(), worker as u32 * 2048, 2048);
        let mut sockets = seat(Plug::new(&cable, worker), A, pool).sockets;
        let book = Book { directory: directory.clone(), worker };
        sockets.stack.core.book = Some(Box::new(book.clone()));
        sockets.stack.tcp.book = Some(Box::new(book));
        let now = Instant::from_nanos(1);
        Core { hub, worker, seat: &hub.seats[worker], sockets, desk: Default::default(), exchange, program: None, ended: None, now }
    };
    let mut exchanges = Exchange::new(2).into_iter();
    let zero = core(0, exchanges.next().unwrap());
    let mut one = core(1, exchanges.next().unwrap());
    let h = one.sockets.socket(libc::AF_INET, libc::SOCK_DGRAM, 0).unwrap();
    one.sockets.bind(h, at(A, 53)).unwrap();
    Book { directory, worker: 1 }.bound(ipv4::UDP, 53, true);
    (zero, one, h)
}

/// A datagram from B to A's port 53 with this number in it.
pub(super) fn numbered(number: u32) -> Vec<u8> {
    let (IpAddr::V4(src), IpAddr::V4(dst)) = (B, A) else { unreachable!() };
    let payload = number.to_be_bytes();
    let len = udp::HEADER_LEN + payload.len();
    let mut datagram = vec![0; len];
    let pseudo = checksum::pseudo_v4(src.octets(), dst.octets(), ipv4::UDP, len as u16);
    udp::build(&mut datagram, 4000, 53, pseudo, &payload);
    let link = ethernet::Header {
        dst: Mac([2, 0, 0, 0, 0, 0xa]),
        src: Mac([2, 0, 0, 0, 0, 0xb]),
        ethertype: ethernet::IPV4.into(),
    };
    let ip = ipv4::Header::new(src, dst, ipv4::UDP, len, 64, 0, 7, 0);
    [link.as_bytes(), ip.as_bytes(), &datagram].concat()
}

/// What a turn of a worker does with a received packet.
pub(super) fn receive(core: &mut Core, bytes: &[u8]) {
    let mut batch = Batch::new();
    let pool = &mut core.sockets.stack.core.pool;
    let mut frame = pool.alloc().expect("a free frame");
    pool.buffer_mut(&mut frame)[..bytes.len()].copy_from_slice(bytes);
    frame.set_range(0, bytes.len());
    batch.push(Packet::single(frame));
    core.sockets.receive(core.now, &mut batch);
    core.exchange_turn(&mut batch);
}

/// The numbers that came to the socket by way of the other worker.
fn take_numbers(core: &mut Core, h: Handle) -> Vec<u32> {
    let mut numbers = Vec::new();
    while core.exchange_turn(&mut Batch::new()) {
        let mut buf = [0; 4];
        while let Ok((n, _)) = core.sockets.recv_from(h, &mut buf, 0) {
            assert_eq!(n, 4);
            numbers.push(u32::from_be_bytes(buf));
        }
    }
    core.carry_home();
    numbers
}

/// Frames of the worker's pool that something holds.
pub(super) fn held(core: &Core) -> u32 {
    let pool = &core.sockets.stack.core.pool;
    pool.assert_conserved();
    let counts = pool.counts();
    assert_eq!(counts.free + counts.held, pool.capacity(), "the device has none");
    counts.held
}

#[test]
fn a_full_ring_to_another_worker_drops_the_packet_and_loses_no_frame() {
    let (mut zero, mut one, h) = two_cores();
    let dropped = |core: &Core| core.sockets.stack.core.counters.dropped(DropReason::HandOverFull);
    let room = STRAYS as u32;
    // The owner has no turn meanwhile: what the ring has room for waits, each in
    // its frame, and every one more is counted, and its frame is free again.
    for i in 0..room + 100 {
        receive(&mut zero, &numbered(i));
        assert_eq!(dropped(&zero), u64::from((i + 1).saturating_sub(room)));
        assert_eq!(held(&zero), (i + 1).min(room));
    }
    assert!(take_numbers(&mut one, h).into_iter().eq(0..room), "all that waited, in order");
    // The frames that ended there come home.
    while zero.exchange_turn(&mut Batch::new()) {}
    assert_eq!((held(&zero), held(&one)), (0, 0));
    // And there is room again.
    receive(&mut zero, &numbered(7));
    assert_eq!(take_numbers(&mut one, h), [7]);
    while zero.exchange_turn(&mut Batch::new()) {}
    assert_eq!((held(&zero), held(&one)), (0, 0));
    assert_eq!((dropped(&zero), dropped(&one)), (100, 0));
}

/// What these sockets have to send.
fn sent(sockets: &mut Sockets) -> Vec<Vec<u8>> {
    let (pool, queue) = sockets.tx();
    let mut all = Vec::new();
    while let Some(desc) = queue.pop() {
        all.push(pool.tx_bytes(&desc).to_vec());
        pool.complete(desc.index());
    }
    all
}

/// Two programs at these addresses, each with a worker's queue for itself, connect from
/// the same port with the same sequence number: whether each of them is connected in the
/// end, and how many turns of the workers had something handed over.
fn two_clients(addresses: [IpAddr; 2]) -> ([bool; 2], usize) {
    let (zero, one, _) = two_cores();
    let mut cores = [zero, one];
    for core in &mut cores {
        let h = core.sockets.socket(libc::AF_INET, libc::SOCK_STREAM, 0).unwrap();
        core.sockets.bind(h, at(A, 80)).unwrap();
        core.sockets.listen(h, 16).unwrap();
    }
    let cable = Arc::new(Cable::default());
    let mut clients = addresses.map(|ip| {
        let mut sockets = seat(Plug::new(&cable, AT_B), ip, Pool::heap(1024, 2048)).sockets;
        let h = sockets.socket(libc::AF_INET, libc::SOCK_STREAM, 0).unwrap();
        assert_eq!(sockets.connect(h, at(A, 80)), Err(Errno::EINPROGRESS));
        (sockets, h)
    });
    let mut handed_over = 0;
    for turn in 1..2000 {
        let now = Instant::from_nanos(turn * 1_000_000);
        for (core, (sockets, _)) in cores.iter_mut().zip(&mut clients) {
            sockets.turn(now);
            core.now = now;
            sent(sockets).iter().for_each(|bytes| receive(core, bytes));
            handed_over += usize::from(core.exchange_turn(&mut Batch::new()));
            core.sockets.turn(now);
            core.carry_home();
            for bytes in sent(&mut core.sockets) {
                let mut batch = Batch::new();
                let pool = sockets.tx().0;
                let mut frame = pool.alloc().unwrap();
                pool.buffer_mut(&mut frame)[..bytes.len()].copy_from_slice(&bytes);
                frame.set_range(0, bytes.len());
                batch.push(Packet::single(frame));
                sockets.receive(now, &mut batch);
            }
        }
    }
    (clients.map(|(mut sockets, h)| sockets.send(h, b"x", 0) == Ok(1)), handed_over)
}

#[test]
fn a_client_with_anothers_address_port_and_number_is_that_other_one() {
    let other = IpAddr::from([10, 9, 0, 3]);
    assert_eq!(two_clients([B, other]), ([true, true], 0));
    // One flow has one owner, whichever queue its packets come in by: the second one's SYNs
    // go to the first one's worker, and its answers to the first one. None of them goes
    // round in circles: a hand-over for each SYN that is sent again, and its frame's way
    // home.
    let (connected, handed_over) = two_clients([B, B]);
    assert_eq!(connected, [true, false]);
    assert!((2..=10).contains(&handed_over), "{handed_over}");
}

/// Whether somebody wrote to this worker's eventfd.
fn is_woken(core: &Core) -> bool {
    crate::runtime::sys::poll_one(core.seat.sleeper.fd(), Some(0)).unwrap()
}

#[test]
fn a_hand_over_wakes_who_sleeps_and_costs_who_is_awake_no_system_call() {
    let (mut zero, mut one, h) = two_cores();
    receive(&mut zero, &numbered(1));
    assert!(!is_woken(&one) && one.exchange.has_work(), "it looks by itself");
    assert_eq!(take_numbers(&mut one, h), [1]);
    assert!(!is_woken(&zero) && zero.exchange.has_work(), "the frame that came home");
    assert!(zero.exchange_turn(&mut Batch::new()));
    // What a worker does before a sleep: the announcement, then a look.
    one.seat.sleeper.announce();
    assert!(!one.exchange.has_work());
    receive(&mut zero, &numbered(2));
    assert!(is_woken(&one) && one.exchange.has_work());
    one.seat.sleeper.awake(true);
    // Who sends frames home wakes, too.
    zero.seat.sleeper.announce();
    assert!(!zero.exchange.has_work());
    assert_eq!(take_numbers(&mut one, h), [2]);
    assert!(is_woken(&zero) && zero.exchange.has_work());
    zero.seat.sleeper.awake(true);
}
