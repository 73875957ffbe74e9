//! Descriptors: real slots of the process's table, so that they are small,
//! unique, and bounded by RLIMIT_NOFILE.
//!
//! Each is a dup of one anchor (a socket that is connected to nothing, so that a
//! stray `read` of the kernel's fails at once). Threads take them in batches and
//! keep a few closed ones to use again, so that a connection costs no system
//! call. What a descriptor stands for is found in a table without locks.
//!
//! Memory ordering: a slot's `word` is written before its state is published
//! with Release, and read after the state was loaded with Acquire. A user of a
//! shared object counts itself in the state; who closes clears LIVE; the one
//! that finds the count at zero and LIVE gone, and wins the exchange to FREEING,
//! owns the object, and hands the descriptor's number on only after that.

use super::sys::{ForkMark, last_errno};
use crate::errno::{Errno, Result};
use core::cell::RefCell;
use core::marker::PhantomData;
use core::ptr;
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::sync::OnceLock;

const PAGE: usize = 1024;
const PAGES: usize = 1024;
/// Descriptors that a thread takes from the kernel at once.
const BATCH: usize = 16;
/// Closed descriptors that a thread keeps; more go back to the kernel.
const KEEP: usize = 64;

const REFS: u64 = 0xffff_ffff;
const LIVE: u64 = 1 << 32;
const SHARED: u64 = 1 << 33;
const FREEING: u64 = 1 << 34;
/// The number is closed with its object, not kept: an epoll set of the kernel's, or one
/// that was asked for (F_DUPFD).
pub const KERNEL: u64 = 1 << 35;
const OWNER_SHIFT: u32 = 40;

/// The worker that a socket belongs to: its runtime's number (16 bits) and its
/// own within it (8 bits).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The runtime's number in this process.
    pub runtime: u16,
    /// The worker's number.
    pub worker: u8,
}

impl Owner {
    const fn bits(self) -> u64 {
        (((self.runtime as u64) << 8) | self.worker as u64) << OWNER_SHIFT
    }

    const fn from_bits(state: u64) -> Self {
        let bits = state >> OWNER_SHIFT;
        Self { runtime: (bits >> 8) as u16, worker: bits as u8 }
    }
}

/// The state of the descriptors of a worker's own sockets, and with [`KERNEL`] of its
/// own epoll sets: no other descriptor has the same.
pub const fn local_state(owner: Owner) -> u64 {
    LIVE | owner.bits()
}

/// What says 1 where no mark could be set: forks are not noticed then.
static NO_MARK: AtomicU32 = AtomicU32::new(1);

/// One descriptor's place. A line of its own: two threads' descriptors share none.
#[repr(align(64))]
struct Slot {
    state: AtomicU64,
    /// A local socket's handle, or the address of a boxed shared object.
    word: AtomicU64,
    /// O_NONBLOCK, and the time-outs of blocking calls.
    status: AtomicU32,
}

const _: () = assert!(size_of::<Slot>() == 64);

type Page = [Slot; PAGE];

/// What descriptors stand for. `T` is what any thread may use.
pub struct Table<T> {
    pages: [AtomicPtr<Page>; PAGES],
    fork: OnceLock<Option<ForkMark>>,
    /// 0 in a forked child: `fork`'s, once there is one.
    mark: AtomicPtr<AtomicU32>,
    anchor: OnceLock<Option<OwnedFd>>,
    _objects: PhantomData<fn() -> T>,
}

/// What a descriptor stands for.
pub enum Entry<'t, T> {
    /// A socket of one worker, used by that worker's own thread.
    Local(Owner, u64),
    /// An epoll set of one worker, likewise.
    LocalSet(Owner, u64),
    /// An object that any thread may use.
    Shared(Guard<'t, T>),
}

/// Keeps a shared object while it is used.
pub struct Guard<'t, T> {
    fd: RawFd,
    slot: &'t Slot,
    object: *const T,
}

impl<T> core::ops::Deref for Guard<'_, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the object is freed only when no guard counts itself in the slot.
        unsafe { &*self.object }
    }
}

impl<T> Drop for Guard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        leave::<T>(self.fd, self.slot);
    }
}

