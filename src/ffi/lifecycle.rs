//! Start, run, stop; the library's version.

use super::config::{self, RR_OFF, RR_ON};
use super::errno::explained;
use crate::errno::{Errno, Result};
use crate::runtime::{Config, Mode, Wait};
use core::ffi::{c_char, c_int, c_void};

/// Workers never sleep: lowest latency, a busy core each.
pub const RR_WAIT_SPIN: u32 = 1;
/// Workers spin for a while (spin_us), then sleep. The default.
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
    /// Not used; 0.
    pub reserved: u32,
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
    let refused = |e: crate::runtime::Error| explained(Errno::EINVAL, e);
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
        knobs.time(u64::from(self.spin_us) * 1000, &mut to.spin);
        knobs.time(u64::from(self.thread_spin_us) * 1000, &mut to.thread_spin);
        if self.seed != 0 {
            to.seed = Some(self.seed);
        }
        knobs.finish()
    }
}

/// The library's version, as "0.1.0".
#[unsafe(no_mangle)]
pub extern "C" fn rr_version() -> *const c_char {
    const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\0");
    VERSION.as_ptr().cast()
}
