//! The command: read the command line, log, bind, run.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{self, ExitCode};
use std::sync::{Mutex, PoisonError};

use dot_proxy::commands::check_config;
use dot_proxy::commands::{check, health};
use dot_proxy::config::{self, Command, Config, Form, Host};
use dot_proxy::host::inherited::{self, Pair};
use dot_proxy::host::log_format::{self, LogFormat};
use dot_proxy::host::network::interfaces;
use dot_proxy::host::notify::Manager;
use dot_proxy::host::rights::{self, Ids};
use dot_proxy::host::sandbox;
use dot_proxy::host::signals;
use dot_proxy::host::stderr::{GuardedLogger, Stderr};
use dot_proxy::memory::Bound;
use dot_proxy::shell::reactor::{Given, Reactor};
use dot_proxy::shell::reload::Source;
use dot_proxy::shell::start::{self, Served};
use dot_proxy::shell::{self, ProcessBound};
use log::LevelFilter;
use rustix::time::{ClockId, clock_gettime};
use simple_logger::SimpleLogger;

fn main() -> ExitCode {
    // Not known to fail; and then the signals do what they did before there was a program.
    signals::block_harmless().ok();
    let mut stderr = Stderr::new();
    stderr.report_panics();
    let stream = std::env::var("JOURNAL_STREAM").ok();
    let is_stderr_journal = log_format::is_journal(stream.as_deref(), io::stderr());
    if is_stderr_journal {
        stderr.set_format(LogFormat::Journald);
    }
    let sockets = inherited::take();
    let addresses = sockets.iter().flatten().map(|pair| pair.address).collect::<Vec<_>>();
    let host = Host {
        interface_index: |name| remembered(&INTERFACES, name, interfaces::index),
        user: |name| remembered(&USERS, name, Ids::find),
        group: |name| remembered(&GROUPS, name, Ids::find_group),
        is_stderr_terminal: io::stderr().is_terminal(),
        takes_colour: takes_colour(|name| std::env::var_os(name)),
        is_stderr_journal,
        // They are known as long as the program runs.
        inherited: addresses.leak(),
    };
    let result = match config::parse(std::env::args_os().skip(1).collect(), host) {
        Ok(Command::Health(asked)) => health::run(&asked, host)
            .map_err(Failure::Runtime)
            .and_then(|line| print(&format!("{line}\n"))),
        Ok(Command::Help(text)) => print(&text),
        Ok(Command::Check(config, form)) => check(&config, form),
        Ok(Command::CheckConfig(config)) => check_config(&config, &mut stderr),
        Ok(Command::CheckWrongConfig(config, error)) => {
            let mut problems: Vec<_> = error.to_string().lines().map(String::from).collect();
            problems.extend(shell::file_problems(&config));
            Err(Failure::Usage(config.in_order(problems).join("\n")))
        }
        Ok(Command::PrintLimits(config)) => {
            print(&Bound::of(&config, program_octets()).to_string())
        }
        Ok(Command::Run(config)) => sockets
            .map_err(Failure::Usage)
            .and_then(|sockets| run(&config, host, stderr.clone(), sockets)),
        Ok(Command::Version) => {
            print(concat!(env!("CARGO_PKG_NAME"), " ", env!("CARGO_PKG_VERSION"), "\n"))
        }
        // With a higher limit, it may be right.
        Err(error) if error.lacks_descriptor() => Err(Failure::Runtime(error.to_string())),
        Err(error) => Err(Failure::Usage(error.to_string())),
    };
    match result {
        Ok(()) => {
            stderr.finish();
            ExitCode::SUCCESS
        }
        Err(failure) => {
            stderr.write_failure(&failure.to_string());
            stderr.finish();
            failure.into()
        }
    }
}

fn run(config: &Config, host: Host, stderr: Stderr, sockets: Vec<Pair>) -> Result<(), Failure> {
    start(config, host, stderr, sockets)?.run().map_err(Failure::Runtime)
}

/// Tries the upstreams and says how they are.
fn check(config: &Config, form: Form) -> Result<(), Failure> {
    let connectors = shell::connectors(config).map_err(Failure::Usage)?;
    // What comes next reads what anybody may have sent. Without a log, nothing is said of rights that are kept.
    rights::give_up(config.user).ok();
    check::run(config, connectors, form, print)?
        .map_or(Ok(()), |summary| Err(Failure::Runtime(summary)))
}

