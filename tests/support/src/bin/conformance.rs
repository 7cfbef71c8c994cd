//! Checks on any forwarder what the RFCs ask of it, and prints a table of pass, fail and not
//! applicable: see `scripts/conformance`.

use std::fs;
use std::io::{self, Write};
use std::panic;
use std::process::ExitCode;

use support::conformance::ROWS;
use support::forwarder::known::{self, Known};
use support::forwarder::outcome::Outcome;
use support::forwarder::runner::{self, Options, Program, Results, Row};

const USAGE: &str = "\
usage: conformance [--statements NUMBER,...] [--at-once N] [--why] FORWARDER
  FORWARDER     dot-proxy, unbound, stubby, dnsdist or kresd; `all` of them, for one table; or a command
                with {listen_ip} {listen_port} {upstream_ip} {upstream_port} {name} {ca} in it
  --statements  only these, as 5,43
  --at-once N   so many checks at the same time (4)
  --why         what was found wrong, or why a check does not apply, below the table; always so for
                one forwarder
";

fn main() -> ExitCode {
    Program {
        name: "conformance",
        usage: USAGE,
        rows: ROWS,
        choice: "--statements",
        is_meant: |row, word| row.name.split(' ').next() == Some(word),
        all: &Known::ALL,
        report,
    }
    .main()
}

fn report(options: &Options) -> Result<(), String> {
    // A check that panics has failed, and says so below the table.
    panic::set_hook(Box::new(|_| {}));
    let failed = |reason| Ok(Outcome { broken: vec![reason], ..Outcome::default() });
    let results: Vec<_> = options
        .subjects
        .iter()
        .map(|(name, subject)| {
            eprintln!("{name}: {} checks", options.rows.len());
            runner::run_all(&options.rows, options.at_once, subject.as_ref(), failed)
        })
        .collect();
    // There is none if no configuration was written.
    drop(fs::remove_dir_all(known::directory()));
    let names: Vec<_> = options.subjects.iter().map(|(name, _)| name.as_str()).collect();
    let mut lines = vec![
        format!("| number | statement | {} |", names.join(" | ")),
        format!("|{}", "---|".repeat(2 + names.len())),
    ];
    for (n, row) in options.rows.iter().enumerate() {
        let cells: Vec<_> = results.iter().map(|results| word(&results[n])).collect();
        lines.push(format!("| {} | {} | {} |", row.name, row.what, cells.join(" | ")));
    }
    let sums = results.iter().map(|results| {
        let count = |what| results.iter().filter(|result| word(result) == what).count();
        format!("{} / {} / {}", count("pass"), count("**fail**"), count("n.a."))
    });
    lines.push(format!("| | pass / fail / n.a. | {} |", sums.collect::<Vec<_>>().join(" | ")));
    if options.why || options.subjects.len() == 1 {
        lines.push(String::new());
        for ((name, _), results) in options.subjects.iter().zip(&results) {
            lines.extend(reasons(name, &options.rows, results));
        }
    }
    let text = lines.join("\n") + "\n";
    io::stdout().write_all(text.as_bytes()).map_err(|error| error.to_string())
}

fn word(result: &Result<Outcome, String>) -> &'static str {
    match result {
        Ok(outcome) if outcome.broken.is_empty() => "pass",
        Ok(_) => "**fail**",
        Err(_) => "n.a.",
    }
}

/// What was found wrong, the first few things of each statement.
fn reasons(name: &str, rows: &[&Row], results: &Results) -> Vec<String> {
    const MOST: usize = 6;

    let mut lines = Vec::new();
    for (row, result) in rows.iter().zip(results) {
        match result {
            Ok(outcome) => {
                let broken = outcome.broken.iter().take(MOST);
                lines.extend(broken.map(|broken| format!("{name}: {}: {broken}", row.name)));
                let more = outcome.broken.len().saturating_sub(MOST);
                if more > 0 {
                    lines.push(format!("{name}: {}: and {more} more", row.name));
                }
                lines.extend(outcome.notes.iter().map(|n| format!("{name}: {}: {n}", row.name)));
            }
            Err(reason) => {
                let reason = reason.lines().collect::<Vec<_>>().join(" ");
                lines.push(format!("{name}: {}: n.a.: {reason}", row.name));
            }
        }
    }
    lines
}
