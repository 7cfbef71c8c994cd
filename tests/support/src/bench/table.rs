//! The figures as text.

use std::fmt::Write as _;

use crate::bench::compare::{CaseResults, Results, Row, median};
use crate::bench::forwarders::Forwarder;
use crate::bench::machine::Cores;
use crate::bench::start::Start;

pub fn head() -> String {
    format!("| {} |\n|{}\n", COLUMNS.join(" | "), "---|".repeat(COLUMNS.len()))
}

/// One case.
pub fn rows(results: &CaseResults) -> String {
    let peer = results.best_peer(Row::cpu).map(|(_, cpu)| cpu);
    let bare = results.find(Forwarder::is_bare_loop).and_then(Row::cpu);
    let mut text = String::new();
    for row in &results.rows {
        let ratio = |to: Option<f64>| Some(row.cpu()? / to?);
        let cells = [
            results.case.name.to_owned(),
            row.forwarder.name.clone(),
            number(row.cpu()),
            number(row.check),
            number(row.median(|sample| sample.rate)),
            percent(row.median(|sample| sample.busy)),
            percent(row.median(|sample| sample.load_busy)),
            lost(row.unanswered()),
            time(row.median(|sample| sample.median)),
            time(row.median(|sample| sample.p99)),
            mega(row.median(|sample| sample.peak_kib)),
            number(ratio(peer)),
            number(ratio(bare)),
        ];
        line(&mut text, &cells);
    }
    text
}

/// Starts, and memory when idle.
pub fn starts(results: &Results) -> String {
    let mut text = String::from(
        "\n| forwarder | CPU until it listens | handshake | CPU to the first answer | by the clock \
         | idle memory MB |\n|---|---|---|---|---|---|\n",
    );
    for (forwarder, starts) in &results.starts {
        let milli =
            |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.1} ms"));
        let all = |of: &dyn Fn(&Start) -> f64| median(starts.iter().map(of).collect());
        let some =
            |of: &dyn Fn(&Start) -> Option<f64>| median(starts.iter().filter_map(of).collect());
        let cells = [
            forwarder.name.clone(),
            milli(some(&|start| start.listening)),
            // The bare loop connects before it listens.
            milli(some(&|start| start.handshake()).filter(|_| forwarder.is_ours())),
            milli(all(&|start| start.answered)),
            milli(all(&|start| start.wall)),
            mega(all(&|start| start.idle_kib)),
        ];
        line(&mut text, &cells);
    }
    if let Some(size) = results.static_binary {
        writeln!(text, "\nThe static binary has {size} octets.").expect("memory");
    }
    text
}

/// What to know before the figures are believed.
pub fn notes(results: &Results, cores: &Cores, mut notes: Vec<String>) -> String {
    let (mut samples, mut disturbed, mut late) = (0, 0, 0);
    for case in &results.cases {
        let name = case.case.name;
        for row in &case.rows {
            let forwarder = &row.forwarder.name;
            samples += row.samples.len();
            let others = row
                .samples
                .iter()
                .filter(|sample| sample.others.is_some_and(|others| others > DISTURBED));
            disturbed += others.count();
            late += row.samples.iter().filter(|sample| sample.late_p99 > LATE_MAX).count();
            if forwarder.starts_with("2 x ")
                && let Some(share) = row.median(|sample| sample.first_share)
            {
                let whose = if cores.has_second() { "a core each" } else { "one core" };
                notes.push(format!(
                    "{name}: the first of two processes on {whose} did {} of the work",
                    percent(Some(share))
                ));
            }
        }
        if case.case.saturates()
            && let Some(row) = case.find(Forwarder::is_bare_loop)
            && let Some(busy) = row.median(|sample| sample.busy)
            && busy < BARE_LOOP_BUSY_MIN
        {
            notes.push(format!(
                "{name}: the bare loop was only {} busy, as the load's core was {} busy",
                percent(Some(busy)),
                percent(row.median(|sample| sample.load_busy)),
            ));
        }
    }
    if disturbed > 0 {
        notes.push(format!(
            "in {disturbed} of {samples} runs others took more than {} of the forwarder's core: \
             the machine was not idle",
            percent(Some(DISTURBED))
        ));
    }
    if late > 0 {
        notes.push(format!(
            "in {late} of {samples} runs one query in a hundred was asked more than {} late",
            time(Some(LATE_MAX))
        ));
    }
    notes.iter().fold(String::from("\n"), |text, note| text + "note: " + note + "\n")
}

