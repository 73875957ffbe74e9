//! Start, run, stop; the library's version.

use super::config::{self, RR_OFF, RR_ON};
use super::errno::{explained, guard, shielded};
use crate::errno::{Errno, Result};
use crate::runtime::{Config, Error, Mode, Runtime, Stopper, Wait, posix, zero_copy};
use core::cell::Cell;
use core::ffi::{c_char, c_int, c_void};
use core::ptr;
use core::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Workers never sleep: lowest latency, a busy core each.
pub const RR_WAIT_SPIN: u32 = 1;
/// Workers spin for spin_us, then sleep; where recent waits were longer than that, they
/// sleep at once. The default.
pub const RR_WAIT_ADAPTIVE: u32 = 2;
/// Workers sleep as soon as there is nothing to do.
pub const RR_WAIT_BLOCK: u32 = 3;

/// The steering program is attached as well as the driver can. The default.
pub const RR_XDP_AUTO: u32 = 0;
/// In the driver or not at all.
pub const RR_XDP_NATIVE: u32 = 1;
/// In the kernel's generic hook: slower, for every driver.
pub const RR_XDP_GENERIC: u32 = 2;

/// How ringroad is started. Zeroed means the defaults, for each field by itself
/// too; only the interface has none.
#[allow(non_camel_case_types)]
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct rr_config {
    /// sizeof(struct rr_config), or 0 for its first version.
    pub size: u32,
    /// Workers, each with a queue of the interface, 1 to 64. Default: 1.
    pub workers: u32,
    /// The interface, such as "eth0".
    pub interface: *const c_char,
    /// Addresses of ringroad's own with their prefixes, "10.0.0.2/24", several
    /// with commas. NULL: the interface's, shared with the kernel.
    pub address: *const c_char,
    /// The router, for addresses of our own. Shared ones follow the kernel's routes.
    pub gateway: *const c_char,
    /// The cores that workers are pinned to: "2,4-5". NULL: the last ones.
    pub cpus: *const c_char,
    /// RR_WAIT_SPIN, RR_WAIT_ADAPTIVE or RR_WAIT_BLOCK.
    pub wait: u32,
    /// Microseconds that an adaptive worker spins. Default: 50.
    pub spin_us: u32,
    /// Microseconds that a program's thread spins in a blocking call. Default: 10.
    pub thread_spin_us: u32,
    /// Frames of each worker, a power of two from 512 to 1048576. Default: 8192.
    pub frames: u32,
    /// Frames that a thread keeps ready for sending, 4 to 256. Default: 32.
    pub thread_frames: u32,
    /// RR_XDP_AUTO, RR_XDP_NATIVE or RR_XDP_GENERIC.
    pub xdp_mode: u32,
    /// RR_ON: bind zero-copy or fail; RR_OFF: never; 0: where the driver can.
    pub zero_copy: u32,
    /// Busy polling: workers poll the driver, and its interrupts are delayed. RR_ON:
    /// workers that spin or are adaptive do, or the start fails; RR_OFF: never; 0: those
    /// that spin do, where the driver can (zero-copy, one NAPI for both directions).
    pub busy_poll: u32,
    /// Seed of every random choice, for tests. 0: from the kernel's random numbers.
    pub seed: u64,
}

/// Bytes of the struct's first version.
const FIRST_VERSION: usize = size_of::<rr_config>();

/// The configuration that C gave, or the environment's for a null pointer.
///
/// # Errors
/// EINVAL, with a sentence for `rr_strerror`.
///
/// # Safety
/// `given` is null or valid, with valid strings.
unsafe fn read(given: *const rr_config) -> Result<Config> {
    let refused = |e: Error| explained(Errno::EINVAL, e);
    if given.is_null() {
        let config = Config::from_env().map_err(refused)?;
        config.validate().map_err(refused)?;
        return Ok(config);
    }
    // SAFETY: the caller's promise; all zeros is an `rr_config`.
    let c = unsafe { config::versioned(given, FIRST_VERSION, "rr_config") }?;
    let mut config = Config::default();
    for (name, key, text) in [
        ("interface", "INTERFACE", c.interface),
        ("address", "ADDRESS", c.address),
        ("gateway", "GATEWAY", c.gateway),
        ("cpus", "CPUS", c.cpus),
    ] {
        // SAFETY: the caller's promise.
        if let Some(text) = unsafe { config::text(text, name) }? {
            config.set(key, text).map_err(|e| refused(e.within(name)))?;
        }
    }
    c.numbers(&mut config)?;
    config.validate().map_err(refused)?;
    Ok(config)
}

