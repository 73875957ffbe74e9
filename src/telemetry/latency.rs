//! Latency histograms: recording, the percentile table, and the two forms that
//! are kept in files (the percentile format of HdrHistogram, and JSON).

use core::fmt;
use std::io::{self, Write};

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::time::Duration;

/// Decimal digits that a recorded value keeps.
const SIGNIFICANT_DIGITS: u8 = 3;
/// The longest latency that is told apart from longer ones: ten minutes.
const LONGEST_NS: u64 = 600_000_000_000;
/// Lines per halving of the distance to 100 percent in the percentile format.
const TICKS_PER_HALF: u32 = 5;

/// Percentiles that tables show, in percent.
pub const TABLE: [f64; 8] = [50.0, 75.0, 90.0, 99.0, 99.9, 99.99, 99.999, 100.0];

/// A histogram of latencies from 1 ns to ten minutes, to three decimal digits.
#[derive(Clone, Debug)]
pub struct Latency {
    histogram: Histogram<u64>,
}

impl Default for Latency {
    fn default() -> Self {
        Self::new()
    }
}

impl Latency {
    /// An empty histogram.
    pub fn new() -> Self {
        let histogram = Histogram::new_with_bounds(1, LONGEST_NS, SIGNIFICANT_DIGITS)
            .expect("the bounds are constants and valid");
        Self { histogram }
    }

    /// Count one latency of `ns` nanoseconds; longer than ten minutes counts as ten minutes.
    #[inline]
    pub fn record(&mut self, ns: u64) {
        self.histogram.saturating_record(ns.max(1));
    }

    /// Latencies recorded.
    pub fn count(&self) -> u64 {
        self.histogram.len()
    }

    /// The latency below which `percent` percent of all lie; zero if nothing was recorded.
    pub fn percentile(&self, percent: f64) -> Duration {
        Duration::from_nanos(self.histogram.value_at_percentile(percent))
    }

    /// The least latency recorded.
    pub fn min(&self) -> Duration {
        Duration::from_nanos(self.histogram.min())
    }

    /// The greatest latency recorded.
    pub fn max(&self) -> Duration {
        Duration::from_nanos(self.histogram.max())
    }

    /// The arithmetic mean, in nanoseconds.
    pub fn mean_ns(&self) -> f64 {
        self.histogram.mean()
    }

    /// Add everything that `other` recorded.
    pub fn merge(&mut self, other: &Self) {
        self.histogram.add(&other.histogram).expect("all histograms have the same bounds");
    }

    /// Forget everything.
    pub fn clear(&mut self) {
        self.histogram.reset();
    }

    /// Every recorded value (ns, to three digits) with its count, in rising order.
    pub fn buckets(&self) -> Vec<(u64, u64)> {
        self.histogram
            .iter_recorded()
            .map(|v| (v.value_iterated_to(), v.count_at_value()))
            .collect()
    }

    /// The histogram that [`Latency::buckets`] came from.
    pub fn from_buckets(buckets: &[(u64, u64)]) -> Self {
        let mut latency = Self::new();
        for &(value, count) in buckets {
            latency.histogram.saturating_record_n(value, count);
        }
        latency
    }

    /// Points of the percentile curve, as (percent, nanoseconds), dense towards 100 percent.
    pub fn curve(&self) -> Vec<(f64, u64)> {
        self.histogram
            .iter_quantiles(TICKS_PER_HALF)
            .map(|v| (v.quantile_iterated_to() * 100.0, v.value_iterated_to()))
            .collect()
    }

    /// Write the percentile format of HdrHistogram (`.hgrm`), latencies in
    /// microseconds, as its plotter reads it.
    ///
    /// # Errors
    /// Whatever `out` gives.
    pub fn write_hgrm(&self, out: &mut impl Write) -> io::Result<()> {
        const US: f64 = 1_000.0;
        writeln!(
            out,
            "{:>12} {:>14} {:>10} {:>14}\n",
            "Value", "Percentile", "TotalCount", "1/(1-Percentile)"
        )?;
        let mut total = 0;
        for v in self.histogram.iter_quantiles(TICKS_PER_HALF) {
            total += v.count_since_last_iteration();
            let (value, quantile) = (v.value_iterated_to() as f64 / US, v.quantile_iterated_to());
            if quantile < 1.0 {
                writeln!(
                    out,
                    "{value:12.3} {quantile:2.12} {total:10} {:14.2}",
                    1.0 / (1.0 - quantile)
                )?;
            } else {
                // The last line has no fourth column: it would be infinite.
                writeln!(out, "{value:12.3} {quantile:2.12} {total:10}")?;
            }
        }
        let (mean, deviation) = (self.histogram.mean() / US, self.histogram.stdev() / US);
        writeln!(out, "#[Mean    = {mean:12.3}, StdDeviation   = {deviation:12.3}]")?;
        let (max, count) = (self.histogram.max() as f64 / US, self.count());
        writeln!(out, "#[Max     = {max:12.3}, Total count    = {count:12}]")?;
        let (buckets, distinct) = (self.histogram.buckets(), self.histogram.distinct_values());
        let sub_buckets = distinct * 2 / (usize::from(buckets) + 1);
        writeln!(out, "#[Buckets = {buckets:12}, SubBuckets     = {sub_buckets:12}]")
    }
}

