//! Idle connections in memory: one stack, without device or clock, whose peers
//! are played by hand, so that nothing but the server's side is in the process.
//! Each connection has been asked once and has answered, unless nothing is to be
//! said on it; or it has been closed besides, and waits out its time. What is
//! counted is how much the process grew (RSS).

use std::fs;
use std::net::Ipv4Addr;

use ringroad::frame::{Batch, Packet, Pool};
use ringroad::socket::linux::{AF_INET, EPOLL_CTL_ADD, EPOLLIN, SOCK_STREAM};
use ringroad::socket::{EpollEvent, Handle, Sockets};
use ringroad::stack::{Config, Mode, Stack};
use ringroad::time::{Duration, Instant};
use ringroad::wire::tcp::{self, Flags, Options, Order, Segment};
use ringroad::wire::{checksum, ipv4};
use zerocopy::IntoBytes;

const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const PORT: u16 = 7;
/// Connections that are opened together.
const AT_ONCE: usize = 32;
/// Ports of each of the peers' addresses.
const PORTS: usize = 60_000;
const FRAMES: u32 = 4096;
const REQUEST: [u8; 64] = [7; 64];
/// The time between two things that happen: some 100,000 connections are opened in
/// a second.
const STEP: Duration = Duration::from_micros(50);

/// Open connections in memory, and say what they take.
#[derive(clap::Args, Debug)]
pub struct Args {
    #[arg(long, default_value_t = 1_000_000)]
    connections: usize,
    /// What has been done on each
    #[arg(long, value_enum, default_value_t = Done::Asked)]
    done: Done,
}

/// What has been done on each connection.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    /// Connected, and nothing else.
    Connected,
    /// Asked and answered.
    Asked,
    /// Asked, answered, and closed by the server: it is in TIME-WAIT.
    Closed,
}

impl Done {
    /// As the argument says it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Connected => "connected",
            Self::Asked => "asked",
            Self::Closed => "closed",
        }
    }
}

/// Bytes of this process that are in memory.
fn resident() -> Result<u64, String> {
    let text = fs::read_to_string("/proc/self/statm").map_err(|e| e.to_string())?;
    let pages: u64 = text.split_whitespace().nth(1).and_then(|n| n.parse().ok()).ok_or("/proc/self/statm")?;
    // SAFETY: takes no pointers.
    Ok(pages * unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as u64)
}

/// A peer: its place in the handshake.
#[derive(Clone, Copy)]
struct Peer {
    number: usize,
    seq: u32,
    ack: u32,
    /// The server's timestamp, to be echoed.
    echo: u32,
}

impl Peer {
    fn new(number: usize) -> Self {
        Self { number, seq: 1000, ack: 0, echo: 0 }
    }

    fn address(&self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 1, 0, 1)) + (self.number / PORTS) as u32)
    }

    fn port(&self) -> u16 {
        (1024 + self.number % PORTS) as u16
    }

    /// The IP packet of a segment of this peer's.
    fn packet(&self, flags: Flags, options: Options, payload: &[u8]) -> Vec<u8> {
        let segment = Segment {
            src_port: self.port(),
            dst_port: PORT,
            seq: self.seq,
            ack: self.ack,
            flags,
            window: 65_000,
            urgent: 0,
            options,
            header_len: 0,
            payload_len: 0,
            ce: false,
        };
        let mut out = vec![0; ipv4::HEADER_LEN + 60 + payload.len()];
        let (head, rest) = out.split_at_mut(ipv4::HEADER_LEN);
        let len = tcp::HEADER_LEN + segment.options.encode(Order::default()).len() + payload.len();
        let pseudo = checksum::pseudo_v4(self.address().octets(), SERVER.octets(), ipv4::TCP, len as u16);
        tcp::build(rest, &segment, Order::default(), pseudo, payload);
        let header = ipv4::Header::new(self.address(), SERVER, ipv4::TCP, len, 64, 0, 0, ipv4::DF);
        head.copy_from_slice(header.as_bytes());
        out.truncate(ipv4::HEADER_LEN + len);
        out
    }

    /// What goes with every segment but the SYN.
    fn timestamp(&self) -> Options {
        Options { timestamp: Some((2, self.echo)), ..Options::default() }
    }
}