impl rr_config {
    fn numbers(&self, to: &mut Config) -> Result<()> {
        let mut knobs = config::Knobs::default();
        knobs.number("workers", self.workers, &mut to.workers);
        knobs.number("frames", self.frames, &mut to.frames);
        knobs.number("thread_frames", self.thread_frames, &mut to.thread_frames);
        match self.wait {
            0 => {}
            RR_WAIT_SPIN => to.wait = Wait::Spin,
            RR_WAIT_ADAPTIVE => to.wait = Wait::Adaptive,
            RR_WAIT_BLOCK => to.wait = Wait::Block,
            _ => knobs.wrong("wait", self.wait, "one of RR_WAIT_SPIN, _ADAPTIVE and _BLOCK"),
        }
        match self.xdp_mode {
            RR_XDP_AUTO => {}
            RR_XDP_NATIVE => to.mode = Mode::Native,
            RR_XDP_GENERIC => to.mode = Mode::Generic,
            _ => knobs.wrong("xdp_mode", self.xdp_mode, "one of RR_XDP_AUTO, _NATIVE and _GENERIC"),
        }
        match self.zero_copy {
            0 => {}
            RR_ON | RR_OFF => to.zero_copy = Some(self.zero_copy == RR_ON),
            _ => knobs.wrong("zero_copy", self.zero_copy, "0, RR_ON or RR_OFF"),
        }
        match self.busy_poll {
            0 => {}
            RR_ON | RR_OFF => to.busy_poll = Some(self.busy_poll == RR_ON),
            _ => knobs.wrong("busy_poll", self.busy_poll, "0, RR_ON or RR_OFF"),
        }
        knobs.time(u64::from(self.spin_us) * 1000, &mut to.spin);
        knobs.time(u64::from(self.thread_spin_us) * 1000, &mut to.thread_spin);
        if self.seed != 0 {
            to.seed = Some(self.seed);
        }
        knobs.finish()
    }
}

/// The running stack. Locked by start and end alone, never by a socket call.
static RUNTIME: Mutex<Option<Arc<Runtime>>> = Mutex::new(None);
/// What ends it: apart, as `rr_stop` may run in a signal handler. Each start
/// leaves one behind, so that a pointer that was read stays good.
static STOPPER: AtomicPtr<Stopper> = AtomicPtr::new(ptr::null_mut());
/// How long connections may take to end in `rr_shutdown_all`.
const FAREWELL: Duration = Duration::from_secs(2);

thread_local! {
    /// This thread is a worker that runs a program's loop.
    static IN_LOOP: Cell<bool> = const { Cell::new(false) };
}

fn runtime() -> MutexGuard<'static, Option<Arc<Runtime>>> {
    RUNTIME.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The workers are threads of the process that started them.
fn in_this_process() -> Result<()> {
    match posix::forked() {
        true => Err(explained(Errno::EBADF, "ringroad runs in the process that called rr_init, not in its child")),
        false => Ok(()),
    }
}

/// Starts ringroad: opens the interface, attaches the steering program, starts
/// the workers. Privileges may be dropped after it. `config` may be NULL: then
/// RINGROAD_INTERFACE, RINGROAD_ADDRESS and so on are read from the environment.
/// 0, or -1 with errno EINVAL (a bad value), EBUSY (it runs already) or EIO (it
/// cannot start); rr_strerror says what failed, why, and what to do.
///
/// # Safety
/// `config` is null or valid, and so are its strings.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rr_init(config: *const rr_config) -> c_int {
    guard(|| {
        // SAFETY: the caller's promise.
        let config = unsafe { read(config) }?;
        let mut current = runtime();
        if current.is_some() {
            return Err(explained(Errno::EBUSY, "ringroad runs already; rr_shutdown_all ends it"));
        }
        let started = Runtime::start(config).map_err(|e| explained(Errno::EIO, e))?;
        started.install().map_err(|e| explained(Errno::EBUSY, e))?;
        super::zero_copy::renew(zero_copy::arena()?.count() as usize);
        STOPPER.store(Box::into_raw(Box::new(started.stopper())), Ordering::Release);
        *current = Some(Arc::new(started));
        Ok(0)
    })
}

