//! The results for people: Markdown.

use std::fmt::Write;

use ringroad::telemetry::latency::{thousands, time};

use super::RESULTS;
use super::budget::Verdict;
use super::result::{
    BYTES_ALL, BYTES_EACH, COPIED, Cell, CPU, GBIT, IDLE_CPU, P50, P99, P999, RATE, Results, Row, SUM, Spread, TRIP,
};
use super::rows::{KERNEL_BARE, KERNEL_BLOCK, KERNEL_SPIN, NGINX, SMOLTCP, SMOLTCP_PACKET, SPIN};

/// Between these lines of the README its table stands.
pub const BEGIN: &str = "<!-- scripts/bench: begin -->";
pub const END: &str = "<!-- scripts/bench: end -->";

/// Where what the README points to is kept, and the pictures in it.
pub const DOCS: &str = "docs/bench";
pub const PLOTS: [&str; 4] = ["tcp-64-x1-stack.svg", "rates-stack.svg", "open-75-kernel.svg", "instructions.svg"];

/// How a figure is written.
pub fn written(figure: &str, value: f64) -> String {
    match figure {
        P50 | P99 | P999 | CPU | TRIP => time(value as u64),
        GBIT => format!("{value:.2}"),
        IDLE_CPU => format!("{value:.1}"),
        COPIED => format!("{value:.2}"),
        SUM => format!("{value:.1} ns"),
        _ => thousands(value.round() as u64),
    }
}

/// The median, and the range where there is one.
fn with_range(figure: &str, spread: Spread) -> String {
    let middle = written(figure, spread.median);
    let (least, most) = (written(figure, spread.least), written(figure, spread.most));
    if least == most { middle } else { format!("{middle} ({least} to {most})") }
}

fn entry(cell: &Cell, figure: &str, ranges: bool) -> String {
    match cell.spread(figure) {
        Some(spread) if ranges => with_range(figure, spread),
        Some(spread) => written(figure, spread.median),
        None => String::new(),
    }
}

/// The figures that some cell of these rows has, with their headings.
fn columns(rows: &[&Row]) -> Vec<(&'static str, &'static str)> {
    let all = [
        (RATE, "requests/s"),
        (P50, "p50"),
        (P99, "p99"),
        (P999, "p99.9"),
        (GBIT, "Gbit/s"),
        (COPIED, "copies"),
        (TRIP, "round trip"),
        (SUM, "time"),
        (CPU, "CPU/request"),
        (IDLE_CPU, "% of a core"),
        (BYTES_EACH, "bytes each"),
        (BYTES_ALL, "bytes"),
    ];
    let has = |figure: &str| rows.iter().flat_map(|r| &r.cells).any(|c| c.spread(figure).is_some());
    all.into_iter().filter(|(figure, _)| has(figure)).collect()
}

/// A table of these rows. `ranges`: with the least and greatest of the rounds.
fn table(out: &mut String, rows: &[&Row], ranges: bool) {
    let columns = columns(rows);
    let heads: String = columns.iter().map(|(_, head)| format!(" {head} |")).collect();
    let marks = " ---: |".repeat(columns.len());
    let _ = writeln!(out, "| work | who |{heads} errors | steal % |\n| --- | --- |{marks} ---: | ---: |");
    for row in rows {
        for (i, cell) in row.cells.iter().enumerate() {
            let title = if i == 0 { row.title.as_str() } else { "" };
            if cell.samples.is_empty() {
                let why = escape(cell.missing.as_deref().unwrap_or("not measured"));
                let _ = writeln!(out, "| {title} | {} | {why} |{} | |", cell.arm, " |".repeat(columns.len().saturating_sub(1)));
                continue;
            }
            let figures: String = columns.iter().map(|(f, _)| format!(" {} |", entry(cell, f, ranges))).collect();
            let arm = if cell.missing.is_some() { format!("{} (not in every round)", cell.arm) } else { cell.arm.clone() };
            let _ = writeln!(out, "| {title} | {arm} |{figures} {} | {:.1} |", thousands(cell.errors()), cell.steal());
        }
    }
    out.push('\n');
}

/// Text that cannot end a cell or a line of a table.
fn escape(text: &str) -> String {
    text.replace('|', "/").replace('\n', " ")
}

