//! `ringroad echo`: sends back what it is sent, over TCP and UDP.

use std::ops::ControlFlow;
use std::process::ExitCode;

use ringroad::errno::{Errno, Result};
use ringroad::runtime::App;
use ringroad::socket::linux::{
    EPOLL_CTL_ADD, EPOLL_CTL_MOD, EPOLLIN, EPOLLOUT, IPPROTO_TCP, MSG_NOSIGNAL, TCP_NODELAY,
};
use ringroad::socket::{EpollEvent, Handle, SendMeta, Sockets};
use ringroad::time::Instant;

use crate::names;
use crate::stack::{self, LINGER, LOOK, StackArgs, Stopping};

/// Events taken in one turn.
const EVENTS: usize = 256;
/// Bytes read from a connection at once, and the most that one may owe its peer.
const CHUNK: usize = 64 * 1024;
/// Datagrams echoed in one go, before other sockets have their turn.
const DATAGRAMS: usize = 64;

/// Run an echo server for TCP and UDP.
#[derive(clap::Args, Debug)]
#[command(group = clap::ArgGroup::new("ports").required(true).multiple(true))]
pub struct Args {
    #[command(flatten)]
    stack: StackArgs,
    /// Echo TCP on this port, a number or a service name; repeatable
    #[arg(long, value_name = "PORT", value_parser = names::tcp_port, group = "ports")]
    tcp: Vec<u16>,
    /// Echo UDP on this port, a number or a service name; repeatable
    #[arg(long, value_name = "PORT", value_parser = names::udp_port, group = "ports")]
    udp: Vec<u16>,
}

/// Run the command.
///
/// # Errors
/// A sentence for the person who ran it.
pub fn run(args: &Args) -> std::result::Result<ExitCode, String> {
    let config = args.stack.config()?;
    let list = |name: &str, ports: &[u16]| ports.iter().map(|p| format!(" {name} {p}")).collect::<String>();
    let what = format!(
        "echo on {}:{}{}; workers {}, wait {}",
        config.interface,
        list("tcp", &args.tcp),
        list("udp", &args.udp),
        config.workers,
        config.wait
    );
    let (tcp, udp) = (args.tcp.clone(), args.udp.clone());
    stack::serve(config, &what, |sockets| Echo::new(sockets, &tcp, &udp))
}

/// A socket of the server's.
struct Entry {
    handle: Handle,
    what: What,
}

enum What {
    Listener,
    Datagrams,
    Stream(Stream),
}

/// A connection whose peer has not taken everything back yet owes `rest`; it is
/// not read from until that is gone.
#[derive(Default)]
struct Stream {
    rest: Vec<u8>,
    sent: usize,
}

/// The server of one worker.
pub struct Echo {
    set: Handle,
    /// By the sockets' places in their table.
    entries: Vec<Option<Entry>>,
    events: Vec<EpollEvent>,
    buffer: Vec<u8>,
    stopping: Stopping,
    now: Instant,
}

impl Echo {
    /// A server on these ports.
    ///
    /// # Errors
    /// A sentence about the port that cannot be had.
    pub fn new(sockets: &mut Sockets, tcp: &[u16], udp: &[u16]) -> std::result::Result<Self, String> {
        let set = sockets.epoll_create().map_err(|e| e.to_string())?;
        let mut echo = Self {
            set,
            entries: Vec::new(),
            events: Vec::with_capacity(EVENTS),
            buffer: vec![0; CHUNK],
            stopping: Stopping::default(),
            now: Instant::ZERO,
        };
        for &port in tcp {
            let socket = stack::listener(sockets, port)?;
            echo.add(sockets, socket, What::Listener).map_err(|e| e.to_string())?;
        }
        for &port in udp {
            let socket = stack::datagrams(sockets, port)?;
            echo.add(sockets, socket, What::Datagrams).map_err(|e| e.to_string())?;
        }
        Ok(echo)
    }

    fn add(&mut self, sockets: &mut Sockets, handle: Handle, what: What) -> Result<()> {
        let place = handle.index() as usize;
        if self.entries.len() <= place {
            self.entries.resize_with(place + 1, || None);
        }
        self.entries[place] = Some(Entry { handle, what });
        sockets.epoll_ctl(self.set, EPOLL_CTL_ADD, handle, EPOLLIN, handle.to_raw())
    }

    /// The connection of this handle; none if it was closed since.
    #[inline]
    fn stream(&mut self, socket: Handle) -> Option<&mut Stream> {
        match &mut self.entries[socket.index() as usize] {
            Some(Entry { handle, what: What::Stream(stream) }) if *handle == socket => Some(stream),
            _ => None,
        }
    }

