//! What a call costs through C beside the same call in Rust: 64 bytes that are
//! looked at and stay where they are.

use crate::ours::{self, MESSAGE};
use criterion::Criterion;
use libc::{c_int, sockaddr_in};
use ringroad::device::memory::{Wire, WireConfig};
use ringroad::ffi::{rr_bind, rr_recv, rr_sendto, rr_socket};
use ringroad::frame::Pool;
use ringroad::runtime::{Config, Runtime, Station, Wait};
use ringroad::socket::linux::{AF_INET, MSG_PEEK, SOCK_DGRAM};
use ringroad::time::{Duration, Instant};
use std::hint::black_box;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

fn address() -> (sockaddr_in, u32) {
    let address = sockaddr_in {
        sin_family: libc::AF_INET as u16,
        sin_port: 7u16.to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes([10, 0, 0, 1]) },
        sin_zero: [0; 8],
    };
    (address, size_of::<sockaddr_in>() as u32)
}

/// A socket that has a datagram of its own to read.
fn open() -> c_int {
    let fd = rr_socket(libc::AF_INET, libc::SOCK_DGRAM, 0);
    let (to, len) = address();
    let data = [7u8; MESSAGE];
    // SAFETY: a valid address, and its length.
    assert_eq!(unsafe { rr_bind(fd, (&raw const to).cast(), len) }, 0);
    // SAFETY: likewise, and so many bytes.
    let sent = unsafe { rr_sendto(fd, data.as_ptr().cast(), data.len(), 0, (&raw const to).cast(), len) };
    assert_eq!(sent, MESSAGE as isize);
    fd
}

/// Looks `n` times.
fn look(fd: c_int, n: u64, flags: c_int) -> bool {
    let mut buffer = [0u8; MESSAGE];
    (0..n).all(|_| {
        // SAFETY: so many bytes can be written.
        let got = unsafe { rr_recv(black_box(fd), buffer.as_mut_ptr().cast(), MESSAGE, flags) };
        got == MESSAGE as isize
    })
}

/// `n` calls on a worker's own thread, and what they took.
fn on_a_worker(runtime: &Runtime, n: u64) -> std::time::Duration {
    let took = Arc::new(AtomicU64::new(0));
    let result = took.clone();
    let turn = move || {
        let fd = open();
        // Waits until the datagram is there.
        assert!(look(fd, 1, libc::MSG_PEEK));
        let begun = std::time::Instant::now();
        assert!(look(fd, n, libc::MSG_PEEK | libc::MSG_DONTWAIT));
        result.store(begun.elapsed().as_nanos() as u64, Ordering::Relaxed);
        assert_eq!(ringroad::ffi::rr_close(fd), 0);
        false
    };
    runtime.run_loop(turn).expect("it runs to its end");
    std::time::Duration::from_nanos(took.load(Ordering::Relaxed))
}

/// The call in Rust, in C, and C's from a thread of its own.
pub fn calls(c: &mut Criterion) {
    let mut group = c.benchmark_group("a call: 64 bytes looked at");
    let mut core = ours::core(1, Pool::heap(ours::FRAMES, 2048));
    let at = SocketAddr::from(([10, 0, 0, 1], 7));
    let h = core.socket(AF_INET, SOCK_DGRAM, 0).expect("a socket");
    core.bind(h, at).expect("a free port");
    core.send_to(h, &[7; MESSAGE], 0, Some(at), &Default::default()).expect("room");
    core.turn(Instant::ZERO + Duration::from_secs(1));
    let mut buffer = [0; MESSAGE];
    group.bench_function("Rust, on a core", |b| {
        b.iter(|| assert_eq!(core.recv(black_box(h), &mut buffer, MSG_PEEK), Ok(MESSAGE)));
    });
    let (wire, device, _far) = Wire::new(WireConfig::default(), 1);
    let tick: Box<dyn FnMut(Instant) + Send> = Box::new(move |now| wire.advance(now));
    let station = Station { device, sockets: ours::core(1, Pool::heap(ours::FRAMES, 2048)), fd: None, mirror: None, tick: Some(tick) };
    let config = Config { wait: Wait::Block, seed: Some(7), ..Config::new("memory") };
    let runtime = Runtime::with_stations(config, vec![station]).expect("a worker");
    runtime.install().expect("the only one");
    group.bench_function("C, on a worker", |b| b.iter_custom(|n| on_a_worker(&runtime, n)));
    let fd = open();
    assert!(look(fd, 1, libc::MSG_PEEK));
    group.bench_function("C, from another thread", |b| b.iter(|| assert!(look(fd, 1, libc::MSG_PEEK))));
    assert_eq!(ringroad::ffi::rr_close(fd), 0);
    group.finish();
}
