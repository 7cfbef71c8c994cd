//! The command line and the file that it names, turned into a checked [`Config`].
//!
//! `flags` has the table of all flags, `file` reads them from a file, and `given` puts those of the file and of
//! the command line together; `subcommand` has the words in front of them. Their values are read by `options`, with
//! every default and its reason, and by `address`, `choice`, `numbers`, `served`, `upstream` with `presets`, `zone`,
//! `user` and `sizes`; `resolved` has what they come to; what was likely meant by another form than theirs,
//! `suggest` knows.

mod address;
mod choice;
mod file;
mod flags;
mod given;
mod numbers;
mod options;
mod presets;
mod resolved;
mod served;
mod sizes;
mod subcommand;
mod suggest;
mod upstream;
mod usage;
mod user;
mod zone;

use std::error::Error;
use std::ffi::OsString;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use log::LevelFilter;
use pico_args::Arguments;

use crate::forwarder::{Limits, Policy};
use crate::host::log_format::LogFormat;
use crate::host::network::source::Source;
use crate::host::rights::Ids;
use crate::host::sandbox::Sandbox;
use crate::tls::{Files, KeyExchange};
use flags::{Flag, HELP, PRINT_LIMITS, VERSION};
use given::Wrong;
pub use options::LISTEN_DEFAULT;
pub use sizes::{QUERIES_MAX, Size, SocketLimits};
use subcommand::Subcommand;
pub use subcommand::{Health, Started, started};
pub use upstream::{UPSTREAM_PORT, UpstreamSpec};
pub use usage::{defaults, usage};

/// What the command line asks for.
#[derive(Clone, Debug)]
pub enum Command {
    /// Try each upstream, and say how it is in words or in JSON.
    Check(Box<Config>, Form),
    /// Say whether that could be started, and print [`Config::flags`], a file of configuration.
    CheckConfig(Box<Config>),
    /// Say what is wrong with flags, and with the files that the others name.
    CheckWrongConfig(Box<Config>, UsageError),
    /// Ask the program that runs here whether it answers.
    Health(Health),
    /// Print [`usage()`], or what there is to know of a subcommand.
    Help(String),
    /// Print how much memory that takes at most.
    PrintLimits(Box<Config>),
    /// Forward queries.
    Run(Box<Config>),
    /// Print the version.
    Version,
}

/// The form of what is found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// For people.
    Words,
    /// For scripts.
    Json,
}

/// Everything the program is told when it starts.
#[derive(Clone, Debug)]
pub struct Config {
    /// The file that more flags were read from.
    pub file: Option<PathBuf>,
    /// How many flags it has.
    pub flags_of_file: usize,
    /// All flags that were given, as they are written in a file.
    pub flags: Rc<str>,
    /// Where sockets are bound for clients, UDP and TCP each; at least one, unless some were handed over. Port 0:
    /// any one port for both.
    pub listen: Vec<SocketAddr>,
    /// The addresses of sockets that were handed over.
    pub inherited: &'static [SocketAddr],
    /// Whether other processes may listen there, too.
    pub reuse_port: bool,
    /// Whether clients, and metrics, may be served at addresses that the host does not have yet.
    pub freebind: bool,
    /// Where metrics are served, if they are.
    pub metrics: Option<SocketAddr>,
    /// How long service goes on after SIGTERM.
    pub drain: Duration,
    /// The upstreams that are asked, in order of preference; at least one, no two alike.
    pub upstreams: Vec<UpstreamSpec>,
    /// Where connections to them leave from.
    pub upstream_source: Source,
    /// The files by which upstreams and this program know each other.
    pub files: Files,
    /// The key exchanges that are offered to upstreams.
    pub key_exchange: KeyExchange,
    /// Who the process becomes once everything is open; `None`: nobody if it was started as root, otherwise
    /// whoever started it.
    pub user: Option<Ids>,
    /// Whether the process takes from itself what serving does not need.
    pub sandbox: Sandbox,
    /// The least severe log record that is written.
    pub log_level: LevelFilter,
    /// How log records are written.
    pub log_format: LogFormat,
    /// How upstreams are chosen, and what is answered here.
    pub policy: Policy,
    /// What was surely meant otherwise, although it can be done: a line each.
    pub warnings: Vec<String>,
    /// The set of limits that [`Self::limits`] and [`Self::sockets`] come from.
    pub size: Size,
    /// The bounds of the forwarder.
    pub limits: Limits,
    /// The bounds of its sockets.
    pub sockets: SocketLimits,
}

