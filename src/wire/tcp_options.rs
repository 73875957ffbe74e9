//! TCP options, read and written (RFC 9293, 3.2; RFC 7323; RFC 2018).

use crate::telemetry::DropReason;
use arrayvec::ArrayVec;

/// Bytes of options that a header can hold.
pub const MAX_LEN: usize = 40;
/// Bytes of two NOPs and a timestamp: what nearly every segment carries.
pub const TIMESTAMP_LEN: usize = 12;

const END: u8 = 0;
const NOP: u8 = 1;
const MSS: u8 = 2;
const WINDOW_SCALE: u8 = 3;
const USER_TIMEOUT: u8 = 28;
const SACK_PERMITTED: u8 = 4;
const SACK: u8 = 5;
const TIMESTAMP: u8 = 8;
const FAST_OPEN: u8 = 34;
/// Experiments, and the one that Fast Open was (RFC 6994).
const EXPERIMENT: u8 = 254;
const FAST_OPEN_ID: [u8; 2] = [0xf9, 0x89];

/// Bytes of the longest Fast Open cookie.
const MAX_COOKIE: usize = 16;

/// A SACK block: received bytes from `left` up to but not including `right`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SackBlock {
    /// First sequence number.
    pub left: u32,
    /// Sequence number after the last.
    pub right: u32,
}

/// A Fast Open cookie (RFC 7413, 4.1.1): none asks for one, else it is 4 to 16
/// bytes, an even number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cookie {
    len: u8,
    /// It goes by the option's number from before it had its own, which old peers
    /// still use.
    experimental: bool,
    bytes: [u8; MAX_COOKIE],
}

impl Cookie {
    /// The cookie of these bytes, if they can be one's.
    pub fn new(value: &[u8]) -> Option<Self> {
        if !matches!(value.len(), 0 | 4..=MAX_COOKIE) || !value.len().is_multiple_of(2) {
            return None;
        }
        let mut bytes = [0; MAX_COOKIE];
        bytes[..value.len()].copy_from_slice(value);
        Some(Self { len: value.len() as u8, experimental: false, bytes })
    }

    /// Its bytes.
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    /// True where it asks for one.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The same cookie in the option that the other came in.
    pub fn as_in(self, other: Self) -> Self {
        Self { experimental: other.experimental, ..self }
    }

    /// The same cookie in the option that Fast Open had before its own.
    pub fn experimental(self) -> Self {
        Self { experimental: true, ..self }
    }

    /// True where it goes in that one.
    pub fn is_experimental(&self) -> bool {
        self.experimental
    }

    /// What stands before the cookie in the option, after its kind and length.
    fn id(&self) -> &'static [u8] {
        if self.experimental { &FAST_OPEN_ID } else { &[] }
    }

    fn kind(&self) -> u8 {
        if self.experimental { EXPERIMENT } else { FAST_OPEN }
    }

    /// The option, with NOPs behind it to a multiple of four bytes.
    pub fn option(&self) -> ArrayVec<u8, 20> {
        let mut out = ArrayVec::new();
        out.extend([self.kind(), 2 + self.id().len() as u8 + self.len]);
        out.extend(self.id().iter().copied());
        out.extend(self.as_slice().iter().copied());
        while out.len() % 4 != 0 {
            out.push(NOP);
        }
        out
    }
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
    /// Fast Open (RFC 7413).
    pub fast_open: Option<Cookie>,
    /// User timeout (RFC 5482), as sent: the highest bit says minutes.
    pub user_timeout: Option<u16>,
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
    // What most SYNs do, as Linux lays it out: segment size, SACK, timestamp, scale.
    if let [2, 4, m, s, 4, 2, 8, 10, a, b, c, d, e, f, g, h, 1, 3, 3, scale] = *bytes {
        options.mss = Some(u16::from_be_bytes([m, s]));
        options.sack_permitted = true;
        let pair = (u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h]));
        options.timestamp = Some(pair);
        options.window_scale = Some(scale);
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
        match (*kind, value.len()) {
            (2, 2) => options.mss = Some(u16::from_be_bytes([value[0], value[1]])),
            (3, 1) => options.window_scale = Some(value[0]),
            (4, 0) => options.sack_permitted = true,
            (5, n) if n % 8 == 0 => {
                for block in value.chunks_exact(8).take(4) {
                    let block = SackBlock { left: be32(block), right: be32(&block[4..]) };
                    let _ = options.sack.try_push(block);
                }
            }
            (USER_TIMEOUT, 2) => options.user_timeout = Some(u16::from_be_bytes([value[0], value[1]])),
            (34, _) => options.fast_open = Cookie::new(value),
            (254, 2..) if value[..2] == FAST_OPEN_ID => {
                let cookie = Cookie::new(&value[2..]);
                options.fast_open = cookie.map(|c| Cookie { experimental: true, ..c });
            }
            (8, 8) => options.timestamp = Some((be32(value), be32(&value[4..]))),
            _ => {}
        }
        bytes = &bytes[len..];
    }
    Ok(options)
}

