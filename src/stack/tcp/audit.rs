//! What is left where no connection is: for tests that look for leaks.

use super::{Marks, Table};

impl Table {
    /// Names everything that is still there of connections that are gone: slots
    /// (with all that a connection has in boxes), names in the index, timers, places
    /// in queues, uses of ports. Empty where nothing is. Linear, for audits.
    pub fn leftovers(&self) -> Vec<&'static str> {
        let used = |marks: Marks| !(marks - Marks::FAR).is_empty();
        let slots = self.slots.iter().any(|s| s.conn.is_some() || used(s.marks));
        let queues = self.listeners.iter().any(|l| l.half_open_len() + l.ready_len() > 0);
        let all = [
            ("a slot that is in use", slots || self.live > 0),
            ("a slot that is not free", self.free.len() != self.slots.len()),
            ("a name in the index", !self.flows.is_empty()),
            ("a timer", self.wheel.len() > 0),
            ("a TIME-WAIT", !self.waits.is_bare()),
            ("a place among those to be flushed", !self.touched.is_empty() || self.stuck > 0),
            ("a place among those without a frame", !self.starved.is_empty()),
            ("an orphan", self.orphans > 0),
            ("a place with a listener", queues),
            ("a use of a port", !self.ports.is_bare()),
        ];
        all.into_iter().filter(|(_, left)| *left).map(|(name, _)| name).collect()
    }
}
