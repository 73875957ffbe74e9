//! An echo server in Rust: one program on each worker, over that core's sockets.
//!
//! ```text
//! cargo run --release --example echo -- eth0 7 [10.0.0.2/24]
//! ```

use ringroad::errno::{Errno, Result};
use ringroad::runtime::{self, App, Config};
use ringroad::socket::linux::{
    AF_INET, EPOLL_CTL_ADD, EPOLLET, EPOLLIN, EPOLLOUT, MSG_NOSIGNAL, SO_REUSEADDR, SO_REUSEPORT,
    SOCK_STREAM, SOL_SOCKET,
};
use ringroad::socket::{EpollEvent, Handle, Sockets};
use ringroad::time::Instant;
use std::ops::ControlFlow;
use std::process::ExitCode;

/// A connection, and what was read from it and not yet written back.
struct Peer {
    handle: Handle,
    owed: Vec<u8>,
}

/// What runs on one worker.
struct Echo {
    set: Handle,
    listener: Handle,
    peers: Vec<Option<Peer>>,
    events: Vec<EpollEvent>,
    buffer: Vec<u8>,
}

/// The listener's mark in the epoll set; a peer's is its place.
const LISTENER: u64 = u64::MAX;

impl Echo {
    fn new(sockets: &mut Sockets, port: u16) -> Result<Self> {
        let set = sockets.epoll_create()?;
        let listener = sockets.socket(AF_INET, SOCK_STREAM, 0)?;
        let on = 1i32.to_ne_bytes();
        sockets.set_option(listener, SOL_SOCKET, SO_REUSEADDR, &on)?;
        sockets.set_option(listener, SOL_SOCKET, SO_REUSEPORT, &on)?;
        sockets.bind(listener, ([0, 0, 0, 0], port).into())?;
        sockets.listen(listener, 1024)?;
        sockets.epoll_ctl(set, EPOLL_CTL_ADD, listener, EPOLLIN, LISTENER)?;
        let (peers, events, buffer) = (Vec::new(), Vec::new(), vec![0; 64 * 1024]);
        Ok(Self { set, listener, peers, events, buffer })
    }

    fn welcome(&mut self, sockets: &mut Sockets) {
        while let Ok((handle, _)) = sockets.accept(self.listener) {
            let free = self.peers.iter().position(Option::is_none);
            let place = free.unwrap_or_else(|| {
                self.peers.push(None);
                self.peers.len() - 1
            });
            self.peers[place] = Some(Peer { handle, owed: Vec::new() });
            // Edges: each arrival, and each time that room is made, once.
            let edges = EPOLLIN | EPOLLOUT | EPOLLET;
            if sockets.epoll_ctl(self.set, EPOLL_CTL_ADD, handle, edges, place as u64).is_err() {
                self.part(sockets, place);
            }
        }
    }

    /// Echoes until there is nothing to read, or no room to write.
    fn serve(&mut self, sockets: &mut Sockets, place: usize) {
        let Some(peer) = &mut self.peers[place] else { return };
        loop {
            if !peer.owed.is_empty() {
                match sockets.send(peer.handle, &peer.owed, MSG_NOSIGNAL) {
                    Ok(n) => drop(peer.owed.drain(..n)),
                    Err(Errno::EAGAIN) => return,
                    Err(_) => return self.part(sockets, place),
                }
                continue;
            }
            match sockets.recv(peer.handle, &mut self.buffer, 0) {
                Ok(n) if n > 0 => peer.owed.extend_from_slice(&self.buffer[..n]),
                Err(Errno::EAGAIN) => return,
                _ => return self.part(sockets, place),
            }
        }
    }

    fn part(&mut self, sockets: &mut Sockets, place: usize) {
        if let Some(peer) = self.peers[place].take() {
            let _ = sockets.close(peer.handle);
        }
    }
}

impl App for Echo {
    fn turn(&mut self, _now: Instant, sockets: &mut Sockets) -> ControlFlow<()> {
        let mut events = core::mem::take(&mut self.events);
        events.clear();
        if sockets.epoll_wait(self.set, &mut events, 64).is_err() {
            return ControlFlow::Break(());
        }
        for event in &events {
            match event.data {
                LISTENER => self.welcome(sockets),
                place => self.serve(sockets, place as usize),
            }
        }
        self.events = events;
        ControlFlow::Continue(())
    }
}

/// A worker whose listener could not be made ends at once, and says why.
struct Started(Result<Echo>);

impl App for Started {
    fn turn(&mut self, now: Instant, sockets: &mut Sockets) -> ControlFlow<()> {
        match &mut self.0 {
            Ok(echo) => echo.turn(now, sockets),
            Err(why) => {
                eprintln!("listen: {why}");
                ControlFlow::Break(())
            }
        }
    }
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (Some(interface), Some(Ok(port))) = (args.first(), args.get(1).map(|p| p.parse())) else {
        eprintln!("usage: echo INTERFACE PORT [ADDRESS/PREFIX]");
        return ExitCode::from(2);
    };
    let mut config = Config::new(interface);
    let address = args.get(2).map_or(Ok(()), |a| config.set("ADDRESS", a));
    let run = |config| runtime::run(config, move |_, s: &mut Sockets| Started(Echo::new(s, port)));
    match address.and_then(|()| run(config)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}