impl<T: Send + Sync> Default for Table<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Send + Sync> Table<T> {
    /// An empty table. There is one in the process; tests make their own.
    pub const fn new() -> Self {
        Self {
            pages: [const { AtomicPtr::new(ptr::null_mut()) }; PAGES],
            fork: OnceLock::new(),
            mark: AtomicPtr::new((&raw const NO_MARK).cast_mut()),
            anchor: OnceLock::new(),
            _objects: PhantomData,
        }
    }

    /// From now on a child of this process is told from it.
    pub fn watch_forks(&self) {
        if let Some(mark) = self.fork.get_or_init(|| ForkMark::new().ok()) {
            self.mark.store(core::ptr::from_ref(mark.get()).cast_mut(), Ordering::Release);
        }
    }

    /// True in a child of the process that first watched for forks, or took a
    /// descriptor.
    #[inline]
    pub fn forked(&self) -> bool {
        // SAFETY: a static, or what a mark is, which is never unmapped.
        unsafe { (*self.mark.load(Ordering::Acquire)).load(Ordering::Relaxed) == 0 }
    }

    #[inline]
    fn slot(&self, fd: RawFd) -> Option<&Slot> {
        let fd = fd as usize; // a negative one is far out of range
        let page = self.pages.get(fd / PAGE)?.load(Ordering::Acquire);
        // SAFETY: a page, once published, is never freed or moved.
        let page = unsafe { page.as_ref()? };
        Some(&page[fd % PAGE])
    }

    /// As [`Table::slot`], making the page. `None` beyond the table's end.
    fn make_slot(&self, fd: RawFd) -> Option<&Slot> {
        let place = self.pages.get(fd as usize / PAGE)?;
        if place.load(Ordering::Acquire).is_null() {
            let fresh: Box<[Slot]> = (0..PAGE)
                .map(|_| Slot {
                    state: AtomicU64::new(0),
                    word: AtomicU64::new(0),
                    status: AtomicU32::new(0),
                })
                .collect();
            let fresh = Box::into_raw(fresh).cast::<Page>();
            let won =
                place.compare_exchange(ptr::null_mut(), fresh, Ordering::AcqRel, Ordering::Acquire);
            if won.is_err() {
                // SAFETY: made above, never published.
                drop(unsafe { Box::from_raw(fresh) });
            }
        }
        self.slot(fd)
    }

    /// True where the descriptor is one of this table's.
    #[inline]
    pub fn is_ours(&self, fd: RawFd) -> bool {
        self.slot(fd).is_some_and(|slot| slot.state.load(Ordering::Acquire) & LIVE != 0) || kept(fd)
    }

    /// The short way for a worker's own thread: the word and the status of a
    /// descriptor whose state is exactly this ([`local_state`]). `None` where it is
    /// another, and where [`Table::lookup`] has more to say. Some 15 instructions.
    #[inline(always)]
    pub fn local(&self, fd: RawFd, state: u64) -> Option<(u64, u32)> {
        let slot = self.local_slot(fd, state)?;
        Some((slot.word.load(Ordering::Relaxed), slot.status.load(Ordering::Relaxed)))
    }

    /// As [`Table::local`], the word alone.
    #[inline(always)]
    pub fn local_word(&self, fd: RawFd, state: u64) -> Option<u64> {
        Some(self.local_slot(fd, state)?.word.load(Ordering::Relaxed))
    }

    #[inline(always)]
    fn local_slot(&self, fd: RawFd, state: u64) -> Option<&Slot> {
        let slot = self.slot(fd)?;
        (slot.state.load(Ordering::Acquire) == state && !self.forked()).then_some(slot)
    }

