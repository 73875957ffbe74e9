//! Sockets that any thread may use, on a veth pair against the kernel. Needs
//! root and strace.

#[path = "bed/mod.rs"]
mod bed;

use bed::Bed;
use ringroad::runtime::{Config, Runtime, Wait, posix};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// The process has one runtime for `posix` at a time.
static TURN: Mutex<()> = Mutex::new(());

fn at(ip: &str, port: u16) -> SocketAddr {
    format!("{ip}:{port}").parse().unwrap()
}

fn config(workers: usize, wait: Wait) -> Config {
    Config { workers, wait, active_ports: 64, ..Config::new(Bed::OUR_IF) }
}

/// Runs `ours` over a runtime in the stack's namespace, and `peers` in the
/// kernel's.
fn on_the_wire(workers: usize, wait: Wait, ours: impl FnOnce() + Send, peers: impl FnOnce() + Send) {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let bed = Bed::new(workers as u32);
    std::thread::scope(|scope| {
        let server = scope.spawn(|| {
            bed::enter(&bed.ours);
            let runtime = Runtime::start(config(workers, wait)).unwrap();
            runtime.install().unwrap();
            ours();
            runtime.shutdown(Duration::from_secs(1));
        });
        let peer = scope.spawn(|| {
            bed::enter(&bed.peer);
            peers();
        });
        peer.join().unwrap();
        server.join().unwrap();
    });
}

fn connect_kernel(port: u16) -> TcpStream {
    for _ in 0..200 {
        if let Ok(stream) = TcpStream::connect(at(Bed::OUR_IP, port)) {
            stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            return stream;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("nobody listens");
}

fn echo(fd: i32) {
    let mut buf = vec![0; 20_000];
    loop {
        match posix::recv(fd, &mut buf, 0).unwrap() {
            0 => break,
            n => assert_eq!(posix::send(fd, &buf[..n], 0), Ok(n)),
        }
    }
    posix::close(fd).unwrap();
}

#[test]
fn threads_serve_the_kernels_clients_from_two_workers() {
    const CLIENTS: usize = 24;
    let ours = || {
        let listener = posix::socket(libc::AF_INET, libc::SOCK_STREAM, 0).unwrap();
        posix::bind(listener, at("0.0.0.0", 7000)).unwrap();
        posix::listen(listener, 64).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..CLIENTS {
                let (fd, peer) = posix::accept4(listener, libc::SOCK_CLOEXEC).unwrap();
                assert_eq!(peer.ip().to_string(), Bed::PEER_IP);
                scope.spawn(move || echo(fd));
            }
        });
        posix::close(listener).unwrap();
    };
    let peers = || {
        std::thread::scope(|scope| {
            for i in 0..CLIENTS {
                scope.spawn(move || {
                    let mut stream = connect_kernel(7000);
                    let data: Vec<u8> = (0..100_000).map(|b| (b * 7 + i) as u8).collect();
                    let mut writer = stream.try_clone().unwrap();
                    let sent = data.clone();
                    std::thread::scope(|scope| {
                        scope.spawn(move || {
                            writer.write_all(&sent).unwrap();
                            writer.shutdown(std::net::Shutdown::Write).unwrap();
                        });
                        let mut back = Vec::new();
                        stream.read_to_end(&mut back).unwrap();
                        assert!(back == data, "{} bytes came back", back.len());
                    });
                });
            }
        });
    };
    on_the_wire(2, Wait::Block, ours, peers);
}

#[test]
fn a_thread_is_a_client_of_the_kernels_servers() {
    let ours = || {
        std::thread::sleep(Duration::from_millis(300));
        for _ in 0..20 {
            let fd = posix::socket(libc::AF_INET, libc::SOCK_STREAM, 0).unwrap();
            posix::connect(fd, at(Bed::PEER_IP, 7001)).unwrap();
            assert_eq!(posix::send(fd, b"hello", 0), Ok(5));
            let mut buf = [0; 9];
            assert_eq!(posix::recv(fd, &mut buf[..5], libc::MSG_WAITALL), Ok(5));
            assert_eq!(&buf[..5], b"hello");
            posix::close(fd).unwrap();
        }
        let fd = posix::socket(libc::AF_INET, libc::SOCK_DGRAM, 0).unwrap();
        posix::connect(fd, at(Bed::PEER_IP, 7001)).unwrap();
        assert_eq!(posix::send(fd, b"datagram", 0), Ok(8));
        let mut buf = [0; 20];
        assert_eq!(posix::recv(fd, &mut buf, 0), Ok(8));
        posix::close(fd).unwrap();
        let refused = posix::socket(libc::AF_INET, libc::SOCK_STREAM, 0).unwrap();
        let error = posix::connect(refused, at(Bed::PEER_IP, 7002)).unwrap_err();
        assert_eq!(error, ringroad::errno::Errno::ECONNREFUSED);
        posix::close(refused).unwrap();
    };
    let peers = || {
        let udp = UdpSocket::bind(at(Bed::PEER_IP, 7001)).unwrap();
        let listener = TcpListener::bind(at(Bed::PEER_IP, 7001)).unwrap();
        for _ in 0..20 {
            let (mut stream, _) = listener.accept().unwrap();
            let mut buf = [0; 5];
            stream.read_exact(&mut buf).unwrap();
            stream.write_all(&buf).unwrap();
            assert_eq!(stream.read(&mut buf).unwrap(), 0);
        }
        let mut buf = [0; 20];
        let (n, from) = udp.recv_from(&mut buf).unwrap();
        udp.send_to(&buf[..n], from).unwrap();
    };
    on_the_wire(1, Wait::Adaptive, ours, peers);
}

