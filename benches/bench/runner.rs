//! Does the jobs: starts servers, puts the work on them, notes what came of it.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use ringroad::telemetry::latency::{Latency, Report};
use serde::Deserialize;

use super::bed::{Bed, INTERFACE, Kind, SERVER, Side, run};
use super::machine::Ticks;
use super::memory::Done;
use super::pauses::Waits;
use super::plan::{Job, Over, Rate, Ready, Server, Team, Tool, Work};
use super::program::Program;
use super::result::{
    BYTES_ALL, BYTES_EACH, COPIED, CPU, GBIT, IDLE_CPU, Machine, NOT_SUPPORTED, P50, P99, P999, RATE, Results, SUM, Sample,
    TRIP,
};
use super::worker::Found;

/// DPDK's program that forwards packets.
pub const TESTPMD: &str = "dpdk-testpmd";
/// How much longer than its load a client may take.
const GRACE: Duration = Duration::from_secs(20);
/// Seconds for what failed: it may have been short of processor time.
const LONGER: f64 = 0.5;
/// How long a program in memory may take.
const MEMORY_TIME: Duration = Duration::from_secs(60);
/// Frames of the pools of ringroad's workers, and entries of the raw programs'
/// rings, where thousands of requests are under way.
const LARGE_FRAMES: usize = 32_768;
const LARGE_RING: &str = "8192";
/// Active ports that our client then reserves on the shared address: more than it opens.
const ACTIVE_PORTS: usize = 8192;

/// Where the programs are.
pub struct Tools {
    /// The source tree.
    pub root: PathBuf,
    pub ringroad: PathBuf,
    /// kernel_echo, thread_echo: what the script has built.
    pub peers: PathBuf,
    pub own: PathBuf,
    /// For logs and reports while it runs.
    pub work: PathBuf,
}

pub struct Runner {
    pub tools: Tools,
    pub machine: Machine,
    /// Seconds that a load is measured for.
    pub seconds: f64,
    /// How the names of the beds begin.
    pub stem: String,
    /// RINGROAD_MODE for all arms on AF_XDP: auto, native, generic.
    pub mode: String,
    beds: HashMap<Kind, Bed>,
    capacity: HashMap<Over, f64>,
    latencies: HashMap<(String, &'static str), Latency>,
}

/// What a transfer's receiver prints as its last line.
#[derive(Deserialize, Debug)]
struct Received {
    bytes: u64,
    seconds: f64,
    copied: Option<u64>,
}

/// What a transfer's sender prints, if it is ours.
#[derive(Deserialize, Debug)]
struct Sent {
    copied: u64,
}

/// What the programs in memory print as their last line.
#[derive(Deserialize, Debug)]
struct Memory {
    connections: u64,
    bytes: u64,
}

#[derive(Deserialize, Debug)]
struct Nanoseconds {
    ns: f64,
}

fn last_line<T: for<'a> Deserialize<'a>>(output: &str) -> Result<T, String> {
    let line = output.lines().rev().find(|l| l.starts_with('{')).ok_or("it printed no result")?;
    serde_json::from_str(line).map_err(|e| format!("{line}: {e}"))
}

fn figures<const N: usize>(list: [(&str, f64); N]) -> BTreeMap<String, f64> {
    list.into_iter().map(|(name, value)| (name.to_string(), value)).collect()
}

impl Runner {
    pub fn new(tools: Tools, machine: Machine, seconds: f64, stem: String, mode: String) -> Self {
        let (beds, capacity, latencies) = Default::default();
        Self { tools, machine, seconds, stem, mode, beds, capacity, latencies }
    }

    /// What the kernel's server reaches with a client, by which open loops go.
    pub fn set_capacity(&mut self, over: Over, rate: f64) {
        self.capacity.insert(over, rate);
    }

    fn bed(&mut self, kind: Kind) -> Result<&Bed, String> {
        if !self.beds.contains_key(&kind) {
            let bed = Bed::up(&self.tools.root, &self.stem, kind)?;
            self.note_offloads(format!("{kind}: {}", bed.offloads()));
            self.beds.insert(kind, bed);
        }
        Ok(&self.beds[&kind])
    }

