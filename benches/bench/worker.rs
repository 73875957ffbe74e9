//! Workers in memory: whole turns of the runtime, with a program on the calls of
//! the C layer, and no kernel. Behind each worker's device are its clients, on the
//! same thread, so that a core holds both ends. The program runs on the worker, or
//! on a thread of its own.

use std::cell::Cell;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crossbeam::utils::CachePadded;
use ringroad::device::{Capabilities, Device};
use ringroad::errno;
use ringroad::frame::{Arena, Batch, Packet, Pool, TxQueue};
use ringroad::runtime::{Config, Runtime, Station, Wait, clock, posix};
use ringroad::socket::linux::{AF_INET, EPOLL_CTL_ADD, EPOLLIN, MSG_NOSIGNAL, SO_REUSEADDR, SO_REUSEPORT, SOCK_STREAM, SOL_SOCKET};
use ringroad::socket::{EpollEvent, Handle, Sockets};
use ringroad::stack::{self, Mode, Stack};
use ringroad::telemetry::latency::Latency;
use ringroad::wire::ethernet::Mac;
use serde::{Deserialize, Serialize};

const MESSAGE: usize = 64;
const EVENTS: usize = 64;
const FRAMES: u32 = 8192;
/// Connections that are being opened at one time.
const OPENING: usize = 16;
/// How long is waited for all connections.
const START: Duration = Duration::from_secs(10);
/// Before the measured time and after it: others that are started together with
/// this one are then under way, too.
const MARGIN: Duration = Duration::from_millis(200);

/// Echo in memory, on workers with their programs.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// The cores of the workers, one each
    #[arg(long, value_delimiter = ',', required = true)]
    cores: Vec<usize>,
    /// The program runs on a thread of its own, on this core
    #[arg(long)]
    thread: Option<usize>,
    /// That thread sleeps where there is nothing to do
    #[arg(long, requires = "thread")]
    block: bool,
    /// Clients of each worker
    #[arg(long, default_value_t = 1)]
    connections: usize,
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
}

/// What it prints.
#[derive(Serialize, Deserialize, Debug)]
pub struct Found {
    /// Echoes in a second, all workers together.
    pub rate: f64,
    pub p50: f64,
    pub p99: f64,
    pub p999: f64,
}

/// How far it has come: for the threads that take part.
struct Stage {
    /// Programs that listen, and how many there will be. Before that, nobody is called.
    listening: AtomicUsize,
    programs: usize,
    /// Latencies count.
    measure: AtomicBool,
    /// Programs are to end.
    over: AtomicBool,
}

/// What a worker's clients tell.
#[derive(Default)]
struct Tale {
    answers: CachePadded<AtomicU64>,
    latency: Mutex<Latency>,
}

impl Tale {
    fn latency(&self) -> MutexGuard<'_, Latency> {
        self.latency.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// The clients of one worker.
struct Clients {
    sockets: Sockets,
    set: Handle,
    flows: Vec<Handle>,
    /// When each flow's request left.
    sent: Vec<u64>,
    /// Flows up to here were begun.
    begun: usize,
    all: usize,
    batch: Batch,
    events: Vec<EpollEvent>,
    buffer: Vec<u8>,
    latency: Latency,
    stage: Arc<Stage>,
    tale: Arc<Tale>,
}

fn server() -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], 7))
}

/// A core with this address, over these frames.
fn core(host: u8, pool: Pool) -> Sockets {
    let config = stack::Config {
        mode: Mode::Owned,
        addresses: vec![(IpAddr::from([10, 0, 0, host]), 24)],
        mac: Mac([2, 0, 0, 0, 0, host]),
        ..stack::Config::default()
    };
    Sockets::new(Stack::new(config, pool, host.into()))
}

impl Clients {
    fn new(host: u8, all: usize, stage: Arc<Stage>, tale: Arc<Tale>) -> Result<Self, errno::Errno> {
        let mut sockets = core(host, Pool::heap(FRAMES, 2048));
        let set = sockets.epoll_create()?;
        Ok(Self {
            sockets,
            set,
            flows: Vec::new(),
            sent: vec![0; all],
            begun: 0,
            all,
            batch: Batch::new(),
            events: Vec::with_capacity(EVENTS),
            buffer: vec![7; MESSAGE],
            latency: Latency::new(),
            stage,
            tale,
        })
    }

    /// Take in what the server sent, ask again, and have ready what is to be sent.
    fn work(&mut self) {
        let now = clock::now();
        self.sockets.receive(now, &mut self.batch);
        if self.begun < self.all && self.stage.listening.load(Ordering::Relaxed) == self.stage.programs {
            self.open(now.as_nanos());
        }
        self.events.clear();
        let _ = self.sockets.epoll_wait(self.set, &mut self.events, EVENTS);
        let measure = self.stage.measure.load(Ordering::Relaxed);
        let mut answers = 0;
        for event in &self.events {
            let flow = event.data as usize;
            let h = self.flows[flow];
            assert_eq!(self.sockets.recv(h, &mut self.buffer, 0), Ok(MESSAGE), "a whole answer");
            assert_eq!(self.sockets.send(h, &self.buffer, 0), Ok(MESSAGE), "room for a request");
            let sent = std::mem::replace(&mut self.sent[flow], now.as_nanos());
            if measure {
                self.latency.record(now.as_nanos() - sent);
            }
            answers += 1;
        }
        if answers > 0 {
            let before = self.tale.answers.load(Ordering::Relaxed);
            self.tale.answers.store(before + answers, Ordering::Relaxed);
        }
        self.sockets.turn(now);
    }

