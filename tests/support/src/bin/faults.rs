//! Tries every fault of upstreams and clients on any forwarder, and prints a table of what became of
//! the queries: see `scripts/faults`.

use std::fs;
use std::io::{self, Write};
use std::panic;
use std::process::ExitCode;

use support::faults::ROWS;
use support::forwarder::known::{self, Known};
use support::forwarder::outcome::Outcome;
use support::forwarder::runner::{self, Options, Program, Results, Row};

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
    // A row that panics says so in its place in the table.
    panic::set_hook(Box::new(|_| {}));
    let results: Vec<_> = options
        .subjects
        .iter()
        .map(|(name, subject)| {
            eprintln!("{name}: {} rows", options.rows.len());
            runner::run_all(&options.rows, options.at_once, subject.as_ref(), Err)
        })
        .collect();
    // There is none if no configuration was written.
    drop(fs::remove_dir_all(known::directory()));
    let mut lines = match &results[..] {
        [results] => one_table(&options.rows, results),
        _ => common_table(options, &results),
    };
    if options.why {
        for ((name, _), results) in options.subjects.iter().zip(&results) {
            lines.extend(reasons(name, &options.rows, results));
        }
    }
    let text = lines.join("\n") + "\n";
    io::stdout().write_all(text.as_bytes()).map_err(|error| error.to_string())
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

/// The promises that were not kept, the first few of each row.
fn reasons(name: &str, rows: &[&Row], results: &Results) -> Vec<String> {
    const MOST: usize = 5;

    let mut lines = Vec::new();
    for (row, result) in rows.iter().zip(results) {
        match result {
            Ok(outcome) => {
                let broken = outcome.broken.iter().take(MOST);
                lines.extend(broken.map(|broken| format!("{name}: {}: {broken}", row.name)));
                if outcome.broken.len() > MOST {
                    lines.push(format!("{name}: {}: and so on", row.name));
                }
            }
            Err(reason) => lines.push(format!("{name}: {}: skipped: {reason}", row.name)),
        }
    }
    lines
}

fn time(outcome: &Outcome) -> String {
    match outcome.worst.as_millis() {
        0..1_000 => format!("{} ms", outcome.worst.as_millis()),
        _ => format!("{:.1} s", outcome.worst.as_secs_f32()),
    }
}
