//! The server's half of an echo through the C layer: a program like
//! examples/echo_server.c, run to completion on a worker. The device is our own;
//! behind it the client works, apart from the count.
//!
//! A worker's turns cannot be wrapped in a function from outside, so callgrind
//! collects always, but not in `apart`; it begins at nought at `first_turn`, and
//! writes down what it has at `last_turn`. The worker's time is made here, too, so
//! that no timer is due because the machine is busy.
//!
//! Where there are several workers, each serves a client of its own, a turn each by turns
//! (`baton.rs`), and what all do counts.

use crate::baton::{self, Mark};
use crate::ours::{self, End, SERVER};
use arrayvec::ArrayVec;
use libc::{c_int, c_void, epoll_event, size_t, sockaddr, socklen_t, ssize_t};
use ringroad::device::{Capabilities, Device};
use ringroad::ffi::{
    rr_accept4, rr_bind, rr_epoll_create1, rr_epoll_ctl, rr_epoll_wait, rr_listen, rr_recv, rr_recvfrom, rr_send,
    rr_sendto, rr_setsockopt, rr_socket, rr_zc_alloc, rr_zc_frame, rr_zc_recv, rr_zc_release, rr_zc_send,
};
use ringroad::frame::{Arena, Batch, Packet, Pool, TxQueue};
use ringroad::runtime::{Config, Runtime, Station, Wait};
use ringroad::socket::Handle;
use ringroad::time::{Duration, Instant};
use std::cell::{Cell, RefCell};
use std::hint::black_box;
use std::mem::MaybeUninit;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How the server does it.
#[derive(Clone, Copy, PartialEq)]
pub enum Serves {
    /// rr_recv, rr_send.
    Streams,
    /// rr_zc_recv, and into a frame of rr_zc_alloc; rr_zc_send.
    Lent,
    /// rr_zc_recv, and the same frame back by rr_zc_send.
    Back,
    /// rr_recvfrom, rr_sendto.
    Datagrams,
}

/// The client behind the device, on the worker's thread as all that is here.
struct Client {
    end: End,
    h: Handle,
    now: Instant,
    batch: Batch,
    asked: bool,
    answers: u64,
    warm: u64,
    steps: u64,
}

/// What both workers write to, where that is asked for: what a shared line looks like.
static SPOILT: AtomicUsize = AtomicUsize::new(0);

/// What to do.
#[derive(Clone, Copy)]
pub struct Job {
    pub serves: Serves,
    pub workers: usize,
    /// Echoes that do not count, before those that do; of each worker.
    pub warm: u64,
    pub steps: u64,
    /// Frames of each worker, and of each client.
    pub frames: u32,
    /// From the middle of the warming up on, what a client sends comes to the other
    /// worker's queue.
    pub crossed: bool,
    /// Both workers write to one line, on purpose.
    pub spoil: bool,
}

/// What crosses on its way to each worker: without the heap, where the two would meet.
static CROSSING: [Mutex<ArrayVec<ArrayVec<u8, 256>, 8>>; 2] = [const { Mutex::new(ArrayVec::new_const()) }; 2];

thread_local! {
    /// The time on a worker's thread, in nanoseconds; 0: the system's.
    static TIME: Cell<u64> = const { Cell::new(0) };
    static CLIENT: RefCell<Option<Client>> = const { RefCell::new(None) };
    static SERVED: Cell<Option<(c_int, c_int)>> = const { Cell::new(None) };
    static DONE: Cell<bool> = const { Cell::new(false) };
    /// The number of the worker whose thread this is.
    static WORKER: Cell<usize> = const { Cell::new(0) };
}

/// Takes the place of libc's in this program. A worker's time goes on by a
/// microsecond each time that it is asked for.
///
/// # Safety
/// `at` is writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(clock: libc::clockid_t, at: *mut libc::timespec) -> c_int {
    let now = TIME.get();
    if now == 0 || clock != libc::CLOCK_MONOTONIC {
        // SAFETY: the caller's promise.
        return unsafe { libc::syscall(libc::SYS_clock_gettime, clock, at) as c_int };
    }
    let now = now + 1000;
    TIME.set(now);
    let now = libc::timespec { tv_sec: (now / 1_000_000_000) as i64, tv_nsec: (now % 1_000_000_000) as i64 };
    // SAFETY: likewise.
    unsafe { at.write(now) };
    0
}

/// Callgrind collects everywhere but in here.
#[inline(never)]
fn apart(worker: usize, work: &mut dyn FnMut(&mut Client)) {
    WORKER.set(worker);
    CLIENT.with_borrow_mut(|client| client.as_mut().map(work));
    black_box(());
}

