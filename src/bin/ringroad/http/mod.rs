//! `ringroad http`: serves the files below a directory.

mod date;
mod request;
mod session;
mod site;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use ringroad::errno::Errno;
use ringroad::runtime::App;
use ringroad::socket::linux::{
    EPOLL_CTL_ADD, EPOLL_CTL_MOD, EPOLLIN, EPOLLOUT, IPPROTO_TCP, MSG_NOSIGNAL, SO_LINGER, SOL_SOCKET, TCP_NODELAY,
};
use ringroad::socket::{EpollEvent, Handle, Sockets};
use ringroad::time::{Duration, Instant};

use crate::names;
use crate::stack::{self, LINGER, LOOK, StackArgs, Stopping};
use session::Session;
use site::Site;

/// Events taken in one turn.
const EVENTS: usize = 256;
/// Bytes read from a connection at once.
const CHUNK: usize = 64 * 1024;
/// How long a connection may do nothing, or not take what it asked for.
const IDLE: Duration = Duration::from_secs(60);
/// How long a server that stops goes on with the answers that are under way.
const FAREWELL: Duration = Duration::from_secs(10);
/// How often connections are looked through for such.
const SWEEP: Duration = Duration::from_secs(1);

/// Serve the files below a directory over HTTP/1.0 and 1.1.
///
/// GET and HEAD, keep-alive, pipelining, byte ranges. A directory is answered
/// with its index.html. Nothing outside the directory is served, not over
/// symbolic links either.
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(flatten)]
    stack: StackArgs,
    /// The port, a number or a service name
    #[arg(long, value_name = "PORT", value_parser = names::tcp_port)]
    port: u16,
    /// The directory whose files are served
    #[arg(long, value_name = "DIR")]
    root: PathBuf,
}

/// Run the command.
///
/// # Errors
/// A sentence for the person who ran it.
pub fn run(args: &Args) -> Result<ExitCode, String> {
    let config = args.stack.config()?;
    // A wrong directory is said before anything is attached.
    Site::new(&args.root).map_err(|e| bad_root(&args.root, &e))?;
    let what = format!("http on {} port {}: {}; wait {}", config.interface, args.port, args.root.display(), config.wait);
    let (port, root) = (args.port, args.root.clone());
    stack::serve(config, &what, |sockets| Server::new(sockets, port, &root))
}

fn bad_root(root: &Path, error: &std::io::Error) -> String {
    format!("--root {}: {error}; name a directory that can be read", root.display())
}

struct Client {
    handle: Handle,
    session: Session,
    /// When bytes last moved.
    moved: Instant,
    /// What its socket is watched for.
    interest: u32,
}

/// The server of one worker.
pub struct Server {
    set: Handle,
    listener: Handle,
    site: Site,
    /// By the sockets' places in their table.
    clients: Vec<Option<Box<Client>>>,
    events: Vec<EpollEvent>,
    buffer: Vec<u8>,
    stopping: Stopping,
    now: Instant,
    next_sweep: Instant,
}

impl Server {
    /// A server of the files below `root` on `port`.
    ///
    /// # Errors
    /// A sentence about the directory or the port.
    pub fn new(sockets: &mut Sockets, port: u16, root: &Path) -> Result<Self, String> {
        let site = Site::new(root).map_err(|e| bad_root(root, &e))?;
        let set = sockets.epoll_create().map_err(|e| e.to_string())?;
        let listener = stack::listener(sockets, port)?;
        sockets.epoll_ctl(set, EPOLL_CTL_ADD, listener, EPOLLIN, listener.to_raw()).map_err(|e| e.to_string())?;
        Ok(Self {
            set,
            listener,
            site,
            clients: Vec::new(),
            events: Vec::with_capacity(EVENTS),
            buffer: vec![0; CHUNK],
            stopping: Stopping::default(),
            now: Instant::ZERO,
            next_sweep: Instant::ZERO,
        })
    }

    fn accept_all(&mut self, sockets: &mut Sockets) {
        while let Ok((handle, _)) = sockets.accept(self.listener) {
            let watched = sockets
                .set_option(handle, IPPROTO_TCP, TCP_NODELAY, &1i32.to_ne_bytes())
                .and_then(|()| sockets.epoll_ctl(self.set, EPOLL_CTL_ADD, handle, EPOLLIN, handle.to_raw()));
            if watched.is_err() {
                let _ = sockets.close(handle);
                continue;
            }
            let place = handle.index() as usize;
            if self.clients.len() <= place {
                self.clients.resize_with(place + 1, || None);
            }
            let client = Client { handle, session: Session::default(), moved: self.now, interest: EPOLLIN };
            self.clients[place] = Some(Box::new(client));
            self.serve(sockets, handle);
        }
    }

