//! Starting and ending a runtime.

use super::channel;
use super::config::{ACK_SPACING, Config, MOST_ACK_SPACING, Mode, Wait};
use super::directory::{Book, Directory};
use super::error::{Error, Result};
use super::exchange::Exchange;
use super::hub::Hub;
use super::kernel::Netlink;
use super::losses::Losses;
use super::mirror::Mirror;
use super::polling::{self, Polling};
use super::ports::{Guard, PortBook};
use super::sys;
use super::program::{App, Program};
use super::worker::{Detach, Station, Worker};
use crate::device::Device;
use crate::device::xdp::{self, Addresses, Attach, Bind, Interface, Steering, XdpConfig, XdpDevice};
use crate::errno::Errno;
use crate::frame::Pool;
use crate::socket::Sockets;
use crate::rng::Rng;
use crate::stack::tcp::FastOpenKeys;
use crate::stack::{self, Stack};
use core::net::IpAddr;
use core::panic::AssertUnwindSafe;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::Arc;
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant};

/// Running workers. Dropping it ends them and detaches from the interface.
#[derive(Debug)]
pub struct Runtime {
    hub: &'static Hub,
    threads: Vec<JoinHandle<()>>,
    mode: String,
    /// The workers are gone, and the interface's interrupts were not put back.
    interrupts_left: Arc<AtomicBool>,
}

impl Runtime {
    /// Opens the interface and starts the workers. Privileges may be dropped
    /// after it (ports below 1024, and neighbours that nobody asked for yet, then
    /// need what the system asks for them).
    ///
    /// # Errors
    /// What failed, why, and what to do.
    pub fn start(config: Config) -> Result<Self> {
        config.validate()?;
        let name = config.interface.clone();
        let system = |what: &str| {
            let what = format!("{name}: {what}");
            move |why: std::io::Error| Error::new(what, why, "")
        };
        let interface = Interface::query(&name).map_err(|e| Error::new("", e, ""))?;
        let netlink = || Netlink::open(interface.index);
        let first = netlink().map_err(system("netlink"))?;
        let owned = !config.addresses.is_empty();
        let addresses = if owned { config.addresses.clone() } else { first.addresses().to_vec() };
        if !addresses.iter().any(|(ip, _)| ip.is_ipv4()) {
            return Err(Error::new(
                name,
                "there is no IPv4 address",
                "give the interface one (`ip address add`), or name one of our own (--address)",
            ));
        }
        let (steering, mut devices) = xdp::open(&xdp_config(&config, &addresses, owned)).map_err(|e| Error::new("", e, ""))?;
        let polling = polling::begin(&config, &interface, devices.iter_mut().map(|(device, _)| device))?;
        // IPv6 stays with the kernel, and so do its ports (bind would refuse a link-local
        // address: it needs the interface's number as well).
        let list: Vec<IpAddr> = addresses.iter().map(|(ip, _)| *ip).filter(IpAddr::is_ipv4).collect();
        let book = match owned {
            true => None,
            false => Some(Arc::new(PortBook::new(steering.clone(), list, config.active_ports).map_err(
                |e| Error::new(&*name, format!("reserving ports for connections: {e}"), ""),
            )?)),
        };
        let seed = seed(&config)?;
        let config = with_keys(config, seed);
        let workers = devices.len();
        let directory = (workers > 1).then(|| Directory::new(workers, (seed, !seed)));
        let mut stations = Vec::with_capacity(workers);
        for (i, (device, pool)) in devices.into_iter().enumerate() {
            let netlink = netlink().map_err(system("netlink"))?;
            let share = book.as_ref().and_then(|book| book.share(i, workers));
            let mut sockets = sockets(&config, &device, pool, &addresses, share, seed ^ i as u64);
            if book.is_some() {
                sockets.stack.core.set_routes(netlink.routes());
            }
            enter(&mut sockets, book.clone(), directory.as_ref(), i);
            let fd = Some(device_fd(&device));
            let mirror = Some(Mirror::new(netlink, steering.clone(), &name));
            stations.push(Station { device, sockets, fd, mirror, tick: None });
        }
        let mode = describe(&steering, &stations, owned, &polling);
        let detach: Detach = Arc::new(move || steering.detach());
        let mut runtime = Self::launch(config, stations, detach, mode)?;
        if let Polling::On(left) = polling {
            runtime.interrupts_left = left;
        }
        Ok(runtime)
    }