/// Write to every frame, so that they are in memory before anything is counted.
fn touch(pool: &mut Pool) {
    let mut frames = Vec::new();
    while let Some(mut frame) = pool.alloc() {
        pool.buffer_mut(&mut frame).fill(0);
        frames.push(frame);
    }
    frames.into_iter().for_each(|frame| pool.free(frame));
}

struct Server {
    sockets: Sockets,
    listener: Handle,
    set: Handle,
    now: Instant,
    batch: Batch,
    buffer: Vec<u8>,
    events: Vec<EpollEvent>,
}

impl Server {
    fn new(connections: usize) -> Result<Self, String> {
        let mut config = Config {
            mode: Mode::Owned,
            addresses: vec![(SERVER.into(), 8)],
            raw_ip: true,
            ..Config::default()
        };
        config.table.max_connections = connections + AT_ONCE;
        config.table.max_sockets = connections + AT_ONCE;
        config.table.max_time_wait = connections + AT_ONCE;
        let mut sockets = Sockets::new(Stack::new(config, Pool::heap(FRAMES, 2048), 1));
        let text = |e: ringroad::errno::Errno| e.to_string();
        let listener = sockets.socket(AF_INET, SOCK_STREAM, 0).map_err(text)?;
        sockets.bind(listener, (SERVER, PORT).into()).map_err(text)?;
        sockets.listen(listener, 4096).map_err(text)?;
        let set = sockets.epoll_create().map_err(text)?;
        touch(&mut sockets.stack.core.pool);
        let now = Instant::ZERO + Duration::from_secs(1);
        let (batch, buffer, events) = (Batch::new(), vec![0; 4096], Vec::new());
        Ok(Self { sockets, listener, set, now, batch, buffer, events })
    }

    /// Give it a packet of each of these.
    fn deliver(&mut self, packets: impl Iterator<Item = Vec<u8>>) -> Result<(), String> {
        for packet in packets {
            let pool = &mut self.sockets.stack.core.pool;
            let mut frame = pool.alloc().ok_or("the pool has no frame left")?;
            pool.buffer_mut(&mut frame)[..packet.len()].copy_from_slice(&packet);
            frame.set_range(0, packet.len());
            self.batch.push(Packet::single(frame));
        }
        self.now += STEP;
        self.sockets.receive(self.now, &mut self.batch);
        Ok(())
    }

    /// Let it send; what it sent, as (port, segment).
    fn collect(&mut self) -> Result<Vec<(u16, Segment)>, String> {
        self.now += STEP;
        self.sockets.turn(self.now);
        let (pool, queue) = self.sockets.tx();
        let mut all = Vec::new();
        while let Some(desc) = queue.pop() {
            let ip = ipv4::parse(pool.tx_bytes(&desc)).map_err(|why| format!("it sent {why:?}"))?;
            let segment = tcp::parse(ip.payload).map_err(|why| format!("it sent {why:?}"))?;
            all.push((segment.dst_port, segment));
            pool.complete(desc.index());
        }
        Ok(all)
    }

    /// Accept, answer and watch (or close) the connections that are there; how many.
    fn serve(&mut self, done: Done) -> Result<usize, String> {
        let mut served = 0;
        while let Ok((socket, _)) = self.sockets.accept(self.listener) {
            let text = |e: ringroad::errno::Errno| e.to_string();
            served += 1;
            if done != Done::Connected {
                let n = self.sockets.recv(socket, &mut self.buffer, 0).map_err(text)?;
                self.sockets.send(socket, &self.buffer[..n], 0).map_err(text)?;
            }
            if done == Done::Closed {
                self.sockets.close(socket).map_err(text)?;
                continue;
            }
            self.sockets.epoll_ctl(self.set, EPOLL_CTL_ADD, socket, EPOLLIN, socket.to_raw()).map_err(text)?;
        }
        Ok(served)
    }

