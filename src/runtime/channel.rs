//! The rings between one thread and one worker, and a thread's own state.
//!
//! A thread speaks to a worker by a command ring, and hears from it by a reply
//! ring; both are made when it first has something to say. A command that needs
//! an answer is a *call*: a closure on the caller's stack that the worker runs
//! while the caller waits. Nothing is allocated for it.

use super::hub::{Hub, Knock};
use super::link::{Link, LinkId};
use super::ring::{Consumer, Producer, ring};
use super::sleep::Sleeper;
use super::stock::Stock;
use super::worker::{self, Core};
use super::sys;
use crate::errno::{Errno, Result};
use crate::frame::Frame;
use core::cell::RefCell;
use core::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

/// Commands that wait at a worker from one thread, at most.
const COMMANDS: usize = 256;
/// Replies that wait for a thread from one worker, at most.
const REPLIES: usize = 512;

/// What a thread asks of a worker.
pub(super) enum Command {
    /// Runs a closure of the caller's, who waits.
    Call(Call),
    /// The rings of this link have something.
    Pump(LinkId, Side),
    /// Say so when the link is ready for one of these (EPOLL bits).
    Wait { link: LinkId, interest: u32, ticket: u64 },
    /// Never mind.
    Unwait { link: LinkId, ticket: u64 },
    /// Nobody has the socket any more.
    Close(Arc<Link>),
    /// So many frames to fill, please.
    Stock(usize),
    /// A frame that was not filled after all.
    Return(Frame),
    /// The thread has ended; its rings may go. What it has not heard comes back.
    Leave(Box<Consumer<Reply>>),
}

/// Whose bell was rung.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// Frames come back.
    Rx,
    /// Frames are to be sent.
    Tx,
}

/// What a worker tells a thread.
pub(super) enum Reply {
    /// The wait of this number is over.
    Woken(u64),
    /// A frame to fill.
    Stock(Frame),
    /// As many as asked for, or all there were.
    StockEnd,
}

/// A closure on another thread's stack.
pub(super) struct Call {
    run: unsafe fn(*mut (), &mut Core),
    data: *mut (),
}

// SAFETY: the closure and its result are Send (bounds of `Thread::call`), and the
// caller keeps them where they are until the call is done or can never be run.
unsafe impl Send for Call {}

impl Call {
    /// Runs it.
    ///
    /// # Safety
    /// Once, by the worker that it was sent to, before that worker's seat is down.
    pub unsafe fn run(self, core: &mut Core) {
        // SAFETY: the caller's promise, and that of `Thread::call`.
        unsafe { (self.run)(self.data, core) }
    }
}

/// A worker's end of a thread's rings.
pub(super) struct Channel {
    pub commands: Consumer<Command>,
    pub replies: Producer<Reply>,
    /// Replies that found no room.
    pub late: std::collections::VecDeque<Reply>,
    pub sleeper: Arc<Sleeper>,
}

/// A thread's end.
struct Line {
    hub: &'static Hub,
    worker: usize,
    commands: Producer<Command>,
    replies: Consumer<Reply>,
    stock: Stock,
}

/// A thread's own state.
pub(super) struct Thread {
    sleeper: Arc<Sleeper>,
    lines: Vec<Line>,
    ticket: u64,
    woken: bool,
    /// Where new sockets go: (runtime's number, worker).
    home: Option<(u16, usize)>,
    /// Spinning helps only where the other side has a core of its own.
    may_spin: bool,
}

thread_local! {
    static THREAD: RefCell<Option<Thread>> = const { RefCell::new(None) };
}

/// Runs `f` with this thread's state.
///
/// # Errors
/// `EBUSY` from within a signal handler that interrupted such a call, or one that uses
/// this thread's worker; `EMFILE` where no eventfd can be had.
pub(super) fn with<R>(f: impl FnOnce(&mut Thread) -> Result<R>) -> Result<R> {
    if worker::is_busy() {
        return Err(Errno::EBUSY);
    }
    THREAD.with(|cell| {
        let mut cell = cell.try_borrow_mut().map_err(|_| Errno::EBUSY)?;
        if cell.is_none() {
            *cell = Some(Thread::new()?);
        }
        f(cell.as_mut().ok_or(Errno::EBUSY)?)
    })
}

