//! Rows tried on forwarders, several at the same time.

use std::any::Any;
use std::ffi::OsString;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use crate::known::{Known, Template};
use crate::outcome::Outcome;
use crate::subject::Subject;

/// A name, what it is about, and how it is tried.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) what: &'static str,
    /// The error is why this machine, or this forwarder, cannot be tried so.
    pub(crate) run: fn(&dyn Subject) -> Result<Outcome, String>,
}

/// With their names.
pub(crate) type Subjects = Vec<(String, Box<dyn Subject>)>;

pub(crate) type Results = Vec<Result<Outcome, String>>;

/// The options, of which these have a value, and the words of the command behind them, which are none
/// of ours.
pub(crate) fn split_arguments(with_value: &[&str]) -> (Vec<OsString>, Vec<String>) {
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
pub(crate) fn subjects(command: &[String], usage: &str, all: &[Known]) -> Result<Subjects, String> {
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

/// Runs the rows, some at the same time, as they wait most of it; one that panics gives what is made of
/// its reason.
pub(crate) fn run_all(
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