/// The argument of a program's loop, on its way to the workers.
#[derive(Clone, Copy)]
struct Argument(*mut c_void);

// SAFETY: the pointer is only handed on; what it points to is the program's, who
// knows that every worker gets it.
unsafe impl Send for Argument {}
// SAFETY: as above.
unsafe impl Sync for Argument {}

/// Calls `loop(arg)` once a turn on every pinned worker, until it returns other
/// than 0 there; returns when all workers' loops have ended, or after rr_stop. A
/// call in it that would block runs the worker's turn, without calling `loop`
/// again, until it can finish or times out. 0, or -1 with errno EINVAL (no
/// loop), EBUSY (loops run already) or ENETDOWN (rr_init is missing, a worker
/// panicked, the interface went away).
///
/// Signal handlers on a worker: beside rr_stop they may send and receive without
/// waiting (rr_send, rr_sendto, rr_write, rr_recv, rr_recvfrom, rr_read, with
/// O_NONBLOCK or MSG_DONTWAIT) on sockets that were made on that worker, where the
/// loop has no sockets or epoll sets that other threads use, too. EBUSY
/// means that the handler interrupted a call, also one that waits, or what the
/// worker does between two calls of `loop`: nothing was done; try again outside
/// of the handler. They may use malloc, so not where malloc is interrupted.
///
/// # Safety
/// `loop` may be called with `arg` on any thread, on several at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rr_run(
    r#loop: Option<unsafe extern "C" fn(arg: *mut c_void) -> c_int>,
    arg: *mut c_void,
) -> c_int {
    guard(|| {
        in_this_process()?;
        let turn = r#loop.ok_or_else(|| explained(Errno::EINVAL, "rr_run: no loop"))?;
        let runtime = runtime().clone();
        let runtime = runtime.ok_or_else(|| explained(Errno::ENETDOWN, "rr_run: call rr_init first"))?;
        if IN_LOOP.get() {
            return Err(explained(Errno::EBUSY, "rr_run: this is a worker's loop already"));
        }
        let argument = Argument(arg);
        let again = move || {
            let Argument(arg) = { argument };
            IN_LOOP.set(true);
            // SAFETY: the caller's promise.
            unsafe { turn(arg) == 0 }
        };
        runtime.run_loop(again).map_err(|e| explained(Errno::ENETDOWN, e)).map(|()| 0)
    })
}

/// Ends the workers: rr_run returns, blocking calls fail. Safe in a signal
/// handler.
#[unsafe(no_mangle)]
pub extern "C" fn rr_stop() {
    shielded((), || {
        // SAFETY: null, or a stopper that is never freed.
        if let Some(stopper) = unsafe { STOPPER.load(Ordering::Acquire).as_ref() } {
            stopper.stop();
        }
    });
}

/// Ends ringroad: connections get two seconds to close in order, then the
/// workers end, and the steering program is detached. 0, or -1 with errno
/// ENETDOWN (it does not run) or EBUSY (called on a worker). rr_init may follow.
#[unsafe(no_mangle)]
pub extern "C" fn rr_shutdown_all() -> c_int {
    guard(|| {
        in_this_process()?;
        if IN_LOOP.get() {
            return Err(explained(Errno::EBUSY, "rr_shutdown_all: end the loop first (rr_stop)"));
        }
        let mut current = runtime();
        let mut runtime = current.take().ok_or(Errno::ENETDOWN)?;
        STOPPER.store(ptr::null_mut(), Ordering::Release);
        loop {
            match Arc::try_unwrap(runtime) {
                Ok(runtime) => {
                    runtime.shutdown(FAREWELL);
                    return Ok(0);
                }
                // Another thread is in rr_run.
                Err(shared) => {
                    shared.stop();
                    runtime = shared;
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
        }
    })
}

/// The library's version, as "0.1.0".
#[unsafe(no_mangle)]
pub extern "C" fn rr_version() -> *const c_char {
    const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\0");
    VERSION.as_ptr().cast()
}
