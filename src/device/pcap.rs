//! Packet files in the classic pcap format (microseconds and nanoseconds, either
//! byte order), and a [`Tap`] that records what passes through a device.

use super::{Capabilities, Device};
use crate::frame::{Batch, Pool, TxQueue};
use crate::time::Instant;
use core::fmt;
use std::io::{self, Read, Write};

const MAGIC_MICROS: u32 = 0xa1b2_c3d4;
const MAGIC_NANOS: u32 = 0xa1b2_3c4d;
const FILE_HEADER: usize = 24;
const RECORD_HEADER: usize = 16;
/// Bytes of a packet in a file, at most (what libpcap takes).
pub const MAX_SNAPLEN: u32 = 262_144;

/// What the packets of a file begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkType {
    /// An Ethernet header (1).
    Ethernet,
    /// An IPv4 or IPv6 header (101).
    RawIp,
    /// Something else, by its number.
    Other(u32),
}

impl LinkType {
    fn number(self) -> u32 {
        match self {
            Self::Ethernet => 1,
            Self::RawIp => 101,
            Self::Other(n) => n,
        }
    }

    fn from_number(n: u32) -> Self {
        match n {
            1 => Self::Ethernet,
            101 => Self::RawIp,
            n => Self::Other(n),
        }
    }
}

/// In what unit a file counts time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// Microseconds: what every reader takes.
    Micros,
    /// Nanoseconds.
    Nanos,
}

impl Resolution {
    fn unit_ns(self) -> u64 {
        match self {
            Self::Micros => 1000,
            Self::Nanos => 1,
        }
    }
}

/// Writes a packet file.
#[derive(Debug)]
pub struct Writer<W: Write> {
    out: W,
    resolution: Resolution,
    snaplen: u32,
}

impl<W: Write> Writer<W> {
    /// Begins a file. Packets longer than `snaplen` bytes (at most
    /// [`MAX_SNAPLEN`], 0 for that) are cut.
    ///
    /// # Errors
    /// What writing gave.
    pub fn new(mut out: W, link: LinkType, resolution: Resolution, snaplen: u32) -> io::Result<Self> {
        let snaplen = if snaplen == 0 { MAX_SNAPLEN } else { snaplen.min(MAX_SNAPLEN) };
        let magic = match resolution {
            Resolution::Micros => MAGIC_MICROS,
            Resolution::Nanos => MAGIC_NANOS,
        };
        let mut header = [0; FILE_HEADER];
        header[..4].copy_from_slice(&magic.to_ne_bytes());
        header[4..6].copy_from_slice(&2u16.to_ne_bytes());
        header[6..8].copy_from_slice(&4u16.to_ne_bytes());
        header[16..20].copy_from_slice(&snaplen.to_ne_bytes());
        header[20..].copy_from_slice(&link.number().to_ne_bytes());
        out.write_all(&header)?;
        Ok(Self { out, resolution, snaplen })
    }

    /// Adds a packet. `at` counts from 1970-01-01 UTC in what readers show; a
    /// simulation may start at zero. Seconds wrap after 2^32.
    ///
    /// # Errors
    /// What writing gave.
    pub fn write(&mut self, at: Instant, packet: &[u8]) -> io::Result<()> {
        let ns = at.as_nanos();
        let kept = packet.len().min(self.snaplen as usize);
        let part = (ns % 1_000_000_000) / self.resolution.unit_ns();
        let fields = [(ns / 1_000_000_000) as u32, part as u32, kept as u32, packet.len() as u32];
        let mut header = [0; RECORD_HEADER];
        for (i, field) in fields.iter().enumerate() {
            header[i * 4..i * 4 + 4].copy_from_slice(&field.to_ne_bytes());
        }
        self.out.write_all(&header)?;
        self.out.write_all(&packet[..kept])
    }

    /// Writes out what is buffered.
    ///
    /// # Errors
    /// What writing gave.
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    /// Ends the file and gives its writer back.
    ///
    /// # Errors
    /// What writing gave.
    pub fn finish(mut self) -> io::Result<W> {
        self.out.flush()?;
        Ok(self.out)
    }
}

