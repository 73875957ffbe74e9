//! The C layer on a worker's own thread and its own sockets: the short ways of the
//! calls, in memory. One runtime, so one test.

use libc::{c_int, c_void, epoll_event};
use ringroad::device::Device;
use ringroad::device::memory::{Wire, WireConfig};
use ringroad::ffi::*;
use ringroad::frame::{Arena, Pool};
use ringroad::runtime::{Config, Runtime, Station, Wait};
use ringroad::socket::Sockets;
use ringroad::stack::{self, Stack};
use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv4Addr};
use std::ptr::{null, null_mut};

const OWN: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);

fn errno() -> c_int {
    std::io::Error::last_os_error().raw_os_error().unwrap()
}

fn failed(result: isize) -> c_int {
    assert_eq!(result, -1);
    errno()
}

fn address(port: u16) -> libc::sockaddr_in {
    libc::sockaddr_in {
        sin_family: libc::AF_INET as u16,
        sin_port: port.to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from(OWN).to_be() },
        sin_zero: [0; 8],
    }
}

fn open(kind: c_int, port: u16) -> c_int {
    let fd = rr_socket(libc::AF_INET, kind | libc::SOCK_NONBLOCK, 0);
    let at = address(port);
    // SAFETY: a valid address, and its length.
    assert_eq!(unsafe { rr_bind(fd, (&raw const at).cast(), size_of_val(&at) as u32) }, 0);
    fd
}

fn send(fd: c_int, data: &[u8], flags: c_int) -> isize {
    // SAFETY: so many readable bytes.
    unsafe { rr_send(fd, data.as_ptr().cast(), data.len(), flags) }
}

fn recv(fd: c_int, out: &mut [u8]) -> isize {
    // SAFETY: so many writable bytes.
    unsafe { rr_recv(fd, out.as_mut_ptr().cast(), out.len(), 0) }
}

fn wait(set: c_int, ms: c_int) -> Option<u64> {
    let mut event = epoll_event { events: 0, u64: 0 };
    // SAFETY: room for one event.
    let n = unsafe { rr_epoll_wait(set, &mut event, 1, ms) };
    assert!(n >= 0, "errno {}", errno());
    (n == 1).then_some(event.u64)
}

fn watch(set: c_int, fd: c_int) {
    let mut event = epoll_event { events: libc::EPOLLIN as u32, u64: fd as u64 };
    // SAFETY: a valid event.
    assert_eq!(unsafe { rr_epoll_ctl(set, libc::EPOLL_CTL_ADD, fd, &mut event) }, 0);
}

/// Both ends of a connection, which do not block.
fn connection(set: c_int, port: u16) -> [c_int; 2] {
    let listener = open(libc::SOCK_STREAM, port);
    assert_eq!(rr_listen(listener, 4), 0);
    watch(set, listener);
    let fd = rr_socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_NONBLOCK, 0);
    let at = address(port);
    // SAFETY: a valid address, and its length.
    let begun = unsafe { rr_connect(fd, (&raw const at).cast(), size_of_val(&at) as u32) };
    assert_eq!(failed(begun as isize), libc::EINPROGRESS);
    assert_eq!(wait(set, 5000), Some(listener as u64));
    // SAFETY: null pointers are allowed.
    let accepted = unsafe { rr_accept4(listener, null_mut(), null_mut(), libc::SOCK_NONBLOCK) };
    assert_eq!(rr_close(listener), 0);
    watch(set, accepted);
    [fd, accepted]
}