    /// Do neighbouring jobs that share a server. What fails is tried once more, by
    /// itself on a fresh server and for longer, and then noted in its cell.
    pub fn block(&mut self, jobs: &[Job], round: usize, results: &mut Results) {
        let failed = self.attempt(jobs, round, results);
        self.leave(&jobs[0]);
        for (job, why) in failed {
            if why.starts_with(NOT_SUPPORTED) || why.contains(TOO_LARGE) {
                missing(results, job, &why);
                continue;
            }
            eprintln!("bench: {}, {}: {why}; once more", job.row, job.arm);
            let seconds = self.seconds;
            self.seconds = seconds.max(LONGER);
            for (job, why) in self.attempt(std::slice::from_ref(job), round, results) {
                missing(results, job, &why);
            }
            self.seconds = seconds;
            self.leave(job);
        }
    }

    /// Take the bed down, if it is no good for others.
    fn leave(&mut self, job: &Job) {
        if job.leaves_its_bed() {
            self.beds.remove(&job.bed);
        }
    }

    /// Do jobs that share a server; those that failed, and why.
    fn attempt<'a>(&mut self, jobs: &'a [Job], round: usize, results: &mut Results) -> Vec<(&'a Job, String)> {
        let mut failed = Vec::new();
        let mut server = match self.start(&jobs[0]) {
            Ok(server) => server,
            Err(why) => return jobs.iter().map(|job| (job, why.clone())).collect(),
        };
        for job in jobs {
            let (began, before) = (Instant::now(), self.ticks());
            let ran = |server: &Option<Program>| server.as_ref().map_or(0.0, Program::run_seconds);
            let cpu = ran(&server);
            let (done, left) = self.work(job, server.take());
            server = left;
            let [there, here] = self.ticks();
            let (there, here) = (there.since(before[0]), here.since(before[1]));
            match done {
                Ok(mut sample) => {
                    sample.round = round;
                    sample.steal_percent = (there + here).steal_percent();
                    let took = began.elapsed().as_secs_f64();
                    note_cpu(job, &mut sample, ran(&server) - cpu, here, took, self.seconds);
                    results.cell_mut(&job.row, job.group, &job.title, job.arm).samples.push(sample);
                }
                Err(why) => failed.push((job, why)),
            }
        }
        failed
    }

    /// Of the server's core, and the client's.
    fn ticks(&self) -> [Ticks; 2] {
        [self.machine.server_core, self.machine.client_core].map(Ticks::of)
    }

    /// Start the job's server, if it has one, and wait until it is ready.
    fn start(&mut self, job: &Job) -> Result<Option<Program>, String> {
        let Some(server) = &job.server else { return Ok(None) };
        self.bed(job.bed)?;
        let bed = &self.beds[&job.bed];
        if server.tool == Tool::Testpmd {
            bed.fix_neighbour()?; // it answers no ARP
        }
        let mut command = self.pinned(bed, Side::Server, server);
        command.args(&server.args);
        if server.large && server.args.first().is_some_and(|a| a == "reflect") {
            command.args(["--ring", LARGE_RING]);
        }
        let mut program = Program::start(&mut command, &self.tools.work.join("server.log"))?;
        match server.ready {
            Ready::Says => program.wait_until(|p| p.output().contains("ready"))?,
            Ready::Port80 => program.wait_until(|_| {
                run(bed.command(Side::Server, "ss").args(["-Hltn", "sport = :80"])).is_ok_and(|out| !out.is_empty())
            })?,
            Ready::Forwards => program.wait_until(|p| p.output().contains("packet forwarding -"))?,
        }
        if server.tool == Tool::Ringroad && self.machine.mode.is_empty() {
            // "echo on ...; workers 1, wait spin; native XDP, copy mode; ready"
            let said = program.output();
            let parts: Vec<&str> = said.lines().find(|l| l.contains("ready")).unwrap_or("").split("; ").collect();
            self.machine.mode = parts.get(2..parts.len().saturating_sub(1)).unwrap_or(&[]).join("; ");
            let offloads = bed.offloads();
            self.note_offloads(format!("{}, XDP on the server's side: {offloads}", job.bed));
        }
        Ok(Some(program))
    }

    fn note_offloads(&mut self, line: String) {
        if !self.machine.offloads.contains(&line) {
            self.machine.offloads.push(line);
        }
    }

