//! Drives the interface as packetdrill does, through the exported symbol, with
//! segments built here.

use core::ffi::{CStr, c_int, c_void};
use core::mem::MaybeUninit;
use libc::{in_addr, pollfd, sockaddr_in, socklen_t, timeval};
use ringroad_packetdrill::{packetdrill_interface, packetdrill_interface_init};
use std::iter;
use std::net::Ipv4Addr;
use std::process::Command;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

const OURS: Ipv4Addr = Ipv4Addr::new(192, 168, 0, 1);
const PEER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const PORT: u16 = 8080;
const PEER_PORT: u16 = 40_000;
const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const PSH: u8 = 8;
const ACK: u8 = 16;

/// The machine behind the interface.
struct Machine(packetdrill_interface);

// SAFETY: the interface says that a second thread may make blocking calls.
unsafe impl Sync for Machine {}

impl Drop for Machine {
    fn drop(&mut self) {
        // SAFETY: once, and last.
        unsafe { (self.0.free)(self.0.userdata) };
    }
}

/// What the tests look at in a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    seq: u32,
    ack: u32,
    flags: u8,
    payload: usize,
    at_us: i64,
}

fn sum(bytes: &[u8], start: u32) -> u32 {
    bytes.chunks(2).fold(start, |s, c| s + u32::from(c[0]) * 256 + u32::from(*c.get(1).unwrap_or(&0)))
}

fn fold(mut s: u32) -> u16 {
    while s > 0xffff {
        s = (s & 0xffff) + (s >> 16);
    }
    !(s as u16)
}

/// A segment of the peer's, in an IPv4 packet.
fn segment(seq: u32, ack: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut tcp = Vec::new();
    tcp.extend(PEER_PORT.to_be_bytes());
    tcp.extend(PORT.to_be_bytes());
    tcp.extend(seq.to_be_bytes());
    tcp.extend(ack.to_be_bytes());
    let options: &[u8] = if flags & SYN != 0 { &[2, 4, 5, 0xb4] } else { &[] };
    tcp.extend([((20 + options.len()) / 4 * 16) as u8, flags]);
    tcp.extend(30_000u16.to_be_bytes());
    tcp.extend([0, 0, 0, 0]);
    tcp.extend(options);
    tcp.extend(payload);
    let pseudo = sum(&PEER.octets(), sum(&OURS.octets(), 6 + tcp.len() as u32));
    let check = fold(sum(&tcp, pseudo));
    tcp[16..18].copy_from_slice(&check.to_be_bytes());
    let mut ip = vec![0x45, 0, 0, 0, 0, 1, 0, 0, 64, 6, 0, 0];
    ip[2..4].copy_from_slice(&(20 + tcp.len() as u16).to_be_bytes());
    ip.extend(PEER.octets());
    ip.extend(OURS.octets());
    let check = fold(sum(&ip, 0));
    ip[10..12].copy_from_slice(&check.to_be_bytes());
    ip.extend(tcp);
    ip
}

fn address(ip: Ipv4Addr, port: u16) -> sockaddr_in {
    sockaddr_in {
        sin_family: libc::AF_INET as u16,
        sin_port: port.to_be(),
        sin_addr: in_addr { s_addr: u32::from(ip).to_be() },
        sin_zero: [0; 8],
    }
}

fn errno() -> c_int {
    std::io::Error::last_os_error().raw_os_error().unwrap()
}

/// Calls of the interface, each with valid arguments.
impl Machine {
    fn new(flags: &CStr) -> Self {
        let mut interface = MaybeUninit::uninit();
        // SAFETY: a string, and room for the struct, which the call fills in.
        unsafe {
            packetdrill_interface_init(flags.as_ptr(), interface.as_mut_ptr());
            Self(interface.assume_init())
        }
    }

    fn socket(&self) -> c_int {
        // SAFETY: plain call.
        unsafe { (self.0.socket)(self.0.userdata, libc::AF_INET, libc::SOCK_STREAM, 0) }
    }

    fn listener(&self) -> c_int {
        let fd = self.socket();
        let (addr, len) = (address(OURS, PORT), size_of::<sockaddr_in>() as socklen_t);
        // SAFETY: an address of that length.
        unsafe {
            assert_eq!((self.0.bind)(self.0.userdata, fd, (&raw const addr).cast(), len), 0);
            assert_eq!((self.0.listen)(self.0.userdata, fd, 5), 0);
        }
        fd
    }

    fn accept(&self, fd: c_int) -> c_int {
        // SAFETY: no address is wanted.
        unsafe { (self.0.accept)(self.0.userdata, fd, std::ptr::null_mut(), std::ptr::null_mut()) }
    }

