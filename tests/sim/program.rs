//! The programs: one for each end of a connection. What they send, read and see
//! is in `transfer`; here is when they run, and how they begin and end.

use crate::draw::{Draw, fill};
use crate::seen::Seen;
use crate::side_plan::{Drive, End, Setting, SidePlan};
use ringroad::errno::Errno;
use ringroad::frame::Frame;
use ringroad::socket::linux::*;
use ringroad::socket::{Handle, Readiness, SendMeta, Sockets};
use ringroad::time::{Duration, Instant};
use std::net::SocketAddr;

/// What a program works with while it runs.
pub struct Context<'a> {
    pub sockets: &'a mut Sockets,
    pub now: Instant,
    /// The host's epoll set, and what the program is called there.
    pub epoll: Handle,
    pub token: u64,
    pub scratch: &'a mut Scratch,
}

/// Buffers that all programs use.
pub struct Scratch {
    pub data: Vec<u8>,
    pub expected: Vec<u8>,
}

impl Scratch {
    pub fn new() -> Self {
        Self { data: vec![0; 1 << 17], expected: vec![0; 1 << 17] }
    }
}

/// One end of a connection, and what the program there knows.
#[derive(Debug)]
pub struct Program {
    /// The connection's number, and 0 for the client or 1 for the server.
    pub conn: usize,
    pub role: usize,
    pub host: usize,
    pub plan: SidePlan,
    pub draw: Draw,
    pub handle: Option<Handle>,
    /// Set while `connect` has not ended.
    pub connecting: Option<SocketAddr>,
    pub sent: u64,
    pub received: u64,
    /// The last byte was followed by `shutdown` or an orderly `close`.
    pub finished: bool,
    pub eof: bool,
    pub aborted: bool,
    /// It closed before the peer's end was read.
    pub closed_early: bool,
    /// Its host restarted.
    pub killed: bool,
    pub error: Option<Errno>,
    /// When it reads and writes again, while it pauses.
    pub read_pause: Option<Instant>,
    pub write_pause: Option<Instant>,
    /// Frames that it was lent, and when it gives them back.
    pub lent: Vec<(Frame, Instant)>,
    /// What it asked epoll for last.
    pub interest: u32,
    pub began: Instant,
    pub ended: Instant,
    /// The number of the peer's urgent byte, and whether it was read apart.
    pub urgent: Option<u64>,
    pub urgent_read: bool,
    pub seen: Seen,
}

impl Program {
    pub fn new(conn: usize, role: usize, host: usize, plan: &SidePlan, handle: Handle, seed: u64) -> Self {
        Self {
            conn,
            role,
            host,
            plan: plan.clone(),
            draw: Draw::new(seed ^ (conn as u64) << 33 ^ (role as u64) << 32 ^ 0x5eed),
            handle: Some(handle),
            connecting: None,
            sent: 0,
            received: 0,
            finished: false,
            eof: false,
            aborted: false,
            closed_early: false,
            killed: false,
            error: None,
            read_pause: None,
            write_pause: None,
            lent: Vec::new(),
            interest: 0,
            began: Instant::ZERO,
            ended: Instant::NEVER,
            urgent: None,
            urgent_read: false,
            seen: Seen::empty(),
        }
    }

    /// What names the stream of bytes that one end sends.
    pub fn stream(&self, role: usize) -> u64 {
        (self.conn as u64) << 40 ^ (role as u64) << 36
    }

    pub fn is_done(&self) -> bool {
        self.handle.is_none()
    }

    pub fn wants_to_read(&self) -> bool {
        !self.eof && self.read_pause.is_none()
    }

    pub fn wants_to_write(&self) -> bool {
        self.sent < self.plan.send && self.write_pause.is_none()
    }