#[test]
fn a_port_that_the_kernel_holds_is_refused_and_ours_is_refused_to_it() {
    let ours = || {
        use ringroad::errno::Errno::EADDRINUSE;
        let kernel = TcpListener::bind(at(Bed::OUR_IP, 7003)).unwrap();
        let fd = posix::socket(libc::AF_INET, libc::SOCK_STREAM, 0).unwrap();
        let refused = posix::bind(fd, at("0.0.0.0", 7003)).and_then(|()| posix::listen(fd, 1));
        assert_eq!(refused, Err(EADDRINUSE));
        drop(kernel);
        posix::close(fd).unwrap();
        let fd = posix::socket(libc::AF_INET, libc::SOCK_STREAM, 0).unwrap();
        posix::bind(fd, at("0.0.0.0", 7004)).unwrap();
        posix::listen(fd, 1).unwrap();
        assert!(TcpListener::bind(at(Bed::OUR_IP, 7004)).is_err());
        posix::close(fd).unwrap();
        std::thread::sleep(Duration::from_millis(100));
        TcpListener::bind(at(Bed::OUR_IP, 7004)).unwrap();
    };
    on_the_wire(1, Wait::Block, ours, || {});
}

const BEGIN: &str = "ringroad-window-begins";
const END: &str = "ringroad-window-ends";

/// Shows up in strace, and nowhere else.
fn mark(text: &str) {
    // SAFETY: readable bytes; there is no such descriptor.
    unsafe { libc::write(-1, text.as_ptr().cast(), text.len()) };
}

/// Run under strace by the test below.
fn echoes_between_awake_sides() {
    let ours = || {
        let listener = posix::socket(libc::AF_INET, libc::SOCK_STREAM, 0).unwrap();
        posix::bind(listener, at("0.0.0.0", 7005)).unwrap();
        posix::listen(listener, 4).unwrap();
        let (fd, _) = posix::accept4(listener, libc::SOCK_NONBLOCK).unwrap();
        let mut buf = [0; 64];
        let mut served = 0;
        while served < 200 {
            if let Ok(n) = posix::recv(fd, &mut buf, 0) {
                assert_eq!(posix::send(fd, &buf[..n], 0), Ok(n));
                served += 1;
                // What the first ones make (rings, frames) is made.
                match served {
                    50 => mark(BEGIN),
                    150 => mark(END),
                    _ => {}
                }
            }
        }
        posix::close(fd).unwrap();
        posix::close(listener).unwrap();
    };
    let peers = || {
        let mut stream = connect_kernel(7005);
        let mut buf = [0; 32];
        for _ in 0..200 {
            stream.write_all(&[7; 32]).unwrap();
            stream.read_exact(&mut buf).unwrap();
        }
    };
    on_the_wire(1, Wait::Spin, ours, peers);
}

#[test]
fn awake_sides_make_no_system_call_for_each_other() {
    if std::env::var_os("RINGROAD_TEST_UNDER_STRACE").is_some() {
        return echoes_between_awake_sides();
    }
    let trace = bed::TempFile::new("strace.txt");
    let this = std::env::current_exe().unwrap();
    let out = std::process::Command::new("strace")
        .args(["-f", "-e", "trace=futex,write,ppoll,poll,epoll_wait", "-o", trace.path()])
        .arg(this)
        .args(["--exact", "awake_sides_make_no_system_call_for_each_other", "--test-threads=1"])
        .env("RINGROAD_TEST_UNDER_STRACE", "1")
        .output()
        .expect("strace runs");
    assert!(out.status.success(), "{}", bed::text_of(&out));
    let trace = std::fs::read_to_string(trace.path()).unwrap();
    let window: Vec<&str> = trace
        .lines()
        .skip_while(|line| !line.contains(BEGIN))
        .skip(1)
        .take_while(|line| !line.contains(END))
        .collect();
    assert!(trace.contains(END), "the window did not end");
    // The kernel's client writes to its own socket: 32 bytes at a time.
    let ours: Vec<_> = window.iter().filter(|line| !line.contains(", 32)") && !line.contains("resumed")).collect();
    assert!(ours.is_empty(), "{ours:#?}");
}