fn streams(set: c_int) {
    let [far, near] = connection(set, 9);
    let mut buf = [0; 16];
    assert_eq!(failed(recv(near, &mut buf)), libc::EAGAIN);
    assert_eq!((wait(set, 0), send(far, b"ping", 0)), (None, 4));
    assert_eq!((wait(set, 5000), wait(set, 0)), (Some(near as u64), Some(near as u64)));
    // SAFETY: what is null is refused.
    unsafe {
        assert_eq!(failed(rr_recv(near, null_mut(), 4, 0)), libc::EFAULT);
        assert_eq!(failed(rr_send(near, null(), 4, 0)), libc::EFAULT);
        assert_eq!(failed(rr_epoll_wait(set, null_mut(), 1, 0) as isize), libc::EFAULT);
        assert_eq!(failed(rr_epoll_wait(set, buf.as_mut_ptr().cast(), 0, 0) as isize), libc::EINVAL);
        // A simulation on this thread has numbers of its own.
        let cfg: rr_sim_config = std::mem::zeroed();
        let sim = rr_sim_new(&cfg, 1);
        assert_eq!(rr_sim_enter(sim), 0);
        assert_eq!(failed(recv(near, &mut buf)), libc::EBADF);
        assert_eq!(rr_sim_enter(null_mut()), 0);
        rr_sim_free(sim);
        assert_eq!(rr_read(near, buf.as_mut_ptr().cast(), 2), 2);
    }
    assert_eq!((recv(near, &mut buf[2..]), &buf[..4]), (2, &b"ping"[..]));
}

fn lent(set: c_int) {
    let [far, near] = connection(set, 10);
    let mut frame = MaybeUninit::<rr_zc_frame>::zeroed();
    let at = frame.as_mut_ptr();
    // SAFETY: `at` has room for a frame, and what is written is in one of `near`'s.
    unsafe {
        assert_eq!(failed(rr_zc_recv(near, at, 1, 0)), libc::EAGAIN);
        assert_eq!(failed(rr_zc_recv(0, at, 1, 0)), libc::ENOTSOCK);
        assert_eq!(failed(rr_zc_recv(0, at, 0, 0)), libc::ENOTSOCK);
        assert_eq!((rr_zc_recv(near, at, 0, 0), failed(rr_zc_recv(near, null_mut(), 1, 0))), (0, libc::EFAULT));
        send(far, b"ping", 0);
        assert_eq!(wait(set, 5000), Some(near as u64));
        assert_eq!((rr_zc_recv(near, at, 1, 0), (*at).len), (1, 4));
        let (read, copy) = (*at, &mut { *at });
        assert_eq!(failed(rr_zc_release(far, copy, 1)), libc::EINVAL, "another socket's");
        assert_eq!(rr_zc_alloc(near, at, 1), 1);
        (*at).data.cast::<u8>().copy_from_nonoverlapping(read.data.cast(), 4);
        let room = std::mem::replace(&mut (*at).len, 0);
        assert_eq!(failed(rr_zc_send(near, at, 1, 0)), libc::EINVAL, "of nothing");
        (*at).len = room + 1;
        assert_eq!(failed(rr_zc_send(near, at, 1, 0)), libc::EINVAL, "beyond its room");
        (*at).len = 4;
        assert_eq!((rr_zc_send(near, at, 1, 0), rr_zc_release(near, copy, 1)), (1, 1));
        assert_eq!(failed(rr_zc_release(near, &mut { read }, 1)), libc::EINVAL, "twice");
        watch(set, far);
        assert_eq!(wait(set, 5000), Some(far as u64));
        let mut buf = [0; 16];
        assert_eq!((recv(far, &mut buf), &buf[..4]), (4, &b"ping"[..]));
        lent_back(set, far, near);
        assert_eq!(rr_shutdown(far, libc::SHUT_WR), 0);
        assert_eq!(wait(set, 5000), Some(near as u64));
        assert_eq!(rr_zc_recv(near, at, 1, 0), 0, "the end of the stream");
        assert_eq!(rr_shutdown(near, libc::SHUT_WR), 0);
        assert_eq!(failed(send(near, b"x", libc::MSG_NOSIGNAL)), libc::EPIPE);
        assert_eq!(failed(rr_zc_alloc(near, at, 1)), libc::EPIPE);
    }
    assert_eq!((rr_close(far), rr_close(near)), (0, 0));
}

