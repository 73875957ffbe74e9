//! What happens to hosts and the network while connections run, and what the
//! model has to know of it.

use crate::host::Host;
use crate::model::{Cause, Record};
use crate::seen::Seen;
use crate::scenario::{ConnPlan, What, address};
use crate::world::World;
use ringroad::stack::Route;
use std::net::{IpAddr, Ipv4Addr};

/// True where the connection was not accepted yet.
fn is_new(record: &Record) -> bool {
    record.programs[1].is_none()
}

impl World {
    /// Does what is due.
    pub fn happen(&mut self) {
        while let Some(happening) = self.scenario.happenings.get(self.next_happening)
            && happening.at <= self.now
        {
            let what = happening.what.clone();
            self.next_happening += 1;
            self.do_it(&what);
        }
    }

    fn do_it(&mut self, what: &What) {
        match *what {
            What::Cut => self.block(|_, _| true),
            What::Part(set) => self.block(|a, b| set >> a & 1 != set >> b & 1),
            What::Mend => self.block(|_, _| false),
            What::Restart(n) => {
                self.seen |= Seen::RESTART;
                self.stop(n);
            }
            What::Begin(n) => self.begin_again(n),
            What::CloseListener(n, i) => {
                self.hosts[n].close_listener(i);
                self.blame(Cause::REFUSED, |plan, record| {
                    plan.server == n && plan.listener == i && is_new(record)
                });
            }
            What::OpenListener(n, i) => self.hosts[n].listen(i),
            What::Address(n, on) => {
                self.seen |= Seen::ADDRESS;
                self.address(n, on);
            }
            What::Mtu(n, mtu) => {
                self.hosts[n].sockets.stack.core.set_mtu(mtu);
                self.net.set_max_len(n, mtu + 18);
            }
            What::Route(n, to, over) => {
                self.seen |= Seen::ROUTE;
                self.route(n, to, over);
            }
            What::Gateway(number, mtu, silent) => self.net.set_gateway(number, mtu, silent),
        }
    }

    fn block(&mut self, apart: impl Fn(usize, usize) -> bool) {
        for from in 0..self.hosts.len() {
            for to in 0..self.hosts.len() {
                self.net.block(from, to, apart(from, to));
            }
        }
    }

    /// A host stops where it is: its programs and connections are gone.
    fn stop(&mut self, n: usize) {
        if self.hosts[n].down {
            return;
        }
        self.blame(Cause::RESTARTED, |plan, _| plan.client == n || plan.server == n);
        for p in self.programs.iter_mut().filter(|p| p.host == n) {
            p.kill(self.now);
        }
        self.hosts[n].down = true;
        self.hosts[n].timers.clear();
        self.net.discard(n);
    }

    fn begin_again(&mut self, n: usize) {
        if !self.hosts[n].down {
            return;
        }
        let seed = self.seed ^ (n as u64 + 1) << 48 ^ self.now.as_nanos();
        self.hosts[n] = Host::new(n, &self.scenario.hosts[n], &self.net, self.now, seed);
        self.hosts[n].restarted = true;
        self.net.set_max_len(n, self.scenario.hosts[n].config.mtu + 18);
    }

    fn address(&mut self, n: usize, on: bool) {
        if self.hosts[n].down {
            return;
        }
        let addresses: &[(IpAddr, u8)] = if on { &[(address(n).into(), 24)] } else { &[] };
        self.hosts[n].sockets.stack.core.set_addresses(addresses);
        self.hosts[n].addressed = on;
        self.hosts[n].dirty = true;
        self.blame(Cause::ADDRESS, |plan, record| {
            (plan.client == n || plan.server == n) && is_new(record)
        });
    }

    /// The host reaches another over a gateway, or directly.
    fn route(&mut self, n: usize, to: usize, over: Option<usize>) {
        let host = &mut self.hosts[n];
        host.routes.retain(|(host, _)| *host != to);
        host.routes.extend(over.map(|number| (to, number)));
        let route = |&(to, number): &(usize, usize)| Route {
            destination: address(to).into(),
            prefix: 32,
            gateway: Some(Ipv4Addr::new(10, 0, 0, 254 - number as u8).into()),
            source: None,
            metric: 0,
            mtu: None,
        };
        let routes: Vec<_> = host.routes.iter().map(route).collect();
        host.sockets.stack.core.set_routes(&routes);
        host.dirty = true;
    }

    /// What already is so when a connection begins.
    pub fn causes_at_start(&self, plan: &ConnPlan) -> Cause {
        let mut causes = Cause::empty();
        let (client, server) = (&self.hosts[plan.client], &self.hosts[plan.server]);
        causes.set(Cause::RESTARTED, client.down || server.down);
        causes.set(Cause::ADDRESS, !client.addressed || !server.addressed);
        causes.set(Cause::REUSED, plan.after.is_some());
        // It forgot its clock of timestamps: a TIME-WAIT of its ports holds it off.
        causes.set(Cause::SILENCE, plan.after.is_some() && client.restarted);
        causes.set(Cause::REFUSED, server.listeners[plan.listener].is_none());
        causes
    }
}
