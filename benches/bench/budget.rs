//! The budgets, beside what was measured.

use serde::Serialize;

use super::inside::{
    ASKED, CHOSEN, ON_WORKER, SUMS, TWO_PROGRAMS, TWO_WORKERS, WAITING, WORDS, WORKERS_ROW, memory_echo_row, sum_row, thread_row,
};
use super::plan::Over;
use super::result::{BYTES_ALL, BYTES_EACH, COPIED, CPU, GBIT, IDLE_CPU, P50, P99, P999, RATE, Results, SUM, TRIP};
use super::rows::{ADAPTIVE, BULK_LENT, BULK_OURS, KERNEL_BLOCK, KERNEL_SPIN, MTUS, RAW, SPIN, echo_row, open_row};

/// A bound on a figure.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Bound {
    AtMost,
    AtLeast,
}

/// One budget and the figure for it.
#[derive(Clone, Debug, Serialize)]
pub struct Verdict {
    pub what: String,
    /// `at most` or `at least`.
    pub bound: &'static str,
    pub budget: f64,
    /// What is asked at the very least, where that is less than the budget.
    pub floor: Option<f64>,
    /// None: a row that it needs was not measured.
    pub figure: Option<f64>,
    pub met: Option<bool>,
    pub floor_met: Option<bool>,
    /// The row that decided, where several are looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub row: Option<String>,
}

impl Bound {
    fn holds(self, figure: f64, limit: f64) -> bool {
        match self {
            Self::AtMost => figure <= limit,
            Self::AtLeast => figure >= limit,
        }
    }
}

fn verdict(what: &str, bound: Bound, budget: f64, floor: Option<f64>, figure: Option<f64>) -> Verdict {
    let figure = figure.filter(|f| f.is_finite());
    Verdict {
        what: what.to_string(),
        bound: if bound == Bound::AtMost { "at most" } else { "at least" },
        budget,
        floor,
        figure,
        met: figure.map(|f| bound.holds(f, budget)),
        floor_met: floor.and_then(|floor| figure.map(|f| bound.holds(f, floor))),
        row: None,
    }
}

/// The verdict on the worst of several rows' figures.
fn worst(what: &str, bound: Bound, budget: f64, floor: Option<f64>, rows: impl Iterator<Item = (String, Option<f64>)>) -> Verdict {
    let found = rows.filter_map(|(row, figure)| Some((row, figure.filter(|f| f.is_finite())?)));
    let by = |a: &(String, f64), b: &(String, f64)| a.1.total_cmp(&b.1);
    let worst = if bound == Bound::AtMost { found.max_by(by) } else { found.min_by(by) };
    let (row, figure) = worst.unzip();
    Verdict { row, ..verdict(what, bound, budget, floor, figure) }
}

/// The ratio of one arm's median to another's in the same row.
fn ratio(results: &Results, row: &str, arm: &str, other: &str, figure: &str) -> Option<f64> {
    Some(results.median(row, arm, figure)? / results.median(row, other, figure)?)
}

/// The ratio to the better of the kernel's servers: the spinning one where it
/// was measured, else the blocking one.
fn to_best_kernel(results: &Results, row: &str, figure: &str) -> Option<f64> {
    let ratios = [KERNEL_SPIN, KERNEL_BLOCK].into_iter().filter_map(|k| ratio(results, row, SPIN, k, figure));
    // A rate has to beat the greater one, a latency the smaller.
    if figure == RATE { ratios.reduce(f64::min) } else { ratios.reduce(f64::max) }
}

/// The ratios to the kernel of the echo rows with kernel sockets.
fn kernel_rows<'a>(results: &'a Results, figure: &'static str) -> impl Iterator<Item = (String, Option<f64>)> + 'a {
    let rows = results.rows.iter().filter(|r| r.group == "echo" && r.id.ends_with("-kernel"));
    rows.map(move |r| (r.id.clone(), to_best_kernel(results, &r.id, figure)))
}

