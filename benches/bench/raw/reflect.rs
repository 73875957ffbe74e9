//! The reflector: sends every frame back as it came, turned round in its place.

use std::net::Ipv4Addr;

use super::{Port, RING, packet};

/// Send frames back, without a stack.
#[derive(clap::Args, Debug)]
pub struct ReflectArgs {
    #[arg(short, long)]
    interface: String,
    /// The interface's own address
    #[arg(long)]
    address: Ipv4Addr,
    /// The UDP port whose frames are sent back
    #[arg(long)]
    port: u16,
    /// Entries of each ring, a power of two and more than are under way
    #[arg(long, default_value_t = RING)]
    ring: u32,
}

pub fn run(args: &ReflectArgs) -> Result<(), String> {
    let mut port = Port::open(&args.interface, args.address, args.port, args.ring)?;
    println!("reflecting; {}; ready", port.mode());
    loop {
        port.receive();
        turn_round(&mut port);
        port.transmit();
    }
}

/// Turn every received frame round. One that has no room to leave is dropped.
#[inline]
fn turn_round(port: &mut Port) {
    let Port { pool, out, batch, .. } = port;
    for mut received in batch.drain(..) {
        let plain = received.rest.is_none() && packet::is_plain_udp(pool.bytes(&received.head));
        // A frame leaves from its first byte, which is where the kernel puts packets.
        if !plain || received.head.offset() != 0 || out.room() == 0 {
            received.free(pool);
            continue;
        }
        packet::turn_round(pool.bytes_mut(&mut received.head));
        let len = received.head.len();
        out.push(pool.transmit_and_free(received.head, len));
    }
}