// The two differ, lest the compiler make one of them.
#[inline(never)]
fn first_turn() {
    baton::mark(Mark::First);
}

#[inline(never)]
fn last_turn() {
    baton::mark(Mark::Last);
}

impl Client {
    fn new(job: Job, worker: usize) -> Self {
        // An address each. Of two that have the same one, with the same seed, the second's
        // SYN is the first one's over again to any server, and so goes to the worker that
        // has that connection; the second client is never answered.
        let mut end = End::with_frames(2 + worker as u8, job.frames, ours::PLAIN);
        let h = if job.serves == Serves::Datagrams { end.connect_datagrams(SERVER) } else { end.connect(SERVER) };
        end.watch(h);
        let now = Instant::ZERO + Duration::from_secs(1);
        Self { end, h, now, batch: Batch::new(), asked: false, answers: 0, warm: job.warm, steps: job.steps }
    }

    /// Takes in what the server sent, asks again, and hands out what is to be sent.
    fn work(&mut self) {
        self.now += Duration::from_micros(1);
        self.end.sockets.receive(self.now, &mut self.batch);
        if !self.asked && self.end.sockets.is_delivered(self.h) {
            // A datagram waits until the address is resolved.
            self.asked = true;
            self.end.begin(self.h);
        } else if self.asked && self.end.ask() {
            self.answers += 1;
        }
        self.end.sockets.turn(self.now);
    }

    fn mark(&self) {
        // A worker whose program has ended has turns without answers until all stop.
        if DONE.get() {
            return;
        }
        if self.answers == self.warm {
            first_turn();
        } else if self.answers == self.warm + self.steps {
            last_turn();
            DONE.set(true);
            baton::done(WORKER.get());
        }
    }
}

/// A device at whose other side the client is.
struct Wire {
    capabilities: Capabilities,
    worker: usize,
    job: Job,
}

/// A packet that has arrived.
fn arrive(pool: &mut Pool, batch: &mut Batch, bytes: &[u8]) {
    let mut frame = pool.alloc().expect("frames enough");
    pool.buffer_mut(&mut frame)[..bytes.len()].copy_from_slice(bytes);
    frame.set_range(0, bytes.len());
    batch.push(Packet::single(frame));
}

impl Device for Wire {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn receive(&mut self, pool: &mut Pool, batch: &mut Batch) {
        let this = &*self;
        apart(this.worker, &mut |client| {
            let (worker, Job { warm, crossed, spoil, .. }) = (this.worker, this.job);
            if !DONE.get() {
                baton::next_turn(worker);
            }
            if spoil {
                SPOILT.fetch_add(1, Ordering::Relaxed);
            }
            client.work();
            let (theirs, queue) = client.end.sockets.tx();
            while let Some(desc) = queue.pop() {
                let bytes = theirs.tx_bytes(&desc);
                if crossed && client.answers >= warm / 2 {
                    let bytes = ArrayVec::try_from(bytes).expect("small packets");
                    baton::aside(|| CROSSING[1 - worker].lock().expect("no panic").push(bytes));
                } else {
                    arrive(pool, batch, bytes);
                }
                theirs.complete(desc.index());
            }
            while let Some(bytes) = crossed.then(|| baton::aside(|| CROSSING[worker].lock().expect("no panic").pop())).flatten() {
                arrive(pool, batch, &bytes);
            }
            client.mark();
        });
    }

    fn transmit(&mut self, pool: &mut Pool, queue: &mut TxQueue) {
        if queue.is_empty() {
            return;
        }
        apart(self.worker, &mut |client| {
            while let Some(desc) = queue.pop() {
                let bytes = pool.tx_bytes(&desc);
                let theirs = client.end.sockets.tx().0;
                let mut frame = theirs.alloc().expect("frames enough");
                theirs.buffer_mut(&mut frame)[..bytes.len()].copy_from_slice(bytes);
                frame.set_range(0, bytes.len());
                client.batch.push(Packet::single(frame));
                pool.complete(desc.index());
            }
        });
    }

    fn reap(&mut self, _: &mut Pool) {}

    fn refill(&mut self, _: &mut Pool) {}
}

type EpollWait = unsafe extern "C" fn(c_int, *mut epoll_event, c_int, c_int) -> c_int;
type Recv = unsafe extern "C" fn(c_int, *mut c_void, size_t, c_int) -> ssize_t;
type Send = unsafe extern "C" fn(c_int, *const c_void, size_t, c_int) -> ssize_t;
type RecvFrom =
    unsafe extern "C" fn(c_int, *mut c_void, size_t, c_int, *mut sockaddr, *mut socklen_t) -> ssize_t;
