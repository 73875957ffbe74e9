//! The C layer on a worker's own thread and its own sockets: calls that do a part of
//! what they were asked, or wait, or whose socket becomes any thread's.

use libc::{c_int, c_void, iovec, mmsghdr, sockaddr_in};
use ringroad::device::Device;
use ringroad::device::memory::{Wire, WireConfig};
use ringroad::ffi::*;
use ringroad::frame::{Arena, Pool};
use ringroad::runtime::{Config, Runtime, Station, Wait};
use ringroad::socket::Sockets;
use ringroad::stack::{self, Stack};
use std::net::{IpAddr, Ipv4Addr};
use std::ptr::null_mut;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

const OWN: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);

/// The runtime that calls go to is the process's: one test after the other.
static TURN: Mutex<()> = Mutex::new(());

/// Runs this on a worker whose sockets get ports of this range.
fn on_worker(ports: (u16, u16), f: fn()) {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let (wire, device, _other) = Wire::new(WireConfig { mtu: 9000, ..WireConfig::default() }, 5);
    let config = stack::Config {
        mode: stack::Mode::Owned,
        addresses: vec![(IpAddr::V4(OWN), 24)],
        mac: ringroad::wire::ethernet::Mac(device.capabilities().mac),
        mtu: 9000,
        ephemeral_ports: ports,
        ..stack::Config::default()
    };
    let sockets = Sockets::new(Stack::new(config, Pool::new(Arena::heap(2048, 2048), 0, 2048), 11));
    let tick: Box<dyn FnMut(_) + Send> = Box::new(move |now| wire.advance(now));
    let station = Station { device, sockets, fd: None, mirror: None, tick: Some(tick) };
    let config = Config { wait: Wait::Block, seed: Some(7), ..Config::new("memory") };
    let runtime = Runtime::with_stations(config, vec![station]).unwrap();
    runtime.install().unwrap();
    let ran = runtime.run_loop(move || {
        f();
        false
    });
    ran.unwrap();
}

const MANY: (u16, u16) = (32768, 60999);

fn errno() -> c_int {
    std::io::Error::last_os_error().raw_os_error().unwrap()
}

fn failed(result: isize) -> c_int {
    assert_eq!(result, -1);
    errno()
}

fn address(port: u16) -> sockaddr_in {
    sockaddr_in {
        sin_family: libc::AF_INET as u16,
        sin_port: port.to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from(OWN).to_be() },
        sin_zero: [0; 8],
    }
}

fn bound(kind: c_int, port: u16) -> c_int {
    let fd = rr_socket(libc::AF_INET, kind, 0);
    let at = address(port);
    // SAFETY: a valid address, and its length.
    assert_eq!(unsafe { rr_bind(fd, (&raw const at).cast(), size_of_val(&at) as u32) }, 0);
    fd
}

fn send(fd: c_int, data: &[u8], flags: c_int) -> isize {
    // SAFETY: so many readable bytes.
    unsafe { rr_send(fd, data.as_ptr().cast(), data.len(), flags) }
}

fn send_to(fd: c_int, data: &[u8], flags: c_int, port: u16) -> isize {
    let at = address(port);
    // SAFETY: so many readable bytes, and a valid address.
    unsafe { rr_sendto(fd, data.as_ptr().cast(), data.len(), flags, (&raw const at).cast(), size_of_val(&at) as u32) }
}

fn recv(fd: c_int, out: &mut [u8], flags: c_int) -> isize {
    // SAFETY: so many writable bytes.
    unsafe { rr_recv(fd, out.as_mut_ptr().cast(), out.len(), flags) }
}

fn set<T>(fd: c_int, name: c_int, value: T) {
    let at: *const c_void = (&raw const value).cast();
    // SAFETY: a valid option of this length.
    assert_eq!(unsafe { rr_setsockopt(fd, libc::SOL_SOCKET, name, at, size_of::<T>() as u32) }, 0);
}

fn seconds(span: Duration) -> libc::timeval {
    libc::timeval { tv_sec: span.as_secs() as i64, tv_usec: span.subsec_micros().into() }
}

/// Both ends of a connection, which block.
fn connection(port: u16) -> [c_int; 2] {
    let listener = bound(libc::SOCK_STREAM, port);
    assert_eq!(rr_listen(listener, 4), 0);
    let (fd, at) = (rr_socket(libc::AF_INET, libc::SOCK_STREAM, 0), address(port));
    // SAFETY: a valid address, and its length; null pointers are allowed.
    unsafe {
        assert_eq!(rr_connect(fd, (&raw const at).cast(), size_of_val(&at) as u32), 0);
        let accepted = rr_accept4(listener, null_mut(), null_mut(), 0);
        assert!(accepted >= 0);
        assert_eq!(rr_close(listener), 0);
        [fd, accepted]
    }
}

fn message(part: &mut iovec) -> mmsghdr {
    // SAFETY: all zeros is an empty message.
    let mut message: mmsghdr = unsafe { std::mem::zeroed() };
    (message.msg_hdr.msg_iov, message.msg_hdr.msg_iovlen) = (part, 1);
    message
}

