//! Writes that the ring does not take, and reads of odd sizes.

use super::threads::Bed;
use super::*;
use crate::errno::Errno;
use crate::runtime::posix;
use crate::socket::{EpollEvent, Handle, SendMeta, Sockets};
use crate::time::Instant;
use core::ops::ControlFlow;
use std::io::{IoSlice, IoSliceMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

/// Reads nothing until it is told to, and then counts.
struct Slow {
    listener: Handle,
    open: Option<Handle>,
    go: Arc<AtomicBool>,
    got: Arc<AtomicUsize>,
}

impl Slow {
    fn new(s: &mut Sockets, go: &Arc<AtomicBool>, got: &Arc<AtomicUsize>) -> Self {
        let listener = s.socket(libc::AF_INET, libc::SOCK_STREAM, 0).unwrap();
        s.bind(listener, at(B, 7)).unwrap();
        s.listen(listener, 8).unwrap();
        Self { listener, open: None, go: go.clone(), got: got.clone() }
    }
}

impl crate::runtime::App for Slow {
    fn turn(&mut self, _: Instant, s: &mut Sockets) -> ControlFlow<()> {
        if let Ok((h, _)) = s.accept(self.listener) {
            self.open = Some(h);
        }
        let mut buf = [0; 65536];
        while let (Some(h), true) = (self.open, self.go.load(Ordering::Relaxed)) {
            match s.recv(h, &mut buf, 0) {
                Ok(n @ 1..) => self.got.fetch_add(n, Ordering::Relaxed),
                _ => break,
            };
        }
        ControlFlow::Continue(())
    }
}

#[test]
fn who_is_refused_a_write_with_flags_is_told_of_room_when_there_is_some() {
    let (go, got) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
    let make = |s: &mut Sockets| Slow::new(s, &go, &got);
    Bed::new(Wait::Block).against(make, || {
        let fd = posix::socket(libc::AF_INET, libc::SOCK_STREAM, 0).unwrap();
        posix::set_option(fd, libc::SOL_SOCKET, libc::SO_SNDBUF, &20_000i32.to_ne_bytes()).unwrap();
        posix::connect(fd, at(B, 7)).unwrap();
        let (edge, level) = (posix::epoll_create(true).unwrap(), posix::epoll_create(true).unwrap());
        let out = libc::EPOLLOUT as u32;
        posix::epoll_ctl(edge, libc::EPOLL_CTL_ADD, fd, out | libc::EPOLLET as u32, 1).unwrap();
        posix::epoll_ctl(level, libc::EPOLL_CTL_ADD, fd, out, 2).unwrap();
        let wait = |set, ms| {
            let mut events = Vec::new();
            posix::epoll_wait(set, &mut events, 4, Some(Duration::from_millis(ms))).unwrap();
            events
        };
        let ready = |data| vec![EpollEvent { events: out, data }];
        assert_eq!((wait(edge, 0), wait(level, 0)), (ready(1), ready(2)));
        // The peer's window fills, then the send buffer.
        let (mut sent, flags) = (0, libc::MSG_MORE | libc::MSG_DONTWAIT);
        let fill = |sent: &mut usize| loop {
            match posix::send(fd, &[7; 5000], flags) {
                Ok(n) => *sent += n,
                Err(error) => break assert_eq!(error, Errno::EAGAIN),
            }
        };
        loop {
            fill(&mut sent);
            std::thread::sleep(Duration::from_millis(50));
            let before = sent;
            fill(&mut sent);
            if sent == before {
                break;
            }
        }
        wait(edge, 0);
        assert_eq!((wait(edge, 50), wait(level, 50)), (vec![], vec![]), "it would be refused again");
        assert_eq!(posix::readiness(fd).unwrap().bits() & out, 0);
        go.store(true, Ordering::Relaxed);
        assert_eq!((wait(edge, 10_000), wait(level, 10_000)), (ready(1), ready(2)));
        // One that waits gets through, whole.
        assert_eq!(posix::send(fd, &vec![8; 1 << 20], libc::MSG_MORE), Ok(1 << 20));
        posix::send(fd, b"x", 0).unwrap();
        let until = std::time::Instant::now() + Duration::from_secs(20);
        while got.load(Ordering::Relaxed) < sent + (1 << 20) + 1 {
            assert!(std::time::Instant::now() < until);
            std::thread::yield_now();
        }
        [edge, level, fd].into_iter().for_each(|fd| posix::close(fd).unwrap());
    });
}

/// Each event is worth one write, of a frame at most: the one that fills the ring
/// succeeds, and nothing refuses the writer anything.
#[test]
fn who_fills_the_ring_exactly_is_told_of_room_when_there_is_some() {
    let (go, got) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
    let make = |s: &mut Sockets| Slow::new(s, &go, &got);
    Bed::new(Wait::Block).against(make, || {
        let fd = posix::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_NONBLOCK, 0).unwrap();
        posix::set_option(fd, libc::SOL_SOCKET, libc::SO_SNDBUF, &20_000i32.to_ne_bytes()).unwrap();
        let _ = posix::connect(fd, at(B, 7));
        let set = posix::epoll_create(true).unwrap();
        posix::epoll_ctl(set, libc::EPOLL_CTL_ADD, fd, libc::EPOLLOUT as u32, 5).unwrap();
        let room = |ms| {
            let mut events = Vec::new();
            posix::epoll_wait(set, &mut events, 4, Some(Duration::from_millis(ms))).unwrap();
            !events.is_empty()
        };
        let mut sent = 0;
        while room(300) {
            sent += posix::send(fd, &[7; 1000], 0).unwrap();
        }
        go.store(true, Ordering::Relaxed);
        assert!(room(10_000), "after {sent} bytes");
        let until = std::time::Instant::now() + Duration::from_secs(20);
        while got.load(Ordering::Relaxed) < sent {
            assert!(std::time::Instant::now() < until);
            std::thread::yield_now();
        }
        [set, fd].into_iter().for_each(|fd| posix::close(fd).unwrap());
    });
}