/// Where and how it was measured.
pub fn head(out: &mut String, results: &Results) {
    let (m, s) = (&results.machine, &results.settings);
    let cores = format!("{} cores, server on core {}, client on core {}", m.cores, m.server_core, m.client_core);
    let shared = if m.thread_core == m.server_core {
        "; a program's own thread (\"any thread\") shares the core of ringroad's worker".to_string()
    } else {
        format!("; a program's own thread (\"any thread\") has core {} besides", m.thread_core)
    };
    let _ = writeln!(out, "{}, {}, {cores}{shared}; {}; load before {}.", m.processor, m.kernel, m.date, m.load);
    let mode = if m.mode.is_empty() { "not run" } else { m.mode.as_str() };
    let _ = writeln!(
        out,
        "ringroad: {mode}. Medians of {} interleaved rounds of {} s (least to greatest). All of it took {} min.",
        s.rounds,
        s.seconds,
        (s.took / 60.0).ceil()
    );
    if !s.cut.is_empty() {
        let left_out = "runs of the last round were left out for want of time; their rows are medians of fewer rounds";
        let _ = writeln!(out, "{} {left_out} ({RESULTS} names them).", s.cut.len());
    }
}

/// Everything.
pub fn whole(results: &Results, verdicts: &[Verdict]) -> String {
    let mut out = String::from("# scripts/bench\n\n");
    head(&mut out, results);
    out.push('\n');
    for line in &results.machine.offloads {
        let _ = writeln!(out, "- offloads, {line}");
    }
    out.push_str("\nAttaching XDP on one side of a veth pair switches the other side's segmentation offload off.\n");
    out.push_str("\"Requests/s\" of raw AF_XDP are frames of TCP's length there and back, without a stack.\n");
    out.push_str("On veth a core that sends also does the kernel's part of receiving for the other side, so that\n");
    out.push_str("both cores have a share in every row. The row of pauses is what the machine itself takes\n");
    out.push_str("away: no stack's tails under an open loop are shorter. In the rows of workers and threads each worker has its\n");
    out.push_str("clients on its own core; a program's thread, and a second worker, run on the client's core.\n\n");
    let mut groups: Vec<&str> = Vec::new();
    for row in &results.rows {
        if !groups.contains(&row.group.as_str()) {
            groups.push(&row.group);
        }
    }
    for group in groups {
        let _ = writeln!(out, "## {group}\n");
        let rows: Vec<&Row> = results.rows.iter().filter(|r| r.group == group).collect();
        table(&mut out, &rows, true);
    }
    out.push_str("## Where another was ahead\n\n");
    ahead(&mut out, results);
    out.push_str("## Budgets\n\n");
    budgets(&mut out, verdicts);
    out
}

/// Where another stack beat ours, by medians: its rows are not to be passed over.
fn ahead(out: &mut String, results: &Results) {
    let others = [KERNEL_SPIN, KERNEL_BLOCK, KERNEL_BARE, SMOLTCP, SMOLTCP_PACKET, NGINX];
    let mut list = Vec::new();
    for row in &results.rows {
        let beats = |name: &'static str, figure: &str| {
            // In an open loop everybody has the same rate.
            let ours = row.cell(SPIN)?.median(figure).filter(|_| figure != RATE || row.group != "open")?;
            let theirs = others.iter().filter_map(|arm| row.cell(arm)?.median(figure));
            let ahead = theirs.filter(|theirs| if figure == RATE { *theirs > ours } else { *theirs < ours }).count();
            (ahead > 0).then_some(name)
        };
        let in_what: Vec<&str> = [("rate", RATE), ("p50", P50), ("p99", P99)].into_iter().filter_map(|(n, f)| beats(n, f)).collect();
        if !in_what.is_empty() {
            list.push(format!("{} ({})", row.title, in_what.join(", ")));
        }
    }
    if list.is_empty() {
        list.push("nowhere".to_string());
    }
    let _ = writeln!(out, "Of \"{SPIN}\", by medians of this run:\n\n- {}\n", list.join("\n- "));
}