fn part(data: &mut [u8]) -> iovec {
    iovec { iov_base: data.as_mut_ptr().cast(), iov_len: data.len() }
}

const NO_FRAME: rr_zc_frame = rr_zc_frame { data: null_mut(), len: 0, id: 0 };

#[test]
fn a_message_that_is_sent_in_part_is_the_last_of_its_call() {
    on_worker(MANY, || {
        let [far, near] = connection(9);
        set(far, libc::SO_SNDTIMEO, seconds(Duration::from_millis(600)));
        let (mut large, mut small) = (vec![b'A'; 16 << 20], *b"B");
        let (mut one, mut two) = (part(&mut large), part(&mut small));
        let mut messages = [message(&mut one), message(&mut two)];
        let reader = std::thread::spawn(move || {
            // Room comes while the second would wait.
            std::thread::sleep(Duration::from_millis(900));
            recv(near, &mut vec![0; 1 << 20], libc::MSG_WAITALL)
        });
        // SAFETY: valid messages.
        let sent = unsafe { rr_sendmmsg(far, messages.as_mut_ptr(), 2, 0) };
        assert_eq!(sent, 1);
        assert!((1..16 << 20).contains(&messages[0].msg_len), "{}", messages[0].msg_len);
        assert_eq!(rr_shutdown(far, libc::SHUT_WR), 0);
        let (set, mut event) = (rr_epoll_create1(0), libc::epoll_event { events: 0, u64: 0 });
        while !reader.is_finished() {
            // The worker's turns. SAFETY: room for one event.
            assert_eq!(unsafe { rr_epoll_wait(set, &mut event, 1, 1) }, 0);
        }
        assert!(reader.join().unwrap() > 0);
        assert_eq!([rr_close(near), rr_close(far), rr_close(set)], [0; 3]);
    });
}

#[test]
fn a_datagram_larger_than_a_frame_is_not_lent_and_not_lost() {
    on_worker(MANY, || {
        let (to, from) = (bound(libc::SOCK_DGRAM, 7), bound(libc::SOCK_DGRAM, 8));
        for len in [3, 5000, 4] {
            assert_eq!(send_to(from, &vec![1; len], 0, 7), len as isize);
        }
        assert_eq!(recv(to, &mut [0; 1], libc::MSG_PEEK), 1);
        let mut frames = [NO_FRAME; 4];
        let mut lend = || {
            // SAFETY: room for four frames.
            let n = unsafe { rr_zc_recv(to, frames.as_mut_ptr(), 4, libc::MSG_DONTWAIT) };
            if n < 0 {
                return Err(errno());
            }
            // SAFETY: they were lent just now.
            assert_eq!(unsafe { rr_zc_release(to, frames.as_mut_ptr(), n as usize) }, n);
            Ok(n)
        };
        assert_eq!([lend(), lend(), lend()], [Ok(1), Err(libc::EMSGSIZE), Err(libc::EMSGSIZE)]);
        assert_eq!(recv(to, &mut [0; 9000], 0), 5000);
        assert_eq!([lend(), lend()], [Ok(1), Err(libc::EAGAIN)]);
        assert_eq!((rr_close(to), rr_close(from)), (0, 0));
    });
}

#[test]
fn a_lent_frame_is_given_back_by_its_worker_also_where_the_socket_is_any_threads_by_now() {
    on_worker(MANY, || {
        let [far, near] = connection(9);
        assert_eq!(send(far, b"hello", 0), 5);
        let mut frames = [NO_FRAME; 2];
        // SAFETY: room for what is lent; takes numbers only.
        unsafe {
            assert_eq!((rr_zc_recv(near, &mut frames[0], 1, 0), frames[0].len), (1, 5));
            assert_eq!(rr_zc_alloc(near, &mut frames[1], 1), 1);
            let other = rr_fcntl(near, libc::F_DUPFD, 0);
            assert!(other >= 0);
            let copy = &mut { frames[0] };
            assert_eq!(failed(rr_zc_send(near, &mut frames[0], 1, 0)), libc::EOPNOTSUPP);
            assert_eq!(rr_zc_release(near, frames.as_mut_ptr(), 2), 2);
            assert_eq!(failed(rr_zc_release(near, copy, 1)), libc::EINVAL, "twice");
            assert_eq!((send(far, b"more", 0), recv(near, &mut [0; 9], 0)), (4, 4));
            assert_eq!([rr_close(near), rr_close(other), rr_close(far)], [0; 3]);
        }
    });
}

