//! The rows that need no test bed: whole workers, connections and checksums in
//! memory.

use super::bed::PLAIN;
use super::echo_memory::AT_ONCE;
use super::memory::Done;
use super::plan::{Job, Scope, Team, Work};
use super::rows::SPIN;

/// Arms of the rows of threads.
pub const ON_WORKER: &str = "ringroad, on the worker";
pub const SPINNING_THREAD: &str = "ringroad, a thread that spins";
pub const SLEEPING_THREAD: &str = "ringroad, a thread that sleeps";
/// Arms of the row of workers.
pub const ONE_WORKER: &str = "one worker";
pub const TWO_WORKERS: &str = "two workers";
pub const TWO_PROGRAMS: &str = "two programs of one worker";
/// Arms of the rows of connections in memory.
pub const ASKED: &str = "ringroad, after a request on each";
pub const SILENT: &str = "ringroad, connected only";
pub const WAITING: &str = "ringroad, in TIME-WAIT";
/// Arms of the rows of checksums.
pub const CHOSEN: &str = "ringroad";
pub const WORDS: &str = "a loop of words";

/// Clients of each worker where workers are compared.
const CLIENTS: usize = 64;
/// Connections of the echo in memory.
const MEMORY_ECHO: [usize; 3] = [1, 256, 100_000];
/// Clients of the rows of threads, and of the cost of a packet in a batch.
const BATCHES: [usize; 3] = [1, 32, 256];
/// Bytes that are summed.
pub const SUMS: [usize; 8] = [8, 20, 64, 128, 256, 512, 1448, 9000];

fn job(row: String, group: &'static str, title: String, arm: &'static str, work: Work) -> Job {
    Job { row, group, title, arm, bed: PLAIN, server: None, work }
}

/// The name of a row of the program on the worker and beside it.
pub fn thread_row(connections: usize) -> String {
    format!("thread-x{connections}")
}

pub fn threads(scope: &Scope) -> Vec<Job> {
    let arms = [(ON_WORKER, Team::One), (SPINNING_THREAD, Team::Thread), (SLEEPING_THREAD, Team::SleepingThread)];
    let mut jobs = Vec::new();
    for &connections in scope.pick(&BATCHES[..2], &BATCHES[..], &BATCHES[..]) {
        jobs.extend(arms.map(|(arm, team)| {
            let title = format!("echo of 64 B by a worker in memory, {connections} at a time, its clients on the same core");
            job(thread_row(connections), "thread", title, arm, Work::Workers { team, connections })
        }));
    }
    jobs
}

/// The name of the row of workers.
pub const WORKERS_ROW: &str = "workers";

pub fn workers(_: &Scope) -> Vec<Job> {
    let arms = [(ONE_WORKER, Team::One), (TWO_WORKERS, Team::Two), (TWO_PROGRAMS, Team::TwoPrograms)];
    let job = |(arm, team)| {
        let title = format!("echo of 64 B by workers in memory, {CLIENTS} clients each, on the worker's core");
        job(WORKERS_ROW.into(), "workers", title, arm, Work::Workers { team, connections: CLIENTS })
    };
    arms.into_iter().map(job).collect()
}

/// The name of a row of the echo in memory.
pub fn memory_echo_row(connections: usize) -> String {
    format!("memory-echo-x{connections}")
}

pub fn memory(scope: &Scope) -> Vec<Job> {
    let all = scope.pick(20_000, 1_000_000, 1_000_000);
    let idle = |row: &str, what: &str, arm, done| {
        let title = format!("{all} {what}, in memory");
        job(row.into(), "memory", title, arm, Work::Memory { connections: all, done })
    };
    let mut jobs = vec![
        idle("memory-idle", "idle connections", ASKED, Done::Asked),
        idle("memory-idle", "idle connections", SILENT, Done::Connected),
        idle("memory-time-wait", "closed connections", WAITING, Done::Closed),
    ];
    let trips = scope.pick(20_000, 2_000_000, 2_000_000);
    for &connections in scope.pick(&MEMORY_ECHO[..2], &MEMORY_ECHO[..], &MEMORY_ECHO[..]) {
        let asking = connections.min(AT_ONCE);
        let title = format!("echo of 64 B in memory, both ends on one core, {connections} connections, {asking} asking at a time");
        let work = Work::MemoryEcho { connections, trips };
        jobs.push(job(memory_echo_row(connections), "memory", title, SPIN, work));
    }
    jobs
}

/// The name of a row of checksums.
pub fn sum_row(bytes: usize) -> String {
    format!("checksum-{bytes}")
}

pub fn sums(_: &Scope) -> Vec<Job> {
    let row = |bytes| {
        [(CHOSEN, false), (WORDS, true)].map(|(arm, words)| {
            job(sum_row(bytes), "sums", format!("checksum of {bytes} B"), arm, Work::Sums { bytes, words })
        })
    };
    SUMS.into_iter().flat_map(row).collect()
}