/// Gives a link up whose socket nobody has any more.
pub(super) fn close_link(link: Arc<Link>) {
    let mut link = Some(link);
    let by_ring = THREAD.try_with(|cell| {
        let Ok(mut cell) = cell.try_borrow_mut() else { return };
        // In the middle of a turn a full ring to this worker would stay full.
        if worker::is_busy() {
            return;
        }
        if let (Some(thread), Some(gone)) = (cell.as_mut(), link.take()) {
            let (hub, worker) = (gone.hub, gone.worker);
            let _ = thread.send(hub, worker, Command::Close(gone), true);
        }
    });
    if let (Some(gone), _) = (link, by_ring) {
        gone.hub.seats[gone.worker].knock(Knock::Close(gone.clone()));
    }
}

impl Thread {
    fn new() -> Result<Self> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Self {
            sleeper: Arc::new(Sleeper::new().map_err(|_| Errno::EMFILE)?),
            lines: Vec::new(),
            ticket: 0,
            woken: false,
            home: None,
            may_spin: cores > 1 + Hub::current().map_or(1, |hub| hub.seats.len()),
        })
    }

    /// The worker that this thread's new sockets belong to.
    pub fn home(&mut self, hub: &'static Hub) -> usize {
        if let Some(owner) = worker::current_owner()
            && owner.runtime == hub.number
        {
            return owner.worker.into();
        }
        match self.home {
            Some((number, worker)) if number == hub.number => worker,
            _ => {
                let n = hub.threads.fetch_add(1, Ordering::Relaxed);
                let worker = n % hub.seats.len();
                self.home = Some((hub.number, worker));
                worker
            }
        }
    }

    fn line(&mut self, hub: &'static Hub, worker: usize) -> &mut Line {
        let same = |l: &Line| core::ptr::eq(l.hub, hub) && l.worker == worker;
        if let Some(i) = self.lines.iter().position(same) {
            return &mut self.lines[i];
        }
        let (commands, at_worker) = ring(COMMANDS);
        let (from_worker, replies) = ring(REPLIES);
        hub.seats[worker].knock(Knock::Channel(Channel {
            commands: at_worker,
            replies: from_worker,
            late: Default::default(),
            sleeper: self.sleeper.clone(),
        }));
        let stock = Stock::new(hub.config.thread_frames as usize);
        self.lines.push(Line { hub, worker, commands, replies, stock });
        self.lines.last_mut().expect("pushed above")
    }

    /// Sends a command; `wake`: the worker is to see it at once.
    ///
    /// # Errors
    /// `ENETDOWN` where the worker has ended.
    pub fn send(&mut self, hub: &'static Hub, worker: usize, command: Command, wake: bool) -> Result<()> {
        let seat = &hub.seats[worker];
        let mut command = command;
        loop {
            if seat.is_down() {
                return Err(Errno::ENETDOWN);
            }
            match self.line(hub, worker).commands.push(command) {
                Ok(()) => break,
                Err(back) => command = back,
            }
            // The ring is full: the worker empties it every turn.
            seat.sleeper.wake();
            if !worker::run_turn(hub) {
                std::thread::yield_now();
            }
        }
        if wake {
            seat.sleeper.wake();
        }
        Ok(())
    }

    /// Runs `f` on the worker and waits for its result. On the worker's own
    /// thread it is a plain call.
    ///
    /// # Errors
    /// `ENETDOWN` where the worker has ended.
    pub fn call<R: Send>(
        &mut self,
        hub: &'static Hub,
        worker: usize,
        f: impl FnOnce(&mut Core) -> R + Send,
    ) -> Result<R> {
        let mut f = Some(f);
        if let Some(result) = worker::with_core(hub, worker, |core| f.take().map(|f| f(core))) {
            return result.ok_or(Errno::EBUSY);
        }
        let mut slot = CallSlot { f, result: None, done: AtomicBool::new(false) };
        let data = &raw mut slot;
        let run = run_slot_of(&slot);
        self.send(hub, worker, Command::Call(Call { run, data: data.cast() }), true)?;
        // SAFETY: `slot` is alive; only its atomic is looked at while the worker
        // may be using the rest.
        let done = || unsafe { (*data).done.load(Ordering::Acquire) };
        let seat = &hub.seats[worker];
        loop {
            // A signal does not end this wait: the slot must stay until it is used.
            let _ = self.wait(None, |_| done() || seat.is_down());
            if last_look(|| seat.is_down(), || done().then_some(()))?.is_some() {
                // SAFETY: the worker is done with it (Acquire above).
                return unsafe { (*data).result.take() }.ok_or(Errno::ENETDOWN);
            }
        }
    }

    /// Takes in what workers replied.
    pub fn collect(&mut self) {
        for line in &mut self.lines {
            while let Some(reply) = line.replies.pop() {
                match reply {
                    Reply::Woken(ticket) => self.woken |= ticket == self.ticket,
                    Reply::Stock(frame) => line.stock.bring(frame),
                    Reply::StockEnd => line.stock.answered(),
                }
            }
        }
    }

    /// Begins a wait: its number.
    pub fn begin(&mut self) -> u64 {
        self.ticket += 1;
        self.woken = false;
        self.ticket
    }

    /// True once a worker has said that the wait is over.
    pub fn is_woken(&mut self) -> bool {
        self.collect();
        self.woken
    }

    /// Waits until `done`, or the deadline (ns of CLOCK_MONOTONIC): whether it
    /// is done. On a worker's thread the worker's turns go on meanwhile.
    ///
    /// # Errors
    /// `EINTR` where a signal came.
    pub fn wait(&mut self, deadline: Option<u64>, done: impl FnMut(&mut Self) -> bool) -> Result<bool> {
        self.wait_with(deadline, &mut [], done)
    }

    /// As [`Thread::wait`], ending also when a descriptor of the kernel's is ready.
    ///
    /// # Errors
    /// As there.
    pub fn wait_with(
        &mut self,
        deadline: Option<u64>,
        kernel: &mut [libc::pollfd],
        mut done: impl FnMut(&mut Self) -> bool,
    ) -> Result<bool> {
        let spin = Hub::current().map_or(0, |hub| hub.config.thread_spin.as_nanos());
        let spin_until = sys::monotonic_ns() + if self.may_spin { spin } else { 0 };
        let mut fds = vec![libc::pollfd { fd: self.sleeper.fd(), events: libc::POLLIN, revents: 0 }];
        fds.extend_from_slice(kernel);
        loop {
            if done(self) {
                return Ok(true);
            }
            let now = sys::monotonic_ns();
            if deadline.is_some_and(|d| now >= d) {
                return Ok(false);
            }
            if worker::current_owner().is_some() {
                // Another worker wakes this thread, not the seat that it sits in.
                let sleeper = self.sleeper.clone();
                sleeper.announce();
                if !done(self) {
                    worker::run_blocked_turn_with(deadline, Some(sleeper.fd()));
                }
                sleeper.awake(true);
                if !kernel.is_empty() && sys::poll(&mut fds[1..], Some(0))? > 0 {
                    return Ok(false);
                }
                continue;
            }
            if now < spin_until {
                core::hint::spin_loop();
                continue;
            }
            let sleeper = self.sleeper.clone();
            sleeper.announce();
            if done(self) {
                sleeper.awake(false);
                return Ok(true);
            }
            let slept = sys::poll(&mut fds, deadline.map(|d| d.saturating_sub(now)));
            sleeper.awake(fds[0].revents != 0);
            slept?;
            if fds[1..].iter().any(|f| f.revents != 0) {
                return Ok(done(self));
            }
        }
    }

    /// Sees to it that the stock has a frame of this worker's, which may take a
    /// sleep: false where none can be had now.
    ///
    /// # Errors
    /// `ENETDOWN`.
    pub fn stock_up(&mut self, hub: &'static Hub, worker: usize) -> Result<bool> {
        self.collect();
        loop {
            let stock = &mut self.line(hub, worker).stock;
            let empty = stock.is_empty();
            if let Some(n) = stock.ask() {
                self.send(hub, worker, Command::Stock(n), empty)?;
            }
            if !empty {
                return Ok(true);
            }
            // The worker always answers, with what there is.
            let done = |t: &mut Self| {
                t.collect();
                t.line(hub, worker).stock.is_settled() || hub.seats[worker].is_down()
            };
            while !self.wait(None, done).unwrap_or(false) {}
            let stock = &self.line(hub, worker).stock;
            if stock.is_denied() {
                return Ok(false);
            }
            if stock.is_empty() && hub.seats[worker].is_down() {
                return Err(Errno::ENETDOWN);
            }
        }
    }

    /// A frame of the stock.
    pub fn stocked(&mut self, hub: &'static Hub, worker: usize) -> Option<Frame> {
        self.line(hub, worker).stock.take()
    }

    /// A frame of this worker's to fill; `None` where none can be had now.
    ///
    /// # Errors
    /// `ENETDOWN`.
    pub fn frame(&mut self, hub: &'static Hub, worker: usize) -> Result<Option<Frame>> {
        self.stock_up(hub, worker)?;
        Ok(self.stocked(hub, worker))
    }

    /// Gives a frame back to the thread's stock, unused.
    pub fn unframe(&mut self, hub: &'static Hub, worker: usize, frame: Frame) {
        self.line(hub, worker).stock.put(frame);
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        if super::posix::forked() {
            return; // there is no worker in this process
        }
        for Line { hub, worker, mut commands, replies, mut stock } in self.lines.drain(..) {
            let frames = stock.drain().map(Command::Return);
            // Frames may be on their way here; who waited for them would wait for the
            // worker, which may be waiting for this thread's end.
            let mut last = frames.chain([Command::Leave(Box::new(replies))]).peekable();
            let seat = &hub.seats[worker];
            while last.peek().is_some() && !seat.is_down() {
                if commands.push_batch(&mut last) == 0 {
                    std::thread::yield_now();
                }
                seat.sleeper.wake();
            }
        }
    }
}

