//! Sends many bytes over one TCP connection, or takes them: over the kernel's
//! sockets or over ringroad's, by the same program, so that the two can be
//! compared. The receiver answers with the SHA-256 of what came, which the sender
//! compares with what it sent; its clock runs until it has that answer.
//!
//! ```text
//! cargo run --release --example bulk -- sink --port 5001
//! cargo run --release --example bulk -- send --to 10.0.0.1:5001 --bytes 100000000 --over eth0
//! ```

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::ops::ControlFlow;
use std::os::fd::AsRawFd;
use std::process::ExitCode;
use std::sync::mpsc::{self, Sender};
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use ringroad::errno::Errno;
use ringroad::runtime::{App, Config, Runtime, config};
use ringroad::socket::linux::{
    AF_INET, IPPROTO_TCP, MSG_NOSIGNAL, SHUT_WR, SO_REUSEADDR, SOCK_STREAM, SOL_SOCKET, TCP_CONGESTION, TCP_INFO,
};
use ringroad::socket::{Handle, Sockets};
use ringroad::time;
use sha2::{Digest, Sha256};

/// One bulk transfer over TCP, over the kernel or over ringroad.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    role: Role,
}

#[derive(Subcommand, Clone)]
enum Role {
    /// Connect and send
    Send {
        #[command(flatten)]
        common: Common,
        /// Where the other one listens
        #[arg(long)]
        to: SocketAddr,
        /// How many bytes
        #[arg(long, default_value_t = 100_000_000)]
        bytes: u64,
        /// What the bytes are drawn from
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Listen and receive
    Sink {
        #[command(flatten)]
        common: Common,
        /// Where to listen
        #[arg(long)]
        port: u16,
    },
}

#[derive(Args, Clone)]
struct Common {
    /// The interface to run ringroad on; without it, the kernel's sockets are used
    #[arg(long, value_name = "IFACE")]
    over: Option<String>,
    /// An address that is ringroad's alone, as ADDRESS/PREFIX
    #[arg(long, requires = "over", value_name = "CIDR")]
    address: Option<String>,
    /// The congestion control, by its name for TCP_CONGESTION
    #[arg(long)]
    congestion: Option<String>,
    /// Write what TCP_INFO says every few milliseconds to this file, a JSON object a line
    #[arg(long, value_name = "FILE")]
    samples: Option<String>,
    /// Milliseconds between samples
    #[arg(long, default_value_t = 10)]
    every: u64,
    /// Give up after so many seconds
    #[arg(long, default_value_t = 300)]
    limit: u64,
}

impl Role {
    fn common(&self) -> &Common {
        match self {
            Self::Send { common, .. } | Self::Sink { common, .. } => common,
        }
    }
}

// --- sockets, the kernel's and ours -------------------------------------------

/// A stream socket that never blocks.
trait Net {
    fn connect(&mut self, to: SocketAddr) -> io::Result<()>;
    /// Whether the connection is there.
    fn connected(&mut self) -> io::Result<bool>;
    fn listen(&mut self, port: u16) -> io::Result<()>;
    fn accept(&mut self) -> io::Result<()>;
    fn write(&mut self, data: &[u8]) -> io::Result<usize>;
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize>;
    fn end_of_writing(&mut self) -> io::Result<()>;
    fn get(&mut self, level: i32, name: i32, value: &mut [u8]) -> io::Result<usize>;
    fn close(&mut self);
}

#[derive(Default)]
struct Kernel {
    listener: Option<TcpListener>,
    stream: Option<TcpStream>,
    congestion: Option<String>,
}

impl Kernel {
    fn stream(&mut self) -> io::Result<&mut TcpStream> {
        self.stream.as_mut().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// The descriptor that the next step waits for, and for what.
    fn waits_for(&self, job: &Job) -> (i32, i16) {
        let fd = match (&self.stream, &self.listener) {
            (Some(stream), _) => stream.as_raw_fd(),
            (None, Some(listener)) => listener.as_raw_fd(),
            (None, None) => -1,
        };
        (fd, if matches!(job.state, State::Sending | State::Answering) { libc::POLLOUT } else { libc::POLLIN })
    }
}

impl Net for Kernel {
    fn connect(&mut self, to: SocketAddr) -> io::Result<()> {
        let stream = kernel_socket()?;
        if let Some(name) = &self.congestion {
            set_raw(&stream, IPPROTO_TCP, TCP_CONGESTION, name.as_bytes())?;
        }
        connect_raw(&stream, to)?;
        stream.set_nonblocking(true)?;
        self.stream = Some(stream);
        Ok(())
    }
    fn connected(&mut self) -> io::Result<bool> {
        Ok(true)
    }
    fn listen(&mut self, port: u16) -> io::Result<()> {
        let listener = TcpListener::bind(("0.0.0.0", port))?;
        if let Some(name) = &self.congestion {
            set_raw(&listener, IPPROTO_TCP, TCP_CONGESTION, name.as_bytes())?;
        }
        listener.set_nonblocking(true)?;
        self.listener = Some(listener);
        Ok(())
    }
    fn accept(&mut self) -> io::Result<()> {
        let listener = self.listener.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        let (stream, _) = listener.accept()?;
        stream.set_nonblocking(true)?;
        self.stream = Some(stream);
        Ok(())
    }
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.stream()?.write(data)
    }
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream()?.read(buffer)
    }
    fn end_of_writing(&mut self) -> io::Result<()> {
        self.stream()?.shutdown(std::net::Shutdown::Write)
    }
    fn get(&mut self, level: i32, name: i32, value: &mut [u8]) -> io::Result<usize> {
        let mut len = value.len() as libc::socklen_t;
        let fd = self.stream()?.as_raw_fd();
        // SAFETY: `value` and `len` are live and say how much may be written.
        let got = unsafe { libc::getsockopt(fd, level, name, value.as_mut_ptr().cast(), &mut len) };
        if got < 0 { Err(io::Error::last_os_error()) } else { Ok(len as usize) }
    }
    fn close(&mut self) {
        (self.stream, self.listener) = (None, None);
    }
}