    fn connect(&self, fd: c_int) -> c_int {
        let (addr, len) = (address(PEER, PEER_PORT), size_of::<sockaddr_in>() as socklen_t);
        // SAFETY: an address of that length.
        unsafe { (self.0.connect)(self.0.userdata, fd, (&raw const addr).cast(), len) }
    }

    fn write(&self, fd: c_int, data: &[u8]) -> isize {
        // SAFETY: readable bytes.
        unsafe { (self.0.write)(self.0.userdata, fd, data.as_ptr().cast(), data.len()) }
    }

    fn read(&self, fd: c_int, room: &mut [u8]) -> isize {
        // SAFETY: writable bytes.
        unsafe { (self.0.read)(self.0.userdata, fd, room.as_mut_ptr().cast(), room.len()) }
    }

    fn close(&self, fd: c_int) -> c_int {
        // SAFETY: plain call.
        unsafe { (self.0.close)(self.0.userdata, fd) }
    }

    fn set_nonblocking(&self, fd: c_int) {
        // SAFETY: F_SETFL takes a number.
        assert_eq!(unsafe { (self.0.fcntl)(self.0.userdata, fd, libc::F_SETFL, libc::O_NONBLOCK as _) }, 0);
    }

    fn inject(&self, packet: &[u8]) {
        // SAFETY: readable bytes.
        assert_eq!(unsafe { (self.0.netdev_send)(self.0.userdata, packet.as_ptr().cast(), packet.len()) }, 0);
    }

    fn receive(&self) -> Seen {
        let (mut buf, mut len, mut at_us) = ([0u8; 4096], 4096, 0);
        // SAFETY: writable bytes, and numbers.
        let result =
            unsafe { (self.0.netdev_receive)(self.0.userdata, buf.as_mut_ptr().cast(), &mut len, &mut at_us) };
        assert_eq!(result, 0);
        assert_eq!((buf[0], fold(sum(&buf[..20], 0))), (0x45, 0), "an IPv4 header with a right checksum");
        let tcp = &buf[20..len];
        let number = |at: usize| u32::from_be_bytes(tcp[at..at + 4].try_into().unwrap());
        let payload = tcp.len() - usize::from(tcp[12] >> 4) * 4;
        Seen { seq: number(4), ack: number(8), flags: tcp[13], payload, at_us }
    }

    fn sleep(&self, us: u32) {
        // SAFETY: plain call.
        unsafe { (self.0.usleep)(self.0.userdata, us) };
    }

    fn now(&self) -> i64 {
        let mut t = timeval { tv_sec: 0, tv_usec: 0 };
        // SAFETY: room for the time.
        unsafe { (self.0.gettimeofday)(self.0.userdata, &mut t, std::ptr::null_mut()) };
        t.tv_sec * 1_000_000 + t.tv_usec
    }

    fn poll(&self, fd: c_int, events: i16, timeout_ms: c_int) -> (c_int, i16) {
        let mut p = pollfd { fd, events, revents: 0 };
        // SAFETY: one struct.
        let n = unsafe { (self.0.poll)(self.0.userdata, &mut p, 1, timeout_ms) };
        (n, p.revents)
    }

    /// The first fields of TCP_INFO, as a `%{ }%` block gets them: by the C
    /// library's name.
    fn state(&self, fd: c_int) -> (c_int, [u8; 104]) {
        let (mut info, mut len) = ([0u8; 104], 104);
        // SAFETY: bytes of that length.
        let result = unsafe {
            libc::getsockopt(fd, libc::IPPROTO_TCP, libc::TCP_INFO, info.as_mut_ptr().cast(), &mut len)
        };
        (result, info)
    }

    /// An open connection: the peer's next number is 1.
    fn accepted(&self) -> (c_int, u32) {
        let listener = self.listener();
        self.inject(&segment(0, 0, SYN, b""));
        let answer = self.receive();
        assert_eq!((answer.flags, answer.ack, answer.payload), (SYN | ACK, 1, 0));
        let next = answer.seq.wrapping_add(1);
        self.inject(&segment(1, next, ACK, b""));
        let fd = self.accept(listener);
        assert!(fd >= 0);
        assert_eq!(self.close(listener), 0);
        (fd, next)
    }
}