    /// Starts workers over devices that were opened already: the memory wire, in
    /// tests. All pools are equal shares of one arena, in order.
    ///
    /// # Errors
    /// No threads or descriptors.
    pub fn with_stations<D: Device + Send + 'static>(config: Config, mut stations: Vec<Station<D>>) -> Result<Self> {
        if stations.len() > 1 {
            let seed = seed(&config)?;
            let directory = Directory::new(stations.len(), (seed, !seed));
            for (i, station) in stations.iter_mut().enumerate() {
                enter(&mut station.sockets, None, Some(&directory), i);
            }
        }
        Self::launch(config, stations, Arc::new(|| {}), "memory".to_owned())
    }

    fn launch<D: Device + Send + 'static>(
        config: Config,
        stations: Vec<Station<D>>,
        detach: Detach,
        mode: String,
    ) -> Result<Self> {
        let workers = stations.len();
        let Some(first) = stations.first() else {
            return Err(Error::config("there is no worker", "use at least one"));
        };
        let arena = first.sockets.stack.core.pool.arena().clone();
        let cpus = cpus(&config, workers);
        let hub = Hub::new(config, workers, arena).map_err(|e| Error::new("workers", e, ""))?;
        let threads = Vec::with_capacity(workers);
        let mut runtime = Self { hub, threads, mode, interrupts_left: Arc::default() };
        let exchanges = Exchange::new(workers);
        for (i, (station, exchange)) in stations.into_iter().zip(exchanges).enumerate() {
            let (detach, cpu) = (detach.clone(), cpus.get(i).copied());
            let thread = std::thread::Builder::new()
                .name(format!("ringroad-{i}"))
                .spawn(move || work(hub, i, exchange, Seated(station), &detach, cpu))
                .map_err(|e| Error::new("starting a worker", e, ""))?;
            runtime.threads.push(thread);
        }
        Ok(runtime)
    }

    /// How the workers are attached, for a person.
    pub fn mode(&self) -> &str {
        &self.mode
    }

    /// How many workers there are.
    pub fn workers(&self) -> usize {
        self.hub.seats.len()
    }

    /// Makes this the runtime of [`super::posix`].
    ///
    /// # Errors
    /// Another one is.
    pub fn install(&self) -> Result<()> {
        if self.hub.install() {
            return Ok(());
        }
        Err(Error::config("a runtime is running already", "shut it down first"))
    }

    /// Runs a program on every worker, and returns when all have ended it, or
    /// the runtime was stopped. `make` is called on each worker's thread.
    ///
    /// # Errors
    /// A worker panicked, or the interface went away.
    pub fn run<A: App + 'static>(&self, make: impl Fn(usize, &mut Sockets) -> A + Send + Sync) -> Result<()> {
        self.run_programs(|worker, sockets| Program::App(Box::new(make(worker, sockets))))
    }

    /// Runs a loop over the calls of [`super::posix`] on every worker: `turn` is
    /// called once a turn, and ends that worker's program by returning false.
    ///
    /// # Errors
    /// As [`Runtime::run`].
    pub fn run_loop(&self, turn: impl Fn() -> bool + Send + Sync + Clone + 'static) -> Result<()> {
        self.run_programs(|_, _| Program::Loop(Box::new(turn.clone())))
    }

    fn run_programs(&self, make: impl Fn(usize, &mut Sockets) -> Program + Send + Sync) -> Result<()> {
        let workers = self.workers();
        let running = Arc::new(Running { left: AtomicUsize::new(workers), caller: std::thread::current() });
        let begun = channel::with(|thread| {
            for worker in 0..workers {
                let running = running.clone();
                let make = &make;
                let begun = thread.call(self.hub, worker, move |core| {
                    // While its loop runs, a program is not in its place.
                    if core.program.is_some() || core.ended.is_some() {
                        return Err(Errno::EBUSY);
                    }
                    core.program = Some(make(worker, &mut core.sockets));
                    core.ended = Some(Box::new(move || running.end()));
                    Ok(())
                })?;
                begun?;
            }
            Ok(())
        });
        if let Err(error) = begun {
            return Err(self.failure().unwrap_or_else(|| Error::new("starting the program", error, "")));
        }
        while running.left.load(Ordering::Acquire) > 0 && !self.ended() {
            std::thread::park_timeout(Duration::from_millis(100));
        }
        self.failure().map_or(Ok(()), Err)
    }

    fn ended(&self) -> bool {
        self.threads.iter().all(JoinHandle::is_finished)
    }

    fn failure(&self) -> Option<Error> {
        self.hub.failure().map(|why| Error::new(&*self.hub.config.interface, why, ""))
    }

    /// Tells the workers to end; programs end at their next turn.
    pub fn stop(&self) {
        self.hub.stop();
    }

    /// A handle that can stop the runtime from any thread, or a signal's.
    pub fn stopper(&self) -> Stopper {
        Stopper(self.hub)
    }

    /// Closes what connections there are within `bound`, then ends the workers
    /// and detaches. What was lost meanwhile, or had to be sent again, by name, all
    /// workers together.
    pub fn shutdown(mut self, bound: Duration) -> Losses {
        self.hub.uninstall();
        let until = Instant::now() + bound;
        while Instant::now() < until && !self.is_quiet() {
            std::thread::sleep(Duration::from_millis(5));
        }
        self.end();
        let mut all = Losses::default();
        for seat in &self.hub.seats {
            all.add(seat.losses.get().into_iter().flat_map(|losses| losses.0.clone()));
        }
        let left = self.interrupts_left.load(Ordering::Acquire);
        all.add([(Losses::INTERRUPTS_LEFT, left.into())]);
        all
    }

    /// True where no worker has a connection any more.
    fn is_quiet(&self) -> bool {
        (0..self.workers()).all(|worker| {
            let connections = |core: &mut super::worker::Core| core.sockets.stack.tcp.connections();
            channel::with(|thread| thread.call(self.hub, worker, connections)).unwrap_or(0) == 0
        })
    }

    fn end(&mut self) {
        self.hub.uninstall();
        self.hub.stop();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        self.end();
    }
}

