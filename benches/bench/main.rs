//! ringroad beside what a user would take instead: every arm in one run, over the
//! same test bed, in interleaved rounds. `scripts/bench` sets up, builds and calls
//! this; its other subcommands are the servers and clients that exist nowhere else.

mod bed;
mod budget;
mod bulk;
#[path = "../checksum.rs"]
#[allow(dead_code)] // its main
mod checksum;
#[path = "../echo_memory.rs"]
#[allow(dead_code)] // its main
mod echo_memory;
mod inside;
mod machine;
mod memory;
mod once;
mod pauses;
mod plan;
mod plots;
mod program;
mod raw;
mod result;
mod rows;
mod runner;
mod smol;
mod sums;
mod summary;
mod table;
mod worker;

use std::fs;
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use plan::{Job, Over, Scope, Size};
use result::{RATE, Results, Settings};
use runner::{Runner, Tools};

/// The benchmark's driver, and the programs that only it needs
#[derive(Parser, Debug)]
#[command(name = "bench")]
enum Command {
    Run(RunArgs),
    Reflect(raw::ReflectArgs),
    Ask(raw::AskArgs),
    RawSend(raw::SendArgs),
    RawSink(raw::SinkArgs),
    BulkSend(bulk::SendArgs),
    BulkSink(bulk::SinkArgs),
    Once(once::Args),
    Smoltcp(smol::Args),
    Memory(memory::Args),
    MemoryEcho(MemoryEchoArgs),
    Worker(worker::Args),
    Sums(sums::Args),
    Pauses(pauses::Args),
}

/// Time round trips of 64 bytes in memory
#[derive(clap::Args, Debug)]
struct MemoryEchoArgs {
    #[arg(long)]
    connections: usize,
    #[arg(long)]
    trips: usize,
}

/// Measure everything, and write down what came of it
#[derive(clap::Args, Debug)]
struct RunArgs {
    /// A minute: does every arm run?
    #[arg(long, conflicts_with = "full")]
    quick: bool,
    /// The whole cross of arms, connections and sizes
    #[arg(long)]
    full: bool,
    /// Only these groups (echo, open, churn, bulk, http, idle, pauses, thread,
    /// workers, memory, sums), or rows with one of these in their names
    #[arg(long, value_delimiter = ',', value_name = "ROWS")]
    only: Vec<String>,
    /// Say what would be measured, and end
    #[arg(long)]
    list: bool,
    /// How often everything is measured [default: 3, quick: 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: Option<u32>,
    /// Seconds of each load [default: 0.5, quick: 0.1, full: 1]
    #[arg(long, value_name = "S")]
    seconds: Option<f64>,
    /// Minutes after which nothing more is begun [default: 18, quick and full: none]
    #[arg(long, value_name = "M")]
    minutes: Option<f64>,
    /// Where XDP programs are attached: auto, native or generic
    #[arg(long, default_value = "auto", value_parser = ["auto", "native", "generic"])]
    mode: String,
    /// Where results.json, table.md and the plots go
    #[arg(long, value_name = "DIR", default_value = "report/bench")]
    out: PathBuf,
    /// Put the table into README.md
    #[arg(long)]
    readme: bool,
    /// The ringroad command
    #[arg(long, value_name = "FILE")]
    ringroad: PathBuf,
    /// Where kernel_echo and thread_echo were built
    #[arg(long, value_name = "DIR")]
    peers: PathBuf,
    /// A directory for what is not kept
    #[arg(long, value_name = "DIR")]
    work: PathBuf,
    /// How the names of the test beds begin
    #[arg(long, value_name = "NAME")]
    bed: String,
}

/// After so many minutes a usual run begins nothing more.
const DEFAULT_MINUTES: f64 = 18.0;
/// The files of results.
const RESULTS: &str = "results.json";
const TABLE: &str = "table.md";

fn main() -> ExitCode {
    let done = match Command::parse() {
        Command::Run(args) => run(&args),
        Command::Reflect(args) => raw::reflect(&args),
        Command::Ask(args) => raw::ask(&args),
        Command::RawSend(args) => raw::send(&args),
        Command::RawSink(args) => raw::sink(&args),
        Command::BulkSend(args) => bulk::send(&args),
        Command::BulkSink(args) => bulk::sink(&args),
        Command::Once(args) => once::run(&args),
        Command::Smoltcp(args) => smol::run(&args),
        Command::Memory(args) => memory::run(&args),
        Command::Worker(args) => worker::run(&args),
        Command::Sums(args) => sums::run(&args),
        Command::Pauses(args) => pauses::run(&args),
        Command::MemoryEcho(args) => {
            println!("{{\"ns\":{:.3}}}", echo_memory::measure(args.trips, args.connections, 64).0);
            Ok(())
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("bench: {why}");
            ExitCode::FAILURE
        }
    }
}

