//! Packets larger than a frame on a veth pair, against the kernel: at MTU 9000 they
//! consist of several, at 3,498 and 1,500 of one. Needs root.

mod bed;
mod common;

use common::capture::Capture;
use common::peer::{connect, datagrams, echo_stream, exchange};
use common::{Mode, Side};
use ringroad::device::Device;
use ringroad::device::xdp::{self, Addresses, XdpConfig, XdpDevice};
use ringroad::frame::Batch;
use ringroad::socket::linux::{AF_INET, SOCK_STREAM};
use ringroad::socket::{Handle, Sockets};
use ringroad::stack::{Config, Mode as StackMode, Stack};
use ringroad::time;
use ringroad::wire::ethernet::Mac;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

const ECHO: [&str; 4] = ["--tcp", "7", "--udp", "7"];

fn bed(mtu: &str, checksum: &str) -> common::Bed {
    common::Bed::with(&["--mtu", mtu, "--tx-checksum", checksum])
}

/// Packets of this socket's do not get cut.
fn dont_fragment(socket: &impl AsRawFd) {
    let to = libc::IP_PMTUDISC_DO;
    // SAFETY: the value lives through the call and its size is given.
    let n = unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, (&raw const to).cast(), 4)
    };
    assert_eq!(n, 0);
}

#[test]
fn pings_datagrams_and_streams_of_every_size_are_whole() {
    for (mtu, largest) in [("9000", 8972), ("3498", 3470)] {
        for mode in Mode::BOTH {
            let bed = bed(mtu, "off");
            let _server = bed.serve("echo", mode, &ECHO);
            let mut capture = Capture::start(&bed, 20_000);
            for size in [56, 3000, largest - 972, largest] {
                bed.shell(Side::Client, &format!("ping -q -c 2 -i 0.05 -W 2 -M do -s {size} {}", mode.address()));
            }
            let socket = datagrams(&bed, &format!("{}:7", mode.address()));
            dont_fragment(&socket);
            let mut buffer = vec![0; 70_000];
            for size in [1, 3000, 3470, 3471, 3798, 3799, 7638, 7639, 8000, 8972] {
                if size > largest {
                    continue;
                }
                let message: Vec<u8> = (0..size).map(|i| (i * 7) as u8).collect();
                socket.send(&message).unwrap();
                let n = socket.recv(&mut buffer).unwrap_or_else(|e| panic!("{mtu}, {mode:?}, {size} bytes: {e}"));
                assert!(buffer[..n] == message, "{mtu}, {mode:?}: {size} bytes differ");
            }
            let mut stream = connect(&bed, &format!("{}:7", mode.address()));
            for size in [1, 3000, 4000, 8948, 9000, 20_000] {
                exchange(&mut stream, &vec![size as u8; size]);
            }
            echo_stream(stream, 400, true);
            capture.check(mode.address());
            // Whole packets, and full ones among them.
            let ours = format!("ip.src == {}", mode.address());
            let cut = capture.select(&format!("{ours} && (ip.flags.mf == 1 || ip.frag_offset > 0)"));
            assert!(cut.trim().is_empty(), "fragments of ours at MTU {mtu}:\n{cut}");
            let full = capture.select(&format!("{ours} && tcp && ip.len == {mtu}"));
            assert!(!full.trim().is_empty(), "no full segment of ours at MTU {mtu}");
        }
    }
}

/// With its offloads on, a virtual interface hands over 64 KiB at once, whatever the MTU.
#[test]
fn what_the_kernels_offloads_make_of_a_stream_is_taken_too() {
    let bed = bed("9000", "on");
    let _server = bed.serve("echo", Mode::Shared, &ECHO);
    echo_stream(connect(&bed, &format!("{}:7", common::SHARED)), 1000, true);
}

/// A stack over a device, with a program that echoes one connection.
struct Echo {
    device: XdpDevice,
    sockets: Sockets,
    began: Instant,
    listener: Handle,
    stream: Option<Handle>,
    waiting: Vec<u8>,
    ended: bool,
}

