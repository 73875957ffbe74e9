//! TCP_INFO: `struct tcp_info` of Linux, as bytes.

use crate::tcp::Info;

/// Bytes of the structure as of Linux 6.18.
pub const LEN: usize = 280;

/// A slow start threshold that none was set for, as Linux has it.
const NO_THRESHOLD: u32 = 0x7fff_ffff;

struct Layout {
    bytes: [u8; LEN],
    at: usize,
}

impl Layout {
    fn put(&mut self, value: &[u8]) {
        self.bytes[self.at..self.at + value.len()].copy_from_slice(value);
        self.at += value.len();
    }

    fn u32s<const N: usize>(&mut self, values: [u32; N]) {
        values.into_iter().for_each(|v| self.put(&v.to_ne_bytes()));
    }

    fn u64s<const N: usize>(&mut self, values: [u64; N]) {
        values.into_iter().for_each(|v| self.put(&v.to_ne_bytes()));
    }
}

/// The structure. Figures that the stack does not keep are zero.
pub fn bytes(i: &Info) -> [u8; LEN] {
    let mut l = Layout { bytes: [0; LEN], at: 0 };
    let options =
        u8::from(i.timestamps) | (u8::from(i.sack) << 1) | (u8::from(i.window_scale) << 2);
    let options = options | (u8::from(i.ecn) << 3) | (u8::from(i.syn_data) << 5);
    let scales = (i.snd_wscale & 0xf) | (i.rcv_wscale << 4);
    l.put(&[i.state as u8, i.ca_state, i.retransmits, i.probes, i.backoff, options, scales]);
    l.put(&[u8::from(i.delivery_rate_app_limited)]);
    l.u32s([i.rto, i.ato, i.snd_mss, i.rcv_mss]);
    // Unacked, sacked, lost, retrans, fackets.
    l.u32s([i.unacked, i.sacked, i.lost, i.retrans, 0]);
    // Last data sent, ACK sent (never kept, as in Linux), segment received (twice:
    // data and ACKs are not told apart).
    l.u32s([i.last_data_sent, 0, i.last_data_recv, i.last_data_recv]);
    // Path MTU, receive threshold, RTT, its deviation.
    l.u32s([i.pmtu, i.rcv_wnd, i.rtt, i.rttvar]);
    // Slow start threshold, window, announced MSS, reordering.
    l.u32s([i.snd_ssthresh.min(NO_THRESHOLD), i.snd_cwnd, i.advmss, i.reordering]);
    // Receiver's RTT and space, total retransmissions.
    l.u32s([i.rcv_rtt, i.rcv_space, i.total_retrans]);
    l.u64s([i.pacing_rate, i.max_pacing_rate, i.bytes_acked, i.bytes_received]);
    // Segments out and in, bytes not sent, least RTT, data segments in and out.
    l.u32s([0, 0, i.notsent_bytes, i.min_rtt, 0, 0]);
    // Delivery rate; times busy, held by the window, held by the buffer.
    l.u64s([i.delivery_rate, 0, 0, 0]);
    // Delivered, of these with CE.
    l.u32s([0, i.delivered_ce]);
    // Bytes sent, sent again.
    l.u64s([0, 0]);
    // D-SACKs, reorderings, out of order segments, peer's window, ours, rehashes.
    l.u32s([i.dsack_dups, i.reord_seen, 0, i.snd_wnd, i.rcv_wnd, 0]);
    // Time-outs, recoveries from them, their time.
    l.u32s([0, 0]);
    // Accurate ECN's counts and state: none.
    l.u32s([0; 8]);
    debug_assert_eq!(l.at, LEN);
    l.bytes
}