type SendTo =
    unsafe extern "C" fn(c_int, *const c_void, size_t, c_int, *const sockaddr, socklen_t) -> ssize_t;
type Lend = unsafe extern "C" fn(c_int, *mut rr_zc_frame, usize, c_int) -> isize;
type Take = unsafe extern "C" fn(c_int, *mut rr_zc_frame, usize) -> isize;

/// The calls, as a C program has them: through a pointer, and never inlined.
#[derive(Clone, Copy)]
struct Calls {
    wait: EpollWait,
    recv: Recv,
    send: Send,
    recv_from: RecvFrom,
    send_to: SendTo,
    zc_recv: Lend,
    zc_alloc: Take,
    zc_send: Lend,
    zc_release: Take,
}

fn calls() -> Calls {
    black_box(Calls {
        wait: rr_epoll_wait,
        recv: rr_recv,
        send: rr_send,
        recv_from: rr_recvfrom,
        send_to: rr_sendto,
        zc_recv: rr_zc_recv,
        zc_alloc: rr_zc_alloc,
        zc_send: rr_zc_send,
        zc_release: rr_zc_release,
    })
}

fn watch(set: c_int, fd: c_int) {
    let mut event = epoll_event { events: libc::EPOLLIN as u32, u64: fd as u64 };
    // SAFETY: a valid event.
    assert_eq!(unsafe { rr_epoll_ctl(set, libc::EPOLL_CTL_ADD, fd, &mut event) }, 0);
}

/// The set and the listener (none: -1), made at a worker's first turn.
fn open(job: Job) -> (c_int, c_int) {
    let serves = job.serves;
    // Not before the time that it was, and at the same place of the timer wheel's ticks.
    TIME.set((ringroad::runtime::clock::now().as_nanos() | u64::from(u32::MAX)) + 1);
    CLIENT.set(Some(Client::new(job, WORKER.get())));
    let set = rr_epoll_create1(0);
    let kind = if serves == Serves::Datagrams { libc::SOCK_DGRAM } else { libc::SOCK_STREAM };
    let fd = rr_socket(libc::AF_INET, kind | libc::SOCK_NONBLOCK, 0);
    let any = libc::sockaddr_in {
        sin_family: libc::AF_INET as u16,
        sin_port: SERVER.port().to_be(),
        sin_addr: libc::in_addr { s_addr: 0 },
        sin_zero: [0; 8],
    };
    let on: c_int = 1;
    // SAFETY: a valid value, and its length.
    let set_on = unsafe { rr_setsockopt(fd, libc::SOL_SOCKET, libc::SO_REUSEPORT, (&raw const on).cast(), 4) };
    assert_eq!(set_on, 0);
    // SAFETY: a valid address, and its length.
    assert_eq!(unsafe { rr_bind(fd, (&raw const any).cast(), size_of_val(&any) as u32) }, 0);
    if serves != Serves::Datagrams {
        assert_eq!(rr_listen(fd, 16), 0);
    }
    watch(set, fd);
    let served = (set, if serves == Serves::Datagrams { -1 } else { fd });
    SERVED.set(Some(served));
    served
}

/// One turn of the program, which does `serve` for what can be read; false at the end.
#[inline(always)]
fn turn(serve: impl Fn(c_int, &Calls), open: impl Fn() -> (c_int, c_int), calls: &Calls) -> bool {
    let (set, listener) = SERVED.get().unwrap_or_else(open);
    // As in C, nobody fills them before the call does.
    let mut events = [const { MaybeUninit::<epoll_event>::uninit() }; 64];
    // SAFETY: `events` has room for so many.
    let n = unsafe { (calls.wait)(set, events.as_mut_ptr().cast(), 64, 0) };
    for event in events.iter().take(n.max(0) as usize) {
        // SAFETY: `wait` wrote so many.
        let fd = unsafe { event.assume_init_ref() }.u64 as c_int;
        if fd == listener {
            // SAFETY: null pointers are allowed.
            let new = unsafe { rr_accept4(fd, std::ptr::null_mut(), std::ptr::null_mut(), libc::SOCK_NONBLOCK) };
            watch(set, new);
            continue;
        }
        serve(fd, calls);
    }
    !DONE.get()
}

