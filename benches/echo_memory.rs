//! TCP echo round trips in memory: two cores joined directly, no device, no
//! clock. The work is the same each time, so instructions can be counted:
//!
//! ```text
//! valgrind --tool=callgrind --toggle-collect='*round_trips*' target/release/deps/echo_memory-* 20000
//! ```
//!
//! Arguments: round trips (default 200,000), connections (1), bytes (64).

use ringroad::errno::Errno;
use ringroad::frame::{Batch, Packet, Pool};
use ringroad::socket::linux::*;
use ringroad::socket::{EpollEvent, Handle, Sockets};
use ringroad::stack::{Config, Mode, Stack};
use ringroad::time::{Duration, Instant};
use ringroad::wire::ethernet::Mac;
use std::net::{IpAddr, SocketAddr};

/// Connections to one port of the server's: the client has no more than 28,232 ports
/// for each.
const TO_A_PORT: usize = 20_000;
/// Requests under way at a time. With more connections than that they take turns:
/// were all of them to ask, a long queue would be measured.
pub const AT_ONCE: usize = 256;

fn core(host: u8, frames: u32) -> Sockets {
    let config = Config {
        mode: Mode::Owned,
        addresses: vec![(IpAddr::from([10, 0, 0, host]), 24)],
        mac: Mac([2, 0, 0, 0, 0, host]),
        ..Config::default()
    };
    Sockets::new(Stack::new(config, Pool::heap(frames, 2048), host.into()))
}

/// Moves all packets of one core to the other, by copying them: what a NIC would
/// do, and not counted as the stack's work (it is `carry` in a profile).
#[inline(never)]
fn carry(from: &mut Sockets, to: &mut Sockets, batch: &mut Batch) {
    let (pool, queue) = from.tx();
    while batch.remaining_capacity() > 0
        && let Some(desc) = queue.pop()
    {
        let mut frame = to.stack.core.pool.alloc().expect("frames enough");
        let bytes = pool.tx_bytes(&desc);
        let len = bytes.len();
        to.stack.core.pool.buffer_mut(&mut frame)[..len].copy_from_slice(bytes);
        frame.set_range(0, len);
        batch.push(Packet::single(frame));
        pool.complete(desc.index());
    }
}

struct Bench {
    client: Sockets,
    server: Sockets,
    now: Instant,
    batch: Batch,
    clients: Vec<Handle>,
    client_set: Handle,
    server_set: Handle,
    events: Vec<EpollEvent>,
    buffer: Vec<u8>,
    received: usize,
    /// Whose turn it is to ask.
    next: usize,
}

impl Bench {
    fn new(connections: usize, size: usize) -> Self {
        let frames = 4096 + 16 * connections as u32;
        let (mut client, mut server) = (core(1, frames), core(2, frames));
        let (client_set, server_set) =
            (client.epoll_create().expect("room"), server.epoll_create().expect("room"));
        let mut bench = Self {
            client,
            server,
            now: Instant::ZERO + Duration::from_secs(1),
            batch: Batch::new(),
            clients: Vec::new(),
            client_set,
            server_set,
            events: Vec::with_capacity(256),
            buffer: vec![7; size],
            received: 0,
            next: AT_ONCE,
        };
        bench.connect(connections);
        bench
    }