    /// Sets the socket's options by the plan.
    pub fn set_options(&self, sockets: &mut Sockets) {
        let Some(h) = self.handle else { return };
        for setting in &self.plan.settings {
            set(sockets, h, *setting);
        }
        if let End::Linger(seconds) = self.plan.end {
            let linger = [1i32.to_ne_bytes(), seconds.to_ne_bytes()].concat();
            sockets.set_option(h, SOL_SOCKET, SO_LINGER, &linger).expect("SO_LINGER");
        }
        if self.plan.inline {
            set(sockets, h, (SOL_SOCKET, SO_OOBINLINE, 1));
        }
        if let Some(name) = self.plan.congestion {
            let known = ringroad::tcp::Algorithm::from_name(name).is_some();
            let done = sockets.set_option(h, IPPROTO_TCP, TCP_CONGESTION, name.as_bytes());
            assert_eq!(done.is_ok(), known, "TCP_CONGESTION {name}: {done:?}");
        }
    }

    /// Begins to connect; with its first data where the plan says so.
    pub fn open(&mut self, sockets: &mut Sockets, h: Handle, peer: SocketAddr, now: Instant) {
        self.connecting = Some(peer);
        let before = self.plan.urgent.unwrap_or(self.plan.send);
        let len = before.min(self.plan.write_chunk as u64).min(4000) as usize;
        let begun = if self.plan.early && len > 0 {
            let mut data = vec![0; len];
            fill(self.stream(self.role), 0, &mut data);
            let meta = SendMeta::default();
            let begun = sockets.send_to(h, &data, MSG_FASTOPEN | MSG_NOSIGNAL | MSG_DONTWAIT, Some(peer), &meta);
            begun.map(|n| self.sent = n as u64)
        } else {
            sockets.connect(h, peer)
        };
        if let Err(error) = begun
            && error != Errno::EINPROGRESS
        {
            self.error = Some(error);
            self.close(sockets, h);
            self.ended = now;
        }
    }

    /// Enters the host's epoll set.
    pub fn enroll(&mut self, c: &mut Context) {
        let Some(h) = self.handle else { return };
        self.interest = match self.plan.drive {
            Drive::Always => return,
            Drive::Edge => EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET,
            Drive::Level => EPOLLIN | EPOLLOUT | EPOLLRDHUP,
            Drive::OneShot => EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLONESHOT,
        };
        if self.waits_for_urgent() {
            self.interest |= EPOLLPRI;
        }
        c.sockets.epoll_ctl(c.epoll, EPOLL_CTL_ADD, h, self.interest, c.token).expect("EPOLL_CTL_ADD");
    }

    /// Asks epoll for what it waits for from now on.
    fn ask(&mut self, c: &mut Context) {
        let Some(h) = self.handle else { return };
        let mut events = 0;
        if self.wants_to_read() {
            events |= EPOLLIN | EPOLLRDHUP;
            if self.waits_for_urgent() {
                events |= EPOLLPRI;
            }
        }
        if self.wants_to_write() || self.connecting.is_some() {
            events |= EPOLLOUT;
        }
        match self.plan.drive {
            Drive::Always | Drive::Edge => return,
            Drive::Level if events == self.interest => return,
            Drive::Level => {}
            // Asked for nothing, it would still be told of hang-ups.
            Drive::OneShot if events == 0 => return self.interest = 0,
            Drive::OneShot => events |= EPOLLONESHOT,
        }
        self.interest = events;
        c.sockets.epoll_ctl(c.epoll, EPOLL_CTL_MOD, h, events, c.token).expect("EPOLL_CTL_MOD");
    }

    /// Runs: epoll reported it with these events, its pause is over, or its host
    /// did something (then there are none).
    pub fn advance(&mut self, c: &mut Context, events: u32) {
        if events & (EPOLLERR | EPOLLHUP) != 0 {
            // Nothing more comes or goes: a pause would only be woken again.
            (self.read_pause, self.write_pause) = (None, None);
        }
        self.end_pauses(c.now);
        self.release(c, false);
        self.work(c);
        if self.is_done() {
            self.ended = self.ended.min(c.now);
            self.release(c, true);
        } else {
            self.ask(c);
        }
    }