#[test]
fn a_passive_open_a_request_an_answer_and_a_close() {
    let m = Machine::new(c"gateway=192.168.0.1,seed=3");
    let (fd, next) = m.accepted();
    m.inject(&segment(1, next, ACK | PSH, b"request"));
    let acked = m.receive();
    assert_eq!((acked.flags, acked.ack), (ACK, 8));
    let mut room = [0; 64];
    assert_eq!(m.read(fd, &mut room), 7);
    assert_eq!(&room[..7], b"request");
    assert_eq!(m.write(fd, b"answer"), 6);
    let answer = m.receive();
    assert_eq!((answer.seq, answer.flags, answer.payload), (next, ACK | PSH, 6));
    let (result, info) = m.state(fd);
    assert_eq!((result, info[0]), (0, 1), "TCP_ESTABLISHED");
    m.inject(&segment(8, next.wrapping_add(6), ACK | FIN, b""));
    assert_eq!(m.poll(fd, libc::POLLIN, 0).1 & libc::POLLIN, libc::POLLIN);
    assert_eq!(m.read(fd, &mut room), 0);
    assert_eq!(m.close(fd), 0);
    let last = iter::repeat_with(|| m.receive()).find(|s| s.flags & FIN != 0).unwrap();
    assert_eq!((last.seq, last.ack), (next.wrapping_add(6), 9));
    assert_eq!((m.close(fd), errno()), (-1, libc::EBADF));
}

#[test]
fn time_passes_where_packetdrill_waits_and_nowhere_else() {
    let m = Machine::new(c"gateway=192.168.0.1,tcp_initial_rto=700ms,tcp_syn_retries=2");
    let before = m.now();
    assert_eq!(m.now(), before + 1, "a look at the clock is a microsecond");
    m.sleep(500);
    assert_eq!(m.now(), before + 502);
    let fd = m.socket();
    m.set_nonblocking(fd);
    assert_eq!((m.connect(fd), errno()), (-1, libc::EINPROGRESS));
    let syn = m.receive();
    assert_eq!((syn.flags, syn.at_us), (SYN, before + 502));
    let again = m.receive();
    assert_eq!((again.flags, again.seq), (SYN, syn.seq));
    let took = again.at_us - syn.at_us;
    assert!((700_000..710_000).contains(&took), "the flags reach the stack: {took} us");
    assert_eq!(m.now(), again.at_us + 1);
}

#[test]
fn blocking_calls_end_by_virtual_time() {
    let m = Machine::new(c"gateway=192.168.0.1");
    let (fd, next) = m.accepted();
    // On the main thread: time goes to the end of the wait.
    let before = m.now();
    assert_eq!(m.poll(fd, libc::POLLIN, 250), (0, 0));
    let took = m.now() - before;
    assert!((250_000..250_010).contains(&took), "{took}");
    // On another: the main thread's time is the only one.
    let (begun, wait) = mpsc::channel();
    thread::scope(|scope| {
        let m = &m;
        let reader = scope.spawn(move || {
            let mut room = [0; 8];
            begun.send(()).unwrap();
            (m.read(fd, &mut room), m.now())
        });
        wait.recv().unwrap();
        // Until the reader waits, or has made its call: both end alike.
        thread::sleep(Duration::from_millis(50));
        m.sleep(10_000);
        m.inject(&segment(1, next, ACK | PSH, b"late"));
        let arrived = m.now();
        m.sleep(5_000_000);
        let (n, ended) = reader.join().unwrap();
        assert_eq!(n, 4);
        assert!((arrived - 10..arrived).contains(&ended), "ended at {ended}, data came by {arrived}");
    });
}

#[test]
fn a_blocking_connect_fails_when_the_stack_gives_up_or_the_peer_refuses() {
    let m = Machine::new(c"gateway=192.168.0.1,tcp_syn_retries=1");
    let fd = m.socket();
    assert_eq!((m.connect(fd), errno()), (-1, libc::ETIMEDOUT));
    let (first, second) = (m.receive(), m.receive());
    assert_eq!((first.flags, second.flags), (SYN, SYN));
    let fd = m.socket();
    m.set_nonblocking(fd);
    assert_eq!(m.connect(fd), -1);
    let (result, info) = m.state(fd);
    assert_eq!((result, info[0]), (0, 2), "TCP_SYN_SENT");
    assert_eq!(m.close(fd), 0);
    assert_eq!(m.state(fd), (-1, [0; 104]), "closed");
}

#[test]
fn a_segment_for_nobody_is_reset() {
    let m = Machine::new(c"gateway=192.168.0.1");
    m.inject(&segment(5, 77, ACK, b"x"));
    let answer = m.receive();
    assert_eq!((answer.flags, answer.seq), (RST, 77));
}

