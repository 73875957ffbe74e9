//! ringroad as one of the two.

use crate::script::Script;
use crate::{BUFFER, Host, OURS, PEER, PEER_PORT, PORT, State};
use ringroad::errno::Errno;
use ringroad::frame::{Batch, Packet, Pool};
use ringroad::socket::linux::*;
use ringroad::socket::{Handle, Sockets};
use ringroad::stack::{Config, Mode, Stack};
use ringroad::time::{Duration, Instant};
use std::net::SocketAddr;

pub struct Ringroad {
    sockets: Sockets,
    listener: Option<Handle>,
    stream: Option<Handle>,
    now: Instant,
}

fn at(ms: u64) -> Instant {
    Instant::ZERO + Duration::from_millis(ms)
}

impl Ringroad {
    pub fn new(script: &Script) -> Self {
        let mut config = Config {
            mode: Mode::Owned,
            addresses: vec![(OURS.into(), 24)],
            raw_ip: true,
            ..Config::default()
        };
        let options = &mut config.tcp.options;
        (options.receive_buffer, options.send_buffer) = (BUFFER as u32, BUFFER as u32);
        (options.nodelay, options.quick_ack) = (true, true);
        options.timestamps = false;
        options.sack = script.sack;
        config.tcp.max_receive_buffer = BUFFER as u32;
        let mut sockets = Sockets::new(Stack::new(config, Pool::heap(1024, 2048), script.seed));
        let socket = sockets.socket(AF_INET, SOCK_STREAM, 0).expect("a socket");
        sockets.bind(socket, SocketAddr::new(OURS.into(), PORT)).expect("bind");
        let (mut listener, mut stream) = (None, None);
        if script.passive {
            sockets.listen(socket, 8).expect("listen");
            listener = Some(socket);
        } else {
            let began = sockets.connect(socket, SocketAddr::new(PEER.into(), PEER_PORT));
            assert_eq!(began, Err(Errno::EINPROGRESS));
            stream = Some(socket);
        }
        Self { sockets, listener, stream, now: at(0) }
    }

    fn out(&mut self) -> Vec<Vec<u8>> {
        self.sockets.turn(self.now);
        let (pool, queue) = self.sockets.tx();
        let mut all = Vec::new();
        while let Some(desc) = queue.pop() {
            all.push(pool.tx_bytes(&desc).to_vec());
            pool.complete(desc.index());
        }
        all
    }

    fn stream(&mut self) -> Option<Handle> {
        if let Some(listener) = self.listener
            && self.stream.is_none()
            && let Ok((h, _)) = self.sockets.accept(listener)
        {
            self.stream = Some(h);
        }
        self.stream
    }
}

impl Host for Ringroad {
    fn input(&mut self, now: u64, packet: &[u8]) -> Vec<Vec<u8>> {
        self.now = self.now.max(at(now));
        let pool = &mut self.sockets.stack.core.pool;
        let mut frame = pool.alloc().expect("a frame");
        frame.set_range(64, packet.len());
        pool.bytes_mut(&mut frame).copy_from_slice(packet);
        let mut batch = Batch::new();
        batch.push(Packet::single(frame));
        self.sockets.receive(self.now, &mut batch);
        self.out()
    }

    fn pass(&mut self, now: u64) -> Vec<Vec<u8>> {
        let mut all = self.out();
        while let Some(next) = self.sockets.next_deadline()
            && next <= at(now)
        {
            self.now = self.now.max(next);
            all.extend(self.out());
        }
        self.now = self.now.max(at(now));
        all
    }

    fn write(&mut self, data: &[u8]) -> usize {
        let Some(h) = self.stream() else { return 0 };
        self.sockets.send(h, data, MSG_NOSIGNAL).unwrap_or(0)
    }

    fn read(&mut self) -> Vec<u8> {
        let Some(h) = self.stream() else { return Vec::new() };
        let mut buf = vec![0; 2 * BUFFER];
        let n = self.sockets.recv(h, &mut buf, 0).unwrap_or(0);
        buf.truncate(n);
        buf
    }

    fn shutdown(&mut self) {
        if let Some(h) = self.stream() {
            let _ = self.sockets.shutdown(h, SHUT_WR);
        }
    }

    fn abort(&mut self) {
        if let Some(h) = self.stream() {
            // As `connect` with AF_UNSPEC: an RST, and the handle stays.
            self.sockets.disconnect(h).expect("a stream can be disconnected");
        }
    }

    fn state(&mut self) -> State {
        let Some(h) = self.stream() else { return State::Opening };
        let mut info = [0; 128];
        self.sockets.get_option(h, IPPROTO_TCP, TCP_INFO, &mut info).expect("TCP_INFO");
        match info[0] {
            1 => State::Established,
            2 | 3 => State::Opening,
            4 => State::FinWait1,
            5 => State::FinWait2,
            6 => State::TimeWait,
            8 => State::CloseWait,
            9 => State::LastAck,
            11 => State::Closing,
            _ => State::Closed,
        }
    }
}
