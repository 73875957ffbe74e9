//! The program's side of an epoll set; the workers' is in [`super::epoll`].

use super::channel::{self, Thread};
use super::claim::Claim;
use super::descriptors::Owner;
use super::epoll::{SetShared, Taken};
use super::hub::{Hub, Knock, Seat};
use super::ring::Consumer;
use super::shared::SharedSocket;
use super::worker::{self, Core};
use super::posix;
use super::{sys, sys::last_errno};
use crate::errno::{Errno, Result};
use crate::socket::{EpollEvent, Handle, Membership};
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicUsize, Ordering, fence};
use std::collections::{HashMap, VecDeque};
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::sync::{Arc, Weak};

const ONESHOT: u32 = 1 << 30;
const EDGE: u32 = 1 << 31;
/// EPOLLERR | EPOLLHUP: reported whether asked for or not.
const ALWAYS: u32 = 0x8 | 0x10;
/// Bits that say how, not what.
const HOW: u32 = 0xf << 28;
/// Marks the eventfd among the kernel's members, whose mark is their number.
const WAKE: u64 = u64::MAX;

/// A set that any thread may use.
pub(super) struct EpollSet {
    shared: Arc<SetShared>,
    kernel_fd: AtomicI32,
    inner: Claim<Inner>,
    sleepers: AtomicUsize,
    /// Its descriptor was closed: waits end.
    closed: AtomicBool,
    /// Members that are the kernel's.
    kernel_members: AtomicUsize,
    /// The sets of workers' own sockets, which their own threads wait on.
    locals: Claim<Vec<(Owner, Handle)>>,
    /// Who waits on it: nobody yet, one worker's program, or whoever likes. What
    /// others' waits are to find is no worker's own any more.
    waits: AtomicU32,
}

const NOBODY: u32 = u32::MAX;
const ANYBODY: u32 = u32::MAX - 1;

/// Who waits, in [`EpollSet::waits`].
fn waiter(owner: Option<Owner>) -> u32 {
    owner.map_or(ANYBODY, |o| u32::from(o.runtime) << 8 | u32::from(o.worker))
}

#[derive(Default)]
struct Inner {
    rings: Vec<(usize, Consumer<u64>)>,
    members: Vec<Option<Member>>,
    generations: Vec<u32>,
    free: Vec<u32>,
    by_fd: HashMap<RawFd, u32>,
    list: VecDeque<u64>,
}

struct Member {
    data: u64,
    events: u32,
    listed: bool,
    /// `None`: the kernel's.
    socket: Option<Weak<SharedSocket>>,
    taken: Vec<(usize, Arc<Taken>)>,
}

impl Inner {
    fn token(&self, index: u32) -> u64 {
        u64::from(self.generations[index as usize]) << 32 | u64::from(index)
    }

    fn at(&mut self, token: u64) -> Option<&mut Member> {
        let index = token as u32 as usize;
        if self.generations.get(index).is_none_or(|g| u64::from(*g) != token >> 32) {
            return None;
        }
        self.members[index].as_mut()
    }

    fn insert(&mut self, fd: RawFd, member: Member) -> u64 {
        let index = self.free.pop().unwrap_or_else(|| {
            self.members.push(None);
            self.generations.push(0);
            self.members.len() as u32 - 1
        });
        self.members[index as usize] = Some(member);
        self.by_fd.insert(fd, index);
        self.token(index)
    }

    fn remove(&mut self, fd: RawFd) -> Option<(u64, Member)> {
        let index = self.by_fd.remove(&fd)?;
        let token = self.token(index);
        let member = self.members[index as usize].take()?;
        self.generations[index as usize] = self.generations[index as usize].wrapping_add(1);
        self.free.push(index);
        Some((token, member))
    }

    /// The member of this number, unless its socket was closed since.
    fn of(&mut self, fd: RawFd, socket: &Arc<SharedSocket>) -> Option<u64> {
        let index = *self.by_fd.get(&fd)?;
        let member = self.members[index as usize].as_ref()?;
        let same = member.socket.as_ref().is_some_and(|s| core::ptr::eq(s.as_ptr(), Arc::as_ptr(socket)));
        if same {
            return Some(self.token(index));
        }
        self.remove(fd);
        None
    }