    /// A server's command, pinned to its core, without its arguments.
    fn pinned(&self, bed: &Bed, side: Side, server: &Server) -> Command {
        let (worker, thread) = (self.machine.server_core, self.machine.thread_core);
        let core = if server.beside { thread } else { worker };
        let mut command = match server.tool {
            Tool::Ringroad => bed.pinned(side, core, &self.tools.ringroad),
            Tool::KernelEcho => bed.pinned(side, core, self.tools.peers.join("kernel_echo")),
            Tool::Own => bed.pinned(side, core, &self.tools.own),
            Tool::Nginx => bed.pinned(side, core, "nginx"),
            Tool::Testpmd => {
                let mut command = bed.pinned(side, core, TESTPMD);
                // One thread that forwards and one that sleeps, on the server's core; the
                // latter prints now and then, since what is printed is kept back else.
                command.arg(format!("--lcores=(0,1)@{core}"));
                command.args(["--no-pci", "--no-huge", "-m", "256", "--no-telemetry"]);
                command.args([&format!("--file-prefix={}", self.stem), &format!("--vdev=net_af_xdp0,iface={INTERFACE}")]);
                command.args(["--", "--forward-mode=5tswap", "--auto-start", "--stats-period=1", "--total-num-mbufs=16384"]);
                command
            }
            // Its worker pins itself; the process may use both cores.
            Tool::ThreadEcho => {
                let mut command = bed.command(side, "taskset");
                command.args(["-c", &format!("{worker},{thread}")]).arg(self.tools.peers.join("thread_echo"));
                command
            }
        };
        self.settings(&mut command, worker, server.large);
        if server.tool == Tool::ThreadEcho {
            // A worker that spins on the thread's own core would keep it from its work.
            let wait = if worker == thread { "block" } else { "spin" };
            command.env("RINGROAD_WAIT", wait).env("RINGROAD_INTERFACE", INTERFACE);
        } else {
            command.env("RINGROAD_WAIT", "spin"); // where no argument says otherwise
        }
        command
    }

    /// What all programs over our stack are told by their environment.
    fn settings(&self, command: &mut Command, core: usize, large: bool) {
        command.env("RINGROAD_CPUS", core.to_string()).env("RINGROAD_MODE", &self.mode);
        if large {
            command.env("RINGROAD_FRAMES", LARGE_FRAMES.to_string());
        }
    }

    /// Do one job. The server comes back, if it is still there.
    fn work(&mut self, job: &Job, mut server: Option<Program>) -> (Result<Sample, String>, Option<Program>) {
        let once = job.server.as_ref().is_some_and(|s| s.once);
        let done = match &job.work {
            Work::Load { .. } => self.load(job),
            Work::Ask { window, size } => self.ask(job, *window, *size),
            Work::Wrk { depth } => self.wrk(job, *depth),
            Work::Nothing => {
                thread::sleep(Duration::from_secs_f64(self.seconds.max(0.2) * 2.0));
                Ok(Sample::default())
            }
            Work::Pauses => self.pauses(),
            Work::Memory { connections, done } => self.memory(*connections, *done),
            Work::MemoryEcho { connections, trips } => self.memory_echo(*connections, *trips),
            Work::Workers { team, connections } => self.workers(*team, *connections),
            Work::Sums { bytes, words } => self.sums(*bytes, *words),
            Work::Transfer { args } => match (self.client(job, &self.tools.own, args, self.seconds), server) {
                (Ok(said), Some(server)) => return (self.received(server, &said), None),
                (done, left) => {
                    server = left;
                    done.map(|_| Sample::default())
                }
            },
        };
        match (done, server) {
            (Err(why), Some(server)) if once => {
                let said = server.output();
                let last = said.lines().last().unwrap_or("").to_string();
                (Err(format!("{why} (the other side: {last})")), None)
            }
            (done, server) => (done, server),
        }
    }

    /// What came of a transfer, of which the sender has said this.
    fn received(&self, server: Program, said: &str) -> Result<Sample, String> {
        let got: Received = last_line(&server.end(GRACE)?)?;
        if got.bytes == 0 {
            return Err("nothing arrived".into());
        }
        let gbit = got.bytes as f64 * 8e-9 / got.seconds.max(1e-9);
        let mut sample = Sample { figures: figures([(GBIT, gbit)]), ..Sample::default() };
        if let (Ok(sent), Some(copied)) = (last_line::<Sent>(said), got.copied) {
            sample.figures.insert(COPIED.into(), (sent.copied + copied) as f64 / got.bytes as f64);
        }
        Ok(sample)
    }

