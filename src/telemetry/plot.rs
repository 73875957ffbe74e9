//! A plot of latency by percentile as an SVG picture: percentiles along a
//! logarithmic axis (each step is ten times closer to 100 percent), latency
//! along another.

use core::fmt::Write;

use super::latency::time;

/// One line of the plot.
#[derive(Clone, Debug)]
pub struct Series {
    /// Its name in the legend.
    pub name: String,
    /// Points of the curve as (percent, nanoseconds), in rising order.
    pub curve: Vec<(f64, u64)>,
}

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 540.0;
const LEFT: f64 = 84.0;
const RIGHT: f64 = 44.0;
const TOP: f64 = 64.0;
const BOTTOM: f64 = 56.0;
/// Okabe and Ito's colours: told apart by every kind of eye, also in print.
const COLOURS: [&str; 7] =
    ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#555555"];

/// Where values lie in the picture.
struct Axes {
    /// Least and greatest latency shown, as log10 of ns.
    low: f64,
    high: f64,
    /// Powers of ten towards 100 percent that are shown.
    nines: f64,
}

impl Axes {
    fn of(series: &[Series]) -> Self {
        let points = || series.iter().flat_map(|s| &s.curve);
        let least = points().map(|p| p.1).min().unwrap_or(1_000).max(1) as f64;
        let most = points().map(|p| p.1).max().unwrap_or(1_000_000).max(2) as f64;
        let far = points().filter(|p| p.0 < 100.0).map(|p| depth(p.0)).fold(3.0, f64::max);
        Self { low: step_below(least), high: step_above(most), nines: far.ceil().min(7.0) }
    }

    fn x(&self, percent: f64) -> f64 {
        LEFT + depth(percent).min(self.nines) / self.nines * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, ns: f64) -> f64 {
        let part = (ns.max(1.0).log10() - self.low) / (self.high - self.low);
        HEIGHT - BOTTOM - part * (HEIGHT - TOP - BOTTOM)
    }
}

/// How many powers of ten `percent` is towards 100 percent: 90 is 1, 99 is 2.
fn depth(percent: f64) -> f64 {
    if percent >= 100.0 { f64::INFINITY } else { -(1.0 - percent / 100.0).log10() }
}

/// The 1, 2 or 5 times a power of ten at or below `v`, as log10.
fn step_below(v: f64) -> f64 {
    let decade = v.log10().floor();
    let lead = v / 10f64.powf(decade);
    decade + [5.0f64, 2.0, 1.0].into_iter().find(|s| *s <= lead * 1.000_001).unwrap_or(1.0).log10()
}

fn step_above(v: f64) -> f64 {
    let below = step_below(v);
    if 10f64.powf(below) >= v * 0.999_999 {
        return below;
    }
    let decade = below.floor();
    let lead = 10f64.powf(below - decade).round();
    decade
        + if lead < 2.0 {
            2f64
        } else if lead < 5.0 {
            5.0
        } else {
            10.0
        }
        .log10()
}

/// Draw the series under `title`; `subtitle` says what was measured and where.
pub fn svg(title: &str, subtitle: &str, series: &[Series]) -> String {
    let axes = Axes::of(series);
    let mut out = String::new();
    frame(&mut out, title, subtitle);
    grid(&mut out, &axes);
    for (i, s) in series.iter().enumerate() {
        line(&mut out, &axes, s, i);
    }
    legend(&mut out, series);
    out.push_str("</svg>\n");
    out
}

fn frame(out: &mut String, title: &str, subtitle: &str) {
    let _ = write!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" \
         font-family=\"system-ui, 'DejaVu Sans', sans-serif\" font-size=\"13\" fill=\"#333\">\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#fff\"/>\n\
         <text x=\"{LEFT}\" y=\"28\" font-size=\"18\" font-weight=\"600\">{}</text>\n\
         <text x=\"{LEFT}\" y=\"48\" fill=\"#666\">{}</text>\n",
        escape(title),
        escape(subtitle)
    );
}

fn grid(out: &mut String, axes: &Axes) {
    let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
    for step in 0..=axes.nines as i32 {
        let percent = 100.0 - 100.0 * 10f64.powi(-step);
        let x = axes.x(percent);
        let label = if step == 0 { "0 %".to_string() } else { format!("{percent} %") };
        let _ = writeln!(
            out,
            "<path d=\"M{x:.1} {TOP}V{bottom}\" stroke=\"#ddd\"/>\
             <text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            bottom + 20.0,
            tidy(&label)
        );
    }
    for decade in axes.low.floor() as i32..=axes.high.ceil() as i32 {
        for lead in [1.0, 2.0, 5.0] {
            let ns = lead * 10f64.powi(decade);
            let at = ns.log10();
            if at < axes.low - 1e-9 || at > axes.high + 1e-9 {
                continue;
            }
            let y = axes.y(ns);
            let shade = if lead == 1.0 { "#ccc" } else { "#eee" };
            let _ = writeln!(
                out,
                "<path d=\"M{LEFT} {y:.1}H{right}\" stroke=\"{shade}\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                LEFT - 8.0,
                y + 4.5,
                plain(ns)
            );
        }
    }
    let _ = write!(
        out,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\" fill=\"#666\">percentile</text>\n\
         <text transform=\"translate(20 {:.1}) rotate(-90)\" text-anchor=\"middle\" fill=\"#666\">latency</text>\n",
        (LEFT + right) / 2.0,
        HEIGHT - 14.0,
        (TOP + bottom) / 2.0
    );
}

