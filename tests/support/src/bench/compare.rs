//! Every forwarder under every load, in turn, several times.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use pico_args::Arguments;

use crate::bench::cases::{CASES, Case, Forwarders};
use crate::bench::forwarders::Forwarder;
use crate::bench::machine::{self, Cores, Directory};
use crate::bench::measure::{Bench, Sample, Timing};
use crate::bench::programs::{finish, option, print};
use crate::bench::start::Start;
use crate::bench::upstreams::Upstreams;
use crate::bench::{table, targets};
use crate::forwarder::known;

/// All there is to tell.
pub struct Results {
    pub cases: Vec<CaseResults>,
    pub starts: Vec<(Forwarder, Vec<Start>)>,
    /// Octets of the static binary, and its start, if there is one.
    pub static_binary: Option<u64>,
}

pub struct CaseResults {
    pub case: &'static Case,
    pub rows: Vec<Row>,
}

/// One forwarder in one case.
pub struct Row {
    pub forwarder: Forwarder,
    pub samples: Vec<Sample>,
    /// What dnsperf had it use.
    pub check: Option<f64>,
}

impl Row {
    /// The median over the rounds.
    pub fn median(&self, of: impl Fn(&Sample) -> f64) -> Option<f64> {
        median(self.samples.iter().map(of).collect())
    }

    pub fn cpu(&self) -> Option<f64> {
        self.median(|sample| sample.cpu)
    }

    /// The share of all queries of all rounds that got no answer.
    pub fn unanswered(&self) -> Option<f64> {
        let sent: u64 = self.samples.iter().map(|sample| sample.sent).sum();
        let unanswered: u64 = self.samples.iter().map(|sample| sample.unanswered).sum();
        (sent > 0).then(|| unanswered as f64 / sent as f64)
    }
}

impl CaseResults {
    pub fn find(&self, is_it: impl Fn(&Forwarder) -> bool) -> Option<&Row> {
        self.rows.iter().find(|row| is_it(&row.forwarder) && !row.samples.is_empty())
    }

    /// The least, or the most, of something that any of the peers has.
    pub fn best_peer(&self, of: impl Fn(&Row) -> Option<f64>) -> Option<(&str, f64)> {
        self.rows
            .iter()
            .filter(|row| row.forwarder.is_peer())
            .filter_map(|row| Some((row.forwarder.name.as_str(), of(row)?)))
            .min_by(|(_, one), (_, other)| one.total_cmp(other))
    }
}

pub fn median(mut values: Vec<f64>) -> Option<f64> {
    values.retain(|value| !value.is_nan());
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        len if len % 2 == 1 => Some(values[middle]),
        _ => Some(f64::midpoint(values[middle - 1], values[middle])),
    }
}

struct Options {
    quick: bool,
    cases: Vec<&'static Case>,
    forwarders: Vec<Forwarder>,
    rounds: usize,
    timing: Timing,
    csv: PathBuf,
    static_binary: Option<PathBuf>,
}

impl Options {
    fn parse(mut args: Arguments) -> Result<Self, String> {
        let quick = args.contains("--quick");
        let cases: Option<String> = option(&mut args, "--cases")?;
        let forwarders: Option<String> = option(&mut args, "--forwarders")?;
        let rounds = option(&mut args, "--rounds")?.unwrap_or(if quick { 3 } else { 5 });
        let seconds = option(&mut args, "--seconds")?.unwrap_or(if quick { 1.0 } else { 2.5 });
        let csv = option(&mut args, "--csv")?.unwrap_or_else(|| "target/bench.csv".into());
        let static_binary = option(&mut args, "--static-binary")?;
        finish(args)?;
        let (rounds, time) = repeated(rounds, seconds)?;
        let forwarders = match forwarders {
            None => Forwarder::all(),
            Some(words) => words.split(',').map(Forwarder::find).collect::<Result<_, _>>()?,
        };
        let find = |word: &str| {
            CASES.iter().find(|case| case.name == word).ok_or_else(|| {
                let names: Vec<_> = CASES.iter().map(|case| case.name).collect();
                format!("--cases {word}: no such case: {}", names.join(", "))
            })
        };
        let cases = match cases {
            None => CASES.iter().filter(|case| case.quick || !quick).collect(),
            Some(words) => words.split(',').map(find).collect::<Result<_, _>>()?,
        };
        let timing = Timing {
            warm_up: Duration::from_millis(if quick { 300 } else { 500 }),
            time,
            timeout: Duration::from_secs(if quick { 2 } else { 5 }),
        };
        Ok(Self { quick, cases, forwarders, rounds, timing, csv, static_binary })
    }
}