fn echo(fd: c_int, calls: &Calls) {
    let mut buffer = [const { MaybeUninit::<u8>::uninit() }; 2 * ours::MESSAGE];
    // SAFETY: `buffer` has room for so many bytes.
    let got = unsafe { (calls.recv)(fd, buffer.as_mut_ptr().cast(), buffer.len(), 0) };
    assert_eq!(got, ours::MESSAGE as isize);
    // SAFETY: so many bytes were just read.
    assert_eq!(unsafe { (calls.send)(fd, buffer.as_ptr().cast(), got as usize, libc::MSG_NOSIGNAL) }, got);
}

fn echo_lent(fd: c_int, calls: &Calls) {
    let mut frames = [MaybeUninit::<rr_zc_frame>::uninit(); 2];
    let [read, written] = &mut frames;
    let (read, written) = (read.as_mut_ptr(), written.as_mut_ptr());
    // SAFETY: room for a frame each; what is read and written is theirs.
    unsafe {
        assert_eq!((calls.zc_recv)(fd, read, 1, 0), 1);
        assert_eq!((calls.zc_alloc)(fd, written, 1), 1);
        let len = (*read).len;
        assert!(len == ours::MESSAGE && len <= (*written).len);
        (*written).data.cast::<u8>().copy_from_nonoverlapping((*read).data.cast(), ours::MESSAGE);
        (*written).len = len;
        assert_eq!((calls.zc_send)(fd, written, 1, libc::MSG_NOSIGNAL), 1);
        assert_eq!((calls.zc_release)(fd, read, 1), 1);
    }
}

fn echo_back(fd: c_int, calls: &Calls) {
    let mut frame = MaybeUninit::<rr_zc_frame>::uninit();
    let frame = frame.as_mut_ptr();
    // SAFETY: room for a frame, whose bytes are ours until it is sent.
    unsafe {
        assert_eq!((calls.zc_recv)(fd, frame, 1, 0), 1);
        assert_eq!((*frame).len, ours::MESSAGE);
        let first = (*frame).data.cast::<u8>();
        first.write(first.read().wrapping_add(1));
        assert_eq!((calls.zc_send)(fd, frame, 1, libc::MSG_NOSIGNAL), 1);
    }
}

fn answer(fd: c_int, calls: &Calls) {
    let mut buffer = [const { MaybeUninit::<u8>::uninit() }; 2 * ours::MESSAGE];
    let mut from = MaybeUninit::<libc::sockaddr_in>::uninit();
    let mut len = size_of_val(&from) as socklen_t;
    let (data, from) = (buffer.as_mut_ptr().cast(), from.as_mut_ptr().cast());
    // SAFETY: `buffer` has room for so many bytes, `from` for so many.
    let got = unsafe { (calls.recv_from)(fd, data, buffer.len(), 0, from, &mut len) };
    assert_eq!(got, ours::MESSAGE as isize);
    // SAFETY: so many bytes were just read, and so many of an address.
    assert_eq!(unsafe { (calls.send_to)(fd, data, got as usize, 0, from, len) }, got);
}

fn station(worker: usize, pool: Pool, job: Job) -> Station<Wire> {
    let capabilities = Capabilities { mtu: 1500, mac: [2, 0, 0, 0, 0, 1], partial_checksums: false };
    let device = Wire { capabilities, worker, job };
    // With a `tick` the worker asks for the time by `clock_gettime`, not by the
    // processor's counter.
    let tick: Box<dyn FnMut(Instant) + std::marker::Send> = Box::new(|_| {});
    Station { device, sockets: ours::core(1, pool), fd: None, mirror: None, tick: Some(tick) }
}

/// Has each worker serve so many echoes.
pub fn run(job: Job) {
    let Job { serves, workers, frames, .. } = job;
    baton::players(workers);
    // Who waits for the baton of one that panicked would wait for ever.
    let told = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        told(panic);
        std::process::exit(101);
    }));
    let arena = Arena::heap(workers as u32 * frames, 2048);
    let pool = |worker| Pool::new(arena.clone(), worker as u32 * frames, frames);
    let config = Config { workers, wait: Wait::Spin, seed: Some(7), ..Config::new("memory") };
    let stations = (0..workers).map(|worker| station(worker, pool(worker), job)).collect();
    let runtime = Runtime::with_stations(config, stations).expect("workers");
    runtime.install().expect("the only one");
    let calls = calls();
    let open = move || open(job);
    let ran = match serves {
        Serves::Streams => runtime.run_loop(move || turn(echo, open, &calls)),
        Serves::Lent => runtime.run_loop(move || turn(echo_lent, open, &calls)),
        Serves::Back => runtime.run_loop(move || turn(echo_back, open, &calls)),
        Serves::Datagrams => runtime.run_loop(move || turn(answer, open, &calls)),
    };
    ran.expect("it runs to its end");
}
