//! The program's side of an epoll set; the workers' is in [`super::epoll`].

mod members;
mod waits;

#[cfg(test)]
pub(super) use members::looked_at;

use super::channel::{self, Thread};
use super::claim::Claim;
use super::descriptors::Owner;
use super::epoll::{SetShared, Taken};
use super::hub::{Hub, Knock, Seat};
use super::shared::SharedSocket;
use super::worker::{self, Core};
use super::posix;
use super::{sys, sys::last_errno};
use crate::errno::{Errno, Result};
use crate::socket::{EpollEvent, Handle, Membership};
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering};
use members::{EDGE, Inner, Member};
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use waits::Waits;

/// EPOLLERR | EPOLLHUP: reported whether asked for or not.
const ALWAYS: u32 = 0x8 | 0x10;

/// A set that any thread may use.
pub(super) struct EpollSet {
    shared: Arc<SetShared>,
    kernel_fd: AtomicI32,
    inner: Claim<Inner>,
    /// Workers whose programs wait on it. Noted before their last look.
    waiting: Claim<Vec<(Owner, &'static Seat)>>,
    /// Its descriptor was closed: waits end.
    closed: AtomicBool,
    /// How many of the kernel's members came in and were not taken out: no fewer than
    /// there are. The kernel alone knows which those are, and what the program calls
    /// them: one may outlive the number that it came in by.
    kernel_members: AtomicUsize,
    /// The sets of workers' own sockets, which their own threads wait on.
    locals: Claim<Vec<(Owner, Handle)>>,
    waits: Waits,
    /// Which source of events is asked first, so that none is left out.
    turn: AtomicUsize,
}

/// A worker whose program waits, noted as long as this lives.
struct Waiting<'s>(&'s EpollSet, Owner);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.hold().retain(|(owner, _)| *owner != self.1);
    }
}

impl EpollSet {
    /// Says whether an empty set of the kernel's would do this.
    pub fn would_do(kernel: RawFd, op: i32, fd: RawFd, events: u32) -> Result<()> {
        kernel_ctl(kernel, op, fd, events, 0)?;
        kernel_ctl(kernel, libc::EPOLL_CTL_DEL, fd, 0, 0)
    }

