//! Every forwarder in turn before a path to its upstream that loses packets, or an upstream of which some
//! answers are slow.

pub mod network;
mod report;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use pico_args::Arguments;

use crate::bench::compare::{
    Configurations, interrupted, leave_out_missing, repeated, tell, write_numbers,
};
use crate::bench::delay::Delay;
use crate::bench::forwarders::Forwarder;
use crate::bench::histogram::Histogram;
use crate::bench::load::{self, Pace, Plan, Transport};
use crate::bench::machine::{self, Cores, Directory};
use crate::bench::measure::CoreUse;
use crate::bench::programs::{finish, option, print};
use crate::bench::upstreams::{Seen, Upstream};
use network::{Loss, Network, Path};

/// What is measured at once: a path, an upstream and a load.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Cell {
    loss: Loss,
    delay: Delay,
    /// Queries a second.
    rate: u32,
}

/// What became of the queries of one forwarder in one cell, in all rounds.
struct Row {
    cell: Cell,
    forwarder: Forwarder,
    rounds: u64,
    /// Of the queries that were measured and answered.
    latency: Histogram,
    measured: u64,
    /// All from here on, with those that were asked before it was measured.
    sent: u64,
    lost: u64,
    failed: u64,
    seen: Seen,
    /// Packets that the path lost.
    packets: u64,
    /// CPU time of the forwarder while it was measured, and the answers that it gave meanwhile.
    used: Duration,
    responses: u64,
    /// By how much queries were sent later than they were to be.
    lateness: Histogram,
    /// The most that others took of the forwarder's core in a round.
    others: f64,
}

struct Options {
    forwarders: Vec<Forwarder>,
    cells: Vec<Cell>,
    rounds: usize,
    time: Duration,
    /// On the path, in each direction.
    way: Duration,
    congestion: Option<String>,
    csv: PathBuf,
}

impl Options {
    fn parse(mut args: Arguments) -> Result<Self, String> {
        let only: Option<String> = option(&mut args, "--only")?;
        let loss: Option<String> = option(&mut args, "--loss")?;
        let rate: Option<String> = option(&mut args, "--rate")?;
        let delay: Option<u64> = option(&mut args, "--delay-ms")?;
        let spread = args.contains("--spread");
        let way = Duration::from_millis(option(&mut args, "--path-ms")?.unwrap_or_default());
        let congestion = option(&mut args, "--congestion")?;
        let rounds = option(&mut args, "--rounds")?.unwrap_or(1);
        let seconds = option(&mut args, "--seconds")?.unwrap_or(20.0);
        let csv = option(&mut args, "--csv")?.unwrap_or_else(|| "target/paths.csv".into());
        finish(args)?;
        let (rounds, time) = repeated(rounds, seconds)?;
        let forwarders = match only {
            None => Forwarder::all(),
            Some(words) => words.split(',').map(Forwarder::find).collect::<Result<_, _>>()?,
        };
        if spread && delay.is_some() {
            return Err("--spread and --delay-ms: give one of them".to_owned());
        }
        let all = !spread && loss.is_none() && rate.is_none() && delay.is_none();
        let losses = match loss {
            None if spread => vec![Loss::NONE],
            None => LOSSES.to_vec(),
            Some(words) => words.split(',').map(Loss::parse).collect::<Result<_, _>>()?,
        };
        let rates = match rate {
            None if spread => vec![SPREAD_RATE],
            None => RATES.to_vec(),
            Some(words) => words.split(',').map(parse_rate).collect::<Result<_, _>>()?,
        };
        let fixed = Delay::Fixed(Duration::from_millis(delay.unwrap_or(DELAY_MS)));
        let delay = if spread { Delay::Spread } else { fixed };
        let mut cells: Vec<Cell> = losses
            .iter()
            .flat_map(|loss| rates.iter().map(|rate| Cell { loss: *loss, delay, rate: *rate }))
            .collect();
        if all {
            cells.push(Cell { loss: Loss::NONE, delay: Delay::Spread, rate: SPREAD_RATE });
        }
        Ok(Self { forwarders, cells, rounds, time, way, congestion, csv })
    }
}

fn parse_rate(word: &str) -> Result<u32, String> {
    let rate = word.parse().ok().filter(|rate| *rate > 0);
    rate.ok_or_else(|| format!("--rate {word}: give queries a second, 1 or more"))
}

/// Compares, and prints the table, and which target is met.
pub fn paths(args: Arguments) -> Result<(), String> {
    let mut options = Options::parse(args)?;
    let congestion = options.congestion.clone().unwrap_or_else(network::congestion_control);
    let path = Path { loss: Loss::NONE, way: options.way, congestion: Some(&congestion) };
    if let Err(why) = Network::new(path) {
        let why = why.split_whitespace().collect::<Vec<_>>().join(" ");
        return print(&format!("skipped, as this machine has no such network: {why}\n"));
    }
    let begin = Instant::now();
    let interrupted = interrupted()?;
    let mut notes = leave_out_missing(&mut options.forwarders)?;
    let cores = Cores::find()?;
    let directory = Directory::new()?;
    let _configurations = Configurations;
    let (cores, directory) = (&cores, &directory);
    let bench = Bench { cores, directory, path, time: options.time, interrupted };
    print(&format!(
        "{}, TCP {congestion}, {} ms on the path. The forwarder has core {}, the load core {}, the upstream core {}. {} s of queries{}.\n\n{}",
        machine::description(),
        options.way.as_millis(),
        cores.forwarder,
        cores.load,
        cores.upstream,
        options.time.as_secs_f64(),
        if options.rounds > 1 { format!(", {} times", options.rounds) } else { String::new() },
        report::head(),
    ))?;
    let mut rows = Vec::new();
    for cell in &options.cells {
        for forwarder in &options.forwarders {
            let mut row = Row::new(*cell, forwarder.clone());
            for round in 1..=options.rounds {
                tell(&format!("{cell}, round {round}: {}", forwarder.name));
                if let Err(error) = bench.round(&mut row) {
                    let words: Vec<_> = error.split_whitespace().collect();
                    notes.push(format!("{cell}: {}: {}", forwarder.name, words.join(" ")));
                }
                if bench.interrupted.load(Ordering::Relaxed) {
                    return Err("interrupted".to_owned());
                }
            }
            tell("");
            if row.rounds > 0 {
                print(&report::line(&row))?;
                rows.push(row);
            }
        }
    }
    print(&report::notes(&rows, options.way, notes))?;
    print(&report::targets(&rows))?;
    write_numbers(&options.csv, &report::csv(&rows), begin)
}

