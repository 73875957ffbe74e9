//! Runtimes with real threads over the memory wire.

mod app;
mod asleep;
pub(super) mod by_hand;
mod crossed;
mod datagrams;
mod edges;
mod ends;
mod flags;
mod handlers;
mod manners;
mod own;
mod partly;
mod sets;
mod strays;
mod threads;
mod urgent;

use super::worker::Station;
use super::{Config, Runtime, Wait};
use crate::device::memory::{MemoryDevice, Wire, WireConfig};
use crate::device::Device;
use crate::frame::{Arena, Pool};
use crate::socket::Sockets;
use crate::stack::{self, Stack};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

pub(super) const A: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 9, 0, 1));
pub(super) const B: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 9, 0, 2));

pub(super) fn at(ip: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(ip, port)
}

pub(super) fn config(wait: Wait) -> Config {
    Config { wait, seed: Some(7), ..Config::new("memory") }
}

/// A runtime of one worker at this end of the wire.
pub(super) fn runtime(wire: &Wire, device: MemoryDevice, ip: IpAddr, wait: Wait) -> Runtime {
    let pool = Pool::new(Arena::heap(2048, 2048), 0, 2048);
    Runtime::with_stations(config(wait), vec![station(wire, device, ip, pool)]).unwrap()
}

pub(super) fn station(wire: &Wire, device: MemoryDevice, ip: IpAddr, pool: Pool) -> Station<MemoryDevice> {
    let config = stack::Config {
        mode: stack::Mode::Owned,
        addresses: vec![(ip, 24)],
        mac: crate::wire::ethernet::Mac(device.capabilities().mac),
        ..stack::Config::default()
    };
    let wire = wire.clone();
    Station {
        device,
        sockets: Sockets::new(Stack::new(config, pool, 11)),
        fd: None,
        mirror: None,
        tick: Some(Box::new(move |now| wire.advance(now))),
    }
}

/// Two runtimes at the two ends of a wire.
pub(super) fn pair(wait: Wait) -> (Runtime, Runtime) {
    let (wire, a, b) = Wire::new(WireConfig::default(), 5);
    (runtime(&wire, a, A, wait), runtime(&wire, b, B, wait))
}