impl Config {
    /// Every address that clients are served at: those that were handed over, then those that are bound.
    pub fn listeners(&self) -> impl ExactSizeIterator<Item = SocketAddr> + '_ {
        let (inherited, own) = (self.inherited, &self.listen);
        (0..inherited.len() + own.len())
            .map(move |i| inherited.get(i).copied().unwrap_or_else(|| own[i - inherited.len()]))
    }

    /// An error about a file that a flag names, with the line of [`Self::file`] that has it, if one has.
    pub fn placed(&self, error: String) -> String {
        given::placed(self.file.as_deref(), error)
    }

    /// Errors in the order of the lines of [`Self::file`] that they are about.
    pub fn in_order(&self, mut errors: Vec<String>) -> Vec<String> {
        errors.sort_by_key(|error| given::line_of(error, self.file.as_deref()));
        errors
    }

    /// Octets that are taken at most while a configuration file is read, and by what it comes to.
    pub const READ_OCTETS: usize = file::READ_OCTETS;
}

/// What the command line is read with: the default is a host of which nothing is known.
#[derive(Clone, Copy, Debug)]
pub struct Host {
    /// The index of the interface of a name, if there is one.
    pub interface_index: fn(&str) -> Option<u32>,
    /// The user of a name, if there is one.
    pub user: fn(&str) -> Option<Ids>,
    /// The group of a name, if there is one.
    pub group: fn(&str) -> Option<u32>,
    /// Whether somebody reads stderr as it is written.
    pub is_stderr_terminal: bool,
    /// Whether what is written to a terminal may have colours.
    pub takes_colour: bool,
    /// Whether stderr is systemd's journal.
    pub is_stderr_journal: bool,
    /// The addresses of sockets that were handed over.
    pub inherited: &'static [SocketAddr],
}

impl Default for Host {
    fn default() -> Self {
        Self {
            interface_index: |_| None,
            user: |_| None,
            group: |_| None,
            is_stderr_terminal: false,
            takes_colour: false,
            is_stderr_journal: false,
            inherited: &[],
        }
    }
}

/// What is wrong with the command line, or a line of the file: one line that names the flag, what is wrong
/// with it and what would be right; one for each error that was found, where all were asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageError {
    text: String,
    /// No descriptor was left to read the file with.
    lacks_descriptor: bool,
}

impl UsageError {
    fn new(text: String) -> Self {
        Self { text, lacks_descriptor: false }
    }

    /// Whether no descriptor was left to read the file with: with a higher limit, all may be right.
    pub fn lacks_descriptor(&self) -> bool {
        self.lacks_descriptor
    }

    /// One error of all of these, a line each, up to as many as a person mends at a time.
    fn of_all(mut errors: Vec<Self>) -> Self {
        let more = errors.len().saturating_sub(file::ERRORS_MAX);
        errors.truncate(file::ERRORS_MAX);
        if more > 0 {
            errors.push(Self::new(format!("and {more} more")));
        }
        Self::new(errors.into_iter().map(|error| error.text).collect::<Vec<_>>().join("\n"))
    }
}

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Error for UsageError {}

/// Reads the arguments, without the program's own name.
///
/// A subcommand may stand in front of flags, or behind some. `--help` anywhere wins over everything else, then `--version`.
pub fn parse(mut args: Vec<OsString>, mut host: Host) -> Result<Command, UsageError> {
    let subcommand = Subcommand::take(&mut args);
    let mut args = Arguments::from_vec(args);
    if subcommand == Some(Subcommand::Help) || takes(&mut args, &HELP) {
        return Ok(Command::Help(subcommand::usage_of(subcommand).unwrap_or_else(usage)));
    }
    if subcommand == Some(Subcommand::Version) || takes(&mut args, &VERSION) {
        return Ok(Command::Version);
    }
    if subcommand == Some(Subcommand::Health) {
        return subcommand::health(args, host);
    }

    let mut form = Form::Words;
    while subcommand == Some(Subcommand::Check) && args.contains(subcommand::JSON) {
        form = Form::Json;
    }
    let mut prints_limits = false;
    while takes(&mut args, &PRINT_LIMITS) {
        prints_limits = true;
        // The limits are those of the program wherever it is started: its query log may be on.
        host.is_stderr_terminal = true;
    }
    let config = match given::resolve(&given::of_arguments(args.finish(), suggest::UPSTREAM)?, host)
    {
        Ok(config) => Box::new(config),
        Err(Wrong { errors, rest }) if subcommand == Some(Subcommand::CheckConfig) => {
            let error = UsageError::of_all(errors);
            return rest.map(|rest| Command::CheckWrongConfig(rest, error.clone())).ok_or(error);
        }
        Err(Wrong { mut errors, .. }) => return Err(errors.swap_remove(0)),
    };
    Ok(match subcommand {
        _ if prints_limits => Command::PrintLimits(config),
        Some(Subcommand::Check) => Command::Check(config, form),
        Some(Subcommand::CheckConfig) => Command::CheckConfig(config),
        _ => Command::Run(config),
    })
}

/// Takes a flag without a value out of the arguments, if it is there.
fn takes(args: &mut Arguments, flag: &Flag) -> bool {
    flag.names.iter().any(|name| args.contains(*name))
}

#[cfg(test)]
mod tests;
