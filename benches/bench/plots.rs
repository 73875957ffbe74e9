//! Pictures: percentile curves of rows, rates by connections, instructions of
//! operations.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::Path;

use ringroad::telemetry::latency::thousands;
use ringroad::telemetry::plot::{Series, svg};

use super::plan::Over;
use super::result::{RATE, Results, Row};
use super::rows::echo_row;

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 540.0;
const LEFT: f64 = 96.0;
const RIGHT: f64 = 260.0;
const TOP: f64 = 64.0;
const BOTTOM: f64 = 56.0;
/// Okabe and Ito's colours, as the percentile plots have them.
const COLOURS: [&str; 7] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#555555"];
/// What rates are plotted against.
const CONNECTIONS: [usize; 4] = [1, 16, 256, 4096];

/// Write all pictures for which there is something to draw; how many.
pub fn write(results: &Results, dir: &Path) -> Result<usize, String> {
    let save = |name: &str, text: &str| {
        let path = dir.join(name);
        fs::write(&path, text).map_err(|e| format!("{}: {e}", path.display()))
    };
    let mut count = 0;
    for row in &results.rows {
        if let Some(picture) = percentiles(row, results.settings.rounds) {
            save(&format!("{}.svg", row.id), &picture)?;
            count += 1;
        }
    }
    for over in Over::BOTH {
        let lines = rates(results, over);
        if lines.iter().any(|l| l.points.len() > 1) {
            let title = format!("TCP echo of 64 bytes, {}", over.client());
            save(&format!("rates-{}.svg", over.name()), &chart(&title, &lines))?;
            count += 1;
        }
    }
    if !results.instructions.is_empty() {
        save("instructions.svg", &bars(&results.instructions))?;
        count += 1;
    }
    Ok(count)
}

/// The percentile curves of a row's arms.
fn percentiles(row: &Row, rounds: usize) -> Option<String> {
    let drawn = row.cells.iter().filter(|c| !c.curve.is_empty());
    let series: Vec<Series> = drawn.map(|c| Series { name: c.arm.clone(), curve: c.curve.clone() }).collect();
    let subtitle = format!("latency of each request, {rounds} rounds together");
    (!series.is_empty()).then(|| svg(&row.title, &subtitle, &series))
}

/// An arm's requests per second by connections.
struct Line {
    name: String,
    points: Vec<(f64, f64)>,
}

fn rates(results: &Results, over: Over) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    for connections in CONNECTIONS {
        let Some(row) = results.row(&echo_row("tcp", 64, connections, over)) else { continue };
        for cell in &row.cells {
            let Some(rate) = cell.median(RATE) else { continue };
            let at = lines.iter().position(|l| l.name == cell.arm).unwrap_or_else(|| {
                lines.push(Line { name: cell.arm.clone(), points: Vec::new() });
                lines.len() - 1
            });
            lines[at].points.push((connections as f64, rate));
        }
    }
    lines
}

/// The number of 1, 2 or 5 times a power of ten at or above `value`.
fn round_up(value: f64) -> f64 {
    let decade = 10f64.powf(value.max(1.0).log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|s| s * decade).find(|s| *s >= value).unwrap_or(value)
}

/// Where rates and connections lie in the picture.
struct Axes {
    /// The greatest rate shown.
    top: f64,
}

impl Axes {
    fn x(&self, connections: f64) -> f64 {
        let far = CONNECTIONS[CONNECTIONS.len() - 1] as f64;
        LEFT + connections.log2() / far.log2() * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, rate: f64) -> f64 {
        HEIGHT - BOTTOM - rate / self.top * (HEIGHT - TOP - BOTTOM)
    }
}

/// Rates over a logarithmic axis of connections.
fn chart(title: &str, lines: &[Line]) -> String {
    let points = lines.iter().flat_map(|l| &l.points);
    let axes = Axes { top: round_up(points.map(|p| p.1).fold(1.0, f64::max)) };
    let mut out = start(title, "requests per second by connections", HEIGHT);
    grid(&mut out, &axes);
    for (i, line) in lines.iter().enumerate() {
        draw(&mut out, &axes, i, line);
    }
    out.push_str("</svg>\n");
    out
}

fn grid(out: &mut String, axes: &Axes) {
    let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
    for step in 0..=5 {
        let rate = axes.top * f64::from(step) / 5.0;
        let (at, label) = (axes.y(rate), thousands(rate as u64));
        let _ = writeln!(
            out,
            "<path d=\"M{LEFT} {at:.1}H{right}\" stroke=\"#ddd\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
            LEFT - 8.0,
            at + 4.5
        );
    }
    for connections in CONNECTIONS {
        let at = axes.x(connections as f64);
        let _ = writeln!(
            out,
            "<path d=\"M{at:.1} {TOP}V{bottom}\" stroke=\"#eee\"/>\
             <text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            bottom + 20.0,
            thousands(connections as u64)
        );
    }
}

