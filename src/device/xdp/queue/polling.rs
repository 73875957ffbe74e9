//! Preferred busy polling: the worker's own system calls run the driver.
//!
//! The kernel polls the queue's NAPI within a call on the socket; as long as the calls
//! go on, neither interrupts nor the kernel's packet threads do. They must go on: the
//! kernel wakes the driver no more, so each turn makes one call, whether there is
//! something to send or not (about 1 us where nothing waits, by driver).

use super::super::interface::Query;
use super::{XdpDevice, set_option};
use std::any::Any;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

const SO_INCOMING_NAPI_ID: libc::c_int = 56;
const SO_PREFER_BUSY_POLL: libc::c_int = 69;
const SO_BUSY_POLL_BUDGET: libc::c_int = 70;
/// Packets of one poll: a burst.
const BUDGET: u32 = super::BURST as u32;
/// Microseconds; a call that does not wait polls once, however long this is.
const BUSY: u32 = 20;
/// Nothing left for so long, by so many polls at least, though something waits and the
/// interface is up: see whether it has a carrier. If it had one the last time, too,
/// polling is given up: the NAPI is gone (a reset of the card renews it), or does not
/// send. It does not begin again; a cable that was pulled, or a switch that says pause
/// for less than that, must not bring this about.
const STALLED: Duration = Duration::from_millis(500);
const STALLED_POLLS: u32 = 1000;

/// What is kept as long as a queue is polled, and by all that are together.
pub type Kept = Arc<dyn Any + Send + Sync>;

/// A queue's polling.
#[derive(Debug, Default)]
pub(super) struct Polling {
    /// There while each turn polls.
    kept: Option<Kept>,
    /// Descriptors put into the TX ring, and how many of them had left it the last time
    /// that some did; both wrap around.
    pub put: u32,
    left: u32,
    /// Polls since then, and when they began.
    polls: u32,
    since: Option<Instant>,
    /// There was a carrier after the last `STALLED`.
    carrier: bool,
    /// The cores of whoever began it, before a worker was pinned to one.
    cores: Vec<usize>,
    /// Lets go of what was kept.
    letting_go: Option<JoinHandle<()>>,
}

impl Drop for Polling {
    fn drop(&mut self) {
        if let Some(thread) = self.letting_go.take() {
            let _ = thread.join();
        }
    }
}

impl Polling {
    /// True where each turn polls.
    #[inline(always)]
    pub fn is_on(&self) -> bool {
        self.kept.is_some()
    }

    /// It is over if `switch_off` says so: what was kept for it is let go then, by a
    /// thread, as that may take a second (the last one of an interface puts its interrupts
    /// back). Where the kernel does not take it back, all stays as it is, and it is false.
    fn give_up(&mut self, switch_off: impl FnOnce() -> io::Result<()>) -> bool {
        if switch_off().is_err() {
            return false;
        }
        let kept = self.kept.take();
        // Where there can be no thread, it goes here.
        let cores = core::mem::take(&mut self.cores);
        let aside = beside(&cores, &own_cores());
        let let_go = move || {
            stand_aside(&aside);
            drop(kept);
        };
        let spawn = || Builder::new().name("ringroad-deferral".into()).spawn(let_go).ok();
        self.letting_go = without_signals(spawn);
        true
    }

    /// After a poll that left so many in the ring: true where nothing has left for
    /// long. A count alone where all is well; the clock is read every
    /// `STALLED_POLLS` polls without progress.
    fn is_stalled(&mut self, in_ring: u32, down: bool, now: impl FnOnce() -> Instant) -> bool {
        let left = self.put.wrapping_sub(in_ring);
        if in_ring == 0 || down || left != self.left {
            (self.left, self.polls, self.since, self.carrier) = (left, 0, None, false);
            return false;
        }
        self.polls += 1;
        if self.polls < STALLED_POLLS {
            return false;
        }
        self.polls = 0;
        let now = now();
        now.duration_since(*self.since.get_or_insert(now)) >= STALLED
    }

    /// It is stalled, and the interface has a carrier or not: true where polling is to
    /// be given up. One that came just now has its time first.
    fn is_over(&mut self, carrier: bool) -> bool {
        self.since = None;
        core::mem::replace(&mut self.carrier, carrier) && carrier
    }
}

impl XdpDevice {
    /// The number of the NAPI that the kernel would poll for this socket; `None` where
    /// it knows of none (the driver tells of none, the socket is not zero-copy, or
    /// Linux is older than 6.14).
    pub fn napi(&self) -> Option<u32> {
        let mut id: u32 = 0;
        let mut len = size_of::<u32>() as u32;
        // SAFETY: the value lives through the call and its size is given.
        let n = unsafe {
            libc::getsockopt(
                self.as_raw_fd(),
                libc::SOL_SOCKET,
                SO_INCOMING_NAPI_ID,
                (&raw mut id).cast(),
                &mut len,
            )
        };
        (n == 0 && id != 0).then_some(id)
    }

