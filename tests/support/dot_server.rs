//! A DNS-over-TLS server that answers any name, to try dot-proxy without internet:
//! `cargo run --example dot-server`, then the command it prints.
#![allow(dead_code, reason = "the tests use what is not used here")]

mod answers;
mod authority;
mod message;
mod server;

use std::fs;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use authority::Authority;
use server::DotServer;
use server::behaviour::{Act, Setup};

const USAGE: &str = "\
usage: dot-server [--listen ADDR:PORT] [--ca-out FILE] [--name NAME] [--delay-ms N]
  --listen ADDR:PORT  where to listen, port 0 for a free one (127.0.0.1:8853)
  --ca-out FILE       where to write the root certificate (./target/dot-server-ca.pem)
  --name NAME         the name in the certificate (dot.example)
  --delay-ms N        answer so many milliseconds late (0)
It answers A, AAAA and TXT of any name, NXDOMAIN for nx. names, and N octets for TXT of size-N. names.
";

fn main() -> ExitCode {
    match parse().and_then(|options| options.map_or(Ok(()), |options| run(&options))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("dot-server: {error}");
            ExitCode::FAILURE
        }
    }
}

struct Options {
    listen: SocketAddr,
    ca_out: PathBuf,
    name: String,
    delay: Duration,
}

/// `None`: only help was wanted.
fn parse() -> Result<Option<Options>, String> {
    let mut args = pico_args::Arguments::from_env();
    if args.contains(["-h", "--help"]) {
        print!("{USAGE}");
        return Ok(None);
    }
    let wrong = |error: pico_args::Error| error.to_string();
    let listen: Option<SocketAddr> = args.opt_value_from_str("--listen").map_err(wrong)?;
    let ca_out: Option<PathBuf> = args.opt_value_from_str("--ca-out").map_err(wrong)?;
    let name: Option<String> = args.opt_value_from_str("--name").map_err(wrong)?;
    let delay_ms: Option<u64> = args.opt_value_from_str("--delay-ms").map_err(wrong)?;
    if let Some(stray) = args.finish().first() {
        return Err(format!("unknown argument {}; see --help", stray.display()));
    }
    Ok(Some(Options {
        listen: listen.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 8853))),
        ca_out: ca_out.unwrap_or_else(|| Path::new("./target/dot-server-ca.pem").to_owned()),
        name: name.unwrap_or_else(|| "dot.example".to_owned()),
        delay: Duration::from_millis(delay_ms.unwrap_or_default()),
    }))
}

/// Serves until the process is killed.
fn run(options: &Options) -> Result<(), String> {
    let authority = Authority::new();
    let ca_out = options.ca_out.display();
    if let Some(directory) = options.ca_out.parent() {
        fs::create_dir_all(directory)
            .map_err(|error| format!("cannot create the directory of {ca_out}: {error}"))?;
    }
    fs::write(&options.ca_out, authority.pem())
        .map_err(|error| format!("cannot write {ca_out}: {error}"))?;

    let delay = options.delay;
    let setup = Setup::new(authority.identity(&options.name)).handler(move |query| {
        if delay.is_zero() { query.answer() } else { vec![Act::After(delay, query.answer())] }
    });
    let server = DotServer::start_on(options.listen, setup)
        .map_err(|error| format!("cannot listen on {}: {error}", options.listen))?;
    let address = server.address();
    let name = &options.name;
    let mut stdout = io::stdout();
    writeln!(stdout, "listening {address}")
        .and_then(|()| {
            writeln!(
                stdout,
                "cargo run --release -- --upstream {address}#{name} --ca-file {ca_out}"
            )
        })
        .and_then(|()| stdout.flush())
        .map_err(|error| format!("cannot write to standard output: {error}"))?;
    loop {
        std::thread::park();
    }
}
