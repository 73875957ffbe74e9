//! One worker's view of the kernel's addresses, routes and neighbours, and of
//! the interface itself, followed as they change.

use super::kernel::{Change, Netlink};
use super::worker::Core;
use crate::device::xdp::{Addresses, Steering};
use crate::errno::Errno;
use crate::stack::{Mode, Neighbor};
use crate::time::{Duration, Instant};
use core::net::IpAddr;
use std::os::fd::RawFd;

/// How often a busy worker looks; a sleeping one is woken.
const INTERVAL: Duration = Duration::from_millis(1);

/// The mirror of one worker.
pub struct Mirror {
    netlink: Netlink,
    steering: Steering,
    interface: String,
    checked: Instant,
}

impl Mirror {
    /// A worker's mirror.
    pub fn new(netlink: Netlink, steering: Steering, interface: &str) -> Self {
        Self { netlink, steering, interface: interface.to_owned(), checked: Instant::ZERO }
    }

    /// The descriptor to poll.
    pub fn fd(&self) -> RawFd {
        self.netlink.fd()
    }

    /// Asks the kernel what the stack wants to know, and takes in what changed.
    #[inline]
    pub(super) fn turn(&mut self, core: &mut Core, now: Instant) {
        if !core.sockets.stack.core.neighbor_requests.is_empty() {
            self.ask(core);
        }
        if now.since(self.checked) >= INTERVAL {
            self.checked = now;
            self.follow(core);
        }
    }

    #[cold]
    fn ask(&mut self, core: &mut Core) {
        let wanted = core::mem::take(&mut core.sockets.stack.core.neighbor_requests);
        for ip in wanted {
            match self.netlink.ask_neighbor(ip) {
                Ok(Some(known)) => core.sockets.stack.core.set_neighbor(ip, known),
                Ok(None) => {}
                // Privileges were dropped: a datagram to the discard port has the
                // kernel look for the neighbour as well.
                Err(_) => nudge(ip),
            }
        }
    }

    fn follow(&mut self, core: &mut Core) {
        let Ok(changes) = self.netlink.poll() else { return };
        for change in changes {
            match change {
                Change::Address if core.sockets.stack.core.config.mode == Mode::Shared => {
                    let addresses = self.netlink.addresses();
                    core.sockets.stack.core.set_addresses(addresses);
                    let list = addresses.iter().map(|(ip, _)| *ip).collect();
                    let _ = self.steering.set_addresses(&Addresses::Shared(list));
                }
                Change::Route if core.sockets.stack.core.config.mode == Mode::Shared => {
                    core.sockets.stack.core.set_routes(self.netlink.routes());
                }
                Change::Neighbor(ip, neighbor) => self.neighbor(core, ip, neighbor),
                Change::Link(link) if !link.exists => {
                    core.hub.fail(Errno::ENETDOWN, &format!("{} was deleted", self.interface));
                }
                Change::Link(link) => {
                    self.steering.set_mac(link.mac.0);
                    core.sockets.stack.set_mac(link.mac);
                    core.sockets.stack.core.set_link(link.up);
                    if link.mtu > 0 {
                        core.sockets.stack.core.set_mtu(link.mtu);
                    }
                }
                Change::Address | Change::Route => {}
            }
        }
    }

    fn neighbor(&mut self, core: &mut Core, ip: IpAddr, neighbor: Neighbor) {
        if core.sockets.stack.core.config.mode == Mode::Shared {
            core.sockets.stack.core.set_neighbor(ip, neighbor);
        }
    }
}

fn nudge(ip: IpAddr) {
    let any: IpAddr = match ip {
        IpAddr::V4(_) => core::net::Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => core::net::Ipv6Addr::UNSPECIFIED.into(),
    };
    if let Ok(socket) = std::net::UdpSocket::bind((any, 0)) {
        let _ = socket.set_nonblocking(true);
        let _ = socket.send_to(&[], (ip, 9));
    }
}