fn kernel_socket() -> io::Result<TcpStream> {
    // SAFETY: no pointers; the result is checked before use.
    let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new stream socket that belongs to nobody else.
    Ok(unsafe { std::os::fd::FromRawFd::from_raw_fd(fd) })
}

fn set_raw(socket: &impl AsRawFd, level: i32, name: i32, value: &[u8]) -> io::Result<()> {
    let (at, len) = (value.as_ptr().cast(), value.len() as libc::socklen_t);
    // SAFETY: the value is live and of this length.
    let set = unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, at, len) };
    if set < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn connect_raw(stream: &TcpStream, to: SocketAddr) -> io::Result<()> {
    let SocketAddr::V4(to) = to else { return Err(io::ErrorKind::Unsupported.into()) };
    let raw = libc::sockaddr_in {
        sin_family: libc::AF_INET as u16,
        sin_port: to.port().to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from(*to.ip()).to_be() },
        sin_zero: [0; 8],
    };
    let len = size_of::<libc::sockaddr_in>() as libc::socklen_t;
    // SAFETY: `raw` is a live address of `len` bytes.
    let done = unsafe { libc::connect(stream.as_raw_fd(), (&raw const raw).cast(), len) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Our stack, for one turn.
struct Ours<'a> {
    sockets: &'a mut Sockets,
    listener: &'a mut Option<Handle>,
    stream: &'a mut Option<Handle>,
    congestion: Option<&'a str>,
}

fn io(error: Errno) -> io::Error {
    io::Error::from_raw_os_error(error.raw())
}

impl Ours<'_> {
    fn stream(&self) -> io::Result<Handle> {
        self.stream.ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    fn socket(&mut self) -> io::Result<Handle> {
        let socket = self.sockets.socket(AF_INET, SOCK_STREAM, 0).map_err(io)?;
        if let Some(name) = self.congestion {
            self.sockets.set_option(socket, IPPROTO_TCP, TCP_CONGESTION, name.as_bytes()).map_err(io)?;
        }
        Ok(socket)
    }
}

