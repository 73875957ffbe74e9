//! What a run of the benchmark found: the form of `results.json`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Requests answered in a second.
pub const RATE: &str = "requests_per_second";
/// Latency percentiles, in nanoseconds.
pub const P50: &str = "p50_ns";
pub const P99: &str = "p99_ns";
pub const P999: &str = "p999_ns";
/// Time of a round trip in memory, in nanoseconds.
pub const TRIP: &str = "ns_per_round_trip";
/// Payload that arrived, in Gbit/s.
pub const GBIT: &str = "gbit_per_second";
/// Bytes of payload that the stacks of both ends copied for each byte that arrived.
pub const COPIED: &str = "copied_per_byte";
/// Time of a checksum, in nanoseconds.
pub const SUM: &str = "ns_per_sum";
/// Processor time of a request in nanoseconds: how long the server ran, and what the
/// client's core spent in soft interrupts (on veth the receiver's part is done there;
/// what the server's own sends do for the client is in the server's time, unless the
/// kernel keeps the time of interrupts apart).
pub const CPU: &str = "cpu_ns_per_request";
/// Processor time that a program without work takes, in percent of a core.
pub const IDLE_CPU: &str = "idle_cpu_percent";
/// Memory that one connection takes, in bytes, and all of them together.
pub const BYTES_EACH: &str = "bytes_each";
pub const BYTES_ALL: &str = "bytes_all";

/// What `benches/counts.json` holds, as far as it is of use here.
#[derive(Deserialize)]
struct Counts {
    instructions: BTreeMap<String, f64>,
}

/// The instructions in the text of `benches/counts.json`.
pub fn instructions(text: &str) -> Result<BTreeMap<String, f64>, String> {
    let counts: Counts = serde_json::from_str(text).map_err(|e| e.to_string())?;
    Ok(counts.instructions)
}

/// How a cell says why it is empty where that is no fault: the arm cannot do the
/// work by its nature, or its program is not there.
pub const NOT_SUPPORTED: &str = "not supported";
pub const NOT_INSTALLED: &str = "not installed";

/// Everything.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Results {
    pub machine: Machine,
    pub settings: Settings,
    pub rows: Vec<Row>,
    /// Instructions of whole operations in memory, by name, as they are committed
    /// (benches/counts.json); smoltcp's begin with `smoltcp/`.
    #[serde(default)]
    pub instructions: BTreeMap<String, f64>,
}

/// Where it was measured.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Machine {
    pub date: String,
    pub kernel: String,
    pub processor: String,
    pub cores: usize,
    pub server_core: usize,
    pub client_core: usize,
    /// The core of a program's thread that calls ringroad from outside its worker.
    pub thread_core: usize,
    /// How ringroad's worker runs: native or generic, copy or zero-copy.
    pub mode: String,
    /// Offloads of each bed, before XDP is attached and with it.
    pub offloads: Vec<String>,
    /// Load of the machine before the run (1 minute).
    pub load: String,
}

/// How it was measured.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Settings {
    pub rounds: usize,
    /// Seconds of each run of a load.
    pub seconds: f64,
    /// How long all of it took, in seconds.
    pub took: f64,
    /// What there was no time left for.
    #[serde(default)]
    pub cut: Vec<String>,
}

/// One kind of work, done by each arm.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    /// Short and unique: `tcp-64-x256-stack`.
    pub id: String,
    /// The kind that `--only` names: `echo`, `open`, ...
    pub group: String,
    /// For people.
    pub title: String,
    pub cells: Vec<Cell>,
}

/// A row by one arm.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Cell {
    pub arm: String,
    /// Why there is nothing, or less than there should be.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub missing: Option<String>,
    pub samples: Vec<Sample>,
    /// The percentile curve of all rounds together: (percent, nanoseconds).
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub curve: Vec<(f64, u64)>,
}

/// One round of a row by one arm.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Sample {
    pub round: usize,
    /// By the names above.
    pub figures: BTreeMap<String, f64>,
    /// Requests that failed or had no answer by the end.
    pub errors: u64,
    /// Time that the hypervisor took from our cores, in percent.
    pub steal_percent: f64,
}

/// The median of a figure over the rounds, and the least and the greatest.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    pub median: f64,
    pub least: f64,
    pub most: f64,
}

/// The middle value, or the mean of the two in the middle; none of none.
pub fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let n = values.len();
    match n {
        0 => None,
        _ if n % 2 == 1 => Some(values[n / 2]),
        _ => Some((values[n / 2 - 1] + values[n / 2]) / 2.0),
    }
}

impl Cell {
    /// A figure over the rounds that have it.
    pub fn spread(&self, figure: &str) -> Option<Spread> {
        let values: Vec<f64> = self.samples.iter().filter_map(|s| s.figures.get(figure).copied()).collect();
        let least = values.iter().copied().reduce(f64::min)?;
        let most = values.iter().copied().reduce(f64::max)?;
        Some(Spread { median: median(values)?, least, most })
    }

