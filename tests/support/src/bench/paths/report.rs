//! The figures as text, and which targets are met.

use std::fmt::Write as _;
use std::time::Duration;

use super::network::Loss;
use super::{Cell, Row};
use crate::bench::delay::Delay;
use crate::bench::table::{number, percent, time};

pub(super) fn head() -> String {
    format!("| {} |\n|{}\n", COLUMNS.join(" | "), "---|".repeat(COLUMNS.len()))
}

pub(super) fn line(row: &Row) -> String {
    let quantile = |thousandths| match row.quantile(thousandths) {
        Some(micros) => time(Some(micros)),
        None => "lost".to_owned(),
    };
    let longest = row.latency.quantile(1000).map(|time| time.as_secs_f64() * 1e6);
    let cells = [
        row.cell.to_string(),
        row.forwarder.name.clone(),
        quantile(500),
        quantile(990),
        quantile(999),
        time(longest),
        row.sent.to_string(),
        row.lost.to_string(),
        row.failed.to_string(),
        row.seen.connections.to_string(),
        row.copies().to_string(),
        number(row.cpu()),
    ];
    format!("| {} |\n", cells.join(" | "))
}

/// Percentiles and the maximum in microseconds; empty where it is one of those that got no answer.
pub(super) fn csv(rows: &[Row]) -> String {
    let mut csv =
        "loss_percent,answers,rate,forwarder,rounds,sent,measured,median_us,p99_us,p999_us,max_us,\
                   lost,failed,connections,copies,packets_lost,cpu_us,late_p99_us,others\n"
            .to_owned();
    for row in rows {
        let Cell { loss, delay, rate } = row.cell;
        let answers = match delay {
            Delay::Fixed(time) => format!("{}ms", time.as_millis()),
            Delay::Spread => "log-normal".to_owned(),
        };
        let some =
            |value: Option<f64>| value.map_or_else(String::new, |value| format!("{value:.1}"));
        let micros = |time: Option<Duration>| some(time.map(|time| time.as_secs_f64() * 1e6));
        writeln!(
            csv,
            "{},{answers},{rate},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{:.3}",
            loss.percent(),
            row.forwarder.name,
            row.rounds,
            row.sent,
            row.measured,
            some(row.quantile(500)),
            some(row.quantile(990)),
            some(row.quantile(999)),
            micros(row.latency.quantile(1000)),
            row.lost,
            row.failed,
            row.seen.connections,
            row.copies(),
            row.packets,
            some(row.cpu()),
            micros(row.lateness.quantile(990)),
            row.others,
        )
        .expect("memory");
    }
    csv
}

/// What to know before the figures are believed: what the machine itself adds, and who else used it.
pub(super) fn notes(rows: &[Row], way: Duration, mut notes: Vec<String>) -> String {
    let mut noise: Vec<f64> = rows.iter().filter_map(|row| noise(row, way)).collect();
    noise.sort_by(f64::total_cmp);
    if let (Some(least), Some(most)) = (noise.first(), noise.last()) {
        notes.push(format!(
            "without loss, one answer in a hundred came at least {} to {} after it was due",
            time(Some(*least)),
            time(Some(*most))
        ));
    }
    let is_late = |row: &&Row| row.lateness.quantile(990).is_some_and(|late| late > LATE_MAX);
    let late = rows.iter().filter(is_late).count();
    if late > 0 {
        let late_max = time(Some(LATE_MAX.as_secs_f64() * 1e6));
        let all = rows.len();
        notes.push(format!(
            "in {late} of {all} rows one query in a hundred was asked more than {late_max} late"
        ));
    }
    if let Some(row) = rows.iter().max_by(|one, other| one.others.total_cmp(&other.others)) {
        notes.push(format!(
            "others took up to {} of the forwarder's core",
            percent(Some(row.others))
        ));
    }
    notes.iter().fold(String::from("\n"), |text, note| text + "note: " + note + "\n")
}

/// How much later than upstream and path want one answer in a hundred comes where nothing is lost.
fn noise(row: &Row, way: Duration) -> Option<f64> {
    let Cell { loss: Loss::NONE, delay: Delay::Fixed(delay), .. } = row.cell else { return None };
    Some((row.quantile(990)? - (delay + 2 * way).as_secs_f64() * 1e6).max(0.0))
}

/// What dot-proxy is to be on each path.
pub(super) fn targets(rows: &[Row]) -> String {
    let mut text = String::from("\n");
    for row in rows.iter().filter(|row| row.forwarder.is_ours()) {
        let mut verdict = |what: &str, seen: &str, is_met: bool| {
            let verdict = if is_met { "met" } else { "NOT MET" };
            writeln!(text, "{verdict}: {}: {what}: {seen}", row.cell).expect("memory");
        };
        let (lost, failed) = (row.lost, row.failed);
        verdict("nothing lost", &format!("{lost} lost, {failed} failed"), lost + failed == 0);
        if row.cell.loss == Loss::NONE {
            let (connections, rounds) = (row.seen.connections, row.rounds);
            verdict("one connection a round", &connections.to_string(), connections == rounds);
            let copies = row.copies();
            let most = match row.cell.delay {
                Delay::Spread => row.sent as f64 * COPIES_MAX,
                Delay::Fixed(_) => 0.0,
            };
            verdict(
                &format!("at most {most:.0} copies"),
                &copies.to_string(),
                copies as f64 <= most,
            );
            continue;
        }
        let own = row.quantile(990);
        let is_below = |most: f64| own.is_some_and(|own| own <= most);
        verdict("99 % within 60 ms", &time(own), is_below(P99_MAX));
        for peer in rows.iter().filter(|peer| peer.cell == row.cell && peer.forwarder.is_peer()) {
            let theirs = peer.quantile(990);
            let seen = format!("{} and {}", time(own), time(theirs));
            let what = format!("99 % before {}'s", peer.forwarder.name);
            verdict(&what, &seen, theirs.is_none_or(&is_below));
        }
    }
    text
}

const COLUMNS: [&str; 12] = [
    "loss, answers, rate",
    "forwarder",
    "median",
    "99 %",
    "99.9 %",
    "maximum",
    "sent",
    "lost",
    "failed",
    "connections",
    "copies",
    "CPU µs per query",
];

/// In microseconds.
const P99_MAX: f64 = 60_000.0;

/// Where answers are slow and nothing is lost, a share of the queries.
const COPIES_MAX: f64 = 0.02;

const LATE_MAX: Duration = Duration::from_millis(5);
