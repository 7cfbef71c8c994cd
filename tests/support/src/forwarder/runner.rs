//! Rows tried on forwarders, several at the same time.

use std::any::Any;
use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::panic::{self, AssertUnwindSafe};
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use crate::forwarder::known::{self, Known, Template};
use crate::forwarder::outcome::Outcome;
use crate::forwarder::subject::Subject;

/// A name, what it is about, and how it is tried.
pub struct Row {
    pub name: &'static str,
    pub what: &'static str,
    /// The error is why this machine, or this forwarder, cannot be tried so.
    pub run: fn(&dyn Subject) -> Result<Outcome, String>,
}

/// With their names.
pub type Subjects = Vec<(String, Box<dyn Subject>)>;

pub type Results = Vec<Result<Outcome, String>>;

/// A program of this directory, or one like it.
pub struct Program {
    pub name: &'static str,
    pub usage: &'static str,
    pub rows: &'static [Row],
    /// The option that picks rows.
    pub choice: &'static str,
    /// Whether a word of that option means this row.
    pub is_meant: fn(&Row, &str) -> bool,
    /// The forwarders that `all` stands for.
    pub all: &'static [Known],
    pub report: fn(&Options) -> Result<(), String>,
}

/// What the command line asks for.
pub struct Options {
    pub rows: Vec<&'static Row>,
    pub at_once: usize,
    pub why: bool,
    pub subjects: Subjects,
}

impl Program {
    pub fn main(&self) -> ExitCode {
        let done = match self.options() {
            Ok(Some(options)) => (self.report)(&options),
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        };
        match done {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{}: {error}", self.name);
                ExitCode::FAILURE
            }
        }
    }

    /// `None`: only help was wanted.
    fn options(&self) -> Result<Option<Options>, String> {
        let wrong = |error: pico_args::Error| error.to_string();
        let (own, command) = split_arguments(&[self.choice, AT_ONCE]);
        let mut args = pico_args::Arguments::from_vec(own);
        if args.contains(["-h", "--help"]) {
            print!("{}", self.usage);
            return Ok(None);
        }
        let words: Option<String> = args.opt_value_from_str(self.choice).map_err(wrong)?;
        let at_once: Option<usize> = args
            .opt_value_from_str(AT_ONCE)
            .map_err(|_| format!("{AT_ONCE}: give a whole number"))?;
        let why = args.contains("--why");
        if let Some(stray) = args.finish().first() {
            return Err(format!("unknown option {}; see --help", stray.display()));
        }
        Ok(Some(Options {
            rows: self.chosen(words.as_deref())?,
            at_once: at_once.unwrap_or(4).max(1),
            why,
            subjects: subjects(&command, self.usage, self.all)?,
        }))
    }

    fn chosen(&self, words: Option<&str>) -> Result<Vec<&'static Row>, String> {
        let Some(words) = words else { return Ok(self.rows.iter().collect()) };
        let words: Vec<_> = words.split(',').collect();
        let is_known = |word: &&&str| self.rows.iter().any(|row| (self.is_meant)(row, word));
        if let Some(unknown) = words.iter().find(|word| !is_known(word)) {
            return Err(format!("{} {unknown}: there is no such row", self.choice));
        }
        let is_chosen = |row: &&Row| words.iter().any(|word| (self.is_meant)(row, word));
        Ok(self.rows.iter().filter(is_chosen).collect())
    }
}

const AT_ONCE: &str = "--at-once";

/// The options, of which these have a value, and the words of the command behind them, which are none
/// of ours.
fn split_arguments(with_value: &[&str]) -> (Vec<OsString>, Vec<String>) {
    let mut own: Vec<_> = std::env::args_os().skip(1).collect();
    let mut first = 0;
    while let Some(word) = own.get(first).and_then(|word| word.to_str())
        && word.starts_with('-')
    {
        first += if with_value.contains(&word) { 2 } else { 1 };
    }
    let command = own.split_off(first.min(own.len()));
    (own, command.into_iter().map(|word| word.to_string_lossy().into_owned()).collect())
}

