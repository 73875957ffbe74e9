//! Whose a flow is, where several stacks share an address.

use super::Core;
use super::ip_input::IpMeta;
use crate::frame::Packet;
use core::fmt;
use core::net::SocketAddr;

/// The runtime's directory of flows: each stack writes its own there, and asks
/// for the owner of a packet that fits nothing of its own. Without one (a single
/// worker, simulation) every packet is the stack's own.
pub trait FlowBook: Send + fmt::Debug {
    /// A TCP connection, half-open ones and TIME-WAIT included, has begun.
    fn opened(&mut self, local: SocketAddr, remote: SocketAddr);

    /// It is gone. Once for each [`opened`](Self::opened).
    fn closed(&mut self, local: SocketAddr, remote: SocketAddr);

    /// The other stack that owns the flow, or alone holds the port. `protocol`
    /// is 6 (TCP) or 17 (UDP). It may be mistaken: whom a packet is handed to
    /// treats it as its own.
    fn owner(&self, protocol: u8, local: SocketAddr, remote: SocketAddr) -> Option<usize>;
}

impl Core {
    /// Puts a packet that fits nothing here on the list of strays, if it is
    /// another stack's: whole, as it was received. Else gives it back.
    #[cold]
    pub(super) fn stray(
        &mut self,
        protocol: u8,
        meta: &IpMeta,
        ports: (u16, u16),
        mut packet: Packet,
    ) -> Option<Packet> {
        let Some(book) = self.book.as_ref().filter(|_| !self.handed_over && !meta.is_loop) else {
            return Some(packet);
        };
        let (local, remote) = (SocketAddr::new(meta.dst, ports.0), SocketAddr::new(meta.src, ports.1));
        let Some(owner) = book.owner(protocol, local, remote) else { return Some(packet) };
        let start = usize::from(meta.ip_offset) - self.interface.link_len;
        let end = packet.head.offset() + packet.head.len();
        packet.head.set_range(start, end - start);
        self.strays.push((owner, packet));
        None
    }
}