impl Net for Ours<'_> {
    fn connect(&mut self, to: SocketAddr) -> io::Result<()> {
        let socket = self.socket()?;
        *self.stream = Some(socket);
        match self.sockets.connect(socket, to) {
            Ok(()) | Err(Errno::EINPROGRESS) => Ok(()),
            Err(e) => Err(io(e)),
        }
    }
    fn connected(&mut self) -> io::Result<bool> {
        let stream = self.stream()?;
        if let Some(e) = self.sockets.take_error(stream).map_err(io)? {
            return Err(io(e));
        }
        match self.sockets.peer_addr(stream) {
            Ok(_) => Ok(true),
            Err(Errno::ENOTCONN) => Ok(false),
            Err(e) => Err(io(e)),
        }
    }
    fn listen(&mut self, port: u16) -> io::Result<()> {
        let socket = self.socket()?;
        self.sockets.set_option(socket, SOL_SOCKET, SO_REUSEADDR, &1i32.to_ne_bytes()).map_err(io)?;
        self.sockets.bind(socket, ([0, 0, 0, 0], port).into()).map_err(io)?;
        self.sockets.listen(socket, 1).map_err(io)?;
        *self.listener = Some(socket);
        Ok(())
    }
    fn accept(&mut self) -> io::Result<()> {
        let listener = self.listener.ok_or(io::ErrorKind::NotConnected)?;
        *self.stream = Some(self.sockets.accept(listener).map_err(io)?.0);
        Ok(())
    }
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let stream = self.stream()?;
        self.sockets.send(stream, data, MSG_NOSIGNAL).map_err(io)
    }
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let stream = self.stream()?;
        self.sockets.recv(stream, buffer, 0).map_err(io)
    }
    fn end_of_writing(&mut self) -> io::Result<()> {
        let stream = self.stream()?;
        self.sockets.shutdown(stream, SHUT_WR).map_err(io)
    }
    fn get(&mut self, level: i32, name: i32, value: &mut [u8]) -> io::Result<usize> {
        let stream = self.stream()?;
        self.sockets.get_option(stream, level, name, value).map_err(io)
    }
    fn close(&mut self) {
        for handle in [self.stream.take(), self.listener.take()].into_iter().flatten() {
            let _ = self.sockets.close(handle);
        }
    }
}

// --- the transfer --------------------------------------------------------------

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Start,
    Connecting,
    Listening,
    Sending,
    /// The sender waits for the sum and the end of the stream.
    Waiting,
    Receiving,
    Answering,
    /// The receiver waits until its answer was acknowledged.
    Draining,
    Done,
}

const BLOCK: usize = 64 * 1024;

/// One transfer, step by step.
struct Job {
    role: Role,
    state: State,
    /// Where the bytes come from.
    random: u64,
    block: Vec<u8>,
    /// What of the block is written.
    put: usize,
    moved: u64,
    sum: Sha256,
    digest: Vec<u8>,
    answer: Vec<u8>,
    began: Option<std::time::Instant>,
    seconds: f64,
    until: std::time::Instant,
    info: Info,
    congestion: String,
    samples: Option<BufWriter<File>>,
    next_sample: Option<std::time::Instant>,
}

impl Job {
    fn new(role: Role) -> io::Result<Self> {
        let samples = role.common().samples.as_ref().map(File::create).transpose()?.map(BufWriter::new);
        let seed = if let Role::Send { seed, .. } = role { seed } else { 0 };
        let until = std::time::Instant::now() + Duration::from_secs(role.common().limit);
        Ok(Self {
            role,
            state: State::Start,
            random: seed.wrapping_mul(2).wrapping_add(0x9e37_79b9_7f4a_7c15),
            block: vec![0; BLOCK],
            put: BLOCK,
            moved: 0,
            sum: Sha256::new(),
            digest: Vec::new(),
            answer: Vec::new(),
            began: None,
            seconds: 0.0,
            until,
            info: Info::default(),
            congestion: String::new(),
            samples,
            next_sample: None,
        })
    }

