//! What every protocol of a stack uses: frames, the way out, the interface,
//! neighbours, routes, random numbers, and what is reported to the layer above.

use super::flow_book::FlowBook;
use super::chain::largest_packet;
use super::fragment::Reassembly;
use super::icmp::Limits;
use super::interface::Interface;
use super::ip_output::{Identification, PathMtus};
use super::neighbor::{self, Waiter};
use super::route::{self, Path, Route};
use super::ways::Ways;
use super::Config;
use crate::errno::{Errno, Result};
use crate::frame::{Frame, Packet, Pool, TxQueue};
use crate::rng::Rng;
use crate::tcp::Readiness;
use crate::telemetry::{Counters, DropReason};
use crate::time::Instant;
use crate::wire::ethernet::Mac;
use core::cell::Cell;
use core::net::IpAddr;

/// A socket's readiness changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// The number that the socket was opened with.
    pub token: u32,
    /// What it is ready for now.
    pub ready: Readiness,
}

/// The shared part of a stack.
#[derive(Debug)]
pub struct Core {
    /// The time of this turn.
    pub now: Instant,
    /// The frames.
    pub pool: Pool,
    /// What goes to the device.
    pub tx: TxQueue,
    /// What goes to ourselves: sent like anything else, received by the next
    /// [`Stack::turn`](super::Stack::turn).
    pub loop_tx: TxQueue,
    /// Counters.
    pub counters: Counters,
    /// Random numbers.
    pub rng: Rng,
    /// The configuration. Addresses, routes and MTU that changed since are in
    /// [`Core::interface`].
    pub config: Config,
    /// Sockets whose readiness changed, for the layer above to take.
    pub events: Vec<Event>,
    /// Those who waited for a neighbour, with its address or `None`.
    pub resolved: Vec<(Waiter, Option<Mac>)>,
    /// Neighbours whose address changed: who keeps it in a template looks here.
    pub moved: Vec<(IpAddr, Mac)>,
    /// Shared addresses: neighbours that the kernel is to be asked for.
    pub neighbor_requests: Vec<IpAddr>,
    /// Frames that programs hold (lent or handed out for writing).
    pub lent: usize,
    /// Other stacks' flows; `None`: there are no other stacks.
    pub book: Option<Box<dyn FlowBook>>,
    /// Packets of other stacks' flows, for the runtime to hand over.
    pub strays: Vec<(usize, Packet)>,
    /// What is being received was handed over, and is this stack's whatever it is.
    pub handed_over: bool,
    pub(super) interface: Interface,
    pub(super) neighbors: neighbor::Table,
    pub(super) routes: route::Table,
    /// The path that was asked for last: nearly always the next one too.
    last_path: Cell<Option<(IpAddr, Path)>>,
    pub(super) ways: Ways,
    link_up: bool,
    pub(super) limits: Limits,
    pub(super) reassembly: Reassembly,
    pub(super) identification: Identification,
    pub(super) path_mtus: PathMtus,
    /// Packets whose neighbour did not answer, whole as they were to be sent.
    pub(super) undeliverable: Vec<Frame>,
}

impl Core {
    pub(super) fn new(config: Config, pool: Pool, seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let mut interface = Interface::new(&config);
        interface.mtu = interface.mtu.min(largest_packet(&pool, interface.link_len, config.multi_buffer));
        // The largest packet goes in whole or not at all.
        let frames = (interface.link_len + interface.mtu).div_ceil(pool.frame_capacity());
        let least = if frames > 1 { frames + 1 } else { 1 };
        let mut core = Self {
            now: Instant::ZERO,
            tx: TxQueue::new(config.transmit_queue.max(least)),
            loop_tx: TxQueue::new(config.loop_queue.max(least)),
            counters: Counters::default(),
            events: Vec::new(),
            resolved: Vec::new(),
            moved: Vec::new(),
            neighbor_requests: Vec::new(),
            lent: 0,
            book: None,
            strays: Vec::new(),
            handed_over: false,
            neighbors: neighbor::Table::new(&config, &mut rng),
            routes: route::Table::default(),
            last_path: Cell::new(None),
            ways: Ways::new(),
            link_up: true,
            limits: Limits::new(&config.icmp),
            reassembly: Reassembly::new(&mut rng),
            identification: Identification::new(&mut rng),
            path_mtus: PathMtus::new(&mut rng),
            undeliverable: Vec::new(),
            interface,
            config,
            rng,
            pool,
        };
        let routes = core.config.routes.clone();
        core.set_routes(&routes);
        core
    }

