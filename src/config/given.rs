//! Flags as they were given, in a configuration file and on the command line.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::Path;
use std::rc::Rc;

use pico_args::Arguments;

use super::address::with_interface_indexes;
use super::flags::{self, CONFIG, Flag, Value};
use super::options::Options;
use super::suggest::{self, shown};
use super::upstream::{self, UpstreamSpec};
use super::{Config, Host, UsageError, file};

/// A flag with its value.
pub(super) struct Given {
    /// The line of the file; `None`: the command line.
    pub(super) place: Option<Place>,
    /// The name that was used, of those of the flag.
    pub(super) name: &'static str,
    pub(super) flag: &'static Flag,
    pub(super) value: &'static Value,
    pub(super) text: String,
}

impl Given {
    /// `problem` with what it is about.
    pub(super) fn error(&self, problem: &str) -> UsageError {
        let text = shown(&self.text);
        UsageError::new(match &self.place {
            Some(place) => {
                let problem = suggest::without_dashes(problem);
                format!("{place}: {} {text}: {problem}", self.bare_name())
            }
            None => format!("{} {text}: {problem}", self.name),
        })
    }

    /// The name in a file.
    fn bare_name(&self) -> &'static str {
        self.flag.long().trim_start_matches('-')
    }

    fn is_of(&self, flag: &Flag) -> bool {
        self.flag.long() == flag.long()
    }

    /// Whether this is what an error is about, of which the beginning is that of a command line: the flag and
    /// its value, or an upstream that its value stands for.
    fn is_named_by(&self, error: &str, host: Host) -> bool {
        let rest = error.strip_prefix(self.flag.long()).and_then(|rest| rest.strip_prefix(' '));
        let Some(rest) = rest else { return false };
        let is = |value: &str| rest.strip_prefix(value).is_some_and(|rest| rest.starts_with(':'));
        if !self.value.is_upstream() {
            return is(&self.text) || is(&shown(&self.text));
        }
        let text = with_interface_indexes(&self.text, host.interface_index);
        let mut upstreams = upstream::read(&text).into_iter().flatten();
        upstreams.any(|upstream| is(&upstream.to_string()))
    }
}

/// A line of a file.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) file: Rc<str>,
    /// The first is 1.
    pub(super) line: u32,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// The flags of a command line, in its order. None of those without a value is among them. A value that belongs to no flag
/// is likely for the one before it, if that may be given again, or for `likely`.
pub(super) fn of_arguments(args: Vec<OsString>, likely: &str) -> Result<Vec<Given>, UsageError> {
    let mut all: Vec<Given> = Vec::new();
    let mut rest = args.into_iter().peekable();
    while let Some(arg) = rest.next() {
        // pico-args looks through all arguments for one spelling of a flag after the other, which
        // would lose the order of upstreams; so it is shown one flag and its value at a time.
        let behind = || {
            let mut words = rest.clone().take_while(|next| !is_like_a_flag(next));
            let mut value = words.next()?.to_string_lossy().into_owned();
            // Other programs have a word behind a network that says what becomes of it.
            let verb = words.next().map(|word| word.to_string_lossy().into_owned());
            if let Some(verb) = verb.filter(|word| suggest::verb(word).is_some()) {
                value = format!("{value} {verb}");
            }
            Some(value)
        };
        let before = all.last().filter(|given| given.value.is_repeatable);
        let likely: Vec<_> =
            before.map(|given| given.flag.long()).into_iter().chain([likely]).collect();
        let (name, flag, value) = flags::of_argument(&arg.to_string_lossy(), behind, &likely)?;
        let mut pair = vec![arg];
        if pair[0] == *name {
            pair.extend(rest.next_if(|next| !is_like_a_flag(next)));
        }
        let problem = match Arguments::from_vec(pair).value_from_str::<_, String>(name) {
            Ok(text) if !text.is_empty() => {
                let given = Given { place: None, name, flag, value, text };
                if !value.is_repeatable && all.iter().any(|other| other.is_of(flag)) {
                    return Err(given.error("is given twice; give this flag once"));
                }
                all.push(given);
                continue;
            }
            Err(pico_args::Error::NonUtf8Argument | pico_args::Error::MissingOption(_)) => {
                "is not UTF-8"
            }
            // Nothing is read twice from there.
            Ok(_) | Err(_) if value.is_file() && rest.peek().is_some_and(|next| next == "-") => {
                return Err(UsageError::new(format!(
                    "{name} -: nothing is read from standard input; write it to a file and give its name"
                )));
            }
            Ok(_) | Err(_) => "is missing",
        };
        return Err(UsageError::new(format!(
            "{name}: the value {problem}; give {}",
            value.words()
        )));
    }
    Ok(all)
}

/// What is wrong with flags, the first line of the file first, and what the others come to, if they go together.
pub(super) struct Wrong {
    pub(super) errors: Vec<UsageError>,
    pub(super) rest: Option<Box<Config>>,
}

