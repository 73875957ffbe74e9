//! The handle table: sockets and epoll sets of one core.

use super::epoll::{Members, NONE, Sets};
use super::options::Options;
use super::types::Handle;
use crate::errno::{Errno, Result};
use crate::stack::Stack;
use crate::stack::tcp::BindId;
use crate::tcp::Readiness;
use core::net::SocketAddr;
use std::sync::Arc;

/// What a handle names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Nothing.
    Free,
    /// A TCP socket that neither listens nor has a connection.
    Idle,
    /// A TCP socket that listens.
    Listener(u32),
    /// A TCP socket with a connection, begun, established or over.
    Stream(u32),
    /// A UDP socket.
    Udp(u32),
    /// An ICMP socket, of echoes or raw.
    Icmp(u32),
    /// An epoll set.
    Set(u32),
}

bitflags::bitflags! {
    /// States of a socket that its connection does not know.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub(super) struct Flags: u8 {
        /// `connect` began, and nobody was told of its end.
        const CONNECTING = 0x01;
        /// `shutdown` for reading.
        const SHUT_READ = 0x02;
        /// A raw ICMP socket.
        const RAW = 0x04;
        /// The last send said MSG_MORE.
        const MORE = 0x08;
        /// Changes of readiness are reported to the runtime.
        const WATCHED = 0x10;
        /// One is waiting to be taken.
        const REPORTED = 0x20;
    }
}

/// Where a socket is bound.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bound {
    /// The bind of a TCP port.
    pub id: BindId,
    /// Address and port.
    pub addr: SocketAddr,
}

/// A place in the table.
#[derive(Debug)]
pub(super) struct Socket {
    pub generation: u32,
    pub kind: Kind,
    pub flags: Flags,
    /// The head of its list of epoll pairs.
    pub members: u32,
    /// What the runtime knows it by.
    pub watch: u64,
    pub options: Arc<Options>,
    pub bound: Option<Box<Bound>>,
}

const _: () = assert!(size_of::<Socket>() <= 64, "a socket is part of an idle connection's price");

/// The table.
#[derive(Debug, Default)]
pub(super) struct Sockets {
    slots: Vec<Socket>,
    free: Vec<u32>,
    /// Bound on handles.
    max: usize,
}

impl Sockets {
    pub fn new(max: usize) -> Self {
        Self { slots: Vec::new(), free: Vec::new(), max }
    }

    /// Handles that are open.
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// A new handle.
    ///
    /// # Errors
    /// `EMFILE` where there are too many.
    pub fn insert(&mut self, kind: Kind, options: Arc<Options>) -> Result<Handle> {
        let socket = Socket {
            generation: 1,
            kind,
            flags: Flags::empty(),
            members: NONE,
            watch: 0,
            options,
            bound: None,
        };
        if let Some(index) = self.free.pop() {
            let generation = self.slots[index as usize].generation;
            self.slots[index as usize] = Socket { generation, ..socket };
            return Ok(Handle::new(index, generation));
        }
        if self.slots.len() >= self.max {
            return Err(Errno::EMFILE);
        }
        self.slots.push(socket);
        Ok(Handle::new(self.slots.len() as u32 - 1, 1))
    }

    /// Frees a handle's place.
    pub fn remove(&mut self, h: Handle) {
        let socket = &mut self.slots[h.index() as usize];
        // Zero is left out, so that no handle is the number zero.
        socket.generation = socket.generation.wrapping_add(1).max(1);
        socket.kind = Kind::Free;
        socket.flags = Flags::empty();
        // An event that comes late finds no pair that is another's by now.
        socket.members = NONE;
        socket.bound = None;
        self.free.push(h.index());
    }

    /// The socket of a handle.
    ///
    /// # Errors
    /// `EBADF`.
    #[inline]
    pub fn get(&self, h: Handle) -> Result<&Socket> {
        match self.slots.get(h.index() as usize) {
            Some(s) if s.generation == h.generation() && s.kind != Kind::Free => Ok(s),
            _ => Err(Errno::EBADF),
        }
    }

