//! The devices under smoltcp: an adapter over ours, and its own packet socket.

use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use ringroad::device::Device as _;
use ringroad::device::xdp::{self, Addresses, Interface, Steering, XdpConfig, XdpDevice};
use ringroad::frame::{Arena, Batch, Frame, Pool, TxQueue};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RawSocket, RxToken, TxToken};
use smoltcp::time::Instant;

use super::checksums;

/// Bytes of an Ethernet header, which smoltcp's MTU counts.
const ETHERNET: usize = 14;

/// Our device. Received packets wait in `batch`, packets to be sent in the queue.
pub struct Xdp {
    device: XdpDevice,
    steering: Steering,
    mac: [u8; 6],
    mtu: usize,
    batch: Batch,
    books: Books,
}

/// What tokens of both kinds need at the same time.
struct Books {
    arena: Arc<Arena>,
    pool: RefCell<Pool>,
    out: RefCell<TxQueue>,
}

impl Xdp {
    pub fn open(interface: &str, address: Ipv4Addr) -> Result<Self, String> {
        let about = Interface::query(interface).map_err(|e| e.to_string())?;
        let mut config = XdpConfig::new(interface, Addresses::Owned(vec![IpAddr::V4(address)]));
        config.attach = crate::raw::attach()?;
        let (steering, devices) = xdp::open(&config).map_err(|e| e.to_string())?;
        let (device, pool) = devices.into_iter().next().ok_or("no queue was opened")?;
        let books = Books {
            arena: pool.arena().clone(),
            pool: RefCell::new(pool),
            out: RefCell::new(TxQueue::new(config.tx_ring as usize)),
        };
        Ok(Self { device, steering, mac: about.mac, mtu: about.mtu, batch: Batch::new(), books })
    }

    pub fn mac(&self) -> [u8; 6] {
        self.mac
    }

    /// For people: how it runs.
    pub fn mode(&self) -> String {
        let attached = self.steering.mode().map_or("not attached".to_string(), |m| format!("{m} XDP"));
        format!("{attached}, {}", if self.device.zero_copy() { "zero-copy" } else { "copy mode" })
    }

    pub fn receive_burst(&mut self) {
        let pool = self.books.pool.get_mut();
        self.device.reap(pool);
        self.device.receive(pool, &mut self.batch);
        self.batch.reverse(); // tokens are taken from the end
    }

    pub fn transmit_burst(&mut self) {
        let pool = self.books.pool.get_mut();
        self.device.transmit(pool, self.books.out.get_mut());
        self.device.refill(pool);
    }
}

impl Books {
    fn may_send(&self) -> bool {
        self.pool.borrow().available() > 0 && self.out.borrow().room() > 0
    }
}

/// A received frame.
pub struct Received<'a> {
    frame: Frame,
    books: &'a Books,
}

/// Room for a frame to be sent.
pub struct Room<'a> {
    books: &'a Books,
}

impl RxToken for Received<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        // The answer is written while this is read: so not by way of the pool.
        let result = f(self.books.arena.bytes(&self.frame));
        self.books.pool.borrow_mut().free(self.frame);
        result
    }
}

impl TxToken for Room<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut frame = self.books.pool.borrow_mut().alloc().expect("there was one when the token was made");
        let result = f(&mut self.books.arena.buffer_mut(&mut frame)[..len]);
        let desc = self.books.pool.borrow_mut().transmit_and_free(frame, len);
        self.books.out.borrow_mut().push(desc);
        result
    }
}

impl Device for Xdp {
    type RxToken<'a> = Received<'a>;
    type TxToken<'a> = Room<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Received<'_>, Room<'_>)> {
        if !self.books.may_send() {
            return None; // an answer would have no room
        }
        let packet = self.batch.pop()?;
        let books = &self.books;
        Some((Received { frame: packet.head, books }, Room { books }))
    }

    fn transmit(&mut self, _: Instant) -> Option<Room<'_>> {
        self.books.may_send().then_some(Room { books: &self.books })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = self.mtu + ETHERNET;
        capabilities.checksum = checksums();
        capabilities
    }
}

/// smoltcp's packet socket.
pub struct Packets {
    socket: RawSocket,
    mac: [u8; 6],
}

impl Packets {
    pub fn open(interface: &str) -> Result<Self, String> {
        let mac = Interface::query(interface).map_err(|e| e.to_string())?.mac;
        let socket = RawSocket::new(interface, Medium::Ethernet).map_err(|e| e.to_string())?;
        Ok(Self { socket, mac })
    }

    pub fn mac(&self) -> [u8; 6] {
        self.mac
    }
}

impl Device for Packets {
    type RxToken<'a> = <RawSocket as Device>::RxToken<'a>;
    type TxToken<'a> = <RawSocket as Device>::TxToken<'a>;

    fn receive(&mut self, now: Instant) -> Option<(Self::RxToken<'_>, Self::TxToken<'_>)> {
        self.socket.receive(now)
    }

    fn transmit(&mut self, now: Instant) -> Option<Self::TxToken<'_>> {
        self.socket.transmit(now)
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = self.socket.capabilities();
        capabilities.checksum = checksums();
        capabilities
    }
}