    fn work(&mut self, c: &mut Context) {
        let Some(h) = self.handle else { return };
        if !self.connected(c, h) || self.abort(c.sockets, h) {
            return;
        }
        let write_first = self.draw.one_in(2);
        for writing in [write_first, !write_first] {
            if writing { self.write(c, h) } else { self.read(c, h) }
            if self.is_done() || self.abort(c.sockets, h) {
                return;
            }
            self.change(c.sockets, h);
        }
        self.finish(c, h);
    }

    fn end_pauses(&mut self, now: Instant) {
        let over = |pause: Option<Instant>| pause.filter(|until| *until > now);
        (self.read_pause, self.write_pause) = (over(self.read_pause), over(self.write_pause));
    }

    pub fn close(&mut self, sockets: &mut Sockets, h: Handle) {
        sockets.close(h).expect("close of an open handle");
        self.handle = None;
    }

    pub fn fail(&mut self, c: &mut Context, h: Handle, error: Errno) {
        self.error = Some(error);
        self.after_the_end(c, h);
        self.close(c.sockets, h);
    }

    fn connected(&mut self, c: &mut Context, h: Handle) -> bool {
        let Some(peer) = self.connecting else { return true };
        let ready = c.sockets.readiness(h);
        match c.sockets.connect(h, peer) {
            Err(Errno::EALREADY) => {
                assert!(!ready.contains(Readiness::OUT), "{}: ready, but not connected", self.name());
                return false;
            }
            Ok(()) | Err(Errno::EISCONN) => self.connecting = None,
            Err(error) => {
                self.error = Some(error);
                self.close(c.sockets, h);
            }
        }
        !self.is_done()
    }

    fn abort(&mut self, sockets: &mut Sockets, h: Handle) -> bool {
        if !self.abort_is_due() {
            return false;
        }
        let linger = [1i32.to_ne_bytes(), 0i32.to_ne_bytes()].concat();
        sockets.set_option(h, SOL_SOCKET, SO_LINGER, &linger).expect("SO_LINGER");
        self.aborted = true;
        self.close(sockets, h);
        true
    }

    pub fn abort_is_due(&self) -> bool {
        matches!(self.plan.end, End::Abort(at) if self.sent + self.received >= at)
    }

    /// True until it has read the urgent byte that it reads apart.
    pub fn waits_for_urgent(&self) -> bool {
        self.urgent.is_some() && !self.plan.inline && !self.urgent_read
    }

    /// The congestion control that the socket says it has.
    pub fn congestion(sockets: &mut Sockets, h: Handle) -> String {
        let mut name = [0; 16];
        let n = sockets.get_option(h, IPPROTO_TCP, TCP_CONGESTION, &mut name).expect("TCP_CONGESTION");
        let end = name[..n].iter().position(|b| *b == 0).unwrap_or(n);
        String::from_utf8_lossy(&name[..end]).into_owned()
    }

    /// Sets the options whose time has come.
    fn change(&mut self, sockets: &mut Sockets, h: Handle) {
        while let Some((at, setting)) = self.plan.changes.last().copied()
            && at <= self.sent + self.received
        {
            self.plan.changes.pop();
            set(sockets, h, setting);
        }
        if let Some((at, name)) = self.plan.switch
            && at <= self.sent
        {
            self.plan.switch = None;
            let other = Self::congestion(sockets, h) != name;
            sockets.set_option(h, IPPROTO_TCP, TCP_CONGESTION, name.as_bytes()).expect("TCP_CONGESTION");
            assert_eq!(Self::congestion(sockets, h), name, "{}", self.name());
            self.seen.set(Seen::SWITCHED, other && self.sent > 0 && self.sent < self.plan.send);
        }
    }