    /// What the descriptor stands for; `None` where it is not one of this
    /// table's.
    ///
    /// # Errors
    /// `EBADF` in a forked child, and where the number is closed but kept for the
    /// next socket: the system must not get to close it a second time.
    #[inline]
    pub fn lookup(&self, fd: RawFd) -> Result<Option<Entry<'_, T>>> {
        let none = || if kept(fd) { Err(Errno::EBADF) } else { Ok(None) };
        let Some(slot) = self.slot(fd) else { return none() };
        let state = slot.state.load(Ordering::Acquire);
        if state & LIVE == 0 {
            return none();
        }
        if self.forked() {
            return Err(Errno::EBADF);
        }
        if state & SHARED == 0 {
            // A local socket is closed by its worker's thread alone, which is the
            // one that asks; another thread checks the owner and the generation
            // in the handle.
            let word = slot.word.load(Ordering::Relaxed);
            let (owner, set) = (Owner::from_bits(state), state & KERNEL != 0);
            return Ok(Some(if set { Entry::LocalSet(owner, word) } else { Entry::Local(owner, word) }));
        }
        let state = slot.state.fetch_add(1, Ordering::Acquire);
        if state & LIVE == 0 || state & SHARED == 0 {
            leave::<T>(fd, slot);
            return Ok(None);
        }
        let object = slot.word.load(Ordering::Relaxed) as *const T;
        Ok(Some(Entry::Shared(Guard { fd, slot, object })))
    }

    /// Gives a new descriptor to a local socket.
    ///
    /// # Errors
    /// `EMFILE`, `ENFILE`.
    pub fn insert_local(&self, owner: Owner, word: u64, status: u32) -> Result<RawFd> {
        let fd = self.take_fd()?;
        self.publish(fd, local_state(owner), word, status)?;
        Ok(fd)
    }

    /// Gives a new descriptor to a shared object.
    ///
    /// # Errors
    /// `EMFILE`, `ENFILE`.
    pub fn insert_shared(&self, object: T, status: u32) -> Result<RawFd> {
        let fd = self.take_fd()?;
        self.publish_object(fd, object, LIVE | SHARED, status)?;
        Ok(fd)
    }

    /// As [`Table::insert_shared`], with a number not below `from` (F_DUPFD).
    ///
    /// # Errors
    /// `EINVAL` where `from` is below 0 or beyond RLIMIT_NOFILE; `EMFILE`.
    pub fn insert_shared_from(&self, object: T, from: RawFd) -> Result<RawFd> {
        if from == 0 {
            return self.insert_shared(object, 0);
        }
        let fd = self.number_from(from)?;
        // Not kept when it is closed: the next socket's number would be as high.
        self.publish_object(fd, object, LIVE | SHARED | KERNEL, 0)?;
        Ok(fd)
    }

    /// Makes a descriptor of the kernel's (an epoll set) stand for a shared
    /// object. It is closed with it.
    ///
    /// # Errors
    /// `EMFILE` where its number is beyond the table.
    pub fn adopt(&self, fd: OwnedFd, object: T, status: u32) -> Result<RawFd> {
        let fd = fd.into_raw_fd();
        self.publish_object(fd, object, LIVE | SHARED | KERNEL, status)?;
        Ok(fd)
    }

    fn publish_object(&self, fd: RawFd, object: T, state: u64, status: u32) -> Result<()> {
        let word = Box::into_raw(Box::new(object));
        self.publish(fd, state, word as u64, status).inspect_err(|_| {
            // SAFETY: made above, not published.
            drop(unsafe { Box::from_raw(word) });
        })
    }

    /// As [`Table::adopt`], for a worker's own epoll set.
    ///
    /// # Errors
    /// As [`Table::adopt`].
    pub fn adopt_local(&self, fd: OwnedFd, owner: Owner, word: u64) -> Result<RawFd> {
        let fd = fd.into_raw_fd();
        self.publish(fd, local_state(owner) | KERNEL, word, 0)?;
        Ok(fd)
    }

    /// Makes the descriptor of what is local stand for a shared object. For the
    /// owner's thread alone.
    pub fn share(&self, fd: RawFd, object: T) {
        let Some(slot) = self.slot(fd) else { return };
        let state = slot.state.load(Ordering::Acquire);
        debug_assert!(state & LIVE != 0 && state & SHARED == 0);
        slot.word.store(Box::into_raw(Box::new(object)) as u64, Ordering::Relaxed);
        slot.state.fetch_or(SHARED, Ordering::Release);
    }

    /// The descriptors of this state ([`local_state`]) and their words. Linear in all
    /// descriptors.
    pub fn locals(&self, state: u64) -> impl Iterator<Item = (RawFd, u64)> + '_ {
        let pages = self.pages.iter().enumerate().filter_map(|(n, page)| {
            // SAFETY: as in `slot`.
            unsafe { page.load(Ordering::Acquire).as_ref() }.map(|page| (n * PAGE, page))
        });
        let slots = pages.flat_map(|(first, page)| page.iter().enumerate().map(move |(n, slot)| (first + n, slot)));
        let same = move |slot: &Slot| slot.state.load(Ordering::Acquire) & !REFS == state;
        slots.filter(move |(_, slot)| same(slot)).map(|(fd, slot)| (fd as RawFd, slot.word.load(Ordering::Relaxed)))
    }

    fn publish(&self, fd: RawFd, state: u64, word: u64, status: u32) -> Result<()> {
        let Some(slot) = self.make_slot(fd) else {
            give_back(fd, true);
            return Err(Errno::EMFILE);
        };
        slot.word.store(word, Ordering::Relaxed);
        slot.status.store(status, Ordering::Relaxed);
        // Added, not stored: a look-up that came too early may be counted in it
        // for a moment.
        slot.state.fetch_add(state, Ordering::Release);
        Ok(())
    }

    /// The descriptor's own status word.
    #[inline]
    pub fn status(&self, fd: RawFd) -> u32 {
        self.slot(fd).map_or(0, |slot| slot.status.load(Ordering::Relaxed))
    }

    /// Sets bits of the status word, and clears others.
    pub fn change_status(&self, fd: RawFd, set: u32, clear: u32) {
        if let Some(slot) = self.slot(fd) {
            let _ = slot
                .status
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |s| Some((s & !clear) | set));
        }
    }

    /// Closes the descriptor of what is local, whose handle it returns. For the
    /// owner's thread alone. The number is free for use again.
    ///
    /// # Errors
    /// `EBADF`.
    pub fn remove_local(&self, fd: RawFd) -> Result<u64> {
        let slot = self.slot(fd).ok_or(Errno::EBADF)?;
        let state = slot.state.load(Ordering::Acquire);
        if state & LIVE == 0 || state & SHARED != 0 {
            return Err(Errno::EBADF);
        }
        let word = slot.word.load(Ordering::Relaxed);
        slot.state.fetch_sub(state & !REFS, Ordering::AcqRel);
        give_back(fd, state & KERNEL != 0);
        Ok(word)
    }

    /// Closes the descriptor of a shared object: from now on it is not found.
    /// The object itself goes, and the number is free, when the last call that
    /// uses it has returned. `EBADF` for all but the first to close it.
    ///
    /// # Errors
    /// `EBADF`.
    pub fn remove_shared(&self, guard: Guard<'_, T>) -> Result<()> {
        let before = guard.slot.state.fetch_and(!LIVE, Ordering::AcqRel);
        if before & LIVE == 0 { Err(Errno::EBADF) } else { Ok(()) }
    }

    /// Takes a descriptor from the thread's stock, or a batch from the kernel.
    fn take_fd(&self) -> Result<RawFd> {
        if let Some(fd) = STOCK.with_borrow_mut(|stock| stock.fds.pop()) {
            KEPT.set(fd, false);
            return Ok(fd);
        }
        let anchor = self.anchor().ok_or(Errno::EMFILE)?;
        let mut batch = Vec::with_capacity(BATCH);
        for _ in 0..BATCH {
            // SAFETY: takes no pointers.
            let fd = unsafe { libc::fcntl(anchor, libc::F_DUPFD_CLOEXEC, 0) };
            if fd < 0 {
                break;
            }
            KEPT.set(fd, true);
            batch.push(fd);
        }
        if batch.is_empty() {
            return Err(last_errno());
        }
        batch.reverse(); // the smallest first
        STOCK.with_borrow_mut(|stock| {
            stock.fds.append(&mut batch);
            let fd = stock.fds.pop().ok_or(Errno::EMFILE)?;
            KEPT.set(fd, false);
            Ok(fd)
        })
    }

    /// A new number of the kernel's, the least that is free from `from` on.
    fn number_from(&self, from: RawFd) -> Result<RawFd> {
        let anchor = self.anchor().ok_or(Errno::EMFILE)?;
        // SAFETY: takes no pointers.
        let fd = unsafe { libc::fcntl(anchor, libc::F_DUPFD_CLOEXEC, from) };
        if fd < 0 { Err(last_errno()) } else { Ok(fd) }
    }

    fn anchor(&self) -> Option<RawFd> {
        self.watch_forks();
        let make = || {
            // SAFETY: takes no pointers.
            let fd = unsafe { libc::socket(libc::AF_UNIX, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
            // SAFETY: a new descriptor that nobody else owns.
            (fd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(fd) })
        };
        self.anchor.get_or_init(make).as_ref().map(AsRawFd::as_raw_fd)
    }
}