    /// Connect further flows, and ask on those that are connected.
    #[cold]
    fn open(&mut self, now: u64) {
        while self.flows.len() < self.all.min(self.begun + OPENING) {
            let h = self.sockets.socket(AF_INET, SOCK_STREAM, 0).expect("a socket");
            let _in_progress = self.sockets.connect(h, server());
            self.flows.push(h);
        }
        while let Some(&h) = self.flows.get(self.begun).filter(|h| self.sockets.peer_addr(**h).is_ok()) {
            assert_eq!(self.sockets.send(h, &self.buffer, 0), Ok(MESSAGE), "room for a request");
            self.sent[self.begun] = now;
            let data = self.begun as u64;
            self.sockets.epoll_ctl(self.set, EPOLL_CTL_ADD, h, EPOLLIN, data).expect("a member");
            self.begun += 1;
        }
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        self.tale.latency().merge(&self.latency);
    }
}

/// A device at whose other side a worker's clients are.
struct Wire {
    about: Capabilities,
    clients: Clients,
}

impl Device for Wire {
    fn capabilities(&self) -> &Capabilities {
        &self.about
    }

    fn receive(&mut self, pool: &mut Pool, batch: &mut Batch) {
        self.clients.work();
        carry(self.clients.sockets.tx(), pool, batch);
    }

    fn transmit(&mut self, pool: &mut Pool, queue: &mut TxQueue) {
        let theirs = self.clients.sockets.tx().0;
        carry((pool, queue), theirs, &mut self.clients.batch);
    }

    fn reap(&mut self, _: &mut Pool) {}

    fn refill(&mut self, _: &mut Pool) {}
}

/// Copy packets over, as a NIC would, as many as fit.
fn carry((from, queue): (&mut Pool, &mut TxQueue), to: &mut Pool, batch: &mut Batch) {
    while batch.remaining_capacity() > 0 && to.available() > 0 {
        let Some(desc) = queue.pop() else { return };
        let bytes = from.tx_bytes(&desc);
        let mut frame = to.alloc().expect("it has one");
        to.buffer_mut(&mut frame)[..bytes.len()].copy_from_slice(bytes);
        frame.set_range(0, bytes.len());
        batch.push(Packet::single(frame));
        from.complete(desc.index());
    }
}

/// The echo server on the program's side.
struct Program {
    set: i32,
    listener: i32,
    events: Vec<EpollEvent>,
    buffer: Vec<u8>,
}

impl Program {
    fn new(stage: &Stage) -> Result<Self, errno::Errno> {
        let set = posix::epoll_create(true)?;
        let listener = posix::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_NONBLOCK, 0)?;
        for option in [SO_REUSEADDR, SO_REUSEPORT] {
            posix::set_option(listener, SOL_SOCKET, option, &1i32.to_ne_bytes())?;
        }
        posix::bind(listener, server())?;
        posix::listen(listener, 4096)?;
        posix::epoll_ctl(set, libc::EPOLL_CTL_ADD, listener, EPOLLIN, listener as u64)?;
        stage.listening.fetch_add(1, Ordering::Relaxed);
        Ok(Self { set, listener, events: Vec::with_capacity(EVENTS), buffer: vec![0; 2 * MESSAGE] })
    }

    /// Serve what is ready; `wait`: at most so long for something.
    fn turn(&mut self, wait: Duration) -> Result<(), errno::Errno> {
        self.events.clear();
        posix::epoll_wait(self.set, &mut self.events, EVENTS, Some(wait))?;
        for event in &self.events {
            let fd = event.data as i32;
            if fd == self.listener {
                while let Ok((new, _)) = posix::accept4(fd, libc::SOCK_NONBLOCK) {
                    posix::epoll_ctl(self.set, libc::EPOLL_CTL_ADD, new, EPOLLIN, new as u64)?;
                }
                continue;
            }
            let n = posix::recv(fd, &mut self.buffer, 0)?;
            posix::send(fd, &self.buffer[..n], MSG_NOSIGNAL)?;
        }
        Ok(())
    }
}

thread_local! {
    static PROGRAM: Cell<Option<Program>> = const { Cell::new(None) };
}

/// A worker's turn of its own program; false ends it.
fn turn(stage: &Stage) -> bool {
    let mut program = match PROGRAM.take() {
        Some(program) => program,
        None => match Program::new(stage) {
            Ok(program) => program,
            Err(why) => {
                eprintln!("program: {why}");
                return false;
            }
        },
    };
    let done = program.turn(Duration::ZERO);
    PROGRAM.set(Some(program));
    if let Err(why) = done {
        eprintln!("program: {why}");
    }
    done.is_ok() && !stage.over.load(Ordering::Relaxed)
}