    /// Run a program on the client's side to its end; what it printed.
    fn client(&self, job: &Job, program: &Path, args: &[String], seconds: f64) -> Result<String, String> {
        let core = self.machine.client_core;
        let mut command = self.beds[&job.bed].pinned(Side::Client, core, program);
        self.settings(&mut command, core, job.is_large());
        command.env("RINGROAD_WAIT", "spin");
        if job.is_large() {
            command.env("RINGROAD_ACTIVE_PORTS", ACTIVE_PORTS.to_string());
        }
        command.args(args);
        if matches!(job.work, Work::Transfer { .. }) {
            command.args(["--seconds", &seconds.to_string()]);
        }
        let log = self.tools.work.join("client.log");
        Program::start(&mut command, &log)?.end(Duration::from_secs_f64(seconds) + GRACE)
    }

    fn load(&mut self, job: &Job) -> Result<Sample, String> {
        let Work::Load { over, proto, to, connections, size, rate, one_shot } = &job.work else {
            return Err("no load".into());
        };
        let file = self.tools.work.join("load.json");
        let mut args: Vec<String> = ["load", "--over", over.name(), "--proto", proto, "--to", to].map(String::from).into();
        args.extend(["--connections".into(), connections.to_string(), "--json".into(), file.display().to_string()]);
        args.extend(["--duration".into(), self.seconds.to_string()]);
        if *over == Over::Stack {
            args.extend(["-i".into(), INTERFACE.into()]);
        }
        if *size > 0 {
            args.extend(["--size".into(), size.to_string()]);
        }
        if let Rate::PartOfKernel(part) = rate {
            let capacity = self.capacity.get(over).ok_or("the kernel's capacity was not found")?;
            args.extend(["--rate".into(), format!("{:.0}", (capacity * part).max(1.0))]);
        }
        if *one_shot {
            args.push("--one-shot".into());
        }
        self.client(job, &self.tools.ringroad, &args, self.seconds)?;
        self.report(job, &std::fs::read_to_string(&file).map_err(|e| e.to_string())?)
    }

    fn ask(&mut self, job: &Job, window: usize, size: usize) -> Result<Sample, String> {
        let file = self.tools.work.join("ask.json");
        let to = format!("{SERVER}:7");
        let mut args: Vec<String> = ["ask", "-i", INTERFACE, "--address", super::bed::CLIENT, "--to", &to].map(String::from).into();
        args.extend(["--window".into(), window.to_string(), "--size".into(), size.to_string()]);
        args.extend(["--seconds".into(), self.seconds.to_string(), "--json".into(), file.display().to_string()]);
        if job.is_large() {
            args.extend(["--ring".into(), LARGE_RING.into()]);
        }
        self.client(job, &self.tools.own, &args, self.seconds)?;
        self.report(job, &std::fs::read_to_string(&file).map_err(|e| e.to_string())?)
    }

    fn wrk(&mut self, job: &Job, depth: usize) -> Result<Sample, String> {
        let script = self.tools.root.join("benches/peers/wrk.lua");
        let seconds = self.seconds.ceil(); // it takes whole seconds only
        let mut args: Vec<String> = ["-t1", "-c64"].map(String::from).into();
        args.extend([format!("-d{seconds}s"), "-s".into(), script.display().to_string()]);
        args.extend([format!("http://{SERVER}/"), "--".into(), depth.to_string()]);
        let output = self.client(job, Path::new("wrk"), &args, seconds)?;
        let line = output.lines().find_map(|l| l.strip_prefix("JSON ")).ok_or("wrk printed no result")?;
        self.report(job, line)
    }

