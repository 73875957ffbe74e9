//! Two of our cores, joined directly: no device, no clock. The near one is what
//! is counted; packets cross, and the far one works, beside the meter.

use ringroad::frame::{Batch, Frame, Packet, Pool, TxDesc};
use ringroad::socket::linux::*;
use ringroad::socket::{EpollEvent, Handle, SendMeta, Sockets};
use ringroad::stack::{Config, Mode, Stack};
use ringroad::time::{Duration, Instant};
use ringroad::wire::ethernet::Mac;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};

/// Bytes of an echo.
pub const MESSAGE: usize = 64;
/// Bytes of a full segment: 1500 less the headers of IP and TCP with a timestamp.
pub const SEGMENT: usize = 1448;
/// Segments of a burst.
pub const BURST: usize = 32;
/// The near end.
pub const SERVER: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 1), 7));

/// Frames of a core.
pub const FRAMES: u32 = 4096;

/// What packets and frames there are, and what a burst is.
#[derive(Clone, Copy)]
pub struct Shape {
    mtu: usize,
    /// Bytes of a packet in a frame.
    frame: u16,
    /// Bytes of a full segment.
    pub segment: usize,
    /// Segments of a burst.
    pub burst: usize,
}

pub const PLAIN: Shape = Shape { mtu: 1500, frame: 2048, segment: SEGMENT, burst: BURST };
/// Packets of three buffers each, as AF_XDP hands them over.
pub const JUMBO: Shape = Shape { mtu: 9000, frame: 3840, segment: 8948, burst: 8 };

/// A core over these frames.
pub fn core(host: u8, pool: Pool) -> Sockets {
    shaped(host, pool, PLAIN)
}

fn shaped(host: u8, pool: Pool, shape: Shape) -> Sockets {
    let config = Config {
        mtu: shape.mtu,
        multi_buffer: shape.mtu > usize::from(shape.frame),
        mode: Mode::Owned,
        addresses: vec![(IpAddr::from([10, 0, 0, host]), 24)],
        mac: Mac([2, 0, 0, 0, 0, host]),
        ..Config::default()
    };
    Sockets::new(Stack::new(config, pool, host.into()))
}

/// A core, and the program on it.
pub struct End {
    pub sockets: Sockets,
    set: Handle,
    listener: Option<Handle>,
    events: Vec<EpollEvent>,
    buffer: Vec<u8>,
}

impl End {
    pub fn with_frames(host: u8, frames: u32, shape: Shape) -> Self {
        let mut sockets = shaped(host, Pool::heap(frames, shape.frame), shape);
        let set = sockets.epoll_create().expect("room");
        let buffer = vec![7; shape.burst * shape.segment];
        Self { sockets, set, listener: None, events: Vec::with_capacity(64), buffer }
    }

    pub fn watch(&mut self, h: Handle) {
        self.sockets.epoll_ctl(self.set, EPOLL_CTL_ADD, h, EPOLLIN, h.to_raw()).expect("a member");
    }

    pub fn listen(&mut self) {
        let h = self.sockets.socket(AF_INET, SOCK_STREAM, 0).expect("a socket");
        self.sockets.bind(h, SERVER).expect("a free port");
        self.sockets.listen(h, 128).expect("a listener");
        self.watch(h);
        self.listener = Some(h);
    }

    pub fn connect(&mut self, to: SocketAddr) -> Handle {
        let h = self.sockets.socket(AF_INET, SOCK_STREAM, 0).expect("a socket");
        let _in_progress = self.sockets.connect(h, to);
        h
    }

    /// A server's program: accepts, echoes, closes.
    pub fn serve(&mut self) {
        self.events.clear();
        let _n = self.sockets.epoll_wait(self.set, &mut self.events, 64);
        for i in 0..self.events.len() {
            let h = Handle::from_raw(self.events[i].data);
            if self.listener == Some(h) {
                while let Ok((new, _)) = self.sockets.accept(h) {
                    self.watch(new);
                }
                continue;
            }
            match self.sockets.recv(h, &mut self.buffer[..2 * MESSAGE], 0) {
                Ok(0) => self.sockets.close(h).expect("open"),
                Ok(n) => assert_eq!(self.sockets.send(h, &self.buffer[..n], 0), Ok(n)),
                Err(_) => {}
            }
        }
    }

    /// A program that asks: what came back goes out again. False: nothing came.
    pub fn ask(&mut self) -> bool {
        self.events.clear();
        let n = self.sockets.epoll_wait(self.set, &mut self.events, 64).unwrap_or(0);
        for i in 0..n {
            let h = Handle::from_raw(self.events[i].data);
            assert_eq!(self.sockets.recv(h, &mut self.buffer[..2 * MESSAGE], 0), Ok(MESSAGE));
            assert_eq!(self.sockets.send(h, &self.buffer[..MESSAGE], 0), Ok(MESSAGE));
        }
        n > 0
    }

    /// Sends the first message of a connection that asks.
    pub fn begin(&mut self, h: Handle) {
        assert_eq!(self.sockets.send(h, &self.buffer[..MESSAGE], 0), Ok(MESSAGE));
    }