    fn accept_all(&mut self, sockets: &mut Sockets, listener: Handle) {
        while let Ok((socket, _)) = sockets.accept(listener) {
            let ready = sockets
                .set_option(socket, IPPROTO_TCP, TCP_NODELAY, &1i32.to_ne_bytes())
                .and_then(|()| self.add(sockets, socket, What::Stream(Stream::default())));
            match ready {
                // Data often comes with the connection: answer it in this turn.
                Ok(()) => self.serve(sockets, socket),
                Err(_) => self.hang_up(sockets, socket),
            }
        }
    }

    fn hang_up(&mut self, sockets: &mut Sockets, socket: Handle) {
        self.entries[socket.index() as usize] = None;
        let _ = sockets.close(socket);
    }

    /// Read once and send it back, or go on sending what is owed.
    fn serve(&mut self, sockets: &mut Sockets, socket: Handle) {
        let Some(stream) = self.stream(socket) else { return };
        if !stream.rest.is_empty() {
            return self.send_rest(sockets, socket);
        }
        match sockets.recv(socket, &mut self.buffer, 0) {
            Ok(0) => self.hang_up(sockets, socket),
            Ok(n) => match sockets.send(socket, &self.buffer[..n], MSG_NOSIGNAL) {
                Ok(sent) if sent == n => {}
                Ok(sent) => self.owe(sockets, socket, sent..n),
                Err(Errno::EAGAIN) => self.owe(sockets, socket, 0..n),
                Err(_) => self.hang_up(sockets, socket),
            },
            Err(Errno::EAGAIN) => {}
            Err(_) => self.hang_up(sockets, socket),
        }
    }

    #[cold]
    fn owe(&mut self, sockets: &mut Sockets, socket: Handle, part: std::ops::Range<usize>) {
        if let Some(Entry { what: What::Stream(stream), .. }) = &mut self.entries[socket.index() as usize] {
            stream.rest.extend_from_slice(&self.buffer[part]);
            let _ = sockets.epoll_ctl(self.set, EPOLL_CTL_MOD, socket, EPOLLOUT, socket.to_raw());
        }
    }

    fn send_rest(&mut self, sockets: &mut Sockets, socket: Handle) {
        let Some(stream) = self.stream(socket) else { return };
        match sockets.send(socket, &stream.rest[stream.sent..], MSG_NOSIGNAL) {
            Ok(sent) => stream.sent += sent,
            Err(Errno::EAGAIN) => return,
            Err(_) => return self.hang_up(sockets, socket),
        }
        if stream.sent == stream.rest.len() {
            *stream = Stream::default();
            let _ = sockets.epoll_ctl(self.set, EPOLL_CTL_MOD, socket, EPOLLIN, socket.to_raw());
        }
    }

    fn echo_datagrams(&mut self, sockets: &mut Sockets, socket: Handle) {
        for _ in 0..DATAGRAMS {
            let Ok((n, meta)) = sockets.recv_from(socket, &mut self.buffer, 0) else { return };
            // The answer leaves from the address that was asked. One that finds no
            // room is lost, as datagrams are.
            let answer = SendMeta { source: Some(meta.to), ..SendMeta::default() };
            let _ = sockets.send_to(socket, &self.buffer[..n], 0, meta.from, &answer);
        }
    }

    #[cold]
    fn close_all(&mut self, sockets: &mut Sockets) {
        for entry in self.entries.drain(..).flatten() {
            let _ = sockets.close(entry.handle);
        }
        let _ = sockets.close(self.set);
    }
}

impl App for Echo {
    fn turn(&mut self, now: Instant, sockets: &mut Sockets) -> ControlFlow<()> {
        self.now = now;
        if self.stopping.begins(now, LINGER) {
            self.close_all(sockets);
        }
        if self.stopping.begun() {
            return if self.stopping.over(now) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
        }
        let mut events = std::mem::take(&mut self.events);
        events.clear();
        let _ = sockets.epoll_wait(self.set, &mut events, EVENTS);
        for event in &events {
            let socket = Handle::from_raw(event.data);
            let entry = self.entries.get(socket.index() as usize).and_then(Option::as_ref);
            match entry.filter(|e| e.handle == socket).map(|e| &e.what) {
                Some(What::Stream(_)) => self.serve(sockets, socket),
                Some(What::Listener) => self.accept_all(sockets, socket),
                Some(What::Datagrams) => self.echo_datagrams(sockets, socket),
                None => {}
            }
        }
        self.events = events;
        ControlFlow::Continue(())
    }

    fn next_deadline(&self) -> Option<Instant> {
        Some(self.now + LOOK)
    }
}
