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
        self.core.forget_path_mtus();
        self.tcp.forget_cookies();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Pool;
    use crate::stack::tcp::FastOpenKeys;

    #[test]
    fn new_settings_count_from_now_on() {
        let mut stack = Stack::new(Config::default(), Pool::heap(16, 2048), 1);
        let mut new = Config { mtu: 9000, ..Config::default() };
        new.tcp.options.sack = false;
        new.table.active_ports = Some((1, 2));
        new.table.fast_open_client = false;
        let keys = FastOpenKeys { first: [7; 16], second: None };
        new.table.fast_open_keys = Some(keys);
        stack.reconfigure(new);
        let config = &stack.core.config;
        assert!(!config.tcp.options.sack && !config.table.fast_open_client);
        assert_eq!((config.mtu, config.table.active_ports), (Config::default().mtu, None));
        assert_eq!(stack.tcp.fast_open_keys(&mut stack.core), keys);
    }

    #[test]
    fn what_was_learnt_of_paths_can_be_forgotten() {
        let mut stack = Stack::new(Config::default(), Pool::heap(16, 2048), 1);
        let peer = [192, 0, 2, 1].into();
        stack.core.learn_path_mtu(peer, 1000);
        assert_eq!(stack.core.learnt_path_mtu(peer), Some(1000));
        stack.forget_destinations();
        assert_eq!(stack.core.learnt_path_mtu(peer), None);
    }
}