    /// The interface.
    pub fn interface(&self) -> &Interface {
        &self.interface
    }

    /// The path to a destination.
    ///
    /// # Errors
    /// `ENETUNREACH`; `ENETDOWN` while the link is down.
    #[inline]
    pub fn route(&self, dst: IpAddr) -> Result<Path> {
        match self.last_path.get() {
            Some((ip, path)) if ip == dst => Ok(path),
            _ => self.find_path(dst),
        }
    }

    fn find_path(&self, dst: IpAddr) -> Result<Path> {
        let path = self.routes.path(&self.interface, dst)?;
        if !self.link_up && !path.is_local {
            return Err(Errno::ENETDOWN);
        }
        self.last_path.set(Some((dst, path)));
        Ok(path)
    }

    /// Replaces the routes; the configured gateway stays, as the last resort.
    pub fn set_routes(&mut self, routes: &[Route]) {
        let mut all = routes.to_vec();
        if let Some(gateway) = self.config.gateway {
            let any: IpAddr = match gateway {
                IpAddr::V4(_) => core::net::Ipv4Addr::UNSPECIFIED.into(),
                IpAddr::V6(_) => core::net::Ipv6Addr::UNSPECIFIED.into(),
            };
            all.push(Route {
                destination: any,
                prefix: 0,
                gateway: Some(gateway),
                source: None,
                metric: u32::MAX,
                mtu: None,
            });
        }
        self.routes.set(&all, self.config.max_routes);
        self.paths_changed();
    }

    /// Replaces the interface's addresses. Sockets bound to one that is gone
    /// keep it, and hear nothing any more.
    pub fn set_addresses(&mut self, addresses: &[(IpAddr, u8)]) {
        self.interface.set_addresses(addresses);
        self.paths_changed();
    }

    /// Replaces the interface's hardware address. Connections have it in their headers:
    /// [`Stack::set_mac`](super::Stack::set_mac) sees to those, too.
    pub(super) fn set_mac(&mut self, mac: Mac) {
        self.interface.set_mac(mac);
        self.paths_changed();
    }

    /// The interface went down or came up. While it is down nothing finds a path,
    /// but for what goes to ourselves.
    pub fn set_link(&mut self, up: bool) {
        self.link_up = up;
        self.paths_changed();
    }

    /// Sets the largest packet, 68 to 65,535 bytes, as far as a frame holds it, or
    /// several where the device takes such packets.
    pub fn set_mtu(&mut self, mtu: usize) {
        let room = largest_packet(&self.pool, self.interface.link_len, self.config.multi_buffer);
        self.interface.mtu = mtu.clamp(68, 65_535).min(room);
        self.paths_changed();
    }

    /// What was found out about destinations may not be so any more.
    fn paths_changed(&mut self) {
        self.last_path.set(None);
        self.ways.forget();
    }

    /// Bytes before the payload of an IP packet without options in a frame that
    /// is to be sent: the link's header and IP's.
    #[inline]
    pub fn ip_room(&self, v6: bool) -> usize {
        self.interface.link_len + if v6 { 40 } else { 20 }
    }

    /// Hands the first `len` bytes of a frame to the device.
    #[inline]
    pub(super) fn transmit(&mut self, frame: Frame, len: usize) {
        if self.pool.is_chained(&frame) {
            return self.transmit_chain(frame, false);
        }
        if self.tx.room() == 0 {
            self.counters.drop(DropReason::TransmitQueueFull);
            self.pool.free(frame);
            return;
        }
        self.counters.tx_packets += 1;
        self.counters.tx_bytes += len as u64;
        let desc = self.pool.transmit_and_free(frame, len);
        self.tx.push(desc);
    }

    /// Frames held here: at neighbours, in reassembly, by programs.
    pub fn held_frames(&self) -> usize {
        self.neighbors.held_frames()
            + self.reassembly.held_frames()
            + self.undeliverable.len()
            + self.lent
            + self.strays.iter().map(|(_, packet)| packet.frames()).sum::<usize>()
    }
}