    /// Polls the driver in every turn, and keeps what is given (what puts the interrupts
    /// off) until that ends: with `None`, with the device, or where it is given up. Only
    /// for a queue whose NAPI is known, and sends, too.
    ///
    /// # Errors
    /// The kernel refuses (before Linux 5.11, or without CAP_NET_ADMIN). It is not
    /// polled then.
    pub fn prefer_polling(&mut self, kept: Option<Kept>) -> io::Result<()> {
        self.polling = Polling::default();
        set_polling(self.as_raw_fd(), kept.is_some())?;
        self.polling.kept = kept;
        self.polling.cores = own_cores();
        Ok(())
    }

    /// True where every turn polls the driver.
    pub fn prefers_polling(&self) -> bool {
        self.polling.is_on()
    }

    /// Has the kernel poll the driver, both ways.
    pub(super) fn poll_driver(&mut self) {
        self.figures.polls += 1;
        self.send_empty();
        let free = self.tx.nb_free_exact();
        // What did not leave is for the next turn.
        self.unkicked = free < self.tx_ring;
        if self.polling.is_stalled(self.tx_ring - free, self.down, Instant::now) {
            self.stop_polling();
        }
    }

    /// If it is not for want of a carrier.
    #[cold]
    fn stop_polling(&mut self) {
        let carrier = Query::of(self.interface).and_then(|query| query.running());
        // One that is gone cannot be asked.
        if !self.polling.is_over(carrier.unwrap_or(true)) {
            return;
        }
        let fd = self.as_raw_fd();
        if self.polling.give_up(|| set_polling(fd, false)) {
            self.figures.polling_given_up += 1;
        }
    }
}

/// The cores that the caller's thread may use; none where the system does not say.
fn own_cores() -> Vec<usize> {
    core_affinity::get_core_ids().unwrap_or_default().iter().map(|core| core.id).collect()
}

/// Of these cores those that are not a worker's, if there are any.
fn beside(cores: &[usize], workers: &[usize]) -> Vec<usize> {
    let others: Vec<usize> = cores.iter().copied().filter(|core| !workers.contains(core)).collect();
    if others.is_empty() { cores.to_vec() } else { others }
}

/// A worker's thread has its core and its priority: this one is for these cores, as any
/// thread is. (Where the system refuses, it is as it was.)
fn stand_aside(cores: &[usize]) {
    // SAFETY: a zeroed value is a valid one of both types, each lives through its calls,
    // and CPU_SET is told of cores that were read out of such a set.
    unsafe {
        if !cores.is_empty() {
            let mut set: libc::cpu_set_t = std::mem::zeroed();
            cores.iter().for_each(|core| libc::CPU_SET(*core, &mut set));
            libc::sched_setaffinity(0, size_of_val(&set), &set);
        }
        let parameters: libc::sched_param = std::mem::zeroed();
        libc::sched_setscheduler(0, libc::SCHED_OTHER, &parameters);
    }
}

/// Runs `spawn`, which makes a thread: that takes none of the program's signals.
fn without_signals<T>(spawn: impl FnOnce() -> T) -> T {
    // SAFETY: a zeroed set is a valid value, and each lives through the calls.
    unsafe {
        let (mut all, mut before): (libc::sigset_t, libc::sigset_t) = (std::mem::zeroed(), std::mem::zeroed());
        libc::sigfillset(&mut all);
        let blocked = libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut before) == 0;
        let made = spawn();
        if blocked {
            libc::pthread_sigmask(libc::SIG_SETMASK, &before, std::ptr::null_mut());
        }
        made
    }
}

