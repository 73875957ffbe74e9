//! Bulk transfers: one TCP connection, bytes in one direction for some time. The
//! same program over the kernel's sockets and over ours. The sink measures, from
//! the first byte to the end of the stream, and checks marks in what comes; sums
//! over all bytes would take more time than the transfer.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use ringroad::errno::Errno;
use ringroad::runtime::{App, Config, Runtime};
use ringroad::socket::linux::{AF_INET, MSG_NOSIGNAL, SHUT_WR, SO_REUSEADDR, SOCK_STREAM, SOL_SOCKET};
use ringroad::socket::{Handle, Sockets};
use ringroad::time;

/// Read and written at once.
const CHUNK: usize = 256 * 1024;
/// Every so many bytes of the stream there is a mark.
const BLOCK: u64 = 64 * 1024;
/// A transfer that has not moved for so long has failed.
const STALL: Duration = Duration::from_secs(10);
/// How long closed connections may take to end.
const GOODBYE: Duration = Duration::from_secs(1);

/// Send bytes over one connection.
#[derive(clap::Args, Debug, Clone)]
pub struct SendArgs {
    #[command(flatten)]
    over: OverArgs,
    #[arg(long)]
    to: SocketAddr,
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
}

/// Take the bytes of one connection.
#[derive(clap::Args, Debug, Clone)]
pub struct SinkArgs {
    #[command(flatten)]
    over: OverArgs,
    #[arg(long)]
    port: u16,
}

#[derive(clap::Args, Debug, Clone)]
struct OverArgs {
    /// The interface to run ringroad on; without it, the kernel's sockets are used
    #[arg(short, long)]
    interface: Option<String>,
    /// Borrow and lend frames instead of copying
    #[arg(long, requires = "interface")]
    lent: bool,
}

/// The bytes of marks that lie in `len` bytes of the stream from `at` on, as
/// (place among them, value). A mark is its block's number in eight bytes.
fn marks(at: u64, len: usize) -> impl Iterator<Item = (usize, u8)> {
    let end = at + len as u64;
    (at / BLOCK..end.div_ceil(BLOCK)).flat_map(move |block| {
        let bytes = block.to_le_bytes().into_iter().enumerate();
        bytes.filter_map(move |(i, byte)| {
            let place = block * BLOCK + i as u64;
            (at..end).contains(&place).then(|| ((place - at) as usize, byte))
        })
    })
}

fn put_marks(at: u64, buffer: &mut [u8]) {
    marks(at, buffer.len()).for_each(|(i, byte)| buffer[i] = byte);
}

fn marks_are_right(at: u64, data: &[u8]) -> bool {
    marks(at, data.len()).all(|(i, byte)| data[i] == byte)
}

/// The receiving end's account.
#[derive(Default)]
struct Account {
    bytes: u64,
    began: Option<Instant>,
}

impl Account {
    fn take(&mut self, data: &[u8]) -> io::Result<()> {
        self.began.get_or_insert_with(Instant::now);
        if !marks_are_right(self.bytes, data) {
            let why = format!("wrong bytes after {}", self.bytes);
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        self.bytes += data.len() as u64;
        Ok(())
    }

    /// `copied`: bytes of payload that our stack copied for the program.
    fn print(&self, copied: Option<u64>) {
        let seconds = self.began.map_or(0.0, |b| b.elapsed().as_secs_f64());
        let copied = copied.map_or(String::new(), |n| format!(",\"copied\":{n}"));
        println!("{{\"bytes\":{},\"seconds\":{seconds:.6}{copied}}}", self.bytes);
    }
}

/// Send.
pub fn send(args: &SendArgs) -> Result<(), String> {
    let Some(interface) = &args.over.interface else {
        return send_over_kernel(args).map_err(|e| e.to_string());
    };
    let (to, lent, time) = (args.to, args.over.lent, Duration::from_secs_f64(args.seconds));
    run(interface, move || End::Send(Sending { to, lent, time, until: None, sent: 0 }))
}

/// Take.
pub fn sink(args: &SinkArgs) -> Result<(), String> {
    let Some(interface) = &args.over.interface else {
        return sink_over_kernel(args.port).map_err(|e| e.to_string());
    };
    let (port, lent) = (args.port, args.over.lent);
    run(interface, move || End::Sink(Taking { port, lent, listener: None, account: Account::default() }))
}

fn send_over_kernel(args: &SendArgs) -> io::Result<()> {
    let mut stream = TcpStream::connect(args.to)?;
    stream.set_write_timeout(Some(STALL))?;
    let (mut buffer, mut sent) = (vec![7; CHUNK], 0);
    let until = Instant::now() + Duration::from_secs_f64(args.seconds);
    while Instant::now() < until {
        put_marks(sent, &mut buffer);
        sent += stream.write(&buffer)? as u64;
    }
    stream.shutdown(std::net::Shutdown::Write)?;
    // The sink closes when it has everything.
    stream.set_read_timeout(Some(STALL))?;
    stream.read(&mut buffer).map(drop)
}

fn sink_over_kernel(port: u16) -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))?;
    println!("ready");
    let (mut stream, _) = listener.accept()?;
    stream.set_read_timeout(Some(STALL))?;
    let (mut buffer, mut account) = (vec![0; CHUNK], Account::default());
    loop {
        match stream.read(&mut buffer)? {
            0 => break,
            n => account.take(&buffer[..n])?,
        }
    }
    account.print(None);
    Ok(())
}