/// Stops a runtime.
#[derive(Clone, Copy, Debug)]
pub struct Stopper(&'static Hub);

impl Stopper {
    /// Tells the workers to end. Safe in a signal handler.
    pub fn stop(&self) {
        self.0.stop();
    }
}

/// The programs of one `run`.
struct Running {
    left: AtomicUsize,
    caller: Thread,
}

impl Running {
    fn end(&self) {
        self.left.fetch_sub(1, Ordering::AcqRel);
        self.caller.unpark();
    }
}

/// A station on its way to its thread.
struct Seated<D>(Station<D>);

// SAFETY: a station is made whole on one thread and moved to the worker's before
// anything of it is used; `Sockets` holds no thread's state, and the port guard
// is Send by its trait.
unsafe impl<D: Send> Send for Seated<D> {}

fn work<D: Device + 'static>(
    hub: &'static Hub,
    index: usize,
    exchange: Exchange,
    seated: Seated<D>,
    detach: &Detach,
    cpu: Option<usize>,
) {
    if let Some(id) = cpu {
        core_affinity::set_for_current(core_affinity::CoreId { id });
    }
    let seated = seated; // whole, as it was sent
    let mut worker = Worker::new(hub, index, exchange, seated.0, detach.clone());
    if std::panic::catch_unwind(AssertUnwindSafe(|| worker.run())).is_err() {
        // First of all the kernel gets its traffic back.
        detach();
        hub.fail(Errno::ENETDOWN, "a worker panicked");
    }
    worker.farewell();
}

fn seed(config: &Config) -> Result<u64> {
    match config.seed {
        Some(seed) => Ok(seed),
        None => sys::random_seed().map_err(|e| Error::new("random numbers", e, "")),
    }
}

/// Places of a ring, at most: as many as the rings of cards have.
const MOST_PLACES: u32 = 8192;

fn xdp_config(config: &Config, addresses: &[(IpAddr, u8)], owned: bool) -> XdpConfig {
    let list = addresses.iter().map(|(ip, _)| *ip).collect();
    let addresses = if owned { Addresses::Owned(list) } else { Addresses::Shared(list) };
    // As many as may come while the worker is away: of a burst, one for each connection.
    let ring = (config.frames / 4).min(MOST_PLACES);
    XdpConfig {
        queues: (0..config.workers as u32).collect(),
        frames_per_queue: config.frames,
        rx_ring: ring,
        tx_ring: ring,
        fill_ring: ring,
        tx_reserve: (config.frames / 8).min(1024),
        bind: match config.zero_copy {
            None => Bind::Auto,
            Some(true) => Bind::ZeroCopy,
            Some(false) => Bind::Copy,
        },
        attach: match config.mode {
            Mode::Auto => Attach::Auto,
            Mode::Native => Attach::Native,
            Mode::Generic => Attach::Generic,
        },
        ..XdpConfig::new(config.interface.clone(), addresses)
    }
}

