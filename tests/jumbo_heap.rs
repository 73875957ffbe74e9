//! A packet of several buffers costs no allocation on receipt, once things are warm; and
//! what comes in so is what was sent, or dropped by name.

use ringroad::frame::{Batch, Frame, Packet, Pool};
use ringroad::socket::linux::*;
use ringroad::socket::{Handle, Sockets};
use ringroad::stack::{Config, Mode, Stack};
use ringroad::telemetry::DropReason;
use ringroad::time::{Duration, Instant};
use ringroad::wire::ethernet::Mac;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::net::{IpAddr, SocketAddr};

struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

fn allocations() -> u64 {
    ALLOCATIONS.with(Cell::get)
}

fn count() {
    // At a thread's end there is nobody left to count for.
    let _ = ALLOCATIONS.try_with(|n| n.set(n.get() + 1));
}

// SAFETY: every call goes to the system's allocator as it is; counting allocates
// nothing, as the cell is made at compile time and needs no drop.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promises are the system allocator's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.realloc(at, layout, size) }
    }
}

/// Bytes of a packet in a frame over AF_XDP, and of a full segment of MTU 9000.
const FRAME: u16 = 3840;
const SEGMENT: usize = 8948;
const BURST: usize = 8;

fn host(number: u8) -> Sockets {
    let config = Config {
        mode: Mode::Owned,
        addresses: vec![(IpAddr::from([10, 0, 0, number]), 24)],
        mac: Mac([2, 0, 0, 0, 0, number]),
        mtu: 9000,
        multi_buffer: true,
        ..Config::default()
    };
    Sockets::new(Stack::new(config, Pool::heap(1024, FRAME), number.into()))
}

struct Pair {
    far: Sockets,
    near: Sockets,
    batch: Batch,
    now: Instant,
}

/// A buffer that has arrived.
fn arrived(pool: &mut Pool, bytes: &[u8]) -> Frame {
    let mut frame = pool.alloc().expect("frames enough");
    frame.set_range(0, bytes.len());
    pool.bytes_mut(&mut frame).copy_from_slice(bytes);
    frame
}

/// What `from` sends is received by `to`, `damage` done to each packet's last buffer: how
/// many packets, and the allocations of who receives.
fn carry(from: &mut Sockets, to: &mut Sockets, batch: &mut Batch, now: Instant, damage: bool) -> (usize, u64) {
    from.turn(now);
    let mut spent = 0;
    while let Some(mut desc) = from.tx().1.pop() {
        let mut frames = Vec::new();
        loop {
            let pool = from.tx().0;
            frames.push(arrived(to.tx().0, pool.tx_bytes(&desc)));
            pool.complete(desc.index());
            if !desc.more {
                break;
            }
            desc = from.tx().1.pop().expect("the rest of a packet");
        }
        if damage && let Some(last) = frames.last_mut() {
            to.tx().0.bytes_mut(last)[0] ^= 1;
        }
        let before = allocations();
        let mut frames = frames.into_iter();
        let mut packet = Packet::single(frames.next().expect("a packet has one"));
        frames.for_each(|frame| packet.push(frame, to.tx().0));
        batch.push(packet);
        spent += allocations() - before;
    }
    let (packets, before) = (batch.len(), allocations());
    to.receive(now, batch);
    (packets, spent + allocations() - before)
}

impl Pair {
    /// Both ways once; `damage` to what comes to the near end.
    fn exchange(&mut self, damage: bool) -> (usize, u64) {
        self.now += Duration::from_micros(20);
        let came = carry(&mut self.far, &mut self.near, &mut self.batch, self.now, damage);
        carry(&mut self.near, &mut self.far, &mut self.batch, self.now, false);
        came
    }

    fn connected() -> (Self, Handle, Handle) {
        let now = Instant::ZERO + Duration::from_secs(1);
        let mut pair = Self { far: host(2), near: host(1), batch: Batch::new(), now };
        let listener = pair.near.socket(AF_INET, SOCK_STREAM, 0).unwrap();
        pair.near.bind(listener, SocketAddr::from(([10, 0, 0, 1], 7))).unwrap();
        pair.near.listen(listener, 4).unwrap();
        let far = pair.far.socket(AF_INET, SOCK_STREAM, 0).unwrap();
        let _in_progress = pair.far.connect(far, SocketAddr::from(([10, 0, 0, 1], 7)));
        for _ in 0..10 {
            pair.exchange(false);
        }
        let near = pair.near.accept(listener).unwrap().0;
        (pair, far, near)
    }
}

#[test]
fn packets_of_several_buffers_are_received_without_the_heap() {
    let (mut pair, far, near) = Pair::connected();
    let data: Vec<u8> = (0..BURST * SEGMENT).map(|i| (i * 7 % 251) as u8).collect();
    let mut buffer = vec![0; BURST * SEGMENT];
    for round in 0..200 {
        assert_eq!(pair.far.send(far, &data, 0), Ok(data.len()));
        let (mut read, mut packets, mut spent) = (0, 0, 0);
        for _ in 0..100 {
            let (came, heap) = pair.exchange(false);
            let before = allocations();
            read += pair.near.recv(near, &mut buffer[read..], 0).unwrap_or(0);
            (packets, spent) = (packets + came, spent + heap + allocations() - before);
            if read == data.len() {
                break;
            }
        }
        assert!(buffer == data, "round {round}");
        if round >= 100 {
            assert_eq!((packets, spent), (BURST, 0), "round {round}");
        }
    }
    pair.near.stack.assert_conserved();
}

#[test]
fn a_damaged_buffer_behind_the_first_is_found() {
    let (mut pair, far, near) = Pair::connected();
    let data = vec![5; SEGMENT];
    let bad = DropReason::TcpBadChecksum;
    let mut buffer = vec![0; 2 * SEGMENT];
    for round in 1..=3 {
        assert_eq!(pair.far.send(far, &data, 0), Ok(data.len()));
        assert_eq!(pair.exchange(true).0, 1);
        assert_eq!(pair.near.bytes_readable(near), Ok(0));
        assert_eq!(pair.near.stack.core.counters.dropped(bad), round);
        // It is sent again.
        pair.now += Duration::from_secs(3);
        for _ in 0..5 {
            pair.exchange(false);
        }
        assert_eq!(pair.near.recv(near, &mut buffer, 0), Ok(SEGMENT));
        assert!(buffer[..SEGMENT] == data);
    }
    pair.near.stack.assert_conserved();
}
