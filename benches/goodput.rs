//! Goodput over a road with potholes: ringroad and Linux, beside Linux and Linux
//! on the same road with the same congestion control and the same seeds, in turns.
//! `scripts/goodput` runs it and says what it needs.

#[path = "../tests/common/mod.rs"]
mod common;
#[path = "../tests/impaired/mod.rs"]
mod impaired;

use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use impaired::transfer::{Outcome, Transfer};
use impaired::{End, Harm, MTU, Road, Shape};

/// The least part of Linux's goodput that a row has to reach.
const LEAST: f64 = 0.9;

/// Goodput over a road with potholes: ringroad and Linux beside Linux and Linux
#[derive(Parser)]
struct Args {
    /// examples/bulk.rs, built; without it nothing is measured
    #[arg(long)]
    bulk: Option<PathBuf>,
    /// The congestion controls of the sender
    #[arg(long, value_delimiter = ',', default_value = "cubic,bbr")]
    congestion: Vec<String>,
    /// Per cent of segments that are lost, each way
    #[arg(long, value_delimiter = ',', default_value = "0,0.1,1,5")]
    loss: Vec<f64>,
    /// Who sends: ringroad, linux
    #[arg(long, value_delimiter = ',', default_value = "ringroad,linux")]
    sender: Vec<String>,
    /// How often each row is run, in turns with the others; medians are taken
    #[arg(long, default_value_t = 3)]
    rounds: u64,
    /// Transfer only this part of a row's bytes
    #[arg(long, default_value_t = 1.0)]
    scale: f64,
    /// The bottleneck, in Mbit/s
    #[arg(long, default_value_t = 100)]
    rate: u32,
    /// Bytes in its queue at most
    #[arg(long, default_value_t = 150_000)]
    queue: u32,
    /// Microseconds that a packet takes each way, besides
    #[arg(long, default_value_t = 5_000)]
    delay: u64,
    /// How many more a reordered one takes
    #[arg(long, default_value_t = 2_000)]
    late: u64,
    /// What everything is drawn from
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The beginning of the namespaces' names
    #[arg(long)]
    name: Option<String>,
    /// Write the table to this file as well
    #[arg(long)]
    out: Option<PathBuf>,
    /// Write every run as a JSON object a line
    #[arg(long)]
    json: Option<PathBuf>,
    /// Write the ends' TCP_INFO over time to files in this folder
    #[arg(long)]
    samples: Option<PathBuf>,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

/// Bytes of a row: 100 MB, or less where that would take Linux over a minute.
fn bytes_of(congestion: &str, loss: f64) -> u64 {
    match (congestion, loss) {
        ("bbr", _) => 100_000_000,
        (_, p) if p >= 5.0 => 5_000_000,
        (_, p) if p >= 1.0 => 25_000_000,
        _ => 100_000_000,
    }
}

#[derive(Clone, Debug)]
struct Row {
    from: End,
    congestion: String,
    loss: f64,
    bytes: u64,
    /// Linux to Linux, and with ringroad.
    runs: [Vec<Outcome>; 2],
    failures: Vec<String>,
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[n / 2],
        n => (values[n / 2 - 1] + values[n / 2]) / 2.0,
    }
}

impl Row {
    fn median(&self, arm: usize, of: impl Fn(&Outcome) -> f64) -> f64 {
        median(self.runs[arm].iter().map(of).collect())
    }

    fn ratio(&self) -> f64 {
        self.median(1, Outcome::goodput) / self.median(0, Outcome::goodput)
    }

    fn holds(&self) -> bool {
        self.failures.is_empty() && self.ratio() >= LEAST
    }

