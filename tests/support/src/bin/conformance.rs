//! Checks on any forwarder what the RFCs ask of it, and prints a table of pass, fail and not
//! applicable: see `scripts/conformance`.

use std::process::ExitCode;

use support::conformance::ROWS;
use support::forwarder::known::Known;
use support::forwarder::outcome::Outcome;
use support::forwarder::runner::{Options, Program};

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
    let failed = |reason| Ok(Outcome { broken: vec![reason], ..Outcome::default() });
    let results = options.run(failed);
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
    let mut reasons = Vec::new();
    if options.why || options.subjects.len() == 1 {
        reasons.push(String::new());
        reasons.extend(options.reasons(&results));
    }
    options.print(&lines, &reasons)
}

fn word(result: &Result<Outcome, String>) -> &'static str {
    match result {
        Ok(outcome) if outcome.broken.is_empty() => "pass",
        Ok(_) => "**fail**",
        Err(_) => "n.a.",
    }
}