/// What `look` finds of what a worker leaves for others; where it finds nothing and never
/// will, that is an error. Down is the worker's last act: who knows of it before the look
/// misses nothing, and who asks only afterwards may miss what came between.
///
/// # Errors
/// `ENETDOWN`.
pub(super) fn last_look<T>(down: impl FnOnce() -> bool, look: impl FnOnce() -> Option<T>) -> Result<Option<T>> {
    let down = down();
    match look() {
        None if down => Err(Errno::ENETDOWN),
        found => Ok(found),
    }
}

struct CallSlot<F, R> {
    f: Option<F>,
    result: Option<R>,
    done: AtomicBool,
}

fn run_slot_of<F, R>(_: &CallSlot<F, R>) -> unsafe fn(*mut (), &mut Core)
where
    F: FnOnce(&mut Core) -> R + Send,
    R: Send,
{
    /// # Safety
    /// `data` is a `CallSlot<F, R>` that lives until `done` is set.
    unsafe fn run<F: FnOnce(&mut Core) -> R, R>(data: *mut (), core: &mut Core) {
        let slot = data.cast::<CallSlot<F, R>>();
        // SAFETY: the caller's promise; the waiting side looks at `done` alone.
        let f = unsafe { (*slot).f.take() };
        let result = f.map(|f| f(core));
        // SAFETY: as above. The store is the last touch.
        unsafe {
            (*slot).result = result;
            (*slot).done.store(true, Ordering::Release);
        }
    }
    run::<F, R>
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::cell::Cell;

    #[test]
    fn what_a_worker_did_last_is_found() {
        let (left, is_down) = (Cell::new(None), Cell::new(false));
        let end = || {
            left.set(Some(7));
            is_down.set(true);
        };
        // It leaves something and ends before it is asked the one or the other.
        let asked = last_look(|| { end(); is_down.get() }, || left.get());
        assert_eq!(asked, Ok(Some(7)));
        left.set(None);
        is_down.set(false);
        let asked = last_look(|| is_down.get(), || { end(); left.get() });
        assert_eq!(asked, Ok(Some(7)));
        left.set(None);
        is_down.set(false);
        assert_eq!(last_look(|| is_down.get(), || left.get()), Ok(None));
        is_down.set(true);
        assert_eq!(last_look(|| is_down.get(), || left.get()), Err(Errno::ENETDOWN));
    }
}