impl From<UsageError> for Wrong {
    fn from(error: UsageError) -> Self {
        Self { errors: vec![error], rest: None }
    }
}

/// What a command line comes to, with the file that it names.
pub(super) fn resolve(args: &[Given], host: Host) -> Result<Config, Wrong> {
    let path = args.iter().find(|given| given.is_of(&CONFIG)).map(|given| given.text.clone());
    let of_file = path.map(|path| file::read(path.as_ref())).transpose()?;
    let (of_file, mut errors) = of_file.unwrap_or_default();
    let mut options = Options::new(host);
    let mut lines = String::new();
    let overridden =
        |given: &Given| !given.value.is_repeatable && args.iter().any(|it| it.is_of(given.flag));
    // Those of the file are looked at although others take their place: a file is right or not by itself.
    for given in &of_file {
        let lines = if overridden(given) { None } else { Some(&mut lines) };
        errors.extend(add(given, &mut options, lines).err());
    }
    options.upstreams_of_file = options.upstreams.len();
    for given in args {
        let lines = if given.is_of(&CONFIG) { None } else { Some(&mut lines) };
        errors.extend(add(given, &mut options, lines).err());
    }
    if !errors.is_empty() {
        errors.sort_by_key(|error| line_of(&error.to_string(), options.file.as_deref()));
        return Err(Wrong { errors, rest: options.into_config().ok().map(Box::new) });
    }
    let config = options.into_config().map_err(|error| with_place(error, &of_file, args, host))?;
    let mut warnings = config.warnings;
    if let Some(file) = config.file.as_deref().filter(|_| of_file.is_empty()) {
        let file = shown_path(file);
        warnings.push(format!(
            "{} {file}: has no flags in it, so nothing but the defaults",
            CONFIG.long()
        ));
    }
    Ok(Config { flags_of_file: of_file.len(), flags: lines.into(), warnings, ..config })
}

/// The line of `file` that an error is about; behind all lines if it is about none.
pub(super) fn line_of(error: &str, file: Option<&Path>) -> u32 {
    let line = || {
        let rest = error.strip_prefix(&shown_path(file?))?.strip_prefix(':')?;
        rest.split(':').next()?.parse().ok()
    };
    line().unwrap_or(u32::MAX)
}

fn shown_path(path: &Path) -> String {
    shown(&path.to_string_lossy())
}

/// Takes a flag, and adds the lines for it that are not there yet.
fn add(given: &Given, options: &mut Options, lines: Option<&mut String>) -> Result<(), UsageError> {
    let before = options.upstreams.len();
    (given.value.set)(options, &given.text).map_err(|problem| given.error(&problem))?;
    let Some(lines) = lines else { return Ok(()) };
    let mut push = |text: &str| {
        if text.trim() != text || text.contains(char::is_control) {
            return Err(given.error("cannot be written in a file, as it has more than one line"));
        }
        if file::unquoted(text) != text {
            return Err(given.error("has quotes around it; leave them out"));
        }
        let equals = if text.starts_with('=') || text.starts_with(": ") { "=" } else { "" };
        let line = format!("{} {equals}{text}", given.bare_name());
        if !lines.lines().any(|other| other == line) {
            // Not doubled, as the length of a file is what bounds it.
            if lines.capacity() < lines.len() + line.len() + 1 {
                lines.reserve_exact(line.len() + LINES_ROOM);
            }
            *lines += &line;
            lines.push('\n');
        }
        Ok(())
    };
    if given.value.is_upstream() {
        // A preset may have one that is there already.
        let added = options.upstreams[before..].iter().map(UpstreamSpec::written);
        added.into_iter().try_for_each(|text| push(&text))
    } else {
        push(&given.text)
    }
}

/// An error about flags that do not go together, with the line of the file that it is about, if it is about one.
fn with_place(error: UsageError, of_file: &[Given], args: &[Given], host: Host) -> UsageError {
    let text = error.to_string();
    if args.iter().any(|given| given.is_named_by(&text, host)) {
        return error;
    }
    match of_file.iter().find(|given| given.is_named_by(&text, host)) {
        Some(Given { place: Some(place), .. }) => {
            UsageError::new(format!("{place}: {}", suggest::without_dashes(&text)))
        }
        _ => error,
    }
}

/// An error about a file that a flag names, with the line of the configuration that has it, if one has.
pub(super) fn placed(file: Option<&Path>, error: String) -> String {
    let (of_file, _) = file.and_then(|file| file::read(file).ok()).unwrap_or_default();
    with_place(UsageError::new(error), &of_file, &[], Host::default()).to_string()
}

/// Octets of lines for which room is made at a time.
const LINES_ROOM: usize = 1024;

/// Whether this is no value: `-x`, but not `-1`, which is a bad one.
pub(super) fn is_like_a_flag(arg: &OsStr) -> bool {
    match arg.as_encoded_bytes() {
        [b'-', second, ..] => !second.is_ascii_digit(),
        [b'-'] => true,
        _ => false,
    }
}