/// Every budget that a row of the benchmark measures.
pub fn verdicts(results: &Results) -> Vec<Verdict> {
    use Bound::{AtLeast, AtMost};
    let one = echo_row("tcp", 64, 1, Over::Stack);
    let many = echo_row("tcp", 64, 256, Over::Stack);
    let of = |row: &str, arm: &str, other: &str, figure: &str| ratio(results, row, arm, other, figure);
    let loaded = |over| to_best_kernel(results, &open_row(75, over), P999);
    let mut all = vec![
        verdict("echo of 64 B over veth, both ends ours, p50 to the raw reflector's", AtMost, 1.2, Some(1.3), of(&one, SPIN, RAW, P50)),
        verdict("the same, p99.9", AtMost, 1.5, None, of(&one, SPIN, RAW, P999)),
        verdict("our client, p50 of our server to the kernel's blocking one", AtMost, 0.35, None, of(&one, SPIN, KERNEL_BLOCK, P50)),
        verdict("the same, to the kernel's spinning one", AtMost, 0.65, None, of(&one, SPIN, KERNEL_SPIN, P50)),
        verdict("our client, 256 connections, rate to the kernel's server", AtLeast, 2.0, Some(1.8), to_best_kernel(results, &many, RATE)),
        verdict("the same, p99", AtMost, 0.4, None, to_best_kernel(results, &many, P99)),
        worst("kernel client, every echo row: rate to the kernel's server, the worst", AtLeast, 1.0, None, kernel_rows(results, RATE)),
        worst("the same, p50", AtMost, 1.0, None, kernel_rows(results, P50)),
        worst("the same, p99", AtMost, 1.0, None, kernel_rows(results, P99)),
        verdict("256 connections, both ends ours, rate to the raw reflector's", AtLeast, 0.85, Some(0.75), of(&many, SPIN, RAW, RATE)),
        verdict("open loop at 75 % of the kernel's capacity, p99.9 to the kernel's, kernel client", AtMost, 0.1, Some(0.25), loaded(Over::Kernel)),
        verdict("the same, our client", AtMost, 0.1, Some(0.25), loaded(Over::Stack)),
    ];
    for mtu in MTUS {
        let row = format!("bulk-{mtu}");
        let best = [BULK_OURS, BULK_LENT].into_iter().filter_map(|arm| of(&row, arm, RAW, GBIT)).reduce(f64::max);
        let what = format!("bulk at MTU {mtu}, to the raw sender (copied or lent, whichever is better)");
        all.push(verdict(&what, AtLeast, 0.95, Some(0.9), best));
    }
    let copied = MTUS.map(|mtu| format!("bulk-{mtu}")).map(|row| {
        let copied = results.median(&row, BULK_LENT, COPIED);
        (row, copied)
    });
    // What is sent again while the kernel still has it has to be copied.
    all.push(worst("bulk without copies: bytes copied for each byte", AtMost, 0.001, None, copied.into_iter()));
    let churn = to_best_kernel(results, "churn-stack", RATE);
    let cpu = of(&open_row(50, Over::Kernel), ADAPTIVE, KERNEL_BLOCK, CPU);
    all.extend([
        verdict("connect, one request, close: rate to the kernel's, our client", AtLeast, 4.0, Some(3.0), churn),
        verdict("processor time of a request at 50 % of the kernel's capacity, adaptive, to the kernel's blocking server", AtMost, 0.5, None, cpu),
        verdict("adaptive: p50 of one connection to spin's", AtMost, 1.1, None, of(&one, ADAPTIVE, SPIN, P50)),
        verdict("adaptive: percent of a core when idle", AtMost, 2.0, None, results.median("idle", ADAPTIVE, IDLE_CPU)),
    ]);
    inside(results, &mut all);
    all
}