impl Echo {
    fn open(mtu: usize) -> Self {
        let ours: IpAddr = "10.7.0.9".parse().unwrap();
        let mut config = XdpConfig::new(bed::Bed::OUR_IF, Addresses::Owned(vec![ours]));
        config.frames_per_queue = 4096;
        (config.rx_ring, config.tx_ring, config.fill_ring) = (1024, 1024, 1024);
        let (_, mut devices) = xdp::open(&config).unwrap();
        let (device, pool) = devices.pop().unwrap();
        let can = device.capabilities();
        assert_eq!((can.mtu, device.multi_buffer()), (mtu, mtu > 3498));
        let config = Config {
            mode: StackMode::Owned,
            addresses: vec![(ours, 24)],
            mac: Mac(can.mac),
            mtu,
            multi_buffer: device.multi_buffer(),
            partial_checksums: can.partial_checksums,
            ..Config::default()
        };
        let mut sockets = Sockets::new(Stack::new(config, pool, 1));
        let listener = sockets.socket(AF_INET, SOCK_STREAM, 0).unwrap();
        sockets.bind(listener, SocketAddr::new(ours, 7)).unwrap();
        sockets.listen(listener, 1).unwrap();
        let began = Instant::now();
        Self { device, sockets, began, listener, stream: None, waiting: Vec::new(), ended: false }
    }

    fn turn(&mut self) {
        let now = time::Instant::from_nanos(1 + self.began.elapsed().as_nanos() as u64);
        let mut batch = Batch::new();
        self.device.reap(&mut self.sockets.stack.core.pool);
        self.device.receive(&mut self.sockets.stack.core.pool, &mut batch);
        self.sockets.receive(now, &mut batch);
        self.program();
        self.sockets.turn(now);
        let core = &mut self.sockets.stack.core;
        self.device.transmit(&mut core.pool, &mut core.tx);
        self.device.refill(&mut core.pool);
        let held = self.sockets.stack.core.pool.counts().held as usize;
        assert_eq!(held, self.sockets.held_frames() + self.device.held_frames(), "frames held by nobody");
        self.sockets.stack.core.pool.assert_conserved();
    }

    fn program(&mut self) {
        let Some(h) = self.stream else {
            self.stream = self.sockets.accept(self.listener).ok().map(|(h, _)| h);
            return;
        };
        let mut buffer = vec![0; 256 << 10];
        if self.waiting.is_empty() && !self.ended {
            match self.sockets.recv(h, &mut buffer, 0) {
                Ok(0) => {
                    self.ended = true;
                    self.sockets.close(h).unwrap();
                }
                Ok(n) => self.waiting.extend_from_slice(&buffer[..n]),
                Err(_) => {}
            }
        }
        if !self.waiting.is_empty() && let Ok(n) = self.sockets.send(h, &self.waiting, 0) {
            self.waiting.drain(..n);
        }
    }
}

#[test]
fn every_frame_is_back_when_a_transfer_is_over() {
    for mtu in [9000, 3498, 1500] {
        let bed = bed::Bed::new(1);
        bed::enter(&bed.ours);
        bed::ip(&format!("-n {} link set {} mtu {mtu}", bed.ours, bed::Bed::OUR_IF));
        bed::ip(&format!("-n {} link set {} mtu {mtu}", bed.peer, bed::Bed::PEER_IF));
        let mut echo = Echo::open(mtu);
        let peer = bed.at_peer(move || {
            let stream = TcpStream::connect("10.7.0.9:7").unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            let data: Vec<u8> = (0..4_000_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
            let (mut writer, sent) = (stream.try_clone().unwrap(), data.clone());
            let writing = std::thread::spawn(move || {
                writer.write_all(&sent).unwrap();
                writer.shutdown(std::net::Shutdown::Write).unwrap();
            });
            let (mut back, mut reader) = (Vec::new(), stream);
            reader.read_to_end(&mut back).unwrap();
            writing.join().unwrap();
            back == data
        });
        let give_up = Instant::now() + Duration::from_secs(30);
        while !peer.is_finished() {
            assert!(Instant::now() < give_up, "{:?}", echo.device);
            echo.turn();
        }
        assert!(peer.join().unwrap(), "other bytes came back at MTU {mtu}");
        for _ in 0..100 {
            echo.turn();
        }
        let counts = echo.sockets.stack.core.pool.counts();
        assert_eq!((counts.held, counts.linked, counts.tx), (0, 0, 0), "{counts:?} at MTU {mtu}");
        let (figures, kernels) = (echo.device.figures(), echo.device.statistics().unwrap());
        assert_eq!((figures.tx_invalid, figures.rx_invalid, figures.rx_chain_too_long), (0, 0, 0));
        assert_eq!((kernels.tx_invalid, kernels.rx_invalid), (0, 0), "{kernels:?}");
    }
}