    fn list(&mut self, token: u64) {
        if let Some(member) = self.at(token)
            && !member.listed
        {
            member.listed = true;
            self.list.push_back(token);
        }
    }

    /// Lists every socket.
    #[cold]
    fn list_all(&mut self) {
        for index in 0..self.members.len() as u32 {
            if matches!(&self.members[index as usize], Some(m) if m.socket.is_some()) {
                self.list(self.token(index));
            }
        }
    }

    /// True where a worker that others sit at reports to it.
    fn hears_from_others(&self, owner: Owner) -> bool {
        self.rings.iter().any(|(worker, _)| *worker != usize::from(owner.worker))
    }

    /// Takes the workers' reports into the ready list.
    fn take_reports(&mut self) -> bool {
        let mut any = false;
        for i in 0..self.rings.len() {
            while let Some(token) = self.rings[i].1.pop() {
                any = true;
                let worker = self.rings[i].0;
                if let Some(member) = self.at(token) {
                    for (_, taken) in member.taken.iter().filter(|(w, _)| *w == worker) {
                        let n = taken.0.load(Ordering::Relaxed).wrapping_add(1);
                        taken.0.store(n, Ordering::Relaxed);
                    }
                    self.list(token);
                }
            }
        }
        if any {
            fence(Ordering::SeqCst); // pairs with the fence in `Core::pump`
        }
        any
    }

    /// Reports listed members that are ready. Returns what nobody else has any more:
    /// its end may run a turn, and that is not for one who holds the set.
    fn report(&mut self, out: &mut Vec<EpollEvent>, max: usize) -> Vec<SharedSocket> {
        let mut last = Vec::new();
        for _ in 0..self.list.len() {
            if out.len() >= max {
                break;
            }
            let Some(token) = self.list.pop_front() else { break };
            let Some(member) = self.at(token) else { continue };
            member.listed = false;
            let Some(socket) = member.socket.as_ref().and_then(Weak::upgrade) else { continue };
            #[cfg(test)]
            LOOKED_AT.set(LOOKED_AT.get() + 1);
            let ready = socket.readiness() & member.events & !HOW;
            last.extend(Arc::into_inner(socket));
            if ready == 0 {
                continue;
            }
            out.push(EpollEvent { events: ready, data: member.data });
            if member.events & ONESHOT != 0 {
                member.events &= HOW;
            } else if member.events & EDGE == 0 {
                self.list(token);
            }
        }
        last
    }
}

#[cfg(test)]
thread_local! {
    static LOOKED_AT: core::cell::Cell<usize> = const { core::cell::Cell::new(0) };
}

