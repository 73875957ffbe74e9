//! A server of ours that answers once on each connection and ends it: what
//! `kernel_echo --once` is on the kernel's sockets.

use std::net::Ipv4Addr;
use std::ops::ControlFlow;

use ringroad::errno::{Errno, Result};
use ringroad::runtime::{self, App, Config};
use ringroad::socket::linux::{
    AF_INET, EPOLL_CTL_ADD, EPOLLIN, IPPROTO_TCP, MSG_NOSIGNAL, SO_REUSEADDR, SOCK_STREAM, SOL_SOCKET, TCP_NODELAY,
};
use ringroad::socket::{EpollEvent, Handle, Sockets};
use ringroad::time::Instant;

const EVENTS: usize = 256;
const BUFFER: usize = 64 * 1024;

/// Answer once on each connection, by ringroad.
#[derive(clap::Args, Debug)]
pub struct Args {
    #[arg(short, long)]
    interface: String,
    #[arg(long)]
    port: u16,
}

struct Once {
    set: Handle,
    listener: Handle,
    events: Vec<EpollEvent>,
    buffer: Vec<u8>,
}

impl Once {
    fn new(sockets: &mut Sockets, port: u16) -> Result<Self> {
        let set = sockets.epoll_create()?;
        let listener = sockets.socket(AF_INET, SOCK_STREAM, 0)?;
        let on = 1i32.to_ne_bytes();
        sockets.set_option(listener, SOL_SOCKET, SO_REUSEADDR, &on)?;
        sockets.set_option(listener, IPPROTO_TCP, TCP_NODELAY, &on)?;
        sockets.bind(listener, (Ipv4Addr::UNSPECIFIED, port).into())?;
        sockets.listen(listener, 4096)?;
        sockets.epoll_ctl(set, EPOLL_CTL_ADD, listener, EPOLLIN, listener.to_raw())?;
        println!("ready");
        Ok(Self { set, listener, events: Vec::with_capacity(EVENTS), buffer: vec![0; BUFFER] })
    }

    fn accept_all(&mut self, sockets: &mut Sockets) {
        while let Ok((socket, _)) = sockets.accept(self.listener) {
            // The request may be there already; only who has to wait is watched.
            if !self.serve(sockets, socket)
                && sockets.epoll_ctl(self.set, EPOLL_CTL_ADD, socket, EPOLLIN, socket.to_raw()).is_err()
            {
                let _ = sockets.close(socket);
            }
        }
    }

    /// Answer and end; false if there is nothing to answer yet.
    fn serve(&mut self, sockets: &mut Sockets, socket: Handle) -> bool {
        match sockets.recv(socket, &mut self.buffer, 0) {
            Err(Errno::EAGAIN) => return false,
            Ok(n) if n > 0 => _ = sockets.send(socket, &self.buffer[..n], MSG_NOSIGNAL),
            _ => {}
        }
        let _ = sockets.close(socket);
        true
    }
}

impl App for Once {
    fn turn(&mut self, _: Instant, sockets: &mut Sockets) -> ControlFlow<()> {
        let mut events = std::mem::take(&mut self.events);
        events.clear();
        let _ = sockets.epoll_wait(self.set, &mut events, EVENTS);
        for event in &events {
            let socket = Handle::from_raw(event.data);
            if socket == self.listener {
                self.accept_all(sockets);
            } else {
                self.serve(sockets, socket);
            }
        }
        self.events = events;
        ControlFlow::Continue(())
    }
}

/// A worker whose listener could not be made ends at once, and says why.
struct Started(Result<Once>);

impl App for Started {
    fn turn(&mut self, now: Instant, sockets: &mut Sockets) -> ControlFlow<()> {
        match &mut self.0 {
            Ok(once) => once.turn(now, sockets),
            Err(why) => {
                eprintln!("listen: {why}");
                ControlFlow::Break(())
            }
        }
    }
}

/// Serve until the process is ended.
pub fn run(args: &Args) -> std::result::Result<(), String> {
    let mut config = Config::from_env().map_err(|e| e.to_string())?;
    config.interface.clone_from(&args.interface);
    let port = args.port;
    let make = move |_worker: usize, sockets: &mut Sockets| Started(Once::new(sockets, port));
    runtime::run(config, make).map_err(|e| e.to_string())
}
