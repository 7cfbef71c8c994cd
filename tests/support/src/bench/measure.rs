//! One forwarder under one load.

use std::fmt::Write as _;
use std::fs;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use crate::bench::cases::Case;
use crate::bench::cpu;
use crate::bench::forwarders::Forwarder;
use crate::bench::load::{self, Pace, Plan, Report, Transport};
use crate::bench::machine::{self, Cores, Directory};
use crate::bench::upstreams::Upstreams;
use crate::forwarder::subject::Running;

/// What every measurement needs.
pub struct Bench<'a> {
    pub cores: &'a Cores,
    pub directory: &'a Directory,
    pub upstreams: Upstreams<'a>,
    pub timing: Timing,
    pub interrupted: Arc<AtomicBool>,
}

#[derive(Clone, Copy)]
pub struct Timing {
    pub warm_up: Duration,
    pub time: Duration,
    pub timeout: Duration,
}

/// What one measurement came to. Times are microseconds, `busy` and `load_busy` shares of a core.
pub struct Sample {
    pub cpu: f64,
    pub rate: f64,
    pub busy: f64,
    pub load_busy: f64,
    /// What others than the forwarder took of its core.
    pub others: Option<f64>,
    pub sent: u64,
    pub unanswered: u64,
    pub median: f64,
    pub p99: f64,
    pub late_p99: f64,
    pub peak_kib: f64,
    /// The first process's share of the CPU time of all processes of the forwarder.
    pub first_share: f64,
}

impl Bench<'_> {
    /// Starts the forwarder, asks it, and ends it.
    pub fn sample(&mut self, case: &Case, forwarder: &Forwarder) -> Result<Sample, String> {
        let upstream = self.upstreams.of(case.upstream)?;
        let running = forwarder.start(self.cores, &upstream.destination())?;
        let mut watched: Vec<_> =
            running.iter().map(|process| (FORWARDER.to_owned(), process.id())).collect();
        watched.push((UPSTREAM.to_owned(), upstream.id()));
        watched.push((FIRST.to_owned(), running[0].id()));
        let plan = Plan {
            target: running[0].address(),
            transport: case.transport,
            clients: case.clients,
            pace: case.pace,
            edns: false,
            warm_up: self.timing.warm_up.max(2 * case.upstream.delay),
            time: self.timing.time,
            timeout: self.timing.timeout,
            watched,
            interrupted: Arc::clone(&self.interrupted),
        };
        let seen = upstream.queries()?;
        let start = CoreUse::of(self.cores, &running)?;
        let report = self.cores.on(self.cores.load, || {
            load::run(&plan).map_err(|error| format!("{}: {error}", forwarder.name))
        })?;
        let end = CoreUse::of(self.cores, &running)?;
        let seen = self.upstreams.of(case.upstream)?.queries()? - seen;
        if report.responses == 0 {
            let lines = running[0].lines();
            return Err(format!("{} answered nothing, and said {lines:?}", forwarder.name));
        }
        if seen < report.answered {
            let answered = report.answered;
            return Err(format!(
                "{} answered {answered} queries, and the upstream saw only {seen}",
                forwarder.name
            ));
        }
        let peak_kib = running.iter().filter_map(Running::peak_memory).sum::<usize>() as f64;
        let own_cores = if running.len() > 1 && self.cores.has_second() { 2.0 } else { 1.0 };
        let others =
            start.zip(end).filter(|_| own_cores < 2.0).map(|(start, end)| start.others_until(end));
        Ok(Sample::new(&report, self.cores, own_cores, others, peak_kib))
    }

    /// The CPU time that dnsperf has the forwarder use for each of the same queries.
    pub fn check(&mut self, case: &Case, forwarder: &Forwarder) -> Result<f64, String> {
        let Pace::Rate(rate) = case.pace else { return Err("dnsperf asks at a rate".to_owned()) };
        let upstream = self.upstreams.of(case.upstream)?;
        let running = forwarder.start(self.cores, &upstream.destination())?;
        let seconds = self.timing.time.as_secs().max(1);
        let names = self.directory.path().join("names");
        let mut text = String::new();
        // More than are asked, so that none is asked twice.
        for number in 0..u64::from(rate) * (seconds + 1) {
            writeln!(text, "{number:012x}.dnsperf.example.com A").expect("memory");
        }
        fs::write(&names, text).map_err(|error| format!("{}: {error}", names.display()))?;
        let address = running[0].address();
        let mut command = Command::new("dnsperf");
        command
            .args(["-s", &address.ip().to_string(), "-p", &address.port().to_string()])
            .args(["-m", if case.transport == Transport::Tcp { "tcp" } else { "udp" }])
            .args(["-c", &case.clients.to_string(), "-Q", &rate.to_string()])
            .args(["-q", "1000", "-l", &seconds.to_string(), "-d"])
            .arg(&names)
            .stdin(Stdio::null());
        let used = |processes: &[Running]| {
            cpu::of_process(processes[0].id()).map_err(|error| error.to_string())
        };
        let start = used(&running)?;
        let output = self.cores.on(self.cores.load, || {
            command.output().map_err(|error| format!("dnsperf: {error}"))
        })?;
        let used = used(&running)?.saturating_sub(start);
        let text = String::from_utf8_lossy(&output.stdout);
        let completed = text
            .lines()
            .find_map(|line| line.trim_start().strip_prefix("Queries completed:"))
            .and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok())
            .filter(|completed| *completed > 0)
            .ok_or_else(|| {
                let errors = String::from_utf8_lossy(&output.stderr);
                format!("dnsperf: no queries completed, and it said {:?}", errors.trim())
            })?;
        Ok(used.as_secs_f64() * 1e6 / completed as f64)
    }
}