/// A user of a slot leaves; the last one after the close frees the object.
fn leave<T>(fd: RawFd, slot: &Slot) {
    let before = slot.state.fetch_sub(1, Ordering::AcqRel);
    if before & REFS == 1 && before & LIVE == 0 {
        free::<T>(fd, slot, before - 1);
    }
}

#[cold]
fn free<T>(fd: RawFd, slot: &Slot, state: u64) {
    if state & SHARED == 0 || state & FREEING != 0 {
        return; // an empty slot
    }
    let won = slot.state.compare_exchange(
        state,
        state | FREEING,
        Ordering::AcqRel,
        Ordering::Relaxed,
    );
    if won.is_err() {
        return; // somebody looked in; the last to leave comes here again
    }
    let object = slot.word.load(Ordering::Relaxed) as *mut T;
    slot.state.fetch_sub((state | FREEING) & !REFS, Ordering::AcqRel);
    // SAFETY: boxed by `adopt` or `share`; the exchange made us its only owner.
    drop(unsafe { Box::from_raw(object) });
    give_back(fd, state & KERNEL != 0);
}

/// Keeps the number for the next socket of this thread, or closes it.
fn give_back(fd: RawFd, close: bool) {
    let stocked = |stock: &RefCell<Stock>| {
        let mut stock = stock.borrow_mut();
        let room = stock.fds.len() < KEEP;
        if room {
            KEPT.set(fd, true);
            stock.fds.push(fd);
        }
        room
    };
    // The stock is gone while the thread ends.
    if close || !STOCK.try_with(stocked).unwrap_or(false) {
        to_the_kernel(fd);
    }
}