/// Each budget beside what was measured.
pub fn budgets(out: &mut String, verdicts: &[Verdict]) {
    out.push_str("| | goal | acceptable | measured | |\n| --- | ---: | ---: | ---: | --- |\n");
    for v in verdicts {
        let floor = v.floor.map_or(String::new(), |f| format!("{} {f}", v.bound));
        let figure = v.figure.map_or("not measured".to_string(), |f| format!("{f:.3}"));
        let met = match (v.met, v.floor_met) {
            (Some(true), _) => "met",
            (Some(false), Some(true)) => "acceptable",
            (Some(false), _) => "missed",
            (None, _) => "",
        };
        let row = v.row.as_ref().map_or(String::new(), |row| format!(" ({row})"));
        let _ = writeln!(out, "| {} | {} {} | {floor} | {figure}{row} | {met} |", v.what, v.bound, v.budget);
    }
    out.push('\n');
}

/// The README with `text` between its marks.
///
/// # Errors
/// It does not have the marks, or in the wrong order.
pub fn into_readme(readme: &str, text: &str) -> Result<String, String> {
    let wrong = || format!("README.md has no lines {BEGIN} and {END}");
    let begin = readme.find(BEGIN).ok_or_else(wrong)? + BEGIN.len();
    let end = readme.find(END).filter(|end| *end >= begin).ok_or_else(wrong)?;
    Ok(format!("{}\n{}\n{}", &readme[..begin], text.trim_end(), &readme[end..]))
}

#[cfg(test)]
mod tests {
    use super::super::budget::verdicts;
    use super::super::result::tests::results;
    use super::super::rows::RAW;
    use super::*;

    #[test]
    fn every_line_of_a_table_has_as_many_cells() {
        let mut results = results(&[
            ("tcp-64-x1-stack", SPIN, RATE, &[200_000.0, 210_000.0, 190_000.0]),
            ("tcp-64-x1-stack", SPIN, P50, &[4_000.0]),
            ("tcp-64-x1-stack", KERNEL_SPIN, RATE, &[100_000.0]),
        ]);
        results.cell_mut("tcp-64-x1-stack", "echo", "", RAW).missing = Some("it said: a | b\nand c".into());
        let text = whole(&results, &verdicts(&results));
        assert!(text.contains("| 200,000 (190,000 to 210,000) | 4.00 us |"), "{text}");
        let mut tables = 0;
        let lines: Vec<&str> = text.lines().collect();
        for pair in lines.windows(2).filter(|p| p[0].starts_with('|') && p[1].starts_with('|')) {
            tables += 1;
            assert_eq!(pair[0].matches('|').count(), pair[1].matches('|').count(), "{pair:?}");
        }
        assert!(tables > 5);
    }

    #[test]
    fn a_budget_has_its_figure_and_a_verdict() {
        let results = results(&[("tcp-64-x1-stack", SPIN, P50, &[1250.0]), ("tcp-64-x1-stack", RAW, P50, &[1000.0])]);
        let mut text = String::new();
        budgets(&mut text, &verdicts(&results));
        let line = text.lines().find(|l| l.contains("to the raw reflector's")).unwrap();
        assert!(line.ends_with("| at most 1.2 | at most 1.3 | 1.250 | acceptable |"), "{line}");
        assert!(text.contains("| not measured |"));
    }

    #[test]
    fn the_table_says_where_another_was_ahead() {
        let mut results = results(&[
            ("one", SPIN, RATE, &[100.0]),
            ("one", KERNEL_SPIN, RATE, &[90.0]),
            ("one", SPIN, P50, &[1000.0]),
            ("one", SMOLTCP, P50, &[900.0]),
            ("two", SPIN, P99, &[1000.0]),
            ("two", RAW, P99, &[10.0]),
        ]);
        assert!(whole(&results, &[]).contains("of this run:\n\n- one (p50)\n\n"), "{}", whole(&results, &[]));
        results.rows.retain(|row| row.id == "two");
        assert!(whole(&results, &[]).contains("of this run:\n\n- nowhere\n\n"));
    }

    #[test]
    fn the_readme_keeps_what_is_not_ours() {
        let before = format!("a\n{BEGIN}\nold\n{END}\nb\n");
        let after = into_readme(&before, "new\n\n").unwrap();
        assert_eq!(after, format!("a\n{BEGIN}\nnew\n{END}\nb\n"));
        assert_eq!(into_readme(&after, "new").unwrap(), after);
        assert!(into_readme("no marks", "x").is_err());
        assert!(into_readme(&format!("{END}\n{BEGIN}"), "x").is_err());
    }
}
