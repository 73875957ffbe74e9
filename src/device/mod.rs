//! Devices: where frames come from and go to. The one generic seam of the house.

pub mod xdp;

use crate::frame::{Batch, Pool, TxQueue};

pub mod memory;
pub mod pcap;

/// What a device can do, and how it was set up.
#[derive(Clone, Debug)]
pub struct Capabilities {
    /// Largest IP packet in bytes.
    pub mtu: usize,
    /// The hardware address.
    pub mac: [u8; 6],
    /// Received TCP and UDP packets may carry only the pseudo-header's sum in
    /// their checksum field, put there by a sender on this host that left the
    /// rest to its (virtual) hardware. They are accepted as they are.
    pub partial_checksums: bool,
}

/// A device that moves packets in bursts.
///
/// Frames pass by the pool's books: received ones come as tokens, transmissions
/// as descriptors that end in [`Pool::complete`].
pub trait Device {
    /// What it can do.
    fn capabilities(&self) -> &Capabilities;

    /// Appends received packets to `batch`, as many as wait and fit.
    fn receive(&mut self, pool: &mut Pool, batch: &mut Batch);

    /// Takes descriptors from the front of `queue`, as many as fit, and sees to
    /// it that they leave (one kick for all). To be called every turn, also with
    /// nothing to send: what an earlier call could not kick off leaves then.
    fn transmit(&mut self, pool: &mut Pool, queue: &mut TxQueue);

    /// False while something that was taken waits for the next `transmit`.
    fn is_quiet(&self) -> bool {
        true
    }

    /// Completes the transmissions that are over.
    fn reap(&mut self, pool: &mut Pool);

    /// Gives the device frames to fill.
    fn refill(&mut self, pool: &mut Pool);

    /// How many packets were lost here, and what else went wrong, by name; what never
    /// happened may be left out.
    fn losses(&self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }
}