    /// Goes as far as it can without waiting.
    fn turn(&mut self, net: &mut impl Net) -> io::Result<()> {
        self.sample(net)?;
        if std::time::Instant::now() > self.until {
            return Err(io::Error::new(io::ErrorKind::TimedOut, format!("{:?} after {} bytes", self.state, self.moved)));
        }
        while self.state != State::Done {
            match self.step(net) {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(e) => return Err(io::Error::new(e.kind(), format!("{:?} after {} bytes: {e}", self.state, self.moved))),
            }
        }
        Ok(())
    }

    /// One step; false if it has to wait.
    fn step(&mut self, net: &mut impl Net) -> io::Result<bool> {
        match (self.state, &self.role) {
            (State::Start, Role::Send { to, .. }) => {
                net.connect(*to)?;
                self.state = State::Connecting;
            }
            (State::Start, Role::Sink { port, .. }) => {
                net.listen(*port)?;
                println!("ready");
                self.state = State::Listening;
            }
            (State::Connecting, _) => {
                if !net.connected()? {
                    return Ok(false);
                }
                self.begin(State::Sending);
            }
            (State::Listening, _) => {
                net.accept()?;
                self.begin(State::Receiving);
            }
            (State::Sending, Role::Send { bytes, .. }) => {
                let bytes = *bytes;
                self.send(net, bytes)?;
            }
            (State::Waiting, _) => {
                let mut buffer = [0; 64];
                match net.read(&mut buffer)? {
                    0 => self.finish(net, State::Done)?,
                    n => self.answer.extend_from_slice(&buffer[..n]),
                }
            }
            (State::Receiving, _) => self.receive(net)?,
            (State::Answering, _) => {
                let n = net.write(&self.answer)?;
                self.answer.drain(..n);
                if self.answer.is_empty() {
                    net.end_of_writing()?;
                    self.finish(net, State::Draining)?;
                }
            }
            (State::Draining, _) => {
                if self.read_info(net)?.unacked > 0 {
                    return Ok(false);
                }
                self.state = State::Done;
            }
            (State::Done, _) | (State::Sending, Role::Sink { .. }) => return Ok(false),
        }
        Ok(true)
    }

    fn begin(&mut self, state: State) {
        self.state = state;
        let now = std::time::Instant::now();
        self.began = Some(now);
        self.next_sample = self.samples.is_some().then_some(now);
    }

    fn finish(&mut self, net: &mut impl Net, state: State) -> io::Result<()> {
        self.seconds = self.began.map_or(0.0, |b| b.elapsed().as_secs_f64());
        self.info = self.read_info(net)?;
        let mut name = [0; 16];
        let n = net.get(IPPROTO_TCP, TCP_CONGESTION, &mut name)?;
        self.congestion = String::from_utf8_lossy(&name[..n]).trim_end_matches('\0').to_string();
        self.state = state;
        self.next_sample = None;
        Ok(())
    }

    fn send(&mut self, net: &mut impl Net, bytes: u64) -> io::Result<()> {
        if self.moved == bytes {
            self.digest = std::mem::take(&mut self.sum).finalize().to_vec();
            net.end_of_writing()?;
            self.state = State::Waiting;
            return Ok(());
        }
        if self.put == self.block.len() {
            self.block.truncate((bytes - self.moved).min(BLOCK as u64) as usize);
            for word in self.block.chunks_mut(8) {
                self.random ^= self.random << 13;
                self.random ^= self.random >> 7;
                self.random ^= self.random << 17;
                word.copy_from_slice(&self.random.to_le_bytes()[..word.len()]);
            }
            self.sum.update(&self.block);
            self.put = 0;
        }
        let n = net.write(&self.block[self.put..])?;
        self.put += n;
        self.moved += n as u64;
        Ok(())
    }