    /// The kernel's set that one of ours is known by.
    pub fn kernel() -> Result<OwnedFd> {
        // SAFETY: takes no pointers.
        let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if fd < 0 {
            return Err(last_errno());
        }
        // SAFETY: a new descriptor that nobody else owns.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }

    /// A set over the kernel's, which the caller keeps as long, and over one that was
    /// a worker's own until now.
    pub fn new(hub: &'static Hub, kernel: RawFd, local: Option<(Owner, Handle)>) -> Result<Self> {
        let shared = Arc::new(SetShared::new(hub).map_err(|_| Errno::EMFILE)?);
        // Edge triggered: each write of the eventfd wakes one sleeper, and nobody
        // has to read it.
        kernel_ctl(kernel, libc::EPOLL_CTL_ADD, shared.fd(), 0x1 | EDGE, wake_mark(&shared))?;
        Ok(Self {
            shared,
            kernel_fd: AtomicI32::new(kernel),
            inner: Claim::new(Inner::default()),
            waiting: Claim::new(Vec::new()),
            closed: AtomicBool::new(false),
            kernel_members: AtomicUsize::new(0),
            locals: Claim::new(local.into_iter().collect()),
            waits: Waits::new(),
            turn: AtomicUsize::new(0),
        })
    }

    fn kernel_fd(&self) -> RawFd {
        self.kernel_fd.load(Ordering::Relaxed)
    }

    /// The set of this worker's own sockets; made at the first of them.
    pub fn local(&self, owner: Owner, make: bool) -> Result<Option<Handle>> {
        let mut locals = self.locals.hold();
        if let Some((_, h)) = locals.iter().find(|(o, _)| *o == owner) {
            return Ok(Some(*h));
        }
        if !make {
            return Ok(None);
        }
        let fd = self.kernel_fd();
        let h = worker::with_own_core(owner, |core| {
            let h = core.sockets.epoll_create()?;
            core.desk.own_sets.insert(h.to_raw(), fd);
            Ok(h)
        });
        let h = h.ok_or(Errno::EBADF)??;
        locals.push((owner, h));
        Ok(Some(h))
    }

    /// The set for a worker's own socket that comes in; `None` where it is to come in as
    /// any thread's, as another than this worker's program waits.
    pub fn own_part(&self, owner: Owner) -> Result<Option<Handle>> {
        self.waits.enter_own(owner, || self.local(owner, true))
    }

    /// Before a wait: what it is to find and is another worker's own is made any
    /// thread's. That is done once; then it costs one load and a comparison.
    #[inline]
    fn wait_as(&self, owner: Option<Owner>) -> Result<()> {
        if self.waits.is_open_to(owner) { Ok(()) } else { self.waits.open_to(owner, |own| self.open(own)) }
    }

    /// Makes what is in it any thread's, but for what is this worker's own.
    #[cold]
    fn open(&self, but: Option<Owner>) -> Result<()> {
        let hub = self.shared.hub;
        // What comes in from here on is made any thread's at once; what is in before is
        // seen by the call, which its worker answers after that.
        let locals = self.locals.hold().clone();
        for (of, h) in locals.into_iter().filter(|(of, _)| Some(*of) != but && of.runtime == hub.number) {
            let open = |thread: &mut Thread| thread.call(hub, of.worker.into(), move |core| posix::open_members(core, h));
            match channel::with(open) {
                // It has ended, and says so where it is asked for events.
                Err(Errno::ENETDOWN) => {}
                result => result.and_then(|r| r)?,
            }
        }
        Ok(())
    }

    /// A socket that was its worker's own comes in as any thread's, as it was in that
    /// worker's part of the set. On that worker.
    pub fn adopt_member(&self, core: &mut Core, fd: RawFd, socket: &Arc<SharedSocket>, was: &Membership) {
        let EpollEvent { events, data } = was.wanted;
        for link in socket.links() {
            let taken = Arc::new(Taken::default());
            let member = Member {
                data,
                events,
                listed: false,
                socket: Arc::downgrade(socket),
                taken: vec![(link.worker, taken.clone())],
            };
            let mut inner = self.inner.hold();
            let _ = inner.of(fd, socket); // who had the number before
            let token = inner.insert(fd, member);
            let ring = core.subscribe(link.id, &self.shared, token, events, taken);
            inner.rings.extend(ring.map(|ring| (link.worker, ring)));
            // An edge that was reported is not reported again.
            if was.listed || events & EDGE == 0 {
                inner.list(token);
            }
        }
        self.stir();
    }

    /// `epoll_ctl` on a shared socket.
    pub fn control(&self, thread: &mut Thread, op: i32, fd: RawFd, socket: &Arc<SharedSocket>, events: u32, data: u64) -> Result<()> {
        match op {
            libc::EPOLL_CTL_ADD => self.add(thread, fd, socket, events, data),
            libc::EPOLL_CTL_MOD => self.change(thread, fd, socket, events, data),
            libc::EPOLL_CTL_DEL => {
                let mut inner = self.inner.hold();
                let token = inner.of(fd, socket).ok_or(Errno::ENOENT)?;
                inner.remove(fd);
                drop(inner);
                for link in socket.links() {
                    let (id, shared) = (link.id, self.shared.clone());
                    thread.call(link.hub, link.worker, move |core| core.unsubscribe(id, &shared, token))?;
                }
                Ok(())
            }
            _ => Err(Errno::EINVAL),
        }
    }

    fn add(&self, thread: &mut Thread, fd: RawFd, socket: &Arc<SharedSocket>, events: u32, data: u64) -> Result<()> {
        let links = socket.links();
        let taken: Vec<_> = links.iter().map(|l| (l.worker, Arc::new(Taken::default()))).collect();
        let member = Member {
            data,
            events: events | ALWAYS,
            listed: false,
            socket: Arc::downgrade(socket),
            taken: taken.clone(),
        };
        let token = self.inner.hold().enter(fd, socket, member)?;
        for (link, (worker, taken)) in links.iter().zip(taken) {
            thread.call(link.hub, worker, move |core| {
                // What another thread has made of it meanwhile is what counts.
                let Some(events) = self.wanted(token) else { return };
                let ring = core.subscribe(link.id, &self.shared, token, events, taken);
                self.inner.hold().rings.extend(ring.map(|ring| (worker, ring)));
            })?;
        }
        // What is ready already counts as something that happened.
        self.inner.hold().list(token);
        self.stir();
        Ok(())
    }

    fn change(&self, thread: &mut Thread, fd: RawFd, socket: &Arc<SharedSocket>, events: u32, data: u64) -> Result<()> {
        let mut inner = self.inner.hold();
        let token = inner.of(fd, socket).ok_or(Errno::ENOENT)?;
        if let Some(member) = inner.at(token) {
            (member.events, member.data) = (events | ALWAYS, data);
        }
        drop(inner);
        for link in socket.links() {
            thread.call(link.hub, link.worker, move |core| {
                if let Some(events) = self.wanted(token) {
                    core.resubscribe(link.id, token, events);
                }
            })?;
        }
        self.inner.hold().list(token);
        self.stir();
        Ok(())
    }

    /// What a member is asked for; `None` where it is no member any more.
    fn wanted(&self, token: u64) -> Option<u32> {
        self.inner.hold().at(token).map(|member| member.events)
    }

    /// `epoll_ctl` on a descriptor of the kernel's.
    pub fn control_kernel(&self, op: i32, fd: RawFd, events: u32, data: u64) -> Result<()> {
        kernel_ctl(self.kernel_fd(), op, fd, events, data)?;
        let count = |n: usize| match op {
            libc::EPOLL_CTL_ADD => n.checked_add(1),
            libc::EPOLL_CTL_DEL => n.checked_sub(1),
            _ => None,
        };
        let _ = self.kernel_members.fetch_update(Ordering::Relaxed, Ordering::Relaxed, count);
        // Threads sleep on the kernel's set; workers may not know of it yet.
        self.knock();
        Ok(())
    }

    /// Lets another sleeper look, where something is left on the list.
    fn pass_on(&self) {
        if self.shared.sleepers.any() {
            self.shared.wake();
        }
    }

    /// A member is to be looked at, by whoever waits.
    fn stir(&self) {
        self.pass_on();
        self.knock();
    }

    /// Has the workers look whose programs wait. The caller's own looks anyway: it is
    /// in the middle of a turn.
    fn knock(&self) {
        let me = worker::current_owner();
        for (_, seat) in self.waiting.hold().iter().filter(|(owner, _)| me != Some(*owner)) {
            seat.knock(Knock::Look);
        }
    }

    /// Notes that this worker's program waits. What is done to the set before that is
    /// seen by whoever looks after it; what is done later has the worker look.
    fn note(&self, owner: Owner) -> Result<Waiting<'_>> {
        let seat = worker::with_own_core(owner, |core| core.seat).ok_or(Errno::EBADF)?;
        self.waiting.hold().push((owner, seat));
        Ok(Waiting(self, owner))
    }

