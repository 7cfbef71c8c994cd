//! Tries every fault of upstreams and clients on any forwarder, and prints a table of what became of
//! the queries: see `scripts/faults`.

use std::process::ExitCode;

use support::faults::ROWS;
use support::forwarder::known::Known;
use support::forwarder::outcome::Outcome;
use support::forwarder::runner::{Options, Program, Results, Row};

const USAGE: &str = "\
usage: faults [--rows NAME,...] [--at-once N] [--why] FORWARDER
  FORWARDER     dot-proxy, unbound, stubby, dnsdist or kresd; `all` but the last, for one table; or a command with
                {listen_ip} {listen_port} {upstream_ip} {upstream_port} {name} {ca} in it. The one word
                that has the upstream in it, and the flag before it, are repeated for a second upstream;
                rows that want one are skipped if there is no such word.
  --rows        only these, as U1,C7; C for all that begin with C
  --at-once N   so many rows at the same time (4)
  --why         which promises were not kept, below the table
";

fn main() -> ExitCode {
    Program {
        name: "faults",
        usage: USAGE,
        rows: ROWS,
        choice: "--rows",
        is_meant,
        all: &[Known::DotProxy, Known::Unbound, Known::Stubby, Known::Dnsdist],
        report,
    }
    .main()
}

/// Whether this is the row's name, or what its name begins with.
fn is_meant(row: &Row, word: &str) -> bool {
    let word = word.to_uppercase();
    row.name.to_uppercase() == word
        || row.name.split(' ').next() == Some(&word)
        || (word.len() == 1 && row.name.starts_with(&word))
}

fn report(options: &Options) -> Result<(), String> {
    let results = options.run(Err);
    let table = match &results[..] {
        [results] => one_table(&options.rows, results),
        _ => common_table(options, &results),
    };
    let reasons = if options.why { options.reasons(&results) } else { Vec::new() };
    options.print(&table, &reasons)
}

/// All there is to tell of one forwarder.
fn one_table(rows: &[&Row], results: &Results) -> Vec<String> {
    const HEAD: &str = "| row | fault | answered | SERVFAIL | lost | worst delay | connections \
                        | kept | remarks |";

    let mut lines = vec![HEAD.to_owned(), format!("|{}", "---|".repeat(9))];
    for (row, result) in rows.iter().zip(results) {
        let rest = match result {
            Ok(outcome) => format!(
                "{} | {} | {} | {} | {} | {} | {}",
                outcome.answered,
                outcome.servfail,
                outcome.lost,
                time(outcome),
                outcome.connections,
                if outcome.broken.is_empty() { "yes" } else { "no" },
                outcome.notes.join("; "),
            ),
            Err(reason) => {
                let reason = reason.lines().collect::<Vec<_>>().join(" ");
                format!("- | - | - | - | - | - | skipped: {reason}")
            }
        };
        lines.push(format!("| {} | {} | {rest} |", row.name, row.what));
    }
    lines
}

/// The counts of several forwarders beside each other.
fn common_table(options: &Options, results: &[Results]) -> Vec<String> {
    let names: Vec<_> = options.subjects.iter().map(|(name, _)| name.as_str()).collect();
    let mut lines = vec![
        format!("| row | fault | {} |", names.join(" | ")),
        format!("|{}", "---|".repeat(2 + names.len())),
    ];
    for (n, row) in options.rows.iter().enumerate() {
        let cells: Vec<_> = results.iter().map(|results| cell(&results[n])).collect();
        lines.push(format!("| {} | {} | {} |", row.name, row.what, cells.join(" | ")));
    }
    lines
}

fn cell(result: &Result<Outcome, String>) -> String {
    match result {
        Ok(outcome) => format!(
            "{}{} / {} / {}, {}, {}",
            if outcome.broken.is_empty() { "" } else { "✗ " },
            outcome.answered,
            outcome.servfail,
            outcome.lost,
            time(outcome),
            outcome.connections,
        ),
        Err(_) => "-".to_owned(),
    }
}

fn time(outcome: &Outcome) -> String {
    match outcome.worst.as_millis() {
        0..1_000 => format!("{} ms", outcome.worst.as_millis()),
        _ => format!("{:.1} s", outcome.worst.as_secs_f32()),
    }
}