fn line(out: &mut String, axes: &Axes, series: &Series, index: usize) {
    let mut path = String::new();
    for &(percent, ns) in &series.curve {
        let letter = if path.is_empty() { 'M' } else { 'L' };
        let _ = write!(path, "{letter}{:.1} {:.1}", axes.x(percent), axes.y(ns as f64));
    }
    let colour = COLOURS[index % COLOURS.len()];
    let dash = if index < COLOURS.len() { "" } else { " stroke-dasharray=\"6 4\"" };
    let _ = writeln!(
        out,
        "<path d=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2.2\" stroke-linejoin=\"round\"{dash}/>"
    );
}

/// The legend stands at the upper left, where the curves are lowest.
fn legend(out: &mut String, series: &[Series]) {
    let longest = series.iter().map(|s| s.name.chars().count()).max().unwrap_or(0) as f64;
    let (x, y) = (LEFT + 12.0, TOP + 10.0);
    let _ = writeln!(
        out,
        "<rect x=\"{x}\" y=\"{y}\" width=\"{:.0}\" height=\"{:.0}\" rx=\"4\" fill=\"#fff\" fill-opacity=\"0.9\" stroke=\"#ddd\"/>",
        longest * 7.6 + 56.0,
        series.len() as f64 * 20.0 + 12.0
    );
    for (i, s) in series.iter().enumerate() {
        let middle = y + 16.0 + i as f64 * 20.0;
        let colour = COLOURS[i % COLOURS.len()];
        let dash = if i < COLOURS.len() { "" } else { " stroke-dasharray=\"6 4\"" };
        let _ = writeln!(
            out,
            "<path d=\"M{:.1} {middle:.1}h24\" stroke=\"{colour}\" stroke-width=\"3\"{dash}/>\
             <text x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            x + 10.0,
            x + 42.0,
            middle + 4.5,
            escape(&s.name)
        );
    }
}

/// A round number of nanoseconds without needless digits.
fn plain(ns: f64) -> String {
    let text = time(ns.round() as u64);
    match text.split_once(' ') {
        Some((number, unit)) if number.contains('.') => {
            format!("{} {unit}", number.trim_end_matches('0').trim_end_matches('.'))
        }
        _ => text,
    }
}

/// Percent labels such as 99.99999 without the noise of floating point.
fn tidy(label: &str) -> String {
    match label.strip_suffix(" %").and_then(|n| n.parse::<f64>().ok()) {
        Some(n) => format!("{} %", (n * 1e6).round() / 1e6),
        None => label.to_string(),
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_one_two_five() {
        let round = |v: f64| 10f64.powf(v).round();
        assert_eq!(round(step_below(1_999.0)), 1_000.0);
        assert_eq!(round(step_below(2_000.0)), 2_000.0);
        assert_eq!(round(step_below(9_999.0)), 5_000.0);
        assert_eq!(round(step_above(1_001.0)), 2_000.0);
        assert_eq!(round(step_above(5_000.0)), 5_000.0);
        assert_eq!(round(step_above(5_001.0)), 10_000.0);
    }

    #[test]
    fn percentiles_lie_ever_farther_right_and_inside() {
        let axes = Axes::of(&[Series {
            name: "a".into(),
            curve: vec![(0.0, 1_000), (99.999, 50_000), (100.0, 60_000)],
        }]);
        let xs: Vec<f64> =
            [0.0, 50.0, 90.0, 99.0, 99.9, 100.0].into_iter().map(|p| axes.x(p)).collect();
        assert!(xs.windows(2).all(|w| w[0] < w[1]), "{xs:?}");
        assert_eq!(xs[0], LEFT);
        assert_eq!(*xs.last().unwrap(), WIDTH - RIGHT);
        assert!(axes.y(60_000.0) >= TOP && axes.y(1_000.0) <= HEIGHT - BOTTOM);
    }

    #[test]
    fn names_cannot_break_the_markup() {
        let picture = svg(
            "a < b & c",
            "",
            &[Series { name: "<x>".into(), curve: vec![(0.0, 5), (50.0, 7)] }],
        );
        assert!(picture.contains("a &lt; b &amp; c") && picture.contains("&lt;x&gt;"));
        assert!(picture.starts_with("<svg") && picture.ends_with("</svg>\n"));
    }

    #[test]
    fn nothing_to_draw_is_still_a_picture() {
        assert!(svg("empty", "", &[]).contains("</svg>"));
    }
}