    /// The last byte was written: what comes then.
    fn finish(&mut self, c: &mut Context, h: Handle) {
        if self.sent == self.plan.send && !self.finished && (self.eof || !self.plan.last) {
            if self.plan.end == End::Close {
                self.finished = true;
                self.closed_early = !self.eof;
                return self.close(c.sockets, h);
            }
            if let Err(error) = c.sockets.shutdown(h, SHUT_WR) {
                assert_eq!(error, Errno::ENOTCONN, "{}: shutdown", self.name());
                // What ended it after the peer's end was read.
                let mut why = [0; 4];
                c.sockets.get_option(h, SOL_SOCKET, SO_ERROR, &mut why).expect("SO_ERROR");
                let why = Errno::from_raw(i32::from_ne_bytes(why));
                return self.fail(c, h, why.unwrap_or(error));
            }
            self.finished = true;
            let refused = c.sockets.send(h, b"x", MSG_NOSIGNAL);
            assert!(refused.is_err(), "{}: send after shutdown: {refused:?}", self.name());
        }
        if self.finished && self.eof {
            self.seen |= Seen::congestion(&Self::congestion(c.sockets, h));
            self.close(c.sockets, h);
        }
    }

    /// Gives back the lent frames whose time has come, or all.
    fn release(&mut self, c: &mut Context, all: bool) {
        let mut i = 0;
        while i < self.lent.len() {
            if !all && self.lent[i].1 > c.now {
                i += 1;
                continue;
            }
            let (frame, _) = self.lent.swap_remove(i);
            match self.handle {
                Some(h) => c.sockets.zc_release(h, frame).expect("a frame that was lent"),
                // The socket is closed: the frame is taken all the same.
                None => drop(c.sockets.zc_release(Handle::from_raw(u64::MAX), frame)),
            }
        }
    }

    /// The host stopped: nothing can be given back or closed.
    pub fn kill(&mut self, now: Instant) {
        if !self.is_done() {
            (self.killed, self.handle, self.ended) = (true, None, now);
            self.lent.clear();
        }
    }

    /// When it wants to run again, whatever happens.
    pub fn deadline(&self) -> Option<Instant> {
        if self.is_done() {
            return None;
        }
        let lent = self.lent.iter().map(|(_, due)| *due).min();
        [self.read_pause, self.write_pause, lent].into_iter().flatten().min()
    }

    /// Fails where the program could do what it waits for, and nobody told it:
    /// all events were taken, and the program did all it could.
    pub fn check_not_forgotten(&mut self, c: &mut Context) {
        let Some(h) = self.handle else { return };
        if self.plan.drive == Drive::Always || self.interest & !EPOLLONESHOT == 0 {
            return;
        }
        let ready = c.sockets.readiness(h);
        if self.connecting.is_some() {
            let news = ready.intersects(Readiness::OUT | Readiness::ERR | Readiness::HUP);
            assert!(!news, "{}: connected or failed ({ready:?}), and not told", self.name());
            return;
        }
        // Who found no frame is told once there are some.
        let stack = &c.sockets.stack.core;
        let fed = stack.pool.available() > stack.config.tcp.send_reserve();
        if self.wants_to_write() && fed {
            assert!(!ready.contains(Readiness::OUT), "{}: can write, and was not told", self.name());
        }
        if self.wants_to_read() {
            let peeked = c.sockets.recv(h, &mut c.scratch.data[..1], MSG_PEEK);
            assert_eq!(peeked, Err(Errno::EAGAIN), "{}: can read, and was not told", self.name());
            let urgent = self.waits_for_urgent() && ready.contains(Readiness::PRI);
            assert!(!urgent, "{}: an urgent byte is there, and it was not told", self.name());
        }
    }

    pub fn name(&self) -> String {
        let side = if self.role == 0 { "client" } else { "server" };
        format!("connection {} {side} on host {}", self.conn, self.host)
    }

    /// A time from now, for a pause.
    pub fn later(now: Instant, pause: Duration) -> Option<Instant> {
        (pause > Duration::ZERO).then(|| now + pause)
    }
}

fn set(sockets: &mut Sockets, h: Handle, (level, name, value): Setting) {
    sockets.set_option(h, level, name, &value.to_ne_bytes()).expect("an option");
}
