//! The table as a picture.

use std::fmt::{self, Write as _};

use crate::bench::compare::{CaseResults, Results, Row};
use crate::bench::forwarders::Forwarder;
use crate::bench::table::{number, time};

/// An SVG with a block of bars for each case: CPU time and throughput, each to the scale of its case, and
/// latency from the median to the 99th percentile, to one logarithmic scale.
pub fn draw(results: &Results) -> String {
    let height: f64 = results.cases.iter().map(block_height).sum::<f64>() + TOP + MARGIN;
    let mut svg = String::new();
    head(&mut svg, height).expect("memory");
    let mut y = TOP;
    let latency = latency_range(results);
    for case in &results.cases {
        block(&mut svg, case, y, latency).expect("memory");
        y += block_height(case);
    }
    svg + "</svg>\n"
}

fn head(svg: &mut String, height: f64) -> fmt::Result {
    writeln!(
        svg,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
         viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#fff\"/>"
    )?;
    for (x, title) in [
        (CPU_AT, "CPU time per query, µs"),
        (RATE_AT, "queries a second"),
        (LATENCY_AT, "latency, median to 99 %, logarithmic"),
    ] {
        text(svg, x, TOP - 10.0, "bold", title)?;
    }
    Ok(())
}

fn block(svg: &mut String, case: &CaseResults, top: f64, latency: (f64, f64)) -> fmt::Result {
    text(svg, MARGIN, top + 12.0, "bold", case.case.what)?;
    let most = |of: &dyn Fn(&Row) -> Option<f64>| {
        case.rows.iter().filter_map(of).fold(f64::MIN_POSITIVE, f64::max)
    };
    let rate = |row: &Row| row.median(|sample| sample.rate);
    let (cpu_most, rate_most) = (most(&Row::cpu), most(&rate));
    let mut y = top + HEADING;
    for row in &case.rows {
        let color = color(&row.forwarder);
        text(svg, MARGIN, y + 10.0, "normal", &row.forwarder.name)?;
        if let Some(cpu) = row.cpu() {
            bar(svg, (CPU_AT, y), BAR * cpu / cpu_most, color)?;
            let at = CPU_AT + BAR * cpu / cpu_most + 4.0;
            text(svg, at, y + 10.0, "normal", &number(Some(cpu)))?;
        }
        if let Some(rate) = rate(row) {
            bar(svg, (RATE_AT, y), BAR * rate / rate_most, color)?;
            let at = RATE_AT + BAR * rate / rate_most + 4.0;
            let lost = row.unanswered().filter(|lost| *lost > 0.0);
            let lost = lost.map_or(String::new(), |lost| format!(", {:.2} % lost", lost * 100.0));
            text(svg, at, y + 10.0, "normal", &(number(Some(rate)) + &lost))?;
        }
        if let (Some(median), Some(p99)) =
            (row.median(|sample| sample.median), row.median(|sample| sample.p99))
        {
            let (low, high) = latency;
            let at = |value: f64| LATENCY_AT + BAR * (value / low).ln() / (high / low).ln();
            bar(svg, (at(median), y), (at(p99) - at(median)).max(2.0), color)?;
            let label = format!("{} to {}", time(Some(median)), time(Some(p99)));
            text(svg, at(p99).max(at(median) + 2.0) + 4.0, y + 10.0, "normal", &label)?;
        }
        y += LINE;
    }
    Ok(())
}

fn bar(svg: &mut String, (x, y): (f64, f64), width: f64, color: &str) -> fmt::Result {
    let height = LINE - 4.0;
    writeln!(
        svg,
        "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height}\" fill=\"{color}\"/>"
    )
}

fn text(svg: &mut String, x: f64, y: f64, weight: &str, what: &str) -> fmt::Result {
    let what = what.replace('&', "&amp;").replace('<', "&lt;");
    writeln!(
        svg,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" font-weight=\"{weight}\" fill=\"#222\">{what}</text>"
    )
}

/// The least median and the most of the rest, a little apart whatever was measured.
fn latency_range(results: &Results) -> (f64, f64) {
    let rows = || results.cases.iter().flat_map(|case| &case.rows);
    let medians = rows().filter_map(|row| row.median(|sample| sample.median));
    let most = rows().filter_map(|row| row.median(|sample| sample.p99));
    let low = medians.fold(f64::MAX, f64::min).clamp(1.0, 1e6);
    (low / 1.5, most.fold(low, f64::max) * 1.5)
}

fn block_height(case: &CaseResults) -> f64 {
    HEADING + LINE * case.rows.len() as f64 + GAP
}

fn color(forwarder: &Forwarder) -> &'static str {
    match forwarder.name.as_str() {
        "unbound" => "#4477aa",
        "dnsdist" => "#66ccee",
        "stubby" => "#ccbb44",
        "bare-loop" => "#999999",
        _ => "#ee6677",
    }
}

const WIDTH: f64 = 1000.0;
const MARGIN: f64 = 12.0;
const TOP: f64 = 40.0;
const HEADING: f64 = 20.0;
const LINE: f64 = 16.0;
const GAP: f64 = 14.0;
const CPU_AT: f64 = 110.0;
const RATE_AT: f64 = 390.0;
const LATENCY_AT: f64 = 700.0;
/// The longest bar; its label is beside it.
const BAR: f64 = 160.0;