/// What became of the forwarder's core so far.
#[derive(Clone, Copy)]
pub(super) struct CoreUse {
    at: Instant,
    idle: Duration,
    used: Duration,
}

impl CoreUse {
    /// `None` where the kernel does not tell.
    pub(super) fn of(cores: &Cores, running: &[Running]) -> Result<Option<Self>, String> {
        let mut used = Duration::ZERO;
        for process in running {
            used += cpu::of_process(process.id()).map_err(|error| {
                format!("it ended at its start and said {:?}: {error}", process.lines())
            })?;
        }
        let idle = machine::idle_time(cores.forwarder);
        Ok(idle.map(|idle| Self { at: Instant::now(), idle, used }))
    }

    /// The share of the core that others than the forwarder took from here to there.
    pub(super) fn others_until(self, end: Self) -> f64 {
        let passed = (end.at - self.at).as_secs_f64();
        let idle = (end.idle.saturating_sub(self.idle)).as_secs_f64();
        let used = (end.used.saturating_sub(self.used)).as_secs_f64();
        ((passed - idle - used) / passed).max(0.0)
    }
}

impl Sample {
    fn new(
        report: &Report,
        cores: &Cores,
        own_cores: f64,
        others: Option<f64>,
        peak_kib: f64,
    ) -> Self {
        let seconds = report.time.as_secs_f64();
        let used = |name: &str| {
            let found = report.watched.iter().find(|(other, _)| other == name);
            found.map_or(0.0, |(_, used)| used.as_secs_f64())
        };
        let micros =
            |time: Option<Duration>| time.map_or(f64::NAN, |time| time.as_secs_f64() * 1e6);
        let mut load = report.own.as_secs_f64();
        if cores.upstream == cores.load {
            load += used(UPSTREAM);
        }
        Self {
            cpu: used(FORWARDER) * 1e6 / report.responses as f64,
            rate: report.responses as f64 / seconds,
            busy: used(FORWARDER) / seconds / own_cores,
            load_busy: load / seconds,
            others,
            sent: report.sent,
            unanswered: report.failed + report.lost,
            median: micros(report.latency.quantile(500)),
            p99: micros(report.latency.quantile(990)),
            late_p99: report.lateness.quantile(990).map_or(0.0, |late| late.as_secs_f64() * 1e6),
            peak_kib,
            first_share: used(FIRST) / used(FORWARDER),
        }
    }
}

const FORWARDER: &str = "forwarder";
const UPSTREAM: &str = "upstream";
/// The first process of the forwarder.
const FIRST: &str = "first";