#[test]
fn a_frame_that_is_sent_behind_msg_more_ends_the_wait_for_more() {
    on_worker(MANY, || {
        let [far, near] = connection(9);
        let round = || {
            assert_eq!(send(far, b"x", libc::MSG_MORE), 1);
            let mut frame = NO_FRAME;
            // SAFETY: room for what is handed out, which has room for four bytes.
            unsafe {
                assert_eq!(rr_zc_alloc(far, &mut frame, 1), 1);
                frame.data.cast::<[u8; 4]>().write(*b"body");
                frame.len = 4;
                assert_eq!(rr_zc_send(far, &mut frame, 1, 0), 1);
            }
            let (begun, mut buf) = (Instant::now(), [0; 5]);
            assert_eq!((recv(near, &mut buf, libc::MSG_WAITALL), &buf), (5, b"xbody"));
            begun.elapsed()
        };
        // What is held back goes after 0.2 s.
        let least = (0..5).map(|_| round()).min().unwrap();
        assert!(least < Duration::from_millis(150), "{least:?}");
        assert_eq!((rr_close(near), rr_close(far)), (0, 0));
    });
}

#[test]
fn an_opening_without_data_waits_for_its_end() {
    on_worker(MANY, || {
        let fd = rr_socket(libc::AF_INET, libc::SOCK_STREAM, 0);
        assert_eq!(failed(send_to(fd, b"", libc::MSG_FASTOPEN, 4999)), libc::ECONNREFUSED);
        assert_eq!(rr_close(fd), 0);
        let listener = bound(libc::SOCK_STREAM, 9);
        assert_eq!(rr_listen(listener, 4), 0);
        let fd = rr_socket(libc::AF_INET, libc::SOCK_STREAM, 0);
        assert_eq!(send_to(fd, b"", libc::MSG_FASTOPEN, 9), 0);
        assert_eq!(send(fd, b"x", 0), 1);
        let fd2 = rr_socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_NONBLOCK, 0);
        assert_eq!(failed(send_to(fd2, b"", libc::MSG_FASTOPEN, 9)), libc::EINPROGRESS);
        assert_eq!([rr_close(fd), rr_close(fd2), rr_close(listener)], [0; 3]);
    });
}

#[test]
fn recvmmsg_says_how_much_of_its_time_is_left() {
    on_worker(MANY, || {
        let (to, from) = (bound(libc::SOCK_DGRAM, 7), bound(libc::SOCK_DGRAM, 8));
        assert_eq!(send_to(from, b"x", 0, 7), 1);
        let mut buf = [0; 8];
        let mut part = part(&mut buf);
        let mut message = message(&mut part);
        let mut time = libc::timespec { tv_sec: 600, tv_nsec: 0 };
        // SAFETY: a valid message and time.
        assert_eq!(unsafe { rr_recvmmsg(to, &mut message, 1, 0, &mut time) }, 1);
        assert!((500..600).contains(&time.tv_sec), "{}", time.tv_sec);
        assert!((0..1_000_000_000).contains(&time.tv_nsec));
        let left = (time.tv_sec, time.tv_nsec);
        // SAFETY: as above.
        let none = unsafe { rr_recvmmsg(to, &mut message, 1, libc::MSG_DONTWAIT, &mut time) };
        assert_eq!((failed(none as isize), (time.tv_sec, time.tv_nsec)), (libc::EAGAIN, left));
        assert_eq!((rr_close(to), rr_close(from)), (0, 0));
    });
}

#[test]
fn a_datagram_without_a_free_port_to_come_from_is_refused_at_once() {
    on_worker((40_000, 40_000), || {
        let open = || rr_socket(libc::AF_INET, libc::SOCK_DGRAM, 0);
        let (first, own, shared) = (open(), open(), open());
        assert_eq!(send_to(first, b"x", 0, 7), 1);
        for fd in [own, shared] {
            set(fd, libc::SO_SNDTIMEO, seconds(Duration::from_secs(5)));
        }
        // SAFETY: takes numbers only.
        let other = unsafe { rr_fcntl(shared, libc::F_DUPFD, 0) };
        for fd in [own, shared] {
            let begun = Instant::now();
            assert_eq!(failed(send_to(fd, b"x", 0, 7)), libc::EAGAIN);
            assert_eq!(failed(send(fd, b"x", 0)), libc::EAGAIN, "as Linux, before it asks where to");
            assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
        }
        assert_eq!([first, own, shared, other].map(|fd| rr_close(fd)), [0; 4]);
    });
}

#[test]
fn a_close_lingers_once_also_where_its_socket_becomes_any_threads() {
    on_worker(MANY, || {
        let [far, near] = connection(9);
        set(far, libc::SO_LINGER, libc::linger { l_onoff: 1, l_linger: 3 });
        while send(far, &[0; 1 << 16], libc::MSG_DONTWAIT) > 0 {}
        let other = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(300));
            let (mut kind, mut len): (c_int, u32) = (0, 4);
            // SAFETY: an option of four bytes.
            unsafe { rr_getsockopt(far, libc::SOL_SOCKET, libc::SO_TYPE, (&raw mut kind).cast(), &mut len) }
        });
        let begun = Instant::now();
        assert_eq!(rr_close(far), 0);
        let took = begun.elapsed();
        assert!((Duration::from_millis(2900)..Duration::from_millis(5500)).contains(&took), "{took:?}");
        assert_eq!(other.join().unwrap(), 0);
        assert_eq!(rr_close(near), 0);
    });
}
