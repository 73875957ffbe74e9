//! TCP headers and options (RFC 9293, 3.1 and 3.2; RFC 7323; RFC 2018).

use crate::telemetry::DropReason;
use arrayvec::ArrayVec;
use zerocopy::byteorder::network_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

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

/// A SACK block: received bytes from `left` up to but not including `right`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SackBlock {
    /// First sequence number.
    pub left: u32,
    /// Sequence number after the last.
    pub right: u32,
}

/// The options that the stack knows; others are skipped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Maximum segment size.
    pub mss: Option<u16>,
    /// Window scale (RFC 7323), as sent: values above 14 count as 14 for the user.
    pub window_scale: Option<u8>,
    /// SACK permitted (RFC 2018).
    pub sack_permitted: bool,
    /// Timestamp value and echo reply (RFC 7323).
    pub timestamp: Option<(u32, u32)>,
    /// SACK blocks, in the order received.
    pub sack: ArrayVec<SackBlock, 4>,
}

/// Reads the options. An option that runs past the end makes them malformed; an
/// unknown kind is skipped by its length (MUST-6, MUST-7).
///
/// # Errors
/// [`DropReason::TcpBadOptions`].
pub fn parse_options(mut bytes: &[u8]) -> Result<Options, DropReason> {
    let mut options = Options::default();
    // What nearly every segment carries: two NOPs and a timestamp.
    if let [1, 1, 8, 10, a, b, c, d, e, f, g, h] = *bytes {
        let pair = (u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h]));
        options.timestamp = Some(pair);
        return Ok(options);
    }
    let be32 = |b: &[u8]| u32::from_be_bytes([b[0], b[1], b[2], b[3]]);
    while let [kind, rest @ ..] = bytes {
        match kind {
            0 => break,
            1 => {
                bytes = rest;
                continue;
            }
            _ => {}
        }
        let len = usize::from(*rest.first().ok_or(DropReason::TcpBadOptions)?);
        if len < 2 || len > bytes.len() {
            return Err(DropReason::TcpBadOptions);
        }
        let value = &bytes[2..len];
        match (kind, value.len()) {
            (2, 2) => options.mss = Some(u16::from_be_bytes([value[0], value[1]])),
            (3, 1) => options.window_scale = Some(value[0]),
            (4, 0) => options.sack_permitted = true,
            (5, n) if n % 8 == 0 => {
                for block in value.chunks_exact(8).take(4) {
                    let block = SackBlock { left: be32(block), right: be32(&block[4..]) };
                    let _ = options.sack.try_push(block);
                }
            }
            (8, 8) => options.timestamp = Some((be32(value), be32(&value[4..]))),
            _ => {}
        }
        bytes = &bytes[len..];
    }
    Ok(options)
}

/// A received segment's header, read once.
#[derive(Clone, Debug)]
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
    })
}
