//! The floor: programs on the bare device, without a stack. What they leave out
//! is exactly what a stack adds.

mod ask;
mod bulk;
mod packet;
mod reflect;

pub use ask::AskArgs;
pub use bulk::{SendArgs, SinkArgs};
pub use reflect::ReflectArgs;

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4, UdpSocket};
use std::time::{Duration, Instant};

use ringroad::device::Device;
use ringroad::device::xdp::{self, Addresses, Attach, Interface, MAX_SINGLE_MTU, Protocol, Steering, XdpConfig, XdpDevice};
use ringroad::frame::{Batch, Pool, TxQueue};

/// Entries of each ring, and frames for each entry, as ringroad's workers have
/// them: a larger set of frames would leave the processor's caches.
const RING: u32 = 2048;
const FRAMES_PER_ENTRY: u32 = 4;

/// Run a reflector until it is ended.
pub fn reflect(args: &ReflectArgs) -> Result<(), String> {
    reflect::run(args)
}

/// Run the client that measures round trips.
pub fn ask(args: &AskArgs) -> Result<(), String> {
    ask::run(args)
}

/// Send frames as fast as they go.
pub fn send(args: &SendArgs) -> Result<(), String> {
    bulk::send(args)
}

/// Count the frames that come.
pub fn sink(args: &SinkArgs) -> Result<(), String> {
    bulk::sink(args)
}

/// One queue of an interface, with everything that comes to one UDP port.
pub struct Port {
    pub device: XdpDevice,
    pub pool: Pool,
    pub out: TxQueue,
    pub batch: Batch,
    pub steering: Steering,
    pub mac: [u8; 6],
}

/// How the steering program is attached, by RINGROAD_MODE as for the stack.
pub fn attach() -> Result<Attach, String> {
    match std::env::var("RINGROAD_MODE").as_deref() {
        Ok("native") => Ok(Attach::Native),
        Ok("generic") => Ok(Attach::Generic),
        Ok("auto") | Err(_) => Ok(Attach::Auto),
        Ok(other) => Err(format!("RINGROAD_MODE={other}: use auto, native or generic")),
    }
}

impl Port {
    /// Takes UDP port `port` of the interface's own address.
    pub fn open(interface: &str, address: Ipv4Addr, port: u16, ring: u32) -> Result<Self, String> {
        let about = Interface::query(interface).map_err(|e| e.to_string())?;
        let mut config = XdpConfig::new(interface, Addresses::Shared(vec![IpAddr::V4(address)]));
        (config.rx_ring, config.tx_ring, config.fill_ring) = (ring, ring, ring);
        config.frames_per_queue = FRAMES_PER_ENTRY * ring;
        config.attach = attach()?;
        config.multi_buffer = Some(about.mtu > MAX_SINGLE_MTU);
        let (steering, devices) = xdp::open(&config).map_err(|e| e.to_string())?;
        let (device, pool) = devices.into_iter().next().ok_or("no queue was opened")?;
        steering.hold_port(Protocol::Udp, port);
        let (out, batch) = (TxQueue::new(ring as usize), Batch::new());
        Ok(Self { device, pool, out, batch, steering, mac: about.mac })
    }

    /// The receiving half of a turn: packets are in the batch.
    #[inline]
    pub fn receive(&mut self) {
        self.device.reap(&mut self.pool);
        self.device.receive(&mut self.pool, &mut self.batch);
    }

    /// The sending half.
    #[inline]
    pub fn transmit(&mut self) {
        self.device.transmit(&mut self.pool, &mut self.out);
        self.device.refill(&mut self.pool);
    }

    /// For people: how it runs.
    pub fn mode(&self) -> String {
        let attached = self.steering.mode().map_or("not attached".to_string(), |m| format!("{m} XDP"));
        format!("{attached}, {}", if self.device.zero_copy() { "zero-copy" } else { "copy mode" })
    }
}

/// The hardware address of a neighbour: the kernel is made to ask for it, by a
/// datagram to a port that nobody has.
fn neighbour(of: Ipv4Addr) -> Result<[u8; 6], String> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).map_err(|e| e.to_string())?;
    let until = Instant::now() + Duration::from_secs(3);
    loop {
        let _ = socket.send_to(&[0], SocketAddrV4::new(of, 9));
        let table = fs::read_to_string("/proc/net/arp").map_err(|e| e.to_string())?;
        if let Some(mac) = parse_arp(&table, of) {
            return Ok(mac);
        }
        if Instant::now() > until {
            return Err(format!("{of} does not answer ARP"));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// From `/proc/net/arp`: address, type, flags (2: complete), hardware address.
fn parse_arp(table: &str, of: Ipv4Addr) -> Option<[u8; 6]> {
    table.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (address, flags, mac) = (fields.first()?, fields.get(2)?, fields.get(3)?);
        let complete = u32::from_str_radix(flags.strip_prefix("0x")?, 16).ok()? & 2 != 0;
        if address.parse() != Ok(of) || !complete {
            return None;
        }
        let bytes: Vec<u8> = mac.split(':').filter_map(|b| u8::from_str_radix(b, 16).ok()).collect();
        bytes.try_into().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_that_are_complete() {
        let table = "IP address       HW type     Flags       HW address            Mask     Device\n\
                     10.77.0.3        0x1         0x0         00:00:00:00:00:00     *        veth0\n\
                     10.77.0.1        0x1         0x2         52:54:00:12:34:56     *        veth0\n";
        assert_eq!(parse_arp(table, [10, 77, 0, 1].into()), Some([0x52, 0x54, 0, 0x12, 0x34, 0x56]));
        assert_eq!(parse_arp(table, [10, 77, 0, 3].into()), None, "not complete");
        assert_eq!(parse_arp(table, [10, 77, 0, 4].into()), None);
    }
}
