//! Settings that change while a stack runs.

use super::tcp::TableConfig;
use super::{Config, Stack};
use crate::wire::ethernet::Mac;

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

    /// The interface has another hardware address: what is sent from now on is from it,
    /// and what is to the old one is not for us. Linear in all connections.
    pub fn set_mac(&mut self, mac: Mac) {
        if self.core.interface().mac != mac {
            self.core.set_mac(mac);
            self.tcp.set_mac(mac);
        }
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
    use crate::stack::tcp::{FastOpenKeys, Inherit, Open};
    use crate::stack::testing::*;
    use crate::telemetry::DropReason;
    use crate::wire::{arp as wire_arp, ethernet, icmpv4, ipv4};

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
    fn another_hardware_address_is_the_one_that_packets_are_from_and_to() {
        let (old, new) = (OUR_MAC, Mac([2, 0, 0, 0, 0, 0x77]));
        let mut b = Bed::new(owned());
        let id = b.stack.udp.open(&b.stack.core, 1, false).unwrap();
        b.stack.udp.bind(&mut b.stack.core, id, addr("10.0.0.1:99"), &mut |_, _| Ok(())).unwrap();
        let send = |b: &mut Bed| {
            let Stack { udp, core, .. } = &mut b.stack;
            udp.send(core, id, &[b"x"], Some(addr("10.0.0.2:9")), &Default::default()).unwrap();
            b.take()
        };
        // What waits for the neighbour meanwhile, and what goes the short way.
        let question = send(&mut b);
        assert_eq!(question[0][6..12], old.0);
        b.stack.set_mac(new);
        b.put(&arp(wire_arp::REPLY, PEER_MAC, PEER, new, OURS, new));
        assert_eq!(b.one()[6..12], new.0);
        assert_eq!([send(&mut b), send(&mut b)].map(|sent| sent[0][6..12].to_vec()), [new.0, new.0]);
        b.put(&arp(wire_arp::REQUEST, PEER_MAC, PEER, Mac::default(), OURS, Mac::BROADCAST));
        let answer = b.one();
        assert_eq!((&answer[6..12], &answer[22..28]), (&new.0[..], &new.0[..]));
        let echo = ipv4_in(ipv4::ICMP, &icmp(icmpv4::ECHO_REQUEST, 0, (7, 1), b"well?"));
        b.refused(&eth(old, ethernet::IPV4, &echo), DropReason::EthernetNotForUs);
        b.put(&eth(new, ethernet::IPV4, &echo));
        assert_eq!(b.one()[6..12], new.0);
    }

    #[test]
    fn what_we_say_to_ourselves_goes_on_under_another_hardware_address() {
        let mut b = Bed::new(owned());
        let at = addr("10.0.0.1:80");
        let inherit = Inherit::plain();
        let Stack { tcp, core, .. } = &mut b.stack;
        let listener = tcp.listen(core, at, 8, inherit.clone(), 0);
        let open = Open { source: None, port: None, remote: at, inherit: &inherit, token: 1 };
        let client = tcp.connect(core, &open, None).unwrap();
        // What is under way, what begins, and what goes on.
        for last in 0..3 {
            b.stack.set_mac(Mac([2, 0, 0, 0, 0, 0x70 + last]));
            assert_eq!(b.take(), Vec::<Vec<u8>>::new());
        }
        let server = b.stack.tcp.accept(listener, 2).expect("a connection");
        for (last, (from, to)) in [(client, server), (server, client)].into_iter().enumerate() {
            let Stack { tcp, core, .. } = &mut b.stack;
            assert_eq!(tcp.send(core, from, b"said"), 4);
            let mac = Mac([2, 0, 0, 0, 0, 0x75 + last as u8]);
            core.set_mac(mac);
            tcp.set_mac(mac);
            b.take();
            let Stack { tcp, core, .. } = &mut b.stack;
            let mut said = [0; 8];
            assert_eq!((tcp.recv(core, to, &mut said, false), &said[..4]), (4, &b"said"[..]));
        }
        assert_eq!(b.all_drops(), []);
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
