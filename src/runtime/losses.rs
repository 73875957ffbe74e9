//! What was lost, or had to be sent again, in words for a person.

use crate::device::Device;
use crate::telemetry::Counters;
use std::collections::BTreeMap;

/// What was lost while a runtime ran: each name with how often, nothing that never
/// happened. Names that begin with `xsk_` are the kernel's (XDP_STATISTICS).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Losses(pub BTreeMap<&'static str, u64>);

impl Losses {
    /// Busy polling's end could not put the interface's interrupts back, as privileges
    /// were dropped: the next one to start on it with privileges does, or whoever writes
    /// the values that `ringroad doctor` tells of to `/sys/class/net/`.
    pub const INTERRUPTS_LEFT: &'static str = "interrupts_left_put_off";

    /// Those of one worker.
    pub(super) fn of(device: &impl Device, counters: &Counters) -> Self {
        let mut all = Self::default();
        all.add(device.losses());
        all.add(counters.drops().map(|(reason, n)| (reason.name(), n)));
        all.add([("tcp_retransmits", counters.tcp_retransmits), ("tcp_timeouts", counters.tcp_timeouts)]);
        all
    }

    pub(super) fn add(&mut self, list: impl IntoIterator<Item = (&'static str, u64)>) {
        for (name, n) in list.into_iter().filter(|(_, n)| *n > 0) {
            *self.0.entry(name).or_default() += n;
        }
    }
}

impl core::fmt::Display for Losses {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        for (i, (name, n)) in self.0.iter().enumerate() {
            write!(f, "{}{name} {n}", if i > 0 { ", " } else { "" })?;
        }
        Ok(())
    }
}