/// What comes in goes out in the frame that it came in: once, by its own socket; and of
/// several frames of a call each by itself.
unsafe fn lent_back(set: c_int, far: c_int, near: c_int) {
    let mut frames = [const { MaybeUninit::<rr_zc_frame>::zeroed() }; 3];
    let at: *mut rr_zc_frame = frames.as_mut_ptr().cast();
    let mut buf = [0; 16];
    // SAFETY: `at` has room for three frames, and what is written is in one of `near`'s.
    unsafe {
        for text in [b"ping", b"pong"] {
            send(far, text, 0);
            assert_eq!(wait(set, 5000), Some(near as u64));
            assert_eq!((rr_zc_recv(near, at, 1, libc::MSG_DONTWAIT), (*at).len), (1, 4));
            let copy = &mut { *at };
            assert_eq!(failed(rr_zc_send(far, copy, 1, 0)), libc::EINVAL, "another socket's");
            (*at).len = 5;
            assert_eq!(failed(rr_zc_send(near, at, 1, 0)), libc::EINVAL, "more than came");
            (*at).len = 4;
            (*at).data.cast::<u8>().write(b'P');
            assert_eq!((rr_zc_send(near, at, 1, 0), (*at).id), (1, 0));
            assert_eq!(failed(rr_zc_send(near, &mut { *copy }, 1, 0)), libc::EINVAL, "sent already");
            assert_eq!(failed(rr_zc_release(near, copy, 1)), libc::EINVAL, "given away with that");
            assert_eq!(wait(set, 5000), Some(far as u64));
            assert_eq!((recv(far, &mut buf), &buf[..4]), (4, &[b'P', text[1], text[2], text[3]][..]));
        }
        assert_eq!(rr_zc_alloc(near, at, 3), 3);
        for (i, frame) in [at, at.add(1), at.add(2)].into_iter().enumerate() {
            (*frame).data.cast::<u8>().write(b'a' + i as u8);
            (*frame).len = 1;
        }
        let (unsent, id) = (&mut { *at.add(2) }, std::mem::replace(&mut (*at.add(2)).id, 0));
        assert_eq!((rr_zc_send(near, at, 3, 0), unsent.id), (2, id), "the third is none");
        assert_eq!((rr_zc_release(near, unsent, 1), unsent.id), (1, 0));
        assert_eq!(wait(set, 5000), Some(far as u64));
        assert_eq!((recv(far, &mut buf), &buf[..2]), (2, &b"ab"[..]));
    }
}