    /// The socket of a handle, to change.
    ///
    /// # Errors
    /// `EBADF`.
    #[inline]
    pub fn get_mut(&mut self, h: Handle) -> Result<&mut Socket> {
        match self.slots.get_mut(h.index() as usize) {
            Some(s) if s.generation == h.generation() && s.kind != Kind::Free => Ok(s),
            _ => Err(Errno::EBADF),
        }
    }

    /// The connection behind a handle, if it is a stream's with one, and its socket.
    /// (What is free is no stream.)
    #[inline(always)]
    pub fn stream(&self, h: Handle) -> Option<(u32, &Socket)> {
        match self.slots.get(h.index() as usize) {
            Some(socket @ &Socket { generation, kind: Kind::Stream(conn), .. }) if generation == h.generation() => {
                Some((conn, socket))
            }
            _ => None,
        }
    }

    /// The UDP socket behind a handle, if it is one's.
    #[inline(always)]
    pub fn udp(&self, h: Handle) -> Option<u32> {
        match self.slots.get(h.index() as usize) {
            Some(&Socket { generation, kind: Kind::Udp(id), .. }) if generation == h.generation() => Some(id),
            _ => None,
        }
    }

    /// The epoll set behind a handle, if it is one's.
    #[inline(always)]
    pub fn set(&self, h: Handle) -> Option<u32> {
        match self.slots.get(h.index() as usize) {
            Some(&Socket { generation, kind: Kind::Set(set), .. }) if generation == h.generation() => Some(set),
            _ => None,
        }
    }

    /// The socket at a place, if there is such a place; free ones included.
    #[inline(always)]
    pub fn look(&self, index: u32) -> Option<&Socket> {
        self.slots.get(index as usize)
    }

    /// The socket at a place; free ones included.
    #[inline]
    pub fn at(&self, index: u32) -> &Socket {
        &self.slots[index as usize]
    }

    /// The socket at a place, to change.
    #[inline]
    pub fn at_mut(&mut self, index: u32) -> &mut Socket {
        &mut self.slots[index as usize]
    }

    /// The handle of a place.
    pub fn handle(&self, index: u32) -> Handle {
        Handle::new(index, self.slots[index as usize].generation)
    }
}

/// The table as epoll sets see it.
pub(super) struct View<'a> {
    pub table: &'a Sockets,
    pub stack: &'a Stack,
    /// The place of each set.
    pub places: &'a [u32],
}

impl View<'_> {
    /// The readiness of a socket now.
    #[inline(always)]
    pub fn readiness(&self, socket: &Socket) -> Readiness {
        match socket.kind {
            Kind::Stream(conn) => {
                let ready = self.stack.tcp.conn(conn).readiness();
                if !socket.flags.contains(Flags::SHUT_READ) {
                    return ready;
                }
                let both = self.stack.tcp.conn(conn).send_shut();
                let hup = if both { Readiness::HUP } else { Readiness::empty() };
                ready | Readiness::IN | Readiness::RDHUP | hup
            }
            _ => self.rare_readiness(socket),
        }
    }

    #[inline(never)]
    fn poll_set(&self, sets: &Sets, set: u32) -> u32 {
        sets.set_readiness(set, self)
    }

    #[inline(never)]
    fn rare_readiness(&self, socket: &Socket) -> Readiness {
        match socket.kind {
            Kind::Listener(id) if self.stack.tcp.can_accept(id) => Readiness::IN,
            // As a socket that never was connected is in Linux.
            Kind::Idle => Readiness::OUT | Readiness::HUP,
            Kind::Udp(id) => self.stack.udp.readiness(id),
            Kind::Icmp(id) => self.stack.icmp.readiness(id),
            _ => Readiness::empty(),
        }
    }
}

impl Members for View<'_> {
    #[inline(always)]
    fn poll(&self, sets: &Sets, index: u32) -> u32 {
        let socket = self.table.at(index);
        if let Kind::Set(set) = socket.kind {
            return self.poll_set(sets, set);
        }
        super::linux::with_norms(self.readiness(socket).bits())
    }

    fn head(&self, index: u32) -> u32 {
        self.table.at(index).members
    }

    fn place(&self, set: u32) -> u32 {
        self.places[set as usize]
    }

    fn as_set(&self, index: u32) -> Option<u32> {
        match self.table.at(index).kind {
            Kind::Set(set) => Some(set),
            _ => None,
        }
    }
}