/// Those of rows in memory, and of committed counts.
fn inside(results: &Results, all: &mut Vec<Verdict>) {
    use Bound::{AtLeast, AtMost};
    let of = |row: &str, arm: &str, other: &str, figure: &str| ratio(results, row, arm, other, figure);
    let memory = |figure| results.median("memory-idle", ASKED, figure);
    let per_million = memory(BYTES_EACH).map(|b| b * 1e6 / f64::from(1 << 30));
    let waiting = results.median("memory-time-wait", WAITING, BYTES_EACH);
    let block = size_of::<ringroad::tcp::Connection>() as f64;
    let trip = |connections| Some(1.0 / results.median(&thread_row(connections), ON_WORKER, RATE)?);
    let batch = trip(32).zip(trip(1)).map(|(many, one)| many / one);
    let sums = |least: usize, end: usize| {
        let lengths = SUMS.into_iter().filter(move |n| (least..end).contains(n)).map(sum_row);
        lengths.map(move |row| (row.clone(), ratio(results, &row, WORDS, CHOSEN, SUM)))
    };
    all.extend([
        verdict("two workers: rate to two programs of one worker, in memory", AtLeast, 0.95, None, of(WORKERS_ROW, TWO_WORKERS, TWO_PROGRAMS, RATE)),
        verdict("a worker in memory: time of an echo, 32 at a time to one at a time", AtMost, 0.8, None, batch),
        verdict("bytes of an idle connection", AtMost, 768.0, None, memory(BYTES_EACH)),
        verdict("bytes of a connection's block (its hot part: at most 192, refused by the compiler else)", AtMost, 512.0, None, Some(block)),
        verdict("bytes of a connection in TIME-WAIT", AtMost, 64.0, None, waiting),
        verdict("GiB of a million idle connections", AtMost, 1.0, None, memory(BYTES_ALL).and(per_million)),
        worst("checksum from 256 bytes up: times as fast as a loop of words, the worst", AtLeast, 8.0, None, sums(256, usize::MAX)),
        worst("the same below 256 bytes", AtLeast, 1.0, None, sums(0, 256)),
    ]);
    for (connections, ns) in [(1, 180.0), (256, 240.0), (100_000, 400.0)] {
        let what = format!("ns of a round trip in memory, {connections} connections");
        all.push(verdict(&what, AtMost, ns, None, results.median(&memory_echo_row(connections), SPIN, TRIP)));
    }
    let count = |name: &str| results.instructions.get(name).copied();
    all.extend([
        verdict("instructions of an echo of 64 B in memory, both ends (committed)", AtMost, 1400.0, Some(1800.0), count("tcp-echo")),
        verdict("the same, the server's half", AtMost, 700.0, None, count("tcp-echo-server")),
        verdict("the same, through the C layer", AtMost, 800.0, Some(900.0), count("tcp-echo-c")),
        verdict("instructions of an echo on two workers, to one (committed)", AtMost, 1.02, None, count("two-workers/tcp-echo").zip(count("tcp-echo-c")).map(|(two, one)| two / one)),
    ]);
}

#[cfg(test)]
mod tests {
    use super::super::result::tests::results;
    use super::*;