/// The forwarders that a command line names; `all` stands for these.
fn subjects(command: &[String], usage: &str, all: &[Known]) -> Result<Subjects, String> {
    let known = |kind: Known| (kind.name().to_owned(), Box::new(kind) as Box<dyn Subject>);
    match command {
        [] => Err(format!("which forwarder?\n{usage}")),
        [word] if word == "all" => Ok(all.iter().copied().map(known).collect()),
        [name] if Known::find(name).is_some() => {
            Ok(Known::find(name).into_iter().map(known).collect())
        }
        words => {
            let template = Template::new(words)?;
            Ok(vec![(words[0].clone(), Box::new(template))])
        }
    }
}

impl Options {
    /// The results of each forwarder; what is made of the reason of a row that panics, `panicked` says.
    pub fn run(&self, panicked: fn(String) -> Result<Outcome, String>) -> Vec<Results> {
        // A row that panics says so in its place in the table.
        panic::set_hook(Box::new(|_| {}));
        let run = |(name, subject): &(String, Box<dyn Subject>)| {
            eprintln!("{name}: {} rows", self.rows.len());
            run_all(&self.rows, self.at_once, subject.as_ref(), panicked)
        };
        let results = self.subjects.iter().map(run).collect();
        // The directory is there only if a configuration was written.
        drop(fs::remove_dir_all(known::directory()));
        results
    }

    /// Prints a table, and below it what of each forwarder was not as it should be.
    pub fn print(&self, table: &[String], reasons: &[String]) -> Result<(), String> {
        let text = [table, reasons].concat().join("\n") + "\n";
        io::stdout().write_all(text.as_bytes()).map_err(|error| error.to_string())
    }

    /// What was found wrong, the first few things of each row, and why rows do not apply.
    pub fn reasons(&self, results: &[Results]) -> Vec<String> {
        const MOST: usize = 6;

        let mut lines = Vec::new();
        for ((name, _), results) in self.subjects.iter().zip(results) {
            for (row, result) in self.rows.iter().zip(results) {
                let about = |what: &str| format!("{name}: {}: {what}", row.name);
                match result {
                    Ok(outcome) => {
                        lines.extend(outcome.broken.iter().take(MOST).map(|broken| about(broken)));
                        let more = outcome.broken.len().saturating_sub(MOST);
                        if more > 0 {
                            lines.push(about(&format!("and {more} more")));
                        }
                        lines.extend(outcome.notes.iter().map(|note| about(note)));
                    }
                    Err(reason) => {
                        let reason = reason.lines().collect::<Vec<_>>().join(" ");
                        lines.push(about(&format!("n.a.: {reason}")));
                    }
                }
            }
        }
        lines
    }
}

/// Runs the rows, some at the same time, as they wait most of it; one that panics gives what is made of
/// its reason.
fn run_all(
    rows: &[&Row],
    at_once: usize,
    subject: &dyn Subject,
    panicked: fn(String) -> Result<Outcome, String>,
) -> Results {
    let next = AtomicUsize::new(0);
    let (sender, receiver) = mpsc::channel();
    std::thread::scope(|scope| {
        for _ in 0..at_once {
            let (sender, next) = (sender.clone(), &next);
            scope.spawn(move || {
                while let Some(row) = rows.get(next.fetch_add(1, Ordering::Relaxed)) {
                    eprintln!("  {}", row.name);
                    let result = panic::catch_unwind(AssertUnwindSafe(|| (row.run)(subject)));
                    let result = result.unwrap_or_else(|panic| panicked(reason(panic.as_ref())));
                    sender.send((row.name, result)).expect("it is received below");
                }
            });
        }
    });
    drop(sender);
    let mut results: Vec<_> = receiver.into_iter().collect();
    results.sort_by_key(|(name, _)| rows.iter().position(|row| row.name == *name));
    results.into_iter().map(|(_, result)| result).collect()
}

fn reason(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("?");
    // The rest is what a server saw.
    let line = text.lines().next().unwrap_or_default();
    line.split(';').next().unwrap_or_default().to_owned()
}