/// How often, and how long each time.
pub(super) fn repeated(rounds: usize, seconds: f64) -> Result<(usize, Duration), String> {
    let time = Duration::try_from_secs_f64(seconds)
        .ok()
        .filter(|time| !time.is_zero())
        .ok_or_else(|| format!("--seconds {seconds}: give more than 0"))?;
    if rounds == 0 {
        return Err("--rounds 0: give 1 or more".to_owned());
    }
    Ok((rounds, time))
}

/// Compares, and prints the table, what else there is to know, and which target is met.
pub fn compare(args: Arguments) -> Result<(), String> {
    let mut options = Options::parse(args)?;
    let begin = Instant::now();
    let interrupted = interrupted()?;
    let notes = leave_out_missing(&mut options.forwarders)?;
    let cores = Cores::find()?;
    let directory = Directory::new()?;
    let _configurations = Configurations;
    let upstreams = Upstreams::new(&cores, directory.path());
    let timing = options.timing;
    let mut run = Run {
        bench: Bench { cores: &cores, directory: &directory, upstreams, timing, interrupted },
        options: &options,
        notes,
    };
    print(&format!(
        "{}. The forwarder has core {}, the load core {}, the upstream core {}. Medians of {} rounds of {} s.\n\n{}",
        machine::description(),
        cores.forwarder,
        cores.load,
        cores.upstream,
        options.rounds,
        timing.time.as_secs_f64(),
        table::head(),
    ))?;
    let mut results = Results { cases: Vec::new(), starts: Vec::new(), static_binary: None };
    for case in &options.cases {
        let rows = run.case(case)?;
        let case_results = CaseResults { case, rows };
        print(&table::rows(&case_results))?;
        results.cases.push(case_results);
    }
    results.starts = run.starts()?;
    if let Some(file) = &options.static_binary {
        let size = fs::metadata(file).map_err(|error| format!("{}: {error}", file.display()))?;
        results.static_binary = Some(size.len());
    }
    let notes = std::mem::take(&mut run.notes);
    print(&table::starts(&results))?;
    print(&table::notes(&results, &cores, notes))?;
    print(&targets::report(&results))?;
    write_numbers(&options.csv, &table::csv(&results), begin)
}

/// Writes the figures as CSV, and says where they are.
pub(super) fn write_numbers(path: &Path, csv: &str, begin: Instant) -> Result<(), String> {
    let file = path.display();
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)
            .map_err(|error| format!("cannot create the directory of {file}: {error}"))?;
    }
    fs::write(path, csv).map_err(|error| format!("cannot write {file}: {error}"))?;
    print(&format!("\nnumbers: {file}, after {} s\n", begin.elapsed().as_secs()))
}

/// A flag that is set when the program is to end.
pub(super) fn interrupted() -> Result<Arc<AtomicBool>, String> {
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGHUP, SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&interrupted))
            .map_err(|error| format!("cannot wait for signals: {error}"))?;
    }
    Ok(interrupted)
}

/// Takes out those that are not on this machine, and tells why.
pub(super) fn leave_out_missing(forwarders: &mut Vec<Forwarder>) -> Result<Vec<String>, String> {
    let mut notes = Vec::new();
    forwarders.retain(|forwarder| match forwarder.missing() {
        None => true,
        Some(why) => {
            notes.push(format!("{} is left out: {why}", forwarder.name));
            false
        }
    });
    if forwarders.is_empty() {
        return Err(notes.join("; "));
    }
    Ok(notes)
}