struct Sending {
    to: SocketAddr,
    lent: bool,
    time: Duration,
    until: Option<Instant>,
    sent: u64,
}

struct Taking {
    port: u16,
    lent: bool,
    listener: Option<Handle>,
    account: Account,
}

/// One end of a transfer, as a program on a worker.
enum End {
    Send(Sending),
    Sink(Taking),
}

struct OnWorker {
    end: End,
    stream: Option<Handle>,
    buffer: Vec<u8>,
    moved: Instant,
}

fn io(error: Errno) -> io::Error {
    io::Error::from_raw_os_error(error.raw())
}

impl OnWorker {
    /// As far as it goes without waiting; true at the end.
    fn step(&mut self, sockets: &mut Sockets) -> io::Result<bool> {
        let Self { end, stream, buffer, moved } = self;
        let before = end.bytes();
        let done = match end {
            End::Send(s) => s.step(sockets, stream, buffer),
            End::Sink(s) => s.step(sockets, stream, buffer),
        };
        let waits = stream.is_none(); // a sink whom nobody has called yet
        if end.bytes() != before || waits {
            *moved = Instant::now();
        }
        match done {
            Err(Errno::EAGAIN | Errno::EINPROGRESS) if moved.elapsed() > STALL => Err(io::ErrorKind::TimedOut.into()),
            Err(Errno::EAGAIN | Errno::EINPROGRESS) => Ok(false),
            Err(Errno::EPROTO) => Err(io::Error::new(io::ErrorKind::InvalidData, "wrong bytes")),
            done => done.map_err(io),
        }
    }
}

impl End {
    fn bytes(&self) -> u64 {
        match self {
            Self::Send(s) => s.sent,
            Self::Sink(s) => s.account.bytes,
        }
    }
}

impl Sending {
    fn step(&mut self, sockets: &mut Sockets, stream: &mut Option<Handle>, buffer: &mut [u8]) -> Result<bool, Errno> {
        let Some(socket) = *stream else {
            let socket = sockets.socket(AF_INET, SOCK_STREAM, 0)?;
            *stream = Some(socket);
            return sockets.connect(socket, self.to).map(|()| false);
        };
        if let Some(error) = sockets.take_error(socket)? {
            return Err(error);
        }
        if sockets.peer_addr(socket).is_err() {
            return Err(Errno::EAGAIN);
        }
        let until = *self.until.get_or_insert_with(|| Instant::now() + self.time);
        if Instant::now() >= until {
            // The time is up: the end, and then the sink's.
            self.finish(sockets, socket)?;
            let done = sockets.recv(socket, buffer, 0)? == 0;
            if done {
                println!("{{\"copied\":{}}}", sockets.stack.core.counters.tx_copied_bytes);
            }
            return Ok(done);
        }
        loop {
            self.sent += if self.lent { self.lend(sockets, socket)? } else {
                put_marks(self.sent, buffer);
                sockets.send(socket, buffer, MSG_NOSIGNAL)? as u64
            };
        }
    }

    fn finish(&mut self, sockets: &mut Sockets, socket: Handle) -> Result<(), Errno> {
        if self.time != Duration::ZERO {
            self.time = Duration::ZERO;
            self.until = Some(Instant::now());
            sockets.shutdown(socket, SHUT_WR)?;
        }
        Ok(())
    }