/// Keys that all workers have to share: a client's next connection may come to
/// another one.
fn with_keys(mut config: Config, seed: u64) -> Config {
    let draw = || FastOpenKeys { first: Rng::new(seed.rotate_left(32)).key(), second: None };
    config.table.fast_open_keys.get_or_insert_with(draw);
    config
}

fn sockets(
    config: &Config,
    device: &XdpDevice,
    pool: Pool,
    addresses: &[(IpAddr, u8)],
    active_ports: Option<(u16, u16)>,
    seed: u64,
) -> Sockets {
    let capabilities = device.capabilities();
    let mut stack = stack::Config {
        mode: if config.addresses.is_empty() { stack::Mode::Shared } else { stack::Mode::Owned },
        addresses: addresses.to_vec(),
        mac: crate::wire::ethernet::Mac(capabilities.mac),
        mtu: capabilities.mtu,
        multi_buffer: device.multi_buffer(),
        gateway: config.gateway,
        partial_checksums: capabilities.partial_checksums,
        tcp: config.tcp.clone(),
        table: config.table.clone(),
        ..stack::Config::default()
    };
    stack.table.active_ports = active_ports;
    // One that sleeps at once would sleep over its ACKs.
    if config.wait == Wait::Block && stack.table.ack_spacing == ACK_SPACING {
        stack.table.ack_spacing = crate::time::Duration::ZERO;
    }
    stack.table.ack_spacing = stack.table.ack_spacing.min(MOST_ACK_SPACING);
    Sockets::new(Stack::new(stack, pool, seed))
}

/// Gives a worker's sockets the guard over ports and the directory of flows.
fn enter(sockets: &mut Sockets, book: Option<Arc<PortBook>>, directory: Option<&Arc<Directory>>, worker: usize) {
    let directory = directory.map(|d| Book { directory: d.clone(), worker });
    if let Some(flows) = &directory {
        sockets.stack.core.book = Some(Box::new(flows.clone()));
        sockets.stack.tcp.book = Some(Box::new(flows.clone()));
    }
    if book.is_some() || directory.is_some() {
        sockets.set_guard(Box::new(Guard { book, directory }));
    }
}

fn device_fd(device: &XdpDevice) -> std::os::fd::RawFd {
    std::os::fd::AsRawFd::as_raw_fd(device)
}

fn describe(steering: &Steering, stations: &[Station<XdpDevice>], owned: bool, polling: &Polling) -> String {
    let attached = steering.mode().map_or_else(|| "detached".into(), |mode| mode.to_string());
    let zero_copy = stations.iter().all(|s| s.device.zero_copy());
    let huge = stations.iter().all(|s| s.device.huge_pages());
    format!(
        "{attached} XDP, {}, {} address{}{polling}",
        if zero_copy { "zero-copy" } else { "copy" },
        if owned { "owned" } else { "shared" },
        if huge { ", hugepages" } else { "" }
    )
}

/// The cores of the workers: those that were named, or the last ones that this
/// process may use, so that interrupts and programs keep the first.
fn cpus(config: &Config, workers: usize) -> Vec<usize> {
    if !config.cpus.is_empty() {
        return config.cpus.clone();
    }
    let all: Vec<usize> = core_affinity::get_core_ids().unwrap_or_default().iter().map(|c| c.id).collect();
    // Where there are not more cores than workers, pinning only takes room from
    // the scheduler.
    match all.len() {
        n if n > workers => all[n - workers..].to_vec(),
        n if n == workers => all,
        _ => Vec::new(),
    }
}

/// Starts a runtime, runs a program on every worker until all have ended it,
/// and ends the runtime.
///
/// # Errors
/// As [`Runtime::start`] and [`Runtime::run`].
pub fn run<A: App + 'static>(
    config: Config,
    make: impl Fn(usize, &mut Sockets) -> A + Send + Sync,
) -> Result<()> {
    let runtime = Runtime::start(config)?;
    let result = runtime.run(make);
    runtime.shutdown(Duration::from_millis(500));
    result
}