    fn line(&self) -> String {
        let both = |of: &dyn Fn(&Outcome) -> f64| format!("{:.0} / {:.0}", self.median(0, of), self.median(1, of));
        let who = if self.from == End::Left { "ringroad to Linux" } else { "Linux to ringroad" };
        let again = both(&|o| o.send["info"]["total_retrans"].as_f64().unwrap_or(f64::NAN));
        let lost = both(&|o| (o.legs[0].dropped + o.legs[0].corrupted) as f64);
        let queue = both(&|o| o.queue_drops[0] as f64);
        format!(
            "| {who} | {} | {} % | {} | {:.1} | {:.1} | **{:.2}**{} | {again} | {lost} | {queue} |",
            self.congestion,
            self.loss,
            self.bytes as f64 / 1e6,
            self.median(0, Outcome::goodput),
            self.median(1, Outcome::goodput),
            self.ratio(),
            if self.holds() { "" } else { " (short)" },
        )
    }
}

fn rows(args: &Args) -> Vec<Row> {
    let mut rows = Vec::new();
    for sender in &args.sender {
        let from = if sender == "ringroad" { End::Left } else { End::Right };
        for congestion in &args.congestion {
            for &loss in &args.loss {
                let bytes = (bytes_of(congestion, loss) as f64 * args.scale) as u64;
                let (congestion, runs) = (congestion.clone(), [Vec::new(), Vec::new()]);
                rows.push(Row { from, congestion, loss, bytes, runs, failures: Vec::new() });
            }
        }
    }
    rows
}

/// Runs both arms of a row once.
fn run_row(road: &Road, args: &Args, bulk: &std::path::Path, row: &mut Row, round: u64) -> Vec<String> {
    let mut lines = Vec::new();
    let seed = args.seed.wrapping_mul(1_000_003) + round;
    for arm in 0..2 {
        let harm = if row.loss == 0.0 { Harm::default() } else { Harm::of_loss(row.loss / 100.0) };
        road.set(harm, seed);
        let name = format!("{:?}-{}-{}-{round}-{arm}", row.from, row.congestion, row.loss);
        let transfer = Transfer {
            bulk: bulk.to_path_buf(),
            from: row.from,
            ours: arm == 1,
            congestion: row.congestion.clone(),
            bytes: row.bytes,
            seed,
            limit: Duration::from_secs(150),
            samples: args.samples.as_ref().map(|dir| dir.join(&name).display().to_string()),
        };
        match transfer.run(road) {
            Ok(outcome) => {
                let [there, back] = outcome.legs;
                eprintln!(
                    "goodput: {name}: {:.1} Mbit/s, {} sent again, fate {:?} / {:?}, queue dropped {}",
                    outcome.goodput(), outcome.send["info"]["total_retrans"], there.befell(), back.befell(),
                    outcome.queue_drops[0],
                );
                lines.push(serde_json::json!({
                    "row": name, "seed": seed, "send": outcome.send, "sink": outcome.sink, "queue_drops": outcome.queue_drops,
                    "befell": outcome.legs.map(|l| l.befell()), "largest": outcome.legs.map(|l| l.largest),
                }).to_string());
                row.runs[arm].push(outcome);
            }
            Err(why) => {
                eprintln!("goodput: {name}: {why}");
                row.failures.push(format!("{name}: {}", why.lines().next().unwrap_or_default()));
            }
        }
    }
    lines
}

fn first_line(file: &str, name: &str) -> String {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let line = text.lines().find_map(|l| l.strip_prefix(name)).unwrap_or_default();
    line.trim_start_matches([' ', '\t', ':']).trim().to_string()
}