/// Says what a start would say of files and flags, and prints the flags.
fn check_config(config: &Config, stderr: &mut Stderr) -> Result<(), Failure> {
    let problems = shell::file_problems(config);
    if !problems.is_empty() {
        return Err(Failure::Usage(problems.join("\n")));
    }
    let missing = check_config::missing_addresses(config);
    if !missing.is_empty() && !config.freebind {
        return Err(Failure::Runtime(missing.join("\n")));
    }
    let of_source = config.upstream_source.missing().into_iter().map(|it| config.placed(it));
    let warnings = config.warnings.iter().cloned();
    for warning in &warnings.chain(missing).chain(of_source).collect::<Vec<_>>() {
        stderr.write_remark(warning);
    }
    let defaults = if config.flags.is_empty() { config::defaults() } else { String::new() };
    print(&format!("{}{defaults}", config.flags))?;
    // As the start does, and nothing is done behind it here. Without a log, nothing is said of it.
    rights::give_up(config.user).ok();
    for file in named_files(config).filter(|file| !rights::may_read(file)) {
        stderr.write_remark(&not_read_again(file));
    }
    let what =
        config.file.as_ref().map_or("the command line".into(), |file| file.to_string_lossy());
    stderr.write_remark(&format!("{what} is right"));
    Ok(())
}

/// The files that are read at the start and by a reload.
fn named_files(config: &Config) -> impl Iterator<Item = &Path> {
    let client = config.files.client.iter().flat_map(|(certificate, key)| [certificate, key]);
    config.file.iter().chain(&config.files.roots).chain(client).map(PathBuf::as_path)
}

fn not_read_again(file: &Path) -> String {
    format!(
        "{}: SIGHUP will not read it again: only whoever started this program may, and not the user that it becomes",
        file.display()
    )
}

/// Starts to listen, and gives up what only that needs. What the start needs of the stack is free again for handshakes, which need most of it.
#[inline(never)]
fn start(
    config: &Config,
    host: Host,
    mut stderr: Stderr,
    sockets: Vec<Pair>,
) -> Result<Box<Reactor>, Failure> {
    stderr.set_format(config.log_format);
    let logger = SimpleLogger::new().with_level(LevelFilter::Trace);
    log::set_boxed_logger(Box::new(GuardedLogger::new(logger, stderr.clone())))
        .map_err(|error| Failure::Runtime(error.to_string()))?;
    log::set_max_level(config.log_level);

    let (manager, unreached) = Manager::find();
    let given = Given { stderr: stderr.clone(), sockets, manager };
    let mut reactor = Reactor::bind(config, given).map_err(|error| {
        // A file that is wrong remains so, too.
        if shell::file_problems(config).contains(&error) {
            Failure::Usage(error)
        } else {
            Failure::Runtime(error)
        }
    })?;
    // A start that fails says why, and nothing else.
    let missing = config.upstream_source.missing();
    for warning in unreached.iter().chain(&config.warnings).chain(&missing) {
        log::warn!("{warning}");
    }
    if config.metrics.is_some() {
        let of = |config: &Config, program| Bound::of(config, program).process_sum();
        reactor.start_metrics(ProcessBound { of, program: program_octets() }, config);
    }
    // Serving goes on if nobody reads stdout, and begins if it was full already.
    let stdout = Stderr::stdout();
    // In the sandbox no file says whether it is one.
    let is_stdout_terminal = io::stdout().is_terminal();
    // The first reading finds where the kernel has its clocks in memory, by a file that the sandbox hides. Each
    // reading would be a system call otherwise.
    let _found = clock_gettime(ClockId::Monotonic);
    let source = Source { args: std::env::args_os().skip(1).collect(), host };
    let files = reactor.reload_from(source);
    // The first process is that of a container: whoever reads this is on another host.
    let own = if process::id() == 1 { interfaces::own_address() } else { None };
    // Everything is open now.
    rights::give_up(config.user).map_err(Failure::Runtime)?;
    for file in files.iter().filter(|file| !rights::may_read(file)) {
        log::warn!("{}", not_read_again(file));
    }
    let ports = config.upstreams.iter().map(|upstream| upstream.address.port());
    let files: Vec<_> = files.iter().map(PathBuf::as_path).collect();
    let binds = config.upstream_source.has_address();
    let confined =
        sandbox::enter(config.sandbox, ports, binds, &files).map_err(Failure::Runtime)?;
    reactor.note_confined(confined);
    let stdout = Some(stdout).filter(|_| !(is_stdout_terminal && is_for_person(config, host)));
    announce(config, host, &reactor.served(), own, stderr, stdout);
    Ok(reactor)
}