    fn receive(&mut self, net: &mut impl Net) -> io::Result<()> {
        match net.read(&mut self.block)? {
            0 => {
                self.digest = std::mem::take(&mut self.sum).finalize().to_vec();
                self.answer.clone_from(&self.digest);
                self.state = State::Answering;
            }
            n => {
                self.sum.update(&self.block[..n]);
                self.moved += n as u64;
            }
        }
        Ok(())
    }

    fn read_info(&self, net: &mut impl Net) -> io::Result<Info> {
        let mut raw = [0; 248];
        let n = net.get(IPPROTO_TCP, TCP_INFO, &mut raw)?;
        Ok(Info::read(&raw[..n]))
    }

    fn sample(&mut self, net: &mut impl Net) -> io::Result<()> {
        let now = std::time::Instant::now();
        let (Some(at), Some(began)) = (self.next_sample, self.began) else { return Ok(()) };
        if now < at {
            return Ok(());
        }
        self.next_sample = Some(now + Duration::from_millis(self.role.common().every));
        let info = self.read_info(net)?;
        if let Some(file) = &mut self.samples {
            writeln!(file, "{{\"s\":{:.4},\"bytes\":{},\"info\":{}}}", (now - began).as_secs_f64(), self.moved, info.json())?;
        }
        Ok(())
    }

    /// What came of it, as one line of JSON; an error where the sums differ.
    fn report(&mut self) -> Result<String, String> {
        if let Some(file) = &mut self.samples {
            file.flush().map_err(|e| e.to_string())?;
        }
        let hex: String = self.digest.iter().map(|b| format!("{b:02x}")).collect();
        if matches!(self.role, Role::Send { .. }) && self.answer != self.digest {
            return Err(format!("the receiver's SHA-256 is another: {:02x?}, not {hex}", self.answer));
        }
        let over = if self.role.common().over.is_some() { "ringroad" } else { "kernel" };
        let role = if matches!(self.role, Role::Send { .. }) { "send" } else { "sink" };
        Ok(format!(
            "{{\"role\":\"{role}\",\"over\":\"{over}\",\"congestion\":\"{}\",\"bytes\":{},\"seconds\":{:.6},\
             \"mbit_per_s\":{:.3},\"sha256\":\"{hex}\",\"info\":{}}}",
            self.congestion,
            self.moved,
            self.seconds,
            self.moved as f64 * 8e-6 / self.seconds.max(1e-9),
            self.info.json()
        ))
    }
}

/// The part of `struct tcp_info` that tells how a transfer went.
#[derive(Clone, Debug, Default)]
struct Info {
    unacked: u32,
    fields: Vec<(&'static str, u64)>,
}

impl Info {
    /// From the structure in Linux's layout, as far as it goes.
    fn read(raw: &[u8]) -> Self {
        let word = |at: usize| raw.get(at..at + 4).map_or(0, |b| u32::from_ne_bytes(b.try_into().expect("four")));
        let long = |at: usize| raw.get(at..at + 8).map_or(0, |b| u64::from_ne_bytes(b.try_into().expect("eight")));
        let mut fields = vec![("ca_state", u64::from(raw[1])), ("backoff", u64::from(raw[4]))];
        for (name, at) in [
            ("rto", 8), ("unacked", 24), ("sacked", 28), ("lost", 32), ("retrans", 36), ("rtt", 68), ("rttvar", 72),
            ("ssthresh", 76), ("cwnd", 80), ("reordering", 88), ("total_retrans", 100), ("segs_out", 136), ("segs_in", 140),
            ("min_rtt", 148), ("dsack_dups", 216), ("reord_seen", 220), ("rcv_ooopack", 224), ("snd_wnd", 228),
        ] {
            fields.push((name, word(at).into()));
        }
        for (name, at) in [
            ("pacing_rate", 104), ("delivery_rate", 160), ("busy_us", 168), ("rwnd_limited_us", 176),
            ("sndbuf_limited_us", 184), ("bytes_sent", 200), ("bytes_retrans", 208),
        ] {
            fields.push((name, long(at)));
        }
        Self { unacked: word(24), fields }
    }