/// What one run of a load generator found; the JSON that it writes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// Where the load went, as `address:port`.
    pub target: String,
    /// `tcp`, `udp` or `http`.
    pub protocol: String,
    /// `kernel`, or `stack` with what is known of it.
    pub over: String,
    /// Connections (UDP: sockets).
    pub connections: usize,
    /// Bytes of payload in a request.
    pub size: usize,
    /// Requests a second that were asked for; none in a closed loop.
    pub rate: Option<f64>,
    /// Length of the measured part, in seconds.
    pub seconds: f64,
    /// Time before it that was not measured, in seconds.
    pub warm_up: f64,
    /// Requests answered in the measured part.
    pub requests: u64,
    /// Requests answered per second.
    pub requests_per_second: f64,
    /// Bytes received in the measured part.
    pub bytes_received: u64,
    /// Requests due in the measured part that had no answer at the end (open
    /// loop); the time they had waited by then is in the histogram.
    pub unanswered: u64,
    /// Errors in the whole run, by kind; kinds that did not occur are left out.
    pub errors: Vec<(String, u64)>,
    /// Percentiles of latency, as (percent, nanoseconds).
    pub percentiles: Vec<(f64, u64)>,
    /// Least latency in nanoseconds.
    pub min_ns: u64,
    /// Mean latency in nanoseconds.
    pub mean_ns: f64,
    /// Every recorded latency in nanoseconds (to three digits) with its count.
    pub histogram: Vec<(u64, u64)>,
}

impl Report {
    /// Errors of all kinds.
    pub fn error_count(&self) -> u64 {
        self.errors.iter().map(|(_, n)| n).sum()
    }

    /// The latency below which `percent` percent lie, in nanoseconds.
    pub fn percentile(&self, percent: f64) -> u64 {
        Latency::from_buckets(&self.histogram).percentile(percent).as_nanos()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let connections =
            plural(self.connections, if self.protocol == "udp" { "socket" } else { "connection" });
        let what =
            if self.protocol == "http" { String::new() } else { format!(" x {} bytes", self.size) };
        let pace = match self.rate {
            Some(rate) => format!(
                "open loop at {} requests/s, corrected for coordinated omission",
                thousands(rate as u64)
            ),
            None => "closed loop".to_string(),
        };
        writeln!(f, "{} to {}, {connections}{what}, {pace}", self.protocol, self.target)?;
        writeln!(
            f,
            "over {}; {:.1} s measured, after {:.1} s of warm-up\n",
            self.over, self.seconds, self.warm_up
        )?;
        writeln!(
            f,
            "  requests    {:>14}   {:>12} /s",
            thousands(self.requests),
            thousands(self.requests_per_second as u64)
        )?;
        let rate = self.bytes_received as f64 / self.seconds.max(1e-9);
        writeln!(
            f,
            "  received    {:>14}   {:>12.1} MB/s",
            bytes(self.bytes_received),
            rate / 1e6
        )?;
        if self.unanswered > 0 {
            writeln!(
                f,
                "  unanswered  {:>14}   (due, no answer by the end; their wait so far is counted)",
                thousands(self.unanswered)
            )?;
        }
        writeln!(f, "  errors      {:>14}", thousands(self.error_count()))?;
        for (kind, count) in &self.errors {
            writeln!(f, "    {:>16}   {kind}", thousands(*count))?;
        }
        writeln!(f, "\n  latency     {:>14}", "percentile")?;
        for &(percent, ns) in &self.percentiles {
            let name = if percent >= 100.0 { "max".to_string() } else { format!("{percent} %") };
            writeln!(f, "  {:>10}  {name:>14}", time(ns))?;
        }
        write!(f, "  mean {}, min {}", time(self.mean_ns as u64), time(self.min_ns))
    }
}