/// A file's trouble, with its name.
fn at<T>(path: &Path, done: std::io::Result<T>) -> Result<T, String> {
    done.map_err(|e| format!("{}: {e}", path.display()))
}

/// Whether there is a program of this name.
fn installed(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(name).is_file())
}

impl RunArgs {
    fn scope(&self) -> Scope {
        let size = match (self.quick, self.full) {
            (true, _) => Size::Quick,
            (_, true) => Size::Full,
            _ => Size::Usual,
        };
        let text = |name: &str| self.work.join(name).display().to_string();
        Scope { size, only: self.only.clone(), root: text("root"), nginx_conf: text("nginx.conf") }
    }
}

fn run(args: &RunArgs) -> Result<(), String> {
    let began = Instant::now();
    let scope = args.scope();
    if args.list {
        list(&rows::all(&scope));
        return Ok(());
    }
    let rounds = args.rounds.unwrap_or(scope.pick(1, 3, 3)) as usize;
    let seconds = args.seconds.unwrap_or(scope.pick(0.1, 0.5, 1.0));
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    files(args, &root)?;
    at(&args.out, fs::create_dir_all(&args.out))?;
    clear(&args.out)?;
    let own = std::env::current_exe().map_err(|e| e.to_string())?;
    let (ringroad, peers, work) = (args.ringroad.clone(), args.peers.clone(), args.work.clone());
    let tools = Tools { root: root.clone(), ringroad, peers, own, work };
    let mut runner = Runner::new(tools, machine::look(), seconds, args.bed.clone(), args.mode.clone());
    let counts = root.join("benches/counts.json");
    let mut results = Results::default();
    if counts.exists() {
        results.instructions = result::instructions(&at(&counts, fs::read_to_string(&counts))?)?;
    }

    let jobs = rows::all(&scope);
    if jobs.is_empty() {
        return Err(format!("no row is called {}", args.only.join(" or ")));
    }
    let (jobs, lacking): (Vec<Job>, Vec<Job>) = jobs.into_iter().partition(|job| job.lacks(installed).is_none());
    for job in &lacking {
        let Some((name, package)) = job.lacks(installed) else { continue };
        let cell = results.cell_mut(&job.row, job.group, &job.title, job.arm);
        cell.missing = Some(format!("{}: {name} (apt-get install {package})", result::NOT_INSTALLED));
    }
    if jobs.iter().any(|job| job.group == "open") {
        find_capacity(&mut runner, &mut results);
    }
    let limit = args.minutes.or(scope.pick(None, Some(DEFAULT_MINUTES), None));
    let time = limit.map_or(Duration::MAX, |minutes| Duration::from_secs_f64(minutes.max(0.0) * 60.0));
    results.settings = Settings { rounds, seconds, ..Settings::default() };
    for round in 0..rounds {
        one_round(&mut runner, &jobs, round, began, time, &mut results);
        results.machine = runner.machine.clone();
        results.settings.took = began.elapsed().as_secs_f64();
        save(&args.out, &results)?; // so that what there is outlives this program
    }
    runner.note_curves(&mut results);
    write(args, &root, &results, &runner)
}

/// Do everything once, forth or back, so that no arm always runs after the same
/// other one. What there is no time for is noted.
fn one_round(runner: &mut Runner, jobs: &[Job], round: usize, began: Instant, time: Duration, results: &mut Results) {
    let mut blocks = plan::blocks(jobs);
    if round % 2 == 1 {
        blocks.reverse();
    }
    let count = blocks.len();
    for (i, block) in blocks.into_iter().enumerate() {
        let jobs = &jobs[block];
        let (what, round_name) = (format!("{}, {}", jobs[0].group, jobs[0].arm), round + 1);
        if began.elapsed() > time {
            println!("bench: no time left for round {round_name}: {what}");
            results.settings.cut.push(format!("round {round_name}: {what}"));
            continue;
        }
        let minutes = began.elapsed().as_secs() / 60;
        println!("bench: {minutes} min, round {round_name} of {}, {} of {count}: {what}", results.settings.rounds, i + 1);
        runner.block(jobs, round, results);
    }
}

/// Each row, and its arms.
fn list(jobs: &[Job]) {
    let mut rows: Vec<(&str, &str, Vec<&str>)> = Vec::new();
    for job in jobs {
        match rows.iter_mut().find(|row| row.0 == job.row) {
            Some(row) => row.2.push(job.arm),
            None => rows.push((&job.row, &job.title, vec![job.arm])),
        }
    }
    for (row, title, arms) in &rows {
        println!("{row}: {title}\n    {}", arms.join("; "));
    }
    println!("{} rows, {} measurements a round", rows.len(), jobs.len());
}

