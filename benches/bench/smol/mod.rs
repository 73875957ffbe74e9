//! smoltcp as an echo server: on our AF_XDP device, so that only the stacks
//! differ, and on AF_PACKET, where it usually runs on Linux.
//!
//! Received TCP checksums are not verified: veth leaves them partial, and smoltcp
//! knows no such form. That is in its favour. Its delayed ACK stays as it is.

mod device;

use std::net::Ipv4Addr;

use clap::ValueEnum;
use device::{Packets, Xdp};
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Checksum, ChecksumCapabilities, Device};
use smoltcp::socket::tcp::{Socket, SocketBuffer};
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, IpCidr};

/// Sockets that listen or are connected: it has no queue of connections to accept.
const SOCKETS: usize = 320;
const BUFFER: usize = 16 * 1024;

/// Echo TCP by smoltcp
#[derive(clap::Args, Debug)]
pub struct Args {
    #[arg(long, value_enum)]
    medium: Medium,
    #[arg(short, long)]
    interface: String,
    /// An address that the kernel does not have
    #[arg(long)]
    address: Ipv4Addr,
    #[arg(long)]
    port: u16,
}

/// What it runs on.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Medium {
    /// ringroad's device.
    Xdp,
    /// A packet socket.
    Packet,
}

/// Serve until the process is ended.
pub fn run(args: &Args) -> Result<(), String> {
    match args.medium {
        Medium::Xdp => {
            let mut device = Xdp::open(&args.interface, args.address)?;
            let mac = device.mac();
            println!("smoltcp on AF_XDP; {}; ready", device.mode());
            let mut server = Server::new(&mut device, mac, args);
            loop {
                device.receive_burst();
                server.turn(&mut device);
                device.transmit_burst();
            }
        }
        Medium::Packet => {
            let mut device = Packets::open(&args.interface)?;
            let mac = device.mac();
            println!("smoltcp on AF_PACKET; ready");
            let mut server = Server::new(&mut device, mac, args);
            loop {
                server.turn(&mut device);
            }
        }
    }
}

/// What smoltcp is told of checksums.
fn checksums() -> ChecksumCapabilities {
    let mut checksums = ChecksumCapabilities::default();
    checksums.tcp = Checksum::Tx;
    checksums
}

struct Server {
    interface: Interface,
    sockets: SocketSet<'static>,
    handles: Vec<SocketHandle>,
    port: u16,
    buffer: Vec<u8>,
}

impl Server {
    fn new(device: &mut impl Device, mac: [u8; 6], args: &Args) -> Self {
        let mut config = Config::new(EthernetAddress(mac).into());
        config.random_seed = u64::from(std::process::id());
        let mut interface = Interface::new(config, device, Instant::now());
        let address = IpCidr::new(args.address.into(), 24);
        interface.update_ip_addrs(|all| all.push(address).expect("room for one address"));
        let mut sockets = SocketSet::new(Vec::new());
        let handles = (0..SOCKETS).map(|_| sockets.add(listening(args.port))).collect();
        Self { interface, sockets, handles, port: args.port, buffer: vec![0; BUFFER] }
    }

    /// Take in what has come, answer it, and let it leave.
    fn turn(&mut self, device: &mut impl Device) {
        self.interface.poll(Instant::now(), device, &mut self.sockets);
        let mut answered = false;
        for &handle in &self.handles {
            let socket = self.sockets.get_mut::<Socket>(handle);
            if socket.can_recv() && socket.can_send() {
                let room = (socket.send_capacity() - socket.send_queue()).min(self.buffer.len());
                let n = socket.recv_slice(&mut self.buffer[..room]).unwrap_or(0);
                answered |= socket.send_slice(&self.buffer[..n]).is_ok();
            } else if socket.is_open() && socket.may_send() && !socket.may_recv() {
                socket.close();
                answered = true;
            } else if !socket.is_open() {
                // Closed: it listens again, for the next one.
                *socket = listening(self.port);
            }
        }
        if answered {
            self.interface.poll(Instant::now(), device, &mut self.sockets);
        }
    }
}

fn listening(port: u16) -> Socket<'static> {
    let buffer = || SocketBuffer::new(vec![0; BUFFER]);
    let mut socket = Socket::new(buffer(), buffer());
    socket.set_nagle_enabled(false);
    socket.listen(port).expect("a port that is not 0, and a new socket");
    socket
}
