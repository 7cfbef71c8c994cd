//! Subcommands: a word in front of the flags or behind them, for something else than serving.

use std::ffi::OsString;
use std::net::SocketAddr;

use pico_args::Arguments;

use super::given::is_like_a_flag;
use super::options::Options;
use super::{Command, Host, UsageError, flags, given};

/// A word that says what is done with the flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Subcommand {
    Check,
    CheckConfig,
    Health,
    Help,
    Version,
}

impl Subcommand {
    /// The subcommand of the arguments, taken out of them: the first that is neither a flag nor the value of one, since
    /// an image has flags of its own in front of those that a user gives.
    pub(super) fn take(args: &mut Vec<OsString>) -> Option<Self> {
        let mut at = 0;
        while let Some(flag) = args.get(at).filter(|arg| is_like_a_flag(arg)) {
            let known = flag.to_str().and_then(flags::find);
            let takes_value = known.is_some_and(|(_, flag)| flag.value.is_some());
            let has_value = takes_value && args.get(at + 1).is_some_and(|arg| !is_like_a_flag(arg));
            at += 1 + usize::from(has_value);
        }
        let (_, subcommand) =
            WORDS.iter().find(|(word, _)| args.get(at).is_some_and(|arg| arg == word))?;
        args.remove(at);
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
    for given in given::of_arguments(args.finish(), "--listen")? {
        if given.flag.long() != "--listen" {
            return Err(UsageError::new(format!(
                "{}: changes nothing for health, which takes --listen and {DEEP}; leave it out",
                given.name
            )));
        }
        (given.value.set)(&mut options, &given.text).map_err(|problem| given.error(&problem))?;
    }
    Ok(Command::Health(Health { listen: options.listen, deep }))
}

/// What a command line by itself says of where the program serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Started {
    /// Where clients are served, as far as the command line has it.
    pub listen: Vec<SocketAddr>,
    /// Whether other processes may listen there, too.
    pub reuse_port: bool,
    /// Where metrics are served.
    pub metrics: Option<SocketAddr>,
}

/// Reads the command line of a program that runs; `None` if that program does not serve. No file is read.
pub fn started(mut args: Vec<OsString>, host: Host) -> Option<Started> {
    if Subcommand::take(&mut args).is_some() {
        return None;
    }
    let mut options = Options::new(host);
    for given in given::of_arguments(args, "").ok()? {
        if ["--listen", "--reuse-port", "--metrics"].contains(&given.flag.long()) {
            // It may name an interface that is gone.
            (given.value.set)(&mut options, &given.text).ok();
        }
    }
    let Options { listen, reuse_port, metrics, .. } = options;
    Some(Started { listen, reuse_port, metrics })
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

/// A subcommand as `--help` has it: how it is called, and what it does.
const TEXTS: [(Subcommand, &str, &str); 3] = [
    (
        Subcommand::Check,
        "check [OPTION]... [--json]",
        "\
check connects to each upstream of these options, asks it, and says what it
found, or what failed and what to do; the exit code is 0 if all are usable, and
1 if not. It serves nobody. --json is for scripts.",
    ),
    (
        Subcommand::CheckConfig,
        "check-config [OPTION]...",
        "\
check-config says whether these options and their file are right, or all that is
wrong with them, and prints what they come to.",
    ),
    (
        Subcommand::Health,
        "health [--listen ADDR[:PORT]] [--deep]",
        "\
health asks the program that runs here whether it answers, and with --deep
whether its upstreams do; the exit code is 0 if so, and 1 if not.",
    ),
];

/// What `--help` says of them.
pub(super) fn usage() -> String {
    let mut text = "Usage: dot-proxy [OPTION]...\n".to_owned();
    text.extend(TEXTS.iter().map(|(_, call, _)| format!("       dot-proxy {call}\n")));
    text.extend(TEXTS.iter().map(|(.., words)| format!("\n{words}")));
    text
}

/// What `--help` says behind one of them.
pub(super) fn usage_of(subcommand: Option<Subcommand>) -> Option<String> {
    let (_, call, words) = TEXTS.iter().find(|(it, ..)| Some(*it) == subcommand)?;
    let options =
        if call.contains("OPTION") { "\n\ndot-proxy --help has the options." } else { "" };
    Some(format!("Usage: dot-proxy {call}\n\n{words}{options}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Form;
    use crate::config::tests::{assert_errors, parse_words};

    #[test]
    fn subcommands_know_their_flags() {
        let table = r"
            helth               => helth: stray argument; did you mean health?
            -u quad9 health     => -u: changes nothing for health, which takes --listen and --deep
            --healthcheck       => --healthcheck: unknown flag; to ask whether it answers, write dot-proxy health
            --deep              => --deep: unknown flag; it belongs to health, the first word behind dot-proxy
            health --upstream quad9 => --upstream: changes nothing for health, which takes --listen and --deep
            health --listen localhost => --listen localhost: localhost is not an IP address
            health 127.0.0.9:5399 => such as --listen 127.0.0.9:5399
            health quad9        => such as --listen 127.0.0.1
            health --deep=on    => --deep: unknown flag
            --json              => --json: unknown flag; it belongs to check, the first word behind dot-proxy
            --test              => --test: unknown flag; to try the upstreams, write dot-proxy check and the flags behind it
            check-config --json => --json: unknown flag; it belongs to check
            check --json=on     => --json: unknown flag; it belongs to check
            check --deep        => --deep: unknown flag; it belongs to health
            health check        => check: stray argument; give one subcommand
            --listen check      => --listen check: check is not an IP address
            --bogus x check     => --bogus: unknown flag
            google check        => google: stray argument";
        assert_errors("", table);
    }

    #[test]
    fn a_subcommand_may_stand_behind_flags_of_an_image() {
        for line in [
            "check -l 0.0.0.0 -u quad9 --json",
            "-l 0.0.0.0 check -u quad9 --json",
            "--listen=0.0.0.0 -u quad9 check --json",
            "--json -u quad9 -l 0.0.0.0 check",
        ] {
            let Ok(Command::Check(config, Form::Json)) = parse_words(line) else {
                panic!("{line}")
            };
            assert_eq!(config.upstreams.len(), 4, "{line}");
            assert!(config.listen[0].ip().is_unspecified(), "{line}");
        }
        for (line, listeners) in [("-l 0.0.0.0 health", 1), ("health -l ::1 -l ::2", 2)] {
            let Ok(Command::Health(health)) = parse_words(line) else { panic!("{line}") };
            assert_eq!(health.listen.len(), listeners, "{line}");
        }
        assert!(matches!(parse_words("-l 0.0.0.0 check-config"), Ok(Command::CheckConfig(_))));
        assert!(matches!(parse_words("-l 0.0.0.0 version"), Ok(Command::Version)));
        assert!(matches!(parse_words("--print-limits check-config"), Ok(Command::PrintLimits(_))));
    }

    #[test]
    fn check_takes_the_flags_of_a_run_and_asks_whom_a_run_would_ask() {
        let Ok(Command::Run(run)) = parse_words("") else { panic!("no arguments are fine") };
        for (line, expected) in [
            ("check", Form::Words),
            ("check --json", Form::Json),
            ("check --json --listen 192.0.2.1 --size small --json", Form::Json),
        ] {
            let Ok(Command::Check(config, form)) = parse_words(line) else { panic!("{line}") };
            assert_eq!((&config.upstreams, form), (&run.upstreams, expected), "{line}");
        }
    }
}
