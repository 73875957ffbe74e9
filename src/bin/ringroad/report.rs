//! `ringroad report`: the reports of several loads side by side.

use std::collections::BTreeSet;
use std::error::Error;
use std::fs;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use ringroad::telemetry::latency::{Latency, Report, thousands, time};
use ringroad::telemetry::plot::{Series, svg};

/// Put reports of `ringroad load --json` side by side: a table and plots.
///
/// Runs of the same row and server count as rounds, of which the median is
/// shown; the first server of a row is compared with the others.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// A file with a line for each run: ROW, SERVER and the run's JSON file,
    /// with tabs between them (- reads standard input)
    list: PathBuf,
    /// Write the table, the merged histograms (.hgrm) and a percentile plot of
    /// each row (.svg) to this directory
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// Run the command.
///
/// # Errors
/// A sentence for the person who ran it.
pub fn run(args: &Args) -> Result<ExitCode, String> {
    let rows = if args.list == Path::new("-") {
        read(io::stdin().lock())
    } else {
        fs::File::open(&args.list)
            .map_err(|e| format!("{}: {e}", args.list.display()).into())
            .and_then(|file| read(BufReader::new(file)))
    };
    let rows = rows.map_err(|e| e.to_string())?;
    let mut table = Vec::new();
    print_table(&rows, &mut table).map_err(|e| e.to_string())?;
    if let Some(dir) = &args.out {
        save(&rows, &table, dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    }
    io::stdout().write_all(&table).map_err(|e| e.to_string())?;
    Ok(ExitCode::SUCCESS)
}

/// The rounds of one row against one server.
#[derive(Default)]
struct Cell {
    rounds: Vec<Report>,
}

struct Row {
    name: String,
    servers: Vec<(String, Cell)>,
}

/// Medians over the rounds of a cell.
struct Medians {
    rate: f64,
    p50: f64,
    p99: f64,
    p999: f64,
    errors: u64,
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[n / 2],
        n => (values[n / 2 - 1] + values[n / 2]) / 2.0,
    }
}

impl Cell {
    fn medians(&self) -> Medians {
        let of = |f: &dyn Fn(&Report) -> f64| median(self.rounds.iter().map(f).collect());
        Medians {
            rate: of(&|r| r.requests_per_second),
            p50: of(&|r| r.percentile(50.0) as f64),
            p99: of(&|r| r.percentile(99.0) as f64),
            p999: of(&|r| r.percentile(99.9) as f64),
            errors: self.rounds.iter().map(|r| r.error_count() + r.unanswered).sum(),
        }
    }

    fn latency(&self) -> Latency {
        let mut all = Latency::new();
        for round in &self.rounds {
            all.merge(&Latency::from_buckets(&round.histogram));
        }
        all
    }
}

fn read(input: impl BufRead) -> Result<Vec<Row>, Box<dyn Error>> {
    let mut rows: Vec<Row> = Vec::new();
    for line in input.lines() {
        let line = line?;
        let mut parts = line.splitn(3, '\t');
        let (Some(name), Some(server), Some(file)) = (parts.next(), parts.next(), parts.next())
        else {
            return Err(format!("\"{line}\" is not ROW<tab>SERVER<tab>FILE").into());
        };
        let report: Report =
            serde_json::from_str(&fs::read_to_string(file).map_err(|e| format!("{file}: {e}"))?)?;
        let at = rows.iter().position(|r| r.name == name).unwrap_or_else(|| {
            rows.push(Row { name: name.to_string(), servers: Vec::new() });
            rows.len() - 1
        });
        let servers = &mut rows[at].servers;
        let at = servers.iter().position(|(s, _)| s == server).unwrap_or_else(|| {
            servers.push((server.to_string(), Cell::default()));
            servers.len() - 1
        });
        servers[at].1.rounds.push(report);
    }
    Ok(rows)
}

fn print_table(rows: &[Row], out: &mut impl Write) -> io::Result<()> {
    let rounds: BTreeSet<usize> = rows.iter().flat_map(|r| &r.servers).map(|s| s.1.rounds.len()).collect();
    let rounds: Vec<String> = rounds.iter().map(usize::to_string).collect();
    writeln!(out, "Medians of {} rounds. Ratios: the first server of a row to this one; a rate above", rounds.join(" or "))?;
    writeln!(out, "1 and a latency below 1 say that the first is better.\n")?;
    writeln!(
        out,
        "{:<30} {:<16} {:>11} {:>9} {:>9} {:>9} {:>6}   ratio: rate   p50   p99 p99.9",
        "", "server", "requests/s", "p50", "p99", "p99.9", "errors"
    )?;
    for row in rows {
        let first = row.servers.first().map(|(_, cell)| cell.medians());
        for (i, (server, cell)) in row.servers.iter().enumerate() {
            let m = cell.medians();
            write!(
                out,
                "{:<30} {server:<16} {:>11} {:>9} {:>9} {:>9} {:>6}",
                if i == 0 { row.name.as_str() } else { "" },
                thousands(m.rate as u64),
                time(m.p50 as u64),
                time(m.p99 as u64),
                time(m.p999 as u64),
                thousands(m.errors)
            )?;
            match &first {
                Some(f) if i > 0 => writeln!(
                    out,
                    "          {:>5.2} {:>5.2} {:>5.2} {:>5.2}",
                    f.rate / m.rate,
                    f.p50 / m.p50,
                    f.p99 / m.p99,
                    f.p999 / m.p999
                )?,
                _ => writeln!(out)?,
            }
        }
    }
    Ok(())
}

/// A file name of a row or server: letters and digits, the rest dashes.
fn slug(name: &str) -> String {
    let dashed: String = name
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' })
        .collect();
    dashed.split('-').filter(|part| !part.is_empty()).collect::<Vec<_>>().join("-")
}

fn save(rows: &[Row], table: &[u8], dir: &Path) -> Result<(), Box<dyn Error>> {
    fs::create_dir_all(dir)?;
    fs::write(dir.join("table.txt"), table)?;
    for row in rows {
        let mut series = Vec::new();
        for (server, cell) in &row.servers {
            let latency = cell.latency();
            let path = dir.join(format!("{}-{}.hgrm", slug(&row.name), slug(server)));
            let mut file = BufWriter::new(fs::File::create(path)?);
            latency.write_hgrm(&mut file)?;
            file.flush()?;
            series.push(Series { name: server.clone(), curve: latency.curve() });
        }
        let rounds = row.servers.first().map_or(0, |s| s.1.rounds.len());
        let picture =
            svg(&row.name, &format!("latency of each request, {rounds} rounds together"), &series);
        fs::write(dir.join(format!("{}.svg", slug(&row.name))), picture)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_of_odd_and_even() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(vec![]).is_nan());
    }

    #[test]
    fn names_become_file_names() {
        assert_eq!(slug("kernel client, TCP 64 B x 16"), "kernel-client-tcp-64-b-x-16");
    }
}