    fn find<'a>(all: &'a [Verdict], what: &str) -> &'a Verdict {
        all.iter().find(|v| v.what.contains(what)).unwrap()
    }

    #[test]
    fn budgets_are_judged_by_medians() {
        let row = "tcp-64-x1-stack";
        let all = verdicts(&results(&[
            (row, SPIN, P50, &[1250.0, 1240.0, 9999.0]),
            (row, RAW, P50, &[1000.0]),
            (row, KERNEL_BLOCK, P50, &[5000.0]),
        ]));
        let raw = find(&all, "p50 to the raw");
        assert_eq!((raw.figure, raw.met, raw.floor_met), (Some(1.25), Some(false), Some(true)));
        let kernel = find(&all, "kernel's blocking one");
        assert_eq!((kernel.figure, kernel.met), (Some(0.25), Some(true)));
        let spinning = find(&all, "kernel's spinning one");
        assert_eq!((spinning.figure, spinning.met), (None, None), "it was not measured");
    }

    #[test]
    fn the_kernel_is_taken_at_its_best() {
        let row = "tcp-64-x256-stack";
        let all = verdicts(&results(&[
            (row, SPIN, RATE, &[400.0]),
            (row, KERNEL_SPIN, RATE, &[100.0]),
            (row, KERNEL_BLOCK, RATE, &[200.0]),
            (row, SPIN, P99, &[10.0]),
            (row, KERNEL_SPIN, P99, &[20.0]),
            (row, KERNEL_BLOCK, P99, &[40.0]),
        ]));
        assert_eq!(find(&all, "256 connections, rate to the kernel").figure, Some(2.0));
        assert_eq!(all[5].figure, Some(0.5), "{}", all[5].what);
    }

    #[test]
    fn the_worst_row_decides() {
        let all = verdicts(&results(&[
            ("tcp-64-x1-kernel", SPIN, RATE, &[300.0]),
            ("tcp-64-x1-kernel", KERNEL_SPIN, RATE, &[100.0]),
            ("udp-64-x16-kernel", SPIN, RATE, &[90.0]),
            ("udp-64-x16-kernel", KERNEL_SPIN, RATE, &[100.0]),
            ("tcp-64-x1-stack", SPIN, RATE, &[1.0]),
            ("tcp-64-x1-stack", KERNEL_SPIN, RATE, &[100.0]),
        ]));
        let worst = find(&all, "every echo row: rate");
        assert_eq!((worst.figure, worst.met), (Some(0.9), Some(false)));
        assert_eq!(worst.row.as_deref(), Some("udp-64-x16-kernel"));
    }

    #[test]
    fn committed_instructions_are_judged_too() {
        let mut results = results(&[]);
        results.instructions.insert("tcp-echo-c".into(), 850.0);
        let all = verdicts(&results);
        let c = find(&all, "C layer");
        assert_eq!((c.figure, c.met, c.floor_met), (Some(850.0), Some(false), Some(true)));
        assert_eq!(find(&all, "both ends (committed)").figure, None);
    }

    #[test]
    fn what_is_done_in_memory_is_judged() {
        let all = verdicts(&results(&[
            ("workers", TWO_WORKERS, RATE, &[190.0]),
            ("workers", TWO_PROGRAMS, RATE, &[200.0]),
            ("thread-x1", ON_WORKER, RATE, &[100.0]),
            ("thread-x32", ON_WORKER, RATE, &[125.0]),
            ("checksum-256", CHOSEN, SUM, &[10.0]),
            ("checksum-256", WORDS, SUM, &[90.0]),
            ("checksum-9000", CHOSEN, SUM, &[100.0]),
            ("checksum-9000", WORDS, SUM, &[700.0]),
            ("bulk-1500", BULK_LENT, COPIED, &[0.0]),
            ("bulk-9000", BULK_LENT, COPIED, &[1.0]),
        ]));
        let figure = |what| find(&all, what).figure;
        assert_eq!(figure("two workers"), Some(0.95));
        assert_eq!(figure("32 at a time"), Some(0.8));
        assert_eq!(figure("checksum from 256"), Some(7.0));
        assert_eq!(figure("below 256"), None);
        let copied = find(&all, "bytes copied");
        assert_eq!((copied.met, copied.row.as_deref()), (Some(false), Some("bulk-9000")));
    }

    #[test]
    fn a_million_connections_from_fewer() {
        let each = f64::from(1 << 30) / 1e6;
        let all = verdicts(&results(&[
            ("memory-idle", ASKED, BYTES_EACH, &[each]),
            ("memory-idle", ASKED, BYTES_ALL, &[each * 20_000.0]),
        ]));
        let gib = find(&all, "GiB").figure.unwrap();
        assert!((gib - 1.0).abs() < 1e-9, "{gib}");
    }
}