fn start(args: &Args, stage: &Arc<Stage>, tales: &[Arc<Tale>]) -> Result<Runtime, String> {
    let workers = args.cores.len() as u32;
    let arena = Arena::heap(workers * FRAMES, 2048);
    let mut stations = Vec::new();
    for (i, tale) in tales.iter().enumerate() {
        let clients = Clients::new(2 + i as u8, args.connections, stage.clone(), tale.clone());
        let clients = clients.map_err(|e| e.to_string())?;
        let about = Capabilities { mtu: 1500, mac: [2, 0, 0, 0, 0, 1], partial_checksums: false };
        let sockets = core(1, Pool::new(arena.clone(), i as u32 * FRAMES, FRAMES));
        stations.push(Station { device: Wire { about, clients }, sockets, fd: None, mirror: None, tick: None });
    }
    let config = Config { workers: args.cores.len(), cpus: args.cores.clone(), wait: Wait::Spin, ..Config::new("memory") };
    let runtime = Runtime::with_stations(config, stations).map_err(|e| e.to_string())?;
    runtime.install().map_err(|e| e.to_string())?;
    Ok(runtime)
}

/// The program on its own thread.
fn serve_apart(core: usize, block: bool, stage: &Stage) -> Result<(), String> {
    core_affinity::set_for_current(core_affinity::CoreId { id: core });
    let wait = if block { Duration::from_millis(20) } else { Duration::ZERO };
    let mut program = Program::new(stage).map_err(|e| e.to_string())?;
    while !stage.over.load(Ordering::Relaxed) {
        program.turn(wait).map_err(|e| e.to_string())?;
    }
    Ok(())
}

fn answers(tales: &[Arc<Tale>]) -> Vec<u64> {
    tales.iter().map(|tale| tale.answers.load(Ordering::Relaxed)).collect()
}

/// From the time when every worker has echoed: the rate of all together.
fn watch(seconds: f64, stage: &Stage, tales: &[Arc<Tale>], alive: impl Fn() -> bool) -> Result<f64, String> {
    let begun = Instant::now();
    while answers(tales).contains(&0) {
        if begun.elapsed() > START || !alive() {
            return Err("not every worker has echoed".into());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    std::thread::sleep(MARGIN);
    stage.measure.store(true, Ordering::Relaxed);
    let (from, before) = (Instant::now(), answers(tales));
    std::thread::sleep(Duration::from_secs_f64(seconds));
    let (took, after) = (from.elapsed().as_secs_f64(), answers(tales));
    stage.measure.store(false, Ordering::Relaxed);
    std::thread::sleep(MARGIN);
    if before.iter().zip(&after).any(|(before, after)| before == after) {
        return Err("a worker stood still".into());
    }
    Ok((after.iter().sum::<u64>() - before.iter().sum::<u64>()) as f64 / took)
}

/// Measure.
fn measure(args: &Args) -> Result<Found, String> {
    let programs = if args.thread.is_some() { 1 } else { args.cores.len() };
    let (listening, measure, over) = Default::default();
    let stage = Arc::new(Stage { listening, programs, measure, over });
    let tales: Vec<Arc<Tale>> = args.cores.iter().map(|_| Arc::default()).collect();
    let runtime = start(args, &stage, &tales)?;
    let watched = std::thread::scope(|scope| {
        let program = match args.thread {
            Some(core) => scope.spawn({
                let stage = &stage;
                move || serve_apart(core, args.block, stage)
            }),
            None => scope.spawn(|| {
                let stage = stage.clone();
                runtime.run_loop(move || turn(&stage)).map_err(|e| e.to_string())
            }),
        };
        let rate = watch(args.seconds, &stage, &tales, || !program.is_finished());
        stage.over.store(true, Ordering::Relaxed);
        let ended = program.join().unwrap_or_else(|_| Err("the program panicked".into()));
        // Where it stood still, the program knows why.
        ended.and(rate)
    });
    drop(runtime);
    let rate = watched?;
    let mut latency = Latency::new();
    tales.iter().for_each(|tale| latency.merge(&tale.latency()));
    let at = |percent| latency.percentile(percent).as_nanos() as f64;
    Ok(Found { rate, p50: at(50.0), p99: at(99.0), p999: at(99.9) })
}

/// Measure and print.
pub fn run(args: &Args) -> Result<(), String> {
    let found = measure(args)?;
    println!("{}", serde_json::to_string(&found).map_err(|e| e.to_string())?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A process has one runtime that its calls go to.
    #[test]
    fn workers_and_threads_echo() {
        let cores: Vec<usize> = super::super::machine::cores().into_iter().cycle().take(2).collect();
        for (workers, thread, block) in [(1, None, false), (2, None, false), (1, Some(cores[1]), false), (1, Some(cores[1]), true)] {
            let args = Args { cores: cores[..workers].to_vec(), thread, block, connections: 20, seconds: 0.3 };
            let found = measure(&args).unwrap();
            assert!(found.rate > 100.0 && found.p50 <= found.p99 && found.p50 > 0.0, "{args:?} {found:?}");
        }
    }
}
