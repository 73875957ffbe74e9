//! Frames in one direction, as many as go.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

use ringroad::device::xdp::MAX_SINGLE_MTU;
use ringroad::frame::{Packet, Pool, TxQueue};
use ringroad::wire::checksum;

use super::{Port, RING, neighbour, packet};
use packet::{HEADERS, TCP_HEADERS, Way};

const PORT: u16 = 9_999;
/// Bytes of an Ethernet header, which MTUs do not count.
const ETHERNET: usize = 14;
/// Bytes that fit in a frame of the device.
const FRAME: usize = MAX_SINGLE_MTU + ETHERNET;
/// The sink is done when nothing has come for so long.
const SILENCE: Duration = Duration::from_millis(300);
/// Bytes of the program whose data is sent, as in the transfers over sockets.
const CHUNK: usize = 256 * 1024;

/// Send frames as fast as they go, without a stack.
#[derive(clap::Args, Debug)]
pub struct SendArgs {
    #[arg(short, long)]
    interface: String,
    /// The interface's own address
    #[arg(long)]
    address: Ipv4Addr,
    #[arg(long)]
    to: SocketAddrV4,
    /// IP packets of so many bytes
    #[arg(long)]
    mtu: usize,
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// Write the payload of each packet, which is otherwise what it was the last time
    #[arg(long)]
    payload: bool,
}

/// Count frames, without a stack.
#[derive(clap::Args, Debug)]
pub struct SinkArgs {
    #[arg(short, long)]
    interface: String,
    /// The interface's own address
    #[arg(long)]
    address: Ipv4Addr,
    #[arg(long)]
    port: u16,
    /// Give up where nothing has come for so many seconds
    #[arg(long, default_value_t = 20)]
    limit: u64,
    /// Read every byte of payload
    #[arg(long)]
    payload: bool,
}

pub fn send(args: &SendArgs) -> Result<(), String> {
    let to_mac = neighbour(*args.to.ip())?;
    let mut port = Port::open(&args.interface, args.address, PORT, RING)?;
    let from = SocketAddrV4::new(args.address, PORT);
    let way = Way { from_mac: port.mac, to_mac, from, to: args.to };
    let len = args.mtu + ETHERNET;
    // Every frame is written once: what leaves again is as it was.
    let mut all = Vec::new();
    while let Some(mut frame) = port.pool.alloc() {
        packet::headers(port.pool.buffer_mut(&mut frame), &way, len);
        all.push(frame);
    }
    all.into_iter().for_each(|frame| port.pool.free(frame));
    let mut data = args.payload.then(|| Data::new(&way, len));
    let until = Instant::now() + Duration::from_secs_f64(args.seconds);
    let mut sent = 0u64;
    while Instant::now() < until {
        port.receive();
        port.batch.drain(..).for_each(|other| other.free(&mut port.pool));
        // As many at a time as one kick takes.
        for _ in 0..64 {
            if !push(len, data.as_mut(), &mut port.pool, &mut port.out) {
                break;
            }
            sent += 1;
        }
        port.transmit();
    }
    println!("{{\"packets\":{sent}}}");
    Ok(())
}

/// What a program sends: bytes that are copied into every packet, behind its headers.
struct Data {
    headers: [u8; HEADERS],
    bytes: Vec<u8>,
    at: usize,
}

impl Data {
    /// For packets of `len` bytes.
    fn new(way: &Way, len: usize) -> Self {
        let mut headers = [0; HEADERS];
        packet::headers(&mut headers, way, len);
        Self { headers, bytes: vec![7; CHUNK], at: 0 }
    }

    /// Fills a packet's next frame; `first`: with the headers, and room for those of
    /// TCP.
    fn fill(&mut self, mut frame: &mut [u8], first: bool) {
        if first {
            frame[..HEADERS].copy_from_slice(&self.headers);
            frame = &mut frame[TCP_HEADERS..];
        }
        if self.at + frame.len() > self.bytes.len() {
            self.at = 0;
        }
        frame.copy_from_slice(&self.bytes[self.at..][..frame.len()]);
        self.at += frame.len();
    }
}