/// In what order the options stand on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// As Linux: `mss, sackOK, TS, nop, wscale`.
    #[default]
    Linux,
    /// As FreeBSD: `mss, nop, wscale, sackOK, TS`.
    FreeBsd,
}

/// Two NOPs and a timestamp: the options of a data segment.
#[inline]
pub const fn timestamp(value: u32, echo: u32) -> [u8; TIMESTAMP_LEN] {
    let ([a, b, c, d], [e, f, g, h]) = (value.to_be_bytes(), echo.to_be_bytes());
    [NOP, NOP, TIMESTAMP, 10, a, b, c, d, e, f, g, h]
}

impl Options {
    /// The options as they stand on the wire, a multiple of four bytes. SACK
    /// blocks that do not fit are left out, the last ones first.
    pub fn encode(&self, order: Order) -> ArrayVec<u8, MAX_LEN> {
        let mut out = Encoder(ArrayVec::new());
        if let Some(mss) = self.mss {
            out.put(MSS, &mss.to_be_bytes());
        }
        match order {
            Order::Linux => self.encode_linux(&mut out),
            Order::FreeBsd => self.encode_freebsd(&mut out),
        }
        if let Some(cookie) = &self.fast_open {
            out.pad_to(4, 0, NOP);
            out.0.extend(cookie.option());
        }
        if let Some(value) = self.user_timeout {
            out.put(USER_TIMEOUT, &value.to_be_bytes());
        }
        out.sack(&self.sack);
        out.pad_to(4, 0, END);
        out.0
    }

    fn encode_linux(&self, out: &mut Encoder) {
        // "SACK permitted" takes the place of the timestamp's two NOPs.
        if self.sack_permitted {
            if self.timestamp.is_none() {
                out.pad_to(4, 2, NOP);
            }
            out.put(SACK_PERMITTED, &[]);
        }
        out.timestamp(self.timestamp);
        if let Some(scale) = self.window_scale {
            out.pad_to(4, 1, NOP);
            out.put(WINDOW_SCALE, &[scale]);
        }
    }

    fn encode_freebsd(&self, out: &mut Encoder) {
        if let Some(scale) = self.window_scale {
            out.pad_to(4, 1, NOP);
            out.put(WINDOW_SCALE, &[scale]);
        }
        if self.sack_permitted {
            out.put(SACK_PERMITTED, &[]);
        }
        out.timestamp(self.timestamp);
    }
}

/// Options being written. What does not fit is left out.
struct Encoder(ArrayVec<u8, MAX_LEN>);

impl Encoder {
    fn put(&mut self, kind: u8, value: &[u8]) {
        if self.0.remaining_capacity() >= 2 + value.len() {
            self.0.extend([kind, 2 + value.len() as u8]);
            self.0.extend(value.iter().copied());
        }
    }

    /// Adds `with` until the length leaves `rest` when divided by `unit`.
    fn pad_to(&mut self, unit: usize, rest: usize, with: u8) {
        while self.0.len() % unit != rest && !self.0.is_full() {
            self.0.push(with);
        }
    }

    fn timestamp(&mut self, pair: Option<(u32, u32)>) {
        if let Some((value, echo)) = pair {
            self.pad_to(4, 2, NOP);
            self.put(TIMESTAMP, &timestamp(value, echo)[4..]);
        }
    }

