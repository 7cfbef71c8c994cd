//! The configuration file: a line is a flag without its dashes, and its value.

use std::io::{self, Read};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use rustix::io::Errno;

use super::UsageError;
use super::flags::{self, CONFIG};
use super::given::{Given, Place};
use super::suggest::{self, shown};
use crate::host::file;
use crate::host::os_error::system_error;

/// The flags of a file, in its order, and what is wrong with lines of it.
pub(super) fn read(path: &Path) -> Result<(Vec<Given>, Vec<UsageError>), UsageError> {
    let octets = octets(path).map_err(|problem| {
        let flag = CONFIG.long();
        let text = format!("{flag} {}: {problem}", shown(&path.to_string_lossy()));
        UsageError { text, ..problem }
    })?;
    Ok(given(path, &octets))
}

/// What is in a file, or what is wrong with it.
fn octets(path: &Path) -> Result<Vec<u8>, UsageError> {
    let read = file::open(path).and_then(|(mut file, kind)| {
        if !kind.is_file() {
            let what = match kind {
                kind if kind.is_dir() => "a directory",
                kind if kind.is_fifo() => "a pipe",
                _ => "a device",
            };
            return Err(io::Error::other(format!("it is {what}; a file was expected")));
        }
        // Where it is as long as it says, it is allocated once.
        let len = file.metadata()?.len().min(OCTETS_MAX as u64) as usize;
        let mut octets = Vec::with_capacity(len);
        file.by_ref().take(OCTETS_MAX as u64 + 1).read_to_end(&mut octets)?;
        Ok(octets)
    });
    let octets = read.map_err(|error| {
        let remedy = match error.kind() {
            io::ErrorKind::PermissionDenied => file::NOT_PERMITTED,
            _ => "",
        };
        UsageError {
            text: format!("cannot be read: {}{remedy}", system_error(&error)),
            lacks_descriptor: error.raw_os_error() == Some(Errno::MFILE.raw_os_error()),
        }
    })?;
    if octets.len() > OCTETS_MAX {
        let text = "has more than 64 KiB; a file with a flag a line was expected".into();
        return Err(UsageError::new(text));
    }
    Ok(octets)
}

/// The flags in the lines of a file, and what is wrong with others.
fn given(path: &Path, octets: &[u8]) -> (Vec<Given>, Vec<UsageError>) {
    let octets = octets.strip_prefix(BYTE_ORDER_MARK).unwrap_or(octets);
    let path: std::rc::Rc<str> = shown(&path.to_string_lossy()).into();
    let lines = octets.split(|octet| *octet == b'\n').count();
    let mut all: Vec<Given> = Vec::with_capacity(lines.min(FLAGS_MAX + 1));
    let mut errors: Vec<UsageError> = Vec::new();
    for (number, line) in (1..).zip(octets.split(|octet| *octet == b'\n')) {
        let place = Place { file: path.clone(), line: number };
        match of_octets(line, &place, &all) {
            Ok(given) => all.extend(given),
            Err(error) => errors.push(error),
        }
        if all.len() > FLAGS_MAX {
            errors.push(UsageError::new(format!(
                "{place}: is one flag too many; give at most {FLAGS_MAX}"
            )));
        }
        // What is no configuration has an error in each line.
        if all.len() > FLAGS_MAX || errors.len() == ERRORS_MAX {
            break;
        }
    }
    (all, errors)
}

/// The flag of a line, if it has one; those of lines above it are known.
fn of_octets(line: &[u8], place: &Place, above: &[Given]) -> Result<Option<Given>, UsageError> {
    let refused = |problem: &str| UsageError::new(format!("{place}: {problem}"));
    let line = str::from_utf8(line).map_err(|_| refused("is not UTF-8"))?.trim();
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    if line.contains(|c: char| c.is_control() && c != '\t') {
        return Err(refused(&format!("{}: has a control character", shown(line))));
    }
    let given = of_line(line, place.clone()).map_err(|problem| refused(&problem))?;
    let is_same = |other: &&Given| {
        other.flag.long() == given.flag.long()
            && (!given.value.is_repeatable || other.text == given.text)
    };
    if let Some(other) = above.iter().find(is_same) {
        let line = other.place.as_ref().map_or(0, |place| place.line);
        let what = if given.value.is_repeatable { "value" } else { "flag" };
        return Err(
            given.error(&format!("is given twice, first in line {line}; give this {what} once"))
        );
    }
    Ok(Some(given))
}