struct Bench<'a> {
    cores: &'a Cores,
    directory: &'a Directory,
    path: Path<'a>,
    time: Duration,
    interrupted: Arc<AtomicBool>,
}

impl Bench<'_> {
    /// Starts network, upstream and forwarder, asks, and adds what came of it.
    fn round(&self, row: &mut Row) -> Result<(), String> {
        let Cell { loss, delay, .. } = row.cell;
        // What the kernel learns of a path is forgotten with it.
        let network = Network::new(Path { loss, ..self.path })?;
        let ca_file = self.directory.path().join("ca-paths.pem");
        let delay_ms;
        let more = match delay {
            Delay::Spread => &["--spread"][..],
            Delay::Fixed(delay) => {
                delay_ms = delay.as_millis().to_string();
                &["--delay-ms", &delay_ms]
            }
        };
        let mut upstream = network.far(|| {
            let start = || Upstream::start(network::UPSTREAM, ca_file, more);
            self.cores.on(self.cores.upstream, start)
        })?;
        network.near(|| self.ask(row, &mut upstream))?;
        row.packets += network.lost();
        Ok(())
    }

    fn ask(&self, row: &mut Row, upstream: &mut Upstream) -> Result<(), String> {
        let running = row.forwarder.start(self.cores, &upstream.destination())?;
        let plan = Plan {
            target: running[0].address(),
            transport: Transport::Udp,
            clients: CLIENTS,
            pace: Pace::Rate(row.cell.rate),
            edns: false,
            warm_up: WARM_UP,
            time: self.time,
            timeout: TIMEOUT,
            watched: vec![(String::new(), running[0].id())],
            interrupted: Arc::clone(&self.interrupted),
        };
        let start = CoreUse::of(self.cores, &running)?;
        let report = self
            .cores
            .on(self.cores.load, || load::run(&plan).map_err(|error| error.to_string()))?;
        let end = CoreUse::of(self.cores, &running)?;
        if report.answered == 0 {
            return Err(format!("it answered nothing, and said {:?}", running[0].lines()));
        }
        let seen = upstream.counts()?;
        row.rounds += 1;
        row.latency.merge(&report.latency);
        row.lateness.merge(&report.lateness);
        row.measured += report.measured;
        row.sent += report.sent;
        row.lost += report.lost;
        row.failed += report.failed;
        row.seen.queries += seen.queries;
        row.seen.connections += seen.connections;
        row.used += report.watched.iter().map(|(_, used)| *used).sum::<Duration>();
        row.responses += report.responses;
        let others = start.zip(end).map_or(0.0, |(start, end)| start.others_until(end));
        row.others = row.others.max(others);
        Ok(())
    }
}

impl Row {
    fn new(cell: Cell, forwarder: Forwarder) -> Self {
        Self {
            cell,
            forwarder,
            rounds: 0,
            latency: Histogram::new(),
            measured: 0,
            sent: 0,
            lost: 0,
            failed: 0,
            seen: Seen { queries: 0, connections: 0 },
            packets: 0,
            used: Duration::ZERO,
            responses: 0,
            lateness: Histogram::new(),
            others: 0.0,
        }
    }

    /// The time that so many thousandths of the queries did not exceed, in microseconds. Who got no answer
    /// waited longer than anybody: `None` where that is the time.
    fn quantile(&self, thousandths: u64) -> Option<f64> {
        let time = self.latency.quantile_among(self.measured, thousandths)?;
        Some(time.as_secs_f64() * 1e6)
    }

    /// Queries that the upstream received beyond those that were asked; below zero where more got lost on
    /// their way than were sent again.
    fn copies(&self) -> i64 {
        self.seen.queries.cast_signed() - self.sent.cast_signed()
    }

    /// Microseconds of CPU time for an answer.
    fn cpu(&self) -> Option<f64> {
        (self.responses > 0).then(|| self.used.as_secs_f64() * 1e6 / self.responses as f64)
    }
}

impl std::fmt::Display for Cell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { loss, delay, rate } = self;
        match delay {
            Delay::Fixed(time) => write!(f, "{loss}, {} ms, {rate}/s", time.as_millis()),
            Delay::Spread => write!(f, "{loss}, log-normal, {rate}/s"),
        }
    }
}

const LOSSES: [Loss; 3] = [Loss::NONE, Loss::per_mille(10), Loss::per_mille(30)];
const RATES: [u32; 4] = [100, 300, 1_000, 3_000];
const DELAY_MS: u64 = 20;
/// With answers of which some are slow.
const SPREAD_RATE: u32 = 1_000;
const CLIENTS: u16 = 8;

/// A handshake of which two packets are lost takes that long.
const WARM_UP: Duration = Duration::from_secs(3);

/// What stub resolvers wait.
const TIMEOUT: Duration = Duration::from_secs(5);