    /// The median of a figure.
    pub fn median(&self, figure: &str) -> Option<f64> {
        self.spread(figure).map(|s| s.median)
    }

    /// Why it did not run, though it should have.
    pub fn failure(&self) -> Option<&str> {
        let no_fault = |why: &&str| why.starts_with(NOT_SUPPORTED) || why.starts_with(NOT_INSTALLED);
        self.missing.as_deref().filter(|why| !no_fault(why))
    }

    pub fn errors(&self) -> u64 {
        self.samples.iter().map(|s| s.errors).sum()
    }

    /// The greatest share of time that was stolen in a round.
    pub fn steal(&self) -> f64 {
        self.samples.iter().map(|s| s.steal_percent).fold(0.0, f64::max)
    }
}

impl Row {
    pub fn cell(&self, arm: &str) -> Option<&Cell> {
        self.cells.iter().find(|c| c.arm == arm)
    }
}

impl Results {
    pub fn row(&self, id: &str) -> Option<&Row> {
        self.rows.iter().find(|r| r.id == id)
    }

    /// The median of a figure of one arm in one row, if it was measured.
    pub fn median(&self, row: &str, arm: &str, figure: &str) -> Option<f64> {
        self.row(row)?.cell(arm)?.median(figure)
    }

    /// The cell of `arm` in the row, which is made if it is not there.
    pub fn cell_mut(&mut self, id: &str, group: &str, title: &str, arm: &str) -> &mut Cell {
        let at = self.rows.iter().position(|r| r.id == id).unwrap_or_else(|| {
            let (id, group, title) = (id.to_string(), group.to_string(), title.to_string());
            self.rows.push(Row { id, group, title, cells: Vec::new() });
            self.rows.len() - 1
        });
        let cells = &mut self.rows[at].cells;
        let at = cells.iter().position(|c| c.arm == arm).unwrap_or_else(|| {
            cells.push(Cell { arm: arm.to_string(), ..Cell::default() });
            cells.len() - 1
        });
        &mut cells[at]
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// Results with these medians: (row, arm, figure, values by round).
    pub fn results(list: &[(&str, &str, &str, &[f64])]) -> Results {
        let mut results = Results::default();
        for (row, arm, figure, values) in list {
            let cell = results.cell_mut(row, "echo", row, arm);
            for (round, value) in values.iter().enumerate() {
                if cell.samples.len() <= round {
                    cell.samples.push(Sample { round, ..Sample::default() });
                }
                cell.samples[round].figures.insert((*figure).to_string(), *value);
            }
        }
        results
    }

    #[test]
    fn medians_of_odd_even_and_none() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(vec![]), None);
    }

    #[test]
    fn a_spread_is_of_the_rounds_that_have_the_figure() {
        let mut results = results(&[("a", "x", RATE, &[30.0, 10.0, 20.0])]);
        results.cell_mut("a", "echo", "a", "x").samples.push(Sample { round: 3, ..Sample::default() });
        let spread = results.row("a").and_then(|r| r.cell("x")?.spread(RATE));
        assert_eq!(spread, Some(Spread { median: 20.0, least: 10.0, most: 30.0 }));
        assert_eq!(results.median("a", "x", P50), None);
        assert_eq!(results.median("a", "y", RATE), None);
    }

    #[test]
    fn committed_counts_are_read() {
        let text = r#"{"made_with":{"libc":"x"},"instructions":{"tcp-echo":1400.5,"smoltcp/tcp-echo":9000}}"#;
        let counts = instructions(text).unwrap();
        assert_eq!((counts["tcp-echo"], counts["smoltcp/tcp-echo"]), (1400.5, 9000.0));
        assert!(instructions("{}").is_err());
    }

    #[test]
    fn what_is_not_there_is_no_failure() {
        let cell = |why: &str| Cell { missing: Some(why.into()), ..Cell::default() };
        assert_eq!(cell("not installed (apt-get install wrk)").failure(), None);
        assert_eq!(cell(NOT_SUPPORTED).failure(), None);
        assert_eq!(cell("no answer").failure(), Some("no answer"));
        assert_eq!(Cell::default().failure(), None);
    }

    #[test]
    fn results_survive_their_file() {
        let before = results(&[("a", "x", RATE, &[1.0]), ("a", "y", P50, &[2.0])]);
        let text = serde_json::to_string(&before).unwrap();
        let after: Results = serde_json::from_str(&text).unwrap();
        assert_eq!(serde_json::to_string(&after).unwrap(), text);
        assert_eq!(after.median("a", "y", P50), Some(2.0));
    }
}
