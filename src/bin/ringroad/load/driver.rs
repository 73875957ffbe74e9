//! Runs a load over a transport: opens connections, moves bytes, watches time.

use std::io::{self, IsTerminal, Write};
use std::time;

use ringroad::telemetry::latency::{thousands, time as show_time};

use super::engine::{CHUNK, Engine, Failure, Next, Protocol};

/// Connections being opened at one time.
const OPENING: usize = 64;
/// How often time-outs, retries and progress are looked at.
const TICK: u64 = 5_000_000;
/// How often every open flow is looked at.
const SCAN: u64 = 100_000_000;
/// How long connecting may take before the load starts without the rest.
const CONNECT_TIME: u64 = 3_000_000_000;
/// How long answers may still come after the end.
const GRACE: u64 = 500_000_000;
/// Pause before a failed connection is opened again, doubled up to 64 times.
const RETRY: u64 = 5_000_000;

/// Something that carries the bytes of numbered flows without blocking.
pub trait Transport {
    /// Start opening a flow. It becomes writable when done.
    fn open(&mut self, flow: usize) -> io::Result<()>;
    /// How opening went, once it is writable.
    fn opened(&mut self, flow: usize) -> io::Result<()>;
    /// Let go of a flow at once.
    fn close(&mut self, flow: usize);
    /// Write; `WouldBlock` when full.
    fn write(&mut self, flow: usize, data: &[u8]) -> io::Result<usize>;
    /// Read; `WouldBlock` when empty, 0 at the end.
    fn read(&mut self, flow: usize, buffer: &mut [u8]) -> io::Result<usize>;
    /// Report (or stop reporting) when the flow can be written.
    fn want_write(&mut self, flow: usize, wanted: bool) -> io::Result<()>;
    /// Put what is ready into `ready` as (flow, readable, writable), waiting at
    /// most `wait_ms` for something.
    fn poll(&mut self, ready: &mut Vec<(usize, bool, bool)>, wait_ms: i32) -> io::Result<()>;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Down { retry_at: u64 },
    Opening { since: u64 },
    Open { want_write: bool },
}

/// The loop around an engine.
pub struct Driver {
    pub engine: Engine,
    states: Vec<State>,
    tries: Vec<u32>,
    opening: usize,
    open: usize,
    ever_open: bool,
    last_error: Option<io::Error>,
    ready: Vec<(usize, bool, bool)>,
    buffer: Vec<u8>,
    origin: time::Instant,
    started: u64,
    next_tick: u64,
    next_scan: u64,
    next_progress: u64,
    last_event: u64,
    live: bool,
    stop: fn() -> bool,
}

impl Driver {
    /// A driver for `engine` whose run ends early when `stop` says so.
    pub fn new(make: impl FnOnce(bool) -> Engine, stop: fn() -> bool) -> Self {
        let live = io::stderr().is_terminal();
        let engine = make(live);
        let n = engine.plan().connections;
        Self {
            engine,
            states: vec![State::Down { retry_at: 0 }; n],
            tries: vec![0; n],
            opening: 0,
            open: 0,
            ever_open: false,
            last_error: None,
            ready: Vec::with_capacity(1024),
            buffer: vec![0; CHUNK],
            origin: time::Instant::now(),
            started: 0,
            next_tick: 0,
            next_scan: 0,
            next_progress: 0,
            last_event: 0,
            live,
            stop,
        }
    }

    /// Nanoseconds since the driver was made.
    pub fn now(&self) -> u64 {
        self.origin.elapsed().as_nanos() as u64
    }

    /// One round; true when the run is over.
    ///
    /// # Errors
    /// Nothing could ever be connected, or the transport itself failed.
    pub fn turn(&mut self, net: &mut impl Transport, wait_ms: i32) -> io::Result<bool> {
        let mut ready = std::mem::take(&mut self.ready);
        net.poll(&mut ready, wait_ms)?;
        for &(flow, readable, writable) in &ready {
            self.on_ready(net, flow, readable, writable)?;
        }
        let busy = !ready.is_empty();
        ready.clear();
        self.ready = ready;
        let now = self.now();
        if busy {
            self.last_event = now;
        }
        while let Some(flow) = self.engine.next_due(now) {
            self.write(net, flow, now)?;
        }
        if now >= self.next_tick {
            self.next_tick = now + TICK;
            self.tick(net, now)?;
        }
        Ok(self.over(now))
    }