/// How many members this thread's waits have asked for their readiness.
#[cfg(test)]
pub(super) fn looked_at() -> usize {
    LOOKED_AT.get()
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
        kernel_ctl(kernel, libc::EPOLL_CTL_ADD, shared.fd(), 0x1 | EDGE, WAKE)?;
        Ok(Self {
            shared,
            kernel_fd: AtomicI32::new(kernel),
            inner: Claim::new(Inner::default()),
            sleepers: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
            kernel_members: AtomicUsize::new(0),
            locals: Claim::new(local.into_iter().collect()),
            waits: AtomicU32::new(NOBODY),
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

    /// True where another than this worker's program waits on it.
    pub fn is_for_others(&self, owner: Owner) -> bool {
        let waits = self.waits.load(Ordering::Relaxed);
        waits != NOBODY && waits != waiter(Some(owner))
    }

    /// Before a wait: what it is to find and is another worker's own is made any
    /// thread's. That is done once; then it costs one load and a comparison.
    #[inline]
    fn wait_as(&self, owner: Option<Owner>) -> Result<()> {
        let waits = self.waits.load(Ordering::Relaxed);
        if waits == ANYBODY || waits == waiter(owner) { Ok(()) } else { self.open_to(owner) }
    }

    #[cold]
    fn open_to(&self, owner: Option<Owner>) -> Result<()> {
        let me = waiter(owner);
        let both = |waits| Some(if waits == NOBODY || waits == me { me } else { ANYBODY });
        // From here on what comes in is made any thread's at once; what is in before
        // is seen by the call, which its worker answers after that.
        let _ = self.waits.fetch_update(Ordering::SeqCst, Ordering::SeqCst, both);
        let hub = self.shared.hub;
        let locals = self.locals.hold().clone();
        for (of, h) in locals.into_iter().filter(|(of, _)| self.is_for_others(*of) && of.runtime == hub.number) {
            let open = |thread: &mut Thread| thread.call(hub, of.worker.into(), move |core| posix::open_members(core, h));
            match channel::with(open) {
                // It has ended, and says so where it is asked for events.
                Err(Errno::ENETDOWN) => {}
                result => result.and_then(|r| r).inspect_err(|_| self.waits.store(NOBODY, Ordering::SeqCst))?,
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
                socket: Some(Arc::downgrade(socket)),
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
        self.pass_on();
    }

    /// `epoll_ctl` on a shared socket.
    pub fn control(&self, thread: &mut Thread, op: i32, fd: RawFd, socket: &Arc<SharedSocket>, events: u32, data: u64) -> Result<()> {
        let known = self.inner.hold().of(fd, socket);
        match (op, known) {
            (libc::EPOLL_CTL_ADD, Some(_)) => Err(Errno::EEXIST),
            (libc::EPOLL_CTL_ADD, None) => self.add(thread, fd, socket, events, data),
            (libc::EPOLL_CTL_MOD | libc::EPOLL_CTL_DEL, None) => Err(Errno::ENOENT),
            (libc::EPOLL_CTL_MOD, Some(token)) => {
                for link in socket.links() {
                    let id = link.id;
                    thread.call(link.hub, link.worker, move |core| core.resubscribe(id, token, events))?;
                }
                let mut inner = self.inner.hold();
                if let Some(member) = inner.at(token) {
                    (member.events, member.data) = (events | ALWAYS, data);
                }
                inner.list(token);
                drop(inner);
                self.stir();
                Ok(())
            }
            (libc::EPOLL_CTL_DEL, Some(token)) => {
                self.inner.hold().remove(fd);
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
            socket: Some(Arc::downgrade(socket)),
            taken: taken.clone(),
        };
        let token = self.inner.hold().insert(fd, member);
        for (link, (worker, taken)) in links.iter().zip(taken) {
            let (id, shared) = (link.id, self.shared.clone());
            let ring = thread.call(link.hub, worker, move |core| core.subscribe(id, &shared, token, events, taken))?;
            if let Some(ring) = ring {
                self.inner.hold().rings.push((worker, ring));
            }
        }
        // What is ready already counts as something that happened.
        self.inner.hold().list(token);
        self.stir();
        Ok(())
    }

    /// `epoll_ctl` on a descriptor of the kernel's.
    pub fn control_kernel(&self, op: i32, fd: RawFd, events: u32, data: u64) -> Result<()> {
        kernel_ctl(self.kernel_fd(), op, fd, events, fd as u64)?;
        let mut inner = self.inner.hold();
        let old = if op == libc::EPOLL_CTL_MOD { None } else { inner.remove(fd) };
        // It may be a socket's of ours, which had the number before.
        if old.is_some_and(|(_, member)| member.socket.is_none()) {
            self.kernel_members.fetch_sub(1, Ordering::Relaxed);
        }
        match op {
            libc::EPOLL_CTL_ADD => {
                let member = Member { data, events, listed: false, socket: None, taken: Vec::new() };
                inner.insert(fd, member);
                self.kernel_members.fetch_add(1, Ordering::Relaxed);
            }
            libc::EPOLL_CTL_MOD => {
                if let Some(index) = inner.by_fd.get(&fd).copied()
                    && let Some(member) = &mut inner.members[index as usize]
                {
                    member.data = data;
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Lets another sleeper look, where something is left on the list.
    fn pass_on(&self) {
        if self.sleepers.load(Ordering::Relaxed) > 0 {
            self.shared.wake();
        }
    }

    /// A member is to be looked at: by a thread that sleeps, or by the worker whose
    /// program waits. Other workers' programs look again by themselves.
    fn stir(&self) {
        self.pass_on();
        let hub = self.shared.hub;
        for (owner, _) in self.locals.hold().iter().filter(|(owner, _)| owner.runtime == hub.number) {
            if worker::current_owner() != Some(*owner) {
                hub.seats[usize::from(owner.worker)].knock(Knock::Look);
            }
        }
    }

    /// The descriptor is being closed: ends the waits of other threads.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.shared.signal();
        let hub = self.shared.hub;
        for (owner, _) in self.locals.hold().iter().filter(|(owner, _)| owner.runtime == hub.number) {
            hub.seats[usize::from(owner.worker)].sleeper.wake();
        }
    }

    /// `epoll_wait`: appends up to `max` events; `deadline` in ns of
    /// CLOCK_MONOTONIC, `None`: for ever.
    ///
    /// # Errors
    /// `EINTR`.
    pub fn wait(&self, out: &mut Vec<EpollEvent>, max: usize, deadline: Option<u64>) -> Result<usize> {
        let owner = worker::current_owner();
        self.wait_as(owner)?;
        let mut first = true;
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
                // Other workers wake threads, not one another's programs: where one
                // of them has a member, this one looks again soon.
                let others = self.waits.load(Ordering::Relaxed) == ANYBODY || self.inner.hold().hears_from_others(owner);
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

    /// What is ready now.
    fn look(&self, owner: Option<Owner>, out: &mut Vec<EpollEvent>, max: usize) -> Result<()> {
        if let Some(owner) = owner
            && let Some(h) = self.local(owner, false)?
        {
            let _ = worker::with_sockets(owner, |s| s.epoll_wait(h, out, max));
        }
        let hub = self.shared.hub;
        let mut inner = self.inner.hold();
        inner.take_reports();
        if hub.stopping() && hub.seats.iter().any(Seat::is_down) {
            inner.list_all(); // each says that it is broken
        }
        let last = if inner.list.is_empty() { Vec::new() } else { inner.report(out, max) };
        let left = !inner.list.is_empty();
        drop(inner);
        drop(last);
        if left {
            self.pass_on();
        }
        if self.kernel_members.load(Ordering::Relaxed) > 0 && out.len() < max {
            self.kernel_wait(out, max, 0)?;
        }
        Ok(())
    }

    fn sleep(&self, out: &mut Vec<EpollEvent>, max: usize, deadline: Option<u64>) -> Result<()> {
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        self.shared.announce();
        let mut inner = self.inner.hold();
        let some = inner.take_reports() || !inner.list.is_empty() || self.closed.load(Ordering::Acquire);
        drop(inner);
        let slept = if some {
            Ok(())
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
        if self.sleepers.fetch_sub(1, Ordering::SeqCst) > 1 {
            // Others still sleep: the flag is theirs, and what came meanwhile too.
            self.shared.announce();
            if self.inner.hold().rings.iter_mut().any(|(_, ring)| !ring.is_empty()) {
                self.shared.wake();
            }
        } else {
            self.shared.awake();
        }
        slept
    }

    fn kernel_wait(&self, out: &mut Vec<EpollEvent>, max: usize, timeout: i32) -> Result<()> {
        const MOST: usize = 64;
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; MOST];
        let most = (max - out.len()).clamp(1, MOST) as i32;
        // SAFETY: as many writable events as are said.
        let n = unsafe { libc::epoll_wait(self.kernel_fd(), events.as_mut_ptr(), most, timeout) };
        if n < 0 {
            return Err(last_errno());
        }
        let inner = self.inner.hold();
        for event in &events[..n as usize] {
            let (bits, mark) = (event.events, event.u64);
            let member = inner.by_fd.get(&(mark as RawFd)).filter(|_| mark != WAKE);
            if let Some(Some(member)) = member.map(|i| &inner.members[*i as usize]) {
                out.push(EpollEvent { events: bits, data: member.data });
            }
        }
        Ok(())
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

fn kernel_ctl(set: RawFd, op: i32, fd: RawFd, events: u32, mark: u64) -> Result<()> {
    let mut event = libc::epoll_event { events, u64: mark };
    // SAFETY: the event lives through the call.
    let n = unsafe { libc::epoll_ctl(set, op, fd, &mut event) };
    if n < 0 { Err(last_errno()) } else { Ok(()) }
}