    /// The descriptor is being closed: ends the waits of other threads.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.shared.signal();
        self.knock();
    }

    /// `epoll_wait`: appends up to `max` events; `deadline` in ns of
    /// CLOCK_MONOTONIC, `None`: for ever.
    ///
    /// # Errors
    /// `EINTR`.
    pub fn wait(&self, out: &mut Vec<EpollEvent>, max: usize, deadline: Option<u64>) -> Result<usize> {
        let owner = worker::current_owner();
        self.wait_as(owner)?;
        let (mut first, mut noted) = (true, None);
        loop {
            self.look(owner, out, max)?;
            if !out.is_empty() {
                return Ok(out.len());
            }
            if deadline.is_some_and(|d| sys::monotonic_ns() >= d) {
                // A worker's network goes on even under a program that only polls.
                if first && worker::run_blocked_turn(Some(0)) {
                    self.look(owner, out, max)?;
                }
                return Ok(out.len());
            }
            if let Some(owner) = owner
                && noted.is_none()
            {
                noted = Some(self.note(owner)?);
                continue;
            }
            first = false;
            if self.closed.load(Ordering::Acquire) {
                self.shared.signal(); // the next one, if there are more
                return Err(Errno::EBADF);
            }
            if let Some(owner) = owner {
                let kernel = self.kernel_members.load(Ordering::Relaxed) > 0;
                if self.shared.hub.stopping() {
                    return Err(Errno::ENETDOWN);
                }
                // Other workers' reports wake threads, not one another's programs: where
                // one of them has a member, this one looks again soon.
                let others = self.waits.is_for_others(owner) || self.inner.hold().hears_from_others(owner);
                let soon = others.then(|| sys::monotonic_ns() + 100_000);
                let deadline = deadline.into_iter().chain(soon).min();
                worker::run_blocked_turn_with(deadline, kernel.then(|| self.kernel_fd()));
            } else {
                self.sleep(out, max, deadline)?;
                if !out.is_empty() {
                    return Ok(out.len());
                }
            }
        }
    }

    /// What is ready now: the worker's own, anybody's, and the kernel's. Each of the
    /// three comes first in its turn, so that none that always has something keeps the
    /// others out.
    fn look(&self, owner: Option<Owner>, out: &mut Vec<EpollEvent>, max: usize) -> Result<()> {
        let turn = self.turn.load(Ordering::Relaxed);
        self.turn.store(turn.wrapping_add(1), Ordering::Relaxed);
        for source in 0..3 {
            match (turn % 3 + source) % 3 {
                0 => self.look_at_own(owner, out, max)?,
                1 => self.look_at_shared(out, max),
                _ => self.look_at_kernels(out, max)?,
            }
        }
        Ok(())
    }

    fn look_at_own(&self, owner: Option<Owner>, out: &mut Vec<EpollEvent>, max: usize) -> Result<()> {
        if let Some(owner) = owner
            && out.len() < max
            && let Some(h) = self.local(owner, false)?
        {
            let _ = worker::with_sockets(owner, |s| s.epoll_wait(h, out, max - out.len()));
        }
        Ok(())
    }

    fn look_at_shared(&self, out: &mut Vec<EpollEvent>, max: usize) {
        let hub = self.shared.hub;
        let mut inner = self.inner.hold();
        inner.take_reports();
        let broken = hub.stopping() && hub.seats.iter().any(Seat::is_down);
        if broken {
            inner.list_all(); // each says that it is broken
        }
        let last = if inner.list.is_empty() { Vec::new() } else { inner.report(out, max) };
        let left = !inner.list.is_empty();
        drop(inner);
        drop(last);
        // The end of the network is for all who sleep, and signalled once.
        if left || broken && !out.is_empty() {
            self.pass_on();
        }
    }

    fn look_at_kernels(&self, out: &mut Vec<EpollEvent>, max: usize) -> Result<()> {
        if self.kernel_members.load(Ordering::Relaxed) == 0 || out.len() >= max {
            return Ok(());
        }
        match self.kernel_wait(out, max, 0) {
            // It was for one who sleeps.
            Ok(true) if self.shared.sleepers.any() => self.shared.signal(),
            // What was found before is reported all the same.
            Err(error) if out.is_empty() => return Err(error),
            _ => {}
        }
        Ok(())
    }

    fn sleep(&self, out: &mut Vec<EpollEvent>, max: usize, deadline: Option<u64>) -> Result<()> {
        self.shared.sleepers.enter();
        let some = self.inner.hold().has_some() || self.closed.load(Ordering::Acquire);
        let slept = if some {
            Ok(false)
        } else {
            let timeout = match deadline {
                None => -1,
                Some(d) => {
                    let ns = d.saturating_sub(sys::monotonic_ns());
                    ns.div_ceil(1_000_000).min(i32::MAX as u64) as i32
                }
            };
            self.kernel_wait(out, max, timeout)
        };
        // Others still sleep: what came meanwhile is theirs, too.
        if self.shared.sleepers.leave() && self.inner.hold().has_some() {
            self.shared.wake();
        }
        slept.map(|_| ())
    }

    /// Waits for the kernel's members, and for a wake-up: whether there was one.
    fn kernel_wait(&self, out: &mut Vec<EpollEvent>, max: usize, timeout: i32) -> Result<bool> {
        const MOST: usize = 64;
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; MOST];
        let most = (max - out.len()).clamp(1, MOST) as i32;
        // SAFETY: as many writable events as are said.
        let n = unsafe { libc::epoll_wait(self.kernel_fd(), events.as_mut_ptr(), most, timeout) };
        if n < 0 {
            return Err(last_errno());
        }
        let (mut woken, wake) = (false, wake_mark(&self.shared));
        for event in &events[..n as usize] {
            let (bits, data) = (event.events, event.u64);
            if data == wake {
                woken = true;
            } else {
                out.push(EpollEvent { events: bits, data });
            }
        }
        Ok(woken)
    }
}

