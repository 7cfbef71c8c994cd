//! The programs as commands.

use std::fs;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use pico_args::Arguments;

use crate::Authority;
use crate::bench::bare_loop::BareLoop;
use crate::bench::delay::Delay;
use crate::bench::load::{self, Pace, Plan, Transport};
use crate::bench::upstream::{Counts, Upstream};

/// Serves until it is killed.
pub fn upstream(mut args: Arguments) -> Result<(), String> {
    let listen =
        option(&mut args, "--listen")?.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 8853)));
    let ca_out: Option<PathBuf> = option(&mut args, "--ca-out")?;
    let ca_out = ca_out.unwrap_or_else(|| Path::new("./target/bench-ca.pem").to_owned());
    let name = option(&mut args, "--name")?.unwrap_or_else(|| "dot.example".to_owned());
    let version = match option::<String>(&mut args, "--tls")?.as_deref() {
        None => None,
        Some("1.2") => Some(&rustls::version::TLS12),
        Some("1.3") => Some(&rustls::version::TLS13),
        Some(other) => return Err(format!("--tls {other}: give 1.2 or 1.3")),
    };
    let delay = match (args.contains("--spread"), option(&mut args, "--delay-ms")?) {
        (false, delay) => Delay::Fixed(Duration::from_millis(delay.unwrap_or_default())),
        (true, None) => Delay::Spread,
        (true, Some(_)) => return Err("--spread and --delay-ms: give one of them".to_owned()),
    };
    let ends = args.contains("--end-with-stdin");
    finish(args)?;
    let authority = Authority::new();
    let server = Upstream::bind(listen, authority.identity(&name), version, delay)
        .map_err(|error| format!("cannot listen on {listen}: {error}"))?;
    let file = ca_out.display();
    if let Some(directory) = ca_out.parent() {
        fs::create_dir_all(directory)
            .map_err(|error| format!("cannot create the directory of {file}: {error}"))?;
    }
    fs::write(&ca_out, authority.pem()).map_err(|error| format!("cannot write {file}: {error}"))?;
    let address = server.address().map_err(|error| error.to_string())?;
    print(&format!(
        "listening {address}\n\
         cargo run --release -- --upstream {address}#{name} --ca-file {file} --query-log off\n"
    ))?;
    let counts = server.counts();
    std::thread::spawn(move || {
        tell(&counts);
        if ends {
            std::process::exit(0);
        }
    });
    Err(server.run().to_string())
}

/// Prints the counts for every line of the standard input.
fn tell(counts: &Arc<Counts>) {
    for line in io::stdin().lines() {
        let queries = counts.queries.load(Ordering::Relaxed);
        let connections = counts.connections.load(Ordering::Relaxed);
        let text = format!("queries={queries} connections={connections}\n");
        if line.is_err() || print(&text).is_err() {
            return;
        }
    }
}

/// Forwards until it is killed.
pub fn bare_loop(mut args: Arguments) -> Result<(), String> {
    let listen =
        option(&mut args, "--listen")?.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 5300)));
    let upstream: String = args.value_from_str("--upstream").map_err(|error| error.to_string())?;
    let ca_file: PathBuf = args.value_from_str("--ca-file").map_err(|error| error.to_string())?;
    finish(args)?;
    let (address, name) = upstream
        .split_once('#')
        .and_then(|(address, name)| Some((address.parse().ok()?, name)))
        .ok_or_else(|| format!("--upstream {upstream}: give ADDR:PORT#NAME"))?;
    let forwarder = BareLoop::start(listen, address, name, &ca_file)?;
    let address = forwarder.address().map_err(|error| error.to_string())?;
    print(&format!("listening {address} udp tcp\n"))?;
    Err(forwarder.run().to_string())
}

/// Asks, and prints what was measured.
pub fn load(mut args: Arguments) -> Result<(), String> {
    let target = args.value_from_str("--target").map_err(|error| error.to_string())?;
    let transport = if args.contains("--tcp") { Transport::Tcp } else { Transport::Udp };
    let edns = args.contains("--edns");
    let clients = option(&mut args, "--clients")?.unwrap_or(8);
    let in_flight = option(&mut args, "--in-flight")?;
    let rate = option(&mut args, "--rate")?;
    let mut seconds = |flag, usual: f64| -> Result<Duration, String> {
        let seconds = option(&mut args, flag)?.unwrap_or(usual);
        Duration::try_from_secs_f64(seconds).map_err(|error| format!("{flag} {seconds}: {error}"))
    };
    let warm_up = seconds("--warm-up", 0.5)?;
    let time = seconds("--seconds", 3.0)?;
    let timeout = seconds("--timeout", 5.0)?;
    let watched: Vec<String> =
        args.values_from_str("--watch").map_err(|error| error.to_string())?;
    finish(args)?;
    let pace = match (in_flight, rate) {
        (None, None) => Pace::InFlight(200),
        (Some(count), None) => Pace::InFlight(count),
        (None, Some(rate)) => Pace::Rate(rate),
        (Some(_), Some(_)) => return Err("--in-flight and --rate: give one of them".to_owned()),
    };
    if let (0, _) | (_, Pace::InFlight(0) | Pace::Rate(0)) = (clients, pace) {
        return Err("--clients, --in-flight and --rate: give 1 or more".to_owned());
    }
    let watched = watched.iter().map(|word| {
        word.split_once('=')
            .and_then(|(name, pid)| Some((name.to_owned(), pid.parse().ok()?)))
            .ok_or_else(|| format!("--watch {word}: give NAME=PID"))
    });
    let plan = Plan {
        target,
        transport,
        clients,
        pace,
        edns,
        warm_up,
        time,
        timeout,
        watched: watched.collect::<Result<_, _>>()?,
        interrupted: Arc::default(),
    };
    let report = load::run(&plan).map_err(|error| format!("asking {target}: {error}"))?;
    print(&format!("{report}\n"))
}

/// The value of a flag, if it is given.
pub fn option<T: std::str::FromStr>(
    args: &mut Arguments,
    flag: &'static str,
) -> Result<Option<T>, String>
where
    T::Err: std::fmt::Display,
{
    args.opt_value_from_str(flag).map_err(|error| format!("{flag}: {error}"))
}

/// Nothing but what was taken was given.
pub fn finish(args: Arguments) -> Result<(), String> {
    match args.finish().first() {
        Some(stray) => Err(format!("unknown argument {}; see --help", stray.display())),
        None => Ok(()),
    }
}

/// Prints at once, as others may wait for it.
pub fn print(text: &str) -> Result<(), String> {
    let mut stdout = io::stdout();
    stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
        .map_err(|error| format!("cannot write to standard output: {error}"))
}