    fn sack(&mut self, blocks: &[SackBlock]) {
        if blocks.is_empty() {
            return;
        }
        self.pad_to(4, 2, NOP);
        let fit = self.0.remaining_capacity().saturating_sub(2) / 8;
        let mut value = ArrayVec::<u8, 32>::new();
        for block in blocks.iter().take(fit.min(4)) {
            value.extend(block.left.to_be_bytes());
            value.extend(block.right.to_be_bytes());
        }
        if !value.is_empty() {
            self.put(SACK, &value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn syn() -> Options {
        Options {
            mss: Some(1460),
            window_scale: Some(7),
            sack_permitted: true,
            timestamp: Some((1, 0)),
            ..Default::default()
        }
    }

    fn kinds(bytes: &[u8]) -> Vec<u8> {
        let (mut i, mut kinds) = (0, Vec::new());
        while i < bytes.len() {
            kinds.push(bytes[i]);
            i += if bytes[i] < 2 { 1 } else { usize::from(bytes[i + 1]) };
        }
        kinds
    }

    #[test]
    fn both_orders_are_those_of_their_systems() {
        assert_eq!(kinds(&syn().encode(Order::Linux)), [MSS, SACK_PERMITTED, TIMESTAMP, NOP, WINDOW_SCALE]);
        assert_eq!(kinds(&syn().encode(Order::FreeBsd)), [MSS, NOP, WINDOW_SCALE, SACK_PERMITTED, TIMESTAMP]);
        let plain = Options { timestamp: None, ..syn() };
        assert_eq!(kinds(&plain.encode(Order::Linux)), [MSS, NOP, NOP, SACK_PERMITTED, NOP, WINDOW_SCALE]);
        let ends = kinds(&plain.encode(Order::FreeBsd));
        assert_eq!(ends, [MSS, NOP, WINDOW_SCALE, SACK_PERMITTED, END, END]);
        let data = Options { timestamp: Some((3, 4)), ..Default::default() };
        assert_eq!(data.encode(Order::Linux)[..], timestamp(3, 4));
        assert_eq!(data.encode(Order::FreeBsd)[..], timestamp(3, 4));
        assert!(Options::default().encode(Order::Linux).is_empty());
    }

    #[test]
    fn sack_blocks_fill_what_is_left() {
        let block = |i: u32| SackBlock { left: i * 100, right: i * 100 + 50 };
        for (timestamp, fit) in [(None, 4), (Some((1, 2)), 3)] {
            for n in 0..=4 {
                let sack = (0..n).map(block).collect();
                let options = Options { timestamp, sack, ..Default::default() };
                let bytes = options.encode(Order::Linux);
                let read = parse_options(&bytes).unwrap();
                assert_eq!(read.sack[..], options.sack[..(n as usize).min(fit)]);
                assert_eq!(read.timestamp, timestamp);
                assert_eq!(bytes.len() % 4, 0);
            }
        }
        let all = Options { sack: (0..4).map(block).collect(), ..syn() };
        for order in [Order::Linux, Order::FreeBsd] {
            let bytes = all.encode(order);
            assert!(bytes.len() <= MAX_LEN && parse_options(&bytes).unwrap().sack.len() == 2);
        }
    }

    #[test]
    fn every_mix_reads_back_the_same() {
        for bits in 0..16u8 {
            let on = |bit: u8| bits & bit != 0;
            let options = Options {
                mss: on(1).then_some(536),
                window_scale: on(2).then_some(14),
                sack_permitted: on(4),
                timestamp: on(8).then_some((u32::MAX, 77)),
                sack: ArrayVec::new(),
                fast_open: None,
                user_timeout: None,
            };
            for order in [Order::Linux, Order::FreeBsd] {
                let bytes = options.encode(order);
                assert_eq!(parse_options(&bytes).as_ref(), Ok(&options), "{order:?} {bytes:?}");
                assert_eq!(bytes.len() % 4, 0);
            }
        }
    }

    #[test]
    fn a_fast_open_cookie_has_an_even_length_from_4_to_16_or_none() {
        for len in 0..=18 {
            let value = vec![7; len];
            let cookie = Cookie::new(&value);
            assert_eq!(cookie.is_some(), [0, 4, 6, 8, 10, 12, 14, 16].contains(&len), "{len}");
            let Some(cookie) = cookie else {
                let bytes = [&[FAST_OPEN, 2 + len as u8][..], &value].concat();
                assert_eq!(parse_options(&bytes).unwrap().fast_open, None);
                continue;
            };
            assert_eq!((cookie.as_slice(), cookie.is_empty()), (&value[..], len == 0));
            assert_eq!(parse_options(&cookie.option()).unwrap().fast_open, Some(cookie));
            let old = Cookie { experimental: true, ..cookie };
            assert_eq!(old.option()[..4], [254, 4 + len as u8, 0xf9, 0x89]);
            assert_eq!(parse_options(&old.option()).unwrap().fast_open, Some(old));
            let options = Options { fast_open: Some(cookie), ..syn() };
            for order in [Order::Linux, Order::FreeBsd] {
                let bytes = options.encode(order);
                assert_eq!(parse_options(&bytes).as_ref(), Ok(&options));
                assert!(bytes.len() <= MAX_LEN && bytes.len().is_multiple_of(4));
            }
        }
    }

    #[test]
    fn unknown_options_are_skipped_and_bad_lengths_refused() {
        let read = parse_options(&[254, 4, 9, 9, NOP, MSS, 4, 5, 180, END, MSS, 4]).unwrap();
        assert_eq!(read, Options { mss: Some(1460), ..Default::default() });
        let wrong_size = parse_options(&[MSS, 3, 9, WINDOW_SCALE, 3, 2]).unwrap();
        assert_eq!(wrong_size, Options { window_scale: Some(2), ..Default::default() });
        for bad in [&[MSS][..], &[MSS, 0], &[MSS, 1, 0], &[NOP, MSS, 4, 1], &[99, 41]] {
            assert_eq!(parse_options(bad), Err(DropReason::TcpBadOptions), "{bad:?}");
        }
    }
}