/// The number is ours, and no slot names it any more.
fn to_the_kernel(fd: RawFd) {
    INHERITED.set(fd, false);
    // SAFETY: ours alone, as said.
    unsafe { libc::close(fd) };
}

/// Sets FD_CLOEXEC of one of our numbers.
///
/// # Errors
/// The system's.
pub fn set_close_on_exec(fd: RawFd, on: bool) -> Result<()> {
    // SAFETY: takes no pointers.
    let n = unsafe { libc::fcntl(fd, libc::F_SETFD, if on { libc::FD_CLOEXEC } else { 0 }) };
    if n < 0 {
        return Err(last_errno());
    }
    INHERITED.set(fd, !on);
    Ok(())
}

/// Sees to it that a new socket's number outlasts `exec`, or does not: they are made with
/// FD_CLOEXEC, and a program finds what it asked for where it can tell. One that was
/// used before mostly is as it should be, and costs no system call.
pub fn keep_on_exec(fd: RawFd, keep: bool) {
    if INHERITED.get(fd) != Some(keep) {
        let _ = set_close_on_exec(fd, !keep);
    }
}

/// A bit for each number; those beyond the end have none.
struct Bits([AtomicU64; 1 << 14]);

impl Bits {
    const fn new() -> Self {
        Self([const { AtomicU64::new(0) }; 1 << 14])
    }

    fn set(&self, fd: RawFd, on: bool) {
        let Some(word) = self.0.get(fd as usize / 64) else { return };
        let bit = 1 << (fd as usize % 64);
        if on { word.fetch_or(bit, Ordering::AcqRel) } else { word.fetch_and(!bit, Ordering::AcqRel) };
    }

    fn get(&self, fd: RawFd) -> Option<bool> {
        Some(self.0.get(fd as usize / 64)?.load(Ordering::Acquire) >> (fd as usize % 64) & 1 != 0)
    }
}

/// Those that lie in some thread's stock. Only its own thread writes a number's bit.
static KEPT: Bits = Bits::new();
/// Those whose FD_CLOEXEC is off; none of the kernel's. (Of a program that goes past us
/// to set it, it is not known.)
static INHERITED: Bits = Bits::new();

/// True for a number that is closed, and kept for the next socket.
fn kept(fd: RawFd) -> bool {
    KEPT.get(fd) == Some(true)
}

/// A thread's unused descriptors.
struct Stock {
    fds: Vec<RawFd>,
}