fn heading(args: &Args, took: Duration) -> String {
    let kernel = first_line("/proc/sys/kernel/osrelease", "");
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let load = first_line("/proc/loadavg", "");
    format!(
        "# Goodput beside Linux, on a road with potholes\n\n\
         Printed by `scripts/goodput`. {}, {cores} cores, Linux {kernel}, load at the end {load}; {:.0} min.\n\n\
         Left host, router, right host: three network namespaces. Each way: BPF on clsact ingress (what befalls a segment \
         depends on the seed and its number), then tbf, {} Mbit/s of IP packets with a queue of {} bytes, then a delay line of \
         {} ms. tso, gso, gro and checksum offload are off on every leg. \"Loss\" p: nine in ten of the p lost segments are \
         dropped and one in ten has a bit turned over; besides p/10 are duplicated and p/10 are {} ms late; data and ACKs \
         alike. Ringroad is the left host, Linux the right one; in the other arm both are Linux, with the same congestion \
         control, bytes and seeds, in turns. Medians of {} rounds, seed {}. The clock runs from the connection's start until \
         the sender has the receiver's SHA-256 of everything, which has to be right. Both ends run `examples/bulk.rs` at \
         real-time priority.\n",
        first_line("/proc/cpuinfo", "model name"),
        took.as_secs_f64() / 60.0,
        args.rate,
        args.queue,
        args.delay as f64 / 1e3,
        args.late as f64 / 1e3,
        args.rounds,
        args.seed,
    )
}

fn table(rows: &[Row]) -> String {
    let mut text = String::from(
        "\n| direction | congestion control | loss | MB | Linux to Linux, Mbit/s | with ringroad, Mbit/s | ratio | \
         segments sent again | segments lost on the road | dropped by the queue |\n\
         | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n",
    );
    for row in rows {
        let _ = writeln!(text, "{}", row.line());
    }
    text.push_str("\nThe last three columns: Linux to Linux / with ringroad.\n");
    text
}

/// What makes the figures worth nothing.
fn invalid(road: &Road, rows: &[Row]) -> Vec<String> {
    let mut wrong: Vec<String> = rows.iter().flat_map(|r| r.failures.clone()).collect();
    let outcomes = rows.iter().flat_map(|r| r.runs.iter().flatten());
    let legs: Vec<_> = outcomes.flat_map(|o| o.legs).collect();
    let largest = legs.iter().map(|l| l.largest).max().unwrap_or(0);
    if largest > MTU {
        wrong.push(format!("a frame of {largest} bytes was seen: segmentation offload was on"));
    }
    if legs.iter().any(|l| l.failures > 0) {
        wrong.push("the BPF program could not do what it had to".into());
    }
    if road.lost_by_the_bed() > 0 {
        wrong.push(format!("the delay line lost {} packets", road.lost_by_the_bed()));
    }
    wrong
}

fn main() -> ExitCode {
    let args = Args::parse();
    let Some(bulk) = args.bulk.clone() else {
        println!("goodput: run it by scripts/goodput");
        return ExitCode::SUCCESS;
    };
    let (delay, late) = (Duration::from_micros(args.delay), Duration::from_micros(args.late));
    let shape = Shape { rate_mbit: args.rate, queue_bytes: args.queue, delay, late };
    let road = Road::new(&args.name.clone().unwrap_or_else(common::unique), shape);
    let (mut rows, mut lines, begun) = (rows(&args), Vec::new(), Instant::now());
    for round in 0..args.rounds {
        for row in &mut rows {
            lines.extend(run_row(&road, &args, &bulk, row, round));
        }
    }
    let wrong = invalid(&road, &rows);
    let largest = rows.iter().flat_map(|r| r.runs.iter().flatten()).flat_map(|o| o.legs).map(|l| l.largest).max();
    let mut text = heading(&args, begun.elapsed()) + &table(&rows);
    let _ = writeln!(
        text,
        "\nLargest IP packet seen: {} bytes. Rows at {LEAST} or more: {} of {}.",
        largest.unwrap_or(0),
        rows.iter().filter(|r| r.holds()).count(),
        rows.len()
    );
    for why in &wrong {
        let _ = writeln!(text, "\nNot valid: {why}");
    }
    print!("{text}");
    let write = |file: &Option<PathBuf>, text: &str| match file {
        Some(path) => std::fs::write(path, text).map_err(|e| eprintln!("goodput: {}: {e}", path.display())).is_ok(),
        None => true,
    };
    let written = write(&args.out, &text) & write(&args.json, &lines.join("\n"));
    let well = written && wrong.is_empty() && rows.iter().all(Row::holds);
    if well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
