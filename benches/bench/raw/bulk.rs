//! Frames in one direction, as many as go.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

use ringroad::device::xdp::MAX_SINGLE_MTU;
use ringroad::frame::{Packet, Pool, TxQueue};

use super::{Port, RING, neighbour, packet};
use packet::{TCP_HEADERS, Way};

const PORT: u16 = 9_999;
/// Bytes of an Ethernet header, which MTUs do not count.
const ETHERNET: usize = 14;
/// Bytes that fit in a frame of the device.
const FRAME: usize = MAX_SINGLE_MTU + ETHERNET;
/// The sink is done when nothing has come for so long.
const SILENCE: Duration = Duration::from_millis(300);

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
    let until = Instant::now() + Duration::from_secs_f64(args.seconds);
    let mut sent = 0u64;
    while Instant::now() < until {
        port.receive();
        port.batch.drain(..).for_each(|other| other.free(&mut port.pool));
        // As many at a time as one kick takes.
        for _ in 0..64 {
            if !push(len, &mut port.pool, &mut port.out) {
                break;
            }
            sent += 1;
        }
        port.transmit();
    }
    println!("{{\"packets\":{sent}}}");
    Ok(())
}

/// Put a packet of `len` bytes into the queue, in as many frames as it needs.
fn push(len: usize, pool: &mut Pool, out: &mut TxQueue) -> bool {
    let frames = len.div_ceil(FRAME);
    if out.room() < frames || (pool.available() as usize) < frames {
        return false;
    }
    let mut left = len;
    while left > 0 {
        let part = left.min(FRAME);
        left -= part;
        let Some(frame) = pool.alloc() else { return false };
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
    let mut bytes = 0u64;
    loop {
        port.receive();
        let now = Instant::now();
        if !port.batch.is_empty() {
            first.get_or_insert(now);
            last = now;
        }
        for received in port.batch.drain(..) {
            bytes += payload(&received);
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
    println!("{{\"bytes\":{bytes},\"seconds\":{seconds:.6}}}");
    Ok(())
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
        assert!(push(FRAME, &mut pool, &mut out));
        assert!(push(2 * FRAME + 1, &mut pool, &mut out));
        let parts: Vec<(usize, bool)> = out.iter().map(|d| (d.len(), d.more)).collect();
        assert_eq!(parts, [(FRAME, false), (FRAME, true), (FRAME, true), (1, false)]);
        assert!(!push(1, &mut pool, &mut out), "no frame is left");
    }
}