impl Drop for Stock {
    fn drop(&mut self) {
        for fd in self.fds.drain(..) {
            KEPT.set(fd, false);
            to_the_kernel(fd);
        }
    }
}

thread_local! {
    static STOCK: RefCell<Stock> = const { RefCell::new(Stock { fds: Vec::new() }) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;

    const OWNER: Owner = Owner { runtime: 3, worker: 7 };

    fn shared<T: Send + Sync>(table: &Table<T>, fd: RawFd) -> Guard<'_, T> {
        match table.lookup(fd).unwrap() {
            Some(Entry::Shared(guard)) => guard,
            _ => panic!("not a shared object"),
        }
    }

    #[test]
    fn numbers_are_the_systems_and_come_back() {
        let table = Table::<u32>::new();
        let fd = table.insert_local(OWNER, 42, 1).unwrap();
        // SAFETY: takes no pointers.
        let flags = unsafe { libc::fcntl(fd, libc::F_GETFD) };
        assert_eq!(flags, libc::FD_CLOEXEC);
        assert!(table.is_ours(fd) && !table.is_ours(0) && !table.is_ours(-1));
        assert!(matches!(table.lookup(fd), Ok(Some(Entry::Local(OWNER, 42)))));
        table.change_status(fd, 4, 1);
        assert_eq!(table.status(fd), 4);
        assert_eq!(table.remove_local(fd), Ok(42));
        assert_eq!(table.remove_local(fd), Err(Errno::EBADF));
        assert!(matches!(table.lookup(fd), Err(Errno::EBADF)));
        assert_eq!(table.insert_local(OWNER, 43, 0), Ok(fd), "kept for the next socket");
        table.remove_local(fd).unwrap();
    }

    #[test]
    fn a_number_is_used_again_as_its_socket_wants_it_on_exec() {
        let table = Table::<u32>::new();
        let first = table.insert_local(OWNER, 42, 0).unwrap();
        // SAFETY: takes no pointers.
        let closes = |fd| unsafe { libc::fcntl(fd, libc::F_GETFD) } == libc::FD_CLOEXEC;
        for keep in [true, true, false, false, true] {
            table.remove_local(first).unwrap();
            let fd = table.insert_local(OWNER, 42, 0).unwrap();
            keep_on_exec(fd, keep);
            assert_eq!((fd, closes(fd)), (first, !keep));
        }
        table.remove_local(first).unwrap();
    }

    #[test]
    fn a_closed_number_that_is_kept_is_not_the_systems_to_close() {
        let table: Table<u32> = Table::new();
        let fd = table.insert_shared(7, 0).unwrap();
        table.remove_shared(shared(&table, fd)).unwrap();
        assert!(table.is_ours(fd));
        assert!(matches!(table.lookup(fd), Err(Errno::EBADF)));
        assert_eq!(table.insert_shared(8, 0).unwrap(), fd);
        assert!(matches!(table.lookup(fd), Ok(Some(_))));
    }

    #[test]
    fn a_shared_object_lives_as_long_as_a_call_uses_it() {
        let table = Table::<Arc<()>>::new();
        let object = Arc::new(());
        let fd = table.insert_shared(object.clone(), 0).unwrap();
        let using = shared(&table, fd);
        table.remove_shared(shared(&table, fd)).unwrap();
        assert!(!table.is_ours(fd));
        assert_eq!(Arc::strong_count(&object), 2);
        assert_ne!(table.insert_shared(object.clone(), 0).unwrap(), fd, "still in use");
        drop(using);
        assert_eq!(Arc::strong_count(&object), 2);
    }

    #[test]
    fn a_local_socket_can_become_shared() {
        let table = Table::<u32>::new();
        let fd = table.insert_local(OWNER, 42, 0).unwrap();
        table.share(fd, 77);
        assert_eq!(*shared(&table, fd), 77);
        table.remove_shared(shared(&table, fd)).unwrap();
        assert!(matches!(table.lookup(fd), Err(Errno::EBADF)));
    }

    #[test]
    fn the_short_way_is_for_the_owners_own_and_nothing_else() {
        let table = Table::<u32>::new();
        let (mine, other) = (local_state(OWNER), local_state(Owner { worker: 8, ..OWNER }));
        let fd = table.insert_local(OWNER, 42, 1).unwrap();
        assert_eq!(table.local(fd, mine), Some((42, 1)));
        assert_eq!(table.local(fd, mine | KERNEL), None, "no set");
        assert_eq!(table.local(fd, other), None, "another worker's");
        assert_eq!((table.local(-1, mine), table.local(i32::MAX, mine)), (None, None));
        // SAFETY: a new descriptor that nobody else owns.
        let set = unsafe { OwnedFd::from_raw_fd(libc::epoll_create1(libc::EPOLL_CLOEXEC)) };
        let set = table.adopt_local(set, OWNER, 43).unwrap();
        assert_eq!((table.local(set, mine), table.local(set, mine | KERNEL)), (None, Some((43, 0))));
        assert!(matches!(table.lookup(set), Ok(Some(Entry::LocalSet(OWNER, 43)))));
        table.share(fd, 77);
        table.share(set, 78);
        assert_eq!((table.local(fd, mine), table.local(set, mine | KERNEL)), (None, None), "shared");
        table.remove_shared(shared(&table, fd)).unwrap();
        table.remove_shared(shared(&table, set)).unwrap();
        assert!(matches!(table.lookup(set), Ok(None)), "its number is the kernel's again");
    }

    #[test]
    fn closing_races_with_use_and_reuse() {
        struct Counted(Arc<AtomicUsize>, u64);
        impl Drop for Counted {
            fn drop(&mut self) {
                self.1 = u64::MAX;
                self.0.fetch_sub(1, Ordering::Relaxed);
            }
        }
        let table = Arc::new(Table::<Counted>::new());
        let alive = Arc::new(AtomicUsize::new(0));
        let closed = Arc::new(AtomicUsize::new(0));
        const ROUNDS: usize = 20_000;
        let (fds, users): (Vec<_>, Vec<_>) = (0..2)
            .map(|_| {
                let current = Arc::new(std::sync::atomic::AtomicI32::new(-1));
                let (table, fd, closed) = (table.clone(), current.clone(), closed.clone());
                let user = std::thread::spawn(move || {
                    while fd.load(Ordering::Relaxed) != -2 {
                        if let Ok(Some(Entry::Shared(guard))) =
                            table.lookup(fd.load(Ordering::Relaxed))
                        {
                            assert_ne!(guard.1, u64::MAX, "used after it was dropped");
                            if guard.1 % 2 == 0 && table.remove_shared(guard).is_ok() {
                                closed.fetch_add(1, Ordering::Relaxed);
                            }
                        }
                    }
                });
                (current, user)
            })
            .unzip();
        for i in 0..ROUNDS {
            alive.fetch_add(1, Ordering::Relaxed);
            let fd = table.insert_shared(Counted(alive.clone(), i as u64), 0).unwrap();
            fds[0].store(fd, Ordering::Relaxed);
            fds[1].store(fd, Ordering::Relaxed);
            if i % 3 == 0 {
                std::thread::yield_now();
            }
            if let Ok(Some(Entry::Shared(guard))) = table.lookup(fd)
                && table.remove_shared(guard).is_ok()
            {
                closed.fetch_add(1, Ordering::Relaxed);
            }
        }
        fds.iter().for_each(|fd| fd.store(-2, Ordering::Relaxed));
        users.into_iter().for_each(|user| user.join().unwrap());
        assert_eq!(alive.load(Ordering::Relaxed), 0, "leaked");
        assert_eq!(closed.load(Ordering::Relaxed), ROUNDS, "each is closed once");
    }

    #[test]
    fn a_forked_child_finds_nothing() {
        let table = Table::<u32>::new();
        let fd = table.insert_local(OWNER, 42, 0).unwrap();
        assert!(!table.forked() && table.local(fd, local_state(OWNER)).is_some());
        // SAFETY: the child only reads memory and leaves.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let refused = matches!(table.lookup(fd), Err(Errno::EBADF));
            let refused = refused && table.local(fd, local_state(OWNER)).is_none();
            // SAFETY: ends the child at once.
            unsafe { libc::_exit(if refused { 0 } else { 1 }) };
        }
        let mut status = 0;
        // SAFETY: waits for the child made above.
        unsafe { libc::waitpid(child, &mut status, 0) };
        assert_eq!(status, 0);
        table.remove_local(fd).unwrap();
    }
}
