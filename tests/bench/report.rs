//! The programs of the benchmark: see `scripts/bench`.
#![allow(dead_code, reason = "the tests use what is not used here")]

#[path = "../support/bench/mod.rs"]
mod bench;
mod programs;

#[path = "../support"]
mod support {
    pub(crate) mod authority;

    pub(crate) use authority::{Authority, Identity};
}

use std::process::ExitCode;

const USAGE: &str = "\
usage: bench upstream [--listen ADDR:PORT] [--ca-out FILE] [--name NAME] [--tls 1.2|1.3] [--delay-ms N]
       bench bare-loop --upstream ADDR:PORT#NAME --ca-file FILE [--listen ADDR:PORT]
       bench load --target ADDR:PORT [--tcp] [--clients N] [--in-flight N | --rate N] [--edns]
             [--warm-up SECONDS] [--seconds SECONDS] [--timeout SECONDS] [--watch NAME=PID]...

upstream   a DoT server that answers every query for type A with one record
  --listen    where to listen, port 0 for a free one (127.0.0.1:8853)
  --ca-out    where to write the root certificate (./target/bench-ca.pem)
  --name      the name in the certificate (dot.example)
  --tls       only this version (both)
  --delay-ms  answer so many milliseconds later (0)
  A line on its standard input makes it print how many queries and connections it saw.
bare-loop  a forwarder without checks: swaps IDs, one TLS connection, UDP and TCP (127.0.0.1:5300)
load       asks, every name new, and prints what it measured on one line
  --tcp        over TCP
  --clients    sockets or connections (8)
  --in-flight  so many queries at a time (200)
  --rate       so many queries a second instead, evenly spaced
  --edns       with OPT
  --warm-up    seconds before it measures (0.5)
  --seconds    that it measures (3)
  --timeout    seconds after which a query is lost (5)
  --watch      also measures the CPU time of this process, which is called NAME; repeatable, the
               processes of one name are summed
  In its line, NAME_us and load_us are microseconds of CPU time for each answered query, NAME_busy and
  load_busy shares of a core; late_p99_us is how much later than planned queries were sent.
";

fn main() -> ExitCode {
    let mut args = pico_args::Arguments::from_env();
    let done = match args.subcommand() {
        Ok(Some(program)) if !args.contains(["-h", "--help"]) => match &*program {
            "upstream" => programs::upstream(args),
            "bare-loop" => programs::bare_loop(args),
            "load" => programs::load(args),
            _ => Err(format!("{program}: upstream, bare-loop or load is wanted; see --help")),
        },
        Ok(_) => {
            print!("{USAGE}");
            Ok(())
        }
        Err(error) => Err(error.to_string()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}