/// The flag of a line that has one: `flag value`, `flag=value` or `flag: value`, with dashes or without.
fn of_line(line: &str, place: Place) -> Result<Given, String> {
    // Those of other programs have sections.
    let is_word =
        |text: &str| !text.contains(|c: char| !c.is_ascii_alphanumeric() && !"-_".contains(c));
    let section = line.strip_prefix('[').and_then(|line| line.strip_suffix(']'));
    if section.or(line.strip_suffix(':')).is_some_and(|name| !name.is_empty() && is_word(name)) {
        return Err(format!("{line}: is a heading, and a line here is a flag; leave it out"));
    }
    let is_end = |c: char| c.is_whitespace() || c == '=' || c == ':';
    let end = line.find(is_end).unwrap_or(line.len());
    let (typed, rest) = line.split_at(end);
    // Behind a blank a colon may be that of an address.
    let bare = rest.trim_start();
    let behind = rest.strip_prefix(':').or(bare.strip_prefix('=')).or(bare.strip_prefix(": "));
    let text = behind.unwrap_or(bare).trim_start();
    let typed_shown = shown(if typed.is_empty() { line } else { typed });
    let name = typed.trim_start_matches('-');
    let known = flags::find(&format!("--{name}")).or_else(|| flags::find(&format!("-{name}")));
    let Some((name, flag)) = known else {
        if line.starts_with(';') || line.starts_with("//") {
            return Err(format!("{typed_shown}: is no flag; comments begin with #"));
        }
        if let Some(remedy) = with_hyphens(name, text) {
            return Err(format!("{typed_shown}: unknown flag; write {remedy}"));
        }
        let value = Some(text).filter(|text| !text.is_empty());
        let remedy = suggest::flag(&format!("--{name}"), value);
        let remedy = remedy.as_deref().unwrap_or("--help lists the flags");
        return Err(format!("{typed_shown}: unknown flag; {}", suggest::without_dashes(remedy)));
    };
    let value = match &flag.value {
        Some(value) if flag.long() != CONFIG.long() => value,
        _ => return Err(format!("{typed_shown}: belongs on the command line; leave it out here")),
    };
    let text = unquoted(value.without_comment(text));
    if text.is_empty() {
        return Err(format!("{typed_shown}: the value is missing; give {}", value.words()));
    }
    Ok(Given { place: Some(place), name, flag, value, text: text.into() })
}

/// The line that was meant if the name of its flag was written with spaces.
fn with_hyphens(name: &str, text: &str) -> Option<String> {
    let mut name = name.to_owned();
    let mut rest = text;
    let mut meant = None;
    while let Some((word, behind)) = rest.split_once(char::is_whitespace) {
        name = format!("{name}-{word}");
        rest = behind.trim_start();
        if flags::find(&format!("--{name}")).is_some() {
            meant = Some(format!("{name} {}", shown(rest)));
        }
    }
    meant
}

/// What is between quotes that are around all of it, as other programs have them.
pub(super) fn unquoted(text: &str) -> &str {
    let within = |quote: char| text.strip_prefix(quote)?.strip_suffix(quote);
    let bare = within('"').or_else(|| within('\''));
    bare.filter(|bare| !bare.contains(['"', '\''])).unwrap_or(text)
}

/// Some editors write it before the first line.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// 1,000 networks take 40 KB.
const OCTETS_MAX: usize = 64 << 10;

/// More than may be given: 1,000 networks, 128 zones, 64 of other lists, and each other flag.
const FLAGS_MAX: usize = 1_300;

/// Errors that a person mends at a time.
pub(super) const ERRORS_MAX: usize = 20;

