//! What is counted at a queue, by us and by the kernel.

/// What a device counted by itself. The figures only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// System calls that asked the kernel to send.
    pub kicks: u64,
    /// Kicks that sent a part and had to be repeated (EAGAIN).
    pub kicks_again: u64,
    /// Packets that the kernel completed without sending them (EBUSY).
    pub tx_dropped: u64,
    /// Transmissions refused as invalid before they got into the ring.
    pub tx_invalid: u64,
    /// Received descriptors that cannot be.
    pub rx_invalid: u64,
    /// Received packets of more buffers than [`MOST_PIECES`](crate::frame::MOST_PIECES).
    pub rx_chain_too_long: u64,
    /// System calls by which the driver was polled.
    pub polls: u64,
    /// Times that polling was given up, as nothing left by it.
    pub polling_given_up: u64,
}

/// What the kernel counted for a queue's socket (XDP_STATISTICS).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Received packets dropped for other reasons than the ones below.
    pub rx_dropped: u64,
    /// Received packets dropped because of an invalid fill descriptor.
    pub rx_invalid: u64,
    /// Invalid descriptors in the TX ring: each one is a frame lost for ever.
    pub tx_invalid: u64,
    /// Received packets dropped because the RX ring was full.
    pub rx_ring_full: u64,
    /// Times the fill ring was found empty. No packet need be lost by it: a driver that
    /// keeps buffers of its own looks with each of its polls.
    pub fill_ring_empty: u64,
    /// Times the driver found the TX ring empty.
    pub tx_ring_empty: u64,
}

impl Figures {
    /// What is a loss, or worth a look, by name.
    pub(super) fn losses(&self) -> [(&'static str, u64); 5] {
        [
            ("tx_dropped", self.tx_dropped),
            ("tx_invalid", self.tx_invalid),
            ("rx_invalid", self.rx_invalid),
            ("rx_chain_too_long", self.rx_chain_too_long),
            ("polling_given_up", self.polling_given_up),
        ]
    }
}

impl Statistics {
    /// Packets that were lost, by the kernel's names.
    pub(super) fn losses(&self) -> [(&'static str, u64); 4] {
        [
            ("xsk_rx_dropped", self.rx_dropped),
            ("xsk_rx_invalid_descs", self.rx_invalid),
            ("xsk_tx_invalid_descs", self.tx_invalid),
            ("xsk_rx_ring_full", self.rx_ring_full),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_ring_is_no_loss() {
        let idle = Statistics { fill_ring_empty: 5000, tx_ring_empty: 5000, ..Statistics::default() };
        assert!(idle.losses().iter().all(|(_, n)| *n == 0));
        let lost = Statistics { rx_dropped: 1, rx_invalid: 1, tx_invalid: 1, rx_ring_full: 1, ..idle };
        assert!(lost.losses().iter().all(|(_, n)| *n == 1));
    }
}