struct Run<'a> {
    bench: Bench<'a>,
    options: &'a Options,
    notes: Vec<String>,
}

impl Run<'_> {
    fn case(&mut self, case: &'static Case) -> Result<Vec<Row>, String> {
        let mut rows: Vec<Row> = self
            .forwarders(case)
            .into_iter()
            .map(|forwarder| Row { forwarder, samples: Vec::new(), check: None })
            .collect();
        for round in 0..self.options.rounds {
            // Another forwarder comes first each time.
            let count = rows.len();
            for n in 0..count {
                let row = &mut rows[(n + round) % count];
                let forwarder = row.forwarder.clone();
                tell(&format!("{}, round {}: {}", case.name, round + 1, forwarder.name));
                match self.bench.sample(case, &forwarder) {
                    Ok(sample) => row.samples.push(sample),
                    Err(error) => self.note(&format!("{}: {error}", case.name)),
                }
                self.continues()?;
            }
        }
        if !self.options.quick && case.has_check() {
            for row in &mut rows {
                tell(&format!("{}, dnsperf: {}", case.name, row.forwarder.name));
                match self.bench.check(case, &row.forwarder) {
                    Ok(cpu) => row.check = Some(cpu),
                    Err(error) => self.note(&format!("{}: {error}", case.name)),
                }
                self.continues()?;
            }
        }
        tell("");
        Ok(rows)
    }

    fn forwarders(&mut self, case: &Case) -> Vec<Forwarder> {
        match case.forwarders {
            Forwarders::All => self.options.forwarders.clone(),
            Forwarders::OneAndTwo => {
                let mut both = Vec::new();
                for one in self.options.forwarders.iter().filter(|forwarder| forwarder.is_ours()) {
                    match one.twice() {
                        Ok(two) => both.extend([one.clone(), two]),
                        Err(why) => self.note(&format!("{} is left out: {why}", case.name)),
                    }
                }
                both
            }
        }
    }

    fn starts(&mut self) -> Result<Vec<(Forwarder, Vec<Start>)>, String> {
        let mut forwarders = self.options.forwarders.clone();
        if let Some(file) = &self.options.static_binary {
            forwarders.push(Forwarder::find(&format!("static={}", file.display()))?);
        }
        let mut starts: Vec<_> =
            forwarders.into_iter().map(|forwarder| (forwarder, Vec::new())).collect();
        for round in 0..self.options.rounds {
            for (forwarder, starts) in &mut starts {
                tell(&format!("start, round {}: {}", round + 1, forwarder.name));
                match self.bench.start(forwarder) {
                    Ok(start) => starts.push(start),
                    Err(error) => self.note(&format!("start: {error}")),
                }
                self.continues()?;
            }
        }
        tell("");
        Ok(starts)
    }

    fn note(&mut self, note: &str) {
        // What a program said may have several lines.
        let note = note.split_whitespace().collect::<Vec<_>>().join(" ");
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    fn continues(&self) -> Result<(), String> {
        if self.bench.interrupted.load(Ordering::Relaxed) {
            return Err("interrupted".to_owned());
        }
        Ok(())
    }
}

/// Says what is being done, in one line that the next one replaces.
pub(super) fn tell(what: &str) {
    let mut stderr = io::stderr();
    if io::IsTerminal::is_terminal(&stderr) {
        write!(stderr, "\r\x1b[K{what}").and_then(|()| stderr.flush()).ok();
    }
}

/// The configurations of the peers, which are removed in the end.
pub(super) struct Configurations;

impl Drop for Configurations {
    fn drop(&mut self) {
        // The directory is there only if a peer was started.
        fs::remove_dir_all(known::directory()).ok();
    }
}

const SIGHUP: i32 = 1;
const SIGINT: i32 = 2;
const SIGTERM: i32 = 15;
