//! Tests that this machine cannot run.

use std::io::Write;

/// Prints `skipped NAME: REASON`. The line goes around the capture of a test's output, so that nobody
/// takes the test for one that passed; `scripts/test` counts these lines.
pub fn skip(name: &str, reason: &str) {
    let reason = reason.trim().replace('\n', " ");
    // With one thread, "test NAME ... " stands before it.
    let line = format!("\nskipped {name}: {reason}\n");
    std::io::stdout().write_all(line.as_bytes()).expect("a standard output");
}
