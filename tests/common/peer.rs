//! The kernel's side of a conversation: sockets made inside a namespace, used
//! from the test's threads.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::{Bed, Side};

/// Nothing on a wire inside one machine takes so long.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A kernel TCP connection from the client's side.
#[track_caller]
pub fn connect(bed: &Bed, to: &str) -> TcpStream {
    let address: SocketAddr = to.parse().unwrap();
    let stream = bed
        .inside(Side::Client, || TcpStream::connect_timeout(&address, PATIENCE))
        .unwrap_or_else(|e| panic!("connect to {to}: {e}"));
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// A kernel UDP socket on the client's side, connected to `to`.
#[track_caller]
pub fn datagrams(bed: &Bed, to: &str) -> UdpSocket {
    let socket = bed.inside(Side::Client, || UdpSocket::bind("0.0.0.0:0")).unwrap();
    socket.connect(to).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    socket
}

/// Send `message` and read as many bytes back; they must be the same.
#[track_caller]
pub fn exchange(stream: &mut TcpStream, message: &[u8]) {
    stream.write_all(message).expect("write");
    let mut answer = vec![0; message.len()];
    stream.read_exact(&mut answer).expect("read the echo");
    assert!(answer == message, "the echo differs");
}

/// Closing this socket sends RST.
pub fn reset_on_close(stream: &TcpStream) {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    // SAFETY: `linger` is a live struct of the length that is given.
    let result = unsafe {
        libc::setsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            (&raw const linger).cast(),
            size_of::<libc::linger>() as libc::socklen_t,
        )
    };
    assert_eq!(result, 0);
}

/// Bytes that depend on their place in the stream, so that any loss, repeat or
/// change shows.
pub struct Bytes {
    state: u64,
}

impl Bytes {
    pub fn new(seed: u64) -> Self {
        Self { state: seed.wrapping_mul(2).wrapping_add(0x9e37_79b9_7f4a_7c15) }
    }

    /// The next bytes of the stream; a multiple of eight at a time.
    pub fn fill(&mut self, out: &mut [u8]) {
        for word in out.chunks_exact_mut(8) {
            self.state ^= self.state << 13;
            self.state ^= self.state >> 7;
            self.state ^= self.state << 17;
            word.copy_from_slice(&self.state.to_le_bytes());
        }
    }
}

const BLOCK: usize = 64 * 1024;

/// Send `blocks` blocks and read them back at the same time, each compared.
/// With `half_close` the sender ends its side and the end must come back too.
#[track_caller]
pub fn echo_stream(stream: TcpStream, blocks: usize, half_close: bool) {
    let mut writer = stream.try_clone().unwrap();
    let sender = thread::spawn(move || {
        let (mut bytes, mut block) = (Bytes::new(1), vec![0; BLOCK]);
        for _ in 0..blocks {
            bytes.fill(&mut block);
            writer.write_all(&block).expect("write");
        }
        if half_close {
            writer.shutdown(Shutdown::Write).expect("shutdown");
        }
    });
    let mut reader = stream;
    let (mut bytes, mut block, mut got) = (Bytes::new(1), vec![0; BLOCK], vec![0; BLOCK]);
    for i in 0..blocks {
        bytes.fill(&mut block);
        reader.read_exact(&mut got).unwrap_or_else(|e| panic!("block {i} of {blocks}: {e}"));
        assert!(got == block, "block {i} of {blocks} differs");
    }
    sender.join().unwrap();
    if half_close {
        assert_eq!(reader.read(&mut got).expect("the end"), 0, "nothing after the last byte");
    }
}

/// A TCP echo server on the kernel of one side. Its threads end with it.
pub struct Echo {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Echo {
    pub fn start(bed: &Bed, side: Side, port: u16) -> Self {
        let listener = bed.inside(side, || TcpListener::bind(("0.0.0.0", port))).unwrap();
        listener.set_nonblocking(true).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let flag = stop.clone();
        let thread = thread::spawn(move || {
            while !flag.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((stream, _)) => {
                        thread::spawn(move || echo(stream));
                    }
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => thread::sleep(Duration::from_millis(2)),
                    Err(e) => panic!("accept: {e}"),
                }
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

fn echo(mut stream: TcpStream) {
    let _ = stream.set_nonblocking(false);
    let _ = stream.set_nodelay(true);
    let mut buffer = vec![0; BLOCK];
    while let Ok(n @ 1..) = stream.read(&mut buffer) {
        if stream.write_all(&buffer[..n]).is_err() {
            return;
        }
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A TCP ping-pong between the two kernels that must never falter.
pub struct PingPong {
    stop: Arc<AtomicBool>,
    rounds: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
    _server: Echo,
}

impl PingPong {
    pub fn start(bed: &Bed, port: u16) -> Self {
        let server = Echo::start(bed, Side::Server, port);
        let mut stream = connect(bed, &format!("{}:{port}", super::SHARED));
        let (stop, rounds) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (flag, count) = (stop.clone(), rounds.clone());
        let thread = thread::spawn(move || {
            while !flag.load(Ordering::Relaxed) {
                exchange(&mut stream, b"the kernel's own conversation");
                count.fetch_add(1, Ordering::Relaxed);
                thread::sleep(Duration::from_millis(1));
            }
        });
        Self { stop, rounds, thread: Some(thread), _server: server }
    }

    /// It goes on: more rounds follow soon.
    #[track_caller]
    pub fn check(&self) {
        let before = self.rounds.load(Ordering::Relaxed);
        super::wait_until("the kernel's conversation goes on", Duration::from_secs(5), || {
            self.rounds.load(Ordering::Relaxed) > before + 3
        });
    }

    /// End it; it must have been whole to the end.
    #[track_caller]
    pub fn finish(mut self) {
        self.check();
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().expect("the kernel's conversation broke");
    }
}

impl Drop for PingPong {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