/// Why a packet file cannot be read.
#[derive(Debug)]
pub enum Error {
    /// Reading failed.
    Io(io::Error),
    /// The file does not begin as a pcap file does (pcapng is another format).
    NotPcap(u32),
    /// A record claims more bytes than a packet may have.
    TooLong(u32),
    /// The file ends within a record.
    Cut,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(e) => write!(f, "reading the packet file failed: {e}"),
            Self::NotPcap(0x0a0d_0d0a) => {
                write!(f, "a pcapng file: convert it first (editcap -F pcap IN OUT)")
            }
            Self::NotPcap(magic) => write!(f, "not a pcap file (it begins with {magic:#010x})"),
            Self::TooLong(len) => write!(f, "a packet of {len} bytes, more than {MAX_SNAPLEN}"),
            Self::Cut => write!(f, "the packet file ends within a packet"),
        }
    }
}

impl std::error::Error for Error {}

impl From<io::Error> for Error {
    fn from(e: io::Error) -> Self {
        match e.kind() {
            io::ErrorKind::UnexpectedEof => Self::Cut,
            _ => Self::Io(e),
        }
    }
}

/// A packet of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// When it was seen, from 1970-01-01 UTC.
    pub at: Instant,
    /// Bytes that it had on the wire; more than were kept where it was cut.
    pub original_len: u32,
    /// The bytes that were kept.
    pub bytes: Vec<u8>,
}

/// Reads a packet file.
#[derive(Debug)]
pub struct Reader<R: Read> {
    from: R,
    swapped: bool,
    resolution: Resolution,
    link: LinkType,
}

impl<R: Read> Reader<R> {
    /// Begins to read a file.
    ///
    /// # Errors
    /// If it is not a pcap file, or reading failed.
    pub fn new(mut from: R) -> Result<Self, Error> {
        let mut header = [0; FILE_HEADER];
        from.read_exact(&mut header)?;
        let magic = field(&header, 0, false);
        let (swapped, resolution) = match (magic, magic.swap_bytes()) {
            (MAGIC_MICROS, _) => (false, Resolution::Micros),
            (MAGIC_NANOS, _) => (false, Resolution::Nanos),
            (_, MAGIC_MICROS) => (true, Resolution::Micros),
            (_, MAGIC_NANOS) => (true, Resolution::Nanos),
            _ => return Err(Error::NotPcap(magic)),
        };
        // The high bits of the link type's word say whether frames end in an FCS.
        let link = LinkType::from_number(field(&header, 5, swapped) & 0x0fff_ffff);
        Ok(Self { from, swapped, resolution, link })
    }

    /// What the packets begin with.
    pub fn link(&self) -> LinkType {
        self.link
    }

    /// In what unit the file counts time.
    pub fn resolution(&self) -> Resolution {
        self.resolution
    }

    /// The next packet; `None` at the end.
    ///
    /// # Errors
    /// If a record is malformed or cut, or reading failed.
    pub fn read(&mut self) -> Result<Option<Record>, Error> {
        let mut header = [0; RECORD_HEADER];
        if !self.read_or_end(&mut header)? {
            return Ok(None);
        }
        let word = |i| field(&header, i, self.swapped);
        let (seconds, part, kept) = (u64::from(word(0)), u64::from(word(1)), word(2));
        if kept > MAX_SNAPLEN {
            return Err(Error::TooLong(kept));
        }
        let mut bytes = vec![0; kept as usize];
        self.from.read_exact(&mut bytes)?;
        let ns = seconds * 1_000_000_000 + part * self.resolution.unit_ns();
        Ok(Some(Record { at: Instant::from_nanos(ns), original_len: word(3), bytes }))
    }

    /// Reads all of `buffer`, or nothing at the end of the file (false).
    fn read_or_end(&mut self, buffer: &mut [u8]) -> Result<bool, Error> {
        let mut have = 0;
        while have < buffer.len() {
            match self.from.read(&mut buffer[have..]) {
                Ok(0) if have == 0 => return Ok(false),
                Ok(0) => return Err(Error::Cut),
                Ok(n) => have += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(Error::Io(e)),
            }
        }
        Ok(true)
    }
}

impl<R: Read> Iterator for Reader<R> {
    type Item = Result<Record, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        self.read().transpose()
    }
}

/// The 32-bit word number `i` of a header.
fn field(header: &[u8], i: usize, swapped: bool) -> u32 {
    let word = header[i * 4..i * 4 + 4].try_into().map_or(0, u32::from_ne_bytes);
    if swapped { word.swap_bytes() } else { word }
}