    pub fn connect_datagrams(&mut self, to: SocketAddr) -> Handle {
        let h = self.sockets.socket(AF_INET, SOCK_DGRAM, 0).expect("a socket");
        self.sockets.connect(h, to).expect("a route");
        h
    }

    pub fn send_message(&mut self, h: Handle) {
        assert_eq!(self.sockets.send(h, &self.buffer[..MESSAGE], 0), Ok(MESSAGE));
    }

    pub fn read(&mut self, h: Handle) -> usize {
        self.sockets.recv(h, &mut self.buffer, 0).unwrap_or(0)
    }

    /// A server's program for datagrams.
    pub fn answer(&mut self) {
        self.events.clear();
        let _n = self.sockets.epoll_wait(self.set, &mut self.events, 64);
        for event in &self.events {
            let h = Handle::from_raw(event.data);
            if let Ok((n, meta)) = self.sockets.recv_from(h, &mut self.buffer[..2 * MESSAGE], 0) {
                let to = meta.from.expect("a sender");
                assert_eq!(self.sockets.send_to(h, &self.buffer[..n], 0, Some(to), &SendMeta::default()), Ok(n));
            }
        }
    }

    pub fn send_burst(&mut self, h: Handle) {
        assert_eq!(self.sockets.send(h, &self.buffer, 0), Ok(self.buffer.len()));
    }

    /// Reads all there is.
    pub fn drain(&mut self) -> usize {
        let mut all = 0;
        self.events.clear();
        let _n = self.sockets.epoll_wait(self.set, &mut self.events, 64);
        for event in &self.events {
            all += self.sockets.recv(Handle::from_raw(event.data), &mut self.buffer, 0).unwrap_or(0);
        }
        all
    }
}

/// Two ends and the wire between them.
pub struct Pair {
    pub near: End,
    pub far: End,
    pub now: Instant,
    pub batch: Batch,
    pub shape: Shape,
}

/// Moves up to `most` packets by copying them, as a NIC would.
pub fn carry(from: &mut Sockets, to: &mut Sockets, batch: &mut Batch, most: usize) {
    let (pool, queue) = from.tx();
    for _ in 0..most.min(batch.remaining_capacity()) {
        let Some(mut desc) = queue.pop() else { return };
        let mut packet = Packet::single(arrived(pool, &desc, to));
        while desc.more {
            desc = queue.pop().expect("the rest of a packet");
            let frame = arrived(pool, &desc, to);
            packet.push(frame, to.tx().0);
        }
        batch.push(packet);
    }
}

/// A buffer that has left has arrived, as a copy.
fn arrived(pool: &mut Pool, desc: &TxDesc, to: &mut Sockets) -> Frame {
    let bytes = pool.tx_bytes(desc);
    let mut frame = to.tx().0.alloc().expect("frames enough");
    to.tx().0.buffer_mut(&mut frame)[..bytes.len()].copy_from_slice(bytes);
    frame.set_range(0, bytes.len());
    pool.complete(desc.index());
    frame
}

impl Pair {
    pub fn new() -> Self {
        Self::shaped(PLAIN)
    }

    fn shaped(shape: Shape) -> Self {
        let now = Instant::ZERO + Duration::from_secs(1);
        let end = |host| End::with_frames(host, FRAMES, shape);
        Self { near: end(1), far: end(2), now, batch: Batch::new(), shape }
    }

    /// A near listener, and a connection of the far end's to it: the far handle,
    /// and the near one.
    pub fn connected(shape: Shape) -> (Self, Handle, Handle) {
        let mut pair = Self::shaped(shape);
        pair.near.listen();
        let far = pair.far.connect(SERVER);
        while pair.near.sockets.stack.tcp.connections() == 0 || !pair.far.sockets.is_delivered(far) {
            pair.far_turn();
            pair.carry_near(64);
            pair.near_turn();
            pair.carry_far(64);
            pair.far_receive();
        }
        pair.far_turn();
        pair.carry_near(64);
        pair.near_receive();
        let listener = pair.near.listener.expect("it listens");
        let (near, _) = pair.near.sockets.accept(listener).expect("a connection");
        pair.near.watch(near);
        pair.far.watch(far);
        (pair, far, near)
    }

    pub fn carry_near(&mut self, most: usize) {
        carry(&mut self.far.sockets, &mut self.near.sockets, &mut self.batch, most);
        self.now += Duration::from_micros(1);
    }

    pub fn carry_far(&mut self, most: usize) {
        carry(&mut self.near.sockets, &mut self.far.sockets, &mut self.batch, most);
        self.now += Duration::from_micros(1);
    }

    pub fn near_receive(&mut self) {
        self.near.sockets.receive(self.now, &mut self.batch);
    }

    pub fn near_turn(&mut self) {
        self.near_receive();
        self.near.sockets.turn(self.now);
    }

    /// What a server does with a batch.
    pub fn near_serves(&mut self) {
        self.near_receive();
        self.near.serve();
        self.near.sockets.turn(self.now);
    }

    pub fn far_receive(&mut self) {
        self.far.sockets.receive(self.now, &mut self.batch);
    }

    pub fn far_turn(&mut self) {
        self.far_receive();
        self.far.sockets.turn(self.now);
    }
}