/// The files that HTTP servers serve, and nginx's configuration.
fn files(args: &RunArgs, root: &Path) -> Result<(), String> {
    let scope = args.scope();
    for dir in [&scope.root, &args.work.join("nginx").display().to_string()] {
        at(Path::new(dir), fs::create_dir_all(dir))?;
    }
    let page = Path::new(&scope.root).join("index.html");
    at(&page, fs::write(&page, format!("<!doctype html><title>ringroad</title><p>{:0512}\n", 0)))?;
    let template = root.join("benches/peers/nginx.conf");
    let text = at(&template, fs::read_to_string(&template))?;
    let text = text.replace("@DIR@", &args.work.join("nginx").display().to_string()).replace("@ROOT@", &scope.root);
    let conf = Path::new(&scope.nginx_conf);
    at(conf, fs::write(conf, text))
}

/// Take away what an earlier run has left: its rows may be others.
fn clear(out: &Path) -> Result<(), String> {
    if !out.join(RESULTS).exists() {
        return Ok(());
    }
    for entry in at(out, fs::read_dir(out))?.flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|e| e == "svg" || e == "hgrm") {
            at(&path, fs::remove_file(&path))?;
        }
    }
    Ok(())
}

/// What the kernel's server reaches with each client: the median of three runs.
fn find_capacity(runner: &mut Runner, results: &mut Results) {
    for over in Over::BOTH {
        let job = rows::capacity(over);
        for round in 0..3 {
            runner.block(std::slice::from_ref(&job), round, results);
        }
        if let Some(rate) = results.median(&job.row, job.arm, RATE) {
            runner.set_capacity(over, rate);
        }
    }
}

/// The file for programs, and the verdicts that are in it.
fn save(dir: &Path, results: &Results) -> Result<Vec<budget::Verdict>, String> {
    let verdicts = budget::verdicts(results);
    let path = dir.join(RESULTS);
    let all = serde_json::json!({ "results": results, "budgets": verdicts });
    at(&path, fs::write(&path, format!("{all}\n")))?;
    Ok(verdicts)
}

fn write(args: &RunArgs, root: &Path, results: &Results, runner: &Runner) -> Result<(), String> {
    let verdicts = save(&args.out, results)?;
    for (row, arm, latency) in runner.latencies() {
        let arm: String = arm.chars().filter(|c| c.is_ascii_alphanumeric()).collect();
        let path = args.out.join(format!("{row}-{arm}.hgrm"));
        let mut file = BufWriter::new(at(&path, fs::File::create(&path))?);
        at(&path, latency.write_hgrm(&mut file))?;
    }
    let plots = plots::write(results, &args.out)?;
    let text = table::whole(results, &verdicts);
    let path = args.out.join(TABLE);
    at(&path, fs::write(&path, &text))?;
    println!("\n{text}");
    if args.readme {
        publish(args, root, results, &summary::readme(results, &verdicts))?;
    }
    println!("{}: results.json, table.md, {plots} plots and the histograms.", args.out.display());
    check(results)
}

/// Put the table into the README, and what it points to into `docs/bench`; there
/// without the curves' points, which the pictures show.
fn publish(args: &RunArgs, root: &Path, results: &Results, text: &str) -> Result<(), String> {
    let path = root.join("README.md");
    let before = at(&path, fs::read_to_string(&path))?;
    let after = table::into_readme(&before, text)?;
    let docs = root.join(table::DOCS);
    at(&docs, fs::create_dir_all(&docs))?;
    let mut bare = results.clone();
    bare.rows.iter_mut().flat_map(|row| &mut row.cells).for_each(|cell| cell.curve.clear());
    save(&docs, &bare)?;
    for name in [TABLE].iter().chain(&table::PLOTS) {
        let from = args.out.join(name);
        if from.exists() {
            at(&from, fs::copy(&from, docs.join(name)))?;
        }
    }
    at(&path, fs::write(&path, after))?;
    println!("README.md has the table now, {} the rest.", table::DOCS);
    Ok(())
}

/// An arm that did not run, though it could, is an error.
fn check(results: &Results) -> Result<(), String> {
    let cells = results.rows.iter().flat_map(|r| r.cells.iter().map(move |c| (r, c)));
    let failed = cells.filter_map(|(r, c)| Some(format!("{}, {}: {}", r.id, c.arm, c.failure()?)));
    let failed: Vec<String> = failed.collect();
    if failed.is_empty() { Ok(()) } else { Err(format!("not everything ran:\n  {}", failed.join("\n  "))) }
}
