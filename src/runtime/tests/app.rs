use super::*;
use crate::errno::Errno;
use crate::runtime::{App, posix};
use crate::socket::{Handle, Sockets};
use crate::time::Instant;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::time::Duration;

/// Echoes until its listener's first connection has ended.
struct Echo {
    listener: Handle,
    open: Vec<Handle>,
    served: usize,
}

impl Echo {
    fn new(sockets: &mut Sockets) -> Self {
        let listener = sockets.socket(libc::AF_INET, libc::SOCK_STREAM, 0).unwrap();
        sockets.bind(listener, at(B, 7)).unwrap();
        sockets.listen(listener, 16).unwrap();
        Self { listener, open: Vec::new(), served: 0 }
    }
}

impl App for Echo {
    fn turn(&mut self, _now: Instant, sockets: &mut Sockets) -> ControlFlow<()> {
        while let Ok((h, _)) = sockets.accept(self.listener) {
            self.open.push(h);
        }
        let mut buf = [0; 2048];
        let mut ended = 0;
        self.open.retain(|&h| match sockets.recv(h, &mut buf, 0) {
            Ok(0) => {
                sockets.close(h).unwrap();
                ended += 1;
                false
            }
            Ok(n) => {
                assert_eq!(sockets.send(h, &buf[..n], 0), Ok(n));
                true
            }
            Err(Errno::EAGAIN) => true,
            Err(error) => panic!("{error}"),
        });
        self.served += ended;
        if self.served > 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

struct Client {
    h: Handle,
    left: usize,
    waiting: bool,
}

impl App for Client {
    fn turn(&mut self, _now: Instant, sockets: &mut Sockets) -> ControlFlow<()> {
        let mut buf = [0; 64];
        if self.waiting {
            match sockets.recv(self.h, &mut buf, 0) {
                Ok(n) => assert_eq!(&buf[..n], b"ping"),
                Err(Errno::EAGAIN) => return ControlFlow::Continue(()),
                Err(error) => panic!("recv: {error}"),
            }
            self.left -= 1;
        }
        if self.left == 0 {
            sockets.close(self.h).unwrap();
            return ControlFlow::Break(());
        }
        self.waiting = match sockets.send(self.h, b"ping", 0) {
            Ok(n) => n == 4,
            Err(Errno::EAGAIN) => false,
            Err(error) => panic!("send: {error}"),
        };
        ControlFlow::Continue(())
    }
}

fn ping_pong(wait: Wait, count: usize) {
    let (a, b) = pair(wait);
    let listening = &Barrier::new(2);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            b.run(|_, sockets| {
                let echo = Echo::new(sockets);
                listening.wait();
                echo
            })
            .unwrap();
        });
        scope.spawn(|| {
            a.run(|_, sockets| {
                listening.wait();
                let h = sockets.socket(libc::AF_INET, libc::SOCK_STREAM, 0).unwrap();
                assert_eq!(sockets.connect(h, at(B, 7)), Err(Errno::EINPROGRESS));
                Client { h, left: count, waiting: false }
            })
            .unwrap();
        });
    });
}

#[test]
fn two_programs_talk_in_every_wait_mode() {
    for (wait, count) in [(Wait::Block, 200), (Wait::Adaptive, 200), (Wait::Spin, 10)] {
        ping_pong(wait, count);
    }
}

#[test]
fn a_panic_ends_the_runtime_and_is_reported() {
    struct Bad;
    impl App for Bad {
        fn turn(&mut self, _: Instant, _: &mut Sockets) -> ControlFlow<()> {
            panic!("on purpose");
        }
    }
    let (a, b) = pair(Wait::Block);
    let error = a.run(|_, _| Bad).unwrap_err().to_string();
    assert!(error.contains("panicked"), "{error}");
    assert!(a.run(|_, _| Bad).is_err());
    b.stop();
}

/// Sends zeros to whoever connects, and takes a millisecond over each of its turns.
struct Slow {
    listener: Handle,
    open: Option<Handle>,
    turns: Arc<AtomicUsize>,
}

impl App for Slow {
    fn turn(&mut self, _: Instant, s: &mut Sockets) -> ControlFlow<()> {
        if let Ok((h, _)) = s.accept(self.listener) {
            self.open = Some(h);
        }
        if let Some(h) = self.open {
            while s.send(h, &[0; 65536], 0).is_ok() {}
            self.turns.fetch_add(1, Ordering::Relaxed);
            std::thread::sleep(Duration::from_millis(1));
        }
        ControlFlow::Continue(())
    }
}

#[test]
fn a_program_that_is_slow_to_come_back_does_not_make_its_sender_slow() {
    const ALL: usize = 16 << 20;
    let size = |s: &mut Sockets, h, name, bytes: i32| s.set_option(h, libc::SOL_SOCKET, name, &bytes.to_ne_bytes()).unwrap();
    let turns = Arc::<AtomicUsize>::default();
    let make = |s: &mut Sockets| {
        let listener = s.socket(libc::AF_INET, libc::SOCK_STREAM, 0).unwrap();
        size(s, listener, libc::SO_SNDBUF, 1 << 20);
        s.bind(listener, at(B, 7)).unwrap();
        s.listen(listener, 16).unwrap();
        Slow { listener, open: None, turns: turns.clone() }
    };
    super::threads::Bed::new(Wait::Spin).against(make, || {
        let fd = posix::socket(libc::AF_INET, libc::SOCK_STREAM, 0).unwrap();
        posix::connect(fd, at(B, 7)).unwrap();
        let (mut buf, mut got) = (vec![0; 65536], 0);
        while got < ALL {
            got += posix::recv(fd, &mut buf, 0).unwrap();
        }
        posix::close(fd).unwrap();
    });
    let turns = turns.load(Ordering::Relaxed);
    println!("{turns} turns");
    assert!(turns < ALL / (64 << 10), "{turns}");
}