/// A device that records both directions of another. It copies every packet:
/// for looking, not for speed.
pub struct Tap<D, W: Write, C> {
    device: D,
    writer: Writer<W>,
    clock: C,
    error: Option<io::Error>,
    packets: u64,
}

impl<D: Device, W: Write, C: FnMut() -> Instant> Tap<D, W, C> {
    /// Records what passes through `device` to `writer`; `clock` says when.
    pub fn new(device: D, writer: Writer<W>, clock: C) -> Self {
        Self { device, writer, clock, error: None, packets: 0 }
    }

    /// The device that is recorded.
    pub fn device(&mut self) -> &mut D {
        &mut self.device
    }

    /// Packets recorded.
    pub fn packets(&self) -> u64 {
        self.packets
    }

    /// Why recording stopped, if it did: after the first error packets pass, and
    /// are not recorded.
    pub fn error(&self) -> Option<&io::Error> {
        self.error.as_ref()
    }

    /// Ends the recording.
    ///
    /// # Errors
    /// The first error that writing gave.
    pub fn finish(self) -> io::Result<(D, W)> {
        match self.error {
            Some(e) => Err(e),
            None => Ok((self.device, self.writer.finish()?)),
        }
    }

    fn record(&mut self, packet: &[u8]) {
        if self.error.is_none() {
            let at = (self.clock)();
            match self.writer.write(at, packet) {
                Ok(()) => self.packets += 1,
                Err(e) => self.error = Some(e),
            }
        }
    }
}

impl<D: Device, W: Write, C: FnMut() -> Instant> Device for Tap<D, W, C> {
    fn capabilities(&self) -> &Capabilities {
        self.device.capabilities()
    }

    fn receive(&mut self, pool: &mut Pool, batch: &mut Batch) {
        let before = batch.len();
        self.device.receive(pool, batch);
        for packet in &batch[before..] {
            let mut bytes = pool.bytes(&packet.head).to_vec();
            for frame in packet.rest.iter().flat_map(|r| r.iter()) {
                bytes.extend_from_slice(pool.bytes(frame));
            }
            self.record(&bytes);
        }
    }

    fn transmit(&mut self, pool: &mut Pool, queue: &mut TxQueue) {
        // The device may complete what it takes, so the bytes are copied before.
        let waiting: Vec<_> = queue.iter().map(|d| (pool.tx_bytes(d).to_vec(), d.more)).collect();
        self.device.transmit(pool, queue);
        let taken = waiting.len() - queue.len();
        let mut packet = Vec::new();
        for (bytes, more) in &waiting[..taken] {
            packet.extend_from_slice(bytes);
            if !more {
                self.record(&packet);
                packet.clear();
            }
        }
    }

    fn reap(&mut self, pool: &mut Pool) {
        self.device.reap(pool);
    }

