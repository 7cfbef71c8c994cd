//! The text of `--help`, from the table of flags.

use std::fmt::Display;
use std::iter;

use super::Host;
use super::flags::{FLAGS, Flag, Form};
use super::numbers::{DRAIN_SECONDS, IDLE_SECONDS, TCP_CLIENTS, UDP_SIZES};
use super::options::{LISTEN_PORT, Options};
use super::presets::preset_names;
use super::sizes::{Size, UPSTREAMS_MAX};
use super::subcommand;
use super::zone::{PRIVATE_ZONE_EXAMPLE, ZONE_EXAMPLE};

impl Flag {
    /// The lines of `--help` about it.
    fn usage(&self) -> String {
        let help = filled_in(self.help);
        let default = (self.default)(&Options::new(Host::default()));
        let text = if default.is_empty() {
            help
        } else {
            format!("{help} [default:{NO_BREAK}{}]", default.replace(' ', NO_BREAK))
        };
        let names = self.names.join(", ");
        let head = match self.value.as_ref().map(|value| &value.form) {
            Some(Form::Named(name, _)) => format!("  {names} {name}"),
            Some(Form::OneOf(words)) => format!("  {names} {}", words().join("|")),
            None => format!("  {names}"),
        };
        let mut lines = wrap(&text, HELP_WIDTH);
        if head.len() + 2 > HELP_COLUMN {
            lines.insert(0, String::new());
        }
        let heads = iter::once(&*head).chain(iter::repeat(""));
        let lines = heads.zip(lines).map(|(head, line)| {
            let line = line.replace(NO_BREAK, " ");
            format!("{head:HELP_COLUMN$}{line}").trim_end().to_owned()
        });
        lines.collect::<Vec<_>>().join("\n")
    }
}

/// What holds if no flag is given, as comments of a configuration file.
pub fn defaults() -> String {
    let options = Options::new(Host::default());
    let defaults = FLAGS.iter().filter(|flag| flag.value.is_some());
    let lines =
        defaults.map(|flag| (flag.long().trim_start_matches('-'), (flag.default)(&options)));
    let lines = lines.filter(|(_, default)| !default.is_empty());
    lines.map(|(name, default)| format!("# {name} {default}\n")).collect::<Vec<_>>().concat()
}

/// The text of `--help`.
pub fn usage() -> String {
    let flags = FLAGS.iter().map(Flag::usage).collect::<Vec<_>>().join("\n");
    format!(
        "Forwards plain DNS (UDP and TCP) to an authenticated DNS-over-TLS resolver.\n\n\
         {}\n\n{flags}\n",
        subcommand::usage()
    )
}

/// The words of `text` in lines of at most `width` characters, if no word is longer.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = String::new();
    for word in text.split(' ') {
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > width {
            lines.push(std::mem::take(&mut line));
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    lines.push(line);
    lines
}

/// `text` with what is meant in place of what is in braces.
fn filled_in(text: &str) -> String {
    let range = |least: &dyn Display, most: &dyn Display| format!("{least} to {most}");
    text.replace("{port}", &LISTEN_PORT.to_string())
        .replace("{presets}", &preset_names())
        .replace("{zone}", ZONE_EXAMPLE)
        .replace("{private}", PRIVATE_ZONE_EXAMPLE)
        .replace("{drain}", &range(DRAIN_SECONDS.start(), DRAIN_SECONDS.end()))
        .replace("{seconds}", &range(IDLE_SECONDS.start(), IDLE_SECONDS.end()))
        .replace("{octets}", &range(UDP_SIZES.start(), UDP_SIZES.end()))
        .replace("{clients}", &range(TCP_CLIENTS.start(), TCP_CLIENTS.end()))
        .replace("{upstreams}", &Size::Small.of(UPSTREAMS_MAX).to_string())
}

/// Where help begins in a line, and how wide it is: lines fit in a terminal of 80 columns.
const HELP_COLUMN: usize = 28;
const HELP_WIDTH: usize = 80 - HELP_COLUMN;

/// Stands for a space at which no line ends.
const NO_BREAK: &str = "\u{a0}";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::presets::PRESETS;

    #[test]
    fn usage_fits_in_a_terminal() {
        let usage = usage();
        for word in PRESETS.iter().map(|preset| preset.word).chain(FLAGS.iter().map(Flag::long)) {
            assert!(usage.contains(word), "{word}");
        }
        for line in usage.lines() {
            assert!(line.chars().count() <= 80, "{line}");
        }
    }
}