/// What ends the process is tried in one of its own: this test binary again, with
/// the name of the case.
const CASE: &str = "PACKETDRILL_TEST_CASE";

fn ends_with(case: &str) -> String {
    let program = std::env::current_exe().unwrap();
    let out = Command::new(program)
        .args(["--exact", "in_a_process_of_its_own", "--nocapture", "--test-threads=1"])
        .env(CASE, case)
        .output()
        .unwrap();
    assert_eq!(out.status.code(), Some(1), "{case}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stderr).into_owned()
}

#[test]
fn in_a_process_of_its_own() {
    match std::env::var(CASE).as_deref() {
        Ok("cap") => Machine::new(c"cap=10s").sleep(11_000_000),
        Ok("silence") => drop(Machine::new(c"").receive()),
        Ok("flag") => drop(Machine::new(c"tcp_nonsense=1")),
        Ok("value") => drop(Machine::new(c"mtu=9")),
        Ok("for ever") => {
            let m = Machine::new(c"");
            m.accept(m.listener());
        }
        _ => {}
    }
}

#[test]
fn a_script_that_hangs_ends_with_a_sentence() {
    assert!(ends_with("cap").contains("virtual time is over: 10 s"));
    assert!(ends_with("silence").contains("no packet comes any more"));
    assert!(ends_with("for ever").contains("would block for ever"));
    assert!(ends_with("flag").contains("tcp_nonsense=1: no such knob"));
    assert!(ends_with("value").contains("mtu: 9 is not from 68 to 65535"));
}

#[test]
fn sends_beyond_the_buffer_wait_and_vectors_are_whole() {
    let m = Machine::new(c"gateway=192.168.0.1,tcp_send_buffer=8K");
    let (fd, mut next) = m.accepted();
    m.set_nonblocking(fd);
    let data = [7u8; 100_000];
    let taken = m.write(fd, &data);
    assert!((1..100_000).contains(&taken), "{taken}");
    // SAFETY: F_SETFL takes a number.
    unsafe { (m.0.fcntl)(m.0.userdata, fd, libc::F_SETFL, 0) };
    let (begun, wait) = mpsc::channel();
    thread::scope(|scope| {
        let (m, data) = (&m, &data);
        let writer = scope.spawn(move || {
            begun.send(()).unwrap();
            m.write(fd, &data[..50_000])
        });
        wait.recv().unwrap();
        thread::sleep(Duration::from_millis(50));
        let mut got = 0;
        while got < taken as usize + 50_000 {
            let seen = m.receive();
            if seen.payload > 0 && seen.seq == next {
                got += seen.payload;
                next = next.wrapping_add(seen.payload as u32);
                m.inject(&segment(1, next, ACK, b""));
            }
        }
        assert_eq!(writer.join().unwrap(), 50_000);
    });
}

#[test]
fn pipes_files_and_sockets_of_the_system_go_to_the_system() {
    let m = Machine::new(c"gateway=192.168.0.1");
    let (fd, next) = m.accepted();
    let mut ends = [0; 2];
    // SAFETY: room for two descriptors; no offsets.
    unsafe {
        assert_eq!((m.0.pipe)(m.0.userdata, ends.as_mut_ptr()), 0);
        m.inject(&segment(1, next, ACK, b"through"));
        let none = std::ptr::null_mut();
        assert_eq!((m.0.splice)(m.0.userdata, fd, none, ends[1], none, 100, 0), 7);
    }
    let mut room = [0; 16];
    assert_eq!(m.read(ends[0], &mut room), 7);
    assert_eq!(&room[..7], b"through");
    assert_eq!(m.write(ends[1], b"back"), 4);
    // SAFETY: as above.
    unsafe {
        let none = std::ptr::null_mut();
        assert_eq!((m.0.splice)(m.0.userdata, ends[0], none, fd, none, 100, 0), 4);
    }
    let seen = iter::repeat_with(|| m.receive()).find(|s| s.payload > 0).unwrap();
    assert_eq!((seen.seq, seen.payload), (next, 4));
    let mut kind: c_int = 0;
    let mut len = size_of::<c_int>() as socklen_t;
    let at: *mut c_void = (&raw mut kind).cast();
    // SAFETY: a number of that length.
    let result =
        unsafe { (m.0.getsockopt)(m.0.userdata, ends[0], libc::SOL_SOCKET, libc::SO_TYPE, at, &mut len) };
    assert_eq!((result, errno()), (-1, libc::ENOTSOCK));
    assert_eq!((m.close(ends[0]), m.close(ends[1])), (0, 0));
}
