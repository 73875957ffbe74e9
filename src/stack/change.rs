//! Settings that change while a stack runs.

use super::tcp::TableConfig;
use super::{Config, Stack};

impl Stack {
    /// From now on connections begin with, and tables are bounded by, what `new`
    /// says of TCP. What was set up by the old configuration stays: connections and
    /// sockets that are there, the interface, its routes, and where ports are drawn
    /// from.
    pub fn reconfigure(&mut self, new: Config) {
        let old = &mut self.core.config;
        let keys = new.table.fast_open_keys;
        if keys != old.table.fast_open_keys
            && let Some(keys) = keys
        {
            self.tcp.set_fast_open_keys(keys);
        }
        old.table = TableConfig { active_ports: old.table.active_ports, ..new.table };
        old.tcp = new.tcp;
    }

    /// Forgets what was learnt of destinations: path MTUs, and how they take Fast
    /// Open.
    pub fn forget_destinations(&mut self) {
        self.core.path_mtus.clear();
        self.tcp.forget_cookies();
    }
}
