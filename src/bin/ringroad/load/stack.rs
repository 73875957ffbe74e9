//! Load over our own stack: the driver as a program on its worker.

use std::io;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::sync::Mutex;
use std::sync::mpsc::{self, Sender};

use ringroad::errno::Errno;
use ringroad::runtime::{App, Config, Runtime};
use ringroad::socket::linux::{
    AF_INET, EPOLL_CTL_ADD, EPOLL_CTL_MOD, EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT, EPOLLRDHUP, IPPROTO_TCP,
    MSG_NOSIGNAL, SOCK_DGRAM, SOCK_STREAM, TCP_NODELAY,
};
use ringroad::socket::{EpollEvent, Handle, Sockets};
use ringroad::time::{Duration, Instant};

use super::driver::{Driver, Transport};
use super::engine::Protocol;
use crate::stack::{GOODBYE, tell};

/// Events taken in one turn.
const EVENTS: usize = 256;
const READ: u32 = EPOLLIN | EPOLLRDHUP;

/// The flows' sockets on our stack.
struct Flows {
    protocol: Protocol,
    target: SocketAddr,
    set: Handle,
    handles: Vec<Option<Handle>>,
    events: Vec<EpollEvent>,
}

/// The flows with the worker's sockets at hand, for one turn.
struct Turn<'a> {
    flows: &'a mut Flows,
    sockets: &'a mut Sockets,
}

fn io(error: Errno) -> io::Error {
    io::Error::from_raw_os_error(error.raw())
}

impl Turn<'_> {
    fn handle(&self, flow: usize) -> io::Result<Handle> {
        self.flows.handles[flow].ok_or_else(|| io(Errno::ENOTCONN))
    }
}

impl Transport for Turn<'_> {
    fn open(&mut self, flow: usize) -> io::Result<()> {
        let datagrams = self.flows.protocol == Protocol::Udp;
        let kind = if datagrams { SOCK_DGRAM } else { SOCK_STREAM };
        let handle = self.sockets.socket(AF_INET, kind, 0).map_err(io)?;
        self.flows.handles[flow] = Some(handle);
        if !datagrams {
            self.sockets.set_option(handle, IPPROTO_TCP, TCP_NODELAY, &1i32.to_ne_bytes()).map_err(io)?;
        }
        match self.sockets.connect(handle, self.flows.target) {
            Ok(()) | Err(Errno::EINPROGRESS) => {}
            Err(e) => return Err(io(e)),
        }
        self.sockets.epoll_ctl(self.flows.set, EPOLL_CTL_ADD, handle, READ | EPOLLOUT, flow as u64).map_err(io)
    }

    fn opened(&mut self, flow: usize) -> io::Result<()> {
        let handle = self.handle(flow)?;
        self.sockets.take_error(handle).map_err(io)?.map_or(Ok(()), |e| Err(io(e)))
    }

    fn close(&mut self, flow: usize) {
        if let Some(handle) = self.flows.handles[flow].take() {
            let _ = self.sockets.close(handle);
        }
    }

    #[inline]
    fn write(&mut self, flow: usize, data: &[u8]) -> io::Result<usize> {
        let handle = self.handle(flow)?;
        self.sockets.send(handle, data, MSG_NOSIGNAL).map_err(io)
    }

    #[inline]
    fn read(&mut self, flow: usize, buffer: &mut [u8]) -> io::Result<usize> {
        let handle = self.handle(flow)?;
        self.sockets.recv(handle, buffer, 0).map_err(io)
    }

    fn want_write(&mut self, flow: usize, wanted: bool) -> io::Result<()> {
        let events = if wanted { READ | EPOLLOUT } else { READ };
        let handle = self.handle(flow)?;
        self.sockets.epoll_ctl(self.flows.set, EPOLL_CTL_MOD, handle, events, flow as u64).map_err(io)
    }

    fn poll(&mut self, ready: &mut Vec<(usize, bool, bool)>, _wait_ms: i32) -> io::Result<()> {
        // The worker has waited already.
        self.flows.events.clear();
        self.sockets.epoll_wait(self.flows.set, &mut self.flows.events, EVENTS).map_err(io)?;
        for event in &self.flows.events {
            let failed = event.events & (EPOLLERR | EPOLLHUP) != 0;
            let (read, write) = (event.events & READ != 0, event.events & EPOLLOUT != 0);
            ready.push((event.data as usize, failed || read, failed || write));
        }
        Ok(())
    }
}

/// Run the driver's load on a worker: the driver back, how the run went, and the
/// mode that the worker ran in.
///
/// # Errors
/// The stack could not be started.
pub fn run(config: Config, driver: Driver) -> Result<(Driver, io::Result<()>, String), String> {
    let (done, result) = mpsc::channel();
    let driver = Mutex::new(Some(driver));
    let make = move |_worker: usize, sockets: &mut Sockets| {
        let driver = driver.lock().ok().and_then(|mut d| d.take()).expect("one worker takes the one driver");
        Load::new(sockets, driver, done.clone())
    };
    let runtime = Runtime::start(config).map_err(|e| e.to_string())?;
    let mode = runtime.mode().to_string();
    let ran = runtime.run(make);
    tell(&runtime.shutdown(GOODBYE));
    ran.map_err(|e| e.to_string())?;
    let (driver, result) = result.try_recv().map_err(|_| "the worker ended before the load did".to_string())?;
    Ok((driver, result, mode))
}

/// A load that runs on a worker; it sends the driver back when it is done.
struct Load {
    driver: Option<Driver>,
    flows: Flows,
    done: Sender<(Driver, io::Result<()>)>,
    now: Instant,
}

impl Load {
    fn new(sockets: &mut Sockets, driver: Driver, done: Sender<(Driver, io::Result<()>)>) -> Self {
        let plan = driver.engine.plan();
        let flows = Flows {
            protocol: plan.protocol,
            target: plan.target,
            set: sockets.epoll_create().expect("a table of sockets without any has room for one"),
            handles: vec![None; plan.connections],
            events: Vec::with_capacity(EVENTS),
        };
        Self { driver: Some(driver), flows, done, now: Instant::ZERO }
    }

    /// The run is over: sockets are closed, the driver goes back.
    #[cold]
    fn end(&mut self, sockets: &mut Sockets, result: io::Result<()>) {
        if let Some(mut driver) = self.driver.take() {
            driver.finish();
            for handle in self.flows.handles.drain(..).flatten() {
                let _ = sockets.close(handle);
            }
            let _ = self.done.send((driver, result));
        }
    }
}

impl App for Load {
    fn turn(&mut self, now: Instant, sockets: &mut Sockets) -> ControlFlow<()> {
        self.now = now;
        let Some(driver) = &mut self.driver else { return ControlFlow::Break(()) };
        let mut net = Turn { flows: &mut self.flows, sockets };
        match driver.turn(&mut net, 0) {
            Ok(false) => ControlFlow::Continue(()),
            Ok(true) => {
                self.end(sockets, Ok(()));
                ControlFlow::Break(())
            }
            Err(e) => {
                self.end(sockets, Err(e));
                ControlFlow::Break(())
            }
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        // The driver's own clock is another: it says how long from now.
        let wait = self.driver.as_ref().map_or(0, Driver::may_wait);
        Some(self.now + Duration::from_millis(wait as u64))
    }
}
