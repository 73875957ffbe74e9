//! TCP headers (RFC 9293, 3.1).

use super::checksum::{self, Sum};
use crate::telemetry::DropReason;
use zerocopy::byteorder::network_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

pub use super::tcp_options::{Cookie, Options, Order, SackBlock, TIMESTAMP_LEN, parse_options};

/// Bytes of a header without options.
pub const HEADER_LEN: usize = 20;
/// Bytes of a header with all the options it can hold.
pub const MAX_HEADER_LEN: usize = 60;

bitflags::bitflags! {
    /// The control bits.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Flags: u8 {
        /// No more data from the sender.
        const FIN = 0x01;
        /// Synchronise sequence numbers.
        const SYN = 0x02;
        /// Reset the connection.
        const RST = 0x04;
        /// Push.
        const PSH = 0x08;
        /// The acknowledgment field counts.
        const ACK = 0x10;
        /// The urgent pointer counts.
        const URG = 0x20;
        /// ECN echo (RFC 3168).
        const ECE = 0x40;
        /// Congestion window reduced (RFC 3168).
        const CWR = 0x80;
    }
}

/// The fixed part of the header as it stands on the wire.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Header {
    /// Source port.
    pub src_port: U16,
    /// Destination port.
    pub dst_port: U16,
    /// Sequence number.
    pub seq: U32,
    /// Acknowledgment number.
    pub ack: U32,
    /// Data offset in 32-bit words (high four bits) and reserved bits.
    pub offset_reserved: u8,
    /// Control bits.
    pub flags: u8,
    /// Window, not yet scaled.
    pub window: U16,
    /// Checksum over pseudo-header, header and payload.
    pub checksum: U16,
    /// Urgent pointer.
    pub urgent: U16,
}

/// A received segment's header, read once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Source port.
    pub src_port: u16,
    /// Destination port.
    pub dst_port: u16,
    /// Sequence number of the first byte, or of the SYN.
    pub seq: u32,
    /// Acknowledgment number; counts only with [`Flags::ACK`].
    pub ack: u32,
    /// Control bits.
    pub flags: Flags,
    /// Window, not yet scaled.
    pub window: u16,
    /// Urgent pointer; counts only with [`Flags::URG`].
    pub urgent: u16,
    /// Options.
    pub options: Options,
    /// Bytes of the header with its options.
    pub header_len: usize,
    /// Bytes of payload.
    pub payload_len: usize,
    /// The IP header says that the path is congested (RFC 3168): for who read it
    /// to set.
    pub ce: bool,
}

impl Segment {
    /// Sequence numbers that the segment takes: payload, SYN and FIN.
    pub fn seq_len(&self) -> u32 {
        self.payload_len as u32
            + u32::from(self.flags.contains(Flags::SYN))
            + u32::from(self.flags.contains(Flags::FIN))
    }
}

/// Reads the header of a segment that takes up all of `bytes`. The checksum is
/// the caller's to verify.
///
/// # Errors
/// The reason to drop the segment.
#[inline]
pub fn parse(bytes: &[u8]) -> Result<Segment, DropReason> {
    let (h, _) = Header::ref_from_prefix(bytes).map_err(|_| DropReason::TcpMalformed)?;
    let header_len = usize::from(h.offset_reserved >> 4) * 4;
    if header_len < HEADER_LEN || header_len > bytes.len() {
        return Err(DropReason::TcpMalformed);
    }
    Ok(Segment {
        src_port: h.src_port.get(),
        dst_port: h.dst_port.get(),
        seq: h.seq.get(),
        ack: h.ack.get(),
        flags: Flags::from_bits_retain(h.flags),
        window: h.window.get(),
        urgent: h.urgent.get(),
        options: parse_options(&bytes[HEADER_LEN..header_len])?,
        header_len,
        payload_len: bytes.len() - header_len,
        ce: false,
    })
}

/// Writes a whole segment to the front of `out`: header, options in `order`,
/// payload, and the checksum over `pseudo` (the sum of the pseudo-header) and all
/// of it. Says how long it is. The lengths in `segment` are not looked at.
///
/// This is the plain road, for resets and tests; connections send from a template.
///
/// # Panics
/// If `out` is too short.
pub fn build(out: &mut [u8], segment: &Segment, order: Order, pseudo: Sum, payload: &[u8]) -> usize {
    let options = segment.options.encode(order);
    let header_len = HEADER_LEN + options.len();
    let header = Header {
        src_port: U16::new(segment.src_port),
        dst_port: U16::new(segment.dst_port),
        seq: U32::new(segment.seq),
        ack: U32::new(segment.ack),
        offset_reserved: (header_len as u8 / 4) << 4,
        flags: segment.flags.bits(),
        window: U16::new(segment.window),
        checksum: U16::ZERO,
        urgent: U16::new(segment.urgent),
    };
    let len = header_len + payload.len();
    out[..HEADER_LEN].copy_from_slice(header.as_bytes());
    out[HEADER_LEN..header_len].copy_from_slice(&options);
    let sum = checksum::copy_and_sum(&mut out[header_len..len], payload);
    let sum = pseudo.add(checksum::sum(&out[..header_len])).add(sum);
    out[16..18].copy_from_slice(&sum.finish().to_be_bytes());
    len
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_that_is_built_reads_back_the_same() {
        let segment = Segment {
            src_port: 40_000,
            dst_port: 80,
            seq: 7,
            ack: 9,
            flags: Flags::ACK | Flags::PSH,
            window: 502,
            urgent: 3,
            options: Options { timestamp: Some((5, 6)), ..Default::default() },
            header_len: 32,
            payload_len: 5,
            ce: false,
        };
        let mut out = [0; 64];
        let pseudo = checksum::pseudo_v4([10, 0, 0, 1], [10, 0, 0, 2], 6, 37);
        let len = build(&mut out, &segment, Order::Linux, pseudo, b"hello");
        assert_eq!(pseudo.add(checksum::sum(&out[..len])).finish(), 0);
        assert_eq!(parse(&out[..len]).unwrap(), segment);
        assert_eq!(&out[32..len], b"hello");
    }

    #[test]
    fn an_offset_that_cannot_be_is_malformed() {
        let mut bytes = [0u8; 24];
        for (offset, good) in [(4, false), (5, true), (6, true), (7, false)] {
            bytes[12] = offset << 4;
            assert_eq!(parse(&bytes).is_ok(), good, "{offset}");
        }
        assert_eq!(parse(&bytes[..19]).unwrap_err(), DropReason::TcpMalformed);
    }
}