/// Put a packet of `len` bytes into the queue, in as many frames as it needs, as they
/// are or filled with data.
fn push(len: usize, mut data: Option<&mut Data>, pool: &mut Pool, out: &mut TxQueue) -> bool {
    let frames = len.div_ceil(FRAME);
    if out.room() < frames || (pool.available() as usize) < frames {
        return false;
    }
    let mut left = len;
    while left > 0 {
        let part = left.min(FRAME);
        let Some(mut frame) = pool.alloc() else { return false };
        if let Some(data) = &mut data {
            data.fill(&mut pool.buffer_mut(&mut frame)[..part], left == len);
        }
        left -= part;
        let mut desc = pool.transmit_and_free(frame, part);
        desc.more = left > 0;
        out.push(desc);
    }
    true
}

pub fn sink(args: &SinkArgs) -> Result<(), String> {
    let mut port = Port::open(&args.interface, args.address, args.port, RING)?;
    println!("counting; {}; ready", port.mode());
    let began = Instant::now();
    let (mut first, mut last) = (None, began);
    let (mut bytes, mut sum) = (0u64, 0u64);
    loop {
        port.receive();
        let now = Instant::now();
        if !port.batch.is_empty() {
            first.get_or_insert(now);
            last = now;
        }
        for received in port.batch.drain(..) {
            bytes += payload(&received);
            if args.payload {
                sum += read(&port.pool, &received);
            }
            received.free(&mut port.pool);
        }
        port.transmit();
        match first {
            Some(_) if now - last > SILENCE => break,
            None if now - began > Duration::from_secs(args.limit) => return Err("nothing came".into()),
            _ => {}
        }
    }
    let seconds = first.map_or(0.0, |f| (last - f).as_secs_f64());
    // The sum is printed so that nothing of the reading can be left out.
    println!("{{\"bytes\":{bytes},\"seconds\":{seconds:.6},\"sum\":{sum}}}");
    Ok(())
}

/// The sum of all of a packet's bytes.
fn read(pool: &Pool, received: &Packet) -> u64 {
    received.iter().map(|frame| u64::from(checksum::sum(pool.bytes(frame)).fold())).sum()
}

/// What TCP with timestamps would carry in a packet of this length.
fn payload(received: &Packet) -> u64 {
    received.len().saturating_sub(TCP_HEADERS) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_takes_as_many_frames_as_it_needs() {
        let mut pool = Pool::heap(4, FRAME as u16);
        let mut out = TxQueue::new(8);
        assert!(push(FRAME, None, &mut pool, &mut out));
        assert!(push(2 * FRAME + 1, None, &mut pool, &mut out));
        let parts: Vec<(usize, bool)> = out.iter().map(|d| (d.len(), d.more)).collect();
        assert_eq!(parts, [(FRAME, false), (FRAME, true), (FRAME, true), (1, false)]);
        assert!(!push(1, None, &mut pool, &mut out), "no frame is left");
    }

    #[test]
    fn data_is_written_behind_the_headers_anew_in_every_frame() {
        let mut pool = Pool::heap(4, FRAME as u16);
        let mut out = TxQueue::new(8);
        let way = Way {
            from_mac: [2, 0, 0, 0, 0, 1],
            to_mac: [2, 0, 0, 0, 0, 2],
            from: "10.0.0.1:1000".parse().unwrap(),
            to: "10.0.0.2:7".parse().unwrap(),
        };
        let len = FRAME + 100;
        let mut data = Data::new(&way, len);
        for (i, byte) in data.bytes.iter_mut().enumerate() {
            *byte = (i % 251) as u8;
        }
        let mut at = 0;
        for _ in 0..2 * CHUNK / len {
            assert!(push(len, Some(&mut data), &mut pool, &mut out));
            let (first, second) = (out.pop().unwrap(), out.pop().unwrap());
            let bytes = [pool.tx_bytes(&first), pool.tx_bytes(&second)];
            assert!(packet::is_plain_udp(bytes[0]));
            for part in [&bytes[0][TCP_HEADERS..], bytes[1]] {
                // From the beginning again where the rest does not fill a frame.
                at = if at + part.len() > CHUNK { 0 } else { at };
                assert!(part.iter().enumerate().all(|(i, byte)| *byte == ((at + i) % 251) as u8));
                at += part.len();
            }
            pool.complete(first.index());
            pool.complete(second.index());
        }
    }
}