    /// Open connections `from..to`, and do on each what is to be done.
    fn open(&mut self, from: usize, to: usize, done: Done) -> Result<(), String> {
        let mut peers: Vec<Peer> = (from..to).map(Peer::new).collect();
        let syn = Options { mss: Some(1460), window_scale: Some(7), sack_permitted: true, timestamp: Some((1, 0)), ..Options::default() };
        self.deliver(peers.iter().map(|p| p.packet(Flags::SYN, syn.clone(), &[])))?;
        note(&mut peers, &self.collect()?, Flags::SYN)?;
        for peer in &mut peers {
            peer.seq += 1;
        }
        let connected = done == Done::Connected;
        let (flags, request) = if connected { (Flags::ACK, &[][..]) } else { (Flags::ACK | Flags::PSH, &REQUEST[..]) };
        self.deliver(peers.iter().map(|p| p.packet(flags, p.timestamp(), request)))?;
        let served = self.serve(done)?;
        if served != peers.len() {
            return Err(format!("{served} of {} connections were accepted", peers.len()));
        }
        if connected {
            return self.collect().map(drop);
        }
        let (last, flags) =
            if done == Done::Closed { (Flags::FIN, Flags::FIN | Flags::ACK) } else { (Flags::PSH, Flags::ACK) };
        note(&mut peers, &self.collect()?, last)?;
        for peer in &mut peers {
            peer.seq += REQUEST.len() as u32;
        }
        self.deliver(peers.iter().map(|p| p.packet(flags, p.timestamp(), &[])))?;
        self.collect().map(drop)
    }
}

/// Each peer hears the server's segment, which has to carry `flag`.
fn note(peers: &mut [Peer], sent: &[(u16, Segment)], flag: Flags) -> Result<(), String> {
    for peer in peers {
        let found = sent.iter().find(|(port, s)| *port == peer.port() && s.flags.contains(flag));
        let (_, segment) = found.ok_or_else(|| format!("connection {}: no {flag:?} came", peer.number))?;
        peer.ack = segment.seq.wrapping_add(segment.seq_len());
        peer.echo = segment.options.timestamp.map_or(0, |(value, _)| value);
    }
    Ok(())
}

/// Open them all, and print what they take.
pub fn run(args: &Args) -> Result<(), String> {
    let mut server = Server::new(args.connections)?;
    let before = resident()?;
    let mut open = 0;
    while open < args.connections {
        let to = args.connections.min(open + AT_ONCE);
        server.open(open, to, args.done)?;
        open = to;
    }
    let bytes = resident()?.saturating_sub(before);
    // All of them are there, and quiet.
    server.sockets.epoll_wait(server.set, &mut server.events, 1).map_err(|e| e.to_string())?;
    let (handles, waiting) = (server.sockets.open_handles(), server.sockets.stack.tcp.waiting());
    let (open, closed) = if args.done == Done::Closed { (0, args.connections) } else { (args.connections, 0) };
    if !server.events.is_empty() || handles != open + 2 || waiting != closed {
        return Err(format!("{handles} sockets are open, {} of them ready, {waiting} wait", server.events.len()));
    }
    println!("{{\"connections\":{},\"bytes\":{bytes}}}", args.connections);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_connection_is_opened_asked_and_left_idle() {
        let mut server = Server::new(100).unwrap();
        server.open(0, 32, Done::Asked).unwrap();
        server.open(32, 64, Done::Connected).unwrap();
        assert_eq!(server.sockets.open_handles(), 64 + 2);
        assert_eq!(server.sockets.held_frames(), 0, "idle connections hold no frame");
        assert!(server.open(10, 11, Done::Asked).is_err(), "this one is open already");
        server.open(64, 96, Done::Closed).unwrap();
        let table = &server.sockets.stack.tcp;
        assert_eq!((server.sockets.open_handles(), table.connections(), table.waiting()), (64 + 2, 64, 32));
    }
}