/// A line, its points, and its name at the right.
fn draw(out: &mut String, axes: &Axes, i: usize, line: &Line) {
    let colour = COLOURS[i % COLOURS.len()];
    let dash = if i < COLOURS.len() { "" } else { " stroke-dasharray=\"6 4\"" };
    let places: Vec<(f64, f64)> = line.points.iter().map(|p| (axes.x(p.0), axes.y(p.1))).collect();
    let path: Vec<String> = places.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    let _ = writeln!(
        out,
        "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2.2\"{dash}/>",
        path.join(" ")
    );
    for (x, y) in places {
        let _ = writeln!(out, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\" fill=\"{colour}\"/>");
    }
    let (x, y) = (WIDTH - RIGHT + 14.0, TOP + 16.0 + i as f64 * 22.0);
    let _ = writeln!(
        out,
        "<path d=\"M{x:.1} {y:.1}h24\" stroke=\"{colour}\" stroke-width=\"3\"{dash}/>\
         <text x=\"{:.1}\" y=\"{:.1}\">{}</text>",
        x + 32.0,
        y + 4.5,
        line.name
    );
}

/// Instructions of operations, ours and smoltcp's side by side.
fn bars(instructions: &BTreeMap<String, f64>) -> String {
    let ours: Vec<(&String, f64)> = instructions.iter().filter(|(n, _)| !n.contains('/')).map(|(n, v)| (n, *v)).collect();
    let most = round_up(instructions.values().copied().fold(1.0, f64::max));
    let height = TOP + ours.len() as f64 * 52.0 + BOTTOM / 2.0;
    let mut out = start("Instructions", "of whole operations in memory, by callgrind: ringroad, and smoltcp below it", height);
    for (i, (name, value)) in ours.iter().enumerate() {
        let top = TOP + i as f64 * 52.0;
        let theirs = instructions.get(&format!("smoltcp/{name}")).copied();
        let _ = writeln!(out, "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{name}</text>", WIDE - 8.0, top + 24.0);
        for (row, value) in [Some(*value), theirs].into_iter().enumerate() {
            let Some(value) = value else { continue };
            let (y, width) = (top + row as f64 * 21.0, value / most * (WIDTH - WIDE - 100.0));
            let _ = writeln!(
                out,
                "<rect x=\"{WIDE}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"18\" fill=\"{}\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                COLOURS[row],
                WIDE + width + 6.0,
                y + 14.0,
                thousands(value.round() as u64)
            );
        }
    }
    out.push_str("</svg>\n");
    out
}

/// Where bars begin, right of their names.
const WIDE: f64 = 180.0;

/// The beginning of a picture.
fn start(title: &str, subtitle: &str, height: f64) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" \
         font-family=\"system-ui, 'DejaVu Sans', sans-serif\" font-size=\"13\" fill=\"#333\">\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#fff\"/>\n\
         <text x=\"{LEFT}\" y=\"28\" font-size=\"18\" font-weight=\"600\">{title}</text>\n\
         <text x=\"{LEFT}\" y=\"48\" fill=\"#666\">{subtitle}</text>\n"
    )
}

#[cfg(test)]
mod tests {
    use super::super::result::tests::results;
    use super::super::rows::{KERNEL_SPIN, SPIN};
    use super::*;

    #[test]
    fn round_numbers_above() {
        for (value, wanted) in [(1.0, 1.0), (1.1, 2.0), (200_000.0, 200_000.0), (539_781.0, 1_000_000.0)] {
            assert_eq!(round_up(value), wanted);
        }
    }

    #[test]
    fn an_arm_is_a_line_through_the_rows_that_it_has() {
        let results = results(&[
            ("tcp-64-x1-stack", SPIN, RATE, &[100.0]),
            ("tcp-64-x256-stack", SPIN, RATE, &[300.0, 500.0, 400.0]),
            ("tcp-64-x1-stack", KERNEL_SPIN, RATE, &[50.0]),
            ("tcp-64-x1-kernel", KERNEL_SPIN, RATE, &[70.0]),
        ]);
        let lines = rates(&results, Over::Stack);
        assert_eq!((lines[0].name.as_str(), lines[1].name.as_str()), (SPIN, KERNEL_SPIN));
        assert_eq!(lines[0].points, [(1.0, 100.0), (256.0, 400.0)]);
        assert_eq!(lines[1].points, [(1.0, 50.0)]);
        let picture = chart("t", &lines);
        assert_eq!(picture.matches("<polyline").count(), 2);
        assert!(picture.contains("<circle cx=\"96.0\"") && picture.ends_with("</svg>\n"));
    }

    #[test]
    fn operations_stand_above_smoltcps() {
        let list = [("tcp-echo", 1_400.0), ("smoltcp/tcp-echo", 9_000.0), ("tcp-echo-c", 800.0)];
        let picture = bars(&list.map(|(name, n)| (name.to_string(), n)).into());
        assert_eq!(picture.matches("<rect x=").count(), 3);
        assert!(picture.contains(">9,000<") && picture.contains(">tcp-echo-c<") && !picture.contains(">smoltcp/"));
    }

    #[test]
    fn rows_without_latencies_have_no_picture() {
        let mut results = results(&[("a", SPIN, RATE, &[1.0])]);
        assert!(percentiles(&results.rows[0], 1).is_none());
        results.cell_mut("a", "echo", "a", SPIN).curve = vec![(0.0, 100), (50.0, 200)];
        assert!(percentiles(&results.rows[0], 1).unwrap().contains(SPIN));
    }
}