    fn pauses(&self) -> Result<Sample, String> {
        let mut cores = vec![self.machine.server_core, self.machine.client_core];
        cores.dedup(); // a machine with one
        let cores: Vec<String> = cores.iter().map(usize::to_string).collect();
        let mut command = Command::new(&self.tools.own);
        command.args(["pauses", "--cores", &cores.join(","), "--seconds", &(2.0 * self.seconds).to_string()]);
        let program = Program::start(&mut command, &self.tools.work.join("pauses.log"))?;
        let found: Waits = last_line(&program.end(Duration::from_secs_f64(2.0 * self.seconds) + GRACE)?)?;
        Ok(Sample { figures: figures([(P50, found.p50), (P99, found.p99), (P999, found.p999)]), ..Sample::default() })
    }

    fn memory(&self, connections: usize, done: Done) -> Result<Sample, String> {
        let args = ["memory", "--connections", &connections.to_string(), "--done", done.name()].map(String::from);
        let found: Memory = last_line(&self.alone(&args)?)?;
        let (all, each) = (found.bytes as f64, found.bytes as f64 / found.connections as f64);
        Ok(Sample { figures: figures([(BYTES_EACH, each), (BYTES_ALL, all)]), ..Sample::default() })
    }

    fn memory_echo(&self, connections: usize, trips: usize) -> Result<Sample, String> {
        let (connections, trips) = (connections.to_string(), trips.to_string());
        let args = ["memory-echo", "--connections", &connections, "--trips", &trips].map(String::from);
        let found: Nanoseconds = last_line(&self.alone(&args)?)?;
        Ok(Sample { figures: figures([(RATE, 1e9 / found.ns), (TRIP, found.ns)]), ..Sample::default() })
    }

    fn sums(&self, bytes: usize, words: bool) -> Result<Sample, String> {
        let mut args = ["sums", "--bytes", &bytes.to_string()].map(String::from).to_vec();
        args.extend(words.then(|| "--words".to_string()));
        let found: Nanoseconds = last_line(&self.alone(&args)?)?;
        Ok(Sample { figures: figures([(SUM, found.ns)]), ..Sample::default() })
    }

    fn workers(&self, team: Team, connections: usize) -> Result<Sample, String> {
        let (server, client) = (self.machine.server_core, self.machine.client_core);
        if team != Team::One && server == client {
            return Err(format!("{NOT_SUPPORTED}: it needs two cores"));
        }
        let program = |cores: &[usize], more: &[&str]| {
            let cores: Vec<String> = cores.iter().map(usize::to_string).collect();
            let mut command = Command::new(&self.tools.own);
            command.args(["worker", "--cores", &cores.join(","), "--connections", &connections.to_string()]);
            command.args(["--seconds", &self.seconds.to_string()]).args(more);
            Program::start(&mut command, &self.tools.work.join(format!("workers-{}.log", cores.join("-"))))
        };
        let thread = client.to_string();
        let programs = match team {
            Team::One => vec![program(&[server], &[])?],
            Team::Two => vec![program(&[server, client], &[])?],
            Team::TwoPrograms => vec![program(&[server], &[])?, program(&[client], &[])?],
            Team::Thread => vec![program(&[server], &["--thread", &thread])?],
            Team::SleepingThread => vec![program(&[server], &["--thread", &thread, "--block"])?],
        };
        let mut found: Vec<Found> = Vec::new();
        for program in programs {
            found.push(last_line(&program.end(Duration::from_secs_f64(self.seconds) + GRACE)?)?);
        }
        let rate = found.iter().map(|f| f.rate).sum();
        let worst = |of: fn(&Found) -> f64| found.iter().map(of).fold(0.0, f64::max);
        let list = [(RATE, rate), (P50, worst(|f| f.p50)), (P99, worst(|f| f.p99)), (P999, worst(|f| f.p999))];
        Ok(Sample { figures: figures(list), ..Sample::default() })
    }

    /// This program by another subcommand, on the server's core, without a bed.
    fn alone(&self, args: &[String]) -> Result<String, String> {
        let mut command = Command::new("taskset");
        command.args(["-c", &self.machine.server_core.to_string()]).arg(&self.tools.own).args(args);
        Program::start(&mut command, &self.tools.work.join("memory.log"))?.end(MEMORY_TIME)
    }