    /// Take what the client sent and send what it asked for, as far as both go.
    fn serve(&mut self, sockets: &mut Sockets, handle: Handle) {
        let place = handle.index() as usize;
        let Some(mut client) = self.clients.get_mut(place).and_then(Option::take) else { return };
        if client.handle != handle {
            // An event of a socket that was closed, and whose place was taken again, in this turn.
            self.clients[place] = Some(client);
            return;
        }
        if self.exchange(sockets, &mut client) {
            self.clients[place] = Some(client);
        } else {
            let _ = sockets.close(handle);
        }
    }

    /// Move bytes; false when the connection is to be closed.
    fn exchange(&mut self, sockets: &mut Sockets, client: &mut Client) -> bool {
        if client.session.hungry() {
            match sockets.recv(client.handle, &mut self.buffer, 0) {
                Ok(0) => client.session.ended(),
                Ok(n) => {
                    client.session.feed(&self.buffer[..n]);
                    client.moved = self.now;
                }
                Err(Errno::EAGAIN) => {}
                Err(_) => return false,
            }
        }
        loop {
            client.session.produce(&mut self.site, self.now.as_nanos());
            if client.session.broken() {
                // The length that was promised cannot be kept: RST, so that nobody takes it for whole.
                let linger = [1i32.to_ne_bytes(), 0i32.to_ne_bytes()].concat();
                let _ = sockets.set_option(client.handle, SOL_SOCKET, SO_LINGER, &linger);
                return false;
            }
            let pending = client.session.pending();
            if pending.is_empty() {
                break;
            }
            match sockets.send(client.handle, pending, MSG_NOSIGNAL) {
                Ok(n) => {
                    client.session.consumed(n);
                    client.moved = self.now;
                }
                Err(Errno::EAGAIN) => break,
                Err(_) => return false,
            }
        }
        !client.session.finished() && self.watch(sockets, client)
    }

    /// Watch the socket for what the session waits for.
    fn watch(&self, sockets: &mut Sockets, client: &mut Client) -> bool {
        let read = if client.session.hungry() { EPOLLIN } else { 0 };
        let write = if client.session.pending().is_empty() { 0 } else { EPOLLOUT };
        let wanted = read | write;
        if wanted == client.interest {
            return true;
        }
        client.interest = wanted;
        sockets.epoll_ctl(self.set, EPOLL_CTL_MOD, client.handle, wanted, client.handle.to_raw()).is_ok()
    }

    /// Close the connections that have done nothing for too long.
    #[cold]
    fn sweep(&mut self, sockets: &mut Sockets) {
        self.next_sweep = self.now + SWEEP;
        for slot in &mut self.clients {
            if let Some(client) = slot.take_if(|c| self.now.since(c.moved) > IDLE) {
                let _ = sockets.close(client.handle);
            }
        }
    }

    /// The stop signal has come: no new connections, idle ones end, answers
    /// under way are finished.
    #[cold]
    fn begin_to_stop(&mut self, sockets: &mut Sockets) {
        let _ = sockets.close(self.listener);
        for slot in &mut self.clients {
            if let Some(client) = slot.take_if(|c| c.session.idle()) {
                let _ = sockets.close(client.handle);
            } else if let Some(client) = slot {
                client.session.close_after_this();
            }
        }
    }

    #[cold]
    fn close_all(&mut self, sockets: &mut Sockets) {
        for client in self.clients.drain(..).flatten() {
            let _ = sockets.close(client.handle);
        }
        let _ = sockets.close(self.set);
    }
}

impl App for Server {
    fn turn(&mut self, now: Instant, sockets: &mut Sockets) -> ControlFlow<()> {
        self.now = now;
        if self.stopping.begins(now, FAREWELL) {
            self.begin_to_stop(sockets);
        }
        if self.stopping.over(now) {
            self.close_all(sockets);
            return ControlFlow::Break(());
        }
        if self.stopping.begun() && self.clients.iter().all(Option::is_none) {
            self.stopping.hurry(now, LINGER);
        }
        let mut events = std::mem::take(&mut self.events);
        events.clear();
        let _ = sockets.epoll_wait(self.set, &mut events, EVENTS);
        for event in &events {
            let handle = Handle::from_raw(event.data);
            if handle == self.listener {
                self.accept_all(sockets);
            } else {
                self.serve(sockets, handle);
            }
        }
        self.events = events;
        if now >= self.next_sweep {
            self.sweep(sockets);
        }
        ControlFlow::Continue(())
    }

    fn next_deadline(&self) -> Option<Instant> {
        Some(self.now + LOOK)
    }
}
