//! What packetdrill asks the C library in place of the interface, answered where
//! this library is preloaded too: `LD_PRELOAD=libringroad_packetdrill.so`.
//!
//! - `getsockopt`, which `%{ }%` blocks use (TCP_INFO and what belongs to it)
//! - `sendfile`
//! - `system`, by which it runs a script's commands: `ringroad-set KEY=VALUE,...`
//!   changes settings of the stack, as the flags name them, and `ringroad-set forget`
//!   has it forget what it learnt of destinations
//! - `times`, with which it waits for ten ticks of the system's clock, and
//!   `mlockall` and `sched_setscheduler`, which keep the system from disturbing
//!   its timing: virtual time needs none of that, and a machine that runs many
//!   scripts at a time suffers from it
//!
//! Without a machine, or for descriptors that are not its own, each goes to the
//! C library.

use crate::calls;
use crate::machine::{self, Machine, Outcome};
use core::ffi::{CStr, c_char, c_int, c_void};
use core::sync::atomic::{AtomicI64, Ordering};
use libc::{clock_t, off_t, sched_param, size_t, socklen_t, ssize_t, tms};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The machines of the process; packetdrill has one.
static MACHINES: Mutex<Vec<Known>> = Mutex::new(Vec::new());

#[derive(Clone, Copy, PartialEq)]
struct Known(*const Machine);

// SAFETY: a machine may be used by any thread, and leaves the list before it ends.
unsafe impl Send for Known {}

fn machines() -> MutexGuard<'static, Vec<Known>> {
    MACHINES.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn register(machine: &Machine) {
    machines().push(Known(machine));
}

/// Commands that a script runs are other programs: they do not inherit this library.
pub(crate) fn leave_alone_others() {
    if std::env::var_os("LD_PRELOAD").is_some() {
        // SAFETY: packetdrill's other thread waits at this time, and reads no environment.
        unsafe { libc::unsetenv(c"LD_PRELOAD".as_ptr()) };
    }
}

pub(crate) fn forget(machine: &Machine) {
    machines().retain(|known| *known != Known(machine));
}

/// Asks the machines one after the other whose a descriptor is.
fn ask(call: impl Fn(&Machine) -> Option<Outcome>) -> Option<Outcome> {
    let known = machines().clone();
    // SAFETY: a machine ends only when nobody uses its descriptors any more.
    known.iter().find_map(|machine| call(unsafe { &*machine.0 }))
}

fn set(outcome: Outcome) -> i64 {
    if outcome.value < 0 {
        // SAFETY: this thread's own errno.
        unsafe { *libc::__errno_location() = outcome.errno };
    }
    outcome.value
}

/// The C library's function of a name.
///
/// # Safety
/// `F` is the type of that function.
unsafe fn libc_s<F: Copy>(name: &CStr) -> F {
    // SAFETY: plain call.
    let at = unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr()) };
    assert!(!at.is_null() && size_of::<F>() == size_of::<*mut c_void>());
    // SAFETY: the caller's promise; a function pointer is a pointer here.
    unsafe { core::mem::transmute_copy(&at) }
}

/// getsockopt(2).
///
/// # Safety
/// As of getsockopt(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getsockopt(
    fd: c_int,
    level: c_int,
    name: c_int,
    value: *mut c_void,
    len: *mut socklen_t,
) -> c_int {
    // SAFETY: the caller's promise.
    if let Some(outcome) = ask(|m| unsafe { calls::socket_state(m, fd, level, name, value, len) }) {
        return set(outcome) as c_int;
    }
    type Real = unsafe extern "C" fn(c_int, c_int, c_int, *mut c_void, *mut socklen_t) -> c_int;
    // SAFETY: its type, and the caller's promise.
    unsafe { libc_s::<Real>(c"getsockopt")(fd, level, name, value, len) }
}

/// sendfile(2).
///
/// # Safety
/// As of sendfile(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sendfile(to: c_int, from: c_int, at: *mut off_t, count: size_t) -> ssize_t {
    // SAFETY: the caller's promise.
    if let Some(outcome) = ask(|m| unsafe { calls::sendfile(m, to, from, at, count) }) {
        return set(outcome) as ssize_t;
    }
    type Real = unsafe extern "C" fn(c_int, c_int, *mut off_t, size_t) -> ssize_t;
    // SAFETY: its type, and the caller's promise.
    unsafe { libc_s::<Real>(c"sendfile")(to, from, at, count) }
}

/// What a command says that is for the stack.
fn for_the_stack(command: *const c_char) -> Option<String> {
    if command.is_null() {
        return None;
    }
    // SAFETY: system(3) takes a string.
    let text = unsafe { CStr::from_ptr(command) }.to_str().ok()?;
    text.trim().strip_prefix("ringroad-set ").map(str::to_owned)
}

/// system(3).
///
/// # Safety
/// As of system(3).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn system(command: *const c_char) -> c_int {
    if let Some(text) = for_the_stack(command) {
        let known = machines().clone();
        for machine in known {
            // SAFETY: a machine ends only when nobody uses its descriptors any more.
            if let Err(why) = unsafe { &*machine.0 }.change(&text) {
                machine::die(&format!("ringroad-set: {why}"));
            }
        }
        return 0;
    }
    // SAFETY: its type.
    let real: unsafe extern "C" fn(*const c_char) -> c_int = unsafe { libc_s(c"system") };
    // SAFETY: the caller's promise.
    unsafe { real(command) }
}

/// times(2).
///
/// # Safety
/// As of times(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn times(buf: *mut tms) -> clock_t {
    static TICKS: AtomicI64 = AtomicI64::new(1);
    if !machines().is_empty() && buf.is_null() {
        return TICKS.fetch_add(1, Ordering::Relaxed);
    }
    type Real = unsafe extern "C" fn(*mut tms) -> clock_t;
    // SAFETY: its type, and the caller's promise.
    unsafe { libc_s::<Real>(c"times")(buf) }
}

/// True where a machine is to come or there: packetdrill prepares itself before
/// it loads the library.
fn in_packetdrill() -> bool {
    !machines().is_empty()
        || std::env::args().any(|arg| arg.starts_with("--so_filename"))
}

/// mlockall(2).
///
/// # Safety
/// As of mlockall(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mlockall(flags: c_int) -> c_int {
    if in_packetdrill() {
        return 0;
    }
    // SAFETY: its type, and the caller's promise.
    let real: unsafe extern "C" fn(c_int) -> c_int = unsafe { libc_s(c"mlockall") };
    // SAFETY: the caller's promise.
    unsafe { real(flags) }
}

/// sched_setscheduler(2).
///
/// # Safety
/// As of sched_setscheduler(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sched_setscheduler(pid: c_int, policy: c_int, param: *const sched_param) -> c_int {
    if in_packetdrill() {
        return 0;
    }
    type Real = unsafe extern "C" fn(c_int, c_int, *const sched_param) -> c_int;
    // SAFETY: its type, and the caller's promise.
    unsafe { libc_s::<Real>(c"sched_setscheduler")(pid, policy, param) }
}