    fn refill(&mut self, pool: &mut Pool) {
        self.device.refill(pool);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::memory::{End, Wire, WireConfig};
    use crate::time::Duration;

    fn written(resolution: Resolution) -> Vec<u8> {
        let mut w = Writer::new(Vec::new(), LinkType::Ethernet, resolution, 100).unwrap();
        w.write(Instant::from_nanos(1_700_000_000_123_456_789), &[7; 60]).unwrap();
        w.write(Instant::from_nanos(1_700_000_001_000_000_999), &[8; 160]).unwrap();
        w.finish().unwrap()
    }

    #[test]
    fn what_is_written_is_read_in_both_resolutions() {
        for (resolution, lost) in [(Resolution::Nanos, 1), (Resolution::Micros, 1000)] {
            let file = written(resolution);
            let mut r = Reader::new(&file[..]).unwrap();
            assert_eq!((r.link(), r.resolution()), (LinkType::Ethernet, resolution));
            let first = r.read().unwrap().unwrap();
            assert_eq!(first.at.as_nanos() / lost, 1_700_000_000_123_456_789 / lost);
            assert_eq!(first.bytes, [7; 60]);
            let second = r.read().unwrap().unwrap();
            assert_eq!((second.bytes.len(), second.original_len), (100, 160));
            assert!(r.read().unwrap().is_none());
        }
    }

    #[test]
    fn a_file_of_the_other_byte_order_is_read() {
        let mut bytes = written(Resolution::Micros);
        let swap = |b: &mut [u8], width: usize| b.chunks_mut(width).for_each(<[u8]>::reverse);
        swap(&mut bytes[..4], 4);
        swap(&mut bytes[4..8], 2);
        swap(&mut bytes[8..24], 4);
        swap(&mut bytes[24..40], 4);
        swap(&mut bytes[100..116], 4);
        let all: Result<Vec<_>, _> = Reader::new(&bytes[..]).unwrap().collect();
        let all = all.unwrap();
        assert_eq!(all.len(), 2);
        assert_eq!(all[0].at.as_nanos(), 1_700_000_000_123_456_000);
        assert_eq!(all[1].bytes, [8; 100]);
    }

    #[test]
    fn a_bad_file_is_refused_by_name() {
        let bytes = written(Resolution::Nanos);
        assert!(matches!(Reader::new(&bytes[..20]), Err(Error::Cut)));
        assert!(matches!(Reader::new(&[0u8; 24][..]), Err(Error::NotPcap(0))));
        let ng = [0x0a, 0x0d, 0x0d, 0x0a].repeat(6);
        let text = Reader::new(&ng[..]).unwrap_err().to_string();
        assert!(text.contains("editcap"), "{text}");
        for cut in [30, 50, 110, 150] {
            let last = Reader::new(&bytes[..cut]).unwrap().last().unwrap();
            assert!(matches!(last, Err(Error::Cut)), "{cut}");
        }
        let mut long = bytes;
        long[32..36].copy_from_slice(&(MAX_SNAPLEN + 1).to_ne_bytes());
        assert!(matches!(Reader::new(&long[..]).unwrap().read(), Err(Error::TooLong(_))));
    }

    #[test]
    fn a_tap_records_both_directions_and_changes_nothing() {
        let (wire, device, _) = Wire::new(WireConfig { tx_ring: 2, ..Default::default() }, 1);
        let clock = wire.clone();
        let writer = Writer::new(Vec::new(), LinkType::RawIp, Resolution::Nanos, 0).unwrap();
        let mut tap = Tap::new(device, writer, move || clock.now());
        let mut pool = Pool::heap(8, 2048);
        let mut queue = TxQueue::new(8);
        for _ in 0..3 {
            let frame = pool.alloc().unwrap();
            queue.push(pool.transmit_and_free(frame, 60));
        }
        tap.refill(&mut pool);
        tap.transmit(&mut pool, &mut queue);
        assert_eq!((queue.len(), tap.packets()), (1, 2), "only what left is recorded");
        wire.advance(Instant::ZERO + Duration::from_millis(5));
        wire.send(End::B, &[9; 70]);
        let mut batch = Batch::new();
        tap.receive(&mut pool, &mut batch);
        batch.drain(..).for_each(|p| p.free(&mut pool));
        tap.reap(&mut pool);
        pool.assert_conserved();
        assert!(tap.error().is_none() && tap.capabilities().mtu == 1500);
        assert_eq!(tap.device().end(), End::A);
        let (_, file) = tap.finish().unwrap();
        let all: Vec<_> = Reader::new(&file[..]).unwrap().map(Result::unwrap).collect();
        assert_eq!(all.iter().map(|r| r.bytes.len()).collect::<Vec<_>>(), [60, 60, 70]);
        assert_eq!(all[2].at.as_nanos(), 5_000_000);
    }

    #[test]
    fn a_tap_whose_file_is_full_lets_packets_pass() {
        let (wire, device, _) = Wire::new(WireConfig::default(), 1);
        let full = &mut [0u8; 24][..];
        let writer = Writer::new(full, LinkType::Ethernet, Resolution::Micros, 0).unwrap();
        let mut tap = Tap::new(device, writer, || Instant::ZERO);
        let mut pool = Pool::heap(4, 2048);
        let mut queue = TxQueue::new(4);
        let frame = pool.alloc().unwrap();
        queue.push(pool.transmit_and_free(frame, 60));
        tap.transmit(&mut pool, &mut queue);
        assert!(tap.error().is_some());
        assert_eq!(wire.counts(End::A).sent, 1);
        assert!(tap.finish().is_err());
    }
}