    fn connect(&mut self, connections: usize) {
        let at = |i: usize| SocketAddr::from(([10, 0, 0, 2], 7 + (i / TO_A_PORT) as u16));
        let listen = |i| {
            let listener = self.server.socket(AF_INET, SOCK_STREAM, 0).expect("a socket");
            self.server.bind(listener, at(i)).expect("a free port");
            self.server.listen(listener, 4096).expect("a listener");
            listener
        };
        let listeners: Vec<Handle> = (0..connections).step_by(TO_A_PORT).map(listen).collect();
        let mut accepted = 0;
        while accepted < connections {
            let i = self.clients.len();
            if i < connections {
                let h = self.client.socket(AF_INET, SOCK_STREAM, 0).expect("a socket");
                let begun = self.client.connect(h, at(i));
                assert_eq!(begun, Err(Errno::EINPROGRESS));
                self.clients.push(h);
            }
            self.exchange();
            // The one whose connection has just come in.
            let listener = listeners[accepted / TO_A_PORT];
            while let Ok((h, _)) = self.server.accept(listener) {
                self.server
                    .epoll_ctl(self.server_set, EPOLL_CTL_ADD, h, EPOLLIN, h.to_raw())
                    .expect("a member");
                accepted += 1;
            }
        }
        for &h in &self.clients {
            self.client
                .epoll_ctl(self.client_set, EPOLL_CTL_ADD, h, EPOLLIN, h.to_raw())
                .expect("a member");
        }
    }

    #[inline(never)]
    fn exchange(&mut self) {
        self.now += Duration::from_micros(1);
        self.client.turn(self.now);
        carry(&mut self.client, &mut self.server, &mut self.batch);
        self.server.receive(self.now, &mut self.batch);
        self.serve();
        self.now += Duration::from_micros(1);
        self.server.turn(self.now);
        carry(&mut self.server, &mut self.client, &mut self.batch);
        self.client.receive(self.now, &mut self.batch);
    }

    /// The server's program: echoes what came.
    #[inline(never)]
    fn serve(&mut self) {
        let Self { server, events, buffer, .. } = self;
        events.clear();
        let _n = server.epoll_wait(self.server_set, events, 64);
        for event in events.iter() {
            let h = Handle::from_raw(event.data);
            if let Ok(n) = server.recv(h, buffer, 0) {
                server.send(h, &buffer[..n], 0).expect("room to send");
            }
        }
    }

    /// The client's program: what came back goes out again, by the same connection or
    /// by the one whose turn it is.
    #[inline(never)]
    fn ask(&mut self) {
        let Self { client, events, buffer, clients, next, .. } = self;
        let take_turns = clients.len() > AT_ONCE;
        events.clear();
        let _n = client.epoll_wait(self.client_set, events, 64);
        for event in events.iter() {
            let h = Handle::from_raw(event.data);
            if let Ok(n) = client.recv(h, buffer, 0) {
                assert_eq!(n, buffer.len());
                let mut to = h;
                if take_turns {
                    to = clients[*next];
                    *next = (*next + 1) % clients.len();
                }
                client.send(to, buffer, 0).expect("room to send");
                self.received += 1;
            }
        }
    }

    #[inline(never)]
    fn round_trips(&mut self, n: usize) {
        let end = self.received + n;
        while self.received < end {
            self.exchange();
            self.ask();
        }
    }

    fn start(&mut self) {
        for &h in self.clients.iter().take(AT_ONCE) {
            self.client.send(h, &self.buffer, 0).expect("room to send");
        }
        // Enough for the windows to open; at least twice on each connection.
        let n = self.clients.len();
        self.round_trips((200 * n).min(1_000_000).max(2 * n));
    }
}

/// The time of a round trip in nanoseconds, and the segments that the server
/// sent, those of the start included.
pub fn measure(trips: usize, connections: usize, size: usize) -> (f64, u64) {
    let mut bench = Bench::new(connections, size);
    bench.start();
    let before = std::time::Instant::now();
    bench.round_trips(trips);
    let each = before.elapsed().as_nanos() as f64 / trips as f64;
    (each, bench.server.stack.core.counters.tcp_segments_out)
}

fn main() {
    let numbers: Vec<usize> = std::env::args().skip(1).filter_map(|a| a.parse().ok()).collect();
    let trips = numbers.first().copied().unwrap_or(200_000);
    let connections = numbers.get(1).copied().unwrap_or(1).max(1);
    let size = numbers.get(2).copied().unwrap_or(64).clamp(1, 1448);
    let (each, segments) = measure(trips, connections, size);
    println!("{trips} round trips of {size} bytes, {connections} connections: {each:.0} ns each");
    println!("segments of the server, start included: {segments}");
}
