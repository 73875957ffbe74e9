//! What the README shows of a run: a line for each kind of work, ringroad beside
//! what one would take instead.

use std::fmt::Write;

use super::budget::Verdict;
use super::result::{CPU, GBIT, P50, P99, RATE, Results};
use super::rows::{
    ADAPTIVE, BULK_BARE, BULK_KERNEL, BULK_OURS, KERNEL_BLOCK, KERNEL_SPIN, NGINX, RAW, SMOLTCP, SPIN, THREAD,
};
use super::table::{self, DOCS, PLOTS};

/// The kernel's servers: which of them is the better counts.
const KERNEL: &[&str] = &[KERNEL_SPIN, KERNEL_BLOCK];

/// A line: the work, its row, the figure, our arm, and the others'.
struct Line {
    what: &'static str,
    row: &'static str,
    figure: &'static str,
    ours: &'static str,
    theirs: &'static [&'static str],
}

const fn line(
    what: &'static str,
    row: &'static str,
    figure: &'static str,
    ours: &'static str,
    theirs: &'static [&'static str],
) -> Line {
    Line { what, row, figure, ours, theirs }
}

/// The lines in their order. All echoes are of 64 bytes.
const LINES: [Line; 22] = [
    line("TCP echo, 1 connection, ringroad client: p50", "tcp-64-x1-stack", P50, SPIN, KERNEL),
    line("the same beside bare rings, without a stack", "tcp-64-x1-stack", P50, SPIN, &[RAW]),
    line("TCP echo, 256 connections, ringroad client: requests/s", "tcp-64-x256-stack", RATE, SPIN, KERNEL),
    line("the same beside bare rings, without a stack", "tcp-64-x256-stack", RATE, SPIN, &[RAW]),
    line("the same beside smoltcp on the same rings", "tcp-64-x256-stack", RATE, SPIN, &[SMOLTCP]),
    line("TCP echo, 1 connection, kernel client: p50", "tcp-64-x1-kernel", P50, SPIN, KERNEL),
    line("TCP echo, 256 connections, kernel client: requests/s", "tcp-64-x256-kernel", RATE, SPIN, KERNEL),
    line("TCP echo, 4,096 connections, kernel client: p99", "tcp-64-x4096-kernel", P99, SPIN, KERNEL),
    line("UDP echo, 256 sockets, kernel client: requests/s", "udp-64-x256-kernel", RATE, SPIN, KERNEL),
    line("connect, one request, close; ringroad client: connections/s", "churn-stack", RATE, SPIN, KERNEL),
    line("HTTP, 64 connections, wrk: requests/s", "http-wrk", RATE, SPIN, &[NGINX]),
    line("HTTP, 16 requests at once on each: requests/s", "http-wrk-pipelined", RATE, SPIN, &[NGINX]),
    line("75 % of the kernel's capacity, ringroad client: p99", "open-75-stack", P99, SPIN, KERNEL),
    line("75 % of the kernel's capacity, kernel client: p50", "open-75-kernel", P50, SPIN, KERNEL),
    line("the same: p99", "open-75-kernel", P99, SPIN, KERNEL),
    line("50 % of it: processor time of a request, adaptive", "open-50-kernel", CPU, ADAPTIVE, KERNEL),
    line("calls from the program's own thread, 1 connection: requests/s", "tcp-64-x1-stack", RATE, THREAD, KERNEL),
    line("the same, 256 connections", "tcp-64-x256-stack", RATE, THREAD, KERNEL),
    line("bulk, one flow, MTU 1500, Gbit/s", "bulk-1500", GBIT, BULK_OURS, &[BULK_KERNEL]),
    line("the same without segmentation offload", "bulk-1500", GBIT, BULK_OURS, &[BULK_BARE]),
    line("the same beside bare rings, without a stack", "bulk-1500", GBIT, BULK_OURS, &[RAW]),
    line("bulk, one flow, MTU 9000, Gbit/s", "bulk-9000", GBIT, BULK_OURS, &[BULK_KERNEL]),
];

/// Figures of which more is better.
fn more_is_better(figure: &str) -> bool {
    figure == RATE || figure == GBIT
}

impl Line {
    /// Our figure, the best of theirs with its name, and how many times as good ours is.
    fn figures(&self, results: &Results) -> Option<(f64, f64, &'static str, f64)> {
        let ours = results.median(self.row, self.ours, self.figure)?;
        let theirs = self.theirs.iter().filter_map(|arm| Some((results.median(self.row, arm, self.figure)?, *arm)));
        let more = more_is_better(self.figure);
        let (theirs, who) = theirs.reduce(|a, b| if (a.0 > b.0) == more { a } else { b })?;
        let times = if more { ours / theirs } else { theirs / ours };
        times.is_finite().then_some((ours, theirs, who, times))
    }
}

/// The table: a ratio below 1, where ringroad is behind, is bold.
fn lines(out: &mut String, results: &Results) {
    out.push_str("| work | ringroad | the other | which | ratio |\n| --- | ---: | ---: | --- | ---: |\n");
    for line in &LINES {
        let Some((ours, theirs, who, times)) = line.figures(results) else { continue };
        let (ours, theirs) = (table::written(line.figure, ours), table::written(line.figure, theirs));
        let times = if times < 1.0 { format!("**{times:.2}**") } else { format!("{times:.2}") };
        let _ = writeln!(out, "| {} | {ours} | {theirs} | {who} | {times} |", line.what);
    }
    out.push('\n');
}

