//! A delay line: packets that leave by a TUN device are held for a while in a
//! thread of this process and then come in by it again. (A kernel may be built
//! without netem; the thread runs at real-time priority, so that its delays are
//! as even as a kernel's.)

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Packets that one lane holds at most; beyond it they are lost, and counted.
const HELD: usize = 20_000;
const PACKET: usize = 2048;

/// A TUN device of the calling thread's namespace.
pub fn tun(name: &str) -> File {
    let file = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/net/tun");
    let file = file.expect("/dev/net/tun");
    // SAFETY: all-zero bytes are a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as i16;
    // SAFETY: TUNSETIFF reads and writes one ifreq, which is live.
    let made = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF as _, &mut request) };
    assert_eq!(made, 0, "TUNSETIFF {name}: {}", std::io::Error::last_os_error());
    file
}

/// What comes out of one device, and when and where it goes in again.
pub struct Lane {
    /// Packets are taken from here.
    pub from: File,
    /// They go in again here.
    pub to: File,
    /// How long they are held.
    pub hold: Duration,
}

/// The thread that holds the packets.
pub struct DelayLine {
    stop: Arc<AtomicBool>,
    lost: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl DelayLine {
    pub fn start(lanes: Vec<Lane>) -> Self {
        let (stop, lost) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (flag, count) = (stop.clone(), lost.clone());
        let thread = thread::spawn(move || run(lanes, &flag, &count));
        Self { stop, lost, thread: Some(thread) }
    }

    /// Packets that were lost here: none should be.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

impl Drop for DelayLine {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Held {
    until: Instant,
    bytes: Vec<u8>,
    len: usize,
}

fn run(mut lanes: Vec<Lane>, stop: &AtomicBool, lost: &AtomicU64) {
    let priority = libc::sched_param { sched_priority: 10 };
    // SAFETY: `priority` is live; 0 is this thread. Where it is refused, delays are less even.
    unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &priority) };
    let mut queues: Vec<VecDeque<Held>> = lanes.iter().map(|_| VecDeque::new()).collect();
    let mut spare: Vec<Held> = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let mut next = Duration::from_millis(50);
        for (lane, queue) in lanes.iter_mut().zip(&mut queues) {
            take(lane, queue, &mut spare, lost);
            while queue.front().is_some_and(|held| held.until <= Instant::now()) {
                let Some(held) = queue.pop_front() else { break };
                if lane.to.write(&held.bytes[..held.len]).is_err() {
                    lost.fetch_add(1, Ordering::Relaxed);
                }
                spare.push(held);
            }
            if let Some(held) = queue.front() {
                next = next.min(held.until.saturating_duration_since(Instant::now()));
            }
        }
        wait(&lanes, next);
    }
}

/// Takes what waits in a lane's device.
fn take(lane: &mut Lane, queue: &mut VecDeque<Held>, spare: &mut Vec<Held>, lost: &AtomicU64) {
    loop {
        let fresh = || Held { until: Instant::now(), bytes: vec![0; PACKET], len: 0 };
        let mut held = spare.pop().unwrap_or_else(fresh);
        match lane.from.read(&mut held.bytes) {
            Ok(len) if queue.len() < HELD => {
                (held.until, held.len) = (Instant::now() + lane.hold, len);
                queue.push_back(held);
            }
            Ok(_) => {
                lost.fetch_add(1, Ordering::Relaxed);
                spare.push(held);
            }
            Err(_) => return spare.push(held),
        }
    }
}

fn wait(lanes: &[Lane], time: Duration) {
    let watch = |lane: &Lane| libc::pollfd { fd: lane.from.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    let mut set: Vec<libc::pollfd> = lanes.iter().map(watch).collect();
    let time = libc::timespec { tv_sec: 0, tv_nsec: time.as_nanos().min(999_999_999) as i64 };
    // SAFETY: `set` and `time` are live, and the length is the set's.
    unsafe { libc::ppoll(set.as_mut_ptr(), set.len() as libc::nfds_t, &time, std::ptr::null()) };
}