    /// One frame, filled in its place: only with marks, as if the rest had come
    /// there without the processor (from a disk).
    fn lend(&self, sockets: &mut Sockets, socket: Handle) -> Result<u64, Errno> {
        let mut frame = sockets.zc_alloc(socket)?;
        let len = frame.len();
        put_marks(self.sent, sockets.stack.core.pool.bytes_mut(&mut frame));
        match sockets.zc_send(socket, frame) {
            Ok(()) => Ok(len as u64),
            Err((error, frame)) => sockets.zc_release(socket, frame).and(Err(error)),
        }
    }
}

impl Taking {
    fn step(&mut self, sockets: &mut Sockets, stream: &mut Option<Handle>, buffer: &mut [u8]) -> Result<bool, Errno> {
        let Some(listener) = self.listener else {
            let listener = sockets.socket(AF_INET, SOCK_STREAM, 0)?;
            sockets.set_option(listener, SOL_SOCKET, SO_REUSEADDR, &1i32.to_ne_bytes())?;
            sockets.bind(listener, (Ipv4Addr::UNSPECIFIED, self.port).into())?;
            sockets.listen(listener, 1)?;
            self.listener = Some(listener);
            println!("ready");
            return Ok(false);
        };
        let socket = match *stream {
            Some(socket) => socket,
            None => *stream.insert(sockets.accept(listener)?.0),
        };
        loop {
            let done = if self.lent { self.borrow(sockets, socket)? } else {
                let n = sockets.recv(socket, buffer, 0)?;
                self.account.take(&buffer[..n]).map_err(|_| Errno::EPROTO)?;
                n == 0
            };
            if done {
                self.account.print(Some(sockets.stack.core.counters.rx_copied_bytes));
                return Ok(true);
            }
        }
    }

    /// One frame; true at the end.
    fn borrow(&mut self, sockets: &mut Sockets, socket: Handle) -> Result<bool, Errno> {
        let frame = match sockets.zc_recv(socket) {
            Ok(frame) => frame,
            Err(Errno::ESHUTDOWN) => return Ok(true),
            Err(error) => return Err(error),
        };
        let right = self.account.take(sockets.stack.core.pool.bytes(&frame));
        sockets.zc_release(socket, frame)?;
        right.map(|()| false).map_err(|_| Errno::EPROTO)
    }
}

impl App for OnWorker {
    fn turn(&mut self, _: time::Instant, sockets: &mut Sockets) -> ControlFlow<()> {
        match self.step(sockets) {
            Ok(false) => return ControlFlow::Continue(()),
            Ok(true) => {}
            Err(why) => eprintln!("transfer: {why} after {} bytes", self.end.bytes()),
        }
        if let Some(socket) = self.stream.take() {
            let _ = sockets.close(socket);
        }
        ControlFlow::Break(())
    }
}

fn run(interface: &str, end: impl Fn() -> End + Send + Sync) -> Result<(), String> {
    let mut config = Config::from_env().map_err(|e| e.to_string())?;
    config.interface = interface.to_string();
    let runtime = Runtime::start(config).map_err(|e| e.to_string())?;
    let make = |_worker: usize, _: &mut Sockets| OnWorker {
        end: end(),
        stream: None,
        buffer: vec![7; CHUNK],
        moved: Instant::now(),
    };
    let ran = runtime.run(make);
    runtime.shutdown(GOODBYE);
    ran.map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_found_however_the_stream_is_cut() {
        let len = 3 * BLOCK as usize + 100;
        let mut stream = vec![9; len];
        put_marks(0, &mut stream);
        assert_eq!(stream[BLOCK as usize..][..9], [1, 0, 0, 0, 0, 0, 0, 0, 9]);
        for step in [1, 5, 1448, 70_000] {
            let mut again = vec![9; len];
            for (i, piece) in again.chunks_mut(step).enumerate() {
                put_marks((i * step) as u64, piece);
            }
            assert_eq!(again, stream, "in pieces of {step}");
            let mut account = Account::default();
            stream.chunks(step).for_each(|piece| account.take(piece).unwrap());
            assert_eq!(account.bytes, len as u64);
        }
    }

    #[test]
    fn bytes_that_moved_are_noticed() {
        let mut stream = vec![9; 3 * BLOCK as usize];
        put_marks(0, &mut stream);
        stream.remove(100);
        assert!(!marks_are_right(0, &stream));
        let mut account = Account::default();
        assert!(stream.chunks(1000).any(|piece| account.take(piece).is_err()));
    }
}