    fn json(&self) -> String {
        let list: Vec<String> = self.fields.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
        format!("{{{}}}", list.join(","))
    }
}

// --- running it ----------------------------------------------------------------

fn over_kernel(job: &mut Job) -> io::Result<()> {
    let mut net = Kernel { congestion: job.role.common().congestion.clone(), ..Kernel::default() };
    loop {
        job.turn(&mut net)?;
        if job.state == State::Done {
            net.close();
            return Ok(());
        }
        let (fd, events) = net.waits_for(job);
        let wait = if job.samples.is_some() || job.state == State::Draining { 1 } else { 100 };
        let mut set = libc::pollfd { fd: if job.state == State::Draining { -1 } else { fd }, events, revents: 0 };
        // SAFETY: one live pollfd.
        unsafe { libc::poll(&mut set, 1, wait) };
    }
}

/// The transfer as a program on the stack's worker.
struct OnWorker {
    job: Option<Job>,
    stream: Option<Handle>,
    listener: Option<Handle>,
    done: Sender<(Job, io::Result<()>)>,
    now: time::Instant,
}

impl App for OnWorker {
    fn turn(&mut self, now: time::Instant, sockets: &mut Sockets) -> ControlFlow<()> {
        self.now = now;
        let Some(mut job) = self.job.take() else { return ControlFlow::Break(()) };
        let congestion = job.role.common().congestion.clone();
        let (listener, stream) = (&mut self.listener, &mut self.stream);
        let mut net = Ours { sockets, listener, stream, congestion: congestion.as_deref() };
        let result = job.turn(&mut net);
        if result.is_ok() && job.state != State::Done {
            self.job = Some(job);
            return ControlFlow::Continue(());
        }
        net.close();
        let _ = self.done.send((job, result));
        ControlFlow::Break(())
    }

    fn next_deadline(&self) -> Option<time::Instant> {
        let sampled = self.job.as_ref().is_some_and(|j| j.samples.is_some() || j.state == State::Draining);
        Some(self.now + time::Duration::from_millis(if sampled { 1 } else { 100 }))
    }
}

/// How long a closed connection may take to end.
const GOODBYE: Duration = Duration::from_secs(2);

fn over_ringroad(job: Job, interface: &str) -> Result<Job, String> {
    let mut config = Config::from_env().map_err(|e| e.to_string())?;
    config.interface = interface.to_string();
    if let Some(address) = &job.role.common().address {
        config.addresses = config::parse_addresses(address).map_err(|e| e.to_string())?;
    }
    let runtime = Runtime::start(config).map_err(|e| e.to_string())?;
    let (done, result) = mpsc::channel();
    let job = std::sync::Mutex::new(Some(job));
    let ran = runtime.run(move |_worker, _sockets: &mut Sockets| OnWorker {
        job: job.lock().ok().and_then(|mut j| j.take()),
        stream: None,
        listener: None,
        done: done.clone(),
        now: time::Instant::ZERO,
    });
    runtime.shutdown(GOODBYE);
    ran.map_err(|e| e.to_string())?;
    let (job, result) = result.try_recv().map_err(|_| "the worker ended before the transfer".to_string())?;
    result.map(|()| job).map_err(|e| e.to_string())
}

fn run(role: Role) -> Result<String, String> {
    let mut job = Job::new(role).map_err(|e| e.to_string())?;
    match job.role.common().over.clone() {
        None => over_kernel(&mut job).map_err(|e| e.to_string())?,
        Some(interface) => job = over_ringroad(job, &interface)?,
    }
    job.report()
}

fn main() -> ExitCode {
    match run(Cli::parse().role) {
        Ok(report) => {
            println!("{report}");
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("bulk: {why}");
            ExitCode::FAILURE
        }
    }
}