impl Drop for EpollSet {
    fn drop(&mut self) {
        for (worker, _) in &self.inner.hold().rings {
            self.shared.hub.seats[*worker].knock(Knock::CloseSet(self.shared.clone()));
        }
        // Also on that worker's own thread, which may be in the middle of a turn.
        let hub = |owner: Owner| [Some(self.shared.hub), Hub::current()].into_iter().flatten().find(|h| h.number == owner.runtime);
        for (owner, h) in self.locals.hold().drain(..) {
            if let Some(hub) = hub(owner) {
                hub.seats[usize::from(owner.worker)].knock(Knock::CloseOwnSet(h));
            }
        }
    }
}

/// Marks the eventfd among the kernel's members, whose mark is the program's data: an
/// address of ours, which no program has for its own.
fn wake_mark(shared: &Arc<SetShared>) -> u64 {
    Arc::as_ptr(shared) as u64
}

fn kernel_ctl(set: RawFd, op: i32, fd: RawFd, events: u32, mark: u64) -> Result<()> {
    let mut event = libc::epoll_event { events, u64: mark };
    // SAFETY: the event lives through the call.
    let n = unsafe { libc::epoll_ctl(set, op, fd, &mut event) };
    if n < 0 { Err(last_errno()) } else { Ok(()) }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::frame::Arena;
    use crate::runtime::Config;
    use std::os::fd::AsRawFd;

    #[test]
    fn who_only_looks_takes_no_wake_up_from_a_sleeper() {
        let hub = Hub::new(Config::new("memory"), 1, Arena::heap(1, 2048)).unwrap();
        let (kernel, never) = (EpollSet::kernel().unwrap(), sys::EventFd::new().unwrap());
        let set = EpollSet::new(hub, kernel.as_raw_fd(), None).unwrap();
        set.control_kernel(libc::EPOLL_CTL_ADD, never.fd(), 1, 7).unwrap();
        let look = || {
            let mut out = Vec::new();
            set.look(None, &mut out, 4).unwrap();
            assert_eq!(out, []);
        };
        let woken = || sys::poll_one(kernel.as_raw_fd(), Some(0)).unwrap();
        set.shared.sleepers.enter();
        set.shared.wake();
        look();
        assert!(woken(), "it is still there for the one who sleeps");
        assert!(!set.shared.sleepers.leave());
        look();
        assert!(!woken(), "there is nobody left to wake");
    }

    #[test]
    fn a_kernels_descriptor_that_outlives_its_number_is_nobody_elses() {
        let hub = Hub::new(Config::new("memory"), 1, Arena::heap(1, 2048)).unwrap();
        let (kernel, file) = (EpollSet::kernel().unwrap(), sys::EventFd::new().unwrap());
        let set = EpollSet::new(hub, kernel.as_raw_fd(), None).unwrap();
        // SAFETY: takes no pointers.
        let number = unsafe { OwnedFd::from_raw_fd(libc::dup(file.fd())) };
        let fd = number.as_raw_fd();
        for (op, data) in [(libc::EPOLL_CTL_ADD, 6), (libc::EPOLL_CTL_MOD, u64::MAX)] {
            set.control_kernel(op, fd, 1, data).unwrap();
        }
        file.signal();
        let look = || {
            let mut out = Vec::new();
            set.look(None, &mut out, 4).unwrap();
            out
        };
        let left = [EpollEvent { events: 1, data: u64::MAX }];
        assert_eq!(look(), left);
        drop(number);
        // A socket of ours has the number now.
        let member = Member { data: 9, events: 1, listed: false, socket: std::sync::Weak::new(), taken: Vec::new() };
        set.inner.hold().insert(fd, member);
        assert_eq!(look(), left, "as the kernel has it: it goes on by its own name");
        let mut out = Vec::new();
        set.sleep(&mut out, 4, None).unwrap();
        assert_eq!(out, left, "and a sleep that ends because of it says so");
    }
}