/// Octets of the flags of a file with what allocating them takes, their text, what is kept of the file that was read
/// before, and either this file or what is kept of it.
pub(super) const READ_OCTETS: usize = 3 * OCTETS_MAX + FLAGS_MAX * (size_of::<Given>() + 16);

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::path::PathBuf;
    use std::{env, fs, process};

    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;

    fn lines(text: &str) -> Vec<(u32, &'static str, String)> {
        let (given, errors) = given(Path::new("/x"), text.as_bytes());
        assert_eq!(errors, []);
        let line = |given: &Given| given.place.as_ref().unwrap().line;
        given.into_iter().map(|it| (line(&it), it.name, it.text)).collect()
    }

    #[test]
    fn what_is_printed_of_the_flags_is_read_as_it_was_given() {
        for text in ["/x", "=x", "= x", ":x", ": x", "x y", "x # y", "#x", "it's", "x\""] {
            let args = ["--upstream", "1.1.1.1#a", "--ca-file", text].map(Into::into);
            let command = crate::config::parse(args.into(), crate::config::Host::default());
            let Ok(crate::config::Command::Run(config)) = command else { panic!("{text}") };
            let read = lines(&config.flags);
            assert_eq!(read[1], (2, "--ca-file", text.to_owned()), "{}", config.flags);
        }
    }

    #[test]
    fn a_line_is_a_flag_and_the_rest_is_its_value() {
        for (text, expected) in [
            ("", None),
            ("# upstream quad9", None),
            ("   \t \r\n  #x\r\n", None),
            ("upstream quad9", Some((1, "--upstream", "quad9"))),
            ("\u{feff}upstream quad9\r\n", Some((1, "--upstream", "quad9"))),
            ("\n\n\tupstream\t  quad9\t\n", Some((3, "--upstream", "quad9"))),
            ("upstream=quad9", Some((1, "--upstream", "quad9"))),
            ("upstream = quad9", Some((1, "--upstream", "quad9"))),
            ("upstream: quad9", Some((1, "--upstream", "quad9"))),
            ("upstream:quad9", Some((1, "--upstream", "quad9"))),
            ("upstream : quad9", Some((1, "--upstream", "quad9"))),
            ("listen ::1", Some((1, "--listen", "::1"))),
            ("listen: ::1", Some((1, "--listen", "::1"))),
            ("listen=::1", Some((1, "--listen", "::1"))),
            ("--upstream quad9", Some((1, "--upstream", "quad9"))),
            ("u quad9", Some((1, "-u", "quad9"))),
            ("-u=quad9", Some((1, "-u", "quad9"))),
            ("upstream \"quad9\" # a preset", Some((1, "--upstream", "quad9"))),
            ("upstream '[::1]:853#a'", Some((1, "--upstream", "[::1]:853#a"))),
            ("ca-file \"/etc/my ca.pem\"", Some((1, "--ca-file", "/etc/my ca.pem"))),
            ("ca-file \"a\" \"b\"", Some((1, "--ca-file", "\"a\" \"b\""))),
            ("upstream 1.1.1.1#a.example", Some((1, "--upstream", "1.1.1.1#a.example"))),
            // A pin must not be taken for a comment.
            ("upstream 1.1.1.1 #sha256/x", Some((1, "--upstream", "1.1.1.1 #sha256/x"))),
            ("upstream 1.1.1.1#a # b # c", Some((1, "--upstream", "1.1.1.1#a"))),
            ("upstream 1.1.1.1#a #", Some((1, "--upstream", "1.1.1.1#a"))),
            ("upstream 1.1.1.1#a #b", Some((1, "--upstream", "1.1.1.1#a"))),
            ("upstream 1.1.1.1#a #sha256/x", Some((1, "--upstream", "1.1.1.1#a #sha256/x"))),
            ("listen 127.0.0.1 #home", Some((1, "--listen", "127.0.0.1"))),
            ("listen 127.0.0.1#53", Some((1, "--listen", "127.0.0.1#53"))),
            // It may be the name of a file.
            ("ca-file /etc/my # ca.pem", Some((1, "--ca-file", "/etc/my # ca.pem"))),
            ("ca-file ==x", Some((1, "--ca-file", "=x"))),
        ] {
            let expected = expected.map(|(line, name, text)| (line, name, text.to_owned()));
            assert_eq!(lines(text), Vec::from_iter(expected), "{text:?}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        for (text, expected) in [
            (&b"\n\nlisten 1\xff"[..], "/x:3: is not UTF-8"),
            (b"\xff\xfeu\0p\0", "/x:1: is not UTF-8"),
            (b"listen 1\x002", "/x:1: listen 1\\02: has a control character"),
            (
                b"listen ::1\rlog-level info",
                "/x:1: listen ::1\\rlog-level info: has a control char",
            ),
            (b"upstrem quad9", "/x:1: upstrem: unknown flag; did you mean upstream?"),
            (b"server=9.9.9.9", "/x:1: server: unknown flag; write upstream 9.9.9.9"),
            (b"server=1.1.1.1#53", "/x:1: server: unknown flag; write upstream 1.1.1.1#cloudflare"),
            (b"server:", "/x:1: server:: is a heading, and a line here is a flag; leave it out"),
            (b"forward-zone:", "/x:1: forward-zone:: is a heading"),
            (b"[Resolve]", "/x:1: [Resolve]: is a heading"),
            (
                b"listen_addresses = ['127.0.0.1:53']",
                "/x:1: listen_addresses: unknown flag; write listen 127.0.0.1:53",
            ),
            (
                b"tls_auth_name: \"x\"",
                "/x:1: tls_auth_name: unknown flag; the name stands behind the address: write upstream IP#x",
            ),
            (
                b"verbose",
                "/x:1: verbose: unknown flag; write log-level debug, and query-log on for",
            ),
            (b"=", "/x:1: =: unknown flag; --help lists the flags"),
            (b"; quad9", "/x:1: ;: is no flag; comments begin with #"),
            (b"// upstream quad9", "/x:1: //: is no flag; comments begin with #"),
            (b"ca file /etc/x.pem", "/x:1: ca: unknown flag; write ca-file /etc/x.pem"),
            (b"query log client off", "/x:1: query: unknown flag; write query-log-client off"),
            (b"::1", "/x:1: ::1: unknown flag; "),
            (b"help", "/x:1: help: belongs on the command line; leave it out here"),
            (b"version 1", "/x:1: version: belongs on the command line"),
            (b"print-limits", "/x:1: print-limits: belongs on the command line"),
            (b"config /y", "/x:1: config: belongs on the command line"),
            (b"upstream", "/x:1: upstream: the value is missing; give IP[:PORT]#NAME"),
            (b"upstream # quad9", "/x:1: upstream: the value is missing"),
            (
                b"log-level info\n\nlog-level warn",
                "/x:3: log-level warn: is given twice, first in line 1; give this flag once",
            ),
            (
                b"deny ::1\ndeny ::1",
                "/x:2: deny ::1: is given twice, first in line 1; give this value",
            ),
        ] {
            let (_, errors) = given(Path::new("/x"), text);
            let error = errors.first().map(UsageError::to_string).unwrap_or_default();
            assert!(error.starts_with(expected), "{error}\n  should say: {expected}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_of_each_line() {
        let (known, errors) = given(Path::new("/x"), b"upstrem a\nlisten ::1\n\xff\nhelp\n");
        let errors: Vec<_> = errors.iter().map(UsageError::to_string).collect();
        let expected = ["/x:1: upstrem: unknown flag", "/x:3: is not UTF-8", "/x:4: help: belongs"];
        assert_eq!(known.len(), 1);
        assert!(
            errors.iter().zip(expected).all(|(error, start)| error.starts_with(start)),
            "{errors:?}"
        );
        assert_eq!(errors.len(), expected.len());
    }

    #[test]
    fn what_is_no_configuration_is_not_read_to_its_end() {
        let (_, errors) = given(Path::new("/x"), "x\n".repeat(1_000).as_bytes());
        assert_eq!(errors.len(), ERRORS_MAX);
        let zones: Vec<_> = (0..2 * FLAGS_MAX).map(|n| format!("private-zone a{n}")).collect();
        let zones = zones.join("\n");
        let (known, errors) = given(Path::new("/x"), zones.as_bytes());
        assert_eq!((known.len(), errors.len()), (FLAGS_MAX + 1, 1));
        let expected = "/x:1301: is one flag too many; give at most 1300";
        assert_eq!(errors[0].to_string(), expected);
    }

    /// A path that nothing else has.
    fn path(name: &str) -> PathBuf {
        let path = env::temp_dir().join(format!("dot-proxy-config-{name}-{}", process::id()));
        fs::remove_file(&path).ok();
        path
    }

    #[test]
    fn a_file_is_a_file_and_not_without_end() {
        let pipe = path("pipe");
        mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        for (path, expected) in [
            (Path::new("/nowhere/x"), "cannot be read: no such file or directory"),
            (Path::new("/tmp"), "cannot be read: it is a directory; a file was expected"),
            (Path::new("/dev/zero"), "cannot be read: it is a device; a file was expected"),
            (&pipe, "cannot be read: it is a pipe; a file was expected"),
        ] {
            let error = octets(path).unwrap_err();
            assert!(error.text.to_lowercase().starts_with(expected), "{error}");
        }
        fs::remove_file(pipe).unwrap();

        let large = path("large");
        for (len, is_read) in [(0, true), (OCTETS_MAX, true), (OCTETS_MAX + 1, false)] {
            File::create(&large).unwrap().set_len(len as u64).unwrap();
            let result = octets(&large);
            assert_eq!(result.as_ref().map(Vec::len).ok(), is_read.then_some(len));
            assert!(is_read || result.unwrap_err().text.starts_with("has more than 64 KiB"));
        }
        fs::remove_file(large).unwrap();
    }
}
