//! Counters: what came, what went, and why anything was dropped.

mod drops;
pub mod latency;
pub mod plot;

pub use drops::DropReason;

/// One core's counters. They only grow (and wrap after 2^64).
#[derive(Clone, Debug)]
pub struct Counters {
    drops: [u64; DropReason::COUNT],
    /// Packets taken from the device.
    pub rx_packets: u64,
    /// Bytes of those packets.
    pub rx_bytes: u64,
    /// Packets handed to the device.
    pub tx_packets: u64,
    /// Bytes of those packets.
    pub tx_bytes: u64,
    /// Payload bytes copied on the way in (from a frame to a frame or to the program).
    pub rx_copied_bytes: u64,
    /// Payload bytes copied on the way out.
    pub tx_copied_bytes: u64,
    /// TCP segments accepted.
    pub tcp_segments_in: u64,
    /// TCP segments sent, retransmissions included.
    pub tcp_segments_out: u64,
    /// TCP segments sent again.
    pub tcp_retransmits: u64,
    /// Expirations of the retransmission timer.
    pub tcp_timeouts: u64,
    /// Fast recoveries begun.
    pub tcp_recoveries: u64,
    /// Recoveries found to be for nothing, and undone.
    pub tcp_undone: u64,
    /// Probes of a lost tail sent (RFC 8985).
    pub tcp_tail_probes: u64,
    /// Duplicates that peers reported (RFC 2883).
    pub tcp_dsack_in: u64,
    /// SACK blocks that made no sense.
    pub tcp_sack_discarded: u64,
    /// Paths on which full segments vanished and smaller ones were tried.
    pub tcp_black_holes: u64,
    /// Probes of a path for larger packets sent (RFC 4821).
    pub tcp_mtu_probes: u64,
    /// Those that got through.
    pub tcp_mtu_probes_passed: u64,
    /// Those that were too large.
    pub tcp_mtu_probes_lost: u64,
    /// Challenge ACKs sent (RFC 5961).
    pub tcp_challenge_acks: u64,
    /// RSTs sent.
    pub tcp_resets_out: u64,
    /// Connections opened, both ways.
    pub tcp_opened: u64,
    /// Connections ended by RST, time-out or abort.
    pub tcp_aborted: u64,
    /// SYNs answered with a cookie (RFC 4987).
    pub tcp_cookies_sent: u64,
    /// Connections opened by the ACK of a cookie.
    pub tcp_cookies_taken: u64,
    /// ACKs to a listener that sent cookies, and of none of them.
    pub tcp_cookies_refused: u64,
    /// Active opens whose SYN's data was taken (RFC 7413).
    pub tcp_fast_open_active: u64,
    /// Active opens whose SYN's data was not.
    pub tcp_fast_open_active_failed: u64,
    /// Connections that began with data in the SYN.
    pub tcp_fast_open_passive: u64,
    /// SYNs that asked for a Fast Open cookie, and got one.
    pub tcp_fast_open_asked: u64,
    /// SYNs with a wrong Fast Open cookie.
    pub tcp_fast_open_refused: u64,
    /// SYNs with the option while too many such connections were pending.
    pub tcp_fast_open_full: u64,
    /// ACKs not heard because the listener waits for data (TCP_DEFER_ACCEPT).
    pub tcp_deferred: u64,
    /// ACKs of a batch that a later one of the same batch stood for.
    pub tcp_acks_merged: u64,
    /// Data segments that went on in a run: their headers said what those of the one
    /// before them in the batch did.
    pub tcp_segments_merged: u64,
    /// Connections ended for their memory: their peers took nothing for long.
    pub tcp_stalled_ended: u64,
    /// Closed connections reset because there were too many of them.
    pub tcp_orphans_reset: u64,
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            drops: [0; DropReason::COUNT],
            rx_packets: 0,
            rx_bytes: 0,
            tx_packets: 0,
            tx_bytes: 0,
            rx_copied_bytes: 0,
            tx_copied_bytes: 0,
            tcp_segments_in: 0,
            tcp_segments_out: 0,
            tcp_retransmits: 0,
            tcp_timeouts: 0,
            tcp_recoveries: 0,
            tcp_undone: 0,
            tcp_tail_probes: 0,
            tcp_dsack_in: 0,
            tcp_sack_discarded: 0,
            tcp_black_holes: 0,
            tcp_mtu_probes: 0,
            tcp_mtu_probes_passed: 0,
            tcp_mtu_probes_lost: 0,
            tcp_challenge_acks: 0,
            tcp_resets_out: 0,
            tcp_opened: 0,
            tcp_aborted: 0,
            tcp_cookies_sent: 0,
            tcp_cookies_taken: 0,
            tcp_cookies_refused: 0,
            tcp_fast_open_active: 0,
            tcp_fast_open_active_failed: 0,
            tcp_fast_open_passive: 0,
            tcp_fast_open_asked: 0,
            tcp_fast_open_refused: 0,
            tcp_fast_open_full: 0,
            tcp_deferred: 0,
            tcp_acks_merged: 0,
            tcp_segments_merged: 0,
            tcp_stalled_ended: 0,
            tcp_orphans_reset: 0,
        }
    }
}

impl Counters {
    /// Counts a drop.
    #[inline]
    pub fn drop(&mut self, reason: DropReason) {
        self.drops[reason as usize] += 1;
    }

    /// How often something was dropped for this reason.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.drops[reason as usize]
    }

    /// Every reason with its count, zeros included.
    pub fn drops(&self) -> impl Iterator<Item = (DropReason, u64)> + '_ {
        DropReason::ALL.iter().map(|&r| (r, self.drops[r as usize]))
    }
}
