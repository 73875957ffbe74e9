//! Busy polling: whether the workers' own calls run the driver, and why not.
//!
//! It needs a zero-copy socket whose NAPI the kernel knows, and that this NAPI sends as
//! well as receives: the calls poll this one alone, and nothing else wakes the driver.
//! Where one queue has it not, none is polled.

use super::config::{Config, Wait};
use super::error::{Error, Result};
use super::kernel::deferral::{Deferral, Places, Values};
use super::kernel::napi::{Napis, Way};
use crate::device::xdp::{Interface, Kept, XdpDevice};
use crate::time::Duration;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// What the kernel's documentation of AF_XDP takes.
const POLLS: u32 = 2;
const LONGEST: Duration = Duration::from_micros(200);
const SHORTEST: Duration = Duration::from_micros(10);

/// How it turned out.
#[derive(Debug)]
pub(super) enum Polling {
    /// The wait mode has no use for it, or it is switched off.
    Unwanted,
    /// Every turn polls. The devices keep the interrupts put off: the last one that
    /// ends, or gives up, puts them back; true here where it could not.
    On(Arc<AtomicBool>),
    /// Interrupts it is, because of this.
    Off(String),
}

/// How long interrupts are put off; `None`: no polling in this mode.
fn wanted(config: &Config) -> Option<Values> {
    let timeout = match (config.wait, config.busy_poll) {
        (_, Some(false)) | (Wait::Block, _) | (Wait::Adaptive, None) => return None,
        (Wait::Spin, _) => LONGEST,
        // A packet for a worker that has gone to sleep waits that long.
        (Wait::Adaptive, Some(true)) => config.spin.clamp(SHORTEST, LONGEST),
    };
    Some(Values { polls: POLLS, timeout: timeout.as_nanos() })
}

/// Whether a queue can be polled: the NAPI of its socket, of its receiving side, and
/// of its sending one.
fn verdict(socket: Option<u32>, way_in: Option<u32>, way_out: Option<u32>) -> core::result::Result<(), &'static str> {
    match (socket, way_in, way_out) {
        (None, ..) => Err("the kernel knows of no NAPI"),
        (_, None, _) | (_, _, None) => Err("the driver does not tell its NAPIs"),
        (socket, way_in, _) if socket != way_in => Err("the driver renewed its NAPIs"),
        (_, way_in, way_out) if way_in != way_out => Err("it sends and receives by NAPIs of their own"),
        _ => Ok(()),
    }
}

/// Polls these queues of the interface, if the configuration wants that and it can be.
/// What a killed one left there is put back in any case.
///
/// # Errors
/// It cannot be, and is demanded (`busy_poll` on).
pub(super) fn begin<'a>(
    config: &Config,
    interface: &Interface,
    devices: impl Iterator<Item = &'a mut XdpDevice>,
) -> Result<Polling> {
    Deferral::clear(&Places::default(), interface);
    let Some(values) = wanted(config) else { return Ok(Polling::Unwanted) };
    match try_begin(interface, values, devices.collect()) {
        Ok(left) => Ok(Polling::On(left)),
        Err(why) if config.busy_poll.is_none() => Ok(Polling::Off(why)),
        Err(why) => Err(Error::new(
            format!("{}: busy polling", interface.name),
            why,
            "let it be (RINGROAD_BUSY_POLL=auto), or see whether `ethtool -L` can give each queue one NAPI for both ways (combined)",
        )),
    }
}

fn try_begin(
    interface: &Interface,
    values: Values,
    mut devices: Vec<&mut XdpDevice>,
) -> core::result::Result<Arc<AtomicBool>, String> {
    let mut napis = Napis::open().ok();
    for device in &devices {
        let queue = device.queue();
        let mut of = |way| napis.as_mut().and_then(|n| n.of(interface.index, queue, way).ok().flatten());
        verdict(device.napi(), of(Way::In), of(Way::Out)).map_err(|why| format!("queue {queue}: {why}"))?;
    }
    let deferral = Deferral::begin(&Places::default(), interface, values)
        .map_err(|why| format!("interrupts cannot be put off: {why}"))?;
    let left = deferral.left();
    let deferral: Kept = Arc::new(deferral);
    for i in 0..devices.len() {
        if let Err(why) = devices[i].prefer_polling(Some(deferral.clone())) {
            devices.iter_mut().take(i + 1).for_each(|device| _ = device.prefer_polling(None));
            return Err(format!("the kernel refuses it: {why}"));
        }
    }
    Ok(left)
}

impl core::fmt::Display for Polling {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Unwanted => Ok(()),
            Self::On(_) => f.write_str(", busy polling"),
            Self::Off(why) => write!(f, ", no busy polling ({why})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_is_polled_only_where_one_napi_does_all() {
        assert_eq!(verdict(Some(9), Some(9), Some(9)), Ok(()));
        let why = |socket, way_in, way_out| verdict(socket, way_in, way_out).unwrap_err();
        assert!(why(None, Some(9), Some(9)).contains("no NAPI"));
        assert!(why(Some(9), None, Some(9)).contains("does not tell"));
        assert!(why(Some(9), Some(9), None).contains("does not tell"));
        assert!(why(Some(9), Some(10), Some(10)).contains("renewed"));
        assert!(why(Some(9), Some(9), Some(10)).contains("of their own"));
    }

    #[test]
    fn who_sleeps_is_woken_soon() {
        let wanted = |wait, busy_poll, us| {
            wanted(&Config { wait, busy_poll, spin: Duration::from_micros(us), ..Config::default() })
                .map(|values| values.timeout / 1000)
        };
        assert_eq!(wanted(Wait::Spin, None, 50), Some(200));
        assert_eq!(wanted(Wait::Spin, Some(false), 50), None);
        // Its interrupts wake it, unless it was asked for.
        assert_eq!(wanted(Wait::Adaptive, None, 50), None);
        assert_eq!([0, 50, 1000].map(|us| wanted(Wait::Adaptive, Some(true), us)), [Some(10), Some(50), Some(200)]);
        assert_eq!(wanted(Wait::Block, None, 50), None);
    }
}