    /// A sample of a load's report.
    fn report(&mut self, job: &Job, text: &str) -> Result<Sample, String> {
        let report: Report = serde_json::from_str(text).map_err(|e| format!("a report that is none: {e}"))?;
        let latency = Latency::from_buckets(&report.histogram);
        let at = |percent| latency.percentile(percent).as_nanos() as f64;
        let list = [(RATE, report.requests_per_second), (P50, at(50.0)), (P99, at(99.0)), (P999, at(99.9))];
        self.latencies.entry((job.row.clone(), job.arm)).or_default().merge(&latency);
        let errors = report.error_count() + report.unanswered;
        Ok(Sample { figures: figures(list), errors, ..Sample::default() })
    }

    /// The percentile curves of all rounds together.
    pub fn note_curves(&self, results: &mut Results) {
        for row in &mut results.rows {
            for cell in &mut row.cells {
                let mut found = self.latencies.iter().filter(|((id, arm), _)| *id == row.id && *arm == cell.arm);
                cell.curve = found.next().map(|(_, latency)| latency.curve()).unwrap_or_default();
            }
        }
    }

    /// Wide histograms of one cell (`.hgrm`), for other plotters.
    pub fn latencies(&self) -> impl Iterator<Item = (&str, &str, &Latency)> {
        self.latencies.iter().map(|((row, arm), latency)| (row.as_str(), *arm, latency))
    }
}

/// What the device says of an MTU that it cannot do.
const TOO_LARGE: &str = "is more than a frame holds";

pub fn missing(results: &mut Results, job: &Job, why: &str) {
    let why = if why.contains(TOO_LARGE) { NOT_SUPPORTED } else { why };
    eprintln!("bench: {}, {}: {why}", job.row, job.arm);
    results.cell_mut(&job.row, job.group, &job.title, job.arm).missing = Some(why.to_string());
}

/// The processor's part: what an idle server takes, and what a request of an open
/// loop costs, where the number of requests is known, with those of the warm-up. The
/// server `ran` so long; `client`: what the client's core did meanwhile.
fn note_cpu(job: &Job, sample: &mut Sample, ran: f64, client: Ticks, took: f64, seconds: f64) {
    match &job.work {
        Work::Nothing => {
            sample.figures.insert(IDLE_CPU.into(), 100.0 * ran / took.max(1e-9));
        }
        Work::Load { rate: Rate::PartOfKernel(_), .. } => {
            let warm_up = 1.0 + (seconds / 5.0).min(1.0) / seconds;
            let requests = sample.figures.get(RATE).copied().unwrap_or(0.0) * seconds * warm_up;
            if requests > 0.0 {
                let both = ran + client.softirq_seconds();
                sample.figures.insert(CPU.into(), both * 1e9 / requests);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(work: Work) -> Job {
        let bed = super::super::bed::PLAIN;
        Job { row: "r".into(), group: "g", title: String::new(), arm: "a", bed, server: None, work }
    }

    #[test]
    fn the_last_line_is_the_result() {
        let got: Received = last_line("ready\n{\"bytes\":5,\"seconds\":0.5}\n").unwrap();
        assert_eq!((got.bytes, got.seconds), (5, 0.5));
        assert!(last_line::<Received>("ready\n").is_err());
    }

    #[test]
    fn processor_time_of_requests_counts_the_warm_up() {
        let load = Work::Load {
            over: Over::Kernel,
            proto: "tcp",
            to: String::new(),
            connections: 1,
            size: 64,
            rate: Rate::PartOfKernel(0.5),
            one_shot: false,
        };
        let mut sample = Sample { figures: figures([(RATE, 1000.0)]), ..Sample::default() };
        // 2 s measured and 0.4 s of warm-up at 1,000 a second, 2.4 s of processor time.
        note_cpu(&job(load), &mut sample, 2.4, Ticks::default(), 9.0, 2.0);
        assert!((sample.figures[CPU] - 1e6).abs() < 1.0, "{:?}", sample.figures);
        let mut sample = Sample::default();
        note_cpu(&job(Work::Nothing), &mut sample, 0.02, Ticks::default(), 2.0, 1.0);
        assert!((sample.figures[IDLE_CPU] - 1.0).abs() < 1e-9);
    }

    #[test]
    fn what_cannot_be_measured_is_named_in_its_cell() {
        let mut results = Results::default();
        missing(&mut results, &job(Work::Nothing), "no zero-copy");
        assert_eq!(results.rows[0].cells[0].missing.as_deref(), Some("no zero-copy"));
    }
}