/// Memory that nothing stands behind.
fn vast(len: usize) -> &'static mut [u8] {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: new memory, at a place of the kernel's choice.
    let at = unsafe { libc::mmap(core::ptr::null_mut(), len, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
    assert_ne!(at, libc::MAP_FAILED);
    // SAFETY: `len` bytes of zeros that nobody else has, and that stay mapped.
    unsafe { core::slice::from_raw_parts_mut(at.cast(), len) }
}

#[test]
fn a_read_into_parts_takes_no_memory_by_their_length() {
    let bed = Bed::new(Wait::Block);
    bed.a().run_loop(|| {
        let fd = posix::socket(libc::AF_INET, libc::SOCK_STREAM, 0).unwrap();
        posix::bind(fd, at(A, 9)).unwrap();
        posix::listen(fd, 1).unwrap();
        let to = posix::socket(libc::AF_INET, libc::SOCK_STREAM, 0).unwrap();
        posix::connect(to, at(A, 9)).unwrap();
        let (from, _) = posix::accept4(fd, 0).unwrap();
        let data: Vec<u8> = (0..100_000u32).map(|i| i as u8).collect();
        let parts = [IoSlice::new(&data[..7]), IoSlice::new(&data[7..])];
        assert_eq!(posix::send_message(to, &parts, 0, None, &SendMeta::default()), Ok(100_000));
        let (first, second) = (vast(1 << 44), vast(1 << 44));
        let mut got = 0usize;
        while got < 100_000 {
            let (a, b) = (got.min(10), got.saturating_sub(10));
            let mut parts = [IoSliceMut::new(&mut first[a..10]), IoSliceMut::new(&mut second[b..])];
            got += posix::recv_message(from, &mut parts, 0).unwrap().0;
        }
        assert!(first[..10] == data[..10] && second[..99_990] == data[10..]);
        [fd, to, from].into_iter().for_each(|fd| posix::close(fd).unwrap());
        false
    })
    .unwrap();
}