fn set_polling(fd: RawFd, on: bool) -> io::Result<()> {
    for (name, value) in [
        (SO_PREFER_BUSY_POLL, u32::from(on)),
        (libc::SO_BUSY_POLL, if on { BUSY } else { 0 }),
        (SO_BUSY_POLL_BUDGET, BUDGET),
    ] {
        set_option(fd, libc::SOL_SOCKET, name, value)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Polls once in a microsecond.
    struct Bed {
        polling: Polling,
        now: Instant,
    }

    impl Bed {
        /// Whether `n` polls, each of which leaves so many in the ring, find it stalled.
        fn polls(&mut self, n: u32, in_ring: u32, down: bool) -> bool {
            (0..n).any(|_| {
                self.now += Duration::from_micros(1);
                self.polling.is_stalled(in_ring, down, || self.now)
            })
        }
    }

    fn bed(put: u32) -> Bed {
        let mut polling = Polling::default();
        polling.kept = Some(Arc::new(()));
        polling.put = put;
        Bed { polling, now: Instant::now() }
    }

    const LONG: u32 = 499_000;

    #[test]
    fn polling_is_stalled_where_nothing_leaves() {
        let mut bed = bed(48);
        assert!(!bed.polls(3 * LONG, 0, false), "nothing waits");
        assert!(!bed.polls(LONG, 48, false));
        assert!(!bed.polls(LONG, 47, false), "one left");
        assert!(!bed.polls(1, 0, false), "all left");
        bed.polling.put += 1;
        assert!(!bed.polls(LONG, 1, false));
        assert!(bed.polls(4000, 1, false));
    }

    #[test]
    fn what_is_kept_goes_with_the_last_that_gives_up() {
        let kept: Kept = Arc::new("interrupts are put off");
        let still = Arc::downgrade(&kept);
        let beds = [bed(1), bed(1)];
        let [mut one, mut two] = beds.map(|mut bed| {
            bed.polling.kept = Some(kept.clone());
            bed.polling
        });
        drop(kept);
        assert!(!one.give_up(|| Err(io::ErrorKind::PermissionDenied.into())));
        assert!(one.is_on(), "the kernel polls on");
        assert!(one.give_up(|| Ok(())));
        assert!(!one.is_on() && two.is_on());
        drop(one);
        assert!(still.upgrade().is_some(), "the other queue is polled");
        assert!(two.give_up(|| Ok(())));
        drop(two);
        assert!(still.upgrade().is_none(), "at the end at the latest");
    }

    /// Says at its end on which cores that is, by which scheduler, and whether a signal
    /// would be taken.
    struct Where(std::sync::mpsc::Sender<(Vec<usize>, i32, bool)>);

    impl Drop for Where {
        fn drop(&mut self) {
            // SAFETY: takes a number.
            let scheduler = unsafe { libc::sched_getscheduler(0) };
            let _ = self.0.send((own_cores(), scheduler, takes_signals()));
        }
    }

    fn takes_signals() -> bool {
        // SAFETY: a zeroed set is a valid value and lives through the calls.
        unsafe {
            let mut mask: libc::sigset_t = std::mem::zeroed();
            libc::pthread_sigmask(libc::SIG_SETMASK, std::ptr::null(), &mut mask);
            libc::sigismember(&mask, libc::SIGTERM) == 0
        }
    }

    /// Where what was kept ends, if the program may use some cores and its worker some.
    fn ends(program: &[usize], worker: &[usize]) -> (Vec<usize>, i32, bool) {
        let (tell, told) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                stand_aside(program);
                let mut polling = bed(1).polling;
                let kept: Kept = Arc::new(Where(tell));
                (polling.kept, polling.cores) = (Some(kept), own_cores());
                stand_aside(worker);
                // SAFETY: the value lives through the call. (Without privileges it is refused.)
                unsafe {
                    let mut parameters: libc::sched_param = std::mem::zeroed();
                    parameters.sched_priority = 1;
                    libc::sched_setscheduler(0, libc::SCHED_FIFO, &parameters);
                }
                assert!(polling.give_up(|| Ok(())));
                assert!(takes_signals(), "its own are as before");
            });
        });
        told.recv().unwrap()
    }

    #[test]
    fn what_is_kept_goes_beside_the_worker_within_the_programs_cores() {
        let all = own_cores();
        if let [one, two, ..] = all[..] {
            assert_eq!(ends(&[one, two], &[two]), (vec![one], libc::SCHED_OTHER, false));
            assert_eq!(ends(&[one, two], &[one, two]), (vec![one, two], libc::SCHED_OTHER, false));
            assert_eq!(ends(&[two], &[two]), (vec![two], libc::SCHED_OTHER, false));
        }
    }

    #[test]
    fn an_interface_that_is_down_stalls_nothing() {
        let mut bed = bed(1);
        assert!(!bed.polls(LONG, 1, false));
        assert!(!bed.polls(3 * LONG, 1, true));
        assert!(!bed.polls(LONG, 1, false), "up again, it has all its time");
        assert!(bed.polls(4000, 1, false));
    }

    #[test]
    fn a_ring_as_full_as_before_has_moved_on() {
        // A burst in and a burst out each time: full for as long as one likes.
        let mut bed = bed(2048);
        for _ in 0..3 * LONG {
            bed.polling.put = bed.polling.put.wrapping_add(64);
            assert!(!bed.polls(1, 1984, false));
        }
    }

    #[test]
    fn few_polls_that_are_far_apart_say_nothing() {
        let mut bed = bed(1);
        for _ in 0..STALLED_POLLS - 1 {
            bed.now += STALLED;
            assert!(!bed.polls(1, 1, false));
        }
    }

    #[test]
    fn it_is_over_where_a_carrier_was_there_all_the_time() {
        let mut bed = bed(1);
        assert!(!bed.polling.is_over(false), "a pulled cable");
        assert!(!bed.polling.is_over(false));
        assert!(!bed.polling.is_over(true), "it came just now");
        assert!(!bed.polls(LONG, 1, false), "a time begins with each look");
        assert!(bed.polls(4000, 1, false));
        assert!(bed.polling.is_over(true));
        assert!(!bed.polls(1, 0, false), "something left");
        assert!(!bed.polling.is_over(true));
    }
}