/// How many of the budgets are kept.
fn budgets(out: &mut String, verdicts: &[Verdict]) {
    let measured = verdicts.iter().filter(|v| v.met.is_some()).count();
    let met = verdicts.iter().filter(|v| v.met == Some(true)).count();
    let accepted = verdicts.iter().filter(|v| v.met == Some(false) && v.floor_met == Some(true)).count();
    let _ = writeln!(
        out,
        "Of the {measured} goals that ringroad has for its speed and size, this run met {met}, and {accepted} more by the\n\
         lesser bound: [all of them]({DOCS}/table.md#budgets), and [why the others are missed](docs/budgets.md).\n",
    );
}

/// What the README says of a run.
pub fn readme(results: &Results, verdicts: &[Verdict]) -> String {
    let mut out = String::new();
    table::head(&mut out, results);
    out.push_str(
        "\nA ratio above 1 is in ringroad's favour, one below 1 is bold; \"kernel\" is the better of a\n\
         spinning and a blocking epoll server. Look at the ratios, not at the absolute figures.\n\n",
    );
    lines(&mut out, results);
    // A picture is there where its row was measured.
    let pictures: [(&str, &str, bool); 4] = [
        ("Latency percentiles of one echo connection", PLOTS[0], has_curve(results, "tcp-64-x1-stack")),
        ("Requests per second by connections", PLOTS[1], results.row("tcp-64-x256-stack").is_some()),
        ("Latency percentiles at 75 % of the kernel's capacity", PLOTS[2], has_curve(results, "open-75-kernel")),
        ("Instructions of operations", PLOTS[3], !results.instructions.is_empty()),
    ];
    for (title, file, _) in pictures.iter().filter(|(_, _, there)| *there) {
        let _ = writeln!(out, "![{title}]({DOCS}/{file})\n");
    }
    let _ = writeln!(out, "Every row and arm, with ranges: [{DOCS}/table.md]({DOCS}/table.md); for programs");
    let _ = writeln!(out, "[{DOCS}/results.json]({DOCS}/results.json).\n");
    budgets(&mut out, verdicts);
    out
}

fn has_curve(results: &Results, row: &str) -> bool {
    results.row(row).is_some_and(|r| r.cells.iter().any(|c| !c.curve.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::super::plan::{Scope, Size};
    use super::super::result::tests::results;
    use super::super::rows;
    use super::*;

    #[test]
    fn every_line_is_of_a_row_and_arms_that_are_measured() {
        let scope = Scope { size: Size::Usual, only: vec![], root: String::new(), nginx_conf: String::new() };
        let jobs = rows::all(&scope);
        for line in &LINES {
            for arm in line.theirs.iter().chain([&line.ours]) {
                assert!(jobs.iter().any(|j| j.row == line.row && j.arm == *arm), "{}: {}, {arm}", line.what, line.row);
            }
        }
    }

    #[test]
    fn the_better_of_the_kernels_servers_counts() {
        let results = results(&[
            ("tcp-64-x1-stack", SPIN, P50, &[5_000.0]),
            ("tcp-64-x1-stack", KERNEL_SPIN, P50, &[7_500.0]),
            ("tcp-64-x1-stack", KERNEL_BLOCK, P50, &[20_000.0]),
            ("tcp-64-x256-kernel", SPIN, RATE, &[90.0]),
            ("tcp-64-x256-kernel", KERNEL_SPIN, RATE, &[80.0]),
            ("tcp-64-x256-kernel", KERNEL_BLOCK, RATE, &[100.0]),
        ]);
        let text = readme(&results, &[]);
        let p50 = "| TCP echo, 1 connection, ringroad client: p50 | 5.00 us | 7.50 us | kernel, spinning epoll | 1.50 |";
        let rate = "| TCP echo, 256 connections, kernel client: requests/s | 90 | 100 | kernel, blocking epoll | **0.90** |";
        assert!(text.contains(p50) && text.contains(rate), "{text}");
        assert!(!text.contains("HTTP"), "it was not measured");
    }

    #[test]
    fn the_pictures_are_those_that_there_are() {
        let mut results = results(&[("tcp-64-x1-stack", SPIN, RATE, &[1.0])]);
        assert!(!readme(&results, &[]).contains(PLOTS[0]));
        results.cell_mut("tcp-64-x1-stack", "echo", "", SPIN).curve = vec![(50.0, 1)];
        let text = readme(&results, &[]);
        assert!(text.contains("(docs/bench/tcp-64-x1-stack.svg)") && !text.contains(PLOTS[3]));
    }

    #[test]
    fn budgets_are_counted() {
        let results = results(&[("tcp-64-x1-stack", SPIN, P50, &[1250.0]), ("tcp-64-x1-stack", RAW, P50, &[1000.0])]);
        let text = readme(&results, &super::super::budget::verdicts(&results));
        // The compiler keeps a bound, and the committed sizes are there always.
        assert!(text.contains("this run met 1, and 1 more by the"), "{text}");
    }
}