fn datagrams(set: c_int) {
    let (one, two) = (open(libc::SOCK_DGRAM, 7), open(libc::SOCK_DGRAM, 8));
    watch(set, two);
    let (to, mut from) = (address(8), MaybeUninit::<libc::sockaddr_in>::zeroed());
    let (mut buf, mut len) = ([0u8; 16], size_of_val(&from) as u32);
    let data: *mut c_void = buf.as_mut_ptr().cast();
    // SAFETY: addresses and buffers are as long as is said.
    unsafe {
        let recv_from = |flags, len| rr_recvfrom(two, data, 4, flags, from.as_mut_ptr().cast(), len);
        let mut recv_from = recv_from;
        assert_eq!(failed(recv_from(0, &mut len)), libc::EAGAIN);
        let at = (&raw const to).cast();
        assert_eq!(rr_sendto(one, b"pings".as_ptr().cast(), 5, 0, at, size_of_val(&to) as u32), 5);
        assert_eq!(wait(set, 5000), Some(two as u64));
        assert_eq!(failed(recv_from(libc::MSG_PEEK, null_mut())), libc::EFAULT);
        assert_eq!(recv_from(libc::MSG_PEEK, &mut len), 4);
        assert_eq!(recv_from(libc::MSG_TRUNC, &mut len), 5, "its whole length");
        let told = from.assume_init();
        assert_eq!((len, u16::from_be(told.sin_port)), (16, 7));
        assert_eq!((u32::from_be(told.sin_addr.s_addr), &buf[..4]), (u32::from(OWN), &b"ping"[..]));
        // One that fits, to whom wants the address, a part of it, and none.
        for (room, port) in [(16, 7), (28, 7), (3, 0), (0, 0)] {
            assert_eq!(rr_sendto(one, b"pong".as_ptr().cast(), 4, 0, at, size_of_val(&to) as u32), 4);
            assert_eq!(wait(set, 5000), Some(two as u64));
            (from, len) = (MaybeUninit::zeroed(), room);
            let name = if room == 0 { null_mut() } else { from.as_mut_ptr().cast() };
            assert_eq!(rr_recvfrom(two, data, 16, 0, name, if room == 0 { null_mut() } else { &mut len }), 4);
            assert_eq!((u16::from_be(from.assume_init().sin_port), &buf[..4]), (port, &b"pong"[..]));
            assert_eq!(len, if room == 0 { 0 } else { 16 });
        }
        let nowhere = rr_sendto(one, data, 4, 0, null(), 0);
        assert_eq!(failed(nowhere), libc::EDESTADDRREQ);
        let short = rr_sendto(one, data, 4, 0, at, 8);
        assert_eq!(failed(short), libc::EINVAL, "half an address");
    }
    assert_eq!((rr_close(one), rr_close(two)), (0, 0));
}
/// Loops that ask for a figure and nothing else get the worker's turns.
fn figures(set: c_int) {
    const TIOCOUTQ: std::ffi::c_ulong = libc::TIOCOUTQ;
    let [far, near] = connection(set, 11);
    let until = |fd: c_int, request, wanted: c_int| {
        let begun = std::time::Instant::now();
        let mut n: c_int = -1;
        while n != wanted {
            // SAFETY: `n` is what both requests write to.
            assert_eq!(unsafe { rr_ioctl(fd, request, (&raw mut n) as _) }, 0);
            assert!(begun.elapsed().as_secs() < 10, "still {n}");
        }
    };
    assert_eq!(send(far, b"ping", 0), 4);
    until(near, libc::FIONREAD as _, 4);
    until(far, TIOCOUTQ as _, 0);
    assert_eq!((rr_close(far), rr_close(near)), (0, 0));
}

/// F_DUPFD: the number is not below the one that is asked for.
fn numbers() {
    let fd = open(libc::SOCK_DGRAM, 12);
    // SAFETY: takes numbers only.
    let dup = |from: c_int| unsafe { rr_fcntl(fd, libc::F_DUPFD, from as _) };
    let [low, high, next] = [0, 700, 700].map(dup);
    assert!(low >= 0 && high >= 700 && next > high, "{low} {high} {next}");
    assert_eq!(failed(dup(-1) as isize), libc::EINVAL);
    assert_eq!(failed(dup(c_int::MAX) as isize), libc::EINVAL, "beyond RLIMIT_NOFILE");
    assert_eq!([fd, low, high, next].map(|fd| rr_close(fd)), [0; 4]);
    assert_eq!(failed(rr_close(high) as isize), libc::EBADF);
}

#[test]
fn calls_on_a_workers_own_sockets() {
    let (wire, device, _other) = Wire::new(WireConfig::default(), 5);
    let config = stack::Config {
        mode: stack::Mode::Owned,
        addresses: vec![(IpAddr::V4(OWN), 24)],
        mac: ringroad::wire::ethernet::Mac(device.capabilities().mac),
        ..stack::Config::default()
    };
    let sockets = Sockets::new(Stack::new(config, Pool::new(Arena::heap(2048, 2048), 0, 2048), 11));
    let tick: Box<dyn FnMut(_) + Send> = Box::new(move |now| wire.advance(now));
    let station = Station { device, sockets, fd: None, mirror: None, tick: Some(tick) };
    let config = Config { wait: Wait::Block, seed: Some(7), ..Config::new("memory") };
    let runtime = Runtime::with_stations(config, vec![station]).unwrap();
    runtime.install().unwrap();
    let ran = runtime.run_loop(|| {
        let set = rr_epoll_create1(0);
        datagrams(set);
        lent(set);
        streams(set);
        figures(set);
        numbers();
        assert_eq!(rr_close(set), 0);
        false
    });
    ran.unwrap();
}
