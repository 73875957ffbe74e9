//! The client: keeps so many frames under way, and measures how long each takes
//! there and back.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use ringroad::frame::{Frame, Pool, TxQueue};
use ringroad::telemetry::latency::{Latency, Report, TABLE};

use super::{Port, RING, neighbour, packet};
use packet::{HEADERS, TCP_HEADERS, Way};

/// A frame that is not back by then is lost, and another goes in its place.
const LOST: u64 = 100_000_000;
/// How often is looked for those.
const LOOK: u64 = 20_000_000;
const PORT: u16 = 9_999;

/// Measure round trips of frames, without a stack.
#[derive(clap::Args, Debug)]
pub struct AskArgs {
    #[arg(short, long)]
    interface: String,
    /// The interface's own address
    #[arg(long)]
    address: Ipv4Addr,
    /// Where the reflector is
    #[arg(long)]
    to: SocketAddrV4,
    /// Frames under way
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=8000))]
    window: u32,
    /// Frames are as long as those of TCP with so many bytes of payload
    #[arg(long, default_value_t = 64)]
    size: usize,
    /// Entries of each ring, a power of two and more than are under way
    #[arg(long, default_value_t = RING)]
    ring: u32,
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// Write the report to this file
    #[arg(long)]
    json: PathBuf,
}

/// What is under way: by number of its place, when it left and its turn.
#[derive(Clone, Copy, Default)]
struct Slot {
    sent: u64,
    turn: u32,
}

struct Asker {
    way: Way,
    len: usize,
    slots: Vec<Slot>,
    latency: Latency,
    measured: std::ops::Range<u64>,
    lost: u64,
    wrong: u64,
}

impl Asker {
    /// Put a place's next frame into the queue.
    #[inline]
    fn send(&mut self, at: usize, mut frame: Frame, now: u64, pool: &mut Pool, out: &mut TxQueue) {
        let slot = &mut self.slots[at];
        *slot = Slot { sent: now, turn: slot.turn.wrapping_add(1) };
        let turn = slot.turn;
        frame.set_range(0, self.len);
        let bytes = pool.bytes_mut(&mut frame);
        bytes[HEADERS..HEADERS + 4].copy_from_slice(&(at as u32).to_le_bytes());
        bytes[HEADERS + 4..HEADERS + 8].copy_from_slice(&turn.to_le_bytes());
        out.push(pool.transmit_and_free(frame, self.len));
    }

    /// A new frame for the place, from scratch.
    fn send_new(&mut self, at: usize, now: u64, pool: &mut Pool, out: &mut TxQueue) {
        let Some(mut frame) = pool.alloc() else { return };
        if out.room() == 0 {
            pool.free(frame);
            return;
        }
        frame.set_range(0, self.len);
        packet::headers(pool.bytes_mut(&mut frame), &self.way, self.len);
        self.send(at, frame, now, pool, out);
    }

    /// The place that a received frame answers, if it answers one.
    #[inline]
    fn place(&self, bytes: &[u8]) -> Option<usize> {
        let number = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        let (at, turn) = (number(HEADERS)? as usize, number(HEADERS + 4)?);
        (bytes.len() == self.len && self.slots.get(at)?.turn == turn).then_some(at)
    }

    fn report(&self, args: &AskArgs, mode: &str, warm_up: f64) -> Report {
        let errors = [("frame lost (not back within 100 ms)", self.lost), ("frame that nobody waited for", self.wrong)];
        Report {
            target: args.to.to_string(),
            protocol: "frames".into(),
            over: format!("the bare device; {mode}"),
            connections: self.slots.len(),
            size: args.size,
            rate: None,
            seconds: args.seconds,
            warm_up,
            requests: self.latency.count(),
            requests_per_second: self.latency.count() as f64 / args.seconds,
            bytes_received: self.latency.count() * args.size as u64,
            unanswered: 0,
            errors: errors.iter().filter(|(_, n)| *n > 0).map(|(text, n)| ((*text).to_string(), *n)).collect(),
            percentiles: TABLE.iter().map(|p| (*p, self.latency.percentile(*p).as_nanos())).collect(),
            min_ns: self.latency.min().as_nanos(),
            mean_ns: self.latency.mean_ns(),
            histogram: self.latency.buckets(),
        }
    }
}

pub fn run(args: &AskArgs) -> Result<(), String> {
    let to_mac = neighbour(*args.to.ip())?;
    let mut port = Port::open(&args.interface, args.address, PORT, args.ring)?;
    let from = SocketAddrV4::new(args.address, PORT);
    let ns = |seconds: f64| (seconds * 1e9) as u64;
    // As `ringroad load` does it: a fifth, at most a second.
    let warm_up = (args.seconds / 5.0).min(1.0);
    let mut asker = Asker {
        way: Way { from_mac: port.mac, to_mac, from, to: args.to },
        len: TCP_HEADERS + args.size,
        slots: vec![Slot::default(); args.window as usize],
        latency: Latency::new(),
        measured: ns(warm_up)..ns(warm_up) + ns(args.seconds),
        lost: 0,
        wrong: 0,
    };
    turn(&mut port, &mut asker);
    let report = asker.report(args, &port.mode(), warm_up);
    let text = serde_json::to_string(&report).map_err(|e| e.to_string())?;
    std::fs::write(&args.json, text).map_err(|e| format!("{}: {e}", args.json.display()))?;
    // What is still under way comes to a device that is there.
    std::thread::sleep(Duration::from_millis(5));
    if report.requests == 0 { Err("no frame came back".into()) } else { Ok(()) }
}

fn turn(port: &mut Port, asker: &mut Asker) {
    let origin = Instant::now();
    let clock = || origin.elapsed().as_nanos() as u64;
    for at in 0..asker.slots.len() {
        asker.send_new(at, clock(), &mut port.pool, &mut port.out);
    }
    let mut next_look = LOOK;
    loop {
        port.receive();
        let Port { pool, out, batch, .. } = port;
        for received in batch.drain(..) {
            let place = asker.place(pool.bytes(&received.head));
            let Some(at) = place.filter(|_| received.head.offset() == 0 && out.room() > 0) else {
                asker.wrong += u64::from(place.is_none());
                received.free(pool);
                continue;
            };
            let (now, sent) = (clock(), asker.slots[at].sent);
            if asker.measured.contains(&sent) {
                asker.latency.record(now - sent);
            }
            // It goes again as it is, turned round once more.
            let mut frame = received.head;
            packet::turn_round(pool.bytes_mut(&mut frame));
            asker.send(at, frame, now, pool, out);
        }
        port.transmit();
        let now = clock();
        if now >= next_look {
            next_look = now + LOOK;
            if now >= asker.measured.end {
                return;
            }
            find_lost(port, asker, now);
        }
    }
}

#[cold]
fn find_lost(port: &mut Port, asker: &mut Asker, now: u64) {
    for at in 0..asker.slots.len() {
        if now.saturating_sub(asker.slots[at].sent) > LOST {
            asker.lost += 1;
            asker.send_new(at, now, &mut port.pool, &mut port.out);
        }
    }
}
