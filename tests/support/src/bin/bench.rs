//! The benchmark and its programs: see `scripts/bench`.

use std::process::ExitCode;

use support::bench::{cases, compare, flood, forwarders, paths, programs};

const USAGE: &str = "\
usage: bench compare [--quick] [--cases NAME,...] [--forwarders NAME,...] [--rounds N] [--seconds SECONDS]
             [--csv FILE] [--static-binary FILE]
       bench paths [--only NAME,...] [--loss PERCENT,...] [--rate N,...] [--delay-ms N | --spread]
             [--path-ms N] [--congestion NAME] [--seconds SECONDS] [--rounds N] [--csv FILE]
       bench upstream [--listen ADDR:PORT] [--ca-out FILE] [--name NAME] [--tls 1.2|1.3]
             [--delay-ms N | --spread] [--end-with-stdin]
       bench bare-loop --upstream ADDR:PORT#NAME --ca-file FILE [--listen ADDR:PORT]
       bench load --target ADDR:PORT [--tcp] [--clients N] [--in-flight N | --rate N] [--edns]
             [--warm-up SECONDS] [--seconds SECONDS] [--timeout SECONDS] [--watch NAME=PID]...
       bench flood --target ADDR:PORT --source ADDR --pid PID [--rate N] [--seconds N] [--good-pause-ms N]

compare    asks every forwarder in turn, several times, and prints a table, and which target is met
  --quick          fewer and shorter rounds of fewer cases, without dnsperf
  --cases          only these: CASES
  --forwarders     only these: FORWARDERS; NAME=FILE is
                   another build of dot-proxy, which is called NAME
  --rounds         so many rounds (5, quick 3)
  --seconds        that each is measured (2.5, quick 1)
  --csv            where the table goes as numbers (target/bench.csv)
  --static-binary  the static binary, of which size and start are told, too
  The environment variable DOT_PROXY names the program (target/release/dot-proxy).
paths      asks every forwarder in turn while the path to its upstream loses packets, between two network
           namespaces that it makes (as root), and prints a table, and which target is met
  --only           only these forwarders, as above
  --loss           only these percentages of the packets, lost on the way in on both sides (0,1,3)
  --rate           only these numbers of queries a second (100,300,1000,3000)
  --delay-ms       the upstream answers so many milliseconds later (20)
  --spread         it takes log-normal times for its answers instead: median 15 ms, 2 % above 800 ms;
                   without loss and 1,000 a second unless told
  --path-ms        a packet takes so long, in each direction, where the kernel has netem (0)
  --congestion     what TCP does about losses, such as cubic (what this machine has)
  --seconds        that each is measured (20)
  --rounds         so many times, each with new connections (1)
  --csv            where the table goes as numbers (target/paths.csv)
upstream   a DoT server that answers every query for type A with one record
  --listen          where to listen, port 0 for a free one (127.0.0.1:8853)
  --ca-out          where to write the root certificate (./target/bench-ca.pem)
  --name            the name in the certificate (dot.example)
  --tls             only this version (both)
  --delay-ms        answer so many milliseconds later (0)
  --spread          answer after log-normal times: median 15 ms, 2 % above 800 ms
  --end-with-stdin  end when the standard input ends
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
flood      sends datagrams that get no answers, while a good client asks from the target's own address, each
           name up to three times, and prints the CPU time of a process for each datagram that it read
  --source         the address that the flood comes from
  --pid            the process
  --rate           datagrams a second (50000)
  --seconds        that it lasts (10)
  --good-pause-ms  between two queries of the good client (20)
";

fn main() -> ExitCode {
    let mut args = pico_args::Arguments::from_env();
    let (done, program) = match args.subcommand() {
        Ok(program) if args.contains(["-h", "--help"]) || program.is_none() => {
            (programs::print(&usage()), None)
        }
        Ok(program) => match program.as_deref() {
            Some("compare") => (compare::compare(args), program),
            Some("paths") => (paths::paths(args), program),
            Some("upstream") => (programs::upstream(args), program),
            Some("bare-loop") => (programs::bare_loop(args), program),
            Some("load") => (programs::load(args), program),
            Some("flood") => (flood::flood(args), program),
            other => {
                let seen = other.unwrap_or_default();
                let wanted = "compare, paths, upstream, bare-loop, load or flood";
                (Err(format!("{wanted} is wanted, not {seen}; see --help")), None)
            }
        },
        Err(error) => (Err(error.to_string()), None),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let program = program.map_or(String::new(), |program| format!(" {program}"));
            eprintln!("bench{program}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn usage() -> String {
    let cases: Vec<_> = cases::CASES.iter().map(|case| case.name).collect();
    let forwarders: Vec<_> =
        forwarders::Forwarder::all().into_iter().map(|forwarder| forwarder.name).collect();
    USAGE.replace("FORWARDERS;", &(forwarders.join(", ") + ";")).replace("CASES", &cases.join(", "))
}