/// Whether stderr is read by a person who wants to know what happens.
fn is_for_person(config: &Config, host: Host) -> bool {
    host.is_stderr_terminal
        && config.log_format == LogFormat::Plain
        && config.log_level >= LevelFilter::Info
}

/// Says where clients are served: to a person at a terminal in plain words, to all others in lines that do not change,
/// also on stdout.
#[cold]
fn announce(
    config: &Config,
    host: Host,
    served: &Served,
    own: Option<IpAddr>,
    mut stderr: Stderr,
    stdout: Option<Stderr>,
) {
    if is_for_person(config, host) {
        stderr.write_lines(start::block(config, served, own, host.takes_colour).as_bytes());
    } else {
        start::log_start(config, served);
    }
    let Some(mut stdout) = stdout else { return };
    for address in &served.clients {
        stdout.write_lines(format!("listening {address} udp tcp\n").as_bytes());
    }
    if let Some(address) = served.metrics {
        stdout.write_lines(format!("metrics {address} tcp\n").as_bytes());
    }
    stdout.finish();
}

/// Whether a terminal may be sent colours, as the environment says: <https://no-color.org>.
fn takes_colour(variable: impl Fn(&str) -> Option<OsString>) -> bool {
    let is_set = variable("NO_COLOR").is_some_and(|value| !value.is_empty());
    !is_set && variable("TERM").is_some_and(|term| term != "dumb")
}

/// What was found by name at the start, as inside the sandbox nothing is found when the flags are read again.
fn remembered<T: Copy>(
    known: &Mutex<BTreeMap<String, T>>,
    name: &str,
    find: fn(&str) -> Option<T>,
) -> Option<T> {
    let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(found) = known.get(name) {
        return Some(*found);
    }
    let found = find(name)?;
    known.insert(name.to_owned(), found);
    Some(found)
}

static INTERFACES: Mutex<BTreeMap<String, u32>> = Mutex::new(BTreeMap::new());
static USERS: Mutex<BTreeMap<String, Ids>> = Mutex::new(BTreeMap::new());
static GROUPS: Mutex<BTreeMap<String, u32>> = Mutex::new(BTreeMap::new());

/// What of this process is not heap or stack: the program and the libraries that it was linked with, their
/// variables, which lie in copies of their pages, and memory of no name.
fn program_octets() -> usize {
    let maps = std::fs::read_to_string("/proc/self/smaps").unwrap_or_default();
    let mut sum = 0;
    // Whether the lines that follow are about a file's memory, or about nobody's.
    let (mut of_file, mut of_nobody) = (false, false);
    for line in maps.lines() {
        let mut words = line.split_whitespace();
        let (first, second) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let kilobytes = || second.parse::<usize>().unwrap_or_default();
        match first {
            "Size:" if of_file || of_nobody => sum += kilobytes(),
            "Anonymous:" if of_file => sum += kilobytes(),
            // from-to permissions offset device inode path
            range if range.contains('-') => {
                let has_path = words.nth(3).is_some();
                of_file = line.contains(" /");
                of_nobody = !has_path;
            }
            _ => {}
        }
    }
    sum * 1024
}

/// Writes to stdout at once. A reader that has gone away is none of our trouble.
fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::Runtime(format!("cannot write to stdout: {error}")))
        }
        _ => Ok(()),
    }
}

/// Why the program ends, and so with which exit code.
#[derive(Debug)]
enum Failure {
    Runtime(String),
    /// What the program was started with is wrong, and remains so when it is started again.
    Usage(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Runtime(error) | Self::Usage(error)) = self;
        f.write_str(error)
    }
}

impl From<Failure> for ExitCode {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Runtime(_) => Self::from(1),
            Failure::Usage(_) => Self::from(2),
        }
    }
}