/// `ns` nanoseconds for people: three digits and a unit.
pub fn time(ns: u64) -> String {
    let v = ns as f64;
    let (v, unit) = match ns {
        0..1_000 => return format!("{ns} ns"),
        1_000..1_000_000 => (v / 1e3, "us"),
        1_000_000..1_000_000_000 => (v / 1e6, "ms"),
        _ => (v / 1e9, "s"),
    };
    match v {
        ..9.995 => format!("{v:.2} {unit}"),
        ..99.95 => format!("{v:.1} {unit}"),
        _ => format!("{v:.0} {unit}"),
    }
}

/// `n` with commas between groups of three digits.
pub fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() * 4 / 3);
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

fn plural(n: usize, what: &str) -> String {
    format!("{} {what}{}", thousands(n as u64), if n == 1 { "" } else { "s" })
}

fn bytes(n: u64) -> String {
    match n {
        0..10_000 => format!("{n} B"),
        10_000..10_000_000 => format!("{:.1} kB", n as f64 / 1e3),
        10_000_000..10_000_000_000 => format!("{:.1} MB", n as f64 / 1e6),
        _ => format!("{:.1} GB", n as f64 / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled() -> Latency {
        let mut latency = Latency::new();
        for ns in 1..=100_000 {
            latency.record(ns);
        }
        latency
    }

    #[test]
    fn percentiles_are_right_to_three_digits() {
        let latency = filled();
        for percent in [50.0, 90.0, 99.0, 99.9] {
            let (got, want) = (latency.percentile(percent).as_nanos() as f64, percent * 1_000.0);
            assert!((got - want).abs() / want < 0.001, "{percent} %: {got}, not {want}");
        }
        assert_eq!(latency.min().as_nanos(), 1);
        assert_eq!(latency.count(), 100_000);
    }

    #[test]
    fn buckets_carry_the_whole_histogram() {
        let latency = filled();
        let again = Latency::from_buckets(&latency.buckets());
        assert_eq!(again.count(), latency.count());
        assert_eq!(again.curve(), latency.curve());
        let mut twice = again.clone();
        twice.merge(&latency);
        assert_eq!(twice.count(), 200_000);
        assert_eq!(twice.percentile(50.0), latency.percentile(50.0));
    }

    #[test]
    fn hgrm_has_the_columns_that_plotters_read() {
        let mut out = Vec::new();
        filled().write_hgrm(&mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        let mut lines = text.lines();
        let head: Vec<_> = lines.next().unwrap().split_whitespace().collect();
        assert_eq!(head, ["Value", "Percentile", "TotalCount", "1/(1-Percentile)"]);
        assert_eq!(lines.next(), Some(""));
        let data: Vec<Vec<f64>> = lines
            .filter(|l| !l.starts_with('#'))
            .map(|l| l.split_whitespace().map(|v| v.parse().unwrap()).collect())
            .collect();
        let (last, rest) = data.split_last().unwrap();
        assert!(rest.iter().all(|l| l.len() == 4), "four columns");
        assert_eq!(last.len(), 3, "the last line has no 1/(1-p)");
        assert_eq!(last[2], 100_000.0, "the last line counts everything");
        assert!(
            rest.windows(2).all(|w| w[0][0] <= w[1][0] && w[0][1] <= w[1][1] && w[0][2] <= w[1][2])
        );
        assert_eq!(text.lines().filter(|l| l.starts_with("#[")).count(), 3);
        assert!(text.contains("SubBuckets     =         2048]"), "{text}");
    }

    #[test]
    fn an_empty_histogram_is_no_trouble() {
        let latency = Latency::new();
        assert_eq!(latency.percentile(99.0), Duration::ZERO);
        let mut out = Vec::new();
        latency.write_hgrm(&mut out).unwrap();
        assert!(latency.curve().is_empty());
    }

    #[test]
    fn numbers_for_people() {
        assert_eq!(time(999), "999 ns");
        assert_eq!(time(1_234), "1.23 us");
        assert_eq!(time(12_345), "12.3 us");
        assert_eq!(time(999_999), "1000 us");
        assert_eq!(time(2_500_000_000), "2.50 s");
        assert_eq!(thousands(0), "0");
        assert_eq!(thousands(999), "999");
        assert_eq!(thousands(1_000), "1,000");
        assert_eq!(thousands(12_345_678), "12,345,678");
    }
}
