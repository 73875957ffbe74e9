//! Instructions of whole operations, in memory, ours and smoltcp's, counted by
//! callgrind and compared with `benches/counts.json`. `scripts/counts` runs it.
//!
//! An operation is done a number of times in a program of its own. What belongs
//! to it is marked by the names of functions (`meter.rs`, `worker.rs`), so wires
//! and far ends are not counted; what the marking costs is found by marking
//! nothing, and taken off.

mod baton;
mod gate;
mod meter;
mod ours;
mod sharing;
mod smol;
mod tcp;
mod touched;
mod worker;

use clap::{Parser, Subcommand};
use meter::{Empty, Meter, Operation};
use std::process::ExitCode;
use tcp::Part;
use worker::{Job, Serves};

/// How one is run.
#[derive(Clone, Copy)]
enum Run {
    /// In a meter.
    Metered(fn() -> Box<dyn Operation>),
    /// On so many workers.
    Worker(Serves, usize),
}

/// An operation that is counted.
struct Entry {
    name: &'static str,
    what: &'static str,
    run: Run,
    warm: u64,
    steps: u64,
}

const fn entry(name: &'static str, what: &'static str, make: fn() -> Box<dyn Operation>) -> Entry {
    Entry { name, what, run: Run::Metered(make), warm: 200, steps: 1000 }
}

const fn on_worker(name: &'static str, what: &'static str, serves: Serves) -> Entry {
    Entry { name, what, run: Run::Worker(serves, 1), warm: 200, steps: 1000 }
}

const fn in_company(workers: usize, name: &'static str, what: &'static str, serves: Serves) -> Entry {
    Entry { name, what, run: Run::Worker(serves, workers), warm: 200, steps: 1000 }
}

/// By what part an operation may take more on one of several workers than on one alone, and
/// what is compared.
const COMPANY: f64 = 0.02;
const IN_COMPANY: [(&str, &str); 4] = [
    ("two-workers/tcp-echo", "tcp-echo-c"),
    ("two-workers/udp-echo", "udp-echo-c"),
    ("four-workers/tcp-echo", "tcp-echo-c"),
    ("four-workers/udp-echo", "udp-echo-c"),
];

/// The name of the run that counts nothing.
const EMPTY: &str = "empty";

#[rustfmt::skip]
const ENTRIES: &[Entry] = &[
    entry("tcp-echo", "TCP echo of 64 bytes, both ends, a round trip", || Box::new(tcp::Echo::new(true))),
    entry("tcp-echo-server", "TCP echo of 64 bytes, the server's half", || Box::new(tcp::Echo::new(false))),
    on_worker("tcp-echo-c", "the same through the C layer, on a worker", Serves::Streams),
    on_worker("tcp-echo-c-lent", "the same with frames that are lent", Serves::Lent),
    on_worker("tcp-echo-c-back", "the same in the frame of the request", Serves::Back),
    entry("bulk-in", "a full segment in, of 32: received, read, acknowledged", || Box::new(tcp::Bulk::new(Part::In, ours::PLAIN))),
    entry("jumbo-in", "a segment of MTU 9000 in, in three buffers, of 8", || Box::new(tcp::Bulk::new(Part::In, ours::JUMBO))),
    entry("bulk-out", "a full segment out, of 32: written, summed, queued", || Box::new(tcp::Bulk::new(Part::Out, ours::PLAIN))),
    entry("ack-in", "an ACK in, of two segments, 16 in a batch", || Box::new(tcp::Bulk::new(Part::Acks, ours::PLAIN))),
    entry("connection", "a connection at the server, from SYN to closed", || Box::new(tcp::Life::new())),
    entry("udp-echo", "UDP echo of 64 bytes, the server's half", || Box::new(tcp::Datagram::new())),
    on_worker("udp-echo-c", "the same through the C layer, on a worker", Serves::Datagrams),
    in_company(2, "two-workers/tcp-echo", "tcp-echo-c on two workers that serve", Serves::Streams),
    in_company(2, "two-workers/udp-echo", "udp-echo-c, likewise", Serves::Datagrams),
    in_company(4, "four-workers/tcp-echo", "tcp-echo-c on four", Serves::Streams),
    in_company(4, "four-workers/udp-echo", "udp-echo-c, likewise", Serves::Datagrams),
    entry("smoltcp/tcp-echo", "TCP echo of 64 bytes, both ends, a round trip", || Box::new(smol::Echo::new(true))),
    entry("smoltcp/tcp-echo-server", "TCP echo of 64 bytes, the server's half", || Box::new(smol::Echo::new(false))),
    entry("smoltcp/bulk-in", "a full segment in, of 32", || Box::new(smol::Bulk::new(Part::In))),
    entry("smoltcp/bulk-out", "a full segment out, of 32", || Box::new(smol::Bulk::new(Part::Out))),
    entry("smoltcp/ack-in", "an ACK in, in batches", || Box::new(smol::Bulk::new(Part::Acks))),
    entry("smoltcp/connection", "a connection at the server, from SYN to closed", || Box::new(smol::Life::new())),
    entry("smoltcp/udp-echo", "UDP echo of 64 bytes, the server's half", || Box::new(smol::Datagram::new())),
    entry(EMPTY, "what marking costs", || Box::new(Empty)),
];

/// Instructions of whole operations, counted by callgrind.
#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    what: Option<What>,
    /// Given by cargo
    #[arg(long, hide = true, global = true)]
    bench: bool,
}

#[derive(Subcommand)]
enum What {
    /// Do one operation over and over; says how often, and the calls of the meter
    Run { name: String },
    /// Count all of them, and compare with the committed numbers
    Gate(gate::Options),
    /// Watch whether two workers write to one cache line
    Sharing,
    /// What that watches
    #[command(hide = true)]
    Shared { name: String },
    /// Watch which cache lines of a connection an echo touches
    Lines,
    /// What that watches
    #[command(hide = true)]
    Touch,
}

fn run(name: &str) -> ExitCode {
    let Some(entry) = ENTRIES.iter().find(|e| e.name == name) else {
        eprintln!("operations: there is no {name}");
        return ExitCode::FAILURE;
    };
    let (done, calls) = match entry.run {
        Run::Metered(make) => Meter::run(&mut *make(), entry.warm, entry.steps),
        Run::Worker(serves, workers) => {
            let (warm, steps, frames) = (entry.warm, entry.steps, ours::FRAMES);
            worker::run(Job { serves, workers, warm, steps, frames, crossed: false, spoil: false });
            (entry.steps * workers as u64, 0)
        }
    };
    println!("{done} {calls}");
    ExitCode::SUCCESS
}

fn main() -> ExitCode {
    match Args::parse().what {
        Some(What::Run { name }) => run(&name),
        Some(What::Gate(options)) => gate::run(&options),
        Some(What::Sharing) => sharing::run(),
        Some(What::Shared { name }) => sharing::serve(&name),
        Some(What::Lines) => touched::run(),
        Some(What::Touch) => touched::touch(),
        None => {
            println!("operations: run it by scripts/counts");
            ExitCode::SUCCESS
        }
    }
}
