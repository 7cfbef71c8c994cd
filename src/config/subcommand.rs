//! Subcommands: a word in front of the flags, for something else than serving.

use std::ffi::OsString;
use std::net::SocketAddr;

use pico_args::Arguments;

use super::options::Options;
use super::{Command, Host, UsageError, given};

/// A word in front of the flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Subcommand {
    Check,
    CheckConfig,
    Health,
    Help,
    Version,
}

impl Subcommand {
    /// The subcommand at the front of the arguments, taken out of them.
    pub(super) fn take(args: &mut Vec<OsString>) -> Option<Self> {
        let first = args.first()?.to_str()?;
        let (_, subcommand) = WORDS.iter().find(|(word, _)| *word == first)?;
        args.remove(0);
        Some(*subcommand)
    }
}

/// What `health` is told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Where the running program listens; empty: it is to be found out.
    pub listen: Vec<SocketAddr>,
    /// Whether an upstream has to answer, too.
    pub deep: bool,
}

/// Reads the arguments of `health`, which knows two flags.
pub(super) fn health(mut args: Arguments, host: Host) -> Result<Command, UsageError> {
    let mut deep = false;
    while args.contains(DEEP) {
        deep = true;
    }
    let mut options = Options::new(host);
    for given in given::of_arguments(args.finish())? {
        if given.flag.long() != "--listen" {
            return Err(UsageError(format!(
                "{}: changes nothing for health, which takes --listen and {DEEP}; leave it out",
                given.name
            )));
        }
        (given.value.set)(&mut options, &given.text).map_err(|problem| given.error(&problem))?;
    }
    Ok(Command::Health(Health { listen: options.listen, deep }))
}

/// The addresses at which a program that was started with these arguments serves; `None` if it does not serve.
pub fn listeners(args: Vec<OsString>, host: Host) -> Result<Option<Vec<SocketAddr>>, UsageError> {
    match super::parse(args, host)? {
        Command::Run(config) => Ok(Some(config.listen)),
        _ => Ok(None),
    }
}

/// The words of all subcommands.
pub(super) fn words() -> impl Iterator<Item = &'static str> {
    WORDS.iter().map(|(word, _)| *word)
}

const WORDS: [(&str, Subcommand); 5] = [
    ("check", Subcommand::Check),
    ("check-config", Subcommand::CheckConfig),
    ("health", Subcommand::Health),
    ("help", Subcommand::Help),
    ("version", Subcommand::Version),
];

/// Without a place in the table of flags, as only a subcommand knows it, as the next one.
const DEEP: &str = "--deep";

pub(super) const JSON: &str = "--json";

/// What `--help` says of them.
pub(super) const USAGE: &str = "\
Usage: dot-proxy [OPTION]...
       dot-proxy check [OPTION]... [--json]
       dot-proxy check-config [OPTION]...
       dot-proxy health [--listen ADDR[:PORT]] [--deep]

check connects to each upstream of these options, asks it, and says what it
found, or what failed and what to do; the exit code is 0 if all are usable, and
1 if not. It serves nobody. --json is for scripts.
check-config says whether these options and their file are right, and what they
come to.
health asks the program that runs here whether it answers, and with --deep
whether its upstreams do; the exit code is 0 if so, and 1 if not.";