fn line(text: &mut String, cells: &[String]) {
    writeln!(text, "| {} |", cells.join(" | ")).expect("memory");
}

pub fn number(value: Option<f64>) -> String {
    match value {
        None => "-".to_owned(),
        Some(value) if value < 10.0 => format!("{value:.2}"),
        Some(value) if value < 100.0 => format!("{value:.1}"),
        Some(value) => {
            let mut digits = format!("{value:.0}");
            let mut place = digits.len();
            while place > 3 {
                place -= 3;
                digits.insert(place, ',');
            }
            digits
        }
    }
}

/// Microseconds as a table shows them.
pub fn time(value: Option<f64>) -> String {
    match value {
        None => "-".to_owned(),
        Some(value) if value < 1e3 => format!("{value:.0} µs"),
        Some(value) if value < 1e5 => format!("{:.1} ms", value / 1e3),
        Some(value) => format!("{:.0} ms", value / 1e3),
    }
}

pub fn percent(value: Option<f64>) -> String {
    value.map_or("-".to_owned(), |value| format!("{:.0} %", value * 100.0))
}

fn lost(value: Option<f64>) -> String {
    match value {
        None => "-".to_owned(),
        Some(0.0) => "0".to_owned(),
        Some(value) if value < 0.0001 => "< 0.01 %".to_owned(),
        Some(value) => format!("{:.2} %", value * 100.0),
    }
}

/// KiB as megabytes.
fn mega(value: Option<f64>) -> String {
    value.map_or("-".to_owned(), |value| format!("{:.1}", value * 1024.0 / 1e6))
}

const COLUMNS: [&str; 13] = [
    "case",
    "forwarder",
    "CPU µs per query",
    "by dnsperf",
    "queries/s",
    "core busy",
    "load's core busy",
    "lost",
    "median",
    "99 %",
    "peak MB",
    "of the best peer",
    "of the bare loop",
];

/// A share of the forwarder's core: from here on others disturbed the round.
const DISTURBED: f64 = 0.05;

/// In microseconds: later, and the load is not as even as it should be.
const LATE_MAX: f64 = 1_000.0;

const BARE_LOOP_BUSY_MIN: f64 = 0.8;

/// The medians as numbers: microseconds, queries a second and shares.
pub fn csv(results: &Results) -> String {
    let mut csv =
        "case,forwarder,cpu_us,queries_per_second,median_us,p99_us,unanswered\n".to_owned();
    for case in &results.cases {
        for row in &case.rows {
            let numbers = [
                row.cpu(),
                row.median(|sample| sample.rate),
                row.median(|sample| sample.median),
                row.median(|sample| sample.p99),
                row.unanswered(),
            ];
            let cells = numbers.map(|n| n.map_or_else(String::new, |n| n.to_string()));
            let names = [case.case.name.to_owned(), row.forwarder.name.clone()];
            csv += &([&names[..], &cells].concat().join(",") + "\n");
        }
    }
    csv
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_rounded_to_what_is_known() {
        assert_eq!(number(Some(2.345)), "2.35");
        assert_eq!(number(Some(23.45)), "23.4");
        assert_eq!(number(Some(999.6)), "1,000");
        assert_eq!(number(Some(267_707.4)), "267,707");
        assert_eq!(number(Some(100.0)), "100");
        assert_eq!(number(Some(1_093_317.0)), "1,093,317");
        assert_eq!(time(Some(99.6)), "100 µs");
        assert_eq!(time(Some(2_637.8)), "2.6 ms");
        assert_eq!(lost(Some(0.000_01)), "< 0.01 %");
    }
}
