//! The guard over ports: what our sockets hold is reserved against the kernel
//! and steered to us, once for all workers together.
//!
//! Memory ordering: a port's count goes up and down by AcqRel exchanges. Whoever
//! takes it from zero, or to zero, marks it BUSY, does the system calls, and
//! then publishes the new count; others yield meanwhile. None of it is on the
//! way of a packet.

use super::directory::Book;
use super::kernel::ports::{PortBlock, Reservation, Transport, reserve};
use crate::device::xdp::{Protocol, Steering};
use crate::errno::{Errno, Result};
use crate::socket::PortGuard;
use core::net::IpAddr;
use core::sync::atomic::{AtomicPtr, AtomicU32, Ordering};
use std::sync::Arc;

const BUSY: u32 = u32::MAX;

struct Port {
    holders: AtomicU32,
    reservation: AtomicPtr<Reservation>,
}

/// What all workers of a runtime hold.
pub(super) struct PortBook {
    steering: Steering,
    addresses: Vec<IpAddr>,
    /// TCP's, then UDP's.
    ports: Box<[Port]>,
    block: Option<PortBlock>,
}

impl Drop for PortBook {
    fn drop(&mut self) {
        for port in &mut self.ports {
            take(port.reservation.swap(core::ptr::null_mut(), Ordering::AcqRel));
        }
    }
}

fn take(reservation: *mut Reservation) {
    if !reservation.is_null() {
        // SAFETY: boxed by `hold`, and taken out of the book by a swap.
        drop(unsafe { Box::from_raw(reservation) });
    }
}

impl PortBook {
    /// A book for these addresses of the interface; `block` ports are reserved
    /// and steered at once, for active opens.
    ///
    /// # Errors
    /// As the kernel refuses the block.
    pub fn new(steering: Steering, addresses: Vec<IpAddr>, block: u16) -> Result<Self> {
        let free = || Port { holders: AtomicU32::new(0), reservation: AtomicPtr::default() };
        let block = match block {
            0 => None,
            n => Some(PortBlock::reserve(Transport::Tcp, &addresses, n)?),
        };
        if let Some(block) = &block {
            (block.first()..=block.first() + (block.count() - 1))
                .for_each(|port| steering.hold_port(Protocol::Tcp, port));
        }
        Ok(Self { steering, addresses, ports: (0..2 << 16).map(|_| free()).collect(), block })
    }

    /// The part of the block that one of so many workers draws from.
    pub fn share(&self, worker: usize, workers: usize) -> Option<(u16, u16)> {
        let block = self.block.as_ref()?;
        let share = usize::from(block.count()) / workers;
        let first = usize::from(block.first()) + worker * share;
        (share > 0).then_some((first as u16, (first + share - 1) as u16))
    }

    fn in_block(&self, protocol: u8, port: u16) -> bool {
        i32::from(protocol) == libc::IPPROTO_TCP
            && self.block.as_ref().is_some_and(|block| block.contains(port))
    }

    fn port(&self, protocol: u8, port: u16) -> Option<(&Port, Transport, Protocol)> {
        let (at, transport, steered) = match i32::from(protocol) {
            libc::IPPROTO_TCP => (0, Transport::Tcp, Protocol::Tcp),
            libc::IPPROTO_UDP => (1 << 16, Transport::Udp, Protocol::Udp),
            _ => return None,
        };
        Some((&self.ports[at + usize::from(port)], transport, steered))
    }

    /// Counts up or down, or marks BUSY where the count is `edge`: the count
    /// before.
    fn enter(port: &Port, edge: u32, step: impl Fn(u32) -> u32) -> u32 {
        loop {
            let now = port.holders.load(Ordering::Acquire);
            if now == BUSY {
                std::thread::yield_now();
                continue;
            }
            let next = if now == edge { BUSY } else { step(now) };
            let won = port.holders.compare_exchange(now, next, Ordering::AcqRel, Ordering::Relaxed);
            if won.is_ok() {
                return now;
            }
        }
    }

    fn hold(&self, protocol: u8, addr: IpAddr, number: u16) -> Result<()> {
        if self.in_block(protocol, number) {
            return Ok(());
        }
        let Some((port, transport, steered)) = self.port(protocol, number) else { return Ok(()) };
        if Self::enter(port, 0, |n| n + 1) != 0 {
            return Ok(());
        }
        let one = [addr];
        let addresses = if addr.is_unspecified() { &self.addresses[..] } else { &one };
        match reserve(transport, addresses, number) {
            Ok(reservation) => {
                let old = port.reservation.swap(Box::into_raw(Box::new(reservation)), Ordering::AcqRel);
                take(old);
                self.steering.hold_port(steered, number);
                port.holders.store(1, Ordering::Release);
                Ok(())
            }
            Err(error) => {
                port.holders.store(0, Ordering::Release);
                Err(error)
            }
        }
    }

    fn release(&self, protocol: u8, number: u16) {
        if self.in_block(protocol, number) {
            return;
        }
        let Some((port, _, steered)) = self.port(protocol, number) else { return };
        if Self::enter(port, 1, |n| n.saturating_sub(1)) != 1 {
            return;
        }
        self.steering.release_port(steered, number);
        take(port.reservation.swap(core::ptr::null_mut(), Ordering::AcqRel));
        port.holders.store(0, Ordering::Release);
    }
}

/// One worker's key to the book; and where other workers find its ports.
pub(super) struct Guard {
    /// `None` on an owned address, where every port is ours.
    pub book: Option<Arc<PortBook>>,
    /// `None` where there is no other worker.
    pub directory: Option<Book>,
}

impl PortGuard for Guard {
    fn hold(&mut self, protocol: u8, addr: IpAddr, port: u16, _active: bool) -> Result<()> {
        if let Some(book) = &self.book {
            book.hold(protocol, addr, port).map_err(|error| match error {
                // Descriptors and memory that ran out are not the port's fault.
                Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM => Errno::ENOBUFS,
                error => error,
            })?;
        }
        if let Some(directory) = &self.directory {
            directory.bound(protocol, port, true);
        }
        Ok(())
    }

    fn release(&mut self, protocol: u8, _addr: IpAddr, port: u16) {
        if let Some(directory) = &self.directory {
            directory.bound(protocol, port, false);
        }
        if let Some(book) = &self.book {
            book.release(protocol, port);
        }
    }
}