    /// How long the next round may wait for events, in milliseconds.
    pub fn may_wait(&self) -> i32 {
        const BUSY: u64 = 200_000;
        let now = self.now();
        if now.saturating_sub(self.last_event) < BUSY {
            return 0;
        }
        let due = self.engine.next_due_at().unwrap_or(u64::MAX).min(self.next_tick);
        // One millisecond early: the kernel rounds up, and the rest is spun away.
        (due.saturating_sub(now) / 1_000_000).saturating_sub(1) as i32
    }

    /// The last error of a socket, if there was one.
    pub fn last_error(&self) -> Option<&io::Error> {
        self.last_error.as_ref()
    }

    /// The end: what has no answer is counted, progress is wiped away.
    pub fn finish(&mut self) {
        let now = self.now();
        self.engine.finish(now);
        if self.live {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }

    fn over(&self, now: u64) -> bool {
        if (self.stop)() {
            return true;
        }
        let end = self.engine.end();
        now >= end && (self.engine.in_flight() == 0 || now >= end.saturating_add(GRACE))
    }

    fn on_ready(
        &mut self,
        net: &mut impl Transport,
        flow: usize,
        readable: bool,
        writable: bool,
    ) -> io::Result<()> {
        match self.states[flow] {
            State::Down { .. } => return Ok(()),
            State::Opening { .. } if writable || readable => return self.finish_opening(net, flow),
            State::Opening { .. } => return Ok(()),
            State::Open { .. } => {}
        }
        if readable && !self.read(net, flow)? {
            return Ok(());
        }
        let now = self.now();
        self.write(net, flow, now)
    }

    fn finish_opening(&mut self, net: &mut impl Transport, flow: usize) -> io::Result<()> {
        if let Err(e) = net.opened(flow) {
            self.down(net, flow, Some(Failure::Connect), Some(e));
            return Ok(());
        }
        let now = self.now();
        self.opening -= 1;
        self.open += 1;
        self.ever_open = true;
        self.tries[flow] = 0;
        self.states[flow] = State::Open { want_write: false };
        net.want_write(flow, false)?;
        self.engine.opened(flow, now);
        self.write(net, flow, now)
    }

    /// Read once and judge it; false if the flow is gone.
    fn read(&mut self, net: &mut impl Transport, flow: usize) -> io::Result<bool> {
        let outcome = match net.read(flow, &mut self.buffer) {
            Ok(0) if self.engine.plan().protocol != Protocol::Udp => {
                let now = self.now();
                self.engine.ended(flow, now)
            }
            Ok(n) => {
                let now = self.now();
                self.engine.received(flow, &self.buffer[..n], now)
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(Next::Keep),
            Err(e) => {
                self.down(net, flow, Some(Failure::Reset), Some(e));
                return Ok(false);
            }
        };
        match outcome {
            Ok(Next::Keep) => return Ok(true),
            Ok(Next::Reopen) => self.down(net, flow, None, None),
            Err(why) => self.down(net, flow, Some(why), None),
        }
        Ok(false)
    }

    /// Begin what is due and write what is pending.
    fn write(&mut self, net: &mut impl Transport, flow: usize, now: u64) -> io::Result<()> {
        let State::Open { want_write } = self.states[flow] else { return Ok(()) };
        self.engine.pull(flow, now);
        let full = loop {
            let pending = self.engine.pending(flow);
            if pending.is_empty() {
                break false;
            }
            match net.write(flow, pending) {
                Ok(n) => self.engine.wrote(flow, n),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break true,
                Err(e) => {
                    self.down(net, flow, Some(Failure::Reset), Some(e));
                    return Ok(());
                }
            }
        };
        if full != want_write {
            net.want_write(flow, full)?;
            self.states[flow] = State::Open { want_write: full };
        }
        Ok(())
    }

    /// The flow's connection is over: in good order, or for a reason.
    fn down(
        &mut self,
        net: &mut impl Transport,
        flow: usize,
        why: Option<Failure>,
        error: Option<io::Error>,
    ) {
        match self.states[flow] {
            State::Opening { .. } => self.opening -= 1,
            State::Open { .. } => self.open -= 1,
            State::Down { .. } => {}
        }
        net.close(flow);
        let now = self.now();
        match why {
            Some(why) => {
                self.engine.failed(flow, why);
                let pause = RETRY << self.tries[flow].min(6);
                self.tries[flow] += 1;
                self.states[flow] = State::Down { retry_at: now + pause };
            }
            None => {
                self.engine.closed(flow);
                self.states[flow] = State::Down { retry_at: now };
                // Not at the next tick: a server that closes after each answer is measured too.
                self.start_opening(net, flow, now);
            }
        }
        if error.is_some() {
            self.last_error = error;
        }
    }

    fn start_opening(&mut self, net: &mut impl Transport, flow: usize, now: u64) {
        if now >= self.engine.end() {
            return;
        }
        self.opening += 1;
        self.states[flow] = State::Opening { since: now };
        self.engine.opening(flow, now);
        if let Err(e) = net.open(flow) {
            self.down(net, flow, Some(Failure::Connect), Some(e));
        }
    }

    fn tick(&mut self, net: &mut impl Transport, now: u64) -> io::Result<()> {
        // With all connections up, a look at each of them is rare: it costs time that requests wait for.
        if self.open < self.states.len() || now >= self.next_scan {
            self.next_scan = now + SCAN;
            for flow in 0..self.states.len() {
                self.look_at(net, flow, now)?;
            }
        }
        if !self.engine.begun() {
            self.try_to_begin(net, now)?;
        } else if self.live && now >= self.next_progress {
            self.progress(now);
        }
        Ok(())
    }

    fn look_at(&mut self, net: &mut impl Transport, flow: usize, now: u64) -> io::Result<()> {
        match self.states[flow] {
            State::Down { retry_at } if retry_at <= now && self.opening < OPENING => {
                self.start_opening(net, flow, now);
            }
            State::Opening { since } if now - since > CONNECT_TIME => {
                let late = io::Error::from(io::ErrorKind::TimedOut);
                self.down(net, flow, Some(Failure::Connect), Some(late));
            }
            State::Open { .. } => match self.engine.check_time(flow, now) {
                Ok(()) => self.write(net, flow, now)?,
                Err(why) => self.down(net, flow, Some(why), None),
            },
            _ => {}
        }
        Ok(())
    }

    /// Start the clock of the load once all are connected, or as many as can be.
    fn try_to_begin(&mut self, net: &mut impl Transport, now: u64) -> io::Result<()> {
        if self.started == 0 {
            self.started = now.max(1);
        }
        let waited = now - self.started;
        if !self.ever_open && waited > CONNECT_TIME {
            return Err(self.last_error.take().unwrap_or_else(|| io::ErrorKind::TimedOut.into()));
        }
        if self.open == self.states.len() || (self.ever_open && waited > CONNECT_TIME) {
            self.engine.begin(now);
            self.next_progress = now + 1_000_000_000;
            for flow in 0..self.states.len() {
                let now = self.now();
                self.write(net, flow, now)?;
            }
        }
        Ok(())
    }

    fn progress(&mut self, now: u64) {
        self.next_progress += 1_000_000_000;
        let Some(interval) = self.engine.take_interval() else { return };
        let left = self.engine.end().saturating_sub(now).div_ceil(1_000_000_000);
        let _ = write!(
            io::stderr(),
            "\r\x1b[K{:>11} requests/s   p50 {:>8}   p99 {:>8}   max {:>8}   errors {}   {left} s left",
            thousands(interval.count()),
            show_time(interval.percentile(50.0).as_nanos()),
            show_time(interval.percentile(99.0).as_nanos()),
            show_time(interval.max().as_nanos()),
            thousands(self.engine.error_count()),
        );
    }
}
